"""`python -m bot …`, the front end without Slack: what it prints, and what it exits with."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import SecretStr

from bot.__main__ import main
from bot.app import build_core
from bot.domain.errors import Unavailable
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.settings import Settings
from sandbox.house import House
from tests.support import options
from tests.support.app import PROGRAMS, RIGHT
from tests.support.processes import Lab, an_order
from tests.support.waiting import PATIENCE, until

CLOSED = "http://127.0.0.1:1"
"""Where nobody listens."""
MAIL = {"NOMADS_MAIL": "smtp://127.0.0.1:1"}
"""Mail is on, and waits for its server."""


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
    with Lab(house, tmp_path) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command line sets what is logged, for the whole process."""
    yield
    for name in ("bot", "handlers"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def here(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str, **env: str) -> int:
    """Run the command line in this process, with these settings alone; its exit code."""
    monkeypatch.chdir(folder)
    for name, value in {"NOMADS_DATA": str(folder / "data"), "NOMADS_PIPELINES": str(PROGRAMS), **MAIL, **env}.items():
        monkeypatch.setenv(name, value)
    return main(arguments)


def transitions(out: str) -> list[dict[str, Any]]:
    """What `--json` printed."""
    return [json.loads(line) for line in out.splitlines()]


def folder_of(url: str) -> Path:
    """The folder behind a file:// address."""
    parts = urlsplit(url)
    assert parts.scheme == "file"
    return Path(unquote(parts.path))


# What it says of itself


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "１", "1000001", "99999999999999999999", "9" * 5000])
@pytest.mark.parametrize("command", [("jobs", "--limit"), ("logs", "7k2m9x4q", "--lines")])
def test_a_number_that_no_list_has_is_a_sentence(
    command: tuple[str, ...], number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, number])
    assert ended.value.code == 2
    assert f"argument {command[-1]}: it has to be a number from 1 to 1,000,000" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for command in ("run", "work", "submit", "deploy", "doctor", "replay"):
        assert f"\n    {command} " in said or f"\n    {command}\n" in said


# Wrong requests


def test_every_mistake_is_named_by_its_field_and_nothing_is_submitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = an_order(pipeline="nope", collection="a b", experiment="", x="5", y="9,3", z="-1,4", email="nobody")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("BOSS_TOKEN", "two words")
    assert here(monkeypatch, tmp_path, "submit", *wrong, "--wait", "--json") == 2
    said = capsys.readouterr()
    assert said.out == ""
    named = [line.partition(":")[0] for line in said.err.splitlines()]
    assert sorted(named) == ["collection", "email", "experiment", "pipeline", "token", "x", "y", "z"]
    assert not (tmp_path / "data" / "nomads.db").exists()


def test_where_mail_is_off_an_address_is_not_needed_and_one_that_is_given_is_told_so(lab: Lab) -> None:
    lab.environment["NOMADS_MAIL"] = "off"
    code, _, err = lab.here("submit", *an_order(), "--wait")
    assert code == 0
    assert "Mail is off (NOMADS_MAIL), so none is sent to this address." in err
    code, _, err = lab.here("submit", *an_order(email="", x="0,9"), "--wait")
    assert code == 0
    assert "Mail is off" not in err


@pytest.mark.parametrize("text", ["0-100000", "0..100000", "0:100000", "0 100000", "０，１０００００"])
def test_a_range_is_read_at_a_terminal_as_in_the_form(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = an_order(x=text, y="0, 100000", z="0,10")
    assert here(monkeypatch, tmp_path, "submit", *order, BOSS_TOKEN="demo-token", NOMADS_BOSS_HOST=CLOSED) == 2
    assert capsys.readouterr().err.startswith("x: This box is 100 GB")


def test_ranges_that_are_left_out_are_all_of_the_experiment(lab: Lab) -> None:
    left_out = ("--pipeline", "quick", "--collection", "demo", "--experiment", "cortex", "--z", "0,8")
    code, out, err = lab.here("submit", *left_out, "--email", "demo@example.org", "--wait", "--json")
    assert code == 0, err
    assert "x 0, 1024 · y 0, 1024 · z 0, 8" in err
    (job,) = transitions(lab.here("jobs", "--json").out)
    assert (job["x"], job["y"], job["z"]) == ("0, 1024", "0, 1024", "0, 8")
    assert transitions(out)[-1]["state"] == "SUCCEEDED"


def test_ranges_that_are_left_out_have_to_be_typed_where_boss_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = an_order(x="", z="all")
    assert here(monkeypatch, tmp_path, "submit", *order, BOSS_TOKEN="demo-token", NOMADS_BOSS_HOST=CLOSED) == 2
    said = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(":")[0] for line in said) == ["x", "z"]
    assert all("write start, stop" in line for line in said)


def test_a_box_that_is_too_large_is_refused_with_the_largest_that_fits(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = an_order(x="0,100000", y="0,100000", z="0,10")
    env = {"BOSS_TOKEN": "demo-token", "NOMADS_BOSS_HOST": house.boss.url}
    assert here(monkeypatch, tmp_path, "submit", *order, **env) == 2
    y, x = capsys.readouterr().err.splitlines()
    assert x.startswith("x: This experiment has x 0, 1024; choose a range within that. This box is 100 GB")
    assert x.endswith("The largest box from this corner that fits: x 0, 1024; y 0, 1024; z 0, 10.")
    assert y.startswith("y: This experiment has y 0, 1024;")


def test_an_option_that_cannot_be_is_named_and_one_that_is_unknown_hears_which_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"NOMADS_PIPELINES": str(options.write(tmp_path / "pipelines")), "BOSS_TOKEN": "demo-token"}
    order = ("submit", *an_order(pipeline="optional", x="9,3"), "--option")
    wrong = ("false-discovery=2", "--option", "colour=blue")
    assert here(monkeypatch, tmp_path, *order, *wrong, **env, NOMADS_BOSS_HOST=CLOSED) == 2
    told = capsys.readouterr().err.splitlines()
    assert "false-discovery: 2 is too large; write a number from 0.01 to 0.9, such as 0.25." in told
    assert "colour: optional has no option “colour”; it has method, false-discovery, sections and witness." in told
    assert any(line.startswith("x: ") for line in told)
    assert here(monkeypatch, tmp_path, *order, "sections=1", "--option", "sections=2", **env) == 2
    assert capsys.readouterr().err == "sections: This option is given twice; give it once.\n"
    with pytest.raises(SystemExit) as ended:
        here(monkeypatch, tmp_path, *order, "sections", **env)
    assert ended.value.code == 2
    assert "it has to be a name and a value, such as false-discovery=0.1" in capsys.readouterr().err


# Jobs


def test_an_option_reaches_the_program_and_is_told_of_the_job(lab: Lab, tmp_path: Path) -> None:
    lab.environment["NOMADS_PIPELINES"] = str(options.write(tmp_path / "pipelines"))
    order = ("submit", *an_order(pipeline="optional"), "--option", "false-discovery=10 %", "--option", "sections=3")
    assert lab.here(*order, "--wait")[0] == 0
    assert options.argv(lab.results(lab.newest)) == {"--false-discovery": "0.1"}
    assert "Options: False discovery rate 0.1\n" in lab.here("status", lab.newest.id)[1]
    assert json.loads(lab.here("status", lab.newest.id, "--json")[1])["options"] == {"false-discovery": "0.1"}


def test_each_transition_is_one_json_object_and_the_last_one_leads_to_the_results(lab: Lab) -> None:
    with lab.command("submit", *an_order(), "--wait", "--json") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    told = transitions(out)
    states = [step["state"] for step in told]
    assert [states[0], states[-1]] == ["ACCEPTED", "SUCCEEDED"]
    assert len(set(states)) == len(states)
    assert all(step["job"] == lab.newest.id and step["at"] for step in told)
    assert told[-1]["counts"] == {"synapses": 7}
    assert json.loads((folder_of(told[-1]["results_url"]) / "results.json").read_text())["counts"] == {"synapses": 7}
    assert "results_url" not in told[0]
    assert "chance" not in told[-1], "this program says nothing of it, which is not that it cannot be told"
    first, last = lab.mail.messages
    assert str(first["Subject"]).endswith("accepted")
    assert str(last["Subject"]).endswith("finished")


def test_a_job_that_fails_exits_with_1_and_says_why_and_what_next(lab: Lab) -> None:
    code, out, _ = lab.here("submit", *an_order(collection="fails"), "--wait")
    assert code == 1
    assert "Failed after 0 s: BOSS refused: <!channel> & more." in out
    assert "progress 0.50 reading" in out
    assert out.splitlines()[-1].startswith("If it is the token or its permissions")


def test_without_wait_it_returns_once_compute_has_the_job(lab: Lab) -> None:
    with lab.command("submit", *an_order(collection="waits"), "--json") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "SUBMITTED" in [step["state"] for step in transitions(out)]
    assert lab.newest.compute_id
    until((lab.results(lab.newest) / "starts").exists, within=PATIENCE, what="the program")
    assert lab.newest.state is not JobState.SUCCEEDED
    lab.let_go(lab.newest)
    until((lab.data / "runs" / lab.newest.name / "exit.json").exists, within=PATIENCE, what="the program's end")


def test_who_stops_waiting_is_told_that_the_job_goes_on(lab: Lab) -> None:
    with lab.command("submit", *an_order(collection="waits"), "--wait") as process:
        assert process.stdout
        assert "Accepted as job" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"Job {lab.newest.id} was submitted and is not cancelled." in err
    assert "Traceback" not in err
    with lab.command("submit", *an_order(), "--wait") as another:  # it takes up what was left, with no bot about
        until((lab.results(lab.jobs[0]) / "starts").exists, within=PATIENCE, what="the program")
        lab.let_go(lab.jobs[0])
        another.communicate(timeout=PATIENCE)
    assert (lab.results(lab.jobs[0]) / "starts").read_text() == "started\n"


def test_two_may_wait_at_once(lab: Lab) -> None:
    order = ("submit", *an_order(), "--wait", "--json")
    with lab.command(*order, "--again") as one, lab.command(*order, "--again") as other:
        said = [process.communicate(timeout=PATIENCE) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    first, second = (transitions(out)[-1] for out, _ in said)
    assert first["job"] != second["job"]
    for step in (first, second):
        assert step["state"] == "SUCCEEDED"
        assert (folder_of(step["results_url"]) / "starts").read_text() == "started\n"
    assert len({str(mail["Message-ID"]) for mail in lab.mail.messages}) == 4


def test_what_is_being_done_is_followed_and_what_was_done_is_told(lab: Lab) -> None:
    order = ("submit", *an_order(collection="waits"), "--wait", "--json")
    one = lab.command(*order)
    try:
        job = until(lambda: first_job(lab), within=PATIENCE, what="the job")
        assert job
        lab.running(job)
        other = lab.command(*order)
        assert other.stdout
        following = json.loads(other.stdout.readline())
        assert following["job"] == job.id
    finally:
        for accepted in lab.jobs:
            lab.let_go(accepted)
    first, _ = one.communicate(timeout=PATIENCE)
    assert other.stderr
    with other:
        second, told = other.stdout.read(), other.stderr.read()  # communicate() would leave out what was read ahead
    assert [one.returncode, other.returncode] == [0, 0], told
    assert {transitions(out)[-1]["job"] for out in (first, second)} == {job.id}
    assert f"Job {job.id} does this; --again runs it again." in told
    code, out, err = lab.here(*order)
    assert (code, len(lab.jobs)) == (0, 1)
    assert f"Job {job.id} has done this; --again runs it again." in err
    assert transitions(out)[-1]["state"] == "SUCCEEDED"


def first_job(lab: Lab) -> Job | None:
    """The first job, once the database is there."""
    if not (lab.data / "nomads.db").exists():
        return None
    with suppress(Unavailable):  # its tables are being made
        return next(iter(lab.jobs), None)
    return None


def test_it_shares_a_data_folder_with_a_running_bot(lab: Lab) -> None:
    lab.start()
    lab.submit(collection="waits")
    code, out, err = lab.here("submit", *an_order(), "--wait", "--json")
    assert code == 0, err
    slack_job, our_job = lab.jobs
    assert transitions(out)[-1]["job"] == our_job.id
    lab.running(slack_job)
    lab.let_go(slack_job)
    lab.settle()
    assert [job.state for job in lab.jobs] == [JobState.SUCCEEDED, JobState.SUCCEEDED]
    for job in lab.jobs:
        assert (lab.results(job) / "starts").read_text() == "started\n"
    assert "✅ Finished" in lab.card(slack_job)
    assert not lab.card(our_job)


def test_it_leaves_jobs_from_slack_to_the_bot_which_knows_where_results_are_served(lab: Lab) -> None:
    settings = Settings.model_validate({"data": lab.data, "pipelines": PROGRAMS})
    core = build_core(settings)
    core.database.migrate()
    order = RIGHT | {"pipeline": "quick", "email": "demo@example.org", "channel": "C01SYNAPSES"}
    token = SecretStr(order.pop("token"))
    proposal = core.submission.ask(core.submission.review(order, token), actor="U01DEMO", within=PATIENCE)
    core.submission.accept(proposal, actor="U01DEMO", key="from Slack")
    core.database.close()
    code, _, err = lab.here("submit", *an_order(), "--wait")
    assert code == 0, err
    from_slack, ours = lab.jobs
    assert ours.state is JobState.SUCCEEDED
    assert from_slack.state is JobState.ACCEPTED
    assert lab.rows.open_effects(from_slack.id) == 4
    assert len(lab.mail.messages) == 2


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOMADS_PORT", "a-port"),
        ("NOMADS_COMPUTE", "cloud"),
        ("NOMADS_LOG_LEVEL", "LOUD"),
        ("NOMADS_IMAGES", "not JSON"),
        ("NOMADS_DATABASE_URL", "nonsense"),
        ("NOMADS_DATA", "/dev/null/data"),
        ("NOMADS_MAIL", "ftp://user:canary-password@example.org"),
        ("NOMADS_SECRET_KEY", "short"),
        ("NOMADS_AWS_QUEUE", "?"),
    ],
)
def test_a_setting_that_cannot_be_used_exits_with_2_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    env = {"BOSS_TOKEN": "demo-token", "NOMADS_SECRET_KEY": "a key for tests only", name: value}
    if name.startswith("NOMADS_AWS_"):  # read where they are used
        env["NOMADS_COMPUTE"] = "aws"
    assert here(monkeypatch, tmp_path, "submit", *an_order(), **env) == 2
    said = capsys.readouterr().err
    assert name.removeprefix("NOMADS_").removeprefix("AWS_").lower() in said.lower()
    assert "canary" not in said


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, "SLACK_BOT_TOKEN"),
        ({"SLACK_BOT_TOKEN": "demo-bot-token"}, "SLACK_APP_TOKEN"),
        ({"SLACK_BOT_TOKEN": "demo-bot-token"}, "SLACK_SIGNING_SECRET"),
        ({"SLACK_BOT_TOKEN": "demo", "SLACK_SIGNING_SECRET": "demo", "NOMADS_COMPUTE": "aws"}, "NOMADS_AWS_BUCKET"),
        (
            {"SLACK_BOT_TOKEN": "demo", "SLACK_SIGNING_SECRET": "demo", "NOMADS_DATABASE_URL": "postgresql:///x"},
            "NOMADS_SECRET_KEY",
        ),
    ],
)
def test_a_bot_that_cannot_run_exits_with_2_and_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    needed: str,
) -> None:
    assert here(monkeypatch, tmp_path, "run", NOMADS_PORT="0", **settings) == 2
    assert needed in capsys.readouterr().err


def test_an_app_token_that_slack_does_not_take_exits_with_2(lab: Lab) -> None:
    bot = lab.launch(SLACK_APP_TOKEN="another-app-token")
    assert bot.process.wait(PATIENCE) == 2
    said = bot.log.read_text()
    assert "Slack did not take SLACK_APP_TOKEN (invalid_auth)." in said
    assert "Traceback" not in said
    assert "another-app-token" not in said


def test_a_database_that_is_away_exits_with_1_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {
        "NOMADS_DATABASE_URL": "postgresql://nomads:canary-password@127.0.0.1:9/nomads",
        "NOMADS_SECRET_KEY": "a key for tests only",
        "BOSS_TOKEN": "demo-token",
    }
    assert here(monkeypatch, tmp_path, "submit", *an_order(), **env) == 1
    said = capsys.readouterr()
    assert "The database “nomads” at 127.0.0.1:9 cannot be used: nothing listens there." in said.err
    assert "Traceback" not in said.err
    assert "canary-password" not in said.out + said.err


# Set-up


def test_deploy_without_a_region_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    assert here(monkeypatch, tmp_path, "deploy", "--yes") == 2
    assert capsys.readouterr().err == "No AWS region is set: set NOMADS_AWS_REGION.\n"


def test_doctor_finds_a_sound_house_sound(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    env = house.environment(tmp_path / "data")
    assert here(monkeypatch, tmp_path, "doctor", **env) == 0
    *parts, note = capsys.readouterr().out.splitlines()
    assert parts == ["database: ok", "compute: ok", "results: ok", "pipelines: ok", "slack: ok", "mail: ok"]
    assert note.startswith("note: Programs run on this machine")
    assert not house.mail.messages


def test_what_was_given_up_is_shown_by_doctor_and_tried_again_by_replay(lab: Lab) -> None:
    lab.start()
    lab.slack.fail("chat.postMessage", "is_archived")
    lab.submit(pipeline="quick")
    job = lab.ended(lab.newest)
    assert lab.card(job) == ""

    shown = lab.here("doctor").out
    assert "given up: " in shown
    assert f"job {job.id}, card: The channel is archived" in shown
    assert "nomads replay" in shown

    wrong = lab.here("replay", "nobody")
    assert (wrong.code, wrong.out) == (2, "")
    assert "There is no job" in wrong.err
    with pytest.raises(SystemExit) as ended:
        lab.here("replay", job.id, "--all")
    assert ended.value.code == 2

    listed = lab.here("replay")
    assert listed.code == 0
    assert f"job {job.id}, card: The channel is archived" in listed.out
    assert "nomads replay --all, or nomads replay JOB, tries again" in listed.out

    code, said, _ = lab.here("replay", job.id)

    assert code == 0
    first, *others, last = said.splitlines()
    assert f"job {job.id}, card: The channel is archived" in first
    replies = [line for line in others if f"job {job.id}, reply " in line]
    assert replies
    assert all("there is no thread" in line for line in others)
    assert last.startswith(f"{len(others) + 1} due again, in this order")
    until(lambda: "✅ Finished" in lab.card(job), within=PATIENCE, what="the card")
    lab.ended(job)
    assert "Finished" in lab.thread(job)[-1]
    assert len(lab.replies(job)) == len(set(lab.replies(job))) == len({line.split(",")[1] for line in replies})
    assert "given up" not in lab.here("doctor").out
    assert lab.here("replay").out == "Nothing was given up.\n"
    assert lab.here("replay", "--all").out == "Nothing was given up.\n"
    assert lab.here("replay", job.id).out == f"Nothing was given up of job {job.id}.\n"


def test_doctor_names_every_part_that_is_not_sound(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    env = house.environment(
        tmp_path / "data",
        SLACK_BOT_TOKEN="another-bot-token",
        NOMADS_MAIL="smtp://127.0.0.1:9",
        NOMADS_PIPELINES=str(tmp_path),
    )
    assert here(monkeypatch, tmp_path, "doctor", **env) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert [name for name, verdict in said.items() if verdict != "ok"] == ["pipelines", "slack", "mail", "note"]
    assert said["pipelines"] == "There is no pipeline."
    assert said["slack"] == "Slack did not take SLACK_BOT_TOKEN (invalid_auth)."
    assert said["mail"].startswith("The mail server does not answer")
