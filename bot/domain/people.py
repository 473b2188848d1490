"""What is stored of a person: preferences, the saved token's reference, the last request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bot.domain.states import FINAL, MISSED, JobState

TERMINAL = "cli:"
"""Beginning of the name of a person at a terminal; a login name follows."""
HOME_OPEN = timedelta(hours=12)
"""Time after its opening in which a home tab counts as open: Slack does not say when a tab is closed."""


NO_SUCH_CHANNEL = (
    "You and NOMADS both have to be in a private channel: choose one that you are in, bring NOMADS there with "
    "/invite @NOMADS, then submit again."
)
"""What a person hears of a channel that NOMADS or the person is not in: it does not tell which, nor what exists."""


class Standing(StrEnum):
    """Who a person is in the workspace."""

    MEMBER = "member"
    """A full member."""
    GUEST = "guest"
    """Invited to some channels only."""
    STRANGER = "stranger"
    """Of another organisation, gone, unknown, or no person."""


class Privacy(StrEnum):
    """For whom a channel is."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Also a channel that NOMADS is not told of."""
    DIRECT = "direct"
    """A direct message, of two or more."""


class Steps(StrEnum):
    """Which steps of their jobs a person wants to be told in the thread."""

    ALL = "all"
    END = "end"
    FAILURES = "failures"


@dataclass(frozen=True)
class Preferences:
    """How a person wants to hear of their jobs."""

    steps: Steps = Steps.ALL
    mention: bool = True
    """Whether the reply about a job's end mentions its owner, so that Slack notifies them."""
    mail: bool = True

    def tells(self, state: JobState) -> bool:
        """Whether the step into that state is told in the thread."""
        match self.steps:
            case Steps.ALL:
                return True
            case Steps.END:
                return state in FINAL
            case Steps.FAILURES:
                return state in MISSED


@dataclass(frozen=True, slots=True)
class SavedToken:
    """What may be shown of a person's saved token: its last characters, and since when it is saved."""

    ending: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """A person's row: the saved token's reference, ending and time, the last request, preferences, home tab."""

    token_ref: str | None = None
    token_end: str | None = None
    token_at: datetime | None = None
    last_request: dict[str, Any] | None = None
    preferences: Preferences = field(default_factory=Preferences)
    home_opened_at: datetime | None = None
    """When they last opened the app's home tab."""
    home_shown_at: datetime | None = None
    """As of when the home tab shows their jobs."""

    @property
    def saved_token(self) -> SavedToken | None:
        """What may be shown of the saved token; None where there is none."""
        return SavedToken(self.token_end or "", self.token_at) if self.token_ref and self.token_at else None

    def home_may_be_open(self, at: datetime) -> bool:
        """Whether the person's home tab counts as open at that time."""
        return self.home_opened_at is not None and at - self.home_opened_at < HOME_OPEN
