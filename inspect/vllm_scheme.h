/*
 * The class that vLLM 0.33 uses for a group of quantization_config, by the group's arguments; the format only tells FP8
 * and integers apart. From compressed_tensors.py:_get_scheme_from_parts for linear layers and
 * compressed_tensors_moe.py:get_moe_method for routed experts, with what their constructors assert.
 */
#ifndef QSTREAM_INSPECT_VLLM_SCHEME_H
#define QSTREAM_INSPECT_VLLM_SCHEME_H

#include "common/quant_config.h"

/* The class's name, or NULL and in *why a reason for people. `expert`: of routed experts. */
const char *vllm_scheme(const struct quant_config *config, const struct quant_group *group, bool expert,
                        const char **why);

/* A format in which vLLM looks for FP8 and int8 schemes. NULL is none. */
bool format_quantizes_activations(const char *format);

/* FP8 weights as vLLM knows them: symmetric, static, per tensor, channel or block. */
bool args_are_fp8_weight(const struct quant_args *args);

#endif
