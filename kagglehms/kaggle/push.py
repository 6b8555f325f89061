"""From `dist/` to a finished kernel on Kaggle: upload if something changed, wait, push, follow, fetch.

Each step is believed only when its result has been seen: the new version of the dataset when Kaggle lists its files and
returns its manifest, a kernel when its session has ended well, outputs when they are here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kagglehms.bundle.manifest import CARD, read_manifest
from kagglehms.console import say
from kagglehms.data.competition import SLUG, VOTE_COLUMNS
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError, UsageError
from kagglehms.files import write_bytes
from kagglehms.kaggle.client import ClientError, KaggleClient, KernelState
from kagglehms.kaggle.metadata import UNSCORED
from kagglehms.kaggle.preflight import choose_kernels, kernel_folders, preflight, require_bundle
from kagglehms.kaggle.stamping import KERNEL_METADATA, read_template
from kagglehms.kaggle.upload import Kaggle, Patience, difference, upload
from kagglehms.kernel.marker import MARKER, Marker

LEFT_THERE = ("prepare",)
"""Kernels whose output is large and needed on Kaggle only; `kagglehms fetch` brings it all the same."""


class SessionError(RunError):
    """A kernel's session that did not end well."""


def kaggle(patience: Patience | None = None) -> Kaggle:
    """The client of this machine, for a person who looks on."""
    return Kaggle(KaggleClient(say), patience or Patience(), say)


def make_output_folder(out: Path) -> None:
    """Make sure that outputs can be fetched into `out`, before hours have passed.

    Raises:
        UsageError: they cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); give another folder") from error


def push(
    dist: Path,
    kernels: Sequence[str],
    kaggle: Kaggle,
    out: Path,
    follow: bool = True,
    limit_s: int | None = None,
) -> None:
    """Bring what `build.py` made to Kaggle and see it through.

    Args:
        dist: what it made.
        kernels: names of those to push; none uploads the dataset only.
        kaggle: how.
        out: folder of the fetched outputs, one folder per kernel.
        follow: wait for each kernel's end and fetch its output before the next is pushed.
        limit_s: seconds after which Kaggle stops a session.

    Raises:
        UsageError: unknown kernels, or a folder of outputs that cannot be written.
        RunError: preflight found something, or Kaggle did not do what it was asked.
        ClientError: the same, with the client's words.
    """
    folders = choose_kernels(dist, list(kernels))
    if folders and follow:
        make_output_folder(out)
    report = preflight(dist)
    kaggle.say(report.text)
    if not report.ok:
        raise RunError(
            f"{len(report.findings)} finding(s) in {dist}, nothing was uploaded; mend them and push again"
        )
    upload(dist / "dataset", report.dataset, kaggle)
    for folder in folders:
        ref = kernel_ref(folder)
        before = _state_or_none(ref, kaggle)
        _check_sources(folder, kaggle)
        with _pushable(folder, before is None) as source:
            pushed = kaggle.do(lambda source=source: kaggle.client.push_kernel(source, limit_s))  # type: ignore[misc]
        kaggle.say(f"kernel {ref}: version {pushed.version} pushed, {pushed.url}")
        if follow:
            _follow(folder, out, kaggle, before)
            if folder.name in LEFT_THERE:
                kaggle.say(
                    f"kernel {ref}: its output stays on Kaggle, where the kernels that follow mount it"
                )
            else:
                fetch(folder, out, kaggle)
        if folder.name not in UNSCORED:
            command = f"kaggle competitions submit {SLUG} -f submission.csv -k {ref} -v {pushed.version} "
            kaggle.say(f"{_when(folder, out, follow)}: {command}-m {(report.digest or '')[:12]}")


def follow_kernel(ref: str, kaggle: Kaggle, stale: KernelState | None = None) -> None:
    """Wait for the end of a kernel's session.

    Args:
        ref: owner/slug.
        kaggle: how.
        stale: the state before the push: while nothing else has been seen, its end may be that of the older session.

    Raises:
        SessionError: it failed or was cancelled.
        RunError: it did not end in time.
    """
    start, shown, moved = time.monotonic(), "", stale is None or not stale.ended
    while True:
        state = kaggle.ask(lambda: kaggle.client.kernel(ref))
        passed_s = time.monotonic() - start
        moved = moved or not state.ended or passed_s >= kaggle.patience.settle_s
        if state.status != shown and moved:
            shown = state.status
            kaggle.say(f"kernel {ref}: {shown} after {passed_s:.0f} s")
        if moved and state.ended:
            if state.status != "COMPLETE":
                reason = state.failure or "no reason given"
                raise SessionError(
                    f"kernel {ref} ended as {state.status}: {reason}; `kaggle kernels logs {ref}` says more"
                )
            return
        if passed_s >= kaggle.patience.run_s:
            raise RunError(
                f"kernel {ref} is {state.status} after {passed_s:.0f} s; `kagglehms fetch --wait` goes on waiting"
            )
        time.sleep(kaggle.patience.poll_s)


def fetch(folder: Path, out: Path, kaggle: Kaggle, ended_well: bool = True) -> list[Path]:
    """Fetch a kernel's output and log into `out/<kernel>`, in the place of what was there.

    Args:
        folder: of the built kernel.
        out: folder of all outputs.
        kaggle: how.
        ended_well: whether a scored kernel has to have left a submission.

    Raises:
        ClientError: nothing came.
        RunError: a scored kernel left no submission, or something else under its name, or its marker says that the
            submission is not worth one; what was fetched is there all the same.
    """
    target, ref = out / folder.name, kernel_ref(folder)
    out.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=out))
    try:
        files = kaggle.ask(lambda: kaggle.client.kernel_output(ref, stage))
        names = sorted(path.relative_to(stage).as_posix() for path in files)
        if target.exists():
            target.rename(stage.with_suffix(".old"))
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(stage.with_suffix(".old"), ignore_errors=True)
    if ended_well and folder.name not in UNSCORED:
        _check_submission(target / "submission.csv", names)
        _check_marker(target)
    kaggle.say(f"kernel {ref}: {len(names)} file(s) in {target}: {', '.join(names[:8])}")
    return [target / name for name in names]


def fetch_all(dist: Path, names: Sequence[str], out: Path, kaggle: Kaggle, wait: bool = False) -> None:
    """Fetch the outputs of kernels that have ended well.

    Args:
        dist: what `build.py` made.
        names: of its kernels.
        out: folder of all outputs.
        kaggle: how.
        wait: for those that still run.

    Raises:
        RunError: a kernel still runs, or failed, or see `fetch`.
    """
    for folder in choose_kernels(dist, list(names)):
        ref = kernel_ref(folder)
        state = kaggle.ask(lambda ref=ref: kaggle.client.kernel(ref))  # type: ignore[misc]
        if not (state.ended or wait):
            raise RunError(f"kernel {ref} is {state.status}; give --wait to wait for its end")
        _follow(folder, out, kaggle)
        fetch(folder, out, kaggle)


def _follow(folder: Path, out: Path, kaggle: Kaggle, stale: KernelState | None = None) -> None:
    """Follow a kernel; what a failed session left is fetched as far as it can be, its log says most."""
    try:
        follow_kernel(kernel_ref(folder), kaggle, stale)
    except SessionError:
        with contextlib.suppress(HMSError):
            fetch(folder, out, kaggle, ended_well=False)
        raise


def report_status(dist: Path, kaggle: Kaggle) -> int:
    """Say how dataset and kernels stand; returns the exit code: 1 if something failed or is not of this build.

    Raises:
        UsageError: nothing was built.
        ClientError: Kaggle does not answer.
    """
    require_bundle(dist)
    dataset, code = dist / "dataset", EXIT_OK
    ref = read_template(dataset / CARD)["id"]
    manifest = read_manifest(dataset)
    state = kaggle.ask(lambda: kaggle.client.dataset(ref))
    other = difference(manifest, ref, kaggle) if state.status == "ready" else "not ready"
    what = "it is this build" if other is None else f"not this build ({other})"
    kaggle.say(f"dataset {ref}: {state.status}, version {state.version}, {what}")
    code = code if other is None else EXIT_FAILURE
    for folder in kernel_folders(dist):
        try:
            kernel = kaggle.ask(lambda folder=folder: kaggle.client.kernel(kernel_ref(folder)))  # type: ignore[misc]
        except ClientError as error:
            kaggle.say(f"kernel {kernel_ref(folder)}: {error}")
            continue
        kaggle.say(
            f"kernel {kernel_ref(folder)}: {kernel.status}{f', {kernel.failure}' if kernel.failure else ''}"
        )
        code = EXIT_FAILURE if kernel.ended and kernel.status != "COMPLETE" else code
    return code


def kernel_ref(folder: Path) -> str:
    """owner/slug of a built kernel."""
    return str(read_template(folder / KERNEL_METADATA)["id"])


def _state_or_none(ref: str, kaggle: Kaggle) -> KernelState | None:
    """A kernel that was never pushed has no state."""
    try:
        return kaggle.ask(lambda: kaggle.client.kernel(ref))
    except ClientError as error:
        if error.unknown:
            return None
        raise


def _check_sources(folder: Path, kaggle: Kaggle) -> None:
    """Kaggle pushes a kernel without an input that it does not know, and only says so."""
    metadata = read_template(folder / KERNEL_METADATA)
    owner = metadata["id"].partition("/")[0]
    for source in metadata.get("kernel_sources", []):
        if source == metadata["id"] or not source.startswith(f"{owner}/"):
            continue
        state = _state_or_none(source, kaggle)
        if state is None or state.status != "COMPLETE":
            stands = "was never pushed" if state is None else f"is {state.status}"
            raise RunError(
                f"kernel {folder.name} reads the output of {source}, which {stands}; push that first and let it end, "
                "or take it out of kernel_sources"
            )


@contextlib.contextmanager
def _pushable(folder: Path, first: bool) -> Iterator[Path]:
    """The folder to push a kernel from.

    One that mounts its own latest output, as training does to go on from it, cannot do so before it has any.
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


def _check_submission(path: Path, names: Sequence[str]) -> None:
    """The client writes whatever a download answers, an error page as well."""
    if not path.is_file():
        raise RunError(f"{path}: the kernel left no submission, only {', '.join(names)}; read its log")
    with path.open("rb") as file:
        header = file.readline().decode("utf-8", "replace").strip()
    if header != ",".join(("eeg_id", *VOTE_COLUMNS)):
        raise RunError(f"{path}: is no submission, it begins with {json.dumps(header[:60])}; fetch it again")


def _check_marker(target: Path) -> None:
    """A session that ended well may have predicted nothing: what its submission is made of stands in its marker."""
    marker = Marker.read(target)
    if marker is not None and (marker.problems or marker.status == "prior"):
        why = "; ".join(marker.problems[:3]) or "no model took part"
        raise RunError(f"{target / MARKER}: the run failed, do not submit it: {why}")


def _when(folder: Path, out: Path, followed: bool) -> str:
    """What has to be known before a submission is spent on a run."""
    if not followed:
        return f"once `kagglehms fetch {folder.name} --wait` finds nothing wrong with it, submit it"
    if Marker.read(out / folder.name) is None:
        return f"nothing says what it is made of, there is no {MARKER}; look at it, then submit it"
    return "submit it"
