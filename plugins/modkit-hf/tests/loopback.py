"""A small Hub on this machine: the routes that huggingface_hub's client needs for models, and faults on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

import yaml

__all__ = ["TOKEN", "Hub", "refuse_card", "serve"]

TOKEN = "hf_right"
TASKS = ("unconditional-image-generation", "text-to-image", "image-to-image")
LICENSES = ("mit", "apache-2.0", "cc-by-4.0", "unknown")


@dataclass
class Repo:
    """A repository: its branches, and the files of each commit."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[digest], self.branches[branch] = files, digest
        return digest


@dataclass
class Hub:
    """The server's state, its address and what was asked of it."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    fault: str | None = None  # `cut` and `changed` concern downloads of weights, `down` everything

    def read(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos[repo].commits[self.repos[repo].branches[branch]]


def refuse_card(text: str) -> str | None:
    """What the Hub has against a card: the fields that it documents, and the values of three of them."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        return "no front matter"
    data = yaml.safe_load(match[1])
    if data.get("license") not in LICENSES:
        return f'"license" must be one of {LICENSES}'
    if data.get("pipeline_tag", TASKS[0]) not in TASKS:
        return '"pipeline_tag" is not valid'
    names = [data["library_name"], *data["tags"], *data.get("datasets", ())]
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) for name in names):
        return f"{names} are not names"
    for model in data.get("model-index", ()):
        for result in model["results"]:
            kinds = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
            kinds += [metric["type"] for metric in result["metrics"]]
            if not all(isinstance(kind, str) and kind for kind in [model["name"], *kinds]):
                return f'"model-index" needs task, dataset and metrics, got {kinds}'
            if not all(isinstance(metric["value"], int | float) for metric in result["metrics"]):
                return '"model-index" needs values'
    return None


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Serves a Hub without repositories on a free port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._read()
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        try:
            if self.hub.fault == "down":
                raise _Answer(500)
            for pattern, method in _ROUTES:
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    getattr(self, method)(body, **match.groupdict())
                    return
            raise _Answer(404)
        except _Answer as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(b"", status=error.status, headers={name: text for name, text in headers.items() if text})

    def _read(self) -> bytes:
        """Reads what was sent, in chunks or whole."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _find(self, repo: str, *, write: bool = False) -> Repo:
        """Finds a repository; who has no right to a private one is told that there is none, as on the Hub."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", TOKEN, "hf_reader"):
            raise _Answer(401, message="Invalid credentials in Authorization header")
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not token):
            raise _Answer(404 if token else 401, "RepoNotFound", "Repository not found")
        if repo in self.hub.gated:
            raise _Answer(403, "GatedRepo", "Access to this model is restricted")
        if write and token != TOKEN:
            raise _Answer(403 if token else 401)
        return found

    def _find_files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._find(repo)
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            raise _Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, found.commits[commit]

    def validate(self, body: bytes) -> None:
        if refusal := refuse_card(json.loads(body)["content"]):
            self._send(refusal.encode(), status=400)
        else:
            self._send({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token != TOKEN:
            raise _Answer(403 if token == "hf_reader" else 401, message="Invalid credentials in Authorization header")
        known = name in self.hub.repos
        if not known:
            self.hub.repos[name] = made = Repo(asked.get("visibility") == "private" or asked.get("private") is True)
            made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send({"url": f"{self.hub.url}/{name}"}, status=409 if known else 200)

    def branch(self, body: bytes, repo: str, revision: str) -> None:
        found = self._find(repo, write=True)
        if revision in found.branches:
            raise _Answer(409)
        found.branches[revision] = found.branches["main"]
        self._send({})

    def show(self, body: bytes, repo: str, revision: str | None = None) -> None:
        commit, files = self._find_files(repo, revision or "main")
        rows = [{"rfilename": name} for name in files]
        self._send({"id": repo, "sha": commit, "private": self._find(repo).private, "siblings": rows})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        _, files = self._find_files(repo, revision)
        rows: list[dict[str, Any]] = []
        for name, data in files.items():
            row = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row | ({"lfs": large} if name.endswith(".safetensors") else {}))
        self._send(rows)

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        self._find(repo, write=True)
        names = [row["path"] for row in json.loads(body)["files"]]
        modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
        self._send({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in zip(names, modes)]})

    def batch(self, body: bytes, repo: str) -> None:
        self._find(repo, write=True)
        rows = json.loads(body)["objects"]
        for row in rows:
            row["actions"] = {"upload": {"href": f"{self.hub.url}/blobs/{row['oid']}"}}
        self._send({"transfer": "basic", "objects": rows})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self._send(b"")

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        found = self._find(repo, write=True)
        files = dict(self._find_files(repo, revision)[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = found.commit(revision, files)
        self._send({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        commit, files = self._find_files(repo, revision)
        if name not in files:
            raise _Answer(404, "EntryNotFound")
        data = files[name]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if name.endswith(".safetensors") and self.command == "GET":
            if self.hub.fault == "changed":
                data = data[:-1] + bytes([data[-1] ^ 1])
            elif self.hub.fault == "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if sum(one.endswith(name) for one in self.hub.asked if one.startswith("GET")) == 1:
                    self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
        self._send(data, headers=headers)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    ("POST /api/validate-yaml", "validate"),
    ("POST /api/repos/create", "create"),
    (rf"GET /api/models/{_REPO}", "show"),
    (rf"GET /api/models/{_REPO}/revision/(?P<revision>.+)", "show"),
    (rf"GET /api/models/{_REPO}/tree/(?P<revision>.+)", "tree"),
    (rf"POST /api/models/{_REPO}/branch/(?P<revision>.+)", "branch"),
    (rf"POST /api/models/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
    (rf"POST /api/models/{_REPO}/commit/(?P<revision>.+)", "commit"),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /blobs/(?P<oid>[0-9a-f]+)", "put"),
    (rf"(?:GET|HEAD) /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
)
