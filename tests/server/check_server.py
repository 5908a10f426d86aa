#!/usr/bin/env python3
"""Proves `qstream ppl --server` against the stand-in: the figures, and what is said and asked when things fail. Prints TAP.

QSTREAM names another binary. Cases run side by side, each with a stand-in of its own, since most of them wait.
"""
import concurrent.futures
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stand_in import POISON, StandIn, Text, float32, read_per_token

QSTREAM = os.environ.get("QSTREAM", "build/qstream")
WINDOW, STRIDE, TOKENS = 96, 32, 700
KEY_VARIABLE = "QSTREAM_API_KEY"

BAD_INPUT, USAGE, IO = 3, 2, 4
cases = []


class Failure(Exception):
    pass


def require(condition, message):
    if not condition:
        raise Failure(message)


def case(function):
    cases.append(function)
    return function


# ---- a recorded text, and what its perplexity is ----


def record(seed=1, tokens=TOKENS):
    randomness = random.Random(seed)
    ids = [randomness.randrange(49152) for _ in range(tokens)]
    nll = {position: float32(randomness.expovariate(0.4)) for position in range(1, tokens)}
    nll[5] = 0.0
    nll[40] = float32(1.5e-8)
    nll[41] = 37.25
    return Text(ids, nll, WINDOW, STRIDE)


TEXT = record()


def expected(text, windows=None):
    """[(mean NLL, scored tokens)] of the windows, and the mean over all."""
    parts, scored_to, first = [], 1, 0
    while windows is None or len(parts) < windows:
        end = min(first + text.window, len(text.ids))
        values = [text.nll[position] for position in range(max(scored_to, first + 1), end)]
        parts.append((math.fsum(values) / len(values), len(values)))
        scored_to = end
        if end == len(text.ids):
            break
        first += text.stride
    return parts, math.fsum(nll * count for nll, count in parts) / sum(count for _, count in parts)


WINDOWS = len(expected(TEXT)[0])


# ---- runs ----


class Run:
    def __init__(self, result, stand_in=None):
        self.code, self.out, self.err = result.returncode, result.stdout, result.stderr
        self.requests = stand_in.requests if stand_in else []

    @property
    def posts(self):
        return [request for request in self.requests if request["request"] is not None]

    def tries(self):
        """How often each window was asked for."""
        counts = {}
        for request in self.posts:
            counts[request["first"]] = counts.get(request["first"], 0) + 1
        return counts


def command(url, folder, *options, text=TEXT):
    ids = Path(folder) / "ids.json"
    ids.write_text(json.dumps(text.ids))
    return [QSTREAM, "ppl", "--server", url, "--tokens", str(ids), "--window", str(text.window), "--stride",
            str(text.stride), "--json", *options]  # fmt: skip


def environment(key=None, **variables):
    ours = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "OPENAI_API_KEY", KEY_VARIABLE)
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name not in ours}
    plain.update(variables)
    if key:
        plain[KEY_VARIABLE] = key
    return plain


def run(fault="", *options, retries=2, text=TEXT, tail="", key=None, url=None, **variables):
    """Runs qstream against a stand-in with a fault."""
    stand_in = StandIn(text).start()
    url = url or (stand_in.url + (f"/{fault}" if fault else "") + tail)
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                command(url.replace("PORT", str(stand_in.server_address[1])), folder, "--retries", str(retries), *options, text=text),
                capture_output=True, env=environment(key, **variables), timeout=60,
            )  # fmt: skip
            return Run(result, stand_in)
    finally:
        stand_in.stop()


def figures_match(done, text=TEXT, windows=None):
    require(done.code == 0, f"exit code {done.code}: {done.err.decode()}")
    report = json.loads(done.out)
    parts, nll = expected(text, windows)
    require(report["tokens_scored"] == sum(count for _, count in parts), f"{report['tokens_scored']} tokens scored")
    require(math.isclose(report["nll"], nll, rel_tol=1e-9), f"nll {report['nll']}, not {nll}")
    require(math.isclose(report["ppl"], math.exp(nll), rel_tol=1e-9), f"ppl {report['ppl']}, not {math.exp(nll)}")
    require(len(report["windows"]) == len(parts), f"{len(report['windows'])} windows")
    for number, (window, (nll, count)) in enumerate(zip(report["windows"], parts)):
        require(math.isclose(window["nll"], nll, rel_tol=1e-9), f"window {number}: nll {window['nll']}, not {nll}")
        require(window["scored"] == count, f"window {number}: {window['scored']} tokens scored, not {count}")


def refused(done, code, *patterns):
    """One line on stderr, without a control character, that says what each pattern says; nothing on stdout."""
    error = done.err.decode("utf-8")
    require(done.code == code, f"exit code {done.code}, not {code}: {error}")
    require(done.out == b"", "something on standard output")
    lines = error.splitlines()
    require(len(lines) == 1 and lines[0].startswith("qstream: "), f"not one line: {error!r}")
    require(not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", error), f"control characters in {error!r}")
    for pattern in patterns:
        require(re.search(pattern, error), f"{error!r} does not say {pattern!r}")


def add(name, check):
    check.__doc__ = name
    cases.append(check)


# ---- the figures ----


@case
def figures():
    """the figures are those that were recorded"""
    done = run()
    figures_match(done)
    require(done.tries() == {first * STRIDE: 1 for first in range(WINDOWS)}, f"asked for {done.tries()}")


@case
def request_form():
    """a request has the window's ids and nothing that servers refuse"""
    done = run("", "--windows", "3")
    figures_match(done, windows=3)
    require(len(done.posts) == 3, f"{len(done.posts)} requests")
    for post in done.posts:
        first = post["first"]
        wanted = {"model": "recorded", "prompt": TEXT.ids[first : first + WINDOW], "max_tokens": 1, "temperature": 0,
                  "echo": True, "logprobs": 1}  # fmt: skip
        require(post["request"] == wanted, f"another request: {str(post['request'])[:200]}")
        require(post["headers"]["Content-Type"] == "application/json", "another content type")
        require("Authorization" not in post["headers"], "a key where none was given")


@case
def windows_in_flight():
    """one window at a time and many at a time give the same report"""
    one, many = run("", "--in-flight", "1"), run("", "--in-flight", "64")
    figures_match(one)
    reports = [json.loads(done.out) for done in (one, many)]
    for report in reports:
        for key in ("server", "text", "seconds", "tokens_per_second"):
            report.pop(key)
    require(reports[0] == reports[1], "they differ")
    order = [post["first"] for post in one.posts]
    require(order == sorted(order), "one at a time is not in order")


def whole_text(text, name):
    def check():
        figures_match(run("", text=text), text=text)

    add(name, check)


def slice_of(tokens, window=WINDOW, stride=STRIDE):
    return Text(TEXT.ids[:tokens], TEXT.nll, window, stride)


whole_text(slice_of(50), "a text shorter than a window is one window")
whole_text(slice_of(2), "a text of two tokens scores one")
whole_text(slice_of(WINDOW), "a text as long as a window is one window")
whole_text(slice_of(WINDOW + 1), "a last window may score one token")
whole_text(slice_of(TOKENS, 2, 1), "windows of two tokens")
whole_text(slice_of(TOKENS, 300, 299), "a stride one shorter than the window")
whole_text(slice_of(TOKENS, 300, 300), "a stride as long as the window")

for form in ("/", "/v1", "/v1/", "/v1/completions", "/v1/completions/"):
    add(f"the URL may end in {form}", lambda form=form: figures_match(run("", tail=form)))
add("the URL may be without http://", lambda: figures_match(run(url="127.0.0.1:PORT")))
add("the URL may be in capitals and have a user", lambda: figures_match(run(url="HTTP://user:word@LOCALHOST:PORT/v1")))

for fault, why in {
    "prompt-only": "a server that generates nothing",
    "first-zero": "a first token with a number, which is not looked at",
    "padded": "an answer of a megabyte and more",
    "http10": "HTTP/1.0 whose end is the connection's",
}.items():
    add(f"{why} is fine", lambda fault=fault: figures_match(run(fault)))


@case
def at_a_time():
    """--in-flight windows are under way at a time, not more"""
    done = run("hang", "--in-flight", "3", "--timeout", "1", retries=0)
    refused(done, IO, "timed out")
    require(sorted(done.tries()) == [0, STRIDE, 2 * STRIDE], f"asked for {sorted(done.tries())}")


@case
def per_token_file():
    """--per-token writes what the server told, to the bit"""
    with tempfile.TemporaryDirectory() as folder:
        figures_match(run("", "--per-token", f"{folder}/tokens.tsv"))
        require(read_per_token(f"{folder}/tokens.tsv") == TEXT.nll, "another NLL")


@case
def engine_figures():
    """a server that answers with the engine's NLLs comes to the engine's figures, faults between or not"""
    model = Path(os.environ.get("QSTREAM_TEST_MODELS", "build/models")) / "smollm2-bf16"
    if not (model / "config.json").exists():
        return "the sample model is not there"
    with tempfile.TemporaryDirectory() as folder:
        file, recorded = Path(folder, "text.txt"), Path(folder, "recorded.tsv")
        file.write_text("The river rose in the night, and by the morning the lower road was gone. " * 8)

        def qstream(command, *options, code=0):
            result = subprocess.run(
                [QSTREAM, command, str(model), "--text", str(file), *options],
                capture_output=True, env=environment(), timeout=120,
            )  # fmt: skip
            require(result.returncode == code, f"exit code {result.returncode}: {result.stderr.decode()}")
            return result.stdout

        measure = ("ppl", "--window", "48", "--stride", "16", "--quiet", "--json")
        here = json.loads(qstream(*measure, "--per-token", str(recorded)))
        stand_in = StandIn(Text(json.loads(qstream("tokenize")), read_per_token(recorded), 48, 16)).start()
        try:
            for fault in ("", "/status-500-once", "/half-json-once"):
                there = json.loads(qstream(*measure, "--server", stand_in.url + fault))
                for key in ("text", "nll", "ppl", "standard_error", "tokens_scored", "windows"):
                    require(here[key] == there[key], f"{fault}: {key} is {there[key]}, not {here[key]}")
            qstream(*measure, "--server", stand_in.url, "--expect", str(here["ppl"]))
            qstream(*measure, "--server", stand_in.url, "--expect", str(here["ppl"] * 1.01), code=1)
        finally:
            stand_in.stop()
    return None


# ---- faults that pass ----


def passing(fault, *options):
    def check():
        done = run(f"{fault}-once", *options)
        figures_match(done)
        require(set(done.tries().values()) == {2}, f"tries: {done.tries()}")

    add(f"{fault}, once for each window, is asked again", check)


for fault in ("close", "cut", "half-json", "html", "empty", "bad-chunk", "http10-cut", "status-408",
              "status-429", "status-500", "status-502", "status-503", "status-504"):  # fmt: skip
    passing(fault)
passing("hang", "--timeout", "1")


@case
def retry_after():
    """Retry-After is waited for"""
    done = run("retry-after-once", "--windows", "1")
    figures_match(done, windows=1)
    waited = done.posts[1]["time"] - done.posts[0]["time"]
    require(0.9 <= waited, f"asked again after {waited:.2f} s")


@case
def backoff():
    """the waits between tries double"""
    done = run("status-500", "--windows", "1", retries=3)
    refused(done, IO, "500", r"4 tries")
    times = [post["time"] for post in done.posts]
    waits = [later - sooner for sooner, later in zip(times, times[1:])]
    require(len(waits) == 3 and waits[0] >= 0.2 and waits[1] >= 0.45 and waits[2] >= 0.95, f"waits: {waits}")


# ---- faults that stay ----


def lasting(fault, code, tries, *patterns, options=(), **more):
    def check():
        done = run(fault, "--windows", "2", "--in-flight", "1", *options, retries=1, **more)
        refused(done, code, *patterns)
        counts = list(done.tries().values())
        require(counts == ([tries] if tries else []), f"tries: {done.tries()}, not {tries}")

    add(f"{fault}: exit {code}, asked {tries} times" + "".join(f", '{pattern}'" for pattern in patterns[:1]), check)


lasting("close", IO, 2, "2 tries", "127.0.0.1")
lasting("cut", IO, 2, "2 tries")
lasting("hang", IO, 2, "window 0: .*timed out", "--timeout", options=("--timeout", "0.5"))
lasting("drip", IO, 2, "timed out", options=("--timeout", "0.5"))
lasting("bad-chunk", IO, 2, "2 tries")
lasting("no-http", IO, 1, "HTTP")
lasting("huge", BAD_INPUT, 1, "more than [0-9]+ bytes")
lasting("status-500", IO, 2, "window 0: 'http://127.0.0.1:[0-9]+/status-500' answers 500: status 500 was", "2 tries")
lasting("status-503", IO, 2, "answers 503")
lasting("large-502", IO, 2, "answers 502: <h1>Bad Gateway</h1>", "2 tries")
lasting("long-header", IO, 1, "window 0: ", "127.0.0.1")
lasting("status-429", IO, 2, "answers 429", "--in-flight")
lasting("status-400", BAD_INPUT, 1, "answers 400: status 400 was asked for")
lasting("status-404", BAD_INPUT, 1, "answers 404", "is the URL right")
lasting("unicode", BAD_INPUT, 1, r"línea eins zwei \[31m rot \\u202e中文 🙂", r"\.\.\.")
lasting("nul-error", BAD_INPUT, 1, r'answers 400: .*"a\\u0000b"')
lasting("not-json-error", BAD_INPUT, 1, r"400: <html> <h1>Bad Gateway</h1> \[31m")
lasting("empty-error", BAD_INPUT, 1, r"answers 400 \(1 try\)")
lasting("detail-error", BAD_INPUT, 1, 'answers 422: .*"msg": "wrong"')
lasting("key", BAD_INPUT, 1, "answers 401", "API key, in QSTREAM_API_KEY")
lasting("redirect-nowhere", BAD_INPUT, 1, "answers 302")
lasting("too-long", BAD_INPUT, 1, r"length is 96 tokens. You asked for 97 \[0m.; its context has to hold a window and one")
lasting("half-json", BAD_INPUT, 2, "not valid JSON", "2 tries")
lasting("http10-cut", BAD_INPUT, 2, "not valid JSON")
lasting("html", BAD_INPUT, 2, "not valid JSON")
lasting("empty", BAD_INPUT, 2, "not valid JSON")
lasting("array", BAD_INPUT, 2, "object was expected")
lasting("no-choices", BAD_INPUT, 1, "choices")
lasting("empty-choices", BAD_INPUT, 1, "choices")
lasting("no-logprobs", BAD_INPUT, 1, "no log probabilities", "vLLM")
lasting("chat-logprobs", BAD_INPUT, 1, "token_logprobs", "vLLM")
lasting("no-echo", BAD_INPUT, 1, 'ignores "echo"', "vLLM", "window 0")
lasting("too-few", BAD_INPUT, 1, "92 log probabilities for a prompt of 96")
lasting("too-many", BAD_INPUT, 1, "98 log probabilities for a prompt of 96")
lasting("without-first", BAD_INPUT, 1, "the first token's")
lasting("bos", BAD_INPUT, 1, "97 tokens in a prompt of 96", "BOS")
lasting("bos-uncounted", BAD_INPUT, 1, "97 log probabilities for a prompt of 96 tokens, and none is generated", "BOS")
lasting("null", BAD_INPUT, 1, "null stands for the log probability of token 95")
lasting("all-null", BAD_INPUT, 1, "null stands for the log probability of token 1;")
lasting("nan", BAD_INPUT, 1, "token 95 is not a number")
lasting("infinity", BAD_INPUT, 1, "token 95 for impossible")
lasting("clamped", BAD_INPUT, 1, "token 95 for impossible", "-9999")
lasting("positive", BAD_INPUT, 1, "0.5, above 0")
lasting("string", BAD_INPUT, 1, "no number")
lasting("models-none", BAD_INPUT, 0, "lists no model")
lasting("models-two", BAD_INPUT, 0, r"2 models.*--server-model: 'first', 'se\\x1bcond'")
lasting("models-html", BAD_INPUT, 0, "list of models.*not valid JSON")
lasting("models-404", BAD_INPUT, 0, "404")


@case
def refused_connection():
    """no server: exit 4 after all tries"""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        refused(run(url=f"http://127.0.0.1:{port}", retries=1), IO, "cannot be reached", "is it running", "2 tries", str(port))


@case
def short_timeout():
    """a time-out of less than a millisecond is one"""
    refused(run("hang", "--timeout", "0.0001", retries=0), IO, "timed out")


@case
def no_retries():
    """--retries 0 asks once"""
    done = run("status-500", "--windows", "1", retries=0)
    refused(done, IO, r"\(1 try\)")
    require(len(done.posts) == 1, f"{len(done.posts)} requests")


@case
def several_models():
    """of several models one can be named"""
    figures_match(run("models-two", "--server-model", "recorded"))
    refused(run("", "--server-model", "anöther \"one\""), BAD_INPUT, "another form")


# ---- who gets what ----


@case
def key_sent():
    """the key goes to the server as a bearer token"""
    done = run("key", key="secret-4711")
    figures_match(done)
    require(all(request["headers"]["Authorization"] == "Bearer secret-4711" for request in done.requests), "not always")


@case
def redirects():
    """a redirect is not followed, so that the key goes nowhere else; the error tells where to"""
    other = StandIn(TEXT).start()
    stand_in = StandIn(TEXT)
    stand_in.elsewhere = other.url + "/v1/completions"
    stand_in.start()
    try:
        done = run(url=stand_in.url + "/redirect", key="secret-4711")
        refused(done, BAD_INPUT, "window [0-9]+: .* answers 307: it wants to be asked at '" + stand_in.elsewhere)
        require(not other.requests, "the other server was asked")
    finally:
        stand_in.stop()
        other.stop()


@case
def key_not_shown():
    """a server's text that repeats the key is shown without it"""
    done = run("echoes-key", "--server-model", "recorded", key="secret-4711")
    refused(done, BAD_INPUT, r"the key 'Bearer \*+' is not known", "another API key")
    require(b"4711" not in done.err, "the key is shown")
    done = run("cuts-key", key="secret-4711")
    refused(done, BAD_INPUT, r"the key 'Bearer \*+\.\.\.")
    require(b"secr" not in done.err, "a part of the key is shown")
    refused(run("escapes-key", key="secret-4711"), BAD_INPUT, r"answers 403: no \*+;")
    refused(run("nests-key", key='sec"ret\\4711'), BAD_INPUT, r"answers 422: .*Bearer \*+\"")
    refused(run("slashes-key", key="sec/ret/4711"), BAD_INPUT, r"answers 422: .*Bearer \*+\"")
    done = run("models-key", key="secret-4711")
    refused(done, BAD_INPUT, "2 models", r"'Bearer \*+'")
    done = run("redirect-path", key="secret-4711")
    refused(done, BAD_INPUT, r"answers 307: it wants to be asked at 'http://127.0.0.1:\d+/other\?key=\*+'")
    refused(run("echoes-key", key="***"), BAD_INPUT, r"the key 'Bearer \*\*\*' is not known")


@case
def password_not_shown():
    """an error does not show a password of the URL"""
    done = run(url="http://user:hidden@127.0.0.1:PORT/status-400?token=hidden")
    refused(done, BAD_INPUT, "answers 400")
    require(b"hidden" not in done.err, done.err.decode())
    done = run(url="http://user:hidden@127.0.0.1:PORT/redirect-path")
    refused(done, BAD_INPUT, r"answers 307: it wants to be asked at 'http://127.0.0.1:\d+/other")
    require(b"hidden" not in done.err, done.err.decode())


@case
def password_not_reported():
    """a report does not show a password of the URL"""
    with tempfile.TemporaryDirectory() as folder:
        done = run("", "--html", f"{folder}/page.html", url="http://user:geheim@127.0.0.1:PORT/?token=geheim")
        figures_match(done)
        require(re.fullmatch(r"http://127.0.0.1:\d+", json.loads(done.out)["server"]), json.loads(done.out)["server"])
        require("geheim" not in Path(folder, "page.html").read_text(), "the page shows it")


@case
def bad_key():
    """a key with a line's end is refused"""
    done = run("", key="secret\r\nX-Other: 1")
    refused(done, USAGE, "API key")
    require(not done.requests, "something was asked")


@case
def proxy():
    """a proxy of the environment is used, and gets no key of a tunnel"""
    stand_in = StandIn(TEXT).start()
    try:
        done = run("", url="http://model.invalid", retries=0, http_proxy=stand_in.url)
        refused(done, BAD_INPUT, "answers 404")  # it was asked for http://model.invalid/..., which it does not have
        require(stand_in.requests[0]["path"].startswith("http://model.invalid/"), stand_in.requests[0]["path"])
    finally:
        stand_in.stop()


@case
def proxy_tunnel():
    """a proxy that only tunnels does not get the key"""
    stand_in = StandIn(TEXT).start()
    try:
        done = run("", url="https://model.invalid", retries=0, key="secret-4711", https_proxy=stand_in.url)
        refused(done, IO, "cannot be reached")
        require(len(stand_in.requests) == 1 and stand_in.requests[0]["path"] == "model.invalid:443", stand_in.requests)
        require("Authorization" not in stand_in.requests[0]["headers"], "the proxy got the key")
    finally:
        stand_in.stop()


@case
def other_protocols():
    """a URL of another protocol is refused"""
    for url in ("ftp://127.0.0.1/", "file:///etc/passwd", "", "http://", "http://a b", "gopher://127.0.0.1:1/"):
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(command(url, folder), capture_output=True, env=environment(), timeout=20)
            refused(Run(result), USAGE, "")


@case
def untrusted_certificate():
    """TLS: a certificate that nobody vouches for is refused at once; one of SSL_CERT_FILE is taken"""
    import ssl

    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            cwd=folder, capture_output=True,
        )  # fmt: skip
        require(made.returncode == 0, "openssl makes no certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        stand_in = StandIn(TEXT)
        stand_in.socket = context.wrap_socket(stand_in.socket, server_side=True)
        stand_in.start()
        try:
            url = f"https://localhost:{stand_in.server_address[1]}"
            done = run(url=url, retries=3)
            refused(done, IO, "certificate", "SSL_CERT_FILE", r"\(1 try\)")
            require(not stand_in.requests, "it was asked")
            trusted = {"SSL_CERT_FILE": f"{folder}/cert.pem"}
            figures_match(run(url=url, **trusted))
        finally:
            stand_in.stop()


# ---- the command line ----


@case
def interrupt():
    """an interrupt ends a run that waits, with 130"""
    stand_in = StandIn(TEXT).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                command(stand_in.url + "/hang", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
            )
            for _ in range(200):
                if any(request["request"] for request in stand_in.requests):
                    break
                time.sleep(0.05)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=15)
            require(process.returncode == 130, f"exit code {process.returncode}: {error.decode()}")
            require(out == b"", "something on standard output")
            require(time.monotonic() - begun < 8, "it took its time")
    finally:
        stand_in.stop()


def main():
    require(POISON < -50, "the poison is weak")
    print(f"1..{len(cases)}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=12) as pool:
        for number, (check, outcome) in enumerate([(check, pool.submit(check)) for check in cases], 1):
            try:
                skipped = outcome.result()
                print(f"ok {number} - {check.__doc__}" + (f" # SKIP {skipped}" if skipped else ""))
            except Exception as problem:  # one case that fails must not hide the others
                failed = 1
                print(f"not ok {number} - {check.__doc__}\n# {type(problem).__name__}: {problem}")
            sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
