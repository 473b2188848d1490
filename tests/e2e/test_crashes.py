"""`kill -9` at any moment: nothing is lost, no program runs twice, no message is posted twice.

The bot is a real process, its programs are real subprocesses, and what dies is started again on the same data folder.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from bot.jobs import Job, JobState
from bot.store import secrets
from sandbox.house import House
from tests.support.processes import PATIENCE, Bot, Lab
from tests.support.waiting import until


@pytest.fixture
def house() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
    with Lab(house, tmp_path) as lab:
        yield lab


def assert_all_was_done_once(lab: Lab, job: Job) -> None:
    """The job succeeded, its program ran once, and each step of it was told once."""
    assert job.state is JobState.SUCCEEDED, (job, lab.said)
    assert (lab.results(job) / "starts").read_text() == "started\n"
    (card,) = [card for card in lab.cards() if job.id in card]
    assert "✅ Finished" in card
    replies = lab.replies(job)
    assert sorted(set(replies)) == sorted(replies)
    steps = [line.split()[0].rstrip(",.:") for text in lab.thread(job) for line in text.splitlines()]
    told = Counter(step for step in steps if step in ("Accepted", "Running", "Finished"))
    assert told == {"Accepted": 1, "Running": 1, "Finished": 1}, lab.thread(job)
    assert [file.name for file in lab.slack.files if job.id in file.name] == [f"{job.id}-preview.png"]
    mails = [mail for mail in lab.mail.messages if job.id in str(mail["Message-ID"])]
    subjects = {str(mail["Message-ID"]): str(mail["Subject"]) for mail in mails}
    assert sorted(subjects.values()) == [f"NOMADS job {job.id}: accepted", f"NOMADS job {job.id}: finished"]


# The moments at which the bot is killed


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock."""
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def nobody_writes(lab: Lab) -> Iterator[None]:
    """Lock the database against every writer."""
    connection = sqlite3.connect(lab.data / "nomads.db", isolation_level=None, timeout=PATIENCE)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def when_the_form_has_just_closed(lab: Lab, bot: Bot) -> None:
    lab.submit()
    bot.kill()


def when_the_program_was_started_and_nobody_has_written_it_down(lab: Lab, bot: Bot) -> None:
    with locked(lab.data / "runs" / ".lock"):
        lab.submit()
        until(lambda: lab.tried("submit"), what="the submission")
        started = lab.data / "runs" / lab.job.name / "started"
        writing = nobody_writes(lab)
        writing.__enter__()
    until(started.exists, what="the program's start")
    bot.kill()
    writing.__exit__(None, None, None)
    assert lab.job.compute_id is None


def when_the_card_was_posted_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.lose_answer("chat.postMessage")
    lab.submit()
    lab.slack.wait_for(lab.cards, PATIENCE)
    bot.kill()


def when_a_reply_was_posted_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.delay("chat.postMessage", 0.3)
    lab.submit()
    lab.slack.wait_for(lab.cards, PATIENCE)
    lab.slack.lose_answer("chat.postMessage")
    job = lab.job
    lab.slack.wait_for(lambda: lab.replies(job), PATIENCE)
    bot.kill()


def while_the_program_runs(lab: Lab, bot: Bot) -> None:
    running(lab)
    bot.kill()


def and_the_program_ends_before_anybody_looks(lab: Lab, bot: Bot) -> None:
    running(lab)
    bot.kill()
    (lab.results(lab.job) / "go").touch()
    until((lab.data / "runs" / lab.job.name / "exit.json").exists, what="the program's end")


def running(lab: Lab) -> None:
    lab.submit(collection="waits")
    until(lambda: lab.job.state is JobState.RUNNING, within=PATIENCE, what="the program")


def while_the_results_are_collected(lab: Lab, bot: Bot) -> None:
    """What is collected cannot be written down, as if the bot always died just before."""
    change(lab, "CREATE TRIGGER hold BEFORE UPDATE OF summary ON jobs BEGIN SELECT RAISE(ABORT, 'held'); END")
    lab.submit()
    until(lambda: lab.tried("collect"), within=PATIENCE, what="the results")
    bot.kill()
    change(lab, "DROP TRIGGER hold")
    assert lab.job.summary is None


def change(lab: Lab, statement: str) -> None:
    connection = sqlite3.connect(lab.data / "nomads.db", timeout=PATIENCE)
    connection.execute(statement)
    connection.close()


def when_the_preview_was_shown_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.lose_answer("files.completeUploadExternal")
    lab.submit()
    lab.slack.wait_for(lambda: any(m.get("files") for m in lab.slack.messages("#synapses")), PATIENCE)
    bot.kill()


def when_the_last_mail_was_taken_and_not_yet_answered(lab: Lab, bot: Bot) -> None:
    def taken() -> None:  # before the server's answer
        if "finished" in str(lab.mail.messages[-1]["Subject"]):
            bot.process.kill()

    lab.mail.listen(taken)
    lab.submit()
    bot.process.wait(PATIENCE)


@pytest.mark.parametrize(
    "die",
    [
        when_the_form_has_just_closed,
        when_the_program_was_started_and_nobody_has_written_it_down,
        when_the_card_was_posted_and_its_answer_got_lost,
        when_a_reply_was_posted_and_its_answer_got_lost,
        while_the_program_runs,
        and_the_program_ends_before_anybody_looks,
        while_the_results_are_collected,
        when_the_preview_was_shown_and_its_answer_got_lost,
        when_the_last_mail_was_taken_and_not_yet_answered,
    ],
)
def test_a_bot_that_is_killed_and_started_again_does_everything_once(lab: Lab, die: Callable[[Lab, Bot], None]) -> None:
    die(lab, lab.start())
    lab.start()
    let_go(lab)
    lab.settle()
    assert_all_was_done_once(lab, lab.job)
    assert lab.kept_secrets == 0


def after_calls(lab: Lab, number: int) -> None:
    """Wait until that many more calls have reached Slack."""
    wanted = len(lab.slack.calls) + number
    lab.slack.wait_for(lambda: len(lab.slack.calls) >= wanted, PATIENCE)


def let_go(lab: Lab) -> None:
    """Let programs that wait come to their end."""
    for folder in lab.data.glob("results/*/*"):
        (folder / "go").touch()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_of_two_bots_on_one_database_either_may_die_at_any_moment(
    house: House, tmp_path: Path, database_url: str
) -> None:
    """Replicas behind a load balancer: one is killed after some calls to Slack, another one comes, and so on."""
    moments = Random(20180712)
    key = {"NOMADS_DATABASE_URL": database_url, "NOMADS_SECRET_KEY": "a key for tests only"}
    with Lab(house, tmp_path, **key) as lab:
        bots = [lab.launch(), lab.launch()]
        for collection in ("waits", "demo", "demo"):
            lab.talk_to(bots[0])
            lab.submit(collection=collection)
            after_calls(lab, moments.randint(1, 5))
            bots.pop(0).kill()
            bots.append(lab.launch())
        let_go(lab)
        lab.settle()
        for job in lab.jobs:
            assert_all_was_done_once(lab, job)
        assert len(lab.cards()) == 3
        assert lab.kept_secrets == 0


def test_a_bot_that_is_asked_to_end_finishes_what_is_under_way(lab: Lab) -> None:
    """SIGTERM while Slack keeps the bot waiting: the answer is waited for and written down."""
    bot = lab.start()
    lab.slack.delay("chat.postMessage", 1)
    lab.submit()
    until(lambda: lab.tried("card"), what="the card")
    bot.process.terminate()
    assert bot.process.wait(PATIENCE) == 0
    assert lab.store.message(lab.job.id, "card")
    assert "Traceback" not in lab.said


def test_a_token_that_a_dying_bot_left_behind_is_erased_by_the_next_one(lab: Lab) -> None:
    lab.start().kill()
    lab.store.put_secret("sealed:left-behind", "U01DEMO", b"sealed")
    lab.store.put_secret("sealed:of-a-job-about-to-be-committed", "U01DEMO", b"sealed")
    with lab.store.begin() as transaction:
        left_behind = secrets.c.reference == "sealed:left-behind"
        earlier = datetime.now(UTC) - timedelta(hours=2)
        transaction.connection.execute(sa.update(secrets).where(left_behind).values(created_at=earlier))
    lab.start()
    until(lambda: lab.store.get_secret("sealed:left-behind") is None, what="the sweep")
    assert lab.store.get_secret("sealed:of-a-job-about-to-be-committed")
