/*
 * How a checkpoint stores its weights: for every weight its scale and activation scale, wherever they lie, and
 * what one scale covers. Told by the tensors' shapes and dtypes and by config.json's quantization_config; where
 * the two contradict each other, that is an error that names both.
 *
 * | layout             | weight           | scale                                                                |
 * | plain              | BF16, F16, F32   | none                                                                 |
 * | FP8 per tensor     | F8_E4M3 [out,in] | X.weight_scale_inv or X.weight_scale, one element, F32 or BF16       |
 * | FP8 per channel    | F8_E4M3          | X.weight_scale [out, 1]                                              |
 * | FP8 blocks         | F8_E4M3          | X.weight_scale_inv [ceil(out/128), ceil(in/128)] (any block size)    |
 * | MXFP8              | F8_E4M3          | X.weight_scale_inv or X.weight_scale, U8 or F8_E8M0 [out, in/32]     |
 * A scale multiplies, whatever its name. A leading dimension of experts goes before each shape. An activation
 * scale is X.activation_scale or X.input_scale, one element.
 */
#ifndef QSTREAM_COMMON_LAYOUT_H
#define QSTREAM_COMMON_LAYOUT_H

#include "common/checkpoint.h"

enum scaling {
    SCALING_NONE,    /* no scale */
    SCALING_TENSOR,  /* one for the weight */
    SCALING_CHANNEL, /* one per row */
    SCALING_BLOCK,   /* one per block_rows x block_columns */
    SCALING_MX,      /* one e8m0 per 32 columns */
};

enum { NO_TENSOR = UINT32_MAX };

/* What is known of one tensor besides its header entry. Indices are into checkpoint.tensors. */
struct tensor_layout {
    enum scaling scaling;
    uint32_t scale;       /* of a scaled weight, else NO_TENSOR */
    uint32_t input_scale; /* of a weight with static activations, else NO_TENSOR */
    uint32_t owner;       /* of a companion: the weight it belongs to; else NO_TENSOR */
    uint32_t block_rows, block_columns;
};

struct layout {
    struct tensor_layout *tensors;      /* one for each of checkpoint.tensors */
    struct json_t *quantization_config; /* jansson object, or NULL when config.json has none */
};

/* Free with layout_free, also after an error. */
enum status layout_detect(const struct checkpoint *checkpoint, struct layout *layout, struct error *error);

void layout_free(struct layout *layout);

/*
 * The length of a weight's name without the ending that says "weight": the module's name for X.weight, all of it
 * for a fused tensor without that ending.
 */
size_t module_length(const char *tensor_name);

#endif
