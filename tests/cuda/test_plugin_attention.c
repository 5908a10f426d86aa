/*
 * Attention over windows and of one token over its cache, against softmax in double and the CPU's attention.
 *
 * Bounds. A score is off by a rounding for each of its additions, a tiled sum's longest chain being head_dim / 4 of them;
 * an exponential is off by that times its own value, and a little. With BF16 operands the shares are rounded to BF16 (2^-9)
 * before they meet the values, and so is the result. All are taken relative to the sum of |share * value|.
 */
#include "tests/cuda/test_plugin.h"

#include "infer/cpu/engine.h"

/* ---- in double ---- */

struct attended {
    double value, size; /* sum of share * value, of share * |value| */
    double score_error; /* of the scores that are seen, most */
};

/* keys, values: `count` rows of head_dim doubles, `stride` apart. scores: [count]. */
static double shares_make(const double *query, const double *keys, size_t stride, uint32_t count, uint32_t head_dim,
                          double *scores) {
    double most = -INFINITY, sum = 0, error = 0;
    for (uint32_t t = 0; t < count; t++) {
        double score = 0, size = 0;
        for (uint32_t i = 0; i < head_dim; i++) {
            score += query[i] * keys[t * stride + i];
            size += fabs(query[i] * keys[t * stride + i]);
        }
        scores[t] = score;
        most = score > most ? score : most;
        error = fmax(error, size * (head_dim / 4.0 + 4) * ROUNDING);
    }
    for (uint32_t t = 0; t < count; t++)
        sum += scores[t] = exp(scores[t] - most);
    for (uint32_t t = 0; t < count; t++)
        scores[t] /= sum;
    return error;
}

static struct attended mix(const double *shares, const double *values, size_t stride, uint32_t count, double error) {
    struct attended attended = {.score_error = error};
    for (uint32_t t = 0; t < count; t++) {
        attended.value += shares[t] * values[t * stride];
        attended.size += shares[t] * fabs(values[t * stride]);
    }
    return attended;
}

static double allowed_of(const struct attended *attended, bool shares_bf16) {
    return attended->size * ((shares_bf16 ? 0x1.2p-8 : 0x1p-18) + 2 * attended->score_error) + 1e-30;
}

static double *doubles(enum cuda_type type, const void *x, size_t n) {
    double *values = host_memory(n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = typed_value(type, x, i);
    return values;
}

/* ---- many tokens ---- */

enum { WINDOWS_MOST = 8 };

struct attention_case {
    uint32_t heads, kv_heads, head_dim, sliding;
    uint32_t lengths[WINDOWS_MOST]; /* of windows; up to a 0 */
    uint32_t gap;                   /* tokens between them that no window has */
};

struct attention_data {
    struct cuda_attention given;
    struct cuda_window windows[WINDOWS_MOST];
    uint32_t tokens;
    float *q, *k, *v; /* as floats that BF16 holds */
};

static struct attention_data attention_make(const struct attention_case *of, enum cuda_type act, uint64_t seed) {
    struct attention_data data = {.given = {.heads = of->heads,
                                            .kv_heads = of->kv_heads,
                                            .head_dim = of->head_dim,
                                            .sliding = of->sliding,
                                            .act = act}};
    data.tokens = of->gap;
    uint32_t count = 0;
    for (; count < WINDOWS_MOST && of->lengths[count]; count++) {
        const uint32_t length = scaled(of->lengths[count], minimum(of->lengths[count], 40));
        data.windows[count] = (struct cuda_window){.first = data.tokens, .tokens = length};
        data.tokens += length + of->gap;
        data.given.longest = length > data.given.longest ? length : data.given.longest;
    }
    const size_t q_row = (size_t)of->heads * of->head_dim, k_row = (size_t)of->kv_heads * of->head_dim;
    data.q = random_floats(data.tokens * q_row, 2 / sqrt(of->head_dim), seed);
    data.k = random_floats(data.tokens * k_row, 3, seed + 1);
    data.v = random_floats(data.tokens * k_row, 1, seed + 2);
    /*
     * Values that grow or shrink from token to token: a token too many at either end of what is seen counts for more than
     * rounding to BF16, which alone among hundreds of tokens it would not.
     */
    const int growth = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 1 : -1, tokens_for_twice = 4;
    for (uint32_t t = 0, window = 0; t < data.tokens; t++) { /* nothing of the gaps may count */
        while (window < count && t >= data.windows[window].first + data.windows[window].tokens)
            window++;
        if (window < count && t >= data.windows[window].first) {
            const int at = (int)(t - data.windows[window].first);
            for (size_t i = 0; i < k_row; i++)
                data.v[t * k_row + i] = ldexpf(data.v[t * k_row + i], growth * at / tokens_for_twice);
            continue;
        }
        for (size_t i = 0; i < q_row; i++)
            data.q[t * q_row + i] = NAN;
        for (size_t i = 0; i < k_row; i++)
            data.k[t * k_row + i] = data.v[t * k_row + i] = NAN;
    }
    const size_t size = type_size(act);
    data.given.q = on_device(typed(act, data.q, data.tokens * q_row), data.tokens * q_row * size);
    data.given.k = on_device(typed(act, data.k, data.tokens * k_row), data.tokens * k_row * size);
    data.given.v = on_device(typed(act, data.v, data.tokens * k_row), data.tokens * k_row * size);
    data.given.out = for_result(data.tokens * q_row * size);
    data.given.windows = on_device(data.windows, count * sizeof *data.windows);
    data.given.window_count = count;
    return data;
}

static void attention_check(const struct attention_case *of, enum cuda_type act, uint64_t seed) {
    const struct attention_data data = attention_make(of, act, seed);
    const uint32_t head_dim = of->head_dim, group = of->heads / of->kv_heads;
    const size_t q_row = (size_t)of->heads * head_dim, k_row = (size_t)of->kv_heads * head_dim;
    plugin->attention(device, &data.given);
    const void *out = from_device(data.given.out, data.tokens * q_row * type_size(act));
    const double *q = doubles(CUDA_F32, data.q, data.tokens * q_row),
                 *k = doubles(CUDA_F32, data.k, data.tokens * k_row),
                 *v = doubles(CUDA_F32, data.v, data.tokens * k_row);
    double *shares = host_memory(data.given.longest * sizeof *shares);
    char what[128];
    snprintf(what, sizeof what, "attention %u/%u x %u, sliding %u, act %d", of->heads, of->kv_heads, head_dim,
             of->sliding, (int)act);
    uint32_t done = 0;
    for (uint32_t w = 0; w < data.given.window_count; w++) {
        const struct cuda_window *window = &data.windows[w];
        for (; done < window->first; done++)
            check(what, done, typed_value(act, out, done * q_row + 1), NAN, 0);
        done = window->first + window->tokens;
        for (uint32_t at = 0; at < window->tokens; at++)
            for (uint32_t head = 0; head < of->heads; head++) {
                const uint32_t from = of->sliding > 0 && at + 1 > of->sliding ? at + 1 - of->sliding : 0;
                const size_t token = window->first + at;
                const size_t key = (window->first + from) * k_row + (size_t)(head / group) * head_dim;
                const double error = shares_make(q + token * q_row + (size_t)head * head_dim, k + key, k_row,
                                                 at + 1 - from, head_dim, shares);
                for (uint32_t i = 0; i < head_dim; i++) {
                    const struct attended attended = mix(shares, v + key + i, k_row, at + 1 - from, error);
                    check_typed(what, act, out, token * q_row + (size_t)head * head_dim + i, attended.value,
                                allowed_of(&attended, act == CUDA_BF16));
                }
            }
    }
    for (; done < data.tokens; done++)
        check(what, done, typed_value(act, out, done * q_row + 1), NAN, 0);
}

static void given_windows_of_any_length_then_attention_is_that_of_double(void **state) {
    (void)state;
    static const struct attention_case cases[] = {
        {1, 1, 8, 0, {1, 2, 3, 17}, 0},
        {2, 1, 16, 0, {33, 1, 16}, 1},
        {9, 3, 64, 0, {1, 63, 64, 65, 130}, 3},
        {8, 2, 32, 0, {129, 5, 31, 32, 33}, 2},
        {4, 1, 24, 0, {50, 15}, 1},
        {3, 3, 40, 0, {48, 70}, 2},
        {2, 2, 72, 0, {70}, 1},
        {6, 2, 128, 0, {65, 40, 1}, 1},
        {4, 2, 200, 0, {35, 66}, 1},
        {2, 1, 256, 0, {67, 20}, 1},
        {5, 1, 64, 0, {80}, 1},
        {7, 7, 48, 0, {3, 40}, 0},
    };
    for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            attention_check(&cases[i], act, i);
}

static void given_a_sliding_window_then_only_its_tokens_are_seen(void **state) {
    (void)state;
    static const uint32_t sliding[] = {1, 2, 31, 32, 34, 63, 64, 65, 79, 95, 100, 127, 1000};
    for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++)
        for (size_t i = 0; i < sizeof sliding / sizeof *sliding; i++) {
            const struct attention_case given = {2, 1, i % 2 ? 32 : 64, sliding[i], {150, 7, 66}, 1};
            const struct attention_case alone = {1, 1, 64, sliding[i], {150}, 0};
            attention_check(&given, act, i);
            attention_check(&alone, act, 3 * i + 2);
        }
}

/* Where a tile of keys begins to count for a warp's tokens, or ends to, depends on all of these. */
static void given_any_heads_and_sliding_window_then_attention_is_that_of_double(void **state) {
    (void)state;
    static const uint32_t widths[] = {32, 64, 64, 128, 256};
    uint64_t random = 17;
    for (uint32_t i = 0; i < scaled(30, 6); i++) {
        const uint32_t group = 1 + (uint32_t)(random_next(&random) % 7),
                       sliding = (uint32_t)(random_next(&random) % 150);
        const uint32_t length = 60 + (uint32_t)(random_next(&random) % (brief() ? 60 : 140));
        const struct attention_case given = {group, 1, widths[i % 5], sliding, {length}, 1};
        attention_check(&given, i % 3 ? CUDA_BF16 : CUDA_F32, i);
    }
}

static void given_heads_of_the_reference_models_then_attention_is_that_of_double(void **state) {
    (void)state;
    static const struct attention_case cases[] = {
        {96, 8, 128, 0, {20, 3}, 1}, {9, 3, 64, 0, {260, 100}, 1}, {8, 2, 32, 64, {300}, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        attention_check(&cases[i], CUDA_BF16, i);
}

/* A grid's second and third dimension end at 65,535. */
static void given_very_many_windows_then_each_is_attended_to(void **state) {
    (void)state;
    enum { HEAD_DIM = 8 };
    const uint32_t count = very_many();
    struct cuda_window *windows = host_memory(count * sizeof *windows);
    for (uint32_t i = 0; i < count; i++)
        windows[i] = (struct cuda_window){.first = i, .tokens = 1};
    const size_t n = (size_t)count * HEAD_DIM;
    float *v = random_floats(n, 1, 1);
    const void *values = typed(CUDA_BF16, v, n);
    const struct cuda_attention attention = {.heads = 1,
                                             .kv_heads = 1,
                                             .head_dim = HEAD_DIM,
                                             .act = CUDA_BF16,
                                             .q = on_device(values, n * 2),
                                             .k = on_device(values, n * 2),
                                             .v = on_device(values, n * 2),
                                             .out = for_result(n * 2),
                                             .windows = on_device(windows, count * sizeof *windows),
                                             .window_count = count,
                                             .longest = 1};
    plugin->attention(device, &attention);
    check_same("a window of one token", CUDA_BF16, from_device(attention.out, n * 2), values, n);
}

/* Both are within the bounds of the sums in double, twice that apart. The CPU wants heads of a group side by side. */
static void given_windows_then_attention_is_that_of_the_cpu(void **state) {
    (void)state;
    enum { HEADS = 6, KV_HEADS = 2, GROUP = HEADS / KV_HEADS, HEAD_DIM = 64 };
    static const struct attention_case given = {HEADS, KV_HEADS, HEAD_DIM, 0, {70, 1, 33}, 0};
    const struct attention_data data = attention_make(&given, CUDA_F32, 9);
    const size_t tokens = data.tokens, q_row = HEADS * HEAD_DIM, k_row = KV_HEADS * HEAD_DIM;
    float *q = host_memory(tokens * q_row * sizeof *q), *k = host_memory(tokens * k_row * sizeof *k),
          *v = host_memory(tokens * k_row * sizeof *v);
    struct attention_window windows[WINDOWS_MOST];
    for (uint32_t w = 0; w < data.given.window_count; w++) {
        windows[w] = (struct attention_window){.first = data.windows[w].first, .tokens = data.windows[w].tokens};
        for (size_t at = 0; at < windows[w].tokens; at++)
            for (size_t head = 0; head < HEADS; head++) {
                const size_t token = windows[w].first + at, kv_head = head / GROUP,
                             key = kv_head * windows[w].tokens + at;
                memcpy(q + windows[w].first * q_row + (key * GROUP + head % GROUP) * HEAD_DIM,
                       data.q + token * q_row + head * HEAD_DIM, HEAD_DIM * sizeof *q);
                memcpy(k + windows[w].first * k_row + key * HEAD_DIM, data.k + token * k_row + kv_head * HEAD_DIM,
                       HEAD_DIM * sizeof *k);
                memcpy(v + windows[w].first * k_row + key * HEAD_DIM, data.v + token * k_row + kv_head * HEAD_DIM,
                       HEAD_DIM * sizeof *v);
            }
    }
    struct engine engine;
    struct error error;
    const struct engine_options options = {.jobs = 1, .cpu = cpu_best()};
    assert_int_equal(engine_open(&options, &engine, &error), STATUS_OK);
    assert_int_equal(engine_space(&engine, 0, attention_scratch(&engine, HEAD_DIM), &error), STATUS_OK);
    const size_t packed =
        attention_packed(&engine, KV_HEADS, HEAD_DIM, data.given.longest, data.given.window_count, &error);
    unsigned char *kv_packed = aligned_alloc(64, (packed + 63) / 64 * 64);
    float *expected = host_memory(tokens * q_row * sizeof *expected);
    const struct attention attention = {.heads = HEADS,
                                        .kv_heads = KV_HEADS,
                                        .head_dim = HEAD_DIM,
                                        .windows = windows,
                                        .window_count = data.given.window_count,
                                        .q = (const unsigned char *)q,
                                        .k = (const unsigned char *)k,
                                        .v = (const unsigned char *)v,
                                        .kv_packed = kv_packed,
                                        .out = (unsigned char *)expected};
    assert_int_equal(attention_run(&engine, &attention, &error), STATUS_OK);
    engine_close(&engine);
    free(kv_packed);
    plugin->attention(device, &data.given);
    const float *out = from_device(data.given.out, tokens * q_row * sizeof *out);
    for (size_t i = 0; i < tokens * q_row; i++)
        check("attention of the CPU", i, (double)out[i], (double)expected[i], 1e-5);
}

/* ---- one token ---- */

struct step_case {
    uint32_t heads, kv_heads, head_dim, sliding, positions;
    enum cuda_type cache;
};

struct step {
    struct cuda_step_attention given;
    float *cosines, *sines, *factors;
    size_t cache_bytes;
    uint32_t *position; /* on the device */
};

static struct step step_make(const struct step_case *of, uint64_t seed) {
    uint64_t random = seed;
    const size_t angles = (size_t)of->positions * (of->head_dim / 2);
    struct step step = {.cosines = host_memory(angles * sizeof(float)),
                        .sines = host_memory(angles * sizeof(float)),
                        .factors = random_floats(of->positions, 1 / sqrt(of->head_dim), seed + 1),
                        .cache_bytes = (size_t)of->kv_heads * of->positions * of->head_dim * type_size(of->cache)};
    for (size_t i = 0; i < angles; i++) {
        const double angle = 3 * uniform(&random);
        step.cosines[i] = (float)cos(angle);
        step.sines[i] = (float)sin(angle);
    }
    const size_t query_bytes = (size_t)of->heads * of->head_dim * sizeof(float),
                 key_bytes = (size_t)of->kv_heads * of->head_dim * sizeof(float);
    step.position = for_result(sizeof *step.position);
    step.given = (struct cuda_step_attention){.heads = of->heads,
                                              .kv_heads = of->kv_heads,
                                              .head_dim = of->head_dim,
                                              .sliding = of->sliding,
                                              .positions = of->positions,
                                              .position = step.position,
                                              .cosines = on_device(step.cosines, angles * sizeof(float)),
                                              .sines = on_device(step.sines, angles * sizeof(float)),
                                              .query_factors = on_device(step.factors, of->positions * sizeof(float)),
                                              .queries = for_result(query_bytes),
                                              .keys = for_result(key_bytes),
                                              .values = for_result(key_bytes),
                                              .cache = of->cache,
                                              .cache_keys = for_result(step.cache_bytes),
                                              .cache_values = for_result(step.cache_bytes),
                                              .out = for_result(query_bytes)};
    step.given.space = for_space(plugin->step_attention_bytes(&step.given));
    return step;
}

/* Fills positions 0 .. count - 1 of the cache with random keys and values, through the host. */
static void cache_random(const struct step *step, uint32_t count, uint64_t seed) {
    const struct cuda_step_attention *given = &step->given;
    const size_t size = type_size(given->cache), run = (size_t)count * given->head_dim;
    for (int which = 0; which < 2; which++)
        for (uint32_t head = 0; head < given->kv_heads && count > 0; head++) {
            const float *x = random_floats(run, 2, seed + head * 2 + (uint64_t)which);
            unsigned char *to = which ? given->cache_values : given->cache_keys;
            to_device(to + (size_t)head * given->positions * given->head_dim * size, typed(given->cache, x, run),
                      run * size);
        }
}

/* x of [heads, head_dim] rotated at a position, and by how much each may be off. */
static void rotate(const struct step *step, const float *x, uint32_t position, uint32_t i, uint32_t head, double factor,
                   double *value, double *allowed) {
    const uint32_t head_dim = step->given.head_dim, half = head_dim / 2;
    const size_t angle = (size_t)position * half + i % half, at = (size_t)head * head_dim + i;
    const double own = (double)x[at] * (double)step->cosines[angle],
                 other = (double)x[i < half ? at + half : at - half] * (double)step->sines[angle] * (i < half ? -1 : 1);
    *value = (own + other) * factor;
    *allowed = ROUNDING * 4 * (fabs(own) + fabs(other)) * fabs(factor);
}

/*
 * One token at a position: what came into the cache, that nothing else there changed, and what it attends to in what is
 * there.
 */
static void step_check(const struct step *step, uint32_t position, uint64_t seed) {
    const struct cuda_step_attention *given = &step->given;
    const uint32_t heads = given->heads, kv_heads = given->kv_heads, head_dim = given->head_dim;
    const size_t query_n = (size_t)heads * head_dim, key_n = (size_t)kv_heads * head_dim,
                 cache_n = key_n * given->positions;
    const float *queries = random_floats(query_n, 4, seed), *keys = random_floats(key_n, 2, seed + 1),
                *values = edge_floats(key_n, 0.01f, seed + 2);
    to_device(step->position, &position, sizeof position);
    to_device(given->queries, queries, query_n * sizeof *queries);
    to_device((void *)(uintptr_t)given->keys, keys, key_n * sizeof *keys);
    to_device((void *)(uintptr_t)given->values, values, key_n * sizeof *values);
    unsigned char *before[2] = {from_device(given->cache_keys, step->cache_bytes),
                                from_device(given->cache_values, step->cache_bytes)};
    plugin->step_attention(device, given);
    const float *out = from_device(given->out, query_n * sizeof *out);
    const unsigned char *cache_keys = from_device(given->cache_keys, step->cache_bytes),
                        *cache_values = from_device(given->cache_values, step->cache_bytes);
    const void *stored = typed(given->cache, values, key_n);
    const size_t size = type_size(given->cache);
    for (uint32_t head = 0; head < kv_heads; head++) {
        const size_t place = ((size_t)head * given->positions + position) * head_dim;
        for (uint32_t i = 0; i < head_dim; i++) {
            double key, allowed;
            rotate(step, keys, position, i, head, 1, &key, &allowed);
            check_typed("key in the cache", given->cache, cache_keys, place + i, key, allowed);
        }
        check_same("value in the cache", given->cache, cache_values + place * size,
                   (const unsigned char *)stored + (size_t)head * head_dim * size, head_dim);
        memcpy(before[0] + place * size, cache_keys + place * size, head_dim * size);
        memcpy(before[1] + place * size, cache_values + place * size, head_dim * size);
    }
    assert_memory_equal(before[0], cache_keys, step->cache_bytes); /* other positions */
    assert_memory_equal(before[1], cache_values, step->cache_bytes);
    const uint32_t from = given->sliding > 0 && position + 1 > given->sliding ? position + 1 - given->sliding : 0;
    const uint32_t count = position + 1 - from, group = heads / kv_heads;
    const double *k = doubles(given->cache, cache_keys, cache_n), *v = doubles(given->cache, cache_values, cache_n);
    double *query = host_memory(head_dim * sizeof *query), *shares = host_memory(count * sizeof *shares);
    for (uint32_t head = 0; head < heads; head++) {
        double off = 0;
        for (uint32_t i = 0; i < head_dim; i++)
            rotate(step, queries, position, i, head, (double)step->factors[position], &query[i], &off);
        const size_t row = ((size_t)(head / group) * given->positions + from) * head_dim;
        /* four roundings of the rotation besides those of the sum */
        const double error = 1.5 * shares_make(query, k + row, head_dim, count, head_dim, shares);
        for (uint32_t i = 0; i < head_dim; i++) {
            const struct attended attended = mix(shares, v + row + i, head_dim, count, error);
            check("attention of one token", (size_t)head * head_dim + i, (double)out[(size_t)head * head_dim + i],
                  attended.value, allowed_of(&attended, false));
        }
    }
}

static void given_a_token_at_any_position_then_it_attends_to_its_cache(void **state) {
    (void)state;
    static const uint32_t positions[] = {0, 1, 2, 7, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 257, 299};
    static const struct step_case shapes[] = {{1, 1, 8, 0, 300, CUDA_F32},    {9, 3, 64, 0, 300, CUDA_F32},
                                              {8, 2, 32, 0, 300, CUDA_BF16},  {6, 1, 128, 0, 300, CUDA_F32},
                                              {2, 2, 256, 0, 300, CUDA_BF16}, {5, 1, 40, 0, 300, CUDA_E4M3}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum cuda_type cache = CUDA_F32; cache <= CUDA_E4M3; cache++) {
            struct step_case of = shapes[s];
            of.cache = cache;
            const struct step step = step_make(&of, s);
            for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
                if ((i + s + cache) % (brief() ? 16 : 4) != 0)
                    continue; /* emulation takes its time; each position has its turn */
                cache_random(&step, positions[i], i * 100);
                step_check(&step, positions[i], i * 10 + s);
            }
        }
}

static void given_a_sliding_window_then_a_token_attends_to_no_more(void **state) {
    (void)state;
    static const uint32_t sliding[] = {1, 2, 64, 100, 129, 5000};
    static const uint32_t positions[] = {0, 1, 63, 64, 99, 101, 100, 128, 199, 383};
    for (size_t s = 0; s < sizeof sliding / sizeof *sliding; s++) {
        const struct step_case of = {4, 2, 32, sliding[s], 384, (enum cuda_type)(s % 3)};
        const struct step step = step_make(&of, s);
        for (size_t i = s % 2 + 1; i < sizeof positions / sizeof *positions; i += brief() ? 6 : 2) {
            cache_random(&step, positions[i], i * 100);
            step_check(&step, positions[i], i * 10 + s);
        }
    }
}

static void given_long_caches_then_a_token_attends_to_all(void **state) {
    (void)state;
    static const struct step_case cases[] = {{9, 3, 64, 0, 8192, CUDA_F32},
                                             {4, 2, 32, 3000, 8192, CUDA_BF16},
                                             {96, 8, 128, 0, 700, CUDA_E4M3},
                                             {24, 2, 128, 0, 1500, CUDA_BF16},
                                             {8, 2, 32, 0, 16384, CUDA_E4M3},
                                             /* heads that are so many that each is divided into few shares */
                                             {32, 32, 16, 0, 2100, CUDA_E4M3},
                                             {64, 32, 8, 0, 2500, CUDA_F32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct step_case of = cases[i];
        of.positions = of.kv_heads == 32 ? of.positions : scaled(of.positions, 150);
        const struct step step = step_make(&of, i);
        cache_random(&step, of.positions - 1, i);
        step_check(&step, of.positions - 1, i + 5);
        if (brief())
            continue;
        step_check(&step, of.positions / 2, i + 6);
        step_check(&step, 0, i + 7);
    }
}

/* What lies behind the position in the cache is NaN here: it must not count. */
static void given_tokens_one_after_another_then_they_attend_as_a_window_does(void **state) {
    (void)state;
    enum { TOKENS = 24, SLIDING = 7, HEADS = 6, KV_HEADS = 2, HEAD_DIM = 32 };
    const uint32_t tokens = scaled(TOKENS, 9);
    for (uint32_t sliding = 0; sliding <= SLIDING; sliding += SLIDING) {
        const struct step_case of = {HEADS, KV_HEADS, HEAD_DIM, sliding, TOKENS + 3, CUDA_F32};
        const struct step step = step_make(&of, 3);
        const size_t q_row = HEADS * HEAD_DIM, k_row = KV_HEADS * HEAD_DIM;
        float *q = random_floats(tokens * q_row, 4, 1), *k = random_floats(tokens * k_row, 2, 2),
              *v = random_floats(tokens * k_row, 1, 3), *outs = host_memory(tokens * q_row * sizeof *outs);
        for (uint32_t t = 0; t < tokens; t++) {
            to_device(step.position, &t, sizeof t);
            to_device(step.given.queries, q + t * q_row, q_row * sizeof *q);
            to_device((void *)(uintptr_t)step.given.keys, k + t * k_row, k_row * sizeof *k);
            to_device((void *)(uintptr_t)step.given.values, v + t * k_row, k_row * sizeof *v);
            plugin->step_attention(device, &step.given);
            memcpy(outs + t * q_row, from_device(step.given.out, q_row * sizeof *outs), q_row * sizeof *outs);
        }
        const struct cuda_window window = {.first = 0, .tokens = tokens};
        for (uint32_t t = 0; t < tokens; t++) {
            const size_t angle = (size_t)t * (HEAD_DIM / 2);
            for (uint32_t head = 0; head < HEADS; head++)
                rows_of_cpu()->rotate(q + t * q_row + (size_t)head * HEAD_DIM, step.cosines + angle, step.sines + angle,
                                      step.factors[t], HEAD_DIM / 2, q + t * q_row + (size_t)head * HEAD_DIM);
            for (uint32_t head = 0; head < KV_HEADS; head++)
                rows_of_cpu()->rotate(k + t * k_row + (size_t)head * HEAD_DIM, step.cosines + angle, step.sines + angle,
                                      1, HEAD_DIM / 2, k + t * k_row + (size_t)head * HEAD_DIM);
        }
        const struct cuda_attention attention = {.heads = HEADS,
                                                 .kv_heads = KV_HEADS,
                                                 .head_dim = HEAD_DIM,
                                                 .sliding = sliding,
                                                 .act = CUDA_F32,
                                                 .q = on_device(q, tokens * q_row * sizeof *q),
                                                 .k = on_device(k, tokens * k_row * sizeof *k),
                                                 .v = on_device(v, tokens * k_row * sizeof *v),
                                                 .out = for_result(tokens * q_row * sizeof *q),
                                                 .windows = on_device(&window, sizeof window),
                                                 .window_count = 1,
                                                 .longest = tokens};
        plugin->attention(device, &attention);
        const float *expected = from_device(attention.out, tokens * q_row * sizeof *expected);
        for (size_t i = 0; i < tokens * q_row; i++)
            check("one after another", i, (double)outs[i], (double)expected[i], 1e-5);
    }
}

/* ---- filling the cache ---- */

static void given_keys_of_a_prompt_then_the_cache_holds_them_rounded(void **state) {
    (void)state;
    static const uint32_t shapes[][4] = {{1, 1, 8, 1},  {5, 3, 64, 9},  {37, 2, 32, 37},     {4, 8, 128, 70},
                                         {3, 2, 40, 5}, {2, 1, 256, 3}, {70001, 1, 8, 70003}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum cuda_type act = CUDA_F32; act <= CUDA_BF16; act++)
            for (enum cuda_type cache = CUDA_F32; cache <= CUDA_E4M3; cache++) {
                const uint32_t tokens = scaled(shapes[s][0], 5), kv_heads = shapes[s][1], head_dim = shapes[s][2],
                               positions = shapes[s][3];
                const size_t n = (size_t)tokens * kv_heads * head_dim, size = type_size(cache);
                const size_t bytes = (size_t)kv_heads * positions * head_dim * size;
                float *x = edge_floats(n, 1, s);
                if (act == CUDA_BF16)
                    rows_of_cpu()->round_bf16(x, (uint32_t)n, x);
                unsigned char *to = for_result(bytes);
                plugin->cache_fill(device, on_device(typed(act, x, n), n * type_size(act)), act, tokens, kv_heads,
                                   head_dim, cache, to, positions);
                const unsigned char *codes = typed(cache, x, n);
                unsigned char *expected = memset(host_memory(bytes), 0xff, bytes);
                for (size_t t = 0; t < tokens; t++)
                    for (size_t head = 0; head < kv_heads; head++)
                        memcpy(expected + (head * positions + t) * head_dim * size,
                               codes + (t * kv_heads + head) * head_dim * size, head_dim * size);
                check_same("cache", cache, from_device(to, bytes), expected, bytes / size);
            }
}

const struct CMUnitTest attention_tests[] = {
    cmocka_unit_test(given_windows_of_any_length_then_attention_is_that_of_double),
    cmocka_unit_test(given_a_sliding_window_then_only_its_tokens_are_seen),
    cmocka_unit_test(given_any_heads_and_sliding_window_then_attention_is_that_of_double),
    cmocka_unit_test(given_heads_of_the_reference_models_then_attention_is_that_of_double),
    cmocka_unit_test(given_very_many_windows_then_each_is_attended_to),
    cmocka_unit_test(given_windows_then_attention_is_that_of_the_cpu),
    cmocka_unit_test(given_a_token_at_any_position_then_it_attends_to_its_cache),
    cmocka_unit_test(given_a_sliding_window_then_a_token_attends_to_no_more),
    cmocka_unit_test(given_long_caches_then_a_token_attends_to_all),
    cmocka_unit_test(given_tokens_one_after_another_then_they_attend_as_a_window_does),
    cmocka_unit_test(given_keys_of_a_prompt_then_the_cache_holds_them_rounded),
};
const size_t attention_test_count = sizeof attention_tests / sizeof *attention_tests;
