/*
 * What config.json says of a text model: sizes, rope, and how its server rounds activations.
 */
#ifndef QSTREAM_INFER_MODEL_CONFIG_H
#define QSTREAM_INFER_MODEL_CONFIG_H

#include "infer/weight_format.h"

/* Fills the sizes, rope, epsilon, context and sliding window; *tied: whether a head may be the embedding. */
enum status model_config_read(struct model *model, bool *tied, struct error *error);

/*
 * How weights are scaled and activations before them are rounded, by quantization_config (in config.json, or in its text_config): the
 * group of compressed-tensors that a module's name falls into, or the activation_scheme of quant_method fp8.
 */
struct activation_schemes;
enum status activation_schemes_read(const struct checkpoint *checkpoint, struct activation_schemes **schemes,
                                    struct error *error);
void activation_schemes_free(struct activation_schemes *schemes);

/*
 * What a scale of FP8 weights covers where it is neither one for all nor one per row: weight_block_size of quant_method
 * fp8, block_structure or group_size of the module's group, 128 x 128 where the config says nothing.
 */
enum status scale_block_of(struct activation_schemes *schemes, const char *module, struct scale_block *block,
                           struct error *error);

/* Sets place->weight.activations and group; a static scheme needs place->input_scale. `module`: the weight's name
 * without ".weight". */
enum status activation_scheme_of(struct activation_schemes *schemes, const char *module, struct weight_place *place,
                                 struct error *error);

#endif
