"""Compile features at their first call, cache them where a cache can be written, and run them without the GIL.

A feature is a function of flat arrays, numbers, and named tuples of these; its annotations say which types it is
compiled for. Each has a twin in NumPy. Where Numba or LLVM cannot compile the function (a processor or a release of
theirs that refuses, `NUMBA_DISABLE_JIT`), the twin computes the same result, slowly, and one warning says so.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from kagglehms.caches import others_can_write
from kagglehms.console import warn
from kagglehms.errors import UsageError, first_line

try:
    import numba
    from numba import types
except ValueError as error:  # Numba reads its settings while it is imported
    settings = ", ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))
    raise UsageError(f"Numba refuses {settings} ({first_line(error)}); correct it, or unset it") from error

# ---- types of arguments, and of the fields of named tuples

Source: TypeAlias = Annotated[NDArray[Any], "float32, or the bits of float16 as uint16"]
"""The first argument of a feature, which is compiled for either of the two types when it is first called with it."""
Floats: TypeAlias = Annotated[NDArray[np.float32], types.Array(types.float32, 1, "C")]
"""A flat array that a feature writes to: its result, or scratch."""
Table: TypeAlias = Annotated[NDArray[np.float32], types.Array(types.float32, 1, "C", readonly=True)]
"""A flat array that a feature only reads."""
Indices: TypeAlias = Annotated[NDArray[np.int64], types.Array(types.int64, 1, "C", readonly=True)]
"""A flat array of indices that a feature only reads."""

_SOURCES = {
    np.dtype(np.float32): types.Array(types.float32, 1, "C", readonly=True),
    # Numba has no half precision on a CPU, so halves come as their bits.
    np.dtype(np.uint16): types.Array(types.uint16, 1, "C", readonly=True),
}
_NUMBERS = {int: types.int64, float: types.float64, bool: types.boolean}


def numba_type(hint: Any) -> Any:
    """Return Numba's type of an argument or field that is annotated with `hint`."""
    if hint in _NUMBERS:
        return _NUMBERS[hint]
    if hasattr(hint, "_fields"):  # a named tuple
        fields = [numba_type(field) for field in get_type_hints(hint, include_extras=True).values()]
        return types.BaseTuple.from_types(fields, hint)
    return hint.__metadata__[0]


# ---- kinds of compiled functions

helper: Callable[[Callable[..., Any]], Any] = numba.njit(
    error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Decorate a function that features are made of: it is inlined, and cannot be called from Python."""

apart: Callable[[Callable[..., Any]], Any] = numba.njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Decorate a function that features call, for loops that need every register: their caller's values occupy none."""


class PlainPathWarning(RuntimeWarning):
    """Warn that features cannot be compiled here, so that NumPy computes them, slowly."""


class Compiled:
    """A feature that is compiled when it is first called.

    Arguments are not checked: callers pass what the annotations of `function` say.

    Args:
        function: the function that is compiled. Its first argument is a `Source`, whose dtype selects the machine code.
        plain: its twin in NumPy, which takes the same arguments.
    """

    def __init__(self, function: Callable[..., None], plain: Callable[..., None]) -> None:
        self.plain = plain
        self._function = function
        # By the character of a dtype, which is quicker to look up than the dtype.
        self._compiled: dict[str, Callable[..., None]] = {}

    def __call__(self, *arguments: Any) -> None:
        dtype = arguments[0].dtype
        (self._compiled.get(dtype.char) or self._compile(dtype))(*arguments)

    def _compile(self, dtype: np.dtype[Any]) -> Callable[..., None]:
        with _compiling:
            if dtype.char not in self._compiled:
                self._compiled[dtype.char] = self._entry(dtype)
            return self._compiled[dtype.char]

    def _entry(self, dtype: np.dtype[Any]) -> Callable[..., None]:
        """Return the machine code for one type of source, or the twin."""
        if numba.config.DISABLE_JIT:
            _warn_once("NUMBA_DISABLE_JIT is set")
            return self.plain
        hints = get_type_hints(self._function, include_extras=True)
        del hints["return"]
        signature = (_SOURCES[dtype], *(numba_type(hint) for hint in list(hints.values())[1:]))
        reason = ""
        for cache in (True, False):  # a cache can be read-only, broken, or full; it is never needed
            try:
                dispatcher = _dispatcher(self._function, cache)
                dispatcher.compile(signature)
                return dispatcher.get_overload(signature)
            # Whatever it is, the twin can do the work, and the warning carries the reason.
            except Exception as error:
                reason = first_line(error)
        _warn_once(reason)
        return self.plain


_compiling = threading.RLock()


def _dispatcher(function: Callable[..., None], cache: bool) -> Any:
    dispatcher = numba.njit(nogil=True, error_model="numpy", cache=cache)(function)
    if cache:
        _require_own_cache(dispatcher)
    # Numba renews a cached function when its own file changes, but not when a function that it calls does.
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, _stamp())
    return dispatcher


def _require_own_cache(dispatcher: Any) -> None:
    """Make sure that nobody else can write to the cache of a feature, whose index is unpickled.

    Raises:
        UsageError: somebody else can.
    """
    path = getattr(getattr(dispatcher, "_cache", None), "cache_path", None)
    if path is None:
        return
    folder, source = Path(path).resolve(), Path(__file__).resolve().parent
    # Who can write to the source can have their code executed anyway.
    reason = others_can_write(folder, source if folder.is_relative_to(source) else None)
    if reason:
        global _refused
        if not _refused:
            warn(
                f"note: {reason}, so compiled features are not cached; set NUMBA_CACHE_DIR to your own folder"
            )
        _refused = True
        raise UsageError(reason)


_refused = False


def _stamp() -> tuple[tuple[str, int, int], ...]:
    """Return what distinguishes two states of the files of this folder: names, sizes, times."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


_warned = False


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"features: vector code cannot be compiled here ({reason}); plain NumPy does their work, slowly",
            PlainPathWarning,
            stacklevel=5,
        )
