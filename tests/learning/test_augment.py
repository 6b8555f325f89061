"""Augmentations, against plain loops over records and columns; draws that depend on (seed, epoch, record)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kagglehms.learning.augment import (
    augment,
    band_columns,
    device_augmentations,
    flip_rows,
    flip_sign,
    flip_time,
    mask_frequency,
    mask_time,
    mirror_probability,
    mix,
    mixes_records,
    mosaic,
    mosaic_batch,
    same_class_cutmix,
    same_class_partners,
    smooth,
)
from kagglehms.learning.feed import Batch
from kagglehms.learning.options import (
    Albumentations,
    BatchAugmentation,
    FrequencyMask,
    HorizontalFlip,
    Mirror,
    Mixup,
    SameClassCutMix,
    SignFlip,
    TimeMask,
    Transform,
    VerticalFlip,
)

EVERY: list[BatchAugmentation] = [
    SameClassCutMix(1.0),
    HorizontalFlip(0.5),
    TimeMask(0.5, max_width=30, count=2),
    FrequencyMask(0.5, max_height=3, count=2),
    VerticalFlip(0.5),
    SignFlip(0.5),
    Mixup(1.0),
]
PER_RECORD = EVERY[1:-1]
SINGLE, SIDE_BY_SIDE, KAGGLE_AND_EEG = (300,), (300, 300), (300, 256)

tiles = st.lists(st.integers(4, 40), min_size=1, max_size=3)
quick = settings(max_examples=30, deadline=None)


def some_images(n: int, width: int, height: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, height, width)).astype(np.float32)


def numbered(records: Sequence[int], width: int, targets_BK: np.ndarray | None = None) -> Batch:
    """Images whose every pixel says which record it comes from; all of class 0 unless told."""
    index = torch.tensor(records)
    images = index.float()[:, None, None, None].expand(-1, 1, 4, width).clone()
    if targets_BK is None:
        targets_BK = np.eye(6)[[0] * len(records)]
    targets = torch.from_numpy(targets_BK.astype(np.float32))
    return Batch(images, targets, torch.full((len(records),), 3), index)


def noisy(records: Sequence[int], width: int = 300) -> Batch:
    """The same image for a record in whatever batch it is."""
    images = np.concatenate([some_images(1, width, seed=r) for r in records])
    targets = np.stack([np.random.default_rng(r).dirichlet(np.full(6, 0.2)) for r in records])
    index = torch.tensor(records)
    return Batch(torch.from_numpy(images), torch.from_numpy(targets).float(), index % 7 + 1, index)


def band(start: int, width: int, tile_widths: Sequence[int], reference: int) -> set[int]:
    """Columns of a band by exact fractions."""
    columns, left = set(), 0
    for tile in tile_widths:
        if width:
            first = floor(Fraction(start * tile, reference))
            end = ceil(Fraction((start + width) * tile, reference))
            columns |= {left + c for c in range(first, end)}
        left += tile
    return columns


@quick
@given(data=st.data(), tile_widths=tiles, reference=st.integers(4, 50))
def test_bands_stand_at_the_same_place_of_every_tile(
    data: st.DataObject, tile_widths: list[int], reference: int
) -> None:
    width = data.draw(st.integers(0, reference))
    start = data.draw(st.integers(0, reference - width))
    marked = band_columns(torch.tensor([start]), torch.tensor([width]), tile_widths, reference)
    assert marked.shape == (1, sum(tile_widths))
    assert set(marked[0].nonzero().ravel().tolist()) == band(start, width, tile_widths, reference)


# -- same-class CutMix


@st.composite
def targets_and_keys(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few votes, so that there are many targets of exactly one half."""
    n = draw(st.integers(1, 8))
    votes = [
        draw(st.sampled_from([(2, 0, 0), (1, 1, 0), (0, 1, 1), (0, 3, 0), (1, 1, 1), (0, 0, 2)]))
        for _ in range(n)
    ]
    targets_BK = np.zeros((n, 6), np.float32)
    targets_BK[:, :3] = np.array(votes) / np.array(votes).sum(axis=1, keepdims=True)
    return targets_BK, np.random.default_rng(draw(st.integers(0, 999))).random((6, n))


@quick
@given(case=targets_and_keys())
def test_partners_are_a_shuffle_within_the_class(case: tuple[np.ndarray, np.ndarray]) -> None:
    targets_BK, keys_KB = case
    partners_KB = same_class_partners(torch.from_numpy(targets_BK), torch.from_numpy(keys_KB)).numpy()
    for k in range(6):
        members = [b for b in range(len(targets_BK)) if targets_BK[b, k] >= 0.5]
        shuffled = sorted(members, key=lambda b: keys_KB[k, b])
        expected = dict(zip(members, shuffled, strict=True))
        assert partners_KB[k].tolist() == [expected.get(b, b) for b in range(len(targets_BK))]


def test_all_shuffles_are_equally_likely() -> None:
    targets_BK = torch.eye(6)[[2, 0, 2, 1, 2]]
    draw = torch.Generator().manual_seed(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(1200):
        partners = same_class_partners(targets_BK, torch.rand(6, 5, generator=draw))
        shuffle = tuple(partners[2, [0, 2, 4]].tolist())
        counts[shuffle] = counts.get(shuffle, 0) + 1
    assert len(counts) == 6
    assert min(counts.values()) > 150  # 200 each are expected, ± 13


@quick
@given(data=st.data(), case=targets_and_keys(), tile_widths=tiles)
def test_cutmix_is_that_of_the_ladder(
    data: st.DataObject, case: tuple[np.ndarray, np.ndarray], tile_widths: list[int]
) -> None:
    targets_BK, keys_KB = case
    width_K = [data.draw(st.integers(25, 75)) for _ in range(6)]
    start_K = [data.draw(st.integers(0, 50) | st.integers(175, 225)) for _ in range(6)]
    images = some_images(len(targets_BK), sum(tile_widths), height=3)
    expected = images.copy()
    for k in range(6):
        members = [b for b in range(len(targets_BK)) if targets_BK[b, k] >= 0.5]
        if len(members) < 2:
            continue
        shuffled = sorted(members, key=lambda b: keys_KB[k, b])
        for b, other in zip(members, shuffled, strict=True):
            for column in band(start_K[k], width_K[k], tile_widths, 300):
                expected[b, :, :, column] = images[other, :, :, column]
    targets = torch.from_numpy(targets_BK)
    partners = same_class_partners(targets, torch.from_numpy(keys_KB))
    mixed = same_class_cutmix(
        torch.from_numpy(images), targets, partners, torch.tensor(start_K), torch.tensor(width_K), tile_widths
    )
    np.testing.assert_array_equal(mixed, expected)


def test_cutmix_worked_by_hand() -> None:
    """Two records of one class and one of another, side by side: columns 10 to 34 of both halves change."""
    batch = numbered([7, 8, 9], 600, np.eye(6)[[1, 1, 2]])
    partners = torch.arange(3).repeat(6, 1)
    partners[1] = torch.tensor([1, 0, 2])
    mixed = same_class_cutmix(
        batch.images_BCHW, batch.targets_BK, partners, torch.full((6,), 10), torch.full((6,), 25), (300, 300)
    )
    row = [7.0] * 10 + [8.0] * 25 + [7.0] * 265
    assert mixed[0, 0, 0].tolist() == row * 2
    assert (mixed[2] == 9).all()


@quick
@given(
    data=st.data(),
    case=targets_and_keys(),
    halves=st.sampled_from([1, 2]),
    height=st.sampled_from([40, 290, 400, 700]),
)
def test_row_bands_are_those_of_the_published_runs(
    data: st.DataObject, case: tuple[np.ndarray, np.ndarray], halves: int, height: int
) -> None:
    """The published runs cut a slice of (B, 1, H, W) that stood on H; side by side again 300 further on.

    A slice that reaches beyond the last row is cut short, as slices are.
    """
    targets_BK, keys_KB = case
    width_K = [data.draw(st.integers(25, 75)) for _ in range(6)]
    start_K = [data.draw(st.integers(0, 50) | st.integers(175, 225)) for _ in range(6)]
    images = some_images(len(targets_BK), 300 * halves, height)
    expected = images.copy()
    for k in range(6):
        members = [b for b in range(len(targets_BK)) if targets_BK[b, k] >= 0.5]
        if len(members) < 2:
            continue
        for b, other in zip(members, sorted(members, key=lambda b: keys_KB[k, b]), strict=True):
            for half in range(halves):
                start = 300 * half + start_K[k]
                expected[b, :, start : start + width_K[k]] = images[other, :, start : start + width_K[k]]
    targets = torch.from_numpy(targets_BK)
    partners = same_class_partners(targets, torch.from_numpy(keys_KB))
    tile_widths = [300] * halves
    starts, widths = torch.tensor(start_K), torch.tensor(width_K)
    before = torch.from_numpy(images)
    mixed = same_class_cutmix(before, targets, partners, starts, widths, tile_widths, "rows")
    np.testing.assert_array_equal(mixed, expected)


def test_a_recipe_names_the_axis_of_cutmix() -> None:
    """The same draws, once on columns and once on rows."""
    batch = noisy(range(8))
    batch = replace(batch, images_BCHW=batch.images_BCHW.repeat(1, 1, 50, 1))  # 400 rows
    rows = augment(batch, [SameClassCutMix(1.0, axis="rows")], 1, 0, SINGLE).images_BCHW
    columns = augment(batch, [SameClassCutMix(1.0)], 1, 0, SINGLE).images_BCHW
    changed = (rows != batch.images_BCHW)[:, 0]
    assert changed.any()
    assert (changed.all(dim=2) == changed.any(dim=2)).all()  # whole rows
    by_time = (columns != batch.images_BCHW)[:, 0]
    assert (by_time.all(dim=1) == by_time.any(dim=1)).all()  # whole columns
    torch.testing.assert_close(changed.any(dim=2)[:, :300], by_time.any(dim=1))
    assert not changed[:, 300:].any()


@pytest.mark.parametrize("tile_widths", [SINGLE, SIDE_BY_SIDE, KAGGLE_AND_EEG])
def test_bands_drawn_for_cutmix_are_those_of_the_ladder(tile_widths: tuple[int, ...]) -> None:
    seen = set()
    for epoch in range(150):
        batch = numbered(range(1, 9), sum(tile_widths))
        mixed = augment(batch, [SameClassCutMix(1.0)], 1, epoch, tile_widths)
        assert torch.equal(mixed.targets_BK, batch.targets_BK)
        changed = (mixed.images_BCHW != batch.images_BCHW)[:, 0, 0].any(dim=0).nonzero().ravel().tolist()
        in_first = [column for column in changed if column < 300]
        if not in_first:  # one shuffle in 40,320
            continue
        start, width = in_first[0], len(in_first)
        seen.add((start, width))
        assert in_first == list(range(start, start + width))
        assert set(changed) == band(start, width, tile_widths, 300)
        assert 25 <= width <= 75
        assert 0 <= start <= 50 or 175 <= start <= 225
        for record, row in zip(batch.index_B.tolist(), mixed.images_BCHW[:, 0, 0], strict=True):
            assert len(set(row.tolist()) - {record}) <= 1  # one partner at most
    starts, widths = {s for s, _ in seen}, {w for _, w in seen}
    assert 50 < sum(s <= 50 for s, _ in seen) < 100  # either end as often
    assert len(starts) > 60  # of 102
    assert len(widths) > 35  # of 51
    assert min(widths) < 30
    assert max(widths) > 70


def test_cutmix_pastes_only_within_a_class() -> None:
    targets = np.eye(6)[[0, 1, 2, 0, 1, 2, 0, 1]]
    batch = numbered(range(8), 300, targets)
    changed = 0
    for epoch in range(20):
        mixed = augment(batch, [SameClassCutMix(1.0)], 5, epoch, SINGLE)
        for record, image in enumerate(mixed.images_BCHW):
            others = {int(v) for v in image.unique().tolist()} - {record}
            changed += len(others)
            assert all(targets[other].argmax() == targets[record].argmax() for other in others)
    assert changed > 40


def test_cutmix_happens_to_four_batches_in_ten() -> None:
    batch = numbered(range(8), 300)
    mixed = [augment(batch, [SameClassCutMix()], 3, epoch, SINGLE).images_BCHW for epoch in range(500)]
    happened = sum(not torch.equal(images, batch.images_BCHW) for images in mixed)
    assert 160 < happened < 240  # 200 expected, ± 11


def test_cutmix_needs_two_of_a_class() -> None:
    lonely = [
        numbered([4], 300),
        numbered(range(6), 300, np.eye(6)),
        numbered([1, 2], 300, np.full((2, 6), 1 / 6)),
    ]
    for batch in lonely:
        for epoch in range(5):
            mixed = augment(batch, [SameClassCutMix(1.0)], 1, epoch, SINGLE)
            assert torch.equal(mixed.images_BCHW, batch.images_BCHW)


def test_a_class_of_one_pastes_nothing_over_the_band_of_another_class() -> None:
    targets = np.array([[0.5, 0.5, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    batch = numbered([7, 8], 300, targets)
    partners = torch.tensor([[1, 0]] + [[0, 1]] * 5)
    start, width = torch.full((6,), 20), torch.full((6,), 30)
    mixed = same_class_cutmix(batch.images_BCHW, batch.targets_BK, partners, start, width, SINGLE)
    assert mixed[0, 0, 0].tolist() == [7.0] * 20 + [8.0] * 30 + [7.0] * 250


# -- mosaic


@quick
@given(tile_widths=tiles, n=st.integers(1, 5), seed=st.integers(0, 999))
def test_mosaic_is_that_of_the_ladder(tile_widths: list[int], n: int, seed: int) -> None:
    images = some_images(n, sum(tile_widths), height=3, seed=seed)
    draw = np.random.default_rng(seed)
    targets = draw.dirichlet(np.ones(6), size=n).astype(np.float32)
    picks = draw.integers(n, size=(n, 4))
    expected = np.empty_like(images)
    for b in range(n):
        left = 0
        for tile in tile_widths:
            columns = []
            for pick in picks[b]:
                for i in range(tile // 4):
                    columns.append(images[pick, 0, :, left + 4 * i : left + 4 * i + 4].mean(axis=1))
            columns += [columns[-1]] * (tile % 4)
            expected[b, 0, :, left : left + tile] = np.stack(columns, axis=1)
            left += tile
    mosaics, means = mosaic(
        torch.from_numpy(images), torch.from_numpy(targets), torch.from_numpy(picks), tile_widths
    )
    np.testing.assert_allclose(mosaics, expected, atol=1e-6)
    np.testing.assert_allclose(means, [targets[p].mean(axis=0) for p in picks], rtol=1e-6)
    if len(tile_widths) == 1:
        alone, _ = mosaic(torch.from_numpy(images), torch.from_numpy(targets), torch.from_numpy(picks))
        assert torch.equal(alone, mosaics)


def test_300_columns_become_four_times_75() -> None:
    ramp = torch.arange(300.0).expand(2, 1, 400, 300)
    images = torch.stack([ramp[0], ramp[1] + 1000])
    mosaics, targets = mosaic(images, torch.eye(6)[:2], torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]]))
    assert mosaics.shape == (2, 1, 400, 300)
    assert mosaics[0, 0, 5, [0, 74, 75, 150, 225, 299]].tolist() == [1.5, 297.5, 1001.5, 1001.5, 1.5, 297.5]
    assert targets[:, :2].tolist() == [[0.5, 0.5], [0, 1]]


def test_a_mosaic_batch_draws_from_its_own_records() -> None:
    records = [3, 5, 6, 9, 12, 20]
    targets = np.random.default_rng(0).dirichlet(np.ones(6), size=len(records))
    batch = numbered(records, 600, targets)
    picked = []
    for epoch in range(30):
        made = mosaic_batch(batch, 1, epoch, SIDE_BY_SIDE)
        assert made.images_BCHW.shape == batch.images_BCHW.shape
        for row, target in zip(made.images_BCHW[:, 0, 0], made.targets_BK, strict=True):
            pieces = row.reshape(2, 4, 75)
            assert (pieces == pieces[0, :, :1]).all()  # both halves alike, each piece of one record
            picks = pieces[0, :, 0].int().tolist()
            picked.append(tuple(picks))
            mean = targets[[records.index(p) for p in picks]].mean(axis=0)
            np.testing.assert_allclose(target, mean, rtol=1e-5)
    assert {p for picks in picked for p in picks} == set(records)
    assert len(set(picked)) > 100  # of 180
    assert any(len(set(picks)) < 4 for picks in picked)  # with replacement
    assert torch.equal(batch.images_BCHW, numbered(records, 600).images_BCHW)


def test_a_mosaic_of_too_few_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 columns, but got 3"):
        mosaic(torch.zeros(1, 1, 4, 3), torch.zeros(1, 6), torch.zeros(1, 4, dtype=torch.int64))


# -- flips and masks


@quick
@given(tile_widths=tiles, flips=st.lists(st.booleans(), min_size=1, max_size=5))
def test_time_is_flipped_in_every_tile_by_itself(tile_widths: list[int], flips: list[bool]) -> None:
    images = some_images(len(flips), sum(tile_widths))
    expected = images.copy()
    for b, flip in enumerate(flips):
        left = 0
        for tile in tile_widths if flip else []:
            expected[b, :, :, left : left + tile] = images[b, :, :, left : left + tile][..., ::-1]
            left += tile
    np.testing.assert_array_equal(
        flip_time(torch.from_numpy(images), torch.tensor(flips), tile_widths), expected
    )


@st.composite
def bands(draw: st.DrawFn, size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Starts and lengths, (B, M) each, of bands that lie in 0 … size."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    lengths = [[draw(st.integers(0, size)) for _ in range(shape[1])] for _ in range(shape[0])]
    starts = [[draw(st.integers(0, size - length)) for length in row] for row in lengths]
    return starts, lengths


@quick
@given(data=st.data(), tile_widths=tiles)
def test_masked_time_is_0_in_every_tile(data: st.DataObject, tile_widths: list[int]) -> None:
    starts, widths = data.draw(bands(tile_widths[0]))
    images = some_images(len(starts), sum(tile_widths))
    expected = images.copy()
    for b in range(len(starts)):
        for start, width in zip(starts[b], widths[b], strict=True):
            expected[b, :, :, sorted(band(start, width, tile_widths, tile_widths[0]))] = 0
    masked = mask_time(torch.from_numpy(images), torch.tensor(starts), torch.tensor(widths), tile_widths)
    np.testing.assert_array_equal(masked, expected)


@quick
@given(case=bands(10))
def test_masked_frequencies_are_0_in_every_panel(case: tuple[list[list[int]], list[list[int]]]) -> None:
    starts, heights = case
    images = some_images(len(starts), 6, height=40)
    expected = images.copy()
    for b in range(len(starts)):
        for start, height in zip(starts[b], heights[b], strict=True):
            for panel in range(4):
                expected[b, :, panel * 10 + start : panel * 10 + start + height] = 0
    masked = mask_frequency(torch.from_numpy(images), torch.tensor(starts), torch.tensor(heights))
    np.testing.assert_array_equal(masked, expected)


def test_frequencies_are_masked_in_each_tiles_own_panels() -> None:
    """Panels of 10 and of 20 rows; below the lower tile nothing is touched."""
    images = some_images(2, 5, height=80)
    starts, heights = [[3], [0]], [[2], [0]]
    expected = images.copy()
    for panel in range(4):
        expected[0, :, panel * 10 + 3 : panel * 10 + 5, :3] = 0
        expected[0, :, panel * 20 + 6 : panel * 20 + 10, 3:] = 0
    tiles = [(40, 3), (80, 2)]
    masked = mask_frequency(torch.from_numpy(images), torch.tensor(starts), torch.tensor(heights), tiles)
    np.testing.assert_array_equal(masked, expected)


def test_tiles_that_do_not_fit_the_image_are_refused() -> None:
    for heights in ((4, 5), (4,)):
        with pytest.raises(ValueError, match="are no 2 tiles of an image of 4 rows"):
            augment(numbered([1], 600), [], 1, 0, SIDE_BY_SIDE, tile_heights=heights)


def test_rows_that_panels_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="41 rows cannot be shared by 4 panels"):
        mask_frequency(torch.zeros(1, 1, 41, 5), torch.zeros(1, 1).long(), torch.ones(1, 1).long())


def test_what_is_drawn_for_masks() -> None:
    """Widths from 1 to the longest, anywhere in the tile, for half of the records."""
    batch = numbered(range(1, 401), 300)
    time = augment(batch, [TimeMask(0.5, max_width=20)], 1, 0, SINGLE).images_BCHW[:, 0, 0] == 0
    widths = time.sum(dim=1)
    assert 160 < (widths > 0).sum() < 240
    assert set(widths.tolist()) == set(range(21))
    firsts = {row.nonzero()[0].item() for row in time if row.any()}
    assert min(firsts) < 20
    assert max(firsts) > 270
    wide = augment(batch, [TimeMask(1.0, max_width=9999)], 1, 0, SINGLE).images_BCHW[:, 0, 0] == 0
    assert 1 <= wide.sum(dim=1).min() < 10
    assert 290 < wide.sum(dim=1).max() <= 300

    tall = Batch(torch.ones(400, 1, 40, 2), batch.targets_BK, batch.n_votes_B, batch.index_B)
    rows = augment(tall, [FrequencyMask(1.0, max_height=3)], 1, 0, (2,)).images_BCHW[:, 0, :, 0] == 0
    assert set(rows.sum(dim=1).tolist()) == {4, 8, 12}
    assert (rows.reshape(400, 4, 10) == rows[:, None, :10]).all()


def test_flips_happen_to_half_of_the_records() -> None:
    batch = noisy(range(300), width=12)
    flipped = augment(batch, [HorizontalFlip()], 1, 0, (12,)).images_BCHW
    is_flipped = (flipped == batch.images_BCHW.flip(-1)).flatten(1).all(dim=1)
    is_same = (flipped == batch.images_BCHW).flatten(1).all(dim=1)
    assert (is_flipped ^ is_same).all()
    assert 115 < is_flipped.sum() < 185


@pytest.mark.parametrize("shape", [(5, 2, 6, 7), (5, 3, 8)])
@given(flips=st.lists(st.booleans(), min_size=5, max_size=5), seed=st.integers(0, 99))
@quick
def test_rows_and_signs_are_flipped_where_it_is_said(
    shape: tuple[int, ...], flips: list[bool], seed: int
) -> None:
    inputs = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    upside_down = flip_rows(torch.from_numpy(inputs), torch.tensor(flips)).numpy()
    negative = flip_sign(torch.from_numpy(inputs), torch.tensor(flips)).numpy()
    for i, flip in enumerate(flips):
        np.testing.assert_array_equal(upside_down[i], inputs[i, ..., ::-1, :] if flip else inputs[i])
        np.testing.assert_array_equal(negative[i], -inputs[i] if flip else inputs[i])


@pytest.mark.parametrize("shape", [(6, 1, 4, 5), (6, 3, 8)])
@given(seed=st.integers(0, 999))
@quick
def test_mixup_is_a_weighted_mean_of_inputs_targets_and_votes(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, targets = rng.normal(size=shape), rng.dirichlet(np.ones(6), 6)
    votes, partner, share = rng.integers(1, 28, 6), rng.permutation(6), rng.random(6)
    tensors = (torch.from_numpy(a.astype(np.float32)) for a in (inputs, targets))
    mixed = mix(*tensors, torch.from_numpy(votes), torch.from_numpy(partner), torch.from_numpy(share).float())
    for got, plain in zip(mixed, (inputs, targets, votes), strict=True):
        for i in range(6):
            expected = share[i] * plain[i] + (1 - share[i]) * plain[partner[i]]
            np.testing.assert_allclose(got[i].numpy(), expected, atol=1e-5)


def test_mixed_batches_stay_fractions_and_keep_their_shares_within_bounds() -> None:
    records = range(64)
    targets = torch.eye(6)[torch.arange(64) % 6]
    batch = Batch(torch.arange(64.0)[:, None, None, None].expand(-1, 1, 2, 12).clone(), targets,
                  torch.full((64,), 5), torch.tensor(records))  # fmt: skip
    mixed = augment(batch, [Mixup(1.0, 0.4, 0.6)], 1, 0, (12,))
    torch.testing.assert_close(mixed.targets_BK.sum(dim=1), torch.ones(64))
    own = mixed.targets_BK[torch.arange(64), torch.arange(64) % 6]
    assert ((own >= 0.4 - 1e-6) & ((own <= 0.6 + 1e-6) | (own > 1 - 1e-6))).all()
    assert augment(batch, [Mixup(0.0)], 1, 0, (12,)) == batch


def test_smoothing_worked_by_hand() -> None:
    targets = torch.tensor(
        [[1, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    )
    smoothed = smooth(targets, torch.tensor([1, 2, 3, 4]), 0.1)
    expected = [
        [0.9, 0.02, 0.02, 0.02, 0.02, 0.02],
        [0.45, 0.45, 0.025, 0.025, 0.025, 0.025],
        [0.3, 0.3, 0.3, 1 / 30, 1 / 30, 1 / 30],
        [1, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(smoothed, expected, atol=1e-7)
    all_equal = torch.full((1, 6), 1 / 6)
    torch.testing.assert_close(smooth(all_equal, torch.tensor([2]), 0.1), all_equal)


def test_what_depends_on_the_drawing_and_on_the_batch() -> None:
    assert device_augmentations([Mirror(), SignFlip()]) == (SignFlip(),)
    assert mirror_probability([SignFlip(), Mirror(0.3)]) == 0.3
    assert mirror_probability([SignFlip()]) == 0
    assert mixes_records([Mixup()])
    assert mixes_records([SameClassCutMix()])
    assert not mixes_records([Mirror(), HorizontalFlip(), TimeMask()])


@pytest.mark.parametrize("augmentation", [SignFlip(1.0), TimeMask(1.0), HorizontalFlip(1.0), Mixup(1.0)])
def test_signals_are_augmented_as_images_are(augmentation: BatchAugmentation) -> None:
    images = torch.from_numpy(some_images(8, 40, height=3))
    batch = Batch(images, torch.eye(6)[:1].expand(8, -1), torch.full((8,), 3), torch.arange(8))
    as_images = augment(batch, [augmentation], 1, 0, (40,)).images_BCHW
    signals = Batch(images[:, 0], batch.targets_BK, batch.n_votes_B, batch.index_B)
    assert torch.equal(augment(signals, [augmentation], 1, 0, (40,)).images_BCHW, as_images[:, 0])


# -- draws


@pytest.mark.parametrize("augmentation", PER_RECORD, ids=lambda a: a.kind)
def test_a_record_is_drawn_alike_in_whatever_batch(augmentation: BatchAugmentation) -> None:
    together = augment(noisy(range(16)), [augmentation], 1, 2, SINGLE).images_BCHW
    mixed_up = [11, 3, 15, 0]
    apart = augment(noisy(mixed_up), [augmentation], 1, 2, SINGLE).images_BCHW
    assert torch.equal(apart, together[mixed_up])
    alone = augment(noisy([9]), [augmentation], 1, 2, SINGLE).images_BCHW
    assert torch.equal(alone, together[[9]])


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda a: a.kind)
def test_draws_depend_on_seed_epoch_and_place_in_the_recipe(augmentation: BatchAugmentation) -> None:
    batch = noisy(range(16))
    first = augment(batch, [augmentation], 1, 2, SINGLE).images_BCHW
    assert torch.equal(first, augment(batch, [augmentation], 1, 2, SINGLE).images_BCHW)
    assert not torch.equal(first, batch.images_BCHW)
    for seed, epoch, before in ((2, 2, []), (1, 3, []), (1, 2, [HorizontalFlip(0.0)])):
        other = augment(batch, [*before, augmentation], seed, epoch, SINGLE).images_BCHW
        assert not torch.equal(first, other)


def test_draws_of_a_batch_depend_on_its_records() -> None:
    bands = []
    for records in (range(16), range(16), [*range(15), 99]):
        batch = numbered(records, 300)
        mixed = augment(batch, [SameClassCutMix(1.0)], 1, 0, SINGLE)
        bands.append((mixed.images_BCHW != batch.images_BCHW).any(dim=0).ravel().tolist())
    assert bands[0] == bands[1]
    assert bands[0] != bands[2]
    mosaics = [
        mosaic_batch(noisy(r), 1, e, SINGLE).targets_BK for r, e in (((1, 2), 0), ((1, 2), 1), ((1, 2), 0))
    ]
    assert torch.equal(mosaics[0], mosaics[2])
    assert not torch.equal(mosaics[0], mosaics[1])


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_sixteen_records_are_drawn_differently_and_alike_by_any_number_of_threads(threads: int) -> None:
    image = torch.from_numpy(some_images(1, 300))
    mask = [TimeMask(1.0, max_width=60, count=3)]

    def draw(record: int) -> bytes:
        batch = Batch(image, torch.eye(6)[:1], torch.ones(1), torch.tensor([record]))
        return augment(batch, mask, 1, 0, SINGLE).images_BCHW.numpy().tobytes()

    with ThreadPoolExecutor(threads) as pool:
        drawn = list(pool.map(draw, range(16)))
    assert len(set(drawn)) == 16
    assert drawn == [draw(record) for record in range(16)]


def test_augmentations_are_applied_in_turn_and_leave_the_rest_alone() -> None:
    batch = noisy(range(8), width=600)
    before = batch.images_BCHW.clone()
    done = augment(batch, EVERY[:-1], 1, 0, SIDE_BY_SIDE)
    assert torch.equal(batch.images_BCHW, before)
    assert done.images_BCHW.shape == before.shape
    assert done.images_BCHW.dtype == torch.float32
    for name in ("targets_BK", "n_votes_B", "index_B"):
        assert torch.equal(getattr(done, name), getattr(batch, name))
    # A mask before a flip is flipped with the image: the other way round would leave it where it was drawn.
    flip_last = augment(batch, [TimeMask(1.0), HorizontalFlip(1.0)], 1, 0, SIDE_BY_SIDE).images_BCHW
    masked = augment(batch, [TimeMask(1.0)], 1, 0, SIDE_BY_SIDE).images_BCHW
    assert torch.equal(flip_last, flip_time(masked, torch.ones(8, dtype=torch.bool), SIDE_BY_SIDE))


def test_nothing_asks_the_device_for_a_value() -> None:
    """Tensors on `meta` have none: whatever had to wait for one would fail."""
    batch, meta = noisy(range(8), width=600), torch.device("meta")
    for done in (
        augment(batch, EVERY, 1, 0, SIDE_BY_SIDE, meta),
        mosaic_batch(batch, 1, 0, SIDE_BY_SIDE, meta),
    ):
        assert done.images_BCHW.device == meta
        assert done.images_BCHW.shape == batch.images_BCHW.shape
        assert done.targets_BK.shape == batch.targets_BK.shape


def test_mistakes_of_the_caller_are_named() -> None:
    albumentations = Albumentations((Transform("D4", {}),))
    with pytest.raises(ValueError, match=r"tiles of \(300, 300\) columns are no image of 300 columns"):
        augment(noisy([0]), [], 1, 0, SIDE_BY_SIDE)
    with pytest.raises(ValueError, match=r"no image of 300"):
        mosaic_batch(noisy([0]), 1, 0, SIDE_BY_SIDE)
    with pytest.raises(ValueError, match="is not for batches"):
        augment(noisy([0]), [albumentations], 1, 0, SINGLE)  # type: ignore[list-item]
    assert device_augmentations((HorizontalFlip(), albumentations, TimeMask())) == (
        HorizontalFlip(),
        TimeMask(),
    )
