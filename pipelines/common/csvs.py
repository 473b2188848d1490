"""Rows of numbers as CSV, made column by column: for tables of millions of rows.

The bytes are those that Python's own formatting of each number and `csv` give.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.copies import in_copies

Array = NDArray[Any]
Text = NDArray[np.uint8]
ROWS = 2**16
"""Rows that are made at once."""
_MOST = 2**52
"""Digits of a number are counted below this; larger ones are formatted one by one."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column; `of` gives the values of the rows `[first, stop)`."""

    of: Callable[[int, int], Array]
    decimals: int = 0
    """Digits after the point; what is not a number leaves its cell empty."""
    words: Sequence[str] = ()
    """Values are indices into these, if there are any."""


def rows(columns: Mapping[str, Column], count: int, *, copies: int = 1) -> Iterator[bytes]:
    """A CSV file in UTF-8 with line feeds, in pieces: the header, and then so many rows."""
    yield _line(list(columns))

    def piece(first: int) -> bytes:
        stop = min(count, first + ROWS)
        cells: list[Text] = []
        for n, column in enumerate(columns.values()):
            values = column.of(first, stop)
            text = _worded(values, column.words) if column.words else _numbers(values, column.decimals)
            end = b"\n" if n == len(columns) - 1 else b","
            cells += [text, np.full((stop - first, 1), end[0], np.uint8)]
        table = np.concatenate(cells, axis=1)
        return table[table > 0].tobytes()

    yield from in_copies(piece, range(0, count, ROWS), most=copies)


def _line(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode()


def _worded(values: Array, words: Sequence[str]) -> Text:
    written = np.array([_line([word])[:-1] for word in words])
    return _text(written[values])


def _text(written: Array) -> Text:
    """Byte strings (n,) as (n, width), with zeros after their ends."""
    return np.ascontiguousarray(written).view(np.uint8).reshape(len(written), written.itemsize)


def _numbers(values: Array, decimals: int) -> Text:
    """Numbers (n,) as text (n, width), with zeros where there is no character."""
    scaled = np.abs(values.astype(np.float64)) * 10**decimals
    counted = np.rint(scaled)
    # a product that lies half way may have been rounded to it, and a large one has lost its last digits
    odd = ~(scaled < _MOST)
    counted[odd] = 0
    odd |= np.abs(scaled - counted) == 0.5
    rest = counted.astype(np.int64)
    digits = max(decimals + 1, len(str(int(rest.max(initial=0)))))
    wide = 1 + digits + (decimals > 0)
    text = np.zeros((len(values), wide), np.uint8)
    place = wide
    for n in range(digits):
        if n == decimals and decimals:
            place -= 1
            text[:, place] = ord(".")
        place -= 1
        less = rest // 10
        shown = (rest - less * 10 + ord("0")).astype(np.uint8)
        if n > decimals:
            shown[rest == 0] = 0  # no zeros before the first digit
        text[:, place] = shown
        rest = less
    text[np.signbit(values), 0] = ord("-")
    if odd.any():
        each = [b"" if np.isnan(v) else f"{v:.{decimals}f}".encode() for v in values[odd].tolist()]
        one_by_one = _text(np.array(each))
        if one_by_one.shape[1] > wide:
            text = np.pad(text, ((0, 0), (0, one_by_one.shape[1] - wide)))
        text[odd] = 0
        text[odd, : one_by_one.shape[1]] = one_by_one
    return text
