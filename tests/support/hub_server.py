"""A model hub on 127.0.0.1: the part of the protocol that the client huggingface_hub uses.

Repositories are in memory: commits with the bytes of each file, branches and tags. Files are
uploaded as the client asks: small ones in the commit, those of LFS_BYTES and more by LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 4096


@dataclass
class Repository:
    """Commits (name of a file -> bytes) by their hash, and the hashes of branches and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Replace and add files on a branch; return the hash of the commit."""
        whole = self.commits.get(self.refs.get(branch, ""), {}) | files
        text = repr((len(self.commits), sorted(whole)))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = whole
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """Return the hash of a branch, tag or commit."""
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """A hub: its repositories, uploaded objects of LFS, and the requests that it got."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    token: str | None = None
    answers_more: bool = False
    """Whether files are sent without their length, and with twice as many bytes."""
    refuses_objects: bool = False
    """Whether objects of LFS are refused."""

    def add(self, name: str, files: dict[str, bytes]) -> Repository:
        """Add a repository with one commit."""
        repository = self.repositories.setdefault(name, Repository())
        repository.commit(files)
        return repository


class Handler(BaseHTTPRequestHandler):
    """One request; ``server.hub`` is the hub."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            name, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            self._info(name, rest or "main")
            return
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self._file(name, revision, file)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self._error(401, "Invalid username or password.")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            name, action, branch = self._parts(path)
            getattr(self, f"_{action}")(self.hub.repositories[name], branch, body)

    def do_PUT(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.objects[hashlib.sha256(data).hexdigest()] = data
        self._send(403 if self.hub.refuses_objects else 200, b"")

    @staticmethod
    def _parts(path: str) -> tuple[str, str, str]:
        owner, name, action, branch = path.removeprefix("/api/models/").split("/", 3)
        return f"{owner}/{name}", action, branch

    # ---- reading -----------------------------------------------------------------------------

    def _found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit and files, or answer that there is none."""
        repository = self.hub.repositories.get(name)
        authorized = self.headers["Authorization"] == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not authorized):
            self._error(404, "Repository not found", code="RepoNotFound")
            return None
        sha = repository.find(revision)
        if sha is None:
            self._error(404, "Invalid rev id", code="RevisionNotFound")
            return None
        return sha, repository.commits[sha]

    def _info(self, name: str, revision: str) -> None:
        found = self._found(name, revision)
        if found is not None:
            siblings = [{"rfilename": file, "size": len(data)} for file, data in found[1].items()]
            self._json({"id": name, "modelId": name, "sha": found[0], "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        found = self._found(name, revision)
        if found is None:
            return
        sha, files = found
        if file not in files:
            self._error(404, "Entry not found", code="EntryNotFound", commit=sha)
            return
        data = files[file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if self.hub.answers_more and self.command == "GET":
            self._send(200, data * 2, headers, chunked=True)
        else:
            self._send(200, data, headers)

    # ---- writing -----------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._error(409, "You already created this model repo", {"url": self._url(name)})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.add(name, {".gitattributes": b""}).private = private
        self._json({"url": self._url(name)})

    def _branch(self, repository: Repository, branch: str, body: bytes) -> None:
        if branch in repository.refs:
            self._error(409, "Reference already exists")
        else:
            repository.refs[branch] = repository.refs["main"]
            self._json({})

    def _preupload(self, repository: Repository, branch: str, body: bytes) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["size"] >= LFS_BYTES else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, branch: str, body: bytes) -> None:
        name = self._parts(unquote(urlsplit(self.path).path))[0]
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = repository.commit(files, branch)
        url = f"{self._url(name)}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url})

    # ---- answers -----------------------------------------------------------------------------

    def _url(self, name: str) -> str:
        return f"{self.hub.url}/{name}"

    def _json(self, content: dict[str, Any], status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(content).encode(), headers)

    def _error(
        self,
        status: int,
        message: str,
        content: dict[str, Any] | None = None,
        *,
        code: str | None = None,
        commit: str | None = None,
    ) -> None:
        headers = {"X-Error-Message": message}
        headers |= {"X-Error-Code": code} if code else {}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        self._json({"error": message, **(content or {})}, status, **headers)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header(*(("Connection", "close") if chunked else ("Content-Length", len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = chunked


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Context with a hub that answers on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
