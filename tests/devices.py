"""Devices as a test wants them: in any precision, or with little memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kagglehms.device import Device
from kagglehms.training import models

ROOM = 32
"""Records of a batch that fits where memory is limited; twice as many do not."""
HALVES = ("bfloat16", "float16")


def device_at(place: str, amp: Any = None) -> Device:
    """The device in mixed precision of that type, or in float32, whatever it would choose by itself."""
    return Device(place, amp, f"{place} in {amp or 'float32'}, for a test")


class Limit:
    """Too little memory for more than about `ROOM` records: really on a GPU, and by a stand-in on the CPU."""

    def __init__(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.monkeypatch = place, monkeypatch

    def leave_room(self, step: Callable[[int], None]) -> None:
        """Measure what `step(ROOM)` takes, and leave half as much again."""
        if self.place == "cpu":
            self._pretend()
            return
        self._forget()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(ROOM)
        needed = torch.cuda.max_memory_reserved() - before
        self._forget()
        total = torch.cuda.get_device_properties(0).total_memory
        allowed = torch.cuda.memory_reserved() + 1.5 * needed
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))

    def lift(self) -> None:
        if self.place == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
            self._forget()

    @staticmethod
    def _forget() -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def _pretend(self) -> None:
        """Every network made from here on runs out of memory on a batch beyond one and a half times `ROOM`."""
        real = models.create_network

        def create(*arguments: Any, **options: Any) -> torch.nn.Module:
            model = real(*arguments, **options)
            model.register_forward_pre_hook(refuse)
            return model

        def refuse(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if len(inputs[0]) > 1.5 * ROOM:
                raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")

        self.monkeypatch.setattr(models, "create_network", create)
