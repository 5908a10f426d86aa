/*
 * What vLLM makes of a model's module names: how names of the checkpoint become run-time names, and which projections
 * it loads into one fused layer. Figures from vLLM 0.33, vllm/model_executor/models/: hf_to_vllm_mapper and
 * packed_modules_mapping of each model class.
 */
#ifndef QSTREAM_COMMON_ARCHITECTURE_H
#define QSTREAM_COMMON_ARCHITECTURE_H

#include "common/text.h"

struct architecture;

/* The entry for config.json's architectures[0]; one that fits most models for an unknown name, or NULL. */
const struct architecture *architecture_find(const char *name);

/* Appends the run-time name of a module whose name has `length` bytes. */
void architecture_map_module(const struct architecture *architecture, const char *name, size_t length,
                             struct text *out);

/* Appends a target or `ignore` entry as vLLM reads it: plain names with a dot are mapped, patterns are not. */
void architecture_map_entry(const struct architecture *architecture, const char *entry, struct text *out);

/* A fused layer and the projections in it, in their order. */
enum { FUSED_PARTS = 4 };
struct fused_layer {
    const char *name;
    const char *parts[FUSED_PARTS]; /* NULL behind the last */
};

/* The fused layers of an architecture, in vLLM's order; NULL behind the last number. */
const struct fused_layer *architecture_fused(const struct architecture *architecture, size_t number);

/* The fused layer that the projection `leaf` (the last part of a module's name) is loaded into, or NULL. */
const struct fused_layer *architecture_fused_of(const struct architecture *architecture, const char *leaf);

/* The names of a routed expert's gate, up and down projections; an empty one is not there. `scratch` must outlive them. */
void architecture_experts(const struct architecture *architecture, const char *projections[3], char scratch[64]);

#endif
