/*
 * What rounding one column after the other needs of a Gram matrix: with H = M D M^T, M upper triangular with ones on its
 * diagonal, rounding column k to the nearest of
 *
 *   w[k] + sum over the columns i before it of (w[i] - q[i]) * M[i, k]
 *
 * is what GPTQ does by updating the columns that follow with the inverse of H, and the error it leaves is the sum of
 * D[k] * (what was rounded - q[k])^2 (Chee et al., QuIP, 2023, theorem 6: the two are the same). No inverse is taken.
 *
 * Columns lie in the reverse of the order in which they are rounded, so that M is what Cholesky's algorithm gives.
 */
#ifndef QSTREAM_CALIBRATE_FACTOR_H
#define QSTREAM_CALIBRATE_FACTOR_H

#include "calibrate/gram.h"

/* Who computes: the threads of an engine, products in float32. */
struct solver {
    struct engine *engine;
    struct products *products;
};

struct factor {
    uint32_t columns, tiles;
    uint32_t *columns_of; /* [columns]: the column of the checkpoint at place c; the last place is rounded first */
    /* Tiles as in struct gram: (i, j), i > j, holds M of the columns of i before those of j, packed for products of
     * x [rows, columns of i]; (j, j) as [place before][place]. */
    float *values;
    float *gains; /* D [columns], by place */
};

/*
 * The columns from the one with the weakest inputs to the one with the strongest, which is rounded first: what it loses, all
 * others can make up for. The caller frees *columns_of.
 */
enum status factor_order(const struct gram *gram, uint32_t **columns_of, struct error *error);

uint64_t factor_bytes(uint32_t columns);

/*
 * Factors `gram` with `damping` times the mean of its diagonal added to the diagonal. *fine is false when it is not positive
 * definite in this precision. `columns_of` is a permutation that the factor takes over. Free with factor_close, also after
 * an error.
 */
enum status factor_make(const struct solver *solver, const struct gram *gram, double damping, uint32_t *columns_of,
                        struct factor *factor, bool *fine, struct error *error);
void factor_close(struct factor *factor);

#endif
