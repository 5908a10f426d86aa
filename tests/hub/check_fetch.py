#!/usr/bin/env python3
"""Proves what `qstream fetch` chooses and where it puts it, against huggingface_hub itself: what one of the two fetched, the
other has. Prints TAP.

    check_fetch.py [WORD ...]      only cases with one of the words in their names
"""

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fetching import FOLDERS, failed, fetch, fetched, file_requests, files_of, folders, hf, hub_of, shape_of
from harness import QSTREAM, StandIn, dataset, model
from samples import random_bytes, write_files
from tap import case, require, require_equal, run_cases


def chosen(hub: StandIn, *words: str) -> set[str]:
    """The files that it would fetch."""
    done = fetch(hub, *words, "--dry-run", "--json", "--quiet")
    require_equal((done.returncode, done.stderr), (0, ""))
    return {file["path"] for file in json.loads(done.stdout)["files"]}


# ---- which files ----


@case
def default_selection() -> None:
    """the shards that the index names and what is no weights; with --all everything"""
    with hub_of("mistral", "bf16") as hub:
        everything = set(files_of(FOLDERS["mistral"]))
        require_equal(chosen(hub, "org/mistral"), everything - {"consolidated.safetensors"})
        require_equal(chosen(hub, "org/mistral", "--all"), everything)
        require_equal(set(files_of(fetched(hub, "org/mistral"))), everything - {"consolidated.safetensors"})
        require_equal(files_of(fetched(hub, "org/mistral", "--all")), files_of(FOLDERS["mistral"]))


@case
def other_forms() -> None:
    """other forms of the weights, folders of other programs and large strangers are left out, and told"""
    names = ["config.json", "params.json", "tokenizer.model", "a/b/notes.md", "original.md", "my.bin.txt"]
    weights = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "tf_model.h5", "flax_model.msgpack", "x.pt",
               "consolidated.00.pth", "consolidated.safetensors.index.json", "other.safetensors", "a/b/model.safetensors",
               "original/params.json", "onnx/readme.txt", "metal/model.x", "openvino/a/b.xml"]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        folder = write_files(Path(place), dict.fromkeys(names + weights, "x") | {"model.safetensors": "y"})
        with StandIn(model("org/forms", folder)) as hub:
            require_equal(chosen(hub, "org/forms"), {*names, "model.safetensors"})
            done = fetch(hub, "org/forms", "--dry-run")
            require(re.search(r"^left out \(weights beside the checkpoint's\): 14 files, 14 B: .*, \.\.\.$", done.stderr, re.M), done)
            require_equal(len(done.stdout.splitlines()), 1 + len(names) + len(weights) + 1)
            entry = {"type": "file", "oid": "1" * 40}
            tree = [entry | {"path": path, "size": size} for path, size in (("model.safetensors", 10), ("big.tar", (512 << 20) + 1),
                                                                           ("small.tar", 512 << 20))]  # fmt: skip
            hub.fault(do="body", body=json.dumps(tree), path="/tree/")
            require_equal(chosen(hub, "org/forms"), {"model.safetensors", "small.tar"})
            require_equal(len(chosen(hub, "org/forms", "--all")), 3)


@case
def without_index() -> None:
    """without an index: all *.safetensors of the root but consolidated*; without any of these, everything"""
    with tempfile.TemporaryDirectory() as place:
        folders = {
            "loose": {"a.safetensors": "a", "b.safetensors": "b", "consolidated.safetensors": "c", "sub/c.safetensors": "d", "x.bin": "e"},
            "old": {"pytorch_model.bin": "a", "sub/x.safetensors": "b", "consolidated.safetensors": "c", "config.json": "{}"},
        }
        for name, files in folders.items():
            write_files(Path(place, name), files)
        with StandIn(*(model(f"org/{name}", Path(place, name)) for name in folders)) as hub:
            require_equal(chosen(hub, "org/loose"), {"a.safetensors", "b.safetensors"})
            require_equal(chosen(hub, "org/old"), set(folders["old"]))


@case
def bad_index() -> None:
    """an index that is none, or names what is not there: exit code 3, what is wrong, and what to do"""
    indexes = {
        "not valid JSON": "{", "no weight_map": "{}", "no index": '{"weight_map": ["a"]}', "absent.safetensors":
        '{"weight_map": {"a": "absent.safetensors"}}', "string": '{"weight_map": {"a": 7}}', "../x": '{"weight_map": {"a": "../x"}}',
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        write_files(Path(place), {"model.safetensors": "x"})
        for word, index in indexes.items():
            write_files(Path(place), {"model.safetensors.index.json": index})
            with StandIn(model("org/index", place)) as hub:
                failed(fetch(hub, "org/index", "--quiet"), "input", "model.safetensors.index.json", word)
                require_equal(fetch(hub, "org/index", "--all").returncode, 0)


@case
def patterns() -> None:
    """--include and --exclude choose what huggingface_hub's patterns choose"""
    cases: list[tuple[list[str], list[str]]] = [
        (["*.json"], []), (["*.json", "*.md"], ["tokenizer*"]), ([], ["*.safetensors"]), (["images/"], []), (["images"], []),
        (["*"], ["images/*"]), (["IMAGES/*"], []), (["model-0000[12]-*"], []), (["model-0000[!1]-*"], []), (["[m-p]*"], ["*.json"]),
        (["images\\more\\"], []), (["*/*.png"], []), (["?*.jinja"], []), ([".*"], []), (["[]-]*", "*chart of*"], []), (["[^R]*"], []),
        (["[[:alpha:]]*"], []), (["[R"], []),
    ]  # fmt: skip
    with hub_of("mistral") as hub:
        for include, exclude in cases:
            words = [word for pattern in include for word in ("--include", pattern)]
            words += [word for pattern in exclude for word in ("--exclude", pattern)]
            paths = sorted(files_of(FOLDERS["mistral"]))
            expected = json.loads(hf(hub, f"json.dumps(list(huggingface_hub.utils.filter_repo_objects({paths!r}, "
                                          f"allow_patterns={include or None!r}, ignore_patterns={exclude or None!r})))"))  # fmt: skip
            if not include:
                expected = [path for path in expected if path != "consolidated.safetensors"]
            done = fetch(hub, "org/mistral", *words, "--dry-run", "--json", "--quiet")
            if expected:
                found = {file["path"] for file in json.loads(done.stdout)["files"]}
                require_equal(found, set(expected), f"{include} {exclude}")
            else:
                failed(done, "usage", "none of its 17")


# ---- the cache ----


@case
def same_cache() -> None:
    """the cache is that of huggingface_hub, file by file, link by link"""
    with hub_of("mistral", "names") as hub:
        for name in ("mistral", "names"):
            shapes, printed = [], []
            for program in ("qstream", "hf"):
                hub.empty_home()
                printed.append(str(fetched(hub, f"org/{name}", "--all")) if program == "qstream"
                               else hf(hub, f"snapshot_download('org/{name}')"))  # fmt: skip
                shape = shape_of(hub.cache)
                tag = (hub.cache / "CACHEDIR.TAG").read_text()
                require(tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n"), tag)
                trees = [path for path in shape if "/trees/" in path]
                listed = [json.loads((hub.cache / path).read_text()) for path in trees]
                shapes.append(({path: what for path, what in shape.items() if path not in (*trees, "CACHEDIR.TAG")}, trees, listed))
            require_equal(printed[0], printed[1])
            require_equal(shapes[0], shapes[1])


@case
def huggingface_hub_has_it() -> None:
    """what was fetched here huggingface_hub loads without the Hub, and asks the Hub for no file"""
    with hub_of("mistral") as hub:
        snapshot = fetched(hub, "org/mistral")
        for call in ("snapshot_download('org/mistral')", "hf_hub_download('org/mistral', 'config.json')",
                     "try_to_load_from_cache('org/mistral', 'images/more/two.png')"):  # fmt: skip
            hub.clear_log()
            require(hf(hub, call, HF_HUB_OFFLINE="1").startswith(str(snapshot)))
            require_equal(hub.requests(), [])
        found = json.loads(hf(hub, "json.dumps([[r.repo_id, r.nb_files, len(r.refs)] for r in scan_cache_dir().repos]"
                                   " + [str(w) for w in scan_cache_dir().warnings])"))  # fmt: skip
        require_equal(found, [["org/mistral", 16, 1]])
        hub.clear_log()
        require_equal(hf(hub, "snapshot_download('org/mistral', ignore_patterns=['consolidated*'])"), str(snapshot))
        require_equal(file_requests(hub), [])


@case
def from_huggingface_hub() -> None:
    """what huggingface_hub fetched is there: one question to the Hub for the commit, one for the list; offline none"""
    with hub_of("mistral") as hub:
        snapshot = hf(hub, "snapshot_download('org/mistral')")
        before = shape_of(hub.cache)
        hub.clear_log()
        require_equal(str(fetched(hub, "org/mistral")), snapshot)
        require_equal(len(hub.requests()), 2)
        require_equal(str(fetched(hub, "org/mistral", "--all", HF_HUB_OFFLINE="1")), snapshot)
        require_equal(len(hub.requests()), 2)
        require_equal(shape_of(hub.cache), before)


@case
def only_what_is_missing() -> None:
    """of what is there in part, the rest is fetched; a blob without its link is linked"""
    with hub_of("mistral") as hub:
        hf(hub, "snapshot_download('org/mistral', allow_patterns=['*.json', '*00001*'])")
        hub.clear_log()
        snapshot = fetched(hub, "org/mistral")
        require(not [path for path in file_requests(hub) if ".json" in path or "00001" in path], file_requests(hub))
        link = snapshot / "model-00002-of-00003.safetensors"
        link.unlink()
        hub.clear_log()
        fetched(hub, "org/mistral")
        require(link.is_symlink() and not file_requests(hub))
        blob = link.resolve()
        content = blob.read_bytes()
        blob.write_bytes(content[:1000])  # a blob that is too short is fetched again
        fetched(hub, "org/mistral")
        require_equal(blob.read_bytes(), content)


@case
def moved_revision() -> None:
    """a branch that moved: the reference follows, and what both commits share is not fetched again"""
    with tempfile.TemporaryDirectory() as place:
        shared = {"model.safetensors": random_bytes(100_000), "tokenizer.json": "{}"}
        old = write_files(Path(place, "old"), shared | {"config.json": '{"a": 1}'})
        new = write_files(Path(place, "new"), shared | {"config.json": '{"a": 2}'})
        with StandIn(model("org/moving", old)) as hub:
            first = fetched(hub, "org/moving")
            hub.add(model("org/moving", old, new))
            hub.clear_log()
            second = fetched(hub, "org/moving")
            require(first != second)
            require_equal({path.rsplit("/", 1)[1] for path in file_requests(hub)}, {"config.json"})
            reference = hub.cache / "models--org--moving" / "refs" / "main"
            require_equal(reference.read_text(), second.name)
            require_equal((files_of(first), files_of(second)), (files_of(old), files_of(new)))
            require_equal(fetched(hub, f"org/moving@{first.name}", HF_HUB_OFFLINE="1"), first)
            require_equal(reference.read_text(), second.name)


@case
def revisions() -> None:
    """branches, tags, pull requests and commits, as @REV and --revision"""
    history = {"branches": {"main": 1, "with/slash": 0}, "tags": {"v1": 0}, "refs": {"refs/pr/1": 0}}
    with StandIn(model("org/history", FOLDERS["bf16"], FOLDERS["names"], **history)) as hub:
        main = fetched(hub, "hf://org/history")
        old = {fetched(hub, *words) for words in (("org/history@with/slash",), ("org/history", "--revision", "v1"),
                                                  ("hf://org/history@refs/pr/1", "--revision", "refs/pr/1"))}  # fmt: skip
        require_equal((len(old), main in old), (1, False))
        commit = hub.repository("org/history")["with/slash"]["commit"]
        require_equal({folder.name for folder in old}, {commit})
        require_equal(fetched(hub, "org/history", "--revision", commit).name, commit)
        references = hub.cache / "models--org--history" / "refs"
        require_equal(sorted(path.relative_to(references).as_posix() for path in references.rglob("*") if path.is_file()),
                      ["main", "refs/pr/1", "v1", "with/slash"])  # fmt: skip
        failed(fetch(hub, "org/history@v1", "--revision", "main"), "usage", "another")


@case
def datasets() -> None:
    """a dataset is fetched as it is, with --dataset or hf://datasets/"""
    with StandIn(dataset("org/rows", FOLDERS["names"]), model("org/rows", FOLDERS["bf16"])) as hub:
        folder = fetched(hub, "--dataset", "org/rows")
        require_equal(files_of(folder), files_of(FOLDERS["names"]))
        require("datasets--org--rows" in str(folder), folder)
        require_equal(fetched(hub, "hf://datasets/org/rows"), folder)
        require_equal(hf(hub, "snapshot_download('org/rows', repo_type='dataset')", HF_HUB_OFFLINE="1"), str(folder))


@case
def read_only() -> str | None:
    """a cache that has everything and may not be written"""
    with hub_of("bf16") as hub:
        snapshot = fetched(hub, "org/bf16")
        subprocess.run(["chmod", "-R", "a-w", hub.cache], check=True)
        command = [QSTREAM, "fetch", "org/bf16"]
        if os.geteuid() == 0:  # who may write everywhere, unless it is given up
            command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
            subprocess.run(["chmod", "a+rx", hub.work], check=True)
        done = hub.run(command)
        subprocess.run(["chmod", "-R", "u+w", hub.cache], check=True)
        require_equal((done.returncode, done.stdout), (0, f"{snapshot}\n"), done.stderr)
    return None


# ---- offline ----


@case
def offline() -> None:
    """HF_HUB_OFFLINE: what is complete is printed, else an error says what is missing; the Hub is not asked"""
    with hub_of("mistral") as hub:
        failed(fetch(hub, "org/mistral", HF_HUB_OFFLINE="1"), "io", "not in the cache", "HF_HUB_OFFLINE")
        snapshot = fetched(hub, "org/mistral")
        hub.clear_log()
        require_equal(fetched(hub, "org/mistral", HF_HUB_OFFLINE="1"), snapshot)
        require_equal(fetched(hub, "org/mistral", "--include", "*.png", TRANSFORMERS_OFFLINE="1"), snapshot)
        failed(fetch(hub, "org/mistral", "--all", HF_HUB_OFFLINE="1"), "io", "no list")
        failed(fetch(hub, "org/mistral", "--include", "consolidated*", HF_HUB_OFFLINE="1"), "usage", "none")
        to = fetched(hub, "org/mistral", "--to", hub.work / "copy", HF_HUB_OFFLINE="1")
        require_equal(files_of(to), files_of(snapshot))
        (snapshot / "model-00002-of-00003.safetensors").resolve().unlink()
        failed(fetch(hub, "org/mistral", HF_HUB_OFFLINE="1"), "io", "lacks 'model-00002-of-00003.safetensors'")
        (snapshot / "model-00002-of-00003.safetensors").unlink()
        failed(fetch(hub, "org/mistral", HF_HUB_OFFLINE="1"), "input", "model-00002-of-00003.safetensors")
        require_equal(hub.requests(), [])
        hf(hub, "snapshot_download('org/mistral', allow_patterns=['config.json', '*.index.json'])")
        failed(fetch(hub, "org/mistral", HF_HUB_OFFLINE="1"), "io", "lacks 'model-00002")


# ---- folders ----


@case
def to_folder() -> None:
    """--to: plain files; huggingface_hub takes them for its own, and the other way round"""
    with hub_of("mistral", "names") as hub:
        for name in ("mistral", "names"):
            ours, theirs = hub.work / f"ours {name}", hub.work / f"theirs {name}"
            hub.empty_home()
            require_equal(fetched(hub, f"org/{name}", "--all", "--to", ours), ours.resolve())
            require_equal(files_of(ours), files_of(FOLDERS[name]))
            require(not any(path.is_symlink() for path in ours.rglob("*")))
            require(not list(ours.rglob("*.partial")) and not hub.cache.exists())
            hf(hub, f"snapshot_download('org/{name}', local_dir={str(theirs)!r})")
            hub.empty_home()

            def notes(folder: Path) -> dict[str, Any]:
                kept = folder / ".cache" / "huggingface"
                found = {path.relative_to(kept).as_posix(): path.read_text() for path in kept.rglob("*") if path.is_file()}
                require(abs(float(next(iter(v for k, v in found.items() if k.endswith(".metadata"))).split()[2]) - time.time()) < 600)
                return {path: json.loads(text) if path.endswith(".json") else text.split()[:2] for path, text in found.items()
                        if path != "CACHEDIR.TAG"}  # fmt: skip

            require_equal(notes(ours), notes(theirs))
            hub.clear_log()
            hf(hub, f"snapshot_download('org/{name}', local_dir={str(ours)!r})")
            fetched(hub, f"org/{name}", "--all", "--to", theirs)
            fetched(hub, f"org/{name}", "--all", "--to", ours)
            require_equal(file_requests(hub), [])


@case
def to_folder_again() -> None:
    """--to a folder with older files, changed ones, unknown ones and others"""
    with tempfile.TemporaryDirectory() as place:
        old = write_files(Path(place, "old"), {"config.json": '{"a": 1}', "model.safetensors": "x" * 1000, "same.txt": "same"})
        new = write_files(Path(place, "new"), {"config.json": '{"a": 2}', "model.safetensors": "y" * 1000, "same.txt": "same"})
        with StandIn(model("org/moving", old)) as hub:
            folder = write_files(hub.work / "folder", {"mine.txt": "mine"})
            fetched(hub, "org/moving", "--to", folder)
            hub.add(model("org/moving", old, new))
            hub.clear_log()
            fetched(hub, "org/moving", "--to", folder)
            require_equal(files_of(folder), files_of(new) | {"mine.txt": b"mine"})
            require(not [path for path in file_requests(hub) if "same" in path])
            (folder / "config.json").write_text('{"a": 3}')  # changed, though no longer than before
            future = time.time() + 100
            os.utime(folder / "config.json", (future, future))
            (folder / ".cache/huggingface/download/same.txt.metadata").unlink()
            (folder / ".cache/huggingface/download/model.safetensors.metadata").write_text("nonsense")
            hub.clear_log()
            fetched(hub, "org/moving", "--to", folder)
            require_equal(files_of(folder), files_of(new) | {"mine.txt": b"mine"})
            require_equal({path.rsplit("/", 1)[1] for path in file_requests(hub)}, {"config.json"})
            (folder / "config.json").unlink()
            (folder / "config.json").mkdir()
            failed(fetch(hub, "org/moving", "--to", folder, "--quiet"), "io", "config.json")


@case
def to_folder_from_cache() -> None:
    """--to: what the cache has is copied, if it is right"""
    with hub_of("mistral") as hub:
        snapshot = fetched(hub, "org/mistral")
        damaged = (snapshot / "model-00002-of-00003.safetensors").resolve()
        content = bytearray(damaged.read_bytes())
        content[1000] ^= 1
        damaged.write_bytes(content)
        hub.clear_log()
        folder = fetched(hub, "org/mistral", "--all", "--to", hub.work / "folder")
        require_equal(files_of(folder), files_of(FOLDERS["mistral"]))
        names = {path.rsplit("/", 1)[1] for path in file_requests(hub) if "/org/" in path}
        require_equal(names, {"model-00002-of-00003.safetensors", "consolidated.safetensors"})
        require(not list(folder.rglob("*.copy")) and not list(folder.rglob("*.partial")))


@case
def hostile_folder() -> None:
    """--to: a repository may not write where the notes are"""
    with StandIn(model("org/bad", FOLDERS["bf16"])) as hub:
        tree = [{"type": "file", "path": ".cache/huggingface/download/x.metadata", "size": 3, "oid": "1" * 40}]
        hub.fault(do="body", body=json.dumps(tree), path="/tree/")
        failed(fetch(hub, "org/bad", "--all", "--to", hub.work / "folder", "--quiet"), "input", ".cache/huggingface/download/x.metadata")


# ---- others at the same time ----


@case
def beside_huggingface_hub() -> None:
    """beside `hf download` of the same model: both end well, and the cache is right"""
    with hub_of("mistral") as hub:
        for _ in range(3):
            hub.empty_home()
            hub.no_faults()
            hub.fault(do="slow", where="cdn", rate=3_000_000)
            theirs = hub.start([sys.executable, "-c", "from huggingface_hub import *; print(snapshot_download('org/mistral'))"])
            ours = hub.start([QSTREAM, "fetch", "org/mistral", "--all"])
            results = [process.communicate() + (process.returncode,) for process in (ours, theirs)]
            require_equal([result[2] for result in results], [0, 0], results)
            require_equal(results[0][0], results[1][0])
            require_equal(files_of(Path(results[0][0].strip())), files_of(FOLDERS["mistral"]))
            left = [path.name for path in hub.cache.rglob("*") if path.suffix in (".partial", ".incomplete", ".tmp")]
            require_equal(left, [])


@case
def locked() -> None:
    """a file that another process has locked comes last; it is told who is waited for; what the other made is taken"""
    with hub_of("mistral") as hub:
        sha = hub.repository("org/mistral")["main"]["files"]["model-00001-of-00003.safetensors"]["sha256"]
        lock = hub.cache / ".locks" / "models--org--mistral" / f"{sha}.lock"
        lock.parent.mkdir(parents=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            process = hub.start([QSTREAM, "fetch", "org/mistral"])
            line = ""
            while "waiting" not in line:
                line = process.stderr.readline()
                require(line, "it does not wait")
            require("1 of the files" in line, line)
            blobs = hub.cache / "models--org--mistral" / "blobs"
            require_equal(len(list(blobs.iterdir())), 15)  # the others
            require(process.poll() is None)
            (blobs / sha).write_bytes((FOLDERS["mistral"] / "model-00001-of-00003.safetensors").read_bytes())
        out, err = process.communicate()
        require_equal(process.returncode, 0, err)
        require(not hub.requests(f"resolve.*00001|{sha}"), "it was fetched")
        expected = {path: content for path, content in files_of(FOLDERS["mistral"]).items() if "consolidated" not in path}
        require_equal(files_of(Path(out.strip())), expected)


@case
def same_bytes_twice() -> None:
    """two files with the same bytes are fetched once"""
    with tempfile.TemporaryDirectory() as place:
        content = random_bytes(200_000)
        files = {"a.bin": content, "b.bin": content, "sub/c.bin": content, "empty": "", "sub/empty": ""}
        folder = write_files(Path(place), files)
        with StandIn(model("org/twins", folder)) as hub:
            require_equal(files_of(fetched(hub, "org/twins")), files_of(folder))
            require_equal(hub.sent(), len(content))
            require_equal(files_of(fetched(hub, "org/twins", "--to", hub.work / "twins")), files_of(folder))
            require_equal(hub.sent(), len(content))


def main() -> int:
    with folders():
        return run_cases(threads=4)


if __name__ == "__main__":
    sys.exit(main() > 0)
