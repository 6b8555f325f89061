"""What a page holds of a signal: the right stretches, to within half a step, in as many bytes as there are."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, CLASSES
from kagglehms.report.signals import (
    BLOCK_S,
    Form,
    Held,
    Packed,
    blocks_of,
    by_salience,
    encoded,
    envelope,
    pack,
    pack_stretch,
)


def decoded(content: bytes) -> NDArray[np.float64]:
    """(n, 20) µV by the description of the format alone, number by number."""
    raw = zlib.decompress(content)
    offsets, steps = np.frombuffer(raw[:80], "<f4"), np.frombuffer(raw[80:160], "<f4")
    planes = np.frombuffer(raw[160:], np.uint8).reshape(2, 20, -1).astype(int)
    folded = planes[0] + 256 * planes[1]
    changes = np.where(folded % 2, -(folded + 1) // 2, folded // 2)
    numbers = changes.cumsum(axis=0).cumsum(axis=1)
    numbers = (numbers + 2**15) % 2**16 - 2**15
    return np.where(numbers == -32768, np.nan, offsets[:, None] + numbers * steps[:, None].astype(float)).T


def noise(seconds: float, seed: int = 0, size_uv: float = 40.0) -> NDArray[np.float32]:
    """(n, 20) µV of a random walk that stays near zero, as EEG does."""
    from scipy.signal import lfilter

    white = np.random.default_rng(seed).normal(0, size_uv / 3, (int(seconds * 200), len(CHANNELS)))
    return lfilter([1], [1, -0.95], white, axis=0).astype(np.float32)


@pytest.mark.parametrize("step_uv", [0.5, 1.0])
def test_samples_are_kept_to_half_a_step_and_gaps_as_gaps(step_uv: float) -> None:
    uv = noise(3)
    uv[:, 3] += 45_000  # an amplifier without a high-pass
    uv[100:200, 5] = np.nan
    uv[:, 7] = np.nan
    found = decoded(encoded(uv, step_uv))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(uv))
    np.testing.assert_allclose(found, uv, atol=step_uv / 2 + 0.01, equal_nan=True)


def test_what_needs_more_than_sixteen_bits_is_kept_more_coarsely() -> None:
    uv = noise(2)
    uv[200:, 0] += 100_000  # a jump of a tenth of a volt
    found = decoded(encoded(uv, 0.5))
    np.testing.assert_allclose(found[:, 0], uv[:, 0], atol=4)
    np.testing.assert_allclose(found[:, 1:], uv[:, 1:], atol=0.26)


def unpacked(packed: Packed, n: int) -> NDArray[np.float64]:
    per_block = BLOCK_S * packed.form.hz
    out = np.full((packed.n_blocks * per_block, len(CHANNELS)), np.nan)
    for number, content in packed.blocks.items():
        out[number * per_block : (number + 1) * per_block] = decoded(content)
    return out[: n * packed.form.hz // 200]


def test_what_fits_is_kept_whole_and_fine() -> None:
    uv = noise(100)
    uv[40 * 200 : 50 * 200] = np.nan
    packed = pack(Held(uv), range(4), 10_000_000)
    assert packed.whole
    assert packed.form == Form(200, 0.5)
    np.testing.assert_allclose(unpacked(packed, len(uv)), uv, atol=0.26, equal_nan=True)


def test_what_does_not_fit_is_kept_at_half_the_rate_and_then_in_part() -> None:
    uv = noise(600)
    needed = sum(map(len, pack(Held(uv), range(20), 10**9).blocks.values()))
    halved = pack(Held(uv), range(20), int(needed * 0.8))
    assert (halved.whole, halved.form) == (True, Form(100, 1.0))
    room = needed // 8
    part = pack(Held(uv), [13, 2, *(n for n in range(20) if n not in (13, 2))], room)
    assert not part.whole
    assert part.form == Form(100, 1.0)
    assert {13, 2} <= set(part.blocks)
    assert len(part.blocks) < 10
    assert sum(map(len, part.blocks.values())) <= room


def test_half_the_rate_keeps_what_is_below_forty_hertz_and_nothing_beyond_fifty() -> None:
    t = np.arange(90 * 200) / 200
    for hz, gain in ((2, 1.0), (10, 1.0), (30, 1.0), (60, 0.0), (90, 0.0)):
        uv = (
            np.random.default_rng(0).normal(0, 40, (len(t), 20)).astype(np.float32)
        )  # too much to keep as it is
        uv[:, 0] = 400 * np.sin(2 * np.pi * hz * t)
        packed = pack_stretch(Held(uv), (30, 60), 110_000)
        assert packed.form == Form(100, 1.0), hz
        found = unpacked(packed, len(uv))[3000:6000, 0]
        np.testing.assert_allclose(found, gain * uv[6000:12_000:2, 0], atol=4, err_msg=f"{hz} Hz")


def test_interruptions_cost_nothing() -> None:
    uv = np.full((3600 * 200, 20), np.nan, np.float32)
    uv[: 30 * 200] = noise(30)
    uv[-15 * 200 :] = noise(15)
    packed = pack(Held(uv), range(120), 10**7)
    assert sorted(packed.blocks) == [0, 119]
    assert packed.whole


def test_of_a_stretch_its_own_blocks_are_kept() -> None:
    packed = pack_stretch(Held(noise(300)), (65, 120), 10**7)
    assert sorted(packed.blocks) == [2, 3]
    assert packed.form == Form(200, 0.5)
    assert blocks_of((0, 30), 10) == [0]
    assert blocks_of((-20, 31), 10) == [0, 1]
    assert blocks_of((290, 999), 10) == [9]


def test_what_is_most_likely_of_any_class_comes_first() -> None:
    n = 360
    probabilities = np.full((n, 6), 0.02)
    probabilities[:, 5] = 0.9
    places = {"seizure": 50, "lpd": 120, "gpd": 200, "lrda": 250, "grda": 300}
    for name, place in places.items():
        probabilities[place, CLASSES.index(name)] = 0.95
        probabilities[place, 5] = 0.0
    probabilities[0] = np.nan
    start_s = 10.0 * np.arange(n)
    order = list(by_salience(start_s, probabilities, 120))
    assert sorted(order) == list(range(120))
    first = set(order[:25])
    for place in places.values():
        seen = {int((10 * place + t) // 30) for t in (-20, 0, 29.9)}
        assert seen <= first


def test_without_any_judged_window_stretches_are_spread_evenly() -> None:
    order = list(by_salience(10.0 * np.arange(60), np.full((60, 6), np.nan), 20))
    assert sorted(order) == list(range(20))
    assert max(np.diff(sorted(order[:8]))) <= 5


def test_the_envelope_is_the_peak_to_peak_voltage_of_every_second() -> None:
    uv = noise(701)
    uv[60 * 200 : 61 * 200, 0] = np.nan
    found = envelope(Held(uv))
    assert found.step_s == 1
    assert found.levels_DT.shape == (18, 701)
    fp1_f7 = uv[:, 0] - uv[:, CHANNELS.index("F7")]
    expected = np.ptp(fp1_f7.reshape(-1, 200), axis=1)
    shown = 2.0 ** (found.levels_DT[0] / 16.0) - 1
    assert found.levels_DT[0, 60] == 255
    known = np.arange(701) != 60
    np.testing.assert_allclose(shown[known], expected[known], rtol=0.03)
