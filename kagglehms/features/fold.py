"""EEG window → folded image: the raw signals of sixteen differences as an image that an ordinary network reads.

Ten neighbouring samples of a difference stand one below the other, the next ten in the next column:

    I[10·c + p, w] = x_c(10·w + p),    c = 0 … 15,  p = 0 … 9,  w = 0 … 999,

so that 16 signals of 10,000 samples become 160 × 1,000 pixels, each sample exactly once. A kernel of an image network
sees a short stretch of signal down a column and a long one along a row. `x_c` is a difference as
`kagglehms.features.differences` prepares it: gaps filled, clipped, scaled, filtered, every `step`-th sample kept; at
100 Hz and five phases the image is 80 × 1,000.

Source: the competition's second-placed solution folds its raw signals in this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import N_TIMES
from kagglehms.features.arrays import check_spec, expected, for_each
from kagglehms.features.differences import rows_into
from kagglehms.features.differences_plan import Rows, check_signal
from kagglehms.features.filters import FilterName
from kagglehms.features.simd import LANES


@dataclass(frozen=True)
class FoldSpec:
    """The resolution of a folded image, and what is done to a difference before that.

    Attributes:
        filter: `none`; `causal`, Butterworth 0.5–20 Hz of order 2; or `linear`, zero-phase FIR 0.5–20 Hz.
        step: samples from one that is kept to the next; 2 means 100 Hz.
        phases: kept samples that stand one below the other in a column.
        clip_uv: limit of a difference's magnitude, µV.
        scale_uv: divisor of a clipped difference, µV.

    Raises:
        UsageError: a value that cannot be used.
    """

    filter: FilterName = "causal"
    step: int = 1
    phases: int = 10
    clip_uv: float = 1024.0
    scale_uv: float = 32.0

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        check_signal(self)
        whole = isinstance(self.phases, int) and self.phases >= 1
        check_spec(self, {"phases: expected a whole number, 1 or more": whole})
        fits = N_TIMES % (self.step * self.phases) == 0
        check_spec(self, {f"step · phases: expected a divisor of {N_TIMES:,} samples": fits})

    @property
    def shape(self) -> tuple[int, int]:
        """(16 · phases, columns) of the image of 50 s."""
        return self.shape_of(N_TIMES)

    def shape_of(self, n_times: int) -> tuple[int, int]:
        """Return (16 · phases, columns) of the image of `n_times` samples.

        Raises:
            UsageError: a number of samples that does not fill whole columns.
        """
        column = self.step * self.phases
        if n_times < column or n_times % column:
            raise expected("eeg_uv", f"a multiple of step · phases = {column} samples", n_times)
        return LANES * self.phases, n_times // column


def folded_image(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
    spec: FoldSpec | None = None,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Compute the folded images of many windows of one length, or of one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20) float32 or float16, µV, channels in the competition's order; or a
            sequence of B windows. Missing samples are NaN; ±inf counts as NaN.
        out: (B, 16·phases, columns) float32, C-contiguous; without B for one window.
        threads: number of Python threads that share the windows.
        spec: filter, sampling and scale; the default of `FoldSpec` if None.
        mirror: whether left and right are exchanged.

    Returns:
        (B, 16·phases, columns) float32, in units of `scale_uv`; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    given = spec or FoldSpec()

    def run(window: NDArray[Any], image: NDArray[np.float32]) -> None:
        rows_into(window, image, given, Rows(image.shape[1], given.phases, with_midline=False), mirror)

    return for_each(eeg_uv, out, threads, given.shape_of, run)
