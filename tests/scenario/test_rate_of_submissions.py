"""Compute that takes so many submissions a second gets no more, from all processes together."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from bot.application.rates import Rate
from bot.domain.states import JobState
from bot.domain.work import Work
from bot.storage.engine import Database
from tests.support.memory import MemoryCompute
from tests.support.world import Clock, World

A_SECOND = 50


class Timed(MemoryCompute):
    """Notes when it was asked to run something."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock
        self.times: list[datetime] = []

    def submit(self, work: Work) -> str:
        self.times.append(self.clock())
        return super().submit(work)

    @property
    def most(self) -> int:
        """The most submissions within any second."""
        window, most = deque[datetime](), 0
        for at in self.times:
            window.append(at)
            while window[0] <= at - timedelta(seconds=1):
                window.popleft()
            most = max(most, len(window))
        return most

    @property
    def took(self) -> float:
        """Seconds from the first submission to the last."""
        return (self.times[-1] - self.times[0]).total_seconds()


def a_lab(store: Database) -> tuple[World, Timed]:
    compute = Timed()
    world = World(store, compute=compute, submissions=A_SECOND, mails=False)
    compute.clock = world.clock
    return world, compute


def test_many_clicks_at_once_are_all_taken_and_submitted_at_the_rate_that_compute_takes(store: Database) -> None:
    world, compute = a_lab(store)
    jobs = [world.accept(actor=f"U{number:04}") for number in range(150)]

    world.settle()

    assert {world.job(job).state for job in jobs} == {JobState.SUBMITTED}
    assert len({work.name for work in compute.works}) == len(compute.works) == 150
    assert compute.most <= A_SECOND
    assert compute.took <= 150 / A_SECOND * 1.05


def test_the_rate_is_that_of_all_processes_together(store: Database) -> None:
    clock, compute = Clock(), Timed()
    waits: list[float] = []
    processes = [Rate("submit", database=store, a_second=A_SECOND, clock=clock, wait=waits.append) for _ in range(3)]
    for turn in range(210):
        waits.append(0)
        processes[turn % 3].turn()
        compute.times.append(clock.now + timedelta(seconds=waits[-1]))
        clock.advance(0.002)  # others wait meanwhile

    assert A_SECOND - 2 <= compute.most <= A_SECOND
    assert compute.took <= 210 / A_SECOND * 1.05


def test_a_clock_that_went_back_holds_up_no_submission(store: Database) -> None:
    world, compute = a_lab(store)
    world.accept()
    world.settle()
    world.clock.put(-3600)
    world.worker.lanes.keep_leases()
    world.accept(actor="U2")

    world.settle()

    assert len(compute.works) == 2
    assert world.clock.ticks() < 1


def test_compute_that_names_no_rate_is_asked_at_once(store: Database) -> None:
    compute = Timed()
    world = World(store, compute=compute, mails=False)
    compute.clock = world.clock
    for number in range(60):
        world.accept(actor=f"U{number:04}")

    world.settle()

    assert (compute.most, compute.took) == (60, 0)
