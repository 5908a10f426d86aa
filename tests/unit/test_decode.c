/*
 * A model that takes one token after another, against the engine that takes whole windows (ppl): the same tokens have to
 * cost the same, in every format, over the boundaries of the cache's chunks, for any number of threads.
 */
#define weight_format recipe_format /* recipes have one of that name, too */
#include "tests/unit/fixtures.h"
#undef weight_format

#include <math.h>

#include "infer/generate.h"
#include "infer/kv_cache.h"
#include "infer/perplexity.h"

enum { VOCABULARY = 96, TOKENS = 2 * KV_CHUNK + 45, LAYERS = 2 };

#define SHAPE                                                                                                          \
    "\"vocab_size\": 96, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, "                   \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32, \"rms_norm_eps\": 1e-5, "               \
    "\"max_position_embeddings\": 400, \"hidden_act\": \"silu\""

static const char plain_config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"dtype\": \"bfloat16\", " SHAPE
    ", \"rope_theta\": 10000.0, \"tie_word_embeddings\": true}";
static const char fp8_config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"dtype\": \"bfloat16\", " SHAPE
    ", \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"quantization_config\": {\"quant_method\": \"fp8\", "
    "\"activation_scheme\": \"dynamic\", \"weight_block_size\": [32, 32]}}";
static const char mxfp4_config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"dtype\": \"bfloat16\", " SHAPE
    ", \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"quantization_config\": {\"quant_method\": "
    "\"compressed-tensors\", \"format\": \"mxfp4-pack-quantized\", \"quantization_status\": \"compressed\", "
    "\"ignore\": [\"lm_head\"], \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": "
    "{\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32, \"symmetric\": true, "
    "\"dynamic\": false, \"scale_dtype\": \"torch.uint8\"}, \"input_activations\": null, \"output_activations\": null, "
    "\"format\": \"mxfp4-pack-quantized\"}}}}";

enum kind { KIND_BF16, KIND_F16, KIND_F32, KIND_FP8, KIND_MXFP4, KINDS };
static const char *const kind_names[] = {"BF16", "F16", "F32", "FP8", "MXFP4"};

static void weight_append(struct text *shard, enum kind kind, unsigned layer, const char *name, unsigned rows,
                          unsigned columns) {
    char module[100];
    snprintf(module, sizeof module, "model.layers.%u.%s", layer, name);
    if (kind == KIND_FP8)
        text_printf(shard, "%s.weight F8_E4M3 %ux%u\n%s.weight_scale_inv F32 %ux%u\n", module, rows, columns, module,
                    rows / 32, columns / 32);
    else if (kind == KIND_MXFP4)
        text_printf(shard, "%s.weight_packed U8 %ux%u\n%s.weight_scale U8 %ux%u\n", module, rows, columns / 2, module,
                    rows, columns / 32);
    else
        text_printf(shard, "%s.weight %s %ux%u\n", module, kind_names[kind], rows, columns);
}

/* `head`: its tensors. */
static void model_make_headed(struct fixture *fixture, enum kind kind, const char *head, const char *config) {
    static const struct {
        const char *name;
        unsigned rows, columns;
    } weights[] = {{"self_attn.q_proj", 128, 64}, {"self_attn.k_proj", 64, 64}, {"self_attn.v_proj", 64, 64},
                   {"self_attn.o_proj", 64, 128}, {"mlp.gate_proj", 96, 64},    {"mlp.up_proj", 96, 64},
                   {"mlp.down_proj", 64, 96}};
    fixture_clear(fixture);
    struct text shard = {0};
    text_printf(&shard, "model.embed_tokens.weight BF16 96x64\nmodel.norm.weight BF16 64\n");
    text_append_string(&shard, head);
    for (unsigned layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
            weight_append(&shard, kind, layer, weights[i].name, weights[i].rows, weights[i].columns);
        text_printf(&shard,
                    "model.layers.%u.input_layernorm.weight BF16 64\n"
                    "model.layers.%u.post_attention_layernorm.weight BF16 64\n",
                    layer, layer);
    }
    fixture_shard(fixture, "model.safetensors", shard.bytes);
    text_free(&shard);
    fixture_file(fixture, "config.json", config);
}

static void model_make(struct fixture *fixture, enum kind kind) {
    model_make_headed(fixture, kind, kind >= KIND_FP8 ? "lm_head.weight BF16 96x64\n" : "",
                      kind == KIND_FP8     ? fp8_config
                      : kind == KIND_MXFP4 ? mxfp4_config
                                           : plain_config);
}

static void ids_fill(int32_t ids[TOKENS]) {
    uint64_t seed = 4;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(fixture_random(&seed) % VOCABULARY);
}

/* ---- the two ways ---- */

static struct decode_options options_of(enum cpu_level cpu, unsigned jobs) {
    return (struct decode_options){.model = {.activations_float = true},
                                   .positions = TOKENS,
                                   .least = TOKENS,
                                   .memory = 1 << 30,
                                   .jobs = jobs,
                                   .cpu = cpu,
                                   .quiet = true};
}

static struct decoder *decoder_of(struct fixture *fixture, const struct decode_options *options) {
    struct decoder *decoder;
    assert_ok(decoder_open(fixture->path, options, &decoder, &fixture->error), fixture->error);
    return decoder;
}

/* nll[i] of token i + 1. */
static void decode_nlls(struct fixture *fixture, const struct decode_options *options, const int32_t *ids,
                        float nll[TOKENS - 1]) {
    struct decoder *decoder = decoder_of(fixture, options);
    for (int i = 0; i < TOKENS - 1; i++) {
        float *logits;
        double sum = 0;
        assert_ok(decode_token(decoder, ids[i], &logits, &fixture->error), fixture->error);
        float most = logits[0];
        for (int id = 1; id < VOCABULARY; id++)
            most = logits[id] > most ? logits[id] : most;
        for (int id = 0; id < VOCABULARY; id++)
            sum += exp((double)logits[id] - (double)most);
        nll[i] = (float)(log(sum) + (double)most - (double)logits[ids[i + 1]]);
    }
    assert_int_equal(decoder_position(decoder), TOKENS - 1);
    decoder_close(decoder);
}

static void window_nlls(struct fixture *fixture, enum kv_cache kv_cache, bool activations_float, const int32_t *ids,
                        float nll[TOKENS - 1]) {
    const struct ppl_options options = {.model = fixture->path,
                                        .protocol = {.window = TOKENS, .stride = TOKENS, .windows = 1},
                                        .compute = COMPUTE_F32,
                                        .kv_cache = kv_cache,
                                        .activations_float = activations_float,
                                        .memory = 1 << 30,
                                        .jobs = 1,
                                        .cpu = cpu_best(),
                                        .quiet = true};
    struct ppl_result result = {0};
    assert_ok(ppl_run(&options, ids, TOKENS, &result, &fixture->error), fixture->error);
    assert_int_equal(result.tokens_scored, TOKENS - 1);
    for (int i = 0; i < TOKENS - 1; i++)
        nll[i] = result.tokens[i].nll;
    ppl_result_free(&result);
}

static void nlls_check(const char *what, const float *nll, const float *expected, double allowed) {
    for (int i = 0; i < TOKENS - 1; i++)
        if (!(fabs((double)nll[i] - (double)expected[i]) <= allowed * (1 + fabs((double)expected[i]))))
            fail_msg("%s: token %d costs %.7g instead of %.7g", what, i + 1, (double)nll[i], (double)expected[i]);
}

/* ---- tests ---- */

static void given_a_format_then_each_token_costs_what_it_does_in_a_window(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    float nll[TOKENS - 1], expected[TOKENS - 1];
    ids_fill(ids);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        model_make(fixture, kind);
        window_nlls(fixture, KV_CACHE_AUTO, true, ids, expected);
        for (enum cpu_level level = 0; level < CPU_LEVELS; level++)
            if (cpu_has(level)) {
                const struct decode_options options = options_of(level, 1);
                decode_nlls(fixture, &options, ids, nll);
                /* x of MXFP4 is rounded to 16 bits on some levels */
                nlls_check(kind_names[kind], nll, expected, kind == KIND_MXFP4 ? 3e-3 : 1e-4);
            }
    }
}

static void given_a_head_in_fp8_then_both_ways_round_what_goes_into_it(void **state) {
    struct fixture *fixture = *state;
    static const char *const heads[] = {
        "lm_head.weight F8_E4M3 96x64\nlm_head.weight_scale_inv F32 3x2\n",  /* dynamic, by group */
        "lm_head.weight F8_E4M3 96x64\nlm_head.weight_scale_inv F32 96x1\n", /* by token */
        "lm_head.weight F8_E4M3 96x64\nlm_head.weight_scale_inv F32 1\nlm_head.activation_scale F32 1\n"};
    int32_t ids[TOKENS];
    float nll[TOKENS - 1], expected[TOKENS - 1], unrounded[TOKENS - 1];
    ids_fill(ids);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        model_make_headed(fixture, KIND_BF16, heads[i], fp8_config);
        struct decode_options options = options_of(cpu_best(), 1);
        decode_nlls(fixture, &options, ids, unrounded);
        options.model.activations_float = false;
        decode_nlls(fixture, &options, ids, nll);
        window_nlls(fixture, KV_CACHE_AUTO, false, ids, expected);
        double mean = 0, rounding = 0; /* single tokens move when a sum's last bit turns a rounding */
        for (int j = 0; j < TOKENS - 1; j++) {
            mean += fabs((double)nll[j] - (double)expected[j]) / (TOKENS - 1);
            rounding += fabs((double)nll[j] - (double)unrounded[j]) / (TOKENS - 1);
        }
        if (!(mean < 5e-2 * rounding))
            fail_msg("head %zu: the two are %g apart, rounding moves tokens by %g", i, mean, rounding);
    }
}

static void given_a_smaller_cache_then_tokens_cost_what_they_do_with_rounded_keys(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    float nll[TOKENS - 1], expected[TOKENS - 1];
    ids_fill(ids);
    model_make(fixture, KIND_BF16);
    for (enum kv_cache kv_cache = KV_CACHE_BF16; kv_cache <= KV_CACHE_FP8; kv_cache++) {
        struct decode_options options = options_of(cpu_best(), 1);
        options.kv_cache = kv_cache;
        decode_nlls(fixture, &options, ids, nll);
        window_nlls(fixture, kv_cache, true, ids, expected);
        double mean = 0; /* single tokens move when a sum's last bit turns a rounding */
        for (int i = 0; i < TOKENS - 1; i++)
            mean += ((double)nll[i] - (double)expected[i]) / (TOKENS - 1);
        assert_true(fabs(mean) < 0.02);
        nlls_check("rounded keys", nll, expected, 0.3);
    }
}

static void given_any_number_of_threads_then_costs_are_the_same_to_the_bit(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    float nll[3][TOKENS - 1];
    ids_fill(ids);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        model_make(fixture, kind);
        for (unsigned jobs = 1; jobs <= 3; jobs++) {
            struct decode_options options = options_of(cpu_best(), jobs);
            options.model.activations_float = false; /* rounding would show the smallest difference */
            decode_nlls(fixture, &options, ids, nll[jobs - 1]);
        }
        assert_memory_equal(nll[0], nll[1], sizeof nll[0]);
        assert_memory_equal(nll[0], nll[2], sizeof nll[0]);
    }
}

/* One layer sees nothing but its window, and rotation tells differences of positions only. */
static void given_a_sliding_window_then_older_tokens_are_not_seen(void **state) {
    struct fixture *fixture = *state;
    enum { WINDOW = KV_CHUNK + 37 };
    int32_t ids[TOKENS];
    float *logits, whole[VOCABULARY];
    ids_fill(ids);
    model_make(fixture, KIND_BF16);
    fixture_file(fixture, "config.json",
                 "{\"architectures\": [\"MistralForCausalLM\"], \"model_type\": \"mistral\", \"vocab_size\": 96, "
                 "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 1, \"num_attention_heads\": "
                 "4, \"num_key_value_heads\": 2, \"head_dim\": 32, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
                 "\"max_position_embeddings\": 400, \"sliding_window\": 165, \"rope_theta\": 10000.0, "
                 "\"tie_word_embeddings\": true}");
    const struct decode_options options = options_of(cpu_best(), 2);
    struct decoder *decoder = decoder_of(fixture, &options);
    assert_int_equal(decoder_model(decoder)->sliding_window, WINDOW);
    assert_ok(decode_prefill(decoder, ids, TOKENS, &logits, &fixture->error), fixture->error);
    memcpy(whole, logits, sizeof whole);
    decoder_restart(decoder);
    assert_ok(decode_prefill(decoder, ids + TOKENS - WINDOW, WINDOW, &logits, &fixture->error), fixture->error);
    for (int id = 0; id < VOCABULARY; id++)
        assert_true(fabsf(whole[id] - logits[id]) <= 2e-4f * (1 + fabsf(whole[id])));
    decoder_restart(decoder); /* one token less is another result */
    assert_ok(decode_prefill(decoder, ids + TOKENS - WINDOW + 1, WINDOW - 1, &logits, &fixture->error), fixture->error);
    float most = 0;
    for (int id = 0; id < VOCABULARY; id++)
        most = fmaxf(most, fabsf(whole[id] - logits[id]) / (1 + fabsf(whole[id])));
    assert_true(most > 1e-3f);
    decoder_close(decoder);
}

static void given_a_prompt_then_prefill_leaves_what_single_tokens_do(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    float *logits, single[VOCABULARY];
    ids_fill(ids);
    model_make(fixture, KIND_MXFP4);
    const struct decode_options options = options_of(cpu_best(), 2);
    struct decoder *decoder = decoder_of(fixture, &options);
    for (int i = 0; i < 20; i++)
        assert_ok(decode_token(decoder, ids[i], i == 19 ? &logits : NULL, &fixture->error), fixture->error);
    memcpy(single, logits, sizeof single);
    decoder_restart(decoder);
    assert_ok(decode_prefill(decoder, ids, 20, &logits, &fixture->error), fixture->error);
    assert_memory_equal(single, logits, sizeof single);
    decoder_close(decoder);
}

static void given_what_cannot_be_taken_then_it_is_refused_and_told(void **state) {
    struct fixture *fixture = *state;
    struct decoder *decoder;
    float *logits;
    model_make(fixture, KIND_BF16);
    struct decode_options options = options_of(cpu_best(), 1);
    options.positions = 1000;
    options.least = 401;
    assert_refused(decoder_open(fixture->path, &options, &decoder, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "context of 400");
    assert_null(decoder);
    options.least = 400;
    decoder = decoder_of(fixture, &options);
    assert_int_equal(decoder_positions(decoder), 400);
    assert_refused(decode_token(decoder, VOCABULARY, &logits, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "vocabulary of 96");
    assert_refused(decode_token(decoder, -1, &logits, &fixture->error), STATUS_BAD_INPUT, fixture->error, "token -1");
    for (int i = 0; i < 400; i++)
        assert_ok(decode_token(decoder, 1, NULL, &fixture->error), fixture->error);
    assert_refused(decode_token(decoder, 1, NULL, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "more than 400 tokens");
    decoder_close(decoder);
    options.memory = 100000;
    assert_refused(decoder_open(fixture->path, &options, &decoder, &fixture->error), STATUS_USAGE, fixture->error,
                   "too small");
    options.memory = 1 << 30;
    options.positions = options.least = UINT32_MAX; /* nothing overflows */
    assert_refused(decoder_open(fixture->path, &options, &decoder, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "context");
}

/* ---- generation ---- */

struct made {
    int32_t ids[64];
    uint32_t count, most;
};

static enum status made_append(void *context, int32_t id, struct error *error) {
    struct made *made = context;
    made->ids[made->count++] = id;
    return made->count > made->most ? error_set(error, STATUS_IO, "full") : STATUS_OK;
}

static void given_a_prompt_then_the_most_probable_tokens_follow_until_the_end(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    ids_fill(ids);
    model_make(fixture, KIND_BF16);
    const struct decode_options options = options_of(cpu_best(), 1);
    struct decoder *decoder = decoder_of(fixture, &options);
    struct generation generation = {.prompt = ids, .prompt_count = 5, .tokens = 30, .sampling = {.top_p = 1}};
    struct generation_result result;
    struct made made = {.most = 64}, again = {.most = 64};
    assert_ok(generation_run(decoder, &generation, made_append, &made, &result, &fixture->error), fixture->error);
    assert_int_equal(result.tokens, 30);
    assert_int_equal(made.count, 30);
    assert_int_equal(result.steps, 29);
    assert_int_equal(result.stop, STOP_TOKENS);
    float *logits; /* each is the most probable one behind those before it */
    decoder_restart(decoder);
    assert_ok(decode_prefill(decoder, ids, 5, &logits, &fixture->error), fixture->error);
    for (int i = 0; i < 30; i++) {
        for (int id = 0; id < VOCABULARY; id++)
            assert_true(logits[id] <= logits[made.ids[i]]);
        assert_ok(decode_token(decoder, made.ids[i], &logits, &fixture->error), fixture->error);
    }
    uint32_t first = 0; /* the token that ends it is not among those that are given */
    while (made.ids[first] != made.ids[12])
        first++;
    const int32_t ends[] = {-1, made.ids[12]};
    generation.ends = ends;
    generation.end_count = 2;
    decoder_restart(decoder);
    assert_ok(generation_run(decoder, &generation, made_append, &again, &result, &fixture->error), fixture->error);
    assert_int_equal(result.stop, STOP_END);
    assert_int_equal(again.count, first);
    assert_memory_equal(again.ids, made.ids, first * sizeof *made.ids);
    decoder_close(decoder);
}

static void given_no_space_or_a_receiver_that_fails_then_generation_ends(void **state) {
    struct fixture *fixture = *state;
    int32_t ids[TOKENS];
    ids_fill(ids);
    model_make(fixture, KIND_BF16);
    struct decode_options options = options_of(cpu_best(), 1);
    options.positions = options.least = 12;
    struct decoder *decoder = decoder_of(fixture, &options);
    const struct generation generation = {
        .prompt = ids, .prompt_count = 5, .tokens = 30, .sampling = {.top_p = 1, .temperature = 1}};
    struct generation_result result;
    struct made made = {.most = 64};
    assert_ok(generation_run(decoder, &generation, made_append, &made, &result, &fixture->error), fixture->error);
    assert_int_equal(result.stop, STOP_CONTEXT);
    assert_int_equal(result.tokens, 8); /* behind 12 tokens there is a last one */
    decoder_restart(decoder);
    made = (struct made){.most = 2};
    assert_refused(generation_run(decoder, &generation, made_append, &made, &result, &fixture->error), STATUS_IO,
                   fixture->error, "full");
    assert_int_equal(made.count, 3);
    decoder_close(decoder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_format_then_each_token_costs_what_it_does_in_a_window),
        TEST(given_a_head_in_fp8_then_both_ways_round_what_goes_into_it),
        TEST(given_a_smaller_cache_then_tokens_cost_what_they_do_with_rounded_keys),
        TEST(given_any_number_of_threads_then_costs_are_the_same_to_the_bit),
        TEST(given_a_sliding_window_then_older_tokens_are_not_seen),
        TEST(given_a_prompt_then_prefill_leaves_what_single_tokens_do),
        TEST(given_what_cannot_be_taken_then_it_is_refused_and_told),
        TEST(given_a_prompt_then_the_most_probable_tokens_follow_until_the_end),
        TEST(given_no_space_or_a_receiver_that_fails_then_generation_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
