#!/usr/bin/env python3
"""qstream on hf://org/name: what every command tells of a model on the Hub is what it tells of a copy on the disk, little is
read for it, and errors say what is wrong. Prints TAP.

    check_remote.py [--tls] [WORD ...]      only cases with one of the words in their names
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import QSTREAM, REPO, StandIn, model
from samples import llama_bf16, mistral_fp8, write_files
from tap import Failure, case, require, require_equal, run_cases

from make_checkpoint import Spec  # noqa: E402 (samples.py finds it)
from sparse_checkpoint import sparse_checkpoint  # noqa: E402

TLS = "--tls" in sys.argv
RECIPE = REPO / "configs" / "mistral-medium-3.5-mxfp4.json"
SAMPLE = REPO / "build" / "models" / "smollm2-fp8"
LARGE_FILE = 33 << 20  # too large to be read whole
LARGE_SPEC = Spec(layout="fp8-tensor", hidden=5120, mlp=16384, layers=8, heads=32, kv_heads=8, head_dim=128, vocab=65536, shards=6,
                  split_scales=True)  # fmt: skip
TRAFFIC_MOST = 4_000_000


# ---- checkpoints ----


def run_local(*words: str | Path, code: int = 0) -> str:
    done = subprocess.run([str(word) for word in (QSTREAM, *words)], capture_output=True, text=True, check=False)
    require_equal(done.returncode, code, f"{words}: {done.stderr}")
    return done.stdout


def damaged(folder: Path, source: Path) -> Path:
    """A quantized checkpoint with one wrong byte in a weight, and a sidecar that is another."""
    shutil.copytree(source, folder)
    shard = sorted(folder.glob("model*.safetensors"))[-1]
    with shard.open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-1000, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 0x11]))
    (folder / "SYSTEM_PROMPT.txt").write_text("You are something else.\n")
    return folder


def broken(folder: Path, source: Path) -> Path:
    """A checkpoint with findings: a shard that is missing, one cut short, a leftover, a config that says too little."""
    shutil.copytree(source, folder)
    shards = sorted(folder.glob("model*.safetensors"))
    shards[0].unlink()
    os.truncate(shards[1], shards[1].stat().st_size - 100)
    shutil.copy(shards[2], folder / "leftover.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    del settings["quantization_config"]
    return write_files(folder, {"config.json": json.dumps(settings)})


ENDING = contextlib.ExitStack()
atexit.register(ENDING.close)
WORK = Path(ENDING.enter_context(tempfile.TemporaryDirectory(prefix="qstream-remote-")))
MISTRAL = mistral_fp8(WORK / "mistral", shards=4, layers=3)
# Names whose order as entries of a folder is not that of their paths.
write_files(MISTRAL, {"a/x.txt": "1", "a/y/z.txt": "2", "a-b": "3", "a.b": "4", "a0": "5", "metal/kernel.bin": "6"})
with (MISTRAL / "large.table").open("wb") as TABLE:
    TABLE.truncate(LARGE_FILE)
QUANTIZED = WORK / "quantized"
run_local("quantize", MISTRAL, QUANTIZED, "--recipe", RECIPE, "--quiet")
OLD, NEW = llama_bf16(WORK / "old", hidden=64, mlp=64, vocab=64), llama_bf16(WORK / "new", hidden=64, mlp=128, vocab=64)
FOLDERS = {
    "mistral": MISTRAL,
    "quantized": QUANTIZED,
    "damaged": damaged(WORK / "damaged", QUANTIZED),
    "broken": broken(WORK / "broken", MISTRAL),
    # its scales are zeros, too
    "large": sparse_checkpoint(REPO / "build" / "hub" / "sparse", LARGE_SPEC, holes_from=0),
}
if SAMPLE.exists():
    FOLDERS["sample"] = SAMPLE
HISTORY = {"branches": {"main": 1, "old": 0, "with/slash": 0}, "tags": {"v1": 0}, "refs": {"refs/pr/1": 0}}
HUB = ENDING.enter_context(
    StandIn(
        *(model(f"org/{name}", folder) for name, folder in FOLDERS.items()),
        model("org/history", OLD, NEW, **HISTORY),
        model("org/gated", OLD, gated="manual"),
        model("org/secret", OLD, private=True),
        model("org/disabled", OLD, disabled=True),
        model("org/words", write_files(WORK / "words", {"README.md": "# no model\n"})),
        model("org/renamed", NEW, old_names=["org/before"]),
        model("shortname", NEW),
        tls=TLS,
        page=7,
    )
)
os.environ.clear()
os.environ.update(HUB.environment())

from huggingface_hub import snapshot_download  # noqa: E402 (reads its environment when it is imported)



def fresh() -> Path:
    return Path(tempfile.mkdtemp(dir=WORK))


def run(*words: str | Path, code: int = 0, **more: str | None) -> subprocess.CompletedProcess[str]:
    done = HUB.run([QSTREAM, *words], **more)
    require_equal(done.returncode, code, f"{' '.join(map(str, words))}: {done.stderr}")
    return done


def told(name: str, text: str) -> str:
    """What was told of the copy, of the model on the Hub."""
    return text.replace(str(FOLDERS[name]), f"hf://org/{name}")


def same_text(found: str, expected: str, what: str) -> None:
    if found != expected:
        lines = zip(found.splitlines() + [""], expected.splitlines() + [""], strict=False)
        first = next(((a, b) for a, b in lines if a != b), ("", ""))
        raise Failure(f"{what}: {first[0][:300]!r} instead of {first[1][:300]!r}")


def same_report(command: str, name: str, *options: str | Path, code: int = 0, local: tuple[str, ...] = ()) -> None:
    """The same of the model on the Hub as of the copy; `local`: options that only the copy needs."""
    expected = run_local(command, FOLDERS[name], *options, *local, code=code)
    found = run(command, f"hf://org/{name}", *options, code=code).stdout
    require(expected, f"{command} {name} {options} tells nothing")
    same_text(found, told(name, expected), f"{command} {name} {' '.join(map(str, options))}")


def refused(code: int, *parts: str, words: tuple[str | Path, ...], **more: str | None) -> None:
    done = HUB.run([QSTREAM, *words], **more)
    require_equal((done.returncode, done.stdout), (code, ""), f"{words}: {done.stderr}")
    require(done.stderr.count("\n") == 1 and done.stderr.startswith("qstream: "), done.stderr)
    for part in parts:
        require(part in done.stderr, f"{done.stderr!r} does not say {part!r}")


def cache_filled(name: str, *patterns: str) -> Path:
    """By the Hub's own client. Returns the snapshot."""
    return Path(snapshot_download(f"org/{name}", allow_patterns=list(patterns) or None))


def bytes_sent() -> int:
    return sum(request["sent"] for request in HUB.requests())


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# ---- inspect and audit ----


@case
def inspect_reports() -> None:
    """inspect: the table, --by, --json, --html, --stats and --show are those of a copy"""
    for options in ((), ("--by", "layer"), ("--json",), ("--html", "-"), ("--stats",), ("--stats", "--json"),
                    ("--show", "model.language_model.layers.1.mlp.up_proj.weight[3]"), ("--tensors", "*scale*")):  # fmt: skip
        same_report("inspect", "mistral", *options)
    same_report("inspect", "quantized", "--stats")
    shards = HUB.requests(path=r"\.safetensors$", where="hub")
    require(shards and all(request["range"] for request in shards), "shards are read by ranges, small ones too")


@case
def audit_reports() -> None:
    """audit: the table, --json, --sarif, --junit and --html are those of a copy, whose scales are not read"""
    for options in ((), ("--json", "--modules"), ("--sarif", "-", "--quiet"), ("--junit", "-", "--quiet"), ("--html", "-", "--quiet")):
        for name in ("mistral", "quantized"):
            same_report("audit", name, *options, local=("--headers-only",))
        same_report("audit", "broken", *options, local=("--headers-only",), code=1)
    same_report("audit", "quantized", "--headers-only")


@case
def audit_scales() -> None:
    """audit --scales: the values are looked at, too; without it that is told, and zeros are not seen"""
    same_report("audit", "quantized", "--scales")
    same_report("audit", "large", "--scales", code=1)
    done = run("audit", "hf://org/large")
    require("scale-zero" not in done.stdout and "--scales" in done.stderr, done.stderr)
    require_equal(run("audit", "hf://org/large", "--quiet").stderr, "")
    refused(2, "--headers-only", "--scales", words=("audit", "hf://org/large", "--headers-only", "--scales"))


@case
def audit_fix() -> None:
    """audit --fix: the files that it writes are those that it writes for a copy"""
    there, here = fresh(), fresh()
    run("audit", "hf://org/broken", "--fix", there, "--quiet", code=1)
    run_local("audit", FOLDERS["broken"], "--fix", here, "--quiet", code=1)
    require_equal(tree(there), tree(here), "what --fix wrote")
    require("config.json" in tree(there))


@case
def traffic() -> None:
    """inspect and audit of a large checkpoint: headers only, a few MB, nothing on the disk"""
    size = sum(file.stat().st_size for file in FOLDERS["large"].iterdir())
    require(size > 2_500_000_000, size)
    for command in ("inspect", "audit"):
        HUB.clear_log()
        same_report(command, "large", local=("--headers-only",) if command == "audit" else ())
        require(bytes_sent() < TRAFFIC_MOST, f"{command}: {bytes_sent()} bytes")
        shards = HUB.requests(path=r"\.safetensors$", where="hub")
        require_equal(len({request["path"] for request in shards}), LARGE_SPEC.shards)
        require(all(request["range"] for request in shards + HUB.requests(where="cdn")), "not a range")
        require_equal({request["status"] for request in HUB.requests(where="cdn")}, {206})
    require(not [path for path in HUB.home.rglob("*") if path.is_file()], "something is on the disk")


# ---- verify ----


def verify(source: str | Path, output: str | Path, *options: str, code: int = 0) -> None:
    def here(where: str | Path) -> Path:
        return FOLDERS[str(where).rpartition("/")[2]] if str(where).startswith("hf://") else Path(where)

    expected = run_local("verify", here(source), here(output), *options, code=code)
    for where in (source, output):
        expected = expected.replace(str(here(where)), str(where))
    same_text(run("verify", source, output, *options, code=code).stdout, expected, f"verify {source} {output} {options}")


@case
def verify_sides() -> None:
    """verify: SRC, DST or both on the Hub give the report of copies"""
    for source in (FOLDERS["mistral"], "hf://org/mistral"):
        for output in (FOLDERS["quantized"], "hf://org/quantized"):
            verify(source, output)
    verify("hf://org/mistral", "hf://org/quantized", "--json")
    verify("hf://org/mistral", "hf://org/quantized", "--hash")
    verify("hf://org/mistral", "hf://org/quantized", "--sample", "10%")


@case
def verify_damage() -> None:
    """verify: damage on the Hub is found, in a weight and in a file that goes along"""
    verify("hf://org/mistral", "hf://org/damaged", code=1)
    verify(FOLDERS["mistral"], "hf://org/damaged", "--hash", code=1)
    report = json.loads(run("verify", "hf://org/mistral", "hf://org/damaged", "--hash", "--json", code=1).stdout)
    require({"file-changed", "manifest-hash"} <= {finding["id"] for finding in report["findings"]}, report["findings"])


@case
def verify_itself() -> None:
    """verify: a repository against itself is wrong usage, by whatever names"""
    refused(2, "the same", words=("verify", "hf://org/quantized", "hf://org/quantized@main"))


@case
def verify_other_source() -> None:
    """verify: a shard whose hash on the Hub is another than the manifest says is told of"""
    output = fresh() / "out"
    run("quantize", "hf://org/mistral", output, "--recipe", RECIPE, "--quiet")
    run("verify", "hf://org/mistral", output)
    manifest = json.loads((output / "qstream.json").read_text())
    manifest["source"]["files"][0]["sha256"] = "0" * 64
    (output / "qstream.json").write_text(json.dumps(manifest))
    done = run("verify", "hf://org/mistral", output, "--json", code=1)
    require_equal({finding["id"] for finding in json.loads(done.stdout)["findings"]}, {"manifest-source"})
    run("verify", MISTRAL, output)  # the copy's hash is not known


# ---- inference ----


@case
def words() -> str | None:
    """tokenize: the ids and the text of a copy, from the tokenizer alone"""
    if "sample" not in FOLDERS:
        return "there is no sample model"
    text = fresh() / "text"
    text.write_text("Grüße, 12345 words.\n\tdef f(x): return x\n")
    expected = run_local("tokenize", SAMPLE, "--text", text)
    HUB.clear_log()
    require_equal(run("tokenize", "hf://org/sample", "--text", text).stdout, expected)
    require(not HUB.requests(path="safetensors"), "shards were read")
    text.write_text(expected)
    require_equal(run("tokenize", "hf://org/sample", "--decode", "--text", text).stdout, run_local("tokenize", SAMPLE, "--decode", "--text", text))
    return None


@case
def perplexity() -> str | None:
    """ppl: the figures of a copy; the revision is asked for once; the budget has what the network takes"""
    if "sample" not in FOLDERS:
        return "there is no sample model"
    text = fresh() / "text"
    text.write_text("The capital of France is Paris. It lies on the Seine. " * 20)
    options = ("--text", text, "--window", "32", "--stride", "16", "--windows", "2", "--json")
    expected = json.loads(run_local("ppl", SAMPLE, *options))
    HUB.clear_log()
    found = json.loads(run("ppl", "hf://org/sample", *options).stdout)
    require_equal(len(HUB.requests(path="/revision/")), 1)
    for key in ("nll", "ppl", "windows", "text"):
        require_equal(found[key], expected[key], key)
    require_equal(found["model"], "hf://org/sample")
    planned = json.loads(run("ppl", "hf://org/sample", *options, "--dry-run").stdout)["budget"]
    more = planned["total"] - json.loads(run_local("ppl", SAMPLE, *options, "--dry-run"))["budget"]["total"]
    require(64 << 20 <= more <= 160 << 20, more)
    return None


@case
def baseline() -> str | None:
    """ppl --baseline: a copy against the Hub is the same model"""
    if "sample" not in FOLDERS:
        return "there is no sample model"
    ids = fresh() / "ids"
    ids.write_text(json.dumps(list(range(100, 132))))
    result = json.loads(run("ppl", SAMPLE, "--baseline", "hf://org/sample", "--tokens", ids, "--window", "32", "--json").stdout)
    require_equal(result["kl"]["max"], 0)
    return None


@case
def generate() -> str | None:
    """generate: the words of a copy"""
    if "sample" not in FOLDERS:
        return "there is no sample model"
    options = ("--prompt", "The capital of France is", "--max-tokens", "4", "--quiet")
    require_equal(run("generate", "hf://org/sample", *options).stdout, run_local("generate", SAMPLE, *options))
    return None


# ---- quantize ----


@case
def quantize() -> None:
    """quantize: every file but those that name the source is that of a copy; the manifest names commit and hashes"""
    output = fresh() / "out"
    run("quantize", "hf://org/mistral", output, "--recipe", RECIPE, "--quiet")
    found, expected = tree(output), tree(QUANTIZED)
    require_equal(sorted(found), sorted(expected))
    differ = [name for name in found if found[name] != expected[name]]
    require_equal(differ, ["README.md", "qstream.json"])
    listed = HUB.repository("org/mistral")["main"]
    there, here = json.loads(found["qstream.json"]), json.loads(expected["qstream.json"])
    require_equal([file["name"] for file in there["files"]], [file["name"] for file in here["files"]], "the order of files")
    source = there["source"]
    require_equal(source["name"], f"hf://org/mistral@{listed['commit']}")
    require_equal(source["files"], [{"name": name, "size": file["size"], "sha256": file["sha256"]}
                                    for name, file in sorted(listed["files"].items()) if name.startswith("model-0")])  # fmt: skip
    require(b"org/mistral" in found["README.md"])
    require("complete already" in run("quantize", "hf://org/mistral", output, "--recipe", RECIPE).stdout)
    run("verify", source["name"], output)


@case
def quantize_wrong_bytes() -> None:
    """quantize: a file that goes along and whose bytes are wrong is never kept, and the run goes on from there"""
    digest = HUB.repository("org/mistral")["main"]["files"]["large.table"]["sha256"]
    output = fresh() / "out"
    words = ("quantize", "hf://org/mistral", output, "--recipe", RECIPE, "--quiet")
    HUB.fault(do="flip", where="cdn", path=digest, at=20_000_000)
    refused(4, "hf://org/mistral/large.table", "SHA-256", words=words)
    HUB.no_faults()
    HUB.fault(do="body", where="hub", path="resolve-cache.*SYSTEM_PROMPT.txt", body="You are a pest.\n")
    refused(4, "SYSTEM_PROMPT.txt", words=words)
    HUB.no_faults()
    require(not (output / "config.json").exists())
    require("pest" not in (output / "SYSTEM_PROMPT.txt").read_text())  # it came before, with its own bytes
    run(*words)
    require_equal((output / "large.table").stat().st_size, LARGE_FILE)


@case
def memory() -> None:
    """quantize and verify: --memory has room for what the network takes, and says how much is needed"""
    small = ("--memory", "64MiB")
    output = fresh() / "out"
    run("quantize", MISTRAL, output, "--recipe", RECIPE, *small, "--quiet")
    refused(2, "--memory is too small", words=("quantize", "hf://org/mistral", fresh() / "out", "--recipe", RECIPE, *small))
    run("verify", MISTRAL, output, *small)
    refused(2, "--memory is too small", words=("verify", "hf://org/mistral", output, *small))


# ---- revisions, and one state for a run ----


@case
def revisions() -> None:
    """a branch, a tag, refs/pr/1, a commit: each is what it was; a renamed repository and one without a namespace, too"""
    commit = HUB.repository("org/history")["old"]["commit"]
    old, new = run_local("inspect", OLD, "--json"), run_local("inspect", NEW, "--json")
    for revision in ("old", "with/slash", "v1", "refs/pr/1", commit):
        where = f"hf://org/history@{revision}"
        same_text(run("inspect", where, "--json").stdout, old.replace(str(OLD), where), where)
    for where in ("hf://org/history", "hf://org/history@main", "hf://org/renamed", "hf://org/before", "hf://shortname"):
        same_text(run("inspect", where, "--json").stdout, new.replace(str(NEW), where), where)


@case
def one_state() -> None:
    """main moves while a run reads: the run sees the commit that it began with"""
    HUB.add(model("org/moving", OLD))
    before = HUB.repository("org/moving")["main"]["commit"]
    HUB.clear_log()
    HUB.fault(do="stall", where="hub", path="resolve-cache.*config.json", after=0)
    process = HUB.start([QSTREAM, "inspect", "hf://org/moving", "--json"])
    HUB.wait_hits(1)
    HUB.add(model("org/moving", OLD, NEW))
    HUB.no_faults()
    output, problems = process.communicate()
    require_equal(process.returncode, 0, problems)
    same_text(output, run_local("inspect", OLD, "--json").replace(str(OLD), "hf://org/moving"), "the report")
    require(all(before in request["path"] for request in HUB.requests(path="/resolve/")))


# ---- the cache ----


@case
def offline() -> None:
    """HF_HUB_OFFLINE: what the cache holds is read, nothing is asked; a run that was begun online goes on"""
    online = run("inspect", "hf://org/mistral").stdout
    output = fresh() / "out"
    run("quantize", "hf://org/mistral", output, "--recipe", RECIPE, "--quiet")
    cache_filled("mistral")
    HUB.clear_log()
    same_text(run("inspect", "hf://org/mistral", HF_HUB_OFFLINE="1").stdout, online, "offline")
    done = run("quantize", "hf://org/mistral", output, "--recipe", RECIPE, HF_HUB_OFFLINE="1")
    require("complete already" in done.stdout, done.stdout)
    again = fresh() / "out"
    run("quantize", "hf://org/mistral", again, "--recipe", RECIPE, "--quiet", HF_HUB_OFFLINE="1")
    require_equal(tree(again), tree(output), "the folder made offline")
    require_equal(HUB.requests(), [])
    commit = HUB.repository("org/mistral")["main"]["commit"]
    run("inspect", f"hf://org/mistral@{commit}", HF_HUB_OFFLINE="1")


@case
def offline_missing() -> None:
    """HF_HUB_OFFLINE: what the cache does not hold is told of, a model, a revision or a shard"""
    HUB.empty_home()
    refused(4, "HF_HUB_OFFLINE", "hf://org/history", words=("inspect", "hf://org/history"), HF_HUB_OFFLINE="1")
    cache_filled("mistral", "*.json")
    refused(4, "HF_HUB_OFFLINE", "@v1", words=("inspect", "hf://org/mistral@v1"), HF_HUB_OFFLINE="1")
    refused(3, "model-00001-of-00004.safetensors' is missing", words=("quantize", "hf://org/mistral", fresh(), "--recipe", RECIPE),
            HF_HUB_OFFLINE="1")  # fmt: skip


@case
def cached() -> None:
    """files of the cache are not fetched again, the others are"""
    HUB.empty_home()
    cache_filled("mistral", "*.json", "model-00002*")
    HUB.clear_log()
    same_report("inspect", "mistral", "--stats")
    asked = {request["path"].rpartition("/")[2] for request in HUB.requests(path="/resolve/", where="hub")}
    require_equal(asked, {f"model-0000{number}-of-00004.safetensors" for number in (1, 3, 4)})
    cache_filled("mistral")
    HUB.clear_log()
    same_report("inspect", "mistral", "--stats")
    require_equal([request for request in HUB.requests() if "/api/models/" not in request["path"]], [])


@case
def cache_without_links() -> None:
    """a cache whose snapshots are copies, as where there are no links, is read, and a file of another size is not"""
    HUB.empty_home()
    snapshot = cache_filled("mistral")
    for file in [path for path in snapshot.rglob("*") if path.is_symlink()]:
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    shutil.rmtree(snapshot.parent.parent / "blobs")
    os.truncate(snapshot / "model-00001-of-00004.safetensors", 1000)
    HUB.clear_log()
    same_report("inspect", "mistral", "--stats")
    require_equal({request["path"].rpartition("/")[2] for request in HUB.requests(path="/resolve/")}, {"model-00001-of-00004.safetensors"})


@case
def cache_damage() -> None:
    """a file of the cache that is damaged is named with its path"""
    HUB.empty_home()
    shard = cache_filled("quantized") / "model-00001-of-00004.safetensors"
    with shard.open("r+b") as stream:
        stream.write(b"\0" * 8)
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run("audit", "hf://org/quantized", code=1, **more)
        require("shard-unreadable" in done.stdout and str(HUB.cache) in done.stdout, done.stdout)


# ---- errors ----


@case
def wrong_names() -> None:
    """a name that cannot be one is wrong usage, wherever a MODEL is read"""
    HUB.clear_log()
    for name in ("hf://", "hf://org/", "hf://a/b/c", "hf://org/name@", "hf://org/na--me", "hf://../x"):
        for words in (("inspect", name), ("audit", name), ("verify", name, WORK), ("verify", MISTRAL, name), ("tokenize", name),
                      ("ppl", name, "--text", "/dev/null"), ("generate", name, "--prompt", "x"),
                      ("quantize", name, fresh() / "out", "--recipe", RECIPE)):  # fmt: skip
            refused(2, name, words=words)
    require_equal(HUB.requests(), [])


@case
def not_there() -> None:
    """no such repository, revision or file; one that is private, gated or disabled: exit code 3, and why"""
    gated = ("inspect", "hf://org/gated")
    for parts, words, token in (
        (("hf://org/nothing",), ("inspect", "hf://org/nothing"), None),
        (("hf://org/nothing",), ("inspect", "hf://org/nothing"), "hf_reader"),
        (("hf://org/history", "'v9'"), ("inspect", "hf://org/history@v9"), None),
        (("hf://org/secret", "private"), ("inspect", "hf://org/secret"), None),
        (("hf://org/gated", "HF_TOKEN"), gated, None),
        (("hf://org/gated", "access"), gated, "hf_reader"),
        (("hf://org/disabled",), ("inspect", "hf://org/disabled"), None),
        (("hf://org/words/config.json",), ("audit", "hf://org/words"), None),
        (("hf://org/words", "tokenizer.json"), ("tokenize", "hf://org/words"), None),
    ):
        refused(3, *parts, words=words, token=token)
    run(*gated, token="hf_granted")
    run("inspect", "hf://org/secret", token="hf_owner")
    require(not HUB.requests(where="cdn", authorization=True))


@case
def network_fails() -> None:
    """a Hub that only fails is exit code 4, at the start and in the midst; one that fails a while is waited for"""
    fault = {"do": "status", "status": 503, "headers": {"Retry-After": "0"}, "where": "hub"}
    for path in ("/revision/", "config.json"):
        HUB.no_faults()
        HUB.fault(path=path, **fault)
        refused(4, "503", "hf://org/mistral", words=("inspect", "hf://org/mistral"))
    HUB.no_faults()
    for path in ("/tree/", "config.json", "safetensors"):
        HUB.fault(path=path, times=1, **fault)
    same_report("inspect", "mistral")
    require_equal(HUB.hits(), [1, 1, 1])


@case
def connections_drop() -> None:
    """connections that break at random places of the shards: the report is the same"""
    HUB.fault(do="drop", where="cdn", after=[1, 100_000], seed=3, times=12)
    same_report("inspect", "mistral", "--stats")
    require(HUB.hits()[0] > 3, HUB.hits())


@case
def interrupted() -> None:
    """SIGINT while the Hub is silent: exit code 130"""
    HUB.fault(do="stall", where="cdn", after=100)
    process = HUB.start([QSTREAM, "inspect", "hf://org/mistral"])
    HUB.wait_hits(1)
    process.send_signal(signal.SIGINT)
    require_equal((process.communicate()[1].count("interrupted"), process.returncode), (1, 130))


@case
def listing_is_hostile() -> None:
    """a listing that leads out of the repository is refused"""
    HUB.fault(do="body", path="/tree/", body=json.dumps([{"type": "file", "path": "../config.json", "size": 2, "oid": "0" * 40}]))
    refused(3, "../config.json", words=("inspect", "hf://org/mistral"))


def before() -> None:
    HUB.no_faults()


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word != "--tls"]
    sys.exit(run_cases("TLS: " if TLS else "", before) > 0)
