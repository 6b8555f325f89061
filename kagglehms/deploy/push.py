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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kagglehms.data.competition import SLUG, VOTE_COLUMNS
from kagglehms.deploy.client import ClientError, DatasetState, KaggleClient, KernelState
from kagglehms.deploy.metadata import UNSCORED
from kagglehms.deploy.preflight import choose_kernels, kernel_folders, preflight
from kagglehms.deploy.stamping import KERNEL_METADATA, read_template
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, BundleError, HMSError, RunError
from kagglehms.inference.manifest import CARD, MANIFEST, Manifest, manifest_from_json, read_manifest
from kagglehms.runtime import say, write_bytes

T = TypeVar("T")
LEFT_THERE = ("prepare",)
"""Kernels whose output is large and needed on Kaggle only; `kagglehms fetch` brings it all the same."""
_FAILED = {"failed", "deleted"}


class SessionError(RunError):
    """A kernel's session that did not end well."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds.

    Attributes:
        poll_s: between two questions.
        ready_s: for a new version of the dataset.
        confirm_s: for its manifest and files to be those of the bundle, once it is ready.
        run_s: for a kernel's session, queueing included.
        settle_s: how long the end of an older session may still be shown after a push.
        tries: of a call that fails in a way that may pass.
        backoff_s: before the second try; doubled each time.
    """

    poll_s: float = 15.0
    ready_s: float = 3600.0
    confirm_s: float = 300.0
    run_s: float = 13 * 3600.0
    settle_s: float = 90.0
    tries: int = 5
    backoff_s: float = 10.0


@dataclass(frozen=True)
class Kaggle:
    """The client with the patience to use it.

    Attributes:
        client: makes the calls.
        patience: see `Patience`.
        say: told each step, one line each.
    """

    client: KaggleClient
    patience: Patience
    say: Callable[[str], None]

    def ask(self, question: Callable[[], T]) -> T:
        """Make a call that changes nothing; failures that may pass are tried again."""
        return self._again(question, lambda error: error.transient)

    def do(self, action: Callable[[], T]) -> T:
        """Make a call that changes something: tried again only where it was refused for there being too many."""
        return self._again(action, lambda error: error.limited)

    def _again(self, call: Callable[[], T], may_pass: Callable[[ClientError], bool]) -> T:
        wait_s = self.patience.backoff_s
        for left in reversed(range(self.patience.tries)):
            try:
                return call()
            except ClientError as error:
                if not left or not may_pass(error):
                    raise
                self.say(f"{error}; trying again in {wait_s:.0f} s")
                time.sleep(wait_s)
                wait_s *= 2
        raise AssertionError("unreachable")


def kaggle(patience: Patience | None = None) -> Kaggle:
    """The client of this machine, for a person who looks on."""
    return Kaggle(KaggleClient(say), patience or Patience(), say)


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
        RunError: preflight found something, or Kaggle did not do what it was asked.
        ClientError: the same, with the client's words.
    """
    folders = choose_kernels(dist, list(kernels))
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
        with _pushable(folder, before is None) as source:
            pushed = kaggle.do(lambda source=source: kaggle.client.push_kernel(source, limit_s))  # type: ignore[misc]
        kaggle.say(f"kernel {ref}: version {pushed.version} pushed, {pushed.url}")
        if follow:
            follow_kernel(ref, kaggle, stale=before)
            if folder.name in LEFT_THERE:
                kaggle.say(
                    f"kernel {ref}: its output stays on Kaggle, where the kernels that follow mount it"
                )
            else:
                fetch(folder, out, kaggle)
        if folder.name not in UNSCORED:
            kaggle.say(
                f"submit it: kaggle competitions submit {SLUG} -f submission.csv -k {ref} -v {pushed.version} "
                f"-m {(report.digest or '')[:12]}"
            )


def upload(dataset: Path, ref: str, kaggle: Kaggle) -> bool:
    """Upload the bundle unless Kaggle has it, and wait until its kernels will see it.

    Returns:
        Whether anything was uploaded.

    Raises:
        ClientError: the upload failed.
        RunError: the new version failed, or was not ready in time.
    """
    manifest = read_manifest(dataset)
    before = kaggle.ask(lambda: kaggle.client.dataset(ref))
    if before.status not in {"absent", "ready", *_FAILED}:
        before = _wait_until_ready(ref, 0, kaggle)
    if before.status == "ready" and difference(manifest, ref, kaggle) is None:
        kaggle.say(f"dataset {ref}: version {before.version} is this bundle, nothing to upload")
        return False
    note = (
        None if before.status == "absent" else f"{manifest.digest[:12]} kagglehms {manifest.library.version}"
    )
    names = [*manifest.files, MANIFEST]
    kaggle.do(lambda: kaggle.client.upload(dataset, note, names))
    kaggle.say(f"dataset {ref}: {len(names)} files uploaded, waiting until the new version is ready")
    _wait_for_new_version(manifest, ref, before.version, kaggle)
    return True


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
        RunError: a scored kernel left no submission, or something else under its name.
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
    """Say how dataset and kernels stand; returns the exit code: 1 if something failed or is not of this build."""
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


def difference(manifest: Manifest, ref: str, kaggle: Kaggle) -> str | None:
    """Say how a dataset's current version differs from a bundle, or that it cannot be looked at; None if it is it.

    Its manifest is fetched and its files are listed: an upload that was dropped leaves a version with the right
    manifest and without a file.
    """
    client = kaggle.client
    try:
        there = manifest_from_json(kaggle.ask(lambda: client.dataset_manifest(ref)), f"{ref}/{MANIFEST}")
        listed = kaggle.ask(lambda: client.dataset_files(ref))
    except (ClientError, BundleError) as error:
        return str(error)
    if there.digest != manifest.digest:
        return f"digest {there.digest[:12]} there, {manifest.digest[:12]} here"
    if _without_commit(there) != _without_commit(manifest):
        return "another manifest of the same files"
    sizes = {name: file.size for name, file in manifest.files.items()}
    wrong = [name for name, size in sizes.items() if listed.get(name) != size]
    wrong += [name for name in listed if name not in sizes and name not in {MANIFEST, CARD}]
    return f"missing, extra or of another size: {', '.join(wrong)}" if wrong else None


def _without_commit(manifest: Manifest) -> Manifest:
    """The commit says nothing that the digest does not: documentation has commits too."""
    return replace(manifest, library=replace(manifest.library, commit=None))


def _wait_until_ready(ref: str, newer_than: int, kaggle: Kaggle) -> DatasetState:
    start = time.monotonic()
    while True:
        state = kaggle.ask(lambda: kaggle.client.dataset(ref))
        if state.status == "ready" and state.version > newer_than:
            return state
        if state.status in _FAILED and state.version > newer_than:
            raise RunError(
                f"dataset {ref}: version {state.version} is {state.status}; see its page, push again"
            )
        if time.monotonic() - start >= kaggle.patience.ready_s:
            raise RunError(
                f"dataset {ref} is {state.status} at version {state.version} after {kaggle.patience.ready_s:.0f} s, no "
                "kernel was pushed; push again later, what has arrived is not uploaded twice"
            )
        time.sleep(kaggle.patience.poll_s)


def _wait_for_new_version(manifest: Manifest, ref: str, before: int, kaggle: Kaggle) -> None:
    """A version that is not ready yet is not mounted: kernels would silently get the one before."""
    state, start = _wait_until_ready(ref, before, kaggle), time.monotonic()
    while (other := difference(manifest, ref, kaggle)) is not None:
        if time.monotonic() - start >= kaggle.patience.confirm_s:
            raise RunError(
                f"dataset {ref}: version {state.version} is ready, but it is not this bundle ({other}); no kernel was "
                "pushed; push again"
            )
        time.sleep(kaggle.patience.poll_s)
    kaggle.say(f"dataset {ref}: version {state.version} is ready, digest {manifest.digest[:12]}")


def _check_submission(path: Path, names: Sequence[str]) -> None:
    """The client writes whatever a download answers, an error page as well."""
    if not path.is_file():
        raise RunError(f"{path}: the kernel left no submission, only {', '.join(names)}; read its log")
    with path.open("rb") as file:
        header = file.readline().decode("utf-8", "replace").strip()
    if header != ",".join(("eeg_id", *VOTE_COLUMNS)):
        raise RunError(f"{path}: is no submission, it begins with {json.dumps(header[:60])}; fetch it again")
