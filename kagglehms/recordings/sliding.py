"""Where windows are laid over a recording, and what is wrong with each of them.

A window is 50 s; its middle 10 s are what is judged. Windows are flagged, not guessed: one that reaches beyond the
recording, touches an interruption, or shows a flat line or artefacts where EEG should be has no probabilities unless
somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CHANNELS, LABEL_S, N_TIMES, SFREQ_HZ, WINDOW_S
from kagglehms.errors import UsageError
from kagglehms.recordings.channels import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAD_S = (WINDOW_S - LABEL_S) // 2
"""Seconds of a window before the judged ones, and after them."""
LEAST_EVERY_S = 1.0

GAP_SHARE = 0.02
"""Share of samples of the 50 s, over all differences, whose lack makes a window one with a gap: a second."""
FLAT_UV = 0.5
"""Peak to peak of a second that is flat: below what any amplifier shows of a head, even of one without activity."""
FLAT_SHARE = 0.25
"""Share of the judged seconds, over all differences, that makes a window a flat one."""
ARTEFACT_UV = 800.0
"""Peak to peak of a difference within a second that is no EEG."""
MUSCLE_UV = 40.0
"""Root mean square of the change from sample to sample (5 ms), beyond which muscle or mains cover all EEG."""
ARTEFACT_SHARE = 0.5
"""Share of the judged seconds, over all differences, that makes a window one of artefacts."""
FAR_UV, FAR_SHARE = 256.0, 0.01
"""From where half precision has steps of 0.25 µV and more; the share of samples beyond it that is passed over, as an
artefact."""


@dataclass(frozen=True)
class Flags:
    """What is wrong with a window.

    Attributes:
        edge: its 50 s reach beyond the recording.
        gap: samples are missing in it, more than a second's.
        flat: a quarter or more of the judged seconds, over all differences, is a flat line.
        artefact: half or more of the judged seconds, over all differences, is too large or too fast to be EEG.
    """

    edge: bool
    gap: bool
    flat: bool
    artefact: bool

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(getattr(self, name) for name in FLAGS)


FLAGS = tuple(field.name for field in fields(Flags))
"""The names of the flags, in the order of the output's columns."""


def check_every(every_s: float) -> int:
    """Return how many samples at 200 Hz lie between two windows.

    Raises:
        UsageError: less than a second, or no whole number of samples.
    """
    step = round(every_s * SFREQ_HZ) if isinstance(every_s, Real) and np.isfinite(float(every_s)) else 0
    if step < LEAST_EVERY_S * SFREQ_HZ or abs(step - every_s * SFREQ_HZ) > 1e-6:
        raise UsageError(
            f"windows can begin every second or more, in whole samples of 5 ms, but not every {every_s!r} s"
        )
    return step


def window_starts(spans: Sequence[tuple[int, int]], every_s: float) -> NDArray[np.int64]:
    """Lay windows over a recording.

    Args:
        spans: samples at 200 Hz, from and to before, of the parts that were recorded.
        every_s: seconds from one window to the next.

    Returns:
        (n,) the first judged sample of each window, multiples of `every_s`; windows of which no judged sample lies in
        a part are left out.

    Raises:
        UsageError: `every_s` is less than a second or no whole number of samples.
    """
    step = check_every(every_s)
    found: dict[int, None] = {}
    for first, stop in spans:
        least = max(0, (first - LABEL_S * SFREQ_HZ) // step + 1)
        found.update(dict.fromkeys(range(least, -(-stop // step))))
    return step * np.array(list(found), np.int64)


def inspect_window(
    uv_TC: NDArray[np.floating],
    pairs: Collection[Pair],
    inside: tuple[int, int] = (0, N_TIMES),
    measured: Collection[str] = (),
) -> Flags:
    """Tell what is wrong with a window.

    Args:
        uv_TC: (10,000, 20) µV, channels as in `competition.CHANNELS`; NaN where nothing was recorded.
        pairs: the differences that models look at and that the recording has.
        inside: the samples of the window, from and to before, that lie within the recording.
        measured: electrodes of a channel of their own, whose flat lines count too.
    """
    index = {name: i for i, name in enumerate(CHANNELS)}
    plus, minus = (uv_TC[:, [index[pair[side]] for pair in pairs]] for side in (0, 1))
    differences_TP = plus.astype(np.float32) - minus.astype(np.float32)
    missing = ~np.isfinite(differences_TP[inside[0] : inside[1]])
    judged_TP = differences_TP[LEAD_S * SFREQ_HZ : (LEAD_S + LABEL_S) * SFREQ_HZ]
    electrodes_TC = uv_TC[
        LEAD_S * SFREQ_HZ : (LEAD_S + LABEL_S) * SFREQ_HZ, [index[name] for name in measured]
    ]
    return Flags(
        edge=inside != (0, N_TIMES),
        gap=bool(missing.size) and float(missing.mean()) > GAP_SHARE,
        flat=max(_share_flat(judged_TP), _share_flat(electrodes_TC)) >= FLAT_SHARE,
        artefact=_share_artefact(judged_TP) >= ARTEFACT_SHARE,
    )


def _share_flat(uv_TP: NDArray[np.floating]) -> float:
    peak = _peak_to_peak(uv_TP)
    known = np.isfinite(peak)
    return float((peak[known] < FLAT_UV).mean()) if known.any() else 0.0


def _share_artefact(uv_TP: NDArray[np.floating]) -> float:
    peak = _peak_to_peak(uv_TP)
    seconds_STP = _seconds(uv_TP)
    change = np.sqrt((np.diff(seconds_STP, axis=1) ** 2).mean(axis=1))
    known = np.isfinite(peak)
    wrong = (peak > ARTEFACT_UV) | (change > MUSCLE_UV)
    return float(wrong[known].mean()) if known.any() else 0.0


def _seconds(uv_TP: NDArray[np.floating]) -> NDArray[np.float32]:
    return uv_TP.astype(np.float32).reshape(len(uv_TP) // SFREQ_HZ, SFREQ_HZ, uv_TP.shape[1])


def _peak_to_peak(uv_TP: NDArray[np.floating]) -> NDArray[np.float32]:
    """(seconds, signals); NaN where a sample is missing."""
    seconds_STP = _seconds(uv_TP)
    return seconds_STP.max(axis=1) - seconds_STP.min(axis=1)


def near_zero(uv_TC: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """Bring a window nearer to zero if half precision would round its differences.

    What all electrodes share, such as mains or a drift of the reference, cancels in every difference, so it may as well
    go first. Amplifiers without a high-pass then still show single electrodes tens of millivolts from zero, where half
    precision, in which models are given recordings, has steps of 16 µV.

    Args:
        uv_TC: (10,000, 20) µV, channels as in `competition.CHANNELS`.

    Returns:
        The same window if it is near zero as it is; else less the median over its electrodes at each moment and, if
        an electrode is far from zero even so, each less its mean over time. And whether there was such an electrode.
    """
    with np.errstate(invalid="ignore"):
        far = np.abs(uv_TC[:, :-1]) > FAR_UV
    if far.mean() <= FAR_SHARE:
        return uv_TC, False
    moved_TC = uv_TC.copy()
    there = np.isfinite(uv_TC[:, :-1]).any(axis=1)
    moved_TC[there, :-1] -= np.nanmedian(uv_TC[there, :-1], axis=1, keepdims=True)
    middle_C = np.array([x[np.isfinite(x)].mean() if np.isfinite(x).any() else 0.0 for x in moved_TC.T])
    if not (np.abs(middle_C[:-1]) > FAR_UV).any():
        return moved_TC, False
    return moved_TC - middle_C.astype(np.float32), True
