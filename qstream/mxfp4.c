#include "qstream/mxfp4.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/formats.h"
#include "qstream/mxfp4_levels.h"

enum {
    E8M0_BIAS = 127,
    E8M0_LARGEST = 254,
    EXPONENT_LEAST = -E8M0_BIAS,
    BF16_INFINITY = 0x7f80,
};

static const char *const rule_names[SCALE_RULES] = {"amax", "qstream", "mse"};

const char *scale_rule_name(enum scale_rule rule) {
    return (unsigned)rule < SCALE_RULES ? rule_names[rule] : "unknown";
}

enum scale_rule scale_rule_parse(const char *name) {
    int rule = 0;
    while (rule < SCALE_RULES && strcmp(name, rule_names[rule]) != 0)
        rule++;
    return (enum scale_rule)rule;
}

/* A block as the rules see it. */
struct block {
    float value[MXFP4_BLOCK];
    uint16_t largest; /* BF16 code of the largest magnitude */
};

static void block_load(struct block *block, const uint16_t *bf16) {
    block->largest = 0;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        uint16_t magnitude = bf16[i] & 0x7fff;
        block->value[i] = bf16_decode(bf16[i]);
        if (magnitude > block->largest)
            block->largest = magnitude;
    }
}

/* Packs 32 codes and stores the scale. */
static void block_store(const uint8_t codes[MXFP4_BLOCK], int exponent, uint8_t *packed, uint8_t *scale) {
    int e8m0 = exponent + E8M0_BIAS;
    *scale = (uint8_t)(e8m0 < 0 ? 0 : e8m0 > E8M0_LARGEST ? E8M0_LARGEST : e8m0);
    for (int i = 0; i < MXFP4_PACKED; i++)
        packed[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
}

/* ---- amax
 * -------------------------------------------------------------------------------------------------- */

static void quantize_amax(const struct block *block, uint8_t *packed, uint8_t *scale) {
    /* Adding a quarter of the leading bit carries into the exponent when the fraction is 1.75 or more. */
    int exponent = ((block->largest + 0x20) >> 7) - E8M0_BIAS - 2;
    if (exponent < EXPONENT_LEAST)
        exponent = EXPONENT_LEAST;
    uint8_t codes[MXFP4_BLOCK];
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        /* compressed-tensors divides in BF16. That is exact but for underflow, which loses the sign as well.
         */
        float scaled = bf16_decode(bf16_encode((float)ldexp(block->value[i], -exponent)));
        codes[i] = e2m1_encode(fabsf(scaled), E2M1_TIES_TO_EVEN);
        if (scaled < 0)
            codes[i] |= 8;
    }
    block_store(codes, exponent, packed, scale);
}

/* ---- mse
 * --------------------------------------------------------------------------------------------------- */

static double squared_error(const struct block *block, int exponent) {
    double step = ldexp(1, exponent), inverse = ldexp(1, -exponent);
    double sum = 0;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        double magnitude = fabsf(block->value[i]);
        float nearest = e2m1_decode(e2m1_encode((float)(magnitude * inverse), E2M1_TIES_TO_EVEN));
        double error = nearest * step - magnitude;
        sum += error * error;
    }
    return sum;
}

static void quantize_mse(const struct block *block, uint8_t *packed, uint8_t *scale) {
    /* The smallest exponent with amax <= 7 * 2^exponent, and the one below: see mxfp4.h for why no other. */
    double amax = bf16_decode(block->largest);
    int exponent = EXPONENT_LEAST;
    if (amax > 0) {
        exponent = ilogb(amax) - 2;
        if (amax > ldexp(7, exponent))
            exponent++;
        if (exponent < EXPONENT_LEAST)
            exponent = EXPONENT_LEAST;
    }
    if (exponent > EXPONENT_LEAST && squared_error(block, exponent - 1) <= squared_error(block, exponent))
        exponent--;
    double inverse = ldexp(1, -exponent);
    uint8_t codes[MXFP4_BLOCK];
    for (int i = 0; i < MXFP4_BLOCK; i++)
        codes[i] = e2m1_encode((float)(block->value[i] * inverse), E2M1_TIES_TO_EVEN);
    block_store(codes, exponent, packed, scale);
}

/* ---- qstream
 * ----------------------------------------------------------------------------------------------- */

/*
 * The sum is taken in float64; a term, or a sum, that float32 cannot hold is infinite, as in the original. So
 * is the order of NaN (an infinite error under a weight of zero): torch.argmin takes it for the least.
 */
static double weighted_error(const struct block *block, int exponent, const float *gamma) {
    float scale = ldexpf(1, exponent), inverse = ldexpf(1, -exponent);
    double sum = 0;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        float magnitude = fabsf(block->value[i]);
        float nearest = e2m1_decode(e2m1_encode(magnitude * inverse, E2M1_TIES_TOWARD_ZERO));
        float error = nearest * scale - magnitude;
        float square = error * error;
        if (gamma != NULL)
            square *= gamma[i] * gamma[i];
        sum += square;
    }
    return sum > FLT_MAX ? HUGE_VAL : sum;
}

static void quantize_qstream(const struct block *block, const float *gamma, uint8_t *packed, uint8_t *scale) {
    float largest = 0, second_largest = 0;
    for (int i = 0; i < MXFP4_BLOCK; i++) {
        float magnitude = fabsf(block->value[i]);
        if (magnitude > largest) {
            second_largest = largest;
            largest = magnitude;
        } else if (magnitude > second_largest) {
            second_largest = magnitude;
        }
    }
    float percentile = mxfp4_percentile(second_largest, largest);
    bool near_zero = percentile < MXFP4_NEAR_ZERO;
    int exponent = MXFP4_NEAR_ZERO_EXPONENT;
    uint8_t codes[MXFP4_BLOCK] = {0};
    if (!near_zero) {
        int anchor = mxfp4_anchor_exponent(percentile);
        exponent = anchor - 1;
        double least = weighted_error(block, exponent, gamma);
        for (int candidate = anchor; candidate <= anchor + 1; candidate++) {
            double error = weighted_error(block, candidate, gamma);
            bool first_nan = isnan(error) && !isnan(least);
            if (error < least || first_nan) {
                least = error;
                exponent = candidate;
            }
        }
        if (largest / ldexpf(1, exponent) > 6) {
            int safe = (int)ceilf((float)log2(fmaxf(largest, 1e-12f) / 6));
            if (exponent < safe - 1)
                exponent = safe;
        }
        float inverse = ldexpf(1, -exponent);
        for (int i = 0; i < MXFP4_BLOCK; i++) {
            float scaled = block->value[i] * inverse;
            codes[i] = e2m1_encode(fabsf(scaled), E2M1_TIES_TOWARD_ZERO);
            if (scaled < 0)
                codes[i] |= 8;
        }
    }
    block_store(codes, exponent, packed, scale);
}

bool mxfp4_quantize_scalar(const uint16_t *bf16, size_t blocks, enum scale_rule rule, const float *gamma,
                           uint8_t *packed, uint8_t *scales) {
    for (size_t i = 0; i < blocks; i++) {
        struct block block;
        block_load(&block, bf16 + i * MXFP4_BLOCK);
        if (block.largest >= BF16_INFINITY)
            return false;
        uint8_t *codes = packed + i * MXFP4_PACKED;
        if (rule == SCALE_RULE_AMAX)
            quantize_amax(&block, codes, &scales[i]);
        else if (rule == SCALE_RULE_MSE)
            quantize_mse(&block, codes, &scales[i]);
        else
            quantize_qstream(&block, gamma != NULL ? gamma + i * MXFP4_BLOCK : NULL, codes, &scales[i]);
    }
    return true;
}

mxfp4_quantize_fn *mxfp4_quantize_for(enum cpu_level level) {
    switch (level) {
    case CPU_PORTABLE:
        return mxfp4_quantize_portable;
#if defined(__x86_64__)
    case CPU_AVX2:
        return mxfp4_quantize_avx2;
    case CPU_AVX512:
        return mxfp4_quantize_avx512;
#elif defined(__aarch64__)
    case CPU_NEON:
        return mxfp4_quantize_neon;
#endif
    default:
        return NULL;
    }
}
