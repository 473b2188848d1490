"""Waiting for something to become true, with a deadline: the one place where tests let time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60.0
"""Seconds a busy machine is given for what takes it one."""

T = TypeVar("T")

_LOOKS = 0.01
"""Seconds between two looks."""


def until(condition: Callable[[], T], *, within: float = PATIENCE, what: str = "") -> T:
    """The first true value of the condition. Fails the test, naming `what`, if there is none within so many seconds.

    An error the condition raises is the test's error.
    """
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'what was waited for'} did not come true within {within:g} s")
        time.sleep(_LOOKS)
    return value
