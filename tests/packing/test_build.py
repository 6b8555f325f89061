"""The bundle: flat, complete, the same bytes every time, and never half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from runs_folder import PRIOR, make_run, tree, visible

import kagglehms
from kagglehms.bundle.manifest import CARD, MANIFEST, read_manifest, verify
from kagglehms.bundle.predictor import load_bundle
from kagglehms.errors import RunError, UsageError
from kagglehms.kaggle.dist import choose_kernels
from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER
from kagglehms.kernel.prior import read_prior
from kagglehms.locks import exclusive
from kagglehms.packing import bundling, staging
from kagglehms.packing.build import Built, build
from kagglehms.packing.description import describe
from kagglehms.packing.model_card import MODEL_CARD

ROOT = Path(__file__).resolve().parents[2]

KERNELS = ("infer", "prepare", "train")
MOVES = 2 * len(KERNELS) + 2
"""Renames of a build: every kernel and the bundle, away and in."""


def test_the_bundle_is_flat_and_complete(runs: Path, tmp_path: Path) -> None:
    built = build(runs, tmp_path / "dist", owner="some-owner")
    wheel = f"kagglehms-{kagglehms.__version__}-py3-none-any.whl"
    assert sorted(tree(tmp_path / "dist")) == sorted(
        [
            *(f"dataset/{name}" for name in (MANIFEST, CARD, MODEL_CARD, "LICENSE", wheel)),
            *(f"dataset/{stem}.recipe.json" for stem in ("baseline", "panels-global")),
            *(
                f"dataset/{stem}.fold{fold}.safetensors"
                for stem in ("baseline", "panels-global")
                for fold in (0, 1)
            ),
            *(f"kernels/{name}/{name}.py" for name in KERNELS),
            *(f"kernels/{name}/kernel-metadata.json" for name in KERNELS),
        ]
    )
    manifest = read_manifest(built.dataset)
    verify(built.dataset, manifest, built.manifest.digest)
    assert manifest == built.manifest
    assert manifest.prior == pytest.approx([(100 * p + 1 / 6) / 101 for p in PRIOR], rel=1e-12)
    assert manifest.versions == {"timm": "1.0.26", "torch": "2.10.0"}
    assert manifest.library.version == kagglehms.__version__
    assert [(model.recipe, model.fold) for model in manifest.models] == [
        ("baseline", 0),
        ("baseline", 1),
        ("panels+global", 0),
        ("panels+global", 1),
    ]
    for model in manifest.models:
        run = runs / model.recipe
        assert (built.dataset / model.recipe_file).read_bytes() == (run / "recipe.json").read_bytes()
        weights = run / f"fold{model.fold}" / "weights.safetensors"
        assert (built.dataset / model.weights).read_bytes() == weights.read_bytes()
        result = json.loads((run / f"fold{model.fold}" / "result.json").read_text())
        floors = ("prior_all", "prior_votes10", "uniform_all", "uniform_votes10")
        scores = {"all": result["score_all"], "votes10": result["score_votes10"]}
        assert model.scores == scores | {name: result[name] for name in floors}


def test_two_builds_have_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    build(runs, tmp_path / "one", owner="some-owner")
    moved = tmp_path / "moved"
    shutil.copytree(runs, moved, copy_function=shutil.copyfile)
    for path in moved.rglob("*"):
        os.utime(path, (1e9, 1e9))
    build(moved, tmp_path / "two", owner="some-owner")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_owner_changes_the_card_and_the_kernels_but_not_the_digest(runs: Path, tmp_path: Path) -> None:
    one = build(runs, tmp_path / "one", owner="some-owner")
    two = build(runs, tmp_path / "two")
    assert one.manifest == two.manifest
    assert two.owner == PLACEHOLDER_OWNER
    assert "warning" in describe(two)
    assert "warning" not in describe(one)
    script = (one.kernels[0] / "infer.py").read_text()
    assert 'OWNER = "some-owner"' in script
    assert f'DIGEST = "{one.manifest.digest}"' in script


def test_recipes_and_folds_choose_the_content_and_its_order(runs: Path, tmp_path: Path) -> None:
    built = build(runs, tmp_path / "dist", recipes=["panels+global", "baseline"], folds=[1])
    assert [(model.recipe, model.fold) for model in built.manifest.models] == [
        ("panels+global", 1),
        ("baseline", 1),
    ]
    assert not (built.dataset / "baseline.fold0.safetensors").exists()


def test_a_library_without_weights_is_for_the_kernels_that_make_them(tmp_path: Path) -> None:
    """Before anything is trained: no runs, no kernel that scores."""
    root = tmp_path / "checkout"
    (root / "kernels").mkdir(parents=True)
    for name in ("kagglehms", "pyproject.toml", "LICENSE", CARD):
        (root / name).symlink_to(ROOT / name)
    for name in ("infer", "train"):
        shutil.copytree(ROOT / "kernels/infer", root / "kernels" / name)
    make_run(tmp_path / "runs", "baseline")
    before = build(tmp_path / "runs", tmp_path / "dist", owner="some-owner", root=root)
    assert [kernel.name for kernel in before.kernels] == ["infer", "train"]
    built = build(tmp_path / "nowhere", tmp_path / "dist", owner="some-owner", root=root, library_only=True)
    assert built.manifest.models == ()
    assert built.manifest.prior == (1 / 6,) * 6
    assert [kernel.name for kernel in built.kernels] == ["train"]
    assert os.listdir(tmp_path / "dist/kernels") == ["train"]  # the other one would refuse this bundle
    verify(built.dataset, read_manifest(built.dataset))
    assert "0 models" in describe(built)
    with pytest.raises(UsageError, match="no models"):
        load_bundle(built.dataset, "cpu")


@pytest.mark.parametrize("library_only", [False, True])
def test_the_next_commands_are_those_that_this_build_can_be_pushed_by(
    runs: Path, tmp_path: Path, library_only: bool
) -> None:
    """The words after `--push` are kernels of the build, by hand they are the same, and a scored one is submitted."""
    dist = tmp_path / "a dist"
    built = build(runs, dist, owner="some-owner", library_only=library_only)
    expected = ["prepare", "train"] if library_only else ["infer"]
    text = describe(built)
    found = re.search(r"the same command with --push (.+?) does all of this", text)
    assert found is not None
    assert [folder.name for folder in choose_kernels(dist, found[1].split())] == expected
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("  kaggle")]
    by_hand = [Path(words[-1]) for words in commands if words[:3] == ["kaggle", "kernels", "push"]]
    assert by_hand == [dist / "kernels" / name for name in expected]
    submitted = [words[words.index("-k") + 1] for words in commands if "submit" in words]
    assert submitted == ([] if library_only else ["some-owner/kagglehms-infer"])
    assert "kaggle " not in describe(built, pushes=True)  # where the same command does it by itself


def test_a_new_build_replaces_the_old_one_whole(runs: Path, tmp_path: Path) -> None:
    build(runs, tmp_path / "dist")
    (tmp_path / "dist/dataset/stranger.txt").write_text("left behind")
    (tmp_path / "dist/kernels/mine").mkdir()
    (tmp_path / "dist/kernels/mine/script.py").write_text("kept")
    built = build(runs, tmp_path / "dist", recipes=["baseline"])
    verify(built.dataset, built.manifest)
    assert (tmp_path / "dist/kernels/mine/script.py").read_text() == "kept"
    assert visible(tmp_path / "dist") == ["dataset", "kernels"]


@pytest.mark.parametrize(
    "step", ["build._write_kernels", "bundling.stamp_card", "bundling.dump_manifest", "bundling.verify"]
)
def test_an_interrupted_build_leaves_the_old_one(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    build(runs, tmp_path / "dist")
    before = tree(tmp_path / "dist")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"kagglehms.packing.{step}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(runs, tmp_path / "dist", recipes=["baseline"])
    assert tree(tmp_path / "dist") == before


@pytest.mark.parametrize("moves", range(MOVES + 1))
def test_a_kernel_never_stands_beside_a_bundle_that_it_would_refuse(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Killed after any of the renames, dist/ holds a bundle that is whole or none, and no kernel of another one."""
    build(runs, tmp_path / "dist")
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        if done == moves:
            raise KeyboardInterrupt
        done += 1
        if source.exists():
            source.rename(target)

    monkeypatch.setattr(staging, "_move", rename)
    if moves < MOVES:
        with pytest.raises(KeyboardInterrupt):
            build(runs, tmp_path / "dist", recipes=["baseline"])
    else:
        build(runs, tmp_path / "dist", recipes=["baseline"])
    dataset, script = tmp_path / "dist/dataset", tmp_path / "dist/kernels/infer/infer.py"
    if dataset.exists():
        verify(dataset, read_manifest(dataset))
    if script.exists():
        assert read_manifest(dataset).digest in script.read_text()
    monkeypatch.undo()
    build(runs, tmp_path / "dist")
    assert visible(tmp_path / "dist") == ["dataset", "kernels"]


def test_what_a_killed_build_left_is_swept(runs: Path, tmp_path: Path) -> None:
    stale = tmp_path / "dist/.build-abc.partial/dataset"
    stale.mkdir(parents=True)
    (stale / "big.safetensors").write_bytes(b"x")
    build(runs, tmp_path / "dist")
    assert visible(tmp_path / "dist") == ["dataset", "kernels"]


def test_two_builds_into_one_folder_do_not_meet(runs: Path, tmp_path: Path) -> None:
    stage = tmp_path / "dist/.build-other.partial"
    with exclusive(tmp_path / "dist", "a build"):
        stage.mkdir()
        with pytest.raises(RunError, match="a build is under way by process"):
            build(runs, tmp_path / "dist")
        assert stage.is_dir()
    built = build(runs, tmp_path / "dist")
    assert not stage.exists()
    assert not list(built.dataset.glob(".*"))


def test_a_full_disk_is_one_line_and_leaves_the_old_bundle(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(runs, tmp_path / "dist")
    before = tree(tmp_path / "dist")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundling, "copy_file", full)
    with pytest.raises(RunError, match="No space left on device"):
        build(runs, tmp_path / "dist")
    assert tree(tmp_path / "dist") == before


def test_a_folder_that_is_no_bundle_is_never_replaced(runs: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "dist/dataset/thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(UsageError, match="is not a bundle, so it is not replaced"):
        build(runs, tmp_path / "dist")
    assert thesis.read_text() == "years of work"


def test_missing_weights_stop_the_build_and_leave_nothing(runs: Path, tmp_path: Path) -> None:
    (runs / "baseline/fold0/weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"weights\.safetensors: missing"):
        build(runs, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_different_records_are_averaged_by_their_number(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "one", records=300, prior=(1.0, 0, 0, 0, 0, 0))
    make_run(tmp_path / "runs", "two", records=100, prior=(0, 0, 0, 0, 0, 1.0), versions={"torch": "2.11.0"})
    manifest = build(tmp_path / "runs", tmp_path / "dist").manifest
    few = (1 / 6) / 401
    expected = (300 / 401 + few, few, few, few, few, 100 / 401 + few)
    assert manifest.prior == pytest.approx(expected, rel=1e-12)
    assert manifest.versions == {"timm": "1.0.26", "torch": "2.10.0, 2.11.0"}


@pytest.mark.parametrize("n", [1, 6, 20_000])
def test_no_class_is_impossible(tmp_path: Path, n: int) -> None:
    """A row that keeps the prior must not cost 34 nats because few records lack a class."""
    make_run(tmp_path / "runs", "one", records=n, prior=(0.5, 0.5, 0, 0, 0, 0))
    make_run(tmp_path / "runs", "two", records=n, prior=(0.5, 0.5, 0, 0, 0, 0))  # the same records, not more
    prior = build(tmp_path / "runs", tmp_path / "dist").manifest.prior
    assert prior == pytest.approx([(n / 2 + 1 / 6) / (n + 1)] * 2 + [1 / 6 / (n + 1)] * 4, rel=1e-12)
    assert sum(prior) == pytest.approx(1, abs=1e-12)
    assert read_prior(tmp_path / "dist/dataset")[0] == prior


def test_names_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "panels+global")
    make_run(tmp_path / "runs", "panels-global")
    with pytest.raises(RunError, match=r"panels-global\.recipe\.json"):
        build(tmp_path / "runs", tmp_path / "dist")


def test_no_pickle_is_in_it(built: Built) -> None:
    for name, content in tree(built.dataset).items():
        assert not content.startswith(b"\x80"), name
        assert Path(name).suffix in {"", ".json", ".md", ".safetensors", ".whl"}


def test_the_clients_key_is_nowhere(
    runs: Path, tmp_path: Path, no_credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "key-of-the-variable")
    (no_credentials / ".kaggle").mkdir()
    (no_credentials / ".kaggle/kaggle.json").write_text(
        '{"username": "owner-of-file", "key": "key-of-the-file"}'
    )
    built = build(runs, tmp_path / "dist")
    assert built.owner == "owner-of-file"
    everything = describe(built).encode() + b"".join(tree(tmp_path / "dist").values()) + repr(built).encode()
    assert b"key-of-the" not in everything


def test_the_table_names_every_file_and_the_next_commands(built: Built) -> None:
    text = describe(built)
    for name, file in built.manifest.files.items():
        assert name in text
        assert file.sha256[:12] in text
    assert built.manifest.digest in text
    assert f"kaggle datasets create -p {built.dataset}" in text
    assert f"kaggle kernels push -p {built.kernels[0]}" in text
