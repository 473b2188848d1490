"""One installation of NOMADS, which serves a workspace: bots, their database, people, and what they were told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.domain.blocks import ASKED
from bot.domain.job import Job, Outage, Transition
from bot.domain.outbox import GivenUp, Lane
from bot.domain.states import FINAL
from bot.storage.tables import effects, jobs, metadata, outages, people, secrets
from simulation.bots import Bot, Server, engine_of
from simulation.outside import Account, Cast, Outside
from simulation.people import Action, Answer, People
from simulation.stage import EPOCH, Called, Stage

GO_TRIES = 5
"""Times that somebody says that a job goes on, which bots may end instead of hearing."""


@dataclass
class Record:
    """What people were told, and what the stand-ins have, at the end."""

    seed: int
    history: list[str]
    called: list[Called]
    """The calls of the run, by their numbers."""
    postponed: list[tuple[int, float]]
    """As `Stage.postponed`."""
    happened: list[int]
    answers: list[Answer]
    agreed: set[int]
    """The numbers of the actions at which a person was asked before, and agreed."""
    outside: Outside
    jobs: dict[str, Job]
    steps: dict[str, list[Transition]]
    """What is recorded of each job, oldest first."""
    outages: list[Outage]
    """The times in which compute did not answer, as they are recorded."""
    open_effects: list[str]
    given_up: list[GivenUp]
    stored: bytes
    """The database as it lies on the disk; empty where it lies elsewhere."""
    sealed: int
    """Tokens that lie sealed in the database."""
    saved: list[str]
    """People who have saved one."""
    calm: bool
    """As `Stage.calm`."""
    jumped: bool
    """Whether a clock was set."""
    finished: bool
    """Whether everything was done in time."""
    alone: bool
    """Whether all calls of the run are of this workspace."""
    actions: Sequence[Action] = field(default_factory=list)
    others: Sequence[Record] = ()
    """Those of the other workspaces of the run."""

    @property
    def points(self) -> list[str]:
        """The names of the calls, by their numbers."""
        return [call.point for call in self.called]


_ENDED = [state.value for state in FINAL]
_FIRST = sa.select(effects.c.lane, sa.func.coalesce(effects.c.leased_until, effects.c.due_at)).where(
    effects.c.id.in_(
        sa.select(sa.func.min(effects.c.id))
        .where(effects.c.done_at.is_(None))
        .group_by(effects.c.job_id, effects.c.lane)
    )
)
"""Of each job's lanes the first open effect: when it is due, or its lease is out."""
_OPEN = sa.select(jobs.c.id, jobs.c.actor, jobs.c.blocks).where(jobs.c.state.not_in(_ENDED))


class Installation:
    """Bots that share a database, and the people of a workspace."""

    def __init__(
        self,
        cast: Cast,
        *,
        url: str,
        stage: Stage,
        account: Account,
        draw: random.Random,
        quiet: bool,
        bots: int,
        actions: Sequence[Action],
    ) -> None:
        """`draw` decides which bot hears whom; so many `bots`; `actions` are what people do."""
        self.stage, self._draw, self._url = stage, draw, url
        self.outside, self.server = Outside(stage, account, cast, quiet=quiet), Server(stage)
        self._engine = engine_of(url)
        mark = "" if cast.admin.startswith("U") else cast.admin[0].lower()
        self.bots = [
            Bot(
                f"bot-{n + 1}{mark}",
                url=url,
                stage=stage,
                server=self.server,
                outside=self.outside,
                due=self.lanes_due,
            )
            for n in range(bots)
        ]
        self.people = People(actions, cast)
        self._known: tuple[int, dict[Lane, datetime], Sequence[sa.Row[Any, Any, Any]]] = (-1, {}, ())
        self._tries: Counter[str] = Counter()

    def await_people(self) -> None:
        """Let each action happen when it is due."""
        for action in self.people.actions:
            for after in action.times:
                self.stage.at(action.at + after, lambda action=action: self.deliver(action))  # type: ignore[misc]

    def is_done(self) -> bool:
        """Whether no effect and no job is open."""
        due, unfinished = self._rows()
        return not due and not unfinished

    def only_asked(self) -> bool:
        """Where nothing else is left to do, whoever was asked whether a job goes on says so."""
        due, unfinished = self._rows()
        if due:
            return False
        asked = [row for row in unfinished if row.blocks and row.blocks["stage"] == ASKED]
        for row in asked:
            if self._tries[row.id] >= GO_TRIES or not all(bot.lives for bot in self.bots):
                return False
            self._tries[row.id] += 1
            self.deliver(Action(-sum(self._tries.values()), self.stage.seconds, (0,), row.actor, "go", {"job": row.id}))
        return bool(asked)

    # The database, as an onlooker sees it

    def _rows(self) -> tuple[dict[Lane, datetime], Sequence[sa.Row[Any, Any, Any]]]:
        """When the next effect of each lane is due, or its lease is out; and where none is open, the open jobs."""
        if self._known[0] != self.stage.commits:
            found: dict[Lane, datetime] = {}
            with self._engine.connect() as connection:
                for name, when in connection.execute(_FIRST):
                    lane = Lane(name)
                    found[lane] = min(when, found.get(lane, when))
                unfinished = () if found else connection.execute(_OPEN).all()
            self._known = (self.stage.commits, found, unfinished)
        return self._known[1:]

    def lanes_due(self, at: datetime) -> list[Lane]:
        """The lanes in which something is due at a time."""
        return [lane for lane, when in self._rows()[0].items() if when <= at]

    def next_effect(self) -> float | None:
        """When the next effect is due that is not yet."""
        later = [(when - EPOCH).total_seconds() for when in self._rows()[0].values()]
        return min((at for at in later if at > self.stage.seconds), default=None)

    # People

    def deliver(self, action: Action) -> None:
        """Let a bot take what a person does; where none is there, nobody answers."""
        people, stage = self.people, self.stage
        if self._changes(action):
            return
        there = [bot for bot in self.bots if bot.lives]
        if not there:
            people.answers.append(Answer(action, stage.seconds, said="no bot", acknowledged=False))
            return
        bot = self._draw.choice(there)
        assert bot.core
        core, given = bot.core, list[Answer]()
        with stage.acting(bot.process, f"request {stage.seconds}"):
            stage.say(f"{action}")
            given.append(people.deliver(core, action, at=stage.seconds))
            if stage.incidents.over or self._draw.random() > stage.incidents.often:
                stage.alive()
            else:
                given[0] = replace(given[0], acknowledged=False)  # Slack does not hear of it
        answer = given[0] if given else Answer(action, stage.seconds, said="its process ended", acknowledged=False)
        if answer.acknowledged and bot.process.ended and not given:
            answer = replace(answer, acknowledged=False)
        people.answers.append(answer)
        stage.say(
            f"{action.person} hears: {answer.said} {answer.job}".rstrip() + ("" if answer.acknowledged else " (not)")
        )

    def _changes(self, action: Action) -> bool:
        """What happens in chat, and at no bot."""
        workspace = self.outside.workspace
        if action.what == "archive":
            workspace.channels[action.words["channel"]].archived = True
        elif action.what == "leave":
            workspace.left.setdefault(action.person, self.stage.seconds)
        else:
            return False
        self.stage.say(str(action))
        return True

    # At the end

    def record(self, *, seed: int, jumped: bool, finished: bool, alone: bool) -> Record:
        """What people were told, and what the stand-ins have."""
        with self.bots[0].database() as database, database.read() as transaction:
            names = transaction.connection.scalars(sa.select(jobs.c.id).order_by(jobs.c.accepted_at, jobs.c.id)).all()
            found = {name: transaction.jobs.get(name) for name in names}
            steps = {name: transaction.story.of(name) for name in names}
            count = transaction.connection.scalar(sa.select(sa.func.count()).select_from(outages)) or 0
            away = [one for number in range(1, count + 1) if (one := transaction.outages.get(number))]
            given_up = transaction.outbox.given_up()
            left = transaction.connection.execute(
                sa.select(effects.c.job_id, effects.c.kind, effects.c.error).where(effects.c.done_at.is_(None))
            )
            still = [" ".join(map(str, row)) for row in left]
            sealed = transaction.connection.scalar(sa.select(sa.func.count()).select_from(secrets)) or 0
            owners = sa.select(people.c.person).where(people.c.token_ref.is_not(None)).order_by(people.c.person)
            saved = list(transaction.connection.scalars(owners))
            path = self._url.removeprefix("sqlite:///")
            if path != self._url:
                files = [Path(f"{path}{end}") for end in ("", "-wal")]
                stored = b"".join(file.read_bytes() for file in files if file.exists())
            else:  # a server's files are not ours to read
                rows = [transaction.connection.execute(sa.select(table)).all() for table in metadata.sorted_tables]
                stored = repr(rows).encode()
        return Record(
            seed=seed,
            history=self.stage.history,
            called=self.stage.called,
            postponed=self.stage.postponed,
            happened=self.stage.incidents.happened,
            answers=self.people.answers,
            agreed=self.people.agreed,
            outside=self.outside,
            jobs=found,
            steps=steps,
            outages=away,
            open_effects=still,
            given_up=given_up,
            stored=stored,
            sealed=sealed,
            saved=saved,
            calm=self.stage.calm,
            jumped=jumped,
            finished=finished,
            alone=alone,
            actions=self.people.actions,
        )

    def close(self) -> None:
        """Close every connection."""
        for bot in self.bots:
            bot.close()
        self._engine.dispose()
