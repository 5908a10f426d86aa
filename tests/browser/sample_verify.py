"""Reports of made-up verifications, for verify/page.html.

The worst blocks are quantized here, so that values, codes and scales belong together; the other figures are drawn from
what such weights give.
"""

import math
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from page_source import page_with
from sample_reports import MARKUP_NAME, RTL_NAME

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E8M0_BIAS = 127
BLOCK = 32
SQNR_BINS, SQNR_FIRST, SQNR_STEP = 64, -12.04, 1.505
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
TYPICAL = {"mxfp4": 18.9, "fp8-tensor": 31.6, "fp8-block": 31.9}  # dB


def e4m3(code: int) -> float:
    exponent, fraction = code >> 3 & 15, code & 7
    size = math.ldexp(8 + fraction, exponent - 10) if exponent else math.ldexp(fraction, -9)
    return -size if code & 128 else size


FP8 = [e4m3(code) for code in range(127)]


def mxfp4_block(source: list[float], scale_code: int) -> tuple[list[int], list[float]]:
    scale = 2.0 ** (scale_code - E8M0_BIAS)
    codes = [min(range(8), key=lambda code, s=s: abs(abs(s) / scale - E2M1[code])) | (8 if s < 0 else 0) for s in source]
    return codes, [math.copysign(E2M1[code & 7] * scale, s) for code, s in zip(codes, source, strict=True)]


def fp8_block(source: list[float], scale: float) -> tuple[list[int], list[float]]:
    codes = [
        min(range(127), key=lambda code, s=s: abs(abs(s) / scale - FP8[code])) | (128 if s < 0 else 0) for s in source
    ]
    return codes, [math.copysign(FP8[code & 127] * scale, s) for code, s in zip(codes, source, strict=True)]


def worst_block(rng: random.Random, form: str, shape: list[int], width: int = BLOCK) -> dict[str, Any]:
    source = [rng.gauss(0, 0.012) for _ in range(width)]
    source[rng.randrange(width)] *= 6
    amax = max(map(abs, source))
    if form == "mxfp4":
        code = math.floor(math.log2(amax)) - 2 + E8M0_BIAS
        codes, values = mxfp4_block(source, code)
        scale = 2.0 ** (code - E8M0_BIAS)
    else:
        code, scale = None, amax / 448 * 1.1
        codes, values = fp8_block(source, scale)
    error = sum((s - d) ** 2 for s, d in zip(source, values, strict=True))
    return {"row": rng.randrange(shape[0]), "column": BLOCK * rng.randrange(max(1, shape[1] // BLOCK)),
            "squared_error": error, "scale": scale, "scale_code": code, "source": source, "codes": codes,
            "values": values}  # fmt: skip


def no_figures() -> dict[str, Any]:
    """Of what was not read."""
    return {"elements": 0, "exact": False, "sqnr_db": None, "rel_error": None, "cosine": None, "max_abs_error": None,
            "mean_abs_error": None, "saturated": None, "flushed": None, "source_not_finite": 0, "output_not_finite": 0,
            "not_nearest": 0, "blocks": None}  # fmt: skip


def figures(sqnr: float, elements: int, form: str, excess: float = 0.004, not_nearest: int = 0) -> dict[str, Any]:
    relative = 10 ** (-sqnr / 20)
    blocks = None
    if form == "mxfp4":
        blocks = {"count": elements // BLOCK, "zero": 0, "at_optimum": 1 - 12 * excess,
                  "best_sqnr_db": sqnr - 10 * math.log10(1 - excess), "excess": excess,
                  "scale_of_rule": 1.0}  # fmt: skip
    return {"elements": elements, "exact": False, "sqnr_db": sqnr, "rel_error": relative,
            "cosine": math.sqrt(1 - relative**2) if relative < 1 else 0.0, "max_abs_error": 0.9 * relative,
            "mean_abs_error": 0.012 * relative, "saturated": 3e-7, "flushed": 0.061 if form == "mxfp4" else 0.0021,
            "source_not_finite": 0, "output_not_finite": 0, "not_nearest": not_nearest, "blocks": blocks}  # fmt: skip


def exact_figures(elements: int, form: str) -> dict[str, Any]:
    made = figures(20.0, elements, form, 0.0)
    made |= {"exact": True, "sqnr_db": None, "rel_error": 0.0, "cosine": 1.0, "max_abs_error": 0.0, "mean_abs_error": 0.0}
    if made["blocks"]:
        made["blocks"] |= {"best_sqnr_db": None, "at_optimum": 1.0, "excess": None}
    return made


def pooled(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several tensors, near enough for a sample."""
    read = [tensor for tensor in tensors if tensor["elements"]]
    known = [tensor for tensor in read if tensor["sqnr_db"] is not None]
    elements = sum(tensor["elements"] for tensor in read)
    if not read:
        return no_figures()
    form = read[0]["format"] if len({tensor["format"] for tensor in read}) == 1 else "mixed"
    if not known:
        return exact_figures(elements, form) if all(tensor["exact"] for tensor in read) else no_figures()
    made = figures(sum(tensor["sqnr_db"] for tensor in known) / len(known), elements, form)
    for key in ("not_nearest", "source_not_finite", "output_not_finite"):
        made[key] = sum(tensor[key] for tensor in read)
    return made


def bell(rng: random.Random, bins: int, middle: float, width: float, total: int) -> list[int]:
    return [int(total * math.exp(-(((place - middle) / width) ** 2)) * rng.uniform(0.95, 1.05)) for place in range(bins)]


class Verification:
    def __init__(self, source: str, folder: str, recipe: str | None) -> None:
        self.rng = random.Random(11)
        self.tensors: list[dict[str, Any]] = []
        self.findings: list[dict[str, str]] = []
        self.kept: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {
            "schema": "qstream.verify/1", "qstream": "0.1.0", "verdict": "pass", "source": source, "folder": folder,
            "manifest": None, "state": "complete",
            "settings": {"rounding": "nearest", "rounding_from": "manifest", "rule": "mse", "rule_from": "manifest",
                         "gamma": "none", "recipe": recipe, "thresholds": None, "sample": None, "part": None,
                         "hash": False}}  # fmt: skip

    def add(self, module: str, role: str, layer: int | None, form: str, shape: list[int], **changes: Any) -> dict[str, Any]:
        middle = TYPICAL[form] + self.rng.gauss(0, 0.12) - (0.35 if module.endswith("down_proj") else 0)
        if layer is not None:
            middle += 0.3 * math.sin(layer / 7)
        elements = math.prod(shape)
        excess = abs(self.rng.gauss(0.004, 0.001))
        tensor = {"name": f"{module}.weight", "module": module, "role": role, "layer": layer,
                  "projection": module.rsplit(".", 1)[-1], "format": form, "source_format": "fp8-tensor", "shape": shape,
                  "read": 1.0, **figures(middle, elements, form, excess),
                  "worst_row": {"row": self.rng.randrange(shape[0]), "rel_error": 10 ** (-(middle - 2) / 20),
                                "sqnr_db": middle - 2},
                  "worst_block": worst_block(self.rng, form, shape)}  # fmt: skip
        self.tensors.append(tensor | changes)
        return self.tensors[-1]

    def attention(self, prefix: str, layer: int, hidden: int, narrow: int) -> None:
        for leaf in ATTENTION:
            shape = [hidden if leaf in ("q_proj", "o_proj") else narrow, hidden]
            self.add(f"{prefix}.self_attn.{leaf}", "attention", layer, "fp8-tensor", shape)

    def mlp(self, prefix: str, role: str, layer: int, hidden: int, wide: int) -> None:
        for leaf in MLP:
            shape = [hidden, wide] if leaf == "down_proj" else [wide, hidden]
            self.add(f"{prefix}.{leaf}", role, layer, "mxfp4", shape)

    def keep(self, role: str, tensors: int, size: int, different: int = 0, form: str = "plain") -> None:
        self.kept.append({"role": role, "format": form, "tensors": tensors, "bytes": size, "different": different})

    def find(self, name: str, severity: str, subject: str, message: str) -> None:
        self.findings.append({"id": name, "severity": severity, "subject": subject, "message": message})

    def forget(self, tensor: dict[str, Any]) -> None:
        """As if no tile of it had been read."""
        tensor |= {"read": 0.0, **no_figures(), "worst_row": None, "worst_block": None}

    def groups(self, key: Callable[[dict[str, Any]], Any]) -> list[tuple[Any, list[dict[str, Any]]]]:
        found: dict[Any, list[dict[str, Any]]] = {}
        for tensor in self.tensors:
            found.setdefault(key(tensor), []).append(tensor)
        return list(found.items())

    def histogram(self, role: str, form: str, tensors: list[dict[str, Any]]) -> dict[str, Any]:
        blocks = sum(tensor["elements"] for tensor in tensors) // BLOCK
        middle = (TYPICAL.get(form, 20) - SQNR_FIRST) / SQNR_STEP
        made: dict[str, Any] = {"role": role, "format": form, "block_sqnr": {
            "first_db": SQNR_FIRST, "step_db": SQNR_STEP,
            "counts": bell(self.rng, SQNR_BINS, middle, 1.6, blocks // 3)}}  # fmt: skip
        if form == "mxfp4":
            scales = bell(self.rng, 12, 5, 1.8, blocks // 3)
            made["scales"] = {"first": 0, "counts": [blocks // 900] + [0] * 111 + scales} if role == "mlp" else {
                "first": 112, "counts": scales}  # fmt: skip
        return made

    def finish(self, **changes: Any) -> dict[str, Any]:
        counts = {name: sum(entry["severity"] == name for entry in self.findings) for name in ("error", "warning", "note")}
        kept = sum(entry["tensors"] for entry in self.kept)
        quantized, read = len(self.tensors), sum(tensor["elements"] for tensor in self.tensors)
        every = sum(math.prod(tensor["shape"]) for tensor in self.tensors)
        plain = sum(entry["bytes"] for entry in self.kept)
        self.report |= {
            "verdict": "fail" if counts["error"] else "pass", "counts": counts, "findings": self.findings,
            "accounting": {"source_tensors": 2 * quantized + kept, "quantized": quantized, "kept": kept,
                           "consumed": quantized, "missing": 0, "output_tensors": 2 * quantized + kept, "extra": 0,
                           "not_yet": 0},
            "read": {"tiles": read >> 18, "tiles_total": every >> 18, "bytes": int(1.53 * read) + 2 * plain,
                     "bytes_total": int(1.53 * every) + 2 * plain,
                     "tensors_unread": sum(not tensor["elements"] for tensor in self.tensors)},
            "roles": [{"role": role, "format": form, "tensors": len(group), **pooled(group)}
                      for (role, form), group in self.groups(lambda tensor: (tensor["role"], tensor["format"]))],
            "layers": [{"layer": layer, "tensors": len(group), **pooled(group)}
                       for layer, group in self.groups(lambda tensor: tensor["layer"]) if layer is not None],
            "tensors": self.tensors, "kept": self.kept, "outputs": None,
            "histograms": [self.histogram(role, form, group) for (role, form), group in
                           self.groups(lambda tensor: (tensor["role"], tensor["format"]))]}  # fmt: skip
        for key, value in changes.items():
            self.report[key] = self.report[key] | value if isinstance(value, dict) else value
        return self.report


def dense(layers: int, hidden: int = 12288, wide: int = 28672) -> Verification:
    made = Verification("/models/Mistral-Medium-3.5-128B", "/out/Mistral-Medium-3.5-128B-MXFP4",
                        "mistral-medium-3.5-mxfp4")  # fmt: skip
    for layer in range(layers):
        prefix = f"model.language_model.layers.{layer}"
        made.attention(prefix, layer, hidden, hidden // 12)
        made.mlp(f"{prefix}.mlp", "mlp", layer, hidden, wide)
    made.keep("norm", 2 * layers + 1, 2 * hidden * (2 * layers + 1))
    made.keep("embedding", 1, 2 * 131072 * hidden)
    made.keep("head", 1, 2 * 131072 * hidden)
    return made


def moe(layers: int, experts: int) -> Verification:
    made = Verification("/models/Sample-MoE", "/out/Sample-MoE-MXFP4", "qwen3-moe-mxfp4")
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        made.attention(prefix, layer, 4096, 512)
        for expert in range(experts):
            made.mlp(f"{prefix}.mlp.experts.{expert}", "expert", layer, 4096, 1536)
    made.keep("router", layers, 2 * layers * experts * 4096)
    made.keep("norm", 2 * layers + 1, 2 * 4096 * (2 * layers + 1))
    return made


def small_pass() -> dict[str, Any]:
    """Also: an exact tensor, a warning, a note, and a last row of blocks that is short."""
    made = dense(4, 576, 1536)
    made.tensors[2] |= exact_figures(48 * 576, "fp8-tensor") | {"worst_row": None, "worst_block": None}
    made.tensors[0]["worst_block"] = worst_block(made.rng, "fp8-tensor", [576, 576], 17)
    made.find("config-key-added", "warning", "config.json", "torch_dtype is not in the source's config.json.")
    made.find("manifest-source", "note", "qstream.json", "The manifest names the source by another path.")
    weights = [{"layer": tensor["layer"], "name": tensor["module"], "rel_error": 0 if tensor["exact"] else (i + 1) / 1000}
               for i, tensor in enumerate(made.tensors)]  # fmt: skip
    return made.finish() | {"outputs": {"tokens": 16384, "weights": weights}}


def failing() -> dict[str, Any]:
    made = dense(24, 4096, 14336)
    tensors = {tensor["module"].split(".", 3)[3]: tensor for tensor in made.tensors}
    for layer in range(8, 20):
        broken = tensors[f"{layer}.mlp.up_proj"]
        broken |= figures(15.1 - layer / 20, broken["elements"], "mxfp4", 0.21, not_nearest=4000 + layer)
        made.find("not-nearest", "error", broken["name"],
                  f"{4000 + layer} codes are not nearest to their source values; the first is at row {layer}, column 7.")  # fmt: skip
    worst = tensors["3.mlp.down_proj"]
    worst |= figures(-2.4, worst["elements"], "mxfp4", 0.93, not_nearest=52_000_000)
    worst["worst_block"]["values"] = [-value for value in worst["worst_block"]["values"]]
    worst["worst_block"]["source"][5] = None
    worst["output_not_finite"] = 32
    made.find("below-threshold", "error", worst["module"], "SQNR -2.4 dB, at least 17 dB are asked for.")
    made.find("output-not-finite", "error", worst["name"], "32 values are NaN, the first at row 0, column 64.")
    made.find("scale-not-of-rule", "warning", tensors["5.mlp.gate_proj"]["name"],
              "0.4 % of the scales are not those of the rule mse, the first at row 12, column 96.")  # fmt: skip
    exact = tensors["2.self_attn.k_proj"]
    exact |= exact_figures(exact["elements"], "fp8-tensor") | {"worst_row": None, "worst_block": None}
    for number in range(700):
        made.find("tensor-missing", "error", f"model.vision_tower.blocks.{number}.norm.weight",
                  "The output has no such tensor.")  # fmt: skip
    made.find("config-key-changed", "note", "config.json: rope_scaling.factor", "16.0 in the source, 8.0 in the output.")
    made.kept[0]["different"] = 2
    made.report["settings"] |= {"rule_from": "scales", "rounding_from": "option", "thresholds": "mxfp4-strict",
                                "gamma": "layernorm"}  # fmt: skip
    return made.finish(accounting={"source_tensors": 2 * len(made.tensors) + 51 + 700, "missing": 700, "extra": 3})


def sampled() -> dict[str, Any]:
    made = dense(36, 4096, 14336)
    for tensor in made.tensors:
        if made.rng.random() < 0.3:
            made.forget(tensor)
        else:
            tensor |= {"read": 0.01, "elements": int(tensor["elements"] * 0.01)}
    return made.finish(settings={"sample": 0.01, "part": "1/4", "rule": None, "rule_from": None,
                                 "rounding": "any", "rounding_from": "default"})  # fmt: skip


def unfinished() -> dict[str, Any]:
    made = dense(9)
    return made.finish(state="unfinished", accounting={"source_tensors": 2 * 63 + 21 + 1100, "not_yet": 1100})


def empty() -> dict[str, Any]:
    made = Verification("SRC", "DST", None)
    made.keep("other", 3, 4096)
    return made.finish(settings={"rule": None, "rule_from": None, "rounding": "any", "rounding_from": "default"})


def hostile() -> dict[str, Any]:
    """Names that are markup, reorder text, or never end; figures that are missing or extreme."""
    made = Verification(MARKUP_NAME, "<b>bold</b>\u202e", MARKUP_NAME)
    names = (MARKUP_NAME, RTL_NAME, "x" * 20000, "", "__proto__", "constructor", "@DATA@", "line\nbreak\ttab\u2028end",
             "\ud800 lone surrogate")  # fmt: skip
    for name in names:
        tensor = made.add(name, "other", None, "mxfp4", [4, 64])
        tensor["name"] = name
        made.find("corrupt", "error", name, MARKUP_NAME)
    for number in range(70):  # as many projections: the map must not grow without an end
        made.add(f"model.layers.{number % 3}.odd{number}", "other", number % 3, "mxfp4", [32, 32])
    made.forget(made.tensors[9])
    made.tensors[10] |= {"sqnr_db": None, "rel_error": None, "cosine": None}  # error without energy
    made.tensors[11] |= {"sqnr_db": -310.5, "max_abs_error": 1.5e300, "mean_abs_error": 5e-324}
    made.tensors[12]["worst_block"] |= {"source": [None] * 32, "values": [None] * 32}
    made.tensors[13]["worst_block"] |= {"source": [0.0] * 32, "values": [0.0] * 32, "codes": [0] * 32, "scale": 2.0**-127,
                                        "scale_code": 0, "squared_error": 0.0}  # fmt: skip
    made.tensors[14]["worst_block"] |= {"scale": None, "scale_code": 255, "values": [None] * 32}
    made.tensors[15]["worst_block"] |= {"source": [1e38] * 32, "squared_error": None}
    made.tensors[16] |= {"format": "<i>format</i>", "role": "other", "shape": []}
    made.find(MARKUP_NAME, "error", MARKUP_NAME, MARKUP_NAME)
    return made.finish()


def sample_verifications() -> Iterable[tuple[str, Callable[[], dict[str, Any]]]]:
    """By the name of their files; made one at a time."""
    return (
        ("verify-pass", small_pass),
        ("verify-fail", failing),
        ("verify-tall", lambda: dense(100).finish()),
        ("verify-moe", partial(lambda made: made.finish(), moe(48, 128))),
        ("verify-sampled", sampled),
        ("verify-unfinished", unfinished),
        ("verify-empty", empty),
        ("verify-hostile", hostile),
    )


def write_verifications(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in sample_verifications():
        (folder / f"{name}.html").write_text(page_with("verify", {"verify": made()}), encoding="utf-8")
