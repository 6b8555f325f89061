"""Which augmentations happen, and where: draws that depend on (seed, epoch, record)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from augmented_batches import KAGGLE_AND_EEG, SIDE_BY_SIDE, SINGLE, band, noisy, numbered, some_images
from scipy.signal import butter, sosfilt

from kagglehms.features.differences import DifferenceSpec
from kagglehms.features.fold import FoldSpec
from kagglehms.features.zoom import ZoomSpec
from kagglehms.inputs.kinds import SPECTRA_50_AND_10_S, Folded, Input, Signals, Views, Zoomed
from kagglehms.inputs.layouts import PANELS_AND_SUMMARIES as SIDE_BY_SIDE_LAYOUT
from kagglehms.training.augmentation_draws import (
    augment,
    device_augmentations,
    drawn_band_pass,
    mirror_probability,
    mixes_records,
    mosaic_batch,
    shift_seconds,
)
from kagglehms.training.augmentations import flip_time
from kagglehms.training.batches import Batch
from kagglehms.training.options import (
    Albumentations,
    BandPass,
    BatchAugmentation,
    ChainPermutation,
    DropDifferences,
    FrequencyMask,
    HorizontalFlip,
    Mirror,
    Mixup,
    SameClassCutMix,
    Shift,
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


def test_tiles_that_do_not_fit_the_image_are_refused() -> None:
    for heights in ((4, 5), (4,)):
        with pytest.raises(ValueError, match="are no 2 tiles of an image of 4 rows"):
            augment(numbered([1], 600), [], 1, 0, SIDE_BY_SIDE, tile_heights=heights)


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


def test_what_depends_on_the_drawing_and_on_the_batch() -> None:
    assert device_augmentations([Mirror(), SignFlip()]) == (SignFlip(),)
    assert mirror_probability([SignFlip(), Mirror(0.3)]) == 0.3
    assert mirror_probability([SignFlip()]) == 0
    assert device_augmentations([Shift(), SignFlip()]) == (SignFlip(),)
    assert shift_seconds([SignFlip(), Shift(2.5)]) == 2.5
    assert shift_seconds([SignFlip()]) == 0
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


# -- what depends on which rows are which difference

FOLDED = Folded(FoldSpec(step=2, phases=5))
SPECTRA = SPECTRA_50_AND_10_S
SIGNALS = Signals(DifferenceSpec(step=2, midline=True))
ZOOMED = Zoomed(ZoomSpec(n_mels=5))
PLACES = {"folded": FOLDED, "spectra": SPECTRA, "signals": SIGNALS, "zoomed": ZOOMED}


def rows_of(layout: Input, signal: int) -> list[int]:
    """Rows of a difference, as the documentation of each input says."""
    if layout is FOLDED:
        return list(range(5 * signal, 5 * signal + 5))
    if layout is SPECTRA:
        return list(range(28 * signal, 28 * signal + 28))
    if layout is ZOOMED:  # in all three planes
        return list(range(5 * signal, 5 * signal + 5))
    return [signal]


def of_layout(layout: Input, records: Sequence[int]) -> Batch:
    """Noise of the layout's shape; of the spectra only some columns."""
    batch = noisy(records, 12)
    shape = (*layout.array_shape[:-1], 12 if layout in (SPECTRA, ZOOMED) else layout.array_shape[-1])
    images = [np.random.default_rng(r).normal(size=shape).astype(np.float32) for r in records]
    return replace(batch, images_BCHW=torch.from_numpy(np.stack(images)))


def done(batch: Batch, augmentation: BatchAugmentation, layout: Input, epoch: int = 0) -> torch.Tensor:
    width = batch.images_BCHW.shape[-1]
    return augment(batch, [augmentation], 1, epoch, (width,), layout=layout).images_BCHW


@pytest.mark.parametrize("kind", PLACES)
def test_whole_differences_are_dropped_and_nothing_else(kind: str) -> None:
    layout = PLACES[kind]
    batch = of_layout(layout, range(60))
    dropped = done(batch, DropDifferences(), layout)
    n_signals = 16 if kind in ("folded", "zoomed") else 18
    counts, which = [], set()
    for before, after in zip(batch.images_BCHW, dropped, strict=True):
        gone = [c for c in range(n_signals) if not after[..., rows_of(layout, c), :].any()]
        counts.append(len(gone))
        which |= set(gone)
        rows = [row for c in gone for row in rows_of(layout, c)]
        expected = before.clone()
        expected[..., rows, :] = 0
        assert torch.equal(after, expected)
    assert set(counts) == set(range(9))  # none, or 1 to 8
    assert 15 < counts.count(0) < 45
    assert which == set(range(n_signals))


def test_bands_of_frequency_are_masked_in_both_blocks_of_every_difference() -> None:
    batch = of_layout(SPECTRA, range(40))
    masked = done(batch, FrequencyMask(1.0, max_height=4), SPECTRA)
    heights, firsts = set(), set()
    for before, after in zip(batch.images_BCHW[:, 0], masked[:, 0], strict=True):
        blocks = after[:504].reshape(36, 14, 12)
        gone = [i for i in range(14) if not blocks[0, i].any()]
        heights.add(len(gone))
        firsts.add(gone[0])
        assert gone == list(range(gone[0], gone[0] + len(gone)))
        expected = before.clone()
        for block in range(36):
            expected[[14 * block + i for i in gone]] = 0
        assert torch.equal(after, expected)
    assert heights == {1, 2, 3, 4}
    assert len(firsts) > 8


def test_chains_change_places_and_the_midline_stays() -> None:
    batch = of_layout(SIGNALS, range(100))
    moved = done(batch, ChainPermutation(1.0), SIGNALS)
    orders = set()
    for before, after in zip(batch.images_BCHW, moved, strict=True):
        order = [
            next(q for q in range(4) if torch.equal(after[4 * p : 4 * p + 4], before[4 * q : 4 * q + 4]))
            for p in range(4)
        ]
        orders.add(tuple(order))
        assert sorted(order) == [0, 1, 2, 3]
        assert torch.equal(after[16:], before[16:])
    assert len(orders) > 18  # of 24
    some = done(batch, ChainPermutation(0.5), SIGNALS)
    same = sum(torch.equal(a, b) for a, b in zip(some, batch.images_BCHW, strict=True))
    assert 35 < same < 70


@pytest.mark.parametrize("edges_hz", [(1.0, 15.0), (4.0, 5.0), (8.0, 8.5), (30.0, 49.9)])
@pytest.mark.parametrize("kind", ["folded", "signals"])
def test_some_records_pass_a_band_and_their_image_is_that_of_the_filtered_signals(
    kind: str, edges_hz: tuple[float, float]
) -> None:
    """What changed is explained by a filter with edges in the range that was asked for."""
    layout = PLACES[kind]
    batch = of_layout(layout, range(40))
    low_hz, high_hz = edges_hz
    passed = done(batch, BandPass(low_hz=(low_hz, low_hz), high_hz=(high_hz, high_hz)), layout)
    sections = butter(2, edges_hz, "bandpass", fs=100, output="sos")
    changed = 0
    for before, after in zip(batch.images_BCHW.numpy(), passed.numpy(), strict=True):
        if np.array_equal(before, after):
            continue
        changed += 1
        for c in (0, 7, 15):
            rows = rows_of(layout, c)
            before_T, after_T = (x[..., rows, :].reshape(len(rows), -1).T.ravel() for x in (before, after))
            np.testing.assert_allclose(after_T, sosfilt(sections, before_T.astype(float)), atol=2e-5)
    assert 2 <= changed <= 16  # 8 expected


def test_edges_are_drawn_over_their_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    edges: list[tuple[float, float]] = []

    def spy(signals: torch.Tensor, low: torch.Tensor, high: torch.Tensor, *rest: float) -> torch.Tensor:
        edges.extend(zip(low.tolist(), high.tolist(), strict=True))
        return signals

    monkeypatch.setattr("kagglehms.training.augmentation_draws.band_pass", spy)
    for epoch in range(5):
        done(of_layout(SIGNALS, range(30)), BandPass(1.0), SIGNALS, epoch)
    low, high = np.array(edges).T
    assert 0.5 <= low.min() < 0.6
    assert 1.9 < low.max() <= 2
    assert 10 <= high.min() < 10.5
    assert 19.5 < high.max() <= 20


def test_a_folded_recording_is_flipped_with_its_phases() -> None:
    batch = of_layout(FOLDED, range(12))
    flipped = done(batch, HorizontalFlip(), FOLDED)
    n_flipped = 0
    for before, after in zip(batch.images_BCHW[:, 0], flipped[:, 0], strict=True):
        if torch.equal(before, after):
            continue
        n_flipped += 1
        for c in range(16):
            rows = rows_of(FOLDED, c)
            assert torch.equal(after[rows].T.ravel(), before[rows].T.ravel().flip(0))
    assert 1 <= n_flipped <= 11


@pytest.mark.parametrize(
    ("augmentation", "kind"),
    [
        (DropDifferences(), "folded"),
        (DropDifferences(), "spectra"),
        (DropDifferences(), "zoomed"),
        (ChainPermutation(), "signals"),
        (BandPass(0.5), "folded"),
        (FrequencyMask(), "spectra"),
    ],
)
def test_a_record_of_differences_is_drawn_alike_in_whatever_batch(
    augmentation: BatchAugmentation, kind: str
) -> None:
    layout, mixed_up = PLACES[kind], [11, 3, 15, 0]
    together = done(of_layout(layout, range(16)), augmentation, layout)
    apart = done(of_layout(layout, mixed_up), augmentation, layout)
    assert torch.equal(apart, together[mixed_up])
    assert not torch.equal(together, done(of_layout(layout, range(16)), augmentation, layout, epoch=1))
    meta = augment(
        of_layout(layout, range(16)), [augmentation], 1, 0, (together.shape[-1],), torch.device("meta"),
        layout=layout,
    )  # fmt: skip
    assert meta.images_BCHW.shape == together.shape  # and no value was asked for


@pytest.mark.parametrize("augmentation", [DropDifferences(), ChainPermutation(), BandPass()])
def test_without_a_layout_of_differences_they_are_refused(augmentation: BatchAugmentation) -> None:
    with pytest.raises(ValueError, match=f"{augmentation.kind} needs a layout of differences"):
        augment(noisy([0]), [augmentation], 1, 0, SINGLE)
    with pytest.raises(ValueError, match="band-pass needs samples"):
        done(of_layout(SPECTRA, [0]), BandPass(), SPECTRA)


# -- two views

VIEWS = Views(SIDE_BY_SIDE_LAYOUT, FOLDED)
"""600 columns in two tiles beside 1000 with five phases."""


def two_views(records: Sequence[int]) -> tuple[Batch, list[Batch]]:
    """A batch of two views, and one of each image by itself."""
    parts = [of_layout(part, records) for part in VIEWS.parts]
    values = torch.cat([part.images_BCHW.flatten(1) for part in parts], dim=1)
    return replace(parts[0], images_BCHW=values), parts


@pytest.mark.parametrize(
    "augmentation", [HorizontalFlip(), Mixup(1.0), SameClassCutMix(1.0)], ids=lambda a: a.kind
)
def test_each_of_two_views_is_augmented_as_alone_with_the_same_draws(augmentation: BatchAugmentation) -> None:
    batch, parts = two_views(range(12))
    widths = ((300, 300), (1000,))
    both = augment(batch, [augmentation, HorizontalFlip()], 1, 2, (batch.images_BCHW.shape[1],), layout=VIEWS)
    alone = [
        augment(part, [augmentation, HorizontalFlip()], 1, 2, width, layout=layout)
        for part, width, layout in zip(parts, widths, VIEWS.parts, strict=True)
    ]
    wanted = torch.cat([each.images_BCHW.flatten(1) for each in alone], dim=1)
    assert torch.equal(both.images_BCHW, wanted)
    assert not torch.equal(both.images_BCHW, batch.images_BCHW)
    assert torch.equal(both.targets_BK, alone[0].targets_BK)
    assert torch.equal(both.n_votes_B, alone[1].n_votes_B)


@pytest.mark.parametrize(
    ("augmentation", "changed"),
    [(SignFlip(1.0), 1), (DropDifferences(1.0), 1), (FrequencyMask(1.0, max_height=20), 0)],
    ids=["sign-flip", "drop-differences", "frequency-mask"],
)
def test_what_fits_one_view_leaves_the_other_as_it_is(augmentation: BatchAugmentation, changed: int) -> None:
    assert augmentation.kind in VIEWS.fitting
    batch, parts = two_views(range(12))
    widths = ((300, 300), (1000,))
    asked = [HorizontalFlip(), augmentation, Mixup(1.0)]
    nothing_instead = [HorizontalFlip(), Mixup(0.0), Mixup(1.0)]  # so that the last one has the same draws
    both = augment(batch, asked, 1, 2, (batch.images_BCHW.shape[1],), layout=VIEWS)
    alone = [
        augment(part, asked if view == changed else nothing_instead, 1, 2, width, layout=layout)
        for view, (part, width, layout) in enumerate(zip(parts, widths, VIEWS.parts, strict=True))
    ]
    wanted = torch.cat([each.images_BCHW.flatten(1) for each in alone], dim=1)
    assert torch.equal(both.images_BCHW, wanted)


def test_both_views_of_a_mixture_are_of_the_same_two_records() -> None:
    """Every value says which record it is of, a hundred times as loud in the second view."""
    batch, parts = two_views(range(16))
    of_record = torch.arange(16.0)[:, None]
    n_first = parts[0].images_BCHW[0].numel()
    values = of_record.repeat(1, batch.images_BCHW.shape[1])
    values[:, n_first:] *= 100
    mixed = augment(
        replace(batch, images_BCHW=values), [Mixup(1.0)], 1, 0, (values.shape[1],), layout=VIEWS
    ).images_BCHW
    first, second = mixed[:, 0], mixed[:, n_first]
    torch.testing.assert_close(second, 100 * first)
    assert not torch.equal(first, of_record[:, 0])


def test_a_band_pass_belongs_to_the_drawing_of_zoomed_spectra() -> None:
    asked = (Mirror(), BandPass(0.3), DropDifferences())
    assert device_augmentations(asked, ZOOMED) == (DropDifferences(),)
    assert drawn_band_pass(asked, ZOOMED) == BandPass(0.3)
    assert drawn_band_pass((Mirror(),), ZOOMED) is None
    for layout in (FOLDED, SIGNALS):
        assert device_augmentations(asked, layout) == (BandPass(0.3), DropDifferences())
        assert drawn_band_pass(asked, layout) is None
