"""A day of jobs that wait and run for minutes to hours, of whose events some are lost, in simulated time."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bot.aws.batch import DESCRIBE_LIMIT
from bot.aws.listing import PAGE, Described
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.domain.work import Observation
from bot.storage.engine import Database
from tests.support.memory import MemoryCompute, MemoryEvents
from tests.support.world import World

ROUND = 10
"""Seconds between two rounds, as on AWS."""
SHORTEST, LONGEST = 120, 6 * 3600
"""Seconds that a program runs."""


class _Counting(MemoryCompute):
    """Counts calls of ListJobs, and DescribeJobs by the compute id: how many calls name a job, and its share of these.

    What is known by listings is what the adapter of AWS Batch keeps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls_made = 0
        self.listings = 0
        self._described = Described()
        self.named: Counter[str] = Counter()
        self.share: defaultdict[str, float] = defaultdict(float)

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        calls = math.ceil(len(ids) / DESCRIBE_LIMIT)
        self.calls_made += calls
        self.named.update(ids)
        for one in ids:
            self.share[one] += calls / len(ids)
        seen = super().observe(ids)
        self._described.forget(ids)
        for one, said in seen.items():
            self._described.note(self._job(one, said), said)
        return seen

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        return self._described.unmoved(ids, self._since)

    def _since(self, _: str, created: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        made = [f"memory-{number}" for number in range(len(self.works), 0, -1)]
        jobs = [job for job in (self._job(one, self._observations[one]) for one in made) if job["createdAt"] >= created]
        for first in range(0, len(jobs), PAGE):
            self.listings += 1
            yield jobs[first : first + PAGE]

    def _job(self, one: str, seen: Observation) -> Mapping[str, Any]:
        """A job as AWS Batch has it."""
        at = self.submitted_at[int(one.removeprefix("memory-")) - 1]
        log = {"logStreamName": one} if seen.state is JobState.RUNNING else {}
        made = {"jobId": one, "jobQueue": "queue", "createdAt": int(at.timestamp() * 1000), "container": log}
        return {**made, "status": seen.state.value, "startedAt": seen.attempt}


@dataclass
class _Life:
    begins: float
    steps: deque[tuple[float, Observation]]
    job: Job | None = None
    compute_id: str = ""
    lost: dict[JobState, datetime] = field(default_factory=dict)
    """When the steps began whose events were lost."""


class Day:
    """So many jobs, begun at any time of a day."""

    def __init__(self, store: Database, *, jobs: int, lost: float, seed: int = 1) -> None:
        """`lost` is the part of the events that never come."""
        self._compute, self._events = _Counting(), MemoryEvents()
        self._world = World(store, compute=self._compute, events=self._events, mails=False)
        self._compute._clock = self._world.clock
        self._lost, self._draw = lost, random.Random(seed)
        self._lives = [self._life() for _ in range(jobs)]

    def _life(self) -> _Life:
        at, steps = self._draw.uniform(0, 86_400), deque[tuple[float, Observation]]()
        lasts = ((JobState.RUNNABLE, 10, 3600), (JobState.STARTING, 5, 60), (JobState.RUNNING, SHORTEST, LONGEST))
        begins = at
        for state, least, most in lasts:
            at += 1
            steps.append((at, Observation(state, attempt=1)))
            at += math.exp(self._draw.uniform(math.log(least), math.log(most)))
        steps.append((at, Observation(JobState.SUCCEEDED, exit_code=0)))
        return _Life(begins, steps)

    @property
    def calls(self) -> int:
        """How many calls of DescribeJobs there were, each about a hundred jobs at most."""
        return self._compute.calls_made

    @property
    def listings(self) -> int:
        """How many calls of ListJobs there were."""
        return self._compute.listings

    def named(self) -> list[int]:
        """How many calls named each job."""
        return [self._compute.named[one.compute_id] for one in self._lives]

    def shares(self) -> list[float]:
        """How many calls each job cost, where a call that names n jobs costs each of them one nth."""
        return [self._compute.share[one.compute_id] for one in self._lives]

    def late(self) -> list[float]:
        """By how many seconds each step into RUNNING, and each end, was told late whose event was lost."""
        found: list[float] = []
        for one in self._lives:
            assert one.job
            with self._world.store.read() as transaction:
                story = {step.state: step.at for step in transaction.story.of(one.job.id)}
            found += [
                (story.get(state, story[JobState.SUCCEEDED]) - at).total_seconds() for state, at in one.lost.items()
            ]
        return found

    def pass_by(self) -> None:
        """Let time pass until every job has ended, as people were told."""
        clock, watcher = self._world.clock, self._world.worker.watcher
        began = clock.now
        while any(one.steps or not one.job for one in self._lives) or self._open():
            passed = (clock.now - began).total_seconds()
            for one in self._lives:
                self._go_on(one, passed, began)
            watcher.watch_once()
            watcher.listen_once(within=0)
            clock.advance(ROUND)

    def _open(self) -> bool:
        with self._world.store.read() as transaction:
            return bool(transaction.jobs.watched())

    def _go_on(self, one: _Life, passed: float, began: datetime) -> None:
        if one.job is None and passed >= one.begins:
            one.job = self._world.accept()
            self._world.worker.lanes.drain()
            one.compute_id = self._compute.find(one.job.name) or ""
        while one.steps and passed >= one.steps[0][0]:
            at, seen = one.steps.popleft()
            self._compute.tell(one.compute_id, seen)
            if self._draw.random() >= self._lost:
                self._events.send(one.compute_id, seen)
            elif seen.state is JobState.RUNNING or not one.steps:
                one.lost[seen.state] = began + timedelta(seconds=at)
