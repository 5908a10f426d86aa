#include "common/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t pending; /* a signal handler has nowhere else to leave word */

static void note(int signal) {
    (void)signal;
    pending = 1;
}

void interrupt_install(void) {
    static struct interrupt_stack stack;
    struct sigaction action = {.sa_handler = note, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)};
    sigemptyset(&action.sa_mask);
    interrupt_thread_begin(&stack);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void interrupt_thread_begin(struct interrupt_stack *stack) {
    stack_t old;
    stack->used = sigaltstack(NULL, &old) == 0 && old.ss_flags & SS_DISABLE; /* a sanitizer gives each thread one */
    if (stack->used)
        sigaltstack(&(stack_t){.ss_sp = stack->bytes, .ss_size = sizeof stack->bytes}, NULL);
}

void interrupt_thread_end(struct interrupt_stack *stack) {
    if (stack->used)
        sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    stack->used = false;
}

bool interrupt_pending(void) { return pending != 0; }
