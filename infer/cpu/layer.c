#include "infer/cpu/layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cpu/activations.h"
#include "infer/space.h"

/* ---- space ---- */

static uint32_t maximum(uint32_t a, uint32_t b) { return a > b ? a : b; }

static bool gate_differs_from_up(const struct model *model) {
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct weight_place *weights = model->layers[i].weights;
        /* static scales are known only when the layer is loaded */
        if (weights[WEIGHT_GATE].weight.activations == ACTIVATIONS_FP8_STATIC ||
            !activations_equal(&weights[WEIGHT_GATE].weight, &weights[WEIGHT_UP].weight))
            return true;
    }
    return false;
}

/* Where things lie in the space: the operands, then what attention and what the MLP needs in the same place. */
struct places {
    struct operand_rows operands[2]; /* [tokens, hidden] */
    unsigned char *q, *k, *v, *out, *kv_packed;
    unsigned char *middle; /* [tokens, intermediate] */
    float *middle_scales;
    size_t size;
};

static void space_lay(const struct engine *engine, const struct model *model, uint32_t tokens, size_t kv_packed,
                      unsigned char *base, struct places *places) {
    const size_t row = tokens * engine->element, query = (size_t)model->heads * model->head_dim,
                 key = (size_t)model->kv_heads * model->head_dim;
    size_t at = 0;
    for (unsigned i = 0; i < (gate_differs_from_up(model) ? 2 : 1); i++) {
        places->operands[i].act = space_take(base, &at, row * model->hidden);
        places->operands[i].token_scales = (float *)space_take(base, &at, tokens * sizeof(float));
    }
    places->middle_scales = (float *)space_take(base, &at, tokens * sizeof(float));
    size_t attention = at, mlp = at;
    places->q = space_take(base, &attention, row * query);
    places->k = space_take(base, &attention, row * key);
    places->v = space_take(base, &attention, row * key);
    places->out = space_take(base, &attention, row * query);
    places->kv_packed = space_take(base, &attention, kv_packed);
    places->middle = space_take(base, &mlp, row * model->intermediate);
    places->size = attention > mlp ? attention : mlp;
}

size_t layer_space_size(struct engine *engine, const struct model *model, uint32_t tokens, uint32_t windows,
                        uint32_t longest, struct error *error) {
    const size_t kv_packed = attention_packed(engine, model->kv_heads, model->head_dim, longest, windows, error);
    struct places places = {0};
    space_lay(engine, model, tokens, kv_packed, NULL, &places);
    return kv_packed == 0 ? 0 : places.size;
}

enum status layer_engine_size(struct engine *engine, const struct model *model, size_t *packed, size_t *scratch,
                              struct error *error) {
    *packed = 0;
    for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++) {
        const bool pair = i == WEIGHT_GATE || i == WEIGHT_UP;
        const size_t size = linear_packed(engine, &model->layers[0].weights[i].weight,
                                          i <= WEIGHT_V ? model->head_dim : 1, pair ? 2 : 1, error);
        if (size == 0)
            return STATUS_IO;
        *packed = size > *packed ? size : *packed;
    }
    *scratch = linear_scratch(model->head_dim, 1);
    const size_t sizes[] = {
        linear_scratch(1, 2), attention_scratch(engine, model->head_dim),
        (size_t)maximum(maximum(model->hidden, model->intermediate), model->heads * model->head_dim) * sizeof(float) *
            2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        *scratch = sizes[i] > *scratch ? sizes[i] : *scratch;
    return STATUS_OK;
}

/* ---- tasks ---- */

struct pass {
    struct engine *engine;
    const struct layer_run *run;
    struct places places;
    /* of the tasks that fill operands */
    const float *norm;           /* NULL: from `source` instead */
    const unsigned char *source; /* act [tokens, columns] */
    const struct weight *weights[2];
    struct operand_rows *operands[2];
    enum layer_weight which; /* that tiles are received of */
};

/* Task: a block of operands, of one weight or of two. */
static void operand_task(void *context, size_t task, unsigned thread) {
    const struct pass *pass = context;
    const struct engine *engine = pass->engine;
    const struct token_block *block = &pass->run->group->blocks[task];
    const uint32_t columns = pass->weights[0]->columns;
    float *values = (float *)engine_scratch(engine, thread), *copy = values + columns;
    for (uint32_t token = block->first; token < block->first + block->count; token++) {
        if (pass->norm)
            engine->rows->norm(pass->run->hidden + (size_t)token * columns, pass->norm, pass->run->model->norm_epsilon,
                               columns, values);
        else
            memcpy(values,
                   act_to_floats(engine, pass->source + (size_t)token * columns * engine->element, columns, copy),
                   columns * sizeof *values);
        if (engine->bf16 || engine->round) /* what a server's kernels quantize is bf16 */
            engine->rows->round_bf16(values, columns, values);
        for (unsigned i = 0; i < 2 && pass->weights[i]; i++) {
            memcpy(copy, values, columns * sizeof *copy);
            operand_row_fill(engine, pass->weights[i], copy, token, pass->operands[i]);
        }
    }
}

static void operands_fill(struct pass *pass, const float *norm, const unsigned char *source, const struct weight *first,
                          struct operand_rows *first_operand, const struct weight *second,
                          struct operand_rows *second_operand) {
    pass->norm = norm;
    pass->source = source;
    pass->weights[0] = first;
    pass->weights[1] = second;
    pass->operands[0] = first_operand;
    pass->operands[1] = second_operand;
    operand_begin(first, first_operand);
    if (second)
        operand_begin(second, second_operand);
    workers_run(pass->engine->workers, pass->run->group->block_count, operand_task, pass);
}

/* The rows of a tile are whole heads of q, k or v: rotated, rounded as the cache rounds, and put where attention wants. */
static void heads_receive(void *context, struct tile *tile) {
    const struct pass *pass = context;
    const struct engine *engine = pass->engine;
    const struct model *model = pass->run->model;
    const struct attention_window *window = &pass->run->group->windows[tile->block->window];
    const uint32_t head_dim = model->head_dim, half = head_dim / 2;
    const bool query = pass->which == WEIGHT_Q;
    const uint32_t group = query ? model->heads / model->kv_heads : 1;
    unsigned char *base = query ? pass->places.q : pass->which == WEIGHT_K ? pass->places.k : pass->places.v;
    const size_t first = (size_t)window->first * (query ? model->heads : model->kv_heads);
    for (uint32_t i = 0; i < tile->block->count; i++) {
        const uint32_t position = tile->block->position + i;
        for (uint32_t at = 0; at < tile->rows; at += head_dim) {
            float *values = tile->y[0] + (size_t)i * tile->rows + at;
            if (pass->which != WEIGHT_V)
                engine->rows->rotate(values, pass->run->rope->cosines + (size_t)position * half,
                                     pass->run->rope->sines + (size_t)position * half,
                                     query ? pass->run->rope->query_factors[position] : 1, half, values);
            if (!query && pass->run->kv_rounding == KV_BF16)
                engine->rows->round_bf16(values, head_dim, values);
            else if (!query && pass->run->kv_rounding == KV_FP8)
                engine->rows->to_fp8(values, 1, head_dim, values);
            const uint32_t head = (tile->row + at) / head_dim;
            const size_t row = first + ((size_t)(head / group) * window->tokens + position) * group + head % group;
            act_from_floats(engine, values, head_dim, base + row * head_dim * engine->element);
        }
    }
}

static void residual_receive(void *context, struct tile *tile) {
    const struct pass *pass = context;
    const uint32_t hidden = pass->run->model->hidden;
    for (uint32_t i = 0; i < tile->block->count; i++)
        pass->engine->rows->add(pass->run->hidden + (size_t)(tile->block->first + i) * hidden + tile->row,
                                tile->y[0] + (size_t)i * tile->rows, tile->rows);
}

static void gate_receive(void *context, struct tile *tile) {
    const struct pass *pass = context;
    const struct engine *engine = pass->engine;
    const uint32_t intermediate = pass->run->model->intermediate;
    for (uint32_t i = 0; i < tile->block->count; i++) {
        float *values = tile->y[0] + (size_t)i * tile->rows;
        engine->rows->swiglu(values, tile->y[1] + (size_t)i * tile->rows, tile->rows, values);
        const size_t place = (size_t)(tile->block->first + i) * intermediate + tile->row;
        act_from_floats(engine, values, tile->rows, pass->places.middle + place * engine->element);
    }
}

/* ---- the layer ---- */

static enum status linear(struct pass *pass, const struct weight *first, const struct operand_rows *first_operand,
                          const struct weight *second, const struct operand_rows *second_operand, uint32_t row_multiple,
                          tile_function *receive, struct error *error) {
    const struct linear linear = {.weights = {first, second},
                                  .inputs = {first_operand, second_operand},
                                  .blocks = pass->run->group->blocks,
                                  .block_count = pass->run->group->block_count,
                                  .row_multiple = row_multiple,
                                  .receive = receive,
                                  .context = pass};
    return linear_run(pass->engine, &linear, error);
}

/* The inputs of a linear layer are there. */
static enum status tap(const struct pass *pass, enum layer_weight which, const struct operand_rows *inputs,
                       struct error *error) {
    const struct layer_run *run = pass->run;
    return run->tap ? run->tap(run->tap_context, which, inputs, error) : STATUS_OK;
}

static enum status attention(struct pass *pass, struct error *error) {
    const struct model *model = pass->run->model;
    const struct weight *weights = pass->run->layer->weights;
    struct operand_rows *operand = &pass->places.operands[0];
    for (enum layer_weight i = WEIGHT_Q; i <= WEIGHT_V; i++) {
        if (i == WEIGHT_Q || !activations_equal(&weights[i], &weights[i - 1]))
            operands_fill(pass, pass->run->layer->attention_norm, NULL, &weights[i], operand, NULL, NULL);
        enum status status = i == WEIGHT_Q ? tap(pass, i, operand, error) : STATUS_OK;
        if (status != STATUS_OK || pass->run->end == i)
            return status;
        pass->which = i;
        status = linear(pass, &weights[i], operand, NULL, NULL, model->head_dim, heads_receive, error);
        if (status != STATUS_OK)
            return status;
    }
    const struct attention attention = {.heads = model->heads,
                                        .kv_heads = model->kv_heads,
                                        .head_dim = model->head_dim,
                                        .windows = pass->run->group->windows,
                                        .window_count = pass->run->group->window_count,
                                        .q = pass->places.q,
                                        .k = pass->places.k,
                                        .v = pass->places.v,
                                        .kv_packed = pass->places.kv_packed,
                                        .out = pass->places.out};
    enum status status = attention_run(pass->engine, &attention, error);
    if (status != STATUS_OK)
        return status;
    struct operand_rows out = {.act = pass->places.out, .token_scales = pass->places.middle_scales, .scale = 1};
    if (weights[WEIGHT_O].activations != ACTIVATIONS_FLOAT)
        operands_fill(pass, NULL, pass->places.out, &weights[WEIGHT_O], &out, NULL, NULL);
    status = tap(pass, WEIGHT_O, &out, error);
    if (status != STATUS_OK || pass->run->end == WEIGHT_O)
        return status;
    return linear(pass, &weights[WEIGHT_O], &out, NULL, NULL, 1, residual_receive, error);
}

static enum status mlp(struct pass *pass, struct error *error) {
    const struct weight *weights = pass->run->layer->weights, *gate = &weights[WEIGHT_GATE], *up = &weights[WEIGHT_UP];
    struct operand_rows *first = &pass->places.operands[0], *second = &pass->places.operands[1];
    if (activations_equal(gate, up)) {
        operands_fill(pass, pass->run->layer->mlp_norm, NULL, gate, first, NULL, NULL);
        second = first;
    } else {
        operands_fill(pass, pass->run->layer->mlp_norm, NULL, gate, first, up, second);
    }
    enum status status = tap(pass, WEIGHT_GATE, first, error);
    if (status != STATUS_OK || pass->run->end == WEIGHT_GATE)
        return status;
    status = linear(pass, gate, first, up, second, 1, gate_receive, error);
    if (status != STATUS_OK)
        return status;
    struct operand_rows middle = {.act = pass->places.middle, .token_scales = pass->places.middle_scales, .scale = 1};
    if (weights[WEIGHT_DOWN].activations != ACTIVATIONS_FLOAT)
        operands_fill(pass, NULL, pass->places.middle, &weights[WEIGHT_DOWN], &middle, NULL, NULL);
    status = tap(pass, WEIGHT_DOWN, &middle, error);
    if (status != STATUS_OK || pass->run->end == WEIGHT_DOWN)
        return status;
    return linear(pass, &weights[WEIGHT_DOWN], &middle, NULL, NULL, 1, residual_receive, error);
}

static void finite_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct pass *pass = context;
    const struct token_block *block = &pass->run->group->blocks[task];
    const uint32_t hidden = pass->run->model->hidden;
    for (uint32_t token = block->first; token < block->first + block->count; token++)
        if (!pass->engine->rows->all_finite(pass->run->hidden + (size_t)token * hidden, hidden)) {
            struct error error;
            error_write(
                &error, 0,
                "'%s': layer %u gives NaN or infinity at position %u of a window: a weight of it is damaged, or "
                "its values are beyond what the model computes in (see 'qstream inspect --stats')",
                pass->run->model->checkpoint.path, pass->run->layer_number, block->position + token - block->first);
            engine_fail(pass->engine, STATUS_BAD_INPUT, &error);
            return;
        }
}

enum status layer_run(struct engine *engine, const struct layer_run *run, struct error *error) {
    struct pass pass = {.engine = engine, .run = run};
    const struct model *model = run->model;
    uint32_t longest = 0;
    for (uint32_t i = 0; i < run->group->window_count; i++)
        longest = maximum(longest, run->group->windows[i].tokens);
    const size_t kv_packed =
        attention_packed(engine, model->kv_heads, model->head_dim, longest, run->group->window_count, error);
    if (kv_packed == 0)
        return STATUS_IO;
    space_lay(engine, model, run->group->tokens, kv_packed, run->space->bytes, &pass.places);
    if (pass.places.size > run->space->size)
        return error_set(error, STATUS_IO, "the space for activations is too small");
    enum status status = run->begin == WEIGHT_Q ? attention(&pass, error) : STATUS_OK;
    if (status == STATUS_OK && (run->end > WEIGHT_GATE || (run->end == WEIGHT_GATE && run->tap)))
        status = mlp(&pass, error);
    if (status != STATUS_OK)
        return status;
    workers_run(engine->workers, run->group->block_count, finite_task, &pass);
    return engine_status(engine, error);
}
