"""The bundle as a dataset on Kaggle: uploaded if it is not there already, and waited for until kernels will see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kagglehms.bundle.manifest import CARD, MANIFEST, Manifest, manifest_from_json, read_manifest
from kagglehms.errors import BundleError, RunError
from kagglehms.kaggle.client import ClientError, DatasetState, KaggleClient

T = TypeVar("T")
_FAILED = {"failed", "deleted"}


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
        before = _wait_until_ready(ref, 0, kaggle, kaggle.patience.ready_s)
    if before.status == "ready" and difference(manifest, ref, kaggle) is None:
        kaggle.say(f"dataset {ref}: version {before.version} is this bundle, nothing to upload")
        return False
    note = (
        None if before.status == "absent" else f"{manifest.digest[:12]} kagglehms {manifest.library.version}"
    )
    names = [*manifest.files, MANIFEST]
    if kaggle.do(lambda: kaggle.client.upload(dataset, note, names)):
        ready_s = kaggle.patience.ready_s
        kaggle.say(
            f"dataset {ref}: {len(names)} files sent, waiting until the new version is ready and complete"
        )
    else:
        ready_s = min(kaggle.patience.confirm_s, kaggle.patience.ready_s)
        kaggle.say(
            f"dataset {ref}: the client does not say whether a new version is being made, looking for it"
        )
    _wait_for_new_version(manifest, ref, before.version, kaggle, ready_s)
    return True


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


def _wait_until_ready(ref: str, newer_than: int, kaggle: Kaggle, ready_s: float) -> DatasetState:
    start = time.monotonic()
    while True:
        state = kaggle.ask(lambda: kaggle.client.dataset(ref))
        if state.status == "ready" and state.version > newer_than:
            return state
        if state.status in _FAILED and state.version > newer_than:
            raise RunError(
                f"dataset {ref}: version {state.version} is {state.status}; see its page, push again"
            )
        if state.version > newer_than:
            ready_s = kaggle.patience.ready_s  # it is on its way
        if time.monotonic() - start >= ready_s:
            raise RunError(
                f"dataset {ref} is {state.status} at version {state.version} after {ready_s:.0f} s, no "
                "kernel was pushed; push again later, what has arrived is not uploaded twice"
            )
        time.sleep(kaggle.patience.poll_s)


def _wait_for_new_version(manifest: Manifest, ref: str, before: int, kaggle: Kaggle, ready_s: float) -> None:
    """A version that is not ready yet is not mounted: kernels would silently get the one before."""
    state, start = _wait_until_ready(ref, before, kaggle, ready_s), time.monotonic()
    while (other := difference(manifest, ref, kaggle)) is not None:
        if time.monotonic() - start >= kaggle.patience.confirm_s:
            raise RunError(
                f"dataset {ref}: version {state.version} is ready, but it is not this bundle ({other}); no kernel was "
                "pushed; push again"
            )
        time.sleep(kaggle.patience.poll_s)
    kaggle.say(f"dataset {ref}: version {state.version} is ready, digest {manifest.digest[:12]}")
