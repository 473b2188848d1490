"""What is told while compute takes a machine back, or does not answer; on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.steering import Retried
from bot.domain.errors import Busy, Refused, Unavailable
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Progress
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.memory import MemoryCompute
from tests.support.world import TOKEN, World

ADMINS = ("U08ADMIN", "U09ADMIN")
AWAY = "AWS Batch did not say how its jobs are: AWS does not take NOMADS's credentials (expired)."
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
    world.results.put(job.folder, "results.json", b'{"counts": {"synapses": 0}}')
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    assert world.thread[-1] == "0 synapses. Finished after 1 min 0 s."
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


# All machines of an attempt's kind are taken back

RECLAIMED: dict[str, Any] = {"reason": "Its machine was taken back.", "cause": Cause.MACHINE}
ELSEWHERE = "Its machine was taken back. The job begins again on a machine that is not taken back."


@pytest.fixture
def steady(store: Database) -> World:
    """A world in whose compute some machines are not taken back."""
    return World(store, compute=MemoryCompute(lasts=True))


def test_a_job_whose_machines_were_taken_back_goes_on_where_they_are_not(steady: World) -> None:
    job = steady.running()
    steady.see(job, JobState.RUNNABLE, attempt=2, attempts=2, again=TAKEN)
    steady.clock.advance(60)
    steady.see(job, JobState.FAILED, stopped_at=steady.clock.now, **RECLAIMED)
    steady.settle()

    first, second = steady.compute.works
    assert (first.lasting, second.lasting) == (False, True)
    assert second == replace(first, name=second.name, lasting=True)
    assert first.name != second.name
    now = steady.job(job)
    assert (now.state, now.compute_id, now.compute_attempt) == (JobState.SUBMITTED, "memory-2", 1)
    assert (now.started_at, now.progress, now.log, now.waiting) == (None, None, None, "")
    assert steady.thread[-1] == ELSEWHERE
    (card,) = steady.chat.cards
    assert cards.state(card.story.job) == "⏳ Waiting to run"

    steady.clock.advance(90)
    steady.see(now, JobState.RUNNING, started_at=steady.clock.now, attempt=1, attempts=3)
    steady.settle()
    assert steady.thread[-1] == "Running again, after waiting 1 min 30 s."
    steady.clock.advance(60)
    steady.results.put(job.folder, "results.json", b'{"counts": {"synapses": 0}}')
    steady.see(now, JobState.SUCCEEDED, stopped_at=steady.clock.now)
    steady.settle()
    assert steady.thread[-1] == "0 synapses. Finished after 1 min 0 s."
    assert steady.thread.count(ELSEWHERE) == 1
    assert len(steady.mailer.sent) == 2


def test_a_job_for_which_a_machine_had_no_room_is_told_so_and_goes_on_on_another(steady: World) -> None:
    job = steady.accept()
    steady.settle()
    steady.see(job, JobState.FAILED, reason="No room left on its disk: no space left on device", cause=Cause.DISK)
    steady.settle()

    assert steady.thread[-1] == (
        "No room left on its disk: no space left on device. The job begins again on another machine."
    )
    assert [work.lasting for work in steady.compute.works] == [False, True]
    steady.see(steady.job(job), JobState.FAILED, reason="No room left on its disk.", cause=Cause.DISK)
    steady.settle()
    now = steady.job(job)
    assert (now.state, now.cause, now.retryable) == (JobState.FAILED, Cause.DISK, True)
    assert "larger disks" in now.advice
    assert "taken back" not in " ".join(steady.thread)


def test_news_of_the_machines_that_were_taken_back_change_nothing_afterwards(steady: World) -> None:
    job = steady.running()
    before = str(steady.job(job).compute_id)
    taken = Observation(JobState.FAILED, **RECLAIMED)
    assert steady.lifecycle.observe(job.id, taken, compute_id=before)
    for late in JobState:
        again = replace(taken, state=late)
        assert not steady.lifecycle.observe(job.id, again, compute_id=before), late
    steady.settle()
    for late in JobState:
        again = replace(taken, state=late)
        assert not steady.lifecycle.observe(job.id, again, compute_id=before), late
    assert len(steady.compute.works) == 2
    assert steady.job(job).state is JobState.SUBMITTED


def test_a_job_that_fails_on_a_machine_that_is_not_taken_back_has_failed(steady: World) -> None:
    job = steady.running()
    for _ in range(2):
        steady.see(steady.job(job), JobState.FAILED, **RECLAIMED)
        steady.settle()
    assert steady.job(job).state is JobState.FAILED
    assert len(steady.compute.works) == 2


@pytest.mark.parametrize(
    "failure",
    [
        Observation(JobState.FAILED, "Too little memory.", cause=Cause.MEMORY),
        Observation(JobState.FAILED, "No image.", cause=Cause.IMAGE),
        Observation(JobState.FAILED, exit_code=1),
        Observation(JobState.LOST, "Nobody knows it.", cause=Cause.MACHINE),
    ],
    ids=lambda one: one.why.value,
)
def test_another_machine_is_for_what_a_machine_did_alone(steady: World, failure: Observation) -> None:
    job = steady.running()
    assert steady.lifecycle.observe(job.id, failure)
    steady.settle()
    assert steady.job(job).state is failure.state
    assert len(steady.compute.works) == 1


def test_without_machines_that_are_not_taken_back_a_job_that_lost_all_of_its_has_failed(world: World) -> None:
    job = world.running()
    world.see(job, JobState.FAILED, **RECLAIMED)
    world.settle()
    assert world.job(job).state is JobState.FAILED
    assert len(world.compute.works) == 1


def test_a_job_that_is_cancelled_before_it_goes_on_elsewhere_is_not_submitted(steady: World) -> None:
    job = steady.running()
    steady.see(job, JobState.FAILED, **RECLAIMED)
    steady.steering.cancel(job.id, actor="U01DEMO")
    steady.settle()
    assert steady.job(job).state is JobState.CANCELLED
    assert len(steady.compute.works) == 1


def test_a_cancelled_job_whose_machine_is_taken_back_does_not_begin_again(steady: World) -> None:
    job = steady.running()
    steady.steering.cancel(job.id, actor="U01DEMO")
    steady.see(job, JobState.FAILED, **RECLAIMED)
    steady.settle()
    assert steady.job(job).state is JobState.CANCELLED
    assert steady.thread[-1].startswith("Cancelled by U01DEMO")
    assert ELSEWHERE not in steady.thread
    assert len(steady.compute.works) == 1


@pytest.mark.parametrize("found", [True, False], ids=["and was taken", "and was not"])
def test_a_job_that_is_cancelled_while_its_second_submission_is_in_doubt_is_ended(steady: World, found: bool) -> None:
    job = steady.running()
    fail = steady.compute.fail_after if found else steady.compute.fail_next
    fail(Unavailable("no answer"), call="submit")
    steady.see(job, JobState.FAILED, **RECLAIMED)
    steady.worker.lanes.drain()
    steady.steering.cancel(job.id, actor="U01DEMO")
    steady.settle()

    assert len(steady.compute.works) == 1 + found
    assert list(steady.compute.cancelled) == ["memory-2"] * found
    steady.worker.watcher.watch_once()
    steady.settle()
    assert steady.job(job).state is JobState.CANCELLED


def test_two_processes_that_see_the_machine_taken_back_submit_the_job_once_more_together(steady: World) -> None:
    job = steady.running()
    other = steady.another_worker()
    steady.compute.tell(job.name, Observation(JobState.FAILED, **RECLAIMED))

    steady.worker.watcher.watch_once()
    other.watcher.watch_once()
    other.lanes.drain()
    steady.settle()

    assert [work.lasting for work in steady.compute.works] == [False, True]
    assert steady.thread.count(ELSEWHERE) == 1


def test_a_retry_of_a_job_that_failed_on_a_lasting_machine_begins_where_every_job_does(steady: World) -> None:
    job = steady.running()
    for _ in range(2):
        steady.see(steady.job(job), JobState.FAILED, **RECLAIMED)
        steady.settle()

    retried = steady.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    steady.settle()

    assert isinstance(retried, Retried)
    assert [work.lasting for work in steady.compute.works] == [False, True, False]
    assert len({work.name for work in steady.compute.works}) == 3


def test_a_second_submission_that_compute_refuses_fails_the_job_with_the_reason(steady: World) -> None:
    job = steady.running()
    steady.compute.fail_next(Refused("The queue is gone."), call="submit")
    steady.see(job, JobState.FAILED, **RECLAIMED)
    steady.settle()

    now = steady.job(job)
    assert (now.state, now.reason, now.cause) == (JobState.FAILED, "The queue is gone.", Cause.SETUP)


def test_a_second_submission_whose_answer_was_lost_is_found_and_not_repeated(steady: World) -> None:
    job = steady.running()
    steady.compute.crash_after_submit()
    steady.see(job, JobState.FAILED, **RECLAIMED)
    steady.settle()
    assert (steady.job(job).state, steady.job(job).compute_id) == (JobState.SUBMITTED, "memory-2")
    assert len(steady.compute.works) == 2


# Compute does not answer


@pytest.fixture
def house(store: Database) -> World:
    return World(store, admins=ADMINS)


def away_for(world: World, seconds: int, *, error: Exception | None = None) -> None:
    """Let compute not answer the watcher for so long, which asks every ten seconds."""
    for _ in range(0, seconds, 10):
        world.compute.fail_next(error or Unavailable(AWAY), call="observe")
        world.worker.watcher.watch_once()
        world.settle(patience=0)
        world.clock.advance(10)


def waits(world: World, job: Job) -> list[str]:
    return [step.text for step in world.rows.transitions(job.id) if step.note]


@pytest.mark.parametrize("error", [Unavailable(AWAY), Unavailable(AWAY, retry_after=5), Refused(AWAY)])
def test_each_thread_says_once_that_it_waits_and_why_and_admins_hear_it_once_for_all(
    house: World, error: Exception
) -> None:
    jobs = [house.running() for _ in range(3)]
    away_for(house, 60, error=error)
    assert house.chat.told == [], "a minute is nothing"
    assert [waits(house, job) for job in jobs] == [[], [], []]
    away_for(house, 300, error=error)
    said = (
        f"It waits, for 1 min 0 s by now: {AWAY.rstrip('.')}. It goes on by itself once there is an answer. "
        "The admins of NOMADS are told."
    )
    assert [waits(house, job) for job in jobs] == [[said]] * 3
    assert house.thread.count(said) == 3
    assert [person for person, _ in house.chat.told] == list(ADMINS)
    assert all("expired" in text and "no answer from compute since 12:00 UTC" in text for _, text in house.chat.told)
    cards_now = [cards.state(card.story.job) for card in house.chat.cards]
    assert all("⏸️" in shown and "expired" in shown for shown in cards_now)

    house.worker.watcher.watch_once()
    house.settle()
    house.worker.watcher.watch_once()
    house.settle()
    over = "It goes on: there is an answer again, after 6 min 0 s."
    assert [waits(house, job)[1:] for job in jobs] == [[over]] * 3
    assert [person for person, _ in house.chat.told] == [*ADMINS, *ADMINS]
    assert (
        house.chat.told[-1][1] == "NOMADS has answers from compute again, after 6 min 0 s. The jobs that waited go on."
    )
    assert all("⏸️" not in cards.state(card.story.job) for card in house.chat.cards)
    assert all(house.job(job).stalled_since is None for job in jobs)


def test_an_answer_that_nobody_foresaw_leaves_every_job_waiting_and_says_so(house: World) -> None:
    jobs = [house.running() for _ in range(2)]
    away_for(house, 70, error=TypeError("list indices must be integers"))
    assert [len(waits(house, job)) for job in jobs] == [1, 1]
    assert "what compute says makes no sense to NOMADS" in waits(house, jobs[0])[0]
    assert "indices" not in " ".join([*waits(house, jobs[0]), *(text for _, text in house.chat.told)])
    assert [person for person, _ in house.chat.told] == list(ADMINS)


def test_a_job_that_is_in_doubt_by_itself_waits_and_the_others_go_on(house: World) -> None:
    strange, sound = house.running(), house.running()
    house.compute.unclear = {str(house.job(strange).compute_id)}
    house.compute.tell(sound.name, Observation(JobState.FAILED, "Ended."))
    for _ in range(7):
        house.worker.watcher.watch_once()
        house.settle()
        house.clock.advance(10)
    assert house.job(sound).state is JobState.FAILED
    assert house.job(strange).state is JobState.RUNNING
    assert waits(house, strange)[0].startswith("It waits, for 1 min 0 s by now: What compute says of it makes no sense")
    assert waits(house, sound) == []
    assert [person for person, _ in house.chat.told] == list(ADMINS)

    house.compute.unclear = set()
    house.clock.advance(3600)
    house.worker.watcher.watch_once()
    assert house.job(strange).state is JobState.RUNNING, "in doubt is not unknown"
    house.settle()
    assert waits(house, strange)[1].startswith("It goes on: there is an answer again")


def test_progress_that_cannot_be_read_holds_up_nothing_that_is_told(house: World) -> None:
    job = house.running()
    house.compute.unclear = {str(house.job(house.running()).compute_id)}
    for _ in range(7):
        house.compute.fail_next(TypeError("no log"), call="log_tail")
        house.worker.watcher.watch_once()
        house.settle()
        house.clock.advance(10)
    assert [person for person, _ in house.chat.told] == list(ADMINS)
    assert waits(house, job) == []


@pytest.mark.parametrize("put", [-3600.0, 3600.0])
def test_whatever_the_clock_does_meanwhile_it_is_told_in_time_and_how_long_it_lasted(house: World, put: float) -> None:
    job = house.running()
    away_for(house, 30)
    house.clock.put(put)
    house.worker.lanes.keep_leases()
    away_for(house, 30)
    assert waits(house, job) == []
    away_for(house, 10)
    assert len(waits(house, job)) == 1
    assert waits(house, job)[0].startswith("It waits, for 1 min 0 s by now: ")
    assert [person for person, _ in house.chat.told] == list(ADMINS)
    house.clock.put(-put)
    house.worker.lanes.keep_leases()
    away_for(house, 50)
    for _ in range(2):
        house.worker.watcher.watch_once()
        house.settle()
    assert waits(house, job)[1:] == ["It goes on: there is an answer again, after 2 min 0 s."]
    assert house.chat.told[-1][1].startswith("NOMADS has answers from compute again, after 2 min 0 s.")


def test_a_moment_without_an_answer_is_not_told(house: World) -> None:
    job = house.running()
    for _ in range(5):
        away_for(house, 50)
        house.worker.watcher.watch_once()
    house.settle()
    assert waits(house, job) == []
    assert house.chat.told == []


def test_a_second_process_and_a_restart_tell_nothing_again(house: World) -> None:
    job = house.running()
    away_for(house, 120)
    for _ in range(2):
        house.worker = house.another_worker()
        away_for(house, 120)
    assert len(waits(house, job)) == 1
    assert len(house.chat.told) == len(ADMINS)


def test_a_second_outage_is_told_as_the_first_was(house: World) -> None:
    job = house.running()
    for _ in range(2):
        away_for(house, 120)
        house.worker.watcher.watch_once()
        house.settle()
    assert len(waits(house, job)) == 4
    assert len(house.chat.told) == 4 * len(ADMINS)


@pytest.mark.parametrize("call", ["submit", "find"])
def test_a_submission_that_nobody_answers_is_told_and_goes_on_by_itself(house: World, call: str) -> None:
    if call == "find":
        house.compute.crash_after_submit()
    house.compute.fail_next(Busy("AWS asks NOMADS to slow down (Throttling).", retry_after=5), call=call, times=40)
    job = house.accept()
    for _ in range(20):
        house.worker.lanes.drain()
        house.worker.watcher.watch_once()
        house.clock.advance(5)
    assert len(waits(house, job)) == 1
    assert "AWS asks NOMADS to slow down (Throttling)." in waits(house, job)[0]
    assert len(house.chat.told) == len(ADMINS)
    house.settle()
    house.worker.watcher.watch_once()
    house.settle()
    assert house.job(job).state is JobState.SUBMITTED
    assert "there is an answer again" in waits(house, job)[-1]
    assert len(house.chat.told) == 2 * len(ADMINS)
    assert len(house.compute.works) == 1


def test_results_that_cannot_be_fetched_yet_are_told_to_be_waited_for(house: World) -> None:
    job = house.running()
    house.results.put(job.folder, "results.json", b'{"counts": {"synapses": 3}}')
    house.results.fail_next(Unavailable("S3 did not give results.json.", retry_after=5), call="read", times=30)
    house.see(job, JobState.SUCCEEDED, stopped_at=house.clock.now)
    for _ in range(20):
        house.worker.lanes.drain()
        house.worker.watcher.watch_once()
        house.clock.advance(5)
    assert "S3 did not give results.json" in house.thread[-1]
    assert "3 synapses" not in str(house.thread)
    house.settle(patience=4 * 3600)
    house.worker.watcher.watch_once()
    house.settle()
    assert any("3 synapses" in text for text in house.thread)
    assert house.job(job).stalled_since is None
    assert len(house.chat.told) == 2 * len(ADMINS)


def test_a_job_that_is_cancelled_while_compute_is_away_leaves_no_outage_behind(house: World) -> None:
    house.compute.fail_next(Unavailable(AWAY, retry_after=5), call="submit", times=30)
    job = house.accept()
    for _ in range(20):
        house.worker.lanes.drain()
        house.worker.watcher.watch_once()
        house.clock.advance(5)
    house.steering.cancel(job.id, actor="U01DEMO")
    house.settle()
    house.worker.watcher.watch_once()
    house.settle()
    assert house.job(job).state is JobState.CANCELLED
    assert len(house.chat.told) == 2 * len(ADMINS)


def test_an_admin_who_has_left_holds_nothing_up(house: World) -> None:
    house.running()
    house.chat.fail_next(Refused("This person is not in the workspace."), call="tell")
    away_for(house, 120)
    assert [person for person, _ in house.chat.told] == [ADMINS[1]]
    assert house.rows.open_effects() == 0


def test_without_admins_the_threads_hear_it_all_the_same(world: World) -> None:
    job = world.running()
    away_for(world, 120)
    assert waits(world, job)[0].endswith("It goes on by itself once there is an answer.")


def test_a_cancellation_that_compute_does_not_take_is_told_although_it_answers_all_else(house: World) -> None:
    job = house.running()
    house.steering.cancel(job.id, actor="U01DEMO")
    for _ in range(8):
        house.compute.fail_next(Unavailable("AWS Batch did not end the job: throttled."), call="cancel")
        house.settle(patience=0)
        house.worker.watcher.watch_once()
        house.clock.advance(10)
    house.settle(patience=0)
    assert waits(house, job)[0].startswith("It waits, for 1 min")
    assert "AWS Batch did not end the job: throttled" in waits(house, job)[0]
