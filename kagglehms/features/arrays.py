"""Between callers and compiled code: checks of what goes in and out, scratch memory, and threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, N_TIMES
from kagglehms.errors import UsageError

FLOAT32 = np.dtype(np.float32)
LINE = 16
"""float32 values in a cache line."""


def expected(name: str, what: str, got: object) -> UsageError:
    """Return the error of an argument that cannot be used, which says what was expected and what came."""
    if isinstance(got, np.ndarray):
        got = f"{got.dtype} of shape {got.shape}"
    return UsageError(f"{name}: expected {what}, got {got}")


def check_spec(spec: object, checks: Mapping[str, bool]) -> None:
    """Refuse a specification that breaks a rule.

    Args:
        spec: the specification, a dataclass.
        checks: the rules as `fields: expected …`, and whether each is kept.

    Raises:
        UsageError: the first rule that is broken.
    """
    for rule, kept in checks.items():
        if not kept:
            raise UsageError(f"{type(spec).__name__}.{rule}, got {spec}")


def as_source(array: Any, name: str, shape: str) -> NDArray[Any]:
    """Return `array` as compiled code reads it: C-ordered, aligned, float32 or the bits of float16 as uint16.

    Arrays are copied only if they are not C-ordered and aligned.

    Raises:
        UsageError: not an array of float32 or float16.
    """
    if not isinstance(array, np.ndarray):
        raise expected(name, f"{shape} array of float32 or float16", type(array).__name__)
    dtype = array.dtype
    if dtype.char not in "fe" or not dtype.isnative:
        raise expected(name, f"{shape} float32 or float16", array)
    flags = array.flags
    source = np.asarray(array) if flags.c_contiguous and flags.aligned else np.array(array)
    return source if dtype.char == "f" else source.view(np.uint16)


WINDOW_SHAPE = f"(n_times, {len(CHANNELS)})"


def as_window(window: Any) -> NDArray[Any]:
    """Return one EEG window as compiled code reads it.

    Raises:
        UsageError: not (n_times, 20) float32 or float16.
    """
    source = as_source(window, "eeg_uv", WINDOW_SHAPE)
    if source.ndim != 2 or source.shape[1] != len(CHANNELS):
        raise expected("eeg_uv", f"windows of {WINDOW_SHAPE}", window)
    return source


def as_windows(eeg_uv: Any) -> list[NDArray[Any]]:
    """Return EEG windows of one length as compiled code reads them.

    Raises:
        UsageError: neither (B, n_times, 20) nor a sequence of (n_times, 20), or windows of several lengths.
    """
    if isinstance(eeg_uv, np.ndarray) and eeg_uv.ndim != 3:
        raise expected("eeg_uv", f"(B, n_times, {len(CHANNELS)})", eeg_uv)
    windows = [as_window(window) for window in eeg_uv]
    for window in windows:
        if len(window) != len(windows[0]):
            raise expected("eeg_uv", f"windows of one length, {len(windows[0])} as the first", window)
    return windows


def empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an unfilled float32 array that begins at a cache line: the best kind of `out`.

    NumPy's own arrays begin at any 16 bytes, so that every other vector straddles two lines, which costs up to a
    quarter of the speed.
    """
    size = math.prod(shape)
    buffer = np.empty(size + LINE, np.float32)
    start = -(buffer.ctypes.data // buffer.itemsize) % LINE
    return buffer[start : start + size].reshape(shape)


def output(out: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return `out` if it can be written to, or a new array where it is None.

    Raises:
        UsageError: another shape or dtype, not C-contiguous, or read-only.
    """
    if out is None:
        return empty(shape)
    if not isinstance(out, np.ndarray):
        raise expected("out", f"a float32 array of shape {shape}", type(out).__name__)
    if out.shape != shape or out.dtype.char != "f" or not out.dtype.isnative:
        raise expected("out", f"float32 of shape {shape}", out)
    if not out.flags.carray:  # C-contiguous, aligned and writable
        raise expected(
            "out", "a C-contiguous, aligned, writable array", f"strides {out.strides}, flags {_flags(out)}"
        )
    # Compiled code takes plain arrays only, and a memory map is a subclass of them.
    return np.asarray(out)


Scratch = TypeVar("Scratch", bound=tuple[NDArray[np.float32], ...])


class Pool(Generic[Scratch]):
    """Scratch memory that threads borrow: arrays of zeros at first, then as the last borrower left them.

    Args:
        kind: named tuple of the arrays that are borrowed together.
    """

    def __init__(self, kind: Callable[..., Scratch]) -> None:
        self._kind = kind
        self._idle: dict[tuple[int, ...], list[Scratch]] = {}

    def borrow(self, **sizes: int) -> Scratch:
        """Return flat arrays of the given sizes, which the caller has to itself until it gives them back.

        Args:
            sizes: the size of each array, in the order of the named tuple.
        """
        try:
            return self._idle[tuple(sizes.values())].pop()
        except (KeyError, IndexError):
            return self._kind(**{name: _zeros(size) for name, size in sizes.items()})

    def give_back(self, arrays: Scratch) -> None:
        """Keep `arrays` for the next borrower; only a few combinations of sizes are kept."""
        sizes = tuple(array.size for array in arrays)
        if sizes not in self._idle and len(self._idle) >= _KEPT_SIZES:
            self._idle.clear()
        self._idle.setdefault(sizes, []).append(arrays)


def _zeros(size: int) -> NDArray[np.float32]:
    array = empty((size,))
    array.fill(0)
    return array


_KEPT_SIZES = 8


def as_they_are(source: Any, out: Any) -> bool:
    """Return whether both are float32 arrays of one shape that compiled code takes as they are.

    This is the usual case, tested in one expression: a call every few milliseconds finds the caches full of other
    things, and then the checks of `as_source` and `output`, one by one, cost as much as the work itself.
    """
    return (
        type(source) is np.ndarray
        and type(out) is np.ndarray
        and source.dtype is FLOAT32
        and out.dtype is FLOAT32
        and source.shape == out.shape
        and source.flags.carray
        and out.flags.carray
    )


def _flags(array: NDArray[Any]) -> str:
    names = {"c_contiguous": "C-contiguous", "aligned": "aligned", "writeable": "writable"}
    return ", ".join(f"{'' if getattr(array.flags, flag) else 'not '}{name}" for flag, name in names.items())


def spread(work: Callable[[int], object], n_items: int, threads: int) -> None:
    """Call `work(i)` for each of `n_items`, in this thread or shared by several.

    Raises:
        UsageError: fewer than one thread.
    """
    if threads < 1:
        raise expected("threads", "1 or more", threads)
    if threads == 1 or n_items <= 1:
        for i in range(n_items):
            work(i)
        return
    items = iter(range(n_items))  # taken by any thread that is free; `next` holds the GIL

    def take() -> None:
        for i in items:
            work(i)

    # This thread works too: it has a core already, and fewer threads are left to the scheduler to place.
    others = min(threads, n_items) - 1
    with ThreadPoolExecutor(others, thread_name_prefix="features") as pool:
        running = [pool.submit(take) for _ in range(others)]
        take()
        for other in running:
            other.result()


def for_each(
    eeg_uv: Any,
    out: Any,
    threads: int,
    shape_of: Callable[[int], tuple[int, ...]],
    run: Callable[[NDArray[Any], NDArray[np.float32]], object],
) -> NDArray[np.float32]:
    """Call `run(window, image)` for every window of a batch, or for a single one.

    Args:
        eeg_uv: (B, n_times, 20), a sequence of windows, or one (n_times, 20) window.
        out: (B, *shape_of(n_times)), without B for one window, or None for a new array.
        threads: number of Python threads that share the windows.
        shape_of: n_times → the shape of an image.
        run: computes one image.

    Returns:
        the (B, …) images, without B for one window.

    Raises:
        UsageError: windows, `out` or `threads` that cannot be used.
    """
    if isinstance(eeg_uv, np.ndarray) and eeg_uv.ndim == 2:
        window = as_window(eeg_uv)
        image = output(out, shape_of(len(window)))
        run(window, image)
        return image
    windows = as_windows(eeg_uv)
    images = output(out, (len(windows), *shape_of(len(windows[0]) if windows else N_TIMES)))
    spread(lambda i: run(windows[i], images[i]), len(windows), threads)
    return images
