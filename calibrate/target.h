/*
 * The weight that outputs ask for: Z of Z H = P (pull.h) for ROUND_ROWS rows, H by its factor (factor.h), damped.
 */
#ifndef QSTREAM_CALIBRATE_TARGET_H
#define QSTREAM_CALIBRATE_TARGET_H

#include "calibrate/factor.h"

/*
 * `values` [factor->tiles * GRAM_TILE][ROUND_ROWS], by place: P in, Z out. Space of the caller: `packed` of factor->tiles
 * tiles, `tile` of one, [GRAM_TILE][GRAM_TILE].
 */
enum status target_solve(const struct solver *solver, const struct factor *factor, float *values, float *packed,
                         float *tile, struct error *error);

#endif
