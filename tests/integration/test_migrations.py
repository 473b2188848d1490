"""The migrations make exactly the tables that the code uses."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bot.domain.people import Preferences
from bot.domain.states import JobState
from bot.storage.engine import BUSY_SECONDS, Database, _keep_log_ahead, begun, connect
from bot.storage.migrate import upgrade
from bot.storage.tables import MIGRATIONS, REVISION, effects, jobs, metadata, people
from tests.support.databases import at
from tests.support.rows import Rows
from tests.support.waiting import until


def test_migrations_match_the_tables(database_url: str) -> None:
    engine = connect(database_url)
    Database(engine).migrate()
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
    store = Database(engine)
    store.migrate()
    store.migrate()
    assert Rows(store).count() == 0
    engine.dispose()


def test_a_process_that_starts_while_another_migrates_waits_for_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nomads.db"
    first, second = connect(url), connect(url)
    with ThreadPoolExecutor(1) as pool, first.connect() as connection:
        with connection.begin():
            begun(connection, write=True)
            upgrade(connection)
            waiting = pool.submit(Database(second).migrate)
            beyond = time.monotonic() + 2 * BUSY_SECONDS
            until(lambda: waiting.done() or time.monotonic() > beyond)
            assert not waiting.done()
        waiting.result()
    assert Rows(Database(second)).count() == 0
    first.dispose()
    second.dispose()


def test_a_process_that_starts_on_tables_that_are_up_to_date_waits_for_nobody_who_writes(database_url: str) -> None:
    first, second = (Database(connect(database_url)) for _ in range(2))
    first.migrate()
    with first.begin():
        second.migrate()
    for store in (first, second):
        store.close()


def test_processes_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    engines = [connect(database_url) for _ in range(3)]
    with ThreadPoolExecutor(len(engines)) as pool:
        for _ in pool.map(lambda engine: Database(engine).migrate(), engines):
            pass
    assert Rows(Database(engines[0])).count() == 0
    for engine in engines:
        engine.dispose()


class Refusing:
    """A connection that SQLite refuses a number of statements, as it does while another process makes the new file."""

    def __init__(self, times: int, code: int = sqlite3.SQLITE_BUSY_SNAPSHOT) -> None:
        self.times, self.code, self.said = times, code, list[str]()

    def execute(self, statement: str) -> None:
        self.said.append(statement)
        if len(self.said) <= self.times:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error


def test_a_process_waits_for_another_one_that_makes_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for_a_moment, for_ever = Refusing(2), Refusing(10**6)

    _keep_log_ahead(for_a_moment)
    assert for_a_moment.said == ["PRAGMA journal_mode=WAL"] * 3

    monkeypatch.setattr("bot.storage.engine.BUSY_SECONDS", 0.1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        _keep_log_ahead(for_ever)
    assert len(for_ever.said) <= 3, "it waits between two tries"


def test_a_process_does_not_wait_where_the_disk_fails() -> None:
    failing = Refusing(10**6, sqlite3.SQLITE_IOERR)

    with pytest.raises(sqlite3.OperationalError):
        _keep_log_ahead(failing)
    assert len(failing.said) == 1


BEFORE = (
    "INSERT INTO jobs (id, key, request, actor, state, reason, log_tail, accepted_at, pipeline, voxels, work, checked) "
    "VALUES ('abcd1234', 'k', '{}', 'U01DEMO', 'RUNNABLE', '', '[]', '2026-01-01 12:00:00', 'quick', 1, '', true)",
    "INSERT INTO transitions (job_id, state, at, text) VALUES ('abcd1234', 'RUNNABLE', '2026-01-01 12:01:00', '')",
    "INSERT INTO transitions (job_id, state, at, text) VALUES ('abcd1234', 'ACCEPTED', '2026-01-01 12:01:00', '')",
    "INSERT INTO messages (job_id, subject, timestamp) VALUES ('abcd1234', 'card', '1.2')",
    "INSERT INTO effects (job_id, lane, kind, subject, due_at, attempts, in_doubt) "
    "VALUES ('abcd1234', 'chat', 'card', '', '2026-01-01 12:00:00', 0, false)",
    "INSERT INTO people (person) VALUES ('U01DEMO')",
)
"""A job that waits, whose card is about to be edited, in a database of revision 0003."""


def test_a_database_in_use_is_brought_up_to_date_with_all_it_holds(database_url: str) -> None:
    engine = connect(database_url)
    with engine.begin() as connection:
        at("0003", connection, alembic.command.upgrade)
        for statement in BEFORE:
            connection.execute(sa.text(statement))
    store = Database(engine)
    store.migrate()
    with engine.connect() as connection:
        (job,) = connection.execute(sa.select(jobs))
        assert (job.id, job.attempt, job.waiting) == ("abcd1234", 1, "")
        assert job.runnable_at == datetime(2026, 1, 1, 12, 1, tzinfo=UTC), "it may have waited for long by now"
        assert connection.execute(sa.select(effects.c.kind, effects.c.lane)).one() == ("edit", "edit")
        if engine.dialect.name == "sqlite":
            assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    assert Rows(store).person("U01DEMO").preferences == Preferences()
    steps = [(step.number, step.state) for step in Rows(store).transitions("abcd1234")]
    assert steps == [(1, JobState.ACCEPTED), (2, JobState.RUNNABLE)]
    assert Rows(store).message("abcd1234", "card") == "1.2"
    engine.dispose()


def test_people_who_stored_no_preference_are_named_at_the_end_from_now_on(database_url: str) -> None:
    engine = connect(database_url)
    with engine.begin() as connection:
        at("0011", connection, alembic.command.upgrade)
        for person, steps, mail in (("new", "all", "true"), ("no-mail", "all", "false"), ("ends", "end", "true")):
            statement = f"INSERT INTO people (person, steps, mail) VALUES ('{person}', '{steps}', {mail})"
            connection.execute(sa.text(statement))
    store = Database(engine)
    store.migrate()
    named = {person: Rows(store).person(person).preferences.mention for person in ("new", "no-mail", "ends", "nobody")}
    assert named == {"new": True, "no-mail": False, "ends": False, "nobody": True}
    engine.dispose()


def test_an_earlier_release_reads_the_jobs_of_this_one_without_their_options(database_url: str) -> None:
    engine = connect(database_url)
    request = sa.bindparam("request", {"pipeline": "p", "options": {"false-discovery": "0.1"}}, sa.JSON)
    with engine.begin() as connection:
        at("0003", connection, alembic.command.upgrade)
        for statement in (BEFORE[0], BEFORE[-1]):
            connection.execute(sa.text(statement))
        at("0013", connection, alembic.command.upgrade)
        for statement in ("UPDATE jobs SET request = :request", "UPDATE people SET last_request = :request"):
            connection.execute(sa.text(statement).bindparams(request))
        at("0012", connection, alembic.command.downgrade)
        assert connection.scalar(sa.select(jobs.c.request)) == {"pipeline": "p"}
        assert connection.scalar(sa.select(people.c.last_request)) == {"pipeline": "p"}
    engine.dispose()


def test_sqlite_writes_ahead_and_has_every_commit_on_disk(tmp_path: object) -> None:
    engine = connect(f"sqlite:///{tmp_path}/nomads.db")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    engine.dispose()
