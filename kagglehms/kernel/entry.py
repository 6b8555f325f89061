"""The functions that the scripts in `kernels/` call, once they have made the library of the bundle importable.

Importing this and `infer` need only the standard library: packages that cannot be imported cost no submission.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kagglehms
from kagglehms.console import open_streams, visible
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError
from kagglehms.kernel.mounts import find_competition, find_output
from kagglehms.kernel.protocol import TIME_LIMIT_S, Task
from kagglehms.kernel.supervisor import supervise
from kagglehms.timing import seconds_of

if TYPE_CHECKING:
    from kagglehms.data.workers import Workers

TIME_LIMIT_VARIABLE = "KAGGLEHMS_TIME_LIMIT"
"""Environment variable with which a rehearsal replaces a kernel's own time limit, a duration such as `8.5h`."""

PREPARE_KERNEL, TRAIN_KERNEL = "kagglehms-prepare", "kagglehms-train"
"""Slugs of the kernels whose output the training kernel reads."""
STORE = "store"
"""Folder of the decoded recordings in the output of the first."""


def infer(root: Path, bundle: Path, digest: str, scratch: Path) -> int:
    """Score the test set of the mounted competition with the models of the mounted bundle.

    Args:
        root: `/kaggle`, or a folder used in its place in a rehearsal.
        bundle: folder in which the bundle is mounted.
        digest: digest of the bundle that this kernel was built with; any other is refused.
        scratch: folder for files that are not output.

    Returns:
        0 if nothing failed; errors have been printed. Either way the output is `working/submission.csv` below `root`,
        and `working/scored-run.json` says what it was made from.
    """
    _begin()
    try:
        competition = find_competition(root)
        print(f"competition {competition}", flush=True)
        task = Task(
            bundle=str(bundle),
            competition=str(competition),
            out=str(root / "working"),
            digest=digest,
            time_limit_s=time_limit_s(TIME_LIMIT_S),
            scratch=str(scratch),
        )
        return supervise(task)
    except HMSError as error:
        return _failed(error)
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE


def time_limit_s(usual_s: float) -> float:
    """Return the seconds that a kernel gives itself: `usual_s`, or the limit set by a rehearsal."""
    return seconds_of(os.environ.get(TIME_LIMIT_VARIABLE)) or usual_s


def _begin() -> None:
    open_streams(unfailing=True)
    print(f"kagglehms {kagglehms.__version__} from {Path(kagglehms.__file__).parent}", flush=True)


def prepare(root: Path, bundle: Path, digest: str) -> int:
    """Decode every recording of the mounted competition into `working/store` below `root`.

    Returns:
        0, or the exit code of what went wrong, which has been printed as one line.
    """
    _begin()
    from kagglehms.data.preparing import prepare_competition

    try:
        _verify(bundle, digest)
        prepare_competition(find_competition(root), root / "working" / STORE, _workers())
    except HMSError as error:
        return _failed(error)
    return EXIT_OK


def train(
    root: Path,
    bundle: Path,
    digest: str,
    scratch: Path,
    owner: str,
    recipes: Sequence[str],
    options: Mapping[str, Any],
) -> int:
    """Train recipes into `working/runs` below `root`, as far as the session's time goes, on all GPUs that work.

    What the kernel's previous version has put out is taken over where it is mounted. The store is that of the kernel
    `prepare`; where that is not mounted, recordings are decoded into `scratch` first.

    Args:
        root: `/kaggle`, or the folder that stands for it in a rehearsal.
        bundle: where the bundle is mounted.
        digest: of the bundle that this kernel was built with.
        scratch: a folder for what is not output.
        owner: of the kernels whose output may be mounted.
        recipes: by name, in this order.
        options: options of `kagglehms train`, by name, other than those that say where something lies.

    Returns:
        0 when nothing failed, which includes that something is left for the next session. Unknown recipes or options
        end it at once.
    """
    start = time.monotonic()
    _begin()
    from kagglehms.data.preparing import prepare_competition
    from kagglehms.kernel.training_session import RUNS, TIME_LIMIT_S, train_in_session, training_options

    try:
        checked = training_options(recipes, options)
        _verify(bundle, digest)
        competition = find_competition(root)
        store = _output(root, owner, PREPARE_KERNEL, STORE)
        if store is None:
            store = scratch / STORE
            prepare_competition(competition, store, _workers())
        checked = replace(
            checked,
            data=competition,
            store=store,
            runs=root / "working" / RUNS,
            resume_from=_output(root, owner, TRAIN_KERNEL, RUNS),
        )
        usual_s = TIME_LIMIT_S if checked.time_limit is None else seconds_of(checked.time_limit)
        left_s = time_limit_s(usual_s) - (time.monotonic() - start)
        return train_in_session(recipes, checked, left_s, _usable_gpus())
    except HMSError as error:
        return _failed(error)


def _workers() -> Workers:
    """Mounts give several times more to many readers than to a few."""
    from kagglehms.data.workers import Workers
    from kagglehms.environment import available_cpus

    return Workers(jobs=4 * available_cpus())


def _verify(bundle: Path, digest: str) -> None:
    from kagglehms.bundle.manifest import read_manifest, verify

    manifest = read_manifest(bundle)
    verify(bundle, manifest, digest)
    print(f"bundle {bundle}: digest {digest[:12]} verified", flush=True)


def _output(root: Path, owner: str, kernel: str, name: str) -> Path | None:
    """A folder of another kernel's output, if it is mounted and has it."""
    output = find_output(root, owner, kernel)
    return output / name if output is not None and (output / name).is_dir() else None


def _usable_gpus() -> int:
    """GPUs to train on: all or none."""
    import torch

    from kagglehms.device import choose_device

    return torch.cuda.device_count() if choose_device().name == "cuda" else 0


def _failed(error: HMSError) -> int:
    print(f"error: {visible(str(error))}", file=sys.stderr, flush=True)
    return error.exit_code
