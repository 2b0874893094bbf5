"""A server that speaks what the client of the Hugging Face Hub uses, for tests without the network.

Downloads: HEAD and GET of /org/name/resolve/REVISION/FILE with ETag, X-Repo-Commit, X-Linked-Etag and
X-Linked-Size, a redirect to a server of another origin (as the Hub sends to its CDN), and ranges there.
Uploads: create a repository or a branch, validate a card, preupload, the LFS batch with the basic transfer,
and the commit. Faults are switched on by `HubServer.fault`.

The client prefers Xet where hf_xet is installed. For downloads it is enough that the server sends no header
of Xet; uploads take the LFS way only with HF_HUB_DISABLE_XET=1, which the client reads when it is imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_TestTokenThatMustNotBePrinted"
_REPO = r"(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repo:
    """Files by commit, and where the branches are."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """One more commit on a branch, with files added or replaced; returns its hash."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        after = before | files
        told = f"{len(self.commits)} {sorted(after)}".encode() + b"".join(
            after[name] for name in sorted(after)
        )
        name = hashlib.sha1(told).hexdigest()
        self.commits[name] = after
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.branches.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


@dataclass
class Fault:
    """What goes wrong; nothing by default."""

    status: int = 0  # of the look-up: 401, 403, 429, 500 …
    code: str = ""  # X-Error-Code
    message: str = ""  # X-Error-Message
    retry_after: int = 0
    cut: int = 0  # bytes of the body after which the connection closes
    cuts: int = 10**6  # how many bodies are cut
    corrupt: bool = False  # one bit of the body
    stall: float = 0.0  # seconds before the body goes on, half-way
    reset: bool = False  # the connection, at the look-up
    hang: float = 0.0  # seconds before the look-up is answered
    size: int = 0  # X-Linked-Size, if not the true one
    no_commit: bool = False  # no X-Repo-Commit, as another server
    slow: float = 0.0  # seconds over which a body is sent


class HubServer:
    """Repositories by name, and a record of what was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.fault = Fault()
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers in lower case
        self.bodies = 0  # whole or partial bodies of large files that were sent
        self.objects: dict[str, bytes] = {}  # uploaded by LFS, by SHA-256
        self.messages: list[str] = []  # of commits
        self.ended = threading.Event()
        self._hub = self._start(_Hub)
        self._cdn = self._start(_Cdn)
        self.url = f"http://127.0.0.1:{self._hub.server_address[1]}"
        self.cdn = f"http://127.0.0.1:{self._cdn.server_address[1]}"

    def repo(self, name: str, files: dict[str, bytes | Path], private: bool = False) -> str:
        """Add a repository with one commit; returns its hash."""
        self.repos[name] = Repo(private=private)
        return self.repos[name].commit(
            {path: data if isinstance(data, bytes) else data.read_bytes() for path, data in files.items()}
        )

    def asked(self, method: str) -> list[str]:
        """The paths of the requests of one method, in their order."""
        return [path for verb, path, _ in self.requests if verb == method]

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """The variables with which a process uses this server and a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"} | more

    def close(self) -> None:
        self.ended.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def _start(self, handler: type[_Handler]) -> ThreadingHTTPServer:
        bound = type(handler.__name__, (handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server for the length of a test."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has gone
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.route(unquote(urlsplit(self.path).path))

    def route(self, path: str) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, data: Any, status: int = 200) -> None:
        self.send(status, json.dumps(data).encode(), Content_Type="application/json")


class _Cdn(_Handler):
    """Where the bytes of large files come from, and where they go to."""

    def route(self, path: str) -> None:
        sha256 = path.rsplit("/", 1)[-1]
        if self.command == "PUT":
            self.hub.objects[sha256] = self.body
            self.send(200, ETag=f'"{sha256}"')
            return
        data = next(
            data
            for repo in self.hub.repos.values()
            for files in repo.commits.values()
            for data in files.values()
            if hashlib.sha256(data).hexdigest() == sha256
        )
        self.send_file(data)

    def send_file(self, data: bytes) -> None:
        fault = self.hub.fault
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
        if fault.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        part = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.hub.bodies += 1
        if fault.cut and fault.cuts > 0:
            fault.cuts -= 1
            self.wfile.write(part[: fault.cut])
            self.close_connection = True
            return
        if fault.stall or fault.slow:
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.hub.ended.wait(fault.stall or fault.slow)
            part = part[len(part) // 2 :]
        self.wfile.write(part)


class _Hub(_Handler):
    """Look-ups and the interface for uploads."""

    def route(self, path: str) -> None:
        fault = self.hub.fault
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault.hang:
            self.hub.ended.wait(fault.hang)
        if fault.status:
            headers = {"X_Error_Code": fault.code, "X_Error_Message": fault.message}
            if fault.retry_after:
                headers["Retry_After"] = str(fault.retry_after)
            self.send(fault.status, b"{}", **{name: value for name, value in headers.items() if value})
            return
        token = self.headers.get("Authorization")
        if token is not None and token != f"Bearer {TOKEN}":
            self.send(401, X_Error_Message="Invalid credentials in Authorization header")
            return
        for pattern, method in (
            (rf"/{_REPO}/resolve/(?P<revision>[^/]+|refs/pr/\d+)/(?P<file>.+)", self.resolve),
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (rf"/api/models/{_REPO}/branch/(?P<branch>.+)", self.branch),
            (rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", self.preupload),
            (rf"/api/models/{_REPO}/commit/(?P<revision>.+)", self.commit),
            (rf"/{_REPO}\.git/info/lfs/objects/batch", self.batch),
            (rf"/api/models/{_REPO}(/revision/(?P<revision>.+))?", self.info),
        ):
            if found := re.fullmatch(pattern, path):
                method(**found.groupdict())
                return
        self.send(404)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        known = self.hub.repos.get(repo)
        if known is None or (known.private and not self.headers.get("Authorization")):
            self.send(404 if self.headers.get("Authorization") else 401, X_Error_Code="RepoNotFound")
            return
        if (at := known.at(revision)) is None:
            self.send(404, X_Error_Code="RevisionNotFound")
            return
        commit, files = at
        if (data := files.get(file)) is None:
            self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        headers = {} if self.hub.fault.no_commit else {"X_Repo_Commit": commit}
        if not file.endswith(".safetensors"):
            sha1 = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            self.send(200, data, ETag=f'"{sha1}"', **headers)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self.send(
            302,
            Location=f"{self.hub.cdn}/objects/{sha256}",
            X_Linked_Etag=f'"{sha256}"',
            X_Linked_Size=str(self.hub.fault.size or len(data)),
            ETag='"of-the-redirect"',
            **headers,
        )

    def info(self, repo: str, revision: str | None) -> None:
        known = self.hub.repos.get(repo)
        at = known.at(revision or "main") if known else None
        if at is None:
            self.send(404, X_Error_Code="RepoNotFound")
            return
        self.send_json({"id": repo, "sha": at[0], "siblings": [{"rfilename": name} for name in at[1]]})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        if name in self.hub.repos:
            self.send_json(
                {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409
            )
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repos[name] = Repo(private=private)
        self.hub.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.send_json({"url": f"{self.hub.url}/{name}"})

    def branch(self, repo: str, branch: str) -> None:
        known = self.hub.repos[repo]
        known.branches[branch] = known.branches["main"]
        self.send_json({})

    def validate(self) -> None:
        self.send_json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        files = json.loads(self.body)["files"]
        told = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        self.send_json({"files": told})

    def batch(self, repo: str) -> None:
        asked = json.loads(self.body)["objects"]
        told = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.cdn}/objects/{one['oid']}", "header": {}}},
            }
            for one in asked
        ]
        self.send_json({"transfer": "basic", "objects": told})

    def commit(self, repo: str, revision: str) -> None:
        files: dict[str, bytes] = {}
        for line in self.body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        name = self.hub.repos[repo].commit(files, revision)
        self.send_json(
            {"commitUrl": f"{self.hub.url}/{repo}/commit/{name}", "commitOid": name, "success": True}
        )


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Return as soon as something is so; AssertionError where it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
