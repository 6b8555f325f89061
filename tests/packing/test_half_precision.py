"""Half precision: what is stored, what a model makes of it, and the measured change of the score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs_folder import IDENTITY, edit, make_run
from safetensors.numpy import load_file, save_file

from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.bundle.predictor import load_bundle
from kagglehms.errors import RunError
from kagglehms.inputs.layouts import Normaliser
from kagglehms.packing.build import build
from kagglehms.packing.description import describe
from kagglehms.packing.half_precision import HeldOut, halve, open_held_out
from kagglehms.runs.folder import select_runs
from kagglehms.training.checkpoint import load_weights, save_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        "conv": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=8).astype(np.float32),
        "variance": np.full(8, 1e-9, np.float32),
        "steps": np.array([[3]], np.int64),
    }
    save_file(tensors, tmp_path / "full.safetensors", {"note": "kept"})
    return tmp_path / "full.safetensors"


def test_matrices_are_halved_and_all_else_is_kept(weights: Path) -> None:
    half = weights.with_name("half.safetensors")
    half.write_bytes(halve(weights))
    before, after = load_file(weights), load_file(half)
    assert {name: tensor.dtype for name, tensor in after.items()} == {
        "conv": np.float16,
        "bias": np.float32,
        "variance": np.float32,
        "steps": np.int64,
    }
    assert before.keys() == after.keys()
    np.testing.assert_array_equal(after["conv"], before["conv"].astype(np.float16))
    for name in ("bias", "variance", "steps"):
        np.testing.assert_array_equal(after[name], before[name])
    assert halve(weights) == half.read_bytes()
    assert b'"note":"kept"' in half.read_bytes()


@pytest.mark.parametrize("value", [7e4, -7e4])
def test_what_half_precision_cannot_hold_is_refused(weights: Path, value: float) -> None:
    save_file({"conv": np.full((2, 2), value, np.float32)}, weights)
    with pytest.raises(RunError, match="conv holds 7e.04, too large for half precision"):
        halve(weights)


def test_broken_weights_are_named(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(RunError, match=r"full\.safetensors: cannot be read"):
        halve(weights)


def test_a_model_takes_them_with_its_normaliser(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    save_weights(model, tmp_path / "full.safetensors", Normaliser({"eeg": (1.5, 2.5)}))
    (tmp_path / "half.safetensors").write_bytes(halve(tmp_path / "full.safetensors"))
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    assert load_weights(other, tmp_path / "half.safetensors").statistics == {"eeg": (1.5, 2.5)}
    assert other[0].weight.dtype == torch.float32
    torch.testing.assert_close(other[0].weight, model[0].weight.half().float())
    torch.testing.assert_close(other[0].bias, model[0].bias)


def test_without_the_records_nothing_is_measured_and_it_is_said(runs: Path, tmp_path: Path) -> None:
    full = build(runs, tmp_path / "full", owner="some-owner")
    built = build(runs, tmp_path / "half", owner="some-owner", half=True)
    manifest = read_manifest(built.dataset)
    verify(built.dataset, manifest)
    assert {(model.precision, model.changes) for model in manifest.models} == {("float16", None)}
    assert manifest.digest != full.manifest.digest
    assert "float16, its change not measured" in describe(built)
    again = build(runs, tmp_path / "again", owner="some-owner", half=True)
    assert again.manifest == built.manifest


def test_the_change_is_measured_on_the_held_out_records(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    """The trained bundle of two folds, and the store it was trained on."""
    trained, store = dist.parent / "runs", dist.parent / "store"
    built = build(
        trained, tmp_path / "dist", owner="some-owner", half=True, held_out=HeldOut(competition_folder, store)
    )
    for model in built.manifest.models:
        assert model.precision == "float16"
        assert model.changes is not None
        change = model.changes["all"]
        assert change is not None
        assert 0 < abs(change) < 0.01  # other weights give another score, and hardly another
    assert "float16 changes all " in describe(built)
    assert {"kagglehms", "python", "torch", "timm", "numba"} <= built.manifest.versions.keys()
    sizes = [sum(f.size for n, f in m.files.items() if n.endswith(".safetensors")) for m in (
        read_manifest(dist / "dataset"), built.manifest)]  # fmt: skip
    assert sizes[1] < 0.7 * sizes[0]
    eeg_uv = np.random.default_rng(0).normal(0, 30, (10_000, 20))
    power = np.random.default_rng(1).lognormal(size=(300, 400))
    full, half = (load_bundle(path, "cpu") for path in (dist / "dataset", built.dataset))
    np.testing.assert_allclose(
        half.predict(eeg_uv, spectrogram=power), full.predict(eeg_uv, spectrogram=power), atol=0.02
    )


def test_other_records_are_refused(dist: Path, competition_folder: Path, tmp_path: Path) -> None:
    run_folder = make_run(tmp_path / "runs", "baseline")
    edit(run_folder / "run.json", identity=IDENTITY | {"store": "another"})
    with pytest.raises(RunError, match="was trained on other records, folds or another store"):
        open_held_out(HeldOut(competition_folder, dist.parent / "store"), select_runs(tmp_path / "runs"))
