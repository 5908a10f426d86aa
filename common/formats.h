/*
 * The number formats, one scalar truth: a plain encoder and decoder for each. Every SIMD or device variant is
 * tested bit for bit against these.
 *
 *   bf16      1-8-7, the upper half of an IEEE float32
 *   f16       1-5-10, IEEE binary16
 *   fp8 e4m3  1-4-3, bias 7, no infinity, NaN = S.1111.111, largest 448 (OCP 8-bit Floating Point, "E4M3FN")
 *   fp8 e5m2  1-5-2, bias 15, IEEE-like infinities and NaNs, largest finite 57344
 *   e8m0      unsigned exponent, 2^(code - 127), code 255 = NaN (OCP Microscaling v1.0, section 5.4.1)
 *   e2m1      1-2-1, bias 1, magnitudes 0 .5 1 1.5 2 3 4 6 (OCP Microscaling v1.0, section 5.3.3)
 *
 * Encoders round to nearest, ties to even, unless they say otherwise.
 */
#ifndef QSTREAM_COMMON_FORMATS_H
#define QSTREAM_COMMON_FORMATS_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bf16_decode(uint16_t code) { return float_from_bits((uint32_t)code << 16); }

/* Overflow goes to infinity; a NaN stays a NaN (made quiet, sign kept). */
static inline uint16_t bf16_encode(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float f16_decode(uint16_t code);
uint16_t f16_encode(float value); /* overflow to infinity, as IEEE */

float fp8_e4m3_decode(uint8_t code);

/* Saturates: |value| > 448 and infinities become +-448, NaN becomes S.1111.111. */
uint8_t fp8_e4m3_encode(float value);

float fp8_e5m2_decode(uint8_t code);

float e8m0_decode(uint8_t code); /* 255 gives NaN; code 0 is the subnormal float32 2^-127 */

/* How a value that lies exactly between two e2m1 magnitudes is rounded. */
enum e2m1_ties { E2M1_TIES_TO_EVEN, E2M1_TIES_TOWARD_ZERO };

float e2m1_decode(uint8_t code); /* the low 4 bits: sign << 3 | magnitude index */

/* Saturates at +-6. The sign of a value that rounds to zero is kept. NaN must not be passed. */
uint8_t e2m1_encode(float value, enum e2m1_ties ties);

#endif
