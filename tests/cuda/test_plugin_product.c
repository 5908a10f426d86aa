/*
 * Matrix products, and what is made of them: scales, bias, residual, SwiGLU, heads.
 */
#include "tests/cuda/test_plugin.h"

/* ---- products ---- */

/*
 * Against double: off by a rounding for each addition, of which the longest chain of a tiled product has some hundreds. The
 * tensor cores of E4M3 keep 14 bits of a running sum.
 */
static void product_check(enum cuda_type type, uint32_t tokens, uint32_t rows, uint32_t columns) {
    const size_t x_count = (size_t)tokens * columns, w_count = (size_t)rows * columns, n = (size_t)tokens * rows;
    const double relative = type == CUDA_E4M3 ? 5e-4 : 4e-6;
    const void *x = typed(type, random_floats(x_count, type == CUDA_E4M3 ? 100 : 1, columns), x_count),
               *w = typed(type, random_floats(w_count, type == CUDA_E4M3 ? 100 : 1, rows + 7), w_count);
    const struct cuda_product product = {.type = type,
                                         .tokens = tokens,
                                         .rows = rows,
                                         .columns = columns,
                                         .x = on_device(x, x_count * type_size(type)),
                                         .weight = on_device(w, w_count * type_size(type)),
                                         .y = for_result(n * sizeof(float))};
    plugin->product(device, &product);
    const float *y = from_device(product.y, n * sizeof *y);
    double *x_values = host_memory(x_count * sizeof(double)), *w_values = host_memory(w_count * sizeof(double));
    for (size_t i = 0; i < x_count; i++)
        x_values[i] = typed_value(type, x, i);
    for (size_t i = 0; i < w_count; i++)
        w_values[i] = typed_value(type, w, i);
    char what[96];
    snprintf(what, sizeof what, "type %d, %u tokens, %u x %u", (int)type, tokens, rows, columns);
    for (size_t i = 0; i < n; i++) {
        double sum = 0, all = 0;
        for (size_t c = 0; c < columns; c++) {
            const double one = x_values[i / rows * columns + c] * w_values[i % rows * columns + c];
            sum += one;
            all += fabs(one);
        }
        check(what, i, (double)y[i], sum, all * relative);
    }
}

static void given_shapes_of_all_kinds_then_products_are_sums_in_double(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},     {7, 33, 65},   {1, 64, 130},
                                         {17, 16, 16},  {65, 66, 67},  {2, 130, 96},  {33, 24, 77},
                                         {128, 64, 64}, {3, 192, 576}, {2, 20, 1536}, {70001, 1, 2}};
    for (enum cuda_type type = CUDA_F32; type <= CUDA_BF16; type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            product_check(type, scaled(shapes[i][0], 17), shapes[i][1], shapes[i][2]);
}

static void given_products_of_true_widths_then_they_are_sums_in_double(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{2, 8, 12288}, {1, 16, 28672}, {1, 131072, 16}, {2, 49152, 8}, {2, 576, 1536}};
    for (enum cuda_type type = CUDA_F32; type <= CUDA_BF16; type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            product_check(type, shapes[i][0], scaled(shapes[i][1], 8), shapes[i][2]);
}

static void given_fp8_operands_then_products_are_sums_in_double(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{1, 16, 16},    {3, 32, 48},    {17, 80, 144},  {65, 64, 64},
                                         {2, 16, 12288}, {1, 16, 28672}, {5, 1024, 128}, {129, 16, 32}};
    if (!info.fp8) /* cards before 8.9 have no such products, and are asked for none */
        return;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        product_check(CUDA_E4M3, shapes[i][0], shapes[i][1], shapes[i][2]);
}

/* ---- results ---- */

struct result_case {
    struct weight_shape shape;
    uint32_t tokens, first, rows;
    float scale;
    bool per_token;
};

/* A result with a device's weight and y; the values it stands for, and by how much they may be off. */
struct result {
    struct cuda_result given;
    double *values, *allowed; /* [tokens, rows] */
};

static struct result result_make(const struct result_case *of, uint64_t seed) {
    const size_t n = (size_t)of->tokens * of->rows;
    const struct weight host = weight_make(&of->shape, seed);
    struct weight *weight = host_memory(sizeof *weight);
    *weight = weight_on_device(&host);
    float *y = random_floats(n, 3, seed + 2), *scales = random_floats(of->tokens, 2, seed + 3);
    for (size_t i = 0; i < n; i++) /* all bits are in use */
        y[i] *= 1.000123f;
    static const float far[] = {-100, 100, -87.5f, 88, -300, 0}; /* exp overflows or vanishes */
    if (n > 20) {
        memcpy(y, far, sizeof far);
        y[n / 2] = NAN;
    }
    struct result result = {.given = {.y = on_device(y, n * sizeof *y),
                                      .tokens = of->tokens,
                                      .first = of->first,
                                      .rows = of->rows,
                                      .weight = weight,
                                      .scale = of->scale},
                            .values = host_memory(n * sizeof(double)),
                            .allowed = host_memory(n * sizeof(double))};
    if (of->per_token)
        result.given.token_scales = on_device(scales, of->tokens * sizeof *scales);
    for (size_t i = 0; i < n; i++) {
        const uint32_t row = of->first + (uint32_t)(i % of->rows);
        const double product = (double)y[i] * (double)of->scale * (of->per_token ? (double)scales[i / of->rows] : 1) *
                               (double)scale_left(&host, row);
        result.values[i] = product + (host.bias ? (double)host.bias[row] : 0);
        result.allowed[i] = ROUNDING * (4 * fabs(product) + fabs(result.values[i]));
    }
    return result;
}

static const struct result_case result_cases[] = {
    {{WEIGHT_BF16, 7, 5, 0, 0, ACTIVATIONS_FLOAT, 0, false}, 3, 0, 7, 1, false},
    {{WEIGHT_F32, 40, 5, 0, 0, ACTIVATIONS_FLOAT, 0, true}, 3, 9, 31, 1, false},
    {{WEIGHT_FP8, 64, 48, 0, 0, ACTIVATIONS_FP8_STATIC, 0, true}, 5, 16, 48, 0.0137f, false},
    {{WEIGHT_FP8, 33, 48, 1, 0, ACTIVATIONS_FP8_STATIC, 0, false}, 4, 5, 28, 0.0137f, false},
    {{WEIGHT_FP8, 130, 48, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, true}, 9, 2, 128, 1, true},
    {{WEIGHT_FP8, 17, 48, 0, 0, ACTIVATIONS_FP8_TOKEN, 0, false}, 3, 0, 17, 1, true},
    {{WEIGHT_FP8, 96, 48, 16, 16, ACTIVATIONS_FP8_GROUP, 16, true}, 3, 32, 64, 1, false},
    {{WEIGHT_FP8, 96, 48, 1, 16, ACTIVATIONS_FP8_GROUP, 16, false}, 3, 0, 96, 1, false},
    {{WEIGHT_MXFP8, 66, 32, 0, 0, ACTIVATIONS_MXFP8, 0, true}, 2, 1, 65, 1, false},
    {{WEIGHT_MXFP4, 66, 32, 0, 0, ACTIVATIONS_FLOAT, 0, false}, 2, 2, 64, 1, false},
    {{WEIGHT_FP8, 1, 48, 0, 0, ACTIVATIONS_FP8_STATIC, 0, true}, 3, 0, 1, 0.0137f, false},
    {{WEIGHT_FP8, 28672, 1, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, true}, 2, 0, 28672, 1, true},
    {{WEIGHT_FP8, 12300, 1, 0, 0, ACTIVATIONS_FP8_STATIC, 0, false}, 3, 12, 12288, 0.5f, false},
    {{WEIGHT_BF16, 2, 1, 0, 0, ACTIVATIONS_FLOAT, 0, true}, 66000, 1, 1, 1, true},
};
enum { RESULT_CASES = sizeof result_cases / sizeof *result_cases };

static struct result_case result_case_at(size_t i) {
    struct result_case given = result_cases[i];
    given.tokens = scaled(given.tokens, 9);
    return given;
}

static void given_scales_and_bias_then_results_are_added_to_the_hidden_states(void **state) {
    (void)state;
    for (size_t i = 0; i < RESULT_CASES; i++) {
        const struct result_case given = result_case_at(i);
        const struct result result = result_make(&given, i);
        const uint32_t columns = given.first + given.rows + (uint32_t)(i % 3);
        const size_t n = (size_t)given.tokens * columns;
        float *before = random_floats(n, 4, i + 70);
        float *hidden = on_device(before, n * sizeof *before);
        plugin->finish_residual(device, &result.given, hidden, columns);
        hidden = from_device(hidden, n * sizeof *hidden);
        for (uint32_t t = 0; t < given.tokens; t++)
            for (uint32_t c = 0; c < columns; c++) {
                const size_t at = (size_t)t * columns + c;
                if (c < given.first || c >= given.first + given.rows) {
                    check("what no row is for", at, (double)hidden[at], (double)before[at], 0);
                    continue;
                }
                const size_t place = (size_t)t * given.rows + c - given.first;
                const double expected = (double)before[at] + result.values[place];
                check("residual", at, (double)hidden[at], expected, result.allowed[place] + ROUNDING * fabs(expected));
            }
    }
}

/* The slope of x / (1 + exp(-x)) is below 1.1; exp is off by some units, more for large values. */
static void given_gate_and_up_then_results_are_their_swiglu(void **state) {
    (void)state;
    for (size_t i = 0; i < RESULT_CASES; i++)
        for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++) {
            const struct result_case given = result_case_at(i);
            const struct result gate = result_make(&given, i), up = result_make(&given, i + 40);
            const struct cuda_result both[2] = {gate.given, up.given};
            const uint32_t columns = given.first + given.rows + (uint32_t)(i % 3);
            const size_t n = (size_t)given.tokens * columns;
            unsigned char *out = for_result(n * type_size(act));
            plugin->finish_swiglu(device, both, act, out, columns);
            out = from_device(out, n * type_size(act));
            for (uint32_t t = 0; t < given.tokens; t++)
                for (uint32_t c = 0; c < columns; c++) {
                    const size_t at = (size_t)t * columns + c;
                    if (c < given.first || c >= given.first + given.rows) {
                        check("what no row is for", at, typed_value(act, out, at), NAN, 0);
                        continue;
                    }
                    const size_t place = (size_t)t * given.rows + c - given.first;
                    const double g = gate.values[place], u = up.values[place], silu = g / (1 + exp(-g));
                    check_typed("SwiGLU", act, out, at, silu * u,
                                1.1 * gate.allowed[place] * fabs(u) + up.allowed[place] * fabs(silu) +
                                    ROUNDING * (32 + 4 * fabs(g)) * fabs(silu * u) + 1e-36 * (1 + fabs(u)));
                }
        }
}

/* ---- heads ---- */

struct heads_case {
    uint32_t heads, head_dim, first_head, some_heads, tokens;
    bool rotated, factored;
    enum cuda_type rounding, act;
};

enum { POSITIONS = 50 };

static void heads_check(const struct heads_case *of, uint64_t seed) {
    const uint32_t head_dim = of->head_dim, half = head_dim / 2;
    const struct result_case given = {
        .shape = {.format = WEIGHT_FP8,
                  .rows = of->heads * head_dim,
                  .columns = 3,
                  .scale_rows = seed % 2 ? 1 : 0,
                  .bias = seed % 3 == 0},
        .tokens = of->tokens,
        .first = of->first_head * head_dim,
        .rows = of->some_heads * head_dim,
        .scale = seed % 5 == 0 ? 0.0137f : 1,
        .per_token = seed % 4 == 1,
    };
    const struct result result = result_make(&given, seed);
    uint64_t random = seed;
    uint32_t *positions = host_memory(of->tokens * sizeof *positions);
    for (uint32_t t = 0; t < of->tokens; t++)
        positions[t] = (uint32_t)(random_next(&random) % POSITIONS);
    const size_t angles = (size_t)POSITIONS * half;
    float *cosines = host_memory(angles * sizeof *cosines), *sines = host_memory(angles * sizeof *sines);
    for (size_t i = 0; i < angles; i++) {
        const double angle = 3 * uniform(&random);
        cosines[i] = (float)(cos(angle) * 1.2);
        sines[i] = (float)(sin(angle) * 1.2);
    }
    float *factors = random_floats(POSITIONS, 1, seed + 8);
    const size_t n = (size_t)of->tokens * of->heads * head_dim;
    const struct cuda_heads heads = {
        .heads = of->heads,
        .head_dim = head_dim,
        .positions = on_device(positions, of->tokens * sizeof *positions),
        .cosines = of->rotated ? on_device(cosines, angles * sizeof *cosines) : NULL,
        .sines = of->rotated ? on_device(sines, angles * sizeof *sines) : NULL,
        .query_factors = of->factored ? on_device(factors, POSITIONS * sizeof *factors) : NULL,
        .rounding = of->rounding,
        .act = of->act,
        .out = for_result(n * type_size(of->act)),
    };
    plugin->finish_heads(device, &result.given, &heads);
    const unsigned char *out = from_device(heads.out, n * type_size(of->act));
    for (size_t at = 0; at < n; at++) {
        const size_t token = at / (of->heads * head_dim), row = at % (of->heads * head_dim), i = row % head_dim;
        if (row < given.first || row >= given.first + given.rows) {
            check("another head", at, typed_value(of->act, out, at), NAN, 0);
            continue;
        }
        const size_t place = token * given.rows + row - given.first, angle = positions[token] * (size_t)half + i % half;
        const size_t other = i < half ? place + half : place - half;
        double expected = result.values[place], allowed = result.allowed[place];
        if (of->rotated) {
            const double c = (double)cosines[angle], s = (double)sines[angle] * (i < half ? -1 : 1);
            allowed = allowed * fabs(c) + result.allowed[other] * fabs(s) +
                      ROUNDING * 3 * (fabs(expected * c) + fabs(result.values[other] * s));
            expected = expected * c + result.values[other] * s;
        }
        if (of->factored) {
            const double factor = (double)factors[positions[token]];
            allowed = (allowed + ROUNDING * fabs(expected)) * fabs(factor);
            expected *= factor;
        }
        /* rounded twice; what E4M3 and BF16 hold, BF16 and float32 hold as well */
        if (of->rounding != CUDA_F32) {
            const double value = typed_value(of->act, out, at), low = rounded_to(of->rounding, expected - allowed),
                         high = rounded_to(of->rounding, expected + allowed);
            if (isnan(expected) ? !isnan(value) : !(value >= low && value <= high))
                fail_msg("head value %zu: %.9g instead of %.9g", at, value, expected);
        } else {
            check_typed("head value", of->act, out, at, expected, allowed);
        }
    }
}

static void given_heads_then_they_are_rotated_rounded_and_put_where_attention_wants_them(void **state) {
    (void)state;
    static const struct heads_case cases[] = {
        {1, 8, 0, 1, 1, true, true, CUDA_F32, CUDA_F32},      {9, 64, 0, 9, 5, true, true, CUDA_F32, CUDA_BF16},
        {3, 64, 0, 3, 5, true, false, CUDA_E4M3, CUDA_BF16},  {3, 64, 0, 3, 5, false, false, CUDA_E4M3, CUDA_F32},
        {3, 64, 1, 2, 7, true, false, CUDA_BF16, CUDA_F32},   {96, 128, 40, 3, 3, true, true, CUDA_F32, CUDA_BF16},
        {8, 128, 5, 3, 4, true, false, CUDA_E4M3, CUDA_BF16}, {8, 128, 0, 8, 3, false, false, CUDA_BF16, CUDA_BF16},
        {8, 32, 2, 4, 9, true, true, CUDA_F32, CUDA_F32},     {2, 32, 0, 2, 9, true, false, CUDA_E4M3, CUDA_BF16},
        {5, 40, 1, 3, 6, true, true, CUDA_F32, CUDA_BF16},    {2, 256, 0, 2, 2, true, true, CUDA_F32, CUDA_BF16},
        {2, 24, 1, 1, 3, false, true, CUDA_F32, CUDA_F32},    {1, 8, 0, 1, 66001, true, false, CUDA_E4M3, CUDA_BF16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heads_case given = cases[i];
        given.tokens = scaled(given.tokens, 9);
        heads_check(&given, i);
        heads_check(&given, i + 31);
    }
}

/* Values as they are: each must be rounded exactly, ties and what lies beyond 448 too. */
static void given_values_on_edge_then_keys_and_values_are_rounded_as_the_cache_rounds(void **state) {
    (void)state;
    enum { TOKENS = 40, HEADS = 3, HEAD_DIM = 64, N = TOKENS * HEADS * HEAD_DIM };
    const struct weight_shape shape = {.format = WEIGHT_BF16, .rows = HEADS * HEAD_DIM, .columns = 1};
    const struct weight host = weight_make(&shape, 1), weight = weight_on_device(&host);
    float *y = edge_floats(N, 1, 4);
    static const float others[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f};
    memcpy(y + 30, others, sizeof others);
    uint32_t *positions = memset(host_memory(TOKENS * sizeof *positions), 0, TOKENS * sizeof *positions);
    for (enum cuda_type rounding = CUDA_F32; rounding <= CUDA_E4M3; rounding++)
        for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++) {
            const struct cuda_result result = {.y = on_device(y, N * sizeof *y),
                                               .tokens = TOKENS,
                                               .rows = HEADS * HEAD_DIM,
                                               .weight = &weight,
                                               .scale = 1};
            const struct cuda_heads heads = {.heads = HEADS,
                                             .head_dim = HEAD_DIM,
                                             .positions = on_device(positions, TOKENS * sizeof *positions),
                                             .rounding = rounding,
                                             .act = act,
                                             .out = for_result(N * type_size(act))};
            plugin->finish_heads(device, &result, &heads);
            float *expected = memcpy(host_memory(N * sizeof *y), y, N * sizeof *y);
            if (rounding == CUDA_BF16)
                rows_of_cpu()->round_bf16(expected, N, expected);
            else if (rounding == CUDA_E4M3)
                rows_of_cpu()->to_fp8(expected, 1, N, expected);
            check_same("rounded", act, from_device(heads.out, N * type_size(act)), typed(act, expected, N), N);
        }
}

const struct CMUnitTest product_tests[] = {
    cmocka_unit_test(given_shapes_of_all_kinds_then_products_are_sums_in_double),
    cmocka_unit_test(given_products_of_true_widths_then_they_are_sums_in_double),
    cmocka_unit_test(given_fp8_operands_then_products_are_sums_in_double),
    cmocka_unit_test(given_scales_and_bias_then_results_are_added_to_the_hidden_states),
    cmocka_unit_test(given_gate_and_up_then_results_are_their_swiglu),
    cmocka_unit_test(given_heads_then_they_are_rotated_rounded_and_put_where_attention_wants_them),
    cmocka_unit_test(given_values_on_edge_then_keys_and_values_are_rounded_as_the_cache_rounds),
};
const size_t product_test_count = sizeof product_tests / sizeof *product_tests;
