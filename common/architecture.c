#include "common/architecture.h"

#include <stdio.h>
#include <string.h>

struct architecture {
    const char *names;   /* separated by '|' */
    const char *renames; /* see architectures.inc */
    const char *fused;   /* names of fused_sets, separated by '|' */
    const char *experts; /* gate|up|down projection of a routed expert; empty: gate_proj|up_proj|down_proj */
};

static const struct fused_set {
    const char *set;
    struct fused_layer layer;
} fused_sets[] = {
    {"qkv", {"qkv_proj", {"q_proj", "k_proj", "v_proj"}}},
    {"gate_up", {"gate_up_proj", {"gate_proj", "up_proj"}}},
    {"qkv_a", {"fused_qkv_a_proj", {"q_a_proj", "kv_a_proj_with_mqa"}}},
    {"gdn", {"in_proj_qkvz", {"in_proj_qkv", "in_proj_z"}}},
    {"gdn", {"in_proj_ba", {"in_proj_b", "in_proj_a"}}},
    {"w13", {"w13", {"w1", "w3"}}},
    {"gate_up_w13", {"gate_up_proj", {"w1", "w3"}}},
    {"gate_up_c_fc", {"gate_up_proj", {"c_fc_0", "c_fc_1"}}},
    {"fc13", {"fc13", {"fc1", "fc3"}}},
    {"merged_linear", {"merged_linear", {"gate_proj", "up_proj"}}},
};
enum { FUSED_SETS = sizeof fused_sets / sizeof *fused_sets };

#include "common/architectures.inc"

/* Where a list item ends. */
static size_t item_length(const char *list) { return strcspn(list, "|"); }

static bool list_has(const char *list, const char *name) {
    size_t length = strlen(name);
    for (; *list; list += item_length(list), list += *list == '|')
        if (item_length(list) == length && memcmp(list, name, length) == 0)
            return true;
    return false;
}

const struct architecture *architecture_find(const char *name) {
    for (size_t i = 1; name && i < sizeof architectures / sizeof *architectures; i++)
        if (list_has(architectures[i].names, name))
            return &architectures[i];
    return &architectures[0];
}

/* Applies one rename of `length` bytes to *name; `next` is scratch. */
static void rename_apply(const char *rule, size_t length, struct text *name, struct text *next) {
    const char *arrow = memchr(rule, '>', length);
    size_t from = arrow ? (size_t)(arrow - rule) - 1 : 0, place = 0;
    if (!arrow || name->failed || from > name->length)
        return;
    if (*rule == '^') {
        if (memcmp(name->bytes, rule + 1, from) != 0)
            return;
    } else {
        const char *found = memmem(name->bytes, name->length, rule + 1, from);
        if (!found)
            return;
        place = (size_t)(found - name->bytes);
    }
    next->length = 0;
    text_append(next, name->bytes, place);
    text_append(next, arrow + 1, length - from - 2);
    text_append(next, name->bytes + place + from, name->length - place - from);
    struct text swap = *name;
    *name = *next;
    *next = swap;
}

static void map_name(const struct architecture *architecture, const char *name, size_t length, bool asking,
                     struct text *out) {
    struct text mapped = {0}, next = {0};
    text_append(&mapped, name, length);
    for (const char *rule = architecture->renames; *rule; rule += item_length(rule), rule += *rule == '|')
        if (asking || *rule != '@')
            rename_apply(rule, item_length(rule), &mapped, &next);
    out->failed = out->failed || mapped.failed || next.failed;
    if (!out->failed)
        text_append(out, mapped.bytes, mapped.length);
    text_free(&mapped);
    text_free(&next);
}

void architecture_map_entry(const struct architecture *architecture, const char *entry, struct text *out) {
    if (strchr(entry, '.') && strncmp(entry, "re:", 3) != 0)
        map_name(architecture, entry, strlen(entry), false, out);
    else
        text_append_string(out, entry);
}

void architecture_map_module(const struct architecture *architecture, const char *name, size_t length,
                             struct text *out) {
    struct text dotted = {0}; /* rules such as "lm_head." mean modules, too */
    text_append(&dotted, name, length);
    text_append_string(&dotted, ".");
    size_t start = out->length;
    if (!dotted.failed)
        map_name(architecture, dotted.bytes, dotted.length, true, out);
    out->failed = out->failed || dotted.failed;
    if (!out->failed && out->length > start)
        out->bytes[--out->length] = '\0';
    text_free(&dotted);
}

const struct fused_layer *architecture_fused(const struct architecture *architecture, size_t number) {
    for (const char *item = architecture->fused; *item; item += item_length(item), item += *item == '|')
        for (size_t i = 0; i < FUSED_SETS; i++)
            if (strlen(fused_sets[i].set) == item_length(item) &&
                memcmp(fused_sets[i].set, item, item_length(item)) == 0 && number-- == 0)
                return &fused_sets[i].layer;
    return NULL;
}

const struct fused_layer *architecture_fused_of(const struct architecture *architecture, const char *leaf) {
    const struct fused_layer *fused;
    for (size_t i = 0; (fused = architecture_fused(architecture, i)); i++)
        for (size_t part = 0; part < FUSED_PARTS && fused->parts[part]; part++)
            if (strcmp(fused->parts[part], leaf) == 0)
                return fused;
    return NULL;
}

void architecture_experts(const struct architecture *architecture, const char *projections[3], char scratch[64]) {
    static const char *const usual[3] = {"gate_proj", "up_proj", "down_proj"};
    const char *list = architecture->experts;
    for (int i = 0; i < 3; i++) {
        projections[i] = usual[i];
        if (!*architecture->experts)
            continue;
        size_t length = item_length(list);
        snprintf(scratch, 20, "%.*s", (int)length, list);
        projections[i] = scratch;
        scratch += 20;
        list += length + (list[length] == '|');
    }
}
