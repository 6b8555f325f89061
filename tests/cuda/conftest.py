"""Where these tests run: on a GPU, and on the CPU in small, so that the tests themselves are known to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from devices import Limit

from kagglehms.device import choose_device
from kagglehms.errors import UsageError


@pytest.fixture(autouse=True)
def _needs_its_device(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda"):
        try:
            choose_device("cuda")
        except UsageError as error:
            pytest.skip(str(error).partition(";")[0])


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, which rounds the factors of float32 products to ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def _float16_by_plain_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without oneDNN on the CPU, whose float16 gradients take a hundred times as long where AVX-512 has that type."""
    name = request.node.name.replace("bfloat16", "")
    if "float16" in name or "half_precision" in name:
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def place(request: pytest.FixtureRequest) -> str:
    """The name of a device."""
    return request.param


@pytest.fixture
def limited(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], None]], None]]:
    """Leaves memory for batches of about 32 and up to 63, given what takes a step with a batch of that size."""
    limit = Limit(place, monkeypatch)
    yield limit.leave_room
    limit.lift()
