"""The commands around Kaggle and the hub: build, publish, rehearse, preflight, push, status, fetch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kagglehms.cli.command import Result
from kagglehms.cli.data_folder import data_folder
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, UsageError
from kagglehms.timing import Duration, seconds_of

SCORED = ("infer",)
"""The kernels that are meant where none is named."""
DATASET = "dataset"
"""Stands among the kernels to push for no kernel: only the dataset is uploaded."""


@dataclass(frozen=True, kw_only=True)
class Following:
    """What happens to kernels that are pushed.

    Attributes:
        out: folder into which the outputs of pushed kernels are fetched, one folder per kernel.
        no_follow: do not wait for the pushed kernels, and fetch nothing.
        time_limit: let Kaggle stop the pushed kernels after this time, such as `9h` (default: Kaggle's own limit).
    """

    out: Path = Path("outputs")
    no_follow: bool = False
    time_limit: Duration | None = None


@dataclass(frozen=True, kw_only=True)
class Build(Following):
    """Bundle library and weights into DIST: a Kaggle dataset, and the kernels that run it.

    Attributes:
        runs: folder of all runs.
        dist: folder for the bundle and the kernels; what an earlier build left there is replaced.
        recipe: runs to take (default: all, or the members of the blend).
        fold: folds to take of each run, numbered from 0 (default: all that are finished).
        owner: Kaggle user name (default: the Kaggle client's).
        blend: name of the blend by which the recipes are combined (default: their plain mean).
        half: store weights in half precision.
        data: with --half, the competition's folder, to measure what half precision changes (default, if --store is
            given: as for other commands).
        store: with --half, its store (default, if --data is given: store).
        wheels: bring along what the kernels import and Kaggle's image lacks, and these packages.
        onnx: write networks as ONNX files too, each compared with PyTorch's.
        library_only: leave the weights out: what the kernels `prepare` and `train` need.
        push: push these kernels afterwards (`infer` if none is named; `dataset` for none), as `kagglehms push` does.
    """

    runs: Path = Path("runs")
    dist: Path = Path("dist")
    recipe: tuple[str, ...] = ()
    fold: tuple[int, ...] = field(default=(), metadata={"metavar": "K"})
    owner: str | None = None
    blend: str | None = None
    half: bool = False
    data: Path | None = None
    store: Path | None = None
    wheels: tuple[str, ...] | None = field(default=None, metadata={"metavar": "PACKAGE"})
    onnx: bool = False
    library_only: bool = False
    push: tuple[str, ...] | None = field(default=None, metadata={"metavar": "KERNEL"})


def build(options: Build) -> Result:
    """Bundle library and weights for Kaggle, with the kernels."""
    from kagglehms.console import tell
    from kagglehms.kaggle.dist import UNSCORED
    from kagglehms.kaggle.fetch import make_output_folder
    from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER, find_owner
    from kagglehms.packing.build import build
    from kagglehms.packing.description import describe
    from kagglehms.packing.half_precision import HeldOut

    measures = options.data is not None or options.store is not None
    if measures and not options.half:
        raise UsageError("--data and --store belong to --half: they measure what it changes")
    if options.push is not None and options.library_only:
        for name in options.push or SCORED:
            if name not in (*UNSCORED, DATASET):
                raise UsageError(
                    f"--push {name} needs weights, which --library-only leaves out; give --push {' '.join(UNSCORED)}"
                )
    if options.push is not None and not options.no_follow:
        make_output_folder(options.out)
    if options.push is not None and find_owner(options.owner)[0] == PLACEHOLDER_OWNER:
        raise UsageError("--push needs your Kaggle user name, and none is known; give --owner NAME")
    built = build(
        options.runs,
        options.dist,
        options.recipe or None,
        options.fold or None,
        options.owner,
        blend=options.blend,
        half=options.half,
        held_out=HeldOut(data_folder(options.data), options.store or Path("store")) if measures else None,
        wheels=options.wheels,
        library_only=options.library_only,
        onnx=options.onnx,
    )
    tell(describe(built, pushes=options.push is not None))
    content = {
        "dataset": built.dataset,
        "kernels": built.kernels,
        "owner": built.owner,
        "digest": built.manifest.digest,
        "bytes": built.manifest.size,
        "files": built.manifest.files,
        "models": built.manifest.models,
    }
    if options.push is not None:
        content["pushed"] = _push(options.dist, options.push or SCORED, options)
    return Result(content)


@dataclass(frozen=True, kw_only=True)
class Push(Following):
    """Bring a build to Kaggle: check it, upload the dataset if it changed, push kernels, follow them to their end, and
    fetch what they leave.

    Attributes:
        names: kernels of DIST/kernels to push, or `dataset` for none.
        dist: folder that `kagglehms build` made.
    """

    names: tuple[str, ...] = field(default=SCORED, metadata={"positional": True, "metavar": "KERNEL"})
    dist: Path = Path("dist")


def push(options: Push) -> Result:
    """Upload the dataset if it changed, push kernels, fetch their output."""
    return Result(_push(options.dist, options.names, options))


def _push(dist: Path, names: tuple[str, ...], options: Following) -> list[Any]:
    from kagglehms.kaggle.push import push
    from kagglehms.kaggle.service import kaggle

    kernels = [name for name in names if name != DATASET]
    return push(dist, kernels, kaggle(), options.out, not options.no_follow, seconds_of(options.time_limit))


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Bring a built bundle to a model repository of the Hugging Face hub, with its model card.

    `load_bundle("hf:owner/name")` and `kagglehms predict --bundle hf:owner/name` read it from there and compare every
    file with its digest. Log in with `hf auth login` first.

    Attributes:
        place: `hub`, the Hugging Face hub.
        repository: owner and name of the repository, such as `somebody/eeg-votes`; made if it is not there.
        dist: folder that `kagglehms build` made.
        private: let nobody else see a repository that is made.
    """

    place: Literal["hub"] = field(metadata={"positional": True, "metavar": "hub"})
    repository: str = field(metadata={"positional": True, "metavar": "OWNER/NAME"})
    dist: Path = Path("dist")
    private: bool = False


def publish(options: Publish) -> Result:
    """Bring the bundle to the Hugging Face hub, with its model card."""
    from kagglehms.packing.publishing import publish_bundle

    published = publish_bundle(options.dist, options.repository, options.private)
    return Result(published, published.sentence)


@dataclass(frozen=True, kw_only=True)
class Rehearse:
    """Run a built kernel as Kaggle would: offline, in a fake /kaggle, in a process of its own.

    Attributes:
        kernel: kernel of DIST/kernels: `infer`, `train` or `prepare`.
        data: the competition's folder, whose test set `infer` predicts (default: KAGGLEHMS_DATA, or where `kagglehms
            doctor` finds it).
        dist: folder that `kagglehms build` made.
        out: folder for submission.csv and the log, and, in folders of their names, for the output of `train` and
            `prepare`. What lies there is mounted where a kernel asks for it: `prepare`'s store for `train`, and
            `train`'s own last session.
        mounts: how inputs are mounted below /kaggle/input: by `owner` and kind, each by its `slug`, or `all` in turn.
        isolation: `namespaces` (a real /kaggle, read-only input, no network) or the weaker `guard` (default: the
            best that this machine allows).
        hidden: replace the test set by one of this many rows, to see what the hidden one will take.
        hidden_from: competition folder whose test recordings these rows are (default: simulated ones).
        time_limit: kill the kernel after this time, such as `9h` or `90s` (default: Kaggle's, 9 hours for a scored
            kernel and 12 for the others).
        disk_gb: gigabytes that /kaggle/working may take.
    """

    kernel: str = field(metadata={"positional": True, "metavar": "KERNEL"})
    data: Path | None = None
    dist: Path = Path("dist")
    out: Path = Path("rehearsal")
    mounts: Literal["owner", "slug", "all"] = "owner"
    isolation: Literal["namespaces", "guard"] | None = None
    hidden: int | None = None
    hidden_from: Path | None = None
    time_limit: Duration | None = None
    disk_gb: float = 20.0


def rehearse(options: Rehearse) -> Result:
    """Run a built kernel as Kaggle would."""
    from kagglehms.console import tell
    from kagglehms.kernel.mounts import MOUNT_STYLES
    from kagglehms.rehearsal.machine import Budget
    from kagglehms.rehearsal.run import rehearse

    data = data_folder(options.data)
    budget = Budget(seconds_of(options.time_limit), int(options.disk_gb * 1e9))
    reports = []
    for mounts in MOUNT_STYLES if options.mounts == "all" else (options.mounts,):
        report = rehearse(
            options.kernel,
            options.dist,
            data,
            options.out,
            mounts,
            budget,
            options.isolation,
            options.hidden,
            options.hidden_from,
        )
        for line in report.lines:
            tell(line)
        reports.append(report)
    return Result(reports, exit_code=max(report.exit_code for report in reports))


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """Check a build against every known rule of Kaggle and its client, before a push.

    All findings are listed at once, each with what to do about it; the exit code is 1 if there are any.

    Attributes:
        dist: folder that `kagglehms build` made.
    """

    dist: Path = Path("dist")


def preflight(options: Preflight) -> Result:
    """Check what is to be pushed, all rules at once."""
    from kagglehms.kaggle.preflight import preflight

    report = preflight(options.dist)
    return Result(json.loads(report.to_json()), report.text, report.exit_code)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Say how the dataset and the kernels of a build stand on Kaggle.

    The exit code is 1 if the dataset is not of this build or a kernel failed.

    Attributes:
        dist: folder that `kagglehms build` made.
    """

    dist: Path = Path("dist")


def status(options: Status) -> Result:
    """Say how dataset and kernels stand on Kaggle."""
    from kagglehms.console import tell
    from kagglehms.kaggle.service import kaggle
    from kagglehms.kaggle.status import status

    items = status(options.dist, replace(kaggle(), say=tell))
    return Result(items, exit_code=EXIT_OK if all(item.ok for item in items) else EXIT_FAILURE)


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Fetch the outputs and logs of kernels from Kaggle.

    Attributes:
        names: kernels of DIST/kernels.
        dist: folder that `kagglehms build` made.
        out: folder for the outputs, one folder per kernel.
        wait: wait for the end of a kernel that still runs.
    """

    names: tuple[str, ...] = field(default=SCORED, metadata={"positional": True, "metavar": "KERNEL"})
    dist: Path = Path("dist")
    out: Path = Path("outputs")
    wait: bool = False


def fetch(options: Fetch) -> Result:
    """Fetch what kernels on Kaggle left."""
    from kagglehms.kaggle.fetch import fetch_all
    from kagglehms.kaggle.service import kaggle

    return Result(fetch_all(options.dist, options.names, options.out, kaggle(), options.wait))
