/*
 * Which scale a rule gives to a block of MXFP4, written as plainly as the rules are defined (FORMATS: OCP Microscaling
 * v1.0; amax as compressed-tensors, qstream as the original tool of that name, mse by trying every exponent). These are
 * the verifier's own words for it; the quantizer has others.
 *
 * Exponents are those of the scale 2^e, -127 to 127. Values are a block's 32 sources in BF16 precision, all finite.
 */
#ifndef QSTREAM_VERIFY_SCALE_RULES_H
#define QSTREAM_VERIFY_SCALE_RULES_H

#include <stdbool.h>

#include "verify/figures.h"

enum { RULE_BLOCK = 32, EXPONENT_LEAST = -127, EXPONENT_LARGEST = 127 };

/* Sum of the squared errors, by column, of the nearest codes under 2^exponent; each times weights[i] unless NULL. */
double scale_error(const float values[RULE_BLOCK], int exponent, const double *weights);

/* compressed-tensors' scale. */
int amax_exponent(float amax);

/*
 * Whether the qstream rule may give this exponent. The original computes in float32 and its scales hang on comparisons of
 * float32 sums: what two of its runs on different machines may decide either way (errors that agree to 1e-6, a
 * percentile within float32's precision of a power of two) is accepted. `near_zero`, where its percentile is below
 * 1e-6, is set when the rule makes the block zeros.
 */
bool qstream_accepts(const float values[RULE_BLOCK], const double *weights, int exponent, bool *near_zero);

#endif
