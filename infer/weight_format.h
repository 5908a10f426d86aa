/*
 * How a module of the checkpoint stores its weight, for those that can be run. Scales have to be of the exact shape:
 *
 * | weight                      | scale                                                                    |
 * | F32, F16, BF16              | none                                                                     |
 * | F8_E4M3 [out, in]           | F32, F16 or BF16: one element; [out] or [out, 1]; [ceil(out / rows),     |
 * |                             | ceil(in / columns)] for the block that config.json names                 |
 * | F8_E4M3 [out, in]           | U8 or F8_E8M0 [out, in / 32]                                             |
 * | weight_packed U8            | U8 or F8_E8M0 [out, in / 32]                                             |
 */
#ifndef QSTREAM_INFER_WEIGHT_FORMAT_H
#define QSTREAM_INFER_WEIGHT_FORMAT_H

#include "infer/model.h"

/* Rows and columns that share a scale. */
struct scale_block {
    uint32_t rows, columns;
};

/*
 * Sets the format of place->weight, what its scale covers, and place->scales. place->codes is the module's weight, its
 * rows and columns are set.
 */
enum status weight_format_find(const struct checkpoint *checkpoint, const struct module *module,
                               struct scale_block block, struct weight_place *place, struct error *error);

/* STATUS_BAD_INPUT unless the tensor is F32, F16 or BF16: what norms, biases and plain weights can be read from. */
enum status float_tensor_check(const struct checkpoint *checkpoint, const struct tensor *tensor, struct error *error);

#endif
