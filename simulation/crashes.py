"""Every call and every commit of some ways of a job: what becomes of the job where the process ends there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from simulation.incidents import NOTHING, Incident, What
from simulation.installation import Record
from simulation.judge import judged
from simulation.outside import CASTS, PRIVATE, PUBLIC
from simulation.people import Action, form
from simulation.run import Plan, run

OF_A_CALL = (What.CRASH_BEFORE, What.CRASH_AFTER, What.LOST)
OF_A_COMMIT = (What.CRASH_BEFORE, What.CRASH_WITHIN, What.CRASH_AFTER, What.LOST)
Places = Callable[[], AbstractContextManager[Sequence[str]]]
"""Gives the URLs of empty databases, for as long as the block runs."""


def _way(*actions: tuple[float, str, Mapping[str, object], *tuple[str, ...]], **more: Any) -> Plan:
    """An action is U1ADA's, where it names nobody else. `more` is of the plan."""
    made = [
        Action(number, at, (0.0,), next(iter(who), "U1ADA"), what, dict(words))
        for number, (at, what, words, *who) in enumerate(actions)
    ]
    usual: dict[str, Any] = {"bots": 1, "often": 0, "disturbed": False, "quiet": True, "lasts": False, "ends": ()}
    return Plan(actions=[made], **{**usual, **more})


_AWAY, _LOST, _REFUSED = [Incident(What.AWAY)], [Incident(What.LOST)], [Incident(What.REFUSED)]
_FROZEN = [Incident(What.FROZEN, 400)]
_EFFECTS = ("compute.submit", "chat.post_card", "chat.post_reply", "chat.edit_card", "chat.post_file", "mailer.send")
_MUCH = form("V0", y="0,1024")

MAIN: Mapping[str, Plan] = {
    "a job": _way((1, "home", {}), (5, "submit", form("V0"))),
    "a job that fails, and is tried again": _way(
        (5, "submit", form("V0")), (1500, "retry", {"of": 0}), ends=("fails", "succeeds")
    ),
    "a job that is cancelled while it runs": _way((5, "submit", form("V0")), (150, "cancel", {"of": 0})),
    "a job that is cancelled at once": _way((5, "submit", form("V0")), (5.001, "cancel", {"of": 0})),
    "a job whose machine was taken back": _way((5, "submit", form("V0")), ends=("machine", "succeeds"), lasts=True),
    "a job in blocks, of which one fails": _way(
        (5, "submit", _MUCH), ends=("succeeds", "succeeds", "machine", "succeeds")
    ),
    "a job of which events tell": _way((5, "submit", form("V0")), quiet=False),
    "a job of whose effects the first answers are lost": _way(
        (5, "submit", form("V0")), first=dict.fromkeys(_EFFECTS, _LOST)
    ),
    "a job that is cancelled while compute is away": _way(
        (5, "submit", form("V0")),
        (150, "cancel", {"of": 0}),
        first={"compute.cancel": _AWAY, "compute.observe": _AWAY},
    ),
}
"""The ways that most jobs take, and cancel, retry, arrays and merges."""

RARE: Mapping[str, Plan] = {
    "a job in blocks that is cancelled while they run": _way(
        (5, "submit", _MUCH), (10, "go", {"of": 0}), (700, "cancel", {"of": 0})
    ),
    "a job in blocks that fails, and is tried again": _way(
        (5, "submit", _MUCH), (1500, "retry", {"of": 0}), ends=("succeeds", "succeeds", "wrong")
    ),
    # bots see it wait for more than ten minutes, and see it run twice
    "a job that waits long for a machine, and says how far it is": _way(
        (5, "submit", form("V0")), waits=1270, says=["progress 0.42 reading"]
    ),
    "a job that compute does not take before it is cancelled": _way(
        (5, "submit", form("V0")), (5.2, "cancel", {"of": 0}), first={"compute.submit": _AWAY}
    ),
    "a job that is cancelled before compute's answer comes": _way(
        (5, "submit", form("V0")), (5.2, "cancel", {"of": 0}), first={"compute.submit": _LOST}
    ),
    "a job that compute refuses": _way((5, "submit", form("V0")), first={"compute.submit": _REFUSED}),
    "a job that compute refuses to look for, after its answer was lost": _way(
        (5, "submit", form("V0")), first={"compute.submit": _LOST, "compute.find": _REFUSED}
    ),
    "a job that compute refuses to cancel": _way(
        (5, "submit", form("V0")), (150, "cancel", {"of": 0}), first={"compute.cancel": _REFUSED}
    ),
    "a job that BOSS refuses once it answers, while a bot stands still": _way(
        (5, "submit", form("V0", token="canary-token-of-nobody")),
        bots=2,
        first={"volumes.describe": _AWAY * 2, "commit LaneRunner._claim": _FROZEN},
    ),
    "a job that is cancelled while a bot stands still": _way(
        (5, "submit", form("V0")), (50, "cancel", {"of": 0}), bots=2, first={"commit LaneRunner._claim": _FROZEN}
    ),
    # the ninth claim is that of what follows the first stage
    "a job in blocks, while a bot stands still": _way(
        (5, "submit", _MUCH), bots=2, first={"commit LaneRunner._claim": [NOTHING] * 8 + _FROZEN}
    ),
    "a job that compute is slow to take, while clocks are set back": _way(
        (290, "submit", form("V0")),
        first={"compute.submit": [Incident(What.SLOW, 20)], "mailer.send": [Incident(What.BUSY, 600)]},
        clocks=(295, -7200),
    ),
    "a job in a private channel, of which another member wants to hear": _way(
        (5, "submit", form("V0", channel=PRIVATE)), (60, "submit-the-same", {"of": 0}, "U2BEN")
    ),
    "a job for a private channel that its owner is not in": _way(
        (5, "submit", form("V0", channel=PRIVATE, token=CASTS[0].tokens["U3EVE"]), "U3EVE"),
        first={"workspace.privacy_of": _AWAY},
    ),
    "a job whose channel is archived while it runs": _way(
        (5, "submit", form("V0")), (20, "archive", {"channel": PUBLIC}), first={"chat.post_direct": _LOST}
    ),
    "a job whose mail is refused, and is tried again": _way(
        (5, "submit", form("V0")), (1500, "replay", {}, CASTS[0].admin), first={"mailer.send": _REFUSED}
    ),
    "a job of somebody who forgets their token and wants to be told less": _way(
        (5, "submit", form("V0")), (6, "forget", {}), (7, "quiet", {}), (8, "no-mail", {})
    ),
}
"""Ways that few jobs take, for the calls and commits that are in no other, and for two things that happen at once."""
WAYS: Mapping[str, Plan] = {**MAIN, **RARE}
"""The ways of a job that are looked at."""
EXCEPTIONS: Mapping[str, str] = {
    "compute.log": "Somebody asks for the whole log. It is read, and no job changes.",
    "results.write": "The copy of the log that they get. Whoever asks again gets a new copy in its place.",
    "secrets.forget": "`nomads doctor` tries out where tokens are kept, with one of its own. No job has it.",
    "volumes.collections": "A form asks what there is to choose from. It is read, before there is a job.",
    "volumes.experiments": "A form asks what there is to choose from. It is read, before there is a job.",
    "volumes.may_write": "A form is checked where detections are written to BOSS. It is read, before there is a job.",
    "commit Addresses.end": "Somebody wants no more mail at an address. One row is added, and no job changes.",
}
"""Calls of ports and commits of the application that are in no way, and why."""


@dataclass(frozen=True)
class Point:
    """A call, or a commit, of a way."""

    way: str
    name: str
    number: int
    """Of the call within the run."""

    @property
    def incidents(self) -> Sequence[What]:
        """What may happen there."""
        return OF_A_COMMIT if self.name.startswith("commit ") else OF_A_CALL


def points(way: str, places: Places, *, seed: int = 1) -> list[Point]:
    """All calls and commits of a way in which nothing goes wrong."""
    return [Point(way, name, number) for number, name in enumerate(_run(way, places, seed, None).points)]


def first_ones(some: Sequence[Point]) -> list[Point]:
    """The first and the last of each name."""
    found = {point.name: point for point in reversed(some)} | {f"{point.name} again": point for point in some}
    return sorted(set(found.values()), key=lambda point: point.number)


def broken(point: Point, what: What, places: Places, *, seed: int = 1) -> list[str]:
    """The promises that are broken where that happens there; empty: none."""
    return judged(_run(point.way, places, seed, (point.number, what)))


@dataclass(frozen=True)
class Tried:
    """What was made to happen at a point, and which promises it has broken; none: all were kept."""

    point: Point
    what: What
    broken: Sequence[str]


def tried(way: str, places: Places, *, every: bool) -> list[Tried]:
    """All incidents at the points of a way: at each one, or at the first and the last of each name."""
    there = points(way, places)
    some = there if every else first_ones(there)
    return [Tried(point, what, broken(point, what, places)) for point in some for what in point.incidents]


def _run(way: str, places: Places, seed: int, crash: tuple[int, What] | None) -> Record:
    plan = WAYS[way]
    with places() as urls:
        return run(seed, urls=urls, plan=Plan(**{**vars(plan), "crash": crash}))
