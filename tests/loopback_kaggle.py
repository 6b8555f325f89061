"""A Kaggle of our own on the loopback, for the real client: datasets, blobs, kernels, and faults on demand.

The client is told to use it by variables of its own: `KAGGLE_API_ENVIRONMENT=LOCALHOST` makes it ask for
`http://localhost/api/…`, and a proxy variable makes those requests come here. Whatever else comes here, `CONNECT` above
all, and every connection that is tried past the proxy, is an attempt to leave the machine; `escapes` lists them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

_REWORDED = """
import re, runpy, sys, io, contextlib

def reword(text):
    for words in (r"(?i)up\\w+ (un)?successful", r"is being created", r"successfully pushed"):
        text = re.sub(words, "has been seen to", text)
    return text

said = io.StringIO()
try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
finally:
    sys.stdout.write(reword(said.getvalue()))
"""
"""A client of a release to come, which says the same in other words."""


def reword_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client speak in words that nobody has seen yet."""
    monkeypatch.setattr("kagglehms.kaggle.command.COMMAND", (sys.executable, "-P", "-c", _REWORDED))


SITECUSTOMIZE = """
import socket, os

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo
_HERE = ("127.0.0.1", "localhost", "::1")

def _noted(host):
    if host not in _HERE:
        with open("ESCAPES", "a") as file:
            file.write(f"{host}\\n")
        raise OSError(f"a test tried to reach {host}")

def connect(self, address):
    if isinstance(address, tuple):
        _noted(address[0])
    return _connect(self, address)

def getaddrinfo(host, *rest, **more):
    _noted(host)
    return _getaddrinfo(host, *rest, **more)

socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""


@dataclass
class Fault:
    """An answer that is not what was asked for.

    Attributes:
        code: of HTTP.
        body: JSON.
        headers: further ones.
    """

    code: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


TOO_MANY = Fault(429, {"code": 429, "message": "429 - Too Many Requests"}, {"Retry-After": "0"})
BROKEN = Fault(500, {"code": 500, "message": "500 - An internal server error occurred"})


@dataclass
class Session:
    """A kernel's run: the states it is shown in, one per question, the last one for ever."""

    states: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    failure: str = ""
    outputs: dict[str, bytes] = field(default_factory=dict)
    log: str = "bundle verified\n"


class LoopbackKaggle:
    """The service's state, and what it was asked.

    Attributes:
        datasets: files of every version of every dataset.
        statuses: of a dataset's newest version, one per question; then it is ready.
        sessions: of kernels; the next push of a kernel starts the one that is here.
        faults: by method, answers to give instead, one per call.
        calls: methods asked for, with what was sent.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, list[dict[str, bytes]]] = {}
        self.statuses: list[str] = []
        self.sessions: dict[str, Session] = {}
        self.running: dict[str, Session] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.escapes: list[str] = []
        self._blobs: dict[str, tuple[str, bytes | None]] = {}
        self._given_up: set[str] = set()

    def called(self, method: str) -> list[dict[str, Any]]:
        """What was sent with each call of `method`."""
        return [body for name, body in self.calls if name == method]

    def answer(self, method: str, body: dict[str, Any]) -> Fault:
        """The answer to one call of the API."""
        self.calls.append((method, body))
        if self.faults.get(method):
            return self.faults[method].pop(0)
        handler = getattr(self, f"_{method}", None)
        return (
            handler(body) if handler else Fault(501, {"code": 501, "message": f"{method} is not known here"})
        )

    def _GetDatasetStatus(self, body: dict[str, Any]) -> Fault:
        if _ref(body) not in self.datasets:
            return Fault(404, {"code": 404, "message": "404 - Not Found"})
        status = self.statuses.pop(0) if self.statuses else "READY"
        return Fault(200, {"status": status})

    def _GetDataset(self, body: dict[str, Any]) -> Fault:
        return Fault(200, {"currentVersionNumber": len(self.datasets[_ref(body)])})

    def _GetDatasetMetadata(self, body: dict[str, Any]) -> Fault:
        return Fault(200, {"info": {"licenses": [{"name": "apache-2.0"}]}})

    def _ListDatasetFiles(self, body: dict[str, Any]) -> Fault:
        files = self.datasets[_ref(body)][-1]
        listed = [{"name": name, "totalBytes": len(content)} for name, content in sorted(files.items())]
        # Two pages, whatever the client asks for.
        if body.get("pageToken") != "second":
            return Fault(200, {"datasetFiles": listed[:3], "nextPageToken": "second"})
        return Fault(200, {"datasetFiles": listed[3:]})

    def _DownloadDataset(self, body: dict[str, Any]) -> Fault:
        where = f"http://localhost/dataset/{_ref(body)}/{body['fileName']}"
        return Fault(302, {}, {"Location": where})

    def _StartBlobUpload(self, body: dict[str, Any]) -> Fault:
        token = f"token-{len(self._blobs)}"
        self._blobs[token] = (body["name"], None)
        return Fault(200, {"token": token, "createUrl": f"http://localhost/upload/{token}"})

    def put(self, path: str, content: bytes, span: str | None) -> Fault:
        """A file arrives, or, where `span` names no bytes, it is asked how much of it has.

        An upload that was refused is over: who goes on with it is told that it is gone, for as long as they ask.
        """
        token = path.rpartition("/")[2]
        name, there = self._blobs[token]
        self.calls.append(("PUT", {"name": name}))
        if token in self._given_up:
            return Fault(410)
        if span is not None and span.startswith("bytes */"):
            return Fault(308 if there is None else 200)
        if self.faults.get(f"PUT {name}"):
            self._given_up.add(token)
            return self.faults[f"PUT {name}"].pop(0)
        self._blobs[token] = (name, content)
        return Fault(200)

    def _CreateDataset(self, body: dict[str, Any]) -> Fault:
        return self._version(_ref(body, "slug"), body["files"])

    def _CreateDatasetVersion(self, body: dict[str, Any]) -> Fault:
        return self._version(_ref(body), body["body"]["files"])

    def _version(self, ref: str, files: list[dict[str, str]]) -> Fault:
        sent = (self._blobs[file["token"]] for file in files)
        arrived = {name: content for name, content in sent if content is not None}
        self.datasets.setdefault(ref, []).append(arrived)
        return Fault(200, {"status": "ok", "url": f"http://localhost/datasets/{ref}", "error": ""})

    def _SaveKernel(self, body: dict[str, Any]) -> Fault:
        ref = body["slug"]
        self.running[ref] = self.sessions.get(ref, Session())
        number = len(self.called("SaveKernel"))
        return Fault(200, {"versionNumber": number, "url": f"http://localhost/code/{ref}", "error": ""})

    def _GetKernelSessionStatus(self, body: dict[str, Any]) -> Fault:
        session = self.running.get(f"{body['userName']}/{body['kernelSlug']}")
        if session is None:
            return Fault(404, {"code": 404, "message": "404 - Not Found"})
        state = session.states.pop(0) if len(session.states) > 1 else session.states[0]
        return Fault(200, {"status": state, "failureMessage": session.failure if state == "ERROR" else ""})

    def _ListKernelSessionOutput(self, body: dict[str, Any]) -> Fault:
        ref = f"{body['userName']}/{body['kernelSlug']}"
        session = self.running[ref]
        files = [{"url": f"http://localhost/output/{ref}/{n}", "fileName": n} for n in session.outputs]
        return Fault(200, {"files": files, "log": session.log})

    def get(self, path: str) -> bytes | None:
        """A file is fetched."""
        kind, owner, slug, name = path.strip("/").split("/", 3)
        if kind == "output":
            return self.running[f"{owner}/{slug}"].outputs.get(name)
        return self.datasets[f"{owner}/{slug}"][-1].get(name)


def _ref(body: dict[str, Any], slug: str = "datasetSlug") -> str:
    return f"{body['ownerSlug']}/{body[slug]}"


class _Handler(BaseHTTPRequestHandler):
    service: LoopbackKaggle

    def do_CONNECT(self) -> None:
        self._escaped()

    def do_POST(self) -> None:
        content = self._content()
        where = urlsplit(self.path)
        if where.hostname != "localhost" or not where.path.startswith("/api/v1/"):
            return self._escaped()
        body = json.loads(content) if content else {}
        return self._send(self.service.answer(where.path.rpartition("/")[2], body))

    def do_PUT(self) -> None:
        content = self._content()
        if urlsplit(self.path).hostname != "localhost":
            return self._escaped()
        return self._send(
            self.service.put(urlsplit(self.path).path, content, self.headers.get("Content-Range"))
        )

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        if where.hostname != "localhost":
            return self._escaped()
        content = self.service.get(where.path)
        self.send_response(200 if content is not None else 404)
        content = b"<html>gone</html>" if content is None else content
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Fault) -> None:
        content = json.dumps(answer.body).encode()
        self.send_response(answer.code)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _escaped(self) -> None:
        self.service.escapes.append(f"{self.command} {self.path}")
        self._send(Fault(403))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def loopback_kaggle(folder: Path, owner: str) -> Iterator[tuple[LoopbackKaggle, dict[str, str]]]:
    """Serve for a while.

    Args:
        folder: an empty one, for the client's home and the like.
        owner: who is logged in.

    Yields:
        The service, and the variables with which a client uses it. At the end nothing must have escaped.
    """
    service = LoopbackKaggle()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": service}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    for name in ("home", "tmp", "config", "site"):
        (folder / name).mkdir(parents=True)
    (folder / "site/sitecustomize.py").write_text(SITECUSTOMIZE.replace("ESCAPES", str(folder / "escapes")))
    proxy = f"http://127.0.0.1:{server.server_port}"
    environment = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"), proxy),
        "no_proxy": "",
        "NO_PROXY": "",
        "KAGGLE_USERNAME": owner,
        "KAGGLE_KEY": "0" * 32,
        "KAGGLE_CONFIG_DIR": str(folder / "config"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH")))),
    }
    try:
        yield service, environment
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    direct = (folder / "escapes").read_text() if (folder / "escapes").exists() else ""
    assert not service.escapes, f"tried to leave the machine: {service.escapes}"
    assert not direct, f"tried to leave the machine past the proxy: {direct}"
