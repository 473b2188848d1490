"""The database: SQLite on one machine, PostgreSQL at scale; reading, writing, and the commit that writers share."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from bot.domain import urls, words
from bot.domain.errors import NomadsError, Unavailable
from bot.storage.migrate import is_current, upgrade, upgrade_sqlite
from bot.storage.transaction import Transaction
from bot.storage.unreachable import unreachable

BUSY_SECONDS = 0.8
"""Seconds that a write waits for its turn, and as long again for SQLite's lock or a connection: with one question to
Slack before it, less than the three seconds that Slack gives for an answer."""
EMPTY_SECONDS = 0.05
"""Seconds between two looks at a file that another process is making, or may be."""
_LEFT_BESIDE = ("secret.key", "runs", "results")
"""What NOMADS makes in its data folder, from the first start on and with the first job."""
T = TypeVar("T")


def connect(url: str) -> Engine:
    """An engine for the URL, set up for many threads. On SQLite: WAL, and a commit returns once it is on disk.

    Raises NomadsError where the URL is not one of a database that can be used, and where a SQLite file is empty in a
    folder that NOMADS has used: what was in it is lost, and nobody may take it for a new one.
    """
    try:
        return _sqlite(urls.database(url)) if url.startswith("sqlite") else _server(urls.database(url))
    except (ArgumentError, ImportError, TypeError, ValueError):  # TypeError: in memory, by an option
        raise NomadsError(f"NOMADS_DATABASE_URL cannot be used; write {urls.DATABASE}.") from None


def _sqlite(url: str) -> Engine:
    engine = sa.create_engine(
        url, pool_size=64, max_overflow=16, pool_timeout=BUSY_SECONDS, connect_args={"timeout": BUSY_SECONDS}
    )
    if file := _file(engine.url):
        _refuse_emptied(file)
        sa.event.listen(engine, "do_connect", lambda *_: _keep_private(file))

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        _keep_log_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _keep_log_ahead(connection: Any) -> None:
    """Have a database a write-ahead log. SQLite itself does not wait where another process makes one at that moment."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(EMPTY_SECONDS)  # with a new file alone, for BUSY_SECONDS at most


def begun(connection: Connection, *, write: bool) -> None:
    """Begin the connection's transaction, before any statement, so that SQLite's driver begins nothing itself.

    On SQLite one that writes waits for its turn now, and not in its midst. An event of the engine's would do the same,
    and have SQLAlchemy look for events at each statement.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _file(url: sa.URL) -> Path | None:
    """The file of a SQLite database; None: it is in a server, or SQLite itself reads where it is (`file:…`)."""
    name = str(url.database)
    return Path(name) if url.get_backend_name() == "sqlite" and not name.startswith("file:") else None


def _refuse_emptied(path: Path) -> None:
    """Raise NomadsError where the file is empty and something of NOMADS lies beside it.

    Another process that makes the file at this moment has it empty for an instant.
    """
    beside = [name for name in _LEFT_BESIDE if (path.parent / name).exists()]
    until = time.monotonic() + BUSY_SECONDS
    while beside and path.is_file() and not path.stat().st_size:
        if time.monotonic() >= until:
            raise NomadsError(
                f"The database {path} is empty, although {words.listed(beside)} of an earlier start lie beside it. "
                "Restore it from a backup; or delete it, and NOMADS begins with a new one."
            )
        time.sleep(EMPTY_SECONDS)  # at a start alone, for BUSY_SECONDS at most; nothing tells when the other is done


def _keep_private(path: Path) -> None:
    """Make an SQLite file and its companions readable by their owner alone, whatever the umask says."""
    # Made here, so that it has its mode from the start, as SQLite's -wal and -shm then do. One that is there is not
    # opened: to close it again would give up the locks that SQLite holds on it in this process.
    with suppress(OSError):  # what cannot be made is told by the first question
        path.touch(mode=0o600, exist_ok=False)
    for file in (path, *_companions(path)):
        with suppress(OSError):
            file.chmod(0o600)


def _companions(path: Path) -> Sequence[Path]:
    """What SQLite keeps beside a database."""
    return [Path(f"{path}{ending}") for ending in ("-wal", "-shm")]


def _server(url: str) -> Engine:
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),  # most people write it without the driver
        pool_size=16,
        max_overflow=48,
        pool_pre_ping=True,
        pool_timeout=BUSY_SECONDS,
        connect_args={"connect_timeout": 2},
    )


class SqliteFile:
    """The files of a SQLite database: whether they are still those that were opened.

    SQLite goes on writing to a file that was deleted or replaced, and what it writes is lost with the process. What was
    committed last is in the write-ahead log alone, `-wal`, which other processes find by `-shm`.
    """

    def __init__(self, url: sa.URL) -> None:
        self.path = _file(url)
        """None: the database is in a server, or SQLite itself reads where it is."""
        self._opened: tuple[int, int] | None = None
        self._beside: dict[Path, tuple[int, int]] = {}
        self._connections: set[Any] = set()
        self._counting = threading.Lock()

    def follow(self, engine: Engine) -> None:
        """Learn from the engine's connections which files lie beside the database.

        SQLite deletes these when the last connection of all processes ends: only while there is one do they stay.
        """
        if self.path is not None:
            sa.event.listen(engine, "connect", self._joined)
            sa.event.listen(engine, "close", self._left)

    def _joined(self, connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA schema_version").fetchone()  # from now on it has the files open
        with self._counting:
            if not self._connections:
                files = _companions(self.path) if self.path else ()
                self._beside = {file: found for file in files if (found := _identity(file))}
            self._connections.add(connection)

    def _left(self, connection: Any, _record: Any) -> None:
        with self._counting:
            self._connections.discard(connection)  # one that is older than this object was never among them
            if not self._connections:
                self._beside = {}

    def check(self) -> None:
        """Raise Unavailable where a file is gone or another one; the first call says which one the database is."""
        if self.path is None:
            return
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if self._opened is None:  # it is about to be made
                return
            raise Unavailable(_GONE) from None
        except OSError as error:
            raise Unavailable(f"The database file cannot be read: {error.strerror}.") from None
        found = (status.st_dev, status.st_ino)
        if self._opened is None:
            self._opened = found
        elif found != self._opened:
            raise Unavailable(_GONE)
        beside = self._beside
        if any(_identity(file) != opened for file, opened in beside.items()) and beside is self._beside:
            raise Unavailable(_GONE)


def _identity(file: Path) -> tuple[int, int] | None:
    """Device and inode; None where there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_GONE = (
    "The database file, or one beside it, was deleted or replaced while NOMADS runs. "
    "Put it back, and start NOMADS anew."
)
CHECKED_AT_START = 256 * 2**20
"""Bytes of the largest SQLite file that is checked for damage at the start: it is read whole."""


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
        turn.acquire(timeout=timeout)
        with self._lock:
            if turn not in self._waiting:  # the lock was handed over, be it at the last moment
                return True
            self._waiting.remove(turn)
            return False

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
        self._file = SqliteFile(engine.url)
        self._file.follow(engine)
        self.single_writer = engine.dialect.name == "sqlite"
        """Whether the database admits one writer at a time (SQLite); readers do not wait for the writer."""
        # SQLite makes other writers poll; a lock of our own lets them queue instead.
        self._writing = FairLock()
        self._thread = threading.local()
        self._to_scrub = False
        self._gathering = threading.Lock()
        self._gathered: list[tuple[Callable[[Transaction], Any], Future[Any]]] = []

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction for reading: rolled back at its end, with its connection, so that nothing written in it stays.

        Raises Unavailable where the database is locked or cannot be reached.
        """
        with self._connection() as connection:
            yield Transaction(connection)

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
            with self._connection(write=True) as connection:
                self._thread.writes = True
                transaction = Transaction(connection)
                yield transaction
                connection.commit()
                self._file.check()
                self._to_scrub |= self.single_writer and transaction.sealed.erased
                if self._to_scrub:
                    self._scrub(connection)
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
                made = [(waiting, change(transaction)) for change, waiting in together]
        except Unavailable as error:
            for _, waiting in together or self._gather():
                waiting.set_exception(error)
        except BaseException:
            for change, waiting in together or self._gather():
                self._commit_alone(change, waiting)
        else:
            for waiting, value in made:
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
        """A connection within a transaction that is rolled back at its end, unless it was committed."""
        with self._connected() as connection:
            begun(connection, write=write)
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        self._file.check()
        try:
            with self._engine.connect() as connection:
                self._file.check()  # the first connection makes the file
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The database does not answer ({type(error.orig).__name__}).") from error
        except DatabaseError as error:
            if type(error) is not DatabaseError:  # a constraint, say, of which the caller may know
                raise
            raise Unavailable("The database is damaged, or is no database.") from error
        except sa.exc.TimeoutError as error:  # every connection is in use
            raise Unavailable("The database is busy.") from error

    def _check_file(self) -> None:
        path = self._file.path
        try:
            if path is None or not path.exists() or path.stat().st_size > CHECKED_AT_START:
                return
            with self._connection() as connection:
                found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        except Unavailable as error:
            if not isinstance(error.__cause__, DatabaseError) or isinstance(error.__cause__, OperationalError):
                raise
            found = str(error.__cause__.orig)
        if found != "ok":
            raise NomadsError(
                f"The database {path} is damaged ({words.shortened(words.printable(found), 100)}). Restore it from a "
                "backup; or move it away, with the files beside it, and NOMADS begins with an empty one."
            )

    def probe(self, *, at: datetime) -> datetime | None:
        """Commit a small change. Returns since when the oldest open effect is open; None where none is.

        Raises Unavailable where the change cannot be committed.
        """
        with self.begin() as transaction:
            transaction.leader.acquire("ready", holder="ready", at=at, lasting=timedelta())
            return transaction.outbox.oldest()

    def scrub(self) -> None:
        """Where the content of an erased token may still lie in SQLite's write-ahead log, empty the log now.

        Raises Unavailable.
        """
        if self._to_scrub:
            with self.begin():
                pass

    def _scrub(self, connection: Connection) -> None:
        """Empty the write-ahead log. `secure_delete` overwrites erased rows in the file, but not in the log."""
        raw: Any = connection.connection.dbapi_connection  # a checkpoint is impossible within a transaction
        raw.execute("PRAGMA busy_timeout=0")  # other writers wait for this one, which must not wait for readers
        try:
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        self._to_scrub = bool(busy)  # somebody still reads what was there before: at the next write, then

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def migrate(self) -> None:
        """Bring the tables up to date; where they are, this costs two queries. Raises Unavailable and NomadsError.

        A SQLite file is checked for damage first, unless it is larger than CHECKED_AT_START. A database that cannot be
        reached is told by its setting, its place and the reason.
        """
        self._to_scrub = self.single_writer  # a process that was killed may have left what it had erased
        try:
            self._migrate()
        except Unavailable as error:
            if isinstance(error.__cause__, OperationalError):
                raise Unavailable(unreachable(self._engine.url, error.__cause__)) from error.__cause__
            raise

    def _migrate(self) -> None:
        self._check_file()
        with self.read() as transaction:  # without the lock that another process may hold while it migrates
            if is_current(transaction.connection):
                return
        if not self.single_writer:
            with self.begin() as transaction:  # one process migrates, the others wait and find it done
                transaction.connection.execute(sa.text("SELECT pg_advisory_xact_lock(20180712)"))
                upgrade(transaction.connection)
            return
        with self._connected() as connection:
            upgrade_sqlite(connection)
