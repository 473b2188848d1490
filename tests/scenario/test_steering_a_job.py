"""Cancel, retry, preferences, waiting, lists and the home tab: the rules, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydantic import SecretStr

from bot.application.people import People
from bot.application.queries import Which
from bot.application.steering import RETRIED, Needed, Retried
from bot.application.submission import Followed, Form, Question
from bot.domain.errors import InvalidRequest, NomadsError, NotYours, Refused, TooLate, Unavailable, UnknownJob
from bot.domain.job import AlreadyRunning, Job
from bot.domain.people import Preferences, Standing, Steps
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Progress
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.world import TOKEN, World, a_request

OWNER, OTHER, ADMIN, PRIVATE = "U01DEMO", "U02OTHER", "U03ADMIN", "G01PRIVATE"


@pytest.fixture
def world(store: Database) -> World:
    return World(store, admins=[ADMIN])


def failed(world: World) -> Job:
    """A job that has failed, as everybody was told."""
    job = world.running()
    world.see(job, JobState.FAILED, exit_code=3)
    world.settle()
    return job


def retried(world: World, job: Job, *, actor: str = OWNER, token: str = TOKEN, email: str = "") -> Job:
    outcome = world.steering.retry(job.id, actor=actor, token=SecretStr(token), email=email)
    assert isinstance(outcome, Retried)
    return outcome.job


# Cancel


def test_a_cancelled_job_says_who_ended_it_and_when(world: World) -> None:
    job = world.running()
    world.steering.cancel(job.id, actor=ADMIN)
    world.settle()
    (card,) = world.chat.cards
    assert (card.story.job.cancelled_by, card.story.job.cancelled_at) == (ADMIN, world.clock.now)
    world.worker.watcher.watch_once()
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.cancelled_by) == (JobState.CANCELLED, ADMIN)
    assert world.thread[-1].startswith(f"Cancelled by {ADMIN} after")
    assert card.story.job.state is JobState.CANCELLED


def test_only_the_owner_and_admins_may_cancel_or_retry(world: World) -> None:
    job = world.running()
    with pytest.raises(NotYours, match="Only whoever asked for job"):
        world.steering.cancel(job.id, actor=OTHER)
    assert world.job(job).cancelled_by is None
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    world.worker.watcher.watch_once()
    with pytest.raises(NotYours):
        retried(world, job, actor=OTHER)
    assert world.steering.may_steer(job, "cli:somebody"), "whoever has a terminal on this database has all of it"


def test_cancelling_twice_is_cancelling_once(world: World) -> None:
    job = world.running()
    world.steering.cancel(job.id, actor=OWNER)
    world.steering.cancel(job.id, actor=ADMIN)
    world.settle()
    assert world.compute.calls.count("cancel") == 1
    assert world.job(job).cancelled_by == OWNER


def test_a_job_in_the_queue_is_ended_there(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE)
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.CANCELLED
    assert world.compute.cancelled


def test_a_job_whose_submission_waits_for_a_compute_that_is_away_is_never_submitted(world: World) -> None:
    world.compute.fail_next(Unavailable("AWS is away"), call="submit", times=2)
    job = world.accept()
    world.worker.lanes.drain()
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert not world.compute.works


def test_a_job_that_was_submitted_although_the_answer_was_lost_is_found_and_ended(world: World) -> None:
    world.compute.crash_after_submit()
    job = world.accept()
    world.worker.lanes.drain()
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.CANCELLED
    assert len(world.compute.cancelled) == 1


def test_a_job_that_failed_by_itself_before_it_could_be_cancelled_has_failed(world: World) -> None:
    job = world.running()
    world.compute.tell(job.name, Observation(JobState.FAILED, "BOSS refused.", exit_code=3))
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.FAILED
    assert world.thread[-1] == "Failed: BOSS refused."


def test_a_cancellation_that_compute_refuses_is_told_and_the_job_goes_on(world: World) -> None:
    job = world.running()
    world.compute.fail_next(Refused("AWS Batch did not end the job: not allowed."), call="cancel")
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    still = world.job(job)
    assert (still.state, still.cancelled_by) == (JobState.RUNNING, None)
    assert world.thread[-1].endswith("It could not be cancelled: AWS Batch did not end the job: not allowed.")
    world.compute.fail_next(Refused("no"), call="cancel")
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.thread[-1].count("could not be cancelled") == 1, "the last refusal is enough"
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.compute.cancelled


def test_a_compute_that_is_away_is_asked_again_to_end_the_job(world: World) -> None:
    job = world.running()
    world.compute.fail_next(Unavailable("AWS is away"), call="cancel", times=5)
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.CANCELLED


def test_a_cancellation_that_compute_obeys_and_then_refuses_is_a_cancellation(world: World) -> None:
    """The first answer was lost, and when compute was asked again it refused."""
    job = world.running()
    world.compute.fail_after(Unavailable("The answer was lost"), call="cancel")
    world.compute.fail_next(Refused("not allowed"), call="cancel")
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.thread[-1].endswith("It could not be cancelled: not allowed")
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert world.thread[-1].startswith("Cancelled")


def test_a_job_whose_check_waits_for_boss_is_cancelled_without_asking_again(world: World) -> None:
    world.volumes.fail_next(Unavailable("BOSS is away"), call="describe", times=2)
    job = retried(world, failed(world))
    world.worker.lanes.drain()
    assert world.job(job).state is JobState.ACCEPTED
    world.steering.cancel(job.id, actor=OWNER)
    asked = len(world.volumes.calls)
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert len(world.volumes.calls) == asked
    assert len(world.compute.works) == 1


def test_the_log_of_a_program_that_vanished_keeps_no_token(world: World) -> None:
    """Whoever ended it had no time to strike the token out, and it is about to be forgotten."""
    job = world.running()
    world.compute.print(job.name, f"token {TOKEN}")
    world.see(job, JobState.FAILED, reason="The program vanished.")
    world.settle()
    assert world.job(job).token_ref is None
    (line,) = world.output.tail(world.job(job), lines=5)
    assert TOKEN not in line.text


# Retry


def test_a_retry_is_a_new_attempt_with_the_history_of_the_first(world: World) -> None:
    first = failed(world)
    second = retried(world, first)
    world.settle()
    assert (second.attempt, second.retry_of) == (2, first.id)
    assert world.job(first).retried_as == second.id
    assert second.request == first.request
    assert world.job(second).state is JobState.SUBMITTED
    assert f"attempt 2, after job {first.id}" in " ".join(world.thread)
    world.see(second, JobState.FAILED, exit_code=1)
    world.settle()
    third = retried(world, second)
    assert [one.id for one in world.queries.attempts(world.job(second), actor=OWNER)] == [first.id, second.id, third.id]
    assert third.attempt == 3


def test_a_retry_is_one_job_whoever_clicks_how_often(world: World) -> None:
    job = failed(world)
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda actor: retried(world, job, actor=actor, email="x@y.org"), [OWNER, ADMIN] * 8))
    assert len({one.id for one in again}) == 1
    world.settle()
    assert len(world.compute.works) == 2
    assert retried(world, job).id == again[0].id, "a click weeks later, too"


def test_a_retry_is_checked_with_boss_before_it_costs(world: World) -> None:
    job = failed(world)
    del world.volumes.there["demo"]["cortex"]
    again = retried(world, job)
    world.settle()
    assert world.job(again).turned_down
    assert len(world.compute.works) == 1


def test_a_job_that_runs_or_has_succeeded_is_not_tried_again(world: World) -> None:
    job = world.running()
    with pytest.raises(TooLate, match=f"Job {job.id} has not ended: running. Cancel it first, or wait."):
        retried(world, job)
    world.see(job, JobState.SUCCEEDED)
    with pytest.raises(TooLate, match="has succeeded; “Edit and rerun”"):
        retried(world, job)


def test_a_retry_of_what_another_job_does_now_is_not_taken(world: World) -> None:
    job = failed(world)
    other = world.accept()
    with pytest.raises(AlreadyRunning) as found:
        retried(world, job)
    assert found.value.job.id == other.id
    assert world.job(job).retried_as is None


def test_an_admin_s_retry_is_theirs_with_their_token_and_address(world: World) -> None:
    job = failed(world)
    world.volumes.writers["admins-token"] = ("*",)
    again = retried(world, job, actor=ADMIN, token="admins-token", email="admin@example.org")
    assert (again.actor, again.request.email) == (ADMIN, "admin@example.org")
    assert again.request.box == job.request.box


def test_who_comes_second_is_told_of_the_attempt_of_another_only_where_they_may_see_it(world: World) -> None:
    job = world.accept(channel=PRIVATE)
    world.settle()
    world.see(job, JobState.FAILED, exit_code=3)
    world.settle()
    world.workspace.private[PRIVATE] = {OWNER}
    world.workspace.mails[ADMIN] = "admin@example.org"
    made = world.steering.retry(job.id, actor=ADMIN, token=SecretStr(TOKEN))
    assert isinstance(made, Retried)
    assert (made.before.id, made.already, made.job.actor) == (job.id, False, ADMIN)
    assert made.job.request.email == "admin@example.org", "as their profile says"
    again = world.steering.retry(job.id, actor=OWNER)
    assert isinstance(again, Retried)
    assert (again.before.id, again.already, again.job.id) == (job.id, True, made.job.id)
    world.workspace.private[PRIVATE] = {OTHER}
    with pytest.raises(TooLate) as late:
        world.steering.retry(job.id, actor=OWNER)
    assert str(late.value) == RETRIED.format(job.id)
    assert made.job.id not in str(late.value)


def test_nobody_s_retry_goes_to_the_owner_s_address_but_the_owner_s(world: World) -> None:
    job = failed(world)
    outcome = world.steering.retry(job.id, actor=ADMIN, token=SecretStr(TOKEN))
    assert isinstance(outcome, Needed)
    assert (outcome.token, outcome.email) == (False, True)
    assert world.rows.count() == 1
    assert retried(world, job, actor="cli:somebody").request.email == job.request.email, "which no terminal shows"


@pytest.mark.parametrize(
    "address", ["not an address", "a@example.org\nBcc: b@example.org", "a@example.org, b@example.org"]
)
def test_a_retry_s_address_is_checked_as_the_form_s_is(world: World, address: str) -> None:
    job = failed(world)
    with pytest.raises(InvalidRequest) as wrong:
        world.steering.retry(job.id, actor=ADMIN, token=SecretStr(TOKEN), email=address)
    assert list(wrong.value.errors) == ["email"]
    assert world.rows.count() == 1


def test_cancel_and_retry_at_once_leave_one_job_that_runs_or_none(world: World) -> None:
    """Two people, two buttons, one job that is still running: the retry is refused, or comes after the end."""
    for _ in range(5):
        job = world.running()
        barrier = threading.Barrier(2)
        told: list[str] = []

        def act(what: object, barrier: threading.Barrier = barrier, told: list[str] = told) -> None:
            barrier.wait()
            try:
                what()  # type: ignore[operator]
            except NomadsError as error:
                told.append(str(error))

        threads = [
            threading.Thread(target=act, args=(lambda job=job: world.steering.cancel(job.id, actor=OWNER),)),
            threading.Thread(target=act, args=(lambda job=job: retried(world, job, actor=ADMIN),)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 1
        assert "has not ended" in told[0]
        world.settle()
        world.worker.watcher.watch_once()
        world.settle()
        assert world.job(job).state is JobState.CANCELLED
        again = retried(world, job)
        world.settle()
        assert world.job(again).state is JobState.SUBMITTED
        world.steering.cancel(again.id, actor=OWNER)
        world.settle()
        world.worker.watcher.watch_once()
        world.settle()


# A retry that cannot help

DOUBTED = [cause for cause in Cause if not cause.passing]


def failed_for(world: World, cause: Cause) -> Job:
    """A job that has failed for that cause, as everybody was told."""
    job = world.running()
    world.see(job, JobState.FAILED, reason="Why it failed.", cause=cause, exit_code=1)
    world.settle()
    return world.job(job)


@pytest.mark.parametrize("cause", DOUBTED)
def test_a_retry_that_cannot_help_is_not_offered_and_made_only_for_whoever_wants_it_all_the_same(
    world: World, cause: Cause
) -> None:
    job = failed_for(world, cause)
    assert not job.retryable
    outcome = world.steering.retry(job.id, actor=OWNER, token=SecretStr(TOKEN))
    assert isinstance(outcome, Needed)
    assert (outcome.token, outcome.email) == (False, False)
    assert outcome.doubt == f"Job {job.id} would fail again with nothing changed: Why it failed. {job.advice}"
    assert world.rows.count() == 1
    again = world.steering.retry(job.id, actor=OWNER, token=SecretStr(TOKEN), anyway=True)
    assert isinstance(again, Retried), "somebody may have mended it"
    assert again.job.retry_of == job.id


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.passing])
def test_a_retry_that_may_help_is_made_without_a_question(world: World, cause: Cause) -> None:
    job = failed_for(world, cause)
    assert (job.retryable, job.doubt) == (True, "")
    assert retried(world, job).retry_of == job.id


def ended_with_exit(world: World, code: int, *lines: str) -> Job:
    job = world.running()
    world.compute.print(job.name, *lines)
    world.see(job, JobState.FAILED, exit_code=code)
    world.settle()
    return world.job(job)


@pytest.mark.parametrize("late", [False, True])
def test_a_program_that_boss_refused_for_good_is_not_told_to_be_retried(world: World, late: bool) -> None:
    """Its stdout and stderr may come in another order than it printed."""
    said = ["failure refused", "BOSS refused the token."]
    job = ended_with_exit(world, 3, "reading", *(said[::-1] if late else said))
    assert job.log_tail == ("reading", "BOSS refused the token.")
    assert (job.cause, job.retryable, job.turned_down) == (Cause.REFUSED, False, True)
    assert world.thread[-1] == "Failed: BOSS refused the token."
    assert "with a token that may read the volume (“Edit and rerun”)" in world.mailer.sent[-1].text
    (card,) = world.chat.cards
    offered = [button.action_id for button in cards.buttons(card.story.job)]
    assert cards.RETRY not in offered
    assert cards.EDIT in offered
    reply = world.chat.replies[-1]
    assert "Edit and resubmit" in str([block.to_dict() for block in cards.reply(reply.story, reply.steps)])


@pytest.mark.parametrize(
    ("code", "lines", "cause"),
    [
        (3, ["BOSS failed 4 times in a row."], Cause.VOLUME),
        (3, ["see failure refused in the handbook", "It failed."], Cause.VOLUME),
        (1, ["failure refused", "It failed."], Cause.PROGRAM),
    ],
)
def test_without_the_program_s_word_a_retry_after_exit_3_may_help(
    world: World, code: int, lines: list[str], cause: Cause
) -> None:
    job = ended_with_exit(world, code, *lines)
    assert (job.cause, job.retryable) == (cause, True)


def test_the_mail_about_a_cancelled_job_names_who_cancelled_it(world: World) -> None:
    world.workspace.names[ADMIN] = "Ada Admin"
    for by, name in ((ADMIN, "Ada Admin"), ("cli:root", "root (at a terminal of NOMADS)")):
        job = world.running()
        world.steering.cancel(job.id, actor=by)
        world.settle()
        world.worker.watcher.watch_once()
        world.settle()
        assert f"was cancelled by {name}." in world.mailer.sent[-1].text
        assert world.mailer.sent[-1].subject == f"NOMADS job {job.id}: cancelled"


# Preferences


def prefer(world: World, **wishes: object) -> None:
    world.people.prefer(OWNER, **wishes)  # type: ignore[arg-type]


def the_whole_way(world: World, end: JobState = JobState.SUCCEEDED) -> Job:
    job = world.accept()
    world.settle()
    world.clock.advance(60)
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.settle()
    world.clock.advance(60)
    world.results.put(job.folder, "results.json", b'{"counts": {"synapses": 0}}')
    world.see(job, end, stopped_at=world.clock.now, exit_code=1 if end is JobState.FAILED else None)
    world.settle()
    return job


def test_who_wants_the_end_only_is_told_the_end_only(world: World) -> None:
    prefer(world, steps=Steps.END)
    the_whole_way(world)
    assert world.thread == ["0 synapses. Finished after 1 min 0 s."]
    assert len(world.chat.cards) == 1, "the card is there anyway"
    assert world.chat.cards[0].story.job.state is JobState.SUCCEEDED


def test_who_wants_failures_only_hears_nothing_of_a_success(world: World) -> None:
    prefer(world, steps=Steps.FAILURES)
    the_whole_way(world)
    assert world.thread == []
    assert not world.chat.files
    the_whole_way(world, JobState.FAILED)
    assert len(world.thread) == 1
    assert world.thread[0].startswith("Failed after 1 min 0 s")


def test_the_owner_is_named_at_the_end_in_a_message_of_its_own(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.SUCCEEDED, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle()
    *before, end = world.chat.replies
    assert end.story.mentions == [OWNER]
    assert [list(reply.story.mentions) for reply in before] == [[]]
    assert not end.history, "an edit notifies nobody"


def test_who_wants_no_mail_gets_none(world: World) -> None:
    prefer(world, mail=False)
    the_whole_way(world)
    assert not world.mailer.sent


def test_who_does_not_want_to_be_named_is_not(world: World) -> None:
    prefer(world, mention=False)
    the_whole_way(world)
    assert [m for reply in world.chat.replies for m in reply.story.mentions] == []
    assert len(world.mailer.sent) == 2


def test_who_wants_the_end_only_is_not_told_why_a_job_waits_but_hears_of_a_cancellation_that_failed(
    world: World,
) -> None:
    prefer(world, steps=Steps.END)
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE)
    world.clock.advance(700)
    world.see(job, JobState.RUNNABLE, reason="All places are taken.")
    world.settle()
    assert world.thread == []
    assert world.chat.cards[0].story.job.waiting == "All places are taken."
    world.compute.fail_next(Refused("not allowed"), call="cancel")
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.thread[-1].endswith("It could not be cancelled: not allowed")


def test_two_preferences_changed_at_once_are_both_kept(world: World) -> None:
    prefer(world, steps=Steps.FAILURES)
    world.people.profile(OWNER)
    other = People(ledger=world.ledger, tokens=world.tokens)  # of another process
    other.prefer(OWNER, mention=True)
    prefer(world, mail=False)
    assert world.rows.person(OWNER).preferences == Preferences(Steps.FAILURES, mention=True, mail=False)


def test_a_preference_counts_from_the_next_job_on(world: World) -> None:
    assert world.people.profile(OWNER).preferences.mail
    prefer(world, mail=False)
    assert not world.people.profile(OWNER).preferences.mail
    world.accept()
    world.settle()
    assert not world.mailer.sent


# A quiet card


def test_a_card_is_edited_at_most_every_three_seconds(store: Database) -> None:
    world = World(store, edit_every=3)
    job = world.accept()
    world.worker.lanes.drain()
    edited = []
    for second in range(30):
        if second == 1:
            world.see(job, JobState.RUNNABLE)
        if second == 2:
            world.see(job, JobState.RUNNING, started_at=world.clock.now)
        world.lifecycle.progressed(job.id, Progress(second / 100, "reading"))
        world.worker.lanes.drain()
        edited.append(world.chat.calls.count("edit_card"))
        world.clock.advance(1)
    assert edited[-1] == 9
    assert all(later - earlier <= 1 for earlier, later in zip(edited, edited[3:], strict=False))


def test_a_step_stands_in_the_thread_at_once_although_the_card_waits(store: Database) -> None:
    world = World(store, edit_every=3)
    job = world.accept()
    world.worker.lanes.drain()
    world.clock.advance(2.5)
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.worker.lanes.drain()
    assert world.thread[-1].startswith("Running")
    (card,) = world.chat.cards
    assert card.story.job.started_at is None
    world.settle()
    assert card.story.job.started_at


# Why am I waiting


def test_a_job_that_waits_for_long_says_once_why_and_who_can_help(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE)
    world.clock.advance(599)
    why = "AWS has no free machine of the kind it needs just now."
    world.see(job, JobState.RUNNABLE, reason=why)
    world.settle()
    assert world.thread == [f"Accepted as job {job.id}."]
    for _ in range(3):
        world.clock.advance(60)
        world.see(job, JobState.RUNNABLE, reason=why)
        world.settle()
    assert world.thread[1:] == [f"Waiting to run for 10 min 59 s. {why}"]
    assert world.chat.replies[-1].story.helpers == (ADMIN,)
    assert world.chat.cards[0].story.job.waiting == why
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.settle()
    assert world.thread[-1].startswith("Running, after waiting")


def test_a_compute_that_gives_no_cause_is_said_to_give_none(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE)
    world.clock.advance(700)
    world.see(job, JobState.RUNNABLE)
    world.settle()
    assert "Compute gives no cause" in world.thread[-1]


# Lists


def test_lists_are_of_mine_all_running_and_failed_the_newest_first_in_pages(world: World) -> None:
    jobs = []
    for number in range(25):
        actor = OWNER if number % 2 else OTHER
        jobs.append(world.accept(x=f"0,{number + 1}", actor=actor))
        world.clock.advance(1 if number != 10 else 0)  # two of the same moment
    world.settle()
    for job in jobs[:4]:
        world.see(job, JobState.FAILED)
    newest = sorted((job.accepted_at, job.id) for job in jobs)[::-1]

    def ids(which: Which, *, actor: str = OWNER) -> list[str]:
        found: list[str] = []
        while True:
            page = world.queries.page(which, actor=actor, before=found[-1] if found else None, most=4)
            assert len(page.jobs) <= 4
            found += [job.id for job in page.jobs]
            if not page.more:
                return found

    everyone = [name for _, name in newest]
    mine = {job.id for job in jobs[1::2]}
    over = {job.id for job in jobs[:4]}
    assert ids(Which.ALL) == everyone
    assert ids(Which.MINE) == [name for name in everyone if name in mine]
    assert ids(Which.RUNNING) == [name for name in everyone if name not in over]
    assert ids(Which.FAILED) == [name for name in everyone if name in over]
    assert ids(Which.MINE_RUNNING) == [name for name in everyone if name in mine - over]
    assert ids(Which.MINE_FAILED) == [name for name in everyone if name in mine & over]


def test_a_wrong_name_gets_the_nearest_ones(world: World) -> None:
    job = world.accept()
    assert world.queries.named(f" `{job.id.upper()}` ", actor=OWNER).id == job.id
    swapped = job.id[1] + job.id[0] + job.id[2:]
    for slip in (job.id[:-1], job.id + "7", job.id[:3] + "~"[:0] + "0" + job.id[4:], job.id[:4], swapped):
        if slip == job.id:
            continue
        with pytest.raises(UnknownJob, match=f"did you mean .*{job.id}"):
            world.queries.named(slip, actor=OWNER)
    with pytest.raises(UnknownJob, match="stands on its card"):
        world.queries.named("<!channel> or something quite different", actor=OWNER)


# The home tab


def open_home(world: World) -> None:
    world.people.opened_home(OWNER)


def test_the_home_tab_follows_its_owner_s_jobs_while_it_may_be_open(world: World) -> None:
    open_home(world)
    job = world.running()
    assert world.chat.homes[OWNER][-1].running[0].state is JobState.RUNNING
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    last = world.chat.homes[OWNER][-1]
    assert ([j.id for j in last.running], [j.id for j in last.recent]) == ([], [job.id])
    assert set(world.chat.homes) == {OWNER}


def test_a_job_stands_in_the_home_tab_as_soon_as_it_is_accepted(world: World) -> None:
    open_home(world)
    world.compute.fail_next(Unavailable("AWS is away"), call="submit")
    job = world.accept()
    world.worker.lanes.drain()
    assert [one.id for one in world.chat.homes[OWNER][-1].running] == [job.id]
    assert world.chat.homes[OWNER][-1].running[0].state is JobState.ACCEPTED


def test_a_home_tab_that_nobody_opened_or_not_today_is_left_alone(world: World) -> None:
    world.running()
    assert not world.chat.homes
    open_home(world)
    world.clock.advance(timedelta(hours=13).total_seconds())
    world.running()
    assert not world.chat.homes


def test_many_changes_at_once_are_shown_once_and_at_most_every_three_seconds(store: Database) -> None:
    world = World(store, edit_every=3)
    open_home(world)
    jobs = [world.accept() for _ in range(20)]
    world.worker.lanes.drain()
    assert len(world.chat.homes[OWNER]) == 1
    for job in jobs:
        world.see(job, JobState.RUNNING)
    world.worker.lanes.drain()
    assert len(world.chat.homes[OWNER]) == 1
    world.clock.advance(3.5)
    world.worker.lanes.drain()
    assert len(world.chat.homes[OWNER]) == 2
    assert world.rows.open_effects() == 0
    assert all(job.state is JobState.RUNNING for job in world.chat.homes[OWNER][-1].running)
    assert world.chat.homes[OWNER][-1].running_in_all == 20


def test_somebody_who_left_the_workspace_holds_nothing_up(world: World) -> None:
    open_home(world)
    world.chat.fail_next(Refused("Slack answered user_not_found to views.publish."), call="show_home", times=100)
    job = the_whole_way(world)
    assert world.job(job).state is JobState.SUCCEEDED
    assert "Finished" in world.thread[-1]
    assert len(world.mailer.sent) == 2
    assert world.rows.open_effects() == 0


@pytest.mark.parametrize("call", ["edit_card", "post_reply", "edit_reply", "post_card"])
def test_a_thread_or_channel_that_is_gone_loses_no_state_and_no_mail(world: World, call: str) -> None:
    world.chat.fail_next(Refused("Slack answered channel_not_found."), call=call, times=100)
    job = the_whole_way(world, JobState.FAILED)
    assert world.job(job).state is JobState.FAILED
    assert len(world.mailer.sent) == 2
    assert world.rows.open_effects() == 0


def test_five_hundred_jobs_of_one_person_are_all_followed(store: Database) -> None:
    world = World(store, edit_every=3)
    open_home(world)
    prefer(world, mail=False)
    told = [None] * 19 + ["C01GENERAL"]  # every twentieth in a channel
    jobs = [world.accept(x=f"0,{number + 1}", channel=told[number % 20]) for number in range(500)]
    world.settle()
    for job in jobs:
        world.compute.tell(job.name, Observation(JobState.RUNNING))
    assert world.worker.watcher.watch_once() == 500
    world.settle()
    home = world.queries.home(OWNER)
    assert (len(home.running), home.running_in_all) == (10, 500)
    assert {world.job(job).state for job in jobs} == {JobState.RUNNING}
    assert [card.story.job.state for card in world.chat.cards] == [JobState.RUNNING] * 25


# Followers

FOLLOWER = "U07FOLLOWER"


def follow(world: World, person: str = FOLLOWER) -> Followed:
    """Submit the work that is being done already, twice, and ask to be told of its end."""
    asked = world.submit(key=f"view:{person}", actor=person)
    assert isinstance(asked, Question)
    assert asked.twin_runs
    form = Form(values=a_request().typed, token=SecretStr(TOKEN), agreed=asked.digest)
    first, again = (world.submission.submit(form, actor=person, key=f"view:{person}", within=0.01) for _ in range(2))
    assert isinstance(first, Followed)
    assert first == again
    return first


def ended_in_silence(world: World) -> None:
    """A job with a follower ends while Slack does not answer who may see it."""
    job = world.accept()
    world.settle()
    follow(world)
    world.workspace.silent = True
    world.see(job, JobState.SUCCEEDED, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle(patience=30)


def finish(world: World, job: Job) -> None:
    world.see(job, JobState.SUCCEEDED, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle()


def test_who_asked_to_be_told_of_the_same_work_is_named_at_its_end_and_gets_a_mail(world: World) -> None:
    world.workspace.mails[FOLLOWER] = "follower@example.org"
    world.workspace.names[OWNER] = "Dana Demo"
    job = world.accept()
    world.settle()
    assert follow(world).job.id == job.id
    assert world.rows.count() == 1
    finish(world, job)
    assert list(world.chat.replies[-1].story.mentions) == [OWNER, FOLLOWER]
    (mail,) = [mail for mail in world.mailer.sent if mail.to == "follower@example.org"]
    assert "The NOMADS job that Dana Demo asked for has ended." in mail.text
    assert len(world.mailer.sent) == 3


def test_a_follower_is_told_though_the_owner_wants_to_hear_of_failures_only(world: World) -> None:
    prefer(world, steps=Steps.FAILURES, mail=False)
    job = world.accept()
    world.settle()
    follow(world)
    finish(world, job)
    (end,) = world.chat.replies
    assert list(end.story.mentions) == [FOLLOWER]


def test_a_follower_who_may_not_see_the_job_any_more_gets_no_mail(world: World) -> None:
    world.workspace.mails[FOLLOWER] = "follower@example.org"
    job = world.accept()
    world.settle()
    follow(world)
    world.workspace.standings[FOLLOWER] = Standing.GUEST
    finish(world, job)
    assert "follower@example.org" not in [mail.to for mail in world.mailer.sent]


def test_a_follower_who_has_left_the_private_channel_is_not_named_there_at_the_end(world: World) -> None:
    channel, stays = "C01PILOT", "U08MEMBER"
    world.workspace.private[channel] = {OWNER, FOLLOWER, stays}
    job = world.submit(key="k", channel=channel)
    assert isinstance(job, Job)
    world.settle()
    for person in (FOLLOWER, stays):
        with world.store.begin() as transaction:
            transaction.followers.add(job.id, person)
    world.workspace.private[channel].discard(FOLLOWER)
    finish(world, job)
    assert list(world.chat.replies[-1].story.mentions) == [OWNER, stays]


def test_a_follower_of_whom_slack_does_not_tell_at_the_end_is_not_named(world: World) -> None:
    ended_in_silence(world)
    assert list(world.chat.replies[-1].story.mentions) == [OWNER]


def test_a_follower_who_wants_no_mail_is_only_named(world: World) -> None:
    world.workspace.mails[FOLLOWER] = "follower@example.org"
    world.people.prefer(FOLLOWER, mail=False)
    job = world.accept()
    world.settle()
    follow(world)
    finish(world, job)
    assert FOLLOWER in world.chat.replies[-1].story.mentions
    assert "follower@example.org" not in [mail.to for mail in world.mailer.sent]


def test_who_asked_to_be_told_of_an_end_does_not_run_it_again_where_it_has_ended_meanwhile(world: World) -> None:
    job = world.accept()
    world.settle()
    asked = world.submit(key="view:V", actor=FOLLOWER)
    assert isinstance(asked, Question)
    finish(world, job)
    form = Form(values=a_request().typed, token=SecretStr(TOKEN), agreed=asked.digest)
    again = world.submission.submit(form, actor=FOLLOWER, key="view:V", within=0.01)
    assert isinstance(again, Question)
    assert not again.twin_runs
    assert world.rows.count() == 1


def test_a_follower_s_mail_waits_while_slack_does_not_say_whether_they_may_see_the_job(world: World) -> None:
    world.workspace.mails[FOLLOWER] = "follower@example.org"
    ended_in_silence(world)
    assert "follower@example.org" not in [mail.to for mail in world.mailer.sent]
    world.workspace.silent = False
    world.settle()
    assert "follower@example.org" in [mail.to for mail in world.mailer.sent]


def test_a_follower_s_mail_waits_for_an_address_that_slack_tells_later_than_who_they_are(world: World) -> None:
    world.workspace.mails[FOLLOWER] = None
    job = world.accept()
    world.settle()
    follow(world)
    finish(world, job)
    assert [mail.to for mail in world.mailer.sent] == ["demo@example.org"] * 2
    world.workspace.mails[FOLLOWER] = "follower@example.org"
    world.settle()
    assert [mail.to for mail in world.mailer.sent][2:] == ["follower@example.org"]


def test_nobody_follows_a_job_that_they_may_not_see(world: World) -> None:
    other = "U08MEMBER"
    world.workspace.private["C01PILOT"] = {OWNER, other}
    job = world.submit(key="k", channel="C01PILOT")
    assert isinstance(job, Job)
    asked = world.submit(key="view:M", actor=other)
    assert isinstance(asked, Question)
    form = Form(values=a_request().typed, token=SecretStr(TOKEN), agreed=asked.digest)
    with pytest.raises(InvalidRequest) as refused:
        world.submission.submit(form, actor=FOLLOWER, key="view:F", within=0.01)
    assert job.id not in str(refused.value)


def test_one_s_own_work_needs_no_follower(world: World) -> None:
    job = world.accept()
    world.settle()
    follow(world, OWNER)
    finish(world, job)
    assert list(world.chat.replies[-1].story.mentions) == [OWNER]


def test_where_mail_is_off_no_address_is_asked_for(store: Database) -> None:
    world = World(store, mails=False)
    job = world.submit(key="view:V", email="")
    assert isinstance(job, Job)
    world.settle()
    finish(world, job)
    assert not world.mailer.sent
    assert not world.queries.home(OWNER).mails
    with pytest.raises(InvalidRequest, match="Write the address the results should be mailed to"):
        World(store).submit(key="view:W", email="")
