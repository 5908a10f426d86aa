#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/quant_config.h"
#include "common/text.h"
#include "verify/config_groups.h"
#include "verify/folder_check.h"
#include "verify/json_compare.h"

enum { CONFIG_BYTES_MAX = 64 << 20, NAMES_SHOWN = 4 };
#define NO_GROUP UINT32_MAX

static const char key[] = "quantization_config";

/* ---- what is complained of ---- */

enum complaint_kind {
    WITHOUT_CONFIG, /* quantized, and there is no quantization_config */
    WITHOUT_GROUP,
    IGNORED,      /* quantized, and `ignore` covers it */
    OTHER_ARGS,   /* the group's arguments are not those of the stored format */
    OTHER_METHOD, /* the same of a config without groups */
    INPUT_SCALE_MISSING,
    INPUT_SCALE_EXTRA,
    NOT_QUANTIZED /* a group claims it */
};

/* Modules of one format in one group that have the same flaw: one finding. */
struct complaint {
    enum complaint_kind kind;
    uint32_t group;
    enum stored_format format;
    size_t count;
    char *first;       /* name of the first module */
    struct text names; /* of the first few */
};

struct formats_check {
    const struct folder_check *check;
    struct verify_findings *findings;
    struct error *error;
    struct quant_config config;
    int64_t method_block[2]; /* weight_block_size of quant_method fp8; 0: none */
    bool method_static;      /* its activation_scheme is static */
    struct config_groups *groups;
    struct complaint *complaints;
    size_t count, capacity;
};

static struct complaint *complaint_find(struct formats_check *c, enum complaint_kind kind, uint32_t group,
                                        enum stored_format format) {
    for (size_t i = 0; i < c->count; i++)
        if (c->complaints[i].kind == kind && c->complaints[i].group == group && c->complaints[i].format == format)
            return &c->complaints[i];
    if (!array_reserve(c->complaints, c->count + 1, &c->capacity))
        return NULL;
    c->complaints[c->count] = (struct complaint){.kind = kind, .group = group, .format = format};
    return &c->complaints[c->count++];
}

static enum status complain(struct formats_check *c, enum complaint_kind kind, uint32_t group,
                            const struct module *module) {
    struct complaint *complaint = complaint_find(c, kind, group, module->format);
    if (!complaint)
        return error_set_memory(c->error);
    if (complaint->count == 0)
        complaint->first = strndup(module->name, module->name_length);
    if (complaint->count < NAMES_SHOWN) {
        text_append_string(&complaint->names, complaint->count ? ", " : "");
        text_append(&complaint->names, module->name, module->name_length);
    }
    complaint->count++;
    return complaint->first && !complaint->names.failed ? STATUS_OK : error_set_memory(c->error);
}

/* "group 'a' (4-bit float, strategy group, ...)". */
static void group_describe(const struct formats_check *c, uint32_t number, struct text *out) {
    const struct quant_group *group = &c->config.groups[number];
    const struct quant_args *weights = &group->weights;
    text_printf(out, "group '%.64s' (", group->name);
    if (!weights->present || weights->empty)
        text_append_string(out, "no weights");
    else
        text_printf(out, "%" PRId64 "-bit %s, strategy %s", weights->num_bits,
                    weights->type == NUMBER_FLOAT ? "float" : "int", strategy_name(weights->strategy));
    if (weights->group_size > 0)
        text_printf(out, " of %" PRId64, weights->group_size);
    if (weights->strategy == STRATEGY_BLOCK)
        text_printf(out, " of %" PRId64 "x%" PRId64, weights->block_rows, weights->block_columns);
    text_printf(out, ", format %s)", quant_group_format(group));
}

static enum status complaint_report(struct formats_check *c, const struct complaint *complaint) {
    struct text message = {0};
    const char *stored = stored_format_name(complaint->format);
    if (complaint->group != NO_GROUP)
        group_describe(c, complaint->group, &message);
    switch (complaint->kind) {
    case WITHOUT_CONFIG:
        text_printf(&message, "config.json has no quantization_config, but weights are stored as %s", stored);
        break;
    case WITHOUT_GROUP:
        text_printf(&message, "no group of quantization_config is for weights that are stored as %s", stored);
        break;
    case IGNORED:
        text_printf(&message, "`ignore` covers weights that are stored as %s", stored);
        break;
    case OTHER_ARGS:
        text_printf(&message, " does not describe weights that are stored as %s", stored);
        break;
    case OTHER_METHOD:
        text_printf(&message, "quant_method %.64s%s does not describe weights that are stored as %s", c->config.method,
                    c->method_block[0] ? " with this weight_block_size" : "", stored);
        break;
    case INPUT_SCALE_MISSING:
        text_printf(&message, "%s says static input activations, but weights that are stored as %s have no input_scale",
                    complaint->group == NO_GROUP ? "activation_scheme" : "", stored);
        break;
    case INPUT_SCALE_EXTRA:
        text_printf(&message,
                    " does not say static input activations, but weights that are stored as %s have an "
                    "input_scale",
                    stored);
        break;
    case NOT_QUANTIZED:
        text_append_string(&message, " claims weights that are not quantized");
    }
    text_append_string(&message, ": ");
    text_append_string(&message, complaint->names.bytes);
    if (complaint->count > NAMES_SHOWN)
        text_printf(&message, " and %zu more", complaint->count - NAMES_SHOWN);
    enum status status = message.failed ? error_set_memory(c->error)
                                        : verify_find(c->findings, VERIFY_ERROR, "config-formats", complaint->first,
                                                      c->error, "%s", message.bytes);
    text_free(&message);
    return status;
}

/* ---- stored formats against arguments ---- */

/* Whether scales for blocks of that size have the extents of those that are stored. */
static bool blocks_fit(const struct folder_check *check, const struct module *module, int64_t rows, int64_t columns) {
    const struct tensor *scale = module_scale(check->output, module);
    if (!scale || rows <= 0 || columns <= 0)
        return false;
    uint64_t high = module->rows / (uint64_t)rows + (module->rows % (uint64_t)rows != 0);
    uint64_t wide = module->columns / (uint64_t)columns + (module->columns % (uint64_t)columns != 0);
    if (module->format == STORED_FP8_TENSOR)
        return high == 1 && wide == 1; /* one block is the whole weight */
    unsigned rank = scale->info.rank;
    return rank >= 2 && scale->info.shape[rank - 1] == wide && scale->info.shape[rank - 2] == high;
}

static bool fp8_fits(const struct folder_check *check, const struct module *module, const struct quant_args *args) {
    switch (module->format) {
    case STORED_FP8_TENSOR:
        return args->strategy == STRATEGY_TENSOR || (args->strategy == STRATEGY_CHANNEL && module->rows == 1) ||
               (args->strategy == STRATEGY_BLOCK && blocks_fit(check, module, args->block_rows, args->block_columns));
    case STORED_FP8_CHANNEL:
        return args->strategy == STRATEGY_CHANNEL;
    case STORED_FP8_BLOCK:
        if (args->strategy == STRATEGY_GROUP) /* pieces of rows */
            return blocks_fit(check, module, 1, args->group_size);
        return args->strategy == STRATEGY_BLOCK && blocks_fit(check, module, args->block_rows, args->block_columns);
    case STORED_MXFP8:
        return args->strategy == STRATEGY_GROUP && args->group_size == 32;
    default: /* without a scale: told elsewhere */
        return true;
    }
}

static bool format_is(const char *format, const char *a, const char *b) {
    return strcmp(format, a) == 0 || strcmp(format, b) == 0;
}

static bool group_fits(const struct folder_check *check, const struct module *module, const struct quant_group *group) {
    static const char naive[] = "naive-quantized";
    const struct quant_args *args = &group->weights;
    const char *format = quant_group_format(group);
    if (!args->present || args->empty || args->dynamic)
        return false;
    bool is_float = args->type == NUMBER_FLOAT && args->symmetric;
    switch (module->format) {
    case STORED_MXFP4:
        return is_float && args->num_bits == 4 && args->strategy == STRATEGY_GROUP && args->group_size == 32 &&
               strcmp(format, "mxfp4-pack-quantized") == 0;
    case STORED_NVFP4:
        return is_float && args->num_bits == 4 && args->strategy == STRATEGY_TENSOR_GROUP && args->group_size == 16 &&
               strcmp(format, "nvfp4-pack-quantized") == 0;
    case STORED_MXFP8:
        return is_float && args->num_bits == 8 && fp8_fits(check, module, args) &&
               (format_is(format, "mxfp8-quantized", "float-quantized") || strcmp(format, naive) == 0);
    case STORED_FP8_TENSOR:
    case STORED_FP8_CHANNEL:
    case STORED_FP8_BLOCK:
    case STORED_FP8_UNSCALED:
        return is_float && args->num_bits == 8 && fp8_fits(check, module, args) &&
               format_is(format, "float-quantized", naive);
    case STORED_INT8:
        return args->type == NUMBER_INT && args->num_bits == 8 && format_is(format, "int-quantized", naive);
    case STORED_INT_PACKED:
        return args->type == NUMBER_INT && args->num_bits <= 8 && format_is(format, "pack-quantized", "marlin-24");
    default:
        return false; /* other tools' formats */
    }
}

/* ---- configs of groups ---- */

static bool is_refused(const struct quant_group *group) {
    return group->unreadable || group->refusal || group->weights.refusal || group->inputs.refusal ||
           group->outputs.refusal;
}

static enum status group_check(struct formats_check *c, const struct module *module, uint32_t number) {
    const struct quant_group *group = &c->config.groups[number];
    if (is_refused(group))
        return STATUS_OK; /* told for the group */
    if (!module_is_quantized(module))
        return group->weights.present && !group->weights.empty ? complain(c, NOT_QUANTIZED, number, module) : STATUS_OK;
    if (!group_fits(c->check, module, group))
        return complain(c, OTHER_ARGS, number, module);
    bool wants = group->inputs.present && !group->inputs.empty && !group->inputs.dynamic;
    bool has = module->parts[PART_INPUT_SCALE] != MODULE_NO_TENSOR;
    if (wants == has || module->format == STORED_NVFP4) /* which has an input_global_scale */
        return STATUS_OK;
    return complain(c, wants ? INPUT_SCALE_MISSING : INPUT_SCALE_EXTRA, number, module);
}

static enum status module_check(struct formats_check *c, const struct module *module) {
    struct group_match match;
    bool quantized = module_is_quantized(module);
    enum status status = config_groups_match(c->groups, module->name, module->name_length, quantized, &match, c->error);
    if (status != STATUS_OK)
        return status;
    if (match.ignored)
        return quantized ? complain(c, IGNORED, NO_GROUP, module) : STATUS_OK;
    if (match.count == 0)
        return quantized ? complain(c, WITHOUT_GROUP, NO_GROUP, module) : STATUS_OK;
    for (size_t i = 0; i < match.count && status == STATUS_OK; i++)
        status = group_check(c, module, match.groups[i]);
    return status;
}

/* ---- configs of other methods ---- */

/* Whether the method describes the format. Of methods that are not known here nothing is said but what they cannot be. */
static bool method_fits(const struct formats_check *c, const struct module *module) {
    static const struct {
        const char *method;
        enum stored_format format;
    } single[] = {{"mxfp8", STORED_MXFP8},
                  {"mxfp4", STORED_GPT_OSS_MXFP4},
                  {"awq", STORED_AWQ},
                  {"gptq", STORED_GPTQ},
                  {"bitsandbytes", STORED_BITSANDBYTES}};
    enum stored_format format = module->format;
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        if (strcmp(c->config.method, single[i].method) == 0)
            return format == single[i].format;
    if (strcmp(c->config.method, "fp8") == 0) {
        if (format == STORED_MXFP8)
            return c->method_block[0] == 1 && c->method_block[1] == 32;
        if (format == STORED_FP8_UNSCALED)
            return true; /* told elsewhere */
        if (c->method_block[0])
            return (format == STORED_FP8_TENSOR || format == STORED_FP8_BLOCK) &&
                   blocks_fit(c->check, module, c->method_block[0], c->method_block[1]);
        return format == STORED_FP8_TENSOR;
    }
    return format != STORED_MXFP4 && format != STORED_NVFP4 && format != STORED_INT_PACKED;
}

static enum status method_check(struct formats_check *c, const struct module *module) {
    if (!module_is_quantized(module))
        return STATUS_OK;
    if (!method_fits(c, module))
        return complain(c, OTHER_METHOD, NO_GROUP, module);
    if (c->method_static && module->parts[PART_INPUT_SCALE] == MODULE_NO_TENSOR)
        return complain(c, INPUT_SCALE_MISSING, NO_GROUP, module);
    return STATUS_OK;
}

static enum status method_read(struct formats_check *c, const json_t *json) {
    const json_t *block = json_object_get(json, "weight_block_size");
    const char *scheme = json_string_value(json_object_get(json, "activation_scheme"));
    if (strcmp(c->config.method, "fp8") != 0)
        return STATUS_OK;
    c->method_static = scheme && strcmp(scheme, "static") == 0;
    if (!block || json_is_null(block))
        return STATUS_OK;
    for (size_t i = 0; i < 2; i++)
        c->method_block[i] = json_integer_value(json_array_get(block, i));
    if (json_array_size(block) == 2 && c->method_block[0] > 0 && c->method_block[1] > 0)
        return STATUS_OK;
    c->method_block[0] = 0;
    return verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error,
                       "its weight_block_size is not [rows, columns]");
}

/* ---- the config as a whole ---- */

static bool is_packed(const struct module *module) {
    return module->format == STORED_MXFP4 || module->format == STORED_NVFP4 || module->format == STORED_INT_PACKED;
}

static enum status refusals_report(struct formats_check *c) {
    const struct quant_config *config = &c->config;
    enum status status = STATUS_OK;
    if (config->refusal)
        status = verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error,
                             "compressed-tensors refuses it: %s", config->refusal);
    for (size_t g = 0; g < config->group_count && status == STATUS_OK; g++) {
        const struct quant_group *group = &config->groups[g];
        static const char *const parts[] = {"", "weights: ", "input_activations: ", "output_activations: "};
        const char *const reasons[] = {group->refusal, group->weights.refusal, group->inputs.refusal,
                                       group->outputs.refusal};
        for (int i = 0; i < 4 && status == STATUS_OK; i++)
            if (reasons[i])
                status = verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error,
                                     "compressed-tensors refuses the group '%.64s': %s%s", group->name, parts[i],
                                     reasons[i]);
    }
    if (config->kv_cache.refusal && status == STATUS_OK)
        status = verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error,
                             "compressed-tensors refuses its kv_cache_scheme: %s", config->kv_cache.refusal);
    return status;
}

static enum status status_check(struct formats_check *c) {
    const struct modules *modules = c->check->output_modules;
    if (c->config.status && strcmp(c->config.status, "compressed") == 0)
        return STATUS_OK;
    for (size_t i = 0; i < modules->count; i++)
        if (is_packed(&modules->items[i]))
            return verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error,
                               "its quantization_status is %s%.64s%s, not \"compressed\": transformers then expects "
                               "weights that are not packed, and makes these up ('%.*s')",
                               c->config.status ? "\"" : "", c->config.status ? c->config.status : "missing",
                               c->config.status ? "\"" : "", (int)modules->items[i].name_length,
                               modules->items[i].name);
    return STATUS_OK;
}

static enum status modules_check(struct formats_check *c,
                                 enum status (*check)(struct formats_check *c, const struct module *module)) {
    const struct modules *modules = c->check->output_modules;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < modules->count && status == STATUS_OK; i++) {
        const struct module *module = &modules->items[i];
        const struct tensor *weight = module_weight(c->check->output, module);
        if (weight && (weight->info.rank >= 2 || module_is_quantized(module)))
            status = check(c, module);
    }
    for (size_t i = 0; i < c->count && status == STATUS_OK; i++)
        status = complaint_report(c, &c->complaints[i]);
    return status;
}

static enum status groups_check(struct formats_check *c) {
    enum status status = refusals_report(c);
    if (status == STATUS_OK)
        status = status_check(c);
    if (status == STATUS_OK)
        status = config_groups_make(&c->config, &c->groups, c->error);
    if (status == STATUS_OK)
        status = modules_check(c, module_check);
    const char *text, *problem;
    for (size_t i = 0; status == STATUS_OK && (problem = config_groups_problem(c->groups, i, &text)); i++)
        status = verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error, "%s", problem);
    return status;
}

static enum status absence_check(struct formats_check *c, const struct module *module) {
    return module_is_quantized(module) ? complain(c, WITHOUT_CONFIG, NO_GROUP, module) : STATUS_OK;
}

static enum status config_judge(struct formats_check *c, const json_t *json) {
    if (!json_is_object(json)) {
        char text[QUANT_VALUE_MAX];
        return verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error, "it is %s, not an object",
                           quant_value_text(json, text));
    }
    enum status status = quant_config_read(json, &c->config, c->error);
    if (status != STATUS_OK)
        return status;
    if (!c->config.method) {
        status = verify_find(c->findings, VERIFY_ERROR, "config-invalid", key, c->error, "it has no quant_method");
        return status == STATUS_OK ? groups_check(c) : status;
    }
    if (strcmp(c->config.method, "compressed-tensors") == 0)
        return groups_check(c);
    status = method_read(c, json);
    return status == STATUS_OK ? modules_check(c, method_check) : status;
}

/* ---- finding it ---- */

/* The member `name` of the object that begins at `object`; false when there is none, or null. */
static bool member_find(const char *json, struct json_span object, const char *name, struct json_span *value) {
    struct json_member member;
    if (json[object.begin] != '{' || !json_text_member(json, object, name, &member))
        return false;
    *value = member.value;
    return json[value->begin] != 'n';
}

static bool config_find(const struct checkpoint *checkpoint, struct json_span *value) {
    struct json_span top = json_text_object(checkpoint->config, checkpoint->config_length), nested;
    return member_find(checkpoint->config, top, key, value) ||
           (member_find(checkpoint->config, top, "text_config", &nested) &&
            member_find(checkpoint->config, nested, key, value));
}

enum status config_formats_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error) {
    struct formats_check c = {.check = check, .findings = findings, .error = error};
    struct json_span value;
    enum status status;
    if (!check->output->config)
        return STATUS_OK; /* not there yet */
    if (config_find(check->output, &value)) {
        json_error_t at = {.text = "it is too large"};
        size_t length = value.end - value.begin;
        json_t *json = length <= CONFIG_BYTES_MAX
                           ? json_loadb(check->output->config + value.begin, length, JSON_DECODE_ANY, &at)
                           : NULL;
        status =
            json ? config_judge(&c, json)
                 : verify_find(findings, VERIFY_ERROR, "config-invalid", key, error, "it cannot be read: %s", at.text);
        json_decref(json);
    } else {
        status = modules_check(&c, absence_check);
    }
    for (size_t i = 0; i < c.count; i++) {
        free(c.complaints[i].first);
        text_free(&c.complaints[i].names);
    }
    free(c.complaints);
    config_groups_free(c.groups);
    quant_config_free(&c.config);
    return status;
}
