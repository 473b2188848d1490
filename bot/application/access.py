"""Who may see what of a job, and who may have a job told where: what Slack says of people and channels decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bot.application.ports import Workspace
from bot.domain import words
from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Job
from bot.domain.links import Audience, Reader
from bot.domain.people import NO_SUCH_CHANNEL, TERMINAL, Privacy, Standing

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 1.5
"""Seconds that chat is given to say whether a person may see a job: Slack waits three for an answer."""
AT_ONCE = 16
"""Questions to chat at once."""
UNTOLD = "Slack does not tell now whether whoever asked for the job may have it told in its channel."
DIRECT = "D"
"""First letter of a direct message's id."""


@dataclass(frozen=True)
class Posting:
    """Whether a person may have a job told in a channel."""

    trouble: str = ""
    """Why not, in words for that person; empty: nothing is known against it."""
    confirmed: bool = False
    """Whether chat has said that the person may; if neither, chat has to be asked again before anything is posted."""


class Access:
    """Decides what a person may see of a job, by the channel that hears of its results.

    The job's owner, admins, and whoever has a terminal here see all of it. Others see a job of a private channel if
    they are in that channel, and one of a public channel if they are full members of the workspace. Nobody else sees a
    job of a direct message, or of no channel. Where chat does not tell, nothing is shown.
    """

    def __init__(self, *, workspace: Workspace, admins: Sequence[str] = (), pool: Executor | None = None) -> None:
        """`pool` asks chat; None: AT_ONCE threads."""
        self._workspace = workspace
        self._admins = frozenset(admins)
        self._pool = pool or ThreadPoolExecutor(AT_ONCE, thread_name_prefix="access")

    def close(self) -> None:
        """Ask nothing more. A question that was asked ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def commands(self, person: str) -> bool:
        """Whether every job is this person's to see and to steer: an admin's, and whoever's at a terminal here."""
        return person in self._admins or person.startswith(TERMINAL)

    # Seeing

    def may_see(self, person: str, job: Job) -> bool:
        """Whether the person may see the job; False also where chat does not tell within PATIENCE."""
        return self.judged(person, [job])[0] is True

    def judged(self, person: str, jobs: Sequence[Job], *, within: float = PATIENCE) -> list[bool | None]:
        """For each of the jobs, whether the person may see it; None where chat does not tell within `within` seconds.

        Each channel is asked about once, all at the same time.
        """
        if self.commands(person):
            return [True] * len(jobs)
        until = time.monotonic() + within
        channels = {job.request.channel for job in jobs if job.actor != person}
        asked = {
            channel: self._begin(partial(self._follows, person, channel))
            for channel in channels
            if channel and not channel.startswith(DIRECT)
        }
        wait(asked.values(), timeout=max(0, until - time.monotonic()))
        said = {channel: answer.result() if answer.done() else None for channel, answer in asked.items()}
        return [job.actor == person or said.get(job.request.channel or "", False) for job in jobs]

    def _follows(self, person: str, channel: str) -> bool | None:
        """Whether the person may see what is told in the channel; None where chat does not tell."""
        match self._workspace.privacy_of(channel):
            case Privacy.PUBLIC:
                standing = self._workspace.standing_of(person)
                return None if standing is None else standing is Standing.MEMBER
            case Privacy.PRIVATE:
                return self._is_in(person, channel)
            case Privacy.DIRECT:
                return False
            case None:
                return None

    def tells(self, audience: Audience, job: Job) -> bool:
        """Whether whoever the audience is may hear of the job; a mail's reader hears of its own job alone.

        False also where chat does not tell within PATIENCE.
        """
        if audience.reader is Reader.PERSON:
            return self.may_see(audience.name, job)
        return audience.reader is Reader.CHANNEL and job.request.channel == audience.name

    # Posting

    def is_in(self, person: str, channel: str, *, within: float = PATIENCE) -> bool:
        """Whether the person is in the channel; False also where chat does not tell within `within` seconds.

        Whoever has a terminal is in all of them.
        """
        if person.startswith(TERMINAL):
            return True
        answer = self._begin(lambda: self._is_in(person, channel))
        wait([answer], timeout=within)
        return answer.done() and answer.result() is True

    def posting(self, person: str, channel: str, *, again: bool = False) -> Callable[[float], Posting]:
        """Begin to ask whether the person may have a job told in the channel, and NOMADS may post there.

        Returns what waits for the answer, for that many seconds at most. In private channels, and for guests and
        strangers in all, a person has to be in the channel. `again`: the job is tried again, which admins may do
        wherever it was told.
        """
        asked = self._begin(lambda: self._posting(person, channel, again))

        def answer(seconds: float) -> Posting:
            wait([asked], timeout=max(0, seconds))
            return (asked.result() if asked.done() else None) or Posting()

        return answer

    def insist(self, job: Job) -> None:
        """Ask whether the job's owner may have it told in its channel; nobody waits for the answer.

        Raises Unavailable where chat does not tell, and Refused where the owner may not.
        """
        if job.request.channel is None:
            return
        may = self._may_post(job.actor, job.request.channel, again=job.retry_of is not None)
        if may is None:
            raise Unavailable(UNTOLD)
        if not may:
            raise Refused(NO_SUCH_CHANNEL)

    def _posting(self, person: str, channel: str, again: bool) -> Posting:
        may = self._may_post(person, channel, again=again)
        if not may:  # first, since not even that a channel is archived is told to whoever is not in it
            return Posting(NO_SUCH_CHANNEL if may is False else "")
        return Posting(self._workspace.trouble_with(channel), confirmed=True)

    def _may_post(self, person: str, channel: str, *, again: bool) -> bool | None:
        if person.startswith(TERMINAL) or (again and person in self._admins):
            return True
        if channel.startswith(DIRECT):
            return False  # the form offers none
        privacy = self._workspace.privacy_of(channel)
        if privacy is None or privacy is Privacy.DIRECT:
            return None if privacy is None else False
        standing = self._workspace.standing_of(person) if privacy is Privacy.PUBLIC else Standing.GUEST
        if standing is Standing.MEMBER:
            return True
        inside = self._is_in(person, channel, anew=True)
        return inside or (None if standing is None else inside)

    def _is_in(self, person: str, channel: str, *, anew: bool = False) -> bool | None:
        channels = self._workspace.channels_of(person, wanted=channel if anew else "")
        return None if channels is None else channel in channels

    def _begin(self, ask: Callable[[], T | None]) -> Future[T | None]:
        """Ask in another thread. An unforeseen error is logged, and is no answer."""

        def attempt() -> T | None:
            try:
                return ask()
            except Exception as error:
                log.error("Slack could not be asked: %s", words.where(error))
                return None

        return self._pool.submit(attempt)
