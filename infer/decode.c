#include <inttypes.h>
#include <stdlib.h>

#include "common/interrupt.h"
#include "common/text.h"
#include "infer/cuda/cuda.h"
#include "infer/decode_backend.h"

/* ---- opening ---- */

static enum status context_fit(struct decoder *decoder, uint32_t least, struct error *error) {
    const struct model *model = &decoder->model;
    if (model->context > 0 && decoder->positions > model->context)
        decoder->positions = model->context;
    if (decoder->positions < least)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': %u tokens are more than its context of %u (max_position_embeddings)",
                         model->checkpoint.path, least, model->context);
    return STATUS_OK;
}

enum status decode_budget_check(struct decoder *decoder, const struct decode_options *options, struct error *error) {
    struct decode_budget *budget = &decoder->budget;
    const struct folder *folder = decoder->model.checkpoint.folder;
    budget->work += folders_memory(&folder, 1);
    if (__builtin_add_overflow(budget->weights + budget->work, budget->cache, &budget->total))
        budget->total = UINT64_MAX;
    if (budget->total <= options->memory)
        return STATUS_OK;
    char weights[TEXT_SIZE_MAX], cache[TEXT_SIZE_MAX], work[TEXT_SIZE_MAX];
    return error_set(error, STATUS_USAGE,
                     "--memory is too small: '%s' with %u tokens needs at least %" PRIu64
                     "MiB (weights %s, keys and values %s, the rest %s)",
                     decoder->model.checkpoint.path, decoder->positions, text_mebibytes(budget->total),
                     text_size(budget->weights, weights), text_size(budget->cache, cache),
                     text_size(budget->work, work));
}

enum status decoder_open(const char *folder, const struct decode_options *options, struct decoder **out,
                         struct error *error) {
    const struct decode_backend *backend = cuda_chosen(&options->device) ? &decode_backend_cuda : &decode_backend_cpu;
    struct decoder *decoder = calloc(1, backend->size);
    *out = decoder;
    if (!decoder)
        return error_set_memory(error);
    decoder->backend = backend;
    decoder->positions = options->positions;
    enum status status = model_open(folder, &options->model, &decoder->model, error);
    if (status == STATUS_OK)
        status = context_fit(decoder, options->least, error);
    if (status == STATUS_OK) {
        decoder->tied = decoder->model.head.codes == decoder->model.embedding.codes;
        status = backend->open(decoder, options, error);
    }
    if (status != STATUS_OK) {
        decoder_close(decoder);
        *out = NULL;
    }
    return status;
}

void decoder_close(struct decoder *decoder) {
    if (!decoder)
        return;
    decoder->backend->close(decoder);
    model_close(&decoder->model);
    free(decoder);
}

const struct model *decoder_model(const struct decoder *decoder) { return &decoder->model; }

const struct decode_budget *decoder_budget(const struct decoder *decoder) { return &decoder->budget; }

uint32_t decoder_position(const struct decoder *decoder) { return decoder->position; }

uint32_t decoder_positions(const struct decoder *decoder) { return decoder->positions; }

void decoder_restart(struct decoder *decoder) { decoder->position = 0; }

double decoder_read_rate(struct decoder *decoder) { return decoder->backend->read_rate(decoder); }

/* ---- tokens ---- */

static enum status ids_check(const struct decoder *decoder, const int32_t *ids, size_t count, struct error *error) {
    if (count > decoder->positions - decoder->position)
        return error_set(error, STATUS_BAD_INPUT, "there is no space for more than %u tokens", decoder->positions);
    return model_ids_check(&decoder->model, ids, count, error);
}

enum status decode_token(struct decoder *decoder, int32_t id, float **logits, struct error *error) {
    enum status status = ids_check(decoder, &id, 1, error);
    if (status == STATUS_OK)
        status = decoder->backend->token(decoder, (uint32_t)id, logits, error);
    if (status == STATUS_OK)
        decoder->position++;
    return status;
}

enum status decode_prefill(struct decoder *decoder, const int32_t *ids, size_t count, float **logits,
                           struct error *error) {
    if (decoder->position == 0 && count > 1 && decoder->backend->takes_runs &&
        decoder->backend->takes_runs(decoder, count)) {
        enum status status = ids_check(decoder, ids, count, error);
        if (status == STATUS_OK)
            status = decoder->backend->run(decoder, ids, (uint32_t)count, logits, error);
        if (status == STATUS_OK)
            decoder->position = (uint32_t)count;
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        const enum status status = decode_token(decoder, ids[i], i + 1 == count ? logits : NULL, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}
