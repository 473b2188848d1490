"""Every port in memory: small, readable, and able to fail on demand.

    compute = MemoryCompute()
    compute.tell("the-job-s-name", Observation(JobState.RUNNING))   # what the next observe() says
    compute.fail_next(Unavailable("throttled"))                     # the next call fails, having done nothing
    compute.fail_after(Unavailable("lost answer"), call="submit")   # the next submit is done, and then fails
    with mailer.hanging("send"): ...                                # calls of send() wait until the block ends

`calls` names every call in order, failed ones among them.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from io import BytesIO
from urllib.parse import quote

from pydantic import SecretStr

from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.messages import Home, Mail, Step, Story
from bot.domain.results import Link, Opened, Part, ResultFile
from bot.domain.states import FINAL, JobState
from bot.domain.volume import Channel, Experiment, NotAllowed, TokenRefused, UnknownCollection, UnknownExperiment
from bot.domain.work import Hint, LogLine, Observation, Unclear, Work, at_once
from bot.mail.smtp import mime
from contract.masking import PUBLIC_TOKEN

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass
class _Fault:
    error: BaseException
    call: str
    after: bool


class Faulty:
    """What the fakes share: a record of calls, and failures on demand."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._faults: deque[_Fault] = deque()
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.RLock()

    def fail_next(self, error: BaseException, *, call: str = "", times: int = 1) -> None:
        """Let the next `times` calls (of the method `call`, or of any) raise the error and do nothing."""
        self._faults.extend(_Fault(error, call, after=False) for _ in range(times))

    def fail_after(self, error: BaseException, *, call: str = "", times: int = 1) -> None:
        """Let the next `times` calls (of the method `call`, or of any) do their work and then raise the error."""
        self._faults.extend(_Fault(error, call, after=True) for _ in range(times))

    @contextmanager
    def hanging(self, call: str) -> Iterator[None]:
        """Calls of that method wait, before they do anything, until the block ends."""
        gate = self._gates[call] = threading.Event()
        try:
            yield
        finally:
            del self._gates[call]
            gate.set()

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        with self._lock:
            self.calls.append(name)
            fault = next((f for f in self._faults if f.call in ("", name)), None)
            if fault:
                self._faults.remove(fault)
            gate = self._gates.get(name)
        if gate:
            gate.wait()
        if fault and not fault.after:
            raise fault.error
        with self._lock:
            yield
        if fault:
            raise fault.error


class MemoryEvents(Faulty):
    """Events that a test sends. Those that are not acknowledged come again with each `receive`."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[str, Hint] = {}
        self._number = itertools.count()

    @property
    def waiting(self) -> int:
        """How many events are not acknowledged."""
        return len(self._sent)

    def send(self, compute_id: str, claims: Observation | None = None, *, of_child: bool = False) -> None:
        """Let an event that names the work be received next."""
        receipt = str(next(self._number))
        self._sent[receipt] = Hint(compute_id, of_child=of_child, claims=claims, receipt=receipt)

    def receive(self, *, within: float) -> Sequence[Hint]:
        with self._call("receive"):
            return list(itertools.islice(self._sent.values(), 100))

    def acknowledge(self, hints: Sequence[Hint]) -> None:
        with self._call("acknowledge"):
            for hint in hints:
                self._sent.pop(hint.receipt, None)


class MemoryCompute(Faulty):
    """Compute that runs nothing: a job is in the state the test told, at first SUBMITTED."""

    def __init__(self, *, lasts: bool = False, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__()
        self._clock = clock
        self.works: list[Work] = []
        """Everything submitted, in order; the same name twice stands here twice."""
        self.submitted_at: list[datetime] = []
        """When each of `works` was submitted."""
        self.cancelled: dict[str, str] = {}
        """Compute id to the reason given."""
        self.unable = ""
        """What refuses() answers."""
        self.unclear: set[str] = set()
        """Compute ids of which observe() says nothing that makes sense."""
        self.said: dict[str, Observation] = {}
        """What observe() said last of each compute id."""
        self.max_count = 10_000
        self.lasts = lasts
        self._observations: dict[str, Observation] = {}
        self._counts: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._logs: dict[str, list[LogLine]] = {}

    def tell(self, name_or_id: str, observation: Observation) -> None:
        """Say what compute sees of the job from now on."""
        self._observations[self._id(name_or_id)] = observation

    def print(self, name_or_id: str, *lines: str, at: datetime | None = None) -> None:
        """Let the job's program print these lines, at that time or now."""
        at = at or self._clock()
        self._logs.setdefault(self._id(name_or_id), []).extend(LogLine(line, at) for line in lines)

    def now(self, compute_id: str) -> Observation | None:
        """What is true of the work, whatever `observe` says; None: there is no such work."""
        return self._seen(compute_id) if compute_id in self._observations else None

    def knows(self, name: str, compute_id: str, observation: Observation, *, count: int | None = None) -> None:
        """Have work that was submitted before; `count`: an array of so many programs, all of which were seen so."""
        self._names[name] = compute_id
        self._observations[compute_id] = observation
        if count:
            self._counts[compute_id] = count
            self._observations |= {self.child(compute_id, number): observation for number in range(count)}

    def lose(self, name_or_id: str) -> None:
        """Forget the job, as Batch does with old ones."""
        compute_id = self._id(name_or_id)
        del self._observations[compute_id]
        self._names = {name: known for name, known in self._names.items() if known != compute_id}

    def crash_after_submit(self) -> None:
        """Let the next submit succeed and its answer get lost."""
        self.fail_after(Unavailable("compute did not answer"), call="submit")

    def _id(self, name_or_id: str) -> str:
        return self._names.get(name_or_id, name_or_id)

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        return self.unable

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        with self._call("submit"):
            turn()
            if work.count is not None and not 1 <= work.count <= self.max_count:
                raise Refused(f"An array has 1 to {self.max_count} programs.")
            self.works.append(work)
            self.submitted_at.append(self._clock())
            compute_id = f"memory-{len(self.works)}"
            self._names[work.name] = compute_id
            self._observations[compute_id] = Observation(JobState.SUBMITTED)
            if work.count:
                self._counts[compute_id] = work.count
                self._observations |= {
                    self.child(compute_id, number): Observation(JobState.SUBMITTED) for number in range(work.count)
                }
            return compute_id

    def find(self, name: str) -> str | None:
        with self._call("find"):
            return self._names.get(name)

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        with self._call("observe"):
            seen = {i: self._seen(i) for i in ids if i in self._observations and i not in self.unclear}
            if doubtful := self.unclear & set(ids):
                raise Unclear("What compute says of it makes no sense.", ids=doubtful, seen=seen)
            self.said |= seen
            return seen

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        with self._call("glance"):
            self.said = {one: seen for one, seen in self.said.items() if one in ids}
            open_ = {one: self.said[one] for one in ids if one in self.said and self.said[one].state not in FINAL}
            return {one: seen for one, seen in open_.items() if seen == self.now(one)}

    def cancel(self, compute_id: str, *, reason: str) -> None:
        with self._call("cancel"):
            known = self._observations.get(compute_id)
            if known and self._seen(compute_id).state not in FINAL:
                self.cancelled[compute_id] = reason
                count = self._counts.get(compute_id, 0)
                for one in [compute_id, *(self.child(compute_id, number) for number in range(count))]:
                    if self._observations[one].state not in FINAL:
                        self._observations[one] = Observation(JobState.FAILED, reason, stopped_at=self._clock())

    def child(self, compute_id: str, number: int) -> str:
        return f"{compute_id}/{number}"

    def children(self, compute_id: str, *, states: Collection[JobState] | None = None) -> Mapping[int, Observation]:
        with self._call("children"):
            numbers = range(self._counts.get(compute_id, 0))
            seen = {number: self._observations[self.child(compute_id, number)] for number in numbers}
            return {number: one for number, one in seen.items() if states is None or one.state in states}

    def _seen(self, compute_id: str) -> Observation:
        """What is seen of a job; of an array, by what the test told of its children."""
        if not (count := self._counts.get(compute_id)):
            return self._observations[compute_id]
        children = [self._observations[self.child(compute_id, number)] for number in range(count)]
        return Observation.of_array(
            Counter(one.state for one in children),
            reason=self.cancelled.get(compute_id, ""),
            started_at=min((one.started_at for one in children if one.started_at), default=None),
            stopped_at=max((one.stopped_at for one in children if one.stopped_at), default=None),
        )

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        with self._call("log_tail"):
            return self._logs.get(compute_id, [])[-lines:] if lines > 0 else []

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        with self._call("log"):
            lines = list(self._logs.get(compute_id, []))
        for line in lines:
            yield f"{line.text}\n".encode()

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        with self._call("redact"):
            word = secret.get_secret_value()
            programs = [self.child(compute_id, number) for number in range(self._counts.get(compute_id, 0))]
            for one in programs or [compute_id]:
                known = self._observations.get(one)
                if known and known.state in FINAL and word not in ("", PUBLIC_TOKEN):
                    self._logs[one] = [
                        LogLine(line.text.replace(word, "*" * len(word)), line.at) for line in self._logs.get(one, [])
                    ]

    def console(self, compute_id: str) -> str:
        return f"https://console.test/{quote(compute_id)}"


class MemoryResults(Faulty):
    """Results in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, dict[str, bytes]] = {}
        """Folder to name to content."""

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Let a program have written this file."""
        self.files.setdefault(folder, {})[name] = content

    def uri(self, folder: str) -> str:
        return f"file:///memory/{folder}/"

    def list(self, folder: str) -> list[ResultFile]:
        with self._call("list"):
            return [ResultFile(name, len(content)) for name, content in sorted(self.files.get(folder, {}).items())]

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        with self._call("read"):
            content = self.files.get(folder, {}).get(name)
            if content is None:
                raise NotFound(f"There is no file {name} in {folder}.")
            if len(content) > limit:
                raise Refused(f"{name} has {len(content)} bytes; at most {limit} are read.")
            return content

    def link(self, folder: str, name: str) -> Link:
        if any(part in ("", "..") for part in name.split("/")):
            raise Refused("A result's name stays within its folder.")
        return Link(f"{self.uri(folder)}{quote(name)}")

    def open(self, folder: str, name: str) -> Opened:
        content = self.read(folder, name, limit=2**40)
        return Opened(len(content), BytesIO(content))

    def part(self, folder: str, name: str, start: int, length: int) -> Part:
        content = self.read(folder, name, limit=2**40)
        return Part(content[start : start + length], len(content))

    def redirect(self, folder: str, name: str) -> None:
        """None: nobody else can read a dictionary."""

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        self.link(folder, name)  # refuses what leads out of the folder
        with self._call("write"):
            self.put(folder, name, b"".join(content))


class MemorySecrets(Faulty):
    """Secrets in a dictionary; `shares` gives the same owner and value the same reference, as a keeper may."""

    def __init__(self, *, shares: bool = False) -> None:
        super().__init__()
        self.values: dict[str, tuple[str, str]] = {}
        """Reference to owner and value."""
        self._shares = shares
        self._numbers = itertools.count(1)

    def put(self, owner: str, value: SecretStr) -> str:
        with self._call("put"):
            kept = (owner, value.get_secret_value())
            if self._shares:
                for reference, other in self.values.items():
                    if other == kept:
                        return reference
            reference = f"memory:{next(self._numbers)}"
            self.values[reference] = kept
            return reference

    def get(self, reference: str) -> SecretStr:
        with self._call("get"):
            if reference not in self.values:
                raise NotFound("The token is not kept any more.")
            return SecretStr(self.values[reference][1])

    def forget(self, reference: str) -> None:
        with self._call("forget"):
            self.values.pop(reference, None)

    def holds(self, reference: str) -> bool:
        return reference.startswith("memory:")


@dataclass(frozen=True, kw_only=True)
class MemoryBackend:
    """A backend in memory. Nothing limits its submissions unless a test says so."""

    compute: MemoryCompute
    results: MemoryResults
    secrets: MemorySecrets | None = None
    events: MemoryEvents | None = None
    submissions: float | None = None
    watch_interval: float = 1
    announcement: str = ""

    @property
    def logs(self) -> MemoryCompute:
        """Compute has them too."""
        return self.compute


class MemoryMailer(Faulty):
    """A mail server that delivers everything, except to the addresses in `refused`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Mail] = []
        """Every mail taken, in order; a second sending stands here twice."""
        self.refused: set[str] = set()

    def send(self, mail: Mail) -> None:
        with self._call("send"):
            mime(mail, sender="nomads@localhost")  # refuses what no mailer takes
            if mail.to in self.refused:
                raise Refused("The mail server does not take mail for this address.")
            self.sent.append(mail)


@dataclass
class Message:
    """A message in a channel, as it stands now and as it stood before."""

    channel: str
    thread: str | None
    """The card's timestamp; None for a card itself."""
    key: str
    """The message's key, or the file's name."""
    timestamp: str
    posted_at: datetime
    story: Story
    steps: tuple[Step, ...] = ()
    title: str = ""
    content: bytes | None = None
    """A file's bytes; None for a card or a reply."""
    history: list[tuple[Story, tuple[Step, ...]]] = field(default_factory=list)
    """What it said before each edit, oldest first."""
    edited_at: list[datetime] = field(default_factory=list)
    """When each edit was made, oldest first."""

    @property
    def texts(self) -> list[str]:
        """The steps' texts."""
        return [step.text for step in self.steps]


class MemoryChat(Faulty):
    """A workspace that keeps what is posted, with the history of every edit.

    Nobody prevents a key from being posted twice: that is the caller's to avoid and the test's to notice.
    """

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__()
        self.messages: list[Message] = []
        """Cards, replies and files, in the order they were posted."""
        self.homes: dict[str, list[Home]] = {}
        """What each person's home tab showed, one after the other."""
        self.told: list[tuple[str, str]] = []
        """Direct messages: the person and the text."""
        self._clock = clock
        self._numbers = itertools.count(1)

    @property
    def cards(self) -> list[Message]:
        """The cards."""
        return [m for m in self.messages if m.thread is None and m.channel == m.story.job.request.channel]

    @property
    def directs(self) -> list[Message]:
        """The direct messages to owners of jobs."""
        return [m for m in self.messages if m.channel == m.story.job.actor]

    @property
    def replies(self) -> list[Message]:
        """The replies in threads, without the files."""
        return [m for m in self.messages if m.thread is not None and m.content is None]

    @property
    def files(self) -> list[Message]:
        """The files."""
        return [m for m in self.messages if m.content is not None]

    def thread(self, timestamp: str) -> list[Message]:
        """What was posted below that card, in order."""
        return [m for m in self.messages if m.thread == timestamp]

    def post_card(self, story: Story, *, key: str) -> str:
        with self._call("post_card"):
            return self._post(story, None, key).timestamp

    def edit_card(self, story: Story, timestamp: str) -> None:
        with self._call("edit_card"):
            self._edit(story, (), timestamp)

    def post_reply(self, story: Story, steps: Sequence[Step], *, thread: str, key: str) -> str:
        with self._call("post_reply"):
            message = self._post(story, thread, key)
            message.steps = tuple(steps)
            return message.timestamp

    def edit_reply(self, story: Story, steps: Sequence[Step], timestamp: str) -> None:
        with self._call("edit_reply"):
            self._edit(story, tuple(steps), timestamp)

    def post_file(self, story: Story, *, thread: str, name: str, title: str, content: bytes) -> None:
        with self._call("post_file"):
            message = self._post(story, thread, name)
            message.title, message.content = title, content

    def tell(self, person: str, text: str) -> None:
        with self._call("tell"):
            self.told.append((person, text))

    def post_direct(self, story: Story, steps: Sequence[Step], *, key: str) -> str:
        with self._call("post_direct"):
            message = self._post(story, None, key, channel=story.job.actor)
            message.steps = tuple(steps)
            return message.timestamp

    def find_direct(self, story: Story, *, key: str) -> str | None:
        with self._call("find_direct"):
            return next((m.timestamp for m in self.directs if (m.channel, m.key) == (story.job.actor, key)), None)

    def show_home(self, person: str, home: Home) -> None:
        with self._call("show_home"):
            self.homes.setdefault(person, []).append(home)

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        with self._call("find"):
            channel = story.job.request.channel
            for message in self.messages:
                if (message.channel, message.thread, message.key) == (channel, thread, key):
                    return message.timestamp
            return None

    def _post(self, story: Story, thread: str | None, key: str, *, channel: str | None = None) -> Message:
        channel = channel or story.job.request.channel
        if channel is None:
            raise Refused("This job has no channel.")
        now = self._clock()
        timestamp = f"{int(now.timestamp())}.{next(self._numbers):06}"
        message = Message(channel, thread, key, timestamp, now, story)
        self.messages.append(message)
        return message

    def _edit(self, story: Story, steps: tuple[Step, ...], timestamp: str) -> None:
        message = next((m for m in self.messages if m.timestamp == timestamp), None)
        if message is None:
            raise NotFound("The message is not there any more.")
        message.history.append((message.story, message.steps))
        message.edited_at.append(self._clock())
        message.story, message.steps = story, steps


class MemoryVolumes(Faulty):
    """Volumes of experiments that were added. A call that hangs ends as Unavailable when its caller's time is up.

    `readers` and `writers` map a token to the collections it opens, `*` for every one; who may write may read, and
    `public` is a token that opens the public ones.
    """

    def __init__(
        self,
        *,
        readers: Mapping[str, Collection[str]] | None = None,
        writers: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__()
        self.readers: dict[str, Collection[str]] = {"public": (), **(readers or {})}
        self.writers: dict[str, Collection[str]] = dict(writers or {"demo-token": ("*",)})
        self.public: set[str] = set()
        """Collections that every token opens."""
        self.there: dict[str, dict[str, Experiment]] = {}
        """Collection to name to experiment; a test may take one away."""

    def add(
        self,
        collection: str,
        experiment: str,
        *,
        bounds: Bounds = ((0, 64), (0, 1024), (0, 1024)),
        voxel_nm: tuple[float, float, float] = (50, 96, 96),
        channels: Mapping[str, str] | None = None,
        public: bool = False,
    ) -> Experiment:
        """Add an experiment, with channels of these data types, and its collection if need be; axes z, y, x."""
        named = {"PSD95": "uint8", "Synapsin": "uint8"} if channels is None else channels
        made = Experiment(
            collection=collection,
            name=experiment,
            bounds=bounds,
            voxel_nm=voxel_nm,
            channels=tuple(Channel(name=name, datatype=datatype) for name, datatype in named.items()),
        )
        self.there.setdefault(collection, {})[experiment] = made
        if public:
            self.public.add(collection)
        return made

    def collections(self, *, token: SecretStr, within: float) -> list[str]:
        with self._asked("collections", token, within):
            return [name for name in self.there if self._readable(name, token)]

    def experiments(self, collection: str, *, token: SecretStr, within: float) -> list[str]:
        with self._asked("experiments", token, within):
            return list(self._open(collection, token))

    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment:
        with self._asked("describe", token, within):
            try:
                found = self._open(collection, token)
            except NotAllowed:
                found = self.there[collection]
            if experiment not in found:
                raise UnknownExperiment(collection, experiment, near=get_close_matches(experiment, found))
            if not self._readable(collection, token):
                raise NotAllowed(collection, experiment)
            return found[experiment]

    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None:
        try:
            with self._asked("may_write", token, within):
                held = self.writers.get(token.get_secret_value(), ())
                return experiment in self.there.get(collection, {}) and ("*" in held or collection in held)
        except Unavailable:
            return None

    def prepare(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """There are no connections."""

    @contextmanager
    def _asked(self, call: str, token: SecretStr, within: float) -> Iterator[None]:
        gate = self._gates.get(call)
        if gate and not gate.wait(max(0.0, within)):
            self.calls.append(call)
            raise Unavailable("BOSS did not answer in time.")
        with self._call(call):
            if token.get_secret_value() not in self.readers.keys() | self.writers.keys():
                raise TokenRefused
            yield

    def _open(self, collection: str, token: SecretStr) -> dict[str, Experiment]:
        if collection not in self.there:
            raise UnknownCollection(collection, near=get_close_matches(collection, self.there))
        if not self._readable(collection, token):
            raise NotAllowed(collection)
        return self.there[collection]

    def _readable(self, collection: str, token: SecretStr) -> bool:
        value = token.get_secret_value()
        held = {*self.readers.get(value, ()), *self.writers.get(value, ())}
        return collection in self.public or "*" in held or collection in held
