"""Recipes as people give them: settings on a command line, and files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kagglehms.errors import DataError, UsageError
from kagglehms.training.options import PseudoLabels
from kagglehms.training.recipes import RECIPES, get_recipe
from kagglehms.training.variants import find_recipes, read_recipes, with_settings

BASELINE = get_recipe("baseline")
TWICE = """
from dataclasses import replace
from kagglehms.training.recipes import get_recipe
a = get_recipe("baseline")
b = replace(a, lr=1e-4)
"""

LISTS = """
from dataclasses import replace
from kagglehms.training.options import Mirror
from kagglehms.training.recipes import get_recipe
a = replace(get_recipe("raw-fold"), augmentations=[Mirror()])
"""


@pytest.mark.parametrize("name", RECIPES)
def test_no_setting_changes_nothing(name: str) -> None:
    assert with_settings(get_recipe(name), []) == get_recipe(name)


def test_settings_of_any_kind_and_depth() -> None:
    changed = with_settings(
        get_recipe("raw-fold"),
        [
            "dropout=0.25",
            "backbone=resnet10t",
            "ema=0.99",
            "stages.0.epochs=3",
            "stages.1.lr=2e-5",
            "augmentations=[]",
            "pooling=gem",
        ],
    )
    old = get_recipe("raw-fold")
    stages = (replace(old.stages[0], epochs=3), replace(old.stages[1], lr=2e-5))
    wanted = replace(
        old, dropout=0.25, backbone="resnet10t", ema=0.99, stages=stages, augmentations=(), pooling="gem"
    )
    assert changed == wanted
    assert with_settings(changed, ["ema=null"]).ema is None
    assert with_settings(
        get_recipe("raw-fold"), ["layout.fold.step=4", "layout.fold.phases=5"]
    ).layout.shape == (
        80,
        500,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_at_any_depth_can_be_set_to_what_it_is(name: str) -> None:
    """Also those that JSON leaves out because they were added later and have their defaults."""
    recipe = get_recipe(name)
    settings = list(_settings(recipe))
    assert with_settings(recipe, settings) == recipe


def _settings(value: Any, place: str = "") -> Iterator[str]:
    """Yield FIELD=VALUE for every field of nested dataclasses and of tuples of them."""
    inner = (
        [(field.name, getattr(value, field.name)) for field in fields(value)] if is_dataclass(value) else []
    )
    if isinstance(value, tuple) and all(map(is_dataclass, value)):
        inner = [(str(number), each) for number, each in enumerate(value)]
    for key, each in inner:
        yield from _settings(each, f"{place}.{key}" if place else key)
    if not inner and place:
        yield f"{place}={json.dumps(value)}"


def test_a_nested_setting_that_was_added_later_can_be_set() -> None:
    labels = PseudoLabels(("raw-fold",), share=0.5)
    given = 'stages.0.pseudo_labels={"teachers": ["raw-fold"], "share": 0.5}'
    (stage,) = with_settings(BASELINE, [given]).stages
    assert stage == replace(BASELINE.stages[0], pseudo_labels=labels)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dropout", "'dropout' is no setting; write FIELD=VALUE"),
        ("droput=0.2", "a recipe has no setting 'droput'; did you mean 'dropout'"),
        ("stages.3.epochs=1", "stages has no setting '3'"),
        ("stages.0.epoch=1", "stages.0 has no setting 'epoch'; did you mean 'epochs'"),
        ("dropout.x=1", "dropout has no setting 'x'"),
        ("dropout=high", "dropout"),
        ("dropout=2", "dropout must be in"),
        ("stages=[]", "at least one stage"),
        ("layout=7", "layout"),
    ],
)
def test_what_cannot_be_set_is_said_in_a_line(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        with_settings(BASELINE, [setting])
    assert "\n" not in str(caught.value)


def test_a_file_of_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    mine = replace(BASELINE, name="mine", lr=2e-3)
    path.write_bytes(mine.to_json())
    assert find_recipes(str(path)) == (mine,)
    assert find_recipes("baseline") == (BASELINE,)
    path.write_bytes(mine.to_json()[:50])
    with pytest.raises(DataError, match=r"mine\.json: is no recipe of this version"):
        find_recipes(str(path))
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        find_recipes(str(tmp_path / "absent.json"))


def test_a_file_of_python(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from kagglehms.training.recipes import get_recipe\n"
        "first = replace(get_recipe('baseline'), name='first', dropout=0.1)\n"
        "second = replace(first, name='second', lr=1e-4)\n"
        "again = second\n"
    )
    found = read_recipes(path)
    assert [recipe.name for recipe in found] == ["first", "second"]
    assert found[1] == replace(BASELINE, name="second", dropout=0.1, lr=1e-4)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("x = 1", "defines no recipe"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("import", "SyntaxError"),
        (TWICE, "two recipes have the same name"),
    ],
)
def test_a_script_that_is_none_of_recipes_is_named(script: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(script)
    with pytest.raises(DataError, match=said) as caught:
        read_recipes(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_script_with_lists_for_tuples_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(LISTS)
    with pytest.raises(UsageError, match="^augmentations must be a tuple, but got a list$"):
        read_recipes(path)
