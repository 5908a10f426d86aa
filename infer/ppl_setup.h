/*
 * What is settled before a perplexity run computes anything: the models, the windows, and how memory is divided.
 */
#ifndef QSTREAM_INFER_PPL_SETUP_H
#define QSTREAM_INFER_PPL_SETUP_H

#include "infer/model.h"
#include "infer/perplexity.h"
#include "infer/prefetch.h"

struct ppl_backend;

struct ppl_setup {
    const struct ppl_options *options;
    bool plan_only;
    unsigned sides; /* 1, or 2 with a baseline, which is models[1] */
    struct model models[2];
    struct ppl_window *windows;
    size_t window_count;
    uint32_t longest; /* tokens of the longest window */
    size_t scored;    /* tokens */

    /* Weights come in steps: layer 0 of each side, layer 1 of each side, ..., then slices of the head of all sides. */
    size_t layer_steps, steps;
    uint64_t *step_sizes; /* [steps], bytes in memory */
    uint32_t head_rows;   /* of a slice; the last one may have fewer */

    /* A group of windows is computed together; its hidden states are a slot for each side. */
    uint32_t group_windows;
    size_t groups;
    uint64_t slot_bytes;
    size_t slots_in_memory;
    unsigned buffers; /* of steps */

    const struct ppl_backend *backend;
    void *machine; /* the backend's */
    enum compute compute;
    struct ppl_budget budget;
};

/* Errors as ppl_run. plan_only: nothing will be computed. Free with ppl_setup_close, also after an error. */
enum status ppl_setup_open(const struct ppl_options *options, bool plan_only, const int32_t *ids, size_t count,
                           struct ppl_setup *setup, struct error *error);
void ppl_setup_close(struct ppl_setup *setup);

/* Rows of head slice number `slice`. */
uint32_t ppl_setup_slice_rows(const struct ppl_setup *setup, size_t slice);

/* The steps as prefetching wants them; the caller adds load and context. */
struct prefetch_options ppl_setup_prefetch(const struct ppl_setup *setup);

/* For plans: memory that does not depend on how the windows are grouped, for a text of so many ids. */
uint64_t ppl_setup_fixed_bytes(const struct ppl_setup *setup, size_t ids);
/* Groups of at most so many windows, about equally large. */
void ppl_setup_group(struct ppl_setup *setup, uint32_t windows);
/* STATUS_USAGE: what the budget needs at least. */
enum status ppl_setup_too_small(const struct ppl_setup *setup, struct error *error);

const char *ppl_setup_spill_folder(const struct ppl_setup *setup);

/* Moves the windows, the budget and what follows from the protocol into a result. */
void ppl_setup_result(struct ppl_setup *setup, struct ppl_result *result);

#endif
