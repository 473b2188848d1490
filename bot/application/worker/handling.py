"""How each kind of effect is performed, and what happens to an effect that is given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from bot.application.ledger import JobChange, Ledger
from bot.domain import words
from bot.domain.errors import NomadsError
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

GIVE_UP = 900
"""Attempts, about three days of back-off, after which an effect is given up.

An attempt that a service turned away with a time to come back (`Busy.retry_after`) is none of them: an effect is tried
for as long as a service that is there names one, ten minutes at most.
"""
FAULTS = 6
"""Unforeseen failures of one effect, half a minute of back-off, after which the effect is given up: they are mistakes
of NOMADS's, or of data that nobody foresaw, and time alone mends neither."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """How one kind of effect is handled. Both functions finish the effect in the Ledger, or raise."""

    perform: Callable[[Effect, Job], None]
    """Performs the effect. Raises Unavailable (try again), Refused (never possible) or LeaseLost."""
    give_up: Callable[[Effect, str], None]
    """The last resort: records, with the reason in words for a person, that the effect will never be performed.

    Where the effect is all that a job waits for, the job ends, its person hears of that, and its token is erased.
    """
    refused: Callable[[Effect, str], None] | None = None
    """The same where the effect was refused, if that has to be recorded in another way."""
    attempts: int = GIVE_UP
    """Attempts after which the effect is given up, where the last one had no answer."""
    faults: int = FAULTS
    """Unforeseen failures after which the effect is given up."""
    exhausted: str = ""
    """The reason then given to people, before the last attempt's error."""

    def __post_init__(self) -> None:
        """Raises ValueError where effects of this kind would have no end."""
        if not callable(self.give_up) or self.attempts < 1 or self.faults < 1:
            raise ValueError("A handler has a last resort, and a number of attempts and faults after which it is due.")


def telling(
    ledger: Ledger,
    perform: Callable[[Effect, Job], None],
    *,
    instead: Callable[[Effect, str, JobChange], None] = lambda _effect, _error, _change: None,
) -> Handler:
    """The handler of an effect that tells people: where it is given up, the job goes on.

    `instead` changes the job and calls for other effects in the transaction that gives the effect up.
    """

    def give_up(effect: Effect, error: str) -> None:
        with ledger.finish(effect, error=error) as change:
            instead(effect, error, change)

    return Handler(perform=perform, give_up=give_up)


Handlers = Mapping[Kind, Handler]


class EffectHandlers(Protocol):
    """A class that handles some kinds of effects."""

    def handlers(self) -> Handlers:
        """The handlers by kind; no other object handles one of these kinds."""


def attempt(what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """The value of the call; None, with the error in the log, where it raised, so that the worker's loops go on."""
    try:
        return what(*args, **kwargs)
    except NomadsError as error:
        log.warning("%s", error)
    except Exception as error:
        log.error("A round of the worker failed; the next one will try again: %s", words.where(error))
    return None
