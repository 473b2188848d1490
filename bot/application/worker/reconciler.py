"""When compute is asked about work that no event names: an event may be lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.domain.job import Watched, lately
from bot.domain.states import JobState

log = logging.getLogger(__name__)

LEAST = timedelta(minutes=5)
"""Time after the last sign of work, a step or a line that its program printed, after which it is asked about."""
SHARE = 0.5
"""From then on the time between two questions is this share of the time without a sign: a step whose event was lost is
told late in proportion to how long nothing has happened."""
MOST = timedelta(minutes=30)
"""The longest time between two questions about one work."""
QUIET = timedelta(minutes=15)
"""Time without any event after which a step that no event told casts doubt on the way that events take."""
LEAST_IN_DOUBT, MOST_IN_DOUBT = timedelta(minutes=1), timedelta(minutes=5)
"""The bounds from then on, until an event comes."""


@dataclass
class _Work:
    answered: datetime
    """When compute last said how the work is, by taking it if not otherwise, or its program last printed."""
    sign: datetime
    """When the work last moved, or its program last printed, as far as this process knows."""


class Reconciler:
    """When compute is asked about each work, by its compute id, although no event has named it. For one thread.

    Silence of one work is no reason to ask often: a program that runs for hours has no events. So the time between two
    questions grows with it; and what a program prints shows, at no cost, that it runs.
    """

    def __init__(self, *, at: datetime) -> None:
        """`at` is when this process began to listen."""
        self._works: dict[str, _Work] = {}
        self._heard = at
        self._missed = False
        self._warned = False

    def heard(self, at: datetime) -> None:
        """Note that an event came."""
        self._heard, self._missed, self._warned = at, False, False

    def missed(self) -> None:
        """Note that work has moved of which no event told."""
        self._missed = True

    def answered(self, compute_id: str, *, at: datetime, moved: bool) -> None:
        """Note that compute said how the work is."""
        work = self._works.setdefault(compute_id, _Work(at, at))
        work.answered = at
        work.sign = at if moved else min(work.sign, at)

    def printed(self, compute_id: str, *, at: datetime) -> None:
        """Note that the work's program printed something then, which is not in the future: it was running."""
        if work := self._works.get(compute_id):
            work.answered, work.sign = max(work.answered, at), max(work.sign, at)

    def due(self, jobs: Sequence[Watched], at: datetime) -> list[Watched]:
        """Those of all jobs that compute has about which it is time to ask."""
        there = {job.compute_id for job in jobs}
        self._works = {one: work for one, work in self._works.items() if one in there}
        doubtful = self._doubts(at)
        return [job for job in jobs if self._is_due(job, at, doubtful=doubtful)]

    def _is_due(self, job: Watched, at: datetime, *, doubtful: bool) -> bool:
        work = self._works.setdefault(job.compute_id, _Work(job.submitted_at, at))
        least, most = (LEAST_IN_DOUBT, MOST_IN_DOUBT) if doubtful else (LEAST, MOST)
        if _moves_soon(job):
            most = LEAST
        return not lately(work.answered, at, min(most, max(least, SHARE * (work.answered - work.sign))))

    def _doubts(self, at: datetime) -> bool:
        """Whether events may not arrive at all."""
        doubtful = self._missed and not lately(self._heard, at, QUIET)
        if doubtful and not self._warned:
            log.warning("Jobs have moved, and no event has told of it for %d minutes.", QUIET / timedelta(minutes=1))
            self._warned = True
        return doubtful


def _moves_soon(job: Watched) -> bool:
    """Whether the job does not stay for long as it is, or its thread is to be told soon why it waits."""
    untold = job.state is JobState.RUNNABLE and job.runnable_at is not None
    return untold or job.state in (JobState.SUBMITTED, JobState.PENDING, JobState.STARTING)
