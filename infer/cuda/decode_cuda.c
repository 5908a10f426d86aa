#include "infer/cuda/decode_cuda.h"

#include "infer/cpu/activations.h" /* activations_equal */
#include "infer/embedding.h"

/* ---- one token ---- */

/*
 * `use` of the products of `count` weights, ys their results where MATVEC_Y wants them, x the source or what its norm makes of it; it has passed layer `layer`, -1: none.
 */
static void products_run(struct cuda_decoder *decoder, const struct weight *weights, unsigned count,
                         const float *source, const float *norm, int64_t layer, float *const ys[],
                         enum cuda_matvec_use use, float *to) {
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_matvec items[CUDA_MATVECS];
    for (unsigned i = 0; i < count; i++) {
        unsigned same = 0;
        while (same < i && !operands_equal(&weights[same], &weights[i]))
            same++;
        items[i] =
            (struct cuda_matvec){.weight = &weights[i], .prepared = decoder->prepared[same], .y = ys ? ys[i] : NULL};
        if (same < i)
            continue;
        const struct cuda_prepare prepare = {.source = source,
                                             .norm = norm,
                                             .epsilon = decoder->base.model.norm_epsilon,
                                             .weight = &weights[i],
                                             .prepared = decoder->prepared[i],
                                             .bad = layer >= 0 ? decoder->bad : NULL,
                                             .layer = layer >= 0 ? (uint32_t)layer : 0};
        plugin->prepare(decoder->cuda.device, &prepare);
    }
    plugin->matvec(decoder->cuda.device, items, count, use, to);
}

static void layer_run_token(struct cuda_decoder *decoder, uint32_t number) {
    const struct layer *layer = &decoder->layers[number];
    float *const projections[] = {decoder->queries, decoder->keys, decoder->values};
    products_run(decoder, &layer->weights[WEIGHT_Q], 3, decoder->hidden, layer->attention_norm, (int64_t)number - 1,
                 projections, MATVEC_Y, NULL);
    const struct cuda_step_attention attention = cuda_decoder_attention(decoder, number);
    decoder->cuda.plugin->step_attention(decoder->cuda.device, &attention);
    products_run(decoder, &layer->weights[WEIGHT_O], 1, decoder->attended, NULL, -1, NULL, MATVEC_ADD, decoder->hidden);
    products_run(decoder, &layer->weights[WEIGHT_GATE], 2, decoder->hidden, layer->mlp_norm, number, NULL,
                 MATVEC_SWIGLU, decoder->middle);
    products_run(decoder, &layer->weights[WEIGHT_DOWN], 1, decoder->middle, NULL, -1, NULL, MATVEC_ADD,
                 decoder->hidden);
}

static void layers_run(struct cuda_decoder *decoder) {
    for (uint32_t layer = 0; layer < decoder->base.model.layer_count; layer++)
        layer_run_token(decoder, layer);
}

static void head_run_token(struct cuda_decoder *decoder) {
    const struct cuda_prepare prepare = {.source = decoder->hidden,
                                         .norm = decoder->norm,
                                         .epsilon = decoder->base.model.norm_epsilon,
                                         .weight = decoder->heads,
                                         .prepared = decoder->prepared[0],
                                         .bad = decoder->bad,
                                         .layer = decoder->base.model.layer_count - 1};
    decoder->cuda.plugin->prepare(decoder->cuda.device, &prepare);
    for (uint32_t i = 0; i < decoder->slices; i++) {
        const struct cuda_matvec item = {.weight = &decoder->heads[i],
                                         .prepared = decoder->prepared[0],
                                         .y = decoder->logits + (size_t)i * decoder->head_rows};
        decoder->cuda.plugin->matvec(decoder->cuda.device, &item, 1, MATVEC_Y, NULL);
    }
}

/* Runs what `call` calls: from the second time on as one graph, which is recorded then. */
static enum status graph_run(struct cuda_decoder *decoder, struct step_graph *step, void (*call)(struct cuda_decoder *),
                             struct error *error) {
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    if (!step->ran) {
        call(decoder);
        step->ran = true;
        return cuda_status(&decoder->cuda, error);
    }
    if (!step->graph) {
        plugin->graph_begin(decoder->cuda.device);
        call(decoder);
        step->graph = plugin->graph_end(decoder->cuda.device);
        if (!step->graph)
            return cuda_status(&decoder->cuda, error);
    }
    plugin->graph_run(decoder->cuda.device, step->graph);
    return STATUS_OK;
}

enum status cuda_layer_damaged(const struct cuda_decoder *decoder, uint32_t layer, uint32_t position,
                               struct error *error) {
    return error_set(
        error, STATUS_BAD_INPUT,
        "'%s': layer %u gives NaN or infinity at position %u: a weight of it is damaged, or its values are "
        "beyond float32 (see 'qstream inspect --stats')",
        decoder->base.model.checkpoint.path, layer, position);
}

/* The logits of decoder->hidden, of that position, come to the host, if they are wanted; waits for what was begun. */
static enum status token_finish(struct cuda_decoder *decoder, uint32_t position, float **logits, struct error *error) {
    const struct model *model = &decoder->base.model;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    float *here = decoder->exchange->values + model->hidden;
    if (logits) {
        const enum status status = graph_run(decoder, &decoder->head_graph, head_run_token, error);
        if (status != STATUS_OK)
            return status;
        plugin->copy_out(device, CUDA_COMPUTE, here, decoder->logits, model->vocabulary * sizeof *here);
    }
    plugin->copy_out(device, CUDA_COMPUTE, &decoder->exchange->bad, decoder->bad, sizeof *decoder->bad);
    enum status status = cuda_finish(&decoder->cuda, error);
    if (status == STATUS_OK && decoder->exchange->bad != UINT32_MAX)
        status = cuda_layer_damaged(decoder, decoder->exchange->bad, position, error);
    if (status != STATUS_OK || !logits)
        return status;
    if (!row_kernels_portable.all_finite(here, model->vocabulary))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the logits at position %u hold NaN or infinity: a weight of the head is damaged",
                         model->checkpoint.path, position);
    *logits = here;
    return STATUS_OK;
}

static enum status token(struct decoder *base, uint32_t id, float **logits, struct error *error) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    struct cuda_exchange *exchange = decoder->exchange;
    enum status status =
        embedding_load(&base->model, &row_kernels_portable, id, decoder->embedding_row, exchange->values, error);
    if (status != STATUS_OK)
        return status;
    exchange->position = base->position;
    plugin->copy_in(device, CUDA_COMPUTE, decoder->hidden, exchange->values, base->model.hidden * sizeof(float));
    plugin->copy_in(device, CUDA_COMPUTE, decoder->position, &exchange->position, sizeof exchange->position);
    status = graph_run(decoder, &decoder->layers_graph, layers_run, error);
    return status == STATUS_OK ? token_finish(decoder, base->position, logits, error) : status;
}

/* ---- a prompt ---- */

static enum status run(struct decoder *base, const int32_t *ids, uint32_t count, float **logits, struct error *error) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    const enum status status = cuda_prompt_run(decoder, ids, count, error);
    return status == STATUS_OK ? token_finish(decoder, count - 1, logits, error) : status;
}

static bool takes_runs(const struct decoder *base, size_t count) {
    return count <= ((const struct cuda_decoder *)base)->prompt_most;
}

static double read_rate(struct decoder *base) {
    const struct cuda_decoder *decoder = (const struct cuda_decoder *)base;
    size_t largest = 0;
    for (size_t i = 0; i < decoder->steps.steps; i++)
        largest = decoder->step_sizes[i] > decoder->step_sizes[largest] ? i : largest;
    return decoder->cuda.plugin->read_rate(decoder->cuda.device, decoder->steps.places[largest].device,
                                           decoder->step_sizes[largest]);
}

const struct decode_backend decode_backend_cuda = {.size = sizeof(struct cuda_decoder),
                                                   .open = cuda_decoder_open,
                                                   .close = cuda_decoder_close,
                                                   .token = token,
                                                   .takes_runs = takes_runs,
                                                   .run = run,
                                                   .read_rate = read_rate};
