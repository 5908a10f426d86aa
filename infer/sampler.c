#include "infer/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "infer/cpu/rows.h"

struct sampler {
    struct sampler_options options;
    uint32_t count;
    uint64_t random;
    const struct row_kernels *rows; /* their results are the same on every machine, which libm's are not */
    float *shares;                  /* [count]: probabilities, not normalized */
    uint32_t *heap;                 /* [count]: ids */
};

uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

enum status sampler_open(const struct sampler_options *options, uint32_t count, struct sampler **out,
                         struct error *error) {
    struct sampler *sampler = malloc(sizeof *sampler);
    *out = sampler;
    if (!sampler)
        return error_set_memory(error);
    *sampler = (struct sampler){.options = *options,
                                .count = count,
                                .random = options->seed,
                                .rows = row_kernels_of(cpu_best()),
                                .shares = malloc(count * sizeof *sampler->shares),
                                .heap = malloc(count * sizeof *sampler->heap)};
    if (sampler->shares && sampler->heap)
        return STATUS_OK;
    sampler_close(sampler);
    *out = NULL;
    return error_set_memory(error);
}

void sampler_close(struct sampler *sampler) {
    if (!sampler)
        return;
    free(sampler->shares);
    free(sampler->heap);
    free(sampler);
}

static uint32_t most_probable(const float *logits, uint32_t count) {
    enum { LANES = 8 };
    float most[LANES];
    for (int j = 0; j < LANES; j++)
        most[j] = -INFINITY;
    for (uint32_t i = 0; i < count; i++)
        most[i % LANES] = logits[i] > most[i % LANES] ? logits[i] : most[i % LANES];
    for (int j = 1; j < LANES; j++)
        most[0] = most[j] > most[0] ? most[j] : most[0];
    uint32_t id = 0;
    while (id < count - 1 && logits[id] != most[0])
        id++;
    return logits[id] == most[0] ? id : 0;
}

/* ---- the most probable tokens, as many as are needed ---- */

static bool comes_before(const struct sampler *sampler, uint32_t a, uint32_t b) {
    return sampler->shares[a] > sampler->shares[b] || (a < b && sampler->shares[a] == sampler->shares[b]);
}

static void heap_sink(struct sampler *sampler, uint32_t at, uint32_t size) {
    const uint32_t id = sampler->heap[at];
    for (uint32_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && comes_before(sampler, sampler->heap[child + 1], sampler->heap[child]))
            child++;
        if (!comes_before(sampler, sampler->heap[child], id))
            break;
        sampler->heap[at] = sampler->heap[child];
    }
    sampler->heap[at] = id;
}

/*
 * Brings the most probable tokens that together reach top_p to the end of the heap's array, the first of them last, and
 * says how many there are, where that end is, and what they come to.
 */
static uint32_t nucleus_find(struct sampler *sampler, double total, uint32_t *end, double *mass) {
    /* the tokens below this cannot make up what top_p leaves out */
    const double least = total * (1 - sampler->options.top_p) / (double)sampler->count;
    uint32_t size = 0;
    for (uint32_t id = 0; id < sampler->count; id++)
        if ((double)sampler->shares[id] >= least && sampler->shares[id] > 0)
            sampler->heap[size++] = id;
    for (uint32_t at = size / 2; at-- > 0;)
        heap_sink(sampler, at, size);
    *end = size;
    *mass = 0;
    while (size > 0 && *mass < sampler->options.top_p * total) {
        const uint32_t id = sampler->heap[0];
        *mass += (double)sampler->shares[id];
        sampler->heap[0] = sampler->heap[--size];
        heap_sink(sampler, 0, size);
        sampler->heap[size] = id;
    }
    return *end - size;
}

/* ---- choosing ---- */

/* The token in which `place`, from 0 to the sum of the shares, lies. `ids`, going down, or NULL: all tokens. */
static uint32_t token_at(const struct sampler *sampler, const uint32_t *ids, uint32_t count, double place) {
    uint32_t last = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t id = ids ? *(ids - i) : i;
        if (!(sampler->shares[id] > 0))
            continue;
        last = id;
        place -= (double)sampler->shares[id];
        if (place < 0)
            break;
    }
    return last;
}

int32_t sampler_choose(struct sampler *sampler, const float *logits) {
    const uint32_t top = most_probable(logits, sampler->count);
    if (sampler->options.temperature == 0)
        return (int32_t)top;
    const double uniform = (double)(random_next(&sampler->random) >> 11) * 0x1p-53;
    if (!isfinite(logits[top]))
        return (int32_t)top;
    const float inverse = (float)(1 / sampler->options.temperature);
    for (uint32_t id = 0; id < sampler->count; id++) /* under the largest first: nothing overflows */
        sampler->shares[id] = isnan(logits[id]) ? -INFINITY : (logits[id] - logits[top]) * inverse;
    sampler->rows->exponentials(sampler->shares, 0, sampler->count);
    double total = 0;
    for (uint32_t id = 0; id < sampler->count; id++)
        total += (double)sampler->shares[id];
    if (sampler->options.top_p >= 1)
        return (int32_t)token_at(sampler, NULL, sampler->count, uniform * total);
    uint32_t end;
    double mass;
    const uint32_t count = nucleus_find(sampler, total, &end, &mass);
    return (int32_t)token_at(sampler, sampler->heap + end - 1, count, uniform * mass);
}
