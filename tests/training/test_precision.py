"""Choices that depend on the device and on the length of a training."""

from __future__ import annotations

import pytest
import torch
from devices import device_at

from kagglehms.training.precision import TUNED_STEPS, laid_out, memory_format, tunes_convolutions


def test_the_planes_of_an_image_lie_side_by_side_and_signals_one_after_another() -> None:
    images_BCHW = torch.arange(48.0).reshape(2, 3, 4, 2)
    signals_BCT = torch.arange(48.0).reshape(2, 4, 6).transpose(1, 2)
    assert laid_out(images_BCHW).stride() == (24, 1, 6, 3)
    assert laid_out(signals_BCT).stride() == (24, 4, 1)
    for inputs in (images_BCHW, signals_BCT):
        assert torch.equal(laid_out(inputs), inputs)


@pytest.mark.parametrize(("place", "quick"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_where_channels_last_has_been_measured_it_is_used(place: str, quick: bool) -> None:
    assert (memory_format(place) is torch.channels_last) is quick


@pytest.mark.parametrize(
    ("name", "n_steps", "tuned"),
    [
        ("cuda", TUNED_STEPS, True),
        ("cuda", TUNED_STEPS - 1, False),
        ("cpu", 10 * TUNED_STEPS, False),
    ],
)
def test_algorithms_are_tried_in_long_trainings_on_a_gpu_only(name: str, n_steps: int, tuned: bool) -> None:
    assert tunes_convolutions(device_at(name), n_steps) is tuned
