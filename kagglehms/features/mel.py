"""EEG window → four mel images.

TODO-PAGE
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.errors import UsageError
from kagglehms.features.arrays import as_source, expected, output, spread
from kagglehms.features.mel_kernel import BLOCK, FRAMES, LANES, N_CHANNELS, N_PANELS, mel_image
from kagglehms.features.mel_plan import MelPlan, plan
from kagglehms.features import plain


@dataclass(frozen=True)
class MelSpec:
    n_fft: int = 1024
    win_length: int = 128
    n_mels: int = 128
    fmin: float = 0.0
    fmax: float = 20.0
    sfreq: float = SFREQ_HZ
    n_frames: int = 256
    tolerance: float = 2e-6


class MelScratch:
    def __init__(self, n_times: int, spec: MelSpec) -> None:
        p = plan(spec)
        self.plan = p
        self.hop = n_times // spec.n_frames
        n_all = 1 + n_times // self.hop
        self.arrays = (
            _aligned((n_times + 2 * p.half) * LANES),
            _aligned(p.half * 2 * LANES),
            _aligned(FRAMES * p.rank * 2 * LANES),
            _aligned(n_all * p.n_bins * LANES),
            _aligned(spec.n_mels * BLOCK * N_PANELS),
        )
        self.sizes = (n_times, self.hop, spec.n_frames, p.half, p.rank, p.n_bins, spec.n_mels, p.n_taps)
        self.coefs = (p.project, p.transform, p.band_start, p.band_weight)
    def run(self, flat_in, flat_out):
        mel_image(flat_in, flat_out, *self.arrays, *self.coefs, *self.sizes)

def _aligned(size: int) -> NDArray[np.float32]:
    buffer = np.zeros(size + 16, np.float32)
    start = -(buffer.ctypes.data // 4) % 16
    return buffer[start : start + size]
