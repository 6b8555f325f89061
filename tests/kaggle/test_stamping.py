"""Who the owner is, and the templates that carry the name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from slugify import slugify

from kagglehms.bundle.manifest import CARD
from kagglehms.data.competition import SLUG
from kagglehms.errors import RunError, UsageError
from kagglehms.kaggle.dist import UNSCORED
from kagglehms.kaggle.stamping import (
    KERNEL_METADATA,
    PLACEHOLDER_OWNER,
    find_owner,
    is_placeholder,
    stamp_card,
    stamp_kernel,
)
from kagglehms.kernel.entry import PREPARE_KERNEL, TRAIN_KERNEL

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0123456789abcdef-secret"


def configure(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text(content)


def test_the_owner_is_looked_for_in_order(no_credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_owner() == (PLACEHOLDER_OWNER, "nowhere")
    configure(no_credentials / ".config/kaggle", json.dumps({"username": "from-xdg", "key": SECRET}))
    assert find_owner()[0] == "from-xdg"
    configure(no_credentials / ".kaggle", json.dumps({"username": "from-file", "key": SECRET}))
    assert find_owner() == ("from-file", str(no_credentials / ".kaggle/kaggle.json"))
    configure(no_credentials / "elsewhere", json.dumps({"username": "from-folder", "key": SECRET}))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(no_credentials / "elsewhere"))
    assert find_owner()[0] == "from-folder"
    monkeypatch.setenv("KAGGLE_USERNAME", "from-variable")
    assert find_owner() == ("from-variable", "KAGGLE_USERNAME")
    assert find_owner("given") == ("given", "--owner")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"key": "x"}', '{"username": 7}', '{"username": ""}']
)
def test_a_broken_configuration_is_as_none(no_credentials: Path, content: str) -> None:
    configure(no_credentials / ".kaggle", content)
    assert find_owner()[0] == PLACEHOLDER_OWNER


@pytest.mark.parametrize("name", ['a"; import os', "two words", "a/b", "-a", "a\n"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a Kaggle user name"):
        find_owner(name)


@pytest.mark.parametrize(
    "name", [PLACEHOLDER_OWNER, "YOUR-KAGGLE-NAME", "your_kaggle_name", "Your-Kaggle-Username"]
)
def test_a_name_that_was_copied_from_an_example_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is the placeholder of an example"):
        find_owner(name)
    monkeypatch.setenv("KAGGLE_USERNAME", name)
    with pytest.raises(UsageError, match="from KAGGLE_USERNAME"):
        find_owner()


def test_no_page_shows_a_name_that_a_build_would_take_for_real() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*")]
    names = {
        name
        for page in pages
        for name in re.findall(r"--owner[ =]([\w-]+)", page.read_text(encoding="utf-8"))
    }
    assert names >= {"YOUR-KAGGLE-NAME"}
    assert all(is_placeholder(name) for name in names - {"NAME"})


def test_the_owner_that_the_client_is_logged_in_as(no_credentials: Path) -> None:
    (no_credentials / ".kaggle").mkdir()
    login = no_credentials / ".kaggle/credentials.json"
    login.write_text(json.dumps({"username": "logged-in", "refresh_token": SECRET}))
    assert find_owner() == ("logged-in", str(login))


def test_sources_of_the_owner_are_stamped_and_others_are_not(tmp_path: Path) -> None:
    template = tmp_path / "train"
    template.mkdir()
    stamped = ROOT / "kernels/infer"
    metadata = json.loads((stamped / KERNEL_METADATA).read_text())
    metadata |= {"id": f"{PLACEHOLDER_OWNER}/kagglehms-train", "code_file": "train.py"}
    metadata["kernel_sources"] = [f"{PLACEHOLDER_OWNER}/kagglehms-prepare", "somebody-else/output"]
    (template / KERNEL_METADATA).write_text(json.dumps(metadata))
    (template / "train.py").write_text((stamped / "infer.py").read_text())
    files = stamp_kernel(template, "some-owner", "kagglehms-bundle", "ab" * 32)
    sources = json.loads(files[KERNEL_METADATA])["kernel_sources"]
    assert sources == ["some-owner/kagglehms-prepare", "somebody-else/output"]


def test_the_card_keeps_kaggles_rules() -> None:
    slug, content = stamp_card(ROOT / CARD, "some-owner")
    card = json.loads(content)
    assert card["id"] == f"some-owner/{slug}"
    assert 6 <= len(slug) <= 50
    assert 6 <= len(card["title"]) <= 50
    assert 20 <= len(card["subtitle"]) <= 80
    assert card["licenses"] == [{"name": "apache-2.0"}]
    assert re.fullmatch("[a-z0-9-]+", slug)
    assert PLACEHOLDER_OWNER not in content.decode()


def test_every_kernel_keeps_kaggles_rules() -> None:
    templates = sorted((ROOT / "kernels").glob(f"*/{KERNEL_METADATA}"))
    assert templates
    bundle, _ = stamp_card(ROOT / CARD, "some-owner")
    for template in templates:
        files = stamp_kernel(template.parent, "some-owner", bundle, "ab" * 32)
        metadata = json.loads(files[KERNEL_METADATA])
        owner, _, slug = metadata["id"].partition("/")
        assert owner == "some-owner"
        assert slug == slugify(metadata["title"])
        assert len(metadata["title"]) >= 5
        assert slug != bundle
        assert metadata["code_file"] in files
        assert (metadata["language"], metadata["kernel_type"]) == ("python", "script")
        assert metadata["is_private"] is True
        assert metadata["enable_internet"] is False or template.parent.name in UNSCORED
        assert metadata.get("machine_shape") == ("NvidiaTeslaT4" if metadata["enable_gpu"] else None)
        assert metadata["dataset_sources"] == [f"some-owner/{bundle}"]
        assert metadata["competition_sources"] == [SLUG]
        assert PLACEHOLDER_OWNER not in b"".join(files.values()).decode()


def test_training_mounts_the_store_and_its_own_latest_output() -> None:
    files = stamp_kernel(ROOT / "kernels/train", "some-owner", "kagglehms-bundle", "ab" * 32)
    sources = json.loads(files[KERNEL_METADATA])["kernel_sources"]
    assert sources == [f"some-owner/{PREPARE_KERNEL}", f"some-owner/{TRAIN_KERNEL}"]
    assert json.loads(files[KERNEL_METADATA])["id"] == f"some-owner/{TRAIN_KERNEL}"


@pytest.mark.parametrize("name", ["OWNER", "BUNDLE", "DIGEST"])
def test_a_script_without_a_line_to_stamp_is_refused(tmp_path: Path, name: str) -> None:
    template = ROOT / "kernels/infer"
    for path in template.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_text(path.read_text().replace(f"\n{name} =", f"\nNO_{name} ="))
    with pytest.raises(RunError, match=rf"has 0 lines that begin with `{name}"):
        stamp_kernel(tmp_path, "some-owner", "kagglehms-bundle", "ab" * 32)


def test_a_kernel_that_does_not_mount_the_bundle_is_refused() -> None:
    with pytest.raises(RunError, match="dataset_sources lacks"):
        stamp_kernel(ROOT / "kernels/infer", "some-owner", "another-bundle", "ab" * 32)
