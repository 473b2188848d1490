"""What goes wrong in the world, met by one bot that runs through all of it, with real programs, chat and mail."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bot.domain.job import Job
from bot.domain.states import JobState
from sandbox.boss import Access
from sandbox.house import ROOT, House
from sandbox.volumes import Bricks, cortex
from tests.support.app import PROGRAMS
from tests.support.processes import Lab
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A bot that offers the real pipeline and the quick one of the tests."""
    folder = tmp_path_factory.mktemp("bad-days")
    for entry in (PROGRAMS / "quick", ROOT / "pipelines" / "unsupervised"):
        (folder / "pipelines" / entry.name).mkdir(parents=True)
        (folder / "pipelines" / entry.name / "pipeline.toml").write_text((entry / "pipeline.toml").read_text())
    settings = {
        "NOMADS_PIPELINES": str(folder / "pipelines"),
        "NOMADS_LOST_AFTER": "0",
        "NOMADS_LOCAL_SLOTS": "3",
    }
    small = cortex(shape=(32, 512, 512))  # the usual one's sections take four times as long to be registered
    with House(ack_timeout=PATIENCE, demo=small) as house, Lab(house, folder, **settings) as lab:
        lab.start()
        yield lab


def a_job(lab: Lab, **typed: str) -> Job:
    """Submit as a person would: the quick pipeline, unless another one is chosen."""
    lab.submit(**{"pipeline": "quick", **typed})
    return lab.newest


def state(lab: Lab, job: Job) -> JobState:
    return lab.rows.job(job.id).state


def mails(lab: Lab, job: Job) -> list[tuple[str, str]]:
    """Subject and text of each mail about the job, repeated ones once."""
    found = {str(m["Message-ID"]): m for m in lab.mail.messages if job.id in str(m["Subject"])}
    bodies = [(str(m["Subject"]), m.get_body(("plain",))) for m in found.values()]
    return [(subject, body.get_content() if body else "") for subject, body in bodies]


@pytest.mark.parametrize(
    ("gone", "code", "reason"),
    [
        ("token", 3, "BOSS refused the token"),
        ("experiment", 2, "The collection “lab” has no experiment “shortlived”; it has none."),
    ],
)
def test_what_is_gone_between_form_and_run_ends_the_job_within_seconds_and_says_why(
    lab: Lab, gone: str, code: int, reason: str
) -> None:
    boss = lab.house.boss
    channels = {name: Bricks("uint8") for name in ("PSD95", "Synapsin")}
    boss.add("lab", "shortlived", shape=(8, 64, 64), channels=channels)
    boss.tokens["passing"] = Access(user="demo", write=frozenset({"*"}))
    typed = {"collection": "lab", "experiment": "shortlived", "x": "0,64", "y": "0,64", "z": "0,8"}
    lab.ended(a_job(lab, token="passing", **typed))  # from now on the bot knows it
    if gone == "token":
        del boss.tokens["passing"]
    else:
        boss._collections["lab"].experiments.clear()
    job = lab.ended(a_job(lab, token="passing", pipeline="nomads-unsupervised", **typed))
    assert job.state is JobState.FAILED
    assert job.exit_code == code
    assert reason in job.reason
    assert job.finished_at
    assert (job.finished_at - job.accepted_at).total_seconds() < 30
    assert reason in lab.thread(job)[-1]
    assert "*What next?*" in lab.thread(job)[-1]
    (_, ending) = mails(lab, job)
    assert ending[0].endswith("failed")
    assert reason in ending[1]
    assert "❌ Failed" in lab.card(job)


@contextmanager
def no_mail_server(lab: Lab) -> Iterator[None]:
    """Nobody listens where mail should go, as long as the block lasts."""
    lab.mail.__exit__(None, None, None)
    try:
        yield
    finally:
        lab.mail.__enter__()


def test_mail_that_nobody_takes_holds_nothing_back_and_arrives_later(lab: Lab) -> None:
    with no_mail_server(lab):
        job = a_job(lab)
        until(lambda: len(lab.thread(job)) and "Finished" in lab.thread(job)[-1], within=PATIENCE, what="the thread")
        assert state(lab, job) is JobState.SUCCEEDED
        until(lambda: lab.rows.open_effects(job.id) == 2, within=PATIENCE, what="all but two mails")
        assert not mails(lab, job)
    lab.ended(job)
    assert [subject.rpartition(" ")[2] for subject, _ in mails(lab, job)] == ["accepted", "finished"]


def test_slack_s_patience_is_granted_and_nothing_is_lost(lab: Lab) -> None:
    before = len(lab.slack.calls)
    lab.slack.rate_limit("chat.postMessage", times=2, retry_after=1)
    job = lab.ended(a_job(lab))
    assert job.state is JobState.SUCCEEDED
    calls = [call for call in lab.slack.calls[before:] if call.method == "chat.postMessage"]
    refused = [at for at, call in enumerate(calls) if call.error == "ratelimited"]
    assert len(refused) == 2
    assert all(calls[at + 1].at - calls[at].at >= 1 for at in refused)
    assert "✅ Finished" in lab.card(job)
    assert len(lab.replies(job)) == len(set(lab.replies(job)))
    assert "Finished" in lab.thread(job)[-1]


@contextmanager
def locked_by_another_process(database: Path) -> Iterator[None]:
    """Nobody else writes to the database as long as the block lasts."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        yield
        other.communicate()


def test_a_database_that_another_process_keeps_locked_loses_nothing(lab: Lab) -> None:
    job = a_job(lab, collection="waits")
    lab.running(job)
    said = len(lab.said)
    with locked_by_another_process(lab.data / "nomads.db"):
        lab.let_go(job)
        until(lambda: "The database" in lab.said[said:], within=PATIENCE, what="the bot's complaint")
        assert state(lab, job) is JobState.RUNNING
    job = lab.ended(job)
    assert job.state is JobState.SUCCEEDED
    assert (lab.results(job) / "starts").read_text() == "started\n"
    assert len(lab.replies(job)) == len(set(lab.replies(job)))
    assert len(mails(lab, job)) == 2
    with closing(sqlite3.connect(lab.data / "nomads.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_boss_that_hangs_keeps_nobody_waiting_but_its_own_job(lab: Lab) -> None:
    lab.ended(a_job(lab))  # from now on the bot knows the experiment
    with lab.house.boss.hanging():
        stuck = a_job(lab, pipeline="nomads-unsupervised", x="0,64", y="0,64", z="0,8")
        until(lambda: state(lab, stuck) is JobState.RUNNING, within=PATIENCE, what="the program")
        ack = lab.submit(pipeline="quick")
        assert ack.seconds < 3
        other = lab.ended(lab.newest)
        assert other.state is JobState.SUCCEEDED
        assert state(lab, stuck) is JobState.RUNNING
    assert lab.ended(stuck).state is JobState.SUCCEEDED


def test_a_job_that_compute_no_longer_knows_is_lost_and_the_thread_and_the_mail_say_so(lab: Lab) -> None:
    job = a_job(lab, collection="waits")
    lab.running(job)
    (lab.data / "runs" / job.name).rename(lab.data / "forgotten")
    job = lab.ended(job)
    assert job.state is JobState.LOST
    assert "Lost: compute no longer knows this job" in lab.thread(job)[-1]
    assert "Look at the results folder" in lab.thread(job)[-1]
    assert mails(lab, job)[-1][0].endswith("lost")
    lab.let_go(job)
    until((lab.results(job) / "results.json").exists, within=PATIENCE, what="the program's end")
