"""What the database holds, each question in a transaction of its own: how tests look at it from outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from bot.domain.job import Job, Transition
from bot.domain.outbox import Effect, Kind, Lane
from bot.domain.people import Person
from bot.domain.states import JobState
from bot.storage.engine import Database
from bot.storage.tables import Utc, effects, secrets
from bot.storage.tables import jobs as job_rows

_earlier = effects.alias("earlier")


class Rows:
    """Reads, and claims effects as a worker does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, job_id: str) -> Job:
        """The job."""
        with self._database.read() as transaction:
            return transaction.jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were accepted."""
        with self._database.read() as transaction:
            return transaction.jobs.page(list(JobState), most=10_000)[::-1]

    def count(self, table: sa.Table | None = None) -> int:
        """How many rows the table has; none named: how many jobs there are."""
        table = job_rows if table is None else table
        with self._database.read() as transaction:
            return transaction.connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    @property
    def tokens(self) -> int:
        """How many tokens are sealed in it."""
        return self.count(secrets)

    def person(self, person: str) -> Person:
        """What is kept of a person."""
        with self._database.read() as transaction:
            return transaction.people.get(person)

    def transitions(self, job_id: str) -> list[Transition]:
        """The job's story."""
        with self._database.read() as transaction:
            return transaction.story.of(job_id)

    def message(self, job_id: str, subject: str) -> str | None:
        """The timestamp of one of the job's messages."""
        with self._database.read() as transaction:
            return transaction.messages.timestamp(job_id, subject)

    def open_effects(self, job_id: str | None = None, *, kind: Kind | None = None) -> int:
        """How many effects are still to be done."""
        with self._database.read() as transaction:
            return transaction.outbox.open(job_id, kind=kind)

    def put_off(self, job_id: str, kind: str) -> float:
        """Seconds from now until the job's open effect of that kind is due; 0 where it is due, done or leased."""
        query = sa.select(effects.c.due_at).where(
            effects.c.job_id == job_id, effects.c.kind == kind, effects.c.done_at.is_(None), effects.c.lease.is_(None)
        )
        with self._database.read() as transaction:
            due = transaction.connection.scalar(query)
        return max(0.0, (due - datetime.now(UTC)).total_seconds()) if due else 0.0

    def next_due(self) -> datetime | None:
        """When the earliest effect that nothing holds back is due or its lease ends; None: nothing is open."""
        later = sa.case((effects.c.leased_until > effects.c.due_at, effects.c.leased_until), else_=effects.c.due_at)
        first = ~sa.exists().where(
            _earlier.c.job_id == effects.c.job_id,
            _earlier.c.lane == effects.c.lane,
            _earlier.c.done_at.is_(None),
            _earlier.c.id < effects.c.id,
        )
        query = sa.select(sa.type_coerce(sa.func.min(later), Utc)).where(effects.c.done_at.is_(None), first)
        with self._database.read() as transaction:
            due: datetime | None = transaction.connection.scalar(query)
            return due

    def claim(self, lane: Lane, *, limit: int, lease_for: timedelta, at: datetime) -> list[Effect]:
        """Lease effects, as a worker of another process."""
        with self._database.begin() as transaction:
            return transaction.outbox.claim(lane, limit=limit, lease_for=lease_for, at=at)

    def renew(self, held: Sequence[Effect], *, lease_for: timedelta, at: datetime) -> None:
        """Keep their leases."""
        with self._database.begin() as transaction:
            transaction.outbox.renew(held, lease_for=lease_for, at=at)

    def lead(self, name: str, *, holder: str, at: datetime, lasting: timedelta) -> bool:
        """Whether the holder has that leader lease now."""
        with self._database.begin() as transaction:
            return transaction.leader.acquire(name, holder=holder, at=at, lasting=lasting)
