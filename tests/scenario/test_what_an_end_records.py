"""What the end of a job, a new beginning and a word of its owner leave in its row, its story and the outbox."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application import submission
from bot.application.lifecycle import NO_CAUSE, NOT_CANCELLED
from bot.application.steering import Needed
from bot.domain.errors import NotYours, TooLate, Unavailable
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind, Lane
from bot.domain.people import Steps
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.domain.work import CANCELLED, Cause, Observation, Progress
from bot.storage.engine import Database
from contract.program import REFUSED
from tests.support.memory import MemoryCompute
from tests.support.stories import a_summary
from tests.support.world import TOKEN, World, in_blocks

OWNER, OTHER = "U01DEMO", "U02OTHER"
PREVIEW = a_summary(preview="preview.png", files=[{"name": "preview.png"}, {"name": "synapses.csv"}])


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


def ended(
    world: World, state: JobState = JobState.SUCCEEDED, *, took: float | None = 60, reason: str = "", **more: Any
) -> tuple[Job, Effect]:
    """A job whose program has ended, and the effect that collects what it left."""
    job = world.accept(**more)
    world.settle()
    if took is not None:
        world.lifecycle.observe(job.id, Observation(JobState.RUNNING, started_at=world.clock.now))
        world.clock.advance(took)
    stopped = world.clock.now if took is not None else None
    world.lifecycle.observe(job.id, Observation(state, reason, stopped_at=stopped))
    at = world.clock.now
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=at)
    assert effect.kind is Kind.COLLECT
    card_is_shown(world, job)
    return job, effect


def card_is_shown(world: World, job: Job) -> None:
    """Let nothing be left to show on the card."""
    with world.store.begin() as transaction:
        transaction.outbox.drop(job.id, Kind.EDIT)


def collected(world: World, effect: Effect, *, summary: Summary | None = None, **more: Any) -> Job:
    """The job once that was collected."""
    usual = {"log_tail": (), "trouble": "", "masked": True}
    world.lifecycle.conclude(effect, summary=summary, **{**usual, **more})
    return world.rows.job(effect.job_id)


def said(world: World, job: Job) -> str:
    """What the last step of the story tells."""
    return world.rows.transitions(job.id)[-1].text


def waiting(world: World, job: Job, kind: Kind) -> int:
    return world.rows.open_effects(job.id, kind=kind)


@pytest.mark.parametrize("masked", [True, False])
def test_the_token_is_forgotten_at_the_end_unless_it_may_stand_in_the_log(world: World, masked: bool) -> None:
    job, effect = ended(world)
    assert world.rows.tokens == 1
    now = collected(world, effect, masked=masked)
    assert world.rows.tokens == 0
    assert now.token_ref == (None if masked else job.token_ref)


def test_a_token_that_lies_with_compute_is_known_after_the_end(store: Database) -> None:
    world = World(store, separate_secrets=True)
    job, effect = ended(world)
    there = world.job(job).token_ref
    assert collected(world, effect).token_ref == there
    assert there
    assert there != job.token_ref


def test_what_is_collected_at_last_corrects_what_was_told_and_is_told_by_no_second_mail(world: World) -> None:
    job, effect = ended(world, email="a@b.org")
    collected(world, effect, trouble="Nobody could read it.", note="Nobody could read it.")
    assert said(world, job) == "Nobody could read it. It ran for 1 min 0 s."
    world.ledger.replay(job.id)
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    now = collected(world, effect, summary=a_summary())
    assert said(world, job) == "1,234 synapses. Finished after 1 min 0 s."
    assert (now.reason, now.token_ref) == ("", None)
    assert waiting(world, job, Kind.MAIL_FINISHED) == 1
    with world.store.read() as transaction:
        assert transaction.outbox.given_up(job.id) == []


def test_an_outage_ends_with_its_job(world: World) -> None:
    job, effect = ended(world)
    with world.store.begin() as transaction:
        transaction.jobs.change(job.id, stalled_since=world.clock.now, stalled="away", stalled_told=True)
    collected(world, effect)
    with world.store.read() as transaction:
        assert transaction.jobs.stalled() == []
        assert not transaction.jobs.any_told_to_be_stalled()
    assert world.rows.job(job.id).stalled == ""
    with world.store.begin() as transaction:
        transaction.jobs.stall([job.id], at=world.clock.now, why="again")
        assert [name for name, _ in transaction.jobs.stalled()] == [job.id]
    assert world.rows.job(job.id).stalled == "again"


@pytest.mark.parametrize(
    ("summary", "channel", "steps", "shown"),
    [
        (PREVIEW, "C01GENERAL", Steps.ALL, 1),
        (PREVIEW, None, Steps.ALL, 0),
        (PREVIEW, "C01GENERAL", Steps.FAILURES, 0),
        (a_summary(), "C01GENERAL", Steps.ALL, 0),
        (None, "C01GENERAL", Steps.ALL, 0),
    ],
)
def test_a_preview_is_shown_in_a_thread_that_tells_of_the_end(
    world: World, summary: Summary | None, channel: str | None, steps: Steps, shown: int
) -> None:
    world.people.prefer(OWNER, steps=steps)
    job, effect = ended(world, channel=channel)
    collected(world, effect, summary=summary)
    assert waiting(world, job, Kind.PREVIEW) == shown
    assert waiting(world, job, Kind.EDIT) == (channel is not None)


@pytest.mark.parametrize(("email", "wanted", "mails"), [("a@b.org", True, 1), ("a@b.org", False, 0)])
def test_a_mail_tells_of_the_end_where_it_is_wanted(world: World, email: str, wanted: bool, mails: int) -> None:
    world.people.prefer(OWNER, mail=wanted)
    job, effect = ended(world, email=email)
    collected(world, effect)
    assert waiting(world, job, Kind.MAIL_FINISHED) == mails


def test_without_an_address_no_mail_is_sent(store: Database) -> None:
    world = World(store, mails=False)
    job, effect = ended(world, email="")
    collected(world, effect)
    assert waiting(world, job, Kind.MAIL_FINISHED) == 0


def test_the_forecast_hears_of_each_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(world.forecast, "ended", heard.append)
    _, effect = ended(world)
    collected(world, effect)
    assert heard == ["nomads-unsupervised"]


@pytest.mark.parametrize(
    ("state", "took", "reason", "more", "text"),
    [
        (JobState.SUCCEEDED, 60, "", {"summary": a_summary()}, "1,234 synapses. Finished after 1 min 0 s."),
        (JobState.SUCCEEDED, 60, "", {}, "Finished after 1 min 0 s."),
        (JobState.SUCCEEDED, None, "", {}, "Finished."),
        (JobState.SUCCEEDED, 60, "", {"trouble": "Nothing was left."}, "Nothing was left. It ran for 1 min 0 s."),
        (JobState.SUCCEEDED, None, "", {"trouble": "Nothing was left."}, "Nothing was left."),
        (JobState.FAILED, 60, "", {}, "Failed after 1 min 0 s: compute gave no reason"),
        (JobState.FAILED, None, "It broke.", {}, "Failed: It broke."),
        (JobState.LOST, 60, "gone", {}, "Lost: gone"),
        (JobState.CANCELLED, 60, "", {}, "Cancelled after 1 min 0 s."),
    ],
)
def test_the_end_is_told_in_words(
    world: World, state: JobState, took: float | None, reason: str, more: dict[str, Any], text: str
) -> None:
    job, effect = ended(world, state, took=took, reason=reason)
    collected(world, effect, **more)
    assert said(world, job) == text


@pytest.mark.parametrize(
    ("exit_code", "lines", "reason"),
    [
        (2, [" The experiment is gone. ", " "], "The experiment is gone."),
        (2, ["The experiment is gone.", f" {REFUSED} "], "The experiment is gone."),
        (2, ["progress 0.5 reading"], "Exit 2."),
        (2, [], "Exit 2."),
        (None, ["A line."], "Exit 2."),
    ],
)
def test_the_last_line_of_a_program_that_ended_by_itself_says_why(
    world: World, exit_code: int | None, lines: list[str], reason: str
) -> None:
    job = world.running()
    world.lifecycle.observe(job.id, Observation(JobState.FAILED, "Exit 2.", exit_code=exit_code))
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    now = collected(world, effect, log_tail=lines)
    assert now.reason == reason
    assert now.log_tail == tuple(line for line in lines if line.strip() != REFUSED)


def test_the_last_line_of_a_program_that_was_cancelled_does_not_say_why(world: World) -> None:
    job = world.running()
    world.lifecycle.observe(job.id, Observation(JobState.CANCELLED, "It was cancelled.", exit_code=1))
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    assert collected(world, effect, log_tail=["A line."]).reason == "It was cancelled."


@pytest.mark.parametrize(
    ("exit_code", "lines", "cause"),
    [(3, [REFUSED], Cause.REFUSED), (3, ["It was away."], Cause.VOLUME), (1, [REFUSED], Cause.PROGRAM)],
)
def test_what_a_volume_refused_is_known_from_what_the_program_printed(
    world: World, exit_code: int, lines: list[str], cause: Cause
) -> None:
    job = world.running()
    world.lifecycle.observe(job.id, Observation(JobState.FAILED, exit_code=exit_code))
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    assert collected(world, effect, log_tail=lines).cause is cause


def test_a_reason_that_quotes_the_token_is_stored_without_it(world: World) -> None:
    job = world.running()
    world.lifecycle.observe(job.id, Observation(JobState.FAILED, f"It was called with --token {TOKEN}.", exit_code=1))
    assert world.rows.job(job.id).reason.startswith("It was called with --token ")
    assert TOKEN not in world.rows.job(job.id).reason


def test_who_cancelled_a_job_is_named_at_its_end(world: World) -> None:
    job = world.running()
    world.steering.cancel(job.id, actor=OWNER)
    world.lifecycle.observe(job.id, Observation(JobState.FAILED, CANCELLED))
    world.settle()
    assert said(world, job) == f"Cancelled by {OWNER}."


def test_a_collection_that_is_given_up_keeps_why(world: World) -> None:
    job, effect = ended(world)
    collected(world, effect, note="It could not be read.")
    with world.store.read() as transaction:
        (given_up,) = transaction.outbox.given_up(job.id)
    assert given_up.error == "It could not be read."


# Elsewhere, and from stage to stage


def test_a_job_that_begins_again_elsewhere_has_nothing_of_what_was(store: Database) -> None:
    world = World(store, compute=MemoryCompute(lasts=True))
    job = world.running()
    world.lifecycle.progressed(job.id, Progress(0.5, "reading"))
    with world.store.begin() as transaction:
        transaction.jobs.change(job.id, log="a log", waiting="for a machine", runnable_at=world.clock.now)
    card_is_shown(world, job)
    assert world.lifecycle.observe(job.id, Observation(JobState.FAILED, cause=Cause.DISK))
    now = world.rows.job(job.id)
    assert (now.state, now.lasting, now.compute_id) == (JobState.ACCEPTED, True, None)
    assert (now.log, now.progress, now.started_at, now.waiting) == (None, None, None, "")
    assert said(world, job) == "The job begins again on another machine."
    assert waiting(world, job, Kind.EDIT) == 1
    with world.store.begin() as transaction:
        transaction.jobs.change(job.id, compute_id="x", state=JobState.RUNNABLE.value)
        (watched,) = transaction.jobs.watched()
    assert watched.runnable_at is None


def test_what_has_ended_begins_nowhere_again(store: Database) -> None:
    world = World(store, compute=MemoryCompute(lasts=True))
    job, _ = ended(world)
    assert not world.lifecycle.observe(job.id, Observation(JobState.FAILED, cause=Cause.MACHINE))
    assert world.rows.job(job.id).state is JobState.SUCCEEDED


def test_a_merge_that_failed_as_often_as_it_is_tried_begins_nowhere_again(store: Database) -> None:
    world = World(store, compute=MemoryCompute(lasts=True), pipeline=in_blocks(), block_voxels=10_000)
    job = world.accept()
    world.settle()
    blocks = world.rows.job(job.id).blocks
    assert blocks
    with world.store.begin() as transaction:
        last = blocks.model_copy(update={"tries": 99})
        transaction.jobs.change(job.id, blocks=last.model_dump(mode="json"))
    assert world.lifecycle.observe(job.id, Observation(JobState.FAILED, cause=Cause.MACHINE))
    assert world.rows.job(job.id).state is JobState.FAILED


def test_a_stage_that_ended_is_kept_by_its_id_and_began_when_compute_says(store: Database) -> None:
    world = World(store, pipeline=in_blocks(), block_voxels=10_000)
    job = world.accept()
    world.settle()
    began = world.clock.now - timedelta(seconds=5)
    seen = Observation(JobState.SUCCEEDED, exit_code=0, started_at=began, stopped_at=world.clock.now)
    assert world.lifecycle.observe(job.id, seen)
    now = world.rows.job(job.id)
    assert now.blocks
    assert now.blocks.ended == ("memory-1",)
    assert now.started_at == began
    assert now.blocks.took == 0, "that is of the pilot alone"
    assert waiting(world, job, Kind.ADVANCE) == 1


def piloting(store: Database, **more: Any) -> tuple[World, Job]:
    """A job in blocks whose pilot runs."""
    world = World(store, pipeline=in_blocks(), block_voxels=10_000)
    job = world.accept()
    world.settle()
    blocks = world.rows.job(job.id).blocks
    assert blocks
    with world.store.begin() as transaction:
        pilot = blocks.model_copy(update={"stage": "pilot", **more})
        transaction.jobs.change(job.id, blocks=pilot.model_dump(mode="json"))
    return world, job


@pytest.mark.parametrize(("began", "stopped", "took"), [(-5, 0, 5), (0, -5, 0), (None, 0, 9), (-5, None, 9)], ids=str)
def test_how_long_a_pilot_ran_is_what_compute_says(
    store: Database, began: float | None, stopped: float | None, took: float
) -> None:
    world, job = piloting(store, took=9)
    times = [None if second is None else world.clock.now + timedelta(seconds=second) for second in (began, stopped)]
    world.lifecycle.observe(job.id, Observation(JobState.SUCCEEDED, started_at=times[0], stopped_at=times[1]))
    after = world.rows.job(job.id).blocks
    assert after
    assert after.took == took


def test_what_made_a_stage_fail_that_may_go_better_is_kept_and_told(store: Database) -> None:
    world = World(store, pipeline=in_blocks(), block_voxels=10_000)
    job = world.accept()
    world.settle()
    world.lifecycle.observe(job.id, Observation(JobState.FAILED, "Out of memory.", cause=Cause.MEMORY))
    blocks = world.rows.job(job.id).blocks
    assert blocks
    assert blocks.why is Cause.MEMORY
    assert blocks.missed


def test_a_job_that_waits_is_told_why_once_and_only_while_it_waits(world: World) -> None:
    job = world.accept()
    world.settle()
    minute = timedelta(minutes=1)
    assert not world.lifecycle.waits(job.id, "No room.", waited=minute)
    world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE))
    world.settle()
    assert world.lifecycle.waits(job.id, "", waited=minute)
    assert world.rows.job(job.id).waiting == NO_CAUSE
    assert said(world, job) == f"Waiting to run for 1 min 0 s. {NO_CAUSE}"
    assert world.rows.transitions(job.id)[-1].reply == 2, "a message that is edited notifies nobody"
    assert waiting(world, job, Kind.EDIT) == waiting(world, job, Kind.REPLY) == 1
    assert not world.lifecycle.waits(job.id, "No room.", waited=minute)


def test_only_the_latest_refusal_of_a_cancellation_is_told_and_the_job_is_not_cancelled(world: World) -> None:
    job = world.running()
    before = said(world, job)
    for reason in ("Not now.", "Never."):
        world.steering.cancel(job.id, actor=OWNER)
        (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
        card_is_shown(world, job)
        world.lifecycle.not_cancelled(effect, reason)
    now = world.rows.job(job.id)
    assert (now.cancelled_by, now.cancelled_at, now.state) == (None, world.clock.now, JobState.RUNNING)
    assert before.startswith("Running, after waiting")
    assert said(world, job) == f"{before} {NOT_CANCELLED} Never."
    assert waiting(world, job, Kind.EDIT) == waiting(world, job, Kind.REPLY) == 1


def test_a_refused_cancellation_is_told_in_a_reply_of_its_own_where_the_state_was_told_in_none(world: World) -> None:
    job = world.accept()
    world.settle()
    world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE))
    world.steering.cancel(job.id, actor=OWNER)
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    world.lifecycle.not_cancelled(effect, "No.")
    assert said(world, job) == f"{NOT_CANCELLED} No."
    assert world.rows.transitions(job.id)[-1].reply == 2, "a message that is edited notifies nobody"


# A word of its owner


def test_what_was_not_asked_in_time_stands_in_the_acceptance(world: World) -> None:
    world.workspace.silent = True
    world.volumes.fail_next(Unavailable("BOSS is away"), call="describe")
    job = world.submit(key="view:1")
    assert isinstance(job, Job)
    unasked = f"{submission.UNCHECKED} {submission.UNCONFIRMED}"
    assert said(world, job) == f"Accepted as job {job.id}. {unasked}"
    assert (job.checked, job.size) == (False, None)


@pytest.mark.parametrize(
    ("verb", "call"),
    [("cancel", "cancel"), ("say go for", "go"), ("retry", "retryable")],
)
def test_who_may_not_steer_a_job_is_told_what_and_who_may(world: World, verb: str, call: str) -> None:
    job = world.running()
    steer: Callable[..., Job] = getattr(world.steering, call)
    with pytest.raises(
        NotYours, match=rf"^Only whoever asked for job {job.id}, or an admin of NOMADS, may {verb} it\.$"
    ):
        steer(job.id, actor=OTHER)


def test_a_job_that_waits_for_nobody_s_leave_is_not_let_go(store: Database) -> None:
    plain = World(store)
    with pytest.raises(TooLate, match="waits for nobody's leave"):
        plain.steering.go(plain.running().id, actor=OWNER)
    world = World(store, pipeline=in_blocks(), block_voxels=10_000)
    job = world.accept()
    world.settle()
    with world.store.begin() as transaction:
        transaction.outbox.drop(job.id, Kind.EDIT)
    after = world.steering.go(job.id, actor=OWNER)
    assert after.blocks
    assert not after.blocks.wanted
    assert said(world, job) == f"It goes on without a pilot, said {OWNER}."
    assert waiting(world, job, Kind.EDIT) == 1
    steps = len(world.rows.transitions(job.id))
    assert world.steering.go(job.id, actor=OWNER).id == job.id, "asking twice is asking once"
    assert len(world.rows.transitions(job.id)) == steps
    world.steering.cancel(job.id, actor=OWNER)
    with pytest.raises(TooLate, match=re.escape(f"Job {job.id} waits for nobody's leave.")):
        world.steering.go(job.id, actor=OWNER)
    with world.ledger.change(job.id) as change:
        change.set(cancelled_by=None)
        change.follow(Observation(JobState.FAILED))
    with pytest.raises(TooLate, match="waits for nobody's leave"):
        world.steering.go(job.id, actor=OWNER)


def test_a_retry_says_what_it_needs(world: World, store: Database) -> None:
    job, effect = ended(world, JobState.FAILED)
    collected(world, effect)
    needed = world.steering.retry(job.id, actor=OWNER)
    assert needed == Needed(job=world.job(job), token=True, email=False)
    silent = World(store, mails=False)
    other, effect = ended(silent, JobState.FAILED, email="", x="0,256")
    collected(silent, effect)
    needed = silent.steering.retry(other.id, actor=OWNER)
    assert isinstance(needed, Needed)
    assert (needed.token, needed.email, needed.doubt) == (True, False, "")


@pytest.mark.parametrize(("typed", "within", "asked"), [(TOKEN, 0.5, 1), (TOKEN, 0, 0), ("", 0.5, 0)])
def test_a_retry_asks_boss_about_a_token_that_was_typed_for_as_long_as_is_named(
    world: World, typed: str, within: float, asked: int
) -> None:
    world.people.save_token(OWNER, SecretStr(TOKEN))
    job, effect = ended(world, JobState.FAILED)
    collected(world, effect)
    world.volumes.calls.clear()
    world.steering.retry(job.id, actor=OWNER, token=SecretStr(typed), within=within)
    assert world.volumes.calls.count("describe") == asked


def test_a_retry_leaves_boss_what_is_left_of_the_time_and_a_fifth_of_a_second_at_least(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    job, effect = ended(world, JobState.FAILED)
    collected(world, effect)

    def taken(job: Job, **more: Any) -> Job:
        given.append(more["within"])
        return job

    monkeypatch.setattr(world.submission, "accept_retry", taken)
    for within in (5.0, 0.01, 0.0):
        world.steering.retry(job.id, actor=OWNER, token=SecretStr(TOKEN), within=within)
    world.steering.retry(job.id, actor=OWNER, token=SecretStr(TOKEN))
    assert 4.0 <= given[0] <= 5.0
    assert given[1:] == [0.2, 0, 0]


def test_a_job_in_blocks_goes_on_after_the_pilot_that_runs(store: Database) -> None:
    world, job = piloting(store)
    world.steering.go(job.id, actor=OWNER)
    assert said(world, job) == f"It goes on after the pilot, said {OWNER}."
