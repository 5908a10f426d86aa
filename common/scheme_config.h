/*
 * quantization_config written: from modules and their schemes to groups whose targets match just these, in the form
 * that compressed-tensors defines and that vLLM and transformers resolve.
 *
 * Target patterns are derived from the modules' names: layer and expert numbers generalized, projections of one parent
 * joined, the fused names that vLLM uses at run time added (qkv_proj, gate_up_proj), and written so that they match the
 * checkpoint's names as well as vLLM's (model.language_model.layers there, language_model.model.layers here). Each is
 * then tried on every module: it must match its own and nothing else, or a narrower form is used.
 */
#ifndef QSTREAM_COMMON_SCHEME_CONFIG_H
#define QSTREAM_COMMON_SCHEME_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct json_t;

/* The quantization scheme of a module; each kind becomes one config group. */
enum scheme {
    SCHEME_MXFP4,
    SCHEME_FP8_TENSOR_STATIC,
    SCHEME_FP8_TENSOR_DYNAMIC,
    SCHEME_FP8_CHANNEL_STATIC,
    SCHEME_FP8_CHANNEL_DYNAMIC,
    SCHEME_FP8_BLOCK,
    SCHEME_MXFP8,
    SCHEMES,
    SCHEME_NONE = SCHEMES /* not quantized */
};

struct scheme_module {
    char *name;
    enum scheme scheme;
};

/* Every module with a weight of two or more dimensions: those that targets must not match, too. */
struct scheme_set {
    const struct scheme_module *modules;
    size_t count;
    uint32_t block_rows, block_columns; /* of SCHEME_FP8_BLOCK */
};

/* Makes quantization_config, JSON null when no module is quantized. `ignore` is a JSON array, borrowed. */
enum status scheme_config_build(const struct scheme_set *set, const struct json_t *ignore, struct json_t **config,
                                struct error *error);

/* Appends a config.json with quantization_config set to `config`; all its other bytes stay as they are. */
enum status scheme_config_splice(const char *source, size_t length, const struct json_t *config, struct text *out,
                                 struct error *error);

#endif
