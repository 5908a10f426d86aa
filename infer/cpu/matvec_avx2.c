/*
 * Matrix-vector products by AVX2, FMA and F16C; see matvec_avx512.c for the idea of each.
 */
#if defined __x86_64__
#include <immintrin.h>

#include "infer/cpu/matvec_kernels.h"

enum {
    ROWS = 4,
    FP8_ROWS = 2, /* four sums each are as many as there are registers for */
    FP8_SUMS = 4,
    AHEAD = 1024, /* bytes that are prefetched before they are read */
    PLAIN_STEP = 16,
    FP8_STEP = 32,
    MXFP4_STEP = 64,
    RUN = 1024 /* columns whose exponents become float32 at once */
};

#define ALWAYS static inline __attribute__((always_inline))

/* Rows one after the other are one stream to the memory, which is quicker than four; see matvec_together. */
#define ROWS_FUNCTION(name, function, rows)                                                                            \
    static void name(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {      \
        uint32_t row = begin;                                                                                          \
        if (matvec_together(weight))                                                                                   \
            for (; row + (rows) <= end; row += (rows))                                                                 \
                function(weight, prepared, y, row, rows);                                                              \
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
ROWS_FUNCTION(f32_rows, f32_rows_of, ROWS)
ROWS_FUNCTION(f16_rows, f16_rows_of, ROWS)
ROWS_FUNCTION(bf16_rows, bf16_rows_of, ROWS)

/* ---- FP8, MXFP8 ---- */

/*
 * e4m3 moved to where a float has its exponent is 2^-120 times the value, or, as float16, 2^-8 times; subnormals included,
 * and only the two NaN would be finite, so these are looked for. The first takes half as long, but multiplies subnormal
 * floats, which costs a hundred cycles each time on processors of other makers than AMD; the second is for those. Both
 * give the same sums, to the bit: columns are added in the same order, and powers of two change nothing. For the first x
 * is scaled so that no product is subnormal.
 */
enum fp8_way { AS_FLOAT, AS_HALF };

static size_t fp8_padded(const struct weight *weight) {
    return matvec_round_up(weight->columns, FP8_STEP) * sizeof(float);
}

/* Behind x: what sums are multiplied by. */
static size_t fp8_space(const struct weight *weight) { return fp8_padded(weight) + sizeof(double); }

static double *fp8_factor(const struct weight *weight, const void *prepared) {
    return (double *)((uintptr_t)prepared + fp8_padded(weight));
}

/* The power of two that brings the largest of |x| to 2^100; 1 where that is zero or not finite. */
static double fp8_power(const float *x, uint32_t columns) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < columns; i++) {
        const uint32_t bits = float_to_bits(x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most == 0 || most >= 0x7f800000u ? 1 : ldexp(1, 100 - ilogbf(float_from_bits(most)));
}

ALWAYS void fp8_prepare(enum fp8_way way, const struct weight *weight, const float *x, float *prepared) {
    if (weight->format == WEIGHT_FP8 && matvec_scales_odd(weight, FP8_STEP)) {
        matvec_portable.prepare(weight, x, prepared);
        return;
    }
    uint8_t order[FP8_STEP];
    for (unsigned vector = 0; vector < 4; vector++)
        for (unsigned i = 0; i < 8; i++)
            order[8 * vector + i] = (uint8_t)(2 * (i % 4) + i / 4 * 16 + vector % 2 * 8 + vector / 2);
    matvec_reorder(x, weight->columns, order, FP8_STEP, prepared);
    *fp8_factor(weight, prepared) = 0x1p8;
    if (way == AS_HALF)
        return;
    const double power = fp8_power(x, weight->columns);
    for (uint32_t i = 0; i < matvec_round_up(weight->columns, FP8_STEP); i++)
        prepared[i] = (float)((double)prepared[i] * power);
    *fp8_factor(weight, prepared) = 0x1p120 / power;
}

static void fp8_prepare_float(const struct weight *weight, const float *x, void *prepared) {
    fp8_prepare(AS_FLOAT, weight, x, prepared);
}
static void fp8_prepare_half(const struct weight *weight, const float *x, void *prepared) {
    fp8_prepare(AS_HALF, weight, x, prepared);
}

/* 32 columns in the order of x. */
ALWAYS void fp8_decode(enum fp8_way way, __m256i codes, __m256 out[4]) {
    const __m256i upper = _mm256_slli_epi16(codes, 8), zero = _mm256_setzero_si256();
    if (way == AS_FLOAT) {
        const __m256i mask = _mm256_set1_epi16((short)0x87f0);
        const __m256i even = _mm256_and_si256(_mm256_srai_epi16(upper, 4), mask);
        const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(codes, 4), mask);
        out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, even));
        out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, even));
        out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, odd));
        out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, odd));
        return;
    }
    const __m256i mask = _mm256_set1_epi16((short)0xbf80);
    const __m256i even = _mm256_permute4x64_epi64(_mm256_and_si256(_mm256_srai_epi16(upper, 1), mask), 0xd8);
    const __m256i odd = _mm256_permute4x64_epi64(_mm256_and_si256(_mm256_srai_epi16(codes, 1), mask), 0xd8);
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(even));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1));
    out[2] = _mm256_cvtph_ps(_mm256_castsi256_si128(odd));
    out[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1));
}

ALWAYS __m256i fp8_rest(const unsigned char *at, uint32_t count) {
    unsigned char rest[FP8_STEP] = {0};
    memcpy(rest, at, count);
    return _mm256_loadu_si256((const __m256i *)rest);
}

/* Adds 32 products to `sums`; *most becomes the largest magnitude of all codes, byte by byte, which tells of NaN. */
ALWAYS void fp8_add(enum fp8_way way, __m256i codes, const float *x, __m256 sums[FP8_SUMS], __m256i *most) {
    __m256 values[FP8_SUMS];
    fp8_decode(way, codes, values);
    *most = _mm256_max_epu8(*most, _mm256_and_si256(codes, _mm256_set1_epi8(0x7f)));
    for (unsigned i = 0; i < FP8_SUMS; i++)
        sums[i] = _mm256_fmadd_ps(values[i], _mm256_load_ps(x + 8 * i), sums[i]);
}

ALWAYS __m256 fp8_sum(const __m256 sums[FP8_SUMS]) {
    return _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
}

/* The sums of rows; NaN where a code is, which is looked for if there is one at all. */
ALWAYS void fp8_finish(const struct weight *weight, const unsigned char *const codes[ROWS], const __m256 totals[ROWS],
                       __m256i most, double factor, float *y, unsigned count) {
    const __m256i nan = _mm256_cmpeq_epi8(most, _mm256_set1_epi8(0x7f));
    for (unsigned r = 0; r < count; r++)
        y[r] = (float)((double)lanes_sum(totals[r]) * factor);
    if (_mm256_testz_si256(nan, nan))
        return;
    for (unsigned r = 0; r < count; r++)
        for (uint32_t i = 0; i < weight->columns; i++)
            if ((codes[r][i] & 0x7f) == 0x7f)
                y[r] = NAN;
}

ALWAYS void fp8_rows_of(enum fp8_way way, const struct weight *weight, const float *x, float *y, uint32_t row,
                        unsigned count) {
    const uint32_t columns = weight->columns, run = matvec_scale_run(weight);
    const unsigned char *codes[ROWS];
    const float *scales[ROWS];
    __m256 totals[ROWS];
    __m256i most = _mm256_setzero_si256();
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        scales[r] = matvec_row_scales(weight, row + r);
        totals[r] = _mm256_setzero_ps();
    }
    for (uint32_t at = 0, number = 0; at < columns; number++) {
        const uint32_t end = columns - at > run ? at + run : columns;
        __m256 sums[FP8_ROWS][FP8_SUMS];
        for (unsigned r = 0; r < count; r++)
            for (unsigned i = 0; i < FP8_SUMS; i++)
                sums[r][i] = _mm256_setzero_ps();
        for (; at + FP8_STEP <= end; at += FP8_STEP)
            for (unsigned r = 0; r < count; r++) {
                prefetch(codes[r] + at);
                fp8_add(way, _mm256_loadu_si256((const __m256i *)(codes[r] + at)), x + at, sums[r], &most);
            }
        if (at < end)
            for (unsigned r = 0; r < count; r++)
                fp8_add(way, fp8_rest(codes[r] + at, end - at), x + at, sums[r], &most);
        at = end;
        for (unsigned r = 0; r < count; r++)
            totals[r] = _mm256_fmadd_ps(fp8_sum(sums[r]), _mm256_set1_ps(scales[r][number]), totals[r]);
    }
    fp8_finish(weight, codes, totals, most, *fp8_factor(weight, x), y + row, count);
}

ALWAYS void fp8_rows_of_float(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    fp8_rows_of(AS_FLOAT, weight, x, y, row, count);
}
ALWAYS void fp8_rows_of_half(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    fp8_rows_of(AS_HALF, weight, x, y, row, count);
}
ROWS_FUNCTION(fp8_even_rows_float, fp8_rows_of_float, FP8_ROWS)
ROWS_FUNCTION(fp8_even_rows_half, fp8_rows_of_half, FP8_ROWS)

static void fp8_rows_float(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {
    (matvec_scales_odd(weight, FP8_STEP) ? matvec_portable.rows : fp8_even_rows_float)(weight, prepared, y, begin, end);
}
static void fp8_rows_half(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {
    (matvec_scales_odd(weight, FP8_STEP) ? matvec_portable.rows : fp8_even_rows_half)(weight, prepared, y, begin, end);
}

/* Eight exponents from `at` on; behind the last one of the weight zeros. `end`: at least eight of them before it. */
ALWAYS uint64_t exponents_load(const uint8_t *at, const uint8_t *end) {
    const uint8_t *from = at <= end - 8 ? at : end - 8;
    uint64_t eight;
    memcpy(&eight, from, 8);
    return eight >> (8 * (at - from));
}

/*
 * The powers of two of exponents [first, first + count) of a row, times `factors` if there are any; of up to 7 more, which
 * may be the next row's, something is written.
 */
ALWAYS void powers_fill(const struct weight *weight, uint32_t row, uint32_t first, uint32_t count, const float *factors,
                        float *powers) {
    const size_t blocks = weight->columns / MATVEC_BLOCK;
    const uint8_t *exponents = weight->exponents + row * blocks + first,
                  *end = weight->exponents + weight->rows * blocks;
    const __m256i least = _mm256_set1_epi32(0x00400000); /* of exponent 0: 2^-127 */
    uint32_t i = 0;
    do {
        const __m128i eight = _mm_cvtsi64_si128((long long)exponents_load(exponents + i, end));
        const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(eight), 23);
        const __m256 power = _mm256_castsi256_ps(_mm256_max_epi32(bits, least));
        _mm256_storeu_ps(powers + i, factors ? _mm256_mul_ps(power, _mm256_loadu_ps(factors + i)) : power);
        i += 8;
    } while (i < count);
}

ALWAYS void mxfp8_rows_of(enum fp8_way way, const struct weight *weight, const float *x, float *y, uint32_t row,
                          unsigned count) {
    const uint32_t columns = weight->columns;
    float powers[ROWS][RUN / MATVEC_BLOCK];
    const unsigned char *codes[ROWS];
    __m256 totals[ROWS];
    __m256i most = _mm256_setzero_si256();
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        totals[r] = _mm256_setzero_ps();
    }
    for (uint32_t from = 0; from < columns; from += RUN) {
        const uint32_t end = columns - from < RUN ? columns : from + RUN;
        for (unsigned r = 0; r < count; r++)
            powers_fill(weight, row + r, from / MATVEC_BLOCK, (end - from) / MATVEC_BLOCK, NULL, powers[r]);
        for (uint32_t at = from; at < end; at += FP8_STEP)
            for (unsigned r = 0; r < count; r++) {
                __m256 sums[FP8_SUMS];
                for (unsigned i = 0; i < FP8_SUMS; i++)
                    sums[i] = _mm256_setzero_ps();
                prefetch(codes[r] + at);
                fp8_add(way, _mm256_loadu_si256((const __m256i *)(codes[r] + at)), x + at, sums, &most);
                const __m256 power = _mm256_broadcast_ss(&powers[r][(at - from) / MATVEC_BLOCK]);
                totals[r] = _mm256_fmadd_ps(fp8_sum(sums), power, totals[r]);
            }
    }
    fp8_finish(weight, codes, totals, most, *fp8_factor(weight, x), y + row, count);
}

ALWAYS void mxfp8_rows_of_float(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    mxfp8_rows_of(AS_FLOAT, weight, x, y, row, count);
}
ALWAYS void mxfp8_rows_of_half(const struct weight *weight, const float *x, float *y, uint32_t row, unsigned count) {
    mxfp8_rows_of(AS_HALF, weight, x, y, row, count);
}
ROWS_FUNCTION(mxfp8_rows_float, mxfp8_rows_of_float, FP8_ROWS)
ROWS_FUNCTION(mxfp8_rows_half, mxfp8_rows_of_half, FP8_ROWS)

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

/* What a kernel of MXFP4 holds in registers. */
struct mxfp4_constants {
    __m256i table, nibble, upper, halves;
};

/* 64 columns: sums of 8 columns in each lane, two blocks in the two halves; then the scales of both. */
ALWAYS __m256 mxfp4_add(const struct mxfp4_constants *constants, __m256i bytes, const __m256i x[4], const float *powers,
                        __m256 total) {
    const __m256i low = _mm256_shuffle_epi8(constants->table, _mm256_and_si256(bytes, constants->nibble));
    const __m256i high =
        _mm256_shuffle_epi8(constants->table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), constants->nibble));
    const __m256i p0 = _mm256_madd_epi16(_mm256_slli_epi16(low, 8), x[0]);
    const __m256i p1 = _mm256_madd_epi16(_mm256_slli_epi16(high, 8), x[1]);
    const __m256i p2 = _mm256_madd_epi16(_mm256_and_si256(low, constants->upper), x[2]);
    const __m256i p3 = _mm256_madd_epi16(_mm256_and_si256(high, constants->upper), x[3]);
    const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(p0, p1), _mm256_add_epi32(p2, p3)));
    const __m256 pair = _mm256_castpd_ps(_mm256_broadcast_sd((const double *)(const void *)powers));
    return _mm256_fmadd_ps(sum, _mm256_permutevar_ps(pair, constants->halves), total);
}

ALWAYS void mxfp4_rows_of(const struct weight *weight, const void *prepared, float *y, uint32_t row, unsigned count) {
    const struct mxfp4_constants constants = {
        .table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)),
        .nibble = _mm256_set1_epi8(15),
        .upper = _mm256_set1_epi16((short)0xff00),
        .halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)};
    const uint32_t columns = weight->columns;
    const float *scales = mxfp4_scales(weight, prepared);
    float powers[ROWS][RUN / MATVEC_BLOCK];
    const unsigned char *codes[ROWS];
    __m256 totals[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns / 2;
        totals[r] = _mm256_setzero_ps();
    }
    for (uint32_t from = 0; from < columns; from += RUN) {
        const uint32_t end = columns - from < RUN ? columns : from + RUN, first = from / MATVEC_BLOCK;
        for (unsigned r = 0; r < count; r++)
            powers_fill(weight, row + r, first, (end - from) / MATVEC_BLOCK, scales + first, powers[r]);
        uint32_t at = from;
        const __m256i *x = (const __m256i *)((const int16_t *)prepared + from);
        __m256 sums[ROWS]; /* in registers, which totals are not */
        for (unsigned r = 0; r < count; r++)
            sums[r] = totals[r];
        for (; at + MXFP4_STEP <= end; at += MXFP4_STEP, x += 4)
            for (unsigned r = 0; r < count; r++) {
                prefetch(codes[r] + at / 2);
                sums[r] = mxfp4_add(&constants, _mm256_loadu_si256((const __m256i *)(codes[r] + at / 2)), x,
                                    &powers[r][(at - from) / MATVEC_BLOCK], sums[r]);
            }
        for (unsigned r = 0; r < count; r++)
            totals[r] = sums[r];
        if (at < end) /* one block, the zeros of x behind it */
            for (unsigned r = 0; r < count; r++) {
                powers[r][(at - from) / MATVEC_BLOCK + 1] = 0;
                totals[r] = mxfp4_add(&constants, fp8_rest(codes[r] + at / 2, (end - at) / 2), x,
                                      &powers[r][(at - from) / MATVEC_BLOCK], totals[r]);
            }
    }
    for (unsigned r = 0; r < count; r++)
        y[row + r] = lanes_sum(totals[r]) * (0.5f / 256); /* at the end: no power of two gets lost */
}
ROWS_FUNCTION(mxfp4_rows, mxfp4_rows_of, ROWS)

#define KERNELS(way)                                                                                                   \
    {                                                                                                                  \
        [WEIGHT_F32] = {plain_space, plain_prepare, f32_rows}, [WEIGHT_F16] = {plain_space, plain_prepare, f16_rows},  \
        [WEIGHT_BF16] = {plain_space, bf16_prepare, bf16_rows},                                                        \
        [WEIGHT_FP8] = {fp8_space, fp8_prepare_##way, fp8_rows_##way},                                                 \
        [WEIGHT_MXFP8] = {fp8_space, fp8_prepare_##way, mxfp8_rows_##way},                                             \
        [WEIGHT_MXFP4] = {mxfp4_space, mxfp4_prepare, mxfp4_rows},                                                     \
    }
const struct matvec_kernel matvec_avx2[WEIGHT_FORMATS] = KERNELS(half);
const struct matvec_kernel matvec_avx2_amd[WEIGHT_FORMATS] = KERNELS(float);

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
