"""The database: SQLite on one machine, PostgreSQL at scale; reading, writing, and the commit that writers share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, OperationalError

from bot.domain.errors import NomadsError, Unavailable
from bot.storage.migrate import is_current, upgrade, upgrade_sqlite
from bot.storage.transaction import Transaction

BUSY_SECONDS = 0.8
"""How long a write waits for its turn, and then as long for SQLite's lock or a connection: with a question to Slack
before it, all within Slack's three seconds for an answer."""
T = TypeVar("T")


def connect(url: str) -> Engine:
    """An engine for the URL, set up for many threads. SQLite: WAL, every commit on disk before it is called done.

    Raises NomadsError where it is no URL of a database that can be used.
    """
    if not url.startswith("sqlite"):
        return _connect_to_server(url)
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
        """Whether it could be had within so many seconds."""
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
        return True  # it was handed over at the last moment

    def release(self) -> None:
        """Hand it to the one that has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class Database:
    """Transactions on one database. What is read and changed in one is said by the Transaction's parts."""

    def __init__(self, engine: Engine) -> None:
        """`engine` comes from `connect()`."""
        self._engine = engine
        self.single_writer = engine.dialect.name == "sqlite"
        """Whether the database lets one writer in at a time, whom readers do not wait for."""
        # SQLite makes other writers poll; a lock of our own lets them queue instead.
        self._writing = FairLock()
        self._gathering = threading.Lock()
        self._gathered: list[tuple[Callable[[Transaction], Any], Future[Any]]] = []

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads. Raises Unavailable where the database is locked or away."""
        with self._connection() as connection:
            yield Transaction(connection)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that writes, committed where the block ends and undone where it raises.

        Transactions do not nest: one within another of the same thread waits for itself. Raises Unavailable where the
        database is locked or away.
        """
        if self.single_writer and not self._writing.acquire(timeout=BUSY_SECONDS):
            raise Unavailable("The database is busy.")
        try:
            with self._connection(write=True) as connection:
                yield Transaction(connection)
        finally:
            if self.single_writer:
                self._writing.release()

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Make the change in a transaction and return its value, once it is committed. Raises what `begin()` raises.

        Changes that wait for SQLite at the same moment are committed together: under load, waiting for the disk and
        for one another costs more than the changes do. Where one of them fails, each is made again, alone.
        """
        if not self.single_writer:
            with self.begin() as transaction:
                return change(transaction)
        mine: Future[T] = Future()
        with self._gathering:
            first = not self._gathered
            self._gathered.append((change, mine))
        if first:  # and therefore the one who commits for all that come until it is their turn
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
        except BaseException as error:  # it belongs to the thread that waits
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
            with self._engine.connect().execution_options(nomads_write=write) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The database does not answer ({type(error.orig).__name__}).") from error
        except sa.exc.TimeoutError as error:  # every connection is in use
            raise Unavailable("The database is busy.") from error

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def migrate(self) -> None:
        """Bring the tables up to date. Costs two queries where they are. Raises Unavailable."""
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
