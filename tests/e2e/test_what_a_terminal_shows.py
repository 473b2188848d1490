"""What commands draw on a real (pseudo-)terminal, and the plain lines that they print anywhere else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.house import House
from tests.support.processes import Lab, an_order, read_terminal
from tests.support.waiting import PATIENCE, until

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WAITS = ("submit", *an_order(collection="waits"), "--wait")


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
    with Lab(house, tmp_path) as lab:
        yield lab


@contextmanager
def on_a_terminal(lab: Lab, *arguments: str, **env: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Our end of the terminal on which a command runs, and its process."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    variables = {"TERM": "xterm-256color", "NO_COLOR": "", **env}
    try:
        with lab.command(*arguments, terminal=theirs, **variables) as process:
            os.close(theirs)
            yield ours, process
    finally:
        os.close(ours)


def shown(lab: Lab, *arguments: str, **env: str) -> tuple[int, str]:
    """How a command ends on a terminal, and all that it wrote there."""
    with on_a_terminal(lab, *arguments, **env) as (terminal, process):
        said = read_terminal(terminal)
    return process.returncode, said


def let_go(lab: Lab) -> None:
    lab.let_go(until(lambda: lab.newest, within=PATIENCE, what="the job"))


def test_a_terminal_shows_state_phase_part_and_time_while_a_program_runs(lab: Lab) -> None:
    with on_a_terminal(lab, *WAITS) as (terminal, process):
        said = read_terminal(terminal, until_it_says="50 %, reading; about ")
        said += read_terminal(terminal, until_it_says="so far")
        let_go(lab)
        said += read_terminal(terminal)
    assert process.returncode == 0, said
    bar = next(line for line in said.split("\r") if "50 %, reading" in line)
    assert "Running" in bar
    assert "━" in bar
    assert re.search(r"about \d+ s left", bar)
    assert COLOUR.search(bar)
    words = CONTROL.sub("", said)
    assert words.count("Accepted as job") == 1, "each step once, above the bar"
    assert "Finished after" in words
    assert "\x1b[2K" in said.rpartition("━")[2], "the bar is gone at the end"
    assert "\x1b[?25h" in said, "the cursor is back"
    assert "Programs run on this machine" not in said, "the bot's own start warns of that"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_bar_away_and_the_command_says_that_the_job_goes_on(
    lab: Lab, number: signal.Signals
) -> None:
    with on_a_terminal(lab, *WAITS) as (terminal, process):
        said = read_terminal(terminal, until_it_says="50 %, reading")
        process.send_signal(number)
        said += read_terminal(terminal)
    assert process.returncode == 128 + number
    assert said.index("\x1b[?25h") < said.index(f"Job {lab.newest.id} was submitted and is not cancelled.")
    assert "Traceback" not in said


def test_no_color_leaves_the_bar_without_colours(lab: Lab) -> None:
    with on_a_terminal(lab, *WAITS, NO_COLOR="1") as (terminal, process):
        said = read_terminal(terminal, until_it_says="50 %, reading")
        let_go(lab)
        said += read_terminal(terminal)
    assert process.returncode == 0, said
    assert "━" in said
    assert not COLOUR.search(said)


def test_a_dumb_terminal_gets_plain_lines(lab: Lab) -> None:
    with on_a_terminal(lab, *WAITS, TERM="dumb") as (terminal, process):
        said = read_terminal(terminal, until_it_says="50 %, reading")
        let_go(lab)
        said += read_terminal(terminal)
    assert process.returncode == 0, said
    assert "\x1b" not in said
    assert "Finished after" in said


def test_a_pipe_gets_a_line_for_each_step_and_notable_progress_stays_out_of_what_scripts_read(lab: Lab) -> None:
    with lab.command(*WAITS, FORCE_COLOR="1") as process:
        assert process.stderr
        line = process.stderr.readline()
        while "progress" not in line and "50 %" not in line:
            assert line, "it ended without a word of progress"
            line = process.stderr.readline()
        assert re.fullmatch(r"\d\d:\d\d:\d\d 50 %, reading; about \d+ s left\n", line)
        let_go(lab)
        err = process.stderr.read()  # communicate() would leave out what was read ahead
        assert process.stdout
        out = process.stdout.read()
        process.wait(PATIENCE)
    assert process.returncode == 0, err
    assert "\x1b" not in out + err
    assert [line for line in out.splitlines() if "50 %" in line] == []
    assert "50 %" not in err, "each notable progress once"
    assert "Programs run on this machine" not in err
    assert [line.split(" ")[1] for line in out.splitlines()][:1] == ["Accepted"]
    assert out.splitlines()[-1].startswith("Results: file://")


def test_json_stays_json_on_a_terminal_too(lab: Lab) -> None:
    code, said = shown(lab, "submit", *an_order(), "--wait", "--json")
    assert code == 0, said
    assert "\x1b" not in said
    assert '"state": "SUCCEEDED"' in said


def test_a_followed_log_stands_above_the_bar_of_its_job(lab: Lab) -> None:
    lab.here("submit", *an_order(collection="waits"))
    with on_a_terminal(lab, "logs", lab.newest.id, "--follow") as (terminal, process):
        said = read_terminal(terminal, until_it_says="50 %, reading")
        let_go(lab)
        said += read_terminal(terminal)
    assert process.returncode == 0, said
    assert CONTROL.sub("", said).count("progress 0.50 reading") == 1
    assert COLOUR.search(said[: said.index(f"Job {lab.newest.id}: succeeded.")])


def test_jobs_have_a_header_and_the_colour_of_their_state(lab: Lab) -> None:
    for collection in ("demo", "fails"):
        lab.here("submit", *an_order(collection=collection), "--wait")
    failed, fine = [job.id for job in lab.jobs[::-1]]
    code, said = shown(lab, "jobs")
    assert code == 0, said
    header, *rows = said.splitlines()
    assert CONTROL.sub("", header).split() == ["JOB", "ACCEPTED", "STATE", "PIPELINE", "VOLUME", "BOX", "BY"]
    assert [CONTROL.sub("", row).split()[0] for row in rows] == [failed, fine]
    assert "\x1b[1;31mfailed" in said
    assert "\x1b[32msucceeded" in said
    assert "WARNING" not in said
    assert not COLOUR.search(shown(lab, "jobs", NO_COLOR="1")[1])

    plain = lab.here("jobs")
    assert [line.split()[0] for line in plain.out.splitlines()] == [failed, fine], "stdout is one job a line"
    assert plain.err.split() == ["JOB", "ACCEPTED", "STATE", "PIPELINE", "VOLUME", "BOX", "BY"]
    assert "\x1b" not in plain.out + plain.err
    assert lab.here("jobs", "--json").err == ""


def test_status_has_the_colour_of_its_state_and_says_how_far_a_job_is(lab: Lab) -> None:
    lab.here("submit", *an_order(collection="fails"), "--wait")
    code, said = shown(lab, "status", lab.newest.id)
    assert code == 1
    assert f"\x1b[1;31mJob {lab.newest.id}: failed" in said
    assert not COLOUR.search(shown(lab, "status", lab.newest.id, NO_COLOR="1")[1])
    assert "\x1b" not in lab.here("status", lab.newest.id).out

    lab.start()
    lab.submit(collection="waits")
    until(lambda: lab.newest.progress, within=PATIENCE, what="progress")
    assert re.search(r"^Now: 50 %, reading; about \d+ s left$", lab.here("status", lab.newest.id).out, re.M)
    let_go(lab)
