/*
 * The vector vocabulary of mxfp4_kernel.inc for AVX2: a block is two registers.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "qstream/mxfp4_levels.h"

#define MXFP4_QUANTIZE mxfp4_quantize_avx2

typedef struct {
    __m256i a, b;
} lanes;

static inline __m256i set1(int n) { return _mm256_set1_epi16((short)n); }

static inline lanes lanes_load(const uint16_t *p) {
    return (lanes){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 16))};
}
static inline lanes lanes_set1(int n) { return (lanes){set1(n), set1(n)}; }
static inline lanes lanes_and(lanes x, lanes y) {
    return (lanes){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
static inline lanes lanes_add(lanes x, lanes y) {
    return (lanes){_mm256_add_epi16(x.a, y.a), _mm256_add_epi16(x.b, y.b)};
}
static inline lanes lanes_sub(lanes x, lanes y) {
    return (lanes){_mm256_sub_epi16(x.a, y.a), _mm256_sub_epi16(x.b, y.b)};
}
static inline lanes lanes_greater(lanes x, lanes y) {
    return (lanes){_mm256_cmpgt_epi16(x.a, y.a), _mm256_cmpgt_epi16(x.b, y.b)};
}
static inline lanes lanes_abs(lanes x) { return (lanes){_mm256_abs_epi16(x.a), _mm256_abs_epi16(x.b)}; }
static inline lanes lanes_excess(lanes x, lanes y) {
    return (lanes){_mm256_subs_epu16(x.a, y.a), _mm256_subs_epu16(x.b, y.b)};
}
static inline lanes lanes_shift_right(lanes x, int n) {
    __m128i count = _mm_cvtsi32_si128(n);
    return (lanes){_mm256_srl_epi16(x.a, count), _mm256_srl_epi16(x.b, count)};
}

/*
 * The significand times a power of two, looked up by the exponent's distance: 1 for the smallest that gives
 * 128, 8 for the largest; 0 and less give zero.
 */
static inline __m256i fixed(__m256i u, int e) {
    const __m256i powers =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 8, 16, 32, 64, (char)128, 0, 0, 0, 0, 0, 0, 0));
    __m256i distance = _mm256_subs_epu16(_mm256_srli_epi16(u, 7), set1(e + 123));
    __m256i significand = _mm256_or_si256(_mm256_and_si256(u, set1(0x7f)), set1(0x80));
    return _mm256_mullo_epi16(significand, _mm256_shuffle_epi8(powers, distance));
}
static inline lanes lanes_fixed(lanes u, int e) { return (lanes){fixed(u.a, e), fixed(u.b, e)}; }

static inline int lanes_largest(lanes u) {
    __m256i half = _mm256_max_epu16(u.a, u.b);
    __m128i quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* The one horizontal instruction finds the smallest. */
    __m128i flipped = _mm_xor_si128(quarter, _mm_set1_epi16(-1));
    return 0xffff - (_mm_cvtsi128_si32(_mm_minpos_epu16(flipped)) & 0xffff);
}

static inline int lanes_second_largest(lanes u, int largest) {
    __m256i equal_a = _mm256_cmpeq_epi16(u.a, set1(largest)), equal_b = _mm256_cmpeq_epi16(u.b, set1(largest));
    unsigned equal = (unsigned)_mm256_movemask_epi8(_mm256_packs_epi16(equal_a, equal_b));
    if ((equal & (equal - 1)) != 0)
        return largest;
    return lanes_largest((lanes){_mm256_andnot_si256(equal_a, u.a), _mm256_andnot_si256(equal_b, u.b)});
}

static inline int lanes_balance(lanes v, lanes s) {
    /* s is at most 128: two of them still fit. */
    __m256i sum_v = _mm256_add_epi32(_mm256_madd_epi16(v.a, set1(4)), _mm256_madd_epi16(v.b, set1(4)));
    __m256i sum_s = _mm256_madd_epi16(_mm256_add_epi16(s.a, s.b), set1(-1));
    __m256i sum = _mm256_add_epi32(sum_v, sum_s);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 1));
    return _mm_cvtsi128_si32(half);
}

static inline float sum_of(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static inline float lanes_weight(const float *gamma) {
    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < MXFP4_BLOCK; i += 8) {
        __m256 weight = _mm256_loadu_ps(gamma + i);
        sum = _mm256_fmadd_ps(weight, weight, sum);
    }
    return sum_of(sum);
}

struct weighed {
    float sum, magnitude;
};

static inline struct weighed lanes_weigh(lanes v, lanes s, const float *gamma) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m128i quarters[2][4] = {
        {_mm256_castsi256_si128(v.a), _mm256_extracti128_si256(v.a, 1), _mm256_castsi256_si128(v.b),
         _mm256_extracti128_si256(v.b, 1)},
        {_mm256_castsi256_si128(s.a), _mm256_extracti128_si256(s.a, 1), _mm256_castsi256_si128(s.b),
         _mm256_extracti128_si256(s.b, 1)},
    };
    __m256 sum = _mm256_setzero_ps(), magnitude = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        __m256i above = _mm256_slli_epi32(_mm256_cvtepi16_epi32(quarters[0][i]), 2);
        __m256i difference = _mm256_sub_epi32(above, _mm256_cvtepi16_epi32(quarters[1][i]));
        __m256 weight = _mm256_loadu_ps(gamma + 8 * i);
        __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(difference), _mm256_mul_ps(weight, weight));
        sum = _mm256_add_ps(sum, product);
        magnitude = _mm256_add_ps(magnitude, _mm256_andnot_ps(sign, product));
    }
    return (struct weighed){sum_of(sum), sum_of(magnitude)};
}

/*
 * Codes are counted in bytes: how many boundaries, all of them multiples of 1/4, lie below the value. x >> 8
 * is the last quarter reached, (x - 1) >> 8 the last one passed. A tie to even goes up at .75, 1.75 and 3.5:
 * those three need only be reached, the others passed. The last one, 5 (20 quarters), lies beyond a 16-entry
 * table.
 */
static inline void lanes_encode(lanes x, lanes bits, enum e2m1_ties ties, int least, uint8_t *packed) {
    const __m256i passed_to_even =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3));
    const __m256i reached_to_even =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3));
    const __m256i passed_toward_zero =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6));
    const __m256i last_entry = _mm256_set1_epi8(15);

    lanes below = lanes_excess(x, lanes_set1(1));
    __m256i passed = _mm256_packus_epi16(_mm256_srli_epi16(below.a, 8), _mm256_srli_epi16(below.b, 8));
    __m256i passed_entry = _mm256_min_epu8(passed, last_entry);
    __m256i codes;
    if (ties == E2M1_TIES_TO_EVEN) {
        __m256i reached = _mm256_packus_epi16(_mm256_srli_epi16(x.a, 8), _mm256_srli_epi16(x.b, 8));
        __m256i reached_entry = _mm256_min_epu8(reached, last_entry);
        codes = _mm256_add_epi8(_mm256_shuffle_epi8(passed_to_even, passed_entry),
                                _mm256_shuffle_epi8(reached_to_even, reached_entry));
    } else {
        codes = _mm256_shuffle_epi8(passed_toward_zero, passed_entry);
    }
    codes = _mm256_sub_epi8(codes, _mm256_cmpgt_epi8(passed, _mm256_set1_epi8(19)));

    __m256i signs;
    if (least < 0) { /* saturation keeps the sign bit */
        signs = _mm256_and_si256(_mm256_srli_epi16(_mm256_packs_epi16(bits.a, bits.b), 4), _mm256_set1_epi8(8));
    } else {
        lanes beyond = lanes_excess(bits, lanes_set1(0x8000 + least));
        __m256i none = _mm256_cmpeq_epi8(_mm256_packus_epi16(beyond.a, beyond.b), _mm256_setzero_si256());
        signs = _mm256_andnot_si256(none, _mm256_set1_epi8(8));
    }

    /* Pairs to bytes; then undo the packs' interleaving: four bytes each of a, b, a, b. */
    __m256i pairs = _mm256_maddubs_epi16(_mm256_or_si256(codes, signs), _mm256_set1_epi16(0x1001));
    pairs = _mm256_packus_epi16(pairs, pairs);
    _mm_storeu_si128((__m128i *)packed,
                     _mm_unpacklo_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}

#include "qstream/mxfp4_kernel.inc"

#else
typedef int mxfp4_avx2_is_empty;
#endif
