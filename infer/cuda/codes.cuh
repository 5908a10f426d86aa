/*
 * What the kernels of one token read codes with: wide loads past the first cache, e2m1 as bytes, e4m3 as float32.
 * Functions with PTX have a second body for compilers without it.
 */
#ifndef QSTREAM_INFER_CUDA_CODES_CUH
#define QSTREAM_INFER_CUDA_CODES_CUH

#include "infer/cuda/numbers.cuh"

/* Before a loop that has to become straight code, so that its arrays lie in registers. */
#if defined(__CUDACC__)
#define UNROLL _Pragma("unroll")
#define UNROLL_TWICE _Pragma("unroll 2") /* no more: more takes too many registers */
#else
#define UNROLL
#define UNROLL_TWICE
#endif

/* 16 bytes that are read once and that nothing writes meanwhile: they do not push x out of the first cache. */
__device__ static __forceinline__ uint4 load_once(const void *at) {
#if defined(__CUDA_ARCH__)
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
#else
    return *(const uint4 *)at;
#endif
}

/*
 * Starts a copy of 8 or 16 bytes from global to shared memory, both aligned to as many. Copies are closed to groups;
 * copies_wait waits until at most `open` of this thread's groups are under way.
 */
template <int BYTES> __device__ static __forceinline__ void copy_start(void *shared, const void *global) {
#if defined(__CUDA_ARCH__)
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(global) : "memory");
#else
    if (BYTES == 16)
        *(uint4 *)shared = *(const uint4 *)global;
    else
        *(uint2 *)shared = *(const uint2 *)global;
#endif
}

__device__ static __forceinline__ void copies_close(void) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int OPEN> __device__ static __forceinline__ void copies_wait(void) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
#endif
}

/*
 * Byte i of the result is the byte of `high:low` that nibble i of `select` names by its lower three bits; with its upper
 * bit set it is 0 instead, as no byte of the table has its own upper bit set (PTX repeats that bit).
 */
__device__ static __forceinline__ uint32_t bytes_select(uint32_t low, uint32_t high, uint32_t select) {
#if defined(__CUDA_ARCH__)
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(select));
    return bytes;
#else
    const uint64_t table = (uint64_t)high << 32 | low;
    uint32_t bytes = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t nibble = select >> (4 * i) & 15u;
        if (nibble < 8)
            bytes |= (uint32_t)(table >> (8 * nibble) & 0xffu) << (8 * i);
    }
    return bytes;
#endif
}

/*
 * Four e2m1 codes, the lower nibbles of `codes`, doubled to be whole and moved up by E2M1_OFFSET, which leaves no negative
 * ones: 12 + {0, 1, 2, 3, 4, 6, 8, 12} and 12 - {0, 1, 2, 3, 4, 6, 8, 12}. `flipped`: the codes with each sign turned.
 */
enum { E2M1_OFFSET = 12 };

/*
 * The lower halves of the two tables. They are read from memory (see prepared.cuh), so that they stay in registers: a
 * number that ptxas knows it would move there anew at each use.
 */
struct e2m1_tables {
    uint32_t positive, negative;
};
#define E2M1_TABLES                                                                                                    \
    { 0x0f0e0d0cu, 0x090a0b0cu }

__device__ static __forceinline__ uint32_t e2m1_bytes(const e2m1_tables &tables, uint32_t codes, uint32_t flipped) {
    const uint32_t positive = bytes_select(tables.positive, 0x18141210u, codes);
    const uint32_t negative = bytes_select(tables.negative, 0x00040608u, flipped);
    return positive + negative; /* one of them is 0 in each byte */
}

/* sum + the products of four bytes each; all of them are whole numbers from 0 to 255. */
__device__ static __forceinline__ uint32_t bytes_dot(uint32_t a, uint32_t b, uint32_t sum) {
#if defined(__CUDA_ARCH__)
    return __dp4a(a, b, sum);
#else
    for (int i = 0; i < 32; i += 8)
        sum += (a >> i & 0xffu) * (b >> i & 0xffu);
    return sum;
#endif
}

/*
 * The values of two e4m3 codes, the lower half of `codes`, divided by E4M3_FACTOR, which depends on how they are made.
 * Both ways go by float16, which holds all values.
 */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define E4M3_FACTOR 1.0f
__device__ static __forceinline__ void e4m3_pair(uint32_t codes, float &low, float &high) {
    asm("{\n\t.reg .b16 a, b;\n\t.reg .b32 pair;\n\t"
        "cvt.rn.f16x2.e4m3x2 pair, %2;\n\t"
        "mov.b32 {a, b}, pair;\n\t"
        "cvt.f32.f16 %0, a;\n\tcvt.f32.f16 %1, b;\n\t}"
        : "=f"(low), "=f"(high)
        : "h"((uint16_t)codes));
}
#elif defined(__CUDA_ARCH__)
/* Where a float16 has its exponent the codes are 2^-8 times their value, subnormals too; NaN would be 480. */
#define E4M3_FACTOR 256.0f
__device__ static __forceinline__ void e4m3_pair(uint32_t codes, float &low, float &high) {
    const uint32_t spread = (codes & 0xffu) << 8 | (codes & 0xff00u) << 16;
    const uint32_t halves = (spread & 0x80008000u) | (spread >> 1 & 0x3f803f80u);
    asm("{\n\t.reg .b16 a, b;\n\tmov.b32 {a, b}, %2;\n\t"
        "cvt.f32.f16 %0, a;\n\tcvt.f32.f16 %1, b;\n\t}"
        : "=f"(low), "=f"(high)
        : "r"(halves));
}
#else
#define E4M3_FACTOR 1.0f
__device__ static __forceinline__ void e4m3_pair(uint32_t codes, float &low, float &high) {
    low = e4m3_value(codes & 0xffu);
    high = e4m3_value(codes >> 8 & 0xffu);
}
#endif

__device__ static __forceinline__ void e4m3_four(uint32_t codes, float out[4]) {
    e4m3_pair(codes & 0xffffu, out[0], out[1]);
    e4m3_pair(codes >> 16, out[2], out[3]);
}

/* Two float16 codes. */
__device__ static __forceinline__ void f16_pair(uint32_t codes, float &low, float &high) {
#if defined(__CUDA_ARCH__)
    asm("{\n\t.reg .b16 a, b;\n\tmov.b32 {a, b}, %2;\n\t"
        "cvt.f32.f16 %0, a;\n\tcvt.f32.f16 %1, b;\n\t}"
        : "=f"(low), "=f"(high)
        : "r"(codes));
#else
    low = f16_value(codes & 0xffffu);
    high = f16_value(codes >> 16);
#endif
}

__device__ static __forceinline__ void bf16_two(uint32_t codes, float &low, float &high) {
    low = __uint_as_float(codes << 16);
    high = __uint_as_float(codes & 0xffff0000u);
}

/* 2^(code - 127) of codes 0 .. 254: that of 0 is subnormal. 255 gives infinity. */
__device__ static __forceinline__ float exponent_power(uint32_t code) {
    return fmaxf(__uint_as_float(code << 23), 0x1p-127f);
}

#endif
