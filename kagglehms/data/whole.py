"""Read whole numbers such as ids and votes, however a table spells them, in training and in scored runs.

Only the standard library is imported, since this is needed at the very start of a scored run.
"""

from __future__ import annotations

import re
from decimal import Decimal

BLANKS = " \t\r\n\0\x1a\ufeff"
"""Characters that are stripped from a cell: blanks, the Ctrl-Z that ends a DOS file, a byte order mark."""

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,9})?")
_LEAST, _MOST = -(2**63), 2**63 - 1


def whole_number(text: str) -> int | None:
    """Read a whole number of at most 64 bits.

    `853520`, ` 853520 `, `853520.0` (written by pandas if a column has gaps) and `8.5352e5` are the same number.

    Returns:
        The number, or None for anything else, such as `1.5`, `1_000`, or a number that needs more than 64 bits.
    """
    text = text.strip(BLANKS)
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if not number:
        return 0
    if number.adjusted() > 19 or number != number.to_integral_value():
        return None
    value = int(number)
    return value if _LEAST <= value <= _MOST else None
