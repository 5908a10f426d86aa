/*
 * Statistics of a tensor's values, gathered by reading all of the data once, in chunks: memory is workers x chunk
 * plus a few hundred bytes per tensor, whatever the model's size.
 */
#ifndef QSTREAM_INSPECT_STATISTICS_H
#define QSTREAM_INSPECT_STATISTICS_H

#include "inspect/inspection.h"

enum statistics_kind {
    STATISTICS_FLOAT, /* BF16, F16, F32: minimum, maximum, NaN, Inf */
    STATISTICS_FP8,   /* F8_E4M3: codes */
    STATISTICS_FP4,   /* two E2M1 codes a byte */
    STATISTICS_E8M0,  /* scales that are powers of two */
    STATISTICS_INT8
};

/* Counts of codes from first to first + count - 1. */
struct code_counts {
    unsigned first, count;
    uint64_t *counts;
};

struct tensor_statistics {
    enum statistics_kind kind;
    uint64_t elements;
    double min, max; /* finite values only; NaN when there is none. FP8: of the codes, before the scale */
    uint64_t nan, infinite, zero, subnormal, negative;
    uint64_t saturated;       /* codes of the largest magnitude */
    struct code_counts codes; /* E8M0: scale codes; FP8: biased exponents 0..15 */
    uint64_t fp4[16];         /* E2M1 codes */
};

void tensor_statistics_free(struct tensor_statistics *statistics); /* NULL is fine */

struct statistics_options {
    unsigned jobs;
    bool scales_only; /* scales and activation scales, not the weights */
    bool quiet;       /* no progress on stderr */
};

/*
 * Fills inspection->statistics for the tensors for which `chosen` (NULL: all) is set and whose values are known how to
 * read. STATUS_IO when reading fails, STATUS_INTERRUPTED after a signal.
 */
enum status statistics_gather(struct inspection *inspection, const bool *chosen,
                              const struct statistics_options *options, struct error *error);

/* Shannon entropy of the E2M1 codes, in bits. */
double code_entropy(const uint64_t *counts, size_t count);

/* One floating-point number of a plain or FP8 dtype, decoded; NaN for others. */
double element_decode(enum dtype dtype, const void *bytes);

#endif
