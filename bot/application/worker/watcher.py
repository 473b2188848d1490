"""Asks compute about the jobs it has, and reads how far running programs say they are.

Where compute has events, they say about which jobs to ask. Events may be lost, so that all jobs are looked at every few
minutes all the same (`Reconciler`), and those that have moved untold are asked about.
"""

from __future__ import annotations

import logging
import secrets as entropy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from bot.application.lifecycle import Lifecycle
from bot.application.output import LOG_LINES
from bot.application.ports import Compute, Events, Logs
from bot.application.stalls import Stalls
from bot.application.worker.handling import attempt
from bot.application.worker.hinted import Hinted
from bot.application.worker.reconciler import Reconciler
from bot.domain import words
from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Ages, Watched, lately, now
from bot.domain.states import JobState
from bot.domain.work import Observation, Progress, Unclear
from bot.storage.engine import Database

log = logging.getLogger(__name__)

NONSENSE = "what compute says makes no sense to NOMADS; its log says where"
"""Why jobs wait where reading compute's answer ended in an error that nobody foresaw."""
ASKED = 400
"""Jobs that compute is asked about at once: four of AWS Batch's calls, made side by side."""
PROGRESS_EVERY = timedelta(seconds=3)
"""Least time between two looks at one running job's progress, which may edit its card."""
LOOKS = 10.0
"""Looks at progress, for all jobs together, that may be made at once."""
LOOKS_A_SECOND = 0.5
"""Looks at progress, for all jobs together, on average. Each may edit a card, and Slack takes some 50 edits a minute;
on AWS each is a call of CloudWatch."""
LISTEN = 2.0
"""Seconds that one wait for events lasts at most: for so long may `stop()` take, and each wait is a call of SQS."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often compute is asked, and what is made of its answers."""

    interval: float
    """Seconds between two rounds."""
    lost_after: timedelta = timedelta(minutes=5)
    """Time after its submission from which a job that compute does not know is LOST."""
    explain_after: timedelta = timedelta(minutes=10)
    """Time that a job waits to run before its thread says why."""
    leadership: timedelta = timedelta(seconds=5)
    """Least length of the leader lease: for so long a leader that died keeps other processes from watching."""


class Watcher:
    """One process's watcher. Of all processes that share a database, the one with the leader lease watches."""

    def __init__(
        self,
        *,
        database: Database,
        lifecycle: Lifecycle,
        stalls: Stalls,
        compute: Compute,
        logs: Logs,
        patience: Patience,
        ages: Ages,
        events: Events | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`events` of None: compute tells nothing by itself, and is asked about every job in every round."""
        self._database = database
        self._lifecycle = lifecycle
        self._stalls = stalls
        self._compute = compute
        self._logs = logs
        self._patience = patience
        self._ages = ages
        self._clock = clock
        self._holder = entropy.token_hex(8)
        self._missing: set[str] = set()
        self._events, self._hinted = events, Hinted()
        self._reconciler = Reconciler(at=clock())
        self._deaf = events is None
        """Whether there are no events, or they could not be received the last time."""
        self._round: datetime | None = None
        """When the last round was."""
        self._again: set[str] = set()
        """Jobs that the next round asks about, whenever that was."""
        self._running: dict[str, tuple[Watched, str | None]] = {}
        """The running jobs by id, with where their output is, as compute was asked last."""
        self._looked: dict[str, datetime] = {}
        self._looks, self._looks_at = LOOKS, clock()
        self._stop = threading.Event()

    def run(self) -> None:
        """Watch until `stop()`, whenever this process has the leader lease."""
        while not self._stop.is_set():
            if not self.turn():
                self._stop.wait(self._patience.interval)

    def turn(self) -> bool:
        """Look once, if this process has the leader lease. Returns whether it has waited for compute's events."""
        leads = attempt(self._leads)
        if not leads:
            self._missing.clear()  # whoever looks meanwhile may find what was denied here
        if leads and self._round_is_due():
            attempt(self.watch_once)
        return bool(leads) and self._events is not None and attempt(self.listen_once) is not None

    def stop(self) -> None:
        """Let `run()` return."""
        self._stop.set()

    def _leads(self) -> bool:
        lasting = max(timedelta(seconds=3 * self._patience.interval), self._patience.leadership)
        with self._database.begin() as transaction:
            return transaction.leader.acquire("watch", holder=self._holder, at=self._clock(), lasting=lasting)

    def _round_is_due(self) -> bool:
        return self._deaf or not lately(self._round, self._clock(), timedelta(seconds=self._patience.interval))

    def watch_once(self) -> int:
        """Ask compute about every job that it has, where that is due, else about those of no clear answer yet.

        Without events it always is due. Returns how many moved. Jobs for which compute does not answer now are left to
        the next round. Raises Unavailable.
        """
        with self._database.read() as transaction:
            watched = transaction.jobs.watched()
        self._round = at = self._clock()
        there = {job.id for job in watched}
        self._running = {name: one for name, one in self._running.items() if name in there}
        everything = self._deaf or self._reconciler.is_due(at)
        again, self._again = self._again, set()
        due = [job for job in watched if job.id in again or (everything and self._is_due(job, at))]
        usual = [] if self._deaf else [job for job in due if job.id not in again and not job.stalled]
        seen = self._glance(watched) if usual else {}
        calm = {job.id: seen[job.compute_id] for job in usual if job.compute_id in seen}
        moved, _ = self._look([job for job in due if job.id not in calm])
        moved += sum(self._take(job, calm[job.id]) for job in usual if job.id in calm)
        if everything:
            self._reconciler.looked(at, moved=bool(moved) and not self._deaf)
        self._tell()
        return moved

    def _is_due(self, job: Watched, at: datetime) -> bool:
        """Whether this job is part of a look at everything."""
        return self._deaf or not self._hinted.has_asked(job.compute_id, at)

    def _glance(self, jobs: Sequence[Watched]) -> Mapping[str, Observation]:
        """What was seen last of those that have not moved since, by compute id; empty where that is not known."""
        return attempt(self._compute.glance, [job.compute_id for job in jobs]) or {}

    def listen_once(self, *, within: float = LISTEN) -> int:
        """Wait for events, and ask compute about the jobs that they name. Returns how many moved.

        Nothing else that an event says is believed. Raises Unavailable and Refused where events cannot be received:
        every job is then asked about in every round until they can.
        """
        assert self._events
        self._deaf = True
        hints = self._events.receive(within=within)
        self._deaf = False
        at = self._clock()
        if any(hint.compute_id for hint in hints):
            self._reconciler.heard(at)
        self._hinted.add(hints, at=at)
        moved = 0
        if due := self._hinted.due(at):
            with self._database.read() as transaction:
                named = transaction.jobs.watched(due)
            asked = self._hinted.news(due, named, at=at)
            moved, seen = self._look([job for job, _ in asked])
            # Compute may say soon what an event claims already.
            self._again |= {job.id for job, claim in asked if claim and _is_ahead(claim, job, seen.get(job.id))}
        self._events.acknowledge(hints)
        self._tell()
        return moved

    def _tell(self) -> None:
        """Tell how far programs are, and for which jobs compute does not answer."""
        attempt(self._follow)
        attempt(self._stalls.look)

    def _look(self, watched: Sequence[Watched]) -> tuple[int, Mapping[str, Observation]]:
        """Ask compute about these jobs. Returns how many moved, and what was seen of each, by the job's id."""
        moved, observed = 0, dict[str, Observation]()
        for first in range(0, len(watched), ASKED):
            some = watched[first : first + ASKED]
            seen, doubtful = self._ask(some)
            clear = [job for job in some if job.compute_id not in doubtful]
            self._again |= {job.id for job in some if job.compute_id in doubtful}
            attempt(self._stalls.answered, [job.id for job in clear if job.stalled and not job.ending])
            for job in clear:
                observation = self._observed(job, seen.get(job.compute_id))
                if observation is None:
                    self._running.pop(job.id, None)
                    self._again.add(job.id)
                else:
                    observed[job.id] = observation
                    moved += self._take(job, observation)
        return moved, observed

    def _take(self, job: Watched, seen: Observation) -> bool:
        """Record and tell what was seen. Returns whether the job moved."""
        self._running.pop(job.id, None)
        moved = self._moves(job, seen)
        self._tells(job, seen)
        return moved

    def _moves(self, job: Watched, seen: Observation) -> bool:
        """Record what was seen. Returns whether the job moved."""
        if not seen.follows(job.state, job.compute_attempt):
            return False
        went = attempt(partial(self._lifecycle.observe, compute_id=job.compute_id), job.id, seen)
        if went is None:
            self._again.add(job.id)
        return bool(went)

    def _tells(self, job: Watched, seen: Observation) -> None:
        """Tell what was seen within the state of the job."""
        if seen.children and seen.state is JobState.RUNNING:
            attempt(partial(self._lifecycle.counted, compute_id=job.compute_id), job.id, seen.children)
        elif seen.state is JobState.RUNNING:
            self._running[job.id] = (job, seen.log)
        elif seen.state is JobState.RUNNABLE and (waited := self._waits_long(job)):
            attempt(self._lifecycle.waits, job.id, seen.reason, waited=waited)

    def _ask(self, jobs: Sequence[Watched]) -> tuple[Mapping[str, Observation], Collection[str]]:
        """What compute says of the jobs, and the compute ids of those that it gives no answer for, which is recorded.

        An error that nobody foresaw is no answer either: the other jobs are watched all the same.
        """
        ids = [job.compute_id for job in jobs]
        seen: Mapping[str, Observation] = {}
        doubtful: Collection[str] = set(ids)
        try:
            return self._compute.observe(ids), ()
        except Unclear as error:
            seen, doubtful, why = error.seen, error.ids, str(error)
        except (Unavailable, Refused) as error:
            why = str(error)
        except Exception as error:
            why = NONSENSE
            log.error("Compute's answer could not be read: %s", words.where(error))
        log.warning("Compute gives no answer for %d jobs now: %s", len(doubtful), why)
        attempt(self._stalls.failed, [job.id for job in jobs if job.compute_id in doubtful], why)
        return seen, doubtful

    def _observed(self, job: Watched, seen: Observation | None) -> Observation | None:
        """What was seen; LOST once compute has denied the job twice and `lost_after` has passed; None before that."""
        age = self._ages.of(job.id, job.submitted_at)
        if seen is not None:
            self._missing.discard(job.id)
            return seen
        if job.id not in self._missing:
            self._missing.add(job.id)
            return None
        if age < self._patience.lost_after:
            return None
        self._missing.discard(job.id)
        return Observation(JobState.LOST, "compute no longer knows this job, and never said how it ended.")

    def _waits_long(self, job: Watched) -> timedelta | None:
        """For how long the job has waited to run; None where that is not so long that its thread should say why."""
        waited = self._ages.of(job.id, job.runnable_at) if job.runnable_at else timedelta()
        return waited if waited > self._patience.explain_after else None

    def _follow(self) -> None:
        """Read the progress of running programs, first of those that were not looked at for longest."""
        at, running = self._clock(), list(self._running.values())
        self._looked = {job.id: self._looked.get(job.id, at) for job, _ in running}
        self._looks = min(LOOKS, self._looks + LOOKS_A_SECOND * max(0.0, (at - self._looks_at).total_seconds()))
        self._looks_at = at
        due = [(job, where) for job, where in running if not lately(self._looked[job.id], at, PROGRESS_EVERY)]
        for job, where in sorted(due, key=lambda one: self._looked[one[0].id])[: int(self._looks)]:
            self._looks -= 1
            self._looked[job.id] = at
            try:
                lines = self._logs.tail(job.compute_id, log=where, lines=LOG_LINES)
            except (Unavailable, Refused) as error:
                log.info("Compute does not show how far jobs are: %s", error)
                return
            if progress := Progress.read([line.text for line in lines]):
                self._lifecycle.progressed(job.id, progress)


def _is_ahead(claim: Observation, job: Watched, seen: Observation | None) -> bool:
    """Whether an event claims more of a job than compute says."""
    return seen is None or claim.follows(seen.state, seen.attempt or job.compute_attempt)
