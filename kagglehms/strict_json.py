"""JSON that others may have written or damaged: read strictly, with the reason in one line where it is refused.

The standard library reads more than JSON allows, and Pydantic more than this project writes: NaN and infinities, two
values under one key, half a surrogate pair. Each of them would surface later and elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from kagglehms.errors import HMSError, first_line

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MAX_DEPTH = 64
"""The deepest nesting that is accepted; no file of this project is nested more than ten levels deep."""


_SEAL = "sha256"
"""Key of the checksum of all other values of an object."""


class JSONError(ValueError):
    """JSON that is refused; `str(error)` is the reason, one line without the name of the file."""


def parse(content: bytes | str) -> Any:
    """Parse JSON strictly.

    Args:
        content: UTF-8 without a byte order mark, or text.

    Returns:
        Dictionaries, lists, texts, finite numbers, booleans and None.

    Raises:
        JSONError: not UTF-8, not JSON, NaN or an infinity, the same key twice in an object, nesting deeper than
            `MAX_DEPTH`, or a text with half a surrogate pair.
    """
    return _checked(_DECODER.decode, content)


def parse_beginning(content: bytes | str) -> Any:
    """Parse the JSON that stands at the beginning of a text, strictly; whatever follows it is ignored.

    Raises:
        JSONError: as `parse`.
    """
    return _checked(lambda text: _DECODER.raw_decode(text)[0], content)


def _checked(decode: Callable[[str], Any], content: bytes | str) -> Any:
    try:
        text = content.decode() if isinstance(content, bytes) else content
        value = decode(text)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as error:
        raise JSONError(f"is not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise JSONError(f"is not JSON ({error})") from error
    except JSONError:
        raise
    except ValueError as error:  # a whole number of more digits than Python converts
        raise JSONError(first_line(error)) from error
    _refuse_depth(value)
    if "\\u" in text or not text.isascii():
        _refuse_surrogates(value)
    return value


def parse_object(content: bytes | str) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Raises:
        JSONError: as `parse`, or another value than an object.
    """
    value = parse(content)
    if not isinstance(value, dict):
        raise JSONError("is not a JSON object")
    return value


def validate(adapter: TypeAdapter[T], content: bytes) -> T:
    """Parse JSON strictly and make what `adapter` describes.

    Raises:
        JSONError: as `parse`, or values that the adapter or the classes it makes refuse.
    """
    from pydantic import ValidationError

    parse(content)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        raise JSONError(first_problem(error)) from error
    except HMSError as error:
        raise JSONError(str(error)) from error


def sealed(content: dict[str, Any], **layout: Any) -> bytes:
    """Return JSON of an object with a checksum of all its values; `unchanged` refuses it once one of them is another.

    Args:
        content: the object, of which keys and values are JSON's own.
        layout: arguments of `json.dumps`.
    """
    return json.dumps({**content, _SEAL: _checksum(content)}, ensure_ascii=False, **layout).encode()


def unchanged(content: bytes) -> bytes:
    """Return JSON as it is, unless it has a checksum that its values do not have.

    Raises:
        JSONError: as `parse_object`, or the values were changed after they had been sealed.
    """
    _unsealed(content)
    return content


def opened(content: bytes) -> bytes:
    """Return JSON without its checksum, after a look at it.

    Raises:
        JSONError: as `unchanged`.
    """
    return json.dumps(_unsealed(content), ensure_ascii=False).encode()


def _unsealed(content: bytes) -> dict[str, Any]:
    found = parse_object(content)
    if _SEAL in found and found.pop(_SEAL) != _checksum(found):  # files of older versions have none
        raise JSONError(f"was changed after it was written: it is not what its {_SEAL} says")
    return found


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_problem(error: ValidationError) -> str:
    """Return the first problem that Pydantic found as one line: where, what, and the value if it is short."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    given = problem["input"]
    scalar = given is None or isinstance(given, bool | int | float | str)
    value = f", but got {given!r:.80}" if scalar and problem["type"] != "missing" else ""
    return (f"{where}: " if where else "") + problem["msg"] + value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise JSONError(f"has the key {twice!r} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JSONError(f"has {text:.40}, which no floating-point number can hold")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise JSONError(f"has {name}, which JSON does not know")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse_constant)


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return
        level = list(chain.from_iterable(c.values() if isinstance(c, dict) else c for c in level))
    raise _too_deep()


def _refuse_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise JSONError(f"has the text {value!r:.60}, which begins or ends in the middle of a character")
    elif isinstance(value, dict | list):
        for item in chain(value, value.values()) if isinstance(value, dict) else value:
            _refuse_surrogates(item)


def _too_deep() -> JSONError:
    return JSONError(f"is nested more than {MAX_DEPTH} levels deep")
