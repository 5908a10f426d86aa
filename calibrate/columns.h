/*
 * Work on the columns of ROUND_ROWS rows of a weight at once: values lie as [column][row]. The same results on each
 * instruction set.
 *
 * A value is coded as q * scale, q of e2m1 (0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives), scale = 2^(exponent - 127).
 */
#ifndef QSTREAM_CALIBRATE_COLUMNS_H
#define QSTREAM_CALIBRATE_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/gram.h"
#include "common/cpu.h"

enum { ROUND_ROWS = 128, ROUND_BLOCK = 32, ROUND_TILE_VALUES = GRAM_TILE * ROUND_ROWS };

/* A tile of columns that is rounded. Arrays of [GRAM_TILE][ROUND_ROWS] unless said otherwise. */
struct column_tile {
    uint32_t width;           /* columns of it that there are */
    const float *m;           /* [GRAM_TILE][GRAM_TILE]: m[c][d], d < c: what an error of column c adds to column d */
    const float *w;           /* the weights */
    const uint8_t *exponents; /* e8m0 */
    float *x;                 /* in: the weights with what errors of columns outside this tile add; changed */
    int8_t *q;                /* out: twice the coded value */
    float *error;             /* out: w - q * scale */
};

struct column_kernels {
    /* Rounds the columns from the last to the first, each to the nearest, ties to even. */
    void (*round)(const struct column_tile *tile);
    /*
     * The exponent of a block, w [ROUND_BLOCK][ROUND_ROWS], with the least sum of (w - q * scale)^2 over all exponents, the
     * largest one on ties; [ROUND_ROWS]. Values are finite.
     */
    void (*exponents)(const float *w, uint8_t *exponents);
    /*
     * Cholesky's factor L of a tile, positive definite, in float64: the lower triangle of `tile` [GRAM_TILE][GRAM_TILE] is
     * read and becomes L, the upper one zero. No pivot is taken below `least`. inverse [GRAM_TILE][GRAM_TILE]: of L.
     * `space` of the caller: [2][GRAM_TILE][GRAM_TILE].
     */
    void (*factor)(float *tile, double least, float *inverse, double *space);
    /*
     * Solves for x [GRAM_TILE][ROUND_ROWS] in its own place, m as above with ones on its diagonal: x[d] + sum of m[c][d] x[c]
     * over c > d is what was there, or, not `upper`, x[c] + sum of m[c][d] x[d] over d < c.
     */
    void (*solve)(const float *m, float *x, bool upper);
};

extern const struct column_kernels column_kernels_portable, column_kernels_avx2, column_kernels_avx512;

/* Those of a level, or of the next lower one. */
const struct column_kernels *column_kernels_of(enum cpu_level level);

#endif
