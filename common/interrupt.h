/*
 * SIGINT and SIGTERM as a flag that long loops look at. The second signal ends the process at once.
 */
#ifndef QSTREAM_COMMON_INTERRUPT_H
#define QSTREAM_COMMON_INTERRUPT_H

#include <stdbool.h>

/*
 * Where a thread handles signals. oneDNN's AVX2 kernels let the stack pointer point into buffers while they compute: a
 * signal that is handled on such a "stack" overwrites what lies before it. So each thread that computes has one of these.
 */
struct interrupt_stack {
    unsigned char bytes[64 << 10]; /* the registers alone take 11 KiB with AMX */
    bool used;
};

/* Installs the handlers, and the stack of the calling thread. */
void interrupt_install(void);

/* In every other thread that computes, before and after. The stack has to last that long. */
void interrupt_thread_begin(struct interrupt_stack *stack);
void interrupt_thread_end(struct interrupt_stack *stack);

bool interrupt_pending(void);

#endif
