/*
 * Sizes and places within an allocation on a device, for its plan and for its use.
 */
#ifndef QSTREAM_INFER_CUDA_LAY_H
#define QSTREAM_INFER_CUDA_LAY_H

#include <stddef.h>
#include <stdint.h>

enum {
    CUDA_ALIGNMENT = 256,         /* of what lies in one allocation */
    CUDA_PRODUCT_SPACE = 64 << 20 /* that products of many tokens work in: cuBLASLt's workspace */
};

static inline uint64_t cuda_aligned(uint64_t bytes) {
    return (bytes + CUDA_ALIGNMENT - 1) / CUDA_ALIGNMENT * CUDA_ALIGNMENT;
}

static inline uint64_t cuda_larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* The next `bytes` behind `base`, which is NULL while only the size, *at, is wanted. */
static inline void *cuda_take(unsigned char *base, uint64_t *at, uint64_t bytes) {
    void *place = base ? base + *at : NULL;
    *at += cuda_aligned(bytes);
    return place;
}

#endif
