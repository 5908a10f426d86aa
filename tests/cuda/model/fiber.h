/*
 * Fibers: stacks that a thread of the system switches between, without system calls. The sanitizers are told of each
 * switch; under ThreadSanitizer a fiber is a thread of its own, and switching orders nothing.
 */
#ifndef QSTREAM_CUDA_MODEL_FIBER_H
#define QSTREAM_CUDA_MODEL_FIBER_H

#include <cstddef>

namespace model {

struct fiber {
    void *stack_pointer; /* where it stopped */
    char *stack;
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    void *thread;     /* ThreadSanitizer's */
};

/* The caller's own stack as a fiber, to come back to. */
void fiber_adopt(fiber *own);
/* A new one; `body` never returns and is started by the first switch to it. */
void fiber_create(fiber *created, void (*body)());
/* Goes on with `to`; returns when somebody switches back. */
void fiber_switch(fiber *from, fiber *to);

} // namespace model

#endif
