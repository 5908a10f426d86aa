/*
 * Runs the blocks of a launch, one after another, and the threads of a block as fibers. A thread runs until it has to wait;
 * then the next that is ready goes on, in the order that QSTREAM_MODEL_ORDER says. A kernel without barriers runs its
 * threads one after another on one stack.
 *
 * Under ThreadSanitizer each thread has a fiber that ThreadSanitizer takes for a thread. What orders the threads of a block is
 * __syncthreads and __syncwarp; nothing orders two blocks of a launch. Fibers are used again: thread t of block b has fiber
 * (t + b) % (threads of a block + ROTATION), so that the same thread of two blocks is not taken for one thread.
 */
#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef MODEL_TSAN
#include <sanitizer/tsan_interface.h>
#define TSAN_ACQUIRE(at) __tsan_acquire(at)
#define TSAN_RELEASE(at) __tsan_release(at)
#else
#define TSAN_ACQUIRE(at) (void)(at)
#define TSAN_RELEASE(at) (void)(at)
#endif

MODEL_THREAD_LOCAL uint3 threadIdx, blockIdx;
MODEL_THREAD_LOCAL dim3 blockDim, gridDim;

namespace model {

enum { ROTATION = WARP, FIBERS = THREADS_MOST + ROTATION };

struct worker {
    const launch *work;
    thread threads[THREADS_MOST];
    warp warps[THREADS_MOST / WARP];
    unsigned thread_count, left, at_barrier;
    uint64_t block_number; /* in the order of running, of all launches */
    /* a ring of those that can run */
    thread *ready[THREADS_MOST];
    unsigned ready_first, ready_count;
    thread *self;
    uint64_t random;
    fiber main, fibers[FIBERS];
    fiber *spare[FIBERS];
    unsigned spare_count, created;
    unsigned barriers;
    /* addresses that stand for what ThreadSanitizer has to know is ordered */
    char launched, finished, barrier[2], fence;
    unsigned char *shared; /* mapped: SHARED bytes */
    unsigned char *shared_exact;
};
enum { SHARED = 256 << 10 };

static worker at; /* one: blocks run on one thread of the system, under the model's lock */

thread *thread_self() { return at.self; }
warp *warp_self() { return &at.warps[at.self->number / WARP]; }

size_t shared_bytes() { return at.work->shared; }

uint64_t random_next() {
    at.random ^= at.random << 13;
    at.random ^= at.random >> 7;
    at.random ^= at.random << 17;
    return at.random;
}

void thread_ready(thread *woken) {
    woken->state = READY;
    at.ready[(at.ready_first + at.ready_count++) % THREADS_MOST] = woken;
}

/* NULL: none. */
static thread *ready_take() {
    if (at.ready_count == 0)
        return nullptr;
    thread **const first = &at.ready[at.ready_first];
    if (setting().order == settings::RANDOM) {
        thread **const other = &at.ready[(at.ready_first + random_next() % at.ready_count) % THREADS_MOST];
        thread *const taken = *other;
        *other = *first;
        *first = taken;
    }
    at.ready_first = (at.ready_first + 1) % THREADS_MOST;
    at.ready_count--;
    return *first;
}

static void fiber_body();

static void become(thread *next) {
    at.self = next;
    threadIdx = next->index;
}

static void fiber_of(thread *starting) {
#ifdef MODEL_TSAN
    starting->on = &at.fibers[(starting->number + at.block_number) % (at.thread_count + ROTATION)];
#else
    if (at.spare_count == 0)
        fiber_create(at.spare[at.spare_count++] = &at.fibers[at.created++], fiber_body);
    starting->on = at.spare[--at.spare_count];
#endif
}

static void fiber_spare(fiber *free) {
#ifdef MODEL_TSAN
    (void)free; /* they are found by number */
#else
    at.spare[at.spare_count++] = free;
#endif
}

static void resume(fiber *from, thread *next) {
    if (next->on == nullptr)
        fiber_of(next);
    become(next);
    if (next->on != from)
        fiber_switch(from, next->on);
}

void thread_park() {
    thread *const self = at.self, *const next = ready_take();
    if (next == nullptr)
        block_fault("threads wait for each other for ever (barrier or warp function that not all reach)");
    if (next != self)
        resume(self->on, next);
}

/* What a fiber does: threads, one after another. */
static void fiber_body() {
    for (;;) {
        TSAN_ACQUIRE(&at.launched);
        at.work->call(at.work->parameters);
        TSAN_RELEASE(&at.finished);
        thread *const self = at.self;
        fiber *const own = self->on;
        self->state = EXITED;
        at.left--;
        if (at.at_barrier > 0 && at.left == at.at_barrier)
            block_fault("thread %u has returned, others wait in __syncthreads", self->number);
        thread *const next = ready_take();
        if (next == nullptr && at.left > 0)
            block_fault("thread %u has returned, others wait for ever", self->number);
        if (next == nullptr) {
            fiber_spare(own);
            fiber_switch(own, &at.main);
            continue;
        }
#ifndef MODEL_TSAN
        if (next->on == nullptr) { /* on the same stack */
            next->on = own;
            become(next);
            continue;
        }
#endif
        fiber_spare(own);
        resume(own, next);
    }
}

/* ---- shared memory ---- */

/*
 * Filled with poison before each block. With AddressSanitizer it is as long as was asked for. ThreadSanitizer would take the
 * next block's accesses for races with the last one's: unmapping makes it forget them, and mapping is done past it.
 */
static void shared_prepare(size_t bytes) {
#ifdef MODEL_TSAN
    if (at.shared != nullptr)
        munmap(at.shared, SHARED);
    at.shared = (unsigned char *)syscall(SYS_mmap, at.shared, (size_t)SHARED, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | (at.shared ? MAP_FIXED : 0), -1, 0);
    at.shared_exact = at.shared;
#else
    free(at.shared);
    /* aligned to 16, not to 32 */
    if (posix_memalign((void **)&at.shared, 32, 16 + bytes) != 0)
        fault("no memory");
    at.shared_exact = at.shared + 16;
#endif
    for (size_t i = 0; i < bytes; i++)
        at.shared_exact[i] = setting().poison;
}

/* ---- launches ---- */

static void block_run(size_t number) {
    const launch *const work = at.work;
    blockIdx.x = (unsigned)(number % work->grid.x);
    blockIdx.y = (unsigned)(number / work->grid.x % work->grid.y);
    blockIdx.z = (unsigned)(number / work->grid.x / work->grid.y);
    shared_prepare(work->shared);
    at.block_number++;
    at.left = at.thread_count;
    at.at_barrier = 0;
    at.ready_first = at.ready_count = 0;
    for (unsigned i = 0; i < at.thread_count; i++) {
        thread *const t = &at.threads[setting().order == settings::REVERSE ? at.thread_count - 1 - i : i];
        t->on = nullptr;
        if (!t->copies.empty())
            t->copies.clear();
        thread_ready(t);
    }
    for (unsigned i = 0; i < (at.thread_count + WARP - 1) / WARP; i++)
        at.warps[i].waiting = 0;
    thread *const first = ready_take();
    resume(&at.main, first);
}

void launch_run(const launch *work) {
    if (at.random == 0)
        at.random = setting().seed * 0x9e3779b97f4a7c15u | 1;
    fiber_adopt(&at.main);
    at.work = work;
    gridDim = work->grid;
    blockDim = work->block;
    at.thread_count = work->block.x * work->block.y * work->block.z;
#ifdef MODEL_TSAN
    /* here, because a fiber comes after all that its maker did */
    for (; at.created < at.thread_count + ROTATION; at.created++)
        fiber_create(&at.fibers[at.created], fiber_body);
#endif
    for (unsigned i = 0; i < at.thread_count; i++) {
        at.threads[i].number = i;
        at.threads[i].index =
            uint3{i % work->block.x, i / work->block.x % work->block.y, i / work->block.x / work->block.y};
    }
    const size_t blocks = (size_t)work->grid.x * work->grid.y * work->grid.z;
    /* in random order: i * an odd step, where that reaches all, from a random start */
    size_t step = 1, start = 0;
    if (setting().order == settings::RANDOM) {
        start = random_next() % blocks;
        step = (random_next() % blocks) | 1;
        size_t a = step, b = blocks;
        while (b != 0) {
            const size_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a != 1)
            step = 1;
    }
    TSAN_RELEASE(&at.launched);
    for (size_t i = 0; i < blocks; i++)
        block_run(setting().order == settings::REVERSE ? blocks - 1 - i : (start + i * step) % blocks);
    TSAN_ACQUIRE(&at.finished);
    at.work = nullptr;
}

void block_fault(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "cuda model: kernel %s, block (%u, %u, %u): %s\n", function_name(at.work->function).c_str(),
            blockIdx.x, blockIdx.y, blockIdx.z, text);
    /* runs of threads that are in the same state at the same place */
    for (unsigned i = 0, from = 0; i < at.thread_count; i++) {
        const thread *const t = &at.threads[i], *const next = t + 1;
        if (i + 1 < at.thread_count && next->state == t->state &&
            (t->state == EXITED || t->state == READY || (next->line == t->line && next->mask == t->mask)))
            continue;
        fprintf(stderr, "cuda model:   threads %u to %u ", from, i);
        if (t->state == EXITED)
            fprintf(stderr, "have returned\n");
        else if (t->state == READY)
            fprintf(stderr, "can run\n");
        else if (t->state == AT_BARRIER)
            fprintf(stderr, "wait in __syncthreads, %s:%d\n", t->file, t->line);
        else
            fprintf(stderr, "wait in %s with mask %08x, %s:%d\n", t->function, t->mask, t->file, t->line);
        from = i + 1;
    }
    abort();
}

} // namespace model

using namespace model;

unsigned model_lane() { return at.self->number % WARP; }

unsigned char *model_shared_memory() { return at.shared_exact; }

void model_syncthreads(const char *file, int line) {
    thread *const self = at.self;
    self->state = AT_BARRIER;
    self->file = file;
    self->line = line;
    char *const order = &at.barrier[at.barriers % 2];
    TSAN_RELEASE(order);
    if (++at.at_barrier == at.thread_count) {
        at.at_barrier = 0;
        at.barriers++;
        for (unsigned i = 0; i < at.thread_count; i++) {
            const thread *const t = &at.threads[i];
            if (t->line != line || (t->file != file && strcmp(t->file, file) != 0))
                block_fault("threads %u and %u wait in different __syncthreads", t->number, self->number);
        }
        for (unsigned i = 0; i < at.thread_count; i++)
            thread_ready(&at.threads[setting().order == settings::REVERSE ? at.thread_count - 1 - i : i]);
    } else if (at.at_barrier == at.left) {
        block_fault("some threads have returned, the others wait in __syncthreads");
    }
    thread_park();
    TSAN_ACQUIRE(order);
}

void model_fence() {
    TSAN_ACQUIRE(&at.fence);
    TSAN_RELEASE(&at.fence);
}
