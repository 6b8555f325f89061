"""Mel spectra with a finer centre against librosa in float64: numbers, columns, planes, every resolution."""

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
from kagglehms.features import ZoomSpec, zoomed_image
from kagglehms.features.condensed_plan import condensed
from kagglehms.features.zoom_plan import neighbours

MAX_ERROR, MEAN_ERROR = 5e-4, 2e-6
"""Of a pixel, 20 dB being 1. The worst is a band that lies 70 dB below a neighbour."""

CENTRE = slice(125, 726)
"""Its columns in the image."""


def check(image: NDArray[np.float32], wanted: NDArray[np.float64]) -> None:
    assert image.dtype == np.float32
    assert image.shape == wanted.shape
    error = np.abs(image - wanted)
    assert error.max() <= MAX_ERROR
    assert error.mean() <= MEAN_ERROR


@pytest.mark.parametrize("kind", [*eeg_windows.NASTY, *eeg_windows.EMPTY])
def test_agrees_with_librosa_in_float64(kind: str) -> None:
    window = {**eeg_windows.NASTY, **eeg_windows.EMPTY}[kind]
    check(zoomed_image(window), oracle.zoomed(window))


def test_published_sizes() -> None:
    """62 of 313 columns give way to 601."""
    spec = ZoomSpec()
    assert spec.shape == (3, 1024, 852)
    assert (spec.n_wide(), spec.n_left(), spec.n_centre) == (313, 125, 601)
    assert (
        max(condensed(resolution).transform.error for resolution in (spec.wide, spec.centre))
        <= spec.tolerance
    )


def test_agrees_with_explicit_sums() -> None:
    """No library: some pixels of both spectra, from the samples of their own frames."""
    window = eeg_windows.eeg()  # in which nothing is 100 dB below the loudest
    x = np.clip(oracle.differences(window), -1024, 1024) / 32
    edges_hz = np.linspace(0.53, 30, 66)  # Slaney's scale is linear up to 1 kHz
    levels: dict[str, list[float]] = {"wide": [], "centre": []}
    image = zoomed_image(window)[0].reshape(16, 64, 852)
    found: dict[str, list[float]] = {"wide": [], "centre": []}
    rng = np.random.default_rng(0)
    for name, n_fft, win in (("wide", 512, 128), ("centre", 2048, 16)):
        n = np.arange(-win // 2, win // 2)
        hann = 0.5 + 0.5 * np.cos(2 * np.pi * n / win)
        k = np.arange(n_fft // 2)
        hz = k * 200 / n_fft
        for _ in range(40):
            signal, band = rng.integers(16), rng.integers(64)
            if name == "wide":
                column = rng.choice([*range(4, 125), *range(187, 309)])
                middle, place = 32 * column, column if column < 125 else column - 62 + 601
            else:
                column = rng.integers(601)
                middle, place = 3800 + 4 * column, 125 + column
            bins = np.exp(-2j * np.pi * np.outer(k, n) / n_fft) @ (hann * x[signal, middle + n])
            low, peak, high = edges_hz[band : band + 3]
            triangle = np.maximum(0, np.minimum((hz - low) / (peak - low), (high - hz) / (high - peak)))
            power = (triangle * 2 / (high - low) * np.abs(bins) ** 2).sum()
            levels[name].append(10 * np.log10(power) / 20)
            found[name].append(float(image[signal, band, place]))
    np.testing.assert_allclose(found["wide"], levels["wide"], rtol=0, atol=MAX_ERROR)
    np.testing.assert_allclose(found["centre"], levels["centre"], rtol=0, atol=MAX_ERROR)


SPECS: dict[str, dict[str, Any]] = {
    "coarse centre": {"centre_win": 32, "centre_hop": 8, "centre_samples": 2800},
    "128 bands": {"n_mels": 128, "wide_n_fft": 1024, "fmax": 40.0},
    "few bands": {"n_mels": 5},
    "narrow range": {"top_db": 20.0},
    "other units": {"unit_db": 1.0, "scale_uv": 1.0, "clip_uv": 50.0},
    "odd cut": {"cut": 33},
    "uneven": {"wide_hop": 37, "centre_hop": 7, "centre_samples": 2001, "cut": 50},
    "long centre frames": {"wide_win": 64, "wide_n_fft": 256, "centre_win": 256, "centre_n_fft": 256},
    "few columns": {"wide_hop": 800, "cut": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.filterwarnings("ignore:Empty filters detected:UserWarning")
def test_any_resolution(name: str) -> None:
    spec = ZoomSpec(**SPECS[name])
    window = eeg_windows.NASTY["gaps"]
    image = zoomed_image(window, spec=spec, mirror=True)
    assert image.shape == spec.shape
    wanted = oracle.zoomed(oracle.mirrored(window), **SPECS[name])
    np.testing.assert_allclose(image, wanted, rtol=0, atol=MAX_ERROR * 20 / spec.unit_db)


@pytest.mark.parametrize("n_times", [2400, 9_999, 12_345])
def test_other_lengths(n_times: int) -> None:
    window, spec = eeg_windows.eeg(n_times), ZoomSpec(cut=20)
    check(zoomed_image(window, spec=spec), oracle.zoomed(window, cut=20))


@pytest.mark.parametrize("band_hz", [(0.5, 20.0), (2.0, 10.0)])
def test_a_band_pass_comes_first(band_hz: tuple[float, float]) -> None:
    """What the filter leaves of 30 Hz lies at the rounding of what goes in, so the mean is judged."""
    window = eeg_windows.NASTY["gaps"].astype(np.float16)
    error = np.abs(zoomed_image(window, band_hz=band_hz) - oracle.zoomed(window, band_hz=band_hz))
    assert error.mean() <= 1e-4
    assert np.abs(zoomed_image(window) - oracle.zoomed(window, band_hz=band_hz)).mean() > 0.05


# ---- places, planes and symmetries


def test_neighbours_share_an_electrode_and_lie_on_one_side() -> None:
    before, after = neighbours()
    for signal in range(16):
        own = set(oracle.ROWS[signal].split("-"))
        beside = [set(oracle.ROWS[int(other[signal])].split("-")) for other in (before, after)]
        shared = [own & other for other in beside]
        assert all(len(common) == 1 for common in shared)
        assert set.union(*shared) == own  # one at either end
    assert (oracle.ROWS[before[0]], oracle.ROWS[after[0]]) == ("Fp1-F3", "F7-T3")


def test_planes_are_differences_of_the_first() -> None:
    levels, less_others, less_neighbours = zoomed_image(eeg_windows.eeg()).astype(np.float64)
    np.testing.assert_allclose(
        less_others.reshape(16, 64, 852).sum(axis=0), 0, atol=1e-4
    )  # each loses the mean of the others
    signals = levels.reshape(16, 64, 852)
    wanted = signals[10] - (signals[9] + signals[11]) / 2  # C3-P3 between F3-C3 and P3-O1
    np.testing.assert_allclose(less_neighbours.reshape(16, 64, 852)[10], wanted, atol=1e-5)


def test_an_event_stands_where_it_happened_and_finer_in_the_centre() -> None:
    window = np.zeros((10_000, 20), np.float32)
    window[[1600, 5000, 5040], 0] = 500
    loud = zoomed_image(window)[0, :64].mean(axis=0)
    assert loud[:125].argmax() == 50
    peaks = np.flatnonzero(loud[CENTRE] > loud[CENTRE].max() - 1)
    np.testing.assert_array_equal(peaks[peaks < 305].mean(), 300)
    np.testing.assert_array_equal(peaks[peaks >= 305].mean(), 310)


def test_a_tone_lights_its_own_band_of_its_own_signals() -> None:
    t = np.arange(10_000) / 200
    edges_hz = np.linspace(0.53, 30, 66)
    for band in (10, 40, 60):
        window = np.zeros((10_000, 20), np.float32)
        window[:, oracle.CHANNELS.index("T4")] = 100 * np.sin(2 * np.pi * edges_hz[band + 1] * t)
        loud = zoomed_image(window)[0].reshape(16, 64, 852)[..., 40:100].mean(axis=-1)
        for signal, name in enumerate(oracle.ROWS[:16]):
            assert (loud[signal].max() > 0) == ("T4" in name)
            assert "T4" not in name or abs(loud[signal].argmax() - band) <= 1


def test_mirror_is_the_image_of_the_mirrored_window() -> None:
    window = eeg_windows.NASTY["gaps"].astype(np.float16)
    mirrored = zoomed_image(window, mirror=True)
    np.testing.assert_allclose(mirrored, zoomed_image(oracle.mirrored(window)), rtol=0, atol=1e-6)
    order = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]
    rows = zoomed_image(window).reshape(3, 16, 64, 852)[:, order].reshape(3, 1024, 852)
    np.testing.assert_allclose(mirrored, rows, rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=10)
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
    check(zoomed_image(window), oracle.zoomed(window))


def test_real_recordings(hms_sample: Path) -> None:
    polars = pytest.importorskip("polars", reason="reads the recordings")
    paths = sorted((hms_sample / "train_eegs").glob("*.parquet"))
    assert paths
    for path in paths:
        eeg_uv = polars.read_parquet(path).select(oracle.CHANNELS).to_numpy()[-10_000:]
        half = np.ascontiguousarray(eeg_uv, np.float16)
        check(zoomed_image(half), oracle.zoomed(half))


# ---- kinds of input, threads, memory, refusals


def test_kinds_of_input() -> None:
    half = eeg_windows.NASTY["infinities"].astype(np.float16)
    wanted = zoomed_image(half)
    np.testing.assert_array_equal(zoomed_image(half.astype(np.float32)), wanted)
    np.testing.assert_array_equal(zoomed_image(np.asfortranarray(half)), wanted)
    np.testing.assert_array_equal(zoomed_image(np.repeat(half, 2, axis=1)[:, ::2]), wanted)


def test_threads_change_nothing() -> None:
    windows = np.stack([eeg_windows.eeg(seed=seed).astype(np.float16) for seed in range(4)])
    windows[2, 50:90, 9] = np.nan
    wanted = np.stack([zoomed_image(window) for window in windows])
    np.testing.assert_array_equal(zoomed_image(windows, threads=3), wanted)
    out = np.full_like(wanted, np.nan)

    def load(i: int) -> None:
        for _ in range(3):
            zoomed_image(windows[i], out[i])

    threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, wanted)


def test_scratch_is_used_again() -> None:
    window, out = eeg_windows.eeg(), np.empty((3, 1024, 852), np.float32)
    zoomed_image(window, out)
    tracemalloc.start()
    zoomed_image(window, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000, peak


WINDOW = np.zeros((10_000, 20), np.float32)
REFUSED: dict[str, tuple[Any, str]] = {
    "short": (lambda: zoomed_image(WINDOW[:2399]), "eeg_uv: expected 2,400 samples or more, got 2399"),
    "channels": (lambda: zoomed_image(WINDOW[:, :19]), "got float32 of shape (10000, 19)"),
    "out": (
        lambda: zoomed_image(WINDOW, np.empty((3, 1024, 313), np.float32)),
        "shape (3, 1024, 852)",
    ),
    "odd": (lambda: ZoomSpec(centre_win=15), "ZoomSpec: n_fft and win_length: expected even numbers"),
    "band": (lambda: ZoomSpec(fmin=30.0), "fmin < fmax"),
    "cut": (lambda: ZoomSpec(cut=312), "eeg_uv: expected 10,016 samples or more"),
    "no cut": (lambda: ZoomSpec(cut=0), "ZoomSpec.cut: expected a whole number, 1 or more"),
    "range": (lambda: ZoomSpec(top_db=0.0), "ZoomSpec.top_db: expected a finite number above 0"),
    "unit": (lambda: ZoomSpec(unit_db=float("inf")), "ZoomSpec.unit_db: expected a finite number"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
