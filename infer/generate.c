#include "infer/generate.h"

#include "common/interrupt.h"
#include "common/progress.h"

static bool is_end(const struct generation *generation, int32_t id) {
    for (size_t i = 0; i < generation->end_count; i++)
        if (generation->ends[i] == id)
            return true;
    return false;
}

/* From the logits behind the prompt on. */
static enum status tokens_make(struct decoder *decoder, const struct generation *generation, struct sampler *sampler,
                               float *logits, token_function *receive, void *context, struct generation_result *result,
                               struct error *error) {
    for (;;) {
        const int32_t id = sampler_choose(sampler, logits);
        if (is_end(generation, id)) {
            result->stop = STOP_END;
            return STATUS_OK;
        }
        enum status status = receive(context, id, error);
        if (status != STATUS_OK)
            return status;
        result->tokens++;
        result->stop = result->tokens == generation->tokens ? STOP_TOKENS : STOP_CONTEXT;
        if (result->tokens == generation->tokens || decoder_position(decoder) == decoder_positions(decoder))
            return STATUS_OK;
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        status = decode_token(decoder, id, &logits, error);
        if (status != STATUS_OK)
            return status;
        result->steps++;
    }
}

enum status generation_run(struct decoder *decoder, const struct generation *generation, token_function *receive,
                           void *context, struct generation_result *result, struct error *error) {
    *result = (struct generation_result){0};
    struct sampler *sampler;
    enum status status = sampler_open(&generation->sampling, decoder_model(decoder)->vocabulary, &sampler, error);
    if (status != STATUS_OK)
        return status;
    float *logits;
    const double start = seconds_now();
    status = decode_prefill(decoder, generation->prompt, generation->prompt_count, &logits, error);
    const double first = seconds_now();
    result->prompt_seconds = first - start;
    if (status == STATUS_OK)
        status = tokens_make(decoder, generation, sampler, logits, receive, context, result, error);
    result->seconds = seconds_now() - first;
    sampler_close(sampler);
    return status;
}
