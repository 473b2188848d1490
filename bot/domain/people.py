"""What is known of a person: their preferences, their saved token's reference, what they last asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from bot.domain.states import FINAL, MISSED, JobState

TERMINAL = "cli:"
"""How the name of somebody at a terminal begins."""


class Steps(StrEnum):
    """Which steps of their jobs a person wants to be told in the thread."""

    ALL = "all"
    END = "end"
    FAILURES = "failures"


@dataclass(frozen=True)
class Preferences:
    """How a person wants to hear of their jobs."""

    steps: Steps = Steps.ALL
    mention: bool = False
    """Whether the end names them, so that Slack notifies them."""
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
    """What may be shown of a token that is kept for a person."""

    ending: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """What is kept of a person: where their token is, its last characters and since when, and what they last asked."""

    token_ref: str | None = None
    token_end: str | None = None
    token_at: datetime | None = None
    last_request: dict[str, Any] | None = None
    preferences: Preferences = field(default_factory=Preferences)
    home_opened_at: datetime | None = None
    """When they last opened the app's home tab."""
    home_shown_at: datetime | None = None
    """As of when it shows their jobs."""
