#!/usr/bin/env python3
"""Makes synthetic checkpoints of any size, in every layout that qstream accepts.

Weights are slices of one pool of random numbers, each taken at another phase: as fast as the disk, little memory, no
two rows of a tensor alike. Run it with build/venv/bin/python (venv.sh), or import Spec and make_checkpoint. One layer
of the reference model has

    --hidden 12288 --mlp 28672 --layers 1 --heads 96 --kv-heads 8 --head-dim 128
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from number_formats import bf16_encode, fp8_encode
from safetensors_files import DTYPE_BYTES, Entry, NewFolder, entry_of, write_json, write_shards

MAX_CHUNK_VALUES = 1 << 21
RUN = 64  # neighbouring values of one size
RUN_SPREAD = 0.4
WEIGHT_SIGMA = 0.02  # as in a trained model
FP8_SIGMA = 60.0  # of the stored FP8 values: the largest of some millions come to 448
FP8_SIGMA_OUTLIERS = 4.0  # leaves room for outliers that are a hundred times larger
BLOCK = 128  # rows and columns of a block of FP8 weights with one scale
GROUP = 32  # columns of an MX block
VISION_HIDDEN, VISION_MLP = 64, 128


@dataclass(frozen=True)
class Spec:
    """What to make; each field is also a command-line option."""

    layout: Literal["bf16", "fp8-tensor", "fp8-block", "mxfp8", "ct-channel", "ct-tensor"] = "fp8-tensor"
    arch: Literal["mistral3", "llama", "qwen3_moe"] = "mistral3"
    fused: Literal["none", "qwen3_5", "qwen3_vl"] = "none"  # experts of a layer in one tensor, and its orientation
    dtype: Literal["bf16", "f16", "f32"] = "bf16"  # of everything in layout bf16
    hidden: int = 256
    mlp: int = 512
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 1024
    experts: int = 4
    scale_dtype: Literal["F32", "BF16"] = "F32"
    scale_shape: Literal["scalar", "one"] = "scalar"  # of fp8-tensor
    shards: int = 1
    split_scales: bool = False  # scales lie in another shard than their weights
    outliers: bool = False
    zeros: bool = False  # blocks of zeros, negative zeros and subnormals
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fused != "none" and (self.layout != "bf16" or self.arch != "qwen3_moe"):
            raise ValueError("fused experts need --arch qwen3_moe and --layout bf16")
        if self.dtype != "bf16" and self.layout != "bf16":
            raise ValueError("--dtype is for --layout bf16 only")
        if self.layout == "mxfp8" and any(width % GROUP for width in (self.hidden, self.mlp, self.query_width)):
            raise ValueError(f"mxfp8 needs widths that are multiples of {GROUP}")
        if self.split_scales and self.shards < 2:
            raise ValueError("--split-scales needs --shards 2 or more")

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def is_multimodal(self) -> bool:
        """Whether the language model lies inside a larger model."""
        return self.arch == "mistral3" or self.fused != "none"

    @property
    def language_model(self) -> str:
        return "model.language_model" if self.is_multimodal else "model"


class Weights:
    """The pool, and its slices as the bytes of weights. Arrays hold the dtypes' codes."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.random = np.random.default_rng(spec.seed)
        largest = max(2 * spec.mlp, spec.vocab, spec.query_width, spec.hidden) * spec.hidden
        self.chunk_values = min(largest, MAX_CHUNK_VALUES)
        runs = ceil(2 * self.chunk_values / RUN)
        sizes = np.exp(RUN_SPREAD * self.random.standard_normal((runs, 1), np.float32))
        self.pool = (self.random.standard_normal((runs, RUN), np.float32) * sizes).reshape(-1)
        self.encoded: dict[str, np.ndarray] = {}
        self.slices = 0

    @property
    def fp8_sigma(self) -> float:
        return FP8_SIGMA_OUTLIERS if self.spec.outliers else FP8_SIGMA

    @property
    def scale(self) -> float:
        """About what an FP8 value is multiplied with."""
        return WEIGHT_SIGMA / self.fp8_sigma

    def codes(self, dtype: str, values: np.ndarray) -> np.ndarray:
        """Weights, in units of their sigma, in a dtype."""
        if dtype == "F8_E4M3":
            return fp8_encode(values * np.float32(self.fp8_sigma))
        values = values * np.float32(WEIGHT_SIGMA)
        if dtype == "BF16":
            return bf16_encode(values)
        return values.astype(np.float16).view(np.uint16) if dtype == "F16" else values.view(np.uint32)

    def chunks(self, dtype: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """A weight in runs of whole rows. Run k begins k values past a multiple of the row's length, so that no two
        runs cut the pool into the same rows."""
        if dtype not in self.encoded:
            self.encoded[dtype] = self.codes(dtype, self.pool)
        pool, columns, rows_left = self.encoded[dtype], shape[-1], prod(shape[:-1])
        while rows_left:
            rows = min(rows_left, max(1, self.chunk_values // columns))
            places = (len(pool) - rows * columns) // columns
            start = int(self.random.integers(places)) * columns + self.slices % columns
            self.slices += 1
            chunk = pool[start : start + rows * columns]
            yield self.with_rarities(chunk, dtype) if self.spec.outliers or self.spec.zeros else chunk
            rows_left -= rows

    def with_rarities(self, chunk: np.ndarray, dtype: str) -> np.ndarray:
        """A copy of which about every hundredth block is a rare one."""
        chunk = chunk.copy()
        blocks = chunk[: chunk.size // GROUP * GROUP].reshape(-1, GROUP)
        count = len(blocks) // 100 + 1
        some = partial(self.random.integers, len(blocks), size=count)
        bits = 8 * DTYPE_BYTES[dtype]
        sign = np.array(1 << (bits - 1), chunk.dtype)
        if self.spec.outliers:
            blocks[some(), self.random.integers(GROUP, size=count)] = self.codes(dtype, np.array([100.0], np.float32))
        if self.spec.zeros:
            subnormal = 7 << (16 if dtype == "F32" else 0)  # as BF16 an F32 keeps its upper half only
            blocks[some()] &= sign | chunk.dtype.type(subnormal)
            blocks[some(), : GROUP // 2] &= sign
            blocks[some()] &= sign
            blocks[some()] = 0
        return chunk

    def plain(self, name: str, shape: tuple[int, ...]) -> Entry:
        """A tensor that is not quantized; vectors (norms) are around 1."""
        dtype = self.spec.dtype.upper()
        if len(shape) == 1:
            sigma_units = (1 + 0.1 * self.random.standard_normal(shape, np.float32)) / np.float32(WEIGHT_SIGMA)
            return entry_of(name, dtype, self.codes(dtype, sigma_units))
        return Entry(name, dtype, shape, partial(self.chunks, dtype, shape))

    def projection(self, module: str, rows: int, columns: int) -> Iterator[Entry]:
        """A projection of the language model as the layout stores it: scales first, the weight last."""
        layout = self.spec.layout
        if layout == "bf16":
            yield self.plain(f"{module}.weight", (rows, columns))
            return
        if layout == "fp8-tensor":
            shape = (1,) if self.spec.scale_shape == "one" else ()
            yield self.scales(f"{module}.weight_scale_inv", shape, self.scale)
            yield self.scales(f"{module}.activation_scale", shape, 0.02)
        elif layout == "fp8-block":
            yield self.scales(f"{module}.weight_scale_inv", (ceil(rows / BLOCK), ceil(columns / BLOCK)), self.scale)
        elif layout == "mxfp8":
            exponents = np.log2(self.scale) + self.random.integers(-1, 2, size=(rows, columns // GROUP))
            yield entry_of(f"{module}.weight_scale_inv", "U8", (127 + exponents).astype(np.uint8))
        elif layout == "ct-channel":
            yield self.scales(f"{module}.weight_scale", (rows, 1), self.scale)
        else:
            yield self.scales(f"{module}.weight_scale", (1,), self.scale)
            yield self.scales(f"{module}.input_scale", (1,), 0.02)
        yield Entry(f"{module}.weight", "F8_E4M3", (rows, columns), partial(self.chunks, "F8_E4M3", (rows, columns)))

    def scales(self, name: str, shape: tuple[int, ...], around: float) -> Entry:
        values = np.asarray(around * np.exp(0.3 * self.random.standard_normal(shape)), np.float32)
        if self.spec.scale_dtype == "BF16":
            return entry_of(name, "BF16", bf16_encode(np.atleast_1d(values)).reshape(shape))
        return entry_of(name, "F32", values)


def layer_entries(spec: Spec, weights: Weights, layer: str) -> Iterator[Entry]:
    hidden, key_width = spec.hidden, spec.kv_heads * spec.head_dim
    yield weights.plain(f"{layer}.input_layernorm.weight", (hidden,))
    yield from weights.projection(f"{layer}.self_attn.q_proj", spec.query_width, hidden)
    yield from weights.projection(f"{layer}.self_attn.k_proj", key_width, hidden)
    yield from weights.projection(f"{layer}.self_attn.v_proj", key_width, hidden)
    yield from weights.projection(f"{layer}.self_attn.o_proj", hidden, spec.query_width)
    if spec.arch == "qwen3_moe":
        yield weights.plain(f"{layer}.self_attn.q_norm.weight", (spec.head_dim,))
        yield weights.plain(f"{layer}.self_attn.k_norm.weight", (spec.head_dim,))
    yield weights.plain(f"{layer}.post_attention_layernorm.weight", (hidden,))
    if spec.arch != "qwen3_moe":
        yield from mlp_entries(spec, weights, f"{layer}.mlp")
        return
    yield weights.plain(f"{layer}.mlp.gate.weight", (spec.experts, hidden))
    experts = f"{layer}.mlp.experts"
    if spec.fused == "none":
        for number in range(spec.experts):
            yield from mlp_entries(spec, weights, f"{experts}.{number}")
        return
    gate_up, down = (2 * spec.mlp, hidden), (hidden, spec.mlp)
    if spec.fused == "qwen3_vl":
        gate_up, down = gate_up[::-1], down[::-1]
    yield weights.plain(f"{experts}.gate_up_proj", (spec.experts, *gate_up))
    yield weights.plain(f"{experts}.down_proj", (spec.experts, *down))


def mlp_entries(spec: Spec, weights: Weights, mlp: str) -> Iterator[Entry]:
    yield from weights.projection(f"{mlp}.gate_proj", spec.mlp, spec.hidden)
    yield from weights.projection(f"{mlp}.up_proj", spec.mlp, spec.hidden)
    yield from weights.projection(f"{mlp}.down_proj", spec.hidden, spec.mlp)


def vision_entries(spec: Spec, weights: Weights) -> Iterator[Entry]:
    hidden = VISION_HIDDEN
    layer = "model.vision_tower.transformer.layers.0"
    yield weights.plain("model.vision_tower.patch_conv.weight", (hidden, 3, 14, 14))
    yield weights.plain("model.vision_tower.ln_pre.weight", (hidden,))
    yield weights.plain(f"{layer}.attention_norm.weight", (hidden,))
    for part in "qkvo":
        yield weights.plain(f"{layer}.attention.{part}_proj.weight", (hidden, hidden))
    yield weights.plain(f"{layer}.ffn_norm.weight", (hidden,))
    yield weights.plain(f"{layer}.feed_forward.gate_proj.weight", (VISION_MLP, hidden))
    yield weights.plain(f"{layer}.feed_forward.up_proj.weight", (VISION_MLP, hidden))
    yield weights.plain(f"{layer}.feed_forward.down_proj.weight", (hidden, VISION_MLP))
    yield weights.plain("model.multi_modal_projector.norm.weight", (hidden,))
    yield weights.plain("model.multi_modal_projector.patch_merger.merging_layer.weight", (hidden, 4 * hidden))
    yield weights.plain("model.multi_modal_projector.linear_1.weight", (spec.hidden, hidden))
    yield weights.plain("model.multi_modal_projector.linear_2.weight", (spec.hidden, spec.hidden))


def model_entries(spec: Spec, weights: Weights) -> Iterator[Entry]:
    yield weights.plain(f"{spec.language_model}.embed_tokens.weight", (spec.vocab, spec.hidden))
    for number in range(spec.layers):
        yield from layer_entries(spec, weights, f"{spec.language_model}.layers.{number}")
    yield weights.plain(f"{spec.language_model}.norm.weight", (spec.hidden,))
    yield weights.plain("lm_head.weight", (spec.vocab, spec.hidden))
    if spec.arch == "mistral3":
        yield from vision_entries(spec, weights)


def cut_shards(spec: Spec, entries: list[Entry]) -> list[list[Entry]]:
    """Shards of about equal size, in the model's order."""
    total = sum(entry.nbytes for entry in entries)
    shards: list[list[Entry]] = [[] for _ in range(spec.shards)]
    position = 0
    for entry in entries:
        shard = min(position * spec.shards // total, spec.shards - 1)
        is_scale = "scale" in entry.name.rpartition(".")[2]
        shards[(shard + (spec.split_scales and is_scale)) % spec.shards].append(entry)
        position += entry.nbytes
    if not all(shards):
        raise ValueError(f"{len(entries)} tensors do not fill {spec.shards} shards: ask for fewer")
    return shards


def quantization_config(spec: Spec) -> dict[str, Any] | None:
    """How published checkpoints announce each layout."""
    kept = ["lm_head"]
    if spec.arch == "mistral3":
        kept += ["model.vision_tower", "model.multi_modal_projector"]
    if spec.arch == "qwen3_moe":
        kept += [f"{spec.language_model}.layers.{number}.mlp.gate" for number in range(spec.layers)]
    if spec.layout == "bf16":
        return None
    if spec.layout == "fp8-tensor":
        return {"activation_scheme": "static", "dequantize": False, "modules_to_not_convert": kept,
                "quant_method": "fp8", "weight_block_size": None}  # fmt: skip
    if spec.layout == "fp8-block":
        return {"activation_scheme": "dynamic", "fmt": "e4m3", "modules_to_not_convert": kept, "quant_method": "fp8",
                "weight_block_size": [BLOCK, BLOCK]}  # fmt: skip
    if spec.layout == "mxfp8":
        return {"activation_scheme": "dynamic", "fmt": "e4m3", "ignored_layers": kept, "quant_method": "mxfp8",
                "scale_fmt": "ue8m0", "weight_block_size": [1, GROUP]}  # fmt: skip
    is_tensor = spec.layout == "ct-tensor"
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "group_size": None, "block_structure": None,
           "actorder": None, "observer": None}  # fmt: skip
    group = {
        "targets": ["Linear"],
        "weights": {**fp8, "strategy": "tensor" if is_tensor else "channel", "dynamic": False},
        "input_activations": {**fp8, "strategy": "tensor" if is_tensor else "token", "dynamic": not is_tensor},
        "output_activations": None,
        "format": "float-quantized",
    }
    regexes = ["re:.*vision_tower.*", "re:.*multi_modal_projector.*"] if spec.arch == "mistral3" else []
    regexes += ["re:.*mlp\\.gate$"] if spec.arch == "qwen3_moe" else []
    return {"config_groups": {"group_0": group}, "format": "float-quantized", "global_compression_ratio": None,
            "ignore": ["lm_head", *regexes], "kv_cache_scheme": None, "quant_method": "compressed-tensors",
            "quantization_status": "compressed"}  # fmt: skip


def text_config(spec: Spec) -> dict[str, Any]:
    text: dict[str, Any] = {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.mlp,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": False,
    }
    if spec.arch == "qwen3_moe":
        text |= {"num_experts": spec.experts, "num_experts_per_tok": min(2, spec.experts), "norm_topk_prob": True,
                 "moe_intermediate_size": spec.mlp, "decoder_sparse_step": 1, "mlp_only_layers": []}  # fmt: skip
    return text


def config(spec: Spec) -> dict[str, Any]:
    """config.json, with quantization_config neither first nor last."""
    architecture, model_type, text_type = {
        ("mistral3", "none"): ("Mistral3ForConditionalGeneration", "mistral3", "ministral3"),
        ("llama", "none"): ("LlamaForCausalLM", "llama", "llama"),
        ("qwen3_moe", "none"): ("Qwen3MoeForCausalLM", "qwen3_moe", "qwen3_moe"),
        ("qwen3_moe", "qwen3_5"): ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", "qwen3_5_moe_text"),
        ("qwen3_moe", "qwen3_vl"): ("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe", "qwen3_vl_moe_text"),
    }[spec.arch, spec.fused]
    made: dict[str, Any] = {"architectures": [architecture], "model_type": model_type}
    made["dtype"] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[spec.dtype]
    if quantization := quantization_config(spec):
        made["quantization_config"] = quantization
    if not spec.is_multimodal:
        return made | text_config(spec)
    made["text_config"] = {"model_type": text_type, **text_config(spec)}
    if spec.arch == "mistral3":
        made["vision_config"] = {"model_type": "pixtral", "hidden_size": VISION_HIDDEN, "intermediate_size": VISION_MLP,
                                 "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": VISION_HIDDEN // 2,
                                 "num_channels": 3, "image_size": 56, "patch_size": 14, "hidden_act": "gelu",
                                 "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0}}  # fmt: skip
        made |= {"image_token_index": 10, "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
                 "spatial_merge_size": 2, "vision_feature_layer": -1}  # fmt: skip
    return made | {"tie_word_embeddings": False}


def make_checkpoint(out: Path, spec: Spec) -> None:
    """Makes the checkpoint, or replaces the one that is there."""
    with NewFolder(out) as folder:
        write_shards(folder, cut_shards(spec, list(model_entries(spec, Weights(spec)))))
        write_json(folder / "config.json", config(spec))
        write_json(folder / "generation_config.json", {"do_sample": False})


def parse_spec(parser: argparse.ArgumentParser) -> tuple[Path, Spec]:
    parser.add_argument("--out", type=Path, required=True)
    for field in fields(Spec):
        option = "--" + field.name.replace("_", "-")
        keywords: dict[str, Any] = {"default": field.default, "help": f"default {field.default}"}
        if field.type is bool:
            parser.add_argument(option, action="store_true")
        elif get_origin(field.type) is Literal:
            parser.add_argument(option, choices=get_args(field.type), **keywords)
        else:
            parser.add_argument(option, type=int, **keywords)
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    try:
        return out, Spec(**arguments)
    except ValueError as error:
        parser.error(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    make_checkpoint(*parse_spec(parser))


if __name__ == "__main__":
    main()
