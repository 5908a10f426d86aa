"""Reports of made-up checkpoints, for inspect/page.html.

For what no small checkpoint shows: models of true size, fifty thousand tensors, names made to do harm, statistics that
are missing or not finite.
"""

import math
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from page_source import page_with

GROUP = 32
E8M0_BIAS = 127
DTYPE_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}
ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "k", "o_proj": "q"}
MARKUP_NAME = "</script><script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'>"
RTL_NAME = "model.layers.0.\u202egnp.thgiew\u202c\u0007\x1b[31m.weight"


def histogram_around(rng: random.Random, middle: float, total: int) -> list[list[int]]:
    codes = range(round(middle) - 6, round(middle) + 5)
    parts = [math.exp(-((code - middle) ** 2) / 2) * rng.uniform(0.9, 1.1) for code in codes]
    counts = [int(total * part / sum(parts)) for part in parts]
    return [[code, count] for code, count in zip(codes, counts, strict=True) if count]


def mxfp4_stats(rng: random.Random, middle: float, weights: int) -> dict[str, Any]:
    scales = histogram_around(rng, E8M0_BIAS + middle, weights // GROUP)
    parts = [(0.11, 0.19, 0.17, 0.15, 0.18, 0.1, 0.07, 0.03)[code & 7] / 2 for code in range(16)]
    codes = [int(weights * part * rng.uniform(0.98, 1.02)) for part in parts]
    total = sum(codes)
    return {
        "kind": "mxfp4",
        "scale_codes": {"min": scales[0][0], "max": scales[-1][0], "nan": 0, "histogram": scales},
        "codes": {"histogram": codes, "zero_share": (codes[0] + codes[8]) / total,
                  "saturated_share": (codes[7] + codes[15]) / total,
                  "entropy_bits": -sum(code / total * math.log2(code / total) for code in codes)},
    }  # fmt: skip


class Checkpoint:
    """Tensors in the order of their shards, and what the program tells about them."""

    def __init__(self, name: str, shards: int, stats: bool = True) -> None:
        self.name, self.stats, self.shards = name, stats, shards
        self.tensors: list[dict[str, Any]] = []
        self.rng = random.Random(7)

    def add(
        self,
        name: str,
        dtype: str,
        shape: Iterable[int],
        role: str,
        form: str,
        layer: int | None = None,
        stats: dict[str, Any] | None = None,
        companions: Iterable[str] = (),
        companion_of: str | None = None,
    ) -> None:
        shape = list(shape)
        module, _, part = name.rpartition(".")
        tensor = {
            "name": name,
            "dtype": dtype,
            "shape": shape,
            "bytes": math.prod(shape) * DTYPE_BYTES[dtype],
            "role": role,
            "format": form,
            "layer": layer,
            "module": module or None,
            "part": part,
        }
        tensor |= {"companion_of": companion_of} if companion_of else {"companions": list(companions)}
        self.tensors.append(tensor | ({"stats": stats} if stats and self.stats else {}))

    def plain(self, name: str, shape: Iterable[int], role: str, layer: int | None = None) -> None:
        stats = {"kind": "float", "min": -0.25, "max": 0.31, "nan": 0, "inf": 0, "zero_share": 0.0001}
        self.add(name, "BF16", shape, role, "plain", layer, stats)

    def mxfp4(self, module: str, rows: int, columns: int, role: str, layer: int, middle: float) -> None:
        packed, scale = f"{module}.weight_packed", f"{module}.weight_scale"
        stats = mxfp4_stats(self.rng, middle, rows * columns) if self.stats else None
        self.add(packed, "U8", (rows, columns // 2), role, "mxfp4", layer, stats, [scale])
        own = {"kind": "e8m0", "scale_codes": stats["scale_codes"]} if stats else None
        self.add(scale, "U8", (rows, columns // GROUP), role, "mxfp4", layer, own, companion_of=packed)

    def fp8(self, module: str, rows: int, columns: int, layer: int, scale: float | None) -> None:
        weight = f"{module}.weight"
        stats = {
            "kind": "fp8",
            "weight_scale": {"count": 1, "min": scale, "max": scale, "nan": int(scale is None)},
            "input_scale": 0.0213,
            "amax": 448,
            "saturated_share": 1.2e-7,
            "zero_share": 0.0031,
            "nan": 0,
        }
        parts = [f"{module}.weight_scale", f"{module}.input_scale"]
        self.add(weight, "F8_E4M3", (rows, columns), "attention", "fp8-tensor", layer, stats, parts)
        for part in parts:
            self.add(part, "F32", (1,), "attention", "fp8-tensor", layer, companion_of=weight)

    def attention(self, prefix: str, layer: int, hidden: int, narrow: int) -> None:
        for leaf, kind in ATTENTION.items():
            rows, columns = (hidden if kind == "q" else narrow), hidden
            scale = 2e-4 * math.exp(self.rng.gauss(0, 0.4) + layer / 60)
            self.fp8(f"{prefix}.self_attn.{leaf}", rows, columns, layer, scale)

    def inspect(self) -> dict[str, Any]:
        total = sum(tensor["bytes"] for tensor in self.tensors)
        files: dict[str, dict[str, Any]] = {}
        position = 0
        for tensor in self.tensors:
            number = 1 + min(self.shards - 1, position * self.shards // max(1, total))
            shard = f"model-{number:05d}-of-{self.shards:05d}.safetensors"
            entry = files.setdefault(
                shard, {"name": shard, "kind": "shard", "bytes": 4096, "tensors": 0, "header_bytes": 4088}
            )
            tensor["shard"], tensor["offset"] = shard, entry["bytes"]
            entry["bytes"] += tensor["bytes"]
            entry["tensors"] += 1
            position += tensor["bytes"]
        others = [
            {"name": "model.safetensors.index.json", "kind": "index", "bytes": 63423, "tensors": 0, "header_bytes": 0},
            {"name": "config.json", "kind": "config", "bytes": 2986, "tensors": 0, "header_bytes": 0},
        ]
        parameters = sum(parameters_of(tensor) for tensor in self.tensors)
        return {
            "schema": "qstream.inspect/1",
            "model": f"/models/{self.name}",
            "stats": self.stats,
            "architecture": "Mistral3ForConditionalGeneration",
            "model_type": "mistral3",
            "quant_method": "compressed-tensors",
            "quant_format": "mixed-precision",
            "totals": {
                "tensors": len(self.tensors),
                "shards": self.shards,
                "tensor_bytes": total,
                "folder_bytes": total + 70505,
                "parameters": parameters,
                "bits_per_weight": 8 * total / parameters if parameters else None,
            },
            "files": list(files.values()) + others,
            "by": {key: grouped(self.tensors, key) for key in ("role", "layer", "format", "shard")},
            "tensors": self.tensors,
        }


def parameters_of(tensor: dict[str, Any]) -> int:
    if tensor.get("companion_of"):
        return 0
    return math.prod(tensor["shape"]) * (2 if tensor["part"] == "weight_packed" else 1)


def group_name(tensor: dict[str, Any], key: str) -> str:
    """Layers are named by what comes up to the first number."""
    if key != "layer":
        return tensor[key]
    layer = re.match(r"(.*?\.)??\d+(?=\.|$)", tensor["name"], re.DOTALL)
    return layer[0] if layer else "(no layer)"


def grouped(tensors: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        name = group_name(tensor, key)
        group = groups.setdefault(name, {"name": name, "tensors": 0, "parameters": 0, "bytes": 0})
        group["tensors"] += 1
        group["parameters"] += parameters_of(tensor)
        group["bytes"] += tensor["bytes"]
    for group in groups.values():
        group["bits_per_weight"] = 8 * group["bytes"] / group["parameters"] if group["parameters"] else None
    return list(groups.values())


def frame(made: Checkpoint, language_model: str, hidden: int, vocabulary: int) -> None:
    made.plain(f"{language_model}.embed_tokens.weight", (vocabulary, hidden), "embedding")
    made.plain(f"{language_model}.norm.weight", (hidden,), "norm")
    made.plain("lm_head.weight", (vocabulary, hidden), "head")


def dense(layers: int) -> Checkpoint:
    """The two-group layout of Mistral-Medium-3.5: MXFP4 for the MLP, FP8 for attention."""
    made = Checkpoint("Mistral-Medium-3.5-128B-MXFP4", shards=20)
    language_model, hidden, mlp = "model.language_model", 12288, 28672
    frame(made, language_model, hidden, 131072)
    for layer in range(layers):
        prefix = f"{language_model}.layers.{layer}"
        made.plain(f"{prefix}.input_layernorm.weight", (hidden,), "norm", layer)
        made.attention(prefix, layer, hidden, 1024)
        made.plain(f"{prefix}.post_attention_layernorm.weight", (hidden,), "norm", layer)
        drift = 2 * math.sin(layer / 9)
        for leaf, rows, columns, middle in (("gate_proj", mlp, hidden, -9.4), ("up_proj", mlp, hidden, -8.6),
                                            ("down_proj", hidden, mlp, -10.1)):  # fmt: skip
            made.mxfp4(f"{prefix}.mlp.{leaf}", rows, columns, "mlp", layer, middle + drift)
    return made


def moe(layers: int, experts: int) -> Checkpoint:
    made = Checkpoint("Sample-MoE-MXFP4", shards=46)
    hidden, mlp = 4096, 1536
    frame(made, "model", hidden, 151936)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        made.plain(f"{prefix}.input_layernorm.weight", (hidden,), "norm", layer)
        made.attention(prefix, layer, hidden, 512)
        made.plain(f"{prefix}.mlp.gate.weight", (experts, hidden), "router", layer)
        for expert in range(experts):
            for leaf in ("gate_proj", "up_proj", "down_proj"):
                rows, columns = (hidden, mlp) if leaf == "down_proj" else (mlp, hidden)
                middle = -8 + made.rng.gauss(0, 0.5) - layer / 30
                made.mxfp4(f"{prefix}.mlp.experts.{expert}.{leaf}", rows, columns, "expert", layer, middle)
    return made


def hostile() -> Checkpoint:
    """Names that are markup, reorder text, or never end; statistics that are absent, empty or not finite."""
    made = Checkpoint("<b>bold</b>\u202e", shards=2)
    for name in (
        MARKUP_NAME,
        RTL_NAME,
        "\"quoted\" 'name' & &lt;b&gt;",
        "x" * 20000,
        "",
        "__proto__",
        "constructor",
        "@DATA@",
        "model.layers.3.\u05d0\u05d1\u05d2.weight",
        "line\nbreak\ttab\u2028end",
        "\ud800 lone surrogate",
    ):
        made.plain(name, (4, 4), "other")
    made.add("no.values", "BF16", (0, 16), "other", "<i>format</i>")
    made.add(
        "scalar",
        "F32",
        (),
        "other",
        "plain",
        stats={"kind": "float", "min": None, "max": None, "nan": 1, "inf": 1, "zero_share": None},
    )
    prefix = "model.layers.0"
    made.fp8(f"{prefix}.self_attn.q_proj", 32, 32, 0, None)
    made.fp8(f"{prefix}.self_attn.k_proj", 32, 32, 0, 0.0)
    made.fp8(f"{prefix}.self_attn.v_proj", 32, 32, 0, 1e-30)
    made.mxfp4(f"{prefix}.mlp.down_proj", 32, 64, "mlp", 0, -9)
    made.tensors[-2]["stats"]["scale_codes"]["nan"] = 3
    made.mxfp4(f"{prefix}.mlp.up_proj", 32, 64, "mlp", 0, -9)
    made.tensors[-2]["stats"] = {
        "kind": "mxfp4",
        "scale_codes": {"min": None, "max": None, "nan": 64, "histogram": [[255, 64]]},
        "codes": {"histogram": [0] * 16, "zero_share": None, "saturated_share": None, "entropy_bits": None},
    }
    return made


def cell(modules: int, **others: int) -> dict[str, int]:
    counts = {"as_meant": 0, "unquantized": 0, "refuses": 0, "garbage": 0, "unknown": 0} | others
    return counts | {"as_meant": modules - sum(others.values())}


def finding(
    name: str, severity: str, subject: str, message: str, fix: str, subjects: Iterable[str] = (), count: int = 1
) -> dict[str, Any]:
    return {"id": name, "severity": severity, "subject": subject, "message": message, "fix": fix, "count": count,
            "loaders": ["vllm"], "subjects": [subject, *subjects]}  # fmt: skip


def audit_of(inspect: dict[str, Any]) -> dict[str, Any]:
    modules: dict[tuple[str, str], int] = {}
    for tensor in inspect["tensors"]:
        if not tensor.get("companion_of"):
            key = tensor["role"], tensor["format"]
            modules[key] = modules.get(key, 0) + 1
    matrix = []
    for (role, form), number in modules.items():
        row = {"role": role, "format": form, "modules": number, "vllm": cell(number), "transformers": cell(number),
               "sglang": cell(number, unknown=number), "tensorrt-llm": cell(number, unknown=number)}  # fmt: skip
        if form == "mxfp4":
            row["transformers"] = cell(number, garbage=number)
            row["sglang"] = cell(number, unquantized=number)
        if form == "fp8-tensor":
            row["transformers"] = cell(number, refuses=number - 1)
        matrix.append(row)
    names = [tensor["module"] for tensor in inspect["tensors"] if tensor["part"] == "weight" and tensor["module"]]
    findings = [
        finding(
            "quantization-status",
            "error",
            "quantization_config",
            "quantization_status is missing: transformers expects"
            " unpacked weights and fills the packed ones with random values.",
            'Set quantization_status to "compressed".',
        ),
        finding(
            "strategy-mismatch",
            "error",
            names[-1],
            "group_1 says strategy block, but the scales have shape [1]: transformers refuses the checkpoint.",
            'Set strategy to "tensor" in group_1.',
            names[:20],
            len(names),
        ),
        finding(
            "target-unused",
            "warning",
            "re:.*block_sparse_moe.*",
            "No module has a name that this target matches.",
            "Remove the target.",
        ),
        finding(
            "fused-scales-differ",
            "note",
            names[0],
            "q, k and v have scales that differ by up to 1.31 times: vLLM requantizes them to the largest.",
            "Nothing, where the loss of 0.2 bits is acceptable.",
            names[1:9],
            88,
        ),
    ]
    return {
        "schema": "qstream.audit/1",
        "model": inspect["model"],
        "clean": False,
        "counts": {
            severity: sum(entry["severity"] == severity for entry in findings)
            for severity in ("error", "warning", "note")
        },
        "loaders": [
            {"name": "vllm", "version": "0.32", "error": None},
            {"name": "transformers", "version": "5.23", "error": None},
            {"name": "sglang", "version": "0.6", "error": None},
            {"name": "tensorrt-llm", "version": "1.3", "error": "quant_method compressed-tensors is not known to it"},
        ],
        "matrix": matrix,
        "findings": findings,
    }


def clean_audit(inspect: dict[str, Any]) -> dict[str, Any]:
    matrix = audit_of(inspect)["matrix"]
    for row in matrix:
        row["vllm"] = row["transformers"] = cell(row["modules"])
    return {
        "schema": "qstream.audit/1",
        "model": inspect["model"],
        "clean": True,
        "counts": {"error": 0, "warning": 0, "note": 0},
        "loaders": [
            {"name": "vllm", "version": "0.32", "error": None},
            {"name": "transformers", "version": "5.23", "error": None},
        ],
        "matrix": matrix,
        "findings": [],
    }


def hostile_report() -> dict[str, Any]:
    inspect = hostile().inspect()
    audit = audit_of(inspect)
    audit["findings"][0] |= {"subject": MARKUP_NAME, "message": MARKUP_NAME, "fix": MARKUP_NAME, "id": MARKUP_NAME}
    return {"inspect": inspect, "audit": audit}


def sample_reports() -> dict[str, dict[str, Any]]:
    """By the name of their files."""
    dense_report = dense(36).inspect()
    tall = dense(130).inspect()
    without_stats = Checkpoint("No-Stats", shards=1, stats=False)
    frame(without_stats, "model", 64, 128)
    without_stats.mxfp4("model.layers.0.mlp.up_proj", 64, 64, "mlp", 0, -9)
    large = moe(64, 128).inspect()
    empty = Checkpoint("Empty", shards=0).inspect()
    return {
        "dense": {"inspect": dense_report, "audit": audit_of(dense_report)},
        "tall": {"inspect": tall, "audit": clean_audit(tall)},
        "moe": {"inspect": large, "audit": audit_of(large)},
        "hostile": hostile_report(),
        "no-stats": {"inspect": without_stats.inspect(), "audit": None},
        "empty": {"inspect": empty, "audit": None},
        "audit-only": {"inspect": None, "audit": audit_of(dense_report)},
    }


def write_samples(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, report in sample_reports().items():
        (folder / f"{name}.html").write_text(page_with("inspect", report), encoding="utf-8")
