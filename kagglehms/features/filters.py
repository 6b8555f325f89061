"""The band-pass filters of raw-signal images, 0.5 to 20 Hz at 200 Hz, and their coefficients.

causal
    Butterworth of order 2 (four poles), from rest, as `scipy.signal.sosfilt` runs it. Two cascaded biquads in float32
    would be inaccurate: poles at 0.5 Hz lie within 0.011 of z = 1, and a direct form rounds their *polynomial*,
    whose value there is 2.5e-4, so that 12 of 24 bits are lost. Here the transfer function is split into partial
    fractions,

        H(z) = d + Σ r / (z − p),    y(n) = d x(n) + Σ 2 Re(r s(n)),    s(n + 1) = p s(n) + x(n),

    one complex state for each of the two conjugate pairs. A state turns and shrinks, rounding is not amplified by more
    than the memory of the filter, and no coefficient nearly cancels another. `d` is set so that the answer to a
    constant is exactly zero, with the other coefficients as they are rounded. Thirteen multiply-adds instead of ten,
    all in float32: errors stay below `CAUSAL_ERROR` of the greatest input.

linear
    Linear phase, hence no delay, by a window design with Hamming windows: a low-pass whose transition is 20 … 25 Hz
    minus a low-pass whose transition is 0 … 0.5 Hz. A Hamming window needs 3.3 / (transition in cycles per sample)
    samples, 133 and 1,321. This is what `mne.filter.create_filter(None, 200, 0.5, 20, fir_design="firwin")` designs
    with its own defaults. Beyond both ends the signal is continued by an odd reflection (2 x(0) − x(k)), which has
    neither step nor kink, and by zeros where a window is shorter than 661 samples: `pad="reflect_limited"` of MNE.

    The long low-pass is not computed by convolution. What passes it lies below half a hertz, so that 33 samples of it
    have four dimensions, to within 2.4e-7: a Toeplitz matrix in blocks of 33 × 33 is B C B', one basis B for all blocks
    and a 4 × 4 matrix C for each distance. Each block of samples is projected once, the coordinates are combined, and
    each block of outputs is made of four numbers. Only the last block on either side, where the window ends, is
    computed tap by tap. 63 products a sample instead of 1,321, besides the 133 of the short low-pass.

SciPy designs both when they are first used.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.features.jit import Table

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FilterName = Literal["none", "causal", "linear"]
FILTERS: tuple[FilterName, ...] = get_args(FilterName)
NONE, CAUSAL, LINEAR = range(len(FILTERS))
"""The filters as compiled code numbers them."""

BAND_HZ = (0.5, 20.0)
"""Lower and upper edge of the pass band."""
STOP_HZ = (0.0, 25.0)
"""Edges of the stop bands of the linear filter, below and above."""
HAMMING_LENGTH = 3.3
"""Length of a Hamming window times the width of the transition that it makes, in samples × cycles per sample."""
CAUSAL_ERROR = 5e-6
"""Greatest error of the causal filter in float32, relative to its greatest input."""


class Filter(NamedTuple):
    """A filter as compiled code reads it; tables that its kind does not use are a single 0.

    Attributes:
        kind: `NONE`, `CAUSAL` or `LINEAR`.
        pad: number of samples beyond either end of the signal that it reads.
        modes: (9,) coefficients of the causal filter: the direct path, and for either mode real and imaginary part of
            its pole and weights of its state's parts.
        short: taps of the linear filter's short low-pass, with `MARGIN` zeros on both sides.
        basis: flat (BLOCK, RANK) basis of what passes the long low-pass.
        coupling: flat (2·REACH − 1, RANK, RANK) contribution of a block to another, by their distance: from the
            coordinates of the one to those of the other.
        end: the last BLOCK taps of the long low-pass, from its very end inwards, two zeros on both sides.
    """

    kind: int
    pad: int
    modes: Table
    short: Table
    basis: Table
    coupling: Table
    end: Table


_UNUSED = np.zeros(1, np.float32)
NO_FILTER = Filter(NONE, 0, _UNUSED, _UNUSED, _UNUSED, _UNUSED, _UNUSED)


@functools.cache
def design(name: FilterName) -> Filter:
    """Derive the coefficients of a filter."""
    if name == "linear":
        return Filter(LINEAR, PAD, _UNUSED, *_linear_tables())
    return causal(*BAND_HZ) if name == "causal" else NO_FILTER


# ---- causal


def causal(low_hz: float, high_hz: float) -> Filter:
    """Derive the coefficients of a causal filter.

    Args:
        low_hz: lower edge (−3 dB) of the band.
        high_hz: upper edge (−3 dB) of the band.
    """
    from scipy.signal import butter

    zeros, poles, gain = butter(2, (low_hz, high_hz), "bandpass", fs=SFREQ_HZ, output="zpk")
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
    return NO_FILTER._replace(kind=CAUSAL, modes=coefficients)


# ---- linear, the long low-pass in blocks

BLOCK = 33
"""Samples of a block; 660, half the long low-pass, is twenty of them."""
REACH = 20
"""Blocks that the long low-pass reaches on either side, of the last only a triangle."""
RANK = 4
"""Dimensions of what passes the long low-pass, in one block: the fifth singular value is 2.4e-7 of the first."""
N_SHORT = 133
"""Taps of the short low-pass."""
PAD = BLOCK * REACH
"""Samples beyond either end that the filter reads."""
MARGIN = 7
"""Zeros on both sides of the short low-pass, so that eight neighbouring outputs can read the same samples."""


@functools.cache
def linear_taps() -> F64:
    """Return the (1321,) impulse response of the linear filter."""
    short, long = _low_passes()
    taps = -long
    taps[PAD - N_SHORT // 2 : PAD + N_SHORT // 2 + 1] += short
    return taps


def _low_passes() -> tuple[F64, F64]:
    """Return the impulse responses of the short low-pass and of the long one."""
    short, long = (low_pass(*edges) for edges in zip(BAND_HZ[::-1], STOP_HZ[::-1], strict=True))
    return short, long


def low_pass(edge_hz: float, other_edge_hz: float) -> F64:
    """Design the impulse response of a low-pass whose transition lies between two frequencies."""
    from scipy.signal import firwin

    width_hz, middle_hz = abs(edge_hz - other_edge_hz), (edge_hz + other_edge_hz) / 2
    length = round(HAMMING_LENGTH / (width_hz / SFREQ_HZ))
    taps: F64 = firwin(length + 1 - length % 2, middle_hz, window="hamming", fs=SFREQ_HZ)
    return taps


def _linear_tables() -> tuple[F32, F32, F32, F32]:
    """Return `short`, `basis`, `coupling` and `end` of `Filter`."""
    short, long = _low_passes()
    distances = np.arange(1 - REACH, REACH)[:, None, None] * BLOCK
    lags = np.arange(BLOCK) - np.arange(BLOCK)[:, None] + distances  # of a sample (last axis) after an output
    blocks = long[PAD + lags]
    left = np.linalg.svd(blocks.transpose(1, 0, 2).reshape(BLOCK, -1), full_matrices=False)[0]
    basis = left[:, :RANK].astype(np.float32)
    inverse = np.linalg.pinv(basis.astype(np.float64))
    coupling = inverse @ blocks @ inverse.T  # (distance, coordinate of the output, coordinate of the samples)
    parts = np.pad(short, MARGIN), basis, coupling.transpose(0, 2, 1), np.pad(long[:BLOCK], 2)
    short_, basis_, coupling_, end = (part.reshape(-1).astype(np.float32) for part in parts)
    return short_, basis_, coupling_, end
