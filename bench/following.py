"""Lists, status and home tab with 100,000 jobs in the database, and the delay from a transition to its reply."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.figures import Figure
from bench.processes import Part, bot, part, postgresql, slack_environment, workplace
from bot.domain.request import JobRequest
from bot.domain.states import UNFINISHED, JobState
from bot.storage.engine import Database, connect
from bot.storage.tables import jobs, transitions
from sandbox.house import ROOT

JOBS, FEW = 100_000, 100
UNFINISHED_JOBS = 600
"""Unfinished jobs among the many; among the few, a fifth of that."""
PERSON, OTHERS = "U01DEMO", 199
DOWN = 5000
"""Jobs before the page that is far down the list."""
WARM = 5
"""Looks at each view before it is measured."""
TIMES = 40
"""Looks at each view that are measured."""
TOLD = 20
"""Jobs for which the delay of replies is measured."""
MOST = 300
"""Goal: milliseconds until a person sees a view."""
SOON = 1
"""Goal: seconds from a transition to its reply."""
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Characters of jobs' ids."""
ENDS = [JobState.SUCCEEDED] * 15 + [JobState.FAILED] * 3 + [JobState.CANCELLED, JobState.LOST]
"""States of the ended jobs, in turn."""
APART = timedelta(minutes=5)
AT_ONCE = 5000
"""Rows that are inserted at once."""


@dataclass(frozen=True)
class Place:
    """A database with jobs."""

    folder: Path
    url: str
    ids: list[str]
    """Ids of the jobs, oldest first."""

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a bot on this database. Compute knows none of the jobs, so `lost_after` is long."""
        return {
            "NOMADS_DATA": str(self.folder),
            "NOMADS_DATABASE_URL": self.url,
            "NOMADS_SECRET_KEY": "a key for benchmarks",
            "NOMADS_LOST_AFTER": str(10**9),
            "NOMADS_PIPELINES": str(ROOT / "tests" / "support" / "programs"),
        }


def measure() -> Iterator[Figure]:
    """The figures on both databases, with few jobs and with many."""
    counts: list[dict[str, Any]] = []
    with part("follower") as slack, part("boss") as boss:
        for name in ("SQLite", "PostgreSQL"):
            with _filled(name, FEW) as place, _bot(slack, boss, place) as url:
                floors = _looked(slack, url, place)
            with _filled(name, JOBS) as place:
                counts.append(_counted(place))
                with _bot(slack, boss, place) as url:
                    for what, seconds in _looked(slack, url, place).items():
                        yield from _seen(f"following on {name}, {what}", seconds, floors[what])
                    told = slack.ask(url=url, submit=TOLD)["told"]
                yield from _delays(name, told, place)
    yield from _queries({what: max(count[what] for count in counts) for what in counts[0]})


def _seen(name: str, seconds: Sequence[float], floor: Sequence[float]) -> Iterator[Figure]:
    """The figures of one view. The median has the goal: the 95th percentile depends on what else the machine does."""
    median, few = (statistics.median(taken) * 1000 for taken in (seconds, floor))
    yield Figure(name=f"{name}, p95", value=_p95(seconds) * 1000, unit="ms", at_most=MOST)
    yield Figure(name=f"{name}, median", value=median, unit="ms", floor=few)


def _p95(taken: Sequence[float]) -> float:
    return statistics.quantiles(taken, n=20)[18]


def _looked(slack: Part, url: str, place: Place) -> dict[str, list[float]]:
    """Seconds until a person sees each view, for every look."""
    newest, middle = place.ids[-1], place.ids[len(place.ids) // 2]
    down = place.ids[max(11, len(place.ids) - DOWN)]
    wanted: dict[str, dict[str, Any]] = {
        "list mine": {"command": "list mine", "expected": "Older"},
        "list all": {"command": "list all", "expected": newest},
        "list running": {"command": "list running", "expected": newest},
        "list failed": {"command": "list failed", "expected": "Older"},
        f"a page {DOWN} jobs down": {"page": f"all:{newest},{down}", "expected": "page 3"},
        "status of a job": {"command": f"status {middle}", "expected": middle},
        "status": {"command": "status", "expected": "Older"},
        "a mistyped job": {"command": f"status {_mistyped(middle, place.ids)}", "expected": middle},
        "the beginning of a job": {"command": f"status {middle[:6]}", "expected": middle},
        "the home tab": {"home": True, "expected": newest},
    }
    found = {}
    for what, question in wanted.items():
        slack.ask(url=url, times=WARM, **question)
        found[what] = slack.ask(url=url, times=TIMES, **question)["seconds"]
    return found


def _mistyped(job: str, ids: list[str]) -> str:
    """The id with another last character, so that there is no such job."""
    return next(name for last in ALPHABET if (name := job[:-1] + last) not in ids)


def _counted(place: Place) -> dict[str, Any]:
    middle = place.ids[len(place.ids) // 2]
    with part("queries", environment=place.environment) as queries:
        return queries.ask(actor=PERSON, job=middle, down=place.ids[-DOWN], wrong=_mistyped(middle, place.ids))


def _queries(counts: Mapping[str, int]) -> Iterator[Figure]:
    goals = {
        "a page": 2,
        "a page of one's own": 2,
        "a page far down": 2,
        "home": 4,
        "status": 2,
        "a wrong name": 2,
    }
    for what, goal in goals.items():
        yield Figure(name=f"following, queries of {what}", value=counts[what], unit="statements", at_most=goal)
    yield Figure(
        name="following, queries of a page of 10, beside one of 1",
        value=counts["a page"],
        unit="statements",
        floor=counts["a page of 1"],
        ratio_at_most=1,
    )


def _delays(name: str, told: list[dict[str, Any]], place: Place) -> Iterator[Figure]:
    """The delays from the commit of a transition to its reply in the thread."""
    engine = connect(place.url)
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(transitions.c.job_id, transitions.c.state, transitions.c.at).where(
                transitions.c.job_id.in_({step["job"] for step in told})
            )
        )
        entered = {(job, state): at.timestamp() for job, state, at in found}
    engine.dispose()
    delays = [step["at"] - entered[step["job"], step["state"]] for step in told]
    yield Figure(
        name=f"following on {name}, a transition until it is told, p95",
        value=_p95(delays),
        unit="s",
        at_most=SOON,
    )
    yield Figure(name=f"following on {name}, a transition until it is told, slowest", value=max(delays), unit="s")


@contextmanager
def _bot(slack: Part, boss: Part, place: Place) -> Iterator[str]:
    """Run a bot; yields the address at which it serves Slack."""
    environment = slack_environment(slack, place.folder) | place.environment
    environment |= {"NOMADS_BOSS_HOST": boss.ready["url"]}
    with bot(environment, log=place.folder / "log") as url:
        yield f"{url}/slack/events"


@contextmanager
def _filled(name: str, count: int) -> Iterator[Place]:
    """A new database of that kind with `count` jobs."""
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = f"sqlite:///{folder / 'nomads.db'}" if name == "SQLite" else stack.enter_context(postgresql())
        ids = _ids(count)
        _fill(url, ids)
        yield Place(folder, url, ids)


def _ids(count: int) -> list[str]:
    """Ids that are the same in every run, and spread like random ids."""
    dice = random.Random(5)
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids["".join(dice.choices(ALPHABET, k=8))] = None
    return list(ids)


def _fill(url: str, ids: Sequence[str]) -> None:
    """Insert a job for each id, five minutes apart, and the story of every tenth job."""
    store = Database(connect(url))
    store.migrate()
    values = {"pipeline": "nomads-unsupervised", "collection": "demo", "experiment": "cortex", "email": "a@example.org"}
    request = JobRequest.parse({**values, "x": "0,512", "y": "0,512", "z": "0,16", "channel": "C01SYNAPSES"})
    began = datetime.now(UTC) - APART * len(ids)
    for first in range(0, len(ids), AT_ONCE):
        some = range(first, min(first + AT_ONCE, len(ids)))
        rows = [_row(number, ids[number], len(ids), request, began + APART * number) for number in some]
        with store.begin() as transaction:
            transaction.connection.execute(jobs.insert(), rows)
            transaction.connection.execute(transitions.insert(), [step for row in rows[::10] for step in _story(row)])
    store.close()


def _row(number: int, job: str, count: int, request: JobRequest, at: datetime) -> dict[str, Any]:
    """A job's row. PERSON has five in six of the newest jobs, which have not ended, and one in five of the others."""
    left = count - number
    if left <= min(UNFINISHED_JOBS, count // 5):
        state, mine = UNFINISHED[left % len(UNFINISHED)], left // len(UNFINISHED) % 6 < 5
    else:
        state, mine = ENDS[number % len(ENDS)], number % 51 < 10
    ended, submitted = state not in UNFINISHED, state is not JobState.ACCEPTED
    found = {"counts": {"synapses": number}, "files": [{"name": "synapses.csv", "title": "Synapses"}]}
    return {
        "id": job,
        "key": f"view:{number}",
        "request": request.model_dump(mode="json") | {"x": {"start": number, "stop": number + 512}},
        "actor": PERSON if mine else f"U{number % OTHERS:03d}",
        "state": state.value,
        "reason": "",
        "compute_id": f"run-{job}" if submitted else None,
        "log_tail": ["a line that the program printed"] * (20 if state is JobState.FAILED else 0),
        "summary": found if state is JobState.SUCCEEDED else None,
        "attempt": 1,
        "waiting": "",
        "accepted_at": at,
        "submitted_at": at if submitted else None,
        "started_at": at if ended or state is JobState.RUNNING else None,
        "finished_at": at + APART if ended else None,
        "pipeline": request.pipeline,
        "voxels": request.box.voxels,
        "work": f"{number:064x}",
        "size": 2 * request.box.voxels,
        "checked": True,
    }


def _story(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"job_id": row["id"], "number": number, "state": state, "at": row["accepted_at"], "text": "", "reply": None}
        for number, state in enumerate(dict.fromkeys([JobState.ACCEPTED.value, row["state"]]), start=1)
    ]
