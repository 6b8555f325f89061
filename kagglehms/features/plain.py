"""The features once more in plain NumPy, for a machine where they cannot be compiled.

Same arguments, same answer to the last few bits of float32, many times slower. Each writes to a flat `out`; sources
come flat as well, half precision as its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS

Floats = NDArray[np.float32]

EPSILON = 1e-6
"""Added to a standard deviation, as the source does."""


def floats(source: NDArray[Any]) -> NDArray[np.float64]:
    """Return values as float64, NaN where they are not finite."""
    values = source.view(np.float16) if source.dtype == np.uint16 else source
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = np.nan
    return wide


def _normal(values: NDArray[np.float64], given: bool, mean: float, scale: float) -> NDArray[np.float64]:
    """Normalise `values` as one group."""
    present = values[np.isfinite(values)]
    if not given and present.size:
        # Around the first, so that constants become exactly 0.
        mean, scale = present[0] + (present - present[0]).mean(), 1.0 / (present.std() + EPSILON)
    with np.errstate(over="ignore"):
        result = ((values - mean) * scale).astype(np.float32)
    return np.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0)


def normalise(
    source: NDArray[Any],
    out: Floats,
    first: int,
    size: int,
    width: int,
    given: bool,
    mean: float,
    scale: float,
) -> None:
    """Twin of `panels_compiled.normalise`."""
    _normalise(floats(source[first : first + size]), out[first : first + size], width, given, mean, scale)


def _normalise(
    values: NDArray[np.float64], out: Floats, width: int, given: bool, mean: float, scale: float
) -> None:
    for start in range(0, values.size, width):
        group = slice(start, start + width)
        out[group] = _normal(values[group], given, mean, scale)


def normalise_rows(
    rows: NDArray[Any],
    out: Floats,
    n_times: int,
    n_columns: int,
    width: int,
    given: bool,
    mean: float,
    scale: float,
) -> None:
    """Twin of `panels_compiled.normalise_rows`."""
    columns = floats(rows).reshape(n_times, n_columns).T
    target = out.reshape(n_columns, n_times)
    for start in range(0, n_columns, width):
        group = slice(start, start + width)
        target[group] = _normal(columns[group], given, mean, scale)


def _between(low: Floats, high: Floats, weight: float) -> Floats:
    if weight >= 0.5:
        return high - (high - low) * np.float32(1 - weight)
    return low + (high - low) * np.float32(weight)


def percentiles(panels: NDArray[Any], out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Twin of `across_compiled.percentiles`."""
    values = np.moveaxis(floats(panels[first : first + size]).astype(np.float32).reshape(-1, 4, n), 1, 0)
    present = np.isfinite(values).sum(axis=0)
    values = np.sort(values, axis=0)  # NaN last
    target = np.moveaxis(out[first : first + size].reshape(-1, 4, n), 1, 0)
    target[:, present == 0] = 0
    for many in range(1, 5):
        pixels = present == many
        for row, quantile in zip(target, (0.2, 0.4, 0.6, 0.8), strict=True):
            at = (many - 1) * quantile
            below = int(at)
            above = min(below + 1, many - 1)
            row[pixels] = _between(values[below, pixels], values[above, pixels], at - below)


def summaries(panels: NDArray[Any], out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Twin of `across_compiled.summaries`."""
    values = np.moveaxis(floats(panels[first : first + size]).astype(np.float32).reshape(-1, 4, n), 1, 0)
    missing = np.isnan(values)
    low = np.where(missing, np.float32(np.inf), values).min(axis=0)
    high = np.where(missing, np.float32(-np.inf), values).max(axis=0)
    present = 4 - missing.sum(axis=0)
    low[present == 0] = high[present == 0] = 0
    total = np.where(missing, np.float32(0), values).sum(axis=0, dtype=np.float32)
    mean = total / np.maximum(present, 1).astype(np.float32)
    np.moveaxis(out[first : first + size].reshape(-1, 4, n), 1, 0)[:] = low, high, mean, high - low


def mel_image(
    eeg: NDArray[Any], out: Floats, differences: Floats, folded: Floats, kept: Floats, power: Floats, bands: Floats,
    rows: Floats, weights: Floats, start: NDArray[np.int64], weight: Floats,
    pair_start: NDArray[np.int64], pair_weight: Floats,
    n_times: int, hop: int, n_frames: int, half: int, rank: int, n_bins: int, n_mels: int, n_taps: int,
) -> None:  # fmt: skip
    """Twin of `mel_compiled.mel_image`; it needs no scratch."""
    lanes = mel_differences(floats(eeg).reshape(n_times, -1))
    padded = np.pad(lanes, ((half, half), (0, 0)))
    centres = half + hop * np.arange(1 + n_times // hop)[:, None]
    j = np.arange(half)
    after, before = padded[centres + j], padded[centres - j]  # (frame, j, lane)
    even_rows, odd_rows = untile(rows, half)
    even_weights, odd_weights = (part[:, :rank] for part in untile(weights, rank + 1))
    real = even_weights @ (even_rows @ (after + before))
    imaginary = odd_weights @ (odd_rows @ (after - before))
    bins = real**2 + imaginary**2
    taps = weight.reshape(n_mels, n_taps)
    powers = sum(taps[:, tap, None] * bins[:, start + tap] for tap in range(n_taps))
    loudest = np.maximum(powers.max(axis=(0, 1)), 1e-10)
    relative = np.maximum(powers[:n_frames] / loudest, np.maximum(1e-8, 1e-10 / loudest))
    levels = (10 * np.log10(relative) + 40) / 40
    out.reshape(4, n_mels, n_frames)[:] = (
        levels.reshape(n_frames, n_mels, 4, 4).mean(axis=2).transpose(2, 1, 0)
    )


def mel_differences(eeg: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_times, 20) µV → (n_times, 16): the p-th difference of chain c in column 4·p + c, gaps filled by its mean."""
    columns = []
    for p in range(4):
        for chain in CHAINS.values():
            difference = eeg[:, CHANNELS.index(chain[p])] - eeg[:, CHANNELS.index(chain[p + 1])]
            present = difference[np.isfinite(difference)]
            mean = present.mean() if present.size else 0.0
            columns.append(np.where(np.isfinite(difference), difference, mean))
    return np.stack(columns, axis=1)


def untile(tiles: Floats, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the even and the odd rows, each (n, width), of what `transform_plan` laid out in tiles."""
    parts = tiles.astype(np.float64).reshape(-1, width, 2, 3)
    even, odd = (parts[:, :, parity].transpose(0, 2, 1).reshape(-1, width) for parity in (0, 1))
    return even, odd
