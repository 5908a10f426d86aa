/*
 * The decoder's parts, shared by opening (decode_open.c) and computing (decode.c).
 */
#ifndef QSTREAM_INFER_DECODE_PARTS_H
#define QSTREAM_INFER_DECODE_PARTS_H

#include "infer/cpu/layer.h"
#include "infer/cpu/workers.h"
#include "infer/decode.h"
#include "infer/kv_cache.h"
#include "infer/matvec.h"

enum { OPERANDS = 3 }; /* q, k and v may each round their activations differently */

/* x of a product, rounded and prepared. */
struct operand {
    void *prepared;
    float factor; /* of the product */
};

struct decoder {
    struct model model;
    struct decode_budget budget;
    struct workers *workers;
    const struct row_kernels *rows;
    enum cpu_level cpu;
    bool tied; /* the embedding is the head */
    uint32_t positions, position;

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

#endif
