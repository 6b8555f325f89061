"""The weaker guard: sockets to other machines are refused in the kernel and in its Python children."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kagglehms.rehearsal import guard

ELSEWHERE = "192.0.2.1"
"""An address that no machine has (RFC 5737)."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    shutil.copyfile(guard.__file__, tmp_path / "sitecustomize.py")
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), guard.GUARD_VARIABLE: "1"}


def run(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        f"socket.create_connection(({ELSEWHERE!r}, 80), timeout=5)",
        f"socket.socket().connect_ex(({ELSEWHERE!r}, 80))",
        f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ({ELSEWHERE!r}, 53))",
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
    ],
)
def test_another_machine_cannot_be_reached(statement: str, environment: dict[str, str]) -> None:
    code = (
        f"import asyncio, socket\ntry:\n    print({statement})\nexcept OSError as e:\n    print(e.errno, e)"
    )
    assert run(code, environment).startswith(f"{errno.ENETUNREACH} ")


@pytest.mark.parametrize("call", ["getaddrinfo('kaggle.com', 443)", "gethostbyname('kaggle.com')"])
def test_names_of_other_machines_are_not_resolved(call: str, environment: dict[str, str]) -> None:
    code = f"import socket\ntry:\n    print(socket.{call})\nexcept socket.gaierror as e:\n    print(e.errno)"
    assert run(code, environment) == str(int(socket.EAI_AGAIN))


def test_urllib_sees_a_machine_without_a_network(environment: dict[str, str]) -> None:
    code = (
        "import urllib.request, urllib.error\n"
        "try:\n    urllib.request.urlopen('https://www.kaggle.com', timeout=5)\n"
        "except urllib.error.URLError as e:\n    print('refused', e.reason)"
    )
    assert run(code, environment).startswith("refused")


def test_this_machine_can_be_reached(environment: dict[str, str]) -> None:
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(('localhost', server.getsockname()[1]), timeout=5)\n"
        "left, right = socket.socketpair()\n"
        "left.sendall(b'x')\n"
        "print(right.recv(1))"
    )
    assert run(code, environment) == "b'x'"


def test_python_children_are_guarded_too(environment: dict[str, str]) -> None:
    child = f"import socket; socket.create_connection(({ELSEWHERE!r}, 80), timeout=5)"
    run_it = f"subprocess.run([sys.executable, '-c', {child!r}], capture_output=True)"
    code = f"import subprocess, sys; print({run_it}.stderr)"
    assert "Network is unreachable (rehearsal" in run(code, environment)


def test_without_being_asked_for_it_guards_nothing(environment: dict[str, str]) -> None:
    del environment[guard.GUARD_VARIABLE]
    code = "import socket; print(socket.getaddrinfo('127.1.2.3', 80)[0][4][0], socket.getaddrinfo('::2', 80)[0][4][0])"
    assert run(code, environment) == "127.1.2.3 ::2"


def test_the_witness_tells_from_where_the_library_came(environment: dict[str, str], tmp_path: Path) -> None:
    environment[guard.WITNESS_VARIABLE] = str(tmp_path / "witness.json")
    run("pass", environment)
    assert not (tmp_path / "witness.json").exists()
    (tmp_path / "library/kagglehms").mkdir(parents=True)
    (tmp_path / "library/kagglehms/__init__.py").touch()
    run(f"import sys; sys.path.insert(0, {str(tmp_path / 'library')!r}); import kagglehms", environment)
    witnessed = json.loads((tmp_path / "witness.json").read_text())
    assert witnessed == {"library": str(tmp_path / "library/kagglehms/__init__.py")}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        (None, True), ("", True), ("localhost", True), (b"localhost", True), ("127.0.0.53", True), ("::1", True),
        ("kaggle.com", False), (b"kaggle.com", False), ("10.0.0.1", False), ("128.0.0.1", False), ("fe80::1", False),
    ],
)  # fmt: skip
def test_what_counts_as_this_machine(host: object, local: bool) -> None:
    assert guard.is_local(host) is local
