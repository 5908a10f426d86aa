#include "infer/ppl_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "infer/cpu/head.h"
#include "infer/embedding.h"
#include "infer/ppl_backend.h"

struct pass {
    struct ppl_work work;
    struct attention_window *windows, *scored; /* [window_count]: in their group's buffers */
    struct progress progress;
    uint64_t done; /* bytes of steps behind */
};

/* ---- preparation ---- */

enum status ppl_step_load(void *context, size_t step, void *buffer, struct error *error) {
    const struct ppl_work *work = context;
    const struct ppl_setup *setup = work->setup;
    if (interrupt_pending()) /* where all is loaded first, nobody else looks */
        return error_set(error, STATUS_INTERRUPTED, "interrupted");
    if (step < setup->layer_steps)
        return layer_load(&setup->models[step % setup->sides], (uint32_t)(step / setup->sides), buffer,
                          &work->layers[step], error);
    const size_t slice = step - setup->layer_steps;
    const uint32_t rows = ppl_setup_slice_rows(setup, slice);
    unsigned char *at = buffer;
    for (unsigned side = 0; side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        const enum status status = weight_rows_load(model, &model->head, (uint32_t)slice * setup->head_rows, rows, at,
                                                    &work->heads[slice][side], error);
        if (status != STATUS_OK)
            return status;
        at += (weight_rows_bytes(&model->head, rows) + 63) / 64 * 64;
    }
    return STATUS_OK;
}

static enum status groups_make(struct pass *pass, struct error *error) {
    struct ppl_work *work = &pass->work;
    const struct ppl_setup *setup = work->setup;
    enum status status = STATUS_OK;
    size_t scored_before = 0;
    for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
        const size_t first = group * setup->group_windows, rest = setup->window_count - first;
        const size_t count = rest < setup->group_windows ? rest : setup->group_windows;
        uint32_t tokens = 0, scored = 0;
        for (size_t i = first; i < first + count; i++) {
            pass->windows[i] = (struct attention_window){tokens, setup->windows[i].tokens};
            pass->scored[i] = (struct attention_window){scored, setup->windows[i].scored};
            tokens += setup->windows[i].tokens;
            scored += setup->windows[i].scored;
        }
        work->first_scored[group] = scored_before;
        scored_before += scored;
        status = group_make(&pass->windows[first], (uint32_t)count, &work->groups[group], error);
        if (status == STATUS_OK)
            status = group_make(&pass->scored[first], (uint32_t)count, &work->scored_groups[group], error);
    }
    return status;
}

static void tokens_begin(struct ppl_work *work) {
    size_t token = 0;
    for (size_t i = 0; i < work->setup->window_count; i++) {
        const struct ppl_window *window = &work->setup->windows[i];
        for (size_t place = window->first + window->tokens - window->scored; place < window->first + window->tokens;
             place++)
            head_token_begin(&work->tokens[token++], (uint32_t)work->ids[place]);
    }
}

static enum status pass_open(struct pass *pass, struct error *error) {
    struct ppl_work *work = &pass->work;
    const struct ppl_setup *setup = work->setup;
    work->layers = calloc(setup->layer_steps, sizeof *work->layers);
    work->heads = calloc(setup->steps - setup->layer_steps, sizeof *work->heads);
    work->groups = calloc(setup->groups, sizeof *work->groups);
    work->scored_groups = calloc(setup->groups, sizeof *work->scored_groups);
    work->first_scored = calloc(setup->groups, sizeof *work->first_scored);
    work->tokens = malloc(setup->scored * sizeof *work->tokens);
    pass->windows = calloc(setup->window_count, sizeof *pass->windows);
    pass->scored = calloc(setup->window_count, sizeof *pass->scored);
    if (!work->layers || !work->heads || !work->groups || !work->scored_groups || !work->first_scored ||
        !work->tokens || !pass->windows || !pass->scored)
        return error_set_memory(error);
    const enum status status = groups_make(pass, error);
    if (status != STATUS_OK)
        return status;
    tokens_begin(work);
    return setup->backend->open(work, error);
}

static void pass_close(struct pass *pass) {
    struct ppl_work *work = &pass->work;
    work->setup->backend->close(work);
    for (size_t group = 0; group < work->setup->groups; group++) {
        if (work->groups)
            group_free(&work->groups[group]);
        if (work->scored_groups)
            group_free(&work->scored_groups[group]);
    }
    free(work->layers);
    free(work->heads);
    free(work->groups);
    free(work->scored_groups);
    free(work->first_scored);
    free(work->tokens);
    free(pass->windows);
    free(pass->scored);
}

/* A part of the step under way is done. */
static enum status step_advance(struct pass *pass, size_t step, size_t part, size_t parts, struct error *error) {
    const uint64_t size = pass->work.setup->step_sizes[step];
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

/* Each row that occurs is read once for a group, in the order of the file. */
enum status ppl_group_embed(const struct ppl_work *work, unsigned side, size_t number, float *values,
                            struct error *error) {
    const struct ppl_setup *setup = work->setup;
    const struct model *model = &setup->models[side];
    const struct group *group = &work->groups[number];
    const struct row_kernels *rows = row_kernels_of(setup->options->cpu);
    struct place *places = malloc(group->tokens * sizeof *places);
    void *buffer = aligned_alloc(64, weight_rows_bytes(&model->embedding, 1));
    enum status status = places && buffer ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < group->window_count; i++) {
            const struct ppl_window *window = &setup->windows[number * setup->group_windows + i];
            const uint32_t first = group->windows[i].first;
            for (uint32_t j = 0; j < window->tokens; j++)
                places[first + j] = (struct place){work->ids[window->first + j], first + j};
        }
        qsort(places, group->tokens, sizeof *places, compare_places);
    }
    const float *row = NULL;
    for (uint32_t i = 0; status == STATUS_OK && i < group->tokens; i++) {
        float *to = values + (size_t)places[i].token * model->hidden;
        if (i > 0 && places[i].id == places[i - 1].id)
            memcpy(to, row, model->hidden * sizeof *to);
        else
            status = embedding_load(model, rows, (uint32_t)places[i].id, buffer, to, error);
        row = to;
    }
    free(places);
    free(buffer);
    return status;
}

/* ---- steps ---- */

static enum status embeddings_run(struct pass *pass, struct error *error) {
    struct ppl_work *work = &pass->work;
    const struct ppl_setup *setup = work->setup;
    enum status status = STATUS_OK;
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++)
        for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
            status = setup->backend->embed(work, side, group, error);
            if (status == STATUS_OK && side == 1)
                status = setup->backend->compare(work, 0, group, error);
        }
    return status;
}

static enum status layers_run(struct pass *pass, struct error *error) {
    struct ppl_work *work = &pass->work;
    const struct ppl_setup *setup = work->setup;
    enum status status = STATUS_OK;
    for (size_t step = 0; status == STATUS_OK && step < setup->layer_steps; step++) {
        const unsigned side = (unsigned)(step % setup->sides);
        const uint32_t layer = (uint32_t)(step / setup->sides);
        status = setup->backend->step(work, step, error);
        for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
            status = setup->backend->layer(work, side, layer, group, error);
            if (status == STATUS_OK && side == 1)
                status = setup->backend->compare(work, (size_t)layer + 1, group, error);
            if (status == STATUS_OK)
                status = step_advance(pass, step, group, setup->groups, error);
        }
    }
    return status;
}

static enum status heads_run(struct pass *pass, struct error *error) {
    struct ppl_work *work = &pass->work;
    const struct ppl_setup *setup = work->setup;
    enum status status = STATUS_OK;
    for (size_t step = setup->layer_steps; status == STATUS_OK && step < setup->steps; step++) {
        status = setup->backend->step(work, step, error);
        for (size_t group = 0; status == STATUS_OK && group < setup->groups; group++) {
            status = setup->backend->head(work, step - setup->layer_steps, group, error);
            if (status == STATUS_OK)
                status = step_advance(pass, step, group, setup->groups, error);
        }
    }
    return status;
}

/* ---- results ---- */

static enum status tokens_finish(const struct ppl_work *work, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    size_t number = 0;
    for (size_t i = 0; i < setup->window_count; i++) {
        const struct ppl_window *window = &setup->windows[i];
        for (uint32_t j = 0; j < window->scored; j++, number++) {
            const struct head_token *from = &work->tokens[number];
            struct ppl_token *to = &work->result->tokens[number];
            const size_t position = window->first + window->tokens - window->scored + j;
            *to = (struct ppl_token){
                .position = (uint32_t)position, .id = work->ids[position], .nll = (float)head_nll(from, 0)};
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
    struct pass pass = {.work = {.setup = setup, .ids = ids, .result = result}};
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
        status = embeddings_run(&pass, error);
    if (status == STATUS_OK)
        status = layers_run(&pass, error);
    if (status == STATUS_OK)
        status = heads_run(&pass, error);
    if (status == STATUS_OK)
        status = setup->backend->finish(&pass.work, error);
    if (status == STATUS_OK)
        status = tokens_finish(&pass.work, error);
    pass_close(&pass);
    progress_end(&pass.progress);
    result->seconds = seconds_now() - start;
    result->tokens_per_second = (double)setup->budget.tokens * setup->sides / result->seconds;
    return status;
}
