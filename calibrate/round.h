/*
 * Rounding a weight to MXFP4 so that the outputs of its linear layer stay close: GPTQ (Frantar et al., 2022) with
 * columns in the order of the factor and scales fixed before, then coordinate descent over the codes.
 *
 * What is made small is sum over rows of (w - q) H (w - q)^T, H the damped Gram matrix of the layer's inputs.
 */
#ifndef QSTREAM_CALIBRATE_ROUND_H
#define QSTREAM_CALIBRATE_ROUND_H

#include "calibrate/factor.h"
#include "common/cpu.h"

/* Row `row` of the weight, [columns]; called by several threads. */
typedef void round_row(const void *context, uint32_t row, float *values);

struct rounding {
    const struct gram *gram;
    const struct factor *factor;
    double damping;  /* that the factor was made with */
    unsigned sweeps; /* of coordinate descent */
    enum cpu_level cpu;
    uint32_t rows;
    round_row *row;
    const void *context;
    uint8_t *packed;    /* out: [rows, columns / 2], the even column in the low nibble */
    uint8_t *exponents; /* out: [rows, columns / 32], e8m0 */
    bool measure;       /* the loss is wanted: that takes time */
    double loss;        /* out: what is left of the sum above */
};

/* Bytes that each thread takes of the engine's scratch space. */
size_t round_scratch(uint32_t columns);

/* The result does not depend on the number of threads. */
enum status round_run(const struct solver *solver, struct rounding *rounding, struct error *error);

#endif
