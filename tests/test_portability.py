"""Machines that lack something: packages that were not asked for, and what Python has on Unix alone.

What is missing cannot be imported in a child process, whose `sitecustomize` sees to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from kagglehms.environment import child_environment

BARE = ("albumentations", "kaggle")
"""What no model needs to be trained or to predict."""
UNIX_MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline")
UNIX_FUNCTIONS = (
    *("preadv", "pwrite", "pread", "pwritev", "posix_fadvise", "posix_fallocate", "mkfifo", "chroot"),
    *("sched_getaffinity", "fork", "forkpty", "killpg", "getpgid", "setsid", "wait3", "wait4", "nice"),
    *("getuid", "geteuid", "getgid", "getegid", "chown", "fchown"),
)


def lacking(folder: Path, modules: tuple[str, ...], functions: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of a Python in which these modules, and functions of `os`, are not there."""
    (folder / "sitecustomize.py").write_text(
        f"import os, signal, sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
        f"for name in {functions!r}: delattr(os, name)\n" + ("del signal.SIGHUP\n" if functions else "")
    )
    environment = child_environment()
    path = os.pathsep.join([str(folder), environment["PYTHONPATH"], str(Path(__file__).parent)])
    return environment | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"}


def run(environment: dict[str, str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    return lacking(tmp_path, BARE)


@pytest.fixture
def windows(tmp_path: Path) -> dict[str, str]:
    """As far as it can be had elsewhere."""
    return lacking(tmp_path, UNIX_MODULES, UNIX_FUNCTIONS)


PACKAGE = Path(__file__).resolve().parents[1] / "kagglehms"


def module_names() -> list[str]:
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
    }
    names = {name.removesuffix(".__init__") for name in names if not name.endswith("__main__")}
    assert len(names) > 80
    return sorted(names)


@pytest.mark.parametrize(
    ("modules", "functions"), [(BARE, ()), (UNIX_MODULES, UNIX_FUNCTIONS)], ids=["bare", "windows"]
)
def test_no_module_needs_what_a_machine_may_lack(
    modules: tuple[str, ...], functions: tuple[str, ...], tmp_path: Path
) -> None:
    code = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        f"assert not [name for name in {modules} if sys.modules[name]]\n"
        f"assert not [name for name in {functions} if hasattr(os, name)]\n"
    )
    done = run(lacking(tmp_path, modules, functions), "-c", code, *module_names(), folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_fold_trains_and_predicts_on_a_bare_machine(
    bare: dict[str, str], competition_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from trained import make_dist\n"
        "from kagglehms import load_bundle\n"
        "from kagglehms.packing.build import build\n"
        "dist = make_dist(Path(sys.argv[1]), Path('work'))\n"
        "predicted = load_bundle(dist / 'dataset', 'cpu').predict(spectrogram=np.ones((300, 400), np.float32))\n"
        "print(predicted.probabilities.sum())\n"
    )
    done = run(bare, "-c", code, str(competition_folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(1)
    assert pl.read_parquet(tmp_path / "work/runs/baseline/oof.parquet").height > 0


def test_what_is_asked_for_and_missing_is_one_line_that_says_what_to_install(
    bare: dict[str, str], tmp_path: Path
) -> None:
    asking = {
        "albumentations": "from kagglehms.training.options import Albumentations, Transform\n"
        "from kagglehms.training.albumentations_adapter import albumentations_adapter\n"
        "work = lambda: albumentations_adapter([Albumentations((Transform('XYMasking', {}),))], (8, 8))\n",
        "kaggle": "from kagglehms.kaggle.client import KaggleClient\n"
        "work = lambda: KaggleClient().dataset('some-owner/some-dataset')\n",
    }
    for name, code in asking.items():
        code += "try: work()\nexcept kagglehms.errors.HMSError as error: print(error)"
        done = run(bare, "-c", f"import kagglehms.errors\n{code}", folder=tmp_path)
        assert f"pip install {name}" in done.stdout, done.stderr
        assert len(done.stdout.splitlines()) == 1


def test_a_package_that_a_command_misses_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kagglehms.cli.command import Command, Result
    from kagglehms.cli.commands import COMMANDS, main

    def needs(_: object) -> Result:
        raise ModuleNotFoundError("No module named 'sklearn.model_selection'", name="sklearn.model_selection")

    monkeypatch.setitem(COMMANDS, "prepare", Command(COMMANDS["prepare"].options, needs))
    assert main(["prepare", "--data", "x"]) == 1
    said = f"sklearn is not installed for {sys.executable}; pip install scikit-learn"
    assert capsys.readouterr().err == f"kagglehms: error: {said}\n"


TRAINING = ("train", "baseline", "--folds", "2", "--epochs", "1", "--weights", "none")


def test_what_unix_alone_has_is_not_needed_to_prepare_and_train(
    windows: dict[str, str], competition_folder: Path, tmp_path: Path
) -> None:
    command, data = ["-m", "kagglehms"], ["--data", str(competition_folder), "--store", "store"]
    backbone = ["--backbone", "half:test_efficientnet", "--device", "cpu"]
    for words in (["prepare", *data], [*TRAINING, *data, *backbone]):
        done = run(windows, *command, *words, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "runs/baseline/oof.parquet").is_file()


def test_what_unix_alone_has_is_not_needed_to_score(
    windows: dict[str, str], dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from kagglehms.bundle.manifest import read_manifest\n"
        "from kagglehms.kernel.supervisor import supervise\n"
        "from kagglehms.kernel.protocol import Task\n"
        "bundle, competition, out = sys.argv[1:]\n"
        "digest = read_manifest(Path(bundle)).digest\n"
        "sys.exit(supervise(Task(bundle, competition, out, digest=digest, time_limit_s=600, scratch=out)))"
    )
    done = run(
        windows, "-c", code, str(dist / "dataset"), str(competition_folder), str(tmp_path), folder=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status": "complete"' in done.stdout
    assert '"rows_with_prior": 0' in done.stdout


def test_a_rehearsal_says_what_it_cannot_do_without_and_the_doctor_too(
    windows: dict[str, str], dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    words = ["rehearse", "infer", "--data", str(competition_folder), "--dist", str(dist)]
    for isolation in ([], ["--isolation", "guard"], ["--isolation", "namespaces"]):
        done = run(windows, "-m", "kagglehms", *words, *isolation, folder=tmp_path)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("kagglehms: error")]
        assert "resource, os.killpg, os.geteuid" in line
        assert "rehearse on Linux" in line
        assert "Traceback" not in done.stderr
    done = run(windows, "-m", "kagglehms", "doctor", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note  rehearsal" in done.stdout
    assert "Python lacks resource" in done.stdout


def test_a_setting_that_numba_refuses_is_one_line(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    environment = child_environment() | {"NUMBA_NUM_THREADS": "0"}
    data = ["--data", str(competition_folder), "--store", str(dist.parent / "store")]
    failed = run(environment, "-m", "kagglehms", *TRAINING, *data, folder=tmp_path)
    assert failed.returncode == 2
    assert "NUMBA_NUM_THREADS=0" in failed.stderr
    assert "unset it" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    doctor = run(environment, "-m", "kagglehms", "doctor", folder=tmp_path)
    assert doctor.returncode == 1
    assert "STOP  features" in doctor.stdout
    assert "nothing stops you" not in doctor.stdout
