#include <inttypes.h>
#include <stdlib.h>

#include "common/text.h"
#include "infer/cpu/head.h"
#include "infer/cpu/layer.h"
#include "infer/cpu/ppl_cpu.h"
#include "infer/space.h"

enum {
    GROUP_MOST = 8 /* windows that are computed together: each packing serves them all */
};

/* Packed (at least) and scratch space that any step wants. */
static enum status engine_sizes(const struct ppl_setup *setup, struct ppl_cpu *cpu, size_t *packed, size_t *scratch,
                                struct error *error) {
    *packed = *scratch = 0;
    for (unsigned side = 0; side < setup->sides; side++) {
        size_t sizes[2][2];
        enum status status = layer_engine_size(&cpu->engine, &setup->models[side], &sizes[0][0], &sizes[0][1], error);
        if (status == STATUS_OK)
            status = head_engine_size(&cpu->engine, &setup->models[side].head.weight, setup->sides, &sizes[1][0],
                                      &sizes[1][1], error);
        if (status != STATUS_OK)
            return status;
        for (size_t i = 0; i < 2; i++) {
            *packed = space_larger(*packed, sizes[i][0]);
            *scratch = space_larger(*scratch, sizes[i][1]);
        }
    }
    return STATUS_OK;
}

/* Bytes of the space for activations of a group, and of its hidden states. */
static enum status group_sizes(struct ppl_setup *setup, struct ppl_cpu *cpu, struct error *error) {
    cpu->space = 0;
    setup->slot_bytes = 0;
    for (size_t group = 0; group < setup->groups; group++) {
        const size_t first = group * setup->group_windows;
        uint32_t tokens = 0, scored = 0, windows = 0;
        for (; windows < setup->group_windows && first + windows < setup->window_count; windows++) {
            tokens += setup->windows[first + windows].tokens;
            scored += setup->windows[first + windows].scored;
        }
        for (unsigned side = 0; side < setup->sides && group < 2; side++) { /* the first is the largest or like it */
            const size_t size =
                layer_space_size(&cpu->engine, &setup->models[side], setup->group_windows * setup->longest,
                                 setup->group_windows, setup->longest, error);
            if (size == 0)
                return STATUS_IO;
            cpu->space = space_larger(cpu->space, size);
        }
        const uint64_t hidden = setup->models[0].hidden;
        const uint64_t operand =
            space_aligned((uint64_t)scored * hidden * cpu->engine.element) +
            space_aligned((uint64_t)scored * sizeof(float)); /* of the head, and its tokens' scales */
        cpu->space = space_larger(cpu->space, setup->sides * operand);
        setup->slot_bytes = space_larger(setup->slot_bytes, space_aligned((uint64_t)tokens * hidden * sizeof(float)));
    }
    return STATUS_OK;
}

struct shape {
    uint32_t windows; /* of a group */
    unsigned buffers;
    size_t packed;
    bool spill;
};

/* Fills the budget for a shape. */
static enum status shape_try(struct ppl_setup *setup, struct ppl_cpu *cpu, const struct shape *shape, uint64_t fixed,
                             struct error *error) {
    struct ppl_budget *budget = &setup->budget;
    ppl_setup_group(setup, shape->windows);
    enum status status = group_sizes(setup, cpu, error);
    if (status != STATUS_OK)
        return status;
    setup->buffers = shape->buffers;
    cpu->packed = shape->packed;
    const struct prefetch_options prefetch = ppl_setup_prefetch(setup);
    const size_t slots = setup->groups * setup->sides;
    budget->group = setup->group_windows;
    budget->groups = (uint32_t)setup->groups;
    budget->weights = prefetch_bytes(&prefetch);
    budget->work = fixed + cpu->packed + cpu->scratch * setup->options->jobs + cpu->space;
    budget->hidden = slots * setup->slot_bytes;
    setup->slots_in_memory = slots;
    if (shape->spill) { /* those in the file pass through buffers */
        budget->work += setup->sides * setup->slot_bytes;
        const uint64_t others = budget->weights + budget->work;
        const uint64_t rest = setup->options->memory > others ? setup->options->memory - others : 0;
        setup->slots_in_memory = rest / setup->slot_bytes < slots ? (size_t)(rest / setup->slot_bytes) : slots;
    }
    budget->hidden_memory = setup->slots_in_memory * setup->slot_bytes;
    budget->total = budget->weights + budget->work + budget->hidden_memory;
    return STATUS_OK;
}

/* The first shape that fits, from the quickest to the smallest. */
static enum status memory_divide(struct ppl_setup *setup, struct ppl_cpu *cpu, size_t count, struct error *error) {
    size_t packed;
    enum status status = engine_sizes(setup, cpu, &packed, &cpu->scratch, error);
    const uint64_t fixed = ppl_setup_fixed_bytes(setup, count);
    uint32_t most = GROUP_MOST;
    while (most > 1 && most / 2 >= setup->window_count)
        most /= 2;
    struct shape shape;
    for (int spill = 0; status == STATUS_OK && spill < 2; spill++)
        for (shape.buffers = 2; shape.buffers > 0; shape.buffers--)
            for (int small = 0; small < 2; small++)
                for (shape.windows = most; shape.windows > 0; shape.windows /= 2) {
                    shape.spill = spill;
                    shape.packed = small ? packed : space_larger(packed, SPACE_PACKED);
                    status = shape_try(setup, cpu, &shape, fixed, error);
                    if (status != STATUS_OK || setup->budget.total <= setup->options->memory)
                        return status;
                }
    if (status != STATUS_OK)
        return status;
    return ppl_setup_too_small(setup, error);
}

enum status ppl_cpu_plan(struct ppl_setup *setup, size_t ids, struct error *error) {
    const struct ppl_options *options = setup->options;
    struct ppl_cpu *cpu = calloc(1, sizeof *cpu);
    setup->machine = cpu;
    if (!cpu)
        return error_set_memory(error);
    const struct engine_options engine = {.jobs = options->jobs,
                                          .cpu = options->cpu,
                                          .bf16 =
                                              options->compute == COMPUTE_BF16 ||
                                              (options->compute == COMPUTE_AUTO && products_have_bf16(options->cpu))};
    const enum status status = engine_open(&engine, &cpu->engine, error);
    setup->compute = cpu->engine.bf16 || cpu->engine.round ? COMPUTE_BF16 : COMPUTE_F32;
    return status == STATUS_OK ? memory_divide(setup, cpu, ids, error) : status;
}

void ppl_cpu_plan_free(struct ppl_setup *setup) {
    struct ppl_cpu *cpu = setup->machine;
    if (cpu)
        engine_close(&cpu->engine);
    free(cpu);
}
