"""The rules and a worker over fakes, with a clock that the test turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from bot.application.access import Access
from bot.application.addresses import Addresses
from bot.application.forecast import Confirm, Forecast
from bot.application.ledger import Ledger
from bot.application.lifecycle import Lifecycle
from bot.application.links import Links
from bot.application.output import Output
from bot.application.people import People
from bot.application.ports import NoWorkspace
from bot.application.queries import Queries
from bot.application.rates import Rate
from bot.application.review import Answered, Reviewer
from bot.application.stalls import Stalls
from bot.application.steering import Steering
from bot.application.stories import Stories
from bot.application.submission import Followed, Form, Proposal, Question, Submission
from bot.application.tokens import TokenKeeper
from bot.application.worker.effects.chat import CardEffects, HomeEffects, NoticeEffects, ThreadEffects
from bot.application.worker.effects.compute import (
    AdvanceEffects,
    CheckEffects,
    CollectEffects,
    Launcher,
    SubmitEffects,
)
from bot.application.worker.effects.mail import MailEffects
from bot.application.worker.handling import GIVE_UP, EffectHandlers
from bot.application.worker.lanes import LaneRunner
from bot.application.worker.watcher import Patience, Watcher
from bot.application.worker.worker import Worker
from bot.domain.catalog import Catalog, InBlocks, Pipeline
from bot.domain.checks import Prices, Sizes
from bot.domain.job import Job
from bot.domain.people import Privacy, Standing
from bot.domain.request import JobRequest
from bot.domain.states import JobState
from bot.domain.work import Observation
from bot.storage.engine import Database
from bot.storage.tables import effects
from bot.storage.vault import Vault
from contract.program import BLOCK_VOXELS
from tests.support.memory import (
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
    ) -> None:
        """`edit_every` is in seconds, as are all; 0: cards are edited at once, so that `settle()` lets no time pass."""
        self.store = store
        self.block_voxels, self.reads = block_voxels, reads
        self.clock = Clock()
        self.lease = timedelta(seconds=lease)
        self.edit_every = timedelta(seconds=edit_every)
        self.admins = admins
        self.compute = compute or MemoryCompute()
        self.events, self.submissions = events, submissions
        self.results = MemoryResults()
        self.rows = Rows(store)
        self.logs = self.compute
        vault = Vault(key=b"k" * 32, database=store)
        self.secrets = MemorySecrets() if separate_secrets else None
        self.tokens = TokenKeeper(vault=vault, secrets=self.secrets)
        self.links = Links(base_url="https://nomads.test", key=b"l" * 32, clock=self.clock)
        self.output = Output(
            compute=self.compute, logs=self.logs, results=self.results, tokens=self.tokens, links=self.links
        )
        self.mailer = MemoryMailer()
        self.chat = MemoryChat(clock=self.clock)
        roles = {"postsynaptic": ("psd",), "presynaptic": ("synapsin",)}
        command = ("python3", "-m", "pipelines.unsupervised")
        pipeline = pipeline or Pipeline(
            name="nomads-unsupervised", title="Unsupervised", description="", image="i:1", command=command, roles=roles
        )
        self.catalog = Catalog({pipeline.name: pipeline})
        self.volumes = MemoryVolumes(writers={TOKEN: ("*",)})
        for name in ("cortex", "predictions"):
            bounds = ((0, 64), (0, 1024), (0, 1024))
            channels = {"PSD95": "uint8", "Synapsin": "uint8"}
            self.volumes.add("demo" if name == "cortex" else "lab", name, bounds=bounds, channels=channels)
        self.workspace = _Workspace()
        self.ledger = Ledger(database=store, clock=self.clock, ticks=self.clock.ticks)
        self.people = People(ledger=self.ledger, tokens=self.tokens)
        self.addresses = Addresses(ledger=self.ledger, links=self.links, domains=mail_domains, on=mails)
        self.reviewer = Reviewer(
            catalog=self.catalog,
            compute=self.compute,
            volumes=self.volumes,
            addresses=self.addresses,
            sizes=Sizes(bytes=max_bytes, block=block_voxels, voxels=max_voxels),
            predictions="lab/predictions",
        )
        self.forecast = Forecast(ledger=self.ledger, prices=prices, confirm=confirm)
        self.access = Access(workspace=self.workspace, admins=admins)
        self.queries = Queries(database=store, access=self.access, mails=mails)
        self.stories = Stories(catalog=self.catalog, output=self.output, queries=self.queries, access=self.access)
        self.submission = Submission(
            ledger=self.ledger,
            reviewer=self.reviewer,
            forecast=self.forecast,
            people=self.people,
            tokens=self.tokens,
            access=self.access,
            addresses=self.addresses,
        )
        self.lifecycle = Lifecycle(
            ledger=self.ledger,
            catalog=self.catalog,
            reviewer=self.reviewer,
            forecast=self.forecast,
            tokens=self.tokens,
            access=self.access,
            lasts=self.compute.lasts,
        )
        self.steering = Steering(
            ledger=self.ledger,
            queries=self.queries,
            submission=self.submission,
            people=self.people,
            workspace=self.workspace,
            addresses=self.addresses,
            access=self.access,
        )
        self.viewer = viewer
        self.worker = self.another_worker()

    def another_worker(self) -> Worker:
        """A worker of another process on the same database, as after a crash."""
        stories = self.stories
        launcher = Launcher(
            catalog=self.catalog,
            results=self.results,
            boss_host="boss.test",
            predictions="lab/predictions",
            viewer=self.viewer,
            block_voxels=self.block_voxels,
        )
        ledger, lifecycle, chat, every = self.ledger, self.lifecycle, self.chat, self.edit_every
        stalls = Stalls(ledger=ledger, admins=self.admins)
        effects: list[EffectHandlers] = [
            CheckEffects(ledger=ledger, lifecycle=lifecycle),
            SubmitEffects(
                ledger=ledger,
                lifecycle=lifecycle,
                stalls=stalls,
                compute=self.compute,
                tokens=self.tokens,
                launcher=launcher,
                rate=Rate(
                    "submit",
                    database=self.store,
                    a_second=self.submissions,
                    clock=self.clock,
                    wait=self.clock.advance,
                ),
            ),
            AdvanceEffects(
                ledger=ledger,
                lifecycle=lifecycle,
                stalls=stalls,
                compute=self.compute,
                results=self.results,
                output=self.output,
                reads=self.reads,
            ),
            CollectEffects(
                ledger=ledger,
                lifecycle=lifecycle,
                stalls=stalls,
                catalog=self.catalog,
                results=self.results,
                output=self.output,
            ),
            self.mail_effects(),
            CardEffects(ledger=ledger, chat=chat, stories=stories, access=self.access, edit_every=every),
            ThreadEffects(
                ledger=ledger,
                chat=chat,
                stories=stories,
                results=self.results,
                access=self.access,
                admins=self.admins,
            ),
            NoticeEffects(ledger=ledger, chat=chat, stalls=stalls),
            HomeEffects(ledger=ledger, chat=chat, queries=self.queries, edit_every=every),
        ]
        lanes = LaneRunner(database=self.store, effects=effects, lease=self.lease, clock=self.clock)
        self.handlers = {kind: handler for some in effects for kind, handler in some.handlers().items()}
        ledger.on_commit(lanes.wake)
        watcher = Watcher(
            database=self.store,
            lifecycle=lifecycle,
            stalls=stalls,
            compute=self.compute,
            logs=self.logs,
            patience=Patience(interval=1, leadership=self.lease / 3),
            ages=ledger.ages,
            events=self.events,
            clock=self.clock,
        )
        return Worker(lanes=lanes, watcher=watcher)

    def mail_effects(self) -> MailEffects:
        """What sends its mails."""
        return MailEffects(
            ledger=self.ledger,
            mailer=self.mailer,
            stories=self.stories,
            workspace=self.workspace,
            addresses=self.addresses,
            access=self.access,
            sender="NOMADS <nomads@nomads.test>",
            domain="nomads.test",
        )

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
        self.mails: dict[str, str] = {}
        """Person to the address in their profile."""
        self.names: dict[str, str] = {}
        self.silent = False
        """Whether chat tells nothing."""

    def mail_of(self, user: str) -> str:
        return self.mails.get(user, "")

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
