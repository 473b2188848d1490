"""One round of the watcher over 10,000 running jobs on AWS Batch."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure
from bench.parts.services import ENVIRONMENT
from bench.processes import part, slack_environment, workplace
from bot.domain.request import JobRequest
from bot.domain.states import JobState
from bot.storage.engine import Database, connect
from bot.storage.tables import jobs

JOBS = 10_000
ROUNDS = 3


def measure() -> Iterator[Figure]:
    """The figures: the measured process has the whole application, with Slack's side; AWS runs in another process."""
    with workplace() as folder, part("services") as services:
        _fill(folder)
        environment = slack_environment(None, folder) | ENVIRONMENT | {"AWS_ENDPOINT_URL": services.ready["aws"]}
        with part("watcher", environment=environment) as watcher:
            looks = [watcher.ask() for _ in range(ROUNDS)]
        asked = services.ask()
    yield Figure(name="watching, DescribeJobs a round", value=asked["describejobs"] / ROUNDS, unit="calls", at_most=100)
    yield Figure(
        name="watching, other calls", value=sum(asked.values()) - asked["describejobs"], unit="calls", at_most=0
    )
    yield Figure(
        name="watching, processor time a round", value=max(look["processor"] for look in looks), unit="s", at_most=2
    )
    yield Figure(name="watching, time a round", value=max(look["seconds"] for look in looks), unit="s")
    yield Figure(name="watching, most memory", value=looks[-1]["memory"], unit="MB", at_most=250)


def _fill(folder: Path) -> None:
    """Make a database in which many jobs run."""
    store = Database(connect(f"sqlite:///{folder / 'nomads.db'}"))
    store.migrate()
    values = {"pipeline": "nomads-unsupervised", "collection": "demo", "experiment": "cortex", "email": "a@example.org"}
    request = JobRequest.parse({**values, "x": "0,512", "y": "0,512", "z": "0,16", "channel": "C01SYNAPSES"})
    row = {
        "request": request.model_dump(mode="json"),
        "actor": "U01DEMO",
        "state": JobState.RUNNING.value,
        "accepted_at": datetime.now(UTC),
        "submitted_at": datetime.now(UTC),
        "pipeline": request.pipeline,
        "voxels": request.box.voxels,
        "work": "",
        "checked": True,
    }
    rows = [{**row, "id": f"j{n:07d}", "key": f"view:{n}", "compute_id": str(uuid.uuid4())} for n in range(JOBS)]
    with store.begin() as transaction:
        transaction.connection.execute(jobs.insert(), rows)
    store.close()
