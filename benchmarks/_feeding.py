"""Ways to feed and train a network, to be timed in turn: the notebooks', a good conventional one, ours, and none.

- source: per-item Dataset over a dictionary of arrays, DataLoader without workers, per-item NumPy, `loss.item()` at
  every step.
- conventional: the same items from worker processes, pinned memory, channels last, no waiting for the loss.
- kagglehms: feed and learner of this package, with what the recipe does to batches; windows are those in the middle,
  unless a random one is asked for, and none is mirrored.
- network alone: the same learner on batches that already lie on the device.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from _items import ITEMS, InMemory, Item
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.device import Device
from kagglehms.training.batches import Batch, on_device
from kagglehms.training.distributed import ALONE
from kagglehms.training.feed import Feed
from kagglehms.training.feed_draws import Work
from kagglehms.training.losses import kl_loss
from kagglehms.training.models import make_model
from kagglehms.training.precision import autocast, laid_out, placed
from kagglehms.training.recipes import Recipe
from kagglehms.training.step import Learner

N_RECORDS = 512
SETTLE_S = 0.5
"""Before each turn: whoever draws ahead has finished, and takes nothing from the next one."""
LR = 1e-3
AHEAD = 4
"""Batches that our feed may have ready."""
PREFETCH = 2
"""Batches that each worker of a DataLoader has ready."""

Step = Callable[[], None]


def make_records() -> Records:
    votes = np.random.default_rng(0).integers(0, 5, (N_RECORDS, len(CLASSES))) + np.eye(6, dtype=int)[0]
    columns: dict[str, Any] = {name: votes[:, k] for k, name in enumerate(VOTE_COLUMNS)}
    for name in ("eeg_id", "spectrogram_id", "label_id", "patient_id"):
        columns[name] = np.arange(N_RECORDS)
    for source in ("eeg", "spectrogram"):
        columns[f"{source}_offset_min_s"] = np.zeros(N_RECORDS)
        columns[f"{source}_offset_max_s"] = np.full(N_RECORDS, 10.0)
    return Records(pl.DataFrame(columns))


class SourceDataset(Dataset[tuple[Tensor, Tensor]]):
    """The notebooks' Dataset: one item after the other, made anew in a worker process from the name of its kind."""

    def __init__(self, kind: str, records: Records) -> None:
        self.kind, self.targets = kind, records.targets_NK.astype(np.float32)
        self._item: Item | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_item": None}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if self._item is None:
            self._item = ITEMS[self.kind](InMemory())
        return torch.from_numpy(self._item(i)), torch.from_numpy(self.targets[i])


def loader_of(kind: str, records: Records, batch_size: int, workers: int, pin: bool = False) -> Iterator[Any]:
    """Batches of `SourceDataset` without end."""
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "polars", "scipy.signal", "kagglehms.features"])
    loader = DataLoader(
        SourceDataset(kind, records),
        batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        drop_last=True,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context=context,
    )
    while True:
        yield from loader


def conventional_steps(recipe: Recipe, device: Device, batches: Iterator[Any], good: bool) -> Step:
    """One step of a plain loop; unless it is `good`, it is the source's, which also reads the loss."""
    torch.manual_seed(0)
    model = make_model(recipe)[0].train()
    model = placed(model, device.name) if good else model.to(device.name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
    losses: list[float] = []

    def step() -> None:
        inputs, targets_BK = (part.to(device.name, non_blocking=good) for part in next(batches))
        with autocast(device):
            logits_BK = model(laid_out(inputs) if good else inputs)
        loss = kl_loss(logits_BK, targets_BK)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        if not good:
            losses.append(loss.item())

    return step


def make_learner(
    recipe: Recipe, device: Device, wrap: Callable[[nn.Module], Any] = lambda model: model
) -> Learner:
    """A network in training; what `wrap` makes of it is what training calls."""
    torch.manual_seed(0)
    model = placed(make_model(recipe)[0], device.name).train()
    return Learner(recipe, model, wrap(model), 1_000_000, 0, device, ALONE)


def take_step(learner: Learner, batch: Batch) -> None:
    learner.learn(batch, 0, False, len(batch.index_B))


def endless_work(batch_size: int) -> Iterator[Work]:
    for epoch in itertools.count():
        order = np.random.default_rng(epoch).permutation(N_RECORDS)
        for first in range(0, N_RECORDS - batch_size + 1, batch_size):
            yield Work(order[first : first + batch_size], epoch)


def make_feed(
    recipe: Recipe, records: Records, device: Device, windows: Any = "middle", threads: int | None = None
) -> Feed:
    return Feed(
        InMemory(), records, recipe.layout, pin=device.name == "cuda", windows=windows, threads=threads
    )


def our_steps(device: Device, feed: Feed, learner: Learner, batch_size: int) -> Step:
    batches = on_device(feed.draw(endless_work(batch_size)), torch.device(device.name))
    return lambda: take_step(learner, next(batches))


def network_steps(device: Device, feed: Feed, learner: Learner, batch_size: int) -> Step:
    resident: list[Batch] = []
    for batch in itertools.islice(feed.draw(endless_work(batch_size)), 2):
        resident.append(batch.to(torch.device(device.name)))
    batches = itertools.cycle(resident)
    return lambda: take_step(learner, next(batches))


def wait(device: Device) -> None:
    if device.name == "cuda":
        torch.cuda.synchronize()


def steps_in_turn(
    contenders: Mapping[str, Step],
    device: Device,
    rounds: int,
    seconds: float,
    settle_s: float = SETTLE_S,
    ahead: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Seconds per step of each (medians), and the peak of device memory in MB; every round begins with another.

    Args:
        contenders: functions that take a step.
        device: where they take it.
        rounds: turns of each.
        seconds: of a turn, about; a step that takes longer has turns of one step.
        settle_s: silence before each turn.
        ahead: steps of a contender that do not count at the start of its turns, since their batches were drawn in the
            meantime; one where nothing is said, which brings its weights back into memory and caches.
        clock: seconds; `time.process_time` counts what a busy CPU gave to this process.
    """
    took: dict[str, list[float]] = {name: [] for name in contenders}
    memory: dict[str, float | None] = {}
    n_steps = {
        name: max(1, round(seconds / _warm(step, device, seconds, clock)))
        for name, step in contenders.items()
    }
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if device.name == "cuda":
                base = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            time.sleep(settle_s)
            for _ in range((ahead or {}).get(name, 1)):
                contenders[name]()
            took[name].append(_seconds(contenders[name], device, n_steps[name], clock))
            memory[name] = (torch.cuda.max_memory_allocated() - base) / 1e6 if device.name == "cuda" else None
    return {name: statistics.median(values) for name, values in took.items()}, memory


def _warm(step: Step, device: Device, seconds: float, clock: Callable[[], float]) -> float:
    """Seconds of a step, after some that do not count: cuDNN tries algorithms, caches fill."""
    step()
    for _ in range(3):
        took = _seconds(step, device, 1, clock)
        if took > seconds:
            break
    return took


def _seconds(step: Step, device: Device, n: int, clock: Callable[[], float]) -> float:
    """Of each of `n` steps."""
    wait(device)
    start = clock()
    for _ in range(n):
        step()
    wait(device)
    return (clock() - start) / n


def rates_in_turn(
    iterators: Mapping[str, Iterator[Any]],
    batch_size: int,
    rounds: int,
    seconds: float = 0.5,
    settle_s: float = SETTLE_S,
) -> dict[str, float]:
    """Records per second of each way to feed, without a network (medians)."""
    for iterator in iterators.values():
        next(iterator)
    rates: dict[str, list[float]] = {name: [] for name in iterators}
    for _ in range(rounds):
        for name, iterator in iterators.items():
            time.sleep(settle_s)
            for _ in range(AHEAD):  # were drawn meanwhile
                next(iterator)
            start, n = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                next(iterator)
                n += batch_size
            rates[name].append(n / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in rates.items()}
