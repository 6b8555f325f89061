"""The real Kaggle client, forked from a process that has its libraries imported already, which is quick.

What the client is asked and how is the same, and so is what it says: only the seconds that its imports take are saved.
A call is a process with the arguments, variables, folder and streams of the one that makes it, and it ends with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIBRARIES = (
    "bleach",
    "google.protobuf.field_mask_pb2",
    "kagglesdk",
    "requests",
    "slugify",
    "tqdm",
    "zipfile",
)
"""What the client imports; the client itself looks for credentials while it is imported."""

_CALL = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    call = [sys.argv[2:], dict(os.environ), os.getcwd()]
    socket.send_fds(server, [json.dumps(call).encode() + b"\\0"], [0, 1, 2])
    code = server.recv(10)
os._exit(int(code or 1))
"""
"""Stands for `python -m kaggle`: asks the server for a client and ends as it ends."""


@contextmanager
def client_server() -> Iterator[tuple[str, ...]]:
    """Start the server; yields the command that takes the place of `python -P -m kaggle`."""
    with tempfile.TemporaryDirectory(prefix="client-", ignore_cleanup_errors=True) as folder:
        address = str(Path(folder, "server"))
        with subprocess.Popen(
            [sys.executable, "-P", __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield (sys.executable, "-I", "-S", "-c", _CALL, address)
            server.stdin.close()  # which it takes for its end


def serve(address: str) -> None:
    """Fork a client for each call, until standard input ends."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # releases of the client differ
            __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _be_a_client(connection)
            connection.close()


def _be_a_client(connection: socket.socket) -> None:
    """Take the place of the caller, run the client, and tell the caller its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not message.endswith(b"\0"):
        message += connection.recv(1 << 20)
    arguments, variables, folder = json.loads(message[:-1])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    threading.Thread(target=_end_with_caller, args=(connection,), daemon=True).start()
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    tempfile.tempdir = None
    sys.path[:0] = variables.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["kaggle", *arguments]
    code = _exit_code(functools.partial(_run_module, "kaggle"))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(code)


def _run_module(name: str) -> None:
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        __import__("sitecustomize")  # of the caller's path, as a Python of its own would
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _exit_code(work: Callable[[], Any]) -> int:
    """Return the code with which Python ends after `work`."""
    try:
        work()
    except SystemExit as error:
        if isinstance(error.code, int) or error.code is None:
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def _end_with_caller(connection: socket.socket) -> None:
    """End when the caller has been killed: its end of the connection is closed."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
