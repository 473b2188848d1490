"""A job: its request, its state, and its story. Times are UTC."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict

from bot.domain import words
from bot.domain.blocks import ASKED, PILOT, Blocks
from bot.domain.errors import NomadsError
from bot.domain.people import TERMINAL
from bot.domain.request import JobRequest
from bot.domain.states import FINAL, JobState
from bot.domain.summary import Summary
from bot.domain.work import Cause, Progress
from contract.program import FIRST

UNREAD = "Ended without results that can be read"
"""What people read of a job that SUCCEEDED, in place of its state, where its results tell nothing."""
LASTING = "lasting"
"""Names the second submission of a job whose machines were taken back."""
MAX_COMPUTE_NAME = 128
"""The longest job name AWS Batch takes."""
_AGES = 100_000
"""Ages that are known at once: several for each of the jobs that compute has."""
MAX_FOLDER = 240
"""The longest results folder's name; file systems take 255 bytes."""


def compute_name(results_key: str, job_id: str) -> str:
    """A unique name in Batch's alphabet, at most MAX_COMPUTE_NAME long; a long results key is cut and hashed."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", results_key)
    if not stem[:1].isalnum():
        stem = "n" + stem
    return f"{_cut(stem, MAX_COMPUTE_NAME - len(job_id) - 1)}-{job_id}"


def _cut(text: str, room: int) -> str:
    """At most `room` characters; a longer text is cut and ends in a hash of the whole, so that it stays unique."""
    return text if len(text) <= room else f"{text[: room - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Expected:
    """What a run was expected to take when it was accepted; of a job in blocks, all its programs together."""

    seconds: float
    """Half of the runs it was learned from were quicker."""
    longest: float
    """Nine in ten of them took no longer."""
    price: float | None = None
    """Price of an hour of such a run; None: prices are not known here."""
    currency: str = "$"
    together: bool = False
    """Whether the seconds are those of many programs that run side by side, so that nobody waits so long."""
    of_memory: float = 0
    """The part of the price that is paid for memory."""

    @property
    def cost(self) -> float | None:
        """What the expected time costs, in `currency`; None where prices are not known."""
        return self.cost_of(self.seconds)

    def cost_of(self, seconds: float, *, memory: int = 1) -> float | None:
        """What a run of that many seconds costs, with so many times the memory, in `currency`.

        None where prices are not known.
        """
        return None if self.price is None else (self.price + (memory - 1) * self.of_memory) * seconds / 3600


class Job(BaseModel):
    """A job as it stands in the database. Times are UTC."""

    model_config = ConfigDict(frozen=True)

    id: str
    key: str
    """The caller's idempotency key: a second request with the same key is the same job."""
    request: JobRequest
    actor: str
    """Who asked: a Slack user id, or `cli:` and a login name."""
    state: JobState
    reason: str = ""
    """Why it failed or was lost; of a job that SUCCEEDED: what is wrong with its results."""
    cause: Cause = Cause.UNKNOWN
    """What made it fail."""
    compute_id: str | None = None
    token_ref: str | None = None
    """The TokenKeeper's reference of the BOSS token, never the token. None: the token is erased, and in no log.

    A reference to a token that is erased hides the log of an ended job from people: the token may stand in the log.
    """
    log: str | None = None
    """Where compute stores the program's output (`Observation.log`)."""
    log_tail: tuple[str, ...] = ()
    """The last lines of the program's output, where the job ended without success."""
    exit_code: int | None = None
    summary: Summary | None = None
    progress: Progress | None = None
    """What the program last said of itself while it ran."""
    cancelled_by: str | None = None
    """Who asked for the job's end; None: nobody, or compute has refused to end it."""
    cancelled_at: datetime | None = None
    """When somebody last asked for the job's end."""
    unposted: str = ""
    """Why its card could not be posted to its channel, in words for a person; empty: it was, or still may be."""
    attempt: int = 1
    """Which attempt of people's at the request the job is: one more than the job that it tries again."""
    compute_attempt: int = 1
    """Which of compute's own attempts at the job this is: one more each time that a machine was taken back."""
    lasting: bool = False
    """Whether the job, one that is not in blocks, goes on where machines are not taken back, since others were."""
    retry_of: str | None = None
    """The job that this one tries again."""
    retried_as: str | None = None
    """The job that tries this one again."""
    waiting: str = ""
    """Why the job waits to run, once it has waited for long."""
    stalled_since: datetime | None = None
    """Since when compute has not answered for the job; None: it answers."""
    stalled: str = ""
    """Why compute does not answer, in words."""
    stalled_told: bool = False
    """Whether the job's thread was told of that."""
    work: str = ""
    """Digest of results key, pipeline release and place of write-back: jobs with the same digest do the same."""
    blocks: Blocks | None = None
    """How far it is in blocks; None: one program does all of it."""
    size: int | None = None
    """Bytes the program reads, by the channels' data types; None: not known yet."""
    checked: bool = True
    """Whether BOSS has said that the request can work; until then the job is not submitted."""
    expected: Expected | None = None
    accepted_at: datetime
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timed: bool = True
    """Whether compute said when the program ended; otherwise `finished_at` is when that was noticed."""

    def mail_for(self, person: str) -> str:
        """The address its mails go to, where that may be shown to this person: to its owner. Else empty."""
        return self.request.email if person == self.actor else ""

    @property
    def owner_in_chat(self) -> bool:
        """Whether its owner can be reached in chat: they asked for it there, and not at a terminal."""
        return not self.actor.startswith(TERMINAL)

    @property
    def name(self) -> str:
        """The unique name compute knows the job by, as it was submitted last."""
        return compute_name(self.request.results_key, f"{self.id}-{self.stage}" if self.stage else self.id)

    @property
    def stage(self) -> str:
        """Names the present one of the job's submissions; empty for the first one, unless the job is in blocks."""
        alone = LASTING if self.lasting else ""
        return self.blocks.label if self.blocks else alone

    @property
    def ended(self) -> bool:
        """Whether the job has reached one of the FINAL states."""
        return self.state in FINAL

    @property
    def retryable(self) -> bool:
        """Whether a retry makes sense: the job ended without success for a cause that may pass, or incomplete; once."""
        missed = self.ended and self.state is not JobState.SUCCEEDED
        return (missed or self.incomplete) and self.retried_as is None and not self.doubt

    @property
    def incomplete(self) -> bool:
        """Whether its results lack blocks, which a retry works on alone."""
        return (
            self.state is JobState.SUCCEEDED and self.blocks is not None and bool(self.summary and self.summary.missing)
        )

    @property
    def asked(self) -> bool:
        """Whether a pilot was shown, and somebody has to say whether the job goes on."""
        return not self.ended and self.blocks is not None and self.blocks.stage == ASKED

    @property
    def pilots(self) -> bool:
        """Whether it still waits for a pilot, or for leave after one, so that somebody may let it go on."""
        early = self.blocks is not None and self.blocks.stage in (FIRST, PILOT, ASKED) and self.blocks.wanted
        return early and not self.ended and self.cancelled_by is None

    @property
    def lacks(self) -> str:
        """What its results lack, as `2 of 8 blocks are missing`; empty: nothing."""
        if not (self.incomplete and self.blocks and self.summary):
            return ""
        missing = self.summary.missing
        are = "is" if missing == 1 else "are"
        return f"{words.count(missing)} of {words.count(self.blocks.all)} blocks {are} missing"

    @property
    def again(self) -> Blocks | None:
        """How a retry goes in blocks: from those that are there, where the first look holds; None: it does not."""
        if self.blocks is None or self.cause in (Cause.REQUEST, Cause.REFUSED):
            return Blocks(wanted=self.blocks.wanted) if self.blocks else None
        missing = self.summary.missing if self.incomplete and self.summary else self.blocks.all - self.blocks.done
        return self.blocks.resumed(self.folder, missing=missing)

    @property
    def doubt(self) -> str:
        """Why the same, tried again with nothing changed, would fail again, and what to do; empty: it may succeed."""
        if self.state is not JobState.FAILED or self.cause.passing:
            return ""
        reason = self.reason.rstrip(".") or "no reason is known"
        return f"Job {self.id} would fail again with nothing changed: {reason}. {self.advice}"

    @property
    def turned_down(self) -> bool:
        """Whether what was asked for has to be corrected: the request was wrong, or BOSS refuses it to this token."""
        return self.state is JobState.FAILED and self.cause in (Cause.REQUEST, Cause.REFUSED)

    @property
    def unread(self) -> bool:
        """Whether the program succeeded, and left no results that can be read; `reason` says more."""
        return self.state is JobState.SUCCEEDED and bool(self.reason)

    @property
    def stands(self) -> str:
        """Its state in plain words."""
        return UNREAD if self.unread else words.state(self.state).capitalize()

    @property
    def took(self) -> timedelta | None:
        """How long the program ran; None where it did not run, has not ended, or nobody knows.

        Nobody knows where it ended before it started: the clock was set anew meanwhile.
        """
        if not (self.timed and self.started_at and self.finished_at):
            return None
        return self.finished_at - self.started_at if self.finished_at >= self.started_at else None

    def left(self, at: datetime) -> timedelta | None:
        """How long its program is expected to run on; None: it does not run, nothing is known, or it is overdue.

        What the program says of its progress counts for more the further it is; until then what was expected counts.
        Of a job in blocks progress alone counts: how many programs run side by side is not known.
        """
        if self.state is not JobState.RUNNING or self.started_at is None:
            return None
        ran = max(0.0, (at - self.started_at).total_seconds())
        part = self.progress.part if self.progress else 0.0
        expected = self.expected.seconds - ran if self.expected and not self.expected.together else None
        if not part:
            return timedelta(seconds=expected) if expected is not None and expected > 0 else None
        projected = ran / part - ran
        if expected is None:
            return timedelta(seconds=projected)
        return timedelta(seconds=part * projected + (1 - part) * max(0.0, expected))

    @property
    def folder(self) -> str:
        """The results folder: the results key, and the job's id within it, so that no run overwrites another.

        A key that no file system takes as a name is cut and hashed.
        """
        return f"{_cut(self.request.results_key, MAX_FOLDER)}/{self.id}"

    @property
    def advice(self) -> str:
        """What a person does next about a job that ended without success."""
        if self.state is JobState.CANCELLED:
            return "Retry it, or submit it again, whenever you like."
        if self.state is JobState.LOST:
            return "Look at the results folder; submit it again if it is empty."
        return _ADVICE[self.cause]


_ADVICE = {
    Cause.TIME_LIMIT: "Submit a smaller box, or ask whoever runs NOMADS to raise the pipeline's time limit.",
    Cause.MEMORY: "Submit a smaller box, or ask whoever runs NOMADS to give the pipeline more memory.",
    Cause.IMAGE: "Ask whoever runs NOMADS to mend the pipeline's image or its program, and show them this.",
    Cause.SECRET: "Submit it again with your token; if that fails too, show this to whoever runs NOMADS.",
    Cause.ROLE: "Ask whoever runs NOMADS to mend the role that programs run with, and show them this.",
    Cause.SETUP: "Show this to whoever runs NOMADS: as NOMADS is set up, the job cannot be run.",
    Cause.MACHINE: "Retry it: nothing was wrong with the job.",
    Cause.DISK: "Retry it; if it fails so again, ask whoever runs NOMADS to give its machines larger disks.",
    Cause.REQUEST: "Correct the request and submit it again.",
    Cause.REFUSED: "Submit it again with a token that may read the volume (“Edit and rerun”). If the rights have been "
    "granted since, retry it: NOMADS asks first.",
    Cause.VOLUME: "If it is the token or its permissions, mend that; otherwise try again later.",
    Cause.PROGRAM: "Retry it; if it fails again, show this to whoever runs NOMADS.",
    Cause.UNKNOWN: "Retry it; if it fails again, show this to whoever runs NOMADS.",
}
"""What to do next, by what made the job fail."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A state a job entered, or a note while it was there; when, and what is told of it."""

    state: JobState
    at: datetime
    text: str
    reply: int | None
    """Number of the reply that tells the step; None: no reply does."""
    note: bool = False
    """Whether the job did not enter the state then: it was there, and something was told."""
    number: int = 0
    """The step's place in the job's story, from 1; the database gives it."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the watcher needs of a job that compute has."""

    id: str
    compute_id: str
    state: JobState
    compute_attempt: int
    submitted_at: datetime
    runnable_at: datetime | None
    """Since when the job waits for a place to run; None: it does not wait, or its thread has said why."""
    stalled: bool
    """Whether compute did not answer for it last time."""
    ending: bool
    """Whether it is cancelled: compute then has to take that, and that it answers a question about the job is less."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which compute did not answer for at least one job, as admins are told of it."""

    number: int
    job_id: str
    """The job that was told of it first."""
    began_at: datetime
    why: str
    over_at: datetime | None


def lately(then: datetime | None, at: datetime, time: timedelta) -> bool:
    """Whether less than that time has passed since; None: never.

    A time that seems to lie ahead was noted before the clock went back, and counts as long ago.
    """
    return then is not None and then <= at < then + time


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Steady:
    """A clock that goes on where another one goes back: what is cached by it does not outlive its time."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last = clock()
        self._ahead = timedelta()
        self._lock = Lock()

    def __call__(self) -> datetime:
        """The time by the other clock, plus all by which that clock went back. Never earlier than the last answer."""
        with self._lock:
            at = self._clock()
            self._ahead += max(self._last - at, timedelta())
            self._last = at
            return at + self._ahead


class Ages:
    """How long ago things were whose times are stored, although the clock that wrote the times may be set anew.

    The first look at a time believes the clock, and an age is never negative. From then on ages grow as `ticks` does,
    whatever the clock says: a look at each turn of a loop is enough. Any number of threads may look.
    """

    def __init__(self, clock: Callable[[], datetime], *, ticks: Callable[[], float] = time.monotonic) -> None:
        """`ticks` gives seconds, and never goes back."""
        self._clock = clock
        self._ticks = ticks
        self._begun: LRUCache[tuple[str, datetime], float] = LRUCache(_AGES)
        self._lock = Lock()

    def of(self, what: str, since: datetime) -> timedelta:
        """How long ago `since` was; `what` tells apart things that began at the same time."""
        with self._lock:
            at = self._ticks()
            begun = self._begun.get((what, since))
            if begun is None:
                begun = at - max(0.0, (self._clock() - since).total_seconds())
                self._begun[what, since] = begun
            return timedelta(seconds=at - begun)


class AlreadyRunning(NomadsError):
    """A job does this work now: `job`."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} does the same now.")
        self.job = job
