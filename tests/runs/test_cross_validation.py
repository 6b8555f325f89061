"""Runs: out-of-fold predictions are of held-out records, nothing is trained twice, nothing is mixed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from runs_folder import edit, write_json
from safetensors.torch import load_file, save_file

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.device import choose_device
from kagglehms.errors import DataError, RunError, Stopped, UsageError
from kagglehms.locks import exclusive
from kagglehms.runs import identity
from kagglehms.runs.cross_validation import Outcome, cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.runs.identity import begin, continue_from, fingerprint
from kagglehms.stop_signals import stop_signals
from kagglehms.training import first_weights
from kagglehms.training.distributed import Team
from kagglehms.training.first_weights import Origin
from kagglehms.training.metric import Standing, kl_score
from kagglehms.training.recipes import Stage, get_recipe, recipe_from_json
from kagglehms.training.session import Session

CPU = choose_device("cpu")
RECIPE = replace(
    get_recipe("baseline"), backbone="half:test_efficientnet", batch_size=8, stages=(Stage(epochs=1),)
)


@pytest.fixture(scope="module")
def dataset(store: Store, records: Records) -> Dataset:
    return Dataset.of(store, records, 2)


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    first = cross_validate(RECIPE, dataset, path, CPU, only_folds=[1])
    assert first == Outcome(path / "baseline", (1,), 2)
    assert first.sentence.startswith("baseline: 1 of 2 folds trained")
    cross_validate(RECIPE, dataset, path, CPU)
    return path


def test_every_record_is_predicted_once_and_by_a_model_that_never_saw_it(
    dataset: Dataset, runs: Path
) -> None:
    oof = pl.read_parquet(runs / "baseline" / "oof.parquet")
    assert oof["record"].to_list() == list(range(len(dataset.records)))
    assert oof["fold"].to_list() == dataset.folds.tolist()
    np.testing.assert_array_equal(oof.select(VOTE_COLUMNS).to_numpy(), dataset.records.votes_NK)
    assert oof["eeg_id"].to_list() == dataset.records.eeg_ids.tolist()
    np.testing.assert_allclose(oof.select(PROBABILITY_COLUMNS).to_numpy().sum(axis=1), 1)


def test_the_score_is_that_of_the_joined_predictions(dataset: Dataset, runs: Path) -> None:
    oof = pl.read_parquet(runs / "baseline" / "oof.parquet").select(PROBABILITY_COLUMNS).to_numpy()
    run = json.loads((runs / "baseline" / "run.json").read_text())
    targets, many = dataset.records.targets_NK, dataset.records.many
    assert run["scores"]["all"] == pytest.approx(kl_score(targets, oof), rel=1e-12)
    assert run["scores"]["votes10"] == pytest.approx(kl_score(targets[many], oof[many]), rel=1e-12)
    np.testing.assert_allclose(run["prior"], targets.mean(axis=0))
    for name, rows in (("all", np.ones(len(targets), bool)), ("votes10", many)):
        means = np.tile(targets[rows].mean(axis=0), (rows.sum(), 1))
        assert run["prior_scores"][name] == pytest.approx(kl_score(targets[rows], means), rel=1e-12)
        sixths = np.full_like(means, 1 / 6)
        assert run["uniform_scores"][name] == pytest.approx(kl_score(targets[rows], sixths), rel=1e-12)
    assert run["records"] == len(dataset.records)


def test_a_fold_says_what_it_is(dataset: Dataset, runs: Path) -> None:
    folder = runs / "baseline" / "fold0"
    result = json.loads((folder / "result.json").read_text())
    assert (result["fold"], result["n_records"]) == (0, int((dataset.folds == 0).sum()))
    assert result["device"].startswith("device: cpu")
    assert set(result["versions"]) >= {"torch", "timm", "numba", "kagglehms"}
    history = pl.read_csv(folder / "history.csv")
    assert history["score_all"].min() == pytest.approx(result["score_all"])
    assert recipe_from_json((runs / "baseline" / "recipe.json").read_bytes()) == RECIPE


def test_a_folds_scores_stand_beside_the_floors_of_its_own_records(dataset: Dataset, runs: Path) -> None:
    folder = runs / "baseline" / "fold1"
    result = json.loads((folder / "result.json").read_text())
    held_out = dataset.folds == 1
    for name, rows in (("all", held_out), ("votes10", held_out & dataset.records.many)):
        targets = dataset.records.targets_NK[rows]
        means = np.tile(targets.mean(axis=0), (len(targets), 1))
        assert result[f"prior_{name}"] == pytest.approx(kl_score(targets, means), rel=1e-12)
        assert result[f"uniform_{name}"] == pytest.approx(kl_score(targets, np.full_like(means, 1 / 6)))
    history = pl.read_csv(folder / "history.csv")
    assert history["prior_all"].to_list() == pytest.approx([result["prior_all"]] * len(history))


def test_what_a_run_prints_has_both_scores_with_their_floors_and_says_when_they_are_worse() -> None:
    good, bad = Standing(0.9, 1.2, 1.4), Standing(1.3, 0.8, 1.1)
    told = Outcome(Path("runs/a"), (0, 1), 2, good, bad).sentence
    assert told == (
        "a: out-of-fold score 0.9000 (class prior 1.2000, uniform 1.4000) on all records, 1.3000 (class prior 0.8000, "
        "uniform 1.1000) on those with many (≥ 10) votes; lower is better; it is worse than the class prior and a "
        "uniform guess on those with many votes; in runs/a"
    )
    assert "worse" not in Outcome(Path("runs/a"), (0, 1), 2, good, None).sentence


def test_a_fold_worse_than_the_class_prior_says_so(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every record is predicted to be surely of a class that it has no vote for."""
    from kagglehms.training import held_out

    def sure_and_wrong(model: object, feed: object, positions: np.ndarray, *_: object) -> np.ndarray:
        wrong = np.eye(6)[dataset.records.targets_NK[positions].argmin(axis=1)]
        return 0.999 * wrong + 0.001 / 6

    monkeypatch.setattr(held_out, "predict", sure_and_wrong)
    cross_validate(RECIPE, dataset, tmp_path, CPU, only_folds=[0])
    out = capsys.readouterr().out
    assert (
        "baseline fold 0: what was kept is, held out, worse than the class prior and a uniform guess on all"
        in out
    )
    assert "held out" in out
    assert "uniform" in out
    assert "fold 1 of 1, baseline fold 0: " in out


def test_what_is_finished_is_not_trained_again(
    dataset: Dataset, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = list(runs.rglob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in files}
    outcome = cross_validate(RECIPE, dataset, runs, CPU)
    assert outcome.finished == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert capsys.readouterr().out.count("already trained") == 2


def test_another_recipe_or_other_data_are_refused(dataset: Dataset, runs: Path) -> None:
    with pytest.raises(RunError, match="holds another run .stages .*epochs=1.* there, .*epochs=2.* now"):
        cross_validate(RECIPE.with_epochs(2), dataset, runs, CPU)
    fewer = replace(dataset, records=dataset.records.take(np.arange(5)), folds=dataset.folds[:5])
    with pytest.raises(RunError, match="other records; other folds"):
        cross_validate(RECIPE, fewer, runs, CPU)


def test_a_broken_run_is_named(dataset: Dataset, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "baseline" / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: cannot be read"):
        cross_validate(RECIPE, dataset, tmp_path / "runs", CPU)


def test_nothing_is_written_before_the_network_is_made(dataset: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for backbone in ("half:test_efficientne", "half:test_efficientnet.nope", "ast:test_efficientnet"):
        with pytest.raises(UsageError, match="backbone"):
            cross_validate(replace(RECIPE, backbone=backbone), dataset, runs, CPU)
    save_file({"mine": torch.ones(1)}, tmp_path / "mine.safetensors")
    for weights in ("absent.safetensors", "mine.safetensors"):
        with pytest.raises(DataError, match=weights):
            cross_validate(RECIPE, dataset, runs, CPU, str(tmp_path / weights))
    assert not runs.exists()


def test_a_run_of_which_nothing_was_trained_binds_nobody(dataset: Dataset, tmp_path: Path) -> None:
    folder, fold = tmp_path / "baseline", tmp_path / "baseline" / "fold0"
    other = replace(RECIPE, lr=1e-4)
    begin(RunFolder(folder), RECIPE, dataset, Origin())
    with exclusive(fold, "training"), pytest.raises(RunError, match="fold0, is under way by process"):
        begin(RunFolder(folder), other, dataset, Origin())  # somebody takes its first steps
    with exclusive(fold, "training"):
        begin(RunFolder(folder), RECIPE, dataset, Origin())  # as two processes train two folds of a run
    assert recipe_from_json((folder / "recipe.json").read_bytes()) == RECIPE
    begin(RunFolder(folder), other, other_cut(dataset), Origin())
    assert recipe_from_json((folder / "recipe.json").read_bytes()) == other
    assert json.loads((folder / "run.json").read_text())["fingerprint"] == fingerprint(
        other, other_cut(dataset), Origin()
    )
    (folder / "run.json").write_text("{")
    begin(RunFolder(folder), RECIPE, dataset, Origin())
    assert recipe_from_json((folder / "recipe.json").read_bytes()) == RECIPE
    for name in ("state.safetensors", "result.json"):
        (fold / name).write_bytes(b"")
        with pytest.raises(RunError, match=r"holds another run \(lr 0\.001 there, 0\.0001 now\)"):
            begin(RunFolder(folder), other, dataset, Origin())
        (fold / name).unlink()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of first weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return path


def test_folds_of_other_first_weights_are_never_mixed(
    dataset: Dataset, weights: Path, tmp_path: Path
) -> None:
    cross_validate(RECIPE, dataset, tmp_path, CPU, str(weights), only_folds=[0])
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    wanted = {"source": "file", "name": "w.safetensors", "sha256": digest}
    folder = tmp_path / "baseline"
    for name in ("run.json", "fold0/result.json"):
        assert json.loads((folder / name).read_text())["first_weights"] == wanted
    state = load_file(weights)
    other = weights.with_name("other.safetensors")
    save_file(state | {"bn2.bias": state["bn2.bias"] + 1}, other)
    with pytest.raises(
        RunError, match=rf"first weights w\.safetensors, sha256 {digest[:12]} there, none, from"
    ):
        cross_validate(RECIPE, dataset, tmp_path, CPU)
    with pytest.raises(
        RunError, match=r"first weights w\.safetensors, .* there, other\.safetensors, sha256 .* now"
    ):
        cross_validate(RECIPE, dataset, tmp_path, CPU, str(other))
    with pytest.raises(RunError, match="first weights .* or leave --resume-from away"):
        continue_from(tmp_path, tmp_path / "then", RECIPE, dataset)
    assert not (tmp_path / "then").exists()
    # The same bytes are the same weights, whatever they are called.
    renamed = weights.with_name("renamed.safetensors")
    shutil.copy(weights, renamed)
    assert cross_validate(RECIPE, dataset, tmp_path, CPU, str(renamed)).finished == (0, 1)
    assert RunFolder(folder).origin() == Origin(**wanted)

    result = json.loads((folder / "fold1/result.json").read_text())
    for change in ({"first_weights": Origin().to_json()}, {"first_weights": None}):
        edit(folder / "fold1/result.json", **change)
        with pytest.raises(RunError, match=r"fold1/result\.json: (started from other|.*no origin)"):
            RunFolder(folder).origin()
    del result["first_weights"]
    write_json(folder / "fold1/result.json", result)
    with pytest.raises(RunError, match="not recorded there"):
        RunFolder(folder).origin()


def test_an_unfinished_fold_is_not_gone_on_with_from_other_weights(
    dataset: Dataset, weights: Path, tmp_path: Path
) -> None:
    """Even where the run's own account of itself has been lost."""
    with stop_signals() as stop:
        stop.signal = signal.SIGINT
        with pytest.raises(Stopped):
            cross_validate(RECIPE, dataset, tmp_path, CPU, str(weights), session=Session(stop=stop))
    for name in ("run.json", "recipe.json"):
        (tmp_path / "baseline" / name).unlink()
    with pytest.raises(
        RunError, match=r"was saved with other first weights \([0-9a-f]{12} there, none now\)"
    ):
        cross_validate(RECIPE, dataset, tmp_path, CPU)


def test_a_run_from_the_hub_needs_no_hub_to_be_gone_on_with(
    dataset: Dataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> tuple[str, Path]:
        raise UsageError(f"timm's hub gave no weights of {name}")

    monkeypatch.setattr(first_weights, "_from_hub", lambda name: (f"timm/{name}", weights))
    cross_validate(RECIPE, dataset, tmp_path, CPU, "auto", only_folds=[0])
    with stop_signals() as stop:
        stop.signal = signal.SIGINT
        with pytest.raises(Stopped):
            cross_validate(RECIPE, dataset, tmp_path, CPU, "auto", session=Session(stop=stop))
    assert (tmp_path / "baseline" / "fold1" / "state.safetensors").is_file()
    monkeypatch.setattr(first_weights, "_from_hub", gone)
    assert continue_from(tmp_path, tmp_path / "then", RECIPE, dataset, "auto") == 2
    assert cross_validate(RECIPE, dataset, tmp_path, CPU, "auto").finished == (0, 1)
    origin = RunFolder(tmp_path / "baseline").origin()
    assert origin is not None
    assert (origin.source, origin.name) == ("hub", "timm/test_efficientnet")
    shutil.rmtree(tmp_path / "baseline" / "fold1")
    with pytest.raises(UsageError, match="timm's hub gave no weights"):
        cross_validate(RECIPE, dataset, tmp_path, CPU, "auto")
    with pytest.raises(UsageError, match="timm's hub gave no weights"):
        cross_validate(RECIPE, dataset, tmp_path / "new", CPU, "auto")
    assert not (tmp_path / "new").exists()


def test_a_run_of_an_older_version_says_what_it_lacks(dataset: Dataset, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / "baseline" / "run.json"
    run = json.loads(path.read_text())
    del run["first_weights"]
    write_json(path, run)
    with pytest.raises(RunError, match="first weights not recorded there, none, from scratch now"):
        cross_validate(RECIPE, dataset, tmp_path / "runs", CPU)


def test_an_unknown_fold_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no fold 2; this data is cut into folds 0 to 1"):
        cross_validate(RECIPE, dataset, tmp_path, CPU, only_folds=[2])
    assert not list(tmp_path.iterdir())


def test_a_fold_that_is_being_trained_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "baseline" / "fold0", "training"),
        pytest.raises(RunError, match="training of baseline, fold 0, is under way by process"),
    ):
        cross_validate(RECIPE, dataset, tmp_path, CPU)


def other_cut(dataset: Dataset) -> Dataset:
    """The same records in other folds, as another release of scikit-learn cuts them."""
    return replace(dataset, folds=1 - dataset.folds)


def test_the_folds_of_a_run_are_those_it_began_with(
    dataset: Dataset, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    half_trained = tmp_path / "runs" / "baseline"
    shutil.rmtree(half_trained / "fold1")
    oof = pl.read_parquet(half_trained / "oof.parquet")
    (half_trained / "oof.parquet").unlink()
    assert cross_validate(RECIPE, other_cut(dataset), tmp_path / "runs", CPU).finished == (0, 1)
    assert f"uses the folds in {half_trained / 'folds.json'}" in capsys.readouterr().out
    assert pl.read_parquet(half_trained / "oof.parquet").equals(oof)
    (half_trained / "folds.json").unlink()
    with pytest.raises(RunError, match="holds another run .other folds.;"):
        cross_validate(RECIPE, other_cut(dataset), tmp_path / "runs", CPU)
    cross_validate(
        RECIPE, dataset, tmp_path / "runs", CPU
    )  # as a run of an older version: now they are stored
    assert json.loads((half_trained / "folds.json").read_text())["folds"] == dataset.folds.tolist()


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([0, 1], "lists folds of 2 records instead of"),
        (["left"], r"cannot be read .folds\.0: "),
        (None, "cannot be read .folds: "),
    ],
)
def test_broken_folds_are_named(
    folds: object, message: str, dataset: Dataset, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    edit(tmp_path / "runs" / "baseline" / "folds.json", folds=folds)
    with pytest.raises(RunError, match=f"folds.json: {message}"):
        cross_validate(RECIPE, dataset, tmp_path / "runs", CPU)


def test_a_fold_of_another_run_is_noticed(dataset: Dataset, runs: Path, tmp_path: Path) -> None:
    """As where folds were copied and run.json was not, and then written anew."""
    shutil.copytree(runs, tmp_path / "runs")
    folder = tmp_path / "runs" / "baseline"
    for name in ("run.json", "recipe.json", "folds.json", "oof.parquet"):
        (folder / name).unlink()
    with pytest.raises(
        RunError, match=r"fold0/result\.json: is of another run .* there, .* now: another recipe"
    ):
        cross_validate(replace(RECIPE, lr=1e-4), dataset, tmp_path / "runs", CPU)
    shutil.rmtree(folder / "fold0")
    with pytest.raises(RunError, match=r"fold1/result\.json: is of another run"):
        cross_validate(replace(RECIPE, lr=1e-4), dataset, tmp_path / "runs", CPU, only_folds=[0])


def test_a_result_that_states_no_run_gets_a_clear_answer(
    dataset: Dataset, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / "baseline" / "fold1" / "result.json"
    result = json.loads(path.read_text())
    stated = result.pop("fingerprint")
    write_json(path, result)
    with pytest.raises(
        RunError, match=f'does not say which run .* add the line "fingerprint": "{stated}", else'
    ):
        cross_validate(RECIPE, dataset, tmp_path / "runs", CPU)
    edit(path, fingerprint=stated)
    assert cross_validate(RECIPE, dataset, tmp_path / "runs", CPU).finished == (0, 1)


def test_an_earlier_run_of_another_recipe_data_or_folds_is_not_taken_over(
    dataset: Dataset, runs: Path, tmp_path: Path
) -> None:
    now = tmp_path / "now"
    with pytest.raises(
        RunError, match=r"holds another run .lr 0.001 there, 0.0001 now.; continue with its recipe"
    ):
        continue_from(runs, now, replace(RECIPE, lr=1e-4), dataset)
    fewer = replace(dataset, records=dataset.records.take(np.arange(5)), folds=dataset.folds[:5])
    with pytest.raises(RunError, match="other records; other folds"):
        continue_from(runs, now, RECIPE, fewer)
    shutil.copytree(runs, tmp_path / "unlabelled")
    (tmp_path / "unlabelled" / "baseline" / "run.json").unlink()
    with pytest.raises(RunError, match=r"run\.json: cannot be read"):
        continue_from(tmp_path / "unlabelled", now, RECIPE, dataset)
    assert not now.exists()
    assert continue_from(runs, now, RECIPE, other_cut(dataset)) == 2
    assert cross_validate(RECIPE, other_cut(dataset), now, CPU).finished == (0, 1)


def test_what_a_run_is_is_taken_over_before_any_fold(
    dataset: Dataset, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = identity.write_bytes

    def write(path: Path, content: bytes) -> None:
        written.append(path.relative_to(tmp_path).as_posix())
        real(path, content)

    monkeypatch.setattr(identity, "write_bytes", write)
    assert continue_from(runs, tmp_path / "now", RECIPE, dataset) == 2
    assert written[:3] == [f"now/baseline/{name}.json" for name in ("recipe", "folds", "run")]
    assert written[-1] == "now/baseline/fold1/result.json"
    shutil.copytree(runs, tmp_path / "begun", ignore=shutil.ignore_patterns("fold?"))
    assert continue_from(tmp_path / "begun", tmp_path / "then", RECIPE, dataset) == 0
    assert not (tmp_path / "then").exists()  # of which nothing was trained binds nobody
    other = replace(RECIPE, batch_size=4)
    assert continue_from(tmp_path / "begun", tmp_path / "then", other, dataset) == 0


def test_a_fold_begun_here_and_finished_elsewhere_is_taken_over_and_no_crash_between_loses_its_state(
    dataset: Dataset, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(runs, home)
    fold = home / "baseline" / "fold0"
    (fold / "result.json").unlink()
    (fold / "weights.safetensors").unlink()
    (fold / "state.safetensors").write_bytes(b"of a few epochs")
    with monkeypatch.context() as crash:
        crash.setattr(
            identity, "write_bytes", lambda path, content: _write_all_but(path, content, "result.json")
        )
        with pytest.raises(OSError, match="gone"):
            continue_from(runs, home, RECIPE, dataset)
    assert (fold / "state.safetensors").read_bytes() == b"of a few epochs"
    assert continue_from(runs, home, RECIPE, dataset) == 1
    there = {path.name: path.read_bytes() for path in (runs / "baseline" / "fold0").iterdir()}
    here = {path.name: path.read_bytes() for path in fold.iterdir()}
    assert {name: here[name] for name in here if name[0] != "."} == {
        name: there[name] for name in there if name[0] != "."
    }
    assert cross_validate(RECIPE, dataset, home, CPU).finished == (0, 1)
    assert continue_from(runs, home, RECIPE, dataset) == 0


def _write_all_but(path: Path, content: bytes, name: str) -> None:
    if path.name == name:
        raise OSError("gone")
    path.write_bytes(content)


def test_a_fold_that_is_finished_here_is_not_replaced_by_a_state(
    dataset: Dataset, runs: Path, tmp_path: Path
) -> None:
    home, earlier = tmp_path / "home", tmp_path / "earlier"
    for copy in (home, earlier):
        shutil.copytree(runs, copy)
    (earlier / "baseline" / "fold0" / "result.json").unlink()
    (earlier / "baseline" / "fold0" / "state.safetensors").write_bytes(b"of a few epochs")
    assert continue_from(earlier, home, RECIPE, dataset) == 0
    assert not (home / "baseline" / "fold0" / "state.safetensors").exists()


def test_a_batch_smaller_than_the_team_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    session = Session(team=Team(0, 9))
    with pytest.raises(UsageError, match="a batch of 8 cannot be shared by 9 processes; give --batch-size 9"):
        cross_validate(RECIPE, dataset, tmp_path, CPU, session=session)
    assert not list(tmp_path.iterdir())


def test_a_run_cannot_take_the_folder_of_the_blends(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a run cannot be called 'blends'"):
        cross_validate(replace(RECIPE, name="blends"), dataset, tmp_path, CPU)
    assert list(tmp_path.iterdir()) == []
