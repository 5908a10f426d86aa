#include "verify/mxfp4_block.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/formats.h"
#include "verify/scale_rules.h"

/* A block's values, decoded. */
struct decoded {
    float source[RULE_BLOCK], code[RULE_BLOCK]; /* E2M1 values, -0 included */
};

static void block_decode(const struct mxfp4_row *row, size_t number, struct decoded *out) {
    for (size_t i = 0; i < RULE_BLOCK; i++) {
        out->source[i] = bf16_decode(row->source[number * RULE_BLOCK + i]);
        out->code[i] = e2m1_decode(row->packed[number * (RULE_BLOCK / 2) + i / 2] >> (i % 2 * 4) & 15);
    }
}

static const double *weights_of(const struct mxfp4_row *row, size_t number) {
    return row->weights ? row->weights + number * RULE_BLOCK : NULL;
}

/* Whether the largest value is within 2^20 of the scale: then float32 holds all that matters in units of it. */
static bool is_ordinary(const struct mxfp4_block *block) {
    int ratio = (block->largest >> 7) - 127 - block->stored;
    return block->stored < 127 && (block->largest == 0 || (ratio >= -20 && ratio <= 20));
}

static double nearest_error(double magnitude, double scale) {
    double least = magnitude;
    for (unsigned code = 1; code < 8; code++)
        least = fmin(least, fabs(magnitude - (double)e2m1_decode((uint8_t)code) * scale));
    return least;
}

/* Whether a code lies at a tie and is another than the rule takes. `x` is the source's magnitude in units of the scale. */
static bool is_tie_off(double x, double code, enum tie_rule rule) {
    for (unsigned index = 0; index < 7; index++) {
        double low = (double)e2m1_decode((uint8_t)index), high = (double)e2m1_decode((uint8_t)(index + 1));
        if (x != (low + high) / 2 || (code != low && code != high))
            continue;
        double wanted = rule == TIE_TOWARD_ZERO ? low : rule == TIE_AWAY ? high : index % 2 ? high : low;
        return code != wanted;
    }
    return false;
}

/* All that the kernel measures, in float64. */
static void block_measure(const struct decoded *decoded, struct mxfp4_block *block) {
    double scale = ldexp(1, block->stored);
    block->sums = (struct sums){0};
    block->largest_error = 0;
    block->worse = block->saturated = block->flushed = 0;
    memset(block->tie_off, 0, sizeof block->tie_off);
    for (int i = 0; i < RULE_BLOCK; i++) {
        double s = (double)decoded->source[i], d = (double)decoded->code[i] * scale, error = fabs(s - d);
        block->sums.source_square += s * s;
        block->sums.output_square += d * d;
        block->sums.product += s * d;
        block->sums.error_square += error * error;
        block->sums.error_absolute += error;
        block->largest_error = fmax(block->largest_error, error);
        block->worse += error > nearest_error(fabs(s), scale);
        for (enum tie_rule rule = 0; rule < TIE_RULES; rule++)
            block->tie_off[rule] += is_tie_off(fabs(s) / scale, fabs((double)decoded->code[i]), rule);
        block->saturated += fabs(s) > 6 * scale;
        block->flushed += s != 0 && d == 0;
    }
    block->roomy_error = scale_error(decoded->source, block->roomy, NULL);
    block->tight_error =
        block->roomy > EXPONENT_LEAST ? scale_error(decoded->source, block->roomy - 1, NULL) : block->roomy_error;
}

/* Errors that agree to this are compared anew, in float64 by column. */
static const double close = 1e-6;

static bool nearly_equal(double a, double b) { return fabs(a - b) <= close * larger(a, b); }

/* ---- codes ---- */

enum trait { TRAIT_NONE, TRAIT_NOT_NEAREST, TRAIT_KEPT, TRAIT_DROPPED };

/*
 * What a code is to its source. A zero code carries its source's sign, but where BF16 arithmetic, which
 * compressed-tensors computes in, has nothing left of the source in units of the scale; -0.0 has a convention of its
 * own, see figures.h.
 */
static enum trait code_trait(double s, double q, double scale) {
    bool differs = signbit(s) != signbit(q);
    if (fabs(s - q * scale) > nearest_error(fabs(s), scale))
        return TRAIT_NOT_NEAREST;
    if (s == 0 && q == 0 && signbit(s))
        return differs ? TRAIT_DROPPED : TRAIT_KEPT;
    if (!differs || q != 0 || (s < 0 && -s <= 0x1p-134 * scale))
        return TRAIT_NONE;
    return TRAIT_NOT_NEAREST;
}

static struct tally *tally_of(struct figures *figures, enum trait trait) {
    return trait == TRAIT_NOT_NEAREST ? &figures->not_nearest
           : trait == TRAIT_KEPT      ? &figures->negative_zero_kept
                                      : &figures->negative_zero_dropped;
}

/* Returns how many codes are not nearest. */
static unsigned codes_account(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block,
                              struct figures *figures) {
    uint64_t column = row->column + number * RULE_BLOCK;
    const struct place place = {row->row, column};
    if (block->signs == 0 && block->minus_zero == 0 &&
        (block->worse == 0 || !place_before(&place, &figures->not_nearest.first))) {
        figures->not_nearest.count += block->worse;
        return block->worse;
    }
    struct decoded decoded;
    double scale = ldexp(1, block->stored);
    unsigned not_nearest = 0;
    block_decode(row, number, &decoded);
    for (unsigned i = 0; i < RULE_BLOCK; i++) {
        enum trait trait = code_trait((double)decoded.source[i], (double)decoded.code[i], scale);
        if (trait == TRAIT_NONE)
            continue;
        not_nearest += trait == TRAIT_NOT_NEAREST;
        tally_add(tally_of(figures, trait), 1, row->row, column + i);
    }
    return not_nearest;
}

/* Places are looked for only where they may be the first. */
static void ties_account(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block,
                         struct figures *figures) {
    const struct place place = {row->row, row->column + number * RULE_BLOCK};
    for (enum tie_rule rule = 0; rule < TIE_RULES; rule++) {
        struct tally *tally = &figures->tie_off[rule];
        tally->count += block->tie_off[rule];
        if (block->tie_off[rule] == 0 || !place_before(&place, &tally->first))
            continue;
        struct decoded decoded;
        unsigned i = 0;
        double scale = ldexp(1, block->stored);
        block_decode(row, number, &decoded);
        while (i < RULE_BLOCK - 1 &&
               !is_tie_off(fabs((double)decoded.source[i]) / scale, fabs((double)decoded.code[i]), rule))
            i++;
        tally_add(tally, 0, place.row, place.column + i);
    }
}

/* ---- scales ---- */

void mxfp4_anchor_find(struct mxfp4_anchor *anchor, double largest, double second) {
    const double slack = 4e-7, position = 0.995 * (RULE_BLOCK - 1) - (RULE_BLOCK - 2);
    double ratio = (second + (largest - second) * position) / 6;
    double low = ratio * (1 - slack), high = ratio * (1 + slack);
    anchor->plain = !(low > 1.1e-6 / 6) || high > 0x1p40 || ilogb(low) != ilogb(high);
    anchor->exponent = anchor->plain ? 0 : ilogb(low);
}

/* qstream_accepts, mostly from what the kernel measured. */
static bool anchor_accepts(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block,
                           const struct mxfp4_anchor *anchor, bool *near_zero) {
    double largest = (double)bf16_decode(block->largest);
    double least = fmin(anchor->errors[0], fmin(anchor->errors[1], anchor->errors[2]));
    bool plain = anchor->plain || !(least < (double)FLT_MAX / 4), accepted = false;
    *near_zero = false;
    for (int k = 0; k < 3 && !plain; k++) {
        int exponent = anchor->exponent - 1 + k;
        if (anchor->errors[k] > least * (1 + 2 * close))
            continue;
        plain = largest > ldexp(12, exponent); /* the original may repair this one */
        accepted |= exponent == block->stored;
    }
    if (!plain && accepted)
        return true;
    if (!plain && (block->stored < anchor->exponent - 1 || block->stored > anchor->exponent + 1))
        return false;
    struct decoded decoded;
    block_decode(row, number, &decoded);
    return qstream_accepts(decoded.source, weights_of(row, number), block->stored, near_zero);
}

/* Whether the stored exponent is a rule's; a block of zeros may have any scale under which the rule gives zeros. */
static void rules_account(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block, int mse,
                          const struct mxfp4_anchor *anchor, unsigned not_nearest, struct figures *figures) {
    float amax = bf16_decode(block->largest);
    for (enum known_rule rule = 0; rule < KNOWN_RULES; rule++) {
        if (!(row->rules >> rule & 1))
            continue;
        bool same, near_zero = false;
        if (rule == KNOWN_QSTREAM) {
            same = anchor_accepts(row, number, block, anchor, &near_zero) || (near_zero && block->zero);
        } else {
            int wanted = rule == KNOWN_AMAX ? amax_exponent(amax) : mse;
            same = block->stored == wanted || (block->zero && (double)amax <= ldexp(0.25, wanted));
        }
        if (near_zero && block->zero)
            figures->near_zero += not_nearest;
        if (same) {
            figures->of_rule[rule]++;
            figures->zero_of_rule[rule] += block->zero;
        } else {
            const struct place place = {row->row, row->column + number * RULE_BLOCK};
            if (place_before(&place, &figures->off_rule[rule]))
                figures->off_rule[rule] = place;
        }
    }
}

/* The better of the two exponents, the smaller where they are equal. */
static int best_exponent(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block) {
    if (block->roomy == EXPONENT_LEAST)
        return block->roomy;
    if (!nearly_equal(block->roomy_error, block->tight_error))
        return block->tight_error < block->roomy_error ? block->roomy - 1 : block->roomy;
    struct decoded decoded;
    block_decode(row, number, &decoded);
    double roomy = scale_error(decoded.source, block->roomy, NULL);
    return scale_error(decoded.source, block->roomy - 1, NULL) <= roomy ? block->roomy - 1 : block->roomy;
}

static bool is_at_optimum(const struct mxfp4_row *row, size_t number, const struct mxfp4_block *block, int best) {
    double error = block->sums.error_square;
    if (error == 0 || (block->stored == best && block->worse == 0))
        return true;
    if (block->worse > 0 || !nearly_equal(error, block->sums.best_square))
        return false;
    struct decoded decoded;
    block_decode(row, number, &decoded);
    return scale_error(decoded.source, block->stored, NULL) <= scale_error(decoded.source, best, NULL);
}

void mxfp4_block_account(const struct mxfp4_row *row, size_t number, struct mxfp4_block *block,
                         const struct mxfp4_anchor *anchor, struct sums *sums, struct figures *figures,
                         struct histogram *histogram) {
    uint64_t column = row->column + number * RULE_BLOCK;
    uint8_t damage = row->damaged ? row->damaged[number] : 0;
    uint8_t scale = damage == MXFP4_NAN_SCALE ? 255 : row->scales[number];
    if (!is_ordinary(block)) {
        struct decoded decoded;
        block_decode(row, number, &decoded);
        block_measure(&decoded, block);
    }
    block->sums.best_square = smaller(block->roomy_error, block->tight_error);
    sums_add(sums, &block->sums);
    figures->max_absolute = larger(figures->max_absolute, block->largest_error);
    figures->saturated += block->saturated;
    figures->flushed += block->flushed;
    figures_block(figures, row->row, column, block->sums.error_square);
    histogram->scales[scale]++;
    if (scale < figures->scale_least)
        figures->scale_least = scale;
    if (scale > figures->scale_largest)
        figures->scale_largest = scale;
    if (damage)
        return;
    histogram_block(histogram, block->sums.source_square, block->sums.error_square);
    int best = best_exponent(row, number, block);
    figures->blocks++;
    figures->zero_blocks += block->zero;
    figures->at_optimum += is_at_optimum(row, number, block, best);
    unsigned not_nearest = codes_account(row, number, block, figures);
    ties_account(row, number, block, figures);
    if (row->rules)
        rules_account(row, number, block, best, anchor, not_nearest, figures);
}
