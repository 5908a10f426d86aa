#!/usr/bin/env python3
"""`qstream push` against the stand-in Hub: what it uploads, what it refuses, and what becomes of it when things break.
What was pushed is downloaded by the Hub's own client. Prints TAP.

    check_push.py [--tls] [WORD ...]      only cases with one of the words in their names
"""

import atexit
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import QSTREAM, REPO, StandIn, model
from samples import AWKWARD, mistral_fp8, random_bytes, write_files
from tap import case, require, require_equal, run_cases

sys.path.insert(0, str(REPO / "tests" / "cli"))
import check_inspect  # noqa: E402

TLS = "--tls" in sys.argv
MULTIPART, PART = 300_000, 70_000  # the shards go in parts, the pictures whole
RECIPE = REPO / "configs" / "mistral-medium-3.5-mxfp4.json"
OWNER = "hf_owner"
TOKENS = {OWNER: {"name": "owner", "organizations": ["org"], "write": True},
          "hf_stranger": {"name": "stranger", "write": True}, "hf_reader": {"name": "reader"}}  # fmt: skip
SCHEMA = json.loads((REPO / "docs" / "schemas" / "qstream.push-1.schema.json").read_text())
LOCK = threading.Lock()  # cases run beside each other
ENDING = contextlib.ExitStack()
atexit.register(ENDING.close)
WORK = Path(ENDING.enter_context(tempfile.TemporaryDirectory(prefix="qstream-push-")))
*_, LAST = SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]

WHOLE = ["images/chart of scores.png", "images/more/two.png"]  # the first that are sent, in this order
UNCUT = "/lfs-upload/[0-9]+$"


def qstream(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QSTREAM, *map(str, words)], capture_output=True, text=True, check=False)


def make_folder() -> tuple[Path, Path]:
    source, made = mistral_fp8(WORK / "source"), WORK / "made"
    done = qstream("quantize", source, made, "--recipe", RECIPE)
    require(done.returncode == 0, done.stderr)
    return source, made


SOURCE, MADE = make_folder()


def copy(name: str = "copy", **files: bytes | str) -> Path:
    """Of the folder, to be changed."""
    folder = Path(tempfile.mkdtemp(dir=WORK)) / name
    shutil.copytree(MADE, folder)
    return write_files(folder, files)


def hub(*repositories: dict[str, Any], **options: Any) -> StandIn:
    options = {"multipart": MULTIPART, "part": PART, "tokens": TOKENS, "tls": TLS} | options
    return StandIn(*repositories, **options)


def push_words(folder: Path, *words: str | Path, source: bool = True) -> list[str | Path]:
    return [QSTREAM, "push", folder, "org/out", *(["--source", SOURCE] if source else []), *words]


def push(stand_in: StandIn, folder: Path, *words: str | Path, source: bool = True, token: str | None = OWNER,
         **more: str | None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    return stand_in.run(push_words(folder, *words, source=source), token=token, **more)


def require_exit(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    require(done.returncode == code, f"exit code {done.returncode}, not {code}: {done.stdout}{done.stderr}")
    for word in words:
        require(word in done.stderr, f"{word!r} is not in {done.stderr!r}")
    if code not in (0, 1):
        require_equal(done.stderr.count("qstream: "), 1, "errors")


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def visible(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that is pushed."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    inside = ((path.relative_to(folder), path) for path in paths)
    return {name.as_posix(): digest(path) for name, path in inside
            if not any(part.startswith(".") for part in name.parts)}  # fmt: skip


def on_hub(stand_in: StandIn, branch: str = "main") -> dict[str, str]:
    files = stand_in.repository("org/out")[branch]["files"]
    return {path: digest(Path(about["path"])) for path, about in files.items() if not path.startswith(".")}


def require_there(stand_in: StandIn, folder: Path, branch: str = "main") -> None:
    """The branch has the files of the folder, to the byte, and no others."""
    require_same(on_hub(stand_in, branch), visible(folder))


def require_same(found: dict[str, str], wanted: dict[str, str]) -> None:
    different = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
    require(not different, f"not the same: {different}")


def writes(stand_in: StandIn) -> list[str]:
    """All requests that could change something. To ask what the model card is worth changes nothing."""
    return [entry["path"] for entry in stand_in.requests() if entry["method"] not in ("GET", "HEAD")
            and entry["path"] != "/api/validate-yaml"]  # fmt: skip


def puts(stand_in: StandIn, path: str = "", **having: Any) -> list[dict[str, Any]]:
    return stand_in.requests(path, where="cdn", method="PUT", **having)


def require_token_stays(stand_in: StandIn) -> None:
    requests = stand_in.requests()
    require(requests and not any(entry["authorization"] for entry in requests if entry["where"] != "hub"),
            "the token went to the storage")  # fmt: skip
    require(not stand_in.requests("complete_multipart", authorization=True), "the token went with a signed address")


def download(stand_in: StandIn) -> dict[str, str]:
    """By the Hub's own client."""
    code = "import huggingface_hub as hub; print(hub.snapshot_download('org/out'))"
    done = stand_in.run([sys.executable, "-c", code], token=OWNER)
    require(done.returncode == 0, done.stderr)
    return visible(Path(done.stdout.strip()))


def commit_elsewhere(stand_in: StandIn, path: str, text: str) -> None:
    code = ("import sys, huggingface_hub as hub; hub.HfApi().upload_file(path_or_fileobj=sys.argv[2].encode(), "
            "path_in_repo=sys.argv[1], repo_id='org/out')")  # fmt: skip
    done = stand_in.run([sys.executable, "-c", code, path, text], token=OWNER)
    require(done.returncode == 0, done.stderr)


# ---- what is pushed ----


@case
def pushed() -> None:
    """a folder is pushed, and the Hub's own client downloads every byte of it; the token stays with the Hub"""
    folder = copy(**{name: f"this is {name}" if name != "empty.txt" else "" for name in AWKWARD},
                  **{".hidden": "h", ".cache/x": "h", "twin.bin": random_bytes(5000), "other twin.bin": random_bytes(5000)})  # fmt: skip
    with hub() as stand_in:
        done = push(stand_in, folder, "--private", "--message", "the first ü")
        require_exit(done, 0)
        lines = done.stdout.splitlines()
        require(f"{stand_in.url}/org/out/commit/" in lines[-1], done.stdout)
        about = stand_in.repository("org/out")["main"]
        require_equal(about["commit"], lines[-1].rpartition("/")[2])
        require_equal(about["title"], "the first ü")
        require_there(stand_in, folder)
        require_equal(sorted(path for path in about["files"] if path.startswith(".")), [".gitattributes"], "hidden files")
        require_token_stays(stand_in)
        require(len(puts(stand_in)) > len(stand_in.requests("complete_multipart")) * 3 > 0, "nothing came in parts")
        require_equal(len(stand_in.requests("/commit/", method="POST")), 1, "commits")
        require_equal(len({entry["path"] for entry in puts(stand_in)}), len(puts(stand_in)), "what was sent once")
        require_equal(len(puts(stand_in, UNCUT)), len(WHOLE) + 1, "files sent whole, of twins one")
        require_same(download(stand_in), visible(folder))
        anonymous = stand_in.run(push_words(folder, "--dry-run"))
        require_exit(anonymous, 0)
        require("would be made" in anonymous.stdout, "a private repository is seen by a stranger")


@case
def again() -> None:
    """a second push sends nothing; one after a change sends the change"""
    folder = copy()
    with hub() as stand_in:
        require_exit(push(stand_in, folder), 0)
        first = stand_in.repository("org/out")["main"]["commit"]
        stand_in.clear_log()
        done = push(stand_in, folder)
        require_exit(done, 0)
        require("nothing to be pushed" in done.stdout and done.stdout.strip().endswith(first), done.stdout)
        require_equal(writes(stand_in), [])
        write_files(folder, {"README.md": "---\nlicense: mit\n---\n# By hand\n", "more.bin": random_bytes(10_000)})
        done = push(stand_in, folder, "--quiet")
        require_exit(done, 0)
        require_equal(done.stdout, f"{stand_in.url}/org/out/commit/{stand_in.repository('org/out')['main']['commit']}\n")
        require_equal(len(puts(stand_in)), 1, "uploads")
        require_there(stand_in, folder)
        require_equal(done.stderr, "")


@case
def others() -> None:
    """files that only the repository has stay, and are named"""
    old = write_files(WORK / "old", {"config.json": "{}", "old.safetensors": random_bytes(100), ".gitattributes": ""})
    with hub(model("org/out", old)) as stand_in:
        done = push(stand_in, MADE)
        require_exit(done, 0)
        require("other files, which stay: old.safetensors\n" in done.stdout, done.stdout)
        require_equal(set(on_hub(stand_in)) - set(visible(MADE)), {"old.safetensors"})
        require_same({path: sha for path, sha in on_hub(stand_in).items() if path != "old.safetensors"}, visible(MADE))


@case
def dry_run() -> None:
    """--dry-run tells what would be sent and writes nothing, without a token, too"""
    old = write_files(WORK / "older", {"config.json": "{}", "qstream.json": (MADE / "qstream.json").read_bytes()})
    with hub(model("org/out", old)) as stand_in:
        done = push(stand_in, MADE, "--dry-run", "--json", token=None)
        require_exit(done, 0)
        told = report(done)
        fates = {file["path"]: file["fate"] for file in told["files"]}
        require_equal(fates, {path: "same" if path == "qstream.json" else "new" for path in visible(MADE)})
        require_equal((told["commit"], told["dry_run"]), (None, True))
        require_exit(push(stand_in, MADE, "--dry-run"), 0)
        require_equal(writes(stand_in), [])


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object that was printed, which is as the schema wants it."""
    told = json.loads(done.stdout)
    with LOCK:
        check_inspect.failures.clear()
        check_inspect.validate(told, SCHEMA, SCHEMA, "report")
        require_equal(check_inspect.failures, [])
    return told


@case
def json_report() -> None:
    """--json prints one object, as its schema wants it"""
    with hub() as stand_in:
        told = report(push(stand_in, MADE, "--json"))
        require_equal({file["path"]: file["sha256"] for file in told["files"]}, visible(MADE))
        fates = {file["path"]: file["fate"] for file in told["files"]}
        require_equal({fates[shard] for shard in SHARDS}, {"transfer"})
        require_equal(fates["config.json"], "inline")
        require_equal(told["commit"], stand_in.repository("org/out")["main"]["commit"])
        require_equal((told["audit"]["schema"], told["verify"]["schema"]), ("qstream.audit/1", "qstream.verify/1"))
        told = report(push(stand_in, MADE, "--json"))
        require_equal({file["fate"] for file in told["files"]}, {"same"})
        done = push(stand_in, copy(**{LAST + ".partial": ""}), "--json")
        require_exit(done, 1, "not finished")
        require("not finished" in report(done)["refusal"], done.stdout)


@case
def branch() -> None:
    """--revision makes the branch where main is, and leaves main"""
    with hub() as stand_in:
        require_exit(push(stand_in, MADE), 0)
        folder = copy(**{"more.txt": "more"})
        require_exit(push(stand_in, folder, "--revision", "second/try"), 0)
        require_there(stand_in, MADE)
        require_there(stand_in, folder, "second/try")
    with hub() as stand_in:
        require_exit(push(stand_in, MADE, "--revision", "mxfp4"), 0)
        require_equal(on_hub(stand_in), {})
        require_there(stand_in, MADE, "mxfp4")


@case
def pull_request() -> None:
    """--create-pr proposes the files: main stays, the URL is the proposal's, and its files are checked"""
    with hub(model("org/out", write_files(WORK / "base", {"config.json": "{}"}))) as stand_in:
        before = stand_in.repository("org/out")["main"]
        done = push(stand_in, MADE, "--create-pr")
        require_exit(done, 0)
        require_equal(done.stdout.splitlines()[-1], f"{stand_in.url}/org/out/discussions/1")
        require_equal(stand_in.repository("org/out")["main"], before)
        require_there(stand_in, MADE, "refs/pr/1")
    with hub() as stand_in:
        require_exit(push(stand_in, MADE, "--create-pr"), 2, "there is no 'org/out@main'")
        require_equal(writes(stand_in), [])


@case
def source_named() -> None:
    """what was quantized from the Hub needs no --source: the manifest names it, with its commit"""
    folder = Path(tempfile.mkdtemp(dir=WORK)) / "made from the Hub"
    with hub(model("org/source", SOURCE)) as stand_in:
        done = stand_in.run([QSTREAM, "quantize", "hf://org/source", folder, "--recipe", RECIPE])
        require_exit(done, 0)
        done = push(stand_in, folder, source=False)
        require_exit(done, 0)
        commit = stand_in.repository("org/source")["main"]["commit"]
        require(f"; source hf://org/source@{commit}\n" in done.stdout, done.stdout)
        require_there(stand_in, folder)
        manifest = json.loads((folder / "qstream.json").read_text())
        manifest["source"]["name"] = "hf://org/source"  # which commit?
        write_files(folder, {"qstream.json": json.dumps(manifest)})
        require_exit(push(stand_in, folder, source=False), 2, "--source")


@case
def ignored() -> None:
    """what the repository's .gitignore names is left out and named; what the checkpoint needs is refused"""
    with hub() as stand_in:
        require_exit(push(stand_in, MADE), 0)
        folder = copy(**{"notes.txt": "n", "more.txt": "m"})
        answers = [{"path": path, "uploadMode": "regular", "shouldIgnore": path == "notes.txt"} for path in ("more.txt", "notes.txt")]
        stand_in.fault(do="body", path="/preupload/", body=json.dumps({"files": answers}))
        done = push(stand_in, folder, "--json")
        require_exit(done, 0, "'notes.txt' is left out")
        require_equal({file["path"]: file["fate"] for file in report(done)["files"]}["notes.txt"], "ignored")
        require_same(on_hub(stand_in), {path: sha for path, sha in visible(folder).items() if path != "notes.txt"})
    with hub() as stand_in:
        answers = [{"path": path, "uploadMode": "regular", "shouldIgnore": path == LAST} for path in visible(MADE)]
        stand_in.fault(do="body", path="/preupload/", body=json.dumps({"files": answers}))
        require_exit(push(stand_in, MADE), 3, LAST, ".gitignore")
        require_equal(puts(stand_in), [])


@case
def many_files() -> None:
    """hundreds of files are asked about in several requests, and go in one commit"""
    names = {f"texts/{number}.txt": f"text {number}" for number in range(300)}
    folder = copy(**names, **{f"{number}.bin": random_bytes(200, number) for number in range(20)})
    with hub() as stand_in:
        require_exit(push(stand_in, folder), 0)
        require_there(stand_in, folder)
        require_equal(len(stand_in.requests("/preupload/")), 2, "preuploads")
        require_equal(len(stand_in.requests("/batch")), 2, "batches")
        require_equal(len(stand_in.requests("/commit/", method="POST")), 1, "commits")


@case
def single_parts() -> None:
    """files of a single part, and parts that end with the file"""
    size = (MADE / LAST).stat().st_size
    for part in (1 << 30, size, size + 1, size - 1, -(-size // 2)):
        with hub(multipart=1, part=part) as stand_in:
            require_exit(push(stand_in, MADE), 0)
            require_there(stand_in, MADE)
            require(not puts(stand_in, UNCUT), "a file went whole")


@case
def memory() -> None:
    """memory does not grow with what is sent"""
    size, most = 160 << 20, 80 << 20
    folder = copy()
    with (folder / "blob.bin").open("wb") as stream:
        for number in range(size >> 20):
            stream.write(number.to_bytes(4, "big") * (1 << 18))
    report_of(folder, "--hash")
    with hub(part=16 << 20) as stand_in:
        stand_in.fault(do="stall", path="/commit/", method="POST", after=0)
        process = stand_in.start(push_words(folder, "--verified", folder.parent / "report.json", source=False), token=OWNER)
        stand_in.wait_hits(1)
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        used = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        stand_in.no_faults()
        require_exit(ended(process), 0)
        require(used < most, f"{used} bytes were used, for {size}")
        require_there(stand_in, folder)


# ---- what is refused ----


def require_refused(folder: Path, *words: str, out: str = "", options: tuple[str | Path, ...] = (), source: bool = True) -> None:
    with hub() as stand_in:
        done = push(stand_in, folder, *options, source=source)
        require_exit(done, 1, *words)
        require(out in done.stdout, f"{out!r} is not in {done.stdout!r}")
        require_equal(writes(stand_in), [])


@case
def audit_fails() -> None:
    """a folder whose audit has errors is refused, with its findings"""
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]["quantization_status"]
    write_files(folder, {"config.json": json.dumps(config)})
    require_refused(folder, "the audit of", "1 error", out="error: quantization-status: config.json")


def flip(path: Path, offset: int) -> None:
    bytes_ = bytearray(path.read_bytes())
    bytes_[offset] ^= 0x11
    path.write_bytes(bytes_)


@case
def manifest_differs() -> None:
    """a shard, or another file, that is not the manifest's is refused; so is one that is not there"""
    for file in (LAST, "tokenizer.json"):
        folder = copy()
        flip(folder / file, -1)
        require_refused(folder, f"/{file}' is not the file that the manifest", out="audit: 0 errors")
    folder = copy()
    (folder / "generation_config.json").unlink()
    require_refused(folder, "lists 'generation_config.json'")


@case
def verify_fails() -> None:
    """a folder that is not the image of its source is refused, with the findings"""
    folder = copy()
    (folder / "qstream.json").unlink()
    write_files(folder, {"tokenizer.json": "{}"})
    require_refused(folder, "is not the image of", out="file-changed: tokenizer.json")
    other = mistral_fp8(WORK / "other source", seed=5)
    require_refused(MADE, "is not the image of", out="FAIL: ", options=("--source", other), source=False)


@case
def unfinished() -> None:
    """an unfinished folder is refused"""
    require_refused(copy(**{"model-00004-of-00004.safetensors.partial": "x"}), ".partial'", "not finished")
    folder = copy()
    (folder / ".qstream").mkdir()
    require_refused(folder, "has '.qstream'", "not finished")


@case
def odd_entries() -> None:
    """what a repository cannot hold is refused by name: links to folders and to nowhere, pipes, names"""
    for make, word in (
        (lambda folder: (folder / "link").symlink_to("images"), "link' is a link to a folder"),
        (lambda folder: (folder / "link").symlink_to("nothing"), "link' is a link that leads nowhere"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe' is neither a file nor a folder"),
        (lambda folder: write_files(folder, {"a\nb": ""}), "takes no file of the name"),
        (lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch(), "takes no file of the name"),
    ):
        folder = copy()
        make(folder)
        with hub() as stand_in:
            require_exit(push(stand_in, folder), 3, word)
            require_equal(stand_in.requests(), [])
    folder = copy()
    shutil.move(folder / LAST, folder.parent / LAST)
    (folder / LAST).symlink_to(folder.parent / LAST)
    with hub() as stand_in:
        require_exit(push(stand_in, folder), 0)
        require_there(stand_in, MADE)


@case
def card_refused() -> None:
    """a model card that the Hub would not take is refused before anything is sent"""
    answer = json.dumps({"errors": [{"message": '"license" must be one of [...]'}], "warnings": []})
    with hub() as stand_in:
        stand_in.fault(do="status", path="/validate-yaml", status=400, body=answer)
        require_exit(push(stand_in, MADE), 3, "README.md", '"license" must be one of')
        require_equal(writes(stand_in), [])
        stand_in.no_faults()
        stand_in.fault(do="status", path="/validate-yaml", status=404, body="Not found")  # a Hub that does not tell
        require_exit(push(stand_in, MADE), 0)


# ---- a verification of before ----


def report_of(folder: Path, *words: str, source: Path = SOURCE, name: str = "report.json") -> Path:
    done = qstream("verify", source, folder, "--json", "--quiet", *words)
    require(done.returncode in (0, 1), done.stderr)
    path = folder.parent / name
    path.write_text(done.stdout)
    return path


@case
def verified() -> None:
    """a report of before counts, if it is of these very files, whole and passed"""
    folder = copy()
    good = report_of(folder, "--hash")
    with hub() as stand_in:
        done = push(stand_in, folder, "--verified", good, source=False)
        require_exit(done, 0)
        require(f"verify: passed before; source {SOURCE}" in done.stdout, done.stdout)
        require_there(stand_in, folder)
        require_exit(push(stand_in, folder, "--verified", good), 2, "--source")
        require_exit(push(stand_in, folder, "--verified", folder / "nothing", source=False), 3, "nothing")
        require_exit(push(stand_in, folder, "--verified", folder / "README.md", source=False), 3, "no report")
        told = report(push(stand_in, folder, "--verified", good, "--json", source=False))
        require_equal(told["verify"], json.loads(good.read_text()))


@case
def verified_calibrated() -> None:
    """so does one of a calibrated checkpoint"""
    folder = Path(tempfile.mkdtemp(dir=WORK)) / "calibrated"
    ids = folder.parent / "ids.json"
    ids.write_text(json.dumps([number % 200 for number in range(300)]))
    done = qstream("quantize", SOURCE, folder, "--recipe", RECIPE, "--calibrate-ids", ids, "--quiet")
    require(done.returncode == 0, done.stderr)
    good = report_of(folder, "--hash")
    with hub() as stand_in:
        require_exit(push(stand_in, folder, "--verified", good, source=False), 0)


@case
def verified_too_little() -> None:
    """a report of other files, of a part, of less, or of a failure is refused"""
    folder = copy()

    def refused(path: Path, *words: str) -> None:
        require_refused(folder, "is not enough", *words, options=("--verified", path), source=False)

    refused(report_of(folder), "make it with --hash")
    refused(report_of(folder, "--hash", "--sample", "50%"), "a part of the values")
    refused(report_of(folder, "--hash", "--part", "0/2"), "a part of the values")
    refused(report_of(folder, "--hash", "--rounding", "any"), "less than the manifest")
    refused(report_of(folder, "--hash", "--min-sqnr", "90"), "the verification failed")
    audit = folder.parent / "audit.json"
    audit.write_text(qstream("audit", folder, "--json").stdout)
    refused(audit, "no report of 'qstream verify --json'")
    good = report_of(folder, "--hash")
    manifest = (folder / "qstream.json").read_text()
    write_files(folder, {"qstream.json": manifest + "\n"})
    refused(good, "another state of it")
    write_files(folder, {"qstream.json": manifest})
    flip(folder / LAST, -1)
    require_refused(folder, LAST, "manifest", options=("--verified", good), source=False)
    folder = copy()
    (folder / "qstream.json").unlink()
    with hub() as stand_in:
        require_exit(push(stand_in, folder, "--verified", good, source=False), 2, "without qstream.json")


# ---- who may ----


@case
def options_written_down() -> None:
    """every option of --help is in the documentation, the manual and the completions"""
    done = qstream("push", "--help")
    require_exit(done, 0)
    options = sorted(set(re.findall(r"--[a-z-]+", done.stdout)) - {"--hash"})  # verify's
    require(len(options) == 11, options)
    manual = (REPO / "docs" / "qstream.1").read_text().replace("\\-", "-").partition(".SH OPTIONS OF PUSH")[2]
    places = {"docs/push.md": (REPO / "docs" / "push.md").read_text(), "docs/qstream.1": manual.partition(".SH")[0]}
    for name in ("completions/qstream.bash", "completions/_qstream"):
        places[name] = (REPO / name).read_text().partition("_qstream_push() {")[2].partition("\n}\n")[0]
    for place, text in places.items():
        missing = [option for option in options if option not in text and (option, place) != ("--help", "docs/push.md")]
        require(not missing, f"{place} lacks {missing}")


@case
def usage() -> None:
    """a command line that cannot be carried out is told before anything else"""
    with hub(model("org/out", MADE)) as stand_in:
        require_exit(push(stand_in, MADE, source=False), 2, "--source SRC")
        require_exit(push(stand_in, MADE, token=None), 2, "HF_TOKEN", "/settings/tokens")
        require_exit(push(stand_in, MADE, "--private"), 2, "everybody sees it")
        require_exit(push(stand_in, MADE, HF_HUB_OFFLINE="1"), 4, "HF_HUB_OFFLINE")
        require_exit(push(stand_in, MADE, "--revision", "0" * 40), 2, "a branch")
        for words, said in (([MADE], "DST"), ([MADE, "out"], "org/name"), ([MADE, "org/a--b"], "a--b"),
                            ([MADE, "datasets/org/out"], "org/name"), (["hf://org/out", "org/out"], "local"),
                            ([MADE, "org/out", "--connections", "33"], "1 to 32"), ([MADE, "org/out", "--message", ""], "--message"),
                            ([MADE, "org/out", "--nothing"], "--nothing")):  # fmt: skip
            require_exit(stand_in.run([QSTREAM, "push", *words], token=OWNER), 2, said)
        require_exit(push(stand_in, WORK / "nowhere"), 3, "nowhere")
        require_equal(writes(stand_in), [])


@case
def rights() -> None:
    """a token that is wrong, only reads, or has no rights to the repository is told before the hours of checking"""
    with hub(model("org/out", MADE)) as stand_in:
        for token, said in (("hf_wrong", "does not take your token"), ("hf_reader", "may only read"),
                            ("hf_stranger", "may not write to 'org/out'")):  # fmt: skip
            done = push(stand_in, MADE, token=token)
            require_exit(done, 3, said)
            require_equal(done.stdout, "")
            require_equal(writes(stand_in), [])
    with hub() as stand_in:
        done = push(stand_in, MADE, token="hf_stranger")
        require_exit(done, 3, "don't have the rights to create")
        require_equal(puts(stand_in), [])


@case
def moved_name() -> None:
    """a repository that goes by another name is not written to by its old one"""
    with hub(model("org/new", MADE, old_names=["org/out"])) as stand_in:
        require_exit(push(stand_in, MADE), 3, "called 'org/new' now")


# ---- what breaks ----


def require_survives(*faults: dict[str, Any], hits: int = 1) -> StandIn | None:
    with hub() as stand_in:
        for fault in faults:
            stand_in.fault(**fault)
        require_exit(push(stand_in, MADE), 0)
        require(all(count >= hits for count in stand_in.hits()), f"faults struck {stand_in.hits()} times")
        require_there(stand_in, MADE)
        require_token_stays(stand_in)


@case
def storage_breaks() -> None:
    """dropped connections, 5xx and rate limits of the storage are tried again"""
    require_survives({"do": "drop_upload", "where": "cdn", "path": "/3$", "after": 30_000, "times": 1},
                     {"do": "hang_up", "where": "cdn", "path": "/4$", "times": 1},
                     {"do": "status", "where": "cdn", "path": "/5$", "status": 503, "times": 2, "headers": {"Retry-After": "0"}},
                     {"do": "status", "where": "cdn", "path": "/6$", "status": 429, "times": 1, "headers": {"Retry-After": "1"}})  # fmt: skip


@case
def hub_breaks() -> None:
    """so are those of the Hub, with its preupload, its batch, its completion and its verification"""
    require_survives({"do": "hang_up", "path": "/preupload/", "times": 1},
                     {"do": "status", "path": "/batch", "status": 502, "times": 1},
                     {"do": "drop", "path": "/complete_multipart", "after": 0, "times": 1},
                     {"do": "status", "path": "/verify$", "status": 500, "times": 1})  # fmt: skip


@case
def addresses_expire() -> None:
    """parts whose addresses have expired are ordered anew, and the file is sent again"""
    with hub() as stand_in:
        stand_in.fault(do="expire", where="cdn", path="/3$", times=1)
        stand_in.fault(do="expire", path="/complete_multipart", times=1, skip=1)
        require_exit(push(stand_in, MADE), 0)
        require(min(stand_in.hits()) >= 1, stand_in.hits())
        require_there(stand_in, MADE)
        require_token_stays(stand_in)
        asked = stand_in.requests("/batch")
        require(2 <= len(asked) <= 4, f"{len(asked)} batches")


@case
def expired_for_good() -> None:
    """a storage that refuses every order ends it: the file is named, and nothing was committed"""
    with hub() as stand_in:
        stand_in.fault(do="status", where="cdn", method="PUT", path="/lfs-upload/", status=403, body="<Error><Code>AccessDenied</Code></Error>")
        require_exit(push(stand_in, MADE), 4, "403")
        require(len(stand_in.requests("/batch")) <= 1 + 3 * (len(WHOLE) + len(SHARDS)), "it asks and asks")
        require_equal(on_hub(stand_in), {})


@case
def wrong_etag() -> None:
    """an ETag that is not the part's, or none, is found out: the file is sent again, and at last given up"""
    wrong = {"do": "headers", "where": "cdn", "method": "PUT", "path": "/2$"}
    require_survives(wrong | {"set": {"ETag": '"00000000000000000000000000000000"'}, "times": 1})
    require_survives(wrong | {"remove": ["ETag"], "times": 1})
    with hub() as stand_in:
        stand_in.fault(**wrong, set={"ETag": '"00000000000000000000000000000000"'})
        require_exit(push(stand_in, MADE), 4, "model-0000")
        require_equal(on_hub(stand_in), {})


@case
def verify_refuses() -> None:
    """an object that the Hub does not find after the upload is sent again"""
    require_survives({"do": "status", "path": "/objects/verify", "status": 404, "times": 1, "body": '{"error": "not there"}'})


@case
def batch_errors() -> None:
    """an object that the Hub refuses, and orders that cannot be carried out, are told by the file's name"""
    sha = visible(MADE)
    sizes = {path: (MADE / path).stat().st_size for path in sha}
    large = [path for path in sha if path in SHARDS or path in WHOLE]

    def answer(change: Callable[[dict[str, Any]], Any]) -> str:
        objects = [{"oid": sha[path], "size": sizes[path]} for path in large]
        last = next(entry for entry in objects if entry["oid"] == sha[LAST])
        replaced = change(last)
        return json.dumps({"transfer": "multipart", "objects": objects}) if replaced is None else replaced

    def order(**header: Any) -> Callable[[dict[str, Any]], None]:
        return lambda entry: entry.update(actions={"upload": {"href": "http://127.0.0.1:9/x", "header": header}})

    parts = -(-sizes[LAST] // PART)
    numbered = {f"{number:05}": "http://127.0.0.1:9/x" for number in range(1, parts + 1)}
    changes: list[tuple[Callable[[dict[str, Any]], Any], int, str]] = [
        (lambda entry: entry.update(error={"code": 422, "message": "too\x1b large"}), 3, r"too\x1b large (422)"),
        (lambda entry: entry.update(error={"code": 500, "message": "try later"}), 4, "try later"),
        (lambda entry: entry.update(oid="0" * 64), 4, "there is none"),
        (lambda entry: entry.update(actions={"upload": {"href": 3}}), 4, "no address"),
        (lambda entry: entry.update(actions={"upload": {"href": "ftp://x/y"}}), 4, "ftp://x/y"),
        (order(chunk_size="0"), 4, "chunk_size"),
        (order(chunk_size="-5"), 4, "chunk_size"),
        (order(chunk_size="1"), 4, "10,000"),
        (order(chunk_size=str(PART), **numbered | {"99999": "http://127.0.0.1:9/x"}), 4, "not those of its size"),
        (order(chunk_size=str(PART), **dict(list(numbered.items())[1:])), 4, "an address for each part"),
        (order(chunk_size=str(PART), **numbered | {"00001": 7}), 4, "no string"),
        (lambda entry: "[]", 4, "no JSON object"),
        (lambda entry: '{"objects": 3}', 4, "there is none"),
        (lambda entry: '{"objects": [3, null, {"oid": null}]}', 4, "there is none"),
    ]  # fmt: skip
    with hub() as stand_in:
        for change, code, said in changes:
            stand_in.no_faults()
            stand_in.fault(do="body", path="/batch", body=answer(change))
            require_exit(push(stand_in, MADE), code, said)
        require_equal(on_hub(stand_in), {})


@case
def preupload_errors() -> None:
    """answers about the files that make no sense are told"""
    whole = [{"path": path, "uploadMode": "lfs", "shouldIgnore": False} for path in visible(MADE)]
    with hub() as stand_in:
        for answer, said in ((json.dumps({"files": whole[1:]}), "does not tell how"), ("{}", "does not tell how"), ("", "no JSON object"),
                             (json.dumps({"files": [*whole[1:], whole[0] | {"uploadMode": "xet"}]}), "does not tell how")):  # fmt: skip
            stand_in.no_faults()
            stand_in.fault(do="body", path="/preupload/", body=answer)
            require_exit(push(stand_in, MADE), 4, said)
        folder = copy(**{"huge.txt": ""})
        os.truncate(folder / "huge.txt", (32 << 20) + 1)
        huge = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in visible(folder)]
        stand_in.no_faults()
        stand_in.fault(do="body", path="/preupload/", body=json.dumps({"files": huge}))
        require_exit(push(stand_in, folder), 4, "'huge.txt' inside of the commit")
        require_equal(puts(stand_in), [])


@case
def token_never_away() -> None:
    """the token goes neither to a verify action elsewhere nor along a redirect, nor with an address that is signed"""
    size = (MADE / LAST).stat().st_size
    files = [{"path": path, "uploadMode": "lfs" if path == LAST else "regular", "shouldIgnore": False} for path in visible(MADE)]
    with hub() as stand_in:
        for storage in (stand_in.cdn, stand_in.url):
            entry = {"oid": visible(MADE)[LAST], "size": size,
                     "actions": {"upload": {"href": f"{storage}/elsewhere/put"}, "verify": {"href": f"{stand_in.cdn}/elsewhere/verify"}}}
            stand_in.no_faults()
            stand_in.clear_log()
            stand_in.fault(do="body", path="/preupload/", body=json.dumps({"files": files}))
            stand_in.fault(do="body", path="/batch", body=json.dumps({"objects": [entry]}))
            stand_in.fault(do="status", path="/elsewhere/", status=200, body="{}")
            require_exit(push(stand_in, MADE), 3, "was not uploaded")
            asked = [(entry["path"], entry["authorization"]) for entry in stand_in.requests("/elsewhere/")]
            require_equal(asked, [("/elsewhere/put", False), ("/elsewhere/verify", False)])
            require_token_stays(stand_in)
    with hub() as stand_in:
        stand_in.fault(do="redirect", path="/batch", where="hub", to="{cdn}{target}", status=307)
        require(push(stand_in, MADE).returncode in (3, 4), "it goes where it should not")
        require(stand_in.requests("/batch", where="cdn"), "the redirect was not followed")
        require_token_stays(stand_in)


# ---- the commit ----


@case
def commit_lost() -> None:
    """a commit whose reply got lost is found, and not made twice"""
    for fault in ({"do": "drop", "after": 0}, {"do": "truncate", "keep": 10}, {"do": "drop", "after": 20, "reset": True}):
        with hub() as stand_in:
            stand_in.fault(path="/commit/", method="POST", times=1, **fault)
            done = push(stand_in, MADE)
            require_exit(done, 0)
            require_equal(stand_in.hits(), [1])
            require_equal(len(stand_in.requests("/commit/", method="POST")), 1, "commits")
            require_there(stand_in, MADE)
            require_equal(done.stdout.splitlines()[-1].rpartition("/")[2], stand_in.repository("org/out")["main"]["commit"])


@case
def commit_again() -> None:
    """a commit that was not made is asked for again"""
    for fault in ({"do": "hang_up"}, {"do": "status", "status": 503}, {"do": "status", "status": 429, "headers": {"Retry-After": "0"}}):
        with hub() as stand_in:
            stand_in.fault(path="/commit/", method="POST", times=1, **fault)
            require_exit(push(stand_in, MADE), 0)
            require_equal(stand_in.hits(), [1])
            require_there(stand_in, MADE)
            require_equal(len(stand_in.requests("/commit/", method="POST", user="owner")), 2, "attempts")
            require(len(stand_in.requests("/commit/", method="POST", status=200)) == 1, "commits")


@case
def proposal_lost() -> None:
    """a pull request whose reply got lost is not made twice: where to look for it is told"""
    with hub(model("org/out", write_files(WORK / "another base", {"config.json": "{}"}))) as stand_in:
        stand_in.fault(path="/commit/", method="POST", do="drop", after=0, times=1)
        require_exit(push(stand_in, MADE, "--create-pr"), 4, "got lost", "/org/out/discussions")
        require_equal(len(stand_in.requests("/commit/", method="POST")), 1, "commits")


@case
def commit_refused() -> None:
    """a commit that the Hub refuses is told in its words"""
    for status, code in ((400, 3), (403, 3), (413, 3)):
        with hub() as stand_in:
            stand_in.fault(path="/commit/", method="POST", do="status", status=status, body='{"error": "that is not for you"}',
                           headers={"Content-Type": "application/json"})  # fmt: skip
            require_exit(push(stand_in, MADE), code, "that is not for you")
            require_equal(on_hub(stand_in), {})


def started(stand_in: StandIn, folder: Path, *words: str) -> subprocess.Popen[str]:
    """A push that waits: the first file is on the Hub, the others are not."""
    stand_in.fault(do="stall", path="/objects/verify", after=0, times=1)
    process = stand_in.start(push_words(folder, "--connections", "1", *words), token=OWNER)
    stand_in.wait_hits(1)
    return process


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@case
def branch_moves() -> None:
    """a branch that moved meanwhile is told, and the next push sends nothing twice"""
    folder = copy()
    with hub() as stand_in:
        process = started(stand_in, folder)
        commit_elsewhere(stand_in, "other.txt", "someone else")
        stand_in.no_faults()
        require_exit(ended(process), 4, "has moved", "push again")
        require_equal(set(on_hub(stand_in)), {"other.txt"})
        stand_in.clear_log()
        require_exit(push(stand_in, folder), 0)
        require_equal(puts(stand_in), [])
        require_equal(set(on_hub(stand_in)), {"other.txt", *visible(folder)})


@case
def not_there_after() -> None:
    """a commit that does not hold the files as they are here fails, by the file's name"""
    with hub() as stand_in:
        require_exit(push(stand_in, MADE), 0)
        wrong = [{"type": "file", "path": path, "size": 5, "oid": "0" * 40} for path in visible(MADE)]
        write_files(folder := copy(), {"more.txt": "more"})
        stand_in.fault(do="body", path="/tree/", body=json.dumps(wrong), skip=1)
        require_exit(push(stand_in, folder), 4, "was made, but on the Hub 'README.md' has other bytes")


# ---- files that change, and interruptions ----


def change_last_byte(path: Path) -> None:
    """And nothing that a look at the file would show."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@case
def changed_meanwhile() -> None:
    """a file that changes after it was hashed is found out by its bytes, and the storage gets no such object"""
    for file, kind in ((LAST, "in parts"), (WHOLE[1], "whole"), ("chat_template.jinja", "in the commit")):
        folder = copy()
        with hub() as stand_in:
            process = started(stand_in, folder)
            change_last_byte(folder / file)
            stand_in.no_faults()
            require_exit(ended(process), 3, file, "was changed")
            require_equal(on_hub(stand_in), {}, kind)
            require_equal(len(puts(stand_in, "/[0-9]+/1$")) - len(stand_in.requests("complete_multipart")), int(kind == "in parts"))
            require_equal(len(puts(stand_in, UNCUT, status=200)), 1 if kind == "whole" else 2)
            shutil.copy2(MADE / file, folder / file)
            require_exit(push(stand_in, folder), 0)
            require_there(stand_in, MADE)


@case
def changed_early() -> None:
    """a file that changes while the folder is checked is found out by its time"""
    folder = copy()
    with hub() as stand_in:
        stand_in.fault(do="stall", path="/validate-yaml", after=0, times=1)
        process = stand_in.start(push_words(folder), token=OWNER)
        stand_in.wait_hits(1)
        os.utime(folder / LAST)
        stand_in.no_faults()
        require_exit(ended(process), 3, LAST, "changed while it was being read")
        require_equal(writes(stand_in), [])


@case
def interrupted() -> None:
    """SIGINT ends it with 130, SIGKILL at once; the next push goes on with what is missing"""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        with hub() as stand_in:
            process = started(stand_in, MADE)
            process.send_signal(number)
            done = ended(process)
            require_equal(done.returncode, code, done.stderr)
            require_equal(on_hub(stand_in), {})
            stand_in.no_faults()
            stand_in.clear_log()
            require_exit(push(stand_in, MADE), 0)
            require_there(stand_in, MADE)
            require_equal(len(puts(stand_in, UNCUT)), len(WHOLE) - 1, "files sent whole")


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.argv = [word for word in sys.argv if word != "--tls"]
    sys.exit(run_cases("push over TLS: " if TLS else "push: ", threads=4) > 0)
