"""What people look up: jobs, lists of jobs, a job's story. Nothing here changes anything.

Whatever names an `actor` tells that person of the jobs that Access lets them see, and of no others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bot.application.access import PATIENCE, Access
from bot.domain import words
from bot.domain.errors import InDoubt, UnknownJob
from bot.domain.ids import misspelt
from bot.domain.job import Job, Transition
from bot.domain.messages import Home
from bot.domain.outbox import GivenUp
from bot.domain.states import FINAL, MISSED, UNFINISHED, JobState
from bot.storage.engine import Database
from bot.storage.transaction import Transaction

HOME_RUNNING = 10
"""Unfinished jobs that the home tab shows."""
HOME_RECENT = 10
"""Ended jobs that the home tab shows."""
HOME_GIVEN_UP = 5
"""Effects that were given up which an admin's home tab shows."""
PAGE = 10
"""Jobs on a page of a list."""
ATTEMPTS = 20
"""Attempts that are looked up: so many up to a job, twice as many in all."""
SHOWN_NAME = 20
"""Characters of an unknown name that an error repeats."""
BEGINNING = 3
"""Characters that a name must have to be taken for the beginning of an id."""
NEAR = 3
"""Similar ids that an error suggests."""
ALIKE = 20
"""Similar ids among which those are looked for that the person may see."""
CHUNK = 100
"""Jobs that are read at a time for a page, where the person may not see all of the first ones."""
READS = 10
"""Times that jobs are read for one page."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Which(StrEnum):
    """Which jobs a list shows."""

    MINE = "mine"
    ALL = "all"
    RUNNING = "running"
    FAILED = "failed"
    MINE_RUNNING = "mine running"
    MINE_FAILED = "mine failed"


_MINE = frozenset({Which.MINE, Which.MINE_RUNNING, Which.MINE_FAILED})
_SHOWN: Mapping[Which, Collection[JobState]] = {
    Which.MINE: tuple(JobState),
    Which.ALL: tuple(JobState),
    Which.RUNNING: UNFINISHED,
    Which.FAILED: MISSED,
    Which.MINE_RUNNING: UNFINISHED,
    Which.MINE_FAILED: MISSED,
}


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list of jobs, newest first, and whether there are older ones."""

    jobs: Sequence[Job]
    more: bool
    last: str | None = None
    """The place where the page ends, and the next one begins. It names no job that was not shown.

    It is a place among all jobs, so jobs that leave or enter the list meanwhile do not move it.
    """
    doubtful: bool = False
    """Whether jobs were left out because chat does not tell now whether the person may see them."""


def _place(job: Job, *, seen: bool) -> str:
    """The place after that job: its id, or where the person may not see the job the moment at which it was accepted."""
    return job.id if seen else f"@{(job.accepted_at - EPOCH) // MICROSECOND:x}"


def _read_place(text: str | None) -> str | datetime | None:
    """The job or the moment of a place; None: the newest job."""
    if text and text.startswith("@"):
        try:
            return EPOCH + int(text[1:], 16) * MICROSECOND
        except (ValueError, OverflowError):
            return None
    return text or None


class Queries:
    """Reads jobs. Every method raises Unavailable where the database does not answer."""

    def __init__(self, *, database: Database, access: Access, mails: bool = True) -> None:
        """`mails` says whether NOMADS sends mail at all."""
        self.mails = mails
        self._database = database
        self._access = access

    def seen(self, job_id: str, *, actor: str, within: float = PATIENCE) -> Job:
        """The job of that id, for this person. Raises UnknownJob, and of that InDoubt, where they may not see it.

        Chat has `within` seconds.
        """
        job = self.find(job_id)
        (sees,) = self._access.judged(actor, [job], within=within)
        if sees:
            return job
        raise InDoubt if sees is None else UnknownJob

    def find(self, job_id: str) -> Job:
        """The job of that id, for the application itself and for nobody's eyes. Raises UnknownJob."""
        with self._database.read() as transaction:
            return transaction.jobs.get(job_id)

    def named(self, name: str, *, actor: str) -> Job:
        """The job whose id this person typed, in letters of any case. Raises UnknownJob, which suggests similar ids."""
        until = time.monotonic() + PATIENCE
        wanted = name.strip().strip("`").casefold()
        near: list[str] = []
        if re.fullmatch(r"[0-9a-z]{1,16}", wanted):
            try:
                return self.seen(wanted, actor=actor)
            except UnknownJob:
                near = self._near(wanted, actor, until=until)
        shown = words.shortened(words.printable(name.strip()), SHOWN_NAME)
        hint = f"did you mean {' or '.join(near)}?" if near else "a job's id stands on its card and in lists."
        raise UnknownJob(f"There is no job “{shown}”; {hint}")

    def _near(self, wanted: str, actor: str, *, until: float) -> list[str]:
        beginning = wanted if len(wanted) >= BEGINNING else ""
        with self._database.read() as transaction:
            alike = transaction.jobs.near(misspelt(wanted), beginning=beginning, most=ALIKE)
        others = [job for job in alike if job.id != wanted]  # chat may have answered just now
        return [job.id for job in self._seen(others, actor, within=_left(until))][:NEAR]

    def _seen(self, jobs: Sequence[Job], actor: str, *, within: float = PATIENCE) -> list[Job]:
        return [job for job, sees in zip(jobs, self._access.judged(actor, jobs, within=within), strict=True) if sees]

    def typed(self, job_id: str, *, actor: str) -> dict[str, Any]:
        """The job's request as a person types it (`JobRequest.typed`), to be edited by this person. Raises UnknownJob.

        Neither somebody else's mail address nor a channel that the person is not in is part of it.
        """
        until = time.monotonic() + PATIENCE
        job = self.seen(job_id, actor=actor)
        values = dict(job.request.typed)
        if not job.mail_for(actor):
            values.pop("email", None)
        if job.request.channel and not self._access.is_in(actor, job.request.channel, within=_left(until)):
            values.pop("channel", None)
        return values

    def page(self, which: Which, *, actor: str, before: str | None = None, most: int = PAGE) -> Page:
        """At most `most` jobs, newest first; with `before`, those after the `last` of another page, or of that job.

        Jobs that the person may not see are left out. A page has fewer jobs, though there are more, only where very
        many are left out.
        """
        place = _read_place(before)
        if which in _MINE:
            page = self.page_of(_SHOWN[which], actor=actor, before=place, most=most)
            return replace(page, last=page.jobs[-1].id if page.jobs else before)
        until = time.monotonic() + PATIENCE
        found: list[Job] = []
        doubtful = False
        for read in range(READS):
            page = self.page_of(_SHOWN[which], before=place, most=CHUNK if read else most + 1)
            sights = self._access.judged(actor, page.jobs, within=_left(until))
            doubtful |= None in sights
            for job, sees in zip(page.jobs, sights, strict=True):
                if sees and len(found) == most:
                    return Page(found, more=True, last=found[-1].id, doubtful=doubtful)
                found += [job] if sees else []
            if not page.more:
                return Page(found, more=False, doubtful=doubtful)
            place = page.jobs[-1].id
        return Page(found, more=True, last=_place(page.jobs[-1], seen=bool(sights[-1])), doubtful=doubtful)

    def page_of(
        self,
        states: Collection[JobState],
        *,
        actor: str | None = None,
        before: str | datetime | None = None,
        most: int,
    ) -> Page:
        """At most `most` jobs in these states, of `actor` only where named; nothing is left out.

        With `before`, only jobs that were accepted before that job, or up to that moment.
        """
        with self._database.read() as transaction:
            return _page(transaction, states, actor=actor, before=before, most=most)

    def home(self, person: str) -> Home:
        """What the app's home tab shows this person, as of now."""
        with self._database.read() as transaction:
            known = transaction.people.get(person)
            running = _page(transaction, UNFINISHED, actor=person, most=HOME_RUNNING).jobs
            recent = transaction.jobs.page(FINAL, actor=person, most=HOME_RECENT)
            number = transaction.jobs.number_of(UNFINISHED, actor=person)
            outbox, asks = transaction.outbox, self._access.commands(person)
            given_up = outbox.given_up(most=HOME_GIVEN_UP) if asks else []
            given_up_in_all = outbox.number_given_up() if asks else 0
        shown = {job.id for job in running}  # a job may end between the queries
        return Home(
            running=running,
            running_in_all=max(len(running), number),
            recent=[job for job in recent if job.id not in shown],
            saved=known.saved_token,
            preferences=known.preferences,
            mails=self.mails,
            given_up=given_up,
            given_up_in_all=given_up_in_all,
        )

    def given_up(self, *, most: int) -> tuple[int, list[GivenUp]]:
        """How many effects were given up, and the newest of them; for an admin's eyes."""
        with self._database.read() as transaction:
            return transaction.outbox.number_given_up(), transaction.outbox.given_up(most=most)

    def attempts(self, job: Job, *, actor: str) -> list[Job]:
        """The attempts that this job is one of, oldest first; at most ATTEMPTS up to the job, 2 * ATTEMPTS in all."""
        chain = [job]
        with self._database.read() as transaction:
            while (before := chain[0].retry_of) and len(chain) < ATTEMPTS:
                chain.insert(0, transaction.jobs.get(before))
            while (after := chain[-1].retried_as) and len(chain) < 2 * ATTEMPTS:
                chain.append(transaction.jobs.get(after))
        return self._seen(chain, actor)

    def transitions(self, job_id: str) -> list[Transition]:
        """The states that the job has entered, oldest first."""
        with self._database.read() as transaction:
            return transaction.story.of(job_id)

    def card_of(self, job_id: str) -> str | None:
        """The timestamp of the job's card; None until the card is posted."""
        with self._database.read() as transaction:
            return transaction.messages.timestamp(job_id, "card")


def _left(until: float) -> float:
    """Seconds until that moment; 0 where it has passed."""
    return max(0.0, until - time.monotonic())


def _page(
    transaction: Transaction,
    states: Collection[JobState],
    *,
    actor: str | None = None,
    before: str | datetime | None = None,
    most: int,
) -> Page:
    found = transaction.jobs.page(states, actor=actor, before=before, most=most + 1)
    return Page(jobs=found[:most], more=len(found) > most)
