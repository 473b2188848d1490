"""Compute tells by itself that jobs move, unreliably: NOMADS asks about what is named, and now and then about all."""

from __future__ import annotations

import pytest

from bot.domain.errors import Unavailable
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.domain.work import Observation, Progress
from bot.storage.engine import Database
from contract.program import PLAN
from tests.support.memory import MemoryEvents
from tests.support.world import World, in_blocks

SUBMITTED = Observation(JobState.SUBMITTED)
RUNNABLE = Observation(JobState.RUNNABLE, attempt=1)
STARTING = Observation(JobState.STARTING, attempt=1)
RUNNING = Observation(JobState.RUNNING, attempt=1)
SUCCEEDED = Observation(JobState.SUCCEEDED, exit_code=0)


class Told:
    """A world whose compute has events, after its first round over all jobs."""

    def __init__(self, store: Database, **settings: object) -> None:
        self.events = MemoryEvents()
        self.world = World(store, events=self.events, **settings)  # type: ignore[arg-type]
        self.compute, self.clock = self.world.compute, self.world.clock
        self.watcher = self.world.worker.watcher
        self.watcher.watch_once()

    def submitted(self) -> tuple[Job, str]:
        job = self.world.accept()
        self.world.settle()
        self.compute.calls.clear()
        return job, self.compute.find(job.name) or ""

    @property
    def questions(self) -> int:
        return self.compute.calls.count("observe")


def test_an_event_brings_one_question_and_the_job_moves(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, RUNNING)

    assert told.watcher.listen_once(within=0) == 1

    assert told.world.job(job).state is JobState.RUNNING
    assert told.questions == 1
    assert not told.events.receive(within=0)  # acknowledged


def test_an_event_is_there_for_the_next_process_where_one_ends_before_its_question_was_answered(
    store: Database,
) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, RUNNING)
    told.compute.fail_next(SystemExit("killed"), call="observe")
    with pytest.raises(SystemExit):
        told.watcher.listen_once(within=0)
    assert told.events.waiting == 1

    told.world.another_worker().watcher.listen_once(within=0)

    assert told.world.job(job).state is JobState.RUNNING
    assert told.events.waiting == 0


def test_what_an_event_claims_is_not_believed(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, SUCCEEDED)

    told.watcher.listen_once(within=0)

    assert told.world.job(job).state is JobState.RUNNING


def test_events_that_say_what_is_known_cost_no_question(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, RUNNING)
    told.watcher.listen_once(within=0)
    told.clock.advance(60)
    for late in (SUBMITTED, RUNNABLE, RUNNING, RUNNING):
        told.events.send(compute_id, late)

    told.watcher.listen_once(within=0)

    assert told.questions == 1


def test_an_event_that_is_ahead_of_compute_s_answer_brings_another_question_soon(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.events.send(compute_id, RUNNING)
    told.watcher.listen_once(within=0)  # compute says SUBMITTED still
    told.compute.tell(compute_id, RUNNING)

    told.watcher.watch_once()

    assert told.world.job(job).state is JobState.RUNNING
    assert told.questions == 2


def test_an_event_that_cannot_be_read_brings_a_question(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, None)

    told.watcher.listen_once(within=0)

    assert told.world.job(job).state is JobState.RUNNING


def test_a_flood_of_events_of_one_job_is_no_flood_of_questions(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()

    for _ in range(100):
        told.events.send(compute_id, SUCCEEDED)  # which is not so
        told.watcher.listen_once(within=0)
        told.clock.advance(0.1)

    assert told.questions == 10


def test_an_event_may_overtake_the_submission_that_it_is_about(store: Database) -> None:
    told = Told(store)
    told.events.send("memory-1", RUNNING)
    told.watcher.listen_once(within=0)
    assert told.questions == 0

    job, _ = told.submitted()
    told.compute.tell("memory-1", RUNNING)
    told.clock.advance(2)
    told.watcher.listen_once(within=0)

    assert told.world.job(job).state is JobState.RUNNING


def test_an_event_about_a_job_of_somebody_else_is_forgotten(store: Database) -> None:
    told = Told(store)
    told.events.send("memory-99", RUNNING)
    told.watcher.listen_once(within=0)
    told.clock.advance(31)
    told.watcher.listen_once(within=0)

    assert told.questions == 0
    assert told.watcher._hinted.due(told.clock.now) == []


def test_why_a_queue_is_blocked_is_asked_about_though_the_job_has_not_moved(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    blocked = Observation(JobState.RUNNABLE, "There is no machine.", attempt=1)
    told.compute.tell(compute_id, blocked)
    told.events.send(compute_id, blocked)
    told.watcher.listen_once(within=0)
    told.clock.advance(660)  # for longer than a job may wait without its thread saying why
    told.events.send(compute_id, blocked)

    told.watcher.listen_once(within=0)
    told.world.settle()

    assert any("There is no machine." in said for said in told.world.thread)


def test_the_events_of_an_array_s_programs_bring_a_question_in_ten_seconds(store: Database) -> None:
    told = Told(store, pipeline=in_blocks(), block_voxels=10_000)
    job, first = told.submitted()
    told.world.results.put(job.folder, PLAN, b'{"blocks": 500, "reads": 9, "pilot": null}')
    told.compute.tell(first, SUCCEEDED)
    told.events.send(first, SUCCEEDED)
    told.watcher.listen_once(within=0)
    told.world.settle()
    array = told.compute.find(told.compute.works[-1].name) or ""
    assert told.compute.works[-1].count == 128
    told.compute.calls.clear()

    for number in range(128):
        told.compute.tell(told.compute.child(array, number), SUCCEEDED if number < 127 else RUNNING)
        told.events.send(array, None, of_child=True)
        told.watcher.listen_once(within=0)
        told.clock.advance(0.5)

    assert told.questions == 7
    told.clock.advance(10)
    told.watcher.listen_once(within=0)
    blocks = told.world.job(job).blocks
    assert blocks
    assert blocks.done == 127 * 500 // 128


def looks(told: Told, seconds: int, *, every: float = 5) -> int:
    """How many looks at everything there are in so many seconds without an event."""
    told.compute.calls.clear()
    for _ in range(int(seconds / every)):
        told.clock.advance(every)
        told.watcher.listen_once(within=0)
        told.watcher.watch_once()
    return told.compute.calls.count("glance")


def test_a_job_that_no_event_names_is_looked_at_every_five_minutes(store: Database) -> None:
    told = Told(store)
    told.submitted()

    assert looks(told, 295) == 0
    assert looks(told, 5) == 1
    assert looks(told, 300) == 1


def test_a_job_that_does_not_move_costs_one_question_however_often_it_is_looked_at(store: Database) -> None:
    told = Told(store)
    told.submitted()
    assert looks(told, 300) == 1
    assert told.questions == 1

    assert looks(told, 3600) > 12

    assert told.questions == 0


def test_only_those_are_asked_about_that_have_moved(store: Database) -> None:
    told = Told(store)
    _, one = told.submitted()
    told.submitted()
    looks(told, 300)
    asked: list[list[str]] = []
    told.compute.observe = lambda ids: asked.append([*ids]) or {one: RUNNING}  # type: ignore[method-assign, func-returns-value]
    see(told, one, RUNNING, event=False)

    looks(told, 300)

    assert asked == [[one]]


def test_where_the_listing_fails_everything_is_asked_about(store: Database) -> None:
    told, job, compute_id = runs(store)
    looks(told, 300)
    see(told, compute_id, SUCCEEDED, event=False)
    told.compute.fail_next(Unavailable("no answer"), call="glance")

    looks(told, 300)

    assert told.world.job(job).state is JobState.SUCCEEDED


def test_why_a_job_waits_is_told_though_it_has_not_moved_since_it_was_asked_about(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    see(told, compute_id, Observation(JobState.RUNNABLE, "There is no machine.", attempt=1), event=False)
    looks(told, 300)
    told.world.settle()
    assert not any("There is no machine." in said for said in told.world.thread)

    looks(told, 900)
    told.world.settle()

    assert told.questions == 0
    assert any("There is no machine." in said for said in told.world.thread)


def test_the_progress_of_a_program_is_followed_while_it_costs_no_question(store: Database) -> None:
    told, job, compute_id = runs(store)
    looks(told, 600)
    told.compute.print(compute_id, "progress 0.42 reading")

    looks(told, 300)

    assert told.questions == 0
    assert told.world.job(job).progress == Progress(0.42, "reading")


def test_a_question_that_events_have_brought_saves_one_at_the_look_after_the_next(store: Database) -> None:
    told, _, compute_id = runs(store)
    told.submitted()
    looks(told, 550)  # both have been asked about, and are looked at together in 50 seconds
    see(told, compute_id, Observation(JobState.RUNNING, attempt=2))
    told.watcher.listen_once(within=0)

    assert looks(told, 350) == 2

    assert told.questions == 0


def test_a_job_that_an_event_knows_more_about_than_compute_does_is_asked_about_and_not_looked_up(
    store: Database,
) -> None:
    told, _, compute_id = runs(store)
    looks(told, 285)
    told.events.send(compute_id, SUCCEEDED)
    told.watcher.listen_once(within=0)
    assert told.questions == 1
    told.clock.advance(130)

    told.watcher.watch_once()

    assert told.questions == 2


def test_a_job_of_which_compute_gave_no_answer_is_asked_about_by_the_next_process_too(store: Database) -> None:
    told, job, compute_id = runs(store)
    told.compute.fail_next(Unavailable("no answer"), call="observe", times=50)
    told.events.send(compute_id, None)
    told.watcher.listen_once(within=0)
    looks(told, 60)
    assert told.world.job(job).stalled
    told.compute._faults.clear()
    told.compute.said[compute_id] = RUNNING

    told.world.another_worker().watcher.watch_once()

    assert not told.world.job(job).stalled


def test_a_job_that_no_answer_was_clear_about_is_asked_about_and_not_looked_up(store: Database) -> None:
    told, _, compute_id = runs(store)
    looks(told, 300)
    told.compute.unclear.add(compute_id)
    told.events.send(compute_id, None)
    told.watcher.listen_once(within=0)
    told.compute.unclear.clear()

    looks(told, 300)

    assert told.questions == 1


def see(told: Told, compute_id: str, seen: Observation, *, event: bool = True) -> None:
    """Let compute say so, and an event tell of it, or none."""
    told.compute.tell(compute_id, seen)
    if event:
        told.events.send(compute_id, seen)


def runs(store: Database) -> tuple[Told, Job, str]:
    """A lone job whose program runs, as an event has told."""
    told = Told(store)
    job, compute_id = told.submitted()
    see(told, compute_id, RUNNING)
    looks(told, 10)
    return told, job, compute_id


def told_after(told: Told, job: Job, state: JobState, *, every: float = 5) -> float:
    """How many seconds pass until the job is in that state."""
    passed = 0.0
    while told.world.job(job).state is not state:
        assert passed < 7200
        passed += every
        told.clock.advance(every)
        told.watcher.listen_once(within=0)
        told.watcher.watch_once()
    return passed


def test_the_steps_of_a_job_that_waits_cost_one_question_together(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    for seen in (RUNNABLE, STARTING):
        see(told, compute_id, seen)
        assert looks(told, 10) == 0
    see(told, compute_id, RUNNING)

    told.watcher.listen_once(within=0)

    assert told.world.job(job).state is JobState.RUNNING
    assert told.questions == 1


def test_a_job_that_waits_on_is_shown_as_waiting_after_half_a_minute(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    see(told, compute_id, RUNNABLE)

    assert told_after(told, job, JobState.RUNNABLE) == 35


def test_many_jobs_that_no_event_names_are_asked_about_together(store: Database) -> None:
    told = Told(store)
    for _ in range(20):
        told.world.accept()
        told.world.settle()
        told.clock.advance(10)

    assert looks(told, 300) == 1


@pytest.mark.parametrize(("before", "saved"), [(115, True), (125, False)])
def test_what_an_event_has_brought_a_question_about_is_not_asked_about_again_in_the_next_two_minutes(
    store: Database, before: int, saved: bool
) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    looks(told, 300 - before)
    see(told, compute_id, RUNNING)
    told.watcher.listen_once(within=0)
    assert told.questions == 1

    assert looks(told, before) == (0 if saved else 1)
    assert looks(told, 300) == 1


def test_events_of_one_job_put_off_no_question_about_another(store: Database) -> None:
    told, job, compute_id = runs(store)
    _, other = told.submitted()
    see(told, compute_id, SUCCEEDED, event=False)

    for attempt in range(1, 8):
        see(told, other, Observation(JobState.RUNNING, attempt=attempt))
        looks(told, 45)

    assert told.world.job(job).state is JobState.SUCCEEDED


def test_a_question_that_an_event_has_brought_about_and_that_had_no_answer_is_put_again_with_the_next_look(
    store: Database,
) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    looks(told, 295)
    see(told, compute_id, RUNNING)
    told.compute.fail_next(Unavailable("no answer"), call="observe")
    told.watcher.listen_once(within=0)

    looks(told, 5)

    assert told.world.job(job).state is JobState.RUNNING


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_end_of_a_job_of_six_hours_whose_event_is_lost_is_told_after_five_minutes(store: Database) -> None:
    told, job, compute_id = runs(store)
    _, other = told.submitted()
    for number in range(36):  # events of others come all the time
        see(told, other, Observation(JobState.RUNNABLE, attempt=1 + number))
        looks(told, 600, every=30)
    see(told, compute_id, SUCCEEDED, event=False)

    assert told_after(told, job, JobState.SUCCEEDED) <= 305


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_where_no_event_has_come_for_a_quarter_of_an_hour_everything_is_looked_at_every_minute(store: Database) -> None:
    told, job, compute_id = runs(store)
    assert looks(told, 900) == 3
    assert looks(told, 600) == 10
    see(told, compute_id, SUCCEEDED, event=False)

    assert told_after(told, job, JobState.SUCCEEDED) <= 65


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_event_makes_the_looks_at_everything_seldom_again(store: Database) -> None:
    told, _, compute_id = runs(store)
    looks(told, 1200)
    for _ in range(10):
        told.events.send("")  # a message of somebody else's is no event
        assert looks(told, 60) == 1

    told.events.send(compute_id, SUBMITTED)

    assert looks(told, 600) == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_jobs_that_move_while_no_event_comes_are_worth_one_line_in_the_log(
    store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    looks(told, 1200)
    assert not caplog.text
    for seen in (STARTING, RUNNING):
        see(told, compute_id, seen, event=False)
        assert told_after(told, job, seen.state) <= 65
    assert caplog.text.count("no event has told of it for 15 minutes") == 1

    told.events.send(compute_id, RUNNING)
    looks(told, 1200)
    see(told, compute_id, Observation(JobState.RUNNABLE, attempt=2), event=False)
    looks(told, 60)
    assert caplog.text.count("no event has told of it for 15 minutes") == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_step_whose_event_is_lost_among_others_is_no_line_in_the_log(
    store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    told, job, compute_id = runs(store)
    looks(told, 290)
    told.events.send(compute_id, RUNNING)
    see(told, compute_id, SUCCEEDED, event=False)

    told_after(told, job, JobState.SUCCEEDED)

    assert not caplog.text


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_jobs_that_move_where_compute_has_no_events_are_no_line_in_the_log(
    store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(store)
    job = world.accept()
    world.settle()
    world.clock.advance(1200)
    world.compute.tell(world.compute.find(job.name) or "", RUNNING)

    assert world.worker.watcher.watch_once() == 1

    assert not caplog.text


def test_a_process_that_begins_asks_about_the_jobs_of_its_forerunner_at_once(store: Database) -> None:
    told, job, compute_id = runs(store)
    looks(told, 3600)
    see(told, compute_id, SUCCEEDED, event=False)

    told.world.another_worker().watcher.watch_once()

    assert told.world.job(job).state is JobState.SUCCEEDED


def test_a_job_is_asked_about_in_every_round_while_events_cannot_be_received(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    see(told, compute_id, RUNNING)
    told.watcher.listen_once(within=0)
    told.events.fail_next(Unavailable("no answer"), call="receive")
    with pytest.raises(Unavailable):
        told.watcher.listen_once(within=0)

    told.watcher.watch_once()
    told.watcher.watch_once()
    assert told.questions == 3

    told.watcher.listen_once(within=0)
    told.watcher.watch_once()
    assert told.questions == 3


def test_after_a_question_without_an_answer_the_next_round_asks_again(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, RUNNING)
    told.compute.fail_next(Unavailable("no answer"), call="observe")
    told.watcher.listen_once(within=0)
    assert told.world.job(job).state is JobState.SUBMITTED

    told.watcher.watch_once()

    assert told.world.job(job).state is JobState.RUNNING


def test_a_round_is_made_once_in_its_interval_however_often_events_come(store: Database) -> None:
    told = Told(store)
    _, compute_id = told.submitted()
    told.clock.advance(60)
    told.compute.unclear.add(compute_id)
    see(told, compute_id, RUNNING)
    told.watcher.turn()
    assert told.questions == 1

    for _ in range(5):
        told.watcher.turn()
    assert told.questions == 1
    told.clock.advance(60)
    told.watcher.turn()
    assert told.questions == 2


def test_a_job_that_compute_does_not_know_is_asked_about_again_in_the_next_round(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.lose(compute_id)
    told.clock.advance(301)
    told.watcher.watch_once()
    told.clock.advance(1)

    told.watcher.watch_once()

    assert told.world.job(job).state is JobState.LOST


def test_progress_is_read_between_two_looks_at_the_job(store: Database) -> None:
    told = Told(store)
    job, compute_id = told.submitted()
    told.compute.tell(compute_id, RUNNING)
    told.events.send(compute_id, RUNNING)
    told.watcher.listen_once(within=0)
    told.clock.advance(5)
    told.compute.print(compute_id, "progress 0.5 detecting")

    told.watcher.listen_once(within=0)

    progress = told.world.job(job).progress
    assert progress
    assert (progress.part, progress.phase) == (0.5, "detecting")
    assert told.questions == 1
