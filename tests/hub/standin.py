#!/usr/bin/env python3
"""A stand-in for huggingface.co: serves repositories from local folders as the Hub does, with faults on demand.

    standin.py --model org/name=FOLDER [--dataset org/name=FOLDER] [--repositories FILE.json] [options]

prints one line of JSON when it is ready and ends when its standard input does:

    {"hub": "http://127.0.0.1:40001", "cdn": "http://127.0.0.1:40002", "control": "http://127.0.0.1:40003"}

HF_ENDPOINT is the first address. Large files (LFS) lie at the second, another host, reached by signed addresses only. The
third steers it: faults, what was asked, what is there (control.py; harness.py is for Python). With --tls nginx stands in
front (tls.py): https://localhost, HTTP/2; "ca" tells the certificate's authority, "plain" the addresses without TLS.

FILE.json is {"repositories": [...], "tokens": {...}}, both optional: Store.add (repositories.py) tells what a
repository's description may say; a token is {"TOKEN": {"name": "alice", "organizations": ["org"], "write": true,
"granted": true}}. Without "tokens" these are known: hf_owner (writes to org/..., sees what is private there), hf_granted
(let into gated repositories), hf_reader (neither).

Python's standard library only.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tls
from control import ControlListener
from faults import Faults, Sending, apply, cut_range, instead
from hub import PAGE_ENTRIES, SIGNATURE_SECONDS, Cdn, Hub, Signer, User
from log import Log
from messages import Reply, Request, Slice, json_reply
from repositories import Hashes, Store

HASHES = Path(__file__).resolve().parents[2] / "build" / "hub" / "hashes.json"
PIECE, FILE_PIECE, SEND_BUFFER = 1 << 16, 1 << 20, 1 << 16
TICK = 0.01  # seconds, of what waits for something else


class Gone(Exception):
    """The connection is to be closed."""


class Handler(BaseHTTPRequestHandler):
    """Of the Hub and of the CDN."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stand-in", ""
    disable_nagle_algorithm = True
    server: "Listener"

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        log, self.received, self.sent = self.server.log, 0, 0
        entry = log.begin(self.server.where)
        try:
            self.exchange(entry)
        except (OSError, Gone):
            self.close_connection = True
        finally:
            entry |= {"sent": self.sent, "received": self.received}
            log.end(entry)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def exchange(self, entry: dict[str, Any]) -> None:
        fields = self.headers
        host = f"{fields.get('X-Forwarded-Proto', 'http')}://{fields.get('Host')}"
        addresses = {"hub": fields.get("X-Stand-In-Hub", self.server.addresses["hub"]),
                     "cdn": fields.get("X-Stand-In-Cdn", self.server.addresses["cdn"])}  # fmt: skip
        addresses[self.server.where] = host
        request = Request(self.server.where, self.command, self.path, fields, addresses["hub"], addresses["cdn"],
                          self.read_body)  # fmt: skip
        strikes = self.server.faults.strikes(request)
        token = fields.get("Authorization", "").removeprefix("Bearer ")
        user = self.server.users.get(token)
        entry |= {"method": self.command, "path": request.path, "query": request.query, "range": fields.get("Range"),
                  "authorization": "Authorization" in fields, "user": user.name if user else None,
                  "user_agent": fields.get("User-Agent"), "protocol": fields.get("X-Forwarded-Protocol", "HTTP/1.1"),
                  "connection": int(fields.get("X-Forwarded-Connection", self.client_address[1])),
                  "faults": [strike.do for strike in strikes], "status": 0, "length": 0}  # fmt: skip
        kinds = {strike.do: strike for strike in strikes}
        self.server.log.add_sent(self.server.where, 0)  # who waits for faults looks again
        if "hang_up" in kinds:
            self.hang_up(reset=False)
        self.upload_ends = kinds["drop_upload"].number("after") if "drop_upload" in kinds else None
        self.left = self.body_length()
        answers = (answer for strike in strikes if (answer := instead(strike, request)))
        reply = next(answers, None) or self.answer(request, entry)
        for _ in self.read_body():  # what nobody wanted
            pass
        cut_range(request, reply, strikes)
        sending = apply(reply, strikes)
        entry |= {"status": reply.status, "length": reply.length}
        self.send(request, reply, sending)

    def answer(self, request: Request, entry: dict[str, Any]) -> Reply:
        try:
            return self.server.answer(request)
        except (KeyError, TypeError, ValueError) as problem:  # the client's mistake
            entry["problem"] = repr(problem)
            return json_reply({"error": f"Bad request: {problem!r}"}, 400)

    # ---- the request's body ----

    def body_length(self) -> int | None:
        """None: in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return None
        return int(self.headers.get("Content-Length") or 0)

    def read_body(self) -> Iterator[bytes]:
        while self.left != 0:
            if self.left is None:
                size = int(self.rfile.readline().partition(b";")[0], 16)
                if size == 0:
                    self.left = 0
                    self.rfile.readline()
                    return
                piece = self.rfile.read(size)
                self.rfile.readline()
            else:
                size = min(self.left, PIECE)
                piece = self.rfile.read(size)
                self.left -= size
            self.received += len(piece)
            if len(piece) < size:
                raise Gone
            if self.upload_ends is not None and self.received > self.upload_ends:
                self.hang_up(reset=False)
            yield piece

    # ---- the reply ----

    def send(self, request: Request, reply: Reply, sending: Sending) -> None:
        self.send_response(reply.status)
        length = max(0, reply.length + sending.length_by)
        fields = {"Content-Length": str(length), "X-Request-Id": f"Root=1-{self.server.log.now()}"} | reply.fields
        for name, value in fields.items():
            # header fields are bytes: a path that is no Latin-1 goes out as UTF-8
            self.send_header(name, re.sub(r"[\r\n]", " ", value).encode().decode("latin-1"))
        self.end_headers()
        if request.method == "HEAD":
            return
        self.send_body(reply, sending)
        if length > reply.length:
            self.hang_up(reset=False)

    def send_body(self, reply: Reply, sending: Sending) -> None:
        ends = [place for place in (sending.drop_after, sending.stall_after) if place is not None]
        end = min([reply.length, *ends])
        if isinstance(reply.body, Slice):
            with reply.body.path.open("rb") as stream:
                if sending.rate is None and sending.flip_at is None:
                    self.send_file(stream, reply.body.start, end)
                else:
                    stream.seek(reply.body.start)
                    self.send_pieces(iter(lambda: stream.read(PIECE), b""), end, sending)
        else:
            self.send_pieces((reply.body[at : at + PIECE] for at in range(0, reply.length, PIECE)), end, sending)
        if end == sending.stall_after:
            self.wait_while(sending.stalled)
        if end in ends:
            self.hang_up(sending.reset)

    def send_file(self, stream: Any, start: int, length: int) -> None:
        while length > 0:
            try:
                self.connection.sendfile(stream, start, min(length, FILE_PIECE))
            finally:
                size = stream.tell() - start  # where it got, also after an error
                self.count(size)
            if size == 0:
                raise ValueError(f"{stream.name} became shorter")
            start, length = start + size, length - size

    def count(self, size: int) -> None:
        self.sent += size
        self.server.log.add_sent(self.server.where, size)

    def send_pieces(self, pieces: Iterator[bytes], end: int, sending: Sending) -> None:
        step = PIECE if sending.rate is None else max(1, min(PIECE, int(sending.rate * TICK)))
        begun = time.monotonic()
        for piece in pieces:
            piece = bytearray(piece[: end - self.sent])
            if sending.flip_at is not None and self.sent <= sending.flip_at < self.sent + len(piece):
                piece[sending.flip_at - self.sent] ^= 0x01
            for at in range(0, len(piece), step):
                if sending.rate is not None:
                    due = begun + self.sent / sending.rate
                    self.wait_while(lambda due=due: time.monotonic() < due)
                self.wfile.write(piece[at : at + step])
                self.count(len(piece[at : at + step]))
            if self.sent >= end:
                return

    def wait_while(self, still: Any) -> None:
        while still():
            self.connection.settimeout(TICK)
            try:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise Gone
                time.sleep(TICK)  # the next request is there already
            except TimeoutError:
                pass
            finally:
                self.connection.settimeout(None)

    def hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        raise Gone


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    addresses: dict[str, str]

    def __init__(self, where: str, port: int, answer: Any, log: Log, faults: Faults, users: dict[str, User]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        # small, so that what counts as sent is not far from what the client has
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.where, self.answer, self.log, self.faults, self.users = where, answer, log, faults, users

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that left is none
            super().handle_error(request, client_address)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="ORG/NAME=FOLDER")
    parser.add_argument("--dataset", action="append", default=[], metavar="ORG/NAME=FOLDER")
    parser.add_argument("--repositories", type=Path, metavar="FILE.json")
    parser.add_argument("--port", type=int, default=0, help="of the Hub; 0: the system chooses (default)")
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--tls", action="store_true", help="nginx in front, with a certificate of a test CA")
    parser.add_argument(
        "--cdn-host", choices=("127.0.0.1", "localhost"), help="the CDN's name in addresses (that of the Hub)"
    )
    parser.add_argument(
        "--page", type=int, default=PAGE_ENTRIES, help=f"entries of a tree's page (default {PAGE_ENTRIES})"
    )
    parser.add_argument(
        "--signature-seconds", type=int, default=SIGNATURE_SECONDS, help="how long a signed address is good"
    )
    parser.add_argument(
        "--multipart", type=int, default=Hub.multipart_bytes, help="uploads of so many bytes come in parts"
    )
    parser.add_argument("--part", type=int, default=Hub.part_bytes, help="bytes of a part")
    parser.add_argument("--log", type=Path, metavar="FILE")
    parser.add_argument("--hashes", type=Path, default=HASHES, metavar="FILE", help="remembers hashes of large files")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    store, log, faults = Store(Hashes(arguments.hashes)), Log(arguments.log), Faults()
    with contextlib.ExitStack() as ending:
        ending.callback(store.close)
        given = json.loads(arguments.repositories.read_text()) if arguments.repositories else {}
        hub = Hub(store, Signer(arguments.signature_seconds), page_entries=arguments.page,
                  multipart_bytes=arguments.multipart, part_bytes=arguments.part)  # fmt: skip
        if "tokens" in given:
            hub.users = {token: User(**about | {"organizations": tuple(about.get("organizations", ()))})
                         for token, about in given["tokens"].items()}  # fmt: skip
        for type, places in (("model", arguments.model), ("dataset", arguments.dataset)):
            for id, _, folder in (place.partition("=") for place in places):
                store.add({"type": type, "id": id, "commits": [folder]})
        for settings in given.get("repositories", []):
            store.add(settings)
        listeners = {"hub": Listener("hub", arguments.port, hub.answer, log, faults, hub.users),
                     "cdn": Listener("cdn", arguments.cdn_port, Cdn(hub).answer, log, faults, hub.users),
                     "control": ControlListener(log, faults, store)}  # fmt: skip
        ports = {name: listener.server_address[1] for name, listener in listeners.items()}
        hosts = {"hub": "127.0.0.1", "cdn": arguments.cdn_host or "127.0.0.1", "control": "127.0.0.1"}
        addresses = {name: f"http://{hosts[name]}:{port}" for name, port in ports.items()}
        for listener in listeners.values():
            listener.addresses = addresses
            threading.Thread(target=listener.serve_forever, daemon=True).start()
        ready: dict[str, Any] = addresses
        if arguments.tls:
            ports.pop("control")
            nginx = tls.Nginx(
                store.folder / "nginx", ports, {"hub": "localhost", "cdn": arguments.cdn_host or "localhost"}
            )
            ending.callback(nginx.stop)
            ready = addresses | nginx.addresses | {"ca": str(tls.CA), "plain": addresses}
        print(json.dumps(ready), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while sys.stdin.buffer.read1(PIECE):
                pass


if __name__ == "__main__":
    main()
