"""What a rehearsal puts into the kernel's Python: a witness, and a guard where there is no real isolation.

The rehearsal copies this file, as `sitecustomize.py`, to a folder on the kernel's PYTHONPATH; Python then imports
it at start, in the kernel and in every Python process that the kernel starts. So it imports nothing but the
standard library. Its two halves are asked for by environment variables:

- `KAGGLEHMS_WITNESS` names a file. At exit the process writes there from where it imported `kagglehms`.
- `KAGGLEHMS_GUARD` refuses sockets to other machines and their names, through an audit hook, which nothing in
  the process can remove. This is weaker than a network namespace: native code that opens sockets by itself is
  not seen.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

WITNESS_VARIABLE = "KAGGLEHMS_WITNESS"
GUARD_VARIABLE = "KAGGLEHMS_GUARD"

_LOCAL_NAMES = frozenset({"", "localhost", "::", "::1", "0.0.0.0"})
_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_RESOLVES = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
)


def is_local(host: object) -> bool:
    """Say whether `host`, a name or an address as the socket calls take it, is this machine."""
    if host is None:
        return True
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    return name in _LOCAL_NAMES or name.startswith("127.")


def refuse_other_machines(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: raise what a machine without a network raises.

    Raises:
        OSError: a socket to another machine.
        socket.gaierror: the name of another machine.
    """
    if event in _CONNECTS:
        address = args[
            1
        ]  # a tuple for IP, a path for a Unix socket, None for a datagram on a connected socket
        if isinstance(address, tuple) and not is_local(address[0]):
            raise OSError(errno.ENETUNREACH, f"Network is unreachable (rehearsal: {address[0]})")
    elif event in _RESOLVES:
        host = args[0][0] if isinstance(args[0], tuple) else args[0]
        if not is_local(host) and not _is_number(host):
            import socket

            raise socket.gaierror(
                socket.EAI_AGAIN, f"Temporary failure in name resolution (rehearsal: {host!r})"
            )


def _is_number(host: object) -> bool:
    """Say whether `host` is an address already, which takes no network to resolve."""
    import ipaddress

    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


def testify(path: str) -> None:
    """Write to `path` from where this process imported `kagglehms`, if it did."""
    library = sys.modules.get("kagglehms")
    if library is not None:
        Path(path).write_text(json.dumps({"library": getattr(library, "__file__", None)}), encoding="utf-8")


def install() -> None:
    """Do what the environment asks for."""
    if path := os.environ.get(WITNESS_VARIABLE):
        atexit.register(testify, path)
    if os.environ.get(GUARD_VARIABLE):
        sys.addaudithook(refuse_other_machines)


if __name__ == "sitecustomize":
    install()
