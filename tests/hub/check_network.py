#!/usr/bin/env python3
"""Proves what the Hub client says to a Hub and makes of its answers, by a small program of it (client.c): listings, files by
ranges under faults, errors, and the environment, which huggingface_hub reads beside it. Prints TAP.

    check_network.py [--tls] [WORD ...]      only cases with one of the words in their names

HUB_CLIENT names another program than build/unit/hub_client.
"""

import atexit
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from harness import REPO, StandIn, dataset, model
from samples import AWKWARD, random_bytes, write_files
from tap import case, require, require_equal, run_cases

TLS = "--tls" in sys.argv
CLIENT = Path(os.environ.get("HUB_CLIENT", REPO / "build" / "unit" / "hub_client")).resolve()
OK, BAD_INPUT, IO, INTERRUPTED = 0, 3, 4, 130
LARGE = 30_000_000
SEED = int(os.environ.get("QSTREAM_TEST_SEED", "1"))


def make_folders(work: Path) -> dict[str, Path]:
    names = {path: f"this is {path}" if path != "empty.txt" else "" for path in AWKWARD}
    return {
        "names": write_files(work / "names", names | {"weights of/ü model.safetensors": random_bytes(3000)}),
        "large": write_files(work / "large", {"large.bin": random_bytes(LARGE), "config.json": '{"a": 1}\n'}),
        "rows": write_files(work / "rows", {"raw/test.parquet": random_bytes(5000)}),
    }


ENDING = contextlib.ExitStack()
atexit.register(ENDING.close)
FOLDERS = make_folders(Path(ENDING.enter_context(tempfile.TemporaryDirectory(prefix="qstream-network-"))))
HUB = ENDING.enter_context(
    StandIn(
        model("org/names", FOLDERS["names"], branches={"main": 0, "with/slash": 0}, refs={"refs/pr/1": 0}),
        model("org/large", FOLDERS["large"], old_names=["org/before"]),
        model("org/secret", FOLDERS["names"], private=True),
        model("org/gated", FOLDERS["large"], gated="manual"),
        model("org/disabled", FOLDERS["names"], disabled=True),
        dataset("org/rows", FOLDERS["rows"]),
        tls=TLS,
        page=3,
    )
)
LARGE_FILE = FOLDERS["large"] / "large.bin"


def before() -> None:
    HUB.no_faults()
    HUB.clear_log()


def run(*words: Any, status: int = OK, says: str = "", token: str | None = None, **more: str | None) -> bytes:
    """What it prints; it has to end with this status, and say this on stderr."""
    done = subprocess.run([CLIENT, *map(str, words)], env=HUB.environment(token, **more), capture_output=True, timeout=300)
    said = done.stderr.decode(errors="replace").strip()
    require(done.returncode == status, f"{words} ends with {done.returncode}, not {status}: {said}")
    require(says in said, f"{words} says {said!r}, not {says!r}")
    require("hf_" not in said.replace("hf_hub", ""), f"a token is told: {said!r}")
    return done.stdout


def same(found: bytes, file: Path) -> None:
    require(found == file.read_bytes(), f"{file} is another: {len(found)} bytes")


# ---- listings and small files ----


@case
def listing() -> None:
    """a listing is the repository's, page by page: names, sizes, hashes"""
    for reference, id, type in (
        ("org/names", "org/names", "model"),
        ("hf://org/names@refs/pr/1", "org/names", "model"),
        ("org/names@with/slash", "org/names", "model"),
        ("datasets/org/rows", "org/rows", "dataset"),
        ("org/before", "org/large", "model"),
    ):
        found = json.loads(run("list", reference))
        expected = HUB.repository(id, type)["main"]
        require_equal(found["commit"], expected["commit"])
        files = {path: (file["size"], file["sha256"] or file["oid"]) for path, file in expected["files"].items()}
        require_equal({file["path"]: (file["size"], file["etag"]) for file in found["files"]}, files)
    commit = found["commit"]
    HUB.clear_log()
    require_equal(json.loads(run("list", f"org/large@{commit}"))["commit"], commit)
    require_equal(len(HUB.requests("/revision/")), 0, "of a commit, what was asked")


@case
def small_files() -> None:
    """small files are read whole, whatever their names"""
    for path in sorted(p for p in FOLDERS["names"].rglob("*") if p.is_file()):
        same(run("read", "org/names", path.relative_to(FOLDERS["names"])), path)
    same(run("read", "datasets/org/rows", "raw/test.parquet"), FOLDERS["rows"] / "raw/test.parquet")


@case
def wrong_bytes() -> None:
    """a small file with a wrong byte is read again, then refused"""
    HUB.fault(do="flip", path="config.json", at=3, times=1)
    same(run("read", "org/large", "config.json"), FOLDERS["large"] / "config.json")
    HUB.no_faults()
    HUB.fault(do="flip", path="config.json", at=3)
    run("read", "org/large", "config.json", status=IO, says="org/large/config.json")
    HUB.no_faults()
    HUB.fault(do="truncate", path="config.json", keep=4)  # a part at a time is fine
    same(run("read", "org/large", "config.json"), FOLDERS["large"] / "config.json")


@case
def contradictions() -> None:
    """what the Hub says on the way to a file has to be what it lists"""
    for name, value, says in (
        ("X-Linked-Etag", '"' + "0" * 64 + '"', "hash"),
        ("X-Linked-Size", "7", "size"),
        ("X-Repo-Commit", "f" * 40, "commit"),
    ):
        HUB.no_faults()
        HUB.fault(do="headers", where="hub", path="/resolve/", set={name: value})
        run("read", "org/large", "large.bin", status=BAD_INPUT, says=f"the {says}")


# ---- ranges ----


def ranges(reads: int = 30, threads: int = 4, **more: Any) -> None:
    run("ranges", "org/large", "large.bin", LARGE_FILE, SEED, reads, threads, **more)


@case
def in_order() -> None:
    """reading in order: each byte comes once, and the token stays with the Hub"""
    same(run("copy", "org/large", "large.bin", 1_000_003, token="hf_owner"), LARGE_FILE)
    sent = HUB.requests(where="cdn")
    require_equal(sum(request["sent"] for request in sent), LARGE)
    require(not any(request["authorization"] for request in sent), "the token went to another host")
    require(all(request["authorization"] for request in HUB.requests(where="hub")), "the Hub did not get it")
    require(len(sent) <= 30, f"{len(sent)} requests")


@case
def connections() -> None:
    """many requests go through few connections, over TLS by HTTP/2"""
    ranges(reads=40, threads=8)
    requests = HUB.requests()
    require(len(requests) > 30, len(requests))
    for where in ("hub", "cdn"):
        used = {request["connection"] for request in HUB.requests(where=where)}
        require(len(used) <= 16, f"{len(used)} connections to the {where}")
    if TLS:
        require_equal({request["protocol"] for request in requests}, {"HTTP/2.0"})


@case
def broken_connections() -> None:
    """connections that break at random places: the bytes are right"""
    for reset in (False, True):
        HUB.no_faults()
        HUB.fault(do="drop", where="cdn", after=[0, 2_000_000], reset=reset, seed=SEED, times=60)
        ranges()


@case
def bad_answers() -> None:
    """no reply, 500, 502, 503, 504, 429 and 408 in between: the bytes are right"""
    for number, status in enumerate((500, 502, 503, 504, 429, 408)):
        HUB.fault(do="status", status=status, skip=5 * number, times=1, headers={"Retry-After": "0"})
    HUB.fault(do="hang_up", skip=15, times=1)
    HUB.fault(do="hang_up", where="cdn", skip=30, times=3)
    ranges()
    require_equal(HUB.hits()[:6], [1] * 6)


@case
def expired() -> None:
    """addresses that expire: the Hub is asked for new ones"""
    HUB.fault(do="expire", where="cdn", skip=3, times=2)
    HUB.fault(do="expire", where="cdn", skip=20, times=2)
    ranges()
    require(len(HUB.requests("/resolve/", where="hub")) >= 3, "it was not asked")


@case
def slow() -> None:
    """a slow server is not taken for a dead one"""
    HUB.fault(do="slow", where="cdn", rate=400_000, times=4)
    ranges(reads=5, HF_HUB_DOWNLOAD_TIMEOUT="2")


@case
def stalls() -> None:
    """a server that stalls is given up after HF_HUB_DOWNLOAD_TIMEOUT, and asked again"""
    HUB.fault(do="stall", where="cdn", after=100_000, times=2)
    ranges(reads=5, threads=2, HF_HUB_DOWNLOAD_TIMEOUT="1")
    require_equal(HUB.hits(), [2])


@case
def wrong_ranges() -> None:
    """ranges that are ignored, refused or others than was asked for: an error that names the file"""
    for fault, says in (
        ({"do": "ignore_range"}, "ignores ranges"),
        ({"do": "refuse_range"}, "416"),
        ({"do": "wrong_range", "by": 1}, "another range"),
    ):
        HUB.no_faults()
        HUB.fault(where="cdn", **fault)
        run("ranges", "org/large", "large.bin", LARGE_FILE, SEED, 30, 1, status=IO, says=says)
    HUB.no_faults()
    HUB.fault(do="length", where="cdn", by=5)  # more than comes: nothing is missing
    ranges(reads=3)
    HUB.no_faults()
    HUB.fault(do="ignore_range", where="cdn")
    run("copy", "org/large", "large.bin", 100_000, status=IO, says="ignores ranges")


@case
def redirects() -> None:
    """redirects in a chain are followed, endless ones and those that leave https are not"""
    HUB.fault(do="chain", where="hub", path="/resolve/", hops=5)
    same(run("read", "org/large", "config.json"), FOLDERS["large"] / "config.json")
    HUB.no_faults()
    HUB.fault(do="redirect", where="hub", path="config.json", to="{hub}{target}")
    run("read", "org/large", "config.json", status=IO, says="circles")
    if TLS:
        HUB.no_faults()
        HUB.fault(do="redirect", where="hub", path="config.json", to=HUB.addresses["plain"]["hub"] + "{target}")
        run("read", "org/large", "config.json", status=IO, says="from https to http")


# ---- errors ----


@case
def refusals() -> None:
    """missing, private, gated and disabled repositories, revisions and tokens are told apart"""
    run("list", "org/none", status=BAD_INPUT, says="or it is private: check the name")
    run("list", "org/none", status=BAD_INPUT, says="your token may not read it", token="hf_reader")
    run("list", "org/secret", status=BAD_INPUT, says="or it is private")
    run("list", "org/secret", status=BAD_INPUT, says="your token may not read it", token="hf_reader")
    require_equal(len(json.loads(run("list", "org/secret", token="hf_owner"))["files"]), len(AWKWARD) + 1)
    run("list", "org/names@none", status=BAD_INPUT, says="has no revision 'none'")
    run("list", "org/names", status=BAD_INPUT, says="does not take your token", token="hf_wrong")
    run("read", "org/gated", "large.bin", status=BAD_INPUT, says="/org/gated, then set HF_TOKEN or run 'hf auth login'")
    run("read", "org/gated", "large.bin", status=BAD_INPUT, says="ask for access", token="hf_reader")
    same(run("read", "org/gated", "large.bin", token="hf_granted"), LARGE_FILE)
    run("read", "org/disabled", AWKWARD[0], status=BAD_INPUT, says="disabled access")
    run("list", "org/names", status=IO, says="HF_HUB_OFFLINE", HF_HUB_OFFLINE="1")


@case
def rate_limit() -> None:
    """a rate limit is waited for"""
    HUB.fault(do="status", status=429, headers={"RateLimit": '"api";r=0;t=1'}, path="/api/", times=2)
    run("list", "org/names")
    require_equal(HUB.hits(), [2])
    HUB.no_faults()
    HUB.fault(do="status", status=429, headers={"Retry-After": "86400"}, body="too many")
    run("list", "org/names", status=IO, says="wants fewer requests")


@case
def garbage() -> None:
    """listings that are cut, or something else"""
    HUB.fault(do="truncate", path="/tree/", keep=100)
    run("list", "org/names", status=BAD_INPUT, says="/tree/")
    HUB.no_faults()
    HUB.fault(do="body", path="/revision/", body="<html>maintenance</html>")
    run("list", "org/names", status=BAD_INPUT, says="/revision/")
    HUB.no_faults()
    HUB.fault(do="status", status=404, headers={"X-Error-Code": "Odd"}, body="\x1b[31mno", path="/revision/")
    run("list", "org/names", status=BAD_INPUT, says="404: \\x1b[31mno")


def wrong_authority() -> None:
    """a certificate of an authority that is not known is refused at once"""
    run("list", "org/names", status=IO, says="SSL_CERT_FILE", SSL_CERT_FILE=None, REQUESTS_CA_BUNDLE=None)
    require_equal(len(HUB.requests()), 0)
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        others = {"SSL_CERT_FILE": None, "REQUESTS_CA_BUNDLE": None}
        run("list", "org/names", **(others | {name: HUB.ca}))
    return None


if TLS:
    case(wrong_authority)


@case
def interrupts() -> None:
    """SIGINT ends what waits for a server"""
    HUB.fault(do="stall", where="cdn", after=1000)
    process = HUB.start([CLIENT, "copy", "org/large", "large.bin", "100000"], HF_HUB_DOWNLOAD_TIMEOUT="600")
    HUB.wait_hits(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    require_equal((process.returncode, said.strip().endswith("interrupted")), (INTERRUPTED, True), said)
    HUB.no_faults()
    HUB.fault(do="status", status=503, headers={"Retry-After": "500"})
    process = HUB.start([CLIENT, "list", "org/names"])
    HUB.wait_hits(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    require_equal(process.returncode, INTERRUPTED)


@case
def leaving() -> None:
    """a process that ends while bytes come ends as it wants to"""
    for _ in range(10):
        run("leave", "org/large", "large.bin", "-", "-")


class Proxy:
    """A proxy: CONNECT, or requests for http://..., by which it is known."""

    def __enter__(self) -> "Proxy":
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        method, target = head.decode().split()[:2]
        self.asked.append(f"{method} {target}")
        host, port = (target if method == "CONNECT" else target.split("/")[2]).split(":")
        onward = socket.create_connection((host, int(port)))
        if method == "CONNECT":
            connection.sendall(b"HTTP/1.1 200 Connected\r\nX-Repo-Commit: the proxy's\r\n\r\n")
        else:  # one request for each connection
            onward.sendall(head.replace(b"http://" + target.split("/")[2].encode(), b"", 1)
                           .replace(b"\r\n", b"\r\nConnection: close\r\n", 1))  # fmt: skip
        threading.Thread(target=self.pump, args=(onward, connection), daemon=True).start()
        self.pump(connection, onward)

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)


@case
def proxies() -> None:
    """proxies are asked that the environment names, but for hosts in no_proxy"""
    host = HUB.url.split("/")[2].split(":")[0]
    with Proxy() as proxy:
        variable = "https_proxy" if TLS else "http_proxy"
        same(run("read", "org/large", "config.json", **{variable: proxy.url}), FOLDERS["large"] / "config.json")
        require(proxy.asked, "the proxy was not asked")
        require(all(line.startswith("CONNECT") == TLS for line in proxy.asked), proxy.asked)
        proxy.asked.clear()
        run("list", "org/large", **{variable: proxy.url, "no_proxy": host})
        require_equal(proxy.asked, [])


# ---- the environment ----

WHAT_PYTHON_READS = """
import json
from huggingface_hub import constants, get_token
from huggingface_hub.utils import build_hf_headers
authorization = build_hf_headers().get("authorization")
print(json.dumps({"endpoint": constants.ENDPOINT, "token": authorization and authorization.removeprefix("Bearer "),
    "cache": constants.HF_HUB_CACHE, "offline": constants.HF_HUB_OFFLINE,
    "connect_seconds": constants.HF_HUB_ETAG_TIMEOUT, "stall_seconds": constants.HF_HUB_DOWNLOAD_TIMEOUT}))
"""


@case
def environment() -> None:
    """the environment is read as huggingface_hub reads it"""
    work = HUB.work / "environment"
    write_files(work, {"home/token": "hf_in_home\n", "other token": " hf_elsewhere ", "xdg/huggingface/token": "hf_xdg"})
    paths = [str(work / "home"), "~", "~/x", "$HOME/y", "${HOME}y/$UNSET", "", "relative", "/tmp/$", "~nobody_here/z", "~root/a"]
    values = {
        "HF_HOME": paths,
        "HF_HUB_CACHE": paths,
        "HUGGINGFACE_HUB_CACHE": paths,
        "XDG_CACHE_HOME": [str(work / "xdg"), "~/xdg", ""],
        "HF_TOKEN_PATH": [str(work / "other token"), str(work / "none"), "~/token"],
        "HF_TOKEN": ["hf_one", " hf_two\n", "", " "],
        "HUGGING_FACE_HUB_TOKEN": ["hf_old", ""],
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": ["1", "no", "TRUE", "y"],
        "HF_HUB_OFFLINE": ["1", "0", "", "yes", "ON", "true", "2"],
        "TRANSFORMERS_OFFLINE": ["1", "", "0"],
        "HF_ENDPOINT": ["https://huggingface.co/", "http://127.0.0.1:1//", "https://hub.example/hf"],
        "HF_HUB_ETAG_TIMEOUT": ["3", " 4 ", "0"],
        "HF_HUB_DOWNLOAD_TIMEOUT": ["+5", "007"],
    }
    choice = random.Random(SEED)
    for _ in range(25):
        chosen = {name: choice.choice(some) for name, some in values.items() if choice.random() < 0.4}
        variables = {name: None for name in HUB.environment() if name.startswith("HF_")} | chosen | {"HOME": str(work)}
        done = subprocess.run([sys.executable, "-c", WHAT_PYTHON_READS], env=HUB.environment(**variables), cwd=work,
                              capture_output=True, text=True, check=True)  # fmt: skip
        ours = json.loads(run("environment", **variables))
        theirs = json.loads(done.stdout)
        for read in (ours, theirs):
            read["cache"] = os.path.normpath(work / read["cache"])
        require_equal(ours, theirs, f"of {chosen}, what is read")


if __name__ == "__main__":
    require(CLIENT.exists(), f"{CLIENT} is missing: run make unit")
    sys.argv = [word for word in sys.argv if word != "--tls"]
    sys.exit(run_cases("network, TLS: " if TLS else "network: ", before) > 0)
