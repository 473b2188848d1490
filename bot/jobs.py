"""The domain: what a job is, what may be asked for, and the states it passes through.

Axes are z, y, x unless said; ranges are half-open and in voxels at resolution 0.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

MAX_COORDINATE = 2**31 - 1
"""The largest coordinate understood, in voxels; no BOSS coordinate frame comes near it."""
MAX_NAME = 255
"""The longest collection, experiment or channel name BOSS takes."""
MAX_COMPUTE_NAME = 128
"""The longest job name AWS Batch takes."""
MAX_FOLDER = 240
"""The longest results folder's name; file systems take 255 bytes."""
PUBLIC_TOKEN = "public"  # noqa: S105  it is no secret: BossDB publishes it
"""The token that reads public data; a word that programs may print."""
MAX_EMAIL = 254
"""The longest address SMTP carries (RFC 5321, 4.5.3.1.3, less the angle brackets)."""

_RANGE = re.compile(r"([0-9]+)\s*[,:]\s*([0-9]+)")
_PROGRESS = re.compile(r"progress ([0-9](?:\.[0-9]{1,6})?) ([A-Za-z][A-Za-z ]{0,29})")  # no token looks like this
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


TERMINAL = "cli:"
"""How the name of somebody at a terminal begins."""


class NomadsError(Exception):
    """Anything this project raises on purpose. Its text is meant for a person and holds no secret."""


class InvalidRequest(NomadsError):
    """The request cannot be taken. `errors` maps a field's name to what is wrong and what to do."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = dict(errors)


class UnknownJob(NomadsError):
    """No job has that id."""


class NotYours(NomadsError):
    """Somebody asks for what only a job's owner, or an admin, may do."""


class TooLate(NomadsError):
    """The job is not, or no longer, in a state in which that can be done."""


class Unavailable(NomadsError):
    """A service did not answer or asked for patience: the same call may succeed later.

    `retry_after` is the number of seconds it asked for, where it named one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(NomadsError):
    """A service said no, and would say it again: repeating the call is pointless."""


class NotFound(Refused):
    """The thing asked for does not exist (any more)."""


@dataclass(frozen=True, order=True)
class Range:
    """A half-open range `[start, stop)` of voxels along one axis; `0 <= start < stop <= MAX_COORDINATE`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        for end in (self.start, self.stop):
            if end < 0:
                raise ValueError(f"{end} is negative; coordinates count from 0.")
            if end > MAX_COORDINATE:
                raise ValueError(
                    f"{_short(str(end))} is beyond any volume; the largest coordinate is {MAX_COORDINATE}."
                )
        if self.start >= self.stop:
            raise ValueError(
                f"start ({self.start}) must be smaller than stop ({self.stop}); the stop itself is not included."
            )

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read `start, stop` or `start:stop`. Raises ValueError in words for the person who typed it."""
        text = text.strip()
        if not text:
            raise ValueError("Write two whole numbers, start and stop, such as 0, 512.")
        if re.fullmatch(r"[-+0-9]+\s*[,:]\s*[-+0-9]+", text) and "-" in text:
            raise ValueError(f"{_short(text)} has a negative number; coordinates count from 0.")
        found = _RANGE.fullmatch(text)
        if not found:
            raise ValueError(f"“{_short(text)}” is not two whole numbers; write start and stop, such as 0, 512.")
        for digits in found.groups():
            if len(digits) > 19:  # int() of a very long string is slow, and the answer is known
                raise ValueError(f"{_short(digits)} is beyond any volume; the largest coordinate is {MAX_COORDINATE}.")
        return cls(int(found[1]), int(found[2]))

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.start}, {self.stop}"


@dataclass(frozen=True)
class Box:
    """A box of voxels at resolution 0."""

    z: Range
    y: Range
    x: Range

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in voxels, (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        z, y, x = self.shape
        return z * y * x

    def largest_within(self, voxels: int) -> Box:
        """From the same corner, a box of at most `voxels` (at least one) that cannot be larger; long sides give way."""
        low, high = 1, max(self.shape)
        while low < high:  # the largest side length that still fits
            side = (low + high + 1) // 2
            if self._cut(side).voxels <= voxels:
                low = side
            else:
                high = side - 1
        cut = self._cut(low)
        sides = list(cut.shape)
        for axis, whole in enumerate(self.shape):  # what is left goes to the first side that can grow
            others = math.prod(sides) // sides[axis]
            sides[axis] = max(1, min(whole, voxels // others))
        corner = (self.z.start, self.y.start, self.x.start)
        return Box(*(Range(start, start + side) for start, side in zip(corner, sides, strict=True)))

    def _cut(self, side: int) -> Box:
        z, y, x = (Range(r.start, min(r.stop, r.start + side)) for r in (self.z, self.y, self.x))
        return Box(z, y, x)

    def __str__(self) -> str:
        return f"x {self.x} · y {self.y} · z {self.z}"


def _short(text: str, limit: int = 40) -> str:
    """What a person typed, for an error text: printable and bounded."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _range(value: Any) -> Any:
    return Range.parse(value) if isinstance(value, str) else value


def _name(what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value:
            raise ValueError(f"Write the {what}'s name, as BOSS spells it.")
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"“{_short(value)}” is not a name BOSS knows; letters, digits, - and _ are allowed, without spaces."
            )
        if len(value) > MAX_NAME:
            raise ValueError(f"This has {len(value)} characters; BOSS's names have at most {MAX_NAME}.")
        return value

    return AfterValidator(check)


def _email(value: str) -> str:
    if not value:
        raise ValueError("Write the address the results should be mailed to.")
    if not value.isprintable():
        raise ValueError("The address has a line break or another invisible character in it; write one plain address.")
    if value.count("@") != 1 or any(c in value for c in ",; "):
        raise ValueError(f"“{_short(value)}” is not one mail address; write a single one, such as name@example.org.")
    if len(value) > MAX_EMAIL or not _EMAIL.fullmatch(value) or not _is_address(value):
        raise ValueError(f"“{_short(value)}” is not a mail address; write one such as name@example.org.")
    return value


def _is_address(value: str) -> bool:
    """Whether the library that will write the mail takes it (dots where none may be, for one)."""
    try:
        return bool(Address(addr_spec=value).domain)
    except (ValueError, IndexError, MessageError):
        return False


def _trim(value: Any) -> Any:
    """Spaces round a value are the keyboard's, not the person's; line breaks are left for the checks to refuse."""
    return value.strip(" \t") if isinstance(value, str) else value


Trim = BeforeValidator(_trim)
RangeField = Annotated[Range, BeforeValidator(_range)]


class JobRequest(BaseModel):
    """What a person asks for: a pipeline on a box of an experiment, and where the results should go.

    `channel` is the Slack channel id that hears of it, or None where nobody listens in Slack.
    The BOSS token is deliberately not part of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Annotated[str, _name("pipeline"), Trim]
    collection: Annotated[str, _name("collection"), Trim]
    experiment: Annotated[str, _name("experiment"), Trim]
    x: RangeField
    y: RangeField
    z: RangeField
    email: Annotated[str, AfterValidator(_email), Trim]
    channel: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,32}$")] | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> JobRequest:
        """Read what a person typed. Raises InvalidRequest with every mistake, by field, at once."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidRequest(_by_field(error)) from None

    @property
    def box(self) -> Box:
        """The volume asked for."""
        return Box(self.z, self.y, self.x)

    @property
    def results_key(self) -> str:
        """Names the results folder, as the 2018 service did."""
        return (
            f"{self.pipeline}_{self.collection}_{self.experiment}"
            f"_z_{self.z.start}_{self.z.stop}_y_{self.y.start}_{self.y.stop}_x_{self.x.start}_{self.x.stop}"
        )


def _by_field(error: ValidationError) -> dict[str, str]:
    """The first mistake of every field, in words for a person (pydantic's own wording is for programmers)."""
    errors: dict[str, str] = {}
    for found in error.errors(include_url=False, include_input=False):
        field = str(found["loc"][0]) if found["loc"] else "request"
        if found["type"] == "value_error":
            text = str(found["ctx"]["error"])
        elif found["type"] == "missing":
            text = "This is needed."
        elif found["type"] == "extra_forbidden":
            text = "There is no such field."
        elif field == "channel":
            text = "Choose a channel from the list."
        else:
            text = "This cannot be understood; write it as in the example."
        errors.setdefault(field, text)
    return errors


def compute_name(results_key: str, job_id: str) -> str:
    """A unique name in Batch's alphabet, at most MAX_COMPUTE_NAME long; one that is too long is cut and hashed."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", results_key)
    if not stem[:1].isalnum():
        stem = "n" + stem
    return f"{_cut(stem, MAX_COMPUTE_NAME - len(job_id) - 1)}-{job_id}"


def _cut(text: str, room: int) -> str:
    """At most `room` characters; what is longer ends in a hash of the whole, so that it stays unique."""
    return text if len(text) <= room else f"{text[: room - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class JobState(StrEnum):
    """Where a job stands. ACCEPTED is ours, SUBMITTED to RUNNING are AWS Batch's words, the rest are ends."""

    ACCEPTED = "ACCEPTED"
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    RUNNABLE = "RUNNABLE"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"

    def follows(self, other: JobState) -> bool:
        """Whether a job in `other` may move to this state. Jobs never move backwards, and an end is an end."""
        return other not in FINAL and _RANK[self] > _RANK[other]


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST})
"""Nothing happens to a job any more."""
UNFINISHED = tuple(state for state in JobState if state not in FINAL)
"""From first to last."""
MISSED = frozenset({JobState.FAILED, JobState.LOST})
"""Ends that nobody wanted."""
WATCHED = frozenset({JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING})
"""Compute has the job, and is asked about it."""
WAITING = frozenset({JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE, JobState.STARTING})
"""Compute has the job, and its program does not run yet."""
_RANK = {state: min(rank, 6) for rank, state in enumerate(JobState)}


class Steps(StrEnum):
    """Which steps of their jobs a person wants to be told in the thread."""

    ALL = "all"
    END = "end"
    FAILURES = "failures"


@dataclass(frozen=True)
class Preferences:
    """How a person wants to hear of their jobs."""

    steps: Steps = Steps.ALL
    mention: bool = False
    """Whether the end names them, so that Slack notifies them."""
    mail: bool = True

    def tells(self, state: JobState) -> bool:
        """Whether the step into that state is told in the thread."""
        match self.steps:
            case Steps.ALL:
                return True
            case Steps.END:
                return state in FINAL
            case Steps.FAILURES:
                return state in MISSED


@dataclass(frozen=True)
class Observation:
    """What compute says of a job at one moment."""

    state: JobState
    reason: str = ""
    """Why it failed; of a RUNNABLE job, why it waits and who can help, in words for a person; empty: not known."""
    exit_code: int | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    log: str | None = None
    """Where compute keeps the program's output; only compute understands it."""


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
        """The last `progress 0.42 reading` among the lines a program printed, if there is one."""
        found = next((found for line in reversed(lines) if (found := _PROGRESS.fullmatch(line.strip()))), None)
        return cls(min(1.0, float(found[1])), found[2]) if found else None


@dataclass(frozen=True)
class ResultFile:
    """A file in a results folder; `name` is relative to the folder, `size` in bytes."""

    name: str
    size: int


def _result_name(name: str) -> str:
    """A path within the folder, of parts that are names."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("this is not the name of a file in the results folder")
    return name


ResultName = Annotated[str, Field(max_length=255), AfterValidator(_result_name)]


class Finding(BaseModel):
    """A file a program announces in its results.json, or left without announcing it."""

    model_config = ConfigDict(extra="ignore")
    name: ResultName
    title: Annotated[str, Field(max_length=255)] = ""
    media_type: Annotated[str, Field(max_length=127)] = "application/octet-stream"


class Summary(BaseModel):
    """What a finished job found: the bounded, checked part of its results.json (data from outside, never trusted)."""

    model_config = ConfigDict(extra="ignore")
    counts: Annotated[dict[Annotated[str, Field(max_length=64)], int], Field(max_length=20)] = {}
    files: Annotated[list[Finding], Field(max_length=100)] = []
    preview: ResultName | None = None
    viewer: Annotated[str, Field(max_length=3000, pattern=r"^https?://[^\s<>|]+$")] | None = None
    notes: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=10)] = []


@dataclass(frozen=True)
class Expected:
    """What a run was expected to take when it was accepted."""

    seconds: float
    """Half of the runs it was learned from were quicker."""
    longest: float
    """Nine in ten of them took no longer."""
    learned: int = 0
    """How many runs of this installation it was learned from; 0: it is what the catalogue says."""
    price: float | None = None
    """Of an hour of such a run; None: prices are not known here."""
    currency: str = "$"

    @property
    def cost(self) -> float | None:
        """Of the expected time."""
        return self.cost_of(self.seconds)

    def cost_of(self, seconds: float) -> float | None:
        """Of that time."""
        return None if self.price is None else self.price * seconds / 3600


class Job(BaseModel):
    """A job as it stands in the store. Times are UTC."""

    model_config = ConfigDict(frozen=True)

    id: str
    key: str
    """The caller's idempotency key: a second request with the same key is the same job."""
    request: JobRequest
    actor: str
    """Who asked: a Slack user id, or `cli:` and a login name."""
    state: JobState
    reason: str = ""
    compute_id: str | None = None
    token_ref: str | None = None
    """The Secrets reference of the BOSS token; never the token."""
    log: str | None = None
    log_tail: tuple[str, ...] = ()
    """The last lines of the program's output, kept when it failed."""
    exit_code: int | None = None
    summary: Summary | None = None
    progress: Progress | None = None
    """What the program last said of itself while it ran."""
    cancelled_by: str | None = None
    """Who asked for its end."""
    cancelled_at: datetime | None = None
    attempt: int = 1
    retry_of: str | None = None
    """The job that this one tries again."""
    retried_as: str | None = None
    """The job that tries this one again."""
    waiting: str = ""
    """Why it waits to run, once it has waited for long."""
    work: str = ""
    """Two jobs with the same work do the same: a digest of results key, pipeline version or image, and parameters."""
    size: int | None = None
    """Bytes the program reads, by the channels' data types; None: not known yet."""
    checked: bool = True
    """Whether BOSS has said that the request can work; until then it is not submitted."""
    expected: Expected | None = None
    accepted_at: datetime
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def name(self) -> str:
        """The unique name compute knows the job by."""
        return compute_name(self.request.results_key, self.id)

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in FINAL

    @property
    def retryable(self) -> bool:
        """Whether trying it again makes sense: it ended without success, and was not tried again yet."""
        return self.ended and self.state is not JobState.SUCCEEDED and self.retried_as is None

    @property
    def turned_down(self) -> bool:
        """Whether the request itself was wrong: BOSS said so before it was submitted, or the program did (exit 2)."""
        return self.state is JobState.FAILED and (not self.checked or self.exit_code == 2)

    @property
    def took(self) -> timedelta | None:
        """How long it ran; None where it did not, or has not ended."""
        return self.finished_at - self.started_at if self.started_at and self.finished_at else None

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
        return _ADVICE.get(self.exit_code or 0, "Retry it; if it fails again, show this to whoever runs NOMADS.")


_ADVICE = {
    2: "Correct the request and submit it again.",
    3: "If it is the token or its permissions, mend that; otherwise try again later.",
}
"""By a program's exit code (the pipelines' contract, version 1)."""


class AlreadyRunning(NomadsError):
    """A job does this work now: `job`."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} does the same now.")
        self.job = job
