"""Differences against their float64 twin: order, gaps, clip, scale, mirror, every kind of input."""

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
from kagglehms.features import DifferenceSpec, difference_signals

ERROR = 5e-6
"""Of the greatest value after clip and scale, see `filters.CAUSAL_ERROR`."""
FILTERS: tuple[Any, ...] = ("none", "causal", "linear")
WINDOWS = eeg_windows.NASTY | eeg_windows.EMPTY


def check(found: NDArray[np.float32], wanted: NDArray[np.float64], spec: DifferenceSpec) -> None:
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    limit = spec.clip_uv / spec.scale_uv
    if spec.filter == "none":
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * limit)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ERROR * limit)


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("kind", WINDOWS)
def test_agrees_with_float64(kind: str, filter_: Any) -> None:
    spec = DifferenceSpec(filter=filter_, midline=True)
    window = WINDOWS[kind]
    check(difference_signals(window, spec=spec), oracle.signals(window, filter_, n_signals=18), spec)


def test_order_of_the_rows() -> None:
    """Every electrode has its own level, so that each row says which two it is made of."""
    window = np.tile(2.0 ** np.arange(20, dtype=np.float32) / 1024, (20, 1))
    found = difference_signals(
        window, spec=DifferenceSpec(filter="none", clip_uv=1e6, scale_uv=1.0, midline=True)
    )
    level = {name: 2.0**i / 1024 for i, name in enumerate(oracle.CHANNELS)}
    for row, name in zip(found, oracle.ROWS, strict=True):
        first, second = name.split("-")
        np.testing.assert_array_equal(row, level[first] - level[second])


@pytest.mark.parametrize("filter_", FILTERS)
def test_mirror_exchanges_the_hemispheres(filter_: Any) -> None:
    window = eeg_windows.NASTY["gaps"]
    spec = DifferenceSpec(filter=filter_, midline=True)
    found = difference_signals(window, spec=spec, mirror=True)
    np.testing.assert_array_equal(found, difference_signals(oracle.mirrored(window), spec=spec))
    rows = difference_signals(window, spec=spec)
    order = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11, 16, 17]
    np.testing.assert_array_equal(found, rows[order])


def test_a_common_reference_cancels() -> None:
    window = np.round(eeg_windows.eeg(2000) * 8) / 8
    other = window + np.round(np.random.default_rng(0).normal(0, 100, (2000, 1))).astype(np.float32)
    np.testing.assert_array_equal(difference_signals(other), difference_signals(window))


def test_gaps_take_the_mean_of_what_is_there() -> None:
    window = np.zeros((6, 20), np.float32)
    window[:, 0] = [1, 2, np.nan, np.inf, 6, -np.inf]
    window[1, 4] = np.nan  # F7: of Fp1−F7 only samples 0 and 4 are left
    found = difference_signals(window, spec=DifferenceSpec(filter="none", scale_uv=1.0))
    np.testing.assert_array_equal(found[0], [1, 3.5, 3.5, 3.5, 6, 3.5])
    np.testing.assert_array_equal(found[8], [1, 2, 3, 3, 6, 3])
    np.testing.assert_array_equal(found[1], 0)


def test_a_spike_rings_no_longer_than_the_clip_allows() -> None:
    window = np.zeros((2000, 20), np.float32)
    window[500, 0] = 50_000
    clipped = window.copy()
    clipped[500, 0] = 1024
    for name in FILTERS:
        spec = DifferenceSpec(filter=name)
        np.testing.assert_array_equal(
            difference_signals(window, spec=spec), difference_signals(clipped, spec=spec)
        )


SPECS: dict[str, dict[str, Any]] = {
    "every second": {"step": 2},
    "every seventh": {"step": 7},
    "other limits": {"clip_uv": 100.0, "scale_uv": 7.0},
    "as they are": {"filter": "none", "clip_uv": 1e9, "scale_uv": 1.0},
    "thinned out": {"filter": "linear", "step": 4},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("n_times", [1, 7, 16, 500, 2001])
def test_any_spec_and_length(name: str, n_times: int) -> None:
    spec = DifferenceSpec(**SPECS[name])
    window = eeg_windows.eeg(n_times)
    window[n_times // 2, ::3] = np.nan
    found = difference_signals(window, spec=spec)
    assert found.shape == spec.shape_of(n_times)
    check(found, oracle.signals(window, **({"filter": "causal"} | SPECS[name])), spec)


def test_shape_is_that_of_fifty_seconds() -> None:
    assert DifferenceSpec().shape == (16, 10_000)
    assert DifferenceSpec(step=3, midline=True).shape == (18, 3334)


@st.composite
def broken_windows(draw: st.DrawFn) -> NDArray[np.float32]:
    """A short window with runs of NaN and infinities, dead channels, spikes and constants."""
    n_times = draw(st.integers(1, 600))
    window = eeg_windows.eeg(n_times, draw(st.integers(0, 2**31)))
    for _ in range(draw(st.integers(0, 6))):
        start, length = draw(st.integers(0, n_times - 1)), draw(st.integers(1, n_times))
        channel = draw(st.integers(0, 19))
        kind = draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e4, -3e4, 0.0, 1024.0]))
        window[start : start + length, channel] = kind
    return window


@settings(deadline=None, max_examples=40)
@given(broken_windows(), st.sampled_from(FILTERS), st.booleans(), st.booleans(), st.integers(1, 5))
def test_whatever_is_missing(
    window: NDArray[np.float32], filter_: Any, half: bool, mirror: bool, step: int
) -> None:
    window = window.astype(np.float16) if half else window
    spec = DifferenceSpec(filter=filter_, step=step, midline=True)
    found = difference_signals(window, spec=spec, mirror=mirror)
    assert np.isfinite(found).all()
    given_ = oracle.mirrored(window) if mirror else window
    check(found, oracle.signals(given_, filter_, step, n_signals=18), spec)


# ---- kinds of input, threads, memory


def test_half_precision_is_read_as_it_is() -> None:
    for kind in ("gaps", "infinities", "offsets"):
        half = eeg_windows.NASTY[kind].astype(np.float16)
        np.testing.assert_array_equal(difference_signals(half), difference_signals(half.astype(np.float32)))


def test_strided_and_mapped_input_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    window = eeg_windows.eeg(3000)
    wanted = difference_signals(window)
    np.testing.assert_array_equal(difference_signals(np.asfortranarray(window)), wanted)
    wide = np.repeat(window, 2, axis=1)
    np.testing.assert_array_equal(difference_signals(wide[:, ::2]), wanted)
    np.save(tmp_path / "eeg.npy", window)
    stored = np.load(tmp_path / "eeg.npy", mmap_mode="r")
    out = np.empty((16, 2500), np.float32)
    assert difference_signals(stored[500:], out) is out
    np.testing.assert_array_equal(out, difference_signals(window[500:]))


@pytest.mark.parametrize("filter_", FILTERS)
def test_batches_and_threads_change_nothing(filter_: Any) -> None:
    spec = DifferenceSpec(filter=filter_)
    windows = np.stack([eeg_windows.eeg(2000, seed) for seed in range(7)])
    windows[3, 50:90, 4] = np.nan
    alone = np.stack([difference_signals(window, spec=spec) for window in windows])
    np.testing.assert_array_equal(difference_signals(windows, spec=spec), alone)
    np.testing.assert_array_equal(difference_signals(list(windows), spec=spec, threads=3), alone)


def test_many_loader_threads_at_once() -> None:
    windows = [eeg_windows.eeg(2000, seed) for seed in range(8)]
    specs = [DifferenceSpec(filter=FILTERS[i % 3]) for i in range(8)]
    wanted = [difference_signals(window, spec=spec) for window, spec in zip(windows, specs, strict=True)]
    out = np.zeros((8, 16, 2000), np.float32)

    def load(i: int) -> None:
        for _ in range(20):
            difference_signals(windows[i], out[i], spec=specs[i])

    threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, wanted)


def test_scratch_is_used_again() -> None:
    window, out, spec = eeg_windows.eeg(), np.empty((16, 10_000), np.float32), DifferenceSpec()
    difference_signals(window, out, spec=spec)
    tracemalloc.start()
    difference_signals(window, out, spec=spec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000, peak


def test_previous_windows_leave_no_trace() -> None:
    loud, quiet = eeg_windows.eeg(2000, 1) * 1000, eeg_windows.eeg(2000, 2)
    for name in FILTERS:
        spec = DifferenceSpec(filter=name)
        alone = difference_signals(quiet, spec=spec)
        difference_signals(loud, spec=spec)
        np.testing.assert_array_equal(difference_signals(quiet, spec=spec), alone)


def test_no_windows() -> None:
    assert difference_signals([]).shape == (0, 16, 10_000)


WINDOW = np.zeros((300, 20), np.float32)
REFUSED: dict[str, tuple[Any, str]] = {
    "channels": (lambda: difference_signals(WINDOW[:, :19]), "got float32 of shape (300, 19)"),
    "dtype": (lambda: difference_signals(WINDOW.astype(np.float64)), "float32 or float16, got float64"),
    "rank": (lambda: difference_signals(WINDOW[None, None]), "eeg_uv: expected (B, n_times, 20)"),
    "empty": (lambda: difference_signals(WINDOW[:0]), "1 sample or more, got 0"),
    "lengths": (lambda: difference_signals([WINDOW, WINDOW[1:]]), "windows of one length, 300"),
    "out": (lambda: difference_signals(WINDOW, np.empty((16, 299), np.float32)), "float32 of shape (16, 300)"),
    "threads": (lambda: difference_signals(WINDOW[None], threads=0), "threads: expected 1 or more"),
    "filter": (lambda: DifferenceSpec(filter="fir"), "DifferenceSpec.filter: expected one of none, causal, linear"),  # type: ignore[arg-type]
    "step": (lambda: DifferenceSpec(step=0), "DifferenceSpec.step: expected a whole number"),
    "clip": (lambda: DifferenceSpec(clip_uv=0.0), "above 0"),
    "scale": (lambda: DifferenceSpec(scale_uv=float("nan")), "above 0"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
