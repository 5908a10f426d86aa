/*
 * Sums and maxima over a warp and over a block. All threads have to call them; every thread gets the result, and it does not
 * depend on which thread it is.
 */
#ifndef QSTREAM_INFER_CUDA_WARP_CUH
#define QSTREAM_INFER_CUDA_WARP_CUH

#include "infer/cuda/device.cuh"

struct add_values {
    template <typename T> __device__ T operator()(T a, T b) const { return a + b; }
};
/* NaN wins. */
struct larger_value {
    __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

template <typename T, typename Combine> __device__ static inline T warp_reduce(T value, Combine combine) {
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value = combine(value, __shfl_xor_sync(FULL_WARP, value, lane));
    return value;
}

/* `space`: WARP values of shared memory, free to use. The block has whole warps. */
template <typename T, typename Combine> __device__ static inline T block_reduce(T value, Combine combine, T *space) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_reduce(value, combine);
    __syncthreads(); /* what was in `space` has been read */
    if (lane == 0)
        space[warp] = value;
    __syncthreads();
    value = space[0];
    for (unsigned i = 1; i < warps; i++)
        value = combine(value, space[i]);
    return value;
}

#endif
