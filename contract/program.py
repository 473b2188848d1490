"""How a program is called and what it prints: the pipelines' contract, version 1 (docs/adding-a-pipeline.md)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping

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
INDEX_VARIABLES = ("NOMADS_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID")
"""The environment variables that hold the number of one program of an array, the first that is there."""
INDEX_VARIABLE = INDEX_VARIABLES[0]
"""The one that NOMADS sets where the engine sets none."""
MAX_INDEX = 10**6
"""No array is as long as this."""
ARGUMENTS = frozenset(
    ("host", "token", "col", "exp", "z-range", "y-range", "x-range", "results-uri", "results-key")
).union(
    ("predictions", "viewer", "image-bytes", "channel", "help", "volume", "volume-roots"),
    ("stage", "job-uri", "block-voxels", "rounds"),
)
"""Names of the arguments that every program takes, without dashes: no option of a pipeline is named so."""
FIRST, BLOCKS, MERGE = STAGES = ("first", "blocks", "merge")
"""The stages of a job in blocks: a first look, which cuts the volume; its blocks, by many programs; their merge."""
BLOCK_VOXELS = 2**28
"""Voxels of a block, about, unless another number is asked for: 16 x 4096 x 4096, whole cuboids of BOSS's."""
PLAN = "blocks/plan.json"
"""The file that the first stage leaves last: how many blocks there are."""
IMAGE_BYTES = 2**28
"""Bytes of the largest image that a program writes beside its results, unless another number is asked for."""
RESULTS = "results.json"
"""The file that a program writes last: what the run found, and which files it left."""
MAX_NOTES = 10
"""Notes in RESULTS, at most."""
MAX_MISSING = 1000
"""Missing blocks that results.json names, at most."""
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


class WrongIndex(ValueError):
    """The environment holds something other than a number where a program of an array reads its own."""


def read_index(environment: Mapping[str, str]) -> int | None:
    """The number of this program within its array, from 0; None where the program is no part of one.

    Raises WrongIndex, which names the variable, for a value that is no number below MAX_INDEX.
    """
    name = next((name for name in INDEX_VARIABLES if environment.get(name)), None)
    if name is None:
        return None
    value = environment[name]
    if not re.fullmatch(r"[0-9]{1,6}", value, re.ASCII):
        said = value[:20] if value.isascii() and value.isprintable() else "something else"
        raise WrongIndex(f"{name} has to be this program's number within its array, such as 0 or 17; it is {said!r}.")
    return int(value)


def part_uri(results: str, index: int) -> str:
    """The URI of the folder that program number `index` of an array writes, and no other program of it does.

    `results` is the URI of the array's own folder, and ends with a slash.
    """
    return f"{results}{index}/"


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
