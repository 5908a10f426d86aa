#include "infer/cpu/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/thread_team.h"
#include "infer/cpu/product.h"

/*
 * Looks for new work so often before a thread goes to sleep, some hundred microseconds; in between it lets others run,
 * who may be those that it waits for.
 */
enum { SPINS = 5000, SPINS_ALONE = 50 };

/* The tasks of a thread: a run of them, so that what it reads is one stream. Others take of it when theirs are done. */
struct share {
    _Alignas(64) atomic_size_t next;
    size_t end;
};

/*
 * The state of the loop: its number, whether it still takes threads in, and how many are at work in it. A thread that comes
 * late is not waited for: on a machine that others use, too, it may not run for a while.
 */
#define ROUND (UINT64_C(1) << 32)
#define CLOSED (UINT64_C(1) << 31)
#define INSIDE (CLOSED - 1)

struct workers {
    struct thread_team team;
    unsigned count; /* with the caller's */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    unsigned sleeping;
    atomic_bool stop;
    /* the loop that runs; written while nobody is inside */
    atomic_uint_fast64_t state;
    struct share *shares; /* of each thread */
    task_function *function;
    void *context;
};

static void pause_briefly(int spin) {
    if (spin % SPINS_ALONE == SPINS_ALONE - 1) {
        sched_yield();
        return;
    }
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void tasks_run(struct workers *workers, unsigned thread) {
    for (unsigned i = 0; i < workers->count; i++) {
        struct share *share = &workers->shares[(thread + i) % workers->count];
        size_t task;
        while ((task = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) < share->end)
            workers->function(workers->context, task, thread);
    }
}

/* Enters the loop if it is another than the last that the thread was in. */
static bool round_enter(struct workers *workers, uint64_t *last) {
    uint_fast64_t state = atomic_load_explicit(&workers->state, memory_order_relaxed);
    while (!(state & CLOSED) && state / ROUND != *last)
        if (atomic_compare_exchange_weak_explicit(&workers->state, &state, state + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *last = state / ROUND;
            return true;
        }
    return false;
}

/* Waits for a loop and enters it; false when there will be none. */
static bool round_wait(struct workers *workers, uint64_t *last) {
    for (int i = 0; i < SPINS && !workers->stop; i++) {
        if (round_enter(workers, last))
            return true;
        pause_briefly(i);
    }
    bool entered = false;
    pthread_mutex_lock(&workers->lock);
    workers->sleeping++;
    while (!workers->stop && !(entered = round_enter(workers, last)))
        pthread_cond_wait(&workers->wake, &workers->lock);
    workers->sleeping--;
    pthread_mutex_unlock(&workers->lock);
    return entered;
}

static void worker(void *context, unsigned number) {
    struct workers *workers = context;
    uint64_t last = 0;
    product_thread_begin();
    while (round_wait(workers, &last)) {
        tasks_run(workers, number + 1);
        atomic_fetch_sub_explicit(&workers->state, 1, memory_order_release);
    }
    product_thread_end();
}

static void wake_all(struct workers *workers) {
    pthread_mutex_lock(&workers->lock);
    if (workers->sleeping > 0)
        pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
}

static void round_begin(struct workers *workers, size_t tasks) {
    for (unsigned i = 0; i < workers->count; i++) {
        atomic_store_explicit(&workers->shares[i].next, tasks * i / workers->count, memory_order_relaxed);
        workers->shares[i].end = tasks * (i + 1) / workers->count;
    }
    uint64_t round = atomic_load_explicit(&workers->state, memory_order_relaxed) / ROUND;
    atomic_store_explicit(&workers->state, (uint32_t)(round + 1) * ROUND, memory_order_release);
    wake_all(workers);
}

static void round_end(struct workers *workers) {
    atomic_fetch_or_explicit(&workers->state, CLOSED, memory_order_relaxed);
    for (int i = 0; atomic_load_explicit(&workers->state, memory_order_acquire) & INSIDE; i = (i + 1) % SPINS_ALONE)
        pause_briefly(i);
}

void workers_run(struct workers *workers, size_t count, task_function *function, void *context) {
    workers->function = function;
    workers->context = context;
    if (workers->count > 1 && count > 1) {
        round_begin(workers, count);
        tasks_run(workers, 0);
        round_end(workers);
        return;
    }
    for (size_t task = 0; task < count; task++)
        function(context, task, 0);
}

enum status workers_start(unsigned count, struct workers **out, struct error *error) {
    struct workers *workers = calloc(1, sizeof *workers);
    *out = workers;
    if (!workers)
        return error_set_memory(error);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, NULL);
    workers->state = CLOSED;
    product_thread_begin();
    workers->count = 1;
    if (count <= 1)
        return STATUS_OK;
    workers->shares = aligned_alloc(64, count * sizeof *workers->shares);
    if (!workers->shares)
        return error_set_memory(error);
    enum status status = thread_team_start(&workers->team, count - 1, worker, workers, error);
    workers->count += workers->team.count;
    return status;
}

void workers_stop(struct workers *workers) {
    if (!workers)
        return;
    if (workers->team.count > 0) {
        workers->stop = true;
        wake_all(workers);
        thread_team_join(&workers->team);
    }
    pthread_cond_destroy(&workers->wake);
    pthread_mutex_destroy(&workers->lock);
    free(workers->shares);
    free(workers);
}

unsigned workers_count(const struct workers *workers) { return workers->count; }
