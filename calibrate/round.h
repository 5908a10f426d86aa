/*
 * Rounding a weight to MXFP4 so that the outputs of its linear layer stay close: GPTQ (Frantar et al., 2022) with
 * columns in the order of the factor and scales fixed before: each block has the one with the least squared error of
 * all when its values are rounded to nearest.
 *
 * What is made small is sum over rows of (w - q) H (w - q)^T, H the damped Gram matrix of the layer's inputs. A row whose q
 * would end farther from the source than 0.7 of the row's own length (Euclidean) is rounded to nearest instead.
 */
#ifndef QSTREAM_CALIBRATE_ROUND_H
#define QSTREAM_CALIBRATE_ROUND_H

#include "calibrate/factor.h"
#include "calibrate/pull.h"

/* Row `row` of the weight, [columns]; called by several threads. */
typedef void round_row(const void *context, uint32_t row, float *values);

struct rounding {
    const struct factor *factor;
    /*
     * What is rounded is the weight with what this adds to it. Its rows are those of the weight; or, `pull_of_inputs`, its lacks
     * are such of the inputs, [columns], and become those of the outputs by the weight. NULL: nothing is added.
     */
    const struct pull *pull;
    bool pull_of_inputs;
    uint32_t rows;
    const char *name; /* the weight's, for messages */
    round_row *row;   /* a row with a NaN or an infinite value is refused */
    const void *context;
    uint8_t *packed;    /* out: [rows, columns / 2], the even column in the low nibble */
    uint8_t *exponents; /* out: [rows, columns / 32], e8m0 */
};

/* Bytes that each thread takes of the engine's scratch space, with a pull or without: enough for gram_add and factor_make, too. */
size_t round_scratch(uint32_t columns, bool pull);

/* The result does not depend on the number of threads. */
enum status round_run(const struct solver *solver, const struct rounding *rounding, struct error *error);

#endif
