"""Front ends on the device: images per second drawn there, of EEG that lies there in half precision or is copied there.

Where the network outruns the cores that draw for it, this is what moves the crossing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from _feeding import wait
from _gpu_book import Book, figure
from torch import nn

from kagglehms.data.competition import CHANNELS, N_TIMES
from kagglehms.device import Device
from kagglehms.training.front_ends import (
    CausalBandPass,
    Differences,
    DifferencesOptions,
    Fold,
    MelImages,
    Spectrum,
    SpectrumOptions,
)

SAME_AS = {"mel images": "eeg+percentiles", "folded signals": "raw-fold", "spectra": "stft-50-10"}
"""Front end → the recipe whose input the cores draw instead (without the percentiles, which the cores add)."""


def measure(
    book: Book, device: Device, alone: dict[str, dict[str, float]], batch: int, seconds: float
) -> None:
    """Write down what each front end draws, beside what the cores draw of the same kind (`alone`, by recipe)."""
    host = torch.randn(batch, N_TIMES, len(CHANNELS), dtype=torch.float32).mul_(40).half()
    host = host.pin_memory() if device.name == "cuda" else host
    there, rows = host.to(device.name), []
    for name, make in _front_ends().items():
        with book.guarded(f"front end, {name}"):
            front_end = make().to(device.name)
            resident = _rate(lambda: front_end(there), batch, device, seconds)  # noqa: B023 (called here)
            copied = _rate(
                lambda: front_end(host.to(device.name, non_blocking=True)),  # noqa: B023
                batch,
                device,
                seconds,
            )
            cores = alone.get(SAME_AS[name], {}).get("all cores")
            book.note("front end", name=name, batch=batch, resident=resident, copied=copied, cores=cores)
            rows.append((name, figure(resident), figure(copied), figure(cores)))
    header = (
        "drawn on the device",
        "EEG lies there, images/s",
        "EEG is copied there",
        "by all cores instead",
    )
    book.table(f"### Front ends on the device, batches of {batch}", header, rows)


def _front_ends() -> dict[str, Callable[[], nn.Module]]:
    options = DifferencesOptions(midline=True)
    return {
        "mel images": MelImages,
        "folded signals": lambda: nn.Sequential(Differences(), CausalBandPass(), Fold()),
        "spectra": lambda: nn.Sequential(
            Differences(options), Spectrum(SpectrumOptions(unit_uv=options.unit_uv))
        ),
    }


@torch.inference_mode()
def _rate(draw: Callable[[], object], batch: int, device: Device, seconds: float) -> float:
    for _ in range(2):
        draw()
    wait(device)
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        draw()
        wait(device)
        n += batch
    return n / (time.perf_counter() - start)
