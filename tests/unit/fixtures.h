/*
 * What the tests of checkpoints share: a folder per test, shards made from a short description, the chain
 * checkpoint -> layout -> recipe -> plan, and a reading of derived target patterns. Each test frees by its teardown,
 * so that a failed assertion leaves nothing behind.
 *
 * A shard is described by lines "NAME DTYPE SHAPE", SHAPE as 64x32, 5 or - for a scalar. Its data follows from the
 * names alone and is finite in every format, scales are positive.
 */
#ifndef QSTREAM_TESTS_UNIT_FIXTURES_H
#define QSTREAM_TESTS_UNIT_FIXTURES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checkpoint.h"
#include "common/formats.h"
#include "common/layout.h"
#include "common/pattern.h"
#include "common/text.h"
#include "qstream/plan.h"
#include "qstream/recipe.h"

struct fixture {
    char path[64];
    struct checkpoint checkpoint;
    struct layout layout;
    struct recipe recipe;
    struct plan plan;
    struct error error;
    struct text text; /* for whatever a test renders */
};

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#define assert_ok(call, failure)                                                                                       \
    do {                                                                                                               \
        enum status status_ = (call);                                                                                  \
        if (status_ != STATUS_OK)                                                                                      \
            fail_msg("status %d: %s", (int)status_, (failure).message);                                                \
    } while (0)

/* The call is refused with that status, and its message holds `part`. */
#define assert_refused(call, wanted, failure, part)                                                                    \
    do {                                                                                                               \
        enum status status_ = (call);                                                                                  \
        if (status_ != (wanted))                                                                                       \
            fail_msg("status %d instead of %d; looking for: %s", (int)status_, (int)(wanted), part);                   \
        if (!strstr((failure).message, part))                                                                          \
            fail_msg("'%s' does not say '%s'", (failure).message, part);                                               \
    } while (0)

#define assert_contains(haystack, needle)                                                                              \
    do {                                                                                                               \
        if (!strstr((haystack), (needle)))                                                                             \
            fail_msg("'%s' does not hold '%s'", (haystack), (needle));                                                 \
    } while (0)

static inline int fixture_remove(const char *path, const struct stat *stat, int kind, struct FTW *at) {
    (void)stat;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline int fixture_setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (!fixture)
        return -1;
    const char *folder = getenv("TMPDIR");
    snprintf(fixture->path, sizeof fixture->path, "%s/qstream-unit-XXXXXX",
             folder && strlen(folder) < sizeof fixture->path - 24 ? folder : "/tmp");
    *state = fixture;
    return mkdtemp(fixture->path) ? 0 : -1;
}

/* Forgets what was read, not the files: another checkpoint can be opened. */
static inline void fixture_reset(struct fixture *fixture) {
    plan_free(&fixture->plan);
    recipe_free(&fixture->recipe);
    layout_free(&fixture->layout);
    checkpoint_close(&fixture->checkpoint);
    text_free(&fixture->text);
}

static inline int fixture_teardown(void **state) {
    struct fixture *fixture = *state;
    fixture_reset(fixture);
    nftw(fixture->path, fixture_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(fixture);
    return 0;
}

/* Removes every file of the folder, and what was read from it. */
static inline void fixture_clear(struct fixture *fixture) {
    fixture_reset(fixture);
    nftw(fixture->path, fixture_remove, 8, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(mkdir(fixture->path, 0777), 0);
}

static inline const char *fixture_path(const struct fixture *fixture, const char *file, char out[256]) {
    snprintf(out, 256, "%s/%s", fixture->path, file);
    return out;
}

static inline void fixture_bytes(struct fixture *fixture, const char *file, const void *bytes, size_t length) {
    char path[256];
    FILE *stream = fopen(fixture_path(fixture, file, path), "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, length, stream), length);
    assert_int_equal(fclose(stream), 0);
}

static inline void fixture_file(struct fixture *fixture, const char *file, const char *text) {
    fixture_bytes(fixture, file, text, strlen(text));
}

/* ---- shards ---- */

/* Numbers that look random and follow from the seed. */
static inline uint32_t fixture_random(uint64_t *seed) {
    *seed += 0x9e3779b97f4a7c15u;
    uint64_t z = *seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static inline void fixture_fill(uint8_t *out, const struct tensor_info *info) {
    uint64_t seed = 1;
    for (const char *c = info->name; *c; c++)
        seed = seed * 131 + (unsigned char)*c;
    for (uint64_t i = 0; i < info->size;) {
        uint32_t random = fixture_random(&seed);
        size_t item = 1;
        uint8_t bytes[4];
        memcpy(bytes, &random, sizeof bytes);
        if (info->dtype == DTYPE_BF16) { /* +- 2^-8 .. 2 */
            uint16_t code = (uint16_t)((random & 0x807f) | (0x3b80 + (random >> 20 & 7) * 0x80));
            if (strstr(info->name, "_scale"))
                code &= 0x7fff;
            memcpy(bytes, &code, item = sizeof code);
        } else if (info->dtype == DTYPE_F16) {
            uint16_t code = f16_encode((float)(int32_t)random * 0x1p-32f);
            memcpy(bytes, &code, item = sizeof code);
        } else if (info->dtype == DTYPE_F32) { /* positive: also for scales */
            float value = 0.25f + (float)(random >> 8) * 0x1p-24f;
            memcpy(bytes, &value, item = sizeof value);
        } else if (info->dtype == DTYPE_F8_E4M3) {
            bytes[0] = (uint8_t)((random & 0x7f) == 0x7f ? random & 0x80 : random);
        } else if (info->dtype == DTYPE_U8 || info->dtype == DTYPE_F8_E8M0) {
            bytes[0] = (uint8_t)(118 + random % 10); /* also for exponents */
        }
        for (size_t k = 0; k < item && i < info->size; k++)
            out[i++] = bytes[k];
    }
}

static inline enum dtype fixture_dtype(const char *name) {
    int dtype = 0;
    while (dtype < DTYPES && strcmp(dtype_name((enum dtype)dtype), name) != 0)
        dtype++;
    if (dtype == DTYPES)
        fail_msg("the test names no dtype: %s", name);
    return (enum dtype)dtype;
}

static inline void fixture_shard(struct fixture *fixture, const char *file, const char *description) {
    enum { TENSORS_MAX = 4096 };
    struct tensor_info *infos = calloc(TENSORS_MAX, sizeof *infos);
    struct text bytes = {0};
    size_t count = 0;
    assert_non_null(infos);
    for (const char *line = description; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char name[200], dtype[20], shape[80];
        if (sscanf(line, "%199s %19s %79s", name, dtype, shape) != 3 || count == TENSORS_MAX)
            fail_msg("not a tensor: %s", line);
        struct tensor_info *info = &infos[count++];
        info->name = strdup(name);
        info->dtype = fixture_dtype(dtype);
        for (char *at = shape; *at && *at != '-'; at += *at == 'x')
            info->shape[info->rank++] = strtoull(at, &at, 10);
        assert_true(tensor_bytes(info->dtype, info->shape, info->rank, &info->size));
    }
    safetensors_header_append(&bytes, infos, count);
    for (size_t i = 0; i < count; i++) {
        uint8_t *data = malloc((size_t)infos[i].size + 1);
        assert_non_null(data);
        fixture_fill(data, &infos[i]);
        text_append(&bytes, data, (size_t)infos[i].size);
        free(data);
        free(infos[i].name);
    }
    assert_false(bytes.failed);
    fixture_bytes(fixture, file, bytes.bytes, bytes.length);
    text_free(&bytes);
    free(infos);
}

/* ---- the chain ---- */

static inline void fixture_open(struct fixture *fixture) {
    assert_ok(checkpoint_open(fixture->path, &fixture->checkpoint, &fixture->error), fixture->error);
}

static inline void fixture_layout(struct fixture *fixture) {
    fixture_open(fixture);
    assert_ok(layout_detect(&fixture->checkpoint, &fixture->layout, &fixture->error), fixture->error);
}

static inline void fixture_recipe(struct fixture *fixture, const char *rules) {
    char *json = text_format("{\"schema\": \"qstream.recipe/1\", \"name\": \"test\", \"rules\": [%s]}", rules);
    assert_non_null(json);
    enum status status = recipe_parse("test.json", json, strlen(json), &fixture->recipe, &fixture->error);
    free(json);
    assert_ok(status, fixture->error);
}

/* Opens, detects, plans; the status is the plan's. */
static inline enum status fixture_try_plan(struct fixture *fixture, const char *rules, struct plan_options options) {
    fixture_reset(fixture);
    fixture_layout(fixture);
    fixture_recipe(fixture, rules);
    return plan_build(&fixture->checkpoint, &fixture->layout, &fixture->recipe, &options, &fixture->plan,
                      &fixture->error);
}

static inline void fixture_plan(struct fixture *fixture, const char *rules, struct plan_options options) {
    assert_ok(fixture_try_plan(fixture, rules, options), fixture->error);
}

static inline const struct plan_output *fixture_output(const struct fixture *fixture, const char *name) {
    for (size_t i = 0; i < fixture->plan.output_count; i++)
        if (strcmp(fixture->plan.outputs[i].info.name, name) == 0)
            return &fixture->plan.outputs[i];
    fail_msg("the plan has no output '%s'", name);
    return NULL;
}

/* A source tensor's bytes; the caller frees. */
static inline uint8_t *fixture_tensor(const struct fixture *fixture, const char *name) {
    const struct tensor *tensor = checkpoint_find(&fixture->checkpoint, name);
    struct error error;
    if (!tensor)
        fail_msg("no tensor '%s'", name);
    uint8_t *bytes = malloc((size_t)tensor->info.size + 1);
    assert_non_null(bytes);
    assert_ok(checkpoint_read(&fixture->checkpoint, tensor, 0, bytes, (size_t)tensor->info.size, &error), error);
    return bytes;
}

/* ---- checkpoints that several tests use ---- */

static const char reference_rules[] =
    "{\"match\": \"re:.*vision_tower.*\", \"format\": \"keep\", \"optional\": true},"
    "{\"match\": \"re:.*multi_modal_projector.*\", \"format\": \"keep\", \"optional\": true},"
    "{\"match\": \"re:.*lm_head$\", \"format\": \"keep\", \"optional\": true},"
    "{\"match\": \"re:.*embed_tokens$\", \"format\": \"keep\"},"
    "{\"match\": \"re:.*language_model\\\\.(model\\\\.)?layers\\\\.\\\\d+\\\\.mlp\\\\.(gate|up|down)_proj$\","
    " \"format\": \"mxfp4\"},"
    "{\"match\": \"re:.*language_model\\\\.(model\\\\.)?layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|k|v|o)_proj$\","
    " \"format\": \"fp8\"}";

static const char llama_rules[] =
    "{\"match\": \"re:.*lm_head$\", \"format\": \"keep\", \"optional\": true},"
    "{\"match\": \"re:.*embed_tokens$\", \"format\": \"keep\"},"
    "{\"match\": \"re:model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.(gate|up|down)_proj$\", \"format\": \"mxfp4\"},"
    "{\"match\": \"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|k|v|o)_proj$\", \"format\": \"fp8\"}";

static const char *const reference_projections[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                    "mlp.down_proj"};
enum { REFERENCE_PROJECTIONS = 7 };

/* The reference model's names, FP8 per tensor with static activations; tiny, in three shards of a mixed order. */
static inline void fixture_reference(struct fixture *fixture, int layers) {
    struct text shards[2] = {{0}, {0}}, index = {0};
    fixture_file(fixture, "config.json",
                 "{\n  \"model_type\": \"mistral3\",\n  \"quantization_config\": {\"quant_method\": \"fp8\", "
                 "\"weight_block_size\": null, \"activation_scheme\": \"static\"},\n  \"text_config\": "
                 "{\"hidden_size\": 64, \"big\": 1000000000000000019884624838656}\n}\n");
    text_append_string(&shards[0], "model.language_model.embed_tokens.weight BF16 96x64\n"
                                   "model.language_model.norm.weight BF16 64\n");
    text_append_string(&shards[1], "lm_head.weight BF16 96x64\n"
                                   "model.vision_tower.patch_conv.weight BF16 8x3x2x2\n"
                                   "model.vision_tower.transformer.layers.0.attention.q_proj.weight BF16 32x32\n"
                                   "model.vision_tower.transformer.layers.0.feed_forward.gate_proj.weight BF16 64x32\n"
                                   "model.multi_modal_projector.linear_1.weight BF16 64x32\n");
    for (int layer = 0; layer < layers; layer++) {
        text_printf(&shards[0], "model.language_model.layers.%d.input_layernorm.weight BF16 64\n", layer);
        text_printf(&shards[0], "model.language_model.layers.%d.post_attention_layernorm.weight BF16 64\n", layer);
        for (int p = 0; p < REFERENCE_PROJECTIONS; p++) {
            const char *name = reference_projections[p];
            const char *shape = strstr(name, "down") ? "64x160" : p < 4 ? "64x64" : "160x64";
            text_printf(&shards[0], "model.language_model.layers.%d.%s.weight F8_E4M3 %s\n", layer, name, shape);
            /* companions of odd layers lie in the other shard */
            text_printf(&shards[layer % 2], "model.language_model.layers.%d.%s.weight_scale_inv %s\n", layer, name,
                        p % 2 ? "BF16 1" : "BF16 -");
            text_printf(&shards[layer % 2], "model.language_model.layers.%d.%s.activation_scale F32 -\n", layer, name);
        }
    }
    text_append_string(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (int s = 0; s < 2; s++) {
        char file[64];
        snprintf(file, sizeof file, "model-%05d-of-00002.safetensors", s + 1);
        fixture_shard(fixture, file, shards[s].bytes);
        for (const char *line = shards[s].bytes; *line; line += strcspn(line, "\n") + 1)
            text_printf(&index, "%s\"%.*s\": \"%s\"", text_ends_with(index.bytes, "{") ? "" : ", ",
                        (int)strcspn(line, " "), line, file);
        text_free(&shards[s]);
    }
    text_append_string(&index, "}}");
    fixture_file(fixture, "model.safetensors.index.json", index.bytes);
    text_free(&index);
}

/* ---- configs that were derived ---- */

/* Whether one of a group's targets matches a module's name, as transformers and vLLM match it. */
static inline bool target_matches(const json_t *targets, const char *name) {
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *target = json_string_value(json_array_get(targets, i));
        assert_non_null(target);
        struct pattern *pattern;
        struct error error;
        bool matches = strcmp(target, name) == 0;
        if (strncmp(target, "re:", 3) == 0) {
            assert_ok(pattern_new(target, &pattern, &error), error);
            assert_ok(pattern_match(pattern, name, &matches, &error), error);
            pattern_free(pattern);
        }
        if (matches)
            return true;
    }
    return false;
}

/* "group_0" and so on, "ignore", or "" where nothing matches; two groups are a failure. */
static inline const char *config_group_of(const json_t *config, const char *name) {
    const char *found = "";
    if (target_matches(json_object_get(config, "ignore"), name))
        found = "ignore";
    json_t *groups = json_object_get(config, "config_groups");
    for (void *at = json_object_iter(groups); at; at = json_object_iter_next(groups, at))
        if (target_matches(json_object_get(json_object_iter_value(at), "targets"), name)) {
            if (*found)
                fail_msg("%s belongs to %s and to %s", name, found, json_object_iter_key(at));
            found = json_object_iter_key(at);
        }
    return found;
}

#endif
