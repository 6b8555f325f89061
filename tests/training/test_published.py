"""The source's notebooks, line by line: what each ran with, and their numbers by plain computations of our own."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.errors import UsageError
from kagglehms.inputs.layouts import Crop, Layout, Normaliser, Tile
from kagglehms.inputs.rendering import render
from kagglehms.training.augmentations import mosaic, same_class_cutmix, same_class_partners
from kagglehms.training.losses import own_weights, vote_weights, weighted_loss
from kagglehms.training.options import HorizontalFlip, SameClassCutMix
from kagglehms.training.published import NOTEBOOKS, SUFFIX, as_published
from kagglehms.training.recipes import RECIPES, get_recipe, recipe_from_json

# Read off the notebooks: network, rate of dropout, rate of drop path, CutMix, and of each stage the epochs that its
# output shows, how many of them on mosaics, and what the loss is multiplied by.
B0, B2, B4 = "efficientnet_b0", "efficientnet_b2", "efficientnet_b4"
PLAIN, LOG, CAPPED, TWO = "kl", "kl-log-votes", "kl-capped-votes", "kl-two-stage"
RAN = {
    "baseline": (B2, 0.3, 0.2, False, [(6, 0, PLAIN, "all")]),
    "global-stats": (B2, 0, 0, False, [(6, 0, PLAIN, "all")]),
    "percentiles": (B2, 0, 0, False, [(6, 0, PLAIN, "all")]),
    "eeg+percentiles": (B2, 0.3, 0.2, False, [(6, 0, PLAIN, "all")]),
    "eeg-global-stats": (B2, 0.3, 0.2, False, [(6, 0, PLAIN, "all")]),
    "vote-weighted": (B2, 0.3, 0.2, True, [(6, 0, LOG, "all")]),
    "vote-weighted-global": (B2, 0.3, 0.2, True, [(6, 0, LOG, "all")]),
    "global-norm": (B4, 0.3, 0.2, False, [(6, 0, LOG, "all")]),
    "global-norm-stats": (B2, 0.3, 0.2, True, [(5, 0, LOG, "all")]),
    "mosaic-xloss": (B0, 0.3, 0.2, False, [(8, 3, CAPPED, "all")]),
    "mosaic-xloss-stats": (B0, 0.3, 0.2, False, [(8, 3, CAPPED, "all")]),
    "two-stage": (B0, 0.3, 0.2, False, [(6, 2, CAPPED, "unsettled"), (6, 0, CAPPED, "settled")]),
    "two-stage-weighted": (B0, 0.3, 0.2, False, [(6, 2, CAPPED, "few"), (5, 0, TWO, "settled")]),
    "two-stage-stats": (B0, 0.3, 0.2, False, [(6, 2, CAPPED, "unsettled"), (5, 0, CAPPED, "settled")]),
}


@pytest.mark.parametrize("name", RAN)
def test_a_run_as_published_has_the_notebooks_settings(name: str) -> None:
    network, dropout, drop_path, cutmix, stages = RAN[name]
    recipe = get_recipe(name + SUFFIX)
    assert recipe.name == f"{name}-as-published"
    assert (recipe.backbone, recipe.dropout, recipe.drop_path_rate) == (network, dropout, drop_path)
    assert recipe.augmentations == ((SameClassCutMix(0.4, axis="rows"),) if cutmix else ())
    assert [(s.epochs, s.mosaic_epochs, s.loss, s.records) for s in recipe.stages] == stages
    assert [s.reset_all_epoch for s in recipe.stages] == [mosaics > 0 for _, mosaics, _, _ in stages]
    assert (recipe.schedule, recipe.lr, recipe.weight_decay, recipe.batch_size) == (
        "constant",
        1e-3,
        1e-2,
        32,
    )
    assert (recipe.evaluations_per_epoch, recipe.windows, recipe.ema) == (2, "middle", None)
    assert recipe.layout == get_recipe(name).layout
    assert recipe_from_json(recipe.to_json()) == recipe


def test_every_notebook_has_its_run() -> None:
    assert set(NOTEBOOKS) == set(RAN)
    assert len(set(NOTEBOOKS.values())) == 14


@pytest.mark.parametrize("name", RAN)
def test_a_recipe_differs_from_its_run_in_what_the_documentation_lists(name: str) -> None:
    ours, ran = get_recipe(name), get_recipe(name + SUFFIX)
    changed = {"name", "schedule", "augmentations", "stages"}
    assert replace(ran, **{field: getattr(ours, field) for field in changed}) == ours


def test_what_else_is_augmented_stays_as_it_is() -> None:
    recipe = replace(get_recipe("baseline"), augmentations=(HorizontalFlip(), SameClassCutMix(0.1)))
    assert as_published(recipe).augmentations == (HorizontalFlip(), SameClassCutMix(0.1, axis="rows"))


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(RAN)))
def test_what_was_not_published_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no notebook of .* was published"):
        get_recipe(name + SUFFIX)


def test_a_mistyped_name_is_named() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'basline'; did you mean 'baseline'"):
        get_recipe("basline-as-published")


def test_a_run_as_published_is_trained_like_any_other() -> None:
    """From the command line, and on Kaggle, where a kernel lists recipes by name."""
    from kagglehms.cli.training_commands import Train
    from kagglehms.kernel.training_session import training_options

    name, changed = (
        "mosaic-xloss-as-published",
        {"epochs": 2, "batch_size": 4, "backbone": "half:test_efficientnet"},
    )
    expected = get_recipe(name).changed(**changed)
    assert training_options([name], changed).changed(get_recipe(name)) == expected
    assert [(s.epochs, s.mosaic_epochs) for s in expected.stages] == [(2, 1)]
    assert Train(names=(name,), **changed).changed(get_recipe(name)) == expected  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no notebook of 'demo' was published"):
        training_options(["demo-as-published"], {})


# -- the notebooks' own numbers


def plain_kl(logits: list[float], target: list[float]) -> float:
    """KL divergence of one record in float64, by its definition."""
    top = max(logits)
    total = math.fsum(math.exp(z - top) for z in logits)
    return math.fsum(
        t * (math.log(t) - (z - top - math.log(total))) for z, t in zip(logits, target, strict=True) if t
    )


WEIGHTS = {
    PLAIN: lambda n: 1.0,
    LOG: lambda n: math.log(n + 1),
    CAPPED: lambda n: float(n) if n < 10 else 10.0,
    TWO: lambda n: float(n) if n <= 10 else (10 + 2 * math.log10(n)) * math.log10(n),
}


@pytest.mark.parametrize("loss", WEIGHTS)
def test_losses(loss: str) -> None:
    """Sum over classes, times the weight of the votes, mean over the batch."""
    draw = random.Random(0)
    votes = [[draw.choice([0, 0, 1, 2, 7]) for _ in range(5)] + [1] for _ in range(60)]
    logits = [[draw.gauss(0, 3) for _ in range(6)] for _ in votes]
    targets = [[vote / sum(row) for vote in row] for row in votes]
    terms = [
        WEIGHTS[loss](sum(row)) * plain_kl(z, t) for row, z, t in zip(votes, logits, targets, strict=True)
    ]
    n_votes = torch.tensor([sum(row) for row in votes])
    found = weighted_loss(torch.tensor(logits), torch.tensor(targets), n_votes, loss)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-5)
    assert n_votes.min() < 10 < n_votes.max()  # both sides of where the weights change


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (LOG, {1: 0.6931, 3: 1.3863, 10: 2.3979, 28: 3.3673}),
        (CAPPED, {1: 1, 3: 3, 10: 10, 11: 10, 28: 10}),
        (TWO, {1: 1, 10: 10, 11: 12.5829, 15: 14.5273, 28: 18.6601}),
    ],
)
def test_weights(loss: str, weights: dict[int, float]) -> None:
    found = vote_weights(torch.tensor(list(weights)), own_weights(loss))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, list(weights.values()), atol=5e-5)


def test_mosaics() -> None:
    """400 × 300: 75 means of four columns each, of four images side by side; the mean of their targets."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(5, 1, 400, 300))
    targets = draw.dirichlet(np.ones(6), 5)
    picks = draw.integers(0, 5, (5, 4))
    quarters = np.zeros((5, 400, 75))
    for b in range(5):
        for i in range(75):
            quarters[b, :, i] = sum(images[b, 0, :, 4 * i + j] for j in range(4)) / 4
    mosaics, means = mosaic(torch.tensor(images), torch.tensor(targets), torch.tensor(picks))
    for b in range(5):
        np.testing.assert_allclose(mosaics[b, 0], np.hstack([quarters[p] for p in picks[b]]), atol=1e-12)
        np.testing.assert_allclose(means[b], sum(targets[p] for p in picks[b]) / 4, rtol=1e-12)


@pytest.mark.parametrize("name", ["vote-weighted", "vote-weighted-global", "global-norm-stats"])
def test_cutmix_on_the_images_that_it_ran_on(name: str) -> None:
    """Rows a … a + w − 1 over the whole width; side by side also rows 300 + a on, as far as there are."""
    height, width = get_recipe(name).layout.shape
    draw = np.random.default_rng(1)
    images = draw.normal(size=(12, 1, height, width)).astype(np.float32)
    classes = draw.integers(0, 3, 12)
    targets = np.eye(6, dtype=np.float32)[classes]
    keys = draw.random((6, 12))
    start, size = [20, 50, 225, 0, 0, 0], [30, 75, 75, 25, 25, 25]
    expected = images.copy()
    for k in range(3):
        members = np.flatnonzero(classes == k)
        others = members[np.argsort(keys[k, members])]
        for first in (start[k], 300 + start[k])[: 2 if width == 600 else 1]:
            expected[members, :, first : first + size[k]] = images[others, :, first : first + size[k]]
    before, target = torch.tensor(images), torch.tensor(targets)
    partners = same_class_partners(target, torch.tensor(keys))
    tile_widths = [tile.shape[1] for tile in get_recipe(name).layout.tiles]
    mixed = same_class_cutmix(
        before, target, partners, torch.tensor(start), torch.tensor(size), tile_widths, "rows"
    )
    np.testing.assert_array_equal(mixed, expected)
    assert (mixed != before).any()


LOG_POWER = np.log(
    np.clip(np.random.default_rng(2).lognormal(0, 3, (300, 400)), math.exp(-4), math.exp(8))
).astype(np.float16)
LOG_POWER[10:14, 50:60] = np.nan


def four_panels() -> np.ndarray:
    """(4, 100, 300) float64: LL, RL, LP, RP, frequency by time."""
    rows = LOG_POWER.astype(np.float64)
    return np.stack([rows[:, 100 * p : 100 * p + 100].T for p in range(4)])


def by_their_own(values: np.ndarray) -> np.ndarray:
    there = values[~np.isnan(values)]
    mean = math.fsum(there) / len(there)
    std = math.sqrt(math.fsum((there - mean) ** 2) / len(there))
    return np.where(np.isnan(values), 0, (values - mean) / (std + 1e-6))


@pytest.mark.parametrize("kind", ["panel", "image", "global"])
def test_normalisers(kind: str) -> None:
    """A panel by itself, four together, or all by the two numbers that the notebooks give for the whole train set."""
    panels = four_panels()
    if kind == "panel":
        expected = np.stack([by_their_own(panel) for panel in panels])
    elif kind == "image":
        expected = by_their_own(panels)
    else:
        expected = np.nan_to_num((panels + 0.08340271) / (1.9072835 + 1e-6), nan=0.0)
    image = np.empty((400, 300), np.float32)
    layout = Layout((Tile("kaggle", "panels", kind),))  # type: ignore[arg-type]
    render(layout, Crop(log_power=LOG_POWER), image, Normaliser({"kaggle": (-0.08340271, 1.9072835)}))
    np.testing.assert_allclose(image, expected.reshape(400, 300), atol=2e-5)


def test_populations() -> None:
    """The first stage's: fewer than 4 votes, and 4 that differ. The second's: 5 and more, and 4 of one class."""
    import polars as pl

    from kagglehms.data.records import Records

    votes = [(1,), (3,), (2, 1), (4,), (3, 1), (2, 2), (1, 1, 1, 1), (5,), (2, 3), (1, 1, 1, 1, 1), (28,)]
    padded = np.array([[*row, *[0] * (6 - len(row))] for row in votes])
    records = Records(pl.DataFrame(dict(zip(VOTE_COLUMNS, padded.T, strict=True))))
    assert np.flatnonzero(records.settled).tolist() == [3, 7, 8, 9, 10]
    assert np.flatnonzero(records.few).tolist() == [0, 1, 2]
