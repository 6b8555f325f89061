"""What tells simulated recordings from real ones: features of short windows, and a plain classifier of them.

Windows of one recording are nearly the same, so recordings are held out as wholes, and what is compared is the mean
over a recording's windows.

Shape suffixes: C channel, T time, D difference, F frequency, P panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import welch
from scipy.stats import kurtosis

from kagglehms.data.competition import CHAINS, CHANNELS, FREQUENCIES_HZ, PANELS, SFREQ_HZ

F64 = NDArray[np.float64]
Features = dict[str, float]

WINDOW_TIMES = 10 * SFREQ_HZ
WINDOW_ROWS = 60
BANDS_HZ = {
    "0.6–2 Hz": (0.6, 2), "2–4 Hz": (2, 4), "4–8 Hz": (4, 8), "8–13 Hz": (8, 13), "13–25 Hz": (13, 25),
    "25–45 Hz": (25, 45),
}  # fmt: skip
_PAIRS = [(panel, k, a, b) for panel in PANELS for k, (a, b) in enumerate(pairwise(CHAINS[panel]))]
_FROM = [CHANNELS.index(a) for _, _, a, _ in _PAIRS]
_TO = [CHANNELS.index(b) for _, _, _, b in _PAIRS]
_LEFT = np.array([panel in ("LL", "LP") for panel, *_ in _PAIRS])
_STEP = np.array([k for _, k, *_ in _PAIRS])
_OTHER_SIDE = {"LL": "RL", "RL": "LL", "LP": "RP", "RP": "LP"}
_MIRRORED = [
    next(i for i, (other, step, *_) in enumerate(_PAIRS) if (other, step) == (_OTHER_SIDE[panel], k))
    for panel, k, *_ in _PAIRS
]


class Windows(NamedTuple):
    """The features of one recording.

    Attributes:
        eeg: those of each 10 s of the EEG.
        panels: those of each two minutes of the spectrogram.
    """

    eeg: list[Features]
    panels: list[Features]


def windows(uv_TC: NDArray[np.floating], power_TF: NDArray[np.floating]) -> Windows:
    """Features of all complete windows of an EEG in µV and of its spectrogram, (n_rows, 400)."""
    parts = [uv_TC[i : i + WINDOW_TIMES, :19] for i in range(0, len(uv_TC) - WINDOW_TIMES + 1, WINDOW_TIMES)]
    rows = [power_TF[i : i + WINDOW_ROWS] for i in range(0, len(power_TF) - WINDOW_ROWS + 1, WINDOW_ROWS)]
    return Windows(
        [eeg_features(part.astype(np.float64)) for part in parts if np.isfinite(part).all()],
        [panel_features(part.astype(np.float64)) for part in rows if np.isfinite(part).all()],
    )


def eeg_features(uv_TC: F64) -> Features:
    """Features of 10 s of the 19 electrodes: power, its places and times, rhythms, correlation, hum."""
    brain_TC = uv_TC - uv_TC.mean(axis=0)
    difference_DT = (brain_TC[:, _FROM] - brain_TC[:, _TO]).T
    return (
        _power(difference_DT)
        | _rhythms(difference_DT)
        | _seconds(difference_DT)
        | _alike(brain_TC, difference_DT)
    )


def _log_spectrum(x_CT: F64, seconds: int) -> tuple[F64, F64]:
    hz, power = welch(x_CT, SFREQ_HZ, nperseg=seconds * SFREQ_HZ)
    return hz, np.log(power + 1e-3)


def _slopes(hz: F64, log_power: F64) -> F64:
    fitted = (hz >= 1) & (hz <= 20)
    return np.polyfit(np.log(hz[fitted]), log_power[:, fitted].T, 1)[0]


def _power(difference_DT: F64) -> Features:
    hz, log_DF = _log_spectrum(difference_DT, 2)
    found: Features = {}
    for name, (low, high) in BANDS_HZ.items():
        level_D = log_DF[:, (hz >= low) & (hz < high)].mean(axis=1)
        found |= {
            f"{name}: level": level_D.mean(),
            f"{name}: spread over differences": level_D.std(),
            f"{name}: asymmetry": abs(level_D[_LEFT].mean() - level_D[~_LEFT].mean()),
            f"{name}: front to back": level_D[_STEP == 0].mean() - level_D[_STEP == 3].mean(),
        }
    slope_D = _slopes(hz, log_DF)
    hum_D = log_DF[:, np.abs(hz - 60) < 1].max(axis=1)
    return found | {
        "slope": float(np.median(slope_D)), "slope: spread over differences": slope_D.std(),
        "60 Hz: median": float(np.median(hum_D)), "60 Hz: most": hum_D.max(),
    }  # fmt: skip


def _rhythms(difference_DT: F64) -> Features:
    """How far spectra stand out above themselves, smoothed over 2.6 Hz, and how periodic the envelope is."""
    hz, log_DF = _log_spectrum(difference_DT, 5)
    above_DF = (log_DF - uniform_filter1d(log_DF, 13, axis=1))[:, (hz >= 0.6) & (hz <= 20)]
    envelope_DT = uniform_filter1d(np.abs(np.diff(difference_DT, axis=1)), SFREQ_HZ // 10, axis=1)
    envelope_DT -= envelope_DT.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(envelope_DT, 2 * envelope_DT.shape[1])) ** 2
    correlation_DT = np.fft.irfft(spectrum)
    periodicity_D = (correlation_DT / (correlation_DT[:, :1] + 1e-9))[:, 60:400].max(axis=1)
    return {
        "peaks: most": above_DF.max(), "peaks: median": float(np.median(above_DF.max(axis=1))),
        "ripple": float(np.median(above_DF.std(axis=1))), "periodicity: most": periodicity_D.max(),
        "periodicity: median": float(np.median(periodicity_D)),
    }  # fmt: skip


def _seconds(difference_DT: F64) -> Features:
    """How much the level changes from second to second, in one difference and in all, and how heavy tails are."""
    level_DS = np.log(difference_DT.reshape(len(difference_DT), -1, SFREQ_HZ).std(axis=2) + 0.1)
    tails_D = np.clip(kurtosis(difference_DT, axis=1), -2, 200)
    length_D = np.log(np.abs(np.diff(difference_DT, axis=1)).mean(axis=1) + 0.1)
    return {
        "seconds: median": float(np.median(level_DS.std(axis=1))), "seconds: most": level_DS.std(axis=1).max(),
        "seconds: together": level_DS.mean(axis=0).std(), "quiet seconds": float(np.mean(level_DS < np.log(3))),
        "tails: median": float(np.median(np.minimum(tails_D, 30))), "tails: most": float(np.log(3 + tails_D.max())),
        "line length": float(np.median(length_D - np.log(difference_DT.std(axis=1) + 0.1))),
    }  # fmt: skip


def _alike(brain_TC: F64, difference_DT: F64) -> Features:
    noise = 1e-6 * np.random.default_rng(0).standard_normal(difference_DT.shape)
    between_DD = np.corrcoef(difference_DT + noise)
    noise = 1e-6 * np.random.default_rng(0).standard_normal(brain_TC.T.shape)
    of_electrodes_CC = np.corrcoef(brain_TC.T + noise)
    at = CHANNELS.index
    next_to = [between_DD[i, i + 1] for i in range(len(_PAIRS) - 1) if _STEP[i] < 3]
    front_back = [of_electrodes_CC[at(a), at(b)] for a, b in (("Fp1", "O1"), ("Fp2", "O2"))]
    return {
        "correlation of differences": float(np.abs(between_DD[np.triu_indices(len(_PAIRS), 1)]).mean()),
        "correlation of sides": float(np.mean([between_DD[i, k] for i, k in enumerate(_MIRRORED)])),
        "correlation of neighbours": float(np.mean(next_to)),
        "correlation of electrodes": float(of_electrodes_CC[np.triu_indices(19, 1)].mean()),
        "correlation front to back": float(np.mean(front_back)),
        "slope of electrodes": float(np.median(_slopes(*_log_spectrum(brain_TC.T, 2)))),
    }


def panel_features(power_TF: F64) -> Features:
    """Features of two minutes of a spectrogram: bands, their change, lines, and what the panels share."""
    log_TPF = np.log(np.clip(power_TF, np.exp(-4), np.exp(8))).reshape(len(power_TF), len(PANELS), -1)
    hz = np.array(FREQUENCIES_HZ)
    found: Features = {}
    for name, (low, high) in BANDS_HZ.items():
        if low < 20:
            level_TP = log_TPF[:, :, (hz >= low) & (hz < high)].mean(axis=2)
            of_panel = dict(zip(PANELS, level_TP.mean(axis=0), strict=True))
            found |= {
                f"{name}: level": level_TP.mean(),
                f"{name}: over time": level_TP.std(axis=0).mean(),
                f"{name}: asymmetry": abs(of_panel["LL"] + of_panel["LP"] - of_panel["RL"] - of_panel["RP"])
                / 2,
                f"{name}: lateral": (of_panel["LL"] + of_panel["RL"] - of_panel["LP"] - of_panel["RP"]) / 2,
            }
    mean_PF = log_TPF.mean(axis=0)
    lines_PF = mean_PF - uniform_filter1d(mean_PF, 9, axis=1, mode="nearest")
    change_TPF = np.diff(log_TPF, axis=0)
    common_TP = change_TPF.mean(axis=2, keepdims=True)
    level_TP = log_TPF.mean(axis=2)
    low_T, high_T = log_TPF[:, :, :15].mean(axis=(1, 2)), log_TPF[:, :, 60:].mean(axis=(1, 2))
    return found | {
        "slope": float(np.mean(_slopes(hz, mean_PF))), "lines: most": lines_PF.max(), "lines": lines_PF.std(),
        "change from row to row": common_TP.std(), "noise": (change_TPF - common_TP).std(),
        "bursts": float(np.clip(kurtosis(level_TP.mean(axis=1)), -2, 30)),
        "panels together": float(np.corrcoef(level_TP.T)[np.triu_indices(len(PANELS), 1)].mean()),
        "low and high together": float(np.corrcoef(low_T, high_T)[0, 1]),
    }  # fmt: skip


def auc_by_recording(
    real: Sequence[list[Features]], made: Sequence[list[Features]]
) -> tuple[float, list[float]]:
    """How well a logistic regression tells recordings that it has not seen: 0.5 not at all, 1 every time.

    Each real recording is held out once, together with an equal share of the simulated ones.

    Returns:
        The mean area under the curve, and each real recording's: the share of simulated ones that look less real.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    recordings = [*real, *made]
    is_real_R = np.arange(len(recordings)) < len(real)
    fold_R = np.concatenate([np.arange(len(real)), np.arange(len(made)) % len(real)])
    names = list(real[0][0])
    x_R = [
        np.nan_to_num([[window[name] for name in names] for window in recording]) for recording in recordings
    ]
    aucs = []
    for fold in range(len(real)):
        known = np.flatnonzero(fold_R != fold)
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.03, class_weight="balanced", max_iter=2000)
        )
        model.fit(
            np.concatenate([x_R[r] for r in known]), np.repeat(is_real_R[known], [len(x_R[r]) for r in known])
        )
        score_R = np.array([model.decision_function(x_R[r]).mean() for r in np.flatnonzero(fold_R == fold)])
        less = score_R[1:] < score_R[0]
        aucs.append(float(less.mean()))
    return float(np.mean(aucs)), aucs


def quantiles(
    real: Sequence[list[Features]], made: Sequence[list[Features]]
) -> list[tuple[str, float, float, F64]]:
    """Each feature's real and simulated median, and each real recording's quantile among the simulated ones.

    Those that stand out most, on the same side, come first.
    """
    found = []
    for name in real[0][0]:
        of_real, of_made = (
            np.array([np.mean([window[name] for window in recording]) for recording in recordings])
            for recordings in (real, made)
        )
        quantile = (of_made[:, None] < of_real).mean(axis=0)
        found.append((name, float(np.median(of_real)), float(np.median(of_made)), quantile))
    return sorted(found, key=lambda row: -abs(row[3].mean() - 0.5))
