"""Trackers get a fold's scores: the real packages where they are installed, and stand-ins for their functions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kagglehms.errors import UsageError
from kagglehms.runs.training import TrainingOptions, train_recipes
from kagglehms.training.evaluation import Evaluation
from kagglehms.training.logs import Journal
from kagglehms.training.trackers import check_installed, open_tracker

SETTINGS = {"name": "baseline", "seed": 3, "stages": [{"epochs": 2}]}


def evaluation(step: int) -> Evaluation:
    return Evaluation(0, False, step, step / 3, 0.9, 0.8, 0.8, None, 1.5 * step, 1, 1, None, 1.8, 1.8, None)


def two_sessions(folder: Path, tracker: Any) -> None:
    """Two evaluations of a fold, the second after an interruption."""
    folder.mkdir(parents=True)
    history: list[Evaluation] = []
    for step in (3, 6):
        journal = Journal(folder, trackers=[tracker], settings=SETTINGS)
        history.append(evaluation(step))
        journal.evaluated(history, improved=True)
        journal.close()


WANDB = """
import json
from pathlib import Path

class _Run:
    def log(self, data, step=None):
        _write({"log": data, "step": step})

    def finish(self, exit_code=None, quiet=None):
        _write({"finish": True})

def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, group=None,
         job_type=None, mode=None, resume=None, **settings):
    _write({"project": project, "group": group, "name": name, "id": id, "resume": resume, "config": config})
    return _Run()

def _write(line):
    with Path(__file__).with_name("calls").open("a") as file:
        print(json.dumps(line), file=file)
"""
MLFLOW = """
import json, types
from pathlib import Path

class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        pass

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name, artifact_location=None, tags=None):
        return "17"

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        _write({"experiment": experiment_id, "tags": tags, "name": run_name})
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="f" * 32))

    def log_param(self, run_id, key, value, synchronous=None):
        _write({"run": run_id, "key": key, "value": value})

    def log_metric(self, run_id, key, value, timestamp=None, step=None, synchronous=None):
        _write({"run": run_id, "key": key, "value": value, "step": step})

    def set_terminated(self, run_id, status=None, end_time=None):
        _write({"run": run_id, "end": True})

def _write(line):
    with Path(__file__).with_name("calls").open("a") as file:
        print(json.dumps(line), file=file)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package with the parts of a tracker that are called, by their signatures; it writes down every call."""

    names = []

    def modules(name: str) -> list[str]:
        return [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]

    def install(name: str, source: str, module: str = "__init__") -> Path:
        names.append(name)
        for loaded in modules(name):
            monkeypatch.delitem(sys.modules, loaded)
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(package.parent)
        return package / "calls"

    yield install
    for name in names:
        for loaded in modules(name):
            del sys.modules[loaded]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_wandb_gets_one_run_a_fold_also_over_sessions(tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in("wandb", WANDB)
    two_sessions(tmp_path / "baseline" / "fold1", "wandb")
    begun = {
        "project": "kagglehms",
        "group": "baseline",
        "name": "baseline/fold1",
        "id": (tmp_path / "baseline/fold1/wandb_run").read_text(),
        "resume": "allow",
        "config": SETTINGS,
    }
    scores = {"train_loss": 0.9, "score_stage": 0.8, "score_all": 0.8}
    per_step = [[begun, {"log": scores, "step": step}, {"finish": True}] for step in (3, 6)]
    assert lines(calls) == [*per_step[0], *per_step[1]]


def test_mlflow_gets_one_run_a_fold_also_over_sessions(tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in("mlflow", MLFLOW, "tracking")
    two_sessions(tmp_path / "baseline" / "fold1", "mlflow")
    run = "f" * 32
    scores = (("train_loss", 0.9), ("score_stage", 0.8), ("score_all", 0.8))
    expected: list[dict[str, Any]] = [
        {"experiment": "17", "tags": {"recipe": "baseline", "fold": "fold1"}, "name": "baseline/fold1"},
        *({"run": run, "key": key, "value": str(value)} for key, value in SETTINGS.items()),
    ]
    for step in (3, 6):
        expected += [{"run": run, "key": key, "value": value, "step": step} for key, value in scores]
        expected += [{"run": run, "end": True}]
    assert lines(calls) == expected


def test_tensorboard_gets_the_scores(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    two_sessions(tmp_path / "baseline" / "fold0", "tensorboard")
    content = b"".join(path.read_bytes() for path in (tmp_path / "baseline/fold0/tensorboard").iterdir())
    assert content.count(b"score_all") == 2
    assert b"score_votes10" not in content


def test_the_real_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "baseline" / "fold0"
    two_sessions(folder, "wandb")
    wandb.teardown()  # ends the process that writes the files
    written = list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert {path.stem.removeprefix("run-") for path in written} == {(folder / "wandb_run").read_text()}
    assert all(b"score_all" in path.read_bytes() for path in written)


@pytest.mark.parametrize("named", [True, False])
def test_the_real_mlflow_writes_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    if named:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    else:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "baseline" / "fold0"
    two_sessions(folder, "mlflow")
    client = mlflow.tracking.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("kagglehms").experiment_id])
    assert run.data.params["seed"] == "3"
    assert run.data.tags["recipe"] == "baseline"
    history = client.get_metric_history(run.info.run_id, "score_all")
    assert [(point.step, point.value) for point in history] == [(3, 0.8), (6, 0.8)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    monkeypatch.setattr("kagglehms.training.trackers.find_spec", lambda _: None)
    options = TrainingOptions(data=tmp_path / "nowhere", log=(name,))
    with pytest.raises(UsageError, match=rf"--log {name} needs {name}.*pip install 'kagglehms.{name}.'"):
        train_recipes(["baseline"], options)


def test_a_folder_that_a_tracker_left_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(UsageError, match="needs mlflow, which is missing"):
        check_installed(["mlflow"])


def test_a_tracker_that_does_not_start_says_what_to_do(tmp_path: Path, stand_in: Any) -> None:
    stand_in("wandb", WANDB + '\ndef init(**_):\n    raise RuntimeError("api_key not configured")\n')
    with pytest.raises(
        UsageError, match="api_key not configured; log in with `wandb login`, or set WANDB_MODE"
    ):
        open_tracker("wandb", tmp_path, SETTINGS)
