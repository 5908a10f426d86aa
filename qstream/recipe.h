/*
 * Recipes: which weight gets which format. A JSON file in configs/ (schema: configs/recipe.schema.json):
 *
 *   {"schema": "qstream.recipe/1", "name": "...", "description": "...",
 *    "rules": [{"match": PATTERN, "format": "mxfp4" | "fp8" | "keep", "optional": false, "strategy":
 * "channel"}]}
 *
 * Rules are tried in order against the name of a weight's module (the tensor's name without ".weight"); the
 * first that matches decides; a weight that none matches is kept. PATTERN is as in common/pattern.h.
 * `strategy` (channel or tensor) says how fp8 quantizes a weight that is not FP8 yet. A rule that matches
 * nothing is an error unless it is optional. The regular expressions of "keep" rules become the `ignore` list
 * of the written config.json.
 */
#ifndef QSTREAM_QSTREAM_RECIPE_H
#define QSTREAM_QSTREAM_RECIPE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/pattern.h"
#include "common/status.h"

enum recipe_format { FORMAT_KEEP, FORMAT_MXFP4, FORMAT_FP8 };
const char *recipe_format_name(enum recipe_format format);

struct recipe_rule {
    struct pattern *pattern;
    enum recipe_format format;
    bool per_tensor; /* fp8: one scale per weight instead of one per output channel */
    bool optional;
    size_t matches; /* weights it decided; counted by recipe_rule_for */
};

struct recipe {
    char *name;
    char *bytes; /* the file as it was read */
    size_t length;
    struct recipe_rule *rules;
    size_t count;
};

/* Free with recipe_free, also after an error. Mistakes are STATUS_BAD_INPUT and name the rule. */
enum status recipe_read(const char *path, struct recipe *recipe, struct error *error);

/* The same from bytes; `path` is for messages. */
enum status recipe_parse(const char *path, const char *bytes, size_t length, struct recipe *recipe,
                         struct error *error);

void recipe_free(struct recipe *recipe);

/* The rule that decides for this module, counted; NULL when none does. */
enum status recipe_rule_for(struct recipe *recipe, const char *module, const struct recipe_rule **rule,
                            struct error *error);

/* After all weights: STATUS_BAD_INPUT when a rule that is not optional matched nothing. */
enum status recipe_check_used(const struct recipe *recipe, struct error *error);

#endif
