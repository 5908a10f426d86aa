#!/usr/bin/env python3
"""Proves what tests of the Hub rely on: each fault does what it says, the log tells what was asked, nothing outlives a test.
Prints TAP."""

import hashlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from harness import HERE, StandIn, model
from samples import random_bytes, write_files
from tap import case, require, require_equal, run_cases

LARGE = random_bytes(300_000)
SMALL = b'{"small": true}' * 100
FILE = "/org/files/resolve/main/large.bin"
HUB: StandIn


@dataclass
class Got:
    status: int
    fields: Any
    body: bytes
    broken: bool  # fewer bytes than announced, or no reply at all

    def location(self) -> str:
        return self.fields["Location"]


def get(url: str, method: str = "GET", body: bytes | None = None, **fields: str) -> Got:
    """One request, no redirects."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), body, fields)
        reply = connection.getresponse()
        try:
            return Got(reply.status, reply.headers, reply.read(), False)
        except http.client.IncompleteRead as part:
            return Got(reply.status, reply.headers, part.partial, True)
        except ConnectionResetError:
            return Got(reply.status, reply.headers, b"", True)
    except (http.client.HTTPException, ConnectionError):
        return Got(0, {}, b"", True)
    finally:
        connection.close()


def resolve(path: str = FILE) -> str:
    return get(HUB.url + path).location()


def download(**fields: str) -> Got:
    return get(resolve(), **fields)


def with_fault(**settings: Any) -> None:
    HUB.no_faults()
    HUB.fault(**settings)


# ---- connections ----


@case
def hang_up() -> None:
    """hang_up: no reply, so many times"""
    with_fault(do="hang_up", path="/api/models/", times=2)
    require_equal([get(HUB.url + "/api/models/org/files").status for _ in range(3)], [0, 0, 200])
    require_equal(HUB.hits(), [2])


@case
def drop() -> None:
    """drop: after so many bytes, with and without a reset; at random places that the seed decides"""
    for reset in (False, True):
        with_fault(do="drop", where="cdn", after=12345, reset=reset)
        got = download()
        require(got.broken and (reset or got.body == LARGE[:12345]), len(got.body))
    sent = []
    for seed in (1, 1, 2):
        with_fault(do="drop", where="cdn", after=[0, len(LARGE) - 1], seed=seed, times=3)
        HUB.clear_log()
        require(all(download().broken for _ in range(3)))
        require_equal(download().body, LARGE)
        sent.append([request["sent"] for request in HUB.requests(where="cdn")])
    require(sent[0] == sent[1] != sent[2] and len(set(sent[0])) == 4, sent)


@case
def drop_upload() -> None:
    """drop_upload: while the request's body comes"""
    with_fault(do="drop_upload", method="POST", after=100_000)
    HUB.clear_log()
    got = get(HUB.url + "/api/validate-yaml", "POST", bytes(5_000_000))
    require(got.broken)
    require(100_000 < HUB.requests()[0]["received"] < 5_000_000)


@case
def stall() -> None:
    """stall: nothing comes until the client leaves, or the fault"""
    with_fault(do="stall", where="cdn", after=1000)
    before, url = HUB.sent(), resolve()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        HUB.wait_sent(before + 1000)
        HUB.wait_hits(1)
    require_equal(HUB.requests(where="cdn")[-1]["sent"], 1000)
    got: list[Got] = []
    waiting = threading.Thread(target=lambda: got.append(download()))
    waiting.start()
    HUB.wait_sent(before + 2000)
    require(waiting.is_alive())
    HUB.no_faults()
    waiting.join(30)
    require(got and got[0].broken and got[0].body == LARGE[:1000])


@case
def slow() -> None:
    """slow: all of it comes"""
    with_fault(do="slow", where="cdn", rate=2_000_000)
    HUB.clear_log()
    require_equal(download().body, LARGE)
    request = HUB.requests(where="cdn")[0]
    require(request["end"] - request["begin"] > 0.1, "it was fast")


# ---- replies ----


@case
def status() -> None:
    """status: another answer, with its fields"""
    with_fault(
        do="status",
        status=429,
        headers={"Retry-After": "7"},
        body="slower",
        path="/tree/",
        method="GET",
        skip=1,
        times=1,
    )
    got = [get(HUB.url + "/api/models/org/files/tree/main") for _ in range(3)]
    require_equal([reply.status for reply in got], [200, 429, 200])
    require_equal((got[1].fields["Retry-After"], got[1].body), ("7", b"slower"))


@case
def body() -> None:
    """body, truncate: another body, and one whose end is missing"""
    url = HUB.url + "/api/models/org/files"
    with_fault(do="body", body='[{"type": "file"', path="/tree/")
    require_equal(get(url + "/tree/main").body, b'[{"type": "file"')
    whole = get(url).body
    with_fault(do="truncate", keep=len(whole) // 2)
    got = get(url)
    require_equal((got.body, got.broken), (whole[: len(whole) // 2], False))


@case
def length() -> None:
    """length: Content-Length says more, or less"""
    with_fault(do="length", by=50, where="cdn")
    got = download()
    require(got.broken and got.body == LARGE and got.fields["Content-Length"] == str(len(LARGE) + 50))
    with_fault(do="length", by=-50, where="cdn")
    require_equal(download().body, LARGE[:-50])


@case
def flip() -> None:
    """flip: a byte of the file, also where only a range is asked for; a random one"""
    wrong = bytearray(LARGE)
    wrong[1000] ^= 1
    with_fault(do="flip", at=1000, where="cdn")
    require_equal(download().body, bytes(wrong))
    require_equal(download(Range="bytes=900-1100").body, bytes(wrong[900:1101]))
    require_equal(download(Range="bytes=1001-1100").body, LARGE[1001:1101])
    with_fault(do="flip", where="cdn", times=1, seed=3)
    got = download().body
    require_equal(sum(a != b for a, b in zip(got, LARGE, strict=True)), 1)
    require_equal(download().body, LARGE)
    with_fault(do="flip", at=3, path="small.json")
    require(get(urljoin(HUB.url, resolve("/org/files/resolve/main/small.json"))).body != SMALL)


@case
def ranges() -> None:
    """ranges, and a server that ignores them, refuses them, answers others"""
    for place in (resolve(), HUB.url + resolve("/org/files/resolve/main/small.json")):
        content = LARGE if "xet-bridge" in place else SMALL
        size = len(content)
        for asked, first, last in (("0-0", 0, 0), ("5-20", 5, 20), ("1000-", 1000, size - 1), ("-7", size - 7, size - 1),
                                   (f"10-{size + 5}", 10, size - 1), (f"-{size + 1}", 0, size - 1)):  # fmt: skip
            got = get(place, Range=f"bytes={asked}")
            require_equal((got.status, got.body), (206, content[first : last + 1]), asked)
            require_equal(got.fields["Content-Range"], f"bytes {first}-{last}/{size}", asked)
        for asked in (f"{size}-", f"{size + 10}-{size + 20}", "-0"):
            got = get(place, Range=f"bytes={asked}")
            require_equal((got.status, got.fields["Content-Range"]), (416, f"bytes */{size}"), asked)
        for asked in ("bytes=0-1,4-5", "bytes=-", "lines=1-2"):
            require_equal(get(place, Range=asked).status, 200, asked)
    with_fault(do="ignore_range")
    got = download(Range="bytes=5-20")
    require_equal((got.status, got.body), (200, LARGE))
    with_fault(do="refuse_range")
    require_equal((download(Range="bytes=5-20").status, download().status), (416, 200))
    with_fault(do="wrong_range", by=3)
    got = download(Range="bytes=5-20")
    require_equal((got.status, got.body, got.fields["Content-Range"]), (206, LARGE[8:21], f"bytes 8-20/{len(LARGE)}"))


@case
def only_ranges() -> None:
    """faults of requests for a range, and of those for all"""
    with_fault(do="status", status=500, where="cdn", range=True)
    require_equal((download().status, download(Range="bytes=1-2").status), (200, 500))
    with_fault(do="status", status=500, where="cdn", range=False)
    require_equal((download().status, download(Range="bytes=1-2").status), (500, 206))


@case
def headers() -> None:
    """headers: others, and none"""
    with_fault(do="headers", path="/resolve/", set={"X-Linked-Etag": '"wrong"'}, remove=["x-repo-commit"])
    got = get(HUB.url + FILE)
    require_equal((got.status, got.fields["X-Linked-Etag"], got.fields["X-Repo-Commit"]), (302, '"wrong"', None))


@case
def redirects() -> None:
    """redirect, chain: elsewhere, in a circle, over some steps"""
    with_fault(do="redirect", path="/resolve/", to="{cdn}{target}&x=1", status=307)
    got = get(HUB.url + FILE + "?a=b")
    require_equal((got.status, got.location()), (307, f"{HUB.cdn}{FILE}?a=b&x=1"))
    with_fault(do="redirect", to="{path}")
    require_equal(get(HUB.url + "/api/models/a%20b").location(), "/api/models/a%20b")
    with_fault(do="chain", hops=3, path="/resolve/", status=302)
    place, steps = HUB.url + FILE, 0
    while "hop=3" not in place:
        place, steps = HUB.url + get(place).location(), steps + 1
    got = get(place)
    require_equal((steps, got.status, got.location().startswith(HUB.cdn)), (3, 302, True))


@case
def expire() -> None:
    """expire: a signed address is good no more, a new one is; signatures cannot be guessed and need no token"""
    with_fault(do="expire", where="cdn", skip=1, times=1)
    url = resolve()
    require_equal([get(url).status for _ in range(4)], [200, 403, 403, 403])
    url = resolve()
    require_equal(
        [get(url).status, get(url + "0").status, get(url.replace("serial=", "serial=9")).status], [200, 403, 403]
    )
    require_equal(get(url, Authorization="Bearer hf_owner").status, 400)


@case
def bad_fault() -> None:
    """a fault that nobody knows is refused"""
    for settings in ({"do": "explode"}, {"do": "drop", "affter": 3}, {}):
        try:
            HUB.fault(**settings)
        except RuntimeError:
            continue
        require(False, f"{settings} was taken")


# ---- the log, and the end ----


@case
def log() -> None:
    """the log: who asked what with which token, and how many bytes went"""
    HUB.clear_log()
    get(HUB.url + FILE, Authorization="Bearer hf_reader")
    get(HUB.url + "/api/models/org/files?blobs=true", "HEAD", Authorization="Bearer nobody")
    download(Range="bytes=10-19")
    first, second, *_, last = HUB.requests()
    require_equal(
        (first["where"], first["method"], first["path"], first["user"], first["status"]),
        ("hub", "GET", FILE, "reader", 302),
    )
    require_equal(
        (second["authorization"], second["user"], second["query"], second["sent"]), (True, None, "blobs=true", 0)
    )
    require_equal(
        (last["where"], last["range"], last["status"], last["sent"], last["authorization"]),
        ("cdn", "bytes=10-19", 206, 10, False),
    )
    require_equal(len(HUB.requests("resolve", where="hub", method="GET")), 2)


@case
def changes() -> None:
    """a repository that changes while the stand-in runs"""
    before = HUB.repository("org/files")["main"]["commit"]
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), {"new.txt": "new"})
        HUB.add(model("org/files", HUB.work / "files", folder))
        now = HUB.repository("org/files")["main"]
        require_equal((list(now["files"]), now["commit"] != before), (["new.txt"], True))
        require(get(f"{HUB.url}/api/models/org/files/revision/{before}").status == 200)
        HUB.add(model("org/files", HUB.work / "files"))
        require_equal(HUB.repository("org/files")["main"]["commit"], before)


@case
def given_id() -> None:
    """a commit with an id that a test wants"""
    HUB.add(model("org/known", HUB.work / "files", ids=["ab" * 20]))
    require_equal(get(f"{HUB.url}/org/known/resolve/{'ab' * 20}/large.bin").fields["X-Repo-Commit"], "ab" * 20)


@case
def no_smuggling() -> None:
    """a revision with a line break adds no field to the reply"""
    got = get(HUB.url + "/api/models/org/files/revision/x%0D%0AX-Evil:%201")
    require_equal((got.status, got.fields["X-Evil"]), (404, None))


@case
def http2() -> None:
    """TLS: HTTP/2, its CA and no other; a connection is dropped there too; the CDN by another name"""
    with StandIn(model("org/files", HUB.work / "files"), tls=True, cdn_host="127.0.0.1") as hub:

        def curl(*words: str, **more: str | None) -> subprocess.CompletedProcess[str]:
            return hub.run(
                [
                    "curl",
                    "-sS",
                    "-L",
                    "-o",
                    hub.work / "got",
                    "-w",
                    "%{http_version} %{http_code}",
                    *words,
                    hub.url + FILE,
                ],
                **more,
            )

        require_equal(curl().stdout, "2 200")
        require_equal((hub.work / "got").read_bytes(), LARGE)
        require_equal({request["protocol"] for request in hub.requests()}, {"HTTP/2.0"})
        require_equal(curl("--http1.1").stdout, "1.1 200")
        require(hub.cdn.startswith("https://127.0.0.1:") and hub.url.startswith("https://localhost:"), hub.addresses)
        require_equal(curl(SSL_CERT_FILE=None).returncode, 60)
        hub.fault(do="drop", where="cdn", after=1000, times=2)
        hub.fault(do="hang_up", where="hub", skip=2, times=1)
        require_equal(
            [curl().returncode, curl("--http1.1").returncode, curl().returncode, curl().returncode], [92, 18, 92, 0]
        )
        hub.fault(do="status", status=502, times=1)
        require_equal(curl().stdout, "2 502")


@case
def signatures_end() -> None:
    """signed addresses that are good for no time at all"""
    with StandIn(model("org/files", HUB.work / "files"), signature_seconds=0) as hub:
        require_equal(get(get(hub.url + FILE).location()).status, 403)


@case
def nothing_stays() -> None:
    """a test that is killed leaves no server behind, nor nginx"""
    script = f"import sys, time; sys.path.insert(0, {str(HERE)!r}); from harness import *\n"
    script += f"with StandIn(model('org/files', {str(HUB.work / 'files')!r}), tls=True) as hub:\n"
    script += (
        "  print(json.dumps([hub.process.pid, hub.url, hub.addresses['plain']['hub']]), flush=True); time.sleep(60)"
    )
    here = os.environ | {"TMPDIR": str(HUB.work)}  # what such a test leaves is not removed by itself
    test = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=here)
    pid, *urls = json.loads(test.stdout.readline())
    handle = os.pidfd_open(pid)
    test.send_signal(signal.SIGKILL)
    test.wait()
    test.stdout.close()
    require(select.select([handle], [], [], 30)[0], "the stand-in runs on")
    for url in urls:
        parts = urlsplit(url)
        with socket.socket() as connection:
            require(connection.connect_ex(("127.0.0.1", parts.port)) != 0, f"{url} answers")


@case
def kill_after() -> None:
    """a process is killed when it has got about so many bytes; one that ends before is not"""
    with_fault(do="slow", where="cdn", rate=1_000_000)
    got = HUB.work / "got"
    command = ["curl", "-sS", "-L", "-o", got, HUB.url + FILE]
    require(HUB.kill_after(HUB.start(command), 150_000))
    require(100_000 < got.stat().st_size < len(LARGE), got.stat().st_size)
    require(not HUB.kill_after(HUB.start(command), 2 * len(LARGE)))
    require_equal(got.read_bytes(), LARGE)


@case
def hashes_kept() -> None:
    """large files are hashed once, and again when they changed"""
    with tempfile.TemporaryDirectory() as place:
        hashes, folder = Path(place, "hashes.json"), Path(place, "folder")
        for content in (bytes(2_000_000), bytes(1_999_999) + b"x"):
            write_files(folder, {"x.bin": content})
            for _ in range(2):
                with StandIn(model("org/x", folder), hashes=hashes) as hub:
                    require_equal(
                        hub.repository("org/x")["main"]["files"]["x.bin"]["sha256"], hashlib.sha256(content).hexdigest()
                    )
        require_equal(len(json.loads(hashes.read_text())), 2)


def main() -> int:
    global HUB
    with tempfile.TemporaryDirectory() as place:
        files = write_files(Path(place, "files"), {"large.bin": LARGE, "small.json": SMALL})
        with StandIn(model("org/files", files)) as HUB:
            (HUB.work / "files").symlink_to(files)
            return run_cases(before=lambda: HUB.no_faults())


if __name__ == "__main__":
    sys.exit(main() > 0)
