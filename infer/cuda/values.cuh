/*
 * Runs of values in memory, of the types of cuda_type: `N` of them from element `at` on, as float32 in registers. N is 1, or
 * 4 or 8 where the address is aligned to what is loaded: 16 bytes, or all of the run where it is less.
 */
#ifndef QSTREAM_INFER_CUDA_VALUES_CUH
#define QSTREAM_INFER_CUDA_VALUES_CUH

#include "infer/cuda/numbers.cuh"
#include "infer/cuda/plugin.h"

static inline size_t type_bytes(cuda_type type) { return type == CUDA_F32 ? 4 : type == CUDA_BF16 ? 2 : 1; }

/* Whether runs of `n` values at this address, one after another, are aligned. */
static inline bool runs_aligned(const void *address, cuda_type type, unsigned n) {
    const size_t bytes = type_bytes(type) * n;
    return (uintptr_t)address % (bytes < 16 ? bytes : 16) == 0;
}

template <cuda_type TYPE, int N> __device__ static inline void values_load(const void *base, size_t at, float out[N]) {
    if (TYPE == CUDA_F32) {
        const float *from = (const float *)base + at;
        if (N == 1)
            out[0] = *from;
        else
            for (int i = 0; i < N; i += 4) {
                const float4 four = *(const float4 *)(from + i);
                out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
            }
        return;
    }
    const uint16_t *from = (const uint16_t *)base + at;
    if (N == 1) {
        out[0] = bf16_value(*from);
        return;
    }
    uint32_t words[N < 8 ? 2 : 4];
    if (N == 8) {
        const uint4 four = *(const uint4 *)from;
        words[0] = four.x, words[1] = four.y, words[N < 8 ? 0 : 2] = four.z, words[N < 8 ? 1 : 3] = four.w;
    } else {
        const uint2 two = *(const uint2 *)from;
        words[0] = two.x, words[1] = two.y;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
}

template <cuda_type TYPE, int N>
__device__ static inline void values_store(void *base, size_t at, const float values[N]) {
    if (TYPE == CUDA_F32) {
        float *to = (float *)base + at;
        if (N == 1)
            *to = values[0];
        else
            for (int i = 0; i < N; i += 4)
                *(float4 *)(to + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
    } else if (TYPE == CUDA_BF16) {
        uint16_t *to = (uint16_t *)base + at;
        if (N == 1)
            *to = bf16_code(values[0]);
        else if (N == 4)
            *(uint2 *)to = make_uint2(bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3]));
        else
            *(uint4 *)to = make_uint4(bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3]),
                                      bf16_pair(values[4], values[5]), bf16_pair(values[6], values[7]));
    } else {
        uint8_t *to = (uint8_t *)base + at;
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < N; i++)
            words[i / 4] |= (uint32_t)e4m3_code(values[i]) << i % 4 * 8;
        if (N == 1)
            *to = (uint8_t)words[0];
        else if (N == 4)
            *(uint32_t *)to = words[0];
        else
            *(uint2 *)to = make_uint2(words[0], words[1]);
    }
}

/* The value of e4m3(clamp(x, +-448)), as row_kernels.to_fp8 makes it. NaN stays one. */
__device__ static inline float e4m3_round(float x) {
    x = x > 448 ? 448 : x;
    x = x < -448 ? -448 : x;
    const uint32_t bits = __float_as_uint(x);
    uint32_t exponent = bits & 0x7f800000u;
    exponent = exponent < 0x3c800000u ? 0x3c800000u : exponent;  /* 2^-6, the smallest normal */
    const float magic = __uint_as_float(exponent + (20u << 23)); /* leaves three bits of fraction */
    const float rounded = (__uint_as_float(bits & 0x7fffffffu) + magic) - magic;
    return __uint_as_float(__float_as_uint(rounded) | (bits & 0x80000000u));
}

#endif
