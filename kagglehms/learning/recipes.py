"""Every experiment is a named, frozen `Recipe`; variants are made with `dataclasses.replace`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kagglehms.errors import DataError, UsageError, closest
from kagglehms.features.images import PANELS_BY_THEMSELVES, Layout

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Recipe:
    """All that decides what a training run learns, apart from its data and folds.

    Attributes:
        name: how commands call it.
        layout: the input image.
        backbone: any timm model by name.
        drop_path_rate: stochastic depth inside the backbone.
        dropout: before the linear head.
        batch_size: records per step.
        epochs: passes over the training records.
        lr: the highest learning rate of the schedule.
        weight_decay: of AdamW, on all parameters.
        schedule: `one-cycle` falls from `lr` to a tenth of it (see `trainer.make_schedule`); `constant` is what
            the source's notebooks really did, as they never stepped their scheduler.
        evaluations_per_epoch: how often the held-out fold is scored; the best evaluation is kept.
        loss: `kl`, see `losses`.
        seed: of the initial weights, the order of records and dropout.
    """

    name: str
    layout: Layout
    backbone: str = "efficientnet_b2"
    drop_path_rate: float = 0.2
    dropout: float = 0.3
    batch_size: int = 32
    epochs: int = 6
    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    evaluations_per_epoch: int = 2
    loss: Literal["kl"] = "kl"
    seed: int = 42

    # Read by pydantic where JSON becomes a Recipe: a mistyped key or value must not pass.
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not self.name or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789-+_" for c in self.name):
            raise UsageError(f"a recipe's name is made of a-z, 0-9, '-', '+' and '_', but got {self.name!r}")
        for field in ("batch_size", "epochs", "evaluations_per_epoch"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} must be at least 1, but got {getattr(self, field)}")
        if self.lr <= 0 or self.weight_decay < 0:
            raise UsageError(
                f"lr must be above and weight_decay at least 0, but got {self.lr}, {self.weight_decay}"
            )
        for field in ("drop_path_rate", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UsageError(f"{field} must be in [0, 1), but got {getattr(self, field)}")

    def to_json(self) -> bytes:
        """Strict JSON, the same bytes for the same recipe."""
        return _adapter().dump_json(self, indent=1) + b"\n"

    @property
    def digest(self) -> str:
        """sha256 of the JSON: runs of recipes with different digests must not be mixed."""
        return hashlib.sha256(self.to_json()).hexdigest()


def recipe_from_json(content: bytes, path: Path | str = "recipe") -> Recipe:
    """Read a recipe back.

    Args:
        content: what `Recipe.to_json` wrote.
        path: where it came from, for the error.

    Raises:
        DataError: not JSON, unknown keys, missing keys, values of another type.
    """
    from pydantic import ValidationError

    try:
        return _adapter().validate_json(content)
    except (ValidationError, UsageError) as error:
        raise DataError(
            path, f"is no recipe of this version: {_first_problem(error)}", "train it again"
        ) from error


def get_recipe(name: str) -> Recipe:
    """Look a recipe up by name.

    Raises:
        UsageError: unknown; the message lists what exists.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; {closest(name, RECIPES)}")
    return RECIPES[name]


@cache
def _adapter() -> TypeAdapter[Recipe]:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def _first_problem(error: Exception) -> str:
    problems: list[dict[str, Any]] = getattr(error, "errors", list)()
    if not problems:
        return str(error)
    where = ".".join(map(str, problems[0]["loc"]))
    return f"{where}: {problems[0]['msg']}" if where else str(problems[0]["msg"])


_ALL = (
    Recipe("baseline", PANELS_BY_THEMSELVES),
    # Not a rung of the ladder: small enough to learn something in a minute on two CPU cores.
    Recipe(
        "demo", PANELS_BY_THEMSELVES, backbone="lcnet_050", drop_path_rate=0.0, dropout=0.1, epochs=8, lr=3e-3
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe by name."""
