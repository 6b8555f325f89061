"""What can be known to go wrong on Kaggle before anything is uploaded: all of it at once, each with its cure.

The rules of the two metadata files are in `metadata.py`, those of the scripts in `scripts.py`; here they meet the
bundle, its files and the digests stamped into the kernels.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kagglehms.bundle.manifest import CARD, MANIFEST, Manifest, read_manifest, verify
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, BundleError, DataError, UsageError, closest
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.metadata import Finding, card_findings, kernel_findings, slug_of
from kagglehms.kaggle.scripts import LIBRARY, Wheel, read_wheel, script_findings
from kagglehms.kaggle.stamping import KERNEL_METADATA, STAMPS
from kagglehms.strict_json import JSONError, parse_object

_UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Kaggle unpacks what it takes for an archive, and the kernel sees other files than the manifest's."""
_KEPT_BACK = frozenset(
    {"datapackage.json", KERNEL_METADATA, "model-metadata.json", "model-instance-metadata.json"}
    | {f"dataset-cover-image{ending}" for ending in (".png", ".jpg", ".jpeg", ".webp")}
)
"""Names that the client takes for its own and does not upload as files."""
_TRAINING = ("RECIPES", "OPTIONS")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Preflight:
    """What was looked at and what was found.

    Attributes:
        findings: all of them; none means that a push may begin.
        dataset: owner/slug of the bundle, as far as the card says.
        digest: of the bundle; None where it has no readable manifest.
        files: in the dataset, the card aside.
        size: of them, bytes.
        kernels: owner/slug of each kernel by the name of its folder.
    """

    findings: tuple[Finding, ...]
    dataset: str
    digest: str | None
    files: int
    size: int
    kernels: dict[str, str]

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def exit_code(self) -> int:
        """For a command that ends in this."""
        return EXIT_OK if self.ok else EXIT_FAILURE

    def to_json(self) -> str:
        """For other programs."""
        return json.dumps({"ok": self.ok} | asdict(self), indent=2, ensure_ascii=False)

    @property
    def text(self) -> str:
        """For a person."""
        short = self.digest[:12] if self.digest else "unknown"
        seen = f"dataset {self.dataset}: {self.files} files, {self.size / 1e6:.1f} MB, digest {short}; "
        seen += f"kernels: {', '.join(self.kernels.values()) or 'none'}"
        if self.ok:
            return f"preflight: nothing found. {seen}"
        lines = [f"preflight: {len(self.findings)} finding(s). {seen}"]
        for finding in self.findings:
            lines += [f"  {finding.where}", f"    {finding.what}", f"    cure: {finding.cure}"]
        return "\n".join(lines)


def preflight(dist: Path) -> Preflight:
    """Check what `build.py` left in `dist`.

    Raises:
        UsageError: there is nothing to check.
    """
    require_bundle(dist)
    dataset = dist / "dataset"
    findings: list[Finding] = []
    card = _read(dataset / CARD, findings)
    findings += card_findings(card, dataset) if card is not None else ()
    findings += _file_findings(dataset)
    manifest = _manifest(dataset, findings)
    findings += _recipe_findings(dataset, manifest) if manifest else ()
    bundle_id = str((card or {}).get("id"))
    folders = kernel_folders(dist)
    if not folders:
        findings.append(Finding(str(dist / "kernels"), "there is no kernel", "build again"))
    wheels = _wheels(dataset, findings)
    kernels: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        metadata = _read(folder / KERNEL_METADATA, findings)
        if metadata is None:
            continue
        kernels[folder.name] = metadata
        findings += kernel_findings(metadata, folder, bundle_id)
        script = folder / str(metadata.get("code_file"))
        if script.is_file() and metadata.get("kernel_type") == "script":
            findings += _stamp_findings(script, bundle_id, manifest)
            findings += _training_findings(script)
            findings += script_findings(script, kaggle_image(), wheels.get(LIBRARY), list(wheels.values()))
    findings += _clashes(dataset, card or {}, kernels)
    files = [path for path in dataset.rglob("*") if path.is_file() and path != dataset / CARD]
    return Preflight(
        tuple(findings),
        bundle_id,
        manifest.digest if manifest else None,
        len(files),
        sum(path.stat().st_size for path in files),
        {name: str(metadata.get("id")) for name, metadata in kernels.items()},
    )


def require_bundle(dist: Path) -> None:
    """Make sure that something was built.

    Raises:
        UsageError: there is nothing.
    """
    if not (dist / "dataset").is_dir():
        raise UsageError(f"{dist}: holds no bundle; build it with `python build.py --dist {dist}`")


def kernel_folders(dist: Path) -> list[Path]:
    """Folders of `dist/kernels` that hold a kernel, in the order in which their data pass."""
    order = {"prepare": 0, "train": 1, "infer": 2}
    found = (path.parent for path in (dist / "kernels").glob(f"*/{KERNEL_METADATA}"))
    return sorted(found, key=lambda folder: (order.get(folder.name, len(order)), folder.name))


def choose_kernels(dist: Path, names: list[str]) -> list[Path]:
    """The folders of the kernels in `names`, in the order in which their data pass.

    Raises:
        UsageError: a name that is not there, or nothing at all.
    """
    require_bundle(dist)
    folders = kernel_folders(dist)
    known = [folder.name for folder in folders]
    for name in names:
        if not known:
            raise UsageError(f"{dist / 'kernels'}: holds no kernel; build it with `python build.py`")
        if name not in known:
            raise UsageError(f"{dist / 'kernels'}: no kernel {name!r}; {closest(name, known)}")
    return [folder for folder in folders if folder.name in names]


def _read(path: Path, findings: list[Finding]) -> dict[str, Any] | None:
    try:
        return parse_object(path.read_bytes())
    except (OSError, JSONError) as error:
        reason = str(error) if isinstance(error, JSONError) else f"cannot be read ({error.strerror})"
        findings.append(Finding(str(path), reason, "build again"))
        return None


def _file_findings(dataset: Path) -> Iterator[Finding]:
    """What of the folder would not arrive, or not as it is."""
    limits = kaggle_image().limits
    paths = sorted(path for path in dataset.iterdir() if path.name != CARD)
    for path in paths:
        where = str(path)
        if path.is_symlink():
            yield Finding(where, "is a link", "build again, a bundle holds plain files")
        if path.is_dir():
            yield Finding(where, "is a folder, which the client skips", "build again, a bundle is flat")
        elif path.name in _KEPT_BACK:
            yield Finding(
                where, "has a name that the client keeps for itself and does not upload", "rename it"
            )
        elif path.name.lower().endswith(_UNPACKED):
            yield Finding(where, "is an archive, which Kaggle unpacks on arrival", "bundle its files instead")
        elif path.stat().st_size == 0:
            yield Finding(where, "is empty, and the client sends it without a length", "leave it out")
        if not _SAFE_NAME.fullmatch(path.name):
            yield Finding(
                where, "has a name that may not arrive as it is", "use letters, digits and ._+- only"
            )
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if size > limits.dataset_bytes:
        yield Finding(
            str(dataset),
            f"{size / 1e9:.1f} GB, where a private dataset may have {limits.dataset_bytes / 1e9:.0f}",
            "bundle fewer recipes or folds, or --half",
        )
    if len(paths) > limits.dataset_files:
        yield Finding(
            str(dataset),
            f"{len(paths)} files, where a dataset may have {limits.dataset_files}",
            "bundle fewer recipes or folds",
        )


def _manifest(dataset: Path, findings: list[Finding]) -> Manifest | None:
    """Read the manifest and compare every byte of the bundle with it."""
    try:
        manifest = read_manifest(dataset)
        verify(dataset, manifest)
    except BundleError as error:
        what = str(error).removeprefix(f"{dataset}: ").removeprefix(f"{dataset / MANIFEST}: ")
        findings.append(Finding(str(dataset / MANIFEST), what.rpartition("; ")[0] or what, "build again"))
        return None
    return manifest


def _recipe_findings(dataset: Path, manifest: Manifest) -> Iterator[Finding]:
    """What of the recipes the kernel could not read; it would do without their models."""
    from kagglehms.training.recipes import recipe_from_json

    for name in dict.fromkeys(model.recipe_file for model in manifest.models):
        path = dataset / name
        try:
            recipe_from_json(path.read_bytes(), path)
        except DataError as error:
            yield Finding(str(path), error.reason, "train it again, or build without it")


def _wheels(dataset: Path, findings: list[Finding]) -> dict[str, Wheel]:
    """The bundle's wheels by the distribution's name, and what is wrong with them and with what they ask for."""
    image, wheels = kaggle_image(), {}
    for path in sorted(dataset.glob("*.whl")):
        name = path.name.partition("-")[0].lower().replace("_", "-")
        if name in image.never_replace:
            findings.append(Finding(str(path), f"would replace the image's {name}", "build without it"))
        try:
            wheels[name] = read_wheel(path)
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            findings.append(Finding(str(path), f"is no wheel that can be read ({error})", "build again"))
    for wheel in wheels.values():
        findings += _requirement_findings(wheel, wheels)
    if LIBRARY not in wheels:
        findings.append(Finding(str(dataset), "the library's wheel is missing", "build again"))
    return wheels


def _requirement_findings(wheel: Wheel, wheels: Mapping[str, Wheel]) -> Iterator[Finding]:
    """What a wheel asks for in a version that the image has not."""
    from email.parser import Parser

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    headers, image = Parser().parsestr(wheel.metadata), kaggle_image()
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
            continue  # what the image has not matters only where a kernel imports it
        versions = [version for version in (package.lowest, package.highest) if version]
        wrong = [version for version in versions if not wanted.specifier.contains(version)]
        if wrong:
            yield Finding(
                str(wheel.path), f"wants {wanted}, and the image has {wrong[0]}", "lower the requirement"
            )


def _stamp_findings(script: Path, bundle_id: str, manifest: Manifest | None) -> Iterator[Finding]:
    """Whether the script looks for this bundle and no other."""
    owner, _, slug = bundle_id.partition("/")
    expected = {"OWNER": owner, "BUNDLE": slug, "DIGEST": manifest.digest if manifest else None}
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return  # said by script_findings
    for name in STAMPS:
        found = re.findall(rf'^{name} = "([^"]*)"', text, flags=re.MULTILINE)
        if len(found) != 1:
            yield Finding(str(script), f'has {len(found)} lines `{name} = "…"` instead of one', "build again")
        elif expected[name] is not None and found[0] != expected[name]:
            yield Finding(
                str(script),
                f"{name} is {found[0][:40]!r}, and the bundle beside it has {str(expected[name])[:40]!r}",
                "build again, bundle and kernels belong together",
            )


def _training_findings(script: Path) -> Iterator[Finding]:
    """What the training kernel would refuse of what its owner wrote into it."""
    from kagglehms.kernel.training_session import make_task

    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return  # said by script_findings
    written = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _TRAINING:
                written[target.id] = getattr(node, "value", None)
    if len(written) < len(_TRAINING):
        return
    try:
        recipes, options = (ast.literal_eval(written[name] or "") for name in _TRAINING)
        make_task(recipes, options)
    except UsageError as error:
        yield Finding(str(script), str(error), "correct it in the script")
    except (ValueError, TypeError, SyntaxError):
        return  # computed, so only the kernel can know


def _clashes(
    dataset: Path, card: Mapping[str, Any], kernels: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """A dataset and a kernel of one owner cannot share a slug, nor can two kernels."""
    holders: dict[str, str] = {}
    for name, content in [
        (dataset.name, card),
        *((f"kernel {name}", content) for name, content in kernels.items()),
    ]:
        if not (slug := slug_of(content)):
            continue
        if slug in holders:
            yield Finding(
                name, f"has the slug {slug!r} of {holders[slug]}", "give each one its own in the template"
            )
        holders.setdefault(slug, name)
