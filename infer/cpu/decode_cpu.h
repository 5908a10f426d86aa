/*
 * The CPU's decoder: its parts, shared by opening (decode_cpu_open.c) and computing (decode_cpu.c).
 */
#ifndef QSTREAM_INFER_CPU_DECODE_CPU_H
#define QSTREAM_INFER_CPU_DECODE_CPU_H

#include "infer/cpu/layer.h"
#include "infer/cpu/workers.h"
#include "infer/decode_backend.h"
#include "infer/kv_cache.h"
#include "infer/matvec.h"

enum { OPERANDS = 3 }; /* q, k and v may each round their activations differently */

/* x of a product, rounded and prepared. */
struct operand {
    void *prepared;
    float factor; /* of the product */
};

struct cpu_decoder {
    struct decoder base;
    struct workers *workers;
    const struct row_kernels *rows;
    enum cpu_level cpu;

    /* weights */
    unsigned char *arena; /* layers, then the head */
    struct layer *layers;
    struct weight head;
    unsigned char *embedding_row; /* one row of an embedding that is not the head: read when it is needed */

    struct rope_table rope;
    struct kv_store cache;

    /* values of a token */
    unsigned char *work;
    float *norm; /* the last one's weight */
    float *hidden, *values, *rounded, *queries, *keys, *kv_values, *attended, *middle, *gate, *up, *logits;
    struct operand operands[OPERANDS];
    struct kv_part *parts;       /* [heads][chunks] */
    unsigned char *attend_space; /* attend_bytes for each thread */
    size_t attend_bytes;
};

enum status cpu_decoder_open(struct decoder *decoder, const struct decode_options *options, struct error *error);
void cpu_decoder_close(struct decoder *decoder);
double cpu_decoder_read_rate(struct decoder *decoder);

#endif
