"""Texts for people and logs: numbers, times and links, the same in a card, a mail and a terminal."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from bot.domain.job import Expected

COMPARED = 200
"""Names with which a name is compared, at most: each comparison costs up to a millisecond."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Characters that Unicode counts as letters or signs and that show nothing."""
_MARKS = re.compile(r"[*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Slack's marks where they can begin or end something; an underscore within a name is none."""
_STATES = {"PENDING": "submitted", "RUNNABLE": "waiting to run"}
"""Plain words for AWS Batch's states that say little to others."""


def state(name: str) -> str:
    """A state in plain words, such as `waiting to run`."""
    return _STATES.get(name, name.lower())


def count(number: int) -> str:
    """A number with separators: `1234567` as `1,234,567`."""
    return f"{number:,}"


def voxels(number: int) -> str:
    """A number of voxels, as `1,234 voxels` or `1 voxel`."""
    return f"{count(number)} {'voxel' if number == 1 else 'voxels'}"


def size(number: int) -> str:
    """Bytes in decimal units, as `8.4 MB` or `200,000 TB`."""
    if number == 1:
        return "1 byte"
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.3g} {unit}"


def duration(span: timedelta) -> str:
    """A span of time as `4 s`, `2 min 3 s` or `1,205 h 12 min`; never negative."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60} min"


def money(amount: float, currency: str) -> str:
    """An amount as `$1.23`; below a hundredth, with two significant digits."""
    return f"{currency}{amount:,.2f}" if amount >= 0.01 else f"{currency}{amount:.2g}"


def takes(number: int, bytes_read: int, expected: Expected | None, *, block: int | None = None) -> str:
    """How large a run of so many voxels is, in blocks of so many, and what it is expected to take."""
    said = f"{voxels(number)}, {size(bytes_read)}"
    if block:
        said += f", in about {count(-(-number // block))} blocks of about {voxels(block)}"
    return f"{said}; expected: {forecast(expected)}" if expected else said


def forecast(expected: Expected) -> str:
    """An estimate as `2 min 3 s, at most 4 min 0 s in nine of ten runs; about $0.12`.

    Of a job in blocks it is no time that anybody waits: `240 h 0 min of machine time, all programs together`.
    """
    said = duration(timedelta(seconds=expected.seconds)) + (" of machine time" if expected.together else "")
    if expected.longest > expected.seconds:
        said += f", at most {duration(timedelta(seconds=expected.longest))} in nine of ten runs"
    if expected.together:
        said += ", all programs together"
    return said if expected.cost is None else f"{said}; about {money(expected.cost, expected.currency)}"


def listed(items: list[str]) -> str:
    """Items as `a, b and c`; `none` where there are none."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of the names that a person who wrote `name` may have meant, the most similar first."""
    meant: dict[str, str] = {}
    for other in names:
        if abs(len(other) - len(name)) <= 3 and len(meant) < COMPARED:
            meant.setdefault(other.lower(), other)
    return [meant[found] for found in get_close_matches(name.lower(), meant, n=3)]


def options(told: Iterable[tuple[str, str]]) -> str:
    """Options by title and value, as `False discovery rate 0.1; Registration off`; empty where there are none."""
    return "; ".join(f"{title} {value}" for title, value in told)


def shortened(text: str, limit: int) -> str:
    """The text in at most `limit` characters; a cut ends in `…`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """The text with colour codes removed, and every other unprintable character (NUL, lone surrogates) as a space.

    So are characters that count as printable and show nothing.
    """
    return "".join(c if c.isprintable() and c not in _BLANK else " " for c in _ANSI.sub("", text))


def where(error: BaseException) -> str:
    """An error's type and traceback, without its message, which may quote a token or a person's words."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def link(url: str, title: str) -> str:
    """A link in Slack's mark-up, intact whatever characters its address and title have."""
    address = re.sub(r"[\s<>|]", lambda found: quote(found[0]), url)
    return f"<{address}|{unmarked(printable(title)).replace('|', '¦')}>"


def mrkdwn(text: str) -> str:
    """Text from people and programs, escaped so that it pings nobody and makes no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unmarked(text: str) -> str:
    """As `mrkdwn`, for a program's own words: their marks make nothing bold, italic, struck or code either.

    A backtick becomes an apostrophe; the other marks stand between word joiners, which take no room.
    """
    return _MARKS.sub("\u2060\\g<0>\u2060", mrkdwn(text).replace("`", "'"))
