#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "verify/blocks_transpose.h"

#define TRANSPOSE_BLOCKS
#define LANES 8
#define MEASURE_NAME mxfp4_measure_avx2
#define SELECT_LESS(a, b, x, y) ((lanes)_mm256_blendv_ps((y), (x), _mm256_cmp_ps((a), (b), _CMP_LT_OQ)))
#define MIN_LANES(a, b) ((lanes)_mm256_min_ps((a), (b)))
#define MAX_LANES(a, b) ((lanes)_mm256_max_ps((a), (b)))
#define LOAD_BF16 load_bf16
#define LOAD_E2M1 load_e2m1

static inline __m256 load_bf16(const uint16_t *codes) {
    __m128i loaded = _mm_loadu_si128((const __m128i *)(const void *)codes);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(loaded), 16));
}

static inline __m256 load_e2m1(const uint8_t *packed, int shift) {
    const __m256 magnitudes = _mm256_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6);
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)packed));
    __m256i codes = _mm256_srli_epi32(bytes, shift); /* the permutation looks at three bits */
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(INT32_MIN));
    return _mm256_or_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(sign));
}

#include "verify/mxfp4_measure_kernel.inc"
#endif
