"""`kagglehms report`: all runs of a folder on one page that needs nothing but a browser."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError
from kagglehms.files import write_bytes
from kagglehms.progress import Watch
from kagglehms.report import drawing, figures
from kagglehms.report.hardest import hardest_section
from kagglehms.report.style import svg
from kagglehms.report.templating import policy, render
from kagglehms.runs.blends import Blend, score_name
from kagglehms.runs.ladder import recipe_rows
from kagglehms.runs.named_blends import read_blends
from kagglehms.runs.published_figures import N_RECORDS, RUNGS
from kagglehms.runs.run_view import RunView, focus_of, view_runs
from kagglehms.runs.statistics import (
    Group,
    Scored,
    by_class,
    by_patient,
    by_votes,
    calibration,
    confusion,
    mean_over_patients,
)
from kagglehms.training.metric import shortcoming

COMPARED = 6
"""Most runs that are compared in one figure; more could not be told apart."""


@dataclass(frozen=True)
class Written:
    """What `write_report` wrote.

    Attributes:
        path: path of the page.
        n_runs: number of runs on the page.
        focus: name of the run that is shown in detail; None if no run has a finished fold.
        problems: a sentence for each thing that could not be read.
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
    data: Path | None = None,
) -> Written:
    """Write the report of all runs below `runs`.

    Args:
        runs: folder of all runs, finished or not.
        out: path of the page to write.
        store: folder of decoded recordings, for the traces of the hardest records; None leaves them out.
        recipe: name of the run to show in detail; None takes the best.
        n_hardest: number of that run's hardest records to show.
        watch: function that is given the sections and their number, and yields them, to show progress.
        data: folder of the competition, for the commands that the page names; None leaves it to them to find it.

    Raises:
        UsageError: there are no runs or no such run, or `n_hardest` is below 0.
        RunError: the page cannot be written.
    """
    if n_hardest < 0:
        raise UsageError(f"the number of hardest records must be at least 0, but got {n_hardest}")
    views = view_runs(runs)
    blends, problems = read_blends(runs)
    focus = focus_of(views, recipe)
    by_rank = sorted(
        (view for view in views if view.score is not None),
        key=lambda view: (view is not focus, not view.complete, view.score),
    )
    compared = {view.name: view.scored for view in by_rank[:COMPARED] if view.scored is not None}
    sections: dict[str, Callable[[], Any]] = {
        "ladder": lambda: _ladder(views),
        "curves": lambda: _curves(views),
        "groups": lambda: _groups(compared),
        "details": lambda: [_detail(name, scored) for name, scored in compared.items()],
        "blends": lambda: [_blend(blend) for blend in blends],
        "hardest": lambda: hardest_section(focus, store, n_hardest),
        "provenance": lambda: [_provenance(view) for view in views],
    }  # fmt: skip
    made = {name: make() for name, make in watch(sections.items(), len(sections))}
    problems = [*problems, *(problem for view in views for problem in view.problems)]
    page = render(
        "report.html",
        policy=policy(),
        n_published=N_RECORDS,
        runs=str(runs),
        places=shlex.join(
            word
            for name, folder in (("data", data), ("store", store), ("runs", runs))
            if folder is not None and folder != Path(name)
            for word in (f"--{name}", str(folder))
        ),
        views=views,
        shortcomings=[sentence for view in views if (sentence := _shortcoming(view))],
        focus=focus,
        n_left_out=len(by_rank) - len(compared),
        problems=problems,
        **made,
    )
    write_bytes(out, page.encode())
    return Written(out, len(views), focus.name if focus else None, tuple(problems))


def _shortcoming(view: RunView) -> str:
    """Describe where a run is worse than knowing nothing; empty if nowhere."""
    if view.scored is None:
        return ""
    worse = shortcoming(*view.scored.standings)
    return f"{view.name} is {worse}" if worse else ""


def _ladder(views: list[RunView]) -> dict[str, Any]:
    """Return the source's rungs in its order with what was trained of them, then all other runs."""
    rows = recipe_rows(views, RUNGS)
    label = "Chart of the out-of-fold score of each recipe, ours beside the published one"
    datasets = {row.data for row in rows if row.data}
    return {"rows": rows, "figure": svg(figures.ladder_chart(rows), label), "mixed": len(datasets) > 1}


def _curves(views: list[RunView]) -> list[dict[str, Any]]:
    return [
        {"name": v.name, "figure": svg(figures.learning_curves(v.history), f"Learning curves of {v.name}")}
        for v in views
        if v.history is not None
    ]


def _groups(compared: dict[str, Scored]) -> list[dict[str, Any]]:
    if not compared:
        return []
    kinds = (
        ("By class with the most votes", by_class),
        ("By number of votes", by_votes),
        ("By patient", by_patient),
    )
    made = []
    for title, group in kinds:
        groups = {name: group(scored) for name, scored in compared.items()}
        first = next(iter(groups))
        drawn = svg(figures.group_scores(groups), f"Scores {title.lower()}")
        made.append({"title": title, "figure": drawn, "table": _named(groups[first]), "of": first})
    return made


def _named(groups: list[Group]) -> list[Group]:
    """Return groups with their classes spelt as in the figures."""
    return [replace(group, label=drawing.CLASS_NAMES.get(group.label, group.label)) for group in groups]


def _detail(name: str, scored: Scored) -> dict[str, Any]:
    counts_KK = confusion(scored)
    return {
        "name": name,
        "n_records": len(scored.records),
        "n_patients": len(np.unique(scored.records.patients)),
        "standings": [standing for standing in scored.standings if standing is not None],
        "by_patient": mean_over_patients(scored),
        "agreement": float(counts_KK.trace() / counts_KK.sum()),
        "confusion": svg(figures.confusion_figure(counts_KK), f"Confusion of the dominant class, {name}"),
        "calibration": svg(
            figures.calibration_figure([calibration(scored, k) for k in range(len(CLASSES))]),
            f"Calibration of each class, {name}",
        ),
    }


def _blend(blend: Blend) -> dict[str, Any]:
    scores = {score_name(name): value for name, value in blend.scores.items()}
    return {
        "blend": blend,
        "scores": scores,
        "figure": svg(figures.blend_figure(blend), f"Weights of {blend.name}"),
    }


def _provenance(view: RunView) -> dict[str, Any]:
    info, recipe, results = view.info, view.recipe, view.results
    versions: dict[str, set[str]] = {}
    for part in (info, *results):
        for package, number in ({} if part is None else part.versions).items():
            versions.setdefault(package, set()).add(number)
    digests = {} if info is None else {"run": info.fingerprint, **info.identity.parts}
    if recipe is not None:
        digests["recipe"] = recipe.digest
    return {
        "name": view.name,
        "folds": f"{len(results)} of {'?' if info is None else info.n_folds}",
        "hardware": sorted({result.device.removeprefix("device: ") for result in results}),
        "first_weights": "; ".join(view.first_weights) or "not recorded",
        "kept": "not recorded" if recipe is None else recipe.kept,
        "seconds": sum(result.seconds for result in results),
        "versions": {package: ", ".join(sorted(found)) for package, found in sorted(versions.items())},
        "digests": digests,
        "recipe": None if recipe is None else json.dumps(json.loads(recipe.to_json()), indent=1),
    }
