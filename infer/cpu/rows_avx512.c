#if defined __x86_64__
#include <immintrin.h>

#include "infer/cpu/rows.h"

/*
 * exp(x) for x <= 0, its relative error least under a polynomial of degree 4: 2^-17, far below a bf16's last bit. 2^-126
 * for all below -87.3; NaN stays.
 */
static inline __m512 bf16_exponential(__m512 x) {
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    x = _mm512_max_ps(_mm512_set1_ps(-87.33f), x); /* the second operand, if it is NaN */
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), magic), k = _mm512_sub_ps(shifted, magic);
    const __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0.693147181f), x);
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.04127775f), _mm512_set1_ps(0.16753514f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.50005116f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, k);
}

/* As to_bf16 rounds, of finite values that are not subnormal. */
__attribute__((target("avx512bf16"))) static float exponentials_bf16(const float *x, float shift, uint32_t n,
                                                                     uint16_t *out) {
    enum { RUN = 16 };
    const __m512 shifts = _mm512_set1_ps(shift);
    __m512 sums = _mm512_setzero_ps(), more = sums;
    uint32_t i = 0;
    for (; i + 2 * RUN <= n; i += 2 * RUN) {
        const __m512 first = bf16_exponential(_mm512_sub_ps(_mm512_loadu_ps(x + i), shifts));
        const __m512 second = bf16_exponential(_mm512_sub_ps(_mm512_loadu_ps(x + i + RUN), shifts));
        sums = _mm512_add_ps(sums, first);
        more = _mm512_add_ps(more, second);
        _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
    for (; i < n; i += RUN) {
        const __mmask16 mask = (__mmask16)(n - i < RUN ? (1u << (n - i)) - 1 : 0xffff);
        const __m512 values = bf16_exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), shifts));
        sums = _mm512_mask_add_ps(sums, mask, sums, values);
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(values));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(sums, more));
}

#define ROW_KERNELS row_kernels_avx512
#define EXPONENTIALS_BF16 exponentials_bf16
#include "infer/cpu/rows_kernel.inc"
#endif
