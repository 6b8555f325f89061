"""Units as headers spell them, and amplitudes that can or cannot be those of an EEG."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.data.units import deviation, doubt, microvolts


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("uV", 1), (" uV ", 1), ("UV", 1), ("µV", 1), ("μV", 1), ("ÂµV", 1), ("Î¼V", 1), ("microvolts", 1),
        ("MicroVolt", 1), ("uVolt", 1), ("mV", 1e3), ("millivolt", 1e3), ("V", 1e6), ("Volts", 1e6), ("nV", 1e-3),
        ("", 1),
    ],
)  # fmt: skip
def test_voltages_have_a_factor(unit: str, factor: float) -> None:
    assert microvolts(unit) == factor


@pytest.mark.parametrize("unit", ["%", "mmHg", "degC", "bpm", "none", "uV/Hz", "Boolean", "-"])
def test_other_units_have_none(unit: str) -> None:
    assert microvolts(unit) is None


def test_the_deviation_is_that_of_normal_numbers_whatever_their_offset_and_outliers() -> None:
    values = np.random.default_rng(0).normal(5000, 30, 100_000)
    values[::50] = 1e6
    values[1::50] = np.nan
    assert deviation(values) == pytest.approx(30, rel=0.05)
    assert deviation(np.full(9, np.nan)) == 0


@pytest.mark.parametrize("sizes", [[30.0], [0.5], [3000.0], [0.0, 0.0], [], [0, 0, 0, 25.0]])
def test_eeg_is_not_doubted(sizes: list[float]) -> None:
    assert doubt(sizes) == ""


@pytest.mark.parametrize(("size", "says"), [(30e-6, "V or mV"), (0.03, "V or mV"), (30_000, "no EEG")])
def test_other_sizes_are(size: float, says: str) -> None:
    assert says in doubt([size, size * 1.1, 0.0])
