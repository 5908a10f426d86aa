#include "infer/cpu/ppl_cpu.h"

#include <math.h>
#include <stdlib.h>

#include "infer/cpu/head.h"
#include "infer/cpu/layer.h"
#include "infer/hidden.h"
#include "infer/prefetch.h"

struct state {
    struct prefetch *prefetch;
    struct rope_table ropes[2];
    float *norms[2];      /* the last ones, [hidden] */
    struct hidden hidden; /* slot = side * groups + group */
    struct layer_space space;
};

static struct engine *engine_of(const struct ppl_work *work) {
    return &((struct ppl_cpu *)work->setup->machine)->engine;
}

static enum status open_all(struct ppl_work *work, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    const struct ppl_cpu *plan = setup->machine;
    struct state *state = calloc(1, sizeof *state);
    work->state = state;
    if (!state)
        return error_set_memory(error);
    state->hidden.file = -1;
    state->space.size = plan->space;
    state->space.bytes = aligned_alloc(64, (plan->space + 63) / 64 * 64);
    if (!state->space.bytes)
        return error_set_memory(error);
    enum status status = engine_space(engine_of(work), plan->packed, plan->scratch, error);
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        state->norms[side] = malloc(model->hidden * sizeof(float));
        status = state->norms[side] ? norm_load(model, model->norm, model->hidden, state->norms[side], error)
                                    : error_set_memory(error);
        if (status == STATUS_OK)
            status = rope_table_make(model, setup->longest, &state->ropes[side], error);
    }
    if (status == STATUS_OK)
        status = hidden_open(&state->hidden, setup->groups * setup->sides, setup->slots_in_memory, setup->slot_bytes,
                             setup->sides, ppl_setup_spill_folder(setup), error);
    if (status == STATUS_OK) {
        struct prefetch_options prefetch = ppl_setup_prefetch(setup);
        prefetch.load = ppl_step_load;
        prefetch.context = work;
        status = prefetch_start(&prefetch, &state->prefetch, error);
    }
    return status;
}

static void close_all(struct ppl_work *work) {
    struct state *state = work->state;
    if (!state)
        return;
    prefetch_stop(state->prefetch);
    for (unsigned side = 0; side < 2; side++) {
        free(state->norms[side]);
        rope_table_free(&state->ropes[side]);
    }
    hidden_close(&state->hidden);
    free(state->space.bytes);
    free(state);
}

static enum status step(struct ppl_work *work, size_t number, struct error *error) {
    (void)number;
    return prefetch_next(((struct state *)work->state)->prefetch, error);
}

/* ---- hidden states ---- */

static enum status embed(struct ppl_work *work, unsigned side, size_t group, struct error *error) {
    struct state *state = work->state;
    const size_t slot = side * work->setup->groups + group;
    float *values;
    enum status status = hidden_get(&state->hidden, slot, side, 1, &values, error);
    if (status == STATUS_OK)
        status = ppl_group_embed(work, side, group, values, error);
    return status == STATUS_OK ? hidden_put(&state->hidden, slot, side, error) : status;
}

static enum status layer(struct ppl_work *work, unsigned side, uint32_t number, size_t group, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    const size_t slot = side * setup->groups + group;
    float *values;
    enum status status = hidden_get(&state->hidden, slot, side, 0, &values, error);
    if (status != STATUS_OK)
        return status;
    const struct layer_run run = {
        .model = &setup->models[side],
        .layer = &work->layers[(size_t)number * setup->sides + side],
        .layer_number = number,
        .end = LAYER_WEIGHTS,
        .rope = &state->ropes[side],
        .kv_rounding = setup->options->kv_cache == KV_CACHE_FP8    ? KV_FP8
                       : setup->options->kv_cache == KV_CACHE_BF16 ? KV_BF16
                                                                   : KV_AS_ACT,
        .group = &work->groups[group],
        .hidden = values,
        .space = &state->space,
    };
    status = layer_run(engine_of(work), &run, error);
    return status == STATUS_OK ? hidden_put(&state->hidden, slot, side, error) : status;
}

struct comparison {
    const struct group *group;
    size_t hidden;
    const float *values, *baseline;
    struct ppl_layer *sums; /* [blocks] */
};

static void compare_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct comparison *comparison = context;
    const struct token_block *block = &comparison->group->blocks[task];
    const size_t hidden = comparison->hidden;
    struct ppl_layer sums = {0};
    for (uint32_t token = block->first; token < block->first + block->count; token++) {
        const float *x = comparison->values + token * hidden, *b = comparison->baseline + token * hidden;
        double xx = 0, bb = 0, xb = 0, dd = 0;
        for (size_t i = 0; i < hidden; i++) {
            const double p = (double)x[i], q = (double)b[i];
            xx += p * p;
            bb += q * q;
            xb += p * q;
            dd += (p - q) * (p - q);
        }
        sums.rel_error += dd == 0 ? 0 : sqrt(dd / bb);
        sums.cosine += dd == 0 ? 1 : xb / sqrt(xx * bb);
    }
    comparison->sums[task] = sums;
}

static enum status compare(struct ppl_work *work, size_t index, size_t number, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    struct comparison comparison = {.group = &work->groups[number], .hidden = setup->models[0].hidden};
    float *values, *baseline;
    enum status status = hidden_get(&state->hidden, number, 0, 0, &values, error);
    if (status == STATUS_OK)
        status = hidden_get(&state->hidden, setup->groups + number, 1, 0, &baseline, error);
    if (status != STATUS_OK)
        return status;
    comparison.values = values;
    comparison.baseline = baseline;
    comparison.sums = malloc(comparison.group->block_count * sizeof *comparison.sums);
    if (!comparison.sums)
        return error_set_memory(error);
    workers_run(engine_of(work)->workers, comparison.group->block_count, compare_task, &comparison);
    struct ppl_layer *to = &work->result->layers[index];
    for (uint32_t i = 0; i < comparison.group->block_count; i++) {
        to->rel_error += comparison.sums[i].rel_error / (double)setup->budget.tokens;
        to->cosine += comparison.sums[i].cosine / (double)setup->budget.tokens;
    }
    free(comparison.sums);
    return STATUS_OK;
}

/* ---- head ---- */

struct head_fill {
    const struct engine *engine;
    const struct model *model;
    const struct group *group, *scored;
    const float *values, *norm;
    const struct weight *weight;
    struct operand_rows *operand;
};

/* Task: the operands of a block of scored tokens: each token's logits come from the hidden state before it. */
static void head_fill_task(void *context, size_t task, unsigned thread) {
    const struct head_fill *fill = context;
    const struct engine *engine = fill->engine;
    const struct token_block *block = &fill->scored->blocks[task];
    const struct attention_window *window = &fill->group->windows[block->window];
    const uint32_t columns = fill->model->hidden;
    const uint32_t before = window->first + window->tokens - fill->scored->windows[block->window].tokens - 1;
    float *row = (float *)engine_scratch(engine, thread);
    for (uint32_t i = 0; i < block->count; i++) {
        engine->rows->norm(fill->values + (size_t)(before + block->position + i) * columns, fill->norm,
                           fill->model->norm_epsilon, columns, row);
        operand_row_fill(engine, fill->weight, row, block->first + i, fill->operand);
    }
}

static enum status head(struct ppl_work *work, size_t slice, size_t group, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    struct engine *engine = engine_of(work);
    const struct group *scored = &work->scored_groups[group];
    struct operand_rows operands[2];
    struct head_run run = {.first_row = (uint32_t)slice * setup->head_rows,
                           .group = scored,
                           .tokens = work->tokens + work->first_scored[group]};
    unsigned char *at = state->space.bytes;
    for (unsigned side = 0; side < setup->sides; side++) {
        struct head_fill fill = {.engine = engine,
                                 .model = &setup->models[side],
                                 .group = &work->groups[group],
                                 .scored = scored,
                                 .norm = state->norms[side],
                                 .weight = &work->heads[slice][side],
                                 .operand = &operands[side]};
        operand_begin(fill.weight, &operands[side]);
        operands[side].act = at;
        at += ((size_t)scored->tokens * fill.model->hidden * engine->element + 63) / 64 * 64;
        operands[side].token_scales = (float *)at;
        at += ((size_t)scored->tokens * sizeof(float) + 63) / 64 * 64;
        float *values;
        const enum status status = hidden_get(&state->hidden, side * setup->groups + group, side, 0, &values, error);
        if (status != STATUS_OK)
            return status;
        fill.values = values;
        workers_run(engine->workers, scored->block_count, head_fill_task, &fill);
        run.weights[side] = fill.weight;
        run.inputs[side] = fill.operand;
    }
    return head_run(engine, &run, error);
}

static enum status finish(struct ppl_work *work, struct error *error) {
    (void)work;
    (void)error;
    return STATUS_OK; /* nothing is done behind the caller's back */
}

const struct ppl_backend ppl_backend_cpu = {.plan = ppl_cpu_plan,
                                            .plan_free = ppl_cpu_plan_free,
                                            .open = open_all,
                                            .close = close_all,
                                            .step = step,
                                            .embed = embed,
                                            .layer = layer,
                                            .compare = compare,
                                            .head = head,
                                            .finish = finish};
