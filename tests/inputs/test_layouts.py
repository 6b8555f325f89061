"""Layouts, against plain NumPy in float64; the mel images they are made of have tests of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from kagglehms.errors import UsageError
from kagglehms.features import mel_images
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.layouts import (
    KAGGLE_AND_EEG,
    LAYOUTS,
    PANELS_BY_THEMSELVES,
    Crop,
    Layout,
    Normaliser,
    Tile,
)
from kagglehms.inputs.rendering import render

NORMALISER = Normaliser({"kaggle": (0.7, 1.9), "eeg": (-0.2, 0.4)})


def crop_of(seed: int, missing: bool = False) -> Crop:
    draw = np.random.default_rng(seed)
    log_power = draw.normal(1, 2, (300, 400)).clip(-4, 8)
    eeg_uv = draw.normal(0, 60, (10_000, 20))
    if missing:
        log_power[40:60] = np.nan
        log_power[100:110, 120:140] = np.nan
        eeg_uv[500:900, 3] = np.nan
    return Crop(log_power.astype(np.float16), eeg_uv.astype(np.float16))


def panels_of(crop: Crop, source: str) -> np.ndarray:
    """(4, F, T) float64 before normalisation."""
    if source == "eeg":
        assert crop.eeg_uv is not None
        return mel_images(crop.eeg_uv[None])[0].astype(np.float64)
    assert crop.log_power is not None
    return crop.log_power.astype(np.float64).T.reshape(4, 100, 300)


def normalised(panels: np.ndarray, how: str, source: str) -> np.ndarray:
    def by(values: np.ndarray, mean: float, std: float) -> np.ndarray:
        return np.nan_to_num((values - mean) / (std + 1e-6), nan=0.0)

    if how == "panel":
        return np.stack([by(panel, np.nanmean(panel), np.nanstd(panel)) for panel in panels])
    if how == "image":
        return by(panels, np.nanmean(panels), np.nanstd(panels))
    if how == "global":
        return by(panels, *NORMALISER.statistics[source])  # type: ignore[index]
    return np.nan_to_num(panels, nan=0.0)


def viewed(panels: np.ndarray, view: str) -> np.ndarray:
    if view == "percentiles":
        return np.percentile(panels, [20, 40, 60, 80], axis=0)
    if view == "summaries":
        low, high = panels.min(axis=0), panels.max(axis=0)
        return np.stack([low, high, panels.mean(axis=0), high - low])
    return panels


def expected_image(layout: Layout, crop: Crop) -> np.ndarray:
    columns = []
    for tile in layout.tiles:
        panels = normalised(panels_of(crop, tile.source), tile.normalise, tile.source)
        image = viewed(panels, tile.view).reshape(tile.shape)
        columns.append(np.pad(image, ((0, layout.shape[0] - tile.shape[0]), (0, 0))))
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_what_numpy_makes(name: str, missing: bool) -> None:
    layout, crop = LAYOUTS[name], crop_of(1, missing)
    image = stack([crop], layout, NORMALISER)
    assert image.shape == (1, 1, *layout.shape)
    np.testing.assert_allclose(image[0, 0], expected_image(layout, crop), atol=3e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("panels", (400, 300)),
        ("panels+percentiles", (400, 600)),
        ("eeg+percentiles", (512, 512)),
        ("eeg-summaries", (512, 256)),
        ("kaggle+eeg", (512, 556)),
    ],
)
def test_shapes_are_those_of_the_ladder(name: str, shape: tuple[int, int]) -> None:
    assert LAYOUTS[name].shape == shape


def test_images_do_not_depend_on_threads_or_on_what_was_drawn_before() -> None:
    layouts = list(LAYOUTS.values())
    crops = [crop_of(seed) for seed in range(3)]
    alone = [[stack([crop], layout, NORMALISER)[0] for crop in crops] for layout in layouts]
    failures: list[str] = []

    def draw(shift: int) -> None:
        for i in range(len(layouts)):
            at = (i + shift) % len(layouts)
            together = stack(crops, layouts[at], NORMALISER)
            if not np.array_equal(together, np.stack(alone[at])):
                failures.append(f"layout {at}")

    threads = [threading.Thread(target=draw, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _wrong_out() -> None:
    render(PANELS_BY_THEMSELVES, crop_of(0), np.empty((300, 400), np.float32))


REFUSED: dict[str, Callable[[], object]] = {
    "a layout needs at least one tile": lambda: Layout(()),
    r"log_power must be \(300, 400\), but got \(299, 400\)": lambda: Crop(np.zeros((299, 400), np.float16)),
    r"eeg_uv must be \(10000, 20\), but got": lambda: Crop(eeg_uv=np.zeros((9999, 20), np.float16)),
    "needs the eeg recording": lambda: stack([Crop(crop_of(0).log_power)], KAGGLE_AND_EEG, NORMALISER),
    "normalises kaggle globally, but no statistics": lambda: stack([crop_of(0)], LAYOUTS["global-panels"]),
    "C-contiguous": _wrong_out,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        REFUSED[message]()


def test_a_tile_knows_its_size() -> None:
    assert Tile("kaggle").shape == (400, 300)
    assert Tile("eeg").shape == (512, 256)


@pytest.mark.parametrize(("field", "value"), [("source", "egg"), ("view", "mean"), ("normalise", "all")])
def test_a_tile_refuses_names_that_a_script_misspells(field: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"unknown {field} '{value}'; "):
        Tile(**{field: value})  # type: ignore[arg-type]
