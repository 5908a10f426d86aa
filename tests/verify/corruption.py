#!/usr/bin/env python3
"""Damages quantized checkpoints in many ways at random places; `qstream verify` has to find each. Prints TAP.

Every damage is tried with the manifest and --hash, and without the manifest under --rounding nearest; those of whole
tensors also without it and with no options at all. A damage counts as found when the exit code is 1 and an error names
what was damaged. What no comparison can see is counted apart. QSTREAM names another binary, QSTREAM_TEST_SEED other
places.

    corruption.py [--places N] [--only KIND] [--keep FOLDER]
"""

import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/models"))

import damage as d  # noqa: E402
from make_checkpoint import Spec, make_checkpoint  # noqa: E402

QSTREAM = os.environ.get("QSTREAM", str(REPO / "build/qstream"))
FULL = bool(os.environ.get("QSTREAM_TEST_FULL"))
SMALL = {"hidden": 128, "mlp": 192, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 64, "vocab": 96}
GATE_UP = lambda module: module.replace("gate_proj", "up_proj")  # noqa: E731
LAYERS = lambda module: module.replace("layers.0.", "layers.1.")  # noqa: E731
EXPERTS = lambda module: module.replace("experts.0.", "experts.1.")  # noqa: E731
KV = lambda module: module.replace("k_proj", "v_proj")  # noqa: E731


VALUES = ("not-nearest", "scale-not-of-rule", "corrupt", "output-not-finite", "bits-changed", "scale-changed",
          "input-scale-changed", "manifest-hash")  # fmt: skip
GONE = ("tensor-missing", "scale-missing", "input-scale-missing")
ADDED = ("tensor-extra", "companion-left", "tensor-duplicate")
SHAPES = ("shape-mismatch", "dtype-changed", "scale-missing", "tensor-missing", "tensor-extra")
SHARDS = ("shard-", "index-", "tensor-")
CONFIG = ("config-",)
INDEXED = ("index-", "tensor-unindexed")


@dataclass(frozen=True)
class Kind:
    name: str
    apply: Callable[[d.Folder, random.Random], d.Damage]
    gross: bool = False  # plain verify without options has to find it as well
    manifest_only: bool = False  # only a manifest can tell
    places: int = 0  # 0: as many as asked for
    ids: tuple[str, ...] = VALUES  # one of these has to be found; "config-": any that begins so


KINDS = [
    Kind("bit of a code", d.flip("weight_packed"), places=12),
    Kind("bit of a scale", d.flip("weight_scale", dtype="U8"), places=12),
    Kind("bit of an FP8 weight", d.flip(".weight", dtype="F8_E4M3"), places=8),
    Kind("bit of an F32 scale", d.flip("weight_scale", dtype="F32"), places=6),
    Kind("bit of a BF16 scale", d.flip("weight_scale", dtype="BF16"), places=6),
    Kind("bit of an input scale", d.flip("input_scale"), places=6),
    Kind("bit of a kept tensor", d.flip("", plain=True), places=8, gross=True),
    Kind("sign of a zero", d.flip_zero_sign, places=6),
    Kind("NaN scale", d.nan_scale, gross=True),
    Kind("NaN in a kept tensor", d.nan_value, gross=True),
    Kind("nibbles exchanged", d.rewrite(d.swap_nibbles, "weight_packed"), gross=True),
    Kind("nibbles exchanged in a row", d.rewrite(d.swap_nibbles_of_row, "weight_packed"), gross=True),
    Kind("nibbles exchanged in a byte", d.rewrite(d.swap_nibbles_of_byte, "weight_packed")),
    Kind("codes shifted by a byte", d.rewrite(d.shift_by(1), "weight_packed"), gross=True),
    Kind("codes shifted by a block", d.rewrite(d.shift_by(16), "weight_packed"), gross=True),
    Kind("row of codes shifted", d.rewrite(d.shift_row(16), "weight_packed"), gross=True),
    Kind("codes reversed", d.rewrite(d.reverse, "weight_packed"), gross=True),
    Kind("codes transposed", d.rewrite(d.transpose, "weight_packed"), gross=True),
    Kind("rows of codes exchanged", d.rewrite(d.rows_exchanged, "weight_packed"), gross=True),
    Kind("scales shifted", d.rewrite(d.shift_by(1), "weight_scale")),
    Kind("scales one up", d.rewrite(d.step(1, "all"), "mlp.up_proj.weight_scale", "0.up_proj.weight_scale"), gross=True),
    Kind("scales one down", d.rewrite(d.step(-1, "all"), "mlp.up_proj.weight_scale", "0.up_proj.weight_scale"), gross=True),
    Kind("row of scales one up", d.rewrite(d.step(1, "row"), "mlp.down_proj.weight_scale", "0.down_proj.weight_scale")),
    Kind("scale of a block one up", d.scale_step_of_block),
    Kind("hole in codes", d.rewrite(d.hole(512), "weight_packed")),
    Kind("hole in scales", d.rewrite(d.hole(32), "mlp.down_proj.weight_scale", "1.down_proj.weight_scale")),
    Kind("hole in FP8", d.rewrite(d.hole(512), "q_proj.weight")),
    Kind("last quarter of codes is zero", d.rewrite(d.tail_zero, "weight_packed"), gross=True),
    Kind("run of codes copied", d.rewrite(d.run_copied, "weight_packed")),
    Kind("codes of two layers exchanged", d.exchanged("weight_packed", like=LAYERS), gross=True),
    Kind("scales of two layers exchanged", d.exchanged("weight_scale", like=LAYERS)),
    Kind("weights of two layers exchanged", d.exchanged("weight_packed", "weight_scale", like=LAYERS), gross=True),
    Kind("FP8 weights of two layers exchanged", d.exchanged("weight", "weight_scale", like=LAYERS), gross=True),
    Kind("gate and up exchanged", d.exchanged("weight_packed", "weight_scale", like=GATE_UP), gross=True),
    Kind("experts exchanged", d.exchanged("weight_packed", "weight_scale", like=EXPERTS), gross=True),
    Kind("k and v exchanged", d.exchanged("weight", "weight_scale", like=KV), gross=True),
    Kind("rows and their scales exchanged", d.rows_with_scales_exchanged, gross=True),
    Kind("blocks of a row exchanged", d.rewrite(d.blocks_exchanged, "weight_packed"), gross=True),
    Kind("codes of a block are zero", d.rewrite(d.hole(16), "weight_packed")),
    Kind("scale of FP8 is zero", d.float_scale(lambda _: 0.0), gross=True),
    Kind("scale of FP8 is negative", d.float_scale(lambda scale: -scale), gross=True),
    Kind("scale of FP8 is tiny", d.float_scale(lambda scale: scale / 2**20), gross=True),
    Kind("scale of FP8 is huge", d.float_scale(lambda scale: scale * 2**20), gross=True),
    Kind("rows of a kept tensor exchanged", d.rewrite(d.rows_exchanged, "embed_tokens.weight"), gross=True),
    Kind("kept tensor is zero", d.rewrite(d.zeros, "norm.weight"), gross=True),
    Kind("sign of the last number of a norm", d.rewrite(d.last_sign, "norm.weight"), gross=True),
    Kind("norms exchanged", d.exchanged("weight", like=lambda m: m.replace("input_layernorm", "post_attention_layernorm")),
         gross=True),
    Kind("codes dropped", d.drop("weight_packed"), gross=True, ids=GONE + ADDED),
    Kind("scale dropped", d.drop("weight_scale"), gross=True, ids=GONE),
    Kind("input scale dropped", d.drop("input_scale"), gross=True, ids=GONE),
    Kind("kept tensor dropped", d.drop("", plain=True), gross=True, ids=GONE),
    Kind("tensor renamed", d.rename("up_proj.weight_packed", "upp_proj.weight_packed"), gross=True, ids=GONE + ADDED),
    Kind("scale under its old name", d.rename("q_proj.weight_scale", "q_proj.weight_scale_inv"), gross=True, ids=GONE + ADDED),
    Kind("scale left behind", d.add(".weight_scale_inv", "up_proj.weight_packed"), gross=True, ids=ADDED),
    Kind("input scale left behind", d.add(".input_scale", "up_proj.weight_packed"), gross=True, ids=ADDED),
    Kind("tensor added", d.add(".nothing", "up_proj.weight_packed"), gross=True, ids=ADDED),
    Kind("tensor twice", d.duplicated, gross=True, ids=ADDED),
    Kind("dtype of a kept tensor", d.retyped("BF16", "F16"), gross=True, ids=SHAPES),
    Kind("shape of codes", d.reshaped("weight_packed"), gross=True, ids=SHAPES),
    Kind("shape of scales", d.reshaped("up_proj.weight_scale"), gross=True, ids=SHAPES),
    Kind("shape of a kept tensor", d.reshaped("embed_tokens.weight"), gross=True, ids=SHAPES),
    Kind("shards exchanged", d.shards_exchanged, gross=True, ids=SHARDS),
    Kind("shard cut in its data", d.shard_cut(0.7), gross=True, ids=SHARDS),
    Kind("shard cut in its header", d.shard_cut(0), gross=True, ids=SHARDS),
    Kind("shard empty", d.shard_cut(None), gross=True, ids=SHARDS),
    Kind("shard missing", d.shard_missing, gross=True, ids=SHARDS),
    Kind("key of config.json changed", d.config_key(d.key_changed), gross=True, ids=CONFIG),
    Kind("key of config.json removed", d.config_key(d.key_removed), gross=True, ids=CONFIG),
    Kind("rope_theta", d.config_key(d.rope_theta), gross=True, ids=CONFIG),
    Kind("dtype of config.json", d.config_key(d.dtype_key), gross=True, ids=CONFIG),
    Kind("architecture of config.json", d.config_key(d.architecture), gross=True, ids=CONFIG),
    Kind("the source's config.json", d.config_of_source, gross=True, ids=CONFIG),
    Kind("group size", d.config_key(d.of_group("weights", "group_size", 16)), gross=True, ids=CONFIG),
    Kind("type of a group", d.config_key(d.of_group("weights", "type", "int")), gross=True, ids=CONFIG),
    Kind("asymmetric group", d.config_key(d.of_group("weights", "symmetric", False)), gross=True, ids=CONFIG),
    Kind("format of a group", d.config_key(d.of_group(None, "format", "pack-quantized")), gross=True, ids=CONFIG),
    Kind("quantized weights ignored", d.config_key(d.ignored), gross=True, ids=CONFIG),
    Kind("quant_method", d.config_key(d.of_quantization("quant_method", "fp8")), gross=True, ids=CONFIG),
    Kind("quantization_status", d.config_key(d.of_quantization("quantization_status", "frozen")), gross=True, ids=CONFIG),
    Kind("targets exchanged", d.config_key(d.groups_exchanged), gross=True, ids=CONFIG),
    Kind("group dropped", d.config_key(d.group_dropped), gross=True, ids=CONFIG),
    Kind("bits of a group", d.config_key(d.bits_changed), gross=True, ids=CONFIG),
    Kind("strategy of a group", d.config_key(d.strategy_changed), gross=True, ids=CONFIG),
    Kind("status missing", d.config_key(d.status_missing), gross=True, ids=CONFIG),
    Kind("quantization_config missing", d.config_key(d.quantization_missing), gross=True, ids=CONFIG),
    Kind("file that goes along changed", d.sidecar_changed, gross=True, ids=("file-changed",)),
    Kind("file that goes along missing", d.sidecar_missing, manifest_only=True, ids=("file-missing",)),
    Kind("digest in the manifest", d.manifest_digest, manifest_only=True, ids=("manifest-hash",)),
    Kind("size in the manifest", d.manifest_size, manifest_only=True, ids=("manifest-size",)),
    Kind("total size in the index", d.index_changed(d.total_size), manifest_only=True, ids=("manifest-",)),
    Kind("shard in the index that is not there", d.index_changed(d.entry_elsewhere), gross=True, ids=("shard-", "index-")),
    Kind("entry of the index missing", d.index_changed(d.entry_missing), gross=True, ids=INDEXED),
    Kind("entry of the index wrong", d.index_changed(d.entry_wrong), gross=True, ids=INDEXED),
    Kind("entry of the index extra", d.index_changed(d.entry_extra), gross=True, ids=INDEXED),
]


@dataclass(frozen=True)
class Layout:
    name: str
    recipe: str
    spec: Spec
    rule: str


LAYOUTS = [
    Layout("fp8", "mistral-medium-3.5-mxfp4", Spec(layout="fp8-tensor", shards=2, zeros=True, outliers=True, **SMALL), "mse"),
    Layout("bf16", "llama-mxfp4", Spec(layout="bf16", arch="llama", shards=2, zeros=True, **SMALL), "amax"),
    Layout("block", "llama-mxfp4", Spec(layout="fp8-block", arch="llama", shards=2, **SMALL), "qstream"),
    Layout("experts", "qwen3-moe-mxfp4", Spec(layout="bf16", arch="qwen3_moe", experts=2, shards=2, **SMALL), "mse"),
    Layout("stacked", "qwen3-moe-mxfp4",
           Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_vl", experts=2, shards=2, **SMALL), "qstream"),
    Layout("mxfp8", "llama-mxfp4", Spec(layout="mxfp8", arch="llama", shards=2, zeros=True, **SMALL), "amax"),
    Layout("channel", "llama-mxfp4", Spec(layout="ct-channel", arch="llama", shards=2, outliers=True, **SMALL), "mse"),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QSTREAM, *arguments], capture_output=True, text=True, timeout=120, check=False)


def verdict(source: Path, folder: Path, kind: Kind, found: d.Damage, *options: str) -> str | None:
    """None when the damage was found and named."""
    result = run("verify", str(source), str(folder), "--json", "--quiet", *options)
    if result.returncode == 3 and any(s in result.stderr for s in found.subjects):
        return None
    if result.returncode != 1:
        return f"exit code {result.returncode}: {result.stderr.strip()[:300]}"
    errors = [f for f in json.loads(result.stdout)["findings"] if f["severity"] == "error"]
    if any(f["id"].startswith(kind.ids) and (s in f["subject"] or s in f["message"])
           for f in errors for s in found.subjects):
        return None
    return "no fitting error names it: " + "; ".join(f"{f['id']} {f['subject']}" for f in errors[:4])


class Tap:
    def __init__(self) -> None:
        self.count = self.failed = 0

    def test(self, name: str, problems: list[str]) -> None:
        self.count += 1
        self.failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.count} - {name}")
        for problem in problems:
            print(f"# {problem}")
        sys.stdout.flush()


def modes(kind: Kind) -> list[tuple[str, bool, list[str]]]:
    """Name, whether the manifest stays, options."""
    wanted = [("manifest", True, ["--hash"])]
    if not kind.manifest_only:
        wanted.append(("nearest", False, ["--rounding", "nearest"]))
    if kind.gross:
        wanted.append(("no options", False, []))
    return wanted


def try_kind(kind: Kind, layout: Layout, good: d.Folder, source: Path, target: Path, places: int, seed: str,
             counts: Counter[str]) -> list[str]:
    """Writes each damaged folder to `target`."""
    problems = []
    for place in range(min(kind.places, 12 if FULL else 3) or places):
        generator = random.Random(f"{seed}/{kind.name}/{layout.name}/{place}")
        folder = copy.deepcopy(good)
        try:
            found = kind.apply(folder, generator)
        except d.NotHere:
            return problems
        for mode, manifest, options in modes(kind):
            if found.unseen and not manifest:
                counts["unseen"] += 1
                continue
            shutil.rmtree(target, ignore_errors=True)
            folder.write(target)
            if not manifest:
                (target / "qstream.json").unlink()
            counts["tried"] += 1
            # of what cannot be seen only the digest of its shard tells
            named = d.Damage(tuple(folder.shards), found.told) if found.unseen else found
            missed = verdict(source, target, kind, named, *options)
            if missed:
                problems.append(f"{layout.name}, {mode}, seed {seed}, place {place}: {found.told}: {missed}")
            else:
                counts["caught"] += 1
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    seed = os.environ.get("QSTREAM_TEST_SEED", "1")
    work = arguments.keep or Path(tempfile.mkdtemp(prefix="verify."))
    tap, counts = Tap(), Counter()
    goods = []
    for layout in LAYOUTS:
        source, out = work / f"{layout.name}-source", work / f"{layout.name}-out"
        make_checkpoint(source, layout.spec)
        (source / "tokenizer.json").write_text('{"model": {"vocab": {"a": 10, "b": 12}}, "added": [1, 2, 3]}\n')
        quantized = run("quantize", str(source), str(out), "--recipe", str(REPO / f"configs/{layout.recipe}.json"),
                        "--rule", layout.rule, "--quiet")
        problems = [] if quantized.returncode == 0 else [quantized.stderr]
        for name, options in (("with its manifest", ["--hash"]), ("without", []), ("nearest", ["--rounding", "nearest"])):
            if name != "with its manifest" and (out / "qstream.json").exists():
                (out / "qstream.json").rename(work / f"{layout.name}.manifest")
            result = run("verify", str(source), str(out), "--quiet", *options)
            if result.returncode != 0:
                problems.append(f"{name}: exit code {result.returncode}: {result.stdout[-800:]}{result.stderr}")
        (work / f"{layout.name}.manifest").rename(out / "qstream.json")
        tap.test(f"the good checkpoint {layout.name} passes", problems)
        goods.append((layout, d.Folder.read(out, source), source))
    kinds = [kind for kind in KINDS if arguments.only in kind.name]

    def try_everywhere(number: int) -> tuple[list[str], Counter[str]]:
        """With counts of its own, and a folder."""
        tried: Counter[str] = Counter()
        problems = [p for layout, good, source in goods
                    for p in try_kind(kinds[number], layout, good, source, work / f"mutant-{number}", arguments.places,
                                      seed, tried)]
        if not problems:
            shutil.rmtree(work / f"mutant-{number}", ignore_errors=True)
        return problems if tried else ["no checkpoint has what this kind damages"], tried

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for kind, (problems, tried) in zip(kinds, pool.map(try_everywhere, range(len(kinds))), strict=True):
            tap.test(f"{kind.name}: found", problems)
            counts += tried
    print(f"1..{tap.count}")
    print(f"# {len(kinds)} kinds: tried {counts['tried']}, caught {counts['caught']}, "
          f"cannot be seen {counts['unseen']}; seed {seed}")
    if not arguments.keep:
        shutil.rmtree(work)
    return tap.failed > 0


if __name__ == "__main__":
    sys.exit(main())
