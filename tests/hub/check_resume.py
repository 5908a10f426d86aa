#!/usr/bin/env python3
"""Proves that `qstream fetch` uses what it has, to the byte: of connections that broke, of partial files that were left or
tampered with, of the disk and of memory. check_faults.py is about what goes wrong. Prints TAP.

    check_resume.py [WORD ...]      only cases with one of the words in their names
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import QSTREAM, StandIn, model
from samples import random_bytes, write_files
from tap import case, require, require_equal, run_cases

CHUNK = 4 << 20  # of files of these sizes
CONTENT = {
    "model-00001-of-00002.safetensors": random_bytes(5 * CHUNK + 54321, 1),
    "model-00002-of-00002.safetensors": random_bytes(2 * CHUNK, 2),
    "config.json": b'{"model_type": "llama"}',
    "empty.txt": b"",
}
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
FILES = CONTENT | {"model.safetensors.index.json": json.dumps(INDEX).encode()}
LARGE = [path for path, content in FILES.items() if len(content) > CHUNK]
CONNECTIONS = 8  # unless --connections says otherwise
SIZE = sum(len(FILES[path]) for path in LARGE)
FIRST = LARGE[0]
HUB: StandIn


def fetch(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return HUB.run([QSTREAM, "fetch", "org/model", *words], **more)


def repository_folder() -> Path:
    return HUB.cache / "models--org--model"


def snapshot() -> Path:
    folders = list((repository_folder() / "snapshots").iterdir())
    require_equal(len(folders), 1, "snapshots")
    return folders[0]


def require_whole(done: subprocess.CompletedProcess[str]) -> None:
    """It ended well, all files are right, and nothing else is left."""
    require_equal(done.returncode, 0, done.stderr)
    require_equal(Path(done.stdout.strip()), snapshot())
    for path, content in FILES.items():
        require((snapshot() / path).read_bytes() == content, f"{path} is not what it should be")
    require_equal(len(list((repository_folder() / "blobs").iterdir())), len(FILES), "blobs")


def require_failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    require_equal(done.returncode, code, done.stderr)
    require_equal(done.stdout, "")
    for word in words:
        require(word in done.stderr, f"{word!r} is not in {done.stderr!r}")


# ---- connections ----


@case
def smoothly() -> None:
    """with nothing in the way every byte is sent once, and the Hub is asked for a file's address once by each connection at
    most, not for each range"""
    require_whole(fetch())
    require_equal(sum(request["sent"] for request in HUB.requests(where="cdn")), SIZE)
    asked = len(HUB.requests("resolve/.*safetensors$", status=302))
    require(asked <= CONNECTIONS + len(LARGE), f"{asked} times")
    require(not any(request["authorization"] for request in HUB.requests(where="cdn")))


@case
def one_connection() -> None:
    """with one connection"""
    require_whole(fetch("--connections", "1"))
    require(all(request["active"] == 1 for request in HUB.requests(where="cdn")))


@case
def drops() -> None:
    """connections that drop at random places go on at the very byte"""
    for seed in range(4):
        HUB.empty_home()
        HUB.clear_log()
        HUB.no_faults()
        HUB.fault(do="drop", where="cdn", after=[1, CHUNK // 2], seed=seed, times=25)
        require_whole(fetch())
        require(HUB.hits()[0] >= 15, HUB.hits())
        require_equal(sum(request["sent"] for request in HUB.requests(where="cdn")), SIZE, "bytes sent")


@case
def drops_always() -> None:
    """every connection drops, after a little: it goes on for as long as bytes come"""
    HUB.fault(do="drop", where="cdn", after=[100_000, 900_000], seed=5)
    require_whole(fetch())
    require(HUB.hits()[0] > 30, HUB.hits())
    require_equal(sum(request["sent"] for request in HUB.requests(where="cdn")), SIZE, "bytes sent")


@case
def never_a_byte() -> None:
    """a server that drops each connection before the first byte is given up; what came of others stays"""
    HUB.fault(do="drop", where="cdn", path="", after=0, skip=3)
    require_failed(fetch("--quiet"), 4, ".safetensors")
    HUB.no_faults()
    require_whole(fetch())


# ---- ranges ----


@case
def ignored_ranges_resume() -> None:
    """a server that begins to ignore ranges: what is there is not written again"""
    HUB.fault(do="slow", where="cdn", rate=4_000_000)
    require(HUB.kill_after(HUB.start([QSTREAM, "fetch", "org/model"]), 2 * CHUNK))
    HUB.no_faults()
    HUB.fault(do="ignore_range", where="cdn")
    require_whole(fetch())
    require(sum(request["sent"] for request in HUB.requests(where="cdn")) < 3 * SIZE, "it was asked for again and again")


# ---- hashes ----


@case
def wrong_always() -> None:
    """a byte that is wrong again and again: exit code 4, the file and both hashes, nothing kept"""
    HUB.fault(do="flip", where="cdn", path=hashlib.sha256(FILES[FIRST]).hexdigest(), at=CHUNK + 5)
    wrong = bytearray(FILES[FIRST])
    wrong[CHUNK + 5] ^= 1
    right, found = (hashlib.sha256(content).hexdigest() for content in (FILES[FIRST], wrong))
    require_failed(fetch("--quiet"), 4, FIRST, right, found, "twice")
    require(not [blob for blob in (repository_folder() / "blobs").iterdir() if blob.name.startswith(right)])
    require(not (repository_folder() / "refs" / "main").exists())


# ---- interruptions ----


def partial_files() -> list[Path]:
    return sorted((repository_folder() / "blobs").glob("*.partial"))


@case
def hostile_partials() -> None:
    """partial files that are cut, longer, overwritten at random, made of nothing or a link: the right bytes all the same"""
    chance = random.Random(11)
    for round in range(24):
        HUB.empty_home()
        HUB.no_faults()
        HUB.fault(do="slow", where="cdn", rate=16_000_000)
        require(HUB.kill_after(HUB.start([QSTREAM, "fetch", "org/model"]), chance.randrange(500_000, SIZE - CHUNK)))
        HUB.no_faults()
        for partial in partial_files():
            content = bytearray(partial.read_bytes())
            if not content:
                continue  # killed between its making and its first byte
            damage = round % 8
            if damage == 0:
                content = content[: chance.randrange(len(content))]
            elif damage == 1:
                content += random_bytes(chance.randrange(1, 5000), round)
            elif damage == 2:
                content = bytearray(len(content))
            elif damage == 3:  # the note: header and records are its last bytes
                place = len(content) - chance.randrange(1, 200)
                content[place : place + 8] = chance.randbytes(8)
            elif damage == 4:  # every chunk is said to be there
                content = content[: len(content) // CHUNK * CHUNK]
            elif damage == 5:
                content = bytearray()
            elif damage == 6:
                place = chance.randrange(len(content))
                content[place] ^= 1
            if damage == 7:
                partial.unlink()
                partial.symlink_to(HUB.work / "elsewhere")
                require_failed(fetch("--quiet"), 4, partial.name)
                require(not (HUB.work / "elsewhere").exists())
                partial.unlink()
            else:
                partial.write_bytes(content)
        require_whole(fetch())


@case
def complete_partial() -> None:
    """a file that was complete but for its name gets it without being fetched"""
    for right in (True, False):
        HUB.empty_home()
        blobs = repository_folder() / "blobs"
        blobs.mkdir(parents=True)
        partial = blobs / (hashlib.sha256(FILES[FIRST]).hexdigest() + ".partial")
        partial.write_bytes(FILES[FIRST] if right else bytes(len(FILES[FIRST])))
        HUB.clear_log()
        require_whole(fetch())
        require_equal(len(HUB.requests(FIRST)) == 0, right)


@case
def other_programs_partials() -> None:
    """what huggingface_hub left unfinished is left alone"""
    blobs = repository_folder() / "blobs"
    blobs.mkdir(parents=True)
    left = blobs / (hashlib.sha256(FILES[FIRST]).hexdigest() + ".0123abcd.incomplete")
    left.write_bytes(b"something")
    require_equal(fetch().returncode, 0)
    require_equal(left.read_bytes(), b"something")
    left.unlink()
    require_whole(fetch())


# ---- disks ----


@case
def file_size_limit() -> None:
    """a file that may not grow: exit code 4 and its name; nothing of it stays, and without the limit it goes on"""
    limit = len(FILES[LARGE[1]]) // 1024 + 200
    done = HUB.run(["bash", "-c", f"ulimit -f {limit}; exec {QSTREAM} fetch org/model --quiet"])
    require_failed(done, 4, "no room", hashlib.sha256(FILES[FIRST]).hexdigest())
    require(not [partial for partial in partial_files() if partial.name.startswith(hashlib.sha256(FILES[FIRST]).hexdigest())])
    require_whole(fetch())


@case
def too_large() -> None:
    """what cannot fit is refused before anything is written"""
    tree = [{"type": "file", "path": "model.safetensors", "size": 10**16, "oid": "1" * 40,
             "lfs": {"oid": "2" * 64, "size": 10**16, "pointerSize": 137}}]  # fmt: skip
    HUB.fault(do="body", body=json.dumps(tree), path="/tree/")
    for words in ([], ["--dry-run"], ["--to", HUB.work / "nowhere"]):
        done = fetch(*words)
        require_equal(done.returncode, 4, done.stderr)
        require("10.0 PB" in done.stderr and "free" in done.stderr and "nothing was written" in done.stderr, done.stderr)
        require("model.safetensors" in done.stdout if words == ["--dry-run"] else done.stdout == "")
        require(not HUB.cache.exists() and not (HUB.work / "nowhere").exists())


# ---- memory ----


@case
def memory() -> None:
    """no more than 64 MB of memory, whatever the size"""
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 400):
            write_files(Path(folder), {"model.safetensors": random_bytes(1 << 20) * size})
            HUB.add(model("org/size", folder))
            peak = HUB.work / "peak"
            command = ["/usr/bin/time", "-f", "%M", "-o", peak, QSTREAM, "fetch", "org/size", "--quiet"]
            done = HUB.run([*command, "--connections", "32"])
            require_equal(done.returncode, 0, done.stderr)
            require(int(peak.read_text()) * 1024 < 64_000_000, f"{peak.read_text()} KiB for {size} MiB")


def main() -> int:
    global HUB

    def before() -> None:
        HUB.no_faults()
        HUB.empty_home()
        HUB.clear_log()

    with tempfile.TemporaryDirectory() as place, StandIn(model("org/model", write_files(Path(place), FILES))) as HUB:
        return run_cases(before=before)


if __name__ == "__main__":
    sys.exit(main() > 0)
