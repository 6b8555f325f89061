"""The check of learning quality: its verdict with numbers worked out by hand, and the whole command in small."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def verdict(benchmarks: Path) -> ModuleType:
    import _learning_verdict

    return _learning_verdict


def test_the_limit_is_that_of_a_table_of_students_distribution(verdict: ModuleType) -> None:
    # Mean 0.60, variance (0.04 + 0.04) / 4, deviation 0.1414; t(4 degrees, 99.5 %) = 4.604 in any printed table.
    reference = [0.40, 0.60, 0.60, 0.60, 0.80]
    limit = verdict.least_expected(reference, n_seeds=2)
    assert limit == pytest.approx(0.60 - 4.604 * 0.141421 * math.sqrt(1 / 2 + 1 / 5), abs=1e-4)
    # t(4 degrees, 95 %) = 2.132, and a single new seed.
    limit = verdict.least_expected(reference, n_seeds=1, false_alarms=0.05)
    assert limit == pytest.approx(0.60 - 2.132 * 0.141421 * math.sqrt(1 + 1 / 5), abs=1e-4)


def test_seeds_alone_raise_as_many_false_alarms_as_are_allowed(verdict: ModuleType) -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.7, 0.02, (4000, 6))
    alarms = sum(row[4:].mean() < verdict.least_expected(row[:4].tolist(), 2, 0.05) for row in draws)
    assert 0.04 < alarms / len(draws) < 0.06


def test_a_shorter_way_fails_and_is_named_in_one_line(verdict: ModuleType) -> None:
    # t(1 degree, 99.5 %) = 63.657, deviation 0.0001 · √2, √(1/2 + 1/2) = 1: the limit is 0.0090 below 0.7000.
    reference = {"one": [0.6999, 0.7001], "other": [0.6999, 0.7001]}
    verdicts = verdict.judge({"one": [0.70, 0.66], "other": [0.692, 0.693]}, reference)
    assert [v.failed for v in verdicts] == [True, False]
    assert verdicts[0].least == pytest.approx(0.7 - 63.657 * 0.000141421, abs=1e-5)
    line = verdict.complaint(verdicts)
    assert all(part in line for part in ("one", "68.0%", "69.1%"))
    assert not any(part in line for part in ("other", "\n"))


def test_a_way_within_the_scatter_passes_in_silence(verdict: ModuleType) -> None:
    verdicts = verdict.judge({"one": [0.66, 0.70]}, {"one": [0.66, 0.68, 0.70, 0.72]})
    assert verdict.complaint(verdicts) == ""
    assert not verdicts[0].improved


def test_a_much_longer_way_is_no_failure_but_an_improvement(verdict: ModuleType) -> None:
    (found,) = verdict.judge({"one": [0.95]}, {"one": [0.66, 0.67, 0.66, 0.67]})
    assert found.improved
    assert not found.failed


def test_a_way_that_is_not_a_number_fails(verdict: ModuleType) -> None:
    (found,) = verdict.judge({"one": [math.nan]}, {"one": [0.66, 0.68]})
    assert found.failed


def test_what_differs_from_the_reference_is_named(verdict: ModuleType) -> None:
    facts = {"records": 431, "prior": 1.5, "settings": {"lr": 2e-3}}
    assert verdict.differences(facts, facts | {"prior": 1.5 + 1e-8}) == ""
    found = verdict.differences(facts, {"records": 431, "prior": 1.6, "settings": {"lr": 1e-3}})
    assert all(part in found for part in ("prior 1.6 → 1.5", "settings"))
    assert "records" not in found
    assert "new" in verdict.differences({"new": 1}, {})


@pytest.fixture
def check(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command, with two epochs of each stage at most, and as loud as the other tests."""
    import learning_check

    monkeypatch.setattr(learning_check, "EPOCHS", {"global-norm": [2], "stft-50-10": [1, 1]})
    monkeypatch.setattr(learning_check, "be_quiet", lambda: None)
    return learning_check


@pytest.mark.slow(30)
def test_the_command_measures_a_reference_and_judges_by_it(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = check.FixedSet.make(tmp_path / "set", 12)
    held_out = set(fixed.dataset.records.patients[fixed.dataset.folds == 0])
    assert held_out
    assert not held_out & set(fixed.dataset.records.patients[fixed.dataset.folds == 1])
    assert fixed.perfect < fixed.prior
    (trained,) = check.measure(fixed, [0], tmp_path / "runs")
    assert all(-10 < way < 1 for (way,) in trained.values())

    path = tmp_path / "reference.json"
    options = ["--eegs", "12", "--set", str(tmp_path / "set"), "--reference", str(path)]
    assert check.main(options) == 2  # there is none yet
    ways = iter([0.60, 0.50, 0.62, 0.52, 0.61, 0.51])
    monkeypatch.setattr(check.FixedSet, "way", lambda *_: next(ways))
    assert check.main([*options, "--update", "--seeds", "5", "6", "7"]) == 0
    reference = json.loads(path.read_text(encoding="utf-8"))
    assert reference["ways"] == {"global-norm": [0.60, 0.62, 0.61], "stft-50-10": [0.50, 0.52, 0.51]}
    assert reference["seeds"] == [5, 6, 7]

    # Deviation 0.01, t(2 degrees, 99.5 %) = 9.925: the limits for two seeds are 0.0906 below the means.
    ways = iter([0.60, 0.50, 0.61, 0.50])
    assert check.main(options) == 0
    ways = iter([0.50, 0.50, 0.50, 0.50])
    capsys.readouterr()
    assert check.main(options) == 1
    assert "global-norm comes 50.0% of the way" in capsys.readouterr().err.splitlines()[-1]

    path.write_text(json.dumps(reference | {"facts": reference["facts"] | {"records": 1}}), encoding="utf-8")
    assert check.main(options) == 2
    poor = {name: [0.2, 0.8] for name in reference["ways"]}
    path.write_text(json.dumps(reference | {"ways": poor}), encoding="utf-8")
    assert check.main(options) == 2
    assert "too few" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def faults(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The faults that can be planted; whatever they replace is put back after the test."""
    import _planted_faults

    from kagglehms.training import image_networks, step
    from kagglehms.training.feed import Feed
    from kagglehms.training.feed_draws import FeedDraws

    replaced = (
        (image_networks, "reset_classifier"),
        (step, "make_schedule"),
        (Feed, "_targets_of"),
        (FeedDraws, "starts"),
    )
    for owner, name in replaced:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return _planted_faults


def test_the_planted_head_is_far_beyond_the_bound_of_the_right_one(faults: ModuleType) -> None:
    from kagglehms.training.models import head_layers, make_model
    from kagglehms.training.recipes import get_recipe

    recipe = get_recipe("demo")

    def largest() -> float:
        (layer,) = head_layers(make_model(recipe)[0], recipe)
        return float(layer.weight.detach().abs().max()) * math.sqrt(layer.weight.shape[1])

    assert largest() <= 1
    faults.FAULTS["large-head"]()
    assert 10 < largest() <= 15


def test_the_planted_rate_never_changes(faults: ModuleType) -> None:
    import torch

    from kagglehms.training import step
    from kagglehms.training.recipes import get_recipe

    recipe = get_recipe("demo")
    faults.FAULTS["constant-rate"]()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = step.make_schedule(recipe, optimizer, 20, recipe.stages[0])
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert set(rates) == {rates[0]}
    assert rates[0] == pytest.approx(recipe.lr, rel=0.01)


def test_a_quarter_of_the_records_can_be_given_the_targets_of_others(
    faults: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from kagglehms.training.feed import Feed

    own = torch.arange(400.0).reshape(400, 1)
    monkeypatch.setattr(Feed, "_targets_of", lambda *_: own)
    faults.FAULTS["shuffled-targets"]()
    wrong = Feed._targets_of(None, None)
    assert sorted(wrong.flatten().tolist()) == list(range(400))
    assert 90 <= int((wrong != own).sum()) <= 100
