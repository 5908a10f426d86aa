/*
 * What CUDA C++ has inside kernels, for the model: qualifiers, thread indices, barriers, warp functions, atomics,
 * intrinsics. There is no __shared__: shared memory is SHARED_MEMORY(name) of device.cuh.
 */
#ifndef QSTREAM_CUDA_MODEL_DEVICE_BUILTINS_H
#define QSTREAM_CUDA_MODEL_DEVICE_BUILTINS_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>

#include "vector_types.h"
#include "warp_model.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

/* The running thread's; whoever switches threads sets them. */
#define MODEL_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
extern MODEL_THREAD_LOCAL uint3 threadIdx, blockIdx;
extern MODEL_THREAD_LOCAL dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* ---- barriers ---- */

/* FILE and LINE are where the call is written: reports name the place, and threads that wait at different ones are a fault. */
#define MODEL_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(MODEL_PLACE) { model_syncthreads(file, line); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, MODEL_PLACE) { model_syncwarp(mask, file, line); }
static inline void __threadfence() { model_fence(); }
static inline void __threadfence_block() { model_fence(); }
static inline void __threadfence_system() { model_fence(); }

/* ---- warp functions ---- */

template <typename T>
static inline T model_shuffle_value(unsigned mask, T value, model_shuffle_kind kind, unsigned by, int width,
                                    const char *file, int line) {
    static_assert(sizeof(T) <= 8, "CUDA has shuffles of 4 and 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = model_shuffle(mask, bits, kind, by, width, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, MODEL_PLACE) {
    return model_shuffle_value(mask, value, MODEL_SHUFFLE_LANE, (unsigned)lane, width, file, line);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, MODEL_PLACE) {
    return model_shuffle_value(mask, value, MODEL_SHUFFLE_XOR, (unsigned)lanes, width, file, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, MODEL_PLACE) {
    return model_shuffle_value(mask, value, MODEL_SHUFFLE_DOWN, by, width, file, line);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, MODEL_PLACE) {
    return model_shuffle_value(mask, value, MODEL_SHUFFLE_UP, by, width, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, MODEL_PLACE) {
    return model_ballot(mask, predicate != 0, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, MODEL_PLACE) {
    return model_ballot(mask, predicate != 0, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, MODEL_PLACE) {
    return model_ballot(mask, predicate != 0, file, line) == mask;
}

/* ---- atomics: no order, as CUDA's ---- */

template <typename T, typename Change> static inline T model_atomic(T *at, Change change) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, (T)change(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}
#define MODEL_ATOMICS(T)                                                                                               \
    static inline T atomicAdd(T *at, T value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }              \
    static inline T atomicExch(T *at, T value) { return __atomic_exchange_n(at, value, __ATOMIC_RELAXED); }            \
    static inline T atomicMin(T *at, T value) {                                                                        \
        return model_atomic(at, [=](T old) { return value < old ? value : old; });                                     \
    }                                                                                                                  \
    static inline T atomicMax(T *at, T value) {                                                                        \
        return model_atomic(at, [=](T old) { return value > old ? value : old; });                                     \
    }                                                                                                                  \
    static inline T atomicOr(T *at, T value) { return __atomic_fetch_or(at, value, __ATOMIC_RELAXED); }                \
    static inline T atomicAnd(T *at, T value) { return __atomic_fetch_and(at, value, __ATOMIC_RELAXED); }              \
    static inline T atomicCAS(T *at, T expected, T value) {                                                            \
        __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);                  \
        return expected;                                                                                               \
    }
MODEL_ATOMICS(int)
MODEL_ATOMICS(unsigned)
MODEL_ATOMICS(unsigned long)
MODEL_ATOMICS(unsigned long long)
MODEL_ATOMICS(long long)
#undef MODEL_ATOMICS

/* ---- bits and numbers ---- */

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
static inline long long __double_as_longlong(double x) {
    long long bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float atomicAdd(float *at, float value) {
    unsigned *const bits = (unsigned *)(void *)at;
    return __uint_as_float(
        model_atomic(bits, [=](unsigned old) { return __float_as_uint(__uint_as_float(old) + value); }));
}

/* c + the sum of the products of four signed bytes. */
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8)
        c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}
/* Four bytes out of eight, x the low four; a selector of 4 bits each, its top bit: the byte's sign eight times. */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selectors) {
    const uint64_t both = (uint64_t)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned selector = selectors >> 4 * i & 15, byte = (unsigned)(both >> 8 * (selector & 7)) & 255;
        result |= (selector & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return result;
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((uint64_t)high << 32 | low) >> (by & 31));
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

template <typename T> static inline T __ldg(const T *at) { return *at; }
template <typename T> static inline T __ldcs(const T *at) { return *at; }
template <typename T> static inline T __ldcg(const T *at) { return *at; }
template <typename T> static inline T __ldca(const T *at) { return *at; }
template <typename T> static inline void __stcs(T *at, T value) { *at = value; }
template <typename T> static inline void __stcg(T *at, T value) { *at = value; }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __saturatef(float x) { return x > 0 ? fminf(x, 1) : 0; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
/* glibc declares __expf and its like itself: macros go past it. */
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)

#define MODEL_LEAST(T)                                                                                                 \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
MODEL_LEAST(int)
MODEL_LEAST(unsigned)
MODEL_LEAST(long)
MODEL_LEAST(unsigned long)
MODEL_LEAST(long long)
MODEL_LEAST(unsigned long long)
#undef MODEL_LEAST
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
using std::isfinite;
using std::isinf;
using std::isnan;

#endif
