"""From a submitted view to the job on disk, while all services answer, and while AWS, BOSS and mail hang."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.parts.services import ENVIRONMENT
from bench.processes import Part, bot, part, slack_environment, workplace

CONNECTIONS, REQUESTS, ROUNDS = 50, 800, 3
STOP = "999999999"
"""Where the box ends in the request that is repeated."""
HANG = 30
"""Seconds for which a hanging service does not answer."""


@dataclass(frozen=True)
class Run:
    """Medians over the rounds, and the outcomes of the submissions."""

    rate: float
    p99: float
    failed: int
    astray: int
    """Acknowledged submissions without a row, and rows without an acknowledged submission."""


def measure() -> Iterator[Figure]:
    """The figures, from one bot after the other: two at once would disturb each other."""
    with part("slack") as slack, part("load") as load:
        prompt, hanging = (_run(slack, load, *arguments) for arguments in ((), ("--hang", str(HANG))))
    yield Figure(name="submissions", value=prompt.rate, unit="/s", at_least=250)
    yield Figure(name="submissions, p99", value=prompt.p99 * 1000, unit="ms", at_most=500)
    yield Figure(
        name="submissions while AWS, BOSS and mail hang",
        value=hanging.rate,
        unit="/s",
        floor=prompt.rate,
        at_least=250,
        ratio_at_least=1 / 1.2,
    )
    yield Figure(
        name="submissions while AWS, BOSS and mail hang, p99", value=hanging.p99 * 1000, unit="ms", at_most=500
    )
    yield Figure(name="submissions, failed", value=prompt.failed + hanging.failed, unit="requests", at_most=0)
    yield Figure(name="submissions, lost or doubled", value=prompt.astray + hanging.astray, unit="jobs", at_most=0)


def _run(slack: Part, load: Part, *services: str) -> Run:
    with workplace() as folder, part("services", *services) as around, part("boss") as boss:
        environment = slack_environment(slack, folder) | ENVIRONMENT | {"NOMADS_MAX_BYTES": str(10**18)}
        environment |= {"AWS_ENDPOINT_URL": around.ready["aws"], "NOMADS_MAIL": around.ready["smtp"]}
        environment |= {"NOMADS_BOSS_HOST": around.ready["boss"] if services else boss.ready["url"]}
        runs = []
        with bot(environment, log=folder / "log") as url:
            events = f"{url}/slack/events"
            asked = slack.ask(url=events, x=f"0, {STOP}")
            for turn in range(ROUNDS + 1):
                mark = "########"  # each on a box of its own: the same work is not accepted twice
                body = asked["submission"].replace(asked["view"], f"V{turn}{mark}")
                body = body.replace(STOP, f"{turn + 1}{mark}")
                requests = {
                    "url": events,
                    "body": body,
                    "mark": mark,
                    "count": REQUESTS,
                    "secret": slack.ready["secret"],
                }
                runs.append(load.ask(connections=CONNECTIONS, requests=requests))
        acknowledged = 1 + sum(run["answered"] for run in runs) - sum(run["failed"] for run in runs)
        return Run(
            rate=statistics.median(run["rate"] for run in runs[1:]),  # the first round warms up
            p99=statistics.median(run["p99"] for run in runs[1:]),
            failed=sum(run["failed"] for run in runs),
            astray=abs(_jobs(folder) - acknowledged),
        )


def _jobs(folder: Path) -> int:
    """The number of jobs on disk, after the bot was killed. No key occurs twice, since the column is unique."""
    with closing(sqlite3.connect(folder / "nomads.db")) as database:
        counted: int = database.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return counted
