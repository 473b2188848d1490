"""What is told while compute takes a machine back, or does not answer; on both databases."""

from __future__ import annotations

import pytest

from bot.domain.states import JobState
from bot.domain.work import Observation, Progress
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.world import World

TAKEN = "Its machine was taken back; waiting for another"


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


# A machine is taken back


def test_a_machine_that_was_taken_back_is_a_step_of_its_own(world: World) -> None:
    job = world.running()
    world.compute.print(job.name, "progress 0.90 detecting")
    world.clock.advance(600)
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).progress == Progress(0.9, "detecting")
    world.see(job, JobState.RUNNABLE, attempt=2, attempts=3, again=TAKEN)
    world.settle()
    now = world.job(job)
    assert (now.state, now.compute_attempt, now.started_at, now.progress) == (JobState.RUNNABLE, 2, None, None)
    assert world.thread[-1] == f"{TAKEN}, attempt 2 of 3."
    (card,) = world.chat.cards
    assert cards.state(card.story.job) == "⏳ Waiting again to run, attempt 2"

    world.clock.advance(90)
    world.see(job, JobState.STARTING, attempt=2, attempts=3, again=TAKEN)
    world.see(job, JobState.RUNNING, attempt=2, attempts=3, started_at=world.clock.now, again="Its machine …")
    world.settle()
    assert world.thread[-1] == "Running again, after waiting 1 min 30 s."
    world.clock.advance(60)
    world.results.put(job.folder, "results.json", b"{}")
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    assert world.thread[-1] == "Finished after 1 min 0 s."
    assert [step.state for step in world.rows.transitions(job.id)] == [
        JobState.ACCEPTED,
        JobState.SUBMITTED,
        JobState.RUNNING,
        JobState.RUNNABLE,
        JobState.STARTING,
        JobState.RUNNING,
        JobState.SUCCEEDED,
    ]


def test_news_of_earlier_attempts_change_nothing(world: World) -> None:
    job = world.running()
    assert world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE, attempt=2, again=TAKEN))
    for late in JobState:
        assert not world.lifecycle.observe(job.id, Observation(late, attempt=1)), late
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE, attempt=2, again=TAKEN))
    assert world.lifecycle.observe(job.id, Observation(JobState.RUNNING, attempt=2))
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE, attempt=2))
    assert world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE, attempt=3, again=TAKEN))
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNING, attempt=2))
    world.settle()
    assert (world.job(job).state, world.job(job).compute_attempt) == (JobState.RUNNABLE, 3)
    assert world.lifecycle.observe(job.id, Observation(JobState.FAILED, "Ended."))
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE, attempt=4))
    world.settle()
    assert world.job(job).state is JobState.FAILED


def test_an_attempt_whose_wait_was_not_seen_is_told_all_the_same(world: World) -> None:
    job = world.running()
    world.clock.advance(60)
    world.see(
        job, JobState.RUNNING, attempt=2, attempts=3, again="Its machine was taken back; running again on another"
    )
    world.settle()
    assert world.thread[-1] == "Its machine was taken back; running again on another, attempt 2 of 3."
    assert world.job(job).state is JobState.RUNNING


def test_an_attempt_that_waits_for_long_says_why_as_the_first_does(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE, reason="No machine.")
    world.clock.advance(601)
    world.worker.watcher.watch_once()
    world.see(job, JobState.RUNNING)
    world.see(job, JobState.RUNNABLE, attempt=2, reason="No machine.", again=TAKEN)
    world.settle()
    assert world.job(job).waiting == ""
    world.clock.advance(601)
    world.worker.watcher.watch_once()
    world.settle()
    assert world.thread[-1] == f"{TAKEN}, attempt 2. Waiting to run for 10 min 1 s. No machine."


def test_a_job_that_is_cancelled_while_it_waits_again_ends(world: World) -> None:
    job = world.running()
    world.see(job, JobState.RUNNABLE, attempt=2, again=TAKEN)
    world.steering.cancel(job.id, actor="U01DEMO")
    world.settle()
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert world.thread[-1] == "Cancelled by U01DEMO."
