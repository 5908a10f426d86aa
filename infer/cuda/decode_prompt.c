#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "infer/cuda/decode_cuda.h"
#include "infer/cuda/lay.h"
#include "infer/embedding.h"

enum { EVENT_LAYER = 4 }; /* and the next: a layer is computed. Those before are of cuda_steps. */

struct prompt {
    struct cuda_decoder *decoder;
    uint32_t tokens;
    unsigned char *memory; /* of the device, all of it */
    struct cuda_space space;
    float *hidden;
    uint32_t *positions;
    struct cuda_window *window;
    uint64_t *flags, *host_flags; /* [layers]: the first value behind a layer that is not finite */
};

/* Gives a prompt its places behind `base`; returns the bytes that they take. */
static uint64_t prompt_lay(const struct model *model, uint32_t tokens, unsigned char *base, struct prompt *prompt) {
    const struct cuda_shape shape = {.tokens = tokens};
    uint64_t at = 0;
    prompt->hidden = cuda_take(base, &at, (uint64_t)tokens * model->hidden * sizeof(float));
    prompt->positions = cuda_take(base, &at, (uint64_t)tokens * sizeof(uint32_t));
    prompt->window = cuda_take(base, &at, sizeof(struct cuda_window));
    prompt->flags = cuda_take(base, &at, model->layer_count * sizeof(uint64_t));
    cuda_space_lay(model, 1, CUDA_BF16, &shape, base ? base + at : NULL, &prompt->space);
    return at + prompt->space.size;
}

uint64_t cuda_prompt_bytes(const struct cuda_decoder *decoder, uint32_t tokens) {
    struct prompt prompt;
    return CUDA_PRODUCT_SPACE + prompt_lay(&decoder->base.model, tokens, NULL, &prompt);
}

/* Embeddings go through the pinned memory of the exchange, as many at a time as it holds. */
static enum status embeddings_upload(const struct prompt *prompt, const int32_t *ids, struct error *error) {
    struct cuda_decoder *decoder = prompt->decoder;
    const struct model *model = &decoder->base.model;
    const uint32_t most = (model->hidden + model->vocabulary) / model->hidden;
    enum status status = STATUS_OK;
    for (uint32_t first = 0; status == STATUS_OK && first < prompt->tokens; first += most) {
        const uint32_t count = prompt->tokens - first < most ? prompt->tokens - first : most;
        for (uint32_t i = 0; status == STATUS_OK && i < count; i++)
            status = embedding_load(model, &row_kernels_portable, (uint32_t)ids[first + i], decoder->embedding_row,
                                    decoder->exchange->values + (size_t)i * model->hidden, error);
        if (status != STATUS_OK)
            return status;
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        decoder->cuda.plugin->copy_in(decoder->cuda.device, CUDA_COMPUTE,
                                      prompt->hidden + (uint64_t)first * model->hidden, decoder->exchange->values,
                                      (uint64_t)count * model->hidden * sizeof(float));
        status = cuda_finish(&decoder->cuda, error);
    }
    return status;
}

static enum status prompt_upload(struct prompt *prompt, const int32_t *ids, struct error *error) {
    const struct cuda *cuda = &prompt->decoder->cuda;
    const uint32_t layers = prompt->decoder->base.model.layer_count;
    uint32_t *positions = malloc((uint64_t)prompt->tokens * sizeof *positions);
    prompt->host_flags = malloc(layers * sizeof *prompt->host_flags);
    if (!positions || !prompt->host_flags) {
        free(positions);
        return error_set_memory(error);
    }
    for (uint32_t i = 0; i < prompt->tokens; i++)
        positions[i] = i;
    memset(prompt->host_flags, 0xff, layers * sizeof *prompt->host_flags);
    const struct cuda_window window = {0, prompt->tokens};
    cuda->plugin->copy_in(cuda->device, CUDA_COMPUTE, prompt->positions, positions, prompt->tokens * sizeof *positions);
    cuda->plugin->copy_in(cuda->device, CUDA_COMPUTE, prompt->window, &window, sizeof window);
    cuda->plugin->copy_in(cuda->device, CUDA_COMPUTE, prompt->flags, prompt->host_flags,
                          layers * sizeof *prompt->host_flags);
    const enum status status = cuda_finish(cuda, error);
    free(positions);
    return status == STATUS_OK ? embeddings_upload(prompt, ids, error) : status;
}

static enum status flags_check(const struct prompt *prompt, struct error *error) {
    const struct model *model = &prompt->decoder->base.model;
    for (uint32_t layer = 0; layer < model->layer_count; layer++)
        if (prompt->host_flags[layer] != UINT64_MAX)
            return cuda_layer_damaged(prompt->decoder, layer, (uint32_t)(prompt->host_flags[layer] / model->hidden),
                                      error);
    return STATUS_OK;
}

/* The caller stays a layer ahead of the device and no more, so that an interrupt is soon heeded. */
static enum status layers_run(const struct prompt *prompt, struct error *error) {
    struct cuda_decoder *decoder = prompt->decoder;
    const struct model *model = &decoder->base.model;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    const struct cuda_group group = {.tokens = prompt->tokens,
                                     .window_count = 1,
                                     .longest = prompt->tokens,
                                     .positions = prompt->positions,
                                     .windows = prompt->window};
    const struct cuda_forward forward = {.cuda = &decoder->cuda,
                                         .model = model,
                                         .act = CUDA_BF16,
                                         .kv_cache = decoder->cache_type == CUDA_E4M3 ? KV_CACHE_FP8 : KV_CACHE_BF16,
                                         .rope = &decoder->rope,
                                         .space = &prompt->space};
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        cuda_layer_run(&forward, &decoder->layers[layer], &group, prompt->hidden);
        plugin->finite_check(device, prompt->hidden, (uint64_t)prompt->tokens * model->hidden, prompt->flags + layer);
        const struct cuda_step_attention cache = cuda_decoder_attention(decoder, layer);
        plugin->cache_fill(device, prompt->space.k, CUDA_BF16, prompt->tokens, model->kv_heads, model->head_dim,
                           decoder->cache_type, cache.cache_keys, decoder->base.positions);
        plugin->cache_fill(device, prompt->space.v, CUDA_BF16, prompt->tokens, model->kv_heads, model->head_dim,
                           decoder->cache_type, cache.cache_values, decoder->base.positions);
        plugin->event_record(device, EVENT_LAYER + layer % 2, CUDA_COMPUTE);
        plugin->event_wait(device, EVENT_LAYER + (layer + 1) % 2);
    }
    return cuda_status(&decoder->cuda, error);
}

/* The last token's values become decoder->hidden. */
static enum status prompt_finish(const struct prompt *prompt, struct error *error) {
    struct cuda_decoder *decoder = prompt->decoder;
    const struct model *model = &decoder->base.model;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    float *values = decoder->exchange->values;
    plugin->copy_out(device, CUDA_COMPUTE, values, prompt->hidden + (uint64_t)(prompt->tokens - 1) * model->hidden,
                     model->hidden * sizeof *values);
    plugin->copy_out(device, CUDA_COMPUTE, prompt->host_flags, prompt->flags,
                     model->layer_count * sizeof *prompt->flags);
    const enum status status = cuda_finish(&decoder->cuda, error);
    if (status != STATUS_OK)
        return status;
    plugin->copy_in(device, CUDA_COMPUTE, decoder->hidden, values, model->hidden * sizeof *values);
    return flags_check(prompt, error);
}

enum status cuda_prompt_run(struct cuda_decoder *decoder, const int32_t *ids, uint32_t tokens, struct error *error) {
    const struct model *model = &decoder->base.model;
    struct prompt prompt = {.decoder = decoder, .tokens = tokens};
    enum status status = cuda_allocate(&decoder->cuda, prompt_lay(model, tokens, NULL, &prompt), &prompt.memory, error);
    if (status == STATUS_OK) {
        prompt_lay(model, tokens, prompt.memory, &prompt);
        status = prompt_upload(&prompt, ids, error);
    }
    if (status == STATUS_OK)
        status = layers_run(&prompt, error);
    if (status == STATUS_OK)
        status = prompt_finish(&prompt, error);
    cuda_finish(&decoder->cuda, NULL); /* after an error too: nothing uses what is released */
    decoder->cuda.plugin->release(decoder->cuda.device, prompt.memory);
    free(prompt.host_flags);
    return status;
}
