"""The table of jobs: one job, and lists of jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain.errors import UnknownJob
from bot.domain.job import Job, Watched
from bot.domain.states import FINAL, WATCHED, JobState
from bot.storage.dialect import insert
from bot.storage.tables import Utc, jobs

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

LONGEST_ID = 16
"""Characters of a job's id, of digits and small letters."""
_ENDED = jobs.c.state.in_([s.value for s in FINAL])
_NEWEST_FIRST = (jobs.c.accepted_at.desc(), jobs.c.id.desc())
_SAME_WORK = (
    sa.select(jobs)
    .where(jobs.c.work == sa.bindparam("wanted"), sa.or_(~_ENDED, jobs.c.state == JobState.SUCCEEDED.value))
    .order_by(_ENDED, jobs.c.accepted_at.desc())
    .limit(1)
)
_BY_ID = sa.select(jobs).where(jobs.c.id == sa.bindparam("wanted"))
_LOCK = _BY_ID.with_for_update()
_CHANGE = jobs.update().where(jobs.c.id == sa.bindparam("wanted"))
_WATCHED = (
    sa.select(
        jobs.c.id,
        jobs.c.compute_id,
        jobs.c.state,
        jobs.c.compute_attempt,
        jobs.c.submitted_at,
        sa.case((jobs.c.waiting == "", jobs.c.runnable_at)),
        jobs.c.stalled_since.is_not(None),
        jobs.c.cancelled_by.is_not(None),
    )
    .where(jobs.c.state.in_([s.value for s in WATCHED]), jobs.c.compute_id.is_not(None))
    .order_by(jobs.c.id)
)
_STALLED = (
    sa.select(jobs.c.id, jobs.c.stalled_since)
    .where(jobs.c.stalled_since.is_not(None), ~jobs.c.stalled_told)
    .order_by(jobs.c.id)
)
# Statements are made once: to build one takes longer than to execute it.


class Jobs:
    """Jobs within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # One job

    def get(self, job_id: str) -> Job:
        """The job. Raises UnknownJob."""
        return self._one(_BY_ID, job_id)

    def lock(self, job_id: str) -> Job:
        """The job, locked until this transaction ends. Raises UnknownJob."""
        return self._one(_LOCK, job_id)

    def by_key(self, key: str) -> Job | None:
        """The job that was accepted under that idempotency key; None where there is none."""
        row = self._connection.execute(sa.select(jobs).where(jobs.c.key == key)).one_or_none()
        return _to_job(row) if row else None

    def same_work(self, work: str) -> Job | None:
        """The newest job that does that work and has not ended, or else the newest that has done it."""
        row = self._connection.execute(_SAME_WORK, {"wanted": work}).one_or_none()
        return _to_job(row) if row else None

    def add(self, job: Job) -> bool:
        """Insert a job; False, with nothing inserted, where its key is taken."""
        once = _insert_once(self._connection.dialect.name)
        kept = self._connection.execute(once, _from_job(job), execution_options={"preserve_rowcount": True})
        return bool(kept.rowcount)

    def change(self, job_id: str, **values: Any) -> None:
        """Set columns of the job."""
        self._connection.execute(_CHANGE, {"wanted": job_id, **values})

    def _one(self, query: sa.Select[Any], job_id: str) -> Job:
        row = self._connection.execute(query, {"wanted": job_id}).one_or_none()
        if row is None:
            raise UnknownJob
        return _to_job(row)

    # Lists of jobs

    def page(
        self,
        states: Iterable[JobState],
        *,
        actor: str | None = None,
        before: str | datetime | None = None,
        most: int,
    ) -> list[Job]:
        """At most `most` jobs in these states (of `actor` only, where named), newest first.

        With `before`, only jobs that were accepted before that job, or up to that moment. Each state is read by an
        index, and no further than needed, so that a page costs the same however many jobs there are.
        """
        newest = sa.select(jobs.c.id, jobs.c.accepted_at).order_by(*_NEWEST_FIRST).limit(most)
        if actor is not None:
            newest = newest.where(jobs.c.actor == actor)
        if isinstance(before, datetime):
            newest = newest.where(jobs.c.accepted_at <= before)
        elif before and (since := self._accepted(before)):
            newest = newest.where(
                sa.tuple_(jobs.c.accepted_at, jobs.c.id)
                < sa.tuple_(sa.literal(since.accepted_at, Utc), sa.literal(since.id))
            )
        found = sa.union_all(
            *(sa.select(newest.where(jobs.c.state == state.value).subquery().c.id) for state in states)
        ).subquery()
        query = sa.select(jobs).where(jobs.c.id.in_(sa.select(found.c.id))).order_by(*_NEWEST_FIRST)
        return [_to_job(row) for row in self._connection.execute(query.limit(most))]

    def _accepted(self, job_id: str) -> sa.Row[Any, Any] | None:
        query = sa.select(jobs.c.accepted_at, jobs.c.id).where(jobs.c.id == job_id)
        return self._connection.execute(query).one_or_none()

    def number_of(self, states: Iterable[JobState], *, actor: str) -> int:
        """How many of a person's jobs are in these states."""
        query = (
            sa.select(sa.func.count())
            .select_from(jobs)
            .where(jobs.c.actor == actor, jobs.c.state.in_([s.value for s in states]))
        )
        return self._connection.scalar(query) or 0

    def near(self, names: Sequence[str], *, beginning: str, most: int) -> list[Job]:
        """At most `most` jobs whose ids are among `names` or begin with `beginning` (if not empty), newest first."""
        among: sa.ColumnElement[bool] = jobs.c.id.in_(names)
        if beginning:  # a range of the primary key: neither database needs another index
            # "z", since in most languages' order, unlike ASCII's, marks such as "~" stand before the letters
            among |= jobs.c.id.between(beginning, beginning.ljust(LONGEST_ID, "z"))
        query = sa.select(jobs).where(among).order_by(jobs.c.accepted_at.desc()).limit(most)
        return [_to_job(row) for row in self._connection.execute(query)]

    def runs(self, pipeline: str, *, most: int) -> list[tuple[int, float]]:
        """Voxels and seconds of the pipeline's last successful runs, `most` at most, newest first."""
        query = (
            sa.select(jobs.c.voxels, jobs.c.started_at, jobs.c.finished_at)
            .where(
                jobs.c.pipeline == pipeline,
                jobs.c.state == JobState.SUCCEEDED.value,
                jobs.c.started_at <= jobs.c.finished_at,  # unless the clock was set anew meanwhile
                jobs.c.timed,
                jobs.c.blocks.is_(None),  # whose programs run side by side
            )
            .order_by(jobs.c.finished_at.desc())
            .limit(most)
        )
        return [(voxels, (end - start).total_seconds()) for voxels, start, end in self._connection.execute(query)]

    def in_blocks(self) -> list[Job]:
        """The jobs in blocks that have not ended."""
        query = sa.select(jobs).where(jobs.c.blocks.is_not(None), ~_ENDED)
        return [_to_job(row) for row in self._connection.execute(query)]

    def watched(self, compute_ids: Collection[str] | None = None) -> list[Watched]:
        """Every job that compute has, ordered by id; with `compute_ids`, those of them under these ids."""
        query = _WATCHED if compute_ids is None else _WATCHED.where(jobs.c.compute_id.in_(compute_ids))
        return [Watched(i, c, JobState(s), *more) for i, c, s, *more in self._connection.execute(query)]

    def stall(self, ids: Sequence[str], *, at: datetime, why: str) -> None:
        """Record that compute does not answer for these jobs, and why, where nobody was told of that yet."""
        news = sa.or_(jobs.c.stalled_since.is_(None), sa.and_(~jobs.c.stalled_told, jobs.c.stalled != why))
        self._connection.execute(
            jobs.update()
            .where(jobs.c.id.in_(ids), news)
            .values(stalled_since=sa.func.coalesce(jobs.c.stalled_since, sa.literal(at, Utc)), stalled=why)
        )

    def stalled(self) -> list[tuple[str, datetime]]:
        """The jobs for which compute does not answer, and since when, whose threads were not told; ordered by id."""
        return [(job_id, since) for job_id, since in self._connection.execute(_STALLED)]

    def any_told_to_be_stalled(self) -> bool:
        """Whether there is a job whose thread was told that compute does not answer, and not yet that it does."""
        query = sa.select(jobs.c.id).where(jobs.c.stalled_since.is_not(None), jobs.c.stalled_told).limit(1)
        return self._connection.execute(query).first() is not None


@lru_cache
def _insert_once(dialect: str) -> Insert:
    return insert(dialect, jobs).on_conflict_do_nothing(index_elements=[jobs.c.key])


def _to_job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
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
