"""Measure the statistics of training records by which panels are normalised globally."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import PANELS
from kagglehms.data.records import Records, Windows
from kagglehms.environment import available_cpus
from kagglehms.errors import RunError
from kagglehms.inputs.crops import Recordings, Window, cut, windows_of
from kagglehms.inputs.layouts import PANEL_SHAPES, Normaliser, Source
from kagglehms.inputs.rendering import draw_source
from kagglehms.progress import progress

if TYPE_CHECKING:
    from numpy.typing import NDArray


def measure(
    recordings: Recordings,
    records: Records,
    positions: NDArray[np.integer],
    sources: Collection[Source],
    windows: Windows = "middle",
) -> Normaliser:
    """Measure the mean and standard deviation of each source.

    Both are means over records of each record's own mean and standard deviation, as in the source's notebooks: every
    record has the same weight, and differences between records do not count.

    Args:
        recordings: source of the recordings.
        records: all records.
        positions: positions of the training records; no other record may contribute.
        sources: kinds of recordings to measure: log power, mel images, or both.
        windows: which window represents a record, see `data.records.Windows`.

    Returns:
        Mean and standard deviation of each source, without NaN and without records that have no value.

    Raises:
        RunError: no record has a value.
    """
    statistics: dict[Source, tuple[float, float]] = {}
    places = windows_of(records, positions, windows)
    with ThreadPoolExecutor(available_cpus(), "measure") as pool:
        for source in sorted(sources):
            measured = pool.map(partial(_moments, recordings, records, source), places)
            watched = progress(measured, len(positions), f"statistics of {source}")
            moments_N2 = np.array(list(watched))
            present = np.isfinite(moments_N2[:, 0])
            if not present.any():
                raise RunError(
                    f"none of {len(positions)} training records has a single {source} value, so there is nothing to "
                    "normalise by; look at the recordings with `kagglehms view`"
                )
            mean, std = moments_N2[present].mean(axis=0)
            statistics[source] = (float(mean), float(std))
    return Normaliser(statistics)


def _moments(recordings: Recordings, records: Records, source: Source, window: Window) -> tuple[float, float]:
    """Return mean and standard deviation of one record's panels; NaN without any value."""
    panels = np.empty((len(PANELS), *PANEL_SHAPES[source]), np.float32)
    draw_source(source, cut(recordings, records, window, {source}), panels)
    values = panels[np.isfinite(panels)].astype(np.float64)
    return (float(values.mean()), float(values.std())) if len(values) else (np.nan, np.nan)
