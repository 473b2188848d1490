"""Transactions of the store: what happens together, and who comes next."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError, OperationalError

from bot.app import QUICK, build_core
from bot.application.health import Readiness
from bot.application.ledger import Ledger
from bot.domain.errors import InvalidRequest, NomadsError, Unavailable
from bot.domain.health import Health
from bot.domain.states import JobState
from bot.domain.urls import DATABASE
from bot.settings import Settings
from bot.storage import engine
from bot.storage.engine import Database, connect
from bot.storage.jobs import Jobs
from bot.storage.tables import jobs, leader_leases, secrets
from bot.storage.transaction import Transaction
from bot.storage.unreachable import unreachable
from tests.support.databases import new_sqlite
from tests.support.rows import Rows
from tests.support.waiting import until
from tests.support.world import World


def _count(store: Database, table: sa.Table) -> int:
    with store.begin() as transaction:
        return transaction.connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


@pytest.fixture
def sqlite_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr("bot.storage.engine.BUSY_SECONDS", 30)
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    yield store
    store.close()


def _seal(transaction: Transaction, reference: str) -> None:
    transaction.sealed.add(reference, "owner", b"sealed", at=datetime.now(UTC))


def _sealed(store: Database, reference: str) -> bytes | None:
    with store.read() as transaction:
        return transaction.sealed.get(reference)


def test_what_a_transaction_wrote_is_gone_where_it_raises(store: Database) -> None:
    def half() -> None:
        with store.begin() as transaction:
            _seal(transaction, "r")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert _sealed(store, "r") is None


def test_what_breaks_a_constraint_is_the_caller_s_to_know(store: Database) -> None:
    def twice(transaction: Transaction) -> None:
        for _ in range(2):
            _seal(transaction, "r")

    with pytest.raises(IntegrityError):
        store.write(twice)


def test_what_is_written_in_a_transaction_for_reading_does_not_stay(store: Database) -> None:
    with store.read() as transaction:
        _seal(transaction, "r")
    assert _sealed(store, "r") is None


def test_on_sqlite_all_that_a_transaction_reads_is_of_one_moment(sqlite_store: Database) -> None:
    with sqlite_store.read() as transaction:
        assert transaction.sealed.get("r") is None
        sqlite_store.write(_keep("r"))
        assert transaction.sealed.get("r") is None
    assert _sealed(sqlite_store, "r")


def test_a_transaction_within_another_is_a_mistake_that_is_told_at_once(store: Database) -> None:
    with store.begin(), pytest.raises(RuntimeError, match="within another"):
        store.begin().__enter__()
    with store.begin(), pytest.raises(RuntimeError, match="within another"):
        store.write(_keep("r"))
    with store.begin() as transaction:
        _seal(transaction, "afterwards")
    assert _sealed(store, "afterwards")


def test_a_token_is_kept_only_together_with_its_job(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr(Jobs, "add", broken)
    with pytest.raises(RuntimeError):
        World(store).accept()
    assert _count(store, secrets) == 0


def test_a_second_request_with_the_same_key_leaves_one_job_and_one_token(store: Database) -> None:
    world = World(store)
    once, again = (world.accept(key="k") for _ in range(2))
    assert once == again
    assert _count(store, jobs) == _count(store, secrets) == 1


def test_a_job_that_was_taken_stays_taken_although_it_would_be_refused_now(store: Database) -> None:
    job = World(store).submit(key="k")
    stricter = World(store, max_bytes=1)
    assert stricter.submit(key="k") == job
    with pytest.raises(InvalidRequest):
        stricter.submit(key="another")


def test_writers_come_to_their_turn_in_the_order_in_which_they_asked(sqlite_store: Database) -> None:
    store = sqlite_store
    order: list[int] = []

    def write(number: int) -> None:
        with store.begin():
            order.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    queue = store._writing._waiting
    with store.begin():
        for already, thread in enumerate(threads):
            thread.start()
            until(partial(_longer, queue, already))
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def _write_together(store: Database, changes: Sequence[Callable[[Transaction], str]]) -> list[Future[str]]:
    """Let all the changes wait for a transaction that is under way, and then come through."""
    with ThreadPoolExecutor(len(changes)) as pool, store.begin():
        made = [pool.submit(store.write, change) for change in changes]
        until(lambda: len(store._gathered) == len(changes))
    return made


def _keep(name: str) -> Callable[[Transaction], str]:
    def change(transaction: Transaction) -> str:
        _seal(transaction, name)
        return name

    return change


def test_changes_that_wait_at_the_same_time_share_a_commit(sqlite_store: Database) -> None:
    commits: list[object] = []
    sa.event.listen(sqlite_store._engine, "commit", commits.append)
    made = _write_together(sqlite_store, [_keep(f"r{n}") for n in range(10)])
    assert [future.result() for future in made] == [f"r{n}" for n in range(10)]
    assert _count(sqlite_store, secrets) == 10
    assert len(commits) == 3, "the transaction they waited for, theirs, and the count's"


def test_a_change_that_fails_takes_no_other_with_it(sqlite_store: Database) -> None:
    def broken(transaction: Transaction) -> str:
        _seal(transaction, "half")
        raise RuntimeError("this one")

    good = [_keep(f"r{n}") for n in range(4)]
    made = _write_together(sqlite_store, [*good[:2], broken, *good[2:]])
    assert [str(future.exception() or future.result()) for future in made] == ["r0", "r1", "this one", "r2", "r3"]
    assert _count(sqlite_store, secrets) == 4
    assert _sealed(sqlite_store, "half") is None


def test_changes_that_could_not_be_written_in_time_are_unavailable_and_not_made_later(
    sqlite_store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.storage.engine.BUSY_SECONDS", 0.1)
    with ThreadPoolExecutor(4) as pool, sqlite_store.begin():
        made = [pool.submit(sqlite_store.write, _keep(f"r{n}")) for n in range(4)]
        assert all(isinstance(future.exception(30), Unavailable) for future in made)
    assert _count(sqlite_store, secrets) == 0


def _longer(queue: Sized, than: int) -> bool:
    return len(queue) > than


def test_a_write_that_waited_in_vain_is_not_tried_again(
    sqlite_store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    monkeypatch.setattr(sqlite_store._writing, "acquire", lambda *, timeout: tried.append(timeout))
    with pytest.raises(Unavailable, match=r"^The database is busy\.$"):
        sqlite_store.write(_keep("r"))
    assert len(tried) == 1


def _patience(store: Database) -> float:
    """Seconds for which SQLite's lock is waited for."""
    with store.read() as transaction:
        return (transaction.connection.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0) / 1000


def test_a_write_that_waits_as_long_as_it_may_leaves_slack_its_answer_in_three_seconds(tmp_path: Path) -> None:
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    assert QUICK + engine.BUSY_SECONDS + _patience(store) < 3, "a question to Slack, its turn, and SQLite's lock"
    store.close()


def test_sqlite_s_lock_is_waited_for_as_long_as_a_turn_also_after_the_log_was_emptied(sqlite_store: Database) -> None:
    before = _patience(sqlite_store)
    world = World(sqlite_store)
    _remembered(sqlite_store, world)
    world.people.forget_token("U01DEMO")
    assert before == _patience(sqlite_store) == engine.BUSY_SECONDS


def test_each_thread_that_serves_requests_or_works_has_a_connection_and_one_more_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.01)
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    with ExitStack() as held:
        for _ in range(64 + 16):
            held.enter_context(store.read())
        with pytest.raises(Unavailable, match=r"^The database is busy\.$"):
            held.enter_context(store.read())
    store.close()


class NotNow(Exception):
    """Instead of a connection to a server."""


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_server_is_asked_for_64_of_its_hundred_connections_at_most_and_for_none_longer_than_slack_waits(
    scheme: str,
) -> None:
    opened = connect(f"{scheme}://lab@db.test/nomads")
    asked: dict[str, Any] = {}

    def note(_dialect: object, _record: object, _positional: object, named: dict[str, Any]) -> None:
        asked.update(named)
        raise NotNow

    sa.event.listen(opened, "do_connect", note)
    with pytest.raises(NotNow):
        opened.connect()
    assert opened.dialect.driver == "psycopg"
    assert (asked["host"], asked["user"], asked["dbname"]) == ("db.test", "lab", "nomads")
    assert asked["connect_timeout"] < 3
    pool = opened.pool
    assert isinstance(pool, sa.QueuePool)
    assert (pool.size(), vars(pool)["_max_overflow"], pool.timeout()) == (16, 64 - 16, engine.BUSY_SECONDS)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_has_ended_meanwhile_is_not_used_again(store: Database) -> None:
    def process() -> object:
        with store.read() as transaction:
            return transaction.connection.scalar(sa.text("SELECT pg_backend_pid()"))

    ended = process()
    another = sa.create_engine(store._engine.url)
    with another.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:ended, 5000)"), {"ended": ended})
    another.dispose()
    assert process() != ended


@pytest.mark.parametrize("url", ["", "mysql://lab@db.test/nomads", "sqlite://", "sqlite:///:memory:", "postgresql:x"])
def test_a_database_that_cannot_be_used_is_told_with_what_can(url: str) -> None:
    with pytest.raises(NomadsError, match=rf"^NOMADS_DATABASE_URL cannot be used; write {DATABASE}\.$"):
        connect(url)


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    with store.begin() as transaction:
        mode = transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar()
        journal = transaction.connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    store.close()
    assert (mode, journal) == (2, "wal")


# The file of a SQLite database


def _accept(store: Database) -> object:
    return World(store).accept()


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_acknowledged_on_a_database_file_that_was_deleted_or_replaced(
    sqlite_store: Database, tmp_path: Path, replaced: bool
) -> None:
    world = World(sqlite_store)
    world.accept()
    file = tmp_path / "nomads.db"
    content = file.read_bytes()
    file.unlink()
    if replaced:
        file.with_suffix(".new").write_bytes(content)
        file.with_suffix(".new").rename(file)
    with pytest.raises(
        Unavailable, match=r"deleted or replaced while NOMADS runs\. Put it back, and start NOMADS anew"
    ):
        world.accept()
    assert file.exists() is replaced  # nor is an empty one made in its place
    assert "deleted or replaced" in Readiness(ledger=world.ledger, folder=tmp_path).now().problem


def test_a_database_file_that_is_gone_right_after_it_was_made_is_told(tmp_path: Path) -> None:
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    with store.read():
        (tmp_path / "nomads.db").unlink()
    with pytest.raises(Unavailable, match="deleted or replaced while NOMADS runs"):
        store.read().__enter__()
    store.close()


def test_a_database_file_that_was_replaced_is_not_brought_up_to_date(sqlite_store: Database, tmp_path: Path) -> None:
    with sqlite_store.read():
        new_sqlite(tmp_path / "another.db")
    (tmp_path / "another.db").rename(tmp_path / "nomads.db")
    with pytest.raises(Unavailable, match="deleted or replaced while NOMADS runs"):
        sqlite_store.migrate()


def test_a_file_that_is_no_database_is_told_whenever_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "nomads.db").write_bytes(b"hello, this is a text file\n" * 400)
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    with pytest.raises(Unavailable, match=r"^The database is damaged, or is no database\.$"):
        store.read().__enter__()
    store.close()


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_acknowledged_beside_a_journal_that_was_deleted_or_replaced(
    sqlite_store: Database, tmp_path: Path, ending: str, replaced: bool
) -> None:
    world = World(sqlite_store)
    world.accept()
    file = tmp_path / f"nomads.db{ending}"
    file.rename(tmp_path / "moved")
    if replaced:
        file.write_bytes((tmp_path / "moved").read_bytes())
    with pytest.raises(Unavailable, match="deleted or replaced while NOMADS runs"):
        world.accept()
    assert "deleted or replaced" in Readiness(ledger=world.ledger, folder=tmp_path).now().problem


def test_a_journal_that_ends_with_its_last_connection_is_made_anew(sqlite_store: Database, tmp_path: Path) -> None:
    world = World(sqlite_store)
    world.accept()
    sqlite_store.close()
    assert not (tmp_path / "nomads.db-wal").exists()
    (tmp_path / "nomads.db-wal").touch()  # takes the inode that was free
    (tmp_path / "keeps its inode").hardlink_to(tmp_path / "nomads.db-wal")
    (tmp_path / "nomads.db-wal").unlink()
    assert world.accept(x="0,64").id


def test_a_journal_that_was_deleted_is_noticed_although_one_of_the_connections_has_ended(
    sqlite_store: Database, tmp_path: Path
) -> None:
    with sqlite_store.read(), sqlite_store.read() as another:
        another.connection.invalidate()
    (tmp_path / "nomads.db-wal").rename(tmp_path / "moved")
    with pytest.raises(Unavailable, match="deleted or replaced while NOMADS runs"):
        sqlite_store.read().__enter__()


def test_the_journal_of_a_database_that_was_made_by_this_process_is_looked_for_too(tmp_path: Path) -> None:
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    store.migrate()
    (tmp_path / "nomads.db-wal").rename(tmp_path / "moved")
    with pytest.raises(Unavailable, match="deleted or replaced while NOMADS runs"):
        store.read().__enter__()
    store.close()


def test_a_journal_that_ends_while_it_is_looked_at_is_not_missed(
    sqlite_store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = engine._identity

    def after_the_last_connection(file: Path) -> tuple[int, int] | None:
        monkeypatch.undo()
        sqlite_store.close()
        return look(file)

    assert Rows(sqlite_store).count() == 0
    monkeypatch.setattr(engine, "_identity", after_the_last_connection)
    assert Rows(sqlite_store).count() == 0
    assert engine._identity is look


def test_a_database_in_a_folder_that_is_none_any_more_is_told_with_the_reason(tmp_path: Path) -> None:
    store = Database(connect(new_sqlite(tmp_path / "data" / "nomads.db")))
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").touch()
    with pytest.raises(Unavailable, match=r"^The database file cannot be read: Not a directory\.$"):
        store.read().__enter__()


def test_a_file_that_sqlite_finds_by_an_address_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Database(connect("sqlite:///file:nomads.db?uri=true"))
    store.migrate()
    assert World(store).accept().id
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["nomads.db"]


# Who may read it


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


PRIVATE = {"nomads.db": 0o600, "nomads.db-wal": 0o600, "nomads.db-shm": 0o600}


def test_a_database_is_for_its_owner_alone_from_its_first_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    before = os.umask(0)
    try:
        with store.begin():
            assert _modes(tmp_path) == PRIVATE
    finally:
        os.umask(before)
    store.close()


def test_a_database_that_others_could_read_is_closed_to_them(sqlite_store: Database, tmp_path: Path) -> None:
    World(sqlite_store).accept()
    for path in tmp_path.iterdir():
        path.chmod(0o666)
    another = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    with another.read():
        assert _modes(tmp_path) == PRIVATE
    another.close()


def test_a_database_that_is_only_read_says_when_it_was_written_last(tmp_path: Path) -> None:
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    os.utime(tmp_path / "nomads.db", (1, 1))
    with store.read():
        assert (tmp_path / "nomads.db").stat().st_mtime == 1
    store.close()


@pytest.mark.parametrize("put", [-3600.0, 3600.0])
def test_an_old_effect_is_told_of_in_time_whatever_the_clock_does(
    sqlite_store: Database, tmp_path: Path, put: float
) -> None:
    world = World(sqlite_store)
    world.accept()

    def ready() -> str:
        return Readiness(ledger=world.ledger, folder=tmp_path).now().note

    assert ready() == ""
    world.clock.put(put)
    world.clock.advance(290)
    assert ready() == ""
    world.clock.advance(11)
    assert "has waited 5 min 1 s" in ready()


def test_a_file_that_disappears_while_a_transaction_writes_acknowledges_nothing(
    sqlite_store: Database, tmp_path: Path
) -> None:
    def delete(transaction: Transaction) -> None:
        _seal(transaction, "r")
        (tmp_path / "nomads.db").unlink()

    with pytest.raises(Unavailable, match="deleted or replaced"):
        sqlite_store.write(delete)


@pytest.mark.parametrize("damage", ["no database", "its first page", "a page within"])
def test_a_damaged_database_is_a_sentence_at_the_start(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "nomads.db"
    new_sqlite(file)
    content = bytearray(file.read_bytes())
    match damage:
        case "no database":
            content = bytearray(b"hello, this is a text file\n" * 400)
        case "its first page":
            content[100:4096] = bytes(range(256)) * 15 + bytes(156)
        case _:
            content[4096:8192] = b"\xff" * 4096
    file.write_bytes(content)
    store = Database(connect(f"sqlite:///{file}"))
    with pytest.raises(NomadsError, match=r"nomads\.db is damaged \(.+\)\. Restore it from a backup; or move it away"):
        store.migrate()
    store.close()


@pytest.mark.parametrize("beside", ["secret.key", "runs", "results"])
def test_an_empty_file_in_a_folder_that_was_used_is_a_sentence_at_the_start(
    tmp_path: Path, beside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0)
    (tmp_path / "nomads.db").touch()
    (tmp_path / beside).mkdir()
    says = rf"nomads\.db is empty, although {beside} of an earlier start lie beside it\. Restore it from a backup; or"
    with pytest.raises(NomadsError, match=says):
        connect(f"sqlite:///{tmp_path / 'nomads.db'}")
    assert (tmp_path / "nomads.db").stat().st_size == 0


def test_a_folder_that_was_used_and_has_no_database_is_given_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "secret.key").touch()
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    store.migrate()
    assert _count(store, jobs) == 0
    store.close()


@pytest.mark.parametrize("more", [0, 1])
def test_a_file_of_more_than_256_mib_is_not_read_whole_at_the_start(tmp_path: Path, more: int) -> None:
    file = tmp_path / "nomads.db"
    new_sqlite(file)
    content = bytearray(file.read_bytes())
    content[-4096:] = b"\xff" * 4096
    file.write_bytes(content)
    os.truncate(file, 256 * 2**20 + more)
    store = Database(connect(f"sqlite:///{file}"))
    if more:
        store.migrate()
    else:
        with pytest.raises(NomadsError, match="is damaged"):
            store.migrate()
    store.close()


def test_an_empty_file_in_an_empty_folder_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "nomads.db").touch()
    core = build_core(Settings(data=tmp_path))
    core.database.migrate()
    assert (tmp_path / "secret.key").exists()
    assert _count(core.database, jobs) == 0
    core.close()


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nomads.db"
    file.touch()
    (tmp_path / "secret.key").touch()
    monkeypatch.setattr("bot.storage.engine.time.sleep", lambda _: file.write_bytes(b"x" * 4096))
    connect(f"sqlite:///{file}").dispose()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere/x.db", "there is no folder {folder}/nowhere"),
        ("a-folder", "this is a folder"),
        ("locked.db", "another process keeps it locked"),
    ],
)
def test_a_file_that_cannot_be_used_at_the_start_is_told_by_its_place_and_the_reason(
    tmp_path: Path, place: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.01)
    (tmp_path / "a-folder").mkdir()
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = Database(connect(f"sqlite:///{tmp_path / place}"))
    with pytest.raises(Unavailable) as caught:
        store.migrate()
    store.close()
    other.close()
    assert str(caught.value) == (
        f"The database {tmp_path / place} cannot be used: {why.format(folder=tmp_path)}. "
        "Mend that, or correct NOMADS_DATABASE_URL, or NOMADS_DATA where that is not set."
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('FATAL:  password authentication failed for user "lab"', "it does not take the user and password"),
        ('FATAL:  database "nomads" does not exist', "it has no database of that name"),
        ('FATAL:  role "lab" does not exist', "it has no user of that name"),
        ("failed to resolve host 'db.test': Name or service not known", "there is no host of that name"),
        ("connection timeout expired", "it did not answer in time"),
        ("server sent secret-word", "it does not answer as PostgreSQL does"),
    ],
)
def test_what_a_server_says_is_told_in_words_of_ours(said: str, why: str) -> None:
    url = sa.make_url("postgresql+psycopg://lab:secret-word@db.test/nomads")
    told = unreachable(url, OperationalError("", {}, Exception(said)))
    assert told == (
        f"The database “nomads” at db.test cannot be used: {why}. Mend that, or correct NOMADS_DATABASE_URL."
    )


# Tokens that were forgotten


def _remembered(store: Database, world: World) -> tuple[str, bytes]:
    """The reference of a token that a person saved, and the token as it is stored."""
    world.people.save_token("U01DEMO", SecretStr("a-token-of-some-length-WXYZ"))
    reference = Rows(store).person("U01DEMO").token_ref
    assert reference
    sealed = _sealed(store, reference)
    assert sealed
    return reference, sealed


def _on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("nomads.db*")))


def test_a_forgotten_token_is_gone_from_file_log_and_free_pages_at_once(sqlite_store: Database, tmp_path: Path) -> None:
    world = World(sqlite_store)
    reference, sealed = _remembered(sqlite_store, world)
    assert sealed in _on_disk(tmp_path)
    world.people.forget_token("U01DEMO")
    left = _on_disk(tmp_path)
    assert sealed not in left
    assert sealed[20:40] not in left  # nor a part
    assert reference.encode() not in left
    world.accept()
    assert (tmp_path / "nomads.db-wal").stat().st_size, "the log is not emptied by each write"


def test_the_tokens_of_many_jobs_are_gone_once_they_have_ended(sqlite_store: Database, tmp_path: Path) -> None:
    world = World(sqlite_store)
    jobs = [world.accept() for _ in range(40)]
    with sqlite_store.read() as transaction:
        sealed = [bytes(row) for row in transaction.connection.scalars(sa.select(secrets.c.sealed))]
    assert len(sealed) == 40
    for job in jobs:
        world.settle()
        world.see(job, JobState.FAILED)
    world.settle()
    left = _on_disk(tmp_path)
    assert not [one for one in sealed if one in left]


def test_a_token_that_somebody_still_reads_is_gone_as_soon_as_they_have_read(
    sqlite_store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = sa.create_engine(f"sqlite:///{tmp_path / 'nomads.db'}")
    world = World(sqlite_store)
    _, sealed = _remembered(sqlite_store, world)
    with another.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT count(*) FROM secrets").scalar()
        began = time.monotonic()
        world.people.forget_token("U01DEMO")
        assert time.monotonic() - began < engine.BUSY_SECONDS / 10, "no write waits for whoever reads"
        reader.rollback()
    world.worker.lanes.keep_leases()
    assert sealed not in _on_disk(tmp_path)
    another.dispose()


class Killed(BaseException):
    """The end of the process."""


def test_what_a_process_had_erased_when_it_was_killed_is_gone_with_the_first_write_of_the_next(
    sqlite_store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(sqlite_store)
    _, sealed = _remembered(sqlite_store, world)
    with monkeypatch.context() as patched:
        patched.setattr(Database, "_scrub", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            world.people.forget_token("U01DEMO")
    assert sealed in _on_disk(tmp_path)
    after = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    after.migrate()
    with after.begin():
        pass
    assert sealed not in _on_disk(tmp_path)
    after.close()


def test_where_nothing_was_erased_nothing_is_written_to_empty_the_log(store: Database) -> None:
    commits: list[object] = []
    sa.event.listen(store._engine, "commit", commits.append)
    store.scrub()
    assert commits == []


# Whether the process can work


def test_whether_the_database_takes_writes_is_found_out_by_one(store: Database) -> None:
    def leases() -> Sequence[object]:
        with store.read() as transaction:
            return transaction.connection.execute(sa.select(leader_leases.c.until)).scalars().all()

    before = leases()
    store.probe(at=datetime.now(UTC))
    assert leases() != before


def test_a_database_that_takes_no_write_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.storage.engine.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("bot.application.health.KEPT", 3600)
    url = new_sqlite(tmp_path / "nomads.db")
    store, another = Database(connect(url)), Database(connect(url))
    ready = Readiness(ledger=Ledger(database=store), folder=tmp_path)
    with another.begin():
        assert ready.now().problem == "The database does not answer (OperationalError)."
    assert ready.now().problem  # whoever asks too often causes no more writes
    assert Readiness(ledger=Ledger(database=store), folder=tmp_path).now() == Health()
    for opened in (store, another):
        opened.close()


def test_a_full_disk_is_not_ready(sqlite_store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.application.health.LEAST_FREE", shutil.disk_usage(tmp_path).total + 1)
    found = Readiness(ledger=Ledger(database=sqlite_store), folder=tmp_path).now()
    assert re.fullmatch(r"The disk of the data folder is nearly full: [0-9.,]+ [kMGT]B are left\.", found.problem)


def test_an_effect_that_is_open_for_more_than_five_minutes_is_told(store: Database, tmp_path: Path) -> None:
    world = World(store)
    world.chat.fail_next(Unavailable("no answer"), call="post_card", times=100)
    world.accept()
    world.worker.lanes.drain()
    world.clock.advance(299)
    assert Readiness(ledger=world.ledger, folder=tmp_path).now() == Health()
    world.worker.lanes.drain()  # it was tried again, and put off again
    world.clock.advance(32)
    found = Readiness(ledger=world.ledger, folder=tmp_path).now()
    assert found == Health(note="the oldest open effect has waited 5 min 31 s; `nomads doctor` says more")
