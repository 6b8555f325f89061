"""Whole numbers, however they are spelled; the oracle is exact arithmetic with fractions."""

from __future__ import annotations

from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagglehms.data.tables import read_table
from kagglehms.data.whole import whole_number

SPELLINGS = {
    "853520": 853520,
    " 853520 ": 853520,
    "853520.0": 853520,
    "853520.": 853520,
    "853520.000": 853520,
    "8.5352e5": 853520,
    "8.5352E+05": 853520,
    "8535200e-1": 853520,
    "+7": 7,
    "-7": -7,
    "-0.0": 0,
    "0e999999999": 0,
    "007": 7,
    "7\x1a": 7,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "9223372036854775807.0": 2**63 - 1,
    "9223372036854775808": None,
    "99999999999999999999": None,
    "1e999999999": None,
    "1e-999999999": None,
    "853520.5": None,
    "1_000": None,
    "1,000": None,
    "0x10": None,
    "٣": None,
    "nan": None,
    "inf": None,
    "x7": None,
    "1 2": None,
    "--1": None,
    ".5": None,
    "": None,
    "\x1a": None,
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(text: str) -> None:
    assert whole_number(text) == SPELLINGS[text]


@given(st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{0,4})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
def test_what_is_whole_and_of_64_bits_is_read_exactly(text: str) -> None:
    exact = Fraction(text.replace(".e", "e").replace(".E", "E").rstrip("."))
    whole = exact.denominator == 1 and -(2**63) <= exact < 2**63
    assert whole_number(text) == (int(exact) if whole else None)


@given(st.lists(st.sampled_from([text for text in SPELLINGS if "\x1a" not in text]), min_size=1))
def test_a_column_is_read_by_the_same_rule(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """Row by row: what cannot be read is refused and named, else the numbers are the same."""
    from kagglehms.errors import DataError

    path = tmp_path_factory.mktemp("table") / "t.csv"
    pl.DataFrame({"id": texts, "more": ["x"] * len(texts)}).write_csv(path)
    bad = [i for i, text in enumerate(texts) if SPELLINGS[text] is None]
    if not bad:
        table = read_table(path, {"id": "whole"})
        assert table["id"].to_list() == [SPELLINGS[text] for text in texts]
        return
    with pytest.raises(DataError, match=rf"in rows? {bad[0]}\b"):
        read_table(path, {"id": "whole"})
