"""Faults of the stand-in Hub, on demand.

A fault is a JSON object: which requests it befalls, and what it does to them.

    where   "hub" or "cdn"; both when absent
    method  "GET"; any when absent
    path    a regular expression, looked for in the path, decoded and without its query; any when absent
    query   the same, in the query
    range   true: only requests for a range; false: only those without one
    skip    so many such requests are spared first (0)
    times   how many it befalls then; all when absent
    do      what it does:

    hang_up                            no reply: the connection is closed
    drop      after, reset             the connection is closed after so many bytes of the body (with a TCP reset)
    drop_upload  after                 the same, while the request's body is being read
    stall     after                    after so many bytes nothing comes until the client leaves or the fault is removed
    slow      rate                     so many bytes a second
    status    status, headers, body    an answer instead: 503, 429 with {"Retry-After": "1"}, ...
    body      body | file              200 with another body
    truncate  keep                     the body ends after so many bytes, and its length agrees
    length    by                       Content-Length says so many bytes more (the connection is closed then), or fewer
    flip      at                       the byte at this offset of the file is wrong; without `at` a random one of the body
    ignore_range                       200 and the whole file
    refuse_range                       416
    wrong_range  by                    206 with Content-Range and bytes that begin so much later (earlier)
    headers   set, remove              other header fields: {"X-Linked-Etag": "\\"00...\\""}
    redirect  to, status               somewhere else; {hub}, {cdn}, {target} (path and query), {path} and {query} stand
                                       for those of the request
    chain     hops, status             so many redirects to itself first
    expire                             403 for this signed URL, now and later; a newly resolved one is fine

`after` and `rate` are numbers or [lowest, highest]: then chosen at random by `seed` (0) and how often the fault struck.
Several faults may befall one request.
"""

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from messages import Reply, Request

PARAMETERS = {
    "hang_up": set(),
    "drop": {"after", "reset"},
    "drop_upload": {"after"},
    "stall": {"after"},
    "slow": {"rate"},
    "status": {"status", "headers", "body"},
    "body": {"body", "file"},
    "truncate": {"keep"},
    "length": {"by"},
    "flip": {"at"},
    "ignore_range": set(),
    "refuse_range": set(),
    "wrong_range": {"by"},
    "headers": {"set", "remove"},
    "redirect": {"to", "status"},
    "chain": {"hops", "status"},
    "expire": set(),
}
SELECTORS = {"where", "method", "path", "query", "range", "skip", "times", "do", "seed"}


@dataclass
class Sending:
    """What happens on the way of a reply's body."""

    drop_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    stalled: Callable[[], bool] = lambda: False  # whether it still does
    rate: int | None = None
    flip_at: int | None = None  # of the body that is sent
    length_by: int = 0


class Fault:
    def __init__(self, settings: dict[str, Any]) -> None:
        known = SELECTORS | PARAMETERS.get(settings.get("do", ""), set())
        if settings.get("do") not in PARAMETERS or settings.keys() - known:
            raise ValueError(f"no fault: {settings}")
        self.settings = settings
        self.do: str = settings["do"]
        self.path, self.query = re.compile(settings.get("path", "")), re.compile(settings.get("query", ""))
        self.seen = self.hits = 0
        self.serials: set[str] = set()  # signatures that have expired
        self.removed = False

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self.settings.get(name, otherwise)

    def selects(self, request: Request) -> bool:
        has_range = "Range" in request.fields
        return (
            self.get("where", request.where) == request.where
            and self.get("method", request.method) == request.method
            and bool(self.path.search(request.path))
            and bool(self.query.search(request.query))
            and self.get("range", has_range) == has_range
        )

    def strikes(self, request: Request) -> "Strike | None":
        if not self.selects(request):
            return None
        if self.do == "expire" and request.value("serial") in self.serials:
            return Strike(self, self.hits)
        self.seen += 1
        times = self.get("times")
        if self.seen <= self.get("skip", 0) or (times is not None and self.hits >= times):
            return None
        self.hits += 1
        self.serials.add(request.value("serial"))
        return Strike(self, self.hits)


@dataclass(frozen=True)
class Strike:
    """A fault that befalls a request, the hit-th time."""

    fault: Fault
    hit: int

    @property
    def do(self) -> str:
        return self.fault.do

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self.fault.get(name, otherwise)

    def number(self, name: str, otherwise: int = 0) -> int:
        given = self.get(name, otherwise)
        return self.random().randint(*given) if isinstance(given, list) else given

    def random(self) -> random.Random:
        return random.Random(f"{self.get('seed', 0)} {self.hit}")


class Faults:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.faults: list[Fault] = []

    def set(self, all_settings: list[dict[str, Any]]) -> None:
        made = [Fault(settings) for settings in all_settings]
        with self.lock:
            for fault in self.faults:
                fault.removed = True
            self.faults = made

    def add(self, settings: dict[str, Any]) -> None:
        with self.lock:
            self.faults.append(Fault(settings))

    def state(self) -> list[dict[str, Any]]:
        with self.lock:
            return [fault.settings | {"hits": fault.hits} for fault in self.faults]

    def hits(self) -> int:
        return sum(fault.hits for fault in self.faults)

    def strikes(self, request: Request) -> list[Strike]:
        with self.lock:
            return [strike for fault in self.faults if (strike := fault.strikes(request))]


def instead(fault: Strike, request: Request) -> Reply | None:
    """What is answered without asking the server at all."""
    if fault.do == "status":
        body = str(fault.get("body", "")).encode()
        return Reply(fault.get("status"), {"Content-Type": "text/plain"} | fault.get("headers", {}), body)
    if fault.do == "body":
        body = Path(fault.get("file")).read_bytes() if fault.get("file") else fault.get("body").encode()
        return Reply(200, {"Content-Type": "application/json; charset=utf-8"}, body)
    if fault.do == "expire":
        return Reply(403, {"Content-Type": "text/plain"}, b"Request has expired")
    if fault.do == "redirect":
        query = "?" + request.query if request.query else ""
        to = fault.get("to").format(hub=request.hub, cdn=request.cdn, target=request.target,
                                    path=quote(request.path), query=query)  # fmt: skip
        return Reply(fault.get("status", 302), {"Location": to})
    if fault.do == "chain" and (hop := int(request.value("hop", "0"))) < fault.get("hops"):
        path, _, query = request.target.partition("?")
        rest = [part for part in query.split("&") if part and not part.startswith("hop=")]
        return Reply(fault.get("status", 302), {"Location": path + "?" + "&".join([*rest, f"hop={hop + 1}"])})
    return None


def cut_range(request: Request, reply: Reply, faults: list[Strike]) -> None:
    """Makes of a whole reply the part that was asked for. Several ranges at a time get the whole, as a server may."""
    kinds = {fault.do: fault for fault in faults}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.fields.get("Range", ""))
    if reply.status != 200 or not reply.ranges:
        return
    reply.fields.setdefault("Accept-Ranges", "bytes")
    if not asked or asked[0] == "bytes=-" or "ignore_range" in kinds or request.method != "GET":
        return
    size = reply.length
    first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
    last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
    if first >= size or first > last or "refuse_range" in kinds:
        reply.status, reply.body = 416, b"Range Not Satisfiable"
        reply.fields = {"Content-Range": f"bytes */{size}", "Content-Type": "text/plain"}
        return
    if "wrong_range" in kinds:
        first = min(max(0, first + kinds["wrong_range"].get("by", 1)), last)
    reply.status = 206
    reply.fields["Content-Range"] = f"bytes {first}-{last}/{size}"
    reply.cut(first, last - first + 1)


def apply(reply: Reply, faults: list[Strike]) -> Sending:
    """Changes the reply as far as its header and length go; the rest is for who sends it."""
    sending = Sending()
    for fault in faults:
        if fault.do == "headers":
            reply.fields |= fault.get("set", {})
            removed = {name.lower() for name in fault.get("remove", [])}
            reply.fields = {name: value for name, value in reply.fields.items() if name.lower() not in removed}
        elif fault.do == "truncate":
            reply.cut(0, min(fault.number("keep"), reply.length))
        elif fault.do == "length":
            sending.length_by = fault.get("by")
        elif fault.do == "drop":
            sending.drop_after, sending.reset = fault.number("after"), fault.get("reset", False)
        elif fault.do == "stall":
            sending.stall_after, sending.stalled = fault.number("after"), lambda fault=fault.fault: not fault.removed
        elif fault.do == "slow":
            sending.rate = fault.number("rate")
        elif fault.do == "flip" and reply.length:
            place = fault.get("at")
            place = fault.random().randrange(reply.length) if place is None else place - reply.start
            sending.flip_at = place if 0 <= place < reply.length else None
    return sending
