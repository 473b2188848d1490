"""How numbers and times are said to people; the same words in a card, a mail and a terminal."""

from __future__ import annotations

import re
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from bot.domain.job import Expected


_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


_STATES = {"PENDING": "submitted", "RUNNABLE": "waiting to run"}
"""AWS Batch's words that say little to others."""


def state(name: str) -> str:
    """A state in plain words, such as `waiting to run`."""
    return _STATES.get(name, name.lower())


def count(number: int) -> str:
    """`1234567` as `1,234,567`."""
    return f"{number:,}"


def size(number: int) -> str:
    """Bytes in decimal units, as `8.4 MB`."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(span: timedelta) -> str:
    """A span of time as `4 s`, `2 min 3 s` or `5 h 12 min`; never negative."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def money(amount: float, currency: str) -> str:
    """`$1.23`; a small amount with the digits that count."""
    return f"{currency}{amount:,.2f}" if amount >= 0.01 else f"{currency}{amount:.2g}"


def takes(voxels: int, bytes_read: int, expected: Expected | None) -> str:
    """How large a run is, and what it is expected to take."""
    said = f"{count(voxels)} voxels, {size(bytes_read)}"
    return f"{said}; expected: {forecast(expected)}" if expected else said


def forecast(expected: Expected) -> str:
    """`2 min 3 s, at most 4 min 0 s in nine of ten runs; about $0.12`."""
    said = duration(timedelta(seconds=expected.seconds))
    if expected.longest > expected.seconds:
        said += f", at most {duration(timedelta(seconds=expected.longest))} in nine of ten runs"
    return said if expected.cost is None else f"{said}; about {money(expected.cost, expected.currency)}"


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, the cut marked."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """A line without what neither a database nor a person can read: colour codes, NUL, control and half characters."""
    return "".join(c if c.isprintable() else " " for c in _ANSI.sub("", text))


def where(error: BaseException) -> str:
    """The type of an error and where it arose, without its message: that may quote a token or a person's words."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def link(url: str, title: str) -> str:
    """A link in Slack's mark-up that stays one, whatever stands in its address and its title."""
    address = re.sub(r"[\s<>|]", lambda found: quote(found[0]), url)
    return f"<{address}|{mrkdwn(printable(title)).replace('|', '¦')}>"


def mrkdwn(text: str) -> str:
    """Text from people and programs, escaped so that Slack shows it as it is and pings nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
