"""Three squares for the bins of a band: the same power, and only where they are enough."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.features import MelSpec, ZoomSpec
from kagglehms.features.condensed_plan import condensed
from kagglehms.features.mel_plan import MelPlan, plan
from kagglehms.features.transform_plan import untile

CENTRE = ZoomSpec().centre


def bands(derived: MelPlan, kept_NR: np.ndarray) -> np.ndarray:
    """(N, M) power in mel bands of frames that are kept as (N, 2, R + 1) numbers of either parity."""
    even, odd = untile(derived.transform.combine, derived.transform.rank + 1)
    power_NK = (kept_NR[:, 0] @ even.T) ** 2 + (kept_NR[:, 1] @ odd.T) ** 2
    weight_MT = derived.band_weight.reshape(-1, derived.n_taps)
    return sum(weight_MT[:, tap] * power_NK[:, derived.band_start + tap] for tap in range(derived.n_taps))  # type: ignore[return-value]


def test_the_published_centre_is_condensed_to_a_third_less() -> None:
    derived = condensed(CENTRE)
    assert (plan(CENTRE).n_taps, plan(CENTRE).transform.n_bins) == (10, 303)
    assert (derived.n_taps, derived.transform.n_bins) == (3, 192)


def test_bands_of_frames_are_the_same_power() -> None:
    """Frames of white noise, and of a level a thousand times as strong, whose far bands are deep below it."""
    rng = np.random.default_rng(0)
    kept_NR = rng.normal(size=(4000, 2, plan(CENTRE).transform.rank + 1))
    kept_NR[2000:, 0, -1] *= 1000
    kept_NR[:, 1, -1] = 0  # an odd row of a level is nothing
    before, after = bands(plan(CENTRE), kept_NR), bands(condensed(CENTRE), kept_NR)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-9 * before.max())
    assert np.abs(10 * np.log10(after / before)).mean() < 1e-4


@pytest.mark.parametrize(
    "spec",
    [ZoomSpec().wide, MelSpec(), MelSpec(n_fft=2048, win_length=512, n_mels=4, fmin=0.5, fmax=40.0)],
    ids=["few bins", "two bins", "bands that three squares cannot be"],
)
def test_what_three_squares_cannot_be_stays_as_it_is(spec: MelSpec) -> None:
    derived, before = condensed(spec), plan(spec)
    assert (derived.n_taps, derived.transform.n_bins) == (before.n_taps, before.transform.n_bins)
    np.testing.assert_array_equal(derived.transform.combine, before.transform.combine)
    np.testing.assert_array_equal(derived.band_weight, before.band_weight)
