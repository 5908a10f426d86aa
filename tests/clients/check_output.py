#!/usr/bin/env python3
"""Checks the output of `qstream quantize SRC DST` against the source, with code that shares nothing with the tool.

    check_output.py SRC DST --rule amax|qstream|mse [--gamma none|layernorm|original] [--recipe-map mlp=mxfp4,attn=fp8]

Prints `ok ...` or `FAIL ...: why` for each check and a summary; exit status 1 when any failed. Run it with
build/venv/bin/python (tests/models/venv.sh).
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))

from expected_output import Copy, Expected, Mxfp4Weight, Scaling, SourceModel, expected_output  # noqa: E402
from number_formats import Codes8, e2m1_decode, e2m1_unpack, e8m0_decode  # noqa: E402
from safetensors_files import (  # noqa: E402
    DTYPE_BYTES,
    BadFile,
    Header,
    Tensor,
    checkpoint_shards,
    read_header,
)
from scale_rules import (  # noqa: E402
    BLOCK,
    E8M0_MAX,
    RULES,
    amax_scales,
    blocks_of,
    codes_at,
    qstream_codes_at,
    quantize_mse,
    squared_errors,
)

INDEX = "model.safetensors.index.json"
NOT_CARRIED = re.compile(r"consolidated.*|params\.json|config\.json|.*\.safetensors|.*\.safetensors\.index\.json|\..*")
WRITTEN_BY_QSTREAM = {INDEX, "config.json", "qstream.json", "README.md"}
VALUES_AT_ONCE = 1 << 21
SHOWN = 3  # failures of one kind


class Report:
    """Prints one line per check and counts the failures."""

    def __init__(self) -> None:
        self.checks = self.failures = 0

    def check(self, what: str, problems: Iterable[str]) -> None:
        found = list(problems)
        self.checks += 1
        self.failures += bool(found)
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        print(f"FAIL {what}: {'; '.join(found[:SHOWN])}{more}" if found else f"ok {what}", flush=True)


# --- the files themselves ---


def read_headers(folder: Path) -> tuple[dict[str, Header], list[str]]:
    headers, problems = {}, []
    for shard in checkpoint_shards(folder):
        try:
            headers[shard.name] = read_header(shard)
        except (BadFile, OSError, ValueError, KeyError) as error:
            problems.append(f"{shard.name}: {error}")
    return headers, problems


def header_problems(headers: dict[str, Header]) -> Iterator[str]:
    for name, header in headers.items():
        if header.data_start % 8 or header.padding.strip(b" "):
            yield f"{name}: data begins at {header.data_start}, behind {header.padding!r}"
        if header.metadata != {"format": "pt"}:
            yield f"{name}: __metadata__ is {header.metadata}"
        offsets = [tensor.offset for tensor in header.tensors]
        if offsets != sorted(offsets):
            yield f"{name}: names are not in the order of the data"
        for tensor in header.tensors:
            if tensor.offset % DTYPE_BYTES[tensor.dtype]:
                yield f"{name}: {tensor.name} is not aligned to its dtype"


def library_problems(headers: dict[str, Header]) -> Iterator[str]:
    """What the reference library reads otherwise than we do."""
    for name, header in headers.items():
        if not header.tensors:
            yield f"{name}: no tensors"
            continue
        with safe_open(header.tensors[0].file, framework="numpy") as opened:
            if set(opened.keys()) != {tensor.name for tensor in header.tensors}:
                yield f"{name}: other names"
                continue
            for tensor in header.tensors:
                view = opened.get_slice(tensor.name)
                if (view.get_dtype(), tuple(view.get_shape())) != (tensor.dtype, tensor.shape):
                    yield f"{tensor.name}: {view.get_dtype()} {view.get_shape()}"
                elif tensor.dtype in ("U8", "F32") and not same_bytes(opened.get_tensor(tensor.name), tensor.array()):
                    yield f"{tensor.name}: other values"


def index_problems(folder: Path, headers: dict[str, Header]) -> Iterator[str]:
    stray = {file.name for file in folder.glob("*.safetensors*")} - headers.keys() - {INDEX}
    if stray:
        yield f"files that no loader reads: {sorted(stray)}"
    if not (folder / INDEX).exists():
        if list(headers) != ["model.safetensors"]:
            yield f"no {INDEX} for {sorted(headers)}"
        return
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    written = {tensor.name: name for name, header in headers.items() for tensor in header.tensors}
    if index["weight_map"] != written:
        differ = sorted(index["weight_map"].items() ^ written.items())
        yield f"weight_map differs from the shards: {differ[:SHOWN]}"
    total = sum(tensor.nbytes for header in headers.values() for tensor in header.tensors)
    if index["metadata"].get("total_size") != total:
        yield f"total_size is {index['metadata'].get('total_size')}, the tensors have {total}"
    parameters = index["metadata"].get("total_parameters")
    if not isinstance(parameters, int) or parameters <= 0:
        yield f"total_parameters is {parameters}"


def carried_problems(source: Path, output: Path) -> Iterator[str]:
    carried = {file.name for file in source.iterdir() if file.is_file() and not NOT_CARRIED.fullmatch(file.name)}
    for name in sorted(carried):
        if not (output / name).exists():
            yield f"{name} is missing"
        elif (output / name).read_bytes() != (source / name).read_bytes():
            yield f"{name} differs"
    for file in sorted(output.iterdir()):
        if file.name not in carried | WRITTEN_BY_QSTREAM and file.suffix != ".safetensors":
            yield f"{file.name} should not be there"
    yield from (f"{file.name} should not be there" for file in output.glob("consolidated*"))


# --- the tensors ---


def same_bytes(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bit for bit: NaNs and signs of zero count."""
    return np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes()


def table_problems(found: dict[str, Tensor], expected: Expected) -> Iterator[str]:
    wanted = {name: (copy.dtype, copy.shape) for name, copy in expected.copies.items()}
    for module, weight in expected.mxfp4.items():
        rows, columns = weight.source.array.shape
        wanted[f"{module}.weight_packed"] = ("U8", (rows, columns // 2))
        wanted[f"{module}.weight_scale"] = ("U8", (rows, columns // BLOCK))
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{name} is missing"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"{name} should not be there"
    for name in sorted(wanted.keys() & found.keys()):
        if (found[name].dtype, found[name].shape) != wanted[name]:
            yield f"{name} is {found[name].dtype} {found[name].shape}, expected {wanted[name]}"


def copy_problem(name: str, copy: Copy, found: dict[str, Tensor]) -> str | None:
    if name not in found:
        return f"{name} is missing"
    return None if same_bytes(found[name].array(), copy.array()) else f"{name} has other bytes"


def mxfp4_problem(module: str, weight: Mxfp4Weight, found: dict[str, Tensor], rule: str, sample: int) -> str | None:
    """Compares a whole weight with the rule, some rows at a time."""
    names = (f"{module}.weight_packed", f"{module}.weight_scale")
    if missing := [name for name in names if name not in found]:
        return f"{missing[0]} is missing"
    packed, scales = (found[name].array() for name in names)
    rows, columns = weight.source.array.shape
    if packed.shape != (rows, columns // 2) or scales.shape != (rows, columns // BLOCK):
        return f"{module}: packed {packed.shape} and scales {scales.shape} do not fit {(rows, columns)}"
    step = max(1, VALUES_AT_ONCE // columns)
    random = np.random.default_rng(rows * columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        blocks = blocks_of(weight.source.rows(start, stop))
        gamma = None
        if weight.gamma is not None:
            gamma = np.broadcast_to(weight.gamma, (stop - start, columns)).reshape(-1, BLOCK)
        codes = e2m1_unpack(packed[start:stop]).reshape(-1, BLOCK)
        found_scales = np.asarray(scales[start:stop]).reshape(-1)
        wrong = wrong_blocks(blocks, gamma, codes, found_scales, rule, random, max(1, sample * (stop - start) // rows))
        if wrong.any():
            row, block = divmod(int(np.flatnonzero(wrong)[0]), columns // BLOCK)
            first = f"first row {start + row} block {block}"
            return f"{module}: {int(wrong.sum())} blocks of rows {start}..{stop} differ, {first}"
    return None


def wrong_blocks(
    blocks: np.ndarray,
    gamma: np.ndarray | None,
    codes: Codes8,
    scales: Codes8,
    rule: str,
    random: np.random.Generator,
    sample: int,
) -> np.ndarray:
    """Which blocks are not what the rule makes of them."""
    if rule == "mse":
        # Codes and `never worse than amax` for all blocks, the best exponent of all 255 for a sample.
        wrong = (scales > E8M0_MAX) | (codes != codes_at(blocks, scales)).any(axis=1)
        wrong |= squared_errors(blocks, scales) > squared_errors(blocks, amax_scales(blocks))
        chosen = random.choice(len(blocks), min(sample, len(blocks)), replace=False)
        wrong[chosen] |= quantize_mse(blocks[chosen]).scales != scales[chosen]
        return wrong
    made = RULES[rule](blocks, gamma)
    wrong = (codes != made.codes).any(axis=1) | (scales != made.scales)
    if rule == "amax":
        # Blocks of zeros and subnormals: any scale will do that gives the same values.
        tiny = wrong & (made.scales == 0) & (scales <= E8M0_MAX)
        values = e2m1_decode(codes[tiny]) * e8m0_decode(scales[tiny])[:, None]
        wrong[tiny] = (values != e2m1_decode(made.codes[tiny]) * e8m0_decode(made.scales[tiny])[:, None]).any(axis=1)
    if made.also_valid is not None:
        near_tie = wrong & (scales == made.also_valid) & (made.also_valid != made.scales)
        wrong[near_tie] = (codes[near_tie] != qstream_codes_at(blocks[near_tie], scales[near_tie])).any(axis=1)
    return wrong


# --- config.json ---


def member_spans(text: str) -> dict[str, tuple[int, int]]:
    """Where the value of each member of a JSON object begins and ends."""
    decoder, between, spans = json.JSONDecoder(), re.compile(r"[\s,:]*"), {}

    def skip(position: int) -> int:
        match = between.match(text, position)
        return match.end() if match else position

    position = skip(text.index("{") + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        start = skip(position)
        _, end = decoder.raw_decode(text, start)
        spans[key] = (start, end)
        position = skip(end)
    return spans


def splice_problems(source: str, output: str) -> Iterator[str]:
    """config.json must be the source's, byte by byte, around the value of quantization_config."""
    key = "quantization_config"
    spans, output_spans = member_spans(source), member_spans(output)
    if key not in output_spans:
        yield f"there is no {key}"
        return
    if key in spans:
        start, end = spans[key]
        value_start, value_end = output_spans[key]
        if output[:value_start] != source[:start] or output[value_end:] != source[end:]:
            yield f"it differs from the source's outside of {key}"
        return
    before = len(os.path.commonprefix([source, output]))
    after = len(os.path.commonprefix([source[::-1], output[::-1]]))
    if before + after < len(source) or list(json.loads(output).keys() - json.loads(source).keys()) != [key]:
        yield f"it is not the source's with {key} put in"


def group_problems(config: dict[str, Any], expected: Expected, is_reference: bool) -> Iterator[str]:
    """The groups describe what the tensors hold."""
    reference = json.loads((HERE / "reference_quantization_config.json").read_text())
    if is_reference:
        if config != reference:
            keys = [key for key in reference | config if config.get(key) != reference.get(key)]
            yield f"differs from reference_quantization_config.json in {keys}"
        return
    for key in ("quant_method", "quantization_status"):
        if config.get(key) != reference[key]:
            yield f"{key} is {config.get(key)}"
    groups = list(config.get("config_groups", {}).values())
    formats = {group.get("format") for group in groups}
    if config.get("format") != ("mixed-precision" if len(formats) > 1 else next(iter(formats), None)):
        yield f"format is {config.get('format')} over groups of {formats}"
    wanted = [fp8_group(scaling, any(expected.fp8[module] is scaling for module in expected.static_input))
              for scaling in set(expected.fp8.values())]  # fmt: skip
    wanted += [reference["config_groups"]["group_0"]] if expected.mxfp4 else []
    for group in wanted:
        if not any(contains(found, {**group, "targets": found.get("targets")}) for found in groups):
            yield f"no group says {group}"
    if len(groups) != len(wanted):
        yield f"{len(groups)} groups, expected {len(wanted)}"


def fp8_group(scaling: Scaling, static_input: bool) -> dict[str, Any]:
    """What a group of FP8 weights must say at least."""
    weights: dict[str, Any] = {"num_bits": 8, "type": "float", "strategy": scaling.value, "symmetric": True,
                               "dynamic": False}  # fmt: skip
    if scaling is Scaling.BLOCK:
        weights["block_structure"] = [128, 128]
    if scaling is Scaling.MX:
        weights |= {"group_size": BLOCK, "scale_dtype": "torch.uint8"}
    activations: dict[str, Any] = {"num_bits": 8, "type": "float", "dynamic": not static_input}
    if scaling is Scaling.CHANNEL:
        activations["strategy"] = "token"
    output_format = "mxfp8-quantized" if scaling is Scaling.MX else "float-quantized"
    return {"weights": weights, "input_activations": activations, "format": output_format}


def contains(found: Any, wanted: Any) -> bool:
    """Whether every member of `wanted` is in `found`, at any depth."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and contains(found[key], value) for key, value in wanted.items())
    return found == wanted


def runtime_names(modules: Iterable[str], multimodal: bool) -> set[str]:
    """vLLM's names: the parts of a multimodal model without `model.`; q/k/v and gate/up (but experts') fused."""
    names = set()
    for name in modules:
        if multimodal:
            name = re.sub(r"^model\.language_model\.", "language_model.model.", name)
            name = re.sub(r"^lm_head$", "language_model.lm_head", name).removeprefix("model.")
        if ".experts." not in name:
            name = re.sub(r"\.[qkv]_proj$", ".qkv_proj", name)
            name = re.sub(r"\.(gate|up)_proj$", ".gate_up_proj", name)
        names.add(name)
    return names


def matches(patterns: list[str], name: str) -> bool:
    return any(re.match(p.removeprefix("re:"), name) if p.startswith("re:") else p == name for p in patterns)


def pattern_problems(config: dict[str, Any], expected: Expected) -> Iterator[str]:
    """Every module, by both of its names, is in the group of its format and in no other; the rest is in none."""
    groups = list(config.get("config_groups", {}).values())
    targets = [target for group in groups for target in group["targets"]]
    yield from (f"target {target} is a class name" for target in targets if re.fullmatch(r"\w+", target))
    multimodal = any("language_model." in module for module in expected.unquantized)
    for modules, wanted in ((expected.mxfp4, "mxfp4"), (expected.fp8, "fp8"), (expected.unquantized, None)):
        for name in sorted({*modules} | runtime_names(modules, multimodal)):
            found = ["mxfp4" if group["format"] == "mxfp4-pack-quantized" else "fp8"
                     for group in groups if matches(group["targets"], name)]  # fmt: skip
            if found != ([wanted] if wanted else []):
                yield f"{name} is in {found or 'no group'}, expected {wanted or 'none'}"
            if wanted and matches(config.get("ignore", []), name):
                yield f"{name} is ignored"


# --- all of it ---


def check_tensors(report: Report, found: dict[str, Tensor], expected: Expected, rule: str, sample: int) -> None:
    with ThreadPoolExecutor() as pool:
        copied = pool.map(lambda item: copy_problem(*item, found), expected.copies.items())
        report.check(f"{len(expected.copies)} tensors that stay as they are, or are FP8", filter(None, copied))
        quantized = pool.map(lambda item: mxfp4_problem(*item, found, rule, sample), expected.mxfp4.items())
        values = sum(prod(weight.source.array.shape) for weight in expected.mxfp4.values())
        report.check(f"{len(expected.mxfp4)} MXFP4 weights, {values:,} values, rule {rule}", filter(None, quantized))


def check_config(report: Report, source: Path, output: Path, expected: Expected) -> None:
    texts = [(folder / "config.json").read_bytes().decode() for folder in (source, output)]
    report.check("config.json outside of quantization_config", splice_problems(*texts))
    source_config, output_config = (json.loads(text) for text in texts)
    quantization = output_config.get("quantization_config", {})
    is_reference = (
        source_config["model_type"] == "mistral3"
        and bool(expected.mxfp4)
        and {*expected.fp8.values()} == {Scaling.TENSOR}
        and expected.static_input == expected.fp8.keys()
    )
    report.check("quantization_config describes the tensors", group_problems(quantization, expected, is_reference))
    report.check("quantization_config's patterns match the right modules", pattern_problems(quantization, expected))


def parse_formats(text: str) -> dict[str, str]:
    formats = dict(part.split("=", 1) for part in text.split(","))
    if formats.keys() != {"mlp", "attn"} or not set(formats.values()) <= {"mxfp4", "fp8", "keep"}:
        raise argparse.ArgumentTypeError("write it as mlp=mxfp4,attn=fp8; formats are mxfp4, fp8, keep")
    return formats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("output", type=Path, metavar="DST")
    parser.add_argument("--rule", choices=tuple(RULES), required=True)
    parser.add_argument("--gamma", choices=("none", "layernorm", "original"), default="none")
    parser.add_argument("--recipe-map", type=parse_formats, default="mlp=mxfp4,attn=fp8", metavar="MAP")
    parser.add_argument("--mse-sample", type=int, default=400, metavar="BLOCKS",
                        help="blocks of each weight for which rule mse tries every exponent (default 400)")
    arguments = parser.parse_args()
    for folder in (arguments.source, arguments.output):
        if not (folder / "config.json").exists():
            parser.error(f"{folder} is no checkpoint: it has no config.json")

    report = Report()
    headers, problems = read_headers(arguments.output)
    report.check(f"{len(headers)} files, every byte of each is one tensor's", problems)
    report.check("headers are padded, ordered and say pt", header_problems(headers))
    report.check("the safetensors library reads the same", library_problems(headers))
    report.check("index", index_problems(arguments.output, headers))
    report.check("other files", carried_problems(arguments.source, arguments.output))

    expected = expected_output(SourceModel(arguments.source), arguments.recipe_map, arguments.gamma)
    found = {tensor.name: tensor for header in headers.values() for tensor in header.tensors}
    report.check(f"{len(found)} tensors: names, dtypes, shapes", table_problems(found, expected))
    check_tensors(report, found, expected, arguments.rule, arguments.mse_sample)
    check_config(report, arguments.source, arguments.output, expected)
    print(f"{report.checks - report.failures} of {report.checks} checks passed")
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
