/*
 * What a product of small bf16 matrices on tensor cores is made of, one warp at a time: copies to shared memory that do not
 * wait, fragments from there, and the product itself. Each has a second body for the execution model. Fragments are those
 * of mma.m16n8k16 in the PTX ISA; with row = lane / 4 and pair = lane % 4 * 2:
 *
 *     a[0..3]: A[row][pair, +1], A[row + 8][pair], A[row][pair + 8], A[row + 8][pair + 8]
 *     b[0..1]: B[pair, +1][row], B[pair + 8][row]
 *     d[0..3]: D[row][pair], D[row][pair + 1], D[row + 8][pair], D[row + 8][pair + 1]
 */
#ifndef QSTREAM_INFER_CUDA_MMA_CUH
#define QSTREAM_INFER_CUDA_MMA_CUH

#include <string.h>

#include "infer/cuda/device.cuh"

/* Read anew at each call: addresses made from it are not kept in registers, which are wanted for sums. */
__device__ static inline uint32_t lane_number() {
#ifdef __CUDACC__
    uint32_t lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
#else
    return threadIdx.x % WARP;
#endif
}

/* d += A B, A [16, 16] and B [16, 8] bf16. */
__device__ static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    model_mma_m16n8k16_bf16(d, a, b, d);
#endif
}

/*
 * Four matrices [8, 8] of 16-bit values from shared memory; lane i names row i % 8 of matrix i / 8, 16 bytes at `row`. A
 * lane gets out[m] = M[lane / 4][pair, +1]; of the transposed matrices with `TRANSPOSED`, M[pair, +1][lane / 4].
 */
template <bool TRANSPOSED> __device__ static inline void matrices_load(uint32_t out[4], const unsigned char *row) {
#ifdef __CUDACC__
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
#else
    model_ldmatrix(out, 4, TRANSPOSED, row);
#endif
}

/* 16 bytes, aligned to that, to shared memory; zeros where not `valid`. There after copies_wait and a barrier. */
__device__ static inline void copy_start(unsigned char *to, const void *from, bool valid) {
#ifdef __CUDACC__
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#else
    if (valid)
        memcpy(to, from, 16);
    else
        memset(to, 0, 16);
#endif
}

/* All copies that this thread has started are over. */
__device__ static inline void copies_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* 2^x, to 2 units in the last place; results below 2^-126 are 0. */
__device__ static inline float exp2_quick(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

#endif
