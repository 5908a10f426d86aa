/*
 * verify: config.json of an output: JSON by its meaning, the keys against the source's, quantization_config against the
 * tensors.
 */
#include <time.h>

#include "common/utf8.h"
#include "tests/unit/verify_folders.h"
#include "verify/config_groups.h"
#include "verify/json_compare.h"

/* ---- JSON by its meaning ---- */

static bool same(const char *a, const char *b) {
    bool forth, back;
    struct error error;
    assert_ok(json_compare(a, (struct json_span){0, strlen(a)}, b, (struct json_span){0, strlen(b)}, &forth, &error),
              error);
    assert_ok(json_compare(b, (struct json_span){0, strlen(b)}, a, (struct json_span){0, strlen(a)}, &back, &error),
              error);
    assert_int_equal(forth, back);
    return forth;
}

static void given_json_texts_that_mean_the_same_then_they_are_the_same(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"{}", " { } "},
        {"{\"a\": 1, \"b\": 2}", "{\"b\":2,\"a\":1}"},
        {"{\"a\": {\"x\": [1, {\"q\": null}], \"y\": \"z\"}}", "{\"a\":{\"y\":\"z\",\"x\":[1,{\"q\":null}]}}"},
        {"1e-05", "0.00001"},
        {"1", "1.0"},
        {"-0", "0"},
        {"-0.0", "0"},
        {"1e2", "100"},
        {"1000000000000000019884624838656", "1e30"},
        {"1000000000000000019884624838656", "1000000000000000019884624838656"},
        {"0.1", "0.1000000000000000055511151231257827"},
        {"NaN", "NaN"},
        {"-Infinity", "-Infinity"},
        {"\"\\u00e9\"", "\"\xc3\xa9\""},
        {"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
        {"\"a\\/b\"", "\"a/b\""},
        {"{\"\\u0061\": 1}", "{\"a\": 1}"},
        {"{\"a\": 1, \"a\": 2}", "{\"a\": 2}"}, /* the last counts */
        {"{\"a\": 1, \"b\": 3, \"a\": 2}", "{\"b\": 3, \"a\": 7, \"a\": 2}"},
        {"\"\\u0000\"", "\"\\u0000\""},
        {"{\"\\ud800\": 1}", "{\"\\ud800\": 1}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!same(pairs[i][0], pairs[i][1]))
            fail_msg("%s and %s", pairs[i][0], pairs[i][1]);
}

static void given_json_texts_that_mean_something_else_then_they_differ(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"{}", "[]"},
        {"1", "2"},
        {"1", "\"1\""},
        {"1", "true"},
        {"0", "false"},
        {"null", "false"},
        {"NaN", "null"},
        {"Infinity", "-Infinity"},
        {"NaN", "-1"},
        {"9007199254740993", "9007199254740992"},
        {"9007199254740993", "9007199254740994"},
        {"1000000000000000019884624838656", "1000000000000000019884624838657"},
        {"1", "-1"},
        {"1e-5", "1.0000001e-5"},
        {"[1, 2]", "[2, 1]"},
        {"[1, 2]", "[1, 2, 3]"},
        {"[]", "[null]"},
        {"{\"a\": 1}", "{\"a\": 1, \"b\": 2}"},
        {"{\"a\": 1}", "{\"b\": 1}"},
        {"{\"a\": 2, \"a\": 1}", "{\"a\": 2}"},
        {"{\"ab\": 1}", "{\"a\": 1}"},
        {"\"a\"", "\"a \""},
        {"\"a\"", "\"A\""},
        {"\"\\u0000\"", "\"\""},
        {"\"\\ud800\"", "\"\\udc00\""},
        {"{\"\": 1}", "{}"},
        /* what is not valid is not the same as anything */
        {"{\"a\": 1", "{\"a\": 1"},
        {"{\"a\" 1}", "{\"a\" 1}"},
        {"[1,]", "[1,]"},
        {"[1 2]", "[1 2]"},
        {"", ""},
        {"nul", "nul"},
        {"01", "01"},
        {"1 1", "1 1"},
        {"{} x", "{}"},
        {"{,}", "{,}"},
        {"\"a", "\"a"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (same(pairs[i][0], pairs[i][1]))
            fail_msg("%s and %s", pairs[i][0], pairs[i][1]);
}

static void given_json_that_is_nested_without_end_then_it_is_told_apart_and_nothing_overflows(void **state) {
    (void)state;
    enum { LEVELS = 200000 };
    static const char opening[][8] = {"[", "{\"a\":"};
    for (int kind = 0; kind < 2; kind++) {
        struct text text = {0};
        for (int i = 0; i < LEVELS; i++)
            text_append_string(&text, opening[kind]);
        assert_false(same(text.bytes, text.bytes));
        text_free(&text);
    }
    struct text deep = {0};
    for (int i = 0; i < 100; i++)
        text_append_string(&deep, "[");
    for (int i = 0; i < 100; i++)
        text_append_string(&deep, "]");
    assert_true(same(deep.bytes, deep.bytes));
    text_free(&deep);
}

static void given_objects_of_many_members_in_another_order_then_comparing_is_fast(void **state) {
    (void)state;
    enum { MEMBERS = 200000 };
    struct text a = {0}, b = {0};
    for (int i = 0; i < MEMBERS; i++) {
        text_printf(&a, "%s\"key %d\": %d", i ? ", " : "{", i, i);
        text_printf(&b, "%s\"key %d\": %d", i ? ", " : "{", MEMBERS - 1 - i, MEMBERS - 1 - i);
    }
    text_append_string(&a, "}");
    text_append_string(&b, "}");
    clock_t start = clock();
    assert_true(same(a.bytes, b.bytes));
    b.bytes[b.length - 2] = '7';
    assert_false(same(a.bytes, b.bytes));
    assert_true((double)(clock() - start) < 20.0 * CLOCKS_PER_SEC); /* some 0.3 s; minutes if it were quadratic */
    text_free(&a);
    text_free(&b);
}

/* ---- config.json's keys ---- */

static const char *keys_findings(struct folders *f, const char *source, const char *output) {
    fixture_file(f->fixture, "source/config.json", source);
    fixture_file(f->fixture, "output/config.json", output);
    fixture_shard(f->fixture, "source/model.safetensors", "a.weight BF16 2x2\n");
    fixture_shard(f->fixture, "output/model.safetensors", "a.weight BF16 2x2\n");
    folders_open(f);
    return findings_of(f, config_keys_check);
}

static void given_a_config_of_the_same_meaning_then_nothing_is_found(void **state) {
    static const char *const pairs[][2] = {
        {"{}", "{ }"},
        {"{\"rope_theta\": 10000.0, \"big\": 1000000000000000019884624838656, \"x\": [NaN, -Infinity], \"eps\": 1e-05}",
         "{\"eps\": 0.00001, \"x\": [NaN, -Infinity],\n \"big\": 1000000000000000019884624838656, \"rope_theta\": "
         "10000}"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\"}, \"text_config\": {\"quantization_config\": 1, \"a\": "
         "2}}",
         "{\"text_config\": {\"a\": 2}, \"quantization_config\": 3}"},
        {"{\"transformers_version\": \"4\", \"_name_or_path\": \"x\", \"text_config\": {\"transformers_version\": 1}}",
         "{\"transformers_version\": \"5\", \"text_config\": {\"_name_or_path\": \"y\"}}"},
        {"{\"torch_dtype\": \"bfloat16\"}", "{\"dtype\": \"bfloat16\"}"},
        {"{\"text_config\": {\"dtype\": \"bfloat16\"}}", "{\"text_config\": {\"torch_dtype\": \"bfloat16\"}}"},
        {"{\"torch_dtype\": \"bfloat16\"}", "{\"torch_dtype\": \"bfloat16\", \"dtype\": \"bfloat16\"}"},
        {"{\"text_config\": {\"b\": {\"c\": [1, 2], \"d\": 3}}}",
         "{\"text_config\": {\"b\": {\"d\": 3, \"c\": [1, 2]}}}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_lines(keys_findings(*state, pairs[i][0], pairs[i][1]), "");
}

static void given_another_value_then_the_key_and_both_values_are_told(void **state) {
    assert_lines(keys_findings(*state,
                               "{\"rms_norm_eps\": 1e-05, \"text_config\": {\"rope_theta\": 1000000.0, \"k\": 1}}",
                               "{\"rms_norm_eps\": 1e-06, \"text_config\": {\"k\": 1, \"rope_theta\": 10000.0}}"),
                 "error config-key-changed rms_norm_eps: config.json has the value 1e-06, the source's 1e-05\n"
                 "error config-key-changed text_config.rope_theta: config.json has the value 10000.0, the source's "
                 "1000000.0\n");
    assert_lines(keys_findings(*state, "{\"dtype\": \"bfloat16\"}", "{\"torch_dtype\": \"float16\"}"),
                 "error config-key-changed dtype: config.json has the value \"float16\", the source's \"bfloat16\"\n");
    assert_lines(keys_findings(*state, "{\"a\": 9007199254740993}", "{\"a\": 9007199254740992}"),
                 "error config-key-changed a: config.json has the value 9007199254740992, the source's "
                 "9007199254740993\n");
    /* deeper than text_config a member is compared as a whole, and quantization_config is no exception there */
    assert_contains(keys_findings(*state, "{\"vision_config\": {\"quantization_config\": 1}}",
                                  "{\"vision_config\": {\"quantization_config\": 2}}"),
                    "error config-key-changed vision_config: ");
    assert_contains(keys_findings(*state, "{\"text_config\": {\"a\": 1}}", "{\"text_config\": 7}"),
                    "error config-key-changed text_config: config.json has the value 7, ");
}

static void given_a_long_value_then_it_is_shortened_to_whole_characters(void **state) {
    struct text source = {0};
    text_append_string(&source, "{\"a\": [\n  ");
    for (int i = 0; i < 100; i++)
        text_append_string(&source, i ? ",\n  \"\xc3\xa9\"" : "\"\xc3\xa9\"");
    text_append_string(&source, "]}");
    const char *found = keys_findings(*state, source.bytes, "{\"a\": 1}");
    text_free(&source);
    assert_contains(found, "the source's [ \"\xc3\xa9\", \"\xc3\xa9\", ");
    assert_contains(found, "...\n");
    assert_true(strlen(found) < 200);
    assert_true(utf8_is_valid(found, strlen(found)));
}

static void given_keys_that_went_or_came_then_one_is_an_error_and_one_a_warning(void **state) {
    assert_lines(
        keys_findings(*state, "{\"a\": 1, \"text_config\": {\"b\": 0}}",
                      "{\"c\": \"d\", \"text_config\": {\"e\": {}}}"),
        "error config-key-missing a: config.json lacks this key of the source's, whose value there is 1\n"
        "error config-key-missing text_config.b: config.json lacks this key of the source's, whose value there is 0\n"
        "warning config-key-added text_config.e: config.json has this key, the source's does not: {}\n"
        "warning config-key-added c: config.json has this key, the source's does not: \"d\"\n");
    assert_contains(keys_findings(*state, "{\"text_config\": {\"a\": 1}}", "{\"a\": 1}"),
                    "error config-key-missing text_config: ");
}

static void given_keys_that_went_and_meant_nothing_then_it_is_a_warning(void **state) {
    static const char *const values[] = {"null", "false", "\"\"", "[]", "{}"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *source = text_format("{\"a\": %s}", values[i]);
        assert_non_null(source);
        const char *found = keys_findings(*state, source, "{}");
        free(source);
        assert_contains(found, "warning config-key-missing a: ");
    }
    assert_contains(keys_findings(*state, "{\"a\": true}", "{}"), "error config-key-missing a: ");
    assert_contains(keys_findings(*state, "{\"a\": [0]}", "{}"), "error config-key-missing a: ");
}

static void given_rope_keys_that_moved_into_rope_parameters_then_their_values_count(void **state) {
    static const char source[] = "{\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 16.0}}";
    static const char added[] =
        "warning config-key-added rope_parameters: config.json has this key, the source's does not: ";
    const char *found = keys_findings(
        *state, source, "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 16, \"rope_theta\": 1e4}}");
    assert_true(strncmp(found, added, sizeof added - 1) == 0);
    found = keys_findings(*state, source,
                          "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 32, \"rope_theta\": 1e4}}");
    assert_contains(found, "error config-key-missing rope_scaling: ");
    assert_null(strstr(found, "rope_theta:"));
    found = keys_findings(*state, source,
                          "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 16, \"rope_theta\": 1e6}}");
    assert_contains(found, "error config-key-missing rope_theta: ");
    assert_null(strstr(found, "rope_scaling:"));
    found = keys_findings(*state, source, "{\"rope_parameters\": [10000.0]}");
    assert_contains(found, "error config-key-missing rope_theta: ");
    assert_contains(found, "error config-key-missing rope_scaling: ");
    found = keys_findings(*state, "{\"text_config\": {\"rope_theta\": 5}}",
                          "{\"text_config\": {\"rope_parameters\": {\"rope_theta\": 5}}}");
    assert_contains(found, "warning config-key-added text_config.rope_parameters");
    assert_int_equal(((struct folders *)*state)->findings.count, 1);
}

static void given_thousands_of_keys_that_came_in_then_the_first_are_told_and_how_many_more(void **state) {
    struct text output = {0};
    for (int i = 0; i < 3000; i++)
        text_printf(&output, "%s\"key%04d\": 1", i ? ", " : "{", i);
    text_append_string(&output, "}");
    const char *found = keys_findings(*state, "{}", output.bytes);
    text_free(&output);
    assert_contains(found, "config-key-added key0099: ");
    assert_contains(found, "2900 more keys");
    assert_null(strstr(found, "key0100"));
}

/* ---- quantization_config against the tensors ---- */

#define MX_GROUP(targets)                                                                                              \
    GROUP(targets, "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32", "null",        \
          "mxfp4-pack-quantized")
#define FP8_ARGS "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", \"dynamic\": false"
#define FP8_GROUP(targets) GROUP(targets, FP8_ARGS, "{" FP8_ARGS "}", "float-quantized")
#define GROUP(targets, weights, inputs, format)                                                                        \
    "{\"targets\": [" targets "], \"weights\": {" weights "}, \"input_activations\": " inputs                          \
    ", \"output_activations\": null, \"format\": \"" format "\"}"
#define CONFIG(groups, ignore)                                                                                         \
    "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\", "           \
    "\"quantization_status\": \"compressed\", \"config_groups\": {" groups "}, \"ignore\": [" ignore "]}}"

static const char two_formats[] = "model.embed_tokens.weight BF16 8x64\n"
                                  "lm_head.weight BF16 8x64\n"
                                  "model.norm.weight BF16 64\n"
                                  "model.layers.0.mlp.up_proj.weight_packed U8 64x32\n"
                                  "model.layers.0.mlp.up_proj.weight_scale U8 64x2\n"
                                  "model.layers.0.self_attn.q_proj.weight F8_E4M3 64x64\n"
                                  "model.layers.0.self_attn.q_proj.weight_scale F32 1\n"
                                  "model.layers.0.self_attn.q_proj.input_scale F32 1\n";

static const char *formats_findings(struct folders *f, const char *config, const char *tensors) {
    fixture_file(f->fixture, "source/config.json", "{}");
    fixture_file(f->fixture, "output/config.json", config);
    fixture_shard(f->fixture, "source/model.safetensors", "a.weight BF16 2x2\n");
    fixture_shard(f->fixture, "output/model.safetensors", tensors);
    folders_open(f);
    return findings_of(f, config_formats_check);
}

static void given_a_config_that_describes_every_weight_then_nothing_is_found(void **state) {
    static const char *const configs[] = {
        CONFIG("\"a\": " MX_GROUP("\"re:.*mlp\\\\.(gate|up|down)_proj$\"") ", \"b\": " FP8_GROUP("\"re:.*self_attn\""),
               "\"lm_head\""),
        CONFIG("\"a\": " MX_GROUP("\"model.layers.0.mlp.up_proj\"") ", \"b\": " FP8_GROUP("\"Linear\""), ""),
        CONFIG("\"b\": " FP8_GROUP("\"Linear\"") ", \"a\": " MX_GROUP("\"re:.*layers\\\\.0\\\\.mlp\""),
               "\"re:.*lm_head$\""),
        /* a pattern that claims what `ignore` takes out */
        CONFIG("\"a\": " MX_GROUP("\"re:.*up_proj\"") ", \"b\": " FP8_GROUP("\"re:.*self_attn\", \"re:lm_.*\""),
               "\"re:lm\""),
        /* without formats of their own */
        "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"quantization_status\": \"compressed\","
        "\"config_groups\": {\"a\": {\"targets\": [\"re:.*mlp\"], \"weights\": {\"num_bits\": 4, \"type\": \"float\", "
        "\"group_size\": 32}},"
        "\"b\": {\"targets\": [\"re:.*attn\"], \"weights\": {" FP8_ARGS "}, \"input_activations\": {" FP8_ARGS "}}}}}",
        /* in text_config */
        "{\"text_config\": " CONFIG("\"a\": " MX_GROUP("\"re:.*up\"") ", \"b\": " FP8_GROUP("\"re:.*q_proj\""), "") "}",
        "{\"quantization_config\": null, \"text_config\": " CONFIG(
            "\"a\": " MX_GROUP("\"re:.*up\"") ", \"b\": " FP8_GROUP("\"re:.*q_proj\""), "") "}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        assert_lines(formats_findings(*state, configs[i], two_formats), "");
}

static void given_weights_that_the_config_describes_otherwise_then_group_format_and_module_are_told(void **state) {
    static const struct {
        const char *config, *says;
    } cases[] = {
        {CONFIG("\"a\": " MX_GROUP("\"re:.*mlp\""), ""), "error config-formats model.layers.0.self_attn.q_proj: no "
                                                         "group of quantization_config is for weights that are "
                                                         "stored as fp8-tensor: model.layers.0.self_attn.q_proj\n"},
        {CONFIG("\"a\": " MX_GROUP("\"re:.*proj\""), ""),
         "error config-formats model.layers.0.self_attn.q_proj: group 'a' (4-bit float, strategy group of 32, format "
         "mxfp4-pack-quantized) does not describe weights that are stored as fp8-tensor: "
         "model.layers.0.self_attn.q_proj\n"},
        {CONFIG("\"a\": " MX_GROUP("\"re:.*mlp\"") ", \"b\": " FP8_GROUP("\"re:.*attn\""), "\"re:.*up_proj\""),
         "error config-formats model.layers.0.mlp.up_proj: `ignore` covers weights that are stored as mxfp4: "
         "model.layers.0.mlp.up_proj\n"},
        {CONFIG("\"a\": " MX_GROUP("\"re:.*mlp\"") ", \"b\": " FP8_GROUP("\"re:.*attn\", \"lm_head\""), ""),
         "error config-formats lm_head: group 'b' (8-bit float, strategy tensor, format float-quantized) claims "
         "weights "
         "that are not quantized: lm_head\n"},
        {CONFIG("\"a\": " GROUP("\"re:.*mlp\"",
                                "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 16",
                                "null", "mxfp4-pack-quantized") ", \"b\": " FP8_GROUP("\"re:.*attn\""),
                ""),
         "error config-formats model.layers.0.mlp.up_proj: group 'a' (4-bit float, strategy group of 16, format "
         "mxfp4-pack-quantized) does not describe weights that are stored as mxfp4: model.layers.0.mlp.up_proj\n"},
        {CONFIG("\"a\": " GROUP("\"re:.*mlp\"",
                                "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32",
                                "null", "float-quantized") ", \"b\": " FP8_GROUP("\"re:.*attn\""),
                ""),
         "error config-formats model.layers.0.mlp.up_proj: group 'a' (4-bit float, strategy group of 32, format "
         "float-quantized) does not describe weights that are stored as mxfp4: model.layers.0.mlp.up_proj\n"},
        {CONFIG(
             "\"a\": " MX_GROUP("\"re:.*mlp\"") ", \"b\": " GROUP("\"re:.*attn\"", FP8_ARGS, "null", "float-quantized"),
             ""),
         "error config-formats model.layers.0.self_attn.q_proj: group 'b' (8-bit float, strategy tensor, format "
         "float-quantized) does not say static input activations, but weights that are stored as fp8-tensor have an "
         "input_scale: model.layers.0.self_attn.q_proj\n"},
        {CONFIG("\"a\": " GROUP("\"re:.*mlp\"",
                                "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32",
                                "{" FP8_ARGS "}", "mxfp4-pack-quantized") ", \"b\": " FP8_GROUP("\"re:.*attn\""),
                ""),
         "error config-formats model.layers.0.mlp.up_proj: group 'a' (4-bit float, strategy group of 32, format "
         "mxfp4-pack-quantized) says static input activations, but weights that are stored as mxfp4 have no "
         "input_scale: model.layers.0.mlp.up_proj\n"},
        /* one module, two groups */
        {CONFIG(
             "\"a\": " MX_GROUP("\"re:.*mlp\"") ", \"b\": " FP8_GROUP("\"re:.*attn\", \"model.layers.0.mlp.up_proj\""),
             ""),
         "error config-formats model.layers.0.mlp.up_proj: group 'b' (8-bit float, strategy tensor, format "
         "float-quantized) does not describe weights that are stored as mxfp4: model.layers.0.mlp.up_proj\n"},
        {"{}",
         "error config-formats model.layers.0.mlp.up_proj: config.json has no quantization_config, but weights are "
         "stored as mxfp4: model.layers.0.mlp.up_proj\n"
         "error config-formats model.layers.0.self_attn.q_proj: config.json has no quantization_config, but weights "
         "are stored as fp8-tensor: model.layers.0.self_attn.q_proj\n"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": null, \"activation_scheme\": "
         "\"static\"}}",
         "error config-formats model.layers.0.mlp.up_proj: quant_method fp8 does not describe weights that are stored "
         "as "
         "mxfp4: model.layers.0.mlp.up_proj\n"},
        {"{\"quantization_config\": {\"quant_method\": \"somebodys\"}}",
         "error config-formats model.layers.0.mlp.up_proj: quant_method somebodys does not describe weights that are "
         "stored as mxfp4: model.layers.0.mlp.up_proj\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_lines(formats_findings(*state, cases[i].config, two_formats), cases[i].says);
}

/* A weight alone, under a group or a method: whether that describes it. */
static void given_each_stored_format_then_its_arguments_describe_it_and_no_others(void **state) {
    struct folders *f = *state;
    static const char *const tensors[] = {
        "m.a.weight F8_E4M3 256x256\nm.a.weight_scale F32 1\n",
        "m.a.weight F8_E4M3 256x256\nm.a.weight_scale BF16 256x1\n",
        "m.a.weight F8_E4M3 256x256\nm.a.weight_scale F32 2x2\n",
        "m.a.weight F8_E4M3 256x256\nm.a.weight_scale U8 256x8\n",
        "m.a.weight_packed U8 256x128\nm.a.weight_scale U8 256x8\n",
        "m.a.weight_packed U8 256x128\nm.a.weight_scale F8_E4M3 256x16\nm.a.weight_global_scale F32 1\n",
        "m.a.weight I8 256x256\nm.a.weight_scale F32 256x1\n",
        "m.a.weight_packed I32 256x32\nm.a.weight_scale BF16 256x8\nm.a.weight_shape I64 2\n",
    };
    static const char *const configs[] = {
        CONFIG("\"g\": " GROUP("\"Linear\"", FP8_ARGS, "null", "float-quantized"), ""),
        CONFIG("\"g\": " GROUP("\"Linear\"", "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"channel\"", "null",
                               "float-quantized"),
               ""),
        CONFIG("\"g\": " GROUP(
                   "\"Linear\"",
                   "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", \"block_structure\": [128, 128]",
                   "null", "float-quantized"),
               ""),
        CONFIG("\"g\": " GROUP("\"Linear\"",
                               "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32",
                               "null", "mxfp8-quantized"),
               ""),
        CONFIG("\"g\": " GROUP("\"Linear\"",
                               "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32",
                               "null", "mxfp4-pack-quantized"),
               ""),
        CONFIG(
            "\"g\": " GROUP("\"Linear\"",
                            "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"tensor_group\", \"group_size\": 16",
                            "null", "nvfp4-pack-quantized"),
            ""),
        CONFIG("\"g\": " GROUP("\"Linear\"", "\"num_bits\": 8, \"type\": \"int\", \"strategy\": \"channel\"", "null",
                               "int-quantized"),
               ""),
        CONFIG("\"g\": " GROUP("\"Linear\"",
                               "\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": 32",
                               "null", "pack-quantized"),
               ""),
        CONFIG("\"g\": " GROUP(
                   "\"Linear\"",
                   "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", \"block_structure\": [64, 128]",
                   "null", "float-quantized"),
               ""),
        "{\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"dynamic\"}}",
        "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}",
        "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [1, 32]}}",
        "{\"quantization_config\": {\"quant_method\": \"mxfp8\"}}",
    };
    static const int method_fits[] = {0, 2, 3, 3}; /* of the last four configs */
    enum { FORMATS = 8, CONFIGS = 13 };
    for (int t = 0; t < FORMATS; t++)
        for (int c = 0; c < CONFIGS; c++) {
            bool fits = c < FORMATS ? c == t : c == FORMATS ? false : method_fits[c - FORMATS - 1] == t;
            const char *found = formats_findings(f, configs[c], tensors[t]);
            if ((*found == '\0') != fits || (*found && !strstr(found, "error config-formats m.a: ")))
                fail_msg("tensors %d under config %d: '%s'", t, c, found);
        }
}

static void given_a_small_weight_of_one_block_then_the_block_strategy_describes_it(void **state) {
    static const char block[] =
        CONFIG("\"g\": " GROUP(
                   "\"Linear\"",
                   "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", \"block_structure\": [128, 128]",
                   "null", "float-quantized"),
               "");
    static const char method[] =
        "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}";
    assert_lines(formats_findings(*state, block, "a.weight F8_E4M3 64x128\na.weight_scale F32 1x1\n"), "");
    assert_lines(formats_findings(*state, method, "a.weight F8_E4M3 64x128\na.weight_scale_inv F32 1x1\n"), "");
    assert_contains(formats_findings(*state, block, "a.weight F8_E4M3 64x160\na.weight_scale F32 1x1\n"),
                    "config-formats a:");
    assert_lines(formats_findings(*state, block, "a.weight F8_E4M3 192x320\na.weight_scale F32 2x3\n"), "");
    assert_lines(formats_findings(*state, block, "e.weight F8_E4M3 4x192x320\ne.weight_scale F32 4x2x3\n"), "");
}

static void given_many_modules_with_one_flaw_then_it_is_one_finding_that_counts_them(void **state) {
    struct text tensors = {0};
    for (int i = 0; i < 30; i++)
        text_printf(&tensors, "model.layers.%d.up.weight_packed U8 32x16\nmodel.layers.%d.up.weight_scale U8 32x1\n", i,
                    i);
    const char *found = formats_findings(
        *state, CONFIG("\"g\": " FP8_GROUP("\"re:model\\\\.layers\\\\.\\\\d+\\\\.\""), ""), tensors.bytes);
    text_free(&tensors);
    assert_lines(found, "error config-formats model.layers.0.up: group 'g' (8-bit float, strategy tensor, format "
                        "float-quantized) does not describe weights that are stored as mxfp4: model.layers.0.up, "
                        "model.layers.1.up, model.layers.10.up, model.layers.11.up and 26 more\n");
}

static void given_patterns_that_speak_of_numbers_then_each_name_is_looked_at_itself(void **state) {
    static const char tensors[] = "l.1.a.weight_packed U8 32x16\nl.1.a.weight_scale U8 32x1\n"
                                  "l.2.a.weight F8_E4M3 32x32\nl.2.a.weight_scale F32 1\nl.2.a.input_scale F32 1\n"
                                  "l.33.a.weight_packed U8 32x16\nl.33.a.weight_scale U8 32x1\n"
                                  "l.34.a.weight F8_E4M3 32x32\nl.34.a.weight_scale F32 1\nl.34.a.input_scale F32 1\n";
    static const char *const patterns[][2] = {
        {"\"re:l\\\\.(1|33)\\\\.\"", "\"re:l\\\\.3?[24]\\\\.\""},
        {"\"re:l\\\\.1\\\\.\", \"l.33.a\"", "\"l.2.a\", \"re:l\\\\.34\\\\.a$\""},
        {"\"re:l\\\\.(?:\\\\d)?([13])\\\\.\"", "\"re:l\\\\.(?!1|33)[0-9]+\\\\.a\""},
        {"\"re:l\\\\.(?:1|(\\\\d)\\\\1)\\\\.\"", "\"re:l\\\\.(?:2|34)\\\\.\""},
        {"\"re:l\\\\.(?:[^2]|(?P<n>\\\\d)(?P=n))\\\\.\"", "\"re:l\\\\.(?:2|34)\\\\.\""},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        char *config = text_format(CONFIG("\"a\": " MX_GROUP("%s") ", \"b\": " FP8_GROUP("%s"), ""), patterns[i][0],
                                   patterns[i][1]);
        assert_non_null(config);
        const char *found = formats_findings(*state, config, tensors);
        free(config);
        assert_lines(found, "");
    }
}

static void given_any_patterns_and_names_then_each_name_has_the_groups_that_plain_matching_gives(void **state) {
    (void)state;
    static const char *const targets[] = {"re:",
                                          "re:.*",
                                          "re:model",
                                          "re:model\\.layers\\.1\\.",
                                          "re:model\\.layers\\.1",
                                          "re:model\\.layers\\.1?",
                                          "re:model\\.layers\\.11*\\.",
                                          "re:model\\.layers\\.1{2}\\.",
                                          "re:^model\\.layers\\.2",
                                          "re:.*\\.2\\.",
                                          "re:.*?\\.2\\.",
                                          "re:.*+2",
                                          "re:.+2\\.",
                                          "re:a|model\\.layers\\.2",
                                          "re:model\\.(layers|blocks)\\.2\\.",
                                          "re:.*layers\\.2|lm_head1",
                                          "re:[lm].*|x2",
                                          "re:(?i)MODEL\\.LAYERS\\.2",
                                          "re:.*(?i)MLP.*2",
                                          "re:model.layers.1.",
                                          "re:model_layers_1",
                                          "re:model[.]layers[.]12",
                                          "re:.*mlp\\.experts\\.12\\.",
                                          "re:.*mlp\\.experts\\.12",
                                          "re:.*mlp\\.experts\\.1?2",
                                          "re:\\Qmodel.layers.1\\E",
                                          "re:.*\\d2",
                                          "re:\\w+2?",
                                          "re:.*layers\\.(\\d)\\1\\.",
                                          "re:.*layers\\.(?<n>\\d)\\k<n>\\.",
                                          "re:.*layers\\.\\d\\d\\.",
                                          "re:.*layers\\.[0-9]+\\.",
                                          "re:.*layers\\.[0-9]\\.mlp$",
                                          "re:.*layers\\.[5-9]",
                                          "re:.*[^1]\\.mlp",
                                          "re:(?:model|x)2?",
                                          "re:lm_head",
                                          "re:lm_head2",
                                          "re:x-1/2:3",
                                          "re:.*\\x31",
                                          "re:.*\\u",
                                          "re:.*$",
                                          "re:model\\.layers\\.1\\b",
                                          "model.layers.1.mlp",
                                          "model.layers.1.mlp",
                                          "lm_head",
                                          "",
                                          "model.layers.*.mlp",
                                          "Linear"};
    static const char *const names[] = {"model.layers.1.mlp",
                                        "model.layers.2.mlp",
                                        "model.layers.11.mlp",
                                        "model.layers.12.mlp",
                                        "model.layers.22.mlp",
                                        "model.layers.7.mlp.experts.2.up",
                                        "model.layers.7.mlp.experts.12.up",
                                        "model.layers.7.mlp.experts.120.up",
                                        "model.layers.1",
                                        "model.layers.",
                                        "model",
                                        "lm_head",
                                        "lm_head1",
                                        "lm_head2",
                                        "xmodel.layers.1.mlp",
                                        "model_layers_1",
                                        "modelxlayersx1x",
                                        "a",
                                        "x",
                                        "x2",
                                        "x-1/2:3",
                                        "Model.Layers.2",
                                        "model.blocks.2.x",
                                        "mlp2",
                                        ("\xc3\xa9"
                                         "2"),
                                        "2"};
    enum { TARGETS = sizeof targets / sizeof *targets, NAMES = sizeof names / sizeof *names };
    struct quant_group groups[TARGETS] = {0};
    struct quant_config config = {.groups = groups, .group_count = TARGETS};
    char *copies[TARGETS];
    struct pattern *patterns[TARGETS] = {0};
    struct error error;
    for (int t = 0; t < TARGETS; t++) { /* a group each */
        copies[t] = strdup(targets[t]);
        groups[t] = (struct quant_group){.targets = &copies[t], .target_count = 1};
        if (strncmp(targets[t], "re:", 3) == 0)
            pattern_new(targets[t], &patterns[t], &error);
    }
    struct config_groups *matcher;
    assert_ok(config_groups_make(&config, &matcher, &error), error);
    for (int n = 0; n < 2 * NAMES; n++) { /* the second time from memory */
        const char *name = names[n % NAMES];
        struct group_match match;
        bool wanted[TARGETS] = {0}, found[TARGETS] = {0};
        for (int t = 0; t < TARGETS; t++)
            if (patterns[t])
                assert_ok(pattern_match(patterns[t], name, &wanted[t], &error), error);
            else
                wanted[t] = strcmp(targets[t], name) == 0;
        assert_ok(config_groups_match(matcher, name, strlen(name), true, &match, &error), error);
        for (size_t i = 0; i < match.count; i++) {
            assert_false(found[match.groups[i]]);
            found[match.groups[i]] = true;
        }
        for (int t = 0; t < TARGETS; t++)
            if (wanted[t] != found[t])
                fail_msg("'%s' on '%s' should be %d", targets[t], name, wanted[t]);
    }
    const char *text;
    assert_non_null(config_groups_problem(matcher, 0, &text)); /* \\u is none of PCRE2's, nor of re's without digits */
    assert_string_equal(text, "re:.*\\u");
    assert_null(config_groups_problem(matcher, 1, &text));
    config_groups_free(matcher);
    for (int t = 0; t < TARGETS; t++) {
        pattern_free(patterns[t]);
        free(copies[t]);
    }
}

static void given_a_config_that_no_loader_can_read_then_it_is_invalid_and_says_why(void **state) {
    static const struct {
        const char *config, *says;
    } cases[] = {
        {"{\"quantization_config\": 7}", "error config-invalid quantization_config: it is 7, not an object\n"},
        {"{\"quantization_config\": [1]}", "error config-invalid quantization_config: it is a list, not an object\n"},
        {"{\"quantization_config\": {\"quant_method\": 12345678901234567890123}}",
         "it cannot be read: too big integer"},
        {"{\"quantization_config\": NaN}", "it cannot be read"},
        {"{\"quantization_config\": {}}", "it has no quant_method"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [0, 128]}}",
         "weight_block_size is not"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": \"x\"}}",
         "weight_block_size is not"},
        {CONFIG("\"a\": " MX_GROUP("\"re:(\""), ""),
         "error config-invalid quantization_config: the pattern 're:(' is not"},
        {CONFIG("\"a\": 7", ""), "compressed-tensors refuses the group 'a': it is 7, not an object"},
        {CONFIG("\"a\": {\"targets\": [\"Linear\"], \"weights\": {\"scale\": 1}}", ""),
         "refuses the group 'a': weights: it has the unknown key 'scale'"},
        {CONFIG("\"a\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8}, \"input_activations\": 5}", ""),
         "the group 'a': input_activations: it is 5"},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"quantization_status\": "
         "\"compressed\", \"config_groups\": []}}",
         "compressed-tensors refuses it: config_groups is not an object"},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"kv_cache_scheme\": 7}}",
         "refuses its kv_cache_scheme"},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\"}}",
         "its quantization_status is missing, not \"compressed\""},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"quantization_status\": \"frozen\"}}",
         "its quantization_status is \"frozen\", not"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = formats_findings(*state, cases[i].config, two_formats);
        assert_contains(found, "error config-invalid quantization_config: ");
        assert_contains(found, cases[i].says);
    }
}

static void given_no_packed_weights_then_quantization_status_may_be_missing(void **state) {
    assert_lines(
        formats_findings(
            *state,
            "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": " GROUP(
                "\"Linear\"", FP8_ARGS, "null", "float-quantized") "}}}",
            "a.weight F8_E4M3 32x32\na.weight_scale F32 1\n"),
        "");
}

static void given_a_pattern_that_backtracks_without_end_then_it_is_invalid_and_the_check_ends(void **state) {
    struct text tensors = {0};
    for (int i = 0; i < 500; i++)
        text_printf(&tensors, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab%c%c.weight BF16 2x2\n", 'a' + i % 26,
                    'a' + i / 26);
    clock_t start = clock();
    const char *found = formats_findings(*state, CONFIG("\"a\": " MX_GROUP("\"re:(a+)+$\""), ""), tensors.bytes);
    text_free(&tensors);
    assert_contains(found, "error config-invalid quantization_config: the pattern 're:(a+)+$' fails on");
    assert_true((double)(clock() - start) < 10.0 * CLOCKS_PER_SEC);
}

static void given_a_hundred_thousand_modules_then_the_check_takes_about_a_second(void **state) {
    struct folders *f = *state;
    enum { LAYERS = 100, EXPERTS = 333, PROJECTIONS = 3 };
    static const char *const projections[PROJECTIONS] = {"down_proj", "gate_proj", "up_proj"};
    struct text header = {0};
    text_append_string(&header, "{");
    for (int i = 0; i < LAYERS * EXPERTS * PROJECTIONS; i++) {
        int layer = i / (EXPERTS * PROJECTIONS), expert = i / PROJECTIONS % EXPERTS;
        text_printf(&header,
                    "%s\"model.layers.%d.mlp.experts.%d.%s.weight_packed\":{\"dtype\":\"U8\",\"shape\":[1,16],"
                    "\"data_offsets\":[%d,%d]},\"model.layers.%d.mlp.experts.%d.%s.weight_scale\":{\"dtype\":\"U8\","
                    "\"shape\":[1,1],\"data_offsets\":[%d,%d]}",
                    i ? "," : "", layer, expert, projections[i % PROJECTIONS], 17 * i, 17 * i + 16, layer, expert,
                    projections[i % PROJECTIONS], 17 * i + 16, 17 * i + 17);
    }
    text_append_string(&header, "}");
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.length >> 8 * i);
    struct text file = {0};
    text_append(&file, length, 8);
    text_append(&file, header.bytes, header.length);
    assert_false(file.failed);
    fixture_bytes(f->fixture, "output/model.safetensors", file.bytes, file.length);
    char path[256];
    assert_int_equal(truncate(fixture_path(f->fixture, "output/model.safetensors", path),
                              (off_t)(file.length + 17ull * LAYERS * EXPERTS * PROJECTIONS)),
                     0);
    text_free(&header);
    text_free(&file);
    fixture_shard(f->fixture, "source/model.safetensors", "a.weight BF16 2x2\n");
    fixture_file(f->fixture, "source/config.json", "{}");
    fixture_file(
        f->fixture, "output/config.json",
        CONFIG("\"a\": " MX_GROUP("\"re:.*layers\\\\.\\\\d+\\\\.mlp\\\\.experts\\\\.\\\\d+\\\\.(gate|up|down)_proj$\", "
                                  "\"re:.*layers\\\\.(1|2|3)\\\\.mlp\""),
               "\"re:.*lm_head$\", \"re:.*gate$\""));
    folders_open(f);
    clock_t start = clock();
    assert_lines(findings_of(f, config_formats_check), "");
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 10) /* 0.1 s without sanitizers and emulators */
        fail_msg("%g s", seconds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_json_texts_that_mean_the_same_then_they_are_the_same),
        cmocka_unit_test(given_json_texts_that_mean_something_else_then_they_differ),
        cmocka_unit_test(given_json_that_is_nested_without_end_then_it_is_told_apart_and_nothing_overflows),
        cmocka_unit_test(given_objects_of_many_members_in_another_order_then_comparing_is_fast),
        FOLDERS_TEST(given_a_config_of_the_same_meaning_then_nothing_is_found),
        FOLDERS_TEST(given_another_value_then_the_key_and_both_values_are_told),
        FOLDERS_TEST(given_a_long_value_then_it_is_shortened_to_whole_characters),
        FOLDERS_TEST(given_keys_that_went_or_came_then_one_is_an_error_and_one_a_warning),
        FOLDERS_TEST(given_keys_that_went_and_meant_nothing_then_it_is_a_warning),
        FOLDERS_TEST(given_rope_keys_that_moved_into_rope_parameters_then_their_values_count),
        FOLDERS_TEST(given_thousands_of_keys_that_came_in_then_the_first_are_told_and_how_many_more),
        FOLDERS_TEST(given_a_config_that_describes_every_weight_then_nothing_is_found),
        FOLDERS_TEST(given_weights_that_the_config_describes_otherwise_then_group_format_and_module_are_told),
        FOLDERS_TEST(given_each_stored_format_then_its_arguments_describe_it_and_no_others),
        FOLDERS_TEST(given_a_small_weight_of_one_block_then_the_block_strategy_describes_it),
        FOLDERS_TEST(given_many_modules_with_one_flaw_then_it_is_one_finding_that_counts_them),
        FOLDERS_TEST(given_patterns_that_speak_of_numbers_then_each_name_is_looked_at_itself),
        cmocka_unit_test(given_any_patterns_and_names_then_each_name_has_the_groups_that_plain_matching_gives),
        FOLDERS_TEST(given_a_config_that_no_loader_can_read_then_it_is_invalid_and_says_why),
        FOLDERS_TEST(given_no_packed_weights_then_quantization_status_may_be_missing),
        FOLDERS_TEST(given_a_pattern_that_backtracks_without_end_then_it_is_invalid_and_the_check_ends),
        FOLDERS_TEST(given_a_hundred_thousand_modules_then_the_check_takes_about_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
