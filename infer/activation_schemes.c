#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

enum { MX_GROUP = 32 };

struct activation_schemes {
    const char *path;           /* of the checkpoint, for messages */
    struct quant_config config; /* of compressed-tensors */
    struct target *targets;     /* in the order of the groups */
    size_t target_count;
    bool compressed;
    bool dynamic, is_static;  /* of quant_method fp8 */
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
            struct error reason;
            enum status status = pattern_new(text, &target->pattern, &reason);
            if (status != STATUS_OK)
                return error_set(error, status, "'%s/config.json': %s", schemes->path, reason.message);
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
    *config = json_loadb(checkpoint->config + member.value.begin, member.value.end - member.value.begin, 0,
                         &at); /* whole numbers stay such: block_structure wants them */
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

/* activation_scheme; quant_method fp8 is dynamic without one, as in transformers. */
static enum status fp8_scheme_read(struct activation_schemes *schemes, const char *method, const json_t *value,
                                   struct error *error) {
    const char *scheme = json_string_value(value);
    const bool known = method && (strcmp(method, "fp8") == 0 || strcmp(method, "mxfp8") == 0);
    schemes->is_static = scheme && strcasecmp(scheme, "static") == 0;
    schemes->dynamic = (scheme && strcasecmp(scheme, "dynamic") == 0) || (known && (!value || json_is_null(value)));
    if (known && !schemes->is_static && !schemes->dynamic)
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': activation_scheme is neither static nor dynamic",
                         schemes->path);
    return STATUS_OK;
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
            status = fp8_scheme_read(*schemes, method, json_object_get(config, "activation_scheme"), error);
            if (status == STATUS_OK)
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
            struct error reason;
            enum status status = pattern_match(target->pattern, module, &matches, &reason);
            if (status != STATUS_OK)
                return error_set(error, status, "'%s/config.json': %s", schemes->path, reason.message);
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

/* What cannot be done as served can be measured without. */
static enum status scheme_refuse(const struct activation_schemes *schemes, const char *module, const char *what,
                                 struct error *error) {
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s/config.json': quantization_config rounds the activations before '%s' %s; --activations float "
                     "does without",
                     schemes->path, module, what);
}

static enum status static_scheme(const struct activation_schemes *schemes, const char *module,
                                 struct weight_place *place, struct error *error) {
    if (!place->input_scale)
        return scheme_refuse(schemes, module,
                             "statically, but the checkpoint has no input_scale or activation_scale of it", error);
    place->weight.activations = ACTIVATIONS_FP8_STATIC;
    return STATUS_OK;
}

/* By activation_scheme of quant_method fp8. */
static enum status fp8_scheme(const struct activation_schemes *schemes, const char *module, struct weight_place *place,
                              struct error *error) {
    struct weight *weight = &place->weight;
    if (place->input_scale || schemes->is_static)
        return static_scheme(schemes, module, place, error);
    if (schemes->dynamic && weight->format == WEIGHT_MXFP4)
        return scheme_refuse(schemes, module, "as for FP8 weights, but its weight is MXFP4", error);
    if (schemes->dynamic && weight->format == WEIGHT_MXFP8) {
        weight->activations = ACTIVATIONS_MXFP8;
        weight->group = MX_GROUP;
    } else if (schemes->dynamic) {
        weight->activations = weight->scale_columns < weight->columns ? ACTIVATIONS_FP8_GROUP : ACTIVATIONS_FP8_TOKEN;
        weight->group = weight->scale_columns;
    }
    return STATUS_OK;
}

/* By input_activations of a group of compressed-tensors. */
static enum status group_scheme(const struct activation_schemes *schemes, const struct quant_args *inputs,
                                const char *module, struct weight_place *place, struct error *error) {
    struct weight *weight = &place->weight;
    if (inputs->num_bits != 8 || inputs->type != NUMBER_FLOAT)
        return scheme_refuse(schemes, module, "to a format that is not 8-bit float", error);
    if (inputs->local)
        return scheme_refuse(schemes, module, "with scales of two levels (dynamic \"local\")", error);
    if (!inputs->dynamic)
        return static_scheme(schemes, module, place, error);
    if (inputs->strategy == STRATEGY_TOKEN) {
        weight->activations = ACTIVATIONS_FP8_TOKEN;
        return STATUS_OK;
    }
    if (inputs->strategy != STRATEGY_GROUP || inputs->group_size <= 0) {
        char what[96]; /* of tensor: the scale would be that of all tokens that happen to be computed together */
        snprintf(what, sizeof what, "dynamically by %s; token and group are supported",
                 strategy_name(inputs->strategy));
        return scheme_refuse(schemes, module, what, error);
    }
    if (weight->columns % inputs->group_size != 0) {
        char what[96];
        snprintf(what, sizeof what, "in groups of %lld, which do not divide its %u columns",
                 (long long)inputs->group_size, weight->columns);
        return scheme_refuse(schemes, module, what, error);
    }
    const bool mx = inputs->group_size == MX_GROUP && strcmp(inputs->scale_dtype, "uint8") == 0;
    weight->activations = mx ? ACTIVATIONS_MXFP8 : ACTIVATIONS_FP8_GROUP;
    weight->group = (uint32_t)inputs->group_size;
    return STATUS_OK;
}

enum status activation_scheme_of(struct activation_schemes *schemes, const char *module, struct weight_place *place,
                                 struct error *error) {
    const enum weight_format format = place->weight.format;
    place->weight.activations = ACTIVATIONS_FLOAT;
    if (format != WEIGHT_FP8 && format != WEIGHT_MXFP8 && format != WEIGHT_MXFP4)
        return STATUS_OK;
    if (!schemes->compressed)
        return fp8_scheme(schemes, module, place, error);
    size_t group;
    enum status status = group_of(schemes, module, &group, error);
    if (status != STATUS_OK || group == schemes->config.group_count)
        return status;
    const struct quant_args *inputs = &schemes->config.groups[group].inputs;
    return inputs->present && !inputs->empty ? group_scheme(schemes, inputs, module, place, error) : STATUS_OK;
}
