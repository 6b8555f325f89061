"""Every vector operation against NumPy, one small function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.features import simd, simd_ir

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="vectors exist in compiled code only")

A = np.array([1.5, -2, 0, np.inf, np.nan, 3e38, -1e-40, 7], np.float32)
B = np.array([1.0, 5, -0.0, 2, 3, 3e38, 4, np.nan], np.float32)
C = np.array([0.5, 1, 2, 3, 4, 5, -np.inf, 7], np.float32)


def run(body: Callable[..., Any], *arrays: NDArray[Any], size: int = 8) -> NDArray[np.float32]:
    """Call the compiled `body(out, *arrays)`."""
    out = np.full(size, 99, np.float32)
    numba.njit(body)(out, *arrays)
    return out


def test_arithmetic_is_ieee() -> None:
    def body(out: Any, a: Any, b: Any, c: Any) -> None:
        x, y, z = simd.load8(a, 0), simd.load8(b, 0), simd.load8(c, 0)
        for i, value in enumerate(
            (simd.add(x, y), simd.sub(x, y), simd.mul(x, y), simd.div(x, z), simd.fma(x, y, z))
        ):
            simd.store(out, i * 8, value)

    with np.errstate(all="ignore"):
        out = run(body, A, B, C, size=40).reshape(5, 8)
        np.testing.assert_array_equal(out[:4], [A + B, A - B, A * B, A / C])
        np.testing.assert_allclose(out[4], A * B + C, rtol=1e-6)


def test_lower_and_upper_take_the_second_where_either_is_missing() -> None:
    def body(out: Any, a: Any, b: Any) -> None:
        simd.store(out, 0, simd.lower(simd.load8(a, 0), simd.load8(b, 0)))
        simd.store(out, 8, simd.upper(simd.load8(a, 0), simd.load8(b, 0)))

    out = run(body, A, B, size=16)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out[:8], np.where(A < B, A, B))
        np.testing.assert_array_equal(out[8:], np.where(A > B, A, B))


def test_choices_by_finiteness() -> None:
    def body(out: Any, a: Any, b: Any, c: Any) -> None:
        x = simd.load8(a, 0)
        simd.store(out, 0, simd.where_finite(x, simd.load8(b, 0), simd.load8(c, 0)))
        out[8] = simd.all_finite(x)
        out[9] = simd.all_finite(simd.splat8(3.0))

    out = run(body, A, B, C, size=10)
    np.testing.assert_array_equal(out[:8], np.where(np.isfinite(A), B, C))
    assert out[8:].tolist() == [0, 1]


@pytest.mark.parametrize("lanes", [8, 16, 32])
def test_load_splat_and_store_at_any_place(lanes: int) -> None:
    load, splat = getattr(simd, f"load{lanes}"), getattr(simd, f"splat{lanes}")

    def body(out: Any, a: Any) -> None:
        simd.store(out, 3, simd.add(load(a, 5), splat(0.5)))

    source = np.arange(64, dtype=np.float32)
    out = run(body, source, size=64)
    np.testing.assert_array_equal(out[3 : 3 + lanes], source[5 : 5 + lanes] + 0.5)
    assert (out[:3] == 99).all()
    assert (out[3 + lanes :] == 99).all()


def test_broadcast() -> None:
    def body(out: Any, a: Any) -> None:
        simd.store(out, 0, simd.broadcast16(a, 3))

    np.testing.assert_array_equal(run(body, A, size=16), np.float32(np.inf))


@pytest.mark.parametrize("by_instruction", [True, False])
def test_every_half(by_instruction: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the processor has no instruction that widens halves."""
    if not by_instruction:
        monkeypatch.setattr(simd_ir, "_has_halves", lambda context: False)

    def body(out: Any, a: Any) -> None:
        for i in range(0, 65536, 16):
            simd.store(out, i, simd.load16(a, i))

    bits = np.arange(65536, dtype=np.uint16)
    wanted = bits.view(np.float16).astype(np.float32)
    out = run(body, bits, size=65536)
    np.testing.assert_array_equal(out, np.where(np.isfinite(wanted), wanted, np.nan))
    np.testing.assert_array_equal(np.signbit(out[0x8000:0xFC00]), True)


def test_permutation() -> None:
    pick = simd.permutation([0, 15, 3, 3, 8, 1, 9, 2])

    def body(out: Any, a: Any, b: Any) -> None:
        simd.store(out, 0, pick(simd.load8(a, 0), simd.load8(b, 0)))

    one, other = np.arange(8, dtype=np.float32), np.arange(8, 16, dtype=np.float32)
    np.testing.assert_array_equal(run(body, one, other), [0, 15, 3, 3, 8, 1, 9, 2])


@pytest.mark.parametrize("lanes", [8, 16])
def test_rows_are_loaded_transposed_and_stored_with_steps(lanes: int) -> None:
    load_rows = getattr(simd, f"load_rows{lanes}")

    def body(out: Any, a: Any) -> None:
        simd.store_rows(out, 1, lanes + 1, simd.transpose(load_rows(a, 2, lanes + 3)))

    source = np.arange(lanes * (lanes + 3) + 2, dtype=np.float32)
    rows = source[2:].reshape(lanes, lanes + 3)[:, :lanes]
    out = run(body, source, size=1 + lanes * (lanes + 1))
    np.testing.assert_array_equal(out[1:].reshape(lanes, lanes + 1)[:, :lanes], rows.T)
    assert (out[0], *out[1:].reshape(lanes, -1)[:, lanes]) == (99,) * (lanes + 1)


def test_rows_of_halves_stored_backwards() -> None:
    def body(out: Any, a: Any) -> None:
        simd.store_rows(out, 56, -8, simd.load_rows8(a, 0, 8))

    halves = np.arange(64, dtype=np.float16)
    halves[9] = np.inf
    wanted = np.where(np.isfinite(halves), halves, np.nan).astype(np.float32).reshape(8, 8)[::-1]
    np.testing.assert_array_equal(run(body, halves.view(np.uint16), size=64), wanted.reshape(-1))


def test_multiply_and_add_each_of_a_tuple() -> None:
    def body(out: Any, table: Any, x: Any, a: Any) -> None:
        sums = (simd.load8(a, 0), simd.load8(a, 8), simd.load8(a, 16))
        simd.store_rows(out, 0, 8, simd.fma_each(table, 2, simd.load8(x, 0), sums))

    rng = np.random.default_rng(0)
    table, x, a = rng.integers(-9, 9, 5), rng.integers(-9, 9, 8), rng.integers(-9, 9, (3, 8))
    out = run(body, *(v.astype(np.float32).reshape(-1) for v in (table, x, a)), size=24)
    np.testing.assert_array_equal(out.reshape(3, 8), a + table[2:5, None] * x)


def test_last_lanes() -> None:
    def body(out: Any, a: Any, b: Any) -> None:
        for count in range(9):
            simd.store(out, count * 8, simd.last_lanes(simd.load8(a, 0), count, simd.load8(b, 0)))

    one, other = np.arange(8, dtype=np.float32), np.arange(10, 18, dtype=np.float32)
    for count, row in enumerate(run(body, one, other, size=72).reshape(9, 8)):
        np.testing.assert_array_equal(row, np.where(np.arange(8) >= 8 - count, one, other))


def test_float64_lanes() -> None:
    def body(out: Any, a: Any) -> None:
        x = simd.load8(a, 0)
        out[0] = simd.lane_sum(x)
        out[1] = simd.lane_sum(simd.widen(x))
        simd.store(out, 2, simd.narrow(simd.mul(simd.widen(x), simd.widen(x))))

    values = np.array([1e8, 1, -1e8, 1, 3, 4, 5, 6], np.float32)
    out = run(body, values, size=10)
    assert out[1] == 20
    assert abs(out[0] - 20) < 20  # the same in float32 may lose the small ones
    np.testing.assert_array_equal(out[2:], (values.astype(np.float64) ** 2).astype(np.float32))


def test_exponent_and_mantissa() -> None:
    def body(out: Any, a: Any) -> None:
        simd.store(out, 0, simd.exponent(simd.load8(a, 0)))
        simd.store(out, 8, simd.mantissa(simd.load8(a, 0)))

    values = np.array([1, 1.4, 1.5, 0.7, 0.72, 1e-37, 3e38, 1024], np.float32)
    out = run(body, values, size=16)
    np.testing.assert_array_equal(out[8:] * 2.0 ** (out[:8].astype(np.float64) / 2**23), values)
    assert (out[8:] >= np.float32(0.7071)).all()
    assert (out[8:] < np.float32(1.4143)).all()


def test_vectors_of_different_kinds_do_not_mix() -> None:
    def body(out: Any, a: Any) -> None:
        simd.store(out, 0, simd.add(simd.load8(a, 0), simd.load16(a, 0)))

    with pytest.raises(numba.core.errors.TypingError):
        run(body, np.zeros(16, np.float32))
