"""Uploads the bundle as a dataset if Kaggle does not have it yet, and waits until kernels will mount it."""

from __future__ import annotations

import time
from pathlib import Path

from kagglehms.bundle.manifest import CARD, MANIFEST, Manifest, manifest_from_json, read_manifest
from kagglehms.errors import BundleError, RunError, counted
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.client import DatasetState
from kagglehms.kaggle.service import Kaggle

_FAILED = {"failed", "deleted"}


def upload(dataset: Path, ref: str, kaggle: Kaggle) -> bool:
    """Upload the bundle unless Kaggle has it, and wait until kernels will mount it.

    Args:
        dataset: folder of the bundle.
        ref: owner/slug of the dataset.
        kaggle: service to use.

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
            f"dataset {ref}: {counted(len(names), 'file')} sent, waiting until the new version is ready and complete"
        )
    else:
        ready_s = min(kaggle.patience.confirm_s, kaggle.patience.ready_s)
        kaggle.say(
            f"dataset {ref}: the client does not say whether a new version is being made, looking for one"
        )
    _wait_for_new_version(manifest, ref, before.version, kaggle, ready_s)
    return True


def difference(manifest: Manifest, ref: str, kaggle: Kaggle) -> str | None:
    """Compare a dataset's current version with a bundle.

    The manifest alone is not enough: an upload that the client dropped leaves a version with the right manifest and
    without a file.

    Args:
        manifest: manifest of the bundle.
        ref: owner/slug of the dataset.
        kaggle: service to ask.

    Returns:
        How the version differs, or why it cannot be compared; None if it is the bundle.
    """
    client = kaggle.client
    try:
        there = manifest_from_json(kaggle.ask(lambda: client.dataset_manifest(ref)), f"{ref}/{MANIFEST}")
        listed = kaggle.ask(lambda: client.dataset_files(ref))
    except (ClientError, BundleError) as error:
        return str(error)
    if there.digest != manifest.digest:
        return f"digest {there.digest[:12]} there, {manifest.digest[:12]} here"
    sizes = {name: file.size for name, file in manifest.files.items()}
    wrong = [name for name, size in sizes.items() if listed.get(name) != size]
    wrong += [name for name in listed if name not in sizes and name not in {MANIFEST, CARD}]
    return f"missing, extra or of another size: {', '.join(wrong)}" if wrong else None


def _wait_until_ready(ref: str, newer_than: int, kaggle: Kaggle, ready_s: float) -> DatasetState:
    """Wait for a version after `newer_than` to be ready: `ready_s` for it to appear, then Kaggle's usual time."""
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
            ready_s = kaggle.patience.ready_s
        if time.monotonic() - start >= ready_s:
            raise RunError(
                f"dataset {ref} is {state.status} at version {state.version} after {ready_s:.0f} s, no "
                "kernel was pushed; push again later, files that have arrived are not uploaded twice"
            )
        time.sleep(kaggle.patience.poll_s)


def _wait_for_new_version(manifest: Manifest, ref: str, before: int, kaggle: Kaggle, ready_s: float) -> None:
    """Wait until the bundle is the current version; until then kernels would silently mount the one before."""
    state, start = _wait_until_ready(ref, before, kaggle, ready_s), time.monotonic()
    while (other := difference(manifest, ref, kaggle)) is not None:
        if time.monotonic() - start >= kaggle.patience.confirm_s:
            raise RunError(
                f"dataset {ref}: version {state.version} is ready, but it is not this bundle ({other}); no kernel was "
                "pushed; push again"
            )
        time.sleep(kaggle.patience.poll_s)
    kaggle.say(f"dataset {ref}: version {state.version} is ready, digest {manifest.digest[:12]}")
