#include "infer/cpu/activations.h"

#include <string.h>

static const float fp8_largest = 448;

/* The scale that brings the largest value to 448. */
static float scale_of(const struct row_kernels *rows, const float *x, uint32_t n) {
    const float largest = rows->largest(x, n);
    return largest == 0 ? 1 : largest / fp8_largest;
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
        scale = scale_of(rows, x, columns);
        rows->to_fp8(x, scale, columns, out);
        return scale;
    case ACTIVATIONS_FP8_GROUP:
        for (uint32_t at = 0; at < columns; at += weight->group) {
            const uint32_t n = columns - at < weight->group ? columns - at : weight->group;
            scale = scale_of(rows, x + at, n);
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
