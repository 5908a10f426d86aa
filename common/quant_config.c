#include "common/quant_config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_strict.h"
#include "common/text.h"
#include "common/utf8.h"

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
        size_t length;
        utf8_decode(string + at, UTF8_LENGTH_MAX, &length, NULL);
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
    static const char *const keys[] = {"targets", "weights", "input_activations", "output_activations", "format", NULL};
    char text[QUANT_VALUE_MAX];
    group->name = strdup(name);
    if (!group->name)
        return error_set_memory(error);
    if (!json_is_object(json)) {
        group->unreadable = true;
        group->preset = json_is_array(json);
        QUANT_REFUSE(group, "it is %s, not an object", quant_value_text(json, text));
        return group->refusal ? STATUS_OK : error_set_memory(error);
    }
    const char *key = json_unknown_key(json, keys);
    json_t *value;
    if (key)
        QUANT_REFUSE(group, "it has the unknown key '%.64s'", key);
    const json_t *targets = json_object_get(json, "targets");
    group->unreadable = !all_strings(targets) && !json_is_string(targets);
    if (!all_strings(targets))
        QUANT_REFUSE(group, targets ? "its targets are not a list of strings" : "it has no targets");
    if (!(json_is_string(targets) ? characters_read(json_string_value(targets), &group->targets, &group->target_count)
                                  : strings_read(targets, &group->targets, &group->target_count)))
        return error_set_memory(error);
    quant_args_read(json_object_get(json, "weights"), &group->weights);
    quant_args_read(json_object_get(json, "input_activations"), &group->inputs);
    quant_args_read(json_object_get(json, "output_activations"), &group->outputs);
    if (has_order(json_object_get(json, "input_activations")) || has_order(json_object_get(json, "output_activations")))
        QUANT_REFUSE(group, "its activations have an actorder, which is for weights");
    value = json_object_get(json, "format");
    if (json_is_string(value) && !(group->format = strdup(json_string_value(value))))
        return error_set_memory(error);
    if (value && !json_is_null(value) && (!group->format || !group_format_known(group->format))) {
        group->format_refused = !group->refusal;
        QUANT_REFUSE(group, "its format %s is none that a group can have", quant_value_text(value, text));
    }
    if (group->inputs.present && !group->inputs.refusal &&
        (group->inputs.strategy == STRATEGY_CHANNEL || group->inputs.strategy == STRATEGY_BLOCK))
        QUANT_REFUSE(group, "its input_activations have the strategy %s, which activations cannot have",
                     strategy_name(group->inputs.strategy));
    return STATUS_OK;
}

static enum status string_member(const json_t *json, const char *key, char **out, struct error *error) {
    const json_t *value = json_object_get(json, key);
    if (json_is_string(value) && !(*out = strdup(json_string_value(value))))
        return error_set_memory(error);
    return STATUS_OK;
}

static void top_level_check(const json_t *json, struct quant_config *config) {
    char text[QUANT_VALUE_MAX];
    const json_t *value = json_object_get(json, "format");
    if (value && !json_is_string(value))
        QUANT_REFUSE(config, "format %s is not a name", quant_value_text(value, text));
    value = json_object_get(json, "ignore");
    if (value && !json_is_null(value) && !all_strings(value))
        QUANT_REFUSE(config, "ignore is not a list of strings");
    value = json_object_get(json, "moe_sparsity_config");
    if (value && !json_is_null(value) && !json_is_string(json_object_get(value, "method")))
        QUANT_REFUSE(config, "moe_sparsity_config has no method");
    value = json_object_get(json, "global_compression_ratio");
    char *end = NULL;
    bool numeric = json_is_number(value) || (json_is_string(value) && json_string_length(value) > 0 &&
                                             (strtod(json_string_value(value), &end), !*end));
    if (value && !json_is_null(value) && !numeric)
        QUANT_REFUSE(config, "global_compression_ratio %s is not a number", quant_value_text(value, text));
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
        QUANT_REFUSE(config, "config_groups is not an object");
    if (!strings_read(ignore, &config->ignore, &config->ignore_count))
        return error_set_memory(error);
    quant_args_read(json_object_get(json, "kv_cache_scheme"), &config->kv_cache);
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

void quant_config_free(struct quant_config *config) {
    for (size_t g = 0; g < config->group_count; g++) {
        struct quant_group *group = &config->groups[g];
        for (size_t i = 0; i < group->target_count; i++)
            free(group->targets[i]);
        quant_args_free(&group->weights);
        quant_args_free(&group->inputs);
        quant_args_free(&group->outputs);
        free(group->targets);
        free(group->name);
        free(group->format);
        free(group->refusal);
    }
    for (size_t i = 0; i < config->ignore_count; i++)
        free(config->ignore[i]);
    quant_args_free(&config->kv_cache);
    free(config->ignore);
    free(config->groups);
    free(config->method);
    free(config->format);
    free(config->status);
    free(config->refusal);
    *config = (struct quant_config){0};
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
