"""What people look at, with 100,000 jobs in the store, and how soon a thread tells what the watcher saw."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.figures import Figure
from bench.processes import Part, bot, part, postgresql, slack_environment, workplace
from bot.jobs import UNFINISHED, WATCHED, JobRequest, JobState
from bot.store import JobStore, connect
from bot.tables import jobs, transitions
from sandbox.house import ROOT

JOBS, FEW = 100_000, 100
UNFINISHED_JOBS = 600
"""Of the many; of the few a fifth."""
PERSON, OTHERS = "U01DEMO", 199
DOWN = 5000
"""Jobs above the page far down."""
TIMES = 40
TOLD = 20
"""Jobs whose steps are told."""
GOAL = 300
"""Milliseconds."""
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Of jobs' ids."""
ENDS = [JobState.SUCCEEDED] * 15 + [JobState.FAILED] * 3 + [JobState.CANCELLED, JobState.LOST]
AT_ONCE = 5000
"""Rows inserted at once."""


@dataclass(frozen=True)
class Place:
    """A database with jobs in it."""

    folder: Path
    url: str
    ids: list[str]
    """The oldest job first."""

    @property
    def environment(self) -> dict[str, str]:
        """Settings that lead to it. Compute knows none of its jobs, which shall not be lost for that."""
        return {
            "NOMADS_DATA": str(self.folder),
            "NOMADS_DATABASE_URL": self.url,
            "NOMADS_SECRET_KEY": "a key for benchmarks",
            "NOMADS_LOST_AFTER": str(10**9),
            "NOMADS_PIPELINES": str(ROOT / "tests" / "support" / "programs"),
        }


def measure() -> Iterator[Figure]:
    """On both databases, each with few jobs and with many."""
    counts: list[dict[str, Any]] = []
    with part("follower") as slack, part("boss") as boss:
        for name in ("SQLite", "PostgreSQL"):
            with _filled(name, FEW) as place, _bot(slack, boss, place) as url:
                floors = _looked(slack, url, place)
            with _filled(name, JOBS) as place:
                counts.append(_counted(place))
                with _bot(slack, boss, place) as url:
                    for what, seconds in _looked(slack, url, place).items():
                        yield Figure(
                            name=f"following on {name}, {what}, p95",
                            value=seconds * 1000,
                            unit="ms",
                            floor=floors[what] * 1000,
                            at_most=GOAL,
                        )
                    told = slack.ask(url=url, submit=TOLD)["told"]
                yield from _delays(name, told, place)
    yield from _queries({what: max(count[what] for count in counts) for what in counts[0]})


def _looked(slack: Part, url: str, place: Place) -> dict[str, float]:
    """Seconds (p95) until a person sees each of these."""
    newest, middle = place.ids[-1], place.ids[len(place.ids) // 2]
    down = place.ids[max(11, len(place.ids) - DOWN)]
    wanted: dict[str, dict[str, Any]] = {
        "list mine": {"command": "list mine", "expected": "Older"},
        "list all": {"command": "list all", "expected": newest},
        "list running": {"command": "list running", "expected": newest},
        "list failed": {"command": "list failed", "expected": "Older"},
        "list mine failed": {"command": "list mine failed", "expected": "Your jobs that have failed"},
        f"a page {DOWN} jobs down": {"page": f"all:{newest},{down}", "expected": "page 3"},
        "status of a job": {"command": f"status {middle}", "expected": middle},
        "status": {"command": "status", "expected": "Older"},
        "a mistyped job": {"command": f"status {_mistyped(middle, place.ids)}", "expected": middle},
        "the beginning of a job": {"command": f"status {middle[:6]}", "expected": middle},
        "the home tab": {"home": True, "expected": newest},
    }
    found = {}
    for what, question in wanted.items():
        slack.ask(url=url, times=2, **question)  # warms up
        seconds = slack.ask(url=url, times=TIMES, **question)["seconds"]
        found[what] = statistics.quantiles(seconds, n=20)[18]
    return found


def _mistyped(job: str, ids: list[str]) -> str:
    """Another last character, so that there is no such job."""
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
        yield Figure(name=f"following, queries of {what}", value=counts[what], unit="", at_most=goal)
    yield Figure(
        name="following, queries of a page of 10, beside one of 1",
        value=counts["a page"],
        unit="",
        floor=counts["a page of 1"],
        ratio_at_most=1,
    )


def _delays(name: str, told: list[dict[str, Any]], place: Place) -> Iterator[Figure]:
    """From when the transition was written until its reply stood in the thread."""
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
        value=statistics.quantiles(delays, n=20)[18],
        unit="s",
        at_most=1,
    )
    yield Figure(name=f"following on {name}, a transition until it is told, slowest", value=max(delays), unit="s")


@contextmanager
def _bot(slack: Part, boss: Part, place: Place) -> Iterator[str]:
    """Where it listens to Slack."""
    environment = slack_environment(slack, place.folder) | place.environment
    environment |= {"NOMADS_BOSS_HOST": boss.ready["url"]}
    with bot(environment, log=place.folder / "log") as url:
        yield f"{url}/slack/events"


@contextmanager
def _filled(name: str, count: int) -> Iterator[Place]:
    """A new database of that kind with so many jobs."""
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = f"sqlite:///{folder / 'nomads.db'}" if name == "SQLite" else stack.enter_context(postgresql())
        store = JobStore(connect(url))
        store.migrate()
        rows, steps = _rows(count)
        with store.begin() as transaction:
            for table, values in ((jobs, rows), (transitions, steps)):
                for first in range(0, len(values), AT_ONCE):
                    transaction.connection.execute(table.insert(), values[first : first + AT_ONCE])
        store.close()
        yield Place(folder, url, [row["id"] for row in rows])


def _rows(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Jobs, the oldest first, and the story of every tenth."""
    dice = random.Random(5)  # the same jobs every time
    unfinished = min(UNFINISHED_JOBS, count // 5)
    values = {"pipeline": "nomads-unsupervised", "collection": "demo", "experiment": "cortex", "email": "a@example.org"}
    request = JobRequest.parse({**values, "x": "0,512", "y": "0,512", "z": "0,16", "channel": "C01SYNAPSES"})
    asked = request.model_dump(mode="json")
    began = datetime.now(UTC) - timedelta(minutes=5 * count)
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids["".join(dice.choices(ALPHABET, k=8))] = None
    rows, steps = [], []
    for number, job in enumerate(ids):
        left = count - number  # the newest have not ended
        state = UNFINISHED[left % len(UNFINISHED)] if left <= unfinished else ENDS[number % len(ENDS)]
        mine = left % 6 != 0 if left <= unfinished else dice.random() < 0.2
        at = began + timedelta(minutes=5 * number)
        rows.append(
            {
                "id": job,
                "key": f"view:{number}",
                "request": asked | {"x": {"start": number, "stop": number + 512}},
                "actor": PERSON if mine else f"U{dice.randrange(OTHERS):03d}",
                "state": state.value,
                "reason": "",
                "compute_id": f"run-{job}" if state is not JobState.ACCEPTED else None,
                "log_tail": [f"line {n} of what the program printed" for n in range(20)]
                if state is JobState.FAILED
                else [],
                "summary": {"counts": {"synapses": number}, "files": [{"name": "synapses.csv", "title": "Synapses"}]}
                if state is JobState.SUCCEEDED
                else None,
                "attempt": 1,
                "waiting": "",
                "accepted_at": at,
                "submitted_at": at if state is not JobState.ACCEPTED else None,
                "started_at": at if state not in UNFINISHED or state is JobState.RUNNING else None,
                "finished_at": at + timedelta(minutes=4) if state not in UNFINISHED else None,
                "pipeline": request.pipeline,
                "voxels": request.box.voxels,
                "work": f"{number:064x}",
                "size": 2 * request.box.voxels,
                "checked": True,
            }
        )
        if number % 10 == 0:
            story = dict.fromkeys([JobState.ACCEPTED, *([JobState.SUBMITTED] if state in WATCHED else []), state])
            steps += [
                {"job_id": job, "state": s.value, "at": at + timedelta(seconds=n), "text": "", "reply": None}
                for n, s in enumerate(story)
            ]
    return rows, steps
