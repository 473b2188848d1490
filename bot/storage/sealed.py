"""The rows of sealed tokens."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.storage.tables import secrets


class SealedTokens:
    """Sealed rows within one transaction. What is sealed in them is the Vault's business."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.erased = False
        """Whether a row was erased in this transaction."""

    def add(self, reference: str, owner: str, sealed: bytes, *, at: datetime) -> None:
        """Keep a new row."""
        self._connection.execute(
            secrets.insert(), {"reference": reference, "owner": owner, "sealed": sealed, "created_at": at}
        )

    def get(self, reference: str) -> bytes | None:
        """What was sealed, if it is there."""
        sealed: bytes | None = self._connection.scalar(
            sa.select(secrets.c.sealed).where(secrets.c.reference == reference)
        )
        return sealed

    def delete(self, reference: str) -> None:
        """Erase the row, if there is one."""
        gone = self._connection.execute(secrets.delete().where(secrets.c.reference == reference))
        self.erased |= bool(gone.rowcount)
