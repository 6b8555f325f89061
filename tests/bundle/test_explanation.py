"""What is hidden, and whether what carries a planted pattern comes first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from built_bundle import OWNER
from folders import power_of_record
from runs_folder import forget_digests, make_run
from stand_ins import stand_in

from kagglehms.bundle.explanation import CHAIN_NAMES, explain, without_chain, without_second
from kagglehms.bundle.predictor import load_bundle
from kagglehms.data.competition import CHANNELS, CLASSES, N_TIMES, SFREQ_HZ, SPECTROGRAM_COLUMNS
from kagglehms.data.records import read_records
from kagglehms.errors import UsageError
from kagglehms.inputs.layouts import Crop, Normaliser
from kagglehms.packing.build import build
from kagglehms.runs.folder import RunFolder
from kagglehms.simulator.background import Patient, States, background
from kagglehms.simulator.patterns import Segment, patterns
from kagglehms.simulator.scalp import MARGIN_S, field
from kagglehms.training.checkpoint import WEIGHTS, save_weights
from kagglehms.training.models import head_layers, make_model

CHAINS = {
    "LL": ("Fp1", "F7", "T3", "T5", "O1"),
    "RL": ("Fp2", "F8", "T4", "T6", "O2"),
    "LP": ("Fp1", "F3", "C3", "P3", "O1"),
    "RP": ("Fp2", "F4", "C4", "P4", "O2"),
}
START = MARGIN_S * SFREQ_HZ
N_STUDY_S = 60


def test_a_hidden_chain_has_no_difference_left_and_the_others_all_of_theirs() -> None:
    rng = np.random.default_rng(0)
    eeg_uv = rng.normal(0, 50, (N_TIMES, len(CHANNELS))).astype(np.float16)
    power = rng.normal(0, 2, (300, 400)).astype(np.float16)
    for hidden in CHAINS:
        crop = without_chain(Crop(power, eeg_uv), hidden)
        assert crop.eeg_uv is not None
        assert crop.log_power is not None
        for chain, electrodes in CHAINS.items():
            columns = [CHANNELS.index(name) for name in electrodes]
            missing = np.isnan(np.diff(crop.eeg_uv[:, columns].astype(np.float32), axis=1))
            assert missing.all() if chain == hidden else not missing.any()
            panel = [i for i, name in enumerate(SPECTROGRAM_COLUMNS) if name.startswith(f"{chain}_")]
            assert np.isnan(crop.log_power[:, panel]).all() == (chain == hidden)
            assert np.isnan(crop.log_power[:, panel]).any() == (chain == hidden)
    assert not np.isnan(eeg_uv).any()
    assert not np.isnan(power).any()


def test_a_hidden_second_is_missing_everywhere_and_so_is_the_spectrogram_around_it() -> None:
    eeg_uv, power = np.zeros((N_TIMES, 20), np.float16), np.zeros((300, 400), np.float16)
    crop = without_second(Crop(power, eeg_uv), 7)
    assert crop.eeg_uv is not None
    assert crop.log_power is not None
    assert np.flatnonzero(np.isnan(crop.eeg_uv).all(axis=1)).tolist() == list(range(1400, 1600))
    # The window begins 275 s into the ten minutes; rows are of 2 s.
    assert np.flatnonzero(np.isnan(crop.log_power).all(axis=1)).tolist() == [141]
    assert np.isnan(crop.log_power).sum() == 400


def strength(crops: Sequence[Crop]) -> np.ndarray:
    """A judge that knows one thing: the power of the differences' slopes is evidence of `lpd`."""
    found = np.zeros((len(crops), len(CLASSES)))
    for row, crop in zip(found, crops, strict=True):
        assert crop.eeg_uv is not None
        uv = crop.eeg_uv.astype(np.float64)
        evidence = sum(
            np.nansum(np.diff(uv[:, CHANNELS.index(a)] - uv[:, CHANNELS.index(b)]) ** 2)
            for electrodes in CHAINS.values()
            for a, b in itertools.pairwise(electrodes)
        )
        row[CLASSES.index("lpd")] = evidence / (evidence + 1e7)
        row[CLASSES.index("other")] = 1 - row[CLASSES.index("lpd")]
    return found


def quiet(rng: np.random.Generator) -> tuple[np.ndarray, Patient]:
    """(19, n) µV of background activity without patterns and artefacts, and its patient."""
    patient, n_times = Patient.draw(rng).quiet(), (N_STUDY_S + 2 * MARGIN_S) * SFREQ_HZ
    courses_NT, fields_CN = background(n_times, patient, States.draw(n_times, patient, rng), rng)
    return fields_CN @ courses_NT, patient


def crop_of(uv_CT: np.ndarray) -> Crop:
    with_ekg_CT = np.concatenate([uv_CT, np.zeros((1, uv_CT.shape[1]))])
    return Crop(eeg_uv=np.ascontiguousarray(with_ekg_CT[:, START : START + N_TIMES].T).astype(np.float16))


@pytest.mark.parametrize("seed", range(5))
def test_the_chain_that_carries_a_periodic_pattern_comes_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uv_CT, patient = quiet(rng)
    lateralised = Segment(20, 30, tuple(float(name == "lpd") for name in CLASSES))
    planted_CT = np.zeros_like(uv_CT)
    for source in patterns(uv_CT.shape[1], [(lateralised,)], patient, rng)[:1]:
        planted_CT += 3 * source.field_C[:, None] * source.course_T
    uv_CT += planted_CT
    names = list(CHANNELS)
    power = {
        chain: sum(
            np.square(np.diff(planted_CT[names.index(a)] - planted_CT[names.index(b)])).sum()
            for a, b in itertools.pairwise(electrodes)
        )
        for chain, electrodes in CHAINS.items()
    }
    found = explain(crop_of(uv_CT), strength)
    first, value = next(iter(found.chains_for("lpd").items()))
    assert first == max(power, key=lambda chain: power[chain])
    assert value > 0
    np.testing.assert_allclose(found.by_chain.sum(axis=1), 0, atol=1e-12)


def test_the_seconds_of_a_burst_come_first() -> None:
    rng = np.random.default_rng(1)
    uv_CT, _ = quiet(rng)
    times = np.arange(4 * SFREQ_HZ) / SFREQ_HZ
    burst = 600 * np.sin(2 * np.pi * 7 * times) * np.hanning(len(times))
    left = field(-1.0, 0.0, 0.3)  # over the left temporal region
    begin = START + 22 * SFREQ_HZ
    uv_CT[:, begin : begin + len(times)] += left[:, None] * burst
    found = explain(crop_of(uv_CT), strength)
    assert set(list(found.seconds_for("lpd"))[:2]) == {23, 24}
    assert next(iter(found.chains_for("lpd"))) == "LL"


def test_a_bundles_explanation_is_what_its_answers_to_gaps_say(dist: Path, competition_folder: Path) -> None:
    records = read_records(competition_folder / "train.csv")
    power = power_of_record(competition_folder, records, 0)
    predictor = load_bundle(dist / "dataset", "cpu")
    found = predictor.explain(spectrogram=power)
    whole_K = predictor.predict(spectrogram=power).probabilities
    np.testing.assert_allclose(found.probabilities, whole_K, atol=1e-6)
    for row, chain in enumerate(CHAIN_NAMES):
        gap = power.copy()
        gap[:, [i for i, name in enumerate(SPECTROGRAM_COLUMNS) if name.startswith(f"{chain}_")]] = np.nan
        wanted_K = whole_K - predictor.predict(spectrogram=gap).probabilities
        np.testing.assert_allclose(found.by_chain[row], wanted_K, atol=1e-5)
    assert not found.by_chain[CHAIN_NAMES.index("midline")].any()
    gap = power.copy()
    gap[150] = np.nan
    wanted_K = whole_K - predictor.predict(spectrogram=gap).probabilities
    np.testing.assert_allclose(found.by_second[25], wanted_K, atol=1e-5)
    table = found.to_polars()
    assert table.columns == ["hidden", "from_s", "to_s", *CLASSES]
    assert table.height == 55
    assert table.filter(pl.col("hidden") == "second")["from_s"].to_list() == list(range(50))
    assert found.most_likely in repr(found)


def test_a_bundle_of_signals_and_of_two_views_is_asked_with_both_recordings(tmp_path: Path) -> None:
    """Each chain and second is hidden from signals, folded image and panels at once, as a gap in what is given."""
    for name in ("effnet1d", "two-views"):
        recipe = stand_in(name)
        run = RunFolder(make_run(tmp_path / "runs", recipe, (0,)))
        torch.manual_seed(0)
        model, _ = make_model(recipe)
        with torch.no_grad():
            for head in head_layers(model, recipe):
                head.weight.mul_(20)  # as large as a trained one's
        save_weights(model, run.fold(0) / WEIGHTS, Normaliser({"kaggle": (0.5, 2.0)}))
        forget_digests(run.path)
    predictor = load_bundle(build(tmp_path / "runs", tmp_path / "dist", owner=OWNER).dataset, "cpu")
    rng = np.random.default_rng(2)
    eeg_uv = rng.normal(0, 60, (N_TIMES, len(CHANNELS))).astype(np.float32)
    power = rng.lognormal(0, 1, (300, len(SPECTROGRAM_COLUMNS))).astype(np.float32)
    found = predictor.explain(eeg_uv, spectrogram=power)
    whole_K = predictor.predict(eeg_uv, spectrogram=power).probabilities
    for row, chain in enumerate(CHAIN_NAMES):
        uv, gap = eeg_uv.copy(), power.copy()
        inner = ("Fz", "Cz", "Pz") if chain == "midline" else CHAINS[chain][1:-1]
        uv[:, [CHANNELS.index(name) for name in inner]] = np.nan
        gap[:, [i for i, name in enumerate(SPECTROGRAM_COLUMNS) if name.startswith(f"{chain}_")]] = np.nan
        wanted_K = whole_K - predictor.predict(uv, spectrogram=gap).probabilities
        np.testing.assert_allclose(found.by_chain[row], wanted_K, atol=1e-5)
    assert (np.abs(found.by_chain[:4]).max(axis=1) > 1e-4).all()
    for second in (0, 25, 49):
        uv, gap = eeg_uv.copy(), power.copy()
        uv[second * SFREQ_HZ : (second + 1) * SFREQ_HZ] = np.nan
        gap[(275 + second) // 2] = np.nan
        wanted_K = whole_K - predictor.predict(uv, spectrogram=gap).probabilities
        np.testing.assert_allclose(found.by_second[second], wanted_K, atol=1e-5)


def test_several_windows_are_refused(dist: Path) -> None:
    with pytest.raises(UsageError, match="explain takes one window, but got 2"):
        load_bundle(dist / "dataset", "cpu").explain(spectrogram=np.ones((2, 300, 400), np.float32))
