"""Damage to files: bits of any file, and the structure of JSON, CSV, Parquet, EDF and safetensors.

Every function takes a random generator and the file's bytes, and returns others. None uses the package's own readers
or writers.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Rng, bytes], bytes]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3.5, -0.0, 1e308, 2**63, -(2**63) - 1, 10**400, "", "NaN", "\u202e\x1b[31m", "é" * 300,
    "../x", [], {}, [[]], [None], {"": 0}, "0", "a" * 64, float("nan"), float("inf"),
)  # fmt: skip
"""Values that stand where others belong."""


def flip(rng: Rng, content: bytes) -> bytes:
    """One bit."""
    if not content:
        return b"\x01"
    at = int(rng.integers(len(content)))
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def maul(rng: Rng, content: bytes) -> bytes:
    """A file cut short, longer than it was, empty, or with a block of zeros, of noise or of another part of itself."""
    size = len(content)
    at, length = int(rng.integers(size + 1)), int(rng.integers(1, 4097))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: content[:at],
        lambda: content + rng.bytes(length),
        lambda: b"",
        lambda: content[:at] + bytes(min(length, size - at)) + content[at + length :],
        lambda: content[:at] + rng.bytes(min(length, size - at)) + content[at + length :],
        lambda: content[:at] + content[at + length :],
        lambda: content[:at] + content[:length] + content[at:],
    )
    return kinds[rng.integers(len(kinds))]()


def _pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def mutate_json(rng: Rng, content: bytes) -> bytes:
    """Another value, a key less, a key twice, a list longer or shorter, at any place of a JSON text."""
    root = json.loads(content)
    places = list(_places(root))
    if rng.random() < 0.1:
        return _pick(
            rng,
            (b"[" * 5000, b"\xff\xfe", b"null", b"[]", b"{}", b'"', b"\xef\xbb\xbf" + content, content * 2),
        )
    holder, key = _pick(rng, places)
    kind = int(rng.integers(5))
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.extend(holder[:1] * int(rng.integers(1, 50)))
    elif kind == 2 and isinstance(holder, dict):
        text = json.dumps(root)
        twice = json.dumps({key: holder[key]})[1:-1]
        return text.replace(json.dumps(holder), "{" + twice + ", " + json.dumps(holder)[1:], 1).encode()
    elif kind == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = _pick(
            rng, (holder[key] + 1, -holder[key], holder[key] * 1e6, float(holder[key]), str(holder[key]))
        )
    else:
        holder[key] = _pick(rng, ODD)
    try:
        return json.dumps(root).encode()
    except ValueError:  # a whole number of more digits than Python writes
        holder[key] = 10**300
        return json.dumps(root).encode()


def _places(value: Any) -> Any:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


CELLS = (
    "",
    "NaN",
    "inf",
    "-1",
    "0",
    "1e400",
    "9" * 30,
    "3.5",
    '"',
    '"a,b"',
    "Seizure",
    "\x00",
    "é",
    "true",
    " 1 ",
    "1_000",
)


def mutate_csv(rng: Rng, content: bytes) -> bytes:
    """Other cells, rows and columns twice or missing, other ends of lines and encodings."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = int(rng.integers(len(rows)))
    column = int(rng.integers(len(rows[0])))
    kinds: tuple[Callable[[], object], ...] = (
        lambda: rows[row].__setitem__(column, _pick(rng, CELLS)),
        lambda: rows[0].__setitem__(column, _pick(rng, rows[0])),
        lambda: rows.insert(row, list(rows[row])),
        lambda: rows.pop(row),
        lambda: rows[row].pop(),
        lambda: rows[row].append("1"),
        lambda: [line.pop(column) for line in rows if len(line) > column],
        lambda: rows.__setitem__(slice(1, None), []),
        lambda: [line.__setitem__(column, _pick(rng, CELLS)) for line in rows[1:]],
    )
    kinds[rng.integers(len(kinds))]()
    text = _pick(rng, ("\n", "\n", "\n", "\r\n", "\r", "\n\n")).join(",".join(cells) for cells in rows) + "\n"
    return text.encode(_pick(rng, ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")))


def mutate_parquet(rng: Rng, content: bytes) -> bytes:
    """Other columns, types, values and numbers of rows, or another footer, which says where everything lies."""
    import polars as pl

    if rng.random() < 0.15:
        (length,) = struct.unpack("<I", content[-8:-4])
        start = len(content) - 8 - length
        return content[:start] + maul(rng, content[start:-8])[:length].ljust(length, b"\0") + content[-8:]
    table = pl.read_parquet(content)
    name, n = _pick(rng, table.columns), len(table)
    odd = (
        None, float("nan"), float("inf"), "1.5", [1.0], True, 2**62, b"x", 1e38, {"a": 1}, "2026-01-01", -1,
    )  # fmt: skip
    kinds: tuple[Callable[[], pl.DataFrame], ...] = (
        lambda: table.with_columns(pl.Series(name, [_pick(rng, odd)] * n)),
        lambda: table.drop(name),
        lambda: table.rename({name: _pick(rng, ("", "Fp2 ", "é"))}),
        lambda: table.with_columns(table[name].alias("more")),
        lambda: table.head(int(rng.integers(n))),
        lambda: pl.concat([table] * int(rng.integers(2, 30))),
        lambda: table.select(rng.permutation(table.columns).tolist()),
        lambda: table.with_columns(pl.col(name).cast(_pick(rng, (pl.Float64, pl.String)), strict=False)),
    )
    changed, out = kinds[rng.integers(len(kinds))](), io.BytesIO()
    compression = _pick(rng, ("uncompressed", "snappy", "zstd", "gzip", "brotli", "lz4"))
    changed.write_parquet(out, compression=compression, row_group_size=int(rng.integers(100, 5000)))
    return out.getvalue()


EDF_FIELDS = (8, 80, 80, 8, 8, 8, 44, 8, 8, 4)
EDF_SIGNAL_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
EDF_TEXTS = (
    "",
    "0",
    "-1",
    "99999999",
    "1e30",
    "nan",
    "abc",
    "EDF+C",
    "EDF+D",
    "uV",
    "mV",
    "Fp1",
    "\x00",
    "1",
    "256",
)


def mutate_edf(rng: Rng, content: bytes) -> bytes:
    """Another text in any field of the header, of the file or of a signal."""
    n_signals = (int(content[184:192]) - 256) // 256
    widths = [*EDF_FIELDS, *(width for width in EDF_SIGNAL_FIELDS for _ in range(n_signals))]
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        field = int(rng.integers(len(widths)))
        at, width = sum(widths[:field]), widths[field]
        changed[at : at + width] = _pick(rng, EDF_TEXTS).encode()[:width].ljust(width)
    return bytes(changed)


def mutate_safetensors(rng: Rng, content: bytes) -> bytes:
    """A header that says other things of the same bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    if rng.random() < 0.15:
        return struct.pack("<Q", int(_pick(rng, (0, 1, length - 1, length + 8, 2**40, 2**63)))) + content[8:]
    header = mutate_json(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


STRUCTURES: dict[str, Damage] = {
    ".json": mutate_json,
    ".csv": mutate_csv,
    ".parquet": mutate_parquet,
    ".edf": mutate_edf,
    ".safetensors": mutate_safetensors,
}
