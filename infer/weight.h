/*
 * A weight of a linear layer, [rows = out, columns = in], as it is stored in the checkpoint, in memory. Products are
 * taken with it as it is: y[t, r] = sum over c of activation(x)[t, c] * value[r, c].
 *
 * | format         | value[r, c]                                                                          |
 * | F32, F16, BF16 | codes                                                                                |
 * | FP8            | e4m3(codes) * scales[of r, c]                                                        |
 * | MXFP8          | e4m3(codes) * 2^(exponents[r, c / 32] - 127)                                         |
 * | MXFP4          | e2m1(codes, low nibble the even column) * 2^(exponents[r, c / 32] - 127)             |
 *
 * Before the product activations may be rounded, as the server of the checkpoint rounds them ("as-served"):
 * | FP8_STATIC | e4m3(clamp(x / input_scale, +-448)) * input_scale                                        |
 * | FP8_TOKEN  | the same with input_scale = max |x of the token| / 448                                   |
 * | FP8_GROUP  | the same per `group` columns                                                             |
 * | MXFP8      | the same per 32 columns, the scale 2^(e - 8): e is the exponent of max |x|, one more where |
 * |            | its fraction is 1.75 or above (compressed-tensors, generate_mx_scales)                   |
 */
#ifndef QSTREAM_INFER_WEIGHT_H
#define QSTREAM_INFER_WEIGHT_H

#include <stddef.h>
#include <stdint.h>

enum weight_format { WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_FP8, WEIGHT_MXFP8, WEIGHT_MXFP4, WEIGHT_FORMATS };

enum activations {
    ACTIVATIONS_FLOAT,
    ACTIVATIONS_FP8_STATIC,
    ACTIVATIONS_FP8_TOKEN,
    ACTIVATIONS_FP8_GROUP,
    ACTIVATIONS_MXFP8
};

struct weight {
    enum weight_format format;
    uint32_t rows, columns;
    const void *codes;                  /* rows * columns elements; MXFP4: rows * columns / 2 bytes. Any alignment */
    const uint8_t *exponents;           /* MXFP8, MXFP4: [rows, columns / 32] */
    const float *scales;                /* FP8: [ceil(rows / scale_rows), ceil(columns / scale_columns)] */
    uint32_t scale_rows, scale_columns; /* what a scale covers: all, one row, a block */
    enum activations activations;
    float input_scale; /* FP8_STATIC */
    uint32_t group;    /* FP8_GROUP, MXFP8 */
    const float *bias; /* [rows], or NULL; whoever takes the product adds it */
};

/* Bytes of `codes` of one row. */
size_t weight_row_bytes(const struct weight *weight);

#endif
