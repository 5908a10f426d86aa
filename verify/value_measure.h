/*
 * Measuring rows of anything but MXFP4 against their source: FP8 with any scales, MXFP8, plain numbers. Plain code, one
 * value at a time.
 */
#ifndef QSTREAM_VERIFY_VALUE_MEASURE_H
#define QSTREAM_VERIFY_VALUE_MEASURE_H

#include "common/safetensors.h"
#include "verify/figures.h"

/* A piece of a row. */
struct value_row {
    const uint16_t *source; /* [columns] BF16 */
    const float *output;    /* [columns] decoded */
    const uint8_t *codes;   /* [columns] FP8, NULL for plain numbers */
    enum dtype dtype;       /* of the output */
    size_t columns;
    uint64_t row, column; /* of its first element in the weight */
};

/* Gives the scale of a column of the piece. */
typedef float value_scale_fn(const void *context, size_t column);

/*
 * Adds to *figures, *histogram and, for this piece of the row, *sums. best_square becomes the error of the nearest codes
 * under the stored scales (of plain numbers: nothing). Elements that are no finite numbers are counted and left out.
 */
void value_measure(const struct value_row *row, value_scale_fn *scale, const void *context, struct sums *sums,
                   struct figures *figures, struct histogram *histogram);

/*
 * Counts whether an FP8 scale is that of the largest magnitude that it covers, as compressed-tensors computes it, and
 * returns it.
 */
bool fp8_scale_compare(float scale, double amax, uint64_t row, struct figures *figures);

#endif
