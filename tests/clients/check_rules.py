#!/usr/bin/env python3
"""Compares scale_rules.py with what compressed-tensors and the original qstream made of the same weights: before it
judges the tool, the second opinion is judged itself.

    check_rules.py GOLDEN   a folder with mxfp4.safetensors and fp8_dynamic.safetensors
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from number_formats import bf16_encode, e2m1_unpack, fp8_decode  # noqa: E402
from safetensors_files import read_header  # noqa: E402
from scale_rules import (  # noqa: E402
    BLOCK,
    amax_scales,
    blocks_of,
    fp8_dynamic,
    quantize_amax,
    quantize_mse,
    quantize_qstream,
    squared_errors,
)

Arrays = dict[str, np.ndarray]


def arrays_of(file: Path) -> Arrays:
    return {tensor.name: tensor.array() for tensor in read_header(file).tensors}


def mxfp4_misses(golden: Arrays, name: str) -> list[str]:
    """The references that scale_rules.py does not reproduce for one weight."""
    weight = golden[f"{name}.weight"]
    if f"{name}.weight_scale_inv" in golden:
        weight = bf16_encode(fp8_decode(weight) * golden[f"{name}.weight_scale_inv"])
    blocks = blocks_of(weight)
    gamma = np.tile(golden[f"{name.removesuffix('_fp8')}.gamma"], len(weight)).reshape(-1, BLOCK)
    made = {
        "ct": quantize_amax(blocks),
        "qstream": quantize_qstream(blocks),
        "qstream_gamma": quantize_qstream(blocks, gamma),
    }
    misses = []
    for reference, quantized in made.items():
        codes = e2m1_unpack(golden[f"{name}.{reference}.weight_packed"]).reshape(-1, BLOCK)
        scales = golden[f"{name}.{reference}.weight_scale"].reshape(-1)
        if not (np.array_equal(quantized.codes, codes) and np.array_equal(quantized.scales, scales)):
            misses.append(reference)
    best = squared_errors(blocks, quantize_mse(blocks).scales)
    if (best > squared_errors(blocks, amax_scales(blocks))).any():
        misses.append("mse is worse than amax")
    return misses


def main() -> int:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    results: dict[str, list[str]] = {}
    mxfp4 = arrays_of(folder / "mxfp4.safetensors")
    for name in (name.removesuffix(".weight") for name in mxfp4 if name.endswith(".weight")):
        results[f"mxfp4 {name}"] = mxfp4_misses(mxfp4, name)
    dynamic = arrays_of(folder / "fp8_dynamic.safetensors")
    for name in (name.removesuffix(".weight") for name in dynamic if name.count(".") == 1):
        made = zip(("weight", "weight_scale"), fp8_dynamic(dynamic[f"{name}.weight"]), strict=True)
        results[f"fp8_dynamic {name}"] = [
            part for part, array in made if not np.array_equal(array, dynamic[f"{name}.fp8_dynamic.{part}"])
        ]
    for what, misses in results.items():
        print(f"FAIL {what}: {', '.join(misses)}" if misses else f"ok {what}")
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
