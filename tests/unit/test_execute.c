/*
 * Runs from end to end: what lands on disk is, byte for byte, what the formats define; a journal saves exactly the
 * work it speaks of; digests are those of the files.
 */
#include "tests/unit/fixtures.h"

#include "common/sha256.h"
#include "qstream/convert.h"
#include "qstream/execute.h"

#define RULE(match, format) "{\"match\": \"" match "\", \"format\": \"" format "\"}"

static const struct fingerprint fingerprint = {.source = {1}, .recipe = {2}, .options = {3}};
static const struct plan_options amax_options = {.rule = SCALE_RULE_AMAX};

struct outcome {
    struct run_state state;
    char folder[256], journal[256];
};

static void outcome_init(struct fixture *fixture, const char *folder, bool hash_source, struct outcome *outcome) {
    fixture_path(fixture, folder, outcome->folder);
    mkdir(outcome->folder, 0777);
    snprintf(outcome->journal, sizeof outcome->journal, "%.200s/journal", outcome->folder);
    fixture->plan.options.hash_source = hash_source;
    assert_ok(run_state_init(&fixture->plan, &outcome->state, &fixture->error), fixture->error);
}

static enum status outcome_run_share(struct fixture *fixture, struct outcome *outcome, unsigned jobs, uint32_t first,
                                     uint32_t end) {
    struct execute_options options = {.folder = outcome->folder,
                                      .journal = outcome->journal,
                                      .first_shard = first,
                                      .end_shard = end,
                                      .jobs = jobs,
                                      .cpu = cpu_best(),
                                      .quiet = true};
    return execute(&fixture->plan, &options, &fingerprint, &outcome->state, &fixture->error);
}

static enum status outcome_run(struct fixture *fixture, struct outcome *outcome, unsigned jobs) {
    return outcome_run_share(fixture, outcome, jobs, 0, (uint32_t)fixture->plan.shard_count);
}

/* A shard's file; the caller frees. */
static char *shard_bytes(const struct fixture *fixture, const struct outcome *outcome, size_t shard) {
    char *path = shard_partial_path(&fixture->plan, shard, outcome->folder), *bytes;
    size_t length;
    struct error error;
    assert_non_null(path);
    assert_ok(file_read(path, (size_t)1 << 30, &bytes, &length, &error), error);
    free(path);
    assert_int_equal(length, fixture->plan.shards[shard].size);
    return bytes;
}

static void assert_output(const struct fixture *fixture, const struct outcome *outcome, const char *name,
                          const void *wanted, size_t size) {
    const struct plan_output *output = fixture_output(fixture, name);
    char *bytes = shard_bytes(fixture, outcome, output->shard);
    assert_int_equal(output->info.size, size);
    for (size_t i = 0; i < size; i++)
        if (bytes[output->info.offset + i] != ((const char *)wanted)[i])
            fail_msg("%s differs at byte %zu", name, i);
    free(bytes);
}

static void assert_complete(const struct fixture *fixture, const struct outcome *outcome) {
    for (size_t s = 0; s < fixture->plan.shard_count; s++) {
        uint8_t digest[SHA256_SIZE];
        struct error error;
        char *bytes = shard_bytes(fixture, outcome, s);
        assert_ok(sha256_of(bytes, (size_t)fixture->plan.shards[s].size, digest, &error), error);
        assert_int_equal(outcome->state.shards[s], 1);
        assert_memory_equal(outcome->state.digests[s], digest, SHA256_SIZE);
        struct safetensors file; /* a stranger can read it */
        uint64_t length = 0;
        memcpy(&length, bytes, sizeof length);
        assert_ok(safetensors_parse("out", bytes + 8, (size_t)length, fixture->plan.shards[s].size, &file, &error),
                  error);
        safetensors_free(&file);
        free(bytes);
    }
    for (uint32_t t = 0; t < fixture->plan.tile_count; t++)
        assert_int_equal(outcome->state.tiles[t], 1);
}

static void run_whole(struct fixture *fixture, const char *folder, unsigned jobs, struct outcome *outcome) {
    outcome_init(fixture, folder, false, outcome);
    assert_ok(outcome_run(fixture, outcome, jobs), fixture->error);
    assert_complete(fixture, outcome);
}

/* The rows' MXFP4 by the scalar reference against the output. */
static void assert_mxfp4(const struct fixture *fixture, const struct outcome *outcome, const char *module,
                         const uint16_t *rows, size_t row_count, size_t columns, enum scale_rule rule,
                         const float *gamma) {
    uint8_t *packed = malloc(row_count * columns / 2), *scales = malloc(row_count * columns / 32);
    char name[200];
    assert_non_null(packed);
    assert_non_null(scales);
    for (size_t r = 0; r < row_count; r++)
        assert_true(mxfp4_quantize_scalar(rows + r * columns, columns / 32, rule, gamma, packed + r * columns / 2,
                                          scales + r * columns / 32));
    snprintf(name, sizeof name, "%s.weight_packed", module);
    assert_output(fixture, outcome, name, packed, row_count * columns / 2);
    snprintf(name, sizeof name, "%s.weight_scale", module);
    assert_output(fixture, outcome, name, scales, row_count * columns / 32);
    free(packed);
    free(scales);
}

static void assert_fp8(const struct fixture *fixture, const struct outcome *outcome, const char *module,
                       const uint16_t *rows, size_t row_count, size_t columns, bool per_tensor) {
    uint8_t *codes = malloc(row_count * columns);
    uint16_t *scales = malloc(row_count * sizeof *scales), whole = 0;
    char name[200];
    assert_non_null(codes);
    assert_non_null(scales);
    for (size_t i = 0; i < row_count * columns; i++)
        whole = (rows[i] & 0x7fff) > whole ? rows[i] & 0x7fff : whole;
    for (size_t r = 0; r < row_count; r++) {
        uint16_t amax = 0;
        for (size_t c = 0; c < columns; c++)
            amax = (rows[r * columns + c] & 0x7fff) > amax ? rows[r * columns + c] & 0x7fff : amax;
        scales[r] = fp8_scale_from_amax(per_tensor ? whole : amax);
        for (size_t c = 0; c < columns; c++) {
            float quotient = bf16_decode(rows[r * columns + c]) / bf16_decode(scales[r]);
            codes[r * columns + c] = fp8_e4m3_encode(bf16_decode(bf16_encode(quotient)));
        }
    }
    snprintf(name, sizeof name, "%s.weight", module);
    assert_output(fixture, outcome, name, codes, row_count * columns);
    snprintf(name, sizeof name, "%s.weight_scale", module);
    assert_output(fixture, outcome, name, scales, (per_tensor ? 1 : row_count) * sizeof *scales);
    free(codes);
    free(scales);
}

static void given_a_mixture_of_jobs_then_every_output_byte_is_right_for_any_number_of_workers(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors",
                  "m.weight BF16 2500x512\nc.weight BF16 1300x416\nsmall.bias F32 5\nempty U8 0\n");
    fixture_shard(fixture, "2.safetensors",
                  "t.weight BF16 1300x416\ncopy U8 2500001\nf.weight F32 40x64\n"
                  "h.weight F16 40x64\n");
    fixture_plan(fixture,
                 RULE("m", "mxfp4") "," RULE("c", "fp8") "," RULE("t", "fp8\", \"strategy\": \"tensor") "," RULE(
                     "re:[fh]$", "mxfp4"),
                 amax_options);
    static const unsigned jobs[] = {1, 2, 7};
    for (size_t run = 0; run < 3; run++) {
        char folder[16];
        struct outcome outcome;
        snprintf(folder, sizeof folder, "out%zu", run);
        run_whole(fixture, folder, jobs[run], &outcome);
        static const struct {
            const char *name;
            size_t size;
        } copies[] = {{"small.bias", 20}, {"empty", 0}, {"copy", 2500001}};
        for (size_t i = 0; i < 3; i++) {
            uint8_t *bytes = fixture_tensor(fixture, copies[i].name);
            assert_output(fixture, &outcome, copies[i].name, bytes, copies[i].size);
            free(bytes);
        }
        uint8_t *m = fixture_tensor(fixture, "m.weight"), *c = fixture_tensor(fixture, "c.weight"),
                *t = fixture_tensor(fixture, "t.weight"), *f = fixture_tensor(fixture, "f.weight"),
                *h = fixture_tensor(fixture, "h.weight");
        assert_mxfp4(fixture, &outcome, "m", (uint16_t *)(void *)m, 2500, 512, SCALE_RULE_AMAX, NULL);
        assert_fp8(fixture, &outcome, "c", (uint16_t *)(void *)c, 1300, 416, false);
        assert_fp8(fixture, &outcome, "t", (uint16_t *)(void *)t, 1300, 416, true);
        uint16_t rows[40 * 64];
        for (size_t i = 0; i < 40 * 64; i++)
            rows[i] = bf16_encode(((float *)(void *)f)[i]);
        assert_mxfp4(fixture, &outcome, "f", rows, 40, 64, SCALE_RULE_AMAX, NULL);
        for (size_t i = 0; i < 40 * 64; i++)
            rows[i] = bf16_encode(f16_decode(((uint16_t *)(void *)h)[i]));
        assert_mxfp4(fixture, &outcome, "h", rows, 40, 64, SCALE_RULE_AMAX, NULL);
        free(m);
        free(c);
        free(t);
        free(f);
        free(h);
        run_state_free(&outcome.state);
    }
}

static void given_a_scale_rule_and_gamma_then_both_reach_the_quantizer(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors",
                  "model.layers.0.input_layernorm.weight BF16 64\nmodel.layers.0.self_attn.q_proj.weight BF16 70x64\n"
                  "model.layers.0.post_attention_layernorm.weight F32 64\n"
                  "model.layers.0.mlp.up_proj.weight BF16 70x64\nmodel.layers.0.mlp.down_proj.weight BF16 70x64\n");
    for (int rule = 0; rule < SCALE_RULES; rule++) {
        char folder[16];
        struct outcome outcome;
        float gamma[2][64];
        fixture_plan(fixture, RULE("re:.*_proj$", "mxfp4"),
                     (struct plan_options){.rule = (enum scale_rule)rule, .gamma = GAMMA_LAYERNORM});
        snprintf(folder, sizeof folder, "out%d", rule);
        run_whole(fixture, folder, 2, &outcome);
        uint8_t *norm = fixture_tensor(fixture, "model.layers.0.input_layernorm.weight");
        for (int i = 0; i < 64; i++)
            gamma[0][i] = bf16_decode(((uint16_t *)(void *)norm)[i]);
        free(norm);
        norm = fixture_tensor(fixture, "model.layers.0.post_attention_layernorm.weight");
        memcpy(gamma[1], norm, sizeof gamma[1]);
        free(norm);
        static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj",
                                              "model.layers.0.mlp.down_proj"};
        for (int m = 0; m < 3; m++) {
            char name[64];
            snprintf(name, sizeof name, "%s.weight", modules[m]);
            uint8_t *rows = fixture_tensor(fixture, name);
            assert_mxfp4(fixture, &outcome, modules[m], (uint16_t *)(void *)rows, 70, 64, (enum scale_rule)rule,
                         m < 2 ? gamma[m] : NULL);
            free(rows);
        }
        run_state_free(&outcome.state);
    }
}

/* One scale of an FP8 weight, by position. */
typedef float scale_at(const uint8_t *scales, size_t row, size_t column);

static float scale_tensor_bf16(const uint8_t *scales, size_t row, size_t column) {
    (void)row;
    (void)column;
    return bf16_decode(((const uint16_t *)(const void *)scales)[0]);
}
static float scale_channel_f32(const uint8_t *scales, size_t row, size_t column) {
    (void)column;
    return ((const float *)(const void *)scales)[row];
}
static float scale_block_f32(const uint8_t *scales, size_t row, size_t column) {
    return ((const float *)(const void *)scales)[row / 128 * 5 + column / 128];
}
static float scale_mx(const uint8_t *scales, size_t row, size_t column) {
    return e8m0_decode(scales[row * 20 + column / 32]);
}

static void given_each_fp8_source_then_it_is_dequantized_by_its_own_scales(void **state) {
    struct fixture *fixture = *state;
    enum { ROWS = 3000, COLUMNS = 640 }; /* tiles end inside a block of rows: 1638 rows each */
    static const struct {
        const char *quantization, *scale;
        scale_at *at;
    } cases[] = {
        {"\"quant_method\": \"fp8\"", "BF16 -", scale_tensor_bf16},
        {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 8, "
         "\"type\": \"float\", \"strategy\": \"channel\"}}}",
         "F32 3000x1", scale_channel_f32},
        {"\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]", "F32 24x5", scale_block_f32},
        {"\"quant_method\": \"mxfp8\"", "F8_E8M0 3000x20", scale_mx},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char config[400], shard[100];
        struct outcome outcome;
        fixture_clear(fixture);
        snprintf(config, sizeof config, "{\"quantization_config\": {%s}}", cases[i].quantization);
        snprintf(shard, sizeof shard, "x.weight_scale %s\n", cases[i].scale);
        fixture_file(fixture, "config.json", config);
        fixture_shard(fixture, "1.safetensors", "x.weight F8_E4M3 3000x640\n");
        fixture_shard(fixture, "2.safetensors", shard);
        fixture_plan(fixture, RULE("x", "mxfp4"), amax_options);
        assert_true(fixture->plan.tile_count > 1);
        run_whole(fixture, "out", 3, &outcome);
        uint8_t *codes = fixture_tensor(fixture, "x.weight"), *scales = fixture_tensor(fixture, "x.weight_scale");
        uint16_t *rows = malloc(ROWS * COLUMNS * sizeof *rows);
        assert_non_null(rows);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t c = 0; c < COLUMNS; c++)
                rows[r * COLUMNS + c] =
                    bf16_encode(fp8_e4m3_decode(codes[r * COLUMNS + c]) * cases[i].at(scales, r, c));
        assert_mxfp4(fixture, &outcome, "x", rows, ROWS, COLUMNS, SCALE_RULE_AMAX, NULL);
        free(rows);
        free(codes);
        free(scales);
        run_state_free(&outcome.state);
    }
}

static void given_the_reference_model_then_attention_stays_and_its_scales_become_f32(void **state) {
    struct fixture *fixture = *state;
    struct outcome outcome;
    fixture_reference(fixture, 2);
    fixture_plan(fixture, reference_rules, amax_options);
    run_whole(fixture, "out", 2, &outcome);
    for (int layer = 0; layer < 2; layer++)
        for (int p = 0; p < REFERENCE_PROJECTIONS; p++) {
            char module[100], name[160];
            snprintf(module, sizeof module, "model.language_model.layers.%d.%s", layer, reference_projections[p]);
            snprintf(name, sizeof name, "%s.weight", module);
            uint8_t *codes = fixture_tensor(fixture, name);
            snprintf(name, sizeof name, "%s.weight_scale_inv", module);
            uint8_t *scale = fixture_tensor(fixture, name);
            float wide = bf16_decode(*(uint16_t *)(void *)scale);
            size_t columns = strstr(module, "down") ? 160 : 64, rows = strstr(module, "down") || p < 4 ? 64 : 160;
            free(scale);
            if (p >= 4) {
                uint16_t values[160 * 64];
                for (size_t i = 0; i < rows * columns; i++)
                    values[i] = bf16_encode(fp8_e4m3_decode(codes[i]) * wide);
                assert_mxfp4(fixture, &outcome, module, values, rows, columns, SCALE_RULE_AMAX, NULL);
            } else {
                snprintf(name, sizeof name, "%s.weight", module);
                assert_output(fixture, &outcome, name, codes, rows * columns);
                snprintf(name, sizeof name, "%s.weight_scale", module);
                assert_output(fixture, &outcome, name, &wide, sizeof wide);
                snprintf(name, sizeof name, "%s.activation_scale", module);
                uint8_t *activation = fixture_tensor(fixture, name);
                snprintf(name, sizeof name, "%s.input_scale", module);
                assert_output(fixture, &outcome, name, activation, 4);
                free(activation);
            }
            free(codes);
        }
    uint8_t *norm = fixture_tensor(fixture, "model.language_model.norm.weight");
    assert_output(fixture, &outcome, "model.language_model.norm.weight", norm, 128);
    free(norm);
    run_state_free(&outcome.state);
}

/* A plain tensor's values, rounded; the caller frees. */
static uint16_t *tensor_as_bf16(const struct fixture *fixture, const char *name) {
    const struct tensor_info *info = &checkpoint_find(&fixture->checkpoint, name)->info;
    uint8_t *bytes = fixture_tensor(fixture, name);
    size_t count = (size_t)info->size / (dtype_bits(info->dtype) / 8);
    uint16_t *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = info->dtype == DTYPE_BF16  ? ((uint16_t *)(void *)bytes)[i]
                    : info->dtype == DTYPE_F16 ? bf16_encode(f16_decode(((uint16_t *)(void *)bytes)[i]))
                                               : bf16_encode(((float *)(void *)bytes)[i]);
    free(bytes);
    return values;
}

static void given_fused_experts_in_either_orientation_then_each_module_has_its_rows(void **state) {
    struct fixture *fixture = *state;
    enum { EXPERTS = 3, HIDDEN = 64, WIDTH = 160 };
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32};
    for (int kind = 0; kind < 6; kind++) {
        struct outcome outcome;
        char shard[200];
        bool transposed = kind % 2;
        enum dtype dtype = dtypes[kind / 2];
        fixture_clear(fixture);
        fixture_file(fixture, "config.json", "{\"hidden_size\": 64}");
        snprintf(shard, sizeof shard, "m.experts.gate_up_proj %s %s\nm.experts.down_proj %s %s\n", dtype_name(dtype),
                 transposed ? "3x64x320" : "3x320x64", dtype_name(dtype), transposed ? "3x160x64" : "3x64x160");
        fixture_shard(fixture, "model.safetensors", shard);
        fixture_plan(fixture, RULE("re:.*experts", "mxfp4"), amax_options);
        run_whole(fixture, "out", 2, &outcome);
        uint16_t *gate_up = tensor_as_bf16(fixture, "m.experts.gate_up_proj"),
                 *down = tensor_as_bf16(fixture, "m.experts.down_proj");
        for (size_t e = 0; e < EXPERTS; e++)
            for (size_t p = 0; p < 3; p++) {
                static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
                uint16_t rows[WIDTH * HIDDEN];
                size_t row_count = p < 2 ? WIDTH : HIDDEN, columns = p < 2 ? HIDDEN : WIDTH;
                size_t out = p < 2 ? 2 * WIDTH : HIDDEN; /* of the stored matrix */
                const uint16_t *matrix = (p < 2 ? gate_up : down) + e * out * columns;
                for (size_t r = 0; r < row_count; r++)
                    for (size_t c = 0; c < columns; c++) {
                        size_t row = r + (p == 1 ? WIDTH : 0);
                        rows[r * columns + c] = transposed ? matrix[c * out + row] : matrix[row * columns + c];
                    }
                char module[64];
                snprintf(module, sizeof module, "m.experts.%zu.%s", e, names[p]);
                assert_mxfp4(fixture, &outcome, module, rows, row_count, columns, SCALE_RULE_AMAX, NULL);
            }
        free(gate_up);
        free(down);
        run_state_free(&outcome.state);
    }
}

static void given_fp8_experts_with_block_scales_then_each_module_is_decoded_by_its_own(void **state) {
    struct fixture *fixture = *state;
    struct outcome outcome;
    fixture_file(fixture, "config.json",
                 "{\"hidden_size\": 64, \"quantization_config\": {\"quant_method\": \"fp8\", "
                 "\"weight_block_size\": [32, 32]}}");
    fixture_shard(fixture, "model.safetensors",
                  "m.experts.gate_up_proj F8_E4M3 3x96x64\n"
                  "m.experts.gate_up_proj_scale_inv F32 3x3x2\n");
    fixture_plan(fixture, RULE("re:.*experts", "mxfp4"), amax_options);
    run_whole(fixture, "out", 2, &outcome);
    uint8_t *codes = fixture_tensor(fixture, "m.experts.gate_up_proj"),
            *scale_bytes = fixture_tensor(fixture, "m.experts.gate_up_proj_scale_inv");
    const float *scales = (const float *)(void *)scale_bytes;
    for (size_t e = 0; e < 3; e++)
        for (size_t p = 0; p < 2; p++) { /* up begins in the middle of a block of rows */
            uint16_t rows[48 * 64];
            for (size_t r = 0; r < 48; r++)
                for (size_t c = 0; c < 64; c++) {
                    size_t row = p * 48 + r;
                    rows[r * 64 + c] = bf16_encode(fp8_e4m3_decode(codes[(e * 96 + row) * 64 + c]) *
                                                   scales[(e * 3 + row / 32) * 2 + c / 32]);
                }
            char module[64];
            snprintf(module, sizeof module, "m.experts.%zu.%s", e, p ? "up_proj" : "gate_proj");
            assert_mxfp4(fixture, &outcome, module, rows, 48, 64, SCALE_RULE_AMAX, NULL);
        }
    free(codes);
    free(scale_bytes);
    run_state_free(&outcome.state);
}

static void copy_file(const char *from, const char *to) {
    char *bytes;
    size_t length;
    struct error error;
    assert_ok(file_read(from, (size_t)1 << 30, &bytes, &length, &error), error);
    FILE *file = fopen(to, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}

static void poke(const char *path, uint64_t offset, uint8_t value) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, (long)offset, SEEK_SET);
    fputc(value, file);
    assert_int_equal(fclose(file), 0);
}

static void given_a_journal_that_holds_some_tiles_when_resumed_then_only_the_rest_is_made(void **state) {
    struct fixture *fixture = *state;
    struct outcome whole, resumed;
    struct journal *journal;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "m.weight BF16 5000x512\n");
    fixture_shard(fixture, "2.safetensors", "n.weight BF16 64x64\ncopy U8 3000000\n");
    fixture_plan(fixture, RULE("re:m|n", "mxfp4"), amax_options);
    const struct plan_output *packed = fixture_output(fixture, "m.weight_packed");
    const struct plan_job *job = &fixture->plan.jobs[packed->job];
    assert_int_equal(job->tile_count, 5);
    run_whole(fixture, "whole", 2, &whole);

    /* What a killed run leaves: tiles 1 and 3 of m are promised, everything else is garbage. Each tile is marked. */
    outcome_init(fixture, "resumed", false, &resumed);
    char *partial = shard_partial_path(&fixture->plan, 0, resumed.folder),
         *source = shard_partial_path(&fixture->plan, 0, whole.folder);
    copy_file(source, partial);
    uint64_t marks[5];
    for (uint32_t t = 0; t < 5; t++) {
        uint64_t first, count;
        plan_tile_rows(job, job->first_tile + t, &first, &count);
        marks[t] = packed->info.offset + first * 256 + 17;
        poke(partial, marks[t], 0xa5);
    }
    poke(partial, 3, 0xa5); /* the header is not taken on trust */
    assert_ok(journal_open(resumed.journal, &fingerprint, run_state_visit, &resumed.state, &journal, &fixture->error),
              fixture->error);
    struct journal_record records[] = {
        {.type = JOURNAL_TILES, .first = job->first_tile + 1, .last = job->first_tile + 1},
        {.type = JOURNAL_TILES, .first = job->first_tile + 3, .last = job->first_tile + 3},
    };
    assert_ok(journal_append(journal, records, 2, &fixture->error), fixture->error);
    journal_close(journal);
    assert_ok(outcome_run(fixture, &resumed, 2), fixture->error);
    assert_complete(fixture, &resumed); /* the digest covers what is there, old tiles included */
    char *a = shard_bytes(fixture, &whole, 0), *b = shard_bytes(fixture, &resumed, 0);
    for (uint64_t i = 0; i < fixture->plan.shards[0].size; i++)
        if (i == marks[1] || i == marks[3])
            assert_int_equal((uint8_t)b[i], 0xa5); /* not made again */
        else if (a[i] != b[i])
            fail_msg("byte %" PRIu64, i);
    free(a);
    free(b);
    a = shard_bytes(fixture, &whole, 1);
    b = shard_bytes(fixture, &resumed, 1);
    assert_memory_equal(a, b, (size_t)fixture->plan.shards[1].size);
    free(a);
    free(b);
    free(partial);
    free(source);
    run_state_free(&whole.state);
    run_state_free(&resumed.state);
}

static void given_every_tile_but_no_digest_when_resumed_then_the_shard_is_hashed(void **state) {
    struct fixture *fixture = *state;
    struct outcome whole, resumed;
    struct journal *journal;
    fixture_reference(fixture, 1);
    fixture_plan(fixture, reference_rules, amax_options);
    run_whole(fixture, "whole", 2, &whole);
    outcome_init(fixture, "resumed", false, &resumed);
    for (size_t s = 0; s < fixture->plan.shard_count; s++) {
        char *from = shard_partial_path(&fixture->plan, s, whole.folder),
             *to = shard_partial_path(&fixture->plan, s, resumed.folder);
        copy_file(from, to);
        free(from);
        free(to);
    }
    assert_ok(journal_open(resumed.journal, &fingerprint, run_state_visit, &resumed.state, &journal, &fixture->error),
              fixture->error);
    struct journal_record record = {.type = JOURNAL_TILES, .last = fixture->plan.tile_count - 1};
    assert_ok(journal_append(journal, &record, 1, &fixture->error), fixture->error);
    journal_close(journal);
    assert_ok(outcome_run(fixture, &resumed, 3), fixture->error);
    assert_complete(fixture, &resumed);
    run_state_free(&whole.state);
    run_state_free(&resumed.state);
}

static void given_a_finished_run_when_repeated_then_nothing_is_written(void **state) {
    struct fixture *fixture = *state;
    struct outcome first, second;
    fixture_reference(fixture, 1);
    fixture_plan(fixture, reference_rules, amax_options);
    run_whole(fixture, "out", 2, &first);
    char *partial = shard_partial_path(&fixture->plan, 0, first.folder);
    uint64_t last = fixture->plan.shards[0].size - 1;
    struct stat journal_before, journal_after;
    assert_int_equal(stat(first.journal, &journal_before), 0);
    poke(partial, last, 0xa5);
    outcome_init(fixture, "out", false, &second);
    assert_ok(outcome_run(fixture, &second, 2), fixture->error);
    char *bytes = shard_bytes(fixture, &second, 0);
    assert_int_equal((uint8_t)bytes[last], 0xa5);
    for (size_t s = 0; s < fixture->plan.shard_count; s++)
        assert_memory_equal(first.state.digests[s], second.state.digests[s], SHA256_SIZE);
    assert_int_equal(stat(first.journal, &journal_after), 0);
    assert_int_equal(journal_before.st_size, journal_after.st_size);
    free(bytes);
    free(partial);
    run_state_free(&first.state);
    run_state_free(&second.state);
}

static void given_a_journaled_amax_when_resumed_then_it_is_used_and_only_the_others_are_computed(void **state) {
    struct fixture *fixture = *state;
    struct outcome outcome, again;
    struct journal *journal;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", "t.weight BF16 64x64\nu.weight BF16 64x64\n");
    fixture_plan(fixture, RULE("*", "fp8\", \"strategy\": \"tensor"), amax_options);
    const uint32_t job = fixture_output(fixture, "t.weight")->job;
    outcome_init(fixture, "out", false, &outcome);
    assert_ok(journal_open(outcome.journal, &fingerprint, run_state_visit, &outcome.state, &journal, &fixture->error),
              fixture->error);
    struct journal_record record = {.type = JOURNAL_AMAX, .first = job, .last = bf16_encode(896.0f)};
    assert_ok(journal_append(journal, &record, 1, &fixture->error), fixture->error);
    journal_close(journal);
    assert_ok(outcome_run(fixture, &outcome, 2), fixture->error);
    assert_complete(fixture, &outcome);
    const uint16_t two = bf16_encode(2.0f);
    assert_output(fixture, &outcome, "t.weight_scale", &two, sizeof two);
    uint8_t *rows = fixture_tensor(fixture, "u.weight");
    assert_fp8(fixture, &outcome, "u", (uint16_t *)(void *)rows, 64, 64, true);
    free(rows);
    outcome_init(fixture, "out", false, &again); /* nothing in the journal says otherwise afterwards */
    assert_ok(journal_read(again.journal, &fingerprint, run_state_visit, &again.state, &fixture->error),
              fixture->error);
    assert_int_equal(again.state.amax[job], bf16_encode(896.0f));
    assert_memory_equal(again.state.amax, outcome.state.amax, 2 * sizeof *again.state.amax);
    run_state_free(&outcome.state);
    run_state_free(&again.state);
}

static void given_shares_that_run_one_after_another_then_together_they_make_the_whole(void **state) {
    struct fixture *fixture = *state;
    struct outcome whole, shares;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "a.weight BF16 64x64\nb.weight BF16 64x64\n");
    fixture_shard(fixture, "2.safetensors", "c.weight BF16 64x64\nd.weight BF16 64x64\n");
    fixture_plan(fixture, RULE("re:[ac]$", "fp8\", \"strategy\": \"tensor") "," RULE("re:.*", "mxfp4"), amax_options);
    run_whole(fixture, "whole", 2, &whole);
    outcome_init(fixture, "shares", false, &shares);
    for (uint32_t s = 0; s < 2; s++) {
        assert_ok(outcome_run_share(fixture, &shares, 2, s, s + 1), fixture->error);
        assert_int_equal(shares.state.shards[0], 1);
        assert_int_equal(shares.state.shards[1], s);
    }
    for (size_t s = 0; s < 2; s++)
        assert_memory_equal(whole.state.digests[s], shares.state.digests[s], SHA256_SIZE);
    assert_complete(fixture, &shares);
    assert_ok(outcome_run_share(fixture, &shares, 2, 1, 1), fixture->error); /* an empty share is fine */
    run_state_free(&whole.state);
    run_state_free(&shares.state);
}

static void given_hash_source_then_each_tile_has_the_digest_of_the_bytes_it_was_made_from(void **state) {
    struct fixture *fixture = *state;
    struct outcome outcome, again;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", "m.weight BF16 2500x512\ncopy U8 70\n");
    fixture_plan(fixture, RULE("m", "mxfp4"), amax_options);
    outcome_init(fixture, "out", true, &outcome);
    assert_ok(outcome_run(fixture, &outcome, 2), fixture->error);
    for (size_t j = 0; j < fixture->plan.job_count; j++) {
        const struct plan_job *job = &fixture->plan.jobs[j];
        uint8_t *bytes = fixture_tensor(fixture, fixture->checkpoint.tensors[job->source].info.name);
        uint64_t row_bytes = job->kind == JOB_COPY ? 1 : 1024;
        for (uint32_t t = job->first_tile; t < job->first_tile + job->tile_count; t++) {
            uint8_t digest[SHA256_SIZE];
            uint64_t first, count;
            plan_tile_rows(job, t, &first, &count);
            assert_ok(sha256_of(bytes + first * row_bytes, (size_t)(count * row_bytes), digest, &fixture->error),
                      fixture->error);
            assert_memory_equal(outcome.state.sources[t], digest, SHA256_SIZE);
        }
        free(bytes);
    }
    outcome_init(fixture, "out", true, &again); /* and the journal keeps them */
    assert_ok(journal_read(again.journal, &fingerprint, run_state_visit, &again.state, &fixture->error),
              fixture->error);
    assert_memory_equal(again.state.sources, outcome.state.sources, (size_t)fixture->plan.tile_count * SHA256_SIZE);
    run_state_free(&outcome.state);
    run_state_free(&again.state);
}

static void given_values_that_are_no_numbers_then_the_run_fails_and_names_the_place(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *format;
        uint16_t code;
        const char *part;
    } cases[] = {
        {"mxfp4", 0x7fc0, "'x.weight' holds a NaN at row 5, column 9"},
        {"mxfp4", 0xff80, "'x.weight' holds an infinite value (in BF16) at row 5, column 9"},
        {"fp8", 0x7f80, "at row 5, column 9"},
        {"fp8\", \"strategy\": \"tensor", 0xffff, "holds a NaN at row 5, column 9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256], rule[100];
        struct outcome outcome;
        fixture_clear(fixture);
        fixture_file(fixture, "config.json", "{}");
        fixture_shard(fixture, "model.safetensors", "x.weight BF16 8x32\n");
        fixture_open(fixture);
        uint64_t at = fixture->checkpoint.tensors[0].info.offset + (5 * 32 + 9) * 2;
        fixture_path(fixture, "model.safetensors", path);
        poke(path, at, (uint8_t)cases[i].code);
        poke(path, at + 1, (uint8_t)(cases[i].code >> 8));
        snprintf(rule, sizeof rule, RULE("x", "%s"), cases[i].format);
        fixture_plan(fixture, rule, amax_options);
        outcome_init(fixture, "out", false, &outcome);
        enum status status = outcome_run(fixture, &outcome, 2);
        assert_int_equal(outcome.state.shards[0], 0);
        run_state_free(&outcome.state);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, cases[i].part);
    }
}

static void given_a_source_that_changes_during_the_run_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct outcome outcome;
    char path[256];
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", "x.weight BF16 8x32\n");
    fixture_plan(fixture, RULE("x", "mxfp4"), amax_options);
    outcome_init(fixture, "out", false, &outcome);
    FILE *file = fopen(fixture_path(fixture, "model.safetensors", path), "ab");
    assert_non_null(file);
    fputc(0, file);
    fclose(file);
    enum status status = outcome_run(fixture, &outcome, 1);
    run_state_free(&outcome.state);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "was changed while it was being read");
}

static void given_a_journal_whose_file_is_gone_or_cut_then_the_run_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct outcome first;
    fixture_reference(fixture, 1);
    fixture_plan(fixture, reference_rules, amax_options);
    run_whole(fixture, "out", 2, &first);
    char *partial = shard_partial_path(&fixture->plan, 1, first.folder);
    for (int gone = 0; gone < 2; gone++) {
        struct outcome second;
        assert_int_equal(gone ? unlink(partial) : truncate(partial, 100), 0);
        outcome_init(fixture, "out", false, &second);
        enum status status = outcome_run(fixture, &second, 2);
        run_state_free(&second.state);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, "is missing or has another size");
    }
    free(partial);
    run_state_free(&first.state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_mixture_of_jobs_then_every_output_byte_is_right_for_any_number_of_workers),
        TEST(given_a_scale_rule_and_gamma_then_both_reach_the_quantizer),
        TEST(given_each_fp8_source_then_it_is_dequantized_by_its_own_scales),
        TEST(given_the_reference_model_then_attention_stays_and_its_scales_become_f32),
        TEST(given_fused_experts_in_either_orientation_then_each_module_has_its_rows),
        TEST(given_fp8_experts_with_block_scales_then_each_module_is_decoded_by_its_own),
        TEST(given_a_journal_that_holds_some_tiles_when_resumed_then_only_the_rest_is_made),
        TEST(given_every_tile_but_no_digest_when_resumed_then_the_shard_is_hashed),
        TEST(given_a_finished_run_when_repeated_then_nothing_is_written),
        TEST(given_a_journaled_amax_when_resumed_then_it_is_used_and_only_the_others_are_computed),
        TEST(given_shares_that_run_one_after_another_then_together_they_make_the_whole),
        TEST(given_hash_source_then_each_tile_has_the_digest_of_the_bytes_it_was_made_from),
        TEST(given_values_that_are_no_numbers_then_the_run_fails_and_names_the_place),
        TEST(given_a_source_that_changes_during_the_run_then_it_is_refused),
        TEST(given_a_journal_whose_file_is_gone_or_cut_then_the_run_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
