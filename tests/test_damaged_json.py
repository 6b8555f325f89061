"""Whatever file of JSON is damaged, its reader says so in one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kagglehms.bundle.manifest import MANIFEST, read_manifest
from kagglehms.data.store import INDEX, Store
from kagglehms.errors import HMSError
from kagglehms.kaggle.stamping import read_template
from kagglehms.kernel.marker import MARKER, Marker
from kagglehms.runs.blends import blend_from_json
from kagglehms.runs.folder import RUN, RunFolder
from kagglehms.training.checkpoint import NORMALISER_KEY, load_weights
from kagglehms.training.recipes import get_recipe, recipe_from_json
from kagglehms.training.resume import KEY, read_state

DAMAGED = {
    "not a number": b'{"x": NaN}',
    "infinite": b'{"x": 1e999}',
    "a key twice": b'{"x": 1, "x": 1}',
    "deep": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half a character": b'{"x": "\\ud83d"}',
    "cut short": b'{"x": ',
}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def weights(path: Path, key: str, content: bytes) -> Path:
    save_file({"weight": torch.zeros(1)}, path, {key: content.decode()})
    return path


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "recipe": lambda path, content: recipe_from_json(content, path),
    "blend": lambda path, content: blend_from_json(content, path),
    "manifest": lambda path, content: read_manifest(written(path.with_name(MANIFEST), content).parent),
    "store": lambda path, content: Store(written(path.with_name(INDEX), content).parent),
    "run folder": lambda path, content: RunFolder(written(path.with_name(RUN), content).parent).info(),
    "template": lambda path, content: read_template(written(path, content)),
    "state": lambda path, content: read_state(weights(path, KEY, content), {}),
    "weights": lambda path, content: load_weights(nn.Linear(1, 1), weights(path, NORMALISER_KEY, content)),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("reader", READERS)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, reader: str, damage: str) -> None:
    with pytest.raises(HMSError) as caught:
        READERS[reader](tmp_path / "the.file", DAMAGED[damage])
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "values", [None, 5, "ab", {}, [], [1], [1, 2, 3], [None, 1], ["a", 1], [[1], 1], [True, 1], [10**400, 1]]
)
def test_statistics_that_are_no_pair_of_numbers_are_refused(tmp_path: Path, values: object) -> None:
    path = weights(tmp_path / "w", NORMALISER_KEY, json.dumps({"eeg": values}).encode())
    with pytest.raises(HMSError, match="statistics are unusable"):
        load_weights(nn.Linear(1, 1, bias=False), path)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_marker_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    assert Marker.read(tmp_path) is None


@pytest.mark.parametrize("twice", ["seed", "name"])
def test_a_recipe_with_a_key_twice_is_refused_though_both_values_are_equal(twice: str) -> None:
    recipe = get_recipe("baseline")
    line = json.dumps({twice: getattr(recipe, twice)})[1:-1]
    content = recipe.to_json().replace(b"{", b"{" + line.encode() + b",", 1)
    with pytest.raises(HMSError, match=f"has the key '{twice}' twice"):
        recipe_from_json(content)
