"""Training steps: the source's way, a good conventional way, ours, and the network alone.

    python benchmarks/training.py                      # what this machine allows: a GPU with large batches, or a CPU
    python benchmarks/training.py --backbones efficientnet_b0 --images 400x300 --batches 32 --rounds 9

All contenders of a setting take steps in turn in one process on one device; figures are medians over the rounds.

- source: per-item Dataset over a dictionary of arrays, DataLoader without workers, per-item NumPy normalisation and
  percentiles, `loss.item()` at every step.
- conventional: the same items from worker processes, pinned memory, channels last, no waiting for the loss.
- kagglehms: feed and learner of this package, with its recipe's augmentations.
- network alone: the same learner on batches that already lie on the device.

Each stage of feeding is also measured by itself, without a network. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from _measure import finish, machine, table, versions
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.features import images, mel_images
from kagglehms.features.images import Layout
from kagglehms.learning.evaluation import autocast, memory_format
from kagglehms.learning.feed import Batch, Feed, Work, on_device
from kagglehms.learning.learner import Learner
from kagglehms.learning.losses import kl_loss
from kagglehms.learning.models import make_model
from kagglehms.learning.recipes import Recipe
from kagglehms.learning.team import ALONE
from kagglehms.runtime import Device, available_cpus, choose_device

N_RECORDS = 256
LAYOUTS = {"400x300": images.PANELS_BY_THEMSELVES, "512x512": images.EEG_PANELS_AND_PERCENTILES}
SETTLE_S = 0.5
"""Before each run: whoever draws ahead has finished, and takes nothing from the next one."""
PACKAGES = ("torch", "timm", "numpy", "numba", "polars")


class InMemory:
    """Recordings as a store holds them, made of noise: no feed looks at what they say."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._rows = rng.normal(1, 2, (8, 320, 400)).clip(-4, 8).astype(np.float16)
        self._eeg_uv = rng.normal(0, 40, (8, 12_000, 20)).astype(np.float16)

    def spectrogram(self, spectrogram_id: int) -> NDArray[np.float16]:
        return self._rows[spectrogram_id % 8]

    def eeg(self, eeg_id: int) -> NDArray[np.float16]:
        return self._eeg_uv[eeg_id % 8]


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
    """The notebooks' Dataset: arrays in a dictionary, everything else per item in NumPy."""

    def __init__(self, size: str, records: Records) -> None:
        self.size, self.targets = size, records.targets_NK.astype(np.float32)
        recordings = InMemory()
        if size == "400x300":
            # The Kaggle spectrogram files as pandas gives them: power, in float32.
            self.arrays = {i: np.exp(recordings.spectrogram(i).astype(np.float32)) for i in range(8)}
        else:
            # The notebooks load EEG spectrograms that were made and stored before.
            eeg_uv = np.stack([recordings.eeg(i)[:10_000] for i in range(8)])
            self.arrays = dict(enumerate(mel_images(eeg_uv.astype(np.float32))))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        array = self.arrays[i % 8]
        image = self._kaggle(array) if self.size == "400x300" else self._eeg(array)
        return torch.from_numpy(image[None].astype(np.float32)), torch.from_numpy(self.targets[i])

    @staticmethod
    def _kaggle(power: NDArray[np.float32]) -> NDArray[np.floating]:
        panels = []
        for panel in range(4):
            image = power[:300, 100 * panel : 100 * (panel + 1)].T
            image = np.log(np.clip(image, np.exp(-4), np.exp(8)))
            mean, std = np.nanmean(image.flatten()), np.nanstd(image.flatten())
            panels.append(np.nan_to_num((image - mean) / (std + 1e-6), nan=0.0))
        return np.concatenate(panels)

    @staticmethod
    def _eeg(mel: NDArray[np.float32]) -> NDArray[np.floating]:
        percentiles = [np.percentile(mel, q, axis=0) for q in (20, 40, 60, 80)]
        return np.concatenate([np.concatenate(list(mel)), np.concatenate(percentiles)], axis=1)


def forever(make: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from make()


def conventional_steps(
    recipe: Recipe, device: Device, size: str, records: Records, workers: int
) -> Callable[[], None]:
    """One step of a plain loop; without workers it is the source's way, which also reads the loss."""
    good = workers > 0
    torch.manual_seed(0)
    layout = memory_format(device) if good else torch.contiguous_format
    model = make_model(recipe)[0].to(device.name).to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr)
    scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
    loader = DataLoader(
        SourceDataset(size, records),
        recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=good and device.name == "cuda",
        persistent_workers=good,
        drop_last=True,
        multiprocessing_context="forkserver" if good else None,
    )
    batches = forever(lambda: loader)
    losses: list[float] = []

    def step() -> None:
        images_BCHW, targets_BK = (part.to(device.name, non_blocking=good) for part in next(batches))
        with autocast(device):
            logits_BK = model(images_BCHW.contiguous(memory_format=layout))
        loss = kl_loss(logits_BK, targets_BK)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        if not good:
            losses.append(loss.item())

    return step


def make_learner(recipe: Recipe, device: Device, compiled: bool) -> Learner:
    torch.manual_seed(0)
    model = make_model(recipe)[0].to(device.name).to(memory_format=memory_format(device)).train()
    network = torch.compile(model) if compiled else model
    return Learner(recipe, model, network, 1_000_000, 0, device, ALONE)


def endless_work(batch_size: int) -> Iterator[Work]:
    for epoch in itertools.count():
        order = np.random.default_rng(epoch).permutation(N_RECORDS)
        for first in range(0, N_RECORDS - batch_size + 1, batch_size):
            yield Work(order[first : first + batch_size], epoch)


def make_feed(layout: Layout, records: Records, device: Device, windows: Any = "middle") -> Feed:
    return Feed(InMemory(), records, layout, pin=device.name == "cuda", windows=windows)


def our_steps(recipe: Recipe, device: Device, feed: Feed, learner: Learner) -> Callable[[], None]:
    batches = on_device(feed.draw(endless_work(recipe.batch_size)), torch.device(device.name))

    def step() -> None:
        learner.learn(next(batches), 0, False, "kl", recipe.batch_size)

    return step


def network_steps(recipe: Recipe, device: Device, feed: Feed, learner: Learner) -> Callable[[], None]:
    resident: list[Batch] = []
    for batch in itertools.islice(feed.draw(endless_work(recipe.batch_size)), 2):
        resident.append(batch.to(torch.device(device.name)))
    batches = itertools.cycle(resident)

    def step() -> None:
        learner.learn(next(batches), 0, False, "kl", recipe.batch_size)

    return step


def wait(device: Device) -> None:
    if device.name == "cuda":
        torch.cuda.synchronize()


def steps_in_turn(
    contenders: dict[str, Callable[[], None]], device: Device, rounds: int, seconds: float
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Seconds per step of each (medians), and the peak of device memory in MB; every round begins with another."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    memory: dict[str, float | None] = {}
    n_steps = {}
    for name, step in contenders.items():
        for _ in range(3):  # cuDNN tries algorithms, caches fill
            step()
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        n_steps[name] = max(2, round(seconds / (time.perf_counter() - start)))
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if device.name == "cuda":
                base = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            time.sleep(SETTLE_S)
            contenders[name]()  # brings its weights back into memory and caches
            wait(device)
            start = time.perf_counter()
            for _ in range(n_steps[name]):
                contenders[name]()
            wait(device)
            took[name].append((time.perf_counter() - start) / n_steps[name])
            memory[name] = (torch.cuda.max_memory_allocated() - base) / 1e6 if device.name == "cuda" else None
    return {name: statistics.median(values) for name, values in took.items()}, memory


def measure_setting(
    backbone: str, size: str, batch_size: int, device: Device, rounds: int, seconds: float, compiled: bool
) -> dict[str, Any]:
    records, layout = make_records(), LAYOUTS[size]
    recipe = replace(Recipe("bench", layout, backbone=backbone), batch_size=batch_size)
    feed = make_feed(layout, records, device)
    workers = max(1, min(8, available_cpus() - 1))
    # One network for all that is ours: where in memory a network lies can be worth some per cent.
    learner = make_learner(recipe, device, compiled=False)
    contenders = {
        "source": conventional_steps(recipe, device, size, records, 0),
        f"conventional, {workers} workers": conventional_steps(recipe, device, size, records, workers),
        "kagglehms": our_steps(recipe, device, feed, learner),
        "kagglehms, random sub-windows": our_steps(
            recipe, device, make_feed(layout, records, device, "random"), learner
        ),
        "network alone": network_steps(recipe, device, feed, learner),
    }
    if compiled:
        contenders["kagglehms, compiled"] = our_steps(
            recipe, device, feed, make_learner(recipe, device, compiled=True)
        )
    per_step, memory = steps_in_turn(contenders, device, rounds, seconds)
    alone = per_step["network alone"]
    rows = [
        (
            name,
            f"{1e3 * value:.1f}",
            f"{batch_size / value:.1f}",
            f"{100 * alone / value:.1f} %",
            "" if memory[name] is None else f"{memory[name]:.0f}",
        )
        for name, value in per_step.items()
    ]
    print(f"\n{backbone}, images {size}, batch {batch_size}\n")
    print(table(("", "ms a step", "images/s", "of the network alone", "MB above the weights"), rows))
    return {
        "backbone": backbone,
        "images": size,
        "batch": batch_size,
        "seconds_per_step": per_step,
        "peak_mb": memory,
    }


def measure_feeding(size: str, device: Device, rounds: int) -> dict[str, float]:
    """Images per second of each way to feed, without a network."""
    records, batch_size = make_records(), 32
    dataset = SourceDataset(size, records)
    workers = max(1, min(8, available_cpus() - 1))
    loaders = {
        "source": DataLoader(dataset, batch_size, shuffle=True),
        f"conventional, {workers} workers": DataLoader(
            dataset,
            batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context="forkserver",
        ),
    }
    iterators: dict[str, Iterator[Any]] = {
        name: forever(lambda loader=loader: loader) for name, loader in loaders.items()
    }
    for name, windows in (("kagglehms", "middle"), ("kagglehms, random sub-windows", "random")):
        iterators[name] = make_feed(LAYOUTS[size], records, device, windows).draw(endless_work(batch_size))
    for iterator in iterators.values():
        next(iterator)
    rates: dict[str, list[float]] = {name: [] for name in iterators}
    for _ in range(rounds):
        for name, iterator in iterators.items():
            time.sleep(SETTLE_S)
            start, n = time.perf_counter(), 0
            while time.perf_counter() - start < 0.5:
                next(iterator)
                n += batch_size
            rates[name].append(n / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [
        (name, f"{value:.0f}", f"{value / medians['source']:.1f} ×", f"{32e3 / value:.1f}")
        for name, value in medians.items()
    ]
    print(f"\nfeeding alone, images {size}, batches of 32\n")
    print(table(("", "images/s", "÷ source", "ms a batch"), rows))
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_b0", "efficientnet_b2"])
    parser.add_argument("--images", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--batches", nargs="+", type=int, help="default: 32 and 256 on a GPU, 8 on a CPU")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender in each round, about")
    parser.add_argument("--compile", action="store_true", help="torch.compile as another contender")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step")
    device = choose_device(chosen.device)
    torch.backends.cudnn.benchmark = True
    print(f"{device.reason}\n{machine()}; {versions(*PACKAGES)}; medians of {chosen.rounds} rounds")
    batches = chosen.batches or ([32, 256] if device.name == "cuda" else [8])
    feeding = {size: measure_feeding(size, device, chosen.rounds) for size in chosen.images}
    settings = [
        measure_setting(backbone, size, batch_size, device, chosen.rounds, chosen.seconds, chosen.compile)
        for backbone, size, batch_size in itertools.product(chosen.backbones, chosen.images, batches)
    ]
    finish({"device": device.reason, "rounds": chosen.rounds, "feeding": feeding, "settings": settings})


if __name__ == "__main__":
    main()
