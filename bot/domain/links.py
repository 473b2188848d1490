"""Links to results: for whom they are, and what the page behind them shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from bot.domain.errors import NomadsError, NotFound
from bot.domain.job import Job
from bot.domain.results import Link, Opened


class Reader(StrEnum):
    """Who was given a link."""

    PERSON = "person"
    CHANNEL = "channel"
    MAIL = "mail"


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom a link is made: a person, whoever reads a channel, whoever reads a mail."""

    reader: Reader
    name: str
    """A person as in Job.actor, a channel's id, or a mail address."""

    @classmethod
    def person(cls, person: str) -> Audience:
        """One person; whether they may still see the job is asked each time the link is opened."""
        return cls(Reader.PERSON, person)

    @classmethod
    def channel(cls, channel: str) -> Audience:
        """Whoever reads that channel."""
        return cls(Reader.CHANNEL, channel)

    @classmethod
    def mail(cls, address: str) -> Audience:
        """Whoever reads the mail to that address."""
        return cls(Reader.MAIL, address)


class LinkEnded(NomadsError):
    """The link was right and its time is over: `job_id` names the job that it led to."""

    def __init__(self, job_id: str) -> None:
        super().__init__("This link has ended.")
        self.job_id = job_id


class NoFile(NotFound):
    """The link is right, and behind it is no such file: it was deleted, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file on a results page."""

    name: str
    """As the file is asked for; empty where its name cannot stand in an address."""
    shown: str
    """The name in printable characters."""
    size: int
    """Bytes."""
    about: str
    """What it is, in a sentence; empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsPage:
    """What the page of a job's results shows."""

    job: Job
    pipeline_title: str
    options: Sequence[tuple[str, str]]
    """Title and value of each option that the request sets."""
    files: Sequence[SharedFile]
    more: int
    """How many further files there are."""
    report: str
    """Name of the report; empty where there is none."""
    preview: str
    """Name of the preview; empty where there is none."""
    until: datetime
    """When the link ends."""


class Shared(Protocol):
    """What the web asks of the application.

    `signed` is the part of an address that says for whom it is. Every method raises NotFound alike for a signature that
    is not ours and a person who may not see the job (any more); of that NoFile, for a file that is not there, where the
    person may see the job; LinkEnded after the link's end; and Unavailable where the question cannot be answered just
    now.
    """

    def page(self, signed: str) -> ResultsPage:
        """What the page of the results shows."""

    def file(self, signed: str, name: str) -> Opened | Link:
        """A file of the results, open, or the address at which its store gives it."""

    def archive(self, signed: str) -> tuple[str, Iterator[tuple[str, Opened]]]:
        """The name of an archive of all results, without an ending, and the files, each opened when it is reached."""

    def mail_ends(self, signed: str) -> bool:
        """Whether the address that the link is for has asked for no more mail. Raises NotFound and Unavailable."""

    def end_mail(self, signed: str) -> None:
        """Send no more mail to the address that the link is for. Raises NotFound and Unavailable."""
