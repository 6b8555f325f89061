"""How the dataset and the kernels of a build stand on Kaggle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kagglehms.bundle.manifest import CARD, read_manifest
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.dist import kernel_folders, kernel_ref, require_bundle
from kagglehms.kaggle.service import Kaggle
from kagglehms.kaggle.stamping import read_template
from kagglehms.kaggle.upload import difference


@dataclass(frozen=True)
class Standing:
    """How a dataset or kernel stands on Kaggle.

    Attributes:
        kind: whether it is a dataset or a kernel.
        ref: its owner/slug.
        status: Kaggle's word for its state; None if Kaggle gave none.
        ok: for a dataset, whether it is that of this build; for a kernel, whether it has not failed.
        sentence: all of this in one line for people.
    """

    kind: Literal["dataset", "kernel"]
    ref: str
    status: str | None
    ok: bool
    sentence: str


def status(dist: Path, kaggle: Kaggle) -> list[Standing]:
    """Ask how the dataset and the kernels of a build stand, and print each answer when it arrives.

    Args:
        dist: folder of a build.
        kaggle: service to ask.

    Raises:
        UsageError: `dist` holds no build.
        ClientError: Kaggle does not answer.
    """
    require_bundle(dist)
    standings = [_of_dataset(dist / "dataset", kaggle)]
    kaggle.say(standings[0].sentence)
    for folder in kernel_folders(dist):
        standings.append(_of_kernel(folder, kaggle))
        kaggle.say(standings[-1].sentence)
    return standings


def _of_dataset(dataset: Path, kaggle: Kaggle) -> Standing:
    ref = read_template(dataset / CARD)["id"]
    manifest = read_manifest(dataset)
    state = kaggle.ask(lambda: kaggle.client.dataset(ref))
    other = difference(manifest, ref, kaggle) if state.status == "ready" else "not ready"
    what = "it is this build" if other is None else f"not this build ({other})"
    sentence = f"dataset {ref}: {state.status}, version {state.version}, {what}"
    return Standing("dataset", ref, state.status, other is None, sentence)


def _of_kernel(folder: Path, kaggle: Kaggle) -> Standing:
    ref = kernel_ref(folder)
    try:
        kernel = kaggle.ask(lambda: kaggle.client.kernel(ref))
    except ClientError as error:
        return Standing("kernel", ref, None, True, f"kernel {ref}: {error}")
    failed = kernel.ended and not kernel.ended_well
    sentence = f"kernel {ref}: {', '.join(filter(None, (kernel.status, kernel.failure)))}"
    return Standing("kernel", ref, kernel.status, not failed, sentence)
