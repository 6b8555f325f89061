"""Spectra of differences against `scipy.signal.spectrogram` in float64: numbers, places, padding, every resolution."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import eeg_windows
import numpy as np
import oracles_signals as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.features import (
    SPECTRA_30_10,
    SPECTRA_50_10,
    SpectraSpec,
    difference_spectra,
)
from kagglehms.features.spectra_plan import plan

MAX_ERROR, MEAN_ERROR = 5e-4, 5e-6
"""Of a pixel in deviations of the image. The worst is the lowest bin of a frame with a steep drift."""


def check(image: NDArray[np.float32], wanted: NDArray[np.float64]) -> None:
    assert image.dtype == np.float32
    n_rows, n_columns = wanted.shape
    error = np.abs(image[:n_rows, :n_columns] - wanted)
    assert error.max() <= MAX_ERROR
    assert error.mean() <= MEAN_ERROR
    padding = np.concatenate([image[n_rows:].ravel(), image[:, n_columns:].ravel()])
    assert len(np.unique(padding)) <= 1
    if padding.size:  # the mean of the whole image is 0
        n_padding = image.size - wanted.size
        np.testing.assert_allclose(padding, -wanted.sum() / n_padding, rtol=0, atol=MAX_ERROR)


@pytest.mark.parametrize("kind", [kind for kind in eeg_windows.NASTY if kind != "constants"])
def test_agrees_with_scipy_in_float64(kind: str) -> None:
    window = eeg_windows.NASTY[kind]
    check(difference_spectra(window), oracle.spectra(window))


@pytest.mark.parametrize("kind", eeg_windows.EMPTY)
def test_nothing_to_see_is_zero(kind: str) -> None:
    np.testing.assert_array_equal(difference_spectra(eeg_windows.EMPTY[kind]), 0)


def test_constants_are_nearly_nothing() -> None:
    """What rounding leaves of hundreds of µV is far below the smallest number that a deviation is divided by."""
    assert np.abs(difference_spectra(eeg_windows.NASTY["constants"])).max() < 0.02


@pytest.mark.parametrize("kind", ["plain", "gaps", "2 mV artefact"])
def test_agrees_with_an_explicit_transform(kind: str) -> None:
    """No library: one pixel after the other, from the samples of its own frame."""
    window = eeg_windows.NASTY[kind]
    x = np.clip(oracle.differences(window, 18), -1024, 1024)
    n = np.arange(144)
    hann = np.sin(np.pi * n / 144) ** 2
    rows, columns = np.arange(504), np.arange(0, 464, 29)
    wanted = np.empty((rows.size, columns.size))
    for row in rows:
        signal, block, k = row // 28, row % 28 // 14, row % 14 + 1
        for i, column in enumerate(columns):
            start = 4000 + 4 * column if block else 21 * (column + 3)
            frame = x[signal, start : start + 144]
            bin_ = ((frame - frame.mean()) * hann * np.exp(-2j * np.pi * k * n / 144)).sum()
            wanted[row, i] = np.log1p(2 * abs(bin_) ** 2 / (200 * (hann**2).sum()))
    full = oracle.spectra(window)[:, columns]
    slope = np.polyfit(wanted.ravel(), full.ravel(), 1)
    np.testing.assert_allclose(np.polyval(slope, wanted), full, rtol=0, atol=1e-9)
    image = difference_spectra(window)[:504, :464][:, columns]
    np.testing.assert_allclose(image, np.polyval(slope, wanted), rtol=0, atol=MAX_ERROR)


def test_published_sizes() -> None:
    for spec in (SPECTRA_50_10, SPECTRA_30_10):
        assert spec.shape == (512, 512)
        assert (spec.n_rows, spec.n_columns, spec.n_bins) == (504, 464, 14)
        assert difference_spectra(eeg_windows.eeg(), spec=spec).shape == (512, 512)


SPECS: dict[str, dict[str, Any]] = {
    "30 s": {"wide_s": 30, "wide_hop": 12, "wide_trim": 12},
    "sixteen": {"midline": False},
    "close bins": {"n_fft": 1024, "height": 3600},
    "exact": {"n_fft": 512, "height": 1800, "tolerance": 3e-7},
    "short window": {"win_length": 64, "n_fft": 64, "wide_hop": 46, "wide_trim": 0, "centre_hop": 9},
    "one bin": {"fmin": 8.0, "fmax": 9.0},
    "wide band": {"fmin": 0.1, "fmax": 99.0, "height": 2800},
    "tight": {"height": 504, "width": 464},
    "low clip": {"clip_uv": 20.0},
    "odd columns": {"wide_hop": 106, "wide_trim": 0, "centre_hop": 20, "midline": False},
    "a run of twelve": {"wide_hop": 106, "wide_trim": 0, "centre_hop": 20},
    "few columns": {"wide_hop": 1450, "wide_trim": 0, "centre_hop": 280},
    "equal": {"wide_s": 10, "wide_hop": 4, "wide_trim": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_any_resolution(name: str) -> None:
    fields = {key: value for key, value in SPECS[name].items() if key != "tolerance"}
    spec = SpectraSpec(**SPECS[name])
    window = eeg_windows.NASTY["gaps"]
    image = difference_spectra(window, spec=spec, mirror=True)
    assert image.shape == spec.shape
    check(image, oracle.spectra(oracle.mirrored(window), **fields))


@pytest.mark.parametrize("n_times", [10_000, 10_001, 12_345])
def test_longer_windows_are_taken_in_the_middle(n_times: int) -> None:
    window = eeg_windows.eeg(n_times)
    check(difference_spectra(window), oracle.spectra(window))


def test_stages_are_as_few_as_pay() -> None:
    assert plan(SPECTRA_50_10, 10_000).transform.rank == 0
    close = plan(SpectraSpec(n_fft=1024, height=3600), 10_000).transform
    assert 0 < close.rank < close.n_bins
    for spec in (SPECTRA_50_10, SpectraSpec(n_fft=1024, height=3600), SpectraSpec(**SPECS["exact"])):
        assert plan(spec, 10_000).transform.error <= spec.tolerance


# ---- places and symmetries


def test_a_tone_lights_its_own_row_of_its_own_signals() -> None:
    t = np.arange(10_000) / 200
    for k in (2, 7, 13):
        window = np.zeros((10_000, 20), np.float32)
        window[:, oracle.CHANNELS.index("T4")] = 100 * np.sin(2 * np.pi * k * 200 / 144 * t)
        image = difference_spectra(window)[:504, :464].reshape(18, 2, 14, 464)
        loud = image.mean(axis=3)
        for signal, name in enumerate(oracle.ROWS):
            assert (loud[signal].argmax(axis=-1) == k - 1).all() == ("T4" in name)
        assert np.ptp(loud[5, :, k - 1]) < 1e-3


def test_an_event_stands_in_both_blocks_where_it_happened() -> None:
    window = np.zeros((10_000, 20), np.float32)
    window[5500, 0] = 500
    image = difference_spectra(window)[:504, :464].reshape(18, 2, 14, 464)[0]
    wide, centre = (block.mean(axis=0).argmax() for block in image)
    assert abs((wide + 3) * 21 + 72 - 5500) <= 21
    assert abs(4000 + centre * 4 + 72 - 5500) <= 4


@pytest.mark.parametrize("spec", [SPECTRA_50_10, SPECTRA_30_10], ids=["50", "30"])
def test_mirror_is_the_image_of_the_mirrored_window(spec: SpectraSpec) -> None:
    window = eeg_windows.NASTY["gaps"].astype(np.float16)
    mirrored = difference_spectra(window, spec=spec, mirror=True)
    np.testing.assert_allclose(
        mirrored, difference_spectra(oracle.mirrored(window), spec=spec), rtol=0, atol=1e-6
    )
    order = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11, 16, 17]
    rows = difference_spectra(window, spec=spec)[:504].reshape(18, 28, 512)[order].reshape(504, 512)
    np.testing.assert_allclose(mirrored[:504], rows, rtol=0, atol=2e-6)


def test_mean_and_deviation_are_those_of_the_image_with_its_padding() -> None:
    """Zeros are part of it before it is normalised, and stand for less than what is there."""
    for kind in ("plain", "gaps", "electrode pops"):
        image = difference_spectra(eeg_windows.NASTY[kind]).astype(np.float64)
        assert abs(image.mean()) < 1e-5
        assert abs(image.std() - 1) < 1e-5
        assert image[504:].max() == image[:, 464:].min() == image[511, 511] <= image.min() < -0.1


def test_what_stood_in_the_padding_is_overwritten() -> None:
    window = eeg_windows.eeg()
    out = np.full((512, 512), np.nan, np.float32)
    assert difference_spectra(window, out) is out
    np.testing.assert_array_equal(out, difference_spectra(window))


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**31), st.booleans(), st.sampled_from([np.nan, np.inf, 4e4, 0.0]), st.integers(1, 9999)
)
def test_whatever_is_missing(seed: int, half: bool, value: float, length: int) -> None:
    rng = np.random.default_rng(seed)
    window = eeg_windows.eeg(seed=seed)
    for channel in rng.integers(0, 20, 4):
        start = rng.integers(0, 10_000)
        window[start : start + length, channel] = value
    window = window.astype(np.float16) if half else window
    check(difference_spectra(window), oracle.spectra(window))


def test_real_recordings(hms_sample: Path) -> None:
    polars = pytest.importorskip("polars", reason="reads the recordings")
    paths = sorted((hms_sample / "train_eegs").glob("*.parquet"))
    assert paths
    for path in paths:
        eeg_uv = polars.read_parquet(path).select(oracle.CHANNELS).to_numpy()[-10_000:]
        half = np.ascontiguousarray(eeg_uv, np.float16)
        check(difference_spectra(half), oracle.spectra(half))
        check(
            difference_spectra(half, spec=SPECTRA_30_10),
            oracle.spectra(half, wide_s=30, wide_hop=12, wide_trim=12),
        )


# ---- kinds of input, threads, memory, refusals


def test_kinds_of_input() -> None:
    half = eeg_windows.NASTY["infinities"].astype(np.float16)
    wanted = difference_spectra(half)
    np.testing.assert_array_equal(difference_spectra(half.astype(np.float32)), wanted)
    np.testing.assert_array_equal(difference_spectra(np.asfortranarray(half)), wanted)
    np.testing.assert_array_equal(difference_spectra(np.repeat(half, 2, axis=1)[:, ::2]), wanted)


def test_threads_change_nothing() -> None:
    windows = np.stack([eeg_windows.eeg(seed=seed).astype(np.float16) for seed in range(4)])
    windows[2, 50:90, 9] = np.nan
    wanted = np.stack([difference_spectra(window) for window in windows])
    np.testing.assert_array_equal(difference_spectra(windows, threads=3), wanted)
    out = np.zeros_like(wanted)

    def load(i: int) -> None:
        for _ in range(5):
            difference_spectra(windows[i], out[i])

    threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, wanted)


def test_scratch_is_used_again() -> None:
    window, out = eeg_windows.eeg(), np.empty((512, 512), np.float32)
    difference_spectra(window, out)
    tracemalloc.start()
    difference_spectra(window, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000, peak


WINDOW = np.zeros((10_000, 20), np.float32)
REFUSED: dict[str, tuple[Any, str]] = {
    "short": (lambda: difference_spectra(WINDOW[:9999]), "eeg_uv: expected 10,000 samples or more, got 9999"),
    "channels": (lambda: difference_spectra(WINDOW[:, :19]), "got float32 of shape (10000, 19)"),
    "out": (
        lambda: difference_spectra(WINDOW, np.empty((504, 464), np.float32)),
        "shape (512, 512)",
    ),
    "odd": (lambda: SpectraSpec(win_length=145, n_fft=146), "even numbers"),
    "n_fft": (lambda: SpectraSpec(n_fft=128), "win_length ≤ n_fft"),
    "band": (lambda: SpectraSpec(fmin=0.0), "0 < fmin"),
    "nyquist": (lambda: SpectraSpec(fmax=100.0), "fmax < 100"),
    "no bin": (lambda: SpectraSpec(fmin=1.4, fmax=2.7), "a bin between them"),
    "columns": (lambda: SpectraSpec(wide_trim=4), "but got 462 and 464"),
    "no columns": (lambda: SpectraSpec(wide_trim=300, centre_trim=300), "1 or more"),
    "height": (lambda: SpectraSpec(height=503), "expected 504 × 464 or more"),
    "whole": (lambda: SpectraSpec(wide_hop=0), "SpectraSpec.wide_hop: expected a whole number, 1 or more"),
    "trim": (lambda: SpectraSpec(wide_trim=-1), "SpectraSpec.wide_trim: expected a whole number, 0 or more"),
    "clip": (lambda: SpectraSpec(clip_uv=0.0), "clip_uv"),
    "tolerance": (lambda: SpectraSpec(tolerance=0.0), "above 0"),
    "out of reach": (lambda: plan(SpectraSpec(tolerance=1e-9), 10_000), "SpectraSpec.tolerance: expected"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
