"""Transactions of the store: what happens together, and who comes next."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from bot.app import build_core
from bot.application.health import Readiness
from bot.application.ledger import Ledger
from bot.domain.errors import InvalidRequest, NomadsError, Unavailable
from bot.domain.health import Health
from bot.domain.states import JobState
from bot.settings import Settings
from bot.storage import engine
from bot.storage.engine import Database, connect
from bot.storage.jobs import Jobs
from bot.storage.tables import jobs, secrets
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
    store = Database(connect(f"sqlite:///{tmp_path / 'nomads.db'}"))
    store.migrate()
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


def test_what_is_written_in_a_transaction_for_reading_does_not_stay(store: Database) -> None:
    with store.read() as transaction:
        _seal(transaction, "r")
    assert _sealed(store, "r") is None


def test_a_transaction_within_another_is_a_mistake_that_is_told_at_once(store: Database) -> None:
    with store.begin(), pytest.raises(RuntimeError, match="within another"):
        store.begin().__enter__()
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


# Whether the process can work


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
