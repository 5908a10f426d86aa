/*
 * Matrix-vector products in plain C: a run of a row is made float32, then multiplied into partial sums.
 */
#include "infer/cpu/matvec_kernels.h"
#include "infer/cpu/rows.h"

enum { LANES = 16, RUN = 512 };

static size_t space(const struct weight *weight) { return (size_t)weight->columns * sizeof(float); }

static void prepare(const struct weight *weight, const float *x, void *prepared) {
    memcpy(prepared, x, (size_t)weight->columns * sizeof *x);
}

static void run_add(const float *x, const float *values, uint32_t n, float sums[LANES]) {
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            sums[j] += x[i + j] * values[i + j];
    for (uint32_t j = 0; i < n; i++, j++)
        sums[j] += x[i] * values[i];
}

static void rows(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {
    const float *x = prepared;
    const bool whole = weight->scale_columns >= weight->columns &&
                       (weight->scale_rows >= weight->rows || weight->scale_rows == 1); /* unpack leaves these out */
    float values[RUN];
    for (uint32_t row = begin; row < end; row++) {
        float sums[LANES] = {0};
        for (uint32_t at = 0; at < weight->columns; at += RUN) {
            const uint32_t count = weight->columns - at < RUN ? weight->columns - at : RUN;
            row_kernels_portable.unpack(weight, row, at, count, values);
            run_add(x + at, values, count, sums);
        }
        for (int width = LANES / 2; width > 0; width /= 2)
            for (int j = 0; j < width; j++)
                sums[j] += sums[j + width];
        y[row] = weight->format == WEIGHT_FP8 && whole ? sums[0] * *matvec_row_scales(weight, row) : sums[0];
    }
}

const struct matvec_kernel matvec_portable = {space, prepare, rows};

uint64_t memory_read_portable(const void *bytes, size_t size) {
    enum { WORDS = 8 };
    const unsigned char *at = bytes;
    uint64_t sums[WORDS] = {0};
    for (size_t i = 0; i + sizeof sums <= size; i += sizeof sums)
        for (size_t j = 0; j < WORDS; j++) {
            uint64_t word;
            memcpy(&word, at + i + j * sizeof word, sizeof word);
            sums[j] += word;
        }
    for (int j = 1; j < WORDS; j++)
        sums[0] += sums[j];
    return sums[0];
}
