"""Transactions of the store: what happens together, and who comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.domain.errors import InvalidRequest, Unavailable
from bot.storage.engine import Database, connect
from bot.storage.jobs import Jobs
from bot.storage.tables import jobs, secrets
from bot.storage.transaction import Transaction
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
