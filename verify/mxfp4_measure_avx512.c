#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "verify/blocks_transpose.h"

#define TRANSPOSE_BLOCKS
#define LANES 16
#define MEASURE_NAME mxfp4_measure_avx512
#define SELECT_LESS(a, b, x, y) ((lanes)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((a), (b), _CMP_LT_OQ), (y), (x)))
#define MIN_LANES(a, b) ((lanes)_mm512_min_ps((a), (b)))
#define MAX_LANES(a, b) ((lanes)_mm512_max_ps((a), (b)))
#define LOAD_BF16 load_bf16
#define LOAD_E2M1 load_e2m1

static inline __m512 load_bf16(const uint16_t *codes) {
    __m256i loaded = _mm256_loadu_si256((const __m256i *)(const void *)codes);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(loaded), 16));
}

static inline __m512 load_e2m1(const uint8_t *packed, int shift) {
    const __m512 values = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)packed));
    return _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, (unsigned)shift), values); /* looks at four bits */
}

#include "verify/mxfp4_measure_kernel.inc"
#endif
