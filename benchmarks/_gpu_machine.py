"""The card, its driver and the libraries; what the card can multiply and copy; features compiled for what follows."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from _gpu_book import Book
from _gpu_parts import Circumstances
from _measure import machine, versions

PACKAGES = ("torch", "timm", "numpy", "numba", "scipy", "polars", "pydantic", "scikit-learn")
COPY_BYTES = 1 << 30
SIDE = 8192
"""Of the matrices that are multiplied."""


def run(told: Circumstances, book: Book) -> None:
    figures: dict[str, Any] = {"cpu": machine(), "versions": versions(*PACKAGES)}
    if not told.dry_run:
        figures |= card()
        with book.guarded("ceilings of the card"):
            figures |= ceilings()
    book.note("machine", **figures)
    book.text("\n".join(f"- {name}: {value}" for name, value in figures.items()))
    with book.guarded("compiling the features"):
        start = time.monotonic()
        compile_features(told.ladder if told.dry_run else None)
        seconds = round(time.monotonic() - start, 1)
        book.note("features compiled", seconds=seconds)
        book.text(f"- features compiled, or read from their cache, in {seconds} s")


def card() -> dict[str, Any]:
    """Name, memory and versions, from torch and the driver."""
    from kagglehms.device import choose_device

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    found = torch.cuda.get_device_properties(0)
    return {
        "card": found.name,
        "memory_GiB": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "driver": said,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "device": choose_device("cuda").reason,
    }


def ceilings() -> dict[str, float]:
    """TFLOP/s of a large product in half precision, and GB/s of a large copy, bytes read and written."""
    a = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    source = torch.empty(COPY_BYTES, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    multiplied, copied = _seconds(lambda: a @ a), _seconds(lambda: target.copy_(source))
    return {
        "matmul_bf16_TFLOPs": round(2 * SIDE**3 / multiplied / 1e12, 1),
        "copy_GBs": round(2 * COPY_BYTES / copied / 1e9, 1),
    }


def _seconds(work: Callable[[], object]) -> float:
    took = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()  # type: ignore[no-untyped-call]
        work()
        end.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        took.append(begin.elapsed_time(end) / 1e3)  # type: ignore[no-untyped-call]
    return statistics.median(took[3:])


def compile_features(names: Collection[str] | None = None) -> None:
    """Draw each recipe's input once, or that of those named, so that no part waits for Numba."""
    from _feeding import InMemory, make_records

    from kagglehms.inputs.layouts import Normaliser
    from kagglehms.training.feed import Feed
    from kagglehms.training.recipes import RECIPES

    records, normaliser = make_records(), Normaliser({"kaggle": (0.0, 1.0), "eeg": (0.0, 1.0)})
    for layout in {recipe.layout for name, recipe in RECIPES.items() if names is None or name in names}:
        feed = Feed(InMemory(), records, layout, normaliser)
        for batch in feed.batches(np.arange(2), 2):
            assert torch.isfinite(batch.images_BCHW).all()
