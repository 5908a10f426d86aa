/*
 * A whole folder from one input: opening it, telling its layout, planning, and everything that is rendered from a
 * plan; then a few tiles, whose data is a hole that reads as zeros.
 *
 * The input's first byte chooses options; the rest is a folder in sections (fuzz.h).
 */
#include <jansson.h>

#include "common/json_text.h"
#include "qstream/config.h"
#include "qstream/report.h"
#include "qstream/tile.h"
#include "tests/fuzz/fuzz.h"

static const char default_recipe[] =
    "{\"schema\": \"qstream.recipe/1\", \"name\": \"fuzz\", \"rules\": ["
    "{\"match\": \"re:.*(norm|embed_tokens|lm_head)$\", \"format\": \"keep\", \"optional\": true},"
    "{\"match\": \"*self_attn*\", \"format\": \"fp8\", \"optional\": true},"
    "{\"match\": \"*router\", \"format\": \"fp8\", \"strategy\": \"tensor\", \"optional\": true},"
    "{\"match\": \"*mlp*\", \"format\": \"mxfp4\", \"optional\": true}]}";

/* FUZZ_VERBOSE=1 shows why an input was refused, when one is looked at by itself. */
static void message_show(enum status status, const struct error *error) {
    if (status != STATUS_OK && getenv("FUZZ_VERBOSE"))
        fprintf(stderr, "%s\n", error->message);
}

static void require_object(struct text *text) {
    REQUIRE(!text->failed);
    json_t *root = json_loadb(text->bytes, text->length, JSON_REJECT_DUPLICATES, NULL);
    REQUIRE(json_is_object(root));
    json_decref(root);
    text_free(text);
}

/* Every output has its place, every job its tiles, and each header reads back as the plan has it. */
static void plan_check(const struct plan *plan) {
    struct error error;
    uint64_t tiles = 0;
    for (size_t j = 0; j < plan->job_count; j++) {
        const struct plan_job *job = &plan->jobs[j];
        REQUIRE(job->first_tile == tiles && job->tile_count > 0);
        REQUIRE(plan_job_of_tile(plan, job->first_tile) == job);
        REQUIRE(plan_job_of_tile(plan, job->first_tile + job->tile_count - 1) == job);
        uint64_t first, count;
        plan_tile_rows(job, job->first_tile + job->tile_count - 1, &first, &count);
        REQUIRE(first + count == job->rows && (count > 0 || job->rows == 0));
        tiles += job->tile_count;
    }
    REQUIRE(tiles == plan->tile_count);
    for (size_t s = 0; s < plan->shard_count; s++) {
        const struct plan_shard *shard = &plan->shards[s];
        struct text header = {0};
        struct safetensors file;
        REQUIRE(plan_shard_header(plan, s, &header, &error) == STATUS_OK && header.length == shard->header_size);
        REQUIRE(safetensors_parse("planned", header.bytes + 8, header.length - 8, shard->size, &file, &error) ==
                STATUS_OK);
        REQUIRE(file.count == shard->output_count);
        for (size_t i = 0; i < file.count; i++) {
            const struct plan_output *output = &plan->outputs[shard->first_output + i];
            /* empty tensors of one place may change theirs */
            REQUIRE(file.tensors[i].size == output->info.size && file.tensors[i].offset == output->info.offset);
        }
        safetensors_free(&file);
        text_free(&header);
    }
}

/* No scale is dropped: it is copied, or its weight was converted with it. */
static void scales_check(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->checkpoint->tensor_count; i++) {
        uint32_t scale = plan->layout->tensors[i].scale;
        bool used = scale == NO_TENSOR;
        for (size_t j = 0; j < plan->job_count && !used; j++)
            used = plan->jobs[j].source == scale || (plan->jobs[j].source == i && plan->jobs[j].kind != JOB_COPY);
        REQUIRE(used);
    }
}

static void tiles_check(const struct plan *plan) {
    enum { TILES_MAX = 16, WORKER_BYTES_MAX = 8 << 20 };
    struct tile_worker worker;
    struct tile_result result;
    struct error error;
    if (tile_worker_bytes(plan) > WORKER_BYTES_MAX)
        return;
    REQUIRE(tile_worker_init(plan, CPU_PORTABLE, &worker, &error) == STATUS_OK);
    for (uint32_t i = 0; i < plan->tile_count && i < TILES_MAX; i++) {
        uint32_t tile =
            plan->tile_count <= TILES_MAX || i < TILES_MAX / 2 ? i : plan->tile_count - 1 - (i - TILES_MAX / 2);
        const struct plan_job *job = plan_job_of_tile(plan, tile);
        enum status status = tile_convert(&worker, job, tile, 0, &result, &error);
        REQUIRE(status == STATUS_OK || status == STATUS_BAD_INPUT);
        for (uint32_t o = 0; o < job->output_count && status == STATUS_OK; o++)
            REQUIRE(result.offset[o] + result.size[o] <= plan->outputs[job->outputs[o]].info.size);
        uint16_t amax;
        if (job->kind == JOB_FP8_TENSOR)
            tile_amax(&worker, job, tile, &amax, &error);
    }
    tile_worker_free(&worker);
}

static void rendered_check(const struct plan *plan, const struct recipe *recipe) {
    struct text config = {0}, card = {0}, table = {0}, json = {0};
    struct error error;
    enum status status = config_build(plan, recipe, &config, &error);
    REQUIRE(status == STATUS_OK || status == STATUS_BAD_INPUT);
    message_show(status, &error);
    if (status == STATUS_OK)
        REQUIRE(json_text_check("config", config.bytes, config.length, &error) == STATUS_OK);
    text_free(&config);
    card_render(plan, recipe, &card);
    plan_table(plan, 0, &table);
    text_append_string(&json, "{");
    plan_json(plan, 0, &json);
    text_append_string(&json, "}");
    REQUIRE(!card.failed && !table.failed);
    text_free(&card);
    text_free(&table);
    require_object(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint64_t shard_sizes[4] = {0, 1, 1 << 14, (uint64_t)5 << 30};
    struct folder_input input = {default_recipe, sizeof default_recipe - 1};
    if (size < 1)
        return 0;
    folder_from_sections(data + 1, size - 1, &input);

    struct plan_options options = {.rule = (enum scale_rule)(data[0] % SCALE_RULES),
                                   .gamma = (enum gamma_source)((data[0] >> 2) % GAMMA_SOURCES),
                                   .shard_size = shard_sizes[data[0] >> 4 & 3]};
    struct recipe recipe;
    struct checkpoint checkpoint = {0};
    struct layout layout = {0};
    struct plan plan = {0};
    struct error error = {0};
    enum status status = recipe_parse("fuzz", input.recipe, input.recipe_length, &recipe, &error);
    if (status == STATUS_OK)
        status = checkpoint_open(fuzz_folder(), &checkpoint, &error);
    if (status == STATUS_OK)
        status = layout_detect(&checkpoint, &layout, &error);
    if (status == STATUS_OK)
        status = plan_build(&checkpoint, &layout, &recipe, &options, &plan, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    message_show(status, &error);
    if (status == STATUS_OK) {
        plan_check(&plan);
        scales_check(&plan);
        rendered_check(&plan, &recipe);
        tiles_check(&plan);
    }
    plan_free(&plan);
    layout_free(&layout);
    checkpoint_close(&checkpoint);
    recipe_free(&recipe);
    folder_clear();
    return 0;
}
