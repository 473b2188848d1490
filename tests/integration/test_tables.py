"""What each table of the store gives back, and of whom: always one among several jobs, people and effects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bot.domain.blocks import Blocks
from bot.domain.errors import UnknownJob
from bot.domain.job import Job, Transition
from bot.domain.outbox import Effect, Kind, Lane
from bot.domain.people import TERMINAL, Preferences, Steps
from bot.domain.states import FINAL, JobState
from bot.storage.engine import Database
from bot.storage.outbox import MAX_ERROR
from bot.storage.tables import SKEW, effects
from bot.storage.transaction import Transaction
from tests.support.stories import a_job, a_summary

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=15)
SECOND = timedelta(seconds=1)


@pytest.fixture
def transaction(store: Database) -> Iterator[Transaction]:
    with store.begin() as transaction:
        yield transaction


def kept(transaction: Transaction, name: str, state: JobState = JobState.ACCEPTED, **more: object) -> Job:
    """A job of that id in the database."""
    values: dict[str, Any] = {"accepted_at": AT, "work": f"work of {name}", "checked": True, **more}
    job = a_job(state, id=name, key=f"key of {name}", **values)
    assert transaction.jobs.add(job)
    return job


def claimed(transaction: Transaction, *, at: datetime = AT, lane: Lane = Lane.COMPUTE, **more: object) -> list[Effect]:
    values: dict[str, Any] = {"limit": 9, "lease_for": LEASE, **more}
    return transaction.outbox.claim(lane, at=at, **values)


def names(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


# The outbox: who is given what, and when


def test_an_effect_is_due_at_its_very_time_and_not_before(transaction: Transaction) -> None:
    kept(transaction, "a")
    transaction.outbox.enqueue("a", Kind.SUBMIT, at=AT)
    before = AT - timedelta(microseconds=1)
    assert not transaction.outbox.due(Lane.COMPUTE, at=before)
    assert claimed(transaction, at=before) == []
    assert transaction.outbox.due(Lane.COMPUTE, at=AT)
    assert not transaction.outbox.due(Lane.MAIL, at=AT)
    (effect,) = claimed(transaction)
    assert (effect.job_id, effect.kind, effect.subject, effect.attempts) == ("a", Kind.SUBMIT, "", 1)
    assert not effect.in_doubt


def test_a_leased_effect_is_given_to_another_once_its_lease_is_out_and_is_in_doubt_then(
    transaction: Transaction,
) -> None:
    kept(transaction, "a")
    transaction.outbox.enqueue("a", Kind.SUBMIT, at=AT)
    (first,) = claimed(transaction)
    assert claimed(transaction, at=AT + LEASE - SECOND) == []
    assert claimed(transaction, at=AT + LEASE, leased=False) == []
    assert not transaction.outbox.due(Lane.COMPUTE, at=AT + LEASE, leased=False)
    assert transaction.outbox.due(Lane.COMPUTE, at=AT + LEASE)
    (second,) = claimed(transaction, at=AT + LEASE)
    assert (second.id, second.attempts, second.in_doubt) == (first.id, 2, True)
    assert second.lease != first.lease
    assert not transaction.outbox.finish(first, at=AT + LEASE)
    assert transaction.outbox.finish(second, at=AT + LEASE)
    assert not transaction.outbox.finish(second, at=AT + LEASE)


def test_those_that_are_due_for_longest_are_given_first_and_no_more_than_asked_for(transaction: Transaction) -> None:
    for name, ago in (("a", 1), ("b", 3), ("c", 3), ("d", 2)):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT - ago * SECOND)
    assert [effect.job_id for effect in claimed(transaction, limit=3)] == ["b", "c", "d"]
    assert [effect.job_id for effect in claimed(transaction, limit=3)] == ["a"]


def test_effects_of_one_job_keep_their_order_in_a_lane_and_wait_for_no_other_job_or_lane(
    transaction: Transaction,
) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
    transaction.outbox.enqueue_new("a", [(Kind.CHECK, ""), (Kind.SUBMIT, ""), (Kind.CARD, ""), (Kind.EDIT, "")], at=AT)
    transaction.outbox.enqueue("b", Kind.SUBMIT, at=AT)
    first, other = claimed(transaction)
    assert [(first.job_id, first.kind), (other.job_id, other.kind)] == [("a", Kind.CHECK), ("b", Kind.SUBMIT)]
    assert [effect.kind for effect in claimed(transaction, lane=Lane.CHAT)] == [Kind.CARD]
    assert [effect.kind for effect in claimed(transaction, lane=Lane.EDIT)] == [Kind.EDIT]
    assert claimed(transaction) == []
    transaction.outbox.finish(first, at=AT)
    assert [effect.kind for effect in claimed(transaction)] == [Kind.SUBMIT]


def test_one_job_s_effects_can_be_asked_for_alone(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT)
    assert transaction.outbox.due(Lane.COMPUTE, at=AT, job_id="b")
    assert not transaction.outbox.due(Lane.COMPUTE, at=AT, job_id="c")
    assert [effect.job_id for effect in claimed(transaction, job_id="b")] == ["b"]
    assert transaction.outbox.open("b") == transaction.outbox.open("a") == 1
    assert transaction.outbox.open() == transaction.outbox.open(kind=Kind.SUBMIT) == 2
    assert transaction.outbox.open("a", kind=Kind.CARD) == 0


def test_without_chat_a_job_of_a_channel_is_left_unless_it_is_cancelled_or_a_terminal_s(
    transaction: Transaction,
) -> None:
    kept(transaction, "a")
    kept(transaction, "b", channel=None)
    kept(transaction, "c", cancelled_by="U01DEMO")
    kept(transaction, "d", actor=f"{TERMINAL}ada")
    for name in "abcd":
        transaction.outbox.enqueue_new(name, [(Kind.SUBMIT, ""), (Kind.MAIL_ACCEPTED, "")], at=AT)
    assert not transaction.outbox.due(Lane.COMPUTE, at=AT, job_id="a", of_chat=False)
    assert [effect.job_id for effect in claimed(transaction, lane=Lane.MAIL, of_chat=False)] == ["b"]
    assert [effect.job_id for effect in claimed(transaction, of_chat=False)] == ["b", "c", "d"]


def test_an_effect_that_waits_unclaimed_serves_for_an_equal_one_and_for_no_other(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
    outbox = transaction.outbox
    outbox.enqueue("a", Kind.REPLY, at=AT, subject="1")
    outbox.enqueue("a", Kind.REPLY, at=AT, subject="1")
    assert outbox.open("a") == 1
    outbox.enqueue("a", Kind.REPLY, at=AT, subject="2")
    outbox.enqueue("a", Kind.CARD, at=AT, subject="1")
    outbox.enqueue("b", Kind.REPLY, at=AT, subject="1")
    assert (outbox.open("a"), outbox.open("b")) == (3, 1)
    (first,) = (effect for effect in claimed(transaction, lane=Lane.CHAT) if effect.job_id == "a")
    outbox.enqueue("a", Kind.REPLY, at=AT, subject="1")
    assert outbox.open("a") == 4, "the claimed one may have read the job by now"
    outbox.finish(first, at=AT)
    outbox.enqueue_once("a", Kind.REPLY, at=AT, subject="1")
    outbox.enqueue_once("a", Kind.REPLY, at=AT, subject="2")
    outbox.enqueue_once("a", Kind.CARD, at=AT, subject="1")
    assert outbox.open("a") == 3
    outbox.enqueue_once("b", Kind.REPLY, at=AT, subject="2")
    assert outbox.open("b") == 2, "another job has had it"
    outbox.enqueue_once("b", Kind.CARD, at=AT)
    outbox.enqueue_once("b", Kind.REPLY, at=AT, subject="3")
    assert outbox.open("b") == 4


def test_only_an_effect_that_nobody_has_claimed_is_dropped(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT)
    assert not transaction.outbox.drop("a", Kind.CHECK)
    assert transaction.outbox.drop("a", Kind.SUBMIT)
    assert not transaction.outbox.drop("a", Kind.SUBMIT)
    (effect,) = claimed(transaction)
    assert effect.job_id == "b"
    assert not transaction.outbox.drop("b", Kind.SUBMIT)
    transaction.outbox.postpone(effect, delay=SECOND, in_doubt=True, counted=True, error="", at=AT)
    assert not transaction.outbox.drop("b", Kind.SUBMIT), "it may have gone through"


def test_one_home_tab_does_for_all_of_a_person_s_jobs_that_wait_unclaimed(transaction: Transaction) -> None:
    for name, actor in (("a", "U1"), ("b", "U1"), ("c", "U2"), ("d", "U1")):
        kept(transaction, name, actor=actor)
        transaction.outbox.enqueue_new(name, [(Kind.HOME, ""), (Kind.NOTICE, "")], at=AT)
    first, second = claimed(transaction, lane=Lane.HOME, limit=2)
    transaction.outbox.coalesce(first, "U1", at=AT)
    still = {name: transaction.outbox.open(name, kind=Kind.HOME) for name in "abcd"}
    assert (first.job_id, second.job_id) == ("a", "b")
    assert still == {"a": 1, "b": 1, "c": 1, "d": 0}
    assert transaction.outbox.open(kind=Kind.NOTICE) == 4
    assert not transaction.outbox.drop("d", Kind.HOME), "it is done"


def test_a_lease_is_held_until_a_third_of_it_is_left_and_only_by_its_holder(transaction: Transaction) -> None:
    kept(transaction, "a")
    transaction.outbox.enqueue("a", Kind.SUBMIT, at=AT - 99 * SECOND)
    (effect,) = claimed(transaction)
    assert transaction.outbox.holds(effect, at=AT + LEASE * 2 / 3)
    assert not transaction.outbox.holds(effect, at=AT + LEASE * 2 / 3 + SECOND)
    transaction.outbox.renew([effect], lease_for=LEASE, at=AT + 10 * SECOND)
    assert transaction.outbox.holds(effect, at=AT + LEASE)
    assert not transaction.outbox.holds(effect, at=AT + 20 * SECOND + SECOND)
    (other,) = claimed(transaction, at=AT + 10 * SECOND + LEASE)
    assert not transaction.outbox.holds(effect, at=AT)
    transaction.outbox.renew([effect], lease_for=10 * LEASE, at=AT + 30 * SECOND)
    assert transaction.outbox.holds(other, at=AT + 30 * SECOND), "the lease of another is not renewed"
    assert not transaction.outbox.holds(other, at=AT + 60 * SECOND)
    transaction.outbox.finish(other, at=AT)
    assert not transaction.outbox.holds(other, at=AT)


def test_renewing_reaches_the_effects_that_are_named_and_open(transaction: Transaction) -> None:
    for name in ("a", "b", "c"):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT)
    a, b, c = claimed(transaction)
    transaction.outbox.finish(c, at=AT)
    assert [transaction.outbox.holds(effect, at=AT) for effect in (a, b, c)] == [True, True, False]
    transaction.outbox.renew([], lease_for=LEASE, at=AT + LEASE)
    transaction.outbox.renew([a, c], lease_for=LEASE, at=AT + SECOND)
    assert [effect.job_id for effect in claimed(transaction, at=AT + LEASE)] == ["b"]
    assert [effect.job_id for effect in claimed(transaction, at=AT + LEASE + SECOND)] == ["a"]
    assert not transaction.outbox.holds(b, at=AT)


@pytest.mark.parametrize(("counted", "fault"), [(True, False), (False, False), (True, True)])
def test_an_effect_that_was_put_off_is_due_again_with_what_is_known_of_it(
    transaction: Transaction, counted: bool, fault: bool
) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT)
    effect, other = claimed(transaction)
    transaction.outbox.postpone(
        effect, delay=4 * SECOND, in_doubt=False, counted=counted, fault=fault, error="x" * 600 + "\x00", at=AT
    )
    assert transaction.outbox.holds(other, at=AT)
    transaction.outbox.enqueue("a", Kind.SUBMIT, at=AT)
    assert transaction.outbox.open("a") == 1, "it waits unclaimed"
    assert claimed(transaction, at=AT + 3 * SECOND) == []
    (again,) = claimed(transaction, at=AT + 4 * SECOND)
    assert (again.job_id, again.in_doubt) == ("a", False)
    assert (again.attempts, again.faults) == (2 if counted else 1, int(fault))
    kept_error = transaction.connection.scalar(sa.select(effects.c.error).where(effects.c.id == effect.id))
    assert kept_error == "x" * MAX_ERROR
    transaction.outbox.postpone(effect, delay=99 * SECOND, in_doubt=True, counted=True, error="", at=AT)
    assert transaction.outbox.holds(again, at=AT + 4 * SECOND), "who lost the lease puts nothing off"


def test_times_of_a_clock_that_has_gone_back_are_set_anew_each_as_far_ahead_as_it_was(transaction: Transaction) -> None:
    for name, ahead in (("a", 100), ("b", 100), ("c", 10), ("d", 100), ("e", 100)):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT + ahead * SECOND)
    late = AT + 100 * SECOND
    (a,) = claimed(transaction, at=late, job_id="a")
    (b,) = claimed(transaction, at=late, job_id="b")
    (d,) = claimed(transaction, at=late, job_id="d")
    transaction.outbox.finish(d, at=late)
    transaction.outbox.postpone(b, delay=7 * SECOND, in_doubt=True, counted=True, error="", at=late + 4 * SECOND)
    assert transaction.outbox.set_ahead_of(AT)
    assert not transaction.outbox.set_ahead_of(late + 4 * SECOND - SKEW)
    later = iter([AT, late + 4 * SECOND - SKEW])
    assert transaction.outbox.rewind(lambda: next(later)) == 0, "it was the process that stood still"
    assert transaction.outbox.rewind(lambda: AT) == 3
    assert not transaction.outbox.set_ahead_of(AT)
    assert transaction.outbox.rewind(lambda: AT) == 0
    assert [effect.job_id for effect in claimed(transaction, at=AT + 6 * SECOND)] == ["e"]
    (again,) = claimed(transaction, at=AT + 7 * SECOND)
    assert (again.job_id, again.faults) == ("b", 0)
    assert transaction.outbox.holds(a, at=AT + SECOND)
    assert [effect.job_id for effect in claimed(transaction, at=AT + LEASE, job_id="a")] == ["a"]
    assert claimed(transaction, at=AT + 9 * SECOND, job_id="c") == []
    assert len(claimed(transaction, at=AT + 10 * SECOND, job_id="c")) == 1


def test_the_oldest_effect_is_the_one_that_is_open_for_longest(transaction: Transaction) -> None:
    assert transaction.outbox.oldest() is None
    for name, ago in (("a", 9), ("b", 5)):
        kept(transaction, name)
        transaction.outbox.enqueue(name, Kind.SUBMIT, at=AT - ago * SECOND)
    a, b = claimed(transaction)
    transaction.outbox.postpone(b, delay=SECOND, in_doubt=True, counted=True, error="", at=AT)
    assert transaction.outbox.oldest() == AT - 9 * SECOND
    transaction.outbox.finish(a, at=AT)
    assert transaction.outbox.oldest() == AT - 5 * SECOND


def _given_up(transaction: Transaction, name: str, *kinds: Kind, at: datetime = AT) -> None:
    for kind in kinds:
        transaction.outbox.enqueue(name, kind, at=at)
        (effect,) = claimed(transaction, lane=kind.lane, job_id=name, at=at)
        assert transaction.outbox.finish(effect, at=at, error=f"{kind} of {name}" + "\x00" + "!" * 600)


def test_what_was_given_up_is_shown_the_newest_first_until_somebody_has_seen_to_it(transaction: Transaction) -> None:
    for name, more in (("a", {}), ("b", {"retried_as": "c"}), ("c", {})):
        kept(transaction, name, JobState.FAILED, **more)
    kept(transaction, "d")
    _given_up(transaction, "a", Kind.SUBMIT, Kind.CARD)
    _given_up(transaction, "b", Kind.CHECK, Kind.SUBMIT, Kind.CARD, at=AT + SECOND)
    _given_up(transaction, "c", Kind.CANCEL)
    _given_up(transaction, "d", Kind.CANCEL, at=AT - SECOND)
    transaction.outbox.enqueue("d", Kind.CARD, at=AT)
    (done,) = claimed(transaction, lane=Lane.CHAT, job_id="d")
    transaction.outbox.finish(done, at=AT)
    found = transaction.outbox.given_up()
    shown = [("b", Kind.CARD), ("a", Kind.CARD), ("a", Kind.SUBMIT), ("d", Kind.CANCEL)]
    assert [(one.job_id, one.kind) for one in found] == shown
    assert found[0].at == AT + SECOND
    assert found[0].error.startswith("card of b")
    assert len(found[0].error) == MAX_ERROR
    assert transaction.outbox.number_given_up() == 4
    assert [one.kind for one in transaction.outbox.given_up(most=1)] == [Kind.CARD]
    assert [one.job_id for one in transaction.outbox.given_up("d")] == ["d"]


def test_what_is_replayed_is_due_again_in_doubt_and_in_order_and_a_final_kind_is_not(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name, JobState.FAILED)
        _given_up(transaction, name, Kind.CARD, Kind.SUBMIT)
        transaction.outbox.enqueue(name, Kind.COLLECT, at=AT)
        (effect,) = claimed(transaction, job_id=name)
        transaction.outbox.postpone(
            effect, delay=SECOND, in_doubt=True, counted=True, fault=True, error="", at=AT - SECOND
        )
        (effect,) = claimed(transaction, job_id=name)
        assert transaction.outbox.finish(effect, at=AT, error="no")
    later = AT + SECOND
    replayed = transaction.outbox.replay("a", at=later)
    assert [one.kind for one in replayed] == [Kind.CARD, Kind.SUBMIT, Kind.COLLECT]
    assert transaction.outbox.number_given_up() == 3
    assert claimed(transaction, at=later - SECOND) == []
    transaction.outbox.enqueue("a", Kind.COLLECT, at=later)
    assert transaction.outbox.open("a", kind=Kind.COLLECT) == 1
    (collect,) = claimed(transaction, at=later)
    assert transaction.outbox.holds(collect, at=later + 10 * SECOND)
    assert (collect.job_id, collect.kind) == ("a", Kind.COLLECT)
    assert (collect.attempts, collect.faults, collect.in_doubt) == (1, 0, True)
    assert transaction.outbox.oldest() == later
    far = AT + 100 * SECOND
    assert [one.job_id for one in transaction.outbox.replay(at=far)] == ["b", "b", "b"]
    assert transaction.outbox.set_ahead_of(AT), "should the clock go back"
    assert transaction.outbox.number_given_up() == 0
    assert transaction.outbox.given_up() == transaction.outbox.replay(at=later) == []


# Jobs


def test_a_job_is_kept_as_it_is_and_changed_alone(transaction: Transaction) -> None:
    job = kept(transaction, "a", JobState.SUCCEEDED, summary=a_summary(), log_tail=("one", "two"))
    other = kept(transaction, "b")
    assert transaction.jobs.get("a") == transaction.jobs.lock("a") == job
    transaction.jobs.change("a", reason="because")
    assert transaction.jobs.get("a").reason == "because"
    assert transaction.jobs.get("b") == other
    assert transaction.jobs.by_key("key of b") == other
    assert transaction.jobs.by_key("another") is None
    with pytest.raises(UnknownJob):
        transaction.jobs.get("c")
    assert not transaction.jobs.add(job.model_copy(update={"id": "d"}))


def test_of_the_same_work_the_newest_that_runs_counts_or_else_the_newest_that_did_it(transaction: Transaction) -> None:
    jobs = transaction.jobs
    kept(transaction, "a", JobState.FAILED, work="w")
    assert jobs.same_work("w") is None
    for number, name in enumerate("bc"):
        kept(transaction, name, JobState.SUCCEEDED, work="w", accepted_at=AT + number * SECOND)
    kept(transaction, "x", work="another", accepted_at=AT + 99 * SECOND)
    found = jobs.same_work("w")
    assert found is not None
    assert found.id == "c"
    for number, name in enumerate("de"):
        kept(transaction, name, JobState.RUNNING, work="w", accepted_at=AT - number * SECOND)
    found = jobs.same_work("w")
    assert found is not None
    assert found.id == "d"


def test_a_page_is_of_these_states_and_this_person_the_newest_first_and_goes_on_after_its_last(
    transaction: Transaction,
) -> None:
    for number, name in enumerate("abcd"):
        kept(transaction, name, JobState.FAILED, accepted_at=AT + (number // 2) * SECOND)
    kept(transaction, "e", JobState.LOST, actor="U2", accepted_at=AT + 5 * SECOND)
    kept(transaction, "f", JobState.RUNNING, accepted_at=AT + 5 * SECOND)
    jobs = transaction.jobs
    ended = sorted(FINAL)
    assert names(jobs.page(ended, most=9)) == ["e", "d", "c", "b", "a"]
    assert names(jobs.page([JobState.LOST], most=9)) == ["e"]
    assert names(jobs.page(ended, actor="U01DEMO", most=2)) == ["d", "c"]
    assert names(jobs.page(ended, before="d", most=9)) == ["c", "b", "a"]
    assert names(jobs.page(ended, before="c", most=1)) == ["b"]
    assert names(jobs.page(ended, before=AT, most=9)) == ["b", "a"]
    assert names(jobs.page(ended, before="unknown", most=1)) == ["e"]
    assert jobs.number_of(ended, actor="U01DEMO") == 4
    assert jobs.number_of([JobState.RUNNING], actor="U2") == 0


def test_jobs_near_a_name_are_those_named_and_those_that_begin_so(transaction: Transaction) -> None:
    for number, name in enumerate(["abc", "abz", "ac", "xyz"]):
        kept(transaction, name, accepted_at=AT + number * SECOND)
    assert names(transaction.jobs.near(["xyz"], beginning="ab", most=9)) == ["xyz", "abz", "abc"]
    assert names(transaction.jobs.near(["xyz"], beginning="", most=9)) == ["xyz"]
    assert names(transaction.jobs.near([], beginning="a", most=2)) == ["ac", "abz"]
    assert names(transaction.jobs.near([], beginning="abz", most=9)) == ["abz"]


def test_what_runs_took_is_learned_from_the_newest_of_that_pipeline_that_succeeded_in_one_piece(
    transaction: Transaction,
) -> None:
    def ran(name: str, seconds: int, state: JobState = JobState.SUCCEEDED, **more: object) -> None:
        start = AT + len(name) * SECOND
        kept(transaction, name, state, started_at=start, finished_at=start + seconds * SECOND, **more)

    ran("a", 10)
    ran("ab", 20)
    ran("abc", 30)
    ran("abcd", 40, JobState.FAILED)
    ran("abcde", 50, timed=False)
    ran("abcdef", -1)
    ran("abcdefg", 0)
    ran("abcdefgh", 9, blocks=Blocks())
    voxels = 512 * 512 * 16
    assert transaction.jobs.runs("nomads-unsupervised", most=3) == [(voxels, 30), (voxels, 20), (voxels, 10)]
    assert (voxels, 0) in transaction.jobs.runs("nomads-unsupervised", most=9)
    assert len(transaction.jobs.runs("nomads-unsupervised", most=9)) == 4
    assert transaction.jobs.runs("another", most=9) == []
    assert transaction.jobs.in_blocks() == []


def test_watched_are_the_jobs_that_compute_has(transaction: Transaction) -> None:
    kept(
        transaction,
        "c",
        JobState.RUNNING,
        compute_id="3",
        blocks=Blocks(),
        stalled_since=AT,
        cancelled_by="U1",
        compute_attempt=2,
    )
    kept(transaction, "b", JobState.RUNNABLE, compute_id="2", submitted_at=AT)
    kept(transaction, "a", JobState.RUNNABLE, compute_id="1", waiting="for a queue")
    kept(transaction, "d", JobState.SUCCEEDED, compute_id="4")
    kept(transaction, "e", JobState.RUNNING)
    for name in "ab":
        transaction.jobs.change(name, runnable_at=AT)
    a, b, c = transaction.jobs.watched()
    assert (a.id, b.id, c.id) == ("a", "b", "c")
    assert (b.compute_id, b.state, b.compute_attempt, b.submitted_at) == ("2", JobState.RUNNABLE, 1, AT)
    assert (c.state, c.compute_attempt) == (JobState.RUNNING, 2)
    assert [(one.runnable_at, one.stalled, one.ending) for one in (a, b, c)] == [
        (None, False, False),
        (AT, False, False),
        (None, True, True),
    ]
    assert [watched.id for watched in transaction.jobs.watched(["2", "4", "9"])] == ["b"]
    kept(transaction, "f", JobState.FAILED, blocks=Blocks())
    assert names(transaction.jobs.in_blocks()) == ["c"]


def test_a_stall_is_told_once_and_its_reason_may_change_until_then(transaction: Transaction) -> None:
    jobs = transaction.jobs
    for name in ("b", "a", "c"):
        kept(transaction, name, JobState.RUNNING, compute_id=name)
    jobs.stall(["a", "b"], at=AT, why="away")
    jobs.stall(["a"], at=AT + SECOND, why="busy")
    assert jobs.stalled() == [("a", AT), ("b", AT)]
    assert [(jobs.get(name).stalled, jobs.get(name).stalled_since) for name in "abc"] == [
        ("busy", AT),
        ("away", AT),
        ("", None),
    ]
    assert not jobs.any_told_to_be_stalled()
    jobs.change("c", stalled_told=True)
    assert not jobs.any_told_to_be_stalled(), "for it compute answers"
    jobs.change("a", stalled_told=True)
    assert jobs.any_told_to_be_stalled()
    jobs.stall(["a"], at=AT + SECOND, why="gone")
    assert jobs.get("a").stalled == "busy"
    assert jobs.stalled() == [("b", AT)]


# Story, messages, people and the rest


def test_a_story_is_one_job_s_in_the_order_in_which_it_was_entered(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
        transaction.story.enter(name, Transition(JobState.ACCEPTED, AT, "Accepted.", 1))
    transaction.story.enter("a", Transition(JobState.RUNNING, AT - SECOND, "", None, note=True))
    told = Transition(JobState.ACCEPTED, AT, "Accepted.", 1, number=1)
    noted = Transition(JobState.RUNNING, AT - SECOND, "", None, note=True, number=2)
    assert transaction.story.of("a") == [told, noted]
    assert transaction.story.of("b") == [told]
    transaction.story.enter("b", Transition(JobState.RUNNING, AT, "Running.", 2))
    transaction.story.enter("b", Transition(JobState.FAILED, AT, "Failed.", 3))
    assert [step.number for step in transaction.story.of("b")] == [1, 2, 3]
    transaction.story.tell("a", 2, "Running.")
    transaction.story.tell("a", 1, "Taken.", reply=3)
    first, second = transaction.story.of("a")
    assert (first.text, first.reply, second.text, second.reply) == ("Taken.", 3, "Running.", None)
    assert [step.text for step in transaction.story.of("b")] == ["Accepted.", "Running.", "Failed."]


def test_a_message_is_found_by_its_job_and_subject(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
        transaction.messages.posted(name, "card", f"card of {name}", at=AT)
    messages = transaction.messages
    messages.posted("a", "reply-1", "reply of a", at=AT)
    messages.edited("a", "card", at=AT + SECOND)
    assert messages.timestamp("a", "card") == "card of a"
    assert messages.timestamp("b", "reply-1") is None
    edited = [messages.edited_at(*which) for which in (("a", "card"), ("a", "reply-1"), ("b", "card"))]
    assert edited == [AT + SECOND, AT, AT]
    assert messages.edited_at("b", "reply-1") is None


def test_a_person_is_changed_alone_and_only_in_what_is_named(transaction: Transaction) -> None:
    people = transaction.people
    people.change("U1", token_ref="r", token_end="abcd", token_at=AT, steps="end", mention=False, mail=False)
    people.change("U2", home_opened_at=AT, home_shown_at=AT + SECOND, last_request={"x": "1"})
    people.change("U1", token_end="efgh")
    one, two = people.get("U1"), people.get("U2")
    assert (one.token_ref, one.token_end, one.token_at, one.last_request) == ("r", "efgh", AT, None)
    assert one.preferences == Preferences(Steps.END, False, False)
    assert (two.token_ref, two.home_opened_at, two.home_shown_at) == (None, AT, AT + SECOND)
    assert (two.last_request, two.preferences) == ({"x": "1"}, Preferences())
    assert people.get("U3") == type(one)()


def test_followers_refusals_and_sealed_rows_are_each_kept_once(transaction: Transaction) -> None:
    for name in ("a", "b"):
        kept(transaction, name)
    for job, person in (("a", "U2"), ("a", "U1"), ("a", "U2"), ("b", "U3")):
        transaction.followers.add(job, person)
    assert transaction.followers.of("a") == ["U1", "U2"]
    for _ in range(2):
        transaction.refusals.add("digest", at=AT)
    assert transaction.refusals.has("digest")
    assert not transaction.refusals.has("another")
    for name in ("r1", "r2"):
        transaction.sealed.add(name, "U1", name.encode(), at=AT)
    transaction.sealed.delete("r3")
    assert not transaction.sealed.erased
    transaction.sealed.delete("r1")
    transaction.sealed.delete("r1")
    assert transaction.sealed.erased
    assert (transaction.sealed.get("r1"), transaction.sealed.get("r2")) == (None, b"r2")


def test_a_leader_leads_until_its_lease_is_out_and_no_longer_than_any_lease_lasts(transaction: Transaction) -> None:
    def leads(holder: str, seconds: float, name: str = "watch") -> bool:
        at = AT + timedelta(seconds=seconds)
        return transaction.leader.acquire(name, holder=holder, at=at, lasting=LEASE)

    assert leads("one", 0)
    assert leads("two", 0, "another")
    assert not leads("two", 14)
    assert leads("one", 14)
    assert leads("two", 14, "another"), "that is a lease of its own"
    assert not leads("two", 28)
    assert leads("two", 29)
    assert not leads("one", 29 + 14)
    assert not leads("one", -1), "the clock has gone back: the lease ends after its length"
    assert not leads("three", 28, "another")
    assert not leads("one", 13)
    assert leads("one", 14)
    assert not leads("two", 14 - SKEW.total_seconds())
    assert not leads("two", 28), "a lease that is no further ahead than clocks differ stays as it is"


def test_turns_come_at_their_rate_after_those_that_were_saved(transaction: Transaction) -> None:
    def waits(seconds: float, name: str = "submit") -> float:
        at = AT + timedelta(seconds=seconds)
        return transaction.rate_limits.take(name, each=SECOND, burst=2, at=at).total_seconds()

    assert [waits(0) for _ in range(4)] == [0, 0, 1, 2]
    assert waits(0, "another") == 0
    assert waits(0) == 3
    assert waits(10) == 0
    assert waits(-49) == 59
    assert waits(-49) == 0, "further ahead than any turn is waited for: the clock has gone back"


def test_the_outage_that_lasts_is_the_newest_that_is_not_over(transaction: Transaction) -> None:
    kept(transaction, "a")
    assert transaction.outages.lasting() is None
    first = transaction.outages.begin("a", at=AT, why="away")
    transaction.outages.end(first, at=AT + SECOND)
    assert transaction.outages.lasting() is None
    second = transaction.outages.begin("a", at=AT + 2 * SECOND, why="busy")
    third = transaction.outages.begin("a", at=AT + 2 * SECOND, why="slow")
    lasting, ended = transaction.outages.lasting(), transaction.outages.get(first)
    assert lasting is not None
    assert (lasting.number, lasting.why) == (third, "slow")
    assert ended is not None
    assert (ended.number, ended.job_id, ended.began_at, ended.why, ended.over_at) == (
        first,
        "a",
        AT,
        "away",
        AT + SECOND,
    )
    assert transaction.outages.get(99) is None
    transaction.outages.end(third, at=AT + 3 * SECOND)
    lasting = transaction.outages.lasting()
    assert lasting is not None
    assert lasting.number == second
