"""All that bots talk to: chat, compute and its programs, mail, BOSS, results. Each keeps what really happened."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from bot.domain.errors import Refused, Unavailable
from bot.domain.messages import Mail
from bot.domain.people import Privacy, Standing
from bot.domain.states import FINAL, JobState
from bot.domain.work import Cause, LogLine, Observation, Unclear, Work
from contract.program import BLOCKS, FIRST, PLAN, RESULTS
from simulation.stage import Nonsense, Stage
from tests.support.memory import (
    MemoryBackend,
    MemoryChat,
    MemoryCompute,
    MemoryEvents,
    MemoryMailer,
    MemoryResults,
    MemorySecrets,
    MemoryVolumes,
)


@dataclass(frozen=True)
class Cast:
    """The people of one workspace, which has one installation of NOMADS."""

    tokens: Mapping[str, str]
    """Of each scientist."""
    admin: str
    guest: str

    @property
    def everybody(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.tokens, self.admin, self.guest)


CASTS = (
    Cast(
        {"U1ADA": "canary-token-of-ada", "U2BEN": "canary-token-of-ben", "U3EVE": "canary-token-of-eve"},
        admin="U9ROOT",
        guest="U4GUEST",
    ),
    Cast(
        {"W1FAY": "canary-token-of-fay", "W2GIL": "canary-token-of-gil", "W3HAL": "canary-token-of-hal"},
        admin="W9ROOT",
        guest="W4GUEST",
    ),
)
"""Of the workspaces that share an account of compute, a BOSS and a mail server."""
PUBLIC, PRIVATE, OTHER = "C1PUBLIC", "C2PRIVATE", "C3OTHER"
ENDS = {
    "succeeds": Observation(JobState.SUCCEEDED, exit_code=0),
    "memory": Observation(JobState.FAILED, "It needed more memory.", cause=Cause.MEMORY),
    "machine": Observation(JobState.FAILED, "Its machine was taken back.", cause=Cause.MACHINE),
    "fails": Observation(JobState.FAILED, "The program ended with exit code 1.", exit_code=1),
    "wrong": Observation(JobState.FAILED, "The program ended with exit code 2.", exit_code=2),
}
"""How a program may end."""
SUBMISSIONS = 4
"""Submissions that compute takes in a second."""
LONG = 40.0
"""Seconds for which bots look often after compute has stirred."""
SIDES = ((0, 64), (0, 1024), (0, 1024))
SPOILT = (
    b"",
    b"{",
    b"[]",
    b"null",
    bytes(range(256)),
    b"[" * 10_000,
    b'{"counts": 7, "files": 7, "blocks": "many", "reads": null}',
    b'{"counts": {"synapses": -1}, "preview": "../preview.png", "blocks": -1, "reads": 1}',
    b'{"counts": {"synapses": 1e999}, "files": ["\\u0000"], "blocks": 1e999, "reads": 0}',
)
"""Files of which nothing can be used."""
SPOILS = 0.05
"""Part of the programs that leave one, and of the events that are forged."""


@dataclass
class Channel:
    """A channel of chat."""

    privacy: Privacy
    members: set[str] = field(default_factory=set)
    archived: bool = False


class Workspace:
    """What chat knows of people and channels. Where it does not answer, it knows nothing."""

    def __init__(self, stage: Stage, cast: Cast) -> None:
        self._stage, self._cast = stage, cast
        *some, last = cast.tokens
        self.channels = {
            PUBLIC: Channel(Privacy.PUBLIC, {*cast.everybody}),
            PRIVATE: Channel(Privacy.PRIVATE, {*some}),
            OTHER: Channel(Privacy.PUBLIC, {last}),
        }
        self.left: dict[str, float] = {}
        """When people have left the workspace, in seconds of the stage."""

    def _asked(self, what: str) -> bool:
        """Whether chat answers."""
        try:
            with self._stage.call(f"workspace.{what}"):
                return True
        except (Unavailable, Nonsense):  # by the port, what chat does not tell is not known; anything else is a mistake
            return False

    def mail_of(self, user: str) -> str | None:
        """As `ports.Workspace`."""
        if not self._asked("mail_of"):
            return None
        return mail_of(user) if user in self._cast.tokens else ""

    def name_of(self, user: str) -> str:
        """As `ports.Workspace`."""
        return user[2:].capitalize() if self._asked("name_of") else ""

    def trouble_with(self, channel: str) -> str:
        """As `ports.Workspace`."""
        known = self._asked("trouble_with")
        return "This channel is archived." if known and self.channels[channel].archived else ""

    def standing_of(self, user: str) -> Standing | None:
        """As `ports.Workspace`."""
        if not self._asked("standing_of"):
            return None
        if user in self.left:
            return Standing.STRANGER
        if user not in self._cast.everybody:
            return Standing.STRANGER
        return Standing.GUEST if user == self._cast.guest else Standing.MEMBER

    def privacy_of(self, channel: str) -> Privacy | None:
        """As `ports.Workspace`."""
        return self.channels[channel].privacy if self._asked("privacy_of") else None

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        """As `ports.Workspace`."""
        known = self._asked("channels_of")
        mine = {name for name, channel in self.channels.items() if user in channel.members and user not in self.left}
        return mine if known else None

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """Empty: messages have no addresses here."""
        return ""


class Astray:
    """Answers that go astray in another way than the stage's calls do: an adapter hands them on."""

    def __init__(self, stage: Stage, what: str) -> None:
        self._incidents, self.draw = stage.incidents, random.Random(f"{what} {stage.incidents.seed}")

    def next(self) -> bool:
        """Whether the next answer goes astray."""
        return not self._incidents.over and self.draw.random() < self._incidents.often


class Results(MemoryResults):
    """Gives now and then what no program has left."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._astray = Astray(stage, "files")
        self.misread: set[str] = set()
        """Folders of which somebody has read what no program has left."""

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """The file's content, or nonsense."""
        content = super().read(folder, name, limit=limit)
        if self._astray.next():
            self.misread.add(folder)
            return self._astray.draw.choice(SPOILT)
        return content


class Compute(MemoryCompute):
    """Says now and then what it said before, or nonsense."""

    def __init__(self, stage: Stage, *, lasts: bool) -> None:
        super().__init__(lasts=lasts, clock=stage.now)
        self._late, self._unclear, self._garbled = (Astray(stage, what) for what in ("late", "unclear", "garbled"))

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is true, or what was said the last time. Raises Unclear where that makes no sense for some."""
        before = dict(self.said)
        now = super().observe(ids)
        if self._unclear.next():
            some = {name for name in ids if self._unclear.draw.random() < 0.5} or {self._unclear.draw.choice(ids)}
            raise Unclear(
                "What compute says of it makes no sense.",
                ids=some,
                seen={name: seen for name, seen in now.items() if name not in some},
            )
        if self._late.next():
            now = {name: before.get(name, seen) for name, seen in now.items()}
            self.said |= now
        return now

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What was said of those that have not moved since, or that the listing does not show yet to have moved."""
        calm = super().glance(ids)
        return {**calm, **{name: self.said[name] for name in ids if name in self.said}} if self._late.next() else calm

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last lines, or nonsense."""
        found = super().tail(compute_id, log=log, lines=lines)
        if self._garbled.next():
            return [LogLine(self._garbled.draw.choice(("", "\0\x1b[2J\u202e", "x" * 100_000)))] * lines
        return found


@dataclass
class Run:
    """A program, or an array of them, and what becomes of it."""

    work: Work
    compute_id: str
    at: datetime
    """When it was submitted."""
    told: list[str] = field(default_factory=list)

    @property
    def of(self) -> str:
        """The job's id."""
        return self.work.tags["job"]

    @property
    def user(self) -> str:
        """Whose job it is."""
        return self.work.tags["user"]


def mail_of(person: str) -> str:
    """A person's mail address."""
    return f"{person.lower()}@lab.test"


class Outside:
    """What one installation has around it: chat and events of its own, and an account that others may share."""

    def __init__(self, stage: Stage, account: Account, cast: Cast, *, quiet: bool) -> None:
        """`quiet`: compute tells nothing by itself."""
        self.account, self.cast = account, cast
        self.compute, self.volumes, self.mailer = account.compute, account.volumes, account.mailer
        self.secrets = account.secrets
        self.chat = MemoryChat(clock=stage.now)
        self.events = None if quiet else MemoryEvents()
        self.workspace = Workspace(stage, cast)
        hook("chat", stage, self.chat)
        if self.events is not None:
            hook("events", stage, self.events)
            account.listeners.append(self.events)
        self._guard_archived()
        self.backend = MemoryBackend(
            compute=account.compute,
            results=account.results,
            secrets=account.secrets,
            events=self.events,
            submissions=SUBMISSIONS,
        )

    def _guard_archived(self) -> None:
        """Let chat refuse what is posted to an archived channel."""
        post = self.chat._post
        channels = self.workspace.channels

        def guarded(story, thread, key, *, channel=None):  # type: ignore[no-untyped-def]
            where = channel or story.job.request.channel
            if where in channels and channels[where].archived:
                raise Refused("The channel is archived.")
            return post(story, thread, key, channel=channel)

        self.chat._post = guarded  # type: ignore[method-assign]

    @property
    def runs(self) -> list[Run]:
        """The programs of this installation's people."""
        return [run for run in self.account.runs if run.user in self.cast.everybody]

    @property
    def mails(self) -> list[Mail]:
        """The mails that this installation's people have got."""
        mine = {mail_of(person) for person in self.cast.everybody}
        return [mail for mail in self.mailer.sent if mail.to in mine]

    def printed(self, run: Run) -> str:
        """What the log has that compute keeps of a program, or of all programs of an array."""
        ids = [run.compute_id, *(self.compute.child(run.compute_id, number) for number in range(run.work.count or 0))]
        return "\n".join(line.text for one in ids for line in self.compute._logs.get(one, []))

    def last_run(self, job_id: str) -> Observation | None:
        """What became of the last program of a job; None: it had none."""
        own = [run for run in self.runs if run.of == job_id]
        return self.compute.now(own[-1].compute_id) if own else None


class Account:
    """An account of compute with its programs, results and secrets, a BOSS, and a mail server."""

    def __init__(
        self,
        stage: Stage,
        draw: random.Random,
        *,
        lasts: bool,
        ends: Sequence[str] | None,
        waits: float = 0.0,
        says: Sequence[str] = (),
    ) -> None:
        """What is named is that of the run's plan."""
        self._waits, self._says = waits, says
        self._ends_to_come = None if ends is None else list(ends)
        self.stage, self._draw = stage, draw
        self.compute = Compute(stage, lasts=lasts)
        self.results, self.secrets, self.mailer = Results(stage), MemorySecrets(), MemoryMailer()
        tokens = [token for cast in CASTS for token in cast.tokens.values()]
        self.volumes = MemoryVolumes(readers=dict.fromkeys(tokens, ("demo",)))
        self.volumes.add("demo", "cortex", bounds=SIDES)
        self.volumes.add("closed", "cortex", bounds=SIDES)
        self.runs: list[Run] = []
        self.listeners: list[MemoryEvents] = []
        """Who is told of what moves: all of them, of everything."""
        for name in ("compute", "results", "secrets", "mailer", "volumes"):
            hook(name, stage, getattr(self, name))

    @property
    def busy(self) -> bool:
        """Whether compute has work, or has ended some that nobody may have seen yet."""
        return self.stage.seconds < self._stirred + LONG

    _stirred = -1e9

    def play(self) -> None:
        """Begin what was submitted since."""
        for number in range(len(self.runs), len(self.compute.works)):
            at = self.compute.submitted_at[number]
            run = Run(self.compute.works[number], f"memory-{number + 1}", at)
            self.runs.append(run)
            self._stirred = self.stage.seconds
            self._begin(run)

    def _begin(self, run: Run) -> None:
        if run.work.count:
            for number in range(run.work.count):
                self._program(run, self.compute.child(run.compute_id, number), number)
        else:
            self._program(run, run.compute_id, None)

    def _program(self, run: Run, compute_id: str, number: int | None) -> None:
        """Decide what becomes of a program, and when."""
        draw, at, attempt = self._draw, self.stage.seconds, 1
        alone = number is None and self._ends_to_come is None
        attempts = draw.choice((1, 1, 1, 2, 3)) if alone else 1
        for attempt in range(1, attempts + 1):
            for state in (JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING):
                at += draw.choice((0.1, draw.uniform(1, 20), draw.uniform(20, 90)))
                again = "Its machine was taken back; waiting for another" if attempt > 1 else ""
                self._moves(run, compute_id, at, Observation(state, attempt=attempt, again=again))
                at += self._waits if state is JobState.RUNNABLE else 0
        at += draw.choice((0.2, draw.uniform(5, 60), draw.uniform(60, 600)))
        end = self._end(number is not None)
        self.stage.at(at, lambda: self._ends(run, compute_id, number, end))

    def _moves(self, run: Run, compute_id: str, at: float, seen: Observation) -> None:
        def move() -> None:
            started = self.stage.now() if seen.state is JobState.RUNNING else None
            self._tell(
                run, compute_id, Observation(seen.state, attempt=seen.attempt, again=seen.again, started_at=started)
            )

        self.stage.at(at, move)

    def _end(self, child: bool) -> Observation:
        """How a program ends."""
        if self._ends_to_come is not None:
            return ENDS[self._ends_to_come.pop(0) if self._ends_to_come else "succeeds"]
        bad = ["memory", "machine", "fails", *([] if child else ["wrong"])]
        return ENDS[self._draw.choice(bad) if self._draw.random() < 0.25 else "succeeds"]

    def _ends(self, run: Run, compute_id: str, number: int | None, end: Observation) -> None:
        seen = self.compute._observations.get(compute_id)
        if seen is None or seen.state in FINAL:
            return
        self.compute.print(compute_id, "It cannot be read.")
        if end.state is JobState.SUCCEEDED:
            self._leave(run.work, number)
        started = seen.started_at or self.stage.now()
        self._tell(
            run,
            compute_id,
            Observation(
                end.state,
                f"{end.reason} It was given {self._token_of(run.work)}." if end.reason else "",
                exit_code=end.exit_code,
                cause=end.cause,
                started_at=started,
                stopped_at=self.stage.now(),
            ),
        )

    def _token_of(self, work: Work) -> str:
        """The token that a program was given, which it and compute repeat wherever they can."""
        return self.secrets.values[work.token][1] if work.token in self.secrets.values else ""

    def _leave(self, work: Work, number: int | None) -> None:
        """What a program leaves in its folder."""
        words = dict(zip(work.arguments[::2], work.arguments[1::2], strict=True))
        folder = words["--results-uri"].removeprefix("file:///memory/").rstrip("/")
        stage = words.get("--stage", "")
        if stage == BLOCKS:
            return
        if stage == FIRST:
            plan = {"blocks": self._draw.randrange(2, 12), "reads": 10**6, "pilot": [[0, 2], [0, 8], [0, 8]]}
            name, content = PLAN, json.dumps(plan).encode()
        else:
            found = {"counts": {"synapses": self._draw.randrange(100)}, "preview": "preview.png"}
            found["notes"] = [f"Read with {self._token_of(work)}."]
            name, content = RESULTS, json.dumps(found).encode()
            self.results.put(folder, "preview.png", b"PNG")
        spoils = self._ends_to_come is None and self._draw.random() < SPOILS
        self.results.put(folder, name, self._draw.choice(SPOILT) if spoils else content)

    def _tell(self, run: Run, compute_id: str, seen: Observation) -> None:
        known = self.compute._observations.get(compute_id)
        if known is None or known.state in FINAL:
            return
        if seen.state is JobState.RUNNING:
            self.compute.print(compute_id, f"reading with {self._token_of(run.work)}", *self._says)
        self.compute.tell(compute_id, seen)
        self._stirred = self.stage.seconds
        run.told.append(seen.state.value)
        self.stage.say(f"{compute_id} {seen.state.value.lower()} {seen.reason}".rstrip())
        if self.listeners and self._draw.random() > 0.1:
            of, child = compute_id.partition("/")[0], "/" in compute_id
            if self._draw.random() < SPOILS:  # of any work, or of none
                number = self._draw.randrange(len(self.runs) + 1)
                of, child, seen = f"memory-{number}", False, Observation(self._draw.choice(list(JobState)))
            for _ in range(self._draw.choice((1, 1, 1, 2))):
                late = self._draw.choice((0.5, 0.5, self._draw.uniform(1, 100)))
                self.stage.at(self.stage.seconds + late, partial(self._event, of, seen, child=child))

    def _event(self, compute_id: str, claims: Observation, *, child: bool) -> None:
        for events in self.listeners:
            events.send(compute_id, None if child else claims, of_child=child)


def hook(name: str, stage: Stage, fake: object) -> None:
    """Let each call of a fake be one of the stage's."""
    usual = fake._call  # type: ignore[attr-defined]

    @contextmanager
    def call(method: str) -> Iterator[None]:
        with stage.call(f"{name}.{method}"), usual(method):
            yield

    fake._call = call  # type: ignore[attr-defined]
