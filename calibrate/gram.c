#include "calibrate/gram.h"

#include <stdlib.h>
#include <string.h>

#include "calibrate/pull.h"
#include "common/formats.h"

size_t gram_tile_number(uint32_t i, uint32_t j) { return (size_t)i * (i + 1) / 2 + j; }

size_t gram_tile_count(uint32_t tiles) { return gram_tile_number(tiles, 0); }

size_t gram_scratch(uint32_t columns) { return (size_t)GRAM_TOGETHER * columns * sizeof(float); }

uint32_t gram_tiles(uint32_t columns) { return (columns + GRAM_TILE - 1) / GRAM_TILE; }

uint64_t gram_bytes(const struct engine *engine, uint32_t columns) {
    const uint64_t tiles = gram_tiles(columns);
    return gram_tile_count((uint32_t)tiles) * GRAM_TILE_VALUES * sizeof(float) +
           2 * tiles * GRAM_TILE * GRAM_TOKENS * engine->element + (uint64_t)columns * sizeof(uint32_t);
}

enum status gram_open(const struct engine *engine, uint32_t columns, struct gram *gram, struct error *error) {
    *gram = (struct gram){.columns = columns, .tiles = gram_tiles(columns)};
    const size_t turned = (size_t)gram->tiles * GRAM_TILE * GRAM_TOKENS * engine->element;
    gram->packed_size = product_packed_size(engine->products, GRAM_TILE, GRAM_TOKENS, error);
    if (gram->packed_size == 0)
        return STATUS_IO;
    const size_t bytes = gram_tile_count(gram->tiles) * GRAM_TILE_VALUES * sizeof(float);
    gram->columns_of = malloc(columns * sizeof *gram->columns_of);
    gram->values = aligned_alloc(64, bytes);
    gram->turned = aligned_alloc(64, turned);
    gram->packed = aligned_alloc(64, gram->packed_size * gram->tiles);
    if (!gram->columns_of || !gram->values || !gram->turned || !gram->packed)
        return error_set_memory(error);
    memset(gram->values, 0, bytes);
    memset(gram->turned, 0, turned); /* what is behind the last column stays so */
    return STATUS_OK;
}

void gram_close(struct gram *gram) {
    free(gram->turned);
    free(gram->packed);
    free(gram->columns_of);
    free(gram->values);
    *gram = (struct gram){0};
}

const unsigned char *gram_turned(const struct gram *gram, const struct engine *engine, uint32_t tile) {
    return gram->turned + (size_t)tile * GRAM_TILE * GRAM_TOKENS * engine->element;
}

/* ---- tokens that are added ---- */

struct addition {
    struct gram *gram;
    struct engine *engine;
    const struct operand_rows *inputs;
    const float *weights;
    size_t first;
    uint32_t count; /* at most GRAM_TOKENS; the others are zero */
};

/* What a token's values are multiplied with. */
static float factor_of(const struct addition *addition, size_t row) {
    const struct operand_rows *inputs = addition->inputs;
    return addition->weights[row] * inputs->scale * (inputs->per_token ? inputs->token_scales[row] : 1);
}

/* ---- the order ---- */

struct ranked {
    float value;
    uint32_t column;
};

struct ranking {
    const struct addition *addition;
    struct ranked *ranked;
};

/* Task: the sums of squares of a tile's columns. */
static void rank_task(void *context, size_t task, unsigned thread) {
    const struct ranking *ranking = context;
    const struct addition *addition = ranking->addition;
    const struct engine *engine = addition->engine;
    const uint32_t columns = addition->gram->columns, begin = (uint32_t)task * GRAM_TILE;
    const uint32_t width = columns - begin < GRAM_TILE ? columns - begin : GRAM_TILE;
    (void)thread;
    for (uint32_t c = 0; c < width; c++)
        ranking->ranked[begin + c] = (struct ranked){0, begin + c};
    for (size_t row = addition->first; row < addition->first + addition->count; row++) {
        float buffer[GRAM_TILE];
        const float *values =
            act_to_floats(engine, addition->inputs->act + (row * columns + begin) * engine->element, width, buffer);
        const float factor = factor_of(addition, row);
        for (uint32_t c = 0; c < width; c++)
            ranking->ranked[begin + c].value += factor * factor * values[c] * values[c];
    }
}

/* NaN is the largest. */
static int compare_ranked(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->value < y->value || (x->value == x->value && y->value != y->value))
        return -1;
    if (x->value > y->value || (x->value != x->value && y->value == y->value))
        return 1;
    return (x->column < y->column) - (x->column > y->column);
}

static enum status columns_order(const struct addition *addition, struct error *error) {
    struct gram *gram = addition->gram;
    struct ranked *ranked = malloc(gram->columns * sizeof *ranked);
    if (!ranked)
        return error_set_memory(error);
    struct ranking ranking = {addition, ranked};
    workers_run(addition->engine->workers, gram->tiles, rank_task, &ranking);
    qsort(ranked, gram->columns, sizeof *ranked, compare_ranked);
    for (uint32_t place = 0; place < gram->columns; place++)
        gram->columns_of[place] = ranked[place].column;
    gram->ordered = true;
    free(ranked);
    return STATUS_OK;
}

/* ---- the sums ---- */

/* A token's values by place, times what they count. */
static void token_gather(const struct addition *addition, size_t row, float *values) {
    const struct gram *gram = addition->gram;
    const struct engine *engine = addition->engine;
    const unsigned char *from = addition->inputs->act + row * gram->columns * engine->element;
    if (engine->bf16)
        for (uint32_t i = 0; i < gram->columns; i++)
            values[i] = bf16_decode(((const uint16_t *)(const void *)from)[gram->columns_of[i]]);
    else
        for (uint32_t i = 0; i < gram->columns; i++)
            values[i] = ((const float *)(const void *)from)[gram->columns_of[i]];
    engine->rows->multiply(values, factor_of(addition, row), gram->columns);
}

/* Task: GRAM_TOGETHER tokens become columns; those behind the last are zero. */
static void turn_task(void *context, size_t task, unsigned thread) {
    const struct addition *addition = context;
    const struct engine *engine = addition->engine;
    const uint32_t columns = addition->gram->columns, token = (uint32_t)task * GRAM_TOGETHER;
    float *values = (float *)(void *)engine_scratch(addition->engine, thread);
    for (uint32_t t = 0; t < GRAM_TOGETHER; t++)
        if (token + t < addition->count)
            token_gather(addition, addition->first + token + t, values + (size_t)t * columns);
        else
            memset(values + (size_t)t * columns, 0, columns * sizeof *values);
    for (uint32_t i = 0; i < columns; i++) {
        float turned[GRAM_TOGETHER];
        for (uint32_t t = 0; t < GRAM_TOGETHER; t++)
            turned[t] = values[(size_t)t * columns + i];
        unsigned char *to = addition->gram->turned + ((size_t)i * GRAM_TOKENS + token) * engine->element;
        if (engine->bf16)
            engine->rows->to_bf16(turned, GRAM_TOGETHER, (uint16_t *)(void *)to);
        else
            memcpy(to, turned, sizeof turned);
    }
}

/* Task: a tile of them is packed, too. */
static void pack_task(void *context, size_t task, unsigned thread) {
    static const struct product_part part = {
        .n = GRAM_TILE, .k = GRAM_TOKENS, .n_part = GRAM_TILE, .k_part = GRAM_TOKENS};
    const struct addition *addition = context;
    struct error error;
    (void)thread;
    if (product_pack(addition->engine->products, &part, gram_turned(addition->gram, addition->engine, (uint32_t)task),
                     GRAM_TOKENS, addition->gram->packed + task * addition->gram->packed_size, &error) != STATUS_OK)
        engine_fail(addition->engine, STATUS_IO, &error);
}

/* Task: a row of tiles. */
static void add_task(void *context, size_t task, unsigned thread) {
    const struct addition *addition = context;
    struct gram *gram = addition->gram;
    const uint32_t i = gram->tiles - 1 - (uint32_t)task; /* the longest rows first */
    (void)thread;
    for (uint32_t j = 0; j <= i; j++) {
        static const struct product product = {.m = GRAM_TILE, .n = GRAM_TILE, .k = GRAM_TOKENS, .add = true};
        struct error error;
        if (product_run(addition->engine->products, &product, gram_turned(gram, addition->engine, i),
                        gram->packed + j * gram->packed_size, gram->values + gram_tile_number(i, j) * GRAM_TILE_VALUES,
                        &error) != STATUS_OK) {
            engine_fail(addition->engine, STATUS_IO, &error);
            return;
        }
    }
}

enum status gram_add(struct gram *gram, struct engine *engine, const struct operand_rows *inputs, const float *weights,
                     size_t first, uint32_t count, struct pull *pull, const float *lacks, struct error *error) {
    struct addition addition = {
        .gram = gram, .engine = engine, .inputs = inputs, .weights = weights, .first = first, .count = count};
    if (!gram->ordered) {
        const enum status status = columns_order(&addition, error);
        if (status != STATUS_OK)
            return status;
    }
    for (uint32_t done = 0; done < count; done += addition.count) {
        addition.first = first + done;
        addition.count = count - done < GRAM_TOKENS ? count - done : GRAM_TOKENS;
        workers_run(engine->workers, GRAM_TOKENS / GRAM_TOGETHER, turn_task, &addition);
        workers_run(engine->workers, gram->tiles, pack_task, &addition);
        workers_run(engine->workers, gram->tiles, add_task, &addition);
        enum status status = engine_status(engine, error);
        if (status == STATUS_OK && pull)
            status = pull_add(pull, engine, gram, lacks, weights, addition.first, addition.count, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}
