/*
 * Sums of rows, each with a factor: the scores of a query over transposed keys, and values mixed by their shares. The
 * same results to the bit on each instruction set.
 */
#ifndef QSTREAM_INFER_CPU_COMBINE_H
#define QSTREAM_INFER_CPU_COMBINE_H

#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"

/* out[j] = sum over r of factors[r] * matrix[r * stride + j], j below n; in float32, in the order of the rows. */
typedef void combine_function(const float *matrix, size_t stride, const float *factors, uint32_t rows, uint32_t n,
                              float *out);

combine_function combine_portable, combine_avx2, combine_avx512;

/* That of a level, or of the next lower one. */
static inline combine_function *combine_of(enum cpu_level level) {
#if defined __x86_64__
    if (level == CPU_AVX512)
        return combine_avx512;
    if (level == CPU_AVX2)
        return combine_avx2;
#endif
    (void)level; /* arm64's compiler takes NEON for plain C */
    return combine_portable;
}

#endif
