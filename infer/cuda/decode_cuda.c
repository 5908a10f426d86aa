#include "infer/cuda/decode_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "infer/cpu/activations.h" /* activations_equal */
#include "infer/cpu/rows.h"

/* ---- one token ---- */

/* Whether two weights take the same x from the same values. */
static bool operands_same(const struct weight *a, const struct weight *b) {
    return activations_equal(a, b) && a->format == b->format && a->columns == b->columns &&
           a->scale_columns == b->scale_columns;
}

/*
 * `use` of the products of `count` weights, x the source or what its norm makes of it; it has passed layer `layer`, -1: none.
 */
static void products_run(struct cuda_decoder *decoder, const struct weight *weights, unsigned count,
                         const float *source, const float *norm, int64_t layer, float *const ys[],
                         enum cuda_matvec_use use, float *to) {
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_matvec items[CUDA_MATVECS];
    for (unsigned i = 0; i < count; i++) {
        unsigned same = 0;
        while (same < i && !operands_same(&weights[same], &weights[i]))
            same++;
        items[i] = (struct cuda_matvec){.weight = &weights[i], .prepared = decoder->prepared[same], .y = ys[i]};
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
    const struct model *model = &decoder->base.model;
    const struct layer *layer = &decoder->layers[number];
    float *const projections[] = {decoder->queries, decoder->keys, decoder->values};
    products_run(decoder, &layer->weights[WEIGHT_Q], 3, decoder->hidden, layer->attention_norm, (int64_t)number - 1,
                 projections, MATVEC_Y, NULL);
    const struct cuda_step_attention attention = cuda_decoder_attention(decoder, number);
    decoder->cuda.plugin->step_attention(decoder->cuda.device, &attention);
    float *const space[] = {decoder->scratch, decoder->scratch + model->intermediate};
    products_run(decoder, &layer->weights[WEIGHT_O], 1, decoder->attended, NULL, -1, space, MATVEC_ADD,
                 decoder->hidden);
    products_run(decoder, &layer->weights[WEIGHT_GATE], 2, decoder->hidden, layer->mlp_norm, number, space,
                 MATVEC_SWIGLU, decoder->middle);
    products_run(decoder, &layer->weights[WEIGHT_DOWN], 1, decoder->middle, NULL, -1, space, MATVEC_ADD,
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

static enum status layers_check(const struct cuda_decoder *decoder, struct error *error) {
    if (decoder->exchange->bad == UINT32_MAX)
        return STATUS_OK;
    return error_set(
        error, STATUS_BAD_INPUT,
        "'%s': layer %u gives NaN or infinity at position %u: a weight of it is damaged, or its values are "
        "beyond float32 (see 'qstream inspect --stats')",
        decoder->base.model.checkpoint.path, decoder->exchange->bad, decoder->base.position);
}

/* The logits of decoder->hidden come to the host, if they are wanted; waits for what was begun. */
static enum status token_finish(struct cuda_decoder *decoder, float **logits, struct error *error) {
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
    if (status == STATUS_OK)
        status = layers_check(decoder, error);
    if (status != STATUS_OK || !logits)
        return status;
    if (!row_kernels_portable.all_finite(here, model->vocabulary))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the logits at position %u hold NaN or infinity: a weight of the head is damaged",
                         model->checkpoint.path, decoder->base.position);
    *logits = here;
    return STATUS_OK;
}

static enum status token(struct decoder *base, uint32_t id, float **logits, struct error *error) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    struct cuda_exchange *exchange = decoder->exchange;
    enum status status = decode_embed(base, id, decoder->embedding_row, exchange->values, error);
    if (status != STATUS_OK)
        return status;
    exchange->position = base->position;
    plugin->copy_in(device, CUDA_COMPUTE, decoder->hidden, exchange->values, base->model.hidden * sizeof(float));
    plugin->copy_in(device, CUDA_COMPUTE, decoder->position, &exchange->position, sizeof exchange->position);
    status = graph_run(decoder, &decoder->layers_graph, layers_run, error);
    return status == STATUS_OK ? token_finish(decoder, logits, error) : status;
}

/* ---- a prompt ---- */

struct prompt {
    struct cuda_decoder *decoder;
    uint32_t tokens;
    unsigned char *memory;
    struct cuda_space space;
    float *hidden;
    struct cuda_group group;
};

static enum status prompt_upload(struct prompt *prompt, const int32_t *ids, struct error *error) {
    struct cuda_decoder *decoder = prompt->decoder;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    const uint32_t hidden = decoder->base.model.hidden;
    float *values = malloc((uint64_t)prompt->tokens * hidden * sizeof *values);
    uint32_t *positions = malloc((uint64_t)prompt->tokens * sizeof *positions);
    enum status status = values && positions ? STATUS_OK : error_set_memory(error);
    for (uint32_t i = 0; status == STATUS_OK && i < prompt->tokens; i++) {
        positions[i] = i;
        status =
            decode_embed(&decoder->base, (uint32_t)ids[i], decoder->embedding_row, values + (size_t)i * hidden, error);
    }
    if (status == STATUS_OK) {
        const struct cuda_window window = {0, prompt->tokens};
        plugin->copy_in(device, CUDA_COMPUTE, prompt->hidden, values,
                        (uint64_t)prompt->tokens * hidden * sizeof *values);
        plugin->copy_in(device, CUDA_COMPUTE, (void *)(uintptr_t)prompt->group.positions, positions,
                        prompt->tokens * sizeof *positions);
        plugin->copy_in(device, CUDA_COMPUTE, (void *)(uintptr_t)prompt->group.windows, &window, sizeof window);
        status = cuda_finish(&decoder->cuda, error);
    }
    free(values);
    free(positions);
    return status;
}

static uint64_t aligned(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

static enum status prompt_open(struct prompt *prompt, struct error *error) {
    const struct cuda_decoder *decoder = prompt->decoder;
    const struct model *model = &decoder->base.model;
    const struct cuda_shape shape = {.tokens = prompt->tokens};
    cuda_space_lay(model, 1, CUDA_BF16, &shape, NULL, &prompt->space);
    const uint64_t space = aligned(prompt->space.size),
                   hidden = aligned((uint64_t)prompt->tokens * model->hidden * sizeof(float)),
                   positions = aligned((uint64_t)prompt->tokens * sizeof(uint32_t));
    const enum status status =
        cuda_allocate(&decoder->cuda, space + hidden + positions + sizeof(struct cuda_window), &prompt->memory, error);
    if (status != STATUS_OK)
        return status;
    cuda_space_lay(model, 1, CUDA_BF16, &shape, prompt->memory, &prompt->space);
    prompt->hidden = (float *)(void *)(prompt->memory + space);
    prompt->group =
        (struct cuda_group){.tokens = prompt->tokens,
                            .window_count = 1,
                            .longest = prompt->tokens,
                            .positions = (uint32_t *)(void *)(prompt->memory + space + hidden),
                            .windows = (struct cuda_window *)(void *)(prompt->memory + space + hidden + positions)};
    return STATUS_OK;
}

/* The last token's values become decoder->hidden, as if the tokens had come one after another. */
static enum status prompt_run(struct prompt *prompt, struct error *error) {
    struct cuda_decoder *decoder = prompt->decoder;
    const struct model *model = &decoder->base.model;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    const struct cuda_forward forward = {.cuda = &decoder->cuda,
                                         .model = model,
                                         .act = CUDA_BF16,
                                         .kv_cache = decoder->cache_type == CUDA_E4M3 ? KV_CACHE_FP8 : KV_CACHE_BF16,
                                         .rope = &decoder->rope,
                                         .space = &prompt->space};
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        cuda_layer_run(&forward, &decoder->layers[layer], &prompt->group, prompt->hidden);
        const struct cuda_step_attention cache = cuda_decoder_attention(decoder, layer);
        plugin->cache_fill(device, prompt->space.k, CUDA_BF16, prompt->tokens, model->kv_heads, model->head_dim,
                           decoder->cache_type, cache.cache_keys, decoder->base.positions);
        plugin->cache_fill(device, prompt->space.v, CUDA_BF16, prompt->tokens, model->kv_heads, model->head_dim,
                           decoder->cache_type, cache.cache_values, decoder->base.positions);
    }
    struct cuda_exchange *exchange = decoder->exchange;
    plugin->copy_out(device, CUDA_COMPUTE, exchange->values,
                     prompt->hidden + (uint64_t)(prompt->tokens - 1) * model->hidden, model->hidden * sizeof(float));
    const enum status status = cuda_finish(&decoder->cuda, error);
    if (status != STATUS_OK)
        return status;
    plugin->copy_in(device, CUDA_COMPUTE, decoder->hidden, exchange->values, model->hidden * sizeof(float));
    return STATUS_OK;
}

static enum status run(struct decoder *base, const int32_t *ids, uint32_t count, float **logits, struct error *error) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    struct prompt prompt = {.decoder = decoder, .tokens = count};
    enum status status = prompt_open(&prompt, error);
    if (status == STATUS_OK)
        status = prompt_upload(&prompt, ids, error);
    if (status == STATUS_OK)
        status = prompt_run(&prompt, error);
    if (status == STATUS_OK)
        status = token_finish(decoder, logits, error);
    if (prompt.memory)
        decoder->cuda.plugin->release(decoder->cuda.device, prompt.memory);
    return status;
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
