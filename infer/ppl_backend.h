/*
 * What computes a perplexity pass: the CPU, or a CUDA device. The pass decides what is computed in which order; a backend
 * divides memory, holds hidden states and weights, and computes.
 */
#ifndef QSTREAM_INFER_PPL_BACKEND_H
#define QSTREAM_INFER_PPL_BACKEND_H

#include "infer/head_token.h"
#include "infer/ppl_setup.h"
#include "infer/token_group.h"

/* What a pass and its backend share. Made by the pass. */
struct ppl_work {
    struct ppl_setup *setup;
    const int32_t *ids;
    struct ppl_result *result;            /* layers: figures are added */
    struct group *groups, *scored_groups; /* [groups]: all tokens, and those that are scored */
    struct head_token *tokens;            /* [scored], group after group */
    size_t *first_scored;                 /* [groups]: number of a group's first one */
    struct layer *layers;                 /* [layer_steps]; set by ppl_step_load, as are */
    struct weight (*heads)[2];            /* [slices] */
    void *state;                          /* the backend's, made by open */
};

/* side: 0 the model, 1 the baseline. Calls that compute may return before it is done. */
struct ppl_backend {
    /* Chooses groups and buffers and fills setup->budget and compute; STATUS_USAGE when memory is too small. */
    enum status (*plan)(struct ppl_setup *setup, size_t ids, struct error *error);
    void (*plan_free)(struct ppl_setup *setup); /* also after an error */

    enum status (*open)(struct ppl_work *work, struct error *error);
    void (*close)(struct ppl_work *work); /* also after an error */

    /* The weights of the next step are wanted: those of the step before are not any more. */
    enum status (*step)(struct ppl_work *work, size_t step, struct error *error);
    /* Hidden states of a group: the embedding; through a layer. */
    enum status (*embed)(struct ppl_work *work, unsigned side, size_t group, struct error *error);
    enum status (*layer)(struct ppl_work *work, unsigned side, uint32_t layer, size_t group, struct error *error);
    /* Adds how far the two sides' hidden states of a group are apart to result->layers[index]. */
    enum status (*compare)(struct ppl_work *work, size_t index, size_t group, struct error *error);
    /* A slice of the head over the scored tokens of a group. */
    enum status (*head)(struct ppl_work *work, size_t slice, size_t group, struct error *error);
    /* Waits for all of it: tokens and result->layers are there. */
    enum status (*finish)(struct ppl_work *work, struct error *error);
};

extern const struct ppl_backend ppl_backend_cpu, ppl_backend_cuda;

/* A step's weights into `buffer`: a prefetch_function, context is the work. */
enum status ppl_step_load(void *work, size_t step, void *buffer, struct error *error);

/* The embeddings of a group's tokens, [tokens, hidden], in host memory. */
enum status ppl_group_embed(const struct ppl_work *work, unsigned side, size_t group, float *values,
                            struct error *error);

#endif
