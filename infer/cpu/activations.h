/*
 * Rounding of activations before a product of one token, as the server of the checkpoint rounds them (see weight.h).
 */
#ifndef QSTREAM_INFER_CPU_ACTIVATIONS_H
#define QSTREAM_INFER_CPU_ACTIVATIONS_H

#include "infer/cpu/rows.h"

/*
 * out [columns] = x as the weight wants it, without a last factor, which is returned: the product has to be multiplied by
 * it. out may be x.
 */
float activations_round(const struct row_kernels *rows, const struct weight *weight, const float *x, float *out);

/* Whether two weights round the same values to the same. */
bool activations_equal(const struct weight *a, const struct weight *b);

/* Whether one prepared x of a product of one token (see matvec.h) serves two weights. */
bool operands_equal(const struct weight *a, const struct weight *b);

#endif
