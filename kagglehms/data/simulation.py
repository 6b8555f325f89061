"""A signal model of scalp EEG whose class probabilities are known, and the spectrogram of what it makes.

A session is one continuous signal: coloured noise that neighbouring electrodes share, posterior alpha, blinks,
muscle and pops, and on top of it the patterns of the American Clinical Neurophysiology Society's terminology
(Hirsch et al. 2021), each as strong as its class is probable at that moment. EEG files are cuts of that signal,
spectrogram files its power, so the two agree as they do in the competition.

Shape suffixes: C channel, T time, S seconds, N source, K class, F frequency.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from kagglehms.data.competition import (
    BIN_HZ,
    CHAINS,
    CHANNELS,
    CLASSES,
    N_BINS,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_STEP_S,
)

F32 = NDArray[np.float32]

MARGIN_S = 4
"""Signal before second 0 and after the last, so that the first and last spectrum have a whole window."""
SPECTRUM_TIMES = round(SFREQ_HZ / BIN_HZ)
FIRST_BIN = 3
CUTOFF_HZ = 70
"""No background above it, as after an amplifier's anti-alias filter."""

ELECTRODES = CHANNELS[:19]
POSITIONS = np.array(
    [
        (-0.31, 0.95), (-0.40, 0.50), (-0.50, 0.00), (-0.40, -0.50), (-0.81, 0.59), (-1.00, 0.00),
        (-0.81, -0.59), (-0.31, -0.95), (0.00, 0.50), (0.00, 0.00), (0.00, -0.50),
        (0.31, 0.95), (0.40, 0.50), (0.50, 0.00), (0.40, -0.50), (0.81, 0.59), (1.00, 0.00),
        (0.81, -0.59), (0.31, -0.95),
    ],
    np.float32,
)  # fmt: skip
"""Places of the 19 electrodes on a disc: (right, front), the ears at ±1. Source: the 10–20 system, flattened."""


@dataclass(frozen=True)
class Segment:
    """A stretch of labelled seconds with one truth.

    Attributes:
        start_s: start of its first labelled 10 s, in seconds of the session.
        stop_s: end of its last labelled 10 s.
        probabilities: true probability of each class.
    """

    start_s: float
    stop_s: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Patient:
    """What stays the same in all recordings of one patient."""

    level_uv: float
    spectral_exponent: float
    alpha_hz: float
    alpha_uv: float
    asymmetry: float
    blinks_per_min: float
    muscle_uv: float
    heart_hz: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        return cls(
            level_uv=float(18 * np.exp(0.3 * rng.standard_normal())),
            spectral_exponent=float(rng.uniform(2.1, 3.1)),
            alpha_hz=float(rng.uniform(7.5, 11)),
            alpha_uv=float(rng.choice([0, 4, 12], p=[0.5, 0.3, 0.2])),
            asymmetry=float(0.15 * rng.standard_normal()),
            blinks_per_min=float(rng.choice([0, 3, 12], p=[0.4, 0.3, 0.3])),
            muscle_uv=float(rng.exponential(8)),
            heart_hz=float(rng.uniform(1, 1.7)),
        )


def simulate_session(
    seconds: int, recordings: list[tuple[Segment, ...]], patient: Patient, rng: np.random.Generator
) -> F32:
    """Simulate one session.

    Args:
        seconds: its length.
        recordings: for each EEG that is cut from it, its labelled segments in order of time.
        patient: whose brain it is.
        rng: decides everything else.

    Returns:
        The signal in µV, (20, at least (seconds + 2 · MARGIN_S) · 200): second 0 of the session is MARGIN_S in.
    """
    truth_SK = _truth_over_time(_fast_length(seconds + 2 * MARGIN_S), recordings, rng)
    n_times = len(truth_SK) * SFREQ_HZ
    background = _background(n_times, patient, rng)
    courses, fields = zip(
        *_alpha(n_times, patient, rng),
        *_patterns(truth_SK, recordings, patient, rng),
        *_artefacts(n_times, patient, rng),
        strict=True,
    )
    sources_NT = np.concatenate([background, np.stack(courses)])
    mixing_CN = np.concatenate([_volume_conduction(patient), np.stack(fields, axis=1)], axis=1)
    uv_CT = np.empty((len(CHANNELS), n_times), np.float32)
    np.matmul(mixing_CN.astype(np.float32), sources_NT, out=uv_CT[:-1])
    uv_CT[-1] = _heart(n_times, patient, rng)
    return uv_CT


def spectrogram(uv_CT: F32, n_rows: int) -> F32:
    """Power of the four chains: the mean over a chain's four bipolar derivations of Hann periodograms.

    Args:
        uv_CT: what `simulate_session` returned.
        n_rows: rows wanted, one every 2 s, the first centred at second 1 of the session.

    Returns:
        (n_rows, 400) in µV²/Hz, panels LL, RL, LP, RP, each with bins 3 … 102 of a 1024-point transform.
    """
    window = np.hanning(SPECTRUM_TIMES + 1)[:-1].astype(np.float32)
    scale = np.float32(2 / (SFREQ_HZ * (window**2).sum()))
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    first = MARGIN_S * SFREQ_HZ + step // 2 - SPECTRUM_TIMES // 2
    power = np.empty((n_rows, len(PANELS), N_BINS), np.float32)
    for panel, name in enumerate(PANELS):
        chain_CT = uv_CT[[CHANNELS.index(electrode) for electrode in CHAINS[name]]]
        bipolar_CT = chain_CT[:-1] - chain_CT[1:]
        frames = np.lib.stride_tricks.sliding_window_view(bipolar_CT, SPECTRUM_TIMES, axis=1)
        frames = frames[:, first : first + n_rows * step : step]
        spectra = fft.rfft(frames * window, axis=-1)[..., FIRST_BIN : FIRST_BIN + N_BINS]
        power[:, panel] = (spectra.real**2 + spectra.imag**2).mean(axis=0) * scale
    return power.reshape(n_rows, len(PANELS) * N_BINS)


def _fast_length(at_least: int) -> int:
    """The next number without prime factors above 5, which a Fourier transform likes."""
    for length in itertools.count(at_least):
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
    raise AssertionError


def _truth_over_time(
    n_seconds: int, recordings: list[tuple[Segment, ...]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Class probabilities for every second: the nearest segment's, intermittent away from the labels."""
    at_S = np.arange(n_seconds) + 0.5 - MARGIN_S
    segments = [segment for recording in recordings for segment in recording]
    away = np.stack([np.maximum(s.start_s - at_S, at_S - s.stop_s) for s in segments])
    truth_SK = np.array([s.probabilities for s in segments])[away.argmin(axis=0)]
    present = away.min(axis=0) < 15
    second = 0
    while second < n_seconds:
        length = int(rng.integers(15, 90))
        present[second : second + length] |= rng.random() < 0.75
        second += length
    truth_SK = np.where(present[:, None], truth_SK, np.eye(len(CLASSES))[-1])
    box = np.ones(5) / 5
    padded = np.pad(truth_SK, ((2, 2), (0, 0)), mode="edge")
    smooth: NDArray[np.float64] = np.apply_along_axis(np.convolve, 0, padded, box, mode="valid")
    return smooth


def _noise(amplitude_F: NDArray[np.float64], n_sources: int, n_times: int, rng: np.random.Generator) -> F32:
    """Gaussian noise of unit variance with the spectrum `amplitude_F` over the first rfft bins, (N, T)."""
    n_bins = len(amplitude_F)
    gain = (amplitude_F * n_times / (2 * np.sqrt((amplitude_F**2).sum()))).astype(np.float32)
    parts = rng.standard_normal((n_sources, n_bins, 2), np.float32)
    parts *= gain[:, None]
    return fft.irfft(parts.view(np.complex64)[..., 0], n_times, axis=-1).astype(np.float32, copy=False)


def _bins_hz(n_times: int, cutoff_hz: int) -> NDArray[np.float64]:
    return np.arange(cutoff_hz * n_times // SFREQ_HZ, dtype=np.float64) * (SFREQ_HZ / n_times)


def _background(n_times: int, patient: Patient, rng: np.random.Generator) -> F32:
    """Sources with a 1/f spectrum: flat below a knee at 1.5 Hz, high-passed at 0.4 Hz."""
    hz = _bins_hz(n_times, CUTOFF_HZ)
    amplitude = (1.5**2 + hz**2) ** (-patient.spectral_exponent / 4) * hz / np.sqrt(hz**2 + 0.4**2)
    return _noise(amplitude, len(ELECTRODES), n_times, rng)


def _volume_conduction(patient: Patient) -> NDArray[np.float64]:
    """Mixing of the background, (19, 19): near electrodes see nearly the same sources."""
    distance2 = ((POSITIONS[:, None] - POSITIONS[None]) ** 2).sum(axis=-1)
    mixing = np.exp(-distance2 / (2 * 0.5**2))
    mixing /= np.sqrt((mixing**2).sum(axis=1, keepdims=True))
    return mixing * (patient.level_uv * np.exp(patient.asymmetry * POSITIONS[:, :1]))


Source = tuple[F32, NDArray[np.float32]]
"""A time course and its field: how strongly each of the 19 electrodes sees it."""


def _field(x: float, y: float, width: float) -> NDArray[np.float32]:
    """A field that is 1 at (x, y) and falls off as a Gaussian."""
    distance2 = ((POSITIONS - np.array([x, y], np.float32)) ** 2).sum(axis=1)
    return np.exp(-distance2 / (2 * width**2))


def _generalised_field() -> NDArray[np.float32]:
    """Both sides alike, largest in front: a field without a gradient would vanish in bipolar derivations."""
    return 0.2 + 0.8 * np.exp(-((POSITIONS[:, 1] - 0.7) ** 2) / (2 * 0.55**2))


def _alpha(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    amplitude = np.exp(-((_bins_hz(n_times, 15) - patient.alpha_hz) ** 2) / (2 * 0.6**2))
    shared, left, right = _noise(amplitude, 3, n_times, rng) * np.float32(patient.alpha_uv)
    return [
        (shared * 0.8 + left * 0.6, _field(-0.35, -0.9, 0.4)),
        (shared * 0.8 + right * 0.6, _field(0.35, -0.9, 0.4)),
    ]


def _patterns(
    truth_SK: NDArray[np.float64],
    recordings: list[tuple[Segment, ...]],
    patient: Patient,
    rng: np.random.Generator,
) -> list[Source]:
    """The five patterns. A lateralised and a generalised one of a kind share their discharges: where experts
    waver between the two, the same wave is seen on both sides, but unequally."""
    n_times = len(truth_SK) * SFREQ_HZ
    at_T = (np.arange(n_times) + 0.5) / SFREQ_HZ
    lpd, gpd, lrda, grda, seizure = (
        np.interp(at_T, np.arange(len(truth_SK)) + 0.5, strength_S).astype(np.float32)
        for strength_S in _strengths(truth_SK)
    )
    side = rng.choice([-1.0, 1.0])
    lateral = _field(side * rng.uniform(0.55, 0.85), rng.uniform(-0.5, 0.5), rng.uniform(0.35, 0.55))
    general = _generalised_field()
    # Median heights in units of the background's standard deviation.
    heights_uv = (patient.level_uv * np.array([12, 6, 7]) * np.exp(0.25 * rng.standard_normal(3))).astype(
        np.float32
    )
    discharges = _periodic_discharges(n_times, rng) * heights_uv[0]
    delta = _rhythmic_delta(n_times, rng) * heights_uv[1]
    ictal = _seizures(at_T - MARGIN_S, recordings, rng) * heights_uv[2]
    return [
        (discharges * lpd, lateral),
        (discharges * gpd, general),
        (delta * lrda, lateral),
        (delta * grda, general),
        (ictal * seizure, general if rng.random() < 0.35 else lateral),
    ]


def _strengths(truth_SK: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Heights of lpd, gpd, lrda, grda and seizure for their probabilities: a kind's probability to the 0.7,
    shared out to its lateralised and its generalised form as their probabilities are."""
    seizure, lpd, gpd, lrda, grda, _ = truth_SK.T
    discharges, delta = (np.maximum(pair, 1e-6) ** -0.3 for pair in (lpd + gpd, lrda + grda))
    return [lpd * discharges, gpd * discharges, lrda * delta, grda * delta, seizure**0.7]


def _events(places: NDArray[np.int64], sizes: NDArray[np.float64], wave: F32, n_times: int) -> F32:
    """`wave` put down at each of `places` (sample of its first point), times the event's size."""
    out = np.zeros(n_times + len(wave), np.float32)
    for place, size in zip(places.tolist(), sizes.astype(np.float32), strict=True):
        out[place : place + len(wave)] += size * wave
    return out[:n_times]


def _beats(n_times: int, rate_hz: float, jitter: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples of events about `rate_hz` a second, their intervals scattered by the fraction `jitter`."""
    count = int(n_times / SFREQ_HZ * rate_hz * 2) + 2
    intervals = SFREQ_HZ / rate_hz * np.maximum(1 + jitter * rng.standard_normal(count), 0.5)
    places = np.cumsum(intervals).astype(np.int64)
    return places[places < n_times]


def _periodic_discharges(n_times: int, rng: np.random.Generator) -> F32:
    """Sharp waves with an after-going slow wave, 0.5–2 a second, height 1."""
    t = np.arange(-0.15, 0.6, 1 / SFREQ_HZ)
    sharp = np.exp(-(t**2) / (2 * rng.uniform(0.018, 0.035) ** 2))
    slow = np.exp(-((t - 0.2) ** 2) / (2 * 0.07**2))
    wave = (sharp - rng.uniform(0.3, 0.6) * slow).astype(np.float32)
    places = _beats(n_times, rng.uniform(0.5, 2), rng.uniform(0.03, 0.12), rng)
    return _events(places, 1 + 0.15 * rng.standard_normal(len(places)), wave, n_times)


def _wander(n_times: int, every_s: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A slowly changing number of about unit size."""
    knots = np.arange(0, n_times + every_s * SFREQ_HZ, every_s * SFREQ_HZ)
    return np.interp(np.arange(n_times), knots, rng.standard_normal(len(knots)))


def _rhythmic_delta(n_times: int, rng: np.random.Generator) -> F32:
    """A nearly sinusoidal wave of 1–3 Hz that waxes and wanes, height about 1."""
    hz = rng.uniform(1, 3) * (1 + 0.04 * _wander(n_times, 6, rng))
    phase = 2 * np.pi * np.cumsum(hz) / SFREQ_HZ
    wave = np.sin(phase) + 0.15 * np.sin(2 * phase + 1)
    return (wave * (1 + 0.25 * _wander(n_times, 10, rng))).astype(np.float32)


def _seizures(
    at_T: NDArray[np.float64], recordings: list[tuple[Segment, ...]], rng: np.random.Generator
) -> F32:
    """One discharge around each recording's labels: it grows while it slows from 5–8 to 3–4 Hz, then stops."""
    out = np.zeros(len(at_T), np.float32)
    for segments in recordings:
        start = segments[0].start_s - rng.uniform(4, 25)
        stop = segments[-1].stop_s + rng.uniform(6, 40)
        inside = slice(*np.searchsorted(at_T, [start, stop]))
        progress = (at_T[inside] - start) / (stop - start)
        from_hz, to_hz = rng.uniform(5, 8), rng.uniform(3, 4)
        phase = 2 * np.pi * np.cumsum(from_hz + (to_hz - from_hz) * progress) / SFREQ_HZ
        edge = np.clip(np.minimum(at_T[inside] - start, stop - at_T[inside]) / 2, 0, 1)
        wave = np.sin(phase) + 0.4 * np.sin(2 * phase + 0.7)
        out[inside] = (edge * (0.35 + 0.65 * progress) * wave).astype(np.float32)
    return out


def _artefacts(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Blinks in front, muscle over the temples, in some sessions an electrode that pops."""
    blink = np.hanning(SFREQ_HZ * 2 // 5).astype(np.float32)
    places = rng.integers(0, n_times, rng.poisson(patient.blinks_per_min * n_times / SFREQ_HZ / 60))
    blinks = _events(places, rng.uniform(60, 160, len(places)), blink, n_times)
    sources: list[Source] = [(blinks, np.exp(-((POSITIONS[:, 1] - 1) ** 2) / (2 * 0.25**2)))]
    for side in (-1, 1):
        # The difference of white noise rises with frequency, as the electromyogram does in this band.
        noise = np.diff(rng.standard_normal(n_times + 1, np.float32)) * np.float32(patient.muscle_uv)
        tense = np.clip(_wander(n_times, 8, rng) - 0.8, 0, 1.5).astype(np.float32)
        sources.append((noise * tense, _field(side * 0.95, rng.uniform(0, 0.5), 0.35)))
    if rng.random() < 0.15:
        decay = np.exp(-np.arange(SFREQ_HZ) / (0.2 * SFREQ_HZ)).astype(np.float32)
        places = rng.integers(0, n_times, rng.integers(1, 12))
        pops = _events(places, rng.normal(0, 1500, len(places)), decay, n_times)
        sources.append((pops, np.eye(len(ELECTRODES), dtype=np.float32)[rng.integers(len(ELECTRODES))]))
    return sources


def _heart(n_times: int, patient: Patient, rng: np.random.Generator) -> F32:
    """The EKG channel: a QRS complex and a T wave at each beat, and some noise."""
    t = np.arange(-0.1, 0.45, 1 / SFREQ_HZ)
    wave = np.exp(-(t**2) / (2 * 0.012**2)) - 0.25 * np.exp(-((t - 0.035) ** 2) / (2 * 0.012**2))
    wave += 0.2 * np.exp(-((t - 0.28) ** 2) / (2 * 0.04**2))
    places = _beats(n_times, patient.heart_hz, 0.03, rng)
    beats = _events(places, np.full(len(places), rng.uniform(100, 900)), wave.astype(np.float32), n_times)
    return beats + 4 * rng.standard_normal(n_times, np.float32)
