"""The table of outages: times in which compute did not answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain.job import Outage
from bot.storage.tables import outages

_NEWEST: sa.Select[Any] = sa.select(outages).order_by(outages.c.number.desc()).limit(1)
_LASTING = _NEWEST.where(outages.c.over_at.is_(None))
_BY_NUMBER = _NEWEST.where(outages.c.number == sa.bindparam("wanted"))
# Statements are made once: to build one takes longer than to execute it.


class Outages:
    """Outages within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lasting(self) -> Outage | None:
        """The outage that lasts; None where compute answers."""
        return self._one(_LASTING, {})

    def get(self, number: int) -> Outage | None:
        """The outage of that number; None where there is none."""
        return self._one(_BY_NUMBER, {"wanted": number})

    def begin(self, job_id: str, *, at: datetime, why: str) -> int:
        """Record an outage that began then; returns its number. The caller holds an advisory lock."""
        made = outages.insert().values(job_id=job_id, began_at=at, why=why).returning(outages.c.number)
        return int(self._connection.scalar(made) or 0)

    def end(self, number: int, *, at: datetime) -> None:
        """Record that the outage is over since then."""
        self._connection.execute(outages.update().where(outages.c.number == number).values(over_at=at))

    def _one(self, query: sa.Select[Any], values: Mapping[str, int]) -> Outage | None:
        row = self._connection.execute(query, values).one_or_none()
        return Outage(row.number, row.job_id, row.began_at, row.why, row.over_at) if row else None
