/*
 * Layouts: every way a source stores its weights is told, companions are found wherever they lie, and where the
 * config and the tensors contradict each other, the error names both.
 */
#include "tests/unit/fixtures.h"

#define FP8 "\"quant_method\": \"fp8\""
#define STATIC FP8 ", \"activation_scheme\": \"static\""
#define DYNAMIC FP8 ", \"activation_scheme\": \"dynamic\""
#define BLOCK DYNAMIC ", \"weight_block_size\": [128, 128]"
#define WEIGHTS(body) "\"weights\": {\"num_bits\": 8, \"type\": \"float\", " body "}"
#define GROUP(body) "\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"group_0\": {" WEIGHTS(body) "}}"

/* Writes a checkpoint of two shards and detects its layout. `quantization` is the inside of quantization_config. */
static enum status detect(struct fixture *fixture, const char *quantization, const char *first, const char *second) {
    fixture_clear(fixture);
    char *config = quantization ? text_format("{\"quantization_config\": {%s}}", quantization) : strdup("{}");
    assert_non_null(config);
    fixture_file(fixture, "config.json", config);
    free(config);
    fixture_shard(fixture, "1.safetensors", first);
    fixture_shard(fixture, "2.safetensors", second);
    fixture_open(fixture);
    return layout_detect(&fixture->checkpoint, &fixture->layout, &fixture->error);
}

static const struct tensor_layout *layout_of(const struct fixture *fixture, const char *name) {
    const struct tensor *tensor = checkpoint_find(&fixture->checkpoint, name);
    assert_non_null(tensor);
    return &fixture->layout.tensors[tensor - fixture->checkpoint.tensors];
}

static uint32_t number_of(const struct fixture *fixture, const char *name) {
    return name ? (uint32_t)(checkpoint_find(&fixture->checkpoint, name) - fixture->checkpoint.tensors) : NO_TENSOR;
}

static void given_each_layout_with_its_companions_in_another_shard_then_it_is_detected(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *config, *first, *second, *weight, *scale, *input_scale;
        enum scaling scaling;
        uint32_t block_rows, block_columns;
    } cases[] = {
        /* plain */
        {NULL, "x.weight BF16 64x32\n", "y.weight F32 4\n", "x.weight", NULL, NULL, SCALING_NONE, 0, 0},
        {NULL, "x.weight F16 64x32\n", "", "x.weight", NULL, NULL, SCALING_NONE, 0, 0},
        {NULL, "x.weight F32 64x32\n", "", "x.weight", NULL, NULL, SCALING_NONE, 0, 0},
        /* per tensor, static, as the reference model: F32 or BF16, [] or [1] */
        {STATIC ", \"weight_block_size\": null", "x.weight F8_E4M3 64x32\n",
         "x.weight_scale_inv BF16 -\nx.activation_scale BF16 -\n", "x.weight", "x.weight_scale_inv",
         "x.activation_scale", SCALING_TENSOR, 128, 128},
        {STATIC, "x.weight_scale_inv F32 1\n", "x.weight F8_E4M3 64x32\nx.activation_scale F32 1\n", "x.weight",
         "x.weight_scale_inv", "x.activation_scale", SCALING_TENSOR, 128, 128},
        {STATIC, "x.weight_scale F32 -\nx.input_scale F32 1\n", "x.weight F8_E4M3 1x1\n", "x.weight", "x.weight_scale",
         "x.input_scale", SCALING_TENSOR, 128, 128},
        /* per tensor, dynamic, and with nothing said */
        {DYNAMIC, "x.weight F8_E4M3 64x32\n", "x.weight_scale_inv F32 -\n", "x.weight", "x.weight_scale_inv", NULL,
         SCALING_TENSOR, 128, 128},
        {FP8, "x.weight F8_E4M3 64x32\n", "x.weight_scale_inv F32 -\n", "x.weight", "x.weight_scale_inv", NULL,
         SCALING_TENSOR, 128, 128},
        {FP8, "x.weight F8_E4M3 64x32\n", "x.weight_scale_inv F32 -\nx.input_scale F32 -\n", "x.weight",
         "x.weight_scale_inv", "x.input_scale", SCALING_TENSOR, 128, 128},
        /* 128x128 blocks, with edges, one block, other sizes */
        {BLOCK, "x.weight F8_E4M3 256x384\n", "x.weight_scale_inv F32 2x3\n", "x.weight", "x.weight_scale_inv", NULL,
         SCALING_BLOCK, 128, 128},
        {BLOCK, "x.weight F8_E4M3 257x300\n", "x.weight_scale_inv BF16 3x3\n", "x.weight", "x.weight_scale_inv", NULL,
         SCALING_BLOCK, 128, 128},
        {BLOCK, "x.weight F8_E4M3 64x64\n", "x.weight_scale_inv F32 1x1\n", "x.weight", "x.weight_scale_inv", NULL,
         SCALING_BLOCK, 128, 128},
        {DYNAMIC ", \"weight_block_size\": [64, 32]", "x.weight F8_E4M3 128x96\n", "x.weight_scale_inv F32 2x3\n",
         "x.weight", "x.weight_scale_inv", NULL, SCALING_BLOCK, 64, 32},
        {BLOCK, "x.weight F8_E4M3 256x128\n", "x.weight_scale_inv F8_E8M0 2x1\n", "x.weight", "x.weight_scale_inv",
         NULL, SCALING_BLOCK, 128, 128},
        /* MXFP8, by its own method and by a block of 1x32 */
        {"\"quant_method\": \"mxfp8\"", "x.weight F8_E4M3 64x96\n", "x.weight_scale_inv U8 64x3\n", "x.weight",
         "x.weight_scale_inv", NULL, SCALING_MX, 128, 128},
        {FP8 ", \"weight_block_size\": [1, 32]", "x.weight F8_E4M3 64x96\n", "x.weight_scale F8_E8M0 64x3\n",
         "x.weight", "x.weight_scale", NULL, SCALING_MX, 1, 32},
        /* compressed-tensors */
        {GROUP("\"strategy\": \"channel\""), "x.weight F8_E4M3 64x32\n", "x.weight_scale BF16 64x1\n", "x.weight",
         "x.weight_scale", NULL, SCALING_CHANNEL, 128, 128},
        {GROUP("\"strategy\": \"channel\""), "x.weight F8_E4M3 64x32\n", "x.weight_scale F32 64\n", "x.weight",
         "x.weight_scale", NULL, SCALING_CHANNEL, 128, 128},
        {GROUP("\"strategy\": \"tensor\""), "x.weight F8_E4M3 64x32\n", "x.weight_scale F32 1\nx.input_scale BF16 1\n",
         "x.weight", "x.weight_scale", "x.input_scale", SCALING_TENSOR, 128, 128},
        {GROUP("\"strategy\": \"tensor\""), "x.weight F8_E4M3 64x32\n", "x.weight_scale F32 1x1\n", "x.weight",
         "x.weight_scale", NULL, SCALING_TENSOR, 128, 128},
        {GROUP("\"strategy\": \"block\", \"block_structure\": [32, 64]"), "x.weight F8_E4M3 64x64\n",
         "x.weight_scale F32 2x1\n", "x.weight", "x.weight_scale", NULL, SCALING_BLOCK, 32, 64},
        {GROUP("\"strategy\": \"group\", \"group_size\": 32"), "x.weight F8_E4M3 64x64\n", "x.weight_scale U8 64x2\n",
         "x.weight", "x.weight_scale", NULL, SCALING_MX, 128, 128},
        /* experts in one tensor, its name with and without the ending */
        {BLOCK, "m.experts.gate_up_proj F8_E4M3 4x256x128\n", "m.experts.gate_up_proj_scale_inv F32 4x2x1\n",
         "m.experts.gate_up_proj", "m.experts.gate_up_proj_scale_inv", NULL, SCALING_BLOCK, 128, 128},
        {BLOCK, "m.experts.down_proj.weight F8_E4M3 4x130x128\n", "m.experts.down_proj.weight_scale_inv F32 4x2x1\n",
         "m.experts.down_proj.weight", "m.experts.down_proj.weight_scale_inv", NULL, SCALING_BLOCK, 128, 128},
        {STATIC, "m.experts.down_proj F8_E4M3 4x130x128\n",
         "m.experts.down_proj_scale F32 -\nm.experts.down_proj_input_scale F32 -\n", "m.experts.down_proj",
         "m.experts.down_proj_scale", "m.experts.down_proj_input_scale", SCALING_TENSOR, 128, 128},
        {"\"quant_method\": \"mxfp8\"", "m.experts.down_proj F8_E4M3 4x8x64\n", "m.experts.down_proj_scale U8 4x8x2\n",
         "m.experts.down_proj", "m.experts.down_proj_scale", NULL, SCALING_MX, 128, 128},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (detect(fixture, cases[i].config, cases[i].first, cases[i].second) != STATUS_OK)
            fail_msg("case %zu: %s", i, fixture->error.message);
        const struct tensor_layout *layout = layout_of(fixture, cases[i].weight);
        if (layout->scaling != cases[i].scaling)
            fail_msg("case %zu: scaling %d", i, layout->scaling);
        assert_int_equal(layout->scale, number_of(fixture, cases[i].scale));
        assert_int_equal(layout->input_scale, number_of(fixture, cases[i].input_scale));
        assert_int_equal(layout->owner, NO_TENSOR);
        if (cases[i].scale)
            assert_int_equal(layout_of(fixture, cases[i].scale)->owner, number_of(fixture, cases[i].weight));
        if (cases[i].input_scale)
            assert_int_equal(layout_of(fixture, cases[i].input_scale)->owner, number_of(fixture, cases[i].weight));
        if (cases[i].scaling == SCALING_BLOCK) {
            assert_int_equal(layout->block_rows, cases[i].block_rows);
            assert_int_equal(layout->block_columns, cases[i].block_columns);
        }
        assert_int_equal(fixture->layout.quantization_config != NULL, cases[i].config != NULL);
    }
}

static void given_a_mixture_of_layouts_then_each_weight_has_its_own(void **state) {
    struct fixture *fixture = *state;
    assert_ok(detect(fixture,
                     "\"quant_method\": \"compressed-tensors\", \"config_groups\": {"
                     "\"a\": {" WEIGHTS(
                         "\"strategy\": \"channel\"") "},"
                                                      "\"b\": {" WEIGHTS(
                                                          "\"strategy\": \"tensor\"") "},"
                                                                                      "\"c\": {" WEIGHTS(
                                                                                          "\"strategy\": \"group\", "
                                                                                          "\"group_size\": 32") "}}",
                     "a.weight F8_E4M3 8x32\na.weight_scale BF16 8x1\nb.weight F8_E4M3 8x32\nb.weight_scale F32 1\n",
                     "c.weight F8_E4M3 8x32\nc.weight_scale U8 8x1\nd.weight BF16 8x32\nd.bias BF16 8\n"),
              fixture->error);
    assert_int_equal(layout_of(fixture, "a.weight")->scaling, SCALING_CHANNEL);
    assert_int_equal(layout_of(fixture, "b.weight")->scaling, SCALING_TENSOR);
    assert_int_equal(layout_of(fixture, "c.weight")->scaling, SCALING_MX);
    assert_int_equal(layout_of(fixture, "d.weight")->scaling, SCALING_NONE);
    assert_int_equal(layout_of(fixture, "d.weight")->scale, NO_TENSOR);
    assert_int_equal(layout_of(fixture, "d.bias")->owner, NO_TENSOR);
}

static void given_a_contradiction_then_the_error_names_both_sides(void **state) {
    struct fixture *fixture = *state;
    static const char weight[] = "x.weight F8_E4M3 256x256\n";
    static const struct {
        const char *config, *first, *second, *part, *part2;
    } cases[] = {
        {NULL, weight, "x.weight_scale_inv F32 -\n", "no quantization_config", "'x.weight' is F8_E4M3"},
        {FP8, "x.weight BF16 4x4\n", "", "the weights are quantized (quant_method fp8", "no tensor is F8_E4M3"},
        {BLOCK, weight, "x.weight_scale_inv F32 -\n", "weight_block_size [128, 128]",
         "'x.weight' of shape [256, 256] has the scale 'x.weight_scale_inv' of shape [] and dtype F32"},
        {BLOCK, weight, "x.weight_scale_inv F32 2x1\n", "weight_block_size [128, 128]", "shape [2, 1]"},
        {BLOCK, weight, "x.weight_scale_inv F32 4\n", "weight_block_size [128, 128]", "shape [4]"},
        {BLOCK, weight, "x.weight_scale_inv I32 2x2\n", "weight_block_size [128, 128]", "dtype I32"},
        {FP8, weight, "x.weight_scale_inv F32 2x2\n", "without weight_block_size", "shape [2, 2]"},
        {FP8, weight, "x.weight_scale F32 256x1\n", "without weight_block_size", "shape [256, 1]"},
        {FP8, weight, "x.weight_scale_inv U8 256x8\n", "without weight_block_size", "dtype U8"},
        {FP8, weight, "x.weight_scale_inv F64 -\n", "without weight_block_size", "dtype F64"},
        {FP8, weight, "x.weight_scale_inv F32 0\n", "without weight_block_size", "shape [0]"},
        {"\"quant_method\": \"mxfp8\"", weight, "x.weight_scale_inv F32 256x8\n", "quant_method mxfp8", "dtype F32"},
        {"\"quant_method\": \"mxfp8\"", weight, "x.weight_scale_inv U8 256x4\n", "blocks of 1x32", "shape [256, 4]"},
        {"\"quant_method\": \"mxfp8\"", "x.weight F8_E4M3 4x33\n", "x.weight_scale_inv U8 4x1\n", "mxfp8", "[4, 33]"},
        {GROUP("\"strategy\": \"channel\""), weight, "x.weight_scale F32 1\n", "config groups", "shape [1]"},
        {GROUP("\"strategy\": \"tensor\""), weight, "x.weight_scale F32 256x1\n", "config groups", "shape [256, 1]"},
        {GROUP("\"strategy\": \"channel\""), "m.experts.down_proj F8_E4M3 2x4x32\n",
         "m.experts.down_proj_scale F32 4x1\n", "config groups", "'m.experts.down_proj' of shape [2, 4, 32]"},
        {BLOCK, "m.experts.down_proj F8_E4M3 2x4x32\n", "m.experts.down_proj_scale_inv F32 1x1x1\n",
         "weight_block_size", "shape [1, 1, 1]"},
        {STATIC, weight, "x.weight_scale_inv F32 -\n", "activation_scheme static",
         "'x.weight' has no activation_scale"},
        {DYNAMIC, weight, "x.weight_scale_inv F32 -\nx.activation_scale F32 -\n", "activation_scheme dynamic",
         "there is 'x.activation_scale'"},
        {STATIC, weight, "x.weight_scale_inv F32 -\nx.activation_scale F32 2\n", "'x.activation_scale' is not one", ""},
        {STATIC, weight, "x.weight_scale_inv F32 -\nx.activation_scale I32 1\n", "'x.activation_scale' is not one", ""},
        {FP8, weight, "x.weight_scale_inv F32 -\nx.weight_scale F32 -\n", "'x.weight' has two scales",
         "'x.weight_scale_inv' and 'x.weight_scale'"},
        {FP8, weight, "x.weight_scale_inv F32 -\nx.activation_scale F32 -\nx.input_scale F32 -\n",
         "'x.activation_scale' and 'x.input_scale'", ""},
        {FP8, weight, "y.weight BF16 1\n", "'x.weight' has no scale", "'x.weight_scale_inv'"},
        {FP8, "m.experts.down_proj F8_E4M3 2x4x32\n", "", "'m.experts.down_proj' has no scale",
         "'m.experts.down_proj_scale_inv'"},
        {FP8, "x.weight F8_E4M3 32\n", "x.weight_scale_inv F32 -\n", "'x.weight' has 1 dimensions", ""},
        {FP8, "x.weight F8_E4M3 2x2x2x2\n", "x.weight_scale_inv F32 -\n", "'x.weight' has 4 dimensions", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(detect(fixture, cases[i].config, cases[i].first, cases[i].second), STATUS_BAD_INPUT,
                       fixture->error, cases[i].part);
        assert_contains(fixture->error.message, cases[i].part2);
    }
}

static void given_a_config_that_cannot_be_read_then_it_says_what(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *config, *part;
    } cases[] = {
        {"", "names no quant_method"},
        {"\"quant_method\": 8", "names no quant_method"},
        {"\"quant_method\": \"gptq\"", "quantized with 'gptq'"},
        {"\"quant_method\": \"awq\\u001b[2J\"", "quantized with 'awq\\x1b[2J'"},
        {FP8 ", \"weight_block_size\": [128]", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": [128, 128, 128]", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": 128", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": [0, 128]", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": [-1, 128]", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": [1e30, 128]", "weight_block_size is not a pair"},
        {FP8 ", \"weight_block_size\": [\"128\", 128]", "weight_block_size is not a pair"},
        {"\"quant_method\": \"compressed-tensors\"", "has no config_groups"},
        {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {}", "has no config_groups"},
        {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {}}", "'g' are not 8-bit float"},
        {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, "
         "\"type\": \"float\", \"strategy\": \"group\"}}}",
         "'g' are not 8-bit float: this checkpoint is already quantized"},
        {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 8, "
         "\"type\": \"int\", \"strategy\": \"channel\"}}}",
         "not 8-bit float"},
        {GROUP("\"symmetric\": true"), "names no weight strategy"},
        {GROUP("\"strategy\": \"token\""), "weight strategy 'token', which cannot be read"},
        {GROUP("\"strategy\": \"block\""), "weight strategy 'block', which cannot be read"},
        {GROUP("\"strategy\": \"group\", \"group_size\": 128"), "weight strategy 'group', which cannot be read"},
        {FP8 ", " FP8, "quantization_config cannot be read: duplicate object key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(detect(fixture, cases[i].config, "x.weight F8_E4M3 4x4\n", "x.weight_scale F32 1\n"),
                       STATUS_BAD_INPUT, fixture->error, cases[i].part);
    fixture_file(fixture, "config.json", "{\"quantization_config\": [1]}");
    fixture_reset(fixture);
    fixture_open(fixture);
    assert_refused(layout_detect(&fixture->checkpoint, &fixture->layout, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "not an object");
}

static void given_a_companion_without_its_weight_then_it_is_an_error_not_a_loss(void **state) {
    struct fixture *fixture = *state;
    static const char *const orphans[] = {"y.weight_scale_inv", "y.weight_scale", "y.activation_scale", "y.input_scale",
                                          "m.experts.down_proj_scale_inv"};
    for (size_t i = 0; i < sizeof orphans / sizeof *orphans; i++)
        for (int plain = 0; plain < 2; plain++) { /* with no weight at all, and with one that is not FP8 */
            char shard[200];
            snprintf(shard, sizeof shard, "%s F32 1\n%s", orphans[i],
                     plain ? "y.weight BF16 4x32\nm.experts.down_proj BF16 2x4x32\n" : "z.weight BF16 1\n");
            assert_refused(detect(fixture, FP8, "x.weight F8_E4M3 4x32\nx.weight_scale F32 1\n", shard),
                           STATUS_BAD_INPUT, fixture->error, orphans[i]);
            assert_contains(fixture->error.message, "belongs to no FP8 weight");
            assert_refused(detect(fixture, NULL, "x.weight BF16 4x32\n", shard), STATUS_BAD_INPUT, fixture->error,
                           orphans[i]);
        }
    /* names that only look alike are left in peace */
    assert_ok(detect(fixture, NULL, "logit_scale F32 -\n", "vision.layer_scale BF16 4\nx.weight_scaled BF16 1\n"),
              fixture->error);
}

static void given_excluded_modules_then_an_fp8_weight_among_them_is_a_contradiction(void **state) {
    struct fixture *fixture = *state;
    static const char first[] = "model.layers.1.mlp.gate.weight BF16 4x32\nmodel.layers.1.q.weight F8_E4M3 4x32\n";
    static const char second[] = "model.layers.1.q.weight_scale F32 1\nlm_head.weight BF16 4x32\n";
    static const struct {
        const char *list;
        bool contradicts;
    } cases[] = {
        {"\"lm_head\"", false},
        {"\"lm_head\", \"model.layers.1.mlp.gate\", \"model.layers.1.mlp\"", false},
        {"\"model.layers.1.q\"", true},
        {"\"lm_head\", \"model.layers.1\"", true},
        {"\"model\"", true},
        {"\"model.layers.1.q.weight\"", true},
        {"\"model.layers\"", true},
        {"\"model.layer\", \"odel.layers.1.q\", \"model.layers.1.q_proj\", \"model.layers.11\", \"\"", false},
        {"1, null, {}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int word = 0; word < 2; word++) {
            char config[300];
            snprintf(config, sizeof config, FP8 ", \"%s\": [%s]", word ? "ignored_layers" : "modules_to_not_convert",
                     cases[i].list);
            enum status status = detect(fixture, config, first, second);
            if (!cases[i].contradicts) {
                assert_ok(status, fixture->error);
                continue;
            }
            assert_refused(status, STATUS_BAD_INPUT, fixture->error, "'model.layers.1.q.weight' is FP8");
            assert_contains(fixture->error.message, "config.json lists 'model");
        }
}

static void given_a_quantization_config_inside_text_config_then_it_counts(void **state) {
    struct fixture *fixture = *state;
    static const char *const cases[] = {
        "{\"text_config\": {\"quantization_config\": {" FP8 "}}}",
        "{\"quantization_config\": {" FP8 "}, \"text_config\": {\"quantization_config\": {" BLOCK "}}}",
        "{\"vision_config\": {\"quantization_config\": {" BLOCK "}}, \"quantization_config\": {" FP8 "}}",
        "{\"text_config\": null, \"quantization_config\": {" FP8 "}}",
        "{\"n\": 123456789012345678901234567890, \"quantization_config\": {" FP8 ", \"m\": 1234567890123456789012}}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_clear(fixture);
        fixture_file(fixture, "config.json", cases[i]);
        fixture_shard(fixture, "model.safetensors", "x.weight F8_E4M3 4x32\nx.weight_scale F32 1\n");
        fixture_layout(fixture);
        assert_int_equal(layout_of(fixture, "x.weight")->scaling, SCALING_TENSOR);
        assert_string_equal(json_string_value(json_object_get(fixture->layout.quantization_config, "quant_method")),
                            "fp8");
    }
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", "{\"quantization_config\": null, \"text_config\": {}}");
    fixture_shard(fixture, "model.safetensors", "x.weight BF16 4x32\n");
    fixture_layout(fixture);
    assert_null(fixture->layout.quantization_config);
}

static void given_a_null_at_the_top_then_the_one_in_text_config_counts(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json",
                 "{\"quantization_config\": null, \"text_config\": {\"quantization_config\": {" FP8 "}}}");
    fixture_shard(fixture, "model.safetensors", "x.weight F8_E4M3 4x32\nx.weight_scale F32 1\n");
    fixture_layout(fixture);
    assert_int_equal(layout_of(fixture, "x.weight")->scaling, SCALING_TENSOR);
    assert_non_null(fixture->layout.quantization_config);
}

static void given_the_reference_model_then_every_projection_has_its_companions(void **state) {
    struct fixture *fixture = *state;
    fixture_reference(fixture, 3);
    fixture_layout(fixture);
    int scaled = 0;
    for (size_t i = 0; i < fixture->checkpoint.tensor_count; i++) {
        const char *name = fixture->checkpoint.tensors[i].info.name;
        const struct tensor_layout *layout = &fixture->layout.tensors[i];
        bool companion = strstr(name, "_scale") != NULL;
        assert_int_equal(layout->owner != NO_TENSOR, companion);
        if (layout->scaling == SCALING_NONE)
            continue;
        assert_int_equal(layout->scaling, SCALING_TENSOR);
        char wanted[200];
        snprintf(wanted, sizeof wanted, "%.*s.weight_scale_inv", (int)module_length(name), name);
        assert_string_equal(fixture->checkpoint.tensors[layout->scale].info.name, wanted);
        snprintf(wanted, sizeof wanted, "%.*s.activation_scale", (int)module_length(name), name);
        assert_string_equal(fixture->checkpoint.tensors[layout->input_scale].info.name, wanted);
        scaled++;
    }
    assert_int_equal(scaled, 3 * REFERENCE_PROJECTIONS);
    assert_int_equal(module_length("x.weight"), 1);
    assert_int_equal(module_length("x.weights"), 9);
    assert_int_equal(module_length("m.experts.down_proj"), 19);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_each_layout_with_its_companions_in_another_shard_then_it_is_detected),
        TEST(given_a_mixture_of_layouts_then_each_weight_has_its_own),
        TEST(given_a_contradiction_then_the_error_names_both_sides),
        TEST(given_a_config_that_cannot_be_read_then_it_says_what),
        TEST(given_a_companion_without_its_weight_then_it_is_an_error_not_a_loss),
        TEST(given_excluded_modules_then_an_fp8_weight_among_them_is_a_contradiction),
        TEST(given_a_quantization_config_inside_text_config_then_it_counts),
        TEST(given_a_null_at_the_top_then_the_one_in_text_config_counts),
        TEST(given_the_reference_model_then_every_projection_has_its_companions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
