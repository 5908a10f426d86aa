#include "qstream/convert.h"

#include "qstream/convert_kernel.inc"
#include "qstream/convert_levels.h"

void fp8_table_fill(float scale, uint16_t table[256]) {
    for (uint32_t magnitude = 0; magnitude < 128; magnitude++) {
        table[magnitude] = kernel_fp8_product(magnitude, scale);
        table[magnitude | 0x80] = table[magnitude] ^ 0x8000;
    }
}

uint16_t fp8_scale_from_amax(uint16_t amax) {
    /* Half the range of e4m3, and bfloat16's epsilon in place of zero: as compressed-tensors computes
     * qparams. */
    enum { BF16_EPSILON = 0x3c00 /* 2^-7 */ };
    uint16_t scale = bf16_encode(bf16_decode(amax) / 448);
    return scale == 0 ? BF16_EPSILON : scale;
}

static void fp8_e4m3_to_bf16_by_table(const uint8_t *in, size_t count, const uint16_t table[256], uint16_t *out) {
    for (size_t i = 0; i < count; i++)
        out[i] = table[in[i]];
}

static const struct convert convert_portable = {
    .fp8_e4m3_to_bf16 = kernel_fp8_e4m3_to_bf16,
    .fp8_e4m3_to_bf16_by_table = fp8_e4m3_to_bf16_by_table,
    .f32_to_bf16 = kernel_f32_to_bf16,
    .f16_to_bf16 = kernel_f16_to_bf16,
    .bf16_amax = kernel_bf16_amax,
    .bf16_to_fp8_e4m3 = kernel_bf16_to_fp8_e4m3,
};

const struct convert *convert_for(enum cpu_level level) {
    switch (level) {
#if defined(__x86_64__)
    case CPU_AVX2:
        return &convert_avx2;
    case CPU_AVX512:
        return &convert_avx512;
#elif defined(__aarch64__)
    case CPU_NEON:
        return &convert_neon;
#endif
    default:
        return &convert_portable;
    }
}
