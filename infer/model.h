/*
 * A text model: what config.json says of it, where its weights lie, how they are stored, and what loading them takes.
 * Llama, Mistral, and Mistral3 with a text model of type mistral or ministral3. Everything is checked when it is
 * opened: names, shapes, formats. Values are checked when they are loaded.
 */
#ifndef QSTREAM_INFER_MODEL_H
#define QSTREAM_INFER_MODEL_H

#include <stdbool.h>

#include "common/checkpoint.h"
#include "common/modules.h"
#include "infer/rope.h"
#include "infer/weight.h"

enum layer_weight { WEIGHT_Q, WEIGHT_K, WEIGHT_V, WEIGHT_O, WEIGHT_GATE, WEIGHT_UP, WEIGHT_DOWN, LAYER_WEIGHTS };

/* Where a weight lies; its figures as in struct weight, the pointers not set. */
struct weight_place {
    struct weight weight;
    const struct tensor *codes, *scales, *input_scale, *bias; /* the last three may be NULL */
    uint64_t bytes;                                           /* of memory that weight_load takes */
};

struct layer_place {
    struct weight_place weights[LAYER_WEIGHTS];
    const struct tensor *attention_norm, *mlp_norm;
    uint64_t bytes; /* of memory that layer_load takes */
};

/* A layer in memory. Norms: [hidden]. */
struct layer {
    struct weight weights[LAYER_WEIGHTS];
    const float *attention_norm, *mlp_norm;
};

struct model_options {
    bool activations_float; /* as if the checkpoint did not quantize activations */
    bool fused_scales;      /* q, k, v and gate, up share the largest scales */
    bool rope_bf16;         /* rotary frequencies rounded to bfloat16 */
};

struct model {
    struct checkpoint checkpoint;
    struct modules modules;
    struct model_options options;
    uint32_t vocabulary, hidden, intermediate, layer_count, heads, kv_heads, head_dim;
    uint32_t context;        /* max_position_embeddings; 0: not said */
    uint32_t sliding_window; /* 0: none */
    float norm_epsilon;
    bool attention_bias, mlp_bias; /* whether biases of these weights count; others never do */
    struct rope rope;
    struct layer_place *layers;
    struct weight_place embedding, head; /* [vocabulary, hidden]; the head of tied models is the embedding */
    const struct tensor *norm;
    const char *activations; /* in words: "float", "static fp8", "dynamic fp8", or several with " and " between */
};

/*
 * Opens the model in `folder`. Reads headers and config.json only. STATUS_BAD_INPUT names what is missing, of another
 * shape or not supported. Free with model_close, also after an error.
 */
enum status model_open(const char *folder, const struct model_options *options, struct model *model,
                       struct error *error);

/* The same of a checkpoint that is open, or planned; it is the model's from here on, also after an error. */
enum status model_of_checkpoint(struct checkpoint checkpoint, const struct model_options *options, struct model *model,
                                struct error *error);

void model_close(struct model *model);

/*
 * Reads a layer into `buffer` (layers[i].bytes, aligned to 64) and points *layer into it. A scale or exponent that is
 * NaN or infinite is STATUS_BAD_INPUT.
 */
enum status layer_load(const struct model *model, uint32_t index, void *buffer, struct layer *layer,
                       struct error *error);

/*
 * Rows [begin, begin + count) of the embedding or the head as a weight of `count` rows; `buffer` takes
 * weight_rows_bytes. Rows may begin anywhere.
 */
uint64_t weight_rows_bytes(const struct weight_place *place, uint32_t count);
enum status weight_rows_load(const struct model *model, const struct weight_place *place, uint32_t begin,
                             uint32_t count, void *buffer, struct weight *weight, struct error *error);

/*
 * Bytes of so many rows of the heads of `count` models of one vocabulary, one after another.
 * Rows of a slice of `count` models of one vocabulary: as many as take no more than `wanted` bytes together, a
 * multiple of `multiple` and of the rows that a scale covers, at least one multiple; all where that is enough.
 */
uint64_t head_slice_bytes(const struct model *models, unsigned count, uint32_t rows);
uint32_t head_slice_rows(const struct model *models, unsigned count, uint32_t multiple, uint64_t wanted);

/* Reads a norm, [count] values. */
enum status norm_load(const struct model *model, const struct tensor *tensor, uint32_t count, float *values,
                      struct error *error);

/* "q_proj" and so on: the last word of a weight's name. */
const char *layer_weight_name(enum layer_weight weight);

/* Whether all ids are of the model's vocabulary; windows of `tokens` tokens see no more than its attention does. */
enum status model_ids_check(const struct model *model, const int32_t *ids, size_t count, struct error *error);
enum status model_window_check(const struct model *model, uint32_t tokens, struct error *error);

#endif
