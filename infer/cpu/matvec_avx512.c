/*
 * Matrix-vector products by AVX-512. Four rows are finished together; they are multiplied one after the other, or at once,
 * so that each part of x is loaded for all four. A row's sum is the same either way, and whether it is one of four or alone.
 */
#if defined __x86_64__
#include <immintrin.h>

#include "infer/cpu/matvec_kernels.h"

enum { ROWS = 4, PLAIN_STEP = 32, FP8_STEP = 64, MXFP4_STEP = 128, MX_RUN = 512 /* columns of 16 exponents */ };

#define ALWAYS static inline __attribute__((always_inline))

/* Tables that a kernel holds in registers. */
struct tables {
    __m512i of[4];
};

/* The sums of four vectors, each in the same order. */
ALWAYS __m128 sums_of(const __m512 totals[ROWS]) {
    __m128 parts[ROWS];
    for (unsigned r = 0; r < ROWS; r++) {
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(totals[r]), _mm512_extractf32x8_ps(totals[r], 1));
        parts[r] = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }
    _MM_TRANSPOSE4_PS(parts[0], parts[1], parts[2], parts[3]);
    return _mm_add_ps(_mm_add_ps(parts[0], parts[1]), _mm_add_ps(parts[2], parts[3]));
}

/*
 * Makes a kernel of product(tables, weight, prepared, row, count, totals), which leaves the partial sums of `count` rows
 * in totals; all sums are multiplied by `factor`.
 */
#define ROWS_FUNCTION(name, product, tables_load, factor)                                                              \
    static void name(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {      \
        const struct tables tables = tables_load();                                                                    \
        const bool together = matvec_together(weight);                                                                 \
        for (uint32_t row = begin; row < end; row += ROWS) {                                                           \
            const uint32_t count = end - row < ROWS ? end - row : ROWS;                                                \
            __m512 totals[ROWS];                                                                                       \
            if (together && count == ROWS)                                                                             \
                product(&tables, weight, prepared, row, ROWS, totals);                                                 \
            else                                                                                                       \
                for (uint32_t r = 0; r < ROWS; r++)                                                                    \
                    if (r < count)                                                                                     \
                        product(&tables, weight, prepared, row + r, 1, totals + r);                                    \
                    else                                                                                               \
                        totals[r] = _mm512_setzero_ps();                                                               \
            const __m128 sums = _mm_mul_ps(sums_of(totals), _mm_set1_ps(factor));                                      \
            _mm_mask_storeu_ps(y + row, (__mmask8)((1u << count) - 1), sums);                                          \
        }                                                                                                              \
    }

ALWAYS struct tables no_tables(void) { return (struct tables){.of = {_mm512_setzero_si512()}}; }

ALWAYS __mmask64 first_bits(uint32_t count) { return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }

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

/* BF16 is read two to a lane: even columns, then odd ones. */
static void bf16_prepare(const struct weight *weight, const float *x, void *prepared) {
    uint8_t order[PLAIN_STEP];
    for (unsigned i = 0; i < PLAIN_STEP / 2; i++) {
        order[i] = (uint8_t)(2 * i);
        order[i + PLAIN_STEP / 2] = (uint8_t)(2 * i + 1);
    }
    matvec_reorder(x, weight->columns, order, PLAIN_STEP, prepared);
}

/* 32 columns as two vectors in the order of x; `mask` has a bit per column. */
ALWAYS void plain_load(enum weight_format format, const unsigned char *at, bool whole, __mmask32 mask, __m512 out[2]) {
    if (format == WEIGHT_F32) {
        out[0] = whole ? _mm512_loadu_ps(at) : _mm512_maskz_loadu_ps((__mmask16)mask, at);
        out[1] = whole ? _mm512_loadu_ps(at + 64) : _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), at + 64);
        return;
    }
    const __m512i codes = whole ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16(mask, at);
    if (format == WEIGHT_F16) {
        out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(codes));
        out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(codes, 1));
        return;
    }
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(codes, 16));
    out[1] = _mm512_castsi512_ps(_mm512_and_si512(codes, _mm512_set1_epi32((int)0xffff0000u)));
}

ALWAYS void plain_step(enum weight_format format, const unsigned char *const codes[ROWS], size_t at, const float *x,
                       bool whole, __mmask32 mask, __m512 sums[ROWS][2], unsigned count) {
    const __m512 x0 = _mm512_load_ps(x), x1 = _mm512_load_ps(x + 16);
    for (unsigned r = 0; r < count; r++) {
        __m512 values[2];
        plain_load(format, codes[r] + at, whole, mask, values);
        sums[r][0] = _mm512_fmadd_ps(values[0], x0, sums[r][0]);
        sums[r][1] = _mm512_fmadd_ps(values[1], x1, sums[r][1]);
    }
}

ALWAYS void plain_product(enum weight_format format, const struct weight *weight, const float *x, uint32_t row,
                          unsigned count, __m512 *totals) {
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    const uint32_t columns = weight->columns;
    const unsigned char *codes[ROWS];
    __m512 sums[ROWS][2];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns * size;
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    }
    uint32_t at = 0;
    for (; at + PLAIN_STEP <= columns; at += PLAIN_STEP)
        plain_step(format, codes, at * size, x + at, true, 0, sums, count);
    if (at < columns)
        plain_step(format, codes, at * size, x + at, false, (__mmask32)first_bits(columns - at), sums, count);
    for (unsigned r = 0; r < count; r++)
        totals[r] = _mm512_add_ps(sums[r][0], sums[r][1]);
}

ALWAYS void f32_product(const struct tables *tables, const struct weight *weight, const float *x, uint32_t row,
                        unsigned count, __m512 *totals) {
    (void)tables;
    plain_product(WEIGHT_F32, weight, x, row, count, totals);
}
ROWS_FUNCTION(f32_rows, f32_product, no_tables, 1)

ALWAYS void f16_product(const struct tables *tables, const struct weight *weight, const float *x, uint32_t row,
                        unsigned count, __m512 *totals) {
    (void)tables;
    plain_product(WEIGHT_F16, weight, x, row, count, totals);
}
ROWS_FUNCTION(f16_rows, f16_product, no_tables, 1)

ALWAYS void bf16_product(const struct tables *tables, const struct weight *weight, const float *x, uint32_t row,
                         unsigned count, __m512 *totals) {
    (void)tables;
    plain_product(WEIGHT_BF16, weight, x, row, count, totals);
}
ROWS_FUNCTION(bf16_rows, bf16_product, no_tables, 1)

/* ---- FP8, MXFP8 ---- */

/*
 * e4m3 is a part of bf16: the two bytes of each magnitude's bf16 come from tables of 128, the sign is put on the upper one.
 * Interleaved in lanes of 16 they are bf16 in pairs, which become float32 as above.
 */
ALWAYS struct tables fp8_tables(void) {
    uint8_t low[128], high[128];
    for (unsigned code = 0; code < 128;
         code++) { /* e4m3's exponent is 120 less than bf16's, the fraction 4 bits shorter */
        low[code] = (uint8_t)(code << 4);
        high[code] = (uint8_t)(((code << 4) + (120 << 7)) >> 8);
    }
    for (unsigned code = 0; code < 128; code = code == 7 ? 127 : code + 1) { /* but for subnormals and NaN */
        const uint32_t bits = float_to_bits(fp8_e4m3_decode((uint8_t)code));
        low[code] = (uint8_t)(bits >> 16);
        high[code] = (uint8_t)(bits >> 24 & 0x7f);
    }
    return (struct tables){.of = {_mm512_loadu_si512(low), _mm512_loadu_si512(low + 64), _mm512_loadu_si512(high),
                                  _mm512_loadu_si512(high + 64)}};
}

/* 64 columns as four vectors in the order of x. */
ALWAYS void fp8_decode(const struct tables *tables, __m512i codes, __m512 out[4]) {
    const __m512i low = _mm512_permutex2var_epi8(tables->of[0], codes, tables->of[1]);
    __m512i high = _mm512_permutex2var_epi8(tables->of[2], codes, tables->of[3]);
    high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8((char)0x80), 0xf8); /* high | (codes & 0x80) */
    const __m512i first = _mm512_unpacklo_epi8(low, high), second = _mm512_unpackhi_epi8(low, high);
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(first, 16));
    out[1] = _mm512_castsi512_ps(_mm512_and_si512(first, upper));
    out[2] = _mm512_castsi512_ps(_mm512_slli_epi32(second, 16));
    out[3] = _mm512_castsi512_ps(_mm512_and_si512(second, upper));
}

static size_t fp8_space(const struct weight *weight) {
    return matvec_round_up(weight->columns, FP8_STEP) * sizeof(float);
}

static void fp8_prepare(const struct weight *weight, const float *x, void *prepared) {
    if (weight->format == WEIGHT_FP8 && matvec_scales_odd(weight, FP8_STEP)) {
        matvec_portable.prepare(weight, x, prepared);
        return;
    }
    uint8_t order[FP8_STEP];
    for (unsigned lane = 0; lane < 4; lane++)
        for (unsigned i = 0; i < 4; i++)
            for (unsigned vector = 0; vector < 4; vector++)
                order[16 * vector + 4 * lane + i] = (uint8_t)(16 * lane + 2 * i + vector % 2 + vector / 2 * 8);
    matvec_reorder(x, weight->columns, order, FP8_STEP, prepared);
}

ALWAYS __m512i codes_load(const unsigned char *at, bool whole, __mmask64 mask) {
    return whole ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(mask, at);
}

ALWAYS void fp8_step(const struct tables *tables, const unsigned char *const codes[ROWS], uint32_t at, const float *x,
                     bool whole, __mmask64 mask, __m512 sums[ROWS][2], unsigned count) {
    for (unsigned r = 0; r < count; r++) {
        __m512 values[4];
        fp8_decode(tables, codes_load(codes[r] + at, whole, mask), values);
        for (unsigned i = 0; i < 4; i++)
            sums[r][i % 2] = _mm512_fmadd_ps(values[i], _mm512_load_ps(x + at + 16 * i), sums[r][i % 2]);
    }
}

ALWAYS void fp8_product(const struct tables *tables, const struct weight *weight, const float *x, uint32_t row,
                        unsigned count, __m512 *totals) {
    const uint32_t columns = weight->columns, run = matvec_scale_run(weight);
    const unsigned char *codes[ROWS];
    __m512 all[ROWS];
    const float *scales[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        scales[r] = matvec_row_scales(weight, row + r);
        all[r] = _mm512_setzero_ps();
    }
    for (uint32_t at = 0, number = 0; at < columns; number++) {
        const uint32_t end = columns - at > run ? at + run : columns;
        __m512 sums[ROWS][2];
        for (unsigned r = 0; r < count; r++)
            sums[r][0] = sums[r][1] = _mm512_setzero_ps();
        for (; at + FP8_STEP <= end; at += FP8_STEP)
            fp8_step(tables, codes, at, x, true, 0, sums, count);
        if (at < end)
            fp8_step(tables, codes, at, x, false, first_bits(end - at), sums, count);
        at = end;
        for (unsigned r = 0; r < count; r++)
            all[r] = _mm512_fmadd_ps(_mm512_add_ps(sums[r][0], sums[r][1]), _mm512_set1_ps(scales[r][number]), all[r]);
    }
    for (unsigned r = 0; r < count; r++)
        totals[r] = all[r];
}
ROWS_FUNCTION(fp8_even_rows, fp8_product, fp8_tables, 1)

static void fp8_rows(const struct weight *weight, const void *prepared, float *y, uint32_t begin, uint32_t end) {
    if (matvec_scales_odd(weight, FP8_STEP))
        matvec_portable.rows(weight, prepared, y, begin, end);
    else
        fp8_even_rows(weight, prepared, y, begin, end);
}

/* The powers of two of up to 16 exponents, zeros behind them. */
ALWAYS __m512 powers_load(const uint8_t *exponents, uint32_t count) {
    const __mmask16 mask = (__mmask16)first_bits(count > 16 ? 16 : count);
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, exponents));
    const __m512i bits = _mm512_max_epu32(_mm512_slli_epi32(wide, 23), _mm512_set1_epi32(0x00400000)); /* 0: 2^-127 */
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(mask, bits));
}

/* Lane i of the result is lane `first` + index[i]. */
ALWAYS __m512 spread(__m512i index, uint32_t first, __m512 values) {
    return _mm512_permutexvar_ps(_mm512_add_epi32(index, _mm512_set1_epi32((int)first)), values);
}

ALWAYS void mxfp8_add(const struct tables *tables, const unsigned char *const codes[ROWS], uint32_t from, uint32_t at,
                      bool whole, const float *x, const __m512 powers[ROWS], __m512 all[ROWS], unsigned count) {
    const __m512i index = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    for (unsigned r = 0; r < count; r++) {
        __m512 values[4];
        fp8_decode(tables, codes_load(codes[r] + at, whole, first_bits(MATVEC_BLOCK)), values);
        __m512 sum = _mm512_mul_ps(values[0], _mm512_load_ps(x + at));
        for (unsigned i = 1; i < 4; i++)
            sum = _mm512_fmadd_ps(values[i], _mm512_load_ps(x + at + 16 * i), sum);
        all[r] = _mm512_fmadd_ps(sum, spread(index, (at - from) / MATVEC_BLOCK, powers[r]), all[r]);
    }
}

ALWAYS void mxfp8_product(const struct tables *tables, const struct weight *weight, const float *x, uint32_t row,
                          unsigned count, __m512 *totals) {
    const uint32_t columns = weight->columns, blocks = columns / MATVEC_BLOCK;
    const unsigned char *codes[ROWS];
    __m512 powers[ROWS], all[ROWS];
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns;
        all[r] = _mm512_setzero_ps();
    }
    for (uint32_t from = 0; from < columns; from += MX_RUN) {
        const uint32_t end = columns - from < MX_RUN ? columns : from + MX_RUN, first = from / MATVEC_BLOCK;
        for (unsigned r = 0; r < count; r++)
            powers[r] = powers_load(weight->exponents + (size_t)(row + r) * blocks + first, blocks - first);
        uint32_t at = from;
        for (; at + FP8_STEP <= end; at += FP8_STEP)
            mxfp8_add(tables, codes, from, at, true, x, powers, all, count);
        if (at < end)
            mxfp8_add(tables, codes, from, at, false, x, powers, all, count);
    }
    for (unsigned r = 0; r < count; r++)
        totals[r] = all[r];
}
ROWS_FUNCTION(mxfp8_rows, mxfp8_product, fp8_tables, 1)

/* ---- MXFP4 ---- */

/*
 * A word holds four codes. Its lower bits pick the value, doubled to be whole, from a table of 16 words that is there
 * twice, since five bits count; four shifts give four columns. Products with the 16-bit x are summed as integers, 12 *
 * 2^15 * 8 at most in a lane, which float32 holds exactly; then the scales of x and of the weight are applied.
 */
static size_t mxfp4_space(const struct weight *weight) {
    const size_t padded = matvec_round_up(weight->columns, MX_RUN);
    return padded * sizeof(int16_t) + padded / MATVEC_BLOCK * sizeof(float);
}

static float *mxfp4_scales(const struct weight *weight, const void *prepared) {
    const size_t padded = matvec_round_up(weight->columns, MX_RUN);
    return (float *)((uintptr_t)prepared + padded * sizeof(int16_t));
}

static void mxfp4_prepare(const struct weight *weight, const float *x, void *prepared) {
    memset(prepared, 0, mxfp4_space(weight));
    matvec_to_integers(x, weight->columns, MXFP4_STEP / 4, prepared, mxfp4_scales(weight, prepared));
}

ALWAYS struct tables mxfp4_tables(void) {
    static const int16_t doubled[32] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12,
                                        0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return (struct tables){.of = {_mm512_loadu_si512(doubled)}};
}

/* 128 columns of a row: a sum in each lane, four lanes a block. */
ALWAYS __m512 mxfp4_step(__m512i table, __m512i words, const int16_t *x) {
    const __m512i w0 = _mm512_permutexvar_epi16(words, table);
    const __m512i w1 = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), table);
    const __m512i w2 = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 8), table);
    const __m512i w3 = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 12), table);
    const __m512i low =
        _mm512_add_epi32(_mm512_madd_epi16(w0, _mm512_load_si512(x)), _mm512_madd_epi16(w1, _mm512_load_si512(x + 32)));
    const __m512i high = _mm512_add_epi32(_mm512_madd_epi16(w2, _mm512_load_si512(x + 64)),
                                          _mm512_madd_epi16(w3, _mm512_load_si512(x + 96)));
    return _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
}

ALWAYS void mxfp4_add(const struct tables *tables, const unsigned char *const codes[ROWS], uint32_t from, uint32_t at,
                      bool whole, __mmask64 mask, const int16_t *x, const __m512 powers[ROWS], __m512 all[ROWS],
                      unsigned count) {
    const __m512i index = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    for (unsigned r = 0; r < count; r++) {
        const __m512 sum = mxfp4_step(tables->of[0], codes_load(codes[r] + at / 2, whole, mask), x + at);
        all[r] = _mm512_fmadd_ps(sum, spread(index, (at - from) / MATVEC_BLOCK, powers[r]), all[r]);
    }
}

ALWAYS void mxfp4_product(const struct tables *tables, const struct weight *weight, const void *prepared, uint32_t row,
                          unsigned count, __m512 *totals) {
    const uint32_t columns = weight->columns, blocks = columns / MATVEC_BLOCK;
    const float *scales = mxfp4_scales(weight, prepared);
    const unsigned char *codes[ROWS];
    __m512 powers[ROWS], all[ROWS]; /* in registers, which *totals is not */
    for (unsigned r = 0; r < count; r++) {
        codes[r] = (const unsigned char *)weight->codes + (size_t)(row + r) * columns / 2;
        all[r] = _mm512_setzero_ps();
    }
    for (uint32_t from = 0; from < columns; from += MX_RUN) {
        const uint32_t end = columns - from < MX_RUN ? columns : from + MX_RUN, first = from / MATVEC_BLOCK;
        const __m512 x_scales = _mm512_loadu_ps(scales + first);
        for (unsigned r = 0; r < count; r++)
            powers[r] = _mm512_mul_ps(
                powers_load(weight->exponents + (size_t)(row + r) * blocks + first, blocks - first), x_scales);
        uint32_t at = from;
        for (; at + MXFP4_STEP <= end; at += MXFP4_STEP)
            mxfp4_add(tables, codes, from, at, true, 0, prepared, powers, all, count);
        if (at < end)
            mxfp4_add(tables, codes, from, at, false, first_bits((end - at) / 2), prepared, powers, all, count);
    }
    for (unsigned r = 0; r < count; r++)
        totals[r] = all[r];
}
ROWS_FUNCTION(mxfp4_rows, mxfp4_product, mxfp4_tables, 0.5f) /* at the end: no power of two gets lost */

const struct matvec_kernel matvec_avx512[WEIGHT_FORMATS] = {
    [WEIGHT_F32] = {plain_space, plain_prepare, f32_rows},  [WEIGHT_F16] = {plain_space, plain_prepare, f16_rows},
    [WEIGHT_BF16] = {plain_space, bf16_prepare, bf16_rows}, [WEIGHT_FP8] = {fp8_space, fp8_prepare, fp8_rows},
    [WEIGHT_MXFP8] = {fp8_space, fp8_prepare, mxfp8_rows},  [WEIGHT_MXFP4] = {mxfp4_space, mxfp4_prepare, mxfp4_rows},
};

uint64_t memory_read_avx512(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    __m512i sums[4];
    for (int j = 0; j < 4; j++)
        sums[j] = _mm512_setzero_si512();
    for (size_t i = 0; i + 256 <= size; i += 256)
        for (size_t j = 0; j < 4; j++)
            sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(at + i + 64 * j));
    uint64_t words[8], sum = 0;
    for (int j = 1; j < 4; j++)
        sums[0] = _mm512_add_epi64(sums[0], sums[j]);
    memcpy(words, sums, sizeof words);
    for (int j = 0; j < 8; j++)
        sum += words[j];
    return sum;
}
#else
typedef int matvec_avx512_is_for_x86_64; /* a file needs something */
#endif
