"""How a program is called and what it says: the pipelines' contract, version 1 (docs/adding-a-pipeline.md)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

DONE, FAILED, WRONG, BOSS_FAILED = 0, 1, 2, 3
"""Exit codes: done; a failure of any other kind; the request is wrong; BOSS refused or failed."""
MEANINGS = {WRONG: "The request is wrong.", BOSS_FAILED: "BOSS refused or failed."}
"""What an exit code says to people, where the program's last line on stderr does not."""
TOKEN_VARIABLE = "BOSS_TOKEN"  # noqa: S105  a name, not a token
"""The environment variable that holds the BOSS token."""
RESULTS = "results.json"
"""The file a program writes last of all: it says what the run found and which files it left."""
MAX_NOTES, MAX_NOTE, MAX_VIEWER = 10, 500, 3000
"""What is read of RESULTS: how many notes, and how many characters of a note and of the viewer's address."""
_PROGRESS = re.compile(r"progress ([0-9](?:\.[0-9]{1,6})?) ([A-Za-z][A-Za-z ]{0,29})")  # no token looks like this
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def progress_line(part: float, phase: str) -> str:
    """`progress 0.42 reading`, without a line feed: the part of the work that is done, and what is being done.

    A part outside 0 to 1 counts as the nearer end. `phase` is one to three words: letters and spaces, at most 30.
    """
    return f"progress {min(max(0.0, part), 1.0):.2f} {phase}"


def read_progress(line: str) -> tuple[float, str] | None:
    """The part, from 0 to 1, and the phase in such a line, spaces round it allowed; None where it says no progress."""
    found = _PROGRESS.fullmatch(line.strip())
    return (min(1.0, float(found[1])), found[2]) if found else None


def dies_with(parent: int) -> Callable[[], None]:
    """What a new process calls, before it does anything else, so that the kernel ends it when `parent` ends.

    `parent` is the id of the process that forks; it makes the call ready, so that the child imports nothing. If the
    parent is gone already, the child ends with FAILED. Where there is no such arrangement (it is Linux's), the child
    outlives a parent that is killed.
    """
    import ctypes  # only those who fork need it

    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def arrange() -> None:
        if prctl:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the arrangement held
            os._exit(FAILED)

    return arrange
