"""The features of panels in plain NumPy, for a machine where they cannot be compiled.

Each function takes the arguments of the compiled function of the same name and gives the same answer to the last few
bits of float32, many times slower. Arrays are flat, half precision comes as its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features.panels_compiled import EPSILON, Statistics

Floats = NDArray[np.float32]


def floats(source: NDArray[Any]) -> NDArray[np.float64]:
    """Return values as float64, NaN where they are not finite."""
    values = source.view(np.float16) if source.dtype == np.uint16 else source
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = np.nan
    return wide


# ---- normalisation


def normalise(source: NDArray[Any], out: Floats, first: int, size: int, width: int, by: Statistics) -> None:
    """Write normalised values, see `panels_compiled.normalise`."""
    for start in range(first, first + size, width):
        group = slice(start, start + width)
        out[group] = _normalised(floats(source[group]), by)


def normalise_rows(
    rows: NDArray[Any], out: Floats, n_times: int, n_columns: int, width: int, by: Statistics
) -> None:
    """Write the normalised columns of stored rows, see `panels_compiled.normalise_rows`."""
    columns = floats(rows).reshape(n_times, n_columns).T
    target = out.reshape(n_columns, n_times)
    for start in range(0, n_columns, width):
        group = slice(start, start + width)
        target[group] = _normalised(columns[group], by)


def _normalised(values: NDArray[np.float64], by: Statistics) -> NDArray[np.float64]:
    """Normalise `values` as one group."""
    mean, scale = by.mean, by.scale
    present = values[np.isfinite(values)]
    if not by.given and present.size:
        # Around the first, so that constants become exactly 0.
        mean, scale = present[0] + (present - present[0]).mean(), 1.0 / (present.std() + EPSILON)
    with np.errstate(over="ignore"):
        result = ((values - mean) * scale).astype(np.float32)
    return np.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0)


# ---- across four panels


def _across(flat: NDArray[Any], first: int, size: int, n: int) -> NDArray[Any]:
    """Return a (4, images, n) view of some images of a flat array."""
    return np.moveaxis(flat[first : first + size].reshape(-1, 4, n), 1, 0)


def _between(low: Floats, high: Floats, weight: float) -> Floats:
    """Interpolate as `numpy` does, starting from the nearer end."""
    if weight >= 0.5:
        return high - (high - low) * np.float32(1 - weight)
    return low + (high - low) * np.float32(weight)


def percentiles(panels: NDArray[Any], out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Write percentiles across four panels, see `across_compiled.percentiles`."""
    values = _across(floats(panels).astype(np.float32), first, size, n)
    present = np.isfinite(values).sum(axis=0)
    values = np.sort(values, axis=0)  # NaN last
    target = _across(out, first, size, n)
    target[:, present == 0] = 0
    for many in range(1, 5):
        pixels = present == many
        for row, quantile in zip(target, (0.2, 0.4, 0.6, 0.8), strict=True):
            at = (many - 1) * quantile
            below = int(at)
            above = min(below + 1, many - 1)
            row[pixels] = _between(values[below, pixels], values[above, pixels], at - below)


def summaries(panels: NDArray[Any], out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Write summaries across four panels, see `across_compiled.summaries`."""
    values = _across(floats(panels).astype(np.float32), first, size, n)
    missing = np.isnan(values)
    low = np.where(missing, np.float32(np.inf), values).min(axis=0)
    high = np.where(missing, np.float32(-np.inf), values).max(axis=0)
    present = 4 - missing.sum(axis=0)
    low[present == 0] = high[present == 0] = 0
    total = np.where(missing, np.float32(0), values).sum(axis=0, dtype=np.float32)
    mean = total / np.maximum(present, 1).astype(np.float32)
    _across(out, first, size, n)[:] = low, high, mean, high - low
