"""How often something may be done, by all processes together."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from bot.domain.job import now
from bot.storage.engine import Database

BURST = 2
"""Turns that may follow one another at once. Few, since they count to the limit of the second that they are in."""


class Rate:
    """At most so many turns in any second, of all processes that share the database."""

    def __init__(
        self,
        name: str,
        *,
        database: Database,
        a_second: float | None,
        clock: Callable[[], datetime] = now,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`a_second` is more than BURST; None: there is no limit. `wait` sleeps some seconds."""
        self._name = name
        self._database = database
        self._each = timedelta(seconds=1 / (a_second - BURST)) if a_second else None
        self._clock = clock
        self._wait = wait

    def turn(self) -> None:
        """Wait until it is this caller's turn. After the first BURST, turns are `1 / (a_second - BURST)` seconds apart.

        Raises Unavailable where the database is.
        """
        each = self._each
        if each is None:
            return
        wait = self._database.write(
            lambda transaction: transaction.rate_limits.take(self._name, each=each, burst=BURST, at=self._clock())
        )
        if wait:
            self._wait(wait.total_seconds())
