"""What a lane runner knows of an effect: how it is performed, and what becomes of it where it is given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from bot.application.ledger import Ledger
from bot.domain import words
from bot.domain.errors import NomadsError
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Handler:
    """One kind of effect. Both functions finish the effect in the Ledger, or raise."""

    perform: Callable[[Effect, Job], None]
    """Raises Unavailable where the effect should be tried again, Refused where it never can be performed, LeaseLost."""
    give_up: Callable[[Effect, str], None]
    """Records, with the reason in words for a person, that the effect will never be performed."""
    attempts: int | None = None
    """After so many failed attempts it is given up; None: never."""
    exhausted: str = ""
    """What is said then, before the last attempt's error."""


GIVE_UP = 900
"""Attempts, about three days of back-off, after which effects of chat and mail are given up."""


def telling(ledger: Ledger, perform: Callable[[Effect, Job], None]) -> Handler:
    """A kind of effect that tells people: after GIVE_UP attempts it is given up with a note, and the job goes on."""

    def give_up(effect: Effect, error: str) -> None:
        with ledger.done(effect, error=error):
            pass

    return Handler(perform=perform, give_up=give_up, attempts=GIVE_UP)


Handlers = Mapping[Kind, Handler]


class EffectHandlers(Protocol):
    """A class that handles some kinds of effects."""

    def handlers(self) -> Handlers:
        """Its kinds, each of which nobody else handles."""


def attempt(what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call it; a loop of the worker outlives whatever its rounds run into. None where it raised."""
    try:
        return what(*args, **kwargs)
    except NomadsError as error:
        log.warning("%s", error)
    except Exception as error:
        log.error("A round of the worker failed; the next one will try again: %s", words.where(error))
    return None
