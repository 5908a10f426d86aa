/*
 * One block of MXFP4: from what a kernel measured to the figures. The parts that all variants of the kernel share, and a
 * plain measurement for blocks that leave the range of float32 arithmetic in units of the scale.
 */
#ifndef QSTREAM_VERIFY_MXFP4_BLOCK_H
#define QSTREAM_VERIFY_MXFP4_BLOCK_H

#include "verify/mxfp4_measure.h"

/* A block, measured. Exponents are those of scales, -127 to 127. */
struct mxfp4_block {
    struct sums sums; /* best_square is not set */
    double largest_error;
    double roomy_error, tight_error; /* least squared errors under 2^roomy and the exponent below it */
    bool zero;                       /* all codes are zeros */
    unsigned worse, signs, minus_zero, saturated, flushed; /* counts, see struct measured of the kernel */
    unsigned tie_off[TIE_RULES];
    int stored, roomy;
    uint16_t largest; /* BF16 code of the largest magnitude */
};

/* The smallest exponent with amax <= 7 * 2^exponent, amax being a BF16 code without sign. */
static inline int mxfp4_roomy_exponent(uint16_t amax) {
    int exponent = (amax >> 7) - 127 - 2 + ((amax & 0x7f) > 0x60); /* 7 is 1.75 * 2^2 */
    return exponent < -127 ? -127 : exponent;
}

/* The three candidates of the qstream rule: exponent - 1, exponent, exponent + 1. */
struct mxfp4_anchor {
    int exponent;
    bool
        plain; /* near zero, out of float32's range, or within its precision of another exponent: see qstream_accepts */
    double errors[3];
};

/* Finds the exponent from the two largest magnitudes of a block. */
void mxfp4_anchor_find(struct mxfp4_anchor *anchor, double largest, double second);

/* Adds a block's figures. `anchor` is NULL unless the qstream rule is asked for. */
void mxfp4_block_account(const struct mxfp4_row *row, size_t number, struct mxfp4_block *block,
                         const struct mxfp4_anchor *anchor, struct sums *sums, struct figures *figures,
                         struct histogram *histogram);

#endif
