/*
 * Modules: the tensors of a checkpoint gathered by the layer they belong to, and the format each weight is stored
 * in, told by names, dtypes and shapes alone. Unlike layout.h, which refuses what the quantizer cannot use, this
 * describes whatever is there: quantized checkpoints of any tool, broken ones too.
 *
 * | format         | parts of module X, [out, in] its logical shape                                               |
 * | plain          | weight of a plain number format                                                              |
 * | fp8-tensor     | weight F8_E4M3, weight_scale or weight_scale_inv of one element                              |
 * | fp8-channel    | the same, scale [out, 1] or [out]                                                            |
 * | fp8-block      | the same, scale [ceil(out / rows), ceil(in / columns)]                                       |
 * | fp8-unscaled   | the same, no scale                                                                           |
 * | mxfp8          | weight F8_E4M3, scale U8 or F8_E8M0 [out, in / 32]                                           |
 * | mxfp4          | weight_packed U8 [out, in / 2], weight_scale [out, in / 32]: compressed-tensors              |
 * | nvfp4          | weight_packed U8 [out, in / 2], weight_scale F8_E4M3 [out, in / 16], weight_global_scale     |
 * | int8           | weight I8, weight_scale: compressed-tensors int-quantized                                    |
 * | int-packed     | weight_packed I32 [out, ceil(in * bits / 32)], weight_scale, weight_shape: pack-quantized    |
 * | modelopt-nvfp4 | weight U8 [out, in / 2], weight_scale F8_E4M3 [out, in / 16], weight_scale_2                  |
 * | awq            | qweight I32 [in, out / 8], qzeros, scales [in / group, out]                                  |
 * | gptq           | qweight I32 [in * bits / 32, out], qzeros, scales, g_idx                                     |
 * | gpt-oss-mxfp4  | X_blocks U8 [experts, out, in / 32, 16], X_scales U8 [experts, out, in / 32]                 |
 * | bitsandbytes   | weight U8 [out * in / 2, 1], weight.absmax, weight.quant_map, weight.quant_state...          |
 * Leading dimensions of experts go before each shape.
 */
#ifndef QSTREAM_COMMON_MODULES_H
#define QSTREAM_COMMON_MODULES_H

#include "common/checkpoint.h"

enum stored_format {
    STORED_PLAIN,
    STORED_FP8_TENSOR,
    STORED_FP8_CHANNEL,
    STORED_FP8_BLOCK,
    STORED_FP8_UNSCALED,
    STORED_MXFP8,
    STORED_MXFP4,
    STORED_NVFP4,
    STORED_INT8,
    STORED_INT_PACKED,
    STORED_MODELOPT_NVFP4,
    STORED_AWQ,
    STORED_GPTQ,
    STORED_GPT_OSS_MXFP4,
    STORED_BITSANDBYTES,
    STORED_OTHER, /* quantized, but in no way that is known here */
    STORED_FORMATS
};
const char *stored_format_name(enum stored_format format);

/* What a tensor is to its module. The first four carry the weight. */
enum part {
    PART_WEIGHT,
    PART_WEIGHT_PACKED,
    PART_QWEIGHT,
    PART_BLOCKS,
    PART_SCALE,        /* weight_scale, scales of AWQ and GPTQ, X_scales, X_scale */
    PART_SCALE_INV,    /* weight_scale_inv: multiplies all the same */
    PART_SCALE_2,      /* weight_scale_2 of ModelOpt */
    PART_GLOBAL_SCALE, /* weight_global_scale */
    PART_INPUT_SCALE,  /* input_scale, activation_scale */
    PART_INPUT_GLOBAL_SCALE,
    PART_ZERO_POINT, /* weight_zero_point, qzeros */
    PART_SHAPE,      /* weight_shape */
    PART_G_IDX,
    PART_BIAS,
    PART_OTHER, /* anything else that has the module's name before it; a module can have several, one is kept */
    PARTS
};
const char *part_name(enum part part); /* as compressed-tensors calls it */

enum { MODULE_NO_TENSOR = UINT32_MAX, MODULE_NO_LAYER = -1 };

struct module {
    const char *name; /* not terminated: the first name_length bytes of a tensor's name */
    uint32_t name_length;
    uint32_t parts[PARTS]; /* tensors, or MODULE_NO_TENSOR */
    enum stored_format format;
    enum role role;
    int layer;                          /* the first number in the name, or MODULE_NO_LAYER */
    uint64_t experts;                   /* product of the leading dimensions of the weight; 1 for a matrix */
    uint64_t rows, columns;             /* logical; 0 where the tensors do not tell. A vector is one row */
    uint32_t block_rows, block_columns; /* what a scale covers, of fp8-block; for others group sizes in block_columns */
};

struct modules {
    struct module *items; /* in the order of their first tensor in checkpoint.by_name */
    size_t count;
    uint32_t *of_tensor; /* the module of each of checkpoint.tensors */
    uint8_t *part_of;    /* enum part of each of checkpoint.tensors */
};

/* Fails only without memory. `checkpoint` must outlive it. Free with modules_free, also after an error. */
enum status modules_collect(const struct checkpoint *checkpoint, struct modules *modules, struct error *error);

void modules_free(struct modules *modules);

/* The tensor that carries the weight, or NULL when the module has none. */
const struct tensor *module_weight(const struct checkpoint *checkpoint, const struct module *module);

/* The tensor of a part, or NULL. */
const struct tensor *module_part(const struct checkpoint *checkpoint, const struct module *module, enum part part);

/* weight_scale or weight_scale_inv, or NULL. */
const struct tensor *module_scale(const struct checkpoint *checkpoint, const struct module *module);

/* Whether the weight is stored in fewer bits than it means. */
bool module_is_quantized(const struct module *module);

/* Elements of the weight, packed ones counted; bias and buffers count as they are, scales not at all. */
uint64_t module_parameters(const struct checkpoint *checkpoint, const struct module *module);

#endif
