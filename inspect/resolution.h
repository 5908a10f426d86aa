/*
 * Which group of quantization_config each module gets, as vLLM and as transformers decide it.
 *
 * vLLM 0.33 (layers/quantization/compressed_tensors/utils.py: should_ignore_layer, find_matched_target): asks once per
 * run-time layer, after projections were fused, by run-time name. An `ignore` entry that matches the layer's name, or
 * the names of all its parts; some parts only is an error. Then the first target, in the order of the config, that
 * matches the layer's name; else for a fused layer, when every part's name has a match, the first part's; else the
 * first target that matches the layer's class name (re: or a case-insensitive substring). Plain names with a dot are
 * mapped to run-time names first, re: patterns are not. Routed experts are decided by the projections of expert 0.
 *
 * transformers 5.23 with compressed-tensors 0.20 (utils/match.py): asks each nn.Linear and nn.Embedding by its name;
 * exact names before re: patterns before class names, each in the order of their text; an `ignore` entry that matches
 * the name or class wins. Routed experts: the first group with a re: target that says "experts", else the first with a
 * plain target, else the first.
 *
 * Both match re: patterns from the start of a name, not necessarily to its end.
 */
#ifndef QSTREAM_INSPECT_RESOLUTION_H
#define QSTREAM_INSPECT_RESOLUTION_H

#include "inspect/entries.h"
#include "inspect/inspection.h"

enum { NO_LAYER = UINT32_MAX, LAYER_PARTS = FUSED_PARTS };

/* A run-time layer of vLLM. */
enum layer_kind { LAYER_LINEAR, LAYER_HEAD, LAYER_EMBEDDING, LAYER_EXPERTS };
enum resolution { RESOLVED_SCHEME, RESOLVED_PLAIN, RESOLVED_RAISES };

struct layer {
    char *name;
    const char *class_name;
    enum layer_kind kind;
    const struct fused_layer *fused; /* NULL: one module, or experts */
    uint32_t modules[LAYER_PARTS];   /* in the order of the parts; NO_ENTRY where the checkpoint has none */
    bool ignored, partly_ignored;
    enum resolution resolution;
    uint32_t target, group; /* NO_ENTRY: none */
    bool by_class, by_parts;
};

/* What the two namespaces say of one module. */
struct module_resolution {
    bool candidate;       /* a loader may quantize it: a matrix that is no norm and no convolution */
    bool in_transformers; /* an nn.Linear or nn.Embedding there */
    uint32_t layer;       /* or NO_LAYER */
    uint32_t checkpoint_target, checkpoint_group; /* transformers'; NO_ENTRY: none */
    uint32_t checkpoint_ignore;                   /* the entry that ignores it */
    uint32_t runtime_target, runtime_group;       /* by its own run-time name */
    uint32_t runtime_ignore;
    uint32_t second_target; /* one that matches it too, of another group */
};

struct resolutions {
    const struct architecture *architecture;
    struct config_entry *targets, *ignores;
    size_t target_count, ignore_count;
    struct entry_list vllm_targets, transformers_targets, vllm_ignores, transformers_ignores;
    struct layer *layers;
    size_t layer_count, layer_capacity;
    struct name_table layer_names;
    struct module_resolution *modules; /* one for each of inspection.modules */
    uint32_t expert_group;             /* transformers' choice for routed experts, NO_ENTRY without groups */
    bool reached_invalid;              /* a search has come to a pattern that does not compile */
};

/* Fails only without memory. Free with resolutions_free, also after an error. */
enum status resolutions_make(const struct inspection *inspection, struct resolutions *resolutions, struct error *error);

void resolutions_free(struct resolutions *resolutions);

/* Appends a module's name in vLLM's namespace, before it is fused. */
void module_runtime_name(const struct resolutions *resolutions, const struct module *module, struct text *out);

/* Appends a module's name in transformers' namespace. */
void module_transformers_name(const struct inspection *inspection, const struct module *module, struct text *out);

#endif
