"""Any sampling rate → 200 Hz by SciPy's polyphase filter, in blocks that join without a seam.

The filter is a windowed sinc (Kaiser, β = 8) that reaches over 16 samples of the slower of the two rates to either
side, its half-amplitude frequency half of the slower rate. Each of its phases is scaled to a sum of exactly one:
otherwise a constant would come out with a ripple of 1e-4 of itself, and amplifiers without a high-pass have offsets of
tens of millivolts. At 200 Hz samples pass through unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import SFREQ_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 16
"""Samples of the slower rate that the filter sees to either side."""
KAISER_BETA = 8.0
_EXACT_UP_TO = 2048
"""Ratios of rates up to this denominator are taken as they are; the filter is so many times its reach long."""
LEAST_RATE_HZ = 40
"""Below it there is nothing of the 20 Hz up to which models look."""
MOST_RATE_HZ = 100_000
"""Beyond it a header is wrong: no amplifier samples an EEG so often."""


@dataclass(frozen=True)
class Resampler:
    """From one rate to 200 Hz.

    Attributes:
        up: samples of 200 Hz in the time of `down` samples of the other rate.
        down: see `up`.
        n_in: samples of the stretch that is resampled.
    """

    up: int
    down: int
    n_in: int

    @classmethod
    def of(cls, rate_hz: Fraction, n_in: int) -> Resampler:
        """Take the ratio of the rates; of odd rates, the simplest that puts no sample half a sample off its place.

        Args:
            rate_hz: samples per second of the recording.
            n_in: samples of the stretch.
        """
        exact = SFREQ_HZ / rate_hz
        bound = _EXACT_UP_TO
        ratio = exact.limit_denominator(bound)
        while abs(ratio - exact) * n_in > Fraction(1, 2):
            bound *= 2
            ratio = exact.limit_denominator(bound)
        return cls(ratio.numerator, ratio.denominator, n_in)

    @property
    def n_out(self) -> int:
        """Samples at 200 Hz that lie within the stretch."""
        return (self.n_in - 1) * self.up // self.down + 1 if self.n_in else 0

    def needs(self, first: int, stop: int) -> tuple[int, int]:
        """Return which samples of the stretch, from and to before, make outputs `first` … `stop` − 1."""
        if self.up == self.down:
            return first, stop
        low, high = self._reach(first, stop)
        return max(low, 0), min(high, self.n_in)

    def __call__(self, values: NDArray[np.float64], first: int, stop: int) -> NDArray[np.float64]:
        """Resample a block.

        Args:
            values: the samples that `needs` named; NaN where nothing was recorded.
            first: the first output.
            stop: the output after the last.

        Returns:
            (stop − first,) the same numbers as of the whole stretch at once; beyond its ends its first and last value
            are taken to go on. NaN where the nearest sample is missing.
        """
        if self.up == self.down:
            return values
        from scipy.signal import resample_poly

        low, high = self._reach(first, stop)
        begin, end = self.needs(first, stop)
        missing = np.isnan(values)
        if missing.all():
            return np.full(stop - first, np.nan)
        whole = _bridged(values, missing)
        padded = np.pad(whole, (begin - low, high - end), mode="edge")
        taps = _taps(self.up, self.down)
        offset = low * self.up // self.down
        resampled = resample_poly(padded, self.up, self.down, window=taps)[first - offset : stop - offset]
        if missing.any():
            nearest = (np.arange(first, stop) * self.down + self.up // 2) // self.up
            resampled[missing[np.clip(nearest - begin, 0, len(values) - 1)]] = np.nan
        return resampled

    def _reach(self, first: int, stop: int) -> tuple[int, int]:
        """The samples that the filter sees, beyond the ends too; the first at a place that both rates have."""
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


def _bridged(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Straight lines where samples are missing, so that the filter has something to see."""
    if not missing.any():
        return values
    at = np.arange(len(values))
    return np.interp(at, at[~missing], values[~missing])
