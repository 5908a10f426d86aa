"""The repositories of the stand-in Hub: folders as commits, with the ids that git and LFS give them.

A commit's id follows from its files, its parents' ids and its number alone, so it is the same in every run. What is
large (LFS) is decided as on the Hub: by .gitattributes, else by the Hub's default patterns, or from 10 MB on.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_BYTES = 10_000_000
# The .gitattributes of a new repository.
LFS_PATTERNS = tuple(
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot"
    " *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm"
    " *.xz *.zip *.zst *tfevents*".split()
)
COMMIT_ID = re.compile(r"[0-9a-f]{40}")
EPOCH = 1_704_386_993  # of the first commit, seconds
HASH_CACHED_BYTES = 1_000_000  # smaller files are hashed anew
TYPE_OF = {"models": "model", "datasets": "dataset", "spaces": "space"}


def git_id(kind: str, body: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(body)) + body).hexdigest()


@dataclass(frozen=True)
class Blob:
    """Bytes on this disk."""

    path: Path
    size: int
    sha1: str  # git's blob id
    sha256: str

    @property
    def pointer(self) -> bytes:
        """What git holds for it where it is in LFS."""
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            self.sha256.encode(),
            self.size,
        )


class Hashes:
    """The hashes of large files, remembered in a file by path, size and time, so that a sample model is read once."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known: dict[str, list[str]] = self.read()
        self.lock = threading.Lock()

    def read(self) -> dict[str, list[str]]:
        try:
            return json.loads(self.file.read_text()) if self.file else {}
        except (OSError, ValueError):
            return {}

    def blob(self, path: Path) -> Blob:
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if key not in self.known:
            sha1, sha256 = hashlib.sha1(b"blob %d\0" % stat.st_size), hashlib.sha256()
            with path.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    sha1.update(piece)
                    sha256.update(piece)
            hashes = [sha1.hexdigest(), sha256.hexdigest()]
            if stat.st_size < HASH_CACHED_BYTES:
                return Blob(path, stat.st_size, *hashes)
            self.remember(key, hashes)
        return Blob(path, stat.st_size, *self.known[key])

    def remember(self, key: str, hashes: list[str]) -> None:
        with self.lock:
            self.known[key] = hashes
            if self.file:
                self.known |= self.read()  # of other servers at the same time
                self.known = {key: value for key, value in self.known.items() if os.path.exists(key.rsplit(":", 2)[0])}
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False) as stream:
                    json.dump(self.known, stream)
                os.replace(stream.name, self.file)


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    """As .gitattributes has it: a pattern without '/' is one of the last part of the path."""
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.lstrip("/")) for pattern in patterns)


def attribute_patterns(text: str) -> list[str]:
    lines = (line.split() for line in text.splitlines())
    return [words[0] for words in lines if "filter=lfs" in words[1:]]


@dataclass(frozen=True)
class File:
    path: str
    blob: Blob
    lfs: bool
    xet: bool = False

    @property
    def oid(self) -> str:
        """Of git's blob: of the pointer where it is in LFS."""
        return git_id("blob", self.blob.pointer) if self.lfs else self.blob.sha1

    @property
    def etag(self) -> str:
        return self.blob.sha256 if self.lfs else self.blob.sha1

    @property
    def xet_hash(self) -> str:
        """Xet's own hash is none of ours to compute: only its form is right."""
        return hashlib.sha256(b"xet" + self.blob.sha256.encode()).hexdigest()

    def entry(self, expand: "Commit | None" = None) -> dict[str, Any]:
        """As the tree lists it."""
        made: dict[str, Any] = {"type": "file", "oid": self.oid, "size": self.blob.size, "path": self.path}
        if self.lfs:
            pointer_size = len(self.blob.pointer)
            made["lfs"] = {"oid": self.blob.sha256, "size": self.blob.size, "pointerSize": pointer_size}
        if self.xet:
            made["xetHash"] = self.xet_hash
        if expand:
            made["lastCommit"] = expand.summary()
            made["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
        return made


@dataclass
class Commit:
    files: dict[str, File]
    parent: str | None
    number: int  # of commits before it
    title: str
    trees: dict[str, str] = field(default_factory=dict)  # the id of each folder, "" is the root
    id: str = ""

    def __post_init__(self) -> None:
        children: dict[str, dict[str, File | None]] = {"": {}}
        for path, file in self.files.items():
            while True:
                folder, _, name = path.rpartition("/")
                children.setdefault(folder, {})[name] = file
                if not folder:
                    break
                path, file = folder, None
        for folder in sorted(children, key=lambda name: (-name.count("/") - bool(name), name)):
            self.trees[folder] = self.tree_id(folder, children[folder])
        self.order = [path for path, _ in self.walk("", children)]
        when = f"stand-in <stand-in@localhost> {EPOCH + 60 * self.number} +0000"
        parent = f"parent {self.parent}\n" if self.parent else ""
        text = f"tree {self.trees['']}\n{parent}author {when}\ncommitter {when}\n\n{self.title}\n"
        self.id = git_id("commit", text.encode())

    def tree_id(self, folder: str, names: dict[str, File | None]) -> str:
        body = b""
        for name in sorted(names, key=lambda name: (name if names[name] else name + "/").encode()):
            file = names[name]
            inner = f"{folder}/{name}" if folder else name
            mode, oid = ("100644", file.oid) if file else ("40000", self.trees[inner])
            body += f"{mode} {name}\0".encode() + bytes.fromhex(oid)
        return git_id("tree", body)

    def walk(self, folder: str, children: dict[str, dict[str, File | None]]) -> Iterable[tuple[str, bool]]:
        """Every path below, a folder before what is in it, in git's order."""
        names = children[folder]
        for name in sorted(names, key=lambda name: (name if names[name] else name + "/").encode()):
            path = f"{folder}/{name}" if folder else name
            yield path, names[name] is None
            if names[name] is None:
                yield from self.walk(path, children)

    @property
    def date(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(EPOCH + 60 * self.number))

    def summary(self) -> dict[str, Any]:
        return {"id": self.id, "title": self.title, "date": self.date}

    def entry(self, path: str, expand: bool) -> dict[str, Any] | None:
        """A file or a folder as the tree lists it."""
        if path in self.files:
            return self.files[path].entry(self if expand else None)
        if path and path in self.trees:
            made: dict[str, Any] = {"type": "directory", "oid": self.trees[path], "size": 0, "path": path}
            return made | ({"lastCommit": self.summary()} if expand else {})
        return None

    def list(self, folder: str, recursive: bool) -> list[str]:
        prefix = folder + "/" if folder else ""
        below = (path for path in self.order if path.startswith(prefix) and path != folder)
        return [path for path in below if recursive or "/" not in path[len(prefix) :]]


class Repository:
    def __init__(self, type: str, id: str, **settings: Any) -> None:
        if type not in TYPE_OF.values():
            raise ValueError(f"a repository is one of {', '.join(TYPE_OF.values())}, not {type}")
        self.type, self.id = type, id
        self.private = bool(settings.pop("private", False))
        self.gated = settings.pop("gated", False)
        self.disabled = bool(settings.pop("disabled", False))
        self.old_names: list[str] = settings.pop("old_names", [])
        self.lfs: list[str] | None = settings.pop("lfs", None)  # patterns instead of .gitattributes and 10 MB
        self.xet: list[str] = settings.pop("xet", [])
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.others: dict[str, str] = {}  # refs/pr/1, refs/convert/parquet
        if settings:
            raise ValueError(f"{id}: what is {', '.join(settings)}?")

    @property
    def prefix(self) -> str:
        """Of its pages' addresses."""
        return "" if self.type == "model" else self.type + "s/"

    def add_commit(self, files: dict[str, File], title: str, parent: str | None, id: str = "") -> Commit:
        number = self.commits[parent].number + 1 if parent else 0
        commit = Commit(files, parent, number, title)
        commit.id = id or commit.id
        self.commits[commit.id] = commit
        return commit

    def commit_folder(self, folder: Path, hashes: Hashes, parent: str | None, title: str, id: str) -> Commit:
        blobs: dict[str, Blob] = {}
        for place, folders, names in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if name != ".git"]
            for name in names:
                path = Path(place, name)
                blobs[path.relative_to(folder).as_posix()] = hashes.blob(path)
        if not blobs:
            raise ValueError(f"{self.id}: {folder} is empty or not there")
        attributes = blobs.get(".gitattributes")
        patterns = attribute_patterns(attributes.path.read_text()) if attributes else LFS_PATTERNS
        files = {path: self.file(path, blobs[path], patterns) for path in sorted(blobs)}
        return self.add_commit(files, title, parent, id)

    def file(self, path: str, blob: Blob, patterns: Iterable[str]) -> File:
        return self.known_file(path, blob, self.is_lfs(path, blob.size, patterns))

    def known_file(self, path: str, blob: Blob, lfs: bool) -> File:
        return File(path, blob, lfs, lfs and matches_any(path, self.xet))

    def is_lfs(self, path: str, size: int, patterns: Iterable[str]) -> bool:
        if size == 0:
            return False
        if self.lfs is not None:
            return matches_any(path, self.lfs)
        return size > LFS_BYTES or matches_any(path, patterns)

    def attributes(self, commit: Commit | None) -> Iterable[str]:
        """The LFS patterns that hold for what is committed on top of a commit."""
        file = commit.files.get(".gitattributes") if commit else None
        return attribute_patterns(file.blob.path.read_text()) if file else LFS_PATTERNS

    def resolve(self, revision: str) -> Commit | None:
        """A branch, a tag, refs/pr/N or a commit."""
        for table, prefix in ((self.branches, "refs/heads/"), (self.tags, "refs/tags/"), (self.others, "")):
            id = table.get(revision) or table.get(revision.removeprefix(prefix))
            if id:
                return self.commits[id]
        return self.commits.get(revision) if COMMIT_ID.fullmatch(revision) else None

    def described(self) -> dict[str, Any]:
        """Every branch, tag and ref with its files, for tests that look at what came."""
        made = {}
        for name, id in (self.branches | self.tags | self.others).items():
            files = {path: {"size": file.blob.size, "oid": file.oid, "sha256": file.blob.sha256 if file.lfs else None,
                            "path": str(file.blob.path)} for path, file in self.commits[id].files.items()}  # fmt: skip
            made[name] = {"commit": id, "title": self.commits[id].title, "files": files}
        return made

    def set_reference(self, revision: str, commit: Commit) -> None:
        if revision in self.tags:
            self.tags[revision] = commit.id
        elif revision.startswith("refs/") and not revision.startswith("refs/heads/"):
            self.others[revision] = commit.id
        else:
            self.branches[revision.removeprefix("refs/heads/")] = commit.id


class Store:
    """All repositories, and the place for what is uploaded. For any number of threads, under `lock` where it changes."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        self.folder = Path(tempfile.mkdtemp(prefix="qstream-hub-"))
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.uploaded: dict[str, Blob] = {}  # LFS objects by SHA-256

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, settings: dict[str, Any]) -> Repository:
        """From its description in a JSON file:

        {"type": "model", "id": "org/name", "commits": [FOLDER, ...], "branches": {"main": 1, "old": 0},
         "tags": {"v1": 0}, "refs": {"refs/pr/1": 1}, "private": false, "gated": false | "auto" | "manual",
         "disabled": false, "old_names": ["org/old"], "lfs": [PATTERN, ...], "xet": [PATTERN, ...], "ids": [ID, ...]}

        Branches, tags and refs count the commits from 0. Without branches main is the last commit. Only type, id and
        commits must be there. "ids" are the commits' in place of git's own, for who knows one by heart.
        """
        settings = dict(settings)
        folders = settings.pop("commits")
        branches = settings.pop("branches", {"main": len(folders) - 1})
        tags, others = settings.pop("tags", {}), settings.pop("refs", {})
        given_ids = settings.pop("ids", [""] * len(folders))
        repository = Repository(**settings)
        ids: list[str] = []
        for number, folder in enumerate(folders):
            parent = ids[-1] if ids else None
            title, id = f"commit {number}", given_ids[number]
            ids.append(repository.commit_folder(Path(folder), self.hashes, parent, title, id).id)
        for table, given in ((repository.branches, branches), (repository.tags, tags), (repository.others, others)):
            table.update({name: ids[number] for name, number in given.items()})
        self.insert(repository)
        return repository

    def insert(self, repository: Repository) -> None:
        with self.lock:
            self.repositories[repository.type, repository.id] = repository
            for name in repository.old_names:
                self.renamed[repository.type, name] = repository.id
            for commit in repository.commits.values():
                self.uploaded |= {file.blob.sha256: file.blob for file in commit.files.values() if file.lfs}

    def keep(self, body: bytes) -> Blob:
        """Bytes that came with a commit."""
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as stream:
            stream.write(body)
        return self.hashes.blob(Path(stream.name))
