"""Rows of numbers as CSV are those that Python's own formatting and `csv` give."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from pipelines.common import csvs
from pipelines.common.csvs import Column, rows


def numbers() -> np.ndarray:
    """Large and small ones, ones that lie half way between two of so many digits, and no numbers."""
    draw = np.random.default_rng(0)
    return np.concatenate(
        [
            draw.random(500) * 10**6,
            draw.integers(0, 8000, 500) / 8,
            draw.integers(0, 10**6, 500) / draw.integers(1, 64, 500),
            *(draw.integers(0, 10**5, 500) * 10.0**-digits for digits in (1, 3, 5, 7)),
            draw.normal(0, 1, 500),
            [0, -0.0, -0.001, 0.5, 1.5, 2.5, -2.5, 1e-9, 1e17, 2.0**53, np.nan, np.inf, -np.inf],
        ]
    )


@pytest.mark.parametrize("decimals", [0, 2, 4, 6])
def test_each_number_is_formatted_as_python_does(decimals: int) -> None:
    values = numbers()
    column = Column(of=lambda first, stop: values[first:stop], decimals=decimals)

    written = b"".join(rows({"n": column}, len(values))).decode().splitlines()

    assert written == ["n", *("" if np.isnan(value) else f"{value:.{decimals}f}" for value in values.tolist())]


def test_rows_are_those_of_csv_whatever_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvs, "ROWS", 7)
    values, kinds, words = np.arange(40) * 123456789, np.arange(40) % 3, ("a", 'of "b", c', "é")
    columns = {
        "id": Column(of=lambda first, stop: values[first:stop]),
        "kind, said": Column(of=lambda first, stop: kinds[first:stop], words=words),
        "half": Column(of=lambda first, stop: values[first:stop] / 2, decimals=1),
    }
    wanted = io.StringIO()
    writer = csv.writer(wanted, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows((n, words[k], f"{n / 2:.1f}") for n, k in zip(values.tolist(), kinds.tolist(), strict=True))

    assert b"".join(rows(columns, 40)).decode() == wanted.getvalue()


def test_a_table_without_rows_is_its_header() -> None:
    assert b"".join(rows({"id": Column(of=lambda first, stop: np.zeros(0))}, 0)) == b"id\n"
