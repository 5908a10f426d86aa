/*
 * The CUDA device's decoder: its parts, shared by opening (decode_cuda_open.c), a prompt (decode_prompt.c) and tokens
 * (decode_cuda.c).
 */
#ifndef QSTREAM_INFER_CUDA_DECODE_CUDA_H
#define QSTREAM_INFER_CUDA_DECODE_CUDA_H

#include "infer/cuda/forward.h"
#include "infer/cuda/steps.h"
#include "infer/decode_backend.h"

enum { CUDA_OPERANDS = 3 }; /* q, k and v may each round their activations differently */

struct cuda_decoder {
    struct decoder base;
    struct cuda cuda;
    struct cuda_steps steps; /* layers, then slices of the head */
    uint64_t *step_sizes;
    uint32_t head_rows, slices; /* rows of a slice; the last one may have fewer */
    struct layer *layers;       /* addresses on the device */
    struct weight *heads;       /* [slices], likewise */
    struct cuda_rope rope;
    enum cuda_type cache_type;
    uint64_t cache_bytes; /* of the keys of a layer, or of its values */
    uint32_t prompt_most; /* tokens that are taken at once: there is space for them */

    /* on the device */
    unsigned char *cache; /* [layers][2], keys and values [kv_heads, positions, head_dim] */
    unsigned char *work;
    float *norm, *hidden, *queries, *keys, *values, *attended, *middle, *logits;
    void *prepared[CUDA_OPERANDS];
    void *attention_space;
    uint32_t *position, *bad; /* bad: number of the first layer whose values are not finite */

    /* on the host, pinned */
    struct cuda_exchange {
        uint32_t position, bad;
        float values[]; /* the embedding, then the logits; embeddings of a prompt */
    } * exchange;
    unsigned char *embedding_row;

    struct step_graph {
        struct cuda_graph *graph; /* recorded the second time: the first loads the kernels */
        bool ran;
    } layers_graph, head_graph;
};

enum status cuda_decoder_open(struct decoder *decoder, const struct decode_options *options, struct error *error);
void cuda_decoder_close(struct decoder *decoder);

/* Bytes on the device that a prompt taken at once needs besides. */
uint64_t cuda_prompt_bytes(const struct cuda_decoder *decoder, uint32_t tokens);
/* Fills the cache for a prompt, and decoder->hidden for its last token, as if its tokens had come one after another. */
enum status cuda_prompt_run(struct cuda_decoder *decoder, const int32_t *ids, uint32_t tokens, struct error *error);

/* STATUS_BAD_INPUT: values behind a layer are not finite. */
enum status cuda_layer_damaged(const struct cuda_decoder *decoder, uint32_t layer, uint32_t position,
                               struct error *error);

/* How the attention of a layer is called for one token. */
struct cuda_step_attention cuda_decoder_attention(const struct cuda_decoder *decoder, uint32_t layer);

#endif
