"""Mel images of the device against float64 by full FFTs, and against the compiled ones."""

from __future__ import annotations

from typing import Any

import eeg_windows
import numpy as np
import oracles_features as oracle
import pytest
import torch

from kagglehms.errors import UsageError
from kagglehms.features import MelSpec, mel_images
from kagglehms.training.front_ends import Differences, DifferencesOptions, MelImages

MAX_ERROR, MEAN_ERROR = 1e-4, 2e-6


@pytest.mark.parametrize("kind", eeg_windows.NASTY | eeg_windows.EMPTY)
def test_agrees_with_float64_and_with_compiled_code(kind: str) -> None:
    window = (eeg_windows.NASTY | eeg_windows.EMPTY)[kind]
    images = MelImages()(torch.tensor(window[None]))
    assert images.shape == (1, 4, 128, 256)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    error = np.abs(images[0].numpy() - oracle.mel_image(window))
    assert error.max() <= MAX_ERROR
    assert error.mean() <= MEAN_ERROR
    assert np.abs(images.numpy() - mel_images(window[None])).max() <= MAX_ERROR


SPECS: dict[str, dict[str, Any]] = {
    "coarse mel": {"n_mels": 40},
    "empty bands": {"n_mels": 300, "n_fft": 512},
    "long window": {"win_length": 256},
    "wide": {"fmin": 0.5, "fmax": 70.0, "n_mels": 64},
    "few frames": {"n_frames": 7},
    "other rate": {"sfreq": 100.0, "n_fft": 512, "win_length": 64, "fmax": 30.0},
}


@pytest.mark.parametrize("name", SPECS)
def test_any_resolution(name: str) -> None:
    window = eeg_windows.eeg(4000)
    image = MelImages(MelSpec(**SPECS[name]))(torch.tensor(window[None]))[0]
    wanted = oracle.mel_image(window, **SPECS[name])
    assert image.shape == wanted.shape
    assert np.abs(image.numpy() - wanted).max() <= MAX_ERROR


@pytest.mark.parametrize("n_times", [256, 511, 2001, 12_000])
def test_any_length(n_times: int) -> None:
    window = eeg_windows.eeg(n_times)
    window[7, 2] = np.nan
    image = MelImages()(torch.tensor(window[None]))[0].numpy()
    assert np.abs(image - oracle.mel_image(window)).max() <= MAX_ERROR


def test_half_precision_is_read_as_it_is_and_mixed_precision_changes_nothing() -> None:
    half = torch.tensor(eeg_windows.NASTY["gaps"][None, :4000]).half()
    network = MelImages()
    assert torch.equal(network(half), network(half.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(half), network(half.float()))
        mixed = network(half)
    assert torch.equal(mixed, network(half))


def test_short_cuts_for_float32_change_nothing() -> None:
    """A session may let products of float32 run in fewer bits."""
    window, before = eeg_windows.NASTY["offsets"], torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        image = MelImages()(torch.tensor(window[None]))[0].numpy()
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.abs(image - oracle.mel_image(window)).max() <= MAX_ERROR


def test_differences_that_are_there_already() -> None:
    eeg = torch.tensor(np.stack([eeg_windows.eeg(3000, seed) for seed in (1, 2)]))
    differences = Differences(DifferencesOptions(clip_uv=None, unit_uv=1.0))(eeg)
    network = MelImages()
    torch.testing.assert_close(network.of_differences(differences), network(eeg), rtol=0, atol=0)
    # Loudness does not matter: the differences may be scaled.
    torch.testing.assert_close(network.of_differences(differences / 32), network(eeg), rtol=0, atol=2e-5)


def test_gradients_come_back_to_the_recording() -> None:
    eeg = torch.tensor(eeg_windows.eeg(1000)[None], requires_grad=True)
    MelImages()(eeg).mean().backward()
    assert eeg.grad is not None
    assert torch.isfinite(eeg.grad).all()
    used = eeg.grad.abs().sum(dim=(0, 1)) > 0
    assert used.tolist() == [name not in ("Fz", "Cz", "Pz", "EKG") for name in oracle.CHANNELS]


def test_compiles_whole_and_has_nothing_to_save() -> None:
    network, eeg = MelImages(), torch.tensor(eeg_windows.eeg(1000)[None])
    assert not list(network.parameters())
    assert not network.state_dict()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(eeg), network(eeg))


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"expected \(B, T, 20\), got \(1, 300, 19\)"):
        MelImages()(torch.zeros(1, 300, 19))
    with pytest.raises(UsageError, match=r"expected \(B, 16, 256 or more\), got \(1, 16, 255\)"):
        MelImages()(torch.zeros(1, 255, 20))
    with pytest.raises(UsageError, match=r"got \(1, 18, 300\)"):
        MelImages().of_differences(torch.zeros(1, 18, 300))
