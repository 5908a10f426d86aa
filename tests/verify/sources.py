"""Source checkpoints with weights that are hard to measure, and images of them that other tools might have made."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_values import BLOCK, Folder
from make_checkpoint import Spec
from make_checkpoint import config as config_of
from number_formats import E2M1_MAGNITUDES, FP8_MAX, bf16_decode, bf16_encode, e2m1_pack, fp8_encode
from numpy.typing import NDArray
from rules import BIAS, HALFWAY
from safetensors_files import Entry, entry_of, write_json, write_shards

Make = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return 0.02 * random.standard_normal((rows, columns))


def with_outliers(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    values = normal(random, rows, columns)
    flat = values.reshape(-1)
    for size in (1e30, -1e30, 1e-30, -1e-30, 100.0):
        flat[random.integers(flat.size, size=1 + flat.size // 400)] = size
    return values


def with_zeros(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    values = normal(random, rows, columns)
    values[random.random(values.shape) < 0.1] = 0.0
    values[random.random(values.shape) < 0.1] = -0.0
    blocks = values[:, : columns // BLOCK * BLOCK].reshape(-1, BLOCK).copy()
    blocks[random.random(len(blocks)) < 0.3] = 0.0
    blocks[random.random(len(blocks)) < 0.2] = -0.0
    values[:, : columns // BLOCK * BLOCK] = blocks.reshape(rows, -1)
    return values


def subnormal(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return random.integers(-3, 4, (rows, columns)) * 2.0 ** random.integers(-133, -120, (rows, 1))


def heavy_tails(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return 1e-3 * random.standard_t(1.5, (rows, columns))


def constant(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns), 0.0390625)


def representable(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """MXFP4 without any error."""
    values = E2M1_MAGNITUDES[random.integers(8, size=(rows, columns))] * random.choice([-1.0, 1.0], (rows, columns))
    exponents = random.integers(-9, -3, (rows, -(-columns // BLOCK)))
    return np.ldexp(values, np.repeat(exponents, BLOCK, axis=1)[:, :columns])


def near_the_threshold(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Around 1e-6, where the qstream rule makes zeros."""
    return 4e-7 * random.standard_normal((rows, columns)) * np.exp(random.standard_normal((rows, 1)))


def huge(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Up to the largest number; squares of it need float64."""
    return random.uniform(-3.3e38, 3.3e38, (rows, columns))


def powers(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Few distinct values: many ties, between codes, scales, blocks and rows."""
    return np.ldexp(random.choice([-7.0, -5.0, -1.5, 0.25, 0.75, 2.5, 5.0, 7.0], (rows, columns)), -6)


KINDS: dict[str, Make] = {
    make.__name__: make
    for make in (normal, with_outliers, with_zeros, subnormal, heavy_tails, constant, representable,
                 near_the_threshold, huge, powers)
}  # fmt: skip
SHAPES = [(1, 32), (3, 64), (1000, 96), (3, 544), (1, 4096), (40, 32)]  # of weights that become MXFP4
FP8_SHAPES = [(3, 100), (40, 64), (2, 33), (7, 544)]


class Source:
    """A checkpoint with Llama's names, in one layout; each layer holds weights of one kind, of any shape."""

    def __init__(self, path: Path, layout: str, seed: int, **spec: Any) -> None:
        self.path, self.layout = path, layout
        self.spec = Spec(layout=layout, arch="llama", **spec)
        self.random = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
        self.entries: list[Entry] = []
        self.layers = 0

    def plain(self, name: str, values: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            single = np.clip(values, -3.38e38, 3.38e38).astype(np.float32)
        if self.spec.dtype == "f32":
            self.entries.append(entry_of(name, "F32", single))
        elif self.spec.dtype == "f16":
            self.entries.append(entry_of(name, "F16", np.clip(single, -65504, 65504).astype(np.float16)))
        else:
            self.entries.append(entry_of(name, "BF16", bf16_encode(single)))

    def scale(self, name: str, shape: tuple[int, ...], around: float) -> None:
        values = np.asarray(around * np.exp(self.random.standard_normal(shape)), np.float32)
        if self.spec.scale_dtype == "BF16":
            self.entries.append(entry_of(name, "BF16", bf16_encode(np.atleast_1d(values)).reshape(shape)))
        else:
            self.entries.append(entry_of(name, "F32", values))

    def weight(self, module: str, values: np.ndarray) -> None:
        rows, columns = values.shape
        if self.layout == "bf16":
            self.plain(f"{module}.weight", values)
            return
        largest = np.abs(values).max() or 1.0
        codes = fp8_encode((values * (448 / largest)).astype(np.float32))
        around = float(min(largest / 448, 1e30))
        inverse = "weight_scale" if self.layout.startswith("ct-") else "weight_scale_inv"
        if self.layout == "mxfp8":
            if columns % BLOCK:
                raise ValueError("MXFP8 needs whole blocks")
            exponents = self.random.integers(100, 130, (rows, columns // BLOCK))
            self.entries.append(entry_of(f"{module}.{inverse}", "U8", exponents.astype(np.uint8)))
        elif self.layout == "ct-channel":
            self.scale(f"{module}.{inverse}", (rows, 1), around)
        elif self.layout == "fp8-block":
            self.scale(f"{module}.{inverse}", (-(-rows // 128), -(-columns // 128)), around)
        else:
            self.scale(f"{module}.{inverse}", (), around)
            self.scale(f"{module}.activation_scale", (), 0.02)
        self.entries.append(entry_of(f"{module}.weight", "F8_E4M3", codes))

    def layer(self, make: Make, shapes: list[tuple[int, int]], fp8_shapes: list[tuple[int, int]]) -> None:
        """A layer whose projections have these shapes."""
        layer = f"model.layers.{self.layers}"
        self.layers += 1
        self.plain(f"{layer}.input_layernorm.weight", 1 + 0.3 * self.random.standard_normal(shapes[0][1]))
        self.plain(f"{layer}.post_attention_layernorm.weight", 1 + 0.3 * self.random.standard_normal(shapes[0][1]))
        for part, (rows, columns) in zip(("gate", "up", "down"), shapes, strict=False):
            self.weight(f"{layer}.mlp.{part}_proj", make(self.random, rows, columns))
        for part, (rows, columns) in zip("qkvo", fp8_shapes, strict=False):
            if self.layout != "mxfp8" or columns % BLOCK == 0:
                self.weight(f"{layer}.self_attn.{part}_proj", make(self.random, rows, columns))

    def write(self) -> Path:
        self.plain("model.embed_tokens.weight", 0.02 * self.random.standard_normal((8, 32)))
        self.plain("model.norm.weight", np.ones(32))
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        half = len(self.entries) // 2
        write_shards(self.path, [self.entries[:half], self.entries[half:]])
        write_json(self.path / "config.json", config_of(self.spec) | {"num_hidden_layers": self.layers})
        return self.path


def hard_source(path: Path, layout: str, seed: int, kinds: list[str], **spec: Any) -> Path:
    source = Source(path, layout, seed, **spec)
    for number, kind in enumerate(kinds):
        shapes = [SHAPES[(number + k) % len(SHAPES)] for k in range(3)]
        source.layer(KINDS[kind], shapes, FP8_SHAPES)
    return source.write()


# ---- images by others ----


def e2m1_codes(quotients: np.ndarray) -> NDArray[np.uint8]:
    """Nearest codes of values in units of their scale."""
    sizes = np.searchsorted(HALFWAY, np.abs(quotients)).astype(np.uint8)
    return sizes | (np.signbit(quotients).astype(np.uint8) << 3)


def rounded_at_random(random: np.random.Generator, quotients: np.ndarray) -> NDArray[np.uint8]:
    """Up or down, the likelier the nearer."""
    sizes = np.minimum(np.abs(quotients), 6.0)
    low = np.searchsorted(E2M1_MAGNITUDES, sizes, side="right") - 1
    high = np.minimum(low + 1, 7)
    step = np.maximum(E2M1_MAGNITUDES[high] - E2M1_MAGNITUDES[low], 0.5)
    up = random.random(sizes.shape) < (sizes - E2M1_MAGNITUDES[low]) / step
    return np.where(up, high, low).astype(np.uint8) | (np.signbit(quotients).astype(np.uint8) << 3)


def rounded_with_feedback(random: np.random.Generator, quotients: np.ndarray) -> NDArray[np.uint8]:
    """What rounding a column costs is taken up by the next of its block, as GPTQ does with correlated inputs."""
    codes = np.zeros(quotients.shape, np.uint8)
    left = np.zeros(len(quotients))
    for column in range(quotients.shape[1]):
        wanted = quotients[:, column] + (0.5 * left if column % BLOCK else 0)
        codes[:, column] = e2m1_codes(wanted)
        values = E2M1_MAGNITUDES[codes[:, column] & 7] * np.where(codes[:, column] >= 8, -1, 1)
        left = wanted - values
    return codes


def mxfp4_entries(module: str, values: np.ndarray, rounding: Callable[..., Any], random: Any) -> list[Entry]:
    """Scales as Open Compute's description has them: floor(log2(amax)) - 2."""
    amax = np.abs(values).reshape(len(values), -1, BLOCK).max(axis=2)
    exponents = np.where(amax > 0, np.frexp(amax)[1] - 3, 0).astype(np.int64)
    codes = rounding(random, np.ldexp(values, -np.repeat(exponents, BLOCK, axis=1)))
    return [
        entry_of(f"{module}.weight_packed", "U8", e2m1_pack(codes)),
        entry_of(f"{module}.weight_scale", "U8", (exponents + BIAS).astype(np.uint8)),
    ]


def fp8_entries(module: str, values: np.ndarray, strategy: str) -> list[Entry]:
    """FP8 by the largest value of what a scale covers; `strategy` as in STRATEGIES."""
    rows, columns = values.shape
    if strategy == "mxfp8":
        amax = np.abs(values).reshape(rows, -1, BLOCK).max(axis=2)
        exponents = np.frexp(np.maximum(amax, 1e-30) / 448)[1]
        scales = np.repeat(np.ldexp(1.0, exponents), BLOCK, axis=1)
        scale = entry_of(f"{module}.weight_scale", "U8", (exponents + BIAS).astype(np.uint8))
    elif strategy == "block":
        of_rows, of_columns = np.arange(rows) // 128, np.arange(columns) // 128
        stored = np.zeros((of_rows[-1] + 1, of_columns[-1] + 1), np.float32)
        np.maximum.at(stored, (of_rows[:, None], of_columns[None]), np.abs(values).astype(np.float32))
        stored = np.maximum(stored, np.float32(1e-12)) / FP8_MAX
        scales, scale = stored[np.ix_(of_rows, of_columns)], entry_of(f"{module}.weight_scale", "F32", stored)
    else:
        axis = 1 if strategy.startswith("channel") else None
        stored = (np.maximum(np.abs(values).max(axis=axis, keepdims=True), 1e-12) / 448).astype(np.float32)
        if strategy == "channel-bf16":
            codes = bf16_encode(stored)
            scales, scale = bf16_decode(codes), entry_of(f"{module}.weight_scale", "BF16", codes)
        else:
            scales, scale = stored, entry_of(f"{module}.weight_scale", "F32", stored if axis else stored.reshape(1))
    codes = fp8_encode((values / scales).astype(np.float32))
    return [scale, entry_of(f"{module}.weight", "F8_E4M3", codes)]


FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False}
DYNAMIC = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
STRATEGIES: dict[str, dict[str, Any]] = {
    "tensor": {"weights": FP8 | {"strategy": "tensor"}, "input_activations": DYNAMIC, "format": "float-quantized"},
    "channel-f32": {"weights": FP8 | {"strategy": "channel"}, "input_activations": DYNAMIC,
                    "format": "float-quantized"},
    "channel-bf16": {"weights": FP8 | {"strategy": "channel"}, "input_activations": DYNAMIC,
                     "format": "float-quantized"},
    "block": {"weights": FP8 | {"strategy": "block", "block_structure": [128, 128]},
              "input_activations": DYNAMIC | {"strategy": "group", "group_size": 128}, "format": "float-quantized"},
    "mxfp8": {"weights": FP8 | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"},
              "input_activations": None, "format": "mxfp8-quantized"},
    "mxfp4": {"weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True,
                          "dynamic": False, "scale_dtype": "torch.uint8"},
              "input_activations": None, "format": "mxfp4-pack-quantized"},
}  # fmt: skip


def image_by_others(
    source: Path, path: Path, rounding: Callable[..., Any] | None, strategy: str | None, seed: int
) -> Path:
    """MLP weights become MXFP4 with this rounding, attention weights FP8, or BF16 again; None leaves them."""
    folder, random, entries = Folder(source), np.random.default_rng(seed), []
    for name, tensor in folder.tensors.items():
        module = name.removesuffix(".weight")
        if "_scale" in name:
            continue  # of an FP8 source, all of whose weights are quantized anew
        if rounding and ".mlp." in name:
            values = folder.source_of(module).values
            entries += mxfp4_entries(module, values, rounding, random)
        elif strategy == "bf16" and ".self_attn." in name and len(tensor.shape) == 2:
            values = folder.source_of(module).values
            entries.append(entry_of(name, "BF16", bf16_encode(values.astype(np.float32))))
        elif strategy and ".self_attn." in name and len(tensor.shape) == 2:
            entries += fp8_entries(module, folder.source_of(module).values, strategy)
        else:
            entries.append(entry_of(name, tensor.dtype, np.asarray(tensor.array())))
    groups = {}
    for number, (part, chosen) in enumerate((("mlp", "mxfp4" if rounding else None), ("self_attn", strategy))):
        if chosen in STRATEGIES:
            targets = [f"re:model\\.layers\\.\\d+\\.{part}\\.[a-z]+_proj$"]
            groups[f"group_{number}"] = {"targets": targets, "output_activations": None} | STRATEGIES[chosen]
    shutil.copytree(source, path, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
    write_shards(path, [entries])
    formats = {group["format"] for group in groups.values()}
    quantization = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"],
                    "format": formats.pop() if len(formats) == 1 else "mixed-precision", "config_groups": groups,
                    "kv_cache_scheme": None}  # fmt: skip
    config = json.loads((source / "config.json").read_text())
    write_json(path / "config.json", config | {"quantization_config": quantization})
    return path
