#!/usr/bin/env python3
"""A stand-in for a model server: answers POST /v1/completions with `echo` and `logprobs` as vLLM does, from recorded NLLs.

    stand_in.py PER_TOKEN.tsv IDS.json [--window 2048 --stride 512] [--port 8000]

PER_TOKEN.tsv is what `qstream ppl MODEL --per-token FILE` wrote and IDS.json the text's ids, so `qstream ppl --server
http://127.0.0.1:8000 --tokens IDS.json` must come to the same figures. A prompt is found in the text by its ids. The
tokens of a window that an earlier window has scored get a logprob that no test would survive.

A first folder in the path asks for a fault: http://127.0.0.1:8000/FAULT is the server's URL then; the names of FAULTS
below. NAME-once befalls only the first try of each window. Python's standard library only.
"""
import argparse
import itertools
import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POISON = -88.0  # the logprob of tokens that are context only
HANG_SECONDS = 20  # longer than any time-out of the tests


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def read_per_token(path):
    """{position: nll}, the float32 that was written. Columns by the names in the first line; without names: position, id, nll."""
    columns = {"position": 0, "nll": 2}
    table = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            fields = line.lstrip("#").strip().split("\t")
            if "nll" in fields:
                columns = {name: fields.index(name) for name in columns}
            elif fields[0]:
                table[int(fields[columns["position"]])] = float32(float(fields[columns["nll"]]))
    return table


class Text:
    """The recorded text: ids, and the NLL of each position that some window scores."""

    def __init__(self, ids, nll, window, stride):
        self.ids, self.nll, self.window, self.stride = list(ids), dict(nll), window, stride

    def find(self, prompt):
        """Where the window with these ids begins; None when there is none."""
        for first in range(0, len(self.ids) - len(prompt) + 1, self.stride):
            if self.ids[first : first + len(prompt)] == prompt:
                return first
        return None

    def logprobs(self, prompt, first):
        scored_from = 1 if first == 0 else first - self.stride + self.window
        return [None] + [
            -self.nll[position] if position >= scored_from else POISON
            for position in range(first + 1, first + len(prompt))
        ]


def answer(text, request, first, model):
    """The object that vLLM answers with, and the one generated token."""
    prompt = request["prompt"]
    logprobs = text.logprobs(prompt, first) + [-0.25]
    tokens = [f"token_id:{token}" for token in prompt] + [" the"]
    return {
        "id": "cmpl-stand-in",
        "object": "text_completion",
        "created": 1764000000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "text": "".join(tokens),
                "logprobs": {
                    "text_offset": list(itertools.accumulate([0] + [len(token) for token in tokens[:-1]])),
                    "token_logprobs": logprobs,
                    "tokens": tokens,
                    "top_logprobs": [None if value is None else {token: value} for token, value in zip(tokens, logprobs)],
                },
                "finish_reason": "length",
                "stop_reason": None,
                "prompt_logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": len(prompt), "total_tokens": len(prompt) + 1, "completion_tokens": 1},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stand-in"

    def log_message(self, *arguments):
        pass

    # ---- what is sent ----

    def reply(self, body, status=200, headers=(), kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, headers=()):
        self.reply({"error": {"message": message, "type": "error", "param": None, "code": status}}, status, headers)

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def raw(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True

    # ---- requests ----

    def do_GET(self):
        self.handle_request(None)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.handle_request(json.loads(self.rfile.read(length)))

    def do_CONNECT(self):
        self.server.requests.append({"path": self.path, "first": None, "headers": dict(self.headers), "request": None})
        self.fail(403, "no tunnels")

    def handle_request(self, request):
        try:
            self.answer_request(request)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer_request(self, request):
        path = self.path.partition("?")[0]
        folder, _, rest = path[1:].partition("/")
        fault = "" if folder == "v1" else folder
        what = path[len(fault) + 1 :] if fault else path
        stand_in = self.server
        first = stand_in.text.find(request["prompt"]) if request else None
        name = fault.removesuffix("-once")
        with stand_in.lock:
            tries = sum(1 for seen in stand_in.requests if seen["first"] == first and seen["path"] == path)
            stand_in.requests.append(
                {"path": path, "first": first, "headers": dict(self.headers), "request": request, "time": time.monotonic()}
            )
        if what == "/v1/models" and request is None:
            if not name.startswith("models-"):
                self.reply({"object": "list", "data": [{"id": stand_in.model, "object": "model"}]})
            else:
                FAULTS[name](self, request, {})
            return
        if what != "/v1/completions" or request is None:
            self.fail(404, "Not Found")
            return
        if first is None:
            self.fail(400, "this prompt is no window of the recorded text")
            return
        wanted = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        if any(request.get(key) != value for key, value in wanted.items()) or request.get("model") != stand_in.model:
            self.fail(400, "a request of another form was expected")
            return
        good = answer(stand_in.text, request, first, stand_in.model)
        if not name or (fault.endswith("-once") and tries > 0) or name.startswith("models-"):
            self.reply(good)
        else:
            FAULTS[name](self, request, good)


# ---- faults: each takes the handler, the request and the answer that would be good ----


def with_logprobs(change):
    """The answer with another list of log probabilities."""

    def fault(handler, request, good):
        logprobs = good["choices"][0]["logprobs"]
        logprobs["token_logprobs"] = change(logprobs["token_logprobs"])
        handler.reply(good)

    return fault


def put_last(value):
    """`value` in the place of the prompt's last token."""
    return with_logprobs(lambda values: values[:-2] + [value] + values[-1:])


def with_choice(**members):
    def fault(handler, request, good):
        good["choices"][0].update(members)
        handler.reply(good)

    return fault


def status(code, *headers):
    return lambda handler, request, good: handler.fail(code, f"status {code} was asked for", headers)


def encoded(good):
    return json.dumps(good).encode()


def cut(handler, request, good):
    data = encoded(good)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.hang_up()


def hang(handler, request, good):
    handler.server.stopped.wait(HANG_SECONDS)
    handler.hang_up()


def drip(handler, request, good):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.stopped.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def huge(handler, request, good):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(4096):  # 256 MB, if nobody stops it
        handler.wfile.write(chunk)


def http10(part):
    def fault(handler, request, good):
        data = encoded(good)
        handler.raw(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + data[: int(len(data) * part)])

    return fault


def bos(handler, request, good):
    logprobs = good["choices"][0]["logprobs"]
    logprobs["token_logprobs"] = [None, -3.0] + logprobs["token_logprobs"][1:]
    good["usage"]["prompt_tokens"] += 1
    handler.reply(good)


def bos_uncounted(handler, request, good):
    logprobs = good["choices"][0]["logprobs"]
    logprobs["token_logprobs"] = [None, -3.0] + logprobs["token_logprobs"][1:-1]
    good["usage"] = {"completion_tokens": 0}
    handler.reply(good)


def without_first(handler, request, good):
    """The second token's logprob first: as many as the prompt has tokens, each at the place of the one before it."""
    logprobs = good["choices"][0]["logprobs"]
    logprobs["token_logprobs"] = logprobs["token_logprobs"][1:]
    handler.reply(good)


def key(handler, request, good):
    if handler.headers.get("Authorization") == "Bearer secret-4711":
        handler.reply(good)
    else:
        handler.fail(401, f"no such key: {handler.headers.get('Authorization')}")


def echoes_key(before):
    return lambda handler, request, good: handler.fail(
        403, before + f"the key '{handler.headers.get('Authorization')}' is not known"
    )


def models(*names):
    return lambda handler, request, good: handler.reply({"object": "list", "data": [{"id": name} for name in names]})


FAULTS = {
    # the network
    "close": lambda handler, request, good: handler.hang_up(),
    "cut": cut,
    "hang": hang,
    "drip": drip,
    "huge": huge,
    "no-http": lambda handler, request, good: handler.raw(b"\x16\x03\x01 this is something else\r\n\r\n"),
    "bad-chunk": lambda handler, request, good: handler.raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    ),
    "http10": http10(1),
    "padded": lambda handler, request, good: handler.reply(encoded(good) + b" " * 1_200_000),  # no fault
    "http10-cut": http10(0.5),
    # statuses
    **{f"status-{code}": status(code) for code in (400, 404, 408, 429, 500, 502, 503, 504)},
    "retry-after": status(429, ("Retry-After", "1")),
    "too-long": lambda handler, request, good: handler.fail(
        400, "This model's maximum context length is 96 tokens.\nYou asked for 97\x1b[0m."
    ),
    "unicode": lambda handler, request, good: handler.fail(400, ESCAPES),
    "nul-error": lambda handler, request, good: handler.fail(400, "a\0b"),
    "not-json-error": lambda handler, request, good: handler.reply(b"<html>\r\n<h1>Bad\tGateway</h1>\0\x1b[31m", 400),
    "empty-error": lambda handler, request, good: handler.reply(b"", 400),
    "detail-error": lambda handler, request, good: handler.reply({"detail": [{"loc": ["body"], "msg": "wrong"}]}, 422),
    # who may ask
    "key": key,
    "echoes-key": echoes_key(""),
    "cuts-key": echoes_key("x" * 275),
    "escapes-key": lambda handler, request, good: handler.reply(b'{"error": "no \\u0073ecret-4711"}', 403),
    "redirect": lambda handler, request, good: handler.reply({}, 307, [("Location", handler.server.elsewhere)]),
    "redirect-path": lambda handler, request, good: handler.reply({}, 307, [("Location", "/other?key=secret-4711")]),
    "redirect-nowhere": lambda handler, request, good: handler.reply({}, 302),
    "models-none": models(),
    "models-two": models("first", "se\x1bcond"),
    "models-key": lambda handler, request, good: handler.reply(
        {"object": "list", "data": [{"id": "first"}, {"id": handler.headers.get("Authorization")}]}
    ),
    "nests-key": lambda handler, request, good: handler.reply(
        {"detail": [{"input": handler.headers.get("Authorization")}]}, 422
    ),
    "slashes-key": lambda handler, request, good: handler.reply(
        json.dumps({"detail": [handler.headers.get("Authorization")]}).replace("/", "\\/").encode(), 422
    ),
    "large-502": lambda handler, request, good: handler.reply(b"<h1>Bad Gateway</h1>" + b" " * 3_000_000, 502),
    "long-header": lambda handler, request, good: handler.reply(good, 200, [("X-Long", "x" * 400_000)]),
    "models-html": lambda handler, request, good: handler.reply(b"<html>hello</html>"),
    "models-404": status(404),
    # what is answered
    "half-json": lambda handler, request, good: handler.reply(encoded(good)[: len(encoded(good)) // 2]),
    "html": lambda handler, request, good: handler.reply(b"<!doctype html><p>welcome", kind="text/html"),
    "empty": lambda handler, request, good: handler.reply(b""),
    "array": lambda handler, request, good: handler.reply([good]),
    "no-choices": lambda handler, request, good: handler.reply({"object": "chat"}),
    "empty-choices": lambda handler, request, good: handler.reply({"choices": []}),
    "no-logprobs": with_choice(logprobs=None),
    "chat-logprobs": with_choice(logprobs={"content": [{"token": "a", "logprob": -1.0}]}),
    "no-echo": with_logprobs(lambda values: values[-1:]),
    "too-few": with_logprobs(lambda values: values[:-5]),
    "too-many": with_logprobs(lambda values: values + [-1.0]),
    "without-first": without_first,
    "prompt-only": with_logprobs(lambda values: values[:-1]),  # no fault
    "first-zero": with_logprobs(lambda values: [0.0] + values[1:]),  # no fault
    "bos": bos,
    "bos-uncounted": bos_uncounted,
    "null": put_last(None),
    "all-null": with_logprobs(lambda values: [None] * len(values)),
    "nan": put_last(float("nan")),
    "infinity": put_last(float("-inf")),
    "clamped": put_last(-9999.0),
    "positive": put_last(0.5),
    "string": put_last("-1.0"),
}
ESCAPES = "línea eins\r\nzwei\x1b[31m rot \u202e\u4e2d\u6587 \U0001f642 \x7f" + " und weiter" * 1000


class StandIn(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, text, model="recorded", port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.text, self.model = text, model
        self.lock, self.requests, self.stopped = threading.Lock(), [], threading.Event()
        self.elsewhere = "/v1/completions"  # where the redirect leads

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hung up is no error of ours
            super().handle_error(request, client_address)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.stopped.set()
        self.shutdown()
        self.server_close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("per_token")
    parser.add_argument("ids")
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--stride", type=int, default=512)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", default="recorded")
    arguments = parser.parse_args()
    with open(arguments.ids, encoding="utf-8") as file:
        ids = json.load(file)
    text = Text(ids, read_per_token(arguments.per_token), arguments.window, arguments.stride)
    server = StandIn(text, arguments.model, arguments.port)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
