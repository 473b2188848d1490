"""What becomes of an effect whose handler succeeds, fails in each way, or is too slow: the lanes alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bot.application.ledger import LeaseLost, Ledger
from bot.application.worker import lanes
from bot.application.worker.handling import GIVE_UP, Handler, Handlers, attempt, telling
from bot.application.worker.lanes import LaneRunner, back_off
from bot.domain.errors import Busy, Refused, TooSoon, Unavailable
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind, Lane
from bot.storage.engine import Database
from bot.storage.tables import effects
from tests.support.stories import a_job
from tests.support.waiting import until
from tests.support.world import Clock

LEASE = timedelta(seconds=15)
SECOND = timedelta(seconds=1)


class Desk:
    """Handlers of two lanes that do what a test says, and the lanes with which they work."""

    def __init__(self, store: Database) -> None:
        self.store, self.clock = store, Clock()
        self.ledger = Ledger(database=store, clock=self.clock, ticks=self.clock.ticks)
        self.does: Callable[[Effect], None] = self.finish
        self.resorts: Callable[[Effect, str], None] = self.give_up
        self.performed: list[tuple[str, Kind]] = []
        self.given_up: list[tuple[str, str]] = []
        """How an effect was given up, and why."""
        self.runner = self.another()

    def another(self, **more: Any) -> LaneRunner:
        """A worker of another process."""
        return LaneRunner(
            database=self.store,
            effects=[self],
            **{"lease": LEASE, "clock": self.clock, "ticks": self.clock.ticks, **more},
        )

    def handlers(self) -> Handlers:
        def refused(effect: Effect, error: str) -> None:
            self.given_up.append(("refused", error))
            self.resorts(effect, error)

        def give_up(effect: Effect, error: str) -> None:
            self.given_up.append(("given up", error))
            self.resorts(effect, error)

        edit = Handler(perform=self._perform, give_up=give_up, refused=refused, attempts=3, faults=2, exhausted="Why:")
        plain = Handler(perform=self._perform, give_up=give_up, attempts=1)
        mail = {kind: plain for kind in Kind if kind.lane is Lane.MAIL}
        return {kind: edit for kind in Kind if kind.lane is Lane.EDIT} | mail

    def _perform(self, effect: Effect, job: Job) -> None:
        assert job.id == effect.job_id
        self.performed.append((job.id, effect.kind))
        self.does(effect)

    def finish(self, effect: Effect) -> None:
        with self.ledger.done(effect):
            pass

    def give_up(self, effect: Effect, error: str) -> None:
        with self.ledger.done(effect, error=error):
            pass

    def fails(self, error: BaseException) -> None:
        """Let handlers raise that from now on."""

        def fail(_: Effect) -> None:
            raise error

        self.does = fail

    def enqueue(self, name: str = "a", *kinds: Kind) -> None:
        """Let a new job have these effects, due now."""
        with self.store.begin() as transaction:
            transaction.jobs.add(a_job(id=name, channel=None, key=name, work=name, checked=True))
            transaction.outbox.enqueue_new(name, [(kind, "") for kind in kinds or (Kind.EDIT,)], at=self.clock.now)

    def row(self, name: str = "a") -> Any:
        """The job's first effect."""
        query = sa.select(effects).where(effects.c.job_id == name).order_by(effects.c.id).limit(1)
        with self.store.read() as transaction:
            return transaction.connection.execute(query).one()

    def put_off(self, name: str = "a") -> float:
        """Seconds for which it is put off."""
        row = self.row(name)
        assert row.lease is None
        seconds: float = (row.due_at - self.clock.now).total_seconds()
        return seconds


@pytest.fixture
def desk(store: Database, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("random.uniform", lambda _low, _high: 1.0)
    return Desk(store)


def test_the_wait_doubles_from_half_a_second_to_five_minutes_and_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    spread: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spread.append((low, high))
        return 2.0

    monkeypatch.setattr("random.uniform", uniform)
    assert [back_off(attempts) for attempts in (1, 2, 3, 10, 11, 5000)] == [1, 2, 4, 512, 600, 600]
    assert set(spread) == {(0.7, 1.3)}


def test_effects_are_performed_until_none_is_due_and_those_of_other_lanes_are_left(desk: Desk) -> None:
    desk.enqueue("a", Kind.EDIT, Kind.EDIT, Kind.MAIL_ACCEPTED, Kind.CARD)
    desk.enqueue("b", Kind.EDIT)
    assert desk.runner.drain(job_id="b") == 1
    assert desk.performed == [("b", Kind.EDIT)]
    assert desk.runner.drain() == 3
    assert sorted(desk.performed[1:]) == [("a", Kind.EDIT), ("a", Kind.EDIT), ("a", Kind.MAIL_ACCEPTED)]
    assert desk.runner.drain() == 0
    with desk.store.read() as transaction:
        assert transaction.outbox.open(kind=Kind.CARD) == transaction.outbox.open() == 1


def test_a_turn_performs_one_effect_of_its_lane_and_says_whether_there_was_one(desk: Desk) -> None:
    desk.enqueue("a", Kind.EDIT, Kind.MAIL_ACCEPTED)
    desk.enqueue("b", Kind.EDIT)
    assert desk.runner.turn(Lane.EDIT)
    assert desk.performed == [("a", Kind.EDIT)]
    assert desk.runner.turn(Lane.EDIT)
    assert not desk.runner.turn(Lane.EDIT)
    assert desk.runner.turn(Lane.MAIL)


def test_without_an_answer_an_effect_waits_longer_each_time_and_is_given_up_at_last(desk: Desk) -> None:
    desk.enqueue()
    desk.fails(Unavailable("No answer."))
    for attempts, wait in ((1, 0.5), (2, 1)):
        assert desk.runner.turn(Lane.EDIT)
        assert desk.put_off() == wait
        row = desk.row()
        assert (row.attempts, row.faults, row.in_doubt, row.error) == (attempts, 0, True, "No answer.")
        assert not desk.runner.turn(Lane.EDIT)
        desk.clock.advance(wait)
    assert desk.given_up == []
    assert desk.runner.turn(Lane.EDIT)
    assert desk.given_up == [("given up", "Why: No answer.")]
    assert desk.row().given_up
    assert desk.row().error == "Why: No answer."


@pytest.mark.parametrize(("named", "wait"), [(0.25, 0.5), (7, 7)])
def test_a_time_that_is_named_with_a_failure_is_the_least_that_is_waited(desk: Desk, named: float, wait: float) -> None:
    desk.enqueue()
    desk.fails(Unavailable("Later.", retry_after=named))
    desk.runner.drain()
    assert desk.put_off() == wait
    assert (desk.row().attempts, desk.row().in_doubt) == (1, True)


def test_a_service_that_has_done_nothing_and_names_a_time_costs_no_attempt_and_leaves_no_doubt(desk: Desk) -> None:
    desk.enqueue()
    desk.fails(Busy("Busy.", retry_after=0.25))
    desk.runner.drain()
    assert desk.put_off() == 0.25
    assert (desk.row().attempts, desk.row().in_doubt) == (0, False)
    desk.fails(Busy("Busy."))
    desk.clock.advance(0.25)
    desk.runner.drain()
    assert desk.put_off() == 0.5
    assert (desk.row().attempts, desk.row().in_doubt) == (1, False)


def test_where_nothing_is_said_of_attempts_that_are_used_up_the_last_error_is_the_reason(desk: Desk) -> None:
    desk.enqueue("a", Kind.MAIL_ACCEPTED)
    desk.fails(Unavailable("No answer."))
    desk.runner.drain()
    assert desk.given_up == [("given up", "No answer.")]


def test_what_could_not_be_told_is_given_up_with_the_last_error_and_nothing_else_is_changed(desk: Desk) -> None:
    def fail(_effect: Effect, _job: Job) -> None:
        raise Unavailable("No answer.")

    class Mails:
        def handlers(self) -> Handlers:
            return {kind: telling(desk.ledger, fail) for kind in Kind if kind.lane is Lane.MAIL}

    desk.enqueue("a", Kind.MAIL_ACCEPTED)
    with desk.store.begin() as transaction:
        transaction.connection.execute(effects.update().values(attempts=GIVE_UP - 1))
        before = transaction.jobs.get("a")
    LaneRunner(database=desk.store, effects=[Mails()], lease=LEASE, clock=desk.clock).turn(Lane.MAIL)
    assert desk.row().given_up
    assert desk.row().error == "No answer."
    with desk.store.read() as transaction:
        assert transaction.jobs.get("a") == before


def test_what_is_put_off_stands_in_the_log_unless_it_was_only_too_soon(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=lanes.__name__)
    for name, error in (("a", TooSoon("Shown a moment ago.", retry_after=3)), ("b", Busy("Busy.", retry_after=3))):
        desk.enqueue(name)
        desk.fails(error)
        desk.runner.drain()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.DEBUG, "Job a: edit again in 3.0 s: Shown a moment ago."),
        (logging.INFO, "Job b: edit again in 3.0 s: Busy."),
    ]


def test_a_service_that_has_done_nothing_says_nothing_of_the_attempt_before(desk: Desk) -> None:
    desk.enqueue()
    for error in (Unavailable("No answer."), Busy("Busy.", retry_after=0.25)):
        desk.fails(error)
        desk.runner.drain()
        assert desk.row().lease is None
        assert desk.row().in_doubt
        desk.clock.advance(1)


def test_what_is_refused_is_given_up_at_once_in_the_words_of_the_refusal(desk: Desk) -> None:
    desk.enqueue("a", Kind.EDIT, Kind.MAIL_ACCEPTED)
    desk.fails(Refused("No\n."))
    assert desk.runner.drain() == 2
    assert sorted(desk.given_up) == [("given up", "No ."), ("refused", "No .")]
    assert desk.row().given_up


def test_what_nobody_foresaw_is_tried_again_and_then_given_up_in_words_for_a_person(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.enqueue()
    desk.fails(KeyError("token"))
    desk.runner.drain()
    said = lanes.UNFORESEEN.format(error="KeyError")
    assert desk.put_off() == 0.5
    assert (desk.row().attempts, desk.row().faults, desk.row().in_doubt, desk.row().error) == (1, 1, True, said)
    desk.clock.advance(0.5)
    desk.runner.drain()
    assert desk.given_up == [("given up", said)]
    assert desk.row().given_up
    assert "token" not in caplog.text


@pytest.mark.parametrize(("fault", "faults"), [(KeyError("x"), 1), (Unavailable("No answer."), 0)])
def test_a_last_resort_that_fails_is_tried_again(desk: Desk, fault: Exception, faults: int) -> None:
    def fail(_effect: Effect, _error: str) -> None:
        raise fault

    desk.enqueue()
    desk.resorts = fail
    desk.fails(Refused("No."))
    desk.runner.drain()
    assert desk.put_off() == 0.5
    assert (desk.row().faults, desk.row().error) == (faults, "No.")
    desk.resorts = desk.give_up
    desk.clock.advance(0.5)
    desk.runner.drain()
    assert desk.row().given_up


def test_who_has_lost_the_lease_records_nothing(desk: Desk) -> None:
    desk.enqueue()
    desk.fails(LeaseLost("lost"))
    desk.runner.drain()
    assert (desk.row().lease is None, desk.row().attempts, desk.given_up) == (False, 1, [])
    desk.clock.advance(16)

    def lost(_effect: Effect, _error: str) -> None:
        raise LeaseLost("lost")

    desk.resorts = lost
    desk.fails(Refused("No."))
    desk.runner.drain()
    assert desk.row().lease is not None
    assert not desk.row().given_up


def test_leases_of_effects_under_way_are_renewed_and_of_no_others(desk: Desk) -> None:
    desk.enqueue()
    at_first: list[object] = []

    def slow(effect: Effect) -> None:
        at_first.append(desk.row().leased_until)
        desk.clock.advance(10)
        desk.runner.keep_leases()
        at_first.append(desk.row().leased_until)
        assert desk.another().drain() == 0
        desk.finish(effect)

    began = desk.clock.now
    desk.does = slow
    assert desk.runner.drain() == 1
    assert at_first == [began + LEASE, began + 10 * SECOND + LEASE]
    desk.enqueue("b")
    desk.fails(LeaseLost("lost"))
    desk.runner.drain()
    until_then = desk.row("b").leased_until
    desk.clock.advance(5)
    desk.runner.keep_leases()
    assert desk.row("b").leased_until == until_then


def test_after_the_clock_went_back_what_was_due_is_due(desk: Desk) -> None:
    desk.enqueue()
    desk.clock.put(-3600)
    assert desk.runner.drain() == 0
    desk.runner.keep_leases()
    assert desk.runner.drain() == 1


@pytest.mark.parametrize("where", ["read", "scrub", "begin"])
def test_who_stood_still_does_not_take_what_others_did_meanwhile_for_what_lies_ahead(
    where: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk.enqueue("a", Kind.MAIL_ACCEPTED)
    desk.enqueue("b", Kind.EDIT)
    other, usual = desk.another(), getattr(desk.store, where)

    def slow(_: Effect) -> None:
        monkeypatch.setattr(desk.store, where, late)
        desk.clock.put(-3600 if where == "scrub" else 0)  # what was due is ahead, until it is not
        desk.runner.keep_leases()

    def late() -> Any:
        """Stand still, while another process is told to come back in ten minutes."""
        monkeypatch.setattr(desk.store, where, usual)
        desk.clock.advance(4000)
        desk.fails(Busy("Not now.", retry_after=600))
        other.drain(job_id="b")
        return usual()

    desk.does = slow
    desk.runner.drain(job_id="a")
    assert desk.put_off("b") == 600
    assert "gone back" not in caplog.text


def test_what_of_an_erased_token_could_not_be_overwritten_at_once_is_overwritten_in_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []
    monkeypatch.setattr(desk.store, "scrub", lambda: looked.append(True))
    desk.runner.keep_leases()
    assert looked == [True]


def test_after_the_clock_was_put_forward_others_leases_are_left_to_them_for_as_long_as_one_lasts(desk: Desk) -> None:
    desk.clock.advance(100)
    desk.runner = desk.another()
    desk.enqueue()
    desk.fails(LeaseLost("held by another process"))
    desk.another().drain()
    desk.does = desk.finish
    desk.clock.advance(10)
    desk.clock.put(6)
    assert desk.runner.drain() == 0
    desk.clock.advance(14)
    assert desk.runner.drain() == 0
    desk.clock.advance(1)
    assert desk.runner.drain() == 1


def test_a_clock_that_runs_a_third_of_a_lease_fast_is_steady_still(desk: Desk) -> None:
    desk.enqueue()
    desk.fails(LeaseLost("held by another process"))
    desk.another().drain()
    desk.does = desk.finish
    desk.clock.advance(11)
    desk.clock.put(5)
    assert desk.runner.drain() == 1


def test_a_running_worker_serves_all_of_its_lanes_until_it_is_stopped_and_ends_what_it_has_begun(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IDLE", 60.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow(effect: Effect) -> None:
        begun.set()
        assert go_on.wait(30)
        desk.finish(effect)

    worker = threading.Thread(target=desk.runner.run)
    worker.start()
    try:
        desk.enqueue("a", Kind.EDIT, Kind.MAIL_ACCEPTED)
        desk.runner.wake([Lane.EDIT, Lane.MAIL, Lane.CHAT])
        until(lambda: len(desk.performed) == 2, what="both lanes")
        desk.does = slow
        desk.enqueue("b", Kind.EDIT)
        desk.runner.wake()
        assert begun.wait(30)
    finally:
        desk.runner.stop()
        go_on.set()
        worker.join(30)
    assert not worker.is_alive()
    with desk.store.read() as transaction:
        assert transaction.outbox.open() == 0


@contextmanager
def at_work(runner: LaneRunner) -> Iterator[None]:
    """It runs until the end of the block."""
    worker = threading.Thread(target=runner.run)
    worker.start()
    try:
        yield
    finally:
        runner.stop()
        worker.join(30)
    assert not worker.is_alive()


def waits(monkeypatch: pytest.MonkeyPatch, event: threading.Event, *, at_most: float = 60) -> list[float]:
    """For how many seconds the event is waited for each time; it is waited for no longer than `at_most`."""
    seconds: list[float] = []
    wait = event.wait

    def noted(timeout: float) -> bool:
        seconds.append(timeout)
        return wait(min(timeout, at_most))

    monkeypatch.setattr(event, "wait", noted)
    return seconds


def test_a_lane_in_which_nothing_is_due_looks_again_once_it_is_woken_or_has_waited(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IDLE", 60.0)
    waited = waits(monkeypatch, vars(desk.runner)["_wake"][Lane.EDIT])
    with at_work(desk.runner):
        until(lambda: waited, what="the first look")
        desk.enqueue("a", Kind.EDIT, Kind.MAIL_ACCEPTED)
        desk.runner.wake([Lane.MAIL])
        until(lambda: desk.performed, what="the mail")
        assert desk.performed == [("a", Kind.MAIL_ACCEPTED)]
        desk.runner.wake([Lane.EDIT])
        until(lambda: len(desk.performed) == 2, what="the edit")
        desk.clock.put(-3600)
        desk.enqueue("b")
        desk.clock.put(-3600)
        desk.runner.keep_leases()  # and wakes all lanes, since the clock has gone back
        until(lambda: len(desk.performed) == 3, what="what was due before the clock went back")
    assert set(waited) == {60.0}
    assert len(waited) <= 6, "a look for the start and for each time that it is woken, or has done something"


def test_a_lane_goes_on_after_a_look_at_the_outbox_that_failed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE", 60.0)
    failed: list[Lane] = []
    claim = vars(LaneRunner)["_claim"]

    def claimed(lane: Lane, *more: Any) -> list[Effect]:
        if lane not in failed:
            failed.append(lane)
            raise Unavailable("The database is away.")
        found: list[Effect] = claim(desk.runner, lane, *more)
        return found

    monkeypatch.setattr(desk.runner, "_claim", claimed)
    desk.enqueue("a", *[Kind.EDIT] * lanes.THREADS[Lane.EDIT], Kind.MAIL_ACCEPTED)
    with at_work(desk.runner):
        until(lambda: len(failed) == 2, what="the looks that failed")
        desk.runner.wake()
        until(lambda: len(desk.performed) == 3, what="all of them")


def test_a_running_worker_renews_the_leases_of_what_is_under_way_three_times_in_each(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    waited = waits(monkeypatch, vars(desk.runner)["_over"], at_most=0.001)

    def slow(effect: Effect) -> None:
        assert go_on.wait(30)
        desk.finish(effect)

    desk.does = slow
    desk.enqueue()
    with at_work(desk.runner):
        until(lambda: desk.performed, what="an effect under way")
        desk.clock.advance(10)
        until(lambda: desk.row().leased_until == desk.clock.now + LEASE, what="a renewed lease")
        desk.runner.stop()
        desk.clock.advance(10)
        until(lambda: desk.row().leased_until == desk.clock.now + LEASE, what="a renewed lease while it stops")
        go_on.set()
    assert set(waited) == {5.0}
    assert desk.row().done_at


def test_a_round_that_fails_ends_no_loop_and_stands_in_the_log_without_what_nobody_foresaw_saying(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(error: Exception) -> int:
        raise error

    assert attempt(lambda: 3) == 3
    assert attempt(fail, Unavailable("The database is away.")) is None
    assert attempt(fail, KeyError("a secret")) is None
    away, unforeseen = caplog.records
    assert (away.levelno, away.getMessage()) == (logging.WARNING, "The database is away.")
    assert unforeseen.levelno == logging.ERROR
    assert "a secret" not in caplog.text


def test_who_handles_a_kind_is_one_and_every_kind_of_a_lane_that_is_served_is_handled(desk: Desk) -> None:
    with pytest.raises(ValueError, match=r"^Two handlers are registered for edit, mail-accepted, mail-finished\.$"):
        LaneRunner(database=desk.store, effects=[desk, desk], lease=LEASE)

    class Cards:
        def handlers(self) -> Handlers:
            return {Kind.CARD: desk.handlers()[Kind.EDIT]}

    with pytest.raises(ValueError, match=r"^No handler is registered for reply, preview, direct\.$"):
        LaneRunner(database=desk.store, effects=[desk, Cards()], lease=LEASE)


def test_a_lane_performs_as_many_effects_at_once_as_it_has_threads_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IDLE", 60.0)  # an end makes room for the next
    inside, most, leased, go_on = [0], [0], [0], threading.Event()
    lock = threading.Lock()

    def slow(effect: Effect) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            with desk.store.read() as transaction:
                held = sa.select(sa.func.count()).where(effects.c.lease.is_not(None), effects.c.done_at.is_(None))
                leased[0] = max(leased[0], transaction.connection.scalar(held) or 0)
        assert go_on.wait(30)
        desk.finish(effect)
        with lock:
            inside[0] -= 1

    desk.does = slow
    for name in "abcdefg":
        desk.enqueue(name)
    worker = threading.Thread(target=desk.runner.run)
    worker.start()
    try:
        until(lambda: inside[0] == lanes.THREADS[Lane.EDIT], what="all threads at work")
        go_on.set()
        until(lambda: len(desk.performed) == 7 and inside[0] == 0, what="all of them")
    finally:
        go_on.set()
        desk.runner.stop()
        worker.join(30)
    assert most[0] == leased[0] == lanes.THREADS[Lane.EDIT], "what waits here is left to other processes"
