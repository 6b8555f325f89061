"""One reading of whole numbers, however a table spells them: ids and votes, in training and in scoring.

Only the standard library, since the first thing that a scored run does needs it.
"""

from __future__ import annotations

import re
from decimal import Decimal

BLANKS = " \t\r\n\0\x1a\ufeff"
"""What counts as nothing at the ends of a cell: blanks, the Ctrl-Z that ends a DOS file, a byte order mark."""

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,9})?")
_LEAST, _MOST = -(2**63), 2**63 - 1


def whole_number(text: str) -> int | None:
    """Read a whole number of at most 64 bits; None where there is none.

    `853520`, ` 853520 `, `853520.0` (what pandas makes of a column with a gap) and `8.5352e5` are one number. `1.5`,
    `1_000` and what does not fit into 64 bits are none.
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
