#include "infer/kv_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "infer/space.h"

static const float one = 1;

static size_t element_of(enum weight_format format) {
    return format == WEIGHT_F32 ? sizeof(float) : format == WEIGHT_BF16 ? sizeof(uint16_t) : 1;
}

uint64_t kv_cache_bytes(enum weight_format format, uint32_t layers, uint32_t kv_heads, uint32_t head_dim,
                        uint32_t positions) {
    const uint64_t chunks = ((uint64_t)positions + KV_CHUNK - 1) / KV_CHUNK;
    uint64_t bytes = 2 * KV_CHUNK * element_of(format);
    const uint64_t factors[] = {chunks, layers, kv_heads, head_dim};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        if (__builtin_mul_overflow(bytes, factors[i], &bytes))
            return UINT64_MAX;
    return bytes;
}

enum status kv_cache_open(struct kv_store *cache, uint32_t positions, enum cpu_level cpu, struct error *error) {
    cache->element = element_of(cache->format);
    cache->chunks = (uint32_t)(((uint64_t)positions + KV_CHUNK - 1) / KV_CHUNK);
    cache->rows = row_kernels_of(cpu);
    cache->combine = combine_of(cpu);
    cache->size = kv_cache_bytes(cache->format, cache->layers, cache->kv_heads, cache->head_dim, positions);
    if (cache->size < SIZE_MAX)
        cache->bytes = calloc(cache->size ? cache->size : 1, 1);
    return cache->bytes ? STATUS_OK : error_set_memory(error);
}

void kv_cache_close(struct kv_store *cache) {
    free(cache->bytes);
    cache->bytes = NULL;
}

/* ---- storing ---- */

static size_t half_bytes(const struct kv_store *cache) { return (size_t)KV_CHUNK * cache->head_dim * cache->element; }

static unsigned char *keys_of(const struct kv_store *cache, uint32_t layer, uint32_t kv_head, uint32_t chunk) {
    const size_t number = ((size_t)layer * cache->kv_heads + kv_head) * cache->chunks + chunk;
    return cache->bytes + number * 2 * half_bytes(cache);
}

/* One value as BF16 or FP8. */
static void value_store(const struct kv_store *cache, float value, unsigned char *to) {
    if (cache->format == WEIGHT_BF16) {
        const uint16_t code = bf16_encode(value);
        memcpy(to, &code, sizeof code);
    } else {
        *to = fp8_e4m3_encode(value);
    }
}

void kv_cache_put(const struct kv_store *cache, uint32_t layer, uint32_t kv_head, uint32_t position, float *key,
                  float *value) {
    const uint32_t head_dim = cache->head_dim, at = position % KV_CHUNK;
    unsigned char *keys = keys_of(cache, layer, kv_head, position / KV_CHUNK), *values = keys + half_bytes(cache);
    if (cache->format == WEIGHT_F32) { /* the usual case, made short: it runs on one thread */
        float *column = (float *)keys + at;
        for (uint32_t i = 0; i < head_dim; i++)
            column[(size_t)i * KV_CHUNK] = key[i];
        memcpy(values + (size_t)at * head_dim * sizeof *value, value, head_dim * sizeof *value);
        return;
    }
    for (uint32_t i = 0; i < head_dim; i++) {
        value_store(cache, key[i], keys + ((size_t)i * KV_CHUNK + at) * cache->element);
        value_store(cache, value[i], values + ((size_t)at * head_dim + i) * cache->element);
    }
}

/* ---- attending ---- */

/* The space: scores [KV_CHUNK], then keys and values as float32 where they are stored otherwise. */
size_t kv_cache_space(const struct kv_store *cache) {
    const size_t copies = cache->format == WEIGHT_F32 ? 0 : 2 * (size_t)cache->head_dim;
    return space_aligned((1 + copies) * KV_CHUNK * sizeof(float));
}

/* The first columns of a matrix of the cache as float32: in place, or in `copy`. */
static const float *floats_of(const struct kv_store *cache, const unsigned char *bytes, uint32_t rows, uint32_t stride,
                              uint32_t columns, float *copy) {
    if (cache->format == WEIGHT_F32)
        return (const float *)bytes;
    const struct weight weight = {.format = cache->format,
                                  .rows = rows,
                                  .columns = stride,
                                  .codes = bytes,
                                  .scales = &one,
                                  .scale_rows = rows,
                                  .scale_columns = stride};
    for (uint32_t row = 0; row < rows; row++)
        cache->rows->unpack(&weight, row, 0, columns, copy + (size_t)row * stride);
    return copy;
}

void kv_cache_attend(const struct kv_store *cache, uint32_t layer, uint32_t kv_head, uint32_t chunk, uint32_t first,
                     uint32_t end, const float *queries, uint32_t count, void *space, struct kv_part *parts) {
    const uint32_t head_dim = cache->head_dim;
    const unsigned char *bytes = keys_of(cache, layer, kv_head, chunk);
    float *scores = space, *copies = scores + KV_CHUNK;
    const float *keys = floats_of(cache, bytes, head_dim, KV_CHUNK, end, copies);
    const float *values =
        floats_of(cache, bytes + half_bytes(cache), end, head_dim, head_dim, copies + (size_t)head_dim * KV_CHUNK);
    for (uint32_t i = 0; i < count; i++) {
        cache->combine(keys, KV_CHUNK, queries + (size_t)i * head_dim, head_dim, end, scores);
        parts[i].most = cache->rows->maximum(scores + first, end - first);
        parts[i].sum = cache->rows->exponentials(scores + first, parts[i].most, end - first);
        cache->combine(values + (size_t)first * head_dim, head_dim, scores + first, end - first, head_dim,
                       parts[i].out);
    }
}

void kv_cache_merge(const struct kv_store *cache, const struct kv_part *parts, uint32_t count, size_t stride,
                    float *out) {
    float most = parts[0].most, sum = 0;
    for (uint32_t i = 1; i < count; i++)
        most = parts[i * stride].most > most ? parts[i * stride].most : most;
    memset(out, 0, cache->head_dim * sizeof *out);
    for (uint32_t i = 0; i < count; i++) {
        const struct kv_part *part = &parts[i * stride];
        const float factor = expf(part->most - most);
        sum += part->sum * factor;
        cache->rows->add_scaled(out, part->out, factor, cache->head_dim);
    }
    cache->rows->multiply(out, 1 / sum, cache->head_dim);
}
