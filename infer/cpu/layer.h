/*
 * A layer of the model over a group of windows.
 */
#ifndef QSTREAM_INFER_CPU_LAYER_H
#define QSTREAM_INFER_CPU_LAYER_H

#include "infer/cpu/engine.h"
#include "infer/model.h"
#include "infer/rope_table.h"

/* How keys and values are kept: as act, or rounded first. */
enum kv_rounding { KV_AS_ACT, KV_BF16, KV_FP8 };

/* Space for the activations of a group. */
struct layer_space {
    unsigned char *bytes;
    size_t size;
};
/* What layer_run needs for `tokens` tokens in `windows` windows, each at most `longest`; 0 after an error. */
size_t layer_space_size(struct engine *engine, const struct model *model, uint32_t tokens, uint32_t windows,
                        uint32_t longest, struct error *error);
/* Packed and scratch bytes of the engine for a model's layers. */
enum status layer_engine_size(struct engine *engine, const struct model *model, size_t *packed, size_t *scratch,
                              struct error *error);

/*
 * What looks at the inputs of linear layers, as their products take them, [tokens of the group, columns]: of q, k and v,
 * `which` is WEIGHT_Q; of o WEIGHT_O; of gate and up WEIGHT_GATE; of down WEIGHT_DOWN. It may use the engine.
 */
typedef enum status layer_tap(void *context, enum layer_weight which, const struct operand_rows *inputs,
                              struct error *error);

struct layer_run {
    const struct model *model;
    const struct layer *layer;
    uint32_t layer_number; /* for messages */
    /*
     * Which linear layers are run: from `begin`, WEIGHT_Q or WEIGHT_GATE (`hidden` is what attention left then), to before
     * `end`: WEIGHT_Q, WEIGHT_O, WEIGHT_GATE, WEIGHT_DOWN or, for all, LAYER_WEIGHTS.
     */
    enum layer_weight begin, end;
    layer_tap *tap; /* is given the inputs of all that are run, and of `end`; may be NULL */
    void *tap_context;
    const struct rope_table *rope;
    enum kv_rounding kv_rounding;
    const struct group *group;
    float *hidden; /* [tokens, hidden], in and out */
    const struct layer_space *space;
};

/* STATUS_BAD_INPUT when the layer's result is not finite. */
enum status layer_run(struct engine *engine, const struct layer_run *run, struct error *error);

#endif
