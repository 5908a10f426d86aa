"""Which scale each rule gives to a block of MXFP4, by the descriptions in FORMATS.md. Blocks are [BLOCK, blocks],
magnitudes or their BF16 codes; exponents are those of the scale 2^e.
"""

from functools import cache

import numpy as np
from number_formats import E2M1_MAGNITUDES, bf16_decode
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

BIAS = 127
FINITE_CODES = 0x7F80  # of BF16, without sign
ROUNDED_AWAY = 2.0**-134  # half of BF16's smallest number: quotients up to it round to zero

HALFWAY = ((E2M1_MAGNITUDES[1:] + E2M1_MAGNITUDES[:-1]) / 2).astype(np.float64)

PERCENTILE_POSITION = 0.995 * 31  # between the two largest of 32
NEAR_ZERO = 1e-6
SINGLE_SLACK = 4e-7  # float32 arithmetic may put a percentile on either side of a power of two
ERRORS_EQUAL = 1e-6  # and may order errors this close in either way


def nearest_errors(magnitudes: Doubles, exponents: int | Integers) -> Doubles:
    """The squared error of the nearest code, of each value."""
    sizes = np.searchsorted(HALFWAY, np.ldexp(magnitudes, -np.asarray(exponents)))
    return (np.ldexp(E2M1_MAGNITUDES[sizes].astype(np.float64), exponents) - magnitudes) ** 2


@cache
def squared_error_table(exponent: int) -> Doubles:
    """nearest_errors for every BF16 magnitude."""
    return nearest_errors(bf16_decode(np.arange(FINITE_CODES, dtype=np.uint16)).astype(np.float64), exponent)


def sum_by_column(values: Doubles) -> Doubles:
    """Added up in float64 in the order of the first dimension."""
    total = np.zeros(values.shape[1:])
    for each in values:
        total += each
    return total


def block_errors(codes: NDArray[np.uint16], exponent: int) -> Doubles:
    table = squared_error_table(exponent)
    total = np.zeros(codes.shape[1])
    for column in codes:
        total += table.take(column)
    return total


def best_scales(codes: NDArray[np.uint16], exponents: range) -> tuple[Doubles, Integers]:
    """The least squared error of each block under any of these exponents, and the smallest exponent that has it."""
    least = np.full(codes.shape[1], np.inf)
    best = np.full(codes.shape[1], exponents.start)
    for exponent in exponents:
        errors = block_errors(codes, exponent)
        better = errors < least
        least[better] = errors[better]
        best[better] = exponent
    return least, best


def amax_exponents(codes: NDArray[np.uint16]) -> Integers:
    """A fraction of 1.75 or more carries into the exponent; two below that."""
    return np.maximum((codes.max(axis=0).astype(np.int64) + 0x20 >> 7) - 2, 0) - BIAS


def accepted_by(
    rule: str, codes: NDArray[np.uint16], stored: Integers, zero: Flags, best: Integers, weights: Doubles | None
) -> tuple[Flags, Flags]:
    """Whether a stored exponent is the rule's, and which blocks the rule makes zeros, whatever is nearest. Blocks that
    are stored as zeros (`zero`) may have any scale, if the rule makes them zeros as well."""
    magnitudes = bf16_decode(codes).astype(np.float64)
    if rule == "qstream":
        accepted, made_zero = qstream_accepts(magnitudes, stored, weights)
        return accepted | (made_zero & zero), made_zero & zero
    wanted = amax_exponents(codes) if rule == "amax" else best
    rounds_to_zero = magnitudes.max(axis=0) <= np.ldexp(HALFWAY[0], wanted)
    return (stored == wanted) | (zero & rounds_to_zero), np.zeros(len(stored), np.bool_)


def qstream_accepts(magnitudes: Doubles, stored: Integers, weights: Doubles | None) -> tuple[Flags, Flags]:
    """The candidate with the least error, of three around the 99.5th percentile. The original computes in float32: what
    that may decide in either way is accepted."""
    second, largest = np.sort(magnitudes, axis=0)[-2:]
    percentile = second + (PERCENTILE_POSITION - 30) * (largest - second)
    made_zero = percentile * (1 - SINGLE_SLACK) < NEAR_ZERO
    surely_zero = percentile * (1 + SINGLE_SLACK) < NEAR_ZERO
    first_for_zeros = int(np.floor(np.log2(NEAR_ZERO / 6))) - 1
    accepted = made_zero & (stored == first_for_zeros)
    for factor in (1 - SINGLE_SLACK, 1 + SINGLE_SLACK):
        anchor = np.frexp(np.maximum(percentile, NEAR_ZERO) * factor / 6)[1].astype(np.int64) - 1
        accepted |= ~surely_zero & anchor_accepts(magnitudes, largest, stored, anchor, weights)
    return accepted, made_zero


def anchor_accepts(
    magnitudes: Doubles, largest: Doubles, stored: Integers, anchor: Integers, weights: Doubles | None
) -> Flags:
    candidates = [anchor - 1, anchor, anchor + 1]
    errors = np.stack([
        sum_by_column(nearest_errors(magnitudes, exponents) * (1 if weights is None else weights))
        for exponents in candidates
    ])  # fmt: skip
    errors[errors > np.finfo(np.float32).max] = np.inf  # as the original's float32 sums
    least = errors.min(axis=0)
    accepted = np.zeros(len(stored), np.bool_)
    for number, exponents in enumerate(candidates):
        chosen = np.where(np.isinf(least), number == 0, errors[number] <= least * (1 + ERRORS_EQUAL))
        accepted |= chosen & (repaired(exponents, largest) == stored)
    return accepted


def repaired(exponents: Integers, largest: Doubles) -> Integers:
    """Raised where the largest value is cut off by more than half; within what E8M0 has."""
    safe = np.ceil(np.log2(np.maximum(largest, 1e-12) / 6)).astype(np.int64)
    overflows = np.ldexp(largest, -exponents) > 6
    return np.clip(np.where(overflows & (exponents < safe - 1), safe, exponents), -BIAS, BIAS)
