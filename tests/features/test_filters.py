"""The filters: what SciPy designs, what MNE would, and how far float32 goes from float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles_signals as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import butter, freqz, sosfreqz

from kagglehms.features import DifferenceSpec, difference_signals
from kagglehms.features.filters import (
    BAND_HZ,
    CAUSAL_ERROR,
    causal,
    design,
    linear_taps,
)

N_TIMES = 10_000
LINEAR_ERROR = 5e-6
"""Of 1,321 products summed in float32, relative to the greatest value that is given."""


def filtered(x: NDArray[np.float64], name: Any) -> NDArray[np.float32]:
    """Send (n_times,) values through the first lane: a window whose first difference they are."""
    window = np.zeros((len(x), 20), np.float32)
    window[:, oracle.CHANNELS.index("Fp1")] = x
    return difference_signals(window, spec=DifferenceSpec(filter=name, clip_uv=1e9, scale_uv=1.0))[0]


# ---- design


@pytest.mark.parametrize("band_hz", [(0.5, 20.0), (2.0, 10.0), (0.5, 99.0)])
def test_partial_fractions_are_the_butterworth(band_hz: tuple[float, float]) -> None:
    w = np.exp(1j * 2 * np.pi * np.linspace(0, 100, 2001) / 200)
    direct, *modes = causal(*band_hz).modes.astype(np.float64)
    answer = np.full(w.shape, direct, complex)
    for real, imag, real_weight, imag_weight in np.reshape(modes, (2, 4)):
        pole, residue = real + 1j * imag, (real_weight - 1j * imag_weight) / 2
        answer += residue / (w - pole) + np.conj(residue) / (w - np.conj(pole))
    sections = butter(2, band_hz, "bandpass", fs=200, output="sos")
    wanted = sosfreqz(sections, np.linspace(0, 100, 2001), fs=200)[1]
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=4e-6)
    assert abs(answer[0]) < 1e-7  # a constant is taken away, not nearly so


def test_the_causal_filter_is_that_of_its_band() -> None:
    np.testing.assert_array_equal(design("causal").modes, causal(*BAND_HZ).modes)


def test_the_linear_filter_is_mnes_design() -> None:
    np.testing.assert_allclose(linear_taps(), oracle.linear_taps(), rtol=0, atol=1e-15)
    np.testing.assert_allclose(linear_taps(), linear_taps()[::-1], rtol=0, atol=1e-16)


def test_the_linear_filter_passes_its_band_and_stops_the_rest() -> None:
    hz, answer = freqz(linear_taps(), worN=20_000, fs=200)
    gain = np.abs(answer)
    inside = (hz >= 0.5) & (hz <= 20)
    assert np.abs(gain[inside] - 1).max() < 0.01
    assert gain[hz >= 25].max() < 0.01
    assert gain[0] < 0.01
    assert abs(gain[np.abs(hz - 22.5).argmin()] - 0.5) < 0.01


# ---- what float32 makes of them


SIGNALS = {
    "noise": np.random.default_rng(0).normal(0, 10, N_TIMES),
    "random walk": np.random.default_rng(1).normal(0, 1, N_TIMES).cumsum(),
    "constant": np.full(N_TIMES, 1024.0),
    "negative constant": np.full(N_TIMES, -1000 / 3),
    "step": np.repeat([0.0, 1024.0], N_TIMES // 2),
    "alternating": 500 * (-1.0) ** np.arange(N_TIMES),
    "0.5 Hz": 1000 * np.sin(np.pi * np.arange(N_TIMES) / 200),
    "20 Hz": 1000 * np.sin(2 * np.pi * 20 * np.arange(N_TIMES) / 200),
    "slow drift": np.linspace(-1024, 1024, N_TIMES),
    "impulse": np.eye(1, N_TIMES)[0] * 1024,
    "late impulse": np.eye(1, N_TIMES, N_TIMES - 1)[0],
    "denormal": np.full(N_TIMES, 1e-39),
    "short": np.random.default_rng(2).normal(0, 10, 5),
    "one sample": np.array([3.0]),
    "shorter than the linear filter": np.random.default_rng(3).normal(0, 10, 400),
    "as long as half of it": np.random.default_rng(4).normal(0, 10, 660),
    "and one more": np.random.default_rng(4).normal(0, 10, 661),
}


@pytest.mark.parametrize("kind", SIGNALS)
def test_causal_agrees_with_sosfilt_in_float64(kind: str) -> None:
    x = SIGNALS[kind].astype(np.float32).astype(np.float64)
    error = np.abs(filtered(x, "causal") - oracle.causal(x))
    assert error.max() <= CAUSAL_ERROR * np.abs(x).max()


@pytest.mark.parametrize("kind", SIGNALS)
def test_linear_agrees_with_a_convolution_in_float64(kind: str) -> None:
    x = SIGNALS[kind].astype(np.float32).astype(np.float64)
    error = np.abs(filtered(x, "linear") - oracle.linear(x[None])[0])
    assert error.max() <= LINEAR_ERROR * np.abs(x).max() + 1e-44


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 3000),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1.0, 1000.0]),
    st.sampled_from([0, 1, 100]),
)
def test_errors_stay_in_their_bounds(n_times: int, seed: int, offset: float, walk: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, n_times).cumsum() * walk + rng.standard_t(1.5, n_times) + offset
    x = x.astype(np.float32).astype(np.float64)
    size = np.abs(x).max()
    assert np.abs(filtered(x, "causal") - oracle.causal(x)).max() <= CAUSAL_ERROR * size
    assert np.abs(filtered(x, "linear") - oracle.linear(x[None])[0]).max() <= LINEAR_ERROR * size


def test_causal_knows_nothing_of_the_future() -> None:
    x = SIGNALS["noise"]
    later = np.concatenate([x[:5000], 1000 + SIGNALS["random walk"][5000:]])
    np.testing.assert_array_equal(filtered(later, "causal")[:5000], filtered(x, "causal")[:5000])


def test_linear_is_symmetric_in_time_and_delays_nothing() -> None:
    x = SIGNALS["random walk"]
    forth, back = filtered(x, "linear"), filtered(x[::-1], "linear")[::-1]
    np.testing.assert_allclose(forth, back, rtol=0, atol=2 * LINEAR_ERROR * np.abs(x).max())
    tone = np.sin(2 * np.pi * 8 * np.arange(N_TIMES) / 200)
    inside = slice(1000, -1000)
    np.testing.assert_allclose(filtered(tone, "linear")[inside], tone[inside], rtol=0, atol=0.01)
