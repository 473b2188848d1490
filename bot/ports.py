"""What the application needs of the world, in the domain's words.

Every adapter raises only `bot.jobs.Unavailable` (try again) or `bot.jobs.Refused` (do not), never its vendor's errors,
and puts no secret into either. All are safe to call from several threads at once. Times are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from pydantic import SecretStr

from bot.jobs import Job, JobState, LogLine, NotFound, Observation, Preferences, Refused, ResultFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One run of a program, as compute is asked to do it."""

    name: str
    """Unique; at most 128 characters of Batch's alphabet. Submitting a name twice is the caller's mistake to avoid."""
    pipeline: str
    image: str
    """The container image; an adapter that runs no containers ignores it."""
    command: Sequence[str]
    """The program; `arguments` are appended to it."""
    arguments: Sequence[str]
    """`--host H --col C …`, without the token."""
    token_argument: bool = False
    """A 2018 image: the program takes only `--token`. Otherwise it reads BOSS_TOKEN from its environment."""
    cpu: float
    """Virtual processors."""
    memory: int
    """MiB."""
    timeout: timedelta
    owner: str
    """Whose token it is."""
    token: str
    """The token's reference in this compute's Secrets."""
    tags: Mapping[str, str] = field(default_factory=dict)


class Compute(Protocol):
    """Runs programs: subprocesses on this machine, or AWS Batch."""

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why this compute cannot run such a program, in words for a person; empty where it can. No I/O."""

    def submit(self, work: Work) -> str:
        """Start the program and return the compute id. Returns as soon as it is queued."""

    def find(self, name: str) -> str | None:
        """The compute id of the work of that name, however it fared; None where compute never saw it."""

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is known of each id, any number of them; an id compute does not know is absent."""

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """End the work, queued or running. It ends as FAILED with that reason.

        Work that ends by itself before that keeps how it ended; finished or unknown work is left as it is.
        """

    def log_tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last `lines` lines the program printed (stdout and stderr), oldest first; empty if there are none.

        What it printed comes as it is, control characters and secrets among it. Times never go backwards.
        """

    def log(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """All the program has printed so far, oldest first; nothing where there is none.

        It comes in pieces of about 1 MB at most, fetched one by one; a piece may end within a line or a character.
        Raises as every call does, but while it is iterated.
        """

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """Where this compute keeps the output of ended work in files of its own, strike the secret out of them.

        Unknown work, work that runs, and the word `public` are left as they are.
        """

    def console(self, compute_id: str) -> str:
        """Where an admin sees the work; empty where there is no such page. No I/O."""


@dataclass(frozen=True, slots=True)
class Link:
    """An address a person can open, and until when; None: as long as the file is there."""

    url: str
    expires: datetime | None = None


class Results(Protocol):
    """Keeps what programs write. A folder is `results key/job id`; names within it may have slashes."""

    def uri(self, folder: str) -> str:
        """Where the program writes: `s3://bucket/folder/` or `file:///…/folder/`."""

    def address(self, folder: str) -> str:
        """Where a person looks at the folder."""

    def list(self, folder: str) -> list[ResultFile]:
        """The files there, by name; empty where there is no such folder."""

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """A file's content. Raises NotFound where it is absent and Refused where it has more than `limit` bytes."""

    def link(self, folder: str, name: str) -> Link:
        """An address for one file, whether or not it exists."""

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        """Put a file there, whole or not at all, in place of one of that name. Memory holds a few pieces at a time.

        Raises Refused for a name that leads out of the folder. What `content` raises is raised, and changes nothing.
        """


class Secrets(Protocol):
    """Keeps tokens. A reference says nothing about the token."""

    def put(self, owner: str, value: SecretStr) -> str:
        """Keep it for its owner and return its reference. The same owner and value may give the same reference."""

    def get(self, reference: str) -> SecretStr:
        """The value. Raises NotFound."""

    def forget(self, reference: str) -> None:
        """Erase it; an unknown reference is no error."""

    def holds(self, reference: str) -> bool:
        """Whether the reference is of this kind of keeper. No I/O."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message. `message_id` is fixed by the caller, so that a second sending is recognised as the same mail."""

    to: str
    subject: str
    text: str
    html: str
    message_id: str
    """`<unique@domain>`, with the angle brackets."""


class Mailer(Protocol):
    """Sends mail: SMTP, SES, or nobody."""

    def send(self, mail: Mail) -> None:
        """Hand it to the mail server. Raises Refused where the server will never take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a job's story, in words for a person."""

    text: str
    at: datetime
    state: JobState


@dataclass(frozen=True, slots=True)
class SavedToken:
    """What may be shown of a token that is kept for a person."""

    ending: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What the app's own tab shows a person."""

    running: Sequence[Job]
    running_in_all: int
    """How many of their jobs have not ended; `running` may show fewer."""
    recent: Sequence[Job]
    saved: SavedToken | None
    preferences: Preferences


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A job as chat shows it."""

    job: Job
    pipeline_title: str
    size: int
    """Bytes the program reads."""
    links: Sequence[tuple[str, Link]] = ()
    """Title and address of each result."""
    address: str = ""
    """Where the results folder is looked at."""
    mention: str | None = None
    """Who is named in a reply, so that chat notifies them."""
    helpers: Sequence[str] = ()
    """Who is named in a reply that says why a job waits: they can help."""


CANCELLED = "Cancelled from NOMADS."
"""The reason that compute is given, and gives back, for the end of a job that somebody cancelled."""


class Chat(Protocol):
    """Tells people in a channel. A message is named by its timestamp; `key` is unique to a message, whoever retries."""

    def post_card(self, story: Story, *, key: str) -> str:
        """Post the job's card to its channel; returns its timestamp."""

    def edit_card(self, story: Story, timestamp: str) -> None:
        """Bring the card up to date."""

    def post_reply(self, story: Story, steps: Sequence[Step], *, thread: str, key: str) -> str:
        """Tell the steps in the card's thread as one reply; returns its timestamp."""

    def edit_reply(self, story: Story, steps: Sequence[Step], timestamp: str) -> None:
        """Let that reply tell these steps."""

    def post_file(self, story: Story, *, thread: str, name: str, title: str, content: bytes) -> None:
        """Show a file in the thread. The caller names it uniquely."""

    def show_home(self, person: str, home: Home) -> None:
        """Show this person their home tab like that."""

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        """The timestamp of the job's message with that key (or of the file of that name), if it was posted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of an experiment."""

    name: str
    datatype: str = ""
    """As BOSS says, such as `uint8`; empty where it could not be learned in time or may not be known."""

    @property
    def bytes(self) -> int | None:
        """Bytes of one voxel; None where the data type is unknown or none that programs read."""
        return _VOXEL_BYTES.get(self.datatype)


_VOXEL_BYTES = {"uint8": 1, "uint16": 2, "uint64": 8}
"""What the field's BOSS client reads; it does not read uint32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What BOSS says of an experiment, checked and bounded. Axes are z, y, x, in voxels at resolution 0."""

    collection: str
    name: str
    bounds: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """Half-open `(start, stop)` of z, y and x, with start < stop; within 64 bits, and possibly negative."""
    voxel_nm: tuple[float, float, float]
    """A voxel's size in nanometres; finite and above 0."""
    channels: tuple[Channel, ...]
    """In BOSS's order."""


class VolumesRefused(Refused):
    """BOSS said no. `field` is the part of a request it is about: `token`, `collection` or `experiment`."""

    field: str


class TokenRefused(VolumesRefused):
    """BOSS does not take the token."""

    field = "token"

    def __init__(self) -> None:
        super().__init__("BOSS refuses this token. Copy it again from BOSS's token page, or make a new one there.")


class NotAllowed(VolumesRefused):
    """The token is good, and gives no right to read this. `experiment` is empty where it is about the collection."""

    def __init__(self, collection: str, experiment: str = "") -> None:
        what = f"the experiment {_shown(experiment)} of {_shown(collection)}" if experiment else _shown(collection)
        super().__init__(
            f"This token may not read {what}. Ask whoever looks after it in BOSS for the right, or use another token."
        )
        self.field = "experiment" if experiment else "collection"


class UnknownCollection(VolumesRefused, NotFound):
    """BOSS has no collection of that name. `near` are names that resemble it."""

    field = "collection"

    def __init__(self, collection: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(f"BOSS has no collection {_shown(collection)}; {_advice(near)}")
        self.near = tuple(near)


class UnknownExperiment(VolumesRefused, NotFound):
    """The collection has no experiment of that name. `near` are names that resemble it."""

    field = "experiment"

    def __init__(self, collection: str, experiment: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(
            f"BOSS has no experiment {_shown(experiment)} in the collection {_shown(collection)}; {_advice(near)}"
        )
        self.near = tuple(near)


class Unusable(VolumesRefused):
    """BOSS shows the experiment, but not so that anything can be run on it."""

    field = "experiment"


def _advice(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(_shown(name) for name in near[:3])}?" if near else "check its spelling."


def _shown(name: str, limit: int = 60) -> str:
    """A name within a text: what a person typed is cut, and nothing in it is invisible or turns the writing round."""
    clean = "".join(c if c.isprintable() else "�" for c in name[: limit + 1])
    return f"“{clean if len(clean) <= limit else clean[: limit - 1] + '…'}”"


class Volumes(Protocol):
    """The volumes of BOSS, as one token may see them. Public data is seen with the token `public`.

    Every call returns or raises within about `within` seconds of the caller's time, whatever BOSS does; what it asked
    for goes on and may be known at the next call. So `within=0` asks what is known already. Raises Unavailable where
    that is not enough or BOSS fails, and the VolumesRefused that says what it refuses; neither repeats what BOSS wrote.
    Names that are none in BOSS's alphabet are unknown, and are not listed.
    """

    def collections(self, *, token: SecretStr, within: float) -> Sequence[str]:
        """The collections the token may read, in BOSS's order. Raises TokenRefused."""

    def experiments(self, collection: str, *, token: SecretStr, within: float) -> Sequence[str]:
        """The collection's experiments. Raises TokenRefused, UnknownCollection or NotAllowed."""

    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment:
        """The experiment. Where time runs out for some channels, these have no data type.

        Raises TokenRefused, UnknownCollection, UnknownExperiment, NotAllowed or Unusable.
        """

    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None:
        """Whether channels may be added to the experiment (an unknown one: no); None where that cannot be known now.

        Raises TokenRefused, and nothing else.
        """
