"""Spectrograms against SciPy's in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import eeg_windows
import numpy as np
import pytest
import torch
from network_checks import check_compiles_whole
from numpy.typing import NDArray
from scipy import signal

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import Differences, DifferencesOptions, Spectrum, SpectrumOptions

F64 = NDArray[np.float64]
PUBLISHED = SpectrumOptions()
SMALL = SpectrumOptions(win_length=40, blocks=((600, 9, 6), (203, 3, 2)), size=(64, 56), band_hz=(5.0, 30.0))


def blocks_of(x_T: F64, options: SpectrumOptions, window: str = "hann") -> F64:
    """(blocks, F, columns) log(1 + power) of one signal."""
    out = []
    for n_block, hop, trim in options.blocks:
        first = (len(x_T) - n_block) // 2
        hz, _, per_hz = signal.spectrogram(
            x_T[first : first + n_block],
            fs=options.sfreq_hz,
            window=signal.get_window(window, options.win_length),
            noverlap=options.win_length - hop,
            detrend="constant" if options.detrend else False,
            scaling="density",
            mode="psd",
        )
        within = (hz >= options.band_hz[0]) & (hz <= options.band_hz[1])
        out.append(np.log1p(per_hz[within][:, trim : trim + options.n_columns]))
    return np.stack(out)


def image_of(x_CT: NDArray[Any], options: SpectrumOptions) -> F64:
    """(planes, H, W)"""
    blocks = np.stack([blocks_of(x.astype(np.float64) * options.unit_uv, options) for x in x_CT])
    n_signals, n_blocks, n_bins, n_columns = blocks.shape
    if options.planes:
        planes = [blocks[:, b].reshape(n_signals * n_bins, n_columns) for b in range(n_blocks)]
    else:
        planes = [blocks.reshape(n_signals * n_blocks * n_bins, n_columns)]
    image = np.zeros((len(planes), *options.size))
    image[:, : len(planes[0]), :n_columns] = planes
    return (image - image.mean()) / (image.std() + 1e-6)


def eighteen(kind: str) -> torch.Tensor:
    return Differences(DifferencesOptions(midline=True, unit_uv=1.0))(
        torch.tensor(eeg_windows.NASTY[kind][None])
    )


# ---- the published image


KINDS = (
    "plain",
    "2 mV artefact",
    "gaps",
    "offsets",
    "a constant difference",
    "1e5 µV",
    "0.01 µV",
    "constants",
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_image_agrees_with_float64(kind: str) -> None:
    signals = eighteen(kind)
    image = Spectrum()(signals)
    assert image.shape == (1, 1, 512, 512)
    assert image.dtype == torch.float32
    assert np.abs(image[0].numpy() - image_of(signals[0].numpy(), PUBLISHED)).max() <= 1e-4


def test_the_published_size() -> None:
    """14 bins of 200/144 Hz from 1.39 to 19.44 Hz; as many whole frames as SciPy makes of 145 samples, less 3 + 3."""
    assert PUBLISHED.bins == (1, 14)
    assert PUBLISHED.content_shape(18) == (1, 504, 464)
    assert 1 + (10_000 - 145) // 21 - 6 == 1 + (2_000 - 145) // 4 == PUBLISHED.n_columns == 464


def test_the_other_published_blocks_fit() -> None:
    other = replace(PUBLISHED, blocks=((6_000, 12, 12), (2_000, 4, 0)))
    assert Spectrum(other)(eighteen("plain")).shape == (1, 1, 512, 512)


def test_frames_stand_in_the_middle() -> None:
    """A click in the middle of the recording lights the middle columns of both blocks, and they alone."""
    x = torch.zeros(1, 1, 10_000)
    x[..., 5000] = 1000.0
    image = Spectrum(replace(PUBLISHED, size=(28, 464)))(x)[0, 0]
    for block, hop in ((image[:14], 21), (image[14:], 4)):
        lit = (block > block.min() + 1e-3).any(dim=0).nonzero().flatten()
        assert abs(float(lit.float().mean()) - 463 / 2) <= 1
        assert abs(len(lit) - 143 / hop) <= 1


# ---- other settings


@pytest.mark.parametrize("options", [
    SMALL,
    replace(SMALL, planes=True),
    replace(SMALL, detrend=False),
    replace(SMALL, unit_uv=32.0),
    replace(SMALL, blocks=((400, 5, 10),), win_length=51),
    replace(SMALL, sfreq_hz=100.0, band_hz=(3.0, 12.0)),
])  # fmt: skip
def test_any_setting_agrees_with_float64(options: SpectrumOptions) -> None:
    x = np.random.default_rng(1).normal(3, 5, size=(2, 4, 633)).astype(np.float32)
    images = Spectrum(options)(torch.tensor(x))
    for image, signals in zip(images, x, strict=True):
        np.testing.assert_allclose(image.numpy(), image_of(signals, options), rtol=0, atol=1e-5)


def test_trainable_windows_start_as_the_fixed_ones_and_are_learned() -> None:
    x = torch.randn(2, 3, 600)
    network = Spectrum(replace(SMALL, trainable=True))
    torch.testing.assert_close(network(x), Spectrum(SMALL)(x))
    assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {"windows": (2, 40)}
    (network(x) * torch.randn(1, 1, 64, 56)).sum().backward()
    windows, slope = network.windows.detach(), network.windows.grad
    assert slope is not None
    assert torch.isfinite(slope).all()
    assert (slope.count_nonzero(dim=1) == 40).all()
    # Power per Hz: the size of a window says nothing, so it has no slope along itself.
    along = (slope * windows).sum(dim=1)
    across = slope.norm(dim=1) * windows.norm(dim=1)
    assert float((along / across).abs().max()) < 1e-3
    assert not Spectrum(SMALL).state_dict()


def test_mixed_precision_changes_nothing() -> None:
    x = torch.randn(1, 3, 600)
    network = Spectrum(SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = network(x)
    assert torch.equal(image, network(x))
    half = (1000 * x).half()
    assert torch.isfinite(network(half)).all()
    assert torch.equal(network(half), network(half.float()))


def test_silence_is_zero() -> None:
    assert not Spectrum(SMALL)(torch.zeros(1, 3, 600)).any()


def test_compiles_whole() -> None:
    x, network = torch.randn(1, 3, 600), Spectrum(SMALL)
    check_compiles_whole(network, x)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="9999 samples are fewer than the blocks"):
        Spectrum()(torch.zeros(1, 18, 9999))
    with pytest.raises(UsageError, match=r"532 × 464 pixels do not fit into \(512, 512\)"):
        Spectrum()(torch.zeros(1, 19, 10_000))


@pytest.mark.parametrize(("fields", "named"), [
    ({"blocks": ()}, "blocks"),
    ({"blocks": ((144, 4, 0),)}, "blocks"),
    ({"blocks": ((10_000, 0, 0),)}, "blocks"),
    ({"blocks": ((10_000, 21, -1),)}, "blocks"),
    ({"blocks": ((10_000, 21, 3), (2_000, 5, 0))}, "blocks"),
    ({"band_hz": (0.0, 20.0)}, "band_hz"),
    ({"band_hz": (0.5, 100.0)}, "band_hz"),
    ({"band_hz": (5.0, 5.1)}, "band_hz"),
    ({"win_length": 1}, "win_length"),
    ({"unit_uv": 0.0}, "unit_uv"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"SpectrumOptions\.{named}: cannot be"):
        SpectrumOptions(**fields)
