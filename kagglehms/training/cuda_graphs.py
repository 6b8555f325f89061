"""Networks whose kernels a GPU launches by itself, as one CUDA graph, rather than one by one from Python.

A step of a small network launches some thousand kernels. Where the card is fast, launching them takes longer than
computing them. A graph records the launches of the forward and of the backward pass once, and replays each at the cost
of one.

A graph computes what was recorded: the same shapes at the same addresses. Inputs are copied to where it expects them;
weights and buffers stay where they are, because optimizers and `load_state_dict` write in place. Dropout draws from the
seed of the step, as it does without.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from kagglehms.device import Device
from kagglehms.errors import RunError
from kagglehms.training.batches import no_page_locking
from kagglehms.training.precision import autocast


class GraphedNetwork:
    """A network in training that is replayed as a CUDA graph, for inputs of one shape.

    It is recorded when two inputs of the same shape come one after the other, so that the smaller last batch of an
    epoch is not what is recorded. Inputs of other shapes go through the network as usual, and so does everything on a
    CPU.

    Args:
        model: the network, on its device.
        device: the device.
    """

    def __init__(self, model: nn.Module, device: Device) -> None:
        self.model, self.device = model, device
        self._replay: Callable[[Tensor], Tensor] | None = None
        self._shape: torch.Size | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether there is a graph that can be replayed."""
        return self._replay is not None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits of the inputs.

        Raises:
            RunError: the network cannot be recorded, for instance because it waits for the device, or because the
                memory does not suffice.
        """
        if self._replay is None and self.device.name == "cuda":
            if inputs.shape == self._shape:
                self._replay = self._recorded(inputs)
            self._shape = inputs.shape
        if self._replay is not None and inputs.shape == self._shape:
            return self._replay(inputs)
        return self.model(inputs)

    def _recorded(self, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the network as a graph."""
        # What is left of the step before would tie the recording to the stream of that step.
        gc.collect()
        torch.cuda.empty_cache()  # the graph's memory is its own, and the step before may have taken all there is
        try:
            with self._undone(), no_page_locking(), autocast(self.device, keep_casts=False):
                recorded: Any = torch.cuda.make_graphed_callables(
                    _Whole(self.model), (inputs.clone(),), allow_unused_input=True
                )
        except RuntimeError as error:
            # CUDA's random numbers cannot be drawn any more in this process, so it cannot go on without the graph.
            raise RunError(
                f"the network cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}); train without "
                "--cuda-graphs"
            ) from error
        _expect_gradients_of_another_stream()
        return cast(Callable[[Tensor], Tensor], recorded)

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        """Take back what passes change apart from gradients: statistics of batches, and the state of random numbers."""
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            with torch.random.fork_rng([torch.cuda.current_device()]):
                yield
        finally:
            for buffer, value in before:
                buffer.copy_(value)


class _Whole(nn.Module):
    """A network in another's place, since recording changes the module that is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        logits_BK: Tensor = self.model(inputs)
        return logits_BK


def _expect_gradients_of_another_stream() -> None:
    """Keep PyTorch from warning that gradients come from the stream that they were recorded on."""
    switch = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
    if switch is not None:  # not every release that is allowed has it
        switch(False)
