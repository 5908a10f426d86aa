/*
 * Quantizing rows of BF16 weights to MXFP4: one e8m0 scale and 32 e2m1 codes per block of 32 columns
 * (OCP Microscaling Formats v1.0).
 *
 * A block's dequantized value is e2m1(code) * 2^(scale - 127). Packed bytes hold two codes, the even column
 * in the low nibble. Three rules choose the scale:
 *
 *   amax     floor(log2(amax, rounded up to a power of two when its fraction is >= 1.75)) - 2; codes to
 * nearest, ties to the even code. Equals compressed-tensors bit for bit. qstream  the original qstream's: of
 * {f-1, f, f+1}, f = floor(log2(p99.5(|block|) / 6)), the least (optionally gamma^2 weighted) squared error,
 * the first on ties; ties of codes toward zero; a block whose p99.5 is below 1e-6 becomes zeros; an exponent
 * two or more below what the largest value needs is repaired. mse      the least squared error of all 255
 * exponents, sums in float64 in column order, the smallest exponent on ties; codes to nearest, ties to the
 * even code.
 *
 * Why mse needs to look at two exponents only. Let e be the smallest exponent with amax <= 7 * 2^e, and
 * measure in units of 2^e. Above e nothing can be gained: every grid point of e+1 that can be nearest to a
 * value of at most 7 is a grid point of e. k >= 2 below e, the grid ends at 6/2^k <= 1.5: an element gains at
 * most 1/16 in squared error (it does so at .25 and .75), 31 elements less than 1.94, while the largest,
 * above 3.5, loses at least (3.5 - 1.5)^2 - (3.5 - 4)^2 = 3.75. So the optimum is e or e - 1.
 *
 * Why their comparison can be made in integers. The difference of the two squared errors of an element x (in
 * units of 2^e) is piecewise linear: (|x-.25| - .125)/2 and (|x-.75| - .125)/2 where these are negative,
 * 2(x-3.5) above 3.5, plus 4(x-5) above 5, else 0. A BF16 value of at least .125 is a multiple of 2^-10, so
 * the sum is an exact multiple of 2^-11. It decides unless it is zero; then the float64 sums do.
 */
#ifndef QSTREAM_QSTREAM_MXFP4_H
#define QSTREAM_QSTREAM_MXFP4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"

enum { MXFP4_BLOCK = 32, MXFP4_PACKED = MXFP4_BLOCK / 2 };

enum scale_rule { SCALE_RULE_AMAX, SCALE_RULE_QSTREAM, SCALE_RULE_MSE, SCALE_RULES };

/* "amax", "qstream", "mse"; parse gives SCALE_RULES for any other word. */
const char *scale_rule_name(enum scale_rule rule);
enum scale_rule scale_rule_parse(const char *name);

/*
 * Quantizes `blocks` consecutive blocks of one row.
 *   bf16        [blocks * 32] source values, BF16 bits
 *   gamma       [blocks * 32] per input channel weights, or NULL; only SCALE_RULE_QSTREAM uses it
 *   packed      [blocks * 16] out
 *   scales      [blocks] out, e8m0, never 255
 * Returns false when a value is infinite or NaN; what was written is then meaningless.
 * Any alignment. No allocation, no state: safe from any number of threads.
 */
typedef bool mxfp4_quantize_fn(const uint16_t *bf16, size_t blocks, enum scale_rule rule, const float *gamma,
                               uint8_t *packed, uint8_t *scales);

/* The plain reference: one value at a time, as the rules are written above. */
mxfp4_quantize_fn mxfp4_quantize_scalar;

/*
 * The fastest variant for a level (CPU_PORTABLE: portable C), equal to the scalar one bit for bit. NULL when
 * this build has no variant for the level.
 */
mxfp4_quantize_fn *mxfp4_quantize_for(enum cpu_level level);

#endif
