"""Which device computes, in which precision, and why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from kagglehms.environment import available_cpus
from kagglehms.errors import UsageError, first_line


@dataclass(frozen=True)
class Device:
    """A device, the precision to compute in, and the reason for both.

    Attributes:
        name: `cuda` (NVIDIA's or AMD's), `mps` (Apple's) or `cpu`, as torch.device takes it.
        amp: the dtype of mixed precision, `float16` (needs loss scaling) or `bfloat16`; None for float32.
        reason: one line for the log.
    """

    name: str
    amp: Literal["float16", "bfloat16"] | None
    reason: str


DEVICES = ("cpu", "cuda", "mps")
"""Names that `choose_device` accepts."""


Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""What networks compute in; the halves mix with float32, which weights stay in."""


def choose_device(wanted: str | None = None, precision: Precision | None = None) -> Device:
    """Choose the best device that really works.

    A GPU counts if it computes a tiny sum: on Kaggle's P100 `torch.cuda.is_available()` is true and every kernel launch
    fails, while the architectures that a build of torch names say neither what it compiles for others when it first
    meets them nor what builds for AMD can do.

    Args:
        wanted: one of `DEVICES`, or None for the best of `cuda` and `cpu`.
        precision: precision to compute in, or None for the fastest that a GPU of NVIDIA's or AMD's has units for, and
            float32 on others.

    Raises:
        UsageError: another name, or a GPU was asked for and none is usable; the message says why.
    """
    found = _working(wanted)
    suits, why = (found.precision, found.why) if precision is None else (precision, ", as asked for")
    amp = None if suits == "float32" else suits
    return Device(found.name, amp, f"device: {found.what} in {suits}{why}")


class _Found(NamedTuple):
    """A device that works: its name for torch and in words, and the precision that suits it, with the reason."""

    name: str
    what: str
    precision: Precision
    why: str


def _working(wanted: str | None) -> _Found:
    """Find the device that is wanted, or the best that works."""
    if wanted not in {None, *DEVICES}:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, but got {wanted!r}")
    if wanted == "cpu":
        return _Found("cpu", "cpu", "float32", ", as asked for")
    why_not = _mps_unusable() if wanted == "mps" else _cuda_unusable()
    if why_not is None:
        return _Found("mps", "Apple's GPU", "float32", ", as asked for") if wanted == "mps" else _gpu()
    if wanted is not None:
        raise UsageError(f"no usable GPU: {why_not}; leave --device away to use the CPU")
    return _Found("cpu", "cpu", "float32", f", {available_cpus()} cores ({why_not})")


def _cuda_unusable() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no GPU"
    return _fails("cuda")


def _mps_unusable() -> str | None:
    import torch

    if not torch.backends.mps.is_built():
        return "this torch is built without Metal, which is there on macOS alone"
    if not torch.backends.mps.is_available():
        return "torch sees no GPU of Apple's, or needs a newer macOS"
    return _fails("mps")


def _fails(device: str) -> str | None:
    """Return why a device cannot compute a tiny sum; None if it can."""
    import torch

    name = "the GPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what the sum is about to prove or to refute
            name = torch.cuda.get_device_name() if device == "cuda" else name
            right = torch.ones(8, device=device).sum().item() == 8
    except Exception as error:  # a driver that does not fit can raise almost anything
        return f"{name} fails at a tiny sum ({first_line(error)})"
    return None if right else f"{name} gets a tiny sum wrong"


def _gpu() -> _Found:
    import torch

    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    if torch.version.hip:
        name += f" ({torch.cuda.get_device_properties().gcnArchName})"
        return _Found("cuda", name, "bfloat16", ", which torch has for each GPU of AMD's")
    name += f" (sm_{major}{minor})"
    if major >= 8:
        return _Found("cuda", name, "bfloat16", ", which this architecture computes natively")
    return _Found("cuda", name, "float16", " with loss scaling, as it has no bfloat16 units")
