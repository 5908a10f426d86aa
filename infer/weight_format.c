#include "infer/weight_format.h"

#include <stdio.h>

enum { MX_BLOCK = 32 };

static bool is_float(const struct tensor *tensor) {
    const enum dtype dtype = tensor->info.dtype;
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

static bool is_exponents(const struct tensor *tensor) {
    return tensor->info.dtype == DTYPE_U8 || tensor->info.dtype == DTYPE_F8_E8M0;
}

enum status float_tensor_check(const struct checkpoint *checkpoint, const struct tensor *tensor, struct error *error) {
    if (is_float(tensor))
        return STATUS_OK;
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s': tensor '%s' is %s, which cannot be run; BF16, F16 and F32 can, and of weights FP8, MXFP8 "
                     "and MXFP4",
                     checkpoint->path, tensor->info.name, dtype_name(tensor->info.dtype));
}

static enum status dtype_check(const struct checkpoint *checkpoint, const struct tensor *codes, enum dtype dtype,
                               const char *what, struct error *error) {
    if (codes->info.dtype == dtype)
        return STATUS_OK;
    return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' is %s; only %s can be run as %s", checkpoint->path,
                     codes->info.name, dtype_name(codes->info.dtype), dtype_name(dtype), what);
}

static bool is_matrix(const struct tensor *tensor, uint64_t rows, uint64_t columns) {
    return tensor->info.rank == 2 && tensor->info.shape[0] == rows && tensor->info.shape[1] == columns;
}

static uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

static enum status scale_refuse(const struct checkpoint *checkpoint, const struct weight_place *place,
                                const char *wanted, struct error *error) {
    const struct tensor_info *scale = &place->scales->info;
    char shape[SHAPE_TEXT_MAX];
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s': the scale '%s' is %s %s; for its weight [%u, %u] it has to be %s: it or config.json's "
                     "quantization_config is wrong",
                     checkpoint->path, scale->name, dtype_name(scale->dtype),
                     shape_text(scale->shape, scale->rank, shape), place->weight.rows, place->weight.columns, wanted);
}

static enum status fp8_scale_find(const struct checkpoint *checkpoint, struct scale_block block,
                                  struct weight_place *place, struct error *error) {
    struct weight *weight = &place->weight;
    const struct tensor_info *scale = &place->scales->info;
    const uint32_t down = ceil_div(weight->rows, block.rows), across = ceil_div(weight->columns, block.columns);
    uint64_t elements = 0;
    const bool counted = shape_elements(scale->shape, scale->rank, &elements);
    weight->scale_rows = weight->rows;
    weight->scale_columns = weight->columns;
    if (is_float(place->scales) && counted && elements == 1)
        return STATUS_OK;
    if (is_float(place->scales) &&
        (is_matrix(place->scales, weight->rows, 1) || (scale->rank == 1 && scale->shape[0] == weight->rows))) {
        weight->scale_rows = 1;
        return STATUS_OK;
    }
    if (is_float(place->scales) && is_matrix(place->scales, down, across)) {
        weight->scale_rows = block.rows;
        weight->scale_columns = block.columns;
        return STATUS_OK;
    }
    char wanted[160];
    snprintf(wanted, sizeof wanted,
             "F32, F16 or BF16 of one element, [%u, 1], or [%u, %u] in blocks of %u x %u, or U8 [%u, %u]", weight->rows,
             down, across, block.rows, block.columns, weight->rows, weight->columns / MX_BLOCK);
    return scale_refuse(checkpoint, place, wanted, error);
}

static enum status mx_scale_find(const struct checkpoint *checkpoint, struct weight_place *place, struct error *error) {
    const struct weight *weight = &place->weight;
    if (is_exponents(place->scales) && weight->columns % MX_BLOCK == 0 &&
        is_matrix(place->scales, weight->rows, weight->columns / MX_BLOCK))
        return STATUS_OK;
    char wanted[80];
    if (weight->columns % MX_BLOCK == 0)
        snprintf(wanted, sizeof wanted, "U8 or F8_E8M0 [%u, %u], one for %d columns", weight->rows,
                 weight->columns / MX_BLOCK, MX_BLOCK);
    else
        snprintf(wanted, sizeof wanted, "of blocks of %d columns, which do not divide it", MX_BLOCK);
    return scale_refuse(checkpoint, place, wanted, error);
}

enum status weight_format_find(const struct checkpoint *checkpoint, const struct module *module,
                               struct scale_block block, struct weight_place *place, struct error *error) {
    struct weight *weight = &place->weight;
    enum status status;
    switch (module->format) {
    case STORED_PLAIN:
        weight->format = place->codes->info.dtype == DTYPE_F32   ? WEIGHT_F32
                         : place->codes->info.dtype == DTYPE_F16 ? WEIGHT_F16
                                                                 : WEIGHT_BF16;
        return float_tensor_check(checkpoint, place->codes, error);
    case STORED_FP8_TENSOR:
    case STORED_FP8_CHANNEL:
    case STORED_FP8_BLOCK:
    case STORED_FP8_UNSCALED:
    case STORED_MXFP8:
    case STORED_MXFP4:
        break;
    default:
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the weight '%.*s' is stored as %s, which cannot be run; BF16, F16, F32, FP8, MXFP8 and "
                         "MXFP4 can",
                         checkpoint->path, (int)module->name_length, module->name, stored_format_name(module->format));
    }
    weight->format = module->format == STORED_MXFP4   ? WEIGHT_MXFP4
                     : module->format == STORED_MXFP8 ? WEIGHT_MXFP8
                                                      : WEIGHT_FP8;
    if (weight->format == WEIGHT_MXFP4)
        status = dtype_check(checkpoint, place->codes, DTYPE_U8, "MXFP4", error);
    else
        status = dtype_check(checkpoint, place->codes, DTYPE_F8_E4M3, "FP8", error);
    if (status != STATUS_OK)
        return status;
    place->scales = module_scale(checkpoint, module);
    if (!place->scales)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' is %s without a scale: '%.*s.weight_scale' is missing", checkpoint->path,
                         place->codes->info.name, weight->format == WEIGHT_MXFP4 ? "MXFP4" : "FP8",
                         (int)module->name_length, module->name);
    return weight->format == WEIGHT_FP8 ? fp8_scale_find(checkpoint, block, place, error)
                                        : mx_scale_find(checkpoint, place, error);
}
