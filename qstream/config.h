/*
 * The output's config.json: the source's bytes with quantization_config replaced by one that describes what was
 * written, in the form that compressed-tensors defines and that vLLM and transformers resolve.
 *
 * Target patterns are derived from the plan: names of modules with layer and expert numbers generalized,
 * projections of one parent joined, the fused names that vLLM uses at run time added (qkv_proj, gate_up_proj), and
 * written so that they match the checkpoint's names as well as vLLM's (model.language_model.layers there,
 * language_model.model.layers here). Each is then tried on every module of the checkpoint: it must match its own
 * and nothing else, or a narrower form is used.
 */
#ifndef QSTREAM_QSTREAM_CONFIG_H
#define QSTREAM_QSTREAM_CONFIG_H

#include "qstream/plan.h"

/* Appends the whole config.json. */
enum status config_build(const struct plan *plan, const struct recipe *recipe, struct text *out, struct error *error);

#endif
