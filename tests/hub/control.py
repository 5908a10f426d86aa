"""Steers the stand-in Hub while it runs:

    GET  /log         what was asked so far, as JSON lines, once no request is under way
    POST /log/clear   forgets it
    PUT  /faults      [FAULT, ...] in place of those before; faults.py tells what there is
    POST /faults      FAULT beside those before
    GET  /faults      [FAULT with "hits", ...]; ?hits=N waits until they struck N times in all
    GET  /sent        bytes of bodies so far, {"hub": N, "cdn": N}; ?cdn=N waits until there are so many
    POST /repositories                          a repository more, or anew
    GET  /repositories?type=model&id=org/name   {"main": {"commit": ID, "title", "files": {PATH: {"size", "oid", "sha256" or
                                                null, "path": where the bytes lie on this disk}}}} for each branch, tag, ref

What is waited for must come within 60 seconds, or ?seconds=N.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from faults import Faults
from log import Log
from repositories import Store


class Control(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ControlListener"

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, text = 200, self.answer(body)
        except (ValueError, KeyError, TypeError, OSError) as problem:
            status, text = 400, f"{type(problem).__name__}: {problem}\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = handle_any

    def answer(self, body: bytes) -> str:
        parts = urlsplit(self.path)
        values = {name: value[0] for name, value in parse_qs(parts.query).items()}
        seconds = float(values.pop("seconds", "60"))
        log, faults, store = self.server.log, self.server.faults, self.server.store
        match self.command, parts.path:
            case "GET", "/log":
                entries = log.quiet(seconds)
                return "".join(json.dumps(entry) + "\n" for entry in entries)
            case "POST", "/log/clear":
                log.clear()
            case "PUT", "/faults":
                faults.set(json.loads(body))
            case "POST", "/faults":
                faults.add(json.loads(body))
            case "GET", "/faults":
                log.wait(lambda: faults.hits() >= int(values.get("hits", "0")), seconds)
                return json.dumps(faults.state()) + "\n"
            case "GET", "/sent":
                log.wait(lambda: all(log.sent[where] >= int(size) for where, size in values.items()), seconds)
                return json.dumps(log.sent) + "\n"
            case "POST", "/repositories":
                store.add(json.loads(body))
            case "GET", "/repositories":
                return json.dumps(store.repositories[values["type"], values["id"]].described()) + "\n"
            case _:
                raise ValueError(f"{self.command} {self.path} is not known here")
        return ""


class ControlListener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, log: Log, faults: Faults, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), Control)
        self.log, self.faults, self.store = log, faults, store
