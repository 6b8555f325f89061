"""The finite response against SciPy's recursion in float64."""

from __future__ import annotations

from typing import Any

import eeg_windows
import numpy as np
import pytest
import torch
from network_checks import check_compiles_whole
from scipy import signal

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import BandPassOptions, CausalBandPass

OPTIONS = {
    "the published one": BandPassOptions(),
    "one pole pair, to 30 Hz": BandPassOptions(1.6, 30.0, 1),
    "low": BandPassOptions(0.1, 40.0),
    "other rate": BandPassOptions(0.5, 20.0, sfreq_hz=256.0),
}


def recursion(x: Any, options: BandPassOptions = OPTIONS["the published one"]) -> Any:
    band = options.low_hz, options.high_hz
    sections = signal.butter(options.order, band, "bandpass", fs=options.sfreq_hz, output="sos")
    return signal.sosfilt(sections, x, axis=-1)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("n_times", [10_000, 777, 1])
def test_agrees_with_the_recursion(name: str, n_times: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, n_times)) + 10
    network = CausalBandPass(OPTIONS[name])
    wanted = recursion(x, OPTIONS[name])
    y = network(torch.tensor(x, dtype=torch.float32))
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y.numpy(), wanted, rtol=0, atol=2e-5 + network.error * np.abs(x).max())


@pytest.mark.parametrize("kind", ["plain", "2 mV artefact", "offsets", "step"])
def test_recordings_within_a_thousandth_of_their_scale(kind: str) -> None:
    x = np.clip(np.diff(eeg_windows.NASTY[kind][:, :17].T, axis=0), -1024, 1024) / 32
    wanted = recursion(x.astype(np.float64))
    y = CausalBandPass()(torch.tensor(x[None]))[0].numpy()
    assert np.abs(y - wanted).max() <= 1e-5 * max(np.abs(x).max(), 1)
    assert np.abs(y - wanted).max() <= 1e-3 * wanted.std()


def test_the_stated_error_is_that_of_the_truncation() -> None:
    """Σ |h| of what is left out, from a response of ten minutes."""
    network = CausalBandPass()
    response = recursion(np.eye(1, 120_000)[0])
    assert np.abs(response[network.n_taps :]).max() < 1e-7 <= abs(response[network.n_taps - 1])
    left_out = np.abs(response[network.n_taps :]).sum()
    assert network.error == pytest.approx(left_out, rel=1e-3)
    assert network.error < 1e-5
    assert network.n_taps == 1110  # 5.6 s at 200 Hz


def test_nothing_is_heard_before_it_happens() -> None:
    x = torch.randn(1, 2, 4000)
    later = x.clone()
    later[..., 2500:] += 100
    network = CausalBandPass()
    torch.testing.assert_close(network(later)[..., :2500], network(x)[..., :2500], rtol=0, atol=1e-4)


def test_mixed_precision_changes_nothing() -> None:
    x = torch.randn(2, 3, 1000)
    network = CausalBandPass()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(x), network(x.clone()))
        y = network(x)
    assert torch.equal(y, network(x))
    half = (30 * x).half()
    torch.testing.assert_close(network(half), network(half.float()), rtol=0, atol=0)


def test_has_nothing_to_learn_and_nothing_to_save() -> None:
    network = CausalBandPass()
    assert not list(network.parameters())
    assert not network.state_dict()
    x = torch.randn(1, 1, 300, dtype=torch.float32, requires_grad=True)
    network(x)[0, 0, -1].backward()
    assert x.grad is not None
    wanted = recursion(np.eye(1, 300)[0])[::-1]
    np.testing.assert_allclose(x.grad[0, 0].numpy(), wanted, rtol=0, atol=1e-6)


def test_compiles_whole() -> None:
    network, x = CausalBandPass(), torch.randn(1, 2, 1500)
    check_compiles_whole(network, x)


@pytest.mark.parametrize(("fields", "named"), [
    ({"low_hz": 0.0}, "low_hz"),
    ({"high_hz": 0.4}, "high_hz"),
    ({"high_hz": 100.0}, "high_hz"),
    ({"order": 0}, "order"),
    ({"tail": 0.0}, "tail"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"BandPassOptions\.{named}: cannot be"):
        BandPassOptions(**fields)
