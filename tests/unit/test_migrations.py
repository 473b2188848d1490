"""The migrations make exactly the tables that the code uses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bot.store import JobStore, connect
from bot.tables import MIGRATIONS, REVISION, metadata


def test_migrations_match_the_tables(database_url: str) -> None:
    engine = connect(database_url)
    JobStore(engine).migrate()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_store_knows_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    engine = connect(database_url)
    store = JobStore(engine)
    store.migrate()
    store.migrate()
    assert store.count() == 0
    engine.dispose()


def test_sqlite_writes_ahead_and_has_every_commit_on_disk(tmp_path: object) -> None:
    engine = connect(f"sqlite:///{tmp_path}/nomads.db")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    engine.dispose()
