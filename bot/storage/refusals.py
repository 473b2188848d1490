"""The table of mail addresses that have asked for no more mail."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.storage.dialect import insert
from bot.storage.tables import mail_refusals

_HAS = sa.select(mail_refusals.c.digest).where(mail_refusals.c.digest == sa.bindparam("wanted"))
"""Made once: to build a statement takes longer than to execute it."""


class MailRefusals:
    """Addresses without mail, within one transaction, each known by its digest alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, digest: str, *, at: datetime) -> None:
        """Record that the address has asked for no more mail; asking twice is asking once."""
        statement = insert(self._connection.dialect.name, mail_refusals)
        self._connection.execute(statement.on_conflict_do_nothing(), {"digest": digest, "at": at})

    def has(self, digest: str) -> bool:
        """Whether the address has asked for no more mail."""
        return self._connection.scalar(_HAS, {"wanted": digest}) is not None
