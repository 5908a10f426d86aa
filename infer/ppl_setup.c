#include "infer/ppl_setup.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "infer/cpu/engine.h" /* ROW_UNIT */
#include "infer/cuda/cuda.h"
#include "infer/ppl_backend.h"
#include "infer/space.h"

enum {
    SLICE_MIN = 4 << 20, /* bytes of a slice of the head, if layers are smaller */
    LONGEST_WINDOW = 1 << 22
};

/* ---- models ---- */

static enum status same_model(const struct ppl_setup *setup, struct error *error) {
    const struct model *a = &setup->models[0], *b = &setup->models[1];
    const struct {
        const char *name;
        uint32_t a, b;
    } sizes[] = {{"vocab_size", a->vocabulary, b->vocabulary},
                 {"hidden_size", a->hidden, b->hidden},
                 {"num_hidden_layers", a->layer_count, b->layer_count}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].a != sizes[i].b)
            return error_set(error, STATUS_BAD_INPUT, "'%s': the baseline is another model: %s is %u, in '%s' it is %u",
                             setup->options->baseline, sizes[i].name, sizes[i].b, setup->options->model, sizes[i].a);
    return STATUS_OK;
}

static enum status models_open(struct ppl_setup *setup, struct error *error) {
    const struct ppl_options *options = setup->options;
    const struct model_options model_options = {.activations_float = options->activations_float,
                                                .fused_scales = options->fused_scales,
                                                .rope_bf16 = options->rope_bf16};
    setup->sides = options->baseline ? 2 : 1;
    enum status status = model_open(options->model, &model_options, &setup->models[0], error);
    if (status == STATUS_OK && options->baseline) {
        status = model_open(options->baseline, &model_options, &setup->models[1], error);
        if (status == STATUS_OK)
            status = same_model(setup, error);
    }
    return status;
}

static enum status window_check(struct ppl_setup *setup, struct error *error) {
    for (size_t i = 0; i < setup->window_count; i++) {
        setup->longest = (uint32_t)space_larger(setup->longest, setup->windows[i].tokens);
        setup->scored += setup->windows[i].scored;
        setup->budget.tokens += setup->windows[i].tokens;
    }
    if (setup->longest > LONGEST_WINDOW)
        return error_set(error, STATUS_USAGE, "--window %u: windows of more than %d tokens are not supported",
                         setup->longest, LONGEST_WINDOW);
    enum status status = STATUS_OK;
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++)
        status = model_window_check(&setup->models[side], setup->longest, error);
    return status;
}

/* ---- steps ---- */

uint32_t ppl_setup_slice_rows(const struct ppl_setup *setup, size_t slice) {
    const uint32_t rest = setup->models[0].vocabulary - (uint32_t)slice * setup->head_rows;
    return rest < setup->head_rows ? rest : setup->head_rows;
}

static enum status steps_lay(struct ppl_setup *setup, struct error *error) {
    uint64_t most = SLICE_MIN;
    const uint32_t layers = setup->models[0].layer_count;
    setup->layer_steps = (size_t)layers * setup->sides;
    for (size_t step = 0; step < setup->layer_steps; step++)
        most = space_larger(most, setup->models[step % setup->sides].layers[step / setup->sides].bytes);
    setup->head_rows = head_slice_rows(setup->models, setup->sides, ROW_UNIT, most);
    const size_t slices = (setup->models[0].vocabulary + (size_t)setup->head_rows - 1) / setup->head_rows;
    setup->steps = setup->layer_steps + slices;
    setup->step_sizes = malloc(setup->steps * sizeof *setup->step_sizes);
    if (!setup->step_sizes)
        return error_set_memory(error);
    for (size_t step = 0; step < setup->steps; step++) {
        setup->step_sizes[step] =
            step < setup->layer_steps
                ? setup->models[step % setup->sides].layers[step / setup->sides].bytes
                : head_slice_bytes(setup->models, setup->sides, ppl_setup_slice_rows(setup, step - setup->layer_steps));
        setup->budget.read += setup->step_sizes[step];
    }
    return STATUS_OK;
}

struct prefetch_options ppl_setup_prefetch(const struct ppl_setup *setup) {
    return (struct prefetch_options){
        .steps = setup->steps, .sizes = setup->step_sizes, .buffers = setup->buffers, .keep = setup->options->resident};
}

/* ---- memory ---- */

/* What does not depend on how the windows are grouped. */
uint64_t ppl_setup_fixed_bytes(const struct ppl_setup *setup, size_t count) {
    const struct folder *const folders[] = {setup->models[0].checkpoint.folder, setup->models[1].checkpoint.folder};
    uint64_t bytes = SPACE_PROGRAM + folders_memory(folders, 2) + count * sizeof(int32_t) +
                     setup->scored * (sizeof(struct ppl_token) + sizeof(struct head_token)) + setup->window_count * 256;
    for (unsigned side = 0; side < setup->sides; side++) {
        const struct model *model = &setup->models[side];
        bytes += model->checkpoint.tensor_count * SPACE_TENSOR +
                 (uint64_t)setup->longest * (model->head_dim + 1) * sizeof(float) + (uint64_t)model->hidden * 64;
    }
    return bytes;
}

void ppl_setup_group(struct ppl_setup *setup, uint32_t windows) {
    setup->groups = (setup->window_count + windows - 1) / windows;
    setup->group_windows = (uint32_t)((setup->window_count + setup->groups - 1) / setup->groups);
    setup->groups = (setup->window_count + setup->group_windows - 1) / setup->group_windows;
}

enum status ppl_setup_too_small(const struct ppl_setup *setup, struct error *error) {
    const struct ppl_budget *budget = &setup->budget;
    char weights[TEXT_SIZE_MAX], hidden[TEXT_SIZE_MAX], work[TEXT_SIZE_MAX];
    return error_set(error, STATUS_USAGE,
                     "--memory is too small: this run needs at least %" PRIu64
                     "MiB (weights %s, hidden states %s, the rest %s)%s",
                     text_mebibytes(budget->total), text_size(budget->weights, weights),
                     text_size(budget->hidden_memory, hidden), text_size(budget->work, work),
                     setup->options->resident ? "; less without --resident" : "; less with a shorter --window");
}

/* ---- */

enum status ppl_setup_open(const struct ppl_options *options, bool plan_only, const int32_t *ids, size_t count,
                           struct ppl_setup *setup, struct error *error) {
    *setup = (struct ppl_setup){.options = options, .plan_only = plan_only, .backend = &ppl_backend_cpu};
    if (cuda_chosen(&options->device))
        setup->backend = &ppl_backend_cuda;
    enum status status = ppl_windows(&options->protocol, count, &setup->windows, &setup->window_count, error);
    if (status == STATUS_OK)
        status = models_open(setup, error);
    if (status == STATUS_OK)
        status = model_ids_check(&setup->models[0], ids, count, error);
    if (status == STATUS_OK)
        status = window_check(setup, error);
    if (status == STATUS_OK)
        status = steps_lay(setup, error);
    if (status == STATUS_OK)
        status = setup->backend->plan(setup, count, error);
    return status;
}

void ppl_setup_close(struct ppl_setup *setup) {
    setup->backend->plan_free(setup);
    for (unsigned side = 0; side < setup->sides; side++)
        model_close(&setup->models[side]);
    free(setup->windows);
    free(setup->step_sizes);
    *setup = (struct ppl_setup){0};
}

void ppl_setup_result(struct ppl_setup *setup, struct ppl_result *result) {
    result->windows = setup->windows;
    result->window_count = setup->window_count;
    setup->windows = NULL;
    result->tokens_run = setup->budget.tokens;
    result->tokens_scored = setup->scored;
    result->budget = setup->budget;
    result->compute = setup->compute;
    result->has_baseline = setup->sides == 2;
}

const char *ppl_setup_spill_folder(const struct ppl_setup *setup) {
    const char *folder = setup->options->spill_folder;
    folder = folder ? folder : getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}
