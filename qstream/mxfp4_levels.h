/*
 * The variants of mxfp4_quantize_scalar, one per instruction set; mxfp4_quantize_for chooses. Each is
 * compiled from the one algorithm in mxfp4_kernel.inc, by a file with the compiler flags of its level.
 */
#ifndef QSTREAM_QSTREAM_MXFP4_LEVELS_H
#define QSTREAM_QSTREAM_MXFP4_LEVELS_H

#include <math.h>

#include "common/formats.h"
#include "qstream/mxfp4.h"

mxfp4_quantize_fn mxfp4_quantize_portable;

#if defined(__x86_64__)
mxfp4_quantize_fn mxfp4_quantize_avx2;
mxfp4_quantize_fn mxfp4_quantize_avx512;
#elif defined(__aarch64__)
mxfp4_quantize_fn mxfp4_quantize_neon;
#endif

/*
 * The qstream rule's anchor, shared by the scalar reference and the kernels so that all round alike.
 */

/* Blocks whose 99.5th percentile lies below this become zeros, under this scale. */
#define MXFP4_NEAR_ZERO 1e-6f
enum { MXFP4_NEAR_ZERO_EXPONENT = -24 }; /* floor(log2(1e-6 / 6)) - 1: the first of three equal candidates */

/*
 * The 99.5th percentile of a block's 32 magnitudes, as torch.quantile interpolates it in float32 between the
 * second largest and the largest (counted with multiplicity).
 */
static inline float mxfp4_percentile(float second_largest, float largest) {
    float rank = 0.995f * (MXFP4_BLOCK - 1);
    float fraction = rank - (MXFP4_BLOCK - 2);
    return fmaf(fraction - 1, largest - second_largest, largest);
}

/* floor(log2(percentile / 6)) with a float32 logarithm, for a percentile of at least MXFP4_NEAR_ZERO. */
static inline int mxfp4_anchor_exponent(float percentile) {
    float ratio = percentile / 6;
    uint32_t bits = float_to_bits(ratio);
    /*
     * Just below a power of two the logarithm rounds up to the integer. Its spacing is at most 2^-17 here, so
     * that takes a distance of less than 2^-18 ln 2, 45 units of the last place.
     */
    enum { NEXT_POWER_IS_NEAR = 0x7fffff - 64 };
    if ((bits & 0x7fffff) >= NEXT_POWER_IS_NEAR)
        return (int)floorf((float)log2(ratio));
    return (int)(bits >> 23) - 127;
}

#endif
