"""Every call and every commit of some ways of a job: what becomes of the job where the process ends there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from simulation.incidents import Incident, What
from simulation.installation import Record
from simulation.judge import judged
from simulation.people import Action, form
from simulation.run import Plan, run

OF_A_CALL = (What.CRASH_BEFORE, What.CRASH_AFTER, What.LOST)
OF_A_COMMIT = (What.CRASH_BEFORE, What.CRASH_WITHIN, What.CRASH_AFTER, What.LOST)
Places = Callable[[], AbstractContextManager[Sequence[str]]]
"""Gives the URLs of empty databases, for as long as the block runs."""


def _way(
    *actions: tuple[float, str, Mapping[str, object]],
    ends: Sequence[str] = (),
    lasts: bool = False,
    quiet: bool = True,
    first: Mapping[str, Sequence[Incident]] | None = None,
) -> Plan:
    made = [Action(number, at, (0.0,), "U1ADA", what, dict(words)) for number, (at, what, words) in enumerate(actions)]
    return Plan(
        bots=1, often=0, actions=[made], disturbed=False, quiet=quiet, lasts=lasts, ends=ends, first=first or {}
    )


_EFFECTS = ("compute.submit", "chat.post_card", "chat.post_reply", "chat.edit_card", "chat.post_file", "mailer.send")


WAYS: Mapping[str, Plan] = {
    "a job": _way((1, "home", {}), (5, "submit", form("V0"))),
    "a job that fails, and is tried again": _way(
        (5, "submit", form("V0")), (1500, "retry", {"of": 0}), ends=("fails", "succeeds")
    ),
    "a job that is cancelled while it runs": _way((5, "submit", form("V0")), (150, "cancel", {"of": 0})),
    "a job that is cancelled at once": _way((5, "submit", form("V0")), (5.001, "cancel", {"of": 0})),
    "a job whose machine was taken back": _way((5, "submit", form("V0")), ends=("machine", "succeeds"), lasts=True),
    "a job in blocks, of which one fails": _way(
        (5, "submit", form("V0", y="0,1024")), ends=("succeeds", "succeeds", "machine", "succeeds")
    ),
    "a job of which events tell": _way((5, "submit", form("V0")), quiet=False),
    "a job of whose effects the first answers are lost": _way(
        (5, "submit", form("V0")), first=dict.fromkeys(_EFFECTS, [Incident(What.LOST)])
    ),
    "a job that is cancelled while compute is away": _way(
        (5, "submit", form("V0")),
        (150, "cancel", {"of": 0}),
        first={"compute.cancel": [Incident(What.AWAY)], "compute.observe": [Incident(What.AWAY)]},
    ),
}
"""The ways of a job that are looked at."""


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


def table(
    ways: Sequence[str], places: Places, *, every: bool
) -> Iterator[tuple[str, str, dict[What, tuple[int, int]]]]:
    """Way, name, and of each incident how often it was made to happen there, and how often all promises were kept."""
    for way in ways:
        rows: dict[str, dict[What, tuple[int, int]]] = {}
        there = points(way, places)
        for point in there if every else first_ones(there):
            row = rows.setdefault(point.name, {})
            for what in point.incidents:
                tried, kept = row.get(what, (0, 0))
                row[what] = (tried + 1, kept + (not broken(point, what, places)))
        yield from ((way, name, row) for name, row in sorted(rows.items()))


def _run(way: str, places: Places, seed: int, crash: tuple[int, What] | None) -> Record:
    plan = WAYS[way]
    with places() as urls:
        return run(seed, urls=urls, plan=Plan(**{**vars(plan), "crash": crash}))
