/*
 * The figures of a comparison: what was lost between a source weight and its stored image.
 *
 * Sums are in float64 and in an order that is fixed by the weight alone: a block's elements by column, a row's blocks,
 * a tile's rows, a weight's tiles. So they have the same bits for any number of threads and any instruction set.
 */
#ifndef QSTREAM_VERIFY_FIGURES_H
#define QSTREAM_VERIFY_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NO_ROW UINT64_MAX

/* A position in a matrix; row NO_ROW: none. */
struct place {
    uint64_t row, column;
};

struct sums {
    double source_square;  /* sum of s^2 */
    double output_square;  /* sum of d^2 */
    double product;        /* sum of s d */
    double error_square;   /* sum of (s - d)^2 */
    double error_absolute; /* sum of |s - d| */
    double best_square;    /* MXFP4: the least error_square that any scales can give; FP8: that of the nearest codes */
};

static inline void sums_add(struct sums *into, const struct sums *from) {
    into->source_square += from->source_square;
    into->output_square += from->output_square;
    into->product += from->product;
    into->error_square += from->error_square;
    into->error_absolute += from->error_absolute;
    into->best_square += from->best_square;
}

/* fmin and fmax of numbers; theirs are calls. */
static inline double smaller(double a, double b) { return a < b ? a : b; }
static inline double larger(double a, double b) { return a > b ? a : b; }

/* The rules whose scales are compared; values are positions in of_rule. */
enum known_rule { KNOWN_AMAX, KNOWN_QSTREAM, KNOWN_MSE, KNOWN_RULES, KNOWN_NONE = KNOWN_RULES };
const char *known_rule_name(enum known_rule rule);  /* "amax", "qstream", "mse"; NULL for none */
enum known_rule known_rule_parse(const char *name); /* KNOWN_NONE for any other word */

/* Where a source value lies midway between two codes, both are nearest; a tool always takes the same of them. */
enum tie_rule { TIE_EVEN, TIE_TOWARD_ZERO, TIE_AWAY, TIE_RULES };

/* How an FP8 code comes from s / scale: by the exact quotient, or one that was rounded before. Tools differ in that. */
enum quotient { QUOTIENT_EXACT, QUOTIENT_FLOAT32, QUOTIENT_BF16, QUOTIENTS };

/* Counts with the place where the first was. */
struct tally {
    uint64_t count;
    struct place first;
};

/* All but the sums: the order in which parts are merged does not matter. */
struct figures {
    uint64_t elements;                                 /* that were read, those left out included */
    uint64_t saturated;                                /* |s| above the largest magnitude of the scale */
    uint64_t flushed;                                  /* s != 0 stored as zero */
    struct tally source_not_finite, output_not_finite; /* left out of the sums; an element counts once */
    struct tally not_nearest;
    uint64_t near_zero; /* of not_nearest: in blocks that the qstream rule makes zeros, and that are */
    struct tally negative_zero_kept, negative_zero_dropped; /* sources of -0.0 stored with their sign, or without */
    struct tally quotient_off[QUOTIENTS]; /* FP8 codes that are nearest to some quotient, but not to this one */
    struct tally tie_off[TIE_RULES];      /* codes at ties that are not as this rule takes them */
    double max_absolute;                  /* largest |s - d| */
    uint64_t blocks;                      /* of 32 columns, MXFP4 only, without those that hold elements left out */
    uint64_t zero_blocks;                 /* of these, those stored as zeros */
    uint64_t at_optimum;                  /* of blocks: no scale gives a smaller error */
    uint64_t of_rule[KNOWN_RULES];        /* of blocks: the scale is the rule's */
    uint64_t zero_of_rule[KNOWN_RULES];   /* of these, zero_blocks */
    struct place off_rule[KNOWN_RULES];   /* the first block whose scale is not the rule's */
    double worst_block_error;             /* the largest sum of squared errors of a block */
    struct place worst_block;
    double worst_row_ratio; /* the largest error_square / source_square of a row; < 0: no row had any source_square */
    struct place worst_row;
    double bad_row_ratio; /* the largest error_square / best_square of a row with an error; infinite where best is 0 */
    struct place bad_row;
    double
        odd_row_ratio; /* FP8 channels: the largest error_square / source_square of a row whose scale is not amax / 448 */
    struct place odd_row;
    unsigned scale_least, scale_largest; /* codes, MXFP4 */
    double largest_source;               /* |s| */
    /* FP8 made from a plain source: scales that cover values, and how many are amax / 448 in BF16 and in float32. */
    uint64_t fp8_scales, fp8_scales_bf16, fp8_scales_f32;
    struct place off_bf16, off_f32; /* the first that is not */
};

void figures_clear(struct figures *figures);
void figures_merge(struct figures *into, const struct figures *from);

void tally_add(struct tally *tally, uint64_t count, uint64_t row, uint64_t column);
bool place_before(const struct place *a, const struct place *b);

/* A row's sums, complete: looks whether it is the worst. */
void figures_row(struct figures *figures, uint64_t row, const struct sums *sums);

/* Likewise of rows of FP8 channels with a scale of no formula that is known. */
void figures_odd_row(struct figures *figures, uint64_t row, const struct sums *sums);

/* A block's squared error: looks whether it is the worst. */
static inline void figures_block(struct figures *figures, uint64_t row, uint64_t column, double error_square) {
    if (error_square > figures->worst_block_error) { /* blocks come in order: the first of equals stays */
        figures->worst_block_error = error_square;
        figures->worst_block = (struct place){row, column};
    }
}

/*
 * Blocks by their SQNR, in steps of half an octave of power (1.505 dB); the first and the last bin are open. Blocks
 * without error or without energy are not counted.
 */
enum { SQNR_BINS = 44, SQNR_FIRST = -8 };
struct histogram {
    uint64_t sqnr[SQNR_BINS];
    uint64_t scales[256]; /* stored E8M0 codes */
};
void histogram_merge(struct histogram *into, const struct histogram *from);

/* floor(2 log2(source / error)) by exponents and fractions, without a division. */
static inline void histogram_block(struct histogram *histogram, double source_square, double error_square) {
    const uint64_t fraction = 0xfffffffffffff, one = 0x3ff0000000000000;
    const double root = 1.4142135623730951;
    if (!(error_square > 0) || !(source_square > 0))
        return;
    uint64_t source_bits, error_bits;
    double source, error; /* [1, 2) */
    memcpy(&source_bits, &source_square, sizeof source_bits);
    memcpy(&error_bits, &error_square, sizeof error_bits);
    int octaves = (int)(source_bits >> 52) - (int)(error_bits >> 52);
    source_bits = (source_bits & fraction) | one;
    error_bits = (error_bits & fraction) | one;
    memcpy(&source, &source_bits, sizeof source);
    memcpy(&error, &error_bits, sizeof error);
    int bin = 2 * octaves - 2 + (source * root >= error) + (source >= error) + (source >= error * root) - SQNR_FIRST;
    histogram->sqnr[bin < 0 ? 0 : bin >= SQNR_BINS ? SQNR_BINS - 1 : bin]++;
}

double sqnr_db(const struct sums *sums);   /* NaN where it has no value */
double rel_error(const struct sums *sums); /* likewise */
double cosine(const struct sums *sums);    /* likewise */

#endif
