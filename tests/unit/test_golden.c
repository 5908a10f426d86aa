/*
 * The golden files: inputs with the outputs of the reference encoders (shared/design/FORMATS.md). Read from
 * $QSTREAM_SHARED/golden, by default ../shared/golden. Where they are absent a test is skipped, which a
 * continuous-integration run (CI=true) takes for a failure unless QSTREAM_TEST_ALLOW_SKIP is set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu.h"
#include "common/formats.h"
#include "qstream/convert.h"
#include "qstream/mxfp4.h"

/* ---- a reader just large enough for these files
 * ------------------------------------------------------------ */

struct golden {
    uint8_t *file;
    const uint8_t *data;
    json_t *header;
};

static bool golden_open(struct golden *golden, const char *name) {
    const char *shared = getenv("QSTREAM_SHARED");
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", shared != NULL ? shared : "../shared", name);
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) {
        print_message("%s is absent\n", path);
        return false;
    }
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    long size = ftell(stream);
    assert_true(size > 8);
    rewind(stream);
    golden->file = malloc((size_t)size);
    assert_non_null(golden->file);
    assert_int_equal(fread(golden->file, 1, (size_t)size, stream), (size_t)size);
    fclose(stream);
    uint64_t length;
    memcpy(&length, golden->file, sizeof length);
    golden->data = golden->file + sizeof length + length;
    golden->header = json_loadb((const char *)golden->file + sizeof length, length, 0, NULL);
    assert_non_null(golden->header);
    return true;
}

static void golden_close(struct golden *golden) {
    json_decref(golden->header);
    free(golden->file);
}

/* Opens the file or ends the test: skipped, or failed where skipping is not allowed. */
static void golden_open_or_skip(struct golden *golden, const char *name) {
    if (golden_open(golden, name))
        return;
    const char *ci = getenv("CI");
    if (ci != NULL && strcmp(ci, "true") == 0 && getenv("QSTREAM_TEST_ALLOW_SKIP") == NULL)
        fail_msg("the golden files are required in CI; set QSTREAM_SHARED, or QSTREAM_TEST_ALLOW_SKIP=1");
    skip();
}

/* A tensor "NAME" or "NAME.SUFFIX"; NULL when there is none. Copied, so that its type's alignment holds. */
static void *golden_tensor(const struct golden *golden, const char *name, const char *suffix, size_t *bytes) {
    char key[256];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    json_t *offsets = json_object_get(json_object_get(golden->header, key), "data_offsets");
    if (offsets == NULL)
        return NULL;
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
    void *copy = malloc(end - begin + 1);
    assert_non_null(copy);
    memcpy(copy, golden->data + begin, end - begin);
    if (bytes != NULL)
        *bytes = end - begin;
    return copy;
}

/* ---- MXFP4
 * ------------------------------------------------------------------------------------------------- */

enum { ROWS = 48, COLUMNS = 192, VALUES = ROWS * COLUMNS, BLOCKS = VALUES / MXFP4_BLOCK };

static const char *const mxfp4_names[] = {"heavy", "huge",      "normal",     "outlier",     "ties",     "tiny",
                                          "zeros", "heavy_fp8", "normal_fp8", "outlier_fp8", "ties_fp8", "zeros_fp8"};

/* The BF16 values of NAME.weight, or of NAME.{weight,weight_scale_inv} dequantized for an FP8 one. */
static uint16_t *golden_weight(const struct golden *golden, const char *name) {
    size_t bytes;
    void *weight = golden_tensor(golden, name, ".weight", &bytes);
    assert_non_null(weight);
    float *scale = golden_tensor(golden, name, ".weight_scale_inv", NULL);
    if (scale == NULL) {
        assert_int_equal(bytes, VALUES * 2);
        return weight;
    }
    assert_int_equal(bytes, VALUES);
    uint16_t *bf16 = malloc(VALUES * sizeof *bf16);
    assert_non_null(bf16);
    convert_for(CPU_PORTABLE)->fp8_e4m3_to_bf16(weight, VALUES, *scale, bf16);
    free(weight);
    free(scale);
    return bf16;
}

static float *golden_gamma(const struct golden *golden, const char *name) {
    /* An FP8 copy shares the gamma of the tensor it was made from. */
    char base[64];
    snprintf(base, sizeof base, "%s", name);
    char *fp8 = strstr(base, "_fp8");
    if (fp8 != NULL)
        *fp8 = '\0';
    float *gamma = golden_tensor(golden, base, ".gamma", NULL);
    assert_non_null(gamma);
    return gamma;
}

/* Byte for byte, all-zero and subnormal blocks too: their scale is free, and is the reference's nevertheless. */
static void compare_tensor(const struct golden *golden, const char *name, const char *reference,
                           mxfp4_quantize_fn *quantize, enum scale_rule rule) {
    char suffix[64];
    uint16_t *bf16 = golden_weight(golden, name);
    float *gamma = strcmp(reference, "qstream_gamma") == 0 ? golden_gamma(golden, name) : NULL;
    snprintf(suffix, sizeof suffix, ".%s.weight_packed", reference);
    uint8_t *want_packed = golden_tensor(golden, name, suffix, NULL);
    snprintf(suffix, sizeof suffix, ".%s.weight_scale", reference);
    uint8_t *want_scales = golden_tensor(golden, name, suffix, NULL);
    assert_non_null(want_packed);
    assert_non_null(want_scales);

    static uint8_t packed[VALUES / 2], scales[BLOCKS];
    size_t row_blocks = COLUMNS / MXFP4_BLOCK;
    for (size_t row = 0; row < ROWS; row++)
        assert_true(quantize(bf16 + row * COLUMNS, row_blocks, rule, gamma, packed + row * COLUMNS / 2,
                             scales + row * row_blocks));
    for (size_t i = 0; i < BLOCKS; i++) {
        const uint8_t *codes = packed + i * MXFP4_PACKED, *want = want_packed + i * MXFP4_PACKED;
        if (scales[i] != want_scales[i] || memcmp(codes, want, MXFP4_PACKED) != 0)
            fail_msg("%s.%s: block %zu has scale %u, the reference %u", name, reference, i, scales[i], want_scales[i]);
    }
    free(want_scales);
    free(want_packed);
    free(gamma);
    free(bf16);
}

static void compare_mxfp4(const char *reference, enum scale_rule rule) {
    struct golden golden;
    golden_open_or_skip(&golden, "mxfp4.safetensors");
    for (size_t i = 0; i < sizeof mxfp4_names / sizeof *mxfp4_names; i++) {
        compare_tensor(&golden, mxfp4_names[i], reference, mxfp4_quantize_scalar, rule);
        for (int level = 0; level < CPU_LEVELS; level++)
            if (cpu_has((enum cpu_level)level))
                compare_tensor(&golden, mxfp4_names[i], reference, mxfp4_quantize_for((enum cpu_level)level), rule);
    }
    golden_close(&golden);
}

static void given_golden_blocks_then_amax_equals_compressed_tensors(void **state) {
    (void)state;
    compare_mxfp4("ct", SCALE_RULE_AMAX);
}

static void given_golden_blocks_then_qstream_equals_the_original(void **state) {
    (void)state;
    compare_mxfp4("qstream", SCALE_RULE_QSTREAM);
}

static void given_golden_blocks_and_gamma_then_qstream_equals_the_original(void **state) {
    (void)state;
    compare_mxfp4("qstream_gamma", SCALE_RULE_QSTREAM);
}

/* ---- FP8_DYNAMIC
 * ------------------------------------------------------------------------------------------- */

static void given_golden_rows_then_fp8_dynamic_equals_compressed_tensors(void **state) {
    (void)state;
    static const char *const names[] = {"heavy", "normal", "outlier", "ties", "zeros"};
    struct golden golden;
    golden_open_or_skip(&golden, "fp8_dynamic.safetensors");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint16_t *bf16 = golden_tensor(&golden, names[i], ".weight", NULL);
        uint8_t *want = golden_tensor(&golden, names[i], ".fp8_dynamic.weight", NULL);
        uint16_t *want_scales = golden_tensor(&golden, names[i], ".fp8_dynamic.weight_scale", NULL);
        assert_non_null(bf16);
        assert_non_null(want);
        assert_non_null(want_scales);
        for (int level = 0; level < CPU_LEVELS; level++) {
            if (!cpu_has((enum cpu_level)level))
                continue;
            const struct convert *convert = convert_for((enum cpu_level)level);
            for (size_t row = 0; row < ROWS; row++) {
                uint8_t codes[COLUMNS];
                const uint16_t *in = bf16 + row * COLUMNS;
                uint16_t scale = fp8_scale_from_amax(convert->bf16_amax(in, COLUMNS));
                assert_int_equal(scale, want_scales[row]);
                convert->bf16_to_fp8_e4m3(in, COLUMNS, scale, codes);
                assert_memory_equal(codes, want + row * COLUMNS, COLUMNS);
            }
        }
        free(want_scales);
        free(want);
        free(bf16);
    }
    golden_close(&golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_golden_blocks_then_amax_equals_compressed_tensors),
        cmocka_unit_test(given_golden_blocks_then_qstream_equals_the_original),
        cmocka_unit_test(given_golden_blocks_and_gamma_then_qstream_equals_the_original),
        cmocka_unit_test(given_golden_rows_then_fp8_dynamic_equals_compressed_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
