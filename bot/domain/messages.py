"""What people are shown of jobs: the facts of a card, a reply, a mail and the home tab, without their layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.domain.job import Job
from bot.domain.outbox import GivenUp
from bot.domain.people import Preferences, SavedToken
from bot.domain.results import Link
from bot.domain.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail. The caller fixes `message_id`, so that a second sending is recognised as the same mail."""

    to: str
    subject: str
    text: str
    html: str
    message_id: str
    """`<unique@domain>`, with the angle brackets."""
    unsubscribe: str = ""
    """The address at which whoever reads the mail ends such mail: GET asks, POST does it. Empty: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a job's story, in words for a person."""

    text: str
    at: datetime
    state: JobState
    note: bool = False
    """Whether the job was in the state already, and something was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What the app's home tab shows a person."""

    running: Sequence[Job]
    running_in_all: int
    """How many of their jobs have not ended; `running` may show fewer."""
    recent: Sequence[Job]
    saved: SavedToken | None
    preferences: Preferences
    mails: bool = True
    """Whether NOMADS sends mail at all."""
    given_up: Sequence[GivenUp] = ()
    """For an admin: the newest of the effects that were given up."""
    given_up_in_all: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A job as chat shows it."""

    job: Job
    pipeline_title: str
    size: int
    """Bytes the program reads."""
    options: Sequence[tuple[str, str]] = ()
    """Title and value of each option that the request sets."""
    links: Sequence[tuple[str, Link]] = ()
    """Title and address of each result."""
    address: str = ""
    """Where the results folder is looked at; empty: in no browser."""
    view: str = ""
    """Where the results are seen in three dimensions; empty: nowhere."""
    before: str = ""
    """The job that this one tries again; empty: none, or none that the story's audience may hear of."""
    after: str = ""
    """The job that tries this one again; empty: none, or none that the story's audience may hear of."""
    mentions: Sequence[str] = ()
    """The user ids of those whom a reply mentions, so that chat notifies them."""
    helpers: Sequence[str] = ()
    """The user ids of those a reply about a long wait mentions, since they can help."""
