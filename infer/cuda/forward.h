/*
 * A layer, and the head, over many tokens on a CUDA device: the operations of the plug-in in the order of a forward pass.
 * Weights that products cannot take as they are stored are unpacked a tile of rows at a time.
 */
#ifndef QSTREAM_INFER_CUDA_FORWARD_H
#define QSTREAM_INFER_CUDA_FORWARD_H

#include "infer/cuda/cuda.h"
#include "infer/model.h"
#include "infer/perplexity.h"
#include "infer/rope_table.h"

/* The largest group that has to find space. */
struct cuda_shape {
    uint32_t tokens, scored; /* scored: rows of the head */
};

/* Where things lie in the space for activations; addresses on the device. */
struct cuda_space {
    struct cuda_shape shape;    /* that it was laid out for */
    void *operands[2];          /* act [tokens, widest]; the second [tokens, hidden] */
    float *token_scales[2];     /* [tokens] */
    void *q, *k, *v, *attended; /* act [tokens, heads, head_dim] */
    void *middle;               /* act [tokens, intermediate] */
    void *tiles[2];             /* act: unpacked rows of a weight */
    float *y[2];                /* [tokens, rows of a tile] */
    uint64_t tile_bytes, y_bytes, size;
};

/* Lays the space for models of one hidden size out behind `base` (NULL: only its size). */
void cuda_space_lay(const struct model *models, unsigned count, enum cuda_type act, const struct cuda_shape *shape,
                    unsigned char *base, struct cuda_space *space);

/* Cosines, sines and factors on the device, in one allocation that lasts as long as the device is open. */
struct cuda_rope {
    float *cosines, *sines, *query_factors;
};
uint64_t cuda_rope_bytes(const struct model *model, uint32_t positions);
enum status cuda_rope_make(const struct cuda *cuda, const struct model *model, uint32_t positions,
                           struct cuda_rope *rope, struct error *error);

/* Windows whose tokens lie one after another. */
struct cuda_group {
    uint32_t tokens, window_count, longest;
    const uint32_t *positions;         /* [tokens], in their windows */
    const struct cuda_window *windows; /* [window_count] */
};

struct cuda_forward {
    const struct cuda *cuda;
    const struct model *model;
    enum cuda_type act;
    enum kv_cache kv_cache;
    const struct cuda_rope *rope;
    const struct cuda_space *space;
};

/* hidden [tokens, hidden] goes through a layer; its weights are on the device. k and v of the tokens stay in the space. */
void cuda_layer_run(const struct cuda_forward *forward, const struct layer *layer, const struct cuda_group *group,
                    float *hidden);

/* Rows of the head from `vocabulary_row` on, over the tokens that rows[i] of hidden[side] come before. */
struct cuda_head {
    const struct weight *weights[2]; /* of the model, of the baseline or NULL; on the device */
    const float *hidden[2], *norms[2];
    const struct model *models[2];
    const uint32_t *rows; /* [scored] */
    uint32_t scored, vocabulary_row;
    struct head_token *tokens;
};
void cuda_head_run(const struct cuda_forward *forward, const struct cuda_head *head);

#endif
