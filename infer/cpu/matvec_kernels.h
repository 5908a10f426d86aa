/*
 * The matrix-vector kernels of each instruction set, and what their files share: how x is laid out.
 */
#ifndef QSTREAM_INFER_CPU_MATVEC_KERNELS_H
#define QSTREAM_INFER_CPU_MATVEC_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/formats.h"
#include "infer/matvec.h"

extern const struct matvec_kernel matvec_portable; /* of every format */
extern const struct matvec_kernel matvec_avx2[WEIGHT_FORMATS];
extern const struct matvec_kernel matvec_avx2_amd[WEIGHT_FORMATS]; /* quicker there; the same results to the bit */
extern const struct matvec_kernel matvec_avx512[WEIGHT_FORMATS];
memory_read_function memory_read_portable, memory_read_avx2, memory_read_avx512;

enum { MATVEC_BLOCK = 32 }; /* of MX formats */

static inline uint32_t matvec_round_up(uint32_t number, uint32_t multiple) {
    return (number + multiple - 1) / multiple * multiple;
}

/* Columns of each scale of a row; the row's whole if there is one. */
static inline uint32_t matvec_scale_run(const struct weight *weight) {
    return weight->scale_columns < weight->columns ? weight->scale_columns : weight->columns;
}

static inline const float *matvec_row_scales(const struct weight *weight, uint32_t row) {
    const uint32_t run = matvec_scale_run(weight);
    return weight->scales + (size_t)(row / weight->scale_rows) * ((weight->columns + run - 1) / run);
}

/* Whether the scales change inside a step of `step` columns: then the portable kernel is used. */
static inline bool matvec_scales_odd(const struct weight *weight, uint32_t step) {
    return matvec_scale_run(weight) < weight->columns && matvec_scale_run(weight) % step != 0;
}

/*
 * Whether rows are better multiplied at once than one after the other, in which order memory is quickest: where x would
 * not stay in a first cache of 32 KiB while rows stream through it, or rows are so short that several are one stream.
 */
static inline bool matvec_together(const struct weight *weight) {
    enum { X_SMALL = 12 << 10, ROW_SHORT = 384 };
    const size_t x = weight->columns * (weight->format == WEIGHT_MXFP4 ? sizeof(int16_t) : sizeof(float));
    return x > X_SMALL || weight_row_bytes(weight) <= ROW_SHORT;
}

/*
 * x in groups of `step` columns, padded with zeros: place j of group g is column g * step + order[j].
 */
static inline void matvec_reorder(const float *x, uint32_t columns, const uint8_t *order, uint32_t step, float *out) {
    uint32_t at = 0;
    for (; at + step <= columns; at += step)
        for (uint32_t j = 0; j < step; j++)
            out[at + j] = x[at + order[j]];
    if (at < columns)
        for (uint32_t j = 0; j < step; j++)
            out[at + j] = at + order[j] < columns ? x[at + order[j]] : 0;
}

/*
 * The power of two that brings the largest of a block's values to 2^14 .. 2^15 - 1, as its inverse; NaN and infinity stay.
 */
static inline float matvec_block_scale(const float *x) {
    uint32_t most = 0;
    for (int i = 0; i < MATVEC_BLOCK; i++) {
        const uint32_t bits = float_to_bits(x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    if (most >= 0x7f800000u)
        return float_from_bits(most);
    /* 2^(e + 1) is above the largest value: 2^(e + 1 - 15), a step more where rounding would give 2^15 */
    uint32_t exponent = most >> 23;
    exponent += (most & 0x007fffffu) >= 0x007fff00u;
    exponent = exponent < 16 ? 16 : exponent; /* tiny values: coarser, 2^-125 at most */
    return float_from_bits((exponent - 14) << 23);
}

/*
 * x as 16-bit integers, place w * 4 + k of each group of 4 * lanes columns going to out[k * lanes + w], and the scale of
 * each block of 32. Columns are padded with zeros to a group.
 */
static inline void matvec_to_integers(const float *x, uint32_t columns, uint32_t lanes, int16_t *out, float *scales) {
    for (uint32_t at = 0; at < matvec_round_up(columns, 4 * lanes); at += MATVEC_BLOCK) {
        float values[MATVEC_BLOCK] = {0};
        int16_t rounded[MATVEC_BLOCK];
        if (at < columns)
            memcpy(values, x + at, sizeof values);
        const float scale = matvec_block_scale(values);
        const float inverse = scale < INFINITY ? 1 / scale : 0;
        scales[at / MATVEC_BLOCK] = scale;
        for (int i = 0; i < MATVEC_BLOCK; i++) {
            const float magic = 0x1.8p23f; /* rounds to an integer, in the low bits */
            rounded[i] = (int16_t)float_to_bits(values[i] * inverse + magic);
        }
        int16_t *group = out + at / (4 * lanes) * (4 * lanes) + at % (4 * lanes) / 4;
        for (uint32_t k = 0; k < 4; k++)
            for (uint32_t w = 0; w < MATVEC_BLOCK / 4; w++)
                group[k * lanes + w] = rounded[4 * w + k];
    }
}

#endif
