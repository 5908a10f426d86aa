/*
 * Operations on values one by one: weights unpacked, operands normalized and rounded, checks, comparisons. All but the
 * norm's sum and the comparison's are exact.
 */
#include "tests/cuda/test_plugin.h"

#include "infer/cpu/activations.h"

/* ---- unpack ---- */

/* Rows [first, first + count) in both types, as the CPU unpacks them. */
static void unpack_check(const struct weight *host, uint32_t first, uint32_t count) {
    const struct weight weight = weight_on_device(host);
    const size_t n = (size_t)count * host->columns;
    float *floats = host_memory(n * sizeof *floats);
    for (uint32_t row = 0; row < count; row++)
        for (uint32_t column = 0; column < host->columns; column++) {
            const size_t at = (size_t)(first + row) * host->columns + column;
            float value = (float)weight_value(host, first + row, column);
            if (scale_is_left(host))
                value = fp8_e4m3_decode(((const uint8_t *)host->codes)[at]);
            floats[(size_t)row * host->columns + column] = value;
        }
    for (enum cuda_type type = CUDA_F32; type <= CUDA_BF16; type++) {
        void *out = for_result(n * type_size(type));
        plugin->unpack(device, &weight, first, count, type, out);
        check_same(format_names[host->format], type, from_device(out, n * type_size(type)), typed(type, floats, n), n);
    }
}

static void given_each_code_of_16_bits_then_its_value_is_exact(void **state) {
    (void)state;
    static const uint32_t columns[] = {256, 128, 99, 65536};
    uint16_t *codes = host_memory(65536 * sizeof *codes);
    for (uint32_t i = 0; i < 65536; i++)
        codes[i] = (uint16_t)i;
    for (enum weight_format format = WEIGHT_F16; format <= WEIGHT_BF16; format++)
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            const struct weight weight = {
                .format = format, .rows = 65536 / columns[i], .columns = columns[i], .codes = codes};
            unpack_check(&weight, 0, weight.rows);
        }
}

static void given_each_fp8_code_and_exponent_then_its_value_is_exact(void **state) {
    (void)state;
    static const float one = 1;
    uint8_t *codes = host_memory(65536), *exponents = host_memory(255 * 256 / WEIGHT_BLOCK);
    for (uint32_t i = 0; i < 65536; i++)
        codes[i] = (uint8_t)i;
    const struct weight plain = {.format = WEIGHT_FP8,
                                 .rows = 4,
                                 .columns = 64,
                                 .codes = codes,
                                 .scales = &one,
                                 .scale_rows = 4,
                                 .scale_columns = 64};
    unpack_check(&plain, 0, 4);
    /* a row for each exponent; 255 is NaN and refused when a checkpoint is loaded */
    for (uint32_t i = 0; i < 255 * 256 / WEIGHT_BLOCK; i++)
        exponents[i] = (uint8_t)(i / (256 / WEIGHT_BLOCK));
    const struct weight mx = {
        .format = WEIGHT_MXFP8, .rows = 255, .columns = 256, .codes = codes, .exponents = exponents};
    unpack_check(&mx, 0, 255);
}

static void given_each_mxfp4_code_and_exponent_then_its_value_is_exact(void **state) {
    (void)state;
    uint8_t *codes = host_memory(255 * 16), *exponents = host_memory(255);
    for (uint32_t i = 0; i < 255 * 16; i++) /* both nibbles take all values */
        codes[i] = (uint8_t)(i % 16 | (15 - (i + i / 16) % 16) << 4);
    for (uint32_t i = 0; i < 255; i++)
        exponents[i] = (uint8_t)i;
    for (uint32_t blocks = 1; blocks <= 255; blocks = blocks == 1 ? 5 : blocks == 5 ? 255 : 256) {
        const struct weight weight = {.format = WEIGHT_MXFP4,
                                      .rows = 255 / blocks,
                                      .columns = blocks * WEIGHT_BLOCK,
                                      .codes = codes,
                                      .exponents = exponents};
        unpack_check(&weight, 0, weight.rows);
    }
}

static void given_shapes_and_runs_of_rows_then_unpacked_weights_are_those_of_the_cpu(void **state) {
    (void)state;
    static const uint32_t any[] = {1, 3, 7, 8, 31, 33, 64, 130, 576, 1537};
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (size_t i = 0; i < sizeof any / sizeof *any; i++) {
            const uint32_t columns = format >= WEIGHT_MXFP8 ? (any[i] + 31) / 32 * 32 : any[i];
            const struct weight_shape shape = {.format = format, .rows = 11, .columns = columns, .scale_rows = i % 2};
            const struct weight host = weight_make(&shape, i);
            unpack_check(&host, 0, 11);
            unpack_check(&host, 3, 5);
            unpack_check(&host, 10, 1);
            uint16_t *halves = host_memory(columns * sizeof *halves);
            const struct weight weight = weight_on_device(&host);
            void *out = for_result(columns * sizeof *halves);
            plugin->unpack(device, &weight, 7, 1, CUDA_BF16, out);
            rows_of_cpu()->unpack_bf16(&host, 7, 0, columns, halves);
            check_same("a row of the CPU", CUDA_BF16, from_device(out, columns * sizeof *halves), halves, columns);
        }
}

static void given_fp8_scales_of_blocks_then_each_is_applied_where_it_belongs(void **state) {
    (void)state;
    static const uint32_t shapes[][4] = {{9, 512, 4, 128}, {9, 500, 4, 128}, {9, 500, 1, 64},      {5, 97, 2, 32},
                                         {5, 97, 2, 10},   {30, 640, 7, 3},  {130, 300, 128, 128}, {6, 4096, 1, 2048},
                                         {9, 64, 9, 16},   {12, 77, 3, 100}, {4, 200, 3, 192},     {257, 33, 128, 32}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct weight_shape shape = {.format = WEIGHT_FP8,
                                           .rows = shapes[i][0],
                                           .columns = shapes[i][1],
                                           .scale_rows = shapes[i][2],
                                           .scale_columns = shapes[i][3]};
        const struct weight host = weight_make(&shape, i);
        unpack_check(&host, 0, host.rows);
        unpack_check(&host, host.rows / 3, host.rows / 2);
    }
}

static void given_weights_of_true_widths_then_unpacked_weights_are_exact(void **state) {
    (void)state;
    static const struct weight_shape shapes[] = {
        {.format = WEIGHT_FP8, .rows = 5, .columns = 12288, .scale_rows = 1},
        {.format = WEIGHT_FP8, .rows = 3, .columns = 28672, .scale_rows = 128, .scale_columns = 128},
        {.format = WEIGHT_BF16, .rows = 131072, .columns = 3},
        {.format = WEIGHT_FP8, .rows = 131072, .columns = 2},
        {.format = WEIGHT_MXFP4, .rows = 49152, .columns = 32},
        {.format = WEIGHT_MXFP4, .rows = 3, .columns = 28672},
        {.format = WEIGHT_MXFP8, .rows = 3, .columns = 12288},
        {.format = WEIGHT_F32, .rows = 70001, .columns = 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct weight_shape shape = shapes[i];
        shape.rows = scaled(shape.rows, 3);
        const struct weight host = weight_make(&shape, i);
        unpack_check(&host, 1, host.rows - 1);
    }
}

/* ---- operands ---- */

struct operand_case {
    enum activations activations;
    enum cuda_type act, type;
    uint32_t tokens, columns, group;
    bool normed, gathered;
};

static void operand_run(const struct operand_case *given, const struct cuda_operand *from, const struct weight *weight,
                        void **out, float **scales) {
    const size_t n = (size_t)given->tokens * given->columns;
    struct cuda_operand operand = *from;
    operand.tokens = given->tokens;
    operand.columns = given->columns;
    operand.act = given->act;
    operand.type = given->type;
    operand.weight = weight;
    operand.out = for_result(n * type_size(given->type));
    if (given->activations == ACTIVATIONS_FP8_TOKEN)
        operand.token_scales = for_result(given->tokens * sizeof(float));
    plugin->operand(device, &operand);
    *out = from_device(operand.out, n * type_size(given->type));
    *scales = operand.token_scales ? from_device(operand.token_scales, given->tokens * sizeof(float)) : NULL;
}

/*
 * Exact, also where the rows come by a norm: hidden values are 2 or -2, whose mean square is a power of two in whatever
 * order it is summed, so that norm[c] with the sign of the value is what is rounded.
 */
static void operand_check(const struct operand_case *given, uint64_t seed) {
    const size_t columns = given->columns, n = given->tokens * columns;
    const struct weight_shape shape = {.format = WEIGHT_FP8,
                                       .rows = 1,
                                       .columns = given->columns,
                                       .activations = given->activations,
                                       .group = given->group};
    struct weight weight = weight_make(&shape, 1);
    weight.input_scale = seed % 2 ? 0.0137f : 0.25f;
    float *x = edge_floats(n, weight.input_scale, seed);
    uint64_t random = seed;
    struct cuda_operand operand = {.epsilon = 0};
    if (given->normed) {
        const uint32_t rows = 2 * given->tokens + 3;
        float *hidden = host_memory(rows * columns * sizeof *hidden);
        uint32_t *of = host_memory(given->tokens * sizeof *of);
        for (size_t i = 0; i < rows * columns; i++)
            hidden[i] = random_next(&random) % 2 ? 2 : -2;
        for (uint32_t t = 0; t < given->tokens; t++)
            of[t] = given->gathered ? (uint32_t)(random_next(&random) % rows) : t;
        for (size_t i = n; i-- > 0;) /* all rows are those of the first, with other signs */
            x[i] = x[i % columns] * hidden[of[i / columns] * columns + i % columns] / 2;
        float *norm = host_memory(columns * sizeof *norm);
        for (size_t i = 0; i < columns; i++)
            norm[i] = x[i] * hidden[of[0] * columns + i] / 2;
        operand.hidden = on_device(hidden, rows * columns * sizeof *hidden);
        operand.norm = on_device(norm, columns * sizeof *norm);
        operand.rows = given->gathered ? on_device(of, given->tokens * sizeof *of) : NULL;
    } else {
        if (given->tokens > 3) {
            memset(x + columns, 0, columns * sizeof *x);
            x[2 * columns + columns / 2] = NAN;
            x[3 * columns - 1] = -0.0f;
            x[3 * columns] = INFINITY;
        }
        operand.source = on_device(typed(given->act, x, n), n * type_size(given->act));
    }
    if (given->act == CUDA_BF16)
        rows_of_cpu()->round_bf16(x, (uint32_t)n, x);
    float *expected_scales = host_memory(given->tokens * sizeof(float));
    for (uint32_t t = 0; t < given->tokens; t++)
        expected_scales[t] = activations_round(rows_of_cpu(), &weight, x + t * columns, x + t * columns);
    char what[128];
    snprintf(what, sizeof what, "activations %d, act %d, type %d, %u x %u, group %u%s%s", (int)given->activations,
             (int)given->act, (int)given->type, given->tokens, given->columns, given->group,
             given->normed ? ", normed" : "", given->gathered ? ", gathered" : "");
    void *out;
    float *scales;
    operand_run(given, &operand, &weight, &out, &scales);
    if (scales)
        check_same(what, CUDA_F32, scales, expected_scales, given->tokens);
    check_same(what, given->type, out, typed(given->type, x, n), n);
}

static void given_values_of_all_kinds_then_operands_are_rounded_as_on_the_cpu(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{1, 1, 32},    {1, 7, 3},      {5, 33, 32},   {4, 64, 32},
                                         {7, 128, 128}, {4, 256, 64},   {5, 576, 48},  {4, 577, 128},
                                         {6, 1000, 7},  {4, 1536, 128}, {4, 100, 4096}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (enum activations activations = 0; activations <= ACTIVATIONS_MXFP8; activations++)
            for (int how = 0; how < 3; how++)
                for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++)
                    for (int e4m3 = 0; e4m3 <= (activations == ACTIVATIONS_FP8_STATIC); e4m3++) {
                        const struct operand_case given = {.activations = activations,
                                                           .act = act,
                                                           .type = e4m3 ? CUDA_E4M3 : act,
                                                           .tokens = shapes[i][0],
                                                           .columns = shapes[i][1],
                                                           .group = shapes[i][2],
                                                           .normed = how > 0,
                                                           .gathered = how > 1};
                        operand_check(&given, i);
                    }
}

static void given_operands_of_true_widths_then_they_are_rounded_as_on_the_cpu(void **state) {
    (void)state;
    static const struct operand_case cases[] = {
        {ACTIVATIONS_FP8_STATIC, CUDA_BF16, CUDA_E4M3, 3, 12288, 0, true, true},
        {ACTIVATIONS_FP8_STATIC, CUDA_BF16, CUDA_E4M3, 2, 28672, 0, false, false},
        {ACTIVATIONS_FP8_TOKEN, CUDA_BF16, CUDA_BF16, 2, 28672, 0, false, false},
        {ACTIVATIONS_FP8_TOKEN, CUDA_F32, CUDA_F32, 3, 12288, 0, true, false},
        {ACTIVATIONS_FP8_GROUP, CUDA_BF16, CUDA_BF16, 2, 28672, 128, false, false},
        {ACTIVATIONS_FP8_GROUP, CUDA_BF16, CUDA_BF16, 3, 12288, 128, true, false},
        {ACTIVATIONS_MXFP8, CUDA_BF16, CUDA_BF16, 2, 28672, 0, false, false},
        {ACTIVATIONS_MXFP8, CUDA_F32, CUDA_F32, 2, 12288, 0, true, true},
        {ACTIVATIONS_FLOAT, CUDA_BF16, CUDA_BF16, 0, 2, 0, true, true},
        {ACTIVATIONS_FP8_TOKEN, CUDA_BF16, CUDA_BF16, 0, 1, 0, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct operand_case given = cases[i];
        given.tokens = given.tokens ? given.tokens : very_many();
        operand_check(&given, i + 100);
    }
}

/* The largest value of a row decides its scale: on each power of two, and a little below and above 1.75 times it. */
static void given_largest_values_of_all_sizes_then_scales_are_those_of_the_cpu(void **state) {
    (void)state;
    enum { COLUMNS = 32, EXPONENTS = 260, TOKENS = EXPONENTS * 4 };
    static const float factors[] = {1, 1.7499999f, 1.75f, 1.9999999f};
    float *x = host_memory((size_t)TOKENS * COLUMNS * sizeof *x);
    uint64_t random = 3;
    for (int t = 0; t < TOKENS; t++) {
        const float largest = ldexpf(factors[t % 4], t / 4 - 132);
        for (int i = 0; i < COLUMNS; i++)
            x[t * COLUMNS + i] = largest * (float)uniform(&random) * 0.9f;
        x[t * COLUMNS + t % COLUMNS] = t % 3 ? largest : -largest;
    }
    for (enum activations activations = ACTIVATIONS_FP8_TOKEN; activations <= ACTIVATIONS_MXFP8; activations++) {
        const struct operand_case given = {activations, CUDA_F32, CUDA_F32, TOKENS, COLUMNS, 32, false, false};
        const struct weight weight = {
            .format = WEIGHT_FP8, .rows = 1, .columns = COLUMNS, .activations = activations, .group = 32};
        const struct cuda_operand operand = {.source = on_device(x, (size_t)TOKENS * COLUMNS * sizeof *x)};
        float *expected = host_memory((size_t)TOKENS * COLUMNS * sizeof *x), factor[TOKENS], *scales;
        for (size_t t = 0; t < TOKENS; t++)
            factor[t] = activations_round(rows_of_cpu(), &weight, x + t * COLUMNS, expected + t * COLUMNS);
        void *out;
        operand_run(&given, &operand, &weight, &out, &scales);
        if (scales)
            check_same("scales", CUDA_F32, scales, factor, TOKENS);
        check_same("values", CUDA_F32, out, expected, (size_t)TOKENS * COLUMNS);
    }
}

/* The sum of squares is off by one rounding for each addition, of which a thread of 256 does columns / 256 and a few. */
static void given_hidden_states_then_norms_are_those_of_double(void **state) {
    (void)state;
    static const uint32_t widths[] = {1, 5, 31, 128, 577, 5000, 12288};
    static const float epsilon = 1e-5f;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++) {
            enum { TOKENS = 5 };
            const uint32_t columns = widths[w], of[TOKENS] = {4, 0, 2, 2, 1};
            float *hidden = random_floats((size_t)TOKENS * columns, 4, w), *norm = random_floats(columns, 2, w + 50);
            for (size_t i = 0; i < columns; i++) {
                hidden[i] *= 0x1p-9f; /* the epsilon counts here */
                hidden[2 * columns + i] *= 0x1p20f;
                hidden[4 * columns + i] = 0;
            }
            const struct operand_case given = {ACTIVATIONS_FLOAT, act, act, TOKENS, columns, 0, true, true};
            const struct weight weight = {.format = WEIGHT_BF16, .rows = 1, .columns = columns};
            const struct cuda_operand operand = {.hidden = on_device(hidden, (size_t)TOKENS * columns * sizeof *hidden),
                                                 .norm = on_device(norm, columns * sizeof *norm),
                                                 .rows = on_device(of, sizeof of),
                                                 .epsilon = epsilon};
            void *out;
            float *scales;
            operand_run(&given, &operand, &weight, &out, &scales);
            for (size_t t = 0; t < TOKENS; t++) {
                const float *x = hidden + of[t] * (size_t)columns;
                double squares = 0;
                for (size_t i = 0; i < columns; i++)
                    squares += (double)x[i] * (double)x[i];
                const double factor = 1 / sqrt(squares / columns + (double)epsilon);
                for (size_t i = 0; i < columns; i++) {
                    const double expected = (double)x[i] * factor * (double)norm[i];
                    check_typed("norm", act, out, t * columns + i, expected,
                                fabs(expected) * (columns / 256.0 + 16) * ROUNDING);
                }
            }
        }
}

/* ---- checks ---- */

static void given_values_that_are_not_finite_then_the_first_is_found(void **state) {
    (void)state;
    static const uint64_t counts[] = {1, 2, 31, 33, 255, 257, 1000, 4097, 70000, 300001};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    uint64_t random = 5;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint32_t n = scaled((uint32_t)counts[i], 300);
        float *x = random_floats(n, 3e38, i);
        float *memory = on_device_at(x, n * sizeof *x, i % 2 ? 4 : 0);
        uint64_t first = UINT64_MAX, *least = on_device(&first, sizeof first);
        plugin->finite_check(device, memory, n, least);
        assert_true(*(uint64_t *)from_device(least, sizeof first) == UINT64_MAX);
        for (int turn = 0; turn < 4; turn++) {
            const uint64_t at[] = {turn == 0   ? n - 1
                                   : turn == 1 ? 0
                                               : random_next(&random) % n,
                                   random_next(&random) % n, random_next(&random) % n};
            first = UINT64_MAX;
            for (int j = 0; j < 3; j++) {
                first = at[j] < first ? at[j] : first;
                to_device(memory + at[j], &bad[j], sizeof(float));
            }
            const uint64_t before[] = {UINT64_MAX, first, first + 1, first > 0 ? first - 1 : 0};
            to_device(least, &before[turn], sizeof *before);
            plugin->finite_check(device, memory, n, least);
            const uint64_t found = *(uint64_t *)from_device(least, sizeof first);
            if (found != (before[turn] < first ? before[turn] : first))
                fail_msg("%u values: %llu instead of %llu", n, (unsigned long long)found, (unsigned long long)first);
            for (int j = 3; j-- > 0;)
                to_device(memory + at[j], &x[at[j]], sizeof *x);
        }
    }
}

static void given_codes_that_are_nan_then_the_first_is_found(void **state) {
    (void)state;
    static const uint32_t counts[] = {1, 2, 15, 16, 17, 33, 1000, 4099, 70003, 600001};
    uint64_t random = 6;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint32_t n = scaled(counts[i], 300);
        uint8_t *x = host_memory(n);
        for (uint32_t j = 0; j < n; j++) { /* all codes but NaN */
            x[j] = (uint8_t)random_next(&random);
            x[j] = (x[j] & 0x7f) == 0x7f ? 0x7e : x[j];
        }
        uint8_t *memory = on_device_at(x, n, i % 2 ? 64 : 0);
        uint64_t first = UINT64_MAX, *least = on_device(&first, sizeof first);
        plugin->codes_check(device, memory, n, least);
        assert_true(*(uint64_t *)from_device(least, sizeof first) == UINT64_MAX);
        for (int turn = 0; turn < 8; turn++) {
            const uint32_t at = turn == 0 ? n - 1 : turn == 1 ? 0 : (uint32_t)(random_next(&random) % n);
            const uint32_t other = at + (uint32_t)(random_next(&random) % (n - at));
            const uint8_t nan[] = {0x7f, 0xff};
            to_device(memory + other, &nan[turn % 2], 1);
            to_device(memory + at, &nan[(turn + 1) % 2], 1);
            first = turn == 7 ? at / 2 : UINT64_MAX;
            to_device(least, &first, sizeof first);
            plugin->codes_check(device, memory, n, least);
            const uint64_t found = *(uint64_t *)from_device(least, sizeof first), wanted = turn == 7 ? at / 2 : at;
            if (found != wanted)
                fail_msg("%u codes: %llu instead of %llu", n, (unsigned long long)found, (unsigned long long)wanted);
            to_device(memory + at, &x[at], 1);
            to_device(memory + other, &x[other], 1);
        }
    }
}

/* ---- comparisons ---- */

static void given_two_models_states_then_errors_and_cosines_are_those_of_double(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {3, 7}, {5, 128}, {4, 577}, {3, 12288}, {0, 2}, {9, 33}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const uint32_t tokens = shapes[s][0] ? shapes[s][0] : very_many(), columns = shapes[s][1];
        const size_t n = (size_t)tokens * columns;
        float *x = random_floats(n, 5, s), *b = random_floats(n, 1e-3, s + 20);
        for (size_t i = 0; i < n; i++) /* the same, a little off, far off */
            b[i] = i / columns % 3 == 0 ? x[i] : i / columns % 3 == 1 ? x[i] + b[i] : x[n - 1 - i];
        if (tokens > 3) { /* both nothing: the same */
            memset(x + (size_t)3 * columns, 0, columns * sizeof *x);
            memset(b + (size_t)3 * columns, 0, columns * sizeof *b);
        }
        double *sums = for_result(2 * tokens * sizeof *sums);
        plugin->compare(device, on_device(x, n * sizeof *x), on_device(b, n * sizeof *b), tokens, columns, sums);
        sums = from_device(sums, 2 * tokens * sizeof *sums);
        for (uint32_t t = 0; t < tokens; t++) {
            double xx = 0, bb = 0, xb = 0, dd = 0;
            for (size_t i = (size_t)t * columns; i < (size_t)(t + 1) * columns; i++) {
                const double p = (double)x[i], q = (double)b[i];
                xx += p * p;
                bb += q * q;
                xb += p * q;
                dd += (p - q) * (p - q);
            }
            const double error = dd == 0 ? 0 : sqrt(dd / bb), cosine = dd == 0 ? 1 : xb / sqrt(xx * bb);
            check("error", t, sums[2 * t], error, error * 1e-6);
            check("cosine", t, sums[2 * t + 1], cosine, 1e-6);
        }
    }
}

const struct CMUnitTest values_tests[] = {
    cmocka_unit_test(given_each_code_of_16_bits_then_its_value_is_exact),
    cmocka_unit_test(given_each_fp8_code_and_exponent_then_its_value_is_exact),
    cmocka_unit_test(given_each_mxfp4_code_and_exponent_then_its_value_is_exact),
    cmocka_unit_test(given_shapes_and_runs_of_rows_then_unpacked_weights_are_those_of_the_cpu),
    cmocka_unit_test(given_fp8_scales_of_blocks_then_each_is_applied_where_it_belongs),
    cmocka_unit_test(given_weights_of_true_widths_then_unpacked_weights_are_exact),
    cmocka_unit_test(given_values_of_all_kinds_then_operands_are_rounded_as_on_the_cpu),
    cmocka_unit_test(given_operands_of_true_widths_then_they_are_rounded_as_on_the_cpu),
    cmocka_unit_test(given_largest_values_of_all_sizes_then_scales_are_those_of_the_cpu),
    cmocka_unit_test(given_hidden_states_then_norms_are_those_of_double),
    cmocka_unit_test(given_values_that_are_not_finite_then_the_first_is_found),
    cmocka_unit_test(given_codes_that_are_nan_then_the_first_is_found),
    cmocka_unit_test(given_two_models_states_then_errors_and_cosines_are_those_of_double),
};
const size_t values_test_count = sizeof values_tests / sizeof *values_tests;
