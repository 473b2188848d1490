"""The rows of `csvs` as Parquet, for tables of millions of rows: programs read a column without the others."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipelines.common.csvs import Column

ROWS = 2**18
"""Rows of a row group."""


def pieces(columns: Mapping[str, Column], count: int) -> Iterator[bytes]:
    """A Parquet file, in pieces. Whole numbers are int64, others float64 and not rounded, words a dictionary.

    What is empty in the CSV file is null.
    """
    import pyarrow  # a fifth of a second, which only large tables need
    from pyarrow import parquet

    def table(first: int, stop: int) -> Any:
        return pyarrow.table({name: _array(pyarrow, column, first, stop) for name, column in columns.items()})

    sink = _Sink()
    with parquet.ParquetWriter(sink, table(0, 0).schema, compression="zstd") as writer:
        for first in range(0, count, ROWS):
            writer.write_table(table(first, min(count, first + ROWS)))
            yield sink.taken()
    yield sink.taken()


def _array(pyarrow: Any, column: Column, first: int, stop: int) -> Any:
    values = column.of(first, stop)
    if column.words:
        return pyarrow.DictionaryArray.from_arrays(values.astype(np.int32), list(column.words))
    if not column.decimals:
        return pyarrow.array(values.astype(np.int64))
    return pyarrow.array(values.astype(np.float64), from_pandas=True)


class _Sink(io.RawIOBase):
    """A file that is written once, from its beginning to its end, and taken from in between."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content
