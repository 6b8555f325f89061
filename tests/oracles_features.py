"""The features once more, in plain NumPy float64, straight from their definitions and without a shared line."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def finite_or_nan(values: NDArray[Any]) -> F64:
    """float64 with NaN for what is not finite."""
    wide = np.asarray(values, np.float64)
    return np.where(np.isfinite(wide), wide, np.nan)


def normalise(
    log_power: NDArray[Any], mean: float | None = None, std: float | None = None, over: str = "image"
) -> F64:
    """(…, 4, F, T) log power → normalised, NaN → 0."""
    values = finite_or_nan(log_power)
    axes = (-3, -2, -1) if over == "image" else (-2, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        centre = np.nanmean(values, axis=axes, keepdims=True) if mean is None else mean
        spread = np.nanstd(values, axis=axes, keepdims=True) if std is None else std
    return np.nan_to_num((values - centre) / (spread + 1e-6), nan=0.0)


def log_normalise(
    power: NDArray[Any], mean: float | None = None, std: float | None = None, over: str = "image"
) -> F64:
    """(…, 4, F, T) power → clipped to [e⁻⁴, e⁸], logarithm, normalised, NaN → 0."""
    values = finite_or_nan(power)
    return normalise(np.log(np.clip(values, np.exp(-4.0), np.exp(8.0))), mean, std, over)


def panels_of_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """(T, 4·F) stored rows → (4, F, T)."""
    n_times, n_columns = rows.shape
    return np.moveaxis(rows.reshape(n_times, 4, n_columns // 4), 0, -1)


def percentiles(panels: NDArray[Any]) -> F64:
    """(…, 4, F, T) → 20th, 40th, 60th and 80th percentile of the panels present; 0 where there is none."""
    values = finite_or_nan(panels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(
            np.stack([np.nanpercentile(values, q, axis=-3) for q in (20, 40, 60, 80)], axis=-3)
        )


def summaries(panels: NDArray[Any]) -> F64:
    """(…, 4, F, T) → minimum, maximum, mean and range of the panels present; 0 where there is none."""
    values = finite_or_nan(panels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanmin(values, axis=-3), np.nanmax(values, axis=-3)
        return np.nan_to_num(np.stack([low, high, np.nanmean(values, axis=-3), high - low], axis=-3))
