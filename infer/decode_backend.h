/*
 * What takes a token through a model in memory: the CPU, or a CUDA device. A backend's decoder begins with struct decoder.
 */
#ifndef QSTREAM_INFER_DECODE_BACKEND_H
#define QSTREAM_INFER_DECODE_BACKEND_H

#include "infer/decode.h"

enum { DECODE_PROGRAM_BYTES = 64 << 20 }; /* the program, its libraries, stacks, and a tokenizer of 131,072 tokens */

struct decoder {
    const struct decode_backend *backend;
    struct model model;
    struct decode_budget budget;
    bool tied; /* the embedding is the head */
    uint32_t positions, position;
};

struct decode_backend {
    size_t size; /* of its decoder, which comes filled with zeros behind the base */
    /* The base is filled, but for the budget: plans memory, loads the weights. */
    enum status (*open)(struct decoder *decoder, const struct decode_options *options, struct error *error);
    void (*close)(struct decoder *decoder); /* the backend's part, also after an error */
    /* Takes the token at decoder->position, and leaves that to the caller; id and position are checked. */
    enum status (*token)(struct decoder *decoder, uint32_t id, float **logits, struct error *error);
    /* A run of tokens at once, from the beginning, likewise; only where takes_runs is there and says so. */
    bool (*takes_runs)(const struct decoder *decoder, size_t count);
    enum status (*run)(struct decoder *decoder, const int32_t *ids, uint32_t count, float **logits,
                       struct error *error);
    double (*read_rate)(struct decoder *decoder);
};

extern const struct decode_backend decode_backend_cpu, decode_backend_cuda;

/* STATUS_USAGE when budget->total, the sum of the others, is more than options->memory. */
enum status decode_budget_check(struct decoder *decoder, const struct decode_options *options, struct error *error);

#endif
