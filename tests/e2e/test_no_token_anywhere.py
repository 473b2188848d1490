"""A canary for a token: two jobs of a real bot that logs all it can, and then a search wherever something may lie."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.domain.job import Job
from bot.domain.states import JobState
from sandbox.aws import AwsStandIn
from sandbox.boss import Access
from sandbox.house import House
from sandbox.slack import SlackStandIn
from tests.support.aws import BUCKET, write_log, write_result
from tests.support.processes import Lab, an_order, read_terminal
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def house(canary: str) -> Iterator[House]:
    with House(ack_timeout=PATIENCE) as house:
        house.boss.tokens[canary] = Access(user="demo", write=frozenset({"*"}))
        yield house


@pytest.fixture
def canary() -> str:
    """A token that occurs nowhere else in the world."""
    return f"canary-{secrets.token_hex(16)}"


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below the folder: database and its log, runs, results, what processes said."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def all_of_slack(slack: SlackStandIn) -> Iterator[tuple[str, bytes]]:
    """Every call the bot made, with what it sent, and all that people can see."""
    for call in slack.calls:
        yield f"call of {call.method}", repr(call).encode()
    for channel in slack.workspace.channels:
        yield f"messages in {channel}", repr(slack.messages(channel)).encode()
    for member in slack.workspace.members:
        yield f"what {member} is shown", repr((slack.ephemerals(member), slack.home_of(member))).encode()
    for file in slack.files:
        yield f"file {file.name}", file.content or b""


def processes() -> dict[int, str]:
    """The command line of every process of this machine."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
    return found


def everywhere(lab: Lab, folder: Path) -> dict[str, bytes]:
    """All places, with what lies there."""
    places = dict(files_of(folder))
    places |= {f"{number}. {name}": content for number, (name, content) in enumerate(all_of_slack(lab.slack))}
    places |= {f"mail {number}": bytes(mail) for number, mail in enumerate(lab.mail.messages)}
    return places


def holding(text: str, places: dict[str, bytes]) -> list[str]:
    """The names of the places that hold the text."""
    return [name for name, content in places.items() if text.encode() in content]


def assert_nowhere(canary: str, places: dict[str, bytes], *, job: Job) -> None:
    """The canary is in none of the places, which are the right ones: they all know the job."""
    known = " ".join(holding(job.id, places))
    for place in ("nomads.db", "call of chat.postMessage", "messages in", "mail"):
        assert place in known
    assert holding(canary, places) == []


def test_no_token_is_left_on_this_machine_in_slack_or_in_mail(house: House, tmp_path: Path, canary: str) -> None:
    """Over HTTP, with programs on this machine; one of them prints its token."""
    with Lab(house, tmp_path, NOMADS_LOG_LEVEL="DEBUG") as lab:
        bot = lab.start()
        lab.submit(token=canary, collection="waits")
        lab.submit(token=canary, collection="prints")
        waits, prints = lab.jobs
        lab.running(waits)
        seen = processes()
        assert any("quick.py" in line and "--col waits" in line for line in seen.values())
        assert not [line for line in seen.values() if canary in line]
        lab.let_go(waits)
        lab.settle()
        assert [job.state for job in lab.jobs] == [JobState.SUCCEEDED, JobState.FAILED]
        assert "token ***" in lab.thread(prints)[-1]
        assert "token ***" in (lab.data / "runs" / prints.name / "log").read_text()
        assert_nowhere(canary, everywhere(lab, tmp_path), job=prints)
        bot.process.terminate()
        bot.process.wait(PATIENCE)
        assert_nowhere(canary, everywhere(lab, tmp_path), job=prints)


def test_no_token_is_left_in_aws_but_in_secrets_manager(house: House, tmp_path: Path, canary: str) -> None:
    """Over Socket Mode, with AWS Batch; one of the programs prints its token."""
    with (
        AwsStandIn(programs=False, bucket=BUCKET) as aws,
        Lab(house, tmp_path, NOMADS_LOG_LEVEL="DEBUG", **aws.environment) as lab,
    ):
        bot = lab.launch(SLACK_APP_TOKEN=lab.slack.app_token, NOMADS_IMAGES=json.dumps({"quick": "example/quick:1"}))
        assert bot.url
        lab.slack.wait_for_connection(PATIENCE)
        lab.submit(token=canary)
        lab.submit(token=canary, collection="prints")
        until(lambda: all(job.compute_id for job in lab.jobs), within=PATIENCE, what="the submissions")
        good, bad = lab.jobs
        assert good.compute_id
        assert bad.compute_id
        assert not [line for line in processes().values() if canary in line]

        # What the containers would do.
        write_result(good.folder, "results.json", b'{"counts": {"synapses": 7}}')
        aws.move(good.compute_id, JobState.SUCCEEDED)
        write_log(bad.compute_id, "reading", f"token {canary}")
        aws.move(bad.compute_id, JobState.FAILED, reason="Essential container in task exited", exit_code=1)

        lab.settle()
        assert [job.state for job in lab.jobs] == [JobState.SUCCEEDED, JobState.FAILED]
        assert "token •••" in lab.thread(bad)[-1]
        assert lab.kept_secrets == 0
        assert_nowhere(canary, everywhere(lab, tmp_path), job=bad)

        batch = aws.client("batch")
        ids = [good.compute_id, bad.compute_id]
        described = repr([batch.describe_jobs(jobs=ids), batch.describe_job_definitions()])
        assert "BOSS_TOKEN" in described
        assert canary not in described
        asked = {operation for operation, _ in aws.heard}
        assert {"/v1/submitjob", "/v1/registerjobdefinition"} <= asked
        by_program = "Logs_20140328.PutLogEvents"  # what the test printed in the container's place
        told = {operation for operation, body in aws.heard if canary.encode() in body}
        assert told - {by_program} == {"secretsmanager.CreateSecret"}
        lab.slack.drop_connections()


def test_the_command_line_asks_for_the_token_and_repeats_it_nowhere(house: House, tmp_path: Path, canary: str) -> None:
    """On a terminal of its own, as a person has one; the program prints the token."""
    with Lab(house, tmp_path, NOMADS_LOG_LEVEL="DEBUG") as lab:
        ours, theirs = os.openpty()
        wanted = an_order(collection="prints")
        with lab.command("submit", *wanted, "--wait", "--json", token="", terminal=theirs) as process:
            os.close(theirs)
            asked = read_terminal(ours, until_it_says="BOSS token: ")
            os.write(ours, f"{canary}\n".encode())
            said = asked + read_terminal(ours)
        os.close(ours)
        assert process.returncode == 1, said
        assert "token ***" in said
        assert canary not in said
        places = dict(files_of(tmp_path))
        assert holding("cli:", places)
        assert holding(canary, places) == []
