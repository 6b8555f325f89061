"""Which device is chosen, in which precision."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from kagglehms.device import Precision, choose_device
from kagglehms.errors import UsageError

ONES = torch.ones


class FakeGpu:
    """What torch says of a GPU, without one; a GPU can warn, fail, or compute something else."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None = None
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake")
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda: SimpleNamespace(gcnArchName="gfx1100")
        )
        monkeypatch.setattr(torch.version, "hip", hip)
        self.failure: Exception | None = None
        self.value = 1.0

        def ones(size: int, device: str) -> torch.Tensor:
            warnings.warn("this GPU is not compatible with this torch", stacklevel=2)
            if self.failure:
                raise self.failure
            return self.value * ONES(size)

        monkeypatch.setattr(torch, "ones", ones)


def test_precision_follows_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (7, 5))
    assert (choose_device().name, choose_device().amp) == ("cuda", "float16")
    FakeGpu(monkeypatch, (8, 6))
    assert choose_device().amp == "bfloat16"


@pytest.mark.parametrize(
    ("capability", "hip", "built"),
    [
        ((9, 0), None, ["sm_75", "sm_90a"]),
        ((13, 0), None, ["sm_90", "compute_120"]),  # compiled when it is first met
        ((11, 0), "6.4", ["gfx900", "gfx1100"]),
    ],
)
def test_a_gpu_that_computes_is_used_whatever_its_architecture_is_called(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, built: list[str]
) -> None:
    FakeGpu(monkeypatch, capability, hip)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    device = choose_device()
    assert (device.name, device.amp) == ("cuda", "bfloat16")
    assert ("gfx1100" if hip else f"sm_{capability[0]}{capability[1]}") in device.reason


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("no kernel image is available"),
        AssertionError("no kernel image is available"),
        OSError("no kernel image is available"),
    ],
)
def test_a_gpu_that_fails_at_a_tiny_sum_is_not_used(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    FakeGpu(monkeypatch, (6, 0)).failure = failure
    device = choose_device()
    assert device.name == "cpu"
    assert "Fake fails at a tiny sum (no kernel image is available)" in device.reason
    with pytest.raises(UsageError, match="no usable GPU: Fake fails at a tiny sum"):
        choose_device("cuda")


def test_a_gpu_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (8, 0)).value = 0.5
    assert "Fake gets a tiny sum wrong" in choose_device().reason


def test_the_cpu_can_be_asked_for() -> None:
    assert choose_device("cpu").reason == "device: cpu in float32, as asked for"
    with pytest.raises(UsageError, match="device must be one of cpu, cuda, mps, but got 'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("precision", "amp"), [("float32", None), ("bfloat16", "bfloat16"), ("float16", "float16")]
)
def test_a_precision_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, amp: str | None
) -> None:
    device = choose_device("cpu", precision)
    assert (device.name, device.amp) == ("cpu", amp)
    assert device.reason == f"device: cpu in {precision}, as asked for"
    FakeGpu(monkeypatch, (7, 5))
    device = choose_device(None, precision)
    assert (device.name, device.amp) == ("cuda", amp)
    assert device.reason == f"device: Fake (sm_75) in {precision}, as asked for"


@pytest.mark.parametrize(
    ("built", "available", "says"),
    [(False, False, "without Metal"), (True, False, "torch sees no GPU of Apple's")],
)
def test_apples_gpu_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, built: bool, available: bool, says: str
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available)
    with pytest.raises(UsageError, match=f"no usable GPU: .*{says}"):
        choose_device("mps")


def test_apples_gpu_is_used_where_it_is_asked_for_and_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, (0, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    assert (device.name, device.amp) == ("mps", None)
    assert choose_device().name == "cpu"
    gpu.failure = RuntimeError("out of order")
    with pytest.raises(UsageError, match="fails at a tiny sum"):
        choose_device("mps")
