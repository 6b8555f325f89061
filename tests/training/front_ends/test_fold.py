"""The folded image, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import Fold, FoldOptions


@pytest.mark.parametrize(
    ("n_signals", "n_times", "phases"), [(16, 10_000, 10), (18, 600, 4), (1, 7, 7), (3, 9, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_each_sample_stands_where_the_definition_says(
    n_signals: int, n_times: int, phases: int, dtype: torch.dtype
) -> None:
    x = np.random.default_rng(0).normal(size=(2, n_signals, n_times)).astype(np.float16)
    options = FoldOptions(phases)
    image = Fold(options)(torch.tensor(x, dtype=dtype))
    wanted = np.empty((2, 1, n_signals * phases, n_times // phases), np.float16)
    for c in range(n_signals):
        for p in range(phases):
            wanted[:, 0, phases * c + p] = x[:, c, p::phases]
    assert image.dtype == dtype
    assert image.is_contiguous()
    assert tuple(image.shape[2:]) == options.image_shape(n_signals, n_times)
    np.testing.assert_array_equal(image.numpy(), wanted)


def test_the_published_size() -> None:
    assert FoldOptions().image_shape(16, 10_000) == (160, 1000)


def test_gradients_come_back_to_their_samples() -> None:
    x = torch.zeros(1, 2, 12, requires_grad=True)
    Fold(FoldOptions(3))(x)[0, 0, 3 * 1 + 2, 3].backward()
    assert x.grad is not None
    assert x.grad.nonzero().tolist() == [[0, 1, 3 * 3 + 2]]


def test_compiles_whole() -> None:
    x = torch.rand(2, 4, 60)
    compiled = torch.compile(Fold(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), Fold()(x))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="101 samples are no multiple of 10 phases"):
        Fold()(torch.zeros(1, 2, 101))
    with pytest.raises(UsageError, match="FoldOptions.phases: cannot be 0"):
        FoldOptions(0)
