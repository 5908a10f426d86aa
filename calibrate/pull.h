/*
 * What draws a weight W away from itself when the outputs of its linear layer are to be others: with a lack l for each token,
 * [rows], the least squares of |(W + Z) x - (W x + l)|^2 summed want Z H = P, where H is the Gram matrix of the inputs and
 *
 *   P = sum over tokens of (weight l) (weight x)^T   [rows, columns]
 *
 * Stored in tiles [place of a column][row] of GRAM_TILE x GRAM_TILE float32, those of the same rows one after another.
 */
#ifndef QSTREAM_CALIBRATE_PULL_H
#define QSTREAM_CALIBRATE_PULL_H

#include "calibrate/gram.h"

struct pull {
    uint32_t rows, chunks, tiles; /* chunks: ceil(rows / GRAM_TILE); tiles: of the columns */
    float *values;                /* [chunks][tiles][GRAM_TILE][GRAM_TILE]; behind the last row and column zero */
    unsigned char *lacks;         /* of tokens that are added: act [GRAM_TOKENS][chunks * GRAM_TILE] */
    unsigned char *packed;        /* the same as the products want it */
    size_t packed_size;           /* of a chunk */
};

/* Bytes that pull_open allocates. */
uint64_t pull_bytes(const struct engine *engine, uint32_t rows, uint32_t columns);

/* All zero. Free with pull_close, also after an error. */
enum status pull_open(const struct engine *engine, uint32_t rows, uint32_t columns, struct pull *pull,
                      struct error *error);
void pull_close(struct pull *pull);

/* What is only needed to add tokens is freed. */
void pull_end(struct pull *pull);

/*
 * Adds tokens as gram_add does, which calls it: the run that `gram` has turned just now, `count` tokens from row `first` on;
 * lacks [row][rows].
 */
enum status pull_add(struct pull *pull, struct engine *engine, const struct gram *gram, const float *lacks,
                     const float *weights, size_t first, uint32_t count, struct error *error);

#endif
