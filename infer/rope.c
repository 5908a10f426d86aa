#include "infer/rope.h"

#include <math.h>
#include <string.h>

#include "common/formats.h"

static const double two_pi = 6.283185307179586;

enum rope_type rope_type_parse(const char *name) {
    static const char *const names[] = {"default", "linear", "llama3", "yarn"};
    for (enum rope_type type = 0; type < ROPE_TYPES; type++)
        if (strcmp(names[type], name) == 0)
            return type;
    return ROPE_TYPES;
}

/* Waves that are long against the original context are stretched by the factor, short ones are not. */
static double frequency_llama3(const struct rope *rope, double frequency) {
    const double length = two_pi / frequency;
    if (length > rope->original_positions / rope->low_frequency)
        return frequency / rope->factor;
    if (length < rope->original_positions / rope->high_frequency)
        return frequency;
    const double smooth =
        (rope->original_positions / length - rope->low_frequency) / (rope->high_frequency - rope->low_frequency);
    return (1 - smooth) * frequency / rope->factor + smooth * frequency;
}

/* The dimension whose wave turns `rotations` times over the original context. */
static double yarn_dimension(const struct rope *rope, double rotations, double dimensions) {
    return dimensions * log(rope->original_positions / (rotations * two_pi)) / (2 * log(rope->theta));
}

/* How much of a pair's frequency is stretched: 0 below the first dimension of the ramp, 1 above its last. */
static double yarn_share(const struct rope *rope, uint32_t pair, uint32_t head_dim) {
    double low = yarn_dimension(rope, rope->beta_fast, head_dim),
           high = yarn_dimension(rope, rope->beta_slow, head_dim);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1.0);
    if (low == high)
        high += 0.001;
    return fmin(fmax((pair - low) / (high - low), 0), 1);
}

static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

float rope_frequencies(const struct rope *rope, uint32_t head_dim, float *frequencies) {
    for (uint32_t pair = 0; pair < head_dim / 2; pair++) {
        double frequency = pow(rope->theta, -2.0 * pair / head_dim);
        if (rope->type == ROPE_LINEAR) {
            frequency /= rope->factor;
        } else if (rope->type == ROPE_LLAMA3) {
            frequency = frequency_llama3(rope, frequency);
        } else if (rope->type == ROPE_YARN) {
            const double share = yarn_share(rope, pair, head_dim);
            frequency = share * frequency / rope->factor + (1 - share) * frequency;
        }
        frequencies[pair] = (float)frequency;
        if (rope->frequencies_bf16)
            frequencies[pair] = bf16_decode(bf16_encode(frequencies[pair]));
    }
    if (rope->type != ROPE_YARN)
        return 1;
    if (rope->attention_given)
        return (float)rope->attention_factor;
    if (rope->mscale != 0 && rope->mscale_all != 0)
        return (float)(yarn_mscale(rope->factor, rope->mscale) / yarn_mscale(rope->factor, rope->mscale_all));
    return (float)yarn_mscale(rope->factor, 1);
}

float rope_query_scale(const struct rope *rope, uint32_t position) {
    if (rope->query_beta == 0)
        return 1;
    return (float)(1 + rope->query_beta * log(1 + floor(position / rope->original_positions)));
}
