"""Requests and replies of the stand-in Hub, before they are bytes on a connection."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    where: str
    method: str
    target: str  # as it came
    fields: Any  # of its header
    hub: str  # the servers' addresses as this client sees them
    cdn: str
    read_body: Callable[[], Iterator[bytes]] = field(repr=False, default=lambda: iter(()))

    def __post_init__(self) -> None:
        parts = urlsplit("http://host" + self.target)
        self.segments = parts.path.split("/")[1:]  # still quoted
        self.path = unquote(parts.path)
        self.query = parts.query
        self.values = parse_qs(parts.query, keep_blank_values=True)

    def value(self, name: str, otherwise: str = "") -> str:
        return self.values.get(name, [otherwise])[0]

    def body(self) -> bytes:
        return b"".join(self.read_body())


@dataclass(frozen=True)
class Slice:
    """A run of a file's bytes."""

    path: Path
    start: int
    length: int


@dataclass
class Reply:
    status: int
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes | Slice = b""
    ranges: bool = False  # a part of the body may be asked for

    @property
    def length(self) -> int:
        return self.body.length if isinstance(self.body, Slice) else len(self.body)

    @property
    def start(self) -> int:
        """Where in its file the body begins."""
        return self.body.start if isinstance(self.body, Slice) else 0

    def cut(self, start: int, length: int) -> None:
        if isinstance(self.body, Slice):
            self.body = Slice(self.body.path, self.body.start + start, length)
        else:
            self.body = self.body[start : start + length]


class Refusal(Exception):
    """An error as the Hub tells it: X-Error-Code where it has one, X-Error-Message."""

    def __init__(self, status: int, message: str, code: str | None = None, **fields: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}

    def reply(self, as_json: bool) -> Reply:
        fields = self.fields | {"X-Error-Message": self.message} | ({"X-Error-Code": self.code} if self.code else {})
        if as_json:
            return json_reply({"error": self.message}, self.status, **fields)
        fields["Content-Type"] = "text/plain; charset=utf-8"
        return Reply(self.status, fields, self.message.encode())


def json_reply(value: Any, status: int = 200, **fields: str) -> Reply:
    fields["Content-Type"] = "application/json; charset=utf-8"
    return Reply(status, fields, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def redirect(status: int, to: str, fields: dict[str, str]) -> Reply:
    word = {302: "Found", 307: "Temporary Redirect"}[status]
    return Reply(status, fields | {"Location": to, "Content-Type": "text/plain; charset=utf-8", "Vary": "Origin, Accept"},
                 f"{word}. Redirecting to {to}".encode())  # fmt: skip


def form_or_json(request: Request) -> dict[str, Any]:
    body = request.body()
    if "json" in request.fields.get("Content-Type", ""):
        return json.loads(body)
    values: dict[str, Any] = dict(parse_qs(body.decode()))
    return values | {"expand": values.get("expand", [""])[0]}
