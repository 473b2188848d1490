"""Databases that the code of earlier schemas left in mid-flight are brought up to date, and their jobs finished."""

from __future__ import annotations

import gzip
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import alembic.command
import pytest
import sqlalchemy as sa

from bot.domain.blocks import ASKED
from bot.domain.errors import NotFound
from bot.domain.job import Job
from bot.domain.outbox import Kind, Lane
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation, Work
from bot.storage.engine import Database, connect
from bot.storage.tables import REVISION, messages
from contract.program import BLOCKS, FIRST, PLAN, RESULTS
from tests.support import of_its_time
from tests.support.databases import at
from tests.support.memory import MemoryCompute
from tests.support.world import World, in_blocks

FOLDER = Path(of_its_time.__file__).parent / "databases_of_then"
SCHEMAS = ("0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013", "0014", "0015", "0016")
"""Those that jobs could be in, from the one of 0.1.0 on."""

Left = Mapping[str, tuple[str, str]]
"""What a job is there for, to its state and the kinds of its open effects."""
LEFT: Mapping[str, Left] = {
    "0004": {
        "succeeded": ("SUCCEEDED", ""),
        "failed": ("FAILED", ""),
        "cancelled": ("CANCELLED", ""),
        "lost": ("LOST", ""),
        "submitted": ("SUBMITTED", ""),
        "pending": ("PENDING", ""),
        "runnable": ("RUNNABLE", ""),
        "starting": ("STARTING", ""),
        "running": ("RUNNING", ""),
        "told": ("SUCCEEDED", "edit mail-finished preview reply"),
        "ended": ("SUCCEEDED", "collect edit"),
        "cancelling": ("RUNNING", "cancel edit"),
        "unchecked": ("ACCEPTED", "card check mail-accepted reply"),
        "accepted": ("ACCEPTED", "card mail-accepted reply submit"),
        "cancelled early": ("ACCEPTED", "cancel card edit home mail-accepted reply submit"),
        "killed": ("ACCEPTED", "card home mail-accepted reply submit"),
    },
    "0009": {  # threads are told that compute does not answer
        "submitted": ("SUBMITTED", "edit home reply"),
        "pending": ("PENDING", "edit home reply"),
        "runnable": ("RUNNABLE", "edit home reply"),
        "starting": ("STARTING", "edit home reply"),
        "running": ("RUNNING", "edit home reply"),
        "ended": ("SUCCEEDED", "collect edit home reply"),
        "cancelling": ("RUNNING", "cancel edit home reply"),
        "accepted": ("ACCEPTED", "card edit home mail-accepted reply submit"),
    },
    "0011": {"no card": ("SUBMITTED", "direct edit home mail-accepted reply")},
    "0014": {
        "first look": ("RUNNING", "edit home reply"),
        "pilot": ("RUNNING", "edit home reply"),
        "asked": ("RUNNING", ""),
        "blocks": ("RUNNING", "edit home reply"),
        "merge": ("RUNNING", "edit home reply"),
        "between stages": ("RUNNING", "advance edit home reply"),
    },
    "0016": {"reclaimed": ("ACCEPTED", "edit home reply submit")},
}
"""What a schema's database has beside, or instead of, what those before it have."""
ONE_NOTICE_SINCE = "0009"
"""From here on one job, whichever, has admins told."""
ENDS = {
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "lost": JobState.LOST,
    "cancelling": JobState.CANCELLED,
    "cancelled early": JobState.CANCELLED,
}
"""How a job ends that does not succeed."""


def left_by(schema: str) -> dict[str, tuple[str, str]]:
    """What the database of that schema has to have."""
    return {label: left for since, some in LEFT.items() if since <= schema for label, left in some.items()}


@pytest.fixture(params=SCHEMAS)
def then(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the code of then has left."""
    found: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{request.param}.json.gz").read_bytes()))
    return found


@pytest.fixture
def upgraded(then: dict[str, Any], database: str, database_url: str, tmp_path: Path) -> Iterator[Database]:
    """That database on each kind of database, up to date."""
    path = tmp_path / ("nomads.db" if database == "sqlite" else "then.db")
    with closing(sqlite3.connect(path)) as rows:
        rows.executescript(then["dump"])
        if database == "postgresql":
            copy(rows, then["revision"], database_url)
    store = Database(connect(database_url))
    store.migrate()
    yield store
    store.close()


def copy(rows: sqlite3.Connection, revision: str, url: str) -> None:
    """Put the rows into an empty PostgreSQL database of that revision. Each is read as text by PostgreSQL itself."""
    engine = connect(url)
    there = sa.MetaData()
    with engine.begin() as connection:
        at(revision, connection, alembic.command.upgrade)
        connection.execute(sa.text("SET LOCAL TIME ZONE 'UTC'"))
        there.reflect(connection)
        tables = [table for table in there.sorted_tables if table.name != "alembic_version"]
        for table in tables:
            names = [column.name for column in table.columns]
            found = rows.execute(f"SELECT {', '.join(names)} FROM {table.name}").fetchall()
            read = {c.name: sa.cast(sa.bindparam(c.name, type_=sa.Text), c.type) for c in table.columns}
            values = [dict(zip(names, map(as_text, row), strict=True)) for row in found]
            if values:
                connection.execute(table.insert().values(read), values)
            for name in names:
                sequence = connection.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, name)))
                if sequence and found:
                    connection.execute(sa.select(sa.func.setval(sequence, sa.func.max(table.c[name]))))
    engine.dispose()


def as_text(value: object) -> str | None:
    """What SQLite has, as PostgreSQL reads it."""
    return None if value is None else f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def compute_of(then: dict[str, Any]) -> MemoryCompute:
    """Compute, with what it had then."""
    compute = MemoryCompute(lasts=True)
    for number, work in enumerate(then["works"], 1):
        compute_id = f"memory-{number}"
        compute.works.append(
            Work(
                name=work["name"],
                count=work["count"],
                pipeline="",
                image="",
                command=(),
                arguments=(),
                cpu=1,
                memory=1,
                timeout=timedelta(hours=1),
                owner="",
                token="",
            )
        )
        if work["known"]:
            compute.knows(
                work["name"], compute_id, Observation(JobState(then["states"][compute_id])), count=work["count"]
            )
        for child in range(work["count"] or 0):
            name = compute.child(compute_id, child)
            compute.tell(name, Observation(JobState(then["states"][name])))
    return compute


class Today(World):
    """The code of today, with what compute, results and chat had then."""

    def __init__(self, store: Database, then: dict[str, Any]) -> None:
        super().__init__(
            store,
            compute=compute_of(then),
            pipeline=in_blocks(),
            block_voxels=of_its_time.BLOCK_VOXELS,
            admins=[of_its_time.ADMIN],
        )
        self.clock.wait_for(datetime.fromisoformat(then["at"]))
        for folder, files in then["results"].items():
            for name, content in files.items():
                self.results.put(folder, name, content.encode())
        self.chat._numbers = itertools.count(1000)  # those of then are taken
        edit = self.chat._edit

        def edited(story: Any, steps: Any, timestamp: str) -> None:
            with suppress(NotFound):  # a message of then
                edit(story, steps, timestamp)

        self.chat._edit = edited  # type: ignore[method-assign]

    def awaited(self, job: Job) -> list[str]:
        """What runs at compute for the job, the files of which are there now; a job that asks is told to go on."""
        stage = job.blocks.stage if job.blocks else ""
        if stage == ASKED:
            self.steering.go(job.id, actor=of_its_time.OWNER)
            return []
        assert job.compute_id, "every submission was made"
        if stage == FIRST:
            self.results.put(job.folder, PLAN, json.dumps({"blocks": 3, "reads": 123, "pilot": None}).encode())
        for folder in ("", "pilot/"):
            self.results.put(job.folder, f"{folder}{RESULTS}", json.dumps(of_its_time.FOUND).encode())
        if stage == BLOCKS:
            return [self.compute.child(job.compute_id, child) for child in self.compute.children(job.compute_id)]
        return [job.compute_id]

    def finish(self, ids: Mapping[str, str]) -> dict[str, Job]:
        """Let every job end, and what runs for it end well; what became of each."""
        for _ in range(6):  # a job in blocks has five stages
            self.settle()
            self.worker.watcher.watch_once()  # what was cancelled has ended
            jobs = {label: self.queries.find(job_id) for label, job_id in ids.items()}
            works = [work for job in jobs.values() if job.state not in FINAL for work in self.awaited(job)]
            for state in (JobState.RUNNING, JobState.SUCCEEDED):
                for work in works:
                    self.compute.tell(work, Observation(state))
                self.clock.advance(60)
                self.worker.watcher.watch_once()
        self.settle()
        return jobs


def test_jobs_of_every_schema_are_finished_by_the_code_of_today(then: dict[str, Any], upgraded: Database) -> None:
    world, ids = Today(upgraded, then), set(then["jobs"].values())
    with upgraded.read() as transaction:
        cards = sa.select(messages.c.job_id).where(messages.c.subject == "card")
        had_card = set(transaction.connection.scalars(cards))

    after = world.finish(then["jobs"])

    assert {label: job.state for label, job in after.items()} == {
        label: ENDS.get(label, JobState.SUCCEEDED) for label in left_by(then["revision"])
    }
    assert world.rows.open_effects() == 0
    assert world.rows.tokens == 0
    carded = Counter([*had_card, *(card.story.job.id for card in world.chat.cards)])
    assert carded == Counter(ids - {then["jobs"].get("no card")})
    assert [message.story.job.id for message in world.chat.directs[:1]] == [
        job_id for label, job_id in then["jobs"].items() if label == "no card"
    ]
    assert [who for who, _ in world.chat.told[:1]] == [of_its_time.ADMIN] * (then["revision"] >= ONE_NOTICE_SINCE)
    mails = Counter([*then["mails"], *(mail.subject for mail in world.mailer.sent)])
    assert set(mails.values()) == {1}
    assert Counter(subject.split()[2].rstrip(":") for subject in mails) == Counter([*ids, *ids])
    assert [name for name, times in Counter(work.name for work in world.compute.works).items() if times > 1] == []


def test_each_database_has_jobs_in_every_state_with_effects_of_every_lane(then: dict[str, Any]) -> None:
    with closing(sqlite3.connect(":memory:")) as rows:
        rows.executescript(then["dump"])
        states = dict(rows.execute("SELECT id, state FROM jobs"))
        effects = rows.execute("SELECT job_id, kind FROM effects WHERE done_at IS NULL").fetchall()
        (in_hand,) = rows.execute("SELECT count(*) FROM effects WHERE done_at IS NULL AND lease IS NOT NULL").fetchone()
    kinds = {job_id: sorted({kind for one, kind in effects if one == job_id} - {Kind.NOTICE}) for job_id in states}

    found = {label: (states[job_id], " ".join(kinds[job_id])) for label, job_id in then["jobs"].items()}

    assert found == left_by(then["revision"])
    assert len(states) == len(found)
    assert {state for state, _ in found.values()} == {state.value for state in JobState}
    assert {Kind(kind).lane for _, kind in effects} == set(Lane)
    assert then["revision"] != REVISION or {kind for _, kind in effects} == set(Kind)
    assert sum(kind == Kind.NOTICE for _, kind in effects) == (then["revision"] >= ONE_NOTICE_SINCE)
    assert in_hand == 4, "the process was killed with one effect of each lane but that of edits in hand"


def test_there_is_a_database_of_each_schema_that_jobs_could_be_in() -> None:
    there = sorted(path.name[:4] for path in FOLDER.glob("*.json.gz"))
    assert there == list(SCHEMAS)
    assert there[-1] == REVISION, "make one: see tests/support/of_its_time.py"
    assert there == [f"{number:04}" for number in range(int(there[0]), int(REVISION) + 1)]


def test_the_database_of_today_is_what_the_code_of_today_writes(tmp_path: Path) -> None:
    made = of_its_time.written(tmp_path / "nomads.db")
    assert made["revision"] == REVISION
    assert made["jobs"].keys() == left_by(REVISION).keys()
