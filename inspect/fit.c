#include "inspect/fit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "inspect/vllm_scheme.h"

static const char *const outcome_names[OUTCOMES] = {
    [OUTCOME_AS_MEANT] = "as_meant", [OUTCOME_UNQUANTIZED] = "unquantized", [OUTCOME_REFUSES] = "refuses",
    [OUTCOME_GARBAGE] = "garbage",   [OUTCOME_UNKNOWN] = "unknown",
};
const char *outcome_name(enum outcome outcome) { return outcome_names[outcome]; }

static void issue_add(struct fit *fit, enum finding_id id, enum outcome outcome, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void issue_add(struct fit *fit, enum finding_id id, enum outcome outcome, const char *format, ...) {
    if (fit->outcome == OUTCOME_AS_MEANT || outcome == OUTCOME_REFUSES)
        fit->outcome = outcome; /* an issue of its own may leave all as meant */
    if (fit->issue_count == ISSUES_MAX)
        return;
    struct issue *issue = &fit->issues[fit->issue_count++];
    issue->id = id;
    issue->outcome = outcome;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(issue->detail, sizeof issue->detail, format, arguments);
    va_end(arguments);
}

/* ---- formats ---- */

enum stored_format args_stored_format(const struct quant_args *weights) {
    if (weights->type == NUMBER_FLOAT && weights->num_bits == 4)
        return weights->strategy == STRATEGY_TENSOR_GROUP ? STORED_NVFP4
               : weights->strategy == STRATEGY_GROUP      ? STORED_MXFP4
                                                          : STORED_OTHER;
    if (weights->type == NUMBER_FLOAT)
        switch (weights->strategy) {
        case STRATEGY_TENSOR:
            return STORED_FP8_TENSOR;
        case STRATEGY_CHANNEL:
            return STORED_FP8_CHANNEL;
        case STRATEGY_BLOCK:
            return STORED_FP8_BLOCK;
        case STRATEGY_GROUP:
            return STORED_MXFP8;
        default:
            return STORED_OTHER;
        }
    return weights->num_bits == 8 && weights->strategy != STRATEGY_GROUP ? STORED_INT8 : STORED_INT_PACKED;
}

const char *stored_format_ct_name(enum stored_format format) {
    switch (format) {
    case STORED_MXFP4:
        return "mxfp4-pack-quantized";
    case STORED_NVFP4:
        return "nvfp4-pack-quantized";
    case STORED_MXFP8:
        return "mxfp8-quantized";
    case STORED_FP8_TENSOR:
    case STORED_FP8_CHANNEL:
    case STORED_FP8_BLOCK:
        return "float-quantized";
    case STORED_INT8:
        return "int-quantized";
    case STORED_INT_PACKED:
        return "pack-quantized";
    default:
        return NULL;
    }
}

/* What a group's format makes of the weight: the stored format that a loader by format expects. */
static enum stored_format format_stored(const struct quant_group *group) {
    const char *format = quant_group_format(group);
    const struct quant_args *weights = &group->weights;
    if (strcmp(format, "mxfp4-pack-quantized") == 0)
        return STORED_MXFP4;
    if (strcmp(format, "nvfp4-pack-quantized") == 0)
        return STORED_NVFP4;
    if (strcmp(format, "mxfp8-quantized") == 0)
        return STORED_MXFP8;
    if (strcmp(format, "pack-quantized") == 0)
        return STORED_INT_PACKED;
    if (format_quantizes_activations(format)) {
        if (weights->type == NUMBER_INT)
            return STORED_INT8;
        return weights->strategy == STRATEGY_CHANNEL ? STORED_FP8_CHANNEL
               : weights->strategy == STRATEGY_BLOCK ? STORED_FP8_BLOCK
               : weights->strategy == STRATEGY_GROUP ? STORED_FP8_BLOCK
                                                     : STORED_FP8_TENSOR;
    }
    return STORED_OTHER;
}

static bool is_fp8(enum stored_format format) {
    return format == STORED_FP8_TENSOR || format == STORED_FP8_CHANNEL || format == STORED_FP8_BLOCK ||
           format == STORED_FP8_UNSCALED;
}

static bool is_fp4(enum stored_format format) { return format == STORED_MXFP4 || format == STORED_NVFP4; }

static enum strategy stored_strategy(enum stored_format format) {
    switch (format) {
    case STORED_FP8_CHANNEL:
    case STORED_INT8:
        return STRATEGY_CHANNEL;
    case STORED_FP8_BLOCK:
        return STRATEGY_BLOCK;
    case STORED_MXFP4:
    case STORED_MXFP8:
    case STORED_INT_PACKED:
        return STRATEGY_GROUP;
    case STORED_NVFP4:
        return STRATEGY_TENSOR_GROUP;
    default:
        return STRATEGY_TENSOR;
    }
}

/* ---- tensors ---- */

struct context {
    const struct inspection *inspection;
    const struct module *module;
    const struct quant_group *group;
    enum loader loader;
    bool expert;
    struct fit *fit;
};

static const struct tensor_info *part_of(const struct context *c, enum part part) {
    const struct tensor *tensor = module_part(&c->inspection->checkpoint, c->module, part);
    return tensor ? &tensor->info : NULL;
}

/* Bits per packed integer, by the width that weight_shape tells; 0 when it does not. A few bytes are read for it. */
static uint64_t stored_bits(const struct context *c, const struct tensor_info *packed) {
    const struct tensor *shape = module_part(&c->inspection->checkpoint, c->module, PART_SHAPE);
    int64_t extents[2];
    uint64_t words = packed->shape[packed->rank - 1] * 32;
    if (!shape || shape->info.dtype != DTYPE_I64 || shape->info.size != sizeof extents ||
        checkpoint_read(&c->inspection->checkpoint, shape, 0, extents, sizeof extents, NULL) != STATUS_OK)
        return 0;
    for (uint64_t bits = 2; bits <= 8; bits++)
        if (extents[1] > 0 && extents[1] < INT32_MAX && (uint64_t)extents[1] * bits <= words &&
            (uint64_t)extents[1] * bits + 31 >= words)
            return bits;
    return 0;
}

/* Packed integers: the width of the scales against strategy and group_size. */
static bool packed_args_check(const struct context *c) {
    const struct quant_args *weights = &c->group->weights;
    const struct tensor_info *packed = part_of(c, PART_WEIGHT_PACKED), *scale = part_of(c, PART_SCALE);
    if (!packed || !scale || packed->rank == 0 || scale->rank == 0 || weights->num_bits < 1)
        return true;
    uint64_t scales = scale->shape[scale->rank - 1],
             columns = packed->shape[packed->rank - 1] * 32 / (uint64_t)weights->num_bits;
    if ((scales == 1) != (weights->strategy == STRATEGY_CHANNEL) && columns > (uint64_t)weights->group_size) {
        issue_add(c->fit, STRATEGY_MISMATCH, OUTCOME_REFUSES, "group '%s' says strategy %s, the scales are those of %s",
                  c->group->name, strategy_name(weights->strategy), scales == 1 ? "channel" : "group");
        return false;
    }
    uint64_t width = scales * (uint64_t)weights->group_size, bits = stored_bits(c, packed);
    if (bits > 0 && bits != (uint64_t)weights->num_bits) {
        issue_add(c->fit, BITS_MISMATCH, OUTCOME_REFUSES, "group '%s' says %lld bits, the tensors have %llu",
                  c->group->name, (long long)weights->num_bits, (unsigned long long)bits);
        return false;
    }
    if (weights->strategy == STRATEGY_GROUP && width != columns) {
        issue_add(c->fit, GROUP_SIZE, OUTCOME_REFUSES,
                  "group '%s' says group_size %lld, the scales are for %llu columns each", c->group->name,
                  (long long)weights->group_size, (unsigned long long)(scales ? columns / scales : 0));
        return false;
    }
    return true;
}

/* The arguments against what the tensors are, for a loader that goes by arguments. True when they agree. */
static bool args_check(const struct context *c) {
    const struct quant_args *weights = &c->group->weights;
    enum stored_format stored = c->module->format, meant = args_stored_format(weights);
    const char *stored_name = stored_format_name(stored);
    bool stored_float = is_fp4(stored) || is_fp8(stored) || stored == STORED_MXFP8;
    int stored_bits = is_fp4(stored) || stored == STORED_INT_PACKED ? 4 : 8;
    bool bits = stored == STORED_INT_PACKED ? weights->num_bits <= 8 : weights->num_bits == stored_bits;
    if (stored_float != (weights->type == NUMBER_FLOAT) || !bits) {
        issue_add(c->fit, BITS_MISMATCH, OUTCOME_REFUSES, "group '%s' says %s of %lld bits, the tensors are %s",
                  c->group->name, weights->type == NUMBER_FLOAT ? "float" : "int", (long long)weights->num_bits,
                  stored_name);
        return false;
    }
    if (stored == STORED_FP8_UNSCALED)
        return true;
    bool rows_of_groups = stored == STORED_FP8_BLOCK && c->module->block_rows == 1 &&
                          weights->strategy == STRATEGY_GROUP && weights->group_size == c->module->block_columns;
    if (rows_of_groups)
        return true;
    bool same_strategy =
        weights->strategy == stored_strategy(stored) || stored == STORED_INT8 ||
        (stored == STORED_INT_PACKED && (weights->strategy == STRATEGY_CHANNEL || weights->strategy == STRATEGY_GROUP));
    if (!same_strategy || (meant != stored && stored != STORED_INT8 && stored != STORED_INT_PACKED)) {
        issue_add(c->fit, STRATEGY_MISMATCH, OUTCOME_REFUSES, "group '%s' says strategy %s, the scales are those of %s",
                  c->group->name, strategy_name(weights->strategy), strategy_name(stored_strategy(stored)));
        return false;
    }
    int64_t size = is_fp4(stored) ? (stored == STORED_NVFP4 ? 16 : 32) : stored == STORED_MXFP8 ? 32 : 0;
    if (size > 0 && weights->group_size != size) {
        issue_add(c->fit, GROUP_SIZE, OUTCOME_REFUSES, "group '%s' says group_size %lld, %s has one scale per %lld",
                  c->group->name, (long long)weights->group_size, stored_name, (long long)size);
        return false;
    }
    if (stored == STORED_INT_PACKED && !packed_args_check(c))
        return false;
    if (stored == STORED_FP8_BLOCK && weights->block_rows > 0 && weights->block_columns > 0 &&
        (weights->block_rows != c->module->block_rows || weights->block_columns != c->module->block_columns)) {
        const struct tensor_info *scale = part_of(c, PART_SCALE);
        uint64_t rows = (c->module->rows + (uint64_t)weights->block_rows - 1) / (uint64_t)weights->block_rows;
        uint64_t columns =
            (c->module->columns + (uint64_t)weights->block_columns - 1) / (uint64_t)weights->block_columns;
        if (!scale || scale->rank < 2 || scale->shape[scale->rank - 2] != rows ||
            scale->shape[scale->rank - 1] != columns) {
            bool whole = (c->module->block_rows & (c->module->block_rows - 1)) == 0 &&
                         (c->module->block_columns & (c->module->block_columns - 1)) == 0;
            issue_add(c->fit, whole ? GROUP_SIZE : SCALE_SHAPE, OUTCOME_REFUSES,
                      "group '%s' says blocks of [%lld, %lld], the scales are one per [%u, %u]", c->group->name,
                      (long long)weights->block_rows, (long long)weights->block_columns, c->module->block_rows,
                      c->module->block_columns);
            return false;
        }
    }
    return true;
}

static bool is_float_dtype(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F64;
}

static void dtype_check(const struct context *c, const struct tensor_info *info, bool good, const char *wanted) {
    if (!good)
        issue_add(c->fit, TENSOR_DTYPE, OUTCOME_GARBAGE,
                  "its %s is %s, the scheme has %s: values are converted silently",
                  info->name + c->module->name_length + (info->name[c->module->name_length] == '.'),
                  dtype_name(info->dtype), wanted);
}

static void weight_check(const struct context *c) {
    enum stored_format stored = c->module->format;
    const struct tensor *tensor = module_weight(&c->inspection->checkpoint, c->module);
    enum dtype dtype = tensor->info.dtype;
    if (is_fp4(stored))
        dtype_check(c, &tensor->info, dtype == DTYPE_U8, "U8");
    else if (is_fp8(stored) || stored == STORED_MXFP8)
        dtype_check(c, &tensor->info, dtype == DTYPE_F8_E4M3, "F8_E4M3");
}

static void scale_shape_check(const struct context *c, const struct tensor_info *scale) {
    const struct module *module = c->module;
    char shape[SHAPE_TEXT_MAX];
    shape_text(scale->shape, scale->rank, shape);
    uint64_t rows = scale->rank >= 2 ? scale->shape[scale->rank - 2] : 1;
    uint64_t columns = scale->rank >= 1 ? scale->shape[scale->rank - 1] : 1;
    switch (module->format) {
    case STORED_FP8_TENSOR:
        if (!(scale->rank == 1 || (scale->rank == 0 && (c->loader == LOADER_VLLM || c->expert))))
            issue_add(c->fit, SCALE_SHAPE, OUTCOME_REFUSES,
                      "its weight_scale has the shape %s, a scale per tensor is [1]", shape);
        break;
    case STORED_FP8_CHANNEL:
        if (scale->rank != 2 || rows != module->rows)
            issue_add(c->fit, SCALE_SHAPE, OUTCOME_REFUSES,
                      "its weight_scale has the shape %s, scales per channel are [%llu, 1]", shape,
                      (unsigned long long)module->rows);
        break;
    case STORED_MXFP4:
    case STORED_MXFP8:
    case STORED_NVFP4: {
        uint64_t size = module->format == STORED_NVFP4 ? 16 : 32;
        uint64_t wanted = (module->columns + size - 1) / size;
        if (rows == module->rows && columns == wanted && scale->rank >= 2 && module->columns % size == 0)
            break;
        uint64_t implied = columns > 0 && module->columns % columns == 0 ? module->columns / columns : 0;
        if (rows != module->rows || scale->rank < 2)
            issue_add(c->fit, SCALE_SHAPE, OUTCOME_REFUSES, "its weight_scale has the shape %s, %s has [%llu, %llu]",
                      shape, stored_format_name(module->format), (unsigned long long)module->rows,
                      (unsigned long long)wanted);
        else if (implied > 0 && (implied & (implied - 1)) == 0)
            issue_add(c->fit, GROUP_SIZE, OUTCOME_REFUSES,
                      "its weight_scale has one scale per %llu columns, %s has one per %llu",
                      (unsigned long long)implied, stored_format_name(module->format), (unsigned long long)size);
        else
            issue_add(c->fit, PACKED_WIDTH, OUTCOME_REFUSES,
                      "its weight holds %llu columns, its %llu scales a row are for %llu",
                      (unsigned long long)module->columns, (unsigned long long)columns,
                      (unsigned long long)columns * (unsigned long long)size);
        break;
    }
    default:
        break;
    }
}

static void scale_check(const struct context *c) {
    enum stored_format stored = c->module->format;
    const struct tensor_info *scale = part_of(c, PART_SCALE);
    if (!scale) {
        issue_add(c->fit, COMPANION_MISSING, OUTCOME_GARBAGE, "it has no weight_scale%s: the loader makes one up",
                  part_of(c, PART_SCALE_INV) ? " (only a weight_scale_inv, which compressed-tensors does not know)"
                                             : "");
        return;
    }
    bool exponents = stored == STORED_MXFP4 || stored == STORED_MXFP8;
    if (exponents)
        dtype_check(c, scale, scale->dtype == DTYPE_U8, "U8");
    else if (stored == STORED_NVFP4)
        dtype_check(c, scale, scale->dtype == DTYPE_F8_E4M3, "F8_E4M3");
    else
        dtype_check(c, scale, is_float_dtype(scale->dtype), "F32 or BF16");
    scale_shape_check(c, scale);
}

/* Whether the scheme has a place for a part. */
static bool part_has_place(const struct context *c, enum part part) {
    const struct quant_args *weights = &c->group->weights, *inputs = &c->group->inputs;
    enum stored_format stored = c->module->format;
    bool packed = is_fp4(stored) || stored == STORED_INT_PACKED;
    switch (part) {
    case PART_WEIGHT:
        return !packed;
    case PART_WEIGHT_PACKED:
        return packed;
    case PART_INPUT_SCALE:
        return inputs->present && !inputs->empty && !inputs->dynamic && stored != STORED_MXFP4;
    case PART_GLOBAL_SCALE:
        return stored == STORED_NVFP4;
    case PART_INPUT_GLOBAL_SCALE:
        return stored == STORED_NVFP4 && inputs->present;
    case PART_ZERO_POINT:
        return !weights->symmetric;
    case PART_SHAPE:
        return stored == STORED_INT_PACKED;
    case PART_SCALE:
    case PART_BIAS:
    case PART_G_IDX: /* vLLM skips it */
    case PART_OTHER:
        return true;
    case PART_SCALE_INV: /* vLLM's Mistral 3 renames it */
        return !part_of(c, PART_SCALE);
    default:
        return false;
    }
}

static void companions_check(const struct context *c) {
    const struct quant_args *inputs = &c->group->inputs;
    bool is_static = inputs->present && !inputs->empty && !inputs->dynamic && inputs->strategy == STRATEGY_TENSOR;
    bool wants_input = is_static && !(c->expert && c->loader == LOADER_TRANSFORMERS) &&
                       !(c->module->format == STORED_MXFP4 && c->loader == LOADER_VLLM);
    const struct tensor_info *input = part_of(c, PART_INPUT_SCALE);
    if (wants_input && !input)
        issue_add(c->fit, INPUT_SCALE_MISSING, OUTCOME_GARBAGE, "activations are static, but it has no input_scale");
    if (wants_input && input) {
        char shape[SHAPE_TEXT_MAX];
        dtype_check(c, input, is_float_dtype(input->dtype), "F32 or BF16");
        uint64_t elements;
        bool scalar = input->rank == 0 && c->loader == LOADER_VLLM;
        if (!scalar && !(input->rank == 1 && shape_elements(input->shape, 1, &elements) && elements == 1))
            issue_add(c->fit, SCALE_SHAPE, OUTCOME_REFUSES,
                      "its input_scale has the shape %s, a scale per tensor is [1]",
                      shape_text(input->shape, input->rank, shape));
    }
    if (c->module->format == STORED_NVFP4 && !part_of(c, PART_GLOBAL_SCALE))
        issue_add(c->fit, COMPANION_MISSING, OUTCOME_GARBAGE, "it has no weight_global_scale");
    if (c->module->format == STORED_INT_PACKED && !part_of(c, PART_SHAPE))
        issue_add(c->fit, COMPANION_MISSING, OUTCOME_GARBAGE, "it has no weight_shape");
    if (!c->group->weights.symmetric && !part_of(c, PART_ZERO_POINT) && !c->expert)
        issue_add(c->fit, c->group->weights.type == NUMBER_FLOAT ? SCHEME_UNSUPPORTED : COMPANION_MISSING,
                  OUTCOME_GARBAGE, "group '%s' is not symmetric, but it has no weight_zero_point", c->group->name);
    const struct quant_args *outputs = &c->group->outputs;
    bool has_output = checkpoint_find_joined(&c->inspection->checkpoint, c->module->name, c->module->name_length,
                                             ".output_scale") != NULL;
    if (c->loader == LOADER_TRANSFORMERS && outputs->present && !outputs->empty && !outputs->dynamic && !has_output)
        issue_add(c->fit, COMPANION_MISSING, OUTCOME_GARBAGE,
                  "output activations are static, but it has no output_scale");
    for (enum part part = 0; part < PARTS; part++) {
        const struct tensor_info *info = part_of(c, part);
        if (!info || part_has_place(c, part) || (c->expert && part == PART_INPUT_SCALE && c->loader != LOADER_VLLM))
            continue;
        if (c->loader != LOADER_VLLM)
            issue_add(c->fit, COMPANION_EXTRA, OUTCOME_AS_MEANT, "transformers has no place for its %s and skips it",
                      info->name + c->module->name_length + (info->name[c->module->name_length] == '.'));
        else
            issue_add(c->fit, COMPANION_EXTRA, OUTCOME_REFUSES, "vLLM has no place for its %s and refuses to load it",
                      info->name + c->module->name_length + (info->name[c->module->name_length] == '.'));
    }
}

/* Weights that no scheme can be asked about; true when there was one. */
static bool odd_weight(const struct context *c) {
    enum stored_format stored = c->module->format;
    const struct tensor *weight = module_weight(&c->inspection->checkpoint, c->module);
    if (stored == STORED_PLAIN || stored == STORED_OTHER) {
        issue_add(c->fit, TENSOR_DTYPE, OUTCOME_GARBAGE, "its weight is %s, group '%s' describes %s",
                  dtype_name(weight->info.dtype), c->group->name,
                  stored_format_name(args_stored_format(&c->group->weights)));
        return true;
    }
    if (!stored_format_ct_name(stored) && stored != STORED_FP8_UNSCALED) {
        issue_add(c->fit, SCHEME_UNSUPPORTED, OUTCOME_REFUSES,
                  "its tensors are %s's, which compressed-tensors does not read", stored_format_name(stored));
        return true;
    }
    return false;
}

static void vllm_check(const struct context *c) {
    const struct quant_config *config = &c->inspection->quant;
    const char *why, *format = c->group->format ? c->group->format : config->format;
    c->fit->scheme = vllm_scheme(config, c->group, c->expert, &why);
    if (!args_check(c))
        return;
    if (!c->fit->scheme && c->module->format == STORED_MXFP8) {
        issue_add(c->fit, SCALE_DTYPE, OUTCOME_REFUSES,
                  "group '%s' lacks scale_dtype torch.uint8, without which vLLM sees no MXFP8", c->group->name);
        return;
    }
    if (!c->fit->scheme && args_are_fp8_weight(&c->group->weights) && !format_quantizes_activations(format) &&
        !c->expert) {
        bool missing = !c->group->format && (!format || strcmp(format, "mixed-precision") == 0);
        issue_add(c->fit, missing ? GROUP_FORMAT_MISSING : FORMAT_WRONG, OUTCOME_REFUSES, "group '%s' has %s%s%s: %s",
                  c->group->name, c->group->format ? "the format " : "no format of its own, and the top level says ",
                  format ? format : "nothing", "", why);
        return;
    }
    if (!c->fit->scheme) {
        issue_add(c->fit, SCHEME_UNSUPPORTED, OUTCOME_REFUSES, "group '%s': %s", c->group->name, why);
        return;
    }
    weight_check(c);
    scale_check(c);
    companions_check(c);
}

/* Which formats transformers can turn routed experts of, and which group formats it then looks at. */
static void transformers_expert_check(const struct context *c) {
    enum stored_format stored = c->module->format;
    const char *top = c->inspection->quant.format;
    if (stored == STORED_FP8_BLOCK || stored == STORED_MXFP8)
        issue_add(c->fit, SCHEME_UNSUPPORTED, OUTCOME_REFUSES, "transformers cannot load routed experts in %s",
                  stored_format_name(stored));
    else if (is_fp4(stored) && !c->group->format && (!top || strcmp(top, stored_format_ct_name(stored)) != 0))
        issue_add(
            c->fit, GROUP_FORMAT_MISSING, OUTCOME_REFUSES,
            "group '%s' has no format of its own, and for routed experts transformers then takes the top level's, %s",
            c->group->name, top ? top : "which is missing");
}

static void transformers_check(const struct context *c) {
    const struct quant_args *weights = &c->group->weights;
    enum stored_format stored = c->module->format, expected = format_stored(c->group);
    const char *format = quant_group_format(c->group);
    if (c->expert) {
        size_t before = c->fit->issue_count;
        transformers_expert_check(c);
        if (c->fit->issue_count > before)
            return;
    }
    if (weights->dynamic) {
        issue_add(c->fit, SCHEME_UNSUPPORTED, OUTCOME_REFUSES, "group '%s' has dynamic weights", c->group->name);
        return;
    }
    bool same = expected == stored || (is_fp8(expected) && is_fp8(stored));
    if (!same) {
        /* the arguments are to blame when no format is given, and where they do not describe the tensors either */
        size_t before = c->fit->issue_count;
        if (c->group->format && args_stored_format(weights) == stored)
            issue_add(c->fit, FORMAT_WRONG, OUTCOME_GARBAGE, "group '%s' has the format %s, the tensors are %s",
                      c->group->name, format,
                      stored_format_ct_name(stored) ? stored_format_ct_name(stored) : stored_format_name(stored));
        else if (args_check(c) && c->fit->issue_count == before)
            issue_add(c->fit, c->group->format ? FORMAT_WRONG : SCALE_DTYPE, OUTCOME_GARBAGE,
                      "group '%s' is read as %s, the tensors are %s", c->group->name, format,
                      stored_format_name(stored));
        return;
    }
    if ((weights->type == NUMBER_INT || weights->num_bits != 8) && is_fp8(stored) && !args_check(c))
        return;
    bool strategy = weights->strategy == stored_strategy(stored) || stored == STORED_INT8 ||
                    stored == STORED_INT_PACKED || stored == STORED_FP8_UNSCALED;
    bool sizes = !is_fp4(stored) || weights->group_size == (stored == STORED_NVFP4 ? 16 : 32);
    if ((!strategy || !sizes || stored == STORED_FP8_BLOCK || stored == STORED_MXFP8) && !args_check(c))
        return;
    weight_check(c);
    scale_check(c);
    companions_check(c);
}

void fit_check(const struct inspection *inspection, const struct module *module, const struct quant_group *group,
               enum loader loader, bool expert, struct fit *fit) {
    *fit = (struct fit){.outcome = OUTCOME_AS_MEANT};
    struct context context = {inspection, module, group, loader, expert, fit};
    const char *why;
    if (odd_weight(&context)) {
        fit->scheme = loader == LOADER_VLLM ? vllm_scheme(&inspection->quant, group, expert, &why) : NULL;
        return;
    }
    if (loader == LOADER_VLLM)
        vllm_check(&context);
    else
        transformers_check(&context);
}
