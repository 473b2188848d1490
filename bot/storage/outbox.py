"""The outbox: effects that a transaction enqueues, and that workers lease, perform and finish."""

from __future__ import annotations

import secrets as entropy
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain import words
from bot.domain.outbox import Effect, GivenUp, Kind, Lane
from bot.domain.people import TERMINAL
from bot.domain.states import FINAL
from bot.storage.tables import SKEW, Utc, effects, jobs

MAX_ERROR = 500
"""Characters of an error that are stored with an effect."""
_earlier = effects.alias("earlier")
_FIRST = ~sa.exists().where(
    _earlier.c.job_id == effects.c.job_id,
    _earlier.c.lane == effects.c.lane,
    _earlier.c.done_at.is_(None),
    _earlier.c.id < effects.c.id,
)
"""True of the first open effect of a job's lane: the only one that may be claimed."""
_CLAIMABLE = (
    sa.select(
        effects.c.id,
        effects.c.job_id,
        effects.c.kind,
        effects.c.subject,
        effects.c.attempts,
        effects.c.in_doubt,
        effects.c.faults,
    )
    .where(
        effects.c.done_at.is_(None),
        effects.c.lane == sa.bindparam("lane"),
        effects.c.due_at <= sa.bindparam("at", type_=Utc),
        sa.or_(
            effects.c.leased_until.is_(None),
            sa.and_(sa.bindparam("leased", type_=sa.Boolean), effects.c.leased_until <= sa.bindparam("at", type_=Utc)),
        ),
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
        as_of=sa.bindparam("at", type_=Utc),
        attempts=effects.c.attempts + 1,
        in_doubt=True,
    )
)
_FINISH = (
    effects.update()
    .where(
        effects.c.id == sa.bindparam("claimed"), effects.c.lease == sa.bindparam("held"), effects.c.done_at.is_(None)
    )
    .values(
        done_at=sa.bindparam("at", type_=Utc),
        error=sa.bindparam("note"),
        given_up=sa.bindparam("for_good", type_=sa.Boolean),
    )
)
_REPLAY = (
    effects.update()
    .where(effects.c.id == sa.bindparam("again"))
    .values(
        given_up=False,
        done_at=None,
        lease=None,
        leased_until=None,
        due_at=sa.bindparam("at", type_=Utc),
        enqueued_at=sa.bindparam("at", type_=Utc),
        as_of=sa.bindparam("at", type_=Utc),
        attempts=0,
        faults=0,
        in_doubt=True,
    )
)
_HELD = sa.select(effects.c.leased_until, effects.c.as_of).where(
    effects.c.id == sa.bindparam("claimed"), effects.c.lease == sa.bindparam("held"), effects.c.done_at.is_(None)
)
_POSTPONE = effects.update().where(effects.c.id == sa.bindparam("claimed"), effects.c.lease == sa.bindparam("held"))
_AHEAD = sa.select(effects.c.id, effects.c.due_at, effects.c.leased_until, effects.c.as_of).where(
    effects.c.done_at.is_(None), effects.c.as_of > sa.bindparam("latest", type_=Utc)
)
_ANY_AHEAD = _AHEAD.limit(1)
_REWIND = (
    effects.update()
    .where(effects.c.id == sa.bindparam("ahead"))
    .values(
        due_at=sa.bindparam("due", type_=Utc),
        leased_until=sa.bindparam("until", type_=Utc),
        as_of=sa.bindparam("at", type_=Utc),
    )
)
_WAITING = (
    sa.select(effects.c.id)
    .where(
        effects.c.job_id == sa.bindparam("job"),
        effects.c.kind == sa.bindparam("kind"),
        effects.c.subject == sa.bindparam("subject"),
        effects.c.done_at.is_(None),
        effects.c.lease.is_(None),
    )
    .with_for_update()  # no worker may claim it, and read the job, before this change is committed
)
_EVER = sa.select(effects.c.id).where(
    effects.c.job_id == sa.bindparam("job"),
    effects.c.kind == sa.bindparam("kind"),
    effects.c.subject == sa.bindparam("subject"),
)
# Statements are made once: to build one takes longer than to execute it.


class Outbox:
    """Effects within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enqueue(self, job_id: str, kind: Kind, *, at: datetime, subject: str = "") -> None:
        """Enqueue an effect, due at once, unless an equal one waits unclaimed: that one will read the job anew."""
        values = {"job": job_id, "kind": kind.value, "subject": subject}
        if self._connection.execute(_WAITING, values).first() is None:
            self.enqueue_new(job_id, [(kind, subject)], at=at)

    def enqueue_once(self, job_id: str, kind: Kind, *, at: datetime, subject: str = "") -> None:
        """Enqueue an effect, due at once, unless the job has had an equal one, done or not."""
        if self._connection.execute(_EVER, {"job": job_id, "kind": kind.value, "subject": subject}).first() is None:
            self.enqueue_new(job_id, [(kind, subject)], at=at)

    def enqueue_new(self, job_id: str, kinds: Iterable[tuple[Kind, str]], *, at: datetime) -> None:
        """Enqueue effects, due at once and in this order, of a job that has none of their kind and subject yet."""
        self._connection.execute(
            effects.insert(),
            [
                {
                    "job_id": job_id,
                    "lane": kind.lane.value,
                    "kind": kind.value,
                    "subject": subject,
                    "due_at": at,
                    "enqueued_at": at,
                    "as_of": at,
                }
                for kind, subject in kinds
            ],
        )

    def drop(self, job_id: str, kind: Kind) -> bool:
        """Delete an effect of that kind that no worker has claimed yet. Returns whether there was one."""
        return bool(
            self._connection.execute(
                effects.delete().where(
                    effects.c.job_id == job_id,
                    effects.c.kind == kind.value,
                    effects.c.done_at.is_(None),
                    effects.c.attempts == 0,
                )
            ).rowcount
        )

    def coalesce(self, effect: Effect, actor: str, *, at: datetime) -> None:
        """Mark the other effects of this kind that wait unclaimed, for any of the actor's jobs, as done by this one."""
        theirs = sa.exists().where(jobs.c.id == effects.c.job_id, jobs.c.actor == actor)
        self._connection.execute(
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

    def due(
        self, lane: Lane, *, at: datetime, job_id: str | None = None, of_chat: bool = True, leased: bool = True
    ) -> bool:
        """Whether `claim` would find an effect; locks nothing."""
        query = _claimable(lane, job_id=job_id, of_chat=of_chat)
        found = self._connection.execute(query, {"lane": lane.value, "at": at, "most": 1, "leased": leased})
        return found.first() is not None

    def claim(
        self,
        lane: Lane,
        *,
        limit: int,
        lease_for: timedelta,
        at: datetime,
        job_id: str | None = None,
        of_chat: bool = True,
        leased: bool = True,
    ) -> list[Effect]:
        """Lease at most `limit` effects of the lane (of that job only, where named): those that are due for longest.

        Of each job only the first open effect of the lane is ever leased, which preserves their order. Without
        `of_chat`, jobs that belong to a channel are left to other processes, except for effects of compute for jobs
        that are being cancelled or were submitted at a terminal. Without `leased`, effects are left whose lease is out
        by the clock.
        """
        query = _claimable(lane, job_id=job_id, of_chat=of_chat)
        asked = {"lane": lane.value, "at": at, "most": limit, "leased": leased}
        rows = self._connection.execute(query, asked).all()
        if not rows:
            return []
        lease = entropy.token_hex(8)
        self._connection.execute(
            _LEASE, [{"claimed": row.id, "lease": lease, "leased_until": at + lease_for, "at": at} for row in rows]
        )
        rows = sorted(rows, key=lambda row: row.id)
        return [
            Effect(r.id, r.job_id, Kind(r.kind), r.subject, r.attempts + 1, r.in_doubt, r.faults, lease) for r in rows
        ]

    def holds(self, effect: Effect, *, at: datetime) -> bool:
        """Whether the effect's lease is still this one, and has a third of its time left at least."""
        row = self._connection.execute(_HELD, {"claimed": effect.id, "held": effect.lease}).first()
        return row is not None and at + (row.leased_until - row.as_of) / 3 <= row.leased_until

    def renew(self, held: Sequence[Effect], *, lease_for: timedelta, at: datetime) -> None:
        """Extend the leases of effects that are under way: they end at `at + lease_for`."""
        if held:
            self._connection.execute(
                effects.update()
                .where(
                    effects.c.id.in_([e.id for e in held]),
                    effects.c.lease.in_({e.lease for e in held}),
                    effects.c.done_at.is_(None),
                )
                .values(leased_until=at + lease_for, as_of=at)
            )

    def postpone(
        self,
        effect: Effect,
        *,
        delay: timedelta,
        in_doubt: bool,
        counted: bool,
        error: str,
        at: datetime,
        fault: bool = False,
    ) -> None:
        """Release the lease; the effect is due again at `at + delay`. Unless `counted`, the attempt is not counted.

        `fault` counts an unforeseen failure.
        """
        values = {
            "lease": None,
            "leased_until": None,
            "due_at": at + delay,
            "as_of": at,
            "in_doubt": in_doubt,
            "attempts": effect.attempts if counted else effect.attempts - 1,
            "faults": effect.faults + fault,
            "error": words.printable(error)[:MAX_ERROR],
        }
        self._connection.execute(_POSTPONE, {"claimed": effect.id, "held": effect.lease, **values})

    def set_ahead_of(self, at: datetime) -> bool:
        """Whether `rewind` would find an effect; locks nothing."""
        return self._connection.execute(_ANY_AHEAD, {"latest": at + SKEW}).first() is not None

    def rewind(self, clock: Callable[[], datetime]) -> int:
        """Set the times of open effects anew that were set by a clock that has gone back since; returns their number.

        Such times were set, by more than SKEW, after the time that `clock` gives. Each stays as far ahead of it as it
        was of the clock that set it: a lease still lasts for its length, and what was due is due. Without this, a clock
        that goes back an hour would keep effects from being claimed for an hour.

        The clock is read after the rows: by an earlier look at it, of a process that has stood still since, the others
        would be ahead.
        """
        found = self._connection.execute(_AHEAD.with_for_update(), {"latest": clock() + SKEW}).all()
        at = clock()
        anew = [
            {
                "ahead": row.id,
                "due": at + max(row.due_at - row.as_of, timedelta()),
                "until": row.leased_until and at + max(row.leased_until - row.as_of, timedelta()),
                "at": at,
            }
            for row in found
            if row.as_of > at + SKEW
        ]
        if anew:
            self._connection.execute(_REWIND, anew)
        return len(anew)

    def oldest(self) -> datetime | None:
        """Since when the oldest open effect is open; None where none is."""
        opened = sa.func.min(sa.func.coalesce(effects.c.enqueued_at, effects.c.due_at), type_=Utc)
        since: datetime | None = self._connection.scalar(sa.select(opened).where(effects.c.done_at.is_(None)))
        return since

    def finish(self, effect: Effect, *, at: datetime, error: str | None = None) -> bool:
        """Mark the effect done (with an error: given up); False, with nothing changed, where the lease was lost."""
        note = words.printable(error)[:MAX_ERROR] if error else None
        values = {"claimed": effect.id, "held": effect.lease, "at": at, "note": note, "for_good": note is not None}
        return bool(self._connection.execute(_FINISH, values).rowcount)

    def given_up(self, job_id: str | None = None, *, most: int | None = None) -> list[GivenUp]:
        """Effects that were given up (of that job, where named), the newest first; at most so many, where named.

        Left out is what somebody has seen to: a check or submission of a job that was retried, and a cancellation of a
        job that has ended.
        """
        rows = self._connection.execute(
            _given_up(job_id).order_by(effects.c.done_at.desc(), effects.c.id.desc()).limit(most)
        )
        return [_as_given_up(row) for row in rows]

    def number_given_up(self) -> int:
        """How many effects `given_up` would find, of all jobs."""
        return self._connection.scalar(sa.select(sa.func.count()).select_from(_given_up(None).subquery())) or 0

    def replay(self, job_id: str | None = None, *, at: datetime) -> list[GivenUp]:
        """Make effects that were given up (of that job, where named) due again, in doubt; returns them in order.

        Those of a final kind are returned too, and never performed again: they only count as given up no more.
        """
        rows = self._connection.execute(_given_up(job_id).order_by(effects.c.id).with_for_update(of=effects)).all()
        final = {row.id for row in rows if Kind(row.kind).final}
        if final:
            self._connection.execute(effects.update().where(effects.c.id.in_(final)).values(given_up=False))
        if again := [{"again": row.id, "at": at} for row in rows if row.id not in final]:
            self._connection.execute(_REPLAY, again)
        return [_as_given_up(row) for row in rows]

    def open(self, job_id: str | None = None, *, kind: Kind | None = None) -> int:
        """How many effects are not done yet (for that job, of that kind, where named)."""
        query = sa.select(sa.func.count()).select_from(effects).where(effects.c.done_at.is_(None))
        if job_id is not None:
            query = query.where(effects.c.job_id == job_id)
        if kind is not None:
            query = query.where(effects.c.kind == kind.value)
        return self._connection.scalar(query) or 0


def _claimable(lane: Lane, *, job_id: str | None, of_chat: bool) -> sa.Select[Any]:
    query: sa.Select[Any] = _CLAIMABLE if job_id is None else _CLAIMABLE.where(effects.c.job_id == job_id)
    if of_chat:
        return query
    ours = jobs.c.request["channel"].as_string().is_(None)
    if lane is Lane.COMPUTE:
        ours |= jobs.c.cancelled_by.is_not(None) | jobs.c.actor.startswith(TERMINAL)
    return query.where(sa.exists().where(jobs.c.id == effects.c.job_id, ours))


def _given_up(job_id: str | None) -> sa.Select[Any]:
    """Effects that were given up, unless somebody has seen to it: has retried the job, or the job has ended since."""
    query = (
        sa.select(effects.c.id, effects.c.job_id, effects.c.kind, effects.c.subject, effects.c.done_at, effects.c.error)
        .join(jobs, jobs.c.id == effects.c.job_id)
        .where(
            effects.c.given_up,
            sa.or_(effects.c.kind.not_in([Kind.CHECK.value, Kind.SUBMIT.value]), jobs.c.retried_as.is_(None)),
            sa.or_(effects.c.kind != Kind.CANCEL.value, jobs.c.state.not_in([state.value for state in FINAL])),
        )
    )
    return query if job_id is None else query.where(effects.c.job_id == job_id)


def _as_given_up(row: sa.Row[Any]) -> GivenUp:
    return GivenUp(row.job_id, Kind(row.kind), row.subject, row.done_at, row.error or "")
