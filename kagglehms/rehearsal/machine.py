"""The machine that a kernel is rehearsed on: Kaggle's folders, its inputs in one of the layouts, its environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kagglehms.bundle.manifest import CARD
from kagglehms.data.competition import SLUG, Competition, unpacking
from kagglehms.environment import CHILDREN_PRINT
from kagglehms.errors import DataError, RunError, UsageError, closest
from kagglehms.files import home
from kagglehms.kaggle.dist import UNSCORED, require_bundle
from kagglehms.kaggle.stamping import KERNEL_METADATA, read_template
from kagglehms.kernel.entry import TIME_LIMIT_VARIABLE
from kagglehms.kernel.mounts import ROOT_VARIABLE, Layout, competition_mount, dataset_mount, notebook_mount
from kagglehms.rehearsal import guard
from kagglehms.rehearsal.launcher import Bind, Spec

Isolation = Literal["namespaces", "guard"]
WITNESS = "kagglehms-rehearsal-witness.json"
TIME_SHARE = 8.5 / 9
"""How much of a session's time a kernel gives itself, where a rehearsal shortens it."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What the kernel inherits of the environment; everything else, credentials above all, it does not."""
_TEMPORARY = Path("/tmp")
_MOST_FOLDERS = 32
"""Mounts for the targets of links; where they lie in more folders than that, the folders around them are mounted."""
_GUARD_FOLDER = "lib/kagglehms-rehearsal"


@dataclass(frozen=True)
class Budget:
    """What a session may use.

    Attributes:
        time_s: after which it is killed; None for the usual limit, of which the kernel then knows by itself.
        disk_bytes: that /kaggle/working may grow to.
    """

    time_s: float | None = None
    disk_bytes: int = 20 * 10**9


@dataclass(frozen=True)
class StagedKernel:
    """A built kernel and its inputs: folders by their path below /kaggle/input.

    Attributes:
        name: of its folder in dist/kernels.
        script: its code.
        inputs: what is mounted where.
        competition: whose test set it meets.
        gpu: whether it asks for one.
    """

    name: str
    script: Path
    inputs: dict[str, Path]
    competition: Path
    gpu: bool

    @property
    def scored(self) -> bool:
        return self.name not in UNSCORED


def read_kernel(
    name: str, dist: Path, competition: Path, layout: Layout, outputs: Path, hidden: Path | None = None
) -> StagedKernel:
    """Find a built kernel and everything that its metadata asks for.

    Args:
        name: of a folder of `dist/kernels`.
        dist: what build.py made.
        competition: the competition's folder.
        layout: of the mounts.
        outputs: where earlier rehearsals have left what their kernels put out, a folder a kernel.
        hidden: a competition folder whose test set takes the place of the competition's own.

    Raises:
        UsageError: no such kernel, or nothing built.
        DataError: no competition there, or the output of a kernel that was never rehearsed.
        RunError: a bundle or a source that this project does not build.
    """
    require_bundle(dist)
    folder = dist / "kernels" / name
    if not (folder / KERNEL_METADATA).is_file():
        known = sorted(path.parent.name for path in (dist / "kernels").glob(f"*/{KERNEL_METADATA}"))
        hint = closest(name, known) if known else "build one with `python build.py`"
        raise UsageError(f"{dist}: holds no kernel {name!r}; {hint}")
    if not Competition(competition).test_csv.is_file():
        hint = unpacking(competition / "test.csv", competition) or "give the competition's folder"
        raise DataError(competition / "test.csv", "no such file", hint)
    metadata = read_template(folder / KERNEL_METADATA)
    bundle_id = read_template(dist / "dataset" / CARD)["id"]
    inputs = {}
    for source in metadata.get("dataset_sources", []):
        if source != bundle_id:
            raise RunError(f"{folder}: asks for the dataset {source}, {dist} holds {bundle_id}; build again")
        owner, _, slug = source.partition("/")
        inputs[dataset_mount(owner, slug, layout)] = dist / "dataset"
    for source in metadata.get("competition_sources", []):
        if source != SLUG:
            raise RunError(
                f"{folder}: asks for the competition {source}, this project knows {SLUG}; build again"
            )
        inputs[competition_mount(source, layout)] = hidden or competition
        for kept in ("train_eegs", "train_spectrograms") if hidden else ():
            if (competition / kept).is_dir():
                inputs[f"{competition_mount(source, layout)}/{kept}"] = competition / kept
    for source in metadata.get("kernel_sources", []):
        owner, _, slug = source.partition("/")
        output = _output_of(source, dist, outputs)
        if output is not None:
            inputs[notebook_mount(owner, slug, layout)] = output
        elif source != metadata["id"]:  # that is there from the second session on
            raise DataError(
                outputs,
                f"has no output of {source}, which the kernel {name} reads",
                "rehearse that one first",
            )
    gpu = metadata.get("enable_gpu") is True
    return StagedKernel(name, folder / metadata["code_file"], inputs, hidden or competition, gpu)


def _output_of(source: str, dist: Path, outputs: Path) -> Path | None:
    """The output of the kernel `owner/slug`, if it has been rehearsed."""
    for path in (dist / "kernels").glob(f"*/{KERNEL_METADATA}"):
        name = path.parent.name
        if name in UNSCORED and read_template(path)["id"] == source and (outputs / name).is_dir():
            return outputs / name
    return None


def lay_out(
    stage: Path, kernel: StagedKernel, isolation: Isolation, budget: Budget, timeout_s: float
) -> Spec:
    """Make the folders of `/kaggle` below `stage` and say how to run the kernel in them."""
    tree, temporary, view = stage / "kaggle", stage / "tmp", stage / "view"
    for folder in (tree / "src", tree / "input", tree / "working", tree / _GUARD_FOLDER, temporary, view):
        folder.mkdir(parents=True)
    shutil.copyfile(kernel.script, tree / "src/script.py")
    shutil.copyfile(guard.__file__, tree / _GUARD_FOLDER / "sitecustomize.py")
    isolated = isolation == "namespaces"
    resolved, targets = resolve_links(kernel.inputs, stage / "resolved") if isolated else (kernel.inputs, [])
    kernel = replace(kernel, inputs=resolved)
    root, temporary_seen = (Path("/kaggle"), Path("/tmp")) if isolated else (tree, temporary)
    binds = _bound(tree, temporary, kernel) if isolated else _linked(tree, kernel)
    return Spec(
        argv=[sys.executable, str(root / "src/script.py")],
        environment=_environment(root, temporary_seen, isolated, kernel, budget),
        folder=str(root / "working"),
        timeout_s=timeout_s,
        report=str(stage / "report.json"),
        new_root=str(view) if isolated else None,
        binds=tuple(binds),
        kept=tuple(sorted({*_needed_below_tmp(), *_few_folders_below_tmp(targets)})),
        hidden=tuple(_to_hide()),
        disk_bytes=budget.disk_bytes,
    )


def _bound(tree: Path, temporary: Path, kernel: StagedKernel) -> list[Bind]:
    binds = [Bind(str(tree / name), f"/kaggle/{name}") for name in ("src", _GUARD_FOLDER)]
    for mount, path in kernel.inputs.items():
        outer = _outer(mount, kernel)
        if outer:  # a folder in a mount needs a place to be mounted at
            (kernel.inputs[outer] / mount.removeprefix(f"{outer}/")).mkdir(exist_ok=True)
        binds.append(Bind(str(path.resolve()), f"/kaggle/input/{mount}"))
    return [*binds, Bind(str(tree / "working"), "/kaggle/working", True), Bind(str(temporary), "/tmp", True)]


def resolve_links(inputs: dict[str, Path], place: Path) -> tuple[dict[str, Path], list[Path]]:
    """Make inputs that lead to the same files wherever they are mounted.

    Links are how git-annex, DVC, a hub's cache or a second disk hold files. Most are relative, and lead nowhere once
    their folder is mounted somewhere else. So a folder with links in it is laid out anew, with links to the files
    themselves; folders without any are left as they are. Links without a target are left out, as the file is missing.

    Args:
        inputs: mount → folder.
        place: a new folder for what is laid out.

    Returns:
        The inputs, and everything that the links in them lead to.
    """
    resolved, targets = {}, list[Path]()
    for number, (mount, path) in enumerate(inputs.items()):
        path = path.resolve()
        if _has_links(path):
            path = _laid_out(path, place / str(number), targets)
        resolved[mount] = path
    return resolved, targets


def _has_links(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            entry.is_symlink() or (entry.is_dir() and _has_links(Path(entry.path))) for entry in entries
        )


def _laid_out(folder: Path, copy: Path, targets: list[Path], around: frozenset[Path] = frozenset()) -> Path:
    """A folder of links to what `folder` holds, however it is linked there; notes where they lead."""
    around |= {folder}
    copy.mkdir(parents=True)
    for entry in sorted(folder.iterdir()):
        target = entry.resolve()
        if target in around or not target.exists():  # a link to a folder around it, or to nothing
            continue
        if target.is_dir() and _has_links(target):
            _laid_out(target, copy / entry.name, targets, around)
        elif target.parent == _TEMPORARY and target.is_file():
            shutil.copyfile(target, copy / entry.name)
        else:
            (copy / entry.name).symlink_to(target, target_is_directory=target.is_dir())
            targets.append(target)
    return copy


def _few_folders_below_tmp(targets: Iterable[Path]) -> Iterator[str]:
    """Yield a few folders of this machine's /tmp, behind the kernel's own, in which the targets of links lie."""
    folders = {t if t.is_dir() else t.parent for t in targets if t.is_relative_to(_TEMPORARY)}
    while True:
        outermost = {folder for folder in folders if folders.isdisjoint(folder.parents)}
        wider = {f if f.parent == _TEMPORARY else f.parent for f in outermost}
        if len(outermost) <= _MOST_FOLDERS or wider == outermost:
            break
        folders = wider
    yield from map(str, sorted(outermost))


def _linked(tree: Path, kernel: StagedKernel) -> list[Bind]:
    for mount, path in kernel.inputs.items():
        place = tree / "input" / mount
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and _outer(mount, kernel):  # of an attempt with real mounts
            place.rmdir()
        place.symlink_to(path.resolve(), target_is_directory=True)
    return []


def _outer(mount: str, kernel: StagedKernel) -> str | None:
    return next((other for other in kernel.inputs if mount.startswith(f"{other}/")), None)


def _environment(
    root: Path, temporary: Path, isolated: bool, kernel: StagedKernel, budget: Budget
) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", **CHILDREN_PRINT}
    if kernel.scored:
        environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    if budget.time_s is not None:
        environment[TIME_LIMIT_VARIABLE] = str(TIME_SHARE * budget.time_s)
    environment |= {
        # A path below a device is one that nobody can make, not even root.
        "HOME": "/nonexistent" if isolated else "/dev/null/home",
        "PYTHONPATH": str(root / _GUARD_FOLDER),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        guard.WITNESS_VARIABLE: str(temporary / WITNESS),
    }
    if not isolated:
        environment |= {ROOT_VARIABLE: str(root), "TMPDIR": str(temporary), guard.GUARD_VARIABLE: "1"}
    if not kernel.gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _needed_below_tmp() -> Iterator[str]:
    """Yield the interpreter's folders that would vanish behind the kernel's own /tmp."""
    for folder in sorted({Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}):
        if folder.is_relative_to("/tmp"):
            yield str(folder)


def _to_hide() -> Iterator[str]:
    """Yield the folders of this machine that Kaggle does not have: the library, and the client's credentials."""
    candidates = [Path(entry or ".") / "kagglehms" for entry in sys.path]
    if (own := home()) is not None:
        candidates += [own / ".kaggle", own / ".config/kaggle"]
    yield from sorted({str(path.resolve()) for path in candidates if path.is_dir()})
