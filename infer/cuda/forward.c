#include "infer/cuda/forward.h"

#include "infer/cpu/activations.h" /* activations_equal */
#include "infer/cuda/lay.h"

/*
 * Rows of a tile: as many as the unpacked rows fit into TILE_BYTES and their products into Y_BYTES, a multiple of
 * TILE_ROWS: large enough for the product to run at full speed.
 */
enum { TILE_ROWS = 64, TILE_BYTES = 64 << 20, Y_BYTES = 256 << 20, FP8_MULTIPLE = 16 };

static uint64_t element(enum cuda_type type) { return type == CUDA_F32 ? 4 : type == CUDA_BF16 ? 2 : 1; }

static uint32_t gcd(uint32_t a, uint32_t b) { return b == 0 ? a : gcd(b, a % b); }

/*
 * `multiple`: rows come in units of this, a head's or a single one. `tokens`: those of the largest group, for all groups:
 * of a smaller one more rows would fit into the products' space, but not into the tiles', which was laid out for these.
 */
static uint32_t tile_rows(enum cuda_type act, uint32_t tokens, uint32_t rows, uint32_t columns, uint32_t multiple) {
    const uint32_t unit = TILE_ROWS / gcd(TILE_ROWS, multiple) * multiple;
    const uint64_t by_weight = TILE_BYTES / (columns * element(act)), by_y = Y_BYTES / ((uint64_t)tokens * 4);
    const uint64_t most = by_weight < by_y ? by_weight : by_y;
    const uint64_t wanted = most < unit || unit == 0 ? unit : most / unit * unit;
    return wanted < rows ? (uint32_t)wanted : rows;
}

/* ---- space ---- */

static bool rounds(const struct model *model, enum layer_weight which) {
    for (uint32_t i = 0; i < model->layer_count; i++)
        if (model->layers[i].weights[which].weight.activations != ACTIVATIONS_FLOAT)
            return true;
    return false;
}

static void tile_measure(struct cuda_space *space, enum cuda_type act, uint32_t tokens, const struct weight *weight,
                         uint32_t multiple) {
    const uint64_t rows = tile_rows(act, tokens, weight->rows, weight->columns, multiple);
    space->tile_bytes = cuda_larger(space->tile_bytes, rows * weight->columns * element(act));
    space->y_bytes = cuda_larger(space->y_bytes, rows * tokens * sizeof(float));
}

void cuda_space_lay(const struct model *models, unsigned count, enum cuda_type act, const struct cuda_shape *shape,
                    unsigned char *base, struct cuda_space *space) {
    *space = (struct cuda_space){.shape = *shape};
    const uint64_t tokens = shape->tokens;
    uint64_t widest = 0, hidden = models[0].hidden, query = 0, key = 0, middle = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct model *model = &models[i];
        query = cuda_larger(query, (uint64_t)model->heads * model->head_dim);
        key = cuda_larger(key, (uint64_t)model->kv_heads * model->head_dim);
        middle = cuda_larger(middle, model->intermediate);
        widest = cuda_larger(widest, hidden);
        if (rounds(model, WEIGHT_O))
            widest = cuda_larger(widest, query);
        if (rounds(model, WEIGHT_DOWN))
            widest = cuda_larger(widest, middle);
        for (enum layer_weight j = 0; j < LAYER_WEIGHTS; j++)
            tile_measure(space, act, shape->tokens, &model->layers[0].weights[j].weight,
                         j <= WEIGHT_V ? model->head_dim : 1);
        if (shape->scored > 0)
            tile_measure(space, act, shape->scored, &model->head.weight, 1);
    }
    uint64_t at = 0;
    space->operands[0] = cuda_take(base, &at, tokens * widest * element(act));
    space->operands[1] = cuda_take(base, &at, tokens * hidden * element(act));
    for (unsigned i = 0; i < 2; i++) {
        space->token_scales[i] = cuda_take(base, &at, tokens * sizeof(float));
        space->tiles[i] = cuda_take(base, &at, space->tile_bytes);
        space->y[i] = cuda_take(base, &at, space->y_bytes);
    }
    space->k = cuda_take(base, &at, tokens * key * element(act));
    space->v = cuda_take(base, &at, tokens * key * element(act));
    uint64_t attention = at, mlp = at; /* one after the other in the same place */
    space->q = cuda_take(base, &attention, tokens * query * element(act));
    space->attended = cuda_take(base, &attention, tokens * query * element(act));
    space->middle = cuda_take(base, &mlp, tokens * middle * element(act));
    space->size = cuda_larger(attention, mlp);
}

/* ---- tables ---- */

uint64_t cuda_rope_bytes(const struct model *model, uint32_t positions) {
    return 2 * cuda_aligned((uint64_t)positions * (model->head_dim / 2) * sizeof(float)) +
           cuda_aligned((uint64_t)positions * sizeof(float));
}

enum status cuda_rope_make(const struct cuda *cuda, const struct model *model, uint32_t positions,
                           struct cuda_rope *rope, struct error *error) {
    struct rope_table table = {0};
    unsigned char *memory = NULL;
    enum status status = rope_table_make(model, positions, &table, error);
    if (status == STATUS_OK)
        status = cuda_allocate(cuda, cuda_rope_bytes(model, positions), &memory, error);
    if (status == STATUS_OK) {
        const uint64_t half = (uint64_t)positions * (model->head_dim / 2) * sizeof(float);
        rope->cosines = (float *)(void *)memory;
        rope->sines = (float *)(void *)(memory + cuda_aligned(half));
        rope->query_factors = (float *)(void *)(memory + 2 * cuda_aligned(half));
        const struct cuda_plugin *plugin = cuda->plugin;
        plugin->copy_in(cuda->device, CUDA_COMPUTE, rope->cosines, table.cosines, half);
        plugin->copy_in(cuda->device, CUDA_COMPUTE, rope->sines, table.sines, half);
        plugin->copy_in(cuda->device, CUDA_COMPUTE, rope->query_factors, table.query_factors,
                        positions * sizeof(float));
        status = cuda_finish(cuda, error);
    }
    rope_table_free(&table);
    return status;
}

/* ---- linear layers ---- */

/* Rows of a product, rounded as a weight wants them. */
struct rows_operand {
    enum cuda_type type;
    const void *x;
    float scale;
    const float *token_scales;
};

/* Products of FP8 with FP8 where the device has them: weights with one scale or one a row, activations with one a token. */
static bool is_fp8_product(const struct cuda_forward *forward, const struct weight *weight) {
    return forward->act == CUDA_BF16 && forward->cuda->info.fp8 && weight->format == WEIGHT_FP8 &&
           (weight->activations == ACTIVATIONS_FP8_STATIC || weight->activations == ACTIVATIONS_FP8_TOKEN) &&
           weight->scale_columns >= weight->columns &&
           (weight->scale_rows >= weight->rows || weight->scale_rows == 1) && weight->columns % FP8_MULTIPLE == 0 &&
           weight->rows % FP8_MULTIPLE == 0;
}

static struct rows_operand operand_make(const struct cuda_forward *forward, const struct weight *weight,
                                        struct cuda_operand from, unsigned number) {
    const struct cuda_space *space = forward->space;
    struct rows_operand operand = {.type = is_fp8_product(forward, weight) ? CUDA_E4M3 : forward->act, .scale = 1};
    if (weight->activations == ACTIVATIONS_FP8_STATIC)
        operand.scale = weight->input_scale;
    if (weight->activations == ACTIVATIONS_FP8_TOKEN)
        operand.token_scales = space->token_scales[number];
    if (from.source && weight->activations == ACTIVATIONS_FLOAT) { /* nothing to do: products take it as it is */
        operand.x = from.source;
        return operand;
    }
    from.columns = weight->columns;
    from.act = forward->act;
    from.weight = weight;
    from.type = operand.type;
    from.out = space->operands[number];
    from.token_scales = space->token_scales[number];
    forward->cuda->plugin->operand(forward->cuda->device, &from);
    operand.x = from.out;
    return operand;
}

/* y of rows [first, first + rows) of a weight. */
static struct cuda_result tile_run(const struct cuda_forward *forward, const struct weight *weight,
                                   const struct rows_operand *operand, uint32_t tokens, uint32_t first, uint32_t rows,
                                   unsigned number) {
    const struct cuda_plugin *plugin = forward->cuda->plugin;
    struct cuda_device *device = forward->cuda->device;
    const bool as_stored = operand->type == CUDA_E4M3 ||
                           (operand->type == CUDA_BF16 && weight->format == WEIGHT_BF16) ||
                           (operand->type == CUDA_F32 && weight->format == WEIGHT_F32);
    const void *values = (const unsigned char *)weight->codes + first * weight_row_bytes(weight);
    if (!as_stored) {
        plugin->unpack(device, weight, first, rows, operand->type, forward->space->tiles[number]);
        values = forward->space->tiles[number];
    }
    const struct cuda_product product = {.type = operand->type,
                                         .tokens = tokens,
                                         .rows = rows,
                                         .columns = weight->columns,
                                         .x = operand->x,
                                         .weight = values,
                                         .y = forward->space->y[number]};
    plugin->product(device, &product);
    return (struct cuda_result){.y = forward->space->y[number],
                                .tokens = tokens,
                                .first = first,
                                .rows = rows,
                                .weight = weight,
                                .scale = operand->scale,
                                .token_scales = operand->token_scales};
}

/* ---- the layer ---- */

static void projection_run(const struct cuda_forward *forward, const struct weight *weight,
                           const struct rows_operand *operand, const struct cuda_group *group,
                           const struct cuda_heads *heads) {
    const uint32_t step =
        tile_rows(forward->act, forward->space->shape.tokens, weight->rows, weight->columns, heads->head_dim);
    for (uint32_t first = 0; first < weight->rows; first += step) {
        const uint32_t rows = weight->rows - first < step ? weight->rows - first : step;
        const struct cuda_result result = tile_run(forward, weight, operand, group->tokens, first, rows, 0);
        forward->cuda->plugin->finish_heads(forward->cuda->device, &result, heads);
    }
}

/* hidden += weight * operand. */
static void residual_run(const struct cuda_forward *forward, const struct weight *weight,
                         const struct rows_operand *operand, const struct cuda_group *group, float *hidden) {
    const uint32_t step = tile_rows(forward->act, forward->space->shape.tokens, weight->rows, weight->columns, 1);
    for (uint32_t first = 0; first < weight->rows; first += step) {
        const uint32_t rows = weight->rows - first < step ? weight->rows - first : step;
        const struct cuda_result result = tile_run(forward, weight, operand, group->tokens, first, rows, 0);
        forward->cuda->plugin->finish_residual(forward->cuda->device, &result, hidden, weight->rows);
    }
}

static void attention_run_layer(const struct cuda_forward *forward, const struct layer *layer,
                                const struct cuda_group *group, float *hidden) {
    const struct model *model = forward->model;
    const struct cuda_space *space = forward->space;
    const struct cuda_rope *rope = forward->rope;
    const struct cuda_operand normed = {
        .hidden = hidden, .norm = layer->attention_norm, .epsilon = model->norm_epsilon, .tokens = group->tokens};
    void *const outs[] = {space->q, space->k, space->v};
    struct rows_operand operand = {0};
    for (enum layer_weight i = WEIGHT_Q; i <= WEIGHT_V; i++) {
        const struct weight *weight = &layer->weights[i];
        if (i == WEIGHT_Q || !activations_equal(weight, weight - 1) ||
            is_fp8_product(forward, weight) != is_fp8_product(forward, weight - 1))
            operand = operand_make(forward, weight, normed, 0);
        struct cuda_heads heads = {.heads = i == WEIGHT_Q ? model->heads : model->kv_heads,
                                   .head_dim = model->head_dim,
                                   .positions = group->positions,
                                   .act = forward->act,
                                   .rounding = CUDA_F32,
                                   .out = outs[i]};
        if (i != WEIGHT_V) {
            heads.cosines = rope->cosines;
            heads.sines = rope->sines;
        }
        if (i == WEIGHT_Q)
            heads.query_factors = rope->query_factors;
        else if (forward->kv_cache != KV_CACHE_AUTO)
            heads.rounding = forward->kv_cache == KV_CACHE_FP8 ? CUDA_E4M3 : CUDA_BF16;
        projection_run(forward, weight, &operand, group, &heads);
    }
    const struct cuda_attention attention = {.heads = model->heads,
                                             .kv_heads = model->kv_heads,
                                             .head_dim = model->head_dim,
                                             .sliding = model->sliding_window,
                                             .act = forward->act,
                                             .q = space->q,
                                             .k = space->k,
                                             .v = space->v,
                                             .out = space->attended,
                                             .windows = group->windows,
                                             .window_count = group->window_count,
                                             .longest = group->longest};
    forward->cuda->plugin->attention(forward->cuda->device, &attention);
    const struct cuda_operand attended = {.source = space->attended, .tokens = group->tokens};
    operand = operand_make(forward, &layer->weights[WEIGHT_O], attended, 0);
    residual_run(forward, &layer->weights[WEIGHT_O], &operand, group, hidden);
}

static void mlp_run(const struct cuda_forward *forward, const struct layer *layer, const struct cuda_group *group,
                    float *hidden) {
    const struct weight *gate = &layer->weights[WEIGHT_GATE], *up = &layer->weights[WEIGHT_UP],
                        *down = &layer->weights[WEIGHT_DOWN];
    const struct cuda_operand normed = {
        .hidden = hidden, .norm = layer->mlp_norm, .epsilon = forward->model->norm_epsilon, .tokens = group->tokens};
    struct rows_operand operands[2];
    operands[0] = operand_make(forward, gate, normed, 0);
    operands[1] = operands[0];
    if (!activations_equal(gate, up) || is_fp8_product(forward, gate) != is_fp8_product(forward, up))
        operands[1] = operand_make(forward, up, normed, 1);
    const uint32_t step = tile_rows(forward->act, forward->space->shape.tokens, gate->rows, gate->columns, 1);
    for (uint32_t first = 0; first < gate->rows; first += step) {
        const uint32_t rows = gate->rows - first < step ? gate->rows - first : step;
        const struct cuda_result results[2] = {tile_run(forward, gate, &operands[0], group->tokens, first, rows, 0),
                                               tile_run(forward, up, &operands[1], group->tokens, first, rows, 1)};
        forward->cuda->plugin->finish_swiglu(forward->cuda->device, results, forward->act, forward->space->middle,
                                             gate->rows);
    }
    const struct cuda_operand middle = {.source = forward->space->middle, .tokens = group->tokens};
    operands[0] = operand_make(forward, down, middle, 0);
    residual_run(forward, down, &operands[0], group, hidden);
}

void cuda_layer_run(const struct cuda_forward *forward, const struct layer *layer, const struct cuda_group *group,
                    float *hidden) {
    attention_run_layer(forward, layer, group, hidden);
    mlp_run(forward, layer, group, hidden);
}

/* ---- the head ---- */

void cuda_head_run(const struct cuda_forward *forward, const struct cuda_head *head) {
    const unsigned sides = head->weights[1] ? 2 : 1;
    struct rows_operand operands[2];
    for (unsigned side = 0; side < sides; side++) {
        const struct cuda_operand normed = {.hidden = head->hidden[side],
                                            .norm = head->norms[side],
                                            .epsilon = head->models[side]->norm_epsilon,
                                            .rows = head->rows,
                                            .tokens = head->scored};
        operands[side] = operand_make(forward, head->weights[side], normed, side);
    }
    const uint32_t all = head->weights[0]->rows;
    uint32_t step = all;
    for (unsigned side = 0; side < sides; side++) {
        const uint32_t rows =
            tile_rows(forward->act, forward->space->shape.scored, all, head->weights[side]->columns, 1);
        step = rows < step ? rows : step;
    }
    for (uint32_t first = 0; first < all; first += step) {
        const uint32_t rows = all - first < step ? all - first : step;
        struct cuda_result results[2];
        for (unsigned side = 0; side < sides; side++)
            results[side] = tile_run(forward, head->weights[side], &operands[side], head->scored, first, rows, side);
        forward->cuda->plugin->head_update(forward->cuda->device, results, sides, head->vocabulary_row + first,
                                           head->tokens);
    }
}
