"""What the application needs of the world, in the domain's words.

Every adapter raises only `Unavailable` (try again) or `Refused` (do not) of `bot.domain.errors`, never its vendor's
errors, and puts no secret into either. All are safe to call from several threads at once. Times are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pydantic import SecretStr

from bot.domain.messages import Home, Mail, Step, Story
from bot.domain.results import Link, ResultFile, ServedResults
from bot.domain.volume import Experiment
from bot.domain.work import LogLine, Observation, Work


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

    def console(self, compute_id: str) -> str:
        """Where an admin sees the work; empty where there is no such page. No I/O."""


class Logs(Protocol):
    """What programs printed (stdout and stderr together), as it came: control characters and secrets among it.

    `log` is where compute said it keeps the output (`Observation.log`); None: not known.
    """

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last `lines` lines, oldest first; empty if there are none. Times never go backwards."""

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """All that was printed so far, oldest first; nothing where there is none.

        It comes in pieces of about 1 MB at most, fetched one by one; a piece may end within a line or a character.
        Raises as every call does, but while it is iterated.
        """

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """Where the output of ended work is kept in files of this machine's own, strike the secret out of them.

        Unknown work, work that runs, and the word `public` are left as they are.
        """


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
    """Keeps tokens where compute takes them from, outside the database. A reference says nothing about the token."""

    def put(self, owner: str, value: SecretStr) -> str:
        """Keep it for its owner and return its reference. The same owner and value may give the same reference."""

    def get(self, reference: str) -> SecretStr:
        """The value. Raises NotFound."""

    def forget(self, reference: str) -> None:
        """Erase it; an unknown reference is no error."""

    def holds(self, reference: str) -> bool:
        """Whether the reference is of this kind of keeper. No I/O."""


class Backend(Protocol):
    """One way to run programs: the adapters that belong together. `bot.backends` names those there are."""

    @property
    def compute(self) -> Compute:
        """Runs programs."""

    @property
    def logs(self) -> Logs:
        """Has what they printed."""

    @property
    def results(self) -> Results:
        """Has what they wrote."""

    @property
    def served(self) -> ServedResults | None:
        """The results, where the bot serves them itself."""

    @property
    def secrets(self) -> Secrets | None:
        """Where this compute takes tokens from; None: from the sealed rows of the database."""

    @property
    def watch_interval(self) -> float:
        """Seconds between two looks at running jobs, unless the settings say otherwise."""

    @property
    def announcement(self) -> str:
        """What the log says at start, loudly; empty: nothing."""


class Workspace(Protocol):
    """Facts about people and channels of the chat. A question that chat does not answer in time is not known."""

    def mail_of(self, user: str) -> str:
        """The address in the person's profile; empty where it is not known."""

    def trouble_with(self, channel: str) -> str:
        """Why NOMADS cannot post to the channel, in words for the person who chose it; empty where it can."""

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """The address of a message; empty where it is not known."""


class NoWorkspace:
    """A process without chat: nothing is known."""

    def mail_of(self, user: str) -> str:
        """Empty."""
        return ""

    def trouble_with(self, channel: str) -> str:
        """Empty: a bot that has chat will find out."""
        return ""

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """Empty."""
        return ""


class Mailer(Protocol):
    """Sends mail: SMTP, SES, or nobody."""

    def send(self, mail: Mail) -> None:
        """Hand it to the mail server. Raises Refused where the server will never take it."""


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
