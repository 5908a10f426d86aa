#include "common/quant_config.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static const char *const strategy_names[STRATEGIES] = {
    [STRATEGY_TENSOR] = "tensor",       [STRATEGY_CHANNEL] = "channel", [STRATEGY_GROUP] = "group",
    [STRATEGY_BLOCK] = "block",         [STRATEGY_TOKEN] = "token",     [STRATEGY_TENSOR_GROUP] = "tensor_group",
    [STRATEGY_ATTN_HEAD] = "attn_head",
};
const char *strategy_name(enum strategy strategy) { return strategy_names[strategy]; }

/* Keeps the first reason. */
#define REFUSE(holder, ...) ((holder)->refusal = (holder)->refusal ? (holder)->refusal : text_format(__VA_ARGS__))

/* "a value of type list" for messages; short values as they are. */
static const char *value_text(const json_t *value, char out[48]) {
    static const char *const types[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    if (json_is_string(value))
        snprintf(out, 48, "\"%.40s\"", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(out, 48, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, 48, "%g", json_real_value(value));
    else
        snprintf(out, 48, "%s", types[json_typeof(value)]);
    return out;
}

/* ---- coercions of pydantic's lax mode ---- */

static bool coerce_int(const json_t *value, bool strings, int64_t *out) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    double real = json_number_value(value);
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        char *end;
        while (isspace((unsigned char)*text))
            text++;
        if (!strings || !*text || strpbrk(text, "xXnNpP"))
            return false;
        real = strtod(text, &end);
        while (isspace((unsigned char)*end))
            end++;
        const char *point = strchr(text, '.');
        if (*end || strpbrk(text, "eE") || (point && strspn(point + 1, "0 ") != strlen(point + 1)))
            return false;
    } else if (!json_is_real(value)) {
        return false;
    }
    if (!(fabs(real) < 9e15) || real != floor(real))
        return false;
    *out = (int64_t)real;
    return true;
}

static bool coerce_bool(const json_t *value, bool *out) {
    static const char *const words[2][6] = {{"false", "no", "off", "f", "n", "0"},
                                            {"true", "yes", "on", "t", "y", "1"}};
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    if (json_is_number(value)) {
        *out = json_number_value(value) == 1.0;
        return *out || json_number_value(value) == 0.0;
    }
    for (int truth = 0; truth < 2 && json_is_string(value); truth++)
        for (int i = 0; i < 6; i++)
            if (strcasecmp(json_string_value(value), words[truth][i]) == 0) {
                *out = truth;
                return true;
            }
    return false;
}

/* ---- QuantizationArgs ---- */

static bool is_torch_dtype(const char *name) {
    static const char *const names[] = {"uint8",
                                        "int8",
                                        "int16",
                                        "int32",
                                        "int64",
                                        "uint16",
                                        "uint32",
                                        "uint64",
                                        "bool",
                                        "float16",
                                        "half",
                                        "bfloat16",
                                        "float32",
                                        "float",
                                        "float64",
                                        "double",
                                        "float8_e4m3fn",
                                        "float8_e5m2",
                                        "float8_e8m0fnu",
                                        "float8_e4m3fnuz",
                                        "float8_e5m2fnuz",
                                        "float4_e2m1fn_x2",
                                        "short",
                                        "int",
                                        "long",
                                        "complex64",
                                        "complex128"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void strategy_read(const json_t *value, struct quant_args *args, bool *given) {
    char text[48];
    if (!value || json_is_null(value))
        return;
    for (int i = 0; i < STRATEGIES && json_is_string(value); i++)
        if (strcasecmp(json_string_value(value), strategy_names[i]) == 0) {
            args->strategy = (enum strategy)i;
            *given = true;
            return;
        }
    REFUSE(args, "strategy %s is none of compressed-tensors'", value_text(value, text));
}

static bool is_python_int(const json_t *value) { return json_is_integer(value) || json_is_boolean(value); }

/* What 0.17 takes for block_structure: two integers of any size, or integers with an x between them. */
static bool is_lenient_block(const json_t *value, bool *pair) {
    const char *text = json_string_value(value);
    *pair = true;
    if (!text)
        return json_array_size(value) == 2 && is_python_int(json_array_get(value, 0)) &&
               is_python_int(json_array_get(value, 1));
    for (int count = 1;; count++) {
        char *end;
        strtol(text, &end, 10);
        if (end == text)
            return false;
        text = end + strspn(end, " \t\r\n");
        *pair = count == 2;
        if (!*text)
            return true;
        if (*text++ != 'x')
            return false;
    }
}

static void block_structure_read(const json_t *value, struct quant_args *args) {
    char text[48];
    if (!value || json_is_null(value))
        return;
    if (json_is_string(value)) {
        char *end;
        args->block_rows = strtol(json_string_value(value), &end, 10);
        if (*end == 'x')
            args->block_columns = strtol(end + 1, &end, 10);
        if (*end)
            args->block_columns = 0;
    } else if (json_array_size(value) == 2 && json_is_integer(json_array_get(value, 0)) &&
               json_is_integer(json_array_get(value, 1))) {
        args->block_rows = json_integer_value(json_array_get(value, 0));
        args->block_columns = json_integer_value(json_array_get(value, 1));
    }
    if (args->block_rows <= 0 || args->block_columns <= 0) {
        args->lenient = !args->refusal && is_lenient_block(value, &args->block_pair);
        REFUSE(args, "block_structure %s is not [rows, columns]", value_text(value, text));
    }
}

static void dynamic_read(const json_t *value, struct quant_args *args) {
    char text[48];
    if (!value)
        return;
    if (json_is_string(value)) {
        args->local = args->dynamic = strcasecmp(json_string_value(value), "local") == 0;
        if (!args->local)
            REFUSE(args, "dynamic %s is not true, false or \"local\"", value_text(value, text));
    } else if (!coerce_bool(value, &args->dynamic)) {
        REFUSE(args, "dynamic %s is not true, false or \"local\"", value_text(value, text));
    }
}

static void dtype_read(const char *key, const json_t *value, struct quant_args *args, char *out, size_t size) {
    char text[48];
    if (!value || json_is_null(value))
        return;
    const char *name = json_is_string(value) ? json_string_value(value) : "";
    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    if (!is_torch_dtype(name))
        REFUSE(args, "%s %s is not the name of a torch dtype", key, value_text(value, text));
    else if (out)
        snprintf(out, size, "%s", name);
}

static void actorder_read(const json_t *value, struct quant_args *args) {
    char text[48];
    if (!value || json_is_null(value) || json_is_false(value))
        return;
    const char *word = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(word, "weight") != 0 && strcmp(word, "static") != 0) {
        bool first = !args->refusal;
        args->lenient = first && (strcasecmp(word, "weight") == 0 || strcasecmp(word, "static") == 0);
        args->ordered =
            first && (strcasecmp(word, "group") == 0 || strcasecmp(word, "dynamic") == 0 || json_is_true(value));
        REFUSE(args, "actorder %s is not supported any more", value_text(value, text));
    }
}

/* The rules between the members (validate_model_after). */
static void args_relations(struct quant_args *args, bool strategy_given, bool group_size_given, bool block_given,
                           bool zero_point_given) {
    if (!strategy_given) {
        args->strategy = !group_size_given ? STRATEGY_TENSOR : args->group_size > 0 ? STRATEGY_GROUP : STRATEGY_CHANNEL;
        if (group_size_given && args->group_size == 0)
            REFUSE(args, "group_size 0 is not a size");
    }
    char *first = args->refusal; /* what follows ends leniency, too */
    args->refusal = NULL;
    bool grouped = args->strategy == STRATEGY_GROUP || args->strategy == STRATEGY_TENSOR_GROUP;
    if (args->strategy == STRATEGY_TOKEN && !args->dynamic)
        REFUSE(args, "strategy token needs dynamic true");
    if (grouped && args->group_size <= 0)
        REFUSE(args, "strategy %s needs a positive group_size", strategy_names[args->strategy]);
    if (args->group_size > 0 && !grouped)
        REFUSE(args, "group_size goes with strategy group, not %s", strategy_names[args->strategy]);
    if ((args->strategy == STRATEGY_BLOCK) != block_given)
        REFUSE(args, block_given ? "block_structure goes with strategy block" : "strategy block needs block_structure");
    if (args->dynamic && (args->strategy == STRATEGY_CHANNEL || args->strategy == STRATEGY_BLOCK ||
                          args->strategy == STRATEGY_ATTN_HEAD))
        REFUSE(args, "strategy %s cannot be dynamic", strategy_names[args->strategy]);
    if (args->local && args->strategy != STRATEGY_TENSOR_GROUP)
        REFUSE(args, "dynamic local goes with strategy tensor_group");
    bool known_float = args->num_bits == 4 || args->num_bits == 6 || args->num_bits == 8;
    if (args->type == NUMBER_FLOAT && !known_float && !zero_point_given)
        REFUSE(args, "there is no float of %lld bits", (long long)args->num_bits);
    args->lenient = args->lenient && !args->refusal;
    args->ordered = args->ordered && grouped && !args->refusal;
    if (first) {
        free(args->refusal);
        args->refusal = first;
    }
    args->strict = args->type == NUMBER_FLOAT && args->num_bits == 6 && !zero_point_given;
    if (args->group_size < 0)
        args->group_size = 0;
}

static void args_read(const json_t *json, struct quant_args *args) {
    static const char *const keys[] = {"num_bits",        "type",           "symmetric", "group_size",  "strategy",
                                       "block_structure", "dynamic",        "actorder",  "scale_dtype", "zp_dtype",
                                       "observer",        "observer_kwargs"};
    char text[48];
    *args = (struct quant_args){.num_bits = 8, .type = NUMBER_INT, .symmetric = true, .block_pair = true};
    if (!json || json_is_null(json))
        return;
    args->present = true;
    args->empty = json_is_object(json) && json_object_size(json) == 0;
    if (!json_is_object(json)) {
        REFUSE(args, "it is %s, not an object", value_text(json, text));
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            known = known || strcmp(key, keys[i]) == 0;
        if (!known)
            REFUSE(args, "it has the unknown key '%.64s'", key);
    }
    bool strategy_given = false;
    if ((value = json_object_get(json, "num_bits")) && !coerce_int(value, true, &args->num_bits))
        REFUSE(args, "num_bits %s is not a number of bits", value_text(value, text));
    if ((value = json_object_get(json, "type"))) {
        const char *word = json_is_string(value) ? json_string_value(value) : "";
        args->type = strcasecmp(word, "float") == 0 ? NUMBER_FLOAT : NUMBER_INT;
        if (args->type == NUMBER_INT && strcasecmp(word, "int") != 0)
            REFUSE(args, "type %s is neither int nor float", value_text(value, text));
    }
    if ((value = json_object_get(json, "symmetric")) && !coerce_bool(value, &args->symmetric))
        REFUSE(args, "symmetric %s is not true or false", value_text(value, text));
    value = json_object_get(json, "group_size");
    bool group_size_given = value && !json_is_null(value);
    if (group_size_given && (!coerce_int(value, false, &args->group_size) || args->group_size < -1)) {
        REFUSE(args, "group_size %s is not a size", value_text(value, text));
        args->group_size = 0;
    }
    strategy_read(json_object_get(json, "strategy"), args, &strategy_given);
    value = json_object_get(json, "block_structure");
    block_structure_read(value, args);
    dynamic_read(json_object_get(json, "dynamic"), args);
    actorder_read(json_object_get(json, "actorder"), args);
    dtype_read("scale_dtype", json_object_get(json, "scale_dtype"), args, args->scale_dtype, sizeof args->scale_dtype);
    dtype_read("zp_dtype", json_object_get(json, "zp_dtype"), args, NULL, 0);
    const json_t *zero_point = json_object_get(json, "zp_dtype");
    if ((value = json_object_get(json, "observer")) && !json_is_null(value) && !json_is_string(value))
        REFUSE(args, "observer %s is not a name", value_text(value, text));
    if ((value = json_object_get(json, "observer_kwargs")) && !json_is_object(value))
        REFUSE(args, "observer_kwargs is %s, not an object", value_text(value, text));
    value = json_object_get(json, "block_structure");
    args_relations(args, strategy_given, group_size_given, value && !json_is_null(value),
                   zero_point && !json_is_null(zero_point));
}

/* ---- groups ---- */

static bool strings_read(const json_t *list, char ***out, size_t *count) {
    *out = calloc(json_array_size(list) + 1, sizeof **out);
    bool good = *out != NULL;
    for (size_t i = 0; good && i < json_array_size(list); i++) {
        const char *string = json_string_value(json_array_get(list, i));
        if (!string)
            continue; /* the caller has refused it */
        good = ((*out)[*count] = strdup(string)) != NULL;
        *count += good;
    }
    return good;
}

/* A string where a list should be: Python goes through its characters. */
static bool characters_read(const char *string, char ***out, size_t *count) {
    *out = calloc(strlen(string) + 1, sizeof **out);
    bool good = *out != NULL;
    for (size_t at = 0; good && string[at];) {
        size_t length = text_utf8_length(string + at);
        length = length ? length : 1;
        good = ((*out)[*count] = strndup(string + at, length)) != NULL;
        *count += good;
        at += length;
    }
    return good;
}

static bool all_strings(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            return false;
    return json_is_array(list);
}

static bool group_format_known(const char *format) {
    static const char *const names[] = {"dense",
                                        "sparse-bitmask",
                                        "sparse-24-bitmask",
                                        "int-quantized",
                                        "float-quantized",
                                        "naive-quantized",
                                        "pack-quantized",
                                        "marlin-24",
                                        "nvfp4-pack-quantized",
                                        "mxfp4-pack-quantized",
                                        "mxfp6-pack-quantized",
                                        "mxfp8-quantized"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(format, names[i]) == 0)
            return true;
    return false;
}

/* actorder is for weights. */
static bool has_order(const json_t *args) {
    const json_t *order = json_object_get(args, "actorder");
    return order && !json_is_null(order) && !json_is_false(order);
}

static enum status group_read(const char *name, const json_t *json, struct quant_group *group, struct error *error) {
    static const char *const keys[] = {"targets", "weights", "input_activations", "output_activations", "format"};
    char text[48];
    group->name = strdup(name);
    if (!group->name)
        return error_set_memory(error);
    if (!json_is_object(json)) {
        group->unreadable = true;
        group->preset = json_is_array(json);
        REFUSE(group, "it is %s, not an object", value_text(json, text));
        return group->refusal ? STATUS_OK : error_set_memory(error);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            known = known || strcmp(key, keys[i]) == 0;
        if (!known)
            REFUSE(group, "it has the unknown key '%.64s'", key);
    }
    const json_t *targets = json_object_get(json, "targets");
    group->unreadable = !all_strings(targets) && !json_is_string(targets);
    if (!all_strings(targets))
        REFUSE(group, targets ? "its targets are not a list of strings" : "it has no targets");
    if (!(json_is_string(targets) ? characters_read(json_string_value(targets), &group->targets, &group->target_count)
                                  : strings_read(targets, &group->targets, &group->target_count)))
        return error_set_memory(error);
    args_read(json_object_get(json, "weights"), &group->weights);
    args_read(json_object_get(json, "input_activations"), &group->inputs);
    args_read(json_object_get(json, "output_activations"), &group->outputs);
    if (has_order(json_object_get(json, "input_activations")) || has_order(json_object_get(json, "output_activations")))
        REFUSE(group, "its activations have an actorder, which is for weights");
    value = json_object_get(json, "format");
    if (json_is_string(value) && !(group->format = strdup(json_string_value(value))))
        return error_set_memory(error);
    if (value && !json_is_null(value) && (!group->format || !group_format_known(group->format))) {
        group->format_refused = !group->refusal;
        REFUSE(group, "its format %s is none that a group can have", value_text(value, text));
    }
    if (group->inputs.present && !group->inputs.refusal &&
        (group->inputs.strategy == STRATEGY_CHANNEL || group->inputs.strategy == STRATEGY_BLOCK))
        REFUSE(group, "its input_activations have the strategy %s, which activations cannot have",
               strategy_names[group->inputs.strategy]);
    return STATUS_OK;
}

static enum status string_member(const json_t *json, const char *key, char **out, struct error *error) {
    const json_t *value = json_object_get(json, key);
    if (json_is_string(value) && !(*out = strdup(json_string_value(value))))
        return error_set_memory(error);
    return STATUS_OK;
}

static void top_level_check(const json_t *json, struct quant_config *config) {
    char text[48];
    const json_t *value = json_object_get(json, "format");
    if (value && !json_is_string(value))
        REFUSE(config, "format %s is not a name", value_text(value, text));
    value = json_object_get(json, "ignore");
    if (value && !json_is_null(value) && !all_strings(value))
        REFUSE(config, "ignore is not a list of strings");
    value = json_object_get(json, "moe_sparsity_config");
    if (value && !json_is_null(value) && !json_is_string(json_object_get(value, "method")))
        REFUSE(config, "moe_sparsity_config has no method");
    value = json_object_get(json, "global_compression_ratio");
    char *end = NULL;
    bool numeric = json_is_number(value) || (json_is_string(value) && json_string_length(value) > 0 &&
                                             (strtod(json_string_value(value), &end), !*end));
    if (value && !json_is_null(value) && !numeric)
        REFUSE(config, "global_compression_ratio %s is not a number", value_text(value, text));
}

enum status quant_config_read(const json_t *json, struct quant_config *config, struct error *error) {
    *config = (struct quant_config){0};
    enum status status = string_member(json, "quant_method", &config->method, error);
    if (status == STATUS_OK)
        status = string_member(json, "format", &config->format, error);
    if (status == STATUS_OK)
        status = string_member(json, "quantization_status", &config->status, error);
    if (status != STATUS_OK)
        return status;
    top_level_check(json, config);
    const json_t *groups = json_object_get(json, "config_groups"), *ignore = json_object_get(json, "ignore");
    if (groups && !json_is_object(groups) && !json_is_null(groups))
        REFUSE(config, "config_groups is not an object");
    if (!strings_read(ignore, &config->ignore, &config->ignore_count))
        return error_set_memory(error);
    args_read(json_object_get(json, "kv_cache_scheme"), &config->kv_cache);
    config->groups = calloc(json_object_size(groups) + 1, sizeof *config->groups);
    if (!config->groups)
        return error_set_memory(error);
    const char *name;
    json_t *group;
    json_object_foreach((json_t *)groups, name, group) {
        status = group_read(name, group, &config->groups[config->group_count++], error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static void args_free(struct quant_args *args) { free(args->refusal); }

void quant_config_free(struct quant_config *config) {
    for (size_t g = 0; g < config->group_count; g++) {
        struct quant_group *group = &config->groups[g];
        for (size_t i = 0; i < group->target_count; i++)
            free(group->targets[i]);
        args_free(&group->weights);
        args_free(&group->inputs);
        args_free(&group->outputs);
        free(group->targets);
        free(group->name);
        free(group->format);
        free(group->refusal);
    }
    for (size_t i = 0; i < config->ignore_count; i++)
        free(config->ignore[i]);
    args_free(&config->kv_cache);
    free(config->ignore);
    free(config->groups);
    free(config->method);
    free(config->format);
    free(config->status);
    free(config->refusal);
    *config = (struct quant_config){0};
}

const char *quant_config_refusal(const struct quant_config *config, size_t *group) {
    const char *found = config->refusal;
    size_t at = config->group_count;
    for (size_t g = 0; g < config->group_count && !found; g++) {
        const struct quant_group *item = &config->groups[g];
        found = item->refusal           ? item->refusal
                : item->weights.refusal ? item->weights.refusal
                : item->inputs.refusal  ? item->inputs.refusal
                                        : item->outputs.refusal;
        if (found)
            at = g;
    }
    if (group)
        *group = at;
    return found ? found : config->kv_cache.refusal;
}

bool quant_args_equal(const struct quant_args *a, const struct quant_args *b) {
    if (!a->present || !b->present)
        return a->present == b->present;
    return a->num_bits == b->num_bits && a->type == b->type && a->strategy == b->strategy &&
           a->symmetric == b->symmetric && a->dynamic == b->dynamic && a->local == b->local &&
           a->group_size == b->group_size && a->block_rows == b->block_rows && a->block_columns == b->block_columns &&
           strcmp(a->scale_dtype, b->scale_dtype) == 0;
}

bool quant_groups_equal(const struct quant_config *config, size_t a, size_t b) {
    const struct quant_group *x = &config->groups[a], *y = &config->groups[b];
    return quant_args_equal(&x->weights, &y->weights) && quant_args_equal(&x->inputs, &y->inputs) &&
           quant_args_equal(&x->outputs, &y->outputs) && strcmp(quant_group_format(x), quant_group_format(y)) == 0;
}

const char *quant_group_format(const struct quant_group *group) {
    if (group->format)
        return group->format;
    const struct quant_args *weights = &group->weights;
    if (!weights->present)
        return "dense";
    if (weights->type == NUMBER_FLOAT && weights->group_size == 32 && weights->num_bits == 4)
        return "mxfp4-pack-quantized";
    if (weights->type == NUMBER_FLOAT && weights->group_size == 32 && weights->num_bits == 6)
        return "mxfp6-pack-quantized";
    if (weights->type == NUMBER_FLOAT && weights->group_size == 32 && weights->num_bits == 8 &&
        strcmp(weights->scale_dtype, "uint8") == 0)
        return "mxfp8-quantized";
    if (weights->type == NUMBER_FLOAT && weights->num_bits == 4 && weights->group_size == 16)
        return "nvfp4-pack-quantized";
    if (weights->type == NUMBER_INT && group->inputs.present)
        return "int-quantized";
    if (weights->type == NUMBER_INT && weights->num_bits >= 1 && weights->num_bits <= 8)
        return "pack-quantized";
    return weights->type == NUMBER_FLOAT && group->inputs.present ? "float-quantized" : "naive-quantized";
}
