"""The application without a front end: everything that is made of the ports and the settings, in one place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.application.access import Access
from bot.application.addresses import Addresses
from bot.application.browsing import Browsing
from bot.application.forecast import Confirm, Forecast
from bot.application.health import Readiness
from bot.application.ledger import Ledger
from bot.application.lifecycle import Lifecycle
from bot.application.links import Links
from bot.application.output import Output
from bot.application.people import People
from bot.application.places import Places
from bot.application.ports import Backend, Chat, Mailer, NoWorkspace, Volumes, Workspace
from bot.application.queries import Queries
from bot.application.rates import Rate
from bot.application.review import Reviewer
from bot.application.stalls import Stalls
from bot.application.steering import Steering
from bot.application.stories import Stories
from bot.application.submission import Submission
from bot.application.tokens import TokenKeeper
from bot.application.visits import Visits
from bot.application.worker.effects.chat import CardEffects, HomeEffects, NoticeEffects, ThreadEffects
from bot.application.worker.effects.compute import (
    AdvanceEffects,
    CheckEffects,
    CollectEffects,
    Launcher,
    SubmitEffects,
)
from bot.application.worker.effects.mail import MailEffects
from bot.application.worker.handling import EffectHandlers
from bot.application.worker.lanes import LaneRunner
from bot.application.worker.watcher import Patience, Watcher
from bot.application.worker.worker import Worker
from bot.domain.catalog import Catalog
from bot.domain.checks import Prices, Sizes
from bot.domain.job import now
from bot.settings import Settings
from bot.storage.engine import Database
from bot.storage.vault import Vault

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Clockwork:
    """What a process knows of time."""

    clock: Callable[[], datetime] = now
    """Dates what is stored, in UTC."""
    ticks: Callable[[], float] = time.monotonic
    """Seconds that never go back."""
    wait: Callable[[float], None] = time.sleep
    """Lets so many seconds pass."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What a process has around it."""

    database: Database
    vault: Vault
    catalog: Catalog
    backend: Backend
    volumes: Volumes
    places: Places
    links: Links
    mailer: Mailer
    chat: Chat | None = None
    """None: jobs that belong to a channel are left to processes that have it."""
    workspace: Workspace = field(default_factory=NoWorkspace)
    roots: str = ""
    """The places where volumes may lie, as programs read them."""


@dataclass(frozen=True, kw_only=True)
class Core:
    """The application without a front end."""

    settings: Settings
    outside: Outside
    ledger: Ledger
    access: Access
    addresses: Addresses
    output: Output
    visits: Visits
    tokens: TokenKeeper
    people: People
    queries: Queries
    submission: Submission
    lifecycle: Lifecycle
    steering: Steering
    forecast: Forecast
    reviewer: Reviewer
    stories: Stories
    browsing: Browsing
    readiness: Readiness
    mails: MailEffects
    worker: Worker

    @property
    def database(self) -> Database:
        """The database of all processes."""
        return self.outside.database

    @property
    def backend(self) -> Backend:
        """What runs programs."""
        return self.outside.backend

    @property
    def catalog(self) -> Catalog:
        """The pipelines on offer."""
        return self.outside.catalog

    @property
    def volumes(self) -> Volumes:
        """Where volumes are asked about."""
        return self.outside.volumes

    @property
    def workspace(self) -> Workspace:
        """What chat knows of people and channels."""
        return self.outside.workspace

    def announce(self) -> None:
        """Log the backend's warning, where it has one."""
        if self.backend.announcement:
            log.warning("%s", self.backend.announcement)

    def close(self) -> None:
        """Close every connection, to the database and to BOSS."""
        self.volumes.close()
        self.access.close()
        self.database.close()


def assemble(
    settings: Settings, outside: Outside, *, clockwork: Clockwork | None = None, asking: Executor | None = None
) -> Core:
    """Everything but a front end. `asking` performs questions to chat at once; None: threads of its own."""
    clockwork = clockwork or Clockwork()
    database, backend, workspace, catalog = outside.database, outside.backend, outside.workspace, outside.catalog
    access = Access(workspace=workspace, admins=settings.admins, pool=asking)
    ledger = Ledger(database=database, clock=clockwork.clock, ticks=clockwork.ticks)
    tokens = TokenKeeper(vault=outside.vault, secrets=backend.secrets)
    people = People(ledger=ledger, tokens=tokens)
    mails = settings.mail_server.kind != "off"
    addresses = Addresses(ledger=ledger, links=outside.links, domains=settings.mail_domains, on=mails)
    reviewer = Reviewer(
        catalog=catalog,
        compute=backend.compute,
        volumes=outside.volumes,
        addresses=addresses,
        sizes=Sizes(bytes=settings.max_bytes, block=settings.block_voxels, voxels=settings.max_voxels),
        predictions=settings.predictions_place,
        places=outside.places,
    )
    forecast = Forecast(
        ledger=ledger,
        prices=Prices(settings.price_cpu_hour, settings.price_gb_hour, settings.currency),
        confirm=Confirm(settings.confirm_bytes, settings.confirm_seconds, settings.confirm_cost),
    )
    queries = Queries(database=database, access=access, mails=addresses.on)
    submission = Submission(
        ledger=ledger,
        reviewer=reviewer,
        forecast=forecast,
        people=people,
        tokens=tokens,
        access=access,
        addresses=addresses,
    )
    steering = Steering(
        ledger=ledger,
        queries=queries,
        submission=submission,
        people=people,
        workspace=workspace,
        addresses=addresses,
        access=access,
    )
    lifecycle = Lifecycle(
        ledger=ledger,
        catalog=catalog,
        reviewer=reviewer,
        forecast=forecast,
        tokens=tokens,
        access=access,
        lasts=backend.compute.lasts,
    )
    output = Output(
        compute=backend.compute,
        logs=backend.logs,
        results=backend.results,
        tokens=tokens,
        links=outside.links,
        boss_host=settings.boss_host,
    )
    stories = Stories(catalog=catalog, output=output, queries=queries, access=access)
    stalls = Stalls(ledger=ledger, admins=settings.admins)
    launcher = Launcher(
        catalog=catalog,
        results=backend.results,
        boss_host=settings.boss_host,
        predictions=settings.predictions_place,
        viewer=settings.viewer,
        roots=outside.roots,
        image_bytes=settings.image_bytes,
        block_voxels=settings.block_voxels,
    )
    mail = MailEffects(
        ledger=ledger,
        mailer=outside.mailer,
        stories=stories,
        workspace=workspace,
        addresses=addresses,
        access=access,
        sender=settings.mail_from,
        domain=settings.mail_domain,
    )
    effects: list[EffectHandlers] = [
        CheckEffects(ledger=ledger, lifecycle=lifecycle),
        SubmitEffects(
            ledger=ledger,
            lifecycle=lifecycle,
            stalls=stalls,
            compute=backend.compute,
            tokens=tokens,
            launcher=launcher,
            rate=Rate(
                "submit",
                database=database,
                a_second=backend.submissions,
                clock=clockwork.clock,
                wait=clockwork.wait,
            ),
        ),
        AdvanceEffects(
            ledger=ledger,
            lifecycle=lifecycle,
            stalls=stalls,
            compute=backend.compute,
            results=backend.results,
            output=output,
            tokens=tokens,
            reads=settings.reads,
        ),
        CollectEffects(
            ledger=ledger,
            lifecycle=lifecycle,
            stalls=stalls,
            catalog=catalog,
            results=backend.results,
            output=output,
        ),
        mail,
    ]
    if chat := outside.chat:
        every = timedelta(seconds=settings.edit_interval)
        effects += [
            CardEffects(ledger=ledger, chat=chat, stories=stories, access=access, edit_every=every),
            ThreadEffects(
                ledger=ledger,
                chat=chat,
                stories=stories,
                results=backend.results,
                access=access,
                admins=settings.admins,
            ),
            NoticeEffects(ledger=ledger, chat=chat, stalls=stalls),
            HomeEffects(ledger=ledger, chat=chat, queries=queries, edit_every=every),
        ]
    lease = timedelta(seconds=settings.lease_seconds)
    lanes = LaneRunner(database=database, effects=effects, lease=lease, clock=clockwork.clock, ticks=clockwork.ticks)
    ledger.on_commit(lanes.wake)
    patience = Patience(
        interval=settings.watch_interval or backend.watch_interval,
        lost_after=timedelta(seconds=settings.lost_after),
        explain_after=timedelta(seconds=settings.explain_after),
        leadership=lease / 3,
    )
    watcher = Watcher(
        database=database,
        lifecycle=lifecycle,
        stalls=stalls,
        compute=backend.compute,
        logs=backend.logs,
        patience=patience,
        ages=ledger.ages,
        # They come to one reader: a command's worker would take those of the bot that serves Slack.
        events=backend.events if chat else None,
        clock=clockwork.clock,
    )
    return Core(
        settings=settings,
        outside=outside,
        ledger=ledger,
        access=access,
        addresses=addresses,
        output=output,
        visits=Visits(
            links=outside.links,
            queries=queries,
            catalog=catalog,
            results=backend.results,
            output=output,
            addresses=addresses,
            sees=lambda person, job: access.judged(person, [job])[0],
        ),
        tokens=tokens,
        people=people,
        queries=queries,
        submission=submission,
        lifecycle=lifecycle,
        steering=steering,
        forecast=forecast,
        reviewer=reviewer,
        stories=stories,
        browsing=Browsing(volumes=outside.volumes, people=people, places=outside.places),
        readiness=Readiness(ledger=ledger, folder=settings.data),
        mails=mail,
        worker=Worker(lanes=lanes, watcher=watcher),
    )
