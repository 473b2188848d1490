"""How jobs change: one job, locked, in one transaction that commits with the effects the change calls for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from bot.domain import words
from bot.domain.errors import NomadsError
from bot.domain.job import Ages, Job, Steady, Transition, now
from bot.domain.outbox import Effect, GivenUp, Kind, Lane
from bot.domain.people import Preferences
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation
from bot.storage.engine import Database
from bot.storage.transaction import Transaction

TOGETHER = timedelta(seconds=2)
"""Steps that follow one another within this time are told in one reply."""
MAX_REASON = 500
"""Characters of a reason that are stored."""


class LeaseLost(NomadsError):
    """The effect's lease ran out: another worker holds the effect by now, and records its outcome."""


class Ledger:
    """The one place where jobs change and effects are finished."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime] = now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` dates what is stored; `ticks` gives seconds that never go back."""
        self.database = database
        self.clock = clock
        self.steady = Steady(clock)
        """For lifetimes in this process."""
        self.ages = Ages(clock, ticks=ticks)
        """For how long something has lasted that is stored with the time at which it began."""
        self._listeners: list[Callable[[Collection[Lane]], None]] = []

    def on_commit(self, listener: Callable[[Collection[Lane]], None]) -> None:
        """Call the listener after each commit that enqueued effects, with the lanes of the effects."""
        self._listeners.append(listener)

    def committed(self, lanes: Collection[Lane]) -> None:
        """Call the listeners with these lanes; with none, call nobody."""
        for listener in self._listeners if lanes else ():
            listener(lanes)

    @contextmanager
    def change(self, job_id: str) -> Iterator[JobChange]:
        """The job, locked until the block ends. A block that ends is committed; one that raises changes nothing.

        Raises UnknownJob and Unavailable.
        """
        with self.database.begin() as transaction:
            change = JobChange(transaction, transaction.jobs.lock(job_id), at=self.clock())
            yield change
        self.committed(change.lanes)

    @contextmanager
    def finish(self, effect: Effect, *, error: str | None = None) -> Iterator[JobChange]:
        """As `change` for the effect's job; the same commit marks the effect done (with an error: given up).

        Raises LeaseLost, with nothing changed, where another worker holds the effect by now.
        """
        with self.change(effect.job_id) as change:
            self._finish(change.transaction, effect, error)
            yield change

    @contextmanager
    def done(self, effect: Effect, *, error: str | None = None) -> Iterator[Transaction]:
        """Mark the effect done (with an error: given up), without a change of its job. Raises LeaseLost."""
        with self.database.begin() as transaction:
            self._finish(transaction, effect, error)
            yield transaction

    def insist(self, effect: Effect) -> None:
        """Ask whether this process still holds the effect, right before an act that nobody can take back.

        A process that stood still for longer than its lease (a machine that was suspended, say) does not know that
        another one has taken the effect over, and would act a second time. Raises LeaseLost then, and where the lease
        is about to end; Unavailable where the database does not say.
        """
        with self.database.read() as transaction:
            if not transaction.outbox.holds(effect, at=self.clock()):
                raise LeaseLost(f"Job {effect.job_id}: another worker may have taken over {effect.kind}.")

    def replay(self, job_id: str | None = None) -> list[GivenUp]:
        """Make effects that were given up (of that job, where named) due again; returns them in their order.

        They are in doubt, so that what may have happened after all is looked for first. Among those returned are also
        effects of a final kind, which are not performed again (`GivenUp.instead`), and are shown no more from now on.
        Raises Unavailable.
        """
        with self.database.begin() as transaction:
            found = transaction.outbox.replay(job_id, at=self.clock())
        self.committed({one.kind.lane for one in found if not one.kind.final})
        return found

    def _finish(self, transaction: Transaction, effect: Effect, error: str | None) -> None:
        if not transaction.outbox.finish(effect, at=self.clock(), error=error):
            raise LeaseLost(f"Job {effect.job_id}: another worker has taken over {effect.kind}.")


def _again(seen: Observation) -> str:
    """What is told of an attempt of compute's after the first."""
    of = f" of {seen.attempts}" if seen.attempts else ""
    return f"{words.printable(seen.again) or 'Begun again'}, attempt {seen.attempt}{of}."


class JobChange:
    """A job, and what one transaction changes of it."""

    def __init__(self, transaction: Transaction, job: Job, *, at: datetime) -> None:
        """`job` is the job before the change; `at` is the time of the change."""
        self.transaction = transaction
        self.job = job
        self.at = at
        self.lanes: set[Lane] = set()
        """In which effects were enqueued."""

    def set(self, **values: Any) -> None:
        """Set columns of the job."""
        self.transaction.jobs.change(self.job.id, **values)

    def enqueue(self, kind: Kind, subject: str = "") -> None:
        """Enqueue an effect, due at once; an equal effect that waits unclaimed serves for both."""
        self.transaction.outbox.enqueue(self.job.id, kind, at=self.at, subject=subject)
        self.lanes.add(kind.lane)

    def enqueue_once(self, kind: Kind, subject: str = "") -> None:
        """Enqueue an effect, due at once, unless the job has had an equal one, done or not."""
        self.transaction.outbox.enqueue_once(self.job.id, kind, at=self.at, subject=subject)
        self.lanes.add(kind.lane)

    @property
    def story(self) -> list[Transition]:
        """The job's transitions so far, oldest first."""
        return self.transaction.story.of(self.job.id)

    @property
    def preferences(self) -> Preferences:
        """How the job's owner wants to be told of it."""
        return self.transaction.people.get(self.job.actor).preferences

    def entered(self, state: JobState) -> Transition:
        """The job's latest step into that state, which it has entered."""
        return next(step for step in reversed(self.story) if step.state is state and not step.note)

    @property
    def followers(self) -> list[str]:
        """Who else wants to be told of the job's end."""
        return self.transaction.followers.of(self.job.id)

    # The job moves on

    def follow(self, seen: Observation) -> bool:
        """Move the job to the observed state if that may follow its present one. Returns whether it moved."""
        if not seen.follows(self.job.state, self.job.compute_attempt):
            return False
        self._move(seen)
        return True

    def _move(self, seen: Observation) -> None:
        job, state = self.job, seen.state
        again = seen.attempt is not None and seen.attempt > job.compute_attempt
        started = self._started(seen, again=again)
        self.set(
            state=state.value,
            reason=words.shortened(words.printable(seen.reason), MAX_REASON),
            exit_code=seen.exit_code,
            cause=seen.why.value,
            started_at=started,
            finished_at=(seen.stopped_at or self.at) if state in FINAL else None,
            timed=seen.stopped_at is not None,
            log=seen.log or job.log,
        )
        if again:
            self.set(compute_attempt=seen.attempt, waiting="", progress=None)
        if state is JobState.RUNNABLE:
            self.set(runnable_at=self.at)
        if again and state not in FINAL:
            self._enter(state, _again(seen))
        elif started and not job.started_at:  # also where RUNNING itself was too short to be seen
            self._enter(JobState.RUNNING, self._running(started))
        if state in FINAL:
            self._enter(state, "")  # Lifecycle.conclude writes the text, with results or log
            self.enqueue(Kind.COLLECT)
        elif state is not JobState.RUNNING and not again:
            self.transaction.story.enter(job.id, Transition(state, self.at, "", None))
        self.show()

    def _started(self, seen: Observation, *, again: bool) -> datetime | None:
        """When the program started in the attempt that was seen; None where it has not."""
        if self.job.started_at and not again:
            return self.job.started_at
        if seen.state is JobState.RUNNING:
            return seen.started_at or self.at
        # Of an attempt after the first, compute's time may be that of the one before.
        first = self.job.compute_attempt == 1 and not again
        return seen.started_at if first or (seen.state in FINAL and again) else None

    def _running(self, started: datetime) -> str:
        if self.job.lasting and self.job.submitted_at and self.job.compute_attempt == 1:
            return f"Running again, after waiting {words.duration(started - self.job.submitted_at)}."
        if self.job.compute_attempt == 1:
            return f"Running, after waiting {words.duration(started - self.job.accepted_at)}."
        told = next(step for step in reversed(self.story) if step.text and not step.note)  # that it was begun again
        return f"Running again, after waiting {words.duration(started - told.at)}."

    def _enter(self, state: JobState, text: str) -> None:
        wishes, reply = self.preferences, None
        heard = state in FINAL and bool(self.followers)
        if wishes.tells(state) or heard:
            # A message that is edited notifies nobody.
            reply = self.next_reply(separate=heard or (state in FINAL and wishes.mention))
        self.transaction.story.enter(self.job.id, Transition(state, self.at, text, reply))
        if text and reply:
            self._post(reply)

    # What people are told

    def tell(self, step: Transition, text: str, *, reply: int | None) -> None:
        """Set the text of a step of the job, and tell it in the reply of that number; None: in none."""
        self.transaction.story.tell(self.job.id, step.number, text, reply=reply)
        if reply:
            self._post(reply)

    def note(self, text: str) -> None:
        """Tell something of the state in which the job is, in a reply of its own where its owner wants all steps."""
        reply = self.next_reply(separate=True) if self.preferences.tells(JobState.RUNNABLE) else None
        self.transaction.story.enter(self.job.id, Transition(self.job.state, self.at, text, reply, note=True))
        if reply:
            self._post(reply)

    def next_reply(self, *, separate: bool) -> int:
        """The number of the reply that tells a step taken now: the last one, if its last step is fresh, else a new one.

        A step is fresh for the time TOGETHER. `separate` asks for a new reply in any case.
        """
        told = [(step.reply, step.at) for step in self.story if step.reply is not None]
        if not told:
            return 1
        last, (_, at) = max(reply for reply, _ in told), told[-1]
        # The clock may have gone back since: a step that seems to lie ahead is not fresh.
        return last if abs(self.at - at) <= TOGETHER and not separate else last + 1

    def _post(self, reply: int) -> None:
        if self.job.request.channel:
            self.enqueue(Kind.REPLY, str(reply))

    def show(self) -> None:
        """Enqueue the update of the job's card, and of its owner's home tab if that may be open."""
        if self.job.request.channel:
            self.enqueue(Kind.EDIT)
        if self.transaction.people.get(self.job.actor).home_may_be_open(self.at):
            self.enqueue(Kind.HOME)
