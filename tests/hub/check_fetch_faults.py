#!/usr/bin/env python3
"""Proves that `qstream fetch` ends with the right bytes, or with none, whatever happens on the way. Prints TAP."""

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import QSTREAM, StandIn, model
from samples import random_bytes, write_files
from tap import case, require, require_equal, run_cases

NOTE = 1 << 20  # a killed process loses no more of each connection (PARTIAL_NOTE_BYTES)
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


def require_no_wrong_blob() -> None:
    """What has a blob's name has its hash."""
    for blob in (repository_folder() / "blobs").iterdir():
        if "." not in blob.name:
            content = blob.read_bytes()
            hashes = (hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
            require(blob.name in hashes, f"{blob.name} has another hash")


def ranges(path: str = "") -> list[tuple[int, int]]:
    """(first, last) of the ranges that were asked for at the CDN."""
    found = []
    for request in HUB.requests(path, where="cdn"):
        if request["range"]:
            first, last = request["range"].removeprefix("bytes=").split("-")
            found.append((int(first), int(last)))
    return found


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
def resets() -> None:
    """connections that are reset"""
    HUB.fault(do="drop", where="cdn", after=[1, CHUNK - 1], reset=True, seed=6, times=12)
    require_whole(fetch())


@case
def never_a_byte() -> None:
    """a server that drops each connection before the first byte is given up; what came of others stays"""
    HUB.fault(do="drop", where="cdn", path="", after=0, skip=3)
    require_failed(fetch("--quiet"), 4, ".safetensors")
    HUB.no_faults()
    require_whole(fetch())


@case
def stalls() -> None:
    """a connection on which nothing comes any more is left"""
    HUB.fault(do="stall", where="cdn", after=[1000, 2_000_000], seed=7, times=3)
    require_whole(fetch(HF_HUB_DOWNLOAD_TIMEOUT="1"))


@case
def server_errors() -> None:
    """500, 503 and 429 with Retry-After, at the Hub and at the CDN"""
    HUB.fault(do="status", status=503, where="cdn", skip=2, times=2)
    HUB.fault(do="status", status=500, where="hub", path="/resolve/", skip=1, times=2)
    HUB.fault(do="status", status=429, headers={"Retry-After": "1"}, where="cdn", skip=5, times=1)
    HUB.fault(do="hang_up", where="cdn", skip=7, times=2)
    require_whole(fetch())
    require_equal(HUB.hits(), [2, 2, 1, 2])


@case
def refused() -> None:
    """a file that the server refuses for good: exit code 3 or 4, and the file's name"""
    HUB.fault(do="status", status=404, where="hub", path="resolve/.*00002", headers={"X-Error-Code": "EntryNotFound"})
    require_failed(fetch("--quiet"), 3, "00002")


# ---- ranges ----


@case
def ignored_ranges() -> None:
    """a server that ignores ranges: the file comes in one piece, also after it was dropped"""
    HUB.fault(do="ignore_range", where="cdn")
    HUB.fault(do="drop", where="cdn", after=3 * CHUNK, skip=4, times=1)
    require_whole(fetch())
    begun = [request for request in HUB.requests(where="cdn") if request["status"] == 200]
    require(len(begun) <= 8 + 2 + 2, f"{len(begun)} times the whole file")


@case
def ignored_ranges_resume() -> None:
    """a server that begins to ignore ranges: what is there is not written again"""
    HUB.fault(do="slow", where="cdn", rate=4_000_000)
    require(HUB.kill_after(HUB.start([QSTREAM, "fetch", "org/model"]), 2 * CHUNK))
    HUB.no_faults()
    HUB.fault(do="ignore_range", where="cdn")
    require_whole(fetch())


@case
def wrong_ranges() -> None:
    """a server that sends other ranges, or says that there are none, is not believed"""
    HUB.fault(do="wrong_range", by=3, where="cdn")
    require_failed(fetch("--quiet"), 4, ".safetensors")
    HUB.no_faults()
    HUB.fault(do="refuse_range", where="cdn")
    done = fetch("--quiet")
    require(done.returncode in (3, 4) and ".safetensors" in done.stderr, done)
    HUB.no_faults()
    require_whole(fetch())


@case
def other_sizes() -> None:
    """a server whose file has another size than the list says"""
    HUB.fault(do="headers", where="cdn", set={"Content-Range": f"bytes 0-{CHUNK - 1}/99999999"})
    require_failed(fetch("--quiet"), 4, ".safetensors")
    HUB.no_faults()
    HUB.fault(do="headers", where="hub", path="resolve/.*safetensors$", set={"X-Linked-Size": "17"})
    require_failed(fetch("--quiet"), 3, ".safetensors", "17")
    HUB.no_faults()
    require_whole(fetch())


# ---- hashes ----


@case
def wrong_once() -> None:
    """a wrong byte is fetched again"""
    HUB.fault(do="flip", where="cdn", at=5 * CHUNK + 7, times=1)
    require_whole(fetch())
    require_equal(HUB.hits(), [1])
    HUB.empty_home()
    HUB.no_faults()
    HUB.fault(do="flip", where="hub", path="config.json", at=3, times=1)
    require_whole(fetch())
    require_equal(HUB.hits(), [1])


@case
def wrong_always() -> None:
    """a byte that is wrong again and again: exit code 4, the file and both hashes, nothing kept"""
    HUB.fault(do="flip", where="cdn", path=hashlib.sha256(FILES[FIRST]).hexdigest(), at=CHUNK + 5)
    wrong = bytearray(FILES[FIRST])
    wrong[CHUNK + 5] ^= 1
    right, found = (hashlib.sha256(content).hexdigest() for content in (FILES[FIRST], wrong))
    require_failed(fetch("--quiet"), 4, FIRST, right, found, "twice")
    require(not [blob for blob in (repository_folder() / "blobs").iterdir() if blob.name.startswith(right)])
    require_no_wrong_blob()
    require(not (repository_folder() / "refs" / "main").exists())
    HUB.no_faults()
    require_whole(fetch())


@case
def signatures_expire() -> None:
    """signed addresses that expire are asked for again, and no more often than that"""
    HUB.fault(do="expire", where="cdn", skip=2, times=3)
    require_whole(fetch("--connections", "2"))
    require(len(HUB.requests("resolve/.*safetensors$", status=302)) <= len(LARGE) + 2 * 3)


# ---- interruptions ----


def kill_loop(*words: str | Path, seed: int) -> tuple[int, int]:
    """Kills it at random moments until it ends by itself; how often, and bytes sent in all."""
    chance, kills = random.Random(seed), 0
    before = HUB.sent()
    while HUB.kill_after(HUB.start([QSTREAM, "fetch", "org/model", *words]), chance.randrange(100_000, SIZE // 4)):
        kills += 1
        require_no_wrong_blob()
        require(not (repository_folder() / "refs" / "main").exists(), "a reference to what is not there")
    return kills, HUB.sent() - before


@case
def killed() -> None:
    """killed at random moments it goes on, and loses at most a MiB of each connection"""
    HUB.fault(do="slow", where="cdn", rate=8_000_000)  # so that little is under way
    for seed in range(3):
        HUB.empty_home()
        connections = seed + 1
        kills, sent = kill_loop("--connections", str(connections), seed=seed)
        require(kills >= 3, f"killed {kills} times")
        require(sent <= SIZE + kills * connections * (NOTE + 400_000), f"{sent} bytes of {SIZE}, {kills} times killed")
        require_whole(fetch())


@case
def interrupted() -> None:
    """SIGINT: exit code 130, and it goes on"""
    HUB.fault(do="slow", where="cdn", rate=3_000_000)
    process = HUB.start([QSTREAM, "fetch", "org/model"])
    HUB.wait_sent(HUB.sent() + CHUNK)
    process.send_signal(2)
    out, err = process.communicate()
    require_equal((process.returncode, out), (130, ""), err)
    HUB.no_faults()
    HUB.clear_log()
    require_whole(fetch())
    require(sum(request["sent"] for request in HUB.requests(where="cdn")) < SIZE, "nothing was kept")


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
def full_disk() -> str | None:
    """a disk that becomes full meanwhile: exit code 4, and with room again it goes on"""
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    with tempfile.TemporaryDirectory() as disk:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=False).returncode != 0:
            return "cannot mount a tmpfs"
        try:
            HUB.fault(do="slow", where="cdn", rate=5_000_000)
            process = HUB.start([QSTREAM, "fetch", "org/model", "--quiet", "--connections", "1"], HF_HUB_CACHE=disk)
            HUB.wait_sent(HUB.sent() + 2_000_000)
            with Path(disk, "filler").open("wb") as filler:
                try:
                    while True:
                        filler.write(bytes(1 << 20))
                        filler.flush()
                except OSError:
                    pass
            _, err = process.communicate()
            require_equal(process.returncode, 4, err)
            require("No space left" in err, err)
            HUB.no_faults()
            Path(disk, "filler").unlink()
            HUB.clear_log()
            done = fetch(HF_HUB_CACHE=disk)
            require_equal(done.returncode, 0, done.stderr)
            require(sum(request["sent"] for request in HUB.requests(where="cdn")) < SIZE, "nothing was kept")
            for path, content in FILES.items():
                require((Path(done.stdout.strip()) / path).read_bytes() == content, path)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
    return None


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

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as place, StandIn(model("org/model", write_files(Path(place), FILES))) as HUB:
        return run_cases(before=before)


if __name__ == "__main__":
    sys.exit(main() > 0)
