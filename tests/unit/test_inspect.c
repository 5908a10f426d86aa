/*
 * inspect: the fast loops count what plain ones count, statistics do not depend on chunks and threads, and every value
 * that is shown is the one that its format's rule gives.
 */
#include <math.h>

#include "inspect/inspect_report.h"
#include "inspect/scan_values.h"
#include "inspect/show.h"
#include "inspect/statistics.h"
#include "tests/unit/fixtures.h"

/* ---- loops ---- */

static void given_bytes_of_every_length_when_counted_then_it_is_what_a_plain_loop_counts(void **state) {
    (void)state;
    enum { SIZE = 5000 };
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(bytes);
    uint64_t seed = 7;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = i % 3 ? (uint8_t)fixture_random(&seed) : 0; /* many equal ones too */
    for (size_t size = 0; size < SIZE; size += size < 40 ? 1 : 331)
        for (size_t begin = 0; begin < 3 && begin <= size; begin++) {
            uint64_t wanted[256] = {0}, counts[256];
            for (size_t i = begin; i < size; i++)
                wanted[bytes[i]]++;
            bytes_count(bytes + begin, size - begin, counts);
            assert_memory_equal(counts, wanted, sizeof counts);
        }
    free(bytes);
}

static void plain_scan(enum dtype dtype, const uint8_t *bytes, size_t size, struct float_scan *scan) {
    static const double least_normal[DTYPES] = {
        [DTYPE_BF16] = 0x1p-126, [DTYPE_F16] = 0x1p-14, [DTYPE_F32] = 0x1p-126, [DTYPE_F64] = 0x1p-1022};
    size_t item = dtype_bits(dtype) / 8;
    *scan = (struct float_scan){.min = NAN, .max = NAN};
    for (size_t at = 0; at + item <= size; at += item) {
        double value = element_decode(dtype, bytes + at);
        scan->elements++;
        scan->nan += isnan(value) != 0;
        scan->infinite += isinf(value) != 0;
        scan->zero += value == 0;
        scan->subnormal += value != 0 && fabs(value) < least_normal[dtype];
        scan->negative += (bytes[at + item - 1] & 0x80) != 0 && value != 0;
        if (isfinite(value)) {
            scan->min = isnan(scan->min) || value < scan->min ? value : scan->min;
            scan->max = isnan(scan->max) || value > scan->max ? value : scan->max;
        }
    }
}

static void assert_same_number(double a, double b) {
    if (!(a == b || (isnan(a) && isnan(b))))
        fail_msg("%.17g is not %.17g", a, b);
}

static void assert_same_scan(enum dtype dtype, const uint8_t *bytes, size_t size) {
    struct float_scan scan, wanted;
    floats_scan(dtype, bytes, size, &scan);
    plain_scan(dtype, bytes, size, &wanted);
    assert_int_equal(scan.elements, wanted.elements);
    assert_int_equal(scan.nan, wanted.nan);
    assert_int_equal(scan.infinite, wanted.infinite);
    assert_int_equal(scan.zero, wanted.zero);
    assert_int_equal(scan.subnormal, wanted.subnormal);
    assert_int_equal(scan.negative, wanted.negative);
    assert_same_number(scan.min, wanted.min);
    assert_same_number(scan.max, wanted.max);
}

static void given_every_16_bit_code_when_scanned_then_it_is_what_a_plain_loop_finds(void **state) {
    (void)state;
    uint16_t *codes = malloc(sizeof *codes << 16);
    assert_non_null(codes);
    for (uint32_t i = 0; i < 1u << 16; i++)
        codes[i] = (uint16_t)i;
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16};
    for (int d = 0; d < 2; d++) {
        assert_same_scan(dtypes[d], (const uint8_t *)codes, sizeof *codes << 16);
        for (uint32_t first = 0; first < 1u << 16; first += 97) /* ranges of a kind: all NaN, all negative, ... */
            assert_same_scan(dtypes[d], (const uint8_t *)(codes + first), 2 * ((1u << 16) - first < 64 ? 1 : 64));
    }
    free(codes);
}

static void given_random_numbers_of_every_length_when_scanned_then_it_is_what_a_plain_loop_finds(void **state) {
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_F64};
    enum { SIZE = 1 << 20 };
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(bytes);
    uint64_t seed = 11;
    for (size_t i = 0; i < SIZE; i += 4) {
        uint32_t random = fixture_random(&seed), rare = fixture_random(&seed) % 16;
        uint32_t bits = rare == 0 ? random & 0x80008000u : rare == 1 ? random | 0x7f807f80u : random;
        memcpy(bytes + i, &bits, sizeof bits);
    }
    for (int d = 0; d < 4; d++) {
        for (size_t size = 0; size < 300; size++)
            assert_same_scan(dtypes[d], bytes, size);
        assert_same_scan(dtypes[d], bytes + 8, SIZE - 8);
    }
    /* counters of a run hold even when every value counts */
    static const uint32_t all[] = {0, 0x80008000u, 0x7fff7fffu, 0xff80ff80u, 0x7c007c00u, 0x00010001u};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        for (size_t i = 0; i < SIZE; i += 4)
            memcpy(bytes + i, &all[k], 4);
        for (int d = 0; d < 4; d++)
            assert_same_scan(dtypes[d], bytes, SIZE);
    }
    free(bytes);
}

static void given_counts_when_their_entropy_is_taken_then_it_is_shannons(void **state) {
    (void)state;
    const uint64_t one[] = {0, 9, 0}, even[] = {5, 5, 5, 5}, none[] = {0, 0}, halves[] = {2, 1, 1};
    assert_true(code_entropy(one, 3) == 0);
    assert_true(code_entropy(even, 4) == 2);
    assert_true(code_entropy(none, 2) == 0);
    assert_true(fabs(code_entropy(halves, 3) - 1.5) < 1e-15);
}

/* ---- statistics ---- */

static const char everything[] = "a.weight_packed U8 1024x1040\na.weight_scale U8 1024x65\n"
                                 "b.weight F8_E4M3 1200x1001\nb.weight_scale F32 1\nb.input_scale BF16 1\n"
                                 "c.weight BF16 700x1000\nd.weight I8 8x64\nd.weight_scale F32 8x1\n"
                                 "e.weight F8_E4M3 64x64\ne.weight_scale U8 64x2\n"
                                 "empty.weight BF16 0x8\nnumbers I64 4\n";

static void inspection_make(struct fixture *fixture, struct inspection *inspection, const char *shard) {
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", shard);
    assert_ok(inspection_open(fixture->path, inspection, &fixture->error), fixture->error);
    assert_int_equal(inspection->problem_count, 0);
}

static uint32_t tensor_number(const struct inspection *inspection, const char *name) {
    const struct tensor *tensor = checkpoint_find(&inspection->checkpoint, name);
    if (!tensor)
        fail_msg("no tensor '%s'", name);
    return (uint32_t)(tensor - inspection->checkpoint.tensors);
}

static const struct tensor_statistics *statistics_of(const struct inspection *inspection, const char *name) {
    return inspection->statistics[tensor_number(inspection, name)];
}

static void given_tensors_of_several_chunks_when_gathered_then_statistics_are_those_of_plain_loops(void **state) {
    struct fixture *fixture = *state;
    for (unsigned jobs = 1; jobs <= 5; jobs += 4) {
        struct inspection inspection;
        struct statistics_options options = {.jobs = jobs, .quiet = true};
        inspection_make(fixture, &inspection, everything);
        assert_ok(statistics_gather(&inspection, NULL, &options, &fixture->error), fixture->error);
        fixture_open(fixture);

        const struct tensor_statistics *packed = statistics_of(&inspection, "a.weight_packed");
        uint8_t *bytes = fixture_tensor(fixture, "a.weight_packed");
        uint64_t codes[16] = {0};
        for (size_t i = 0; i < 1024 * 1040; i++) {
            codes[bytes[i] & 15]++;
            codes[bytes[i] >> 4]++;
        }
        free(bytes);
        assert_int_equal(packed->kind, STATISTICS_FP4);
        assert_int_equal(packed->elements, 2 * 1024 * 1040);
        assert_memory_equal(packed->fp4, codes, sizeof codes);
        assert_int_equal(packed->zero, codes[0] + codes[8]);
        assert_int_equal(packed->saturated, codes[7] + codes[15]);

        const struct tensor_statistics *fp8 = statistics_of(&inspection, "b.weight");
        bytes = fixture_tensor(fixture, "b.weight");
        uint64_t zero = 0, saturated = 0, nan = 0, subnormal = 0, negative = 0, exponents[16] = {0};
        double least = INFINITY, most = -INFINITY;
        for (size_t i = 0; i < 1200 * 1001; i++) {
            double value = (double)fp8_e4m3_decode(bytes[i]);
            nan += isnan(value) != 0;
            zero += value == 0;
            saturated += fabs(value) == 448;
            subnormal += value != 0 && fabs(value) < 0x1p-6;
            negative += value < 0;
            exponents[bytes[i] >> 3 & 15] += isnan(value) == 0;
            least = fmin(least, value);
            most = fmax(most, value);
        }
        free(bytes);
        assert_true(saturated > 0 && subnormal > 0);
        assert_int_equal(fp8->kind, STATISTICS_FP8);
        assert_int_equal(fp8->nan, nan);
        assert_int_equal(fp8->zero, zero);
        assert_int_equal(fp8->saturated, saturated);
        assert_int_equal(fp8->subnormal, subnormal);
        assert_int_equal(fp8->negative, negative);
        assert_true(fp8->min == least && fp8->max == most);
        for (unsigned i = 0; i < fp8->codes.count; i++)
            assert_int_equal(fp8->codes.counts[i], exponents[fp8->codes.first + i]);

        const struct tensor_statistics *bf16 = statistics_of(&inspection, "c.weight");
        struct float_scan scan;
        bytes = fixture_tensor(fixture, "c.weight");
        plain_scan(DTYPE_BF16, bytes, 700 * 1000 * 2, &scan);
        free(bytes);
        assert_int_equal(bf16->elements, scan.elements);
        assert_true(bf16->min == scan.min && bf16->max == scan.max);
        assert_int_equal(bf16->zero, scan.zero);

        assert_int_equal(statistics_of(&inspection, "a.weight_scale")->kind, STATISTICS_E8M0);
        assert_int_equal(statistics_of(&inspection, "e.weight_scale")->kind, STATISTICS_E8M0);
        assert_int_equal(statistics_of(&inspection, "d.weight")->kind, STATISTICS_INT8);
        assert_int_equal(statistics_of(&inspection, "empty.weight")->elements, 0);
        assert_true(isnan(statistics_of(&inspection, "empty.weight")->min));
        assert_null(statistics_of(&inspection, "numbers"));
        inspection_close(&inspection);
    }
}

/* ---- values ---- */

enum code { CODE_E2M1, CODE_E4M3, CODE_I8, CODE_BF16, CODE_F16, CODE_F32, CODE_E8M0 };

static double code_value(enum code code, const uint8_t *bytes, uint64_t element) {
    static const double magnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    uint16_t half = 0;
    float single = 0;
    if (code == CODE_BF16 || code == CODE_F16)
        memcpy(&half, bytes + 2 * element, 2);
    if (code == CODE_F32)
        memcpy(&single, bytes + 4 * element, 4);
    switch (code) {
    case CODE_E2M1:
        half = element % 2 ? bytes[element / 2] >> 4 : bytes[element / 2] & 15; /* low half: even column */
        return (half & 8 ? -1 : 1) * magnitudes[half & 7];
    case CODE_E4M3:
        return (double)fp8_e4m3_decode(bytes[element]);
    case CODE_I8:
        return bytes[element] < 128 ? bytes[element] : bytes[element] - 256.0;
    case CODE_E8M0:
        return bytes[element] == 255 ? NAN : ldexp(1, bytes[element] - 127);
    case CODE_BF16:
        return (double)bf16_decode(half);
    case CODE_F16:
        return (double)f16_decode(half);
    default:
        return (double)single;
    }
}

struct stored {
    const char *format, *shard, *weight;
    enum code code;
    uint64_t matrices, rows, columns, block; /* block: values that are shown together */
    const char *scale;                       /* NULL: none */
    enum code scale_code;
    uint64_t scale_rows, scale_columns, block_rows, block_columns; /* of a matrix; 0 blocks: one for all */
    const char *global;
    bool divides;
};

static const struct stored stored[] = {
    {"mxfp4", "m.weight_packed U8 6x32\nm.weight_scale U8 6x2\n", "m.weight_packed", CODE_E2M1, 1, 6, 64, 32,
     "m.weight_scale", CODE_E8M0, 6, 2, 1, 32, NULL, false},
    {"mxfp4", "m.experts.weight_packed U8 3x6x48\nm.experts.weight_scale F8_E8M0 3x6x3\n", "m.experts.weight_packed",
     CODE_E2M1, 3, 6, 96, 32, "m.experts.weight_scale", CODE_E8M0, 6, 3, 1, 32, NULL, false},
    {"nvfp4", "m.weight_packed U8 5x24\nm.weight_scale F8_E4M3 5x3\nm.weight_global_scale F32 1\n", "m.weight_packed",
     CODE_E2M1, 1, 5, 48, 16, "m.weight_scale", CODE_E4M3, 5, 3, 1, 16, "m.weight_global_scale", true},
    {"modelopt-nvfp4", "m.weight U8 5x24\nm.weight_scale F8_E4M3 5x3\nm.weight_scale_2 F32 -\n", "m.weight", CODE_E2M1,
     1, 5, 48, 16, "m.weight_scale", CODE_E4M3, 5, 3, 1, 16, "m.weight_scale_2", false},
    {"gpt-oss-mxfp4", "mlp.experts.up_blocks U8 2x4x3x16\nmlp.experts.up_scales U8 2x4x3\n", "mlp.experts.up_blocks",
     CODE_E2M1, 2, 4, 96, 32, "mlp.experts.up_scales", CODE_E8M0, 4, 3, 1, 32, NULL, false},
    {"mxfp8", "m.weight F8_E4M3 4x96\nm.weight_scale U8 4x3\n", "m.weight", CODE_E4M3, 1, 4, 96, 32, "m.weight_scale",
     CODE_E8M0, 4, 3, 1, 32, NULL, false},
    {"fp8-tensor", "m.weight F8_E4M3 4x40\nm.weight_scale_inv BF16 -\n", "m.weight", CODE_E4M3, 1, 4, 40, 32,
     "m.weight_scale_inv", CODE_BF16, 1, 1, 4, 40, NULL, false},
    {"fp8-tensor", "x.experts.w F8_E4M3 3x4x40\nx.experts.w_scale_inv F32 3\n", "x.experts.w", CODE_E4M3, 3, 4, 40, 32,
     "x.experts.w_scale_inv", CODE_F32, 1, 1, 4, 40, NULL, false},
    {"fp8-channel", "m.weight F8_E4M3 4x40\nm.weight_scale F32 4x1\n", "m.weight", CODE_E4M3, 1, 4, 40, 32,
     "m.weight_scale", CODE_F32, 4, 1, 1, 40, NULL, false},
    {"fp8-channel", "m.weight F8_E4M3 4x40\nm.weight_scale F32 4\n", "m.weight", CODE_E4M3, 1, 4, 40, 32,
     "m.weight_scale", CODE_F32, 4, 1, 1, 40, NULL, false},
    {"fp8-block", "m.weight F8_E4M3 200x300\nm.weight_scale_inv F32 2x3\n", "m.weight", CODE_E4M3, 1, 200, 300, 128,
     "m.weight_scale_inv", CODE_F32, 2, 3, 128, 128, NULL, false},
    {"fp8-unscaled", "m.weight F8_E4M3 3x40\n", "m.weight", CODE_E4M3, 1, 3, 40, 32, NULL, 0, 0, 0, 0, 0, NULL, false},
    {"int8", "m.weight I8 4x64\nm.weight_scale BF16 4x1\n", "m.weight", CODE_I8, 1, 4, 64, 32, "m.weight_scale",
     CODE_BF16, 4, 1, 1, 64, NULL, false},
    {"int8", "m.weight I8 4x64\nm.weight_scale F32 4x2\n", "m.weight", CODE_I8, 1, 4, 64, 32, "m.weight_scale",
     CODE_F32, 4, 2, 1, 32, NULL, false},
    {"plain", "m.weight BF16 3x70\n", "m.weight", CODE_BF16, 1, 3, 70, 32, NULL, 0, 0, 0, 0, 0, NULL, false},
    {"plain", "m.weight F16 2x3x7\n", "m.weight", CODE_F16, 2, 3, 7, 32, NULL, 0, 0, 0, 0, 0, NULL, false},
    {"plain", "norm.weight F32 33\n", "norm.weight", CODE_F32, 1, 1, 33, 32, NULL, 0, 0, 0, 0, 0, NULL, false},
    {"plain", "number F32 -\n", "number", CODE_F32, 1, 1, 1, 32, NULL, 0, 0, 0, 0, 0, NULL, false},
};

/* All of a row, block by block, against the rule. */
static void assert_row_is_right(const struct fixture *fixture, const struct inspection *inspection,
                                const struct stored *s, uint64_t matrix, uint64_t row) {
    struct shown shown;
    struct error error;
    char request[128];
    uint8_t *weight = fixture_tensor(fixture, s->weight), *scale = s->scale ? fixture_tensor(fixture, s->scale) : NULL;
    uint8_t *global = s->global ? fixture_tensor(fixture, s->global) : NULL;
    if (s->matrices > 1)
        snprintf(request, sizeof request, "%s[%" PRIu64 ",%" PRIu64 "]", s->weight, matrix, row);
    else
        snprintf(request, sizeof request, "%s[%" PRIu64 "]", s->weight, row);
    assert_ok(show_read(inspection, request, SHOW_JSON_VALUES, &shown, &error), error);
    assert_string_equal(shown.format, s->format);
    assert_int_equal(shown.count, (s->columns + s->block - 1) / s->block);
    assert_int_equal(shown.left_out, 0);
    uint64_t column = 0;
    for (size_t b = 0; b < shown.count; b++) {
        const struct shown_block *block = &shown.blocks[b];
        assert_int_equal(block->first_column, column);
        for (size_t i = 0; i < block->count; i++, column++) {
            double wanted = code_value(s->code, weight, (matrix * s->rows + row) * s->columns + column);
            assert_same_number(block->decoded[i], wanted);
            if (scale) {
                uint64_t at =
                    (matrix * s->scale_rows + row / s->block_rows) * s->scale_columns + column / s->block_columns;
                double factor = code_value(s->scale_code, scale, at);
                assert_same_number(block->scale, factor);
                if (global)
                    factor = s->divides ? factor / code_value(CODE_F32, global, 0)
                                        : factor * code_value(CODE_F32, global, 0);
                wanted *= factor;
            }
            assert_same_number(block->values[i], wanted);
        }
    }
    assert_int_equal(column, s->columns);
    shown_free(&shown);
    free(weight);
    free(scale);
    free(global);
}

static void given_every_format_when_shown_then_each_value_is_code_times_scale(void **state) {
    struct fixture *fixture = *state;
    for (size_t k = 0; k < sizeof stored / sizeof *stored; k++) {
        struct inspection inspection;
        inspection_make(fixture, &inspection, stored[k].shard);
        fixture_open(fixture);
        for (uint64_t matrix = 0; matrix < stored[k].matrices; matrix++)
            for (uint64_t row = 0; row < stored[k].rows; row++)
                assert_row_is_right(fixture, &inspection, &stored[k], matrix, row);
        inspection_close(&inspection);
    }
}

static void given_a_limit_when_a_row_is_shown_then_the_rest_is_counted(void **state) {
    struct fixture *fixture = *state;
    struct inspection inspection;
    struct shown shown;
    inspection_make(fixture, &inspection,
                    "m.weight BF16 2x200\nwide.weight F8_E4M3 1x300\nwide.weight_scale F32 1x2\n");
    assert_ok(show_read(&inspection, "m[1]", 64, &shown, &fixture->error), fixture->error);
    assert_int_equal(shown.count, 2);
    assert_int_equal(shown.left_out, 136);
    shown_free(&shown);
    assert_ok(show_read(&inspection, "m[1, 6]", 64, &shown, &fixture->error), fixture->error);
    assert_int_equal(shown.count, 1);
    assert_int_equal(shown.blocks[0].count, 8); /* the row's end */
    assert_int_equal(shown.left_out, 0);
    shown_free(&shown);
    assert_ok(show_read(&inspection, "wide[0]", 64, &shown, &fixture->error), fixture->error);
    assert_int_equal(shown.count, 1); /* a block is not cut */
    assert_int_equal(shown.blocks[0].count, 256);
    assert_int_equal(shown.left_out, 44);
    shown_free(&shown);
    inspection_close(&inspection);
}

static void given_what_is_not_there_or_not_known_when_shown_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct inspection inspection;
    struct shown shown;
    static const struct {
        const char *request;
        enum status status;
        const char *says;
    } cases[] = {
        {"nothing", STATUS_USAGE, "no tensor or module"},
        {"m[9]", STATUS_USAGE, "no row 9: there are 4"},
        {"m[0, 2]", STATUS_USAGE, "no block 2: there are 2"},
        {"m[0, 0, 0]", STATUS_USAGE, "indices"},
        {"m[]", STATUS_USAGE, "brackets"},
        {"m[-1]", STATUS_USAGE, "brackets"},
        {"m[1 2]", STATUS_USAGE, "brackets"},
        {"m[99999999999999999999999]", STATUS_USAGE, "brackets"},
        {"m[1,2,3,4,5,6,7,8,9,10,11,12]", STATUS_USAGE, "brackets"},
        {"x.experts.w[3, 0]", STATUS_USAGE, "no expert 3: there are 3"},
        {"x.experts.w[0]", STATUS_USAGE, "indices"},
        {"awq", STATUS_BAD_INPUT, "awq"},
        {"gptq", STATUS_BAD_INPUT, "gptq"},
        {"bare", STATUS_BAD_INPUT, "scale is missing"},
        {"bad", STATUS_BAD_INPUT, "does not fit"},
        {"packed", STATUS_BAD_INPUT, "weight_shape"},
        {"strange", STATUS_BAD_INPUT, "C64"},
    };
    inspection_make(fixture, &inspection,
                    "m.weight F8_E4M3 4x64\nm.weight_scale U8 4x2\n"
                    "x.experts.w F8_E4M3 3x4x40\nx.experts.w_scale_inv F32 3\n"
                    "awq.qweight I32 64x8\nawq.scales F16 2x64\nawq.qzeros I32 2x8\n"
                    "gptq.qweight I32 8x64\ngptq.scales F16 2x64\ngptq.qzeros I32 2x8\ngptq.g_idx I32 64\n"
                    "bare.weight_packed U8 4x16\nbad.weight_packed U8 4x16\nbad.weight_scale U8 3x1\n"
                    "packed.weight_packed I32 4x4\npacked.weight_scale BF16 4x1\nstrange C64 4\nempty BF16 0x4\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(show_read(&inspection, cases[i].request, 64, &shown, &fixture->error), cases[i].status,
                       fixture->error, cases[i].says);
        shown_free(&shown);
    }
    assert_ok(show_read(&inspection, "empty", 64, &shown, &fixture->error), fixture->error);
    assert_int_equal(shown.count, 0);
    shown_free(&shown);
    inspection_close(&inspection);
}

/* ---- tables ---- */

static void given_companions_when_a_view_is_made_then_each_module_has_its_own(void **state) {
    struct fixture *fixture = *state;
    struct inspection inspection;
    struct report_view view;
    inspection_make(
        fixture, &inspection,
        "z.weight F8_E4M3 4x64\nz.weight_scale F32 1\nz.input_scale F32 1\nz.bias BF16 4\n"
        "a.weight_packed U8 4x16\na.weight_scale U8 4x1\nplain.weight BF16 4x4\norphan.weight_scale F32 1\n");
    assert_ok(report_view_make(&inspection, NULL, false, &view, &fixture->error), fixture->error);
    static const struct {
        const char *tensor;
        uint32_t count;
        const char *first;
    } cases[] = {{"z.weight", 2, "z.input_scale"},
                 {"a.weight_packed", 1, "a.weight_scale"},
                 {"plain.weight", 0, NULL},
                 {"orphan.weight_scale", 0, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t module = inspection.modules.of_tensor[tensor_number(&inspection, cases[i].tensor)];
        uint32_t begin = view.companions_begin[module];
        assert_int_equal(view.companions_begin[module + 1] - begin, cases[i].count);
        if (cases[i].first)
            assert_string_equal(inspection.checkpoint.tensors[view.companions[begin]].info.name, cases[i].first);
    }
    report_view_free(&view);
    inspection_close(&inspection);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_bytes_of_every_length_when_counted_then_it_is_what_a_plain_loop_counts),
        TEST(given_every_16_bit_code_when_scanned_then_it_is_what_a_plain_loop_finds),
        TEST(given_random_numbers_of_every_length_when_scanned_then_it_is_what_a_plain_loop_finds),
        TEST(given_counts_when_their_entropy_is_taken_then_it_is_shannons),
        TEST(given_tensors_of_several_chunks_when_gathered_then_statistics_are_those_of_plain_loops),
        TEST(given_every_format_when_shown_then_each_value_is_code_times_scale),
        TEST(given_a_limit_when_a_row_is_shown_then_the_rest_is_counted),
        TEST(given_what_is_not_there_or_not_known_when_shown_then_it_is_refused),
        TEST(given_companions_when_a_view_is_made_then_each_module_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
