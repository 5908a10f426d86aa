/*
 * Work on the columns of ROUND_ROWS rows of a weight at once: values lie as [column][row]. The same results on each
 * instruction set.
 *
 * A value is coded as q * scale, q of e2m1 (0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives), scale = 2^(exponent - 127).
 */
#ifndef QSTREAM_CALIBRATE_COLUMNS_H
#define QSTREAM_CALIBRATE_COLUMNS_H

#include <stdint.h>

#include "calibrate/gram.h"
#include "common/cpu.h"

enum { ROUND_ROWS = 128, ROUND_BLOCK = 32 };

/* A tile of columns that is rounded. Arrays of [GRAM_TILE][ROUND_ROWS] unless said otherwise. */
struct column_tile {
    uint32_t width;     /* columns of it that there are */
    const float *m;     /* [GRAM_TILE][GRAM_TILE]: m[c][d], d < c: what an error of column c adds to column d */
    const float *gains; /* [width]: what the squared error of each costs */
    const float *w;     /* the weights */
    const float *scales;
    float *x;     /* in: the weights with what errors of columns outside this tile add; changed */
    float *q;     /* out */
    float *error; /* out: w - q * scale */
    double *loss; /* [ROUND_ROWS]: added to; NULL: not wanted */
};

/* A tile of columns that are coded and are looked at again. */
struct column_descent {
    uint32_t width;
    const float *h; /* [GRAM_TILE][GRAM_TILE]: of the Gram matrix, damped */
    const float *scales;
    float *gradient; /* in: error * H; kept up */
    float *q;        /* in and out */
    float *error;    /* the same */
};

struct column_kernels {
    /* Rounds the columns from the last to the first, each to the nearest, ties to even. */
    void (*round)(const struct column_tile *tile);
    /* Gives each column in turn the best code, the others as they are. */
    void (*descend)(const struct column_descent *descent);
    /*
     * The exponent of a block, w [ROUND_BLOCK][ROUND_ROWS], with the least sum of weights[c] * (w - q * scale)^2 over all
     * exponents, the largest one on ties; [ROUND_ROWS]. Values are finite.
     */
    void (*exponents)(const float *w, const float *weights, uint8_t *exponents);
};

extern const struct column_kernels column_kernels_portable, column_kernels_avx2, column_kernels_avx512;

/* Those of a level, or of the next lower one. */
const struct column_kernels *column_kernels_of(enum cpu_level level);

#endif
