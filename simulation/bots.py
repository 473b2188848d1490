"""Bots: processes that share a database, end anywhere, and begin anew."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import SecretStr

from bot.application.links import Links
from bot.application.places import Places
from bot.application.worker.handling import attempt
from bot.core import Clockwork, Core, assemble
from bot.core import Outside as Around
from bot.domain.catalog import Catalog
from bot.domain.errors import Unavailable
from bot.domain.outbox import Lane
from bot.settings import Settings
from bot.storage.engine import Database, connect
from bot.storage.transaction import Transaction
from bot.storage.vault import Vault
from simulation.outside import Outside
from simulation.stage import Process, Stage
from tests.support.world import in_blocks

T = TypeVar("T")
Due = Callable[[datetime], Sequence[Lane]]
LEASE = 15.0
RARELY = 300.0
"""Seconds between two looks of somebody who has nothing to do, which changes nothing but the time that a run takes."""
WATCH = 30.0
"""Seconds between two looks of a watcher, where nothing tells it sooner."""
BLOCK, CONFIRMED, MOST = 10**6, 1_500_000, 10**7
"""Voxels of a block; bytes above which a person is asked first; voxels that are taken, at most."""
SECONDS = 60.0
"""What a program is expected to take, before others have been run."""
CPU_HOUR, GB_HOUR = 4.0, 0.5
"""Prices of an hour of one virtual processor, and of 10^9 bytes of memory."""


class Inline(Executor):
    """Does at once what it is given, in the same thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it; what it raises is raised."""
        answer: Future[Any] = Future()
        answer.set_result(fn(*args, **kwargs))
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """There is nothing to end."""


class Server:
    """The database's process, as all bots of an installation find it."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._away_until = stage, 0.0

    def end(self, seconds: float) -> None:
        """End it; it is there again after so many seconds."""
        self._away_until = self._stage.seconds + seconds
        self._stage.say(f"the database ends, for {seconds:g} s")
        self._stage.at(self._away_until, self._back)

    def _back(self) -> None:
        self._stage.commits += 1  # so that lanes that could not look do so again
        self._stage.say("the database is there again")

    def alive(self) -> None:
        """Raises Unavailable where a bot asks while it is away. An onlooker sees what is on the disk."""
        if self._stage.actor and self._stage.seconds < self._away_until:
            raise Unavailable("The database cannot be reached.")


class SimulatedDatabase(Database):
    """A real database, each of whose commits is a call of the stage's."""

    def __init__(self, url: str, stage: Stage, server: Server) -> None:
        super().__init__(engine_of(url))
        self._stage, self._server = stage, server

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """As usual; a process that has ended reads nothing, and nobody does where the database has."""
        self._stage.alive()
        self._server.alive()
        with super().read() as transaction:
            yield transaction

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """As usual; something may happen before, within and after the commit."""
        with self._stage.call(f"commit {_who()}", commit=True) as within:
            self._server.alive()
            with super().begin() as transaction:
                yield transaction
                within()

    def close(self) -> None:
        """Leave the engine, which other lives have too, as it was."""
        if self._file.path is not None:
            sa.event.remove(self._engine, "connect", self._file._joined)
            sa.event.remove(self._engine, "close", self._file._left)

    def write(self, change: Callable[[Transaction], T]) -> T:
        """As on PostgreSQL: threads that would share a commit wait for one another, and here there is one."""
        with self.begin() as transaction:
            return change(transaction)


def _who() -> str:
    """The method of the application, or of the storage, that commits."""
    frame, found = sys._getframe(2), "?"
    while frame.f_back is not None:
        module = frame.f_globals["__name__"]
        if module.startswith("bot.application"):
            found = frame.f_code.co_qualname.replace(".<locals>", "")
            if not module.endswith(".ledger"):  # the ledger commits for others, but for what an admin asks of it
                return found
        frame = frame.f_back
    return found


@cache
def engine_of(url: str) -> sa.Engine:
    """The engine of all bots of all runs on that database: statements are compiled once, which takes half of a run."""
    return connect(url)


@cache
def settings(admin: str) -> Settings:
    """What all bots of an installation are set to."""
    return Settings(
        _env_file=None,
        admins=[admin],
        block_voxels=BLOCK,
        boss_host="boss.test",
        confirm_bytes=CONFIRMED,
        edit_interval=3,
        lease_seconds=LEASE,
        mail=SecretStr("smtp://mail.test"),
        mail_from="NOMADS <nomads@nomads.test>",
        max_voxels=MOST,
        predictions="off",
        price_cpu_hour=CPU_HOUR,
        price_gb_hour=GB_HOUR,
        watch_interval=WATCH,
    )


class Bot:
    """A bot that is started, ended and started again."""

    def __init__(self, name: str, *, url: str, stage: Stage, server: Server, outside: Outside, due: Due) -> None:
        """`server` is its database's; `due` says in which lanes something is due at a time."""
        self.name, self._server = name, server
        self._url, self._stage, self._outside, self._settings = url, stage, outside, settings(outside.cast.admin)
        self.offset = 0.0
        """Seconds by which its clock is wrong."""
        self.process = Process(self.name, ended=True)
        self.core: Core | None = None
        self._databases: list[Database] = []
        self.watches_at = 0.0
        self.keeps_at = 0.0
        self._due = due
        self._nothing: dict[Lane, int] = {}
        """Lanes in which it found nothing, and the number of commits at which it looked."""

    def start(self) -> None:
        """Begin a new life."""
        stage, outside = self._stage, self._outside
        process = self.process = Process(self.name)
        database = SimulatedDatabase(self._url, stage, self._server)
        self._databases.append(database)

        def clock() -> datetime:
            return stage.now() + timedelta(seconds=self.offset)

        pipeline = in_blocks().model_copy(update={"seconds": SECONDS})
        around = Around(
            database=database,
            vault=Vault(key=b"k" * 32, database=database),
            catalog=Catalog({pipeline.name: pipeline}),
            backend=outside.backend,
            volumes=outside.volumes,
            places=Places(),
            links=Links(base_url="https://nomads.test", key=b"l" * 32, clock=clock),
            mailer=outside.mailer,
            chat=outside.chat,
            workspace=outside.workspace,
        )
        clockwork = Clockwork(clock=clock, ticks=lambda: stage.seconds, wait=stage.pause)
        self.core = assemble(self._settings, around, clockwork=clockwork, asking=Inline())
        self.watches_at = self.keeps_at = stage.seconds
        self._nothing = {}
        stage.say(f"{process.name} begins")

    def end(self, why: str) -> None:
        """End its life, whatever it does."""
        if not self.process.ended:
            self._stage.end(self.process, why)

    @property
    def lives(self) -> bool:
        """Whether its process runs, and does not stand still."""
        return not self.process.ended and not self.process.frozen

    def turn(self) -> bool:
        """Do one thing that is due now, of what is not under way. Returns whether there was one."""
        core, process, stage = self.core, self.process, self._stage
        if core is None or not self.lives:
            return False
        if stage.seconds >= self.keeps_at and "leases" not in process.busy:
            # a process that does nothing holds no leases, and looks seldom whether its clock was set
            self.keeps_at = stage.seconds + (LEASE / 3 if process.busy else RARELY)
            with stage.acting(process, "leases"):
                attempt(core.worker.lanes.keep_leases)
            return True
        for lane in self._due(stage.now() + timedelta(seconds=self.offset)):
            if lane.value not in process.busy and self._lane(core, process, lane):
                return True
        if stage.seconds >= self.watches_at and "watch" not in process.busy:
            self.watches_at = stage.seconds + (WATCH if self._outside.account.busy else RARELY)
            with stage.acting(process, "watch"):
                core.worker.watcher.turn()
            return True
        return False

    def _lane(self, core: Core, process: Process, lane: Lane) -> bool:
        if self._nothing.get(lane) == self._stage.commits:
            return False
        did: list[bool | None] = [True]
        # what is under way for long has its lease renewed
        usual, soon = self.keeps_at, min(self.keeps_at, self._stage.seconds + LEASE / 3)
        self.keeps_at = soon
        with self._stage.acting(process, lane.value):
            did[0] = attempt(core.worker.lanes.turn, lane)
        if self.process is process and not process.busy and self.keeps_at == soon:
            self.keeps_at = usual
        if not did[0]:
            self._nothing[lane] = self._stage.commits
        return bool(did[0])

    @property
    def next_turn(self) -> float:
        """When it next has something to do, whatever is due."""
        free = [("watch", self.watches_at), ("leases", self.keeps_at)]
        return min((at for what, at in free if what not in self.process.busy), default=math.inf)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database, for an onlooker."""
        found = SimulatedDatabase(self._url, self._stage, self._server)
        try:
            yield found
        finally:
            found.close()

    def close(self) -> None:
        """Close every connection of all its lives."""
        for database in self._databases:
            database.close()
