"""The manifest: strict reading, and a verification that finds every kind of damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagglehms.bundle.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    Library,
    Manifest,
    Model,
    dump_manifest,
    hash_file,
    read_manifest,
    verify,
    with_digest,
)
from kagglehms.errors import BundleError

CONTENTS = {
    "LICENSE": b"licence",
    "a.recipe.json": b"{}",
    "a.fold0.safetensors": bytes(range(256)) * 8,
    "kagglehms-0.1.0-py3-none-any.whl": b"wheel",
}


def make_bundle(folder: Path) -> Manifest:
    folder.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    files = {name: hash_file(folder / name) for name in CONTENTS}
    manifest = Manifest(
        format=FORMAT,
        library=Library("0.1.0", "kagglehms-0.1.0-py3-none-any.whl", None),
        versions={"torch": "2.10.0"},
        models=(Model("a", 0, "a.fold0.safetensors", "a.recipe.json", {"all": 0.5, "votes10": None}),),
        prior=(0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
        files=files,
    )
    manifest = with_digest(manifest)
    (folder / MANIFEST).write_bytes(dump_manifest(manifest))
    return manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / MANIFEST).read_bytes())
    change(content)
    (bundle / MANIFEST).write_text(json.dumps(content))


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle") == manifest
    verify(tmp_path / "bundle", manifest, manifest.digest)
    assert manifest.size == sum(map(len, CONTENTS.values()))


def test_the_digest_is_that_of_the_plain_content(bundle: Path) -> None:
    """As a kernel's script computes it, which has nothing but the standard library."""
    content = json.loads((bundle / MANIFEST).read_bytes())
    stated = content.pop("digest")
    del content["library"]["commit"]
    assert stated == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@given(names=st.permutations(sorted(CONTENTS)))
def test_the_digest_depends_on_no_order(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    manifest = make_bundle(tmp_path_factory.mktemp("order") / "bundle")
    assert with_digest(replace(manifest, files={name: manifest.files[name] for name in names})) == manifest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["library"].update(surprise=1), "library.surprise"),
        (lambda m: m["models"][0].update(fold="0"), "models.0.fold"),
        (lambda m: m["models"][0].pop("recipe"), "models.0.recipe"),
        (lambda m: m["files"]["LICENSE"].update(size=7.5), "files.LICENSE.size"),
        (lambda m: m.update(prior=[0.5, 0.5]), "prior"),
        (lambda m: m.update(prior=[float("nan")] * 6), "NaN"),
        (lambda m: m.update(prior=[0.2] * 6), "not a distribution"),
        (lambda m: m.update(prior=[-0.5, 1.5, 0.0, 0.0, 0.0, 0.0]), "not a distribution"),
        (lambda m: m.update(format=FORMAT + 1), f"format {FORMAT + 1}"),
        (lambda m: m.pop("format"), "no manifest"),
        (lambda m: m["models"][0].update(weights="b.safetensors"), "b.safetensors"),
        (lambda m: m["library"].update(wheel="other.whl"), "other.whl"),
        (lambda m: m["files"]["LICENSE"].update(sha256="0" * 64), "digest"),
        (lambda m: m.update(digest="0" * 64), "digest"),
        (lambda m: m.pop("digest"), "digest"),
        (lambda m: m.update(prior=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]), "digest"),
        (lambda m: m["models"].clear(), "digest"),
        (lambda m: m["models"].append(m["models"][0]), "digest"),
        (lambda m: m["models"][0].update(recipe="b"), "digest"),
        (lambda m: m["models"][0]["scores"].update(all=0.25), "digest"),
        (lambda m: m["library"].update(version="9"), "digest"),
        (lambda m: m["versions"].update(torch="9"), "digest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=says) as raised:
        read_manifest(bundle)
    assert "\n" not in str(raised.value)
    assert str(bundle / MANIFEST) in str(raised.value)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "..", ".", "", "folder/file", "..\\secret", "a\0b", MANIFEST, CARD]
)
def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_bytes(b"licence")
    manifest = read_manifest(bundle)
    files = manifest.files | {name: manifest.files["LICENSE"]}
    hostile = with_digest(replace(manifest, files=files))
    (bundle / MANIFEST).write_bytes(dump_manifest(hostile))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_manifest(bundle)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        verify(bundle, hostile)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="no manifest of a bundle"):
        read_manifest(bundle)


def test_a_manifest_cut_anywhere_is_refused(bundle: Path) -> None:
    whole = (bundle / MANIFEST).read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        (bundle / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(BundleError):
            read_manifest(bundle)


def test_no_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="`kagglehms build`"):
        read_manifest(tmp_path)


def test_every_damage_is_named_at_once(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    (bundle / "LICENSE").unlink()
    (bundle / "a.recipe.json").write_bytes(b"[]")
    (bundle / "a.fold0.safetensors").write_bytes(CONTENTS["a.fold0.safetensors"][:-1])
    (bundle / "stranger.txt").write_bytes(b"")
    (bundle / "folder").mkdir()
    with pytest.raises(BundleError) as raised:
        verify(bundle, manifest)
    message = str(raised.value)
    assert "missing: LICENSE" in message
    assert "extra: folder, stranger.txt" in message
    assert "a.fold0.safetensors (2047 bytes where 2048 are expected)" in message
    assert "a.recipe.json (same size, other content)" in message
    assert "\n" not in message


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(CONTENTS)), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, flip: int
) -> None:
    bundle = tmp_path_factory.mktemp("flip") / "bundle"
    manifest = make_bundle(bundle)
    content = bytearray(CONTENTS[name])
    content[position % len(content)] ^= flip
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"changed: {name}"):
        verify(bundle, manifest)


def test_a_folder_in_the_place_of_a_file_is_no_file(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    (bundle / "LICENSE").unlink()
    (bundle / "LICENSE").mkdir()
    with pytest.raises(BundleError, match="LICENSE"):
        verify(bundle, manifest)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_a_link_without_a_target_is_no_file(bundle: Path, name: str) -> None:
    manifest = read_manifest(bundle)
    (bundle / name).unlink()
    (bundle / name).symlink_to("nowhere")
    with pytest.raises(BundleError, match=f"{name} .cannot be read, No such file"):
        verify(bundle, manifest)


def test_a_stale_version_is_named_as_such_and_not_as_damage(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    with pytest.raises(BundleError, match="stale version") as raised:
        verify(bundle, manifest, "f" * 64)
    assert manifest.digest[:12] in str(raised.value)
    assert "f" * 12 in str(raised.value)


def test_the_card_may_be_there_or_not(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    (bundle / CARD).write_text('{"id": "someone/else"}')
    verify(bundle, manifest, manifest.digest)


def test_a_bundle_that_is_gone_is_one_line(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    shutil.rmtree(bundle)
    with pytest.raises(BundleError, match="cannot be listed"):
        verify(bundle, manifest)
