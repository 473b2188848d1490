"""What is read of Slack's answers, each field with its type: a proxy on the way may put anything in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from slack_sdk.web import SlackResponse

from bot.domain.errors import Unavailable

T = TypeVar("T")


def found(answer: Any, kind: type[T], *path: str) -> T | None:
    """The value of that type at that path; None where it, or something on the way, is absent or null.

    Raises Unavailable where it has another type, or something on the way is no object: such an answer is not Slack's.
    """
    here: Any = answer.data if isinstance(answer, SlackResponse) else answer
    for name in path:
        if here is None:
            return None
        if not isinstance(here, Mapping):
            raise _strange(path)
        here = here.get(name)
    if here is not None and not isinstance(here, kind):
        raise _strange(path)
    return here


def needed(answer: Any, kind: type[T], *path: str) -> T:
    """As `found`, for what Slack always says. Raises Unavailable also where it is absent, null or an empty text."""
    value = found(answer, kind, *path)
    if value is None or value == "":
        raise Unavailable(f"Slack answered without {'.'.join(path)}.")
    return value


def listed(answer: Any, kind: type[T], *path: str) -> list[T]:
    """The list at that path, each of that type; empty where `found` gives None. Raises Unavailable as `found`."""
    items = found(answer, list, *path) or []
    if not all(isinstance(item, kind) for item in items):
        raise _strange(path)
    return items


def cursor(answer: Any, *, before: str) -> str:
    """Where the next page begins; empty: this is the last. Raises Unavailable where that is where this one began."""
    following = found(answer, str, "response_metadata", "next_cursor") or ""
    if following and following == before:
        raise Unavailable("Slack answered with the same page again.")
    return following


def _strange(path: tuple[str, ...]) -> Unavailable:
    return Unavailable(f"Slack answered with {'.'.join(path)} of another kind than it documents.")
