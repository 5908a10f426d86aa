/*
 * Measuring rows of MXFP4 against their source: every figure of figures.h, block by block. One text
 * (mxfp4_measure_kernel.inc) is compiled for each instruction set; a vector lane is a block, so that sums run by column
 * in every variant and all give the same bits.
 *
 * The least error over all 255 scales is found by looking at two. Let e be the smallest exponent with
 * amax <= 7 * 2^e, and measure in units of 2^e: above e the grid only loses points at or below 7, so no error shrinks; at
 * e - 2 and below the grid ends at 1.5, which costs the largest value (above 3.5) at least 2^2 - .5^2 = 3.75 against e,
 * while no other of the 31 can gain more than .25^2. So the least is at e or e - 1. (The unit test tries all 255.)
 */
#ifndef QSTREAM_VERIFY_MXFP4_MEASURE_H
#define QSTREAM_VERIFY_MXFP4_MEASURE_H

#include "common/cpu.h"
#include "verify/figures.h"

/* Why a block has no figures of its own: elements were taken out of it. */
enum { MXFP4_DAMAGED = 1, MXFP4_NAN_SCALE = 2 /* all of them, its scale was 255 */ };

/* A piece of a row that begins at a block. */
struct mxfp4_row {
    const uint16_t *source; /* [32 * blocks] BF16, all finite */
    const uint8_t *packed;  /* [16 * blocks] */
    const uint8_t *scales;  /* [blocks], none of them 255 */
    size_t blocks;
    const double *weights;  /* [32 * blocks] of the qstream rule's errors, or NULL */
    const uint8_t *damaged; /* [blocks] MXFP4_DAMAGED or the like, 0; or NULL */
    unsigned rules;         /* bit 1 << enum known_rule: rules whose scales are compared */
    uint64_t row, column;   /* of its first element in the weight, for places */
};

/* Adds to *figures, *histogram and, for this piece of the row, *sums. */
typedef void mxfp4_measure_fn(const struct mxfp4_row *row, struct sums *sums, struct figures *figures,
                              struct histogram *histogram);

mxfp4_measure_fn mxfp4_measure_portable;
#if defined(__x86_64__)
mxfp4_measure_fn mxfp4_measure_avx2;
mxfp4_measure_fn mxfp4_measure_avx512;
#elif defined(__aarch64__)
mxfp4_measure_fn mxfp4_measure_neon;
#endif

/* The variant for a level; NULL when this build has none. */
mxfp4_measure_fn *mxfp4_measure_for(enum cpu_level level);

#endif
