"""A card that cannot be posted, and what else was given up: who hears of it, and how it is tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.worker.effects.compute import CHECKS
from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Job
from bot.domain.outbox import Kind
from bot.domain.states import JobState
from bot.domain.summary import Summary, Unreadable
from bot.domain.work import Cause, Progress
from bot.settings import Settings
from bot.storage.engine import Database, connect
from bot.storage.tables import effects
from bot.terminal.admin import doctor, replay
from bot.terminal.serve import running
from tests.support.app import PROGRAMS, Serve, Served
from tests.support.databases import new_sqlite
from tests.support.waiting import until
from tests.support.world import TOKEN, World

OWNER, ADMIN = "U01DEMO", "U03ADMIN"
ARCHIVED = "The channel is archived (Slack answered is_archived to chat.postMessage)."


@pytest.fixture
def world(store: Database) -> World:
    return World(store, admins=[ADMIN])


def unposted(world: World, **changes: Any) -> Job:
    """A job whose card was refused."""
    world.chat.fail_next(Refused(ARCHIVED), call="post_card")
    job = world.accept(**changes)
    world.settle()
    return job


def finish(world: World, job: Job) -> None:
    """Let the job's program find something."""
    world.clock.advance(30)
    world.results.put(job.folder, "results.json", json.dumps({"counts": {"synapses": 12}}).encode())
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.settle()
    world.clock.advance(60)
    world.see(job, JobState.SUCCEEDED, exit_code=0, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle()


def told_alone(world: World) -> list[list[str]]:
    """The texts of the direct messages to the owner, which have none for a card that could not be posted."""
    return [message.texts for message in world.chat.directs]


def given_up(world: World) -> list[str]:
    """The kinds of the effects that were given up, the newest first."""
    with world.store.read() as transaction:
        return [one.kind.value for one in transaction.outbox.given_up()]


# The owner hears of it


def test_the_owner_of_a_job_whose_card_is_refused_hears_of_it_alone_and_once(world: World) -> None:
    job = unposted(world)
    world.settle()

    assert told_alone(world) == [[]]
    (message,) = world.chat.directs
    assert (message.channel, message.key) == (OWNER, f"{job.id}-direct-card")
    assert world.job(job).unposted == ARCHIVED
    assert world.job(job).state is JobState.SUBMITTED
    assert [mail.subject for mail in world.mailer.sent] == [f"NOMADS job {job.id}: accepted"]


def test_a_card_that_stays_without_an_answer_for_days_is_told_as_one_that_was_refused(world: World) -> None:
    world.chat.fail_next(Unavailable("no answer"), call="post_card")
    job = world.accept()
    world.worker.lanes.drain()
    world.nearly_give_up(job)
    world.chat.fail_next(Unavailable("no answer"), call="post_card")
    world.settle()
    assert told_alone(world) == [[]]
    assert "no answer" in world.job(job).unposted


@pytest.mark.parametrize("lost", ["post_direct", "find_direct"])
def test_a_direct_message_whose_answer_was_lost_is_found_and_not_sent_twice(world: World, lost: str) -> None:
    world.chat.fail_after(Unavailable("no answer"), call="post_direct")
    if lost == "find_direct":
        world.chat.fail_next(Unavailable("no answer"), call="find_direct")
    unposted(world)
    assert told_alone(world) == [[]]


def test_the_end_reaches_the_owner_in_a_direct_message_where_there_is_no_thread(world: World) -> None:
    job = unposted(world)
    finish(world, job)

    assert told_alone(world) == [[], ["12 synapses. Finished after 1 min 0 s."]]
    assert not world.chat.cards
    assert not world.chat.replies
    assert world.mailer.sent[-1].subject == f"NOMADS job {job.id}: finished"


def test_a_failure_reaches_the_owner_too_where_there_is_no_thread(world: World) -> None:
    job = unposted(world)
    world.compute.print(job.name, "There is no such channel.")
    world.see(job, JobState.FAILED, exit_code=1, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle()
    assert "There is no such channel." in told_alone(world)[-1][0]


def test_an_end_that_its_thread_no_longer_takes_reaches_the_owner_in_a_direct_message(world: World) -> None:
    job = world.running()
    world.clock.advance(30)
    world.chat.fail_next(Refused(ARCHIVED), call="post_reply")
    finish(world, job)
    assert told_alone(world) == [["12 synapses. Finished after 2 min 0 s."]]
    assert world.job(job).unposted == ""


def test_a_step_before_the_end_that_its_thread_does_not_take_is_no_direct_message(world: World) -> None:
    world.chat.fail_next(Refused(ARCHIVED), call="post_reply")
    world.running()
    assert told_alone(world) == []
    assert given_up(world) == ["reply"]


def test_a_job_from_a_terminal_has_nobody_to_send_a_direct_message_to(world: World) -> None:
    job = unposted(world, actor="cli:demo")
    finish(world, job)
    assert told_alone(world) == []
    assert world.job(job).unposted == ARCHIVED


# Tried again


def test_what_was_given_up_is_kept_and_shown_to_admins_and_to_nobody_else(world: World) -> None:
    job = unposted(world)
    finish(world, job)

    shown = world.queries.home(ADMIN)
    assert shown.given_up_in_all == len(shown.given_up) == 4
    assert {one.job_id for one in shown.given_up} == {job.id}
    assert [one.meaning for one in shown.given_up] == ["reply 3", "reply 2", "reply 1", "card"]
    assert shown.given_up[-1].error == ARCHIVED
    assert world.queries.home(OWNER).given_up == []


def test_a_replay_posts_the_card_and_the_whole_thread_in_order_and_says_what_it_tried_again(world: World) -> None:
    job = unposted(world)
    finish(world, job)

    again = world.ledger.replay(job.id)
    world.settle()

    assert [one.meaning for one in again] == ["card", "reply 1", "reply 2", "reply 3"]
    assert len(world.chat.cards) == 1
    assert world.thread == [
        f"Accepted as job {job.id}.",
        "Running, after waiting 30 s.",
        "12 synapses. Finished after 1 min 0 s.",
    ]
    assert world.job(job).unposted == ""
    assert given_up(world) == []
    assert told_alone(world) == [[], ["12 synapses. Finished after 1 min 0 s."]]
    assert world.ledger.replay() == []


def test_a_replay_looks_first_for_what_may_have_happened_after_all(world: World) -> None:
    """The answer to the card was lost, and it was given up: the card stands in the channel."""
    world.chat.fail_after(Unavailable("no answer"), call="post_card")
    job = world.accept()
    world.worker.lanes.drain()
    world.nearly_give_up(job)
    world.chat.fail_next(Unavailable("no answer"), call="find")
    world.settle()
    assert "card" in given_up(world)

    world.ledger.replay(job.id)
    world.settle()

    assert len(world.chat.cards) == 1
    assert world.thread == [f"Accepted as job {job.id}."]


def test_a_replay_of_what_is_refused_again_tells_the_owner_nothing_twice(world: World) -> None:
    job = unposted(world)
    finish(world, job)
    world.chat.fail_next(Refused(ARCHIVED), call="post_card")
    world.ledger.replay()
    world.settle()
    assert told_alone(world) == [[], ["12 synapses. Finished after 1 min 0 s."]]
    assert world.job(job).unposted == ARCHIVED
    assert len(given_up(world)) == 4


def test_a_replay_of_one_job_leaves_the_others_as_they_are(world: World) -> None:
    first, second = unposted(world), unposted(world)
    world.ledger.replay(first.id)
    world.settle()
    assert world.job(first).unposted == ""
    assert world.job(second).unposted == ARCHIVED


def test_results_that_could_not_be_read_are_told_after_a_replay(world: World) -> None:
    job = world.running()
    world.results.fail_next(Refused("S3 did not give it: no (AccessDenied)"), call="read", times=1)
    world.results.fail_next(Refused("S3 did not list it: no (AccessDenied)"), call="list", times=1)
    finish(world, job)
    assert given_up(world) == ["collect"]
    assert world.job(job).unread

    world.ledger.replay(job.id)
    world.settle()

    assert not world.job(job).unread
    assert "12 synapses" in world.thread[-1]
    ends = [mail.message_id for mail in world.mailer.sent if "mail-finished" in mail.message_id]
    assert len(ends) == 1, "no second mail about the end, which would have the first one's Message-ID"


def test_a_replayed_collection_whose_token_is_gone_tells_no_text_of_the_program(world: World) -> None:
    job = world.running()
    told = {
        "counts": {"synapses": 12, f"about {TOKEN}": 1},
        "density_per_um3": 0.15,
        "files": [{"name": "synapses.csv", "title": TOKEN}, {"name": f"{TOKEN}.csv"}],
        "preview": f"{TOKEN}.png",
        "notes": [f"read with {TOKEN}"],
        "viewer": f"https://viewer.test/#{TOKEN}",
        "written_back": f"lab/predictions/{TOKEN}",
        "versions": {"pipeline": TOKEN},
    }
    world.results.put(job.folder, "results.json", json.dumps(told).encode())
    for name in ("synapses.csv", f"{TOKEN}.csv", "report.html", "own.csv"):
        world.results.put(job.folder, name, b"content")
    world.results.fail_next(Refused("S3 did not give it: no (AccessDenied)"), call="read", times=1)
    world.results.fail_next(Refused("S3 did not list it: no (AccessDenied)"), call="list", times=1)
    world.see(job, JobState.SUCCEEDED, exit_code=0)
    world.settle()
    ended = world.job(job)
    assert ended.token_ref is None
    listed = [file.name for file in world.output.listed(ended, world.results.list(job.folder))]
    assert listed == ["report.html", "results.json", "synapses.csv"]

    world.ledger.replay(job.id)
    world.settle()

    ended = world.job(job)
    assert ended.summary
    assert ended.summary.found == "12 synapses, 0.15 per µm³"
    assert [file.name for file in ended.summary.files] == ["synapses.csv"]
    assert "texts of the program are not shown" in ended.summary.notes[0]
    assert TOKEN not in ended.model_dump_json()
    assert TOKEN not in str(world.thread)
    assert [file.name for file in world.output.listed(ended, world.results.list(job.folder))] == listed


@pytest.mark.parametrize("content", ['{"counts": {"%s": "x"}}', '{"files": [{"name": "%s/.."}]}', '["%s"]', "%s"])
def test_what_is_wrong_with_results_is_not_told_in_their_own_words_once_the_token_is_gone(content: str) -> None:
    with pytest.raises(Unreadable) as unreadable:
        Summary.read((content % TOKEN).encode(), token=None)
    assert str(unreadable.value) == "results.json cannot be used."


def test_a_log_out_of_which_the_token_could_not_be_struck_stays_hidden_after_a_replay(world: World) -> None:
    job = world.running()
    world.logs.print(job.name, f"token {TOKEN}")
    world.logs.fail_next(Refused("The log cannot be written."), call="redact", times=2)
    world.see(job, JobState.FAILED, reason="The machine was lost.", cause=Cause.MACHINE)
    world.settle()
    assert given_up(world) == ["collect"]

    world.ledger.replay(job.id)
    world.settle()

    assert world.output.tail(world.job(job), lines=10) == []
    assert TOKEN not in str(world.thread) + world.job(job).model_dump_json()


@pytest.mark.parametrize("reason", ["The container said {} at its start.", "exec: --token {}: not found", "{}"])
def test_a_reason_of_compute_s_is_told_without_the_token(world: World, reason: str) -> None:
    job = world.running()
    world.see(job, JobState.FAILED, reason=reason.format(TOKEN), cause=Cause.IMAGE)
    world.settle()
    assert world.job(job).reason == reason.format("…")
    assert TOKEN not in str(world.thread) + str(world.chat.cards) + world.mailer.sent[-1].text


def test_a_phase_that_is_the_token_is_masked(world: World) -> None:
    job = world.running()
    assert world.lifecycle.progressed(job.id, Progress(0.42, TOKEN))
    assert not world.lifecycle.progressed(job.id, Progress(0.42, TOKEN)), "nothing is new"
    assert world.job(job).progress == Progress(0.42, "…")


def test_a_replayed_collection_tells_no_follower_of_the_end_twice(world: World) -> None:
    job = world.running()
    world.workspace.mails["U02OTHER"] = "other@example.org"
    with world.ledger.change(job.id) as change:
        change.transaction.followers.add(job.id, "U02OTHER")
    for _ in range(2):  # given up twice
        world.results.fail_next(Refused("S3 did not give it: no (AccessDenied)"), call="read", times=1)
        world.results.fail_next(Refused("S3 did not list it: no (AccessDenied)"), call="list", times=1)
        if not world.job(job).ended:
            finish(world, job)
        else:
            world.ledger.replay(job.id)
            world.settle()
    world.ledger.replay(job.id)
    world.settle()
    sent = [mail.to for mail in world.mailer.sent if "mail-finished" in mail.message_id]
    assert sorted(sent) == ["demo@example.org", "other@example.org"]
    assert "12 synapses" in world.thread[-1]


# What decided what became of a job


def never_submitted(world: World) -> Job:
    """A job that compute refused."""
    world.compute.fail_next(Refused("The queue takes no jobs."), call="submit")
    job = world.accept()
    world.settle()
    assert world.job(job).state is JobState.FAILED
    return job


def test_a_submission_that_was_given_up_is_shown_and_is_not_tried_again_but_the_job_retried(world: World) -> None:
    job = never_submitted(world)
    (shown,) = world.queries.home(ADMIN).given_up
    assert (shown.meaning, shown.error) == ("submission", "The queue takes no jobs.")
    assert shown.instead == f"This is not tried again: the job has ended. Retry the job: nomads retry {job.id}."

    assert world.ledger.replay(job.id) == [shown]
    world.settle()

    assert world.compute.calls.count("submit") == 1
    assert not world.compute.works
    assert world.job(job).state is JobState.FAILED
    assert world.ledger.replay() == [], "it was said what to do"
    assert given_up(world) == []


def test_a_submission_in_doubt_that_was_given_up_runs_at_no_replay(world: World) -> None:
    """Compute took the job, and did not say so for days."""
    world.compute.crash_after_submit()
    world.compute.fail_next(Unavailable("AWS is away"), call="find", times=100)
    job = world.accept()
    world.settle(patience=60)
    world.nearly_give_up(job)
    world.settle()
    assert given_up(world) == ["submit"]
    world.ledger.replay()
    world.settle()
    assert len(world.compute.works) == 1
    assert world.job(job).state is JobState.FAILED


def test_once_its_job_is_retried_a_submission_counts_as_given_up_no_more(world: World) -> None:
    job = never_submitted(world)
    assert given_up(world) == ["submit"]
    world.steering.retry(job.id, actor=OWNER, token=SecretStr("canary-token"), anyway=True)
    world.settle()
    assert world.job(job).retried_as
    assert given_up(world) == []
    assert world.ledger.replay() == []


def test_a_check_that_nobody_answered_is_shown_and_a_request_that_boss_turned_down_is_not(world: World) -> None:
    with world.volumes.hanging("describe"):
        silent = world.submission.accept(world.ask(), actor=OWNER, key="silent")
        wrong = world.submission.accept(world.ask(experiment="none"), actor=OWNER, key="wrong")
    world.volumes.fail_next(Unavailable("BOSS is silent"), call="describe", times=CHECKS)
    with world.store.begin() as transaction:
        last = effects.update().where(effects.c.job_id == silent.id, effects.c.kind == Kind.CHECK.value)
        transaction.connection.execute(last.values(attempts=CHECKS - 1))
    world.worker.lanes.drain(job_id=silent.id)
    world.settle(patience=4 * 3600)
    assert world.job(silent).state is world.job(wrong).state is JobState.FAILED
    (shown,) = world.queries.home(ADMIN).given_up
    assert (shown.job_id, shown.meaning) == (silent.id, "check with BOSS")
    assert "nomads retry" in shown.instead


def test_a_cancellation_that_was_given_up_is_shown_for_as_long_as_the_job_goes_on(world: World) -> None:
    job = world.running()
    world.compute.fail_next(Refused("AWS Batch does not end it."), call="cancel")
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    (shown,) = world.queries.home(ADMIN).given_up
    assert shown.meaning == "cancellation"
    assert shown.instead == f"This is not tried again: the job went on. Cancel it again: nomads cancel {job.id}."
    finish(world, job)
    assert given_up(world) == []


def test_doctor_and_replay_say_what_can_be_done_instead(tmp_path: Path) -> None:
    settings, said = Settings.model_validate({"data": tmp_path, "pipelines": PROGRAMS}), list[str]()
    with closing(Database(connect(new_sqlite(tmp_path / "nomads.db")))) as store:
        world = World(store, admins=[ADMIN])
        job, untold = never_submitted(world), unposted(world)
        instead = (
            f"job {job.id}, submission: The queue takes no jobs. This is not tried again: the job has ended. "
            f"Retry the job: nomads retry {job.id}."
        )
        doctor(settings, say=said.append)
        assert any(line.endswith(instead) for line in said)

        said.clear()
        replay(settings, None, say=said.append)
        (first, *due, last) = said
        assert first.endswith(instead)
        assert all(f"job {untold.id}, " in line for line in due)
        assert last.startswith(f"{len(due)} due again, in this order")

        another = never_submitted(world)
        for last in ("Nothing is due again.", f"Nothing was given up of job {another.id}."):
            said.clear()
            replay(settings, another.id, say=said.append)
            assert said[-1] == last


# In Slack


@pytest.fixture
def served(serve: Serve, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, pipelines=str(PROGRAMS), watch_interval="0.1", mail="off", admins=[OWNER]) as served:
        yield served


def ended(served: Served) -> Job:
    (job,) = served.rows.jobs()
    until(lambda: served.rows.job(job.id).ended and not served.rows.open_effects(job.id), within=60, what="the end")
    return served.rows.job(job.id)


@pytest.mark.parametrize("gone", ["archived", "without the bot"])
def test_with_mail_off_a_job_whose_channel_is_gone_after_its_acceptance_is_not_silent(
    served: Served, gone: str
) -> None:
    channel = "#synapses" if gone == "archived" else "#pilot-data"
    assert served.submit(pipeline="quick", channel=channel).ok
    if gone == "archived":
        served.slack.archive(channel)
    else:
        served.slack.remove(channel)

    with running(served.nomads):
        job = ended(served)
        direct = served.slack.messages("D01DEMO")

        assert job.state is JobState.SUCCEEDED
        assert not served.slack.messages(channel)
        first, last = (json.dumps(message["blocks"], ensure_ascii=False) for message in direct)
        why = "The channel is archived" if gone == "archived" else "The channel is gone, or NOMADS is not in it"
        assert why in first
        assert job.id in first
        assert "Finished after" in last
        assert "All files" in last

        status = json.dumps(served.slack.person().slash("/nomads", f"status {job.id}").body, ensure_ascii=False)
        assert why in status
        served.slack.person().open_home()
        home = str(until(lambda: json.dumps(served.slack.home_of(OWNER), ensure_ascii=False)))
        until(lambda: "Given up" in json.dumps(served.slack.home_of(OWNER), ensure_ascii=False), what="the home tab")
        home = json.dumps(served.slack.home_of(OWNER), ensure_ascii=False)
        assert home.count(why) >= 2  # in the job's line, and in what was given up
        assert "nomads replay" in home
