#include "common/formats.h"

/*
 * Rounds |value| to a small float with `mantissa_bits` bits of mantissa and the smallest normal exponent
 * `min_exponent`, and returns exponent and mantissa as one integer counted from zero: consecutive codes are
 * consecutive values. The result may lie beyond the format's largest code; the caller saturates or overflows.
 * `bits` is the magnitude of a finite float32.
 */
static uint32_t round_magnitude(uint32_t bits, int mantissa_bits, int min_exponent) {
    int exponent = (int)(bits >> 23) - 127;
    uint32_t significand = bits & 0x7fffffu;
    if (bits >> 23 != 0)
        significand |= 0x800000u;
    else
        exponent = -126;

    /* Drop what lies below the last mantissa bit of the result: more of it below the smallest normal number.
     */
    int drop = 23 - mantissa_bits;
    uint32_t base = 0;
    if (exponent < min_exponent)
        drop += min_exponent - exponent;
    else
        base = (uint32_t)(exponent - min_exponent) << mantissa_bits;
    if (drop > 25)
        return 0;
    uint32_t kept = significand >> drop;
    uint32_t rest = significand & ((1u << drop) - 1);
    uint32_t half = 1u << (drop - 1);
    if (rest > half || (rest == half && (kept & 1) != 0))
        kept++;
    return base + kept;
}

/* The value of such a code: the implicit bit makes a normal number, its absence a subnormal one. */
static float expand_magnitude(uint32_t code, int mantissa_bits, int min_exponent) {
    uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
    int exponent = (int)(code >> mantissa_bits);
    if (exponent == 0)
        exponent = 1;
    else
        mantissa |= 1u << mantissa_bits;
    /* Exact: at most 11 bits times a power of two that a normal float32 holds. */
    int power = exponent - 1 + min_exponent - mantissa_bits;
    return (float)mantissa * float_from_bits((uint32_t)(power + 127) << 23);
}

static float with_sign(float magnitude, uint32_t sign) {
    return float_from_bits(float_to_bits(magnitude) | sign << 31);
}

float f16_decode(uint16_t code) {
    uint32_t sign = code >> 15;
    uint32_t magnitude = code & 0x7fffu;
    if (magnitude >= 0x7c00u) /* the payload of a NaN stays in the top bits, made quiet */
        return float_from_bits(sign << 31 | 0x7f800000u | (magnitude & 0x3ffu) << 13 |
                               (magnitude > 0x7c00u ? 0x400000u : 0));
    return with_sign(expand_magnitude(magnitude, 10, -14), sign);
}

uint16_t f16_encode(float value) {
    uint32_t bits = float_to_bits(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (bits >> 13 & 0x3ffu));
    uint32_t code = bits == 0x7f800000u ? 0x7c00u : round_magnitude(bits, 10, -14);
    return (uint16_t)(sign | (code > 0x7c00u ? 0x7c00u : code));
}

float fp8_e4m3_decode(uint8_t code) {
    uint32_t sign = code >> 7;
    uint32_t magnitude = code & 0x7fu;
    if (magnitude == 0x7fu)
        return float_from_bits(sign << 31 | 0x7fc00000u);
    return with_sign(expand_magnitude(magnitude, 3, -6), sign);
}

uint8_t fp8_e4m3_encode(float value) {
    uint32_t bits = float_to_bits(value);
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return sign | 0x7fu;
    uint32_t code = bits == 0x7f800000u ? 0x7eu : round_magnitude(bits, 3, -6);
    return (uint8_t)(sign | (code > 0x7eu ? 0x7eu : code));
}

float fp8_e5m2_decode(uint8_t code) {
    /* The format is the upper half of binary16. */
    return f16_decode((uint16_t)(code << 8));
}

float e8m0_decode(uint8_t code) {
    if (code == 255)
        return float_from_bits(0x7fc00000u);
    if (code == 0)
        return float_from_bits(0x00400000u);
    return float_from_bits((uint32_t)code << 23);
}

float e2m1_decode(uint8_t code) {
    static const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return with_sign(magnitude[code & 7], code >> 3 & 1);
}

uint8_t e2m1_encode(float value, enum e2m1_ties ties) {
    /* .25 .75 1.25 1.75 2.5 3.5 5: magnitudes order like their bits, and a code counts those that lie below. */
    static const uint32_t boundary[7] = {0x3e800000, 0x3f400000, 0x3fa00000, 0x3fe00000,
                                         0x40200000, 0x40600000, 0x40a00000};
    uint32_t bits = float_to_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t ties_even = ties == E2M1_TIES_TO_EVEN;
    uint32_t code = 0;
    for (uint32_t i = 0; i < 7; i++) /* between an odd code and the even one above it, a tie goes up */
        code += magnitude + (i % 2 & ties_even) > boundary[i];
    return (uint8_t)(code | (bits >> 28 & 8u));
}
