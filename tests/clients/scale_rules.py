"""The three MXFP4 scale rules and FP8_DYNAMIC, written once more in numpy from their descriptions (FORMATS.md): the
second opinion that the tool's output is compared with. Weights are given as BF16 codes [rows, columns]; blocks are 32
columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from number_formats import E2M1_MAGNITUDES, FP8_MAX, Codes8, Codes16, Floats, bf16_decode, bf16_encode, fp8_encode

BLOCK = 32
E8M0_BIAS = 127
E8M0_MAX = 254  # 255 is NaN

# Halfway between neighbouring magnitudes; a value exactly on one is a tie.
BOUNDARIES = (E2M1_MAGNITUDES[1:] + E2M1_MAGNITUDES[:-1]) / 2

# Of the two codes at a tie, `ties to even` takes the lower one where that is even.
LOWER_IS_EVEN = np.arange(7) % 2 == 0

QSTREAM_PERCENTILE = np.float32(0.995)
QSTREAM_NEAR_ZERO = np.float32(1e-6)
QSTREAM_ERRORS_EQUAL = 1e-6  # relative; summation order may decide between errors this close


@dataclass(frozen=True)
class Blocks:
    """Quantized blocks. `also_valid`, where given, is a second scale per block that is as good (near ties)."""

    codes: Codes8  # [blocks, 32]
    scales: Codes8  # [blocks]
    also_valid: Codes8 | None = None


def blocks_of(weight: Codes16) -> Floats:
    return bf16_decode(weight).reshape(-1, BLOCK)


def magnitude_codes(magnitudes: np.ndarray, ties_to_even: bool) -> Codes8:
    """The e2m1 index of magnitudes that are already divided by their scale; ties to even or toward zero."""
    codes = np.zeros(magnitudes.shape, np.uint8)
    for boundary, lower_is_even in zip(BOUNDARIES, LOWER_IS_EVEN, strict=True):
        codes += magnitudes > boundary if lower_is_even or not ties_to_even else magnitudes >= boundary
    return codes


def codes_at(blocks: Floats, scales: Codes8) -> Codes8:
    """Nearest codes, ties to even, for given e8m0 scales. The sign stays, that of a zero as well."""
    scaled = np.ldexp(blocks.astype(np.float64), E8M0_BIAS - scales.astype(np.int32)[:, None])
    return magnitude_codes(np.abs(scaled), ties_to_even=True) | (np.signbit(blocks).astype(np.uint8) << 3)


def amax_scales(blocks: Floats) -> Codes8:
    amax_bits = np.abs(blocks).max(axis=1).view(np.uint32)
    # A fraction of 1.75 or more carries into the exponent. Zero and subnormal blocks end below 0: scale 0.
    exponents = (amax_bits + np.uint32(1 << 21) >> np.uint32(23)).astype(np.int32) - 2
    return np.clip(exponents, 0, E8M0_MAX).astype(np.uint8)


def quantize_amax(blocks: Floats, gamma: Floats | None = None) -> Blocks:
    """compressed-tensors divides in BF16: a negative zero, or a quotient that underflows to one, loses its sign; any
    other negative value keeps it, even if it rounds to zero."""
    scales = amax_scales(blocks)
    quotients = bf16_decode(bf16_encode(np.ldexp(blocks, E8M0_BIAS - scales.astype(np.int32)[:, None])))
    codes = magnitude_codes(np.abs(quotients), ties_to_even=True)
    return Blocks(codes | ((quotients < 0).astype(np.uint8) << 3), scales)


def squared_errors(blocks: Floats, scales: Codes8) -> NDArray[np.float64]:
    """Per block, in float64, added up in column order."""
    values = np.abs(blocks.astype(np.float64))
    exponents = scales.astype(np.int32)[:, None] - E8M0_BIAS
    nearest = E2M1_MAGNITUDES[magnitude_codes(np.ldexp(values, -exponents), ties_to_even=True)]
    squares = (values - np.ldexp(nearest.astype(np.float64), exponents)) ** 2
    return np.cumsum(squares, axis=1)[:, -1]


def quantize_mse(blocks: Floats, gamma: Floats | None = None) -> Blocks:
    """Tries every exponent there is; the smallest of the best wins. Slow: for samples."""
    best_errors = np.full(len(blocks), np.inf)
    scales = np.zeros(len(blocks), np.uint8)
    for candidate in range(E8M0_MAX + 1):
        errors = squared_errors(blocks, np.full(len(blocks), candidate, np.uint8))
        better = errors < best_errors
        best_errors[better] = errors[better]
        scales[better] = candidate
    return Blocks(codes_at(blocks, scales), scales)


def percentile_995(magnitudes: Floats) -> Floats:
    """Linear interpolation between order statistics, in float32."""
    position = QSTREAM_PERCENTILE * np.float32(BLOCK - 1)
    below = int(position)
    ordered = np.partition(magnitudes, (below, below + 1), axis=1)
    low, high = ordered[:, below], ordered[:, below + 1]
    return high - (high - low) * (np.float32(1) - (position - np.float32(below)))


def quantize_qstream(blocks: Floats, gamma: Floats | None = None) -> Blocks:
    """`gamma` has a weight for each value of `blocks`. All in float32, but that sums are rounded once."""
    with np.errstate(over="ignore"):  # squares of huge values are infinite, as in the original
        anchor = percentile_995(np.abs(blocks))
        near_zero = anchor < QSTREAM_NEAR_ZERO
        blocks = np.where(near_zero[:, None], np.float32(0), blocks)
        anchor = np.maximum(anchor, QSTREAM_NEAR_ZERO)
        floor = np.floor(np.log2(anchor / np.float32(6)))
        candidates = floor + np.array([[-1], [0], [1]], np.float32)
        errors = np.stack([_qstream_error(blocks, exponent, gamma) for exponent in candidates])

    order = errors.argsort(axis=0, kind="stable")
    best, second = np.take_along_axis(candidates, order[:2], axis=0)
    best_error, second_error = np.take_along_axis(errors, order[:2], axis=0)
    near_tie = (second_error * (1 - QSTREAM_ERRORS_EQUAL) <= best_error) & (second_error > 0)
    scales = _qstream_scales(blocks, best)
    return Blocks(
        qstream_codes_at(blocks, scales), scales, np.where(near_tie, _qstream_scales(blocks, second), scales)
    )


def _qstream_error(blocks: Floats, exponents: Floats, gamma: Floats | None) -> Floats:
    scales = np.exp2(exponents)[:, None]
    magnitudes = np.abs(blocks / scales)
    difference = E2M1_MAGNITUDES[magnitude_codes(magnitudes, ties_to_even=False)] * scales - np.abs(blocks)
    squares = difference * difference
    if gamma is not None:
        squares = squares * (gamma * gamma)
    return squares.sum(axis=1, dtype=np.float64).astype(np.float32)


def _qstream_scales(blocks: Floats, exponents: Floats) -> Codes8:
    """The chosen exponents, repaired where even the largest candidate was two or more below what amax needs."""
    amax = np.abs(blocks).max(axis=1)
    safe = np.ceil(np.log2(np.maximum(amax, np.float32(1e-12)) / np.float32(6)))
    overflows = amax / np.exp2(exponents) > 6
    exponents = np.where(overflows & (exponents < safe - 1), safe, exponents)
    return np.clip(exponents + E8M0_BIAS, 0, E8M0_MAX).astype(np.uint8)


def qstream_codes_at(blocks: Floats, scales: Codes8) -> Codes8:
    """Nearest codes, ties toward zero, for given e8m0 scales; signs as with amax, but the division is in float32."""
    scaled = np.ldexp(blocks, E8M0_BIAS - scales.astype(np.int32)[:, None])
    return magnitude_codes(np.abs(scaled), ties_to_even=False) | ((scaled < 0).astype(np.uint8) << 3)


RULES: dict[str, Callable[[Floats, Floats | None], Blocks]] = {
    "amax": quantize_amax,
    "qstream": quantize_qstream,
    "mse": quantize_mse,
}


def fp8_dynamic(weight: Codes16) -> tuple[Codes8, Codes16]:
    """BF16 -> FP8 per output channel: codes and BF16 scales [rows, 1]. Scale and quotient are rounded to BF16."""
    values = bf16_decode(weight)
    scale = bf16_encode(np.abs(values).max(axis=1, keepdims=True) / FP8_MAX)
    scale[scale == 0] = bf16_encode(np.array([2**-7], np.float32))[0]  # BF16's epsilon stands in for a scale of 0
    return fp8_encode(bf16_decode(bf16_encode(values / bf16_decode(scale)))), scale
