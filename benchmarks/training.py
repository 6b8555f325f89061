"""Training steps: the source's way, a good conventional way, ours, and the network alone.

    python benchmarks/training.py                      # what this machine allows: a GPU with large batches, or a CPU
    python benchmarks/training.py --backbones efficientnet_b0 --images 400x300 --batches 32 --rounds 9
    python benchmarks/training.py --front-ends --batches 2   # networks for signals against one for an image

All contenders of a setting (see `_feeding.py`) take steps in turn in one process on one device; figures are medians
over the rounds. Each stage of feeding is also measured by itself, without a network. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from _feeding import (
    AHEAD,
    PREFETCH,
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
)
from _measure import finish, machine, table, versions

from kagglehms.device import Device, Precision, choose_device
from kagglehms.environment import available_cpus
from kagglehms.features import DifferenceSpec
from kagglehms.inputs.kinds import FOLDED_CAUSAL, SIXTEEN_SIGNALS, SIXTEEN_SIGNALS_50_HZ, Input, Signals
from kagglehms.inputs.layouts import PANELS_BY_THEMSELVES
from kagglehms.training.front_ends import (
    EffNet1dOptions,
    FoldOptions,
    PanelResNetOptions,
    ResNet1dOptions,
    SpectrumOptions,
    SqueezeOptions,
    WaveStackOptions,
)
from kagglehms.training.front_ends.options import AnyEncoder, FrontEnd
from kagglehms.training.recipe import Recipe
from kagglehms.training.recipes import get_recipe

KINDS = {"400x300": "baseline", "512x512": "eeg+percentiles"}
"""Size of the images → the recipe that sees such ones."""
PACKAGES = ("torch", "timm", "numpy", "numba", "polars")


def measure_setting(
    backbone: str, size: str, batch_size: int, device: Device, rounds: int, seconds: float, compiled: bool
) -> dict[str, Any]:
    records, kind = make_records(), KINDS[size]
    recipe = replace(get_recipe(kind), backbone=backbone, batch_size=batch_size)
    feed = make_feed(recipe, records, device)
    workers = max(1, min(8, available_cpus() - 1))
    # One network for all that is ours: where in memory a network lies can be worth some per cent.
    learner = make_learner(recipe, device)
    contenders = {
        "source": conventional_steps(recipe, device, loader_of(kind, records, batch_size, 0), good=False),
        f"conventional, {workers} workers": conventional_steps(
            recipe, device, loader_of(kind, records, batch_size, workers, device.name == "cuda"), good=True
        ),
        "kagglehms": our_steps(device, feed, learner, batch_size),
        "kagglehms, random sub-windows": our_steps(
            device, make_feed(recipe, records, device, "random"), learner, batch_size
        ),
        "network alone": network_steps(device, feed, learner, batch_size),
    }
    if compiled:
        compiled_learner = make_learner(recipe, device, torch.compile)
        contenders["kagglehms, compiled"] = our_steps(device, feed, compiled_learner, batch_size)
    ahead = {name: PREFETCH * workers if "conventional" in name else AHEAD for name in contenders}
    per_step, memory = steps_in_turn(contenders, device, rounds, seconds, ahead=ahead)
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
    records, batch_size, kind = make_records(), 32, KINDS[size]
    workers = max(1, min(8, available_cpus() - 1))
    iterators: dict[str, Iterator[Any]] = {
        "source": loader_of(kind, records, batch_size, 0),
        f"conventional, {workers} workers": loader_of(kind, records, batch_size, workers),
    }
    for name, windows in (("kagglehms", "middle"), ("kagglehms, random sub-windows", "random")):
        feed = make_feed(get_recipe(kind), records, device, windows)
        iterators[name] = feed.draw(endless_work(batch_size))
    medians = rates_in_turn(iterators, batch_size, rounds)
    rows = [
        (name, f"{value:.0f}", f"{value / medians['source']:.1f} ×", f"{32e3 / value:.1f}")
        for name, value in medians.items()
    ]
    print(f"\nfeeding alone, images {size}, batches of 32\n")
    print(table(("", "images/s", "÷ source", "ms a batch"), rows))
    return medians


FRONT_ENDS: dict[str, tuple[Input, FrontEnd | PanelResNetOptions | None]] = {
    "image network alone": (FOLDED_CAUSAL, None),
    "fold": (SIXTEEN_SIGNALS, FoldOptions()),
    "spectrum": (Signals(DifferenceSpec(filter="none", midline=True)), SpectrumOptions(unit_uv=32.0)),
    "wave-stack": (SIXTEEN_SIGNALS, WaveStackOptions()),
    "squeeze": (SIXTEEN_SIGNALS, SqueezeOptions()),
    "effnet1d": (SIXTEEN_SIGNALS, EffNet1dOptions()),
    "resnet1d": (SIXTEEN_SIGNALS_50_HZ, ResNet1dOptions()),
    "panel-resnet": (PANELS_BY_THEMSELVES, PanelResNetOptions()),
}
"""Input and front end of each network; those that make an image have the same image network behind them."""


def measure_front_ends(
    backbone: str, batch_size: int, devices: Sequence[Device], rounds: int
) -> dict[str, float]:
    """Seconds of a step of each network without feeding; on a CPU, of the time that one thread was given.

    The devices are one in several precisions; the first is what the others are compared with.
    """
    records, contenders, images = make_records(), {}, {}
    on_cpu = devices[0].name == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    for device, (front, (layout, options)) in itertools.product(devices, FRONT_ENDS.items()):
        name = front if device is devices[0] else f"{front}, {device.amp or 'float32'}"
        signals, panels = (None, options) if isinstance(options, PanelResNetOptions) else (options, None)
        recipe = Recipe(
            name="measured",
            layout=layout,
            front_end=signals,
            panel_encoder=panels,
            backbone="" if isinstance(options, AnyEncoder) else backbone,
            batch_size=batch_size,
        )
        images[name] = " × ".join(map(str, recipe.image_shapes[0])) if recipe.image_shapes else "–"
        feed, learner = make_feed(recipe, records, device), make_learner(recipe, device)
        contenders[name] = network_steps(device, feed, learner, batch_size)
    clock = time.process_time if on_cpu else time.perf_counter
    per_step, _ = steps_in_turn(contenders, devices[0], rounds, 1.0, clock=clock)
    alone = per_step["image network alone"]
    rows = [(n, images[n], f"{1 / s:.2f}", f"{s / alone:.2f} ×") for n, s in per_step.items()]
    print(
        f"\nnetworks for signals or panels, {backbone} behind those that make an image, batch {batch_size}\n"
    )
    print(table(("front end", "image", "steps/s", "time of the image network alone"), rows))
    return per_step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_b0", "efficientnet_b2"])
    parser.add_argument("--images", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--batches", nargs="+", type=int, help="default: 32 and 256 on a GPU, 8 on a CPU")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender in each round, about")
    parser.add_argument(
        "--front-ends", action="store_true", help="networks for signals or panels, and nothing else"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile as another contender")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=get_args(Precision),
        default=[None],
        help="of networks for signals, several side by side; default: what training chooses on the device",
    )
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step")
    devices = [choose_device(chosen.device, precision) for precision in chosen.precisions]
    device = devices[0]
    torch.backends.cudnn.benchmark = True
    print(f"{device.reason}\n{machine()}; {versions(*PACKAGES)}; medians of {chosen.rounds} rounds")
    batches = chosen.batches or ([32, 256] if device.name == "cuda" else [8])
    if chosen.front_ends:
        steps = [measure_front_ends(chosen.backbones[0], n, devices, chosen.rounds) for n in batches]
        finish({"device": device.reason, "rounds": chosen.rounds, "batches": batches, "front_ends": steps})
        return
    feeding = {size: measure_feeding(size, device, chosen.rounds) for size in chosen.images}
    settings = [
        measure_setting(backbone, size, batch_size, device, chosen.rounds, chosen.seconds, chosen.compile)
        for backbone, size, batch_size in itertools.product(chosen.backbones, chosen.images, batches)
    ]
    finish({"device": device.reason, "rounds": chosen.rounds, "feeding": feeding, "settings": settings})


if __name__ == "__main__":
    main()
