"""Draw docs/img/simulator_*.png: traces of each class, spectrograms, and statistics beside real recordings.

python benchmarks/simulator_pictures.py [--out docs/img] [--real hms/]

With `--real`, a folder in the competition's format, the side-by-side table of docs/simulator.md is printed too, and
the picture of statistics shows the real recordings' values (numbers, never signals) beside the simulated ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import _pictures
import matplotlib as mpl
import numpy as np
from _measure import table
from numpy.typing import NDArray
from PIL import Image

from kagglehms.data.competition import (
    CHAINS,
    CHANNELS,
    CLASSES,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_ROWS,
)
from kagglehms.report.drawing import CLASS_NAMES, SIDES
from kagglehms.report.style import COLOURS, LIGHT
from kagglehms.simulator.signal import MARGIN_S, Patient, Segment, simulate_study, spectrogram

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from eeg_statistics import eeg_statistics, panel_statistics, side_by_side, statistics_of  # noqa: E402
from recordings_to_compare import simulated_recording  # noqa: E402

SHOWN_S = 10
PATIENT = Patient(
    level_uv=10, slow_uv=8, alpha_uv=5, asymmetry=0.1, frontality=0.3, unevenness=0.25, restlessness=0.35,
    irregularity=0.7, lesion=0.6, reference_uv=8, floor_uv=1, muscle_uv=3, line_uv=1,
)  # fmt: skip


def typical(name: str, seed: int = 3) -> NDArray[np.float32]:
    """A study of one patient whose labelled stretch is almost surely of one class, (20, n_times)."""
    probabilities = np.full(len(CLASSES), 0.01)
    probabilities[CLASSES.index(name)] = 0.95
    segment = Segment(280, 320, tuple(probabilities.tolist()))
    return simulate_study(600, [(segment,)], PATIENT, np.random.default_rng(seed))


def traces(studies: dict[str, NDArray[np.float32]]) -> Any:
    """Ten seconds of all sixteen differences, class by class."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 8.2), layout="constrained")
    for axis, (name, uv_CT) in zip(axes.flat, studies.items(), strict=True):
        first = (MARGIN_S + 295) * SFREQ_HZ
        part = uv_CT[:, first : first + SHOWN_S * SFREQ_HZ]
        row = 0.0
        for panel in PANELS:
            for a, b in pairwise(CHAINS[panel]):
                x = part[CHANNELS.index(a)] - part[CHANNELS.index(b)]
                axis.plot(
                    np.arange(len(x))[::2] / SFREQ_HZ,
                    np.clip(x, -150, 150)[::2] / 110 - row,
                    color=COLOURS[SIDES[panel]],
                    lw=0.5,
                )
                row += 1
            row += 0.6
        axis.set(xlim=(0, SHOWN_S), ylim=(-row + 0.2, 1.3), yticks=[], title=CLASS_NAMES[name])
        axis.spines[["left", "right", "top"]].set_visible(False)
    axes[1, 1].set_xlabel("seconds; from above LL, RL, LP, RP; one row is 110 µV")
    return figure


def panels(studies: dict[str, NDArray[np.float32]]) -> Any:
    """Ten minutes of the left and right lateral panels, class by class."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained", sharex=True, sharey=True)
    for column, (name, uv_CT) in enumerate(studies.items()):
        power = spectrogram(uv_CT, SPECTROGRAM_ROWS).reshape(SPECTROGRAM_ROWS, 4, 100)
        for row in range(2):
            shown = axes[row, column].imshow(
                np.log(np.clip(power[:, row], np.exp(-4), np.exp(8))).T, origin="lower", aspect="auto",
                extent=(0, 600, 0.6, 19.9), vmin=-3, vmax=6, cmap=mpl.colormaps["magma"].resampled(64),
            )  # fmt: skip
            axes[row, 0].set_ylabel(f"{PANELS[row]}   Hz")
        axes[0, column].set_title(CLASS_NAMES[name])
        axes[1, column].set_xlabel("seconds")
    figure.colorbar(shown, ax=axes, label="ln(µV²/Hz)", aspect=30)
    return figure


def one_recording(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Statistics of a random patient's EEG of 70 s and of its spectrogram."""
    eeg_TC, power_TF = simulated_recording(seed)
    return eeg_statistics(eeg_TC), panel_statistics(power_TF)


def statistics_picture(rows: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> Any:
    """Each statistic on a scale of its own: the simulated 5th to 95th percentile, the real values as dots."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.27 * len(rows) + 0.8), layout="constrained")
    for place, (_, real, (low, middle, high)) in enumerate(rows):
        axis.plot((0, 1), (place, place), color=LIGHT.rule, lw=7, solid_capstyle="butt")
        axis.plot(((middle - low) / (high - low),) * 2, (place - 0.3, place + 0.3), color=LIGHT.soft, lw=2)
        axis.plot((real - low) / (high - low), np.full(len(real), place), "o", color=LIGHT.ink, ms=4)
    axis.set(yticks=range(len(rows)), xlim=(-0.8, 1.8), ylim=(len(rows) - 0.4, -0.6), xticks=(0, 1))
    axis.set_yticklabels([name for name, _, _ in rows], fontsize=8)
    axis.set_xticklabels(("simulated 5 %", "simulated 95 %"))
    axis.spines[["left", "right", "top"]].set_visible(False)
    return figure


def save(figure: Any, path: Path) -> None:
    _pictures.save(_pictures.rendered(figure, dpi=95), path, 128, Image.Quantize.MAXCOVERAGE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    parser.add_argument("--real", type=Path, help="a folder in the competition's format, to compare with")
    parser.add_argument("--recordings", type=int, default=100, help="simulated recordings to compare with")
    options = parser.parse_args()
    mpl.use("Agg")
    studies = {name: typical(name) for name in CLASSES}
    save(traces(studies), options.out / "simulator_traces.png")
    save(panels(studies), options.out / "simulator_panels.png")
    if options.real is None:
        return
    real_eegs, real_panels = statistics_of(options.real)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(one_recording, range(options.recordings)))
    rows = side_by_side(real_eegs, [m[0] for m in made]) + side_by_side(real_panels, [m[1] for m in made])
    save(statistics_picture(rows), options.out / "simulator_statistics.png")
    print(f"real: n = {len(real_eegs)} EEGs, {len(real_panels)} spectrograms; simulated: n = {len(made)}")
    print(
        table(
            ("statistic", "real: least, median, most", "simulated: 5 %, median, 95 %"),
            (
                (name, ", ".join(f"{x:.2f}" for x in (real[0], np.median(real), real[-1])),
                 ", ".join(f"{x:.2f}" for x in made_q))
                for name, real, made_q in rows
            ),
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
