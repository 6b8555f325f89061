"""The kernels `prepare` and `train`, rehearsed: what two sessions train is what one long session trains."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import kagglehms
from kagglehms.data.records import read_records
from kagglehms.data.store import Store
from kagglehms.device import choose_device
from kagglehms.errors import EXIT_USER
from kagglehms.kernel import entry, training_session
from kagglehms.kernel.training_session import ENDING, TrainingTask, main, make_task, train_in_session
from kagglehms.packing.build import build
from kagglehms.rehearsal.run import rehearse
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset

TINY = {
    "folds": 2,
    "epochs": 2,
    "backbone": "half:test_efficientnet",
    "batch_size": 8,
    "device": "cpu",
    "weights": "none",
}


def task_of(store: Path, folder: Path, runs: Path, **options: Any) -> TrainingTask:
    tiny = (
        {"data": str(folder), "store": str(store), "runs": str(runs), "recipes": ("baseline",)}
        | TINY
        | options
    )
    return TrainingTask(**tiny)


def ending(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / ENDING).read_text())
    return content


def test_a_task_travels_as_text() -> None:
    task = TrainingTask(("baseline", "demo"), only_folds=(1,), limit_s=3.5)
    assert TrainingTask.from_json(task.to_json()) == task
    recipe = TrainingTask(("baseline",), epochs=1, backbone="efficientnet_b0", batch_size=4).recipe(
        "baseline"
    )
    assert (recipe.epochs, recipe.backbone, recipe.batch_size) == (1, "efficientnet_b0", 4)


@pytest.mark.parametrize(
    ("recipes", "options", "says"),
    [
        (["baseline", "percentile"], {}, "did you mean 'percentiles'"),
        ("baseline", {}, "RECIPES must be a list"),
        ([], {}, "RECIPES must be a list"),
        ([1], {}, "RECIPES.0: Input should be a valid string, but got 1"),
        (["baseline"], {"epoch": 1}, "no option 'epoch'; did you mean 'epochs'"),
        (["baseline"], {"runs": "/kaggle/working"}, "no option 'runs'"),
        (["baseline"], {"epochs": "many"}, "OPTIONS: epochs: Input should be a valid integer"),
        (["baseline"], {"epochs": 0}, "epochs must be at least 1"),
        (["baseline"], {"batch_size": 0}, "batch_size must be at least 1"),
        (["baseline"], {"only_folds": [0, 5]}, "there is no fold 5, they are 0 to 4"),
    ],
)
def test_what_the_owner_wrote_is_checked_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipes: Any, options: dict[str, Any], says: str
) -> None:
    absent = tmp_path / "absent"  # which would be found out next
    assert entry.train(absent, absent, "0" * 64, tmp_path, "somebody", recipes, options) == EXIT_USER
    assert says in capsys.readouterr().err


def test_what_the_owner_wrote_is_taken_as_it_stands() -> None:
    options = TINY | {"only_folds": [0], "limit_s": 90, "save_every_s": 60}
    task = make_task(["baseline", "demo"], options)
    assert (task.recipes, task.only_folds, task.limit_s) == (("baseline", "demo"), (0,), 90.0)
    assert TrainingTask.from_json(task.to_json()) == task


def test_a_recipe_that_fails_does_not_keep_the_others(
    dist: Path, competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(
        dist.parent / "store", competition_folder, tmp_path, recipes=("no-such", "baseline"), epochs=1
    )
    trained: list[str] = []

    def note(recipe: Any, *_: object) -> Any:
        trained.append(recipe.name)
        return type("Outcome", (), {"sentence": "done"})

    monkeypatch.setattr("kagglehms.runs.cross_validation.cross_validate", note)
    assert main([task.to_json()]) == 0
    assert trained == ["baseline"]
    assert ending(tmp_path)["left"] == []
    assert "no-such: unknown recipe 'no-such'" in ending(tmp_path)["problems"][0]


def test_time_that_is_up_leaves_the_rest_to_the_next_session(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    recipes = ("baseline", "global-stats")
    task = task_of(dist.parent / "store", competition_folder, tmp_path, recipes=recipes, limit_s=0.0)
    assert main([task.to_json()]) == 0
    assert ending(tmp_path) == {"left": list(recipes), "problems": []}


@pytest.mark.parametrize(
    ("worker", "code", "problem"),
    [
        ("sys.exit(0)", 1, "without saying how"),
        ('(runs / \'session.json\').write_text(\'{"left": ["a"], "problems": []}\')', 0, None),
        ('(runs / \'session.json\').write_text(\'{"left": [], "problems": ["a failed"]}\')', 1, "a failed"),
        ("sys.exit(2)", 1, "without saying how"),
    ],
)
def test_the_session_says_how_it_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    worker: str,
    code: int,
    problem: str | None,
) -> None:
    # A module of that name before the real one on the path is what `-m` then runs.
    fake = tmp_path / "fake/kagglehms/rehearsal"
    fake.mkdir(parents=True)
    for folder in (fake.parent, fake):
        (folder / "__init__.py").touch()
    (fake / "training.py").write_text(
        f"import json, sys; from pathlib import Path\nruns = Path(json.loads(sys.argv[1])['runs'])\n{worker}\n"
    )
    monkeypatch.setattr(kagglehms, "__file__", str(fake.parent / "__init__.py"))
    assert train_in_session(TrainingTask(("baseline",), runs=str(tmp_path)), n_gpus=0) == code
    out = capfd.readouterr().out
    event = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert event["event"] == "training"
    assert ("something is left" in out) is ("left" in worker and '["a"]' in worker.replace('\\"', '"'))
    assert problem is None or problem in event["problems"][0]


def test_a_training_that_does_not_end_is_asked_to_and_then_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    monkeypatch.setattr(training_session, "_GRACE_S", 0.5)
    polite = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print(flush=True); time.sleep(600)"
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    for code, expected in ((polite, 0), (deaf, -9)):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert training_session._wait(child, 0.1) == expected
            child.kill()


def configured(dist: Path, **options: Any) -> None:
    """Write into the built training kernel what its owner would."""
    script = dist / "kernels/train/train.py"
    text = re.sub(r"^RECIPES = .*$", 'RECIPES = ["baseline"]', script.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^OPTIONS: dict = .*$", f"OPTIONS: dict = {TINY | options!r}", text, flags=re.MULTILINE)
    script.write_text(text)


@pytest.mark.slow(60)
def test_two_rehearsed_sessions_equal_one_long_one(competition_folder: Path, tmp_path: Path) -> None:
    built = build(tmp_path / "no-runs", tmp_path / "dist", owner="somebody", library_only=True)
    assert sorted(path.name for path in built.kernels) == ["prepare", "train"]
    dist, one, two = tmp_path / "dist", tmp_path / "one", tmp_path / "two"

    def session(name: str, out: Path) -> None:
        report = rehearse(name, dist, competition_folder, out)
        assert report.ok, report.sentence

    session("prepare", one)
    store = Store(one / "prepare/store")
    records = read_records(competition_folder / "train.csv")
    shutil.copytree(one / "prepare", two / "prepare")

    configured(dist)
    session("train", one)
    assert ending(one / "train/runs") == {"left": [], "problems": []}
    events = [
        json.loads(line) for line in (one / "rehearsal.log").read_text().splitlines() if '"event"' in line
    ]
    result = [json.loads((one / f"train/runs/baseline/fold{k}/result.json").read_text()) for k in range(2)]
    training_s = sum(r["seconds"] for r in result)
    for share in (0.5, 0.2, 0.0):  # of the training; how fast the machine is may have changed since
        shutil.rmtree(two / "train", ignore_errors=True)
        configured(dist, limit_s=share and events[-1]["seconds"] - (1 - share) * training_s)
        session("train", two)
        if ending(two / "train/runs")["left"]:
            break
    assert ending(two / "train/runs")["left"] == ["baseline"]
    configured(dist)
    session("train", two)
    assert ending(two / "train/runs") == {"left": [], "problems": []}
    for fold in range(2):
        for name in ("weights.safetensors", "oof.parquet"):
            parts = [out / f"train/runs/baseline/fold{fold}/{name}" for out in (one, two)]
            assert parts[0].read_bytes() == parts[1].read_bytes(), (fold, name)
    # And both are what the library trains without any kernel.
    recipe = TrainingTask(("baseline",), epochs=2, backbone="half:test_efficientnet", batch_size=8).recipe(
        "baseline"
    )
    cross_validate(recipe, Dataset.of(store, records, 2), tmp_path / "here", choose_device("cpu"))
    here = tmp_path / "here/baseline/fold1/weights.safetensors"
    assert here.read_bytes() == (two / "train/runs/baseline/fold1/weights.safetensors").read_bytes()
