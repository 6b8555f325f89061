"""The bundle's model card: what its models are, how they scored, and what they are not for; always the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms import __version__
from kagglehms.bundle.manifest import FEW_RECORDS, Model, Onnx, Prior
from kagglehms.data.competition import CLASSES
from kagglehms.inputs.kinds import Input, describe, unit
from kagglehms.runs.blends import Blend, score_name
from kagglehms.runs.folder import FinishedRun, named_origin
from kagglehms.runs.prior_correction import PriorCorrection
from kagglehms.training.metric import Standing, shortcoming

if TYPE_CHECKING:
    from jinja2 import Environment

MODEL_CARD = "MODEL_CARD.md"
"""Name of the model card in the bundle."""
_TEMPLATES = Path(__file__).with_name("templates")


def model_card(
    runs: Sequence[FinishedRun],
    models: Sequence[Model],
    versions: dict[str, str],
    prior: Prior,
    blend: Blend | None,
) -> bytes:
    """Fill in the template of the model card.

    Args:
        runs: runs that the bundle is made from.
        models: entries of the bundle's manifest, one per fold's weights.
        versions: versions of the packages that the models were trained with.
        prior: prior of the bundle, see `Manifest.prior`.
        blend: how recipes are combined; None for their plain mean.
    """
    described = [_described(run) for run in runs]
    layouts = {run.recipe.name: run.recipe.layout for run in runs}
    keeping: dict[str, list[str]] = {}
    for each in described:
        keeping.setdefault(each["kept"], []).append(each["name"])
    text = _environment().get_template("model_card.md").render(
        runs=described,
        keeping=keeping,
        models=models,
        onnx=[_onnx_row(layouts[model.recipe], model.onnx) for model in models if model.onnx],
        shortcomings=[told for model in models if (told := _shortcoming(model))],
        few=[run["name"] for run in described if run["records"] < FEW_RECORDS],
        version=__version__,
        half=any(model.precision == "float16" for model in models),
        versions=versions,
        prior=prior,
        prior_of_many=blend is not None and blend.prior is not None and blend.prior.population == "many",
        classes=CLASSES,
        combination=_combination(runs, blend),
    )  # fmt: skip
    return text.encode()


def _environment() -> Environment:
    """Make an environment for Markdown, where text from data is escaped for a table's cell rather than for HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, is_undefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters["cell"] = _cell
    made.filters["score"] = lambda value: "–" if value is None or is_undefined(value) else f"{value:.4f}"
    return made


def _cell(text: object) -> str:
    """Return `text` as one line without anything that Markdown or HTML would treat as markup."""
    line = " ".join(str(text).split())
    for character in "\\`|*_[]":
        line = line.replace(character, f"\\{character}")
    return line.replace("<", "&lt;").replace(">", "&gt;")


def _described(run: FinishedRun) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "image": describe(recipe.layout),
        "network": recipe.network,
        "epochs": recipe.epochs,
        "kept": recipe.kept,
        "first_weights": named_origin(run.first_weights),
        "name": recipe.name,
        "folds": len(run.results),
        "n_folds": run.info.n_folds,
        "records": run.info.records,
        "teachers": recipe.teachers,
    }


def _onnx_row(layout: Input, onnx: Onnx) -> dict[str, Any]:
    return {
        "file": onnx.file,
        "opset": onnx.opset,
        "shape": " × ".join(("B", *map(str, layout.array_shape))),
        "input": describe(layout),
        "unit": unit(layout),
        "difference": onnx.max_difference,
    }


def _shortcoming(model: Model) -> str:
    """Return in words where a model scored worse than knowing nothing; empty if nowhere."""
    worse = shortcoming(
        *(
            Standing.of(*(model.scores.get(name) for name in (part, f"prior_{part}", f"uniform_{part}")))
            for part in ("all", "votes10")
        )
    )
    return f"fold {model.fold} of {_cell(model.recipe)} is {worse}" if worse else ""


def _combination(runs: Sequence[FinishedRun], blend: Blend | None) -> str:
    if blend is not None:
        weights = ", ".join(
            f"{_cell(m)} {w:.3f}" for m, w in zip(blend.members, blend.weights, strict=True) if w
        )
        scores = "; ".join(f"{score_name(name)} {score:.4f}" for name, score in blend.scores.items())
        calibration = f", temperature {blend.temperature:.3f}" + (", class biases" if blend.biases else "")
        scored = f" Its scores: {scores}." if scores else ""
        if blend.prior is not None:
            scored = f" {_correction(blend.prior)}{scored}"
        return (
            f"Folds are averaged within a recipe, then recipes are combined by the blend {_cell(blend.name)} "
            f"({blend.space} space{calibration}): {weights}.{scored}"
        )
    if not runs:
        return "None: this bundle is the library alone, for preparing and training on Kaggle."
    if len(runs) == 1:
        return "The folds' probabilities are averaged."
    return "Folds are averaged within a recipe, then recipes, all alike."


def _correction(prior: PriorCorrection) -> str:
    many = "records with many votes" if prior.population == "many" else "all records"
    return (
        "Before that, each recipe's probabilities are corrected from the class prior of the records that its last "
        f"stage learned from to that of {many} (exponent {prior.exponent:.3f}); they are meant for no others."
    )
