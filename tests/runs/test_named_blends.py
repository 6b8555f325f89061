"""Blends by name: the ensembles of the ladder, and blends fitted below a folder of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs_folder import make_run

from kagglehms.errors import UsageError
from kagglehms.runs.named_blends import (
    LADDER_BLENDS,
    BlendSpec,
    blend_members,
    blend_path,
    find_blend,
    get_blend_spec,
)
from kagglehms.runs.published_figures import ENSEMBLES, Published, published
from kagglehms.training.recipes import RECIPES


def probabilities(n: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(6), n)


def test_the_blends_of_the_ladder() -> None:
    on_the_leaderboard = {spec.name: published(spec.name).lb for spec in LADDER_BLENDS}
    assert on_the_leaderboard == {
        "kaggle-ensemble": 0.42,
        "eeg-ensemble": 0.42,
        "kaggle+eeg-ensemble": 0.38,
        "vote-weighted-ensemble": 0.40,
        "global-norm-ensemble": 0.38,
        "mosaic-xloss-ensemble": 0.36,
        "two-stage-ensemble": 0.34,
        "eeg-two-stage-ensemble": 0.37,
        "final": 0.32,
        "single-models": None,
        "winners": None,
        "all-rungs": None,
    }
    settled = {spec.name: s for spec in LADDER_BLENDS if (s := published(spec.name).settled)}
    assert settled == {"two-stage-ensemble": 0.4142, "eeg-two-stage-ensemble": 0.4608}


def test_every_published_ensemble_is_a_blend() -> None:
    assert set(ENSEMBLES) <= {spec.name for spec in LADDER_BLENDS}


def test_final_is_the_mean_of_the_two_two_stage_ensembles() -> None:
    names = ("two-stage", "two-stage-stats", "eeg-two-stage", "eeg-two-stage-stats")
    given = {name: probabilities(seed=seed) for seed, name in enumerate(names)}
    kaggle, eeg = (get_blend_spec(f"{name}two-stage-ensemble").blend().apply(given) for name in ("", "eeg-"))
    np.testing.assert_allclose(get_blend_spec("final").blend().apply(given), (kaggle + eeg) / 2, rtol=1e-12)


@pytest.mark.parametrize("spec", LADDER_BLENDS, ids=lambda spec: spec.name)
def test_their_members_are_recipes_and_their_names_are_not(spec: BlendSpec) -> None:
    assert set(spec.members) <= set(RECIPES)
    assert spec.name not in RECIPES


def test_winners_is_the_mean_of_the_five_recipes_of_their_kind() -> None:
    spec = get_blend_spec("winners")
    assert spec.members == ("raw-fold", "raw-fold-hgnet", "stft-50-10", "stft-30-10", "stft-50-10-maxvit")
    assert published(spec.name) == Published()
    given = {name: probabilities(seed=seed) for seed, name in enumerate(spec.members)}
    np.testing.assert_allclose(spec.blend().apply(given), np.mean(list(given.values()), axis=0), rtol=1e-12)


def test_all_rungs_leaves_no_recipe_out_but_the_demonstration() -> None:
    assert set(get_blend_spec("all-rungs").members) == set(RECIPES) - {"demo"}


def test_the_blend_of_two_blends_is_flat() -> None:
    names = ("baseline", "global-stats", "eeg+percentiles", "eeg-global-stats")
    given = {name: probabilities(seed=seed) for seed, name in enumerate(names)}
    kaggle, eeg = (get_blend_spec(name).blend().apply(given) for name in ("kaggle-ensemble", "eeg-ensemble"))
    both = get_blend_spec("kaggle+eeg-ensemble").blend().apply(given)
    np.testing.assert_allclose(both, 0.5 * kaggle + 0.5 * eeg, rtol=1e-12)


def test_a_blend_without_weights_must_be_fitted_first() -> None:
    with pytest.raises(
        UsageError, match="weights of blend single-models are fitted: run kagglehms blend single-models"
    ):
        get_blend_spec("single-models").blend()
    with pytest.raises(UsageError, match="2 members, but 1 weights"):
        BlendSpec("x", ("a", "b"), (1.0,))
    with pytest.raises(UsageError, match="unknown blend 'finale'; did you mean 'final'.*kaggle-ensemble"):
        get_blend_spec("finale")


def test_names_to_blend_are_runs_one_run_or_one_blend(tmp_path: Path) -> None:
    make_run(tmp_path, "baseline")
    assert blend_members(tmp_path, ["baseline"]) == ("baseline",)
    assert blend_members(tmp_path, ["kaggle-ensemble"]) == ("baseline", "global-stats")
    assert blend_members(tmp_path, ["baseline", "any"]) == ("baseline", "any")
    with pytest.raises(UsageError, match=r"no run or blend 'basline'; did you mean 'baseline'\?"):
        blend_members(tmp_path, ["basline"])
    with pytest.raises(UsageError, match="name the runs to blend"):
        blend_members(tmp_path, [])


def test_blends_are_found_by_name(tmp_path: Path) -> None:
    given = find_blend(tmp_path, "kaggle-ensemble")
    assert given.members == ("baseline", "global-stats")
    assert given.weights == (0.5, 0.5)
    path = blend_path(tmp_path, "mine")
    path.parent.mkdir()
    path.write_bytes(replace(given, name="mine", weights=(0.25, 0.75)).to_json())
    assert find_blend(tmp_path, "mine").weights == (0.25, 0.75)
    with pytest.raises(UsageError, match=r"no blend 'mien'; did you mean 'mine'\?"):
        find_blend(tmp_path, "mien")
    with pytest.raises(UsageError, match="no blend 'single-models'"):
        find_blend(tmp_path, "single-models")


@pytest.mark.parametrize("name", ["run", "recipe", "folds", "Run"])
def test_a_blend_cannot_be_called_like_a_file_of_a_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"a blend cannot be called '{name}'"):
        blend_path(tmp_path, name)
