"""The kernels `prepare` and `train`, rehearsed: what two sessions train is what one long session trains."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import kagglehms
from kagglehms.cli.commands import parse
from kagglehms.data.preparing import prepare_competition
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, EXIT_USER, DataError, RunError
from kagglehms.kernel import entry, training_session
from kagglehms.kernel.training_session import ENDING, main, train_in_session, training_options
from kagglehms.packing.build import build
from kagglehms.rehearsal.run import rehearse
from kagglehms.runs.training import TrainingOptions, train_recipes

TINY = {
    "folds": 2,
    "epochs": 2,
    "backbone": "half:test_efficientnet",
    "batch_size": 8,
    "device": "cpu",
    "weights": "none",
}


def session_of(
    store: Path,
    folder: Path,
    runs: Path,
    *recipes: str,
    time_limit_s: float = 3600.0,
    only: list[str] | None = None,
    **options: Any,
) -> str:
    """What `train_in_session` gives each of its processes."""
    places = {"data": str(folder), "store": str(store), "runs": str(runs)}
    content = {"recipes": recipes, "options": places | TINY | options, "time_limit_s": time_limit_s}
    return json.dumps(content | {"only": only})


def ending(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / ENDING).read_text())
    return content


@pytest.mark.parametrize(
    ("recipes", "options", "says"),
    [
        (["baseline", "percentile"], {}, "did you mean 'percentiles'"),
        ("baseline", {}, "RECIPES must be a list"),
        ([], {}, "RECIPES must be a list"),
        ([1], {}, "RECIPES must be names, but got 1"),
        (5, {}, "RECIPES must be a list"),
        (["mine.json"], {}, "RECIPES must be names, but 'mine.json' is a file"),
        (["baseline"], ["epochs"], "OPTIONS must be a dictionary"),
        (["baseline"], {"epoch": 1}, "no option 'epoch'; did you mean 'epochs'"),
        (["baseline"], {"runs": "/kaggle/working"}, "no option 'runs'"),
        (["baseline"], {"epochs": "many"}, "OPTIONS: epochs: Input should be a valid integer"),
        (["baseline"], {"epochs": 0}, "epochs must be at least 1"),
        (["baseline"], {"batch_size": 0}, "batch_size must be at least 1"),
        (["baseline"], {"fold": [0, 5]}, "OPTIONS: there is no fold 5; 5 folds are 0 to 4"),
        (["baseline"], {"time_limit": "soon"}, "OPTIONS: 'soon' is no duration"),
        (["baseline"], {"time_limit": 90}, "OPTIONS: time_limit: Input should be a valid string, but got 90"),
        (["baseline"], {"only_folds": [0]}, "no option 'only_folds'"),
    ],
)
def test_what_the_owner_wrote_is_checked_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipes: Any, options: Any, says: str
) -> None:
    absent = tmp_path / "absent"  # which would be found out next
    assert entry.train(absent, absent, "0" * 64, tmp_path, "somebody", recipes, options) == EXIT_USER
    assert says in capsys.readouterr().err


def test_what_the_owner_wrote_is_what_the_command_takes() -> None:
    """By name and by value: OPTIONS are the words of `kagglehms train`."""
    written = TINY | {"fold": [0], "limit": 90, "time_limit": "8.5h", "save_every": "60s", "compile": True}
    words = ["--folds", "2", "--epochs", "2", "--backbone", "half:test_efficientnet", "--batch-size", "8"]
    words += ["--device", "cpu", "--weights", "none", "--fold", "0", "--limit", "90", "--time-limit", "8.5h"]
    typed = parse("train", ["baseline", "demo", *words, "--save-every", "60s", "--compile"])
    checked = training_options(["baseline", "demo"], written)
    for field in fields(TrainingOptions):
        assert getattr(checked, field.name) == getattr(typed, field.name), field.name


def test_every_option_of_the_command_is_one_of_the_kernel_unless_the_kernel_decides() -> None:
    for name in {field.name for field in fields(TrainingOptions)} - {"data", "store", "runs", "resume_from"}:
        default = getattr(TrainingOptions(), name)
        assert getattr(training_options(["baseline"], {name: default}), name) == default


def test_a_recipe_that_fails_does_not_keep_the_others(
    dist: Path, competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(recipe: Any, *_: object) -> Any:
        if recipe.name == "global-stats":
            raise RunError("it cannot be")
        trained.append(recipe.name)
        return type("Outcome", (), {"sentence": "done"})

    trained: list[str] = []
    monkeypatch.setattr("kagglehms.runs.cross_validation.cross_validate", train)
    store = dist.parent / "store"
    assert main([session_of(store, competition_folder, tmp_path, "global-stats", "baseline")]) == 0
    assert trained == ["baseline"]
    assert ending(tmp_path) == {"left": [], "problems": ["global-stats: it cannot be"]}


def test_only_the_recipes_behind_one_that_failed_are_trained_by_a_new_start(
    dist: Path, competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(recipe: Any, *_: object) -> Any:
        under_way.append(ending(tmp_path))
        return type("Outcome", (), {"sentence": "done"})

    under_way: list[dict[str, Any]] = []
    monkeypatch.setattr("kagglehms.runs.cross_validation.cross_validate", train)
    names = ("global-stats", "baseline", "demo")
    only = ["baseline", "demo"]
    assert main([session_of(dist.parent / "store", competition_folder, tmp_path, *names, only=only)]) == 0
    assert under_way == [{"left": left, "problems": [], "under_way": True} for left in (only, ["demo"])]
    assert ending(tmp_path) == {"left": [], "problems": []}


def test_a_session_that_cannot_begin_says_why(dist: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        main([session_of(dist.parent / "store", tmp_path / "absent", tmp_path, "baseline")])
    assert ending(tmp_path) == {"left": [], "problems": [str(raised.value)]}


@pytest.mark.slow(60)
def test_a_recipe_that_fails_in_one_of_two_processes_does_not_keep_the_others(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    """Only the process that writes notices that it cannot, while the other one waits for it."""
    (tmp_path / "global-stats").write_text("no folder")
    places = {"data": competition_folder, "store": dist.parent / "store", "runs": tmp_path}
    options = replace(training_options(["baseline"], TINY | {"epochs": 1}), **places)
    assert train_in_session(["global-stats", "baseline"], options, 600.0, n_gpus=2) == EXIT_OK
    (problem,) = ending(tmp_path)["problems"]
    assert problem.startswith("global-stats: ")
    assert "cannot be written" in problem
    assert ending(tmp_path)["left"] == []
    results = [json.loads((tmp_path / f"baseline/fold{fold}/result.json").read_text()) for fold in range(2)]
    assert [result["processes"] for result in results] == [2, 2]


def test_time_that_is_up_leaves_the_rest_to_the_next_session(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    recipes = ("baseline", "global-stats")
    session = session_of(dist.parent / "store", competition_folder, tmp_path, *recipes, time_limit_s=0.0)
    assert main([session]) == 0
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
    pretend(worker, tmp_path, monkeypatch)
    assert train_in_session(["baseline"], TrainingOptions(runs=tmp_path), 60.0, n_gpus=0) == code
    out = capfd.readouterr().out
    event = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert event["event"] == "training"
    assert ("something is left" in out) is ("left" in worker and '["a"]' in worker.replace('\\"', '"'))
    assert problem is None or problem in event["problems"][0]
    assert ending(tmp_path) == {name: event[name] for name in ("left", "problems")}


def pretend(worker: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these lines be what a session's processes run: a module before the real one on the path is what `-m` runs."""
    fake = folder / "fake/kagglehms/kernel"
    fake.mkdir(parents=True)
    for package in (fake.parent, fake):
        (package / "__init__.py").touch()
    beginning = (
        "import json, os, sys; from pathlib import Path\n"
        "content = json.loads(sys.argv[1])\n"
        "runs = Path(content['options']['runs'])\n"
    )
    (fake / "training_session.py").write_text(f"{beginning}{worker}\n")
    monkeypatch.setattr(kagglehms, "__file__", str(fake.parent / "__init__.py"))


TROUBLED = """
with (runs / "starts").open("a") as file:
    file.write(json.dumps(content["only"]) + "\\n")
def say(**ending):
    (runs / "session.json").write_text(json.dumps(ending))
if content["only"] is None:
    say(left=["b", "c", "d"], problems=["a: no", "b: it cannot be"], under_way=True)
    sys.exit(1)
elif content["only"] == ["c", "d"]:
    say(left=["c", "d"], problems=[], under_way=True)
    os.kill(os.getpid(), 9)
say(left=[], problems=[])
"""
"""Of four recipes, the first fails by itself, the second with its team, and the third kills its process."""


def test_new_processes_train_what_is_behind_a_recipe_that_ended_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(TROUBLED, tmp_path, monkeypatch)
    options = TrainingOptions(runs=tmp_path)
    assert train_in_session(["a", "b", "c", "d"], options, 60.0, n_gpus=0) == EXIT_OK  # for what d has left
    starts = [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]
    assert starts == [None, ["c", "d"], ["d"]]
    problems = ["a: no", "b: it cannot be", "c: its processes ended with code -9; the log says more"]
    assert ending(tmp_path) == {"left": [], "problems": problems}


def test_without_time_nothing_new_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(TROUBLED, tmp_path, monkeypatch)
    options = TrainingOptions(runs=tmp_path)
    assert train_in_session(["a", "b", "c", "d"], options, 0.0, n_gpus=0) == EXIT_OK
    assert (tmp_path / "starts").read_text() == "null\n"
    assert ending(tmp_path) == {"left": ["c", "d"], "problems": ["a: no", "b: it cannot be"]}


KILLED = """
with (runs / "starts").open("a") as file:
    file.write("once\\n")
(runs / "session.json").write_text(json.dumps({"left": ["a", "b"], "problems": [], "under_way": True}))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("time_limit_s", "n_gpus"), [(0.0, 0), (60.0, 2)])
def test_a_recipe_whose_processes_are_killed_is_left_where_none_may_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_limit_s: float, n_gpus: int
) -> None:
    """Without time, or where torchrun itself was killed: its processes live on, and have the GPUs."""
    pretend(KILLED, tmp_path, monkeypatch)
    if n_gpus:
        monkeypatch.setattr(training_session, "_wait", lambda child, _: child.wait() and -9)
    options = TrainingOptions(runs=tmp_path)
    assert train_in_session(["a", "b"], options, time_limit_s, n_gpus) == EXIT_OK
    assert set((tmp_path / "starts").read_text().split()) == {"once"}
    problem = "a: its processes ended with code -9; no new ones were started"
    assert ending(tmp_path) == {"left": ["a", "b"], "problems": [problem]}
    assert train_in_session(["a"], options, 0.0, n_gpus=0) == EXIT_FAILURE


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

    prepare_competition(competition_folder, one / "prepare/store")
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
        seconds = max(share and events[-1]["seconds"] - (1 - share) * training_s, 0.1)
        configured(dist, time_limit=f"{seconds:.1f}s")
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
    options = training_options(["baseline"], TINY)
    options = replace(options, data=competition_folder, store=one / "prepare/store", runs=tmp_path / "here")
    train_recipes(["baseline"], options)
    here = tmp_path / "here/baseline/fold1/weights.safetensors"
    assert here.read_bytes() == (two / "train/runs/baseline/fold1/weights.safetensors").read_bytes()
