/*
 * Plans: every output tensor, its shard and its offset are right before a weight is read, for each layout and
 * format; tiles cover the work exactly once; what cannot be carried out is refused.
 */
#include "tests/unit/fixtures.h"

#define FP8_CONFIG(body) "{\"quantization_config\": {\"quant_method\": \"fp8\"" body "}, \"hidden_size\": 64}"
#define STATIC_CONFIG FP8_CONFIG(", \"activation_scheme\": \"static\"")
#define BLOCK_CONFIG FP8_CONFIG(", \"weight_block_size\": [128, 128]")
#define COMPRESSED_CONFIG(body)                                                                                        \
    "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {\"weights\": "   \
    "{\"num_bits\": 8, \"type\": \"float\", " body "}}}}}"
#define RULE(match, format) "{\"match\": \"" match "\", \"format\": \"" format "\"}"

static const struct plan_options plain_options = {.rule = SCALE_RULE_AMAX};

static void checkpoint_make(struct fixture *fixture, const char *config, const char *shard) {
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", config);
    fixture_shard(fixture, "model.safetensors", shard);
}

static size_t stem_of(const char *name) { return (size_t)(strrchr(name, '.') ? strrchr(name, '.') - name : 0); }

/* What holds of every plan, whatever it is for. */
static void assert_plan_is_sound(const struct fixture *fixture) {
    const struct plan *plan = &fixture->plan;
    uint64_t tensor_bytes_sum = 0, bytes_in = 0, bytes_out = 0, source_bytes = 0, tensors = 0, owners = 0;
    uint32_t next_output = 0, next_job = 0, next_tile = 0;
    for (size_t s = 0; s < plan->shard_count; s++) {
        const struct plan_shard *shard = &plan->shards[s];
        assert_int_equal(shard->first_output, next_output);
        assert_int_equal(shard->first_job, next_job);
        assert_true(shard->output_count > 0 && shard->job_count > 0);
        next_output += shard->output_count;
        next_job += shard->job_count;
        uint64_t at = shard->header_size;
        assert_int_equal(at % 8, 0);
        for (uint32_t o = shard->first_output; o < next_output; o++) {
            const struct plan_output *output = &plan->outputs[o];
            assert_int_equal(output->shard, s);
            assert_true(output->job >= shard->first_job && output->job < next_job);
            assert_int_equal(output->info.offset, at);
            assert_int_equal(at % (dtype_bits(output->info.dtype) / 8), 0); /* aligned to its type */
            if (o > shard->first_output)
                assert_true(dtype_bits(output->info.dtype) <= dtype_bits(output[-1].info.dtype));
            uint64_t bytes = 0;
            assert_true(tensor_bytes(output->info.dtype, output->info.shape, output->info.rank, &bytes));
            assert_int_equal(output->info.size, bytes);
            at += bytes;
            tensor_bytes_sum += bytes;
        }
        assert_int_equal(shard->size, at);

        struct text header = {0};
        struct safetensors file;
        struct error error;
        assert_ok(plan_shard_header(plan, s, &header, &error), error);
        assert_int_equal(header.length, shard->header_size);
        assert_ok(safetensors_parse(shard->file, header.bytes + 8, header.length - 8, shard->size, &file, &error),
                  error);
        assert_int_equal(file.count, shard->output_count);
        for (size_t i = 0; i < file.count; i++) {
            const struct tensor_info *planned = NULL;
            for (uint32_t o = shard->first_output; o < next_output; o++)
                if (strcmp(plan->outputs[o].info.name, file.tensors[i].name) == 0)
                    planned = &plan->outputs[o].info;
            assert_non_null(planned);
            assert_int_equal(file.tensors[i].offset, planned->offset);
            assert_int_equal(file.tensors[i].size, planned->size);
            assert_int_equal(file.tensors[i].dtype, planned->dtype);
        }
        safetensors_free(&file);
        text_free(&header);
    }
    assert_int_equal(next_output, plan->output_count);
    assert_int_equal(next_job, plan->job_count);
    assert_int_equal(tensor_bytes_sum, plan->tensor_bytes);

    uint32_t reached = 0;
    for (size_t j = 0; j < plan->job_count; j++) {
        const struct plan_job *job = &plan->jobs[j];
        assert_true(job->output_count >= 1 && job->output_count <= 2);
        assert_true(plan->outputs[job->outputs[0]].info.offset > 0);
        for (uint32_t i = 0; i < job->output_count; i++)
            assert_ptr_equal(&plan->jobs[plan->outputs[job->outputs[i]].job], job);
        if (job->output_count == 2) { /* the matrix first, its scale behind; in one shard */
            assert_true(text_ends_with(plan->outputs[job->outputs[1]].info.name, ".weight_scale"));
            assert_int_equal(plan->outputs[job->outputs[0]].shard, plan->outputs[job->outputs[1]].shard);
        }
        uint32_t earliest = job->outputs[0];
        if (job->output_count == 2 && job->outputs[1] < earliest)
            earliest = job->outputs[1];
        assert_true(earliest >= reached); /* jobs lie in the order of their first output */
        reached = earliest;
        assert_int_equal(job->first_tile, next_tile);
        assert_true(job->tile_count > 0);
        uint64_t row = 0, written[2] = {0, 0};
        for (uint32_t t = 0; t < job->tile_count; t++) {
            uint64_t first, count;
            assert_ptr_equal(plan_job_of_tile(plan, next_tile + t), job);
            plan_tile_rows(job, next_tile + t, &first, &count);
            assert_int_equal(first, row);
            assert_true(count > 0 || job->rows == 0);
            row += count;
            for (uint32_t i = 0; i < job->output_count; i++)
                written[i] += count * plan_output_row_bytes(job, &plan->outputs[job->outputs[i]]);
        }
        assert_int_equal(row, job->rows);
        for (uint32_t i = 0; i < job->output_count; i++)
            assert_int_equal(written[i], job->kind == JOB_FP8_TENSOR && i == 1
                                             ? 0 /* one for the tensor, it comes with the first tile */
                                             : plan->outputs[job->outputs[i]].info.size);
        next_tile += job->tile_count;
    }
    assert_int_equal(next_tile, plan->tile_count);

    for (size_t i = 0; i < fixture->checkpoint.tensor_count; i++) {
        source_bytes += fixture->checkpoint.tensors[i].info.size;
        owners += fixture->layout.tensors[i].owner == NO_TENSOR;
    }
    for (size_t i = 0; i < plan->share_count; i++) {
        tensors += plan->shares[i].tensors;
        bytes_in += plan->shares[i].bytes_in;
        bytes_out += plan->shares[i].bytes_out;
        for (size_t k = 0; k < i; k++)
            assert_false(plan->shares[k].role == plan->shares[i].role &&
                         plan->shares[k].format == plan->shares[i].format);
    }
    assert_int_equal(tensors, owners);
    assert_int_equal(bytes_in, source_bytes);
    assert_int_equal(bytes_out, plan->tensor_bytes);

    /* the tensors of one module lie in one shard */
    for (size_t a = 0; a < plan->output_count; a++)
        for (size_t b = a + 1; b < plan->output_count; b++) {
            const char *x = plan->outputs[a].info.name, *y = plan->outputs[b].info.name;
            if (strstr(x, ".weight") && stem_of(x) == stem_of(y) && strncmp(x, y, stem_of(x)) == 0)
                assert_int_equal(plan->outputs[a].shard, plan->outputs[b].shard);
        }
}

static void plan_make(struct fixture *fixture, const char *rules, struct plan_options options) {
    fixture_plan(fixture, rules, options);
    assert_plan_is_sound(fixture);
}

/* "name dtype [shape]; ..." of all outputs, in their order. */
static const char *outputs_text(struct fixture *fixture) {
    text_free(&fixture->text);
    text_append_string(&fixture->text, "");
    for (size_t i = 0; i < fixture->plan.output_count; i++) {
        const struct tensor_info *info = &fixture->plan.outputs[i].info;
        char shape[SHAPE_TEXT_MAX];
        text_printf(&fixture->text, "%s%s %s %s", i ? "; " : "", info->name, dtype_name(info->dtype),
                    shape_text(info->shape, info->rank, shape));
    }
    return fixture->text.bytes;
}

static const struct plan_job *job_of(const struct fixture *fixture, const char *output) {
    return &fixture->plan.jobs[fixture_output(fixture, output)->job];
}

static const char *source_name_of(const struct fixture *fixture, const struct plan_job *job) {
    return fixture->checkpoint.tensors[job->source].info.name;
}

static enum scheme scheme_of(const struct fixture *fixture, const char *module) {
    for (size_t i = 0; i < fixture->plan.module_count; i++)
        if (strcmp(fixture->plan.modules[i].name, module) == 0)
            return fixture->plan.modules[i].scheme;
    fail_msg("the plan has no module '%s'", module);
    return SCHEME_NONE;
}

static void given_each_layout_and_format_then_the_outputs_have_the_documented_names_and_types(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *config, *shard, *format, *outputs;
        enum scheme scheme;
    } cases[] = {
        {"{}", "x.weight BF16 6x64\n", "mxfp4", "x.weight_packed U8 [6, 32]; x.weight_scale U8 [6, 2]", SCHEME_MXFP4},
        {"{}", "x.weight F32 6x64\n", "mxfp4", "x.weight_packed U8 [6, 32]; x.weight_scale U8 [6, 2]", SCHEME_MXFP4},
        {"{}", "x.weight F16 6x64\n", "fp8", "x.weight_scale BF16 [6, 1]; x.weight F8_E4M3 [6, 64]",
         SCHEME_FP8_CHANNEL_DYNAMIC},
        {"{}", "x.weight BF16 6x33\n", "fp8\", \"strategy\": \"channel",
         "x.weight_scale BF16 [6, 1]; x.weight F8_E4M3 [6, 33]", SCHEME_FP8_CHANNEL_DYNAMIC},
        {"{}", "x.weight BF16 6x64\n", "fp8\", \"strategy\": \"tensor",
         "x.weight_scale BF16 [1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_TENSOR_DYNAMIC},
        {"{}", "x.weight BF16 6x64\n", "keep", "x.weight BF16 [6, 64]", SCHEME_NONE},
        {STATIC_CONFIG, "x.weight F8_E4M3 6x64\nx.weight_scale_inv BF16 -\nx.activation_scale BF16 1\n", "mxfp4",
         "x.weight_packed U8 [6, 32]; x.weight_scale U8 [6, 2]", SCHEME_MXFP4},
        {STATIC_CONFIG, "x.weight F8_E4M3 6x64\nx.weight_scale_inv BF16 -\nx.activation_scale F32 -\n", "fp8",
         "x.input_scale F32 [1]; x.weight_scale F32 [1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_TENSOR_STATIC},
        {FP8_CONFIG(""), "x.weight F8_E4M3 6x64\nx.weight_scale_inv F32 1\n", "fp8",
         "x.weight_scale F32 [1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_TENSOR_DYNAMIC},
        {BLOCK_CONFIG, "x.weight F8_E4M3 130x320\nx.weight_scale_inv F32 2x3\n", "fp8",
         "x.weight_scale F32 [2, 3]; x.weight F8_E4M3 [130, 320]", SCHEME_FP8_BLOCK},
        {BLOCK_CONFIG, "x.weight F8_E4M3 130x320\nx.weight_scale_inv F32 2x3\n", "mxfp4",
         "x.weight_packed U8 [130, 160]; x.weight_scale U8 [130, 10]", SCHEME_MXFP4},
        {FP8_CONFIG(", \"weight_block_size\": [1, 32]"), "x.weight F8_E4M3 6x64\nx.weight_scale_inv F8_E8M0 6x2\n",
         "fp8", "x.weight F8_E4M3 [6, 64]; x.weight_scale U8 [6, 2]", SCHEME_MXFP8},
        {COMPRESSED_CONFIG("\"strategy\": \"channel\""), "x.weight F8_E4M3 6x64\nx.weight_scale BF16 6x1\n", "fp8",
         "x.weight_scale BF16 [6, 1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_CHANNEL_DYNAMIC},
        {COMPRESSED_CONFIG("\"strategy\": \"channel\""),
         "x.weight F8_E4M3 6x64\nx.weight_scale F32 6\nx.input_scale F32 1\n", "fp8",
         "x.input_scale F32 [1]; x.weight_scale F32 [6, 1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_CHANNEL_STATIC},
        {COMPRESSED_CONFIG("\"strategy\": \"tensor\""), "x.weight F8_E4M3 6x64\nx.weight_scale BF16 1x1\n", "fp8",
         "x.weight_scale F32 [1]; x.weight F8_E4M3 [6, 64]", SCHEME_FP8_TENSOR_DYNAMIC},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rule[100];
        checkpoint_make(fixture, cases[i].config, cases[i].shard);
        snprintf(rule, sizeof rule, RULE("x", "%s"), cases[i].format);
        plan_make(fixture, rule, plain_options);
        assert_string_equal(outputs_text(fixture), cases[i].outputs);
        assert_int_equal(scheme_of(fixture, "x"), cases[i].scheme);
        assert_string_equal(fixture->plan.shards[0].file, "model.safetensors");
    }
}

static void given_tensors_of_all_widths_then_wider_ones_come_first_and_names_in_order(void **state) {
    struct fixture *fixture = *state;
    checkpoint_make(fixture, "{}",
                    "u8 U8 3\nx.weight BF16 1x32\ni64 I64 1\nbf BF16 1\nf32b F32 1\nf32a F32 3\nf16 F16 5\nf64 F64 1\n"
                    "flag BOOL 1\nempty F32 0\nbias BF16 3\nc64 C64 1\n");
    plan_make(fixture, RULE("x", "mxfp4"), plain_options);
    assert_string_equal(outputs_text(fixture),
                        "i64 I64 [1]; f64 F64 [1]; c64 C64 [1]; empty F32 [0]; f32a F32 [3]; f32b F32 [1]; bf BF16 "
                        "[1]; bias BF16 [3]; f16 F16 [5]; u8 U8 [3]; x.weight_packed U8 [1, 16]; "
                        "x.weight_scale U8 [1, 1]; flag BOOL [1]");
    assert_int_equal(job_of(fixture, "u8")->kind, JOB_COPY);
    assert_int_equal(job_of(fixture, "empty")->tile_count, 1);
    assert_int_equal(fixture->plan.module_count, 1);
    assert_int_equal(fixture->plan.parameters, 3 + 32 + 1 + 1 + 1 + 3 + 5 + 1 + 1 + 0 + 3 + 1);
}

static void given_the_reference_model_then_its_two_groups_and_the_rest_are_planned(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 3);
    plan_make(fixture, reference_rules, plain_options);
    const struct plan *plan = &fixture->plan;
    assert_int_equal(plan->shard_count, 2);
    assert_string_equal(plan->shards[0].file, "model-00001-of-00002.safetensors"); /* as in the source */
    assert_string_equal(plan->shards[1].file, "model-00002-of-00002.safetensors");
    /* 3 x (4 attention x 3 + 3 mlp x 2 + 2 norms) + 2 + 5 */
    assert_int_equal(plan->output_count, 3 * (4 * 3 + 3 * 2 + 2) + 2 + 5);
    for (size_t i = 0; i < plan->output_count; i++) {
        const struct tensor_info *info = &plan->outputs[i].info;
        const struct plan_job *job = &plan->jobs[plan->outputs[i].job];
        const struct tensor_info *source = &fixture->checkpoint.tensors[job->source].info;
        bool mlp = strstr(info->name, ".mlp.") != NULL, attention = strstr(info->name, ".self_attn.") != NULL;
        assert_false(text_ends_with(info->name, "_scale_inv"));
        assert_false(text_ends_with(info->name, ".activation_scale"));
        if (mlp) {
            assert_int_equal(job->kind, JOB_MXFP4);
            assert_int_equal(plan->outputs[i].shard, 0); /* with the weight, not with its scale */
        } else if (attention && info->dtype == DTYPE_F32) {
            assert_int_equal(job->kind, JOB_SCALAR_F32);
            assert_int_equal(plan->outputs[i].shard, 0);
            assert_true(text_ends_with(
                source->name, text_ends_with(info->name, ".weight_scale") ? ".weight_scale_inv" : ".activation_scale"));
        } else {
            assert_int_equal(job->kind, JOB_COPY);
            assert_string_equal(source->name, info->name);
            assert_int_equal(source->dtype, info->dtype);
            assert_int_equal(source->size, info->size);
            assert_int_equal(job->first_row, 0);
        }
    }
    assert_int_equal(scheme_of(fixture, "model.language_model.layers.2.mlp.up_proj"), SCHEME_MXFP4);
    assert_int_equal(scheme_of(fixture, "model.language_model.layers.2.self_attn.o_proj"), SCHEME_FP8_TENSOR_STATIC);
    assert_int_equal(scheme_of(fixture, "model.vision_tower.patch_conv"), SCHEME_NONE);
    assert_int_equal(scheme_of(fixture, "lm_head"), SCHEME_NONE);
    /* shares: attention fp8, mlp mxfp4, norm, embedding, head, vision kept */
    assert_int_equal(plan->share_count, 6);
    for (size_t i = 0; i < plan->share_count; i++) {
        const struct plan_share *share = &plan->shares[i];
        if (share->role == ROLE_MLP) {
            assert_int_equal(share->format, FORMAT_MXFP4);
            assert_int_equal(share->tensors, 9);
            assert_int_equal(share->bytes_in, 9 * (160 * 64 + 2 + 4));
            assert_int_equal(share->bytes_out, 9 * (160 * 64 / 2 + 160 * 64 / 32));
        } else if (share->role == ROLE_ATTENTION) {
            assert_int_equal(share->format, FORMAT_FP8);
            assert_int_equal(share->bytes_in, 12 * (64 * 64 + 2 + 4));
            assert_int_equal(share->bytes_out, 12 * (64 * 64 + 4 + 4));
        } else {
            assert_int_equal(share->format, FORMAT_KEEP);
            assert_int_equal(share->bytes_in, share->bytes_out);
        }
    }
    assert_int_equal(plan->parameters,
                     3 * (4 * 64 * 64 + 3 * 160 * 64 + 2 * 64) + 2 * 96 * 64 + 64 + 96 + 32 * 32 + 2 * 64 * 32);
}

static void given_every_shard_size_then_no_module_is_split_and_the_limit_holds(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 2);
    for (uint64_t limit = 1; limit < 200000; limit = limit * 5 / 3 + 1) {
        plan_make(fixture, reference_rules, (struct plan_options){.rule = SCALE_RULE_AMAX, .shard_size = limit});
        const struct plan *plan = &fixture->plan;
        for (size_t s = 0; s < plan->shard_count; s++) {
            uint64_t bytes = plan->shards[s].size - plan->shards[s].header_size;
            char wanted[64];
            snprintf(wanted, sizeof wanted, "model-%05zu-of-%05zu.safetensors", s + 1, plan->shard_count);
            assert_string_equal(plan->shards[s].file, plan->shard_count == 1 ? "model.safetensors" : wanted);
            if (bytes <= limit)
                continue;
            /* larger than asked for only when one module fills it */
            const char *name = plan->outputs[plan->shards[s].first_output].info.name;
            for (uint32_t o = 0; o < plan->shards[s].output_count; o++) {
                const char *other = plan->outputs[plan->shards[s].first_output + o].info.name;
                assert_int_equal(stem_of(other), stem_of(name));
                assert_memory_equal(other, name, stem_of(name));
            }
        }
    }
    assert_int_equal(fixture->plan.shard_count, 1);
    /* two neighbours never fit into one shard: nothing is cut for no reason */
    plan_make(fixture, reference_rules, (struct plan_options){.rule = SCALE_RULE_AMAX, .shard_size = 20000});
    assert_int_equal(fixture->plan.shard_count > 4, true);
    for (size_t s = 0; s + 1 < fixture->plan.shard_count; s++) {
        uint64_t bytes = fixture->plan.shards[s].size - fixture->plan.shards[s].header_size;
        uint64_t next = fixture->plan.shards[s + 1].size - fixture->plan.shards[s + 1].header_size;
        assert_true(bytes + next > 20000);
    }
}

static void given_a_limit_that_tensors_fill_exactly_then_they_share_a_shard(void **state) {
    struct fixture *fixture = *state;
    checkpoint_make(fixture, "{}", "a U8 10\nb U8 10\nc U8 10\nd U8 25\ne U8 1\nlm_head.weight BF16 1x1\n");
    plan_make(fixture, RULE("lm_head", "keep"), (struct plan_options){.shard_size = 20});
    static const struct {
        const char *name;
        uint32_t shard;
    } wanted[] = {{"a", 0}, {"b", 0}, {"c", 1}, {"d", 2}, {"e", 3}, {"lm_head.weight", 3}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_int_equal(fixture_output(fixture, wanted[i].name)->shard, wanted[i].shard);
}

static void given_a_shard_that_becomes_empty_then_it_is_dropped_and_the_rest_renumbered(void **state) {
    struct fixture *fixture = *state;
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", FP8_CONFIG(""));
    fixture_shard(fixture, "model-00001-of-00003.safetensors", "a.weight BF16 4x4\n");
    fixture_shard(fixture, "model-00002-of-00003.safetensors", "x.weight_scale_inv F32 -\n");
    fixture_shard(fixture, "model-00003-of-00003.safetensors", "x.weight F8_E4M3 4x32\n");
    plan_make(fixture, RULE("x", "mxfp4"), plain_options);
    assert_int_equal(fixture->plan.shard_count, 2);
    assert_string_equal(fixture->plan.shards[0].file, "model-00001-of-00002.safetensors");
    assert_string_equal(fixture->plan.shards[1].file, "model-00002-of-00002.safetensors");
    assert_int_equal(fixture_output(fixture, "x.weight_packed")->shard, 1);

    unlink(strcat(strcpy((char[256]){0}, fixture->path), "/model-00001-of-00003.safetensors"));
    plan_make(fixture, RULE("x", "mxfp4"), plain_options);
    assert_int_equal(fixture->plan.shard_count, 1);
    assert_string_equal(fixture->plan.shards[0].file, "model.safetensors");
}

static void given_shards_of_the_source_then_their_names_stay(void **state) {
    struct fixture *fixture = *state;
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "part-b.safetensors", "b.weight BF16 4x32\n");
    fixture_shard(fixture, "part-a.safetensors", "a.weight BF16 4x32\nc BF16 1\n");
    plan_make(fixture, RULE("b", "mxfp4"), plain_options);
    assert_int_equal(fixture->plan.shard_count, 2);
    assert_string_equal(fixture->plan.shards[0].file, "part-a.safetensors");
    assert_int_equal(fixture_output(fixture, "a.weight")->shard, 0);
    assert_int_equal(fixture_output(fixture, "b.weight_packed")->shard, 1);
}

static void given_large_weights_then_tiles_hold_a_megabyte_of_the_source_at_most(void **state) {
    struct fixture *fixture = *state;
    checkpoint_make(fixture, "{}",
                    "x.weight BF16 3000x512\ny.weight F32 100x8192\nwide.weight BF16 3x600000\ncopy U8 2500000\n");
    plan_make(fixture, RULE("re:x|y|wide", "mxfp4"), plain_options);
    assert_int_equal(job_of(fixture, "x.weight_packed")->rows_per_tile, 1024);
    assert_int_equal(job_of(fixture, "x.weight_packed")->tile_count, 3);
    assert_int_equal(job_of(fixture, "y.weight_packed")->rows_per_tile, 32);
    assert_int_equal(job_of(fixture, "y.weight_packed")->tile_count, 4);
    assert_int_equal(job_of(fixture, "wide.weight_packed")->rows_per_tile, 1); /* a row is the least */
    assert_int_equal(job_of(fixture, "wide.weight_packed")->tile_count, 3);
    assert_int_equal(job_of(fixture, "copy")->rows_per_tile, 1 << 20);
    assert_int_equal(job_of(fixture, "copy")->tile_count, 3);
}

static const char experts_rules[] = RULE("re:.*experts\\\\.(gate_up_proj|gate_proj|up_proj|down_proj)$", "mxfp4");

/* hidden 64, intermediate 96, 3 experts, in either orientation */
static void experts_make(struct fixture *fixture, const char *config, bool transposed) {
    checkpoint_make(fixture, config,
                    transposed ? "m.experts.gate_up_proj BF16 3x64x192\nm.experts.down_proj BF16 3x96x64\n"
                               : "m.experts.gate_up_proj BF16 3x192x64\nm.experts.down_proj BF16 3x64x96\n");
}

static void given_fused_experts_in_either_orientation_then_each_projection_has_its_own_rows(void **state) {
    struct fixture *fixture = *state;
    for (int transposed = 0; transposed < 2; transposed++) {
        experts_make(fixture,
                     transposed ? "{\"text_config\": {\"hidden_size\": 64}, \"hidden_size\": 7}"
                                : "{\"hidden_size\": 64}",
                     transposed);
        plan_make(fixture, experts_rules, plain_options);
        assert_int_equal(fixture->plan.module_count, 9);
        assert_int_equal(fixture->plan.output_count, 18);
        for (unsigned e = 0; e < 3; e++)
            for (unsigned p = 0; p < 3; p++) {
                static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
                char module[64], name[80];
                snprintf(module, sizeof module, "m.experts.%u.%s", e, names[p]);
                assert_int_equal(scheme_of(fixture, module), SCHEME_MXFP4);
                snprintf(name, sizeof name, "%s.weight_packed", module);
                const struct plan_output *output = fixture_output(fixture, name);
                const struct plan_job *job = job_of(fixture, name);
                assert_int_equal(output->info.shape[0], p < 2 ? 96 : 64);
                assert_int_equal(output->info.shape[1], p < 2 ? 32 : 48);
                assert_int_equal(job->rows, p < 2 ? 96 : 64);
                assert_int_equal(job->columns, p < 2 ? 64 : 96);
                assert_int_equal(job->expert, e);
                assert_int_equal(job->transposed, transposed);
                assert_string_equal(source_name_of(fixture, job),
                                    p < 2 ? "m.experts.gate_up_proj" : "m.experts.down_proj");
                if (transposed) { /* the first column inside the expert */
                    assert_int_equal(job->first_row, p == 1 ? 96 : 0);
                    assert_int_equal(job->source_columns, p < 2 ? 192 : 64);
                } else { /* the first row of the flattened tensor */
                    assert_int_equal(job->first_row, p < 2 ? e * 192 + p * 96 : e * 64);
                }
            }
        /* cut by size: an expert's projections of one tensor stay together */
        plan_make(fixture, experts_rules, (struct plan_options){.shard_size = 1});
        assert_int_equal(fixture->plan.shard_count, 6);
        assert_int_equal(fixture_output(fixture, "m.experts.1.gate_proj.weight_packed")->shard,
                         fixture_output(fixture, "m.experts.1.up_proj.weight_scale")->shard);
    }
}

static void given_square_experts_then_the_architecture_tells_their_orientation(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *config;
        bool transposed;
    } cases[] = {
        {"{\"hidden_size\": 64, \"model_type\": \"qwen3_5_moe\"}", false},
        {"{\"hidden_size\": 64}", false},
        {"{\"hidden_size\": 64, \"model_type\": \"qwen3_vl_moe\"}", true},
        {"{\"model_type\": \"qwen3_vl_moe\", \"text_config\": {\"hidden_size\": 64, \"model_type\": "
         "\"qwen3_vl_moe_text\"}}",
         true},
        {"{\"text_config\": {\"hidden_size\": 64, \"model_type\": \"llama4_text\"}}", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint_make(fixture, cases[i].config, "m.experts.down_proj BF16 2x64x64\n");
        plan_make(fixture, experts_rules, plain_options);
        assert_int_equal(job_of(fixture, "m.experts.1.down_proj.weight_packed")->transposed, cases[i].transposed);
    }
}

static void given_experts_that_cannot_be_understood_then_they_are_refused(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *config, *shard, *rules, *part;
    } cases[] = {
        {"{}", "m.experts.down_proj BF16 2x64x96\n", experts_rules, "config.json has no hidden_size"},
        {"{\"hidden_size\": 32}", "m.experts.down_proj BF16 2x64x96\n", experts_rules,
         "hidden_size is 32: neither dimension is the hidden one"},
        {"{\"hidden_size\": 64}", "m.experts.gate_up_proj BF16 2x97x64\n", experts_rules, "cannot both have half"},
        {"{\"hidden_size\": 64, \"model_type\": \"gpt_oss\"}", "m.experts.gate_up_proj BF16 2x64x96\n", experts_rules,
         "gpt-oss interleaves"},
        {"{\"hidden_size\": 64}", "m.conv.weight BF16 2x64x96\n", RULE("m.conv", "mxfp4"),
         "not the name of a fused expert weight"},
        {"{\"hidden_size\": 64}", "m.experts.down_proj BF16 2x64x48\n", experts_rules, "not a multiple of the MXFP4"},
        {"{\"hidden_size\": 64}", "m.experts.down_proj BF16 0x64x96\n", experts_rules, "is empty"},
        {"{\"hidden_size\": 64, \"quantization_config\": {\"quant_method\": \"mxfp8\"}}",
         "m.experts.down_proj F8_E4M3 2x96x64\nm.experts.down_proj_scale U8 2x96x2\n", experts_rules,
         "stored as [experts, in, out]: not supported"},
        {BLOCK_CONFIG, "m.experts.gate_up_proj F8_E4M3 2x192x64\nm.experts.gate_up_proj_scale_inv F32 2x2x1\n",
         RULE("re:.*gate_up_proj", "fp8"), "do not end where these do"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint_make(fixture, cases[i].config, cases[i].shard);
        assert_refused(fixture_try_plan(fixture, cases[i].rules, plain_options), STATUS_BAD_INPUT, fixture->error,
                       cases[i].part);
    }
}

static void given_fp8_experts_with_scales_then_each_keeps_exactly_its_own(void **state) {
    struct fixture *fixture = *state;
    checkpoint_make(fixture,
                    "{\"hidden_size\": 64, \"quantization_config\": {\"quant_method\": \"fp8\", "
                    "\"weight_block_size\": [32, 32]}}",
                    "m.experts.gate_up_proj F8_E4M3 3x128x64\nm.experts.gate_up_proj_scale_inv F32 3x4x2\n"
                    "m.experts.down_proj F8_E4M3 3x64x80\nm.experts.down_proj_scale_inv BF16 3x2x3\n");
    plan_make(fixture, RULE("re:.*experts\\\\.", "fp8"), plain_options);
    for (unsigned e = 0; e < 3; e++)
        for (unsigned p = 0; p < 3; p++) {
            static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
            char name[80];
            snprintf(name, sizeof name, "m.experts.%u.%s.weight", e, names[p]);
            const struct plan_job *job = job_of(fixture, name);
            assert_int_equal(job->kind, JOB_COPY);
            assert_int_equal(job->first_row, p < 2 ? (e * 128 + p * 64) * 64 : e * 64 * 80); /* bytes */
            assert_int_equal(job->rows, p < 2 ? 64 * 64 : 64 * 80);
            strcat(name, "_scale");
            const struct plan_output *scale = fixture_output(fixture, name);
            job = job_of(fixture, name);
            assert_int_equal(job->kind, JOB_COPY);
            assert_int_equal(scale->info.dtype, p < 2 ? DTYPE_F32 : DTYPE_BF16);
            assert_int_equal(scale->info.shape[0], 2);
            assert_int_equal(scale->info.shape[1], p < 2 ? 2 : 3);
            assert_int_equal(job->first_row, p < 2 ? (e * 4 + p * 2) * 2 * 4 : e * 2 * 3 * 2);
        }
    assert_int_equal(fixture->plan.block_rows, 32);
    assert_int_equal(fixture->plan.block_columns, 32);
}

static void given_gamma_then_each_projection_gets_the_norm_that_feeds_it(void **state) {
    struct fixture *fixture = *state;
    static const char shard[] = "model.layers.7.input_layernorm.weight BF16 64\n"
                                "model.layers.7.post_attention_layernorm.weight F32 64\n"
                                "model.layers.7.self_attn.q_proj.weight BF16 32x64\n"
                                "model.layers.7.self_attn.o_proj.weight BF16 64x32\n"
                                "model.layers.7.mlp.gate_proj.weight BF16 96x64\n"
                                "model.layers.7.mlp.down_proj.weight BF16 64x96\n";
    static const struct {
        const char *module, *layernorm, *original;
    } cases[] = {
        {"model.layers.7.self_attn.q_proj", "model.layers.7.input_layernorm.weight",
         "model.layers.7.input_layernorm.weight"},
        {"model.layers.7.self_attn.o_proj", NULL, NULL},
        {"model.layers.7.mlp.gate_proj", "model.layers.7.post_attention_layernorm.weight",
         "model.layers.7.input_layernorm.weight"},
        {"model.layers.7.mlp.down_proj", NULL, NULL},
    };
    for (int gamma = 0; gamma < GAMMA_SOURCES; gamma++) {
        checkpoint_make(fixture, "{}", shard);
        plan_make(fixture, RULE("re:.*_proj", "mxfp4"),
                  (struct plan_options){.rule = SCALE_RULE_QSTREAM, .gamma = (enum gamma_source)gamma});
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char name[80];
            snprintf(name, sizeof name, "%s.weight_packed", cases[i].module);
            uint32_t norm = job_of(fixture, name)->gamma;
            const char *wanted = gamma == GAMMA_LAYERNORM  ? cases[i].layernorm
                                 : gamma == GAMMA_ORIGINAL ? cases[i].original
                                                           : NULL;
            assert_int_equal(norm == NO_TENSOR, wanted == NULL);
            if (wanted)
                assert_string_equal(fixture->checkpoint.tensors[norm].info.name, wanted);
        }
    }
    /* four norms a layer: the one before the MLP feeds it, not the one behind the attention */
    checkpoint_make(fixture, "{}",
                    "model.layers.7.post_attention_layernorm.weight BF16 64\n"
                    "model.layers.7.pre_feedforward_layernorm.weight BF16 64\n"
                    "model.layers.7.mlp.up_proj.weight BF16 96x64\n");
    plan_make(fixture, RULE("re:.*_proj", "mxfp4"),
              (struct plan_options){.rule = SCALE_RULE_QSTREAM, .gamma = GAMMA_LAYERNORM});
    assert_string_equal(
        fixture->checkpoint.tensors[job_of(fixture, "model.layers.7.mlp.up_proj.weight_packed")->gamma].info.name,
        "model.layers.7.pre_feedforward_layernorm.weight");
    checkpoint_make(fixture, "{}", "model.layers.7.self_attn.q_proj.weight BF16 32x64\n");
    assert_refused(
        fixture_try_plan(fixture, RULE("re:.*_proj", "mxfp4"), (struct plan_options){.gamma = GAMMA_LAYERNORM}),
        STATUS_BAD_INPUT, fixture->error, "has no layer norm of 64 channels");
}

static void given_what_cannot_be_carried_out_then_it_is_refused_by_name(void **state) {
    struct fixture *fixture = *state;
    static const char fp8_pair[] = "x.weight F8_E4M3 4x32\nx.weight_scale_inv F32 1\n";
    static const struct {
        const char *config, *shard, *rules, *part;
    } cases[] = {
        {"{}", "x.weight BF16 4x48\n", RULE("x", "mxfp4"), "'x' has 48 input channels, not a multiple"},
        {"{}", "x.weight BF16 4x31\n", RULE("x", "mxfp4"), "not a multiple of the MXFP4 block of 32"},
        {"{}", "norm.weight BF16 32\n", RULE("*", "mxfp4"), "wants mxfp4 for 'norm.weight'"},
        {"{}", "norm.weight BF16 32\n", RULE("*", "fp8"), "wants fp8 for 'norm.weight'"},
        {"{}", "x.weight BF16 -\n", RULE("*", "fp8"), "its shape []"},
        {"{}", "x.weight BF16 2x2x4x32\n", RULE("*", "mxfp4"), "make the pattern '*' narrower"},
        {"{}", "x.weight I32 4x32\n", RULE("*", "mxfp4"), "its dtype is I32"},
        {"{}", "x.weight F64 4x32\n", RULE("*", "fp8"), "its dtype is F64"},
        {"{}", "x.weight F8_E5M2 4x32\n", RULE("*", "mxfp4"), "its dtype is F8_E5M2"},
        {"{}", "x.weight BF16 0x32\n", RULE("*", "mxfp4"), "'x.weight' is empty: shape [0, 32]"},
        {"{}", "x.weight BF16 4x0\n", RULE("*", "fp8"), "is empty"},
        {FP8_CONFIG(""), fp8_pair, RULE("x", "keep"), "the recipe keeps 'x.weight', an FP8 weight with a scale"},
        {FP8_CONFIG(""), "y.weight BF16 4x32\nx.weight F8_E4M3 4x32\nx.weight_scale_inv F32 1\n", RULE("y", "keep"),
         "no rule of the recipe matches 'x.weight'"},
        {"{}", "x.weight BF16 4x32\nx.weight_packed U8 4x16\n", RULE("x", "mxfp4"),
         "two tensors of the output would be named 'x.weight_packed'"},
        {"{\"hidden_size\": 64}", "m.experts.down_proj BF16 2x64x32\nm.experts.1.down_proj.weight BF16 64x32\n",
         RULE("re:.*down_proj", "mxfp4"), "two tensors of the output would be named 'm.experts.1.down_proj.weight_"},
        {"{}", "x.weight BF16 4x32\n", RULE("x", "mxfp4") "," RULE("y", "mxfp4"), "rule 2, 'y', matches no weight"},
        {"{}", "x.bias BF16 4x32\n", RULE("re:x", "mxfp4"), "matches no weight"},
        {"{}", "", RULE("x", "mxfp4"), "matches no weight"},
        {"{}", "", "{\"match\": \"x\", \"format\": \"keep\", \"optional\": true}", "holds no tensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint_make(fixture, cases[i].config, cases[i].shard);
        assert_refused(fixture_try_plan(fixture, cases[i].rules, plain_options), STATUS_BAD_INPUT, fixture->error,
                       cases[i].part);
    }
}

static void given_weights_that_no_rule_matches_then_they_are_copied_as_they_are(void **state) {
    struct fixture *fixture = *state;
    checkpoint_make(fixture, "{}",
                    "x.weight BF16 4x32\nodd.weight BF16 4x31\nint.weight I32 4x4\ndeep.weight F64 2x2x2x2x2\n"
                    "x.bias BF16 4\nm.experts.down_proj BF16 2x3x5\n");
    plan_make(fixture, RULE("x", "mxfp4"), plain_options);
    assert_string_equal(outputs_text(fixture),
                        "deep.weight F64 [2, 2, 2, 2, 2]; int.weight I32 [4, 4]; m.experts.down_proj BF16 [2, 3, 5]; "
                        "odd.weight BF16 [4, 31]; x.bias BF16 [4]; x.weight_packed U8 [4, 16]; x.weight_scale U8 [4, "
                        "1]");
    assert_int_equal(scheme_of(fixture, "m.experts.down_proj"), SCHEME_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_each_layout_and_format_then_the_outputs_have_the_documented_names_and_types),
        TEST(given_tensors_of_all_widths_then_wider_ones_come_first_and_names_in_order),
        TEST(given_the_reference_model_then_its_two_groups_and_the_rest_are_planned),
        TEST(given_every_shard_size_then_no_module_is_split_and_the_limit_holds),
        TEST(given_a_limit_that_tensors_fill_exactly_then_they_share_a_shard),
        TEST(given_a_shard_that_becomes_empty_then_it_is_dropped_and_the_rest_renumbered),
        TEST(given_shards_of_the_source_then_their_names_stay),
        TEST(given_large_weights_then_tiles_hold_a_megabyte_of_the_source_at_most),
        TEST(given_fused_experts_in_either_orientation_then_each_projection_has_its_own_rows),
        TEST(given_square_experts_then_the_architecture_tells_their_orientation),
        TEST(given_experts_that_cannot_be_understood_then_they_are_refused),
        TEST(given_fp8_experts_with_scales_then_each_keeps_exactly_its_own),
        TEST(given_gamma_then_each_projection_gets_the_norm_that_feeds_it),
        TEST(given_what_cannot_be_carried_out_then_it_is_refused_by_name),
        TEST(given_weights_that_no_rule_matches_then_they_are_copied_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
