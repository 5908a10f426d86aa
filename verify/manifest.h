/*
 * The manifest of a quantized folder, qstream.json (docs/schemas/qstream.manifest-1.schema.json), and recipes, as the
 * verifier reads them. On purpose not the quantizer's own reader.
 */
#ifndef QSTREAM_VERIFY_MANIFEST_H
#define QSTREAM_VERIFY_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/folder.h"
#include "common/sha256.h"

struct pattern;

/* What a recipe wants of a weight. */
enum wanted_format { WANTED_KEEP, WANTED_MXFP4, WANTED_FP8 };
const char *wanted_format_name(enum wanted_format format); /* as recipes spell it */

struct wanted_rule {
    struct pattern *pattern;
    enum wanted_format format;
};

struct wanted_recipe {
    char *name; /* NULL: none */
    struct wanted_rule *rules;
    size_t count;
};

struct manifest_file {
    char *name; /* path inside the folder, '/' between its parts; never absolute, no '..' */
    uint64_t size;
    uint8_t sha256[SHA256_SIZE];
};

struct manifest_source {
    char *name; /* of a shard of the source */
    uint64_t size;
    bool hashed; /* it was on the Hub, which knows its hash */
    uint8_t sha256[SHA256_SIZE];
};

struct manifest {
    uint8_t sha256[SHA256_SIZE]; /* of its own bytes */
    char *rule;                  /* "amax", "qstream", "mse" */
    char *gamma;                 /* "none", "layernorm", "original" */
    char *rounding;              /* "nearest", "calibrated" */
    char *ties;                  /* "even", "toward zero" */
    uint64_t tensor_bytes;
    char *source; /* its name, hf://org/name@COMMIT of one on the Hub; NULL: not told */
    struct wanted_recipe recipe;
    struct manifest_file *files;
    size_t file_count;
    struct manifest_source *sources;
    size_t source_count;
};

/*
 * Reads qstream.json of a folder. *found is false, and that is no error, when there is no such file. STATUS_BAD_INPUT,
 * naming the file and the member, when it is there but no manifest. Free with manifest_free, also after an error.
 */
enum status manifest_read(const struct folder *folder, struct manifest *manifest, bool *found, struct error *error);
void manifest_free(struct manifest *manifest);

/* Reads a recipe file (configs/recipe.schema.json). Free with wanted_recipe_free, also after an error. */
enum status wanted_recipe_read(const char *path, struct wanted_recipe *recipe, struct error *error);
void wanted_recipe_free(struct wanted_recipe *recipe);

/*
 * What the recipe wants of the module `name` (the source's name without ".weight"): the first rule that matches; KEEP
 * where none does. Patterns are as in common/pattern.h. Not for several threads at once.
 */
enum status wanted_format_of(const struct wanted_recipe *recipe, const char *name, enum wanted_format *format,
                             struct error *error);

#endif
