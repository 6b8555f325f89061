"""A limit of the address space (`ulimit -v`) under which the numerical libraries would hang is refused in a line.

OpenBLAS, of which numpy and scipy each bring a copy, maps a buffer for each thread when it is first used, and where
that fails it tries again for ever; polars aborts where a thread cannot start. So where there is such a limit, what is
left of it is looked at before the command, once more when these libraries are loaded, and then their buffers are taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kagglehms.environment import available_cpus
from kagglehms.errors import RunError, first_line

LEAST_BYTES, LEAST_BYTES_PER_CPU = 256 << 20, 96 << 20
"""What has to be left: for the work itself, and for two buffers of 32 MB and the stacks of the threads of each core."""
_LIBRARIES_BYTES = 640 << 20
"""What the libraries themselves take, as long as they are not loaded."""
_HINT = "raise the limit (ulimit -v unlimited)"
_LARGE_ENOUGH = 300
"""Rows of a matrix whose product takes OpenBLAS's buffers; it has ways without them for small ones."""


def claim_address_space() -> None:
    """Make sure that the numerical libraries have what they need; does nothing where the address space has no limit.

    Raises:
        RunError: too little is left of the limit.
    """
    if _left() is None:
        return
    _require()
    try:
        import numpy as np
        import polars  # noqa: F401 - which is most of what has to be mapped
        from scipy.linalg import blas
    except (ImportError, MemoryError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        raise RunError(
            f"the numerical libraries do not fit into this process's address space ({first_line(error)}); {_HINT}"
        ) from error
    _require()
    ones = np.ones((_LARGE_ENOUGH, _LARGE_ENOUGH), order="F")
    ones @ ones
    blas.dgemm(1.0, ones, ones)


def _require() -> None:
    left, least = _left(), LEAST_BYTES + available_cpus() * LEAST_BYTES_PER_CPU
    least += 0 if "polars" in sys.modules else _LIBRARIES_BYTES
    if left is not None and left < least:
        raise RunError(
            f"this process may take only {max(left, 0) / 1e6:.0f} MB more of its address space, and the numerical "
            f"libraries need {least / 1e6:.0f} MB; {_HINT}"
        )


def _left() -> int | None:
    """Bytes that are left of the limit; None if there is none, or if the system does not tell."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # Windows has no such limit, and macOS does not keep to it
        return None
    return limit - pages * resource.getpagesize()
