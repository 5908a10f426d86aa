/*
 * The CUDA device's part of a perplexity pass: what its plan (ppl_cuda_plan.c) and its work (ppl_cuda.c) share.
 */
#ifndef QSTREAM_INFER_CUDA_PPL_CUDA_H
#define QSTREAM_INFER_CUDA_PPL_CUDA_H

#include "infer/cuda/forward.h"
#include "infer/cuda/steps.h"
#include "infer/ppl_backend.h"

/* setup->machine. */
struct ppl_cuda {
    struct cuda cuda;
    enum cuda_type act;
    struct cuda_shape shape; /* of the largest group */
    bool hidden_there;       /* all hidden states stay on the device */
};

enum status ppl_cuda_plan(struct ppl_setup *setup, size_t ids, struct error *error);
void ppl_cuda_plan_free(struct ppl_setup *setup);

/* The steps as they are loaded; the caller adds load and context. */
struct prefetch_options ppl_cuda_prefetch(const struct ppl_setup *setup);

#endif
