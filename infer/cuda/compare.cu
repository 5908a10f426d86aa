/*
 * Hidden states compared with the baseline's, and checks for what is not finite. Bound by bandwidth (compare, where
 * double precision is slow, by that). Sums are double and in a fixed order.
 */
#include "infer/cuda/values.cuh"
#include "infer/cuda/warp.cuh"

namespace {

enum { THREADS = 256, CHECKS = 4, BLOCKS_PER_MULTIPROCESSOR = 8 };

/* ---- comparison ---- */

struct comparison {
    double xx, bb, xb, dd;
};

__device__ static inline void comparison_add(comparison *sums, float x, float b) {
    const double p = (double)x, q = (double)b, difference = p - q;
    sums->xx += p * p;
    sums->bb += q * q;
    sums->xb += p * q;
    sums->dd += difference * difference;
}

template <int N>
__global__ void __launch_bounds__(THREADS)
    compare_tokens(const float *x, const float *b, uint32_t columns, double *sums) {
    SHARED_MEMORY(shared);
    double *space = (double *)shared;
    const size_t base = (size_t)blockIdx.x * columns;
    comparison all = {0, 0, 0, 0};
    for (uint32_t column = threadIdx.x * N; column < columns; column += THREADS * N) {
        float values[N], others[N];
        values_load<CUDA_F32, N>(x, base + column, values);
        values_load<CUDA_F32, N>(b, base + column, others);
#pragma unroll
        for (int i = 0; i < N; i++)
            comparison_add(&all, values[i], others[i]);
    }
    const double xx = block_reduce(all.xx, add_values(), space), bb = block_reduce(all.bb, add_values(), space),
                 xb = block_reduce(all.xb, add_values(), space), dd = block_reduce(all.dd, add_values(), space);
    if (threadIdx.x == 0) {
        sums[2 * (size_t)blockIdx.x] = dd == 0 ? 0 : sqrt(dd / bb);
        sums[2 * (size_t)blockIdx.x + 1] = dd == 0 ? 1 : xb / sqrt(xx * bb);
    }
}

} // namespace

void run_compare(cuda_device *device, const float *x, const float *b, uint32_t tokens, uint32_t columns, double *sums) {
    const bool four = columns % 4 == 0 && runs_aligned(x, CUDA_F32, 4) && runs_aligned(b, CUDA_F32, 4);
    launch(device, "to compare hidden states", four ? compare_tokens<4> : compare_tokens<1>, dim3(tokens), THREADS,
           WARP * sizeof(double), x, b, columns, sums);
}

namespace {

/* ---- checks ---- */

/* A bit in each value of the word that is not what it should be: of float32 one, of E4M3 four. */
struct float_bad {
    enum { PER_WORD = 1 };
    __device__ static uint32_t bits(uint32_t word) { return (word & 0x7f800000u) == 0x7f800000u; }
};
struct code_bad {
    enum { PER_WORD = 4 };
    __device__ static uint32_t bits(uint32_t word) { return ((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u; }
};

__device__ static inline void least_keep(uint64_t *first, uint64_t number) {
    atomicMin((unsigned long long *)first, (unsigned long long)number);
}

/* `runs` of four words. What is found is rare, so that an atomic minimum of it costs nothing. */
template <typename Bad>
__global__ void __launch_bounds__(THREADS) check_runs(const uint4 *values, uint64_t runs, uint64_t *first) {
    const uint64_t step = (uint64_t)gridDim.x * (THREADS * CHECKS);
    for (uint64_t base = (uint64_t)blockIdx.x * (THREADS * CHECKS) + threadIdx.x; base < runs; base += step) {
        uint4 loaded[CHECKS];
#pragma unroll
        for (int i = 0; i < CHECKS; i++)
            loaded[i] = base + i * THREADS < runs ? values[base + i * THREADS] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < CHECKS; i++) {
            const uint32_t words[4] = {loaded[i].x, loaded[i].y, loaded[i].z, loaded[i].w};
            if (!(Bad::bits(words[0]) | Bad::bits(words[1]) | Bad::bits(words[2]) | Bad::bits(words[3])))
                continue;
            for (int j = 0; j < 4; j++) {
                const uint32_t bits = Bad::bits(words[j]);
                if (!bits)
                    continue;
                uint32_t at = 0; /* the first of the word's values */
                while (Bad::PER_WORD > 1 && !(bits >> (8 * at + 7) & 1))
                    at++;
                least_keep(first, ((base + i * THREADS) * 4 + j) * Bad::PER_WORD + at);
                break;
            }
        }
    }
}

/* Values [begin, end) one by one. */
template <typename Bad>
__global__ void __launch_bounds__(THREADS)
    check_values(const void *values, uint64_t begin, uint64_t end, uint64_t *first) {
    const uint64_t at = begin + (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= end)
        return;
    const uint32_t word = Bad::PER_WORD == 1 ? ((const uint32_t *)values)[at] : ((const uint8_t *)values)[at];
    if (Bad::bits(word))
        least_keep(first, at);
}

template <typename Bad>
void check(cuda_device *device, const char *what, const void *values, uint64_t count, uint64_t *first) {
    const uint64_t run = 4 * Bad::PER_WORD, runs = (uintptr_t)values % 16 == 0 ? count / run : 0;
    const uint64_t most = (uint64_t)device->multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    const unsigned wanted = ceil_div(runs, THREADS * CHECKS);
    launch(device, what, check_runs<Bad>, dim3(wanted < most ? wanted : (unsigned)most), THREADS, 0,
           (const uint4 *)values, runs, first);
    launch(device, what, check_values<Bad>, dim3(ceil_div(count - runs * run, THREADS)), THREADS, 0, values, runs * run,
           count, first);
}

} // namespace

void run_finite_check(cuda_device *device, const float *x, uint64_t count, uint64_t *first) {
    check<float_bad>(device, "to look for values that are not finite", x, count, first);
}

void run_codes_check(cuda_device *device, const void *codes, uint64_t count, uint64_t *first) {
    check<code_bad>(device, "to look for codes that are NaN", codes, count, first);
}
