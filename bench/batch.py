"""AWS Batch: the delay from an event to the reply, a job's cost in calls, short and long, and very many submissions."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench.figures import Figure
from bench.parts.follower import STEPS
from bench.processes import bot, part, slack_environment, workplace
from bot.aws.backend import SUBMISSIONS
from bot.domain.states import JobState
from bot.storage.engine import Database, connect
from sandbox.aws import AwsStandIn
from sandbox.house import ROOT
from tests.support.lasting import Day
from tests.support.rated import rated

JOBS = 60
LIFE = (JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING, JobState.SUCCEEDED)
LONGEST = 15.0
"""Seconds that a job stays in one state at most."""
SETTINGS = {
    "NOMADS_AWS_FAIR_SHARE": "true",
    "NOMADS_MAIL": "ses://",
    "NOMADS_MAIL_FROM": "nomads@example.org",
    "NOMADS_PIPELINES": str(ROOT / "tests" / "support" / "programs"),
    "NOMADS_IMAGES": json.dumps({"quick": "registry.test/quick:1"}),
}
SOON = 3
"""Goal: seconds from an event to the reply."""
CLICKS = 10_000
DRAINED = 210
"""Goal: seconds of simulated time until the last of these is submitted."""
CALLS = 4
"""Goal: calls of DescribeJobs for one job over its life."""
DAY = 200
"""Jobs of a simulated day."""
LOST = 0.1
"""The part of that day's events that never come."""
SLOWEST = 7 * 60 + 10
"""Goal: seconds by which a step is late whose event was lost, a round included."""


def measure() -> Iterator[Figure]:
    """The figures of events, of jobs of real lengths, and of clicks."""
    yield from _followed()
    yield from _lasted()
    yield from _clicked()


def _lasted() -> Iterator[Figure]:
    """A day of jobs that run for minutes to hours, simulated: the application over its fakes and SQLite."""
    with workplace() as folder:
        store = Database(connect(f"sqlite:///{folder / 'nomads.db'}"))
        store.migrate()
        day = Day(store, jobs=DAY, lost=LOST)
        day.pass_by()
        late = day.late()
        store.close()
    name = f"batch, a day of {DAY} jobs of 2 min to 6 h"
    yield Figure(
        name=f"{name}, DescribeJobs for a job, of a call for n jobs one nth, median",
        value=statistics.median(day.shares()),
        unit="calls",
        at_most=CALLS,
    )
    yield Figure(
        name=f"{name}, DescribeJobs that name a job, median",
        value=statistics.median(day.named()),
        unit="calls",
        at_most=CALLS,
    )
    yield Figure(name=f"{name}, DescribeJobs, mean", value=day.calls / DAY, unit="calls a job")
    yield Figure(name=f"{name}, ListJobs, mean", value=day.listings / DAY, unit="calls a job")
    yield Figure(name=f"{name}, a step whose event was lost, median", value=statistics.median(late), unit="s late")
    yield Figure(name=f"{name}, a step whose event was lost, slowest", value=max(late), unit="s late", at_most=SLOWEST)


def _clicked() -> Iterator[Figure]:
    """CLICKS jobs are asked for at once, with everything round NOMADS in memory and time that passes when it waits."""
    with workplace() as folder:
        store = Database(connect(f"sqlite:///{folder / 'nomads.db'}"))
        store.migrate()
        world, compute = rated(store)
        began = time.perf_counter()
        taken = [world.accept(actor=f"U{number:05}") for number in range(CLICKS)]
        accepted = time.perf_counter() - began
        world.settle()
        submitted = sum(world.job(job).state is JobState.SUBMITTED for job in taken)
        store.close()
    yield Figure(name=f"batch, {CLICKS:,} clicks at once, submitted", value=submitted, unit="jobs", at_least=CLICKS)
    yield Figure(
        name=f"batch, {CLICKS:,} clicks at once, until the last is submitted",
        value=compute.took,
        unit="s of simulated time",
        at_most=DRAINED,
    )
    yield Figure(
        name="batch, most submissions in a second", value=compute.most, unit="calls of SubmitJob", at_most=SUBMISSIONS
    )
    yield Figure(name="batch, clicks accepted one after the other", value=CLICKS / accepted, unit="jobs/s")


def _followed() -> Iterator[Figure]:
    """The figures of a bot on moto's AWS, whose jobs are moved here, and a person in Slack who follows them."""
    with workplace() as folder, part("follower") as slack, part("boss") as boss, AwsStandIn(programs=False) as aws:
        aws.client("sesv2").create_email_identity(EmailIdentity=SETTINGS["NOMADS_MAIL_FROM"])
        environment = slack_environment(slack, folder) | aws.environment
        environment |= {"NOMADS_BOSS_HOST": boss.ready["url"]} | SETTINGS
        with bot(environment, log=folder / "log") as url, _Lives(aws) as lives:
            told = slack.ask(url=f"{url}/slack/events", submit=JOBS)["told"]
        asked = Counter[str](
            job for operation, body in aws.heard if operation == "/v1/describejobs" for job in json.loads(body)["jobs"]
        )
        submitted = [json.loads(body) for operation, body in aws.heard if operation == "/v1/submitjob"]
    shares = [one["shareIdentifier"] for one in submitted if "shareIdentifier" in one]
    yield Figure(name="batch, submissions with a share identifier", value=len(shares), unit="jobs", at_least=JOBS)
    delays = sorted(step["at"] - lives.told[step["job"], step["state"]] for step in told)
    yield Figure(
        name="batch, from an event to the reply, p95",
        value=statistics.quantiles(delays, n=20)[18],
        unit="s",
        at_most=SOON,
    )
    yield Figure(name="batch, from an event to the reply, slowest", value=delays[-1], unit="s")
    yield Figure(
        name="batch, DescribeJobs of a job over its life, median",
        value=statistics.median(asked.values()),
        unit="calls",
        at_most=CALLS,
    )


class _Lives:
    """Moves every job through LIFE. A context manager."""

    def __init__(self, aws: AwsStandIn) -> None:
        self._aws = aws
        self._draw = random.Random(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._move)
        self.told: dict[tuple[str, str], float] = {}
        """When the event of a job's state was sent, in seconds since the epoch."""

    def __enter__(self) -> _Lives:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _move(self) -> None:
        due: dict[str, tuple[float, list[JobState]]] = {}
        while not self._stop.wait(0.02):
            for job in list(self._aws.jobs):
                at, left = due.setdefault(job.job_id, (time.time() + self._draw.uniform(0.2, 2), list(LIFE)))
                if left and time.time() >= at:
                    self._to(job, left[0])
                    due[job.job_id] = time.time() + self._draw.uniform(0.2, LONGEST), left[1:]

    def _to(self, job: Any, state: JobState) -> None:
        tag = job.backend.list_tags_for_resource(job.arn)["job"]
        if state is JobState.SUCCEEDED:
            place = job.container_overrides["command"]
            folder = place[place.index("--results-uri") + 1].removeprefix("s3://").partition("/")
            content = json.dumps({"contract": "1", "counts": {"synapses": 7}}).encode()
            self._aws.client("s3").put_object(Bucket=folder[0], Key=f"{folder[2]}results.json", Body=content)
        if state.value in STEPS:
            self.told[tag, state.value] = time.time()
        self._aws.move(job.job_id, state, exit_code=0 if state is JobState.SUCCEEDED else None)
