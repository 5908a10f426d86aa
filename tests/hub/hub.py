"""What the Hub answers: repositories, trees, files and who one is; uploads.py adds what is written.

Facts about the replies come from huggingface_hub's source and from public records of huggingface.co's replies.
"""

import base64
import binascii
import hashlib
import hmac
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlencode

from messages import Refusal, Reply, Request, Slice, form_or_json, json_reply, redirect
from repositories import TYPE_OF, Commit, File, Repository, Store
from uploads import Uploads

PAGE_ENTRIES = 1000
SIGNATURE_SECONDS = 3600
CDN_PLACE = "/xet-bridge-us/"
# What may follow a repository's name in /api/models/NAME/...: tells "name/tree" from "org/name".
BELOW = {"revision", "tree", "paths-info", "refs", "commits", "auth-check", "preupload", "commit", "branch", "tag",
         "xet-read-token", "xet-write-token"}  # fmt: skip


@dataclass(frozen=True)
class User:
    name: str
    organizations: tuple[str, ...] = ()
    write: bool = False
    granted: bool = False  # let into gated repositories

    def owns(self, repository_id: str) -> bool:
        return repository_id.partition("/")[0] in (self.name, *self.organizations)


# Tokens that are known unless others are given.
USERS = {
    "hf_owner": User("owner", ("org",), write=True, granted=True),
    "hf_granted": User("granted", granted=True),
    "hf_reader": User("reader"),
}


class Signer:
    """Addresses at the CDN that are good for a while, each with a serial number of its own."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.serials = itertools.count(1)
        self.key = b"stand-in"

    def sign(self, address: str, path: str, **values: str) -> str:
        values |= {"Expires": str(int(time.time()) + self.seconds), "serial": str(next(self.serials))}
        query = urlencode(values)
        return f"{address}{path}?{query}&Signature={self.signature(path, query)}"

    def signature(self, path: str, query: str) -> str:
        return hmac.new(self.key, f"{path}?{query}".encode(), hashlib.sha256).hexdigest()

    def holds(self, request: Request) -> bool:
        path = request.target.partition("?")[0]
        query, _, signature = request.query.rpartition("&Signature=")
        expires = request.value("Expires", "0")
        return hmac.compare_digest(signature, self.signature(path, query)) and time.time() < int(expires)


@dataclass
class Hub:
    store: Store
    signer: Signer
    users: dict[str, User] = field(default_factory=lambda: dict(USERS))
    page_entries: int = PAGE_ENTRIES
    multipart_bytes: int = 5_000_000_000  # from there on an upload is cut into parts
    part_bytes: int = 16_000_000

    def __post_init__(self) -> None:
        self.uploads = Uploads(self)

    # ---- who asks, and for what ----

    def user(self, request: Request) -> User | None:
        given = request.fields.get("Authorization")
        if given is None:
            return None
        kind, _, token = given.partition(" ")
        if kind != "Bearer" or token not in self.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def repository(self, request: Request, type: str, id: str, use: str) -> Repository:
        """`use`: "info", "content" or "write". Someone who may not know of a private repository hears what he would hear
        of a missing one."""
        user = self.user(request)
        with self.store.lock:
            repository = self.store.repositories.get((type, id))
        if not repository or (repository.private and not (user and user.owns(id))):
            if user:
                raise Refusal(404, "Repository not found", "RepoNotFound")
            raise Refusal(401, "Invalid username or password.",
                          WWW_Authenticate='Bearer realm="Authentication required", charset="UTF-8"')  # fmt: skip
        if repository.disabled and use != "info":
            raise Refusal(403, "Access to this resource is disabled.")
        if repository.gated and use == "content" and not (user and (user.granted or user.owns(id))):
            if not user:
                raise Refusal(401, f"Access to {type} {id} is restricted. You must have access to it and be authenticated "
                              "to access it. Please log in.", "GatedRepo")  # fmt: skip
            page = f"{request.hub}/{repository.prefix}{id}"
            raise Refusal(403, f"Access to {type} {id} is restricted and you are not in the authorized list. Visit {page} "
                          "to ask for access.", "GatedRepo")  # fmt: skip
        if use == "write" and not (user and user.write and user.owns(id)):
            if not user:
                raise Refusal(401, "Invalid username or password.")
            raise Refusal(403, "You don't have the rights to create a commit in this repository")
        return repository

    def commit(self, repository: Repository, revision: str) -> Commit:
        with self.store.lock:
            commit = repository.resolve(revision)
        if not commit:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ---- the ways in ----

    def answer(self, request: Request) -> Reply:
        as_json = request.segments[0] == "api" or ".git" in request.path
        try:
            reply = self.api(request) if request.segments[0] == "api" else self.pages(request)
        except Refusal as refusal:
            reply = refusal.reply(as_json)
        bucket = "resolvers" if "/resolve" in request.path else "api"
        reply.fields |= {"RateLimit": f'"{bucket}";r=2990;t=166',
                         "RateLimit-Policy": f'"fixed window";"{bucket}";q=3000;w=300'}  # fmt: skip
        return reply

    def pages(self, request: Request) -> Reply:
        """/[datasets/]NAME/resolve/REVISION/FILE and what git's LFS asks."""
        segments = list(request.segments)
        type = TYPE_OF[segments.pop(0)] if segments[0] in TYPE_OF else "model"
        names = list(itertools.takewhile(lambda name: name not in ("resolve", "info"), segments))
        rest = segments[len(names) :]
        if not 1 <= len(names) <= 2 or not rest:
            raise Refusal(404, "Sorry, we can't find the page you are looking for.")
        id = "/".join(map(unquote, names))
        if rest[0] == "info" and id.endswith(".git"):
            return self.uploads.git_lfs(request, type, id.removesuffix(".git"), rest[1:])
        if moved := self.moved(request, type, id):
            return moved
        if rest[0] != "resolve" or request.method not in ("GET", "HEAD"):
            raise Refusal(404, "Not found")
        revision, rest = unquote(rest[1]), rest[2:]
        if revision == "refs" and len(rest) > 2:  # not quoted
            revision, rest = "/".join([revision, *rest[:2]]), rest[2:]
        return self.resolve(request, type, id, revision, unquote("/".join(rest)))

    def moved(self, request: Request, type: str, id: str) -> Reply | None:
        new = self.store.renamed.get((type, id))
        if not new:
            return None
        return Reply(307, {"Location": request.target.replace(id, new, 1), "Content-Type": "text/plain"}, b"Moved")

    def api(self, request: Request) -> Reply:
        segments = [unquote(segment) for segment in request.segments[1:]]
        if segments == ["whoami-v2"]:
            return self.whoami(request)
        if segments == ["complete_multipart"] and request.method == "POST":
            return self.uploads.complete_multipart(request)
        if segments == ["validate-yaml"]:
            return json_reply({"errors": [], "warnings": []})
        if segments[0] == "repos":
            return self.uploads.repos(request, segments[1:])
        if segments[0] == "resolve-cache" and len(segments) > 4 and segments[1] in TYPE_OF:
            short = segments[3] in self.store_commits(TYPE_OF[segments[1]], segments[2])
            id = segments[2] if short else "/".join(segments[2:4])
            commit, *path = segments[3 if short else 4 :]
            return self.plain_file(request, TYPE_OF[segments[1]], id, commit, "/".join(path))
        if segments[0] in TYPE_OF and len(segments) > 1:
            type, long = TYPE_OF[segments[0]], "/".join(segments[1:3])
            short = len(segments) == 2 or (segments[2] in BELOW and (type, long) not in self.store.repositories)
            id, rest = (segments[1], segments[2:]) if short else (long, segments[3:])
            return self.moved(request, type, id) or self.below(request, type, id, rest)
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")

    def store_commits(self, type: str, id: str) -> dict[str, Commit]:
        repository = self.store.repositories.get((type, id))
        return repository.commits if repository else {}

    def below(self, request: Request, type: str, id: str, rest: list[str]) -> Reply:
        """/api/models/NAME and what is below it."""
        verb, *rest = rest or ["revision"]
        match verb, request.method, len(rest):
            case "revision", "GET", 0 | 1:
                return self.info(request, self.repository(request, type, id, "info"), rest[0] if rest else "main")
            case "tree", "GET", 1 | 2:
                return self.tree(request, self.repository(request, type, id, "info"), *rest)
            case "tree", "GET", _ if rest:
                return self.tree(request, self.repository(request, type, id, "info"), rest[0], "/".join(rest[1:]))
            case "paths-info", "POST", 1:
                return self.paths_info(request, self.repository(request, type, id, "info"), rest[0])
            case "refs", "GET", 0:
                return self.references(self.repository(request, type, id, "info"))
            case "commits", "GET", 1:
                return self.commits(self.repository(request, type, id, "info"), rest[0])
            case "auth-check", "GET", _:
                self.repository(request, type, id, "write" if rest == ["write"] else "content")
                return json_reply({})
        return self.uploads.change(request, type, id, verb, rest)

    # ---- what is asked for ----

    def whoami(self, request: Request) -> Reply:
        user = self.user(request)
        if not user:
            raise Refusal(401, "Invalid username or password.")
        organizations = [{"type": "org", "id": name, "name": name, "fullname": name} for name in user.organizations]
        token = {"displayName": "test", "role": "write" if user.write else "read"}
        return json_reply({"type": "user", "id": user.name, "name": user.name, "fullname": user.name,
                           "orgs": organizations, "auth": {"type": "access_token", "accessToken": token}})  # fmt: skip

    def info(self, request: Request, repository: Repository, revision: str) -> Reply:
        commit = self.commit(repository, revision)
        siblings: list[dict[str, Any]] = []
        for file in commit.files.values():
            sibling: dict[str, Any] = {"rfilename": file.path}
            if request.value("blobs") == "true":
                sibling |= {"size": file.blob.size, "blobId": file.oid}
                if file.lfs:
                    sibling["lfs"] = {"sha256": file.blob.sha256, "size": file.blob.size,
                                      "pointerSize": len(file.blob.pointer)}  # fmt: skip
            siblings.append(sibling)
        made = {"_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24], "id": repository.id,
                "author": repository.id.partition("/")[0], "sha": commit.id, "lastModified": commit.date,
                "createdAt": "2022-03-02T23:29:22.000Z", "private": repository.private, "gated": repository.gated,
                "disabled": repository.disabled, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}  # fmt: skip
        if repository.type == "model":
            made["modelId"] = repository.id
        return json_reply(made)

    def tree(self, request: Request, repository: Repository, revision: str, folder: str = "") -> Reply:
        commit = self.commit(repository, revision)
        if folder and folder not in commit.trees:
            raise Refusal(404, f'{folder} does not exist on "{revision}"', "EntryNotFound")
        expand, recursive = request.value("expand") in ("true", "1"), request.value("recursive") in ("true", "1")
        limit = min(self.page_entries, int(request.value("limit", "1000")))
        try:
            first = int(json.loads(base64.b64decode(request.value("cursor") or "MA==", validate=True)))
        except (ValueError, binascii.Error) as error:
            raise Refusal(400, "Invalid cursor") from error
        paths = commit.list(folder, recursive)
        page = [commit.entry(path, expand) for path in paths[first : first + limit]]
        reply = json_reply(page)
        if first + limit < len(paths):
            values = {name: request.value(name) for name in ("recursive", "expand") if name in request.values}
            values |= {"limit": str(limit), "cursor": base64.b64encode(str(first + limit).encode()).decode()}
            address = request.hub + request.target.partition("?")[0]
            reply.fields["Link"] = f'<{address}?{urlencode(values)}>; rel="next"'
        return reply

    def paths_info(self, request: Request, repository: Repository, revision: str) -> Reply:
        commit = self.commit(repository, revision)
        asked = form_or_json(request)
        expand = str(asked.get("expand", "")).lower() == "true"
        entries = (commit.entry(path.strip("/"), expand) for path in asked.get("paths", []))
        return json_reply([entry for entry in entries if entry])

    def references(self, repository: Repository) -> Reply:
        def listed(table: dict[str, str], place: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": place + name, "targetCommit": id} for name, id in table.items()]

        pulls = {name: id for name, id in repository.others.items() if name.startswith("refs/pr/")}
        converts = {name: id for name, id in repository.others.items() if name.startswith("refs/convert/")}
        return json_reply({"branches": listed(repository.branches, "refs/heads/"),
                           "tags": listed(repository.tags, "refs/tags/"),
                           "converts": [entry | {"name": entry["name"].removeprefix("refs/convert/")}
                                        for entry in listed(converts, "")],
                           "pullRequests": [entry | {"name": entry["name"].removeprefix("refs/")}
                                            for entry in listed(pulls, "")]})  # fmt: skip

    def commits(self, repository: Repository, revision: str) -> Reply:
        commit: Commit | None = self.commit(repository, revision)
        made = []
        while commit:
            made.append(commit.summary() | {"authors": [{"user": "stand-in"}], "message": ""})
            commit = repository.commits[commit.parent] if commit.parent else None
        return json_reply(made)

    # ---- files ----

    def resolve(self, request: Request, type: str, id: str, revision: str, path: str) -> Reply:
        """A small file: on to where plain files are served. A large one: on to the CDN, with a signature."""
        repository = self.repository(request, type, id, "content")
        commit = self.commit(repository, revision)
        file = self.file(commit, path)
        fields = {"X-Repo-Commit": commit.id, "X-Linked-Etag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.lfs:
            place = f"/api/resolve-cache/{type}s/{id}/{commit.id}/{quote(path)}"
            there = place + "?" + urlencode({f"/{repository.prefix}{id}/resolve/{revision}/{path}": "",
                                             "etag": f'"{file.etag}"'})  # fmt: skip
            return redirect(307, there, fields)
        fields["X-Linked-Size"] = str(file.blob.size)
        if file.xet:
            token = f"{request.hub}/api/{type}s/{id}/xet-read-token/{commit.id}"
            fields["X-Xet-Hash"] = file.xet_hash
            fields["Link"] = (f'<{token}>; rel="xet-auth", '
                              f'<{request.cdn}/v1/reconstructions/{file.xet_hash}>; rel="xet-reconstruction-info"')  # fmt: skip
        place = f"{CDN_PLACE}{hashlib.sha1(id.encode()).hexdigest()[:24]}/{file.blob.sha256}"
        disposition = {"response-content-disposition": content_disposition(path)}
        return redirect(302, self.signer.sign(request.cdn, place, **disposition), fields)

    def file(self, commit: Commit, path: str) -> File:
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.id)
        return commit.files[path]

    def plain_file(self, request: Request, type: str, id: str, revision: str, path: str) -> Reply:
        commit = self.commit(self.repository(request, type, id, "content"), revision)
        file = self.file(commit, path)
        fields = {"X-Repo-Commit": commit.id, "ETag": f'"{file.etag}"', "Content-Disposition": content_disposition(path),
                  "Content-Type": "application/json" if path.endswith(".json") else "text/plain; charset=utf-8"}  # fmt: skip
        return Reply(200, fields, Slice(file.blob.path, 0, file.blob.size), ranges=True)


class Cdn:
    """The other host, where large files lie. Like S3 it takes a signature or an Authorization field, never both."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def answer(self, request: Request) -> Reply:
        if "Authorization" in request.fields:
            return Reply(
                400,
                {},
                b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>",
            )
        if not self.hub.signer.holds(request):
            return Reply(403, {}, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        if request.method == "PUT":
            return self.hub.uploads.put(request)
        blob = self.hub.store.uploaded.get(request.path.rpartition("/")[2])
        if not blob or not request.path.startswith(CDN_PLACE) or request.method not in ("GET", "HEAD"):
            return Reply(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        fields = {"Content-Type": "application/octet-stream", "ETag": f'"{blob.sha256[::-1]}"',
                  "Content-Disposition": request.value("response-content-disposition")}  # fmt: skip
        return Reply(200, fields, Slice(blob.path, 0, blob.size), ranges=True)


def content_disposition(path: str) -> str:
    name = path.rpartition("/")[2]
    plain = re.sub(r"[^ -~]|[\"\\]", "_", name)
    return f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";"
