"""Service and worker over fakes, with a clock that the test turns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from bot.application.output import Output
from bot.application.service import JobService
from bot.application.worker import Worker
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.job import Job
from bot.domain.request import JobRequest
from bot.domain.states import JobState
from bot.domain.work import Observation
from bot.storage.store import JobStore
from tests.support.memory import MemoryChat, MemoryCompute, MemoryMailer, MemoryResults, MemorySecrets, MemoryVolumes

TOKEN = "canary-token"
_keys = itertools.count(1)


def a_request(**changes: Any) -> JobRequest:
    """A right request, but for the changes."""
    values = {
        "pipeline": "nomads-unsupervised",
        "collection": "demo",
        "experiment": "cortex",
        "x": "0,512",
        "y": "0,512",
        "z": "0,16",
        "email": "demo@example.org",
        "channel": "C01GENERAL",
    }
    return JobRequest.parse(values | changes)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self._runs = False

    def __call__(self) -> datetime:
        return datetime.now(UTC) if self._runs else self.now

    def run(self) -> None:
        """From now on it is the real time."""
        self._runs = True

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class World:
    """One process of NOMADS with everything round it in memory; the database is real."""

    def __init__(
        self,
        store: JobStore,
        *,
        max_bytes: int = 2 * 10**9,
        separate_secrets: bool = False,
        viewer: str = "",
        lease: float = 15,
        edit_every: float = 0,
        admins: Sequence[str] = (),
    ) -> None:
        """`edit_every` is in seconds, as are all; 0: cards are edited at once, so that `settle()` lets no time pass."""
        self.store = store
        self.clock = Clock()
        self.lease = timedelta(seconds=lease)
        self.edit_every = timedelta(seconds=edit_every)
        self.admins = admins
        self.compute = MemoryCompute()
        self.results = MemoryResults()
        self.vault = MemorySecrets()
        self.secrets = _ElsewhereSecrets() if separate_secrets else self.vault
        self.output = Output(compute=self.compute, results=self.results, vault=self.vault, secrets=self.secrets)
        self.mailer = MemoryMailer()
        self.chat = MemoryChat(clock=self.clock)
        roles = {"postsynaptic": ("psd",), "presynaptic": ("synapsin",)}
        command = ("python3", "-m", "pipelines.unsupervised")
        pipeline = Pipeline(
            name="nomads-unsupervised", title="Unsupervised", description="", image="i:1", command=command, roles=roles
        )
        self.catalog = Catalog({pipeline.name: pipeline})
        self.volumes = MemoryVolumes(writers={TOKEN: ("*",)})
        for name in ("cortex", "predictions"):
            bounds = ((0, 64), (0, 1024), (0, 1024))
            channels = {"PSD95": "uint8", "Synapsin": "uint8"}
            self.volumes.add("demo" if name == "cortex" else "lab", name, bounds=bounds, channels=channels)
        self.service = JobService(
            store=store,
            catalog=self.catalog,
            compute=self.compute,
            vault=self.vault,
            volumes=self.volumes,
            max_bytes=max_bytes,
            predictions="lab/predictions",
            admins=admins,
            clock=self.clock,
        )
        self.viewer = viewer
        self.worker = self.another_worker()

    def another_worker(self) -> Worker:
        """A worker of another process on the same database, as after a crash."""
        return Worker(
            store=self.store,
            service=self.service,
            catalog=self.catalog,
            compute=self.compute,
            results=self.results,
            vault=self.vault,
            secrets=self.secrets,
            output=self.output,
            mailer=self.mailer,
            chat=self.chat,
            boss_host="boss.test",
            predictions="lab/predictions",
            viewer=self.viewer,
            mail_domain="nomads.test",
            watch_interval=1,
            lost_after=timedelta(seconds=300),
            lease=self.lease,
            edit_every=self.edit_every,
            admins=self.admins,
            clock=self.clock,
        )

    def accept(self, *, key: str = "", **changes: Any) -> Job:
        """Submit as a person would; a new key each time unless one is given."""
        request = a_request(**changes)
        key = key or f"k{next(_keys)}"
        return self.service.accept(request, actor="U01DEMO", token=SecretStr(TOKEN), key=key, again=True)

    def running(self) -> Job:
        """A job whose program runs, as everybody was told."""
        job = self.accept()
        self.settle()
        self.see(job, JobState.RUNNING, started_at=self.clock.now)
        self.settle()
        return job

    def see(self, job: Job, state: JobState, **details: Any) -> None:
        """Let compute say so, and the watcher look."""
        self.compute.tell(job.name, Observation(state, **details))
        self.worker.watch_once()

    def settle(self, *, patience: float = 3600) -> None:
        """Let the worker work, and time pass, until nothing is left to do or patience ends."""
        until = self.clock.now + timedelta(seconds=patience)
        while True:
            self.worker.drain()
            due = self.store.next_due()
            if due is None or due > until:
                return
            self.clock.now = max(self.clock.now, due)

    def job(self, job: Job) -> Job:
        """The job as it stands now."""
        return self.service.find(job.id)

    @property
    def thread(self) -> Sequence[str]:
        """What the replies say now, a text a step."""
        return [text for reply in self.chat.replies for text in reply.texts]


class _ElsewhereSecrets(MemorySecrets):
    """Secrets that are not the vault, as AWS Secrets Manager is not."""

    def put(self, owner: str, value: SecretStr) -> str:
        reference = super().put(owner, value)
        elsewhere = reference.replace("memory:", "elsewhere:")
        self.values[elsewhere] = self.values.pop(reference)
        return elsewhere

    def holds(self, reference: str) -> bool:
        return reference.startswith("elsewhere:")
