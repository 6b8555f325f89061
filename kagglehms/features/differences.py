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
    over a second and more (the band begins at 0.5 Hz), at an amplitude that no clip after the filter could remove
    without cutting the EEG beneath it as well. Before the filter, the clip limits the spike while it is still short,
    and no input of the filter exceeds `clip_uv` / `scale_uv`, which bounds its error. The price: an electrode whose
    offset exceeds `clip_uv` for the whole window shows nothing.

    A `step` above 1 without a filter folds frequencies above the new Nyquist frequency into the band.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features import differences_compiled, plain_signals
from kagglehms.features.arrays import Pool, for_each
from kagglehms.features.differences_compiled import DifferenceScratch
from kagglehms.features.differences_plan import DifferenceSpec, Rows, SignalSpec, plan
from kagglehms.features.filters import BLOCK, LINEAR, RANK, REACH
from kagglehms.features.filters_compiled import OUTPUTS
from kagglehms.features.jit import Compiled
from kagglehms.features.simd import LANES

__all__ = ["DifferenceSpec", "difference_signals", "rows_into"]


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
        threads: number of Python threads that share the windows.
        spec: filter, step, clip and scale; the default of `DifferenceSpec` if None.
        mirror: whether left and right are exchanged.

    Returns:
        (B, n_signals, ⌈n_times / step⌉) float32, in units of `scale_uv`; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    given = spec or DifferenceSpec()

    def run(window: NDArray[Any], image: NDArray[np.float32]) -> None:
        rows_into(window, image, given, Rows(image.shape[1], 1, given.midline), mirror)

    return for_each(eeg_uv, out, threads, given.shape_of, run)


_compute = Compiled(differences_compiled.difference_rows, plain_signals.difference_rows)
_pool = Pool(DifferenceScratch)


def rows_into(
    window: NDArray[Any], image: NDArray[np.float32], spec: SignalSpec, rows: Rows, mirror: bool
) -> None:
    """Write differences as rows of an image, for signals and for folded images.

    Args:
        window: (n_times, 20), as `as_window` returns it.
        image: (phases · n_signals, width), as `output` returns it.
        spec: what is done to a difference.
        rows: how the differences become rows.
        mirror: whether left and right are exchanged.
    """
    n_times, signal = len(window), plan(spec)
    n_blocks = -(-n_times // BLOCK) if signal.filter.kind == LINEAR else 0
    scratch = _pool.borrow(
        lanes=(n_times + 2 * signal.filter.pad + BLOCK) * LANES,
        filtered=max(n_blocks * BLOCK, OUTPUTS) * LANES,
        moments=(n_blocks + 2 * REACH) * RANK * LANES,
    )
    _compute(window.reshape(-1), image.reshape(-1), scratch, signal, rows, mirror)
    _pool.give_back(scratch)
