#include <math.h>
#include <string.h>

#include "common/formats.h"
#include "infer/model.h"
#include "infer/space.h"

enum { MX_BLOCK = 32, READ_MAX = 8 << 20 };

/* Values of a plain tensor as float32; `count` from element `begin` on. */
static enum status floats_load(const struct model *model, const struct tensor *tensor, uint64_t begin, uint64_t count,
                               float *values, struct error *error) {
    const unsigned size = dtype_bits(tensor->info.dtype) / 8;
    /* read into the end of the space, then widened from the front on */
    unsigned char *raw = (unsigned char *)values + count * (sizeof(float) - size);
    enum status status = checkpoint_read(&model->checkpoint, tensor, begin * size, raw, count * size, error);
    if (status != STATUS_OK || size == sizeof(float))
        return status;
    for (uint64_t i = 0; i < count; i++) {
        uint16_t code;
        memcpy(&code, raw + i * size, size);
        values[i] = tensor->info.dtype == DTYPE_BF16 ? bf16_decode(code) : f16_decode(code);
    }
    return STATUS_OK;
}

static enum status finite_check(const struct model *model, const struct tensor *tensor, const float *values,
                                uint64_t count, struct error *error) {
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' holds %s (element %llu): it is damaged",
                             model->checkpoint.path, tensor->info.name, isnan(values[i]) ? "NaN" : "infinity",
                             (unsigned long long)i);
    return STATUS_OK;
}

enum status norm_load(const struct model *model, const struct tensor *tensor, uint32_t count, float *values,
                      struct error *error) {
    enum status status = floats_load(model, tensor, 0, count, values, error);
    return status == STATUS_OK ? finite_check(model, tensor, values, count, error) : status;
}

static enum status exponents_load(const struct model *model, const struct tensor *tensor, uint64_t begin,
                                  uint64_t count, uint8_t *exponents, struct error *error) {
    enum status status = checkpoint_read(&model->checkpoint, tensor, begin, exponents, count, error);
    const uint8_t *nan = status == STATUS_OK ? memchr(exponents, 255, count) : NULL;
    if (nan)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' holds the scale 255, NaN (element %llu): it is "
                         "damaged",
                         model->checkpoint.path, tensor->info.name,
                         (unsigned long long)(begin + (uint64_t)(nan - exponents)));
    return status;
}

/* The scales of rows [begin, begin + count); of a block that begins above them too. Sets weight->scales. */
static enum status scales_load(const struct model *model, const struct weight_place *place, uint32_t begin,
                               uint32_t count, float *scales, struct error *error) {
    const struct weight *weight = &place->weight;
    const uint64_t across = (weight->columns + weight->scale_columns - 1) / weight->scale_columns;
    const uint64_t first = begin / weight->scale_rows, last = (begin + count - 1) / weight->scale_rows;
    enum status status = floats_load(model, place->scales, first * across, (last - first + 1) * across, scales, error);
    return status == STATUS_OK ? finite_check(model, place->scales, scales, (last - first + 1) * across, error)
                               : status;
}

static enum status input_scale_load(const struct model *model, const struct weight_place *place, float *scale,
                                    struct error *error) {
    uint64_t elements;
    const struct tensor_info *info = &place->input_scale->info;
    if (!shape_elements(info->shape, info->rank, &elements) || elements != 1 ||
        (info->dtype != DTYPE_F32 && info->dtype != DTYPE_BF16 && info->dtype != DTYPE_F16))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the activation scale '%s' is not one element of F32, BF16 or "
                         "F16",
                         model->checkpoint.path, info->name);
    enum status status = floats_load(model, place->input_scale, 0, 1, scale, error);
    if (status == STATUS_OK && !(*scale > 0 && isfinite(*scale)))
        status = error_set(error, STATUS_BAD_INPUT, "'%s': the activation scale '%s' is %g; it has to be positive",
                           model->checkpoint.path, info->name, (double)*scale);
    return status;
}

uint64_t weight_rows_bytes(const struct weight_place *place, uint32_t count) {
    const struct weight *weight = &place->weight;
    uint64_t bytes = space_aligned((uint64_t)count * weight_row_bytes(weight));
    if (place->bias)
        bytes += space_aligned((uint64_t)count * sizeof(float));
    if (weight->format == WEIGHT_MXFP8 || weight->format == WEIGHT_MXFP4)
        bytes += space_aligned((uint64_t)count * (weight->columns / MX_BLOCK));
    else if (weight->format == WEIGHT_FP8)
        bytes += space_aligned((uint64_t)count *
                               ((weight->columns + weight->scale_columns - 1) / weight->scale_columns) * sizeof(float));
    return bytes;
}

enum status weight_rows_load(const struct model *model, const struct weight_place *place, uint32_t begin,
                             uint32_t count, void *buffer, struct weight *weight, struct error *error) {
    *weight = place->weight;
    weight->rows = count;
    unsigned char *at = buffer;
    const uint64_t row_bytes = weight_row_bytes(weight), bytes = row_bytes * count;
    enum status status = STATUS_OK;
    for (uint64_t done = 0; status == STATUS_OK && done < bytes; done += READ_MAX)
        status = checkpoint_read(&model->checkpoint, place->codes, begin * row_bytes + done, at + done,
                                 bytes - done < READ_MAX ? bytes - done : READ_MAX, error);
    weight->codes = at;
    at += space_aligned(bytes);
    if (status == STATUS_OK && place->bias) {
        status = floats_load(model, place->bias, begin, count, (float *)at, error);
        if (status == STATUS_OK)
            status = finite_check(model, place->bias, (float *)at, count, error);
        weight->bias = (float *)at;
        at += space_aligned((uint64_t)count * sizeof(float));
    }
    if (status == STATUS_OK && (weight->format == WEIGHT_MXFP8 || weight->format == WEIGHT_MXFP4)) {
        const uint64_t blocks = weight->columns / MX_BLOCK;
        status = exponents_load(model, place->scales, begin * blocks, count * blocks, at, error);
        weight->exponents = at;
    } else if (status == STATUS_OK && weight->format == WEIGHT_FP8) {
        status = scales_load(model, place, begin, count, (float *)at, error);
        weight->scales = (float *)at;
        if (weight->scale_rows >= place->weight.rows)
            weight->scale_rows = count;
    }
    if (status == STATUS_OK && weight->activations == ACTIVATIONS_FP8_STATIC)
        status = input_scale_load(model, place, &weight->input_scale, error);
    return status;
}

/* ---- slices of the head ---- */

uint64_t head_slice_bytes(const struct model *models, unsigned count, uint32_t rows) {
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += space_aligned(weight_rows_bytes(&models[i].head, rows));
    return bytes;
}

uint32_t head_slice_rows(const struct model *models, unsigned count, uint32_t multiple, uint64_t wanted) {
    const uint32_t vocabulary = models[0].vocabulary;
    uint64_t step = multiple;
    for (unsigned i = 0; i < count; i++) {
        const struct weight *head = &models[i].head.weight;
        if (head->format == WEIGHT_FP8 && head->scale_rows < head->rows && step % head->scale_rows != 0)
            step *= head->scale_rows;
    }
    uint64_t rows = step;
    while (rows < vocabulary &&
           head_slice_bytes(models, count, (uint32_t)(rows + step < vocabulary ? rows + step : vocabulary)) <= wanted)
        rows += step;
    return rows < vocabulary ? (uint32_t)rows : vocabulary;
}

/* ---- fused scales ---- */

/*
 * What vLLM makes of parts that it fuses: the largest input_scale for all, and weights requantized from float16 to the
 * largest weight_scale (requantize_with_max_scale; of per-tensor scales only).
 */
static void scales_fuse(struct weight *weights, unsigned count) {
    float input_scale = 0, weight_scale = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct weight *weight = &weights[i];
        if (weight->format != WEIGHT_FP8 || weight->activations != ACTIVATIONS_FP8_STATIC ||
            weight->scale_rows < weight->rows || weight->scale_columns < weight->columns)
            return;
        input_scale = fmaxf(input_scale, weight->input_scale);
        weight_scale = fmaxf(weight_scale, *weight->scales);
    }
    for (unsigned i = 0; i < count; i++) {
        struct weight *weight = &weights[i];
        weight->input_scale = input_scale;
        if (*weight->scales == weight_scale)
            continue;
        uint8_t code_of[256];
        for (unsigned code = 0; code < 256; code++) {
            const float value = f16_decode(f16_encode(f16_decode(f16_encode(fp8_e4m3_decode((uint8_t)code))) *
                                                      f16_decode(f16_encode(*weight->scales))));
            code_of[code] = fp8_e4m3_encode(value / weight_scale);
        }
        uint8_t *codes = (uint8_t *)(uintptr_t)weight->codes; /* the layer's own buffer */
        for (uint64_t j = 0; j < (uint64_t)weight->rows * weight->columns; j++)
            codes[j] = code_of[codes[j]];
        *(float *)(uintptr_t)weight->scales = weight_scale;
    }
}

/* ---- layers ---- */

enum status layer_load(const struct model *model, uint32_t index, void *buffer, struct layer *layer,
                       struct error *error) {
    const struct layer_place *places = &model->layers[index];
    unsigned char *at = buffer;
    enum status status = STATUS_OK;
    for (enum layer_weight i = 0; status == STATUS_OK && i < LAYER_WEIGHTS; i++) {
        const struct weight_place *place = &places->weights[i];
        status = weight_rows_load(model, place, 0, place->weight.rows, at, &layer->weights[i], error);
        at += place->bytes;
    }
    if (status == STATUS_OK) {
        layer->attention_norm = (float *)at;
        status = norm_load(model, places->attention_norm, model->hidden, (float *)at, error);
        at += space_aligned((uint64_t)model->hidden * sizeof(float));
    }
    if (status == STATUS_OK) {
        layer->mlp_norm = (float *)at;
        status = norm_load(model, places->mlp_norm, model->hidden, (float *)at, error);
    }
    if (status == STATUS_OK && model->options.fused_scales) {
        scales_fuse(&layer->weights[WEIGHT_Q], 3);
        scales_fuse(&layer->weights[WEIGHT_GATE], 2);
    }
    return status;
}
