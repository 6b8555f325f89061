"""The records that a run predicts worst, with votes, traces and images of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.data.records import Windows
from kagglehms.data.store import Store
from kagglehms.errors import HMSError
from kagglehms.report import drawing, figures
from kagglehms.report.montage import traces
from kagglehms.report.style import PAGE, figure, styled, svg
from kagglehms.runs.run_view import RunView
from kagglehms.runs.statistics import hardest

if TYPE_CHECKING:
    from markupsafe import Markup

    from kagglehms.inputs.layouts import Crop


SHOWN_S = (19.0, 31.0)
"""Seconds of the window that traces show: the labelled ten and one beside them, for which a phone has room."""


def hardest_section(view: RunView | None, store: Path | None, n: int) -> dict[str, Any]:
    """Return the hardest records of a run, and why there are no traces if there are none.

    Args:
        view: the run; None without any that can be scored.
        store: decoded recordings; None leaves the traces and images out.
        n: number of records.
    """
    if view is None or view.scored is None:
        return {"records": [], "no_traces": None, "of": None}
    opened, no_traces = _opened(view, store)
    positions = hardest(view.scored, n)
    crops = [None if opened is None else _crop(view, position, opened) for position in positions]
    shown = [traces(crop.of("eeg")) for crop in crops if crop is not None]
    # One sensitivity for all, so that heights can be compared from record to record.
    spacing_uv = max((drawing.spacing_uv(part, SHOWN_S) for part in shown), default=0)
    records = [_record(view, *each, spacing_uv) for each in zip(positions, crops, strict=True)]
    return {"records": records, "no_traces": no_traces, "of": view.name, "traces": drawing.TRACES}


def _opened(view: RunView, store: Path | None) -> tuple[Store | None, str | None]:
    """Open the store that a run was trained on, or say why it cannot be used."""
    if store is None:
        return None, "no store of decoded recordings was given (--store)"
    try:
        opened = Store(store)
    except HMSError as error:
        return None, str(error)
    if view.info is None or view.info.identity.store != opened.fingerprint:
        return None, f"{store} is not the store that {view.name} was trained on"
    return opened, None


def _crop(view: RunView, position: int, store: Store) -> Crop:
    from kagglehms.inputs.crops import crop_of

    assert view.scored is not None
    return crop_of(store, view.scored.records, position, {"kaggle", "eeg"}, _windows(view))


def _windows(view: RunView) -> Windows:
    return "middle" if view.recipe is None else view.recipe.windows


def _record(view: RunView, position: int, crop: Crop | None, spacing_uv: float) -> dict[str, Any]:
    assert view.oof is not None
    assert view.scored is not None
    scored, row = view.scored, view.oof.row(position, named=True)
    votes_K, eeg_id = scored.records.votes_NK[position], int(row["eeg_id"])
    start_s = 0.0 if crop is None else scored.records.places(_windows(view))[1][position] / SFREQ_HZ
    with styled(PAGE):
        bars = figure(*figures.SMALL)
        drawing.draw_votes(bars.add_subplot(), votes_K, scored.predictions_NK[position], PAGE, view.name)
    return {
        "eeg_id": eeg_id,
        "row": row,
        "score": float(scored.terms_N[position]),
        "n_votes": int(votes_K.sum()),
        "votes": svg(bars, f"Votes and prediction for EEG {eeg_id}"),
        "pictures": [] if crop is None else _pictures(crop, start_s, spacing_uv, eeg_id),
    }


def _pictures(crop: Crop, start_s: float, spacing_uv: float, eeg_id: int) -> list[Markup]:
    with styled(PAGE):
        eeg, mel, kaggle = (figure(figures.SMALL[0], height_in) for height_in in (5.0, 2.9, 2.9))
        drawing.draw_traces(eeg.add_subplot(), traces(crop.of("eeg")), SHOWN_S, PAGE, start_s, spacing_uv)
        drawing.draw_mel(mel.subplots(4, sharex=True), drawing.panels(crop, "eeg"), PAGE, start_s)
        drawing.draw_kaggle(kaggle.subplots(4, sharex=True), drawing.panels(crop, "kaggle"), PAGE, start_s)
    return [
        svg(drawn, f"{what} of EEG {eeg_id}")
        for drawn, what in ((eeg, "Traces"), (mel, "Mel images"), (kaggle, "Spectrogram"))
    ]
