#include "common/modules.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/name_table.h"

static const char *const format_names[STORED_FORMATS] = {
    [STORED_PLAIN] = "plain",
    [STORED_FP8_TENSOR] = "fp8-tensor",
    [STORED_FP8_CHANNEL] = "fp8-channel",
    [STORED_FP8_BLOCK] = "fp8-block",
    [STORED_FP8_UNSCALED] = "fp8-unscaled",
    [STORED_MXFP8] = "mxfp8",
    [STORED_MXFP4] = "mxfp4",
    [STORED_NVFP4] = "nvfp4",
    [STORED_INT8] = "int8",
    [STORED_INT_PACKED] = "int-packed",
    [STORED_MODELOPT_NVFP4] = "modelopt-nvfp4",
    [STORED_AWQ] = "awq",
    [STORED_GPTQ] = "gptq",
    [STORED_GPT_OSS_MXFP4] = "gpt-oss-mxfp4",
    [STORED_BITSANDBYTES] = "bitsandbytes",
    [STORED_OTHER] = "other",
};
const char *stored_format_name(enum stored_format format) { return format_names[format]; }

static const char *const part_names[PARTS] = {
    [PART_WEIGHT] = "weight",
    [PART_WEIGHT_PACKED] = "weight_packed",
    [PART_QWEIGHT] = "qweight",
    [PART_BLOCKS] = "blocks",
    [PART_SCALE] = "weight_scale",
    [PART_SCALE_INV] = "weight_scale_inv",
    [PART_SCALE_2] = "weight_scale_2",
    [PART_GLOBAL_SCALE] = "weight_global_scale",
    [PART_INPUT_SCALE] = "input_scale",
    [PART_INPUT_GLOBAL_SCALE] = "input_global_scale",
    [PART_ZERO_POINT] = "weight_zero_point",
    [PART_SHAPE] = "weight_shape",
    [PART_G_IDX] = "weight_g_idx",
    [PART_BIAS] = "bias",
    [PART_OTHER] = "other",
};
const char *part_name(enum part part) { return part_names[part]; }

/* Endings that say which part of a module a tensor is; the longest that fits counts. */
static const struct {
    const char *ending;
    enum part part;
} endings[] = {
    {".weight", PART_WEIGHT},
    {".weight_packed", PART_WEIGHT_PACKED},
    {".qweight", PART_QWEIGHT},
    {".weight_scale", PART_SCALE},
    {".scales", PART_SCALE},
    {".scale", PART_SCALE},
    {".weight_scale_inv", PART_SCALE_INV},
    {".weight_scale_2", PART_SCALE_2},
    {".weight_global_scale", PART_GLOBAL_SCALE},
    {".input_scale", PART_INPUT_SCALE},
    {".activation_scale", PART_INPUT_SCALE},
    {".input_global_scale", PART_INPUT_GLOBAL_SCALE},
    {".weight_zero_point", PART_ZERO_POINT},
    {".qzeros", PART_ZERO_POINT},
    {".weight_shape", PART_SHAPE},
    {".weight_g_idx", PART_G_IDX},
    {".g_idx", PART_G_IDX},
    {".bias", PART_BIAS},
};

/* Endings of names that have no dot before them: fused experts. They count where the rest is a tensor or has blocks. */
static const struct {
    const char *ending;
    enum part part;
} fused_endings[] = {
    {"_blocks", PART_BLOCKS},           {"_scales", PART_SCALE},          {"_scale_inv", PART_SCALE_INV},
    {"_weight_scale", PART_SCALE},      {"_scale", PART_SCALE},           {"_bias", PART_BIAS},
    {"_input_scale", PART_INPUT_SCALE}, {"_weight_scale_2", PART_SCALE_2}};

static bool ends_with(const char *name, size_t length, const char *ending) {
    size_t size = strlen(ending);
    return length > size && memcmp(name + length - size, ending, size) == 0;
}

static bool is_fused_stem(const struct checkpoint *checkpoint, const char *name, size_t stem, enum part part) {
    return checkpoint_find_joined(checkpoint, name, stem, "") ||
           checkpoint_find_joined(checkpoint, name, stem, part == PART_BLOCKS ? "_scales" : "_blocks");
}

/* The part, and through *stem how much of the name is the module's. */
static enum part part_of_name(const struct checkpoint *checkpoint, const char *name, size_t *stem) {
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends_with(name, length, endings[i].ending)) {
            *stem = length - strlen(endings[i].ending);
            return endings[i].part;
        }
    const char *buffer = strstr(name, ".weight."); /* weight.absmax and others of bitsandbytes */
    if (buffer && buffer > name && !strchr(buffer + strlen(".weight."), '/')) {
        *stem = (size_t)(buffer - name);
        if (checkpoint_find_joined(checkpoint, name, *stem, ".weight"))
            return strcmp(buffer, ".weight.absmax") == 0 ? PART_SCALE : PART_OTHER;
    }
    for (size_t i = 0; i < sizeof fused_endings / sizeof *fused_endings; i++) {
        if (!ends_with(name, length, fused_endings[i].ending))
            continue;
        *stem = length - strlen(fused_endings[i].ending);
        if (is_fused_stem(checkpoint, name, *stem, fused_endings[i].part))
            return fused_endings[i].part;
    }
    *stem = length;
    return PART_WEIGHT;
}

static int layer_of(const char *name, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t end = at;
        while (end < length && name[end] != '.')
            end++;
        size_t digits = strspn(name + at, "0123456789");
        if (digits > 0 && digits == end - at && digits < 7)
            return (int)strtol(name + at, NULL, 10);
        at = end + 1;
    }
    return MODULE_NO_LAYER;
}

const struct tensor *module_part(const struct checkpoint *checkpoint, const struct module *module, enum part part) {
    return module->parts[part] == MODULE_NO_TENSOR ? NULL : &checkpoint->tensors[module->parts[part]];
}

const struct tensor *module_weight(const struct checkpoint *checkpoint, const struct module *module) {
    static const enum part carriers[] = {PART_WEIGHT_PACKED, PART_WEIGHT, PART_QWEIGHT, PART_BLOCKS};
    for (size_t i = 0; i < sizeof carriers / sizeof *carriers; i++)
        if (module->parts[carriers[i]] != MODULE_NO_TENSOR)
            return &checkpoint->tensors[module->parts[carriers[i]]];
    return NULL;
}

const struct tensor *module_scale(const struct checkpoint *checkpoint, const struct module *module) {
    const struct tensor *scale = module_part(checkpoint, module, PART_SCALE);
    return scale ? scale : module_part(checkpoint, module, PART_SCALE_INV);
}

bool module_is_quantized(const struct module *module) { return module->format != STORED_PLAIN; }

/* ---- formats ---- */

/* [leading..., rows, columns] of a tensor; a vector is one row. False when it is a scalar. */
static bool matrix_of(const struct tensor_info *info, uint64_t *leading, uint64_t *rows, uint64_t *columns) {
    *leading = *rows = *columns = 1;
    if (info->rank == 0)
        return false;
    *columns = info->shape[info->rank - 1];
    if (info->rank > 1)
        *rows = info->shape[info->rank - 2];
    for (unsigned i = 0; i + 2 < info->rank; i++)
        if (__builtin_mul_overflow(*leading, info->shape[i], leading))
            *leading = 0;
    return true;
}

static uint64_t ratio(uint64_t whole, uint64_t part) { return part == 0 ? 0 : (whole + part - 1) / part; }

static void fp8_format(const struct tensor_info *scale, struct module *module) {
    uint64_t elements, leading, rows, columns;
    module->format = STORED_FP8_UNSCALED;
    if (!scale || !shape_elements(scale->shape, scale->rank, &elements))
        return;
    bool exponents = scale->dtype == DTYPE_U8 || scale->dtype == DTYPE_F8_E8M0;
    matrix_of(scale, &leading, &rows, &columns);
    if (elements == module->experts && !exponents && !(scale->rank >= 2 && module->rows == 1 && rows == 1)) {
        module->format = STORED_FP8_TENSOR;
    } else if (exponents) {
        module->format = STORED_MXFP8;
        module->block_columns = (uint32_t)ratio(module->columns, columns);
    } else if ((columns == 1 && rows > module->rows / 8) || (scale->rank == 1 && columns == module->rows)) {
        module->format = STORED_FP8_CHANNEL;
    } else {
        module->format = STORED_FP8_BLOCK;
        module->block_rows = (uint32_t)ratio(module->rows, rows);
        module->block_columns = (uint32_t)ratio(module->columns, columns);
        /* powers of two are what is used: 128 where the last block is shorter */
        uint32_t *const sizes[] = {&module->block_rows, &module->block_columns};
        for (int i = 0; i < 2; i++) {
            uint64_t extent = i ? module->columns : module->rows, blocks = i ? columns : rows;
            uint64_t power = 1;
            while (power < *sizes[i] && power < (1u << 20))
                power *= 2;
            if (blocks > 0 && ratio(extent, power) == blocks)
                *sizes[i] = (uint32_t)power;
        }
    }
}

/* weight_packed and its scale. */
static void packed_format(const struct checkpoint *checkpoint, const struct tensor_info *weight,
                          struct module *module) {
    const struct tensor *scale = module_part(checkpoint, module, PART_SCALE);
    uint64_t leading, rows, columns;
    if (weight->dtype == DTYPE_I32) {
        /* the width lies in weight_shape's data; where all of 4 bits is right, headers say so */
        module->format = STORED_INT_PACKED;
        module->columns *= 8;
        if (scale && matrix_of(&scale->info, &leading, &rows, &columns) && columns > 1)
            module->block_columns = (uint32_t)ratio(module->columns, columns);
        return;
    }
    if (__builtin_mul_overflow(module->columns, 2, &module->columns))
        module->columns = 0;
    bool nv = module->parts[PART_GLOBAL_SCALE] != MODULE_NO_TENSOR || (scale && scale->info.dtype == DTYPE_F8_E4M3);
    module->format = nv ? STORED_NVFP4 : STORED_MXFP4;
    if (scale && matrix_of(&scale->info, &leading, &rows, &columns))
        module->block_columns = (uint32_t)ratio(module->columns, columns);
}

static bool is_plain_dtype(enum dtype dtype) {
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_F64;
}

/* qweight: AWQ packs along the outputs, GPTQ along the inputs; the scales' width tells. */
static void qweight_format(const struct checkpoint *checkpoint, struct module *module) {
    const struct tensor *scale = module_part(checkpoint, module, PART_SCALE);
    uint64_t leading, rows = 0, columns = 0, inner = module->rows, outer = module->columns;
    if (scale)
        matrix_of(&scale->info, &leading, &rows, &columns);
    bool gptq = module->parts[PART_G_IDX] != MODULE_NO_TENSOR || (scale && columns == outer);
    module->format = gptq ? STORED_GPTQ : STORED_AWQ;
    module->rows = gptq ? outer : scale ? columns : outer * 8;
    const struct tensor *g_idx = module_part(checkpoint, module, PART_G_IDX);
    module->columns = !gptq ? inner : g_idx && g_idx->info.rank == 1 ? g_idx->info.shape[0] : inner * 8;
    module->block_columns = (uint32_t)ratio(module->columns, rows);
}

static void module_describe(const struct checkpoint *checkpoint, struct module *module) {
    const struct tensor *weight = module_weight(checkpoint, module), *scale = module_scale(checkpoint, module);
    module->experts = 1;
    if (!weight)
        return;
    const struct tensor_info *info = &weight->info;
    matrix_of(info, &module->experts, &module->rows, &module->columns);
    if (module->parts[PART_BLOCKS] != MODULE_NO_TENSOR) {
        module->format = STORED_GPT_OSS_MXFP4;
        if (info->rank == 4) { /* [experts, out, in / 32, 16] */
            module->experts = info->shape[0];
            module->rows = info->shape[1];
            if (__builtin_mul_overflow(info->shape[2], 32, &module->columns))
                module->columns = 0;
            module->block_columns = 32;
        }
    } else if (module->parts[PART_WEIGHT_PACKED] != MODULE_NO_TENSOR) {
        packed_format(checkpoint, info, module);
    } else if (module->parts[PART_QWEIGHT] != MODULE_NO_TENSOR) {
        qweight_format(checkpoint, module);
    } else if (info->dtype == DTYPE_F8_E4M3 || info->dtype == DTYPE_F8_E5M2) {
        fp8_format(scale ? &scale->info : NULL, module);
    } else if (info->dtype == DTYPE_U8 && module->parts[PART_SCALE_2] != MODULE_NO_TENSOR) {
        module->format = STORED_MODELOPT_NVFP4;
        if (__builtin_mul_overflow(module->columns, 2, &module->columns))
            module->columns = 0;
        module->block_columns = 16;
    } else if (info->dtype == DTYPE_U8 && scale && text_ends_with(scale->info.name, ".absmax")) {
        module->format = STORED_BITSANDBYTES; /* the shape lies in the data of quant_state */
    } else if (info->dtype == DTYPE_I8 && (scale || info->rank == 2)) {
        module->format = STORED_INT8;
    } else if (scale && !is_plain_dtype(info->dtype)) {
        module->format = STORED_OTHER;
    }
}

uint64_t module_parameters(const struct checkpoint *checkpoint, const struct module *module) {
    const struct tensor *weight = module_weight(checkpoint, module), *bias = module_part(checkpoint, module, PART_BIAS);
    uint64_t total = 0, elements;
    if (weight && module->format == STORED_PLAIN) {
        if (shape_elements(weight->info.shape, weight->info.rank, &elements))
            total = elements;
    } else if (weight && module->format == STORED_BITSANDBYTES) {
        total = 2 * weight->info.size;
    } else if (weight && (__builtin_mul_overflow(module->rows, module->columns, &total) ||
                          __builtin_mul_overflow(total, module->experts, &total))) {
        total = 0;
    }
    if (bias && shape_elements(bias->info.shape, bias->info.rank, &elements) && elements < UINT64_MAX - total)
        total += elements;
    return total;
}

/* ---- gathering ---- */

static enum status module_add(struct modules *modules, size_t *capacity, const char *name, size_t length,
                              struct error *error) {
    if (!array_reserve(modules->items, modules->count + 1, capacity))
        return error_set_memory(error);
    struct module *module = &modules->items[modules->count++];
    *module = (struct module){
        .name = name, .name_length = (uint32_t)length, .role = role_of(name), .layer = layer_of(name, length)};
    for (int i = 0; i < PARTS; i++)
        module->parts[i] = MODULE_NO_TENSOR;
    return STATUS_OK;
}

enum status modules_collect(const struct checkpoint *checkpoint, struct modules *modules, struct error *error) {
    size_t count = checkpoint->tensor_count, capacity = 0;
    *modules =
        (struct modules){.of_tensor = malloc((count + 1) * sizeof *modules->of_tensor), .part_of = malloc(count + 1)};
    if (!modules->of_tensor || !modules->part_of)
        return error_set_memory(error);
    struct name_table by_name = {0};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        uint32_t tensor = checkpoint->by_name[i];
        const char *name = checkpoint->tensors[tensor].info.name;
        size_t stem;
        bool added = false;
        enum part part = part_of_name(checkpoint, name, &stem);
        uint32_t *number = name_table_add(&by_name, name, stem, (uint32_t)modules->count, &added);
        status = !number ? error_set_memory(error)
                 : added ? module_add(modules, &capacity, name, stem, error)
                         : STATUS_OK;
        if (status != STATUS_OK)
            break;
        modules->of_tensor[tensor] = *number;
        modules->part_of[tensor] = (uint8_t)part;
        modules->items[*number].parts[part] = tensor;
    }
    name_table_free(&by_name);
    for (size_t i = 0; i < modules->count && status == STATUS_OK; i++)
        module_describe(checkpoint, &modules->items[i]);
    return status;
}

void modules_free(struct modules *modules) {
    free(modules->items);
    free(modules->of_tensor);
    free(modules->part_of);
    *modules = (struct modules){0};
}
