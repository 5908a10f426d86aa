#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"
#include "common/pattern.h"
#include "common/quant_config.h"
#include "infer/model_config.h"

struct target {
    size_t group;
    const char *name;        /* a module's, or a class's; NULL: a pattern */
    struct pattern *pattern; /* re: */
};

/* Of DeepSeek's and Qwen's weights; transformers' default. */
static const struct scale_block usual_block = {128, 128};

struct activation_schemes {
    const char *path;           /* of the checkpoint, for messages */
    struct quant_config config; /* of compressed-tensors */
    struct target *targets;     /* in the order of the groups */
    size_t target_count;
    bool compressed;
    bool dynamic;             /* of quant_method fp8 */
    struct scale_block block; /* likewise */
};

void activation_schemes_free(struct activation_schemes *schemes) {
    if (!schemes)
        return;
    for (size_t i = 0; i < schemes->target_count; i++)
        pattern_free(schemes->targets[i].pattern);
    free(schemes->targets);
    quant_config_free(&schemes->config);
    free(schemes);
}

static enum status targets_compile(struct activation_schemes *schemes, struct error *error) {
    const struct quant_config *config = &schemes->config;
    size_t count = 0;
    for (size_t i = 0; i < config->group_count; i++)
        count += config->groups[i].target_count;
    schemes->targets = calloc(count ? count : 1, sizeof *schemes->targets);
    if (!schemes->targets)
        return error_set_memory(error);
    for (size_t i = 0; i < config->group_count; i++)
        for (size_t j = 0; j < config->groups[i].target_count; j++) {
            const char *text = config->groups[i].targets[j];
            struct target *target = &schemes->targets[schemes->target_count++];
            target->group = i;
            if (strncmp(text, "re:", 3) != 0) {
                target->name = text;
                continue;
            }
            enum status status = pattern_new(text, &target->pattern, error);
            if (status != STATUS_OK)
                return status;
        }
    return STATUS_OK;
}

/* quantization_config as a tree, NULL when there is none. */
static enum status config_load(const struct checkpoint *checkpoint, json_t **config, struct error *error) {
    struct json_span top = json_text_object(checkpoint->config, checkpoint->config_length);
    struct json_member member, text;
    *config = NULL;
    bool found = json_text_member(checkpoint->config, top, "quantization_config", &member) &&
                 checkpoint->config[member.value.begin] != 'n';
    if (!found && json_text_member(checkpoint->config, top, "text_config", &text) &&
        checkpoint->config[text.value.begin] == '{')
        found = json_text_member(checkpoint->config, text.value, "quantization_config", &member) &&
                checkpoint->config[member.value.begin] != 'n';
    if (!found)
        return STATUS_OK;
    json_error_t at;
    *config = json_loadb(checkpoint->config + member.value.begin, member.value.end - member.value.begin,
                         JSON_DECODE_INT_AS_REAL, &at);
    if (!*config)
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': quantization_config cannot be read: %s",
                         checkpoint->path, at.text);
    return STATUS_OK;
}

/* Whether rows and columns are sizes that a block can have. */
static bool block_set(double rows, double columns, struct scale_block *block) {
    static const double most = 1 << 24; /* larger than any weight's side */
    if (!(rows >= 1 && rows <= most && columns >= 1 && columns <= most) || floor(rows) != rows ||
        floor(columns) != columns)
        return false;
    *block = (struct scale_block){.rows = (uint32_t)rows, .columns = (uint32_t)columns};
    return true;
}

static enum status block_size_read(const struct checkpoint *checkpoint, const json_t *config, struct scale_block *block,
                                   struct error *error) {
    const json_t *size = json_object_get(config, "weight_block_size");
    if (!size || json_is_null(size) ||
        (json_array_size(size) == 2 &&
         block_set(json_number_value(json_array_get(size, 0)), json_number_value(json_array_get(size, 1)), block)))
        return STATUS_OK;
    return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': weight_block_size is not a pair of sizes",
                     checkpoint->path);
}

enum status activation_schemes_read(const struct checkpoint *checkpoint, struct activation_schemes **schemes,
                                    struct error *error) {
    json_t *config = NULL;
    enum status status = config_load(checkpoint, &config, error);
    *schemes = calloc(1, sizeof **schemes);
    if (status == STATUS_OK && !*schemes)
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        (*schemes)->path = checkpoint->path;
        (*schemes)->block = usual_block;
    }
    if (status == STATUS_OK && config) {
        const char *method = json_string_value(json_object_get(config, "quant_method"));
        (*schemes)->compressed = method && strcmp(method, "compressed-tensors") == 0;
        if ((*schemes)->compressed) {
            status = quant_config_read(config, &(*schemes)->config, error);
            if (status == STATUS_OK)
                status = targets_compile(*schemes, error);
        } else {
            const char *scheme = json_string_value(json_object_get(config, "activation_scheme"));
            (*schemes)->dynamic = scheme && strcmp(scheme, "dynamic") == 0;
            status = block_size_read(checkpoint, config, &(*schemes)->block, error);
        }
    }
    json_decref(config);
    return status;
}

/* Exact names before patterns before classes, each in the order of the groups; group_count: none. */
static enum status group_of(const struct activation_schemes *schemes, const char *module, size_t *group,
                            struct error *error) {
    const size_t none = schemes->config.group_count;
    size_t exact = none, by_pattern = none, by_class = none;
    for (size_t i = 0; i < schemes->target_count; i++) {
        const struct target *target = &schemes->targets[i];
        bool matches = false;
        if (target->pattern) {
            enum status status = pattern_match(target->pattern, module, &matches, error);
            if (status != STATUS_OK)
                return status;
            by_pattern = matches && by_pattern == none ? target->group : by_pattern;
        } else if (strcmp(target->name, module) == 0) {
            exact = exact == none ? target->group : exact;
        } else if (strcmp(target->name, "Linear") == 0) {
            by_class = by_class == none ? target->group : by_class;
        }
    }
    *group = exact != none ? exact : by_pattern != none ? by_pattern : by_class;
    return STATUS_OK;
}

enum status scale_block_of(struct activation_schemes *schemes, const char *module, struct scale_block *block,
                           struct error *error) {
    size_t group = schemes->config.group_count;
    *block = schemes->block;
    enum status status = schemes->compressed ? group_of(schemes, module, &group, error) : STATUS_OK;
    if (status != STATUS_OK || group == schemes->config.group_count)
        return status;
    const struct quant_args *weights = &schemes->config.groups[group].weights;
    bool fine = true;
    if (weights->present && weights->strategy == STRATEGY_BLOCK)
        fine = block_set((double)weights->block_rows, (double)weights->block_columns, block);
    else if (weights->present && weights->strategy == STRATEGY_GROUP)
        fine = block_set(1, (double)weights->group_size, block);
    if (!fine)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s/config.json': group '%s' names no size of the blocks that share a scale of '%s.weight'",
                         schemes->path, schemes->config.groups[group].name, module);
    return STATUS_OK;
}

enum status activation_scheme_of(struct activation_schemes *schemes, const char *module, struct weight_place *place,
                                 struct error *error) {
    struct weight *weight = &place->weight;
    weight->activations = ACTIVATIONS_FLOAT;
    if (weight->format != WEIGHT_FP8)
        return STATUS_OK;
    const bool blocks = weight->scale_columns < weight->columns;
    if (!schemes->compressed) {
        if (place->input_scale) {
            weight->activations = ACTIVATIONS_FP8_STATIC;
        } else if (schemes->dynamic) {
            weight->activations = blocks ? ACTIVATIONS_FP8_GROUP : ACTIVATIONS_FP8_TOKEN;
            weight->group = weight->scale_columns;
        }
        return STATUS_OK;
    }
    size_t group;
    enum status status = group_of(schemes, module, &group, error);
    if (status != STATUS_OK || group == schemes->config.group_count)
        return status;
    const struct quant_args *inputs = &schemes->config.groups[group].inputs;
    if (!inputs->present || inputs->empty)
        return STATUS_OK;
    if (inputs->num_bits != 8 || inputs->type != NUMBER_FLOAT)
        return error_set(error, STATUS_BAD_INPUT,
                         "config.json: group '%s' rounds the activations before '%s' to a format that is not 8-bit "
                         "float; --activations float measures without",
                         schemes->config.groups[group].name, module);
    if (!inputs->dynamic) {
        if (!place->input_scale)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s' has static activations by config.json, but no input_scale; --activations float "
                             "measures without",
                             module);
        weight->activations = ACTIVATIONS_FP8_STATIC;
    } else if (inputs->strategy == STRATEGY_GROUP && inputs->group_size > 0) {
        if (weight->columns % inputs->group_size != 0)
            return error_set(error, STATUS_BAD_INPUT,
                             "config.json: group_size %lld does not divide the %u columns of "
                             "'%s'",
                             (long long)inputs->group_size, weight->columns, module);
        weight->activations = ACTIVATIONS_FP8_GROUP;
        weight->group = (uint32_t)inputs->group_size;
    } else {
        weight->activations = ACTIVATIONS_FP8_TOKEN;
    }
    return STATUS_OK;
}
