/*
 * Conversions of weight rows around MXFP4: any source format to BF16, and BF16 to FP8 as compressed-tensors'
 * FP8_DYNAMIC does it. Each exists as plain C and as SIMD variants equal to it bit for bit; `convert_for` gives
 * the set for a level. Input and output must not overlap; any alignment that their element types have will do.
 */
#ifndef QSTREAM_QSTREAM_CONVERT_H
#define QSTREAM_QSTREAM_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"

struct convert {
    /*
     * out[i] = bf16(fp8_e4m3(in[i]) * scale): the product in float32, then rounded to BF16. Where it is NaN, the
     * quiet NaN 0x7fc0 with the code's sign.
     */
    void (*fp8_e4m3_to_bf16)(const uint8_t *in, size_t count, float scale, uint16_t *out);

    /*
     * The same through a table made once per scale by fp8_table_fill: table[code] = bf16(fp8_e4m3(code) * scale).
     * Its upper half is the lower one with the sign flipped, and need not be read. Pays off from about a thousand
     * values under one scale.
     */
    void (*fp8_e4m3_to_bf16_by_table)(const uint8_t *in, size_t count, const uint16_t table[256], uint16_t *out);

    void (*f32_to_bf16)(const float *in, size_t count, uint16_t *out);
    void (*f16_to_bf16)(const uint16_t *in, size_t count, uint16_t *out); /* via float32 */

    /* The largest magnitude: max(bits & 0x7fff). Above 0x7f7f means that an infinity or NaN is among them. */
    uint16_t (*bf16_amax)(const uint16_t *in, size_t count);

    /*
     * out[i] = fp8_e4m3(clamp(bf16(in[i] / scale), +-448)) for a BF16 scale, as compressed-tensors computes
     * it in BF16 arithmetic. `in` is finite, `scale` is a positive finite BF16 code.
     */
    void (*bf16_to_fp8_e4m3)(const uint16_t *in, size_t count, uint16_t scale, uint8_t *out);
};

void fp8_table_fill(float scale, uint16_t table[256]);

/* The FP8_DYNAMIC scale (BF16 code) of a row or tensor whose largest magnitude is `amax` (BF16 code). */
uint16_t fp8_scale_from_amax(uint16_t amax);

/* The variants for a level; those that gain nothing from it are the plain ones. */
const struct convert *convert_for(enum cpu_level level);

#endif
