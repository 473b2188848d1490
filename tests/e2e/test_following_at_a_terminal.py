"""`python -m bot jobs | status | logs | cancel | retry`, with a bot running beside it and without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.domain.job import Job
from bot.domain.states import JobState
from bot.domain.work import LogLine
from bot.terminal import following, submit
from bot.terminal.following import overlap
from sandbox.house import House
from tests.support.processes import Lab, Said, an_order
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def lab(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(submit, "LOOK", 0.04)  # of commands in this process: not to wait where nothing comes any more
    monkeypatch.setattr(following, "LOOK", 0.04)
    with Lab(house, tmp_path) as lab:
        yield lab


def said(lab: Lab, *arguments: str) -> Said:
    """What a command exits with, prints, and says on stderr."""
    found = lab.here(*arguments)
    assert "Traceback" not in found.err
    assert "demo-token" not in found.out + found.err
    return found


def submitted(lab: Lab, collection: str = "demo", *more: str) -> Job:
    code, _, err = said(lab, "submit", *an_order(collection=collection), *more)
    assert code in (0, 1), err
    return lab.newest


def test_help_names_them(lab: Lab) -> None:
    with lab.command("--help") as process:
        out, _ = process.communicate(timeout=PATIENCE)
    for command in ("jobs", "status", "logs", "cancel", "retry"):
        assert f"\n    {command} " in out


def test_without_a_bot_a_running_job_is_listed_read_cancelled_and_tried_again(lab: Lab) -> None:
    job = submitted(lab, "waits")
    until((lab.results(job) / "starts").exists, within=PATIENCE, what="the program")

    code, out, _ = said(lab, "jobs", "--json")
    (one,) = [json.loads(line) for line in out.splitlines()]
    assert (code, one["job"], one["collection"], one["x"]) == (0, job.id, "waits", "0, 8")
    assert "email" not in one
    assert said(lab, "logs", job.id)[1].endswith("progress 0.50 reading\n")

    code, out, _ = said(lab, "cancel", job.id)
    assert (code, out) == (0, f"Job {job.id}: cancelled.\n")
    assert lab.newest.state is JobState.CANCELLED
    reason = json.loads((lab.data / "runs" / job.name / "exit.json").read_text())["reason"]
    assert reason.startswith("Cancelled from NOMADS")

    code, _, err = said(lab, "cancel", job.id)
    assert (code, err.strip()) == (1, f"Job {job.id} has ended already: cancelled. Nothing was cancelled.")
    code, out, _ = said(lab, "status", job.id)
    assert code == 1
    assert out.startswith(f"Job {job.id}: cancelled\n")
    assert "Accepted as job" in out

    code, _, err = said(lab, "retry", job.id)
    assert code == 0, err
    again = lab.newest
    assert (again.attempt, again.retry_of) == (2, job.id)
    assert said(lab, "retry", job.id)[0] == 0, "asked again, it is the same job"
    assert lab.newest.id == again.id
    said(lab, "cancel", again.id)


def test_a_retry_that_cannot_help_says_why_and_what_to_do_and_how_it_is_had_all_the_same(lab: Lab) -> None:
    lab.start()
    lab.submit(collection="refused")
    job = lab.newest
    lab.settle()
    code, _, err = said(lab, "retry", job.id)
    assert code == 1
    assert "would fail again with nothing changed: BOSS refused the token." in err
    assert err.endswith(f"If that is mended: nomads retry {job.id} --anyway\n")
    assert lab.newest.id == job.id
    said(lab, "retry", job.id, "--anyway")
    assert lab.newest.retry_of == job.id
    lab.settle()


def test_beside_a_running_bot_a_job_from_slack_is_cancelled_once(lab: Lab) -> None:
    lab.start()
    lab.submit(collection="waits")
    job = lab.newest
    lab.running(job)
    code, out, _ = said(lab, "cancel", job.id)
    assert (code, out) == (0, f"Job {job.id}: cancelled.\n")
    lab.settle()
    until(lambda: "Cancelled" in lab.card(job), within=PATIENCE, what="the card")
    assert lab.newest.cancelled_by
    assert lab.newest.cancelled_by.startswith("cli:")


def test_with_the_bot_dead_a_job_from_slack_is_ended_all_the_same_and_told_later(lab: Lab) -> None:
    lab.start()
    lab.submit(collection="waits")
    job = lab.newest
    lab.running(job)
    lab.bots[-1].kill()
    code, out, err = said(lab, "cancel", job.id)
    assert (code, out) == (0, f"Job {job.id}: cancelled.\n"), err
    assert (lab.data / "runs" / job.name / "exit.json").exists()
    code, _, err = said(lab, "retry", job.id)
    assert code == 0, err
    again = lab.newest
    assert again.compute_id, "it runs, although its card waits for a bot"
    lab.start()
    for words in ("Cancelled by cli:", f"attempt 2, after job `{job.id}`"):
        until(lambda words=words: words in json.dumps(lab.slack.messages("#synapses")), within=PATIENCE, what=words)  # type: ignore[misc]
    said(lab, "cancel", again.id)


def test_a_log_is_followed_to_its_end_each_line_once(lab: Lab) -> None:
    job = submitted(lab, "waits")
    log = lab.data / "runs" / job.name / "log"
    until(lambda: log.exists() and log.read_text(), within=PATIENCE, what="the program's words")
    with lab.command("logs", job.id, "--follow") as process:
        assert process.stdout
        assert process.stdout.readline().endswith("progress 0.50 reading\n")
        with log.open("a") as file:
            file.write("".join(f"line {n}\n" for n in range(300)) + "a token: demo-token\n")
        lab.let_go(job)
        out = process.stdout.read()  # communicate() would leave out what was read ahead
        process.wait(PATIENCE)
    assert process.returncode == 0, out
    lines = [line.partition(" ")[2] for line in out.splitlines()]
    assert lines[:-1] == [f"line {n}" for n in range(300)]
    assert lines[-1] in ("a token: •••", "a token: **********"), "as it is read, or as it was struck out at the end"
    assert lab.newest.state is JobState.SUCCEEDED


def test_a_log_that_is_written_line_by_line_is_printed_line_by_line(lab: Lab) -> None:
    job = submitted(lab, "waits")
    log = lab.data / "runs" / job.name / "log"
    until(lambda: log.exists() and log.read_text(), within=PATIENCE, what="the program's words")
    with log.open("a") as file:
        file.write("token demo-token\n")
    with lab.command("logs", job.id, "--follow") as process:
        assert process.stdout
        process.stdout.readline()
        for number in range(10):
            with log.open("a") as file:
                file.write(f"line {number}\n")
            if number:
                line = process.stdout.readline()
                while not line.endswith(f"line {number - 1}\n"):
                    assert "token •••" in line, line
                    line = process.stdout.readline()
        lab.let_go(job)
        rest = process.stdout.readlines()  # communicate() would leave out what was read ahead
        process.wait(PATIENCE)
    assert process.returncode == 0
    assert [line.partition(" ")[2] for line in rest] == ["line 9\n"]


def test_lists_are_by_state_in_pages(lab: Lab) -> None:
    for collection in ("demo", "fails", "demo"):
        submitted(lab, collection, "--wait", "--again")
    newest = [job.id for job in lab.jobs][::-1]
    code, out, err = said(lab, "jobs", "--limit", "2")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == newest[:2]
    assert f"--before {newest[1]}" in err
    _, out, err = said(lab, "jobs", "--limit", "2", "--before", newest[1])
    assert [line.split()[0] for line in out.splitlines()] == newest[2:]
    assert "--before" not in err
    _, out, _ = said(lab, "jobs", "--state", "failed")
    assert [line.split()[0] for line in out.splitlines()] == [newest[1]]
    code, _, err = said(lab, "jobs", "--state", "gone")
    assert code == 2
    assert err.startswith("state: There is no state gone; there is accepted, submitted,")
    code, _, err = said(lab, "status", newest[0][:-1])
    assert (code, err.strip()) == (2, f"There is no job “{newest[0][:-1]}”; did you mean {newest[0]}?")


AT = datetime(2026, 1, 1, tzinfo=UTC)


def lines(*numbers: int, last: str = "") -> list[LogLine]:
    found = [LogLine(f"line {n}", AT + timedelta(seconds=n)) for n in numbers]
    return [*found, LogLine(last)] if last else found


@pytest.mark.parametrize(
    ("seen", "found", "known"),
    [
        (lines(), lines(1, 2), 0),
        (lines(1, 2), lines(1, 2), 2),
        (lines(1, 2), lines(1, 2, 3), 2),
        (lines(1, 2, 3), lines(2, 3, 4), 2),
        (lines(1, last="gro"), lines(1, last="grown"), 2),
        (lines(1, 2), lines(7, 8), 0),
        (lines(1, 1, 1), lines(1, 1, 2), 2),
    ],
)
def test_what_was_seen_of_a_log_is_known_again(seen: list[LogLine], found: list[LogLine], known: int) -> None:
    assert overlap(seen, found) == known
