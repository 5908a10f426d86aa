#include "infer/cpu/activations.h"

#include <math.h>
#include <string.h>

static const float fp8_largest = 448;

/* The scale that brings the largest value to 448; of MXFP8 the power of two that brings it to 224 .. 448. */
static float scale_of(const struct row_kernels *rows, const struct weight *weight, const float *x, uint32_t n) {
    const float largest = rows->largest(x, n);
    if (largest == 0 || !(largest < INFINITY))
        return largest == 0 ? 1 : largest;
    if (weight->activations != ACTIVATIONS_MXFP8)
        return largest / fp8_largest;
    const int exponent = ilogbf(largest), up = ldexpf(largest, -exponent) >= 1.75f;
    return ldexpf(1, exponent + up < -118 ? -126 : exponent + up - 8); /* subnormal scales are of no use */
}

float activations_round(const struct row_kernels *rows, const struct weight *weight, const float *x, float *out) {
    const uint32_t columns = weight->columns;
    float scale = 1;
    switch (weight->activations) {
    case ACTIVATIONS_FP8_STATIC:
        scale = weight->input_scale;
        rows->to_fp8(x, scale, columns, out);
        return scale;
    case ACTIVATIONS_FP8_TOKEN:
        scale = scale_of(rows, weight, x, columns);
        rows->to_fp8(x, scale, columns, out);
        return scale;
    case ACTIVATIONS_FP8_GROUP:
    case ACTIVATIONS_MXFP8:
        for (uint32_t at = 0; at < columns; at += weight->group) {
            const uint32_t n = columns - at < weight->group ? columns - at : weight->group;
            scale = scale_of(rows, weight, x + at, n);
            rows->to_fp8(x + at, scale, n, out + at);
            rows->multiply(out + at, scale, n);
        }
        return 1;
    default:
        if (out != x)
            memcpy(out, x, columns * sizeof *out);
        return 1;
    }
}

bool activations_equal(const struct weight *a, const struct weight *b) {
    return a->activations == b->activations &&
           (a->activations != ACTIVATIONS_FP8_STATIC || a->input_scale == b->input_scale) &&
           (a->activations != ACTIVATIONS_FP8_GROUP || a->group == b->group);
}

bool operands_equal(const struct weight *a, const struct weight *b) {
    return activations_equal(a, b) && a->format == b->format && a->columns == b->columns &&
           a->scale_columns == b->scale_columns;
}
