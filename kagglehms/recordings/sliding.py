"""Place windows on a recording, and find out what is wrong with each of them.

A window is 50 s long; its middle 10 s are judged. Windows are flagged, not guessed: one that reaches beyond the
recording, touches an interruption, or shows a flat line or artefacts instead of EEG has no probabilities unless the
user asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CHANNELS, LABEL_S, LEAD_S, N_TIMES, SFREQ_HZ
from kagglehms.errors import UsageError
from kagglehms.recordings.channels import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_EVERY_S = 1.0

GAP_SHARE = 0.02
"""Share of missing samples of the 50 s, over all differences, above which a window has a gap: one second."""
FLAT_UV = 0.5
"""Peak-to-peak amplitude of a second below which it is flat: any amplifier's noise on a head is larger."""
FLAT_SHARE = 0.25
"""Share of flat seconds among the judged ones, over all differences, from which a window is flat."""
ARTEFACT_UV = 800.0
"""Peak-to-peak amplitude of a difference within a second above which it is not EEG."""
MUSCLE_UV = 40.0
"""Root mean square of the change from sample to sample (5 ms) above which muscle or mains hide the EEG."""
ARTEFACT_SHARE = 0.5
"""Share of artefacts among the judged seconds, over all differences, from which a window is an artefact."""
FAR_UV, FAR_SHARE = 256.0, 0.01
"""Amplitude from which half precision has steps of 0.25 µV and more, and the share of samples beyond it that is
tolerated as an artefact."""


@dataclass(frozen=True)
class Flags:
    """The flags of a window.

    Attributes:
        edge: whether its 50 s reach beyond the recording.
        gap: whether more than a second of it is missing, or parts of the recording are joined within it.
        flat: whether a quarter or more of the judged seconds, over all differences, is a flat line.
        artefact: whether half or more of the judged seconds, over all differences, is too large or fast to be EEG.
    """

    edge: bool
    gap: bool
    flat: bool
    artefact: bool

    @property
    def clean(self) -> bool:
        """Whether the window has no flag."""
        return not any(getattr(self, name) for name in FLAGS)


FLAGS = tuple(field.name for field in fields(Flags))
"""The names of the flags, in the order of the output's columns."""


def check_every(every_s: float) -> int:
    """Return the number of samples at 200 Hz from one window to the next.

    Raises:
        UsageError: the step is less than a second, or not a whole number of samples.
    """
    step = round(every_s * SFREQ_HZ) if isinstance(every_s, Real) and np.isfinite(float(every_s)) else 0
    if step < LEAST_EVERY_S * SFREQ_HZ or abs(step - every_s * SFREQ_HZ) > 1e-6:
        raise UsageError(
            f"windows can begin every second or more, in whole samples of 5 ms, but not every {every_s!r} s"
        )
    return step


def window_starts(spans: Sequence[tuple[int, int]], every_s: float) -> NDArray[np.int64]:
    """Place windows on a recording.

    Args:
        spans: first sample at 200 Hz of each recorded part, and the sample after its last.
        every_s: seconds from one window to the next.

    Returns:
        (n,) first judged sample of each window, at multiples of `every_s`; windows whose judged samples all lie outside
        the recorded parts are left out.

    Raises:
        UsageError: `every_s` is less than a second, or not a whole number of samples.
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
    joined: bool = False,
) -> Flags:
    """Find the flags of a window.

    Args:
        uv_TC: (10,000, 20) µV, channels as in `competition.CHANNELS`; NaN where nothing was recorded.
        pairs: differences that models use and that the recording has.
        inside: first sample of the window within the recording, and the sample after the last.
        measured: electrodes with a channel of their own, whose flat lines count too.
        joined: whether one part of the recording follows another within the window, whatever time lay between them.
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
        gap=joined or (bool(missing.size) and float(missing.mean()) > GAP_SHARE),
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
    """Move a window nearer to zero if half precision would round its differences.

    What all electrodes share, such as mains hum or a drift of the reference, cancels in every difference, so it can be
    subtracted first. Amplifiers without a high-pass filter may still show single electrodes tens of millivolts from
    zero, where half precision, in which models receive recordings, has steps of 16 µV.

    Args:
        uv_TC: (10,000, 20) µV, channels as in `competition.CHANNELS`.

    Returns:
        The window, unchanged if it is near zero; otherwise without the median over its electrodes at each moment and,
        if an electrode is still far from zero, without the mean of each over time. And whether there was such an
        electrode.
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
