"""Write a database as the code of a commit leaves it in mid-flight: jobs in every state, effects open.

Run with the code of that commit, in its folder, and kept in `databases_of_then` under the number of its schema:

    git archive COMMIT | tar -x -C FOLDER
    cd FOLDER && python -P …/tests/support/of_its_time.py …/tests/support/databases_of_then

It stands on what all commits since 0.1.0 have: `tests.support.world`, and SQLite. What a commit's code cannot do is
left out; tests/scenario/test_upgrades_in_mid_flight.py holds what each database has. Of 0004 the commit is the one that
wrote 0.1.0 into the changelog. Of any other schema it is the last one of the main branch's first parents that has the
migrations up to it as they are now, and starts; of 0006 to 0009, which no first parent has so, the last one of all.
"""

from __future__ import annotations

import gzip
import importlib
import inspect
import json
import sqlite3
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")  # the code of that commit

from pydantic import SecretStr

from bot.domain import job as jobs_of_then
from bot.domain import outbox, work
from bot.domain.errors import Refused, Unavailable
from bot.domain.states import JobState
from tests.support import world as worlds
from tests.support.memory import MemoryCompute
from tests.support.world import TOKEN, World, a_request

AWAY = Unavailable("It is away.")
OWNER, ADMIN = "U01DEMO", "U02ADMIN"
BLOCK_VOXELS = 5_000_000
"""More than a usual request of the tests has, and less than WHOLE."""
WHOLE = {"x": "0,1024", "y": "0,1024", "z": "0,64"}
FOUND = {"counts": {"synapses": 3}}
MANY = 1000
"""Calls that fail: more than there are."""


def _opened(url: str) -> Any:
    """The store in that file, up to date."""
    try:
        storage = importlib.import_module("bot.storage.engine")
        store = storage.Database(storage.connect(url))
    except ImportError:  # 0.1.0
        storage = importlib.import_module("bot.storage.store")
        store = storage.JobStore(storage.connect(url))
    store.migrate()
    return store


def _world(store: Any) -> Any:
    """The world of that time; where it has jobs in blocks, WHOLE is one."""
    more: dict[str, Any] = {}
    if "block_voxels" in inspect.signature(World).parameters:
        more = {"pipeline": worlds.in_blocks(), "block_voxels": BLOCK_VOXELS}
    if "lasts" in inspect.signature(MemoryCompute).parameters:
        more["compute"] = MemoryCompute(lasts=True)
    if hasattr(worlds, "MemorySecrets") and not hasattr(worlds, "Vault"):  # 0.1.0's tests kept tokens in memory
        sealed = importlib.import_module("bot.storage.vault").SealedSecrets(key=b"k" * 32, rows=store)
        vars(worlds)["MemorySecrets"] = lambda: sealed
    return World(store, admins=[ADMIN], **more)


class Then:
    """The code of then at work. `jobs` has what it leaves: what the job is here for, and its id."""

    def __init__(self, path: Path) -> None:
        self.store = _opened(f"sqlite:///{path}")
        self.world = _world(self.store)
        self.jobs: dict[str, str] = {}
        service = getattr(self.world, "service", None)  # 0.1.0 had one for all rules
        self.steering = service or self.world.steering
        self.people = service.people if service else self.world.people
        self.drain = getattr(self.world.worker, "lanes", self.world.worker).drain
        self.watch = getattr(self.world.worker, "watcher", self.world.worker).watch_once
        self.in_blocks = hasattr(outbox.Kind, "ADVANCE")

    def begun(self, label: str, **changes: Any) -> Any:
        """A job that waits at compute, as everybody was told."""
        job = self.accepted(label, **changes)
        self.world.settle()
        return job

    def running(self, label: str) -> Any:
        """A job whose program runs, as everybody was told."""
        job = self.world.running()
        self.jobs[label] = job.id
        return job

    def accepted(self, label: str, **changes: Any) -> Any:
        """A job of which nothing was done yet."""
        job = self.world.accept(**changes)
        self.jobs[label] = job.id
        return job

    def unchecked(self, label: str) -> None:
        """A job of which BOSS could not be asked at its acceptance."""
        if not hasattr(self.world, "service"):
            self.accepted(label, checked=False)
            return
        service = importlib.import_module("bot.application.service")
        request = a_request()
        proposal = service.Proposal(request=request, checked=False, readable=False, size=1, expected=None)
        job = self.world.service.accept(
            request, actor=OWNER, token=SecretStr(TOKEN), key=label, proposal=proposal, again=True
        )
        self.jobs[label] = job.id

    def look(self, *seen: tuple[str, work.Observation]) -> None:
        """Let compute say so of these works, and the watcher look."""
        for compute_id, observation in seen:
            self.world.compute.tell(compute_id, observation)
        self.watch()

    # What is left of it

    def ends(self) -> None:
        """Leave a job in each end."""
        world = self.world
        succeeded = self.running("succeeded")
        world.results.put(succeeded.folder, "results.json", json.dumps(FOUND).encode())
        world.see(succeeded, JobState.SUCCEEDED)
        world.settle()
        world.see(self.running("failed"), JobState.FAILED, reason="Ended.", exit_code=1)
        world.settle()
        cancelled = self.running("cancelled")
        self.steering.cancel(cancelled.id, actor=OWNER)
        world.settle()
        self.watch()
        world.settle()
        world.compute.lose(self.running("lost").name)
        self.watch()
        world.clock.advance(301)
        self.watch()
        world.settle()

    def at_compute(self) -> None:
        """Leave a job in each state that compute has words for."""
        for state in (JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING):
            job = self.begun(state.lower())
            self.world.see(job, state)
            self.world.settle()

    def staged(self, label: str) -> tuple[Any, str]:
        """A job in blocks whose first look runs, and that look's compute id."""
        job = self.begun(label, **WHOLE)
        look = self.present()
        self.look((look, work.Observation(JobState.RUNNING)))
        self.world.settle()
        return job, look

    def present(self) -> str:
        """The compute id of what was submitted last."""
        return f"memory-{len(self.world.compute.works)}"

    def plans(self, job: Any, *, pilot: object = None) -> None:
        """Let the first look leave a plan."""
        plan = {"blocks": 10, "reads": 123, "pilot": pilot}
        self.world.results.put(job.folder, "blocks/plan.json", json.dumps(plan).encode())

    def planned(self, label: str, *, pilot: object = None) -> Any:
        """A job in blocks whose first look has ended, and whose pilot or blocks were submitted."""
        job, look = self.staged(label)
        self.plans(job, pilot=pilot)
        self.look((look, work.Observation(JobState.SUCCEEDED, exit_code=0)))
        self.world.settle()
        return job

    def blocks(self) -> None:
        """Leave a job in blocks in each stage."""
        done = work.Observation(JobState.SUCCEEDED, exit_code=0)
        self.staged("first look")
        self.planned("pilot", pilot=((0, 2), (0, 8), (4, 9)))
        asked = self.planned("asked", pilot=((0, 2), (0, 8), (4, 9)))
        self.world.results.put(asked.folder, "pilot/results.json", json.dumps(FOUND).encode())
        self.look((self.present(), done))
        self.world.settle()
        self.planned("blocks")
        some = [self.world.compute.child(self.present(), number) for number in range(4)]
        self.look(*((child, done) for child in some), (some[0], work.Observation(JobState.RUNNING)))
        self.world.settle()
        self.planned("merge")
        self.look(*((self.world.compute.child(self.present(), number), done) for number in range(10)))
        self.world.settle()

    def in_mid_flight(self) -> None:
        """Leave jobs of which what was to be done failed, or was being done as the process was killed."""
        world = self.world
        told, ended, cancelling = (self.running(label) for label in ("told", "ended", "cancelling"))
        reclaimed = self.running("reclaimed") if "lasting" in jobs_of_then.Job.model_fields else None
        between, first_look = self.staged("between stages") if self.in_blocks else (None, "")
        self.people.opened_home(OWNER)

        direct = hasattr(outbox.Kind, "DIRECT")
        if direct:
            world.chat.fail_next(Refused("The bot is not in the channel."), call="post_card")
        for port in (world.chat, world.mailer):
            port.fail_next(AWAY, times=MANY)
        if direct:
            self.accepted("no card")
            self.drain()
        world.results.put(told.folder, "results.json", json.dumps(FOUND | {"preview": "preview.png"}).encode())
        world.results.put(told.folder, "preview.png", b"PNG")
        world.see(told, JobState.SUCCEEDED)
        self.drain()

        for port in (world.results, world.volumes):
            port.fail_next(AWAY, times=MANY)
        for call in ("submit", "cancel"):
            world.compute.fail_next(AWAY, call=call, times=MANY)
        world.see(ended, JobState.SUCCEEDED)
        if between:
            self.plans(between)
            self.look((first_look, work.Observation(JobState.SUCCEEDED, exit_code=0)))
        if reclaimed:
            world.see(reclaimed, JobState.FAILED, reason="The machine was taken back.", cause=work.Cause.MACHINE)
        self.steering.cancel(cancelling.id, actor=OWNER)
        self.unchecked("unchecked")
        self.accepted("accepted")
        early = self.accepted("cancelled early")
        self.drain()
        self.steering.cancel(early.id, actor=OWNER)
        self.drain()

        if hasattr(outbox.Kind, "NOTICE"):
            world.compute.fail_next(AWAY, call="observe", times=2)
            self.watch()
            world.clock.advance(61)
            self.watch()

        vars(world.compute)["_faults"].clear()
        world.compute.fail_after(KeyboardInterrupt(), call="submit")  # compute has it, and the process is killed
        killed = self.accepted("killed")
        with suppress(KeyboardInterrupt):
            self.drain(job_id=killed.id)

    def left(self) -> dict[str, Any]:
        """What is left, beside the database: jobs, time, mails, results, and what compute has."""
        compute = vars(self.world.compute)
        names = {compute_id: name for name, compute_id in compute["_names"].items()}
        states = {compute_id: seen.state.value for compute_id, seen in compute["_observations"].items()}
        works = [
            {"name": one.name, "known": f"memory-{number}" in names, "count": getattr(one, "count", None)}
            for number, one in enumerate(self.world.compute.works, 1)
        ]
        results = {
            folder: {name: content.decode() for name, content in files.items()}
            for folder, files in self.world.results.files.items()
        }
        return {
            "jobs": self.jobs,
            "at": self.world.clock.now.isoformat(),
            "mails": [mail.subject for mail in self.world.mailer.sent],
            "results": results,
            "works": works,
            "states": states,
        }


def written(path: Path) -> dict[str, Any]:
    """Leave a database in mid-flight in a file; returns what `Then.left` says, its schema, and its dump."""
    then = Then(path)
    then.ends()
    then.at_compute()
    if then.in_blocks:
        then.blocks()
    then.in_mid_flight()
    then.store.close()
    with sqlite3.connect(path) as database:
        revision = database.execute("select version_num from alembic_version").fetchone()[0]
        return {"revision": revision, **then.left(), "dump": "\n".join(database.iterdump())}


def main() -> None:
    """Write the database of the code in this folder into the folder that is named."""
    with tempfile.TemporaryDirectory() as folder:
        made = written(Path(folder) / "nomads.db")
    path = Path(sys.argv[1]) / f"{made['revision']}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(made).encode(), mtime=0))
    print(path.name)


if __name__ == "__main__":
    main()
