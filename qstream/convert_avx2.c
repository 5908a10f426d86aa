/*
 * The conversions for AVX2: the plain loops compiled for 256-bit registers, and the table looked up with byte
 * shuffles.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "qstream/convert_kernel.inc"
#include "qstream/convert_levels.h"

enum { SLICES = 8 }; /* of 16 entries each: what one vpshufb looks up */

/*
 * vpshufb takes the low four bits of an index, or gives zero where its top bit is set. Slice k holds the
 * table's difference (xor) to slice k - 1 and is looked up with magnitude - 16k: slices above the magnitude's
 * give zero, the others' differences add up to the entry.
 */
struct byte_table {
    __m256i slice[SLICES];
};

static inline void table_split(const uint16_t table[256], struct byte_table *low, struct byte_table *high) {
    const __m128i byte = _mm_set1_epi16(0xff);
    __m128i low_before = _mm_setzero_si128(), high_before = _mm_setzero_si128();
    for (int k = 0; k < SLICES; k++) {
        __m128i first = _mm_loadu_si128((const __m128i *)(table + 16 * k));
        __m128i second = _mm_loadu_si128((const __m128i *)(table + 16 * k + 8));
        __m128i low_bytes = _mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(second, byte));
        __m128i high_bytes = _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8));
        low->slice[k] = _mm256_broadcastsi128_si256(_mm_xor_si128(low_bytes, low_before));
        high->slice[k] = _mm256_broadcastsi128_si256(_mm_xor_si128(high_bytes, high_before));
        low_before = low_bytes;
        high_before = high_bytes;
    }
}

/* Tables are symmetric (see fp8_table_fill): the sign bit of the code goes to the sign bit of the result. */
static void fp8_e4m3_to_bf16_by_table(const uint8_t *in, size_t count, const uint16_t table[256], uint16_t *out) {
    struct byte_table low, high;
    table_split(table, &low, &high);
    const __m256i sign = _mm256_set1_epi8((char)0x80), sixteen = _mm256_set1_epi8(16);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i codes = _mm256_loadu_si256((const __m256i *)(in + i));
        /* Unpacking works within 128-bit lanes: deal the eight-byte groups so that results come out in order.
         */
        codes = _mm256_permute4x64_epi64(codes, _MM_SHUFFLE(3, 1, 2, 0));
        __m256i index = _mm256_andnot_si256(sign, codes);
        __m256i low_bytes = _mm256_setzero_si256(), high_bytes = _mm256_and_si256(codes, sign);
        for (int k = 0; k < SLICES; k++) {
            low_bytes = _mm256_xor_si256(low_bytes, _mm256_shuffle_epi8(low.slice[k], index));
            high_bytes = _mm256_xor_si256(high_bytes, _mm256_shuffle_epi8(high.slice[k], index));
            index = _mm256_sub_epi8(index, sixteen);
        }
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_unpacklo_epi8(low_bytes, high_bytes));
        _mm256_storeu_si256((__m256i *)(out + i + 16), _mm256_unpackhi_epi8(low_bytes, high_bytes));
    }
    for (; i < count; i++)
        out[i] = table[in[i]];
}

const struct convert convert_avx2 = {
    .fp8_e4m3_to_bf16 = kernel_fp8_e4m3_to_bf16,
    .fp8_e4m3_to_bf16_by_table = fp8_e4m3_to_bf16_by_table,
    .f32_to_bf16 = kernel_f32_to_bf16,
    .f16_to_bf16 = kernel_f16_to_bf16,
    .bf16_amax = kernel_bf16_amax,
    .bf16_to_fp8_e4m3 = kernel_bf16_to_fp8_e4m3,
};

#else
typedef int convert_avx2_is_empty;
#endif
