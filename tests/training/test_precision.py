"""Choices that depend on the device and on the length of a training."""

from __future__ import annotations

import pytest
from devices import device_at

from kagglehms.training.precision import TUNED_STEPS, tunes_convolutions


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
