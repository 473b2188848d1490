"""What goes wrong at which call: decided by the seed and the call's number alone, so that any of it can be left out."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from bot.domain.errors import LONGEST_PATIENCE, SHORTEST_PATIENCE

GIVES_WAY = 0.1
"""Part of all calls before which others act."""
PAUSES = (0.5, 6.0, 40.0, 400.0)
"""Seconds of a pause: some are longer than a lease."""


class What(StrEnum):
    """What happens at a call of a port, or at a commit."""

    NOTHING = "nothing"
    AWAY = "does not answer"
    BUSY = "is busy"
    REFUSED = "refuses"
    LOST = "does it, and the answer is lost"
    NONSENSE = "does it, and the answer makes no sense"
    SLOW = "is slow"
    FROZEN = "the whole process stands still"
    CRASH_BEFORE = "the process ends before"
    CRASH_WITHIN = "the process ends while it is done"
    CRASH_AFTER = "the process ends after"


OF_CALLS = (What.AWAY, What.BUSY, What.LOST, What.NONSENSE, What.SLOW, What.FROZEN, What.CRASH_BEFORE, What.CRASH_AFTER)
OF_COMMITS = (What.AWAY, What.LOST, What.SLOW, What.FROZEN, What.CRASH_BEFORE, What.CRASH_WITHIN, What.CRASH_AFTER)
FATAL = (What.CRASH_BEFORE, What.CRASH_WITHIN, What.CRASH_AFTER)


@dataclass(frozen=True)
class Incident:
    """One of them."""

    what: What
    seconds: float | None = None
    """Of a pause; of BUSY, what it asks for."""

    def __str__(self) -> str:
        return self.what.value + (f" ({self.seconds:g} s)" if self.seconds is not None else "")


NOTHING = Incident(What.NOTHING)


class Incidents:
    """What happens at the n-th call of a run."""

    def __init__(self, seed: int, *, often: float, only: Collection[int] | None = None) -> None:
        """`often` is the part of calls at which something happens; `only` leaves all numbers out but these."""
        self.seed, self.often, self._only = seed, often, only
        self.happened: list[int] = []
        """The numbers of the calls at which something has happened."""
        self.over = False
        """Whether nothing happens any more."""

    def gives_way(self, number: int) -> bool:
        """Whether others act first that have something to do at the same time."""
        return not self.over and self.often > 0 and random.Random(self.seed * 1_000_003 - number).random() < GIVES_WAY

    def at(self, number: int, *, commit: bool) -> Incident:
        """What happens at the call of that number."""
        if self.over or (self._only is not None and number not in self._only):
            return NOTHING
        draw = random.Random(self.seed * 1_000_003 + number)
        if draw.random() >= self.often:
            return NOTHING
        self.happened.append(number)
        what = draw.choice(OF_COMMITS if commit else OF_CALLS)
        if what is What.BUSY:
            return Incident(what, _wait(draw))
        return Incident(what, draw.choice(PAUSES) if what in (What.SLOW, What.FROZEN) else None)


def _wait(draw: random.Random) -> float | None:
    """Seconds that a Retry-After asks for, as an adapter hands them on; None: it names none."""
    any_time = round(draw.uniform(SHORTEST_PATIENCE, LONGEST_PATIENCE), 3)
    return draw.choice((None, SHORTEST_PATIENCE, LONGEST_PATIENCE, any_time))
