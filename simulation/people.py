"""What people do: decided before anything happens, by the seed alone, so that any of it can be left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from bot.application.steering import Retried
from bot.application.submission import Followed, Form, Question
from bot.core import Core
from bot.domain.errors import NomadsError, Unavailable
from bot.domain.job import Job
from bot.domain.people import Steps
from simulation.outside import CASTS, OTHER, PRIVATE, PUBLIC, Cast, mail_of

AGAIN = (0.0, 0.3, 5.0, 400.0)
"""Seconds after which somebody clicks twice, or Slack delivers once more."""


@dataclass(frozen=True)
class Action:
    """What a person does, at a time, maybe several times, each time at some bot."""

    number: int
    at: float
    times: tuple[float, ...]
    """Seconds after `at` of each delivery."""
    person: str
    what: str
    words: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = " ".join(f"{name}={value}" for name, value in self.words.items())
        return f"{self.person} {self.what} {said}".rstrip()


@dataclass(frozen=True)
class Answer:
    """What a person was told of a delivery."""

    action: Action
    at: float
    job: str = ""
    """The job that was accepted, cancelled or made; empty: none."""
    said: str = ""
    """What was said instead."""
    acknowledged: bool = True
    """False: no answer came, or that there is none now."""


def script(draw: random.Random, cast: Cast, *, calm: bool = False) -> list[Action]:
    """What people do in the first half hour."""
    found: list[Action] = []

    def add(at: float, person: str, what: str, **words: Any) -> None:
        times = (0.0,) if calm or draw.random() < 0.7 else (0.0, draw.choice(AGAIN))
        found.append(Action(len(found), at, times, person, what, words))

    for number in range(draw.choice((1, 1, 2, 3))):
        at, person = draw.uniform(0, 300), draw.choice(list(cast.tokens))
        add(at, person, "submit", **_form(draw, cast.tokens[person], number))
        for _ in range(draw.choice((0, 0, 1, 2))):
            who = person if draw.random() < 0.5 else draw.choice(cast.everybody)
            what = draw.choice(("cancel", "retry", "retry", "go", "submit-the-same", "forget", "home"))
            add(at + draw.choice((0.0, 0.2, draw.uniform(1, 60), draw.uniform(60, 1500))), who, what, of=number)
    for _ in range(draw.choice((0, 0, 0, 1))):
        what = draw.choice(("archive", "leave", "quiet", "no-mail"))
        add(draw.uniform(0, 900), draw.choice(list(cast.tokens)), what, channel=draw.choice((PUBLIC, PRIVATE, OTHER)))
    return sorted(found, key=lambda one: (one.at, one.number))


def _form(draw: random.Random, token: str, number: int) -> dict[str, Any]:
    wrong = draw.random()
    collection = "closed" if wrong < 0.05 else "demo"
    side = "0,5000" if 0.05 < wrong < 0.1 else f"0,{256 + number}"
    return {
        "view": f"V{number}",
        "collection": collection,
        "x": side,
        "y": draw.choice(("0,128", "0,128", "0,128", "0,1024")),
        "z": draw.choice(("0,16", "0,16", "0,16", "0,30", "0,64")),
        "channel": draw.choice((PUBLIC, PUBLIC, PRIVATE, OTHER)),
        "token": draw.choice((token, token, token, "canary-token-of-nobody")),
        "remember": draw.random() < 0.5,
        "agrees": draw.random() < 0.9,
    }


def form(view: str, **changes: object) -> dict[str, object]:
    """A right form of U1ADA's, but for the changes."""
    usual = {"view": view, "collection": "demo", "x": "0,256", "y": "0,128", "z": "0,16", "channel": PUBLIC}
    return {**usual, "token": CASTS[0].tokens["U1ADA"], "remember": True, "agrees": True, **changes}


class People:
    """Do what the script says, and keep what they were told."""

    def __init__(self, actions: Sequence[Action], cast: Cast) -> None:
        self.actions, self._cast = actions, cast
        self.answers: list[Answer] = []
        self._clicked: dict[int, str] = {}
        """The job of the card on which a person clicked, by the number of the action: a second click is on the same."""
        self.agreed: set[int] = set()
        """The numbers of the actions at which a person was asked before, and agreed."""

    def deliver(self, core: Core, action: Action, *, at: float) -> Answer:
        """Let a bot take an action; an error is what the person is told."""
        try:
            job, said = getattr(self, f"_{action.what.replace('-', '_')}")(core, action)
        except Unavailable as error:
            return Answer(action, at, said=str(error), acknowledged=False)
        except NomadsError as error:
            return Answer(action, at, said=f"{type(error).__name__}: {error}")
        except Exception as error:  # as the handler of all that nobody foresaw does, which says that it failed
            return Answer(action, at, said=type(error).__name__, acknowledged=False)
        return Answer(action, at, job=job, said=said)

    def _target(self, action: Action) -> str:
        """The job that the action is about: the newest that came of a form at the first click, unless it is named."""
        if "job" in action.words:
            return str(action.words["job"])
        if action.number in self._clicked:
            return self._clicked[action.number]
        known = [
            one.job
            for one in self.answers
            if one.job
            and (
                one.action.words.get("view") == f"V{action.words['of']}"
                or one.action.words.get("of") == action.words["of"]
            )
        ]
        if known:
            self._clicked[action.number] = known[-1]
        return known[-1] if known else ""

    def _submit(self, core: Core, action: Action) -> tuple[str, str]:
        words = action.words
        values = {
            "pipeline": "nomads-unsupervised",
            "collection": words["collection"],
            "experiment": "cortex",
            "email": mail_of(action.person),
            **{name: words[name] for name in ("x", "y", "z", "channel")},
        }
        form = Form(values=values, token=SecretStr(words["token"]), remember=words["remember"])
        key = f"{words['view']}-{action.number}"
        found = core.submission.submit(form, actor=action.person, key=key, within=1.5)
        if isinstance(found, Question):
            if not words["agrees"]:
                return "", "declined"
            if not found.twin_runs:
                self.agreed.add(action.number)
            again = Form(values=values, token=form.token, remember=form.remember, agreed=found.digest)
            found = core.submission.submit(again, actor=action.person, key=key, within=1.5)
        if isinstance(found, Job):
            return found.id, "accepted"
        return "", f"follows {found.job.id}" if isinstance(found, Followed) else "is asked"

    def _submit_the_same(self, core: Core, action: Action) -> tuple[str, str]:
        first = next((one for one in self.actions if one.words.get("view") == f"V{action.words['of']}"), None)
        if first is None:
            return "", "nothing"
        words = {**first.words, "token": self._cast.tokens.get(action.person, "public")}
        return self._submit(core, Action(action.number, action.at, action.times, action.person, "submit", words))

    def _cancel(self, core: Core, action: Action) -> tuple[str, str]:
        target = self._target(action)
        return (core.steering.cancel(target, actor=action.person).id, "cancelled") if target else ("", "nothing")

    def _go(self, core: Core, action: Action) -> tuple[str, str]:
        target = self._target(action)
        return (core.steering.go(target, actor=action.person).id, "goes") if target else ("", "nothing")

    def _retry(self, core: Core, action: Action) -> tuple[str, str]:
        target = self._target(action)
        if not target:
            return "", "nothing"
        token = SecretStr(self._cast.tokens.get(action.person, "public"))
        mail = mail_of(action.person)
        found = core.steering.retry(target, actor=action.person, token=token, email=mail, anyway=True, within=1.5)
        return (found.job.id, f"retried {target}") if isinstance(found, Retried) else ("", "needs more")

    def _forget(self, core: Core, action: Action) -> tuple[str, str]:
        core.people.forget_token(action.person)
        return "", "forgotten"

    def _replay(self, core: Core, action: Action) -> tuple[str, str]:
        core.ledger.replay()
        return "", "replayed"

    def _home(self, core: Core, action: Action) -> tuple[str, str]:
        core.people.opened_home(action.person)
        return "", "home"

    def _quiet(self, core: Core, action: Action) -> tuple[str, str]:
        core.people.prefer(action.person, steps=Steps.END)
        return "", "quiet"

    def _no_mail(self, core: Core, action: Action) -> tuple[str, str]:
        core.people.prefer(action.person, mail=False)
        return "", "no mail"
