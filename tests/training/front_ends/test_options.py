"""Options of front ends: read without torch, to JSON and back; the modules they stand for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kagglehms.training import front_ends
from kagglehms.training.front_ends import (
    BandPassOptions,
    DifferencesOptions,
    EffNet1dOptions,
    FoldOptions,
    ResNet1dOptions,
    SpectrumOptions,
    SqueezeOptions,
    WaveStackOptions,
)

CHANGED = (
    BandPassOptions(1.6, 30.0, order=1),
    DifferencesOptions(midline=True, clip_uv=None),
    EffNet1dOptions(widths=(8, 16), kernels=(3, 5), layers=(1, 1), pooling="mean"),
    FoldOptions(4),
    ResNet1dOptions(widths=(8, 16), kernels=(5, 3), layers=(1, 1), n_shared=1),
    SpectrumOptions(blocks=((6_000, 12, 12), (2_000, 4, 0)), planes=True, size=(256, 512)),
    SqueezeOptions(width=32, pooling="mean+max"),
    WaveStackOptions((4, 8), (3, 2), recompute=True),
)


@pytest.mark.parametrize("options", CHANGED, ids=lambda options: options.kind)
def test_through_json_and_back(options: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(options))
    assert options != type(options)()
    assert adapter.validate_json(adapter.dump_json(options)) == options
    assert hash(options) == hash(adapter.validate_json(adapter.dump_json(options)))
    with pytest.raises(ValidationError, match="depth"):
        adapter.validate_json(b'{"depth": 3}')


def test_kinds_are_distinct() -> None:
    assert len({options.kind for options in CHANGED}) == len(CHANGED)


def test_options_are_read_without_torch() -> None:
    names = ", ".join(type(options).__name__ for options in CHANGED)
    what_came_along = "import sys; print({'torch', 'timm'} & set(sys.modules))"
    code = f"from kagglehms.training.front_ends import {names}; {what_came_along}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in front_ends.__all__:
        assert (
            getattr(front_ends, name).__module__.startswith("kagglehms.training.front_ends")
            or name == "PoolingName"
        )
    with pytest.raises(AttributeError, match="has no attribute 'Unfold'"):
        front_ends.Unfold  # noqa: B018
