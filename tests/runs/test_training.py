"""Recipes, one after the other: what goes wrong ends the work or is noted, as the caller wants."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kagglehms.bundle.predictor import load_bundle
from kagglehms.errors import EXIT_UNFINISHED, RunError, Stopped, UsageError
from kagglehms.packing.build import build
from kagglehms.runs.ladder import ladder
from kagglehms.runs.training import Trained, TrainingOptions, train_recipes
from kagglehms.timing import Duration
from kagglehms.training.distributed import Team
from kagglehms.training.recipes import get_recipe

RECIPES = ("baseline", "global-stats", "demo")


class Trainer:
    """Stands for the training of one recipe: notes its name, and raises what it was given for it."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.trained: list[str] = []
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, recipe: Any, *arguments: Any) -> Any:
        *others, self.earlier_runs = arguments
        if recipe.name in self.errors:
            raise self.errors[recipe.name]
        self.trained.append(recipe.name)
        self.calls.append((recipe, *others))
        return type("Outcome", (), {"sentence": f"{recipe.name} is trained"})


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr("kagglehms.runs.cross_validation.cross_validate", trainer)
    return trainer


@pytest.fixture
def options(dist: Path, competition_folder: Path, tmp_path: Path) -> TrainingOptions:
    return TrainingOptions(
        data=competition_folder, store=dist.parent / "store", runs=tmp_path, folds=2, device="cpu", fold=(1,)
    )


def test_recipes_are_trained_in_order_as_the_options_say(
    trainer: Trainer, options: TrainingOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = replace(options, epochs=2, batch_size=4, weights="none")
    done = train_recipes(RECIPES, changed)
    assert trainer.trained == list(RECIPES)
    assert (len(done.outcomes), done.left, done.problems) == (3, [], [])
    recipe, dataset, runs, device, weights, folds, session = trainer.calls[0]
    assert (recipe.batch_size, recipe.stages[0].epochs) == (4, 2)
    assert (dataset.n_folds, runs, device.name, weights, folds) == (2, tmp_path, "cpu", "none", (1,))
    assert session.save_every_s == 600
    places = [call[-1].place for call in trainer.calls]
    assert places == [f"recipe {number} of 3, " for number in (1, 2, 3)]
    later = [call[-1].later for call in trainer.calls]  # one fold of two epochs in each stage
    epochs = [2 * len(get_recipe(name).stages) for name in RECIPES]
    assert later == pytest.approx([(epochs[1] + epochs[2]) / epochs[0], epochs[2] / epochs[1], 0])
    said = [line for line in capsys.readouterr().out.splitlines() if "trained" in line]
    assert said == [f"{name} is trained" for name in RECIPES]


def test_a_variant_has_its_own_name_and_settings(
    trainer: Trainer, options: TrainingOptions, tmp_path: Path
) -> None:
    changed = replace(options, lr=2e-3, seed=7, set=("dropout=0.2", "stages.0.epochs=3"), name="mine")
    train_recipes(["baseline"], changed)
    old = get_recipe("baseline")
    stages = (replace(old.stages[0], epochs=3),)
    wanted = replace(old, name="mine", lr=2e-3, seed=7, dropout=0.2, stages=stages)
    assert trainer.calls[0][0] == wanted
    (tmp_path / "own.json").write_bytes(wanted.to_json())
    train_recipes([str(tmp_path / "own.json")], options)
    assert trainer.calls[1][0] == wanted


def test_two_runs_cannot_have_one_name(trainer: Trainer, options: TrainingOptions) -> None:
    with pytest.raises(UsageError, match="several runs would be called mine; train one at a time"):
        train_recipes(["baseline", "global-stats"], replace(options, name="mine"))
    assert trainer.trained == []


def test_a_variant_is_a_run_like_any_other(options: TrainingOptions, tmp_path: Path) -> None:
    own = replace(options, runs=tmp_path / "runs", fold=(), weights="none", epochs=1, name="mine")
    train_recipes(["demo"], replace(own, set=("dropout=0.2",)))
    (row,) = [row for row in ladder(tmp_path / "runs") if row.recipe == "mine"]
    assert row.folds
    assert "quick pass" not in row.note
    build(tmp_path / "runs", tmp_path / "dist", owner="some-owner", recipes=["mine"])
    recipes = {
        model.recipe.name: model.recipe for model in load_bundle(tmp_path / "dist/dataset", "cpu").models()
    }
    assert recipes["mine"].dropout == 0.2


@pytest.mark.parametrize(
    "error", [RunError("no"), Stopped("the time limit is near", EXIT_UNFINISHED)], ids=["failed", "stopped"]
)
def test_what_goes_wrong_ends_the_work(trainer: Trainer, options: TrainingOptions, error: Exception) -> None:
    trainer.errors["global-stats"] = error
    with pytest.raises(type(error)) as raised:
        train_recipes(RECIPES, options)
    assert raised.value is error
    assert trainer.trained == ["baseline"]


def test_a_failure_can_be_noted_and_the_rest_trained(trainer: Trainer, options: TrainingOptions) -> None:
    trainer.errors["global-stats"] = RunError("no")
    done = train_recipes(RECIPES, options, keep_going=True)
    assert trainer.trained == ["baseline", "demo"]
    assert (done.left, done.problems) == ([], ["global-stats: no"])


class OneOfTwo(Team):
    """A process whose team is imagined, so that it waits for nobody."""

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_in_a_team_is_noted_by_the_process_in_which_it_was_and_ends_it(
    trainer: Trainer, options: TrainingOptions, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    team = OneOfTwo(rank, 2, 2)
    monkeypatch.setattr("kagglehms.training.distributed.assemble", lambda _: nullcontext(team))
    trainer.errors["global-stats"] = RunError("no")
    noted: list[tuple[list[str], list[str]]] = []

    def note(done: Trained) -> None:
        noted.append((list(done.left), list(done.problems)))

    with pytest.raises(RunError, match="^global-stats: no$"):
        train_recipes(RECIPES, options, keep_going=True, note=note)
    assert trainer.trained == ["baseline"]
    before = [(list(RECIPES), []), (list(RECIPES[1:]), [])]
    assert noted == [*(before if rank == 0 else []), (list(RECIPES[1:]), ["global-stats: no"])]


def test_some_of_the_recipes_can_be_trained(trainer: Trainer, options: TrainingOptions) -> None:
    assert train_recipes(RECIPES, options, only=["baseline", "demo"]).left == []
    assert trainer.trained == ["baseline", "demo"]


def test_time_that_is_up_leaves_the_recipe_at_hand_and_all_after_it(
    trainer: Trainer, options: TrainingOptions
) -> None:
    trainer.errors["global-stats"] = Stopped("the time limit is near")
    done = train_recipes(RECIPES, options, keep_going=True)
    assert trainer.trained == ["baseline"]
    assert (done.left, done.problems) == (["global-stats", "demo"], [])


def test_unknown_names_and_absent_data_are_said_before_anything_is_trained(
    trainer: Trainer, options: TrainingOptions
) -> None:
    with pytest.raises(UsageError, match="did you mean 'baseline'"):
        train_recipes(["demo", "basline"], options, keep_going=True)
    with pytest.raises(UsageError, match="no `data`"):
        train_recipes(["demo"], TrainingOptions())
    assert trainer.trained == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fold": (0, 5)}, "there is no fold 5; 5 folds are 0 to 4"),
        ({"fold": (-1,)}, "there is no fold -1"),
        ({"folds": 2, "fold": (2,)}, "2 folds are 0 to 1"),
        ({"time_limit": Duration("soon")}, "'soon' is no duration"),
        ({"save_every": Duration("0")}, "'0' is no duration"),
    ],
)
def test_options_that_cannot_be_are_refused_when_they_are_made(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainingOptions(**changes)
