"""Train one model in several processes, started by `torchrun`; most often there is only one.

Every process draws its share of each batch and computes its gradients. Apart from rounding, results do not depend on
the number of processes: shares are weighted by their size, batches are gathered if an augmentation mixes records, and
batch normalisation uses the statistics of all shares.

Shape legend: B batch, N records in a process's share.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from kagglehms.errors import RunError, UsageError, counted
from kagglehms.training.batches import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kagglehms.device import Device

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: number of this process, from 0; process 0 prints and writes files for all.
        size: number of processes.
        size_here: number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    size_here: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes files for all."""
        return self.rank == 0

    def share(self, items: NDArray[Number]) -> NDArray[Number]:
        """Return this process's share of `items`; the shares of all processes, concatenated, are `items`."""
        return np.array_split(items, self.size)[self.rank]

    def weight(self, batch_size: int, n_own: int) -> float:
        """Return the weight of this process's mean loss, given that gradients are averaged over processes.

        Args:
            batch_size: number of records in the whole batch.
            n_own: number of records in this process's share.
        """
        return 1.0 if self.size == 1 else n_own * self.size / batch_size

    def agree(self, value: int) -> int:
        """Return the largest `value` of all processes."""
        if self.size == 1:
            return value
        agreed = torch.tensor(value)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return int(agreed)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of the values of all processes."""
        return value if self.size == 1 else _sum_of_all(value)

    def gather_rows(self, own: NDArray[np.float64], n_all: int) -> NDArray[np.float64]:
        """Return the rows of all shares, `n_all` in total, in order."""
        return own if self.size == 1 else self._gathered(torch.from_numpy(own), n_all).numpy()

    def gather_batch(self, batch: Batch, n_all: int) -> Batch:
        """Return the whole batch of `n_all` records, given this process's share."""
        if self.size == 1:
            return batch
        parts = (batch.images_BCHW, batch.targets_BK, batch.n_votes_B, batch.index_B)
        return Batch(*(self._gathered(part, n_all) for part in parts))

    def part_of(self, batch: Batch) -> Batch:
        """Return this process's share of a whole batch."""
        if self.size == 1:
            return batch
        own = self.share(np.arange(len(batch.index_B)))
        return Batch(
            *(
                part[own[0] : own[-1] + 1]
                for part in (batch.images_BCHW, batch.targets_BK, batch.n_votes_B, batch.index_B)
            )
        )

    def _gathered(self, own: Tensor, n_all: int) -> Tensor:
        # Shares differ by at most one row, and collectives need equal shapes: pad, and remove the padding.
        longest = -(-n_all // self.size)
        padded = own.new_zeros((longest, *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        sizes = [len(part) for part in np.array_split(np.arange(n_all), self.size)]
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            self.agree(0)

    def distributed(self, model: nn.Module, device: Device) -> tuple[nn.Module, nn.Module]:
        """Prepare a model for training in all processes.

        Args:
            model: the model, on its device.
            device: the device.

        Returns:
            The model with batch statistics of all processes, and a wrapper of it that averages their gradients.
        """
        if self.size == 1:
            return model, model
        from torch.nn.parallel import DistributedDataParallel

        model = share_batch_statistics(model, device)
        # Batch statistics need not be broadcast, since they are the same everywhere. torch 2.15 renamed the option.
        known = inspect.signature(DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {option: False}
        return model, DistributedDataParallel(model, **options)


ALONE = Team()


@contextlib.contextmanager
def assemble(device_wanted: str | None = None) -> Iterator[Team]:
    """Join the processes that `torchrun` started; without it, the team consists of this process.

    Each process gets the GPU with its own number, unless `device_wanted` is `cpu`. Tensors in main memory are
    exchanged by Gloo, those of GPUs by NCCL.

    Args:
        device_wanted: name of the device that was asked for.

    Yields:
        The team.

    Raises:
        UsageError: there are more processes than GPUs on this machine.
        RunError: the other processes cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    backend = "gloo"
    if device_wanted != "cpu" and torch.cuda.is_available():
        local, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= n_gpus:
            raise UsageError(
                f"torchrun started process {local} of this machine, which has "
                f"{counted(n_gpus, 'GPU')}; lower --nproc-per-node"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"the {size} processes cannot reach each other: {error}; start them by torchrun"
        ) from error
    try:
        yield Team(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()


def share_batch_statistics(model: nn.Module, device: Device) -> nn.Module:
    """Replace the batch normalisations of a model by ones with the statistics of all processes."""
    from timm.layers.norm_act import convert_sync_batchnorm

    model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if device.name != "cuda":  # PyTorch's synchronised layer only runs on GPUs
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = _GlobalBatchNorm  # type: ignore[assignment]
    return model


class _GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the shares of all processes, by differentiable collectives.

    As PyTorch's own, it computes in float32 what autocast hands over in half precision, and returns that precision.

    Source: Ioffe & Szegedy (2015), "Batch Normalization", algorithm 1, with sums over all shares.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            output = self._normalised(input)
        else:
            output = nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # timm's layers include dropout and activation.
        for name in ("drop", "act"):
            output = getattr(self, name, nn.Identity())(output)
        return output

    def _normalised(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        total: Callable[[Tensor], Tensor] = _Total.apply
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        n = total(x.new_tensor(float(x.numel() // x.shape[1])))
        but_channels = [0, *range(2, x.ndim)]
        beside = (-1, *[1] * (x.ndim - 2))
        mean_C = total(x.sum(dim=but_channels)) / n
        centred = x - mean_C.reshape(beside)
        variance_C = total(centred.square().sum(dim=but_channels)) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C, self.momentum or 0.0)
            self.running_var.lerp_(variance_C * (n / (n - 1)), self.momentum or 0.0)
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return (centred * scale_C.reshape(beside) + self.bias.reshape(beside)).to(input.dtype)


class _Total(torch.autograd.Function):
    """Sum over all processes; as each of them uses the sum, its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        return _sum_of_all(own)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _sum_of_all(gradient)


def _sum_of_all(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
