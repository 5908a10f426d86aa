"""Small repositories for tests of the Hub: checkpoints as they are published, and files with awkward names."""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))

from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from safetensors_files import Entry, Tensor, checkpoint_tensors, write_shard  # noqa: E402

AWKWARD = (
    "with space.txt",
    "é und ü.txt",
    "sub/日本 #1 50%.txt",
    "a+b&c=d@e;f,g.txt",
    "deep/er/still/[x](y)'z'.txt",
    "empty.txt",
)


def random_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def write_files(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def mistral_fp8(folder: Path, shards: int = 3, **spec: Any) -> Path:
    """An FP8 checkpoint as Mistral publishes them: scales in other shards than their weights, all of it once more in
    consolidated.safetensors under Mistral's own names, a tokenizer, and a folder with what no loader reads."""
    make_checkpoint(folder, Spec(layout="fp8-tensor", shards=shards, split_scales=True, **spec))
    write_shard(
        folder / "consolidated.safetensors", [consolidated(tensor) for tensor in checkpoint_tensors(folder).values()]
    )
    width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    return write_files(folder, {
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\ntekken.json filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": "---\nlicense: other\n---\n# A test's checkpoint\n",
        "SYSTEM_PROMPT.txt": "You are a test.\n",
        "chat_template.jinja": "{{ messages }}\n",
        "params.json": json.dumps({"dim": width}),
        "tekken.json": json.dumps({"config": {"pattern": "x", "default_vocab_size": 1024}, "vocab": []}) + " " * 50_000,
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}),
        "tokenizer_config.json": "{}\n",
        "images/chart of scores.png": b"\x89PNG\r\n\x1a\n" + random_bytes(2000),
        "images/more/two.png": b"\x89PNG\r\n\x1a\n" + random_bytes(1000),
    })  # fmt: skip


def llama_bf16(folder: Path, shards: int = 2, **spec: Any) -> Path:
    """A BF16 checkpoint of a text model."""
    make_checkpoint(folder, Spec(layout="bf16", arch="llama", shards=shards, **spec))
    return write_files(folder, {"README.md": "# A test's checkpoint\n", "tokenizer_config.json": "{}\n",
                                "tokenizer.json": '{"version": "1.0"}\n'})  # fmt: skip


def consolidated(tensor: Tensor) -> Entry:
    name = tensor.name
    for pattern, replacement in (
        (r"^model\.language_model\.(layers|norm)", r"\1"), (r"^model\.language_model\.embed_tokens", "tok_embeddings"),
        (r"^lm_head", "output"), (r"self_attn\.([qkvo])_proj", r"attention.w\1"), (r"mlp\.gate_proj", "feed_forward.w1"),
        (r"mlp\.up_proj", "feed_forward.w3"), (r"mlp\.down_proj", "feed_forward.w2"),
        (r"weight_scale_inv$", "qscale_weight"), (r"activation_scale$", "qscale_act"),
    ):  # fmt: skip
        name = re.sub(pattern, replacement, name)
    return Entry(name, tensor.dtype, tensor.shape, lambda: [tensor.array()])
