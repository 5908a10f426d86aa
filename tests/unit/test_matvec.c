/*
 * Matrix-vector products at each level that this machine has, against the decoders of common/formats.h and sums in double.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "guarded.h"
#include "infer/cpu/activations.h"
#include "infer/cpu/combine.h"
#include "infer/cpu/matvec_kernels.h"
#include "weight_values.h"

enum { BLOCK = 32 };

/* ---- weights ---- */

struct product {
    struct weight weight;
    struct guarded codes, exponents;
    float *scales, *x, *y;
    void *prepared;
};

/* Finite codes of moderate size. */
static void codes_fill(struct weight *weight, unsigned char *codes, size_t bytes, uint64_t *random) {
    const size_t size = weight->format == WEIGHT_F32 ? 4 : weight->format <= WEIGHT_BF16 ? 2 : 1;
    for (size_t i = 0; i < bytes / size; i++) {
        const float value = (float)uniform(random) * 3;
        const uint16_t half = weight->format == WEIGHT_F16 ? f16_encode(value) : bf16_encode(value);
        if (size == 4)
            memcpy(codes + i * 4, &value, 4);
        else if (size == 2)
            memcpy(codes + i * 2, &half, 2);
        else
            codes[i] = (unsigned char)random_next(random);
        if (weight->format == WEIGHT_FP8 || weight->format == WEIGHT_MXFP8)
            codes[i] = (codes[i] & 0x7f) == 0x7f ? 0 : codes[i];
    }
}

static struct product product_make(enum weight_format format, uint32_t rows, uint32_t columns, uint32_t scale_rows,
                                   uint32_t scale_columns, uint64_t seed) {
    uint64_t random = seed;
    struct product product = {.weight = {.format = format,
                                         .rows = rows,
                                         .columns = columns,
                                         .scale_rows = scale_rows,
                                         .scale_columns = scale_columns}};
    struct weight *weight = &product.weight;
    const size_t bytes = rows * weight_row_bytes(weight), blocks = (size_t)rows * (columns / BLOCK);
    product.codes = guarded_make(bytes);
    codes_fill(weight, product.codes.bytes, bytes, &random);
    weight->codes = product.codes.bytes;
    if (format >= WEIGHT_MXFP8) {
        product.exponents = guarded_make(blocks);
        for (size_t i = 0; i < blocks; i++)
            product.exponents.bytes[i] = (uint8_t)(117 + random_next(&random) % 12);
        weight->exponents = product.exponents.bytes;
    }
    if (format == WEIGHT_FP8) {
        const size_t count =
            ((size_t)rows + scale_rows - 1) / scale_rows * (((size_t)columns + scale_columns - 1) / scale_columns);
        product.scales = malloc(count * sizeof(float));
        for (size_t i = 0; i < count; i++)
            product.scales[i] = 0.02f + (float)fabs(uniform(&random));
        weight->scales = product.scales;
    }
    product.x = malloc(columns * sizeof(float));
    for (uint32_t i = 0; i < columns; i++)
        product.x[i] = (float)(uniform(&random) * exp(uniform(&random) * 4));
    product.y = malloc(rows * sizeof(float));
    return product;
}

static void product_free(struct product *product) {
    guarded_free(&product->codes);
    if (product->exponents.pages)
        guarded_free(&product->exponents);
    free(product->scales);
    free(product->x);
    free(product->y);
    free(product->prepared);
}

static void kernel_run(struct product *product, const struct matvec_kernel *kernel) {
    free(product->prepared);
    const size_t space = (kernel->space(&product->weight) + 63) / 64 * 64;
    product->prepared = aligned_alloc(64, space);
    memset(product->prepared, 0xff, space);
    kernel->prepare(&product->weight, product->x, product->prepared);
    kernel->rows(&product->weight, product->prepared, product->y, 0, product->weight.rows);
}

static void product_run(struct product *product, enum cpu_level level) {
    kernel_run(product, matvec_kernel(level, product->weight.format));
}

/* Each sum against double: off by rounding of float32 sums, and of x in blocks of MXFP4. */
static void product_check(struct product *product, enum cpu_level level) {
    const struct weight *weight = &product->weight;
    product_run(product, level);
    for (uint32_t row = 0; row < weight->rows; row++) {
        double sum = 0, allowed = 0;
        for (uint32_t begin = 0; begin < weight->columns; begin += BLOCK) {
            double most = 0, values = 0;
            for (uint32_t column = begin; column < weight->columns && column < begin + BLOCK; column++) {
                const double value = weight_value(weight, row, column), x = (double)product->x[column];
                sum += value * x;
                allowed += fabs(value * x) * 4e-6;
                most = fabs(x) > most ? fabs(x) : most;
                values += fabs(value);
            }
            if (weight->format == WEIGHT_MXFP4)
                allowed += values * most * 0x1p-15;
        }
        if (!(fabs((double)product->y[row] - sum) <= allowed + 1e-30))
            fail_msg("%s, %s, %u x %u, scales %u x %u, row %u: %.9g instead of %.9g, allowed %.2g",
                     format_names[weight->format], cpu_level_name(level), weight->rows, weight->columns,
                     weight->scale_rows, weight->scale_columns, row, (double)product->y[row], sum, allowed);
    }
}

/* ---- tests ---- */

#define EACH_LEVEL(level)                                                                                              \
    for (enum cpu_level level = 0; level < CPU_LEVELS; level++)                                                        \
        if (cpu_has(level))

static void given_any_shape_then_each_sum_is_that_of_the_decoded_weight(void **state) {
    (void)state;
    static const uint32_t any[] = {1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 200, 576, 1537, 3200, 4100};
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 15, 16, 17, 18, 31, 32, 33, 48, 100, 129, 260};
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (size_t i = 0; i < (format >= WEIGHT_MXFP8 ? sizeof blocks : sizeof any) / sizeof *any; i++)
            for (uint32_t rows = 1; rows <= 9; rows += rows < 5 ? 1 : 4) {
                const uint32_t columns = format >= WEIGHT_MXFP8 ? blocks[i] * BLOCK : any[i];
                struct product product = product_make(format, rows, columns, 1, columns, rows * 1000 + i);
                EACH_LEVEL(level)
                product_check(&product, level);
                product_free(&product);
            }
}

static void given_fp8_scales_of_any_kind_then_each_is_applied_where_it_belongs(void **state) {
    (void)state;
    static const struct {
        uint32_t rows, columns, scale_rows, scale_columns;
    } shapes[] = {{9, 300, 9, 300},  {9, 300, 1, 300},   {9, 300, UINT32_MAX, UINT32_MAX},
                  {9, 512, 4, 128},  {9, 500, 4, 128},   {9, 500, 1, 64},
                  {5, 97, 2, 32},    {5, 97, 2, 10},     {300, 640, 128, 128},
                  {3, 6000, 2, 128}, {6, 4096, 1, 2048}, {4, 200, 3, 192}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct product product = product_make(WEIGHT_FP8, shapes[i].rows, shapes[i].columns, shapes[i].scale_rows,
                                              shapes[i].scale_columns, i);
        EACH_LEVEL(level)
        product_check(&product, level);
        product_free(&product);
    }
}

#if defined __x86_64__
/* Each maker's processors have their own kernel for FP8; this machine runs both. */
static void given_another_makers_kernel_then_sums_are_the_same_to_the_bit(void **state) {
    (void)state;
    if (!cpu_has(CPU_AVX2))
        return;
    static const float powers[] = {1, 0x1p-100f, 0x1p90f, 0};
    for (enum weight_format format = WEIGHT_FP8; format <= WEIGHT_MXFP8; format++)
        for (uint32_t columns = BLOCK; columns <= 40 * BLOCK; columns += BLOCK)
            for (size_t i = 0; i < sizeof powers / sizeof *powers; i++) {
                struct product product = product_make(format, 7, columns, 1, columns, columns + i);
                for (uint32_t column = 0; column < columns; column++)
                    product.x[column] *= powers[i];
                kernel_run(&product, &matvec_avx2[format]);
                float y[7];
                memcpy(y, product.y, sizeof y);
                kernel_run(&product, &matvec_avx2_amd[format]);
                assert_memory_equal(product.y, y, sizeof y);
                if (i == 0)
                    product_check(&product, CPU_AVX2);
                product_free(&product);
            }
}
#endif

static void given_rows_in_parts_then_sums_are_the_same_to_the_bit(void **state) {
    (void)state;
    enum { ROWS = 13 };
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (uint32_t columns = 96; columns < 8000; columns *= 10) {
            struct product product = product_make(format, ROWS, columns, 1, columns, columns);
            EACH_LEVEL(level) {
                const struct matvec_kernel *kernel = matvec_kernel(level, format);
                product_run(&product, level);
                for (uint32_t begin = 0; begin < ROWS; begin++)
                    for (uint32_t end = begin; end <= ROWS; end++) {
                        float y[ROWS];
                        for (uint32_t i = 0; i < ROWS; i++)
                            y[i] = -1;
                        kernel->rows(&product.weight, product.prepared, y, begin, end);
                        for (uint32_t i = 0; i < ROWS; i++) {
                            const float expected = i >= begin && i < end ? product.y[i] : -1;
                            assert_int_equal(float_to_bits(y[i]), float_to_bits(expected));
                        }
                    }
            }
            product_free(&product);
        }
}

static void given_weights_at_an_odd_address_then_nothing_changes(void **state) {
    (void)state;
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++) {
        struct product product = product_make(format, 6, 160, 1, 160, 5);
        const size_t bytes = product.weight.rows * weight_row_bytes(&product.weight);
        unsigned char *moved = malloc(bytes + 1);
        memcpy(moved + 1, product.weight.codes, bytes);
        product.weight.codes = moved + 1;
        EACH_LEVEL(level)
        product_check(&product, level);
        free(moved);
        product_free(&product);
    }
}

/* A row for each code, in a column that is different each time; x is 1 there: the sum is the code's value exactly. */
static void given_each_fp8_code_then_its_value_is_exact(void **state) {
    (void)state;
    enum { CODES = 256, COLUMNS = 96 };
    for (enum weight_format format = WEIGHT_FP8; format <= WEIGHT_MXFP8; format++)
        EACH_LEVEL(level) {
            struct product product = product_make(format, CODES, COLUMNS, CODES, COLUMNS, 1);
            memset(product.codes.bytes, 0, CODES * COLUMNS);
            if (format == WEIGHT_MXFP8)
                memset(product.exponents.bytes, 127, CODES * COLUMNS / BLOCK);
            else
                product.scales[0] = 1;
            for (uint32_t code = 0; code < CODES; code++)
                product.codes.bytes[code * COLUMNS + code * 5 % COLUMNS] = (unsigned char)code;
            for (uint32_t i = 0; i < COLUMNS; i++)
                product.x[i] = 1;
            product_run(&product, level);
            for (uint32_t code = 0; code < CODES; code++) {
                const float expected = fp8_e4m3_decode((uint8_t)code);
                if (isnan(expected) ? !isnan(product.y[code]) : product.y[code] != expected)
                    fail_msg("%s: code %u is %g instead of %g", cpu_level_name(level), code, (double)product.y[code],
                             (double)expected);
            }
            product_free(&product);
        }
}

static void given_each_mxfp4_code_and_exponent_then_its_value_is_exact(void **state) {
    (void)state;
    enum { CODES = 16, COLUMNS = 256 * BLOCK };
    EACH_LEVEL(level) {
        struct product product = product_make(WEIGHT_MXFP4, CODES, COLUMNS, 1, COLUMNS, 1);
        for (uint32_t exponent = 0; exponent < 256; exponent++) {
            memset(product.codes.bytes, 0, CODES * COLUMNS / 2);
            memset(product.exponents.bytes, 127, CODES * COLUMNS / BLOCK);
            for (uint32_t code = 0; code < CODES; code++) {
                const uint32_t column = exponent * BLOCK + code * 7 % BLOCK;
                product.codes.bytes[(code * COLUMNS + column) / 2] = (unsigned char)(code << column % 2 * 4);
                product.exponents.bytes[code * (COLUMNS / BLOCK) + exponent] = (uint8_t)exponent;
            }
            for (uint32_t i = 0; i < COLUMNS; i++)
                product.x[i] = 1;
            product_run(&product, level);
            for (uint32_t code = 0; code < CODES; code++) {
                const float expected = e2m1_decode((uint8_t)code) * e8m0_decode((uint8_t)exponent);
                const bool large = fabsf(expected) >= 0x1p118f; /* see infer/matvec.h */
                if (isnan(expected) ? !isnan(product.y[code])
                                    : product.y[code] != expected && !(large && isinf(product.y[code])))
                    fail_msg("%s: code %u with exponent %u is %g instead of %g", cpu_level_name(level), code, exponent,
                             (double)product.y[code], (double)expected);
            }
        }
        product_free(&product);
    }
}

static void given_a_value_of_x_that_is_not_finite_then_no_sum_is(void **state) {
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            EACH_LEVEL(level) {
                struct product product = product_make(format, 5, 160, 1, 160, 3);
                product.x[77] = values[i];
                product_run(&product, level);
                for (uint32_t row = 0; row < product.weight.rows; row++)
                    if (isfinite(product.y[row])) /* a weight of zero times infinity is NaN, too */
                        fail_msg("%s, %s: %g", format_names[format], cpu_level_name(level), (double)product.y[row]);
                product_free(&product);
            }
}

static void given_x_of_zeros_or_of_tiny_values_then_sums_are_near_zero(void **state) {
    (void)state;
    static const float values[] = {0, -0.0f, 1e-45f, 1e-38f};
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            EACH_LEVEL(level) {
                struct product product = product_make(format, 5, 160, 1, 160, 3);
                for (uint32_t column = 0; column < 160; column++)
                    product.x[column] = values[i];
                product_run(&product, level);
                for (uint32_t row = 0; row < product.weight.rows; row++)
                    assert_true(fabsf(product.y[row]) <= fabsf(values[i]) * 1e6f);
                product_free(&product);
            }
}

static void given_memory_then_reading_sums_all_of_it(void **state) {
    (void)state;
    enum { WORDS = 1024 };
    uint64_t words[WORDS], random = 1, sum = 0;
    for (int i = 0; i < WORDS; i++)
        sum += words[i] = random_next(&random);
    EACH_LEVEL(level)
    assert_int_equal(memory_read_kernel(level)(words, sizeof words), sum);
}

static void given_rows_with_factors_then_their_sum_is_the_same_on_each_level(void **state) {
    (void)state;
    enum { ROWS = 37, STRIDE = 150 };
    static float matrix[ROWS * STRIDE], factors[ROWS];
    uint64_t random = 2;
    for (int i = 0; i < ROWS * STRIDE; i++)
        matrix[i] = (float)uniform(&random);
    for (int i = 0; i < ROWS; i++)
        factors[i] = (float)uniform(&random);
    for (uint32_t n = 1; n < STRIDE; n++)
        EACH_LEVEL(level) {
            float out[STRIDE];
            out[n] = -1;
            combine_of(level)(matrix, STRIDE, factors, n % ROWS, n, out);
            for (uint32_t j = 0; j < n; j++) {
                float sum = 0;
                for (uint32_t r = 0; r < n % ROWS; r++)
                    sum += factors[r] * matrix[r * STRIDE + j];
                assert_true(out[j] == sum);
            }
            assert_true(out[n] == -1);
        }
}

/* ---- activations ---- */

static void given_a_scheme_then_activations_are_rounded_as_it_says(void **state) {
    (void)state;
    enum { COLUMNS = 200, GROUP = 64 };
    float x[COLUMNS], out[COLUMNS];
    uint64_t random = 9;
    for (int i = 0; i < COLUMNS; i++)
        x[i] = (float)uniform(&random) * 20;
    x[3] = 31;
    static const enum activations schemes[] = {ACTIVATIONS_FLOAT, ACTIVATIONS_FP8_STATIC, ACTIVATIONS_FP8_TOKEN,
                                               ACTIVATIONS_FP8_GROUP};
    for (size_t s = 0; s < sizeof schemes / sizeof *schemes; s++)
        EACH_LEVEL(level) {
            const struct weight weight = {
                .columns = COLUMNS, .activations = schemes[s], .input_scale = 0.05f, .group = GROUP};
            const float factor = activations_round(row_kernels_of(level), &weight, x, out);
            for (int i = 0; i < COLUMNS; i++) {
                float largest = 0, expected = x[i];
                const int begin = schemes[s] == ACTIVATIONS_FP8_GROUP ? i / GROUP * GROUP : 0,
                          end =
                              schemes[s] == ACTIVATIONS_FP8_GROUP && begin + GROUP < COLUMNS ? begin + GROUP : COLUMNS;
                for (int j = begin; j < end; j++)
                    largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
                const float scale = schemes[s] == ACTIVATIONS_FP8_STATIC ? 0.05f : largest / 448;
                if (schemes[s] != ACTIVATIONS_FLOAT)
                    expected = fp8_e4m3_decode(fp8_e4m3_encode(x[i] / scale)) * scale;
                assert_true(out[i] * factor == expected);
            }
        }
}

static void given_two_weights_then_equal_rounding_is_told(void **state) {
    (void)state;
    struct weight a = {.activations = ACTIVATIONS_FP8_STATIC, .input_scale = 1}, b = a;
    assert_true(activations_equal(&a, &b));
    b.input_scale = 2;
    assert_false(activations_equal(&a, &b));
    a.activations = b.activations = ACTIVATIONS_FP8_TOKEN;
    assert_true(activations_equal(&a, &b));
    a.activations = b.activations = ACTIVATIONS_FP8_GROUP;
    a.group = 1;
    assert_false(activations_equal(&a, &b));
    b.activations = ACTIVATIONS_FLOAT;
    assert_false(activations_equal(&a, &b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_any_shape_then_each_sum_is_that_of_the_decoded_weight),
        cmocka_unit_test(given_fp8_scales_of_any_kind_then_each_is_applied_where_it_belongs),
#if defined __x86_64__
        cmocka_unit_test(given_another_makers_kernel_then_sums_are_the_same_to_the_bit),
#endif
        cmocka_unit_test(given_rows_in_parts_then_sums_are_the_same_to_the_bit),
        cmocka_unit_test(given_weights_at_an_odd_address_then_nothing_changes),
        cmocka_unit_test(given_each_fp8_code_then_its_value_is_exact),
        cmocka_unit_test(given_each_mxfp4_code_and_exponent_then_its_value_is_exact),
        cmocka_unit_test(given_a_value_of_x_that_is_not_finite_then_no_sum_is),
        cmocka_unit_test(given_x_of_zeros_or_of_tiny_values_then_sums_are_near_zero),
        cmocka_unit_test(given_memory_then_reading_sums_all_of_it),
        cmocka_unit_test(given_rows_with_factors_then_their_sum_is_the_same_on_each_level),
        cmocka_unit_test(given_a_scheme_then_activations_are_rounded_as_it_says),
        cmocka_unit_test(given_two_weights_then_equal_rounding_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
