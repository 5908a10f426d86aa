/*
 * The operations over many tokens against plain sums in double: matrix products, linear layers of each weight format,
 * attention, the head; and rotary frequencies against those of transformers 5.23.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "infer/cpu/head.h"
#include "infer/rope.h"
#include "weight_values.h"

static uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

static float *random_floats(size_t n, double most, uint64_t seed) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) /* bf16 holds them exactly */
        x[i] = bf16_decode(bf16_encode((float)(uniform(&seed) * most)));
    return x;
}

static void check(const char *what, size_t at, double value, double expected, double allowed) {
    if (!(fabs(value - expected) <= allowed))
        fail_msg("%s, number %zu: %.9g instead of %.9g", what, at, value, expected);
}

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        struct error error;                                                                                            \
        if ((call) != STATUS_OK)                                                                                       \
            fail_msg("%s: %s", #call, error.message);                                                                  \
    } while (0)

static struct engine engine_of(unsigned jobs, bool bf16, size_t packed, size_t scratch) {
    struct engine engine;
    const struct engine_options options = {
        .jobs = jobs, .cpu = cpu_best(), .bf16 = bf16, .packed_size = packed, .scratch_size = scratch};
    assert_ok(engine_open(&options, &engine, &error));
    return engine;
}

/* Operands of a type from floats. */
static unsigned char *act_of(const struct engine *engine, const float *x, size_t n) {
    unsigned char *act = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    act_from_floats(engine, x, (uint32_t)n, act);
    return act;
}

/* ---- products ---- */

static void product_check(const struct engine *engine, uint32_t m, uint32_t n, uint32_t k, bool transposed) {
    float *x = random_floats((size_t)m * k, 1, m), *w = random_floats((size_t)n * k, 1, n + k);
    unsigned char *x_act = act_of(engine, x, (size_t)m * k), *w_act = act_of(engine, w, (size_t)n * k);
    float *y = malloc((size_t)m * n * sizeof *y);
    struct error size_error;
    const size_t size = product_packed_size(engine->products, n, k, &size_error);
    assert_true(size > 0);
    unsigned char *packed = aligned_alloc(64, size);
    const size_t stride = transposed ? n : k;
    struct product_part part = {.n = n, .k = k, .transposed = transposed};
    for (part.n0 = 0; part.n0 < n; part.n0 += PRODUCT_ROWS)
        for (part.k0 = 0; part.k0 < k; part.k0 += PRODUCT_COLUMNS) {
            part.n_part = minimum(PRODUCT_ROWS, n - part.n0);
            part.k_part = minimum(PRODUCT_COLUMNS, k - part.k0);
            const size_t at = transposed ? part.k0 * stride + part.n0 : part.n0 * stride + part.k0;
            assert_ok(product_pack(engine->products, &part, w_act + at * engine->element, stride, packed, &error));
        }
    for (int turn = 1; turn <= 2; turn++) { /* the second is added to the first */
        const struct product product = {.m = m, .n = n, .k = k, .add = turn == 2};
        assert_ok(product_run(engine->products, &product, x_act, packed, y, &error));
        for (size_t i = 0; i < (size_t)m * n; i += 1 + i % 5) {
            double sum = 0, most = 1;
            for (uint32_t c = 0; c < k; c++) {
                const size_t place = transposed ? c * (size_t)n + i % n : i % n * k + c;
                sum += (double)x[i / n * k + c] * (double)w[place];
                most += fabs((double)x[i / n * k + c] * (double)w[place]);
            }
            check("product", i, (double)y[i], turn * sum, most * 1e-6);
        }
    }
    free(x);
    free(w);
    free(x_act);
    free(w_act);
    free(y);
    free(packed);
}

static void given_shapes_of_all_kinds_then_products_are_sums_in_double(void **state) {
    (void)state;
    static const uint32_t ms[] = {1, 7, 256}, ns[] = {1, 10, 64, 200}, ks[] = {1, 31, 512, 700};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct engine engine = engine_of(1, bf16, 0, 0);
        for (int i = 0; i < 3 * 4 * 4; i++)
            product_check(&engine, ms[i % 3], ns[i / 3 % 4], ks[i / 12], false);
        product_check(&engine, 100, 64, 256, true);
        product_check(&engine, 33, 10, 77, true);
        engine_close(&engine);
    }
}

/* ---- linear layers ---- */

enum { WINDOWS = 3, ROWS = 330, COLUMNS = 608, BLOCK = 32 };

static const struct attention_window linear_windows[WINDOWS] = {{0, 5}, {5, 257}, {262, 40}};

struct linear_case {
    enum weight_format format;
    uint32_t scale_rows, scale_columns;
    enum activations activations;
    bool bias;
};

static struct weight weight_make(const struct linear_case *given, uint64_t seed) {
    struct weight weight = {.format = given->format,
                            .rows = ROWS,
                            .columns = COLUMNS,
                            .scale_rows = given->scale_rows,
                            .scale_columns = given->scale_columns,
                            .activations = given->activations,
                            .input_scale = 0.01f,
                            .group = 128,
                            .bias = given->bias ? random_floats(ROWS, 2, seed + 1) : NULL};
    const size_t count = (size_t)ROWS * COLUMNS;
    uint8_t *codes = malloc(count * 4), *exponents = malloc(count / BLOCK);
    float *values = random_floats(count, 1, seed);
    for (size_t i = 0; i < count; i++) {
        const uint16_t half = weight.format == WEIGHT_F16 ? (uint16_t)(random_next(&seed) & 0xbbff) /* below 2 */
                                                          : bf16_encode(values[i]);
        if (weight.format == WEIGHT_F32)
            memcpy(codes + 4 * i, values + i, 4);
        else if (weight.format <= WEIGHT_BF16)
            memcpy(codes + 2 * i, &half, 2);
        else
            codes[i] = weight.format == WEIGHT_MXFP4 ? (uint8_t)random_next(&seed) : fp8_e4m3_encode(values[i] * 100);
    }
    free(values);
    for (size_t i = 0; i < count / BLOCK; i++)
        exponents[i] = (uint8_t)(120 + i % 7);
    float *scales = random_floats(count, 1, seed);
    for (size_t i = 0; i < count; i++)
        scales[i] = 0.25f + fabsf(scales[i]);
    weight.codes = codes;
    weight.exponents = exponents;
    weight.scales = scales;
    return weight;
}

static void weight_free(struct weight *weight) {
    free((void *)(uintptr_t)weight->codes);
    free((void *)(uintptr_t)weight->exponents);
    free((void *)(uintptr_t)weight->scales);
    free((void *)(uintptr_t)weight->bias);
}

/* As served: e4m3(x / scale) * scale, the scale static, of the token, or of a group of columns. */
static void round_activations(const struct weight *weight, const float *x, double *out) {
    const uint32_t run = weight->activations == ACTIVATIONS_FP8_GROUP ? weight->group : COLUMNS;
    for (uint32_t at = 0; at < COLUMNS; at += run) {
        const uint32_t end = minimum(at + run, COLUMNS);
        float largest = 0;
        for (uint32_t c = at; c < end; c++)
            largest = fmaxf(largest, fabsf(x[c]));
        const float scale = weight->activations == ACTIVATIONS_FP8_STATIC ? weight->input_scale : largest / 448;
        for (uint32_t c = at; c < end; c++)
            out[c] =
                weight->activations == ACTIVATIONS_FLOAT
                    ? (double)x[c]
                    : (double)fp8_e4m3_decode(fp8_e4m3_encode(fmaxf(fminf(x[c] / scale, 448), -448))) * (double)scale;
    }
}

static void tile_keep(void *context, struct tile *tile) {
    float **y = context;
    for (unsigned which = 0; which < 2 && tile->y[which]; which++)
        for (uint32_t i = 0; i < tile->block->count; i++)
            memcpy(y[which] + (size_t)(tile->block->first + i) * ROWS + tile->row,
                   tile->y[which] + (size_t)i * tile->rows, tile->rows * sizeof(float));
}

/* y of one or two weights, with space for some units only, so that several rounds are needed. */
static void linear_compute(const struct weight *weights, unsigned count, unsigned jobs, bool bf16, const float *x,
                           float **y) {
    struct engine engine = engine_of(jobs, bf16, 0, 0);
    struct group group;
    assert_ok(group_make(linear_windows, WINDOWS, &group, &error));
    struct error size_error;
    assert_ok(engine_space(&engine, linear_packed(&engine, &weights[0], 1, count, &size_error) * jobs,
                           linear_scratch(1, count), &error));
    struct operand_rows inputs[2];
    struct linear linear = {.blocks = group.blocks,
                            .block_count = group.block_count,
                            .row_multiple = 1,
                            .receive = tile_keep,
                            .context = y};
    float row[COLUMNS];
    for (unsigned which = 0; which < count; which++) {
        inputs[which] = (struct operand_rows){.act = aligned_alloc(64, (size_t)group.tokens * COLUMNS * sizeof(float)),
                                              .token_scales = malloc(group.tokens * sizeof(float))};
        operand_begin(&weights[which], &inputs[which]);
        for (uint32_t token = 0; token < group.tokens; token++) {
            memcpy(row, x + (size_t)token * COLUMNS, sizeof row);
            operand_row_fill(&engine, &weights[which], row, token, &inputs[which]);
        }
        linear.weights[which] = &weights[which];
        linear.inputs[which] = &inputs[which];
    }
    assert_ok(linear_run(&engine, &linear, &error));
    for (unsigned which = 0; which < count; which++) {
        free(inputs[which].act);
        free(inputs[which].token_scales);
    }
    group_free(&group);
    engine_close(&engine);
}

static void linear_check(const struct linear_case *given, bool bf16) {
    enum { TOKENS = 302 };
    struct weight weights[2] = {weight_make(given, 1), weight_make(given, 2)};
    float *x = random_floats((size_t)TOKENS * COLUMNS, 3, 3), *y[2], *again[2];
    for (int i = 0; i < 2; i++) {
        y[i] = calloc((size_t)TOKENS * ROWS, sizeof(float));
        again[i] = calloc((size_t)TOKENS * ROWS, sizeof(float));
    }
    linear_compute(weights, 2, 1, bf16, x, y);
    linear_compute(weights, 2, 3, bf16, x, again);
    double rounded[COLUMNS];
    for (uint32_t token = 0; token < TOKENS; token += token % 2 ? 36 : 1)
        for (uint32_t row = 0; row < ROWS; row += row % 2 ? 16 : 1)
            for (int which = 0; which < 2; which++) {
                round_activations(&weights[which], x + (size_t)token * COLUMNS, rounded);
                double sum = 0, most = 1;
                for (uint32_t c = 0; c < COLUMNS; c++) {
                    const double product = rounded[c] * weight_value(&weights[which], row, c);
                    sum += product;
                    most += fabs(product);
                }
                sum += weights[which].bias ? (double)weights[which].bias[row] : 0;
                check(format_names[given->format], (size_t)token * ROWS + row,
                      (double)y[which][(size_t)token * ROWS + row], sum, most * (bf16 ? 3e-3 : 1e-6));
            }
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(y[i], again[i], (size_t)TOKENS * ROWS * sizeof(float)); /* whatever the threads */
        free(y[i]);
        free(again[i]);
        weight_free(&weights[i]);
    }
    free(x);
}

static void given_weights_of_each_format_then_linear_layers_are_sums_in_double(void **state) {
    (void)state;
    static const struct linear_case cases[] = {
        {WEIGHT_F32, ROWS, COLUMNS, ACTIVATIONS_FLOAT, true},
        {WEIGHT_F16, ROWS, COLUMNS, ACTIVATIONS_FLOAT, false},
        {WEIGHT_BF16, ROWS, COLUMNS, ACTIVATIONS_FLOAT, false},
        {WEIGHT_FP8, ROWS, COLUMNS, ACTIVATIONS_FP8_STATIC, false},
        {WEIGHT_FP8, 1, COLUMNS, ACTIVATIONS_FP8_TOKEN, true},
        {WEIGHT_FP8, 128, 128, ACTIVATIONS_FP8_GROUP, false},
        {WEIGHT_MXFP8, 1, COLUMNS, ACTIVATIONS_FLOAT, false},
        {WEIGHT_MXFP4, 1, COLUMNS, ACTIVATIONS_FLOAT, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bf16 = 0; bf16 < 2; bf16++)
            linear_check(&cases[i], bf16);
}

/* ---- attention ---- */

static void attention_check(uint32_t heads, uint32_t kv_heads, uint32_t head_dim, bool bf16) {
    static const struct attention_window windows[] = {{0, 1}, {1, 5}, {6, 256}, {262, 257}, {519, 600}};
    enum { TOKENS = 1119, COUNT = 5 };
    const uint32_t group = heads / kv_heads;
    struct engine engine = engine_of(2, bf16, 0, 0);
    assert_ok(engine_space(&engine, 0, attention_scratch(&engine, head_dim), &error));
    float *q = random_floats((size_t)TOKENS * heads * head_dim, 1, 1),
          *k = random_floats((size_t)TOKENS * kv_heads * head_dim, 3, 2),
          *v = random_floats((size_t)TOKENS * kv_heads * head_dim, 1, 3);
    unsigned char *out = aligned_alloc(64, ((size_t)TOKENS * heads * head_dim * sizeof(float) + 63) / 64 * 64);
    struct error size_error;
    const struct attention attention = {
        .heads = heads,
        .kv_heads = kv_heads,
        .head_dim = head_dim,
        .windows = windows,
        .window_count = COUNT,
        .q = act_of(&engine, q, (size_t)TOKENS * heads * head_dim),
        .k = act_of(&engine, k, (size_t)TOKENS * kv_heads * head_dim),
        .v = act_of(&engine, v, (size_t)TOKENS * kv_heads * head_dim),
        .kv_packed = aligned_alloc(64, attention_packed(&engine, kv_heads, head_dim, 600, COUNT, &size_error)),
        .out = out};
    assert_ok(attention_run(&engine, &attention, &error));
    double scores[600], *expected = malloc(head_dim * sizeof *expected);
    float *space = malloc(head_dim * sizeof *space);
    for (int w = 0; w < COUNT; w++)
        for (uint32_t at = 0; at < windows[w].tokens; at += at % 3 == 2 ? 29 : 1)
            for (uint32_t head = 0; head < heads; head++) {
                const uint32_t first = windows[w].first, tokens = windows[w].tokens, kv_head = head / group;
                const float *query =
                    q + ((size_t)first * heads + ((size_t)kv_head * tokens + at) * group + head % group) * head_dim;
                const size_t row = ((size_t)first * kv_heads + (size_t)kv_head * tokens) * head_dim;
                double most = -INFINITY, sum = 0;
                for (uint32_t t = 0; t <= at; t++) {
                    scores[t] = 0;
                    for (uint32_t i = 0; i < head_dim; i++)
                        scores[t] += (double)query[i] * (double)k[row + (size_t)t * head_dim + i];
                    most = fmax(most, scores[t]);
                }
                memset(expected, 0, head_dim * sizeof *expected);
                for (uint32_t t = 0; t <= at; t++) {
                    sum += scores[t] = exp(scores[t] - most);
                    for (uint32_t i = 0; i < head_dim; i++)
                        expected[i] += scores[t] * (double)v[row + (size_t)t * head_dim + i];
                }
                const size_t place = ((size_t)(first + at) * heads + head) * head_dim;
                const float *values = act_to_floats(&engine, out + place * engine.element, head_dim, space);
                for (uint32_t i = 0; i < head_dim; i++)
                    check("attention", place + i, (double)values[i], expected[i] / sum, bf16 ? 6e-3 : 2e-6);
            }
    free(expected);
    free(space);
    free(q);
    free(k);
    free(v);
    free(out);
    free((void *)(uintptr_t)attention.q);
    free((void *)(uintptr_t)attention.k);
    free((void *)(uintptr_t)attention.v);
    free(attention.kv_packed);
    engine_close(&engine);
}

static void given_windows_of_any_length_then_attention_is_that_of_double(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        attention_check(2, 2, 64, bf16);
        attention_check(6, 2, 10, bf16);
        attention_check(4, 1, 32, bf16);
    }
}

/* ---- the head ---- */

static void given_two_models_then_nll_and_divergence_are_those_of_double(void **state) {
    (void)state;
    enum { TOKENS = 302, VOCABULARY = ROWS };
    const struct linear_case plain = {WEIGHT_BF16, ROWS, COLUMNS, ACTIVATIONS_FLOAT, false};
    struct weight weights[2] = {weight_make(&plain, 5), weight_make(&plain, 6)};
    float *x = random_floats((size_t)TOKENS * COLUMNS, 0.5, 7), *y[2];
    for (int i = 0; i < 2; i++)
        y[i] = calloc((size_t)TOKENS * ROWS, sizeof(float));
    linear_compute(weights, 2, 1, false, x, y);
    struct engine engine = engine_of(2, false, 0, 0);
    struct group group;
    assert_ok(group_make(linear_windows, WINDOWS, &group, &error));
    size_t packed, scratch;
    assert_ok(head_engine_size(&engine, &weights[0], 2, &packed, &scratch, &error));
    assert_ok(engine_space(&engine, packed, scratch, &error));
    struct operand_rows input = {.act = act_of(&engine, x, (size_t)TOKENS * COLUMNS), .scale = 1};
    struct head_token tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        head_token_begin(&tokens[i], i * 31 % VOCABULARY);
    for (uint32_t first = 0; first < VOCABULARY; first += 200) { /* in two slices */
        struct weight slices[2];
        for (int i = 0; i < 2; i++) {
            slices[i] = weights[i];
            slices[i].rows = minimum(200, VOCABULARY - first);
            slices[i].codes = (const unsigned char *)weights[i].codes + first * weight_row_bytes(&weights[i]);
        }
        const struct head_run run = {.weights = {&slices[0], &slices[1]},
                                     .inputs = {&input, &input},
                                     .first_row = first,
                                     .group = &group,
                                     .tokens = tokens};
        assert_ok(head_run(&engine, &run, &error));
    }
    for (uint32_t token = 0; token < TOKENS; token++) {
        double sums[2] = {0, 0}, kl = 0;
        uint32_t tops[2] = {0, 0};
        for (int side = 0; side < 2; side++) {
            const float *logits = y[side] + (size_t)token * ROWS;
            for (uint32_t id = 0; id < VOCABULARY; id++) {
                sums[side] += exp((double)logits[id]);
                tops[side] = logits[id] > logits[tops[side]] ? id : tops[side];
            }
            check("NLL", token, head_nll(&tokens[token], (unsigned)side),
                  log(sums[side]) - (double)logits[tokens[token].target], 2e-5);
            assert_int_equal(tokens[token].sides[side].top, tops[side]);
        }
        for (uint32_t id = 0; id < VOCABULARY; id++) {
            const double a = (double)y[0][(size_t)token * ROWS + id] - log(sums[0]),
                         b = (double)y[1][(size_t)token * ROWS + id] - log(sums[1]);
            kl += exp(b) * (b - a);
        }
        check("divergence", token, head_kl(&tokens[token]), kl, 1e-5 * (1 + kl));
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        weight_free(&weights[i]);
    }
    free(x);
    free(input.act);
    group_free(&group);
    engine_close(&engine);
}

/* ---- rotary frequencies ---- */

static void given_each_rope_then_frequencies_and_factor_are_those_of_transformers(void **state) {
    (void)state;
    enum { MOST = 16 };
    static const struct {
        struct rope rope;
        uint32_t head_dim;
        double factor, frequencies[MOST];
    } cases[] = {
        {{.type = ROPE_DEFAULT, .theta = 10000},
         16,
         1,
         {1, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005, 0.000316227786}},
        {{.type = ROPE_LINEAR, .theta = 10000, .factor = 4},
         16,
         1,
         {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
          7.90569466e-05}},
        {{.type = ROPE_LLAMA3,
          .theta = 500000,
          .factor = 8,
          .low_frequency = 1,
          .high_frequency = 4,
          .original_positions = 8192},
         32,
         1,
         {1, 0.440366626, 0.193922758, 0.0853971019, 0.0376060307, 0.0165604409, 0.00729266508, 0.00321144611,
          0.000524846022, 7.78465546e-05, 3.42810235e-05, 1.50962178e-05, 6.64786967e-06, 2.92749974e-06,
          1.28917316e-06, 5.6770881e-07}},
        {{.type = ROPE_YARN,
          .theta = 1000000,
          .factor = 64,
          .original_positions = 64,
          .beta_fast = 4,
          .beta_slow = 1,
          .mscale = 1,
          .truncate = true},
         32,
         1.41588831,
         {1, 0.421696514, 0.0903032497, 0.00117170962, 0.000494105916, 0.000208362733, 8.7865832e-05, 3.70527159e-05,
          1.56250007e-05, 6.58900763e-06, 2.77856157e-06, 1.17170975e-06, 4.94105848e-07, 2.08362721e-07,
          8.78658355e-08, 3.70527147e-08}},
        {{.type = ROPE_YARN,
          .theta = 10000,
          .factor = 16,
          .original_positions = 128,
          .beta_fast = 16,
          .beta_slow = 2,
          .mscale = 1,
          .mscale_all = 0.5},
         32,
         1.12175114,
         {1, 0.477642506, 0.186528906, 0.0587420091, 0.00708049582, 0.00351463305, 0.00197642366, 0.00111142464,
          0.000624999986, 0.000351463328, 0.000197642366, 0.000111142464, 6.2500003e-05, 3.51463314e-05, 1.97642366e-05,
          1.11142463e-05}},
        {{.type = ROPE_YARN,
          .theta = 10000,
          .factor = 4,
          .original_positions = 2048,
          .beta_fast = 32,
          .beta_slow = 1,
          .attention_factor = 1.5,
          .attention_given = true,
          .truncate = true},
         16,
         1.5,
         {1, 0.316227764, 0.100000001, 0.025693506, 0.00624999963, 0.00138349656, 0.000250000012, 7.90569466e-05}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float frequencies[MOST];
        const float factor = rope_frequencies(&cases[i].rope, cases[i].head_dim, frequencies);
        check("factor", i, (double)factor, cases[i].factor, 1e-7 * cases[i].factor);
        for (uint32_t pair = 0; pair < cases[i].head_dim / 2; pair++)
            check("frequency", pair, (double)frequencies[pair], cases[i].frequencies[pair],
                  1e-6 * cases[i].frequencies[pair]);
    }
}

static void given_llama_4_scaling_then_queries_grow_at_each_multiple_of_the_first_context(void **state) {
    (void)state;
    const struct rope rope = {.type = ROPE_YARN, .original_positions = 64, .query_beta = 0.1};
    check("scale", 63, (double)rope_query_scale(&rope, 63), 1, 0);
    check("scale", 64, (double)rope_query_scale(&rope, 64), 1 + 0.1 * log(2), 1e-7);
    check("scale", 127, (double)rope_query_scale(&rope, 127), 1 + 0.1 * log(2), 1e-7);
    check("scale", 640, (double)rope_query_scale(&rope, 640), 1 + 0.1 * log(11), 2e-7);
    const struct rope none = {.type = ROPE_YARN, .original_positions = 64};
    check("scale", 640, (double)rope_query_scale(&none, 640), 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_shapes_of_all_kinds_then_products_are_sums_in_double),
        cmocka_unit_test(given_weights_of_each_format_then_linear_layers_are_sums_in_double),
        cmocka_unit_test(given_windows_of_any_length_then_attention_is_that_of_double),
        cmocka_unit_test(given_two_models_then_nll_and_divergence_are_those_of_double),
        cmocka_unit_test(given_each_rope_then_frequencies_and_factor_are_those_of_transformers),
        cmocka_unit_test(given_llama_4_scaling_then_queries_grow_at_each_multiple_of_the_first_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
