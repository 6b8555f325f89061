"""The signal's parts, each against what it is said to be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import find_peaks, welch

from kagglehms.data.competition import CHAINS, CHANNELS, SFREQ_HZ
from kagglehms.simulator.background import States, rhythms
from kagglehms.simulator.patterns import patterns
from kagglehms.simulator.scalp import (
    POSITIONS,
    delayed,
    distances,
    hemisphere,
    mixing,
    one_electrode,
    shaped_noise,
)
from kagglehms.simulator.signal import MARGIN_S, Patient, Segment, simulate_study
from kagglehms.simulator.spectrogram import rows_of

SECONDS = 120
N_TIMES = SECONDS * SFREQ_HZ
QUIET = Patient()


def study(
    patient: Patient, seed: int = 0, truth: tuple[float, ...] = (0, 0, 0, 0, 0, 1)
) -> NDArray[np.float32]:
    return simulate_study(SECONDS, [(Segment(40, 80, truth),)], patient, np.random.default_rng(seed))


def added(seed: int = 0, **what: float) -> NDArray[np.float32]:
    """What one property of a patient adds to the signal of the same patient without it, (20, n_times)."""
    return study(replace(QUIET, **what), seed) - study(QUIET, seed)  # type: ignore[arg-type]


def loudest(difference_CT: NDArray[np.float32]) -> list[str]:
    return [CHANNELS[i] for i in np.argsort(-difference_CT[:19].std(axis=1))]


def power(x_CT: NDArray[np.float32], low_hz: float, high_hz: float) -> NDArray[np.float64]:
    hz, density = welch(x_CT, SFREQ_HZ, nperseg=1024)
    return density[:, (hz >= low_hz) & (hz < high_hz)].sum(axis=1)


def test_noise_has_unit_variance_and_its_spectrum() -> None:
    amplitude = np.zeros(N_TIMES // 8)
    amplitude[5 * SECONDS : 10 * SECONDS] = 1
    noise = shaped_noise(amplitude, 3, N_TIMES, np.random.default_rng(0))
    np.testing.assert_allclose(noise.var(axis=1), 1, rtol=0.1)
    assert (power(noise, 5, 10) > 0.97 * power(noise, 0, 100)).all()


def test_one_over_f_falls_with_the_patients_exponent() -> None:
    slopes = []
    for exponent in (1.8, 2.8):
        x = study(replace(QUIET, spectral_exponent=exponent, floor_uv=0, slow_uv=0))[:19]
        hz, density = welch(x, SFREQ_HZ, nperseg=1024)
        fitted = (hz > 5) & (hz < 40)
        slopes.append(np.polyfit(np.log(hz[fitted]), np.log(density.mean(axis=0)[fitted]), 1)[0])
    np.testing.assert_allclose(slopes, (-1.8, -2.8), atol=0.15)


def test_near_electrodes_are_more_alike() -> None:
    correlation = np.corrcoef(study(QUIET)[:19])
    at = {name: i for i, name in enumerate(CHANNELS)}
    near = correlation[at["Fp1"], at["F3"]]
    far = correlation[at["Fp1"], at["O2"]]
    assert near > far + 0.2
    np.testing.assert_allclose((mixing(0.4) ** 2).sum(axis=1), 1, rtol=1e-5)


def test_asymmetry_makes_one_side_louder() -> None:
    x = study(replace(QUIET, asymmetry=0.5))
    std = dict(zip(CHANNELS, x.std(axis=1), strict=True))
    assert std["T4"] > 1.5 * std["T3"]
    assert std["C4"] > std["C3"]


def test_alpha_is_at_the_back_and_only_awake() -> None:
    awake = replace(QUIET, alpha_uv=12, alpha_hz=10)
    states = {
        name: States(*(np.full(N_TIMES, value, np.float32) for value in values))
        for name, values in {"awake": (1, 0.3, 0, 1), "slow": (0, 1, 0, 1)}.items()
    }
    sources = rhythms(N_TIMES, awake, states["awake"], np.random.default_rng(0))
    scalp = sum(np.outer(s.field_C, s.course_T) for s in sources)
    assert loudest(scalp)[0] in {"O1", "O2"}
    assert (power(scalp, 8, 12) > 0.95 * power(scalp, 0, 100)).all()
    assert not rhythms(N_TIMES, awake, states["slow"], np.random.default_rng(0))


def test_sleep_brings_spindles_over_the_centre() -> None:
    asleep = States(*(np.full(N_TIMES, value, np.float32) for value in (0.1, 1, 1, 1)))
    spindles, vertex = rhythms(N_TIMES, QUIET, asleep, np.random.default_rng(0))
    assert CHANNELS[int(spindles.field_C.argmax())] == "Cz"
    assert power(spindles.course_T[None], 11, 15)[0] > 0.9 * power(spindles.course_T[None], 0, 100)[0]
    assert np.abs(vertex.course_T).max() > 25


def test_burst_suppression_has_bursts_and_silence() -> None:
    suppressed = replace(QUIET, state="suppressed", reference_uv=0)
    quiet = []
    for seed in range(4):
        rms = study(suppressed, seed)[:19].reshape(19, -1, SFREQ_HZ).std(axis=2).mean(axis=0)
        quiet.append(np.quantile(rms, 0.2) / np.quantile(rms, 0.95))
    assert min(quiet) < 0.3
    steady = study(QUIET)[:19].reshape(19, -1, SFREQ_HZ).std(axis=2).mean(axis=0)
    assert np.quantile(steady, 0.2) / np.quantile(steady, 0.95) > 0.4


def test_artefacts_are_where_they_belong() -> None:
    blinks = added(blinks_per_min=15)
    assert set(loudest(blinks)[:2]) == {"Fp1", "Fp2"}
    muscle = added(muscle_uv=20)
    assert {"T3", "T4", "F7", "F8", "Fp1", "Fp2"} >= set(loudest(muscle)[:3])
    assert power(muscle[:19], 20, 100).sum() > 2 * power(muscle[:19], 0, 20).sum()
    line = added(line_uv=5)
    assert (power(line[:19], 59, 61) > 0.95 * power(line[:19], 0, 100)).all()
    sway = added(sway_uv=60)
    assert power(sway[:19], 0, 0.8).sum() > 0.9 * power(sway[:19], 0, 100).sum()
    pops = added(pops_per_min=5)
    assert np.count_nonzero(pops[:19].std(axis=1) > 1e-3) == 1
    moved = added(seed=2, moves_per_min=2)
    assert np.abs(moved[:19]).max() > 30
    for difference in (blinks, muscle, line, sway, pops, moved):
        np.testing.assert_array_equal(difference[19], 0)


def test_the_heart_is_on_its_channel_and_its_trace_on_the_scalp() -> None:
    x = study(replace(QUIET, heart_uv=8, heart_hz=1.5))
    ekg, trace = x[19], added(heart_uv=8, heart_hz=1.5)[:19]
    beat = np.abs(np.correlate(ekg - ekg.mean(), trace[CHANNELS.index("T4")], "valid"))
    assert beat[0] > 0
    assert np.abs(np.corrcoef(ekg, trace[CHANNELS.index("T4")])[0, 1]) > 0.2


def test_a_flat_electrode_is_flat() -> None:
    x = study(replace(QUIET, flat=1.0))[:19]
    runs = x[:, : N_TIMES // 200 * 200].reshape(19, -1, 200).std(axis=2)
    flat = (runs < 0.1).sum(axis=1)
    assert 1 <= np.count_nonzero(flat >= 3) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_discharges_repeat_at_their_rate(seed: int) -> None:
    """0.5–3 Hz, by the autocorrelation of the envelope of what the pattern adds."""
    truth = (0, 1.0, 0, 0, 0, 0)
    sources = patterns(N_TIMES, [(Segment(0, 110, truth),)], QUIET, np.random.default_rng(seed))
    course = np.abs(sources[0].course_T[20 * SFREQ_HZ : 100 * SFREQ_HZ].astype(np.float64))
    course -= course.mean()
    spectrum = np.abs(np.fft.rfft(course, 2 * len(course))) ** 2
    correlation = np.fft.irfft(spectrum)[: 3 * SFREQ_HZ]
    lag = 60 + int(correlation[60:].argmax())
    assert SFREQ_HZ / lag * 1.15 >= 0.5
    assert SFREQ_HZ / lag <= 3 * 1.15


def test_a_lateral_field_is_over_one_hemisphere() -> None:
    field = dict(zip(CHANNELS, hemisphere(-1, 0, 0.5), strict=False))
    assert min(field[name] for name in ("C3", "T3")) > 0.6
    assert max(field[name] for name in ("C4", "T4", "F4", "P4")) < 0.35


def test_a_seizure_slows_grows_and_spreads() -> None:
    truth = (1.0, 0, 0, 0, 0, 0)
    slowed, grown = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        near, wide = patterns(N_TIMES, [(Segment(40, 80, truth),)], QUIET, rng)[:2]
        active = np.flatnonzero(np.abs(near.course_T) > 1)
        thirds = np.array_split(near.course_T[active[0] : active[-1]], 3)
        crossings = [np.count_nonzero(np.diff(np.signbit(third))) / len(third) for third in thirds]
        slowed.append(crossings[2] / crossings[0])
        grown.append(np.abs(thirds[2]).mean() / np.abs(thirds[0]).mean())
        later = np.array_split(wide.course_T[active[0] : active[-1]], 3)
        assert np.abs(later[2]).mean() > 2 * np.abs(later[0]).mean()
    assert np.median(slowed) < 0.8
    assert np.median(grown) > 1.2


def test_a_pattern_is_as_strong_as_its_class_is_probable() -> None:
    heights = []
    for p in (0.05, 0.3, 0.9):
        truth = (0, 0, 0, 0, p, 1 - p)
        sums = []
        for seed in range(8):
            sources = patterns(N_TIMES, [(Segment(0, 110, truth),)], QUIET, np.random.default_rng(seed))
            sums.append(max(s.course_T.std() * s.field_C.max() for s in sources))
        heights.append(np.median(sums))
    assert heights[0] < 0.6 * heights[1] < 0.6 * heights[2]


def test_rows_of_a_gap() -> None:
    """Row r looks at seconds 2r − 1 … 2r + 3 of the study."""
    for first_s, last_s in ((0, 1), (5, 5.5), (7, 30), (100, 100.005)):
        first, last = (round((MARGIN_S + s) * SFREQ_HZ) for s in (first_s, last_s))
        rows = rows_of(first, last)
        touched = [r for r in range(60) if 2 * r - 1 < last_s and 2 * r + 3 > first_s]
        assert list(range(rows.start, rows.stop)) == touched


@pytest.mark.parametrize(("irregularity", "least", "most"), [(0.0, 0.0, 0.15), (1.0, 0.15, 0.6)])
def test_irregular_discharges_come_at_uneven_intervals(
    irregularity: float, least: float, most: float
) -> None:
    patient = replace(QUIET, irregularity=irregularity)
    found = []
    for seed in range(6):
        sources = patterns(
            N_TIMES, [(Segment(0, 110, (0, 1.0, 0, 0, 0, 0)),)], patient, np.random.default_rng(seed)
        )
        x_T = np.abs(sources[0].course_T)
        peaks, _ = find_peaks(x_T, height=0.35 * x_T.max(), distance=SFREQ_HZ // 4)
        intervals = np.diff(peaks)
        intervals = intervals[intervals < 1.6 * np.median(intervals)]
        found.append(intervals.std() / intervals.mean())
    assert least <= np.median(found) <= most


def test_rhythmic_delta_keeps_neighbouring_cycles_alike() -> None:
    """By the terminology, most cycles differ from the one before by less than half."""
    patient = replace(QUIET, irregularity=1.0)
    for seed in range(6):
        sources = patterns(
            N_TIMES, [(Segment(0, 110, (0, 0, 0, 1.0, 0, 0)),)], patient, np.random.default_rng(seed)
        )
        loudest = max(sources, key=lambda source: source.course_T.std() * source.field_C.max())
        hz, power = welch(loudest.course_T, SFREQ_HZ, nperseg=2048)
        assert 0.7 < hz[power.argmax()] < 4.2
        rising = np.flatnonzero(np.diff(np.signbit(loudest.course_T).astype(int)) < 0)
        cycles = np.diff(rising)[SFREQ_HZ // 50 :]
        cycles = cycles[cycles > SFREQ_HZ // 6]
        change = np.abs(np.diff(cycles)) / cycles[:-1]
        assert np.mean(change < 0.5) > 0.75


def test_a_lesion_is_slower_and_less_fast_than_the_other_side() -> None:
    for side, over, opposite in ((-1.0, "C3", "C4"), (1.0, "C4", "C3")):
        patient = replace(QUIET, lesion=1.2, side=side, slow_uv=20, floor_uv=0.05)
        studies = [
            study(patient, seed)[[CHANNELS.index(over), CHANNELS.index(opposite)]] for seed in range(4)
        ]
        slow, fast = (
            np.median([p[0] / p[1] for x in studies for p in (power(x, *band),)])
            for band in ((1, 4), (12, 25))
        )
        assert slow > 1.3
        assert fast < 0.9


def test_sedatives_add_beta_and_a_breach_is_over_one_place() -> None:
    beta = study(replace(QUIET, beta=2.0))
    assert np.median(power(beta[:19], 14, 25) / power(study(QUIET)[:19], 14, 25)) > 1.5
    breach = study(replace(QUIET, breach=1.5, lesion=0.0))[:19].std(axis=1) / study(QUIET)[:19].std(axis=1)
    assert breach.max() > 1.4
    assert np.quantile(breach, 0.5) < 1.1


def test_restless_regions_change_from_second_to_second_on_their_own() -> None:
    level = np.log(study(replace(QUIET, restlessness=0.6))[:19].reshape(19, -1, SFREQ_HZ).std(axis=2))
    steady = np.log(study(QUIET)[:19].reshape(19, -1, SFREQ_HZ).std(axis=2))
    assert np.median(level.std(axis=1)) > 1.2 * np.median(steady.std(axis=1))
    correlation = np.corrcoef(level[CHANNELS.index("Fp1")], level[CHANNELS.index("O2")])[0, 1]
    assert correlation < 0.5


def test_one_electrodes_field_and_a_delay() -> None:
    assert np.count_nonzero(one_electrode(np.random.default_rng(0))) == 1
    course = np.arange(1000, dtype=np.float32)
    np.testing.assert_array_equal(delayed(course, 0.05)[10:], course[:-10])
    np.testing.assert_array_equal(delayed(course, 0.05)[:10], 0)
    np.testing.assert_array_equal(delayed(course, 0), course)


def test_distances_along_the_head() -> None:
    """T3 and T4 are 144° apart; the vertex is 72° from both; the electrodes of a chain are about equally far apart."""
    at = {name: POSITIONS[i] for i, name in enumerate(CHANNELS[:19])}
    cz, t3, t4 = (np.array([at[name]]) for name in ("Cz", "T3", "T4"))
    assert distances(t3, t4).item() == pytest.approx(2, abs=1e-5)
    assert distances(cz, t3).item() == pytest.approx(1, abs=1e-6)
    steps = [
        distances(np.array([at[a]]), np.array([at[b]])).item()
        for chain in CHAINS.values()
        for a, b in pairwise(chain)
    ]
    assert max(steps) / min(steps) < 1.3
