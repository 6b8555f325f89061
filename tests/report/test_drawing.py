"""One time axis on all pictures, the seconds of the recording with the labelled ones marked; one scale where given."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.report import drawing
from kagglehms.report.style import LIGHT, figure, styled

START_S = 142.0
LABELLED_S = (162.0, 172.0)
"""The middle ten of fifty seconds that begin at second 142."""


def loud_traces(uv: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, uv, (19, 5000)).astype(np.float32)


def test_traces_stand_at_the_seconds_of_the_recording() -> None:
    with styled(LIGHT):
        axes = figure(4, 4, LIGHT).add_subplot()
        drawing.draw_traces(axes, loud_traces(30), (15.0, 35.0), LIGHT, START_S)
    assert axes.get_xlim() == (157.0, 177.0)
    (shaded,) = axes.patches
    assert shaded.get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx(LABELLED_S)
    assert "seconds of the recording" in axes.get_xlabel()


def test_images_stand_at_the_same_seconds_around_the_labelled_ones() -> None:
    draw = np.random.default_rng(0)
    with styled(LIGHT):
        axes_PX = figure(6, 4, LIGHT).subplots(4, 2)
        drawing.draw_mel(axes_PX[:, 0], draw.normal(size=(4, 128, 256)).astype(np.float32), LIGHT, START_S)
        drawing.draw_kaggle(axes_PX[:, 1], draw.normal(size=(4, 100, 300)).astype(np.float32), LIGHT, START_S)
    for axes in axes_PX.ravel():
        assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx(LABELLED_S)
    assert axes_PX[0, 0].get_xlim()[0] == pytest.approx(START_S)
    assert axes_PX[0, 1].get_xlim() == pytest.approx(
        (167 - 300, 167 + 300)
    )  # ten minutes around the same middle


def test_a_scale_that_is_given_is_drawn_and_otherwise_one_that_fits() -> None:
    with styled(LIGHT):
        loud, quiet = figure(6, 4, LIGHT).subplots(1, 2)
        between_uv = drawing.spacing_uv(loud_traces(100), (15.0, 35.0))
        drawing.draw_traces(loud, loud_traces(100), (15.0, 35.0), LIGHT, 0.0)
        drawing.draw_traces(quiet, loud_traces(5), (15.0, 35.0), LIGHT, 0.0, between_uv)
    assert [text.get_text() for text in (*loud.texts, *quiet.texts)] == [f"{between_uv} µV"] * 2
    assert drawing.spacing_uv(loud_traces(5), (15.0, 35.0)) < between_uv
