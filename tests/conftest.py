"""Fixtures shared by all tests, and what keeps them quick."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser import Chromium

    from kagglehms.data.records import Records
    from kagglehms.data.store import Store

# Before anything imports it, and for child processes too: the networks are tiny, and the threads of several processes
# only slow one another down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# glibc asks for large pages, with which networks take less time.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
# ONNX Runtime would tell its makers about every session, from tests that hold that nothing leaves the machine as well.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Data of the one who runs the tests are none of theirs.
os.environ.pop("KAGGLEHMS_DATA", None)

REAL_DATA = Path(os.environ.get("KAGGLEHMS_REAL_DATA", Path(__file__).resolve().parents[2] / "shared"))
"""Folder of real competition data and weights; tests that need what it lacks are skipped. See CONTRIBUTING.md."""

LONG_FILES_S = {
    "kernel/test_entry.py": 45,
    "report/test_page.py": 45,
    "cuda/test_networks.py": 40,
    "test_portability.py": 35,
    "cuda/test_training.py": 30,
    "bundle/test_explanation.py": 20,
}
"""Files that take long though no test of theirs does; their seconds, where they say more than the tests' number."""


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist hand files out in the order below: its own begins with those of many tests, however short."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files where several processes share them, so that none ends alone with a long one."""
    if not hasattr(config, "workerinput"):
        return
    seconds: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        slow = item.get_closest_marker("slow")
        seconds[item.path] += 0.4 if slow is None else slow.args[0] if slow.args else 15
    for name, long_s in LONG_FILES_S.items():
        path = Path(__file__).parent / name
        seconds[path] = max(seconds[path], long_s)
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish() -> None:
    """Spare the garbage collector what has been imported: it stays to the end."""
    gc.collect()
    gc.freeze()


def _real(name: str, what: str = "real competition data, which are not part of the project") -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"needs {name}: {what}")
    return path


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the benchmarks, whose modules can be imported while the test runs."""
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture(scope="session")
def hms_sample() -> Path:
    """A real competition folder in miniature."""
    return _real("hms-sample")


@pytest.fixture(scope="session")
def golden_images() -> Path:
    """Mel images of windows of `hms_sample` by the public notebook that everybody uses."""
    return _real("golden/eeg_mel_images.npz")


@pytest.fixture(scope="session")
def real_train_table() -> Path:
    """Most rows of the real train.csv, as parquet."""
    return _real("hms-real/train_table.parquet")


@pytest.fixture(scope="session")
def real_predictions() -> Path:
    """Out-of-fold predictions of eighteen models on real records, as parquet."""
    return _real(
        "hms-real/oof_18_models.parquet", "real out-of-fold predictions, which are not part of the project"
    )


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """timm's ImageNet weights of tf_efficientnet_lite0."""
    return _real(
        "weights/tf_efficientnet_lite0.safetensors",
        "weights from ImageNet, which are not part of the project",
    )


@pytest.fixture(scope="session")
def competition_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated competition; never to be written to (see `copied`)."""
    from kagglehms.simulator.competition import make_competition

    folder = tmp_path_factory.mktemp("simulated") / "competition"
    make_competition(folder, n_eegs=12, n_test=4, seed=54)
    return folder


@pytest.fixture(scope="session")
def records(competition_folder: Path) -> Records:
    """The labelled records of `competition_folder`."""
    from kagglehms.data.records import read_records

    return read_records(competition_folder / "train.csv")


@pytest.fixture(scope="session")
def store(competition_folder: Path, records: Records, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The decoded recordings of `competition_folder`; never to be written to."""
    from kagglehms.data.competition import Competition
    from kagglehms.data.preparing import prepare, recordings_of

    wanted = recordings_of(Competition(competition_folder), records)
    return prepare(wanted, tmp_path_factory.mktemp("store")).store


@pytest.fixture(scope="session")
def dist(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built dist folder with two trained folds of a tiny model; never to be written to."""
    from trained import make_dist

    return make_dist(competition_folder, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """A running browser.

    It ends with its module: while it runs, Playwright's event loop counts as running, and asyncio starts no other.
    """
    from browser import running_chromium, why_no_browser

    if reason := why_no_browser():
        pytest.skip(reason)
    with running_chromium() as chromium:
        yield chromium
