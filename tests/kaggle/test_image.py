"""The table of Kaggle's image: strict, and true of what the project asks for."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kagglehms.kaggle.image import kaggle_image
from kagglehms.packing.wheel import read_project

ROOT = Path(__file__).resolve().parents[2]


def test_the_facts_that_kernels_depend_on() -> None:
    image = kaggle_image()
    assert image.python[0] == "3.13"
    assert image.machine_shape == "NvidiaTeslaT4"
    assert "torch" in image.never_replace
    assert image.packages["sklearn"].distribution == "scikit-learn"
    assert not set(image.packages) & set(image.absent)
    assert not set(image.packages) & sys.stdlib_module_names


def test_what_the_project_requires_is_met_by_the_image_or_absent_there() -> None:
    present = kaggle_image().distributions()
    for text in read_project(ROOT)["dependencies"]:
        wanted = Requirement(text)
        package = present.get(canonicalize_name(wanted.name))
        if package is not None:
            for version in filter(None, (package.lowest, package.highest)):
                assert wanted.specifier.contains(version), text
