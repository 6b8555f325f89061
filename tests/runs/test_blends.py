"""Blends: the formula against NumPy written out, strict JSON, what is left when members are missing, the ladder."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kagglehms.errors import DataError, UsageError
from kagglehms.runs.blends import (
    Blend,
    Fitting,
    blend_from_json,
)
from kagglehms.runs.prior_correction import PriorCorrection

EVEN = (1 / 6,) * 6
RARE = (0.05, 0.15, 0.1, 0.1, 0.1, 0.5)
COMMON = (0.2, 0.15, 0.1, 0.1, 0.1, 0.35)
FULL = Blend(
    "pair",
    ("a", "b", "c"),
    (0.25, 0.75, 0.0),
    "logit",
    temperature=0.9,
    biases=(0.1, -0.2, 0.3, 0.0, -0.1, -0.1),
    fitting=Fitting("logit", biases=True, shrinkage=0.03),
    n_rows=100,
    scores={"nested": 0.25, "in_sample": 0.125},
)


CORRECTED = replace(
    FULL,
    fitting=Fitting("logit", biases=True, shrinkage=0.03, population="many", prior_exponent="fit"),
    prior=PriorCorrection("many", RARE, (COMMON, RARE, EVEN), 0.9),
)


def probabilities(n: int = 7, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.full(6, 0.7), n)


def predictions() -> dict[str, NDArray[np.float64]]:
    return {name: probabilities(seed=seed) for seed, name in enumerate("abc")}


def test_probabilities_are_averaged() -> None:
    given = predictions()
    blend = Blend("mix", ("a", "b", "c"), (0.2, 0.3, 0.5))
    expected = 0.2 * given["a"] + 0.3 * given["b"] + 0.5 * given["c"]
    np.testing.assert_allclose(blend.apply(given), expected, rtol=1e-12)


def test_temperature_and_biases_of_a_mixture() -> None:
    given = predictions()
    blend = replace(FULL, space="probability")
    mixture = 0.25 * given["a"] + 0.75 * given["b"]
    powers = mixture ** (1 / 0.9) * np.exp(FULL.biases)
    np.testing.assert_allclose(blend.apply(given), powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


def test_logits_are_averaged() -> None:
    given = predictions()
    powers = (given["a"] ** 0.25 * given["b"] ** 0.75) ** (1 / 0.9) * np.exp(FULL.biases)
    np.testing.assert_allclose(FULL.apply(given), powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("space", ["probability", "logit"])
def test_members_are_corrected_for_their_priors_before_they_are_pooled(space: str) -> None:
    given = predictions()
    moved = {}
    for name, trained in (("a", COMMON), ("b", RARE)):
        powers = given[name] * (np.array(RARE) / np.array(trained)) ** 0.9
        moved[name] = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(moved["b"], given["b"], rtol=1e-12)
    blend = replace(CORRECTED, space=space)
    expected = replace(blend, prior=None).apply(moved)
    np.testing.assert_allclose(blend.apply(given), expected, rtol=1e-12)
    assert np.abs(expected - replace(blend, prior=None).apply(given)).max() > 0.01


def test_worked_by_hand() -> None:
    # In logits √(0.8·0.2) : √(0.2·0.2) = 2 : 1.
    a, b = [[0.8, 0.2, 0, 0, 0, 0]], [[0.2, 0.2, 0.6, 0, 0, 0]]
    geometric = Blend("g", ("a", "b"), (0.5, 0.5), "logit").apply({"a": a, "b": b})
    assert geometric[0, 0] / geometric[0, 1] == pytest.approx(2)
    assert geometric[0, 2] < 1e-6
    arithmetic = Blend("m", ("a", "b"), (0.5, 0.5)).apply({"a": a, "b": b})
    np.testing.assert_allclose(arithmetic, [[0.5, 0.2, 0.3, 0, 0, 0]], atol=1e-14)
    squared = Blend("t", ("a",), (1.0,), temperature=0.5).apply({"a": a})
    np.testing.assert_allclose(squared, [[16 / 17, 1 / 17, 0, 0, 0, 0]], atol=1e-14)


@pytest.mark.parametrize("space", ["probability", "logit"])
def test_certainties_do_not_break_it(space: str) -> None:
    sure, other = np.eye(6), np.roll(np.eye(6), 1, axis=1)
    blended = replace(FULL, space=space).apply({"a": sure.astype(np.float32), "b": other})
    assert np.isfinite(blended).all()
    np.testing.assert_allclose(blended.sum(axis=1), 1, rtol=1e-12)
    assert blended.dtype == np.float64


def test_members_without_weight_need_not_be_there() -> None:
    given = predictions()
    assert FULL.active == ("a", "b")
    np.testing.assert_array_equal(FULL.apply({"b": given["b"], "a": given["a"]}), FULL.apply(given))


def test_what_is_left_when_members_are_missing() -> None:
    blend = Blend("three", ("a", "b", "c"), (0.2, 0.6, 0.2), "logit", temperature=0.9)
    left = blend.only(["c", "b", "elsewhere"])
    assert (left.members, left.space, left.temperature, left.biases) == (("b", "c"), "logit", 1.0, None)
    assert left.weights == pytest.approx((0.75, 0.25))
    assert blend.only(["c", "b", "a"]) is blend
    assert FULL.only(["a", "b"]) is FULL, "a member that has no say is not missed"
    assert FULL.only(["c"]).weights == (1.0,)
    alone = CORRECTED.only(["b"])
    assert (alone.temperature, alone.biases) == (1.0, None)
    assert alone.prior == PriorCorrection("many", RARE, (RARE,), 0.9), "each member has a prior of its own"
    assert CORRECTED.only(["c", "b", "a"]) is CORRECTED
    with pytest.raises(UsageError, match=r"blend pair has none of the members x"):
        FULL.only(["x"])
    with pytest.raises(UsageError, match=r"none of the members \(none\)"):
        FULL.only([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "blend pair needs predictions of b"),
        ({"b": probabilities(6)}, r"b: predictions must be \(7, 6\), but are \(6, 6\)"),
        ({"a": probabilities()[0]}, r"a: predictions must be .* but are \(6,\)"),
        ({"b": probabilities() * 2}, "b: row 0 of the predictions sums to 2"),
        (
            {"b": probabilities() * np.nan},
            "b: row 0 of the predictions has a value that is negative or not fin",
        ),
    ],
)
def test_unusable_predictions_are_refused(
    change: dict[str, NDArray[np.float64] | None], message: str
) -> None:
    given = {name: array for name, array in (predictions() | change).items() if array is not None}
    with pytest.raises(UsageError, match=message):
        FULL.apply(given)


def test_json_and_back() -> None:
    for blend in (FULL, CORRECTED, Blend("plain", ("a",), (1.0,))):
        assert blend_from_json(blend.to_json()) == blend
        assert blend_from_json(blend.to_json()).to_json() == blend.to_json()


def unsealed(blend: Blend) -> dict[str, Any]:
    """What a blend's file says, without the checksum that only its own bytes have."""
    content: dict[str, Any] = json.loads(blend.to_json())
    del content["sha256"]
    return content


def test_a_blend_that_was_changed_after_it_was_written_is_refused() -> None:
    content = json.loads(FULL.to_json())
    content["weights"] = content["weights"][::-1]
    with pytest.raises(DataError, match="changed after it was written"):
        blend_from_json(json.dumps(content).encode())


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_blend_gives_another_blend(at: int, bit: int) -> None:
    content = bytearray(FULL.to_json())
    content[at % len(content)] ^= 1 << bit
    try:
        found = blend_from_json(bytes(content))
    except DataError:
        return
    assert found == FULL


def test_a_blend_of_before_there_were_prior_corrections_is_read() -> None:
    content = unsealed(FULL)
    del content["prior"], content["fitting"]["population"], content["fitting"]["prior_exponent"]
    assert blend_from_json(json.dumps(content).encode()) == FULL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1}, "weight: Unexpected"),
        ({"temperature": "0.9"}, "temperature: Input should be a valid number"),
        ({"space": "log"}, "space: Input should be 'probability' or 'logit'"),
        ({"biases": [0.0] * 5}, "biases"),
        ({"weights": [0.5, 0.6, 0.0]}, "weights must be ≥ 0 and sum to 1"),
        ({"fitting": {"lambda": 1}}, "fitting.lambda: Unexpected"),
        ({"fitting": {"shrinkage": -1.0}}, "shrinkage must be a number ≥ 0"),
        ({"fitting": {"prior_exponent": 3.0}}, "prior_exponent must be a number from 0 to 2, or fit"),
        ({"fitting": {"population": "few"}}, "fitting.population: Input should be 'all' or 'many'"),
        ({"prior": {"target": EVEN, "trained": [EVEN] * 3}}, "prior.population: Field required"),
        (
            {"prior": {"population": "many", "target": EVEN, "trained": [EVEN] * 3, "x": 1}},
            "prior.x: Unexpected",
        ),
        (
            {"prior": {"population": "many", "target": EVEN, "trained": [EVEN] * 2}},
            "3 members, but .* is of 2",
        ),
        (
            {
                "prior": {
                    "population": "many",
                    "target": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                    "trained": [EVEN] * 3,
                }
            },
            "six numbers above 0 of sum 1",
        ),
    ],
)
def test_json_that_is_no_blend_is_refused(change: dict[str, object], message: str) -> None:
    content = unsealed(FULL) | change
    with pytest.raises(DataError, match=message) as caught:
        blend_from_json(json.dumps(content).encode(), "x.blend.json")
    assert str(caught.value).startswith("x.blend.json: is no blend of this version")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"name": NaN}'])
def test_broken_json_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="is no blend"):
        blend_from_json(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": ("a", "a", "b")}, "members must be different names"),
        ({"members": (), "weights": ()}, "members must be different names"),
        ({"weights": (1.0,)}, "3 members, but 1 weights"),
        ({"weights": (-0.5, 1.5, 0.0)}, "weights must be ≥ 0"),
        ({"weights": (np.nan, 0.5, 0.5)}, "weights must be ≥ 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"biases": (0.0, np.inf, 0.0, 0.0, 0.0, 0.0)}, "six finite numbers"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(FULL, **change)
    with pytest.raises(FrozenInstanceError):
        FULL.name = "x"  # type: ignore[misc]


def test_nonsense_in_how_to_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="n_folds must be at least 2, but got 1"):
        Fitting(n_folds=1)
    with pytest.raises(UsageError, match="shrinkage must be a number ≥ 0, but got nan"):
        Fitting(shrinkage=float("nan"))
