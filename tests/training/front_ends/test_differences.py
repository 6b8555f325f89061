"""Differences against a plain loop over electrodes in NumPy float64."""

from __future__ import annotations

from typing import Any

import eeg_windows
import numpy as np
import oracles_features as oracle
import pytest
import torch
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import Differences, DifferencesOptions, fill_missing

PAIRS = (
    "Fp1-F7", "F7-T3", "T3-T5", "T5-O1",
    "Fp2-F8", "F8-T4", "T4-T6", "T6-O2",
    "Fp1-F3", "F3-C3", "C3-P3", "P3-O1",
    "Fp2-F4", "F4-C4", "C4-P4", "P4-O2",
    "Fz-Cz", "Cz-Pz",
)  # fmt: skip


def differences(eeg_uv: NDArray[Any], n_signals: int, clip_uv: float, unit_uv: float) -> NDArray[np.float64]:
    """(T, 20) → (n_signals, T)"""
    wide = eeg_uv.astype(np.float64)
    rows = []
    for pair in PAIRS[:n_signals]:
        first, second = pair.split("-")
        with np.errstate(invalid="ignore"):
            x = wide[:, oracle.CHANNELS.index(first)] - wide[:, oracle.CHANNELS.index(second)]
        present = x[np.isfinite(x)]
        x = np.where(np.isfinite(x), x, present.mean() if present.size else 0.0)
        rows.append(np.clip(x, -clip_uv, clip_uv) / unit_uv)
    return np.array(rows)


KINDS = ("gaps", "dead channels", "infinities", "offsets", "1e5 µV")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("midline", [False, True])
def test_agrees_with_float64(midline: bool, dtype: Any) -> None:
    with np.errstate(over="ignore"):  # 1e5 µV is infinite in half precision: missing
        windows = np.stack([eeg_windows.NASTY[kind][:3000] for kind in KINDS]).astype(dtype)
    windows[1, 40:900, 8] = np.nan
    options = DifferencesOptions(midline)
    computed = Differences(options)(torch.tensor(windows))
    assert computed.dtype == torch.float32
    assert options.n_signals == computed.shape[1]
    for x, window in zip(computed, windows, strict=True):
        wanted = differences(window, options.n_signals, 1024.0, 32.0)
        np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-6, atol=2e-5)


def test_without_limit_and_scale_the_values_are_those_of_the_electrodes() -> None:
    window = 1000 * eeg_windows.eeg(500)
    x = Differences(DifferencesOptions(clip_uv=None, unit_uv=1.0))(torch.tensor(window[None]))
    np.testing.assert_allclose(x[0].numpy(), differences(window, 16, np.inf, 1.0), rtol=1e-6, atol=1e-2)


def test_what_is_missing_becomes_the_mean_of_the_rest() -> None:
    x = torch.tensor([[[1.0, torch.nan, 3.0, torch.inf], [torch.nan, torch.nan, -torch.inf, torch.nan]]])
    assert fill_missing(x).tolist() == [[[1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]]


def test_gradients_come_back_to_both_electrodes() -> None:
    eeg = torch.zeros(1, 6, 20, requires_grad=True)
    Differences()(eeg)[0, 1, 4].backward()  # F7 − T3
    assert eeg.grad is not None
    assert eeg.grad.nonzero().tolist() == [[0, 4, 4], [0, 4, 5]]
    assert eeg.grad[0, 4, 4:6].tolist() == [1 / 32, -1 / 32]


def test_compiles_whole() -> None:
    eeg = torch.tensor(eeg_windows.NASTY["gaps"][None, :2000])
    compiled = torch.compile(Differences(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(eeg), Differences()(eeg))


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"expected \(B, T, 20\), got \(1, 20, 300\)"):
        Differences()(torch.zeros(1, 20, 300))
    for name, value in (("clip_uv", 0.0), ("unit_uv", -1.0)):
        with pytest.raises(UsageError, match=rf"DifferencesOptions\.{name}: cannot be {value}"):
            DifferencesOptions(**{name: value})
