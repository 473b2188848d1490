"""Databases for runs: a new SQLite file each, or one of PostgreSQL that is emptied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from bot.storage.tables import metadata
from tests.support.databases import new_sqlite


class Files:
    """A SQLite file in a folder, new for each run: its name stays, so that its engine does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def __call__(self) -> Iterator[str]:
        """The URL of a database that is up to date and empty."""
        path = self._folder / "run.db"
        try:
            yield new_sqlite(path)
        finally:
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)


class Emptied:
    """One database of PostgreSQL, emptied before each run."""

    def __init__(self, url: str) -> None:
        self._url, self._engine = url, sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    @contextmanager
    def __call__(self) -> Iterator[str]:
        """The URL of the database, which is empty."""
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables if table.name != "alembic_version")
        with self._engine.connect() as connection:
            connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        yield self._url
