"""What compute is asked to run, and what compute says of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from bot.domain.errors import Unavailable
from bot.domain.states import FINAL, UNFINISHED, JobState
from contract.program import BOSS_FAILED, REFUSED, WRONG, read_progress


class Cause(StrEnum):
    """What made a job fail: it decides what the person is advised to do next, and whether a retry can help."""

    TIME_LIMIT = "time-limit"
    MEMORY = "memory"
    IMAGE = "image"
    """The container image, or the program in it, cannot be started."""
    SECRET = "secret"  # noqa: S105  a word, not a secret
    """The token could not be handed to the program."""
    ROLE = "role"
    """The role that the program is to run with cannot be used."""
    SETUP = "setup"
    """Compute will not take such a job as NOMADS is set up."""
    MACHINE = "machine"
    """The machine was taken back, broke down, or restarted."""
    DISK = "disk"
    """The disk of the machine had no room for the container image, or for the container."""
    REQUEST = "request"
    """The request itself is wrong: BOSS said so before the submission, or the program did (exit 2)."""
    VOLUME = "volume"
    """The volume's server refused or failed (exit 3); which of them is not known."""
    REFUSED = "refused"
    """The volume's server refused what this token asks for, and would do so again (exit 3, and the program says so)."""
    PROGRAM = "program"
    """The program failed in any other way."""
    UNKNOWN = "unknown"

    @property
    def own(self) -> bool:
        """Whether the program itself ended so, and said why in the last line that it printed."""
        return self in (Cause.REQUEST, Cause.VOLUME, Cause.REFUSED, Cause.PROGRAM)

    @property
    def elsewhere(self) -> bool:
        """Whether the same job may succeed on another machine."""
        return self in (Cause.MACHINE, Cause.DISK)

    @property
    def passing(self) -> bool:
        """Whether the same job, tried again, may succeed with nothing changed."""
        return self.elsewhere or self in (Cause.VOLUME, Cause.PROGRAM, Cause.UNKNOWN)

    def told(self, lines: Sequence[str]) -> Cause:
        """The cause, as the last lines that the program printed tell it more exactly."""
        return Cause.REFUSED if self is Cause.VOLUME and REFUSED in (line.strip() for line in lines) else self


SIGNALLED = 128
"""From here on an exit code is a shell's word for a signal that ended the program, and not the program's own."""


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
    cause: Cause | None = None
    """What made a job fail, where that was not the program; None: what the exit code says."""
    attempt: int | None = None
    """Which of compute's attempts at the job this is, from 1; None: the one that is known, whichever that is."""
    attempts: int | None = None
    """How many attempts compute makes at most; None: not known."""
    again: str = ""
    """In an attempt after the first: why, and for what, as the beginning of a sentence; empty: not known."""
    children: Mapping[JobState, int] = field(default_factory=dict, hash=False)
    """Of an array: how many of its programs are in which state, none of them 0. Empty: no array, or not known yet."""

    @classmethod
    def of_array(
        cls,
        children: Mapping[JobState, int],
        *,
        reason: str = "",
        started_at: datetime | None = None,
        stopped_at: datetime | None = None,
    ) -> Observation:
        """What is seen of an array whose programs are in these states. At least one program is in one of them.

        While a program is open, the array is in the furthest state of any, and RUNNING once one has ended. A program
        that begins anew takes the array back to no earlier state by `follows`, since an array has no attempts. `reason`
        says why an array failed; empty: it is told how many of its programs did.
        """
        children = {state: number for state, number in children.items() if number}
        if not FINAL.issuperset(children):
            begun = not FINAL.isdisjoint(children)
            state = JobState.RUNNING if begun else max(children, key=UNFINISHED.index)
            return cls(state, started_at=started_at, children=children)
        if set(children) == {JobState.SUCCEEDED}:
            return cls(JobState.SUCCEEDED, exit_code=0, started_at=started_at, stopped_at=stopped_at, children=children)
        failed, count = children.get(JobState.FAILED, 0), sum(children.values())
        return cls(
            JobState.FAILED,
            reason or f"{failed} of {count} {'program' if count == 1 else 'programs'} failed.",
            cause=Cause.UNKNOWN,
            started_at=started_at,
            stopped_at=stopped_at,
            children=children,
        )

    def follows(self, state: JobState, attempt: int) -> bool:
        """Whether a job in that state of that attempt moves by this observation.

        A job moves forwards within an attempt, and to a later attempt, whatever the state there; never to an earlier
        one, and never from its end.
        """
        if self.attempt is None or self.attempt == attempt:
            return self.state.follows(state)
        return self.attempt > attempt and state not in FINAL

    @property
    def why(self) -> Cause:
        """What made the job fail: what compute says, or else what the exit code says by the pipelines' contract."""
        if self.cause is not None:
            return self.cause
        if self.exit_code is None or not 0 < self.exit_code < SIGNALLED:
            return Cause.UNKNOWN
        return {WRONG: Cause.REQUEST, BOSS_FAILED: Cause.VOLUME}.get(self.exit_code, Cause.PROGRAM)


class Unclear(Unavailable):
    """Compute answered, and for some jobs its answer makes no sense: these are in doubt, the others are `seen`."""

    def __init__(self, message: str, *, ids: Collection[str], seen: Mapping[str, Observation]) -> None:
        super().__init__(message)
        self.ids = frozenset(ids)
        """The compute ids that are in doubt."""
        self.seen = seen
        """What compute says of the others; one that it does not know is absent."""


@dataclass(frozen=True, slots=True)
class Hint:
    """An event of compute's that names work. It may be doubled, late, out of order or forged: compute is asked."""

    compute_id: str
    """The work, of a program of an array that array; empty: the event names none."""
    of_child: bool
    """Whether it is about one program of an array."""
    claims: Observation | None
    """What the event says of the work, by which a question may be saved and nothing else; None: not to be told."""
    receipt: str
    """By which the event is acknowledged."""


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
    count: int | None = None
    """How many copies of the program run, as an array: each is told its number from 0 (`contract.program.read_index`),
    and has the processors, the memory and the time limit for itself. None: one program, which is told no number."""
    results: str = ""
    """The URI of the folder that the program writes, which is among the `arguments` too; empty: not told. A program of
    an array writes its own folder below it alone (`contract.program.part_uri`)."""
    lasting: bool = False
    """Whether it should run on machines that are not taken back, where this compute has others too."""
    shared: str = ""
    """The URI of a folder of results whose own files the program reads, such as an array's plan; empty: of none."""
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


def at_once() -> None:
    """Wait for no turn."""


CANCELLED = "Cancelled from NOMADS."
"""The reason that compute is given, and gives back, for the end of a job that somebody cancelled."""
