"""What the application needs of the world, in the domain's words.

Every adapter raises only `Unavailable` (try again) or `Refused` (do not) of `bot.domain.errors`, never its vendor's
errors, and puts no secret into either. Ports are safe to call from several threads at once. Times are aware, in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pydantic import SecretStr

from bot.domain.messages import Home, Mail, Step, Story
from bot.domain.people import Privacy, Standing
from bot.domain.results import Link, Opened, Part, ResultFile
from bot.domain.states import JobState
from bot.domain.volume import Experiment
from bot.domain.work import Hint, LogLine, Observation, Work, at_once


class Compute(Protocol):
    """Runs programs: subprocesses on this machine, or AWS Batch.

    Work with a `count` is an array: one compute id stands for all its programs, which are its children and have compute
    ids of their own (`child`). `observe`, `Logs` and `console` take these too.
    """

    @property
    def max_count(self) -> int:
        """The largest `count` of one Work; `submit` refuses a larger one."""

    @property
    def lasts(self) -> bool:
        """Whether `lasting` Work runs on other machines than other Work does, on such as are not taken back."""

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why this compute cannot run such a program, in words for a person; empty where it can. No I/O."""

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        """Start the program and return the compute id. Returns as soon as it is queued.

        `turn` waits until a submission may be made, and is called right before each request that makes one, when
        everything else is ready. What it raises is passed on, with nothing submitted.
        """

    def find(self, name: str) -> str | None:
        """The compute id of the work of that name, however it fared; None where compute never saw it."""

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """The state of each id, for any number of ids; an id that compute does not know is absent.

        Of an array, the Observation is that of `Observation.of_array`: it counts children by state, and costs no call
        for each of them.

        Raises Unclear, which holds the others, where what compute says of some makes no sense.
        """

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What `observe` said last of work that has not moved since, as a listing shows; all else is absent.

        `ids` is all work that is watched: what was said of other work is forgotten. Empty where compute has no listing
        that costs less than `observe`.
        """

    def child(self, compute_id: str, number: int) -> str:
        """The compute id of one program of an array, by its number from 0. No I/O: there need be no such program."""

    def children(self, compute_id: str, *, states: Collection[JobState] | None = None) -> Mapping[int, Observation]:
        """What is seen of the programs of an array by their numbers, of those in these states; None: of all.

        Empty for work that is no array, or unknown. Costs calls in proportion to the programs in these states, so it is
        for when the array's summary has changed. Those that FAILED come with all that is known; of others, attempt and
        log may be missing. A program that moves meanwhile may be absent.
        """

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """End the work, queued or running, as FAILED with that reason; of an array all programs, at once.

        Work that ends by itself before that stays as it ended; finished or unknown work is left as it is.
        """

    def console(self, compute_id: str) -> str:
        """Where an admin sees the work; empty where there is no such page. No I/O."""


class Events(Protocol):
    """What compute tells by itself of work that may have moved. Events may be doubled, late, lost or forged."""

    def receive(self, *, within: float) -> Sequence[Hint]:
        """The next events, as soon as there are any, and after `within` seconds at the latest; empty: there are none.

        An event comes again after a while unless it is acknowledged.
        """

    def acknowledge(self, hints: Sequence[Hint]) -> None:
        """Let these events not come again."""


class Logs(Protocol):
    """What programs printed (stdout and stderr together), unfiltered: with control characters and secrets.

    `log` is `Observation.log`, where compute stores the output; None: not known.
    """

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last `lines` lines, oldest first; empty if there are none. Times never go backwards."""

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """The whole output so far, oldest first; no piece where there is none.

        Pieces have about 1 MB at most and are fetched one by one; a piece may end within a line or a character.
        Errors are raised during the iteration.
        """

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """Strike the secret out of the output of ended work, where files of this machine store the output.

        Unknown work, running work, and the word `public` are left as they are. The id of an array stands for all its
        programs; an array itself has no output.
        """


class Results(Protocol):
    """Stores what programs write. A folder is `results key/job id`; names within it may have slashes."""

    def uri(self, folder: str) -> str:
        """Where the program writes: `s3://bucket/folder/` or `file:///…/folder/`."""

    def list(self, folder: str) -> list[ResultFile]:
        """The folder's files, by name; empty where there is no such folder."""

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """A file's content. Raises NotFound where it is absent and Refused where it has more than `limit` bytes."""

    def open(self, folder: str, name: str) -> Opened:
        """A file, opened for reading. Raises NotFound where it is absent."""

    def part(self, folder: str, name: str, start: int, length: int) -> Part:
        """`length` bytes of a file from byte `start` on, 1 to MAX_PART. Raises NotFound where the file is absent."""

    def link(self, folder: str, name: str) -> Link:
        """The address of one file in its store, whether or not it exists, for people whom no web of the bot's serves.

        Raises Refused for a name that leads out of the folder.
        """

    def redirect(self, folder: str, name: str) -> Link | None:
        """A fresh address at which the store itself gives the file to a browser, for a few minutes.

        None where only the bot can read its store. Raises NotFound where the file is absent.
        """

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        """Write a file, whole or not at all, over any file of that name. Memory holds a few pieces at a time.

        Raises Refused for a name that leads out of the folder. If `content` raises, that error passes, and nothing is
        written.
        """


class Secrets(Protocol):
    """Stores tokens where compute reads them, outside the database. A reference says nothing about the token."""

    def put(self, owner: str, value: SecretStr) -> str:
        """Store the token for its owner; returns its reference, maybe the same one for the same owner and token."""

    def get(self, reference: str) -> SecretStr:
        """The stored token. Raises NotFound."""

    def forget(self, reference: str) -> None:
        """Erase the token; an unknown reference is no error."""

    def holds(self, reference: str) -> bool:
        """Whether the reference is one that this kind of Secrets makes. No I/O."""


class Backend(Protocol):
    """One way to run programs: adapters that belong together. `bot.backends` lists the backends."""

    @property
    def compute(self) -> Compute:
        """The adapter that runs programs."""

    @property
    def logs(self) -> Logs:
        """The adapter that has what programs printed."""

    @property
    def results(self) -> Results:
        """The adapter that has what programs wrote."""

    @property
    def secrets(self) -> Secrets | None:
        """Where this compute reads tokens; None: in the sealed rows of the database."""

    @property
    def events(self) -> Events | None:
        """What this compute tells by itself; None: it is only asked."""

    @property
    def watch_interval(self) -> float:
        """Seconds between two looks at running jobs, unless the settings say otherwise."""

    @property
    def submissions(self) -> float | None:
        """How many submissions this compute takes in any second, of all processes together; None: any number."""

    @property
    def announcement(self) -> str:
        """A warning that the bot logs at its start, and `doctor`; empty: none."""


class Workspace(Protocol):
    """Facts about people and channels of the chat. A fact that chat does not tell in time counts as not known."""

    def mail_of(self, user: str) -> str | None:
        """The address in the person's profile; empty where there is none, None where chat does not tell now."""

    def name_of(self, user: str) -> str:
        """The name by which others know the person; empty where it is not known."""

    def trouble_with(self, channel: str) -> str:
        """Why NOMADS cannot post to the channel, in words for the person who chose it; empty where it can."""

    def standing_of(self, user: str) -> Standing | None:
        """Who the person is in the workspace; None where chat does not tell now."""

    def privacy_of(self, channel: str) -> Privacy | None:
        """For whom the channel is; None where chat does not tell now."""

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        """The public and private channels that the person is in, among those that chat tells NOMADS of.

        None where chat does not tell now. An older answer without the channel `wanted` is asked for anew.
        """

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """The address of a message; empty where it is not known."""


class NoWorkspace:
    """The workspace of a process without chat: nothing is known."""

    def mail_of(self, user: str) -> str | None:
        """None: profiles are not known."""
        return None

    def name_of(self, user: str) -> str:
        """Empty: profiles are not known."""
        return ""

    def trouble_with(self, channel: str) -> str:
        """Empty: a process with chat will find out."""
        return ""

    def standing_of(self, user: str) -> Standing | None:
        """None: people are not known."""
        return None

    def privacy_of(self, channel: str) -> Privacy | None:
        """None: channels are not known."""
        return None

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        """None: channels are not known."""
        return None

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """Empty: addresses of messages are not known."""
        return ""


class Mailer(Protocol):
    """Sends mail: SMTP, SES, or nobody."""

    def send(self, mail: Mail) -> None:
        """Hand the mail to the mail server. Raises Refused where the server will never take it."""


class Chat(Protocol):
    """Posts to a channel. A timestamp identifies a posted message; all attempts to post one message share a `key`."""

    def post_card(self, story: Story, *, key: str) -> str:
        """Post the job's card to its channel; returns its timestamp."""

    def edit_card(self, story: Story, timestamp: str) -> None:
        """Show the story on the posted card."""

    def post_reply(self, story: Story, steps: Sequence[Step], *, thread: str, key: str) -> str:
        """Tell the steps in the card's thread as one reply; returns its timestamp."""

    def edit_reply(self, story: Story, steps: Sequence[Step], timestamp: str) -> None:
        """Replace the steps that a posted reply tells."""

    def post_file(self, story: Story, *, thread: str, name: str, title: str, content: bytes) -> None:
        """Show a file in the thread. The caller names it uniquely."""

    def tell(self, person: str, text: str) -> None:
        """Send this person a direct message of plain words. Raises Refused for somebody who has left."""

    def show_home(self, person: str, home: Home) -> None:
        """Show this person that home tab."""

    def post_direct(self, story: Story, steps: Sequence[Step], *, key: str) -> str:
        """Tell the job's owner alone these steps; without any, that the job's card could not be posted.

        Returns the message's timestamp.
        """

    def find_direct(self, story: Story, *, key: str) -> str | None:
        """The timestamp of the message to the job's owner with that key, if it was posted."""

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        """The timestamp of the job's message with that key (or of the file of that name), if it was posted."""


class Volumes(Protocol):
    """The volumes of BOSS, as one token may see them. Public data is seen with the token `public`.

    Every call returns or raises within about `within` seconds, whatever BOSS does. A question that takes longer goes
    on, and its answer may be known at the next call; so `within=0` asks only for what is known already. Calls raise
    Unavailable where BOSS fails or is too slow, and VolumesRefused where BOSS says no; no error repeats BOSS's text.
    Names outside BOSS's alphabet count as unknown and are not listed.
    """

    def collections(self, *, token: SecretStr, within: float) -> Sequence[str]:
        """The collections the token may read, in BOSS's order. Raises TokenRefused."""

    def experiments(self, collection: str, *, token: SecretStr, within: float) -> Sequence[str]:
        """The collection's experiments. Raises TokenRefused, UnknownCollection or NotAllowed."""

    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment:
        """The experiment. Channels for which time runs out have no data type.

        Raises TokenRefused, UnknownCollection, UnknownExperiment, NotAllowed or Unusable.
        """

    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None:
        """Whether the token may add channels to the experiment; None where BOSS does not tell now.

        False for an unknown experiment. Raises TokenRefused, and nothing else.
        """

    def prepare(self) -> None:
        """Do now what the first question would wait for."""

    def close(self) -> None:
        """Close every connection."""
