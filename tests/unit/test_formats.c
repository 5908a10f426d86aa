/*
 * The scalar codecs, exhaustively: every code decodes to the value that its format's definition gives,
 * encodes back to itself, and the encoders round what lies between two codes to the nearer one, ties to even.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "common/formats.h"

/* The definition, in float64: sign, exponent field, mantissa field. Infinities and NaNs are not its business.
 */
static double defined_value(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
    uint32_t sign = code >> (exponent_bits + mantissa_bits);
    int exponent = (int)(code >> mantissa_bits & ((1u << exponent_bits) - 1));
    double fraction = ldexp(code & ((1u << mantissa_bits) - 1), -mantissa_bits);
    double magnitude = exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);
    return sign != 0 ? -magnitude : magnitude;
}

static void assert_same(float value, double want) {
    assert_true((double)value == want);
    assert_int_equal(signbit(value) != 0, signbit(want) != 0);
}

/* The float32 values just below, at and just above the middle of two neighbouring codes. */
struct middle {
    float below, at, above;
};

static struct middle middle_of(float lower, float upper) {
    float at = (float)(((double)lower + (double)upper) / 2);
    return (struct middle){nextafterf(at, -HUGE_VALF), at, nextafterf(at, HUGE_VALF)};
}

static void given_every_bf16_code_then_it_decodes_by_definition_and_encodes_back(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x10000; code++) {
        float value = bf16_decode((uint16_t)code);
        if ((code & 0x7fff) > 0x7f80) {
            assert_true(isnan(value));
            assert_int_equal(bf16_encode(value), code | 0x40);
            continue;
        }
        if ((code & 0x7fff) == 0x7f80)
            assert_true(isinf(value) && (value < 0) == (code >> 15));
        else
            assert_same(value, defined_value(code, 8, 7, 127));
        assert_int_equal(bf16_encode(value), code);
    }
}

static void given_values_between_bf16_codes_then_the_nearer_or_even_one_is_chosen(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x7f7f; code++) {
        struct middle middle = middle_of(bf16_decode((uint16_t)code), bf16_decode((uint16_t)(code + 1)));
        assert_int_equal(bf16_encode(middle.below), code);
        assert_int_equal(bf16_encode(middle.at), code + (code & 1));
        assert_int_equal(bf16_encode(middle.above), code + 1);
        assert_int_equal(bf16_encode(-middle.above), (code + 1) | 0x8000);
    }
    assert_int_equal(bf16_encode(float_from_bits(0x7f7fffff)), 0x7f80); /* FLT_MAX overflows */
    assert_int_equal(bf16_encode(float_from_bits(0x7f800001)), 0x7fc0); /* a NaN whose payload is cut off */
    assert_int_equal(bf16_encode(float_from_bits(0xffffffff)), 0xffff);
}

static void given_every_f16_code_then_it_decodes_by_definition_and_encodes_back(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x10000; code++) {
        float value = f16_decode((uint16_t)code);
        if ((code & 0x7fff) > 0x7c00) {
            assert_true(isnan(value));
            assert_int_equal(f16_encode(value), code | 0x200);
            continue;
        }
        if ((code & 0x7fff) == 0x7c00)
            assert_true(isinf(value) && (value < 0) == (code >> 15));
        else
            assert_same(value, defined_value(code, 5, 10, 15));
        assert_int_equal(f16_encode(value), code);
    }
}

static void given_values_between_f16_codes_then_the_nearer_or_even_one_is_chosen(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x7bff; code++) {
        struct middle middle = middle_of(f16_decode((uint16_t)code), f16_decode((uint16_t)(code + 1)));
        assert_int_equal(f16_encode(middle.below), code);
        assert_int_equal(f16_encode(middle.at), code + (code & 1));
        assert_int_equal(f16_encode(middle.above), code + 1);
        assert_int_equal(f16_encode(-middle.below), code | 0x8000);
    }
    assert_int_equal(f16_encode(65519.996f), 0x7bff);
    assert_int_equal(f16_encode(65520), 0x7c00);
    assert_int_equal(f16_encode(-1e30f), 0xfc00);
    assert_int_equal(f16_encode(0x1p-149f), 0);
}

static void given_every_e4m3_code_then_it_decodes_by_definition_and_encodes_back(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 256; code++) {
        float value = fp8_e4m3_decode((uint8_t)code);
        if ((code & 0x7f) == 0x7f)
            assert_true(isnan(value));
        else
            assert_same(value, defined_value(code, 4, 3, 7));
        assert_int_equal(fp8_e4m3_encode(value), code);
    }
    assert_true(fp8_e4m3_decode(0x7e) == 448);
}

static void given_values_between_e4m3_codes_then_the_nearer_or_even_one_is_chosen(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x7e; code++) {
        struct middle middle = middle_of(fp8_e4m3_decode((uint8_t)code), fp8_e4m3_decode((uint8_t)(code + 1)));
        assert_int_equal(fp8_e4m3_encode(middle.below), code);
        assert_int_equal(fp8_e4m3_encode(middle.at), code + (code & 1));
        assert_int_equal(fp8_e4m3_encode(middle.above), code + 1);
        assert_int_equal(fp8_e4m3_encode(-middle.above), (code + 1) | 0x80);
    }
}

static void given_values_beyond_e4m3_then_it_saturates(void **state) {
    (void)state;
    assert_int_equal(fp8_e4m3_encode(448.1f), 0x7e);
    assert_int_equal(fp8_e4m3_encode(464), 0x7e);
    assert_int_equal(fp8_e4m3_encode(-1e38f), 0xfe);
    assert_int_equal(fp8_e4m3_encode(HUGE_VALF), 0x7e);
    assert_int_equal(fp8_e4m3_encode(-HUGE_VALF), 0xfe);
    assert_int_equal(fp8_e4m3_encode(NAN) & 0x7f, 0x7f);
    assert_int_equal(fp8_e4m3_encode(0x1p-149f), 0);
    assert_int_equal(fp8_e4m3_encode(-0.0f), 0x80);
}

static void given_every_e5m2_code_then_it_decodes_by_definition(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 256; code++) {
        float value = fp8_e5m2_decode((uint8_t)code);
        if ((code & 0x7f) > 0x7c)
            assert_true(isnan(value));
        else if ((code & 0x7f) == 0x7c)
            assert_true(isinf(value) && (value < 0) == (code >> 7));
        else
            assert_same(value, defined_value(code, 5, 2, 15));
    }
}

static void given_every_e8m0_code_then_it_is_that_power_of_two(void **state) {
    (void)state;
    for (int code = 0; code < 255; code++)
        assert_true((double)e8m0_decode((uint8_t)code) == ldexp(1, code - 127));
    assert_true(isnan(e8m0_decode(255)));
}

static void given_every_e2m1_code_under_every_scale_then_it_decodes_and_encodes_back(void **state) {
    (void)state;
    for (int scale = 0; scale < 256; scale++)
        for (uint32_t code = 0; code < 16; code++) {
            float value = e2m1_decode((uint8_t)code);
            assert_same(value, defined_value(code, 2, 1, 1));
            assert_same(e2m1_decode((uint8_t)(code | 0xf0)), value); /* only the low nibble counts */
            double product = (double)value * (double)e8m0_decode((uint8_t)scale);
            if (scale == 255) {
                assert_true(isnan(product));
                continue;
            }
            float back = (float)ldexp(product, 127 - scale);
            assert_int_equal(e2m1_encode(back, E2M1_TIES_TO_EVEN), code);
            assert_int_equal(e2m1_encode(back, E2M1_TIES_TOWARD_ZERO), code);
        }
}

static void given_values_between_e2m1_codes_then_ties_go_as_asked(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 7; code++) {
        struct middle middle = middle_of(e2m1_decode((uint8_t)code), e2m1_decode((uint8_t)(code + 1)));
        for (int ties = E2M1_TIES_TO_EVEN; ties <= E2M1_TIES_TOWARD_ZERO; ties++) {
            assert_int_equal(e2m1_encode(middle.below, (enum e2m1_ties)ties), code);
            assert_int_equal(e2m1_encode(middle.above, (enum e2m1_ties)ties), code + 1);
            assert_int_equal(e2m1_encode(-middle.above, (enum e2m1_ties)ties), (code + 1) | 8);
        }
        assert_int_equal(e2m1_encode(middle.at, E2M1_TIES_TO_EVEN), code + (code & 1));
        assert_int_equal(e2m1_encode(middle.at, E2M1_TIES_TOWARD_ZERO), code);
        assert_int_equal(e2m1_encode(-middle.at, E2M1_TIES_TOWARD_ZERO), code | 8);
    }
    assert_int_equal(e2m1_encode(HUGE_VALF, E2M1_TIES_TO_EVEN), 7);
    assert_int_equal(e2m1_encode(-1e30f, E2M1_TIES_TOWARD_ZERO), 15);
    assert_int_equal(e2m1_encode(-0.0f, E2M1_TIES_TO_EVEN), 8);
    assert_int_equal(e2m1_encode(-0x1p-149f, E2M1_TIES_TO_EVEN), 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_every_bf16_code_then_it_decodes_by_definition_and_encodes_back),
        cmocka_unit_test(given_values_between_bf16_codes_then_the_nearer_or_even_one_is_chosen),
        cmocka_unit_test(given_every_f16_code_then_it_decodes_by_definition_and_encodes_back),
        cmocka_unit_test(given_values_between_f16_codes_then_the_nearer_or_even_one_is_chosen),
        cmocka_unit_test(given_every_e4m3_code_then_it_decodes_by_definition_and_encodes_back),
        cmocka_unit_test(given_values_between_e4m3_codes_then_the_nearer_or_even_one_is_chosen),
        cmocka_unit_test(given_values_beyond_e4m3_then_it_saturates),
        cmocka_unit_test(given_every_e5m2_code_then_it_decodes_by_definition),
        cmocka_unit_test(given_every_e8m0_code_then_it_is_that_power_of_two),
        cmocka_unit_test(given_every_e2m1_code_under_every_scale_then_it_decodes_and_encodes_back),
        cmocka_unit_test(given_values_between_e2m1_codes_then_ties_go_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
