"""What a change of a job commits, whom it wakes, and what an observation makes of a job: the ledger alone."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from bot.application.ledger import MAX_REASON, JobChange, LeaseLost, Ledger
from bot.domain.job import Job, Transition
from bot.domain.outbox import Effect, GivenUp, Kind, Lane
from bot.domain.people import Steps
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Progress
from bot.storage.engine import Database
from bot.storage.transaction import Transaction
from tests.support.rows import Rows
from tests.support.stories import a_job
from tests.support.world import Clock

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
LEASE = timedelta(seconds=15)
TAKEN = "Its machine was taken back"
OWNER = "U01DEMO"


class Book:
    """The ledger of one process, which is told of jobs by a test."""

    def __init__(self, store: Database) -> None:
        self.store, self.clock, self.rows = store, Clock(), Rows(store)
        self.ledger = Ledger(database=store, clock=self.clock, ticks=self.clock.ticks)
        self.heard: list[set[Lane]] = []
        """The lanes of each commit that woke some."""
        self.ledger.on_commit(self._hear)

    def _hear(self, lanes: Collection[Lane]) -> None:
        self.heard.append(set(lanes))

    def add(self, name: str = "a", *, channel: str | None = "C01SYNAPSES", **more: Any) -> Job:
        """A job that was accepted and told now, and that compute has."""
        times = {"accepted_at": self.clock.now, "submitted_at": self.clock.now, "started_at": None, "finished_at": None}
        job = a_job(id=name, key=name, work=name, channel=channel, compute_id=name, **{**times, **more})
        with self.store.begin() as transaction:
            transaction.jobs.add(job)
            accepted = Transition(JobState.ACCEPTED, self.clock.now, "Accepted.", 1)
            transaction.story.enter(name, accepted)
        return job

    def prefers(self, **wishes: Any) -> None:
        """The owner's row has these values."""
        with self.store.begin() as transaction:
            transaction.people.change(OWNER, **wishes)

    def sees(self, state: JobState, *, after: float = 0, **more: Any) -> bool:
        """Whether the job moves by what compute says of it so many seconds later."""
        self.clock.advance(after)
        with self.ledger.change("a") as change:
            return change.follow(Observation(state, **more))

    def enqueued(self, *kinds: Kind) -> None:
        with self.ledger.change("a") as change:
            for kind in kinds:
                change.enqueue(kind)

    def take(self, lane: Lane) -> list[Effect]:
        """Lease all that is due."""
        return self.rows.claim(lane, limit=9, lease_for=LEASE, at=self.clock.now)

    def do(self, lane: Lane) -> list[tuple[Kind, str]]:
        """Mark the next effect of the lane as done; returns what it is."""
        effects = self.take(lane)
        for effect in effects:
            with self.ledger.done(effect):
                pass
        return [(effect.kind, effect.subject) for effect in effects]

    def open(self) -> list[Kind]:
        """Kinds of the job's effects that are to be done."""
        return [kind for kind in Kind for _ in range(self.rows.open_effects("a", kind=kind))]

    @property
    def job(self) -> Job:
        return self.rows.job("a")

    @property
    def story(self) -> list[tuple[JobState, str, int | None]]:
        """States, texts, and numbers of replies of all steps after the acceptance."""
        return [(step.state, step.text, step.reply) for step in self.rows.transitions("a")[1:]]


@pytest.fixture
def book(store: Database) -> Book:
    return Book(store)


# Commits, and who hears of them


def test_a_change_wakes_the_lanes_of_its_effects_once_it_is_kept_and_nobody_else(book: Book) -> None:
    book.add()
    with book.ledger.change("a") as change:
        change.set(reason="Why.")
        change.enqueue(Kind.EDIT)
        change.enqueue_once(Kind.MAIL_FINISHED, "U02OTHER")
        assert book.heard == []
    assert book.heard == [{Lane.EDIT, Lane.MAIL}]
    assert book.job.reason == "Why."
    with book.ledger.change("a") as change:
        change.set(reason="Another.")
    assert len(book.heard) == 1
    with pytest.raises(ZeroDivisionError), book.ledger.change("a") as change:
        change.set(reason=str(1 / 0))
    assert book.job.reason == "Another."
    assert book.do(Lane.MAIL) == [(Kind.MAIL_FINISHED, "U02OTHER")]


def test_an_effect_that_waits_serves_for_an_equal_one_and_what_is_done_once_stays_done(book: Book) -> None:
    book.add()
    for _ in range(2):
        with book.ledger.change("a") as change:
            change.enqueue(Kind.CARD)
            change.enqueue_once(Kind.COLLECT)
        assert book.open() == [Kind.COLLECT, Kind.CARD]
    assert book.do(Lane.CHAT) == [(Kind.CARD, "")]
    assert book.do(Lane.COMPUTE) == [(Kind.COLLECT, "")]
    with book.ledger.change("a") as change:
        change.enqueue(Kind.CARD)
        change.enqueue_once(Kind.COLLECT)
    assert book.open() == [Kind.CARD]


@pytest.mark.parametrize(("error", "given_up"), [(None, []), ("It is gone.", ["It is gone."])])
def test_an_effect_is_finished_with_what_it_changed_and_by_its_holder_alone(
    book: Book, error: str | None, given_up: list[str]
) -> None:
    book.add()
    book.enqueued(Kind.CARD, Kind.EDIT)
    (card,), (edit,) = book.take(Lane.CHAT), book.take(Lane.EDIT)
    with book.ledger.finish(card, error=error) as change:
        change.set(reason="Posted.")
    with book.ledger.done(edit, error=error) as transaction:
        transaction.jobs.change("a", log="log")
    assert (book.job.reason, book.job.log, book.open()) == ("Posted.", "log", [])
    with book.store.read() as transaction:
        assert [one.error for one in transaction.outbox.given_up("a")] == given_up * 2
    for late in (card, edit):
        said = f"^Job a: another worker has taken over {late.kind}\\.$"
        with pytest.raises(LeaseLost, match=said), book.ledger.finish(late) as change:
            change.set(reason="Posted again.")
        with pytest.raises(LeaseLost, match=said), book.ledger.done(late) as transaction:
            transaction.jobs.change("a", reason="Posted again.")
    assert book.job.reason == "Posted."


def test_whoever_is_about_to_act_is_told_where_its_lease_is_about_to_end(book: Book) -> None:
    book.add()
    book.enqueued(Kind.CARD)
    (card,) = book.take(Lane.CHAT)
    book.clock.advance(10)
    book.ledger.insist(card)
    book.clock.advance(1)
    with pytest.raises(LeaseLost, match=r"^Job a: another worker may have taken over card\.$"):
        book.ledger.insist(card)


def test_what_was_given_up_is_due_again_and_wakes_its_lanes_but_what_decided_a_job_is_only_told(book: Book) -> None:
    for name in ("a", "b"):
        book.add(name)
    with book.ledger.change("b") as change:
        change.enqueue(Kind.CARD)
    book.enqueued(Kind.CHECK, Kind.CARD, Kind.MAIL_ACCEPTED)
    for lane in (Lane.COMPUTE, Lane.CHAT, Lane.MAIL):
        for effect in book.take(lane):
            with book.ledger.done(effect, error="No answer."):
                pass
    book.heard.clear()

    def names(found: list[GivenUp]) -> list[tuple[str, Kind]]:
        return [(one.job_id, one.kind) for one in found]

    assert names(book.ledger.replay("a")) == [("a", Kind.CHECK), ("a", Kind.CARD), ("a", Kind.MAIL_ACCEPTED)]
    assert book.heard == [{Lane.CHAT, Lane.MAIL}]
    assert book.open() == [Kind.CARD, Kind.MAIL_ACCEPTED]
    assert [(effect.job_id, effect.in_doubt) for effect in book.take(Lane.CHAT)] == [("a", True)]
    assert names(book.ledger.replay()) == [("b", Kind.CARD)]
    assert book.ledger.replay() == []
    assert book.heard == [{Lane.CHAT, Lane.MAIL}, {Lane.CHAT}]


# What is seen of compute


def test_a_job_moves_on_with_what_compute_says_and_its_people_hear_of_the_steps_that_count(book: Book) -> None:
    book.add()
    began = book.clock.now
    assert book.sees(JobState.RUNNABLE, after=10, log="log", reason="No\nroom.")
    with book.store.read() as transaction:
        (watched,) = transaction.jobs.watched()
    assert watched.runnable_at == book.clock.now
    assert (book.job.reason, book.job.started_at, book.job.finished_at) == ("No room.", None, None)
    assert book.sees(JobState.STARTING, after=10)
    with book.store.read() as transaction:
        (watched,) = transaction.jobs.watched()
    assert watched.runnable_at == began + timedelta(seconds=10)
    assert book.heard == [{Lane.EDIT}] * 2
    assert book.sees(JobState.RUNNING, after=10, started_at=began + timedelta(seconds=25), attempt=1)
    assert not book.sees(JobState.RUNNING)
    assert book.heard[2:] == [{Lane.EDIT, Lane.CHAT}]
    assert book.do(Lane.CHAT) == [(Kind.REPLY, "2")]
    assert book.job.started_at == began + timedelta(seconds=25)
    assert book.sees(JobState.FAILED, after=60, reason="x" * (MAX_REASON + 1), exit_code=2, stopped_at=began)
    assert book.story == [
        (JobState.RUNNABLE, "", None),
        (JobState.STARTING, "", None),
        (JobState.RUNNING, "Running, after waiting 25 s.", 2),
        (JobState.FAILED, "", 3),
    ]
    assert [step.at for step in book.rows.transitions("a")][1:4] == [
        began + timedelta(seconds=passed) for passed in (10, 20, 30)
    ]
    assert book.open() == [Kind.COLLECT, Kind.EDIT], "the reply waits for what was collected"
    job = book.job
    assert (job.state, job.exit_code, job.cause, job.log) == (JobState.FAILED, 2, Cause.REQUEST, "log")
    assert (job.finished_at, job.timed, job.started_at) == (began, True, began + timedelta(seconds=25))
    assert len(job.reason) == MAX_REASON
    assert not book.sees(JobState.SUCCEEDED)
    assert len(book.heard) == 4


def test_an_end_of_which_compute_tells_no_time_is_dated_when_it_is_seen(book: Book) -> None:
    book.add()
    assert book.sees(JobState.RUNNING, after=5)
    assert book.job.started_at == book.clock.now
    assert book.sees(JobState.LOST, after=5)
    assert (book.job.finished_at, book.job.timed) == (book.clock.now, False)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.STARTING])
def test_a_program_that_was_never_seen_to_run_is_told_to_have_run(book: Book, state: JobState) -> None:
    book.add()
    began = book.clock.now
    assert book.sees(state, after=9, started_at=began + timedelta(seconds=4))
    assert book.story[0] == (JobState.RUNNING, "Running, after waiting 4 s.", 2)
    assert book.job.started_at == began + timedelta(seconds=4)
    assert [step[0] for step in book.story[1:]] == [state]
    if state is JobState.STARTING:
        assert book.sees(JobState.RUNNING, after=1)
        assert len(book.story) == 2, "that it runs was told"


@pytest.mark.parametrize(
    ("attempts", "again", "text"),
    [
        (3, TAKEN, f"{TAKEN}, attempt 2 of 3."),
        (None, f"{TAKEN}\n", f"{TAKEN} , attempt 2."),
        (3, "", "Begun again, attempt 2 of 3."),
    ],
)
def test_an_attempt_after_the_first_says_why_and_begins_with_nothing_of_the_one_before(
    book: Book, attempts: int | None, again: str, text: str
) -> None:
    book.add()
    book.sees(JobState.RUNNING)
    with book.ledger.change("a") as change:
        change.set(waiting="for long", progress={"part": 0.5, "phase": "reading"})
    assert book.job.progress == Progress(0.5, "reading")
    old = book.clock.now
    assert book.sees(JobState.RUNNABLE, after=60, attempt=2, attempts=attempts, again=again, started_at=old)
    job = book.job
    assert (job.compute_attempt, job.waiting, job.progress, job.started_at) == (2, "", None, None)
    assert book.story[1:] == [(JobState.RUNNABLE, text, 2)]
    assert book.sees(JobState.STARTING, after=40, attempt=2, started_at=old)
    assert book.job.started_at is None, "that time is of the attempt before"
    with book.ledger.change("a") as change:
        change.note("A note.")
    book.clock.advance(1)
    assert book.sees(JobState.RUNNING, after=49, attempt=2)
    assert book.story[-1] == (JobState.RUNNING, "Running again, after waiting 1 min 30 s.", 4)
    assert book.job.started_at == book.clock.now


def test_a_later_attempt_that_is_first_seen_as_it_runs_or_ends_is_told_once(book: Book) -> None:
    book.add()
    began = book.clock.now
    book.sees(JobState.RUNNING, after=5, started_at=began)
    second = began + timedelta(seconds=50)
    assert book.sees(JobState.RUNNING, after=60, attempt=2, again=TAKEN, started_at=second)
    assert book.job.started_at == second
    assert book.sees(JobState.FAILED, after=60, attempt=3, again=TAKEN, started_at=second + timedelta(seconds=9))
    assert book.job.started_at == second + timedelta(seconds=9)
    assert book.story[1:] == [(JobState.RUNNING, f"{TAKEN}, attempt 2.", 3), (JobState.FAILED, "", 4)]


def test_a_later_attempt_that_ended_before_it_ran_has_no_time_of_the_one_before(book: Book) -> None:
    book.add()
    book.sees(JobState.RUNNING, started_at=book.clock.now)
    book.sees(JobState.RUNNABLE, after=5, attempt=2)
    assert book.sees(JobState.FAILED, after=5, attempt=2, started_at=book.clock.now)
    assert book.job.started_at is None


def test_a_job_that_begins_again_elsewhere_waits_from_its_second_submission_on(book: Book) -> None:
    book.add(lasting=True, submitted_at=book.clock.now + timedelta(seconds=100))
    book.sees(JobState.RUNNING, after=130)
    assert book.story == [(JobState.RUNNING, "Running again, after waiting 30 s.", 2)]
    book.sees(JobState.RUNNABLE, after=10, attempt=2)
    book.sees(JobState.RUNNING, after=10, attempt=2)
    assert book.story[-1][1] == "Running again, after waiting 10 s."


# What people are told of it, and where


@pytest.mark.parametrize(
    ("steps", "mention", "follower", "end", "replies"),
    [
        (Steps.ALL, True, "", JobState.SUCCEEDED, [1, 2]),
        (Steps.ALL, False, "", JobState.SUCCEEDED, [1, 1]),
        (Steps.ALL, False, "U02OTHER", JobState.SUCCEEDED, [1, 2]),
        (Steps.END, False, "", JobState.SUCCEEDED, [None, 1]),
        (Steps.FAILURES, True, "", JobState.SUCCEEDED, [None, None]),
        (Steps.FAILURES, True, "U02OTHER", JobState.SUCCEEDED, [None, 2]),
        (Steps.FAILURES, False, "", JobState.FAILED, [None, 1]),
    ],
)
def test_an_end_has_a_message_of_its_own_where_it_names_somebody(
    book: Book, steps: Steps, mention: bool, follower: str, end: JobState, replies: list[int | None]
) -> None:
    book.prefers(steps=steps.value, mention=mention)
    book.add()
    if follower:
        with book.store.begin() as transaction:
            transaction.followers.add("a", follower)
    book.sees(JobState.RUNNING)
    book.sees(end)
    assert [reply for _, _, reply in book.story] == replies


@pytest.mark.parametrize(
    ("after", "reply"),
    [([0, 2], 1), ([0, 2.001], 2), ([1.5, 1.5], 1), ([-1.5], 1), ([-3600], 2), ([5, -1], 2), ([5, -3], 3)],
)
def test_steps_share_a_reply_with_one_that_was_told_at_most_two_seconds_before(
    book: Book, after: list[float], reply: int
) -> None:
    book.add()
    found = 1
    for passed in after:
        book.clock.put(passed)
        with book.ledger.change("a") as change:
            assert change.next_reply(separate=True) == found + 1
            found = change.next_reply(separate=False)
            change.transaction.story.enter("a", Transition(JobState.RUNNABLE, change.at, "Waits.", found))
            change.transaction.story.enter("a", Transition(JobState.RUNNABLE, change.at, "", None))
    assert found == reply


def test_the_first_reply_of_a_job_of_which_nothing_was_told_is_the_first(book: Book) -> None:
    job = a_job(id="b", key="b", work="b")
    with book.store.begin() as transaction:
        transaction.jobs.add(job)
        change = JobChange(transaction, job, at=book.clock.now)
        assert change.next_reply(separate=True) == change.next_reply(separate=False) == 1


@pytest.mark.parametrize(("steps", "reply"), [(Steps.ALL, 2), (Steps.END, None)])
def test_a_note_is_told_in_a_reply_of_its_own_to_whoever_wants_all_steps(
    book: Book, steps: Steps, reply: int | None
) -> None:
    book.prefers(steps=steps.value)
    book.add(state=JobState.RUNNABLE)
    with book.ledger.change("a") as change:
        change.note("It goes on.")
    step = book.rows.transitions("a")[-1]
    assert step == Transition(JobState.RUNNABLE, book.clock.now, "It goes on.", reply, note=True, number=2)
    assert book.do(Lane.CHAT) == ([(Kind.REPLY, "2")] if reply else [])


@pytest.mark.parametrize(("reply", "posted"), [(2, [(Kind.REPLY, "2")]), (None, [])])
def test_a_step_is_told_in_other_words_in_the_reply_that_is_named(
    book: Book, reply: int | None, posted: list[tuple[Kind, str]]
) -> None:
    book.add()
    book.sees(JobState.RUNNABLE)
    with book.ledger.change("a") as change:
        change.tell(change.entered(JobState.RUNNABLE), "Waits for long.", reply=reply)
    assert book.story == [(JobState.RUNNABLE, "Waits for long.", reply)]
    assert book.do(Lane.CHAT) == posted


def test_the_step_into_a_state_is_the_latest_that_is_no_note(book: Book) -> None:
    book.add()
    book.sees(JobState.RUNNABLE)
    book.sees(JobState.RUNNABLE, after=5, attempt=2)
    at = book.clock.now
    book.clock.advance(5)
    with book.ledger.change("a") as change:
        change.note("A note.")
    book.sees(JobState.STARTING, attempt=2)
    with book.ledger.change("a") as change:
        assert (change.entered(JobState.RUNNABLE).at, change.entered(JobState.ACCEPTED).number) == (at, 1)


def test_of_a_job_without_a_channel_nothing_is_told_in_chat(book: Book) -> None:
    book.add(channel=None)
    book.sees(JobState.RUNNING)
    with book.ledger.change("a") as change:
        change.note("A note.")
    assert book.open() == []
    book.sees(JobState.SUCCEEDED)
    assert book.open() == [Kind.COLLECT]


@pytest.mark.parametrize(("hours", "shown"), [(11, [Kind.HOME]), (13, [])])
def test_a_change_shows_in_its_owner_s_home_tab_where_that_may_be_open(
    book: Book, hours: int, shown: list[Kind]
) -> None:
    book.add(channel=None)
    book.prefers(home_opened_at=book.clock.now)
    book.clock.advance(hours * 3600)
    book.sees(JobState.RUNNABLE)
    assert book.open() == shown
    assert book.heard == [{Lane.HOME} for _ in shown]
    assert book.do(Lane.HOME) == [(kind, "") for kind in shown]


def test_what_a_change_may_look_at_is_the_job_s_own(book: Book) -> None:
    book.prefers(mail=False)
    for name in ("a", "b"):
        book.add(name)

    def follow(transaction: Transaction) -> None:
        transaction.followers.add("a", "U02OTHER")

    book.store.write(follow)
    with book.ledger.change("a") as change:
        assert (change.followers, change.preferences.mail, len(change.story)) == (["U02OTHER"], False, 1)
        assert change.at == book.clock.now
