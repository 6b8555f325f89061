"""What augmentations do, against plain loops over records and columns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from augmented_batches import SINGLE, band, numbered, some_images
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from kagglehms.training.augmentations import (
    band_columns,
    band_pass,
    blank_rows,
    flip_rows,
    flip_sign,
    flip_time,
    folded,
    mask_frequency,
    mask_time,
    mix,
    mosaic,
    permute_rows,
    same_class_cutmix,
    same_class_partners,
    settling_s,
    smooth,
    unfold,
)
from kagglehms.training.losses import kl_loss

tiles = st.lists(st.integers(4, 40), min_size=1, max_size=3)
quick = settings(max_examples=30, deadline=None)


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


def test_a_class_of_one_pastes_nothing_over_the_band_of_another_class() -> None:
    targets = np.array([[0.5, 0.5, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    batch = numbered([7, 8], 300, targets)
    partners = torch.tensor([[1, 0]] + [[0, 1]] * 5)
    start, width = torch.full((6,), 20), torch.full((6,), 30)
    mixed = same_class_cutmix(batch.images_BCHW, batch.targets_BK, partners, start, width, SINGLE)
    assert mixed[0, 0, 0].tolist() == [7.0] * 20 + [8.0] * 30 + [7.0] * 250


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


def test_a_mosaic_of_too_few_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 columns, but got 3"):
        mosaic(torch.zeros(1, 1, 4, 3), torch.zeros(1, 6), torch.zeros(1, 4, dtype=torch.int64))


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


def test_rows_that_panels_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="41 rows cannot be shared by 4 panels"):
        mask_frequency(torch.zeros(1, 1, 41, 5), torch.zeros(1, 1).long(), torch.ones(1, 1).long())


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


@pytest.mark.parametrize("amount", [0.05, 0.4, 0.9])
def test_smoothing_never_makes_a_target_negative_or_turns_their_order(amount: float) -> None:
    """Rows of any targets, as pseudo labels make them: nearly uniform ones have less than the amount to give."""
    rng = np.random.default_rng(3)
    rows = [rng.dirichlet(np.full(6, spread)) for spread in (0.05, 0.5, 5, 500) for _ in range(50)]
    rows += [np.array([0.3, 0.3, 0.25, 0.15, 0, 0]), np.array([1.0, 0, 0, 0, 0, 0])]
    targets_BK = torch.tensor(np.array(rows), dtype=torch.float32)
    smoothed_BK = smooth(targets_BK, torch.ones(len(rows)), amount)
    torch.testing.assert_close(smoothed_BK.sum(dim=1), torch.ones(len(rows)))
    assert (smoothed_BK >= 0).all()
    capped = 0
    for before, after in zip(targets_BK.double().numpy(), smoothed_BK.double().numpy(), strict=True):
        order = np.argsort(before)
        assert (np.diff(after[order]) > -1e-6).all()
        top = before == before.max()
        taken = before[top].sum() - after[top].sum()
        if taken < amount - 1e-6:
            assert after[top].max() == pytest.approx(after[~top].max(), abs=1e-6)
            capped += 1
    assert 0 < capped < len(rows) or amount > 5 / 6
    logits_BK = torch.randn(len(rows), 6)
    assert torch.isfinite(kl_loss(logits_BK, smoothed_BK))


@pytest.mark.parametrize("amount", [0.05, 0.1, 0.27])
def test_smoothed_votes_of_before_are_the_same_to_the_last_bit(amount: float) -> None:
    votes = [v for v in itertools.product(range(4), repeat=6) if 1 <= sum(v) <= 3]
    targets_BK = torch.tensor([[x / sum(v) for x in v] for v in votes])
    top_BK = targets_BK == targets_BK.amax(dim=1, keepdim=True)
    n_top_B1 = top_BK.sum(dim=1, keepdim=True)
    wanted_BK = targets_BK + torch.where(top_BK, -amount / n_top_B1, amount / (6 - n_top_B1))
    assert torch.equal(smooth(targets_BK, torch.tensor([sum(v) for v in votes]), amount), wanted_BK)


# -- what depends on where the samples of a difference stand


def fold(signals_CT: np.ndarray, phases: int) -> np.ndarray:
    """Every sample put into its place, one by one."""
    n_signals, n_times = signals_CT.shape
    image = np.empty((1, n_signals * phases, n_times // phases), np.float32)
    for c in range(n_signals):
        for t in range(n_times):
            image[0, phases * c + t % phases, t // phases] = signals_CT[c, t]
    return image


@quick
@given(flips=st.lists(st.booleans(), min_size=1, max_size=4), phases=st.sampled_from([1, 2, 5]))
def test_folded_time_runs_backwards_sample_by_sample(flips: list[bool], phases: int) -> None:
    signals = np.random.default_rng(len(flips)).normal(size=(len(flips), 3, 30)).astype(np.float32)
    images = np.stack([fold(s, phases) for s in signals])
    expected = np.stack(
        [fold(s[:, ::-1] if flip else s, phases) for s, flip in zip(signals, flips, strict=True)]
    )
    found = flip_time(torch.from_numpy(images), torch.tensor(flips), [30 // phases], phases)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("phases", [1, 2, 5])
def test_what_is_unfolded_and_folded_is_the_same(phases: int) -> None:
    signals = np.random.default_rng(0).normal(size=(2, 3, 30)).astype(np.float32)
    images = torch.from_numpy(np.stack([fold(s, phases) for s in signals]))
    np.testing.assert_array_equal(unfold(images, phases), signals)
    assert torch.equal(folded(torch.from_numpy(signals), phases, images), images)
    plain = torch.from_numpy(signals)
    assert torch.equal(folded(unfold(plain, 1), 1, plain), plain)


@pytest.mark.parametrize(("sfreq_hz", "n_times"), [(200, 10_000), (100, 5_000), (200, 300)])
def test_each_record_passes_a_filter_of_its_own(sfreq_hz: float, n_times: int) -> None:
    """Against SciPy's recursion, from rest, in float64."""
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(4, 2, n_times)) + rng.normal(size=(4, 2, 1)) * 3
    low, high = np.array([0.5, 1.0, 2.0, 0.7]), np.array([20.0, 10.0, 12.5, 19.0])
    found = band_pass(
        torch.from_numpy(signals).float(), torch.from_numpy(low), torch.from_numpy(high), sfreq_hz, 4 / 0.5
    )
    assert found.dtype == torch.float32
    for i in range(4):
        sections = butter(2, (low[i], high[i]), "bandpass", fs=sfreq_hz, output="sos")
        np.testing.assert_allclose(found[i], sosfilt(sections, signals[i]), atol=2e-5)


@pytest.mark.parametrize("sfreq_hz", [50.0, 200.0])
@pytest.mark.parametrize("low_hz", [0.01, 0.1, 0.5, 2.0, 8.0, 20.0])
@pytest.mark.parametrize("width", [0.05, 0.3, 1.0, 4.0, 4.9, 11.0, 24.9 - 0.01])
def test_no_response_is_cut_off_before_it_has_decayed(low_hz: float, width: float, sfreq_hz: float) -> None:
    """By the slowest pole of SciPy's design, for bands of any width and bands next to half of the rate."""
    high_hz = low_hz + width
    if high_hz >= sfreq_hz / 2:
        return
    _, poles, _ = butter(2, (low_hz, high_hz), "bandpass", fs=sfreq_hz, output="zpk")
    rest_s = settling_s((low_hz, low_hz), (high_hz, high_hz), sfreq_hz)
    assert np.abs(poles).max() ** (rest_s * sfreq_hz) < 1e-6


def test_filters_of_the_recipes_rest_as_long_as_they_always_did() -> None:
    """Runs of before stay the same to the last bit; a band without width needs no endless memory."""
    for sfreq_hz in (50.0, 100.0, 200.0):
        assert settling_s((0.5, 2.0), (10.0, 20.0), sfreq_hz) == 8.0
    assert settling_s((5.0, 5.0), (5.0 + 1e-9, 6.0), 200.0) == 400.0


@pytest.mark.parametrize("shape", [(3, 1, 6, 7), (3, 6, 7)])
def test_rows_are_blanked_and_change_places_where_it_is_said(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=shape).astype(np.float32)
    blank, source = rng.random((3, 6)) < 0.4, np.stack([rng.permutation(6) for _ in range(3)])
    blanked = blank_rows(torch.from_numpy(inputs), torch.from_numpy(blank))
    moved = permute_rows(torch.from_numpy(inputs), torch.from_numpy(source))
    for b in range(3):
        for h in range(6):
            assert (blanked[b, ..., h, :].numpy() == (0 if blank[b, h] else inputs[b, ..., h, :])).all()
            np.testing.assert_array_equal(moved[b, ..., h, :], inputs[b, ..., source[b, h], :])
