"""Weights of a checkpoint as numbers: what its bytes mean, in every layout, with nothing of the tool's code."""

import json
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from number_formats import e2m1_decode, e2m1_unpack, fp8_decode
from numpy.typing import NDArray
from safetensors_files import Tensor, checkpoint_tensors

Doubles = NDArray[np.float64]

BLOCK = 32
FP8_BLOCK = 128  # where config.json does not say
SCALE_NAMES = ("weight_scale_inv", "weight_scale")
STACKED = re.compile(r"(?P<stack>.*\.experts)\.(?P<number>\d+)\.(?P<part>gate|up|down)_proj")
NORM_OF = {"gate_proj": "post_attention_layernorm", "up_proj": "post_attention_layernorm",
           "q_proj": "input_layernorm", "k_proj": "input_layernorm", "v_proj": "input_layernorm"}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """A weight [rows, columns]. `scales` can be broadcast to its shape; `scale_codes` are those of MX formats, one for
    32 columns. Plain numbers have no codes."""

    format: str
    values: Doubles
    codes: NDArray[np.uint8] | None = None
    scales: Doubles | float = 1.0
    scale_codes: NDArray[np.uint8] | None = None

    @property
    def columns(self) -> int:
        return self.values.shape[1]


def rounded_to_bf16(values: np.ndarray) -> NDArray[np.float32]:
    """To nearest even; NaN stays NaN, what is too large becomes infinite."""
    bits = values.astype(np.float32).view(np.uint32)
    kept = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), np.float32(np.nan), kept.view(np.float32))


def numbers_of(tensor: Tensor) -> NDArray[np.float32]:
    """The values of plain numbers and of scales; E8M0 scales are powers of two, 255 is NaN."""
    array = np.asarray(tensor.array())
    if tensor.dtype in ("U8", "F8_E8M0"):
        return np.ldexp(
            np.where(array == 255, np.float32(np.nan), np.float32(1)), np.minimum(array, 254).astype(int) - 127
        )
    if tensor.dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def blocks_of(values: np.ndarray) -> np.ndarray:
    """[rows, columns] -> [BLOCK, blocks], in the order of the rows; the last block of a row is filled with zeros."""
    rows, columns = values.shape
    if columns % BLOCK:
        values = np.pad(values, ((0, 0), (0, -columns % BLOCK)))
    return np.ascontiguousarray(values.reshape(-1, BLOCK).T) if rows else np.zeros((BLOCK, 0), values.dtype)


class Folder:
    """A checkpoint, source or output."""

    def __init__(self, path: Path) -> None:
        self.tensors = checkpoint_tensors(path)
        self.config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.block = self._block()

    def _block(self) -> tuple[int, int]:
        """Rows and columns of an FP8 weight that share a scale, where scales are a matrix."""
        quantization = self.config.get("quantization_config") or {}
        groups = (quantization.get("config_groups") or {}).values()
        sizes = [quantization.get("weight_block_size"), *(group["weights"].get("block_structure") for group in groups)]
        rows, columns = next((size for size in sizes if size), (FP8_BLOCK, FP8_BLOCK))
        return rows, columns

    def image(self, module: str) -> Image:
        """The stored values of a module's weight, as they are."""
        if f"{module}.weight_packed" in self.tensors:
            codes = e2m1_unpack(np.asarray(self.tensors[f"{module}.weight_packed"].array()))
            scale = self.tensors[f"{module}.weight_scale"]
            scales = np.repeat(numbers_of(scale), BLOCK, axis=1).astype(np.float64)
            return Image("mxfp4", e2m1_decode(codes) * scales, codes, scales, np.asarray(scale.array()))
        weight = self.tensors[f"{module}.weight"]
        scale = self._scale(module)
        if weight.dtype != "F8_E4M3" or scale is None:
            with np.errstate(invalid="ignore"):  # NaN of any kind
                return Image("plain", numbers_of(weight).astype(np.float64))
        codes = np.asarray(weight.array())
        format_, scales = self._scales(weight, scale)
        with np.errstate(over="ignore", invalid="ignore"):
            values = fp8_decode(codes) * scales
        scale_codes = np.asarray(scale.array()) if format_ == "mxfp8" else None
        return Image(format_, values.astype(np.float64), codes, scales.astype(np.float64), scale_codes)

    def _scale(self, module: str) -> Tensor | None:
        names = (f"{module}.{name}" for name in SCALE_NAMES)
        return next((self.tensors[name] for name in names if name in self.tensors), None)

    def _scales(self, weight: Tensor, scale: Tensor) -> tuple[str, NDArray[np.float32]]:
        rows, columns = weight.shape
        scales = numbers_of(scale)
        if scale.dtype in ("U8", "F8_E8M0"):
            return "mxfp8", np.repeat(scales, BLOCK, axis=1)
        if scale.shape == (rows, 1) or (scale.shape == (rows,) and rows > 1):
            return "fp8-channel", scales.reshape(rows, 1)
        if scales.size == 1:
            return "fp8-tensor", scales.reshape(1, 1)
        of_rows, of_columns = self.block
        if scale.shape != (ceil(rows / of_rows), ceil(columns / of_columns)):
            raise ValueError(f"{scale.name} has the shape {scale.shape}, and {weight.name} {weight.shape}")
        return "fp8-block", scales[np.ix_(np.arange(rows) // of_rows, np.arange(columns) // of_columns)]

    def source_of(self, module: str) -> Image:
        """A weight as a model that runs in BF16 loads it; experts may be a part of a stack."""
        found = STACKED.fullmatch(module)
        if found and f"{found['stack']}.down_proj" in self.tensors:
            return Image("plain", self._expert(found["stack"], int(found["number"]), found["part"]))
        image = self.image(module)
        return Image(image.format, rounded_to_bf16(image.values).astype(np.float64), image.codes)

    def _expert(self, stack: str, number: int, part: str) -> Doubles:
        """Qwen3-VL stores experts as [in, out], others as [out, in]; gate comes before up."""
        tensor = self.tensors[f"{stack}.{'down' if part == 'down' else 'gate_up'}_proj"]
        values = rounded_to_bf16(numbers_of(tensor)[number]).astype(np.float64)
        if self.config["model_type"] == "qwen3_vl_moe":
            values = values.T
        half = len(values) // 2
        rows = {"gate": slice(half), "up": slice(half, None), "down": slice(None)}
        return np.ascontiguousarray(values[rows[part]])

    def quantized_from(self, source: "Folder") -> list[str]:
        """The modules that are stored otherwise than in the source."""
        modules = [name.rpartition(".")[0] for name in self.tensors if name.endswith((".weight", ".weight_packed"))]
        return [module for module in modules if source._format(module) != self._format(module)]

    def _format(self, module: str) -> str:
        weight = self.tensors.get(f"{module}.weight")
        if weight is None:
            return "mxfp4" if f"{module}.weight_packed" in self.tensors else "plain"
        scale = self._scale(module)
        return self._scales(weight, scale)[0] if weight.dtype == "F8_E4M3" and scale is not None else "plain"

    def gamma(self, module: str, columns: int, kind: str) -> NDArray[np.float32] | None:
        """The weights of the norm that the qstream rule weighs its errors with: `layernorm`, the one that feeds the
        projection; `original`, as the original tool, the attention's, for every weight that is as wide."""
        layer, _, projection = module.partition(".mlp." if ".mlp." in module else ".self_attn.")
        norm = "input_layernorm" if kind == "original" else NORM_OF.get(projection.rpartition(".")[2])
        if kind == "none" or norm is None:
            return None
        values = numbers_of(self.tensors[f"{layer}.{norm}.weight"])
        return values if len(values) == columns else None
