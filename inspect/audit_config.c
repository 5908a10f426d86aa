#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/audit.h"
#include "inspect/vllm_scheme.h"

static const char config_subject[] = "config.json";

static void loader_refuses(struct audit *audit, enum loader loader, const char *format, const char *group,
                           const char *why) {
    if (audit->config_error[loader])
        return;
    audit->config_error[loader] = text_format(format, group, why);
    audit->findings.failed = audit->findings.failed || !audit->config_error[loader];
}

/* Why the compressed-tensors that comes with vLLM does not accept arguments; NULL: it does. */
static const char *args_refusal(const struct quant_args *args, bool is_weights) {
    if (args->strict)
        return "there is no float of 6 bits in compressed-tensors 0.17";
    return args->lenient || (args->ordered && !is_weights) ? NULL : args->refusal;
}

/* The first argument of a group that vLLM reads and compressed-tensors refuses; NULL: none. */
static const char *vllm_group_refusal(const struct quant_config *config, const struct quant_group *group) {
    const char *format = group->format ? group->format : config->format;
    bool quantizes = format_quantizes_activations(format), inputs = group->inputs.present && !group->inputs.empty;
    if (group->unreadable)
        return group->refusal;
    if (group->target_count == 0)
        return NULL;
    if (!group->weights.present)
        return "weights is missing or null";
    if (args_refusal(&group->weights, true))
        return args_refusal(&group->weights, true);
    if (quantizes && !inputs && group->weights.type == NUMBER_INT)
        return "integer weights of this format need input_activations";
    if (inputs && args_refusal(&group->inputs, false))
        return args_refusal(&group->inputs, false);
    return group->outputs.present && !group->outputs.empty ? args_refusal(&group->outputs, false) : NULL;
}

/* Names of groups that stand for arguments, where the group is but a list of targets. */
static bool is_preset(const char *name) {
    static const char *const names[] = {"UNQUANTIZED", "W4A16_ASYM", "W8A16",  "W4A16",    "W8A8",
                                        "INT8",        "W4A8",       "W4AFP8", "FP8",      "FP8_DYNAMIC",
                                        "FP8_BLOCK",   "NVFP4A16",   "NVFP4",  "MXFP4",    "MXFP4A16",
                                        "MXFP4XFP8",   "MXFP8A16",   "MXFP8",  "MXFP6A16", "MXFP6A8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static bool is_attention_only(const struct quant_group *group) {
    return group->target_count == 1 && text_ends_with(group->targets[0], "Attention");
}

static void groups_check(struct audit *audit) {
    const struct quant_config *config = &audit->inspection->quant;
    static const char fix[] = "correct it, or let audit --fix write a config.json that describes the tensors";
    for (size_t g = 0; g < config->group_count; g++) {
        const struct quant_group *group = &config->groups[g];
        const char *vllm = is_attention_only(group) ? NULL : vllm_group_refusal(config, group);
        const char *strict = group->refusal           ? group->refusal
                             : group->weights.refusal ? group->weights.refusal
                             : group->inputs.refusal  ? group->inputs.refusal
                                                      : group->outputs.refusal;
        if (group->preset && is_preset(group->name))
            strict = NULL;
        if (vllm)
            loader_refuses(audit, LOADER_VLLM, "group '%s': %s", group->name, vllm);
        if (strict)
            loader_refuses(audit, LOADER_TRANSFORMERS, "group '%s': %s", group->name, strict);
        unsigned loaders = (vllm ? FOR_VLLM : 0u) | (strict ? FOR_TRANSFORMERS : 0u);
        if (strict && group->format_refused && strict == group->refusal && !vllm)
            audit_find(audit, FORMAT_WRONG, SEVERITY_ERROR, FOR_TRANSFORMERS, group->name, group->name, fix,
                       "group '%s': %s: transformers refuses to load the model", group->name, strict);
        else if (loaders)
            audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, loaders, group->name, group->name, fix,
                       "group '%s' is not valid, so the model does not load at all: %s", group->name,
                       strict ? strict : vllm);
    }
}

static void method_check(struct audit *audit) {
    const struct quant_config *config = &audit->inspection->quant;
    const char *method = config->method;
    static const char fix[] = "set \"quant_method\": \"compressed-tensors\"";
    if (method && strcmp(method, "compressed-tensors") == 0)
        return;
    bool vllm_reads =
        method && (strcasecmp(method, "compressed-tensors") == 0 || strcasecmp(method, "compressed_tensors") == 0);
    unsigned loaders = FOR_TRANSFORMERS | (vllm_reads ? 0u : FOR_VLLM);
    const char *effect =
        method ? "is no method that transformers knows: it loads the model as if it were not quantized"
               : "is missing: transformers refuses the model, vLLM takes it for one that is not quantized";
    loader_refuses(audit, LOADER_TRANSFORMERS, "quant_method%s %s", "", effect);
    if (!vllm_reads)
        loader_refuses(audit, LOADER_VLLM, "quant_method%s %s", "", effect);
    audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, loaders, "quant_method", config_subject, fix,
               "quant_method %s%s%s %s", method ? "\"" : "", method ? method : "", method ? "\"" : "", effect);
}

/* What Python takes for false. */
static bool is_falsy(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

/* "dequantize" takes one group's way for every tensor. */
static void dequantize_check(struct audit *audit) {
    const struct quant_config *config = &audit->inspection->quant;
    const json_t *quantization = audit->inspection->quantization;
    bool asked = json_is_true(json_object_get(quantization, "dequantize")) ||
                 json_is_false(json_object_get(quantization, "run_compressed"));
    bool mixed = false;
    for (size_t g = 1; g < config->group_count; g++)
        mixed = mixed || strcmp(quant_group_format(&config->groups[g]), quant_group_format(&config->groups[0])) != 0;
    if (!asked || !mixed)
        return;
    loader_refuses(audit, LOADER_TRANSFORMERS, "%s%s", "",
                   "dequantize is set, which fails on groups of several formats");
    audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_TRANSFORMERS, "dequantize", config_subject,
               "remove dequantize (or run_compressed) from quantization_config",
               "dequantize is set: transformers then reads every tensor by the first group's format and fails");
}

static void top_level_check(struct audit *audit) {
    const struct quant_config *config = &audit->inspection->quant;
    const json_t *ignore = json_object_get(audit->inspection->quantization, "ignore");
    const json_t *groups = json_object_get(audit->inspection->quantization, "config_groups");
    if (config->refusal) {
        loader_refuses(audit, LOADER_TRANSFORMERS, "%s%s", "", config->refusal);
        audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR,
                   FOR_TRANSFORMERS | (groups && !json_is_object(groups) ? FOR_VLLM : 0u), "top", config_subject,
                   "correct it, or let audit --fix write a config.json that describes the tensors",
                   "quantization_config is not valid, and transformers refuses to load the model: %s", config->refusal);
    }
    bool strings = json_is_array(ignore);
    for (size_t i = 0; i < json_array_size(ignore); i++)
        strings = strings && json_is_string(json_array_get(ignore, i));
    if (ignore && !strings) {
        loader_refuses(audit, LOADER_VLLM, "%s%s", "", "ignore is not a list of strings");
        audit_find(
            audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_VLLM, "top", config_subject, "make `ignore` a list",
            "quantization_config is not valid, and vLLM refuses to load the model: ignore is not a list of strings");
    }
    if (groups && !json_is_object(groups))
        loader_refuses(audit, LOADER_VLLM, "%s%s", "", "config_groups is not an object");
    if (config->group_count == 0 && !config->refusal)
        audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_ALL, "no groups", config_subject,
                   "let audit --fix write the groups",
                   "quantization_config has no config_groups: every module is loaded unquantized");
    const json_t *sparsity = json_object_get(audit->inspection->quantization, "sparsity_config");
    if (json_array_size(json_object_get(sparsity, "targets")) > 0 ||
        (!is_falsy(sparsity) && !json_is_object(sparsity))) {
        loader_refuses(audit, LOADER_VLLM, "%s%s", "",
                       "sparsity_config: vLLM does not support sparse weights any more");
        audit_find(
            audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_VLLM, "sparsity", config_subject, "remove sparsity_config",
            "sparsity_config names targets: vLLM does not support sparse weights any more and refuses the model");
    }
    const json_t *transforms = json_object_get(audit->inspection->quantization, "transform_config");
    if (!is_falsy(transforms) && !json_is_object(json_object_get(transforms, "config_groups"))) {
        loader_refuses(audit, LOADER_VLLM, "%s%s", "", "transform_config is not valid");
        audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_VLLM, "transforms", config_subject,
                   "remove transform_config", "transform_config has no config_groups: vLLM refuses to load the model");
    }
    const struct quant_args *cache = &config->kv_cache;
    if (!cache->present)
        return;
    bool served = cache->type == NUMBER_FLOAT && cache->num_bits == 8 && cache->symmetric && !cache->refusal &&
                  !cache->empty && (cache->strategy == STRATEGY_TENSOR || cache->strategy == STRATEGY_ATTN_HEAD);
    if (served)
        return;
    loader_refuses(audit, LOADER_VLLM, "%s%s", "", "kv_cache_scheme is not 8-bit float, symmetric, per tensor or head");
    if (cache->refusal)
        loader_refuses(audit, LOADER_TRANSFORMERS, "kv_cache_scheme%s: %s", "", cache->refusal);
    audit_find(audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_VLLM | (cache->refusal ? FOR_TRANSFORMERS : 0u), "kv cache",
               config_subject, "set kv_cache_scheme to null, or to a symmetric 8-bit float scheme per tensor",
               "kv_cache_scheme describes a cache that vLLM cannot make: the model does not start");
}

static void status_check(struct audit *audit) {
    static const char *const known[] = {"initialized", "calibration", "frozen", "decompressed"};
    const char *status = audit->inspection->quant.status;
    const json_t *value = json_object_get(audit->inspection->quantization, "quantization_status");
    if (status && strcmp(status, "compressed") == 0)
        return;
    bool accepted = !value;
    for (size_t i = 0; i < sizeof known / sizeof *known && status; i++)
        accepted = accepted || strcmp(status, known[i]) == 0;
    if (!accepted)
        loader_refuses(audit, LOADER_TRANSFORMERS, "%s%s", "", "quantization_status is none of compressed-tensors'");
    audit_find(audit, QUANTIZATION_STATUS, SEVERITY_ERROR, FOR_TRANSFORMERS, "status", config_subject,
               "set \"quantization_status\": \"compressed\"", "quantization_status is %s: %s",
               status  ? status
               : value ? "not a name"
                       : "missing",
               accepted ? "transformers expects unpacked weights and loads random values for packed ones, with no more "
                          "than a warning"
                        : "transformers refuses to load the model");
}

/* FP8 weights without quantized activations are called either. */
static bool same_format(const char *a, const char *b) {
    static const char *const fp8[] = {"float-quantized", "naive-quantized"};
    bool both =
        (strcmp(a, fp8[0]) == 0 || strcmp(a, fp8[1]) == 0) && (strcmp(b, fp8[0]) == 0 || strcmp(b, fp8[1]) == 0);
    return both || strcmp(a, b) == 0;
}

void audit_formats(struct audit *audit) {
    const struct quant_config *config = &audit->inspection->quant;
    const char *common = NULL;
    bool mixed = false, all_own = true;
    if (findings_count(&audit->findings, SEVERITY_ERROR) > 0)
        return; /* which format is right depends on them */
    for (size_t g = 0; g < config->group_count; g++) {
        const struct quant_group *group = &config->groups[g];
        const char *format = quant_group_format(group);
        all_own = all_own && group->format;
        mixed = mixed || (common && strcmp(common, format) != 0);
        common = format;
        if (!group->format && config->format && !same_format(config->format, format))
            audit_find(audit, GROUP_FORMAT_MISSING, SEVERITY_WARNING, FOR_ALL, group->name, group->name,
                       "give the group its own \"format\"",
                       "group '%s' has no format of its own, and the top level says %s: readers that do not guess take "
                       "its tensors for something else",
                       group->name, config->format);
    }
    const char *expected = mixed ? "mixed-precision" : common;
    if (expected && all_own && (!config->format || !same_format(config->format, expected)))
        audit_find(audit, FORMAT_WRONG, SEVERITY_WARNING, FOR_ALL, "top", config_subject,
                   "set the top-level \"format\" to what the groups say",
                   "the top-level format is %s, the groups make it %s: loaders that do not look at the groups' formats "
                   "misread the tensors",
                   config->format ? config->format : "missing", expected);
}

static void unknown_method(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    bool modelopt = false, quantized = false;
    const struct module *first = NULL;
    for (size_t i = 0; i < inspection->file_count; i++)
        modelopt = modelopt || strcmp(inspection->files[i].name, "hf_quant_config.json") == 0;
    for (size_t i = 0; i < inspection->modules.count && !first; i++)
        if (module_is_quantized(&inspection->modules.items[i]))
            first = &inspection->modules.items[i];
    quantized = first != NULL;
    if (inspection->quantization && !inspection->quant.method) {
        method_check(audit);
        return;
    }
    if (inspection->quantization || (modelopt && quantized)) {
        const char *method = inspection->quant.method ? inspection->quant.method : modelopt ? "modelopt" : "unknown";
        audit_find(
            audit, METHOD_NOT_PREDICTED, SEVERITY_NOTE, FOR_ALL, "method", config_subject,
            "nothing, if this is a source for `qstream quantize`; inspect shows what it holds",
            "the quantization method is %s: files, values and figures are checked, what loaders do with it is not",
            method);
        return;
    }
    char name[MODULE_NAME_MAX];
    const json_t *given = json_object_get(inspection->config, "quantization_config");
    if (given && !json_is_null(given))
        audit_find(
            audit, CONFIG_INVALID, SEVERITY_ERROR, FOR_ALL, "top", config_subject,
            "let audit --fix write a quantization_config that describes the tensors",
            "quantization_config is no object: loaders refuse the model, or take it for one that is not quantized");
    else if (quantized)
        audit_find(audit, CONFIG_MISSING, SEVERITY_ERROR, FOR_ALL, "config", module_name_text(first, name),
                   "let audit --fix write a quantization_config that describes the tensors",
                   "the tensors are quantized (%s), but config.json has no quantization_config: loaders refuse the "
                   "scales, or take codes for weights",
                   stored_format_name(first->format));
}

void audit_config(struct audit *audit) {
    if (!audit->predicted) {
        unknown_method(audit);
        return;
    }
    method_check(audit);
    dequantize_check(audit);
    top_level_check(audit);
    groups_check(audit);
    status_check(audit);
}
