#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/audit.h"

bool ignore_is_conventional(const char *text) {
    static const char *const words[] = {"lm_head", "embed",  "vision", "visual", "multi_modal", "projector",
                                        "audio",   "router", "gate",   "mtp",    "norm",        "merger"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(text, words[i]))
            return true;
    return false;
}

/* "Linear", "LlamaAttention": not the name of any module. */
static bool is_class_name(const struct config_entry *entry) {
    return !entry->is_regex && !strchr(entry->text, '.') &&
           (entry->by_class > 0 || isupper((unsigned char)*entry->text));
}

static bool is_used(const struct config_entry *entry) {
    return entry->by_checkpoint_name > 0 || entry->by_runtime_name > 0;
}

static void invalid_find(struct audit *audit, const struct config_entry *entry) {
    audit_find(audit, PATTERN_INVALID, SEVERITY_ERROR, FOR_ALL, entry->text, entry->text,
               "correct the regular expression", "%s: loaders fail on it", entry->problem);
    if (!audit->config_error[LOADER_TRANSFORMERS]) /* vLLM fails where it reaches the pattern */
        audit->config_error[LOADER_TRANSFORMERS] = strdup(entry->problem);
}

/*
 * What PCRE2 and vLLM's regex module understand and Python's re does not: groups and escapes that it has no name for.
 */
static const char *python_refuses(const char *pattern) {
    for (const char *at = pattern; *at; at++) {
        if (*at == '\\') {
            at++;
            if (isalpha((unsigned char)*at) && !strchr("AbBdDsSwWZafnrtvxuUN", *at))
                return "an escape that Python's re does not have";
            if (!*at)
                return NULL;
        } else if (strncmp(at, "(?<", 3) == 0 && at[3] != '=' && at[3] != '!') {
            return "(?<name>...), which Python's re spells (?P<name>...)";
        } else if (strncmp(at, "(?|", 3) == 0 || strncmp(at, "(?&", 3) == 0 || strncmp(at, "(?'", 3) == 0 ||
                   strncmp(at, "(*", 2) == 0) {
            return "a group that Python's re does not have";
        }
    }
    return NULL;
}

static void pattern_check(struct audit *audit, const struct config_entry *entry) {
    const char *python = entry->is_regex && !entry->problem ? python_refuses(entry->text + 3) : NULL;
    if (entry->problem)
        invalid_find(audit, entry);
    if (!python)
        return;
    audit_find(audit, PATTERN_INVALID, SEVERITY_ERROR, FOR_TRANSFORMERS, entry->text, entry->text,
               "correct the regular expression", "the pattern '%s' has %s: transformers fails on it", entry->text,
               python);
    if (!audit->config_error[LOADER_TRANSFORMERS]) {
        audit->config_error[LOADER_TRANSFORMERS] = text_format("the pattern '%s' has %s", entry->text, python);
        audit->findings.failed |= !audit->config_error[LOADER_TRANSFORMERS];
    }
}

/* Modules without a target in a namespace: the unused target is meant for them, and one of the two is told. */
static bool unmatched(const struct audit *audit) {
    for (size_t i = 0; i < audit->findings.count; i++)
        if (audit->findings.items[i].id == MODULE_UNMATCHED || audit->findings.items[i].id == CHECKPOINT_NAMES_ONLY ||
            audit->findings.items[i].id == RUNTIME_NAMES_ONLY)
            return true;
    return false;
}

/* A target that matches attention modules themselves, and nothing in them. */
static bool matches_attention(const struct audit *audit, const struct config_entry *target) {
    const struct modules *modules = &audit->inspection->modules;
    for (size_t i = 0; i < modules->count; i++) {
        const struct module *module = &modules->items[i];
        const char *leaf = memrchr(module->name, '.', module->name_length);
        if (module->role != ROLE_ATTENTION || !leaf || strncmp(leaf, ".k_proj", 7) != 0)
            continue;
        char name[MODULE_NAME_MAX];
        struct error why;
        bool matches = false;
        snprintf(name, sizeof name, "%.*s", (int)(leaf - module->name), module->name);
        if (!target->is_regex)
            matches = strcmp(target->text, name) == 0;
        else if (!target->pattern || pattern_match(target->pattern, name, &matches, &why) != STATUS_OK)
            return false;
        if (matches)
            return true;
    }
    return false;
}

static void target_check(struct audit *audit, const struct config_entry *target) {
    const char *group = audit->inspection->quant.groups[target->group].name;
    if (target->problem)
        return;
    if (is_class_name(target) && !is_used(target))
        audit_find(audit, TARGET_CLASS_NAME, SEVERITY_WARNING, FOR_ALL, target->text, target->text,
                   "name the modules, by patterns that match both namespaces",
                   "group '%s' targets the class name '%s': vLLM takes it for a part of class names, so that it also "
                   "catches fused layers and, once `ignore` misses one, modules that are not quantized",
                   group, target->text);
    else if (!is_used(target) && matches_attention(audit, target))
        audit_find(
            audit, SCHEME_UNSUPPORTED, SEVERITY_ERROR, FOR_TRANSFORMERS, target->text, target->text,
            "target the projections (q_proj, k_proj, v_proj, o_proj) instead",
            "the target '%s' of group '%s' matches attention modules themselves: transformers refuses to quantize "
            "weights there",
            target->text, group);
    else if (!is_used(target) && target->inside_names == 0 && !unmatched(audit))
        audit_find(audit, TARGET_UNUSED, SEVERITY_WARNING, FOR_ALL, group, target->text, "correct or remove the target",
                   "the target '%s' of group '%s' matches no module", target->text, group);
}

static void ignore_check(struct audit *audit, const struct config_entry *entry) {
    if (entry->problem || is_used(entry) || entry->by_class > 0)
        return;
    if (entry->inside_names > 0)
        audit_find(audit, PATTERN_UNANCHORED, SEVERITY_WARNING, FOR_ALL, entry->text, entry->text,
                   "begin the pattern with re:.*",
                   "the `ignore` entry '%s' would match inside names, but loaders match from their start: it ignores "
                   "nothing",
                   entry->text);
    else if (!ignore_is_conventional(entry->text))
        audit_find(audit, IGNORE_UNUSED, SEVERITY_WARNING, FOR_ALL, "ignore", entry->text,
                   "correct or remove the entry", "the `ignore` entry '%s' matches no module", entry->text);
}

void audit_patterns(struct audit *audit) {
    const struct resolutions *r = &audit->resolutions;
    for (size_t i = 0; i < r->target_count; i++)
        pattern_check(audit, &r->targets[i]);
    for (size_t i = 0; i < r->ignore_count; i++)
        pattern_check(audit, &r->ignores[i]);
}

void audit_entries(struct audit *audit) {
    const struct resolutions *r = &audit->resolutions;
    for (size_t i = 0; i < r->target_count; i++)
        target_check(audit, &r->targets[i]);
    for (size_t i = 0; i < r->ignore_count; i++)
        ignore_check(audit, &r->ignores[i]);
}
