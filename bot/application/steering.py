"""Cancel and retry: who may do it, and what it does in which state of the job."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import SecretStr

from bot.application.access import PATIENCE, Access
from bot.application.addresses import Addresses
from bot.application.ledger import Ledger
from bot.application.people import People
from bot.application.ports import Workspace
from bot.application.queries import Queries
from bot.application.submission import ANOTHER_RUNS, LEAST_SECONDS, Submission
from bot.domain import words
from bot.domain.blocks import ASKED, PILOT
from bot.domain.errors import NomadsError, NotYours, TooLate
from bot.domain.job import AlreadyRunning, Job
from bot.domain.outbox import Kind
from bot.domain.people import TERMINAL
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation
from contract.program import FIRST

RETRIED = "Job {} was tried again already, by somebody else; “Edit and rerun” runs it again as yours."


@dataclass(frozen=True, kw_only=True)
class Retried:
    """The outcome of a retry."""

    job: Job
    """The new attempt."""
    before: Job
    """The job that is tried again."""
    already: bool
    """Whether an earlier call had made the new attempt."""


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What a person has to type for a retry (a token, a mail address), since it is not known, or has to agree to."""

    job: Job
    token: bool
    email: bool
    doubt: str = ""
    """Why the retry would fail again with nothing changed, and what to do; empty: nothing has to be agreed to."""


LEAVE = {FIRST: " without a pilot", PILOT: " after the pilot", ASKED: ""}
"""When a job in blocks goes on whose present stage is that."""


class Steering:
    """Cancels and retries jobs for people who may do so."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        queries: Queries,
        submission: Submission,
        people: People,
        workspace: Workspace,
        addresses: Addresses,
        access: Access,
    ) -> None:
        self._ledger = ledger
        self._queries = queries
        self._submission = submission
        self._people = people
        self._workspace = workspace
        self._addresses = addresses
        self._access = access

    def may_steer(self, job: Job, actor: str) -> bool:
        """Whether this person may cancel and retry the job: its owner, an admin, or whoever has a terminal here."""
        return actor == job.actor or self._access.commands(actor)

    def cancel(self, job_id: str, *, actor: str) -> Job:
        """Cancel the job, whatever its state; asking twice is asking once. Returns the job after that.

        Raises UnknownJob, NotYours, Unavailable, and TooLate where the job has ended already.
        """
        self._only_for(self._queries.seen(job_id, actor=actor), actor, "cancel")
        with self._ledger.change(job_id) as change:
            job = change.job
            if job.state in FINAL:
                raise TooLate(f"Job {job.id} has ended already: {words.state(job.state)}. Nothing was cancelled.")
            if job.cancelled_by is None:
                change.set(cancelled_by=actor, cancelled_at=change.at)
                waiting = Kind.SUBMIT if job.checked else Kind.CHECK
                unclaimed = job.state is JobState.ACCEPTED and change.transaction.outbox.drop(job.id, waiting)
                if job.asked or unclaimed:  # neither compute nor an effect has it
                    change.follow(Observation(JobState.CANCELLED))
                else:
                    change.enqueue(Kind.CANCEL)
                    change.show()
        return self._queries.find(job_id)

    def go(self, job_id: str, *, actor: str) -> Job:
        """Let a job in blocks go on after its pilot, or without waiting for anybody; asking twice is asking once.

        Returns the job after that. Raises UnknownJob, NotYours, Unavailable, and TooLate where there is nothing to say.
        """
        self._only_for(self._queries.seen(job_id, actor=actor), actor, "say go for")
        with self._ledger.change(job_id) as change:
            job = change.job
            if job.blocks is None or job.ended or job.cancelled_by:
                raise TooLate(f"Job {job.id} waits for nobody's leave.")
            after = job.blocks.go()
            if job.pilots:
                change.set(blocks=after.model_dump(mode="json"))
                if job.asked:
                    change.enqueue(Kind.SUBMIT, after.label)
                change.note(f"It goes on{LEAVE[job.blocks.stage]}, said {actor}.")
                change.show()
        return self._queries.find(job_id)

    def retryable(self, job_id: str, *, actor: str) -> Job:
        """The job, if this person may retry it; somebody may have done so. Raises UnknownJob, NotYours or TooLate."""
        job = self._queries.seen(job_id, actor=actor)
        self._only_for(job, actor, "retry")
        if job.state not in FINAL:
            raise TooLate(f"Job {job.id} has not ended: {words.state(job.state)}. Cancel it first, or wait.")
        if job.state is JobState.SUCCEEDED and not job.incomplete:
            raise TooLate(f"Job {job.id} has succeeded; “Edit and rerun” runs it again.")
        return job

    def retry(
        self,
        job_id: str,
        *,
        actor: str,
        token: SecretStr | None = None,
        email: str = "",
        anyway: bool = False,
        within: float = 0,
    ) -> Retried | Needed:
        """Retry a job that ended without success, or without some blocks, on which the new job works alone.

        All calls for one job make one new job, whoever asks.

        The new job is the actor's: it uses the typed token, else the actor's saved one, and the typed address, else the
        actor's own. Returns Needed where either is missing, and, unless `anyway`, where the job would fail again with
        nothing changed: somebody may have mended the cause since, which nobody but the actor can know. BOSS is asked
        about a typed token for `within` seconds at most; a token that BOSS refuses spends no retry. Raises UnknownJob,
        NotYours, TooLate, AlreadyRunning, InvalidRequest, Unavailable, and NomadsError where the job's channel cannot
        be posted to, or the actor is not in it, or another job that the actor may not see does the same.
        """
        until, typed = time.monotonic() + within, bool(token)
        job = self.retryable(job_id, actor=actor)
        if job.retried_as:
            return self._retried(job, self._queries.find(job.retried_as), actor=actor, already=True)
        if job.request.channel:
            said = self._access.posting(actor, job.request.channel, again=True)(PATIENCE)
            if said.trouble:
                raise NomadsError(f"{said.trouble} “Edit and rerun” lets you choose the channel.")
        token = self._people.token_for(actor, token)
        if not email and not self._addresses.trouble(known := self._mail_for(job, actor)):
            email = known  # an address without mail is asked for anew
        addressed = bool(email) or not self._addresses.on
        doubt = "" if anyway else job.doubt
        if token is None or not addressed or doubt:
            return Needed(job=job, token=token is None, email=not addressed, doubt=doubt)
        left = max(LEAST_SECONDS, until - time.monotonic()) if typed and within else 0
        try:
            again = self._submission.accept_retry(job, actor=actor, token=token, email=email, within=left)
        except AlreadyRunning as found:
            if self._access.may_see(actor, found.job):
                raise
            raise NomadsError(ANOTHER_RUNS) from None
        return self._retried(job, again, actor=actor, already=False)

    def _retried(self, job: Job, again: Job, *, actor: str, already: bool) -> Retried:
        """The outcome, where the actor may see the new attempt; raises TooLate where they may not: it is another's."""
        if not self._access.may_see(actor, again):
            raise TooLate(RETRIED.format(job.id))
        return Retried(job=again, before=job, already=already)

    def _mail_for(self, job: Job, actor: str) -> str:
        own = actor == job.actor or actor.startswith(TERMINAL)
        return job.request.email if own else (self._workspace.mail_of(actor) or "")

    def _only_for(self, job: Job, actor: str, verb: str) -> None:
        if not self.may_steer(job, actor):
            raise NotYours(f"Only whoever asked for job {job.id}, or an admin of NOMADS, may {verb} it.")
