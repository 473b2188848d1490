"""Databases that the code of earlier schemas left in mid-flight are brought up to date, and their jobs finished."""

from __future__ import annotations

import gzip
import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.domain.errors import NotFound
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation
from bot.storage.engine import Database, connect
from bot.storage.tables import REVISION, jobs, messages
from tests.support import of_its_time
from tests.support.world import World

FOLDER = Path(of_its_time.__file__).parent / "databases_of_then"
FIXTURES = sorted(FOLDER.glob("*.json.gz"))


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name[:4])
def then(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the code of then has left."""
    found: dict[str, Any] = json.loads(gzip.decompress(request.param.read_bytes()))
    return found


@pytest.fixture
def upgraded(then: dict[str, Any], tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "nomads.db"
    with sqlite3.connect(path) as database:
        database.executescript(then["dump"])
    store = Database(connect(f"sqlite:///{path}"))
    store.migrate()
    yield store
    store.close()


def world_of(store: Database, then: dict[str, Any]) -> World:
    """Today's code, with what compute and chat had then."""
    world = World(store)
    for name, compute_id in then["names"].items():
        world.compute.knows(name, compute_id, Observation(JobState.SUBMITTED))
    world.chat._numbers = itertools.count(1000)  # those of then are taken
    edit = world.chat._edit

    def edited(story: Any, steps: Any, timestamp: str) -> None:
        with suppress(NotFound):  # a message of then
            edit(story, steps, timestamp)

    world.chat._edit = edited  # type: ignore[method-assign]
    return world


def test_jobs_of_every_schema_are_finished_by_the_code_of_today(then: dict[str, Any], upgraded: Database) -> None:
    world = world_of(upgraded, then)
    with upgraded.read() as transaction:
        before = {row.id: row for row in transaction.connection.execute(sa.select(jobs.c.id, jobs.c.state))}
        had_card = set(transaction.connection.scalars(sa.select(messages.c.job_id).where(messages.c.subject == "card")))
    world.settle()
    for name in before:
        job = world.queries.find(name)
        if job.state not in FINAL:
            world.results.put(job.folder, "results.json", b'{"counts": {"synapses": 3}}')
            world.see(job, JobState.RUNNING)
            world.clock.advance(60)
            world.see(job, JobState.SUCCEEDED)
    world.clock.advance(timedelta(minutes=10).total_seconds())
    world.worker.watcher.watch_once()
    world.settle()

    after = {name: world.queries.find(name) for name in before}
    assert len(after) == 9
    assert {job.state for job in after.values()} <= FINAL
    assert sum(job.state is JobState.CANCELLED for job in after.values()) == 1
    assert sum(job.state is JobState.SUCCEEDED for job in after.values()) == 7
    assert world.rows.open_effects() == 0
    assert {card.story.job.id for card in world.chat.cards}.isdisjoint(had_card)
    assert {card.story.job.id for card in world.chat.cards} | had_card == set(before)
    assert len({work.name for work in world.compute.works}) == len(world.compute.works)
    assert {work.name for work in world.compute.works}.isdisjoint(then["names"])


def test_there_is_a_database_of_each_schema_that_jobs_could_be_in() -> None:
    there = [path.name[:4] for path in FIXTURES]
    assert there[-1] == REVISION, "make one: see tests/support/of_its_time.py"
    assert len(there) >= 10


def test_the_database_of_today_is_what_the_code_of_today_writes(tmp_path: Path) -> None:
    made = of_its_time.written(tmp_path / "nomads.db")
    assert made["revision"] == REVISION
    assert len(made["names"]) == 6  # type: ignore[arg-type]
