"""Normalisation, percentiles and summaries against their float64 twins, on clean, broken and odd arrays."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import oracles_features as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.features import empty, normalise, normalise_rows, percentiles, summaries
from kagglehms.features.panels import PAST_CACHES_BYTES

SHAPES = [(4, 100, 300), (4, 10, 8), (4, 7, 9), (4, 1, 11), (4, 1, 1), (2, 4, 5, 13), (2, 3, 4, 9, 7)]
QUANTILES = (20, 40, 60, 80)
EXACT_NUMPY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)
"""Older releases round the percentiles' weights to float32 in between."""


def log_power(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Logarithms with the spread of real spectrograms."""
    return np.random.default_rng(seed).normal(1, 4, shape).astype(np.float32)


def with_holes(values: NDArray[Any], seed: int = 1) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    broken = values.copy()
    draw = rng.random(values.shape)
    broken[draw < 0.2] = np.nan
    broken[(draw > 0.2) & (draw < 0.23)] = np.inf
    broken[(draw > 0.23) & (draw < 0.26)] = -np.inf
    return broken


@pytest.mark.parametrize("over", ["image", "panel"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("holes", [False, True])
def test_normalise(shape: tuple[int, ...], over: Any, holes: bool) -> None:
    values = with_holes(log_power(shape)) if holes else log_power(shape)
    result = normalise(values, over=over)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, oracle.normalise(values, over=over), rtol=0, atol=1e-6)


@pytest.mark.parametrize("holes", [False, True])
def test_normalise_by_given_statistics(holes: bool) -> None:
    values = with_holes(log_power((3, 4, 20, 30))) if holes else log_power((3, 4, 20, 30))
    result = normalise(values, -0.08340271, 1.9072835)
    np.testing.assert_allclose(result, oracle.normalise(values, -0.08340271, 1.9072835), rtol=0, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 4.1, -3.3333333, 8.0, 1e-5, 6e4])
@pytest.mark.parametrize("over", ["image", "panel"])
def test_constant_becomes_zero(constant: float, over: Any) -> None:
    np.testing.assert_array_equal(normalise(np.full((4, 33, 77), constant, np.float32), over=over), 0)


def test_little_spread_on_a_large_offset_keeps_its_digits() -> None:
    """Also with a first block far from the rest, as a recording starts with nothing."""
    values = (5 + np.random.default_rng(0).normal(0, 1e-3, (4, 50, 70))).astype(np.float32)
    np.testing.assert_allclose(normalise(values), oracle.normalise(values), rtol=0, atol=5e-4)
    values[0, :2] = -4
    np.testing.assert_allclose(normalise(values), oracle.normalise(values), rtol=0, atol=2e-6)


def test_nothing_present_becomes_zero() -> None:
    nothing = np.full((4, 20, 20), np.nan, np.float32)
    for function in (normalise, percentiles, summaries):
        np.testing.assert_array_equal(function(nothing), 0)  # type: ignore[operator]


def test_one_panel_missing_leaves_the_others_as_they_are() -> None:
    values = log_power((4, 20, 30))
    values[2] = np.nan
    result = normalise(values, over="panel")
    np.testing.assert_array_equal(result[2], 0)
    np.testing.assert_array_equal(result[:2], normalise(log_power((4, 20, 30)), over="panel")[:2])


def test_in_place_gives_the_same() -> None:
    for over in ("image", "panel"):
        values = with_holes(log_power((4, 11, 23)))
        wanted = normalise(values, over=over)  # type: ignore[arg-type]
        np.testing.assert_array_equal(normalise(values, over=over, out=values), wanted)  # type: ignore[arg-type]
    values = log_power((4, 11, 23))
    wanted = normalise(values, 1.0, 2.0)
    np.testing.assert_array_equal(normalise(values, 1.0, 2.0, out=values), wanted)


def test_statistics_of_many_blocks_where_the_level_moves() -> None:
    """Each block lies far from the ones before it, and one of them has gaps."""
    levels = np.repeat(np.linspace(-3, 7, 40), 500).astype(np.float32).reshape(4, 50, 100)
    values = levels + np.random.default_rng(8).normal(0, 1e-2, levels.shape).astype(np.float32)
    values[2, 20:22] = np.nan
    for over in ("image", "panel"):
        np.testing.assert_allclose(
            normalise(values, over=over),  # type: ignore[arg-type]
            oracle.normalise(values, over=over),
            rtol=0,
            atol=1e-6,
        )


@pytest.mark.parametrize("over", ["image", "panel"])
def test_statistics_where_what_is_looked_at_first_is_unlike_the_rest(over: Any) -> None:
    """Sums are taken around the mean of eight short stretches; here each of these lies far from everything else."""
    values = np.random.default_rng(4).normal(-2, 0.3, (4, 100, 120)).astype(np.float32)
    for flat in values.reshape(1 if over == "image" else 4, -1):
        for k in range(8):
            at = (flat.size - 8) * k // 7
            flat[at : at + 8] = 7.5
    wanted = oracle.normalise(values, over=over)
    np.testing.assert_allclose(normalise(values, over=over), wanted, rtol=0, atol=4e-6)
    rows = np.ascontiguousarray(values.reshape(400, 120).T)
    rows[[0, -1]] = 7.5  # where the stretches of stored rows begin and end
    result = np.empty((4, 100, 120), np.float32)
    wanted = oracle.normalise(oracle.panels_of_rows(rows), over=over)
    np.testing.assert_allclose(normalise_rows(rows, result, over=over), wanted, rtol=0, atol=4e-6)


@pytest.mark.parametrize("over", ["image", "panel"])
@pytest.mark.parametrize("zeros", [slice(60, None), slice(None, None, 3)])
def test_equal_values_do_not_add_up_rounding_in_one_direction(over: Any, zeros: slice) -> None:
    """As where a filter left no power in the upper bins, or every third."""
    values = np.random.default_rng(5).normal(1, 2, (4, 100, 300)).astype(np.float32)
    values[:, zeros] = -4
    np.testing.assert_allclose(
        normalise(values, over=over), oracle.normalise(values, over=over), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("shape", [(4, 20, 60), (4, 1, 2)])
def test_what_overflows_leaves_nothing_but_numbers(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 3e38, np.float32)
    values[:, ::2] = -3e38
    assert np.isfinite(normalise(values)).all()
    np.testing.assert_array_equal(normalise(np.full(shape, 1e35, np.float32), 0.0, 0.0), 0)


# ---- stored rows


def log_rows(n_times: int, n_bins: int, dtype: Any, holes: bool) -> NDArray[Any]:
    rows = np.random.default_rng(3).normal(1, 2.2, (n_times, 4 * n_bins)).astype(dtype)
    if holes:
        rows = with_holes(rows)
        rows[n_times // 2 : n_times // 2 + 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ("n_times", "n_bins"), [(300, 100), (300, 99), (8, 8), (9, 1), (31, 7), (5, 100), (1, 1)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("over", ["image", "panel"])
@pytest.mark.parametrize("holes", [False, True])
def test_rows_become_normalised_panels(n_times: int, n_bins: int, dtype: Any, over: Any, holes: bool) -> None:
    rows = log_rows(n_times, n_bins, dtype, holes)
    wanted = oracle.normalise(oracle.panels_of_rows(rows), over=over)
    result = np.full((4, n_bins, n_times), 77, np.float32)
    assert normalise_rows(rows, result, over=over) is result
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-6)
    stacked = np.full((4 * n_bins, n_times), 77, np.float32)
    normalise_rows(rows, stacked, over=over)
    np.testing.assert_array_equal(stacked, result.reshape(stacked.shape))
    normalise_rows(rows, result, 0.5, 2.0)
    np.testing.assert_allclose(
        result, oracle.normalise(oracle.panels_of_rows(rows), 0.5, 2.0), rtol=0, atol=1e-6
    )


def test_a_panel_by_itself_does_not_depend_on_the_others() -> None:
    rows = log_rows(300, 100, np.float16, holes=False)
    other = rows + np.repeat(np.array([0, 3, -2, 5], np.float16), 100)
    results = np.empty((2, 4, 100, 300), np.float32)
    normalise_rows(rows, results[0], over="panel")
    normalise_rows(other, results[1], over="panel")
    np.testing.assert_array_equal(results[0, 0], results[1, 0])
    normalise_rows(np.roll(rows, 100, axis=1), results[1], over="panel")
    np.testing.assert_array_equal(results[0], np.roll(results[1], -1, axis=0))


def test_rows_of_a_read_only_memory_map(tmp_path: Path) -> None:
    rows = log_rows(900, 100, np.float16, holes=True)
    np.save(tmp_path / "rows.npy", rows)
    stored = np.load(tmp_path / "rows.npy", mmap_mode="r")
    results = np.empty((2, 4, 100, 300), np.float32)
    normalise_rows(stored[123:423], results[0])
    normalise_rows(rows[123:423].copy(), results[1])
    np.testing.assert_array_equal(results[0], results[1])


def test_every_half_is_read_as_numpy_reads_it() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(64, 1024)
    result = np.empty((1024, 64), np.float32)
    normalise_rows(halves, result, 0.0, 1.0 - 1e-6)
    wanted = halves.T.astype(np.float32)
    np.testing.assert_array_equal(result, np.where(np.isfinite(wanted), wanted, 0))


# ---- across the panels


def same_as_numpy(result: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    assert result.dtype == wanted.dtype == np.float32
    if EXACT_NUMPY:
        np.testing.assert_array_equal(result, wanted)
    else:
        np.testing.assert_allclose(result, wanted, rtol=0, atol=4e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_percentiles_are_numpys_bit_by_bit(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).normal(0, 3, shape).astype(np.float32)
    values[..., 0] = np.round(values[..., 0])  # ties
    result = percentiles(values)
    for at, q in enumerate(QUANTILES):
        same_as_numpy(result[..., at, :, :], np.percentile(values, q, axis=-3))


@pytest.mark.parametrize("shape", [(4, 20, 30), *SHAPES[1:]])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_percentiles_and_summaries_of_what_is_present(shape: tuple[int, ...], scale: float) -> None:
    values = with_holes(np.random.default_rng(2).normal(0, 3 * scale, shape).astype(np.float32))
    tolerance = {"rtol": 2e-6, "atol": 1e-6 * scale}
    np.testing.assert_allclose(percentiles(values), oracle.percentiles(values), **tolerance)
    np.testing.assert_allclose(summaries(values), oracle.summaries(values), **tolerance)


@pytest.mark.skipif(not EXACT_NUMPY, reason="this NumPy rounds the percentiles' weights otherwise")
def test_percentiles_with_missing_panels_are_numpys_nanpercentiles() -> None:
    values = with_holes(np.random.default_rng(2).normal(0, 3, (4, 20, 31)).astype(np.float32))
    values[0] = 1  # so that none is without any
    clean = np.where(np.isfinite(values), values, np.nan)
    result = percentiles(values)
    for at, q in enumerate(QUANTILES):
        np.testing.assert_array_equal(result[at], np.nanpercentile(clean, q, axis=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_summaries_are_numpys(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).normal(0, 3, shape).astype(np.float32)
    low, high, mean, extent = np.moveaxis(summaries(values), -3, 0)
    np.testing.assert_array_equal(low, values.min(axis=-3))
    np.testing.assert_array_equal(high, values.max(axis=-3))
    np.testing.assert_allclose(mean, values.mean(axis=-3), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(extent, np.ptp(values, axis=-3))


def test_half_precision_panels() -> None:
    values = with_holes(np.random.default_rng(2).normal(0, 3, (4, 20, 30)).astype(np.float16))
    wide = values.astype(np.float32)
    for function in (percentiles, summaries, normalise):
        np.testing.assert_array_equal(function(values), function(wide))  # type: ignore[operator]


panel_arrays = st.tuples(
    st.integers(1, 3), st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**31)
).map(
    lambda drawn: with_holes(
        np.random.default_rng(drawn[3]).normal(0, 2, (drawn[0], 4, drawn[1], drawn[2])).astype(np.float32),
        drawn[3],
    )
)


@settings(deadline=None, max_examples=60)
@given(panel_arrays, st.permutations(range(4)))
def test_order_of_panels_does_not_matter_across_them(values: NDArray[np.float32], order: list[int]) -> None:
    np.testing.assert_array_equal(percentiles(values), percentiles(values[:, order]))
    for one, other in zip(
        np.moveaxis(summaries(values), 1, 0), np.moveaxis(summaries(values[:, order]), 1, 0), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(panel_arrays)
def test_percentiles_rise_between_the_extremes_and_nothing_is_nan(values: NDArray[np.float32]) -> None:
    p, s = percentiles(values), summaries(values)
    assert np.isfinite(p).all()
    assert np.isfinite(s).all()
    slack = 1e-5
    assert (np.diff(p, axis=1) >= -slack).all()
    assert (p[:, 0] >= s[:, 0] - slack).all()
    assert (p[:, 3] <= s[:, 1] + slack).all()


@pytest.mark.parametrize("n_times", [400, 401])
@pytest.mark.parametrize("misplaced", [False, True])
def test_results_larger_than_the_caches(n_times: int, misplaced: bool) -> None:
    """They are written another way, where their place allows it."""
    values = np.random.default_rng(6).normal(0, 3, (14, 4, 100, n_times)).astype(np.float32)
    values[3, 1, 7, 11:50] = np.nan
    room = empty((values.size + 1,))
    out = room[misplaced:][: values.size].reshape(values.shape)
    assert out.nbytes >= PAST_CACHES_BYTES
    assert (out.ctypes.data % 32 != 0) == misplaced
    for function in (percentiles, summaries):
        out.fill(77)
        function(values, out=out)  # type: ignore[operator]
        one_by_one = np.stack([function(image) for image in values])  # type: ignore[operator]
        np.testing.assert_array_equal(out, one_by_one)


def test_new_arrays_begin_at_a_cache_line() -> None:
    for shape in [(1,), (3, 5), (4, 128, 256)]:
        array = empty(shape)
        assert array.shape == shape
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.ctypes.data % 64 == 0
    assert normalise(log_power((4, 9, 9))).ctypes.data % 64 == 0


# ---- threads, memory, refusals


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(threads: int) -> None:
    values = with_holes(log_power((5, 4, 20, 30)))
    for function in (normalise, percentiles, summaries):
        alone, shared = function(values), function(values, threads=threads)  # type: ignore[operator]
        np.testing.assert_array_equal(shared, alone)


def test_given_out_is_filled_and_nothing_is_allocated() -> None:
    values, out = log_power((2, 4, 100, 300)), np.empty((2, 4, 100, 300), np.float32)
    rows, panels = log_rows(300, 100, np.float16, holes=True), np.empty((400, 300), np.float32)
    calls = [
        lambda: normalise(values, out=out),
        lambda: percentiles(values, out=out),
        lambda: summaries(values, out=out),
        lambda: normalise_rows(rows, panels),
    ]
    for call in calls:
        call()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000, peak


def test_empty_batch() -> None:
    assert percentiles(np.empty((0, 4, 5, 6), np.float32)).shape == (0, 4, 5, 6)


F32 = np.zeros((4, 10, 20), np.float32)
ROWS = np.zeros((20, 40), np.float16)
REFUSED = {
    "rank": (lambda: percentiles(F32[0]), "panels: expected (…, 4, F, T), got float32 of shape (10, 20)"),
    "panels": (lambda: summaries(np.zeros((3, 10, 20), np.float32)), "got float32 of shape (3, 10, 20)"),
    "empty panel": (lambda: summaries(np.zeros((4, 0, 20), np.float32)), "got float32 of shape (4, 0, 20)"),
    "dtype": (lambda: normalise(F32.astype(np.float64)), "float32 or float16, got float64 of shape (4, 10, 20)"),
    "big-endian": (lambda: normalise(F32.astype(">f4")), "float32 or float16"),
    "no array": (lambda: normalise([1.0]), "got list"),  # type: ignore[arg-type]
    "out shape": (lambda: normalise(F32, out=F32[:, :5].copy()), "out: expected float32 of shape (4, 10, 20)"),
    "out dtype": (lambda: normalise(F32, out=np.empty((4, 10, 20))), "got float64"),  # type: ignore[arg-type]
    "out type": (lambda: normalise(F32, out="x"), "got str"),  # type: ignore[arg-type]
    "out strided": (lambda: normalise(F32, out=np.empty((4, 10, 40), np.float32)[..., ::2]), "not C-contiguous"),
    "out read-only": (lambda: normalise(F32, out=np.broadcast_to(np.float32(0), F32.shape)), "not writable"),
    "out overlaps": (lambda: percentiles(F32, out=F32), "apart from panels"),
    "mean only": (lambda: normalise(F32, mean=1.0), "mean and std: expected both or neither"),
    "std negative": (lambda: normalise(F32, 0.0, -1.0), "std ≥ 0"),
    "mean nan": (lambda: normalise(F32, float("nan"), 1.0), "finite"),
    "over": (lambda: normalise(F32, over="row"), "over: expected 'image' or 'panel', got 'row'"),  # type: ignore[arg-type]
    "threads": (lambda: percentiles(F32, threads=0), "threads: expected 1 or more, got 0"),
    "rows rank": (lambda: normalise_rows(F32, F32), "log_rows: expected (T, 4·F)"),
    "rows columns": (lambda: normalise_rows(np.zeros((20, 41), np.float16), F32), "log_rows: expected (T, 4·F)"),
    "rows out": (lambda: normalise_rows(ROWS, F32[0].copy()), "out: expected float32 of shape (40, 20)"),
    "rows out panels": (lambda: normalise_rows(ROWS, np.empty((4, 10, 21), np.float32)), "shape (4, 10, 20)"),
    "rows out strided": (lambda: normalise_rows(ROWS, np.empty((20, 40), np.float32).T), "not C-contiguous"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strided_input_is_taken_as_it_is_meant() -> None:
    values = log_power((4, 20, 60))
    np.testing.assert_array_equal(normalise(values[..., ::2]), normalise(values[..., ::2].copy()))
    rows = log_rows(40, 10, np.float32, holes=False)
    out, wanted = np.empty((2, 4, 10, 20), np.float32)
    np.testing.assert_array_equal(normalise_rows(rows[::2], out), normalise_rows(rows[::2].copy(), wanted))
