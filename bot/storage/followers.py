"""The table of those who follow somebody else's job."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.storage.dialect import insert
from bot.storage.tables import followers

_OF = sa.select(followers.c.person).where(followers.c.job_id == sa.bindparam("job")).order_by(followers.c.person)


class Followers:
    """Followers within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, job_id: str, person: str) -> None:
        """Let the person follow the job; following twice is following once."""
        statement = insert(self._connection.dialect.name, followers)
        self._connection.execute(statement.on_conflict_do_nothing(), {"job_id": job_id, "person": person})

    def of(self, job_id: str) -> list[str]:
        """Who follows the job, in alphabetical order."""
        return list(self._connection.scalars(_OF, {"job": job_id}))
