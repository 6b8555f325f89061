"""Recordings as people have them, made of simulated EEG: files by edfio, by hand, by MNE; and a predictor that sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import edfio
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample

from kagglehms.data.competition import CHANNELS, DIFFERENCES, SFREQ_HZ
from kagglehms.inputs.layouts import Crop, Source
from kagglehms.recordings.results import Prediction
from kagglehms.recordings.stored import Recording
from kagglehms.simulator.background import Patient
from kagglehms.simulator.patterns import Segment
from kagglehms.simulator.scalp import MARGIN_S
from kagglehms.simulator.signal import simulate_study

REFERENTIAL = [f"EEG {name}-REF" for name in CHANNELS[:19]] + ["ECG EKG"]
SECRET = "Müller_Zoë"
TIMED = [edfio.EdfAnnotation(0, None, "a text that leaves room for the times of records")]


def simulated_uv(seconds: int, seed: int = 0) -> NDArray[np.float32]:
    """(seconds · 200, 20) µV of a patient with a seizure, quiet stretches and discharges."""
    third = seconds // 3
    segments = (
        Segment(third // 2, third, (0.9, 0, 0, 0, 0, 0.1)),
        Segment(third + 5, 2 * third - 5, (0, 0, 0.9, 0, 0, 0.1)),
    )
    uv_CT = simulate_study(seconds, [segments], Patient(), np.random.default_rng(seed))
    return np.ascontiguousarray(uv_CT[:, MARGIN_S * SFREQ_HZ : (MARGIN_S + seconds) * SFREQ_HZ].T)


def at_rate(uv_TC: NDArray[np.floating], rate_hz: int) -> NDArray[np.float64]:
    """The same signal at another rate, by its Fourier transform; an independent way from 200 Hz.

    The ends are faded to their mean, as the transform takes the signal for a circle.
    """
    n_out = len(uv_TC) * rate_hz // SFREQ_HZ
    return resample(uv_TC.astype(np.float64), n_out, axis=0)


def write_edf(
    path: Path,
    signals: Sequence[NDArray[np.floating]],
    labels: Sequence[str],
    rates_hz: Sequence[float],
    unit: str = "uV",
    span: tuple[float, float] = (-3276.8, 3276.7),
    annotations: Sequence[edfio.EdfAnnotation] | None = None,
) -> Path:
    """Write an EDF file, or a BDF file if the path ends so, by edfio; a step of 0.1 µV unless `span` says otherwise."""
    is_bdf = path.suffix == ".bdf"
    kind: Any = edfio.BdfSignal if is_bdf else edfio.EdfSignal
    made = [
        kind(
            np.clip(np.asarray(values, np.float64), *span),
            rate,
            label=label,
            physical_dimension=unit,
            physical_range=span,
        )
        for values, label, rate in zip(signals, labels, rates_hz, strict=True)
    ]
    (edfio.Bdf if is_bdf else edfio.Edf)(made, annotations=annotations).write(path)
    return path


def write_referential(path: Path, uv_TC: NDArray[np.floating], rate_hz: int = SFREQ_HZ, **more: Any) -> Path:
    """Write the twenty channels of the competition as a hospital's file names them."""
    return write_edf(path, list(uv_TC.T), REFERENTIAL, [rate_hz] * 20, **more)


def patched(path: Path, at: int, content: bytes) -> Path:
    """Overwrite some bytes of a file."""
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(bytes(data))
    return path


def signal_field(path: Path, field: int, signal: int, content: str) -> Path:
    """Overwrite one field of one signal in a file's header, fields counted as in EDF's specification from 0."""
    lengths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    n_signals = int(path.read_bytes()[252:256])
    at = 256 + sum(lengths[:field]) * n_signals + lengths[field] * signal
    return patched(path, at, content.encode("latin-1").ljust(lengths[field]))


def discontinuous(path: Path, skips: Mapping[int, float], kind: bytes = b"EDF+D") -> Path:
    """Turn an EDF+C file with records of 1 s into one with interruptions: record → seconds left out before it."""
    data = bytearray(path.read_bytes())
    data[192 : 192 + len(kind)] = kind
    n_signals = int(data[252:256])
    lengths = (16, 80, 8, 8, 8, 8, 8, 80)
    counts_at = 256 + sum(lengths) * n_signals
    counts = [int(data[counts_at + 8 * i : counts_at + 8 * i + 8]) for i in range(n_signals)]
    record_bytes, times_at = 2 * sum(counts), 2 * sum(counts[:-1])
    start, lag = 256 * (n_signals + 1), 0.0
    for record in range((len(data) - start) // record_bytes):
        lag += skips.get(record, 0.0)
        at = start + record * record_bytes + times_at
        length = 2 * counts[-1]
        time = f"+{record + lag:g}\x14\x14\x00".encode()
        assert len(time) <= length, "write the file with annotations=TIMED"
        data[at : at + length] = time.ljust(length, b"\0")
    path.write_bytes(bytes(data))
    return path


class Loudness:
    """Judges windows by how loud they are, in no time: the louder, the more of a seizure."""

    sources: frozenset[Source] = frozenset({"eeg"})
    pairs = DIFFERENCES
    at_once = 3
    caveat = ""

    def __init__(self) -> None:
        self.judged = 0

    def judge(self, crops: Sequence[Crop]) -> Prediction:
        self.judged += len(crops)
        rows = np.full((len(crops), 6), 0.02)
        for row, crop in zip(rows, crops, strict=True):
            size = np.nanstd(crop.of("eeg")[:, :19].astype(float))
            row[0] = min(size / 40, 1) * 0.9
            row[5] = 0.92 - row[0]
        none = np.zeros(len(crops), bool)
        return Prediction(rows, none, none, np.full((len(crops), 6), np.nan))


def duration_s(recording: Recording) -> float:
    """Seconds from the first sample to the end of the last, interruptions included."""
    last = recording.stretches[-1]
    return last.start_s + float((last.stop - last.first) * recording.unit_s)


def sharpened(predictor: Any, crops: Sequence[Any], gain_std: float = 1.5) -> Any:
    """Make a predictor of untrained networks say something else of every window.

    The logits of an untrained network hardly depend on its input, so that nothing would be found out by comparing
    them. Here they are centred on those of some crops and multiplied until they scatter as those of a trained one.
    """
    import torch

    models = list(predictor.models())
    for model in models:
        probabilities = np.log(model.predict(crops))
        centre = probabilities.mean(axis=0)
        gain = gain_std / (probabilities - centre).std()
        model.network.register_forward_hook(
            _sharpening(torch.tensor(centre, dtype=torch.float32), float(gain))
        )
    predictor._models = models
    return predictor


def _sharpening(centre: Any, gain: float) -> Callable[[Any, Any, Any], Any]:
    return lambda _network, _inputs, logits: (logits.float().log_softmax(dim=-1) - centre) * gain
