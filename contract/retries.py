"""Trying again while trouble may pass. Shared by whatever reads volumes in programs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Transient(Exception):
    """What failed may succeed the next time. The text says what happened."""


def patiently(attempt: Callable[[], T], *, pauses: Sequence[float], given_up: Callable[[str], Exception]) -> T:
    """Call, and again after each pause, in seconds, and up to half as much longer, while the call raises Transient.

    After the last try it raises what `given_up` makes of `failed 4 times in a row: … Try again later.`
    """
    tries = 0
    while True:
        try:
            return attempt()
        except Transient as trouble:
            if tries == len(pauses):
                raise given_up(f"failed {tries + 1} times in a row: {trouble}. Try again later.") from None
        # A server that is overloaded, or starts again, is given time; many programs do not come back at one moment.
        time.sleep(pauses[tries] * random.uniform(1, 1.5))  # noqa: S311 - no secret
        tries += 1
