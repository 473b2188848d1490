"""One run: a lab that works while things go wrong, and then for as long as it takes until all is done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from bot.domain.blocks import ASKED
from bot.domain.job import Job
from bot.domain.outbox import GivenUp, Lane
from bot.domain.states import FINAL
from bot.storage.tables import effects, jobs, people, secrets
from simulation import entropy
from simulation.bots import Bot, engine_of, settings
from simulation.incidents import Incidents, What
from simulation.outside import Outside
from simulation.people import Action, Answer, People, script
from simulation.stage import EPOCH, Stage

GO_TRIES = 5
"""Times that somebody says that a job goes on, which bots may end instead of hearing."""
TROUBLE = 2400.0
"""Seconds after which nothing goes wrong any more."""
PATIENCE = 6 * 3600.0
"""Seconds after that in which everything has to be done."""
OFTEN = (0.0, 0.005, 0.02, 0.05, 0.15)
"""Parts of all calls at which something happens."""
RESTARTS = (0.1, 5.0, 60.0)
"""Seconds after which a bot that has ended begins anew."""
JUMPS = (-7200.0, -30.0, 30.0, 7200.0)
"""Seconds by which a clock is set."""


@dataclass
class Record:
    """What people were told, and what the stand-ins have, at the end."""

    seed: int
    history: list[str]
    points: list[str]
    happened: list[int]
    answers: list[Answer]
    agreed: set[int]
    """The numbers of the actions at which a person was asked before, and agreed."""
    outside: Outside
    jobs: dict[str, Job]
    open_effects: list[str]
    given_up: list[GivenUp]
    stored: bytes
    """The database as it lies on the disk; empty where it lies elsewhere."""
    sealed: int
    """Tokens that lie sealed in the database."""
    saved: int
    """People who have saved one."""
    calm: bool
    """Whether nothing went wrong."""
    jumped: bool
    """Whether a clock was set."""
    finished: bool
    """Whether everything was done in time."""
    actions: Sequence[Action] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is made of; what is None is decided by the seed."""

    bots: int | None = None
    often: float | None = None
    actions: Sequence[Action] | None = None
    only: Collection[int] | None = None
    """The numbers of the calls at which something may happen."""
    crash: tuple[int, What] | None = None
    disturbed: bool = True
    """Whether bots are ended and clocks set by nobody's hand."""
    quiet: bool | None = None
    """Whether compute tells nothing by itself."""
    lasts: bool | None = None
    """Whether some machines are not taken back."""
    ends: Sequence[str] | None = None
    """How programs end, in the order of their ends: keys of `outside.ENDS`; after the last one they succeed."""


def run(seed: int, *, url: str, plan: Plan | None = None) -> Record:
    """Run a lab on that database, which is up to date and empty."""
    with entropy.seeded(seed):
        return _Run(seed, url, plan or Plan()).run()


_ENDED = [state.value for state in FINAL]
_FIRST = sa.select(effects.c.lane, sa.func.coalesce(effects.c.leased_until, effects.c.due_at)).where(
    effects.c.id.in_(
        sa.select(sa.func.min(effects.c.id))
        .where(effects.c.done_at.is_(None))
        .group_by(effects.c.job_id, effects.c.lane)
    )
)
"""Of each job's lanes the first open effect: when it is due, or its lease is out."""


class _Run:
    def __init__(self, seed: int, url: str, plan: Plan) -> None:
        draw = entropy.stream(seed, "lab")
        number = draw.choice((1, 1, 2, 3))
        often, quiet, lasts = draw.choice(OFTEN), draw.random() < 0.5, draw.random() < 0.5
        self._draw, self._seed, self._plan = draw, seed, plan
        incidents = Incidents(seed, often=often if plan.often is None else plan.often, only=plan.only)
        self.stage = Stage(incidents, crash=plan.crash)
        self.stage.turns = self._turn
        quiet, lasts = quiet if plan.quiet is None else plan.quiet, lasts if plan.lasts is None else plan.lasts
        self.outside = Outside(self.stage, entropy.stream(seed, "programs"), quiet=quiet, lasts=lasts, ends=plan.ends)
        self._engine = engine_of(url)
        self._url = url
        common = settings()
        self.bots = [
            Bot(n + 1, url=url, stage=self.stage, outside=self.outside, settings=common, due=self._lanes_due)
            for n in range(plan.bots or number)
        ]
        self.people = People(script(entropy.stream(seed, "people")) if plan.actions is None else plan.actions)
        self._known: tuple[int, dict[Lane, datetime]] = (-1, {})
        self._beginning: set[str] = set()
        self._jumped = False
        self._tries: Counter[str] = Counter()

    def run(self) -> Record:
        """Let the lab work until all is done."""
        for bot in self.bots:
            bot.start()
        for action in self.people.actions:
            for after in action.times:
                self.stage.at(action.at + after, lambda action=action: self._deliver(action))  # type: ignore[misc]
        if self._plan.disturbed and self.stage.incidents.often:
            self._disturb()
        self.stage.at(TROUBLE, self._heal)
        finished = self._until_done()
        record = self._record(finished)
        for bot in self.bots:
            bot.close()
        self._engine.dispose()
        return record

    def _disturb(self) -> None:
        """Decide when bots end by a hand that nobody saw, and clocks are set."""
        draw = entropy.stream(self._seed, "disturbances")
        for bot in self.bots:
            for _ in range(draw.choice((0, 0, 1, 2))):
                self.stage.at(draw.uniform(0, TROUBLE / 2), lambda bot=bot: bot.end("killed"))  # type: ignore[misc]
        if draw.random() < 0.2:
            jump = draw.choice(JUMPS)
            self.stage.at(draw.uniform(0, TROUBLE / 2), lambda: self._jump(jump))

    def _jump(self, seconds: float) -> None:
        """Set the clock of the machine on which all bots are. Replicas whose clocks differ are not looked at."""
        for bot in self.bots:
            bot.offset += seconds
        self._jumped = True
        self.stage.say(f"the clock is set by {seconds:g} s")

    def _heal(self) -> None:
        self.stage.incidents.over = True
        for bot in self.bots:
            bot.offset = 0
        self.stage.say("nothing goes wrong any more")

    # Turns

    def _turn(self, until: float) -> bool:
        """Let somebody do something that is due until then; False: nobody has."""
        self.outside.play()
        order = list(self.bots)
        self._draw.shuffle(order)
        for bot in order:
            if bot.process.ended and bot.name not in self._beginning:
                self._begin(bot)
            if bot.turn():
                return True
        times = [self.stage.next_due, self._next_effect(), *(bot.next_turn for bot in self.bots if bot.lives)]
        at = min((time for time in times if time is not None), default=math.inf)
        if at > until:
            return False
        if self.stage.next_due is not None and self.stage.next_due <= at:
            self.stage.happen()
        else:
            self.stage.seconds = max(at, self.stage.seconds)
        return True

    def _begin(self, bot: Bot) -> None:
        """Begin an ended bot anew, a little later."""
        self._beginning.add(bot.name)

        def begin() -> None:
            self._beginning.discard(bot.name)
            bot.start()

        self.stage.at(self.stage.seconds + self._draw.choice(RESTARTS), begin)

    def _until_done(self) -> bool:
        while self.stage.seconds < TROUBLE + PATIENCE:
            if self.stage.incidents.over and self._is_done():
                return True
            if self.stage.incidents.over and self._only_asked():
                continue
            if not self._turn(TROUBLE + PATIENCE):
                return self._is_done()
        return False

    def _only_asked(self) -> bool:
        """Where nothing else is left to do, whoever was asked whether a job goes on says so."""
        if self._due_rows():
            return False
        query = sa.select(jobs.c.id, jobs.c.actor, jobs.c.blocks).where(jobs.c.state.not_in(_ENDED))
        with self._engine.connect() as connection:
            asked = [row for row in connection.execute(query) if row.blocks and row.blocks["stage"] == ASKED]
            connection.rollback()
        for row in asked:
            if self._tries[row.id] >= GO_TRIES or not all(bot.lives for bot in self.bots):
                return False
            self._tries[row.id] += 1
            self._deliver(
                Action(-sum(self._tries.values()), self.stage.seconds, (0,), row.actor, "go", {"job": row.id})
            )
        return bool(asked)

    def _is_done(self) -> bool:
        return self._due_rows() == [] and not self._open_jobs() and self.stage.incidents.over

    # The database, as an onlooker sees it

    def _rows(self) -> dict[Lane, datetime]:
        """When the next effect of each lane is due, or its lease is out."""
        if self._known[0] != self.stage.commits:
            found: dict[Lane, datetime] = {}
            with self._engine.connect() as connection:
                for name, when in connection.execute(_FIRST):
                    lane = Lane(name)
                    found[lane] = min(when, found.get(lane, when))
                connection.rollback()
            self._known = (self.stage.commits, found)
        return self._known[1]

    def _lanes_due(self, at: datetime) -> list[Lane]:
        return [lane for lane, when in self._rows().items() if when <= at]

    def _next_effect(self) -> float | None:
        """When the next effect is due that is not yet."""
        later = [(when - EPOCH).total_seconds() for when in self._rows().values()]
        return min((at for at in later if at > self.stage.seconds), default=None)

    def _due_rows(self) -> list[Lane]:
        return list(self._rows())

    def _open_jobs(self) -> int:
        query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state.not_in(_ENDED))
        with self._engine.connect() as connection:
            found: int = connection.scalar(query) or 0
            connection.rollback()
        return found

    # People

    def _deliver(self, action: Action) -> None:
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
            workspace.left.add(action.person)
        else:
            return False
        self.stage.say(str(action))
        return True

    # At the end

    def _record(self, finished: bool) -> Record:
        with self.bots[0].database() as database, database.read() as transaction:
            names = transaction.connection.scalars(sa.select(jobs.c.id).order_by(jobs.c.accepted_at, jobs.c.id)).all()
            found = {name: transaction.jobs.get(name) for name in names}
            given_up = transaction.outbox.given_up()
            left = transaction.connection.execute(
                sa.select(effects.c.job_id, effects.c.kind, effects.c.error).where(effects.c.done_at.is_(None))
            )
            still = [" ".join(map(str, row)) for row in left]
            sealed, saved = (
                transaction.connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
                for some in (secrets, sa.select(people.c.person).where(people.c.token_ref.is_not(None)).subquery())
            )
        path = self._url.removeprefix("sqlite:///")
        files = [Path(f"{path}{end}") for end in ("", "-wal")] if path != self._url else []
        return Record(
            seed=self._seed,
            history=self.stage.history,
            points=self.stage.points,
            happened=self.stage.incidents.happened,
            answers=self.people.answers,
            agreed=self.people.agreed,
            outside=self.outside,
            jobs=found,
            open_effects=still,
            given_up=given_up,
            stored=b"".join(file.read_bytes() for file in files if file.exists()),
            sealed=sealed,
            saved=saved,
            calm=not self.stage.incidents.often,
            jumped=self._jumped,
            finished=finished,
            actions=self.people.actions,
        )
