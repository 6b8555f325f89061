"""A hub of models on the loopback: as a mirror of timm's, and as a proxy on the way to it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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


@contextmanager
def serving(repository: str, content: bytes) -> Iterator[Hub]:
    """Run a hub until the end of the block."""
    with Hub(repository, content) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
