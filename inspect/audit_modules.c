#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/audit.h"
#include "inspect/vllm_scheme.h"

static const char write_targets[] = "let audit --fix write targets that match both namespaces";

/* What the rules for one module share. */
struct subject {
    struct audit *audit;
    const struct module *module;
    const struct module_resolution *resolution;
    const struct layer *layer; /* NULL: vLLM does not ask about it */
    struct module_predictions *predictions;
    char name[MODULE_NAME_MAX];
    char kind[64]; /* "attention fp8-tensor": what findings are gathered by */
    bool expert;
};

static void outcome_set(struct subject *s, enum loader loader, enum outcome outcome, const char *reason) {
    struct prediction *prediction = &s->predictions->by[loader];
    bool worse = prediction->outcome == OUTCOME_AS_MEANT || outcome == OUTCOME_REFUSES;
    if (!worse || outcome == OUTCOME_AS_MEANT)
        return;
    prediction->outcome = outcome;
    if (!s->audit->options.reasons)
        return;
    free(prediction->reason);
    prediction->reason = strdup(reason);
    s->audit->findings.failed = s->audit->findings.failed || !prediction->reason;
}

static const char *entry_text(const struct config_entry *entries, uint32_t entry) {
    return entry == NO_ENTRY ? "" : entries[entry].text;
}

static const struct quant_group *group_at(const struct subject *s, uint32_t group) {
    return group == NO_ENTRY ? NULL : &s->audit->inspection->quant.groups[group];
}

/* What becomes of a quantized weight in a layer that is not: packed tensors and scales have no place there. */
static enum outcome unquantized_outcome(const struct subject *s, enum loader loader) {
    bool bare = s->module->format == STORED_FP8_UNSCALED;
    if (loader == LOADER_VLLM)
        return bare ? OUTCOME_GARBAGE : OUTCOME_REFUSES;
    return OUTCOME_GARBAGE; /* unknown tensors are skipped, missing ones made up, FP8 codes cast */
}

/* ---- which group ---- */

/* The target that would match if it were not for its start; NULL: none. */
static const struct config_entry *unanchored_target(const struct subject *s) {
    const struct resolutions *r = &s->audit->resolutions;
    for (size_t i = 0; i < r->target_count; i++) {
        const struct config_entry *target = &r->targets[i];
        struct error why;
        bool matches = false;
        if (target->inside_names && !target->by_checkpoint_name && !target->by_runtime_name && target->anywhere &&
            pattern_match(target->anywhere, s->name, &matches, &why) == STATUS_OK && matches)
            return target;
    }
    return NULL;
}

static void unmatched_find(struct subject *s, unsigned loaders) {
    struct audit *audit = s->audit;
    const struct config_entry *unanchored = unanchored_target(s);
    if (unanchored)
        audit_find(audit, PATTERN_UNANCHORED, SEVERITY_ERROR, loaders, unanchored->text, s->name,
                   "begin the pattern with re:.*",
                   "the target '%s' would match inside names, but loaders match from their start: its modules get no "
                   "scheme, and their quantized tensors cannot be loaded",
                   unanchored->text);
    else
        audit_find(audit, MODULE_UNMATCHED, SEVERITY_ERROR, loaders, s->kind, s->name, write_targets,
                   "no target matches this module (%s), in the checkpoint's names or vLLM's: vLLM refuses its tensors, "
                   "transformers loads something else",
                   s->kind);
}

/* A quantized module that `vllm` or `transformers` (or both) give no scheme. */
static void unresolved_find(struct subject *s, bool vllm, bool transformers) {
    struct audit *audit = s->audit;
    const struct resolutions *r = &audit->resolutions;
    const struct module_resolution *res = s->resolution;
    unsigned loaders = (vllm ? FOR_VLLM : 0u) | (transformers ? FOR_TRANSFORMERS : 0u);
    bool ignored = s->layer && s->layer->ignored;
    if (s->layer && s->layer->partly_ignored && res->runtime_ignore == NO_ENTRY && !transformers)
        return; /* told for the part that is ignored */
    if (s->layer && s->layer->partly_ignored && res->runtime_ignore != NO_ENTRY) {
        audit_find(
            audit, FUSED_PARTLY_IGNORED, SEVERITY_ERROR, loaders, r->ignores[res->runtime_ignore].text, s->name,
            "ignore all parts of the layer, or none",
            "`ignore` has '%s', which covers this part of the fused layer '%s' but not the others: vLLM refuses to "
            "load the model",
            r->ignores[res->runtime_ignore].text, s->layer->name);
        return;
    }
    if ((ignored && vllm) || (transformers && res->checkpoint_ignore != NO_ENTRY)) {
        const char *entry =
            entry_text(r->ignores, res->checkpoint_ignore != NO_ENTRY ? res->checkpoint_ignore : res->runtime_ignore);
        audit_find(audit, MODULE_IGNORED, SEVERITY_ERROR, loaders, entry, s->name, "remove the entry from `ignore`",
                   "`ignore` has '%s', which covers this module although its tensors are quantized (%s): vLLM refuses "
                   "them, transformers loads something else",
                   entry, s->kind);
        return;
    }
    bool by_checkpoint = res->checkpoint_target != NO_ENTRY;
    bool by_runtime = res->runtime_target != NO_ENTRY || (s->layer && s->layer->resolution == RESOLVED_SCHEME);
    if (vllm && !by_runtime && by_checkpoint && !s->expert)
        audit_find(
            audit, CHECKPOINT_NAMES_ONLY, SEVERITY_ERROR, FOR_VLLM, "names", s->name, write_targets,
            "the target '%s' matches the checkpoint's (Hugging Face) names only; vLLM calls this layer '%s', finds "
            "no scheme for it and refuses its tensors",
            entry_text(r->targets, res->checkpoint_target), s->layer ? s->layer->name : "?");
    else if (transformers && !by_checkpoint && by_runtime)
        audit_find(audit, RUNTIME_NAMES_ONLY, SEVERITY_ERROR, FOR_TRANSFORMERS, "names", s->name, write_targets,
                   "the target '%s' matches vLLM's run-time names only; transformers has no scheme for this module and "
                   "makes its weight up",
                   entry_text(r->targets, res->runtime_target != NO_ENTRY ? res->runtime_target : s->layer->target));
    else if (!by_runtime || !by_checkpoint)
        unmatched_find(s, loaders);
}

/* ---- tensors against the group ---- */

static const char *fix_of(enum finding_id id) {
    switch (id) {
    case COMPANION_MISSING:
    case INPUT_SCALE_MISSING:
        return "make the checkpoint again from its source: the tensor was dropped";
    case COMPANION_EXTRA:
        return "remove the tensor, or describe it in quantization_config";
    case TENSOR_DTYPE:
    case SCALE_SHAPE:
    case PACKED_WIDTH:
        return "make the checkpoint again, or rewrite the tensor with the dtype and shape that the format has";
    default:
        return "let audit --fix write a group that describes the tensors";
    }
}

static void issues_find(struct subject *s, enum loader loader, const struct quant_group *group, const struct fit *fit) {
    for (size_t i = 0; i < fit->issue_count; i++) {
        const struct issue *issue = &fit->issues[i];
        const char *effect = issue->outcome == OUTCOME_REFUSES ? "refuses to load it" : "loads it and computes garbage";
        if (issue->id == COMPANION_EXTRA)
            audit_find(s->audit, issue->id, issue->outcome == OUTCOME_AS_MEANT ? SEVERITY_NOTE : SEVERITY_ERROR,
                       1u << loader, group->name, s->name, fix_of(issue->id), "%s", issue->detail);
        else
            audit_find(s->audit, issue->id, SEVERITY_ERROR, 1u << loader, group->name, s->name, fix_of(issue->id),
                       "%s: %s %s", issue->detail, loader_title(loader), effect);
        outcome_set(s, loader, issue->outcome, issue->detail);
    }
}

static bool fits(const struct subject *s, uint32_t group, enum loader loader) {
    struct fit fit;
    if (group == NO_ENTRY)
        return false;
    fit_check(s->audit->inspection, s->module, group_at(s, group), loader, s->expert, &fit);
    return fit.outcome == OUTCOME_AS_MEANT;
}

static void two_groups_find(struct subject *s, enum severity severity, unsigned loaders) {
    const struct resolutions *r = &s->audit->resolutions;
    uint32_t first = s->resolution->runtime_target, second = s->resolution->second_target;
    char cause[256];
    snprintf(cause, sizeof cause, "%u %u", r->targets[first].group, r->targets[second].group);
    audit_find(s->audit, TWO_GROUPS, severity, loaders, cause, s->name, "narrow one of the two targets",
               "both '%s' of group '%s' and '%s' of group '%s' match this module: vLLM takes the first in the config, "
               "transformers the first by its text",
               r->targets[first].text, group_at(s, r->targets[first].group)->name, r->targets[second].text,
               group_at(s, r->targets[second].group)->name);
}

/* A module that a loader gives a group: whether its tensors fit, and whose fault it is where they do not. */
static void resolved_check(struct subject *s, enum loader loader, uint32_t group) {
    const struct module_resolution *res = s->resolution;
    struct fit fit;
    fit_check(s->audit->inspection, s->module, group_at(s, group), loader, s->expert, &fit);
    s->predictions->by[loader].scheme = fit.scheme;
    if (loader == LOADER_VLLM && !fit.scheme)
        s->predictions->by[loader].resolution = RESOLVED_RAISES;
    if (fit.outcome == OUTCOME_AS_MEANT) {
        issues_find(s, loader, group_at(s, group), &fit);
        return;
    }
    bool second = res->second_target != NO_ENTRY;
    uint32_t second_group = second ? s->audit->resolutions.targets[res->second_target].group : (uint32_t)NO_ENTRY;
    if (s->expert && s->module->format != s->audit->inspection->modules.items[s->layer->modules[0]].format) {
        audit_find(s->audit, FUSED_GROUPS_DIFFER, SEVERITY_ERROR, 1u << loader, "experts", s->name,
                   "store all routed experts of a layer in one format",
                   "the routed experts of '%s' are stored in different formats: loaders read all of them in one",
                   s->layer->name);
        outcome_set(s, loader, fit.outcome, "other experts of the layer are stored in another format");
        return;
    }
    if (loader == LOADER_VLLM && s->layer && s->layer->fused && res->runtime_group != group &&
        fits(s, res->runtime_group, loader)) {
        audit_find(
            s->audit, FUSED_GROUPS_DIFFER, SEVERITY_ERROR, FOR_VLLM, s->layer->fused->name, s->name,
            "give all parts of a fused layer the same group",
            "vLLM fuses this module into '%s' and gives all of it the group of the first part, '%s'; the tensors "
            "here are those of group '%s'",
            s->layer->name, group_at(s, group)->name, group_at(s, res->runtime_group)->name);
        outcome_set(s, loader, fit.outcome, "another part of the fused layer decides its group");
        return;
    }
    if (second && (fits(s, second_group, loader) || fits(s, res->runtime_group, loader))) {
        two_groups_find(s, SEVERITY_ERROR, 1u << loader);
        outcome_set(s, loader, fit.outcome, "two groups match it, and the other one is taken");
        return;
    }
    issues_find(s, loader, group_at(s, group), &fit);
}

/* ---- modules ---- */

static void quantized_check(struct subject *s) {
    struct prediction *vllm = &s->predictions->by[LOADER_VLLM];
    struct prediction *transformers = &s->predictions->by[LOADER_TRANSFORMERS];
    bool vllm_none = vllm->resolution != RESOLVED_SCHEME,
         transformers_none = transformers->resolution != RESOLVED_SCHEME;
    if (vllm->resolution == RESOLVED_RAISES)
        outcome_set(s, LOADER_VLLM, OUTCOME_REFUSES, "parts of one layer resolve differently");
    else if (vllm_none)
        outcome_set(s, LOADER_VLLM, unquantized_outcome(s, LOADER_VLLM), "no scheme, but quantized tensors");
    if (transformers_none)
        outcome_set(s, LOADER_TRANSFORMERS, unquantized_outcome(s, LOADER_TRANSFORMERS),
                    "no scheme, but quantized tensors");
    if (s->expert && vllm->resolution == RESOLVED_RAISES)
        audit_find(s->audit, FUSED_GROUPS_DIFFER, SEVERITY_ERROR, FOR_VLLM, s->layer->name, s->name,
                   "give gate, up and down projections of experts the same group",
                   "the projections of routed experts resolve to different schemes: vLLM refuses to load the model");
    else if (vllm_none || transformers_none)
        unresolved_find(s, vllm_none, transformers_none);
    if (!vllm_none)
        resolved_check(s, LOADER_VLLM, vllm->group);
    if (!transformers_none)
        resolved_check(s, LOADER_TRANSFORMERS, transformers->group);
    const struct module_resolution *res = s->resolution;
    if (res->second_target != NO_ENTRY && res->runtime_group != NO_ENTRY &&
        !quant_groups_equal(&s->audit->inspection->quant, res->runtime_group,
                            s->audit->resolutions.targets[res->second_target].group))
        two_groups_find(s, SEVERITY_WARNING, FOR_ALL);
}

/* Whether an `ignore` entry would cover the module if it were not for its start; told then. */
static bool unanchored_ignore_find(struct subject *s, unsigned loaders) {
    const struct resolutions *r = &s->audit->resolutions;
    for (size_t i = 0; i < r->ignore_count; i++) {
        const struct config_entry *entry = &r->ignores[i];
        struct error why;
        bool matches = false;
        if (!entry->inside_names || entry->by_checkpoint_name || entry->by_runtime_name || !entry->anywhere ||
            pattern_match(entry->anywhere, s->name, &matches, &why) != STATUS_OK || !matches)
            continue;
        audit_find(
            s->audit, PATTERN_UNANCHORED, SEVERITY_ERROR, loaders, entry->text, entry->text,
            "begin the pattern with re:.*",
            "the `ignore` entry '%s' would match inside names, but loaders match from their start: a target then "
            "matches modules whose weights are not quantized, and loaders make their scales up",
            entry->text);
        outcome_set(s, loaders & FOR_VLLM ? LOADER_VLLM : LOADER_TRANSFORMERS, OUTCOME_GARBAGE,
                    "`ignore` should have covered it");
        if (loaders & FOR_VLLM && loaders & FOR_TRANSFORMERS)
            outcome_set(s, LOADER_TRANSFORMERS, OUTCOME_GARBAGE, "`ignore` should have covered it");
        return true;
    }
    return false;
}

static void plain_check(struct subject *s) {
    const struct prediction *vllm = &s->predictions->by[LOADER_VLLM];
    const struct prediction *transformers = &s->predictions->by[LOADER_TRANSFORMERS];
    const struct resolutions *r = &s->audit->resolutions;
    if (vllm->resolution == RESOLVED_RAISES && s->layer && !s->layer->partly_ignored)
        outcome_set(s, LOADER_VLLM, OUTCOME_REFUSES, "a pattern that is no regular expression");
    if (vllm->resolution == RESOLVED_RAISES && s->layer && s->layer->partly_ignored) {
        outcome_set(s, LOADER_VLLM, OUTCOME_REFUSES, "parts of one layer resolve differently");
        if (s->resolution->runtime_ignore != NO_ENTRY)
            unresolved_find(s, true, false);
        return;
    }
    if (s->expert && transformers->resolution == RESOLVED_SCHEME) {
        const struct quant_group *group = group_at(s, transformers->group);
        if (args_stored_format(&group->weights) == STORED_MXFP4 ||
            args_stored_format(&group->weights) == STORED_NVFP4) {
            outcome_set(s, LOADER_TRANSFORMERS, OUTCOME_REFUSES, "transformers takes routed experts for packed ones");
            audit_find(
                s->audit, SCHEME_UNSUPPORTED, SEVERITY_ERROR, FOR_TRANSFORMERS, "plain experts", s->name,
                "quantize the experts too, or serve with vLLM",
                "transformers reads routed experts by group '%s', whatever its targets, and fails on experts that "
                "are not quantized",
                group->name);
        }
    }
    const char *why;
    struct prediction *asked = &s->predictions->by[LOADER_VLLM];
    if (vllm->resolution == RESOLVED_SCHEME)
        asked->scheme = vllm_scheme(&s->audit->inspection->quant, group_at(s, vllm->group), s->expert, &why);
    bool raises = vllm->resolution == RESOLVED_SCHEME && !asked->scheme;
    unsigned loaders = 0;
    uint32_t target = NO_ENTRY, group = NO_ENTRY;
    if (!s->expert && transformers->resolution == RESOLVED_SCHEME) {
        loaders |= FOR_TRANSFORMERS;
        target = transformers->target;
        group = transformers->group;
    }
    if (vllm->resolution == RESOLVED_SCHEME) {
        loaders |= FOR_VLLM;
        target = vllm->target;
        group = vllm->group;
    }
    if (raises || (vllm->resolution == RESOLVED_SCHEME && s->layer->kind == LAYER_EMBEDDING))
        asked->resolution = RESOLVED_RAISES;
    if (!loaders || unanchored_ignore_find(s, loaders))
        return;
    bool scaled = module_scale(&s->audit->inspection->checkpoint, s->module) != NULL;
    for (enum loader loader = LOADER_VLLM; loader <= LOADER_TRANSFORMERS; loader++) {
        if (!(loaders & 1u << loader))
            continue;
        if (scaled) {
            struct fit fit;
            fit_check(s->audit->inspection, s->module, group_at(s, group), loader, s->expert, &fit);
            issues_find(s, loader, group_at(s, group), &fit);
            continue;
        }
        outcome_set(s, loader, OUTCOME_GARBAGE, "its weight is not quantized, but a target matches it");
    }
    if (scaled)
        return;
    bool vision = s->module->role == ROLE_VISION;
    audit_find(
        s->audit, vision ? VISION_TARGETED : PLAIN_TARGETED, SEVERITY_ERROR, loaders, entry_text(r->targets, target),
        s->name,
        vision ? "narrow the target to the language model, or add the tower to `ignore`"
               : "narrow the target, or add the module to `ignore`",
        "the target '%s' of group '%s' matches this module, whose weight is not quantized: loaders convert it and "
        "make its scale up",
        entry_text(r->targets, target), group_at(s, group)->name);
}

static void predict_start(struct subject *s) {
    const struct resolutions *r = &s->audit->resolutions;
    const struct module_resolution *res = s->resolution;
    struct prediction *vllm = &s->predictions->by[LOADER_VLLM];
    struct prediction *transformers = &s->predictions->by[LOADER_TRANSFORMERS];
    for (int loader = 0; loader < LOADERS; loader++)
        s->predictions->by[loader] = (struct prediction){
            .outcome = OUTCOME_AS_MEANT, .resolution = RESOLVED_PLAIN, .group = NO_ENTRY, .target = NO_ENTRY};
    if (s->layer) {
        vllm->resolution = s->layer->resolution;
        vllm->group = s->layer->group;
        vllm->target = s->layer->target;
    }
    if (s->expert && r->expert_group != NO_ENTRY) {
        transformers->resolution = RESOLVED_SCHEME;
        transformers->group = r->expert_group;
    } else if (res->in_transformers && res->checkpoint_target != NO_ENTRY && res->checkpoint_ignore == NO_ENTRY) {
        transformers->resolution = RESOLVED_SCHEME;
        transformers->group = res->checkpoint_group;
        transformers->target = res->checkpoint_target;
    }
}

/* Loaders that refuse the configuration as a whole refuse every module. */
static void config_errors_apply(struct subject *s) {
    for (int loader = 0; loader < LOADERS; loader++)
        if (s->audit->config_error[loader]) {
            s->predictions->by[loader].resolution = RESOLVED_RAISES;
            outcome_set(s, (enum loader)loader, OUTCOME_REFUSES, s->audit->config_error[loader]);
        }
}

static void module_check(struct audit *audit, uint32_t number) {
    const struct inspection *inspection = audit->inspection;
    struct subject s = {.audit = audit,
                        .module = &inspection->modules.items[number],
                        .resolution = &audit->resolutions.modules[number],
                        .predictions = &audit->modules[number]};
    s.layer = s.resolution->layer == NO_LAYER ? NULL : &audit->resolutions.layers[s.resolution->layer];
    s.expert = s.layer && s.layer->kind == LAYER_EXPERTS;
    module_name_text(s.module, s.name);
    snprintf(s.kind, sizeof s.kind, "%s %s", role_name(s.module->role), stored_format_name(s.module->format));
    const struct tensor *scale = module_scale(&inspection->checkpoint, s.module);
    if (!module_weight(&inspection->checkpoint, s.module) && scale) {
        audit_find(audit, SCALE_ORPHAN, SEVERITY_ERROR, FOR_ALL, role_name(s.module->role), scale->info.name,
                   "make the checkpoint again: the weight was dropped, or the scale should have been",
                   "this scale has no weight: vLLM refuses it, transformers makes the weight up");
        return;
    }
    if (!s.resolution->candidate)
        return;
    predict_start(&s);
    if (audit->config_error[LOADER_VLLM] && audit->config_error[LOADER_TRANSFORMERS]) {
        config_errors_apply(&s);
        return;
    }
    if (module_is_quantized(s.module))
        quantized_check(&s);
    else
        plain_check(&s);
    const char *status = inspection->quant.status;
    if (module_is_quantized(s.module) && !s.expert && !(status && strcmp(status, "compressed") == 0))
        outcome_set(&s, LOADER_TRANSFORMERS, OUTCOME_GARBAGE, "quantization_status is not compressed");
    config_errors_apply(&s);
}

/* compressed-tensors unpacks MX formats to bfloat16 and nothing else. */
static void model_dtype_check(struct audit *audit) {
    const json_t *config = audit->inspection->config, *text = json_object_get(config, "text_config");
    const char *dtype = NULL;
    const json_t *const holders[] = {config, text};
    for (int i = 0; i < 2 && !dtype; i++) {
        dtype = json_string_value(json_object_get(holders[i], "dtype"));
        if (!dtype)
            dtype = json_string_value(json_object_get(holders[i], "torch_dtype"));
    }
    if (!dtype || (strcmp(dtype, "float16") != 0 && strcmp(dtype, "float32") != 0))
        return;
    for (size_t i = 0; i < audit->inspection->modules.count; i++) {
        const struct module *module = &audit->inspection->modules.items[i];
        char name[MODULE_NAME_MAX];
        bool mx = module->format == STORED_MXFP4 || module->format == STORED_MXFP8 || module->format == STORED_NVFP4;
        if (!mx || module->role == ROLE_EXPERT)
            continue;
        audit_find(audit, SCHEME_UNSUPPORTED, SEVERITY_ERROR, FOR_TRANSFORMERS, "dtype", module_name_text(module, name),
                   "set the dtype in config.json to bfloat16",
                   "config.json's dtype is %s, compressed-tensors unpacks %s to bfloat16: transformers' first matrix "
                   "product fails",
                   dtype, stored_format_name(module->format));
    }
}

/* A static cache scheme makes transformers look for k_scale and v_scale; vLLM takes 1 where there are none. */
static void cache_scales_check(struct audit *audit) {
    const struct quant_args *cache = &audit->inspection->quant.kv_cache;
    const struct module *first = NULL;
    if (!cache->present || cache->refusal || cache->dynamic)
        return;
    for (size_t i = 0; i < audit->inspection->modules.count; i++) {
        const struct module *module = &audit->inspection->modules.items[i];
        if (memmem(module->name, module->name_length, ".k_scale", 8))
            return;
        if (!first && module->role == ROLE_ATTENTION)
            first = module;
    }
    char name[MODULE_NAME_MAX];
    if (first)
        audit_find(
            audit, COMPANION_MISSING, SEVERITY_ERROR, FOR_TRANSFORMERS, "kv cache", module_name_text(first, name),
            "set kv_cache_scheme to null, or store k_scale and v_scale",
            "kv_cache_scheme is static, but no k_scale or v_scale is stored: transformers makes them up (vLLM takes "
            "1)");
}

enum status audit_modules(struct audit *audit, struct error *error) {
    for (uint32_t i = 0; i < audit->inspection->modules.count; i++)
        module_check(audit, i);
    model_dtype_check(audit);
    cache_scales_check(audit);
    return audit->findings.failed ? error_set_memory(error) : STATUS_OK;
}
