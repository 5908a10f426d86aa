#include "common/layout.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"

static const char weight_suffix[] = ".weight";
enum { MX_BLOCK = 32 };

size_t module_length(const char *name) {
    size_t length = strlen(name);
    return text_ends_with(name, weight_suffix) ? length - strlen(weight_suffix) : length;
}

/* What quantization_config promises. */
struct promise {
    bool quantized;      /* there is a quantization_config */
    bool compressed;     /* quant_method compressed-tensors: strategies come from its groups */
    bool strategies[5];  /* by enum scaling: which ones may occur */
    bool static_inputs;  /* every FP8 weight has an activation scale */
    bool dynamic_inputs; /* none has */
    uint32_t block_rows, block_columns;
    char text[160]; /* for messages: what it says */
};

static bool block_size_read(const json_t *value, struct promise *promise) {
    if (!json_is_array(value) || json_array_size(value) != 2)
        return false;
    double rows = json_number_value(json_array_get(value, 0)), columns = json_number_value(json_array_get(value, 1));
    if (!(rows >= 1 && rows <= 65536 && columns >= 1 && columns <= 65536))
        return false;
    promise->block_rows = (uint32_t)rows;
    promise->block_columns = (uint32_t)columns;
    return true;
}

static enum status promise_from_groups(const json_t *config, struct promise *promise, struct error *error) {
    const json_t *groups = json_object_get(config, "config_groups");
    void *at;
    promise->compressed = true;
    size_t named = 0;
    for (at = json_object_iter((json_t *)groups); at; at = json_object_iter_next((json_t *)groups, at), named++) {
        const json_t *weights = json_object_get(json_object_iter_value(at), "weights");
        const char *strategy = json_string_value(json_object_get(weights, "strategy"));
        const char *type = json_string_value(json_object_get(weights, "type"));
        if (json_number_value(json_object_get(weights, "num_bits")) != 8 || !type || strcmp(type, "float") != 0)
            return error_set(error, STATUS_BAD_INPUT,
                             "config.json: the weights of config group '%s' are not 8-bit float: this checkpoint is "
                             "already quantized further; start from its BF16 or FP8 source",
                             json_object_iter_key(at));
        if (!strategy)
            return error_set(error, STATUS_BAD_INPUT, "config.json: config group '%s' names no weight strategy",
                             json_object_iter_key(at));
        if (strcmp(strategy, "tensor") == 0)
            promise->strategies[SCALING_TENSOR] = true;
        else if (strcmp(strategy, "channel") == 0)
            promise->strategies[SCALING_CHANNEL] = true;
        else if (strcmp(strategy, "block") == 0 &&
                 block_size_read(json_object_get(weights, "block_structure"), promise))
            promise->strategies[SCALING_BLOCK] = true;
        else if (strcmp(strategy, "group") == 0 &&
                 json_number_value(json_object_get(weights, "group_size")) == MX_BLOCK)
            promise->strategies[SCALING_MX] = true;
        else
            return error_set(error, STATUS_BAD_INPUT,
                             "config.json: config group '%s' has the weight strategy '%s', which cannot be read",
                             json_object_iter_key(at), strategy);
    }
    if (named == 0)
        return error_set(error, STATUS_BAD_INPUT, "config.json: quantization_config has no config_groups");
    snprintf(promise->text, sizeof promise->text, "compressed-tensors config groups");
    return STATUS_OK;
}

static enum status promise_read(const json_t *config, struct promise *promise, struct error *error) {
    *promise = (struct promise){.block_rows = 128, .block_columns = 128};
    if (!config) {
        snprintf(promise->text, sizeof promise->text, "no quantization_config");
        return STATUS_OK;
    }
    promise->quantized = true;
    const char *method = json_string_value(json_object_get(config, "quant_method"));
    if (!method)
        return error_set(error, STATUS_BAD_INPUT, "config.json: quantization_config names no quant_method");
    if (strcmp(method, "compressed-tensors") == 0)
        return promise_from_groups(config, promise, error);
    bool mx = strcmp(method, "mxfp8") == 0;
    if (!mx && strcmp(method, "fp8") != 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "config.json: the checkpoint is quantized with '%s'; sources that can be read are BF16, F16, "
                         "F32, 'fp8', 'mxfp8' and 'compressed-tensors' float-quantized",
                         method);

    const json_t *block = json_object_get(config, "weight_block_size");
    if (block && !json_is_null(block) && !block_size_read(block, promise))
        return error_set(error, STATUS_BAD_INPUT, "config.json: weight_block_size is not a pair of sizes");
    bool has_block = block && !json_is_null(block);
    mx = mx || (has_block && promise->block_rows == 1 && promise->block_columns == MX_BLOCK);
    promise->strategies[mx ? SCALING_MX : has_block ? SCALING_BLOCK : SCALING_TENSOR] = true;

    const char *activations = json_string_value(json_object_get(config, "activation_scheme"));
    promise->static_inputs = activations && strcmp(activations, "static") == 0;
    promise->dynamic_inputs = activations && strcmp(activations, "dynamic") == 0;
    if (mx)
        snprintf(promise->text, sizeof promise->text, "quant_method %s in blocks of 1x32", method);
    else if (has_block)
        snprintf(promise->text, sizeof promise->text, "weight_block_size [%u, %u]", promise->block_rows,
                 promise->block_columns);
    else
        snprintf(promise->text, sizeof promise->text, "quant_method fp8 without weight_block_size");
    return STATUS_OK;
}

static enum status config_read(const struct checkpoint *checkpoint, struct layout *layout, struct error *error) {
    struct json_span top = json_text_object(checkpoint->config, checkpoint->config_length);
    struct json_member member, text;
    bool found = json_text_member(checkpoint->config, top, "quantization_config", &member) &&
                 strncmp(checkpoint->config + member.value.begin, "null", 4) != 0;
    if (!found && json_text_member(checkpoint->config, top, "text_config", &text) &&
        checkpoint->config[text.value.begin] == '{')
        found = json_text_member(checkpoint->config, text.value, "quantization_config", &member);
    if (!found || strncmp(checkpoint->config + member.value.begin, "null", 4) == 0)
        return STATUS_OK;
    json_error_t at;
    layout->quantization_config =
        json_loadb(checkpoint->config + member.value.begin, member.value.end - member.value.begin,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
    if (!json_is_object(layout->quantization_config))
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': quantization_config cannot be read: %s",
                         checkpoint->path, layout->quantization_config ? "not an object" : at.text);
    return STATUS_OK;
}

static uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

/* Whether `scale` has the weight's leading dimensions followed by [rows, columns]. */
static bool scale_is(const struct tensor_info *weight, const struct tensor_info *scale, uint64_t rows,
                     uint64_t columns) {
    if (scale->rank != weight->rank || scale->shape[scale->rank - 2] != rows ||
        scale->shape[scale->rank - 1] != columns)
        return false;
    return weight->rank == 2 || scale->shape[0] == weight->shape[0];
}

static enum status scaling_detect(const struct tensor_info *weight, const struct tensor_info *scale,
                                  const struct promise *promise, struct tensor_layout *layout, struct error *error) {
    uint64_t rows = weight->shape[weight->rank - 2], columns = weight->shape[weight->rank - 1];
    bool exponents = scale->dtype == DTYPE_U8 || scale->dtype == DTYPE_F8_E8M0;
    bool floats = scale->dtype == DTYPE_F32 || scale->dtype == DTYPE_BF16 || scale->dtype == DTYPE_F16;
    uint64_t elements = 0;
    shape_elements(scale->shape, scale->rank, &elements);

    bool can[5] = {false};
    can[SCALING_TENSOR] = floats && elements == 1;
    can[SCALING_CHANNEL] =
        floats && (scale_is(weight, scale, rows, 1) || (scale->rank == 1 && weight->rank == 2 && elements == rows));
    can[SCALING_BLOCK] = (floats || exponents) && scale_is(weight, scale, ceil_div(rows, promise->block_rows),
                                                           ceil_div(columns, promise->block_columns));
    can[SCALING_MX] = exponents && columns % MX_BLOCK == 0 && scale_is(weight, scale, rows, columns / MX_BLOCK);
    for (int kind = SCALING_TENSOR; kind <= SCALING_MX; kind++)
        if (can[kind] && promise->strategies[kind]) {
            layout->scaling = (enum scaling)kind;
            layout->block_rows = promise->block_rows;
            layout->block_columns = promise->block_columns;
            return STATUS_OK;
        }
    char weight_shape[SHAPE_TEXT_MAX], scale_shape[SHAPE_TEXT_MAX];
    return error_set(error, STATUS_BAD_INPUT,
                     "config.json says %s, but '%s' of shape %s has the scale '%s' of shape %s and dtype %s: "
                     "one of them is wrong",
                     promise->text, weight->name, shape_text(weight->shape, weight->rank, weight_shape), scale->name,
                     shape_text(scale->shape, scale->rank, scale_shape), dtype_name(scale->dtype));
}

static const struct tensor *companion(const struct checkpoint *checkpoint, const struct tensor *weight,
                                      const char *suffix) {
    return checkpoint_find_joined(checkpoint, weight->info.name, module_length(weight->info.name), suffix);
}

/* The one of two names under which a companion exists; *found is NULL when there is none, both are an error. */
static enum status companion_either(const struct checkpoint *checkpoint, const struct tensor *weight, const char *first,
                                    const char *second, const struct tensor **found, struct error *error) {
    const struct tensor *a = companion(checkpoint, weight, first), *b = companion(checkpoint, weight, second);
    *found = a ? a : b;
    if (a && b)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has two scales, '%s' and '%s': which one counts?",
                         weight->info.name, a->info.name, b->info.name);
    return STATUS_OK;
}

static enum status fp8_weight_detect(const struct checkpoint *checkpoint, const struct promise *promise, uint32_t index,
                                     struct layout *layout, struct error *error) {
    const struct tensor *weight = &checkpoint->tensors[index], *scale, *input_scale;
    const char *name = weight->info.name;
    bool fused = !text_ends_with(name, weight_suffix);
    if (weight->info.rank < 2 || weight->info.rank > 3)
        return error_set(error, STATUS_BAD_INPUT, "FP8 tensor '%s' has %u dimensions; a weight has 2, experts 3", name,
                         weight->info.rank);
    if (!promise->quantized)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s/config.json' has no quantization_config, but tensor '%s' is F8_E4M3: one of them is "
                         "wrong",
                         checkpoint->path, name);
    enum status status = companion_either(checkpoint, weight, fused ? "_scale_inv" : ".weight_scale_inv",
                                          fused ? "_scale" : ".weight_scale", &scale, error);
    if (status == STATUS_OK)
        status = companion_either(checkpoint, weight, fused ? "_activation_scale" : ".activation_scale",
                                  fused ? "_input_scale" : ".input_scale", &input_scale, error);
    if (status != STATUS_OK)
        return status;
    if (!scale)
        return error_set(error, STATUS_BAD_INPUT,
                         "FP8 weight '%s' has no scale: neither '%.*s%s' nor '...%s' is in any shard", name,
                         (int)module_length(name), name, fused ? "_scale_inv" : ".weight_scale_inv",
                         fused ? "_scale" : ".weight_scale");
    struct tensor_layout *entry = &layout->tensors[index];
    status = scaling_detect(&weight->info, &scale->info, promise, entry, error);
    if (status != STATUS_OK)
        return status;
    entry->scale = (uint32_t)(scale - checkpoint->tensors);
    layout->tensors[entry->scale].owner = index;
    if (!input_scale && promise->static_inputs)
        return error_set(error, STATUS_BAD_INPUT,
                         "config.json says activation_scheme static, but FP8 weight '%s' has no activation_scale",
                         name);
    if (input_scale && promise->dynamic_inputs)
        return error_set(error, STATUS_BAD_INPUT, "config.json says activation_scheme dynamic, but there is '%s'",
                         input_scale->info.name);
    if (input_scale) {
        uint64_t elements = 0;
        enum dtype dtype = input_scale->info.dtype;
        shape_elements(input_scale->info.shape, input_scale->info.rank, &elements);
        if (elements != 1 || (dtype != DTYPE_F32 && dtype != DTYPE_BF16 && dtype != DTYPE_F16))
            return error_set(error, STATUS_BAD_INPUT, "'%s' is not one floating-point number", input_scale->info.name);
        entry->input_scale = (uint32_t)(input_scale - checkpoint->tensors);
        layout->tensors[entry->input_scale].owner = index;
    }
    return STATUS_OK;
}

/* A scale without its weight is data that would be dropped silently. */
static enum status orphan_check(const struct tensor *tensor, struct error *error) {
    static const char *const suffixes[] = {".weight_scale_inv", ".weight_scale", ".activation_scale",
                                           ".input_scale",      "_scale_inv",    "_activation_scale",
                                           "_input_scale"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (text_ends_with(tensor->info.name, suffixes[i]))
            return error_set(error, STATUS_BAD_INPUT, "'%s' belongs to no FP8 weight of the checkpoint",
                             tensor->info.name);
    return STATUS_OK;
}

/* Whether the set has an entry for `name`, or for a module above it. */
static const char *entry_above(const json_t *entries, const char *name, char *prefix) {
    for (size_t length = strlen(name); length > 0; length--) {
        if (name[length] != '.' && name[length] != '\0')
            continue;
        memcpy(prefix, name, length);
        prefix[length] = '\0';
        if (json_object_get(entries, prefix))
            return prefix;
    }
    return NULL;
}

/* modules_to_not_convert against the tensors: an entry names a module or everything under it. */
static enum status exclusion_check(const struct checkpoint *checkpoint, const struct layout *layout,
                                   struct error *error) {
    const json_t *list = json_object_get(layout->quantization_config, "modules_to_not_convert");
    if (!list)
        list = json_object_get(layout->quantization_config, "ignored_layers"); /* MiniMax's word for it */
    json_t *entries = json_object();
    enum status status = entries ? STATUS_OK : error_set_memory(error);
    size_t count = json_array_size(list);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const char *entry = json_string_value(json_array_get(list, i));
        if (entry && json_object_set_new(entries, entry, json_true()) != 0)
            status = error_set_memory(error);
    }
    for (size_t i = 0; count > 0 && i < checkpoint->tensor_count && status == STATUS_OK; i++) {
        const char *name = checkpoint->tensors[i].info.name, *entry;
        if (layout->tensors[i].scaling == SCALING_NONE)
            continue;
        char *prefix = malloc(strlen(name) + 1);
        if (!prefix)
            status = error_set_memory(error);
        else if ((entry = entry_above(entries, name, prefix)))
            status = error_set(error, STATUS_BAD_INPUT,
                               "config.json lists '%s' among the modules that are not converted, but '%s' is FP8",
                               entry, name);
        free(prefix);
    }
    json_decref(entries);
    return status;
}

enum status layout_detect(const struct checkpoint *checkpoint, struct layout *layout, struct error *error) {
    *layout = (struct layout){0};
    struct promise promise;
    enum status status = config_read(checkpoint, layout, error);
    if (status == STATUS_OK)
        status = promise_read(layout->quantization_config, &promise, error);
    if (status != STATUS_OK)
        return status;
    layout->tensors = malloc((checkpoint->tensor_count + 1) * sizeof *layout->tensors);
    if (!layout->tensors)
        return error_set_memory(error);
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        layout->tensors[i] = (struct tensor_layout){.scale = NO_TENSOR, .input_scale = NO_TENSOR, .owner = NO_TENSOR};

    size_t scaled = 0;
    for (uint32_t i = 0; i < checkpoint->tensor_count && status == STATUS_OK; i++) {
        const struct tensor_info *info = &checkpoint->tensors[i].info;
        if (info->dtype != DTYPE_F8_E4M3)
            continue;
        scaled++;
        status = fp8_weight_detect(checkpoint, &promise, i, layout, error);
    }
    for (uint32_t i = 0; i < checkpoint->tensor_count && status == STATUS_OK; i++)
        if (layout->tensors[i].owner == NO_TENSOR && layout->tensors[i].scaling == SCALING_NONE)
            status = orphan_check(&checkpoint->tensors[i], error);
    if (status == STATUS_OK && promise.quantized && scaled == 0)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s/config.json' says that the weights are quantized (%s), but no tensor is F8_E4M3",
                           checkpoint->path, promise.text);
    if (status == STATUS_OK)
        status = exclusion_check(checkpoint, layout, error);
    return status;
}

void layout_free(struct layout *layout) {
    json_decref(layout->quantization_config);
    free(layout->tensors);
    *layout = (struct layout){0};
}
