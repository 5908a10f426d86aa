/*
 * Keys and values of the tokens so far, and the attention of one token over them. Keys are stored transposed, so that
 * scores are sums of rows with a factor for each, as the mix of values is.
 */
#ifndef QSTREAM_INFER_KV_CACHE_H
#define QSTREAM_INFER_KV_CACHE_H

#include "common/status.h"
#include "infer/cpu/combine.h"
#include "infer/cpu/rows.h"

enum { KV_CHUNK = 128 }; /* positions that are attended to at once */

struct kv_store {
    enum weight_format format; /* WEIGHT_F32, WEIGHT_BF16, WEIGHT_FP8 (of scale 1) */
    size_t element;            /* bytes of a value */
    uint32_t layers, kv_heads, head_dim;
    uint32_t chunks; /* of KV_CHUNK positions */
    /* [layers][kv_heads][chunks]: keys [head_dim][KV_CHUNK], then values [KV_CHUNK][head_dim] */
    unsigned char *bytes;
    uint64_t size;
    const struct row_kernels *rows;
    combine_function *combine;
};

/* Bytes of a cache for `positions` positions; UINT64_MAX when there is no such number. */
uint64_t kv_cache_bytes(enum weight_format format, uint32_t layers, uint32_t kv_heads, uint32_t head_dim,
                        uint32_t positions);

/* The sizes and format are set in *cache; the rest is filled. Free with kv_cache_close, also after an error. */
enum status kv_cache_open(struct kv_store *cache, uint32_t positions, enum cpu_level cpu, struct error *error);
void kv_cache_close(struct kv_store *cache);

/* Puts key and value [head_dim] of a head, rounded to the format. Rotated keys are expected. They may change. */
void kv_cache_put(const struct kv_store *cache, uint32_t layer, uint32_t kv_head, uint32_t position, float *key,
                  float *value);

/* What a task leaves for each query: out [head_dim] is to be divided by the sum of the sums, under a common maximum. */
struct kv_part {
    float most, sum;
    float *out;
};

/* Bytes of space for kv_cache_attend, aligned to 64. */
size_t kv_cache_space(const struct kv_store *cache);

/*
 * `count` queries [head_dim], scaled, of one key-value head over the positions [first, end) of a chunk, positions counted
 * from the chunk's begin. parts: [count].
 */
void kv_cache_attend(const struct kv_store *cache, uint32_t layer, uint32_t kv_head, uint32_t chunk, uint32_t first,
                     uint32_t end, const float *queries, uint32_t count, void *space, struct kv_part *parts);

/* The attention of a query: its parts over all chunks, `stride` parts apart, in order. out: [head_dim]. */
void kv_cache_merge(const struct kv_store *cache, const struct kv_part *parts, uint32_t count, size_t stride,
                    float *out);

#endif
