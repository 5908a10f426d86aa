#!/usr/bin/env python3
"""Proves the stand-in Hub with the Hub's own client: huggingface_hub downloads from it, uploads to it and understands its
errors. Prints TAP.

    check_standin.py [--tls] [WORD ...]      only cases with one of the words in their names
"""

import atexit
import contextlib
import filecmp
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import StandIn, dataset, model
from samples import AWKWARD, llama_bf16, mistral_fp8, random_bytes, write_files
from tap import case, require, require_equal, run_cases

TLS = "--tls" in sys.argv
PAGE = 3
MULTIPART, PART = 600_000, 250_000
CLIENT_PIECE = 10 << 20  # huggingface_hub goes on after a dropped connection at a multiple of this


def make_folders(work: Path) -> dict[str, Path]:
    folders = {
        "mistral": mistral_fp8(work / "mistral"),
        "bf16": llama_bf16(work / "bf16", hidden=64, mlp=64, vocab=64),
        "old": write_files(work / "old", {"config.json": '{"old": true}', "only-old.txt": "old"}),
        "new": write_files(work / "new", {"config.json": '{"new": true}', "a/b/c.txt": "deep", "a/d.txt": "less"}),
        "names": write_files(
            work / "names", {path: f"this is {path}" if path != "empty.txt" else "" for path in AWKWARD}
        ),
        "large": write_files(work / "large", {"large.bin": random_bytes(2 * CLIENT_PIECE + 12345), "note.txt": "note"}),
        "rows": write_files(work / "rows", {"raw/test.parquet": random_bytes(5000), "README.md": "# rows\n"}),
    }
    write_files(folders["names"], {"weights of/ü model.safetensors": random_bytes(3000)})
    return folders


def repositories(folders: dict[str, Path]) -> list[dict[str, Any]]:
    history = {"branches": {"main": 1, "old": 0, "with/slash": 0}, "tags": {"v1": 0}, "refs": {"refs/pr/1": 0}}
    return [
        model("org/mistral", folders["mistral"], old_names=["org/before"]),
        model("org/xet", folders["mistral"], xet=["*"]),
        model("oldest", folders["new"]),
        model("org/history", folders["old"], folders["new"], **history),
        model("org/names", folders["names"]),
        model("org/large", folders["large"]),
        model("org/secret", folders["new"], private=True),
        model("org/gated", folders["bf16"], gated="manual"),
        model("org/disabled", folders["new"], disabled=True),
        dataset("org/rows", folders["rows"]),
    ]


# The client reads its environment when it is imported, so the stand-in must run by then.
ENDING = contextlib.ExitStack()
atexit.register(ENDING.close)
FOLDERS = make_folders(Path(ENDING.enter_context(tempfile.TemporaryDirectory(prefix="qstream-standin-"))))
HUB = ENDING.enter_context(StandIn(*repositories(FOLDERS), tls=TLS, page=PAGE, multipart=MULTIPART, part=PART))
os.environ.clear()
os.environ.update(HUB.environment())

import huggingface_hub as client  # noqa: E402
from huggingface_hub import errors, hf_hub_download, snapshot_download  # noqa: E402


def fresh() -> Path:
    return Path(tempfile.mkdtemp(dir=HUB.work))


def same(folder: Path | str, expected: Path, ignore: tuple[str, ...] = ()) -> None:
    compared = filecmp.dircmp(folder, expected, ignore=list(ignore), hide=[])
    different = compared.left_only + compared.right_only
    different += [
        name for name in compared.common_files if (Path(folder) / name).read_bytes() != (expected / name).read_bytes()
    ]
    require(not different, f"{folder} and {expected} differ in {different}")
    for name in compared.common_dirs:
        same(Path(folder) / name, expected / name)


def raises(kind: type[Exception], action: Callable[[], Any]) -> Exception:
    try:
        action()
    except Exception as error:
        require(type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}")
        return error
    raise AssertionError(f"no {kind.__name__}")


# ---- ids ----


@case
def ids_of_git() -> None:
    """the ids of commits, trees and files are git's own"""
    repository = fresh()
    when = {"GIT_AUTHOR_NAME": "stand-in", "GIT_AUTHOR_EMAIL": "stand-in@localhost", "GIT_CONFIG_GLOBAL": "/dev/null"}
    when |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in when.items()}

    def git(*words: str, **more: str) -> str:
        return subprocess.run(["git", *words], cwd=repository, env=os.environ | when | more, capture_output=True,
                              text=True, check=True).stdout.strip()  # fmt: skip

    git("init", "-q", "-b", "main")
    for number, name in enumerate(("old", "new")):
        for file in repository.iterdir():
            if file.name != ".git":
                file.unlink()
        subprocess.run(["cp", "-r", f"{FOLDERS[name]}/.", "."], cwd=repository, check=True)
        date = f"{1704386993 + 60 * number} +0000"
        git("add", "-A")
        git("commit", "-q", "-m", f"commit {number}", GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
    api = client.HfApi()
    require_equal(api.model_info("org/history").sha, git("rev-parse", "HEAD"))
    require_equal(api.model_info("org/history", revision="old").sha, git("rev-parse", "HEAD~"))
    listed = {entry.path: getattr(entry, "blob_id", None) or entry.tree_id
              for entry in api.list_repo_tree("org/history", recursive=True)}  # fmt: skip
    lines = (line.split(None, 3) for line in git("ls-tree", "-r", "-t", "HEAD").splitlines())
    require_equal(list(listed.items()), [(path, id) for _, _, id, path in lines], "the tree")


# ---- downloads ----


@case
def snapshot() -> None:
    """snapshot_download: every byte of a repository"""
    same(snapshot_download("org/mistral", cache_dir=fresh()), FOLDERS["mistral"])


@case
def snapshot_xet() -> None:
    """snapshot_download of Xet-backed files by a client without Xet"""
    same(snapshot_download("org/xet", cache_dir=fresh(), token="hf_owner"), FOLDERS["mistral"])
    infos = client.HfApi().get_paths_info("org/xet", ["consolidated.safetensors", "params.json"])
    require_equal([len(info.xet_hash or "") for info in infos], [64, 0])


@case
def single_files() -> None:
    """hf_hub_download: plain, LFS and Xet-backed files and those in folders are named after their hashes"""
    cache = fresh()
    for id in ("org/mistral", "org/xet"):
        for path in ("params.json", "tekken.json", "images/more/two.png"):
            got, expected = Path(hf_hub_download(id, path, cache_dir=cache)), FOLDERS["mistral"] / path
            data = expected.read_bytes()
            require_equal(got.read_bytes(), data, path)
            lfs = path == "tekken.json"
            name = hashlib.sha256(data) if lfs else hashlib.sha1(b"blob %d\0" % len(data) + data)
            require_equal(got.resolve().name, name.hexdigest(), path)


@case
def metadata() -> None:
    """get_hf_file_metadata: commit, hash, size and place of a file"""
    for id, path, lfs in (("org/mistral", "params.json", False), ("org/mistral", "tekken.json", True)):
        info = client.get_hf_file_metadata(client.hf_hub_url(id, path))
        entry = HUB.repository(id)["main"]["files"][path]
        require_equal((info.commit_hash, info.size), (HUB.repository(id)["main"]["commit"], entry["size"]), path)
        require_equal(info.etag, entry["sha256"] if lfs else entry["oid"], path)
        require(info.location.startswith(HUB.cdn if lfs else HUB.url), info.location)


@case
def awkward_names() -> None:
    """names with spaces, '#', '%' and letters beyond ASCII"""
    same(snapshot_download("org/names", cache_dir=fresh()), FOLDERS["names"])
    for path in AWKWARD:
        got = Path(hf_hub_download("org/names", path, cache_dir=fresh()))
        require_equal(got.read_bytes(), (FOLDERS["names"] / path).read_bytes(), path)


@case
def patterns() -> None:
    """allow_patterns and ignore_patterns"""
    got = Path(
        snapshot_download("org/mistral", cache_dir=fresh(), allow_patterns=["*.json", "images/*"], ignore_patterns="t*")
    )
    files = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}
    require_equal(files, {"config.json", "generation_config.json", "model.safetensors.index.json", "params.json",
                          "images/chart of scores.png", "images/more/two.png"})  # fmt: skip


@case
def revisions() -> None:
    """a branch, one with a '/', a tag, refs/pr/1, a commit"""
    commits = {name: about["commit"] for name, about in HUB.repository("org/history").items()}
    require(commits["main"] != commits["old"])
    for revision in ("old", "with/slash", "v1", "refs/pr/1", commits["old"]):
        got = Path(snapshot_download("org/history", revision=revision, cache_dir=fresh()))
        same(got, FOLDERS["old"])
        require_equal(got.name, commits["old"], revision)
        got = Path(hf_hub_download("org/history", "only-old.txt", revision=revision, cache_dir=fresh()))
        require_equal(got.read_text(), "old", revision)
    same(snapshot_download("org/history", cache_dir=fresh()), FOLDERS["new"])


@case
def one_word_name() -> None:
    """a repository without an organization"""
    same(snapshot_download("oldest", cache_dir=fresh()), FOLDERS["new"])


@case
def renamed() -> None:
    """a renamed repository is found by its old name"""
    cache = fresh()
    got = Path(snapshot_download("org/before", cache_dir=cache))
    same(got, FOLDERS["mistral"])
    require_equal(got.parent.parent.name, "models--org--before")
    require(HUB.requests("org/before", status=307))


@case
def datasets() -> None:
    """a dataset"""
    same(snapshot_download("org/rows", repo_type="dataset", cache_dir=fresh()), FOLDERS["rows"])
    got = hf_hub_download("org/rows", "raw/test.parquet", repo_type="dataset", cache_dir=fresh())
    require_equal(Path(got).read_bytes(), (FOLDERS["rows"] / "raw/test.parquet").read_bytes())
    require_equal(client.HfApi().dataset_info("org/rows").id, "org/rows")


@case
def local_dir() -> None:
    """local_dir: the files as they are"""
    folder = fresh()
    snapshot_download("org/mistral", local_dir=folder)
    same(folder, FOLDERS["mistral"], ignore=(".cache",))


@case
def resume() -> None:
    """a dropped connection: the client asks for the rest and gets it"""
    HUB.clear_log()
    HUB.fault(do="drop", where="cdn", method="GET", after=2 * CLIENT_PIECE + 100, times=1)
    got = hf_hub_download("org/large", "large.bin", cache_dir=fresh())
    require_equal(HUB.hits(), [1])
    require_equal(Path(got).read_bytes(), (FOLDERS["large"] / "large.bin").read_bytes())
    parts = [(request["range"], request["status"]) for request in HUB.requests(where="cdn")]
    require_equal(parts, [(None, 200), (f"bytes={2 * CLIENT_PIECE}-", 206)])


@case
def resume_without_ranges() -> None:
    """a server that ignores ranges: the client starts again"""
    HUB.fault(do="drop", where="cdn", after=2 * CLIENT_PIECE + 100, times=1)
    HUB.fault(do="ignore_range", where="cdn")
    got = hf_hub_download("org/large", "large.bin", cache_dir=fresh())
    require_equal(Path(got).read_bytes(), (FOLDERS["large"] / "large.bin").read_bytes())


@case
def command_line() -> None:
    """hf download, the command"""
    done = HUB.run([Path(sys.executable).parent / "hf", "download", "org/history", "-q"])
    require_equal(done.returncode, 0, done.stderr)
    same(done.stdout.strip(), FOLDERS["new"])


# ---- errors ----


@case
def no_repository() -> None:
    """a repository that is missing, or private and not for this user"""
    for id in ("org/none", "org/secret"):
        for action in (lambda id=id: client.HfApi().model_info(id, token="hf_reader"),
                       lambda id=id: hf_hub_download(id, "config.json", cache_dir=fresh(), token="hf_reader")):  # fmt: skip
            raises(errors.RepositoryNotFoundError, action)
        # someone without a token hears 401; the client knows what it means of https addresses only
        kind = errors.RepositoryNotFoundError if TLS else errors.HfHubHTTPError
        error = raises(kind, lambda id=id: client.HfApi().model_info(id, token=False))
        require_equal(error.response.status_code, 401)
        error = raises(kind, lambda id=id: hf_hub_download(id, "config.json", cache_dir=fresh(), token=False))
        require_equal(error.response.status_code, 401)


@case
def private() -> None:
    """a private repository for its owner"""
    same(snapshot_download("org/secret", cache_dir=fresh(), token="hf_owner"), FOLDERS["new"])


@case
def gated() -> None:
    """a gated repository: its metadata for all, its files for those who were let in"""
    info = client.HfApi().model_info("org/gated", token=False)
    require_equal(info.gated, "manual")
    require(len(list(client.HfApi().list_repo_tree("org/gated", token=False))) > 3)
    for token in (False, "hf_reader"):
        raises(
            errors.GatedRepoError,
            lambda token=token: hf_hub_download("org/gated", "config.json", cache_dir=fresh(), token=token),
        )
        raises(
            errors.GatedRepoError, lambda token=token: snapshot_download("org/gated", cache_dir=fresh(), token=token)
        )
        raises(errors.GatedRepoError, lambda token=token: client.HfApi().auth_check("org/gated", token=token))
    same(snapshot_download("org/gated", cache_dir=fresh(), token="hf_granted"), FOLDERS["bf16"])


@case
def disabled() -> None:
    """a disabled repository"""
    url = client.hf_hub_url("org/disabled", "config.json")
    raises(errors.DisabledRepoError, lambda: client.get_hf_file_metadata(url))


@case
def no_revision() -> None:
    """a revision that is missing"""
    for revision in ("none", "0" * 40, "refs/pr/9"):
        raises(
            errors.RevisionNotFoundError,
            lambda revision=revision: client.HfApi().model_info("org/history", revision=revision),
        )
        raises(errors.RevisionNotFoundError,
               lambda revision=revision: hf_hub_download("org/history", "config.json", revision=revision, cache_dir=fresh()))  # fmt: skip


@case
def no_file() -> None:
    """a file that is missing: the commit is told, so that the cache remembers it"""
    cache = fresh()
    raises(errors.RemoteEntryNotFoundError, lambda: hf_hub_download("org/history", "none.json", cache_dir=cache))
    commit = HUB.repository("org/history")["main"]["commit"]
    require((cache / "models--org--history" / ".no_exist" / commit / "none.json").exists())


@case
def wrong_token() -> None:
    """a token that nobody has"""
    error = raises(errors.HfHubHTTPError, lambda: client.HfApi().whoami(token="hf_wrong"))
    require_equal(error.response.status_code, 401)
    error = raises(
        errors.HfHubHTTPError,
        lambda: hf_hub_download("org/mistral", "params.json", cache_dir=fresh(), token="hf_wrong"),
    )
    require_equal(error.response.status_code, 401)


@case
def rate_limit() -> None:
    """429 with Retry-After: asked again, and not before"""
    HUB.clear_log()
    HUB.fault(do="status", status=429, headers={"Retry-After": "1"}, path="/tree/", times=2)
    same(snapshot_download("org/history", cache_dir=fresh()), FOLDERS["new"])
    asked = HUB.requests("/tree/")
    require_equal([request["status"] for request in asked][:3], [429, 429, 200])
    require(asked[1]["begin"] - asked[0]["begin"] >= 1, "asked again too early")


@case
def expired_signature() -> None:
    """an expired signed address is refused, a new one is fine"""
    HUB.fault(do="expire", where="cdn", times=1)
    error = raises(errors.HfHubHTTPError, lambda: hf_hub_download("org/mistral", "tekken.json", cache_dir=fresh()))
    require_equal(error.response.status_code, 403)
    hf_hub_download("org/mistral", "tekken.json", cache_dir=fresh())


# ---- what is told ----


@case
def listing() -> None:
    """list_repo_tree in pages: every file and folder, once"""
    HUB.clear_log()
    expected = sorted(path.relative_to(FOLDERS["mistral"]).as_posix() for path in FOLDERS["mistral"].rglob("*"))
    for expand in (False, True):
        entries = list(client.HfApi().list_repo_tree("org/mistral", recursive=True, expand=expand))
        require_equal(sorted(entry.path for entry in entries), expected)
    pages = -(-len(expected) // PAGE)
    require_equal(len(HUB.requests("/tree/", status=200)), 2 * pages, "the number of pages")
    top = {entry.path for entry in client.HfApi().list_repo_tree("org/mistral", "images")}
    require_equal(top, {"images/chart of scores.png", "images/more"})
    raises(errors.RemoteEntryNotFoundError, lambda: list(client.HfApi().list_repo_tree("org/mistral", "none")))


@case
def information() -> None:
    """model_info, get_paths_info, list_repo_refs, list_repo_commits, whoami"""
    api = client.HfApi(token="hf_owner")
    info = api.model_info("org/mistral", files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings}
    require_equal(sizes["consolidated.safetensors"], (FOLDERS["mistral"] / "consolidated.safetensors").stat().st_size)
    hashes = {sibling.rfilename: sibling.lfs and sibling.lfs.sha256 for sibling in info.siblings}
    require_equal(hashes["tekken.json"], hashlib.sha256((FOLDERS["mistral"] / "tekken.json").read_bytes()).hexdigest())
    require_equal(hashes["params.json"], None)
    paths = api.get_paths_info("org/mistral", ["images", "tekken.json", "none"])
    require_equal([path.path for path in paths], ["images", "tekken.json"])
    references = api.list_repo_refs("org/history", include_pull_requests=True)
    require_equal({branch.name for branch in references.branches}, {"main", "old", "with/slash"})
    require_equal([tag.name for tag in references.tags], ["v1"])
    require_equal([pull.ref for pull in references.pull_requests], ["refs/pr/1"])
    require_equal([commit.title for commit in api.list_repo_commits("org/history")], ["commit 1", "commit 0"])
    require_equal((api.whoami()["name"], api.whoami()["orgs"][0]["name"]), ("owner", "org"))


# ---- uploads ----


def uploaded_folder(seed: int) -> Path:
    """Plain files, LFS in one piece, LFS in parts (the last one short)."""
    return write_files(fresh(), {
        "README.md": "---\nlicense: mit\n---\n# Uploaded\n", "config.json": '{"seed": %d}' % seed, "empty.txt": "",
        "model-00001-of-00002.safetensors": random_bytes(MULTIPART - 1, seed),
        "in a folder/model-00002-of-00002.safetensors": random_bytes(MULTIPART + 2 * PART + 17, seed + 1),
        "binary.dat": random_bytes(800, seed + 2),
    })  # fmt: skip


@case
def upload_folder() -> None:
    """create_repo and upload_folder, plain and large files, in one piece and in parts: downloaded again they are the same"""
    api, folder = client.HfApi(token="hf_owner"), uploaded_folder(1)
    HUB.clear_log()
    address = api.create_repo("org/uploaded", private=True)
    require_equal(str(address), f"{HUB.url}/org/uploaded")
    require_equal(api.create_repo("org/uploaded", exist_ok=True).repo_id, "org/uploaded")
    raises(errors.HfHubHTTPError, lambda: api.create_repo("org/uploaded"))
    made = api.upload_folder(repo_id="org/uploaded", folder_path=folder, commit_message="all of it")
    same(snapshot_download("org/uploaded", cache_dir=fresh(), token="hf_owner"), folder, ignore=(".gitattributes",))
    now = HUB.repository("org/uploaded")["main"]
    require_equal((now["commit"], now["title"]), (made.oid, "all of it"))
    large = {path for path, file in now["files"].items() if file["sha256"]}
    require_equal(
        large, {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")} | {"binary.dat"}
    )
    puts = HUB.requests(method="PUT", where="cdn", status=200)
    require_equal(
        sorted(put["received"] for put in puts),
        sorted([800, MULTIPART - 1, *[PART] * 4, MULTIPART + 2 * PART + 17 - 4 * PART]),
    )
    require(HUB.requests("complete_multipart", status=200))


@case
def upload_again() -> None:
    """what is there already is not sent again"""
    api, folder = client.HfApi(token="hf_owner"), uploaded_folder(4)
    api.create_repo("org/again")
    first = api.upload_folder(repo_id="org/again", folder_path=folder)
    HUB.clear_log()
    (folder / "config.json").write_text("{}")
    second = api.upload_folder(repo_id="org/again", folder_path=folder)
    require(not HUB.requests(method="PUT"), "something was sent again")
    require(first.oid != second.oid)
    same(snapshot_download("org/again", cache_dir=fresh()), folder, ignore=(".gitattributes",))


@case
def commits() -> None:
    """create_commit: additions, deletions, a parent that is no longer the last, a pull request, a branch, a tag"""
    api = client.HfApi(token="hf_owner")
    add, delete = client.CommitOperationAdd, client.CommitOperationDelete
    api.create_repo("org/commits", repo_type="dataset")
    where: dict[str, Any] = {"repo_id": "org/commits", "repo_type": "dataset"}
    first = api.create_commit(
        operations=[add(f"{name}.txt", name.encode()) for name in ("a", "b", "sub/c")], commit_message="1", **where
    )
    api.create_commit(operations=[delete("a.txt"), delete("sub/"), add("d.bin", b"\0" * 99)], commit_message="2", **where,
                      parent_commit=first.oid)  # fmt: skip
    files = set(api.list_repo_files("org/commits", repo_type="dataset"))
    require_equal(files, {".gitattributes", "b.txt", "d.bin"})
    error = raises(errors.HfHubHTTPError, lambda: api.create_commit(operations=[add("e.txt", b"e")], commit_message="3",
                                                                    parent_commit=first.oid, **where))  # fmt: skip
    require_equal(error.response.status_code, 412)
    pull = api.create_commit(operations=[add("f.txt", b"f")], commit_message="4", create_pr=True, **where)
    require_equal(pull.pr_num, 1)
    require("f.txt" in api.list_repo_files("org/commits", repo_type="dataset", revision="refs/pr/1"))
    require("f.txt" not in api.list_repo_files("org/commits", repo_type="dataset"))
    api.create_branch("org/commits", repo_type="dataset", branch="side", revision=first.oid)
    api.create_tag("org/commits", repo_type="dataset", tag="one", revision=first.oid)
    api.create_commit(operations=[add("g.txt", b"g")], commit_message="5", revision="side", **where)
    require("g.txt" in api.list_repo_files("org/commits", repo_type="dataset", revision="side"))
    require("g.txt" not in api.list_repo_files("org/commits", repo_type="dataset", revision="one"))
    api.delete_repo("org/commits", repo_type="dataset")
    raises(errors.RepositoryNotFoundError, lambda: api.dataset_info("org/commits"))


@case
def no_right_to_write() -> None:
    """uploads of those who may not"""
    api = client.HfApi(token="hf_reader")
    raises(errors.HfHubHTTPError, lambda: api.create_repo("org/other"))
    add = client.CommitOperationAdd("x.txt", b"x")
    error = raises(errors.HfHubHTTPError, lambda: api.create_commit("org/mistral", [add], commit_message="x"))
    require_equal(error.response.status_code, 403)


@case
def wrong_upload() -> None:
    """an LFS object whose bytes are not those announced is refused"""
    api = client.HfApi(token="hf_owner")
    api.create_repo("org/wrong")
    for size in (3000, MULTIPART):
        add = client.CommitOperationAdd("x.safetensors", random_bytes(size, 9))
        add.upload_info.sha256 = hashlib.sha256(b"something else").digest()
        error = raises(RuntimeError, lambda add=add: api.create_commit("org/wrong", [add], commit_message="x"))
        require_equal(error.__cause__.response.status_code, 400)
    require("x.safetensors" not in HUB.repository("org/wrong")["main"]["files"])


# ---- at last ----


@case
def tokens_stay() -> None:
    """no token ever went to the CDN, and some did to the Hub"""
    HUB.clear_log()
    snapshot_download("org/xet", cache_dir=fresh(), token="hf_owner")
    require(HUB.requests(where="hub", user="owner"))
    require(HUB.requests(where="cdn", status=200))
    require(not HUB.requests(where="cdn", authorization=True))


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word != "--tls"]
    sys.exit(run_cases("TLS: " if TLS else "", HUB.no_faults) > 0)
