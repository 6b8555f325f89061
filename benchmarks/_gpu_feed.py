"""Images per second of training: the network alone, ours with and without CUDA graphs, and others' ways; and gains."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import _gpu_front_ends as front_ends
import numpy as np
import torch
from _feeding import (
    AHEAD,
    LR,
    PREFETCH,
    Step,
    conventional_steps,
    endless_work,
    loader_of,
    make_feed,
    make_learner,
    make_records,
    network_steps,
    our_steps,
    rates_in_turn,
    steps_in_turn,
    wait,
)
from _gpu_book import Book, figure
from _gpu_parts import Circumstances

from kagglehms.device import Device, choose_device
from kagglehms.environment import available_cpus
from kagglehms.training.cuda_graphs import GraphedNetwork
from kagglehms.training.memory import largest_fitting
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe
from kagglehms.training.step import Learner

SOURCE, CONVENTIONAL, OURS, ALONE = "source", "conventional", "kagglehms", "network alone"
GRAPHED = "kagglehms, CUDA graphs"
ROUNDS, SECONDS, SETTLE_S = 3, 0.5, 0.2
"""Turns of each contender, of so many seconds, and the silence before them."""
MOST_WORKERS = 8
"""Of a conventional DataLoader: each takes seconds to start, and more of them are no faster here."""
FIRST_S = 25.0
"""What a setting is taken to need before one has been measured."""


@dataclass(frozen=True)
class Setting:
    """A recipe's input and network in training.

    Attributes:
        recipe: by name.
        batch: records a step, at most: halved until a step fits into the card's memory.
        ways: contenders besides ours and the network alone.
        backbone: instead of the recipe's.
    """

    recipe: str
    batch: int
    ways: tuple[str, ...] = (SOURCE, GRAPHED)
    backbone: str | None = None

    @property
    def made(self) -> Recipe:
        return get_recipe(self.recipe).changed(batch_size=self.batch, backbone=self.backbone)

    @property
    def name(self) -> str:
        return f"{self.recipe}, {self.made.backbone}, batch {self.batch}"


SETTINGS = (
    Setting("baseline", 32, backbone="efficientnet_b0"),
    Setting("raw-fold", 32),
    Setting("stft-50-10", 32),
    Setting("eeg+percentiles", 32),
    Setting("wave-stack", 32),
    Setting("baseline", 32, (GRAPHED,), backbone="efficientnet_b4"),
    Setting("raw-fold", 256, ()),
    Setting("baseline", 256, (), backbone="efficientnet_b0"),
    Setting("eeg+percentiles", 256, ()),
    Setting("baseline", 32, (SOURCE, CONVENTIONAL), backbone="efficientnet_b0"),
)
"""Last the one whose workers take longest to start, since each is taken to need what the one before it took."""
SETTINGS_DRY = (Setting("baseline", 4, (SOURCE, CONVENTIONAL, GRAPHED), backbone="half:test_efficientnet"),)
TUNED = Setting("baseline", 32, (), backbone="efficientnet_b0")
"""On which the cost and the gain of trying convolution algorithms are measured."""
GAINS = (32, 256)
"""Batches of B0 on which the gains of channels last and of the fused AdamW are measured."""


def run_feed(told: Circumstances, book: Book) -> None:
    """Feed without a network, and front ends on the device."""
    device = choose_device(told.device)
    alone = _feeding_alone(book, list(dict.fromkeys(s.recipe for s in _settings(told))), device)
    with book.guarded("front ends on the device"):
        front_ends.measure(book, device, alone, *((2, 0.1) if told.dry_run else (128, 0.4)))


def run_steps(told: Circumstances, book: Book) -> None:
    """Train steps of each setting, fed in each way."""
    device = choose_device(told.device)
    book.text(
        f"{device.reason}; {available_cpus()} cores; medians of {ROUNDS} turns of about {SECONDS} s, in turn. Inputs "
        "are made of noise; `benchmarks/_feeding.py` says what the source's and the conventional way are."
    )
    alone = {line["recipe"]: line for line in book.lines("feeding alone")}

    def measure(setting: Setting) -> None:
        _setting(book, setting, device, alone.get(setting.recipe, {}))

    each_in_time(told, book, _settings(told), measure, FIRST_S)


def each_in_time(
    told: Circumstances,
    book: Book,
    settings: Iterable[Setting],
    measure: Callable[[Setting], None],
    seconds: float,
    what: str = "",
) -> None:
    """Measure as many settings as there is time for; each is taken to need what the one before it took."""
    for setting in settings:
        name = f"{what}{setting.name}"
        if not book.has_time(name, 0 if told.dry_run else seconds):
            continue
        start = time.monotonic()
        with book.guarded(name):
            measure(setting)
        seconds = time.monotonic() - start
        forget(choose_device(told.device))


def turns(device: Device) -> tuple[int, float]:
    """Turns of each contender, and about how many seconds each takes."""
    return (1, 0.1) if device.name == "cpu" else (ROUNDS, SECONDS)


def run_gains(told: Circumstances, book: Book) -> None:
    """Take away, one at a time, what is meant to make a step faster."""
    device = choose_device(told.device)
    for batch in (2,) if told.dry_run else GAINS:
        backbone = SETTINGS_DRY[0].backbone if told.dry_run else "efficientnet_b0"
        if book.has_time(f"gains, batch {batch}", 0 if told.dry_run else 8):
            with book.guarded(f"gains, batch {batch}"):
                _gains(book, Setting("baseline", batch, backbone=backbone), device)
        forget(device)
    if book.has_time("convolution algorithms", 0 if told.dry_run else 60):
        with book.guarded("convolution algorithms"):
            _tuning(book, SETTINGS_DRY[0] if told.dry_run else TUNED, device)


def _settings(told: Circumstances) -> list[Setting]:
    return [s for s in (SETTINGS_DRY if told.dry_run else SETTINGS) if s.recipe in RECIPES]


# -- without a network ---------------------------------------------------------------------------------------------


def _feeding_alone(book: Book, recipes: list[str], device: Device) -> dict[str, dict[str, float]]:
    """Recipe → images per second of the source's loop, of one core of ours, and of all."""
    records, found = make_records(), {}
    cores = available_cpus()
    for name in recipes:
        with book.guarded(f"feeding alone, {name}"):
            recipe = get_recipe(name)
            iterators: dict[str, Iterator[Any]] = {SOURCE: loader_of(name, records, 32, 0)}
            for threads in {1, cores}:
                feed = make_feed(recipe, records, device, threads=threads)
                iterators[str(threads)] = feed.draw(endless_work(32))
            rates = rates_in_turn(iterators, 32, 1, 0.4, SETTLE_S)
            found[name] = {SOURCE: rates[SOURCE], "one core": rates["1"], "all cores": rates[str(cores)]}
            book.note("feeding alone", recipe=name, cores=cores, **found[name])
            for iterator in iterators.values():
                iterator.close()  # type: ignore[attr-defined]
    rows = [
        (
            name,
            figure(rates[SOURCE]),
            figure(rates["one core"]),
            figure(rates["all cores"]),
            figure(rates["all cores"] / rates["one core"], ".1f"),
            f"{rates['all cores'] / rates[SOURCE]:.1f} ×",
        )
        for name, rates in found.items()
    ]
    header = (
        "input of",
        "source, images/s",
        "ours, one thread",
        f"ours, {cores} threads",
        "threads' gain",
        "÷ source",
    )
    book.table("Feeding alone, batches of 32, without a network", header, rows)
    return found


# -- with one ------------------------------------------------------------------------------------------------------


def _setting(book: Book, asked: Setting, device: Device, alone: dict[str, float]) -> None:
    setting = _fitting(asked, device)
    recipe, records, workers = setting.made, make_records(), max(1, min(MOST_WORKERS, available_cpus() - 1))
    feed = make_feed(recipe, records, device)
    learner = make_learner(recipe, device)
    steps: dict[str, Step] = {}
    if GRAPHED in setting.ways:
        steps[GRAPHED] = _replayed_steps(setting, device)
    if SOURCE in setting.ways:
        batches = loader_of(setting.recipe, records, setting.batch, 0)
        steps[SOURCE] = conventional_steps(recipe, device, batches, good=False)
    if CONVENTIONAL in setting.ways:
        batches = loader_of(setting.recipe, records, setting.batch, workers, device.name == "cuda")
        steps[CONVENTIONAL] = conventional_steps(recipe, device, batches, good=True)
    for name in list(steps):
        try:
            steps[name]()
        except Exception as error:  # somebody else's way is not to cost the measurement of ours
            book.note("failed", of=f"{name}, {setting.name}", error=str(error)[:1000])
            del steps[name]
    steps[OURS] = our_steps(device, feed, learner, setting.batch)
    steps[ALONE] = network_steps(device, feed, learner, setting.batch)
    ahead = {SOURCE: 1, CONVENTIONAL: PREFETCH * workers, OURS: AHEAD, GRAPHED: AHEAD, ALONE: 2}
    rounds, seconds = turns(device)
    took, memory = steps_in_turn(steps, device, rounds, seconds, SETTLE_S, ahead)
    rates = {name: setting.batch / value for name, value in took.items()}
    crossing = rates[ALONE] / alone["one core"] if alone else None
    book.note(
        "setting",
        setting=setting.name,
        images_per_s=rates,
        ms_per_step={name: 1e3 * value for name, value in took.items()},
        peak_mb=memory,
        ours_of_alone=rates[OURS] / rates[ALONE],
        ours_over_source=rates[OURS] / rates[SOURCE] if SOURCE in rates else None,
        idle=1 - rates[OURS] / rates[ALONE],
        workers=workers,
        cores_that_feed_the_card=crossing,
    )
    rows = [
        (
            name,
            figure(1e3 * took[name], ".1f"),
            figure(rates[name]),
            f"{100 * rates[name] / rates[ALONE]:.1f} %",
            f"{rates[name] / rates[SOURCE]:.1f} ×" if SOURCE in rates else "–",
            figure(memory[name]),
        )
        for name in rates
    ]
    header = ("", "ms a step", "images/s", "of the network alone", "÷ source", "peak MB above the weights")
    book.table(f"### {setting.name}", header, rows)
    book.text(
        f"The card waits {100 * max(0.0, 1 - rates[OURS] / rates[ALONE]):.1f} % of the time for ours"
        + ("." if crossing is None else f"; about {crossing:.1f} cores of this machine feed it.")
    )


def _replayed_steps(setting: Setting, device: Device) -> Step:
    """Steps of ours whose network has been recorded already, before anybody else's threads could disturb that."""
    recipe = setting.made
    learner = make_learner(recipe, device, lambda model: GraphedNetwork(model, device))
    step = our_steps(device, make_feed(recipe, make_records(), device), learner, setting.batch)
    for _ in range(2):
        step()
    return step


def _fitting(setting: Setting, device: Device) -> Setting:
    """The setting with a batch that fits, if its own does not."""
    if setting.batch <= 32:
        return setting
    learner = make_learner(setting.made, device)
    shape = next(make_feed(setting.made, make_records(), device).batches(np.arange(1), 1)).images_BCHW.shape[
        1:
    ]
    batch = largest_fitting(learner.model, setting.batch, tuple(shape), device, learner.optimizer)
    del learner
    forget(device)
    return replace(setting, batch=max(batch, 1))


def _gains(book: Book, setting: Setting, device: Device) -> None:
    """What channels last and the fused AdamW each are worth: the network alone, with and without them."""
    recipe, records = setting.made, make_records()
    feed = make_feed(recipe, records, device)
    contiguous = make_learner(recipe, device, lambda model: lambda x: model(x.contiguous()))
    contiguous.model.to(memory_format=torch.contiguous_format)
    learners = {
        "as it is": make_learner(recipe, device),
        "without channels last": contiguous,
        "AdamW not fused": _unfused(make_learner(recipe, device)),
        "in float32": make_learner(recipe, replace(device, amp=None)),
    }
    steps = {name: network_steps(device, feed, own, setting.batch) for name, own in learners.items()}
    rounds, seconds = turns(device)
    took, memory = steps_in_turn(steps, device, rounds, seconds, 0.05)
    gains = {name: value / took["as it is"] for name, value in took.items()}
    book.note("gains", setting=setting.name, ms={n: 1e3 * v for n, v in took.items()}, times_slower=gains)
    rows = [
        (name, figure(1e3 * took[name], ".1f"), f"{gains[name]:.2f} ×", figure(memory[name])) for name in took
    ]
    title = f"### Gains: {setting.name}, the network alone"
    book.table(title, ("", "ms a step", "as long", "peak MB above the weights"), rows)


def _tuning(book: Book, setting: Setting, device: Device) -> None:
    """What trying convolution algorithms costs at a first step, and gains in those that follow.

    Each setting has a batch size of its own, since what was found for one is kept by the process.
    """
    recipe, records = setting.made, make_records()
    feed, rows = make_feed(recipe, records, device), []
    kept = torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit
    try:
        for number, (name, limit) in enumerate((("heuristics", None), ("at most 3", 3), ("at most 10", 10))):
            torch.backends.cudnn.benchmark = limit is not None
            torch.backends.cudnn.benchmark_limit = limit or kept[1]
            batch = setting.batch - number
            step = network_steps(device, feed, make_learner(recipe, device), batch)
            start = time.monotonic()
            step()
            wait(device)
            first_s = time.monotonic() - start
            rounds, seconds = turns(device)
            took, _ = steps_in_turn({name: step}, device, rounds, seconds, 0.05)
            rate = batch / took[name]
            book.note(
                "tuning", setting=setting.name, of=name, batch=batch, first_s=first_s, images_per_s=rate
            )
            rows.append((name, batch, figure(first_s, ".1f"), figure(rate)))
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = kept
    title = f"### Convolution algorithms: {setting.recipe}, {recipe.backbone}, the network alone"
    book.table(title, ("algorithms tried", "batch", "first step, s", "images/s after it"), rows)


def _unfused(learner: Learner) -> Learner:
    learner.optimizer = torch.optim.AdamW(learner.model.parameters(), lr=LR, fused=False)
    learner.schedule = torch.optim.lr_scheduler.ConstantLR(learner.optimizer, factor=1.0)
    return learner


def forget(device: Device) -> None:
    """Give the card its memory back."""
    gc.collect()
    if device.name == "cuda":
        torch.cuda.empty_cache()
