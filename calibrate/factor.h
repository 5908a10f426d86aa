/*
 * What rounding one column after the other needs of a Gram matrix: with H = M D M^T, M upper triangular with ones on its
 * diagonal, rounding column k to the nearest of
 *
 *   w[k] + sum over the columns i before it of (w[i] - q[i]) * M[i, k]
 *
 * is what GPTQ does by updating the columns that follow with the inverse of H (Chee et al., QuIP, 2023, theorem 6: the two
 * are the same). No inverse is taken.
 *
 * Columns are rounded from the last place to the first, so that M is what Cholesky's algorithm gives.
 */
#ifndef QSTREAM_CALIBRATE_FACTOR_H
#define QSTREAM_CALIBRATE_FACTOR_H

#include "calibrate/columns.h"

/* Who computes: the threads of an engine, products in float32. */
struct solver {
    struct engine *engine;
    struct products *products;
    const struct column_kernels *kernels;
};

/* Packs a tile [GRAM_TILE][ROUND_ROWS] as the second operand of products. */
enum status solver_pack(const struct solver *solver, const float *tile, float *packed, struct error *error);

/* y [GRAM_TILE][ROUND_ROWS] += x [GRAM_TILE][GRAM_TILE] times such a tile. */
enum status solver_multiply(const struct solver *solver, const float *x, const float *packed, float *y,
                            struct error *error);

struct factor {
    uint32_t columns, tiles;
    uint32_t *columns_of; /* [columns]: the column of the checkpoint at each place; the last place is rounded first */
    /* Tiles as in struct gram, of M: (i, j), i > j, as [place of j][place of i], (j, j) as [place before][place]. */
    float *values;
    float *gains; /* D [tiles * GRAM_TILE], by place; ones behind the last column */
};

/* Bytes that factor_make allocates. */
uint64_t factor_bytes(uint32_t columns);

/*
 * Factors a Gram matrix in its own space, with `damping` times the mean of its diagonal added to the diagonal: what that adds
 * is also the least that a pivot can be, so it is what one gets that has been lost in rounding. `gram` is closed. *usable is
 * false when it has values that are not finite, or nearly so. The factor is that of the identity then, as where all inputs
 * are zero: each column is rounded by itself.
 * Free with factor_close, also after an error.
 */
enum status factor_make(const struct solver *solver, struct gram *gram, double damping, struct factor *factor,
                        bool *usable, struct error *error);
void factor_close(struct factor *factor);

#endif
