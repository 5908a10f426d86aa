/*
 * The vector vocabulary of mxfp4_kernel.inc for arm64: a block is four registers.
 */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "qstream/mxfp4_levels.h"

#define MXFP4_QUANTIZE mxfp4_quantize_neon

typedef struct {
    uint16x8_t q[4];
} lanes;

#define FOR_QUARTERS for (int i = 0; i < 4; i++)

static inline lanes lanes_load(const uint16_t *p) {
    return (lanes){{vld1q_u16(p), vld1q_u16(p + 8), vld1q_u16(p + 16), vld1q_u16(p + 24)}};
}
static inline lanes lanes_set1(int n) {
    uint16x8_t all = vdupq_n_u16((uint16_t)n);
    return (lanes){{all, all, all, all}};
}
static inline lanes lanes_and(lanes x, lanes y) {
    FOR_QUARTERS x.q[i] = vandq_u16(x.q[i], y.q[i]);
    return x;
}
static inline lanes lanes_add(lanes x, lanes y) {
    FOR_QUARTERS x.q[i] = vaddq_u16(x.q[i], y.q[i]);
    return x;
}
static inline lanes lanes_sub(lanes x, lanes y) {
    FOR_QUARTERS x.q[i] = vsubq_u16(x.q[i], y.q[i]);
    return x;
}
static inline lanes lanes_greater(lanes x, lanes y) {
    FOR_QUARTERS x.q[i] = vcgtq_s16(vreinterpretq_s16_u16(x.q[i]), vreinterpretq_s16_u16(y.q[i]));
    return x;
}
static inline lanes lanes_abs(lanes x) {
    FOR_QUARTERS x.q[i] = vreinterpretq_u16_s16(vabsq_s16(vreinterpretq_s16_u16(x.q[i])));
    return x;
}
static inline lanes lanes_excess(lanes x, lanes y) {
    FOR_QUARTERS x.q[i] = vqsubq_u16(x.q[i], y.q[i]);
    return x;
}
static inline lanes lanes_shift_right(lanes x, int n) {
    FOR_QUARTERS x.q[i] = vshlq_u16(x.q[i], vdupq_n_s16((int16_t)-n));
    return x;
}

/* The significand shifted by its exponent, to the right where that is negative; 16 to the right give zero. */
static inline lanes lanes_fixed(lanes u, int e) {
    FOR_QUARTERS {
        uint16x8_t significand = vorrq_u16(vandq_u16(u.q[i], vdupq_n_u16(0x7f)), vdupq_n_u16(0x80));
        int16x8_t exponent = vreinterpretq_s16_u16(vshrq_n_u16(u.q[i], 7));
        int16x8_t shift = vmaxq_s16(vsubq_s16(exponent, vdupq_n_s16((int16_t)(e + 124))), vdupq_n_s16(-16));
        u.q[i] = vshlq_u16(significand, shift);
    }
    return u;
}

static inline int lanes_largest(lanes u) {
    return vmaxvq_u16(vmaxq_u16(vmaxq_u16(u.q[0], u.q[1]), vmaxq_u16(u.q[2], u.q[3])));
}

static inline int lanes_second_largest(lanes u, int largest) {
    uint16x8_t count = vdupq_n_u16(0);
    FOR_QUARTERS {
        uint16x8_t equal = vceqq_u16(u.q[i], vdupq_n_u16((uint16_t)largest));
        count = vsubq_u16(count, equal);
        u.q[i] = vbicq_u16(u.q[i], equal);
    }
    return vaddvq_u16(count) > 1 ? largest : lanes_largest(u);
}

static inline int lanes_balance(lanes v, lanes s) {
    uint32x4_t sum_v = vdupq_n_u32(0), sum_s = vdupq_n_u32(0);
    FOR_QUARTERS {
        sum_v = vpadalq_u16(sum_v, v.q[i]);
        sum_s = vpadalq_u16(sum_s, s.q[i]);
    }
    return (int)vaddvq_u32(vsubq_u32(vshlq_n_u32(sum_v, 2), sum_s));
}

static inline float lanes_weight(const float *gamma) {
    float32x4_t sum = vdupq_n_f32(0);
    for (int i = 0; i < MXFP4_BLOCK; i += 4)
        sum = vfmaq_f32(sum, vld1q_f32(gamma + i), vld1q_f32(gamma + i));
    return vaddvq_f32(sum);
}

struct weighed {
    float sum, magnitude;
};

static inline float32x4_t difference(uint16x4_t v, uint16x4_t s) {
    return vcvtq_f32_s32(vreinterpretq_s32_u32(vsubq_u32(vshll_n_u16(v, 2), vmovl_u16(s))));
}

static inline struct weighed lanes_weigh(lanes v, lanes s, const float *gamma) {
    float32x4_t sum = vdupq_n_f32(0), magnitude = vdupq_n_f32(0);
    FOR_QUARTERS {
        float32x4_t low = vld1q_f32(gamma + 8 * i), high = vld1q_f32(gamma + 8 * i + 4);
        low = vmulq_f32(difference(vget_low_u16(v.q[i]), vget_low_u16(s.q[i])), vmulq_f32(low, low));
        high = vmulq_f32(difference(vget_high_u16(v.q[i]), vget_high_u16(s.q[i])), vmulq_f32(high, high));
        sum = vaddq_f32(sum, vaddq_f32(low, high));
        magnitude = vaddq_f32(magnitude, vaddq_f32(vabsq_f32(low), vabsq_f32(high)));
    }
    return (struct weighed){vaddvq_f32(sum), vaddvq_f32(magnitude)};
}

/*
 * How many boundaries lie below a value, by the quarters (1/4) it has passed or reached; a tie to even goes
 * up at .75, 1.75 and 3.5, which therefore need only be reached.
 */
static const uint8_t passed_to_even[32] = {0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3,
                                           3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4};
static const uint8_t reached_to_even[32] = {0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3,
                                            3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3};
static const uint8_t passed_toward_zero[32] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6,
                                               6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};

static inline uint8x16_t look_up(const uint8_t table[32], uint16x8_t first, uint16x8_t second) {
    uint8x16_t quarters = vcombine_u8(vshrn_n_u16(first, 8), vshrn_n_u16(second, 8));
    uint8x16x2_t entries = {{vld1q_u8(table), vld1q_u8(table + 16)}};
    return vqtbl2q_u8(entries, vminq_u8(quarters, vdupq_n_u8(31)));
}

static inline void lanes_encode(lanes x, lanes bits, enum e2m1_ties ties, int least, uint8_t *packed) {
    lanes below = lanes_excess(x, lanes_set1(1));
    for (int i = 0; i < 4; i += 2) {
        uint8x16_t codes;
        if (ties == E2M1_TIES_TO_EVEN)
            codes = vaddq_u8(look_up(passed_to_even, below.q[i], below.q[i + 1]),
                             look_up(reached_to_even, x.q[i], x.q[i + 1]));
        else
            codes = look_up(passed_toward_zero, below.q[i], below.q[i + 1]);
        uint16x8_t bound = vdupq_n_u16((uint16_t)(0x8000 + least));
        uint8x16_t negative =
            vcombine_u8(vmovn_u16(vcgtq_u16(bits.q[i], bound)), vmovn_u16(vcgtq_u16(bits.q[i + 1], bound)));
        codes = vorrq_u8(codes, vandq_u8(negative, vdupq_n_u8(8)));
        uint16x8_t pairs = vreinterpretq_u16_u8(codes);
        vst1_u8(packed + 4 * i, vmovn_u16(vsraq_n_u16(pairs, pairs, 4)));
    }
}

#include "qstream/mxfp4_kernel.inc"

#else
typedef int mxfp4_neon_is_empty;
#endif
