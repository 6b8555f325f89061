"""Every rule of Kaggle's metadata, broken one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kagglehms.data.competition import SLUG
from kagglehms.kaggle.metadata import card_findings, kernel_findings
from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER

BUNDLE = "some-owner/kagglehms-bundle"
CARD: dict[str, Any] = {
    "id": BUNDLE,
    "title": "kagglehms bundle",
    "licenses": [{"name": "apache-2.0"}],
    "subtitle": "Library, weights and manifest",
}
KERNEL: dict[str, Any] = {
    "id": "some-owner/kagglehms-infer",
    "title": "kagglehms infer",
    "code_file": "infer.py",
    "language": "python",
    "kernel_type": "script",
    "is_private": True,
    "enable_gpu": True,
    "enable_internet": False,
    "machine_shape": "NvidiaTeslaT4",
    "dataset_sources": [BUNDLE],
    "competition_sources": [SLUG],
}
GONE = object()


def changed(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {name: other for name, other in (content | {key: value}).items() if other is not GONE}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    folder = tmp_path / "infer"
    folder.mkdir()
    (folder / "infer.py").write_text("print()\n")
    (folder / "infer.txt").write_text("print()\n")
    return folder


def test_what_is_right_has_no_finding(tmp_path: Path, kernel: Path) -> None:
    (tmp_path / "weights").write_text("x")
    assert list(card_findings(CARD | {"resources": [{"path": "weights"}]}, tmp_path)) == []
    assert list(card_findings(changed(CARD, "subtitle", GONE), tmp_path)) == []
    assert list(kernel_findings(KERNEL, kernel, BUNDLE)) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("id", GONE, "not of the form owner/slug"),
        ("id", "some-owner/a/b", "not of the form owner/slug"),
        ("id", f"{PLACEHOLDER_OWNER}/kagglehms-bundle", "not a Kaggle user name"),
        ("id", "YOUR-KAGGLE-NAME/kagglehms-bundle", "not a Kaggle user name"),
        ("id", "some-owner/short", "not of 6 to 50 characters"),
        ("id", "some-owner/" + "a" * 51, "not of 6 to 50 characters"),
        ("id", "some-owner/Under_Score", "other characters"),
        ("title", "short", "title 'short' is not of 6 to 50"),
        ("title", "t" * 51, "is not of 6 to 50"),
        ("title", GONE, "title None"),
        ("licenses", [], "exactly one licence"),
        ("licenses", [{"name": "a"}, {"name": "b"}], "exactly one licence"),
        ("licenses", [{"nam": "a"}], "exactly one licence"),
        ("licenses", GONE, "exactly one licence"),
        ("subtitle", "s" * 19, "not of 20 to 80"),
        ("subtitle", "s" * 81, "not of 20 to 80"),
        ("resources", [{"path": "nowhere"}], "'nowhere' is not a file"),
        ("resources", [{"path": "here"}, {"path": "here"}], "'here' is listed 2 times"),
        ("resources", ["here"], "not a list of objects"),
        ("licences", [], "unknown key 'licences'"),
    ],
)
def test_rules_of_the_card(tmp_path: Path, key: str, value: Any, says: str) -> None:
    (tmp_path / "here").write_text("x")
    (found,) = card_findings(changed(CARD, key, value), tmp_path)
    assert says in found.what
    assert found.fix


@pytest.mark.parametrize("length", [6, 50])
def test_lengths_at_the_limit_pass(tmp_path: Path, length: int) -> None:
    card = CARD | {"id": "some-owner/" + "a" * length, "title": "t" * length}
    assert list(card_findings(card, tmp_path)) == []
    for subtitle in ("s" * 20, "s" * 80):
        assert list(card_findings(CARD | {"subtitle": subtitle}, tmp_path)) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("id", "infer", "not of the form owner/slug"),
        ("title", "another title", "resolves to the slug 'another-title'"),
        ("title", GONE, "not of 5 to 50"),
        ("code_file", "missing.py", "is not a file beside it"),
        ("code_file", "../infer/infer.py", "is not a file beside it"),
        ("code_file", GONE, "is not a file beside it"),
        ("code_file", "infer.txt", "is not a script"),
        ("language", "julia", "language is 'julia'"),
        ("kernel_type", GONE, "kernel_type is None"),
        ("enable_internet", GONE, "client's default is true"),
        ("enable_internet", True, "internet is on"),
        ("is_private", "yes", "is_private is 'yes'"),
        ("machine_shape", GONE, "can be a P100"),
        ("machine_shape", "NvidiaTeslaP100", "can be a P100"),
        ("enable_gpu", False, "without enable_gpu"),
        ("docker_image_pinning_type", "newest", "'newest'"),
        ("dataset_sources", [], f"lacks the bundle {BUNDLE}"),
        ("dataset_sources", [BUNDLE, "slug-only"], "dataset_sources has 'slug-only'"),
        ("dataset_sources", [BUNDLE, f"{PLACEHOLDER_OWNER}/other"], "whose owner is a placeholder"),
        ("dataset_sources", [BUNDLE, "YOUR-KAGGLE-NAME/other"], "whose owner is a placeholder"),
        ("dataset_sources", BUNDLE, "not a list of strings"),
        ("kernel_sources", ["some-owner/four"], "kernel_sources has 'some-owner/four'"),
        ("model_sources", ["google/bert/pyTorch/base"], "model_sources has"),
        ("competition_sources", [], f"lacks {SLUG}"),
        ("enable_interent", False, "unknown key 'enable_interent'"),
    ],
)
def test_rules_of_a_kernel(kernel: Path, key: str, value: Any, says: str) -> None:
    found = list(kernel_findings(changed(KERNEL, key, value), kernel, BUNDLE))
    assert [says in finding.what for finding in found].count(True) == 1, found
    assert all(finding.fix for finding in found)


def test_an_id_of_other_lengths_and_a_code_file_that_is_too_large(kernel: Path) -> None:
    other = KERNEL | {"id": "some-owner/four", "title": "four "}
    assert "not of 5 to 50" in " ".join(found.what for found in kernel_findings(other, kernel, BUNDLE))
    (kernel / "infer.py").write_text("#" * 1_000_001)
    (found,) = kernel_findings(KERNEL, kernel, BUNDLE)
    assert "1,000,001 bytes" in found.what


def test_only_kernels_that_hand_nothing_in_may_use_the_internet(kernel: Path) -> None:
    online = KERNEL | {"enable_internet": True}
    train = kernel.rename(kernel.with_name("train"))
    assert list(kernel_findings(online, train, BUNDLE)) == []
    assert len(list(kernel_findings(online, train.rename(train.with_name("mine")), BUNDLE))) == 1
