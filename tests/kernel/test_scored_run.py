"""The scored run leaves a valid submission, whatever the test set, the models and the clock are like."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from folders import copied, spectrogram_frame
from trained import make_dist

from kagglehms.bundle.predictor import LoadedModel, load_bundle
from kagglehms.data.competition import CHANNELS, VOTE_COLUMNS, Competition
from kagglehms.data.readers import encode_eeg, encode_spectrogram
from kagglehms.inputs.kinds import Input
from kagglehms.inputs.layouts import LAYOUTS, Crop
from kagglehms.kernel import scored_run, supervisor, test_set
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.protocol import UNDER_WAY, Pulse, Task
from kagglehms.kernel.schedule import SAFETY
from kagglehms.kernel.scored_run import run_scored
from kagglehms.kernel.submission import read_submission
from kagglehms.kernel.supervisor import supervise
from kagglehms.kernel.test_set import BATCH_ROWS, Reader
from kagglehms.packing.build import build
from kagglehms.runs.blends import Blend
from kagglehms.runs.prior_correction import PriorCorrection


@pytest.fixture
def folder(competition_folder: Path, tmp_path: Path) -> Path:
    return copied(competition_folder, tmp_path / "competition")


@pytest.fixture(scope="module")
def both(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes, of which one looks at both recordings."""
    where = tmp_path_factory.mktemp("both")
    make_dist(competition_folder, where, "baseline")
    return make_dist(competition_folder, where, "kaggle+eeg")


def ids_of(folder: Path) -> list[int]:
    return pl.read_csv(folder / "test.csv")["eeg_id"].to_list()


def paths_of(folder: Path) -> list[Path]:
    ids = pl.read_csv(folder / "test.csv")["spectrogram_id"].to_list()
    return [Competition(folder).spectrogram(id_, "test") for id_ in ids]


def run(dist: Path, folder: Path, out: Path, **options: Any) -> tuple[int, np.ndarray, Marker]:
    task = Task(str(dist / "dataset"), str(folder), str(out), device="cpu", **options)
    code = run_scored(task)
    marker = Marker.read(out)
    assert marker is not None
    ids: list[int] | list[str] = ids_of(folder) if (folder / "test.csv").is_file() else []
    return code, read_submission(out / "submission.csv", ids), marker


def prior_of(dist: Path) -> np.ndarray:
    return load_bundle(dist / "dataset", "cpu").prior


PLAIN = ["baseline fold 0", "baseline fold 1"]


def test_every_row_is_predicted(dist: Path, folder: Path, tmp_path: Path) -> None:
    code, values, marker = run(dist, folder, tmp_path / "out", mirror=False)
    assert code == 0
    assert sorted(marker.models) == PLAIN
    assert (marker.status, marker.rows_with_prior, marker.problems) == ("complete", {}, [])
    predictor = load_bundle(dist / "dataset", "cpu")
    for path, values_K in zip(paths_of(folder), values, strict=True):
        power = pl.read_parquet(path).drop("time").to_numpy()
        np.testing.assert_allclose(values_K, predictor.predict(spectrogram=power), atol=1e-6)


def test_mirrored_passes_are_averaged_in(dist: Path, folder: Path, tmp_path: Path) -> None:
    _, plain, _ = run(dist, folder, tmp_path / "plain", mirror=False)
    _, values, marker = run(dist, folder, tmp_path / "out", scratch=str(_made(tmp_path / "scratch")))
    assert sorted(marker.models) == [PLAIN[0], f"{PLAIN[0]} mirrored", PLAIN[1], f"{PLAIN[1]} mirrored"]
    for path in paths_of(folder):
        table = pl.read_parquet(path)
        left = [name for name in table.columns if name.startswith(("LL", "LP"))]
        swapped = {name: table["R" + name[1:]] for name in left} | {
            "R" + name[1:]: table[name] for name in left
        }
        table.with_columns(**swapped).write_parquet(path)
    _, mirrored, _ = run(dist, folder, tmp_path / "mirrored", mirror=False)
    np.testing.assert_allclose(values, (plain + mirrored) / 2, atol=1e-6)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_file_is_what_the_competition_wants(dist: Path, folder: Path, tmp_path: Path) -> None:
    run(dist, folder, tmp_path)
    made, wanted = pl.read_csv(tmp_path / "submission.csv"), pl.read_csv(folder / "sample_submission.csv")
    assert made.columns == wanted.columns
    assert made["eeg_id"].to_list() == wanted["eeg_id"].to_list()


def test_broken_recordings_cost_their_own_rows_only(dist: Path, folder: Path, tmp_path: Path) -> None:
    _, whole, _ = run(dist, folder, tmp_path / "whole")
    paths = paths_of(folder)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    spectrogram_frame(200).write_parquet(paths[2])
    code, values, marker = run(dist, folder, tmp_path / "out")
    assert (code, marker.status) == (1, "partial")
    assert marker.problems[0].startswith("3 of 4 rows keep the prior, more than 5%; row ")
    np.testing.assert_allclose(values[:3], np.tile(prior_of(dist), (3, 1)))
    np.testing.assert_allclose(values[3:], whole[3:], atol=1e-6)
    assert list(marker.rows_with_prior) == [str(i) for i in ids_of(folder)[:3]]
    reasons = [reason.split(": ")[1][:10] for reason in marker.rows_with_prior.values()]
    assert reasons == ["no such fi", "cannot be ", "200 rows w"]


def test_a_row_is_blended_of_the_recipes_that_can_see_it(both: Path, folder: Path, tmp_path: Path) -> None:
    _, whole, marker = run(both, folder, tmp_path / "whole", mirror=False)
    assert {name.split()[0] for name in marker.models} == {"baseline", "kaggle+eeg"}
    Competition(folder).eeg(ids_of(folder)[1], "test").unlink()
    code, values, marker = run(
        both, folder, tmp_path / "out", mirror=False, scratch=str(_made(tmp_path / "s"))
    )
    assert (code, marker.rows_with_prior) == (0, {})
    assert list(marker.rows_with_fewer_models) == [str(ids_of(folder)[1])]
    np.testing.assert_allclose(values[[0, 2, 3]], whole[[0, 2, 3]], atol=1e-6)
    power = pl.read_parquet(paths_of(folder)[1]).drop("time").to_numpy()
    predictor = load_bundle(both / "dataset", "cpu")
    alone = [
        model.predict([_crop(power)])[0] for model in predictor.models() if model.entry.recipe == "baseline"
    ]
    np.testing.assert_allclose(values[1], np.mean(alone, axis=0), atol=1e-6)


def test_a_blend_for_many_votes_corrects_every_recipe_by_its_own_prior(
    both: Path, folder: Path, tmp_path: Path
) -> None:
    """Against the formula by hand: with both recipes, with one of them, and with none."""
    target = (0.05, 0.15, 0.1, 0.1, 0.1, 0.5)
    trained = ((0.2, 0.15, 0.1, 0.1, 0.1, 0.35), (1 / 6,) * 6)
    blend = Blend(
        "many",
        ("baseline", "kaggle+eeg"),
        (0.25, 0.75),
        temperature=0.8,
        prior=PriorCorrection("many", target, trained),
    )
    runs = tmp_path / "runs"
    shutil.copytree(both.parent / "runs", runs)
    (runs / "blends").mkdir()
    (runs / "blends" / "many.json").write_bytes(blend.to_json())
    built = build(runs, tmp_path / "dist", owner="somebody", blend="many")
    ids = ids_of(folder)
    Competition(folder).eeg(ids[1], "test").unlink()
    paths_of(folder)[2].unlink()
    _, values, marker = run(tmp_path / "dist", folder, tmp_path / "out", mirror=False)
    assert list(marker.rows_with_fewer_models) == [str(ids[1])]
    assert list(marker.rows_with_prior) == [str(ids[2])]
    predictor = load_bundle(built.dataset, "cpu")

    def moved(row: int, member: int) -> np.ndarray:
        power = pl.read_parquet(paths_of(folder)[row]).drop("time").to_numpy()
        eeg = read_eeg_window(folder, ids[row]) if member else None
        name = blend.members[member]
        models = [model for model in predictor.models() if model.entry.recipe == name]
        crop = Crop(encode_spectrogram(power), None if eeg is None else encode_eeg(eeg))
        mean = np.mean([model.predict([crop])[0] for model in models], axis=0)
        powers = mean * np.array(target) / np.array(trained[member])
        return np.asarray(powers / powers.sum())

    pooled = (0.25 * moved(0, 0) + 0.75 * moved(0, 1)) ** (1 / 0.8)
    np.testing.assert_allclose(values[0], pooled / pooled.sum(), atol=1e-6)
    np.testing.assert_allclose(values[1], moved(1, 0), atol=1e-6)
    np.testing.assert_allclose(values[2], target, atol=1e-6)


def read_eeg_window(folder: Path, eeg_id: int) -> np.ndarray:
    """The 50 s of a test recording, in the competition's order."""
    return pl.read_parquet(Competition(folder).eeg(eeg_id, "test")).select(CHANNELS).to_numpy()


def _crop(power: np.ndarray) -> Any:
    return Crop(encode_spectrogram(power))


def test_a_recording_is_opened_once_whatever_the_number_of_models(
    both: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kagglehms.kernel.test_set as stream

    opened: list[Path] = []
    for name in ("read_eeg", "read_spectrogram"):
        real = getattr(stream, name)
        monkeypatch.setattr(stream, name, lambda path, n, real=real: (opened.append(path), real(path, n))[1])
    _, _, marker = run(both, folder, tmp_path / "out", scratch=str(_made(tmp_path / "scratch")))
    assert len(marker.models) == 8
    assert len(opened) == len(set(opened)) == 8


def test_a_model_that_fails_costs_its_own_part_only(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LoadedModel.predict_images

    def fails(self: LoadedModel, images: np.ndarray) -> np.ndarray:
        if self.entry.fold == 0:
            raise RuntimeError("shapes do not fit")
        return real(self, images)

    monkeypatch.setattr(LoadedModel, "predict_images", fails)
    code, values, marker = run(dist, folder, tmp_path, mirror=False)
    assert (code, marker.status, marker.models) == (1, "partial", ["baseline fold 1"])
    assert marker.problems == ["baseline fold 0: RuntimeError: shapes do not fit"]
    only = next(m for m in load_bundle(dist / "dataset", "cpu").models() if m.entry.fold == 1)
    power = [_crop(pl.read_parquet(path).drop("time").to_numpy()) for path in paths_of(folder)]
    np.testing.assert_allclose(values, only.predict(power), atol=1e-6)


def test_a_layout_that_cannot_be_drawn_costs_its_own_recipe_only(
    both: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first recipe's images fail; the second one sees the same spectrograms, and predicts as if it were alone."""
    real = test_set.draw

    def fails(layout: Input, *rest: Any) -> None:
        if layout == LAYOUTS["panels"]:
            raise ValueError("it does not compile")
        real(layout, *rest)

    monkeypatch.setattr(test_set, "draw", fails)
    code, values, marker = run(
        both, folder, tmp_path / "out", mirror=False, scratch=str(_made(tmp_path / "s"))
    )
    assert (code, marker.status, marker.rows_with_prior) == (1, "partial", {})
    assert sorted(marker.models) == ["kaggle+eeg fold 0", "kaggle+eeg fold 1"]
    reason = f"predicted no row; row {ids_of(folder)[0]}: cannot be drawn (it does not compile)"
    assert marker.left_out == dict.fromkeys(PLAIN, reason)
    models = [m for m in load_bundle(both / "dataset", "cpu").models() if m.entry.recipe == "kaggle+eeg"]
    crops = [
        Crop(
            encode_spectrogram(pl.read_parquet(path).drop("time").to_numpy()),
            encode_eeg(read_eeg_window(folder, eeg_id)),
        )
        for path, eeg_id in zip(paths_of(folder), ids_of(folder), strict=True)
    ]
    np.testing.assert_allclose(values, np.mean([m.predict(crops) for m in models], axis=0), atol=1e-6)


def test_output_that_is_not_finite_becomes_the_prior(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "predict_images", lambda self, images: np.full((len(images), 6), np.nan))
    code, values, marker = run(dist, folder, tmp_path)
    assert (code, marker.status, marker.models, len(marker.left_out)) == (1, "prior", [], 4)
    np.testing.assert_allclose(values, np.tile(prior_of(dist), (len(values), 1)))
    assert set(marker.rows_with_prior.values()) == {"the model's output is not finite"}


def test_a_run_that_predicts_nothing_has_failed(dist: Path, folder: Path, tmp_path: Path) -> None:
    """Steps that come to their end are no success where there was nothing to look at."""
    for path in paths_of(folder):
        path.unlink()
    code, values, marker = run(dist, folder, tmp_path)
    assert (code, marker.status, marker.models) == (1, "prior", [])
    np.testing.assert_allclose(values, np.tile(prior_of(dist), (4, 1)))
    assert sorted(marker.left_out) == sorted(
        name + mirrored for name in PLAIN for mirrored in ("", " mirrored")
    )
    of_passes, of_rows = marker.problems
    assert "predicted no row; row" in of_passes
    assert "no such file" in of_passes
    assert of_rows.startswith("no row was predicted, all 4 keep the prior; row ")
    assert all("no such file" in reason for reason in marker.rows_with_prior.values())


def test_a_recipe_without_a_row_is_a_problem_where_others_predict_all(
    both: Path, folder: Path, tmp_path: Path
) -> None:
    for eeg_id in ids_of(folder):
        Competition(folder).eeg(eeg_id, "test").unlink()
    code, values, marker = run(both, folder, tmp_path, mirror=False)
    assert (code, marker.status, marker.rows_with_prior) == (1, "partial", {})
    assert sorted(marker.models) == PLAIN
    assert sorted(marker.left_out) == ["kaggle+eeg fold 0", "kaggle+eeg fold 1"]
    (problem,) = marker.problems
    assert problem.startswith("kaggle+eeg fold")
    assert "predicted no row" in problem
    assert np.abs(values - prior_of(both)).max() > 1e-3


@pytest.mark.parametrize(("unreadable", "code"), [(0, 0), (2, 0), (3, 1)])
def test_a_twentieth_of_the_rows_may_keep_the_prior(
    dist: Path, folder: Path, tmp_path: Path, unreadable: int, code: int
) -> None:
    one = pl.read_csv(folder / "test.csv").head(1)
    ids = one["spectrogram_id"].to_list() * (40 - unreadable) + [1] * unreadable
    table = pl.concat([one] * 40).with_columns(
        pl.Series("eeg_id", range(40)), pl.Series("spectrogram_id", ids)
    )
    table.write_csv(folder / "test.csv")
    found, _, marker = run(dist, folder, tmp_path, mirror=False)
    assert (found, len(marker.rows_with_prior), len(marker.problems)) == (code, unreadable, code)


def test_recordings_with_an_index_or_in_another_order_give_the_same_submission(
    dist: Path, folder: Path, tmp_path: Path
) -> None:
    _, expected, _ = run(dist, folder, tmp_path / "whole", mirror=False)
    for i, path in enumerate(paths_of(folder)):
        table = pl.read_parquet(path)
        changed = table.select(sorted(table.columns)) if i % 2 else table.with_row_index("__index_level_0__")
        changed.write_parquet(path)
    code, values, marker = run(dist, folder, tmp_path / "out", mirror=False)
    assert (code, marker.status, marker.rows_with_prior) == (0, "complete", {})
    np.testing.assert_array_equal(values, expected)


def test_ids_spelled_as_floats_are_the_same_recordings(dist: Path, folder: Path, tmp_path: Path) -> None:
    _, expected, _ = run(dist, folder, tmp_path / "whole", mirror=False)
    table = pl.read_csv(folder / "test.csv", infer_schema=False)
    table.with_columns(pl.all() + ".0").write_csv(folder / "test.csv")
    task = Task(str(dist / "dataset"), str(folder), str(tmp_path / "out"), device="cpu", mirror=False)
    assert run_scored(task) == 0
    ids = [f"{id_}.0" for id_ in table["eeg_id"].to_list()]
    np.testing.assert_array_equal(read_submission(tmp_path / "out/submission.csv", ids), expected)
    assert (tmp_path / "out/submission.csv").read_text().splitlines()[1].startswith(f"{ids[0]},")


@pytest.mark.parametrize("damage", ["stale", "flipped", "no manifest", "no bundle"])
def test_a_bundle_that_cannot_be_believed_leaves_the_prior(
    dist: Path, folder: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "dist"
    shutil.copytree(dist / "dataset", copy / "dataset")
    weights = next((copy / "dataset").glob("*.safetensors"))
    if damage == "flipped":
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    elif damage == "no manifest":
        (copy / "dataset/manifest.json").unlink()
    elif damage == "no bundle":
        shutil.rmtree(copy)
    code, values, marker = run(copy, folder, tmp_path / "out", digest="e" * 64 if damage == "stale" else None)
    assert (code, marker.status, len(marker.rows_with_prior)) == (1, "prior", 4)
    says = {"stale": "stale version: digest", "flipped": "same size, other content"}.get(
        damage, "cannot be read"
    )
    assert says in marker.problems[0]
    assert says in capsys.readouterr().err
    assert np.ptp(values, axis=0).max() == 0


@pytest.mark.parametrize("rows", [1, 33, 70])
def test_any_number_of_rows(dist: Path, folder: Path, tmp_path: Path, rows: int) -> None:
    one = pl.read_csv(folder / "test.csv").head(1)
    pl.concat([one] * rows).with_columns(pl.Series("eeg_id", range(rows))).write_csv(folder / "test.csv")
    code, values, _ = run(dist, folder, tmp_path)
    assert code == 0
    assert len(values) == rows
    np.testing.assert_allclose(values, np.tile(values[0], (rows, 1)), atol=1e-6)


def test_an_empty_test_set_is_a_submission_without_rows(dist: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("test.csv", "sample_submission.csv"):
        (folder / name).write_text((folder / name).read_text().splitlines()[0] + "\n")
    code, values, marker = run(dist, folder, tmp_path)
    assert (code, len(values), marker.rows) == (1, 0, 0)
    assert marker.problems == ["there is no row to predict"]
    assert "test.csv has no rows" in marker.notes


def test_ids_that_stand_twice_or_are_unknown_cost_nothing_else(
    dist: Path, folder: Path, tmp_path: Path
) -> None:
    _, whole, _ = run(dist, folder, tmp_path / "whole")
    lines = (folder / "test.csv").read_text().splitlines()
    (folder / "test.csv").write_text("\n".join([*lines, lines[1], "1,2,3", "1,what,3"]) + "\n")
    task = Task(str(dist / "dataset"), str(folder), str(tmp_path / "out"), device="cpu")
    assert run_scored(task) == 1  # two of six rows keep the prior
    made = pl.read_csv(tmp_path / "out/submission.csv")
    assert made["eeg_id"].to_list() == [*(line.split(",")[1] for line in lines[1:]), "2", "what"]
    values = made.select(VOTE_COLUMNS).to_numpy()
    np.testing.assert_allclose(values[:4], whole, atol=1e-6)
    np.testing.assert_allclose(values[4:], np.tile(prior_of(dist), (2, 1)))
    marker = Marker.read(tmp_path / "out")
    assert marker is not None
    assert list(marker.rows_with_prior) == ["2", "what"]
    assert "again" in marker.notes[0]


def test_without_test_csv_the_samples_rows_get_the_prior(dist: Path, folder: Path, tmp_path: Path) -> None:
    ids = [str(i) for i in ids_of(folder)]
    (folder / "test.csv").unlink()
    task = Task(str(dist / "dataset"), str(folder), str(tmp_path), device="cpu")
    assert run_scored(task) == 1
    np.testing.assert_allclose(
        read_submission(tmp_path / "submission.csv", ids), np.tile(prior_of(dist), (4, 1))
    )
    marker = Marker.read(tmp_path)
    assert marker is not None
    assert set(marker.rows_with_prior.values()) == {"sample_submission.csv names no kaggle recording of it"}


def slow_models(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[str], float] = lambda recipe: 40) -> None:
    """Let a batch of a recipe's model take so many seconds of the run's time, and everything else none.

    All rows of a batch get the prediction of its first, which spares the real time.
    """
    passed = 0.0
    real = LoadedModel.predict_images

    def slow(self: LoadedModel, images: np.ndarray) -> np.ndarray:
        nonlocal passed
        passed += seconds(self.recipe.name)
        return real(self, images[:1]).repeat(len(images), axis=0)

    class Stopwatch:
        def __init__(self, time_limit_s: float, started: float) -> None:
            self.time_limit_s = time_limit_s

        @property
        def passed_s(self) -> float:
            return passed

        @property
        def left_s(self) -> float:
            return self.time_limit_s - passed

    monkeypatch.setattr(LoadedModel, "predict_images", slow)
    monkeypatch.setattr(scored_run, "Clock", Stopwatch)


def lengthen(folder: Path, n_rows: int) -> Path:
    """Let the test set have so many rows, all with the spectrogram of its first row, whose EEG is returned."""
    one = pl.read_csv(folder / "test.csv").head(1)
    many = pl.concat([one] * n_rows).with_columns(pl.Series("eeg_id", range(n_rows)))
    many.write_csv(folder / "test.csv")
    return Competition(folder).eeg(one["eeg_id"][0], "test")


def test_what_will_not_be_ready_in_time_is_left_out(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_models(monkeypatch)
    code, _, marker = run(dist, folder, tmp_path, time_limit_s=100)
    assert (code, marker.status) == (0, "partial")
    assert sorted(marker.models) == PLAIN
    reason = f"about {SAFETY * 40:.0f} s needed, 20 s left"
    assert marker.left_out == {f"{name} mirrored": reason for name in PLAIN}


def test_at_the_deadline_the_best_so_far_stands(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengthen(folder, 70)
    slow_models(monkeypatch)
    code, values, marker = run(dist, folder, tmp_path, time_limit_s=70)
    assert (code, marker.status, len(marker.models), len(marker.left_out)) == (1, "partial", 1, 3)
    assert marker.problems == ["6 of 70 rows keep the prior, more than 5%; row 64: time was up"]
    assert marker.rows_with_prior == {str(row): "time was up" for row in range(64, 70)}
    np.testing.assert_allclose(values[64:], np.tile(prior_of(dist), (6, 1)))
    assert np.abs(values[:64] - prior_of(dist)).max() > 1e-3


@pytest.mark.parametrize(
    ("batch_s", "limit_s", "models", "left_out"),
    [
        (
            1,
            260,
            ["baseline fold 0", "kaggle+eeg fold 0", "kaggle+eeg fold 1"],
            {"baseline fold 1": (138, 128)},
        ),
        (
            25,
            260,
            ["baseline fold 0"],
            {"kaggle+eeg fold 0": (201, 15), "kaggle+eeg fold 1": (345, 15), "baseline fold 1": (138, 15)},
        ),
    ],
)
def test_the_first_batches_tell_whether_there_is_time_for_a_recipe_that_has_not_run(
    both: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_s: float,
    limit_s: float,
    models: list[str],
    left_out: dict[str, tuple[int, int]],
) -> None:
    """Twelve batches of 10 s; the other network is larger, and guessed to take 326 s where 140 s are left."""
    recording = lengthen(folder, 12 * BATCH_ROWS)
    for eeg_id in range(12 * BATCH_ROWS):
        recording.with_name(f"{eeg_id}.parquet").hardlink_to(recording)
    slow_models(monkeypatch, lambda recipe: 10 if recipe == "baseline" else batch_s)
    code, _, marker = run(both, folder, tmp_path, time_limit_s=limit_s, mirror=False)
    assert (code, marker.status) == (0, "partial")
    assert sorted(marker.models) == sorted(models)
    expected = {name: f"about {needed} s needed, {left} s left" for name, (needed, left) in left_out.items()}
    assert marker.left_out == expected
    assert not marker.rows_with_prior


def test_a_second_process_goes_on_behind_what_is_finished(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole, _ = run(dist, folder, tmp_path / "whole", mirror=False)
    real, scratch = LoadedModel.predict_images, _made(tmp_path / "scratch")
    computed: list[int] = []

    def dies(self: LoadedModel, images: np.ndarray) -> np.ndarray:
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(self.entry.fold)
        return real(self, images)

    monkeypatch.setattr(LoadedModel, "predict_images", dies)
    with pytest.raises(KeyboardInterrupt):
        run(dist, folder, tmp_path / "out", mirror=False, scratch=str(scratch))
    under_way = json.loads((scratch / UNDER_WAY).read_text())
    assert under_way == {"step": f"baseline fold {1 - computed[0]}", "device": "cpu"}
    monkeypatch.setattr(LoadedModel, "predict_images", real)
    code, values, marker = run(dist, folder, tmp_path / "out", mirror=False, scratch=str(scratch))
    assert (code, sorted(marker.models)) == (0, PLAIN)
    np.testing.assert_allclose(values, whole, atol=1e-12)
    skip = (f"baseline fold {1 - computed[0]}",)
    for kept in scratch.glob("*.npz"):
        kept.unlink()
    code, values, marker = run(
        dist, folder, tmp_path / "again", mirror=False, scratch=str(scratch), skip=skip
    )
    assert (code, len(marker.models)) == (1, 1)
    assert marker.left_out == {skip[0]: "it has ended a process before"}


FAULTY = """
import os, sys
from kagglehms.bundle.predictor import LoadedModel, Predictor
from kagglehms.kernel import scored_run

def fails(*_):
    raise RuntimeError("shapes do not fit")

def dies(*_):
    os.kill(os.getpid(), 9)

def at(name, real, fault):
    def called(self, *rest):
        entry = rest[0] if rest and hasattr(rest[0], "recipe_file") else self.entry
        return (fault if f"{{entry.recipe}} fold {{entry.fold}}" == name else real)(self, *rest)
    return called

{fault}
sys.exit(scored_run.main(sys.argv[1:]))
"""
"""A worker with a fault of its own."""


def supervised(
    dist: Path, folder: Path, out: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, Marker]:
    """Let workers with a fault predict the test set on the CPU, one after the other."""
    monkeypatch.setattr(supervisor, "WORKER", (sys.executable, "-c", FAULTY.format(fault=fault)))
    scratch = str(_made(out.with_name("scratch")))
    task = Task(str(dist / "dataset"), str(folder), str(out), device="cpu", mirror=False, scratch=scratch)
    assert supervise(task) == 1
    marker = Marker.read(out)
    assert marker is not None
    return read_submission(out / "submission.csv", ids_of(folder)), marker


def order_of(dist: Path, folder: Path, out: Path) -> list[str]:
    return run(dist, folder, out, mirror=False)[2].models


def test_a_model_that_kills_its_process_while_it_is_loaded_is_left_out(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = order_of(dist, folder, tmp_path / "whole")
    fault = f"Predictor.load = at({bad!r}, Predictor.load, dies)"
    values, marker = supervised(dist, folder, tmp_path / "out", fault, monkeypatch)
    assert marker.models == [good]
    assert marker.problems[0] == f"{bad} on cpu: its process ended by signal 9"
    assert marker.left_out == {bad: "it has ended a process before"}
    only = next(m for m in load_bundle(dist / "dataset", "cpu").models() if good.endswith(str(m.entry.fold)))
    power = [_crop(pl.read_parquet(path).drop("time").to_numpy()) for path in paths_of(folder)]
    np.testing.assert_allclose(values, only.predict(power), atol=1e-6)


def test_a_model_that_merely_failed_is_not_blamed_for_the_next_ones_crash(
    both: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, deadly, *others = order_of(both, folder, tmp_path / "whole")
    fault = (
        f"LoadedModel.predict_images = at({failing!r}, LoadedModel.predict_images, fails)\n"
        f"Predictor.load = at({deadly!r}, Predictor.load, dies)"
    )
    _, marker = supervised(both, folder, tmp_path / "out", fault, monkeypatch)
    assert marker.models == others
    assert marker.problems == [
        f"{deadly} on cpu: its process ended by signal 9",
        f"{failing}: RuntimeError: shapes do not fit",
        f"{deadly}: it has ended a process before",
    ]


def test_a_model_that_ended_a_process_is_not_tried_on_mirrored_recordings(
    dist: Path, folder: Path, tmp_path: Path
) -> None:
    """One that did so on mirrored recordings alone has finished the others before."""
    _, _, marker = run(dist, folder, tmp_path / "out", skip=(PLAIN[0], f"{PLAIN[1]} mirrored"))
    left_out = [PLAIN[0], f"{PLAIN[0]} mirrored", f"{PLAIN[1]} mirrored"]
    assert marker.left_out == dict.fromkeys(left_out, "it has ended a process before")
    assert marker.models == [PLAIN[1]]


def test_a_layout_whose_compiling_kills_the_process_costs_its_own_recipe_only(
    both: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = """
from kagglehms.inputs.layouts import LAYOUTS
real = scored_run.warm_up
scored_run.warm_up = lambda layouts: (dies if LAYOUTS["panels"] in layouts else real)(layouts)
"""
    _, marker = supervised(both, folder, tmp_path / "out", fault, monkeypatch)
    assert sorted(marker.models) == ["kaggle+eeg fold 0", "kaggle+eeg fold 1"]
    assert marker.problems[0] == "compiling for baseline on cpu: its process ended by signal 9"
    assert marker.left_out == dict.fromkeys(PLAIN, "it has ended a process before")


def test_a_full_disk_leaves_the_submission_before_it(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kagglehms.errors import RunError

    def full(*_: object) -> None:
        raise RunError("cannot be written (No space left on device)")

    monkeypatch.setattr(scored_run, "write_submission", full)
    code, values, marker = run(dist, folder, tmp_path, mirror=False)
    assert (code, marker.status) == (1, "prior")
    np.testing.assert_allclose(values, np.tile(prior_of(dist), (4, 1)))


def test_a_scratch_folder_that_fails_costs_no_pass(dist: Path, folder: Path, tmp_path: Path) -> None:
    """Neither crops, nor finished passes, nor the name of the step can be written below a file."""
    (tmp_path / "scratch").write_text("no folder")
    code, values, marker = run(dist, folder, tmp_path / "out", scratch=str(tmp_path / "scratch"))
    _, expected, _ = run(dist, folder, tmp_path / "whole")
    assert (code, marker.status, len(marker.models)) == (0, "complete", 4)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    (note,) = marker.notes
    assert note.startswith("what is finished cannot be kept for a second process (")


def test_a_marker_that_cannot_be_written_ends_nothing(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kagglehms.errors import RunError

    written: list[list[str]] = []

    def full(marker: Marker, *_: object) -> None:
        written.append(list(marker.models))
        raise RunError("cannot be written (No space left on device)")

    monkeypatch.setattr(Marker, "write", full)
    task = Task(str(dist / "dataset"), str(folder), str(tmp_path), device="cpu", mirror=False)
    assert run_scored(task) == 0
    assert sorted(written[-1]) == PLAIN
    values = read_submission(tmp_path / "submission.csv", ids_of(folder))
    assert np.abs(values - prior_of(dist)).max() > 1e-3


def test_a_restored_pass_keeps_its_time_and_measures_nothing(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = _made(tmp_path / "scratch")
    _, _, first = run(dist, folder, tmp_path / "out", scratch=str(scratch))
    last = max(scratch.glob("*.mirrored.npz"))
    last.unlink()
    observed: list[str] = []
    monkeypatch.setattr(
        scored_run.Projection, "observe", lambda self, step, seconds: observed.append(step.name)
    )
    _, _, again = run(dist, folder, tmp_path / "again", scratch=str(scratch))
    assert len(observed) == 1
    for before, after in zip(first.steps, again.steps, strict=True):
        assert before["name"] == after["name"]
        assert before["seconds"] == after["seconds"] or before["name"] in observed


def test_a_second_process_gives_the_reasons_of_the_first(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kept rows from being predicted: a broken recording, an image, an output that is not finite."""
    paths_of(folder)[0].write_bytes(b"PAR1")
    scratch, drawn = str(_made(tmp_path / "scratch")), test_set.draw
    real = LoadedModel.predict_images

    def fails(layout: Input, crop: Crop, *rest: Any) -> None:
        if np.array_equal(crop.of("kaggle"), second.of("kaggle")):
            raise ValueError("it is odd")
        drawn(layout, crop, *rest)

    def not_finite(self: LoadedModel, images: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((1, 6), np.nan), real(self, images)[1:]])

    second = _crop(pl.read_parquet(paths_of(folder)[1]).drop("time").to_numpy())
    monkeypatch.setattr(test_set, "draw", fails)
    monkeypatch.setattr(LoadedModel, "predict_images", not_finite)
    _, values, marker = run(dist, folder, tmp_path / "out", mirror=False, scratch=scratch)
    broken, odd, infinite = marker.rows_with_prior.values()
    assert "cannot be read" in broken
    assert (odd, infinite) == ("cannot be drawn (it is odd)", "the model's output is not finite")
    monkeypatch.setattr(Reader, "crop", None)  # nothing is read any more
    _, again, after = run(dist, folder, tmp_path / "again", mirror=False, scratch=scratch)
    np.testing.assert_array_equal(again, values)
    assert after.rows_with_prior == marker.rows_with_prior
    assert after.models == marker.models


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shape", "folder", "other"])
def test_what_was_kept_and_is_damaged_is_computed_again(
    dist: Path, folder: Path, tmp_path: Path, damage: str
) -> None:
    scratch = _made(tmp_path / "scratch")
    _, whole, _ = run(dist, folder, tmp_path / "out", mirror=False, scratch=str(scratch))
    for path in scratch.glob("*.np[yz]"):
        content = path.read_bytes()
        if damage == "shape":
            np.savez(path, probabilities_NK=np.ones((4, 5)), seconds=1.0)
        elif damage == "other":
            with path.open("wb") as file:
                np.save(file, np.ones((4, 6)))
        elif damage == "folder":
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes({"cut": content[:-30], "empty": b"", "text": b"what"}[damage])
    code, values, marker = run(dist, folder, tmp_path / "again", mirror=False, scratch=str(scratch))
    assert (code, sorted(marker.models)) == (0, PLAIN)
    np.testing.assert_allclose(values, whole, atol=1e-12)


def test_each_batch_and_each_file_is_a_sign_of_life(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pl.read_csv(folder / "test.csv").head(1)
    pl.concat([one] * 70).with_columns(pl.Series("eeg_id", range(70))).write_csv(folder / "test.csv")
    scratch, signs = _made(tmp_path / "scratch"), 0
    real = Pulse.beat

    def beat(self: Pulse) -> None:
        nonlocal signs
        path = scratch / UNDER_WAY
        os.utime(path, (0, 0))
        real(self)
        assert path.stat().st_mtime > 0
        signs += 1

    monkeypatch.setattr(Pulse, "beat", beat)
    run(dist, folder, tmp_path / "out", mirror=False, scratch=str(scratch))
    n_files = len(json.loads((dist / "dataset/manifest.json").read_text())["files"])
    assert signs == n_files + 1 + 2 * 3  # files, one layout, two passes of three batches


def test_what_is_compiled_is_compiled_before_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglehms.inputs.layouts import LAYOUTS

    drawn: list[object] = []
    real = scored_run.stack
    monkeypatch.setattr(
        scored_run, "stack", lambda crops, layout, n: (drawn.append(layout), real(crops, layout, n))
    )
    scored_run.warm_up([LAYOUTS["kaggle+eeg"], LAYOUTS["panels"]])
    assert drawn == [LAYOUTS["kaggle+eeg"], LAYOUTS["panels"]]
    monkeypatch.setattr(scored_run, "stack", lambda *_: 1 / 0)
    scored_run.warm_up([LAYOUTS["panels"]])
