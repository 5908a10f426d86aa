"""The mutants: each is a good checkpoint with one small mistake, and what an audit is to say about it.

Expected are exactly these findings and no cascade, however many modules a mistake reaches. `subject` must be part of
the finding's subject, `count` is how many modules or tensors it concerns. No expectation means that the change is
harmless, and nothing may be said.

Attention and MLP modules are told apart, and so is each target. Otherwise one mistake is one finding.
Where several findings could name the same mistake, these rules choose:
- A module that no target reaches is module-unmatched; that a mistyped target thereby reaches nothing goes without
  saying. If a pattern would reach it inside its name, pattern-unanchored says so alone. A pattern that cannot be used
  is pattern-invalid alone.
- `ignore` over a part of a fused layer is fused-partly-ignored, however it is stored; over a whole one module-ignored.
- two-groups is an error where a loader thereby takes the wrong group, and then stands for all that follows from it.
- group-size: group_size or block_structure of the config against all the scales. packed-width: a packed weight against
  its own scale or weight_shape.
- strategy-mismatch: the scales' shape is that of another strategy. scale-shape: of none.
- A scale under another tool's name is one companion-missing, not also a companion-extra.
- An unusable shard or index is named alone; what its tensors would lack is not.
- A top-level format is an error where a group relies on it, else a warning; so is an unanchored entry of `ignore`
  where a target reaches what it should have kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from checkpoints import (
    INDEX,
    LLAMA_ALL,
    LLAMA_ATTENTION,
    LLAMA_MLP,
    Checkpoint,
    args,
    bf16,
    fp8_channel,
    group,
    int8,
    stored_array,
)
from edits import (
    REMOVED,
    Edit,
    add,
    config,
    drop,
    file_edit,
    ignore,
    index,
    index_entry,
    index_text,
    more_targets,
    poke,
    quant,
    relabel,
    remake,
    rename,
    reshape,
    shard_as,
    shard_bytes,
    shard_gone,
    shard_header,
    store,
    targets,
    whole_index,
    whole_quant,
)


@dataclass(frozen=True)
class Expected:
    severity: str
    id: str
    subject: str = ""
    count: int | None = None


@dataclass(frozen=True)
class Mutant:
    name: str
    good: str
    edits: tuple[Edit, ...]
    expected: tuple[Expected, ...]

    @property
    def only_config(self) -> bool:
        """Whether --fix can undo it: quantization_config and the index can be told from the tensors."""
        return bool(self.edits) and all(edit.what in ("quantization", "index") for edit in self.edits)


def error(id: str, subject: str = "", count: int | None = None) -> Expected:
    return Expected("error", id, subject, count)


def warning(id: str, subject: str = "", count: int | None = None) -> Expected:
    return Expected("warning", id, subject, count)


def note(id: str, subject: str = "", count: int | None = None) -> Expected:
    return Expected("note", id, subject, count)


MUTANTS: list[Mutant] = []


def mutant(name: str, good: str, *parts: Edit | Expected) -> None:
    edits = tuple(part for part in parts if isinstance(part, Edit))
    MUTANTS.append(Mutant(name, good, edits, tuple(part for part in parts if isinstance(part, Expected))))


M, L, Q, BLOCK, MXFP8 = "mistral3", "llama", "qwen3_moe", "fp8-block", "mxfp8"
ONE, NVFP4, INT, PLAIN = "fp8-tensor", "nvfp4", "int4-int8", "plain"

# Names of tensors and targets of the Mistral checkpoint: six MLP projections, eight of attention.
TEXT = "model.language_model.layers"
MLP = "re:.*language_model\\.(model\\.)?layers\\.\\d+\\.mlp\\.(gate|up|down|gate_up)_proj$"
ATTENTION = "re:.*language_model\\.(model\\.)?layers\\.\\d+\\.self_attn\\.(q|k|v|o|qkv)_proj$"
VISION = ["re:.*vision_tower.*", "re:.*multi_modal_projector.*"]
HEAD = ["re:.*lm_head$", "re:.*embed_tokens$"]
EXPERTS = "re:model\\.layers\\.\\d+\\.mlp\\.experts\\.\\d+\\.(gate|up|down)_proj$"
DOWN = f"{TEXT}.0.mlp.down_proj"
OUT = f"{TEXT}.0.self_attn.o_proj"
KEY = f"{TEXT}.1.self_attn.k_proj"

MXFP4_ARGS = args(4, "float", "group", group_size=32)
FP8_ARGS = args(8, "float", "tensor")
TOKEN_ARGS = args(8, "float", "token") | {"dynamic": True}


def plain(rows: int, columns: int) -> dict[str, Any]:
    return {"weight": bf16(np.full((rows, columns), 0.02))}


def fp8_tensor(rows: int, columns: int) -> dict[str, Any]:
    return fp8_channel(rows, columns) | {"weight_scale": stored_array("F32", np.array([0.01], np.float32))}


# ---------------------------------------------------------------------------------------------- the configuration

mutant("config-gone", M, whole_quant(REMOVED), error("config-missing"))
mutant("config-null", L, whole_quant(None), error("config-missing"))
mutant("config-gone-int", INT, whole_quant(REMOVED), error("config-missing"))

mutant("config-a-string", M, whole_quant("mxfp4"), error("config-invalid"))
mutant("weights-unknown-key", M, quant("group_0.weights.bits", 4), error("config-invalid", "group_0"))
mutant("inputs-unknown-key", M, quant("group_1.input_activations.bits", 8), error("config-invalid", "group_1"))
mutant("group-unknown-key", M, quant("group_1.weight", FP8_ARGS), error("config-invalid", "group_1"))
mutant("group-null", M, quant("group_0", None), error("config-invalid", "group_0"))
mutant("groups-a-list", M, quant("config_groups", [{"targets": ["Linear"]}]), error("config-invalid"))
mutant("targets-a-string", M, quant("group_0.targets", MLP), error("config-invalid", "group_0"))
mutant("targets-gone", M, quant("group_0.targets", REMOVED), error("config-invalid", "group_0"))
mutant("weights-null", M, quant("group_0.weights", None), error("config-invalid", "group_0"))
mutant("strategy-unknown", M, quant("group_1.weights.strategy", "rows"), error("config-invalid", "group_1"))
mutant("type-unknown", M, quant("group_0.weights.type", "fp4"), error("config-invalid", "group_0"))
mutant("num-bits-null", M, quant("group_0.weights.num_bits", None), error("config-invalid", "group_0"))
mutant("num-bits-5", M, quant("group_0.weights.num_bits", 5), error("config-invalid", "group_0"))
mutant("group-size-a-string", M, quant("group_0.weights.group_size", "32"), error("config-invalid", "group_0"))
mutant("group-size-gone", M, quant("group_0.weights.group_size", REMOVED), error("config-invalid", "group_0"))
mutant("group-size-with-tensor", M, quant("group_1.weights.group_size", 128), error("config-invalid", "group_1"))
mutant("block-without-structure", BLOCK, quant("group_1.weights.block_structure", REMOVED),
       error("config-invalid", "group_1"))  # fmt: skip
mutant("scale-dtype-unknown", M, quant("group_0.weights.scale_dtype", "torch.e8m0"), error("config-invalid", "group_0"))
mutant("dynamic-null", M, quant("group_1.weights.dynamic", None), error("config-invalid", "group_1"))
mutant("static-token", L, quant("group_1.input_activations.dynamic", False), error("config-invalid", "group_1"))
mutant("channel-activations", M, quant("group_1.input_activations.strategy", "channel"),
       error("config-invalid", "group_1"))  # fmt: skip
mutant("ignore-a-string", M, quant("ignore", "lm_head"), error("config-invalid"))
mutant("ignore-null", M, quant("ignore", None), error("config-invalid"))  # vLLM does not start
mutant("kv-cache-unknown-key", L, quant("kv_cache_scheme", {**FP8_ARGS, "bits": 8}), error("config-invalid"))
mutant("quant-method-gone", M, quant("quant_method", REMOVED), error("config-invalid"))
mutant("quant-method-underscore", L, quant("quant_method", "compressed_tensors"), error("config-invalid"))

mutant("status-gone", M, quant("quantization_status", REMOVED), error("quantization-status"))
mutant("status-gone-moe", Q, quant("quantization_status", REMOVED), error("quantization-status"))
mutant("status-null", L, quant("quantization_status", None), error("quantization-status"))
mutant("status-frozen", L, quant("quantization_status", "frozen"), error("quantization-status"))
mutant("status-capital", M, quant("quantization_status", "Compressed"), error("quantization-status"))

mutant("group-format-unknown", M, quant("group_0.format", "mxfp4-packed"), error("format-wrong"))
mutant("group-format-mixed", M, quant("group_0.format", "mixed-precision"), error("format-wrong"))
mutant("group-format-nvfp4", M, quant("group_0.format", "nvfp4-pack-quantized"), error("format-wrong", "mlp.", 6))
mutant("group-format-float", L, quant("group_0.format", "float-quantized"), error("format-wrong", "mlp.", 6))
mutant("group-format-dense", M, quant("group_1.format", "dense"), error("format-wrong", "self_attn", 8))
mutant("group-format-pack", L, quant("group_1.format", "pack-quantized"), error("format-wrong", "self_attn", 8))
mutant("mxfp8-as-float", MXFP8, quant("group_1.format", "float-quantized"), error("format-wrong", "self_attn", 8))
mutant("experts-format-nvfp4", Q, quant("group_0.format", "nvfp4-pack-quantized"), error("format-wrong", "experts", 24))
mutant("top-format-float", M, quant("format", "float-quantized"), warning("format-wrong"))
mutant("top-format-unknown", L, quant("format", "mixed"), warning("format-wrong"))
mutant("top-format-gone", L, quant("format", REMOVED), warning("format-wrong"))
mutant("top-format-pack", ONE, quant("format", "pack-quantized"), error("format-wrong"))

mutant("group-without-format", M, quant("group_1.format", REMOVED), error("group-format-missing", "self_attn", 8))
mutant("group-format-null", L, quant("group_1.format", None), error("group-format-missing", "self_attn", 8))
mutant("experts-without-format", Q, quant("group_0.format", REMOVED), error("group-format-missing", "experts", 24))

mutant("method-fp8", "fp8-source", note("method-not-predicted"))
mutant("method-mxfp8", "mxfp8-source", note("method-not-predicted"))

# ----------------------------------------------------------------------------------------------------- resolution

mutant("attention-group-gone", M, quant("group_1", REMOVED), error("module-unmatched", "self_attn", 8))
mutant("target-typo", M, targets(1, ATTENTION.replace("self_attn", "self_atn")),
       error("module-unmatched", "self_attn", 8))  # fmt: skip
mutant("one-layer-unmatched", M, targets(0, MLP.replace("\\d+", "0")),
       error("module-unmatched", f"{TEXT}.1.mlp.", 3))  # fmt: skip
mutant("output-projection-unmatched", L, targets(1, LLAMA_ATTENTION.replace("|o|", "|")),
       error("module-unmatched", "o_proj", 2))  # fmt: skip
mutant("experts-unmatched", Q, targets(0, EXPERTS.replace("\\d+\\.mlp", "\\d+\\.moe")),
       error("module-unmatched", "experts", 24))  # fmt: skip
mutant("target-ends-early", M, targets(0, MLP.replace("_proj$", "_pro$")), error("module-unmatched", "mlp.", 6))

mutant("checkpoint-names", M,
       targets(0, MLP.replace("re:.*language_model\\.(model\\.)?", "re:model\\.language_model\\.")),
       error("checkpoint-names-only", "mlp.", 6))  # fmt: skip
mutant("checkpoint-names-attention", M,
       targets(1, ATTENTION.replace("re:.*language_model\\.(model\\.)?", "re:model\\.language_model\\.")),
       error("checkpoint-names-only", "self_attn", 8))  # fmt: skip
mutant("checkpoint-names-any-start", M, targets(0, MLP.replace("(model\\.)?", "")),
       error("checkpoint-names-only", "mlp.", 6))  # fmt: skip
mutant("runtime-names", M, targets(0, MLP.replace("re:.*language_model\\.(model\\.)?", "re:language_model\\.model\\.")),
       error("runtime-names-only", "mlp.", 6))  # fmt: skip
mutant("fused-names-only", L, targets(1, LLAMA_ATTENTION.replace("(q|k|v|o|qkv)", "(o|qkv)")),
       error("runtime-names-only", "self_attn", 6))  # fmt: skip

mutant("attention-ignored", M, ignore("re:.*self_attn.*"), error("module-ignored", "self_attn", 8))
mutant("layer-ignored", L, ignore("re:model\\.layers\\.1\\..*"), error("module-ignored", "layers.1.", 7))
mutant("one-module-ignored", M, ignore(OUT), error("module-ignored", OUT, 1))
mutant("part-ignored", L, ignore("model.layers.0.self_attn.v_proj"), error("fused-partly-ignored", "v_proj", 1))
mutant("linear-ignored", L, ignore("Linear"), error("module-ignored", "", 14))
mutant("experts-ignored", Q, ignore("re:.*mlp.*"), error("module-ignored", "experts", 24))

mutant("target-of-another-model", M, more_targets(0, "re:.*layers\\.\\d+\\.mlp\\.w[123]$"),
       warning("target-unused", "w[123]"))  # fmt: skip
mutant("target-layer-too-many", L, more_targets(1, "model.layers.2.self_attn.o_proj"),
       warning("target-unused", "layers.2."))  # fmt: skip

mutant("ignore-typo", M, ignore("re:.*self_atn\\.sinks$"), warning("ignore-unused", "self_atn"))
mutant("ignore-layer-too-many", L, ignore("model.layers.9.mlp.down_proj"), warning("ignore-unused", "layers.9."))

mutant("two-groups-agree", M, more_targets(1, "re:.*mlp\\.down_proj$"), warning("two-groups", "down_proj", 2))
mutant("two-groups-by-text", M, more_targets(1, "re:.*down_proj$"),  # transformers goes by the patterns' text
       error("two-groups", "down_proj", 2))  # fmt: skip
mutant("catch-all-last", M, targets(1, "re:.*language_model.*_proj$"), error("two-groups", "mlp.", 6))
mutant("catch-all-first", M,
       whole_quant(lambda c: {**c.config["quantization_config"], "config_groups": {
           "everything": group("re:.*language_model.*_proj$", "float-quantized", FP8_ARGS, FP8_ARGS),
           "mlp": group(MLP, "mxfp4-pack-quantized", MXFP4_ARGS, None)}}),
       error("two-groups", "mlp.", 6))  # fmt: skip

mutant("value-per-tensor", L,  # q and k per channel, v per tensor, in one fused layer
       store("*.v_proj", fp8_tensor), targets(1, LLAMA_ATTENTION.replace("(q|k|v|o|qkv)", "(q|k|o)")),
       quant("group_2", group("re:.*v_proj$", "float-quantized", FP8_ARGS, TOKEN_ARGS)),
       error("fused-groups-differ", "self_attn"))  # fmt: skip
mutant("up-in-fp8", L,
       store("*.up_proj", fp8_channel), targets(0, LLAMA_MLP.replace("(gate|up|down|gate_up)", "(gate|down)")),
       more_targets(1, "re:.*\\.mlp\\.up_proj$"), error("fused-groups-differ", "mlp"))  # fmt: skip
mutant("one-expert-in-fp8", Q,
       store("*.experts.3.*", fp8_channel), targets(0, EXPERTS.replace("experts\\.\\d+", "experts\\.[0-2]")),
       more_targets(1, "re:.*\\.mlp\\.experts\\.3\\..*_proj$"), error("fused-groups-differ", "experts"))  # fmt: skip

mutant("value-plain-and-ignored", L, store("*.v_proj", plain), ignore("re:.*\\.v_proj$"),
       error("fused-partly-ignored", "self_attn"))  # fmt: skip
mutant("gate-plain-and-ignored", M, store("*language_model*.0.mlp.gate_proj", plain),
       ignore("re:.*language_model.*layers\\.0\\.mlp\\.gate_proj$"),
       error("fused-partly-ignored", "layers.0.mlp"))  # fmt: skip

mutant("class-name", M, targets(1, "Linear"), warning("target-class-name", "Linear"))
mutant("class-name-alone", ONE, targets(0, "Linear"), warning("target-class-name", "Linear"))
mutant("class-name-beside", L, more_targets(1, "Linear"), warning("target-class-name", "Linear"))

mutant("unanchored", M, targets(1, "re:self_attn\\.(q|k|v|o|qkv)_proj$"), error("pattern-unanchored", "self_attn", 8))
mutant("unanchored-mlp", L, targets(0, "re:layers\\.\\d+\\.mlp\\..*"), error("pattern-unanchored", "mlp.", 6))
mutant("unanchored-all", ONE, targets(0, LLAMA_ALL.replace("re:model\\.", "re:")), error("pattern-unanchored", "", 14))
mutant("unanchored-ignore", Q, quant("ignore", [*HEAD, "re:mlp\\.gate$"]), warning("pattern-unanchored", "re:mlp"))
mutant("unanchored-ignore-that-matters", Q, quant("ignore", [*HEAD, "re:mlp\\.gate$"]), targets(0, "re:.*\\.mlp\\..*"),
       error("pattern-unanchored", ""))  # fmt: skip

mutant("pattern-open", M, targets(1, "re:.*self_attn\\.(q|k|v|o|qkv_proj$"), error("pattern-invalid", "self_attn"))
mutant("pattern-star", L, targets(0, "re:*mlp*"), error("pattern-invalid", "re:*mlp*"))
mutant("pattern-not-python", M, targets(1, ATTENTION.replace("(q|", "(?<part>q|")),  # Python says (?P<part>
       error("pattern-invalid", "part"))  # fmt: skip
mutant("pattern-explodes", L, more_targets(0, "re:(\\w+\\.?)+[^\\w.]$"), error("pattern-invalid", "[^"))
mutant("pattern-invalid-ignore", L, ignore("re:.*[embed"), error("pattern-invalid", "[embed"))

mutant("head-targeted", M, quant("ignore", [*VISION, HEAD[1]]), more_targets(1, "re:.*lm_head$"),
       error("plain-targeted", "lm_head", 1))  # fmt: skip
mutant("head-by-name", L, quant("ignore", [HEAD[1]]), more_targets(1, "lm_head"),
       error("plain-targeted", "lm_head", 1))  # fmt: skip
mutant("router-targeted", Q, quant("ignore", HEAD), targets(0, "re:.*\\.mlp\\..*"),
       error("plain-targeted", "mlp.gate", 2))  # fmt: skip
mutant("output-projection-plain", M, store("*language_model*.1.self_attn.o_proj", plain),
       error("plain-targeted", "layers.1.self_attn.o_proj", 1))  # fmt: skip
mutant("query-plain", L, store("*.1.self_attn.q_proj", plain), error("plain-targeted", "layers.1.self_attn.q_proj", 1))

mutant("vision-attention", M, quant("ignore", [VISION[1], *HEAD]), targets(1, "re:.*\\.(q|k|v|o|qkv)_proj$"),
       error("vision-targeted", "vision_tower", 4))  # fmt: skip
mutant("vision-mlp", M, quant("ignore", [VISION[1], *HEAD]), targets(0, "re:.*\\.(gate|up|down|gate_up)_proj$"),
       error("vision-targeted", "vision_tower", 3))  # fmt: skip
mutant("projector-targeted", M, quant("ignore", [VISION[0], *HEAD]), more_targets(1, "re:.*linear_[12]$"),
       error("vision-targeted", "multi_modal_projector", 2))  # fmt: skip
mutant("vision-by-container", M,  # the name of a container ignores nothing in it
       quant("ignore", ["model.vision_tower", VISION[1], *HEAD]), targets(1, "re:.*\\.(q|k|v|o|qkv)_proj$"),
       error("vision-targeted", "vision_tower", 4))  # fmt: skip

# ------------------------------------------------------------------------------------ tensors against their scheme

mutant("mxfp4-scale-gone", M, drop(f"{DOWN}.weight_scale"), error("companion-missing", DOWN, 1))
mutant("mxfp4-scales-gone", L, drop("*.up_proj.weight_scale"), error("companion-missing", "up_proj", 2))
mutant("fp8-scale-gone", M, drop(f"{OUT}.weight_scale"), error("companion-missing", OUT, 1))
mutant("fp8-channel-scale-gone", L, drop("*.1.self_attn.v_proj.weight_scale"),
       error("companion-missing", "layers.1.self_attn.v_proj", 1))  # fmt: skip
mutant("expert-scale-gone", Q, drop("*.1.mlp.experts.2.down_proj.weight_scale"),
       error("companion-missing", "experts.2.down_proj", 1))  # fmt: skip
mutant("global-scale-gone", NVFP4, drop("*.0.mlp.down_proj.weight_global_scale"),
       error("companion-missing", "layers.0.mlp.down_proj", 1))  # fmt: skip
mutant("weight-shape-gone", INT, drop("*.0.mlp.down_proj.weight_shape"),
       error("companion-missing", "layers.0.mlp.down_proj", 1))  # fmt: skip
mutant("int8-scale-gone", INT, drop("*.0.self_attn.o_proj.weight_scale"),
       error("companion-missing", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("scale-under-its-fp8-name", L, rename("*.o_proj.weight_scale", "weight_scale", "weight_scale_inv"),
       error("companion-missing", "o_proj", 2))  # fmt: skip

mutant("input-scale-gone", M, drop(f"{OUT}.input_scale"), error("input-scale-missing", OUT, 1))
mutant("input-scales-gone", ONE, drop("*.input_scale"),
       error("input-scale-missing", "", 14))  # fmt: skip
mutant("static-without-scales", L, quant("group_1.input_activations", FP8_ARGS),
       error("input-scale-missing", "self_attn", 8))  # fmt: skip

mutant("dynamic-with-input-scale", M, quant("group_1.input_activations.dynamic", True),
       error("companion-extra", "self_attn", 8))  # vLLM refuses tensors that it has no place for  # fmt: skip
mutant("weight-only-with-input-scale", ONE, quant("group_0.input_activations", None),
       error("companion-extra", "", 14))  # fmt: skip
mutant("source-scale-left", L, add("model.layers.0.self_attn.o_proj.weight_scale_inv", bf16(np.full((256, 1), 0.01))),
       error("companion-extra", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("zero-point", M, add(f"{DOWN}.weight_zero_point", stored_array("U8", np.zeros((256, 16), np.uint8))),
       error("companion-extra", DOWN, 1))  # fmt: skip
mutant("source-weight-left", M, add(f"{DOWN}.weight", bf16(np.zeros((256, 512)))),
       error("companion-extra", DOWN, 1))  # fmt: skip
mutant("mxfp4-input-scale", Q, add("model.layers.0.mlp.experts.0.up_proj.input_scale", bf16(np.ones(1))),
       error("companion-extra", "experts.0.up_proj", 1))  # fmt: skip

mutant("packed-weight-gone", M, drop(f"{DOWN}.weight_packed"), error("scale-orphan", DOWN))
mutant("fp8-weight-gone", M, drop(f"{OUT}.weight"), error("scale-orphan", OUT))
mutant("scale-of-nothing", L, add("model.layers.0.mlp.w2.weight_scale", bf16(np.ones((256, 1)))),
       error("scale-orphan", "mlp.w2"))  # fmt: skip

mutant("packed-i8", M, relabel(f"{DOWN}.weight_packed", "I8"), error("tensor-dtype", DOWN, 1))
mutant("mxfp4-scale-e8m0", M, relabel("*.mlp.*.weight_scale", "F8_E8M0"), error("tensor-dtype", "mlp.", 6))
mutant("mxfp4-scale-f32", L,
       remake("*.1.mlp.up_proj.weight_scale", lambda a: np.exp2(a.astype(np.float32) - 127), "F32"),
       error("tensor-dtype", "layers.1.mlp.up_proj", 1))  # fmt: skip
mutant("mxfp8-scale-e8m0", MXFP8, relabel("*.self_attn.*.weight_scale", "F8_E8M0"),
       error("tensor-dtype", "self_attn", 8))  # fmt: skip
mutant("fp8-scale-i32", M, relabel(f"{OUT}.weight_scale", "I32"), error("tensor-dtype", OUT, 1))
mutant("fp8-weight-e5m2", M, relabel(f"{OUT}.weight", "F8_E5M2"), error("tensor-dtype", OUT, 1))
mutant("fp8-weight-u8", L, relabel("*.0.self_attn.o_proj.weight", "U8"),
       error("tensor-dtype", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("input-scale-i32", ONE, relabel("*.0.mlp.down_proj.input_scale", "I32"),
       error("tensor-dtype", "layers.0.mlp.down_proj", 1))  # fmt: skip

mutant("fp8-scale-scalar", M, reshape(f"{OUT}.weight_scale"), error("scale-shape", OUT, 1))
mutant("fp8-scale-matrix", ONE, reshape("*.weight_scale", 1, 1),
       error("scale-shape", "", 14))  # fmt: skip
mutant("input-scale-scalar", M, reshape("*.input_scale"), error("scale-shape", "self_attn", 8))
mutant("channel-scale-vector", L, reshape("*.o_proj.weight_scale", 256), error("scale-shape", "o_proj", 2))
mutant("channel-scale-short", L, remake("*.0.self_attn.o_proj.weight_scale", lambda a: a[:-1]),
       error("scale-shape", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("mxfp4-scale-transposed", M, remake(f"{DOWN}.weight_scale", lambda a: a.T), error("scale-shape", DOWN, 1))
mutant("mxfp4-scale-row-short", M, remake(f"{DOWN}.weight_scale", lambda a: a[:-1]), error("scale-shape", DOWN, 1))
mutant("block-scale-row-more", BLOCK, remake("*.0.self_attn.o_proj.weight_scale", lambda a: a[[0, 1, 1]]),
       error("scale-shape", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("block-structure-64", BLOCK, quant("group_1.weights.block_structure", [64, 64]),
       error("group-size", "self_attn", 8))  # fmt: skip

mutant("tensor-as-channel", M, quant("group_1.weights.strategy", "channel"), error("strategy-mismatch", "self_attn", 8))
mutant("tensor-as-block", M, quant("group_1.weights", args(8, "float", "block", block_structure=[128, 128])),
       quant("group_1.input_activations", args(8, "float", "group", group_size=128) | {"dynamic": True}),
       drop("*.input_scale"), error("strategy-mismatch", "self_attn", 8))  # fmt: skip
mutant("channel-as-tensor", L, quant("group_1.weights.strategy", "tensor"), error("strategy-mismatch", "self_attn", 8))
mutant("block-as-tensor", BLOCK, quant("group_1.weights", FP8_ARGS), error("strategy-mismatch", "self_attn", 8))
mutant("block-as-channel", BLOCK, quant("group_1.weights", args(8, "float", "channel")),
       error("strategy-mismatch", "self_attn", 8))  # fmt: skip
mutant("mxfp4-as-channel", M, quant("group_0.weights", args(4, "float", "channel")),
       error("strategy-mismatch", "mlp.", 6))  # fmt: skip
mutant("int4-as-channel", INT, quant("group_0.weights", args(4, "int", "channel")),
       error("strategy-mismatch", "mlp.", 6))  # fmt: skip
mutant("one-channel-scale", M,
       remake(f"{OUT}.weight_scale", lambda a: np.repeat(a, 256).reshape(256, 1)),
       error("strategy-mismatch", OUT, 1))  # fmt: skip

mutant("group-size-16", M, quant("group_0.weights.group_size", 16), error("group-size", "mlp.", 6))
mutant("group-size-64", L, quant("group_0.weights.group_size", 64), error("group-size", "mlp.", 6))
mutant("experts-group-size-128", Q, quant("group_0.weights.group_size", 128), error("group-size", "experts", 24))
mutant("mxfp8-group-size", MXFP8, quant("group_1.weights.group_size", 64), error("group-size", "self_attn", 8))
mutant("nvfp4-group-size", NVFP4, quant("group_0.weights.group_size", 32), error("group-size", "mlp.", 6))
mutant("int4-group-size", INT, quant("group_0.weights.group_size", 64), error("group-size", "mlp.", 6))
mutant("one-scale-of-64", M, remake(f"{DOWN}.weight_scale", lambda a: a[:, ::2]), error("group-size", DOWN, 1))

mutant("packed-columns-short", M, remake(f"{DOWN}.weight_packed", lambda a: a[:, :-2]), error("packed-width", DOWN, 1))
mutant("scale-column-short", L, remake("*.0.mlp.up_proj.weight_scale", lambda a: a[:, :-1]),
       error("packed-width", "layers.0.mlp.up_proj", 1))  # fmt: skip
mutant("weight-shape-other", INT, poke("*.0.mlp.down_proj.weight_shape", 384, at=1),
       error("packed-width", "layers.0.mlp.down_proj", 1))  # fmt: skip

mutant("mxfp8-without-scale-dtype", MXFP8, quant("group_1.weights.scale_dtype", REMOVED),
       error("scale-dtype", "self_attn", 8))  # fmt: skip
mutant("mxfp8-scale-dtype-bf16", MXFP8, quant("group_1.weights.scale_dtype", "torch.bfloat16"),
       error("scale-dtype", "self_attn", 8))  # fmt: skip

mutant("mxfp4-as-8-bits", M, quant("group_0.weights.num_bits", 8), error("bits-mismatch", "mlp.", 6))
mutant("mxfp4-as-int", M, quant("group_0.weights.type", "int"), error("bits-mismatch", "mlp.", 6))
mutant("fp8-as-int", L, quant("group_1.weights.type", "int"), quant("group_1.input_activations.type", "int"),
       error("bits-mismatch", "self_attn", 8))  # fmt: skip
mutant("int4-as-8-bits", INT, quant("group_0.weights.num_bits", 8), error("bits-mismatch", "mlp.", 6))
mutant("one-weight-i8", L, store("*.0.self_attn.o_proj", int8), error("bits-mismatch", "layers.0.self_attn.o_proj", 1))

mutant("odd-widths", "odd-widths", note("kernel-shape", "gate_up_proj"), note("kernel-shape", "down_proj"))

mutant("mxfp4-asymmetric", M, quant("group_0.weights.symmetric", False), error("scheme-unsupported", "mlp.", 6))
mutant("fp8-dynamic-weights", M, quant("group_1.weights.dynamic", True), error("scheme-unsupported", "self_attn", 8))
mutant("fp8-groups-of-128", L,  # no kernel for a float scale on 128 input channels
       remake("*.self_attn.*.weight_scale", lambda a: np.repeat(a, 2, axis=1)),
       quant("group_1.weights", args(8, "float", "group", group_size=128)),
       error("scheme-unsupported", "self_attn", 8))  # fmt: skip
mutant("nvfp4-with-fp8-inputs", NVFP4, quant("group_0.input_activations", TOKEN_ARGS),
       error("scheme-unsupported", "mlp.", 6))  # fmt: skip

# --------------------------------------------------------------------------------------------------------- values

NAN, INFINITY = float("nan"), float("inf")
BF16_NAN, BF16_INFINITY, BF16_SUBNORMAL, BF16_MINUS_ONE = 0x7FC0, 0x7F80, 0x0001, 0xBF80

mutant("fp8-scale-nan", M, poke(f"{KEY}.weight_scale", NAN), error("scale-nan", KEY, 1))
mutant("input-scale-nan", ONE, poke("*.0.mlp.down_proj.input_scale", NAN),
       error("scale-nan", "layers.0.mlp.down_proj", 1))  # fmt: skip
mutant("channel-scale-nan", L, poke("*.0.self_attn.o_proj.weight_scale", BF16_NAN, at=77),
       error("scale-nan", "layers.0.self_attn.o_proj", 1))  # fmt: skip
mutant("mxfp4-scale-nan", M, poke(f"{DOWN}.weight_scale", 255, at=1000), error("scale-nan", DOWN, 1))
mutant("mxfp8-scale-nan", MXFP8, poke("*.1.self_attn.q_proj.weight_scale", 255, at=5),
       error("scale-nan", "layers.1.self_attn.q_proj", 1))  # fmt: skip
mutant("expert-scale-nan", Q, poke("*.1.mlp.experts.3.up_proj.weight_scale", 255),
       error("scale-nan", "experts.3.up_proj", 1))  # fmt: skip
mutant("nvfp4-scale-nan", NVFP4, poke("*.0.mlp.down_proj.weight_scale", 0x7F, at=9),
       error("scale-nan", "layers.0.mlp.down_proj", 1))  # fmt: skip
mutant("fp8-scale-infinite", M, poke(f"{KEY}.weight_scale", INFINITY), error("scale-infinite", KEY, 1))
mutant("channel-scale-infinite", L, poke("*.1.self_attn.v_proj.weight_scale", BF16_INFINITY, at=3),
       error("scale-infinite", "layers.1.self_attn.v_proj", 1))  # fmt: skip
mutant("global-scale-infinite", NVFP4, poke("*.1.mlp.down_proj.weight_global_scale", INFINITY),
       error("scale-infinite", "layers.1.mlp.down_proj", 1))  # fmt: skip
mutant("fp8-scale-zero", M, poke(f"{KEY}.weight_scale", 0), error("scale-zero", KEY, 1))
mutant("input-scale-zero", M, poke(f"{OUT}.input_scale", 0), error("scale-zero", OUT, 1))
mutant("block-scale-zero", BLOCK, poke("*.0.self_attn.q_proj.weight_scale", 0, at=1),
       error("scale-zero", "layers.0.self_attn.q_proj", 1))  # fmt: skip
mutant("fp8-scale-negative", M, poke(f"{OUT}.weight_scale", -0.001), error("scale-negative", OUT, 1))
mutant("channel-scale-negative", L, poke("*.0.self_attn.k_proj.weight_scale", BF16_MINUS_ONE, at=100),
       error("scale-negative", "layers.0.self_attn.k_proj", 1))  # fmt: skip
mutant("input-scale-negative", ONE, poke("*.1.self_attn.o_proj.input_scale", -1),
       error("scale-negative", "layers.1.self_attn.o_proj", 1))  # fmt: skip
mutant("fp8-scale-subnormal", M, poke(f"{OUT}.weight_scale", 1e-40), warning("scale-subnormal", OUT, 1))
mutant("channel-scale-subnormal", L, poke("*.0.self_attn.o_proj.weight_scale", BF16_SUBNORMAL, at=8),
       warning("scale-subnormal", "layers.0.self_attn.o_proj", 1))  # fmt: skip

mutant("key-scale-differs", M, remake(f"{KEY}.weight_scale", lambda a: a * np.float32(1.5)),
       note("fused-scales-differ", "layers.1.self_attn", 1))  # fmt: skip
mutant("up-scales-differ", ONE, remake("*.up_proj.weight_scale", lambda a: a * np.float32(0.5)),
       note("fused-scales-differ", "mlp", 2))  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- files

mutant("shard-gone", M, shard_gone(1), error("shard-missing", "model-00002-of-"))
mutant("first-shard-gone", Q, shard_gone(0), error("shard-missing", "model-00001-of-"))

mutant("shard-truncated", M, shard_bytes(2, lambda b: b[:-1]), error("shard-unreadable", "model-00003-of-"))
mutant("shard-too-long", L, shard_bytes(0, lambda b: b + b"\0"), error("shard-unreadable", "model-00001-of-"))
mutant("shard-empty", M, shard_bytes(1, lambda _: b""), error("shard-unreadable", "model-00002-of-"))
mutant("header-too-long", L, shard_bytes(0, lambda b: (1 << 40).to_bytes(8, "little") + b[8:]),
       error("shard-unreadable", "model-00001-of-"))  # fmt: skip
mutant("header-no-json", M, shard_bytes(1, lambda b: b[:8] + b"?" + b[9:]),
       error("shard-unreadable", "model-00002-of-"))  # fmt: skip
mutant("header-unknown-dtype", L, shard_header(0, lambda h: h[max(h)].update(dtype="F7")),
       error("shard-unreadable", "model-00001-of-"))  # fmt: skip
mutant("header-shape-too-large", L, shard_header(0, lambda h: h[max(h)].update(shape=[9, 9, 9])),
       error("shard-unreadable", "model-00001-of-"))  # fmt: skip
mutant("pointer-file", M, shard_bytes(0, lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
       error("shard-unreadable", "model-00001-of-"))  # fmt: skip

mutant("index-no-json", M, index_text('{"weight_map": '), error("index-invalid", INDEX))
mutant("index-without-map", M, index("weight_map", REMOVED), error("index-invalid", INDEX))
mutant("index-map-a-list", L, index("weight_map", []), error("index-invalid", INDEX))
mutant("index-entry-a-number", L, index_entry("lm_head.weight", 2.5), error("index-invalid", INDEX))
mutant("index-without-metadata", M, index("metadata", REMOVED), error("index-invalid", INDEX))  # transformers insists
mutant("index-leaves-the-folder", M, index_entry("lm_head.weight", "../lm_head.safetensors"),
       error("index-invalid", INDEX))  # fmt: skip

mutant("index-wrong-shard", M, index_entry(f"{OUT}.weight", -1), error("index-wrong-shard", OUT, 1))
mutant("index-dangling", M, index_entry(f"{TEXT}.0.mlp.w1.weight", 0), error("index-dangling", "w1", 1))
mutant("index-entry-gone", M, index_entry(f"{DOWN}.weight_scale", REMOVED), error("tensor-unindexed", DOWN, 1))
mutant("tensor-twice", M, Edit("tensor", lambda c: duplicate(c, f"{OUT}.weight", -1)),
       error("tensor-duplicate", OUT, 1))  # fmt: skip
mutant("stray-shard", M, shard_as(0, "old.safetensors"), warning("shard-unindexed", "old.safetensors", 1))
mutant("index-gone", M, whole_index(None), error("index-missing"))
mutant("index-gone-moe", Q, whole_index(None), error("index-missing"))
mutant("shadowed", L, shard_as(0, "model.safetensors"), error("index-shadowed", "model.safetensors"))
mutant("consolidated", M, shard_as(0, "consolidated.safetensors"), warning("consolidated-present", "consolidated"))
mutant("consolidated-shards", L, shard_as(0, "consolidated-00001-of-00001.safetensors"),
       warning("consolidated-present", "consolidated"))  # fmt: skip
mutant("total-size-stale", M, index("metadata.total_size", 3_000_000), warning("total-size"))
mutant("total-size-one-more", L, Edit("index", lambda c: add_one_byte(c)), warning("total-size"))


def add_one_byte(checkpoint: Checkpoint) -> None:
    checkpoint.index["metadata"]["total_size"] += 1


def duplicate(checkpoint: Checkpoint, name: str, shard: int) -> None:
    """A tensor in a second shard too; the index keeps naming the first, and its sum covers both."""
    file = list(checkpoint.shards)[shard]
    stored = checkpoint.tensors[name]
    checkpoint.shards[file][name] = stored
    checkpoint.changed.add(file)
    checkpoint.index["metadata"]["total_size"] += len(stored.data)


# --------------------------------------------------------------------------------------------------- architecture

mutant("head-gone", L, drop("lm_head.weight"), error("tied-embeddings"))
mutant("tied-with-another-head", L, config("tie_word_embeddings", True), error("tied-embeddings"))  # vLLM skips it
mutant("tied-text-model", M, config("text_config.tie_word_embeddings", True), error("tied-embeddings"))

mutant("layer-too-many", M, config("text_config.num_hidden_layers", 3), error("architecture-layers"))
mutant("layer-too-few", L, config("num_hidden_layers", 1), error("architecture-layers"))
mutant("layer-dropped", M, drop(f"{TEXT}.1.*"), error("architecture-layers"))
mutant("hidden-doubled", M, config("text_config.hidden_size", 512), error("architecture-hidden"))
mutant("hidden-halved", Q, config("hidden_size", 128), error("architecture-hidden"))
mutant("heads-doubled", M, config("text_config.num_attention_heads", 8), error("architecture-heads"))
mutant("kv-heads-doubled", L, config("num_key_value_heads", 4), error("architecture-heads"))
mutant("head-dim-halved", Q, config("head_dim", 32), error("architecture-heads"))
mutant("vocabulary-larger", M, config("text_config.vocab_size", 1040), error("architecture-vocabulary"))
mutant("vocabulary-smaller", L, config("vocab_size", 1000), error("architecture-vocabulary"))
mutant("mlp-doubled", M, config("text_config.intermediate_size", 1024), error("architecture-mlp"))
mutant("mlp-halved", L, config("intermediate_size", 256), error("architecture-mlp"))
mutant("expert-mlp-doubled", Q, config("moe_intermediate_size", 1024), error("architecture-mlp"))
mutant("experts-doubled", Q, config("num_experts", 8), error("architecture-experts"))
mutant("experts-halved", Q, config("num_experts", 2), error("architecture-experts"))
mutant("expert-dropped", Q, drop("*.1.mlp.experts.3.*"), error("architecture-experts"))

# ----------------------------------------------------------------------------------------- the original tool's config


def regex(module: str) -> str:
    """A pattern for a module in every layer, for any beginning of its name."""
    parts = ["\\d+" if part.isdigit() else part for part in module.split(".")]
    return "re:.*" + "\\.".join(parts) + "$"


def original_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the Python qstream writes for a per-tensor static FP8 source: blocks where there are none, no activations,
    patterns of checkpoint names only, and no quantization_status."""
    names = checkpoint.tensors
    weights = [name.removesuffix(".weight") for name in sorted(names) if name.endswith(".weight")]
    packed = [name.removesuffix(".weight_packed") for name in sorted(names) if name.endswith(".weight_packed")]
    fp8 = [module for module in weights if f"{module}.weight_scale" in names]
    kept = [module for module in weights if module not in fp8 and "norm" not in module]

    def with_fused(modules: list[str]) -> list[str]:
        fused = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
        more = [f"{m.rpartition('.')[0]}.{fused[leaf]}" for m in modules if (leaf := m.rpartition(".")[2]) in fused]
        return list(dict.fromkeys(map(regex, modules + more)))

    mxfp4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
    block = args(8, "float", "block", block_structure=[128, 128])
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": {
            "group_0": {"targets": with_fused(packed), "format": "mxfp4-pack-quantized", "weights": mxfp4},
            "group_1": {"targets": with_fused(fp8), "format": "float-quantized", "weights": block},
        },
        "ignore": list(dict.fromkeys(map(regex, kept))),
    }


mutant("original-qstream-config", M, whole_quant(original_config),
       error("quantization-status"), error("strategy-mismatch", "self_attn", 8),
       error("checkpoint-names-only", "", 14))  # fmt: skip

# ------------------------------------------------------------------------------------------------- harmless changes


def every_module(part: str) -> Callable[[Checkpoint], list[str]]:
    return lambda c: sorted({name.rpartition(".")[0] for name in c.tensors if f".{part}." in name and "scale" in name})


def exact_names(checkpoint: Checkpoint) -> dict[str, Any]:
    made = checkpoint.config["quantization_config"]
    made["config_groups"]["group_0"]["targets"] = every_module("mlp")(checkpoint)
    made["config_groups"]["group_1"]["targets"] = every_module("self_attn")(checkpoint)
    return made


def groups_swapped(checkpoint: Checkpoint) -> dict[str, Any]:
    made = checkpoint.config["quantization_config"]
    groups = made["config_groups"]
    return made | {"config_groups": {"attention": groups["group_1"], "mlp": groups["group_0"]}}


def one_group_each(checkpoint: Checkpoint) -> dict[str, Any]:
    """Each projection of attention in a group of its own, all with the same arguments."""
    made = checkpoint.config["quantization_config"]
    attention = made["config_groups"].pop("group_1")
    for part in "qkvo":
        made["config_groups"][part] = attention | {"targets": [f"re:.*layers\\.\\d+\\.self_attn\\.{part}_proj$"]}
    return made


mutant("harmless-more-keys", M, quant("version", "0.20.0"), quant("global_compression_ratio", 1.5),
       quant("sparsity_config", {}), config("transformers_version", "5.23.0"))  # fmt: skip
mutant("harmless-no-ignore", M, quant("ignore", REMOVED))
mutant("harmless-conventional-ignore", L,
       ignore("lm_head", "model.embed_tokens", "re:.*visual.*", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"))
mutant("harmless-conventional-ignore-2", ONE, quant("ignore", ["lm_head", "re:.*vision_model.*", "re:.*embed_tokens"]))
mutant("harmless-coerced", M, quant("group_0.weights.num_bits", "4"), quant("group_0.weights.type", "FLOAT"),
       quant("group_0.weights.strategy", None), quant("group_1.weights.group_size", -1))  # fmt: skip
mutant("harmless-defaults", M, quant("group_0.weights.scale_dtype", REMOVED),
       quant("group_0.weights.dynamic", REMOVED), quant("group_0.output_activations", REMOVED),
       quant("kv_cache_scheme", REMOVED))  # fmt: skip
mutant("harmless-naive-quantized", M, quant("group_1.format", "naive-quantized"))
mutant("harmless-parts-only", M, targets(0, MLP.replace("|gate_up", "")), targets(1, ATTENTION.replace("|qkv", "")))
mutant("harmless-fused-target-beside", L, more_targets(0, "re:.*\\.mlp\\.gate_up_proj$"))
mutant("harmless-both-namespaces", M,
       targets(0, "re:model\\.language_model\\.layers.*mlp", "re:language_model\\.model\\.layers.*mlp"))
mutant("harmless-broad-pattern", L, targets(1, "re:model\\.layers\\.\\d+\\.self_attn\\..*"))
mutant("harmless-exact-names", M, whole_quant(exact_names))
mutant("harmless-exact-names-llama", L, whole_quant(exact_names))
mutant("harmless-groups-swapped", M, whole_quant(groups_swapped))
mutant("harmless-groups-alike", M, whole_quant(one_group_each))
mutant("harmless-older-names", M,
       rename("lm_head.*", "lm_head", "language_model.lm_head"),
       rename("model.vision_tower.*", "model.vision_tower", "vision_tower"),
       rename("model.multi_modal_projector.*", "model.multi_modal", "multi_modal"),
       rename("model.language_model.*", "model.language_model", "language_model.model"))  # fmt: skip
mutant("harmless-tied", L, drop("lm_head.weight"), config("tie_word_embeddings", True))
mutant("harmless-tied-with-the-same-head", L, config("tie_word_embeddings", True),
       Edit("tensor", lambda c: c.put("lm_head.weight", c.tensors["model.embed_tokens.weight"])))  # fmt: skip
mutant("harmless-scales-bf16", M,
       remake("*self_attn*.weight_scale", lambda a: (a.view(np.uint32) >> 16).astype(np.uint16), "BF16"))  # fmt: skip
mutant("harmless-zero-block", M, Edit("tensor", lambda c: zero_block(c)))
mutant("harmless-biases", L, config("attention_bias", True),
       *(add(f"model.layers.{n}.self_attn.{p}_proj.bias", bf16(np.zeros(128 if p in "kv" else 256)))
         for n in range(2) for p in "qkvo"))  # fmt: skip
mutant("harmless-rotary-buffer", L, add("model.layers.0.self_attn.rotary_emb.inv_freq", bf16(np.ones(32))))
mutant("harmless-scale-elsewhere", M, Edit("tensor", lambda c: move(c, f"{OUT}.weight_scale", 0)))
mutant("harmless-index-metadata", M, index("metadata", {}))
mutant("harmless-index-of-one", BLOCK, whole_index(None), Edit("index", lambda c: index_all(c)))
mutant("harmless-head-dim-implied", L, config("head_dim", REMOVED))
mutant("harmless-other-files", M, file_edit(lambda folder: (folder / "tokenizer.json").write_text("{}") and None))
mutant("harmless-plain-with-index", PLAIN, index("metadata.total_parameters", 1))


def zero_block(checkpoint: Checkpoint) -> None:
    """A block of zeros under the smallest scale, which some tools store there."""
    for part in ("weight_packed", "weight_scale"):
        array = checkpoint.array(f"{DOWN}.{part}")
        array[0, : 16 if part == "weight_packed" else 1] = 0
        checkpoint.put(f"{DOWN}.{part}", stored_array("U8", array))


def move(checkpoint: Checkpoint, name: str, shard: int) -> None:
    checkpoint.put(name, checkpoint.drop(name), list(checkpoint.shards)[shard])


def index_all(checkpoint: Checkpoint) -> None:
    total = sum(len(stored.data) for stored in checkpoint.tensors.values())
    weight_map = {name: checkpoint.shard_of(name) for name in sorted(checkpoint.tensors)}
    checkpoint.index = {"metadata": {"total_size": total}, "weight_map": weight_map}


