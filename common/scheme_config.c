#include "common/scheme_config.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"
#include "common/pattern.h"

enum { MX_BLOCK = 32 }; /* columns that share an e8m0 scale */

/* ---- what each scheme looks like ---- */

static json_t *float_args(int bits, const char *strategy, bool dynamic) {
    return json_pack("{s:i, s:s, s:s, s:b, s:b}", "num_bits", bits, "type", "float", "strategy", strategy, "symmetric",
                     1, "dynamic", dynamic);
}

static json_t *group_args(int bits, int size, bool dynamic, bool exponents) {
    json_t *args = json_pack("{s:i, s:s, s:s, s:i, s:b, s:b}", "num_bits", bits, "type", "float", "strategy", "group",
                             "group_size", size, "symmetric", 1, "dynamic", dynamic);
    if (exponents)
        json_object_set_new(args, "scale_dtype", json_string("torch.uint8"));
    return args;
}

static json_t *block_args(const struct scheme_set *set) {
    json_t *args = float_args(8, "block", false);
    json_object_set_new(args, "block_structure", json_pack("[i, i]", (int)set->block_rows, (int)set->block_columns));
    return args;
}

static const char *scheme_format(enum scheme scheme) {
    if (scheme == SCHEME_MXFP4)
        return "mxfp4-pack-quantized";
    return scheme == SCHEME_MXFP8 ? "mxfp8-quantized" : "float-quantized";
}

static json_t *scheme_group(const struct scheme_set *set, enum scheme scheme, json_t *targets) {
    json_t *weights, *inputs;
    switch (scheme) {
    case SCHEME_MXFP4:
        weights = group_args(4, MX_BLOCK, false, true);
        inputs = json_null();
        break;
    case SCHEME_FP8_TENSOR_STATIC:
    case SCHEME_FP8_CHANNEL_STATIC:
        weights = float_args(8, scheme == SCHEME_FP8_TENSOR_STATIC ? "tensor" : "channel", false);
        inputs = float_args(8, "tensor", false);
        break;
    case SCHEME_FP8_BLOCK: /* as compressed-tensors' FP8_BLOCK preset */
        weights = block_args(set);
        inputs = group_args(8, (int)set->block_columns, true, false);
        break;
    case SCHEME_MXFP8:
        weights = group_args(8, MX_BLOCK, false, true);
        inputs = group_args(8, MX_BLOCK, true, true);
        break;
    default:
        weights = float_args(8, scheme == SCHEME_FP8_TENSOR_DYNAMIC ? "tensor" : "channel", false);
        inputs = float_args(8, "token", true);
    }
    return json_pack("{s:o, s:o, s:o, s:n, s:s}", "targets", targets, "weights", weights, "input_activations", inputs,
                     "output_activations", "format", scheme_format(scheme));
}

/* ---- target patterns ---- */

/* Stands for the first number of a name (the layer's) until it is known how to write it. */
#define NUMBER_MARK "\x01"

static void append_escaped(struct text *out, const char *word, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)word[i]) && word[i] != '_' && (unsigned char)word[i] < 0x80)
            text_append_string(out, "\\");
        text_append(out, word + i, 1);
    }
}

/*
 * The part of a module's name before its last component, as a regular expression that matches it in the
 * checkpoint's and in vLLM's namespace. `layer` and `layer_length` tell the first number.
 */
static void parent_pattern(const char *name, const char *leaf, struct text *out, const char **layer,
                           size_t *layer_length) {
    *layer = NULL;
    if (strncmp(name, "model.language_model.", 21) == 0 || strncmp(name, "language_model.model.", 21) == 0) {
        text_append_string(out, ".*language_model\\.(model\\.)?");
        name += 21;
    } else if (strncmp(name, "model.", 6) == 0 && strncmp(name, "model.layers.", 13) != 0) {
        text_append_string(out, "(model\\.)?"); /* towers and projectors: vLLM drops the prefix */
        name += 6;
    }
    while (name < leaf) {
        size_t length = strcspn(name, ".");
        if (strspn(name, "0123456789") == length && length > 0) {
            text_append_string(out, *layer ? "\\d+" : NUMBER_MARK);
            if (!*layer) {
                *layer = name;
                *layer_length = length;
            }
        } else {
            append_escaped(out, name, length);
        }
        text_append_string(out, "\\.");
        name += length + 1;
    }
}

static const char *leaf_of(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* {parent: {"leaves": {leaf: true}, "layers": {number: true}}} for the modules of a scheme. NULL: out of memory. */
static json_t *parents_collect(const struct scheme_set *set, enum scheme scheme) {
    json_t *parents = json_object();
    for (size_t i = 0; i < set->count; i++) {
        if (set->modules[i].scheme != scheme)
            continue;
        const char *name = set->modules[i].name, *leaf = leaf_of(name), *layer;
        size_t layer_length;
        struct text pattern = {0};
        text_append(&pattern, "", 0);
        parent_pattern(name, leaf, &pattern, &layer, &layer_length);
        if (pattern.failed) {
            text_free(&pattern);
            json_decref(parents);
            return NULL;
        }
        json_t *parent = json_object_get(parents, pattern.bytes);
        if (!parent) {
            parent = json_pack("{s:{}, s:{}}", "leaves", "layers");
            json_object_set_new(parents, pattern.bytes, parent);
        }
        text_free(&pattern);
        json_object_set_new(json_object_get(parent, "leaves"), leaf, json_true());
        if (layer)
            json_object_setn_new(json_object_get(parent, "layers"), layer, layer_length, json_true());
    }
    return parents;
}

/* Known projections in the order in which people write them, the fused names of vLLM after their parts. */
static const char *const projections[] = {"q_proj",    "k_proj",  "v_proj",    "o_proj",      "qkv_proj",
                                          "gate_proj", "up_proj", "down_proj", "gate_up_proj"};

static void leaves_add_fused(json_t *leaves, const char *parent) {
    if (json_object_get(leaves, "q_proj") && json_object_get(leaves, "k_proj") && json_object_get(leaves, "v_proj"))
        json_object_set_new(leaves, "qkv_proj", json_true());
    /* routed experts are probed one by one, as experts.0.gate_proj */
    if (!text_ends_with(parent, "experts\\.\\d+\\.") && json_object_get(leaves, "gate_proj") &&
        json_object_get(leaves, "up_proj"))
        json_object_set_new(leaves, "gate_up_proj", json_true());
}

static void leaves_append(struct text *out, const json_t *leaves) {
    static const char ending[] = "_proj";
    const char *ordered[64];
    size_t count = 0;
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++)
        if (json_object_get(leaves, projections[i]))
            ordered[count++] = projections[i];
    for (void *at = json_object_iter((json_t *)leaves); at; at = json_object_iter_next((json_t *)leaves, at)) {
        const char *leaf = json_object_iter_key(at);
        bool known = false;
        for (size_t i = 0; i < count; i++)
            known = known || strcmp(ordered[i], leaf) == 0;
        if (!known && count < sizeof ordered / sizeof *ordered)
            ordered[count++] = leaf;
    }
    bool shared = count > 1;
    for (size_t i = 0; i < count; i++)
        shared = shared && text_ends_with(ordered[i], ending);
    if (count > 1)
        text_append_string(out, "(");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            text_append_string(out, "|");
        append_escaped(out, ordered[i], strlen(ordered[i]) - (shared ? strlen(ending) : 0));
    }
    if (count > 1)
        text_append_string(out, ")");
    if (shared)
        text_append_string(out, ending);
}

static void layers_append(struct text *out, const json_t *layers, bool explicit) {
    if (!explicit) {
        text_append_string(out, "\\d+");
        return;
    }
    const char *separator = "(";
    for (void *at = json_object_iter((json_t *)layers); at; at = json_object_iter_next((json_t *)layers, at)) {
        text_append_string(out, separator);
        text_append_string(out, json_object_iter_key(at));
        separator = "|";
    }
    text_append_string(out, ")");
}

/* One pattern per parent; with `explicit` the layers are named one by one. NULL: out of memory. */
static json_t *targets_write(const json_t *parents, bool explicit) {
    json_t *targets = json_array();
    for (void *at = json_object_iter((json_t *)parents); at; at = json_object_iter_next((json_t *)parents, at)) {
        const char *parent = json_object_iter_key(at);
        json_t *entry = json_object_iter_value(at), *leaves = json_object_get(entry, "leaves");
        struct text pattern = {0};
        text_append_string(&pattern, "re:");
        const char *mark = strstr(parent, NUMBER_MARK);
        text_append(&pattern, parent, mark ? (size_t)(mark - parent) : strlen(parent));
        if (mark) {
            layers_append(&pattern, json_object_get(entry, "layers"), explicit);
            text_append_string(&pattern, mark + strlen(NUMBER_MARK));
        }
        leaves_add_fused(leaves, parent);
        leaves_append(&pattern, leaves);
        text_append_string(&pattern, "$");
        const bool failed = pattern.failed || json_array_append_new(targets, json_string(pattern.bytes)) != 0;
        text_free(&pattern);
        if (failed) {
            json_decref(targets);
            return NULL;
        }
    }
    return targets;
}

/* Whether the targets match every module of the scheme and no other. */
static enum status targets_check(const struct scheme_set *set, enum scheme scheme, const json_t *targets, bool *exact,
                                 struct error *error) {
    size_t count = json_array_size(targets);
    struct pattern **patterns = calloc(count + 1, sizeof(struct pattern *));
    enum status status = patterns ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = pattern_new(json_string_value(json_array_get(targets, i)), &patterns[i], error);
    *exact = true;
    for (size_t m = 0; m < set->count && *exact && status == STATUS_OK; m++) {
        bool any = false, matches;
        for (size_t i = 0; i < count && !any && status == STATUS_OK; i++) {
            status = pattern_match(patterns[i], set->modules[m].name, &matches, error);
            any = status == STATUS_OK && matches;
        }
        *exact = any == (set->modules[m].scheme == scheme);
    }
    for (size_t i = 0; i < count && patterns; i++)
        pattern_free(patterns[i]);
    free(patterns);
    return status;
}

static json_t *targets_by_name(const struct scheme_set *set, enum scheme scheme) {
    json_t *targets = json_array(); /* vLLM maps plain names to its own; patterns it leaves alone */
    for (size_t i = 0; i < set->count; i++)
        if (set->modules[i].scheme == scheme)
            json_array_append_new(targets, json_string(set->modules[i].name));
    return targets;
}

static enum status targets_derive(const struct scheme_set *set, enum scheme scheme, json_t **targets,
                                  struct error *error) {
    json_t *parents = parents_collect(set, scheme);
    enum status status = parents ? STATUS_OK : error_set_memory(error);
    bool exact = false;
    *targets = NULL;
    for (int explicit = 0; explicit <= 1 && !exact && (status == STATUS_OK || status == STATUS_BAD_INPUT);
         explicit ++) {
        json_decref(*targets);
        *targets = targets_write(parents, explicit);
        status = *targets ? targets_check(set, scheme, *targets, &exact, error) : error_set_memory(error);
        exact = exact && status == STATUS_OK;
    }
    json_decref(parents);
    if (!exact) {
        json_decref(*targets);
        *targets = NULL;
        if (status == STATUS_OK || status == STATUS_BAD_INPUT) { /* names or their number make no valid pattern */
            *targets = targets_by_name(set, scheme);
            status = *targets ? STATUS_OK : error_set_memory(error);
        }
    }
    return status;
}

/* config_groups; *format is NULL when no module is quantized. */
static enum status groups_build(const struct scheme_set *set, json_t *groups, const char **format,
                                struct error *error) {
    size_t count = 0;
    enum status status = STATUS_OK;
    *format = NULL;
    for (enum scheme scheme = 0; scheme < SCHEMES && status == STATUS_OK; scheme++) {
        bool used = false;
        for (size_t m = 0; m < set->count && !used; m++)
            used = set->modules[m].scheme == scheme;
        if (!used)
            continue;
        json_t *targets;
        status = targets_derive(set, scheme, &targets, error);
        if (status != STATUS_OK)
            break;
        char name[16];
        snprintf(name, sizeof name, "group_%zu", count++);
        json_object_set_new(groups, name, scheme_group(set, scheme, targets));
        bool mixed = *format && strcmp(*format, scheme_format(scheme)) != 0;
        *format = mixed ? "mixed-precision" : scheme_format(scheme);
    }
    return status;
}

enum status scheme_config_build(const struct scheme_set *set, const json_t *ignore, json_t **config,
                                struct error *error) {
    json_t *groups = json_object();
    const char *format = NULL;
    enum status status = groups ? groups_build(set, groups, &format, error) : error_set_memory(error);
    if (status == STATUS_OK) {
        *config = format ? json_pack("{s:s, s:s, s:s, s:O, s:O, s:n}", "quant_method", "compressed-tensors", "format",
                                     format, "quantization_status", "compressed", "config_groups", groups, "ignore",
                                     (json_t *)ignore, "kv_cache_scheme")
                         : json_null();
        if (!*config)
            status = error_set_memory(error);
    }
    json_decref(groups);
    return status;
}

enum status scheme_config_splice(const char *source, size_t length, const json_t *config, struct text *out,
                                 struct error *error) {
    char *dumped = json_dumps(config, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!dumped)
        return error_set_memory(error);
    struct text indented = {0};
    for (const char *line = dumped; *line;) {
        size_t end = strcspn(line, "\n");
        text_append(&indented, line, end);
        line += end;
        if (*line) {
            text_append_string(&indented, "\n  ");
            line++;
        }
    }
    free(dumped);
    if (!indented.failed)
        json_text_splice(out, source, length, "quantization_config", indented.bytes, "text_config");
    bool failed = indented.failed || out->failed;
    text_free(&indented);
    return failed ? error_set_memory(error) : STATUS_OK;
}
