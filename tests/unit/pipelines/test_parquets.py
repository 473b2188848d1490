"""Rows as Parquet are those of the CSV file."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from pyarrow import parquet

from pipelines.common import parquets
from pipelines.common.csvs import Column, rows


def columns(count: int) -> dict[str, Column]:
    draw = np.random.default_rng(0)
    scores, kinds = draw.random(count).astype(np.float32), np.arange(count) % 3
    scores[::7] = np.nan
    return {
        "id": Column(of=lambda first, stop: np.arange(first + 1, stop + 1)),
        "score": Column(of=lambda first, stop: scores[first:stop], decimals=4),
        "class, said": Column(of=lambda first, stop: kinds[first:stop], words=("a", 'of "b", c', "é")),
    }


@pytest.mark.parametrize("at_once", [7, 40, 1000])
def test_a_table_has_the_rows_of_the_csv_file_whatever_is_made_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquets, "ROWS", at_once)
    pieces = list(parquets.pieces(columns(40), 40))

    table = parquet.read_table(io.BytesIO(b"".join(pieces))).to_pylist()

    written = list(csv.DictReader(io.StringIO(b"".join(rows(columns(40), 40)).decode())))
    said = ["" if row["score"] is None else f"{row['score']:.4f}" for row in table]
    assert [{**row, "id": str(row["id"]), "score": score} for row, score in zip(table, said, strict=True)] == written
    assert len(pieces) == -(-40 // at_once) + 1, "no more is held than was made at once"
