/*
 * The conversions for AVX-512 with VBMI: the plain loops compiled for wide registers, and the table looked up
 * 64 codes at a time.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "qstream/convert_kernel.inc"
#include "qstream/convert_levels.h"

/*
 * A 128-entry byte table fits two registers, and vpermi2b looks 64 codes up in it at once. Tables are
 * symmetric (see fp8_table_fill): the sign bit of the code goes to the sign bit of the result.
 */
static void fp8_e4m3_to_bf16_by_table(const uint8_t *in, size_t count, const uint16_t table[256], uint16_t *out) {
    __m512i low[2], high[2];
    for (int half = 0; half < 2; half++) {
        __m512i first = _mm512_loadu_si512(table + 64 * half);
        __m512i second = _mm512_loadu_si512(table + 64 * half + 32);
        low[half] =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(first)), _mm512_cvtepi16_epi8(second), 1);
        high[half] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(_mm512_srli_epi16(first, 8))),
                                        _mm512_cvtepi16_epi8(_mm512_srli_epi16(second, 8)), 1);
    }
    /* Unpacking works within 128-bit lanes: deal the eight-byte groups so that results come out in order. */
    const __m512i deal = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    enum { XOR_OF_AND = 0x78 }; /* a ^ (b & c) as a truth table for vpternlog */
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        __m512i codes = _mm512_permutexvar_epi64(deal, _mm512_loadu_si512(in + i));
        __m512i low_bytes = _mm512_permutex2var_epi8(low[0], codes, low[1]);
        __m512i high_bytes = _mm512_permutex2var_epi8(high[0], codes, high[1]);
        high_bytes = _mm512_ternarylogic_epi64(high_bytes, codes, sign, XOR_OF_AND);
        _mm512_storeu_si512(out + i, _mm512_unpacklo_epi8(low_bytes, high_bytes));
        _mm512_storeu_si512(out + i + 32, _mm512_unpackhi_epi8(low_bytes, high_bytes));
    }
    for (; i < count; i++)
        out[i] = table[in[i]];
}

const struct convert convert_avx512 = {
    .fp8_e4m3_to_bf16 = kernel_fp8_e4m3_to_bf16,
    .fp8_e4m3_to_bf16_by_table = fp8_e4m3_to_bf16_by_table,
    .f32_to_bf16 = kernel_f32_to_bf16,
    .f16_to_bf16 = kernel_f16_to_bf16,
    .bf16_amax = kernel_bf16_amax,
    .bf16_to_fp8_e4m3 = kernel_bf16_to_fp8_e4m3,
};

#else
typedef int convert_avx512_is_empty;
#endif
