/*
 * x of the products of one token, as prepare.cu writes it and matvec.cu reads it. A step is what a warp reads of a row at
 * once: 16 bytes of codes in each lane, a chunk. x is padded with zeros to whole steps. First, in
 * PREPARED_HEADER bytes, a struct prepared_header; then
 *
 * - MXFP4 (a chunk is a block of 32 columns): per step four times 16 bytes of each lane: 0 .. 15 and 16 .. 31 of the upper,
 *   then of the lower bytes of its block's 16-bit integers: x = (256 * upper + lower) * scale, only `upper` signed.
 *   Behind all steps, per block, its scale and what E2M1_OFFSET adds to its sums, negated.
 * - other formats: float32, per step elements 0 .. 3 of each lane's chunk, then 4 .. 7, and so on.
 */
#ifndef QSTREAM_INFER_CUDA_PREPARED_CUH
#define QSTREAM_INFER_CUDA_PREPARED_CUH

#include "infer/cuda/codes.cuh"
#include "infer/cuda/device.cuh"

enum { CHUNK_BYTES = 16, PREPARED_HEADER = 64, PREPARED_PLANE = WARP * CHUNK_BYTES };

/* Columns of a chunk. */
__host__ __device__ constexpr uint32_t chunk_columns(int format) {
    return format == WEIGHT_F32                            ? 4
           : format == WEIGHT_F16 || format == WEIGHT_BF16 ? 8
           : format == WEIGHT_MXFP4                        ? 32
                                                           : 16;
}

__host__ __device__ static inline uint32_t prepared_steps(int format, uint32_t columns) {
    const uint32_t step = WARP * chunk_columns(format);
    return columns / step + (columns % step != 0);
}

struct prepared_header {
    float factor; /* of the product */
    e2m1_tables tables;
};

struct prepared_block {
    float scale;
    int correction;
};

#endif
