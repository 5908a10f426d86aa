/*
 * The work on rows, at each level that this machine has: against the C library, the scalar formats and sums in double;
 * and the same to the bit on all levels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "guarded.h"
#include "infer/cpu/rows.h"
#include "weight_values.h"

#define EACH_LEVEL(level)                                                                                              \
    for (enum cpu_level level = 0; level < CPU_LEVELS; level++)                                                        \
        if (cpu_has(level))

enum { LONGEST = 200 };

/* n floats at the end of a page: of many sizes, or up to `most`. */
struct row {
    struct guarded memory;
    float *x;
};

static struct row row_make(uint32_t n, double most, uint64_t seed) {
    struct row row = {.memory = guarded_make(n * sizeof(float))};
    row.x = (float *)(void *)row.memory.bytes;
    uint64_t random = seed * 1000 + n;
    for (uint32_t i = 0; i < n; i++)
        row.x[i] = (float)(most > 0 ? uniform(&random) * most : uniform(&random) * exp(uniform(&random) * 12));
    return row;
}

static void row_free(struct row *row) { guarded_free(&row->memory); }

static void check(const char *what, enum cpu_level level, uint32_t n, uint32_t at, double value, double expected,
                  double allowed) {
    if (value == expected || (isnan(value) && isnan(expected)))
        return;
    if (!(fabs(value - expected) <= allowed))
        fail_msg("%s, %s, %u values, number %u: %.9g instead of %.9g", what, cpu_level_name(level), n, at, value,
                 expected);
}

static void check_bits(const char *what, enum cpu_level level, uint32_t n, const void *values, const void *expected,
                       size_t bytes) {
    if (memcmp(values, expected, bytes) != 0)
        fail_msg("%s, %s, %u values: not what the portable level gives", what, cpu_level_name(level), n);
}

/* ---- rounding ---- */

static void given_any_bits_then_bf16_is_that_of_the_scalar_encoder(void **state) {
    (void)state;
    enum { COUNT = 1 << 16, LENGTH = 61 };
    float *x = malloc(COUNT * sizeof *x), *rounded = malloc(COUNT * sizeof *rounded);
    uint16_t *codes = malloc(COUNT * sizeof *codes);
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (size_t i = 0; i < sizeof low / sizeof *low; i++) {
        for (uint32_t high = 0; high < COUNT; high++)
            x[high] = float_from_bits(high << 16 | low[i]);
        EACH_LEVEL(level) {
            const struct row_kernels *rows = row_kernels_of(level);
            for (uint32_t at = 0; at < COUNT; at += LENGTH) {
                const uint32_t n = COUNT - at < LENGTH ? COUNT - at : LENGTH;
                rows->to_bf16(x + at, n, codes + at);
                rows->round_bf16(x + at, n, rounded + at);
            }
            for (uint32_t high = 0; high < COUNT; high++) {
                assert_int_equal(codes[high], bf16_encode(x[high]));
                assert_int_equal(float_to_bits(rounded[high]), (uint32_t)codes[high] << 16);
            }
            rows->from_bf16(codes, COUNT, rounded);
            for (uint32_t high = 0; high < COUNT; high++)
                assert_int_equal(float_to_bits(rounded[high]), (uint32_t)codes[high] << 16);
        }
    }
    free(x);
    free(rounded);
    free(codes);
}

static void given_values_about_each_code_then_fp8_is_that_of_the_scalar_encoder(void **state) {
    (void)state;
    static const float scales[] = {1, 0.37f, 0x1p-9f, 1e-4f};
    enum { NEAR = 5 };
    float x[256 * NEAR], out[256 * NEAR];
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        uint32_t count = 0;
        for (uint32_t code = 0; code < 255; code++) {
            if ((code & 0x7f) >= 0x7e)
                continue;
            const float low = fp8_e4m3_decode((uint8_t)code), high = fp8_e4m3_decode((uint8_t)(code + 1));
            const float middle = (low + high) / 2;
            const float near[NEAR] = {low, middle, nextafterf(middle, 1e9f), nextafterf(middle, -1e9f), high * 1.01f};
            for (int i = 0; i < NEAR; i++)
                x[count++] = near[i] * scales[s];
        }
        x[count++] = 1e30f;
        x[count++] = -INFINITY;
        EACH_LEVEL(level) {
            row_kernels_of(level)->to_fp8(x, scales[s], count, out);
            for (uint32_t i = 0; i < count; i++)
                assert_int_equal(float_to_bits(out[i]),
                                 float_to_bits(fp8_e4m3_decode(fp8_e4m3_encode(x[i] / scales[s]))));
        }
    }
}

/* ---- sums and extremes ---- */

static void given_rows_of_any_length_then_norms_are_those_of_double(void **state) {
    (void)state;
    float first[LONGEST], out[LONGEST];
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row x = row_make(n, 0, 1), weight = row_make(n, 3, 2);
        double sum = 0;
        for (uint32_t i = 0; i < n; i++)
            sum += (double)x.x[i] * (double)x.x[i];
        EACH_LEVEL(level) {
            row_kernels_of(level)->norm(x.x, weight.x, 1e-5f, n, out);
            for (uint32_t i = 0; i < n; i++) {
                const double expected = (double)x.x[i] / sqrt(sum / n + 1e-5) * (double)weight.x[i];
                check("norm", level, n, i, (double)out[i], expected, fabs(expected) * 1e-6);
            }
            if (level == CPU_PORTABLE)
                memcpy(first, out, sizeof out);
            check_bits("norm", level, n, out, first, n * sizeof *out);
        }
        row_free(&x);
        row_free(&weight);
    }
}

static void given_rows_of_any_length_then_the_greatest_is_found_wherever_it_is(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row x = row_make(n, 1, 3);
        EACH_LEVEL(level) {
            const struct row_kernels *rows = row_kernels_of(level);
            for (uint32_t at = 0; at < n; at++) {
                const float kept = x.x[at];
                x.x[at] = 2;
                check("maximum", level, n, at, (double)rows->maximum(x.x, n), 2, 0);
                x.x[at] = -2;
                check("largest", level, n, at, (double)rows->largest(x.x, n), 2, 0);
                assert_true(rows->all_finite(x.x, n));
                x.x[at] = at % 2 ? -INFINITY : NAN;
                assert_false(rows->all_finite(x.x, n));
                if (at % 2 == 0)
                    assert_true(isnan(rows->largest(x.x, n)));
                x.x[at] = kept;
            }
        }
        row_free(&x);
    }
}

static void given_scores_then_exponentials_and_their_sum_are_those_of_double(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row scores = row_make(n, 60, 4), out = row_make(n, 1, 0);
        const float shift = 60;
        float first[LONGEST], first_sum = 0;
        scores.x[n - 1] = -1e30f;
        EACH_LEVEL(level) {
            memcpy(out.x, scores.x, n * sizeof(float));
            const float sum = row_kernels_of(level)->exponentials(out.x, shift, n);
            double expected_sum = 0;
            for (uint32_t i = 0; i < n; i++) {
                const float x = scores.x[i] - shift;
                const double expected = x < -87.33f ? 0 : exp((double)x);
                expected_sum += expected;
                check("exponentials", level, n, i, (double)out.x[i], expected, expected * 1.3e-7);
            }
            check("sum of exponentials", level, n, 0, (double)sum, expected_sum, expected_sum * 1e-6);
            if (level == CPU_PORTABLE) {
                memcpy(first, out.x, n * sizeof(float));
                first_sum = sum;
            }
            check_bits("exponentials", level, n, out.x, first, n * sizeof(float));
            check_bits("sum of exponentials", level, n, &sum, &first_sum, sizeof sum);
        }
        row_free(&scores);
        row_free(&out);
    }
}

static bool bf16_here(void) {
#if defined __x86_64__
    return cpu_has(CPU_AVX512) && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

static void given_scores_then_exponentials_in_bf16_are_double_rounded(void **state) {
    (void)state;
    if (!bf16_here())
        return; /* no kernel to test: nothing was left out */
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row scores = row_make(n, 60, 5);
        struct guarded codes = guarded_make(n * sizeof(uint16_t));
        const float shift = 60;
        scores.x[n / 2] = n % 3 ? -1e30f : shift;
        uint16_t *out = (uint16_t *)(void *)codes.bytes;
        const float sum = row_kernels_of(CPU_AVX512)->exponentials_bf16(scores.x, shift, n, out);
        double expected_sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            const double expected = exp((double)(scores.x[i] - shift));
            expected_sum += expected;
            check("exponentials in bf16", CPU_AVX512, n, i, (double)bf16_decode(out[i]), expected,
                  expected * (0x1p-9 + 0x1p-16) + 2e-38);
        }
        check("sum of exponentials", CPU_AVX512, n, 0, (double)sum, expected_sum, expected_sum * 1e-5 + 1e-35);
        scores.x[n - 1] = NAN;
        assert_true(isnan(row_kernels_of(CPU_AVX512)->exponentials_bf16(scores.x, shift, n, out)));
        assert_true(isnan(bf16_decode(out[n - 1])));
        row_free(&scores);
        guarded_free(&codes);
    }
}

static void given_two_rows_then_their_divergence_is_that_of_double(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row a = row_make(n, 20, 6), b = row_make(n, 20, 7);
        const float shift = 20;
        float first_sum = 0;
        double first_product = 0;
        EACH_LEVEL(level) {
            float sum;
            double product, expected_sum = 0, expected = 0, allowed = 0;
            row_kernels_of(level)->cross(a.x, b.x, shift, n, &sum, &product);
            for (uint32_t i = 0; i < n; i++) {
                const double power = exp((double)(a.x[i] - shift)), apart = (double)(a.x[i] - b.x[i]);
                expected_sum += power;
                expected += power * apart;
                allowed += fabs(power * apart) * 1e-6;
            }
            check("sum", level, n, 0, (double)sum, expected_sum, expected_sum * 1e-6);
            check("weighted differences", level, n, 0, product, expected, allowed);
            if (level == CPU_PORTABLE) {
                first_sum = sum;
                first_product = product;
            }
            check_bits("sum", level, n, &sum, &first_sum, sizeof sum);
            check_bits("weighted differences", level, n, &product, &first_product, sizeof product);
        }
        row_free(&a);
        row_free(&b);
    }
}

/* ---- value by value ---- */

static void given_gates_then_swiglu_is_that_of_double(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row gate = row_make(n, 0, 8), up = row_make(n, 0, 9), out = row_make(n, 1, 0);
        float first[LONGEST];
        EACH_LEVEL(level) {
            row_kernels_of(level)->swiglu(gate.x, up.x, n, out.x);
            for (uint32_t i = 0; i < n; i++) {
                const double g = (double)gate.x[i], expected = g / (1 + exp(-g)) * (double)up.x[i];
                /* exp(88) is the greatest power: behind that, the gate is nearly 0 */
                check("swiglu", level, n, i, (double)out.x[i], expected,
                      fabs(expected) * 5e-7 + (g < -80 ? fabs(g * (double)up.x[i]) * 1e-34 : 0));
            }
            if (level == CPU_PORTABLE)
                memcpy(first, out.x, n * sizeof(float));
            check_bits("swiglu", level, n, out.x, first, n * sizeof(float));
        }
        row_free(&gate);
        row_free(&up);
        row_free(&out);
    }
}

static void given_a_head_then_its_halves_are_rotated_in_place(void **state) {
    (void)state;
    for (uint32_t half = 1; half <= LONGEST / 2; half++) {
        struct row x = row_make(2 * half, 2, 10), out = row_make(2 * half, 1, 0), cosines = row_make(half, 1, 11),
                   sines = row_make(half, 1, 12);
        EACH_LEVEL(level) {
            memcpy(out.x, x.x, 2 * half * sizeof(float));
            row_kernels_of(level)->rotate(out.x, cosines.x, sines.x, 0.25f, half, out.x);
            for (uint32_t i = 0; i < half; i++) {
                const double a = (double)x.x[i], b = (double)x.x[i + half], c = (double)cosines.x[i],
                             s = (double)sines.x[i];
                check("first half", level, half, i, (double)out.x[i], (a * c - b * s) / 4, 3e-7);
                check("second half", level, half, i, (double)out.x[i + half], (b * c + a * s) / 4, 3e-7);
            }
        }
        row_free(&x);
        row_free(&out);
        row_free(&cosines);
        row_free(&sines);
    }
}

static void given_rows_then_products_and_sums_are_those_of_each_value(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= LONGEST; n++) {
        struct row x = row_make(n, 3, 13), y = row_make(n, 3, 14), out = row_make(n, 1, 0);
        EACH_LEVEL(level) {
            const struct row_kernels *rows = row_kernels_of(level);
            for (int which = 0; which < 4; which++) {
                memcpy(out.x, x.x, n * sizeof(float));
                if (which == 0)
                    rows->multiply(out.x, 1.7f, n);
                else if (which == 1)
                    rows->multiply_by(out.x, y.x, n);
                else if (which == 2)
                    rows->add(out.x, y.x, n);
                else
                    rows->add_scaled(out.x, y.x, 1.7f, n);
                for (uint32_t i = 0; i < n; i++) {
                    const float scaled = y.x[i] * 1.7f;
                    const float expected = which == 0   ? x.x[i] * 1.7f
                                           : which == 1 ? x.x[i] * y.x[i]
                                           : which == 2 ? x.x[i] + y.x[i]
                                                        : x.x[i] + scaled;
                    check("a row", level, n, i, (double)out.x[i], (double)expected, 0);
                }
            }
        }
        row_free(&x);
        row_free(&y);
        row_free(&out);
    }
}

/* ---- weights ---- */

/* What unpack gives: of FP8 only scales of blocks are applied. */
static float unpacked_value(const struct weight *weight, uint32_t row, uint32_t column) {
    if (weight->format == WEIGHT_FP8 && weight->scale_columns >= weight->columns)
        return fp8_e4m3_decode(((const uint8_t *)weight->codes)[(size_t)row * weight->columns + column]);
    return (float)weight_value(weight, row, column); /* rounded once, as the product in float32 is */
}

/* All codes of a format, all exponents, blocks of 48 columns that end within the runs asked for. */
static void given_weights_of_each_format_then_they_unpack_as_the_scalar_decoders_say(void **state) {
    (void)state;
    enum { ROWS = 6, COLUMNS = 1152, SCALES = ROWS * COLUMNS / 48 };
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (uint32_t block = 48; block <= COLUMNS; block += COLUMNS - 48) {
            struct weight weight = {
                .format = format, .rows = ROWS, .columns = COLUMNS, .scale_rows = 2, .scale_columns = block};
            const size_t bytes = ROWS * weight_row_bytes(&weight);
            struct guarded codes = guarded_make(bytes), exponents = guarded_make(ROWS * COLUMNS / 32);
            uint64_t random = 15;
            for (size_t i = 0; i < bytes; i++)
                codes.bytes[i] = (unsigned char)(format < WEIGHT_FP8 ? random_next(&random) : i * 7 + i / 256);
            for (size_t i = 0; i < exponents.size && i < ROWS * COLUMNS / 32; i++)
                exponents.bytes[i] = (unsigned char)(i * 3 % 255);
            float scales[SCALES], out[COLUMNS];
            uint16_t short_out[COLUMNS];
            for (int i = 0; i < SCALES; i++)
                scales[i] = (float)uniform(&random);
            weight.codes = codes.bytes;
            weight.exponents = exponents.bytes;
            weight.scales = scales;
            if (block == COLUMNS)
                weight.scale_rows = ROWS;
            for (uint32_t row = 0; row < ROWS; row++)
                for (uint32_t k0 = 0; k0 < COLUMNS; k0 += 160) {
                    const uint32_t k = row % 2 && COLUMNS - k0 > 544 ? 544 : COLUMNS - k0;
                    EACH_LEVEL(level) {
                        row_kernels_of(level)->unpack(&weight, row, k0, k, out);
                        row_kernels_of(level)->unpack_bf16(&weight, row, k0, k, short_out);
                        for (uint32_t i = 0; i < k; i++) {
                            const float expected = unpacked_value(&weight, row, k0 + i);
                            check("unpack", level, k, i, (double)out[i], (double)expected, 0);
                            if (format == WEIGHT_BF16 || !isnan(expected))
                                check("unpack_bf16", level, k, i, (double)bf16_decode(short_out[i]),
                                      (double)bf16_decode(bf16_encode(expected)), 0);
                        }
                    }
                }
            guarded_free(&codes);
            guarded_free(&exponents);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_any_bits_then_bf16_is_that_of_the_scalar_encoder),
        cmocka_unit_test(given_values_about_each_code_then_fp8_is_that_of_the_scalar_encoder),
        cmocka_unit_test(given_rows_of_any_length_then_norms_are_those_of_double),
        cmocka_unit_test(given_rows_of_any_length_then_the_greatest_is_found_wherever_it_is),
        cmocka_unit_test(given_scores_then_exponentials_and_their_sum_are_those_of_double),
        cmocka_unit_test(given_scores_then_exponentials_in_bf16_are_double_rounded),
        cmocka_unit_test(given_two_rows_then_their_divergence_is_that_of_double),
        cmocka_unit_test(given_gates_then_swiglu_is_that_of_double),
        cmocka_unit_test(given_a_head_then_its_halves_are_rotated_in_place),
        cmocka_unit_test(given_rows_then_products_and_sums_are_those_of_each_value),
        cmocka_unit_test(given_weights_of_each_format_then_they_unpack_as_the_scalar_decoders_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
