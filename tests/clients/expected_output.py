"""What `qstream quantize` has to make of a source checkpoint, worked out from FORMATS.md alone: which tensors, of which
dtype and shape, with which bytes; and for MXFP4 weights the BF16 values that the scale rules start from.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from pathlib import Path

import numpy as np

from number_formats import Codes16, Floats, bf16_decode, bf16_encode, fp8_decode
from safetensors_files import Tensor, checkpoint_tensors
from scale_rules import BLOCK, fp8_dynamic

LAYER = r"(?P<layer>(?:model\.language_model|language_model\.model|model)\.layers\.\d+)"
ATTENTION = re.compile(LAYER + r"\.self_attn\.[qkvo]_proj\.weight")
MLP = re.compile(LAYER + r"\.mlp\.(?:(?:experts\.\d+|shared_expert)\.)?(?P<part>gate|up|down)_proj\.weight")
FUSED_EXPERTS = re.compile(LAYER + r"\.mlp\.experts\.(?P<part>gate_up|down)_proj")
SCALE_NAMES = ("weight_scale_inv", "weight_scale")
INPUT_SCALE_NAMES = ("activation_scale", "input_scale")


class Scaling(Enum):
    """What one scale of an FP8 weight covers."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"
    MX = "group"


@dataclass(frozen=True)
class SourceWeight:
    """A weight [out, in] of the source with what is needed to read its values."""

    array: np.ndarray
    dtype: str
    scaling: Scaling | None = None
    scale: np.ndarray | None = None  # float32
    block: tuple[int, int] = (1, 1)  # rows and columns that share a scale, for BLOCK

    def rows(self, start: int, stop: int) -> Codes16:
        """Dequantized rows as BF16 codes: the product in float32, then rounded."""
        codes = np.ascontiguousarray(self.array[start:stop])
        if self.dtype == "BF16":
            return codes
        if self.scale is None:
            return bf16_encode(codes.astype(np.float32))
        return bf16_encode(fp8_decode(codes) * self._scale_rows(start, stop))

    def _scale_rows(self, start: int, stop: int) -> Floats:
        assert self.scale is not None
        columns = self.array.shape[1]
        if self.scaling is Scaling.TENSOR:
            return self.scale.reshape(1, 1)
        if self.scaling is Scaling.CHANNEL:
            return self.scale[start:stop]
        if self.scaling is Scaling.MX:
            return np.repeat(self.scale[start:stop], BLOCK, axis=1)
        of_row, of_column = np.arange(start, stop) // self.block[0], np.arange(columns) // self.block[1]
        return self.scale[np.ix_(of_row, of_column)]


@dataclass(frozen=True)
class Copy:
    """An output tensor whose bytes are known in full; `array` makes them."""

    dtype: str
    shape: tuple[int, ...]
    array: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Mxfp4Weight:
    """An output pair weight_packed, weight_scale. `gamma` holds a weight per input channel for the qstream rule."""

    source: SourceWeight
    gamma: Floats | None


@dataclass
class Expected:
    copies: dict[str, Copy] = field(default_factory=dict)  # by output tensor name
    mxfp4: dict[str, Mxfp4Weight] = field(default_factory=dict)  # by module
    fp8: dict[str, Scaling] = field(default_factory=dict)  # by module
    static_input: set[str] = field(default_factory=set)  # FP8 modules with an input scale
    unquantized: set[str] = field(default_factory=set)  # modules


def float_values(tensor: Tensor) -> Floats:
    """A scale tensor's values; e8m0 scales become powers of two."""
    array = np.asarray(tensor.array())
    if tensor.dtype in ("U8", "F8_E8M0"):
        return np.ldexp(np.float32(1), array.astype(np.int32) - 127)
    return bf16_decode(array) if tensor.dtype == "BF16" else array.astype(np.float32)


class SourceModel:
    """The source's tensors, and which belong together."""

    def __init__(self, folder: Path) -> None:
        self.tensors = checkpoint_tensors(folder)
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        quantization = self.config.get("quantization_config") or {}
        rows, columns = quantization.get("weight_block_size") or (1, 1)
        self.block = (rows, columns)

    def companion(self, module: str, names: tuple[str, ...]) -> Tensor | None:
        return next((self.tensors[f"{module}.{name}"] for name in names if f"{module}.{name}" in self.tensors), None)

    def scaling(self, weight: Tensor, scale: Tensor) -> Scaling:
        rows, columns = weight.shape
        if scale.dtype in ("U8", "F8_E8M0"):
            return Scaling.MX
        if self.block[0] > 1 and scale.shape == (ceil(rows / self.block[0]), ceil(columns / self.block[1])):
            return Scaling.BLOCK
        return Scaling.CHANNEL if scale.shape == (rows, 1) else Scaling.TENSOR

    def weight(self, name: str) -> SourceWeight:
        tensor = self.tensors[name]
        scale = self.companion(name.removesuffix(".weight"), SCALE_NAMES)
        if tensor.dtype != "F8_E4M3" or scale is None:
            return SourceWeight(tensor.array(), tensor.dtype)
        return SourceWeight(tensor.array(), tensor.dtype, self.scaling(tensor, scale), float_values(scale), self.block)

    def gamma(self, layer: str, part: str, columns: int, kind: str) -> Floats | None:
        """`layernorm`: the norm that feeds gate and up. `original`: as the original tool, the attention's norm, for
        every weight that is as wide."""
        if kind == "none" or (kind == "layernorm" and part == "down"):
            return None
        norm = "input_layernorm" if kind == "original" else "post_attention_layernorm"
        values = float_values(self.tensors[f"{layer}.{norm}.weight"])
        return values if len(values) == columns else None


def expected_output(source: SourceModel, formats: dict[str, str], gamma: str) -> Expected:
    """`formats` says for mlp and attn: mxfp4, fp8 or keep."""
    expected = Expected()
    companions: set[str] = set()
    for name, tensor in source.tensors.items():
        module = name.removesuffix(".weight")
        if match := MLP.fullmatch(name):
            kind = formats["mlp"]
        elif match := FUSED_EXPERTS.fullmatch(name):
            kind = formats["mlp"]
        elif match := ATTENTION.fullmatch(name):
            kind = formats["attn"]
        else:
            continue
        if kind == "keep":
            continue
        companions |= {name} | {
            found.name
            for names in (SCALE_NAMES, INPUT_SCALE_NAMES)
            if (found := source.companion(module, names)) is not None
        }
        if kind == "fp8":
            add_fp8(expected, source, tensor, module)
        elif len(tensor.shape) == 3:
            add_fused_experts(expected, source, tensor, match, gamma)
        else:
            weight = source.weight(name)
            gammas = source.gamma(match["layer"], match["part"], weight.array.shape[1], gamma)
            expected.mxfp4[module] = Mxfp4Weight(weight, gammas)
    for name in source.tensors.keys() - companions:
        tensor = source.tensors[name]
        expected.copies[name] = Copy(tensor.dtype, tensor.shape, tensor.array)
        if name.endswith(".weight"):
            expected.unquantized.add(name.removesuffix(".weight"))
    return expected


def add_fp8(expected: Expected, source: SourceModel, tensor: Tensor, module: str) -> None:
    """FP8 stays bit-identical, under compressed-tensors' scale names; anything else becomes FP8_DYNAMIC."""
    weight = source.weight(tensor.name)
    if weight.scaling is None:
        rows = tensor.shape[0]

        def quantized(part: int) -> np.ndarray:
            return fp8_dynamic(weight.rows(0, rows))[part]

        expected.copies[f"{module}.weight"] = Copy("F8_E4M3", tensor.shape, lambda: quantized(0))
        expected.copies[f"{module}.weight_scale"] = Copy("BF16", (rows, 1), lambda: quantized(1))
        expected.fp8[module] = Scaling.CHANNEL
        return
    expected.fp8[module] = weight.scaling
    expected.copies[tensor.name] = Copy(tensor.dtype, tensor.shape, tensor.array)
    scale = source.companion(module, SCALE_NAMES)
    assert scale is not None
    if weight.scaling is Scaling.TENSOR:
        expected.copies[f"{module}.weight_scale"] = one_float32(scale)
    else:
        dtype = "U8" if weight.scaling is Scaling.MX else scale.dtype
        expected.copies[f"{module}.weight_scale"] = Copy(dtype, scale.shape, scale.array)
    if input_scale := source.companion(module, INPUT_SCALE_NAMES):
        expected.copies[f"{module}.input_scale"] = one_float32(input_scale)
        expected.static_input.add(module)


def one_float32(scale: Tensor) -> Copy:
    return Copy("F32", (1,), lambda: float_values(scale).reshape(1))


def add_fused_experts(
    expected: Expected, source: SourceModel, tensor: Tensor, match: re.Match[str], gamma: str
) -> None:
    """One output module per expert and projection. Qwen3-VL stores [expert, in, out], others [expert, out, in]."""
    is_down = match["part"] == "down"
    transposed = source.config["model_type"] == "qwen3_vl_moe"
    experts = tensor.array().swapaxes(1, 2) if transposed else tensor.array()
    base = tensor.name.rpartition(".")[0]
    half = experts.shape[1] // 2
    parts = {"down": slice(None)} if is_down else {"gate": slice(half), "up": slice(half, None)}
    for number, expert in enumerate(experts):
        for part, rows in parts.items():
            gammas = source.gamma(match["layer"], part, expert.shape[1], gamma)
            weight = SourceWeight(expert[rows], tensor.dtype)
            expected.mxfp4[f"{base}.{number}.{part}_proj"] = Mxfp4Weight(weight, gammas)
