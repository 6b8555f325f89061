"""A built kernel and everything that its metadata ask for, found on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kagglehms.bundle.manifest import CARD
from kagglehms.data.competition import SLUG, Competition, unpacking
from kagglehms.errors import DataError, RunError
from kagglehms.kaggle.dist import UNSCORED, choose_kernels, kernel_folders, kernel_ref
from kagglehms.kaggle.stamping import KERNEL_METADATA, read_template
from kagglehms.kernel.mounts import MountStyle, competition_mount, dataset_mount, notebook_mount


@dataclass(frozen=True)
class StagedKernel:
    """A built kernel and its inputs.

    Attributes:
        name: name of its folder in `dist/kernels`.
        script: file of its code.
        inputs: folder of each input by its path below /kaggle/input.
        competition: competition folder with the test set that the kernel predicts.
        gpu: whether the kernel asks for a GPU.
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
    name: str, dist: Path, competition: Path, mounts: MountStyle, outputs: Path, hidden: Path | None = None
) -> StagedKernel:
    """Find a built kernel and its inputs.

    Args:
        name: name of a folder in `dist/kernels`.
        dist: folder of a build.
        competition: folder of the competition.
        mounts: style in which the inputs are mounted.
        outputs: folder in which earlier rehearsals have left the outputs of their kernels, one folder per kernel.
        hidden: competition folder whose test set replaces that of `competition`; None replaces nothing.

    Raises:
        UsageError: there is no such kernel, or no build.
        DataError: there is no competition, or no output of a kernel that this one reads.
        RunError: the kernel asks for a dataset or competition that this project does not build.
    """
    (folder,) = choose_kernels(dist, [name])
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
        inputs[dataset_mount(owner, slug, mounts)] = dist / "dataset"
    for source in metadata.get("competition_sources", []):
        if source != SLUG:
            raise RunError(
                f"{folder}: asks for the competition {source}, this project knows {SLUG}; build again"
            )
        inputs[competition_mount(source, mounts)] = hidden or competition
        for kept in ("train_eegs", "train_spectrograms") if hidden else ():
            if (competition / kept).is_dir():
                inputs[f"{competition_mount(source, mounts)}/{kept}"] = competition / kept
    for source in metadata.get("kernel_sources", []):
        owner, _, slug = source.partition("/")
        output = _output_of(source, dist, outputs)
        if output is not None:
            inputs[notebook_mount(owner, slug, mounts)] = output
        elif source != metadata["id"]:  # a kernel's own output is there from its second session on
            raise DataError(
                outputs,
                f"has no output of {source}, which the kernel {name} reads",
                "rehearse that one first",
            )
    gpu = metadata.get("enable_gpu") is True
    return StagedKernel(name, folder / metadata["code_file"], inputs, hidden or competition, gpu)


def _output_of(source: str, dist: Path, outputs: Path) -> Path | None:
    """Return the output of the kernel `source`, owner/slug; None if it has not been rehearsed."""
    for folder in kernel_folders(dist):
        output = outputs / folder.name
        if folder.name in UNSCORED and kernel_ref(folder) == source and output.is_dir():
            return output
    return None
