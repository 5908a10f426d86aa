/*
 * The product of 16 bytes of codes, a chunk, with x as prepared.cuh has it: of MXFP4 in integers, of all others in float32.
 */
#ifndef QSTREAM_INFER_CUDA_CHUNK_CUH
#define QSTREAM_INFER_CUDA_CHUNK_CUH

#include "infer/cuda/codes.cuh"
#include "infer/cuda/prepared.cuh"

/* Where a lane reads x of its chunks, and x of one. */
template <int FORMAT> struct chunk_x {
    struct place {
        const float4 *x;

        __device__ inline void find(const unsigned char *prepared, uint32_t, uint32_t lane) {
            x = (const float4 *)(prepared + PREPARED_HEADER) + lane;
        }
        __device__ inline void move(uint32_t steps) { x += (size_t)steps * (chunk_columns(FORMAT) / 4) * WARP; }
    };
    float4 x[chunk_columns(FORMAT) / 4];

    __device__ inline void load(const place &from) {
        UNROLL
        for (uint32_t i = 0; i < chunk_columns(FORMAT) / 4; i++)
            x[i] = __ldg(from.x + i * WARP);
    }
};

template <> struct chunk_x<WEIGHT_MXFP4> {
    struct place {
        const uint4 *planes;
        const uint2 *blocks;

        __device__ inline void find(const unsigned char *prepared, uint32_t columns, uint32_t lane) {
            const unsigned char *begin = prepared + PREPARED_HEADER;
            planes = (const uint4 *)begin + lane;
            const size_t steps = prepared_steps(WEIGHT_MXFP4, columns);
            blocks = (const uint2 *)(begin + steps * 4 * PREPARED_PLANE) + lane;
        }
        __device__ inline void move(uint32_t steps) {
            planes += (size_t)steps * 4 * WARP;
            blocks += (size_t)steps * WARP;
        }
    };
    uint4 upper[2], lower[2];
    float scale;
    int correction;

    __device__ inline void load(const place &from) {
        upper[0] = __ldg(from.planes);
        upper[1] = __ldg(from.planes + WARP);
        lower[0] = __ldg(from.planes + 2 * WARP);
        lower[1] = __ldg(from.planes + 3 * WARP);
        const uint2 block = __ldg(from.blocks); /* struct prepared_block */
        scale = __uint_as_float(block.x);
        correction = (int)block.y;
    }
};

/* ---- products of a chunk ---- */

/* Eight e2m1 codes with eight integers of x; `upper` and `lower` are added to. */
__device__ static inline void e2m1_eight(const e2m1_tables &tables, uint32_t codes, uint32_t upper0, uint32_t upper1,
                                         uint32_t lower0, uint32_t lower1, int &upper, uint32_t &lower) {
    const uint32_t flipped = codes ^ 0x88888888u;
    const uint32_t first = e2m1_bytes(tables, codes, flipped), second = e2m1_bytes(tables, codes >> 16, flipped >> 16);
    upper = __dp4a((int)upper0, (int)first, upper);
    lower = bytes_dot(lower0, first, lower);
    upper = __dp4a((int)upper1, (int)second, upper);
    lower = bytes_dot(lower1, second, lower);
}

/* The sum of a block, of integers, twice the products: less than 2^24, which float32 holds exactly. */
__device__ static inline float mxfp4_dot(const e2m1_tables &tables, const uint4 &codes,
                                         const chunk_x<WEIGHT_MXFP4> &x) {
    int upper = 0;
    uint32_t lower = (uint32_t)x.correction;
    e2m1_eight(tables, codes.x, x.upper[0].x, x.upper[0].y, x.lower[0].x, x.lower[0].y, upper, lower);
    e2m1_eight(tables, codes.y, x.upper[0].z, x.upper[0].w, x.lower[0].z, x.lower[0].w, upper, lower);
    e2m1_eight(tables, codes.z, x.upper[1].x, x.upper[1].y, x.lower[1].x, x.lower[1].y, upper, lower);
    e2m1_eight(tables, codes.w, x.upper[1].z, x.upper[1].w, x.lower[1].z, x.lower[1].w, upper, lower);
    return (float)((int)lower + 256 * upper);
}

template <int FORMAT> __device__ static inline void chunk_decode(const uint4 &codes, float *out) {
    const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    UNROLL
    for (int i = 0; i < 4; i++) {
        if (FORMAT == WEIGHT_F32)
            out[i] = __uint_as_float(words[i]);
        else if (FORMAT == WEIGHT_F16)
            f16_pair(words[i], out[2 * i], out[2 * i + 1]);
        else if (FORMAT == WEIGHT_BF16)
            bf16_two(words[i], out[2 * i], out[2 * i + 1]);
        else
            e4m3_four(words[i], out + 4 * i);
    }
}

template <int FORMAT> __device__ static inline float float_dot(const float *values, const chunk_x<FORMAT> &x) {
    float sum = 0;
    UNROLL
    for (uint32_t i = 0; i < chunk_columns(FORMAT) / 4; i++) {
        sum = fmaf(values[4 * i], x.x[i].x, sum);
        sum = fmaf(values[4 * i + 1], x.x[i].y, sum);
        sum = fmaf(values[4 * i + 2], x.x[i].z, sum);
        sum = fmaf(values[4 * i + 3], x.x[i].w, sum);
    }
    return sum;
}

#endif
