/*
 * Measuring MXFP4 blocks: every variant that this machine can run gives the same bits; the least error of two exponents
 * is that of all 255; rules are recognized in what the quantizer's scalar reference makes; figures are those of a plain
 * float64 computation.
 *
 * QSTREAM_TEST_SCALE (a factor, 1 by default) scales the number of random blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "qstream/mxfp4.h"
#include "tests/unit/scale.h"
#include "verify/mxfp4_measure.h"
#include "verify/scale_rules.h"

enum { BLOCKS = 41 }; /* no multiple of any variant's lanes */

static uint64_t random_state;

static uint64_t random_bits(void) { /* splitmix64 */
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = random_state;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

static unsigned random_below(unsigned end) { return (unsigned)(random_bits() % end); }

/* ---- rows ---- */

struct made {
    uint16_t source[BLOCKS * RULE_BLOCK];
    uint8_t packed[BLOCKS * RULE_BLOCK / 2], scales[BLOCKS];
};

/* A block of one of several kinds: usual, ties, with outliers, tiny, zeros of both signs, any bits that are finite. */
static void block_make(uint16_t *block) {
    unsigned kind = random_below(8);
    int exponent = (int)random_below(20) - 12;
    for (int i = 0; i < RULE_BLOCK; i++) {
        double normal = 0;
        for (int k = 0; k < 4; k++)
            normal += (double)random_below(1 << 20) / (1 << 20) - 0.5;
        float value = (float)ldexp(normal, exponent);
        if (kind == 1)
            value = (float)ldexp((int)random_below(65) - 32, exponent - 3);
        if (kind == 2 && random_below(16) == 0)
            value *= 1e4f;
        if (kind == 3)
            value = (float)ldexp(normal, -20 - (int)random_below(110));
        if (kind == 4)
            value = random_below(2) ? 0.0f : -0.0f;
        if (kind == 5 && random_below(8) == 0)
            value = (float)ldexp(value, (int)random_below(200) - 100);
        block[i] = bf16_encode(value);
        if (kind == 6)
            do
                block[i] = (uint16_t)random_bits();
            while ((block[i] & 0x7f80) == 0x7f80);
        if ((block[i] & 0x7f80) == 0x7f80)
            block[i] = 0x3f80;
    }
}

static void row_make(struct made *made, enum scale_rule rule) {
    for (int b = 0; b < BLOCKS; b++)
        block_make(made->source + b * RULE_BLOCK);
    assert_true(mxfp4_quantize_scalar(made->source, BLOCKS, rule, NULL, made->packed, made->scales));
}

/* Some codes and scales are changed. */
static void row_damage(struct made *made) {
    for (int n = 0; n < 12; n++) {
        made->packed[random_below(sizeof made->packed)] ^= (uint8_t)(1u << random_below(8));
        unsigned block = random_below(BLOCKS);
        made->scales[block] = (uint8_t)(made->scales[block] ^ (1u << random_below(8)));
        if (made->scales[block] == 255)
            made->scales[block] = 254;
    }
}

struct outcome {
    struct sums sums;
    struct figures figures;
    struct histogram histogram;
};

static void row_measure(const struct made *made, mxfp4_measure_fn *measure, unsigned rules, struct outcome *outcome) {
    memset(outcome, 0, sizeof *outcome);
    figures_clear(&outcome->figures);
    const struct mxfp4_row row = {.source = made->source,
                                  .packed = made->packed,
                                  .scales = made->scales,
                                  .blocks = BLOCKS,
                                  .rules = rules,
                                  .row = 7,
                                  .column = 64};
    measure(&row, &outcome->sums, &outcome->figures, &outcome->histogram);
}

enum { ALL_RULES = (1 << KNOWN_RULES) - 1 };

static void figures_assert_equal(const struct figures *a, const struct figures *b) {
    assert_int_equal(a->saturated, b->saturated);
    assert_int_equal(a->flushed, b->flushed);
    assert_int_equal(a->not_nearest.count, b->not_nearest.count);
    assert_int_equal(a->not_nearest.first.row, b->not_nearest.first.row);
    assert_int_equal(a->not_nearest.first.column, b->not_nearest.first.column);
    assert_int_equal(a->negative_zero_kept.count, b->negative_zero_kept.count);
    assert_int_equal(a->negative_zero_dropped.count, b->negative_zero_dropped.count);
    assert_int_equal(a->near_zero, b->near_zero);
    assert_int_equal(a->blocks, b->blocks);
    assert_int_equal(a->zero_blocks, b->zero_blocks);
    assert_int_equal(a->at_optimum, b->at_optimum);
    assert_memory_equal(a->of_rule, b->of_rule, sizeof a->of_rule);
    assert_memory_equal(a->off_rule, b->off_rule, sizeof a->off_rule);
    for (int i = 0; i < TIE_RULES; i++) {
        assert_int_equal(a->tie_off[i].count, b->tie_off[i].count);
        assert_int_equal(a->tie_off[i].first.column, b->tie_off[i].first.column);
    }
    assert_memory_equal(&a->max_absolute, &b->max_absolute, sizeof a->max_absolute);
    assert_memory_equal(&a->worst_block_error, &b->worst_block_error, sizeof a->worst_block_error);
    assert_memory_equal(&a->worst_block, &b->worst_block, sizeof a->worst_block);
}

static void every_variant_gives_the_same_bits(void **state) {
    (void)state;
    struct made made;
    static struct outcome portable, other;
    random_state = 1;
    for (int n = scaled(400, 3); n > 0; n--) {
        row_make(&made, (enum scale_rule)random_below(SCALE_RULES));
        if (n % 2)
            row_damage(&made);
        row_measure(&made, mxfp4_measure_portable, ALL_RULES, &portable);
        for (enum cpu_level level = 0; level < CPU_LEVELS; level++) {
            if (!cpu_has(level) || !mxfp4_measure_for(level))
                continue;
            row_measure(&made, mxfp4_measure_for(level), ALL_RULES, &other);
            assert_memory_equal(&portable.sums, &other.sums, sizeof portable.sums);
            assert_memory_equal(&portable.histogram, &other.histogram, sizeof portable.histogram);
            figures_assert_equal(&portable.figures, &other.figures);
        }
    }
}

static void assert_near(double a, double b) {
    if (fabs(a - b) > 1e-6 * fmax(fabs(a), fabs(b)))
        fail_msg("%.17g is not %.17g", a, b);
}

static void figures_are_those_of_plain_float64(void **state) {
    (void)state;
    struct made made;
    static struct outcome outcome;
    random_state = 2;
    for (int n = scaled(300, 3); n > 0; n--) {
        row_make(&made, (enum scale_rule)random_below(SCALE_RULES));
        if (n % 2)
            row_damage(&made);
        row_measure(&made, mxfp4_measure_for(cpu_best()), 0, &outcome);
        struct sums plain = {0};
        double largest = 0;
        unsigned flushed = 0, saturated = 0;
        for (int i = 0; i < BLOCKS * RULE_BLOCK; i++) {
            double scale = ldexp(1, made.scales[i / RULE_BLOCK] - 127);
            double s = (double)bf16_decode(made.source[i]);
            double d = (double)e2m1_decode((uint8_t)(made.packed[i / 2] >> (i % 2 * 4) & 15)) * scale;
            plain.source_square += s * s;
            plain.output_square += d * d;
            plain.product += s * d;
            plain.error_square += (s - d) * (s - d);
            plain.error_absolute += fabs(s - d);
            largest = fmax(largest, fabs(s - d));
            flushed += s != 0 && d == 0;
            saturated += fabs(s) > 6 * scale;
        }
        assert_near(outcome.sums.source_square, plain.source_square);
        assert_near(outcome.sums.output_square, plain.output_square);
        assert_near(outcome.sums.product, plain.product);
        assert_near(outcome.sums.error_square, plain.error_square);
        assert_near(outcome.sums.error_absolute, plain.error_absolute);
        assert_near(outcome.figures.max_absolute, largest);
        assert_int_equal(outcome.figures.flushed, flushed);
        assert_int_equal(outcome.figures.saturated, saturated);
    }
}

static void the_least_error_is_that_of_all_255_scales(void **state) {
    (void)state;
    struct made made;
    random_state = 3;
    for (int n = scaled(40, 3); n > 0; n--) {
        static struct outcome outcome;
        row_make(&made, SCALE_RULE_MSE);
        row_measure(&made, mxfp4_measure_for(cpu_best()), 0, &outcome);
        double best = 0;
        uint64_t at_optimum = 0;
        for (int b = 0; b < BLOCKS; b++) {
            float values[RULE_BLOCK];
            double least = HUGE_VAL;
            for (int i = 0; i < RULE_BLOCK; i++)
                values[i] = bf16_decode(made.source[b * RULE_BLOCK + i]);
            for (int e = EXPONENT_LEAST; e <= EXPONENT_LARGEST; e++)
                least = fmin(least, scale_error(values, e, NULL));
            best += least;
            at_optimum += scale_error(values, made.scales[b] - 127, NULL) <= least;
        }
        assert_near(outcome.sums.best_square, best);
        assert_int_equal(outcome.figures.at_optimum, at_optimum);
        assert_int_equal(at_optimum, BLOCKS); /* it is the rule mse */
    }
}

static void rules_are_recognized_and_none_takes_a_wrong_scale(void **state) {
    (void)state;
    static const enum known_rule of[SCALE_RULES] = {
        [SCALE_RULE_AMAX] = KNOWN_AMAX, [SCALE_RULE_QSTREAM] = KNOWN_QSTREAM, [SCALE_RULE_MSE] = KNOWN_MSE};
    struct made made;
    static struct outcome outcome;
    random_state = 4;
    for (int n = scaled(300, 3); n > 0; n--) {
        enum scale_rule rule = (enum scale_rule)random_below(SCALE_RULES);
        row_make(&made, rule);
        row_measure(&made, mxfp4_measure_for(cpu_best()), ALL_RULES, &outcome);
        assert_int_equal(outcome.figures.of_rule[of[rule]], BLOCKS);
        assert_int_equal(outcome.figures.not_nearest.count, rule == SCALE_RULE_QSTREAM ? outcome.figures.near_zero : 0);

        assert_int_equal(outcome.figures.tie_off[rule == SCALE_RULE_QSTREAM ? TIE_TOWARD_ZERO : TIE_EVEN].count, 0);

        unsigned block = random_below(BLOCKS);
        bool zero = true;
        for (int i = 0; i < RULE_BLOCK / 2; i++)
            zero &= (made.packed[block * RULE_BLOCK / 2 + (unsigned)i] & 0x77) == 0;
        made.scales[block] = (uint8_t)(made.scales[block] < 120 ? made.scales[block] + 3 : made.scales[block] - 3);
        row_measure(&made, mxfp4_measure_for(cpu_best()), 1u << of[rule], &outcome);
        assert_int_equal(outcome.figures.of_rule[of[rule]], zero ? BLOCKS : BLOCKS - 1);
        if (!zero)
            assert_int_equal(outcome.figures.off_rule[of[rule]].column, 64 + block * RULE_BLOCK);
    }
}

/* The smallest of the exponents, all 255 tried, whose error is least. */
static int mse_exponent(const float values[RULE_BLOCK]) {
    int best = EXPONENT_LEAST;
    double least = scale_error(values, best, NULL);
    for (int exponent = EXPONENT_LEAST + 1; exponent <= EXPONENT_LARGEST; exponent++) {
        double error = scale_error(values, exponent, NULL);
        if (error < least) {
            least = error;
            best = exponent;
        }
    }
    return best;
}

static void the_plain_rules_are_the_quantizers(void **state) {
    (void)state;
    struct made made;
    random_state = 5;
    for (int n = scaled(20, 3); n > 0; n--) {
        row_make(&made, SCALE_RULE_MSE);
        for (int b = 0; b < BLOCKS; b++) {
            float values[RULE_BLOCK];
            for (int i = 0; i < RULE_BLOCK; i++)
                values[i] = bf16_decode(made.source[b * RULE_BLOCK + i]);
            assert_int_equal(mse_exponent(values) + 127, made.scales[b]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_same_bits),
        cmocka_unit_test(figures_are_those_of_plain_float64),
        cmocka_unit_test(the_least_error_is_that_of_all_255_scales),
        cmocka_unit_test(rules_are_recognized_and_none_takes_a_wrong_scale),
        cmocka_unit_test(the_plain_rules_are_the_quantizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
