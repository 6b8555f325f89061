"""Variants of recipes as people give them on a command line: settings such as `dropout=0.2`, and files of recipes."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kagglehms.errors import DataError, UsageError, closest, first_line
from kagglehms.training.recipe import Recipe, recipe_from_json
from kagglehms.training.recipes import get_recipe

FILES = (".json", ".py")
"""Endings of files that recipes are read from."""


def find_recipes(name: str) -> tuple[Recipe, ...]:
    """Return the recipe of a name, or those in a file.

    Args:
        name: name of a recipe, see `recipes.get_recipe`, or path of a file that ends in `.json` or `.py`, see
            `read_recipes`.

    Raises:
        UsageError: there is no such recipe.
        DataError: the file cannot be read, or holds no recipe.
    """
    return read_recipes(Path(name)) if name.endswith(FILES) else (get_recipe(name),)


def read_recipes(path: Path) -> tuple[Recipe, ...]:
    """Read recipes from a file.

    Args:
        path: JSON as `Recipe.to_json` writes it, such as a run's recipe.json; or a Python script, which is run, and
            whose global variables that are recipes are taken, in order.

    Raises:
        DataError: the file cannot be read or run, or holds no recipe.
    """
    try:
        if path.suffix == ".json":
            return (recipe_from_json(path.read_bytes(), path),)
        found = [value for value in runpy.run_path(str(path)).values() if isinstance(value, Recipe)]
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "give the file of a recipe") from error
    except (DataError, UsageError):
        raise
    except Exception as error:  # whatever a script may raise
        raise DataError(path, f"{type(error).__name__}: {first_line(error)}", "correct the script") from error
    if not found:
        raise DataError(path, "defines no recipe", "assign a Recipe to a global variable")
    unique = {recipe.name: recipe for recipe in found}
    if any(unique[recipe.name] != recipe for recipe in found):
        raise DataError(path, "two recipes have the same name", "give each a name of its own")
    return tuple(unique.values())


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return a recipe with other values for some of its settings.

    Args:
        recipe: the recipe.
        settings: `FIELD=VALUE` each. The field may lie within another, as in `stages.0.epochs=3`; the value is JSON,
            or a text without quotes.

    Raises:
        UsageError: there is no such field, or it cannot have this value.
    """
    content = recipe.settings()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting!r} is no setting; write FIELD=VALUE, such as dropout=0.2")
        _set(content, path.split("."), _value(text), setting)
    try:
        return recipe_from_json(json.dumps(content).encode())
    except DataError as error:
        raise UsageError(f"{', '.join(settings)}: {error.reason}") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _set(content: Any, path: Sequence[str], value: Any, setting: str) -> None:
    """Set a value within nested dictionaries and lists."""
    for number, key in enumerate(path):
        step: Any = key
        if isinstance(content, list):
            known = list(map(str, range(len(content))))
            step = int(key) if key in known else key
        else:
            known = list(content) if isinstance(content, dict) else []
        if key not in known:
            place = ".".join(path[:number]) or "a recipe"
            raise UsageError(f"{setting}: {place} has no setting {key!r}; {closest(key, known)}")
        if number == len(path) - 1:
            content[step] = value
        else:
            content = content[step]
