"""The page on which an EEG of any length is paged through: its timeline on top, the traces of one page below.

`kagglehms view` and `kagglehms predict` write the same page. It holds everything that it shows: the signal, or as much
of it as fits, and of all the rest an envelope. The timeline is drawn before the signal has been read, as the blocks of
signal stand behind the script.

Shape legend: N windows, K the six classes, R rows of a spectrogram, F frequency.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.console import visible
from kagglehms.data.competition import CHANNELS, CLASSES, LABEL_S, PANELS, SFREQ_HZ, WINDOW_S
from kagglehms.data.competition import N_BINS as ALL_BINS
from kagglehms.report import drawing
from kagglehms.report.montage import DERIVATIONS, Derivation
from kagglehms.report.signals import BLOCK_S, ENVELOPE_PER_OCTAVE, Packed, Signal, envelope
from kagglehms.report.style import COLOURS, palette_png
from kagglehms.report.templating import policy, render, source

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES = 15_000_000
"""Most bytes of a page."""
_TEXT_BYTES = 300_000
"""Kept free for scripts, styles and words."""
MOST_WINDOWS = 86_400
"""Most windows of a timeline: one a second for a day. Of more, every second, third … is shown."""
_MOST_COLUMNS, _BINS = 4320, 50
FLAG_OPACITIES = {"gap": 1.0, "flat": 0.7, "artefact": 0.45, "edge": 0.2}
"""How dark the mark of a flag is; of a window's flags, the darkest is drawn."""
PAGE_S = (10, 15, 20, 50)
"""Seconds of a page; the last is what a model sees."""
SENSITIVITIES_UV_MM = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500)
HIGH_PASS_HZ = (0.1, 0.3, 0.5, 1.0, 1.6, 5.0)
LOW_PASS_HZ = (15, 30, 40, 70)
NOTCH_HZ = (50, 60)
NOTCH_Q = 10
MONTAGES = ("bipolar", "average", "referential")


@dataclass(frozen=True)
class Windows:
    """What is known of the windows along a recording.

    Attributes:
        start_s: (N,) first judged or labelled second of each window, ascending.
        every_s: seconds from one window to the next.
        probabilities: (N, 6) what models say; NaN for a window without a prediction; None if there are none at all.
        spread: (N, 6) standard deviation over the folds; None where it is not known.
        flags: name → (N,) whether that is wrong with a window.
        votes: (N, 6) counts of experts' votes; None if there are none.
        who: whose predictions they are.
    """

    start_s: NDArray[np.float64]
    every_s: float
    probabilities: NDArray[np.float64] | None
    spread: NDArray[np.float64] | None = None
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    votes: Sequence[Sequence[int]] | None = None
    who: str = "prediction"


@dataclass(frozen=True)
class Spectrogram:
    """The spectrogram of both hemispheres along a recording.

    Attributes:
        first_s: the recording's second at the left edge of the first row.
        row_s: seconds of a row.
        log_power: (R, 2, 50) logarithm of power, left and right; NaN where there is none.
    """

    first_s: float
    row_s: float
    log_power: NDArray[np.float32]


@dataclass(frozen=True)
class Stop:
    """A place that can be chosen from a list.

    Attributes:
        centre_s: the second that is put into the middle of the page.
        text: what the list says.
    """

    centre_s: float
    text: str


@dataclass(frozen=True)
class Tint:
    """How much each second and each chain of a window speaks for a class, drawn behind the traces.

    Attributes:
        start_s: the recording's second at which the window begins.
        of: name of the class.
        by_second: what each second adds to the probability of the class.
        by_chain: chain → what it adds.
    """

    start_s: float
    of: str
    by_second: Sequence[float]
    by_chain: Mapping[str, float]


@dataclass(frozen=True)
class Paged:
    """Everything that a page shows.

    Attributes:
        name: the page's heading.
        about: what stands below it.
        signal: the electrodes.
        montages: name → traces, as `montages` makes them.
        windows: what is known of the windows.
        spectrogram: the spectrogram of both hemispheres.
        stops: places in a list, such as events or labelled sub-windows.
        stop: number of the stop to begin with; None begins at `start_s`.
        start_s: first second that is shown, without a stop.
        remedy: how to have a page with the signal of a stretch that this one lacks; `{from}` and `{to}` stand for its
            ends as h:mm:ss, `{from_s}` and `{to_s}` for the same in seconds, `{second}` for the offset of a window.
        images: pictures of single windows, see `report.viewer`; None without any.
        caveat: warning beside the one that every page has; empty for none.
        details: further paragraphs: a title, and lines.
        tint: what mattered in a window; None if that was not measured.
    """

    name: str
    about: str
    signal: Signal
    montages: Mapping[str, Sequence[Mapping[str, Any]]]
    windows: Windows
    spectrogram: Spectrogram
    stops: Sequence[Stop]
    stop: int | None
    start_s: float
    remedy: str
    images: Mapping[str, Any] | None = None
    caveat: str = ""
    details: Sequence[tuple[str, Sequence[str]]] = ()
    tint: Tint | None = None


def page(paged: Paged, pack: Callable[[int], Packed]) -> str:
    """Return the page.

    Args:
        paged: everything that it shows.
        pack: called with the number of bytes that are free; returns the signal.
    """
    details = [(title, [visible(line) for line in lines]) for title, lines in paged.details]
    paged = replace(paged, name=visible(paged.name), about=visible(paged.about), details=details)
    script = "\n".join(source(name) for name in ("signals.js", "timeline.js", "viewer.js"))
    levels = envelope(paged.signal)
    heavy = {"windows": _windows(paged.windows), "spectrogram": _spectrogram(paged.spectrogram)}
    packed_levels = _base64(levels.levels_DT)
    used = _length(heavy) + len(packed_levels) + _length(dict(paged.images or {}))
    packed = pack(max(0, MOST_BYTES - _TEXT_BYTES - used) * 3 // 4)
    content = heavy | {
        "duration_s": paged.signal.n_times / SFREQ_HZ,
        "signal": {
            "hz": packed.form.hz, "step_uv": packed.form.step_uv, "block_s": BLOCK_S, "n_blocks": packed.n_blocks,
            "kept": sorted(packed.blocks), "empty": sorted(packed.empty), "whole": packed.whole,
        },
        "channels": CHANNELS,
        "montages": paged.montages,
        "montage_names": [name for name in MONTAGES if name in paged.montages],
        "envelope": {"step_s": levels.step_s, "n": levels.levels_DT.shape[1], "per_octave": ENVELOPE_PER_OCTAVE,
                     "labels": [d.label for d in DERIVATIONS[:18]]},
        "stops": [{"centre_s": stop.centre_s, "text": visible(stop.text)} for stop in paged.stops],
        "start": {"stop": paged.stop, "t": paged.start_s},
        "remedy": paged.remedy,
        "images": paged.images,
        "tint": None if paged.tint is None else asdict(paged.tint),
        "classes": [{"name": drawing.CLASS_NAMES[name], "colour": COLOURS[name]} for name in CLASSES],
        "flag_opacities": list(FLAG_OPACITIES.items()),
        "choices": {"page": PAGE_S, "sensitivity": SENSITIVITIES_UV_MM, "high": HIGH_PASS_HZ, "low": LOW_PASS_HZ,
                    "notch": NOTCH_HZ, "notch_q": NOTCH_Q},
        "facts": {"window_s": WINDOW_S, "label_s": LABEL_S, "least_most": drawing.LEAST_MOST},
    }  # fmt: skip
    blocks = [(number, base64.b64encode(data).decode()) for number, data in sorted(packed.blocks.items())]
    return render(
        "viewer.html", policy=policy(script), script=script, content=content, paged=paged, blocks=blocks,
        levels=packed_levels, classes=content["classes"], flags=FLAG_OPACITIES, packed=packed,
    )  # fmt: skip


def montages(
    electrodes: Sequence[str] = CHANNELS[:19],
    comparable: Callable[[str, str], bool] = lambda plus, minus: True,
    one_reference: bool = True,
    has_ekg: bool = True,
) -> dict[str, list[dict[str, Any]]]:
    """Return the montages that a recording allows, each a list of traces.

    Args:
        electrodes: electrodes that the recording has.
        comparable: whether the difference of two electrodes is known.
        one_reference: whether all electrodes were measured against one reference, without which neither the
            referential nor the average montage means anything.
        has_ekg: whether there is an electrocardiogram.

    Returns:
        Name → traces: label, group of neighbours, position of the electrode, and of the one that is subtracted,
        `average`, or None.
    """
    there = set(electrodes)
    pairs = [d for d in DERIVATIONS if d.minus and {d.plus, d.minus} <= there and comparable(d.plus, d.minus)]
    found = {"bipolar": [_trace(d, CHANNELS.index(d.minus or "")) for d in pairs]}
    if one_reference:
        singles = [Derivation(_side(name), name, None) for name in _left_to_right(electrodes)]
        found["average"] = [_trace(d, "average") | {"label": f"{d.plus}–av"} for d in singles]
        found["referential"] = [_trace(d, None) for d in singles]
    if has_ekg:
        for traces in found.values():
            traces.append(_trace(DERIVATIONS[-1], None))
    return found


def _trace(derivation: Derivation, minus: int | str | None) -> dict[str, Any]:
    plus = CHANNELS.index(derivation.plus)
    return {"label": derivation.label, "group": derivation.group, "plus": plus, "minus": minus}


def _side(name: str) -> str:
    if name.endswith("z"):
        return "midline"
    return "LL" if int(name[-1]) % 2 else "RL"


def _left_to_right(electrodes: Sequence[str]) -> list[str]:
    """Return electrodes of the left, the right, then the midline, each from front to back."""
    order = ("LL", "RL", "midline")
    return sorted(electrodes, key=lambda name: (order.index(_side(name)), CHANNELS.index(name)))


def hemispheres(log_power: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the mean of the two panels of each side, two bins together.

    Args:
        log_power: (R, 400) logarithm of power, columns as in `competition.SPECTROGRAM_COLUMNS`.

    Returns:
        (R, 2, 50) left and right; NaN where neither panel has a value.
    """
    rows = log_power.astype(np.float32).reshape(len(log_power), len(PANELS), _BINS, ALL_BINS // _BINS)
    sides = [[PANELS.index(panel) for panel in side] for side in (("LL", "LP"), ("RL", "RP"))]
    return np.stack([_mean(rows[:, side], (1, 3)) for side in sides], axis=1)


def _mean(values: NDArray[np.float32], axis: int | tuple[int, ...]) -> NDArray[np.float32]:
    """The mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=axis)
    total = np.where(finite, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _spectrogram(shown: Spectrogram) -> dict[str, Any]:
    """Draw both sides as pictures of at most `_MOST_COLUMNS` columns."""
    n_rows = len(shown.log_power)
    per = max(1, -(-n_rows // _MOST_COLUMNS))
    padded = np.full((-(-n_rows // per) * per, *shown.log_power.shape[1:]), np.nan, np.float32)
    padded[:n_rows] = shown.log_power
    power = _mean(padded.reshape(-1, per, *padded.shape[1:]), 1)
    limits = drawing.power_limits(power)
    images = [data_uri(palette_png(power[:, side, ::-1].T, *limits)) if len(power) else "" for side in (0, 1)]
    return {"first_s": shown.first_s, "column_s": shown.row_s * per, "n": len(power), "images": images}


def _windows(windows: Windows) -> dict[str, Any]:
    """Pack the windows; probabilities and spreads in steps of 0.0001, 65535 where there is none."""
    every = max(1, -(-len(windows.start_s) // MOST_WINDOWS))

    def steps(values: NDArray[np.float64] | None) -> str | None:
        if values is None:
            return None
        shown = values[::every]
        return _base64(
            np.where(np.isfinite(shown), np.round(np.nan_to_num(shown) * 10_000), 65_535).astype("<u2")
        )

    return {
        "n": len(windows.start_s[::every]),
        "shown_of": every,
        "every_s": windows.every_s * every,
        "start_s": _base64(windows.start_s[::every].astype("<f8")),
        "probabilities": steps(windows.probabilities),
        "spread": steps(windows.spread),
        "flags": {name: _base64(flag[::every].astype(np.uint8)) for name, flag in windows.flags.items()},
        "votes": windows.votes,
        "who": visible(windows.who),
    }


def _length(content: object) -> int:
    """Count the characters of strings, however deep they lie."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Mapping):
        return sum(map(_length, content.values()))
    return sum(map(_length, content)) if isinstance(content, list | tuple) else 20


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def data_uri(image: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
