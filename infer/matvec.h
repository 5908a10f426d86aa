/*
 * Matrix-vector products on weights as they are stored, for generation: bound by reading the weight from memory.
 */
#ifndef QSTREAM_INFER_MATVEC_H
#define QSTREAM_INFER_MATVEC_H

#include "common/cpu.h"
#include "infer/weight.h"

/*
 * y[r] = sum over c of x[c] * value[r, c]. x is brought into the order that the kernel reads it in, once; then any rows
 * are multiplied, by several threads at once if wanted.
 *
 * x counts as it is, float32, but for MXFP4 on AVX2 and AVX-512: there it is rounded to 16-bit integers times a power of
 * two for each block of 32, by at most 2^-15 of the block's largest value; and products of 2^118 or more may be infinite.
 */
struct matvec_kernel {
    /* Bytes that the prepared x of a weight takes. */
    size_t (*space)(const struct weight *weight);
    /* x: [columns]; prepared: aligned to 64. It is the same for weights of one format, shape and scale block. */
    void (*prepare)(const struct weight *weight, const float *x, void *prepared);
    /*
     * Rows [begin, end); y is indexed by r. Sums are float32, in an order that depends on the level and the format only,
     * not on begin and end. The bias is not added.
     */
    void (*rows)(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end);
};

/* The kernel of a level and format; a level without its own gives the next lower one's. Never NULL. */
const struct matvec_kernel *matvec_kernel(enum cpu_level level, enum weight_format format);

/* Reads all bytes and returns a sum of them: the most that a product can be as fast as. */
typedef uint64_t memory_read_function(const void *bytes, size_t size);
memory_read_function *memory_read_kernel(enum cpu_level level);

#endif
