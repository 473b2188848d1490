"""Rate limits that hold for all processes which share the database: a token bucket for each name."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.storage.dialect import insert
from bot.storage.tables import rate_limits

IMPOSSIBLE = timedelta(minutes=1)
"""No bucket is used so far ahead, since only threads that wait for their turn use it ahead: the clock has gone back."""


class RateLimits:
    """Token buckets within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, name: str, *, each: timedelta, burst: int, at: datetime) -> timedelta:
        """Take one turn of that name; returns how long the caller has to wait before the turn may be used.

        A turn comes every `each`, and `burst` of them are saved at most: in any time t, `burst + t / each` turns may be
        used. The bucket is kept as one time (the generic cell rate algorithm: ITU-T I.371, annex A).
        """
        dialect = self._connection.dialect.name
        first = insert(dialect, rate_limits).values(name=name, used_until=at)
        self._connection.execute(first.on_conflict_do_nothing(index_elements=[rate_limits.c.name]))
        wanted = rate_limits.c.name == name
        used = self._connection.execute(
            sa.select(rate_limits.c.used_until).where(wanted).with_for_update()
        ).scalar_one()
        if used > at + IMPOSSIBLE:
            used = at
        until = max(used, at) + each
        self._connection.execute(rate_limits.update().where(wanted).values(used_until=until))
        wait: timedelta = max(timedelta(), until - at - burst * each)
        return wait
