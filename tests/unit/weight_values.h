/* Random numbers, and what each code of a weight stands for, by the scalar decoders. */
#ifndef QSTREAM_TESTS_WEIGHT_VALUES_H
#define QSTREAM_TESTS_WEIGHT_VALUES_H

#include <string.h>

#include "common/formats.h"
#include "infer/sampler.h" /* random numbers */
#include "infer/weight.h"

enum { WEIGHT_BLOCK = 32 }; /* of MX formats */

static const char *const format_names[WEIGHT_FORMATS] = {"F32", "F16", "BF16", "FP8", "MXFP8", "MXFP4"};

/* From -1 to 1. */
static inline double uniform(uint64_t *random) { return (double)(random_next(random) >> 11) * 0x1p-53 * 2 - 1; }

static inline double weight_value(const struct weight *weight, uint32_t row, uint32_t column) {
    const size_t at = (size_t)row * weight->columns + column;
    const unsigned char *codes = weight->codes;
    float value;
    uint16_t half;
    switch (weight->format) {
    case WEIGHT_F32:
        memcpy(&value, codes + at * 4, 4);
        return (double)value;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        memcpy(&half, codes + at * 2, 2);
        return (double)(weight->format == WEIGHT_F16 ? f16_decode(half) : bf16_decode(half));
    case WEIGHT_FP8: {
        const size_t across = (weight->columns + (size_t)weight->scale_columns - 1) / weight->scale_columns;
        return (double)fp8_e4m3_decode(codes[at]) *
               (double)weight->scales[row / weight->scale_rows * across + column / weight->scale_columns];
    }
    case WEIGHT_MXFP8:
        return (double)fp8_e4m3_decode(codes[at]) * (double)e8m0_decode(weight->exponents[at / WEIGHT_BLOCK]);
    default:
        return (double)e2m1_decode((uint8_t)(codes[at / 2] >> (column % 2 * 4) & 15)) *
               (double)e8m0_decode(weight->exponents[at / WEIGHT_BLOCK]);
    }
}

#endif
