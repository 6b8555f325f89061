"""Front ends on a GPU draw what the compiled features draw on the CPU, whatever shortcuts a session allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import eeg_windows
import numpy as np
import pytest
import torch
from torch import nn

from kagglehms.features import folded_image, mel_images
from kagglehms.training.front_ends import (
    CausalBandPass,
    Differences,
    DifferencesOptions,
    Fold,
    MelImages,
    Spectrum,
    SpectrumOptions,
)

WINDOW = eeg_windows.eeg().astype(np.float16)
"""As a store holds it."""
BOUND = 1e-4


def _fold() -> nn.Module:
    return nn.Sequential(Differences(), CausalBandPass(), Fold())


def _spectrum() -> nn.Module:
    options = DifferencesOptions(midline=True)
    return nn.Sequential(Differences(options), Spectrum(SpectrumOptions(unit_uv=options.unit_uv)))


def _spectrum_on_the_cpu() -> Any:
    return _spectrum()(torch.from_numpy(WINDOW[None]))[0].numpy()


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        pytest.param(MelImages, lambda: mel_images(WINDOW[None])[0], id="mel"),
        pytest.param(_fold, lambda: folded_image(WINDOW)[None], id="fold"),
        pytest.param(_spectrum, _spectrum_on_the_cpu, id="spectrum"),
    ],
)
def test_images_are_those_of_the_cpu(
    make: Callable[[], nn.Module],
    wanted: Callable[[], Any],
    place: str,
    record_property: Callable[[str, object], None],
) -> None:
    """In mixed precision, with TF32 allowed, to 1e-4."""
    front_end, before = make().to(place), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.inference_mode(), torch.autocast(place, dtype=torch.bfloat16):
            images = front_end(torch.from_numpy(WINDOW[None]).to(place))
    finally:
        torch.set_float32_matmul_precision(before)
    difference = float(np.abs(images[0].float().cpu().numpy() - wanted()).max())
    record_property("largest difference from the CPU", difference)
    assert difference <= BOUND
