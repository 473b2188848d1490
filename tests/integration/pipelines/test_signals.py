"""What a signal does to a program that runs as processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.pipelines.conftest import ROOT

ARGV = ["--col", "c", "--exp", "e", "--x-range", "0,10", "--y-range", "0:20", "--z-range", "4, 8"]


PROGRAM = """
import os, signal, sys
from pipelines.common.program import main
def program(request):
    print(os.getpid(), flush=True)
    WORK
main(program)
"""
NEVER_ENDING = "sum(range(10**15))"
"""One call into C that neither ends nor lets Python heed a signal."""


@contextmanager
def running(work: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program that does this work, as a process, and the id of the process that does it."""
    argv = [sys.executable, "-c", PROGRAM.replace("WORK", work), "--host", "h", *ARGV]
    environ = {"PATH": os.environ["PATH"], "BOSS_TOKEN": "demo-token"}
    with subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def test_sigterm_ends_a_computation_that_does_not_heed_it() -> None:
    with running(NEVER_ENDING) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, complained = process.communicate(timeout=30)  # which waits for all who hold the pipe

    assert process.returncode == 1
    assert complained.splitlines()[-1] == "The run was stopped before it was done."


def test_a_computation_that_is_killed_is_told_to_have_been() -> None:
    with running(NEVER_ENDING) as (process, worker):
        os.kill(worker, signal.SIGKILL)
        _, complained = process.communicate(timeout=30)

    assert process.returncode == 1
    assert complained.splitlines()[-1] == (
        "The program was ended by SIGKILL; the box may be too large for the memory of this machine."
    )


def test_nothing_computes_on_when_the_program_is_killed() -> None:
    with running(NEVER_ENDING) as (process, _):
        process.kill()
        process.communicate(timeout=30)

    assert process.returncode == -signal.SIGKILL


def test_the_exit_code_of_a_program_is_that_of_its_work() -> None:
    with running("sys.exit(3)") as (process, _):
        process.communicate(timeout=30)

    assert process.returncode == 3
