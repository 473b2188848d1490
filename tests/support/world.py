"""The rules and a worker over fakes, with a clock that the test turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from bot.application.forecast import Confirm
from bot.application.links import Links
from bot.application.places import Places
from bot.application.ports import NoWorkspace
from bot.application.review import Answered
from bot.application.submission import Followed, Form, Proposal, Question
from bot.application.worker.effects.mail import MailEffects
from bot.application.worker.handling import GIVE_UP, Handler
from bot.application.worker.worker import Worker
from bot.core import Clockwork, Core, Outside, assemble
from bot.domain.catalog import Catalog, InBlocks, Pipeline
from bot.domain.checks import Prices
from bot.domain.job import Job
from bot.domain.outbox import Kind
from bot.domain.people import Privacy, Standing
from bot.domain.request import JobRequest
from bot.domain.states import JobState
from bot.domain.work import Observation
from bot.settings import Settings
from bot.storage.engine import Database
from bot.storage.tables import effects
from bot.storage.vault import Vault
from contract.program import BLOCK_VOXELS
from tests.support.memory import (
    MemoryBackend,
    MemoryChat,
    MemoryCompute,
    MemoryEvents,
    MemoryMailer,
    MemoryResults,
    MemorySecrets,
    MemoryVolumes,
)
from tests.support.rows import Rows

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
        self._passed = 0.0
        self._runs = False

    def __call__(self) -> datetime:
        return datetime.now(UTC) if self._runs else self.now

    def run(self) -> None:
        """From now on it is the real time."""
        self._runs = True

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds
        self.put(seconds)

    def wait_for(self, when: datetime) -> None:
        """Let time pass until then, if that is to come."""
        if when > self.now:
            self._passed += (when - self.now).total_seconds()
            self.now = when

    def put(self, seconds: float) -> None:
        """Put the clock forward, or back where `seconds` is negative; no time passes."""
        self.now += timedelta(seconds=seconds)

    def ticks(self) -> float:
        """Seconds that have passed, whatever the clock says."""
        return time.monotonic() if self._runs else self._passed


def in_blocks() -> Pipeline:
    """A pipeline that takes boxes of any size."""
    return Pipeline(
        name="nomads-unsupervised",
        title="Unsupervised",
        description="",
        image="i:1",
        command=("python3", "-m", "pipelines.unsupervised"),
        roles={"postsynaptic": ("psd",), "presynaptic": ("synapsin",)},
        memory=100,
        memory_per_voxel=1024,
        blocks=InBlocks(),
    )


def in_one_piece() -> Pipeline:
    """A pipeline that takes what one program can read."""
    usual = {name: Pipeline.model_fields[name].default for name in ("memory", "memory_per_voxel", "blocks")}
    return in_blocks().model_copy(update=usual)


def _of_prices(prices: Prices, confirm: Confirm) -> dict[str, Any]:
    """The settings that say so."""
    found = {f"price_{name}": getattr(prices, name) for name in ("cpu_hour", "gb_hour")}
    found |= {f"confirm_{name}": getattr(confirm, name) for name in ("bytes", "seconds", "cost")}
    return found | {"currency": prices.currency}


class World:
    """One process of NOMADS with everything round it in memory; the database is real."""

    def __init__(
        self,
        store: Database,
        *,
        compute: MemoryCompute | None = None,
        max_bytes: int = 2 * 10**9,
        block_voxels: int = BLOCK_VOXELS,
        reads: int = 256,
        max_voxels: int = 10**12,
        separate_secrets: bool = False,
        viewer: str = "",
        lease: float = 15,
        edit_every: float = 0,
        admins: Sequence[str] = (),
        mails: bool = True,
        mail_domains: Sequence[str] = (),
        pipeline: Pipeline | None = None,
        prices: Prices | None = None,
        confirm: Confirm | None = None,
        events: MemoryEvents | None = None,
        submissions: float | None = None,
        places: Places | None = None,
    ) -> None:
        """`edit_every` is in seconds, as are all; 0: cards are edited at once, so that `settle()` lets no time pass."""
        self.store = store
        self.clock = Clock()
        self.compute = compute or MemoryCompute()
        self.results = MemoryResults()
        self.rows = Rows(store)
        self.logs = self.compute
        self.secrets = MemorySecrets() if separate_secrets else None
        self.mailer = MemoryMailer()
        self.chat = MemoryChat(clock=self.clock)
        self.volumes = MemoryVolumes(writers={TOKEN: ("*",)})
        for name in ("cortex", "predictions"):
            bounds = ((0, 64), (0, 1024), (0, 1024))
            channels = {"PSD95": "uint8", "Synapsin": "uint8"}
            self.volumes.add("demo" if name == "cortex" else "lab", name, bounds=bounds, channels=channels)
        self.workspace = _Workspace()
        pipeline = pipeline or in_one_piece()
        self.catalog = Catalog({pipeline.name: pipeline})
        said = {
            "admins": list(admins),
            "block_voxels": block_voxels,
            "boss_host": "boss.test",
            "edit_interval": edit_every,
            "lease_seconds": lease,
            "mail": SecretStr("smtp://mail.test" if mails else "off"),
            "mail_domains": list(mail_domains),
            "mail_from": "NOMADS <nomads@nomads.test>",
            "max_bytes": max_bytes,
            "max_voxels": max_voxels,
            "predictions": "lab/predictions",
            "reads": reads,
            "viewer": viewer,
            "watch_interval": 1,
            **_of_prices(prices or Prices(), confirm or Confirm()),
        }
        self.settings = Settings(_env_file=None).model_copy(update=said)  # a lease shorter than anybody may set
        self.links = Links(base_url="https://nomads.test", key=b"l" * 32, clock=self.clock)
        self._outside = Outside(
            database=store,
            vault=Vault(key=b"k" * 32, database=store),
            catalog=self.catalog,
            backend=MemoryBackend(
                compute=self.compute,
                results=self.results,
                secrets=self.secrets,
                events=events,
                submissions=submissions,
            ),
            volumes=self.volumes,
            places=places or Places(),
            links=self.links,
            mailer=self.mailer,
            chat=self.chat,
            workspace=self.workspace,
        )
        self._core = self._assembled()
        self.access, self.addresses, self.ledger = self._core.access, self._core.addresses, self._core.ledger
        self.output, self.queries, self.stories = self._core.output, self._core.queries, self._core.stories
        self.people, self.reviewer, self.forecast = self._core.people, self._core.reviewer, self._core.forecast
        self.submission, self.lifecycle = self._core.submission, self._core.lifecycle
        self.steering, self.tokens, self.worker = self._core.steering, self._core.tokens, self._core.worker

    def _assembled(self, **settings: Any) -> Core:
        clockwork = Clockwork(clock=self.clock, ticks=self.clock.ticks, wait=self.clock.advance)
        return assemble(self.settings.model_copy(update=settings), self._outside, clockwork=clockwork)

    @property
    def handlers(self) -> Mapping[Kind, Handler]:
        """The handlers of its worker."""
        found: Mapping[Kind, Handler] = vars(self.worker.lanes)["_handlers"]
        return found

    def another_worker(self, **settings: Any) -> Worker:
        """A worker of another process on the same database, as after a crash, with other settings where named."""
        return self._assembled(**settings).worker

    def mail_effects(self) -> MailEffects:
        """What sends its mails."""
        return self._core.mails

    def propose(self, *, checked: bool = True, token: str = TOKEN, **changes: Any) -> Proposal:
        """What a person typed, reviewed and checked with BOSS."""
        reviewed = self.submission.review(a_request(**changes).typed, SecretStr(token))
        size = reviewed.pipeline.channels * reviewed.box.voxels
        return Proposal(
            reviewed=reviewed,
            answered=Answered(readable=checked, checked=checked, size=size, largest=size),
            expected=self.forecast.expected(reviewed.pipeline, reviewed.box, block=reviewed.block),
        )

    def ask(self, *, actor: str = "U01DEMO", token: str = TOKEN, **changes: Any) -> Proposal:
        """What a person typed, reviewed, and asked about."""
        reviewed = self.submission.review(a_request(**changes).typed, SecretStr(token))
        return self.submission.ask(reviewed, actor=actor, within=0.01)

    def submit(
        self, *, key: str, actor: str = "U01DEMO", token: str = TOKEN, **changes: Any
    ) -> Job | Question | Followed:
        """Submit the form as a person does in Slack."""
        form = Form(values=a_request(**changes).typed, token=SecretStr(token))
        return self.submission.submit(form, actor=actor, key=key, within=0.01)

    def accept(self, *, key: str = "", actor: str = "U01DEMO", again: bool = True, **changes: Any) -> Job:
        """Submit as a person would; a new key each time unless one is given."""
        return self.submission.accept(self.propose(**changes), actor=actor, key=key or f"k{next(_keys)}", again=again)

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
        self.worker.watcher.watch_once()

    def settle(self, *, patience: float = 3600) -> None:
        """Let the worker work, and time pass, until nothing is left to do or patience ends."""
        until = self.clock.now + timedelta(seconds=patience)
        while True:
            self.worker.lanes.drain()
            due = self.rows.next_due()
            if due is None or due > until:
                return
            self.clock.wait_for(due)

    def nearly_give_up(self, job: Job, *, before: int = 1) -> None:
        """Let the job's effects that failed by now have failed so often that `before` more failures are the last."""
        with self.store.begin() as transaction:
            failed = effects.update().where(effects.c.job_id == job.id, effects.c.attempts > 0)
            transaction.connection.execute(failed.values(attempts=GIVE_UP - before))

    def job(self, job: Job) -> Job:
        """The job as it stands now."""
        return self.queries.find(job.id)

    @property
    def thread(self) -> Sequence[str]:
        """What the replies say now, a text a step."""
        return [text for reply in self.chat.replies for text in reply.texts]


class _Workspace(NoWorkspace):
    """All people are full members, and all channels public, unless the test says otherwise."""

    def __init__(self) -> None:
        self.trouble = ""
        """What is wrong with every channel."""
        self.private: dict[str, set[str]] = {}
        """Private channels, and who is in them."""
        self.standings: dict[str, Standing] = {}
        self.mails: dict[str, str | None] = {}
        """Person to the address in their profile; None: chat does not tell it now."""
        self.names: dict[str, str] = {}
        self.silent = False
        """Whether chat tells nothing."""

    def mail_of(self, user: str) -> str | None:
        return None if self.silent else self.mails.get(user, "")

    def name_of(self, user: str) -> str:
        return self.names.get(user, "")

    def trouble_with(self, channel: str) -> str:
        return self.trouble

    def standing_of(self, user: str) -> Standing | None:
        return None if self.silent else self.standings.get(user, Standing.MEMBER)

    def privacy_of(self, channel: str) -> Privacy | None:
        return None if self.silent else Privacy.PRIVATE if channel in self.private else Privacy.PUBLIC

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        inside = {channel for channel, people in self.private.items() if user in people}
        return None if self.silent else inside | {"C01GENERAL"} - set(self.private)
