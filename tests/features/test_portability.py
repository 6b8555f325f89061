"""Where vectors, caches or compilers are missing: the same answer, one word about it, nothing in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import eeg_windows
import numba
import numpy as np
import pytest
from numba import types

import kagglehms
from kagglehms.features import PlainPathWarning, jit, percentiles

PACKAGE = Path(kagglehms.__file__).parent

CHILD = """
import json, sys, warnings
import numpy as np
import eeg_windows
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    np.savez(sys.argv[1], **eeg_windows.sample_features())
from kagglehms import features
print(json.dumps({"from": features.__file__, "said": [str(w.message) for w in caught]}))
"""


def run_child(script: str, folder: Path, package_parent: Path = PACKAGE.parent, **environment: str) -> Any:
    """Run `script` in a process of its own, results.npz in `folder` as its argument; return the JSON it printed."""
    paths = [str(package_parent), str(Path(__file__).parents[1])]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "results.npz")],
        env={**inherited, "PYTHONPATH": os.pathsep.join(paths), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return eeg_windows.sample_features()


def assert_alike(results: Any, wanted: dict[str, Any]) -> None:
    for name, values in wanted.items():
        atol = {
            "mel": 1e-4,
            "folded": 5e-6 * 32,
            "differences": 5e-6 * 32,
            "spectra": 2e-4,
            "zoomed": 1e-4,
        }.get(name.split()[0], 2e-6)
        np.testing.assert_allclose(results[name], values, rtol=1e-6, atol=atol, err_msg=name)


def test_importing_compiles_nothing_and_brings_nothing_heavy(tmp_path: Path) -> None:
    script = """
import json, sys
import numba
numba.njit(lambda x: x)(1)
before = set(sys.modules)
from kagglehms import features
from kagglehms.features import differences, jit, mel, mel_plan, panels, spectra, spectra_plan, zoom, zoom_plan
imported = sorted(set(sys.modules) - before)
mel_plan.plan(features.MelSpec())
spectra_plan.plan(features.SPECTRA_50_10, 10_000)
zoom_plan.plan(features.ZoomSpec(), 10_000)
rooms = differences, mel, panels, spectra, zoom
code = [c for room in rooms for c in vars(room).values() if isinstance(c, jit.Compiled)]
print(json.dumps({"features": len(code), "compiled": sum(len(c._compiled) for c in code), "imported": imported,
                  "modules": sorted(set(sys.modules) - before)}))
"""
    found = run_child(script, tmp_path)
    assert found["features"] == 8
    assert found["compiled"] == 0
    heavy = {"librosa", "torch", "polars", "pandas", "sklearn", "matplotlib"}
    assert not {name.partition(".")[0] for name in found["imported"]} & {"scipy", *heavy}
    assert not {name.partition(".")[0] for name in found["modules"]} & heavy


def test_without_a_compiler_plain_numpy_says_so_once(tmp_path: Path, here: dict[str, Any]) -> None:
    said = run_child(CHILD, tmp_path, NUMBA_DISABLE_JIT="1")
    assert len(said["said"]) == 1
    assert "plain NumPy" in said["said"][0]
    assert "NUMBA_DISABLE_JIT" in said["said"][0]
    assert_alike(np.load(tmp_path / "results.npz"), here)


@pytest.mark.slow(20)
def test_a_processor_of_the_base_kind_a_read_only_package_and_no_home(
    tmp_path: Path, here: dict[str, Any]
) -> None:
    """Neither AVX nor fused multiply-add nor half-precision conversion, and nowhere to keep what is compiled.

    A file where the cache's folder would be keeps even the superuser from writing there.
    """
    copy = tmp_path / "site"
    shutil.copytree(PACKAGE, copy / "kagglehms", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "kagglehms" / "features" / "__pycache__").write_text("in the way")
    nowhere = {
        "HOME": "/dev/null/nowhere",
        "XDG_CACHE_HOME": "/dev/null/nowhere",
        "LOCALAPPDATA": "/dev/null/nowhere",
    }
    base = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    said = run_child(CHILD, tmp_path, package_parent=copy, **nowhere, **base)
    assert str(copy) in said["from"]
    assert said["said"] == []
    assert not [*tmp_path.rglob("*.nbi")]
    assert_alike(np.load(tmp_path / "results.npz"), here)


# ---- features that cannot be compiled, caches that are broken


def double(x: jit.Source, out: jit.Floats) -> None:
    for i in range(x.size):
        out[i] = 2 * x[i]


def double_slowly(x: jit.Source, out: jit.Floats) -> None:
    out[:] = x + x


X = np.arange(5, dtype=np.float32)


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_warned", False)


class Scale(NamedTuple):
    factors: jit.Table
    shift: float
    negative: bool


class Arrangement(NamedTuple):
    scale: Scale
    indices: jit.Indices
    step: int


def rearrange(x: jit.Source, out: jit.Floats, by: Arrangement) -> None:
    for i in range(out.size):
        value = x[by.indices[i] * by.step] * by.scale.factors[i] + by.scale.shift
        out[i] = -value if by.scale.negative else value


def test_arguments_are_typed_by_their_annotations() -> None:
    """Named tuples of arrays and numbers, one inside the other, with read-only tables."""
    factors, indices = np.array([1, 10, 100], np.float32), np.array([2, 0, 1])
    factors.flags.writeable = False
    out = np.empty(3, np.float32)
    jit.Compiled(rearrange, rearrange)(X, out, Arrangement(Scale(factors, 0.5, True), indices, 2))
    np.testing.assert_array_equal(out, [-4.5, -0.5, -200.5])


@pytest.mark.usefixtures("unsaid")
def test_a_feature_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NotImplementedError("LLVM ERROR: no vectors\non this machine")

    monkeypatch.setattr(jit, "_dispatcher", refuse)
    first, second = (jit.Compiled(double, double_slowly) for _ in range(2))
    out = np.empty(5, np.float32)
    with pytest.warns(PlainPathWarning, match=r"LLVM ERROR: no vectors\)") as caught:
        first(X, out)
    assert len(caught) == 1
    np.testing.assert_array_equal(out, 2 * X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first(X, out)
        second(X, out)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_broken_cache_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    out = np.empty(5, np.float32)
    jit.Compiled(double, double_slowly)(X, out)
    files = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must not end on the plain path
        jit.Compiled(double, double_slowly)(X, out)
    np.testing.assert_array_equal(out, 2 * X)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_no_folder_to_cache_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")
    out = np.empty(5, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jit.Compiled(double, double_slowly)(X, out)
    np.testing.assert_array_equal(out, 2 * X)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_changed_helper_makes_cached_features_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    signature = (types.Array(types.float32, 1, "C"), types.Array(types.float32, 1, "C"))
    stamps = ["one", "one", "two"]
    hits = []
    for stamp in stamps:
        monkeypatch.setattr(jit, "_stamp", lambda stamp=stamp: stamp)
        dispatcher = jit._dispatcher(double, True)
        dispatcher.compile(signature)
        hits.append(sum(dispatcher.stats.cache_hits.values()))
    assert hits == [0, 1, 0]


def test_features_leave_the_gil_to_others() -> None:
    """While one thread is inside a single call, another one gets on."""
    panels, out = np.zeros((2, 4, 1000, 3000), np.float32)
    panels, out = panels[None].reshape(4, 1000, 3000), out.reshape(4, 1000, 3000)
    percentiles(panels, out=out)  # compiled before it is watched
    steps, inside, progress = 0, threading.Event(), []

    def compute() -> None:
        inside.set()
        before = steps
        percentiles(panels, out=out)
        progress.append(steps - before)

    for _ in range(20):  # on a busy machine this thread may not be given a processor the first time
        inside.clear()
        thread = threading.Thread(target=compute)
        thread.start()
        inside.wait()
        while thread.is_alive():
            steps += 1
        thread.join()
        if progress[-1] > 100:
            break
    assert progress[-1] > 100


def test_plain_twins_agree_with_the_features(monkeypatch: pytest.MonkeyPatch, here: dict[str, Any]) -> None:
    monkeypatch.setattr(jit.Compiled, "__call__", lambda self, *args: self.plain(*args))
    assert_alike(eeg_windows.sample_features(), here)
