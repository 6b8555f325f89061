"""Folded images: every sample in its place, against the definition in float64, on real recordings too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eeg_windows
import numpy as np
import oracles_signals as oracle
import pytest

from kagglehms.errors import UsageError
from kagglehms.features import FoldSpec, folded_image

ERROR = 5e-6 * 32
"""Of the filters, after clip and scale."""

SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "100 Hz": {"step": 2, "phases": 5},
    "linear": {"filter": "linear"},
    "unfiltered": {"filter": "none", "phases": 8},
    "not folded": {"phases": 1, "step": 4},
    "one column": {"phases": 10_000},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", ["plain", "gaps", "electrode pops", "offsets"])
def test_agrees_with_the_definition(kind: str, name: str) -> None:
    spec = FoldSpec(**SPECS[name])
    window = eeg_windows.NASTY[kind]
    image = folded_image(window, spec=spec)
    assert image.shape == spec.shape
    np.testing.assert_allclose(image, oracle.folded(window, **SPECS[name]), rtol=0, atol=ERROR)


def test_shapes() -> None:
    assert FoldSpec().shape == (160, 1000)
    assert FoldSpec(step=2, phases=5).shape == (80, 1000)
    assert FoldSpec(step=2).shape == (160, 500)


def test_every_sample_is_in_its_place() -> None:
    """Fp1−F7 counts the samples, so that each pixel of the first ten rows says which one it is."""
    window = np.zeros((10_000, 20), np.float32)
    window[:, 0] = np.arange(10_000)
    image = folded_image(window, spec=FoldSpec(filter="none", clip_uv=1e6, scale_uv=1.0))
    for p in range(10):
        np.testing.assert_array_equal(image[p], np.arange(1000) * 10 + p)
    np.testing.assert_array_equal(image[10:80], 0)


@pytest.mark.parametrize("name", SPECS)
def test_mirror_is_the_image_of_the_mirrored_window(name: str) -> None:
    window, spec = eeg_windows.NASTY["gaps"].astype(np.float16), FoldSpec(**SPECS[name])
    mirrored = folded_image(window, spec=spec, mirror=True)
    np.testing.assert_array_equal(mirrored, folded_image(oracle.mirrored(window), spec=spec))
    chains = folded_image(window, spec=spec).reshape(4, -1)[[1, 0, 3, 2]]
    np.testing.assert_array_equal(mirrored.reshape(4, -1), chains)


@pytest.mark.parametrize("n_times", [10, 150, 160, 170, 12_000])
def test_any_length_that_fills_its_columns(n_times: int) -> None:
    window = eeg_windows.eeg(n_times)
    image = folded_image(window)
    assert image.shape == (160, n_times // 10)
    np.testing.assert_allclose(image, oracle.folded(window), rtol=0, atol=ERROR)


def test_real_recordings(hms_sample: Path) -> None:
    polars = pytest.importorskip("polars", reason="reads the recordings")
    paths = sorted((hms_sample / "train_eegs").glob("*.parquet"))
    assert paths
    for path in paths:
        eeg_uv = polars.read_parquet(path).select(oracle.CHANNELS).to_numpy()[:10_000]
        half = np.ascontiguousarray(eeg_uv, np.float16)
        for fields in SPECS.values():
            image = folded_image(half, spec=FoldSpec(**fields))
            np.testing.assert_allclose(image, oracle.folded(half, **fields), rtol=0, atol=ERROR)


def test_into_batches_and_threads() -> None:
    windows = np.stack([eeg_windows.eeg(2000, seed).astype(np.float16) for seed in range(5)])
    out = np.empty((160, 200), np.float32)
    images = []
    for window in windows:
        assert folded_image(window, out) is out
        images.append(out.copy())
    np.testing.assert_array_equal(folded_image(windows), images)
    np.testing.assert_array_equal(folded_image(windows, threads=3), images)


WINDOW = np.zeros((300, 20), np.float32)
REFUSED: dict[str, tuple[Any, str]] = {
    "columns": (lambda: folded_image(WINDOW[:295]), "a multiple of step · phases = 10 samples, got 295"),
    "empty": (lambda: folded_image(WINDOW[:0]), "a multiple of step · phases"),
    "out": (lambda: folded_image(WINDOW, np.empty((160, 31), np.float32)), "shape (160, 30)"),
    "phases": (lambda: FoldSpec(phases=0), "FoldSpec.phases: expected a whole number"),
    "divisor": (lambda: FoldSpec(phases=3), "FoldSpec.step · phases: expected a divisor of 10,000"),
    "filter": (lambda: FoldSpec(filter="causal "), "FoldSpec.filter: expected one of"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
