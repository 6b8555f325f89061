"""The first weights of a network: found where they were asked for, and fitted to it strictly or not at all.

What is in a file is fitted in this order, and then every tensor must be wanted, be there and have its shape:

1. Floating-point numbers of any precision become float32.
2. A prefix that all names have and the network has not (`module.`, `_orig_mod.`, `model.`, `backbone.`,
   `base_model.`, `network.`, `net.`) is taken off, one after the other.
3. The classifier is left out: its classes are others.
4. timm's `checkpoint_filter_fn` for the kind of network translates old names, and resizes position embeddings of
   networks with a fixed image size.
5. A stem of three channels becomes one of one channel by timm's `adapt_input_conv`: the sum.

The only tensors that may be missing besides the classifier are counters of batches, which nothing depends on.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from kagglehms.errors import DataError, UsageError, first_line
from kagglehms.training.backbones import given_name, timm_name

if TYPE_CHECKING:
    from torch import Tensor, nn

AUTO, NONE = "auto", "none"
"""What can be asked for instead of a file or folder: the weights of timm's hub, or none."""

Source = Literal["none", "hub", "file"]
State = dict[str, "Tensor"]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "base_model.", "network.", "net.")
_COUNTER = "num_batches_tracked"
_NAMED = 3
"""How many tensors a message names."""


@dataclass(frozen=True)
class Origin:
    """Where a network's first weights came from, as runs and folds write it down.

    Attributes:
        source: `none` for a network that starts at random, `hub` or `file`.
        name: the repository of the hub, or the file without its folder.
        sha256: of the file that was read, in hexadecimal, or of the two digests where there were two; empty for `none`.
    """

    source: Source = "none"
    name: str = ""
    sha256: str = ""

    @property
    def key(self) -> str:
        """Equal for equal weights, whatever their file is called and wherever it came from."""
        return self.sha256 or NONE

    def __str__(self) -> str:
        """What a person wants to know of it."""
        if self.source == "none":
            return "none, from scratch"
        return f"{self.name}{' of the hub' if self.source == 'hub' else ''}, sha256 {self.sha256[:12]}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Origin:
        """Read back what `to_json` made.

        Raises:
            ValueError: it is something else.
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
    """First weights that were found.

    Attributes:
        origin: where.
        path: the .safetensors file; None for a network that starts at random.
        second_path: that of the second of two backbones, where it is another.
    """

    origin: Origin = Origin()
    path: Path | None = None
    second_path: Path | None = None

    def of(self, view: int) -> FirstWeights:
        """Those of one of the backbones, counted from 0."""
        return FirstWeights(self.origin, self.second_path) if view and self.second_path else self


def find_weights(backbone: str, asked: str) -> FirstWeights:
    """Find the first weights of a network.

    Args:
        backbone: of a recipe.
        asked: `none`; `auto` for the weights that timm names, out of the cache of the hub's client or, where that
            lacks them, from the hub; or a .safetensors file, or a folder that holds `<backbone>.safetensors`.

    Raises:
        UsageError: an unknown backbone, or `auto` and neither cache nor hub gives any.
        DataError: the file or folder is missing or of another kind.
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
    """Find the first weights of a network of one backbone or two; for arguments and errors see `find_weights`."""
    found = [find_weights(backbone, asked) for backbone in dict.fromkeys(backbones)]
    if len(found) == 1 or found[0].path is None:
        return found[0]
    first, second = found
    both = hashlib.sha256(f"{first.origin.sha256} {second.origin.sha256}".encode()).hexdigest()
    origin = Origin(first.origin.source, f"{first.origin.name} and {second.origin.name}", both)
    return FirstWeights(origin, first.path, second.path)


def fill(network: nn.Module, first: FirstWeights, backbone: str, classifier: Iterable[nn.Module]) -> None:
    """Load first weights into a network of timm, all but its classifier.

    Args:
        network: filled in place.
        first: what `find_weights` found.
        backbone: of the recipe.
        classifier: the layers of the network that are left as they are.

    Raises:
        DataError: the file cannot be read, holds values that are not finite, or is not of this network; the message
            names what is missing, unknown or of another shape.
    """
    if first.path is None:
        return
    modules = {module: name for name, module in network.named_modules()}
    own = {f"{modules[layer]}.{part}" for layer in classifier for part in ("weight", "bias")}
    state = _without_prefixes(_read(first.path), network.state_dict())
    state = {name: tensor for name, tensor in state.items() if name not in own}
    state = _translated(state, network, first.path, backbone)
    state = {name: tensor for name, tensor in state.items() if name not in own}
    state = _with_one_channel(state, network)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if name not in own}
    problems = _differences(wanted, state)
    if problems:
        reason = f"does not hold weights of {given_name(backbone)}: {'; '.join(problems)}"
        raise DataError(first.path, reason, "give timm's file for this very backbone")
    network.load_state_dict(state, strict=False)


def _read(path: Path) -> State:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise DataError(
            path, f"cannot be read ({first_line(error)})", "copy it again, it is truncated or no weights"
        ) from error
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    bad = [name for name, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise DataError(
            path, f"holds values that are not finite, in {_some(bad)}", "copy or convert it again"
        )
    return state


def _without_prefixes(state: State, network: Mapping[str, Tensor]) -> State:
    """Take off what all names begin with, as far as it is what training code puts before them."""
    while True:
        found = [p for p in _PREFIXES if state and all(name.startswith(p) for name in state)]
        found = [p for p in found if not any(name.startswith(p) for name in network)]
        if not found:
            return state
        state = {name.removeprefix(found[0]): tensor for name, tensor in state.items()}


def _translated(state: State, network: nn.Module, path: Path, backbone: str) -> State:
    """Let timm translate the names of older files and resize position embeddings, where it has a rule for them."""
    # By timm's convention it stands beside the network's class.
    translate: Callable[[State, nn.Module], State] | None = getattr(
        sys.modules[type(network).__module__], "checkpoint_filter_fn", None
    )
    if translate is None:
        return state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how timm's rules are written
            return dict(translate(dict(state), network))
    except (
        Exception
    ) as error:  # timm's rules expect names and shapes without a check, so anything can be raised
        reason = f"does not hold weights of {given_name(backbone)}: timm cannot translate them"
        raise DataError(
            path, f"{reason} ({first_line(error)})", "give timm's file for this very backbone"
        ) from error


def _with_one_channel(state: State, network: nn.Module) -> State:
    """Sum the colours of the stems, which timm names; what has the network's shape is left alone."""
    from timm.models import adapt_input_conv

    wanted = network.state_dict()
    named: Any = getattr(network, "pretrained_cfg", {}).get("first_conv") or ()
    for stem in (named,) if isinstance(named, str) else named:
        name = f"{stem}.weight"
        if name not in state or name not in wanted or state[name].shape == wanted[name].shape:
            continue
        if state[name].ndim == 4 and state[name].shape[1] % 3 == 0:
            state = state | {name: adapt_input_conv(1, state[name])}
    return state


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    unknown = [name for name in found if name not in wanted]
    reshaped = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} of {len(found)} are unknown ({_some(unknown)})")
    return problems + reshaped[:_NAMED]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "copy it again") from error


def _from_hub(name: str) -> tuple[str, Path]:
    """The repository and the file of timm's weights of a network; downloaded if the client's cache lacks them."""
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
        # Asked once before: the download itself would try again for half a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(**place))
        return config.hf_hub_id, Path(hf_hub_download(**place))
    except Exception as error:  # the client's releases raise errors of three HTTP libraries
        raise UsageError(f"timm's hub gave no weights of {name} ({first_line(error)}); {instead}") from error


def _file_on_hub(named: str | None) -> str:
    """The .safetensors file beside or in place of the one that timm names, as timm itself prefers it."""
    if named is None:
        return "model.safetensors"
    if named.startswith("open_clip"):
        return "open_clip_model.safetensors"
    return named if named.endswith(".safetensors") else "model.safetensors"


def _local_file(path: Path, backbone: str) -> Path:
    """Resolve a file or folder to one .safetensors file; pickled weights are never opened."""
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
    """The file of a network: under its name, or, if no tag was asked for, the only one that has another tag."""
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
