/*
 * What config.json says of a text model: sizes, rope, and how its server rounds activations.
 */
#ifndef QSTREAM_INFER_MODEL_CONFIG_H
#define QSTREAM_INFER_MODEL_CONFIG_H

#include "infer/model.h"

/* Fills the sizes, rope, epsilon, context and sliding window; *tied: whether a head may be the embedding. */
enum status model_config_read(struct model *model, bool *tied, struct error *error);

/*
 * How activations before a weight are rounded, by quantization_config (in config.json, or in its text_config): the
 * group of compressed-tensors that a module's name falls into, or the activation_scheme of quant_method fp8.
 */
struct activation_schemes;
enum status activation_schemes_read(const struct checkpoint *checkpoint, struct activation_schemes **schemes,
                                    struct error *error);
void activation_schemes_free(struct activation_schemes *schemes);

/* Sets place->weight.activations and group; a static scheme needs place->input_scale. `module`: the weight's name
 * without ".weight". */
enum status activation_scheme_of(struct activation_schemes *schemes, const char *module, struct weight_place *place,
                                 struct error *error);

#endif
