"""What checks of `qstream fetch` have in common: repositories to fetch, and the two programs that fetch them."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import QSTREAM, StandIn, model
from samples import AWKWARD, llama_bf16, mistral_fp8, write_files
from tap import require, require_equal

CODE = {"fine": 0, "usage": 2, "input": 3, "io": 4, "interrupted": 130}
FOLDERS: dict[str, Path] = {}


@contextlib.contextmanager
def folders() -> Iterator[None]:
    """Fills FOLDERS, for a while."""
    with tempfile.TemporaryDirectory(prefix="qstream-fetch-") as place:
        FOLDERS["mistral"] = mistral_fp8(Path(place, "mistral"))
        FOLDERS["bf16"] = llama_bf16(Path(place, "bf16"), hidden=64, mlp=64, vocab=64)
        FOLDERS["names"] = write_files(Path(place, "names"), {path: f"this is {path}" if path != "empty.txt" else "" for path in AWKWARD})
        yield


def hub_of(*names: str, **options: Any) -> StandIn:
    return StandIn(*(model(f"org/{name}", FOLDERS[name]) for name in names), **options)


def fetch(hub: StandIn, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return hub.run([QSTREAM, "fetch", *words], **more)


def fetched(hub: StandIn, *words: str | Path, **more: Any) -> Path:
    """The folder that it prints."""
    done = fetch(hub, *words, **more)
    require_equal(done.returncode, 0, done.stderr)
    require_equal(done.stdout.count("\n"), 1, done.stdout)
    return Path(done.stdout[:-1])


def hf(hub: StandIn, call: str, **more: Any) -> str:
    """What a call of huggingface_hub's returns."""
    script = f"import huggingface_hub, json\nfrom huggingface_hub import *\nprint({call})"
    done = hub.run([sys.executable, "-c", script], **more)
    require_equal(done.returncode, 0, done.stderr)
    return done.stdout.rstrip("\n")


def failed(done: subprocess.CompletedProcess[str], what: str, *words: str) -> None:
    require_equal(done.returncode, CODE[what], done.stderr)
    require_equal(done.stdout, "")
    for word in words:
        require(word in done.stderr, f"{word!r} is not in {done.stderr!r}")


def files_of(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: content for path, content in found.items() if not path.startswith(".cache/")}


def shape_of(folder: Path) -> dict[str, str]:
    """Every file of a cache with what it is: the text of a link, the hash of a file's bytes, its permissions."""
    shape = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            shape[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            shape[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return shape


def file_requests(hub: StandIn) -> list[str]:
    return [request["path"] for request in hub.requests("/resolve|xet-bridge") if request["method"] == "GET"]
