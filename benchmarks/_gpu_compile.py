"""Gain of torch.compile for B0, and what compiling costs."""

from __future__ import annotations

import time
from typing import Any

from _gpu_book import Book, figure
from _gpu_parts import Circumstances

BATCHES = (32, 256)


def run(told: Circumstances, book: Book) -> None:
    if told.dry_run:
        book.text("Not part of a dry run: a test compares a compiled network with its original.")
        return
    import torch
    from _feeding import make_feed, make_learner, make_records, network_steps, steps_in_turn
    from _gpu_feed import ROUNDS, SECONDS, Setting

    from kagglehms.device import choose_device

    device = choose_device(told.device)
    first_s = 10.0
    for batch in BATCHES:
        if not book.has_time(f"torch.compile, batch {batch}", 2 * first_s + 10):
            continue
        recipe, records = Setting("baseline", batch, backbone="efficientnet_b0").made, make_records()
        feed = make_feed(recipe, records, device)
        steps: dict[str, Any] = {}
        for name, wrap in (("eager", lambda model: model), ("compiled", torch.compile)):
            steps[name] = network_steps(device, feed, make_learner(recipe, device, wrap), batch)
        start = time.monotonic()
        steps["compiled"]()
        torch.cuda.synchronize()
        first_s = time.monotonic() - start
        book.note("first compiled step", batch=batch, seconds=first_s)
        took, memory = steps_in_turn(steps, device, ROUNDS, SECONDS, 0.05)
        book.note("compile", batch=batch, ms={n: 1e3 * v for n, v in took.items()}, peak_mb=memory)
        gain = took["eager"] / took["compiled"]
        row = (batch, *(figure(1e3 * v, ".1f") for v in took.values()), f"{gain:.2f} ×", f"{first_s:.0f}")
        header = ("batch", "eager, ms", "compiled, ms", "gain", "first step, s")
        book.table("B0, the network alone", header, [row])
