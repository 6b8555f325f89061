"""Four panels, LL, RL, LP and RP: normalisation, percentiles, min/max/mean/range across them.

Shapes: F frequency bins, T time steps, `…` any batch axes. A panel array is (…, 4, F, T); the store's rows, log
power in the order of the spectrogram files, are (T, 4·F), and panel p is the transpose of columns p·F … (p+1)·F.

Missing values are NaN; ±inf counts as NaN. Statistics are computed from the values that are present. A missing value
becomes 0 when it is normalised, and so does a percentile or summary of four missing values.

Every function runs in one thread unless `threads` is greater than 1, releases the GIL, and allocates nothing but an
`out` that the caller does not provide. Sums are float32 within a lane of a block, float64 beyond.

Sources: the normalisation is that of the public solution "HMS-Harmful Brain Activity Classification" (Cranjis-McB);
percentiles are `numpy.percentile`'s linear method on float32.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PANELS
from kagglehms.features import across_compiled, panels_compiled, plain
from kagglehms.features.arrays import as_source, as_they_are, expected, output, spread
from kagglehms.features.jit import Compiled
from kagglehms.features.panels_compiled import EPSILON, Statistics

Over = Literal["image", "panel"]

N_PANELS = len(PANELS)
PAST_CACHES_BYTES = 8 << 20
"""Size of results that would leave the caches before they are read again."""

_normalise = Compiled(panels_compiled.normalise, plain.normalise)
_normalise_rows = Compiled(panels_compiled.normalise_rows, plain.normalise_rows)
_percentiles = Compiled(across_compiled.percentiles, plain.percentiles)
_summaries = Compiled(across_compiled.summaries, plain.summaries)
_OWN_STATISTICS = Statistics(False, 0.0, 1.0)


# ---- public functions


def normalise(
    log_power: NDArray[Any],
    mean: float | None = None,
    std: float | None = None,
    *,
    over: Over = "image",
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Normalise panels: subtract a mean, divide by a standard deviation, replace missing values by 0.

    Args:
        log_power: (…, 4, F, T) float32 or float16 logarithms of power.
        mean: mean of log power over the training records, for global normalisation; goes with `std`.
        std: standard deviation that belongs to `mean`.
        over: scope of the statistics if `mean` and `std` are None: the four panels of an `image` together, or each
            `panel` alone.
        out: (…, 4, F, T) float32, C-contiguous.
        threads: number of Python threads that share the images.

    Returns:
        (…, 4, F, T) float32: (log power − mean) / (std + 1e-6), 0 where power is missing.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    source, result = _pair(log_power, out)
    by = _statistics(mean, std)
    n_pixels = source.shape[-2] * source.shape[-1]
    width = _group(over, n_pixels)
    run = _normalise if width >= panels_compiled.LANES else _normalise.plain
    _run(run, source.ravel(), result.ravel(), N_PANELS * n_pixels, (width, by), threads)
    return result


def normalise_rows(
    log_rows: NDArray[Any],
    out: NDArray[np.float32],
    mean: float | None = None,
    std: float | None = None,
    *,
    over: Over = "image",
) -> NDArray[np.float32]:
    """Normalise the stored rows of one record and turn them into panels, in one pass.

    Args:
        log_rows: (T, 4·F) float16 or float32 log power, for example a slice of a memory map.
        out: (4, F, T) or (4·F, T) float32, C-contiguous.
        mean: mean of log power over the training records, for global normalisation; goes with `std`.
        std: standard deviation that belongs to `mean`.
        over: scope of the statistics if `mean` and `std` are None, as in `normalise`.

    Returns:
        `out`.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    rows = as_source(log_rows, "log_rows", "(T, 4·F)")
    if rows.ndim != 2 or rows.shape[1] % N_PANELS or not rows.size:
        raise expected("log_rows", "(T, 4·F)", rows)
    n_times, n_columns = rows.shape
    n_bins = n_columns // N_PANELS
    as_panels = getattr(out, "ndim", 0) == 3
    flat = output(out, (N_PANELS, n_bins, n_times) if as_panels else (n_columns, n_times)).reshape(-1)
    by, width = _statistics(mean, std), _group(over, n_bins)
    narrow = width < panels_compiled.SIDE or n_times < panels_compiled.LANES
    run = _normalise_rows.plain if narrow else _normalise_rows
    run(rows.reshape(-1), flat, n_times, n_columns, width, by)
    return out


def percentiles(
    panels: NDArray[Any], *, out: NDArray[np.float32] | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Compute percentiles 20, 40, 60 and 80 across the four panels, pixel by pixel.

    Args:
        panels: (…, 4, F, T) float32 or float16.
        out: (…, 4, F, T) float32, C-contiguous, not overlapping `panels`.
        threads: number of Python threads that share the images.

    Returns:
        (…, 4, F, T) float32, the percentiles in rising order; bit by bit those of `np.percentile(panels, q, axis=-3)`
        of NumPy 2.4 for float32. Missing panels are left out, as in `np.nanpercentile`.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    return _across(_percentiles, panels, out, threads)


def summaries(
    panels: NDArray[Any], *, out: NDArray[np.float32] | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Compute minimum, maximum, mean and range (maximum − minimum) across the four panels, pixel by pixel.

    Args:
        panels: (…, 4, F, T) float32 or float16.
        out: (…, 4, F, T) float32, C-contiguous, not overlapping `panels`.
        threads: number of Python threads that share the images.

    Returns:
        (…, 4, F, T) float32: minimum, maximum, mean, range. Missing panels are left out.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used.
    """
    return _across(_summaries, panels, out, threads)


# ---- from the caller's arrays to flat ones


def _statistics(mean: float | None, std: float | None) -> Statistics:
    if mean is std is None:
        return _OWN_STATISTICS
    if mean is None or std is None:
        raise expected("mean and std", "both or neither", f"mean={mean}, std={std}")
    if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
        raise expected("mean and std", "finite numbers, std ≥ 0", f"mean={mean}, std={std}")
    return Statistics(True, float(mean), 1.0 / (float(std) + EPSILON))


def _group(over: Over, n_panel: int) -> int:
    """Return the number of neighbours that share their statistics, of which `n_panel` make a panel."""
    if over not in ("image", "panel"):
        raise expected("over", "'image' or 'panel'", repr(over))
    return n_panel * N_PANELS if over == "image" else n_panel


def _panel_source(panels: NDArray[Any]) -> NDArray[Any]:
    source = as_source(panels, "panels", "(…, 4, F, T)")
    if source.ndim < 3 or source.shape[-3] != N_PANELS or 0 in source.shape[-2:]:
        raise expected("panels", "(…, 4, F, T)", panels)
    return source


def _pair(panels: NDArray[Any], out: Any) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return panels and result as compiled code takes them."""
    if as_they_are(panels, out) and panels.ndim >= 3 and panels.shape[-3] == N_PANELS and panels.size:
        return panels, out
    source = _panel_source(panels)
    return source, output(out, source.shape)


def _run(run: Any, source: Any, out: Any, size: int, how: tuple[Any, ...], threads: int) -> None:
    """Run on all images at once, or on images of `size` elements in several threads."""
    if threads == 1:
        run(source, out, 0, source.size, *how)
        return

    def work(image: int) -> None:
        run(source, out, image * size, size, *how)

    spread(work, source.size // size, threads)


def _across(feature: Compiled, panels: NDArray[Any], out: Any, threads: int) -> NDArray[np.float32]:
    source, result = _pair(panels, out)
    if np.may_share_memory(source, result):
        raise expected("out", "an array apart from panels", "one that overlaps them")
    n_pixels = source.shape[-2] * source.shape[-1]
    run = feature if n_pixels >= across_compiled.WIDTH else feature.plain
    past = result.nbytes >= PAST_CACHES_BYTES and n_pixels % 8 == 0 and result.ctypes.data % 32 == 0
    _run(run, source.ravel(), result.ravel(), N_PANELS * n_pixels, (n_pixels, past), threads)
    return result
