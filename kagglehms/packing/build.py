"""Finished runs → `dist/dataset`, one flat folder to upload, and `dist/kernels`, the scripts that know its digest.

Two builds of the same inputs have the same bytes, and a build that is interrupted leaves the old bundle or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import kagglehms
from kagglehms.bundle.manifest import (
    BLEND,
    CARD,
    FORMAT,
    MANIFEST,
    File,
    Library,
    Manifest,
    Model,
    Prior,
    dump_manifest,
    hash_file,
    read_manifest,
    tree_digest,
    verify,
)
from kagglehms.console import say
from kagglehms.data.competition import SLUG
from kagglehms.device import choose_device
from kagglehms.errors import RunError, UsageError
from kagglehms.files import PARTIAL_SUFFIX
from kagglehms.kaggle.dist import UNSCORED, kernel_folders
from kagglehms.kaggle.scripts import read_wheel
from kagglehms.kaggle.stamping import KERNEL_METADATA, PLACEHOLDER_OWNER, find_owner, stamp_card, stamp_kernel
from kagglehms.locks import HOLDER, LOCK, exclusive
from kagglehms.packing.half_precision import HeldOut, half_changes, halve, open_held_out
from kagglehms.packing.model_card import MODEL_CARD, model_card
from kagglehms.packing.runs import FoldModel, Run, joint_prior, select_runs
from kagglehms.packing.sources import Sources, find_sources
from kagglehms.packing.vendor import lacking, vendor
from kagglehms.runs.blends import Blend
from kagglehms.runs.ladder import find_blend

_STAGE = ".build-"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Built:
    """What `build` made.

    Attributes:
        dataset: the folder to upload as a Kaggle dataset.
        kernels: the folders to push, one per kernel.
        manifest: of the bundle.
        owner: the Kaggle user name stamped in, or `PLACEHOLDER_OWNER`.
        owner_source: where the name was found.
        slug: of the bundle.
    """

    dataset: Path
    kernels: tuple[Path, ...]
    manifest: Manifest
    owner: str
    owner_source: str
    slug: str


@dataclass(frozen=True)
class Content:
    """What a bundle is made of; the fields are explained at `build`."""

    runs: tuple[Run, ...]
    blend: Blend | None = None
    half: bool = False
    held_out: HeldOut | None = None
    wheels: tuple[str, ...] | None = None

    @property
    def prior(self) -> Prior:
        """The answer where no model has one: the class prior of the records that the bundle is for."""
        correction = None if self.blend is None else self.blend.prior
        return joint_prior(self.runs) if correction is None else correction.target

    def measure(self) -> Callable[[Run, FoldModel, Path], dict[str, float | None] | None]:
        """Return what measures a fold's half precision; the records are opened once."""
        if not self.half or self.held_out is None:
            return lambda run, fold, weights: None
        datasets, device = open_held_out(self.held_out, self.runs), choose_device()
        say(device.reason)

        def measured(run: Run, fold: FoldModel, weights: Path) -> dict[str, float | None]:
            say(f"{run.recipe} fold {fold.fold}: predicting its records in both precisions")
            dataset = datasets[run.recipe]
            return half_changes(run.recipe_file, fold.weights, weights, fold.fold, dataset, device)

        return measured


def build(
    runs: Path,
    dist: Path,
    recipes: Sequence[str] | None = None,
    folds: Collection[int] | None = None,
    owner: str | None = None,
    root: Path | None = None,
    blend: str | None = None,
    half: bool = False,
    held_out: HeldOut | None = None,
    wheels: Sequence[str] | None = None,
    library_only: bool = False,
) -> Built:
    """Build the bundle and the kernels.

    Args:
        runs: the folder that training wrote to.
        dist: where `dataset/` and `kernels/` go; what an earlier build left there is replaced.
        recipes: names of runs, in the order in which they are to run; None takes all.
        folds: which ones of each run; None takes those that are finished.
        owner: Kaggle user name; None looks for it, see `stamping.find_owner`.
        root: the project's checkout; None takes what the running library came with, see `find_sources`.
        blend: name of a blend: its members are bundled, unless `recipes` says otherwise, and combined by it.
        half: store weights in half precision.
        held_out: the records to measure on what that changes; None measures nothing.
        wheels: packages to bring along, besides those that the kernels import and the image lacks; None brings none.
        library_only: no weights, for the kernels that prepare and train; `runs` need not exist.

    Raises:
        UsageError: unknown names, or a `dist/dataset` that is no bundle and would be lost.
        RunError: unfinished or damaged runs, a broken checkout, another build into `dist`, or a disk that is full.
    """
    sources = find_sources(root)
    owner, owner_source = find_owner(owner)
    chosen = find_blend(runs, blend) if blend else None
    if chosen is not None:
        chosen = chosen if recipes is None else chosen.only(recipes)
        recipes = _heaviest_first(chosen)
    selected = [] if library_only else select_runs(runs, recipes, folds)
    content = Content(tuple(selected), chosen, half, held_out, None if wheels is None else tuple(wheels))
    dataset = dist / "dataset"
    _refuse_to_replace_others(dataset)
    try:
        with exclusive(dist, "a build"), _stage(dist) as stage:
            slug, manifest = _write_dataset(stage / "dataset", sources, content, owner)
            names = kernel_names(sources.kernels, scored=bool(selected))
            _write_kernels(stage / "kernels", sources.kernels, names, owner, slug, manifest.digest)
            _swap_in(stage, dist, kernel_names(sources.kernels))
    except BrokenPipeError:  # whoever reads the output has gone
        raise
    except OSError as error:
        raise RunError(f"{dist}: cannot be written ({error}); free space or give another folder") from error
    kernels = tuple(dist / "kernels" / name for name in names)
    return Built(dataset, kernels, manifest, owner, owner_source, slug)


@contextlib.contextmanager
def _stage(dist: Path) -> Iterator[Path]:
    """A folder in `dist` to build in, and none of those that killed builds have left."""
    for stale in dist.glob(f"{_STAGE}*{PARTIAL_SUFFIX}"):
        shutil.rmtree(stale, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=_STAGE, suffix=PARTIAL_SUFFIX, dir=dist))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if {LOCK, HOLDER}.issuperset(os.listdir(dist)):
            shutil.rmtree(dist, ignore_errors=True)


def describe(built: Built) -> str:
    """Return the table of what was built and the commands that come next."""
    manifest, dataset, short = built.manifest, shlex.quote(str(built.dataset)), built.manifest.digest[:12]
    lines = [f"{'file':<48} {'bytes':>13}  sha256"]
    lines += [f"{name:<48} {file.size:>13,}  {file.sha256[:12]}" for name, file in manifest.files.items()]
    lines += ["", f"{'model':<43} {'fold':>4}  out-of-fold score"]
    for model in manifest.models:
        lines.append(f"{model.recipe:<43} {model.fold:>4}  {_scores_line(model)}")
    lines += [
        "",
        f"{built.dataset}: {len(manifest.files)} files, {manifest.size / 1e6:.1f} MB, {len(manifest.models)} model(s)",
        f"digest {manifest.digest}",
        f"owner {built.owner} (from {built.owner_source})",
        "",
        "next: the same command with --push does all of this and waits; by hand, in this order:",
        f"  kaggle datasets create -p {dataset}",
        f"  kaggle datasets version -p {dataset} -m {short}   # instead, if the dataset exists already",
        f"  kaggle datasets status {built.owner}/{built.slug}   # until it says `ready`",
    ]
    for kernel in kernel_folders(built.dataset.parent):
        lines.append(f"  kaggle kernels push -p {shlex.quote(str(kernel))}")
    lines.append(
        f"  kaggle competitions submit {SLUG} -f submission.csv -m {short} -k {built.owner}/KERNEL -v VERSION"
    )
    if built.owner == PLACEHOLDER_OWNER:
        lines += [
            "",
            f"warning: no Kaggle user name is known and {PLACEHOLDER_OWNER!r} stands in its place, so nothing",
        ]
        lines += ["can be uploaded like this; build again with --owner NAME, or set KAGGLE_USERNAME"]
    return "\n".join(lines)


def _scores_line(model: Model) -> str:
    text = ", ".join(f"{name} {score:.4f}" for name, score in model.scores.items() if score is not None)
    if model.precision == "float32":
        return text
    if model.changes is None:
        return f"{text}; float16, its change not measured (give --data and --store)"
    changes = ", ".join(
        f"{name} {change:+.6f}" for name, change in model.changes.items() if change is not None
    )
    return f"{text}; float16 changes {changes}"


def _refuse_to_replace_others(dataset: Path) -> None:
    if (
        dataset.exists()
        and not (dataset / MANIFEST).is_file()
        and (not dataset.is_dir() or any(dataset.iterdir()))
    ):
        raise UsageError(f"{dataset}: exists and is no bundle, it will not be replaced; give another --dist")


def _heaviest_first(blend: Blend) -> list[str]:
    """Members in the order in which a run that is cut short is best off."""
    weights = dict(zip(blend.members, blend.weights, strict=True))
    return sorted(blend.active, key=lambda name: -weights[name])


def _write_dataset(folder: Path, sources: Sources, content: Content, owner: str) -> tuple[str, Manifest]:
    folder.mkdir()
    slug, card = stamp_card(sources.card, owner)
    wheel, wheel_bytes = sources.wheel()
    files = {
        wheel: _write(folder / wheel, wheel_bytes),
        "LICENSE": _copy(sources.license, folder / "LICENSE"),
    }
    vendored = _vendor(folder, sources.kernels, wheel, content)
    files |= {path.name: hash_file(path) for path in vendored}
    if content.blend is not None:
        files[BLEND] = _write(folder / BLEND, content.blend.to_json())
    models = _write_models(folder, content, files)
    prior = content.prior
    told = model_card(content.runs, models, _versions(content.runs), prior, content.blend)
    files[MODEL_CARD] = _write(folder / MODEL_CARD, told)
    files = dict(sorted(files.items()))
    manifest = Manifest(
        FORMAT,
        Library(kagglehms.__version__, wheel, sources.commit()),
        _versions(content.runs),
        tuple(models),
        prior,
        files,
        digest=tree_digest(files),
        wheels=tuple(path.name for path in vendored),
    )
    _write(folder / MANIFEST, dump_manifest(manifest))
    _write(folder / CARD, card)
    verify(folder, read_manifest(folder), manifest.digest)  # what the kernel will do, while it is still cheap
    return slug, manifest


def _write_models(folder: Path, content: Content, files: dict[str, File]) -> list[Model]:
    """Write recipes and weights, note them in `files`, and return the manifest's entries."""
    measure = content.measure()
    models = []
    for run in content.runs:
        stem = _file_stem(run.recipe)
        recipe_file = f"{stem}.recipe.json"
        if recipe_file in files:
            raise RunError(
                f"two recipes would both be named {recipe_file}; rename {run.recipe!r} or choose one of them"
            )
        files[recipe_file] = _copy(run.recipe_file, folder / recipe_file)
        for fold in run.folds:
            name = f"{stem}.fold{fold.fold}.safetensors"
            scores = fold.scores
            if content.half:
                files[name] = _write(folder / name, halve(fold.weights))
                changes = measure(run, fold, folder / name)
                models.append(Model(run.recipe, fold.fold, name, recipe_file, scores, "float16", changes))
            else:
                files[name] = _copy(fold.weights, folder / name)
                models.append(Model(run.recipe, fold.fold, name, recipe_file, scores))
    return models


def _vendor(folder: Path, kernels: Path, wheel: str, content: Content) -> list[Path]:
    if content.wheels is None:
        return []
    scripts = sorted(kernels.glob("*/*.py"))
    wanted = [*lacking(scripts, read_wheel(folder / wheel)), *content.wheels]
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=folder.parent) as scratch:
        return [path.rename(folder / path.name) for path in vendor(wanted, Path(scratch))]


def kernel_names(kernels: Path, scored: bool = True) -> list[str]:
    """Names of the project's kernels, in alphabetical order.

    Args:
        kernels: folder of their templates.
        scored: with those that need weights.

    Raises:
        RunError: there is none.
    """
    names = sorted(path.parent.name for path in kernels.glob(f"*/{KERNEL_METADATA}"))
    names = [name for name in names if scored or name in UNSCORED]
    if not names:
        raise RunError(f"{kernels}: holds no kernel; take it from the project's checkout")
    return names


def _write_kernels(
    folder: Path, kernels: Path, names: Sequence[str], owner: str, slug: str, digest: str
) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for file, content in stamp_kernel(kernels / name, owner, slug, digest).items():
            _write(folder / name / file, content)


def _swap_in(stage: Path, dist: Path, kernels: Sequence[str]) -> None:
    """Put what was built in the place of what stood there.

    The old kernels go first and the new ones come last, so that no kernel ever stands beside a bundle which it
    would refuse; one that was not built this time does not stay behind.
    """
    retired = stage / "retired"
    retired.mkdir()
    (dist / "kernels").mkdir(exist_ok=True)
    for name in kernels:
        _move(dist / "kernels" / name, retired / name)
    _move(dist / "dataset", retired / ".dataset")
    _move(stage / "dataset", dist / "dataset")
    for name in kernels:
        _move(stage / "kernels" / name, dist / "kernels" / name)


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)


def _write(path: Path, content: bytes) -> File:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return File(hashlib.sha256(content).hexdigest(), len(content))


def _copy(source: Path, target: Path) -> File:
    """Copy a file and hash what was copied, in one pass."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
        return File(digest.hexdigest(), writer.tell())


def _file_stem(recipe: str) -> str:
    """Return the recipe's name without what a file name on Kaggle should not hold (`panels+global`)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip(".-") or "recipe"


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Merge the versions of all runs; where they differ, all of them are named."""
    merged: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.versions.items():
            merged.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(merged.items())}
