/*
 * Row conversions: every set that this machine can run against the scalar codecs, bit for bit, over all codes
 * and at row lengths around the vector widths.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu.h"
#include "common/formats.h"
#include "qstream/convert.h"

enum { ROOM = 0x10000 };

static const size_t lengths[] = {0, 1, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 256, 1000};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* Calls `check` for every set of conversions of this machine. */
static void for_each_level(void (*check)(const struct convert *convert)) {
    for (int level = 0; level < CPU_LEVELS; level++)
        if (cpu_has((enum cpu_level)level))
            check(convert_for((enum cpu_level)level));
}

/* One value more than the row must stay as it was. */
enum { CANARY = 0xa5a5 };

/* ---- FP8 to BF16
 * ------------------------------------------------------------------------------------------- */

static const float fp8_scales[] = {1,        0.000312f, 3.7e-5f, 0x1p-130f, 1e36f,     3e38f,
                                   -0.0123f, 0,         0x1p10f, 0.3f,      HUGE_VALF, NAN};
enum { FP8_SCALES = sizeof fp8_scales / sizeof *fp8_scales };

static uint16_t fp8_product(uint8_t code, float scale) {
    float product = fp8_e4m3_decode(code & 0x7f) * scale;
    uint16_t magnitude = isnan(product) ? 0x7fc0 : bf16_encode(product);
    return (uint16_t)(magnitude ^ (code & 0x80) << 8);
}

static void check_fp8(const struct convert *convert) {
    uint8_t in[1001];
    uint16_t table[256], out[1001];
    for (size_t s = 0; s < FP8_SCALES; s++) {
        fp8_table_fill(fp8_scales[s], table);
        for (size_t k = 0; k < LENGTHS; k++)
            for (size_t first = 0; first < 256; first += 51) {
                size_t count = lengths[k];
                for (size_t i = 0; i < count; i++)
                    in[i] = (uint8_t)(i + first);
                out[count] = CANARY;
                convert->fp8_e4m3_to_bf16(in, count, fp8_scales[s], out);
                for (size_t i = 0; i < count; i++)
                    assert_int_equal(out[i], fp8_product(in[i], fp8_scales[s]));
                assert_int_equal(out[count], CANARY);
                memset(out, 0, count * sizeof *out);
                convert->fp8_e4m3_to_bf16_by_table(in, count, table, out);
                for (size_t i = 0; i < count; i++)
                    assert_int_equal(out[i], fp8_product(in[i], fp8_scales[s]));
                assert_int_equal(out[count], CANARY);
            }
    }
}

static void given_every_fp8_code_and_scale_then_bf16_is_the_product_rounded_once(void **state) {
    (void)state;
    for_each_level(check_fp8);
}

static void given_a_finite_scale_then_the_table_is_the_plain_product(void **state) {
    (void)state;
    uint16_t table[256];
    for (size_t s = 0; s < FP8_SCALES; s++) {
        fp8_table_fill(fp8_scales[s], table);
        for (uint32_t code = 0; code < 256; code++) {
            float product = fp8_e4m3_decode((uint8_t)code) * fp8_scales[s];
            if (isnan(product))
                assert_true((table[code] & 0x7fff) > 0x7f80);
            else
                assert_int_equal(table[code], bf16_encode(product));
        }
    }
}

/* ---- to BF16
 * ----------------------------------------------------------------------------------------------- */

static void check_f16(const struct convert *convert) {
    static uint16_t in[ROOM], out[ROOM];
    for (uint32_t code = 0; code < ROOM; code++)
        in[code] = (uint16_t)code;
    convert->f16_to_bf16(in, ROOM, out);
    for (uint32_t code = 0; code < ROOM; code++)
        assert_int_equal(out[code], bf16_encode(f16_decode((uint16_t)code)));
    for (size_t k = 0; k < LENGTHS; k++) {
        size_t count = lengths[k];
        out[count] = CANARY;
        convert->f16_to_bf16(in + 0x3bf0, count, out);
        assert_int_equal(out[count], CANARY);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(out[i], bf16_encode(f16_decode(in[0x3bf0 + i])));
    }
}

static void given_every_f16_code_then_bf16_is_its_rounded_value(void **state) {
    (void)state;
    for_each_level(check_f16);
}

static void check_f32(const struct convert *convert) {
    static const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    static float in[ROOM];
    static uint16_t out[ROOM];
    for (size_t tail = 0; tail < sizeof tails / sizeof *tails; tail++) {
        for (uint32_t code = 0; code < ROOM; code++)
            in[code] = float_from_bits(code << 16 | tails[tail]);
        convert->f32_to_bf16(in, ROOM, out);
        for (uint32_t code = 0; code < ROOM; code++)
            assert_int_equal(out[code], bf16_encode(in[code]));
    }
    for (size_t k = 0; k < LENGTHS; k++) {
        out[lengths[k]] = CANARY;
        convert->f32_to_bf16(in, lengths[k], out);
        assert_int_equal(out[lengths[k]], CANARY);
    }
}

static void given_every_upper_half_with_every_kind_of_lower_half_then_f32_rounds_to_even(void **state) {
    (void)state;
    for_each_level(check_f32);
}

/* ---- BF16 to FP8
 * ------------------------------------------------------------------------------------------- */

static void check_amax(const struct convert *convert) {
    static uint16_t in[1001];
    for (size_t k = 0; k < LENGTHS; k++) {
        size_t count = lengths[k];
        for (size_t at = 0; at < count; at++) {
            for (size_t i = 0; i < count; i++)
                in[i] = (uint16_t)((i * 7 & 0xff) | (i & 1) << 15);
            in[at] = at % 2 == 0 ? 0xc321 : 0x4321;
            assert_int_equal(convert->bf16_amax(in, count), 0x4321);
        }
        assert_int_equal(convert->bf16_amax(in, 0), 0);
    }
    in[3] = 0xff80;
    assert_int_equal(convert->bf16_amax(in, 10), 0x7f80);
}

static void given_the_largest_magnitude_anywhere_then_amax_finds_it(void **state) {
    (void)state;
    for_each_level(check_amax);
}

/* compressed-tensors' steps: a BF16 division (float32, rounded), a clamp, a conversion to e4m3. */
static uint8_t fp8_quotient(uint16_t value, uint16_t scale) {
    float quotient = bf16_decode(bf16_encode(bf16_decode(value) / bf16_decode(scale)));
    return fp8_e4m3_encode(fminf(fmaxf(quotient, -448), 448));
}

static void check_to_fp8(const struct convert *convert) {
    static const uint16_t scales[] = {0x3f80, 0x3c23, 0x3b91, 0x3aff, 0x3c00, 0x0001,
                                      0x0080, 0x7f7f, 0x4123, 0x3555, 0x2bcd, 0x40c0};
    static uint16_t in[ROOM];
    static uint8_t out[ROOM];
    size_t finite = 0;
    for (uint32_t code = 0; code < ROOM; code++)
        if ((code & 0x7fff) < 0x7f80)
            in[finite++] = (uint16_t)code;
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        convert->bf16_to_fp8_e4m3(in, finite, scales[s], out);
        for (size_t i = 0; i < finite; i++)
            assert_int_equal(out[i], fp8_quotient(in[i], scales[s]));
    }
    for (size_t k = 0; k < LENGTHS; k++) {
        size_t count = lengths[k];
        out[count] = 0xa5;
        convert->bf16_to_fp8_e4m3(in + 0x3a00, count, 0x3b91, out);
        assert_int_equal(out[count], 0xa5);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(out[i], fp8_quotient(in[0x3a00 + i], 0x3b91));
    }
}

static void given_every_finite_bf16_value_then_fp8_is_the_rounded_quotient(void **state) {
    (void)state;
    for_each_level(check_to_fp8);
}

static void given_the_largest_magnitude_then_the_fp8_scale_maps_it_to_448(void **state) {
    (void)state;
    assert_int_equal(fp8_scale_from_amax(bf16_encode(448)), bf16_encode(1));
    assert_int_equal(fp8_scale_from_amax(bf16_encode(1)), bf16_encode(1 / 448.0f));
    assert_int_equal(fp8_scale_from_amax(0), bf16_encode(0x1p-7f));
    assert_int_equal(fp8_scale_from_amax(1), bf16_encode(0x1p-7f)); /* underflows to zero */
    for (uint16_t amax = 0x1000; amax < 0x7f80; amax++) {
        uint8_t code = fp8_quotient(amax, fp8_scale_from_amax(amax));
        assert_int_equal(code, 0x7e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_every_fp8_code_and_scale_then_bf16_is_the_product_rounded_once),
        cmocka_unit_test(given_a_finite_scale_then_the_table_is_the_plain_product),
        cmocka_unit_test(given_every_f16_code_then_bf16_is_its_rounded_value),
        cmocka_unit_test(given_every_upper_half_with_every_kind_of_lower_half_then_f32_rounds_to_even),
        cmocka_unit_test(given_the_largest_magnitude_anywhere_then_amax_finds_it),
        cmocka_unit_test(given_every_finite_bf16_value_then_fp8_is_the_rounded_quotient),
        cmocka_unit_test(given_the_largest_magnitude_then_the_fp8_scale_maps_it_to_448),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
