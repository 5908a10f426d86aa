/*
 * Work on rows of values between the matrix products, for each instruction set: normalizing, rounding, gating, softmax,
 * rotary embedding, and weights made floating point again. The same results to the bit on each, but for `dot`-like sums
 * taken by the products. "act" is the type of a product's operands: float32, or bf16 as uint16_t.
 */
#ifndef QSTREAM_INFER_CPU_ROWS_H
#define QSTREAM_INFER_CPU_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"
#include "infer/weight.h"

struct row_kernels {
    /* out = x / sqrt(mean(x^2) + epsilon) * weight. */
    void (*norm)(const float *x, const float *weight, float epsilon, uint32_t n, float *out);
    void (*to_bf16)(const float *x, uint32_t n, uint16_t *out); /* to nearest, ties to even */
    void (*from_bf16)(const uint16_t *x, uint32_t n, float *out);
    void (*round_bf16)(const float *x, uint32_t n, float *out); /* to_bf16, then from_bf16; out may be x */
    /* The values of e4m3(clamp(x / scale, +-448)), the scale not multiplied back. out may be x. */
    void (*to_fp8)(const float *x, float scale, uint32_t n, float *out);
    float (*largest)(const float *x, uint32_t n); /* of |x|; NaN when one of them is NaN */
    /* out = gate / (1 + exp(-gate)) * up. */
    void (*swiglu)(const float *gate, const float *up, uint32_t n, float *out);
    void (*multiply)(float *x, float factor, uint32_t n);
    void (*multiply_by)(float *x, const float *factors, uint32_t n);
    void (*add)(float *x, const float *values, uint32_t n);
    void (*add_scaled)(float *x, const float *values, float factor, uint32_t n);
    /* (x1, x2) = halves of a head: out1 = x1 cos - x2 sin, out2 = x2 cos + x1 sin, times `factor`. out may be x. */
    void (*rotate)(const float *x, const float *cosines, const float *sines, float factor, uint32_t half, float *out);
    float (*maximum)(const float *x, uint32_t n); /* of n >= 1 values */
    /* x = exp(x - shift); returns the sum. */
    float (*exponentials)(float *x, float shift, uint32_t n);
    /* out = bf16(exp(x - shift)) of values up to shift, where products may be of bf16 (else NULL); returns the sum of the
     * exponentials before they are rounded. Below -87.3 they are 1e-38. */
    float (*exponentials_bf16)(const float *x, float shift, uint32_t n, uint16_t *out);
    /* The sums of exp(a - shift), and of exp(a - shift) * (a - b). */
    void (*cross)(const float *a, const float *b, float shift, uint32_t n, float *sum, double *product);
    bool (*all_finite)(const float *x, uint32_t n);
    /* Columns [k0, k0 + k) of row r of a weight, [k0, k) multiples of 32 in MX formats: the values, FP8 per tensor and per
     * row without their scale. */
    void (*unpack)(const struct weight *weight, uint32_t row, uint32_t k0, uint32_t k, float *out);
    void (*unpack_bf16)(const struct weight *weight, uint32_t row, uint32_t k0, uint32_t k, uint16_t *out);
};

extern const struct row_kernels row_kernels_portable;
extern const struct row_kernels row_kernels_avx2;
extern const struct row_kernels row_kernels_avx512;

/* Those of a level, or of the next lower one. */
const struct row_kernels *row_kernels_of(enum cpu_level level);

#endif
