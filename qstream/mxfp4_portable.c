/*
 * The vector vocabulary of mxfp4_kernel.inc in plain C: loops over 32 lanes that a compiler vectorizes for
 * whatever the machine has.
 */
#include "qstream/mxfp4_levels.h"

#define MXFP4_QUANTIZE mxfp4_quantize_portable

typedef struct {
    int16_t at[MXFP4_BLOCK];
} lanes;

#define FOR_LANES for (int i = 0; i < MXFP4_BLOCK; i++)

static inline lanes lanes_load(const uint16_t *p) {
    lanes x;
    memcpy(x.at, p, sizeof x.at);
    return x;
}
static inline lanes lanes_set1(int n) {
    lanes x;
    FOR_LANES x.at[i] = (int16_t)n;
    return x;
}
static inline lanes lanes_and(lanes x, lanes y) {
    FOR_LANES x.at[i] &= y.at[i];
    return x;
}
static inline lanes lanes_add(lanes x, lanes y) {
    FOR_LANES x.at[i] = (int16_t)(x.at[i] + y.at[i]);
    return x;
}
static inline lanes lanes_sub(lanes x, lanes y) {
    FOR_LANES x.at[i] = (int16_t)(x.at[i] - y.at[i]);
    return x;
}
static inline lanes lanes_greater(lanes x, lanes y) {
    FOR_LANES x.at[i] = (int16_t) - (x.at[i] > y.at[i]);
    return x;
}
static inline lanes lanes_abs(lanes x) {
    FOR_LANES x.at[i] = (int16_t)(x.at[i] < 0 ? -x.at[i] : x.at[i]);
    return x;
}
static inline lanes lanes_excess(lanes x, lanes y) {
    FOR_LANES x.at[i] = (int16_t)(x.at[i] > y.at[i] ? x.at[i] - y.at[i] : 0);
    return x;
}
static inline lanes lanes_shift_right(lanes x, int n) {
    FOR_LANES x.at[i] = (int16_t)(x.at[i] >> n);
    return x;
}

/* A float32 product with a power of two is exact here, and its conversion rounds down. */
static inline lanes lanes_fixed(lanes u, int e) {
    float power = float_from_bits((uint32_t)(10 - e + 127) << 23);
    FOR_LANES u.at[i] = (int16_t)(int32_t)(float_from_bits((uint32_t)u.at[i] << 16) * power);
    return u;
}

static inline int lanes_largest(lanes u) {
    int16_t largest = 0;
    FOR_LANES largest = u.at[i] > largest ? u.at[i] : largest;
    return largest;
}

static inline int lanes_second_largest(lanes u, int largest) {
    int count = 0;
    int16_t second = 0;
    FOR_LANES {
        int16_t other = u.at[i] == largest ? 0 : u.at[i];
        count += u.at[i] == largest;
        second = other > second ? other : second;
    }
    return count > 1 ? largest : second;
}

static inline int lanes_balance(lanes v, lanes s) {
    int sum = 0;
    FOR_LANES sum += 4 * v.at[i] - s.at[i];
    return sum;
}

static inline float lanes_weight(const float *gamma) {
    float sum = 0;
    FOR_LANES sum += gamma[i] * gamma[i];
    return sum;
}

struct weighed {
    float sum, magnitude;
};

static inline struct weighed lanes_weigh(lanes v, lanes s, const float *gamma) {
    struct weighed result = {0, 0};
    FOR_LANES {
        float product = (float)(4 * v.at[i] - s.at[i]) * (gamma[i] * gamma[i]);
        result.sum += product;
        result.magnitude += fabsf(product);
    }
    return result;
}

static inline void lanes_encode(lanes x, lanes bits, enum e2m1_ties ties, int least, uint8_t *packed) {
    /* A code counts the boundaries that the value exceeds; every second one is exceeded by a tie to even. */
    int16_t tie_up = ties == E2M1_TIES_TO_EVEN;
    int16_t codes[MXFP4_BLOCK];
    FOR_LANES {
        int16_t y = x.at[i], z = (int16_t)(y + tie_up);
        int16_t code =
            (int16_t)((y > 256) + (z > 768) + (y > 1280) + (z > 1792) + (y > 2560) + (z > 3584) + (y > 5120));
        int16_t sign = (int16_t)((bits.at[i] < 0) & ((bits.at[i] & 0x7fff) > least));
        codes[i] = (int16_t)(code | sign << 3);
    }
    for (int i = 0; i < MXFP4_PACKED; i++)
        packed[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
}

#include "qstream/mxfp4_kernel.inc"
