/*
 * MXFP4 quantization: the scalar reference against hand-made cases and an exhaustive search, and every
 * variant that this machine can run against the scalar reference, byte for byte.
 *
 * QSTREAM_TEST_SCALE (a factor, 1 by default) scales the number of random blocks, for slow instrumented
 * builds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu.h"
#include "common/formats.h"
#include "qstream/mxfp4.h"
#include "tests/unit/scale.h"

/* ---- random blocks
 * ----------------------------------------------------------------------------------------- */

static uint64_t random_state;

/* A Weyl sequence, then mixed: splitmix64. */
static uint64_t random_bits64(void) {
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = random_state;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

static uint32_t random_bits(void) { return (uint32_t)random_bits64(); }

static int random_below(int end) { return (int)((uint64_t)random_bits() * (uint64_t)end >> 32); }

/* Bell-shaped, unit variance: the sum of four uniform variables, of variance 1/12 each. */
static float random_normal(void) {
    uint64_t bits = random_bits64();
    int sum = (int)(bits & 0xffff) + (int)(bits >> 16 & 0xffff) + (int)(bits >> 32 & 0xffff) + (int)(bits >> 48);
    return (float)(sum - 0x20000) * (1.7320508f / 0x10000);
}

enum kind {
    KIND_NORMAL,
    KIND_HEAVY_TAILED,
    KIND_OUTLIER,
    KIND_TIES,           /* multiples of an eighth: exact ties of codes and of scales */
    KIND_TIES_AND_SPECK, /* the same with a value so small that float64 sums round */
    KIND_FEW_VALUES,     /* FP8 codes times a scale, as an FP8 checkpoint gives */
    KIND_BITS,           /* random bit patterns of all exponents, finite */
    KIND_ONE_EXPONENT,   /* a block of random mantissas under a random exponent and the next few below */
    KIND_EDGE,           /* the largest value at the rules' thresholds, a second one close to it */
    KIND_NEAR_ZERO,      /* about 1e-6 */
    KIND_ZEROS,          /* 0, -0, now and then a value */
    KINDS
};

static const char *const kind_names[KINDS] = {"normal", "heavy",    "outlier", "ties",      "ties and speck", "few",
                                              "bits",   "exponent", "edge",    "near zero", "zeros"};

/* A random sign bit on top of a magnitude. */
static uint16_t with_random_sign(int magnitude) { return (uint16_t)(magnitude | (int)(random_bits() & 0x8000u)); }

/* One draw a statement: the blocks do not depend on a compiler's order of evaluation. */
static void random_block(enum kind kind, uint16_t bf16[MXFP4_BLOCK]) {
    int mantissa = random_below(128);
    int power = random_below(24) - 16;
    int exponent = random_below(255);
    float scale = ldexpf(1 + (float)mantissa / 128, power);
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        float value = random_normal();
        int draw = random_below(1 << 16);
        switch (kind) {
        case KIND_HEAVY_TAILED:
            value = value * value * value * value * value;
            break;
        case KIND_OUTLIER:
            value *= i == 5 ? 100 : 1;
            break;
        case KIND_TIES:
        case KIND_TIES_AND_SPECK:
            scale = ldexpf(1, exponent / 8 - 20);
            value = (float)(draw % 113 - 56) / (draw % 2 == 0 ? 8 : 16);
            if (kind == KIND_TIES_AND_SPECK && i % 11 == 3)
                value = ldexpf((float)(128 + draw % 128), -26 - draw % 16);
            break;
        case KIND_FEW_VALUES: /* a sign, magnitudes of four binades */
            value = fp8_e4m3_decode((uint8_t)((draw & 0x80) + 0x30 + (draw & 0x1f)));
            break;
        case KIND_BITS:
            bf16[i] = with_random_sign(draw % 0x7f80);
            continue;
        case KIND_ONE_EXPONENT:
            bf16[i] = with_random_sign((exponent > 4 ? exponent - draw % 5 : exponent) << 7 | draw >> 9);
            continue;
        case KIND_NEAR_ZERO:
            value = 1e-6f * (draw % 3 == 0 ? 1.2f : 0.9f + 0.01f * (float)(exponent % 30));
            scale = 1;
            break;
        case KIND_ZEROS:
            value = draw % 64 == 0 ? value : copysignf(0, value);
            break;
        default:
            break;
        }
        bf16[i] = bf16_encode(value * scale);
    }
    if (kind == KIND_EDGE) {
        static const uint8_t mantissas[] = {0x00, 0x3f, 0x40, 0x41, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x7f};
        int least = exponent < 20 ? 20 : exponent;
        int largest = least << 7 | mantissas[random_below(sizeof mantissas)];
        for (int i = 0; i < MXFP4_BLOCK; i++)
            bf16[i] = with_random_sign(largest - random_below(900));
        int at = random_below(MXFP4_BLOCK);
        bf16[at] = with_random_sign(largest);
        at = random_below(MXFP4_BLOCK);
        bf16[at] = with_random_sign(largest - random_below(40));
    }
    for (int i = 0; i < MXFP4_BLOCK; i++) /* a product may have overflowed */
        if ((bf16[i] & 0x7fff) >= 0x7f80)
            bf16[i] = 0x7f7f;
}

enum gamma_kind { GAMMA_NONE, GAMMA_USUAL, GAMMA_POWERS, GAMMA_WIDE, GAMMA_EXTREME, GAMMA_KINDS };

static void random_gamma(enum gamma_kind kind, float gamma[MXFP4_BLOCK]) {
    int shift = random_below(160) - 80;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        gamma[i] = 1 + 0.3f * random_normal();
        if (kind == GAMMA_POWERS) /* ties stay ties */
            gamma[i] = ldexpf(1, random_below(3));
        if (kind == GAMMA_WIDE)
            gamma[i] = i % 8 == 3 ? 0 : ldexpf(gamma[i], random_below(20) - 10);
        if (kind == GAMMA_EXTREME)
            gamma[i] = ldexpf(gamma[i], shift);
    }
}

/* ---- every variant equals the scalar reference
 * ------------------------------------------------------------- */

enum { BATCH = 64 };

static void compare_batch(enum kind kind, enum scale_rule rule, enum gamma_kind gamma_kind) {
    static uint16_t bf16[BATCH * MXFP4_BLOCK];
    static float weights[BATCH * MXFP4_BLOCK];
    uint8_t want_packed[BATCH * MXFP4_PACKED], want_scales[BATCH];
    for (size_t i = 0; i < BATCH; i++) {
        random_block(kind, bf16 + i * MXFP4_BLOCK);
        random_gamma(gamma_kind, weights + i * MXFP4_BLOCK);
    }
    const float *gamma = gamma_kind == GAMMA_NONE ? NULL : weights;
    assert_true(mxfp4_quantize_scalar(bf16, BATCH, rule, gamma, want_packed, want_scales));
    for (int level = 0; level < CPU_LEVELS; level++) {
        mxfp4_quantize_fn *quantize = mxfp4_quantize_for((enum cpu_level)level);
        if (!cpu_has((enum cpu_level)level) || quantize == NULL)
            continue;
        uint8_t packed[BATCH * MXFP4_PACKED], scales[BATCH];
        assert_true(quantize(bf16, BATCH, rule, gamma, packed, scales));
        for (size_t i = 0; i < BATCH; i++)
            if (scales[i] != want_scales[i] ||
                memcmp(packed + i * MXFP4_PACKED, want_packed + i * MXFP4_PACKED, MXFP4_PACKED) != 0) {
                for (int k = 0; k < MXFP4_BLOCK; k++)
                    print_message("%04x ", bf16[i * MXFP4_BLOCK + (size_t)k]);
                fail_msg("%s, rule %s, a %s block: scale %u, the scalar reference's %u",
                         cpu_level_name((enum cpu_level)level), scale_rule_name(rule), kind_names[kind], scales[i],
                         want_scales[i]);
            }
    }
}

static void compare_rule(enum scale_rule rule, enum gamma_kind gamma_kind, size_t blocks) {
    random_state = (uint64_t)rule * GAMMA_KINDS + gamma_kind;
    size_t batches = (size_t)scaled((int)(blocks / BATCH / KINDS), 1);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < batches; i++)
            compare_batch((enum kind)kind, rule, gamma_kind);
}

static void given_random_blocks_then_every_variant_of_amax_equals_the_scalar(void **state) {
    (void)state;
    compare_rule(SCALE_RULE_AMAX, GAMMA_NONE, 800000);
}

static void given_random_blocks_then_every_variant_of_mse_equals_the_scalar(void **state) {
    (void)state;
    compare_rule(SCALE_RULE_MSE, GAMMA_NONE, 800000);
}

static void given_random_blocks_then_every_variant_of_qstream_equals_the_scalar(void **state) {
    (void)state;
    compare_rule(SCALE_RULE_QSTREAM, GAMMA_NONE, 800000);
}

static void given_random_gamma_then_every_variant_of_qstream_equals_the_scalar(void **state) {
    (void)state;
    for (int kind = GAMMA_USUAL; kind < GAMMA_KINDS; kind++)
        compare_rule(SCALE_RULE_QSTREAM, (enum gamma_kind)kind, 200000);
}

/* ---- decisions on a knife's edge
 * --------------------------------------------------------------------------- */

static double exhaustive_error(const uint16_t *bf16, int count, int exponent);

/* Every variant's answer to one block must be the scalar's; returns the scale. */
static uint8_t compare_block(const uint16_t bf16[MXFP4_BLOCK], enum scale_rule rule, const float *gamma) {
    uint8_t want[MXFP4_PACKED], want_scale;
    assert_true(mxfp4_quantize_scalar(bf16, 1, rule, gamma, want, &want_scale));
    for (int level = 0; level < CPU_LEVELS; level++) {
        uint8_t packed[MXFP4_PACKED], scale;
        if (!cpu_has((enum cpu_level)level))
            continue;
        assert_true(mxfp4_quantize_for((enum cpu_level)level)(bf16, 1, rule, gamma, packed, &scale));
        assert_int_equal(scale, want_scale);
        assert_memory_equal(packed, want, MXFP4_PACKED);
    }
    return want_scale;
}

enum { SPECK_EVERY = 9 };

/*
 * A block for which exponents 0 and -1 (times 2^power) are often equally good: one value a little above 3.5
 * loses under -1 what those near .25 and .75 gain. Every ninth value is zero.
 */
static void random_balanced_block(int power, uint16_t bf16[MXFP4_BLOCK]) {
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        float value = i % SPECK_EVERY == 4 ? 0 : (float)(random_below(33) - 16) / 16;
        if (i == 7)
            value = 3.5f + (float)(1 + random_below(7)) / 16;
        bf16[i] = bf16_encode(ldexpf(value, power));
    }
}

static void given_two_equally_good_scales_then_the_smaller_one_is_taken(void **state) {
    (void)state;
    random_state = 21;
    size_t ties = 0, wanted = (size_t)scaled(20000, 1);
    while (ties < wanted) {
        uint16_t bf16[MXFP4_BLOCK];
        int power = random_below(20) - 18;
        random_balanced_block(power, bf16);
        if (exhaustive_error(bf16, MXFP4_BLOCK, power) != exhaustive_error(bf16, MXFP4_BLOCK, power - 1))
            continue;
        ties++;
        assert_int_equal(compare_block(bf16, SCALE_RULE_MSE, NULL), 127 + power - 1);
        assert_int_equal(compare_block(bf16, SCALE_RULE_QSTREAM, NULL), 127 + power - 1);
    }
}

/* Then the scalar's float64 sums decide by their rounding, and a variant has to decide the same. */
static void given_a_tie_and_specks_that_float64_rounds_then_variants_still_agree(void **state) {
    (void)state;
    random_state = 22;
    size_t ties = 0, wanted = (size_t)scaled(20000, 1), upper_mse = 0, upper_qstream = 0;
    while (ties < wanted) {
        uint16_t bf16[MXFP4_BLOCK];
        random_balanced_block(0, bf16);
        if (exhaustive_error(bf16, MXFP4_BLOCK, 0) != exhaustive_error(bf16, MXFP4_BLOCK, -1))
            continue;
        ties++;
        for (int i = 4; i < MXFP4_BLOCK; i += SPECK_EVERY)
            bf16[i] = with_random_sign((127 - 33 + random_below(14)) << 7 | 0x55);
        upper_mse += compare_block(bf16, SCALE_RULE_MSE, NULL) == 127;
        upper_qstream += compare_block(bf16, SCALE_RULE_QSTREAM, NULL) == 127;
    }
    assert_true(wanted < 1000 || (upper_mse > 0 && upper_qstream > 0));
}

/* gamma is balanced so that two scales agree to float32's last bits. */
static void given_a_nearly_exact_tie_under_gamma_then_variants_still_agree(void **state) {
    (void)state;
    random_state = 23;
    size_t balanced = 0, wanted = (size_t)scaled(100000, 1), upper = 0;
    while (balanced < wanted) {
        uint16_t bf16[MXFP4_BLOCK];
        float gamma[MXFP4_BLOCK];
        double rest = 0, gain = 0;
        int pivot = random_below(MXFP4_BLOCK);
        random_block(KIND_NORMAL, bf16);
        random_gamma(GAMMA_USUAL, gamma);
        int exponent = compare_block(bf16, SCALE_RULE_QSTREAM, gamma) - 127;
        for (int i = 0; i < MXFP4_BLOCK; i++) {
            double difference = exhaustive_error(&bf16[i], 1, exponent - 1) - exhaustive_error(&bf16[i], 1, exponent);
            if (i == pivot)
                gain = difference;
            else
                rest += difference * (double)gamma[i] * (double)gamma[i];
        }
        if (gain * rest >= 0)
            continue;
        balanced++;
        gamma[pivot] = (float)sqrt(-rest / gain);
        upper += compare_block(bf16, SCALE_RULE_QSTREAM, gamma) == exponent + 127;
    }
    assert_true(wanted < 1000 || (upper > wanted / 10 && upper < wanted));
}

/* One value runs through all codes among fixed others: every exponent distance, every mantissa. */
static void given_every_bf16_value_then_every_variant_equals_the_scalar(void **state) {
    (void)state;
    static const uint16_t others[] = {0x3f80, 0x3fe0, 0x0000, 0x3a12, 0xbf01};
    uint16_t bf16[MXFP4_BLOCK];
    for (size_t other = 0; other < sizeof others / sizeof *others; other++)
        for (uint32_t code = 0; code < 0x10000; code += scaled(64, 1) == 64 ? 1 : 37) {
            if ((code & 0x7fff) >= 0x7f80)
                continue;
            for (int i = 0; i < MXFP4_BLOCK; i++)
                bf16[i] = i % 4 == 1 ? 0x3e99 : others[other];
            bf16[code % MXFP4_BLOCK] = (uint16_t)code;
            for (int rule = 0; rule < SCALE_RULES; rule++)
                compare_block(bf16, (enum scale_rule)rule, NULL);
        }
}

static void given_unaligned_rows_of_any_length_then_only_their_blocks_are_written(void **state) {
    (void)state;
    enum { MOST = 9 };
    static uint8_t room[MOST * MXFP4_BLOCK * 2 + 1];
    uint16_t bf16[MOST * MXFP4_BLOCK];
    uint8_t want[MOST * MXFP4_PACKED], want_scales[MOST];
    for (size_t i = 0; i < MOST; i++)
        random_block(KIND_NORMAL, bf16 + i * MXFP4_BLOCK);
    memcpy(room + 1, bf16, sizeof bf16);
    assert_true(mxfp4_quantize_scalar(bf16, MOST, SCALE_RULE_MSE, NULL, want, want_scales));
    for (int level = 0; level < CPU_LEVELS; level++)
        for (size_t blocks = 0; cpu_has((enum cpu_level)level) && blocks <= MOST; blocks++) {
            uint8_t packed[1 + sizeof want + 1], scales[MOST + 1];
            memset(packed, 0xa5, sizeof packed);
            memset(scales, 0xa5, sizeof scales);
            const void *unaligned = room + 1;
            assert_true(
                mxfp4_quantize_for((enum cpu_level)level)(unaligned, blocks, SCALE_RULE_MSE, NULL, packed + 1, scales));
            assert_memory_equal(packed + 1, want, blocks * MXFP4_PACKED);
            assert_memory_equal(scales, want_scales, blocks);
            assert_int_equal(packed[1 + blocks * MXFP4_PACKED], 0xa5);
            assert_int_equal(scales[blocks], 0xa5);
        }
}

static void given_an_infinity_or_nan_then_every_variant_refuses(void **state) {
    (void)state;
    static const uint16_t bad[] = {0x7f80, 0xff80, 0x7f81, 0x7fc0, 0xffff};
    for (size_t which = 0; which < sizeof bad / sizeof *bad; which++)
        for (size_t at = 0; at < 3 * MXFP4_BLOCK; at += 7)
            for (int rule = 0; rule < SCALE_RULES; rule++) {
                uint16_t bf16[3 * MXFP4_BLOCK] = {0};
                uint8_t packed[3 * MXFP4_PACKED], scales[3];
                bf16[at] = bad[which];
                assert_false(mxfp4_quantize_scalar(bf16, 3, (enum scale_rule)rule, NULL, packed, scales));
                for (int level = 0; level < CPU_LEVELS; level++)
                    if (cpu_has((enum cpu_level)level))
                        assert_false(mxfp4_quantize_for((enum cpu_level)level)(bf16, 3, (enum scale_rule)rule, NULL,
                                                                               packed, scales));
            }
}

/* ---- the mse rule is the best there is
 * --------------------------------------------------------------------- */

/* The squared error of `count` values under an exponent: the nearest of the fifteen values, by looking at
 * each. */
static double exhaustive_error(const uint16_t *bf16, int count, int exponent) {
    static const double grid[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    double step = ldexp(1, exponent), sum = 0;
    for (int i = 0; i < count; i++) {
        double value = fabs((double)bf16_decode(bf16[i])), least = HUGE_VAL;
        for (int k = 0; k < 8; k++) {
            double distance = fabs(value - grid[k] * step);
            least = distance < least ? distance : least;
        }
        sum += least * least;
    }
    return sum;
}

static double stored_error(const uint16_t bf16[MXFP4_BLOCK], const uint8_t packed[MXFP4_PACKED], uint8_t scale) {
    double sum = 0;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        double value = ldexp(e2m1_decode((uint8_t)(packed[i / 2] >> i % 2 * 4)), scale - 127);
        double difference = value - (double)bf16_decode(bf16[i]);
        sum += difference * difference;
    }
    return sum;
}

static void given_random_blocks_then_mse_finds_the_least_error_of_all_255_exponents(void **state) {
    (void)state;
    random_state = 7;
    size_t count = (size_t)scaled(1000, 1);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t repeat = 0; repeat < count; repeat++) {
            uint16_t bf16[MXFP4_BLOCK];
            uint8_t packed[MXFP4_PACKED], scale;
            random_block((enum kind)kind, bf16);
            double least = HUGE_VAL;
            int best = 0;
            for (int e8m0 = 0; e8m0 < 255; e8m0++) {
                double error = exhaustive_error(bf16, MXFP4_BLOCK, e8m0 - 127);
                if (error < least) {
                    least = error;
                    best = e8m0;
                }
            }
            assert_true(mxfp4_quantize_scalar(bf16, 1, SCALE_RULE_MSE, NULL, packed, &scale));
            assert_int_equal(scale, best);
            assert_true(stored_error(bf16, packed, scale) == least);
        }
}

static void given_random_blocks_then_no_other_rule_has_less_error_than_mse(void **state) {
    (void)state;
    random_state = 8;
    size_t count = (size_t)scaled(5000, 1);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t repeat = 0; repeat < count; repeat++) {
            uint16_t bf16[MXFP4_BLOCK];
            uint8_t packed[MXFP4_PACKED], scale;
            double error[SCALE_RULES];
            random_block((enum kind)kind, bf16);
            for (int rule = 0; rule < SCALE_RULES; rule++) {
                assert_true(mxfp4_quantize_scalar(bf16, 1, (enum scale_rule)rule, NULL, packed, &scale));
                error[rule] = stored_error(bf16, packed, scale);
            }
            assert_true(error[SCALE_RULE_MSE] <= error[SCALE_RULE_AMAX]);
            assert_true(error[SCALE_RULE_MSE] <= error[SCALE_RULE_QSTREAM]);
        }
}

/* ---- cases worked out by hand
 * ------------------------------------------------------------------------------ */

static void quantize_floats(const float *values, size_t count, enum scale_rule rule, uint8_t *packed, uint8_t *scale) {
    uint16_t bf16[MXFP4_BLOCK] = {0};
    for (size_t i = 0; i < count; i++)
        bf16[i] = bf16_encode(values[i]);
    assert_true(mxfp4_quantize_scalar(bf16, 1, rule, NULL, packed, scale));
}

static void given_the_grid_itself_then_codes_count_up_with_the_even_column_low(void **state) {
    (void)state;
    static const float grid[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.5f, -1, -1.5f, -2, -3, -4, -6, 6};
    static const uint8_t want[] = {0x10, 0x32, 0x54, 0x76, 0xa9, 0xcb, 0xed, 0x7f};
    for (int rule = 0; rule < SCALE_RULES; rule++) {
        uint8_t packed[MXFP4_PACKED], scale;
        quantize_floats(grid, sizeof grid / sizeof *grid, (enum scale_rule)rule, packed, &scale);
        assert_int_equal(scale, 127);
        assert_memory_equal(packed, want, sizeof want);
    }
}

static void given_values_between_two_codes_then_each_rule_breaks_the_tie_its_way(void **state) {
    (void)state;
    static const float halfway[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5, 6};
    uint8_t packed[MXFP4_PACKED], scale;
    quantize_floats(halfway, 8, SCALE_RULE_AMAX, packed, &scale);
    assert_memory_equal(packed, ((uint8_t[]){0x20, 0x42, 0x64, 0x76}), 4);
    quantize_floats(halfway, 8, SCALE_RULE_QSTREAM, packed, &scale);
    assert_memory_equal(packed, ((uint8_t[]){0x10, 0x32, 0x54, 0x76}), 4);
}

static void given_a_fraction_of_seven_quarters_then_amax_takes_the_next_exponent(void **state) {
    (void)state;
    uint8_t packed[MXFP4_PACKED], scale;
    quantize_floats((float[]){7}, 1, SCALE_RULE_AMAX, packed, &scale);
    assert_int_equal(scale, 128);
    assert_int_equal(packed[0], 6); /* 3.5 goes to 4 */
    quantize_floats((float[]){6.96875f}, 1, SCALE_RULE_AMAX, packed, &scale);
    assert_int_equal(scale, 127);
    assert_int_equal(packed[0], 7); /* saturates */
}

static void given_zeros_then_scales_are_least_and_only_mse_keeps_the_sign(void **state) {
    (void)state;
    static const float zeros[] = {0, -0.0f};
    uint8_t packed[MXFP4_PACKED], scale;
    quantize_floats(zeros, 2, SCALE_RULE_MSE, packed, &scale);
    assert_int_equal(scale, 0);
    assert_int_equal(packed[0], 0x80);
    quantize_floats(zeros, 2, SCALE_RULE_AMAX, packed, &scale);
    assert_int_equal(scale, 0);
    assert_int_equal(packed[0], 0);
    quantize_floats(zeros, 2, SCALE_RULE_QSTREAM, packed, &scale);
    assert_int_equal(scale, 127 - 24);
    assert_int_equal(packed[0], 0);
}

static void given_a_negative_that_rounds_to_zero_then_its_sign_stays(void **state) {
    (void)state;
    static const float values[] = {6, -0.001f};
    for (int rule = 0; rule < SCALE_RULES; rule++) {
        uint8_t packed[MXFP4_PACKED], scale;
        quantize_floats(values, 2, (enum scale_rule)rule, packed, &scale);
        assert_int_equal(packed[0] >> 4, 8);
    }
}

static void given_a_percentile_below_a_millionth_then_qstream_stores_zeros(void **state) {
    (void)state;
    float values[MXFP4_BLOCK];
    uint8_t packed[MXFP4_PACKED], scale;
    for (int i = 0; i < MXFP4_BLOCK; i++)
        values[i] = 9.9e-7f;
    quantize_floats(values, MXFP4_BLOCK, SCALE_RULE_QSTREAM, packed, &scale);
    assert_int_equal(scale, 127 - 24);
    for (int i = 0; i < MXFP4_PACKED; i++)
        assert_int_equal(packed[i], 0);
    values[3] = 2e-6f;
    quantize_floats(values, MXFP4_BLOCK, SCALE_RULE_QSTREAM, packed, &scale);
    assert_int_not_equal(packed[0], 0);
}

/* The weight says that the largest value does not matter; the repair says that it must not be cut to a third.
 */
static void given_an_outlier_without_weight_then_qstream_repairs_the_exponent(void **state) {
    (void)state;
    uint16_t bf16[MXFP4_BLOCK];
    float gamma[MXFP4_BLOCK];
    uint8_t packed[MXFP4_PACKED], scale;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        bf16[i] = bf16_encode(i == 9 ? 1.55f : 0.28f);
        gamma[i] = i == 9 ? 0 : 1;
    }
    assert_true(mxfp4_quantize_scalar(bf16, 1, SCALE_RULE_QSTREAM, gamma, packed, &scale));
    /* p99.5 = 1.353, so candidates are 2^-4, 2^-3, 2^-2; the first fits .28 best; 1.55 / 6 needs 2^-1. */
    assert_int_equal(scale, 127 - 1);
    for (int level = 0; level < CPU_LEVELS; level++)
        if (cpu_has((enum cpu_level)level)) {
            uint8_t fast_packed[MXFP4_PACKED], fast_scale;
            assert_true(mxfp4_quantize_for((enum cpu_level)level)(bf16, 1, SCALE_RULE_QSTREAM, gamma, fast_packed,
                                                                  &fast_scale));
            assert_int_equal(fast_scale, scale);
            assert_memory_equal(fast_packed, packed, MXFP4_PACKED);
        }
}

static void given_squares_beyond_float32_then_qstream_takes_the_first_candidate(void **state) {
    (void)state;
    uint8_t packed[MXFP4_PACKED], scale;
    float values[MXFP4_BLOCK];
    for (int i = 0; i < MXFP4_BLOCK; i++)
        values[i] = i % 2 == 0 ? 0x1.3p100f : 0x1.fp100f;
    quantize_floats(values, MXFP4_BLOCK, SCALE_RULE_QSTREAM, packed, &scale);
    /* All errors are infinite: the first candidate, 97, two below what 1.94 * 2^100 needs. The repair
     * takes 99. */
    assert_int_equal(scale, 127 + 99);
}

static void given_a_rule_name_then_it_parses_back(void **state) {
    (void)state;
    for (int rule = 0; rule < SCALE_RULES; rule++)
        assert_int_equal(scale_rule_parse(scale_rule_name((enum scale_rule)rule)), rule);
    assert_int_equal(scale_rule_parse("mean"), SCALE_RULES);
    assert_int_equal(scale_rule_parse(""), SCALE_RULES);
}

static void given_this_machine_then_its_best_level_has_a_variant(void **state) {
    (void)state;
    assert_true(cpu_has(cpu_best()));
    assert_non_null(mxfp4_quantize_for(cpu_best()));
    for (int level = 0; level < CPU_LEVELS; level++) {
        assert_int_equal(cpu_level_parse(cpu_level_name((enum cpu_level)level)), level);
        if (cpu_has((enum cpu_level)level))
            print_message("tested here: %s\n", cpu_level_name((enum cpu_level)level));
    }
    assert_int_equal(cpu_level_parse("mmx"), CPU_LEVELS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_this_machine_then_its_best_level_has_a_variant),
        cmocka_unit_test(given_a_rule_name_then_it_parses_back),
        cmocka_unit_test(given_the_grid_itself_then_codes_count_up_with_the_even_column_low),
        cmocka_unit_test(given_values_between_two_codes_then_each_rule_breaks_the_tie_its_way),
        cmocka_unit_test(given_a_fraction_of_seven_quarters_then_amax_takes_the_next_exponent),
        cmocka_unit_test(given_zeros_then_scales_are_least_and_only_mse_keeps_the_sign),
        cmocka_unit_test(given_a_negative_that_rounds_to_zero_then_its_sign_stays),
        cmocka_unit_test(given_a_percentile_below_a_millionth_then_qstream_stores_zeros),
        cmocka_unit_test(given_an_outlier_without_weight_then_qstream_repairs_the_exponent),
        cmocka_unit_test(given_squares_beyond_float32_then_qstream_takes_the_first_candidate),
        cmocka_unit_test(given_an_infinity_or_nan_then_every_variant_refuses),
        cmocka_unit_test(given_unaligned_rows_of_any_length_then_only_their_blocks_are_written),
        cmocka_unit_test(given_two_equally_good_scales_then_the_smaller_one_is_taken),
        cmocka_unit_test(given_a_tie_and_specks_that_float64_rounds_then_variants_still_agree),
        cmocka_unit_test(given_a_nearly_exact_tie_under_gamma_then_variants_still_agree),
        cmocka_unit_test(given_every_bf16_value_then_every_variant_equals_the_scalar),
        cmocka_unit_test(given_random_blocks_then_every_variant_of_amax_equals_the_scalar),
        cmocka_unit_test(given_random_blocks_then_every_variant_of_mse_equals_the_scalar),
        cmocka_unit_test(given_random_blocks_then_every_variant_of_qstream_equals_the_scalar),
        cmocka_unit_test(given_random_gamma_then_every_variant_of_qstream_equals_the_scalar),
        cmocka_unit_test(given_random_blocks_then_mse_finds_the_least_error_of_all_255_exponents),
        cmocka_unit_test(given_random_blocks_then_no_other_rule_has_less_error_than_mse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
