"""The double banana: eighteen bipolar derivations and the electrocardiogram, in their customary order.

Neighbours of a chain are subtracted, from front to back: left and right lateral, left and right parasagittal, then the
midline. That is the order of the panels, and it puts each chain of the left above its mirror image on the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS, PANELS, SFREQ_HZ
from kagglehms.data.gaps import bridge
from kagglehms.errors import UsageError

Floats = NDArray[np.float32]

MIDLINE = ("Fz", "Cz", "Pz")
PASS_BAND_HZ = (0.5, 40.0)
"""Frequencies that a trace shows; slow drifts below and mains hum above are filtered out, as is customary."""
TRACE_HZ = 100
"""Samples a second of a filtered trace."""
SENSITIVITIES_UV = (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 5000)
"""Choices of the µV from one trace to the next."""


@dataclass(frozen=True)
class Derivation:
    """One trace: the difference of two electrodes.

    Attributes:
        group: LL, RL, LP or RP, `midline` or `EKG`.
        plus: electrode that the other one is subtracted from.
        minus: electrode that is subtracted; None for the electrocardiogram.
    """

    group: str
    plus: str
    minus: str | None

    @property
    def label(self) -> str:
        """Name of the trace."""
        return self.plus if self.minus is None else f"{self.plus}–{self.minus}"


def _derivations() -> tuple[Derivation, ...]:
    chains = [(panel, CHAINS[panel]) for panel in PANELS] + [("midline", MIDLINE)]
    pairs = [(group, a, b) for group, chain in chains for a, b in pairwise(chain)]
    return (*(Derivation(*pair) for pair in pairs), Derivation("EKG", "EKG", None))


DERIVATIONS = _derivations()
"""All nineteen: four of each chain, two of the midline, and the electrocardiogram."""


def montage(eeg_uv: NDArray[np.floating]) -> Floats:
    """Return the derivations of an EEG.

    Args:
        eeg_uv: (n_times, 20) µV.

    Returns:
        (19, n_times) µV, rows as in `DERIVATIONS`; NaN where either electrode has no value.

    Raises:
        UsageError: `eeg_uv` has another shape.
    """
    if eeg_uv.ndim != 2 or eeg_uv.shape[1] != len(CHANNELS):
        raise UsageError(f"eeg_uv must be (n_times, {len(CHANNELS)}), but got {eeg_uv.shape}")
    column = {name: eeg_uv[:, i].astype(np.float32) for i, name in enumerate(CHANNELS)}
    return np.stack([column[d.plus] - (column[d.minus] if d.minus else 0) for d in DERIVATIONS])


def traces(eeg_uv: NDArray[np.floating]) -> Floats:
    """Montage and filter a whole recording for display.

    The filter is a Butterworth band-pass of fourth order (`PASS_BAND_HZ`), run forwards and backwards so that nothing
    is shifted in time. Gaps are bridged by straight lines for the filter, and are gaps again afterwards.

    Args:
        eeg_uv: (n_times, 20) µV.

    Returns:
        (19, ⌈n_times / 2⌉) float32 µV at `TRACE_HZ`.
    """
    from scipy.signal import butter, sosfiltfilt

    raw_DT = montage(eeg_uv)
    missing_DT = bridge(raw_DT)
    sections = butter(4, PASS_BAND_HZ, "bandpass", fs=SFREQ_HZ, output="sos")
    filtered_DT = sosfiltfilt(sections, raw_DT.astype(np.float64), axis=1, padtype="odd").astype(np.float32)
    filtered_DT[missing_DT] = np.nan
    return filtered_DT[:, :: SFREQ_HZ // TRACE_HZ]


def sensitivity_uv(traces_DT: Floats) -> int:
    """Choose the µV from trace to trace: the 99th percentile of the traces' magnitude, rounded up to a choice."""
    brain = np.abs(traces_DT[[d.group != "EKG" for d in DERIVATIONS]])
    brain = brain[np.isfinite(brain)]
    typical = float(np.percentile(brain, 99)) if len(brain) else 0.0
    return next((s for s in SENSITIVITIES_UV if s >= typical), SENSITIVITIES_UV[-1])


def rows() -> list[float]:
    """Return how far below the first trace each one is, in spaces between traces; groups are set a little apart."""
    heights, height = [], 0.0
    for before, derivation in zip((None, *DERIVATIONS), DERIVATIONS, strict=False):
        if before is not None:
            height += 1.0 if before.group == derivation.group else 1.6
        heights.append(height)
    return heights


def ekg_gain(traces_DT: Floats, spacing_uv: float) -> float:
    """Return the factor that makes the electrocardiogram, which has its own scale, fill its row."""
    ekg = np.abs(traces_DT[-1][np.isfinite(traces_DT[-1])])
    largest = float(np.percentile(ekg, 99.5)) if len(ekg) else 0.0
    return 0.7 * spacing_uv / largest if largest > 1e-3 else 1.0
