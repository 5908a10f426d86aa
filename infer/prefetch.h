/*
 * A thread that loads what is needed next, step by step, while the caller works on what was loaded before.
 */
#ifndef QSTREAM_INFER_PREFETCH_H
#define QSTREAM_INFER_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct prefetch;

/* Loads a step into `buffer`; runs in the thread, one step after another. */
typedef enum status prefetch_function(void *context, size_t step, void *buffer, struct error *error);

struct prefetch_options {
    size_t steps;
    const uint64_t *sizes; /* [steps], bytes */
    unsigned buffers;      /* 1: loading waits for the caller; 2: overlaps with it */
    bool keep;             /* all steps are loaded before the first is given out, and stay */
    prefetch_function *load;
    void *context;
    /* Where buffers come from; NULL: ordinary memory. allocate: NULL when there is too little. */
    void *(*allocate)(void *allocator, uint64_t bytes);
    void (*release)(void *allocator, void *buffer);
    void *allocator;
};

/* Bytes of its buffers. */
uint64_t prefetch_bytes(const struct prefetch_options *options);

/* Free with prefetch_stop, which waits for a load under way. `options` is copied, its arrays are not. */
enum status prefetch_start(const struct prefetch_options *options, struct prefetch **prefetch, struct error *error);
void prefetch_stop(struct prefetch *prefetch); /* NULL is fine */

/*
 * Waits for the next step; the step given before is released. The step's buffer is the one that its load was given. The
 * error is the load's.
 */
enum status prefetch_next(struct prefetch *prefetch, struct error *error);

/* The buffer of a step that was given out and not released. */
void *prefetch_buffer(const struct prefetch *prefetch, size_t step);

#endif
