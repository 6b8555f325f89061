"""Kaggle's notebook image, as a table: which packages it holds in which versions, and what Kaggle accepts.

The facts stand in one file, `image.toml`, beside this module; everything that depends on the image reads them here.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

TABLE = Path(__file__).with_name("image.toml")

_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class Package:
    """A package of the image.

    Attributes:
        distribution: the name by which pip knows it.
        lowest: oldest version that was seen on the image; empty where none was noted.
        highest: newest version that was seen.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    distribution: str
    lowest: str
    highest: str


@dataclass(frozen=True)
class Limits:
    """What Kaggle accepts.

    Attributes:
        dataset_bytes: of all files of a dataset together.
        dataset_files: in one dataset.
        code_bytes: of a kernel's source.
        kernel_seconds: a scored run of the competition.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    dataset_bytes: int
    dataset_files: int
    code_bytes: int
    kernel_seconds: int


@dataclass(frozen=True)
class Image:
    """The table.

    Attributes:
        python: versions, the one in use first.
        platforms: tags of wheels that run there.
        machine_shape: the accelerator to ask for.
        never_replace: distributions that no wheel may bring.
        limits: see `Limits`.
        packages: by the name under which they are imported.
        absent: distributions that are known not to be there, by that name.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    python: list[str]
    platforms: list[str]
    machine_shape: str
    never_replace: list[str]
    limits: Limits
    packages: dict[str, Package]
    absent: dict[str, str]

    def distributions(self) -> dict[str, Package]:
        """The packages by the name that pip knows, in the form that `packaging` calls canonical."""
        from packaging.utils import canonicalize_name

        return {canonicalize_name(package.distribution): package for package in self.packages.values()}


@cache
def kaggle_image() -> Image:
    """Read the table; unknown keys and wrong types raise."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(Image).validate_json(json.dumps(table))
