"""A service's call for patience is believed within bounds, however it is written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bot.domain.errors import patience

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7.5 ", 7.5),
        ("600", 600),
        ("601", 600),
        ("1000000000", 600),
        ("1e15", 600),
        ("9" * 400, 600),
        ("inf", 600),
        ("0", 1),
        ("-5", 1),
        ("-inf", 1),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("nan", None),
        ("soon", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_believed_between_a_second_and_ten_minutes(header: str | None, seconds: float | None) -> None:
    assert patience(header, at=NOON) == seconds
