/*
 * The number formats on the device: the same codes and values as common/formats.h. Rounding is to nearest, ties to even.
 */
#ifndef QSTREAM_INFER_CUDA_NUMBERS_CUH
#define QSTREAM_INFER_CUDA_NUMBERS_CUH

#include <cuda_runtime.h>
#include <stdint.h>

enum { MX_BLOCK = 32 }; /* columns of an exponent */

__device__ static inline float bf16_value(uint32_t code) { return __uint_as_float(code << 16); }

__device__ static inline uint16_t bf16_code(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40); /* NaN stays one */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

__device__ static inline float bf16_round(float x) { return bf16_value(bf16_code(x)); }

/* Two of them, `low` in the low half. */
__device__ static inline uint32_t bf16_pair(float low, float high) {
#if defined(__CUDA_ARCH__)
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return bf16_code(low) | (uint32_t)bf16_code(high) << 16;
#endif
}

__device__ static inline float f16_value(uint32_t code) {
    const uint32_t sign = (code & 0x8000u) << 16, rest = code & 0x7fffu;
    if (rest >= 0x7c00u)
        return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    /* the exponent's bias is 15 here, 127 there: 2^112 mends it, subnormals too */
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
}

/* e4m3 without infinity: 0x7f and 0xff are NaN. */
__device__ static inline float e4m3_value(uint32_t code) {
    const uint32_t sign = (code & 0x80u) << 24, rest = code & 0x7fu;
    if (rest == 0x7fu)
        return __uint_as_float(sign | 0x7fc00000u);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 20) * 0x1p120f));
}

/* Beyond 448 it saturates; NaN stays one. */
__device__ static inline uint8_t e4m3_code(float x) {
    const uint32_t bits = __float_as_uint(x), sign = bits >> 24 & 0x80u;
    uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint8_t)(sign | 0x7fu);
    if (rest >= 0x43e80000u) /* 464: halfway between 448 and what would be 480 */
        return (uint8_t)(sign | 0x7eu);
    if (rest < 0x3c800000u) /* below 2^-6: in steps of 2^-9, by an addition that rounds to them */
        return (uint8_t)(sign | (__float_as_uint(__uint_as_float(rest) + 0x1p14f) - 0x46800000u));
    rest += 0x0007ffffu + (rest >> 20 & 1);
    return (uint8_t)(sign | ((rest >> 20) - (120u << 3)));
}

/* 2^(code - 127); 255 is NaN. */
__device__ static inline float e8m0_value(uint32_t code) {
    return __uint_as_float(code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : code << 23);
}

/* e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same with a sign. */
__device__ static inline float e2m1_value(uint32_t code) {
    /* one bit of fraction and two of exponent, where float32 has them; bias 1 instead of 127 */
    return __uint_as_float((code & 8u) << 28 | __float_as_uint(__uint_as_float((code & 7u) << 22) * 0x1p126f));
}

#endif
