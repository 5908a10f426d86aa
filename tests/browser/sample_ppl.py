"""Reports of made-up measurements, for infer/report/page.html."""

import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from page_source import page_with
from sample_reports import MARKUP_NAME, RTL_NAME

POSITION_BINS, KL_BINS = 32, 24


def measurement(windows: int, layers: int, window: int = 2048, stride: int = 512, seed: int = 1) -> dict[str, Any]:
    """Of a model of so many layers; 0: without a baseline."""
    rng = random.Random(seed)
    compared = layers > 0
    made = []
    for number in range(windows):
        base = 2.9 + rng.gauss(0, 0.25)
        kl = math.exp(rng.gauss(-1.5, 0.2))
        made.append({"first": number * stride, "tokens": window, "scored": stride if number else window - 1,
                     "nll": base + 0.8 * kl, "baseline_nll": base if compared else None, "kl": kl if compared else None})  # fmt: skip
    scored = sum(entry["scored"] for entry in made)

    def mean(key: str) -> float:
        return sum(entry[key] * entry["scored"] for entry in made) / scored

    width = window // POSITION_BINS
    positions = []
    for place in range(POSITION_BINS):
        base = 2.6 + 2.5 / (1 + place) + rng.gauss(0, 0.05)
        positions.append({"first": place * width, "end": (place + 1) * width, "tokens": width, "nll": base + 0.2,
                          "baseline_nll": base if compared else None, "kl": 0.2 + 0.1 / (1 + place) if compared else None})  # fmt: skip
    error, trace = 0.0, [{"layer": None, "rel_error": 0.0, "cosine": 1.0}]
    for layer in range(layers):
        error += 0.004 + (0.06 if layer == layers // 3 else 0)
        trace.append({"layer": layer, "rel_error": error, "cosine": 1 - error * error / 2})
    nll = mean("nll")
    report: dict[str, Any] = {
        "schema": "qstream.ppl/1", "qstream": "0.0.0", "state": "measured", "model": "/models/Sample-MXFP4", "server": None,
        "text": {"kind": "text", "file": "data/wiki.test.raw", "tokens": windows * stride + window, "sha256": "0123456789abcdef" * 4},
        "protocol": {"window": window, "stride": stride, "windows": windows}, "compute": "bf16",
        "variants": {"bos": False, "text_join": "raw", "kv_cache": "auto", "activations": "as-served", "fused_scales": False, "rope_frequencies": "f32"},
        "nll": nll, "ppl": math.exp(nll), "standard_error": 0.0461, "tokens_scored": scored, "tokens_run": windows * window,
        "seconds": 61.4, "tokens_per_second": windows * window / 61.4, "windows": made, "baseline": None, "kl": None,
        "top1_agreement": None, "kl_histogram": None, "layers": trace if compared else [], "positions": positions,
        "budget": {"memory": 8 << 30, "total": 3_210_000_000, "weights": 1_300_000_000, "work": 910_000_000, "hidden": 2_000_000_000,
                   "hidden_memory": 1_000_000_000, "read": 90_000_000_000, "tokens": windows * window, "group": 4,
                   "groups": (windows + 3) // 4, "device": None}, "expectation": None}  # fmt: skip
    if compared:
        base = mean("baseline_nll")
        report |= {"baseline": {"model": "/models/Sample-FP8", "nll": base, "ppl": math.exp(base)},
                   "kl": {"mean": mean("kl"), "median": 0.11, "p99": 1.7, "max": 8.25}, "top1_agreement": 0.7353,
                   "kl_histogram": {"first_power": -5, "bins_per_power": 4,
                                    "counts": [int(scored / 9 * math.exp(-(((i - 15) / 4) ** 2))) for i in range(KL_BINS)]}}  # fmt: skip
    return report


def on_device(report: dict[str, Any], name: str, unified: bool) -> dict[str, Any]:
    report["budget"]["device"] = {"name": name, "memory": 95_500_000_000, "total": 5_670_000_000, "weights": 2_770_000_000,
                                  "hidden": 1_010_000_000, "work": 1_890_000_000, "unified": unified}  # fmt: skip
    return report


def checks(report: dict[str, Any], moved: float) -> dict[str, Any]:
    listed = []
    for figure, value in [("ppl", report["ppl"]), ("nll", report["nll"]), ("tokens_scored", report["tokens_scored"]),
                          *((f"window_nll[{i}]", entry["nll"]) for i, entry in enumerate(report["windows"]))]:  # fmt: skip
        expected = value * (1 + (moved if figure == "ppl" else 0))
        listed.append({"figure": figure, "status": "reproduced", "expected": expected, "allowed": 0.005 * expected, "measured": value,
                       "verdict": "fail" if abs(value - expected) > 0.005 * expected else "pass", "message": f"{figure} moved"})  # fmt: skip
    listed.append({"figure": "kl_mean", "status": "published-only", "expected": 0.2, "allowed": 0.004, "measured": None,
                   "verdict": "not-measured", "message": None})  # fmt: skip
    failed = any(check["verdict"] == "fail" for check in listed)
    return report | {"expectation": {"verdict": "fail" if failed else "pass", "file": "configs/sample.ppl.json", "name": "sample",
                                     "case": "mxfp4/f32", "model": "Sample, r1", "checks": listed}}  # fmt: skip


def planned() -> dict[str, Any]:
    made = on_device(measurement(40, 12), "a card as described", True)
    for entry in made["windows"]:
        entry |= {"nll": None, "baseline_nll": None, "kl": None}
    nothing = {"nll": None, "ppl": None}
    return made | nothing | {"state": "planned", "standard_error": None, "seconds": None, "tokens_per_second": None, "layers": [],
                             "baseline": made["baseline"] | nothing, "kl": dict.fromkeys(made["kl"]), "top1_agreement": None,
                             "kl_histogram": None, "positions": []}  # fmt: skip


def server() -> dict[str, Any]:
    made = measurement(5, 0)
    made["variants"] |= {"kv_cache": None, "activations": None, "rope_frequencies": None, "bos": True, "text_join": "hf"}
    return made | {"server": "http://localhost:8000/v1", "model": None, "compute": None, "budget": None}


def hostile() -> dict[str, Any]:
    """Names that are markup or reorder text; figures that are missing or extreme; one window, one layer."""
    made = on_device(checks(measurement(1, 1), 0.2), MARKUP_NAME, False)
    made |= {"model": MARKUP_NAME, "nll": None, "ppl": None, "tokens_per_second": None}
    made["baseline"] |= {"model": RTL_NAME, "nll": 700.0, "ppl": 1.0e304}
    made["text"]["file"] = "x" * 5000
    made["expectation"] |= {"name": MARKUP_NAME, "case": "@DATA@", "model": "__proto__"}
    made["expectation"]["checks"][0] |= {"figure": MARKUP_NAME, "measured": None, "status": "<b>"}
    made["windows"][0] |= {"nll": None, "kl": 1e30}
    made["layers"][1] |= {"rel_error": None, "cosine": -1.0}
    made["kl"] |= {"max": None}
    for entry in made["positions"][3:9]:
        entry |= {"tokens": 0, "nll": None, "baseline_nll": None, "kl": None}
    made["kl_histogram"]["counts"] = [0] * (KL_BINS - 1) + [1]
    return made


def sample_measurements() -> Iterable[tuple[str, Callable[[], dict[str, Any]]]]:
    """By the name of their files; made one at a time."""
    return (
        ("ppl-baseline", lambda: measurement(5, 30)),
        ("ppl-plain", lambda: checks(measurement(5, 0), 0.001)),
        ("ppl-fail", lambda: checks(measurement(24, 88), 0.02)),
        ("ppl-device", lambda: on_device(measurement(5, 30), "NVIDIA GB10", True)),
        ("ppl-many", lambda: measurement(4700, 88, 2048, 64)),
        ("ppl-planned", planned),
        ("ppl-server", server),
        ("ppl-hostile", hostile),
    )


def write_measurements(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in sample_measurements():
        (folder / f"{name}.html").write_text(page_with("infer/report", {"ppl": made()}), encoding="utf-8")
