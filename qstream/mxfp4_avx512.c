/*
 * The vector vocabulary of mxfp4_kernel.inc for AVX-512 (F, BW, DQ, VL, VBMI): a block is one register.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "qstream/mxfp4_levels.h"

#define MXFP4_QUANTIZE mxfp4_quantize_avx512

typedef __m512i lanes;

static inline lanes lanes_load(const uint16_t *p) { return _mm512_loadu_si512(p); }
static inline lanes lanes_set1(int n) { return _mm512_set1_epi16((short)n); }
static inline lanes lanes_and(lanes a, lanes b) { return _mm512_and_si512(a, b); }
static inline lanes lanes_add(lanes a, lanes b) { return _mm512_add_epi16(a, b); }
static inline lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_epi16(a, b); }
static inline lanes lanes_greater(lanes a, lanes b) { return _mm512_movm_epi16(_mm512_cmpgt_epi16_mask(a, b)); }
static inline lanes lanes_abs(lanes a) { return _mm512_abs_epi16(a); }
static inline lanes lanes_excess(lanes a, lanes b) { return _mm512_subs_epu16(a, b); }
static inline lanes lanes_shift_right(lanes a, int n) { return _mm512_srl_epi16(a, _mm_cvtsi32_si128(n)); }

/* The significand shifted by its exponent; counts of 16 and more, which negative ones are, give zero. */
static inline lanes lanes_fixed(lanes u, int e) {
    enum { OR_OF_AND = 0xf8 }; /* a | (b & c) as a truth table for vpternlog */
    lanes significand = _mm512_ternarylogic_epi64(lanes_set1(0x80), u, lanes_set1(0x7f), OR_OF_AND);
    return _mm512_sllv_epi16(significand, _mm512_sub_epi16(_mm512_srli_epi16(u, 7), lanes_set1(e + 124)));
}

/*
 * One lookup by the value's upper bits (units of 1/4) gives what to add so that the code comes out above bit
 * 8: 256 * (code - quarters), one less where a value exactly on the boundary belongs below it.
 */
#define STEP(quarters, code, tie_below) (256 * ((code) - (quarters)) - (tie_below))
#define STEPS(odd, even)                                                                                               \
    STEP(0, 0, 0), STEP(1, 1, even), STEP(2, 1, 0), STEP(3, 2, odd), STEP(4, 2, 0), STEP(5, 3, even), STEP(6, 3, 0),   \
        STEP(7, 4, odd), STEP(8, 4, 0), STEP(9, 4, 0), STEP(10, 5, even), STEP(11, 5, 0), STEP(12, 5, 0),              \
        STEP(13, 5, 0), STEP(14, 6, odd), STEP(15, 6, 0), STEP(16, 6, 0), STEP(17, 6, 0), STEP(18, 6, 0),              \
        STEP(19, 6, 0), STEP(20, 7, even), STEP(21, 7, 0), STEP(22, 7, 0), STEP(23, 7, 0), STEP(24, 7, 0),             \
        STEP(25, 7, 0), STEP(26, 7, 0), STEP(27, 7, 0), STEP(28, 7, 0), STEP(29, 7, 0), STEP(30, 7, 0), STEP(31, 7, 0)

static const int16_t steps_to_even[32] = {STEPS(0, 1)};
static const int16_t steps_toward_zero[32] = {STEPS(1, 1)};

static inline void lanes_encode(lanes x, lanes bits, enum e2m1_ties ties, int least, uint8_t *packed) {
    lanes steps = _mm512_loadu_si512(ties == E2M1_TIES_TO_EVEN ? steps_to_even : steps_toward_zero);
    x = _mm512_min_epu16(x, lanes_set1(8191));
    lanes step = _mm512_permutexvar_epi16(_mm512_srli_epi16(x, 8), steps);
    lanes codes = _mm512_srli_epi16(_mm512_add_epi16(x, step), 8);
    __mmask32 negative = _mm512_cmpgt_epu16_mask(bits, lanes_set1(0x8000 + least));
    codes = _mm512_mask_add_epi16(codes, negative, codes, lanes_set1(8));
    __m512i pairs = _mm512_or_si512(codes, _mm512_srli_epi32(codes, 12));
    _mm_storeu_si128((__m128i *)packed, _mm512_cvtepi32_epi8(pairs));
}

static inline int lanes_largest(lanes u) {
    __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(u), _mm512_extracti64x4_epi64(u, 1));
    __m128i quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* The one horizontal instruction finds the smallest. */
    __m128i flipped = _mm_xor_si128(quarter, _mm_set1_epi16(-1));
    return 0xffff - (_mm_cvtsi128_si32(_mm_minpos_epu16(flipped)) & 0xffff);
}

static inline int lanes_second_largest(lanes u, int largest) {
    __mmask32 equal = _mm512_cmpeq_epi16_mask(u, lanes_set1(largest));
    if ((equal & (equal - 1)) != 0)
        return largest;
    return lanes_largest(_mm512_maskz_mov_epi16(~equal, u));
}

static inline int lanes_balance(lanes v, lanes s) {
    __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(v, lanes_set1(4)), _mm512_madd_epi16(s, lanes_set1(-1)));
    return _mm512_reduce_add_epi32(sum);
}

static inline float lanes_weight(const float *gamma) {
    __m512 first = _mm512_loadu_ps(gamma), second = _mm512_loadu_ps(gamma + 16);
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_mul_ps(first, first), _mm512_mul_ps(second, second)));
}

struct weighed {
    float sum, magnitude;
};

static inline __m512 difference(__m256i v, __m256i s) {
    __m512i wide = _mm512_slli_epi32(_mm512_cvtepi16_epi32(v), 2);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(wide, _mm512_cvtepi16_epi32(s)));
}

static inline struct weighed lanes_weigh(lanes v, lanes s, const float *gamma) {
    __m512 first = _mm512_loadu_ps(gamma), second = _mm512_loadu_ps(gamma + 16);
    first =
        _mm512_mul_ps(difference(_mm512_castsi512_si256(v), _mm512_castsi512_si256(s)), _mm512_mul_ps(first, first));
    second = _mm512_mul_ps(difference(_mm512_extracti64x4_epi64(v, 1), _mm512_extracti64x4_epi64(s, 1)),
                           _mm512_mul_ps(second, second));
    return (struct weighed){
        .sum = _mm512_reduce_add_ps(_mm512_add_ps(first, second)),
        .magnitude = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_abs_ps(first), _mm512_abs_ps(second))),
    };
}

#include "qstream/mxfp4_kernel.inc"

#else
typedef int mxfp4_avx512_is_empty;
#endif
