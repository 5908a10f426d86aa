#include "infer/ppl_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "infer/cpu/head.h"
#include "infer/cpu/layer.h"
#include "infer/hidden.h"

struct pass {
    struct ppl_setup *setup;
    const int32_t *ids;
    struct ppl_result *result;
    struct prefetch *prefetch;
    struct layer *layers;      /* [layer_steps], set when they are loaded */
    struct weight (*heads)[2]; /* [slices], likewise */
    struct rope_table ropes[2];
    float *norms[2]; /* the last ones, [hidden] */
    struct attention_window *windows,
        *scored;                          /* [window_count]: in their group's buffers, all tokens and scored ones */
    struct group *groups, *scored_groups; /* [groups] */
    struct head_token *tokens;            /* [scored] */
    struct hidden hidden;                 /* slot = side * groups + group */
    struct layer_space space;
    struct progress progress;
    uint64_t done; /* bytes of steps behind */
};

/* ---- preparation ---- */

static enum status step_load(void *context, size_t step, void *buffer, struct error *error) {
    struct pass *pass = context;
    const struct ppl_setup *setup = pass->setup;
    if (step < setup->layer_steps)
        return layer_load(&setup->models[step % setup->sides], (uint32_t)(step / setup->sides), buffer,
                          &pass->layers[step], error);
    const size_t slice = step - setup->layer_steps;
    const uint32_t rows = ppl_setup_slice_rows(setup, slice);
    unsigned char *at = buffer;
    for (unsigned side = 0; side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        const enum status status = weight_rows_load(model, &model->head, (uint32_t)slice * setup->head_rows, rows, at,
                                                    &pass->heads[slice][side], error);
        if (status != STATUS_OK)
            return status;
        at += (weight_rows_bytes(&model->head, rows) + 63) / 64 * 64;
    }
    return STATUS_OK;
}

static size_t group_window_count(const struct ppl_setup *setup, size_t group) {
    const size_t rest = setup->window_count - group * setup->group_windows;
    return rest < setup->group_windows ? rest : setup->group_windows;
}

static enum status groups_make(struct pass *pass, struct error *error) {
    const struct ppl_setup *setup = pass->setup;
    enum status status = STATUS_OK;
    for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
        const size_t first = group * setup->group_windows, count = group_window_count(setup, group);
        uint32_t tokens = 0, scored = 0;
        for (size_t i = first; i < first + count; i++) {
            pass->windows[i] = (struct attention_window){tokens, setup->windows[i].tokens};
            pass->scored[i] = (struct attention_window){scored, setup->windows[i].scored};
            tokens += setup->windows[i].tokens;
            scored += setup->windows[i].scored;
        }
        status = group_make(&pass->windows[first], (uint32_t)count, &pass->groups[group], error);
        if (status == STATUS_OK)
            status = group_make(&pass->scored[first], (uint32_t)count, &pass->scored_groups[group], error);
    }
    return status;
}

static void tokens_begin(struct pass *pass) {
    size_t token = 0;
    for (size_t i = 0; i < pass->setup->window_count; i++) {
        const struct ppl_window *window = &pass->setup->windows[i];
        for (size_t place = window->first + window->tokens - window->scored; place < window->first + window->tokens;
             place++)
            head_token_begin(&pass->tokens[token++], (uint32_t)pass->ids[place]);
    }
}

static enum status pass_open(struct pass *pass, struct error *error) {
    struct ppl_setup *setup = pass->setup;
    pass->hidden.file = -1;
    pass->layers = calloc(setup->layer_steps, sizeof *pass->layers);
    pass->heads = calloc(setup->steps - setup->layer_steps, sizeof *pass->heads);
    pass->windows = calloc(setup->window_count, sizeof *pass->windows);
    pass->scored = calloc(setup->window_count, sizeof *pass->scored);
    pass->groups = calloc(setup->groups, sizeof *pass->groups);
    pass->scored_groups = calloc(setup->groups, sizeof *pass->scored_groups);
    pass->tokens = malloc(setup->scored * sizeof *pass->tokens);
    pass->space.size = setup->space;
    pass->space.bytes = aligned_alloc(64, (setup->space + 63) / 64 * 64);
    if (!pass->layers || !pass->heads || !pass->windows || !pass->scored || !pass->groups || !pass->scored_groups ||
        !pass->tokens || !pass->space.bytes)
        return error_set_memory(error);
    enum status status = engine_space(&setup->engine, setup->packed, setup->scratch, error);
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        pass->norms[side] = malloc(model->hidden * sizeof(float));
        status = pass->norms[side] ? norm_load(model, model->norm, model->hidden, pass->norms[side], error)
                                   : error_set_memory(error);
        if (status == STATUS_OK)
            status = rope_table_make(model, setup->longest, &pass->ropes[side], error);
    }
    if (status == STATUS_OK)
        status = groups_make(pass, error);
    if (status == STATUS_OK) {
        tokens_begin(pass);
        const char *folder = setup->options->spill_folder;
        folder = folder ? folder : getenv("TMPDIR");
        status = hidden_open(&pass->hidden, setup->groups * setup->sides, setup->slots_in_memory, setup->slot_bytes,
                             setup->sides, folder && *folder ? folder : "/tmp", error);
    }
    if (status == STATUS_OK) {
        struct prefetch_options prefetch = ppl_setup_prefetch(setup);
        prefetch.load = step_load;
        prefetch.context = pass;
        status = prefetch_start(&prefetch, &pass->prefetch, error);
    }
    return status;
}

static void pass_close(struct pass *pass) {
    prefetch_stop(pass->prefetch);
    for (unsigned side = 0; side < 2; side++) {
        free(pass->norms[side]);
        rope_table_free(&pass->ropes[side]);
    }
    for (size_t group = 0; group < pass->setup->groups; group++) {
        if (pass->groups)
            group_free(&pass->groups[group]);
        if (pass->scored_groups)
            group_free(&pass->scored_groups[group]);
    }
    hidden_close(&pass->hidden);
    free(pass->layers);
    free(pass->heads);
    free(pass->windows);
    free(pass->scored);
    free(pass->groups);
    free(pass->scored_groups);
    free(pass->tokens);
    free(pass->space.bytes);
}

/* A part of the step under way is done. */
static enum status step_advance(struct pass *pass, size_t step, size_t part, size_t parts, struct error *error) {
    const uint64_t size = pass->setup->step_sizes[step];
    progress_update(&pass->progress, pass->done + size * (part + 1) / parts);
    if (part + 1 == parts)
        pass->done += size;
    return interrupt_pending() ? error_set(error, STATUS_INTERRUPTED, "interrupted") : STATUS_OK;
}

/* ---- embedding ---- */

struct place {
    int32_t id;
    uint32_t token; /* in the group */
};

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->token > y->token) - (x->token < y->token);
}

static enum status embedding_row(const struct ppl_setup *setup, const struct model *model, uint32_t id, void *buffer,
                                 float *values, struct error *error) {
    const struct row_kernels *rows = setup->engine.rows;
    struct weight weight;
    const enum status status = weight_rows_load(model, &model->embedding, id, 1, buffer, &weight, error);
    if (status != STATUS_OK)
        return status;
    rows->unpack(&weight, 0, 0, model->hidden, values);
    if (weight.format == WEIGHT_FP8 && weight.scale_columns >= weight.columns &&
        (model->embedding.weight.scale_rows == 1 || model->embedding.weight.scale_rows >= model->vocabulary))
        rows->multiply(values, *weight.scales, model->hidden); /* left out of per-tensor and per-row values */
    if (!rows->all_finite(values, model->hidden))
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' holds NaN or infinity in row %u: it is damaged",
                         model->checkpoint.path, model->embedding.codes->info.name, id);
    return STATUS_OK;
}

/* Each row that occurs is read once for a group, in the order of the file. */
static enum status group_embed(struct pass *pass, const struct model *model, size_t number, float *values,
                               struct error *error) {
    const struct ppl_setup *setup = pass->setup;
    const struct group *group = &pass->groups[number];
    struct place *places = malloc(group->tokens * sizeof *places);
    void *buffer = aligned_alloc(64, weight_rows_bytes(&model->embedding, 1));
    enum status status = places && buffer ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < group->window_count; i++) {
            const struct ppl_window *window = &setup->windows[number * setup->group_windows + i];
            const uint32_t first = group->windows[i].first;
            for (uint32_t j = 0; j < window->tokens; j++)
                places[first + j] = (struct place){pass->ids[window->first + j], first + j};
        }
        qsort(places, group->tokens, sizeof *places, compare_places);
    }
    const float *row = NULL;
    for (uint32_t i = 0; status == STATUS_OK && i < group->tokens; i++) {
        float *to = values + (size_t)places[i].token * model->hidden;
        if (i > 0 && places[i].id == places[i - 1].id)
            memcpy(to, row, model->hidden * sizeof *to);
        else
            status = embedding_row(setup, model, (uint32_t)places[i].id, buffer, to, error);
        row = to;
    }
    free(places);
    free(buffer);
    return status;
}

/* ---- comparison of hidden states ---- */

struct comparison {
    const struct pass *pass;
    const struct group *group;
    const float *values, *baseline;
    struct ppl_layer *sums; /* [blocks] */
};

static void compare_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct comparison *comparison = context;
    const struct token_block *block = &comparison->group->blocks[task];
    const size_t hidden = comparison->pass->setup->models[0].hidden;
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

/* Adds a group's tokens to result->layers[index]. The baseline's values are in work buffer 1 already. */
static enum status group_compare(struct pass *pass, size_t number, const float *baseline, struct ppl_layer *layer,
                                 struct error *error) {
    struct comparison comparison = {.pass = pass, .group = &pass->groups[number], .baseline = baseline};
    float *values;
    const enum status status = hidden_get(&pass->hidden, number, 0, 0, &values, error);
    if (status != STATUS_OK)
        return status;
    comparison.values = values;
    comparison.sums = malloc(comparison.group->block_count * sizeof *comparison.sums);
    if (!comparison.sums)
        return error_set_memory(error);
    workers_run(pass->setup->engine.workers, comparison.group->block_count, compare_task, &comparison);
    for (uint32_t i = 0; i < comparison.group->block_count; i++) {
        layer->rel_error += comparison.sums[i].rel_error / (double)pass->setup->budget.tokens;
        layer->cosine += comparison.sums[i].cosine / (double)pass->setup->budget.tokens;
    }
    free(comparison.sums);
    return STATUS_OK;
}

/* ---- layers ---- */

/* One side's hidden states of a group: embedded (layer < 0), or taken through a layer. */
static enum status group_advance(struct pass *pass, unsigned side, int64_t layer, size_t group, struct error *error) {
    struct ppl_setup *setup = pass->setup;
    const struct model *model = &setup->models[side];
    const size_t slot = side * setup->groups + group;
    float *values;
    enum status status = hidden_get(&pass->hidden, slot, side, layer < 0, &values, error);
    if (status == STATUS_OK && layer < 0) {
        status = group_embed(pass, model, group, values, error);
    } else if (status == STATUS_OK) {
        const struct layer_run run = {
            .model = model,
            .layer = &pass->layers[(size_t)layer * setup->sides + side],
            .layer_number = (uint32_t)layer,
            .rope = &pass->ropes[side],
            .kv_rounding = setup->options->kv_cache == KV_CACHE_FP8    ? KV_FP8
                           : setup->options->kv_cache == KV_CACHE_BF16 ? KV_BF16
                                                                       : KV_AS_ACT,
            .group = &pass->groups[group],
            .hidden = values,
            .space = &pass->space,
        };
        status = layer_run(&setup->engine, &run, error);
    }
    if (status == STATUS_OK)
        status = hidden_put(&pass->hidden, slot, side, error);
    if (status == STATUS_OK && side == 1)
        status = group_compare(pass, group, values, &pass->result->layers[layer + 1], error);
    return status;
}

static enum status layers_run(struct pass *pass, struct error *error) {
    const struct ppl_setup *setup = pass->setup;
    enum status status = STATUS_OK;
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++)
        for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++)
            status = group_advance(pass, side, -1, group, error);
    size_t step = 0;
    for (uint32_t layer = 0; layer < setup->models[0].layer_count; layer++)
        for (unsigned side = 0; side < setup->sides; side++, step++) {
            if (status == STATUS_OK)
                status = prefetch_next(pass->prefetch, error);
            for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
                status = group_advance(pass, side, layer, group, error);
                if (status == STATUS_OK)
                    status = step_advance(pass, step, group, setup->groups, error);
            }
        }
    return status;
}

/* ---- head ---- */

struct head_fill {
    const struct pass *pass;
    const struct model *model;
    const struct group *group, *scored;
    const float *values, *norm;
    const struct weight *weight;
    struct operand_rows *operand;
};

/* Task: the operands of a block of scored tokens: each token's logits come from the hidden state before it. */
static void head_fill_task(void *context, size_t task, unsigned thread) {
    const struct head_fill *fill = context;
    const struct engine *engine = &fill->pass->setup->engine;
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

static enum status slice_run(struct pass *pass, size_t slice, size_t group, struct head_token *tokens,
                             struct error *error) {
    struct ppl_setup *setup = pass->setup;
    const struct group *scored = &pass->scored_groups[group];
    struct operand_rows operands[2];
    struct head_run run = {.first_row = (uint32_t)slice * setup->head_rows, .group = scored, .tokens = tokens};
    unsigned char *at = pass->space.bytes;
    for (unsigned side = 0; side < setup->sides; side++) {
        struct head_fill fill = {.pass = pass,
                                 .model = &setup->models[side],
                                 .group = &pass->groups[group],
                                 .scored = scored,
                                 .norm = pass->norms[side],
                                 .weight = &pass->heads[slice][side],
                                 .operand = &operands[side]};
        operand_begin(fill.weight, &operands[side]);
        operands[side].act = at;
        at += ((size_t)scored->tokens * fill.model->hidden * setup->engine.element + 63) / 64 * 64;
        operands[side].token_scales = (float *)at;
        at += ((size_t)scored->tokens * sizeof(float) + 63) / 64 * 64;
        float *values;
        const enum status status = hidden_get(&pass->hidden, side * setup->groups + group, side, 0, &values, error);
        if (status != STATUS_OK)
            return status;
        fill.values = values;
        workers_run(setup->engine.workers, scored->block_count, head_fill_task, &fill);
        run.weights[side] = fill.weight;
        run.inputs[side] = fill.operand;
    }
    return head_run(&setup->engine, &run, error);
}

static enum status heads_run(struct pass *pass, struct error *error) {
    const struct ppl_setup *setup = pass->setup;
    enum status status = STATUS_OK;
    for (size_t step = setup->layer_steps; status == STATUS_OK && step < setup->steps; step++) {
        status = prefetch_next(pass->prefetch, error);
        struct head_token *tokens = pass->tokens;
        for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
            status = slice_run(pass, step - setup->layer_steps, group, tokens, error);
            tokens += pass->scored_groups[group].tokens;
            if (status == STATUS_OK)
                status = step_advance(pass, step, group, setup->groups, error);
        }
    }
    return status;
}

/* ---- results ---- */

static enum status tokens_finish(const struct pass *pass, struct error *error) {
    const struct ppl_setup *setup = pass->setup;
    size_t number = 0;
    for (size_t i = 0; i < setup->window_count; i++) {
        const struct ppl_window *window = &setup->windows[i];
        for (uint32_t j = 0; j < window->scored; j++, number++) {
            const struct head_token *from = &pass->tokens[number];
            struct ppl_token *to = &pass->result->tokens[number];
            const size_t position = window->first + window->tokens - window->scored + j;
            *to = (struct ppl_token){
                .position = (uint32_t)position, .id = pass->ids[position], .nll = (float)head_nll(from, 0)};
            if (setup->sides == 2) {
                to->baseline_nll = (float)head_nll(from, 1);
                to->kl = (float)head_kl(from);
                to->agrees = from->sides[0].top == from->sides[1].top;
            }
            const bool fine = isfinite(to->nll);
            if (!fine || !isfinite(to->baseline_nll))
                return error_set(error, STATUS_BAD_INPUT,
                                 "'%s': the logits at token %zu of the text are not finite: tensor '%s' or the last "
                                 "norm is damaged",
                                 fine ? setup->options->baseline : setup->options->model, position - 1,
                                 setup->models[fine ? 1 : 0].head.codes->info.name);
        }
    }
    return STATUS_OK;
}

enum status ppl_pass_run(struct ppl_setup *setup, const int32_t *ids, struct ppl_result *result, struct error *error) {
    struct pass pass = {.setup = setup, .ids = ids, .result = result};
    const double start = seconds_now();
    result->tokens = calloc(setup->scored, sizeof *result->tokens);
    if (setup->sides == 2) {
        result->layer_count = (size_t)setup->models[0].layer_count + 1;
        result->layers = calloc(result->layer_count, sizeof *result->layers);
    }
    if (!result->tokens || (setup->sides == 2 && !result->layers))
        return error_set_memory(error);
    progress_start(&pass.progress, "measuring", setup->budget.read, 0, setup->options->quiet);
    enum status status = pass_open(&pass, error);
    if (status == STATUS_OK)
        status = layers_run(&pass, error);
    if (status == STATUS_OK)
        status = heads_run(&pass, error);
    if (status == STATUS_OK)
        status = tokens_finish(&pass, error);
    pass_close(&pass);
    progress_end(&pass.progress);
    result->seconds = seconds_now() - start;
    result->tokens_per_second = (double)setup->budget.tokens * setup->sides / result->seconds;
    return status;
}
