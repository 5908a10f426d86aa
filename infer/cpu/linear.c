/*
 * A linear layer over many tokens. The weight is taken in rounds of as many units of rows as fit the packed space. In a
 * round all threads first unpack and pack the units, 64 rows at a time, then multiply blocks of tokens with units.
 */
#include <string.h>

#include "infer/cpu/engine.h"

static uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Rows of a unit: a multiple of row_multiple, about ROW_UNIT. */
static uint32_t unit_rows(uint32_t row_multiple) {
    return row_multiple >= ROW_UNIT ? row_multiple : ROW_UNIT / row_multiple * row_multiple;
}

struct round {
    struct engine *engine;
    const struct linear *linear;
    unsigned weights;
    uint32_t unit;    /* rows */
    uint32_t parts;   /* of PRODUCT_ROWS rows in a unit */
    size_t unit_size; /* packed bytes */
    uint32_t first;   /* unit of this round */
    uint32_t count;   /* units in it */
};

static unsigned char *unit_packed(const struct round *round, uint32_t unit, unsigned weight) {
    return round->engine->packed + ((size_t)unit * round->weights + weight) * round->unit_size;
}

/* Task: PRODUCT_ROWS rows of a unit of a weight. */
static void pack_task(void *context, size_t task, unsigned thread) {
    const struct round *round = context;
    struct engine *engine = round->engine;
    const uint32_t part = (uint32_t)(task % round->parts), which = (uint32_t)(task / round->parts);
    const unsigned number = which % round->weights;
    const struct weight *weight = round->linear->weights[number];
    const uint32_t unit = which / round->weights, row = (round->first + unit) * round->unit;
    const uint32_t unit_n = minimum(round->unit, weight->rows - row), n0 = part * PRODUCT_ROWS;
    if (n0 >= unit_n)
        return;
    unsigned char *rows = engine_scratch(engine, thread);
    struct product_part place = {
        .n = unit_n, .k = weight->columns, .n0 = n0, .n_part = minimum(PRODUCT_ROWS, unit_n - n0)};
    for (place.k0 = 0; place.k0 < weight->columns; place.k0 += PRODUCT_COLUMNS) {
        place.k_part = minimum(PRODUCT_COLUMNS, weight->columns - place.k0);
        for (uint32_t i = 0; i < place.n_part; i++) {
            unsigned char *to = rows + (size_t)i * PRODUCT_COLUMNS * engine->element;
            if (engine->bf16) {
                engine->rows->unpack_bf16(weight, row + n0 + i, place.k0, place.k_part, (uint16_t *)to);
                continue;
            }
            engine->rows->unpack(weight, row + n0 + i, place.k0, place.k_part, (float *)to);
            if (engine->round)
                engine->rows->round_bf16((float *)to, place.k_part, (float *)to);
        }
        struct error error;
        if (product_pack(engine->products, &place, rows, PRODUCT_COLUMNS, unit_packed(round, unit, number), &error) !=
            STATUS_OK) {
            engine_fail(engine, STATUS_IO, &error);
            return;
        }
    }
}

/* What the products lack: the scales of operand and weight, and the bias. */
static void tile_scale(const struct engine *engine, const struct weight *weight, const struct operand_rows *input,
                       const struct tile *tile, float *y, float *factors) {
    const bool by_row = weight->format == WEIGHT_FP8 && weight->scale_rows == 1 && weight->rows > 1 &&
                        weight->scale_columns >= weight->columns;
    const bool by_tensor = weight->format == WEIGHT_FP8 && !by_row && weight->scale_rows >= weight->rows &&
                           weight->scale_columns >= weight->columns;
    const float scale = input->scale * (by_tensor ? *weight->scales : 1);
    if (by_row) {
        memcpy(factors, weight->scales + tile->row, tile->rows * sizeof *factors);
        engine->rows->multiply(factors, scale, tile->rows);
    }
    for (uint32_t i = 0; i < tile->block->count; i++) {
        float *row = y + (size_t)i * tile->rows;
        const float token_scale = input->per_token ? input->token_scales[tile->block->first + i] : 1;
        if (by_row)
            engine->rows->multiply_by(row, factors, tile->rows);
        if ((by_row ? 1 : scale) * token_scale != 1)
            engine->rows->multiply(row, (by_row ? 1 : scale) * token_scale, tile->rows);
        if (weight->bias)
            engine->rows->add(row, weight->bias + tile->row, tile->rows);
    }
}

static void tile_compute(const struct round *round, uint32_t block_number, uint32_t unit, unsigned thread) {
    struct engine *engine = round->engine;
    const struct linear *linear = round->linear;
    const struct token_block *block = &linear->blocks[block_number];
    struct tile tile = {.block = block, .block_number = block_number, .thread = thread};
    tile.row = (round->first + unit) * round->unit;
    tile.rows = minimum(round->unit, linear->weights[0]->rows - tile.row);
    float *scratch = (float *)engine_scratch(engine, thread);
    tile.space = scratch;
    for (unsigned i = 0; i < round->weights; i++) {
        const struct weight *weight = linear->weights[i];
        tile.y[i] = scratch + round->unit + (size_t)i * TOKEN_BLOCK * round->unit;
        const struct product product = {.m = block->count, .n = tile.rows, .k = weight->columns};
        const unsigned char *x = linear->inputs[i]->act + (size_t)block->first * weight->columns * engine->element;
        struct error error;
        if (product_run(engine->products, &product, x, unit_packed(round, unit, i), tile.y[i], &error) != STATUS_OK) {
            engine_fail(engine, STATUS_IO, &error);
            return;
        }
        tile_scale(engine, weight, linear->inputs[i], &tile, tile.y[i], tile.space);
    }
    linear->receive(linear->context, &tile);
}

static void product_task(void *context, size_t task, unsigned thread) {
    const struct round *round = context;
    if (!round->linear->in_order) {
        tile_compute(round, (uint32_t)(task / round->count), (uint32_t)(task % round->count), thread);
        return;
    }
    for (uint32_t unit = 0; unit < round->count; unit++)
        tile_compute(round, (uint32_t)task, unit, thread);
}

size_t linear_scratch(uint32_t row_multiple, unsigned weights) {
    const size_t unit = unit_rows(row_multiple), products = (unit + weights * unit * TOKEN_BLOCK) * sizeof(float);
    const size_t packing = (size_t)PRODUCT_ROWS * PRODUCT_COLUMNS * sizeof(float);
    return products > packing ? products : packing;
}

size_t linear_packed(struct engine *engine, const struct weight *weight, uint32_t row_multiple, unsigned weights,
                     struct error *error) {
    return weights * product_packed_size(engine->products, minimum(unit_rows(row_multiple), weight->rows),
                                         weight->columns, error);
}

enum status linear_run(struct engine *engine, const struct linear *linear, struct error *error) {
    const struct weight *weight = linear->weights[0];
    struct round round = {.engine = engine,
                          .linear = linear,
                          .weights = linear->weights[1] ? 2 : 1,
                          .unit = minimum(unit_rows(linear->row_multiple), weight->rows)};
    round.parts = (round.unit + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    round.unit_size = product_packed_size(engine->products, round.unit, weight->columns, error);
    const uint32_t units = (weight->rows + round.unit - 1) / round.unit;
    if (round.unit_size == 0)
        return STATUS_IO;
    const size_t fit = engine->packed_size / (round.unit_size * round.weights);
    if (fit == 0)
        return error_set(error, STATUS_IO, "the packed space is too small for a weight of %u columns", weight->columns);
    enum status status = STATUS_OK;
    for (; status == STATUS_OK && round.first < units; round.first += round.count) {
        round.count = fit < units - round.first ? (uint32_t)fit : units - round.first;
        workers_run(engine->workers, (size_t)round.count * round.weights * round.parts, pack_task, &round);
        status = engine_status(engine, error);
        if (status != STATUS_OK)
            break;
        workers_run(engine->workers, linear->in_order ? linear->block_count : (size_t)linear->block_count * round.count,
                    product_task, &round);
        status = engine_status(engine, error);
    }
    return status;
}
