"""Any rate to 200 Hz: against analytic sines, without seams, with the aliasing that the documentation states."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from kagglehms.recordings.resampling import Resampler

RATES_HZ = (128, 160, 250, 256, 400, 500, 512, 1000, 1024, 2048)


def sine(hz: float, rate_hz: float, n: int) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hz * np.arange(n) / rate_hz + 0.3)


def whole(values: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    resampler = Resampler.of(Fraction(rate_hz).limit_denominator(10**6), len(values))
    return resampler(values, 0, resampler.n_out)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_sines_come_out_as_the_same_sines(rate_hz: int) -> None:
    for hz in (0.5, 1, 5, 10, 20, 40, 60, 80):
        if hz > 0.4 * rate_hz:
            continue
        out = whole(sine(hz, rate_hz, 30 * rate_hz), rate_hz)
        error = np.abs(out - sine(hz, 200, len(out)))[100:-100]  # the ends do not see what is beyond
        assert error.max() < 2e-4, (rate_hz, hz)


@pytest.mark.parametrize("rate_hz", [rate for rate in RATES_HZ if rate > 240])
def test_what_is_beyond_the_new_nyquist_frequency_is_folded_only_to_above_80_hz(rate_hz: int) -> None:
    for hz, decibels in ((102, -8), (105, -14), (110, -29), (115, -60), (120, -79)):
        out = whole(sine(hz, rate_hz, 30 * rate_hz), rate_hz)[100:-100]
        assert 20 * np.log10(np.sqrt(2 * (out**2).mean())) < decibels


@pytest.mark.parametrize(("rate_hz", "hz"), [(173.61, 20), (499.907, 20), (255.9, 10)])
def test_odd_rates_keep_the_time(rate_hz: float, hz: float) -> None:
    n = int(600 * rate_hz)
    out = whole(sine(hz, rate_hz, n), rate_hz)
    assert len(out) == np.ceil(200 * n / rate_hz)
    lag = np.abs(out - sine(hz, 200, len(out)))[100:-100].max() / (2 * np.pi * hz)
    assert lag < 0.0025  # half a sample


@pytest.mark.parametrize(
    "rate_hz", [41, 100, 125, 128, 160, 173, 199, 200, 201, 255.9, 256, 499.9, 512, 2048]
)
@pytest.mark.parametrize("seconds", [50, 60, 600])
def test_a_recording_is_as_long_at_200_hz_as_it_was(rate_hz: float, seconds: int) -> None:
    """Its last sample stands for a period too; windows that end with the recording lack nothing."""
    n = round(seconds * rate_hz)
    assert n == pytest.approx(seconds * rate_hz)
    out = whole(sine(5, rate_hz, n), rate_hz)
    assert len(out) == seconds * 200
    assert np.isfinite(out).all()


def test_one_sample_and_none_are_as_long_as_they_were() -> None:
    assert whole(np.array([7.0]), 100).tolist() == pytest.approx([7, 7])
    assert whole(np.empty(0), 100).tolist() == []


@pytest.mark.parametrize("rate_hz", [100, 128, 256, 512, 173.61])
def test_blocks_join_without_a_seam(rate_hz: float) -> None:
    values = np.random.default_rng(0).normal(0, 50, int(40 * rate_hz)) + 20_000
    resampler = Resampler.of(Fraction(rate_hz).limit_denominator(10**6), len(values))
    expected = resampler(values, 0, resampler.n_out)
    found = []
    for first in range(0, resampler.n_out, 997):
        stop = min(first + 997, resampler.n_out)
        low, high = resampler.needs(first, stop)
        assert 0 <= low < high <= len(values)
        found.append(resampler(values[low:high], first, stop))
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_the_filter_is_a_windowed_sinc_as_scipy_makes_it() -> None:
    """SciPy's own default has the same half-amplitude frequency; below 80 Hz both pass everything."""
    hz = np.array([3.0, 11.0, 29.0, 61.0])
    values = sum(sine(f, 256, 5120) for f in hz)
    expected = resample_poly(values, 25, 32)
    np.testing.assert_allclose(whole(values, 256)[200:-200], expected[200:-200], atol=5e-3)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_an_offset_of_an_amplifier_stays_an_offset(rate_hz: int) -> None:
    out = whole(np.full(10 * rate_hz, 30_000.0), rate_hz)
    np.testing.assert_allclose(out, 30_000, atol=1e-8)


def test_at_200_hz_nothing_changes() -> None:
    values = np.random.default_rng(0).normal(0, 50, 3000)
    resampler = Resampler.of(Fraction(200), 3000)
    np.testing.assert_array_equal(resampler(values[100:400], 100, 400), values[100:400])
    assert resampler.needs(100, 400) == (100, 400)


@pytest.mark.parametrize("rate_hz", [199.999, 199.9999, 200.0001])
def test_a_rate_a_hair_beside_200_hz_changes_nothing_and_needs_no_sample_beyond_the_end(
    rate_hz: float,
) -> None:
    values = np.random.default_rng(0).normal(0, 50, 10_000)
    np.testing.assert_array_equal(whole(values, rate_hz), values)
    resampler = Resampler.of(Fraction(rate_hz).limit_denominator(10**6), len(values))
    assert resampler.needs(9000, resampler.n_out) == (9000, 10_000)


def test_missing_samples_stay_missing_and_spoil_no_others() -> None:
    values = sine(5, 256, 2560)
    values[1000:1300] = np.nan
    out = whole(values, 256)
    times_s = np.arange(len(out)) / 200
    gap = (times_s > 1000 / 256) & (times_s < 1299 / 256)
    assert np.isnan(out[gap]).all()
    far = (times_s < 900 / 256) | (times_s > 1400 / 256)
    np.testing.assert_allclose(out[far][50:-50], sine(5, 200, len(out))[far][50:-50], atol=2e-4)
    assert np.isnan(whole(np.full(2560, np.nan), 256)).all()
