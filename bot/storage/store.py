"""Where jobs, their story and their outbox are kept: SQLite on one machine, PostgreSQL at scale.

One transaction holds a change and the effects it calls for: neither can be lost without the other. No rule lives here.
"""

from __future__ import annotations

import hashlib
import secrets as entropy
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError

from bot.domain.errors import NomadsError, Unavailable, UnknownJob
from bot.domain.job import Job, Transition, Watched, now
from bot.domain.outbox import Effect, Kind, Lane
from bot.domain.people import TERMINAL, Person, Preferences, Steps
from bot.domain.request import JobRequest
from bot.domain.results import Summary
from bot.domain.states import FINAL, WATCHED, JobState
from bot.storage.tables import MIGRATIONS, REVISION, Utc, duties, effects, jobs, messages, people, secrets, transitions

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert


BUSY_SECONDS = 0.8
"""How long a write waits for its turn, and then as long for SQLite's lock or a connection: with a question to Slack
before it, all within Slack's three seconds for an answer."""
LONGEST_ID = 16
"""Characters of a job's id, of digits and small letters."""
T = TypeVar("T")


_earlier = effects.alias("earlier")
_FIRST = ~sa.exists().where(
    _earlier.c.job_id == effects.c.job_id,
    _earlier.c.lane == effects.c.lane,
    _earlier.c.done_at.is_(None),
    _earlier.c.id < effects.c.id,
)
"""True of the first open effect of a job's lane: the only one that may be done now."""
_CLAIMABLE = (
    sa.select(
        effects.c.id,
        effects.c.job_id,
        effects.c.kind,
        effects.c.subject,
        effects.c.attempts,
        effects.c.in_doubt,
    )
    .where(
        effects.c.done_at.is_(None),
        effects.c.lane == sa.bindparam("lane"),
        effects.c.due_at <= sa.bindparam("at", type_=Utc),
        sa.or_(effects.c.leased_until.is_(None), effects.c.leased_until <= sa.bindparam("at", type_=Utc)),
        _FIRST,
    )
    .order_by(effects.c.due_at, effects.c.id)
    .limit(sa.bindparam("most"))
    .with_for_update(skip_locked=True, of=effects)
)
_LEASE = (
    effects.update()
    .where(effects.c.id == sa.bindparam("claimed"))
    .values(
        lease=sa.bindparam("lease"),
        leased_until=sa.bindparam("leased_until"),
        attempts=effects.c.attempts + 1,
        in_doubt=True,
    )
)


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


class _Queue:
    """A lock that its waiters get in the order in which they came.

    Python's own goes to whoever is quickest: under load some would wait for seconds, the worker among them.
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


class JobStore:
    """The database. Every method of its own is one transaction; several changes at once go through `begin()`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite lets one writer in at a time and makes the others poll; a lock of our own lets them queue instead.
        self._writing = _Queue()
        self._thread = threading.local()
        self._gathering = threading.Lock()
        self._gathered: list[tuple[Callable[[Transaction], Any], Future[Any]]] = []

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that writes; begun within another one of the same thread, it is that one.

        Raises Unavailable where the database is locked or away.
        """
        if outer := getattr(self._thread, "transaction", None):
            yield outer
            return
        if self._sqlite and not self._writing.acquire(timeout=BUSY_SECONDS):
            raise Unavailable("The database is busy.")
        try:
            with self._connection(write=True) as connection:
                self._thread.transaction = Transaction(connection)
                yield self._thread.transaction
        finally:
            self._thread.transaction = None
            if self._sqlite:
                self._writing.release()

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Make the change in a transaction and return its value, once it is committed. Raises what `begin()` raises.

        Changes that wait for SQLite at the same moment are committed together: under load, waiting for the disk and
        for one another costs more than the changes do. Where one of them fails, each is made again, alone.
        """
        if not self._sqlite:
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
            if _is_new(transaction.connection):
                return
        if not self._sqlite:
            with self.begin() as transaction:  # one process migrates, the others wait and find it done
                transaction.connection.execute(sa.text("SELECT pg_advisory_xact_lock(20180712)"))
                _upgrade(transaction.connection)
            return
        try:
            with self._engine.connect().execution_options(nomads_write=True) as connection:
                _upgrade_sqlite(connection)
        except OperationalError as error:
            raise Unavailable(f"The database does not answer ({type(error.orig).__name__}).") from error

    def job(self, job_id: str) -> Job:
        """The job. Raises UnknownJob."""
        with self._connection() as connection:
            return _job(connection, jobs.c.id == job_id)

    def job_by_key(self, key: str) -> Job | None:
        """The job that was accepted under that key."""
        with self._connection() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.key == key)).one_or_none()
            return _to_job(row) if row else None

    def same_work(self, work: str) -> Job | None:
        """The newest job that does that work and has not ended, or else the newest that has done it."""
        with self._connection() as connection:
            return _same_work(connection, work)

    def runs(self, pipeline: str, *, most: int) -> list[tuple[int, float]]:
        """Voxels and seconds of the pipeline's last successful runs."""
        query = (
            sa.select(jobs.c.voxels, jobs.c.started_at, jobs.c.finished_at)
            .where(
                jobs.c.pipeline == pipeline, jobs.c.state == JobState.SUCCEEDED.value, jobs.c.started_at.is_not(None)
            )
            .order_by(jobs.c.finished_at.desc())
            .limit(most)
        )
        with self._connection() as connection:
            return [(voxels, (end - start).total_seconds()) for voxels, start, end in connection.execute(query)]

    def page(
        self, states: Iterable[JobState], *, actor: str | None = None, before: str | None = None, most: int
    ) -> list[Job]:
        """Up to `most` jobs in these states (of that person alone, where named), the newest first.

        With `before`, those that were accepted before that job. Each state is read by its own key and no further than
        needed, so a page costs the same however many jobs there are.
        """
        order = (jobs.c.accepted_at.desc(), jobs.c.id.desc())
        with self._connection() as connection:
            since = (
                before
                and connection.execute(
                    sa.select(jobs.c.accepted_at, jobs.c.id).where(jobs.c.id == before)
                ).one_or_none()
            )
            newest = sa.select(jobs.c.id, jobs.c.accepted_at).order_by(*order).limit(most)
            if actor is not None:
                newest = newest.where(jobs.c.actor == actor)
            if since:
                newest = newest.where(
                    sa.tuple_(jobs.c.accepted_at, jobs.c.id)
                    < sa.tuple_(sa.literal(since.accepted_at, Utc), sa.literal(since.id))
                )
            found = sa.union_all(
                *(sa.select(newest.where(jobs.c.state == state.value).subquery().c.id) for state in states)
            ).subquery()
            query = sa.select(jobs).where(jobs.c.id.in_(sa.select(found.c.id))).order_by(*order).limit(most)
            return [_to_job(row) for row in connection.execute(query)]

    def number_of(self, states: Iterable[JobState], *, actor: str) -> int:
        """How many of a person's jobs are in these states."""
        query = (
            sa.select(sa.func.count())
            .select_from(jobs)
            .where(jobs.c.actor == actor, jobs.c.state.in_([s.value for s in states]))
        )
        with self._connection() as connection:
            return connection.scalar(query) or 0

    def near(self, names: Sequence[str], *, beginning: str, most: int) -> list[str]:
        """Ids of jobs that are among these, or begin so (where that is not empty); the newest first."""
        among: sa.ColumnElement[bool] = jobs.c.id.in_(names)
        if beginning:  # a range of the key: no database needs an index of its own for it
            # "z", since in most languages' order, unlike ASCII's, marks such as "~" stand before the letters
            among |= jobs.c.id.between(beginning, beginning.ljust(LONGEST_ID, "z"))
        query = sa.select(jobs.c.id).where(among).order_by(jobs.c.accepted_at.desc()).limit(most)
        with self._connection() as connection:
            return list(connection.scalars(query))

    def person(self, person: str) -> Person:
        """What is kept of them; nothing, of a stranger."""
        with self._connection() as connection:
            return _person(connection, person)

    def transitions(self, job_id: str) -> list[Transition]:
        """The job's story, oldest first."""
        with self._connection() as connection:
            return _transitions(connection, job_id)

    def message(self, job_id: str, subject: str) -> str | None:
        """The timestamp of one of the job's messages, once it was posted."""
        with self._connection() as connection:
            return connection.scalar(
                sa.select(messages.c.timestamp).where(messages.c.job_id == job_id, messages.c.subject == subject)
            )

    def edited(self, job_id: str, subject: str) -> datetime | None:
        """When that message was last posted or edited."""
        with self._connection() as connection:
            at: datetime | None = connection.scalar(
                sa.select(messages.c.edited_at).where(messages.c.job_id == job_id, messages.c.subject == subject)
            )
            return at

    def watched(self) -> list[Watched]:
        """Every job compute has, in the order of their ids."""
        query = (
            sa.select(
                jobs.c.id,
                jobs.c.compute_id,
                jobs.c.state,
                jobs.c.submitted_at,
                sa.case((jobs.c.waiting == "", jobs.c.runnable_at)),
            )
            .where(jobs.c.state.in_([s.value for s in WATCHED]), jobs.c.compute_id.is_not(None))
            .order_by(jobs.c.id)
        )
        with self._connection() as connection:
            return [Watched(i, c, JobState(s), t, r) for i, c, s, t, r in connection.execute(query)]

    def claim(
        self,
        lane: Lane,
        *,
        limit: int,
        lease_for: timedelta,
        at: datetime,
        job_id: str | None = None,
        of_chat: bool = True,
    ) -> list[Effect]:
        """Lease up to `limit` due effects of the lane (of that job alone, where named), the longest due first.

        Of each job only the first open effect of the lane is ever leased, which keeps their order. Without `of_chat`
        jobs that a channel hears of are left alone, but for what compute does for those that are being cancelled, or
        were asked for at a terminal.
        """
        query = _CLAIMABLE if job_id is None else _CLAIMABLE.where(effects.c.job_id == job_id)
        if not of_chat:
            ours = jobs.c.request["channel"].as_string().is_(None)
            if lane is Lane.COMPUTE:
                ours |= jobs.c.cancelled_by.is_not(None) | jobs.c.actor.startswith(TERMINAL)
            query = query.where(sa.exists().where(jobs.c.id == effects.c.job_id, ours))
        values = {"lane": lane.value, "at": at, "most": limit}
        if self._sqlite:
            with self._connection() as connection:  # readers do not wait: an idle worker never takes the write lock
                if connection.execute(query, {**values, "most": 1}).first() is None:
                    return []
        lease = entropy.token_hex(8)
        with self.begin() as transaction:
            rows = transaction.connection.execute(query, values).all()
            if not rows:
                return []
            transaction.connection.execute(
                _LEASE, [{"claimed": row.id, "lease": lease, "leased_until": at + lease_for} for row in rows]
            )
        rows = sorted(rows, key=lambda row: row.id)
        return [Effect(r.id, r.job_id, Kind(r.kind), r.subject, r.attempts + 1, r.in_doubt, lease) for r in rows]

    def renew(self, held: Sequence[Effect], *, until: datetime) -> None:
        """Keep the leases of effects that are still being done."""
        if held:
            with self.begin() as transaction:
                transaction.connection.execute(
                    effects.update()
                    .where(
                        effects.c.id.in_([e.id for e in held]),
                        effects.c.lease.in_({e.lease for e in held}),
                        effects.c.done_at.is_(None),
                    )
                    .values(leased_until=until)
                )

    def postpone(self, effect: Effect, *, due_at: datetime, in_doubt: bool, counted: bool, error: str) -> None:
        """Give the lease back; the effect is due again at that time. Unless `counted`, the attempt was none."""
        with self.begin() as transaction:
            transaction.connection.execute(
                effects.update()
                .where(effects.c.id == effect.id, effects.c.lease == effect.lease)
                .values(
                    lease=None,
                    leased_until=None,
                    due_at=due_at,
                    in_doubt=in_doubt,
                    attempts=effect.attempts if counted else effect.attempts - 1,
                    error=error[:500],
                )
            )

    def next_due(self) -> datetime | None:
        """When the earliest effect that nothing holds back is due or its lease ends; None: nothing is open."""
        later = sa.case((effects.c.leased_until > effects.c.due_at, effects.c.leased_until), else_=effects.c.due_at)
        query = sa.select(sa.type_coerce(sa.func.min(later), Utc)).where(effects.c.done_at.is_(None), _FIRST)
        with self._connection() as connection:
            due: datetime | None = connection.scalar(query)
            return due

    def count(self) -> int:
        """How many jobs there are."""
        with self._connection() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(jobs)) or 0

    def open_effects(self, job_id: str | None = None, *, kind: Kind | None = None) -> int:
        """How many effects are still to be done (for that job, of that kind)."""
        query = sa.select(sa.func.count()).select_from(effects).where(effects.c.done_at.is_(None))
        if job_id is not None:
            query = query.where(effects.c.job_id == job_id)
        if kind is not None:
            query = query.where(effects.c.kind == kind.value)
        with self._connection() as connection:
            return connection.scalar(query) or 0

    def take_duty(self, name: str, *, holder: str, at: datetime, lasting: timedelta) -> bool:
        """Whether this holder has a duty that only one process may have, now and for that long."""
        with self.begin() as transaction:
            connection = transaction.connection
            held = connection.execute(sa.select(duties).where(duties.c.name == name).with_for_update()).one_or_none()
            if held and held.holder != holder and held.until > at:
                return False
            values = {"holder": holder, "until": at + lasting}
            if held:
                connection.execute(duties.update().where(duties.c.name == name).values(**values))
                return True
            try:
                with connection.begin_nested():
                    connection.execute(duties.insert().values(name=name, **values))
            except IntegrityError:
                return False
            return True

    def put_secret(self, reference: str, owner: str, sealed: bytes) -> None:
        """Keep an encrypted secret."""
        with self.begin() as transaction:
            transaction.connection.execute(
                secrets.insert(), {"reference": reference, "owner": owner, "sealed": sealed, "created_at": now()}
            )

    def get_secret(self, reference: str) -> bytes | None:
        """The encrypted secret, if it is there."""
        with self._connection() as connection:
            sealed: bytes | None = connection.scalar(
                sa.select(secrets.c.sealed).where(secrets.c.reference == reference)
            )
            return sealed

    def delete_secret(self, reference: str) -> None:
        """Erase it."""
        with self.begin() as transaction:
            transaction.connection.execute(secrets.delete().where(secrets.c.reference == reference))


class Transaction:
    """Changes that happen together or not at all."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add(self, job: Job, accepted: Transition, wanted: Sequence[tuple[Kind, str]]) -> bool:
        """Insert a job with its first transition and effects; False, and nothing done, where its key is taken."""
        once = _once(self.connection.dialect.name)
        kept = self.connection.execute(once, _from_job(job), execution_options={"preserve_rowcount": True})
        if not kept.rowcount:
            return False
        self.enter(job.id, accepted)
        self.connection.execute(
            effects.insert(),
            [
                {"job_id": job.id, "lane": k.lane.value, "kind": k.value, "subject": s, "due_at": job.accepted_at}
                for k, s in wanted
            ],
        )
        return True

    def alone(self, what: str) -> None:
        """Let nobody else who asks for the same go on until this transaction ends (on SQLite it is alone anyway)."""
        if self.connection.dialect.name == "postgresql":
            number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)
            self.connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})

    def person(self, person: str, *, alone: bool = True) -> Person:
        """What is kept of them, which nobody else changes until this transaction ends (unless not `alone`)."""
        if alone:
            self.alone(f"person {person}")
        return _person(self.connection, person)

    def same_work(self, work: str) -> Job | None:
        """As the store's, within this transaction."""
        return _same_work(self.connection, work)

    def keep_person(self, person: str, **values: Any) -> None:
        """Set columns of what is kept of a person."""
        statement = _upsert(self.connection.dialect.name, tuple(values))
        self.connection.execute(statement, {"person": person, **values})

    def lock(self, job_id: str) -> Job:
        """The job, which nobody else changes until this transaction ends. Raises UnknownJob."""
        return _job(self.connection, jobs.c.id == job_id, lock=True)

    def change(self, job_id: str, **values: Any) -> None:
        """Set columns of the job."""
        self.connection.execute(jobs.update().where(jobs.c.id == job_id).values(**values))

    def enter(self, job_id: str, transition: Transition) -> None:
        """Record a transition."""
        self.connection.execute(
            transitions.insert(),
            {
                "job_id": job_id,
                "state": transition.state.value,
                "at": transition.at,
                "text": transition.text,
                "reply": transition.reply,
            },
        )

    def transitions(self, job_id: str) -> list[Transition]:
        """The job's story, oldest first."""
        return _transitions(self.connection, job_id)

    def tell(self, job_id: str, state: JobState, text: str, *, reply: int | None = None) -> None:
        """Put other words to a transition, and tell it in that reply, where one is named."""
        values = {"text": text} | ({} if reply is None else {"reply": reply})
        self.connection.execute(
            transitions.update()
            .where(transitions.c.job_id == job_id, transitions.c.state == state.value)
            .values(**values)
        )

    def want(self, job_id: str, kind: Kind, *, due_at: datetime, subject: str = "") -> None:
        """Call for an effect. One that is already waiting, untouched, will do: it shows the job as it then stands."""
        waiting = self.connection.execute(
            sa.select(effects.c.id)
            .where(
                effects.c.job_id == job_id,
                effects.c.kind == kind.value,
                effects.c.subject == subject,
                effects.c.done_at.is_(None),
                effects.c.lease.is_(None),
            )
            .with_for_update()  # nobody may claim it, and look at the job, before this change is there to be seen
        ).first()
        if waiting is None:
            self.connection.execute(
                effects.insert(),
                {"job_id": job_id, "lane": kind.lane.value, "kind": kind.value, "subject": subject, "due_at": due_at},
            )

    def drop(self, job_id: str, kind: Kind) -> bool:
        """Strike out an effect of that kind that nobody has begun; whether there was one."""
        return bool(
            self.connection.execute(
                effects.delete().where(
                    effects.c.job_id == job_id,
                    effects.c.kind == kind.value,
                    effects.c.done_at.is_(None),
                    effects.c.attempts == 0,
                )
            ).rowcount
        )

    def absorb(self, effect: Effect, actor: str, *, at: datetime) -> None:
        """Let this effect do for all of its kind that wait, for whichever jobs of this person."""
        theirs = sa.exists().where(jobs.c.id == effects.c.job_id, jobs.c.actor == actor)
        self.connection.execute(
            effects.update()
            .where(
                effects.c.lane == effect.kind.lane.value,
                effects.c.kind == effect.kind.value,
                effects.c.done_at.is_(None),
                effects.c.lease.is_(None),
                effects.c.id != effect.id,
                theirs,
            )
            .values(done_at=at)
        )

    def finish(self, effect: Effect, *, at: datetime, error: str | None = None) -> bool:
        """The effect is done (or, with an error, given up); False where the lease was lost meanwhile."""
        return bool(
            self.connection.execute(
                effects.update()
                .where(effects.c.id == effect.id, effects.c.lease == effect.lease, effects.c.done_at.is_(None))
                .values(done_at=at, error=error[:500] if error else None)
            ).rowcount
        )

    def keep_message(self, job_id: str, subject: str, timestamp: str, *, at: datetime) -> None:
        """Remember a message that was posted then."""
        self.connection.execute(
            messages.insert().values(job_id=job_id, subject=subject, timestamp=timestamp, edited_at=at)
        )

    def touch_message(self, job_id: str, subject: str, *, at: datetime) -> None:
        """Remember that it was edited then."""
        self.connection.execute(
            messages.update().where(messages.c.job_id == job_id, messages.c.subject == subject).values(edited_at=at)
        )


def _is_new(connection: Connection) -> bool:
    return sa.inspect(connection).has_table("alembic_version") and REVISION in connection.scalars(
        sa.text("SELECT version_num FROM alembic_version")
    )


def _upgrade_sqlite(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    # SQLite changes a table by making it anew, which it refuses while others refer to it; and it has to be told so
    # before the transaction begins.
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            _upgrade(connection)
            if connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise NomadsError("The database cannot be brought up to date: it has rows that belong to nothing.")
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


def _upgrade(connection: Connection) -> None:
    if _is_new(connection):  # somebody else was first
        return
    import alembic.command  # a quarter of a second that most starts need not spend
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


_PERSON = sa.select(people).where(people.c.person == sa.bindparam("wanted"))


def _person(connection: Connection, person: str) -> Person:
    row = connection.execute(_PERSON, {"wanted": person}).one_or_none()
    if row is None:
        return Person()
    return Person(
        token_ref=row.token_ref,
        token_end=row.token_end,
        token_at=row.token_at,
        last_request=row.last_request,
        preferences=Preferences(Steps(row.steps), row.mention, row.mail),
        home_opened_at=row.home_opened_at,
        home_shown_at=row.home_shown_at,
    )


def _insert(dialect: str, table: sa.Table) -> Insert:
    """An insert that may say what to do about a row that is there."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:  # the one that is not used costs a tenth of a second at start
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)


# Made once: to build a statement takes longer than to execute it.


@lru_cache
def _once(dialect: str) -> Insert:
    return _insert(dialect, jobs).on_conflict_do_nothing(index_elements=[jobs.c.key])


@lru_cache
def _upsert(dialect: str, columns: tuple[str, ...]) -> Insert:
    made = _insert(dialect, people)
    return made.on_conflict_do_update(
        index_elements=[people.c.person], set_={name: made.excluded[name] for name in columns}
    )


def _job(connection: Connection, where: sa.ColumnElement[bool], *, lock: bool = False) -> Job:
    query = sa.select(jobs).where(where)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownJob("There is no job of that name.")
    return _to_job(row)


_ENDED = jobs.c.state.in_([s.value for s in FINAL])
_SAME_WORK = (
    sa.select(jobs)
    .where(jobs.c.work == sa.bindparam("wanted"), sa.or_(~_ENDED, jobs.c.state == JobState.SUCCEEDED.value))
    .order_by(_ENDED, jobs.c.accepted_at.desc())
    .limit(1)
)


def _same_work(connection: Connection, work: str) -> Job | None:
    row = connection.execute(_SAME_WORK, {"wanted": work}).one_or_none()
    return _to_job(row) if row else None


def _transitions(connection: Connection, job_id: str) -> list[Transition]:
    query = (
        sa.select(transitions.c.state, transitions.c.at, transitions.c.text, transitions.c.reply)
        .where(transitions.c.job_id == job_id)
        .order_by(transitions.c.at)
    )
    found = [Transition(JobState(s), at, text, reply) for s, at, text, reply in connection.execute(query)]
    order = list(JobState)
    return sorted(found, key=lambda t: (t.at, order.index(t.state)))


def _to_job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    values["request"] = JobRequest.model_validate(values["request"])
    values["summary"] = Summary.model_validate(values["summary"]) if values["summary"] else None
    del values["pipeline"], values["voxels"], values["runnable_at"]
    return Job.model_validate(values)


def _from_job(job: Job) -> dict[str, Any]:
    values = job.model_dump(exclude={"request", "summary", "log_tail"})
    return values | {
        "request": job.request.model_dump(mode="json"),
        "summary": job.summary.model_dump(mode="json") if job.summary else None,
        "log_tail": list(job.log_tail),
        "state": job.state.value,
        "pipeline": job.request.pipeline,
        "voxels": job.request.box.voxels,
    }
