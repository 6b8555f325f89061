"""Augmentation of single images by albumentations, in the threads that draw them.

albumentations works on NumPy images, one at a time, so it has its place before batches go to a device. It is
imported only where a recipe asks for it: that takes seconds.

Shape legend: H image rows, W image columns.
"""

from __future__ import annotations

import difflib
import inspect
import os
import random
import threading
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.errors import RunError, UsageError, first_line
from kagglehms.training.options import Albumentations, Augmentation, Transform

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

# Third word of a seed, other than those of `augment`.
_SEED_WORD = 2


class AlbumentationsAdapter:
    """Applies transforms of albumentations to one image; may be called by many threads at once.

    albumentations takes float images to be in [0, 1] and clips many of its results to that. So the image is scaled
    to it, from its own minimum to its own maximum, and back: a transform's `fill` of 0 means the image's minimum.

    albumentations keeps random generators, shared by all that call a transform, and a seed given to its `Compose`
    starts the same stream in every transform of it, so that two of them always draw alike. Here every thread has
    transforms of its own, and every call starts one stream, from which they all draw in turn.

    Args:
        transforms: what to apply, one after the other, each with its own probability `p`.
        shape: (height, width) of the images; every transform is tried once on such an image.

    Raises:
        UsageError: an unknown name or option, a value that albumentations refuses, a transform that changes an
            image's shape or type.
        RunError: albumentations cannot be imported.
    """

    def __init__(self, transforms: Sequence[Transform], shape: tuple[int, int]) -> None:
        albumentations = _import_albumentations()
        self._transforms = [_build(albumentations, transform) for transform in transforms]
        self._own = threading.local()
        trial_HW = np.random.default_rng(0).random(shape, dtype=np.float32)
        for transform in deepcopy(self._transforms):
            transform.set_random_state(np.random.default_rng(0), random.Random(0))
            _check_output(type(transform).__name__, transform, trial_HW)

    def __call__(
        self, image_HW: NDArray[np.float32], seed: int, epoch: int, record: int
    ) -> NDArray[np.float32]:
        """Return a transformed copy of a float32 image; the draws depend on (seed, epoch, record) alone."""
        if not hasattr(self._own, "transforms"):
            self._own.transforms = deepcopy(self._transforms)
        generator = np.random.default_rng((seed, epoch, _SEED_WORD, record))
        python_generator = random.Random(int(generator.integers(2**63)))
        low = image_HW.min()
        span = image_HW.max() - low or np.float32(1)
        unit_HW = (image_HW - low) / span
        for transform in self._own.transforms:
            transform.set_random_state(generator, python_generator)
            unit_HW = transform(image=unit_HW)["image"]
        return unit_HW * span + low


def albumentations_adapter(
    augmentations: Sequence[Augmentation], shape: tuple[int, int]
) -> AlbumentationsAdapter | None:
    """Return the adapter for all albumentations among a recipe's augmentations, or None where there are none.

    Raises:
        UsageError, RunError: see `AlbumentationsAdapter`.
    """
    transforms = [t for a in augmentations if isinstance(a, Albumentations) for t in a.transforms]
    return AlbumentationsAdapter(transforms, shape) if transforms else None


def _import_albumentations() -> ModuleType:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for news while it is imported
    try:
        return import_module("albumentations")
    except ImportError as error:
        raise RunError(
            f"this recipe asks for albumentations, which cannot be imported ({first_line(error)}); "
            "pip install albumentations"
        ) from error


def _build(albumentations: ModuleType, wanted: Transform) -> Any:
    known = {
        name: found
        for name, found in vars(albumentations).items()
        if inspect.isclass(found) and issubclass(found, albumentations.BasicTransform)
    }
    if wanted.name not in known:
        near = difflib.get_close_matches(wanted.name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "its documentation lists them"
        raise UsageError(f"albumentations has no transform {wanted.name!r}; {hint}")
    accepted = list(inspect.signature(known[wanted.name]).parameters)
    unknown = sorted(set(wanted.options) - set(accepted))
    if unknown:
        raise UsageError(
            f"Allowed values for options of albumentations.{wanted.name} are {', '.join(accepted)}, "
            f"but got {', '.join(unknown)}"
        )
    try:
        return known[wanted.name](**wanted.options)
    except (ValueError, TypeError) as error:
        raise UsageError(f"albumentations.{wanted.name} refuses its options: {_one_line(error)}") from error


def _check_output(name: str, transform: Any, image_HW: NDArray[np.float32]) -> None:
    try:
        result = transform(image=image_HW, force_apply=True)["image"]
    except Exception as error:  # whatever a transform may raise on an image that it is not made for
        raise UsageError(f"albumentations.{name} fails on such images: {_one_line(error)}") from error
    made = (type(result).__name__, getattr(result, "dtype", None), getattr(result, "shape", None))
    expected = ("ndarray", np.float32, image_HW.shape)
    if made != expected:
        raise UsageError(
            f"albumentations.{name} makes {made[0]} {made[1]} {made[2]} of an image of float32 {image_HW.shape}; "
            "transforms must keep type and shape"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
