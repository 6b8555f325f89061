"""EEG window → the differences of neighbouring electrodes, as a network for raw signals takes them.

Rows
    Sixteen differences of the double banana, four of each chain, chains in the order LL, RL, LP, RP; with `midline`
    also Fz−Cz and Cz−Pz. A reference that all electrodes share cancels in them. Mirrored, the electrodes of the left
    and the right hemisphere are exchanged: rows of LL with those of RL, of LP with those of RP; the midline stays.

What happens to a difference, in this order
    1. Missing samples (NaN or ±inf in either electrode) become the mean of those present; 0 where none is.
    2. Clip to ±`clip_uv`, divide by `scale_uv`.
    3. Filter (`kagglehms.features.filters`).
    4. Keep every `step`-th sample, the first included.

    Clipping comes *before* the filter. A popping electrode makes a spike of tens of millivolts, which a filter spreads
    over a second and more (the band begins at 0.5 Hz), at a strength that no clip behind the filter could take away
    without cutting the EEG under it as well. Before the filter the clip bounds the spike while it is still short,
    and the filter is given nothing greater than `clip_uv` / `scale_uv`, which is what bounds its error. The price: an
    electrode whose offset exceeds `clip_uv` for the whole window shows nothing.

    A `step` above 1 without a filter folds whatever is above the new Nyquist frequency into the band.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import MIDLINE_DIFFERENCES, N_TIMES
from kagglehms.errors import UsageError
from kagglehms.features.arrays import Pool, as_window, as_windows, expected, output, spread
from kagglehms.features.differences_compiled import (
    CAUSAL,
    LINEAR,
    NONE,
    difference_rows,
)
from kagglehms.features.filters import (
    BLOCK,
    FILTERS,
    PAD,
    RANK,
    REACH,
    FilterName,
    causal_coefficients,
    linear_coefficients,
)
from kagglehms.features.filters_compiled import OUTPUTS
from kagglehms.features.simd import LANES


@dataclass(frozen=True)
class DifferenceSpec:
    """What is done to differences that stay signals.

    Attributes:
        filter: `none`; `causal`, Butterworth 0.5–20 Hz of order 2; `linear`, zero-phase FIR 0.5–20 Hz.
        step: every how many samples one is kept; 2 means 100 Hz.
        clip_uv: differences are clipped to plus or minus this, µV.
        scale_uv: what they are divided by, µV.
        midline: whether Fz−Cz and Cz−Pz follow the sixteen differences of the chains.

    Raises:
        UsageError: a value that cannot be used.
    """

    filter: FilterName = "causal"
    step: int = 1
    clip_uv: float = 1024.0
    scale_uv: float = 32.0
    midline: bool = False

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        check_signal(self)

    @property
    def n_signals(self) -> int:
        """16, or 18 with the midline."""
        return LANES + len(MIDLINE_DIFFERENCES) * self.midline

    @property
    def shape(self) -> tuple[int, int]:
        """(n_signals, samples kept) of a window of 50 s."""
        return self.shape_of(N_TIMES)

    def shape_of(self, n_times: int) -> tuple[int, int]:
        """(n_signals, samples kept) of a window of `n_times` samples.

        Raises:
            UsageError: an empty window.
        """
        if n_times < 1:
            raise expected("eeg_uv", "1 sample or more", n_times)
        return self.n_signals, -(-n_times // self.step)


def difference_signals(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
    spec: DifferenceSpec | None = None,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Compute the differences of many windows of one length, or of one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20) float32 or float16, µV, channels in the competition's order; or a
            sequence of B windows. Missing samples are NaN; ±inf counts as NaN.
        out: (B, n_signals, ⌈n_times / step⌉) float32, C-contiguous; without B for one window.
        threads: how many Python threads share the windows.
        spec: filter, step, clip and scale; the default of `DifferenceSpec` where it is None.
        mirror: whether left and right are exchanged.

    Returns:
        (B, n_signals, ⌈n_times / step⌉) float32, in units of `scale_uv`; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    given = spec or DifferenceSpec()
    return of_all(
        eeg_uv, out, threads, given.shape_of, lambda w, o: rows_into(w, o, given, 1, given.midline, mirror)
    )


def differences_into(
    eeg_uv_TC: NDArray[Any],
    out_CT: NDArray[np.float32],
    spec: DifferenceSpec,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Compute the differences of one window in this thread: the feed's entry.

    Scratch memory is kept and used again, by any thread.

    Args:
        eeg_uv_TC: (n_times, 20) float32 or float16, µV, for example a slice of a memory map.
        out_CT: (n_signals, ⌈n_times / step⌉) float32, C-contiguous.
        spec: filter, step, clip and scale.
        mirror: whether left and right are exchanged.

    Returns:
        `out_CT`.

    Raises:
        UsageError: a shape, a dtype or an `out_CT` that cannot be used.
    """
    window = as_window(eeg_uv_TC)
    rows_into(window, output(out_CT, spec.shape_of(len(window))), spec, 1, spec.midline, mirror)
    return out_CT


# ---- what the folded image does as well


class SignalSpec(Protocol):
    """What is done to a difference before it becomes rows of an image."""

    @property
    def filter(self) -> FilterName: ...

    @property
    def step(self) -> int: ...

    @property
    def clip_uv(self) -> float: ...

    @property
    def scale_uv(self) -> float: ...


def check_signal(spec: SignalSpec) -> None:
    """Refuse what cannot be done.

    Raises:
        UsageError: an unknown filter, a step below 1, a clip or scale that is no positive number.
    """
    checks = {
        f"filter: expected one of {', '.join(FILTERS)}": spec.filter in FILTERS,
        "step: expected a whole number, 1 or more": isinstance(spec.step, int) and spec.step >= 1,
        "clip_uv and scale_uv: expected finite numbers above 0": 0 < spec.clip_uv < float("inf")
        and 0 < spec.scale_uv < float("inf"),
    }
    for what, holds in checks.items():
        if not holds:
            raise UsageError(f"{type(spec).__name__}.{what}, got {spec}")


def of_all(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None,
    threads: int,
    shape_of: Any,
    run: Any,
) -> NDArray[np.float32]:
    """Call `run(window, image)` for every window of a batch, or for the only one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20), or a sequence of windows.
        out: (B, *shape_of(n_times)), or without B for one window; None for a new array.
        threads: how many Python threads share the windows.
        shape_of: n_times → the shape of an image.
        run: what computes one image.

    Returns:
        the images, or the only one.
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


def rows_into(
    window: NDArray[Any],
    image: NDArray[np.float32],
    spec: SignalSpec,
    phases: int,
    midline: bool,
    mirror: bool,
) -> None:
    """Write rows `phases`·c + p of `image`: of the kept samples of difference c every `phases`-th, from the p-th on.

    Args:
        window: (n_times, 20), as `as_window` returns it.
        image: (phases · n_signals, columns), as `output` returns it.
        spec: what is done to a difference.
        phases: rows of the image that a difference takes.
        midline: whether the two differences of the midline follow.
        mirror: whether left and right are exchanged.
    """
    n_times, width = len(window), image.shape[1]
    filter_, coefficients, pad = _filter(spec.filter)
    n_blocks = -(-n_times // BLOCK) if filter_ == LINEAR else 0
    scratch = _pool.borrow(
        (n_times + 2 * pad + BLOCK) * LANES,
        max(n_blocks * BLOCK, OUTPUTS) * LANES,
        (n_blocks + 2 * REACH) * RANK * LANES,
    )
    for group in range(1 + midline):
        difference_rows(
            window.reshape(-1), image.reshape(-1), *scratch, coefficients, n_times, pad, filter_,
            group * LANES * phases, width, phases, spec.step, bool(group), mirror, spec.clip_uv, 1 / spec.scale_uv,
        )  # fmt: skip
    _pool.give_back(scratch)


_pool = Pool()


@functools.cache
def _filter(name: FilterName) -> tuple[int, NDArray[np.float32], int]:
    """Return what compiled code knows of a filter: its number, its coefficients, its reach on either side."""
    if name == "causal":
        return CAUSAL, causal_coefficients(), 0
    if name == "linear":
        return LINEAR, linear_coefficients(), PAD
    return NONE, np.zeros(1, np.float32), 0
