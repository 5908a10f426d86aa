/*
 * The head's running sums over runs of the vocabulary, against log-softmax in double and the CPU's head.
 */
#include "tests/cuda/test_plugin.h"

#include "infer/cpu/head.h"

struct head_case {
    uint32_t tokens, vocabulary, chunk;
    unsigned sides;
    struct weight_shape shape; /* of rows [0, vocabulary), one column */
    float scale;
    bool per_token;
};

/* Logits of a side as products: y, and what they are with all scales. */
struct logits {
    struct weight host;
    float *y;            /* [tokens, vocabulary] */
    float *token_scales; /* on the host, or NULL */
    double *values;
};

static struct logits logits_make(const struct head_case *of, uint64_t seed) {
    const size_t n = (size_t)of->tokens * of->vocabulary;
    struct weight_shape shape = of->shape;
    shape.rows = of->vocabulary;
    shape.columns = shape.format >= WEIGHT_MXFP8 ? WEIGHT_BLOCK : 1;
    struct logits logits = {.host = weight_make(&shape, seed), .y = random_floats(n, 6, seed + 1)};
    for (size_t i = 0; i < n; i++) /* some are far above the others */
        logits.y[i] *= i % 977 == 5 ? 2.5f : 1;
    if (of->per_token) {
        logits.token_scales = random_floats(of->tokens, 0.5, seed + 2);
        for (uint32_t t = 0; t < of->tokens; t++)
            logits.token_scales[t] += 1;
    }
    return logits;
}

static void logits_value(const struct head_case *of, struct logits *logits) {
    const size_t n = (size_t)of->tokens * of->vocabulary;
    logits->values = host_memory(n * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        const uint32_t row = (uint32_t)(i % of->vocabulary);
        logits->values[i] = (double)logits->y[i] * (double)of->scale * (double)scale_left(&logits->host, row) *
                                (logits->token_scales ? (double)logits->token_scales[i / of->vocabulary] : 1) +
                            (logits->host.bias ? (double)logits->host.bias[row] : 0);
    }
}

/*
 * In chunks: `first` counts in a weight that holds the rows of two chunks, as a run of the vocabulary that was loaded and
 * is multiplied in parts.
 */
static struct head_token *head_compute(const struct head_case *of, const struct logits *sides,
                                       const struct head_token *begin) {
    struct head_token *tokens = on_device(begin, of->tokens * sizeof *begin);
    struct weight weights[2];
    const float *token_scales[2] = {NULL, NULL};
    for (unsigned side = 0; side < of->sides; side++) {
        weights[side] = weight_on_device(&sides[side].host);
        if (sides[side].token_scales)
            token_scales[side] = on_device(sides[side].token_scales, of->tokens * sizeof(float));
    }
    float *y = host_memory((size_t)of->tokens * of->chunk * sizeof *y);
    float *memory[2];
    for (unsigned side = 0; side < of->sides; side++)
        memory[side] = for_result((size_t)of->tokens * of->chunk * sizeof *y);
    for (uint32_t first = 0; first < of->vocabulary; first += of->chunk) {
        const uint32_t rows = minimum(of->chunk, of->vocabulary - first);
        struct cuda_result results[2];
        for (unsigned side = 0; side < of->sides; side++) {
            for (size_t t = 0; t < of->tokens; t++)
                memcpy(y + t * rows, sides[side].y + t * of->vocabulary + first, rows * sizeof *y);
            to_device(memory[side], y, (size_t)of->tokens * rows * sizeof *y);
            results[side] = (struct cuda_result){.y = memory[side],
                                                 .tokens = of->tokens,
                                                 .first = first,
                                                 .rows = rows,
                                                 .weight = &weights[side],
                                                 .scale = of->scale,
                                                 .token_scales = token_scales[side]};
        }
        plugin->head_update(device, results, of->sides, first, tokens);
    }
    tokens = device_bytes(tokens, of->tokens * sizeof *tokens);
    for (uint32_t t = 0; t < of->tokens; t++) { /* not what lies between the members */
        for (unsigned side = 0; side < 2; side++) {
            const struct head_side *of_side = &tokens[t].sides[side];
            digest_add(&of_side->sum, sizeof of_side->sum);
            digest_add(&of_side->most, sizeof of_side->most);
            digest_add(&of_side->target, sizeof of_side->target);
            digest_add(&of_side->top, sizeof of_side->top);
        }
        digest_add(&tokens[t].cross, sizeof tokens[t].cross);
    }
    return tokens;
}

static struct head_token *tokens_begin(const struct head_case *of) {
    struct head_token *tokens = memset(host_memory(of->tokens * sizeof *tokens), 0, of->tokens * sizeof *tokens);
    for (uint32_t t = 0; t < of->tokens; t++)
        head_token_begin(&tokens[t], (uint32_t)((uint64_t)t * 7919 % of->vocabulary));
    tokens[of->tokens - 1].target = of->vocabulary - 1;
    return tokens;
}

static void side_check(const struct head_case *of, const struct head_token *token, uint32_t t, unsigned side,
                       const double *values, double *log_sum) {
    double most = -INFINITY, sum = 0;
    uint32_t top = 0;
    for (uint32_t id = 0; id < of->vocabulary; id++)
        if (values[id] > most) {
            most = values[id];
            top = id;
        }
    for (uint32_t id = 0; id < of->vocabulary; id++)
        sum += exp(values[id] - most);
    *log_sum = log(sum) + most;
    const double size = fabs(most) + 10; /* each logit has a few roundings, an exponential some more */
    check("largest logit", t, (double)token->sides[side].most, most, size * 4 * ROUNDING);
    check("target's logit", t, (double)token->sides[side].target, values[token->target], size * 4 * ROUNDING);
    check("NLL", t, head_nll(token, side), *log_sum - values[token->target], size * 16 * ROUNDING);
    /* where two are the same but for rounding, either may be the largest */
    if (token->sides[side].top != top &&
        !(token->sides[side].top < of->vocabulary && most - values[token->sides[side].top] < size * 4 * ROUNDING &&
          of->scale != 1))
        fail_msg("token %u, side %u: the top is %u instead of %u", t, side, token->sides[side].top, top);
}

static void head_check(const struct head_case *of, uint64_t seed) {
    struct logits sides[2];
    for (unsigned side = 0; side < of->sides; side++) {
        sides[side] = logits_make(of, seed + side * 10);
        for (uint32_t t = 0; t < of->tokens; t++) { /* the largest one twice or more: the first is the top */
            float *y = sides[side].y + (size_t)t * of->vocabulary;
            if (t % 4 == 1 && of->vocabulary > 2)
                y[of->vocabulary / 3] = y[of->vocabulary / 2] = y[of->vocabulary - 1] = 31;
            if (t % 4 == 2) /* one after another larger */
                for (uint32_t id = 0; id < of->vocabulary; id += 1 + of->vocabulary / 50)
                    y[id] = 20.0f * (float)id / (float)of->vocabulary;
        }
        logits_value(of, &sides[side]);
    }
    const struct head_token *tokens = head_compute(of, sides, tokens_begin(of));
    for (uint32_t t = 0; t < of->tokens; t++) {
        double log_sums[2] = {0, 0}, kl = 0;
        const double *a = sides[0].values + (size_t)t * of->vocabulary;
        for (unsigned side = 0; side < of->sides; side++)
            side_check(of, &tokens[t], t, side, sides[side].values + (size_t)t * of->vocabulary, &log_sums[side]);
        if (of->sides == 1) {
            const struct head_side *other = &tokens[t].sides[1];
            assert_true(other->sum == 0 && other->most == -INFINITY && other->target == 0 && other->top == 0);
            assert_true(tokens[t].cross == 0);
            continue;
        }
        const double *b = sides[1].values + (size_t)t * of->vocabulary;
        for (uint32_t id = 0; id < of->vocabulary; id++)
            kl += exp(b[id] - log_sums[1]) * (b[id] - log_sums[1] - a[id] + log_sums[0]);
        check("divergence", t, head_kl(&tokens[t]), kl, 5e-6 * (1 + kl));
    }
}

static void given_vocabularies_in_runs_then_nll_and_divergence_are_those_of_double(void **state) {
    (void)state;
    static const struct weight_shape plain = {.format = WEIGHT_BF16}, row = {.format = WEIGHT_FP8, .scale_rows = 1},
                                     all = {.format = WEIGHT_FP8, .bias = true};
    const struct head_case cases[] = {
        {1, 1, 1, 2, plain, 1, false},        {3, 2, 1, 2, plain, 1, false},
        {5, 33, 7, 1, plain, 1, false},       {3, 20, 1, 2, plain, 1, false},
        {9, 512, 512, 2, plain, 1, false},    {scaled(37, 3), 512, 200, 1, plain, 1, false},
        {6, 1000, 333, 2, row, 0.7f, true},   {6, 1000, 333, 1, row, 0.7f, false},
        {5, 777, 256, 2, all, 0.0137f, true}, {4, 1025, 1024, 2, all, 1.5f, false},
        {3, 4099, 1000, 2, plain, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        head_check(&cases[i], i);
}

static void given_vocabularies_of_true_size_then_nll_and_divergence_are_those_of_double(void **state) {
    (void)state;
    const struct weight_shape plain = {.format = WEIGHT_BF16};
    const struct head_case cases[] = {{2, scaled(131072, 3000), 40000, 2, plain, 1, false},
                                      {3, scaled(49152, 4000), 49152, 2, plain, 1, false},
                                      {3, scaled(49152, 4000), 20000, 1, plain, 1, false},
                                      {very_many(), 2, 2, 2, plain, 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        head_check(&cases[i], i);
}

/* Minus infinity has no share; NaN and infinity must show in the results. */
static void given_logits_that_are_not_finite_then_neither_is_what_they_count_in(void **state) {
    (void)state;
    enum { TOKENS = 8, VOCABULARY = 300 };
    const struct head_case of = {TOKENS, VOCABULARY, 100, 2, {.format = WEIGHT_BF16}, 1, false};
    struct logits sides[2] = {logits_make(&of, 1), logits_make(&of, 2)};
    float *a = sides[0].y, *b = sides[1].y;
    a[0 * VOCABULARY + 150] = NAN;
    b[1 * VOCABULARY + 299] = NAN;
    a[2 * VOCABULARY + 0] = NAN;
    b[2 * VOCABULARY + 0] = NAN;
    a[3 * VOCABULARY + 120] = INFINITY;
    b[4 * VOCABULARY + 10] = INFINITY;
    a[5 * VOCABULARY + 30] = -INFINITY;
    for (int id = 101; id < 290; id++)
        a[6 * VOCABULARY + id] = -INFINITY; /* nearly all of a run */
    a[7 * VOCABULARY] = a[7 * VOCABULARY + 1] = -INFINITY;
    for (int i = 0; i < 2; i++)
        logits_value(&of, &sides[i]);
    struct head_token *begin = tokens_begin(&of);
    for (uint32_t t = 0; t < TOKENS; t++)
        begin[t].target = 60; /* whose logit is finite in all */
    const struct head_token *tokens = head_compute(&of, sides, begin);
    static const bool finite[TOKENS][3] = {{false, true, false}, {true, false, false}, {false, false, false},
                                           {false, true, false}, {true, false, false}, {true, true, false},
                                           {true, true, false},  {true, true, false}};
    for (uint32_t t = 0; t < TOKENS; t++) {
        for (unsigned side = 0; side < 2; side++) {
            const double nll = head_nll(&tokens[t], side);
            if (isfinite(nll) != finite[t][side])
                fail_msg("token %u, side %u: NLL is %g", t, side, nll);
            double log_sum;
            if (finite[t][side])
                side_check(&of, &tokens[t], t, side, sides[side].values + (size_t)t * VOCABULARY, &log_sum);
        }
        if (isfinite(head_kl(&tokens[t])) != finite[t][2])
            fail_msg("token %u: divergence is %g", t, head_kl(&tokens[t]));
    }
    /* a target that is NaN or has no share */
    for (uint32_t t = 0; t < TOKENS; t++)
        begin[t].target = t == 0 ? 150 : t == 5 ? 30 : 60;
    tokens = head_compute(&of, sides, begin);
    assert_true(!isfinite(head_nll(&tokens[0], 0)));
    assert_true(head_nll(&tokens[5], 0) == INFINITY);
}

/* The CPU's head takes products: of a weight whose column t holds the logits of token t, with an x that is 1 there. */
static void given_two_models_then_sums_are_those_of_the_cpu(void **state) {
    (void)state;
    enum { TOKENS = 5, VOCABULARY = 700 };
    const struct head_case of = {TOKENS, VOCABULARY, 300, 2, {.format = WEIGHT_F32}, 1, false};
    const struct logits sides[2] = {logits_make(&of, 3), logits_make(&of, 4)};
    const struct head_token *tokens = head_compute(&of, sides, tokens_begin(&of));
    struct engine engine;
    struct error error;
    struct weight weights[2];
    float x[TOKENS][TOKENS] = {{0}};
    for (int side = 0; side < 2; side++) {
        float *codes = host_memory((size_t)TOKENS * VOCABULARY * sizeof *codes);
        for (int i = 0; i < TOKENS * VOCABULARY; i++)
            codes[i % VOCABULARY * TOKENS + i / VOCABULARY] = sides[side].y[i];
        weights[side] = (struct weight){.format = WEIGHT_F32, .rows = VOCABULARY, .columns = TOKENS, .codes = codes};
    }
    for (int t = 0; t < TOKENS; t++)
        x[t][t] = 1;
    const struct engine_options options = {.jobs = 1, .cpu = cpu_best()};
    const struct attention_window window = {.first = 0, .tokens = TOKENS};
    struct group group;
    size_t packed, scratch;
    assert_int_equal(engine_open(&options, &engine, &error), STATUS_OK);
    assert_int_equal(group_make(&window, 1, &group, &error), STATUS_OK);
    assert_int_equal(head_engine_size(&engine, &weights[0], 2, &packed, &scratch, &error), STATUS_OK);
    assert_int_equal(engine_space(&engine, packed, scratch, &error), STATUS_OK);
    struct operand_rows input = {.act = (unsigned char *)x, .scale = 1};
    struct head_token *expected = tokens_begin(&of);
    const struct head_run run = {
        .weights = {&weights[0], &weights[1]}, .inputs = {&input, &input}, .group = &group, .tokens = expected};
    assert_int_equal(head_run(&engine, &run, &error), STATUS_OK);
    group_free(&group);
    engine_close(&engine);
    for (uint32_t t = 0; t < TOKENS; t++) {
        for (unsigned side = 0; side < 2; side++) {
            check("most", t, (double)tokens[t].sides[side].most, (double)expected[t].sides[side].most, 0);
            check("target", t, (double)tokens[t].sides[side].target, (double)expected[t].sides[side].target, 0);
            assert_int_equal(tokens[t].sides[side].top, expected[t].sides[side].top);
            check("NLL", t, head_nll(&tokens[t], side), head_nll(&expected[t], side), 1e-5);
        }
        check("divergence", t, head_kl(&tokens[t]), head_kl(&expected[t]), 1e-5 * (1 + head_kl(&expected[t])));
        assert_int_equal(tokens[t].target, expected[t].target);
    }
}

const struct CMUnitTest head_tests[] = {
    cmocka_unit_test(given_vocabularies_in_runs_then_nll_and_divergence_are_those_of_double),
    cmocka_unit_test(given_vocabularies_of_true_size_then_nll_and_divergence_are_those_of_double),
    cmocka_unit_test(given_logits_that_are_not_finite_then_neither_is_what_they_count_in),
    cmocka_unit_test(given_two_models_then_sums_are_those_of_the_cpu),
};
const size_t head_test_count = sizeof head_tests / sizeof *head_tests;
