/*
 * A model in memory that takes one token after another: what generation runs on. Computes in float32 on weights as they
 * are stored; a CUDA device takes a prompt at once, in BF16. Results do not depend on the number of threads.
 */
#ifndef QSTREAM_INFER_DECODE_H
#define QSTREAM_INFER_DECODE_H

#include "common/cpu.h"
#include "infer/model.h"
#include "infer/perplexity.h" /* enum kv_cache */

struct decoder;

struct decode_options {
    struct model_options model;
    uint32_t positions;     /* tokens that it is to take, at least 1; fewer where the model's context is smaller */
    uint32_t least;         /* but so many */
    enum kv_cache kv_cache; /* AUTO: float32, on a CUDA device BF16 */
    uint64_t memory;        /* of weights, cache and the rest, bytes; with a device that of the host */
    struct device_choice device;
    bool plan_only; /* the decoder takes no token: only its budget counts */
    unsigned jobs;
    enum cpu_level cpu;
    bool quiet; /* no progress of loading */
};

/* What the decoder takes. Bytes. */
struct decode_budget {
    uint64_t weights, cache, work, total;
    uint64_t read;               /* of weights for each token */
    struct device_budget device; /* the figures above are of the host then */
};

/*
 * Opens and loads the model in `folder`. STATUS_BAD_INPUT when it cannot be run, or has a smaller context than
 * `least`; STATUS_USAGE when the memory is too small (how much is needed); STATUS_INTERRUPTED.
 */
enum status decoder_open(const char *folder, const struct decode_options *options, struct decoder **decoder,
                         struct error *error);
void decoder_close(struct decoder *decoder); /* NULL is fine */

const struct model *decoder_model(const struct decoder *decoder);
const struct decode_budget *decoder_budget(const struct decoder *decoder);
uint32_t decoder_position(const struct decoder *decoder);  /* tokens taken so far */
uint32_t decoder_positions(const struct decoder *decoder); /* the most that it takes */

/*
 * Takes the next token. With `logits` the logits of what follows it, [vocabulary], are computed and *logits points at
 * them until the next call; NULL leaves them out. STATUS_BAD_INPUT when the id is not below the vocabulary, a value is not
 * finite, or there is no position left.
 */
enum status decode_token(struct decoder *decoder, int32_t id, float **logits, struct error *error);

/* The same for a run of tokens; logits of the last one. STATUS_INTERRUPTED after a signal. */
enum status decode_prefill(struct decoder *decoder, const int32_t *ids, size_t count, float **logits,
                           struct error *error);

/* Forgets all tokens: the next one is at position 0. */
void decoder_restart(struct decoder *decoder);

/*
 * Bytes per second at which all threads read the weights when they do nothing but read them, within some 0.2 s; the best
 * of several tries.
 */
double decoder_read_rate(struct decoder *decoder);

#endif
