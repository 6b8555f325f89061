"""The records that a run predicts worst, with votes, traces and images of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.data.store import Store
from kagglehms.errors import HMSError
from kagglehms.report import drawing, figures
from kagglehms.report.montage import traces
from kagglehms.report.style import PAGE, figure, styled, svg
from kagglehms.runs.run_view import RunView
from kagglehms.runs.statistics import hardest

if TYPE_CHECKING:
    from markupsafe import Markup


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
    records = [_record(view, position, opened) for position in hardest(view.scored, n)]
    return {"records": records, "no_traces": no_traces, "of": view.name}


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


def _record(view: RunView, position: int, store: Store | None) -> dict[str, Any]:
    assert view.oof is not None
    assert view.scored is not None
    scored, row = view.scored, view.oof.row(position, named=True)
    votes_K, eeg_id = scored.records.votes_NK[position], int(row["eeg_id"])
    with styled(PAGE):
        bars = figure(*figures.SMALL)
        drawing.draw_votes(bars.add_subplot(), votes_K, scored.predictions_NK[position], PAGE, view.name)
    return {
        "eeg_id": eeg_id,
        "row": row,
        "score": float(scored.terms_N[position]),
        "n_votes": int(votes_K.sum()),
        "votes": svg(bars, f"Votes and prediction for EEG {eeg_id}"),
        "pictures": [] if store is None else _pictures(view, position, store, eeg_id),
    }


def _pictures(view: RunView, position: int, store: Store, eeg_id: int) -> list[Markup]:
    from kagglehms.inputs.crops import crop_of

    assert view.scored is not None
    windows = "middle" if view.recipe is None else view.recipe.windows
    crop = crop_of(store, view.scored.records, position, {"kaggle", "eeg"}, windows)
    with styled(PAGE):
        eeg = figure(7.6, 5.6)
        drawing.draw_traces(eeg.add_subplot(), traces(crop.of("eeg")), drawing.SHOWN_S, PAGE)
        images = figure(7.6, 4.4)
        drawing.draw_images(images, crop, PAGE)
    return [svg(eeg, f"Traces of EEG {eeg_id}"), svg(images, f"Spectrograms of EEG {eeg_id}")]
