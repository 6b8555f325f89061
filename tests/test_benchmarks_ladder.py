"""What the ladder's tables and its picture say of predictions whose scores are known."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs_folder import oof_table

from kagglehms.data.records import Records
from kagglehms.simulator.votes import KIND_SHARES_GM, KINDS_MK, vote_group


@pytest.fixture
def report(benchmarks: Path) -> ModuleType:
    import _ladder_report

    return _ladder_report


@pytest.fixture
def results(report: ModuleType) -> Any:
    """The truth is what was voted, so that the perfect predictor scores 0."""
    records = Records(oof_table(300))
    truth_NK = records.targets_NK
    prior_NK = np.tile(truth_NK.mean(axis=0), (len(records), 1))
    uniform_NK = np.full_like(truth_NK, 1 / 6)
    floors = {"perfect predictor": truth_NK, "electrodes' energy": uniform_NK, "class prior": prior_NK}
    predictions = {
        "baseline": {0: truth_NK, 1: prior_NK},
        "global-stats": {0: uniform_NK, 1: uniform_NK},
        "kaggle-ensemble": {0: (truth_NK + uniform_NK) / 2, 1: (prior_NK + uniform_NK) / 2},
    }
    return report.Results(records, truth_NK, predictions, floors, (1, 5))


def kl(truth_NK: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], guess: np.ndarray[Any, Any]) -> float:
    """The mean divergence of the masked rows, term by term."""
    terms = [
        sum(p * np.log(p / q) for p, q in zip(t, g, strict=True) if p > 0)
        for t, g in zip(truth_NK[mask], guess[mask], strict=True)
    ]
    return float(np.mean(terms))


def test_the_way_is_one_for_the_truth_and_none_for_the_prior(report: ModuleType, results: Any) -> None:
    found = report.ways(report.scores(results))
    assert found["baseline"] == [pytest.approx([1, 1, 1], abs=1e-9), pytest.approx([0, 0, 0], abs=1e-9)]
    truth_NK, prior_NK = results.truth_NK, results.floors["class prior"]
    uniform_NK = results.predictions["global-stats"][0]
    for k, mask in enumerate((np.ones(300, bool), results.records.many, results.records.settled)):
        wanted = 1 - kl(truth_NK, mask, uniform_NK) / kl(truth_NK, mask, prior_NK)
        assert found["global-stats"][1][k] == pytest.approx(wanted, abs=1e-9)
    assert "| `baseline`" in report.report(results, "made of nothing")


def test_the_picture_shows_each_seed_where_it_is(
    report: ModuleType, results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import _ladder_picture

    found = report.ways(report.scores(results))
    shown = _ladder_picture.picture(results)
    names = [label.get_text() for label in shown.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(results.predictions)
    means = [np.mean([seed[0] for seed in found[name]]) for name in names]
    assert means == sorted(means)
    for k, axis in enumerate(shown.axes):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        assert [list(line.get_xdata()) for line in dots] == [
            [seed[k] for seed in found[name]] for name in names
        ]
        hollow = {name for name, line in zip(names, dots, strict=True) if line.get_mfc() != line.get_color()}
        assert hollow == {"kaggle-ensemble"}
    _ladder_picture.draw(results, tmp_path / "ladder.png")
    with Image.open(tmp_path / "ladder.png") as picture:
        assert picture.width > 800


def test_all_that_was_trained_is_averaged_seed_by_seed(report: ModuleType, results: Any) -> None:
    singles = {name: results.predictions[name] for name in ("baseline", "global-stats")}
    mean = report._blends(singles)[report.MEAN]
    for seed in (0, 1):
        wanted = (singles["baseline"][seed] + singles["global-stats"][seed]) / 2
        np.testing.assert_allclose(mean[seed], wanted)
    assert report._blends({"baseline": singles["baseline"]}) == {}
    assert list(report._blends({**singles, "baseline": {1: results.truth_NK}})[report.MEAN]) == [1]


def test_who_knows_the_majority_answers_with_the_mean_of_its_records(benchmarks: Path) -> None:
    from _oracles import knows_the_class

    truth_NK = np.array([(0.8, 0.2, 0), (0.1, 0.2, 0.7), (0.6, 0, 0.4), (0.5, 0.3, 0.2)])
    found_NK = knows_the_class(truth_NK)
    first = (1.9 / 3, 0.5 / 3, 0.6 / 3)
    np.testing.assert_allclose(found_NK, [first, (0.1, 0.2, 0.7), first, first])


def test_who_knows_more_of_the_truth_comes_closer_to_it(benchmarks: Path) -> None:
    from _oracles import knows_the_class, knows_the_kind

    rng = np.random.default_rng(0)
    n_votes_N = rng.choice([1, 3, 5, 12, 18], 400)
    shares_NM = KIND_SHARES_GM[[vote_group(n) for n in n_votes_N]]
    kinds_N = np.array([rng.choice(16, p=shares_M) for shares_M in shares_NM])
    truth_NK = np.array([rng.dirichlet(KINDS_MK[kind]) for kind in kinds_N])
    of_kind_NK = (KINDS_MK / KINDS_MK.sum(axis=1, keepdims=True))[kinds_N]
    everything = np.ones(400, bool)
    told, believed, majority = (
        kl(truth_NK, everything, guess)
        for guess in (of_kind_NK, knows_the_kind(truth_NK, n_votes_N), knows_the_class(truth_NK))
    )
    # The kind is seen in the truth, so that who infers it knows a little more than who is told.
    assert 0.7 * told < believed < 1.02 * told
    assert (
        believed < 0.9 * majority < 0.9 * kl(truth_NK, everything, truth_NK.mean(axis=0)[None].repeat(400, 0))
    )


def drawn_truths(n_votes_N: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    kinds_N = [rng.choice(16, p=KIND_SHARES_GM[vote_group(n)]) for n in n_votes_N]
    return np.array([rng.dirichlet(KINDS_MK[kind]) for kind in kinds_N])


def test_who_measures_patterns_is_right_on_average(benchmarks: Path) -> None:
    """A mean over all that can be true: neither surer nor less sure than the truth, whatever the answer is."""
    from _oracles import sees_the_strengths

    rng = np.random.default_rng(0)
    n_votes_N = rng.choice([1, 3, 5, 12, 18], 4000)
    truth_NK = drawn_truths(n_votes_N, rng)
    answers_NK = sees_the_strengths(truth_NK, n_votes_N)
    np.testing.assert_allclose(answers_NK.sum(axis=1), 1)
    for answer_N, truth_N in zip(answers_NK.T, truth_NK.T, strict=True):
        slope, offset = np.polyfit(answer_N, truth_N, 1)
        assert slope == pytest.approx(1, abs=0.06)
        assert offset == pytest.approx(0, abs=0.015)


def test_who_sees_weaker_patterns_comes_closer(benchmarks: Path) -> None:
    from _oracles import sees_the_strengths

    rng = np.random.default_rng(1)
    n_votes_N = rng.choice([3, 15], 600)
    truth_NK = drawn_truths(n_votes_N, rng)
    everything = np.ones(600, bool)
    best, usual, worst = (
        kl(truth_NK, everything, sees_the_strengths(truth_NK, n_votes_N, least)) for least in (0.1, 1.0, 1e6)
    )
    assert 0 < best < 0.8 * usual < 0.4 * worst
    # Who sees no pattern at all can only say how frequent truths are where so many have voted.
    means_NK = np.empty_like(truth_NK)
    for n in (3, 15):
        shares_M = KIND_SHARES_GM[vote_group(n)]
        means_NK[n_votes_N == n] = shares_M @ (KINDS_MK / KINDS_MK.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(sees_the_strengths(truth_NK, n_votes_N, 1e6), means_NK, atol=0.01)
