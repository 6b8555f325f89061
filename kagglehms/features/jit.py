"""How features are compiled: at their first call, cached where a cache can be written, without the GIL.

A feature is declared with its signatures and with a plain NumPy twin. Where Numba or LLVM cannot compile it (a
processor or a release of theirs that refuses, `NUMBA_DISABLE_JIT`), the twin takes over with the same answer,
and one warning says so.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kagglehms.errors import UsageError, first_line

try:
    import numba
    from numba import types
except ValueError as error:  # Numba reads its settings while it is imported
    settings = ", ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))
    raise UsageError(f"Numba refuses {settings} ({first_line(error)}); correct it, or unset it") from error

FLOATS = types.Array(types.float32, 1, "C")
"""What a feature writes to, or keeps its scratch in."""
FLOATS_IN = types.Array(types.float32, 1, "C", readonly=True)
"""What a feature only reads: mutable arrays and read-only memory maps alike."""
HALVES_IN = types.Array(types.uint16, 1, "C", readonly=True)
"""Half precision, seen as its bits, of which Numba knows nothing on a CPU."""

helper: Callable[[Callable[..., Any]], Any] = numba.njit(
    error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Decorates the functions that features are made of: inlined, and not to be called from Python."""

apart: Callable[[Callable[..., Any]], Any] = numba.njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""The same for loops that want every register: called, not inlined, so that nothing of the caller's takes one."""


class PlainPathWarning(RuntimeWarning):
    """Features cannot be compiled here, so that plain NumPy does their work, slowly."""


class Compiled:
    """A compiled function of flat arrays and numbers.

    Calls are checked by nobody: the caller passes what one of the signatures says, the first argument choosing
    it by its dtype.
    """

    def __init__(
        self, function: Callable[..., None], plain: Callable[..., None], **signatures: Sequence[Any]
    ) -> None:
        self._function = function
        self._plain = plain
        self._signatures = {np.dtype(name): tuple(signature) for name, signature in signatures.items()}
        # By the character of a dtype, which is quicker to look up than the dtype.
        self._compiled: dict[str, Callable[..., None]] = {}

    def __call__(self, *arguments: Any) -> None:
        dtype = arguments[0].dtype
        (self._compiled.get(dtype.char) or self._compile(dtype))(*arguments)

    def _compile(self, dtype: np.dtype[Any]) -> Callable[..., None]:
        with _compiling:
            if dtype.char not in self._compiled:
                self._compiled[dtype.char] = self._entry(self._signatures[dtype])
            return self._compiled[dtype.char]

    def _entry(self, signature: tuple[Any, ...]) -> Callable[..., None]:
        """Return the machine code of one signature, or the plain twin."""
        if numba.config.DISABLE_JIT:
            _say_plain("NUMBA_DISABLE_JIT is set")
            return self._plain
        reason = ""
        for cache in (True, False):  # a cache can be unwritable, broken, or full; it is never needed
            try:
                dispatcher = _dispatcher(self._function, cache)
                dispatcher.compile(signature)
                return dispatcher.get_overload(signature)
            # Whatever it is, there is another way to the answer, and the warning carries the reason.
            except Exception as error:
                reason = first_line(error)
        _say_plain(reason)
        return self._plain


_compiling = threading.RLock()


def compiled(
    plain: Callable[..., None], **signatures: Sequence[Any]
) -> Callable[[Callable[..., None]], Compiled]:
    """Declare a feature; each keyword is the dtype of the first argument, with the types of all arguments."""
    return lambda function: Compiled(function, plain, **signatures)


def _dispatcher(function: Callable[..., None], cache: bool) -> Any:
    dispatcher = numba.njit(nogil=True, error_model="numpy", cache=cache)(function)
    # Numba renews a cached function when its own file changes, but not when a function that it calls does.
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, _stamp())
    return dispatcher


def _stamp() -> tuple[tuple[str, int, int], ...]:
    """What tells apart two states of the files of this folder."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


_said_plain = False


def _say_plain(reason: str) -> None:
    global _said_plain
    if not _said_plain:
        _said_plain = True
        warnings.warn(
            f"features: vector code cannot be compiled here ({reason}); plain NumPy does their work, slowly",
            PlainPathWarning,
            stacklevel=5,
        )
