"""The features of EEG windows in plain NumPy, for a machine where they cannot be compiled.

Each function takes the arguments of the compiled function of the same name, scratch included, which it does not need,
and gives the same answer to the last few bits of float32, many times slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.features.differences_compiled import MIRRORED
from kagglehms.features.differences_plan import Rows, Signal
from kagglehms.features.filters import CAUSAL, LINEAR, Filter, linear_taps
from kagglehms.features.mel_compiled import AMIN, FLOOR
from kagglehms.features.mel_plan import MelPlan
from kagglehms.features.panels_compiled import EPSILON
from kagglehms.features.plain import Floats, floats
from kagglehms.features.simd import LANES
from kagglehms.features.spectra_plan import SpectraPlan
from kagglehms.features.transform_plan import Transform, untile
from kagglehms.features.zoom_plan import ZoomPlan

Wide = NDArray[np.float64]


# ---- differences


def _differences(eeg: NDArray[Any], with_midline: bool, mirror: bool) -> Wide:
    """Return (n_signals, n_times) differences of a flat (n_times, 20) window, gaps filled."""
    channels = dict(zip(CHANNELS, floats(eeg).reshape(-1, len(CHANNELS)).T, strict=True))
    pairs = [DIFFERENCES[lane] for lane in MIRRORED] if mirror else list(DIFFERENCES)
    if with_midline:
        pairs += MIDLINE_DIFFERENCES
    return np.stack([_filled(channels[first] - channels[second]) for first, second in pairs])


def _filled(difference: Wide) -> Wide:
    """Put the mean of what is present where values are missing; 0 where all are."""
    finite = np.isfinite(difference)
    return np.where(finite, difference, difference[finite].mean() if finite.any() else 0.0)


def difference_rows(
    eeg: NDArray[Any],
    out: Floats,
    _scratch: object,
    signal: Signal,
    rows: Rows,
    mirror: bool,
) -> None:
    """Write differences as rows of an image, see `differences_compiled.difference_rows`."""
    x = np.clip(_differences(eeg, rows.with_midline, mirror), -signal.clip, signal.clip) * signal.factor
    if signal.filter.kind == CAUSAL:
        x = _two_modes(x, signal.filter.modes.astype(np.float64))
    elif signal.filter.kind == LINEAR:
        x = _convolved(x, signal.filter.pad)
    kept = x[:, : rows.width * rows.phases * signal.step : signal.step]
    parts = kept.reshape(len(x), rows.width, rows.phases).transpose(0, 2, 1)
    out.reshape(parts.shape)[:] = parts


def _two_modes(x: Wide, coefficients: Wide) -> Wide:
    """Run the direct path and both modes, sample by sample."""
    direct, modes = coefficients[0], coefficients[1:].reshape(2, 4)
    poles = (modes[:, 0] + 1j * modes[:, 1])[:, None]
    # The real part of weight · state is the sum of both parts of the state, each by its own weight.
    weights = (modes[:, 2] - 1j * modes[:, 3])[:, None]
    state = np.zeros((2, len(x)), np.complex128)
    filtered = np.empty_like(x)
    for t in range(x.shape[1]):
        filtered[:, t] = direct * x[:, t] + (weights * state).real.sum(axis=0)
        state = poles * state + x[:, t]
    return filtered


def _convolved(x: Wide, pad: int) -> Wide:
    reach = min(pad, x.shape[1] - 1)
    reflected = np.pad(x, ((0, 0), (reach, reach)), "reflect", reflect_type="odd")
    padded = np.pad(reflected, ((0, 0), (pad - reach, pad - reach)))
    return np.stack([np.convolve(row, linear_taps(), "valid") for row in padded])


# ---- transforms


def _squared_magnitudes(after: Wide, before: Wide, plan: Transform) -> Wide:
    """Return (…, K) squared magnitudes of frames, from their (…, H) samples after and before the centre."""
    even, odd = untile(plan.project, plan.half)
    real, imaginary = (after + before) @ even.T, (after - before) @ odd.T
    if plan.rank:
        even, odd = (part[:, : plan.rank] for part in untile(plan.combine, plan.rank + 1))
        real, imaginary = real @ even.T, imaginary @ odd.T
    return real**2 + imaginary**2


def _mel_bands(x: Wide, first_centre: int, hop: int, n_frames: int, plan: MelPlan) -> Wide:
    """Return the (16, n_frames, M) power in the mel bands of frames of (16, n_times) signals."""
    centres, j = first_centre + hop * np.arange(n_frames)[:, None], np.arange(plan.transform.half)
    bins = _squared_magnitudes(x[:, centres + j], x[:, centres - j], plan.transform)
    in_band = bins[..., plan.band_start[:, None] + np.arange(plan.n_taps)]
    return np.asarray((in_band * plan.band_weight.reshape(-1, plan.n_taps)).sum(axis=-1))


def mel_image(eeg: NDArray[Any], out: Floats, _scratch: object, plan: MelPlan, n_frames: int) -> None:
    """Write the four mel images of one window, see `mel_compiled.mel_image`."""
    x = _differences(eeg, with_midline=False, mirror=False)
    n_times, half = x.shape[1], plan.transform.half
    hop = n_times // n_frames
    powers = _mel_bands(np.pad(x, ((0, 0), (half, half))), half, hop, 1 + n_times // hop, plan)
    loudest = np.maximum(powers.max(axis=(1, 2), keepdims=True), AMIN)
    relative = np.maximum(powers[:, :n_frames] / loudest, np.maximum(FLOOR, AMIN / loudest))
    levels = (10 * np.log10(relative) + 40) / 40
    images = levels.reshape(4, 4, n_frames, -1).mean(axis=1).transpose(0, 2, 1)
    out.reshape(images.shape)[:] = images


def zoom_image(
    eeg: NDArray[Any], out: Floats, _scratch: object, plan: ZoomPlan, filter_: Filter, mirror: bool
) -> None:
    """Write the mel spectra whose centre is finer, see `zoom_compiled.zoom_image`."""
    x = np.clip(_differences(eeg, False, mirror), -plan.clip, plan.clip) * plan.factor
    if filter_.kind == CAUSAL:
        x = _two_modes(x, filter_.modes.astype(np.float64))
    padded = np.pad(x, ((0, 0), (plan.pad, plan.pad)))
    left, centre, right = (
        _mel_bands(padded, plan.pad + s.first_centre, s.hop, s.n_columns, s.mel)
        for s in (plan.left, plan.centre, plan.right)
    )
    wide_floor = max(AMIN, plan.least * max(left.max(), right.max()))
    centre_floor = max(AMIN, plan.least * centre.max())
    floored = [np.maximum(bands, wide_floor) for bands in (left, right)]
    floored.insert(1, np.maximum(centre, centre_floor))
    joined = plan.per_octave * np.log2(np.concatenate(floored, axis=1)).transpose(0, 2, 1)
    others = (joined.sum(axis=0) - joined) / (len(joined) - 1)
    beside = (joined[plan.before] + joined[plan.after]) / 2
    planes = np.stack([joined, joined - others, joined - beside])
    out.reshape(planes.shape)[:] = planes


def difference_spectra(
    eeg: NDArray[Any], out: Floats, _scratch: object, plan: SpectraPlan, mirror: bool
) -> None:
    """Write the image of spectra of one window, see `spectra_compiled.difference_spectra`."""
    x = np.clip(_differences(eeg, plan.n_signals > LANES, mirror), -plan.clip, plan.clip)
    half = plan.transform.half
    blocks = []
    for start, hops in (plan.wide, plan.centre):
        frames = x[:, start + hops.hop * np.arange(plan.n_columns)[:, None] + np.arange(2 * half)]
        frames -= frames.mean(axis=-1, keepdims=True)
        power = _squared_magnitudes(frames[..., half:], frames[..., half:0:-1], plan.transform)
        blocks.append(np.log1p(power[:, :, : plan.n_bins] * plan.scale).transpose(0, 2, 1))
    image = np.stack(blocks, axis=1).reshape(-1, plan.n_columns)
    whole = np.zeros((plan.height, plan.width))
    whole[: len(image), : plan.n_columns] = image
    out.reshape(whole.shape)[:] = (whole - whole.mean()) / (whole.std() + EPSILON)
