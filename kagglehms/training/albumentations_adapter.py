"""Augment single images with albumentations, in the threads that draw them.

albumentations works on single NumPy images, so it is applied before batches are copied to a device. It is only
imported if a recipe uses it, as that takes seconds.

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

_SEED_WORD = 2
"""Third word of the seeds, different from those of `augmentation_draws`."""


class AlbumentationsAdapter:
    """Applies transforms of albumentations to an image; can be called by several threads at the same time.

    albumentations expects float images in [0, 1] and clips many results to this range. Images are therefore scaled to
    it, from their minimum to their maximum, and back afterwards: a `fill` of 0 is the image's minimum.

    A transform of albumentations has a random generator that all its callers share, and a seed of `Compose` starts the
    same stream in all transforms, so that they always draw the same numbers. Here, every thread has its own
    transforms, and every call starts one stream from which they draw in turn.

    Args:
        transforms: transforms to apply, in order, each with its own probability `p`.
        shape: (height, width) of the images; every transform is tried on such an image.

    Raises:
        UsageError: a name or option is unknown, albumentations refuses a value, or a transform changes the shape or
            type of an image.
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
        """Return a transformed copy of an image.

        Args:
            image_HW: float32 image.
            seed: seed of the run.
            epoch: epoch, counted from 0.
            record: position of the record; with seed and epoch it decides all random numbers.
        """
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
    """Return the adapter for all transforms of albumentations in a recipe, or None if there are none.

    Args:
        augmentations: augmentations of the recipe.
        shape: (height, width) of the images.

    Raises:
        UsageError: as in `AlbumentationsAdapter`.
        RunError: as in `AlbumentationsAdapter`.
    """
    transforms = [t for a in augmentations if isinstance(a, Albumentations) for t in a.transforms]
    return AlbumentationsAdapter(transforms, shape) if transforms else None


def _import_albumentations() -> ModuleType:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it checks for updates on import
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
    except Exception as error:  # transforms can raise anything on an image that does not suit them
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
