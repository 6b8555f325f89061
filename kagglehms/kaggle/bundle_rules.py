"""What could be wrong with the bundle's files: the manifest, the recipes, the wheels, and whether all would arrive."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.bundle.manifest import CARD, MANIFEST, Manifest, read_manifest, verify
from kagglehms.errors import BundleError, DataError
from kagglehms.kaggle.findings import Finding
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.scripts import LIBRARY, Wheel, read_wheel
from kagglehms.kaggle.stamping import KERNEL_METADATA

if TYPE_CHECKING:
    from kagglehms.training.recipe import Recipe

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Endings of files that Kaggle unpacks, so that a kernel would see other files than the manifest lists."""
_RESERVED = frozenset(
    {"datapackage.json", KERNEL_METADATA, "model-metadata.json", "model-instance-metadata.json"}
    | {f"dataset-cover-image{ending}" for ending in (".png", ".jpg", ".jpeg", ".webp")}
)
"""Names that the client reserves for itself and does not upload as files."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def file_findings(dataset: Path) -> Iterator[Finding]:
    """Yield which parts of the folder would not arrive, or not as they are.

    Args:
        dataset: folder of the bundle.
    """
    limits = kaggle_image().limits
    paths = sorted(path for path in dataset.iterdir() if path.name != CARD)
    for path in paths:
        yield from _name_findings(path)
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if size > limits.dataset_bytes:
        yield Finding(
            str(dataset),
            f"{size / 1e9:.1f} GB, where a private dataset may have {limits.dataset_bytes / 1e9:.0f}",
            "bundle fewer recipes or folds, or use --half",
        )
    if len(paths) > limits.dataset_files:
        yield Finding(
            str(dataset),
            f"{len(paths)} files, where a dataset may have {limits.dataset_files}",
            "bundle fewer recipes or folds",
        )


def _name_findings(path: Path) -> Iterator[Finding]:
    where = str(path)
    if path.is_symlink():
        yield Finding(where, "is a symbolic link", "build again: a bundle holds plain files")
    elif path.is_dir():
        yield Finding(where, "is a folder, which the client skips", "build again: a bundle is flat")
    elif path.name in _RESERVED:
        yield Finding(
            where, "has a name that the client reserves for itself and does not upload", "rename it"
        )
    elif path.name.lower().endswith(_ARCHIVES):
        yield Finding(where, "is an archive, which Kaggle unpacks on arrival", "bundle its files instead")
    elif path.stat().st_size == 0:
        yield Finding(where, "is empty, and the client sends it without a length", "leave it out")
    if not _SAFE_NAME.fullmatch(path.name):
        yield Finding(
            where, "has a name that Kaggle may change on arrival", "use letters, digits and ._+- only"
        )


def verified_manifest(dataset: Path, findings: list[Finding]) -> Manifest | None:
    """Read the manifest and compare every byte of the bundle with it.

    Args:
        dataset: folder of the bundle.
        findings: list to which differences are added.

    Returns:
        The manifest; None if it cannot be read or the files differ from it.
    """
    try:
        manifest = read_manifest(dataset)
        verify(dataset, manifest)
    except BundleError as error:
        what = str(error).removeprefix(f"{dataset}: ").removeprefix(f"{dataset / MANIFEST}: ")
        findings.append(Finding(str(dataset / MANIFEST), what.rpartition("; ")[0] or what, "build again"))
        return None
    return manifest


def recipe_findings(dataset: Path, manifest: Manifest, wheels: Mapping[str, Wheel]) -> Iterator[Finding]:
    """Yield the recipes that the kernel could not read or make a network of, so that it would leave out their models.

    Args:
        dataset: folder of the bundle.
        manifest: manifest of the bundle.
        wheels: wheels of the bundle by the name of their distribution.
    """
    from kagglehms.training.recipes import recipe_from_json

    for name in dict.fromkeys(model.recipe_file for model in manifest.models):
        path = dataset / name
        try:
            recipe = recipe_from_json(path.read_bytes(), path)
        except DataError as error:
            yield Finding(str(path), error.reason, "train it again, or build without it")
            continue
        yield from package_findings(path, recipe, wheels)


def package_findings(where: Path, recipe: Recipe, wheels: Mapping[str, Wheel]) -> Iterator[Finding]:
    """Yield the packages that a recipe's network is made from and that neither the image nor the bundle has.

    Args:
        where: file that asks for the recipe.
        recipe: the recipe.
        wheels: wheels of the bundle by the name of their distribution.
    """
    vendored = {name for wheel in wheels.values() for name in wheel.top_levels}
    for package in kaggle_image().lacks(recipe.packages):
        if package not in vendored:
            what = f"the network of {recipe.name} is made from {package}, which the image lacks"
            fix = f"bundle it with `kagglehms build --wheels {package}`, or do without it"
            yield Finding(str(where), what, fix)


def readable_wheels(dataset: Path, findings: list[Finding]) -> dict[str, Wheel]:
    """Read the wheels of the bundle.

    Args:
        dataset: folder of the bundle.
        findings: list to which everything wrong with the wheels and their requirements is added.

    Returns:
        The wheels that can be read, by the name of their distribution.
    """
    image, wheels = kaggle_image(), {}
    for path in sorted(dataset.glob("*.whl")):
        name = path.name.partition("-")[0].lower().replace("_", "-")
        if name in image.never_replace:
            findings.append(Finding(str(path), f"would replace the image's {name}", "build without it"))
        try:
            wheels[name] = read_wheel(path)
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            findings.append(Finding(str(path), f"is not a wheel that can be read ({error})", "build again"))
    for wheel in wheels.values():
        findings += _requirement_findings(wheel, wheels)
    if LIBRARY not in wheels:
        findings.append(Finding(str(dataset), "the library's wheel is missing", "build again"))
    return wheels


def _requirement_findings(wheel: Wheel, wheels: Mapping[str, Wheel]) -> Iterator[Finding]:
    """Yield what a wheel requires in a version that the image lacks."""
    from email.parser import Parser

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    headers, image = Parser().parsestr(wheel.metadata), kaggle_image()
    is_library = LIBRARY in wheels and wheel is wheels[LIBRARY]
    for python in image.python:
        if not SpecifierSet(headers.get("Requires-Python", "")).contains(python):
            yield Finding(
                str(wheel.path),
                f"wants Python {headers['Requires-Python']}, and the image has {python}",
                "lower requires-python",
            )
    present = image.distributions()
    for text in headers.get_all("Requires-Dist", []):
        wanted = Requirement(text)
        package = present.get(canonicalize_name(wanted.name))
        if package is None or wanted.marker is not None or canonicalize_name(wanted.name) in wheels:
            continue  # a package that the image lacks matters only if a kernel imports it
        # Others were fetched for the image in use, which has the highest; the library runs on its predecessor too.
        versions = package.versions if is_library else package.versions[-1:]
        wrong = [version for version in versions if not wanted.specifier.contains(version)]
        if wrong:
            yield Finding(
                str(wheel.path), f"wants {wanted}, and the image has {wrong[0]}", "lower the requirement"
            )
