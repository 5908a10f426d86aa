#!/usr/bin/env python3
"""Compares the figures of `qstream verify` with NumPy's, on checkpoints of every layout. Prints TAP.

Everything is computed here from the files' bytes in float64, as docs/verify.md defines it, the least error by trying all
255 scales. Figures have to agree to 1e-6, positions and counts exactly. QSTREAM names another binary.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/models"))

from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from number_formats import (  # noqa: E402
    E2M1_MAGNITUDES,
    bf16_decode,
    bf16_encode,
    e2m1_decode,
    e2m1_unpack,
    fp8_decode,
)
from safetensors_files import Tensor, checkpoint_tensors, entry_of, write_shards  # noqa: E402

QSTREAM = os.environ.get("QSTREAM", str(REPO / "build/qstream"))
TOLERANCE = 1e-6
BLOCK = 32
RULES = ("amax", "qstream", "mse")


def run(*arguments: str, code: int = 0) -> str:
    result = subprocess.run([QSTREAM, *arguments], capture_output=True, text=True, timeout=300, check=False)
    if result.returncode != code:
        raise RuntimeError(f"qstream {' '.join(arguments)}: exit code {result.returncode}\n{result.stdout[-500:]}"
                           f"{result.stderr}")
    return result.stdout


def verify(source: Path, folder: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """The report, which has finite numbers only."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} in JSON")

    return json.loads(run("verify", str(source), str(folder), "--json", "--quiet", *options, code=code),
                      parse_constant=refuse)


# ---- decoding ----


def numbers(tensor: Tensor) -> np.ndarray:
    """A plain tensor or a scale in float32."""
    values = tensor.array()
    if tensor.dtype == "BF16":
        return bf16_decode(np.asarray(values))
    if tensor.dtype in ("U8", "F8_E8M0"):
        return np.ldexp(np.float32(1), values.astype(np.int32) - 127)
    return np.asarray(values, np.float32)


def spread(scale: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A scale for each element of [rows, columns]."""
    if scale.size == 1:
        return np.broadcast_to(scale.reshape(1, 1), shape)
    if scale.ndim == 1:
        scale = scale[:, None]
    rows = shape[0] if scale.shape[0] == shape[0] else None
    per_row = 1 if rows else 128
    per_column = shape[1] if scale.shape[1] == 1 and shape[1] > 128 or scale.shape[1] * BLOCK != shape[1] else BLOCK
    if per_column != BLOCK:
        per_column = shape[1] if rows else 128
    return np.repeat(np.repeat(scale, per_row, 0)[: shape[0]], per_column, 1)[:, : shape[1]]


def to_bf16(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    rounded = bf16_decode(bf16_encode(np.where(finite, values, 0).astype(np.float32)))
    return np.where(finite, rounded, values).astype(np.float64)


class Pair:
    """A quantized weight and its source, decoded."""

    def __init__(self, source: dict[str, Tensor], output: dict[str, Tensor], module: str) -> None:
        self.packed = output.get(f"{module}.weight_packed")
        self.scales = None
        self.source = self.decode_source(source, module)
        scale = output[f"{module}.weight_scale"]
        if self.packed:
            self.codes = e2m1_unpack(np.asarray(self.packed.array()))
            self.scales = np.asarray(scale.array())
            powers = np.where(self.scales == 255, np.nan, np.ldexp(1.0, self.scales.astype(np.int32) - 127))
            self.output = e2m1_decode(self.codes).astype(np.float64) * np.repeat(powers, BLOCK, 1)
        else:
            weight = output[f"{module}.weight"]
            with np.errstate(over="ignore"):
                self.output = (fp8_decode(np.asarray(weight.array())) * spread(numbers(scale), weight.shape)).astype(
                    np.float64)

    def decode_source(self, source: dict[str, Tensor], module: str) -> np.ndarray:
        weight = source.get(f"{module}.weight")
        if weight is None:
            return self.decode_expert(source, module)
        if weight.dtype != "F8_E4M3":
            return to_bf16(numbers(weight))
        scale = source.get(f"{module}.weight_scale_inv") or source[f"{module}.weight_scale"]
        with np.errstate(over="ignore", invalid="ignore"):
            return to_bf16(fp8_decode(np.asarray(weight.array())) * spread(numbers(scale), weight.shape))

    @staticmethod
    def decode_expert(source: dict[str, Tensor], module: str) -> np.ndarray:
        parent, number, projection = module.rsplit(".", 2)
        stacked = source[f"{parent}.{'down_proj' if projection == 'down_proj' else 'gate_up_proj'}"]
        values = to_bf16(numbers(stacked))[int(number)]
        hidden = SMALL["hidden"]
        if values.shape[0 if projection == "down_proj" else 1] != hidden:
            values = values.T
        if projection == "down_proj":
            return values
        half = values.shape[0] // 2
        return values[:half] if projection == "gate_proj" else values[half:]


# ---- figures ----


def least_errors(source: np.ndarray) -> np.ndarray:
    """[rows, blocks]: the least squared error that any scale gives with nearest codes."""
    blocks = np.abs(source).reshape(source.shape[0], -1, BLOCK)
    best = np.full(blocks.shape[:2], np.inf)
    grid = E2M1_MAGNITUDES.astype(np.float64)
    middles = (grid[1:] + grid[:-1]) / 2
    for exponent in range(-127, 128):
        scaled = np.ldexp(blocks, -exponent)
        error = np.ldexp(grid[np.searchsorted(middles, scaled)] - scaled, exponent)
        best = np.minimum(best, np.cumsum(error * error, axis=2)[:, :, -1])
    return best


def not_nearest(pair: Pair, rule: str | None) -> int:
    """Codes that are not nearest; those of blocks that the rule qstream makes zeros are its own."""
    scale = np.repeat(np.ldexp(1.0, pair.scales.astype(np.int32) - 127), BLOCK, 1)
    source, output = pair.source, pair.output
    candidates = E2M1_MAGNITUDES.astype(np.float64)[:, None, None] * scale
    least = np.abs(np.abs(source) - candidates).min(0)
    worse = np.abs(source - output) > least
    minus_zero = (source == 0) & np.signbit(source) & (output == 0)
    lost = (source < 0) & (-source <= 2.0**-134 * scale) & (output == 0)
    sign = np.signbit(source) != (pair.codes >= 8)
    wrong = worse | (sign & (output == 0) & ~minus_zero & ~lost)
    if rule == "qstream":
        blocks = np.sort(np.abs(source).reshape(source.shape[0], -1, BLOCK), axis=2)
        percentile = blocks[:, :, -2] + (0.995 * 31 - 30) * (blocks[:, :, -1] - blocks[:, :, -2])
        wrong &= ~np.repeat(percentile < 1e-6, BLOCK, 1) | (output != 0)
    return int(wrong.sum())


def close(a: float | None, b: float | None, absolute: float = 0.0) -> bool:
    if a is None or b is None:
        return (a is None or not math.isfinite(a)) and (b is None or not math.isfinite(b))
    return abs(a - b) <= max(TOLERANCE * max(abs(a), abs(b)), absolute)


def figures_of(pair: Pair) -> dict[str, Any]:
    good = np.isfinite(pair.source) & np.isfinite(pair.output)
    s, d = np.where(good, pair.source, 0), np.where(good, pair.output, 0)
    e = s - d
    ss, dd, ee = (s * s).sum(), (d * d).sum(), (e * e).sum()
    count = int(good.sum())
    return {
        "elements": s.size,
        "source_not_finite": int((~np.isfinite(pair.source)).sum()),
        "output_not_finite": int((np.isfinite(pair.source) & ~np.isfinite(pair.output)).sum()),
        "sqnr_db": 10 * math.log10(ss / ee) if ss > 0 and ee > 0 else None,
        "rel_error": math.sqrt(ee / ss) if ss > 0 else 0.0 if ee == 0 else None,
        "cosine": (s * d).sum() / math.sqrt(ss) / math.sqrt(dd) if ss > 0 and dd > 0 else None,
        "max_abs_error": np.abs(e).max(),
        "mean_abs_error": np.abs(e).sum() / count,
        "flushed": ((s != 0) & (d == 0) & good).sum() / count,
    }


def compare(pair: Pair, told: dict[str, Any], rule: str | None, brute: bool) -> list[str]:
    problems = []
    for name, wanted in figures_of(pair).items():
        if isinstance(wanted, int):
            if told[name] != wanted:
                problems.append(f"{name}: {told[name]}, NumPy {wanted}")
        elif not close(told[name], wanted, 1e-12 if name == "flushed" else 0.0):
            problems.append(f"{name}: {told[name]}, NumPy {wanted}")
    good = np.isfinite(pair.source) & np.isfinite(pair.output)
    s, e = np.where(good, pair.source, 0), np.where(good, pair.source - pair.output, 0)
    energy = (s * s).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = np.where(energy > 0, np.sqrt((e * e).sum(1) / energy), -1)
    row = told["worst_row"]
    if row is not None and not close(row["rel_error"], rows.max()):
        problems.append(f"worst row {row}, NumPy {rows.argmax()} with {rows.max()}")
    width = -(-s.shape[1] // BLOCK) * BLOCK
    blocks = np.pad(e * e, ((0, 0), (0, width - s.shape[1]))).reshape(s.shape[0], -1, BLOCK).sum(2)
    block = told["worst_block"]
    if block is not None and not close(block["squared_error"], blocks.max()):
        problems.append(f"worst block {block['squared_error']}, NumPy {blocks.max()}")
    if block is not None and not close(blocks[block["row"], block["column"] // BLOCK], blocks.max()):
        problems.append("the worst block is another")
    if not pair.packed or not good.all():
        return problems
    wrong = not_nearest(pair, rule)
    if told["not_nearest"] != wrong:
        problems.append(f"not nearest {told['not_nearest']}, NumPy {wrong}")
    if brute:
        best = least_errors(pair.source)
        energy, least = (s * s).sum(), best.sum()
        if not close(told["blocks"]["best_sqnr_db"], 10 * math.log10(energy / least) if least > 0 else None):
            problems.append(f"best {told['blocks']['best_sqnr_db']}, NumPy {10 * math.log10(energy / least)}")
        optimal = (blocks <= best * (1 + 1e-12)).mean()
        if not close(told["blocks"]["at_optimum"], optimal):
            problems.append(f"at the optimum {told['blocks']['at_optimum']}, NumPy {optimal}")
    return problems


def compare_all(source: Path, folder: Path, told: dict[str, Any], brute: bool = True) -> list[str]:
    a, b = checkpoint_tensors(source), checkpoint_tensors(folder)
    problems = []
    for tensor in told["tensors"]:
        pair = Pair(a, b, tensor["module"])
        problems += [f"{tensor['module']}: {problem}" for problem in compare(pair, tensor, told["settings"]["rule"], brute)]
    wanted = {name.removesuffix("_packed").removesuffix(".weight") for name in b if name.endswith("weight_packed")}
    if not wanted <= {tensor["module"] for tensor in told["tensors"]}:
        problems.append("weights are missing")
    return problems[:10]


# ---- the cases ----

SMALL = {"hidden": 96, "mlp": 160, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 48, "vocab": 64}
LAYOUTS = {
    "fp8-tensor": ("mistral-medium-3.5-mxfp4", Spec(layout="fp8-tensor", outliers=True, zeros=True, **SMALL)),
    "fp8-tensor-bf16": ("mistral-medium-3.5-mxfp4", Spec(layout="fp8-tensor", scale_dtype="BF16", **SMALL)),
    "fp8-block": ("llama-mxfp4", Spec(layout="fp8-block", arch="llama", zeros=True, **SMALL)),
    "mxfp8": ("llama-mxfp4", Spec(layout="mxfp8", arch="llama", outliers=True, **SMALL)),
    "channel": ("llama-mxfp4", Spec(layout="ct-channel", arch="llama", **SMALL)),
    "bf16": ("llama-mxfp4", Spec(layout="bf16", arch="llama", outliers=True, zeros=True, **SMALL)),
    "f16": ("llama-mxfp4", Spec(layout="bf16", dtype="f16", arch="llama", zeros=True, **SMALL)),
    "f32": ("llama-mxfp4", Spec(layout="bf16", dtype="f32", arch="llama", outliers=True, **SMALL)),
    "experts": ("qwen3-moe-mxfp4", Spec(layout="bf16", arch="qwen3_moe", experts=2, zeros=True, **SMALL)),
    "stacked": ("qwen3-moe-mxfp4", Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_5", experts=2, **SMALL)),
    "transposed": ("qwen3-moe-mxfp4", Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_vl", experts=2, **SMALL)),
}


class Tap:
    def __init__(self) -> None:
        self.count = self.failed = 0

    def test(self, name: str, problems: list[str]) -> None:
        self.count += 1
        self.failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.count} - {name}")
        for problem in problems:
            print("\n".join(f"# {line}" for line in str(problem).splitlines()))
        sys.stdout.flush()


def honest(source: Path, out: Path) -> list[str]:
    """Passes with its manifest, without it, and when asked for nearest codes."""
    problems = []
    manifest = (out / "qstream.json").read_bytes()
    for what, options in (("with its manifest", ["--hash"]), ("without", []), ("nearest", ["--rounding", "nearest"])):
        told = verify(source, out, *options)
        problems += [f"{what}: {f['id']} {f['subject']}: {f['message']}" for f in told["findings"]
                     if f["severity"] == "error"]
        (out / "qstream.json").unlink(missing_ok=True)
    (out / "qstream.json").write_bytes(manifest)
    return problems


def check_layouts(tap: Tap, work: Path) -> None:
    for name, (recipe, spec) in LAYOUTS.items():
        source = work / name
        make_checkpoint(source, spec)
        for rule in RULES:
            out = work / f"{name}-{rule}"
            run("quantize", str(source), str(out), "--recipe", str(REPO / f"configs/{recipe}.json"), "--rule", rule,
                "--quiet")
            try:
                problems = honest(source, out) + compare_all(source, out, verify(source, out))
            except (RuntimeError, ValueError, LookupError) as error:
                problems = [str(error)]
            tap.test(f"{name}, rule {rule}: passes, and its figures are NumPy's", problems)


def check_sample(tap: Tap, work: Path) -> None:
    for model, recipe in (("smollm2-fp8", "mistral-medium-3.5-mxfp4"), ("smollm2-bf16", "llama-mxfp4")):
        source, out = REPO / "build/models" / model, work / model
        if not source.exists():
            print(f"ok {tap.count + 1} - {model} # SKIP tests/models/make_sample.py did not run")
            tap.count += 1
            continue
        run("quantize", str(source), str(out), "--recipe", str(REPO / f"configs/{recipe}.json"), "--quiet")
        tap.test(f"{model}: figures are NumPy's", compare_all(source, out, verify(source, out), brute=False))


def check_not_finite(tap: Tap, work: Path) -> None:
    """NaN and Inf in the source, NaN in the output: named, counted, left out; no NaN in the report."""
    source, out = work / "nan", work / "nan-out"
    shutil.copytree(work / "bf16", source)
    shutil.copytree(work / "bf16-mse", out)
    tensors = checkpoint_tensors(source)
    name = next(n for n in tensors if n.endswith("mlp.up_proj.weight"))
    with tensors[name].file.open("r+b") as file:
        for element, code in ((5, 0x7FC0), (500, 0xFF80), (501, 0x7F80)):
            file.seek(tensors[name].offset + 2 * element)
            file.write(code.to_bytes(2, "little"))
    scale = checkpoint_tensors(out)[name.replace("up_proj.weight", "down_proj.weight_scale")]
    with scale.file.open("r+b") as file:
        file.seek(scale.offset + 7)
        file.write(b"\xff")
    told = verify(source, out, code=1)
    found = {f["id"]: f for f in told["findings"]}
    problems = []
    if "3 values" not in found["source-not-finite"]["message"] or "column 5:" not in found["source-not-finite"]["message"]:
        problems.append(found["source-not-finite"]["message"])
    if "32 values" not in found["output-not-finite"]["message"]:
        problems.append(found["output-not-finite"]["message"])
    tap.test("NaN and Inf are found and left out of the figures", problems + compare_all(source, out, told, brute=False))


def gptq_like(values: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """MXFP4 with stochastic rounding: honest, and not nearest."""
    blocks = values.reshape(values.shape[0], -1, BLOCK)
    amax = np.maximum(np.abs(blocks).max(2), 1e-30)
    exponent = np.floor(np.log2(amax)).astype(int) - 2
    scaled = np.abs(blocks) / np.exp2(exponent)[:, :, None]
    upper = np.searchsorted(E2M1_MAGNITUDES, scaled).clip(1, 7)
    low, high = E2M1_MAGNITUDES[upper - 1], E2M1_MAGNITUDES[upper]
    share = ((scaled - low) / (high - low)).clip(0, 1)
    code = np.where(generator.random(scaled.shape) < share, upper, upper - 1) | np.where(blocks < 0, 8, 0)
    code = code.reshape(values.shape).astype(np.uint8)
    return code[:, 0::2] | code[:, 1::2] << 4, (exponent + 127).astype(np.uint8)


def check_others(tap: Tap, work: Path) -> None:
    """A checkpoint of another tool: one group, no manifest, codes that are not nearest."""
    source, out = work / "bf16", work / "others"
    generator = np.random.default_rng(1)
    entries = []
    for name, tensor in checkpoint_tensors(source).items():
        if not name.endswith("_proj.weight"):
            entries.append(entry_of(name, tensor.dtype, np.asarray(tensor.array())))
            continue
        packed, scale = gptq_like(numbers(tensor).astype(np.float64), generator)
        entries += [entry_of(name + "_packed", "U8", packed), entry_of(name + "_scale", "U8", scale)]
    out.mkdir()
    write_shards(out, [entries])
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {
            "targets": ["Linear"], "format": "mxfp4-pack-quantized", "input_activations": None,
            "weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True,
                        "dynamic": False, "scale_dtype": "torch.uint8"}}}}
    (out / "config.json").write_text(json.dumps(config))
    told = verify(source, out)
    problems = compare_all(source, out, told)
    if not any(tensor["not_nearest"] for tensor in told["tensors"]):
        problems.append("no code is told not to be nearest")
    tap.test("another tool's stochastic rounding passes, its figures are NumPy's", problems)
    found = {f["id"] for f in verify(source, out, "--rounding", "nearest", code=1)["findings"]}
    tap.test("with --rounding nearest it fails", [] if "not-nearest" in found else [str(found)])


def check_same_output(tap: Tap, work: Path) -> None:
    source, out = REPO / "build/models/smollm2-fp8", work / "smollm2-fp8"
    if not out.exists():
        source, out = work / "bf16", work / "bf16-mse"
    levels = [line for line in run("version").splitlines() if "variants" in line][0].split("variants:")[1].strip(" )").split()
    wanted = run("verify", str(source), str(out), "--json", "--quiet", "--jobs", "1")
    problems = []
    for options in [["--jobs", str(n)] for n in (2, 3, 7)] + [["--cpu", level] for level in levels] + [["--memory", "48MiB"]]:
        if run("verify", str(source), str(out), "--json", "--quiet", *options) != wanted:
            problems.append(" ".join(options))
    tap.test(f"the same bytes for any --jobs, --memory, --cpu ({' '.join(levels)})", problems)


def check_parts(tap: Tap, work: Path) -> None:
    source, out = work / "experts", work / "experts-mse"
    whole = verify(source, out)
    parts = [verify(source, out, "--part", f"{n}/3") for n in range(3)]
    names = [tensor["name"] for part in parts for tensor in part["tensors"]]
    figures = {t["name"]: t for part in parts for t in part["tensors"]}
    problems = []
    if sorted(names) != sorted(t["name"] for t in whole["tensors"]):
        problems.append("the parts do not have each weight once")
    if any(figures.get(t["name"]) != t for t in whole["tensors"]):
        problems.append("a weight has other figures in its part")
    if sum(part["read"]["bytes"] for part in parts) != whole["read"]["bytes"]:
        problems.append("the parts do not read what the whole reads")
    tap.test("parts: each weight is in one, with the figures of the whole", problems)


def main() -> int:
    work = Path(tempfile.mkdtemp(prefix="verify-figures."))
    tap = Tap()
    check_layouts(tap, work)
    check_sample(tap, work)
    check_not_finite(tap, work)
    check_others(tap, work)
    check_same_output(tap, work)
    check_parts(tap, work)
    print(f"1..{tap.count}")
    shutil.rmtree(work)
    return int(tap.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
