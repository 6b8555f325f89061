"""The command line as a person meets it: help, whole commands on real files, one line per mistake."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import polars as pl
import pytest
from folders import copied
from runs_folder import make_run

from kagglehms.cli.command import Command, Result
from kagglehms.cli.commands import COMMANDS, main
from kagglehms.cli.parsing import General, flags
from kagglehms.console import say
from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.errors import EXIT_TERMINATED
from kagglehms.packing.build import build
from kagglehms.timing import Duration
from kagglehms.training.recipes import RECIPES


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(COMMANDS) == [
        *("prepare", "verify", "simulate", "recipes", "train", "ladder", "blend", "build", "rehearse"),
        *("preflight", "push", "status", "fetch", "publish", "predict", "report", "view", "doctor", "demo"),
    ]
    for words in (["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"{name} " in text
            assert command.summary in text
    assert main([]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_each_of_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    page = capsys.readouterr().out
    assert main(["help", command]) == 0
    assert capsys.readouterr().out == page
    text = " ".join(page.split())
    assert "None" not in text
    options = COMMANDS[command].options
    for option in flags(options, General):
        assert option in text
    for line in (options.__doc__ or "").split("Attributes:")[0].splitlines():
        assert line.strip()[:30] in text


VOCABULARY = {
    "--data": Path,
    "--store": Path,
    "--runs": Path,
    "--dist": Path,
    "--folds": int,
    "--fold": tuple[int, ...],
    "--time-limit": Duration,
    "--out": Path,
    "--recipe": (str, tuple[str, ...]),
}
"""What an option means wherever a command has it, as far as its type says."""


@pytest.mark.parametrize("command", COMMANDS)
def test_all_commands_share_one_vocabulary(command: str) -> None:
    hints = get_type_hints(COMMANDS[command].options)
    for flag in flags(COMMANDS[command].options):
        if flag in VOCABULARY:
            hint = hints[flag.removeprefix("--").replace("-", "_")]
            accepted = VOCABULARY[flag] if isinstance(VOCABULARY[flag], tuple) else (VOCABULARY[flag],)
            assert hint in {*accepted, *(optional | None for optional in accepted)}, flag
        # Other names for one of these things.
        assert flag not in {
            "--limit-time",
            "--time",
            "--session-limit",
            "--outputs",
            "--recipes",
            "--only-folds",
        }


def test_the_options_of_every_command_may_stand_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(tmp_path)]
    for words in (["--json", "ladder", *runs], ["ladder", "--json", *runs], ["ladder", *runs, "--json"]):
        assert main(words) == 0
        assert {"recipe", "published_cv"} <= json.loads(capsys.readouterr().out)[0].keys()
    assert main(["--quiet"]) == 2
    assert "usage: kagglehms COMMAND" in capsys.readouterr().out


def test_the_list_of_commands_loads_nothing_that_takes_time() -> None:
    code = "import sys; from kagglehms.cli.commands import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {name.partition(".")[0] for name in done.stderr.split()} - {"kagglehms", "__main__"}
    assert "numpy" not in foreign
    assert "pydantic" not in foreign


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["xyzzy"], "unknown command 'xyzzy'; known are: prepare, verify, simulate"),
        (["help", "trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--data", "x"], "train needs RECIPE: recipes to train"),
        (["train", "basline", "--data", "x"], "unknown recipe 'basline'; did you mean 'baseline'?"),
        (["train", "baseline", "--data", "x", "--epochs", "0"], "epochs must be at least 1, but got 0"),
        (
            ["train", "baseline", "--data", "x", "--store", "nowhere"],
            "nowhere: no store; run `kagglehms prepare",
        ),
        (["prepare", "--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("kagglehms: error: ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--dta", "x"], "prepare has no option '--dta'; did you mean '--data'?"),
        (["train", "baseline", "--data", "x", "--batchsize=8"], "did you mean '--batch-size'?"),
        (["train", "baseline", "--time", "8h"], "train has no option '--time'; did you mean '--time-limit'?"),
        (["train", "baseline", "--xy", "1"], "train has no option '--xy' (see `kagglehms help train`)"),
        (["train", "baseline", "--comp"], "train has no option '--comp'; did you mean '--compile'?"),
        (["simulate", "--eegs", "3"], "simulate needs --out: folder of the competition"),
        (["train", "baseline", "--data", "x", "--folds", "two"], "--folds: 'two' is not a whole number"),
        (["train", "baseline", "--data", "x", "--fold", "5"], "there is no fold 5; 5 folds are 0 to 4"),
        (
            ["train", "baseline", "--data", "x", "--compile", "--cuda-graphs"],
            "exclude each other; leave one out",
        ),
        (["train", "baseline", "--time-limit", "soon"], "--time-limit: 'soon' is no duration"),
        (
            ["ladder", "--format", "tabel"],
            "--format: 'tabel' is not one of table, markdown, csv, json; did you",
        ),
        (["rehearse", "--data", "x"], "rehearse needs KERNEL: kernel of DIST/kernels"),
        (["report", "--recipe"], "--recipe: expected one argument"),
        (["report", "runs"], "report does not take 'runs'; did you mean '--runs runs'?"),
        (["simulate", "hms"], "simulate does not take 'hms'; did you mean '--out hms'?"),
        (["prepare", "."], "prepare does not take '.'; did you mean '--data .'?"),
        (["blend", "--name", "x"], "blend needs RUN: runs to blend"),
        (["view", "--data", "x"], "view needs EEG_ID: "),
        (["publish"], "publish needs "),
        (["demo", "--eegs", "1"], "--eegs 1: the demo needs at least 16 recordings"),
        (["view", "first", "--data", "x"], "EEG_ID: 'first' is not a whole number"),
        (["blend", "a", "--prior-exponent", "x"], "--prior-exponent: 'x' is not a number and not one of fit"),
        (["ladder", "basline"], "no recipe, run or blend 'basline'; did you mean 'baseline'?"),
    ],
)
def test_wrong_options_are_one_line_that_says_what_was_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert "usage" not in error


def test_a_reader_who_has_gone_is_no_success() -> None:
    """What was in the middle of something was not finished, whether or not the reader has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "kagglehms", "ladder", "--format", "csv"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("columns", ["1", "19"])
@pytest.mark.parametrize("words", [["train", "--help"], ["rehearse", "--help"], ["ladder", "--format", "x"]])
def test_a_narrow_terminal_has_an_end(columns: str, words: list[str]) -> None:
    """A help text that never ends would be met by the timeout, which is far more than it takes."""
    done = subprocess.run(
        [sys.executable, "-m", "kagglehms", *words],
        env=os.environ | {"COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == (0 if "--help" in words else 2), done.stderr
    if "--help" in words:
        assert max(map(len, done.stdout.splitlines())) > 1
        assert "--data" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
@pytest.mark.parametrize("words", [["ladder"], ["train", "--help"], ["--help"]])
def test_a_page_is_printed_in_any_encoding(encoding: str, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kagglehms", *words],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert len(text.splitlines()) > 5
    assert text.count("?") < len(text) / 20  # signs for which the encoding has none, and no drawn lines


def test_quiet_tells_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs", "baseline")
    build(tmp_path / "runs", tmp_path / "dist", owner="some-owner")
    assert main(["preflight", "--json", "--quiet", "--dist", str(tmp_path / "dist")]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


@pytest.mark.parametrize(
    "arguments", [["status"], ["fetch"], ["preflight"], ["rehearse", "infer", "--data", "data"]]
)
def test_where_nothing_was_built_the_next_step_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([*arguments, "--dist", str(tmp_path)]) == 2
    assert f"build it with `kagglehms build --dist {tmp_path}`" in capsys.readouterr().err


def test_what_a_program_reads_is_json(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(two_runs / "runs")
    arguments = ["blend", "baseline", "global-stats", "--name", "json", "--runs", runs, "--shrinkage", "1"]
    assert main([*arguments, "--json", "--quiet"]) == 0
    blend = json.loads(capsys.readouterr().out)
    assert sum(blend["members"].values()) == pytest.approx(1)
    assert {"nested", "plain_mean", "in_sample", "prior", "uniform", "nested_votes10"} <= set(blend)
    assert main(["ladder", "--runs", runs, "--format", "json", "--quiet"]) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["baseline"]["published_cv"] == 0.7287
    assert rows["baseline"]["cv_all"] > 0
    assert rows["percentiles"]["cv_all"] is None
    assert rows["json"]["cv_all"] == blend["nested"]
    assert rows["json"]["kind"] == "blend"


def test_quiet_prints_no_progress(
    competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--data", str(competition_folder), "--store", str(tmp_path), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert main(["prepare", "--data", str(competition_folder), "--store", str(tmp_path)]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ZeroDivisionError, pl.exceptions.PanicException])
def test_an_unforeseen_error_is_one_line_and_debug_shows_the_rest(
    error: type[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> Result:
        raise error("by zero")

    monkeypatch.setitem(COMMANDS, "prepare", Command(COMMANDS["prepare"].options, fails))
    assert main(["prepare", "--data", "x"]) == 1
    said = f"kagglehms: error: {error.__name__}: by zero (--debug shows where)\n"
    assert capsys.readouterr().err == said
    assert main(["prepare", "--data", "x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_recipes_says_what_each_recipe_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    names = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert names == list(RECIPES)
    assert main(["recipes", "mosaic-xloss", "raw+spectrogram", "--json"]) == 0
    mosaic, both = json.loads(capsys.readouterr().out)
    assert mosaic["input"] == "global-panels, 400 × 300"
    (stage,) = mosaic["stages"]
    assert stage.startswith(
        "8 epochs, 3 of mosaics on all records; loss kl-capped-votes; rate 0.001, one-cycle"
    )
    assert both["network"] == "squeeze beside efficientnet_b0"
    assert both["settings"]["layout"]["first"]["signals"]["filter"] == "causal"
    assert main(["recipes", "nothing"]) == 2


def test_an_interruption_has_its_own_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> Result:
        raise KeyboardInterrupt

    def in_a_library(_: object) -> Result:
        try:
            raise KeyboardInterrupt
        finally:
            del COMMANDS.half_made  # type: ignore[attr-defined]

    for run in (interrupted, in_a_library):
        monkeypatch.setitem(COMMANDS, "prepare", Command(COMMANDS["prepare"].options, run))
        assert main(["prepare", "--data", "x"]) == 130
        assert "what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_asked_to_end_cleans_up(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(signal, name):
        pytest.skip("no such signal here")
    number, cleaned = signal.Signals[name], []

    def asked(_: object) -> Result:
        try:
            with contextlib.suppress(Exception):  # as where one of several parts may fail
                signal.raise_signal(number)
            raise AssertionError("it went on")
        finally:
            cleaned.append(number)

    monkeypatch.setitem(COMMANDS, "prepare", Command(COMMANDS["prepare"].options, asked))
    before = signal.signal(number, signal.SIG_DFL)  # which `nohup` takes away from the tests
    try:
        assert main(["prepare", "--data", "x"]) == EXIT_TERMINATED
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert f"{name} came" in capsys.readouterr().err
    assert cleaned == [number]


@pytest.mark.slow(20)
def test_every_command_of_a_trained_run_has_a_result_for_programs(
    competition_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a folder with the data in the usual place: no command is told where anything is."""

    def result(*words: str) -> Any:
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "hms").symlink_to(competition_folder)
    prepared = result("prepare")
    assert (prepared["data"], prepared["store"], prepared["found"]) == ("hms", "store", 0)
    assert prepared["decoded"] > 0
    quick = ("--epochs", "1", "--folds", "2", "--backbone", "half:test_efficientnet", "--weights", "none")
    (trained,) = result("train", "baseline", *quick)
    assert (trained["folder"], trained["finished"], trained["n_folds"]) == ("runs/baseline", [0, 1], 2)
    assert trained["all"]["score"] > 0
    (row,) = [row for row in result("ladder") if row["recipe"] == "baseline"]
    assert row["cv_all"] == trained["all"]["score"]
    built = result("build", "--owner", "some-owner")
    assert built["digest"] == json.loads((tmp_path / "dist/dataset/manifest.json").read_text())["digest"]
    (rehearsed,) = result("rehearse", "infer", "--isolation", "guard")
    assert (rehearsed["problems"], rehearsed["submission"]) == ([], "rehearsal/submission.csv")
    assert result("report", "--hardest", "1")["path"] == "report.html"
    eeg_id = pl.read_csv(competition_folder / "train.csv")["eeg_id"][0]
    assert result("view", str(eeg_id))["written"] == [f"eeg-{eeg_id}.png", f"eeg-{eeg_id}.html"]
    why = result("view", str(eeg_id), "--explain")["reasons"]
    assert (why["run"], why["unseen"], len(why["by_second"])) == ("baseline", True, 50)
    assert list(why["by_chain"]) == ["LL", "RL", "LP", "RP", "midline"]
    assert eeg_id not in {case["eeg_id"] for case in why["cases"]}
    assert {"data", "store"} <= {check["name"] for check in result("doctor")}


def test_prepare_says_what_it_did(
    competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "--data", str(competition_folder), "--store", str(tmp_path / "store")]
    assert main(arguments) == 0
    assert "decoded" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "nothing to do: all" in capsys.readouterr().out


def test_verify_lists_all_that_changed(
    competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, store, runs = copied(competition_folder, tmp_path / "hms"), tmp_path / "store", tmp_path / "runs"
    run = make_run(runs, "baseline")
    assert main(["prepare", "--data", str(data), "--store", str(store), "--quiet"]) == 0
    words = ["verify", "--data", str(data), "--store", str(store), "--runs", str(runs)]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("recordings compared; nothing has changed\n")
    source = sorted((data / "train_eegs").iterdir())[0]
    changed = (source, store / "spectrogram.f16", run / "fold1/weights.safetensors", run / "oof.parquet")
    for path in changed:
        with path.open("r+b") as file:
            file.seek(-50, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    assert main(words) == 2
    *problems, summary = capsys.readouterr().out.splitlines()
    assert summary.endswith("4 files or recordings changed or broken")
    assert {line.partition(": ")[0] for line in problems} == set(map(str, changed))
    assert main(["verify", "--store", str(store), "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem.startswith(f"{store / 'spectrogram.f16'}: recording")


def damage_missing(folder: Path) -> str:
    path = sorted((folder / "train_eegs").iterdir())[0]
    path.unlink()
    return f"{path}: no such file"


def damage_truncated(folder: Path) -> str:
    path = sorted((folder / "train_spectrograms").iterdir())[0]
    path.write_bytes(path.read_bytes()[:1000])
    return f"{path}: cannot be read"


def damage_renamed(folder: Path) -> str:
    path = sorted((folder / "train_eegs").iterdir())[1]
    pl.read_parquet(path).rename({"Fp1": "Fp9"}).write_parquet(path)
    return f"{path}: wrong columns: it lacks Fp1 and has unknown Fp9"


def damage_table(folder: Path) -> str:
    (folder / "train.csv").unlink()
    return f"{folder / 'train.csv'}: no such file"


def damage_header(folder: Path) -> str:
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text.replace("gpd_vote", "gdp_vote", 1))
    return "lacks column gpd_vote"


@pytest.mark.parametrize(
    "damage", [damage_missing, damage_truncated, damage_renamed, damage_table, damage_header]
)
def test_damaged_input_is_named_without_a_traceback(  # type: ignore[no-untyped-def]
    damage, competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    expected = damage(folder)
    assert main(["prepare", "--data", str(folder), "--store", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_the_real_files_go_the_whole_way(hms_sample: Path, tmp_path: Path) -> None:
    """The commands of the README, from five real EEGs to a submission for the one public test row."""
    from kagglehms.packing.build import build

    data, store, runs = str(hms_sample), str(tmp_path / "store"), str(tmp_path / "runs")
    assert main(["prepare", "--data", data, "--store", store]) == 0
    train = ["train", "baseline", "--data", data, "--store", store, "--folds", "2", "--epochs", "1"]
    assert main([*train, "--backbone", "half:test_efficientnet", "--runs", runs, "--weights", "none"]) == 0
    build(tmp_path / "runs", tmp_path / "dist", owner="somebody")
    dist, out = str(tmp_path / "dist"), str(tmp_path / "out")
    assert main(["rehearse", "infer", "--data", data, "--dist", dist, "--out", out]) == 0
    made = pl.read_csv(tmp_path / "out" / "submission.csv")
    assert made.columns == pl.read_csv(hms_sample / "sample_submission.csv").columns
    assert made["eeg_id"].to_list() == pl.read_csv(hms_sample / "test.csv")["eeg_id"].to_list()
    assert made.drop("eeg_id").sum_horizontal()[0] == pytest.approx(1)


@pytest.mark.slow
def test_rehearse_runs_the_built_kernel_on_the_test_set(
    dist: Path, competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rehearse", "infer", "--data", str(competition_folder), "--dist", str(dist)]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    made = pl.read_csv(tmp_path / "submission.csv")
    assert made["eeg_id"].to_list() == pl.read_csv(competition_folder / "test.csv")["eeg_id"].to_list()
    prior = pl.read_csv(competition_folder / "sample_submission.csv")
    assert not made.equals(prior)
    damaged = Path(shutil.copytree(dist, tmp_path / "dist"))
    weights = next((damaged / "dataset").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    arguments[arguments.index(str(dist))] = str(damaged)
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 1


@pytest.fixture(scope="module")
def two_runs(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with store and two recipes, trained by `kagglehms ladder --run`."""
    where = tmp_path_factory.mktemp("two")
    data, store = str(competition_folder), str(where / "store")
    assert main(["prepare", "--data", data, "--store", store]) == 0
    arguments = ["ladder", "baseline", "global-stats", "--run", "--data", data, "--store", store]
    arguments += ["--runs", str(where / "runs"), "--folds", "2", "--epochs", "1", "--weights", "none"]
    assert (
        main(
            [
                *arguments,
                "--backbone",
                "half:test_efficientnet",
                "--format",
                "csv",
                "--out",
                str(where / "l.csv"),
            ]
        )
        == 0
    )
    return where


def test_ladder_trains_what_is_missing_and_writes_its_table(two_runs: Path) -> None:
    table = pl.read_csv(two_runs / "l.csv")
    assert table["recipe"].to_list() == ["baseline", "global-stats"]
    assert table["folds"].to_list() == ["2/2", "2/2"]
    assert table["cv_all"].is_not_null().all()
    assert table["published_cv"].to_list() == [0.7287, 0.7324]


def test_ladder_shows_the_published_figures_without_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ladder", "--runs", str(tmp_path), "--format", "markdown"]) == 0
    assert "| mosaic-xloss " in capsys.readouterr().out
    names = ["vote-weighted-as-published", "final"]
    assert main(["ladder", *names, "--runs", str(tmp_path), "--format", "csv"]) == 0
    table = pl.read_csv(capsys.readouterr().out.encode())
    assert dict(zip(table["recipe"], table["published_cv"], strict=True)) == {
        "vote-weighted-as-published": 0.6767,
        "final": None,
    }
    assert dict(zip(table["recipe"], table["published_lb"], strict=True)) == {
        "vote-weighted-as-published": 0.42,
        "final": 0.32,
    }
    monkeypatch.chdir(tmp_path)
    assert main(["ladder", "--runs", str(tmp_path), "--run"]) == 2
    assert "no competition data in hms" in capsys.readouterr().err


def test_a_fitted_blend_goes_into_bundle_and_predictions(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kagglehms import load_bundle
    from kagglehms.packing.build import build

    runs = two_runs / "runs"
    assert (
        main(["blend", "baseline", "global-stats", "--name", "mine", "--runs", str(runs), "--shrinkage", "1"])
        == 0
    )
    text = capsys.readouterr().out
    assert "nested score" in text
    assert "kagglehms build --blend mine" in text
    built = build(runs, two_runs / "dist", owner="somebody", blend="mine")
    assert "blend.json" in built.manifest.files
    predictor = load_bundle(built.dataset, "cpu")
    assert predictor.blend is not None
    power = np.random.default_rng(0).lognormal(1, 1, (2, 300, 400)).astype(np.float32)
    from kagglehms.data.readers import encode_spectrogram
    from kagglehms.inputs.layouts import Crop

    crops = [Crop(encode_spectrogram(p)) for p in power]
    members: dict[str, list[np.ndarray]] = {}
    for model in predictor.models():
        members.setdefault(model.recipe.name, []).append(model.predict(crops))
    means = {name: np.mean(folds, axis=0) for name, folds in members.items()}
    np.testing.assert_allclose(predictor.predict(spectrogram=power), predictor.blend.apply(means), atol=1e-9)


def test_one_run_is_calibrated_for_many_votes_and_predicts_so(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kagglehms import load_bundle
    from kagglehms.data.readers import encode_spectrogram
    from kagglehms.inputs.layouts import Crop
    from kagglehms.packing.build import build

    runs = str(two_runs / "runs")
    command = ["blend", "baseline", "--name", "alone", "--runs", runs, "--shrinkage", "1", "--biases"]
    assert main([*command, "--population", "many", "--correct-prior", "--prior-exponent", "fit"]) == 0
    assert "after: nested score of the blend" in capsys.readouterr().out
    assert main([*command, "--population", "many", "--correct-prior"]) == 0
    text = capsys.readouterr().out
    assert "class priors corrected, nothing else" in text
    built = build(two_runs / "runs", two_runs / "dist3", owner="somebody", blend="alone")
    assert "class prior of the records that its last stage" in (built.dataset / "MODEL_CARD.md").read_text()
    predictor = load_bundle(built.dataset, "cpu")
    blend = predictor.blend
    assert blend is not None
    assert blend.prior is not None
    table = pl.read_parquet(two_runs / "runs" / "baseline" / "oof.parquet")
    votes = table.select(VOTE_COLUMNS).to_numpy().astype(float)
    n = votes.sum(axis=1)
    targets = votes / n[:, None]
    trained, target = ((targets[rows].sum(axis=0) + 1 / 6) / (rows.sum() + 1) for rows in (n > 0, n >= 10))
    np.testing.assert_allclose(predictor.prior, target, rtol=1e-9)  # where there is no recording
    power = np.random.default_rng(0).lognormal(1, 1, (2, 300, 400)).astype(np.float32)
    crops = [Crop(encode_spectrogram(p)) for p in power]
    mean = np.mean([model.predict(crops) for model in predictor.models()], axis=0)
    powers = (mean * target / trained) / (mean * target / trained).sum(axis=1, keepdims=True)
    powers = powers ** (1 / blend.temperature) * np.exp(blend.biases)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor.predict(spectrogram=power), expected, rtol=1e-6)
    assert main([*command, "--correct-prior", "--min-votes", "5"]) == 2
    assert "give --population many" in capsys.readouterr().err
    assert main([*command, "--prior-exponent", "fit"]) == 2
    assert "give both or neither" in capsys.readouterr().err
    assert main([*command, "--correct-prior", "--prior-exponent", "3"]) == 2
    assert "prior_exponent must be a number from 0 to 2" in capsys.readouterr().err


def test_a_given_blend_can_be_bundled_and_an_unknown_one_is_named(two_runs: Path) -> None:
    from kagglehms.errors import UsageError
    from kagglehms.packing.build import build

    built = build(two_runs / "runs", two_runs / "dist2", owner="somebody", blend="kaggle-ensemble")
    assert [m.recipe for m in built.manifest.models] == ["baseline"] * 2 + ["global-stats"] * 2
    with pytest.raises(UsageError, match="no blend 'nope'"):
        build(two_runs / "runs", two_runs / "dist2", blend="nope")


def test_training_that_is_out_of_time_says_what_is_left_and_another_session_goes_on(
    two_runs: Path, competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(competition_folder), "--store", str(two_runs / "store"), "--folds", "2"]
    arguments = ["train", "baseline", *data, "--fold", "1", "--epochs", "1", "--weights", "none"]
    arguments += ["--backbone", "half:test_efficientnet", "--batch-size", "4", "--device", "cpu"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*arguments, "--runs", str(first), "--time-limit", "1s"]) == 3  # over since the tests began
    message = capsys.readouterr().err
    assert "kagglehms: baseline stopped after step 0 of 2, because the time limit is near; 2 steps" in message
    assert "2 evaluations of fold1 are left" in message
    assert main([*arguments, "--runs", str(second), "--resume-from", str(first)]) == 0
    said = capsys.readouterr().out
    assert "1 fold taken over" in said
    assert "continues after step 0 of 2" in said
    assert "baseline: 1 of 2 folds trained" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time-limit", "soon"], "'soon' is no duration; write hours, minutes or seconds"),
        (["--save-every", "0"], "'0' is no duration"),
        (["--resume-from", "nowhere"], "nowhere: no such folder; --resume-from takes an earlier session's"),
    ],
)
def test_unusable_session_options_are_one_line(
    options: list[str],
    message: str,
    two_runs: Path,
    competition_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["--data", str(competition_folder), "--store", str(two_runs / "store"), "--runs", str(tmp_path)]
    assert main(["train", "baseline", *data, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_simulate_makes_a_competition_and_says_what_a_score_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sim"
    arguments = ["simulate", "--out", str(out), "--eegs", "4", "--test", "1", "--seed", "2"]
    assert main([*arguments, "--truth"]) == 0
    said = capsys.readouterr().out
    assert "4 EEGs to learn from and 1 to predict" in said
    scores = {line.split("  ")[0]: line.split()[-2:] for line in said.splitlines()[-5:]}
    perfect, prior = (
        float(scores[name][0]) for name in ("perfect predictor (the irreducible part)", "class prior")
    )
    assert 0 < perfect < prior
    assert {path.name for path in tmp_path.iterdir()} == {"sim", "sim-truth"}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    assert main([*arguments[:-1], "3"]) == 2
    assert "not of this simulated competition" in capsys.readouterr().err


def test_a_quiet_command_leaves_the_next_one_its_voice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ladder", "--runs", str(tmp_path), "--quiet"]) == 0
    capsys.readouterr()
    say("heard")
    assert capsys.readouterr().out == "heard\n"
