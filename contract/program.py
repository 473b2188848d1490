"""How a program is called and what it prints: the pipelines' contract, version 1 (docs/adding-a-pipeline.md)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

DONE = 0
"""Exit code: done."""
FAILED = 1
"""Exit code: a failure of any other kind."""
WRONG = 2
"""Exit code: the request is wrong."""
BOSS_FAILED = 3
"""Exit code: BOSS refused or failed."""
MEANINGS = {WRONG: "The request is wrong.", BOSS_FAILED: "BOSS refused or failed."}
"""What an exit code means, for people, where the program's last line does not say it."""
REFUSED = "failure refused"
"""A line that a program which ends with BOSS_FAILED may print on stdout: BOSS refused what this token asks for, and
would refuse it again."""
TOKEN_VARIABLE = "BOSS_TOKEN"  # noqa: S105  a name, not a token
"""The environment variable that holds the BOSS token."""
ARGUMENTS = frozenset(
    ("host", "token", "col", "exp", "z-range", "y-range", "x-range", "results-uri", "results-key")
).union(("predictions", "viewer", "image-bytes", "channel", "help", "volume", "volume-roots"))
"""Names of the arguments that every program takes, without dashes: no option of a pipeline is named so."""
IMAGE_BYTES = 2**28
"""Bytes of the largest image that a program writes beside its results, unless another number is asked for."""
RESULTS = "results.json"
"""The file that a program writes last: what the run found, and which files it left."""
MAX_NOTES = 10
"""Notes in RESULTS, at most."""
MAX_NOTE = 500
"""Characters of a note in RESULTS, at most."""
MAX_VIEWER = 3000
"""Characters of the viewer's address in RESULTS, at most."""
_PROGRESS = re.compile(r"progress ([0-9](?:\.[0-9]{1,6})?) ([A-Za-z][A-Za-z ]{0,29})")  # no token looks like this
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def progress_line(part: float, phase: str) -> str:
    """A progress line such as `progress 0.42 reading`, without a line feed.

    `part` is the part of the work that is done, clipped to 0 to 1; `phase` says what is being done, in letters and
    spaces, 30 at most.
    """
    return f"progress {min(max(0.0, part), 1.0):.2f} {phase}"


def read_progress(line: str) -> tuple[float, str] | None:
    """Part (0 to 1) and phase of a progress line, with spaces round it allowed; None for any other line."""
    found = _PROGRESS.fullmatch(line.strip())
    return (min(1.0, float(found[1])), found[2]) if found else None


def dies_with(parent: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A function for a new process to call first, so that the kernel sends it the signal when `parent` ends.

    `parent` is the id of the process that forks. If it has ended already, the child exits with FAILED. The arrangement
    is Linux's; elsewhere, the child outlives a parent that is killed. Imports are done here, not in the child.
    """
    import ctypes  # only processes that fork need it

    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def arrange() -> None:
        if prctl:
            prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent died before the arrangement held
            os._exit(FAILED)

    return arrange
