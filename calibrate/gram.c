#include "calibrate/gram.h"

#include <stdlib.h>
#include <string.h>

size_t gram_tile_number(uint32_t i, uint32_t j) { return (size_t)i * (i + 1) / 2 + j; }

size_t gram_tile_count(uint32_t tiles) { return gram_tile_number(tiles, 0); }

static uint32_t tiles_of(uint32_t columns) { return (columns + GRAM_TILE - 1) / GRAM_TILE; }

uint64_t gram_bytes(const struct engine *engine, uint32_t columns) {
    const uint64_t tiles = tiles_of(columns);
    return gram_tile_count((uint32_t)tiles) * GRAM_TILE_VALUES * sizeof(float) +
           2 * tiles * GRAM_TILE * GRAM_TOKENS * engine->element;
}

enum status gram_open(const struct engine *engine, uint32_t columns, struct gram *gram, struct error *error) {
    *gram = (struct gram){.columns = columns, .tiles = tiles_of(columns)};
    const size_t turned = (size_t)gram->tiles * GRAM_TILE * GRAM_TOKENS * engine->element;
    gram->packed_size = product_packed_size(engine->products, GRAM_TILE, GRAM_TOKENS, error);
    if (gram->packed_size == 0)
        return STATUS_IO;
    const size_t bytes = gram_tile_count(gram->tiles) * GRAM_TILE_VALUES * sizeof(float);
    gram->values = aligned_alloc(64, bytes);
    gram->turned = aligned_alloc(64, turned);
    gram->packed = aligned_alloc(64, gram->packed_size * gram->tiles);
    if (!gram->values || !gram->turned || !gram->packed)
        return error_set_memory(error);
    memset(gram->values, 0, bytes);
    return STATUS_OK;
}

void gram_end(struct gram *gram) {
    free(gram->turned);
    free(gram->packed);
    gram->turned = gram->packed = NULL;
}

void gram_close(struct gram *gram) {
    gram_end(gram);
    free(gram->values);
    *gram = (struct gram){0};
}

float gram_value(const struct gram *gram, uint32_t row, uint32_t column) {
    const uint32_t i = row > column ? row : column, j = row > column ? column : row;
    return gram->values[gram_tile_number(i / GRAM_TILE, j / GRAM_TILE) * GRAM_TILE_VALUES +
                        (size_t)(i % GRAM_TILE) * GRAM_TILE + j % GRAM_TILE];
}

/* ---- adding ---- */

struct addition {
    struct gram *gram;
    struct engine *engine;
    const struct operand_rows *inputs;
    const float *weights;
    size_t first;
    uint32_t count; /* at most GRAM_TOKENS; the others are zero */
};

static unsigned char *turned_tile(const struct addition *addition, uint32_t tile) {
    return addition->gram->turned + (size_t)tile * GRAM_TILE * GRAM_TOKENS * addition->engine->element;
}

/* Task: a tile's columns of all tokens become rows, scales applied; then they are packed, too. */
static void turn_task(void *context, size_t task, unsigned thread) {
    const struct addition *addition = context;
    struct engine *engine = addition->engine;
    const struct operand_rows *inputs = addition->inputs;
    const uint32_t columns = addition->gram->columns, begin = (uint32_t)task * GRAM_TILE;
    const uint32_t width = columns - begin < GRAM_TILE ? columns - begin : GRAM_TILE;
    unsigned char *to = turned_tile(addition, (uint32_t)task);
    (void)thread;
    memset(to, 0, (size_t)GRAM_TILE * GRAM_TOKENS * engine->element);
    for (uint32_t token = 0; token < addition->count; token++) {
        const unsigned char *from = inputs->act + ((addition->first + token) * columns + begin) * engine->element;
        float values[GRAM_TILE];
        const float *floats = act_to_floats(engine, from, width, values);
        if (floats != values)
            memcpy(values, floats, width * sizeof *values);
        const size_t row = addition->first + token;
        engine->rows->multiply(
            values, addition->weights[row] * inputs->scale * (inputs->per_token ? inputs->token_scales[row] : 1),
            width);
        if (engine->bf16) {
            uint16_t codes[GRAM_TILE];
            engine->rows->to_bf16(values, width, codes);
            for (uint32_t i = 0; i < width; i++)
                ((uint16_t *)(void *)to)[(size_t)i * GRAM_TOKENS + token] = codes[i];
        } else {
            for (uint32_t i = 0; i < width; i++)
                ((float *)(void *)to)[(size_t)i * GRAM_TOKENS + token] = values[i];
        }
    }
    const struct product_part part = {.n = GRAM_TILE, .k = GRAM_TOKENS, .n_part = GRAM_TILE, .k_part = GRAM_TOKENS};
    struct error error;
    if (product_pack(engine->products, &part, to, GRAM_TOKENS,
                     addition->gram->packed + task * addition->gram->packed_size, &error) != STATUS_OK)
        engine_fail(engine, &error);
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
        if (product_run(addition->engine->products, &product, turned_tile(addition, i),
                        gram->packed + j * gram->packed_size, gram->values + gram_tile_number(i, j) * GRAM_TILE_VALUES,
                        &error) != STATUS_OK) {
            engine_fail(addition->engine, &error);
            return;
        }
    }
}

enum status gram_add(struct gram *gram, struct engine *engine, const struct operand_rows *inputs, const float *weights,
                     size_t first, uint32_t count, struct error *error) {
    struct addition addition = {.gram = gram, .engine = engine, .inputs = inputs, .weights = weights};
    for (uint32_t done = 0; done < count; done += addition.count) {
        addition.first = first + done;
        addition.count = count - done < GRAM_TOKENS ? count - done : GRAM_TOKENS;
        workers_run(engine->workers, gram->tiles, turn_task, &addition);
        workers_run(engine->workers, gram->tiles, add_task, &addition);
        const enum status status = engine_status(engine, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}
