#include "calibrate/pull.h"

#include <stdlib.h>
#include <string.h>

static size_t values_size(uint32_t chunks, uint32_t tiles) {
    return (size_t)chunks * tiles * GRAM_TILE_VALUES * sizeof(float);
}

uint64_t pull_bytes(const struct engine *engine, uint32_t rows, uint32_t columns) {
    const uint32_t chunks = gram_tiles(rows);
    return values_size(chunks, gram_tiles(columns)) + 2 * (uint64_t)chunks * GRAM_TILE * GRAM_TOKENS * engine->element;
}

enum status pull_open(const struct engine *engine, uint32_t rows, uint32_t columns, struct pull *pull,
                      struct error *error) {
    *pull = (struct pull){.rows = rows, .chunks = gram_tiles(rows), .tiles = gram_tiles(columns)};
    const size_t values = values_size(pull->chunks, pull->tiles);
    const size_t lacks = (size_t)pull->chunks * GRAM_TILE * GRAM_TOKENS * engine->element;
    pull->packed_size = product_packed_size(engine->products, GRAM_TILE, GRAM_TOKENS, error);
    if (pull->packed_size == 0)
        return STATUS_IO;
    pull->values = aligned_alloc(64, values);
    pull->lacks = aligned_alloc(64, lacks);
    pull->packed = aligned_alloc(64, pull->packed_size * pull->chunks);
    if (!pull->values || !pull->lacks || !pull->packed)
        return error_set_memory(error);
    memset(pull->values, 0, values);
    memset(pull->lacks, 0, lacks); /* what is behind the last row stays so */
    return STATUS_OK;
}

void pull_end(struct pull *pull) {
    free(pull->lacks);
    free(pull->packed);
    pull->lacks = pull->packed = NULL;
}

void pull_close(struct pull *pull) {
    pull_end(pull);
    free(pull->values);
    *pull = (struct pull){0};
}

struct addition {
    struct pull *pull;
    struct engine *engine;
    const struct gram *gram;
    const float *lacks, *weights;
    size_t first;
    uint32_t count; /* at most GRAM_TOKENS; the others are zero */
};

/* Task: a token's lacks, times what it counts. */
static void fill_task(void *context, size_t task, unsigned thread) {
    const struct addition *addition = context;
    const struct engine *engine = addition->engine;
    const uint32_t rows = addition->pull->rows;
    float *values = (float *)(void *)engine_scratch(engine, thread);
    if (task < addition->count) {
        memcpy(values, addition->lacks + (addition->first + task) * rows, rows * sizeof *values);
        engine->rows->multiply(values, addition->weights[addition->first + task], rows);
    } else {
        memset(values, 0, rows * sizeof *values);
    }
    act_from_floats(engine, values, rows,
                    addition->pull->lacks + task * addition->pull->chunks * GRAM_TILE * engine->element);
}

/* Task: a chunk of rows of all tokens is packed. */
static void pack_task(void *context, size_t task, unsigned thread) {
    static const struct product_part part = {
        .n = GRAM_TILE, .k = GRAM_TOKENS, .n_part = GRAM_TILE, .k_part = GRAM_TOKENS, .transposed = true};
    const struct addition *addition = context;
    const struct pull *pull = addition->pull;
    struct error error;
    (void)thread;
    if (product_pack(addition->engine->products, &part, pull->lacks + task * GRAM_TILE * addition->engine->element,
                     (size_t)pull->chunks * GRAM_TILE, pull->packed + task * pull->packed_size, &error) != STATUS_OK)
        engine_fail(addition->engine, STATUS_IO, &error);
}

/* Task: a tile of columns. */
static void add_task(void *context, size_t task, unsigned thread) {
    static const struct product product = {.m = GRAM_TILE, .n = GRAM_TILE, .k = GRAM_TOKENS, .add = true};
    const struct addition *addition = context;
    const struct pull *pull = addition->pull;
    (void)thread;
    for (uint32_t chunk = 0; chunk < pull->chunks; chunk++) {
        struct error error;
        if (product_run(addition->engine->products, &product,
                        gram_turned(addition->gram, addition->engine, (uint32_t)task),
                        pull->packed + chunk * pull->packed_size,
                        pull->values + ((size_t)chunk * pull->tiles + task) * GRAM_TILE_VALUES, &error) != STATUS_OK) {
            engine_fail(addition->engine, STATUS_IO, &error);
            return;
        }
    }
}

enum status pull_add(struct pull *pull, struct engine *engine, const struct gram *gram, const float *lacks,
                     const float *weights, size_t first, uint32_t count, struct error *error) {
    struct addition addition = {pull, engine, gram, lacks, weights, first, count};
    workers_run(engine->workers, GRAM_TOKENS, fill_task, &addition);
    workers_run(engine->workers, pull->chunks, pack_task, &addition);
    workers_run(engine->workers, pull->tiles, add_task, &addition);
    return engine_status(engine, error);
}
