/*
 * The Gram matrix of a linear layer's inputs, H = sum over tokens of (weight x) (weight x)^T [columns, columns]: half the
 * Hessian of the squared error of the layer's outputs, weight^2 |W x - W' x|^2 summed = sum over rows of
 * (w - w') H (w - w')^T.
 *
 * Columns have places: from the one with the weakest inputs to the one with the strongest, as the first that are added show
 * them. Stored by place, in tiles of GRAM_TILE x GRAM_TILE float32, those of the lower triangle only: 2 * columns^2 bytes
 * about. Places behind the last column, to the end of its tile, are zero.
 */
#ifndef QSTREAM_CALIBRATE_GRAM_H
#define QSTREAM_CALIBRATE_GRAM_H

#include "infer/cpu/engine.h"

enum { GRAM_TILE = 128, GRAM_TILE_VALUES = GRAM_TILE * GRAM_TILE, GRAM_TOKENS = 512, GRAM_TOGETHER = 16 };

struct pull;

struct gram {
    uint32_t columns, tiles; /* tiles: ceil(columns / GRAM_TILE) */
    uint32_t *columns_of;    /* [columns]: the column of the checkpoint at each place */
    bool ordered;            /* they have their places */
    float *values;         /* gram_tile_count tiles; of a tile, [row][column]. Those on the diagonal hold both halves */
    unsigned char *turned; /* of tokens that are added: act [tiles][GRAM_TILE][GRAM_TOKENS] */
    unsigned char *packed; /* the same as the products want it */
    size_t packed_size;    /* of a tile */
};

/* Tiles that so many columns, or rows, take. */
uint32_t gram_tiles(uint32_t columns);

/* The number of tile (i, j), j <= i, and of all tiles. */
size_t gram_tile_number(uint32_t i, uint32_t j);
size_t gram_tile_count(uint32_t tiles);

/* Bytes that gram_open allocates. */
uint64_t gram_bytes(const struct engine *engine, uint32_t columns);

/* Bytes that each thread takes of the engine's scratch space. */
size_t gram_scratch(uint32_t columns);

/* Tile `tile` of the tokens that were added last, act [GRAM_TILE][GRAM_TOKENS]. */
const unsigned char *gram_turned(const struct gram *gram, const struct engine *engine, uint32_t tile);

/* All zero. Free with gram_close, also after an error. */
enum status gram_open(const struct engine *engine, uint32_t columns, struct gram *gram, struct error *error);
void gram_close(struct gram *gram);

/*
 * Adds the inputs of `count` tokens from row `first` on, each times its weight, weights[row]. Sums are taken in the order of
 * the calls and of runs of GRAM_TOKENS tokens, whatever the number of threads. `pull` gets the same tokens with their lacks
 * (pull.h), or is NULL.
 */
enum status gram_add(struct gram *gram, struct engine *engine, const struct operand_rows *inputs, const float *weights,
                     size_t first, uint32_t count, struct pull *pull, const float *lacks, struct error *error);

#endif
