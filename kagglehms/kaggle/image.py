"""Kaggle's notebook image as a table: its packages and their versions, and what Kaggle accepts.

The facts are in one file beside this module, `image.toml`; everything that depends on the image reads them here.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
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
        distribution: name of the package for pip.
        lowest: oldest version seen on the image; empty if none was recorded.
        highest: newest version seen on the image; empty if none was recorded.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    distribution: str
    lowest: str
    highest: str

    @property
    def versions(self) -> list[str]:
        """The recorded versions, oldest first."""
        return [version for version in (self.lowest, self.highest) if version]


@dataclass(frozen=True)
class Limits:
    """What Kaggle accepts.

    Attributes:
        dataset_bytes: most bytes of all files of a dataset together.
        dataset_files: most files in one dataset.
        code_bytes: most bytes of a kernel's source.
        kernel_seconds: seconds that a scored run of the competition may take.
        session_seconds: seconds that any other session may take.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    dataset_bytes: int
    dataset_files: int
    code_bytes: int
    kernel_seconds: int
    session_seconds: int


@dataclass(frozen=True)
class Image:
    """The table of the image.

    Attributes:
        python: Python versions, the one in use first.
        platforms: platform tags of wheels that run on it.
        machine_shape: accelerator to request.
        never_replace: distributions that no wheel may replace.
        limits: what Kaggle accepts.
        packages: packages of the image by the name under which they are imported.
        absent: distributions known to be missing, by the name under which they are imported.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    python: list[str]
    platforms: list[str]
    machine_shape: str
    never_replace: list[str]
    limits: Limits
    packages: dict[str, Package]
    absent: dict[str, str]

    def lacks(self, packages: Iterable[str]) -> list[str]:
        """Return which of these packages, by the name under which they are imported, are not in the table."""
        return [name for name in packages if name not in self.packages]

    def distributions(self) -> dict[str, Package]:
        """Return the packages by their canonical distribution name."""
        from packaging.utils import canonicalize_name

        return {canonicalize_name(package.distribution): package for package in self.packages.values()}


@cache
def kaggle_image() -> Image:
    """Read the table.

    Raises:
        pydantic.ValidationError: it has unknown keys or wrong types.
    """
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(Image).validate_json(json.dumps(table))
