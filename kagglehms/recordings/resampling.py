"""Resample any rate to 200 Hz with SciPy's polyphase filter, in blocks that join seamlessly.

The filter is a windowed sinc (Kaiser, β = 8) that extends over 16 samples of the slower of both rates to either side;
its half-amplitude frequency is half of the slower rate. Each of its phases is scaled to a sum of exactly one: otherwise
a constant would get a ripple of 1e-4 of its size, and amplifiers without a high-pass filter have offsets of tens of
millivolts. At 200 Hz samples pass unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.data.gaps import bridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 16
"""Samples of the slower rate that the filter extends over to either side."""
KAISER_BETA = 8.0
_EXACT_UP_TO = 2048
"""Denominator up to which ratios of rates are exact; the filter's length grows with it."""
LEAST_RATE_HZ = 40
"""Rate at and below which a recording lacks frequencies up to 20 Hz, which models use."""
MOST_RATE_HZ = 100_000
"""Rate above which the header must be wrong: no amplifier samples an EEG so fast."""


@dataclass(frozen=True)
class Resampler:
    """A conversion from one rate to 200 Hz.

    Attributes:
        up: samples at 200 Hz in the time of `down` samples at the other rate.
        down: samples at the other rate in the time of `up` samples at 200 Hz.
        n_in: number of samples of the stretch that is resampled.
        n_out: number of samples at 200 Hz within the stretch, which lasts as long as its samples' periods together.
    """

    up: int
    down: int
    n_in: int
    n_out: int

    @classmethod
    def of(cls, rate_hz: Fraction, n_in: int) -> Resampler:
        """Choose the ratio of the rates; for odd rates, the simplest that moves no sample by more than half a sample.

        Args:
            rate_hz: samples per second of the recording.
            n_in: number of samples of the stretch.
        """
        exact = SFREQ_HZ / rate_hz
        bound = _EXACT_UP_TO
        ratio = exact.limit_denominator(bound)
        while abs(ratio - exact) * n_in > Fraction(1, 2):
            bound *= 2
            ratio = exact.limit_denominator(bound)
        return cls(ratio.numerator, ratio.denominator, n_in, n_in if ratio == 1 else ceil(n_in * exact))

    def needs(self, first: int, stop: int) -> tuple[int, int]:
        """Return the first sample, and the one after the last, that outputs `first` … `stop` − 1 depend on."""
        if self.up == self.down:
            return first, stop
        low, high = self._reach(first, stop)
        return max(low, 0), min(high, self.n_in)

    def __call__(self, values: NDArray[np.float64], first: int, stop: int) -> NDArray[np.float64]:
        """Resample a block.

        Args:
            values: samples in the range that `needs` returns; NaN where nothing was recorded.
            first: first output.
            stop: output after the last one.

        Returns:
            (stop − first,) the same numbers as if the whole stretch were resampled at once, with its first and last
            values continued beyond its ends; NaN where the nearest sample is missing.
        """
        if self.up == self.down:
            return values
        from scipy.signal import resample_poly

        low, high = self._reach(first, stop)
        begin, end = self.needs(first, stop)
        whole = np.array(values)
        (missing,) = bridge(whole[None])
        if missing.all():
            return np.full(stop - first, np.nan)
        padded = np.pad(whole, (begin - low, high - end), mode="edge")
        taps = _taps(self.up, self.down)
        offset = low * self.up // self.down
        resampled = resample_poly(padded, self.up, self.down, window=taps)[first - offset : stop - offset]
        if missing.any():
            nearest = (np.arange(first, stop) * self.down + self.up // 2) // self.up
            resampled[missing[np.clip(nearest - begin, 0, len(values) - 1)]] = np.nan
        return resampled

    def _reach(self, first: int, stop: int) -> tuple[int, int]:
        """The range of the filter, which may exceed the stretch; it begins at a time that is on both grids."""
        half = REACH * max(self.up, self.down)
        low = (first * self.down - half) // self.up // self.down * self.down
        high = -(-((stop - 1) * self.down + half) // self.up) + 1
        return low, high


@lru_cache(maxsize=16)
def _taps(up: int, down: int) -> NDArray[np.float64]:
    """The filter at `up` times the recording's rate; each phase sums to 1 / up, as `resample_poly` multiplies by up."""
    from scipy.signal import firwin

    slower = max(up, down)
    taps = firwin(2 * REACH * slower + 1, 1 / slower, window=("kaiser", KAISER_BETA))
    for phase in range(up):
        taps[phase::up] /= up * taps[phase::up].sum()
    return taps
