/*
 * Choosing the next token from logits. Nothing here depends on the machine: the same logits, options and seed give the
 * same tokens everywhere.
 */
#ifndef QSTREAM_INFER_SAMPLER_H
#define QSTREAM_INFER_SAMPLER_H

#include <stdint.h>

#include "common/status.h"

struct sampler_options {
    double
        temperature; /* 0: the most probable token, always; else logits are divided by it, SAMPLER_COLDEST at least */
    double top_p;    /* above 0, at most 1: only the most probable tokens that together reach this probability */
    uint64_t seed;
};
#define SAMPLER_COLDEST 0.001

struct sampler;

/* For logits of `count` tokens, at least 1. Free with sampler_close. */
enum status sampler_open(const struct sampler_options *options, uint32_t count, struct sampler **sampler,
                         struct error *error);
void sampler_close(struct sampler *sampler); /* NULL is fine */

/*
 * The next token. Of equally probable ones the lower id comes first. NaN counts as minus infinity, whose probability
 * is 0; without any other value it is token 0. Infinity is chosen at once. With a temperature each call takes one random
 * number.
 */
int32_t sampler_choose(struct sampler *sampler, const float *logits);

/* SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014); *state begins as the seed. */
uint64_t random_next(uint64_t *state);

#endif
