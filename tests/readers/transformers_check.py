#!/usr/bin/env python3
"""Whether `qstream audit --loaders transformers` predicts what transformers does.

    transformers_check.py [--only TEXT] [--oracle-only] [--work DIR]

Makes small quantized checkpoints and some three hundred variants, each with one thing changed; loads every one with
transformers (transformers_oracle.py) and audits it. The two must agree: transformers loads it as meant, without an
error finding from the audit, or neither. Where the audit may be stricter, because another reader fails or the files
contradict themselves, the variant names the only finding that it may do so with. Prints a table; exit status 1 when
any pair differs. --oracle-only shows only what transformers does. Run it with build/readers-transformers/bin/python
(venv.sh). QSTREAM names another binary than build/qstream.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "models"))

import torch  # noqa: E402
from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from safetensors_files import write_json  # noqa: E402
from transformers_oracle import INDEX, Verdict, judge  # noqa: E402

QSTREAM = os.environ.get("QSTREAM", str(REPO / "build" / "qstream"))
AUDIT_ERRORS, USAGE_ERROR = 1, 2  # exit statuses
RECIPES = {"mistral3": "mistral-medium-3.5-mxfp4", "llama": "llama-mxfp4", "qwen3_moe": "qwen3-moe-mxfp4"}
LAYOUTS = ("bf16", "fp8-tensor", "fp8-block", "mxfp8")
# without use and without harm, or to be known by the model's code only
HARMLESS_TENSOR = re.compile(r"\.experts\.\d+\..*\.input_scale$|\.bias$|\.k_scale$|^model\.extra\.")

Tensors = dict[str, torch.Tensor]
Change = Callable[[Path], None]

# Places in the configuration, and modules of the first layer.
Q = "quantization_config"
G0, G1 = f"{Q}.config_groups.group_0", f"{Q}.config_groups.group_1"  # MXFP4 and FP8
W0, W1, A1 = f"{G0}.weights", f"{G1}.weights", f"{G1}.input_activations"
LAYER = "model.language_model.layers.0"
UP, Q_PROJ = f"{LAYER}.mlp.up_proj", f"{LAYER}.self_attn.q_proj"
EXPERT = "model.layers.0.mlp.experts.1.up_proj"
MLP_RE = r"re:.*language_model\.layers\.\d+\.mlp\.(gate|up|down)_proj$"
ATTENTION_RE = r"re:.*language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj$"


@dataclass(frozen=True)
class Base:
    """A checkpoint that the variants start from: how its source is made, and how it is quantized."""

    spec: Spec
    options: tuple[str, ...] = ()
    formats: dict[str, str] = field(default_factory=dict)  # {part of a rule's pattern: another format}

    @property
    def is_quantized(self) -> bool:
        """Layouts of compressed-tensors are used as they are."""
        return not self.spec.layout.startswith("ct-")


BASES = {
    f"{arch} {layout}": Base(Spec(arch=arch, layout=layout))  # type: ignore[arg-type]
    for arch in RECIPES
    for layout in LAYOUTS
}
BASES |= {
    "mistral3 shards": Base(Spec(layout="fp8-tensor"), ("--shard-size", "1MB")),
    "llama f16": Base(Spec(arch="llama", layout="bf16", dtype="f16")),
    "llama f32": Base(Spec(arch="llama", layout="bf16", dtype="f32")),
    "llama ct-channel": Base(Spec(arch="llama", layout="ct-channel")),
    "llama ct-tensor": Base(Spec(arch="llama", layout="ct-tensor")),
    "qwen3_moe ct-channel": Base(Spec(arch="qwen3_moe", layout="ct-channel")),
    "qwen3_moe ct-tensor": Base(Spec(arch="qwen3_moe", layout="ct-tensor")),
    "qwen3_moe FP8 experts": Base(Spec(arch="qwen3_moe", layout="bf16"), (), {"experts": "fp8"}),
    "qwen3_moe static FP8 experts": Base(Spec(arch="qwen3_moe", layout="fp8-tensor"), (), {"experts": "fp8"}),
    "qwen3_moe block FP8 experts": Base(Spec(arch="qwen3_moe", layout="fp8-block"), (), {"experts": "fp8"}),
    "qwen3_moe MXFP8 experts": Base(Spec(arch="qwen3_moe", layout="mxfp8"), (), {"experts": "fp8"}),
    "qwen3_moe FP8 experts, MXFP4 attention": Base(
        Spec(arch="qwen3_moe", layout="bf16"), (), {"experts": "fp8", "self_attn": "mxfp4"}
    ),
    "qwen3_moe BF16 experts": Base(Spec(arch="qwen3_moe", layout="bf16"), (), {"experts": "keep"}),
    "qwen3_moe BF16 experts, MXFP4 attention": Base(
        Spec(arch="qwen3_moe", layout="bf16"), (), {"experts": "keep", "self_attn": "mxfp4"}
    ),
}


@dataclass(frozen=True)
class Variant:
    """A checkpoint with something changed."""

    base: str
    name: str
    changes: tuple[Change, ...] = ()
    stricter: str | None = None  # with this finding the audit may refuse what transformers gets right


def edit_config(change: Callable[[dict[str, Any]], None], folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    write_json(folder / "config.json", config)


def put(place: str, value: Any) -> Change:
    """Sets a value in config.json; the place's steps are separated by dots."""

    def change(config: dict[str, Any]) -> None:
        *steps, last = place.split(".")
        for step in steps:
            config = config[step]
        config[last] = value

    return partial(edit_config, change)


def drop(place: str) -> Change:
    """Removes a key from config.json."""

    def change(config: dict[str, Any]) -> None:
        *steps, last = place.split(".")
        for step in steps:
            config = config[step]
        del config[last]

    return partial(edit_config, change)


def swap_groups(config: dict[str, Any]) -> None:
    groups = config[Q]["config_groups"]
    config[Q]["config_groups"] = {"group_0": groups["group_1"], "group_1": groups["group_0"]}


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def tensors(change: Callable[[Tensors], None]) -> Change:
    """Rewrites the shards whose tensors the change touches, and the index after them."""

    def rewrite(folder: Path) -> None:
        weight_map: dict[str, str] = {}
        for shard in shards(folder):
            held = load_file(shard)
            before = dict(held)
            change(held)
            if len(held) != len(before) or any(held[name] is not before.get(name) for name in held):
                save_file({name: tensor.contiguous() for name, tensor in held.items()}, shard, {"format": "pt"})
            weight_map |= {name: shard.name for name in held}
        if (folder / INDEX).exists():
            edit_index(lambda index: index.update(weight_map=weight_map), folder)

    return rewrite


def without(*endings: str) -> Change:
    def change(held: Tensors) -> None:
        for name in [name for name in held if name.endswith(endings)]:
            del held[name]

    return tensors(change)


def become(ending: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Replaces every tensor whose name ends so."""

    def change(held: Tensors) -> None:
        for name in held:
            if name.endswith(ending):
                held[name] = function(held[name])

    return tensors(change)


def add(name: str, tensor: torch.Tensor, beside: str = "norm.weight") -> Change:
    """Adds a tensor to the shard that holds another one."""

    def change(held: Tensors) -> None:
        if any(other.endswith(beside) for other in held):
            held[name] = tensor

    return tensors(change)


def plain(module: str, shape: tuple[int, int]) -> Change:
    """The module as if it had never been quantized."""

    def change(held: Tensors) -> None:
        parts = [name for name in held if name.startswith(f"{module}.")]
        for name in parts:
            del held[name]
        if parts:
            held[f"{module}.weight"] = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16() / 50

    return tensors(change)


def renamed(old: str, new: str) -> Change:
    def change(held: Tensors) -> None:
        for name in [name for name in held if name.startswith(old)]:
            held[new + name.removeprefix(old)] = held.pop(name)

    return tensors(change)


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def first_is(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[0] = value
        return changed

    return change


def as_e8m0(codes: torch.Tensor) -> torch.Tensor:
    return codes.view(torch.float8_e8m0fnu)


def e8m0_values(codes: torch.Tensor) -> torch.Tensor:
    return torch.pow(2.0, codes.float() - 127).bfloat16()


def edit_index(change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    write_json(folder / INDEX, index)


def index(change: Callable[[dict[str, Any]], Any]) -> Change:
    return partial(edit_index, change)


def moved_entry(held: dict[str, Any]) -> None:
    """One tensor's entry names another shard than the one that holds it."""
    weight_map = held["weight_map"]
    shard = max(weight_map.values(), key=list(weight_map.values()).count)  # the file stays in use
    name = next(name for name in weight_map if weight_map[name] == shard)
    weight_map[name] = next(other for other in weight_map.values() if other != shard)


def emptied_shard(held: dict[str, Any]) -> None:
    """No entry names the shard of one tensor any more, so that it is not read."""
    weight_map = held["weight_map"]
    shard = min(weight_map.values(), key=list(weight_map.values()).count)
    other = next(other for other in weight_map.values() if other != shard)
    weight_map.update({name: other for name in weight_map if weight_map[name] == shard})


def duplicated(function: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """A tensor of the first shard lies in the last one too, while the index names the first."""

    def change(folder: Path) -> None:
        first, last = load_file(shards(folder)[0]), load_file(shards(folder)[-1])
        name = next(iter(first))
        last[name] = function(first[name]).clone()
        save_file(last, shards(folder)[-1], {"format": "pt"})

    return change


def shadowed(folder: Path) -> None:
    """A model.safetensors of another time lies beside the index."""
    save_file(load_file(shards(folder)[0]), folder / "model.safetensors", {"format": "pt"})


def leftover_shard(folder: Path) -> None:
    save_file({"stale.weight": torch.ones(4)}, folder / "model-old.safetensors", {"format": "pt"})


def renamed_file(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)

    return change


def dangling_entry(folder: Path) -> None:
    edit_index(lambda held: held["weight_map"].update(ghost=shards(folder)[0].name), folder)


def consolidated_beside(folder: Path) -> None:
    shutil.copy(shards(folder)[0], folder / "consolidated.safetensors")


def broken_index(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def truncated(folder: Path) -> None:
    shard = shards(folder)[-1]
    shard.write_bytes(shard.read_bytes()[:-64])


def config_variants() -> list[Variant]:
    """What is read from quantization_config before any module is looked at."""
    mistral = partial(Variant, "mistral3 fp8-tensor")
    return [
        mistral("no quantization_config", (drop(Q),)),
        mistral("quantization_config null", (put(Q, None),)),
        mistral("quant_method absent", (drop(f"{Q}.quant_method"),)),
        mistral("quant_method compressed_tensors", (put(f"{Q}.quant_method", "compressed_tensors"),)),
        mistral("config_groups absent", (drop(f"{Q}.config_groups"),)),
        mistral("config_groups {}", (put(f"{Q}.config_groups", {}),)),
        mistral("config_groups a list", (put(f"{Q}.config_groups", []),)),
        mistral("config_groups a list of one", (put(f"{Q}.config_groups", [1]),)),
        mistral("a group null", (put(G0, None),)),
        mistral("preset MXFP4A16", (put(f"{Q}.config_groups.MXFP4A16", [MLP_RE]), drop(G0))),
        mistral("preset of an unknown name", (put(f"{Q}.config_groups.FP5", [MLP_RE]),)),
        *(mistral(f"quantization_status {status!r}", (put(f"{Q}.quantization_status", status),))
          for status in ("frozen", "initialized", "decompressed", "Compressed", None)),
        mistral("quantization_status absent", (drop(f"{Q}.quantization_status"),)),
        mistral("format foo", (put(f"{Q}.format", "foo"),), "format-wrong"),
        mistral("format null", (put(f"{Q}.format", None),)),
        mistral("format absent", (drop(f"{Q}.format"),), "format-wrong"),
        mistral("format float-quantized", (put(f"{Q}.format", "float-quantized"),), "format-wrong"),
        mistral("ignore a string", (put(f"{Q}.ignore", "lm_head"),)),
        mistral("ignore with a number", (put(f"{Q}.ignore", ["lm_head", 3]),)),
        mistral("ignore null", (put(f"{Q}.ignore", None),)),
        mistral("ignore absent", (drop(f"{Q}.ignore"),)),
        mistral("global_compression_ratio '1.5'", (put(f"{Q}.global_compression_ratio", "1.5"),)),
        mistral("global_compression_ratio x", (put(f"{Q}.global_compression_ratio", "x"),)),
        mistral("unknown top-level key", (put(f"{Q}.flavour", "sweet"), put(f"{Q}.version", "0.20.0"))),
        mistral("unknown key in a group", (put(f"{G0}.flavour", "sweet"),)),
        mistral("unknown key in weights", (put(f"{W0}.flavour", "sweet"),)),
        mistral("unknown key in input_activations", (put(f"{A1}.flavour", None),)),
        mistral("sparsity_config and transform_config {}", (put(f"{Q}.sparsity_config", {}),
                                                            put(f"{Q}.transform_config", {}))),
        mistral("moe_sparsity_config {}", (put(f"{Q}.moe_sparsity_config", {}),)),
        mistral("kv_cache_scheme fp8 without its scales",
                (put(f"{Q}.kv_cache_scheme", {"num_bits": 8, "type": "float", "strategy": "tensor"}),)),
        mistral("kv_cache_scheme of unknown key", (put(f"{Q}.kv_cache_scheme", {"bits": 8}),)),
        mistral("dequantize true", (put(f"{Q}.dequantize", True),)),
        mistral("run_compressed true", (put(f"{Q}.run_compressed", True),)),
        mistral("quantization_config in text_config", (drop(Q), put("text_config.quantization_config", {}))),
    ]  # fmt: skip


def argument_variants() -> list[Variant]:
    """Every field of weights and activations with good, coerced and bad values."""
    values: dict[str, list[Any]] = {
        f"{W0}.num_bits": ["4", 4.0, 4.5, "4.0", " 4 ", "x", None, 8, 5],
        f"{W0}.type": ["FLOAT", "fp4", None, "int"],
        f"{W0}.symmetric": ["yes", 1, 2, None, False],
        f"{W0}.group_size": ["32", 32.0, 32.5, 16, 64, None, -1, 0, -2],
        f"{W0}.strategy": ["GROUP", "channel", "tensor", "tensor_group", "block", None, "rows"],
        f"{W0}.dynamic": ["false", 0, "local", None, True],
        f"{W0}.scale_dtype": ["uint8", "U8", "torch.float8_e8m0fnu", "torch.bfloat16", None, 8],
        f"{W0}.zp_dtype": ["torch.uint8", "none"],
        f"{W0}.actorder": [None, False, "weight", "static", "group", True, "Weight"],
        f"{W0}.observer": [None, "minmax", 3],
        f"{W0}.observer_kwargs": [{}, None],
        f"{W0}.block_structure": [None, [128, 128]],
        f"{W1}.num_bits": [4],
        f"{W1}.strategy": ["channel", "token", None, "Tensor"],
        f"{W1}.group_size": [-1, 0, 128],
        f"{W1}.scale_dtype": ["torch.float32", None],
        f"{W1}.symmetric": [False],
        f"{A1}.strategy": ["token", "channel", None],
        f"{A1}.dynamic": [True],
        f"{A1}.actorder": ["weight", None],
    }
    stricter = {(f"{W0}.num_bits", 8): "bits-mismatch", (f"{W0}.type", "int"): "bits-mismatch"}
    stricter |= {(f"{W0}.scale_dtype", f"torch.{dtype}"): "scale-dtype" for dtype in ("float8_e8m0fnu", "bfloat16")}
    made = [
        Variant("mistral3 fp8-tensor", f"{'.'.join(place.split('.')[2:])} {value!r}", (put(place, value),),
                stricter.get((place, value)) if isinstance(value, int | str) else None)
        for place, several in values.items() for value in several
    ]  # fmt: skip
    block = partial(Variant, "mistral3 fp8-block")
    made += [block(f"block_structure {value!r}", (put(f"{W1}.block_structure", value),))
             for value in ([64, 64], "128x128", [128, 128.0], None, [128], [128, 0])]  # fmt: skip
    return made + [
        block("strategy tensor on block scales", (put(f"{W1}.strategy", "tensor"), drop(f"{W1}.block_structure"))),
        Variant("mistral3 bf16", "strategy tensor on channel scales", (put(f"{W1}.strategy", "tensor"),)),
        Variant("mistral3 bf16", "weights' actorder on activations", (put(f"{A1}.actorder", "weight"),)),
        Variant("mistral3 mxfp8", "mxfp8 without scale_dtype", (drop(f"{W1}.scale_dtype"),)),
        Variant("mistral3 mxfp8", "mxfp8 without format", (drop(f"{G1}.format"),), "group-format-missing"),
        Variant("mistral3 mxfp8", "mxfp8 without format and scale_dtype",
                (drop(f"{G1}.format"), drop(f"{W1}.scale_dtype"))),
        Variant("mistral3 mxfp8", "mxfp8 as float-quantized", (put(f"{G1}.format", "float-quantized"),)),
    ]  # fmt: skip


def group_variants() -> list[Variant]:
    """Formats, targets and ignore: which module gets which scheme."""
    mistral = partial(Variant, "mistral3 fp8-tensor")
    both = [rf"re:.*language_model\.layers\.{layer}\.mlp\..*" for layer in (0, 1)]
    mlps = [f"model.language_model.layers.{layer}.mlp.{part}_proj" for layer in (0, 1)
            for part in ("gate", "up", "down")]  # fmt: skip
    old_mlps = [name.replace("model.language_model", "language_model.model") for name in mlps]
    return [
        *(mistral(f"MXFP4 group format {value!r}", (put(f"{G0}.format", value),))
          for value in ("nvfp4-pack-quantized", "mixed-precision", "foo", "dense", "pack-quantized", "marlin-24",
                        "mxfp8-quantized", "MXFP4-pack-quantized", 4)),
        mistral("MXFP4 group format null", (put(f"{G0}.format", None),), "group-format-missing"),
        mistral("MXFP4 group format absent", (drop(f"{G0}.format"),), "group-format-missing"),
        mistral("FP8 group format absent", (drop(f"{G1}.format"),), "group-format-missing"),
        *(mistral(f"FP8 group format {value!r}", (put(f"{G1}.format", value),), "format-wrong")
          for value in ("naive-quantized", "int-quantized")),
        *(mistral(f"FP8 group format {value!r}", (put(f"{G1}.format", value),))
          for value in ("mxfp8-quantized", "dense", "mxfp4-pack-quantized")),
        mistral("weights null", (put(f"{G0}.weights", None),)),
        mistral("input_activations null, input_scale there", (put(f"{G1}.input_activations", None),)),
        mistral("output_activations static", (put(f"{G1}.output_activations", {"num_bits": 8, "type": "float"}),)),
        mistral("targets absent", (drop(f"{G0}.targets"),)),
        mistral("targets []", (put(f"{G0}.targets", []),)),
        mistral("targets a string", (put(f"{G0}.targets", MLP_RE),)),
        mistral("targets with null", (put(f"{G0}.targets", [MLP_RE, None]),)),
        mistral("target unanchored", (put(f"{G0}.targets", [r"re:layers\.\d+\.mlp\.(gate|up|down)_proj$"]),)),
        mistral("target without re:", (put(f"{G0}.targets", [MLP_RE.removeprefix("re:")]),)),
        mistral("target no regular expression", (put(f"{G0}.targets", [MLP_RE, "re:(["]),)),
        mistral("one projection not matched", (put(f"{G0}.targets", [MLP_RE.replace("|up", "")]),)),
        mistral("targets of one layer", (put(f"{G0}.targets", both[:1]),)),
        mistral("targets by layer", (put(f"{G0}.targets", both),), "runtime-names-only"),
        mistral("a target that matches nothing", (put(f"{G0}.targets", [MLP_RE, "re:.*nothing$"]),),
                "runtime-names-only"),
        mistral("exact names", (put(f"{G0}.targets", mlps),), "checkpoint-names-only"),
        mistral("exact names of the old layout", (put(f"{G0}.targets", old_mlps),)),
        mistral("class name for the MXFP4 group", (put(f"{G0}.targets", ["Linear"]),)),
        mistral("class name for both groups", (put(f"{G0}.targets", ["Linear"]), put(f"{G1}.targets", ["Linear"]))),
        mistral("class name in lower case", (put(f"{G0}.targets", ["linear"]),)),
        mistral("class name, nothing ignored", (put(f"{G0}.targets", ["Linear"]), put(f"{Q}.ignore", ["lm_head"]))),
        mistral("base class Module", (put(f"{G0}.targets", ["Module"]),)),
        mistral("everything is MXFP4's target, first by text", (put(f"{G0}.targets", ["re:.*"]),)),
        mistral("everything is MXFP4's target, last by text", (put(f"{G0}.targets", ["re:[a-z].*"]),)),
        mistral("the same target in two groups", (put(f"{G1}.targets", [ATTENTION_RE, MLP_RE]),
                                                  put(f"{G0}.targets", [MLP_RE]))),
        mistral("an attention module as target", (put(f"{G1}.targets", [ATTENTION_RE, "re:.*self_attn$"]),)),
        mistral("groups in the other order", (partial(edit_config, swap_groups),)),
        mistral("ignore Linear", (put(f"{Q}.ignore", ["Linear"]),)),
        mistral("ignore an MXFP4 projection", (put(f"{Q}.ignore", ["lm_head", "re:.*up_proj$"]),)),
        mistral("ignore one module by name", (put(f"{Q}.ignore", ["lm_head", UP]),)),
        mistral("ignore by a prefix that is no pattern", (put(f"{Q}.ignore", ["model.vision_tower", LAYER]),)),
        mistral("ignore no regular expression", (put(f"{Q}.ignore", ["re:*"]),)),
        mistral("ignore unused", (put(f"{Q}.ignore", ["lm_head", "re:.*nothing.*"]),)),
        mistral("ignore []", (put(f"{Q}.ignore", []),)),
        mistral("lm_head targeted", (put(f"{G1}.targets", [ATTENTION_RE, "lm_head"]), put(f"{Q}.ignore", []))),
        mistral("embed_tokens targeted", (put(f"{G1}.targets", [ATTENTION_RE, "re:.*embed_tokens$"]),
                                          put(f"{Q}.ignore", []))),
        mistral("norms targeted", (put(f"{G1}.targets", [ATTENTION_RE, "re:.*norm$"]),)),
        mistral("vision tower targeted", (put(f"{G1}.targets", [r"re:.*\.(q|k|v|o)_proj$"]),
                                          put(f"{Q}.ignore", ["lm_head"]))),
        mistral("projector targeted", (put(f"{G0}.targets", [MLP_RE, "re:.*linear_1$"]), put(f"{Q}.ignore", []))),
        mistral("vision tower targeted and ignored", (put(f"{G1}.targets", [r"re:.*\.(q|k|v|o)_proj$"]),)),
    ]  # fmt: skip


def tensor_variants() -> list[Variant]:
    """The tensors against the scheme."""
    mistral, channel = partial(Variant, "mistral3 fp8-tensor"), partial(Variant, "mistral3 bf16")
    block, mx = partial(Variant, "mistral3 fp8-block"), partial(Variant, "mistral3 mxfp8")
    scale, packed_scale = "q_proj.weight_scale", "up_proj.weight_scale"
    square = torch.ones(256, 256).bfloat16()
    return [
        mistral("MXFP4 scale missing", (without(f"{UP}.weight_scale"),)),
        mistral("MXFP4 weight missing", (without(f"{UP}.weight_packed"),)),
        mistral("FP8 scale missing", (without(f"{Q_PROJ}.weight_scale"),)),
        mistral("FP8 weight missing", (without(f"{Q_PROJ}.weight"),)),
        mistral("input_scale missing", (without(f"{Q_PROJ}.input_scale"),)),
        mistral("all FP8 scales missing", (without("_proj.weight_scale"),)),
        mistral("a norm missing", (without("0.input_layernorm.weight"),)),
        mistral("lm_head missing", (without("lm_head.weight"),)),
        mistral("lm_head missing, tied", (without("lm_head.weight"), put("tie_word_embeddings", True))),
        mistral("lm_head there, tied", (put("tie_word_embeddings", True),)),
        mistral("FP8 scale []", (become(scale, lambda t: t.reshape(())),)),
        mistral("FP8 scale [1, 1]", (become(scale, lambda t: t.reshape(1, 1)),)),
        mistral("input_scale []", (become("q_proj.input_scale", lambda t: t.reshape(())),)),
        channel("channel scale [out]", (become(scale, lambda t: t.reshape(-1)),)),
        channel("channel scale [1, out]", (become(scale, lambda t: t.reshape(1, -1)),)),
        channel("channel scale [1]", (become(scale, lambda t: t.reshape(-1)[:1]),)),
        block("block scale transposed", (become("k_proj.weight_scale", lambda t: t.T),)),
        block("block scale a row short", (become(scale, lambda t: t[:-1]),)),
        mistral("MXFP4 scale transposed", (become(packed_scale, lambda t: t.T),)),
        mistral("MXFP4 scale of half the groups", (become(packed_scale, lambda t: t[:, ::2]),)),
        mistral("MXFP4 weight not packed", (become("up_proj.weight_packed", lambda t: torch.cat([t, t], 1)),)),
        *(mistral(f"FP8 scale as {dtype}", (become(scale, lambda t, dtype=dtype: t.to(dtype)),))
          for dtype in (torch.bfloat16, torch.float16, torch.float64)),
        mistral("FP8 scale as uint8", (become(scale, lambda t: t.float().add(1).to(torch.uint8)),)),
        mistral("input_scale as bfloat16", (become("input_scale", lambda t: t.bfloat16()),)),
        mistral("MXFP4 scale as F8_E8M0", (become(packed_scale, as_e8m0),)),
        mistral("MXFP4 scale as int8", (become(packed_scale, lambda t: t.view(torch.int8)),)),
        mistral("MXFP4 scale as bfloat16 values", (become(packed_scale, e8m0_values),)),
        mistral("MXFP4 weight as int8", (become("up_proj.weight_packed", lambda t: t.view(torch.int8)),)),
        mx("MXFP8 scale as F8_E8M0", (become(scale, as_e8m0),)),
        mistral("FP8 weight as uint8", (become("q_proj.weight", lambda t: t.view(torch.uint8)
                                               if t.dtype == torch.float8_e4m3fn else t),)),
        mistral("FP8 weight as F8_E5M2", (become("q_proj.weight", lambda t: t.view(torch.float8_e5m2)
                                                 if t.dtype == torch.float8_e4m3fn else t),)),
        mistral("a bias that the model has not", (add(f"{Q_PROJ}.bias", torch.zeros(256).bfloat16()),)),
        mistral("a zero point", (add(f"{UP}.weight_zero_point", torch.zeros(1)),)),
        mistral("a scale without its weight", (add(f"{LAYER}.mlp.side_proj.weight_scale", torch.ones(1)),),
                "scale-orphan"),
        mistral("an unknown plain tensor", (add("model.extra.weight", square),)),
        mistral("rotary_emb.inv_freq", (add(f"{LAYER}.self_attn.rotary_emb.inv_freq", torch.ones(32)),)),
        channel("input_scale beside dynamic activations", (add(f"{Q_PROJ}.input_scale", torch.ones(1)),)),
        mistral("k_scale", (add(f"{LAYER}.self_attn.k_scale", torch.ones(1)),)),
        mistral("a plain projection among MXFP4", (plain(UP, (512, 256)),)),
        mistral("a plain projection among FP8", (plain(Q_PROJ, (256, 256)),)),
        mistral("a plain projection, ignored", (plain(UP, (512, 256)), put(f"{Q}.ignore", ["lm_head", UP])),
                "checkpoint-names-only"),
        mistral("names of the old layout", (renamed("model.language_model", "language_model.model"),
                                            renamed("lm_head", "language_model.lm_head"),
                                            renamed("model.vision_tower", "vision_tower"),
                                            renamed("model.multi_modal_projector", "multi_modal_projector"))),
        mistral("MXFP4 scale NaN", (become(packed_scale, first_is(255)),)),
        mistral("FP8 scale NaN", (become(scale, filled(float("nan"))),)),
        mistral("FP8 scale infinite", (become(scale, filled(float("inf"))),)),
        mistral("FP8 scale zero", (become(scale, filled(0)),), "scale-zero"),
        mistral("FP8 scale negative", (become(scale, lambda t: -t),), "scale-negative"),
        mistral("input_scale NaN", (become("q_proj.input_scale", filled(float("nan"))),)),
        mistral("input_scale zero", (become("q_proj.input_scale", filled(0)),), "scale-zero"),
        mistral("one layer more", (put("text_config.num_hidden_layers", 3),)),
        mistral("one layer less", (put("text_config.num_hidden_layers", 1),), "architecture-layers"),
        mistral("another hidden size", (put("text_config.hidden_size", 128),)),
        mistral("another MLP width", (put("text_config.intermediate_size", 256),)),
        mistral("another number of heads", (put("text_config.num_attention_heads", 8),)),
        mistral("another number of key heads", (put("text_config.num_key_value_heads", 4),)),
        mistral("another vocabulary", (put("text_config.vocab_size", 512),)),
        mistral("dtype float32", (put("dtype", "float32"),)),
        mistral("dtype float16", (put("dtype", "float16"),)),
        mistral("dtype absent", (drop("dtype"),)),
        Variant("qwen3_moe fp8-tensor", "dtype float16, experts", (put("dtype", "float16"),)),
    ]  # fmt: skip


def expert_variants() -> list[Variant]:
    """Experts: one parameter in transformers, many modules in the checkpoint."""
    qwen = partial(Variant, "qwen3_moe fp8-tensor")
    experts = r"re:.*mlp\.experts\.\d+\.(gate|up|down)_proj$"
    moe = r"re:.*\.mlp\..*_proj$"
    return [
        qwen("experts, MXFP4 group without format", (drop(f"{G0}.format"),)),
        qwen("experts, group without format, top-level format", (drop(f"{G0}.format"),
                                                                 put(f"{Q}.format", "mxfp4-pack-quantized")),
             "format-wrong"),
        qwen("experts' targets do not say experts, first group", (put(f"{G0}.targets", [moe]),), "runtime-names-only"),
        qwen("experts' targets do not say experts, second group", (put(f"{G0}.targets", [moe]),
                                                                   partial(edit_config, swap_groups))),
        qwen("experts' target another text", (put(f"{G0}.targets", [experts]),), "runtime-names-only"),
        qwen("experts in the second group", (partial(edit_config, swap_groups),)),
        qwen("experts ignored", (put(f"{Q}.ignore", ["lm_head", r"re:.*\.experts\..*"]),), "module-ignored"),
        qwen("experts not matched", (put(f"{G0}.targets", [r"re:.*mlp\.experts\.9\..*"]),), "module-unmatched"),
        qwen("an expert's scale missing", (without(f"{EXPERT}.weight_scale"),)),
        qwen("an expert's weight missing", (without(f"{EXPERT}.weight_packed"),)),
        qwen("all experts' scales of a projection missing", (without("up_proj.weight_scale"),)),
        qwen("an expert missing", (tensors(lambda held: [held.pop(n) for n in list(held) if ".experts.3." in n]),)),
        qwen("an expert plain", (plain(EXPERT, (512, 256)),)),
        qwen("an expert's scale of another shape", (become(f"{EXPERT}.weight_scale", lambda t: t[:, :-1]),)),
        qwen("an expert's scale as F8_E8M0", (become("up_proj.weight_scale", as_e8m0),)),
        qwen("an expert's NaN scale", (become(f"{EXPERT}.weight_scale", first_is(255)),)),
        qwen("quantization_status absent, experts", (drop(f"{Q}.quantization_status"),)),
        qwen("num_experts larger", (put("num_experts", 5),)),
        qwen("the router targeted", (put(f"{Q}.ignore", ["lm_head"]),
                                     put(f"{G1}.targets", [r"re:.*self_attn\.(q|k|v|o)_proj$", r"re:.*\.mlp\.gate$"])),
             "plain-targeted"),
        qwen("lm_head missing", (without("lm_head.weight"),)),
    ]  # fmt: skip


def file_variants() -> list[Variant]:
    """Shards and their index."""
    sharded = partial(Variant, "mistral3 shards")
    norm = "model.language_model.norm.weight"
    return [
        sharded("a shard missing", (lambda folder: shards(folder)[-1].unlink(),)),
        sharded("a shard cut off", (truncated,)),
        sharded("no index", (lambda folder: (folder / INDEX).unlink(),)),
        sharded("index no JSON", (broken_index,)),
        sharded("index without metadata", (index(lambda held: held.pop("metadata")),)),
        sharded("index without weight_map", (index(lambda held: held.pop("weight_map")),)),
        sharded("total_size wrong", (index(lambda held: held["metadata"].update(total_size=7)),)),
        sharded("total_size absent", (index(lambda held: held["metadata"].clear()),)),
        sharded("an entry names another shard", (index(moved_entry),), "index-wrong-shard"),
        sharded("no entry names one of the shards", (index(emptied_shard),)),
        sharded("an entry without tensor", (index(lambda held: held["weight_map"].update(ghost="ghost.safetensors")),)),
        sharded("an entry without tensor in a shard that is there", (dangling_entry,), "index-dangling"),
        sharded("a tensor not in the index", (index(lambda held: held["weight_map"].pop(norm)),), "tensor-unindexed"),
        sharded("a shard not in the index", (leftover_shard,)),
        sharded("the same tensor twice", (duplicated(lambda tensor: tensor),), "tensor-duplicate"),
        sharded("the same name, other values", (duplicated(lambda tensor: tensor.flip(0)),)),
        sharded("model.safetensors beside an index", (shadowed,)),
        sharded("consolidated.safetensors beside it", (consolidated_beside,)),
        Variant("llama fp8-tensor", "the file has another name", (renamed_file("weights.safetensors"),)),
        Variant("llama fp8-tensor", "only consolidated.safetensors", (renamed_file("consolidated.safetensors"),)),
        Variant("llama fp8-tensor", "one file and an index beside it", (write_needless_index,)),
        Variant("llama fp8-tensor", "llama, one layer more", (put("num_hidden_layers", 3),)),
        Variant("llama fp8-tensor", "llama, status absent", (drop(f"{Q}.quantization_status"),)),
    ]  # fmt: skip


def write_needless_index(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    size = sum(tensor.numel() * tensor.element_size() for tensor in names.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size},
                                "weight_map": dict.fromkeys(sorted(names), "model.safetensors")})  # fmt: skip


def make_base(work: Path, name: str) -> None:
    """Makes and quantizes a small checkpoint, and gives its configuration what transformers asks for."""
    base, source, out = BASES[name], work / "source", work / name
    make_checkpoint(source if base.is_quantized else out, base.spec)
    if base.is_quantized:
        recipe = json.loads((REPO / "configs" / f"{RECIPES[base.spec.arch]}.json").read_text())
        for rule in recipe["rules"]:
            rule["format"] = next((to for part, to in base.formats.items() if part in rule["match"]), rule["format"])
        write_json(work / "recipe.json", recipe)
        command = [QSTREAM, "quantize", source, out, "--recipe", work / "recipe.json", "--quiet", *base.options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if base.spec.arch == "mistral3":
        put("text_config.rope_parameters.llama_4_scaling_beta", 0.1)(out)
        put("text_config.rope_parameters.original_max_position_embeddings", 4096)(out)


def audit(folder: Path) -> tuple[bool, list[str]]:
    """Whether the audit is content, and the ids of its findings."""
    command = [QSTREAM, "audit", folder, "--json", "--loaders", "transformers"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == USAGE_ERROR:
        raise SystemExit(f"{QSTREAM} audit: {run.stderr}")
    if run.returncode > AUDIT_ERRORS:  # no checkpoint, or unreadable: as clear an answer
        return False, [f"exit status {run.returncode}"]
    findings = [finding["id"] for finding in json.loads(run.stdout)["findings"]]
    return run.returncode == 0, list(dict.fromkeys(findings))


def difference(variant: Variant, verdict: Verdict, clean: bool, findings: list[str]) -> str | None:
    """Why the audit's answer is no prediction of transformers'."""
    if variant.stricter and verdict.as_meant:
        if not clean and variant.stricter not in findings:
            return f"expected {variant.stricter}"
    elif verdict.as_meant != clean:
        return "audit is content" if clean else "audit refuses what loads as meant"
    if any(not HARMLESS_TENSOR.search(name) for name in verdict.unexpected) and not findings:
        return "audit does not mention tensors that transformers leaves out"
    return None


def summary(verdict: Verdict) -> str:
    """What transformers did, in one line."""
    told = [] if verdict.error is None else [verdict.error]
    for kind in ("missing", "unexpected", "mismatched", "wrong_values"):
        names = getattr(verdict, kind)
        if names:
            told.append(f"{kind.replace('_', ' ')} {len(names)}: {names[0]}")
    if verdict.loads and not verdict.forward_ok and verdict.error is None:
        told.append("not finite")
    return "; ".join(told)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="variants whose name contains this text")
    parser.add_argument("--oracle-only", action="store_true", help="show what transformers does, audit nothing")
    parser.add_argument("--work", type=Path, default=REPO / "build" / "transformers_check")
    arguments = parser.parse_args()
    variants = [Variant(base, "as made") for base in BASES]
    variants += config_variants() + argument_variants() + group_variants() + tensor_variants()
    variants += expert_variants() + file_variants()
    variants = [variant for variant in variants if arguments.only in f"{variant.base}: {variant.name}"]
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    differing = 0
    for variant in variants:
        base, folder = arguments.work / variant.base, arguments.work / "variant"
        if not base.exists():
            make_base(arguments.work, variant.base)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        for change in variant.changes:
            change(folder)
        verdict = judge(folder)
        said, why = "", None
        if not arguments.oracle_only:
            clean, findings = audit(folder)
            why = difference(variant, verdict, clean, findings)
            said = f" | {'clean' if clean else 'errors'} {' '.join(findings)}"
        differing += why is not None
        mark = "DIFFERS" if why else "ok"
        meant = "as meant" if verdict.as_meant else "NOT"
        print(f"{mark} | {variant.base}: {variant.name} | {meant} {summary(verdict)}{said}{f' | {why}' if why else ''}",
              flush=True)  # fmt: skip
    shutil.rmtree(arguments.work)
    print(f"{len(variants)} checkpoints, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
