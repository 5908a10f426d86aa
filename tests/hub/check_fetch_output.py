#!/usr/bin/env python3
"""Proves what `qstream fetch` says: errors, summary, JSON, progress; and the text that it makes of a dataset. Prints TAP.

    check_fetch_output.py [WORD ...]      only cases with one of the words in their names
"""

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import jsonschema
from fetching import FOLDERS, failed, fetch, fetched, files_of, folders, hub_of
from harness import QSTREAM, REPO, StandIn, dataset, model
from samples import write_files
from tap import case, require, require_equal, run_cases

SHARED = Path(os.environ.get("SHARED", REPO.parent / "shared"))
WIKITEXT = "b08601e04326c79dfdd32d625aee71d232d685c3"


# ---- what it says ----


@case
def errors() -> None:
    """what cannot be: the exit code, one line, the name of it"""
    private, gated = {"private": True}, {"gated": "manual"}
    with StandIn(model("org/there", FOLDERS["bf16"]), model("org/secret", FOLDERS["bf16"], **private),
                 model("org/gated", FOLDERS["bf16"], **gated)) as hub:  # fmt: skip
        for words, what, texts in (
            ((), "usage", ["one repository"]),
            (("org/there", "org/there"), "usage", ["one repository"]),
            (("org/there", "--nothing"), "usage", ["--nothing"]),
            (("org/there", "--to"), "usage", ["--to"]),
            (("org/there", "--to", ""), "usage", ["--to"]),
            (("org/there", "--revision", ""), "usage", ["--revision"]),
            (("org/there", "--connections", "0"), "usage", ["--connections", "1 to 32"]),
            (("org/there", "--all", "--include", "x"), "usage", ["--all"]),
            (("org/there", "--include", "*.zz"), "usage", ["none"]),
            (("a/b/c",), "usage", ["a/b/c"]),
            (("org/../x",), "usage", ["org/../x"]),
            (("org/nothing",), "input", ["org/nothing"]),
            (("org/secret",), "input", ["org/secret"]),
            (("org/gated",), "input", ["org/gated"]),
            (("org/there@nowhere",), "input", ["nowhere"]),
            (("--dataset", "org/there"), "input", ["org/there"]),
            (("--dataset", "wikitext-2", "--all"), "usage", ["wikitext-2"]),
        ):
            done = fetch(hub, "--quiet", *words)
            failed(done, what, *texts)
            require_equal(done.stderr.count("\n"), 1, words)
        for repository in ("org/secret", "org/gated"):
            require_equal(fetch(hub, repository, token="hf_owner").returncode, 0)
    with hub_of("bf16") as hub:
        failed(fetch(hub, "org/bf16", "--quiet", HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_ETAG_TIMEOUT="1"), "io", "127.0.0.1:1")


@case
def help_text() -> None:
    """--help, and qstream help fetch; the manual, the man page and the completions have every option"""
    texts = [subprocess.run([QSTREAM, *words], capture_output=True, text=True, check=True).stdout
             for words in (("fetch", "--help"), ("help", "fetch"))]  # fmt: skip
    require_equal(texts[0], texts[1])
    require(texts[0].startswith("usage: qstream fetch MODEL") and max(map(len, texts[0].splitlines())) <= 120)
    section = (REPO / "docs/qstream.1").read_text().split(".SH OPTIONS OF FETCH")[1].split(".SH ")[0]
    for option in re.findall(r"^  (--[a-z-]+)", texts[0], re.M):
        require(option.replace("-", "\\-") in section, f"{option} is not in the man page")
        require(f"`{option}" in (REPO / "docs/fetch.md").read_text(), f"{option} is not in the manual")
        for name in ("_qstream", "qstream.bash"):
            function = (REPO / "completions" / name).read_text().split("\n_qstream_fetch() {")[1].split("\n}")[0]
            require(option in function, f"{option} is not in {name}")


@case
def summary() -> None:
    """what is told first: files, bytes, what is there, what is left out, the room; --quiet tells nothing"""
    with hub_of("mistral") as hub:
        done = fetch(hub, "org/mistral")
        lines = done.stderr.splitlines()
        commit = hub.repository("org/mistral")["main"]["commit"]
        require_equal(lines[0], f"org/mistral at main ({commit}): 16 files, 2.65 MB")
        require_equal(lines[1], "left out (weights beside the checkpoint's): 1 file, 2.59 MB: consolidated.safetensors")
        require(re.fullmatch(rf"to fetch: 2\.65 MB, into '{re.escape(str(hub.cache))}', where [0-9.]+ [TGM]B are free", lines[2]), lines)
        require_equal(len(lines), 3)
        done = fetch(hub, "org/mistral", "--all")
        require("17 files, 5.25 MB; 16 there, 2.65 MB of the bytes" in done.stderr, done.stderr)
        require_equal(fetch(hub, "org/mistral", "--quiet").stderr, "")


@case
def as_json() -> None:
    """--json is what its schema says, before and after; --dry-run writes nothing"""
    schema = json.loads((REPO / "docs" / "schemas" / "qstream.fetch-1.schema.json").read_text())
    with hub_of("mistral") as hub:
        for words, present in ((["--dry-run"], 0), ([], 0), (["--dry-run", "--all"], 1), (["--to", "folder"], 1)):
            done = fetch(hub, "org/mistral", "--json", *words)
            require_equal(done.returncode, 0, done.stderr)
            told = json.loads(done.stdout)
            jsonschema.validate(told, schema)
            require_equal(told["commit"], hub.repository("org/mistral")["main"]["commit"])
            require_equal(told["dry_run"], "--dry-run" in words)
            require_equal(told["bytes"], sum(file["size"] for file in told["files"]))
            require_equal(told["bytes_present"] > 0, bool(present) and "--to" not in words)
            if words == ["--dry-run"]:
                require(not hub.cache.exists(), "something was written")
        require_equal(told["folder"], "folder")


@case
def table() -> None:
    """--dry-run prints each file with its size and what is there of it"""
    with hub_of("mistral") as hub:
        fetched(hub, "org/mistral", "--include", "*00001*")
        lines = fetch(hub, "org/mistral", "--dry-run", "--exclude", "*.png").stdout.splitlines()
        require_equal(lines[0].split(), ["size", "state", "file"])
        rows = {re.split("  +", line)[-1]: line for line in lines[1:]}
        require_equal(set(rows), set(files_of(FOLDERS["mistral"])))
        for path, words in (("model-00001-of-00003.safetensors", "985 kB  there"), ("config.json", "kB  to fetch"),
                            ("images/more/two.png", "left out: matches an --exclude")):  # fmt: skip
            require(words in rows[path], rows[path])
        require(len({line.index(path) for path, line in rows.items()}) == 1, "columns")


def on_terminal(hub: StandIn, command: list[str | Path], rows: int = 24, columns: int = 80) -> str:
    """What a command writes to a terminal of this size."""
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen([str(word) for word in command], env=hub.environment(), cwd=hub.work, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=follower)  # fmt: skip
    os.close(follower)
    written = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(leader)
    require_equal(process.wait(60), 0)
    return written.decode()


def screens(written: str, rows: int, columns: int) -> list[list[str]]:
    """What a terminal shows after each update: a small one, that knows what progress uses and nothing else."""
    lines, row, column, wrap, shown = [""], 0, 0, True, []
    for match in re.finditer(r"\x1b\[(\??\d*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)", written):
        number, letter, back, feed, text = match.groups()
        if letter == "A":
            require(row >= int(number), "above the first line")
            row -= int(number)
        elif letter == "J":
            lines = lines[: row + 1]
            lines[row] = lines[row][:column]
        elif letter in ("l", "h"):
            require_equal(number, "?7")
            wrap = letter == "h"
            if wrap:
                shown.append(list(lines))
        elif letter:
            require(False, f"an unknown sequence: {match[0]!r}")
        elif back:
            column = 0
        elif feed:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            text = lines[row][:column] + text
            require(not wrap or len(text) <= columns or not shown, f"{text!r} wraps")
            lines[row] = text[:columns]
            column = len(lines[row])
        require(len(lines) - row <= rows, "higher than the screen")
    return [*shown, lines]


@case
def terminal_progress() -> None:
    """on a terminal: a line for each file under way and one for all, at the same place, gone at the end"""
    with hub_of("mistral") as hub:
        hub.fault(do="slow", where="cdn", rate=700_000)
        for rows, columns in ((24, 80), (24, 40), (3, 80)):
            hub.empty_home()
            written = on_terminal(hub, [QSTREAM, "fetch", "org/mistral"], rows, columns)
            shown = screens(written, rows, columns)
            told = len(written.split("\x1b", 1)[0].splitlines()) - 1  # of the summary
            require(len(shown) > 3, f"{len(shown)} updates")
            parts = max(shown, key=len)[told:]
            require(len(parts) <= rows - 1 and len(parts) >= min(3, rows - 1), parts)
            require(all(re.match(r"  +[0-9.]+ %  [0-9.]+ .?B of [0-9.]+ .?B  ", line + "  ") for line in parts[:-1]), parts)
            require(re.match(r"fetching +[0-9.]+ %  [0-9.]+ .?B of 2.65 MB, ", parts[-1]), parts)
            if columns == 80 and rows == 24:
                require(any(line.endswith("model-00001-of-00003.safetensors") for line in parts), parts)
                require(re.search(r"/s, 0:\d\d:\d\d left$", parts[-1]), parts)
            require(not any(shown[-1][told:]), shown[-1])
            shares = [float(re.search(r"([0-9.]+) %", screen[-1])[1]) for screen in shown[:-1]]
            require_equal(shares, sorted(shares))
        require("\x1b" not in on_terminal(hub, [QSTREAM, "fetch", "org/mistral", "--quiet", "--all"]))


@case
def plain_progress() -> None:
    """elsewhere plain lines, now and then"""
    with hub_of("mistral") as hub:
        hub.fault(do="stall", where="cdn", after=50_000)
        process = hub.start([QSTREAM, "fetch", "org/mistral"], HF_HUB_DOWNLOAD_TIMEOUT="60")
        lines = []
        while not lines or not lines[-1].startswith("fetching"):
            lines.append(process.stderr.readline())
            require(lines[-1], "it ended")
        hub.no_faults()
        lines += process.communicate()[1].splitlines(True)
        require_equal(process.returncode, 0, lines)
        require(re.fullmatch(r"fetching +[0-9.]+ %  [0-9.]+ kB of 2\.65 MB, [0-9.]+ k?B/s, \d+:\d\d:\d\d left\n", lines[3]), lines)
        require("\x1b" not in "".join(lines) and "\r" not in "".join(lines))


# ---- WikiText ----


def wikitext_folder(place: Path) -> Path | None:
    """The dataset's file, made from the raw text; None without that."""
    raw = SHARED / "data" / "wikitext-2-raw" / "wiki.test.raw"
    if not raw.exists():
        return None
    subprocess.run(["tests/parquet/venv.sh"], cwd=REPO, check=True, stdout=sys.stderr)
    old, new = (REPO / "build" / name / "bin" / "python" for name in ("pyarrow-2023", "pyarrow"))
    file = place / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    command = [old if old.exists() else new, REPO / "tests" / "parquet" / "wikitext_file.py", raw, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(file.exists(), done.stderr)
    write_files(place, {"wikitext-2-raw-v1/train-00000-of-00001.parquet": "not this", "README.md": "# WikiText"})
    return place


@case
def wikitext() -> str | None:
    """--dataset wikitext-2: the known bytes, from the pinned revision; to a file, into a folder, or here"""
    known = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
    with tempfile.TemporaryDirectory() as place:
        folder = wikitext_folder(Path(place))
        if not folder:
            return f"no WikiText in {SHARED}"
        with StandIn(dataset("Salesforce/wikitext", folder, branches={"main": 0, WIKITEXT: 0})) as hub:
            hub.fault(do="headers", path="/resolve/", set={"X-Repo-Commit": WIKITEXT})
            (hub.work / "folder").mkdir()
            for words, text in (((), "wiki.test.raw"), (("--to", "folder"), "folder/wiki.test.raw"), (("--to", "a/b.txt"), "a/b.txt"),
                                (("--to", "new/"), "new/wiki.test.raw")):  # fmt: skip
                require_equal(fetched(hub, "--dataset", "wikitext-2", *words), (hub.work / text).resolve())
                require_equal(hashlib.sha256((hub.work / text).read_bytes()).hexdigest(), known)
            require(not hub.requests("train"), "more was fetched than is needed")
            require_equal(len(hub.requests("/resolve/")), 1)
            require(all(WIKITEXT in request["path"] for request in hub.requests("/api/|/resolve/")))
            (hub.work / "wiki.test.raw").write_text("old")
            fetched(hub, "--dataset", "wikitext-2", HF_HUB_OFFLINE="1")
            require_equal((hub.work / "wiki.test.raw").stat().st_size, 1290590)
            told = json.loads(fetch(hub, "--dataset", "wikitext-2", "--json").stdout)
            require_equal((told["repository"], told["text"]), ("Salesforce/wikitext", "wiki.test.raw"))
    return None


@case
def wikitext_otherwise() -> None:
    """a dataset whose text is another: exit code 3, nothing written"""
    with tempfile.TemporaryDirectory() as place:
        folder = write_files(Path(place), {"wikitext-2-raw-v1/test-00000-of-00001.parquet": b"PAR1" + bytes(100) + b"PAR1"})
        with StandIn(dataset("Salesforce/wikitext", folder, branches={"main": 0, WIKITEXT: 0})) as hub:
            hub.fault(do="headers", path="/resolve/", set={"X-Repo-Commit": WIKITEXT})
            failed(fetch(hub, "--dataset", "wikitext-2", "--quiet"), "input", "parquet")
            require(not (hub.work / "wiki.test.raw").exists())


def main() -> int:
    with folders():
        return run_cases(threads=4)


if __name__ == "__main__":
    sys.exit(main() > 0)
