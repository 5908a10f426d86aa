#!/usr/bin/env python3
"""Compares what `qstream verify --json` says with reference.py, on checkpoints of every layout. Prints TAP.

    check_figures.py [--only WORD] [--keep FOLDER]

Figures have to agree to 1e-6, counts and positions exactly. QSTREAM names another binary, QSTREAM_TEST_SEED other
weights.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from verifying import QSTREAM, REPO, SEED, Answer, Tap, quantize, run, verify

sys.path.insert(0, str(REPO / "tests" / "models"))

from checkpoint_values import BLOCK, Folder, Image  # noqa: E402
from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from number_formats import bf16_decode, bf16_encode  # noqa: E402
from reference import EXPONENTS, SQNR_FIRST, SQNR_STEP_DB, Measured, Weight, measure, measure_folders  # noqa: E402
from safetensors_files import Tensor, checkpoint_tensors, write_json  # noqa: E402
from sources import (  # noqa: E402
    KINDS,
    STRATEGIES,
    Source,
    e2m1_codes,
    hard_source,
    image_by_others,
    rounded_at_random,
    rounded_with_feedback,
)

MODELS = REPO / "build" / "models"
TOLERANCE = 1e-6
SLACK = {
    "saturated": 1e-9,
    "flushed": 1e-9,
    "at_optimum": 1e-9,
    "scale_of_rule": 1e-9,
    "excess": 1e-7,
}  # a share of the error: a difference of two sums
RULES = {"mse": (), "amax": (), "qstream": (), "qstream/layernorm": ("--gamma", "layernorm"),
         "qstream/original": ("--gamma", "original")}  # fmt: skip
WITH_GAMMA = ("bf16", "f32", "fp8-tensor", "mxfp8", "experts", "stacked-transposed")
RECIPES = {
    "mistral3": REPO / "configs" / "mistral-medium-3.5-mxfp4.json",
    "llama": REPO / "configs" / "llama-mxfp4.json",
    "qwen3_moe": REPO / "configs" / "qwen3-moe-mxfp4.json",
}
SMALL: dict[str, Any] = {"hidden": 128, "mlp": 160, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 64, "vocab": 96,
                         "shards": 2, "seed": SEED}  # fmt: skip
HARD: dict[str, Any] = {"zeros": True, "outliers": True}
LAYOUTS: dict[str, Spec] = {
    "bf16": Spec(layout="bf16", arch="llama", **SMALL, **HARD),
    "f16": Spec(layout="bf16", dtype="f16", arch="llama", **SMALL, **HARD),
    "f32": Spec(layout="bf16", dtype="f32", arch="llama", **SMALL, **HARD),
    "fp8-tensor": Spec(layout="fp8-tensor", split_scales=True, **SMALL, **HARD),
    "fp8-tensor-bf16": Spec(layout="fp8-tensor", scale_dtype="BF16", scale_shape="one", **SMALL, **HARD),
    "fp8-block": Spec(layout="fp8-block", arch="llama", **SMALL, **HARD),
    "fp8-block-bf16": Spec(layout="fp8-block", scale_dtype="BF16", arch="llama", **SMALL),
    "mxfp8": Spec(layout="mxfp8", arch="llama", **SMALL, **HARD),
    "ct-channel": Spec(layout="ct-channel", arch="llama", **SMALL, **HARD),
    "ct-channel-bf16": Spec(layout="ct-channel", scale_dtype="BF16", **SMALL),
    "ct-tensor": Spec(layout="ct-tensor", **SMALL, **HARD),
    "experts": Spec(layout="bf16", arch="qwen3_moe", experts=2, **SMALL, **HARD),
    "experts-fp8": Spec(layout="fp8-block", arch="qwen3_moe", experts=2, **SMALL),
    "stacked": Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_5", experts=2, **SMALL, **HARD),
    "stacked-transposed": Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_vl", experts=2, **SMALL, **HARD),
}
Case = tuple[str, Callable[[], list[str]]]


# ---- comparing ----


def differences(where: str, got: Any, wanted: Any) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in wanted:
            yield from differences(f"{where}.{key}", got.get(key, "missing"), wanted[key])
    elif isinstance(wanted, list) and isinstance(got, list) and len(got) == len(wanted):
        for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
            yield from differences(f"{where}[{number}]", a, b)
    elif not same(where.rpartition(".")[2], got, wanted):
        yield f"{where}: {got}, by the reference {wanted}"


def same(key: str, got: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(got, int | float) and not isinstance(got, bool):
        return abs(got - wanted) <= max(TOLERANCE * abs(wanted), SLACK.get(key, 0.0))
    return type(got) is type(wanted) and got == wanted


def histogram_differences(answer: Any, groups: dict[tuple[str, str], Measured]) -> Iterator[str]:
    told = {(each["role"], each["format"]): each for each in answer["histograms"]}
    if told.keys() != groups.keys():
        yield f"histograms of {sorted(told)}, expected {sorted(groups)}"
    for key in told.keys() & groups.keys():
        sums, histogram = groups[key], told[key]
        wanted = {
            "first_db": SQNR_FIRST * SQNR_STEP_DB,
            "step_db": float(SQNR_STEP_DB),
            "counts": sums.sqnr_bins.tolist(),
        }
        yield from differences(f"histogram {key}", histogram["block_sqnr"], wanted)
        used = np.flatnonzero(sums.scale_codes)
        scales = None
        if len(used):
            scales = {"first": int(used[0]), "counts": sums.scale_codes[used[0] : used[-1] + 1].tolist()}
        yield from differences(f"scales {key}", histogram.get("scales"), scales)


def layer_of(name: str) -> int:
    found = re.search(r"\.(\d+)\.", name)
    assert found
    return int(found[1])


def role_of(name: str) -> str:
    return "attention" if ".self_attn." in name else "expert" if ".experts." in name else "mlp"


def figure_differences(answer: Any, weights: list[Weight]) -> Iterator[str]:
    """Weights, their sums by role and layer, and histograms."""
    rule = answer["settings"]["rule"]
    told = {each["name"]: each for each in answer["tensors"]}
    if told.keys() != {weight.name for weight in weights}:
        yield f"{len(told)} weights, expected {len(weights)}: {sorted(told.keys() ^ {w.name for w in weights})[:3]}"
        return
    groups: dict[tuple[str, str], list[Measured]] = {}
    layers: dict[int, list[Measured]] = {}
    for weight in weights:
        place = {"format": weight.format, "source_format": weight.source_format, "shape": list(weight.shape),
                 "role": role_of(weight.name), "layer": layer_of(weight.name), "read": 1.0}  # fmt: skip
        wanted = weight.sums.figures(rule) | place | {"worst_row": weight.worst_row, "worst_block": weight.worst_block}
        yield from differences(weight.name, told[weight.name], wanted)
        groups.setdefault((role_of(weight.name), weight.format), []).append(weight.sums)
        layers.setdefault(layer_of(weight.name), []).append(weight.sums)
    totals = {key: reduce(add, each) for key, each in groups.items()}
    for role in answer["roles"]:
        key = (role["role"], role["format"])
        if key not in groups:
            yield f"role {key} is not expected"
            continue
        yield from differences(f"role {key}", role, totals[key].figures(rule) | {"tensors": len(groups[key])})
    if len(answer["roles"]) != len(groups):
        yield f"{len(answer['roles'])} roles, expected {len(groups)}"
    if [each["layer"] for each in answer["layers"]] != sorted(layers):
        yield f"layers {[each['layer'] for each in answer['layers']]}, expected {sorted(layers)}"
        return
    for layer in answer["layers"]:
        sums = layers[layer["layer"]]
        yield from differences(
            f"layer {layer['layer']}", layer, reduce(add, sums).figures(rule) | {"tensors": len(sums)}
        )
    yield from histogram_differences(answer, totals)


def accounting_differences(answer: Any, source: Path, output: Path) -> Iterator[str]:
    """Of a folder that is as it should be."""
    accounting, read = answer["accounting"], answer["read"]
    parts = sum(accounting[key] for key in ("quantized", "kept", "consumed", "missing", "not_yet"))
    if parts != len(checkpoint_tensors(source)) or accounting["source_tensors"] != parts:
        yield f"accounting {accounting} of {len(checkpoint_tensors(source))} tensors"
    if accounting["missing"] or accounting["extra"] or accounting["output_tensors"] != len(checkpoint_tensors(output)):
        yield f"accounting {accounting}, and the output has {len(checkpoint_tensors(output))} tensors"
    if (read["tiles"], read["bytes"], read["tensors_unread"]) != (read["tiles_total"], read["bytes_total"], 0):
        yield f"not all was read: {read}"
    if different := [each for each in answer["kept"] if each["different"]]:
        yield f"kept and different: {different}"


def checked(answer: Answer, weights: list[Weight]) -> list[str]:
    return answer.problems() + list(figure_differences(answer.json, weights))


# ---- honest checkpoints ----


def passes(answer: Answer, what: str) -> list[str]:
    errors = answer.told("error")
    return [f"{what}: exit {answer.status}: {'; '.join(errors[:3])}"] if answer.status != 0 else []


def honest(source: Path, work: Path, recipe: Path, rule: str, exponents: range = EXPONENTS) -> list[str]:
    """Our own output passes with its manifest, without it, and without it as rounded to nearest; its figures are right.
    A norm that errors were weighed with cannot be told from the scales: it is given."""
    name, _, gamma = rule.partition("/")
    output = work / f"{source.name}-{rule.replace('/', '-')}"
    quantize(source, output, recipe, name, *RULES[rule])
    answer = verify(source, output, "--hash")
    problems = passes(answer, "with the manifest")
    weights = measure_folders(source, output, name, gamma or "none", exponents)
    problems += checked(answer, weights) + list(accounting_differences(answer.json, source, output))
    settings = answer.json["settings"]
    wanted = {"rounding": "nearest", "rounding_from": "manifest", "rule": name, "rule_from": "manifest",
              "gamma": gamma or "none"}  # fmt: skip
    problems += differences("settings", settings, wanted)
    (output / "qstream.json").unlink()
    known = ("--rule", name, "--gamma", gamma) if gamma else ()
    problems += passes(verify(source, output, *known), "no manifest")
    problems += passes(verify(source, output, "--rounding", "nearest", *known), "no manifest, --rounding nearest")
    shutil.rmtree(output)
    return problems


def layout_cases(work: Path) -> Iterator[Case]:
    for name, spec in LAYOUTS.items():
        source = work / name
        make_checkpoint(source, spec)
        for rule in RULES if name in WITH_GAMMA else ("mse", "amax", "qstream"):
            yield f"{name}, {rule}", partial(honest, source, work, RECIPES[spec.arch], rule)


def hard_cases(work: Path) -> Iterator[Case]:
    """Weights of every kind; those that no format of the source can hold are left out."""
    holds_all = list(KINDS)
    moderate = [kind for kind in KINDS if kind not in ("with_outliers", "subnormal", "huge", "near_the_threshold")]
    for layout, spec, kinds in (
        ("bf16", {}, holds_all),
        ("bf16", {"dtype": "f32"}, holds_all),
        ("bf16", {"dtype": "f16"}, moderate),
        ("fp8-tensor", {}, moderate),
        ("fp8-block", {}, holds_all),
        ("mxfp8", {}, moderate),
        ("ct-channel", {"scale_dtype": "BF16"}, moderate),
    ):
        name = f"hard-{layout}-{spec.get('dtype', 'codes' if layout != 'bf16' else 'bf16')}"
        source = hard_source(work / name, layout, SEED, kinds, **spec)
        for rule in ("mse", "amax", "qstream", "qstream/original"):
            yield f"{name}, {rule}", partial(honest, source, work, RECIPES["llama"], rule)


def long_rows(work: Path) -> list[str]:
    """Rows that are longer than what is read at once."""
    source = Source(work / "long", "bf16", SEED)
    source.layer(KINDS["heavy_tails"], [(2, 655360), (1, 32)], [(2, 655397)])
    return honest(source.write(), work, RECIPES["llama"], "mse", range(-40, 20))


def tensor_strategy(work: Path) -> list[str]:
    """A plain weight as FP8 with one scale."""
    recipe = work / "tensor.json"
    write_json(recipe, {"schema": "qstream.recipe/1", "name": "tensor", "rules": [
        {"match": "*.self_attn.*_proj", "format": "fp8", "strategy": "tensor"},
        {"match": "*.mlp.*_proj", "format": "fp8"}]})  # fmt: skip
    source = hard_source(work / "tensor", "bf16", SEED, ["normal", "with_zeros", "heavy_tails", "constant", "powers"])
    return honest(source, work, recipe, "mse")


def models_cases(work: Path) -> Iterator[Case]:
    """The sample models whole; that the best scale lies near the largest value is proven by the small cases."""
    for name, recipe, rule in (
        ("smollm2-fp8", RECIPES["mistral3"], "mse"),
        ("smollm2-bf16", RECIPES["llama"], "amax"),
    ):
        yield f"{name}, {rule}", partial(honest, MODELS / name, work, recipe, rule, range(-16, 3))


# ---- what others made ----


def to_nearest(_: np.random.Generator, quotients: np.ndarray) -> np.ndarray:
    return e2m1_codes(quotients)


def others(source: Path, work: Path, name: str, rounding: Any, strategy: str | None) -> list[str]:
    """Passes without options, whatever the rounding was; the figures say how many codes are not nearest."""
    output = image_by_others(source, work / f"{source.name}-{name}", rounding, strategy, SEED)
    answer = verify(source, output)
    problems = passes(answer, "no options")
    weights = measure_folders(source, output, answer.json["settings"]["rule"])
    problems += checked(answer, weights) + list(accounting_differences(answer.json, source, output))
    odd = sum(weight.sums.not_nearest.count for weight in weights if weight.format == "mxfp4")
    strict = verify(source, output, "--rounding", "nearest")
    if ("not-nearest" in {each["id"] for each in strict.findings}) != (odd > 0) or (odd and strict.status != 1):
        problems.append(
            f"{odd} codes are not nearest, and --rounding nearest says {strict.told('error')[:3] or 'nothing'}"
        )
    return problems


ROUNDINGS = {"nearest": to_nearest, "random": rounded_at_random, "feedback": rounded_with_feedback}
# In the others one element may be most of a row's energy, and rounding at random put it at the other end of its step.
EVEN_KINDS = ["normal", "with_zeros", "constant", "representable", "powers"]


def others_cases(work: Path) -> Iterator[Case]:
    make_checkpoint(work / "others", Spec(layout="bf16", arch="llama", **SMALL))
    make_checkpoint(work / "others-fp8", Spec(layout="fp8-block", arch="llama", **SMALL))
    hard_source(work / "others-even", "bf16", SEED, EVEN_KINDS)
    for source, strategy in (("others", None), ("others-fp8", "channel-f32"), ("others-even", "channel-bf16")):
        for name, rounding in ROUNDINGS.items():
            yield f"{source}, {name}", partial(others, work / source, work, name, rounding, strategy)
    for strategy in STRATEGIES:
        if strategy != "mxfp4":
            yield f"others, FP8 {strategy}", partial(others, work / "others", work, strategy, None, strategy)
            yield f"others, wrong scales of FP8 {strategy}", partial(wrong_scales, work / "others", work, strategy)
    yield "others, FP8 as BF16", partial(others, work / "others-fp8", work, "plain", to_nearest, "bf16")


WRONG_SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": lambda scales: scales * 0,
    "negative": lambda scales: -scales,
    "much too small": lambda scales: scales / 2**20,
    "much too large": lambda scales: scales * 2**20,
}


def wrong_scales(source: Path, work: Path, strategy: str) -> list[str]:
    """A weight whose scales are far off is found without any option, whatever the tool that made it."""
    output = image_by_others(source, work / f"wrong-{strategy}", None, strategy, SEED)
    module, problems = "model.layers.0.self_attn.o_proj", []
    tensor = checkpoint_tensors(output)[f"{module}.weight_scale"]
    good = np.array(tensor.array()).reshape(-1)
    for name, change in WRONG_SCALES.items():
        with np.errstate(over="ignore"):
            if tensor.dtype == "F32":
                codes = change(good).astype(np.float32).view(np.uint32)
            elif tensor.dtype == "BF16":
                codes = bf16_encode(change(bf16_decode(good)).astype(np.float32))
            elif name in ("zero", "negative"):
                continue  # E8M0 has neither
            else:
                codes = np.clip(good.astype(int) + (20 if name == "much too large" else -20), 0, 254)
        poke(output, tensor.name, list(range(len(good))), codes.tolist())
        answer = verify(source, output)
        if name.startswith("much"):  # the figures of others have no meaning
            problems += checked(answer, measure_folders(source, output, answer.json["settings"]["rule"]))
        if not any(each["subject"] == module and each["severity"] == "error" for each in answer.findings):
            lost = next(each for each in answer.json["tensors"] if each["module"] == module)["rel_error"]
            problems.append(f"{name}: exit {answer.status}, relative error {lost}: {answer.told()[:2] or 'no finding'}")
    return problems


# ---- values that are no numbers ----


def poke(folder: Path, name: str, at: list[int], values: list[int]) -> None:
    """Overwrites elements of a tensor with codes."""
    tensor: Tensor = checkpoint_tensors(folder)[name]
    codes = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}.get(tensor.dtype, np.uint8)
    flat = np.memmap(tensor.file, codes, "r+", tensor.offset, (int(np.prod(tensor.shape)),))
    flat[at] = values
    flat.flush()


def not_finite(
    work: Path, name: str, spec: Spec, in_source: bool, part: str, at: list[int], values: list[int]
) -> list[str]:  # fmt: skip
    """The finding names the weight and where the first is; the others are compared as ever."""
    source, output = work / f"{name}-source", work / f"{name}-output"
    make_checkpoint(source, spec)
    quantize(source, output, RECIPES[spec.arch])
    poke(source if in_source else output, part, at, values)
    answer = verify(source, output)
    weights = measure_folders(source, output, answer.json["settings"]["rule"])
    problems = checked(answer, weights)
    module = re.sub(r"\.weight(_packed|_scale|_scale_inv)?$", "", part)
    weight = next(each for each in weights if each.name == f"{module}.weight")
    tally = weight.sums.source_not_finite if in_source else weight.sums.output_not_finite
    wanted = "source-not-finite" if in_source else "output-not-finite"
    assert tally.first
    place = f"row {tally.first[0]}, column {tally.first[1]}:"
    found = [each for each in answer.findings if each["id"] == wanted]
    if not any(each["subject"] == module and place in each["message"] and str(tally.count) in each["message"]
               for each in found):  # fmt: skip
        problems.append(f"no {wanted} of {module} at {place} {tally.count}; found {answer.told('error')[:3]}")
    return problems + ([] if answer.status == 1 else [f"exit {answer.status}"])


def not_finite_cases(work: Path) -> Iterator[Case]:
    llama, mistral = "model.layers", "model.language_model.layers"
    bf16 = Spec(layout="bf16", arch="llama", **SMALL)
    f32 = Spec(layout="bf16", dtype="f32", arch="llama", **SMALL)
    fp8 = Spec(layout="fp8-tensor", **SMALL)
    for name, spec, in_source, part, at, values in (
        ("NaN of BF16", bf16, True, f"{llama}.0.mlp.up_proj.weight", [5000, 5001, 9999], [0x7FC0, 0x7F81, 0xFFFF]),
        ("infinite BF16", bf16, True, f"{llama}.1.self_attn.q_proj.weight", [300, 301], [0x7F80, 0xFF80]),
        ("NaN of F32 that rounding would hide", f32, True, f"{llama}.0.mlp.up_proj.weight", [77], [0x7F800001]),
        ("F32 that BF16 cannot hold", f32, True, f"{llama}.0.mlp.up_proj.weight", [78, 177], [0x7F7FFFFF, 0xFF7FFFFF]),
        ("NaN of FP8", fp8, True, f"{mistral}.0.mlp.gate_proj.weight", [31, 12345], [0x7F, 0xFF]),
        ("NaN scale of MXFP4", bf16, False, f"{llama}.1.mlp.down_proj.weight_scale", [17, 99], [255, 255]),
        ("NaN of FP8 in the output", bf16, False, f"{llama}.0.self_attn.o_proj.weight", [8191, 4], [0x7F, 0xFF]),
        ("infinite scale of FP8", bf16, False, f"{llama}.0.self_attn.o_proj.weight_scale", [3], [0x7F80]),
        ("tiny scale of FP8", bf16, False, f"{llama}.0.self_attn.o_proj.weight_scale", [0], [0x0001]),
    ):
        check = not_finite if name != "tiny scale of FP8" else odd_scale
        folder = re.sub(r"\W+", "-", name)
        yield name, partial(check, work, folder, spec, in_source, part, at, values)


def odd_scale(
    work: Path, name: str, spec: Spec, in_source: bool, part: str, at: list[int], values: list[int]
) -> list[str]:  # fmt: skip
    """Quotients beyond float32."""
    source, output = work / f"{name}-source", work / f"{name}-output"
    make_checkpoint(source, spec)
    quantize(source, output, RECIPES[spec.arch])
    poke(source if in_source else output, part, at, values)
    answer = verify(source, output)
    problems = checked(answer, measure_folders(source, output, answer.json["settings"]["rule"]))
    return problems + ([] if answer.status == 1 else [f"exit {answer.status}"])


# ---- the same for all threads, instruction sets, memory; samples and parts ----


def levels() -> list[str]:
    """The instruction sets that this machine has."""
    return [level for level in ("portable", "neon", "avx2", "avx512")
            if run("verify", "nowhere", "nowhere", "--cpu", level).stderr.count("--cpu") == 0]  # fmt: skip


def same_answers(source: Path, output: Path) -> list[str]:
    variants: list[list[str]] = [["--jobs", jobs] for jobs in ("1", "2", "3", "7")]
    variants += [["--cpu", level] for level in levels()]
    variants += [["--memory", size] for size in ("32MiB", "1GiB")]
    wanted, problems = verify(source, output), []
    for variant in variants:
        got = verify(source, output, *variant)
        if (got.status, got.output) != (wanted.status, wanted.output):
            first = next(differences("", got.json, wanted.json), "the text differs") if got.output else got.errors
            problems.append(f"{' '.join(variant)}: exit {got.status}: {first}")
    return problems


def samples(source: Path, output: Path) -> list[str]:
    whole, answer = verify(source, output).json, verify(source, output, "--sample", "0.1")
    problems = answer.problems()
    if verify(source, output, "--sample", "10%", "--jobs", "3").output != answer.output:
        problems.append("--sample 10% reads something else than --sample 0.1, or other threads do")
    read, told = answer.json["read"], answer.json["tensors"]
    problems += [f"read.{key} is {read[key]}, {whole['read'][key]} of all" for key in ("tiles_total", "bytes_total")
                 if read[key] != whole["read"][key]]  # fmt: skip
    if not 0.05 <= read["tiles"] / read["tiles_total"] <= 0.15 or not 0 < read["bytes"] < 0.2 * read["bytes_total"]:
        problems.append(f"a tenth is {read}")
    unread = [each for each in told if each["read"] == 0]
    if len(unread) != read["tensors_unread"] or len(told) != len(whole["tensors"]):
        problems.append(f"{len(unread)} of {len(told)} weights were not read, {read['tensors_unread']} are told")
    for each in told:
        share = each["elements"] / float(np.prod(each["shape"]))
        if abs(share - each["read"]) > TOLERANCE:
            problems.append(f"{each['name']}: {each['elements']} elements are read, {each['read']} is told")
        if each["read"] == 0 and (each["worst_row"] or each["worst_block"] or each["mean_abs_error"] is not None):
            problems.append(f"{each['name']} was not read and has figures")
    for sampled, role in zip(answer.json["roles"], whole["roles"], strict=True):
        if sampled["sqnr_db"] is not None and abs(sampled["sqnr_db"] - role["sqnr_db"]) > 1:
            problems.append(f"{role['role']}: {sampled['sqnr_db']} dB, {role['sqnr_db']} dB of all")
    everything = verify(source, output, "--sample", "1").json
    return problems + list(differences("--sample 1", everything | {"settings": whole["settings"]}, whole))


def parts(source: Path, output: Path, count: int) -> list[str]:
    """Each weight is read by one part, with the figures of the whole; together they find what one run finds."""
    whole = verify(source, output)
    answers = [verify(source, output, "--part", f"{number}/{count}") for number in range(count)]
    problems = [problem for answer in answers for problem in answer.problems()]
    read = [each for answer in answers for each in answer.json["tensors"] if each["read"] > 0]
    names = [each["name"] for each in read]
    if sorted(names) != sorted(each["name"] for each in whole.json["tensors"]):
        problems.append(
            f"{len(names)} weights are read, {len(set(names))} of {len(whole.json['tensors'])} different ones"
        )
        return problems
    by_name = {each["name"]: each for each in whole.json["tensors"]}
    problems += [each for part in read for each in differences(part["name"], part, by_name[part["name"]])]
    for key in ("tiles", "bytes"):
        total = sum(answer.json["read"][key] for answer in answers)
        if total != whole.json["read"][key]:
            problems.append(f"the parts read {total} {key}, the whole {whole.json['read'][key]}")
    found = {(each["id"], each["subject"], each["message"]) for answer in answers for each in answer.findings}
    wanted = {(each["id"], each["subject"], each["message"]) for each in whole.findings}
    if found != wanted:
        problems.append(f"found by one only: {sorted(found ^ wanted)[:4]}")
    if len([answer for answer in answers if answer.json["tensors"]]) < 2:
        problems.append("one part reads everything")
    return problems


def damaged(work: Path) -> tuple[Path, Path]:
    """A folder with something wrong in most weights, for the parts to find."""
    source, output = work / "damaged-source", work / "damaged"
    make_checkpoint(source, Spec(layout="bf16", arch="llama", **SMALL | {"layers": 4}))
    quantize(source, output, RECIPES["llama"])
    random = np.random.default_rng(SEED)
    for name, tensor in Folder(output).tensors.items():
        if name.endswith(("proj.weight_packed", "proj.weight", "norm.weight")):
            elements = int(np.prod(tensor.shape))
            poke(output, name, random.integers(elements, size=3).tolist(), [0x33, 0x55, 0x10])
    return source, output


def same_cases(work: Path) -> Iterator[Case]:
    source, output = MODELS / "smollm2-fp8", work / "smollm2"
    quantize(source, output, RECIPES["mistral3"], "amax")
    hard = hard_source(work / "same-hard", "bf16", SEED, list(KINDS))
    quantize(hard, work / "same-hard-output", RECIPES["llama"], "qstream")
    yield "a sample is reproducible and says what it is", partial(samples, source, output)
    yield "the sample model is the same for all threads, levels and memory", partial(same_answers, source, output)
    yield (
        "hard weights are the same for all threads, levels and memory",
        partial(same_answers, hard, work / "same-hard-output"),
    )
    wrong = damaged(work)
    yield "a damaged folder is the same for all threads, levels and memory", partial(same_answers, *wrong)
    for count in (2, 3, 5):
        yield f"{count} parts are the whole", partial(parts, *wrong, count)


# ---- the reference itself ----


def by_hand(_: Path) -> Iterator[Case]:
    """One row of which everything can be worked out on paper: nine ones, a six, zeros. The scale is 1; the six is
    stored as 4, a one as -1, a zero as -0."""
    source = np.zeros((1, BLOCK))
    source[0, :10] = [1] * 9 + [6]
    codes = np.zeros((1, BLOCK), np.uint8)
    codes[0, :11] = [2] * 8 + [10, 6, 8]
    values = np.where(codes >= 8, -1, 1) * np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])[codes & 7]
    image = Image("mxfp4", values, codes, np.ones((1, BLOCK)), np.array([[127]], np.uint8))

    def differ() -> list[str]:
        weight = measure("by.hand.weight", Image("plain", source), image, "mse")
        wanted = {
            "elements": 32, "exact": False,
            "sqnr_db": float(10 * np.log10(45 / 8)), "rel_error": float(np.sqrt(8 / 45)),
            "cosine": float((8 - 1 + 24) / np.sqrt(45 * 25)), "max_abs_error": 2.0, "mean_abs_error": 4 / 32,
            "saturated": 0.0, "flushed": 0.0, "source_not_finite": 0, "output_not_finite": 0, "not_nearest": 3,
            "blocks": {"count": 1, "zero": 0, "at_optimum": 0.0, "best_sqnr_db": None, "excess": 1.0,
                       "scale_of_rule": 1.0},
        }  # fmt: skip
        problems = list(differences("by hand", weight.sums.figures("mse"), wanted))
        if (
            weight.sums.not_nearest.first != (0, 8)
            or not weight.worst_block
            or weight.worst_block["squared_error"] != 8
        ):
            problems.append(f"{weight.sums.not_nearest} {weight.worst_block}")
        return problems

    yield "the reference agrees with pencil and paper", differ


GROUPS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "by-hand": by_hand,
    "layouts": layout_cases,
    "hard": hard_cases,
    "long": lambda work: iter([("rows longer than a tile", partial(long_rows, work))]),
    "tensor": lambda work: iter([("FP8 with one scale of a plain weight", partial(tensor_strategy, work))]),
    "others": others_cases,
    "not-finite": not_finite_cases,
    "same": same_cases,
    "models": models_cases,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, help="only this group of tests")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the checkpoints there, and leave them")
    options = parser.parse_args()
    work = options.keep or Path(tempfile.mkdtemp(prefix="verify-figures."))
    work.mkdir(parents=True, exist_ok=True)
    tap = Tap()
    for name, group in GROUPS.items():
        if options.only in (None, name):
            tap.run(list(group(work)))
    print(f"# {QSTREAM}, seed {SEED}, blocks of {BLOCK}")
    if not options.keep:
        shutil.rmtree(work)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
