/*
 * Matrix-vector products by AVX2, FMA and F16C; see matvec_avx512.c for the idea of each.
 */
#if defined __x86_64__
#include <immintrin.h>

#include "infer/cpu/matvec_kernels.h"

enum {
    ROWS = 4,
    AHEAD = 1024, /* bytes that are prefetched before they are read */
    PLAIN_STEP = 16,
    FP8_STEP = 32,
    MXFP4_STEP = 64,
    RUN = 1024 /* columns whose exponents become float32 at once */
};

#define ALWAYS static inline __attribute__((always_inline))

#define ROWS_FUNCTION(name, function)                                                                                  \
    static void name(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {      \
        uint32_t row = begin;                                                                                          \
        for (; row + ROWS <= end; row += ROWS)                                                                         \
            function(weight, prepared, y, row, ROWS);                                                                  \
        for (; row < end; row++)                                                                                       \
            function(weight, prepared, y, row, 1);                                                                     \
    }

ALWAYS float lanes_sum(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

ALWAYS void prefetch(const unsigned char *at) {
    _mm_prefetch((const char *)((uintptr_t)at + AHEAD), _MM_HINT_T0); /* past the end it does nothing */
}

/* ---- F32, F16, BF16 ---- */

static size_t plain_space(const struct weight *weight) {
    return matvec_round_up(weight->columns, PLAIN_STEP) * sizeof(float);
}

static void plain_prepare(const struct weight *weight, const float *x, void *prepared) {
    uint8_t order[PLAIN_STEP];
    for (unsigned i = 0; i < PLAIN_STEP; i++)
        order[i] = (uint8_t)i;
    matvec_reorder(x, weight->columns, order, PLAIN_STEP, prepared);
}

static void bf16_prepare(const struct weight *weight, const float *x, void *prepared) {
    uint8_t order[PLAIN_STEP];
    for (unsigned i = 0; i < PLAIN_STEP / 2; i++) {
        order[i] = (uint8_t)(2 * i);
        order[i + PLAIN_STEP / 2] = (uint8_t)(2 * i + 1);
    }
    matvec_reorder(x, weight->columns, order, PLAIN_STEP, prepared);
}

/* 16 columns as two vectors in the order of x. */
ALWAYS void plain_load(enum weight_format format, const unsigned char *at, __m256 out[2]) {
    if (format == WEIGHT_F32) {
        out[0] = _mm256_loadu_ps((const float *)at);
        out[1] = _mm256_loadu_ps((const float *)(at + 32));
    } else if (format == WEIGHT_F16) {
        out[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
        out[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 16)));
    } else {
        const __m256i codes = _mm256_loadu_si256((const __m256i *)at);
        out[0] = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 16));
        out[1] = _mm256_castsi256_ps(_mm256_and_si256(codes, _mm256_set1_epi32((int)0xffff0000u)));
    }
}

ALWAYS void plain_add(enum weight_format format, const unsigned char *at, __m256 x0, __m256 x1, __m256 sums[2]) {
    __m256 values[2];
    plain_load(format, at, values);
    sums[0] = _mm256_fmadd_ps(values[0], x0, sums[0]);
    sums[1] = _mm256_fmadd_ps(values[1], x1, sums[1]);
}

ALWAYS void plain_rows(enum weight_format format, const struct weight *weight, const float *x, float *y, uint32_t row,
                       unsigned count) {
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    const uint32_t columns = weight->columns;
    const unsigned char *codes[ROWS];
    __m256 sums[ROWS][2];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns * size;
        sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    }
    uint32_t at = 0;
    for (; at + PLAIN_STEP <= columns; at += PLAIN_STEP) {
        const __m256 x0 = _mm256_load_ps(x + at), x1 = _mm256_load_ps(x + at + 8);
        for (unsigned r = 0; r < count; r++) {
            prefetch(codes[r] + at * size);
            plain_add(format, codes[r] + at * size, x0, x1, sums[r]);
        }
    }
    if (at < columns) {
        const __m256 x0 = _mm256_load_ps(x + at), x1 = _mm256_load_ps(x + at + 8);
        for (unsigned r = 0; r < count; r++) {
            unsigned char rest[PLAIN_STEP * 4] = {0};
            memcpy(rest, codes[r] + at * size, (columns - at) * size);
            plain_add(format, rest, x0, x1, sums[r]);
        }
    }
    for (unsigned r = 0; r < count; r++)
        y[row + r] = lanes_sum(_mm256_add_ps(sums[r][0], sums[r][1]));
}

ALWAYS void f32_rows_of(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    plain_rows(WEIGHT_F32, weight, x, y, row, count);
}
ALWAYS void f16_rows_of(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    plain_rows(WEIGHT_F16, weight, x, y, row, count);
}
ALWAYS void bf16_rows_of(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    plain_rows(WEIGHT_BF16, weight, x, y, row, count);
}
ROWS_FUNCTION(f32_rows, f32_rows_of)
ROWS_FUNCTION(f16_rows, f16_rows_of)
ROWS_FUNCTION(bf16_rows, bf16_rows_of)

/* ---- FP8, MXFP8 ---- */

/*
 * e4m3 moved down by one bit in the upper byte of a word is float16 of 2^-8 times the value, subnormals included; only the
 * two NaN would be finite, so these are looked for. x is 2^8 times as large instead.
 */
static const float fp8_factor = 256;

static size_t fp8_space(const struct weight *weight) {
    return matvec_round_up(weight->columns, FP8_STEP) * sizeof(float);
}

static void fp8_prepare(const struct weight *weight, const float *x, void *prepared) {
    if (weight->format == WEIGHT_FP8 && matvec_scales_odd(weight, FP8_STEP)) {
        matvec_portable.prepare(weight, x, prepared);
        return;
    }
    uint8_t order[FP8_STEP];
    for (unsigned i = 0; i < 8; i++)
        for (unsigned vector = 0; vector < 4; vector++)
            order[8 * vector + i] = (uint8_t)(2 * i + vector / 2 + vector % 2 * 16);
    matvec_reorder(x, weight->columns, order, FP8_STEP, prepared);
}

/* 32 columns in the order of x, 2^-8 times their values; *nan gathers codes that are NaN. */
ALWAYS void fp8_decode(__m256i codes, __m256 out[4], __m256i *nan) {
    const __m256i magnitude = _mm256_set1_epi8(0x7f), mask = _mm256_set1_epi16((short)0xbf80);
    *nan = _mm256_or_si256(*nan, _mm256_cmpeq_epi8(_mm256_and_si256(codes, magnitude), magnitude));
    const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 1), mask);
    const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(codes, 1), mask);
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(even));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1));
    out[2] = _mm256_cvtph_ps(_mm256_castsi256_si128(odd));
    out[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1));
}

ALWAYS __m256i fp8_load(const unsigned char *at, uint32_t count) {
    prefetch(at);
    if (count >= FP8_STEP)
        return _mm256_loadu_si256((const __m256i *)at);
    unsigned char rest[FP8_STEP] = {0};
    memcpy(rest, at, count);
    return _mm256_loadu_si256((const __m256i *)rest);
}

ALWAYS __m256 fp8_product(const unsigned char *at, uint32_t count, const float *x, __m256i *nan) {
    __m256 values[4];
    fp8_decode(fp8_load(at, count), values, nan);
    const __m256 first = _mm256_fmadd_ps(values[1], _mm256_load_ps(x + 8), _mm256_mul_ps(values[0], _mm256_load_ps(x)));
    const __m256 second =
        _mm256_fmadd_ps(values[3], _mm256_load_ps(x + 24), _mm256_mul_ps(values[2], _mm256_load_ps(x + 16)));
    return _mm256_add_ps(first, second);
}

ALWAYS float fp8_finish(__m256 total, __m256i nan) {
    return _mm256_testz_si256(nan, nan) ? lanes_sum(total) * fp8_factor : NAN;
}

ALWAYS void fp8_rows_of(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    const uint32_t columns = weight->columns, run = matvec_scale_run(weight);
    const unsigned char *codes[ROWS];
    const float *scales[ROWS];
    __m256 totals[ROWS];
    __m256i nans[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        scales[r] = matvec_row_scales(weight, row + r);
        totals[r] = _mm256_setzero_ps();
        nans[r] = _mm256_setzero_si256();
    }
    for (uint32_t at = 0, number = 0; at < columns; number++) {
        const uint32_t end = columns - at > run ? at + run : columns;
        __m256 sums[ROWS];
        for (unsigned r = 0; r < count; r++)
            sums[r] = _mm256_setzero_ps();
        for (; at + FP8_STEP <= end; at += FP8_STEP)
            for (unsigned r = 0; r < count; r++)
                sums[r] = _mm256_add_ps(sums[r], fp8_product(codes[r] + at, FP8_STEP, x + at, &nans[r]));
        if (at < end)
            for (unsigned r = 0; r < count; r++)
                sums[r] = _mm256_add_ps(sums[r], fp8_product(codes[r] + at, end - at, x + at, &nans[r]));
        at = end;
        for (unsigned r = 0; r < count; r++)
            totals[r] = _mm256_fmadd_ps(sums[r], _mm256_set1_ps(scales[r][number]), totals[r]);
    }
    for (unsigned r = 0; r < count; r++)
        y[row + r] = fp8_finish(totals[r], nans[r]);
}
ROWS_FUNCTION(fp8_even_rows, fp8_rows_of)

static void fp8_rows(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {
    if (matvec_scales_odd(weight, FP8_STEP))
        matvec_portable.rows(weight, prepared, y, begin, end);
    else
        fp8_even_rows(weight, prepared, y, begin, end);
}

/* The powers of two of `count` exponents, times `factors` if there are any. */
ALWAYS void powers_fill(const uint8_t *exponents, uint32_t count, const float *factors, float *powers) {
    for (uint32_t i = 0; i < count; i++) {
        const float power = float_from_bits(exponents[i] ? (uint32_t)exponents[i] << 23 : 0x00400000u);
        powers[i] = factors ? power * factors[i] : power;
    }
}

ALWAYS void mxfp8_rows_of(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    const uint32_t columns = weight->columns, blocks = columns / MATVEC_BLOCK;
    float powers[ROWS][RUN / MATVEC_BLOCK];
    const unsigned char *codes[ROWS];
    __m256 totals[ROWS];
    __m256i nans[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        totals[r] = _mm256_setzero_ps();
        nans[r] = _mm256_setzero_si256();
    }
    for (uint32_t from = 0; from < columns; from += RUN) {
        const uint32_t end = columns - from < RUN ? columns : from + RUN;
        for (unsigned r = 0; r < count; r++)
            powers_fill(weight->exponents + (size_t)(row + r) * blocks + from / MATVEC_BLOCK,
                        (end - from) / MATVEC_BLOCK, NULL, powers[r]);
        for (uint32_t at = from; at < end; at += FP8_STEP)
            for (unsigned r = 0; r < count; r++) {
                const __m256 sum = fp8_product(codes[r] + at, FP8_STEP, x + at, &nans[r]);
                const __m256 power = _mm256_broadcast_ss(&powers[r][(at - from) / MATVEC_BLOCK]);
                totals[r] = _mm256_fmadd_ps(sum, power, totals[r]);
            }
    }
    for (unsigned r = 0; r < count; r++)
        y[row + r] = fp8_finish(totals[r], nans[r]);
}
ROWS_FUNCTION(mxfp8_rows, mxfp8_rows_of)

/* ---- MXFP4 ---- */

/*
 * Bytes from a table of 16, doubled to be whole; even and odd bytes become words that are 256 times the value. Sums in a
 * lane are 256 times a whole number below 2^22: float32 holds them exactly.
 */
static size_t mxfp4_space(const struct weight *weight) {
    const size_t padded = matvec_round_up(weight->columns, RUN);
    return padded * sizeof(int16_t) + padded / MATVEC_BLOCK * sizeof(float);
}

static float *mxfp4_scales(const struct weight *weight, const void *prepared) {
    const size_t padded = matvec_round_up(weight->columns, RUN);
    return (float *)((uintptr_t)prepared + padded * sizeof(int16_t));
}

static void mxfp4_prepare(const struct weight *weight, const float *x, void *prepared) {
    memset(prepared, 0, mxfp4_space(weight));
    matvec_to_integers(x, weight->columns, MXFP4_STEP / 4, prepared, mxfp4_scales(weight, prepared));
}

/* 64 columns: sums of 8 columns in each lane, two blocks in the two halves. */
ALWAYS __m256 mxfp4_product(__m256i table, const unsigned char *at, uint32_t count, const int16_t *x) {
    const __m256i nibble = _mm256_set1_epi8(15), upper = _mm256_set1_epi16((short)0xff00);
    const __m256i bytes = fp8_load(at, count);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, nibble));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    const __m256i *parts = (const __m256i *)x;
    const __m256i p0 = _mm256_madd_epi16(_mm256_slli_epi16(low, 8), _mm256_load_si256(parts));
    const __m256i p1 = _mm256_madd_epi16(_mm256_slli_epi16(high, 8), _mm256_load_si256(parts + 1));
    const __m256i p2 = _mm256_madd_epi16(_mm256_and_si256(low, upper), _mm256_load_si256(parts + 2));
    const __m256i p3 = _mm256_madd_epi16(_mm256_and_si256(high, upper), _mm256_load_si256(parts + 3));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(p0, p1), _mm256_add_epi32(p2, p3)));
}

ALWAYS void mxfp4_rows_of(const struct weight *weight, const void *prepared, float *y, uint32_t row, unsigned count) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const uint32_t columns = weight->columns, blocks = columns / MATVEC_BLOCK;
    const int16_t *x = prepared;
    const float *scales = mxfp4_scales(weight, prepared);
    float powers[ROWS][RUN / MATVEC_BLOCK] = {{0}};
    const unsigned char *codes[ROWS];
    __m256 totals[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns / 2;
        totals[r] = _mm256_setzero_ps();
    }
    for (uint32_t from = 0; from < columns; from += RUN) {
        const uint32_t end = columns - from < RUN ? columns : from + RUN, first = from / MATVEC_BLOCK;
        for (unsigned r = 0; r < count; r++)
            powers_fill(weight->exponents + (size_t)(row + r) * blocks + first, (end - from) / MATVEC_BLOCK,
                        scales + first, powers[r]);
        for (uint32_t at = from; at < end; at += MXFP4_STEP)
            for (unsigned r = 0; r < count; r++) {
                const __m256 sum = mxfp4_product(table, codes[r] + at / 2, (end - at) / 2, x + at);
                const __m256 pair = _mm256_castpd_ps(
                    _mm256_broadcast_sd((const double *)(const void *)&powers[r][(at - from) / MATVEC_BLOCK]));
                totals[r] = _mm256_fmadd_ps(sum, _mm256_permutevar_ps(pair, halves), totals[r]);
            }
    }
    for (unsigned r = 0; r < count; r++)
        y[row + r] = lanes_sum(totals[r]) * (0.5f / 256); /* at the end: no power of two gets lost */
}
ROWS_FUNCTION(mxfp4_rows, mxfp4_rows_of)

const struct matvec_kernel matvec_avx2[WEIGHT_FORMATS] = {
    [WEIGHT_F32] = {plain_space, plain_prepare, f32_rows},  [WEIGHT_F16] = {plain_space, plain_prepare, f16_rows},
    [WEIGHT_BF16] = {plain_space, bf16_prepare, bf16_rows}, [WEIGHT_FP8] = {fp8_space, fp8_prepare, fp8_rows},
    [WEIGHT_MXFP8] = {fp8_space, fp8_prepare, mxfp8_rows},  [WEIGHT_MXFP4] = {mxfp4_space, mxfp4_prepare, mxfp4_rows},
};

uint64_t memory_read_avx2(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    __m256i sums[4];
    for (int j = 0; j < 4; j++)
        sums[j] = _mm256_setzero_si256();
    for (size_t i = 0; i + 128 <= size; i += 128)
        for (size_t j = 0; j < 4; j++)
            sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256((const __m256i *)(at + i + 32 * j)));
    sums[0] = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    uint64_t words[4];
    memcpy(words, sums, sizeof words);
    return words[0] + words[1] + words[2] + words[3];
}
#else
typedef int matvec_avx2_is_for_x86_64; /* a file needs something */
#endif
