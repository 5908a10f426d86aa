#!/usr/bin/env python3
"""inspect, audit and the plan of quantize, on the reference model (88 layers, 129 GB) and on a mixture of experts of a
terabyte in 100,000 tensors: right to the byte and within 256 MiB. Prints TAP, and the seconds and the peak of each command.

The limit is the kernel's, on the address space (RLIMIT_AS): what a command has resident is less, and is told. The checkpoints
are holes with true headers; they take 30 MB below build/large and stay there.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "tests" / "hub"), str(REPO / "tests" / "models")]

from make_checkpoint import Spec  # noqa: E402
from safetensors_files import Tensor, checkpoint_tensors  # noqa: E402
from sparse_checkpoint import sparse_checkpoint  # noqa: E402
from tap import case, require, require_equal, run_cases  # noqa: E402

QSTREAM = REPO / "build" / "qstream"
WORK = REPO / "build" / "large"
LIMIT = 256 << 20
TIMEOUT = 600  # seconds
BLOCK = 32  # weights of MXFP4: 16 bytes, and one of scale
TEXT = {"layers": 88, "hidden": 12288, "mlp": 28672, "heads": 96, "kv_heads": 8, "head_dim": 128, "vocab": 131072}
EXPERTS = {"layers": 94, "hidden": 4096, "mlp": 1280, "heads": 64, "kv_heads": 4, "head_dim": 128, "vocab": 151936, "experts": 352}


@dataclass(frozen=True)
class Large:
    name: str
    spec: Spec
    recipe: str

    @property
    def folder(self) -> Path:
        return sparse_checkpoint(WORK / self.name, self.spec)

    @cache  # noqa: B019 (there are two)
    def tensors(self) -> dict[str, Tensor]:
        return checkpoint_tensors(self.folder)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())


REFERENCE = Large("reference", Spec(layout="fp8-tensor", arch="mistral3", shards=27, **TEXT), "mistral-medium-3.5-mxfp4")
MIXTURE = Large("mixture", Spec(layout="bf16", arch="qwen3_moe", shards=212, **EXPERTS), "qwen3-moe-mxfp4")


def run(*words: str | Path, code: int = 0) -> str:
    """Standard output of a command that had 256 MiB of address space."""
    measured = WORK / "measured"
    command = ["prlimit", f"--as={LIMIT}", "--core=0", "/usr/bin/time", "-q", "-f", "%e s, peak %M KiB", "-o", measured,
               QSTREAM, *words]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    require_equal(done.returncode, code, f"{words}: {done.stderr.strip()[-500:]}: the exit code")
    print(f"# qstream {' '.join(word.name if isinstance(word, Path) else word for word in words)}: {measured.read_text().strip()}")
    return done.stdout


# ---- what is expected, from the headers as another reader has them ----


def output_bytes(tensor: Tensor, recipe: str) -> int:
    """Of what quantize makes of a tensor by one of the two recipes."""
    projection = re.search(r"layers\.\d+\.(mlp|self_attn)\.(experts\.\d+\.)?\w+_proj\.(\w+)$", tensor.name)
    if not projection or "vision" in tensor.name:
        return tensor.nbytes
    if projection[1] == "mlp":  # a scale of the source is used up
        return prod(tensor.shape) * (BLOCK // 2 + 1) // BLOCK if projection[3] == "weight" else 0
    if recipe == REFERENCE.recipe:
        return tensor.nbytes
    rows, columns = tensor.shape
    return rows * columns + 2 * rows  # FP8, and a scale in BF16 for each row


def check_inspect(model: Large) -> None:
    report = json.loads(run("inspect", model.folder, "--json"))
    told = {(t["name"], t["dtype"], tuple(t["shape"]), t["bytes"], t["shard"]) for t in report["tensors"]}
    require_equal(len(report["tensors"]), len(told), "a tensor is told twice: their number")
    require(told == {(t.name, t.dtype, t.shape, t.nbytes, t.file.name) for t in model.tensors().values()}, "other tensors")
    require_equal(report["totals"]["tensor_bytes"], model.tensor_bytes, "tensor_bytes")
    require_equal(report["totals"]["tensors"], len(told), "tensors")

    layers = {int(line.split()[0].rpartition(".")[2]): line.split()[1]
              for line in run("inspect", model.folder, "--by", "layer").splitlines()
              if re.match(r"model(\.language_model)?\.layers\.\d+ ", line)}  # fmt: skip
    require_equal(sorted(layers), list(range(model.spec.layers)), "the layers")
    require_equal(int(layers[7]), sum(".layers.7." in name for name in model.tensors()), "the tensors of layer 7")

    page = WORK / "page.html"
    run("inspect", model.folder, "--html", page)
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    page.unlink()
    require_equal(len(json.loads(data[1])["inspect"]["tensors"]), len(told), "the tensors on the page")


def check_audit(model: Large) -> None:
    report = json.loads(run("audit", model.folder, "--json"))
    require_equal((report["counts"]["error"], report["counts"]["warning"]), (0, 0), "errors and warnings")
    modules = sum(name.endswith("_proj.weight") and "vision" not in name for name in model.tensors())
    told = sum(line["modules"] for line in report["matrix"] if line["role"] in ("mlp", "expert", "attention"))
    require_equal(told, modules, "the modules")


def check_plan(model: Large) -> None:
    output = WORK / "never"
    report = json.loads(run("quantize", model.folder, output, "--recipe", model.recipe, "--dry-run", "--json"))
    require_equal(report["source_tensor_bytes"], model.tensor_bytes, "source_tensor_bytes")
    expected = sum(output_bytes(tensor, model.recipe) for tensor in model.tensors().values())
    require_equal(report["tensor_bytes"], expected, "tensor_bytes")
    require_equal(len(report["shards"]), model.spec.shards, "the shards")
    recut = json.loads(run("quantize", model.folder, output, "--recipe", model.recipe, "--dry-run", "--json", "--shard-size", "8GB"))
    require_equal(recut["tensor_bytes"], expected, "tensor_bytes of other shards")
    require(max(shard["bytes"] for shard in recut["shards"]) < 8.1e9, "a shard is larger than --shard-size and its header")
    require(not output.exists(), f"{output} was made")


# ---- cases ----


@case
def reference_inspect() -> None:
    """given the reference model, when it is inspected, then each tensor, each layer and the page are right within 256 MiB"""
    require_equal(round(REFERENCE.tensor_bytes / 1e9), 129, "gigabytes")
    check_inspect(REFERENCE)


@case
def reference_audit() -> None:
    """given the reference model, when it is audited, then there is no error, within 256 MiB"""
    check_audit(REFERENCE)


@case
def reference_plan() -> None:
    """given the reference model, when its quantizing is planned, then the size is right to the byte, within 256 MiB"""
    check_plan(REFERENCE)


@case
def mixture_inspect() -> None:
    """given a terabyte in 100,000 tensors, when it is inspected, then each tensor, layer and the page are right within 256 MiB"""
    require(len(MIXTURE.tensors()) > 100_000 and MIXTURE.tensor_bytes > 1e12, "it is smaller")
    check_inspect(MIXTURE)


@case
def mixture_audit() -> None:
    """given a terabyte in 100,000 tensors, when it is audited, then there is no error, within 256 MiB"""
    check_audit(MIXTURE)


@case
def mixture_plan() -> None:
    """given a terabyte in 100,000 tensors, when its quantizing is planned, then the size is right to the byte, within 256 MiB"""
    check_plan(MIXTURE)


@case
def mixture_wrong() -> None:
    """given a terabyte in 100,000 tensors whose index names none of them, when it is audited, then that is said within 256 MiB"""
    folder = WORK / "misnamed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in MIXTURE.folder.iterdir():
        (folder / file.name).hardlink_to(file)
    index = folder / "model.safetensors.index.json"
    text = index.read_text().replace('.weight":', '.weights":')
    index.unlink()  # a link
    index.write_text(text)
    report = json.loads(run("audit", folder, "--json", code=1))
    require_equal(report["counts"]["error"], 2, "errors")
    require_equal([finding["count"] for finding in report["findings"] if finding["severity"] == "error"],
                  [len(MIXTURE.tensors())] * 2, "how often")  # fmt: skip


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    sys.exit(run_cases() > 0)
