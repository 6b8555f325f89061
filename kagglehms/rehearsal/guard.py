"""Code that a rehearsal runs inside the kernel's Python: a witness, and a guard for when there is no real isolation.

The rehearsal copies this file, as `sitecustomize.py`, to a folder on the kernel's PYTHONPATH, so that Python imports it
at start-up, in the kernel and in every Python process that the kernel starts. It imports only the standard library.
Environment variables switch on its two halves:

- `KAGGLEHMS_WITNESS` names a file. At exit the process writes into it the path from which it imported `kagglehms`.
- `KAGGLEHMS_GUARD` refuses sockets to other machines, and resolving their names, by an audit hook, which nothing in the
  process can remove. This is weaker than a network namespace, because it does not see native code that opens sockets by
  itself.
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
    """Return whether `host`, a name or address as the socket functions take it, is this machine."""
    if host is None:
        return True
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    return name in _LOCAL_NAMES or name.startswith("127.")


def refuse_other_machines(event: str, args: tuple[Any, ...]) -> None:
    """Fail, as an audit hook, like a machine without a network.

    Args:
        event: name of the audit event.
        args: arguments of the event.

    Raises:
        OSError: the event is a connection to another machine.
        socket.gaierror: the event resolves the name of another machine.
    """
    if event in _CONNECTS:
        # A tuple for IP, a path for a Unix socket, None for a datagram on a connected socket.
        address = args[1]
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
    """Return whether `host` is an address, which needs no network to resolve."""
    import ipaddress

    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


def testify(path: str) -> None:
    """Write the path from which this process imported `kagglehms`, if it did, to the file `path`."""
    library = sys.modules.get("kagglehms")
    if library is not None:
        Path(path).write_text(json.dumps({"library": getattr(library, "__file__", None)}), encoding="utf-8")


def install() -> None:
    """Switch on the halves that environment variables ask for."""
    if path := os.environ.get(WITNESS_VARIABLE):
        atexit.register(testify, path)
    if os.environ.get(GUARD_VARIABLE):
        sys.addaudithook(refuse_other_machines)


if __name__ == "sitecustomize":
    install()
