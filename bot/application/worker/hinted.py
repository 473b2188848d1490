"""Which work compute is to be asked about, because events have named it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.domain.job import Watched, lately
from bot.domain.states import WAITING, JobState
from bot.domain.work import Hint, Observation

APART = timedelta(seconds=1)
"""Least time between two questions about one job that events bring about: no flood of events is one of calls."""
ARRAYS_APART = timedelta(seconds=10)
"""The same for an array of which only its programs have told, each by events of its own: its card shows numbers."""
HELD = timedelta(seconds=30)
"""For so long a step that no reply tells waits for the next one, so that both cost one question."""
FRESH = timedelta(minutes=2)
"""For so long the answer to a question that an event has brought about saves the next look at everything."""
UNKNOWN = timedelta(seconds=30)
"""For so long an event waits for a job of its compute id: it may overtake the commit of the job's submission."""
MOST = 20_000
"""Jobs that wait for a question at once; events of more are left to the reconciler."""


@dataclass
class _Named:
    since: datetime
    """When the first event that is not answered yet came."""
    patient: bool = True
    """Whether all of these events are about programs of an array."""
    claims: list[Observation] = field(default_factory=list)
    unsure: bool = False
    """Whether an event says nothing that could save the question."""
    untold: bool = True
    """Whether all of these events are about steps that no reply tells."""


class Hinted:
    """Work that events have named since compute was asked about it last. For one thread."""

    def __init__(self) -> None:
        self._named: dict[str, _Named] = {}
        self._asked: dict[str, datetime] = {}

    def add(self, hints: Iterable[Hint], *, at: datetime) -> None:
        """Note what these events name."""
        for hint in hints:
            if not hint.compute_id or (hint.compute_id not in self._named and len(self._named) >= MOST):
                continue
            named = self._named.setdefault(hint.compute_id, _Named(at))
            named.patient &= hint.of_child
            named.untold &= hint.claims is not None and _is_untold(hint.claims)
            if hint.claims is None:
                named.unsure = True
            elif hint.claims not in named.claims:
                named.claims.append(hint.claims)

    def due(self, at: datetime) -> list[str]:
        """The compute ids for which it is time to look, those first that have waited longest."""
        self._asked = {one: then for one, then in self._asked.items() if lately(then, at, FRESH)}
        waits = {one: named for one, named in self._named.items() if not self._too_soon(one, named, at)}
        return sorted(waits, key=lambda one: waits[one].since)

    def _too_soon(self, compute_id: str, named: _Named, at: datetime) -> bool:
        if named.untold and lately(named.since, at, HELD):
            return True
        return lately(self._asked.get(compute_id), at, ARRAYS_APART if named.patient else APART)

    def has_asked(self, compute_id: str, at: datetime) -> bool:
        """Whether events have brought about a question about this work a short while ago."""
        return lately(self._asked.get(compute_id), at, FRESH)

    def news(
        self, ids: Sequence[str], jobs: Sequence[Watched], *, at: datetime
    ) -> list[tuple[Watched, Observation | None]]:
        """Of these jobs, those that compute has to be asked about, each with a claim that is news, if there is one.

        What was `due` under these ids is dealt with; ids of no job are kept for a while. Events that say nothing that
        is not known save a question.
        """
        ours = {job.compute_id: job for job in jobs}
        asked: list[tuple[Watched, Observation | None]] = []
        for compute_id in ids:
            named, job = self._named[compute_id], ours.get(compute_id)
            if job is None and lately(named.since, at, UNKNOWN):
                continue
            del self._named[compute_id]
            news = [claim for claim in named.claims if job is not None and _is_news(claim, job)]
            if job is not None and (named.unsure or news):
                self._asked[compute_id] = at
                asked.append((job, news[0] if news else None))
        return asked


def _is_untold(claim: Observation) -> bool:
    """Whether only the card shows such a step: work waits, for the first time and for no reason that is known."""
    return claim.state in WAITING and not claim.reason and claim.attempt in (None, 1)


def _is_news(claim: Observation, job: Watched) -> bool:
    waits = claim.state is job.state is JobState.RUNNABLE and bool(claim.reason)  # why its queue is blocked
    return waits or claim.follows(job.state, job.compute_attempt)
