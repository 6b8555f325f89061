"""From a build to finished kernels on Kaggle: upload if something changed, wait, push, follow, fetch.

A step counts as done only when its result has been seen: a new version of the dataset when Kaggle lists its files and
returns its manifest, a kernel when its session has ended well, an output when its files have arrived.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kagglehms.data.competition import SLUG
from kagglehms.errors import RunError, counted
from kagglehms.files import write_bytes
from kagglehms.kaggle.dist import UNSCORED, choose_kernels, kernel_ref
from kagglehms.kaggle.fetch import fetch, make_output_folder, see_through
from kagglehms.kaggle.preflight import preflight
from kagglehms.kaggle.service import Kaggle
from kagglehms.kaggle.sessions import last_session
from kagglehms.kaggle.stamping import KERNEL_METADATA, read_template
from kagglehms.kaggle.upload import upload
from kagglehms.kernel.marker import MARKER, Marker

LEFT_THERE = ("prepare",)
"""Kernels whose output is large and needed on Kaggle only; a push leaves it there, `kagglehms fetch` brings it."""


@dataclass(frozen=True)
class PushedKernel:
    """A kernel that was pushed.

    Attributes:
        name: name of its folder in `dist/kernels`.
        ref: its owner/slug.
        version: version number that Kaggle gave it.
        url: address of that version's page.
    """

    name: str
    ref: str
    version: int
    url: str


def push(
    dist: Path,
    kernels: Sequence[str],
    kaggle: Kaggle,
    out: Path,
    follow: bool = True,
    time_limit_s: float | None = None,
) -> list[PushedKernel]:
    """Bring a build to Kaggle and see it through.

    Args:
        dist: folder of the build.
        kernels: names of the kernels to push; none uploads the dataset only.
        kaggle: service to use.
        out: folder for the outputs, one folder per kernel.
        follow: whether to wait for each kernel's end and fetch its output before the next is pushed.
        time_limit_s: seconds after which Kaggle stops a session; None for Kaggle's own limit.

    Returns:
        The kernels that were pushed, in order.

    Raises:
        UsageError: a kernel is unknown, or the folder for outputs cannot be written.
        RunError: preflight found something, or Kaggle did not do what it was asked to do.
        ClientError: the same, with the client's words.
    """
    folders = choose_kernels(dist, kernels)
    if folders and follow:
        make_output_folder(out)
    report = preflight(dist)
    kaggle.say(report.text)
    if not report.ok or report.dataset is None:  # which is a finding
        raise RunError(
            f"{counted(len(report.causes), 'finding')} in {dist}, nothing was uploaded; fix them and push again"
        )
    upload(dist / "dataset", report.dataset, kaggle)
    done: list[PushedKernel] = []
    for folder in folders:
        before = last_session(kernel_ref(folder), kaggle)
        pushed = _push_kernel(folder, kaggle, time_limit_s, first=before is None)
        done.append(pushed)
        if follow:
            see_through(folder, out, kaggle, before)
            _fetch_unless_left_there(folder, out, kaggle)
        if folder.name not in UNSCORED:
            command = (
                f"kaggle competitions submit {SLUG} -f submission.csv -k {pushed.ref} -v {pushed.version} "
            )
            kaggle.say(f"{_advice(folder, out, follow)}: {command}-m {(report.digest or '')[:12]}")
    return done


def _push_kernel(folder: Path, kaggle: Kaggle, time_limit_s: float | None, first: bool) -> PushedKernel:
    ref = kernel_ref(folder)
    _check_sources(folder, kaggle)
    with _pushable(folder, first) as source:
        pushed = kaggle.do(lambda: kaggle.client.push_kernel(source, time_limit_s))
    kaggle.say(f"kernel {ref}: version {pushed.version} pushed, {pushed.url}")
    return PushedKernel(folder.name, ref, pushed.version, pushed.url)


def _fetch_unless_left_there(folder: Path, out: Path, kaggle: Kaggle) -> None:
    if folder.name in LEFT_THERE:
        ref = kernel_ref(folder)
        kaggle.say(f"kernel {ref}: its output stays on Kaggle, where the kernels that follow mount it")
    else:
        fetch(folder, out, kaggle)


def _check_sources(folder: Path, kaggle: Kaggle) -> None:
    """Refuse to push a kernel before the kernels whose output it reads; Kaggle would push it without that input."""
    metadata = read_template(folder / KERNEL_METADATA)
    owner = metadata["id"].partition("/")[0]
    for source in metadata.get("kernel_sources", []):
        if source == metadata["id"] or not source.startswith(f"{owner}/"):
            continue
        state = last_session(source, kaggle)
        if state is None or not state.ended_well:
            stands = "was never pushed" if state is None else f"is {state.status}"
            raise RunError(
                f"kernel {folder.name} reads the output of {source}, which {stands}; push that one first and let it "
                "end, or remove it from kernel_sources"
            )


@contextlib.contextmanager
def _pushable(folder: Path, first: bool) -> Iterator[Path]:
    """Yield the folder to push a kernel from.

    The training kernel mounts its own latest output to continue from it, so its first push must not ask for it.

    Args:
        folder: folder of the built kernel.
        first: whether the kernel has never been pushed.
    """
    metadata = read_template(folder / KERNEL_METADATA)
    others = [source for source in metadata.get("kernel_sources", []) if source != metadata["id"]]
    if not first or others == metadata.get("kernel_sources", []):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / folder.name))
        write_bytes(copy / KERNEL_METADATA, json.dumps(metadata | {"kernel_sources": others}).encode())
        yield copy


def _advice(folder: Path, out: Path, followed: bool) -> str:
    """Return what to know before a submission is spent on a run."""
    if not followed:
        return f"once `kagglehms fetch {folder.name} --wait` finds nothing wrong with it, submit it"
    if Marker.read(out / folder.name) is None:
        return f"there is no {MARKER} to say what it is made from; look at it, then submit it"
    return "submit it"
