"""Draw docs/img/features.png: one simulated EEG window, its four mel images, and their error against float64.

python benchmarks/features_picture.py [--out docs/img/features.png]
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from _pictures import rendered, save
from numpy.typing import NDArray
from PIL import Image

from kagglehms.data.competition import CHAINS, CHANNELS, CLASSES, N_TIMES, PANELS, SFREQ_HZ
from kagglehms.features import mel_images
from kagglehms.report.drawing import SIDES
from kagglehms.report.style import COLOURS, LIGHT
from kagglehms.simulator.signal import MARGIN_S, Patient, Segment, simulate_study

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import oracles_features as oracle  # noqa: E402


def window() -> NDArray[np.float32]:
    """50 s of a simulated patient with lateralised periodic discharges, an electrode pop and a gap."""
    rng = np.random.default_rng(11)
    probabilities = np.full(len(CLASSES), 0.02)
    probabilities[CLASSES.index("lpd")] = 0.9
    patient = Patient(level_uv=16, alpha_uv=4, asymmetry=0.1, blinks_per_min=6, muscle_uv=4)
    study_CT = simulate_study(60, [(Segment(0, 60, tuple(probabilities)),)], patient, rng)
    first = MARGIN_S * SFREQ_HZ
    eeg_uv = np.ascontiguousarray(study_CT[:, first : first + N_TIMES].T)
    t = np.arange(N_TIMES)
    eeg_uv[:, CHANNELS.index("T4")] += np.where(t > 6000, 1500 * np.exp(-(t - 6000.0) / 150), 0).astype(
        np.float32
    )
    eeg_uv[2600:3400, CHANNELS.index("C3")] = np.nan
    return eeg_uv


def worst_of_blocks(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The greatest error in each 4 × 4 pixels."""
    return error.reshape(error.shape[0] // 4, 4, error.shape[1] // 4, 4).max(axis=(1, 3))


def draw(eeg_uv: NDArray[np.float32]) -> Any:
    from matplotlib import pyplot as plt

    images = mel_images(eeg_uv[None])[0]
    error = np.abs(images - oracle.mel_image(eeg_uv))
    figure = plt.figure(figsize=(11, 8.2), layout="constrained")
    grid = figure.add_gridspec(4, 3, width_ratios=(1.45, 1, 1))
    traces = figure.add_subplot(grid[:, 0])
    seconds = np.arange(N_TIMES) / SFREQ_HZ
    row = 0
    for panel in PANELS:
        colour = COLOURS[SIDES[panel]]
        for first, second in pairwise(CHAINS[panel]):
            x = eeg_uv[:, CHANNELS.index(first)] - eeg_uv[:, CHANNELS.index(second)]
            traces.plot(seconds[::4], np.clip(x, -190, 190)[::4] / 150 - row, color=colour, linewidth=0.45)
            traces.text(-0.6, -row, f"{first}–{second}", ha="right", va="center", fontsize=7, color=LIGHT.ink)
            row += 1
        row += 0.6
    traces.plot((50.8, 50.8), (-1, 0), color=LIGHT.ink, linewidth=1.5, clip_on=False)
    traces.text(51.1, -0.5, "150 µV", fontsize=7, va="center", rotation=90)
    traces.set(
        xlim=(0, 50),
        ylim=(-row + 0.4, 1.2),
        yticks=[],
        xlabel="seconds of the window",
        title="sixteen differences (µV)",
    )
    traces.spines[["left", "right", "top"]].set_visible(False)
    for i, panel in enumerate(PANELS):
        left, right = figure.add_subplot(grid[i, 1]), figure.add_subplot(grid[i, 2])
        shown = left.imshow(
            images[i],
            origin="lower",
            aspect="auto",
            extent=(0, 50, 0, 20),
            vmin=-1,
            vmax=1,
            cmap=mpl.colormaps["magma"].resampled(72),
        )
        wrong = right.imshow(
            np.log10(np.maximum(worst_of_blocks(error[i]), 1e-9)), origin="lower", aspect="auto",
            extent=(0, 50, 0, 20), vmin=-7.5, vmax=-5, cmap=mpl.colormaps["viridis"].resampled(48),
        )  # fmt: skip
        left.set_ylabel(f"{panel}   Hz")
        right.set_yticks([])
        right.text(
            0.98, 0.93, f"max {error[i].max():.0e}, mean {error[i].mean():.0e}",
            transform=right.transAxes, ha="right", va="top", fontsize=7.5, color=COLOURS["mark"],
        )  # fmt: skip
        if i < 3:
            left.set_xticks([])
            right.set_xticks([])
        else:
            left.set_xlabel("seconds of the window")
            right.set_xlabel("seconds of the window")
            figure.colorbar(shown, ax=left, location="bottom", label="(mean of four dB + 40) / 40", aspect=35)
            figure.colorbar(wrong, ax=right, location="bottom", label="log10 |error|", aspect=35)
        if i == 0:
            left.set_title("mel images")
            right.set_title("error against float64 (worst of 4 × 4)")
    return figure


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "img" / "features.png")
    out: Path = arguments.parse_args().out
    mpl.use("Agg")
    save(rendered(draw(window()), dpi=100), out, 256, Image.Quantize.MAXCOVERAGE)


if __name__ == "__main__":
    main()
