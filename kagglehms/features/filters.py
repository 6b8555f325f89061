"""The band-pass filters of raw-signal images, 0.5 to 20 Hz at 200 Hz, and their coefficients.

causal
    Butterworth of order 2 (four poles), from rest, as `scipy.signal.sosfilt` runs it. Two cascaded biquads in float32
    would be a bad match for it: poles at 0.5 Hz lie within 0.011 of z = 1, and a direct form rounds their *polynomial*,
    whose value there is 2.5e-4, so that 12 of 24 bits are lost. Here the transfer function is split into partial
    fractions,

        H(z) = d + Σ r / (z − p),    y(n) = d x(n) + Σ 2 Re(r s(n)),    s(n + 1) = p s(n) + x(n),

    one complex state for each of the two conjugate pairs. A state turns and shrinks, rounding is not amplified by more
    than the memory of the filter, and no coefficient is close to cancelling another. `d` is set to what makes the
    answer to a constant exactly zero, with the other coefficients as they are rounded. Thirteen multiply-adds instead
    of ten, all in float32: errors stay below `CAUSAL_ERROR` of the greatest value that goes in.

linear
    Linear phase, hence no delay, by a window design with Hamming windows: a low-pass whose transition is 20 … 25 Hz
    minus a low-pass whose transition is 0 … 0.5 Hz. A Hamming window needs 3.3 / (transition in cycles per sample)
    samples, 133 and 1,321. This is what `mne.filter.create_filter(None, 200, 0.5, 20, fir_design="firwin")` designs
    with its own defaults. Beyond both ends the signal goes on as an odd reflection (2 x(0) − x(k)), which has neither
    step nor kink, and as zeros where a window is shorter than 660 samples: `pad="reflect_limited"` of MNE.

Both are designed by SciPy when they are first asked for.
"""

from __future__ import annotations

import functools
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import SFREQ_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FilterName = Literal["none", "causal", "linear"]
FILTERS: tuple[FilterName, ...] = get_args(FilterName)

BAND_HZ = (0.5, 20.0)
"""Where the pass band begins and ends."""
STOP_HZ = (0.0, 25.0)
"""Where the stop bands of the linear filter begin."""
HAMMING_LENGTH = 3.3
"""Length of a Hamming window times the width of the transition that it makes, in samples × cycles per sample."""
CAUSAL_ERROR = 5e-6
"""Greatest error of the causal filter in float32, relative to the greatest value that it is given."""


def causal_sections() -> F64:
    """(2, 6) second-order sections of the causal filter, as SciPy designs them."""
    from scipy.signal import butter

    sections: F64 = butter(2, BAND_HZ, "bandpass", fs=SFREQ_HZ, output="sos")
    return sections


@functools.cache
def causal_coefficients() -> F32:
    """(9,) the direct path, and for either mode: real and imaginary part of its pole, weights of its state's parts."""
    from scipy.signal import butter

    zeros, poles, gain = butter(2, BAND_HZ, "bandpass", fs=SFREQ_HZ, output="zpk")
    coefficients = np.zeros(9, np.float32)
    answer_to_constant = 0.0
    for at, pole in zip((1, 5), poles[poles.imag > 0], strict=True):
        residue = gain * np.prod(pole - zeros) / np.prod(pole - poles[poles != pole])
        mode = np.array([pole.real, pole.imag, 2 * residue.real, -2 * residue.imag], np.float32)
        coefficients[at : at + 4] = mode
        real, imag, real_weight, imag_weight = mode.astype(np.float64)
        state = 1 / (1 - complex(real, imag))
        answer_to_constant += real_weight * state.real + imag_weight * state.imag
    coefficients[0] = -answer_to_constant
    return coefficients


@functools.cache
def linear_taps() -> F64:
    """(1321,) impulse response of the linear filter."""
    low, high = (_low_pass(edges) for edges in zip(STOP_HZ, BAND_HZ, strict=True))
    taps = -low
    middle = (len(low) - len(high)) // 2
    taps[middle : middle + len(high)] += high
    return taps


def _low_pass(edges_hz: tuple[float, float]) -> F64:
    """Impulse response of a low-pass whose transition lies between two frequencies."""
    from scipy.signal import firwin

    first, last = sorted(edges_hz)
    length = round(HAMMING_LENGTH / ((last - first) / SFREQ_HZ))
    taps: F64 = firwin(length + 1 - length % 2, (first + last) / 2, window="hamming", fs=SFREQ_HZ)
    return taps
