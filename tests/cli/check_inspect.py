"""check_inspect.py: reads a checkpoint independently and compares it with what 'qstream inspect' says of it.

    check_inspect.py report FOLDER JSON   the object of --json: files, tensors, sums, companions, and with --stats every
                                          figure of the statistics
    check_inspect.py values FOLDER JSON   the object of --show --json: every code, scale and value

Tensors are read by the reference library, decoded by tests/models/number_formats.py. The objects are held against their
schemas in docs/schemas too. Prints what differs; exit 1 when anything does.
"""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "models"))
from number_formats import E2M1_MAGNITUDES, FP8_VALUES, bf16_decode, e2m1_unpack  # noqa: E402
from safetensors_files import checkpoint_shards, read_header  # noqa: E402

INDEX = "model.safetensors.index.json"
WEIGHTS = ("weight", "weight_packed", "qweight", "blocks")
E8M0_NAN = 255
failures: list[str] = []


def check(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        failures.append(f"{what}: {got!r}, expected {wanted!r}")


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def close(what: str, got: float | None, wanted: float | None) -> None:
    if (got is None) != (wanted is None) or (got is not None and not math.isclose(got, wanted, rel_tol=1e-12, abs_tol=1e-15)):
        failures.append(f"{what}: {got!r}, expected {wanted!r}")


# --- schemas: the few keywords that they use ---

TYPES = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool, "integer": int, "number": (int, float)}


def is_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def validate(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> None:
    if "$ref" in schema:
        validate(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(is_type(value, name) for name in types):
        failures.append(f"{at}: {value!r:.80} is none of {types}")
        return
    if "enum" in schema and value not in schema["enum"]:
        failures.append(f"{at}: {value!r:.80} is none of {schema['enum']}")
    if "const" in schema:
        check(at, value, schema["const"])
    if "minimum" in schema and value < schema["minimum"]:
        failures.append(f"{at}: {value} is less than {schema['minimum']}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        check(f"{at}: missing keys", [key for key in schema.get("required", []) if key not in value], [])
        if schema.get("additionalProperties") is False:
            check(f"{at}: unknown keys", [key for key in value if key not in known], [])
        for key, member in value.items():
            validate(member, known.get(key, {}), root, f"{at}.{key}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            validate(item, schema["items"], root, f"{at}[{number}]")


# --- the checkpoint ---


class Stored:
    """A tensor as the reference library gives it."""

    def __init__(self, dtype: str, shape: list[int], data: bytes, shard: str, offset: int) -> None:
        self.dtype, self.shape, self.data, self.shard, self.offset = dtype, shape, bytes(data), shard, offset

    def codes(self) -> np.ndarray:
        widths = {"BF16": "<u2", "F16": "<u2", "F32": "<u4", "F64": "<u8", "I32": "<u4", "I64": "<u8"}
        return np.frombuffer(self.data, widths.get(self.dtype, "u1")).reshape(self.shape)

    def values(self, exponents: bool = False) -> np.ndarray:
        codes = self.codes()
        if exponents or self.dtype == "F8_E8M0":
            return np.where(codes == E8M0_NAN, np.nan, np.ldexp(1.0, codes.astype(np.int32) - 127))
        if self.dtype == "BF16":
            return bf16_decode(codes).astype(np.float64)
        if self.dtype == "F8_E4M3":
            return FP8_VALUES[codes].astype(np.float64)
        kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I32": "<i4", "I64": "<i8"}
        return np.frombuffer(self.data, kinds.get(self.dtype, "u1")).reshape(self.shape).astype(np.float64)


def read_checkpoint(folder: Path) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    for shard in checkpoint_shards(folder):
        offsets = {tensor.name: tensor.offset for tensor in read_header(shard).tensors}
        for name, entry in deserialize(shard.read_bytes()):
            tensors[name] = Stored(entry["dtype"], entry["shape"], entry["data"], shard.name, offsets[name])
    return tensors


# --- the report ---


def check_files(report: dict[str, Any], folder: Path) -> None:
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    check("files", {file["name"]: file["bytes"] for file in report["files"]}, sizes)
    check("files are sorted", [file["name"] for file in report["files"]], sorted(sizes))
    check("folder_bytes", report["totals"]["folder_bytes"], sum(sizes.values()))
    shards = {shard.name for shard in checkpoint_shards(folder)}
    for file in report["files"]:
        name = file["name"]
        kind = "shard" if name in shards else "unindexed" if name.endswith(".safetensors") else \
            {INDEX: "index", "config.json": "config"}.get(name, "other")  # fmt: skip
        check(f"kind of {name}", file["kind"], kind)
        header = read_header(folder / name) if kind == "shard" else None
        check(f"tensors of {name}", file["tensors"], len(header.tensors) if header else 0)
        check(f"header of {name}", file["header_bytes"], header.data_start if header else 0)


def parameters_of(tensor: dict[str, Any]) -> int | None:
    """What a tensor stands for; None where it cannot be told from its shape."""
    if "companion_of" in tensor:
        return 0
    if tensor["part"] not in (*WEIGHTS, "bias", "other"):
        return 0 # a scale without its weight
    if tensor["format"] in ("awq", "gptq", "int-packed") and tensor["part"] in WEIGHTS:
        return None
    fp4 = tensor["format"] in ("mxfp4", "nvfp4", "modelopt-nvfp4", "gpt-oss-mxfp4", "bitsandbytes")
    return math.prod(tensor["shape"]) * (2 if fp4 and tensor["part"] in WEIGHTS else 1)


def check_sums(report: dict[str, Any]) -> None:
    tensors, totals = report["tensors"], report["totals"]
    parameters = [parameters_of(tensor) for tensor in tensors]
    for grouping, groups in report["by"].items():
        check(f"names by {grouping} are different", len({group["name"] for group in groups}), len(groups))
        for figure in ("tensors", "bytes", "parameters"):
            total = sum(group[figure] for group in groups)
            if figure != "parameters":
                check(f"{figure} by {grouping}", total, sum(tensor["bytes"] for tensor in tensors) if figure == "bytes" else len(tensors))
            elif None not in parameters:
                check(f"parameters by {grouping}", total, sum(parameters))
            if len(tensors) == totals["tensors"]:
                check(f"{figure} by {grouping} and in all", total, totals["tensor_bytes" if figure == "bytes" else figure])
        for group in groups:
            wanted = 8 * group["bytes"] / group["parameters"] if group["parameters"] else None
            close(f"bits per weight of {group['name']}", group["bits_per_weight"], wanted)
            if grouping != "layer":
                members = [tensor for tensor in tensors if tensor[grouping] == group["name"]]
            elif group["name"] == "(no layer)":
                members = [tensor for tensor in tensors if tensor["layer"] is None]
            else:
                members = [tensor for tensor in tensors if tensor["name"].startswith(group["name"] + ".")]
                check(f"number of {group['name']}", {tensor["layer"] for tensor in members}, {int(group["name"].rsplit(".", 1)[1])})
            check(f"tensors of {group['name']}", group["tensors"], len(members))
            check(f"bytes of {group['name']}", group["bytes"], sum(tensor["bytes"] for tensor in members))


def check_tensors(report: dict[str, Any], stored: dict[str, Stored], whole: bool) -> None:
    if whole:
        check("names", sorted(tensor["name"] for tensor in report["tensors"]), sorted(stored))
    check("order", [(t["shard"], t["offset"]) for t in report["tensors"]], sorted((t["shard"], t["offset"]) for t in report["tensors"]))
    check("totals.tensors", report["totals"]["tensors"], len(stored))
    check("totals.tensor_bytes", report["totals"]["tensor_bytes"], sum(len(tensor.data) for tensor in stored.values()))
    by_name = {tensor["name"]: tensor for tensor in report["tensors"]}
    for name, tensor in by_name.items():
        file = stored[name]
        for key, wanted in (("dtype", file.dtype), ("shape", file.shape), ("bytes", len(file.data)), ("shard", file.shard),
                            ("offset", file.offset)):  # fmt: skip
            check(f"{key} of {name}", tensor[key], wanted)
        check(f"module of {name}", name.startswith(tensor["module"]), True)
        for companion in tensor.get("companions", []) if whole else []:
            check(f"companion_of of {companion}", by_name[companion].get("companion_of"), name)
        if "companion_of" in tensor and whole:
            check(f"companions with {name}", name in by_name[tensor["companion_of"]]["companions"], True)


# --- statistics ---


def histogram_of(codes: np.ndarray) -> list[list[int]]:
    return [[int(code), int(count)] for code, count in zip(*np.unique(codes, return_counts=True), strict=True)]


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def extremes(values: np.ndarray) -> tuple[float | None, float | None]:
    kept = values[np.isfinite(values)]
    return (float(kept.min()), float(kept.max())) if kept.size else (None, None)


def scale_codes_of(codes: np.ndarray) -> dict[str, Any]:
    kept = codes[codes != E8M0_NAN]
    return {"min": int(kept.min()) if kept.size else None, "max": int(kept.max()) if kept.size else None,
            "nan": int((codes == E8M0_NAN).sum()), "histogram": histogram_of(codes)}  # fmt: skip


def check_codes(name: str, got: dict[str, Any], packed: np.ndarray) -> None:
    codes = e2m1_unpack(packed).reshape(-1)
    counts = np.bincount(codes, minlength=16)
    check(f"codes of {name}", got["histogram"], [int(count) for count in counts])
    close(f"zero share of {name}", got["zero_share"], share(int((codes & 7 == 0).sum()), codes.size))
    close(f"saturated share of {name}", got["saturated_share"], share(int((codes & 7 == 7).sum()), codes.size))
    shares = counts[counts > 0] / max(1, codes.size)
    close(f"entropy of {name}", got["entropy_bits"], float(-(shares * np.log2(shares)).sum()) if codes.size else None)


def check_companion_stats(tensor: dict[str, Any], stored: dict[str, Stored]) -> None:
    name, stats, module = tensor["name"], tensor["stats"], tensor["module"]
    parts = {companion[len(module):].lstrip("._"): stored[companion] for companion in tensor["companions"]}
    scale = next((parts[part] for part in ("weight_scale", "weight_scale_inv", "scales", "scale", "scale_inv") if part in parts), None)
    if scale is not None and scale.dtype in ("U8", "F8_E8M0"):
        check(f"scale codes of {name}", stats.get("scale_codes"), scale_codes_of(scale.codes()))
    elif scale is not None:
        values = scale.values()
        low, high = extremes(values)
        check(f"scales of {name}", stats.get("weight_scale"), {"count": values.size, "min": low, "max": high,
              "nan": int(np.isnan(values).sum()), "inf": int(np.isinf(values).sum())})  # fmt: skip
    inputs = next((parts[part] for part in ("input_scale", "activation_scale") if part in parts), None)
    check(f"input scale of {name}", stats["input_scale"], None if inputs is None else extremes(inputs.values())[1])


def check_stats(tensor: dict[str, Any], stored: dict[str, Stored]) -> None:
    name, stats, file = tensor["name"], tensor["stats"], stored[tensor["name"]]
    kind = stats["kind"]
    if kind == "e8m0":
        check(f"scale codes of {name}", stats["scale_codes"], scale_codes_of(file.codes()))
        return
    if tensor["part"] in WEIGHTS and kind != "float":
        check_companion_stats(tensor, stored)
    if kind in ("mxfp4", "nvfp4"):
        check(f"format of {name}", tensor["format"].endswith(kind), True)
        check_codes(name, stats["codes"], file.codes())
        return
    values, codes = file.values(), file.codes()
    zero = share(int((values == 0).sum()), values.size)
    close(f"zero share of {name}", stats["zero_share"], zero)
    if kind == "fp8":
        low, high = extremes(values)
        check(f"amax of {name}", stats["amax"], None if low is None else max(abs(low), abs(high)))
        check(f"NaN of {name}", stats["nan"], int(np.isnan(values).sum()))
        close(f"saturated share of {name}", stats["saturated_share"], share(int((np.abs(values) == 448).sum()), values.size))
        check(f"exponents of {name}", stats["exponents"]["histogram"], histogram_of(codes[~np.isnan(values)] >> 3 & 15))
        return
    check(f"range of {name}", (stats["min"], stats["max"]), extremes(values))
    if kind == "float":
        check(f"NaN and infinite of {name}", (stats["nan"], stats["inf"]), (int(np.isnan(values).sum()), int(np.isinf(values).sum())))


def check_report(folder: Path, report: dict[str, Any]) -> None:
    stored = read_checkpoint(folder)
    check_files(report, folder)
    check_tensors(report, stored, len(report["tensors"]) == len(stored))
    check_sums(report)
    read = 0
    for tensor in report["tensors"]:
        if "stats" in tensor:
            check_stats(tensor, stored)
            read += 1
        elif report["stats"]:
            dtypes = ("BF16", "F16", "F32", "F64", "F8_E4M3", "I8")
            check(f"{tensor['name']} has no statistics", tensor["dtype"] in dtypes, False)
    check("statistics without --stats", read == 0 or report["stats"], True)


# --- values ---


def decode_rule(shown: dict[str, Any], stored: dict[str, Stored]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values of the whole tensor as matrices [matrix, row, column]."""
    file, form = stored[shown["tensor"]], shown["format"]
    scale = stored[shown["scale"]] if shown["scale"] else None
    shape = [math.prod(file.shape[:-2]), *([1, 1] + file.shape)[-2:]] if len(file.shape) > 1 else [1, 1, math.prod(file.shape)]
    if form in ("mxfp4", "nvfp4", "modelopt-nvfp4", "gpt-oss-mxfp4"):
        packed = file.codes()
        if form == "gpt-oss-mxfp4":
            packed = packed.reshape(*file.shape[:2], -1)
        codes = e2m1_unpack(packed)
        codes = codes.reshape(-1, *codes.shape[-2:])
        values = np.where(codes & 8, -1.0, 1.0) * E2M1_MAGNITUDES[codes & 7].astype(np.float64)
    elif form == "int-packed":
        rows, columns = stored[shown["tensor"].replace("weight_packed", "weight_shape")].values().astype(int)
        bits = {"INT4": 4, "INT8": 8}[shown["code"]]
        words = file.codes().astype(np.uint64)
        codes = np.stack([words >> np.uint64(bits * k) & np.uint64((1 << bits) - 1) for k in range(32 // bits)], -1)
        codes = codes.reshape(1, rows, -1)[:, :, :columns]
        values = codes.astype(np.float64) - (1 << (bits - 1))
    else:
        codes, values = file.codes().reshape(shape), file.values(shown["code"] == "E8M0").reshape(shape)
    if scale is None:
        return codes, values
    factors = scale.values(scale.dtype == "U8")
    if factors.size == 1:
        return codes, values * factors.reshape(())
    if factors.ndim == 1:
        factors = factors.reshape(-1, 1)
    if factors.size == codes.shape[0]:  # one for each expert
        factors = factors.reshape(-1, 1, 1)
    factors = factors.reshape(-1, *factors.shape[-2:])
    rows, columns = codes.shape[1:]
    block_rows = 1 if factors.shape[1] == rows else 128 if form == "fp8-block" else rows
    factors = factors.repeat(block_rows, 1)[:, :rows].repeat(shown["block_columns"] if factors.shape[2] > 1 else columns, 2)[:, :, :columns]
    if shown["global_scale"]:
        one = stored[shown["global_scale"]].values().reshape(-1)[0]
        factors = factors / one if form == "nvfp4" else factors * one
    return codes, values * factors


def check_values(folder: Path, shown: dict[str, Any]) -> None:
    codes, values = decode_rule(shown, read_checkpoint(folder))
    check("extent", [shown["rows"], shown["columns"]], list(codes.shape[1:]))
    check("there are blocks", bool(shown["blocks"]), True)
    for block in shown["blocks"]:
        at = f"block {block['block']}"
        first = block["first_column"]
        check(f"first column of {at}", first, block["block"] * shown["block_columns"])
        part = np.s_[shown["matrix"], shown["row"], first : first + len(block["codes"])]
        check(f"length of {at}", len(block["codes"]), min(shown["block_columns"], codes.shape[2] - first))
        check(f"codes of {at}", block["codes"], [int(code) for code in codes[part]])
        for got, wanted in zip(block["values"], values[part], strict=True):
            close(f"value in {at}", got, finite(wanted))


def main(arguments: Iterable[str]) -> None:
    what, folder, file = arguments
    told = json.loads(Path(file).read_text(encoding="ascii"))
    schema = json.loads((ROOT / "docs" / "schemas" / f"qstream.{'inspect' if what == 'report' else 'show'}-1.schema.json").read_text())
    validate(told, schema, schema, "report")
    (check_report if what == "report" else check_values)(Path(folder), told)
    for failure in failures[:20]:
        print(failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
