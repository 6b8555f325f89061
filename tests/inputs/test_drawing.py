"""Inputs are drawn as they are defined, mirrored or not."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_inputs import KINDS, NORMALISER, some_crop

from kagglehms.data.competition import CHAINS, CHANNELS, SPECTROGRAM_COLUMNS
from kagglehms.errors import UsageError
from kagglehms.features.zoom import zoomed_image
from kagglehms.inputs import kinds
from kagglehms.inputs.drawing import draw, mirrored, stack
from kagglehms.inputs.kinds import Views
from kagglehms.inputs.layouts import CROP_SHAPES, KAGGLE_AND_EEG, Crop


@pytest.mark.parametrize("kind", KINDS)
def test_it_fills_its_shape_with_finite_values(kind: str) -> None:
    layout = KINDS[kind]
    batch = stack([some_crop(0), some_crop(1)], layout, NORMALISER)
    assert batch.shape == (2, *layout.array_shape)
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert not np.array_equal(batch[0], batch[1])
    assert sum(columns for _, columns in layout.time_tiles) == layout.array_shape[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_it_is_that_of_a_mirrored_recording(kind: str) -> None:
    layout, crop = KINDS[kind], some_crop(2)
    out = np.empty(layout.array_shape, np.float32)
    draw(layout, crop, out, NORMALISER, mirror=True)
    other = stack([mirrored(crop)], layout, NORMALISER)[0]
    # Sums over all signals are rounded in their order.
    np.testing.assert_allclose(out, other, rtol=0, atol=2e-6 if kind == "zoomed" else 0)
    assert not np.allclose(out, stack([crop], layout, NORMALISER)[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_recording_it_cannot_be_drawn(kind: str) -> None:
    layout = KINDS[kind]
    with pytest.raises(UsageError, match="needs the eeg recording"):
        stack([Crop(some_crop().log_power, None)], layout, NORMALISER)


def test_the_fold_worked_by_hand() -> None:
    """Row 10 c + p holds every tenth sample of difference c from sample p on."""
    eeg_uv = np.zeros(CROP_SHAPES["eeg"], np.float32)
    eeg_uv[:, CHANNELS.index("F7")] = np.arange(10_000) % 1000
    image = stack([Crop(None, eeg_uv.astype(np.float16))], KINDS["folded"])[0, 0]
    first, second = CHAINS["LL"].index("Fp1"), CHAINS["LL"].index("F7")  # Fp1 - F7, F7 - T3
    for phase in range(10):
        np.testing.assert_array_equal(image[10 * first + phase], -(np.arange(phase, 10_000, 10) % 1000) / 32)
        np.testing.assert_array_equal(image[10 * second + phase], (np.arange(phase, 10_000, 10) % 1000) / 32)
    assert not image[20:].any()


def test_a_band_pass_comes_before_the_drawing_of_zoomed_spectra_and_of_nothing_else() -> None:
    assert [name for name, layout in KINDS.items() if layout.filters_when_drawn] == ["zoomed"]
    out, wanted = (np.empty(kinds.MEL_ZOOM.array_shape, np.float32) for _ in range(2))
    draw(kinds.MEL_ZOOM, some_crop(), out, band_hz=(1.0, 12.0))
    zoomed_image(some_crop().of("eeg"), wanted, band_hz=(1.0, 12.0))
    np.testing.assert_array_equal(out, wanted)


# ---- two views


def test_two_views_are_both_images_one_after_the_other() -> None:
    views = Views(KAGGLE_AND_EEG, kinds.FOLDED_CAUSAL)
    crop = some_crop(3)
    values = stack([crop], views, NORMALISER)[0]
    parts = [stack([crop], part, NORMALISER)[0] for part in views.parts]
    np.testing.assert_array_equal(values, np.concatenate([part.ravel() for part in parts]))
    assert views.array_shape == (512 * 556 + 160 * 1000,)
    assert views.sources == {"eeg", "kaggle"}
    assert views.global_sources == {"kaggle"}


def test_the_mirror_swaps_the_sides() -> None:
    power = np.arange(np.prod(CROP_SHAPES["kaggle"]), dtype=np.float16).reshape(CROP_SHAPES["kaggle"])
    power = np.tile(np.arange(400, dtype=np.float16), (300, 1))
    eeg = np.tile(np.arange(20, dtype=np.float16), (10_000, 1))
    other = mirrored(Crop(power, eeg))
    assert other.log_power is not None
    assert other.eeg_uv is not None
    assert [SPECTROGRAM_COLUMNS[int(i)] for i in other.log_power[0, [0, 99, 100, 200, 300]]] == [
        "RL_0.59", "RL_19.92", "LL_0.59", "RP_0.59", "LP_0.59"
    ]  # fmt: skip
    swapped = {CHANNELS[i]: CHANNELS[int(other.eeg_uv[0, i])] for i in range(20)}
    assert swapped["Fp1"] == "Fp2"
    assert swapped["T5"] == "T6"
    assert swapped["C4"] == "C3"
    assert [swapped[name] for name in ("Fz", "Cz", "Pz", "EKG")] == ["Fz", "Cz", "Pz", "EKG"]
    again = mirrored(other)
    np.testing.assert_array_equal(again.log_power, power)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.eeg_uv, eeg)  # type: ignore[arg-type]
