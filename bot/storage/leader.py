"""Leader leases: of all processes that share the database, the holder does what one process does at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from bot.storage.tables import SKEW, leader_leases

_WANTED = leader_leases.c.name == sa.bindparam("wanted")
_HELD = sa.select(leader_leases).where(_WANTED).with_for_update()
_CHANGE = leader_leases.update().where(_WANTED)
# Statements are made once: to build one takes longer than to execute it.


class LeaderLeases:
    """Leader leases within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def acquire(self, name: str, *, holder: str, at: datetime, lasting: timedelta) -> bool:
        """Acquire the lease of that name, or renew it; False while another holder has it. It ends at `at + lasting`.

        A lease of another holder that would end later than any can was acquired before the clock went back: it ends at
        `at + lasting` as well, unless its holder renews it.
        """
        held = self._connection.execute(_HELD, {"wanted": name}).one_or_none()
        if held and held.holder != holder and held.until > at:
            if held.until > at + lasting + SKEW:
                self._connection.execute(_CHANGE, {"wanted": name, "until": at + lasting})
            return False
        values = {"holder": holder, "until": at + lasting}
        if held:
            self._connection.execute(_CHANGE, {"wanted": name, **values})
            return True
        try:
            with self._connection.begin_nested():
                self._connection.execute(leader_leases.insert().values(name=name, **values))
        except IntegrityError:
            return False
        return True
