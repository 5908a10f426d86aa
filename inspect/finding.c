#include "inspect/finding.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/text.h"

static const char *const severity_names[SEVERITIES] = {"note", "warning", "error"};
const char *severity_name(enum severity severity) { return severity_names[severity]; }

static const struct {
    const char *name, *title, *version;
} loaders[LOADERS] = {
    [LOADER_VLLM] = {"vllm", "vLLM", "0.33"},
    [LOADER_TRANSFORMERS] = {"transformers", "transformers", "5.23 with compressed-tensors 0.20"},
    [LOADER_SGLANG] = {"sglang", "SGLang", "0.5.23"},
    [LOADER_TENSORRT_LLM] = {"tensorrt-llm", "TensorRT-LLM", "development sources of August 2026"},
};
const char *loader_name(enum loader loader) { return loaders[loader].name; }
const char *loader_title(enum loader loader) { return loaders[loader].title; }
const char *loader_version(enum loader loader) { return loaders[loader].version; }

enum loader loader_parse(const char *name) {
    for (int i = 0; i < LOADERS; i++)
        if (strcmp(loaders[i].name, name) == 0)
            return (enum loader)i;
    return LOADERS;
}

static const struct finding_kind kinds[FINDING_IDS] = {
    [CONFIG_MISSING] = {"config-missing", "The tensors are quantized, but config.json has no quantization_config."},
    [CONFIG_INVALID] = {"config-invalid", "quantization_config is not valid: compressed-tensors refuses to read it."},
    [QUANTIZATION_STATUS] = {"quantization-status", "quantization_status is not \"compressed\"."},
    [FORMAT_WRONG] = {"format-wrong", "A format in quantization_config is not that of the tensors."},
    [GROUP_FORMAT_MISSING] = {"group-format-missing", "A group has no format of its own and needs one."},
    [METHOD_NOT_PREDICTED] = {"method-not-predicted", "The quantization method is not compressed-tensors."},
    [MODULE_UNMATCHED] = {"module-unmatched", "No target matches the module of a quantized tensor."},
    [CHECKPOINT_NAMES_ONLY] = {"checkpoint-names-only", "Targets match checkpoint names, not vLLM's run-time names."},
    [RUNTIME_NAMES_ONLY] = {"runtime-names-only", "Targets match vLLM's run-time names, not the checkpoint's."},
    [MODULE_IGNORED] = {"module-ignored", "`ignore` covers a quantized module."},
    [TARGET_UNUSED] = {"target-unused", "A target matches no module."},
    [IGNORE_UNUSED] = {"ignore-unused", "An `ignore` entry matches no module."},
    [TWO_GROUPS] = {"two-groups", "Targets of two groups match one module."},
    [FUSED_GROUPS_DIFFER] = {"fused-groups-differ", "Parts of one fused layer get different schemes."},
    [FUSED_PARTLY_IGNORED] = {"fused-partly-ignored", "`ignore` covers some parts of a fused layer, not all."},
    [TARGET_CLASS_NAME] = {"target-class-name", "A class name is used as a target."},
    [PATTERN_UNANCHORED] = {"pattern-unanchored", "A pattern would match inside names, but never from their start."},
    [PATTERN_INVALID] = {"pattern-invalid", "A pattern is no usable regular expression."},
    [PLAIN_TARGETED] = {"plain-targeted", "A target matches a module whose weight is not quantized."},
    [VISION_TARGETED] = {"vision-targeted", "A target matches an unquantized module of a vision or audio tower."},
    [COMPANION_MISSING] = {"companion-missing", "A tensor that the scheme needs is not there."},
    [INPUT_SCALE_MISSING] = {"input-scale-missing", "Activations are static, but there is no input_scale."},
    [COMPANION_EXTRA] = {"companion-extra", "A tensor beside the weight has no place in the scheme."},
    [SCALE_ORPHAN] = {"scale-orphan", "A scale has no weight."},
    [TENSOR_MISSING] = {"tensor-missing", "A layer lacks a module that its peers have."},
    [TENSOR_DTYPE] = {"tensor-dtype", "A tensor has a dtype that the scheme cannot take."},
    [SCALE_SHAPE] = {"scale-shape", "A scale has a shape that the scheme cannot take."},
    [STRATEGY_MISMATCH] = {"strategy-mismatch", "The strategy contradicts the shape of the scales."},
    [GROUP_SIZE] = {"group-size", "group_size contradicts the width of the scales."},
    [PACKED_WIDTH] = {"packed-width", "The width of the packed weight contradicts its scales."},
    [SCALE_DTYPE] = {"scale-dtype", "scale_dtype contradicts the scheme."},
    [BITS_MISMATCH] = {"bits-mismatch", "num_bits or type contradict the stored weight."},
    [KERNEL_SHAPE] = {"kernel-shape", "MXFP4 kernels do not take this shape as it is."},
    [SCHEME_UNSUPPORTED] = {"scheme-unsupported", "A loader has no implementation of the scheme."},
    [SCALE_NAN] = {"scale-nan", "A scale is NaN."},
    [SCALE_INFINITE] = {"scale-infinite", "A scale is infinite."},
    [SCALE_ZERO] = {"scale-zero", "A scale is zero."},
    [SCALE_NEGATIVE] = {"scale-negative", "A scale is negative."},
    [SCALE_SUBNORMAL] = {"scale-subnormal", "A scale is subnormal."},
    [FUSED_SCALES_DIFFER] = {"fused-scales-differ", "Parts of one fused layer have different per-tensor scales."},
    [SHARD_MISSING] = {"shard-missing", "A shard that the index names is not there."},
    [SHARD_UNREADABLE] = {"shard-unreadable", "A shard is no valid safetensors file."},
    [INDEX_INVALID] = {"index-invalid", "The index is not valid."},
    [INDEX_WRONG_SHARD] = {"index-wrong-shard", "The index places a tensor in another shard than it lies in."},
    [INDEX_DANGLING] = {"index-dangling", "The index names a tensor that no shard holds."},
    [TENSOR_UNINDEXED] = {"tensor-unindexed", "A shard holds a tensor that the index does not name."},
    [TENSOR_DUPLICATE] = {"tensor-duplicate", "Two shards hold a tensor of the same name."},
    [SHARD_UNINDEXED] = {"shard-unindexed", "A safetensors file is not named by the index."},
    [INDEX_MISSING] = {"index-missing", "There are several shards, but no index."},
    [INDEX_SHADOWED] = {"index-shadowed", "model.safetensors lies beside an index."},
    [CONSOLIDATED_PRESENT] = {"consolidated-present", "consolidated*.safetensors files make vLLM read those."},
    [TOTAL_SIZE] = {"total-size", "The index's total_size is not the sum of the tensors."},
    [TIED_EMBEDDINGS] = {"tied-embeddings", "tie_word_embeddings contradicts the tensors."},
    [ARCHITECTURE_LAYERS] = {"architecture-layers", "config.json's number of layers contradicts the tensors."},
    [ARCHITECTURE_HIDDEN] = {"architecture-hidden", "config.json's hidden size contradicts the tensors."},
    [ARCHITECTURE_HEADS] = {"architecture-heads", "config.json's attention heads contradict the tensors."},
    [ARCHITECTURE_VOCABULARY] = {"architecture-vocabulary", "config.json's vocabulary contradicts the tensors."},
    [ARCHITECTURE_MLP] = {"architecture-mlp", "config.json's MLP width contradicts the tensors."},
    [ARCHITECTURE_EXPERTS] = {"architecture-experts", "config.json's number of experts contradicts the tensors."},
};
const struct finding_kind *finding_kind(enum finding_id id) { return &kinds[id]; }

static void subject_add(struct findings *findings, struct finding *finding, const char *subject) {
    size_t kept = finding->subject_count;
    const char *last = finding->last ? finding->last : kept > 0 ? finding->subjects[kept - 1] : "";
    if (kept > 0 && strcmp(last, subject) == 0)
        return;
    finding->count++;
    if (kept == SUBJECTS_MAX) {
        free(finding->last);
        finding->last = strdup(subject);
        findings->failed = findings->failed || !finding->last;
        return;
    }
    finding->subjects[kept] = strdup(subject);
    findings->failed = findings->failed || !finding->subjects[kept];
    finding->subject_count += finding->subjects[kept] != NULL;
}

void finding_add(struct findings *findings, enum finding_id id, enum severity severity, unsigned for_loaders,
                 const char *cause, const char *subject, const char *message, const char *fix) {
    if (!(for_loaders & findings->loaders))
        return;
    const bool room = array_reserve(findings->items, findings->count + 1, &findings->capacity);
    char *key = room ? text_format("%d %s", (int)id, cause) : NULL;
    bool added = false;
    uint32_t *number =
        key ? name_table_add(&findings->by_cause, key, strlen(key), (uint32_t)findings->count, &added) : NULL;
    if (!number) {
        findings->failed = true;
        free(key);
        return;
    }
    if (added) {
        struct finding *finding = &findings->items[findings->count++];
        *finding = (struct finding){.id = id, .cause = key, .message = strdup(message), .fix = strdup(fix)};
        findings->failed = findings->failed || !finding->message || !finding->fix;
    } else {
        free(key);
    }
    struct finding *finding = &findings->items[*number];
    finding->severity = severity > finding->severity ? severity : finding->severity;
    finding->loaders |= for_loaders;
    subject_add(findings, finding, subject);
}

void findings_free(struct findings *findings) {
    for (size_t i = 0; i < findings->count; i++) {
        struct finding *finding = &findings->items[i];
        for (size_t s = 0; s < finding->subject_count; s++)
            free(finding->subjects[s]);
        free(finding->last);
        free(finding->cause);
        free(finding->message);
        free(finding->fix);
    }
    free(findings->items);
    name_table_free(&findings->by_cause);
    *findings = (struct findings){0};
}

static int by_severity(const void *a, const void *b) {
    const struct finding *x = a, *y = b;
    if (x->severity != y->severity)
        return x->severity > y->severity ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return strcmp(x->cause, y->cause);
}

void findings_sort(struct findings *findings) {
    if (findings->count > 0)
        qsort(findings->items, findings->count, sizeof *findings->items, by_severity);
    name_table_free(&findings->by_cause); /* numbers are no longer true */
}

size_t findings_count(const struct findings *findings, enum severity severity) {
    size_t count = 0;
    for (size_t i = 0; i < findings->count; i++)
        count += findings->items[i].severity == severity;
    return count;
}
