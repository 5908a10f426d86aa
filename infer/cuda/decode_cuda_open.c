#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "infer/cuda/decode_cuda.h"
#include "infer/cuda/lay.h"

struct cuda_step_attention cuda_decoder_attention(const struct cuda_decoder *decoder, uint32_t layer) {
    const struct model *model = &decoder->base.model;
    unsigned char *keys = decoder->cache ? decoder->cache + layer * 2 * decoder->cache_bytes : NULL;
    return (struct cuda_step_attention){.heads = model->heads,
                                        .kv_heads = model->kv_heads,
                                        .head_dim = model->head_dim,
                                        .sliding = model->sliding_window,
                                        .positions = decoder->base.positions,
                                        .position = decoder->position,
                                        .cosines = decoder->rope.cosines,
                                        .sines = decoder->rope.sines,
                                        .query_factors = decoder->rope.query_factors,
                                        .queries = decoder->queries,
                                        .keys = decoder->keys,
                                        .values = decoder->values,
                                        .cache = decoder->cache_type,
                                        .cache_keys = keys,
                                        .cache_values = keys ? keys + decoder->cache_bytes : NULL,
                                        .space = decoder->attention_space,
                                        .out = decoder->attended};
}

/* ---- memory ---- */

/*
 * What a product's x and an attention take is the plug-in's to say; where it is only planned for, x counts as float32 in
 * whole steps of a warp and a scale for each block, and attention as the most shares.
 */
static uint64_t prepared_bytes(const struct cuda_decoder *decoder, const struct weight *weight) {
    enum { PLANNED = 5, STEP = 1024, HEADER = 1024 };
    return decoder->cuda.device ? decoder->cuda.plugin->prepared_bytes(weight)
                                : ((uint64_t)weight->columns + STEP - 1) / STEP * STEP * PLANNED + HEADER;
}

static uint64_t attention_bytes(const struct cuda_decoder *decoder) {
    enum { PLANNED = 128 };
    const struct model *model = &decoder->base.model;
    const struct cuda_step_attention attention = cuda_decoder_attention(decoder, 0);
    return decoder->cuda.device ? decoder->cuda.plugin->step_attention_bytes(&attention)
                                : (uint64_t)PLANNED * model->heads * (model->head_dim + 2) * sizeof(float);
}

/* Gives the values of a token their places behind `base`; returns the bytes that they take. */
static uint64_t work_lay(struct cuda_decoder *decoder, unsigned char *base) {
    const struct model *model = &decoder->base.model;
    const uint64_t query = (uint64_t)model->heads * model->head_dim, key = (uint64_t)model->kv_heads * model->head_dim;
    struct {
        float **place;
        uint64_t count;
    } const floats[] = {{&decoder->norm, model->hidden},
                        {&decoder->hidden, model->hidden},
                        {&decoder->queries, query},
                        {&decoder->keys, key},
                        {&decoder->values, key},
                        {&decoder->attended, query},
                        {&decoder->middle, model->intermediate},
                        {&decoder->logits, model->vocabulary}};
    uint64_t at = 0, prepared = prepared_bytes(decoder, &model->head.weight);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        *floats[i].place = cuda_take(base, &at, floats[i].count * sizeof(float));
    for (uint32_t i = 0; i < model->layer_count; i++)
        for (enum layer_weight j = 0; j < LAYER_WEIGHTS; j++)
            prepared = cuda_larger(prepared, prepared_bytes(decoder, &model->layers[i].weights[j].weight));
    for (int i = 0; i < CUDA_OPERANDS; i++)
        decoder->prepared[i] = cuda_take(base, &at, prepared);
    decoder->attention_space = cuda_take(base, &at, attention_bytes(decoder));
    decoder->position = cuda_take(base, &at, sizeof *decoder->position);
    decoder->bad = cuda_take(base, &at, sizeof *decoder->bad);
    return at;
}

static uint32_t slice_rows(const struct cuda_decoder *decoder, uint32_t slice) {
    const uint32_t rest = decoder->base.model.vocabulary - slice * decoder->head_rows;
    return rest < decoder->head_rows ? rest : decoder->head_rows;
}

static enum status budget_plan(struct cuda_decoder *decoder, const struct decode_options *options,
                               struct error *error) {
    struct decoder *base = &decoder->base;
    const struct model *model = &base->model;
    struct decode_budget *budget = &base->budget;
    struct device_budget *device = &budget->device;
    enum { SLICE_MIN = 16 << 20, SLICE_ROWS = 256 }; /* a slice of the head is about as large as a layer */
    uint64_t most = SLICE_MIN;
    for (uint32_t i = 0; i < model->layer_count; i++)
        most = cuda_larger(most, model->layers[i].bytes);
    decoder->head_rows = head_slice_rows(model, 1, SLICE_ROWS, most);
    decoder->slices = (model->vocabulary + decoder->head_rows - 1) / decoder->head_rows;
    const size_t steps = (size_t)model->layer_count + decoder->slices;
    decoder->step_sizes = malloc(steps * sizeof *decoder->step_sizes);
    if (!decoder->step_sizes)
        return error_set_memory(error);
    for (uint32_t i = 0; i < model->layer_count; i++)
        decoder->step_sizes[i] = model->layers[i].bytes;
    for (uint32_t i = 0; i < decoder->slices; i++)
        decoder->step_sizes[model->layer_count + i] = head_slice_bytes(model, 1, slice_rows(decoder, i));
    for (size_t i = 0; i < steps; i++)
        budget->read += decoder->step_sizes[i];
    static const enum cuda_type types[] = {
        [KV_CACHE_AUTO] = CUDA_BF16, [KV_CACHE_BF16] = CUDA_BF16, [KV_CACHE_FP8] = CUDA_E4M3};
    decoder->cache_type = types[options->kv_cache];
    decoder->cache_bytes = cuda_aligned((uint64_t)base->positions * model->kv_heads * model->head_dim *
                                        (decoder->cache_type == CUDA_BF16 ? 2 : 1));
    const struct prefetch_options prefetch = {.steps = steps, .sizes = decoder->step_sizes};
    cuda_budget_begin(&decoder->cuda, &options->device, device);
    device->resident = true;
    device->weights = cuda_steps_device_bytes(&decoder->cuda.info, &prefetch, true);
    device->states = decoder->cache_bytes * 2 * model->layer_count;
    device->work = work_lay(decoder, NULL) + cuda_rope_bytes(model, base->positions);
    device->total = device->weights + device->states + device->work;
    budget->weights = cuda_steps_host_bytes(&prefetch); /* they pass through */
    budget->work = DECODE_PROGRAM_BYTES + CUDA_HOST_BYTES +
                   ((uint64_t)model->vocabulary + model->hidden) * sizeof(float) +
                   weight_rows_bytes(&model->embedding, 1) + model->layer_count * sizeof *decoder->layers +
                   cuda_rope_bytes(model, base->positions) + options->least * sizeof(uint32_t);
    enum status status = decode_budget_check(base, options, error);
    if (status == STATUS_OK)
        status = cuda_budget_check(device, budget->total, "", error);
    if (status != STATUS_OK)
        return status;
    const uint64_t more = cuda_prompt_bytes(decoder, options->least);
    if (options->least > 1 && device->total + more + (device->unified ? budget->total : 0) <= device->memory) {
        decoder->prompt_most = options->least;
        device->work += more;
        device->total += more;
    }
    return STATUS_OK;
}

/* ---- loading ---- */

struct loading {
    struct cuda_decoder *decoder;
    struct layer *layers; /* as they were read */
    struct weight *heads;
    struct progress progress;
    uint64_t done;
};

static enum status step_load(void *context, size_t step, void *buffer, struct error *error) {
    struct loading *loading = context;
    const struct model *model = &loading->decoder->base.model;
    const uint32_t slice = (uint32_t)step - model->layer_count; /* behind the layers */
    if (interrupt_pending())
        return error_set(error, STATUS_INTERRUPTED, "interrupted");
    const enum status status =
        step < model->layer_count
            ? layer_load(model, (uint32_t)step, buffer, &loading->layers[step], error)
            : weight_rows_load(model, &model->head, slice * loading->decoder->head_rows,
                               slice_rows(loading->decoder, slice), buffer, &loading->heads[slice], error);
    loading->done += loading->decoder->step_sizes[step];
    progress_update(&loading->progress, loading->done);
    return status;
}

/* Codes of FP8 that are NaN are looked for here, since kernels take all codes for numbers. */
static enum status codes_check(struct cuda_decoder *decoder, struct error *error) {
    const struct model *model = &decoder->base.model;
    const struct cuda_plugin *plugin = decoder->cuda.plugin;
    struct cuda_device *device = decoder->cuda.device;
    const size_t in_layers = (size_t)model->layer_count * LAYER_WEIGHTS, count = in_layers + decoder->slices;
    uint64_t *flags = malloc(count * sizeof *flags), *there = NULL;
    enum status status =
        flags ? cuda_allocate(&decoder->cuda, count * sizeof *flags, &there, error) : error_set_memory(error);
    if (status == STATUS_OK) {
        memset(flags, 0xff, count * sizeof *flags);
        plugin->copy_in(device, CUDA_COMPUTE, there, flags, count * sizeof *flags);
        for (size_t i = 0; i < count; i++) {
            const struct weight *weight = i >= in_layers
                                              ? &decoder->heads[i - in_layers]
                                              : &decoder->layers[i / LAYER_WEIGHTS].weights[i % LAYER_WEIGHTS];
            if (weight->format == WEIGHT_FP8 || weight->format == WEIGHT_MXFP8)
                plugin->codes_check(device, weight->codes, (uint64_t)weight->rows * weight->columns, there + i);
        }
        plugin->copy_out(device, CUDA_COMPUTE, flags, there, count * sizeof *flags);
        status = cuda_finish(&decoder->cuda, error);
        plugin->release(device, there);
    }
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        const struct weight_place *place =
            i >= in_layers ? &model->head : &model->layers[i / LAYER_WEIGHTS].weights[i % LAYER_WEIGHTS];
        const uint64_t before =
            i >= in_layers ? (uint64_t)(i - in_layers) * decoder->head_rows * model->head.weight.columns : 0;
        if (flags[i] != UINT64_MAX)
            status =
                error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' holds NaN (element %llu): it is damaged",
                          model->checkpoint.path, place->codes->info.name, (unsigned long long)(before + flags[i]));
    }
    free(flags);
    return status;
}

static enum status weights_load(struct cuda_decoder *decoder, bool quiet, struct error *error) {
    const struct model *model = &decoder->base.model;
    struct loading loading = {.decoder = decoder,
                              .layers = calloc(model->layer_count, sizeof *loading.layers),
                              .heads = calloc(decoder->slices, sizeof *loading.heads)};
    decoder->layers = calloc(model->layer_count, sizeof *decoder->layers);
    decoder->heads = calloc(decoder->slices, sizeof *decoder->heads);
    if (!loading.layers || !loading.heads || !decoder->layers || !decoder->heads) {
        free(loading.layers);
        free(loading.heads);
        return error_set_memory(error);
    }
    progress_start(&loading.progress, "loading", decoder->base.budget.read, 0, quiet);
    const struct prefetch_options options = {.steps = (size_t)model->layer_count + decoder->slices,
                                             .sizes = decoder->step_sizes,
                                             .load = step_load,
                                             .context = &loading};
    enum status status = cuda_steps_open(&decoder->cuda, &options, true, &decoder->steps, error);
    for (uint32_t i = 0; status == STATUS_OK && i < model->layer_count; i++) {
        status = cuda_steps_next(&decoder->steps, i, error);
        decoder->layers[i] = cuda_steps_layer(&decoder->steps, &loading.layers[i]);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < decoder->slices; i++) {
        status = cuda_steps_next(&decoder->steps, (size_t)model->layer_count + i, error);
        decoder->heads[i] = cuda_steps_weight(&decoder->steps, &loading.heads[i]);
    }
    progress_end(&loading.progress);
    free(loading.layers);
    free(loading.heads);
    return status == STATUS_OK ? codes_check(decoder, error) : status;
}

static enum status spaces_make(struct cuda_decoder *decoder, struct error *error) {
    const struct model *model = &decoder->base.model;
    const struct cuda *cuda = &decoder->cuda;
    const uint64_t work = work_lay(decoder, NULL);
    const uint64_t exchange = sizeof *decoder->exchange + ((uint64_t)model->hidden + model->vocabulary) * sizeof(float);
    enum status status = cuda_rope_make(cuda, model, decoder->base.positions, &decoder->rope, error);
    if (status == STATUS_OK)
        status = cuda_allocate(cuda, decoder->base.budget.device.states, &decoder->cache, error);
    if (status == STATUS_OK)
        status = cuda_allocate(cuda, work, &decoder->work, error);
    if (status != STATUS_OK)
        return status;
    work_lay(decoder, decoder->work);
    void *address;
    decoder->exchange = cuda->plugin->allocate_host(cuda->device, exchange, &address);
    if (!decoder->exchange)
        return cuda_status(cuda, error);
    decoder->embedding_row = aligned_alloc(64, (weight_rows_bytes(&model->embedding, 1) + 63) / 64 * 64);
    if (!decoder->embedding_row)
        return error_set_memory(error);
    status = norm_load(model, model->norm, model->hidden, decoder->exchange->values, error);
    if (status != STATUS_OK)
        return status;
    decoder->exchange->bad = UINT32_MAX;
    cuda->plugin->copy_in(cuda->device, CUDA_COMPUTE, decoder->norm, decoder->exchange->values,
                          model->hidden * sizeof(float));
    cuda->plugin->copy_in(cuda->device, CUDA_COMPUTE, decoder->bad, &decoder->exchange->bad, sizeof *decoder->bad);
    return cuda_finish(cuda, error);
}

enum status cuda_decoder_open(struct decoder *base, const struct decode_options *options, struct error *error) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    enum status status = STATUS_OK;
    if (options->plan_only && options->device.memory > 0)
        cuda_describe(&options->device, &decoder->cuda);
    else
        status = cuda_open(&options->device, &decoder->cuda, error);
    if (status == STATUS_OK)
        status = cuda_heads_check(&base->model, error);
    if (status == STATUS_OK)
        status = budget_plan(decoder, options, error);
    if (status != STATUS_OK || options->plan_only)
        return status;
    status = weights_load(decoder, options->quiet, error);
    return status == STATUS_OK ? spaces_make(decoder, error) : status;
}

void cuda_decoder_close(struct decoder *base) {
    struct cuda_decoder *decoder = (struct cuda_decoder *)base;
    cuda_steps_close(&decoder->steps);
    if (decoder->layers_graph.graph)
        decoder->cuda.plugin->graph_free(decoder->layers_graph.graph);
    if (decoder->head_graph.graph)
        decoder->cuda.plugin->graph_free(decoder->head_graph.graph);
    cuda_close(&decoder->cuda); /* and what is left on the device */
    free(decoder->step_sizes);
    free(decoder->layers);
    free(decoder->heads);
    free(decoder->embedding_row);
}
