"""Checkpoints in memory, to be changed in one place and written again, and the good ones to start from.

Tensor edits keep the index right, so that a broken tensor is the only thing that is broken. What did not change is
hard-linked from the good folder: a mutant costs a shard and two small files.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "models"))

from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from number_formats import bf16_encode  # noqa: E402
from safetensors_files import Entry, checkpoint_shards, read_header, write_json, write_shard  # noqa: E402

INDEX = "model.safetensors.index.json"
FUSED = {"q_proj": ("k_proj", "v_proj"), "gate_proj": ("up_proj",)}


@dataclass(frozen=True)
class Stored:
    """A tensor's dtype, shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Checkpoint:
    """A checkpoint read from `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Any = json.loads((folder / "config.json").read_text())
        self.index: Any = json.loads((folder / INDEX).read_text()) if (folder / INDEX).exists() else None
        self.shards: dict[str, dict[str, Stored]] = {}
        for file in checkpoint_shards(folder):
            content = file.read_bytes()
            self.shards[file.name] = {
                tensor.name: Stored(tensor.dtype, tensor.shape, content[tensor.offset : tensor.offset + tensor.nbytes])
                for tensor in read_header(file).tensors
            }
        self.changed: set[str] = set()  # files to be written anew
        self.after: list[Callable[[Path], None]] = []  # what happens to the files once they are written

    def copy(self) -> "Checkpoint":
        """A copy to be edited. Tensors are never changed in place, so they are shared."""
        other = copy.copy(self)
        other.config, other.index = copy.deepcopy(self.config), copy.deepcopy(self.index)
        other.shards = {file: dict(tensors) for file, tensors in self.shards.items()}
        other.changed, other.after = set(), []
        return other

    @property
    def tensors(self) -> dict[str, Stored]:
        return {name: stored for tensors in self.shards.values() for name, stored in tensors.items()}

    def shard_of(self, name: str) -> str:
        return next(file for file, tensors in self.shards.items() if name in tensors)

    def drop(self, name: str) -> Stored:
        file = self.shard_of(name)
        stored = self.shards[file].pop(name)
        self.changed.add(file)
        if self.index:
            del self.index["weight_map"][name]
            self.index["metadata"]["total_size"] -= len(stored.data)
        return stored

    def put(self, name: str, stored: Stored, file: str | None = None) -> None:
        """Adds a tensor to a shard, by default the last, or replaces it where it is."""
        if name in self.tensors:
            file = file or self.shard_of(name)
            self.drop(name)
        file = file or list(self.shards)[-1]
        self.shards[file][name] = stored
        self.changed.add(file)
        if self.index:
            self.index["weight_map"][name] = file
            self.index["metadata"]["total_size"] += len(stored.data)

    def array(self, name: str) -> np.ndarray:
        """A copy of a tensor's codes, or its numbers where numpy knows the dtype."""
        stored = self.tensors[name]
        kinds = {"F32": np.float32, "BF16": np.uint16, "F16": np.float16, "I32": np.int32, "I64": np.int64}
        return np.frombuffer(stored.data, kinds.get(stored.dtype, np.uint8)).reshape(stored.shape).copy()

    def write(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in self.folder.iterdir():
            if file.name not in (*self.shards, "config.json", INDEX):
                os.link(file, folder / file.name)
        for file, tensors in self.shards.items():
            if file not in self.changed:
                os.link(self.folder / file, folder / file)
            elif tensors:
                write_shard(folder / file, [entry(name, stored) for name, stored in tensors.items()])
        write_json(folder / "config.json", self.config)
        if self.index is not None:
            write_json(folder / INDEX, self.index)
        for change in self.after:
            change(folder)


def entry(name: str, stored: Stored) -> Entry:
    return Entry(name, stored.dtype, stored.shape, lambda: [np.frombuffer(stored.data, np.uint8)])


def stored_array(dtype: str, array: np.ndarray) -> Stored:
    return Stored(dtype, array.shape, array.tobytes())


def bf16(values: np.ndarray) -> Stored:
    return stored_array("BF16", bf16_encode(np.ascontiguousarray(values, np.float32)))


def fp8_channel(rows: int, columns: int) -> dict[str, Stored]:
    """The tensors of an FP8 projection with a scale for each output channel: compressed-tensors' FP8_DYNAMIC."""
    codes = np.random.default_rng(rows + columns).integers(0, 0x60, (rows, columns), np.uint8)
    return {"weight": stored_array("F8_E4M3", codes), "weight_scale": bf16(np.full((rows, 1), 0.01))}


def nvfp4(rows: int, columns: int) -> dict[str, Stored]:
    random = np.random.default_rng(rows + columns)
    return {
        "weight_packed": stored_array("U8", random.integers(0, 256, (rows, columns // 2), np.uint8)),
        "weight_scale": stored_array("F8_E4M3", random.integers(0x30, 0x50, (rows, columns // 16), np.uint8)),
        "weight_global_scale": stored_array("F32", np.array([300.0], np.float32)),
    }


def int4(rows: int, columns: int) -> dict[str, Stored]:
    random = np.random.default_rng(rows + columns)
    return {
        "weight_packed": stored_array("I32", random.integers(-(2**31), 2**31, (rows, columns // 8)).astype(np.int32)),
        "weight_scale": bf16(np.full((rows, columns // 128), 0.01)),
        "weight_shape": stored_array("I64", np.array([rows, columns], np.int64)),
    }


def int8(rows: int, columns: int) -> dict[str, Stored]:
    codes = np.random.default_rng(rows + columns).integers(0, 256, (rows, columns), np.uint8)
    return {"weight": replace(stored_array("I8", codes), dtype="I8"), "weight_scale": bf16(np.full((rows, 1), 0.001))}


def restore(checkpoint: Checkpoint, part: str, make: Callable[[int, int], dict[str, Stored]]) -> None:
    """Stores the plain projections whose names contain `part` in another format."""
    for name, stored in checkpoint.tensors.items():
        if part in name and name.endswith("_proj.weight"):
            file, module = checkpoint.shard_of(name), name.removesuffix(".weight")
            rows, columns = stored.shape
            checkpoint.drop(name)
            for suffix, tensor in make(rows, columns).items():
                checkpoint.put(f"{module}.{suffix}", tensor, file)


def share_scales(checkpoint: Checkpoint) -> None:
    """Gives the parts of each fused layer one per-tensor scale, as published FP8 checkpoints have."""
    for name, stored in checkpoint.tensors.items():
        module, _, part = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        if "scale" in part and prod(stored.shape) == 1:
            for sibling in FUSED.get(leaf, ()):
                checkpoint.put(f"{parent}.{sibling}.{part}", stored)


def args(num_bits: int, number_type: str, strategy: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": num_bits, "type": number_type, "strategy": strategy, "symmetric": True, "dynamic": False} | more


def group(target: str, layout: str | None, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    made = {"targets": [target], "weights": weights, "input_activations": inputs, "output_activations": None}
    return made | ({"format": layout} if layout else {})


def quantization_config(layout: str, *groups: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": each for number, each in enumerate(groups)},
        "ignore": ["re:.*lm_head$", "re:.*embed_tokens$"],
        "kv_cache_scheme": None,
    }


LLAMA_MLP = "re:model\\.layers\\.\\d+\\.mlp\\.(gate|up|down|gate_up)_proj$"
LLAMA_ATTENTION = "re:model\\.layers\\.\\d+\\.self_attn\\.(q|k|v|o|qkv)_proj$"
LLAMA_ALL = "re:model\\.layers\\.\\d+\\.(mlp|self_attn)\\.\\w+_proj$"
TOKEN = {"dynamic": True}


def as_nvfp4(checkpoint: Checkpoint) -> None:
    restore(checkpoint, ".mlp.", nvfp4)
    layout = "nvfp4-pack-quantized"
    weights = args(4, "float", "tensor_group", group_size=16)
    checkpoint.config["quantization_config"] = quantization_config(layout, group(LLAMA_MLP, layout, weights, None))


def as_int(checkpoint: Checkpoint) -> None:
    restore(checkpoint, ".mlp.", int4)
    restore(checkpoint, ".self_attn.", int8)
    packed = group(LLAMA_MLP, "pack-quantized", args(4, "int", "group", group_size=128), None)
    inputs = args(8, "int", "token") | TOKEN
    whole = group(LLAMA_ATTENTION, "int-quantized", args(8, "int", "channel"), inputs)
    checkpoint.config["quantization_config"] = quantization_config("mixed-precision", packed, whole)


def as_one_group(checkpoint: Checkpoint) -> None:
    """Static per-tensor FP8 everywhere; the format stands at the top only."""
    fp8 = args(8, "float", "tensor")
    checkpoint.config["quantization_config"] = quantization_config("float-quantized", group(LLAMA_ALL, None, fp8, fp8))


def unchanged(_: Checkpoint) -> None:
    pass


@dataclass(frozen=True)
class Good:
    """How a checkpoint of the catalogue is made: a source, quantized by a recipe, then finished."""

    spec: Spec
    recipe: str | None = None
    finish: Callable[[Checkpoint], None] = unchanged
    fixable: bool = True  # --fix is to be able to describe these tensors


MISTRAL_RECIPE, LLAMA_RECIPE, QWEN_RECIPE = "mistral-medium-3.5-mxfp4", "llama-mxfp4", "qwen3-moe-mxfp4"

GOOD = {
    "mistral3": Good(Spec(shards=3), MISTRAL_RECIPE),
    "llama": Good(Spec(arch="llama", layout="bf16", shards=3), LLAMA_RECIPE),
    "qwen3_moe": Good(Spec(arch="qwen3_moe", layout="bf16", shards=3), QWEN_RECIPE),
    "fp8-block": Good(Spec(arch="llama", layout="fp8-block"), LLAMA_RECIPE),
    "mxfp8": Good(Spec(arch="llama", layout="mxfp8"), LLAMA_RECIPE),
    "fp8-tensor": Good(Spec(arch="llama", layout="ct-tensor", shards=2, scale_shape="one"), None, as_one_group),
    "nvfp4": Good(Spec(arch="llama", layout="bf16", shards=2), None, as_nvfp4, fixable=False),
    "int4-int8": Good(Spec(arch="llama", layout="bf16", shards=2), None, as_int, fixable=False),
    "plain": Good(Spec(arch="llama", layout="bf16", shards=2)),
}
"""Without any finding."""

OTHER = {
    "fp8-source": Good(Spec(shards=3), fixable=False),
    "mxfp8-source": Good(Spec(arch="llama", layout="mxfp8"), fixable=False),
    "odd-widths": Good(Spec(arch="llama", layout="bf16", hidden=160, mlp=288), LLAMA_RECIPE, fixable=False),
}
"""Whole as well, but with something to say about them."""


def make_good(name: str, work: Path, qstream: Path) -> Checkpoint:
    good, source, folder = (GOOD | OTHER)[name], work / f"source-{name}", work / f"good-{name}"
    make_checkpoint(source, good.spec)
    if good.recipe:
        shutil.rmtree(folder, ignore_errors=True)
        recipe = REPO / "configs" / f"{good.recipe}.json"
        command = [qstream, "quantize", source, folder, "--recipe", recipe, "--rule", "amax", "--quiet"]
        shards = ["--shard-size", "512KiB"] if good.spec.shards > 1 else []
        subprocess.run([*map(str, command), *shards], check=True)
    checkpoint = Checkpoint(folder if good.recipe else source)
    good.finish(checkpoint)
    share_scales(checkpoint)
    if good.spec.arch == "mistral3":  # Ministral 3 computes with these two
        rope = checkpoint.config["text_config"]["rope_parameters"]
        rope |= {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 4096}
    finished = work / name
    checkpoint.write(finished)
    return Checkpoint(finished)
