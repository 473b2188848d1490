"""Bringing a database's tables up to date, by the migrations in `migrations/`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain.errors import NomadsError
from bot.storage.tables import MIGRATIONS, REVISION

MIGRATING_SECONDS = 60
"""How long a process waits for another one that migrates the same SQLite file."""


def is_current(connection: Connection) -> bool:
    """Whether the database has the newest migration."""
    return sa.inspect(connection).has_table("alembic_version") and REVISION in connection.scalars(
        sa.text("SELECT version_num FROM alembic_version")
    )


def upgrade_sqlite(connection: Connection) -> None:
    """Migrate in a transaction of its own. Raises NomadsError where a foreign key would refer to no row."""
    raw: Any = connection.connection.dbapi_connection
    # SQLite changes a table by making it anew, and refuses that while foreign keys refer to the table. The pragma has
    # no effect within a transaction.
    raw.execute("PRAGMA foreign_keys=OFF")
    patience = raw.execute("PRAGMA busy_timeout").fetchone()[0]
    raw.execute(f"PRAGMA busy_timeout={MIGRATING_SECONDS * 1000}")
    try:
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            upgrade(connection)
            if connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise NomadsError("The database cannot be brought up to date: it has rows that belong to nothing.")
    finally:
        raw.execute(f"PRAGMA busy_timeout={patience}")
        raw.execute("PRAGMA foreign_keys=ON")


def upgrade(connection: Connection) -> None:
    """Migrate within the connection's transaction, unless another process was first."""
    if is_current(connection):  # another process was first
        return
    import alembic.command  # a quarter of a second that most starts need not spend
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
