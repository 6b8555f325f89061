"""The bundle's manifest: what a bundle holds, and the proof that a folder is that bundle.

A bundle is one flat folder, because Kaggle unpacks archives and its client skips folders. It holds the library as a
wheel, one recipe per experiment, one weights file per fold, the networks as ONNX if that was asked for, LICENSE and
`manifest.json`, which names every other file with its size and sha256. A damaged safetensors file can load without an
error, so no file of a bundle is used before `verify` has read it. A kernel's script compares manifest and wheels with
the digest it was built with before it imports anything of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from kagglehms.errors import BundleError
from kagglehms.files import sha256_of
from kagglehms.strict_json import JSONError, parse_object, validate

FORMAT = 2
"""Version of the format; raised whenever older bundles can no longer be read."""
FEW_RECORDS = 2_000
"""Runs on fewer labelled records are trials, such as the demo: the competition has more than ten thousand."""
MANIFEST = "manifest.json"
BLEND = "blend.json"
"""File that says how the recipes of a bundle are combined; a bundle without it takes their plain mean."""
CARD = "dataset-metadata.json"
"""The Kaggle dataset's card. It names the owner, and Kaggle rewrites it, so that no digest covers it."""
HUB_CARD = "README.md"
"""The hub's page of a bundle that was published there."""
_BESIDE = frozenset({MANIFEST, CARD, HUB_CARD, ".gitattributes"})
"""Files of a bundle that no digest covers, since Kaggle or the hub keeps them there; none but the manifest is used."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_READERS = 8
"""Threads that read files: a mounted dataset reads several times faster through many than through one."""

Prior = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Library:
    """The library inside the bundle.

    Attributes:
        version: version of kagglehms.
        wheel: name of its wheel in the bundle.
        commit: commit of the sources, followed by `-dirty` if they had changes; None outside a git checkout.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    version: str
    wheel: str
    commit: str | None


@dataclass(frozen=True)
class Onnx:
    """One fold's network as an ONNX file, which takes `inputs` and returns `logits`.

    Attributes:
        file: name of the file in the bundle.
        opset: version of ONNX's operators.
        max_difference: largest difference of any logit from that of the PyTorch network, measured on a few inputs when
            the bundle was built.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    file: str
    opset: int
    max_difference: float


@dataclass(frozen=True)
class Model:
    """One fold's model.

    Attributes:
        recipe: name of the recipe.
        fold: number of the fold that was held out.
        weights: name of its safetensors file in the bundle.
        recipe_file: name of the recipe's JSON file in the bundle.
        scores: out-of-fold scores of this fold (KL divergence) by name; None where no record counts.
        precision: precision of the stored weights; predictions are made in float32 or mixed precision either way.
        changes: how half precision changed each of `scores`, measured on the fold; None if it was not measured.
        onnx: network as an ONNX file; None if there is none.
        records: number of labelled records of the run, held-out ones included; None if it is not known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    recipe: str
    fold: int
    weights: str
    recipe_file: str
    scores: dict[str, float | None]
    precision: Literal["float32", "float16"] = "float32"
    changes: dict[str, float | None] | None = None
    onnx: Onnx | None = None
    records: int | None = None


@dataclass(frozen=True)
class File:
    """The sha256 (hexadecimal) and size (bytes) of one file."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        format: version of the format, see `FORMAT`.
        library: the library inside the bundle.
        versions: versions of the packages that the models were trained with.
        models: one entry per fold's weights; in which order a kernel computes them is for `kernel/schedule.py` to say.
        prior: prediction for rows that no model can predict: the class means of the training targets and one further
            record with equal votes, or those of the records that the blend is for.
        files: all files except the manifest and the card, by name.
        digest: digest of the manifest, see `with_digest`; the kernels are stamped with it.
        wheels: names of the wheels of packages that Kaggle's image lacks.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: int
    library: Library
    versions: dict[str, str]
    models: tuple[Model, ...]
    prior: Prior
    files: dict[str, File]
    digest: str = ""
    wheels: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(file.size for file in self.files.values())


def with_digest(manifest: Manifest) -> Manifest:
    """Return a manifest with its digest: the sha256 of all that it says, and thereby of every byte of the bundle.

    The commit alone is left out: the same files are not uploaded again because they were built from another commit.
    """
    content = _plain(manifest)
    del content["digest"], content["library"]["commit"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return replace(manifest, digest=digest)


def hash_file(path: Path) -> File:
    """Return sha256 and size of the file at `path`."""
    return File(sha256_of(path), path.stat().st_size)


def dump_manifest(manifest: Manifest) -> bytes:
    """Return `manifest` as JSON, always the same bytes for the same content."""
    return json.dumps(_plain(manifest), indent=2, ensure_ascii=False).encode() + b"\n"


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle and check that it is consistent, without looking at any other file.

    Args:
        bundle: folder of the bundle, in `dist/` or as Kaggle mounts it.

    Raises:
        BundleError: there is no manifest, its format is unknown, it has unknown or ill-typed keys, names a path outside
            the bundle, or uses a file that it does not list.
    """
    path = bundle / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); is {bundle} a folder that `kagglehms build` made? "
            "`kagglehms demo` makes one to try with"
        ) from error
    return manifest_from_json(content, path)


def manifest_from_json(content: bytes, where: Path | str) -> Manifest:
    """Parse a manifest and check that it is consistent.

    Args:
        content: JSON made by `dump_manifest`.
        where: path or name of its source, for messages.

    Raises:
        BundleError: see `read_manifest`.
    """
    path = Path(where)
    _check_format(path, content)
    try:
        manifest = validate(_adapter(), content)
    except JSONError as error:
        raise BundleError(f"{path}: {error}; build the bundle again") from error
    _check_sense(path, manifest)
    return manifest


def verify(
    bundle: Path,
    manifest: Manifest,
    expected_digest: str | None = None,
    watch: Callable[[str], object] = lambda name: None,
) -> None:
    """Read every file of a bundle and compare it with the manifest.

    Args:
        bundle: folder that `manifest` was read from.
        manifest: manifest of the bundle.
        expected_digest: digest that the bundle must have; None accepts any.
        watch: called with the name of each file once it has been compared.

    Raises:
        BundleError: the bundle has another digest; or files are missing, extra, cut short or changed, and the message
            names all of them.
    """
    if expected_digest is not None and manifest.digest != expected_digest:
        raise BundleError(
            f"{bundle}: stale version: digest {manifest.digest[:12]} is mounted, {expected_digest[:12]} was built with"
            " this kernel; wait until the new version of the dataset is ready, or push both again"
        )
    for name in manifest.files:
        _check_name(bundle / MANIFEST, name)
    problems = [*_missing_or_extra(bundle, manifest), *_changed(bundle, manifest, watch)]
    if problems:
        raise BundleError(
            f"{bundle}: not the files of its manifest: {'; '.join(problems)}; upload the bundle again"
        )


def _plain(manifest: Manifest) -> dict[str, Any]:
    content: dict[str, Any] = _adapter().dump_python(manifest, mode="json")
    return content


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def _check_format(path: Path, content: bytes) -> None:
    """Check the format first, so that another format is not reported as an unknown key."""
    try:
        found = parse_object(content).get("format")
    except JSONError as error:
        raise BundleError(f"{path}: no manifest of a bundle: it {error}; build the bundle again") from error
    if found is None:
        raise BundleError(f"{path}: no manifest of a bundle: it names no format; build the bundle again")
    if found != FORMAT:
        raise BundleError(
            f"{path}: format {found!r} where this library reads {FORMAT}; build the bundle again with this library"
        )


def _check_sense(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        _check_name(path, name)
    named = [manifest.library.wheel, *manifest.wheels]
    named += [name for model in manifest.models for name in (model.weights, model.recipe_file)]
    named += [model.onnx.file for model in manifest.models if model.onnx is not None]
    unlisted = sorted({name for name in named if name not in manifest.files})
    if unlisted:
        raise BundleError(
            f"{path}: uses files that it does not list: {', '.join(unlisted)}; build the bundle again"
        )
    if not math.isclose(sum(manifest.prior), 1, abs_tol=1e-6) or min(manifest.prior) < 0:
        raise BundleError(f"{path}: prior {manifest.prior} is not a distribution; build the bundle again")
    if with_digest(manifest).digest != manifest.digest:
        raise BundleError(f"{path}: its digest is not that of what it says; build the bundle again")


def _check_name(path: Path, name: str) -> None:
    if not name or name in {".", "..", *_BESIDE} or any(character in name for character in "/\\\0"):
        raise BundleError(
            f"{path}: {name!r} is not a plain file name, it leads out of the bundle; build the bundle again"
        )


def _missing_or_extra(bundle: Path, manifest: Manifest) -> Iterable[str]:
    try:
        found = {path.name for path in bundle.iterdir()} - _BESIDE
    except OSError as error:
        raise BundleError(f"{bundle}: cannot be listed ({error.strerror})") from error
    for kind, names in (("missing", manifest.files.keys() - found), ("extra", found - manifest.files.keys())):
        if names:
            yield f"{kind}: {', '.join(sorted(names))}"


def _changed(bundle: Path, manifest: Manifest, watch: Callable[[str], object]) -> Iterable[str]:
    different = []
    # A link without a target is there and cannot be read.
    present = [name for name in sorted(manifest.files) if os.path.lexists(bundle / name)]
    with ThreadPoolExecutor(_READERS) as pool:
        reasons = pool.map(lambda name: _difference(bundle / name, manifest.files[name]), present)
        for name, reason in zip(present, reasons, strict=True):
            watch(name)
            different += [f"{name} ({reason})"] if reason else []
    if different:
        yield f"changed: {', '.join(different)}"


def _difference(path: Path, expected: File) -> str | None:
    """Return how a file differs from what is expected, None if it does not; compares the size first, which is cheap."""
    try:
        size = path.stat().st_size
        if size != expected.size:
            return f"{size} bytes where {expected.size} are expected"
        return None if hash_file(path) == expected else "same size, other content"
    except OSError as error:
        return f"cannot be read, {error.strerror}"
