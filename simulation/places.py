"""Databases for runs: new SQLite files, one for each workspace, or one of PostgreSQL that is emptied."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from bot.storage.tables import metadata
from tests.support.databases import new_sqlite


class Files:
    """SQLite files in a folder, new for each run: their names stay, so that their engines do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def __call__(self) -> Iterator[Sequence[str]]:
        """The URLs of two databases that are up to date and empty."""
        paths = [self._folder / name for name in ("run.db", "other.db")]
        try:
            yield [new_sqlite(path) for path in paths]
        finally:
            for path, end in itertools.product(paths, ("", "-wal", "-shm")):
                Path(f"{path}{end}").unlink(missing_ok=True)


class Emptied:
    """One database of PostgreSQL, emptied before each run."""

    def __init__(self, url: str) -> None:
        self._url, self._engine = url, sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    @contextmanager
    def __call__(self) -> Iterator[Sequence[str]]:
        """The URL of the database, which is empty."""
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables if table.name != "alembic_version")
        with self._engine.connect() as connection:
            connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        yield [self._url]
