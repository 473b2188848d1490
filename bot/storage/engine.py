"""The database: SQLite on one machine, PostgreSQL at scale; reading, writing, and the commit that writers share."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, OperationalError

from bot.domain.errors import NomadsError, Unavailable
from bot.storage.migrate import is_current, upgrade, upgrade_sqlite
from bot.storage.transaction import Transaction

BUSY_SECONDS = 0.8
"""Seconds that a write waits for its turn, and as long again for SQLite's lock or a connection: with one question to
Slack before it, less than the three seconds that Slack gives for an answer."""
T = TypeVar("T")


def connect(url: str) -> Engine:
    """An engine for the URL, set up for many threads. On SQLite: WAL, and a commit returns once it is on disk.

    Raises NomadsError where the URL is not one of a database that can be used.
    """
    if not url.startswith("sqlite"):
        return _connect_to_server(url)
    _keep_private(sa.make_url(url).database)
    engine = sa.create_engine(url, pool_size=64, max_overflow=16, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # this module says BEGIN itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("nomads_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _keep_private(path: str | None) -> None:
    """Make an SQLite file and its companions readable by their owner alone, whatever the umask says."""
    if not path or path == ":memory:" or path.startswith("file:"):
        return
    with suppress(OSError):  # what cannot be opened is told by the first question
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's -wal and -shm follow it
    for file in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):
            Path(file).chmod(0o600)


def _connect_to_server(url: str) -> Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):  # as most people write it
            parsed = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(
            parsed,
            pool_size=16,
            max_overflow=48,
            pool_pre_ping=True,
            pool_timeout=BUSY_SECONDS,
            connect_args=_patience(parsed),
        )
    except (ArgumentError, ImportError):
        raise NomadsError(
            "NOMADS_DATABASE_URL cannot be used; write postgresql://user:password@host/name or sqlite:///path."
        ) from None


def _patience(url: sa.URL) -> dict[str, Any]:
    return {"connect_timeout": 2} if url.get_backend_name() == "postgresql" else {}


class FairLock:
    """A lock that is handed to its waiters in the order in which they came.

    Python's own lock goes to the quickest thread: under load some threads, the worker's among them, would wait for
    seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, *, timeout: float) -> bool:
        """Take the lock; False where it was not to be had within `timeout` seconds."""
        with self._lock:
            if not self._held:
                self._held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
        return True  # the lock was handed over at the last moment

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class Database:
    """Transactions on one database. The parts of Transaction say what can be read and changed in one."""

    def __init__(self, engine: Engine) -> None:
        """`engine` comes from `connect()`."""
        self._engine = engine
        self.single_writer = engine.dialect.name == "sqlite"
        """Whether the database admits one writer at a time (SQLite); readers do not wait for the writer."""
        # SQLite makes other writers poll; a lock of our own lets them queue instead.
        self._writing = FairLock()
        self._thread = threading.local()
        self._gathering = threading.Lock()
        self._gathered: list[tuple[Callable[[Transaction], Any], Future[Any]]] = []

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction for reading: rolled back at its end, so that nothing written in it stays.

        Raises Unavailable where the database is locked or cannot be reached.
        """
        with self._connection() as connection:
            try:
                yield Transaction(connection)
            finally:
                connection.rollback()

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that writes: committed where the block ends, rolled back where the block raises.

        Raises Unavailable where the database is locked or cannot be reached, and RuntimeError within another of the
        same thread: transactions do not nest, and on SQLite the inner one would wait for the outer one.
        """
        if getattr(self._thread, "writes", False):
            raise RuntimeError("A transaction was begun within another one.")
        if self.single_writer and not self._writing.acquire(timeout=BUSY_SECONDS):
            raise Unavailable("The database is busy.")
        try:
            with self._connection(write=True) as connection, connection.begin():
                self._thread.writes = True
                yield Transaction(connection)
        finally:
            self._thread.writes = False
            if self.single_writer:
                self._writing.release()

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a transaction; returns its value once committed. Raises as `change` and `begin()` do.

        Changes that wait for SQLite at the same moment share one commit: under load, waiting for the disk and for one
        another costs more than the changes do. Where one of them fails, each runs again in a transaction of its own, so
        `change` must change nothing but the database.
        """
        if not self.single_writer:
            with self.begin() as transaction:
                return change(transaction)
        mine: Future[T] = Future()
        with self._gathering:
            first = not self._gathered
            self._gathered.append((change, mine))
        if first:  # the first thread commits for all that come until its turn
            self._commit_gathered()
        return mine.result()

    def _commit_gathered(self) -> None:
        together: list[tuple[Callable[[Transaction], Any], Future[Any]]] = []
        try:
            with self.begin() as transaction:
                together = self._gather()
                values = [change(transaction) for change, _ in together]
        except Unavailable as error:
            for _, waiting in together or self._gather():
                waiting.set_exception(error)
        except BaseException:
            for change, waiting in together or self._gather():
                self._commit_alone(change, waiting)
        else:
            for (_, waiting), value in zip(together, values, strict=True):
                waiting.set_result(value)

    def _commit_alone(self, change: Callable[[Transaction], Any], waiting: Future[Any]) -> None:
        try:
            with self.begin() as transaction:
                value = change(transaction)
        except BaseException as error:  # the error belongs to the thread that waits for the change
            waiting.set_exception(error)
        else:
            waiting.set_result(value)

    def _gather(self) -> list[tuple[Callable[[Transaction], Any], Future[Any]]]:
        with self._gathering:
            gathered, self._gathered = self._gathered, []
        return gathered

    @contextmanager
    def _connection(self, *, write: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(nomads_write=write) as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The database does not answer ({type(error.orig).__name__}).") from error
        except sa.exc.TimeoutError as error:  # every connection is in use
            raise Unavailable("The database is busy.") from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def migrate(self) -> None:
        """Bring the tables up to date; where they are, this costs two queries. Raises Unavailable and NomadsError."""
        with self.begin() as transaction:
            if is_current(transaction.connection):
                return
        if not self.single_writer:
            with self.begin() as transaction:  # one process migrates, the others wait and find it done
                transaction.connection.execute(sa.text("SELECT pg_advisory_xact_lock(20180712)"))
                upgrade(transaction.connection)
            return
        try:
            with self._engine.connect().execution_options(nomads_write=True) as connection:
                upgrade_sqlite(connection)
        except OperationalError as error:
            raise Unavailable(f"The database does not answer ({type(error.orig).__name__}).") from error
