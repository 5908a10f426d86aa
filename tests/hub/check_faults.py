#!/usr/bin/env python3
"""Proves `qstream fetch` against a Hub, a network and a disk that misbehave: what arrives is right to the last byte, and
what does not arrive leaves nothing that looks as if it had. Prints TAP.

    check_faults.py [WORD ...]      only cases with one of the words in their names

QSTREAM names another binary than build/qstream.
"""

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import QSTREAM, REPO, StandIn, model
from samples import random_bytes, write_files
from tap import case, require, require_equal, run_cases

MIB = 1 << 20
NOTED = MIB  # what a connection that is killed may lose (partial.h)
UNDER_WAY = MIB  # in buffers between the stand-in and the program, for each connection
CHECK_FAILED, USAGE, BAD_INPUT, IO, INTERRUPTED = 1, 2, 3, 4, 130
# Large enough for several ranges of one file, and for several files beside each other.
FILES = {
    "large.bin": random_bytes(21 * MIB + 12345, 1),
    "medium.safetensors": random_bytes(3 * MIB + 1, 2),
    "sub/é 1.bin": random_bytes(300_000, 3),
    "config.json": b'{"a": 1}\n',
    "empty.txt": b"",
}
SIZE = sum(map(len, FILES.values()))
SOON = {"Retry-After": "0"}  # a second
SANITIZED = (
    b"__asan_init" in Path(QSTREAM).read_bytes()
)  # bears neither a limit of memory nor another preloaded library
WORK: Path


def stand_in(small: bool = False, **options: Any) -> StandIn:
    return StandIn(model("org/files", WORK / ("small" if small else "files")), **options)


def command(*options: str | Path, id: str = "org/files") -> list[str | Path]:
    chosen = [] if "--include" in options else ["--all"]
    return [QSTREAM, "fetch", id, *chosen, "--quiet", *options]


def fetch(hub: StandIn, *options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return hub.run(command(*options), **environment)


# ---- what must hold ----


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sound(hub: StandIn) -> None:
    """Whatever has its final name in the cache has the bytes of this name, and no link leads nowhere."""
    for blob in hub.cache.glob("*/blobs/*"):
        if blob.suffix != ".partial":
            data = blob.read_bytes()
            names = (hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
            require(blob.name in names, f"{blob} has other bytes")
    for link in hub.cache.glob("*/snapshots/**/*"):
        require(link.exists(), f"{link} leads nowhere")


def arrived(hub: StandIn, done: subprocess.CompletedProcess[str], expected: dict[str, bytes] | None = None) -> None:
    """All of it, and nothing half-done beside it."""
    require_equal(done.returncode, 0, f"exit code ({done.stderr})")
    require_equal(done.stderr, "", "standard error")
    got = all_files(Path(done.stdout.rstrip("\n")))
    expected = FILES if expected is None else expected
    require_equal(set(got), set(expected), "the files")
    wrong = [path for path in expected if got[path] != expected[path]]
    require(not wrong, f"{wrong} came with other bytes")
    sound(hub)
    left = [path.name for path in hub.home.rglob("*.partial") if ".lost." not in str(path)]  # which is the shim's
    require(not left, f"{left} stayed")


def refused(hub: StandIn, done: subprocess.CompletedProcess[str], code: int | tuple[int, ...], *patterns: str) -> None:
    """One line that says what each pattern says; nothing that looks finished."""
    codes = code if isinstance(code, tuple) else (code,)
    require(done.returncode in codes, f"exit code {done.returncode}, not {codes}: {done.stderr!r}")
    require_equal(done.stdout, "", "standard output")
    require(re.fullmatch(r"qstream: [^\x00-\x1f\x7f]+\n", done.stderr), f"not one line: {done.stderr[:2000]!r}")
    require(len(done.stderr) < 2000, f"{len(done.stderr)} letters")
    for pattern in patterns:
        require(re.search(pattern, done.stderr), f"{done.stderr!r} does not say {pattern!r}")
    sound(hub)


def sent(hub: StandIn) -> int:
    return sum(request["sent"] for request in hub.requests(where="cdn"))


# ---- the network ----


def with_drops(tls: bool) -> None:
    for seed in range(3):
        with stand_in(tls=tls) as hub:
            hub.fault(do="drop", where="cdn", after=[0, 3 * MIB], seed=seed, times=14, reset=seed == 2)
            arrived(hub, fetch(hub))
            require_equal(hub.hits(), [14])
            require(sent(hub) < 1.5 * SIZE, f"{sent(hub)} bytes were sent for {SIZE}")


@case
def drops() -> None:
    """connections dropped at random places: it goes on where it stopped"""
    with_drops(tls=False)


@case
def drops_tls() -> None:
    """the same with TLS and HTTP/2"""
    with_drops(tls=True)


@case
def drops_of_answers() -> None:
    """answers of the Hub that break off, and connections that close without any"""
    with stand_in(page=2) as hub:
        for path in ("/revision/", "/tree/", "/resolve/"):
            hub.fault(do="drop", path=path, after=[0, 90], times=1)
            hub.fault(do="hang_up", path=path, skip=1, times=1)
        hub.fault(do="hang_up", where="cdn", skip=1, times=2)
        arrived(hub, fetch(hub))
        require_equal(hub.hits(), [1, 1, 1, 1, 1, 1, 2])


@case
def no_answer() -> None:
    """a Hub that answers nothing at all: tried some times, then an error"""
    with stand_in(small=True) as hub:
        hub.fault(do="hang_up")
        refused(hub, fetch(hub), IO, "127.0.0.1")
        require(2 <= hub.hits()[0] <= 10, hub.hits())


@case
def server_errors() -> None:
    """500, 502, 503, 504 and 408 pass"""
    with stand_in(page=2) as hub:
        for status, path in (
            (503, "/revision/"),
            (502, "/tree/"),
            (500, "config.json"),
            (408, "/tree/"),
            (504, "large"),
        ):
            hub.fault(do="status", status=status, path=path, times=1, headers=SOON)
        hub.fault(do="status", status=503, where="cdn", times=4, headers=SOON)
        arrived(hub, fetch(hub))
        require_equal(hub.hits(), [1, 1, 1, 1, 1, 4])


@case
def server_errors_stay() -> None:
    """503 for ever: an error that names the file, and what came stays for the next time"""
    with stand_in() as hub:
        hub.fault(do="status", status=503, where="cdn", headers=SOON, range=True)
        hub.fault(do="status", status=503, path="sub/", headers=SOON)
        refused(hub, fetch(hub), IO, "503", r"large\.bin|sub/é 1\.bin")
        require(hub.hits()[0] < 60, hub.hits())
        hub.no_faults()
        arrived(hub, fetch(hub))


@case
def rate_limits() -> None:
    """429: asked again when the Hub said, not before"""
    with stand_in(small=True) as hub:
        hub.fault(do="status", status=429, headers={"Retry-After": "2"}, path="/tree/", times=1)
        hub.fault(do="status", status=429, headers={"RateLimit": '"api";r=0;t=2'}, path="/revision/", times=1)
        arrived(hub, fetch(hub), {"sub/é 1.bin": FILES["sub/é 1.bin"], "config.json": FILES["config.json"]})
        for path in ("/tree/", "/revision/"):
            first, second = (request["begin"] for request in hub.requests(path))
            require(second - first >= 2, f"{path} was asked again after {second - first} s")


@case
def rate_limits_stay() -> None:
    """429 for ever: an error that says so"""
    with stand_in(small=True) as hub:
        hub.fault(do="status", status=429, headers=SOON, path="/api/")
        refused(hub, fetch(hub), IO, "fewer requests|429")


@case
def slow() -> None:
    """slow is not broken: no time-out while bytes come"""
    with stand_in(small=True) as hub:
        hub.fault(do="slow", where="cdn", rate=40_000)  # 7.5 seconds
        arrived(
            hub, fetch(hub, HF_HUB_DOWNLOAD_TIMEOUT="4"), {path: FILES[path] for path in ("sub/é 1.bin", "config.json")}
        )
        require_equal(len(hub.requests(where="cdn")), 1)


@case
def stalls() -> None:
    """connections that stall are given up and taken up again"""
    with stand_in() as hub:
        hub.fault(do="stall", where="cdn", after=[0, MIB], times=3)
        hub.fault(do="stall", path="/tree/", after=20, times=1)
        arrived(hub, fetch(hub, HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1"))
        require_equal(hub.hits(), [3, 1])


# ---- wrong bytes ----


@case
def wrong_byte_once() -> None:
    """one wrong byte: fetched again, and right"""
    for path in ("large.bin", "config.json"):
        with stand_in() as hub:
            oid = hub.repository("org/files")["main"]["files"][path]["sha256"]
            hub.fault(do="flip", path=oid or "resolve-cache.*" + path, at=5, times=1)
            arrived(hub, fetch(hub))
            require_equal(hub.hits(), [1])


@case
def wrong_byte_always() -> None:
    """a wrong byte for ever: an error that names the file; no trace of it stays, and what was right does"""
    for path in ("large.bin", "config.json"):
        with stand_in() as hub:
            file = hub.repository("org/files")["main"]["files"][path]
            hub.fault(do="flip", path=file["sha256"] or "resolve-cache.*" + path, at=len(FILES[path]) - 1)
            refused(hub, fetch(hub), IO, re.escape(path), file["sha256"] or file["oid"])
            traces = [
                found.name for found in hub.home.rglob((file["sha256"] or file["oid"]) + "*") if found.suffix != ".lock"
            ]
            require(not traces, f"{traces} stayed")
            require(not any(found.name == path for found in hub.home.rglob("*")), "its name is there")
            hub.no_faults()
            arrived(hub, fetch(hub))


@case
def lengths() -> None:
    """Content-Length says more, or less, than what comes"""
    for by in (-100, 100):
        with stand_in() as hub:
            hub.fault(do="length", by=by, where="cdn", times=3)
            hub.fault(do="length", by=by, path="resolve-cache.*config", times=1)
            done = fetch(hub)
            if done.returncode:
                refused(hub, done, IO)
            else:
                arrived(hub, done)
            hub.no_faults()
            arrived(hub, fetch(hub))


@case
def ranges_ignored() -> None:
    """a server that ignores ranges, and drops connections beside"""
    with stand_in() as hub:
        hub.fault(do="ignore_range", where="cdn")
        arrived(hub, fetch(hub))
        hub.empty_home()
        hub.fault(do="drop", where="cdn", after=[0, 20 * MIB], times=3)
        arrived(hub, fetch(hub))


@case
def ranges_refused() -> None:
    """a server that refuses ranges once; and always: an error, no wrong byte"""
    with stand_in() as hub:
        hub.fault(do="refuse_range", where="cdn", times=1, range=True)
        done = fetch(hub)
        arrived(hub, done)
        hub.empty_home()
        hub.no_faults()
        hub.fault(do="refuse_range", where="cdn")
        done = fetch(hub)
        if done.returncode:
            refused(hub, done, IO, r"large\.bin")
            require(len(hub.requests(where="cdn")) < 100, "it was asked for ever")
        else:
            arrived(hub, done)


@case
def other_ranges() -> None:
    """a server that answers another range than was asked for: no wrong byte"""
    for by in (1, -1):
        with stand_in() as hub:
            for times in (1, 1000):
                hub.fault(do="wrong_range", by=by, where="cdn", range=True, times=times)
                done = fetch(hub)
                if done.returncode:
                    refused(hub, done, IO, r"\.bin|\.safetensors")
                else:
                    arrived(hub, done)
                hub.no_faults()
            arrived(hub, fetch(hub))


# ---- what the Hub says ----


@case
def cut_json() -> None:
    """answers in JSON that end in the middle"""
    for path in ("/revision/", "/tree/"):
        for keep in (0, 1, 40, 200):
            with stand_in(small=True) as hub:
                hub.fault(do="truncate", keep=keep, path=path)
                refused(hub, fetch(hub), (BAD_INPUT, IO))
                require(not hub.requests(where="cdn"), "something was fetched")


def entry(path: Any = "a.txt", size: Any = 3, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": size, "oid": "0" * 40} | more


LFS = {"oid": "0" * 64, "size": 3, "pointerSize": 100}
HOSTILE = {
    "a path that leads out": [entry("../evil.txt")],
    "one in the middle": [entry("a/../../../evil.txt")],
    "an absolute one": [entry("/tmp/evil.txt")],
    "an empty part": [entry("a//evil.txt")],
    "a dot": [entry("./evil.txt")],
    "no path": [entry("")],
    "a line break": [entry("evil\n.txt")],
    "a zero": [entry("evil\x00.txt")],
    "an escape": [entry("\x1b[2Jevil.txt")],
    "a path that is no text": [entry(17)],
    "a long path": [entry("x" * 100_000)],
    "twice the same": [entry("evil.txt"), entry("evil.txt")],
    "a file and a folder": [entry("evil.txt"), entry("evil.txt/x")],
    "a negative size": [entry(size=-1)],
    "a fraction": [entry(size=1.5)],
    "a huge size": [entry(size=10**30)],
    "sizes whose sum is too large": [entry("a", 2**63 - 1), entry("b", 2**63 - 1), entry("c", 2**63 - 1)],
    "a hash that is a path": [entry(oid="../../../../evil.txt")],
    "a hash of no size": [entry(oid="")],
    "a large file's hash that is a path": [entry(lfs=LFS | {"oid": "../" * 20 + "evil"})],
    "two sizes": [entry(size=3, lfs=LFS | {"size": 4})],
    "no array": {"error": "no"},
    "a number": 7,
    "an array in an array": [[entry()]],
}


@case
def hostile_listings() -> None:
    """listings that lead out of the folder, or are none"""
    with stand_in(small=True) as hub:
        before = set(hub.work.iterdir())
        for what, tree in HOSTILE.items():
            hub.no_faults()
            hub.fault(do="body", body=json.dumps(tree), path="/tree/")
            for options in ((), ("--to", hub.home / "inside" / "folder")):
                done = fetch(hub, *options)
                try:
                    refused(hub, done, (BAD_INPUT, IO))
                except Exception as error:
                    raise AssertionError(f"{what}: {error}") from error
        evil = [path for path in hub.work.rglob("*evil*")]
        require(not evil and set(hub.work.iterdir()) == before, f"{evil} was written")


@case
def endless_answers() -> None:
    """a listing without end, JSON without depth, answers without measure: an error, and little memory"""
    large = WORK / "large.json"
    if not large.exists():
        large.write_bytes(b"[" + b" " * 200 * MIB + b"]")
    with stand_in(small=True) as hub:
        limit = [] if SANITIZED else ["prlimit", f"--as={1 << 30}", "--"]
        hub.fault(do="body", body="[" * 200_000, path="/tree/")
        refused(hub, hub.run([*limit, *command()]), (BAD_INPUT, IO))
        hub.no_faults()
        for path in ("/tree/", "/revision/"):
            hub.fault(do="body", file=str(large), path=path)
            refused(hub, hub.run([*limit, *command()]), (BAD_INPUT, IO))
        hub.no_faults()
        link = f'<{hub.url}/api/models/org/files/tree/main?cursor=MA%3D%3D&limit=1000&recursive=true>; rel="next"'
        hub.fault(do="headers", path="/tree/", set={"Link": link})
        refused(hub, hub.run([*limit, *command()]), (BAD_INPUT, IO))


@case
def contradictions() -> None:
    """a file whose commit, hash or size is another when it is fetched: an error that names it"""
    for fields in ({"X-Linked-Etag": f'"{"0" * 64}"'}, {"X-Linked-Size": "7"}, {"X-Repo-Commit": "0" * 40}):
        with stand_in() as hub:
            hub.fault(do="headers", path="/resolve/.*large", set=fields)
            refused(hub, fetch(hub), (BAD_INPUT, IO), r"large\.bin")


@case
def few_fields() -> None:
    """a Hub that tells no hash, size or commit along with a file: the listing did"""
    with stand_in() as hub:
        names = ["X-Linked-Etag", "X-Linked-Size", "X-Repo-Commit", "ETag", "Accept-Ranges", "Content-Disposition"]
        hub.fault(do="headers", path="/resolve|xet-bridge", remove=names)
        arrived(hub, fetch(hub))


# ---- redirects, and who may know the token ----


@case
def redirects() -> None:
    """some redirects, at the Hub and at the other host"""
    with stand_in() as hub:
        hub.fault(do="chain", hops=3, path="/revision/|/resolve/", status=307)
        arrived(hub, fetch(hub, "--revision", "main"))


@case
def redirects_in_circles() -> None:
    """redirects without end"""
    with stand_in(small=True) as hub:
        for path, where in (
            ("/revision/", "{target}"),
            ("/resolve/", "{hub}{target}"),
            ("xet-bridge", "{cdn}{target}"),
        ):
            hub.no_faults()
            hub.clear_log()
            hub.fault(do="redirect", to=where, path=path)
            refused(hub, fetch(hub), (BAD_INPUT, IO), "redirect")
            require(len(hub.requests(path)) < 200, f"{len(hub.requests(path))} requests")


@case
def redirects_elsewhere() -> None:
    """redirects to where no file is: other protocols, no address"""
    secret = WORK / "secret.json"
    secret.write_text('{"sha": "' + "1" * 40 + '", "id": "org/files"}')
    with stand_in(small=True) as hub:
        for to in (f"file://{secret}", "ftp://127.0.0.1:1/x", "gopher://127.0.0.1:1/x", "http://", "", "http://[::1/x",
                   "javascript:x", "http://127.0.0.1:99999/x", "http://a b/", "http://user:word@{hub}/"):  # fmt: skip
            hub.no_faults()
            hub.fault(do="redirect", to=to, path="/revision/")
            try:
                refused(hub, fetch(hub), (BAD_INPUT, IO))
            except Exception as error:
                raise AssertionError(f"{to}: {error}") from error


@case
def tokens() -> None:
    """the token goes to the Hub, and to no other host, whatever redirects there"""
    for cdn_host in ("127.0.0.1", "localhost"):
        with stand_in(cdn_host=cdn_host) as hub:
            arrived(hub, fetch(hub, token="hf_owner"))
            for request in hub.requests():
                require_equal(request["authorization"], request["where"] == "hub", request["path"])
            hub.empty_home()
            for path in ("/revision/", "/tree/", "/resolve/", "/resolve-cache/"):
                hub.no_faults()
                hub.fault(do="redirect", to="{cdn}{target}", path=path, where="hub")
                refused(hub, fetch(hub, token="hf_owner"), (BAD_INPUT, IO))
                require(hub.requests(path, where="cdn"), f"{path} was not followed")
                require(not hub.requests(where="cdn", authorization=True), f"{path} told the token")
            hub.no_faults()
            link = f'<{hub.cdn}/api/models/org/files/tree/main?cursor=1>; rel="next"'
            hub.fault(do="headers", path="/tree/", where="hub", set={"Link": link})
            refused(hub, fetch(hub, token="hf_owner"), (BAD_INPUT, IO))
            require(not hub.requests(where="cdn", authorization=True), "the next page told the token")


@case
def expired_addresses() -> None:
    """signed addresses that expire while ranges are still wanted: asked for anew"""
    with stand_in() as hub:
        hub.fault(do="expire", where="cdn", skip=3, times=3)
        arrived(hub, fetch(hub, "--connections", "2"))
        require_equal(hub.hits(), [3])
        files = sum(len(data) > 0 and not path.endswith(".json") for path, data in FILES.items())
        require(len(hub.requests("/resolve/", status=302)) > files, "no new address was asked for")
    with stand_in(small=True, signature_seconds=0) as hub:
        refused(hub, fetch(hub), IO, "403", "é 1.bin")
        require(len(hub.requests(where="cdn")) < 20, "it was asked for ever")


@case
def other_certificate() -> None:
    """TLS with a certificate that nobody vouches for"""
    with stand_in(small=True, tls=True) as hub:
        refused(hub, fetch(hub, SSL_CERT_FILE=None, REQUESTS_CA_BUNDLE=None), IO, "certificate")
        require(not hub.requests(), "it was asked all the same")


# ---- the disk, and the end of the process ----


def case_with_shim(function: Callable[[], None]) -> Callable[[], None]:
    return function if SANITIZED else case(function)


def shim() -> Path:
    """tests/cli/crash_shim.c, compiled."""
    library, source = WORK / "crash_shim.so", REPO / "tests" / "cli" / "crash_shim.c"
    if not library.exists():
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-pthread"], check=True)
    return library


SMALL = {"sub/é 1.bin": FILES["sub/é 1.bin"], "config.json": FILES["config.json"]}


@case
def full_disk() -> str | None:
    """no room: told before anything is fetched"""
    with stand_in() as hub:
        place = hub.work / "tmpfs"
        place.mkdir()
        script = 'mount -t tmpfs -o size=8m none "$1" || exit 77; shift; exec "$@"'
        done = hub.run(["unshare", "-rm", "sh", "-c", script, "sh", place, *command("--to", place / "folder")])
        if done.returncode == 77 or "unshare" in done.stderr:
            return "no file system can be mounted here"
        refused(hub, done, IO, "room|space|free", "MB")
        require(not hub.requests(where="cdn"), "something was fetched")
    return None


@case_with_shim
def failing_disk() -> None:
    """a disk that fills up or fails on the way: an error; later it goes on"""
    with stand_in(small=True) as hub:
        for fault in ("open:2:ENOSPC", "pwrite:1+:ENOSPC", "pwrite:2:EIO", "fsync:1:EIO", "fdatasync:1:EIO", "rename:1:EIO",
                      "ftruncate:1:ENOSPC", "mkdir:1:EACCES"):  # fmt: skip
            folder = hub.home / "folder"
            settings = {
                "LD_PRELOAD": str(shim()),
                "SHIM_OUTPUT": str(folder),
                "SHIM_SOURCE": "/none",
                "SHIM_FAIL": fault,
            }
            done = fetch(hub, "--to", folder, **settings)
            if done.returncode:
                refused(hub, done, IO, "folder")
            done = fetch(hub, "--to", folder)
            require_equal(done.returncode, 0, f"{fault}: {done.stderr}")
            got = {path: data for path, data in all_files(folder).items() if not path.startswith(".cache/")}
            require_equal(got, SMALL, fault)
            hub.empty_home()


def crashes(setting: str) -> None:
    """Runs that end at a random change of the cache. The folders are there already: else a power failure takes them, and all
    that is in them."""
    with stand_in(small=True) as hub:
        count = hub.work / "count"
        settings = {"LD_PRELOAD": str(shim()), "SHIM_OUTPUT": str(hub.cache.parent), "SHIM_SOURCE": "/none",
                    "SHIM_COUNT": str(count)}  # fmt: skip
        operations = 0
        for seed in range(30):
            hub.empty_home()
            require_equal(fetch(hub, "--include", "config.json").returncode, 0)
            if not operations:
                arrived(hub, fetch(hub, **settings), SMALL)
                operations = int(re.search(r"operations (\d+)", count.read_text())[1])
                require(operations > 8, f"{operations} operations")
                continue
            place = random.Random(seed).randint(1, operations)
            done = fetch(hub, **settings, **{setting: str(place), "SHIM_POWER_SEED": str(seed)})
            require_equal(done.returncode, -signal.SIGKILL, f"operation {place}: {done.stderr}")
            if setting == "SHIM_KILL":
                sound(hub)
            arrived(hub, fetch(hub), SMALL)


@case_with_shim
def killed_between() -> None:
    """killed before any change of the cache: what has a name is right, and the next run completes it"""
    crashes("SHIM_KILL")


@case_with_shim
def power_lost() -> None:
    """the power fails at any change of the cache: the next run completes it"""
    crashes("SHIM_POWER")


@case
def killed() -> None:
    """killed again and again at random moments: each run goes on where the one before stopped"""
    connections = 2
    for seed in range(2):
        with stand_in() as hub:
            hub.fault(do="slow", where="cdn", rate=[4_000_000, 9_000_000], seed=seed)
            chance, kills = random.Random(seed), 0
            while hub.kill_after(
                hub.start(command("--connections", str(connections))), chance.randint(2 * MIB, 7 * MIB)
            ):
                kills += 1
                sound(hub)
                require(kills < 40, "it does not get on")
            require(kills > 2, f"killed only {kills} times")
            hub.no_faults()
            arrived(hub, fetch(hub))
            lost = sent(hub) - SIZE
            require(lost <= kills * connections * (NOTED + UNDER_WAY), f"{kills} kills cost {lost} bytes")


@case
def interrupted() -> None:
    """interrupted: 130, and the next run goes on"""
    for number in (signal.SIGINT, signal.SIGTERM):
        with stand_in() as hub:
            hub.fault(do="stall", where="cdn", after=2 * MIB, times=2)
            process = hub.start(command("--connections", "2"))
            hub.wait_hits(2)
            hub.wait_sent(4 * MIB)
            process.send_signal(number)
            out, error = process.communicate(timeout=60)
            require_equal((process.returncode, out), (INTERRUPTED, ""), error)
            hub.no_faults()
            sound(hub)
            arrived(hub, fetch(hub))
            require(sent(hub) <= SIZE + 2 * (NOTED + UNDER_WAY), f"{sent(hub)} bytes were sent for {SIZE}")


@case
def two_at_once() -> None:
    """two at once: each file is fetched once, both have all"""
    with stand_in() as hub:
        hub.fault(do="slow", where="cdn", rate=20_000_000)
        processes = [hub.start(command()) for _ in range(2)]
        for process in processes:
            out, error = process.communicate(timeout=120)
            arrived(hub, subprocess.CompletedProcess([], process.returncode, out, ""))
        require(sent(hub) <= SIZE + 4 * UNDER_WAY, f"{sent(hub)} bytes were sent for {SIZE}")


def main() -> int:
    global WORK
    with tempfile.TemporaryDirectory(prefix="qstream-faults-") as place:
        WORK = Path(place)
        write_files(WORK / "files", FILES)
        write_files(WORK / "small", SMALL)
        if not SANITIZED:
            shim()  # before several want it
        return run_cases(threads=6)


if __name__ == "__main__":
    sys.exit(main() > 0)
