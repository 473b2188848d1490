"""One run: labs that work while things go wrong, and then for as long as it takes until all is done."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from simulation import entropy
from simulation.bots import Bot
from simulation.incidents import Incident, Incidents, What
from simulation.installation import Installation, Record
from simulation.outside import CASTS, Account
from simulation.people import Action, script
from simulation.stage import Stage

TROUBLE = 2400.0
"""Seconds after which nothing goes wrong any more."""
PATIENCE = 6 * 3600.0
"""Seconds after that in which everything has to be done, where no plan says less."""
OFTEN = (0.0, 0.005, 0.02, 0.05, 0.15)
"""Parts of all calls at which something happens."""
RESTARTS = (0.1, 5.0, 60.0)
"""Seconds after which a bot that has ended begins anew."""
JUMPS = (-7200.0, -30.0, 30.0, 7200.0)
"""Seconds by which a clock is set."""
AWAY = (0.5, 20.0, 400.0)
"""Seconds for which the database's process is away; a lease lasts 15."""
ENDS_TOO = 1 / 2
"""Part of the disturbed runs in which a database's process ends."""
TWO = 1 / 8
"""Part of the runs in which there are two workspaces, where there are two databases."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is made of; what is None is decided by the seed."""

    bots: int | None = None
    often: float | None = None
    actions: Sequence[Sequence[Action]] | None = None
    """What the people of each workspace do; there are as many workspaces."""
    only: Collection[int] | None = None
    """The numbers of the calls at which something may happen."""
    crash: tuple[int, What] | None = None
    first: Mapping[str, Sequence[Incident]] = field(default_factory=dict)
    """What happens at the first calls of a name."""
    disturbed: bool = True
    """Whether bots are ended and clocks set by nobody's hand."""
    clocks: tuple[float, float] | None = None
    """When the clocks of all bots are set in any case, and by how many seconds."""
    quiet: bool | None = None
    """Whether compute tells nothing by itself."""
    lasts: bool | None = None
    """Whether some machines are not taken back."""
    ends: Sequence[str] | None = None
    """How programs end, in the order of their ends: keys of `outside.ENDS`; after the last one they succeed."""
    waits: float = 0.0
    """Seconds for which each program waits to run besides."""
    says: Sequence[str] = ()
    """What each program prints as it begins."""
    patience: float = PATIENCE
    """Seconds after nothing goes wrong any more in which everything has to be done."""


def run(seed: int, *, urls: Sequence[str], plan: Plan | None = None) -> Record:
    """Run a workspace on each of these databases, which are up to date and empty, or on the first one alone."""
    with entropy.seeded(seed):
        return _Run(seed, urls, plan or Plan()).run()


class _Run:
    def __init__(self, seed: int, urls: Sequence[str], plan: Plan) -> None:
        draw = entropy.stream(seed, "lab")
        number = draw.choice((1, 1, 2, 3))
        often, quiet, lasts = draw.choice(OFTEN), draw.random() < 0.5, draw.random() < 0.5
        self._draw, self._seed, self._plan = draw, seed, plan
        incidents = Incidents(seed, often=often if plan.often is None else plan.often, only=plan.only)
        self.stage = Stage(incidents, crash=plan.crash, first=plan.first)
        self.stage.turns = self._turn
        quiet, lasts = quiet if plan.quiet is None else plan.quiet, lasts if plan.lasts is None else plan.lasts
        programs = entropy.stream(seed, "programs")
        self.account = Account(self.stage, programs, lasts=lasts, ends=plan.ends, waits=plan.waits, says=plan.says)
        many = len(plan.actions) if plan.actions else 1 + (entropy.stream(seed, "workspaces").random() < TWO)
        self.installations = [
            Installation(
                cast,
                url=url,
                stage=self.stage,
                account=self.account,
                draw=draw,
                quiet=quiet,
                bots=plan.bots or number,
                actions=self._script(n),
            )
            for n, (cast, url) in enumerate(zip(CASTS, urls[:many], strict=False))
        ]
        self._beginning: set[str] = set()
        self._jumped: set[str] = set()
        """The bots whose clocks were set."""

    def _script(self, number: int) -> Sequence[Action]:
        """What the people of a workspace do."""
        if self._plan.actions is not None:
            return self._plan.actions[number]
        return script(entropy.stream(self._seed, f"people {number}" if number else "people"), CASTS[number])

    @property
    def bots(self) -> list[Bot]:
        """Those of all workspaces."""
        return [bot for each in self.installations for bot in each.bots]

    def run(self) -> Record:
        """Let the labs work until all is done."""
        for bot in self.bots:
            bot.start()
        for each in self.installations:
            each.await_people()
        if self._plan.disturbed and self.stage.incidents.often:
            self._disturb()
        if self._plan.clocks:
            at, seconds = self._plan.clocks
            self.stage.at(at, lambda: self._jump(self.bots, seconds))
        self.stage.at(TROUBLE, self._heal)
        finished = self._until_done()
        record, *others = (
            each.record(
                seed=self._seed,
                jumped=any(bot.name in self._jumped for bot in each.bots),
                finished=finished,
                alone=len(self.installations) == 1,
            )
            for each in self.installations
        )
        for each in self.installations:
            each.close()
        return replace(record, others=others)

    def _disturb(self) -> None:
        """Decide when bots end by a hand that nobody saw, and clocks are set."""
        draw = entropy.stream(self._seed, "disturbances")
        for bot in self.bots:
            for _ in range(draw.choice((0, 0, 1, 2))):
                self.stage.at(draw.uniform(0, TROUBLE / 2), lambda bot=bot: bot.end("killed"))  # type: ignore[misc]
        if draw.random() < 0.2:
            jump, at = draw.choice(JUMPS), draw.uniform(0, TROUBLE / 2)
            bots = self.bots if draw.random() < 0.5 else [draw.choice(self.bots)]
            self.stage.at(at, lambda: self._jump(bots, jump))
        draw = entropy.stream(self._seed, "databases")
        for each in self.installations:
            if draw.random() < ENDS_TOO:
                server, away = each.server, draw.choice(AWAY)
                self.stage.at(draw.uniform(0, TROUBLE / 4), lambda server=server, away=away: server.end(away))  # type: ignore[misc]

    def _jump(self, bots: Sequence[Bot], seconds: float) -> None:
        """Set the clock of the machine on which these bots are."""
        for bot in bots:
            bot.offset += seconds
            self._jumped.add(bot.name)
        self.stage.say(f"the clock of {' and '.join(bot.name for bot in bots)} is set by {seconds:g} s")

    def _heal(self) -> None:
        self.stage.incidents.over = True
        for bot in self.bots:
            bot.offset = 0
        self.stage.say("nothing goes wrong any more")

    # Turns

    def _turn(self, until: float) -> bool:
        """Let somebody do something that is due until then; False: nobody has."""
        self.account.play()
        order = self.bots
        self._draw.shuffle(order)
        for bot in order:
            if bot.process.ended and bot.name not in self._beginning:
                self._begin(bot)
            if bot.turn():
                return True
        effects = (each.next_effect() for each in self.installations)
        times = [self.stage.next_due, *effects, *(bot.next_turn for bot in self.bots if bot.lives)]
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
        until = TROUBLE + self._plan.patience
        while self.stage.seconds < until:
            if self.stage.incidents.over and self._is_done():
                return True
            if self.stage.incidents.over and self._only_asked():
                continue
            if not self._turn(until):
                return self._is_done()
        return False

    def _only_asked(self) -> bool:
        """Where nothing else is left to do, whoever was asked whether a job goes on says so."""
        return any(each.only_asked() for each in self.installations)

    def _is_done(self) -> bool:
        return self.stage.incidents.over and all(each.is_done() for each in self.installations)
