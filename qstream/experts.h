/*
 * Fused experts: architectures that store all experts of a layer as one 3-D tensor. The output has one module
 * per expert and projection, `PARENT.E.gate_proj` and so on, which is what vLLM's fused MoE loader and
 * transformers read for compressed-tensors checkpoints.
 *
 * How the matrices are stored differs by architecture (transformers' modeling files, class *Experts):
 *   [E, 2I, H] and [E, H, I]   Qwen3.5-MoE and most others: rows are output channels, gate before up
 *   [E, H, 2I] and [E, I, H]   Qwen3-VL-MoE, Llama 4: stored transposed, gate before up
 * The model's hidden size tells which; where both dimensions equal it, the architecture's name does.
 */
#ifndef QSTREAM_QSTREAM_EXPERTS_H
#define QSTREAM_QSTREAM_EXPERTS_H

#include <stdbool.h>

#include "common/checkpoint.h"

struct experts {
    char *parent;           /* "model.layers.0.mlp.experts"; owned by the caller */
    const char *names[2];   /* projections inside the tensor */
    unsigned projections;   /* 1 or 2 */
    uint64_t count;         /* experts */
    uint64_t rows, columns; /* [out, in] of one projection of one expert */
    bool transposed;
};

/* Whether a tensor of this name is a fused expert weight. */
bool experts_name(const char *name);

/* STATUS_BAD_INPUT when the orientation cannot be told, or the tensor is of a kind that is not supported. */
enum status experts_detect(const struct checkpoint *checkpoint, const struct tensor_info *tensor,
                           struct experts *experts, struct error *error);

#endif
