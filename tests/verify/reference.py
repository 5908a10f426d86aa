"""The figures of `qstream verify`, worked out once more in numpy: from the bytes of both checkpoints, in float64, by
the definitions in docs/verify.md and the formats in FORMATS.md. Nothing is clever here; where there is a best of
something, all are tried.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from checkpoint_values import BLOCK, Folder, Image, blocks_of, rounded_to_bf16  # noqa: E402
from number_formats import E2M1_MAGNITUDES, FP8_VALUES, bf16_encode  # noqa: E402
from rules import BIAS, ROUNDED_AWAY, accepted_by, best_scales, sum_by_column  # noqa: E402

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

SQNR_BINS = 44
SQNR_FIRST = -8  # in steps of half an octave of power
SQNR_STEP_DB = 5 * np.log10(2)
EXPONENTS = range(-BIAS, BIAS + 1)


def boundaries(magnitudes: np.ndarray) -> tuple[Doubles, Doubles]:
    """Between which quotients |s| / scale each code is nearest, both ends included; the largest code saturates, and
    zero is zero from both sides."""
    values = np.asarray(magnitudes, np.float64)
    halfway = (values[1:] + values[:-1]) / 2
    return np.concatenate([[-halfway[0]], halfway]), np.concatenate([halfway, [np.inf]])


E2M1_FROM, E2M1_TO = boundaries(E2M1_MAGNITUDES)
FP8_FROM, FP8_TO = boundaries(FP8_VALUES[:0x7F])
FP8_LARGEST = 448.0


@dataclass
class Tally:
    """How many, and where the first is."""

    count: int = 0
    first: tuple[int, int] | None = None

    @staticmethod
    def of(flags: Flags) -> "Tally":
        found = np.flatnonzero(flags)
        first = divmod(int(found[0]), flags.shape[1]) if len(found) else None
        return Tally(len(found), first)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count)


@dataclass
class Measured:
    """What can be added up over weights."""

    elements: int = 0
    source_square: float = 0.0
    output_square: float = 0.0
    product: float = 0.0
    error_square: float = 0.0
    error_absolute: float = 0.0
    largest_error: float = 0.0
    saturated: int = 0
    flushed: int = 0
    source_not_finite: Tally = field(default_factory=Tally)
    output_not_finite: Tally = field(default_factory=Tally)
    not_nearest: Tally = field(default_factory=Tally)
    negative_zeros_kept: int = 0
    negative_zeros_dropped: int = 0
    sqnr_bins: np.ndarray = field(default_factory=lambda: np.zeros(SQNR_BINS, np.int64))
    # of MXFP4
    is_mxfp4: bool = False
    blocks: int = 0
    zero_blocks: int = 0
    at_optimum: int = 0
    best_square: float = 0.0
    of_rule: int = 0
    scale_codes: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def __add__(self, other: "Measured") -> "Measured":
        total = Measured(**{name: value + getattr(other, name) for name, value in vars(self).items()})
        total.largest_error = max(self.largest_error, other.largest_error)
        total.is_mxfp4 = self.is_mxfp4 and other.is_mxfp4  # a layer of several formats has no figures of blocks
        return total

    @property
    def compared(self) -> int:
        return self.elements - self.source_not_finite.count - self.output_not_finite.count

    def figures(self, rule: str | None) -> dict[str, Any]:
        """The members that `--json` has for a weight, a role or a layer."""
        compared = self.compared
        return {
            "elements": self.elements,
            "exact": compared > 0 and self.error_square == 0 and self.output_not_finite.count == 0,
            "sqnr_db": decibels(self.source_square, self.error_square),
            "rel_error": relative_error(self.source_square, self.error_square) if compared else None,
            "cosine": ratio(self.product, np.sqrt(self.source_square) * np.sqrt(self.output_square)),
            "max_abs_error": self.largest_error if compared else None,
            "mean_abs_error": ratio(self.error_absolute, compared),
            "saturated": ratio(self.saturated, compared),
            "flushed": ratio(self.flushed, compared),
            "source_not_finite": self.source_not_finite.count,
            "output_not_finite": self.output_not_finite.count,
            "not_nearest": self.not_nearest.count,
            "blocks": self.block_figures(rule) if self.is_mxfp4 else None,
        }

    def block_figures(self, rule: str | None) -> dict[str, Any]:
        excess = ratio(self.error_square - self.best_square, self.error_square)
        return {
            "count": self.blocks,
            "zero": self.zero_blocks,
            "at_optimum": ratio(self.at_optimum, self.blocks),
            "best_sqnr_db": decibels(self.source_square, self.best_square),
            "excess": 0.0 if excess is None else excess,
            "scale_of_rule": ratio(self.of_rule, self.blocks) if rule else None,
        }


@dataclass
class Weight:
    """A quantized weight, measured; `worst_row` and `worst_block` as in `--json`."""

    name: str
    format: str
    source_format: str
    shape: tuple[int, int]
    sums: Measured
    worst_row: dict[str, Any] | None
    worst_block: dict[str, Any] | None


def ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def decibels(source_square: float, error_square: float) -> float | None:
    return float(10 * np.log10(source_square / error_square)) if source_square > 0 and error_square > 0 else None


def relative_error(source_square: float, error_square: float) -> float | None:
    if source_square > 0:
        return float(np.sqrt(error_square / source_square))
    return None if error_square > 0 else 0.0


# ---- codes ----


def e2m1_nearest(source: Doubles, image: Image) -> Flags:
    assert image.codes is not None
    sizes = image.codes & 7
    quotient = np.where(image.codes >= 8, -source, source) / image.scales  # exact: scales are powers of two
    return (quotient >= E2M1_FROM[sizes]) & (quotient <= E2M1_TO[sizes])


def fp8_nearest(source: Doubles, image: Image) -> Flags:
    """Nearest to the exact quotient, or to it as rounded to float32 or BF16: compressed-tensors divides so."""
    assert image.codes is not None
    sizes = np.minimum(image.codes & 0x7F, 0x7E)  # NaN is not compared
    sign = np.where(image.codes >= 0x80, -1.0, 1.0)
    scales = np.broadcast_to(image.scales, source.shape)
    nearest = np.zeros(source.shape, np.bool_)
    with np.errstate(all="ignore"):
        exact = source / scales
        single = (source.astype(np.float32) / scales.astype(np.float32)).astype(np.float32)
        for quotient in (exact, single, rounded_to_bf16(single)):
            along = np.where(np.isfinite(quotient), quotient, exact) * sign
            nearest |= (along >= FP8_FROM[sizes]) & (along <= FP8_TO[sizes])
    return np.where(scales > 0, nearest, source == image.values)


def look_at_codes(sums: Measured, source: Doubles, image: Image, compared: Flags, exempt: Flags) -> None:
    """`exempt`: blocks that the rule makes zeros, whatever is nearest."""
    if image.codes is None:
        sums.flushed = int((compared & (source != 0) & (image.values == 0)).sum())
        return
    is_e2m1 = image.format == "mxfp4"
    zero = (image.codes & (7 if is_e2m1 else 0x7F)) == 0
    other_sign = np.signbit(source) != (image.codes >= (8 if is_e2m1 else 0x80))
    negative_zero = (source == 0) & np.signbit(source) & zero
    nearest = e2m1_nearest(source, image) if is_e2m1 else fp8_nearest(source, image)
    wrong_sign = zero & other_sign & ~negative_zero
    if is_e2m1:  # dividing in BF16 leaves -0.0 of these, whose sign compressed-tensors drops
        wrong_sign &= ~((source < 0) & (-source <= ROUNDED_AWAY * image.scales))
    sums.not_nearest = Tally.of(compared & ~exempt & (~nearest | wrong_sign))
    sums.negative_zeros_kept = int((compared & negative_zero & ~other_sign).sum())
    sums.negative_zeros_dropped = int((compared & negative_zero & other_sign).sum())
    sums.saturated = int((compared & (np.abs(source) > (6.0 if is_e2m1 else FP8_LARGEST) * image.scales)).sum())
    sums.flushed = int((compared & (source != 0) & zero).sum())


# ---- blocks ----


def look_at_blocks(
    sums: Measured, source: Doubles, image: Image, compared: Flags, errors: Doubles, rule: str | None,
    gamma: Doubles | None, exponents: range,
) -> Flags:  # fmt: skip
    """Adds what is known of MXFP4 blocks; returns the elements of blocks that the rule makes zeros."""
    assert image.scale_codes is not None and image.codes is not None
    sums.is_mxfp4 = True
    scale_codes = image.scale_codes.reshape(-1)
    sums.scale_codes += np.bincount(scale_codes, minlength=256)
    whole = blocks_of(compared).all(axis=0)
    codes = bf16_encode(blocks_of(np.where(compared, source, 0)).astype(np.float32)) & np.uint16(0x7FFF)
    zero = (blocks_of(image.codes) & 7 == 0).all(axis=0)
    least, best = best_scales(codes, exponents)
    sums.blocks = int(whole.sum())
    sums.zero_blocks = int((whole & zero).sum())
    sums.best_square = float(least.sum())
    sums.at_optimum = int((whole & (errors <= least)).sum())
    if rule is None:
        return np.zeros(source.shape, np.bool_)
    weights = None if gamma is None else blocks_of(np.broadcast_to(gamma, source.shape)).astype(np.float64) ** 2
    stored = scale_codes.astype(np.int64) - BIAS
    accepted, made_zero = accepted_by(rule, codes, stored, zero, best, weights)
    sums.of_rule = int((whole & accepted).sum())
    return np.repeat(made_zero.reshape(source.shape[0], -1), BLOCK, axis=1)


def add_histogram(sums: Measured, energy: Doubles, errors: Doubles, whole: Flags) -> None:
    counted = whole & (energy > 0) & (errors > 0)
    bins = np.floor(2 * np.log2(energy[counted] / errors[counted])).astype(np.int64) - SQNR_FIRST
    sums.sqnr_bins += np.bincount(np.clip(bins, 0, SQNR_BINS - 1), minlength=SQNR_BINS)


def block_as_told(source: Doubles, image: Image, row: int, column: int, error: float) -> dict[str, Any]:
    columns = slice(column, column + BLOCK)

    def numbers(values: Doubles) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in values]

    told: dict[str, Any] = {
        "row": row,
        "column": column,
        "squared_error": error,
        "scale": None,
        "scale_code": None,
        "source": numbers(source[row, columns]),
        "codes": None if image.codes is None else [int(code) for code in image.codes[row, columns]],
        "values": numbers(image.values[row, columns]),
    }
    if image.codes is not None:
        told["scale"] = float(np.broadcast_to(image.scales, source.shape)[row, column])
    if image.format == "mxfp4":
        assert image.scale_codes is not None
        told["scale_code"] = int(image.scale_codes[row, column // BLOCK])
    return told


# ---- a weight ----


def measure(
    name: str, from_: Image, to: Image, rule: str | None, gamma: Doubles | None = None, exponents: range = EXPONENTS
) -> Weight:
    """Compares an output with its source. `exponents`: which scales to try for the best."""
    source, output = from_.values, to.values
    sums = Measured(elements=source.size)
    finite = np.isfinite(source)
    compared = finite & np.isfinite(output)
    sums.source_not_finite = Tally.of(~finite)
    sums.output_not_finite = Tally.of(finite & ~compared)
    s, d = np.where(compared, source, 0), np.where(compared, output, 0)
    error = np.abs(s - d)

    of_blocks = {key: sum_by_column(blocks_of(values)) for key, values in
                 (("energy", s * s), ("output", d * d), ("product", s * d), ("error", error * error))}  # fmt: skip
    per_row = (len(source), -1)
    rows = {key: sum_by_column(values.reshape(per_row).T) for key, values in of_blocks.items()}
    sums.source_square, sums.output_square = float(rows["energy"].sum()), float(rows["output"].sum())
    sums.product, sums.error_square = float(rows["product"].sum()), float(rows["error"].sum())
    sums.error_absolute, sums.largest_error = float(error.sum()), float(error.max())

    exempt = np.zeros(source.shape, np.bool_)
    whole = np.ones(of_blocks["error"].shape, np.bool_)
    if to.format == "mxfp4":
        whole = blocks_of(compared).all(axis=0)
        exempt = look_at_blocks(sums, source, to, compared, of_blocks["error"], rule, gamma, exponents)
    look_at_codes(sums, s, to, compared, exempt)
    add_histogram(sums, of_blocks["energy"], of_blocks["error"], whole)

    worst_row = worst_block = None
    if rows["energy"].any():
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(rows["energy"] > 0, rows["error"] / rows["energy"], -1)
        row = int(ratios.argmax())
        worst_row = {"row": row, "rel_error": float(np.sqrt(ratios[row])),
                     "sqnr_db": decibels(rows["energy"][row], rows["error"][row])}  # fmt: skip
    if of_blocks["error"].any():
        block = int(of_blocks["error"].argmax())
        row, number = divmod(block, of_blocks["error"].size // len(source))
        worst_block = block_as_told(source, to, row, BLOCK * number, float(of_blocks["error"][block]))
    return Weight(name, to.format, from_.format, source.shape, sums, worst_row, worst_block)


def measure_folders(
    source: Path, output: Path, rule: str | None, gamma: str = "none", exponents: range = EXPONENTS
) -> list[Weight]:
    """All weights that the output stores otherwise than the source."""
    from_, to = Folder(source), Folder(output)
    weights = []
    for module in to.quantized_from(from_):
        values, image = from_.source_of(module), to.image(module)
        weights.append(
            measure(f"{module}.weight", values, image, rule, from_.gamma(module, image.columns, gamma), exponents)
        )
    return weights
