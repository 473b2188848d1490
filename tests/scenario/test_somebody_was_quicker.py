"""A step of a job that finds the job changed meanwhile, or what it needs gone: on both databases."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from bot.domain.catalog import Catalog
from bot.domain.errors import Refused, TooLate
from bot.domain.job import Job
from bot.domain.outbox import Kind, Lane
from bot.domain.states import JobState
from bot.domain.work import CANCELLED, Cause, Observation, Progress
from bot.storage.engine import Database
from tests.support.meanwhile import meanwhile
from tests.support.memory import MemoryCompute
from tests.support.world import TOKEN, World, in_blocks

OWNER, OUTSIDER, PRIVATE = "U01DEMO", "U02OTHER", "G01PRIVATE"
AXES = {"z": 64, "x": 1024}.items()


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log tells of failures so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def unchecked(world: World, **changes: Any) -> Job:
    """A job that BOSS was not asked about yet."""
    proposal = world.propose(checked=False, **changes)
    return world.submission.accept(proposal, actor=OWNER, key="unchecked", again=True)


def end(world: World, job: Job) -> Callable[[], object]:
    """What ends the job, as another process may."""

    def ends() -> None:
        with world.ledger.change(job.id) as change:
            change.follow(Observation(JobState.CANCELLED))

    return ends


# Before it is submitted


@pytest.mark.parametrize("checked", [True, False])
def test_a_job_that_nobody_has_begun_to_check_or_submit_is_cancelled_at_once(world: World, checked: bool) -> None:
    job = world.accept() if checked else unchecked(world)
    assert world.steering.cancel(job.id, actor=OWNER).state is JobState.CANCELLED
    assert world.rows.open_effects(job.id, kind=Kind.SUBMIT if checked else Kind.CHECK) == 0
    assert world.rows.open_effects(job.id, kind=Kind.CANCEL) == 0
    with pytest.raises(TooLate, match=r"has ended already: cancelled\. Nothing was cancelled\."):
        world.steering.cancel(job.id, actor=OWNER)


def test_a_check_of_a_pipeline_that_is_gone_ends_the_job_with_the_reason(
    world: World, faults: Callable[[], list[str]]
) -> None:
    job = unchecked(world)
    vars(world.lifecycle)["_catalog"] = Catalog({})
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "This pipeline is no longer on offer.")
    assert ended.turned_down
    assert faults() == []
    assert "describe" not in world.volumes.calls


def test_what_slack_refuses_at_the_check_is_not_asked_of_boss_and_is_no_effect_that_was_given_up(
    world: World, faults: Callable[[], list[str]]
) -> None:
    job = unchecked(world, channel=PRIVATE)
    world.workspace.private[PRIVATE] = {OUTSIDER}
    world.settle()
    assert world.job(job).turned_down
    assert "describe" not in world.volumes.calls
    assert faults() == []
    with world.store.read() as transaction:
        assert Kind.CHECK not in {one.kind for one in transaction.outbox.given_up(job.id)}


def test_what_boss_refuses_at_the_check_is_turned_down_and_nothing_else_goes_wrong(
    world: World, faults: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = unchecked(world)
    del world.volumes.there["demo"]["cortex"]
    world.settle()
    assert world.job(job).turned_down
    assert not world.job(job).reason.startswith("experiment:"), "that is for a range"
    assert faults() == []
    assert "taken over" not in caplog.text, "no other worker has"


def test_each_mistake_that_boss_finds_at_the_check_is_told_with_its_axis(world: World) -> None:
    job = unchecked(world, x="0,2048", z="0,128")
    world.settle()
    told = [f"{axis}: This experiment has {axis} 0, {end}; choose a range within that." for axis, end in AXES]
    assert world.job(job).reason == " ".join(told)


def test_what_boss_warns_of_at_the_check_is_added_to_the_acceptance_and_its_reply(world: World) -> None:
    world.volumes.writers.clear()
    world.volumes.readers[TOKEN] = ("*",)
    job = unchecked(world)
    accepted = world.rows.transitions(job.id)[0]
    with world.store.begin() as transaction:
        transaction.outbox.drop(job.id, Kind.EDIT)
    world.worker.lanes.turn(Lane.COMPUTE)
    now = world.rows.transitions(job.id)[0]
    warning = "This token may not write to lab/predictions in BOSS: detections will not be written back."
    assert (now.text, now.reply) == (f"{accepted.text} {warning}", accepted.reply)
    assert world.rows.open_effects(job.id, kind=Kind.EDIT) == 1
    world.settle()
    assert f"{accepted.text} {warning}" in world.thread


def test_a_check_that_warns_of_nothing_leaves_the_acceptance_as_it_is_and_the_card_is_shown_anew(world: World) -> None:
    job = unchecked(world)
    accepted = world.rows.transitions(job.id)[0]
    world.settle()
    with world.store.begin() as transaction:
        transaction.outbox.drop(job.id, Kind.EDIT)
    assert world.rows.transitions(job.id)[0] == accepted


def test_a_job_that_ended_while_boss_was_asked_stays_as_it_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = unchecked(world)
    meanwhile(monkeypatch, world.volumes, "describe", end(world, job))
    world.settle()
    assert (world.job(job).state, world.job(job).checked) == (JobState.CANCELLED, False)
    assert world.compute.works == []


def test_a_job_that_was_cancelled_while_boss_was_asked_does_not_count_as_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = unchecked(world)
    meanwhile(monkeypatch, world.volumes, "describe", lambda: world.steering.cancel(job.id, actor=OWNER))
    world.worker.lanes.turn(Lane.COMPUTE)
    assert (world.job(job).state, world.job(job).checked) == (JobState.CANCELLED, False)
    assert world.rows.open_effects(job.id, kind=Kind.SUBMIT) == 0


def test_a_token_stays_where_compute_reads_it_and_is_erased_where_compute_has_its_own(store: Database) -> None:
    here, elsewhere = World(store), World(store, separate_secrets=True)
    job = here.accept()
    here.settle()
    assert here.job(job).token_ref
    assert here.rows.tokens == 1
    other = elsewhere.accept()
    elsewhere.settle()
    assert elsewhere.rows.tokens == 1
    assert elsewhere.secrets
    assert elsewhere.secrets.holds(elsewhere.job(other).token_ref or "")


def test_a_later_submission_counts_its_attempts_from_one_and_the_first_is_left_as_it_is(store: Database) -> None:
    world = World(store, compute=MemoryCompute(lasts=True))
    job = world.running()
    world.see(job, JobState.RUNNABLE, attempt=2, attempts=2, again="The machine was taken back")
    world.see(job, JobState.FAILED, reason="The machine was taken back.", cause=Cause.MACHINE)
    assert world.job(job).compute_attempt == 2
    world.settle()
    assert world.job(job).compute_attempt == 1


# While compute has it


class Staged:
    """A job in blocks, whose pilot is wanted."""

    def __init__(self, store: Database, **changes: Any) -> None:
        self.world = World(store, pipeline=in_blocks(), block_voxels=10_000)
        self.job = self.world.accept(**changes)
        self.world.settle()

    @property
    def now(self) -> Job:
        return self.world.job(self.job)

    def look(self) -> None:
        """Let the first look end with a plan, and the watcher see it."""
        plan = json.dumps({"blocks": 8, "reads": 123, "pilot": ((0, 2), (0, 8), (4, 9))}).encode()
        self.world.results.put(self.job.folder, "blocks/plan.json", plan)
        self.end()

    def end(self) -> None:
        """Let the present program end, and the watcher see it."""
        last = f"memory-{len(self.world.compute.works)}"
        self.world.compute.tell(last, Observation(JobState.SUCCEEDED, exit_code=0))
        self.world.worker.watcher.watch_once()


@pytest.fixture
def staged(store: Database) -> Staged:
    return Staged(store)


def test_while_the_pilot_waits_and_runs_the_card_says_so(staged: Staged) -> None:
    staged.look()
    with staged.world.store.begin() as transaction:
        transaction.outbox.drop(staged.job.id, Kind.EDIT)
    staged.world.worker.lanes.turn(Lane.COMPUTE)
    assert staged.world.rows.open_effects(staged.job.id, kind=Kind.EDIT) == 1
    staged.world.settle()
    assert staged.now.progress == Progress(0.05, "running a pilot")
    (card,) = staged.world.chat.cards
    assert card.story.job.progress == staged.now.progress
    staged.end()
    staged.world.settle()
    assert staged.now.asked
    staged.world.steering.go(staged.job.id, actor=OWNER)
    staged.world.settle()
    assert staged.now.progress == Progress(0.05, "running a pilot"), "until a block is done"


def test_a_job_in_blocks_that_ended_while_its_plan_was_read_goes_no_further(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, staged.world.results, "read", end(staged.world, staged.job))
    before = staged.now.blocks
    staged.look()
    staged.world.worker.lanes.turn(Lane.COMPUTE)
    assert staged.now.state is JobState.CANCELLED
    assert staged.now.blocks
    assert before
    assert staged.now.blocks.stage == before.stage
    assert staged.world.rows.open_effects(staged.job.id, kind=Kind.SUBMIT) == 0


def test_a_job_in_blocks_that_was_cancelled_while_its_plan_was_read_ends_there(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = staged.world
    meanwhile(monkeypatch, world.results, "read", lambda: world.steering.cancel(staged.job.id, actor=OWNER))
    staged.look()
    world.worker.lanes.turn(Lane.COMPUTE)
    assert staged.now.state is JobState.CANCELLED
    assert world.rows.open_effects(staged.job.id, kind=Kind.SUBMIT) == 0
    world.settle()
    assert len(world.compute.works) == 1


@pytest.mark.parametrize(("channel", "shown"), [("C01GENERAL", 1), (None, 0)])
def test_a_pilot_is_run_and_its_preview_shown_in_a_channel_only(
    store: Database, channel: str | None, shown: int
) -> None:
    staged = Staged(store, channel=channel)
    staged.look()
    staged.world.settle()
    staged.world.results.put(staged.job.folder, "pilot/results.json", json.dumps({"preview": "preview.png"}).encode())
    staged.world.results.put(staged.job.folder, "pilot/preview.png", b"png")
    staged.end()
    staged.world.worker.lanes.turn(Lane.COMPUTE)
    assert staged.now.asked == bool(channel)
    assert staged.world.rows.open_effects(staged.job.id, kind=Kind.PREVIEW) == shown


@pytest.mark.parametrize(
    ("reason", "asked_for", "state"),
    [
        (CANCELLED, True, JobState.CANCELLED),
        (CANCELLED, False, JobState.FAILED),
        ("Out of memory.", True, JobState.FAILED),
    ],
)
def test_a_job_is_cancelled_where_somebody_asked_for_it_and_compute_gives_that_reason_back(
    world: World, reason: str, asked_for: bool, state: JobState
) -> None:
    job = world.running()
    if asked_for:
        world.steering.cancel(job.id, actor=OWNER)
    assert world.lifecycle.observe(job.id, Observation(JobState.FAILED, reason))
    assert world.job(job).state is state


def test_a_program_that_ended_well_before_it_was_cancelled_has_succeeded(world: World) -> None:
    job = world.running()
    world.steering.cancel(job.id, actor=OWNER)
    assert world.lifecycle.observe(job.id, Observation(JobState.SUCCEEDED, CANCELLED))
    assert world.job(job).state is JobState.SUCCEEDED


def test_whether_a_job_moved_is_what_observing_it_says(world: World) -> None:
    job = world.running()
    compute_id = world.job(job).compute_id
    assert not world.lifecycle.observe(job.id, Observation(JobState.FAILED), compute_id="another")
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE), compute_id=compute_id)
    assert world.job(job).state is JobState.RUNNING
    assert world.lifecycle.observe(job.id, Observation(JobState.SUCCEEDED), compute_id=compute_id)
    assert not world.lifecycle.observe(job.id, Observation(JobState.FAILED))
    assert world.job(job).state is JobState.SUCCEEDED


def test_a_machine_is_changed_only_where_compute_has_others(store: Database) -> None:
    taken_back = Observation(JobState.FAILED, "The machine was taken back.", cause=Cause.MACHINE)
    for lasts, state in ((True, JobState.ACCEPTED), (False, JobState.FAILED)):
        world = World(store, compute=MemoryCompute(lasts=lasts))
        job = world.running()
        assert world.lifecycle.observe(job.id, taken_back)
        assert world.job(job).state is state


def test_a_stage_that_ended_moved_its_job(staged: Staged) -> None:
    assert staged.world.lifecycle.observe(staged.job.id, Observation(JobState.SUCCEEDED, exit_code=0))
    assert staged.now.compute_id is None
    assert staged.now.state is JobState.RUNNING


def test_blocks_are_counted_of_the_present_round_while_it_runs_and_only_what_is_new(staged: Staged) -> None:
    world = staged.world
    children = {JobState.SUCCEEDED: 3, JobState.RUNNING: 2, JobState.RUNNABLE: 3}
    assert not world.lifecycle.counted(staged.job.id, children, compute_id="memory-1"), "there are no blocks yet"
    staged.look()
    world.settle()
    staged.world.steering.go(staged.job.id, actor=OWNER)
    staged.end()
    world.settle()
    assert staged.now.blocks
    assert staged.now.blocks.stage == "blocks"
    compute_id = staged.now.compute_id or ""
    assert not world.lifecycle.counted(staged.job.id, children, compute_id="memory-1"), "of an earlier submission"
    assert world.lifecycle.counted(staged.job.id, children, compute_id=compute_id)
    assert staged.now.blocks.states == {"done": 3, "failed": 0, "running": 2, "waiting": 3}
    begin, whole = staged.now.blocks.part(0), staged.now.blocks.part(1)
    assert staged.now.progress == Progress(begin + (whole - begin) * 3 / 8, "working on blocks")
    assert not world.lifecycle.counted(staged.job.id, children, compute_id=compute_id), "that is known"
    end(world, staged.job)()
    assert not world.lifecycle.counted(staged.job.id, {JobState.SUCCEEDED: 8}, compute_id=compute_id)
    plain = World(world.store)
    job = plain.running()
    assert not plain.lifecycle.counted(job.id, children, compute_id=plain.job(job).compute_id or "")


def test_how_far_a_stage_is_counts_as_a_part_of_the_job(staged: Staged) -> None:
    world = staged.world
    world.see(staged.job, JobState.RUNNING)
    assert world.lifecycle.progressed(staged.job.id, Progress(0.5, "looking"))
    assert staged.now.blocks
    assert staged.now.progress == Progress(staged.now.blocks.part(0.5), "looking")
    assert not world.lifecycle.progressed(staged.job.id, Progress(0.5, "looking"))


@pytest.mark.parametrize("ends", ["before compute is asked", "while compute is asked"])
def test_a_refused_cancellation_of_a_job_that_has_ended_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    job = world.running()
    world.steering.cancel(job.id, actor=OWNER)
    world.compute.fail_next(Refused("No."), call="cancel")
    if ends == "before compute is asked":
        end(world, job)()
    else:
        meanwhile(monkeypatch, world.compute, "cancel", end(world, job))
    world.settle()
    assert world.job(job).cancelled_by == OWNER
    assert not any("could not be cancelled" in said for said in world.thread)
