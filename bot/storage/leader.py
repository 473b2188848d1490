"""Leader leases: of all processes that share the database, the holder does what one process does at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from bot.storage.tables import SKEW, leader_leases


class LeaderLeases:
    """Leader leases within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def acquire(self, name: str, *, holder: str, at: datetime, lasting: timedelta) -> bool:
        """Acquire the lease of that name, or renew it; False while another holder has it. It ends at `at + lasting`.

        A lease of another holder that would end later than any can was acquired before the clock went back: it ends at
        `at + lasting` as well, unless its holder renews it.
        """
        wanted = leader_leases.c.name == name
        held = self._connection.execute(sa.select(leader_leases).where(wanted).with_for_update()).one_or_none()
        if held and held.holder != holder and held.until > at:
            if held.until > at + lasting + SKEW:
                self._connection.execute(leader_leases.update().where(wanted).values(until=at + lasting))
            return False
        values = {"holder": holder, "until": at + lasting}
        if held:
            self._connection.execute(leader_leases.update().where(wanted).values(**values))
            return True
        try:
            with self._connection.begin_nested():
                self._connection.execute(leader_leases.insert().values(name=name, **values))
        except IntegrityError:
            return False
        return True
