/*
 * Attention in blocks: for a run of queries of one key-value head, the keys before them are taken KEYS at a time. Scores
 * are products with the packed keys; their exponentials, under a maximum that is kept per row and corrected when it grows,
 * are multiplied with the packed values (Dao et al., arXiv 2205.14135). No [window, window] matrix exists.
 */
#include <math.h>
#include <string.h>

#include "infer/cpu/engine.h"
#include "infer/space.h"

enum { KEYS = 256, QUERIES = 256 };

static uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

struct pass {
    struct engine *engine;
    const struct attention *attention;
    uint32_t group;                /* query heads of a key-value head */
    uint32_t queries;              /* tokens of a task */
    uint32_t most_keys;            /* blocks of keys in the longest window */
    uint32_t most_queries;         /* tasks of a key-value head in the longest window */
    size_t keys_size, values_size; /* of a packed block */
};

static unsigned char *block_packed(const struct pass *pass, uint32_t window, uint32_t kv_head, uint32_t block) {
    const size_t number = ((size_t)window * pass->attention->kv_heads + kv_head) * pass->most_keys + block;
    return pass->attention->kv_packed + number * (pass->keys_size + pass->values_size);
}

/* Task: a block of keys and values of one head. */
static void kv_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct pass *pass = context;
    const struct attention *attention = pass->attention;
    struct engine *engine = pass->engine;
    const uint32_t block = (uint32_t)(task % pass->most_keys), head_number = (uint32_t)(task / pass->most_keys);
    const uint32_t kv_head = head_number % attention->kv_heads, window_number = head_number / attention->kv_heads;
    const struct attention_window *window = &attention->windows[window_number];
    if (block * KEYS >= window->tokens)
        return;
    const uint32_t count = minimum(KEYS, window->tokens - block * KEYS), head_dim = attention->head_dim;
    const size_t row =
        (size_t)window->first * attention->kv_heads + (size_t)kv_head * window->tokens + (size_t)block * KEYS;
    const size_t offset = row * head_dim * engine->element;
    unsigned char *packed = block_packed(pass, window_number, kv_head, block);
    const struct product_part keys = {.n = count, .n_part = count, .k = head_dim, .k_part = head_dim};
    const struct product_part values = {
        .n = head_dim, .n_part = head_dim, .k = count, .k_part = count, .transposed = true};
    struct error error;
    if (product_pack(engine->products, &keys, attention->k + offset, head_dim, packed, &error) != STATUS_OK ||
        product_pack(engine->products, &values, attention->v + offset, head_dim, packed + pass->keys_size, &error) !=
            STATUS_OK)
        engine_fail(engine, STATUS_IO, &error);
}

/* What a task keeps: rows are (token, query head of the group). */
struct space {
    float *scores;         /* [rows, keys of the block] */
    unsigned char *shares; /* act [rows, keys of the block] */
    float *out;            /* [rows, head_dim] */
    float *most, *sums;    /* [rows] */
};

static struct space space_lay(const struct pass *pass, unsigned thread, uint32_t rows) {
    unsigned char *at = engine_scratch(pass->engine, thread);
    struct space space;
    space.scores = (float *)at;
    at += space_aligned((size_t)rows * KEYS * sizeof(float));
    space.shares = at;
    at += space_aligned((size_t)rows * KEYS * pass->engine->element);
    space.out = (float *)at;
    at += space_aligned((size_t)rows * pass->attention->head_dim * sizeof(float));
    space.most = (float *)at;
    space.sums = space.most + rows;
    return space;
}

/*
 * From scores to shares of a block whose first key is key0; `token0` is the position of the first row's token. Only keys
 * up to a token's own position count.
 */
static void block_soften(const struct pass *pass, const struct space *space, uint32_t rows, uint32_t token0,
                         uint32_t key0, uint32_t keys) {
    const struct engine *engine = pass->engine;
    const uint32_t head_dim = pass->attention->head_dim;
    for (uint32_t row = 0; row < rows; row++) {
        const uint32_t position = token0 + row / pass->group;
        const uint32_t seen = position < key0 ? 0 : minimum(position - key0 + 1, keys);
        float *scores = space->scores + (size_t)row * keys;
        unsigned char *shares = space->shares + (size_t)row * keys * engine->element;
        if (seen > 0) {
            const float most = engine->rows->maximum(scores, seen);
            if (most > space->most[row]) {
                const float correction = expf(space->most[row] - most);
                space->sums[row] *= correction;
                if (key0 > 0)
                    engine->rows->multiply(space->out + (size_t)row * head_dim, correction, head_dim);
                space->most[row] = most;
            }
            if (engine->bf16) {
                space->sums[row] +=
                    engine->rows->exponentials_bf16(scores, space->most[row], seen, (uint16_t *)(void *)shares);
            } else {
                space->sums[row] += engine->rows->exponentials(scores, space->most[row], seen);
                act_from_floats(engine, scores, seen, shares);
            }
        }
        memset(shares + (size_t)seen * engine->element, 0, (size_t)(keys - seen) * engine->element);
    }
}

/* Task: a run of queries of one key-value head. */
static void query_task(void *context, size_t task, unsigned thread) {
    const struct pass *pass = context;
    const struct attention *attention = pass->attention;
    struct engine *engine = pass->engine;
    /* the last queries see the most keys: they go first */
    const uint32_t run = pass->most_queries - 1 - (uint32_t)(task % pass->most_queries);
    const uint32_t head_number = (uint32_t)(task / pass->most_queries);
    const uint32_t kv_head = head_number % attention->kv_heads, window_number = head_number / attention->kv_heads;
    const struct attention_window *window = &attention->windows[window_number];
    const uint32_t token0 = run * pass->queries, head_dim = attention->head_dim;
    if (token0 >= window->tokens)
        return;
    const uint32_t tokens = minimum(pass->queries, window->tokens - token0), rows = tokens * pass->group;
    const struct space space = space_lay(pass, thread, rows);
    for (uint32_t row = 0; row < rows; row++) {
        space.most[row] = -INFINITY;
        space.sums[row] = 0;
    }
    const size_t first = (size_t)window->first * attention->heads +
                         ((size_t)kv_head * window->tokens + token0) * pass->group; /* row of q */
    const unsigned char *q = attention->q + first * head_dim * engine->element;
    for (uint32_t key0 = 0; key0 < token0 + tokens; key0 += KEYS) {
        const uint32_t keys = minimum(KEYS, window->tokens - key0);
        const unsigned char *packed = block_packed(pass, window_number, kv_head, key0 / KEYS);
        const struct product scores = {.m = rows, .n = keys, .k = head_dim};
        const struct product values = {.m = rows, .n = head_dim, .k = keys, .add = key0 > 0};
        struct error error;
        enum status status = product_run(engine->products, &scores, q, packed, space.scores, &error);
        if (status == STATUS_OK) {
            block_soften(pass, &space, rows, token0, key0, keys);
            status = product_run(engine->products, &values, space.shares, packed + pass->keys_size, space.out, &error);
        }
        if (status != STATUS_OK) {
            engine_fail(engine, STATUS_IO, &error);
            return;
        }
    }
    for (uint32_t row = 0; row < rows; row++) {
        float *values = space.out + (size_t)row * head_dim;
        engine->rows->multiply(values, 1 / space.sums[row], head_dim);
        const size_t token = window->first + token0 + row / pass->group;
        const size_t head = (size_t)kv_head * pass->group + row % pass->group;
        act_from_floats(engine, values, head_dim,
                        attention->out + (token * attention->heads + head) * head_dim * engine->element);
    }
}

size_t attention_scratch(const struct engine *engine, uint32_t head_dim) {
    const size_t rows = QUERIES;
    return space_aligned(rows * KEYS * sizeof(float)) + space_aligned(rows * KEYS * engine->element) +
           space_aligned(rows * head_dim * sizeof(float)) + space_aligned(2 * rows * sizeof(float));
}

static enum status sizes(struct engine *engine, uint32_t head_dim, uint32_t tokens, size_t *keys, size_t *values,
                         struct error *error) {
    *keys = product_packed_size(engine->products, minimum(KEYS, tokens), head_dim, error);
    *values = product_packed_size(engine->products, head_dim, minimum(KEYS, tokens), error);
    if (*keys == 0 || *values == 0)
        return STATUS_IO;
    /* a last block of fewer keys may be laid out with more padding */
    const size_t slack = (size_t)4 * 64 * (head_dim + 64) * engine->element;
    *keys += slack;
    *values += slack;
    return STATUS_OK;
}

size_t attention_packed(struct engine *engine, uint32_t kv_heads, uint32_t head_dim, uint32_t tokens, uint32_t windows,
                        struct error *error) {
    size_t keys, values;
    if (sizes(engine, head_dim, tokens, &keys, &values, error) != STATUS_OK)
        return 0;
    return (keys + values) * ((tokens + KEYS - 1) / KEYS) * kv_heads * windows;
}

enum status attention_run(struct engine *engine, const struct attention *attention, struct error *error) {
    struct pass pass = {.engine = engine, .attention = attention, .group = attention->heads / attention->kv_heads};
    uint32_t longest = 1;
    for (uint32_t i = 0; i < attention->window_count; i++)
        longest = attention->windows[i].tokens > longest ? attention->windows[i].tokens : longest;
    pass.queries = pass.group >= QUERIES ? 1 : QUERIES / pass.group;
    pass.most_keys = (longest + KEYS - 1) / KEYS;
    pass.most_queries = (longest + pass.queries - 1) / pass.queries;
    enum status status = sizes(engine, attention->head_dim, longest, &pass.keys_size, &pass.values_size, error);
    if (status != STATUS_OK)
        return status;
    const size_t heads = (size_t)attention->window_count * attention->kv_heads;
    workers_run(engine->workers, heads * pass.most_keys, kv_task, &pass);
    status = engine_status(engine, error);
    if (status != STATUS_OK)
        return status;
    workers_run(engine->workers, heads * pass.most_queries, query_task, &pass);
    return engine_status(engine, error);
}
