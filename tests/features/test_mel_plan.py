"""The coefficients: mel bands as librosa has them, an error bound that is true, layouts that cover every bin."""

from __future__ import annotations

import numpy as np
import oracles_features as oracle
import pytest
from numpy.typing import NDArray

from kagglehms.features import MelSpec
from kagglehms.features.mel_plan import hz_to_mel, mel_filters, mel_to_hz, plan
from kagglehms.features.transform_plan import TILE, Transform, untile

SPECS = {
    "notebook": MelSpec(),
    "precise": MelSpec(tolerance=2e-7),
    "wide": MelSpec(fmin=1.0, fmax=60.0, n_mels=50),
    "short": MelSpec(win_length=32, n_mels=16),
    "long": MelSpec(win_length=512, n_mels=200),
    "two samples": MelSpec(win_length=2, n_mels=8),
}


def test_the_notebooks_case() -> None:
    derived, transform = plan(MelSpec()), plan(MelSpec()).transform
    assert (transform.rank, transform.n_bins, transform.half, derived.n_taps) == (18, 102, 64, 2)


def rebuilt(derived: Transform) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(K, H) cosine and sine matrices that the two stages amount to."""
    rows, weights = untile(derived.project, derived.half), untile(derived.combine, derived.rank + 1)
    return weights[0][:, :-1] @ rows[0], weights[1][:, :-1] @ rows[1]


def exact(spec: MelSpec, k: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine rows for bins `k`, by the definition; the fold adds the centre to itself, so it counts half."""
    j = np.arange(spec.win_length // 2)
    window = 0.5 * (1 + np.cos(2 * np.pi * j / spec.win_length))
    window[0] /= 2
    angle = 2 * np.pi * np.outer(k, j) / spec.n_fft
    return np.cos(angle) * window, np.sin(angle) * window


@pytest.mark.parametrize("name", SPECS)
def test_stages_amount_to_the_transform_within_the_stated_error(name: str) -> None:
    spec = SPECS[name]
    derived = plan(spec).transform
    assert derived.error <= spec.tolerance
    bands = oracle.mel_bands(spec.sfreq, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
    used = np.flatnonzero(bands.any(axis=0))
    k = np.arange(used[0], used[-1] + 1, dtype=np.float64)
    for approximate, wanted in zip(rebuilt(derived), exact(spec, k), strict=True):
        full = wanted * np.where(np.arange(derived.half) == 0, 2, 1)
        error = (approximate[: len(k)] - wanted) * np.where(np.arange(derived.half) == 0, 2, 1)
        size = np.linalg.norm(full, axis=1).max()
        assert np.linalg.norm(error, axis=1).max() <= 1.01 * derived.error * size
        np.testing.assert_array_equal(approximate[len(k) :], 0)


@pytest.mark.parametrize("name", SPECS)
def test_last_weight_is_the_transform_of_a_level(name: str) -> None:
    spec = SPECS[name]
    derived = plan(spec).transform
    even, odd = (weights[:, -1] for weights in untile(derived.combine, derived.rank + 1))
    bands = oracle.mel_bands(spec.sfreq, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
    used = np.flatnonzero(bands.any(axis=0))
    j = np.arange(-spec.win_length // 2, spec.win_length // 2)
    window = 0.5 * (1 + np.cos(2 * np.pi * j / spec.win_length))
    wanted = np.exp(-2j * np.pi * np.outer(np.arange(used[0], used[-1] + 1), j) / spec.n_fft) @ window
    np.testing.assert_allclose(even[: len(wanted)], wanted.real, rtol=0, atol=1e-6 * window.sum())
    np.testing.assert_array_equal(odd, 0)


@pytest.mark.parametrize("name", SPECS)
def test_rank_is_no_greater_than_it_must_be(name: str) -> None:
    """The singular values say how many rows any factorisation needs for that error."""
    spec = SPECS[name]
    derived = plan(spec).transform
    used = np.arange(1, derived.n_bins + 1, dtype=np.float64)
    needed = max(
        int(
            (
                np.linalg.svd(matrix, compute_uv=False)
                > spec.tolerance * np.linalg.norm(matrix, axis=1).max()
            ).sum()
        )
        for matrix in exact(spec, used)
    )
    assert derived.rank <= needed + 2 * TILE


@pytest.mark.parametrize("name", SPECS)
def test_taps_hold_the_whole_of_every_band(name: str) -> None:
    spec = SPECS[name]
    derived = plan(spec)
    bands = oracle.mel_bands(spec.sfreq, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
    first = int(np.flatnonzero(bands.any(axis=0))[0])
    dense = np.zeros_like(bands)
    weight = derived.band_weight.reshape(spec.n_mels, derived.n_taps)
    for row, start, taps in zip(dense, derived.band_start, weight, strict=True):
        assert 0 <= start <= derived.transform.n_bins - derived.n_taps
        stop = min(first + start + derived.n_taps, dense.shape[1])
        row[first + start : stop] = taps[: stop - first - start]
    np.testing.assert_allclose(dense, bands, rtol=2e-7, atol=2e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa imports
def test_filters_are_librosas() -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is an oracle, not a dependency")
    for spec in (MelSpec(), SPECS["wide"], MelSpec(sfreq=8000.0, fmin=100.0, fmax=4000.0, n_mels=40)):
        wanted = librosa.filters.mel(
            sr=spec.sfreq,
            n_fft=spec.n_fft,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
            dtype=np.float64,
        )
        np.testing.assert_allclose(mel_filters(spec), wanted, rtol=1e-9, atol=1e-12)


def test_mel_scale_goes_both_ways() -> None:
    hz = np.array([0.0, 20.0, 999.0, 1000.0, 6400.0])
    np.testing.assert_allclose(mel_to_hz(np.array([hz_to_mel(f) for f in hz])), hz, rtol=1e-12)
    assert hz_to_mel(200 / 3) == pytest.approx(1)
    assert hz_to_mel(6400.0) == pytest.approx(15 + 27)
