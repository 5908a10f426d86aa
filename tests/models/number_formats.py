"""The number formats of checkpoints, in numpy: codes are unsigned integers, values are float32.

Encoders round to nearest, ties to even. numpy has no bf16, fp8, e8m0 or e2m1 of its own.
"""

import numpy as np
from numpy.typing import NDArray

Codes8 = NDArray[np.uint8]
Codes16 = NDArray[np.uint16]
Floats = NDArray[np.float32]

FP8_MAX = np.float32(448)

E2M1_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def bf16_encode(values: Floats) -> Codes16:
    """float32 -> BF16 codes; overflow goes to infinity. NaN must not be passed."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def bf16_decode(codes: Codes16) -> Floats:
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


def fp8_encode(values: Floats) -> Codes8:
    """float32 -> FP8 E4M3 codes, saturating at +-448. NaN must not be passed."""
    values = np.ascontiguousarray(values, np.float32)
    magnitude = np.minimum(np.abs(values), FP8_MAX)
    bits = magnitude.view(np.uint32)
    rounded = bits + np.uint32(0x7FFFF) + ((bits >> np.uint32(20)) & np.uint32(1))
    normal = (rounded >> np.uint32(20)) - np.uint32(120 << 3)
    # 2^14 + x has a last place of 2^-9, the step of the subnormal codes: the addition itself rounds.
    subnormal = (magnitude + np.float32(2**14)).view(np.uint32) - np.float32(2**14).view(np.uint32)
    code = np.where(magnitude < np.float32(2**-6), subnormal, normal)
    return (code | (np.signbit(values).astype(np.uint32) << np.uint32(7))).astype(np.uint8)


def _fp8_value(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return float("nan")
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10))


FP8_VALUES = np.array([_fp8_value(code) for code in range(256)], np.float32)


def fp8_decode(codes: Codes8) -> Floats:
    return FP8_VALUES[codes]


def e8m0_decode(codes: Codes8) -> NDArray[np.float64]:
    """2^(code - 127) in float64, which holds every one of them; 255 (NaN) must not be passed."""
    return np.ldexp(1.0, codes.astype(np.int32) - 127)


def e2m1_unpack(packed: Codes8) -> Codes8:
    """[..., n/2] bytes -> [..., n] codes; the low nibble is the even column."""
    codes = np.stack([packed & 15, packed >> 4], axis=-1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * 2)


def e2m1_pack(codes: Codes8) -> Codes8:
    return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)


def e2m1_decode(codes: Codes8) -> Floats:
    magnitude = E2M1_MAGNITUDES[codes & 7]
    return np.where(codes & 8, -magnitude, magnitude)
