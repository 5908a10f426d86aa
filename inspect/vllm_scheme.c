#include "inspect/vllm_scheme.h"

#include <string.h>

static bool is_one_of(const char *word, const char *const *list) {
    for (; word && *list; list++)
        if (strcmp(word, *list) == 0)
            return true;
    return false;
}

bool format_quantizes_activations(const char *format) {
    static const char *const formats[] = {"naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized",
                                          NULL};
    return is_one_of(format, formats);
}

static bool is_nvfp4(const struct quant_args *args) {
    return args->strategy == STRATEGY_TENSOR_GROUP && args->type == NUMBER_FLOAT && args->num_bits == 4 &&
           args->group_size == 16 && args->symmetric;
}

static bool is_mx(const struct quant_args *args, int bits) {
    return args->strategy == STRATEGY_GROUP && args->type == NUMBER_FLOAT && args->num_bits == bits &&
           args->group_size == 32 && args->symmetric;
}

static bool is_fp8_dynamic(const struct quant_args *inputs) {
    return inputs && inputs->type == NUMBER_FLOAT && inputs->num_bits == 8 && inputs->dynamic && inputs->symmetric &&
           (inputs->strategy == STRATEGY_TOKEN || inputs->strategy == STRATEGY_GROUP);
}

bool args_are_fp8_weight(const struct quant_args *args) {
    bool strategy =
        args->strategy == STRATEGY_TENSOR || args->strategy == STRATEGY_CHANNEL || args->strategy == STRATEGY_BLOCK;
    return args->type == NUMBER_FLOAT && args->symmetric && !args->dynamic && strategy;
}

static bool is_static_int8(const struct quant_args *args) {
    return args->present && args->type == NUMBER_INT && args->strategy == STRATEGY_TENSOR && args->num_bits == 8 &&
           !args->dynamic;
}

/* The rules for integers, and what is left; `inputs` NULL: none. */
static const char *vllm_int_scheme(const struct quant_args *weights, const struct quant_args *inputs,
                                   const struct quant_args *outputs, const char *format, const char **why) {
    bool packed = format && strcmp(format, "pack-quantized") == 0;
    bool wide = weights->strategy == STRATEGY_CHANNEL || weights->strategy == STRATEGY_GROUP;
    bool is_int = weights->type == NUMBER_INT && !weights->dynamic;
    if (wide && is_int && format && (packed || strcmp(format, "int-quantized") == 0) && inputs &&
        is_static_int8(inputs) && is_static_int8(outputs))
        return "CompressedTensorsWNA8O8Int";
    if (wide && is_int && packed && inputs && inputs->type == NUMBER_INT && inputs->symmetric && inputs->dynamic &&
        (inputs->strategy == STRATEGY_TOKEN || inputs->strategy == STRATEGY_GROUP)) {
        if (inputs->num_bits == 8)
            return "CompressedTensorsWNA8Int";
        if (inputs->num_bits == 4)
            return "CompressedTensorsWNA4Int";
    }
    if (wide && !inputs && !weights->dynamic && packed) {
        if (weights->num_bits >= 2 && weights->num_bits <= 8)
            return "CompressedTensorsWNA16";
        *why = "vLLM packs 2 to 8 bits";
        return NULL;
    }
    return NULL;
}

static bool is_w4a8_fp8(const struct quant_args *weights, const struct quant_args *inputs) {
    return inputs && weights->type == NUMBER_INT && weights->num_bits == 4 && weights->strategy == STRATEGY_GROUP &&
           weights->symmetric && !weights->dynamic && inputs->type == NUMBER_FLOAT && inputs->num_bits == 8 &&
           inputs->strategy == STRATEGY_TOKEN && inputs->dynamic && inputs->symmetric;
}

static bool is_fp8_inputs(const struct quant_args *inputs) {
    return inputs && inputs->type == NUMBER_FLOAT &&
           (inputs->dynamic || (inputs->symmetric && inputs->strategy == STRATEGY_TENSOR));
}

/* get_moe_method, and what the constructors assert. */
static const char *vllm_expert_scheme(const struct quant_config *config, const struct quant_group *group,
                                      const char **why) {
    const struct quant_args *weights = &group->weights;
    const struct quant_args *inputs = group->inputs.present && !group->inputs.empty ? &group->inputs : NULL;
    const char *format = group->format ? group->format : config->format;
    bool wide = weights->strategy == STRATEGY_CHANNEL || weights->strategy == STRATEGY_GROUP;
    *why = "vLLM has no method for routed experts of these arguments";
    if (is_mx(weights, 4))
        return is_fp8_dynamic(inputs) && !weights->dynamic ? "CompressedTensorsW4A8Mxfp4MoEMethod"
                                                           : "CompressedTensorsW4A4Mxfp4MoEMethod";
    if (is_mx(weights, 8) && strcmp(weights->scale_dtype, "uint8") == 0)
        return "CompressedTensorsW8A8Mxfp8MoEMethod";
    if (wide && !inputs && !weights->dynamic)
        return format && strcmp(format, "pack-quantized") == 0 && weights->num_bits >= 2 && weights->num_bits <= 8
                   ? "CompressedTensorsWNA16MoEMethod"
                   : NULL;
    if (is_nvfp4(weights))
        return !inputs || is_nvfp4(inputs) ? "CompressedTensorsW4A4Nvfp4MoEMethod" : NULL;
    if (args_are_fp8_weight(weights) && is_fp8_inputs(inputs)) {
        bool per_tensor = weights->strategy == STRATEGY_TENSOR && inputs->strategy == STRATEGY_TENSOR;
        bool per_channel = weights->strategy == STRATEGY_CHANNEL && inputs->strategy == STRATEGY_TOKEN;
        bool fits = per_tensor || (per_channel && inputs->dynamic) || weights->strategy == STRATEGY_BLOCK;
        *why =
            "vLLM asserts that experts in FP8 are per tensor with activations per tensor, per channel with activations "
            "per token, or in blocks";
        return fits ? "CompressedTensorsW8A8Fp8MoEMethod" : NULL;
    }
    if (!inputs)
        return NULL;
    bool token = inputs->strategy == STRATEGY_TOKEN && inputs->dynamic;
    if (weights->num_bits == 8 && inputs->num_bits == 8 && weights->symmetric && !weights->dynamic && token &&
        weights->strategy == STRATEGY_CHANNEL)
        return "CompressedTensorsW8A8Int8MoEMethod";
    if (is_w4a8_fp8(weights, inputs))
        return weights->group_size == 128 ? "CompressedTensorsW4A8Fp8MoEMethod" : NULL;
    if (weights->type == NUMBER_INT && inputs->type == NUMBER_INT && weights->num_bits == 4 && inputs->num_bits == 8 &&
        wide && token && weights->symmetric && !weights->dynamic)
        return "CompressedTensorsW4A8Int8MoEMethod";
    return NULL;
}

const char *vllm_scheme(const struct quant_config *config, const struct quant_group *group, bool expert,
                        const char **why) {
    if (expert)
        return vllm_expert_scheme(config, group, why);
    const struct quant_args *weights = &group->weights;
    const struct quant_args *inputs = group->inputs.present && !group->inputs.empty ? &group->inputs : NULL;
    const char *format = group->format ? group->format : config->format;
    *why = "vLLM has no scheme for these arguments";
    if (is_nvfp4(weights)) {
        if (inputs && !is_nvfp4(inputs)) {
            *why = "vLLM wants NVFP4 activations, or none, with NVFP4 weights";
            return NULL;
        }
        return "CompressedTensorsW4A4Fp4";
    }
    if (is_mx(weights, 4)) {
        return is_fp8_dynamic(inputs) && !weights->dynamic ? "CompressedTensorsW4A8Mxfp4"
                                                           : "CompressedTensorsW4A4Mxfp4";
    }
    if (is_mx(weights, 8) && strcmp(weights->scale_dtype, "uint8") == 0)
        return "CompressedTensorsW8A8Mxfp8";
    if (is_w4a8_fp8(weights, inputs)) {
        *why = "vLLM wants groups of 128 here, and a GPU of capability 9.0";
        return weights->group_size == 128 ? "CompressedTensorsW4A8Fp8" : NULL;
    }
    const char *scheme = vllm_int_scheme(weights, inputs, &group->outputs, format, why);
    if (scheme)
        return scheme;
    if (!format_quantizes_activations(format)) {
        if (args_are_fp8_weight(weights))
            *why = "vLLM takes FP8 weights only from a group whose format is float-quantized";
        return NULL;
    }
    if (args_are_fp8_weight(weights)) {
        bool dynamic = inputs && inputs->dynamic;
        if (weights->strategy == STRATEGY_BLOCK && weights->lenient && !weights->block_pair)
            return NULL;
        bool fits = is_fp8_inputs(inputs);
        if (fits && weights->strategy == STRATEGY_BLOCK && !dynamic) {
            *why = "vLLM asserts that activations are dynamic where weights are quantized in blocks";
            return NULL;
        }
        return fits ? "CompressedTensorsW8A8Fp8" : "CompressedTensorsW8A16Fp8";
    }
    if (!inputs)
        return NULL;
    bool per_row = weights->strategy == STRATEGY_TENSOR || weights->strategy == STRATEGY_CHANNEL;
    bool static_inputs = inputs->strategy == STRATEGY_TENSOR && !inputs->dynamic;
    bool token_inputs = inputs->strategy == STRATEGY_TOKEN && inputs->dynamic;
    if (weights->num_bits == 8 && inputs->num_bits == 8 && per_row && weights->symmetric && !weights->dynamic &&
        (static_inputs || token_inputs))
        return "CompressedTensorsW8A8Int8";
    if (weights->type == NUMBER_INT && inputs->type == NUMBER_INT && weights->num_bits == 4 && inputs->num_bits == 8 &&
        (weights->strategy == STRATEGY_GROUP || weights->strategy == STRATEGY_CHANNEL) && token_inputs &&
        weights->symmetric && !weights->dynamic)
        return "CompressedTensorsW4A8Int";
    return NULL;
}
