#include "infer/cuda/ppl_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "infer/hidden.h"

/* Events 0 to 3 are those of cuda_steps. */
enum { EVENT_COMPARED = 4, COMPARISONS = 2 };

/* Figures of a comparison on their way to the host. */
struct comparison {
    double *there, *here; /* [tokens][2], here pinned */
    size_t tokens, index; /* tokens: 0 when there is none under way; index: of result->layers */
};

struct state {
    const struct cuda *cuda;
    struct cuda_steps steps;
    struct cuda_rope ropes[2];
    float *norms[2]; /* the last ones, [hidden] */
    struct hidden hidden;
    float *staging; /* host: a slot's values */
    float **slots;  /* [sides * groups], or one for each side: hidden states on the device */
    unsigned char *memory;
    struct cuda_space space;
    /* of all groups, one after another; the first of each group's */
    uint32_t *positions, *rows;
    struct cuda_window *windows;
    size_t *first_token;
    uint32_t *host_positions;
    struct head_token *tokens;
    struct comparison comparisons[COMPARISONS];
    size_t compared;
    uint64_t *flags, *host_flags; /* [layer_steps][groups]: the first value behind a layer that is not finite */
    size_t checked;               /* steps whose flags were looked at */
};

static const struct ppl_cuda *plan_of(const struct ppl_work *work) { return work->setup->machine; }

/* ---- opening ---- */

/* Makes memory on the device that holds what `from` does. */
static enum status upload(const struct state *state, const void *from, uint64_t bytes, void *memory,
                          struct error *error) {
    const enum status status = cuda_allocate(state->cuda, bytes, memory, error);
    if (status != STATUS_OK)
        return status;
    void *to;
    memcpy(&to, memory, sizeof to);
    state->cuda->plugin->copy_in(state->cuda->device, CUDA_COMPUTE, to, from, bytes);
    return cuda_finish(state->cuda, error);
}

static enum status tables_make(struct ppl_work *work, struct state *state, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    uint32_t *rows = malloc(setup->scored * sizeof *rows);
    struct cuda_window *windows = malloc(setup->window_count * sizeof *windows);
    state->host_positions = malloc(setup->budget.tokens * sizeof *state->host_positions);
    state->first_token = malloc(setup->groups * sizeof *state->first_token);
    enum status status = STATUS_OK;
    if (!rows || !windows || !state->host_positions || !state->first_token) {
        status = error_set_memory(error);
    } else {
        size_t token = 0, row = 0, window = 0;
        for (size_t group = 0; group < setup->groups; group++) {
            const struct group *all = &work->groups[group], *scored = &work->scored_groups[group];
            state->first_token[group] = token;
            for (uint32_t i = 0; i < all->window_count; i++) {
                const struct attention_window place = all->windows[i];
                windows[window++] = (struct cuda_window){place.first, place.tokens};
                for (uint32_t j = 0; j < place.tokens; j++)
                    state->host_positions[token++] = j;
                /* each token's logits come from the hidden state before it */
                for (uint32_t j = place.tokens - scored->windows[i].tokens; j < place.tokens; j++)
                    rows[row++] = place.first + j - 1;
            }
        }
        status = upload(state, state->host_positions, token * sizeof *state->host_positions, &state->positions, error);
        if (status == STATUS_OK)
            status = upload(state, rows, row * sizeof *rows, &state->rows, error);
        if (status == STATUS_OK)
            status = upload(state, windows, window * sizeof *windows, &state->windows, error);
        if (status == STATUS_OK)
            status = upload(state, work->tokens, setup->scored * sizeof *work->tokens, &state->tokens, error);
    }
    free(rows);
    free(windows);
    return status;
}

static enum status pinned(const struct state *state, uint64_t bytes, void *memory, struct error *error) {
    void *address, *place = state->cuda->plugin->allocate_host(state->cuda->device, bytes, &address);
    memcpy(memory, &place, sizeof place);
    return place ? STATUS_OK : cuda_status(state->cuda, error);
}

static enum status flags_make(const struct ppl_setup *setup, struct state *state, struct error *error) {
    const uint64_t bytes = setup->layer_steps * setup->groups * sizeof(uint64_t);
    enum status status = pinned(state, bytes, &state->host_flags, error);
    if (status != STATUS_OK)
        return status;
    memset(state->host_flags, 0xff, bytes);
    return upload(state, state->host_flags, bytes, &state->flags, error);
}

static enum status slots_make(const struct ppl_work *work, struct state *state, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    const bool there = plan_of(work)->hidden_there;
    const size_t count = there ? setup->sides * setup->groups : setup->sides;
    state->slots = calloc(count, sizeof *state->slots);
    state->staging = aligned_alloc(64, setup->slot_bytes);
    if (!state->slots || !state->staging)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = cuda_allocate(state->cuda, setup->slot_bytes, &state->slots[i], error);
    if (status == STATUS_OK && !there)
        status = hidden_open(&state->hidden, setup->groups * setup->sides, setup->slots_in_memory, setup->slot_bytes,
                             setup->sides, ppl_setup_spill_folder(setup), error);
    return status;
}

static enum status models_make(struct ppl_work *work, struct state *state, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    enum status status = STATUS_OK;
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        float *norm = malloc(model->hidden * sizeof *norm);
        status = norm ? norm_load(model, model->norm, model->hidden, norm, error) : error_set_memory(error);
        if (status == STATUS_OK)
            status = upload(state, norm, model->hidden * sizeof *norm, &state->norms[side], error);
        free(norm);
        if (status == STATUS_OK)
            status = cuda_rope_make(state->cuda, model, setup->longest, &state->ropes[side], error);
    }
    return status;
}

static enum status open_all(struct ppl_work *work, struct error *error) {
    const struct ppl_setup *setup = work->setup;
    const struct ppl_cuda *plan = plan_of(work);
    struct state *state = calloc(1, sizeof *state);
    work->state = state;
    if (!state)
        return error_set_memory(error);
    state->cuda = &plan->cuda;
    state->hidden.file = -1;
    cuda_space_lay(setup->models, setup->sides, plan->act, &plan->shape, NULL, &state->space);
    enum status status = cuda_allocate(state->cuda, state->space.size, &state->memory, error);
    if (status == STATUS_OK) {
        cuda_space_lay(setup->models, setup->sides, plan->act, &plan->shape, state->memory, &state->space);
        status = tables_make(work, state, error);
    }
    if (status == STATUS_OK)
        status = flags_make(setup, state, error);
    if (status == STATUS_OK)
        status = models_make(work, state, error);
    if (status == STATUS_OK)
        status = slots_make(work, state, error);
    for (unsigned i = 0; status == STATUS_OK && setup->sides == 2 && i < COMPARISONS; i++) {
        const uint64_t bytes = (uint64_t)plan->shape.tokens * 2 * sizeof(double);
        status = cuda_allocate(state->cuda, bytes, &state->comparisons[i].there, error);
        if (status == STATUS_OK)
            status = pinned(state, bytes, &state->comparisons[i].here, error);
    }
    if (status != STATUS_OK)
        return status;
    struct prefetch_options steps = ppl_cuda_prefetch(setup);
    steps.load = ppl_step_load;
    steps.context = work;
    return cuda_steps_open(state->cuda, &steps, setup->options->resident, &state->steps, error);
}

static void close_all(struct ppl_work *work) {
    struct state *state = work->state;
    if (!state)
        return;
    cuda_steps_close(&state->steps);
    hidden_close(&state->hidden);
    free(state->staging);
    free(state->slots);
    free(state->first_token);
    free(state->host_positions);
    free(state); /* what is on the device goes with it */
}

/* ---- steps ---- */

/* Errors of the layers of steps [checked, end), which are done. */
static enum status flags_check(struct ppl_work *work, size_t end, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    for (; state->checked < end; state->checked++)
        for (size_t group = 0; group < setup->groups; group++) {
            const uint64_t flag = state->host_flags[state->checked * setup->groups + group];
            if (flag == UINT64_MAX)
                continue;
            const struct model *model = &setup->models[state->checked % setup->sides];
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': layer %zu gives NaN or infinity at position %u of a window: a weight of it is "
                             "damaged, or its values are beyond what the model computes in (see 'qstream inspect "
                             "--stats')",
                             model->checkpoint.path, state->checked / setup->sides,
                             state->host_positions[state->first_token[group] + flag / model->hidden]);
        }
    return STATUS_OK;
}

static enum status step(struct ppl_work *work, size_t number, struct error *error) {
    struct state *state = work->state;
    enum status status = cuda_steps_next(&state->steps, number, error);
    if (status != STATUS_OK || number < 3)
        return status;
    const size_t done = number - 2 < work->setup->layer_steps ? number - 2 : work->setup->layer_steps;
    return flags_check(work, done, error); /* cuda_steps_next has waited for these */
}

/* ---- hidden states ---- */

static float *slot_of(const struct ppl_work *work, unsigned side, size_t group) {
    const struct state *state = work->state;
    return state->slots[plan_of(work)->hidden_there ? side * work->setup->groups + group : side];
}

static uint64_t group_bytes(const struct ppl_work *work, size_t group) {
    return (uint64_t)work->groups[group].tokens * work->setup->models[0].hidden * sizeof(float);
}

/* Hidden states that do not stay on the device are brought there, and back. */
static enum status slot_fetch(struct ppl_work *work, unsigned side, size_t group, struct error *error) {
    struct state *state = work->state;
    if (plan_of(work)->hidden_there)
        return STATUS_OK;
    float *values;
    const enum status status = hidden_get(&state->hidden, side * work->setup->groups + group, side, 0, &values, error);
    if (status != STATUS_OK)
        return status;
    state->cuda->plugin->copy_in(state->cuda->device, CUDA_COMPUTE, state->slots[side], values,
                                 group_bytes(work, group));
    return cuda_finish(state->cuda, error); /* the next one from the file comes to the same memory */
}

static enum status slot_store(struct ppl_work *work, unsigned side, size_t group, struct error *error) {
    struct state *state = work->state;
    if (plan_of(work)->hidden_there)
        return STATUS_OK;
    const size_t slot = side * work->setup->groups + group;
    float *values;
    enum status status = hidden_get(&state->hidden, slot, side, 1, &values, error);
    if (status != STATUS_OK)
        return status;
    state->cuda->plugin->copy_out(state->cuda->device, CUDA_COMPUTE, values, state->slots[side],
                                  group_bytes(work, group));
    status = cuda_finish(state->cuda, error);
    return status == STATUS_OK ? hidden_put(&state->hidden, slot, side, error) : status;
}

static enum status embed(struct ppl_work *work, unsigned side, size_t group, struct error *error) {
    struct state *state = work->state;
    const enum status status = ppl_group_embed(work, side, group, state->staging, error);
    if (status != STATUS_OK)
        return status;
    state->cuda->plugin->copy_in(state->cuda->device, CUDA_COMPUTE, slot_of(work, side, group), state->staging,
                                 group_bytes(work, group));
    /* the staging is used again */
    return plan_of(work)->hidden_there ? cuda_finish(state->cuda, error) : slot_store(work, side, group, error);
}

static struct cuda_forward forward_of(const struct ppl_work *work, unsigned side) {
    const struct state *state = work->state;
    return (struct cuda_forward){.cuda = state->cuda,
                                 .model = &work->setup->models[side],
                                 .act = plan_of(work)->act,
                                 .kv_cache = work->setup->options->kv_cache,
                                 .rope = &state->ropes[side],
                                 .space = &state->space};
}

static enum status layer(struct ppl_work *work, unsigned side, uint32_t number, size_t group, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    const size_t step_number = (size_t)number * setup->sides + side;
    enum status status = slot_fetch(work, side, group, error);
    if (status != STATUS_OK)
        return status;
    const struct cuda_forward forward = forward_of(work, side);
    const struct layer there = cuda_steps_layer(&state->steps, &work->layers[step_number]);
    const struct cuda_group tokens = {.tokens = work->groups[group].tokens,
                                      .window_count = work->groups[group].window_count,
                                      .longest = setup->longest,
                                      .positions = state->positions + state->first_token[group],
                                      .windows = state->windows + group * setup->group_windows};
    float *hidden = slot_of(work, side, group);
    cuda_layer_run(&forward, &there, &tokens, hidden);
    const size_t flag = step_number * setup->groups + group;
    const struct cuda_plugin *plugin = state->cuda->plugin;
    plugin->finite_check(state->cuda->device, hidden, (uint64_t)tokens.tokens * forward.model->hidden,
                         state->flags + flag);
    plugin->copy_out(state->cuda->device, CUDA_COMPUTE, state->host_flags + flag, state->flags + flag,
                     sizeof *state->flags);
    return slot_store(work, side, group, error);
}

/* ---- comparison ---- */

/* Adds the figures of a comparison that is over. */
static void comparison_add(struct ppl_work *work, struct comparison *comparison) {
    struct state *state = work->state;
    if (comparison->tokens == 0)
        return;
    state->cuda->plugin->event_wait(state->cuda->device, EVENT_COMPARED + (unsigned)(comparison - state->comparisons));
    double rel_error = 0, cosine = 0;
    for (size_t i = 0; i < comparison->tokens; i++) {
        rel_error += comparison->here[2 * i];
        cosine += comparison->here[2 * i + 1];
    }
    struct ppl_layer *to = &work->result->layers[comparison->index];
    to->rel_error += rel_error / (double)work->setup->budget.tokens;
    to->cosine += cosine / (double)work->setup->budget.tokens;
    comparison->tokens = 0;
}

static enum status compare(struct ppl_work *work, size_t index, size_t group, struct error *error) {
    struct state *state = work->state;
    const struct cuda_plugin *plugin = state->cuda->plugin;
    struct cuda_device *device = state->cuda->device;
    const unsigned number = state->compared++ % COMPARISONS;
    struct comparison *comparison = &state->comparisons[number];
    comparison_add(work, comparison);
    const enum status status = slot_fetch(work, 0, group, error); /* the baseline's are there */
    if (status != STATUS_OK)
        return status;
    comparison->tokens = work->groups[group].tokens;
    comparison->index = index;
    plugin->compare(device, slot_of(work, 0, group), slot_of(work, 1, group), work->groups[group].tokens,
                    work->setup->models[0].hidden, comparison->there);
    plugin->copy_out(device, CUDA_COMPUTE, comparison->here, comparison->there,
                     comparison->tokens * 2 * sizeof(double));
    plugin->event_record(device, EVENT_COMPARED + number, CUDA_COMPUTE);
    return cuda_status(state->cuda, error);
}

/* ---- head ---- */

static enum status head(struct ppl_work *work, size_t slice, size_t group, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    struct weight weights[2];
    struct cuda_head head = {.rows = state->rows + work->first_scored[group],
                             .scored = work->scored_groups[group].tokens,
                             .vocabulary_row = (uint32_t)slice * setup->head_rows,
                             .tokens = state->tokens + work->first_scored[group]};
    for (unsigned side = 0; side < setup->sides; side++) {
        const enum status status = slot_fetch(work, side, group, error);
        if (status != STATUS_OK)
            return status;
        weights[side] = cuda_steps_weight(&state->steps, &work->heads[slice][side]);
        head.weights[side] = &weights[side];
        head.hidden[side] = slot_of(work, side, group);
        head.norms[side] = state->norms[side];
        head.models[side] = &setup->models[side];
    }
    const struct cuda_forward forward = forward_of(work, 0);
    cuda_head_run(&forward, &head);
    return cuda_status(state->cuda, error);
}

static enum status finish(struct ppl_work *work, struct error *error) {
    struct state *state = work->state;
    const struct ppl_setup *setup = work->setup;
    state->cuda->plugin->copy_out(state->cuda->device, CUDA_COMPUTE, work->tokens, state->tokens,
                                  setup->scored * sizeof *work->tokens);
    const enum status status = cuda_finish(state->cuda, error);
    if (status != STATUS_OK)
        return status;
    for (unsigned i = 0; i < COMPARISONS; i++)
        comparison_add(work, &state->comparisons[i]);
    return flags_check(work, setup->layer_steps, error);
}

const struct ppl_backend ppl_backend_cuda = {.plan = ppl_cuda_plan,
                                             .plan_free = ppl_cuda_plan_free,
                                             .open = open_all,
                                             .close = close_all,
                                             .step = step,
                                             .embed = embed,
                                             .layer = layer,
                                             .compare = compare,
                                             .head = head,
                                             .finish = finish};
