"""Poolings against their formulas in NumPy float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import GeMPool, MeanMaxPool, MeanPool, make_pooling

FEATURES = np.random.default_rng(0).normal(size=(3, 5, 7, 4))


def test_gem_is_the_cube_root_of_the_mean_cube() -> None:
    pooled = GeMPool()(torch.tensor(FEATURES))
    wanted = np.cbrt((np.maximum(FEATURES, 1e-6) ** 3).mean(axis=(2, 3)))
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled.numpy(), wanted, rtol=2e-6)


@pytest.mark.parametrize(("values", "p", "wanted"), [
    ([1.0, 2.0, 3.0], 1.0, 2.0),
    ([3.0, 4.0, 0.0], 2.0, 5 / 3**0.5),
    ([1.0, 2.0, 3.0], 3.0, 12 ** (1 / 3)),
    ([7.0, 0.1, 0.2], 400.0, 7 * (1 / 3) ** (1 / 400)),
])  # fmt: skip
def test_gem_by_hand(values: list[float], p: float, wanted: float) -> None:
    pooled = GeMPool(p)(torch.tensor([[values]]))
    assert pooled.item() == pytest.approx(wanted, rel=1e-6)


def test_gem_has_the_derivatives_of_its_formula() -> None:
    pool = GeMPool(p=3.0, trainable=True)
    x = torch.tensor(FEATURES, requires_grad=True)
    pool(x)[1, 2].backward()
    values, step = np.maximum(FEATURES[1, 2].ravel(), 1e-6), 1e-5
    mean = (values**3).mean()
    wanted = np.where(FEATURES[1, 2].ravel() > 1e-6, values**2 * mean ** (-2 / 3) / values.size, 0)
    np.testing.assert_allclose(x.grad[1, 2].numpy().ravel(), wanted, rtol=1e-4, atol=1e-9)
    p_up, p_down = 3 + step, 3 - step
    slope = ((values**p_up).mean() ** (1 / p_up) - (values**p_down).mean() ** (1 / p_down)) / (2 * step)
    np.testing.assert_allclose(pool.p.grad.item(), slope, rtol=1e-3)


@pytest.mark.parametrize("p", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("size", [0.0, 1e-6, 6e4])
def test_gem_of_half_precision_is_finite_with_its_gradient(p: float, size: float) -> None:
    x = torch.full((2, 3, 8), size, dtype=torch.float16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = GeMPool(p)(x)
    pooled.sum().backward()
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled.detach().numpy(), max(np.float16(size), 1e-6), rtol=1e-5)
    assert torch.isfinite(x.grad).all()


def test_mean_and_mean_plus_maximum() -> None:
    x = torch.tensor(FEATURES)
    np.testing.assert_allclose(MeanPool()(x).numpy(), FEATURES.mean(axis=(2, 3)), rtol=1e-12, atol=1e-14)
    wanted = FEATURES.mean(axis=(2, 3)) + FEATURES.max(axis=(2, 3))
    np.testing.assert_allclose(MeanMaxPool()(x).numpy(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["mean", "gem", "mean+max"])
@pytest.mark.parametrize("axes", [(9,), (3, 4), (2, 3, 2)])
def test_every_pooling_takes_any_axes_and_compiles_whole(name: str, axes: tuple[int, ...]) -> None:
    pool = make_pooling(name)  # type: ignore[arg-type]
    x = torch.rand(2, 6, *axes)
    assert pool(x).shape == (2, 6)
    compiled = torch.compile(pool, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), pool(x))


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"unknown pooling 'gen'; .*known are: mean, gem, mean\+max"):
        make_pooling("gen")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="above 0, got 0"):
        GeMPool(0.0)
