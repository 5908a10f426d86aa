#include <stdlib.h>

#include "infer/cuda/lay.h"
#include "infer/cuda/ppl_cuda.h"

enum { GROUP_MOST = 16 }; /* windows that are computed together: each unpacking of a weight serves them all */

struct prefetch_options ppl_cuda_prefetch(const struct ppl_setup *setup) {
    struct prefetch_options options = ppl_setup_prefetch(setup);
    options.keep = false;
    options.buffers = 2;
    return options;
}

/* The largest group, and its hidden states. */
static void group_sizes(struct ppl_setup *setup, struct ppl_cuda *plan) {
    plan->shape = (struct cuda_shape){0};
    for (size_t group = 0; group < setup->groups; group++) {
        const size_t first = group * setup->group_windows;
        uint32_t tokens = 0, scored = 0;
        for (size_t i = first; i < first + setup->group_windows && i < setup->window_count; i++) {
            tokens += setup->windows[i].tokens;
            scored += setup->windows[i].scored;
        }
        plan->shape.tokens = (uint32_t)cuda_larger(plan->shape.tokens, tokens);
        plan->shape.scored = (uint32_t)cuda_larger(plan->shape.scored, scored);
    }
    setup->slot_bytes = (uint64_t)plan->shape.tokens * setup->models[0].hidden * sizeof(float);
    setup->slot_bytes = (setup->slot_bytes + 63) / 64 * 64;
}

/* Bytes on the device that are neither weights nor hidden states. */
static uint64_t work_bytes(const struct ppl_setup *setup, const struct ppl_cuda *plan) {
    struct cuda_space space;
    cuda_space_lay(setup->models, setup->sides, plan->act, &plan->shape, NULL, &space);
    uint64_t bytes = CUDA_PRODUCT_SPACE + space.size + setup->budget.tokens * sizeof(uint32_t) +
                     setup->window_count * sizeof(struct cuda_window) +
                     setup->scored * (sizeof(uint32_t) + sizeof(struct head_token)) +
                     setup->layer_steps * setup->groups * sizeof(uint64_t) +
                     (uint64_t)plan->shape.tokens * 4 * sizeof(double);
    for (unsigned side = 0; side < setup->sides; side++)
        bytes += cuda_rope_bytes(&setup->models[side], setup->longest) + setup->models[side].hidden * sizeof(float);
    return bytes;
}

/* Host memory of the run: on a device that shares it, what the device's part leaves of it. */
static uint64_t host_memory(const struct ppl_setup *setup) {
    const struct device_budget *device = &setup->budget.device;
    const uint64_t rest = device->memory > device->total ? device->memory - device->total : 0;
    return device->unified && rest < setup->options->memory ? rest : setup->options->memory;
}

static void shape_try(struct ppl_setup *setup, struct ppl_cuda *plan, uint32_t windows, bool hidden_there,
                      uint64_t fixed) {
    struct ppl_budget *budget = &setup->budget;
    struct device_budget *device = &budget->device;
    ppl_setup_group(setup, windows);
    group_sizes(setup, plan);
    plan->hidden_there = hidden_there;
    const struct prefetch_options steps = ppl_cuda_prefetch(setup);
    const size_t slots = setup->groups * setup->sides;
    budget->group = setup->group_windows;
    budget->groups = (uint32_t)setup->groups;
    device->resident = setup->options->resident;
    device->weights = cuda_steps_device_bytes(&plan->cuda.info, &steps, device->resident);
    device->states = (hidden_there ? slots : setup->sides) * setup->slot_bytes;
    device->work = work_bytes(setup, plan);
    device->total = device->weights + device->states + device->work;
    budget->weights = cuda_steps_host_bytes(&steps);
    budget->work = fixed + CUDA_HOST_BYTES + setup->slot_bytes + (uint64_t)plan->shape.tokens * 4 * sizeof(double) +
                   setup->layer_steps * setup->groups * sizeof(uint64_t) + budget->tokens * sizeof(uint32_t);
    budget->hidden = hidden_there ? 0 : slots * setup->slot_bytes;
    setup->slots_in_memory = hidden_there ? 0 : slots;
    const uint64_t most = host_memory(setup);
    if (!hidden_there && budget->weights + budget->work + budget->hidden > most) {
        budget->work += setup->sides * setup->slot_bytes; /* those in the file pass through buffers */
        const uint64_t others = budget->weights + budget->work;
        const uint64_t rest = most > others ? most - others : 0;
        setup->slots_in_memory = rest / setup->slot_bytes < slots ? (size_t)(rest / setup->slot_bytes) : slots;
    }
    budget->hidden_memory = setup->slots_in_memory * setup->slot_bytes;
    budget->total = budget->weights + budget->work + budget->hidden_memory;
}

/* The first shape that fits, from the quickest to the smallest. */
static enum status memory_divide(struct ppl_setup *setup, struct ppl_cuda *plan, size_t ids, struct error *error) {
    const uint64_t fixed = ppl_setup_fixed_bytes(setup, ids);
    const struct ppl_budget *budget = &setup->budget;
    uint32_t most = GROUP_MOST;
    while (most > 1 && most / 2 >= setup->window_count)
        most /= 2;
    struct error ignored;
    for (int there = 1; there >= 0; there--)
        for (uint32_t windows = most; windows > 0; windows /= 2) {
            shape_try(setup, plan, windows, there == 1, fixed);
            if (budget->total <= setup->options->memory &&
                cuda_budget_check(&budget->device, budget->total, "", &ignored) == STATUS_OK)
                return STATUS_OK;
        }
    if (budget->total > setup->options->memory)
        return ppl_setup_too_small(setup, error);
    return cuda_budget_check(&budget->device, budget->total,
                             setup->options->resident ? "; less without --resident" : "; less with a shorter --window",
                             error);
}

enum status ppl_cuda_plan(struct ppl_setup *setup, size_t ids, struct error *error) {
    const struct ppl_options *options = setup->options;
    struct ppl_cuda *plan = calloc(1, sizeof *plan);
    setup->machine = plan;
    if (!plan)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    if (setup->plan_only && options->device.memory > 0)
        cuda_describe(&options->device, &plan->cuda);
    else
        status = cuda_open(&options->device, &plan->cuda, error);
    if (status != STATUS_OK)
        return status;
    plan->act = options->compute == COMPUTE_F32 ? CUDA_F32 : CUDA_BF16;
    setup->compute = plan->act == CUDA_F32 ? COMPUTE_F32 : COMPUTE_BF16;
    cuda_budget_begin(&plan->cuda, &options->device, &setup->budget.device);
    for (unsigned side = 0; status == STATUS_OK && side < setup->sides; side++)
        status = cuda_heads_check(&setup->models[side], error);
    return status == STATUS_OK ? memory_divide(setup, plan, ids, error) : status;
}

void ppl_cuda_plan_free(struct ppl_setup *setup) {
    struct ppl_cuda *plan = setup->machine;
    if (plan)
        cuda_close(&plan->cuda);
    free(plan);
}
