/*
 * The conversions for arm64: the plain loops, and the table looked up with tbl.
 */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "qstream/convert_kernel.inc"
#include "qstream/convert_levels.h"

/* The bytes of a 128-entry table: two groups of the 64 entries that one tbl reaches. */
struct byte_table {
    uint8x16x4_t group[2];
};

/* tbl gives zero, and tbx leaves the byte as it is, where the index lies outside of its 64 entries. */
static inline uint8x16_t look_up(const struct byte_table *table, uint8x16_t magnitudes) {
    uint8x16_t bytes = vqtbl4q_u8(table->group[0], magnitudes);
    return vqtbx4q_u8(bytes, table->group[1], vsubq_u8(magnitudes, vdupq_n_u8(64)));
}

/* Tables are symmetric (see fp8_table_fill): the sign bit of the code goes to the sign bit of the result. */
static void fp8_e4m3_to_bf16_by_table(const uint8_t *in, size_t count, const uint16_t table[256], uint16_t *out) {
    struct byte_table low, high;
    for (int i = 0; i < 8; i++) {
        uint8x16x2_t entries = vld2q_u8((const uint8_t *)(table + 16 * i));
        low.group[i / 4].val[i % 4] = entries.val[0];
        high.group[i / 4].val[i % 4] = entries.val[1];
    }
    const uint8x16_t sign = vdupq_n_u8(0x80);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        uint8x16_t codes = vld1q_u8(in + i);
        uint8x16_t magnitudes = vbicq_u8(codes, sign);
        uint8x16x2_t pair;
        pair.val[0] = look_up(&low, magnitudes);
        pair.val[1] = veorq_u8(look_up(&high, magnitudes), vandq_u8(codes, sign));
        vst2q_u8((uint8_t *)(out + i), pair);
    }
    for (; i < count; i++)
        out[i] = table[in[i]];
}

const struct convert convert_neon = {
    .fp8_e4m3_to_bf16 = kernel_fp8_e4m3_to_bf16,
    .fp8_e4m3_to_bf16_by_table = fp8_e4m3_to_bf16_by_table,
    .f32_to_bf16 = kernel_f32_to_bf16,
    .f16_to_bf16 = kernel_f16_to_bf16,
    .bf16_amax = kernel_bf16_amax,
    .bf16_to_fp8_e4m3 = kernel_bf16_to_fp8_e4m3,
};

#else
typedef int convert_neon_is_empty;
#endif
