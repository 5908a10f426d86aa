/*
 * SGLang and TensorRT-LLM, as far as their sources were read; nothing here was compared with a run of theirs.
 *
 * SGLang 0.5.23, layers/quantization/compressed_tensors/: targets by name, then class, then parts of fused layers, and
 * of these only for model classes that have a packed_modules_mapping; text layers of Llava-like models ask as
 * model.layers.N; a module without a target is an error; plain `ignore` entries also match behind a dot; there is no
 * scheme for dense MXFP4 or MXFP8.
 * TensorRT-LLM, development sources of August 2026 (models/quant_config_utils.py): every group must map to one of its
 * algorithms, else the model is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "inspect/audit.h"

static void predict(struct audit *audit, size_t module, enum loader loader, enum outcome outcome, const char *reason) {
    struct prediction *prediction = &audit->modules[module].by[loader];
    prediction->outcome = outcome;
    if (!audit->options.reasons || outcome == OUTCOME_AS_MEANT)
        return;
    free(prediction->reason);
    prediction->reason = strdup(reason);
    audit->findings.failed = audit->findings.failed || !prediction->reason;
}

/* ---- SGLang ---- */

static bool has_word(const char *list, const char *name) {
    const char *found = name ? strstr(list, name) : NULL;
    size_t length = name ? strlen(name) : 0;
    return found && (found == list || found[-1] == '|') && (found[length] == '|' || !found[length]);
}

/* Model classes that say how their fused layers are made up. */
static bool sglang_unfuses(const char *architecture) {
    static const char classes[] =
        "Qwen3MoeForCausalLM|Qwen3NextForCausalLM|Qwen3_5ForCausalLM|Qwen3_5MoeForCausalLM|"
        "Qwen3_5ForConditionalGeneration|Qwen3_5MoeForConditionalGeneration|GemmaForCausalLM|Gemma2ForCausalLM|"
        "Gemma3ForCausalLM|Gemma3ForConditionalGeneration|Gemma3nForConditionalGeneration|Llama4ForCausalLM|"
        "Llama4ForConditionalGeneration|Exaone4ForCausalLM|Ernie4_5ForCausalLM|Ernie4_5_MoeForCausalLM|"
        "MiniMaxM2ForCausalLM|Cohere2MoeForCausalLM|HunYuanMoEV1ForCausalLM|NemotronHForCausalLM|DeciLMForCausalLM";
    return has_word(classes, architecture);
}

/* Models whose text layers ask for their scheme as model.layers.N. */
static bool sglang_short_names(const char *architecture) {
    static const char classes[] = "Mistral3ForConditionalGeneration|LlavaForConditionalGeneration|"
                                  "PixtralForConditionalGeneration";
    return has_word(classes, architecture);
}

static bool entry_hits(const struct config_entry *entry, const char *name, bool suffix) {
    struct error why;
    bool matches = false;
    if (entry->is_regex)
        return entry->pattern && pattern_match(entry->pattern, name, &matches, &why) == STATUS_OK && matches;
    if (strcmp(entry->text, name) == 0)
        return true;
    size_t length = strlen(name), ending = strlen(entry->text);
    return suffix && length > ending && name[length - ending - 1] == '.' &&
           strcmp(name + length - ending, entry->text) == 0;
}

/* The group of a layer by name, class or parts; NO_ENTRY. */
static uint32_t sglang_group(struct audit *audit, const struct layer *layer, const char *name) {
    const struct resolutions *r = &audit->resolutions;
    for (size_t i = 0; i < r->target_count; i++)
        if (entry_hits(&r->targets[i], name, false))
            return r->targets[i].group;
    for (size_t i = 0; i < r->target_count; i++)
        if (r->targets[i].is_regex ? entry_hits(&r->targets[i], layer->class_name, false)
                                   : strcasestr(layer->class_name, r->targets[i].text) != NULL)
            return r->targets[i].group;
    if (!layer->fused || !sglang_unfuses(audit->inspection->architecture))
        return NO_ENTRY;
    uint32_t first = NO_ENTRY;
    size_t stem = strlen(name) - strlen(layer->fused->name);
    for (size_t part = 0; part < FUSED_PARTS && layer->fused->parts[part]; part++) {
        char *unfused = text_format("%.*s%s", (int)stem, name, layer->fused->parts[part]);
        uint32_t group = NO_ENTRY;
        audit->findings.failed |= !unfused;
        for (size_t i = 0; unfused && i < r->target_count && group == NO_ENTRY; i++)
            if (entry_hits(&r->targets[i], unfused, false))
                group = r->targets[i].group;
        free(unfused);
        if (group == NO_ENTRY)
            return NO_ENTRY;
        first = part == 0 ? group : first;
    }
    return first;
}

static bool sglang_ignored(const struct audit *audit, const char *name) {
    for (size_t i = 0; i < audit->resolutions.ignore_count; i++)
        if (entry_hits(&audit->resolutions.ignores[i], name, true))
            return true;
    return false;
}

static void sglang_scheme(struct audit *audit, size_t number, const struct quant_group *group, bool expert) {
    const struct module *module = &audit->inspection->modules.items[number];
    enum stored_format meant = args_stored_format(&group->weights);
    struct fit fit;
    if (!module_is_quantized(module)) {
        predict(audit, number, LOADER_SGLANG, OUTCOME_GARBAGE, "its weight is not quantized, but a target matches it");
        return;
    }
    if (meant == STORED_MXFP4 || meant == STORED_MXFP8) {
        if (expert)
            predict(audit, number, LOADER_SGLANG, OUTCOME_GARBAGE,
                    "expert loaders skip weight_packed, but for DeepSeek and Kimi");
        else
            predict(audit, number, LOADER_SGLANG, OUTCOME_REFUSES, "no scheme for MXFP4 or MXFP8 linear layers");
        return;
    }
    fit_check(audit->inspection, module, group, LOADER_VLLM, expert, &fit);
    bool skipped_only = fit.outcome != OUTCOME_AS_MEANT; /* unknown tensors are passed over */
    for (size_t i = 0; i < fit.issue_count; i++)
        skipped_only = skipped_only && fit.issues[i].id == COMPANION_EXTRA;
    predict(audit, number, LOADER_SGLANG, skipped_only ? OUTCOME_AS_MEANT : fit.outcome,
            fit.issue_count ? fit.issues[0].detail : "");
}

/* What a layer asks for: the same for all of its modules. */
struct sglang_layer {
    bool known, ignored;
    uint32_t group;
    char *name;
};

static void sglang_module(struct audit *audit, size_t number, struct sglang_layer *answers) {
    const struct module_resolution *resolution = &audit->resolutions.modules[number];
    const struct module *module = &audit->inspection->modules.items[number];
    if (resolution->layer == NO_LAYER)
        return;
    const struct layer *layer = &audit->resolutions.layers[resolution->layer];
    static const char nested[] = "language_model.model.";
    bool shortened =
        sglang_short_names(audit->inspection->architecture) && strncmp(layer->name, nested, strlen(nested)) == 0;
    bool expert = layer->kind == LAYER_EXPERTS;
    struct sglang_layer *answer = &answers[resolution->layer];
    if (!answer->known) {
        answer->name = text_format("%s%s%s", shortened ? "model." : "", layer->name + (shortened ? strlen(nested) : 0),
                                   expert ? ".0.gate_proj" : "");
        if (!answer->name) {
            audit->findings.failed = true;
            return;
        }
        answer->group = sglang_group(audit, layer, answer->name);
        answer->ignored = sglang_ignored(audit, answer->name);
        answer->known = true;
    }
    if (answer->ignored) {
        if (module_is_quantized(module))
            predict(audit, number, LOADER_SGLANG, OUTCOME_GARBAGE, "ignored, though quantized: its scale is skipped");
    } else if (answer->group != NO_ENTRY) {
        sglang_scheme(audit, number, &audit->inspection->quant.groups[answer->group], expert);
    } else if (layer->kind == LAYER_LINEAR || expert) {
        char *reason = text_format("no target matches '%s', the name that the layer asks with: an error", answer->name);
        audit->findings.failed |= !reason;
        predict(audit, number, LOADER_SGLANG, OUTCOME_REFUSES, reason ? reason : "");
        free(reason);
    }
}

static void sglang_modules(struct audit *audit) {
    struct sglang_layer *answers = calloc(audit->resolutions.layer_count + 1, sizeof *answers);
    if (!answers) {
        audit->findings.failed = true;
        return;
    }
    for (size_t i = 0; i < audit->inspection->modules.count; i++)
        if (audit_module_counts(audit, i))
            sglang_module(audit, i, answers);
    for (size_t i = 0; i < audit->resolutions.layer_count; i++)
        free(answers[i].name);
    free(answers);
}

/* ---- TensorRT-LLM ---- */

/* Why a group maps to none of its algorithms; NULL when it does. */
static const char *tensorrt_refusal(const struct quant_config *config, const struct quant_group *group) {
    const struct quant_args *weights = &group->weights, *inputs = &group->inputs;
    const char *format = group->format ? group->format : config->format;
    if (format && strcmp(format, "mxfp4-pack-quantized") == 0)
        return weights->group_size == 32 ? NULL : "MXFP4 with another group size than 32";
    if (!inputs->present)
        return "weight-only groups other than MXFP4";
    if (weights->num_bits == 8 && weights->strategy == STRATEGY_CHANNEL && inputs->strategy == STRATEGY_TOKEN)
        return NULL;
    if (weights->num_bits == 8 && weights->strategy == STRATEGY_BLOCK)
        return inputs->group_size == 128 ? NULL : "blocks other than 128";
    if (weights->num_bits == 8)
        return "8-bit weights that are neither per channel nor in blocks";
    if (weights->type == NUMBER_FLOAT && weights->strategy == STRATEGY_TENSOR_GROUP && weights->group_size == 16)
        return NULL;
    return "these bits and strategies";
}

static void tensorrt_modules(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    const char *refusal = NULL;
    for (size_t g = 0; g < inspection->quant.group_count && !refusal; g++)
        refusal = tensorrt_refusal(&inspection->quant, &inspection->quant.groups[g]);
    if (refusal && !audit->config_error[LOADER_TENSORRT_LLM]) {
        audit->config_error[LOADER_TENSORRT_LLM] = text_format("it has no algorithm for %s", refusal);
        audit->findings.failed |= !audit->config_error[LOADER_TENSORRT_LLM];
    }
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        if (!audit_module_counts(audit, i))
            continue;
        if (refusal)
            predict(audit, i, LOADER_TENSORRT_LLM, OUTCOME_REFUSES, refusal);
        else if (module->format == STORED_MXFP4 && module->role != ROLE_EXPERT)
            predict(audit, i, LOADER_TENSORRT_LLM, OUTCOME_REFUSES, "no linear layer for MXFP4 weights");
        else if (module_is_quantized(module) && module->format != STORED_FP8_CHANNEL &&
                 module->format != STORED_FP8_BLOCK)
            predict(audit, i, LOADER_TENSORRT_LLM, OUTCOME_UNKNOWN, "not told by the sources that were read");
    }
}

void audit_other_loaders(struct audit *audit) {
    if (audit->config_error[LOADER_VLLM] && audit->config_error[LOADER_TRANSFORMERS]) {
        for (size_t i = 0; i < audit->inspection->modules.count; i++)
            for (enum loader loader = LOADER_SGLANG; loader < LOADERS; loader++)
                predict(audit, i, loader, OUTCOME_REFUSES, audit->config_error[LOADER_VLLM]);
        return;
    }
    sglang_modules(audit);
    tensorrt_modules(audit);
}
