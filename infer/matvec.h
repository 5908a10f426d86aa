/*
 * Matrix-vector products on weights as they are stored, for generation: bound by reading the weight from memory.
 */
#ifndef QSTREAM_INFER_MATVEC_H
#define QSTREAM_INFER_MATVEC_H

#include "common/cpu.h"
#include "infer/weight.h"

/*
 * y[r] = sum over c of x[c] * value[r, c] for the rows [begin, end); y is indexed by r. x: [columns], float32, already
 * rounded if the weight's activations are. Sums are float32, in an order that depends on the level and the format only,
 * not on begin and end. Rows may be computed by several threads at once.
 */
typedef void matvec_function(const struct weight *weight, const float *x, float *y, uint32_t begin, uint32_t end);

/* The kernel of a level and format; a level without its own gives the next lower one's. Never NULL. */
matvec_function *matvec_kernel(enum cpu_level level, enum weight_format format);

#endif
