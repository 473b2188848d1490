"""Ten thousand jobs whose events are doubled, late, out of order, forged and lost end in their right states."""

from __future__ import annotations

import random
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

import pytest
import sqlalchemy as sa

from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation
from bot.storage.engine import Database
from bot.storage.tables import jobs, transitions
from tests.support.memory import MemoryCompute, MemoryEvents
from tests.support.world import World, a_request

SUBMITTED = Observation(JobState.SUBMITTED)
SUCCEEDED = Observation(JobState.SUCCEEDED, exit_code=0)
HISTORIES = 10_000
PARTS = 4
LOST, DOUBLED, FORGED = 0.1, 0.3, 0.2
LATEST = 120.0
"""Seconds by which an event may be late."""
STEP = 10.0
"""Seconds between two looks at the events, within which an end is told of which an event says truly."""
CALLS = 4
"""DescribeJobs calls that name one job, over its life, in the median."""


@dataclass
class History:
    """What really happens to one job, and the events about it."""

    states: list[tuple[float, Observation]] = field(default_factory=list)
    """With the second in which each begins."""
    events: list[tuple[float, Observation | None]] = field(default_factory=list)


def history(draw: random.Random) -> History:
    """A job that waits, runs, and ends; now and then its machine is taken back, and a state is too short to be seen."""
    found, at, attempt = History(), draw.uniform(0, 60), 1
    for _ in range(draw.choice((1, 1, 1, 1, 1, 2, 3))):
        for state in (JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING):
            found.states.append((at, Observation(state, attempt=attempt)))
            at += draw.choice((0.2, draw.uniform(1, 60), draw.uniform(60, 300)))
        attempt += 1
    failed = Observation(JobState.FAILED, "The program ended with exit code 1.", exit_code=1)
    found.states.append((at, draw.choice((SUCCEEDED, SUCCEEDED, failed))))
    for at, seen in found.states:
        for _ in range(2 if draw.random() < DOUBLED else 1):
            if draw.random() < LOST:
                continue
            lie = draw.choice((SUCCEEDED, failed, None, Observation(JobState.RUNNING, attempt=9)))
            claims = lie if draw.random() < FORGED else seen
            found.events.append((at + draw.choice((1.0, draw.uniform(0, LATEST))), claims))
    return found


class Playing(MemoryCompute):
    """Compute in which histories take place."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.seconds = 0.0
        self.histories: dict[str, History] = {}

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        self.asked.update(ids)
        self.said |= (seen := {one: self.now(one) for one in ids if one in self.histories})
        return seen

    def now(self, compute_id: str) -> Observation:
        seen = SUBMITTED
        for at, state in self.histories[compute_id].states:
            if at > self.seconds:
                break
            seen = state
        return seen


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_histories_end_in_their_right_states_whatever_the_events(store: Database, part: int) -> None:
    draw = random.Random(part)
    compute, events = Playing(), MemoryEvents()
    world = World(store, compute=compute, events=events)
    compute.histories = {str(uuid.UUID(int=number)): history(draw) for number in range(HISTORIES // PARTS)}
    began, watcher = world.clock.now, world.worker.watcher
    fill(store, list(compute.histories), at=began)
    all_events = [(at, one, claims) for one, known in compute.histories.items() for at, claims in known.events]
    due = deque(sorted(all_events, key=lambda event: (int(event[0] / STEP), draw.random())))  # in no order in a step

    while due or watched(store):
        while due and due[0][0] <= compute.seconds:
            _, one, claims = due.popleft()
            events.send(one, claims)
        watcher.watch_once()
        watcher.listen_once(within=0)
        while events.waiting:
            watcher.listen_once(within=0)
        world.clock.advance(STEP)
        compute.seconds = (world.clock.now - began).total_seconds()

    assert states(store) == {one: known.states[-1][1].state for one, known in compute.histories.items()}
    stories = told(store)
    for one, known in compute.histories.items():
        *steps, last = stories[one]
        assert last in FINAL
        assert FINAL.isdisjoint(steps)
        assert Counter(steps) <= Counter(seen.state for _, seen in known.states)  # each of an attempt is told once
    assert median(compute.asked.values()) <= CALLS
    late = sorted(lateness(store, compute.histories, began))
    assert len(late) > HISTORIES / PARTS / 2
    assert late[-1] <= STEP


def lateness(store: Database, histories: Mapping[str, History], began: datetime) -> Iterator[float]:
    """By how many seconds the end of each job was told later than the first event that says so truly."""
    query = sa.select(jobs.c.key, transitions.c.at).join(jobs, jobs.c.id == transitions.c.job_id)
    with store.read() as transaction:
        rows = transaction.connection.execute(query.where(transitions.c.state.in_([one.value for one in FINAL]))).all()
    for one, at in rows:
        known = histories[one]
        ended, end = known.states[-1]
        if came := [second for second, claims in known.events if claims == end and second >= ended]:
            yield (at - began).total_seconds() - min(came)


def states(store: Database) -> dict[str, JobState]:
    """The state of each job, by its compute id."""
    with store.read() as transaction:
        return {
            one: JobState(state) for one, state in transaction.connection.execute(sa.select(jobs.c.key, jobs.c.state))
        }


def watched(store: Database) -> int:
    """How many jobs have not ended."""
    with store.read() as transaction:
        return len(transaction.jobs.watched())


def told(store: Database) -> dict[str, list[JobState]]:
    """The steps that the story of each job has, in their order, by its compute id."""
    query = sa.select(jobs.c.key, transitions.c.state).join(jobs, jobs.c.id == transitions.c.job_id)
    query = query.order_by(jobs.c.id, transitions.c.number)
    found: dict[str, list[JobState]] = {}
    with store.read() as transaction:
        for job, state in transaction.connection.execute(query):
            found.setdefault(job, []).append(JobState(state))
    return found


def fill(store: Database, compute_ids: Sequence[str], *, at: datetime) -> None:
    """Make jobs that compute has under these ids, as they stand once they were submitted."""
    request = a_request()
    row = {
        "request": request.model_dump(mode="json"),
        "actor": "U01DEMO",
        "state": JobState.SUBMITTED.value,
        "accepted_at": at,
        "submitted_at": at,
        "pipeline": request.pipeline,
        "voxels": request.box.voxels,
        "work": "",
        "checked": True,
    }
    rows = [{**row, "id": f"j{number:07d}", "key": one, "compute_id": one} for number, one in enumerate(compute_ids)]
    with store.begin() as transaction:
        transaction.connection.execute(jobs.insert(), rows)
