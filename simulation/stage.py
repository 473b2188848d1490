"""Who acts, when, and what happens meanwhile: one thread, in which whoever waits lets the others go on."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bot.domain.errors import Busy, Refused, Unavailable
from simulation.incidents import Incident, Incidents, What

EPOCH = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DEPTH = 3
"""How many that wait may lie above one another; further ones let time pass alone."""


class Crash(BaseException):
    """The process that acts is no more; nothing in it goes on."""


class Nonsense(Exception):
    """What an adapter raises where an answer is such as nobody foresaw."""


@dataclass(eq=False)
class Process:
    """One life of a bot."""

    name: str
    ended: bool = False
    frozen: bool = False
    busy: set[str] = field(default_factory=set)
    """What of it is under way: its lanes, and its watcher."""


@dataclass(frozen=True)
class Called:
    """A call, when it was made, and what of its process made it: a lane, a watcher, a request."""

    point: str
    at: float
    what: str


@dataclass(order=True)
class _Due:
    at: float
    number: int
    act: Callable[[], None] = field(compare=False)


class Stage:
    """The time, the calls, and what happens at them. `history` has a line for each of these."""

    def __init__(
        self,
        incidents: Incidents,
        *,
        crash: tuple[int, What] | None = None,
        first: Mapping[str, Sequence[Incident]] | None = None,
    ) -> None:
        """`crash` is what happens, to the process that acts, at the call of a number, whatever else does.

        `first` is what happens at the first calls of a name.
        """
        self.seconds = 0.0
        """Since EPOCH."""
        self.incidents = incidents
        self.history: list[str] = []
        self.called: list[Called] = []
        """The calls so far, by their numbers."""
        self.postponed: list[tuple[int, float]] = []
        """The calls at which a lane was asked to come back later, and did put its effect off; and until when."""
        self.commits = 0
        self.turns: Callable[[float], bool] = lambda until: False
        """Lets whoever has something to do until then do one thing; False: nobody has."""
        self._crash, self._first = crash, {name: list(some) for name, some in (first or {}).items()}
        self.calm = not (incidents.often or any(one.seconds for some in self._first.values() for one in some))
        """Whether nothing goes wrong that was not foreseen, and nothing takes long."""
        self._acting: list[tuple[Process, str]] = []
        self._asked: dict[tuple[int, str], tuple[int, float]] = {}
        self._due: list[_Due] = []
        self._numbers = itertools.count()

    # Time

    def now(self) -> datetime:
        """The true time."""
        return EPOCH + timedelta(seconds=self.seconds)

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen at a time, by nobody's hand."""
        heapq.heappush(self._due, _Due(max(seconds, self.seconds), next(self._numbers), act))

    @property
    def next_due(self) -> float | None:
        """When the next thing happens by nobody's hand."""
        return self._due[0].at if self._due else None

    def happen(self) -> None:
        """Let the next of these happen now."""
        due = heapq.heappop(self._due)
        self.seconds = max(self.seconds, due.at)
        due.act()

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass, in which others act."""
        until = self.seconds + seconds
        if len(self._acting) <= DEPTH:
            while self.turns(until):
                pass
        self.seconds = max(self.seconds, until)

    def say(self, line: str) -> None:
        """Write a line of history."""
        who = self.actor.name if self.actor else "-"
        self.history.append(f"{self.seconds:10.3f} {who:<6} {line}")

    # Processes

    @contextmanager
    def acting(self, process: Process, what: str) -> Iterator[None]:
        """While the block runs, the process does that; its end, by a crash, is the block's end."""
        process.busy.add(what)
        self._acting.append((process, what))
        try:
            yield
        except Crash:
            if not process.ended:
                raise
        finally:
            self._acting.pop()
            process.busy.discard(what)

    @property
    def actor(self) -> Process | None:
        """The process that acts now."""
        return self._acting[-1][0] if self._acting else None

    def end(self, process: Process, why: str) -> None:
        """End a process, whatever it does."""
        process.ended = True
        self.say(f"{process.name} ends: {why}")

    def alive(self) -> None:
        """Raises Crash where the process that acts has ended meanwhile."""
        if self.actor and self.actor.ended:
            raise Crash

    # Calls

    @contextmanager
    def call(self, point: str, *, commit: bool = False) -> Iterator[Callable[[], None]]:
        """A call of a port, or a commit. What is given is called where a commit is about to be made.

        Raises Crash, Unavailable, Refused or Nonsense, before or after the block has done its work.
        """
        process = self.actor
        if process is None:  # nobody's: people, and the world itself
            yield lambda: None
            return
        self.alive()
        number, what = len(self.called), self._acting[-1][1]
        self.called.append(Called(point, self.seconds, what))
        if commit and self.incidents.gives_way(number):  # between the look at a lease and a call nobody comes
            self.pause(0)
            self.alive()
        incident = self.incidents.at(number, commit=commit)
        if self._crash and self._crash[0] == number:
            incident = Incident(self._crash[1])
        elif self._first.get(point):
            incident = self._first[point].pop(0)
        if incident.what is not What.NOTHING:
            self.say(f"#{number} {point}: {incident}")
        asked = self._asked.pop((id(process), what), None)
        if incident.what is What.BUSY and incident.seconds is not None:
            self._asked[id(process), what] = number, self.seconds + incident.seconds
        self._before(process, incident)

        def within() -> None:
            if incident.what is What.CRASH_WITHIN:
                self._die(process, point)

        yield within
        self.commits += commit
        if asked and point == "commit LaneRunner._postpone":
            self.postponed.append(asked)
        self._after(process, incident, point)

    def _before(self, process: Process, incident: Incident) -> None:
        match incident.what:
            case What.AWAY:
                raise Unavailable("There is no answer.")
            case What.BUSY:
                raise Busy("It has too much to do.", retry_after=incident.seconds)
            case What.REFUSED:
                raise Refused("It does not do that.")
            case What.CRASH_BEFORE:
                self._die(process, "before")
        self.alive()

    def _after(self, process: Process, incident: Incident, point: str) -> None:
        self.alive()
        match incident.what:
            case What.SLOW:
                self.pause(incident.seconds or 0)
                self.alive()
            case What.FROZEN:
                process.frozen = True
                self.pause(incident.seconds or 0)
                process.frozen = False
                self.alive()
            case What.LOST:
                raise Unavailable("The answer was lost.")
            case What.NONSENSE:
                raise Nonsense(point)
            case What.CRASH_AFTER:
                self._die(process, "after")

    def _die(self, process: Process, why: str) -> None:
        self.end(process, why)
        raise Crash
