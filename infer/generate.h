/*
 * Continuing a text: the prompt's tokens go through the model, then one token after another is chosen.
 */
#ifndef QSTREAM_INFER_GENERATE_H
#define QSTREAM_INFER_GENERATE_H

#include "infer/decode.h"
#include "infer/sampler.h"

struct generation {
    const int32_t *prompt; /* at least one token */
    size_t prompt_count;
    const int32_t *ends; /* tokens that end the text */
    size_t end_count;
    uint32_t tokens; /* at most so many are made, at least 1 */
    struct sampler_options sampling;
};

enum generation_stop {
    STOP_END,    /* a token that ends the text was chosen */
    STOP_TOKENS, /* there are as many as wanted */
    STOP_CONTEXT /* the decoder has no space for more */
};

struct generation_result {
    uint32_t tokens; /* without the one that ends the text */
    enum generation_stop stop;
    double prompt_seconds; /* until the first token can be chosen */
    uint32_t steps;        /* tokens that went through the model after the prompt */
    double seconds;        /* of these, choosing and receiving included */
};

/* Takes a token that was made. A status other than STATUS_OK ends the generation with it. */
typedef enum status token_function(void *context, int32_t id, struct error *error);

/* The decoder is at its start. STATUS_INTERRUPTED after a signal. *result is filled as far as it went. */
enum status generation_run(struct decoder *decoder, const struct generation *generation, token_function *receive,
                           void *context, struct generation_result *result, struct error *error);

#endif
