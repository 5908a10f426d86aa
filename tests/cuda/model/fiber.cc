/* See fiber.h. The switch saves what the calling conventions (System V x86-64, AAPCS64) let a function keep. */
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include "model.h"

#ifdef MODEL_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef MODEL_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace model {

#if defined(MODEL_ASAN) || defined(MODEL_TSAN)
enum { STACK = 256 << 10 };
#else
enum { STACK = 64 << 10 };
#endif

enum { COLOURS = 16, COLOUR_BYTES = 256 };

extern "C" void model_switch_stacks(void **from, void *to);

#if defined(__x86_64__)
asm(R"(
    .text
    .globl model_switch_stacks
    .hidden model_switch_stacks
    .type model_switch_stacks, @function
model_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size model_switch_stacks, . - model_switch_stacks
)");
enum { SAVED = 7, RETURN = 6, BELOW = 1 }; /* words: saved, where the return address is, to align as after a call */
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl model_switch_stacks
    .hidden model_switch_stacks
    .type model_switch_stacks, %function
model_switch_stacks:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size model_switch_stacks, . - model_switch_stacks
)");
enum { SAVED = 20, RETURN = 11, BELOW = 0 };
#else
#error "fibers are written for x86-64 and arm64"
#endif

static MODEL_THREAD_LOCAL fiber *running, *came_from;

/* The first thing on a stack after a switch to it. */
static void arrived() {
#ifdef MODEL_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(running->fake_stack, &bottom, &bytes);
    if (came_from->stack == nullptr) { /* an adopted one */
        came_from->stack = (char *)bottom;
        came_from->stack_bytes = bytes;
    }
#endif
}

static MODEL_THREAD_LOCAL void (*body_to_start)();
static void start() {
    void (*const body)() = body_to_start;
    arrived();
    body();
    __builtin_trap();
}

void fiber_adopt(fiber *own) {
    *own = fiber{};
#ifdef MODEL_TSAN
    own->thread = __tsan_get_current_fiber();
#endif
}

void fiber_create(fiber *created, void (*body)()) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *const memory =
        (char *)mmap(nullptr, page + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0)
        fault("no memory for the stacks of threads");
    *created = fiber{};
    created->stack = memory + page;
    created->stack_bytes = STACK;
    /* not all at the same offset in their pages, which would be the same lines of the cache */
    static unsigned colour;
    void **const top = (void **)(created->stack + STACK - colour++ % COLOURS * COLOUR_BYTES) - BELOW - SAVED;
    top[RETURN] = (void *)start;
    created->stack_pointer = top;
    body_to_start = body;
#ifdef MODEL_TSAN
    created->thread = __tsan_create_fiber(0);
#endif
}

void fiber_switch(fiber *from, fiber *to) {
    came_from = from;
    running = to;
#ifdef MODEL_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef MODEL_TSAN
    __tsan_switch_to_fiber(to->thread, __tsan_switch_to_fiber_no_sync);
#endif
    model_switch_stacks(&from->stack_pointer, to->stack_pointer);
    arrived();
}

} // namespace model
