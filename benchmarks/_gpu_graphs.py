"""What replaying a network as a CUDA graph gains, and what recording it costs."""

from __future__ import annotations

import time
from typing import Any

import torch
from _feeding import make_feed, make_learner, make_records, network_steps, steps_in_turn, wait
from _gpu_book import Book, figure
from _gpu_feed import SETTINGS_DRY, Setting, each_in_time, forget, turns
from _gpu_parts import Circumstances

from kagglehms.device import Device, choose_device
from kagglehms.training.cuda_graphs import GraphedNetwork

SETTINGS = (
    Setting("baseline", 32, backbone="efficientnet_b0"),
    Setting("raw-fold", 32),
    Setting("eeg+percentiles", 32),
    Setting("baseline", 32, backbone="efficientnet_b4"),
    Setting("stft-50-10", 32),
)
FIRST_S = 8.0
"""What a setting is taken to need before one has been measured."""
HEADER = ("", "kernel by kernel, ms", "as a graph, ms", "gain", "recording, s", "MB it keeps")


def run(told: Circumstances, book: Book) -> None:
    device = choose_device(told.device)
    book.table("The network alone", HEADER, [])
    settings = SETTINGS_DRY if told.dry_run else SETTINGS
    each_in_time(told, book, settings, lambda setting: _setting(book, setting, device), FIRST_S, "graph of ")


def _setting(book: Book, setting: Setting, device: Device) -> None:
    recipe = setting.made
    feed = make_feed(recipe, make_records(), device)
    graphs: list[GraphedNetwork] = []

    def graphed(model: Any) -> GraphedNetwork:
        graphs.append(GraphedNetwork(model, device))
        return graphs[-1]

    steps = {
        name: network_steps(device, feed, make_learner(recipe, device, wrap), setting.batch)
        for name, wrap in (("plain", lambda model: model), ("graph", graphed))
    }
    steps["graph"]()
    forget(device)
    before, start = _reserved(device), time.monotonic()
    steps["graph"]()
    wait(device)
    recording_s = time.monotonic() - start
    forget(device)
    kept_mb = (_reserved(device) - before) / 1e6
    took, _ = steps_in_turn(steps, device, *turns(device), 0.05)
    gain = took["plain"] / took["graph"]
    book.note(
        "graph",
        setting=setting.name,
        recorded=graphs[0].is_recorded,
        ms={name: 1e3 * value for name, value in took.items()},
        gain=gain,
        recording_s=recording_s,
        kept_mb=kept_mb,
    )
    times = (figure(1e3 * took[name], ".1f") for name in steps)
    book.row((setting.name, *times, f"{gain:.2f} ×", figure(recording_s, ".1f"), figure(kept_mb)))


def _reserved(device: Device) -> int:
    return torch.cuda.memory_reserved() if device.name == "cuda" else 0
