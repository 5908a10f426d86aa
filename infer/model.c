#include "infer/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model_config.h"
#include "infer/space.h"
#include "infer/weight_format.h"

static const char *const prefixes[] = {"model.language_model.", "language_model.model.", "model.", ""};
static const char *const heads[] = {"lm_head", "language_model.lm_head", "model.lm_head",
                                    "model.language_model.lm_head"};
enum { PREFIXES = sizeof prefixes / sizeof *prefixes, HEADS = sizeof heads / sizeof *heads, MX_BLOCK = 32 };

const char *layer_weight_name(enum layer_weight weight) {
    static const char *const names[] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
    return names[weight];
}

/* Parts of a layer in memory begin at multiples of this. */
/* ---- finding weights ---- */

static const struct module *module_find(const struct model *model, const char *name) {
    static const char *const endings[] = {".weight", ".weight_packed"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const struct tensor *tensor = checkpoint_find_joined(&model->checkpoint, name, strlen(name), endings[i]);
        if (tensor)
            return &model->modules.items[model->modules.of_tensor[tensor - model->checkpoint.tensors]];
    }
    return NULL;
}

static uint64_t scale_count(const struct weight *weight) {
    return ((uint64_t)weight->rows + weight->scale_rows - 1) / weight->scale_rows *
           (((uint64_t)weight->columns + weight->scale_columns - 1) / weight->scale_columns);
}

/* The bias of a weight, which config.json says that it has. Without one in the checkpoint it is 0. */
static enum status bias_find(const struct model *model, const struct module *module, struct weight_place *place,
                             struct error *error) {
    place->bias = module_part(&model->checkpoint, module, PART_BIAS);
    if (!place->bias)
        return STATUS_OK;
    if (place->bias->info.rank != 1 || place->bias->info.shape[0] != place->weight.rows)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' does not have the %u elements of its weight's rows", model->checkpoint.path,
                         place->bias->info.name, place->weight.rows);
    place->bytes += space_aligned((uint64_t)place->weight.rows * sizeof(float));
    return float_tensor_check(&model->checkpoint, place->bias, error);
}

/* The weight of module `name`, [rows, columns]. */
static enum status weight_find(const struct model *model, struct activation_schemes *schemes, const char *name,
                               uint32_t rows, uint32_t columns, bool biased, struct weight_place *place,
                               struct error *error) {
    const struct checkpoint *checkpoint = &model->checkpoint;
    const struct module *module = module_find(model, name);
    if (!module)
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s.weight' is missing", checkpoint->path, name);
    *place = (struct weight_place){.codes = module_weight(checkpoint, module)};
    if (module->experts != 1 || place->codes->info.rank != 2 || module->rows != rows || module->columns != columns) {
        char shape[SHAPE_TEXT_MAX];
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' is %s, which is not a weight of [%u, %u] as config.json has it",
                         checkpoint->path, place->codes->info.name,
                         shape_text(place->codes->info.shape, place->codes->info.rank, shape), rows, columns);
    }
    struct weight *weight = &place->weight;
    weight->rows = rows;
    weight->columns = columns;
    struct scale_block block = {0};
    enum status status = STATUS_OK;
    if (module_is_quantized(module))
        status = scale_block_of(schemes, name, &block, error);
    if (status == STATUS_OK)
        status = weight_format_find(checkpoint, module, block, place, error);
    if (status != STATUS_OK)
        return status;
    place->input_scale = module_part(checkpoint, module, PART_INPUT_SCALE);
    place->bytes = space_aligned(place->codes->info.size);
    if (weight->format == WEIGHT_MXFP8 || weight->format == WEIGHT_MXFP4)
        place->bytes += space_aligned((uint64_t)rows * (columns / MX_BLOCK));
    else if (weight->format == WEIGHT_FP8)
        place->bytes += space_aligned(scale_count(weight) * sizeof(float));
    return biased ? bias_find(model, module, place, error) : STATUS_OK;
}

static enum status norm_find(const struct model *model, const char *name, const struct tensor **norm,
                             struct error *error) {
    *norm = checkpoint_find_joined(&model->checkpoint, name, strlen(name), ".weight");
    if (!*norm)
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s.weight' is missing", model->checkpoint.path, name);
    if ((*norm)->info.rank != 1 || (*norm)->info.shape[0] != model->hidden)
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' does not have the %u elements of hidden_size",
                         model->checkpoint.path, (*norm)->info.name, model->hidden);
    return float_tensor_check(&model->checkpoint, *norm, error);
}

/* ---- layers ---- */

static enum status layer_find(const struct model *model, const char *prefix, uint32_t index,
                              struct activation_schemes *schemes, struct layer_place *layer, struct error *error) {
    const uint32_t query = model->heads * model->head_dim, key = model->kv_heads * model->head_dim;
    const uint32_t shapes[LAYER_WEIGHTS][2] = {{query, model->hidden},
                                               {key, model->hidden},
                                               {key, model->hidden},
                                               {model->hidden, query},
                                               {model->intermediate, model->hidden},
                                               {model->intermediate, model->hidden},
                                               {model->hidden, model->intermediate}};
    char name[256];
    for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++) {
        struct weight_place *place = &layer->weights[i];
        snprintf(name, sizeof name, "%slayers.%u.%s.%s", prefix, index, i < WEIGHT_GATE ? "self_attn" : "mlp",
                 layer_weight_name(i));
        const bool biased = i < WEIGHT_GATE ? model->attention_bias : model->mlp_bias;
        enum status status = weight_find(model, schemes, name, shapes[i][0], shapes[i][1], biased, place, error);
        if (status == STATUS_OK && !model->options.activations_float)
            status = activation_scheme_of(schemes, name, place, error);
        if (status != STATUS_OK)
            return status;
        layer->bytes += place->bytes;
    }
    const struct tensor **const norms[] = {&layer->attention_norm, &layer->mlp_norm};
    static const char *const norm_names[] = {"input_layernorm", "post_attention_layernorm"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%slayers.%u.%s", prefix, index, norm_names[i]);
        enum status status = norm_find(model, name, norms[i], error);
        if (status != STATUS_OK)
            return status;
        layer->bytes += space_aligned((uint64_t)model->hidden * sizeof(float));
    }
    return STATUS_OK;
}

static enum status layers_find(struct model *model, const char *prefix, struct activation_schemes *schemes,
                               struct error *error) {
    enum status status = STATUS_OK;
    /* a layer has tensors: more layers than tensors are a mistake that must not cost memory */
    if (model->layer_count > model->checkpoint.tensor_count)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s/config.json': num_hidden_layers %u, but the checkpoint has only "
                           "%zu tensors",
                           model->checkpoint.path, model->layer_count, model->checkpoint.tensor_count);
    if (status == STATUS_OK) {
        model->layers = calloc(model->layer_count, sizeof *model->layers);
        if (!model->layers)
            status = error_set_memory(error);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < model->layer_count; i++)
        status = layer_find(model, prefix, i, schemes, &model->layers[i], error);
    return status;
}

/* What activations_text has seen: a bit for static, one for dynamic. */
static unsigned activations_bit(const struct weight_place *place) {
    switch (place->weight.activations) {
    case ACTIVATIONS_FLOAT:
        return 0;
    case ACTIVATIONS_FP8_STATIC:
        return 1;
    default:
        return 2;
    }
}

static const char *activations_text(const struct model *model) {
    static const char *const texts[] = {"float", "static fp8", "dynamic fp8", "static and dynamic fp8"};
    unsigned seen = activations_bit(&model->head);
    for (uint32_t i = 0; i < model->layer_count; i++)
        for (enum layer_weight j = 0; j < LAYER_WEIGHTS; j++)
            seen |= activations_bit(&model->layers[i].weights[j]);
    return texts[seen];
}

static enum status weights_find(struct model *model, bool tied, struct activation_schemes *schemes,
                                struct error *error) {
    char name[64];
    const char *prefix = NULL;
    for (size_t i = 0; i < PREFIXES && !prefix; i++) {
        snprintf(name, sizeof name, "%sembed_tokens", prefixes[i]);
        if (module_find(model, name))
            prefix = prefixes[i];
    }
    if (!prefix)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': no tensor is the embedding of a text model (PREFIX."
                         "embed_tokens.weight, PREFIX model, model.language_model or language_model.model)",
                         model->checkpoint.path);
    enum status status =
        weight_find(model, schemes, name, model->vocabulary, model->hidden, false, &model->embedding, error);
    if (status != STATUS_OK)
        return status;
    const char *head = NULL;
    for (size_t i = 0; i < HEADS && !head; i++)
        if (module_find(model, heads[i]))
            head = heads[i];
    if (head) {
        status = weight_find(model, schemes, head, model->vocabulary, model->hidden, false, &model->head, error);
        if (status == STATUS_OK && !model->options.activations_float)
            status = activation_scheme_of(schemes, head, &model->head, error);
    } else if (tied) {
        model->head = model->embedding;
    } else {
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor 'lm_head.weight' is missing, and config.json does not "
                         "tie the head to the embedding (tie_word_embeddings)",
                         model->checkpoint.path);
    }
    if (status == STATUS_OK) {
        snprintf(name, sizeof name, "%snorm", prefix);
        status = norm_find(model, name, &model->norm, error);
    }
    if (status == STATUS_OK)
        status = layers_find(model, prefix, schemes, error);
    model->activations = status == STATUS_OK ? activations_text(model) : "";
    return status;
}

enum status model_of_checkpoint(struct checkpoint checkpoint, const struct model_options *options, struct model *model,
                                struct error *error) {
    *model = (struct model){.checkpoint = checkpoint, .options = *options};
    bool tied = false;
    enum status status = modules_collect(&model->checkpoint, &model->modules, error);
    if (status == STATUS_OK)
        status = model_config_read(model, &tied, error);
    struct activation_schemes *schemes = NULL;
    if (status == STATUS_OK)
        status = activation_schemes_read(&model->checkpoint, &schemes, error);
    if (status == STATUS_OK)
        status = weights_find(model, tied, schemes, error);
    activation_schemes_free(schemes);
    model->rope.frequencies_bf16 = options->rope_bf16;
    return status;
}

enum status model_open(const char *folder, const struct model_options *options, struct model *model,
                       struct error *error) {
    struct checkpoint checkpoint;
    const enum status status = checkpoint_open(folder, &checkpoint, error);
    if (status == STATUS_OK)
        return model_of_checkpoint(checkpoint, options, model, error);
    *model = (struct model){.checkpoint = checkpoint, .options = *options};
    return status;
}

void model_close(struct model *model) {
    free(model->layers);
    modules_free(&model->modules);
    checkpoint_close(&model->checkpoint);
    *model = (struct model){0};
}

enum status model_ids_check(const struct model *model, const int32_t *ids, size_t count, struct error *error) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= model->vocabulary)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': token %d (number %zu of the text) is not in the model's vocabulary of %u: the "
                             "tokens are of another model's tokenizer",
                             model->checkpoint.path, ids[i], i, model->vocabulary);
    return STATUS_OK;
}

enum status model_window_check(const struct model *model, uint32_t tokens, struct error *error) {
    if (model->sliding_window > 0 && tokens > model->sliding_window)
        return error_set(
            error, STATUS_USAGE,
            "'%s': its attention sees %u tokens (sliding_window), which is not supported for windows of %u: they "
            "may have %u at most",
            model->checkpoint.path, model->sliding_window, tokens, model->sliding_window);
    return STATUS_OK;
}
