#include "calibrate/target.h"

#include <string.h>

/* A tile of values, negated, becomes the second operand of products. `space` is a tile. */
static enum status negated_pack(const struct solver *solver, const float *values, float *space, float *packed,
                                struct error *error) {
    for (size_t i = 0; i < ROUND_TILE_VALUES; i++)
        space[i] = -values[i];
    return solver_pack(solver, space, packed, error);
}

static void tile_turn(const float *from, float *to) {
    for (uint32_t i = 0; i < GRAM_TILE; i++)
        for (uint32_t j = 0; j < GRAM_TILE; j++)
            to[j * GRAM_TILE + i] = from[i * GRAM_TILE + j];
}

/* By place, M is lower triangular: M u = p from the first place to the last, D v = u, M^T z = v from the last to the first. */
enum status target_solve(const struct solver *solver, const struct factor *factor, float *values, float *packed,
                         float *tile, struct error *error) {
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < factor->tiles; i++) {
        float *own = values + (size_t)i * ROUND_TILE_VALUES;
        for (uint32_t j = 0; status == STATUS_OK && j < i; j++) {
            tile_turn(factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES, tile);
            status = solver_multiply(solver, tile, packed + (size_t)j * ROUND_TILE_VALUES, own, error);
        }
        solver->kernels->solve(factor->values + gram_tile_number(i, i) * GRAM_TILE_VALUES, own, false);
        if (status == STATUS_OK)
            status = negated_pack(solver, own, tile, packed + (size_t)i * ROUND_TILE_VALUES, error);
    }
    for (uint32_t place = 0; place < factor->tiles * GRAM_TILE; place++)
        for (uint32_t r = 0; r < ROUND_ROWS; r++)
            values[(size_t)place * ROUND_ROWS + r] /= factor->gains[place];
    for (uint32_t j = factor->tiles; status == STATUS_OK && j-- > 0;) {
        float *own = values + (size_t)j * ROUND_TILE_VALUES;
        for (uint32_t i = j + 1; status == STATUS_OK && i < factor->tiles; i++)
            status = solver_multiply(solver, factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES,
                                     packed + (size_t)i * ROUND_TILE_VALUES, own, error);
        solver->kernels->solve(factor->values + gram_tile_number(j, j) * GRAM_TILE_VALUES, own, true);
        if (status == STATUS_OK)
            status = negated_pack(solver, own, tile, packed + (size_t)j * ROUND_TILE_VALUES, error);
    }
    return status;
}
