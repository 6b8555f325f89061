"""Mel images against their float64 twin, librosa and the golden images; every resolution, every kind of input."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import eeg_windows
import numpy as np
import oracles_features as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS
from kagglehms.errors import UsageError
from kagglehms.features import MelSpec, mel_images
from kagglehms.features.mel_plan import plan

MAX_ERROR, MEAN_ERROR = 1e-4, 1e-6


def check(image: NDArray[np.float32], wanted: NDArray[np.float64]) -> None:
    assert image.dtype == np.float32
    error = np.abs(image - wanted)
    assert error.max() <= MAX_ERROR
    assert error.mean() <= MEAN_ERROR


@pytest.mark.parametrize("kind", eeg_windows.NASTY)
def test_agrees_with_float64(kind: str) -> None:
    window = eeg_windows.NASTY[kind]
    check(mel_images(window[None])[0], oracle.mel_image(window))


@pytest.mark.parametrize("kind", eeg_windows.EMPTY)
def test_nothing_to_see_is_all_as_loud_as_the_loudest(kind: str) -> None:
    """power_to_db compares silence with itself: 0 dB everywhere."""
    window = eeg_windows.EMPTY[kind]
    np.testing.assert_array_equal(mel_images(window[None]), 1)
    np.testing.assert_allclose(oracle.mel_image(window), 1, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa imports
def test_agrees_with_librosa() -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is an oracle, not a dependency")
    kinds = (
        "2 mV artefact",
        "offsets",
        "gaps",
        "dead channels",
        "infinities",
        "constants",
        "denormals",
        "1e5 µV",
    )
    for i, kind in enumerate(kinds):
        panel, window = i % 4, eeg_windows.NASTY[kind]
        wanted = np.zeros((128, 256))
        for x in oracle.chain_differences(window)[panel].astype(np.float64):
            power = librosa.feature.melspectrogram(
                y=x, sr=200, hop_length=len(x) // 256, n_fft=1024, n_mels=128, fmin=0, fmax=20, win_length=128
            )
            wanted += (librosa.power_to_db(power, ref=np.max)[:, :256] + 40) / 40 / 4
        check(mel_images(window[None])[0, panel], wanted)


def golden_windows(
    golden_images: Path, hms_sample: Path
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    polars = pytest.importorskip("polars", reason="reads the recordings")
    images = np.load(golden_images)
    windows = {}
    for key in images.files:
        eeg_id, first, _ = key.split("_")
        [path] = hms_sample.glob(f"*_eegs/{eeg_id}.parquet")
        eeg_uv = polars.read_parquet(path).select(CHANNELS).to_numpy()
        window = np.ascontiguousarray(eeg_uv[int(first) : int(first) + 10_000], np.float32)
        windows[key] = window, np.moveaxis(images[key].astype(np.float64), -1, 0)
    return windows


def test_agrees_with_the_golden_images(golden_images: Path, hms_sample: Path) -> None:
    windows = golden_windows(golden_images, hms_sample)
    assert len(windows) == 6
    for window, wanted in windows.values():
        check(mel_images(window[None])[0], wanted)
        half = window.astype(np.float16)
        check(mel_images(half[None])[0], oracle.mel_image(half.astype(np.float32)))


# ---- lengths, resolutions, kinds of input


@pytest.mark.parametrize("n_times", [256, 300, 511, 2000, 2001, 9999, 10_239, 12_000])
def test_any_length(n_times: int) -> None:
    window = eeg_windows.eeg(n_times)
    window[7, 2] = np.nan
    check(mel_images(window[None])[0], oracle.mel_image(window))


SPECS: dict[str, dict[str, Any]] = {
    "coarse mel": {"n_mels": 40},
    "a single band": {"n_mels": 1},
    "empty bands": {"n_mels": 300, "n_fft": 512},
    "long window": {"win_length": 256},
    "no padding": {"n_fft": 200, "win_length": 200, "n_mels": 20},
    "short window": {"win_length": 16},
    "wide": {"fmin": 0.5, "fmax": 70.0, "n_mels": 64},
    "few frames": {"n_frames": 7},
    "odd frames": {"n_frames": 37},
    "long hop": {"n_frames": 20},
    "exact": {"tolerance": 2e-7},
    "other rate": {"sfreq": 100.0, "n_fft": 512, "win_length": 64, "fmax": 30.0},
}


@pytest.mark.parametrize("name", SPECS)
def test_any_resolution(name: str) -> None:
    spec = MelSpec(**SPECS[name])
    fields = {key: value for key, value in SPECS[name].items() if key != "tolerance"}
    window = eeg_windows.eeg(4000)
    image = mel_images(window[None], spec=spec)[0]
    assert image.shape == spec.image_shape
    check(image, oracle.mel_image(window, **fields))


def test_half_precision_is_read_as_it_is() -> None:
    for kind in ("gaps", "infinities", "offsets"):
        half = eeg_windows.NASTY[kind].astype(np.float16)
        np.testing.assert_array_equal(mel_images(half[None]), mel_images(half[None].astype(np.float32)))


def test_a_sequence_of_memory_mapped_windows(tmp_path: Path) -> None:
    recording = eeg_windows.eeg(14_000, seed=20).astype(np.float16)
    np.save(tmp_path / "eeg.npy", recording)
    stored = np.load(tmp_path / "eeg.npy", mmap_mode="r")
    starts = (0, 1234, 4000)
    wanted = mel_images(np.stack([recording[s : s + 10_000] for s in starts]))
    np.testing.assert_array_equal(mel_images([stored[s : s + 10_000] for s in starts]), wanted)
    out = np.empty((4, 128, 256), np.float32)
    for start, image in zip(starts, wanted, strict=True):
        assert mel_images(stored[start : start + 10_000], out) is out
        np.testing.assert_array_equal(out, image)


def test_strided_input_is_taken_as_it_is_meant() -> None:
    channels_first = np.ascontiguousarray(eeg_windows.eeg(3000).T)
    np.testing.assert_array_equal(
        mel_images(channels_first.T[None]), mel_images(channels_first.T.copy()[None])
    )


def test_no_windows() -> None:
    assert mel_images(np.empty((0, 10_000, 20), np.float32)).shape == (0, 4, 128, 256)
    assert mel_images([]).shape == (0, 4, 128, 256)


# ---- what must not change an image, and what must


def test_only_electrodes_of_the_chains_matter() -> None:
    window = eeg_windows.eeg(2000)
    image = mel_images(window[None])
    for name in ("Fz", "Cz", "Pz", "EKG"):
        for value in (0, np.nan, np.inf):
            window[:, CHANNELS.index(name)] = value
    np.testing.assert_array_equal(mel_images(window[None]), image)


def test_each_panel_sees_its_own_chain() -> None:
    """A tone on the middle electrode of one chain alone changes that panel and no other."""
    quiet = eeg_windows.eeg(2000)
    before = mel_images(quiet[None])[0]
    for panel, chain in enumerate(CHAINS.values()):
        window = quiet.copy()
        window[:, CHANNELS.index(chain[2])] += 300 * np.sin(2 * np.pi * 6 * np.arange(2000) / 200)
        changed = np.abs(mel_images(window[None])[0] - before).max(axis=(1, 2)) > 1e-3
        assert changed.tolist() == [i == panel for i in range(4)]


def test_a_tone_lights_its_own_band() -> None:
    t = np.arange(10_000) / 200
    for hz in (2.0, 7.5, 18.0):
        window = np.sin(2 * np.pi * hz * t)[:, None] * np.arange(1, 21) ** 2
        image = mel_images(window[None].astype(np.float32))[0]
        centres_hz = np.linspace(0, 20, 130)[1:-1]
        assert abs(centres_hz[image.mean(axis=(0, 2)).argmax()] - hz) < 0.2


small_windows = st.tuples(st.integers(256, 900), st.integers(0, 2**31)).map(
    lambda drawn: eeg_windows.eeg(*drawn)
)


@settings(deadline=None, max_examples=25)
@given(small_windows, st.integers(-8, 8))
def test_loudness_and_sign_do_not_matter(window: NDArray[np.float32], octaves: int) -> None:
    image = mel_images(window[None])
    np.testing.assert_array_equal(mel_images(-window[None]), image)
    scaled = window * np.float32(2.0**octaves)
    np.testing.assert_allclose(mel_images(scaled[None]), image, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(small_windows)
def test_images_are_bounded_and_reach_the_top_at_most(window: NDArray[np.float32]) -> None:
    window[::7, ::3] = np.nan
    image = mel_images(window[None])
    assert image.min() >= -1 - 1e-6
    assert image.max() <= 1 + 1e-6


def test_a_shift_by_one_hop_moves_the_image_by_one_frame() -> None:
    recording = eeg_windows.eeg(10_039, seed=30)
    one, other = mel_images([recording[:10_000], recording[39:]])
    inside = slice(3, -3)
    shift = one[:, :, 1:][:, :, inside] - other[:, :, :-1][:, :, inside]
    # Each image is relative to its own loudest frame.
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-4


# ---- threads, memory, refusals


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads: int) -> None:
    windows = np.stack([eeg_windows.eeg(2000, seed) for seed in range(7)])
    windows[3, 50:90, 4] = np.nan
    np.testing.assert_array_equal(mel_images(windows, threads=threads), mel_images(windows))


def test_many_loader_threads_at_once() -> None:
    windows = [eeg_windows.eeg(2000, seed) for seed in range(8)]
    wanted = mel_images(windows)
    out = np.zeros((8, 4, 128, 256), np.float32)

    def load(i: int) -> None:
        for _ in range(20):
            mel_images(windows[i], out[i])

    threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, wanted)


def test_scratch_is_used_again() -> None:
    window, out = eeg_windows.eeg(), np.empty((4, 128, 256), np.float32)
    mel_images(window, out)
    tracemalloc.start()
    mel_images(window, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000, peak


def test_previous_windows_leave_no_trace() -> None:
    loud, quiet = eeg_windows.eeg(2000, 1) * 1000, eeg_windows.eeg(2000, 2)
    alone = mel_images(quiet[None])
    mel_images(loud[None])
    np.testing.assert_array_equal(mel_images(quiet[None]), alone)


WINDOW = np.zeros((1, 300, 20), np.float32)
REFUSED = {
    "rank": (lambda: mel_images(WINDOW[0, 0]), "eeg_uv: expected (B, n_times, 20), got float32 of shape (20,)"),
    "channels": (lambda: mel_images(WINDOW[:, :, :19]), "got float32 of shape (300, 19)"),
    "dtype": (lambda: mel_images(WINDOW.astype(np.float64)), "float32 or float16, got float64"),
    "whole numbers": (lambda: mel_images(WINDOW.astype(np.int16)), "got int16"),
    "too short": (lambda: mel_images(WINDOW[:, :255]), "eeg_uv: expected 256 samples or more, got 255"),
    "lengths": (lambda: mel_images([WINDOW[0], WINDOW[0, :290]]), "windows of one length, 300"),
    "no arrays": (lambda: mel_images([[1.0]]), "got list"),  # type: ignore[list-item]
    "out shape": (lambda: mel_images(WINDOW, WINDOW.copy()), "out: expected float32 of shape (1, 4, 128, 256)"),
    "out dtype": (lambda: mel_images(WINDOW, np.empty((1, 4, 128, 256))), "got float64"),  # type: ignore[arg-type]
    "out strided": (lambda: mel_images(WINDOW, np.empty((1, 4, 128, 512), np.float32)[..., ::2]), "not C-contiguous"),
    "threads": (lambda: mel_images(WINDOW, threads=0), "threads: expected 1 or more, got 0"),
    "window": (lambda: mel_images(WINDOW[0].T), "windows of (n_times, 20)"),
    "window out": (lambda: mel_images(WINDOW[0], np.empty((1, 4, 128, 256), np.float32)), "shape (4, 128, 256)"),
    "spec odd": (lambda: MelSpec(win_length=127), "even"),
    "spec window": (lambda: MelSpec(win_length=2048), "win_length ≤ n_fft"),
    "spec band": (lambda: MelSpec(fmin=20.0), "fmin < fmax"),
    "spec nyquist": (lambda: MelSpec(fmax=101.0), "sfreq / 2"),
    "spec whole": (lambda: MelSpec(n_mels=1.5), "whole numbers"),  # type: ignore[arg-type]
    "spec none": (lambda: MelSpec(n_frames=0), "1 or more"),
    "spec tolerance": (lambda: MelSpec(tolerance=0.0), "above 0"),
    "out of reach": (lambda: plan(MelSpec(fmax=4.0, tolerance=1e-9)), "MelSpec.tolerance: expected"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
