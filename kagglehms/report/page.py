"""`kagglehms report`: all runs of a folder on one page that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.competition import CLASSES, PANELS
from kagglehms.data.store import Store
from kagglehms.errors import HMSError, UsageError
from kagglehms.files import write_bytes
from kagglehms.inputs.layouts import PANEL_SHAPES, draw_source
from kagglehms.report import drawing, figures
from kagglehms.report.montage import traces
from kagglehms.report.style import PAGE, figure, styled, svg
from kagglehms.report.templating import policy, render
from kagglehms.runs.blends import Blend, score_name
from kagglehms.runs.ladder import RUNGS, Row, published_row
from kagglehms.runs.reading import RunView, focus_of, read_blends, read_runs
from kagglehms.runs.statistics import (
    Group,
    Scored,
    by_class,
    by_patient,
    by_votes,
    calibration,
    confusion,
    hardest,
    mean_over_patients,
)
from kagglehms.training.metric import shortcoming

if TYPE_CHECKING:
    from markupsafe import Markup

COMPARED = 6
"""Runs that are compared in one figure; more could not be told apart."""

Watch = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Written:
    """What `write_report` did.

    Attributes:
        path: the page.
        n_runs: runs on it.
        focus: the run that it looks at closely; None if no fold of any is finished.
        problems: what could not be shown.
    """

    path: Path
    n_runs: int
    focus: str | None
    problems: tuple[str, ...]


def write_report(
    runs: Path,
    out: Path,
    store: Path | None = None,
    recipe: str | None = None,
    n_hardest: int = 6,
    watch: Watch = lambda items, total: items,
) -> Written:
    """Write the report of all runs below `runs`.

    Args:
        runs: the folder that `kagglehms train` wrote, finished or not.
        out: the page to write.
        store: decoded recordings, for the traces of the hardest records; without one the page says so.
        recipe: the run to look at closely; None takes the best.
        n_hardest: how many of its hardest records to show.
        watch: wraps the sections as they are made, given their number, to show progress.

    Raises:
        UsageError: no runs, no such recipe, or n_hardest below 0.
        RunError: the page cannot be written.
    """
    if n_hardest < 0:
        raise UsageError(f"the number of hardest records must be at least 0, but got {n_hardest}")
    views = read_runs(runs)
    blends, problems = read_blends(runs)
    focus = focus_of(views, recipe)
    compared = [v for v in views if v.scored is not None]
    compared = sorted(compared, key=lambda v: (v is not focus, not v.complete, v.score))[:COMPARED]
    sections: dict[str, Callable[[], Any]] = {
        "ladder": lambda: _ladder(views),
        "curves": lambda: _curves(views),
        "groups": lambda: _groups(compared),
        "details": lambda: [_detail(view, view is focus) for view in compared],
        "blends": lambda: [_blend(blend) for blend in blends],
        "hardest": lambda: _hardest(focus, store, n_hardest),
        "provenance": lambda: [_provenance(view) for view in views],
    }  # fmt: skip
    made = {name: make() for name, make in watch(sections.items(), len(sections))}
    problems = [*problems, *(problem for view in views for problem in view.problems)]
    page = render(
        "report.html",
        policy=policy(),
        runs=str(runs),
        views=views,
        shortcomings=[told for view in views if (told := _shortcoming(view))],
        focus=focus,
        n_left_out=sum(view.scored is not None for view in views) - len(compared),
        problems=problems,
        **made,
    )
    write_bytes(out, page.encode())
    return Written(out, len(views), focus.name if focus else None, tuple(problems))


def _svg(drawn: Any, label: str) -> Markup:
    from markupsafe import Markup

    return Markup(svg(drawn, label))


def _shortcoming(view: RunView) -> str:
    """Where a run is worse than knowing nothing, in words; empty if nowhere."""
    if view.scored is None:
        return ""
    of_all, of_many = view.scored.standings
    told = shortcoming({"all records": of_all, "those with many votes": of_many})
    return f"{view.name} is {told}" if told else ""


def _ladder(views: list[RunView]) -> dict[str, Any]:
    """The source's rungs in its order with what was trained of them, then all other runs."""
    trained: dict[str, Row] = {view.name: view.row for view in views if view.row is not None}
    rungs = [trained.pop(r.recipe) if r.recipe in trained else published_row(r.recipe) for r in RUNGS]
    rows = [*rungs, *trained.values()]
    datasets = {row.data for row in rows if row.data}
    label = "Chart of the out-of-fold score of each recipe, ours beside the published one"
    return {
        "rows": rows,
        "figure": _svg(figures.ladder_chart(rows), label),
        "mixed": len(datasets) > 1,
    }


def _curves(views: list[RunView]) -> list[dict[str, Any]]:
    return [
        {"name": v.name, "figure": _svg(figures.learning_curves(v.history), f"Learning curves of {v.name}")}
        for v in views
        if v.history is not None
    ]


def _groups(views: list[RunView]) -> list[dict[str, Any]]:
    if not views:
        return []
    kinds = (
        ("By class with the most votes", by_class),
        ("By number of votes", by_votes),
        ("By patient", by_patient),
    )
    made = []
    for title, group in kinds:
        scores = {v.name: group(v.scored) for v in views if v.scored is not None}
        drawn = _svg(figures.group_scores(scores), f"Scores {title.lower()}")
        made.append(
            {
                "title": title,
                "figure": drawn,
                "table": _named(next(iter(scores.values()))),
                "of": views[0].name,
            }
        )
    return made


def _named(groups: list[Group]) -> list[Group]:
    """Groups with their classes spelt as in the figures."""
    return [replace(group, label=drawing.CLASS_NAMES.get(group.label, group.label)) for group in groups]


def _detail(view: RunView, is_focus: bool) -> dict[str, Any]:
    scored: Scored = view.scored  # type: ignore[assignment]
    counts_KK = confusion(scored)
    return {
        "name": view.name,
        "open": is_focus,
        "n_records": len(scored.votes_NK),
        "n_patients": len(np.unique(scored.patients_N)),
        "standings": [standing for standing in scored.standings if standing is not None],
        "by_patient": mean_over_patients(scored),
        "agreement": float(counts_KK.trace() / counts_KK.sum()),
        "confusion": _svg(
            figures.confusion_figure(counts_KK), f"Confusion of the dominant class, {view.name}"
        ),
        "calibration": _svg(
            figures.calibration_figure([calibration(scored, k) for k in range(len(CLASSES))]),
            f"Calibration of each class, {view.name}",
        ),
    }


def _blend(blend: Blend) -> dict[str, Any]:
    scores = {score_name(name): value for name, value in blend.scores.items()}
    return {
        "blend": blend,
        "scores": scores,
        "figure": _svg(figures.blend_figure(blend), f"Weights of {blend.name}"),
    }


def _hardest(focus: RunView | None, store: Path | None, n: int) -> dict[str, Any]:
    """The hardest records of the run in focus, and why there are no traces if there are none."""
    if focus is None or focus.scored is None or focus.oof is None or "eeg_id" not in focus.oof.columns:
        return {"records": [], "no_traces": None, "of": None}
    opened = None
    no_traces: str | None = "no store of decoded recordings was given (--store)"
    if store is not None:
        try:
            opened = Store(store)
            no_traces = _why_not_these(focus, opened)
        except HMSError as error:
            no_traces = str(error)
    positions = hardest(focus.scored, focus.oof["eeg_id"].to_numpy(), n)
    records = [_hard_record(focus, p, opened if no_traces is None else None) for p in positions]
    return {"records": records, "no_traces": no_traces, "of": focus.name}


def _why_not_these(focus: RunView, store: Store) -> str | None:
    if focus.records is None:
        return "the run does not say where in its recordings the labels lie; it was trained by an earlier version"
    if focus.info.get("identity", {}).get("store") != store.fingerprint:
        return f"{store.path} is not the store that {focus.name} was trained on"
    return None


def _hard_record(focus: RunView, position: int, store: Store | None) -> dict[str, Any]:
    assert focus.oof is not None
    assert focus.scored is not None
    row = focus.oof.row(position, named=True)
    votes_K, prediction_K = focus.scored.votes_NK[position], focus.scored.predictions_NK[position]
    eeg_id = int(row["eeg_id"])
    with styled(PAGE):
        bars = figure(*figures.SMALL)
        drawing.draw_votes(bars.add_subplot(), votes_K, prediction_K, PAGE, focus.name)
    made: dict[str, Any] = {
        "eeg_id": eeg_id,
        "row": row,
        "score": float(focus.scored.terms_N[position]),
        "n_votes": int(votes_K.sum()),
        "votes": _svg(bars, f"Votes and prediction for EEG {eeg_id}"),
        "offset_s": row.get("eeg_offset_min_s"),
        "pictures": [],
    }
    if store is not None and focus.records is not None:
        made["pictures"] = _pictures(focus, position, store, eeg_id)
    return made


def _pictures(focus: RunView, position: int, store: Store, eeg_id: int) -> list[Markup]:
    from kagglehms.training.feed import crop_of

    assert focus.records is not None
    windows = focus.recipe.windows if focus.recipe is not None else "middle"
    crop = crop_of(store, focus.records, position, {"kaggle", "eeg"}, windows)
    panels = {source: np.empty((len(PANELS), *shape), np.float32) for source, shape in PANEL_SHAPES.items()}
    for source, out in panels.items():
        draw_source(source, crop, out)
    with styled(PAGE):
        eeg = figure(7.6, 5.6)
        drawing.draw_traces(eeg.add_subplot(), traces(crop.of("eeg")), drawing.SHOWN_S, PAGE)
        images = figure(7.6, 4.4)
        axes_PX = images.subplots(len(PANELS), 2, sharex="col")
        drawing.draw_mel(axes_PX[:, 0], panels["eeg"], PAGE)
        drawing.draw_kaggle(axes_PX[:, 1], panels["kaggle"], PAGE)
    return [_svg(eeg, f"Traces of EEG {eeg_id}"), _svg(images, f"Spectrograms of EEG {eeg_id}")]


def _provenance(view: RunView) -> dict[str, Any]:
    hardware = sorted({str(r.get("device", "")).removeprefix("device: ") for r in view.results})
    versions: dict[str, set[str]] = {}
    for source in (view.info, *view.results):
        for package, number in dict(source.get("versions") or {}).items():
            versions.setdefault(str(package), set()).add(str(number))
    digests = {"run": view.info.get("fingerprint"), **dict(view.info.get("identity") or {})}
    if view.recipe is not None:
        digests["recipe"] = view.recipe.digest
    return {
        "name": view.name,
        "folds": f"{len(view.results)} of {view.info.get('n_folds', '?')}",
        "hardware": [h for h in hardware if h],
        "first_weights": "; ".join(view.first_weights) or "not recorded",
        "kept": view.recipe.kept if view.recipe else "not recorded",
        "seconds": sum(float(r.get("seconds") or 0) for r in view.results),
        "versions": {package: ", ".join(sorted(found)) for package, found in sorted(versions.items())},
        "digests": {name: str(value) for name, value in digests.items() if value},
        "recipe": json.dumps(json.loads(view.recipe.to_json()), indent=1) if view.recipe else None,
    }
