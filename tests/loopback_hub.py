"""A hub of models on the loopback: as a mirror of timm's, and as a proxy on the way to it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class Hub(ThreadingHTTPServer):
    """Serves the same bytes as `model.safetensors` of one repository.

    Args:
        repository: such as `timm/resnet18.a1_in1k`.
        content: of its file.
    """

    def __init__(self, repository: str, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = f"/{repository}/resolve/main/model.safetensors"
        self.content = content
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        # A proxy is sent the whole address.
        if not self.path.endswith(self.server.path):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.content
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is in `asked`."""


TOKEN = "hf_of-somebody"


class Repository(ThreadingHTTPServer):
    """A repository that its owner's client makes, commits to in one request, and reads file by file.

    Args:
        name: owner/name of it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _RepositoryHandler)
        self.name = name
        self.made: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.commits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def head(self) -> str:
        return f"{self.commits:040x}"


class _RepositoryHandler(BaseHTTPRequestHandler):
    server: Repository

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub, path = self.server, self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            hub.made.append(json.loads(body))
            hub.files.setdefault(".gitattributes", b"*.safetensors filter=lfs\n")
            self._answer(200, {"url": f"{hub.url}/{hub.name}"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == f"/api/models/{hub.name}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._answer(200, {"files": modes})
        elif path == f"/api/models/{hub.name}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del hub.files[line["value"]["path"]]
            hub.commits += 1
            address = f"{hub.url}/{hub.name}/commit/{hub.head}"
            self._answer(200, {"commitUrl": address, "commitOid": hub.head, "success": True})
        else:
            self._answer(404, {"error": f"not served here: {path}"})

    def do_HEAD(self) -> None:
        self._get(with_content=False)

    def do_GET(self) -> None:
        self._get(with_content=True)

    def _get(self, with_content: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        if path == f"/api/models/{hub.name}/tree/main":
            self._answer(
                200,
                [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in hub.files.items()],
            )
            return
        for revision in ("main", hub.head):
            content = hub.files.get(path.removeprefix(f"/{hub.name}/resolve/{revision}/"))
            if content is not None:
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                self._answer(200, content, with_content, {"X-Repo-Commit": hub.head, "ETag": etag})
                return
        self._answer(404, {"error": "not found"}, with_content, {"X-Error-Code": "EntryNotFound"})

    def _answer(
        self, status: int, answer: object, with_content: bool = True, headers: dict[str, str] | None = None
    ) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: what was committed is in `files`."""


@contextmanager
def running(hub: Server) -> Iterator[Server]:
    """Run a hub until the end of the block."""
    with hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def serving(repository: str, content: bytes) -> AbstractContextManager[Hub]:
    """Run a hub that serves one file until the end of the block."""
    return running(Hub(repository, content))
