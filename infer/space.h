/* Counting and laying out memory: pieces begin at lines of the cache. */
#ifndef QSTREAM_INFER_SPACE_H
#define QSTREAM_INFER_SPACE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that --memory has to cover beside what is counted one by one. */
enum {
    SPACE_PROGRAM = 48 << 20, /* the program, its libraries, generated kernels, stacks */
    SPACE_TENSOR = 640,       /* what is kept of a tensor's header */
    SPACE_PACKED = 64 << 20   /* wanted for packed weights: fewer rounds */
};

static inline uint64_t space_larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static inline uint64_t space_aligned(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

/* The next `bytes` behind `base`, at *at, which moves on. With base NULL they are only counted. */
static inline void *space_take(unsigned char *base, size_t *at, size_t bytes) {
    void *place = base ? base + *at : NULL;
    *at += space_aligned(bytes);
    return place;
}

#endif
