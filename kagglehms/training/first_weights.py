"""The first weights of a network: find them in a file, or in timm's weights on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kagglehms.errors import DataError, UsageError, first_line
from kagglehms.files import sha256_of
from kagglehms.training.backbones import given_name, timm_name

AUTO, NONE = "auto", "none"
"""Names of first weights that are not a file or folder: those of timm on the hub, or none."""

Source = Literal["none", "hub", "file"]


@dataclass(frozen=True)
class Origin:
    """Where the first weights of a network come from, as stored with runs and folds.

    Attributes:
        source: `none` for random weights, `hub` or `file`.
        name: name of the repository on the hub, or of the file.
        sha256: hexadecimal digest of the file, or of the digests of both files for two backbones; empty for `none`.
    """

    source: Source = "none"
    name: str = ""
    sha256: str = ""

    @property
    def key(self) -> str:
        """Key that is the same for the same weights, whatever their source and the name of their file."""
        return self.sha256 or NONE

    def __str__(self) -> str:
        """Describe the origin for a person."""
        if self.source == "none":
            return "none, from scratch"
        return f"{self.name}{' of the hub' if self.source == 'hub' else ''}, sha256 {self.sha256[:12]}"

    def to_json(self) -> dict[str, str]:
        """Return the origin as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Origin:
        """Make an origin from the result of `to_json`.

        Raises:
            ValueError: the content does not describe an origin.
        """
        if not isinstance(content, dict) or content.keys() != asdict(cls()).keys():
            raise ValueError(f"no origin of weights: {str(content)[:80]}")
        origin = cls(**content)
        texts = all(isinstance(value, str) for value in content.values())
        if (
            not texts
            or origin.source not in get_args(Source)
            or bool(origin.sha256) != (origin.source != "none")
        ):
            raise ValueError(f"no origin of weights: {str(content)[:80]}")
        return origin


@dataclass(frozen=True)
class FirstWeights:
    """First weights of a network.

    Attributes:
        origin: source, name and digest of the weights.
        path: path of the .safetensors file; None for random weights.
        second_path: path of the file for the second of two different backbones.
    """

    origin: Origin = Origin()
    path: Path | None = None
    second_path: Path | None = None

    def of(self, view: int) -> FirstWeights:
        """Return the weights of one of the backbones, counted from 0."""
        return FirstWeights(self.origin, self.second_path) if view and self.second_path else self


def find_weights(backbone: str, asked: str) -> FirstWeights:
    """Find the first weights of a network.

    Args:
        backbone: name of a recipe's backbone.
        asked: which weights. `none` starts from random weights; `auto` uses those that timm names, from the cache of
            the hub's client or from the hub. Anything else is the path of a .safetensors file, or of a folder with
            `<backbone>.safetensors`.

    Raises:
        UsageError: the backbone is unknown, or `auto` finds weights neither in the cache nor on the hub.
        DataError: the file or folder is missing, or of another kind.
    """
    if asked == NONE:
        timm_name(backbone)
        return FirstWeights()
    if asked == AUTO:
        repository, path = _from_hub(timm_name(backbone))
        return FirstWeights(Origin("hub", repository, _digest(path)), path)
    path = _local_file(Path(asked), backbone)
    return FirstWeights(Origin("file", path.name, _digest(path)), path)


def find_all(backbones: Sequence[str], asked: str) -> FirstWeights:
    """Find the first weights of a network with up to two backbones; without one it starts from random weights.

    Args:
        backbones: names of the backbones.
        asked: which weights, see `find_weights`.

    Raises:
        UsageError: as in `find_weights`.
        DataError: as in `find_weights`.
    """
    found = [find_weights(backbone, asked) for backbone in dict.fromkeys(backbones)]
    if not found:
        return FirstWeights()
    if len(found) == 1 or found[0].path is None:
        return found[0]
    first, second = found
    both = hashlib.sha256(f"{first.origin.sha256} {second.origin.sha256}".encode()).hexdigest()
    origin = Origin(first.origin.source, f"{first.origin.name} and {second.origin.name}", both)
    return FirstWeights(origin, first.path, second.path)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "copy it again") from error


def _from_hub(name: str) -> tuple[str, Path]:
    """Return repository and file of timm's weights, which are downloaded unless they are in the client's cache."""
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    instead = "give a file by --weights FILE, or --weights none to train from scratch"
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UsageError(f"timm has no pretrained weights of {name}; {instead}")
    if not config.hf_hub_id:
        raise UsageError(f"timm's weights of {name} are pickled ones, which are not opened; {instead}")
    repository, _, revision = config.hf_hub_id.partition("@")
    place: dict[str, Any] = {
        "repo_id": repository,
        "filename": _file_on_hub(config.hf_hub_filename),
        "revision": revision or None,
    }
    try:
        return config.hf_hub_id, Path(hf_hub_download(**place, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        # Ask first, since without a network the download would retry for half a minute.
        get_hf_file_metadata(hf_hub_url(**place))
        return config.hf_hub_id, Path(hf_hub_download(**place))
    except Exception as error:  # depending on its release, the client raises errors of three HTTP libraries
        raise UsageError(f"timm's hub gave no weights of {name} ({first_line(error)}); {instead}") from error


def _file_on_hub(named: str | None) -> str:
    """Return the .safetensors file that timm itself would prefer to the file it names."""
    if named is None:
        return "model.safetensors"
    if named.startswith("open_clip"):
        return "open_clip_model.safetensors"
    return named if named.endswith(".safetensors") else "model.safetensors"


def _local_file(path: Path, backbone: str) -> Path:
    """Return the .safetensors file at a path; pickled weights are never opened."""
    if path.is_dir():
        return _of_folder(path, backbone)
    if not path.is_file():
        raise DataError(
            path, "no such file or folder", "give timm's weights as .safetensors, `auto` or `none`"
        )
    if path.suffix != ".safetensors":
        raise DataError(
            path, "is not a .safetensors file", "pickled weights can run code: convert them first"
        )
    return path


def _of_folder(folder: Path, backbone: str) -> Path:
    """Return a network's file in a folder: by its name, or, without a tag in the name, the only one with any tag."""
    given, name = given_name(backbone), timm_name(backbone)
    found = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    for stem in (name, given):
        if stem in found:
            return found[stem]
    network, _, tag = name.partition(".")
    fitting = [stem for stem in found if stem.partition(".")[0] == network and (not tag or stem == network)]
    if len(fitting) == 1:
        return found[fitting[0]]
    if fitting:
        listed = ", ".join(found[stem].name for stem in fitting)
        raise DataError(
            folder, f"holds several files for {given}: {listed}", "name the one to take by its path"
        )
    listed = ", ".join([path.name for path in found.values()][:8]) or "no .safetensors file"
    raise DataError(folder, f"has no {name}.safetensors", f"it holds {listed}")
