/*
 * The CPU's part of a perplexity pass: what its plan (ppl_cpu_plan.c) and its work (ppl_cpu.c) share.
 */
#ifndef QSTREAM_INFER_CPU_PPL_CPU_H
#define QSTREAM_INFER_CPU_PPL_CPU_H

#include "infer/cpu/engine.h"
#include "infer/ppl_backend.h"

/* setup->machine. */
struct ppl_cpu {
    struct engine engine;          /* without space until the pass is opened */
    size_t packed, scratch, space; /* bytes: of the engine, and for the activations of a group */
};

enum status ppl_cpu_plan(struct ppl_setup *setup, size_t ids, struct error *error);
void ppl_cpu_plan_free(struct ppl_setup *setup);

#endif
