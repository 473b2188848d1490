"""Compute that takes so many submissions a second gets no more, from all processes together."""

from __future__ import annotations

from datetime import timedelta

from bot.application.rates import Rate
from bot.aws.backend import SUBMISSIONS
from bot.domain.states import JobState
from bot.storage.engine import Database
from tests.support.rated import Timed, rated
from tests.support.world import Clock, World


def test_many_clicks_at_once_are_all_taken_and_submitted_at_the_rate_that_compute_takes(store: Database) -> None:
    world, compute = rated(store)
    jobs = [world.accept(actor=f"U{number:04}") for number in range(150)]

    world.settle()

    assert {world.job(job).state for job in jobs} == {JobState.SUBMITTED}
    assert len({work.name for work in compute.works}) == len(compute.works) == 150
    assert compute.most <= SUBMISSIONS
    assert compute.took <= 150 / SUBMISSIONS * 1.05


def test_the_rate_is_that_of_all_processes_together(store: Database) -> None:
    clock, compute = Clock(), Timed()
    waits: list[float] = []
    processes = [Rate("submit", database=store, a_second=SUBMISSIONS, clock=clock, wait=waits.append) for _ in range(3)]
    for turn in range(210):
        waits.append(0)
        processes[turn % 3].turn()
        compute.times.append(clock.now + timedelta(seconds=waits[-1]))
        clock.advance(0.002)  # others wait meanwhile

    assert SUBMISSIONS - 2 <= compute.most <= SUBMISSIONS
    assert compute.took <= 210 / SUBMISSIONS * 1.05


def test_a_clock_that_went_back_holds_up_no_submission(store: Database) -> None:
    world, compute = rated(store)
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
