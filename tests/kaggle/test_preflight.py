"""Preflight on what `kagglehms build` makes: nothing to find, and then one fault after another, and all at once."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs_folder import make_run

from kagglehms.bundle.manifest import CARD
from kagglehms.cli.commands import main
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, UsageError
from kagglehms.kaggle.dist import choose_kernels
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.preflight import preflight
from kagglehms.packing.build import Built, build
from kagglehms.runs.folder import RunFolder
from kagglehms.training.recipes import get_recipe


@pytest.fixture
def dist(built: Built, tmp_path: Path) -> Path:
    """A copy of what was built, to be damaged."""
    return Path(shutil.copytree(built.dataset.parent, tmp_path / "dist"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_built_passes(dist: Path, built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    report = preflight(dist)
    assert report.ok, report.text
    assert report.digest == built.manifest.digest
    assert report.files == len(built.manifest.files) + 1
    assert report.size > built.manifest.size
    assert main(["preflight", "--dist", str(dist)]) == EXIT_OK
    assert "nothing found" in capsys.readouterr().out


def _replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(dist: Path) -> None:
        text = (dist / name).read_text()
        assert old in text
        (dist / name).write_text(text.replace(old, new))

    return damage


def _added(name: str, content: str = "x") -> Callable[[Path], None]:
    def damage(dist: Path) -> None:
        (dist / name).parent.mkdir(parents=True, exist_ok=True)
        (dist / name).write_text(content)

    return damage


SCRIPT = "kernels/infer/infer.py"
WEIGHTS = "dataset/baseline.fold0.safetensors"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda dist: (dist / WEIGHTS).unlink(), "missing: baseline.fold0.safetensors"),
        (lambda dist: (dist / WEIGHTS).write_bytes(b"\0" * 100), "changed: baseline.fold0.safetensors"),
        (_added("dataset/__pycache__/x.pyc"), "is a folder, which the client skips"),
        (_added("dataset/more.tar"), "is an archive, which Kaggle unpacks on arrival"),
        (_added("dataset/datapackage.json"), "the client reserves for itself"),
        (_added("dataset/empty", ""), "is empty"),
        (_added("dataset/two words"), "Kaggle may change on arrival"),
        (lambda dist: (dist / "dataset" / CARD).unlink(), "cannot be read (No such file"),
        (lambda dist: (dist / "dataset" / CARD).write_text("[]"), "is not a JSON object"),
        (lambda dist: edit(dist / "dataset" / CARD, title="x"), "title 'x' is not of 6 to 50"),
        (lambda dist: (dist / "dataset/manifest.json").unlink(), "cannot be read"),
        (lambda dist: shutil.rmtree(dist / "kernels"), "there is no kernel"),
        (
            lambda dist: (dist / "kernels/infer/kernel-metadata.json").write_text("{"),
            "is not JSON",
        ),
        (
            lambda dist: edit(dist / "kernels/infer/kernel-metadata.json", enable_internet=True),
            "internet is on",
        ),
        (
            lambda dist: edit(dist / "kernels/infer/kernel-metadata.json", id="some-owner/kagglehms-bundle"),
            "has the slug 'kagglehms-bundle' of dataset",
        ),
        (_replaced(SCRIPT, "import os\n", "import os, tyro\n"), "imports tyro, which the image lacks"),
        (_replaced(SCRIPT, "import os\n", "import os,\n"), "does not compile"),
        (_replaced(SCRIPT, 'OWNER = "some-owner"', 'OWNER = "another"'), "OWNER is 'another'"),
        (_replaced(SCRIPT, "\nDIGEST = ", "\nDIGESTED = "), "has 0 lines `DIGEST"),
        (_added("dataset/torch-2.12.0-cp313-cp313-linux_x86_64.whl"), "would replace the image's torch"),
    ],
)
def test_one_fault_is_found(dist: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(dist)
    report = preflight(dist)
    assert report.exit_code == EXIT_FAILURE
    assert any(says in finding.what for finding in report.findings), report.text


def test_a_stale_kernel_is_found(runs: Path, tmp_path: Path) -> None:
    build(runs, tmp_path / "dist", owner="some-owner")
    kernels = tmp_path / "kernels"
    shutil.copytree(tmp_path / "dist/kernels", kernels)
    build(runs, tmp_path / "dist", recipes=["baseline"], owner="some-owner")
    shutil.rmtree(tmp_path / "dist/kernels")
    kernels.rename(tmp_path / "dist/kernels")
    found = preflight(tmp_path / "dist").findings
    assert found
    assert all("DIGEST is" in finding.what for finding in found)


def test_a_recipe_that_the_kernel_could_not_read_is_found(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(runs / "baseline/recipe.json", of_another_version=1)
    recipe = get_recipe("baseline")
    monkeypatch.setattr(RunFolder, "recipe", lambda _: recipe)  # as a library of another version reads it
    build(runs, tmp_path / "dist", ["baseline"], owner="some-owner")
    (finding,) = preflight(tmp_path / "dist").findings
    assert finding.where.endswith("baseline.recipe.json")
    assert "is no recipe of this version" in finding.what


def test_a_network_of_a_package_that_the_image_lacks_is_found_until_it_is_bundled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = get_recipe("squeeze-1d").changed(backbone="eeg:EEGNet")
    make_run(tmp_path / "runs", recipe)
    dist = tmp_path / "dist"
    build(tmp_path / "runs", dist, owner="some-owner")
    assert "squeeze-1d needs braindecode, which Kaggle's image lacks" in capsys.readouterr().out
    (finding,) = preflight(dist).findings
    assert finding.where.endswith("squeeze-1d.recipe.json")
    assert "the network of squeeze-1d is made from braindecode, which the image lacks" in finding.what
    with zipfile.ZipFile(dist / "dataset/braindecode-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("braindecode/__init__.py", "")
    assert not any("is made from braindecode" in finding.what for finding in preflight(dist).findings)


def test_so_is_one_that_the_training_kernel_would_make(dist: Path) -> None:
    script = "kernels/train/train.py"
    lines = (dist / script).read_text().splitlines()
    new = {"RECIPES": 'RECIPES = ["squeeze-1d"]', "OPTIONS": 'OPTIONS = {"backbone": "eeg:EEGNet"}'}
    changed = [new.get(line.partition("=")[0].partition(":")[0].strip(), line) for line in lines]
    (dist / script).write_text("\n".join(changed) + "\n")
    (finding,) = preflight(dist).findings
    assert finding.where == str(dist / script)
    assert "the network of squeeze-1d is made from braindecode" in finding.what


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('RECIPES = ["mosaic-xloss", ', 'RECIPES = ["mosaic-loss", ', "did you mean 'mosaic-xloss'"),
        ("OPTIONS: dict = {}", 'OPTIONS: dict = {"epoch": 1}', "no option 'epoch'"),
        ("OPTIONS: dict = {}", 'OPTIONS = {"epochs": "x"}', "epochs: Input should be a valid integer"),
        ("OPTIONS: dict = {}", 'OPTIONS = ["epochs"]', "OPTIONS must be a dictionary"),
        ('RECIPES = ["mosaic-xloss", ', 'RECIPES = ["absent.json", ', "'absent.json' is a file"),
    ],
)
def test_what_the_training_kernel_would_refuse_is_found(dist: Path, old: str, new: str, says: str) -> None:
    script = "kernels/train/train.py"
    _replaced(script, old, new)(dist)
    (finding,) = preflight(dist).findings
    assert says in finding.what
    assert finding.where == str(dist / script)
    _replaced(script, new, "OPTIONS = dict()" if "OPTIONS" in new else "RECIPES = list()[:")(dist)
    assert not any(says in finding.what for finding in preflight(dist).findings)


def test_a_recipe_file_of_this_machine_is_found_and_not_run(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kaggle has no such file, and only those that a person names on a command line are run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_bytes(get_recipe("baseline").to_json())
    (tmp_path / "mine.py").write_text(
        "import pathlib; pathlib.Path('run').touch()\n"
        "from kagglehms.training.recipes import get_recipe; recipe = get_recipe('baseline')\n"
    )
    names = ["mosaic-xloss", "mine.json", "mine.py"]
    for before, name in pairwise(names):
        _replaced("kernels/train/train.py", f'RECIPES = ["{before}", ', f'RECIPES = ["{name}", ')(dist)
        (finding,) = preflight(dist).findings
        assert f"{name!r} is a file" in finding.what
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("target", ["absent", "link", "../kernels"])
def test_a_link_in_the_bundle_is_found_wherever_it_leads(dist: Path, target: str) -> None:
    (dist / "dataset/link").symlink_to(target)
    findings = preflight(dist).findings
    assert [finding.what for finding in findings if finding.where == str(dist / "dataset/link")] == [
        "is a symbolic link"
    ]
    assert any("extra: link" in finding.what for finding in findings)


def test_all_findings_at_once_each_with_its_fix(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(dist / "dataset" / CARD, title="x", licenses=[])
    edit(dist / "kernels/infer/kernel-metadata.json", machine_shape="NvidiaTeslaP100")
    _replaced(SCRIPT, "import os\n", "import os, tyro, onnxruntime\n")(dist)
    assert main(["preflight", "--dist", str(dist), "--json"]) == EXIT_FAILURE
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert len(report["findings"]) == 5
    assert all(finding["where"] and finding["what"] and finding["fix"] for finding in report["findings"])
    assert main(["preflight", "--dist", str(dist)]) == EXIT_FAILURE
    text = capsys.readouterr().out
    assert "preflight: 5 findings." in text
    assert text.count("fix: ") == 5


@pytest.mark.parametrize("harm", ["another owner", "no owner", "no card"])
def test_what_has_one_cause_is_told_once(dist: Path, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = dist / "dataset" / CARD
    if harm == "no card":
        card.unlink()
    elif harm == "another owner":
        edit(card, id="otto/kagglehms-bundle")
    else:
        for file in (card, *dist.glob("kernels/*/kernel-metadata.json"), *dist.glob("kernels/*/*.py")):
            file.write_text(file.read_text().replace("some-owner", "your-kaggle-username"))
    assert main(["preflight", "--dist", str(dist)]) == EXIT_FAILURE
    text = capsys.readouterr().out
    assert "preflight: 1 finding." in text
    assert text.count("fix: ") == 1
    assert ("for the same reason" in text) == (harm != "no card")  # without one, nothing can contradict it
    assert "None" not in text


def test_size_and_count_of_the_dataset(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = kaggle_image().limits
    monkeypatch.setattr(
        "kagglehms.kaggle.bundle_rules.kaggle_image", _image_with(dataset_bytes=1000, dataset_files=3)
    )
    whats = [finding.what for finding in preflight(dist).findings]
    assert any("where a private dataset may have" in what for what in whats)
    n_files = len(list((dist / "dataset").iterdir())) - 1  # the card is not uploaded as a file
    assert any(f"{n_files} files, where a dataset may have 3" in what for what in whats)
    assert limits.dataset_files == 1000


def _image_with(**limits: int) -> Callable[[], Any]:
    from dataclasses import replace

    image = kaggle_image()
    return lambda: replace(image, limits=replace(image.limits, **limits))


def test_a_requirement_that_the_image_does_not_meet(dist: Path) -> None:
    (wheel,) = (dist / "dataset").glob("kagglehms-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("METADATA"))
    members[name] = (
        members[name]
        .replace(b"numba>=0.60", b"numba>=0.99")
        .replace(b"Requires-Python: >=3.11", b"Requires-Python: >=3.14")
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        for other, content in members.items():
            archive.writestr(other, content)
    whats = [finding.what for finding in preflight(dist).findings]
    assert "wants numba>=0.99, and the image has 0.60.0" in whats
    assert "wants Python >=3.14, and the image has 3.13" in whats


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no bundle; build it with `kagglehms build"):
        preflight(tmp_path)


def test_kernels_are_chosen_in_the_order_of_their_data(dist: Path) -> None:
    for name in ("train", "prepare"):
        shutil.copytree(dist / "kernels/infer", dist / "kernels" / name, dirs_exist_ok=True)
    chosen = choose_kernels(dist, ["infer", "prepare"])
    assert [folder.name for folder in chosen] == ["prepare", "infer"]
    with pytest.raises(UsageError, match="did you mean 'train'"):
        choose_kernels(dist, ["trian"])
