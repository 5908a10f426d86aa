"""How a repository on the stand-in Hub is made and changed: preupload, LFS in one piece or in parts, and commits.

What was uploaded is kept as it came and can be downloaded again. An LFS object counts only when its bytes have the size
and SHA-256 that were announced.
"""

import base64
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from messages import Refusal, Reply, Request, json_reply
from repositories import LFS_BYTES, LFS_PATTERNS, File, Repository, matches_any

if TYPE_CHECKING:
    from hub import Hub

LFS_TYPE = "application/vnd.git-lfs+json"
PUT_PLACE = "/lfs-upload/"


class Uploads:
    def __init__(self, hub: "Hub") -> None:
        self.hub, self.store = hub, hub.store
        self.numbers = itertools.count(1)
        self.parts: dict[str, dict[int, Path]] = {}  # of an upload in parts, by its number
        self.digests: dict[str, dict[int, str]] = {}

    # ---- repositories ----

    def repos(self, request: Request, rest: list[str]) -> Reply:
        user = self.hub.user(request)
        if not user:
            raise Refusal(401, "Invalid username or password.")
        asked = json.loads(request.body())
        type, id = asked.get("type") or "model", f"{asked.get('organization') or user.name}/{asked['name']}"
        if not user.write or not user.owns(id):
            raise Refusal(
                403, f'You don\'t have the rights to create a {type} under the namespace "{id.split("/")[0]}"'
            )
        repository = Repository(type, id, private=asked.get("visibility") == "private" or asked.get("private"))
        address = {"url": f"{request.hub}/{repository.prefix}{id}", "name": id, "id": id}
        with self.store.lock:
            there = (type, id) in self.store.repositories
            match rest, request.method:
                case ["create"], "POST":
                    if there:
                        message = f"You already created this {type} repo"
                        return json_reply(address | {"error": message}, 409, X_Error_Message=message)
                    attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
                    file = File(".gitattributes", self.store.keep(attributes.encode()), lfs=False)
                    repository.set_reference("main", repository.add_commit({file.path: file}, "initial commit", None))
                    self.store.insert(repository)
                    return json_reply(address)
                case ["delete"], "DELETE":
                    if not there:
                        raise Refusal(404, "Repository not found", "RepoNotFound")
                    del self.store.repositories[type, id]
                    return json_reply({})
        raise Refusal(404, "Not found")

    def change(self, request: Request, type: str, id: str, verb: str, rest: list[str]) -> Reply:
        """/api/models/NAME/VERB/... that changes it."""
        repository = self.hub.repository(request, type, id, "write")
        match verb, request.method, len(rest):
            case "preupload", "POST", 1:
                return self.preupload(request, repository, rest[0])
            case "commit", "POST", 1:
                return self.commit(request, repository, rest[0])
            case "branch" | "tag", "POST" | "DELETE", 1:
                return self.reference(request, repository, verb, rest[0])
        raise Refusal(404, "Not found")

    def reference(self, request: Request, repository: Repository, verb: str, name: str) -> Reply:
        table = repository.branches if verb == "branch" else repository.tags
        asked = json.loads(request.body() or b"{}")
        with self.store.lock:
            if request.method == "DELETE":
                if table.pop(name, None) is None:
                    raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
                return json_reply({})
            if verb == "tag":  # .../tag/REVISION with the tag in the body
                revision, name = name, asked["tag"]
            else:
                revision = asked.get("startingPoint") or "main"
            if name in table:
                raise Refusal(409, f"Reference already exists: {name}")
            table[name] = self.hub.commit(repository, revision).id
        return json_reply({})

    # ---- LFS ----

    def preupload(self, request: Request, repository: Repository, revision: str) -> Reply:
        commit = self.hub.commit(repository, revision)
        asked = json.loads(request.body())
        patterns = list(repository.attributes(commit))
        ignored = [line.strip() for line in asked.get("gitIgnore", "").splitlines() if line.strip()]
        made = []
        for file in asked["files"]:
            path, size = file["path"], file["size"]
            binary = b"\0" in base64.b64decode(file.get("sample", ""))
            mode = "lfs" if size and (binary or repository.is_lfs(path, size, patterns)) else "regular"
            there = commit.files.get(path)
            made.append({"path": path, "uploadMode": mode, "shouldIgnore": matches_any(path, ignored)}
                        | ({"oid": there.etag} if there else {}))  # fmt: skip
        return json_reply({"files": made, "commitOid": commit.id})

    def git_lfs(self, request: Request, type: str, id: str, rest: list[str]) -> Reply:
        if request.method != "POST" or rest not in (["lfs", "objects", "batch"], ["lfs", "objects", "verify"]):
            raise Refusal(404, "Not found")
        repository = self.hub.repository(request, type, id, "write")
        asked = json.loads(request.body())
        if rest[-1] == "verify":
            blob = self.store.uploaded.get(asked["oid"])
            if not blob or blob.size != asked["size"]:
                raise Refusal(404, "Object not found or of another size")
            return json_reply({})
        if asked["operation"] != "upload" or asked.get("hash_algo", "sha256") != "sha256":
            raise Refusal(422, "Only uploads, and SHA-256")
        transfers = asked.get("transfers", ["basic"])
        objects = [self.batch_object(request, repository, entry, transfers) for entry in asked["objects"]]
        in_parts = any(
            "chunk_size" in entry.get("actions", {}).get("upload", {}).get("header", {}) for entry in objects
        )
        made = json_reply({"transfer": "multipart" if in_parts else "basic", "objects": objects})
        made.fields["Content-Type"] = LFS_TYPE
        return made

    def batch_object(
        self, request: Request, repository: Repository, entry: dict[str, Any], transfers: list[str]
    ) -> Any:
        oid, size = entry["oid"], entry["size"]
        made = {"oid": oid, "size": size}
        if oid in self.store.uploaded and self.store.uploaded[oid].size == size:
            return made
        number = str(next(self.numbers))
        signer, values = self.hub.signer, {"oid": oid, "size": str(size), "upload": number}
        if size >= self.hub.multipart_bytes and "multipart" in transfers:
            count = -(-size // self.hub.part_bytes)
            header = {"chunk_size": str(self.hub.part_bytes)}
            for part in range(1, count + 1):
                place = f"{PUT_PLACE}{number}/{part}"
                header[f"{part:05}"] = signer.sign(request.cdn, place, part=str(part), **values)
            self.parts[number], self.digests[number] = {}, {}
            upload = {"href": signer.sign(request.hub, "/api/complete_multipart", **values), "header": header}
        else:
            upload = {"href": signer.sign(request.cdn, PUT_PLACE + number, **values)}
        verify = {"href": f"{request.hub}/{repository.prefix}{repository.id}.git/info/lfs/objects/verify", "header": {}}
        return made | {"authenticated": True, "actions": {"upload": upload, "verify": verify}}

    def put(self, request: Request) -> Reply:
        """At the CDN: an object, or a part of one."""
        if not request.path.startswith(PUT_PLACE):
            return Reply(405)
        with tempfile.NamedTemporaryFile(dir=self.store.folder, delete=False) as stream:
            digest = hashlib.md5()
            for piece in request.read_body():
                stream.write(piece)
                digest.update(piece)
        path, number, part = Path(stream.name), request.value("upload"), request.value("part")
        etag = f'"{digest.hexdigest()}"'
        if part:
            with self.store.lock:
                self.parts[number][int(part)], self.digests[number][int(part)] = path, etag
        elif error := self.accept(path, request.value("oid"), int(request.value("size"))):
            return Reply(400, {}, f"<Error><Code>BadDigest</Code><Message>{error}</Message></Error>".encode())
        return Reply(200, {"ETag": etag})

    def complete_multipart(self, request: Request) -> Reply:
        if "Authorization" in request.fields or not self.hub.signer.holds(request):
            raise Refusal(403, "Request has expired")
        asked = json.loads(request.body())
        number, size = request.value("upload"), int(request.value("size"))
        parts, digests = self.parts[number], self.digests[number]
        given = {part["partNumber"]: part["etag"] for part in asked["parts"]}
        count = -(-size // self.hub.part_bytes)
        if list(given) != list(range(1, count + 1)) or given != dict(sorted(digests.items())):
            raise Refusal(400, "Parts are missing, out of order or not those that were uploaded")
        with tempfile.NamedTemporaryFile(dir=self.store.folder, delete=False) as stream:
            for part in sorted(parts):
                stream.write(parts[part].read_bytes())
        if asked.get("oid") != request.value("oid"):
            raise Refusal(400, "Another object")
        if error := self.accept(Path(stream.name), request.value("oid"), size):
            raise Refusal(400, error)
        for path in parts.values():
            path.unlink()
        return json_reply({})

    def accept(self, path: Path, oid: str, size: int) -> str | None:
        """Takes what came for an LFS object; what is wrong with it otherwise."""
        blob = self.store.hashes.blob(path)
        if (blob.sha256, blob.size) != (oid, size):
            path.unlink()
            return f"{blob.size} bytes of SHA-256 {blob.sha256} came, {size} bytes of {oid} were announced"
        with self.store.lock:
            self.store.uploaded[oid] = blob
        return None

    # ---- commits ----

    def commit(self, request: Request, repository: Repository, revision: str) -> Reply:
        lines = [json.loads(line) for line in request.body().splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header" or any(line["key"] == "header" for line in lines[1:]):
            raise Refusal(400, "The header comes first, and once")
        header = lines[0]["value"]
        if not header.get("summary"):
            raise Refusal(400, "A commit needs a summary")
        with self.store.lock:
            parent = self.hub.commit(repository, revision)
            if not parent.id.startswith(header.get("parentCommit") or ""):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(parent.files)
            for line in lines[1:]:
                self.operation(repository, files, line["key"], line["value"])
            commit = repository.add_commit(dict(sorted(files.items())), header["summary"], parent.id)
            made = {"success": True, "commitOid": commit.id, "hookOutput": "",
                    "commitUrl": f"{request.hub}/{repository.prefix}{repository.id}/commit/{commit.id}"}  # fmt: skip
            if request.value("create_pr") in ("1", "true"):
                number = 1 + sum(name.startswith("refs/pr/") for name in repository.others)
                repository.others[f"refs/pr/{number}"] = commit.id
                made["pullRequestUrl"] = f"{request.hub}/{repository.prefix}{repository.id}/discussions/{number}"
            else:
                repository.set_reference(revision, commit)
        return json_reply(made)

    def operation(self, repository: Repository, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if any(part in ("", ".", "..", ".git") for part in path.rstrip("/").split("/")):
            raise Refusal(400, f"Invalid path: {path}")
        match key:
            case "file":
                body = (
                    base64.b64decode(value["content"]) if value["encoding"] == "base64" else value["content"].encode()
                )
                if len(body) > LFS_BYTES:
                    raise Refusal(400, f"{path} is larger than 10 MB: use LFS")
                files[path] = File(path, self.store.keep(body), lfs=False)
            case "lfsFile":
                blob = self.store.uploaded.get(value["oid"])
                if not blob or blob.size != value.get("size", blob.size) or value["algo"] != "sha256":
                    raise Refusal(400, f"{path}: LFS object {value['oid']} was not uploaded")
                files[path] = repository.known_file(path, blob, lfs=True)
            case "deletedFile":
                if files.pop(path, None) is None:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            case "deletedFolder":
                inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
                if not inside:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for name in inside:
                    del files[name]
            case _:
                raise Refusal(400, f"Unknown operation: {key}")
