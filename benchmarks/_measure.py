"""What benchmarks share: contenders in turn, the limits of this machine, tables, and one JSON line at the end."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numpy.typing import NDArray

from kagglehms.environment import available_cpus
from kagglehms.features.simd import add, fma, splat16, store

MALLOC_TUNING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""glibc keeps the memory of large temporaries instead of returning it: worth a third to libraries that allocate."""


def machine() -> str:
    """Processor, instruction set as LLVM names it, cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    except OSError:
        names = set()
    name = " / ".join(sorted(names)) or platform.processor() or platform.machine()
    zen = {"znver1": "Zen", "znver2": "Zen 2", "znver3": "Zen 3", "znver4": "Zen 4", "znver5": "Zen 5"}
    cpu = binding.get_host_cpu_name()
    return f"{name} ({zen.get(cpu, cpu)}), {available_cpus()} cores"


def versions(*packages: str) -> str:
    """`python 3.11.9, numpy 2.4.6, …`, without what is not installed."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


WARM_CALLS = 8
"""As many as there are images in turn, see `features.py`."""


def in_turn(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    least_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run all contenders in every round, each round beginning with another; seconds of each run.

    What the neighbours of a shared machine do then falls on all of them alike, and ratios of medians hold.

    Args:
        contenders: what to run.
        rounds: how often.
        least_s: a contender's turn lasts so long; what takes less is called several times, and the mean counts, after
            a few calls that do not count. One call of some microseconds after another contender's milliseconds
            would measure whose data lie in the caches.
        clock: what is read. `time.thread_time` leaves out the time in which others had the core, which on a busy
            machine falls upon long calls alone, but for one thread only.
    """
    names = list(contenders)
    calls: dict[str, int] = {}
    for name in names:
        contenders[name]()
        # The fastest of a few: one slow call would otherwise make every turn a single cold call.
        fastest = min(_seconds(contenders[name], clock) for _ in range(5 if least_s else 1))
        calls[name] = max(1, round(least_s / fastest))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for _ in range(min(WARM_CALLS, calls[name] - 1)):
                contenders[name]()
            start = clock()
            for _ in range(calls[name]):
                contenders[name]()
            seconds[name].append((clock() - start) / calls[name])
    return seconds


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(runs) for name, runs in seconds.items()}


@numba.njit(nogil=True)
def _multiply_and_add(out: Any, repeats: int) -> None:
    """Six independent chains of 16 lanes: twelve registers of AVX2, enough to hide the latency of any processor."""
    factor, term = splat16(0.5), splat16(1.0)
    a = b = c = d = e = f = term
    for _ in range(repeats):
        a, b, c = fma(a, factor, term), fma(b, factor, term), fma(c, factor, term)
        d, e, f = fma(d, factor, term), fma(e, factor, term), fma(f, factor, term)
    store(out, 0, add(add(add(a, b), add(c, d)), add(e, f)))


PEAK_REPEATS = 200_000
PEAK_FLOP = PEAK_REPEATS * 6 * 16 * 2


def peak() -> None:
    """Do nothing but multiply-adds: `PEAK_FLOP` of them in one thread."""
    _multiply_and_add(np.empty(16, np.float32), PEAK_REPEATS)


def group_interval(
    values_N: NDArray[np.float64], groups_N: NDArray[np.integer], n_draws: int
) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the mean when whole groups are drawn with replacement."""
    names, places = np.unique(groups_N, return_inverse=True)
    sums, sizes = np.bincount(places, values_N), np.bincount(places)
    drawn = np.random.default_rng(0).integers(0, len(names), (n_draws, len(names)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def finish(figures: Mapping[str, Any]) -> None:
    """Print the one JSON line."""
    print(json.dumps(figures, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    if isinstance(value, (np.floating, np.integer, np.bool_)):
        return value.item()
    raise TypeError(type(value).__name__)


def aligned(shape: Sequence[int]) -> NDArray[np.float32]:
    """Zeros that begin at a page, touched, so that no contender pays for fresh memory."""
    size = int(np.prod(shape))
    buffer = np.zeros(size + 1024, np.float32)
    start = -(buffer.ctypes.data // 4) % 1024
    array = buffer[start : start + size].reshape(shape)
    array.fill(0)
    return array


def with_tuned_malloc(script: str, arguments: Sequence[str]) -> None:
    """Start this process again with `MALLOC_TUNING`, unless it has it."""
    if any(os.environ.get(name) != value for name, value in MALLOC_TUNING.items()):
        os.execve(sys.executable, [sys.executable, script, *arguments], {**os.environ, **MALLOC_TUNING})


def with_malloc_as_it_is(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the script in a process without `MALLOC_TUNING`; pass on what it prints and return its JSON line."""
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC_TUNING}
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    *lines, figures = done.stdout.splitlines()
    print("\n".join(lines))
    return json.loads(figures)
