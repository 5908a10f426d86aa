/*
 * The written config.json: the source's bytes but for quantization_config, whose groups describe each module as
 * loaders resolve it, under the checkpoint's names and under those of vLLM.
 */
#include "tests/unit/fixtures.h"

#include "common/json_text.h"
#include "qstream/config.h"

#define RULE(match, format) "{\"match\": \"" match "\", \"format\": \"" format "\"}"

static const struct plan_options options = {.rule = SCALE_RULE_AMAX};

static const char reference_config[] =
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\", \"quantization_status\": "
    "\"compressed\", \"config_groups\": {"
    "\"group_0\": {\"targets\": [\"re:.*language_model\\\\.(model\\\\.)?layers\\\\.\\\\d+\\\\.mlp\\\\.(gate|up|down|"
    "gate_up)_proj$\"],"
    " \"weights\": {\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32, \"symmetric\": "
    "true, \"dynamic\": false, \"scale_dtype\": \"torch.uint8\"},"
    " \"input_activations\": null, \"output_activations\": null, \"format\": \"mxfp4-pack-quantized\"},"
    "\"group_1\": {\"targets\": [\"re:.*language_model\\\\.(model\\\\.)?layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|k|v|o|"
    "qkv)_proj$\"],"
    " \"weights\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", \"symmetric\": true, \"dynamic\": "
    "false},"
    " \"input_activations\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", \"symmetric\": true, "
    "\"dynamic\": false},"
    " \"output_activations\": null, \"format\": \"float-quantized\"}},"
    "\"ignore\": [\"re:.*vision_tower.*\", \"re:.*multi_modal_projector.*\", \"re:.*lm_head$\", "
    "\"re:.*embed_tokens$\"],"
    "\"kv_cache_scheme\": null}";

/* Renders config.json into fixture->text. */
static void config_render(struct fixture *fixture) {
    text_free(&fixture->text);
    assert_ok(config_build(&fixture->plan, &fixture->recipe, &fixture->text, &fixture->error), fixture->error);
}

/* The quantization_config that was written; the caller releases it. */
static json_t *config_of(struct fixture *fixture) {
    config_render(fixture);
    const struct text *text = &fixture->text;
    struct json_member member;
    json_error_t at;
    assert_ok(json_text_check("written", text->bytes, text->length, &fixture->error), fixture->error);
    assert_true(
        json_text_member(text->bytes, json_text_object(text->bytes, text->length), "quantization_config", &member));
    json_t *config = json_loadb(text->bytes + member.value.begin, member.value.end - member.value.begin,
                                JSON_REJECT_DUPLICATES, &at);
    if (!config)
        fail_msg("%s:\n%s", at.text, text->bytes);
    return config;
}

static json_t *config_for(struct fixture *fixture, const char *rules) {
    fixture_plan(fixture, rules, options);
    return config_of(fixture);
}

static void assert_json(const json_t *got, const char *wanted) {
    json_error_t at;
    json_t *want = json_loads(wanted, JSON_DECODE_ANY, &at);
    if (!want)
        fail_msg("the test's own JSON: %s", at.text);
    if (!json_equal(got, want)) {
        char *text = json_dumps(got, JSON_INDENT(1) | JSON_ENCODE_ANY);
        json_decref(want);
        fail_msg("%s\ninstead of\n%s", text, wanted);
    }
    json_decref(want);
}

static const json_t *group_value(const json_t *config, const char *group, const char *member) {
    const json_t *value = json_object_get(json_object_get(json_object_get(config, "config_groups"), group), member);
    if (!value)
        fail_msg("no %s in %s", member, group);
    return value;
}

/* Every module of the plan is matched by the group of its scheme and by no other; schemes number the groups. */
static void assert_groups_fit(const struct fixture *fixture, const json_t *config) {
    char names[SCHEMES][16] = {{0}};
    size_t count = 0;
    for (int scheme = 0; scheme < SCHEMES; scheme++)
        for (size_t m = 0; m < fixture->plan.module_count; m++)
            if ((int)fixture->plan.modules[m].scheme == scheme) {
                snprintf(names[scheme], sizeof names[scheme], "group_%zu", count++);
                break;
            }
    assert_int_equal(json_object_size(json_object_get(config, "config_groups")), count);
    for (size_t m = 0; m < fixture->plan.module_count; m++) {
        const struct scheme_module *module = &fixture->plan.modules[m];
        const char *group = config_group_of(config, module->name);
        const char *wanted = module->scheme == SCHEME_NONE ? "" : names[module->scheme];
        if (module->scheme == SCHEME_NONE ? strncmp(group, "group", 5) == 0 : strcmp(group, wanted) != 0)
            fail_msg("'%s' resolves to '%s', not '%s'", module->name, group, wanted);
    }
}

static void assert_group(const json_t *config, const char *name, const char *wanted) {
    const char *group = config_group_of(config, name);
    if (strcmp(group, wanted) != 0)
        fail_msg("'%s' resolves to '%s', not '%s'", name, group, wanted);
}

static void given_the_reference_model_then_the_config_is_the_documented_one(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 12);
    json_t *config = config_for(fixture, reference_rules);
    assert_json(config, reference_config);
    assert_groups_fit(fixture, config);
    json_decref(config);
}

static void given_the_reference_model_then_both_namespaces_and_fused_names_resolve(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 2);
    json_t *config = config_for(fixture, reference_rules);
    static const char *const prefixes[] = {"model.language_model.layers.", "language_model.model.layers.",
                                           "language_model.layers."};
    for (size_t p = 0; p < 3; p++)
        for (int layer = 0; layer < 90; layer += 7) {
            static const struct {
                const char *leaf, *group;
            } leaves[] = {
                {"mlp.gate_proj", "group_0"},
                {"mlp.up_proj", "group_0"},
                {"mlp.down_proj", "group_0"},
                {"mlp.gate_up_proj", "group_0"},
                {"self_attn.q_proj", "group_1"},
                {"self_attn.k_proj", "group_1"},
                {"self_attn.v_proj", "group_1"},
                {"self_attn.o_proj", "group_1"},
                {"self_attn.qkv_proj", "group_1"},
                {"mlp", ""},
                {"self_attn", ""},
                {"self_attn.attn", ""},
                {"mlp.act_fn", ""},
                {"mlp.gate_projx", ""},
                {"mlp.xgate_proj", ""},
                {"input_layernorm", ""},
                {"mlp.experts.0.gate_proj", ""},
                {"self_attn.gate_proj", ""},
                {"mlp.q_proj", ""},
            };
            for (size_t l = 0; l < sizeof leaves / sizeof *leaves; l++) {
                char name[128];
                snprintf(name, sizeof name, "%s%d.%s", prefixes[p], layer, leaves[l].leaf);
                assert_group(config, name, leaves[l].group);
            }
        }
    assert_group(config, "vision_tower.transformer.layers.0.attention.q_proj", "ignore");
    assert_group(config, "model.vision_tower.transformer.layers.0.feed_forward.gate_proj", "ignore");
    assert_group(config, "multi_modal_projector.linear_1", "ignore");
    assert_group(config, "language_model.lm_head", "ignore");
    assert_group(config, "language_model.model.embed_tokens", "ignore");
    json_decref(config);
}

static void given_a_source_config_then_every_other_byte_of_it_stays(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 1);
    fixture_plan(fixture, reference_rules, options);
    config_render(fixture);
    static const char before[] = "{\n  \"model_type\": \"mistral3\",\n  \"quantization_config\": {",
                      after[] = "},\n  \"text_config\": {\"hidden_size\": 64, \"big\": "
                                "1000000000000000019884624838656}\n}\n";
    assert_memory_equal(fixture->text.bytes, before, strlen(before));
    assert_true(text_ends_with(fixture->text.bytes, after));
    assert_null(strstr(fixture->text.bytes, "weight_block_size"));
}

static const char llama_shard[] = "model.embed_tokens.weight BF16 64x64\nmodel.norm.weight BF16 64\n"
                                  "lm_head.weight BF16 64x64\n";

static void llama_write(struct fixture *fixture, int layers, const char *config) {
    struct text shard = {0};
    text_append_string(&shard, llama_shard);
    for (int layer = 0; layer < layers; layer++)
        for (int p = 0; p < REFERENCE_PROJECTIONS; p++)
            text_printf(&shard, "model.layers.%d.%s.weight BF16 32x32\n", layer, reference_projections[p]);
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", config);
    fixture_shard(fixture, "model.safetensors", shard.bytes);
    text_free(&shard);
}

static void given_a_plain_llama_then_one_namespace_and_dynamic_channels(void **state) {
    struct fixture *fixture = *state;
    llama_write(fixture, 12, "{\"model_type\": \"llama\"}");
    json_t *config = config_for(fixture, llama_rules);
    assert_groups_fit(fixture, config);
    assert_json(group_value(config, "group_0", "targets"),
                "[\"re:model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.(gate|up|down|gate_up)_proj$\"]");
    assert_json(group_value(config, "group_1", "targets"),
                "[\"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|k|v|o|qkv)_proj$\"]");
    assert_json(group_value(config, "group_1", "weights"),
                "{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"channel\", \"symmetric\": true, \"dynamic\": "
                "false}");
    assert_json(group_value(config, "group_1", "input_activations"),
                "{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"token\", \"symmetric\": true, \"dynamic\": "
                "true}");
    assert_json(json_object_get(config, "ignore"), "[\"re:.*lm_head$\", \"re:.*embed_tokens$\"]");
    assert_json(json_object_get(config, "format"), "\"mixed-precision\"");
    assert_group(config, "model.layers.31.mlp.gate_up_proj", "group_0");
    assert_group(config, "model.layers.31.self_attn.qkv_proj", "group_1");
    json_decref(config);
    /* the config had none: it was added */
    assert_true(strncmp(fixture->text.bytes, "{\"model_type\": \"llama\",\n  \"quantization_config\": {", 50) == 0);
}

static void given_one_format_only_then_it_is_the_format_of_the_whole(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *format, *wanted;
    } cases[] = {{"mxfp4", "\"mxfp4-pack-quantized\""},
                 {"fp8", "\"float-quantized\""},
                 {"fp8\", \"strategy\": \"tensor", "\"float-quantized\""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rules[128];
        llama_write(fixture, 2, "{}");
        snprintf(rules, sizeof rules, RULE("re:.*_proj$", "%s"), cases[i].format);
        json_t *config = config_for(fixture, rules);
        assert_groups_fit(fixture, config);
        assert_json(json_object_get(config, "format"), cases[i].wanted);
        assert_json(json_object_get(config, "ignore"), "[]");
        assert_json(json_object_get(config, "quantization_status"), "\"compressed\"");
        json_decref(config);
    }
    /* two groups of one format are no mixture; three of two are */
    llama_write(fixture, 2, "{}");
    json_t *config =
        config_for(fixture, RULE("re:.*mlp", "fp8") "," RULE("re:.*attn", "fp8\", \"strategy\": \"tensor"));
    assert_groups_fit(fixture, config);
    assert_json(json_object_get(config, "format"), "\"float-quantized\"");
    json_decref(config);
    llama_write(fixture, 2, "{}");
    config = config_for(fixture, RULE("re:.*down", "mxfp4") "," RULE("re:.*mlp", "fp8") "," RULE(
                                     "re:.*attn", "fp8\", \"strategy\": \"tensor"));
    assert_groups_fit(fixture, config);
    assert_json(json_object_get(config, "format"), "\"mixed-precision\"");
    json_decref(config);
}

static void given_nothing_quantized_then_the_config_is_the_source_s(void **state) {
    struct fixture *fixture = *state;
    llama_write(fixture, 1, "{\"a\": NaN}\n");
    fixture_plan(fixture, RULE("*", "keep"), options);
    config_render(fixture);
    assert_string_equal(fixture->text.bytes, "{\"a\": NaN}\n");
}

static void given_only_some_layers_then_the_patterns_name_exactly_those(void **state) {
    struct fixture *fixture = *state;
    static const char *const rules[] = {
        RULE("re:model\\\\.layers\\\\.(1|11)\\\\.mlp", "mxfp4"),
        RULE("re:model\\\\.layers\\\\.[2-9]\\\\.mlp", "mxfp4") "," RULE("re:.*self_attn", "fp8"),
        RULE("re:model\\\\.layers\\\\.1\\\\.", "mxfp4") "," RULE("re:model\\\\.layers\\\\.1", "fp8"),
        /* no single shape of pattern says this */
        RULE("re:.*\\\\.[02468]\\\\.mlp\\\\.gate_proj", "mxfp4") "," RULE("re:.*\\\\.[13579]\\\\.mlp\\\\.up_proj",
                                                                          "mxfp4"),
        RULE("model.layers.3.mlp.down_proj", "mxfp4"),
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        llama_write(fixture, 13, "{}");
        json_t *config = config_for(fixture, rules[i]);
        assert_groups_fit(fixture, config);
        if (i == 0) {
            assert_json(group_value(config, "group_0", "targets"),
                        "[\"re:model\\\\.layers\\\\.(1|11)\\\\.mlp\\\\.(gate|up|down|gate_up)_proj$\"]");
            assert_group(config, "model.layers.11.mlp.gate_up_proj", "group_0");
            assert_group(config, "model.layers.12.mlp.gate_up_proj", "");
            assert_group(config, "model.layers.111.mlp.gate_proj", "");
        }
        if (i == 4)
            assert_int_equal(json_array_size(group_value(config, "group_0", "targets")), 1);
        json_decref(config);
    }
}

static void given_some_layers_of_the_reference_model_then_both_namespaces_agree(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 3);
    json_t *config = config_for(
        fixture, RULE("re:.*layers\\\\.1\\\\.mlp", "mxfp4") "," RULE("re:.*language_model\\\\.layers.*_proj$", "fp8"));
    assert_groups_fit(fixture, config);
    for (int layer = 0; layer < 3; layer++) {
        char name[100];
        const char *wanted = layer == 1 ? "group_0" : "group_1";
        snprintf(name, sizeof name, "language_model.model.layers.%d.mlp.gate_up_proj", layer);
        assert_group(config, name, wanted);
        snprintf(name, sizeof name, "language_model.model.layers.%d.mlp.down_proj", layer);
        assert_group(config, name, wanted);
        snprintf(name, sizeof name, "language_model.model.layers.%d.self_attn.qkv_proj", layer);
        assert_group(config, name, "group_1");
    }
    json_decref(config);
}

static void given_experts_one_by_one_then_routers_stay_out_and_no_fused_name_is_added(void **state) {
    struct fixture *fixture = *state;
    struct text shard = {0};
    text_append_string(&shard, llama_shard);
    for (int layer = 0; layer < 3; layer++) {
        text_printf(&shard, "model.layers.%d.mlp.gate.weight BF16 4x64\n", layer);
        for (int p = 0; p < 4; p++)
            text_printf(&shard, "model.layers.%d.%s.weight BF16 64x64\n", layer, reference_projections[p]);
        for (int e = 0; e < 11; e++)
            for (int p = 4; p < REFERENCE_PROJECTIONS; p++)
                text_printf(&shard, "model.layers.%d.mlp.experts.%d.%s.weight BF16 32x32\n", layer, e,
                            reference_projections[p] + 4);
    }
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", shard.bytes);
    text_free(&shard);
    json_t *config =
        config_for(fixture, RULE("re:.*lm_head$", "keep") "," RULE("re:.*embed_tokens$", "keep") "," RULE(
                                "re:.*\\\\.mlp\\\\.gate$", "keep") "," RULE("re:.*experts\\\\.",
                                                                            "mxfp4") "," RULE("re:.*_proj$", "fp8"));
    assert_groups_fit(fixture, config);
    assert_json(group_value(config, "group_0", "targets"),
                "[\"re:model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.experts\\\\.\\\\d+\\\\.(gate|up|down)_proj$\"]");
    assert_json(json_object_get(config, "ignore"),
                "[\"re:.*lm_head$\", \"re:.*embed_tokens$\", \"re:.*\\\\.mlp\\\\.gate$\"]");
    assert_group(config, "model.layers.0.mlp.gate", "ignore");
    assert_group(config, "model.layers.2.mlp.experts.127.down_proj", "group_0");
    assert_group(config, "model.layers.2.mlp.experts", "");
    json_decref(config);
}

static void given_fused_experts_then_the_targets_name_the_modules_they_become(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{\"hidden_size\": 64}");
    fixture_shard(fixture, "model.safetensors",
                  "model.language_model.layers.0.mlp.experts.gate_up_proj BF16 2x64x64\n"
                  "model.language_model.layers.0.mlp.experts.down_proj BF16 2x64x32\n"
                  "model.language_model.layers.0.mlp.shared_expert.gate_proj.weight BF16 64x64\n"
                  "model.language_model.layers.0.mlp.shared_expert.up_proj.weight BF16 64x64\n");
    json_t *config = config_for(fixture, RULE("re:.*expert", "mxfp4"));
    assert_groups_fit(fixture, config);
    assert_group(config, "model.language_model.layers.9.mlp.experts.1.gate_proj", "group_0");
    assert_group(config, "language_model.model.layers.9.mlp.experts.63.down_proj", "group_0");
    assert_group(config, "language_model.model.layers.9.mlp.shared_expert.gate_up_proj", "group_0");
    assert_group(config, "language_model.model.layers.9.mlp.shared_expert.down_proj", "");
    json_decref(config);
}

static void given_each_fp8_source_that_stays_then_its_scheme_describes_it(void **state) {
    struct fixture *fixture = *state;
#define COMPRESSED(body)                                                                                               \
    "\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 8, \"type\": "  \
    "\"float\", " body "}}}"
#define ARGS(body) "{\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, " body "}"
    static const struct {
        const char *config, *companions, *weights, *inputs, *format;
    } cases[] = {
        {"\"quant_method\": \"fp8\"", "x.weight_scale_inv F32 1\nx.activation_scale F32 1\n",
         ARGS("\"strategy\": \"tensor\", \"dynamic\": false"), ARGS("\"strategy\": \"tensor\", \"dynamic\": false"),
         "\"float-quantized\""},
        {"\"quant_method\": \"fp8\"", "x.weight_scale_inv F32 1\n",
         ARGS("\"strategy\": \"tensor\", \"dynamic\": false"), ARGS("\"strategy\": \"token\", \"dynamic\": true"),
         "\"float-quantized\""},
        {COMPRESSED("\"strategy\": \"channel\""), "x.weight_scale F32 96x1\n",
         ARGS("\"strategy\": \"channel\", \"dynamic\": false"), ARGS("\"strategy\": \"token\", \"dynamic\": true"),
         "\"float-quantized\""},
        {COMPRESSED("\"strategy\": \"channel\""), "x.weight_scale F32 96x1\nx.input_scale F32 1\n",
         ARGS("\"strategy\": \"channel\", \"dynamic\": false"), ARGS("\"strategy\": \"tensor\", \"dynamic\": false"),
         "\"float-quantized\""},
        {"\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]", "x.weight_scale_inv F32 2x1\n",
         ARGS("\"strategy\": \"block\", \"block_structure\": [64, 128], \"dynamic\": false"),
         ARGS("\"strategy\": \"group\", \"group_size\": 128, \"dynamic\": true"), "\"float-quantized\""},
        {"\"quant_method\": \"mxfp8\"", "x.weight_scale_inv U8 96x4\n",
         ARGS("\"strategy\": \"group\", \"group_size\": 32, \"dynamic\": false, \"scale_dtype\": \"torch.uint8\""),
         ARGS("\"strategy\": \"group\", \"group_size\": 32, \"dynamic\": true, \"scale_dtype\": \"torch.uint8\""),
         "\"mxfp8-quantized\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char config_text[300], shard[200];
        fixture_clear(fixture);
        snprintf(config_text, sizeof config_text, "{\"quantization_config\": {%s}}", cases[i].config);
        snprintf(shard, sizeof shard, "x.weight F8_E4M3 96x128\n%s", cases[i].companions);
        fixture_file(fixture, "config.json", config_text);
        fixture_shard(fixture, "model.safetensors", shard);
        json_t *config = config_for(fixture, RULE("x", "fp8"));
        assert_groups_fit(fixture, config);
        assert_json(group_value(config, "group_0", "weights"), cases[i].weights);
        assert_json(group_value(config, "group_0", "input_activations"), cases[i].inputs);
        assert_json(group_value(config, "group_0", "output_activations"), "null");
        assert_json(group_value(config, "group_0", "format"), cases[i].format);
        assert_json(json_object_get(config, "format"), cases[i].format);
        assert_json(group_value(config, "group_0", "targets"), "[\"re:x$\"]");
        json_decref(config);
    }
}

static void given_keep_rules_then_only_harmless_regular_expressions_that_matched_are_ignored(void **state) {
    struct fixture *fixture = *state;
    llama_write(fixture, 2, "{}");
    json_t *config =
        config_for(fixture, RULE("lm_head", "keep") "," /* a glob */
                   RULE("re:.*embed_tokens",
                        "keep") ","
                                "{\"match\": \"re:nothing\", \"format\": \"keep\", \"optional\": true}," RULE(
                                    "re:.*0\\\\.mlp\\\\.gate_proj$",
                                    "mxfp4") "," RULE("re:.*mlp\\\\.gate",
                                                      "keep") "," /* would touch layer 0's gate, which is quantized */
                   RULE("re:.*\\\\.up_proj", "keep"));
    assert_groups_fit(fixture, config);
    assert_json(json_object_get(config, "ignore"), "[\"re:.*embed_tokens\", \"re:.*\\\\.up_proj\"]");
    json_decref(config);
}

static void given_a_nested_quantization_config_then_it_moves_to_the_top(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json",
                 "{\"text_config\": {\"a\": 1, \"quantization_config\": {\"quant_method\": \"fp8\"}}, \"b\": 2}");
    fixture_shard(fixture, "model.safetensors", "x.weight F8_E4M3 32x32\nx.weight_scale F32 1\n");
    json_t *config = config_for(fixture, RULE("x", "mxfp4"));
    assert_groups_fit(fixture, config);
    json_decref(config);
    static const char start[] = "{\"text_config\": {\"a\": 1}, \"b\": 2,\n  \"quantization_config\": {\n";
    assert_memory_equal(fixture->text.bytes, start, strlen(start));
}

static void given_a_nested_quantization_config_below_another_then_both_go(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json",
                 "{\"text_config\": {\"quantization_config\": {\"quant_method\": \"fp8\"}}, "
                 "\"quantization_config\": {\"quant_method\": \"fp8\"}}");
    fixture_shard(fixture, "model.safetensors", "x.weight F8_E4M3 32x32\nx.weight_scale F32 1\n");
    fixture_plan(fixture, RULE("x", "mxfp4"), options);
    config_render(fixture);
    if (strstr(fixture->text.bytes, "\"fp8\"")) /* it would describe weights that are no longer there */
        fail_msg("the source's own description is left: %s", fixture->text.bytes);
}

static void given_names_with_special_characters_then_patterns_take_them_literally(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors",
                  "m+(x).a-b.weight BF16 32x32\nmm(x).a-b.weight BF16 32x32\n\xc3\xa9.layers.0.w*.weight BF16 32x32\n"
                  "e.layers.0.w*.weight BF16 32x32\n\xc3\xa9.layers.0.ww.weight BF16 32x32\nm|$.x.weight BF16 32x32\n");
    json_t *config =
        config_for(fixture, RULE("m+*", "mxfp4") "," RULE("\xc3\xa9.layers.0.w\\\\*", "mxfp4") "," RULE("m|*", "fp8"));
    assert_groups_fit(fixture, config);
    assert_json(json_array_get(group_value(config, "group_0", "targets"), 0), "\"re:m\\\\+\\\\(x\\\\)\\\\.a\\\\-b$\"");
    assert_group(config, "m+(x).a-b", "group_0");
    assert_group(config, "\xc3\xa9.layers.0.w*", "group_0");
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_the_reference_model_then_the_config_is_the_documented_one),
        TEST(given_the_reference_model_then_both_namespaces_and_fused_names_resolve),
        TEST(given_a_source_config_then_every_other_byte_of_it_stays),
        TEST(given_a_plain_llama_then_one_namespace_and_dynamic_channels),
        TEST(given_one_format_only_then_it_is_the_format_of_the_whole),
        TEST(given_nothing_quantized_then_the_config_is_the_source_s),
        TEST(given_only_some_layers_then_the_patterns_name_exactly_those),
        TEST(given_some_layers_of_the_reference_model_then_both_namespaces_agree),
        TEST(given_experts_one_by_one_then_routers_stay_out_and_no_fused_name_is_added),
        TEST(given_fused_experts_then_the_targets_name_the_modules_they_become),
        TEST(given_each_fp8_source_that_stays_then_its_scheme_describes_it),
        TEST(given_keep_rules_then_only_harmless_regular_expressions_that_matched_are_ignored),
        TEST(given_a_nested_quantization_config_then_it_moves_to_the_top),
        TEST(given_a_nested_quantization_config_below_another_then_both_go),
        TEST(given_names_with_special_characters_then_patterns_take_them_literally),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
