"""`kill -9` at any moment: nothing is lost, no program runs twice, no message is posted twice.

The bot is a real process, its programs are real subprocesses, and what dies is started again on the same data folder.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from bot.domain.job import Job
from sandbox.house import House
from tests.support.processes import Bot, Lab
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One data folder for all: the bot that a test starts last is the one that the next test kills."""
    with House(ack_timeout=PATIENCE) as house, Lab(house, tmp_path_factory.mktemp("crashes")) as lab:
        yield lab


def assert_all_was_done_once(lab: Lab, job: Job) -> None:
    """The job succeeded, its program ran once, and each step of it was told once."""
    assert not lab.not_done_once([job]), lab.said


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
    database = lab.data / "nomads.db"
    with closing(sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def when_the_form_has_just_closed(lab: Lab, bot: Bot) -> None:
    lab.submit()
    bot.kill()


def when_the_program_was_started_and_nobody_has_written_it_down(lab: Lab, bot: Bot) -> None:
    with ExitStack() as until_the_end:
        with locked(lab.data / "runs" / ".lock"):
            lab.submit()
            until(lambda: lab.tried("submit"), within=PATIENCE, what="the submission")
            until_the_end.enter_context(nobody_writes(lab))
        started = lab.data / "runs" / lab.newest.name / "started"
        until(started.exists, within=PATIENCE, what="the program's start")
        bot.kill()
        assert lab.newest.compute_id is None


def when_the_card_was_posted_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.lose_answer("chat.postMessage")
    lab.submit()
    job = lab.newest
    lab.slack.wait_for(lambda: lab.card(job), PATIENCE)
    bot.kill()


def when_a_reply_was_posted_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.delay("chat.postMessage", 0.3)
    lab.submit()
    job = lab.newest
    lab.slack.wait_for(lambda: lab.card(job), PATIENCE)
    lab.slack.lose_answer("chat.postMessage")
    lab.slack.wait_for(lambda: lab.replies(job), PATIENCE)
    bot.kill()
    lab.slack.delay("chat.postMessage", 0)


def while_the_program_runs(lab: Lab, bot: Bot) -> None:
    lab.submit(collection="waits")
    lab.running(lab.newest)
    bot.kill()


def and_the_program_ends_before_anybody_looks(lab: Lab, bot: Bot) -> None:
    lab.submit(collection="waits")
    lab.running(lab.newest)
    bot.kill()
    lab.let_go(lab.newest)
    until((lab.data / "runs" / lab.newest.name / "exit.json").exists, within=PATIENCE, what="the program's end")


def while_the_results_are_collected(lab: Lab, bot: Bot, *, collection: str = "demo") -> None:
    """What is collected cannot be written down, as if the bot always died just before."""
    change(lab, "CREATE TRIGGER hold BEFORE UPDATE OF summary ON jobs BEGIN SELECT RAISE(ABORT, 'held'); END")
    lab.submit(collection=collection)
    until(lambda: "collect failed" in bot.log.read_text(), within=PATIENCE, what="the results")
    bot.kill()
    change(lab, "DROP TRIGGER hold")
    assert lab.newest.summary is None


def change(lab: Lab, statement: str) -> None:
    with closing(sqlite3.connect(lab.data / "nomads.db", timeout=PATIENCE)) as connection:
        connection.execute(statement)


def when_the_preview_was_shown_and_its_answer_got_lost(lab: Lab, bot: Bot) -> None:
    lab.slack.lose_answer("files.completeUploadExternal")
    lab.submit()
    job = lab.newest
    lab.slack.wait_for(lambda: any(job.id in file.name and file.shared for file in lab.slack.files), PATIENCE)
    bot.kill()


def when_the_last_mail_was_taken_and_not_yet_answered(lab: Lab, bot: Bot) -> None:
    earlier = [job.id for job in lab.jobs]  # a test may have left one for the next bot to end

    def taken() -> None:  # before the server's answer
        subject = str(lab.mail.messages[-1]["Subject"])
        if "finished" in subject and not any(job in subject for job in earlier):
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
    die(lab, lab.living())
    lab.start()
    if lab.newest.request.collection == "waits":
        lab.let_go(lab.newest)
    lab.settle()
    assert_all_was_done_once(lab, lab.newest)
    assert lab.kept_secrets == 0


def test_the_log_of_a_job_that_failed_survives_the_bot_that_fetched_it(lab: Lab) -> None:
    while_the_results_are_collected(lab, lab.living(), collection="fails")
    lab.start()
    job = lab.ended(lab.newest)
    assert job.log_tail == ("progress 0.50 reading", "BOSS refused: <!channel> & more.")
    assert "BOSS refused: &lt;!channel&gt; &amp; more." in lab.thread(job)[-1]
    assert lab.kept_secrets == 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_of_two_bots_on_one_database_either_may_die_at_any_moment(tmp_path: Path, database_url: str) -> None:
    """Replicas behind a load balancer: one is killed after some calls to Slack, another one comes, and so on."""
    moments = Random(20180712)
    key = {"NOMADS_DATABASE_URL": database_url, "NOMADS_SECRET_KEY": "a key for tests only"}
    with House(ack_timeout=PATIENCE) as house, Lab(house, tmp_path, **key) as lab:
        bots = [lab.launch(), lab.launch()]
        for number, collection in enumerate(("waits", "demo", "demo")):
            lab.talk_to(bots[0])
            lab.submit(collection=collection, x=f"0,{512 - number}")  # the same work would not be taken twice
            after_calls(lab, moments.randint(1, 5))
            bots.pop(0).kill()
            bots.append(lab.launch())
        waiting = lab.jobs[0]
        lab.running(waiting)
        lab.let_go(waiting)
        lab.settle()
        for job in lab.jobs:
            assert_all_was_done_once(lab, job)
        assert lab.kept_secrets == 0


def after_calls(lab: Lab, number: int) -> None:
    """Wait until that many more calls have reached Slack."""
    wanted = len(lab.slack.calls) + number
    lab.slack.wait_for(lambda: len(lab.slack.calls) >= wanted, PATIENCE)


def test_a_bot_that_is_asked_to_end_finishes_what_is_under_way(lab: Lab) -> None:
    """SIGTERM while Slack keeps the bot waiting: the answer is waited for and written down."""
    bot = lab.living()
    lab.slack.delay("chat.postMessage", 1)
    lab.submit()
    until(lambda: lab.tried("card"), within=PATIENCE, what="the card")
    bot.process.terminate()
    assert bot.process.wait(PATIENCE) == 0
    lab.slack.delay("chat.postMessage", 0)
    assert lab.rows.message(lab.newest.id, "card")
    assert "Traceback" not in bot.log.read_text()
