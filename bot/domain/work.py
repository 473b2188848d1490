"""What compute is asked to run, and what compute says of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.domain.states import JobState
from contract.program import read_progress


@dataclass(frozen=True)
class Observation:
    """What compute says of a job at one moment."""

    state: JobState
    reason: str = ""
    """Why a job failed; why a RUNNABLE job waits, and who can help; in words for a person; empty: not known."""
    exit_code: int | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    log: str | None = None
    """Where compute stores the program's output, in a form that only compute understands."""


@dataclass(frozen=True)
class LogLine:
    """One line a program printed, without its end, and when; None: not known."""

    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class Progress:
    """How far a program says it is: the part that is done, from 0 to 1, and what it is doing."""

    part: float
    phase: str

    @classmethod
    def read(cls, lines: Sequence[str]) -> Progress | None:
        """The last `progress 0.42 reading` among the lines that a program printed; None where there is none."""
        found = next((found for line in reversed(lines) if (found := read_progress(line))), None)
        return cls(*found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One run of a program, as compute is asked to run it."""

    name: str
    """Unique; at most 128 characters of Batch's alphabet. Submitting a name twice is the caller's mistake to avoid."""
    pipeline: str
    image: str
    """The container image; an adapter that runs no containers ignores it."""
    command: Sequence[str]
    """The program; `arguments` are appended to it."""
    arguments: Sequence[str]
    """`--host H --col C …`, without the token."""
    results: str = ""
    """The URI of the folder that the program writes, which is among the `arguments` too; empty: not told."""
    token_argument: bool = False
    """A 2018 image: the program takes only `--token`. Otherwise it reads BOSS_TOKEN from its environment."""
    cpu: float
    """Virtual processors."""
    memory: int
    """Memory in MiB."""
    timeout: timedelta
    owner: str
    """Whose token the run uses."""
    token: str
    """The token's reference, where this compute reads tokens."""
    tags: Mapping[str, str] = field(default_factory=dict)


CANCELLED = "Cancelled from NOMADS."
"""The reason that compute is given, and gives back, for the end of a job that somebody cancelled."""
