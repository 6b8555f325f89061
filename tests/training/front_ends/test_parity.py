"""What the device draws is what the CPU draws: for each input that can be made on either."""

from __future__ import annotations

import eeg_windows
import numpy as np
import pytest
import torch

from kagglehms.features import difference_spectra, folded_image, mel_images
from kagglehms.features.differences import DifferenceSpec
from kagglehms.features.fold import FoldSpec
from kagglehms.inputs import kinds
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.kinds import Folded, Signals
from kagglehms.inputs.layouts import Crop
from kagglehms.training.front_ends import (
    CausalBandPass,
    Differences,
    DifferencesOptions,
    Fold,
    MelImages,
    Spectrum,
    SpectrumOptions,
)

WINDOWS = {name: eeg_windows.NASTY[name] for name in ("plain", "gaps", "2 mV artefact", "offsets")}


def crop_of(name: str) -> Crop:
    return Crop(None, WINDOWS[name].astype(np.float16))


def on_device(name: str) -> torch.Tensor:
    return torch.from_numpy(WINDOWS[name][None])


@pytest.mark.parametrize("name", WINDOWS)
def test_folded_from_electrodes(name: str) -> None:
    signals = CausalBandPass()(Differences(DifferencesOptions(unit_uv=32.0))(on_device(name)))
    image = Fold()(signals)[0, 0].numpy()
    assert np.abs(image - folded_image(WINDOWS[name])).max() <= 1e-3  # of up to 32, as clipped at 1024 / 32


@pytest.mark.parametrize("filter_name", ["none", "causal", "linear"])
@pytest.mark.parametrize("name", WINDOWS)
def test_folded_from_the_feeds_signals_is_the_same_image(name: str, filter_name: str) -> None:
    layout = Folded(FoldSpec(filter=filter_name))  # type: ignore[arg-type]
    signals = stack([crop_of(name)], Signals(DifferenceSpec(filter=filter_name)))  # type: ignore[arg-type]
    np.testing.assert_allclose(
        Fold()(torch.from_numpy(signals)).numpy(), stack([crop_of(name)], layout), atol=1e-6
    )


@pytest.mark.parametrize("name", WINDOWS)
def test_spectra(name: str) -> None:
    signals = Differences(DifferencesOptions(midline=True, unit_uv=1.0))(on_device(name))
    image = Spectrum()(signals)[0, 0].numpy()
    error = np.abs(image - difference_spectra(WINDOWS[name]))
    assert error.max() <= (1e-4 if name == "plain" else 5e-4)
    assert error.mean() <= 5e-6


def test_spectra_from_the_feeds_signals_are_the_recipes() -> None:
    spec = DifferenceSpec(filter="none", midline=True, scale_uv=32.0)
    signals = stack([crop_of("plain")], Signals(spec))
    image = Spectrum(SpectrumOptions(unit_uv=32.0))(torch.from_numpy(signals)).numpy()
    expected = stack([crop_of("plain")], kinds.SPECTRA_50_AND_10_S)
    assert np.abs(image - expected).max() <= 1e-4


@pytest.mark.parametrize("name", WINDOWS)
def test_mel_images(name: str) -> None:
    assert np.abs(MelImages()(on_device(name))[0].numpy() - mel_images(WINDOWS[name][None])[0]).max() <= 1e-4
