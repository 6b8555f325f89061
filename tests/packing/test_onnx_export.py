"""ONNX files of a bundle: what another runtime makes of them, and what becomes of networks that cannot be written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from built_bundle import OWNER
from runs_folder import forget_digests, make_run
from stand_ins import stand_in

from kagglehms.bundle.manifest import read_manifest
from kagglehms.bundle.predictor import load_bundle
from kagglehms.cli.commands import main
from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS
from kagglehms.errors import EXIT_USER, BundleError, UsageError
from kagglehms.inputs.layouts import Normaliser
from kagglehms.kaggle.preflight import preflight
from kagglehms.packing import onnx_export
from kagglehms.packing.build import Built, build
from kagglehms.packing.description import describe
from kagglehms.packing.model_card import MODEL_CARD
from kagglehms.runs.folder import RunFolder
from kagglehms.training.checkpoint import WEIGHTS, load_normaliser, save_weights
from kagglehms.training.models import head_layers, make_model

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'kagglehms[onnx]'")

KINDS = {
    "baseline": (1, 400, 300),
    "wave-stack": (16, 10_000),
    "effnet1d": (16, 10_000),
    "resnet1d": (16, 2500),
    "resnet1d+panels": (16 * 2500 + 400 * 300,),
    "two-views": (160 * 1000 + 400 * 300,),
    "raw+spectrogram": (16 * 10_000 + 400 * 300,),
}
"""Recipe of each kind of network → shape of its input. The tests of one run export a Squeezeformer alone."""
NORMALISER = Normaliser({"kaggle": (0.5, 2.0)})


def make_trained(runs: Path, name: str, finished: tuple[int, ...] = (0,)) -> None:
    """Write a run of a small network whose logits differ as those of trained ones do."""
    recipe = stand_in(name)
    folder = RunFolder(make_run(runs, recipe, finished))
    for fold in finished:
        torch.manual_seed(fold)
        model, _ = make_model(recipe)
        (head,) = head_layers(model, recipe)
        with torch.no_grad():
            inputs = torch.from_numpy(onnx_export.noise_inputs(recipe, NORMALISER))
            head.weight.div_((model.eval()(inputs) - head.bias).abs().mean())
        save_weights(model, folder.fold(fold) / WEIGHTS, NORMALISER)
    forget_digests(folder.path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A bundle of every kind of network."""
    where = tmp_path_factory.mktemp("onnx")
    for name in KINDS:
        make_trained(where / "runs", name)
    return build(where / "runs", where / "dist", owner=OWNER, onnx=True)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run with two folds."""
    make_trained(tmp_path / "runs", "squeeze-1d", (0, 1))
    return tmp_path / "runs"


def windows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 10000, 20) µV and (n, 300, 400) power; not those that a build compares with."""
    rng = np.random.default_rng(5)
    eeg_uv = rng.normal(0, 60, (n, 10_000, len(CHANNELS))).astype(np.float32)
    return eeg_uv, rng.lognormal(0, 1, (n, 300, len(SPECTROGRAM_COLUMNS))).astype(np.float32)


def softmax(logits_BK: np.ndarray) -> np.ndarray:
    powers_BK = np.exp(logits_BK.astype(np.float64) - logits_BK.max(axis=1, keepdims=True))
    return powers_BK / powers_BK.sum(axis=1, keepdims=True)


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("name", KINDS)
def test_another_runtime_makes_the_same_predictions(bundle: Built, name: str) -> None:
    import onnxruntime

    predictor = load_bundle(bundle.dataset, "cpu")
    (entry,) = (model for model in predictor.manifest.models if model.recipe == name)
    assert entry.onnx is not None
    assert (entry.onnx.file, entry.onnx.opset) == (Path(entry.weights).stem + ".onnx", 18)
    assert 0 <= entry.onnx.max_difference < 1e-4
    session = onnxruntime.InferenceSession(
        predictor.bundle / entry.onnx.file, providers=["CPUExecutionProvider"]
    )
    assert [(put.name, put.shape[1:]) for put in session.get_inputs()] == [("inputs", [*KINDS[name]])]
    eeg_uv, power = windows(4)
    inputs = predictor.inputs(entry, eeg_uv, spectrogram=power)
    assert (inputs.shape, inputs.dtype) == ((4, *KINDS[name]), np.float32)
    trained = predictor.load(entry)
    wanted_BK = trained.predict_images(inputs)
    assert np.ptp(wanted_BK, axis=1).min() > 0.05
    for n in (1, 4):
        (logits_BK,) = session.run(["logits"], {"inputs": inputs[:n]})
        np.testing.assert_allclose(softmax(logits_BK), wanted_BK[:n], atol=1e-5)


@pytest.mark.slow(seconds=60)
def test_the_bundle_is_whole_and_says_what_the_files_take(bundle: Built) -> None:
    assert preflight(bundle.dataset.parent).ok
    files = sorted(path.name for path in bundle.dataset.glob("*.onnx"))
    assert files == sorted(Path(model.weights).stem + ".onnx" for model in bundle.manifest.models)
    assert set(files) < bundle.manifest.files.keys()
    card = (bundle.dataset / MODEL_CARD).read_text()
    row = r"\| B × 1 × 400 × 300 \| panels, 400 × 300 \| log power, normalised: panel \| \d\.\de-\d\d \|"
    assert re.search(r"\| baseline\.fold0\.onnx " + row, card)
    assert "| effnet1d.fold0.onnx | B × 16 × 10000 | raw EEG, 16 × 10000 | 32 µV |" in card
    both = "raw EEG folded into an image, 160 × 1000 beside global-panels, 400 × 300"
    assert (
        f"| two-views.fold0.onnx | B × 280000 | {both} | 32 µV beside log power, normalised: global |" in card
    )
    assert describe(bundle).count("; ONNX within ") == len(KINDS)
    for path in bundle.dataset.glob("*.onnx"):  # nothing of the machine that wrote it
        assert b"site-packages" not in path.read_bytes()
        assert str(Path(onnx_export.__file__).parents[1]).encode() not in path.read_bytes()


@pytest.mark.slow(seconds=60)
def test_the_inputs_are_by_the_statistics_of_the_fold(bundle: Built) -> None:
    predictor = load_bundle(bundle.dataset, "cpu")
    (entry,) = (model for model in predictor.manifest.models if model.recipe == "two-views")
    assert load_normaliser(bundle.dataset / entry.weights) == NORMALISER
    eeg_uv, power = windows(1)
    with pytest.raises(UsageError, match="look at spectrogram: give"):
        predictor.inputs(entry, eeg_uv)
    panels = predictor.inputs(entry, eeg_uv, spectrogram=power)[0, 160 * 1000 :]
    assert panels.mean() == pytest.approx((np.log(power).mean() - 0.5) / 2.0, abs=0.05)


@pytest.mark.slow
def test_a_changed_file_is_noticed_and_a_model_needs_none(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build(runs, runs.parent / "plain", folds=[1], owner=OWNER)
    built = build(runs, runs.parent / "dist", folds=[1], owner=OWNER, onnx=True)
    again = build(runs, runs.parent / "again", folds=[1], owner=OWNER, onnx=True)
    assert again.manifest.digest == built.manifest.digest
    assert not any(name.endswith(".onnx") for name in plain.manifest.files)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    eeg_uv, _ = windows(1)
    np.testing.assert_array_equal(
        load_bundle(built.dataset, "cpu").predict(eeg_uv), load_bundle(plain.dataset, "cpu").predict(eeg_uv)
    )
    path = built.dataset / "squeeze-1d.fold1.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"changed: squeeze-1d\.fold1\.onnx \(same size, other content\)"):
        load_bundle(built.dataset, "cpu")
    path.unlink()
    with pytest.raises(BundleError, match=r"missing: squeeze-1d\.fold1\.onnx"):
        load_bundle(built.dataset, "cpu")


def test_a_network_without_counterpart_is_named_once_and_the_build_goes_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("no operator aten::frob\nin line 3")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    built = build(runs, runs.parent / "dist", owner=OWNER, onnx=True)
    told = [line for line in capsys.readouterr().out.splitlines() if "ONNX" in line]
    assert told == ["squeeze-1d fold 0: not written as ONNX: no operator aten::frob"]
    assert [model.onnx for model in read_manifest(built.dataset).models] == [None, None]
    assert not any(name.endswith(".onnx") for name in built.manifest.files)
    assert "## ONNX" not in (built.dataset / MODEL_CARD).read_text()


def test_a_file_with_other_logits_is_not_kept(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "_write", lambda network, inputs, path: path.touch())
    for difference in (0.25, float("nan")):
        monkeypatch.setattr(onnx_export, "_largest_difference", lambda *_, found=difference: found)
        built = build(runs, runs.parent / "dist", folds=[1], owner=OWNER, onnx=True)
        said = f"squeeze-1d fold 1: not written as ONNX: its logits differ by {difference:.2g} from PyTorch's"
        assert said in capsys.readouterr().out
        assert not list(built.dataset.glob("*.onnx"))


def test_missing_packages_are_named_before_anything_is_written(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name != "onnx" else object())
    dist = runs.parent / "dist"
    assert main(["build", "--runs", str(runs), "--dist", str(dist), "--onnx"]) == EXIT_USER
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("--onnx needs onnxscript, onnxruntime; pip install 'kagglehms[onnx]'")
    assert not dist.exists()
