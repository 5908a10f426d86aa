"""What the checks of `qstream quantize hf://...` share: checkpoints whose tensors lie in awkward places, what is made of
the same source on this disk, and what must hold.

Names of sources stand for folders that are made when they are first asked for.
"""

import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from harness import QSTREAM, REPO, StandIn, model
from samples import llama_bf16, mistral_fp8, write_files
from tap import require, require_equal

sys.path.insert(0, str(REPO / "tests" / "models"))

from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from safetensors_files import Entry, Tensor, checkpoint_tensors, read_header, write_shards  # noqa: E402

MIB = 1 << 20
NOTED = MIB  # what a connection that is killed may lose (partial.h)
HEADER_MOST = 2 * (128 << 10)  # what is read of a shard by ranges for its header, in blocks
UNDER_WAY = MIB  # in buffers between the stand-in and the program, for each connection
USAGE, BAD_INPUT, IO, INTERRUPTED = 2, 3, 4, 130
LARGE_FILES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
MADE_OTHERWISE = {"README.md", "qstream.json"}  # they tell where the source was
WORK = Path("/nonexistent")
LOCK = threading.Lock()

# Some shards of a few MB each, so that a run can be stopped inside of one and between them.
ROOMY: dict[str, Any] = {"hidden": 512, "mlp": 1024, "layers": 4, "heads": 8, "kv_heads": 2, "vocab": 2048}


def resharded(folder: Path, source: Path, place: Callable[[Tensor], int]) -> Path:
    """The same tensors and other files, each tensor in the shard that `place` names, from 0."""
    tensors = checkpoint_tensors(source)
    shards: dict[int, list[Entry]] = {}
    for tensor in tensors.values():
        entry = Entry(tensor.name, tensor.dtype, tensor.shape, lambda tensor=tensor: [tensor.array()])
        shards.setdefault(place(tensor), []).append(entry)
    folder.mkdir()
    write_shards(folder, [shards[number] for number in sorted(shards)])
    write_files(folder, {"config.json": (source / "config.json").read_bytes(), "tokenizer.json": "{}\n"})
    return folder


def layer_of(tensor: Tensor) -> int:
    found = re.search(r"layers\.(\d+)\.", tensor.name)
    return int(found[1]) if found else 0


def norms_apart(folder: Path) -> Path:
    """FP8 with scales in other shards, and all norms in the last one."""
    return resharded(folder, source("fp8"), lambda tensor: 9 if "norm" in tensor.name else (
        (layer_of(tensor) + 1) % 4 if "scale" in tensor.name else layer_of(tensor)))  # fmt: skip


def scales_apart(folder: Path) -> Path:
    """FP8 with nothing but scales in the last shard."""
    return resharded(folder, source("fp8"), lambda tensor: 9 if "scale" in tensor.name else layer_of(tensor))


def shuffled(folder: Path) -> Path:
    """Plain weights with every tensor in any shard."""
    chance = random.Random(3)
    return resharded(folder, source("plain"), lambda tensor: chance.randrange(4))


MAKERS: dict[str, Callable[[Path], Any]] = {
    "plain": lambda folder: llama_bf16(folder, shards=4, **ROOMY),
    "fp8": lambda folder: make_checkpoint(folder, Spec(layout="fp8-tensor", arch="llama", shards=4, **ROOMY)),
    "mistral": lambda folder: mistral_fp8(folder, shards=3),
    "norms apart": norms_apart,
    "scales apart": scales_apart,
    "shuffled": shuffled,
    "experts": lambda folder: make_checkpoint(folder, Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_vl", shards=3,
                                                           hidden=256, mlp=128, experts=8, layers=3)),
    "expert rows": lambda folder: make_checkpoint(folder, Spec(layout="bf16", arch="qwen3_moe", fused="qwen3_5", shards=3,
                                                               hidden=256, mlp=128, experts=8, layers=3)),
    "mxfp8": lambda folder: make_checkpoint(folder, Spec(layout="mxfp8", arch="llama", shards=3, split_scales=True)),
    "one shard": lambda folder: make_checkpoint(folder, Spec(layout="bf16", arch="llama", shards=1)),
}  # fmt: skip


@cache
def made(name: str) -> Path:
    folder = WORK / "sources" / name.replace(" ", "-")
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        MAKERS[name](folder)
        if not (folder / ".gitattributes").exists():
            write_files(folder, {".gitattributes": LARGE_FILES})
    return folder


def source(name: str) -> Path:
    return made(name)


def shards_of(name: str) -> dict[str, Path]:
    return {path.name: path for path in sorted(source(name).glob("model*.safetensors"))}


def recipe_of(name: str) -> Path:
    recipe = "qwen3-moe" if "expert" in name else "mistral-medium-3.5" if name == "mistral" else "llama"
    return REPO / "configs" / f"{recipe}-mxfp4.json"


def per_tensor_recipe() -> Path:
    """FP8 with one scale for each weight, of all weights that are not kept."""
    path = WORK / "per-tensor.json"
    rules = [{"match": "re:.*(lm_head|embed_tokens)$", "format": "keep", "optional": True},
             {"match": "re:.*_proj$", "format": "fp8", "strategy": "tensor"}]  # fmt: skip
    path.write_text(json.dumps({"schema": "qstream.recipe/1", "name": "per-tensor", "rules": rules}))
    return path


# ---- running ----


def stand_in(name: str, **options: Any) -> StandIn:
    return StandIn(model("org/m", source(name)), **options)


def command(name: str, destination: Path, *options: str | Path, at: str = "hf://org/m") -> list[str | Path]:
    recipe = [] if "--recipe" in options else ["--recipe", recipe_of(name)]
    return [QSTREAM, "quantize", at, destination, *recipe, "--quiet", *options]


def quantize(hub: StandIn, name: str, *options: str | Path, at: str = "hf://org/m",
             **environment: Any) -> subprocess.CompletedProcess[str]:  # fmt: skip
    return hub.run(command(name, hub.work / "out", *options, at=at), **environment)


def reference(name: str, *options: str | Path) -> Path:
    """What a run makes of the source on this disk."""
    with LOCK:
        label = "-".join([name.replace(" ", "_"), *(re.sub(r"\W", "", str(option)) for option in options)])
        folder = WORK / "references" / label
        if not folder.exists():
            done = subprocess.run([str(word) for word in command(name, folder, *options, at=str(source(name)))],
                                  capture_output=True, text=True, check=False)  # fmt: skip
            require_equal(done.returncode, 0, done.stderr)
    return folder


def shim() -> Path:
    """tests/cli/crash_shim.c, compiled."""
    library, code = WORK / "crash_shim.so", REPO / "tests" / "cli" / "crash_shim.c"
    with LOCK:
        if not library.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, code, "-ldl", "-pthread"], check=True)
    return library


def with_shim(hub: StandIn, **settings: Any) -> dict[str, str]:
    """The environment for an accident in DST."""
    made = {"LD_PRELOAD": str(shim()), "SHIM_OUTPUT": str(hub.work / "out"), "SHIM_SOURCE": "/none"}
    return made | {f"SHIM_{setting}": str(value) for setting, value in settings.items()}


# ---- what must hold ----


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def require_same(hub: StandIn, done: subprocess.CompletedProcess[str], expected: Path) -> None:
    """It ended well; the output is that of the local run, and nothing else is left in it."""
    require_equal(done.returncode, 0, f"exit code ({done.stderr})")
    made, wanted = all_files(hub.work / "out"), all_files(expected)
    require_equal(set(made), set(wanted), "the files")
    wrong = [path for path in wanted if made[path] != wanted[path] and path not in MADE_OTHERWISE]
    require(not wrong, f"{wrong} have other bytes than those of a local run")
    shards = {entry["name"]: entry["sha256"] for entry in json.loads(made["qstream.json"])["files"]}
    for entry in json.loads(wanted["qstream.json"])["files"]:
        if entry["name"] not in MADE_OTHERWISE:
            require_equal(shards[entry["name"]], entry["sha256"], f"the manifest's hash of {entry['name']}")
    require(not (hub.work / "out" / ".qstream").exists(), "the work folder is left")


def require_refused(hub: StandIn, done: subprocess.CompletedProcess[str], code: int, *patterns: str) -> None:
    """One line that says what each pattern says, and nothing that looks finished."""
    require_equal(done.returncode, code, f"exit code ({done.stderr})")
    require_equal(done.stdout, "", "standard output")
    require(re.fullmatch(r"qstream: [^\x00-\x1f\x7f]+\n", done.stderr), f"not one line: {done.stderr[:2000]!r}")
    for pattern in patterns:
        require(re.search(pattern, done.stderr), f"{done.stderr!r} does not say {pattern!r}")
    require(not (hub.work / "out" / "config.json").exists(), "the output was published")


def sent(hub: StandIn, name: str, shard: str) -> int:
    """Bytes of a shard that the stand-in sent, but for its header and companions, which are asked for by range."""
    oid = hub.repository("org/m")["main"]["files"][shard]["sha256"]
    return sum(request["sent"] for request in hub.requests(oid, where="cdn"))


def require_sent_once(hub: StandIn, name: str, more: int = 0) -> None:
    """Each shard came whole, once, but for its header and at most `more` bytes of each."""
    for shard, path in shards_of(name).items():
        size, came = path.stat().st_size, sent(hub, name, shard)
        require(size <= came <= size + HEADER_MOST + more, f"{came} bytes of {shard} were sent, which has {size}")


def needs(hub: StandIn, name: str, *options: str | Path) -> dict[str, int]:
    """What --dry-run says of the download."""
    done = quantize(hub, name, "--dry-run", "--json", *options)
    require_equal(done.returncode, 0, done.stderr)
    require(not (hub.work / "out").exists(), "--dry-run made DST")
    return json.loads(done.stdout)["download"]


class DiskWatch:
    """Looks at what a run has of its source on the disk, as often as it can, until it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self.looks = folder, 0, 0
        self.at_once: set[frozenset[str]] = set()

    def look(self) -> None:
        taken, names = 0, set()
        for root, _, files in os.walk(self.folder):
            for file in files:
                try:
                    taken += os.stat(os.path.join(root, file)).st_blocks * 512
                except FileNotFoundError:
                    continue
                names.add(file.removesuffix(".partial"))
        self.looks += 1
        self.most = max(self.most, taken)
        self.at_once.add(frozenset(names - {"companions"}))

    def run(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        while process.poll() is None:
            self.look()
        out, error = process.communicate()
        return subprocess.CompletedProcess([], process.returncode, out, error)


def companion_place(name: str, tensor: str) -> tuple[str, int]:
    """The shard of a tensor, and the offset of its first byte in the file."""
    for shard, path in shards_of(name).items():
        for found in read_header(path).tensors:
            if found.name == tensor:
                return shard, found.offset
    raise KeyError(tensor)
