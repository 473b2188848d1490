"""The steps of a submitted form: reviewed, asked about, decided, accepted. Each step uses what the last one read.

An acceptance is one committed transaction and waits for the database only: no answer to a person waits for AWS or a
mail server, or longer for BOSS than the caller says.
"""

from __future__ import annotations

import hashlib
import secrets as entropy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from bot.application.access import Access, Posting
from bot.application.addresses import Addresses
from bot.application.forecast import Forecast
from bot.application.ledger import JobChange, Ledger
from bot.application.people import People
from bot.application.review import Answered, Reviewed, Reviewer
from bot.application.tokens import TokenKeeper
from bot.domain import words
from bot.domain.blocks import Blocks
from bot.domain.checks import channels_read
from bot.domain.errors import InvalidRequest, Unavailable
from bot.domain.ids import ID_ALPHABET, ID_LENGTH
from bot.domain.job import AlreadyRunning, Expected, Job, Transition
from bot.domain.outbox import Kind, Lane
from bot.domain.states import JobState
from bot.storage.transaction import Transaction

LEAST_SECONDS = 0.2
"""Seconds that BOSS is given at least, however long other questions took."""
UNCHECKED = "BOSS did not answer in time, so the request is checked before it is submitted."
UNCONFIRMED = "Slack did not answer in time, so it is asked about this channel before the job is submitted."
RECHECKED = "BOSS is asked first whether it can work now."
NO_CHANNEL = "Choose the channel that hears of the results."
ANOTHER_RUNS = "A job does the same now; nothing was submitted."


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a person submitted."""

    values: Mapping[str, Any]
    """JobRequest's fields, as typed."""
    token: SecretStr
    """As typed; empty: the saved token is used."""
    remember: bool = False
    """Whether the typed token should be saved."""
    agreed: str = ""
    """Digest of the question that the person agreed to; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A reviewed request that may be accepted, and what a person should know before it is."""

    reviewed: Reviewed
    answered: Answered
    expected: Expected | None
    twin: Job | None = None
    """A job that does the same work now, or has done it, where this person may hear of it."""
    heavy: bool = False
    """Whether the person confirms the run first."""
    confirmed: bool = True
    """Whether the person may have the job told in its channel; if not, chat is asked again before anything is told."""

    @property
    def takes(self) -> str:
        """How large the run is, and what it is expected to take, in words for a person."""
        reviewed = self.reviewed
        return words.takes(reviewed.box.voxels, self.answered.size, self.expected, block=reviewed.block)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a person is asked before a proposal is accepted."""

    proposal: Proposal
    digest: str
    """Identifies the question by the request and the reasons for asking."""

    @property
    def twin_runs(self) -> bool:
        """Whether a job does the same work now; such a question cannot be agreed to."""
        twin = self.proposal.twin
        return twin is not None and not twin.ended


@dataclass(frozen=True)
class Followed:
    """A job whose end the person will be told, though it is somebody else's."""

    job: Job


class Submission:
    """Accepts requests as jobs."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        reviewer: Reviewer,
        forecast: Forecast,
        people: People,
        tokens: TokenKeeper,
        access: Access,
        addresses: Addresses,
    ) -> None:
        self._ledger = ledger
        self._database = ledger.database
        self._reviewer = reviewer
        self._forecast = forecast
        self._people = people
        self._tokens = tokens
        self._access = access
        self._addresses = addresses

    def submit(self, form: Form, *, actor: str, key: str, within: float) -> Job | Question | Followed:
        """Accept a form that was submitted in chat. Returns the job, or the question that has to be answered first.

        Where a job does the same work now, and the person asked to be told of its end, that job is what is Followed.

        A second call with the same `key` returns the same job. BOSS and chat have `within` seconds. Where the person
        wants it, a typed token to which BOSS has shown the experiment is saved before the job is accepted; if saving
        fails, nothing is accepted. Raises InvalidRequest with every mistake, by field, at once, and Unavailable.
        """
        until = time.monotonic() + within
        token = self._people.token_for(actor, form.token) or form.token
        channel = str(form.values.get("channel") or "")
        posting = self._access.posting(actor, channel) if channel else lambda _: Posting(NO_CHANNEL)
        unwanted = self._addresses.trouble(str(form.values.get("email") or "").strip())
        errors = _by_field(unwanted)
        try:
            reviewed = self.review(form.values, token, actor=actor, within=max(LEAST_SECONDS, until - time.monotonic()))
            within = max(LEAST_SECONDS, until - time.monotonic())
            proposal = self.ask(reviewed, actor=actor, within=within)
        except InvalidRequest as error:
            errors |= error.errors
        said = posting(max(LEAST_SECONDS, until - time.monotonic()))  # asked while BOSS was
        if said.trouble:
            errors["channel"] = said.trouble
        if not errors:
            proposal = replace(proposal, confirmed=said.confirmed)
        question = None if errors else self.decide(proposal, agreed=form.agreed)
        if question and question.digest == form.agreed:  # and is asked all the same: a job does the same work now
            return Followed(self._follow(question, actor))
        if errors or question:
            if known := self._taken(key):  # an accepted request stays accepted
                return known
            if question:
                return question
            raise InvalidRequest(errors)
        told = proposal.answered.readable and not proposal.reviewed.request.volume  # by BOSS, which saw the token
        if form.remember and form.token.get_secret_value() and told:
            self._people.save_token(actor, form.token)
        try:
            return self.accept(proposal, actor=actor, key=key)
        except AlreadyRunning as found:  # a job of the same work has begun this moment
            if not self._access.judged(actor, [found.job], within=LEAST_SECONDS)[0]:
                raise InvalidRequest({"pipeline": ANOTHER_RUNS}) from None
            return _question(replace(proposal, twin=found.job))

    def review(self, values: Mapping[str, Any], token: SecretStr, *, actor: str = "", within: float = 0) -> Reviewed:
        """Review what a person typed. Raises InvalidRequest with every mistake, by field.

        Where there are mistakes, BOSS is asked about the other fields, for `within` seconds at most.
        """
        return self._reviewer.review(values, token, actor=actor, within=within)

    def ask(self, reviewed: Reviewed, *, actor: str, within: float) -> Proposal:
        """Ask BOSS about a reviewed request, for `within` seconds at most. Raises InvalidRequest and Unavailable.

        A job that the actor may not see is no twin.
        """
        until = time.monotonic() + within
        errors = _by_field(self._addresses.trouble(reviewed.request.email))
        try:
            answered = self._reviewer.ask(reviewed, within=within)
        except InvalidRequest as error:
            errors |= error.errors
        if errors:
            raise InvalidRequest(errors)
        expected = self._forecast.expected(reviewed.pipeline, reviewed.box, block=reviewed.block)
        with self._database.read() as transaction:  # last: a twin may have begun meanwhile
            twin = transaction.jobs.same_work(self._work(reviewed))
        if twin:
            left = max(LEAST_SECONDS, until - time.monotonic())
            if not self._access.judged(actor, [twin], within=left)[0]:
                twin = None
        return Proposal(
            reviewed=reviewed,
            answered=answered,
            expected=expected,
            twin=twin,
            heavy=reviewed.block is not None or self._forecast.heavy(answered.largest, expected),
        )

    def _follow(self, question: Question, actor: str) -> Job:
        """Let the actor hear of the end of the job that does the same work; its owner does in any case."""
        twin = question.proposal.twin
        assert twin is not None
        if twin.actor != actor:
            with self._ledger.change(twin.id) as change:  # locked, so that the end is told before or after
                if change.job.ended:
                    raise InvalidRequest({"pipeline": f"Job {twin.id} has ended meanwhile; submit the form again."})
                change.transaction.followers.add(twin.id, actor)
        return twin

    def decide(self, proposal: Proposal, *, agreed: str = "") -> Question | None:
        """The question to answer before the proposal is accepted; None: there is none, or the person agreed."""
        if not (proposal.twin or proposal.heavy):
            return None
        question = _question(proposal)
        return question if question.twin_runs or question.digest != agreed else None

    def accept(self, proposal: Proposal, *, actor: str, key: str, again: bool = False) -> Job:
        """Accept the proposal: on return, the job is in the database with its first effects.

        A second call with the same key changes nothing and returns the same job. A proposal that BOSS or chat did not
        answer in full is checked before it is submitted. Raises AlreadyRunning where a job does the same work now
        (unless `again`), and Unavailable, with nothing accepted, where the database cannot be written.
        """
        return self._take(proposal, actor=actor, key=key, again=again)

    def accept_retry(self, job: Job, *, actor: str, token: SecretStr, email: str, within: float = 0) -> Job:
        """Accept a new attempt at a job that ended without success; BOSS is asked before the attempt is submitted.

        With `within`, BOSS is asked for so many seconds before the attempt is accepted as well, so that a token that
        BOSS refuses spends no retry. All calls for one job return one new job.

        Raises InvalidRequest, AlreadyRunning and Unavailable.
        """
        key = f"retry:{job.id}"
        try:
            reviewed = self.review({**job.request.typed, "email": email}, token, actor=actor, within=within)
            if errors := _by_field(self._addresses.trouble(email)):
                raise InvalidRequest(errors)
            if within:
                self._reviewer.ask(reviewed, within=within)
        except InvalidRequest:
            if known := self._taken(key):
                return known
            raise
        size = channels_read(reviewed.pipeline, reviewed.request.options) * reviewed.box.voxels
        proposal = Proposal(
            reviewed=reviewed,
            answered=Answered(readable=False, checked=False, size=size, largest=size),
            expected=self._forecast.expected(reviewed.pipeline, reviewed.box, block=reviewed.block),
        )
        return self._take(proposal, actor=actor, key=key, again=False, retry_of=job)

    def _take(self, proposal: Proposal, *, actor: str, key: str, again: bool, retry_of: Job | None = None) -> Job:
        work = self._work(proposal.reviewed)
        wishes = self._people.preferences(actor)
        told = wishes.tells(JobState.ACCEPTED)
        own = retry_of is None or retry_of.actor == actor  # somebody else's channel and address fill nobody's next form
        home = self._people.looks_at_home(actor)  # as cached: a submission should not wait for one more query

        lanes: set[Lane] = set()

        def take(transaction: Transaction) -> Job | None:
            transaction.advisory_lock(work)
            twin = None if again else transaction.jobs.same_work(work)
            if twin and not twin.ended and twin.key != key:
                raise AlreadyRunning(twin)
            token_ref = self._tokens.seal(transaction, actor, proposal.reviewed.token)
            job = self._job(proposal, actor=actor, key=key, work=work, token_ref=token_ref, retry_of=retry_of)
            if not transaction.jobs.add(job):
                self._tokens.erase(transaction, token_ref)
                return None
            said = Transition(JobState.ACCEPTED, job.accepted_at, _accepted(job, proposal), 1 if told else None)
            transaction.story.enter(job.id, said)
            effects = _first_effects(job, told=told, mail=wishes.mail and bool(job.request.email), home=home)
            transaction.outbox.enqueue_new(job.id, effects, at=job.accepted_at)
            lanes.update(kind.lane for kind, _ in effects)
            if own:
                transaction.people.change(actor, last_request=job.request.model_dump(mode="json"))
            if retry_of:
                before = JobChange(transaction, retry_of, at=job.accepted_at)
                before.set(retried_as=job.id)
                before.show()
                lanes.update(before.lanes)
            return job

        job = self._database.write(take) or self._by_key(key)
        assert job  # the key is taken, and jobs are never deleted
        if own:
            self._people.asked(actor, job.request)
        self._ledger.committed(lanes)
        return job

    def _job(self, proposal: Proposal, *, actor: str, key: str, work: str, token_ref: str, retry_of: Job | None) -> Job:
        checked = proposal.answered.checked
        return Job(
            id="".join(entropy.choice(ID_ALPHABET) for _ in range(ID_LENGTH)),
            key=key,
            request=proposal.reviewed.request,
            actor=actor,
            state=JobState.ACCEPTED,
            token_ref=token_ref,
            work=work,
            checked=checked and proposal.confirmed,
            size=proposal.answered.size if checked else None,
            expected=proposal.expected,
            blocks=_blocks(proposal, retry_of),
            attempt=retry_of.attempt + 1 if retry_of else 1,
            retry_of=retry_of.id if retry_of else None,
            accepted_at=self._ledger.clock(),
        )

    def _taken(self, key: str) -> Job | None:
        """The job that was accepted under that key, where the database answers."""
        try:
            return self._by_key(key)
        except Unavailable:
            return None

    def _by_key(self, key: str) -> Job | None:
        with self._database.read() as transaction:
            return transaction.jobs.by_key(key)

    def _work(self, reviewed: Reviewed) -> str:
        """A digest of the work: requests with equal digests do the same."""
        said = f"{reviewed.request.results_key}\n{reviewed.pipeline.release}\n{self._reviewer.predictions}"
        return hashlib.sha256(said.encode()).hexdigest()


def _by_field(unwanted: str) -> dict[str, str]:
    """What is wrong with a mail address, as an error of its field."""
    return {"email": unwanted} if unwanted else {}


def _question(proposal: Proposal) -> Question:
    twin = proposal.twin  # who asked to be told of its end did not ask to run it again, if it has ended meanwhile
    same = twin and (twin.id, twin.ended)
    said = f"{proposal.reviewed.request.model_dump_json()}\n{same}\n{proposal.heavy}"
    return Question(proposal=proposal, digest=hashlib.sha256(said.encode()).hexdigest()[:16])


def _blocks(proposal: Proposal, retry_of: Job | None) -> Blocks | None:
    """How the job goes in blocks, if it does; where chat hears of it, a pilot is shown first."""
    if not proposal.reviewed.block:
        return None
    return retry_of.again if retry_of else Blocks(wanted=proposal.reviewed.request.channel is not None)


def _first_effects(job: Job, *, told: bool, mail: bool, home: bool) -> list[tuple[Kind, str]]:
    effects = [(Kind.SUBMIT, job.stage) if job.checked else (Kind.CHECK, "")]
    if job.request.channel:
        effects += [(Kind.CARD, ""), *([(Kind.REPLY, "1")] if told else [])]
    if mail:
        effects.append((Kind.MAIL_ACCEPTED, ""))
    if home:
        effects.append((Kind.HOME, ""))
    return effects


def _accepted(job: Job, proposal: Proposal) -> str:
    if job.retry_of:
        return f"Accepted as job {job.id}: attempt {job.attempt}, after job {job.retry_of}. {RECHECKED}"
    unchecked = [] if proposal.answered.checked else [UNCHECKED]
    unchecked += [] if proposal.confirmed else [UNCONFIRMED]
    return " ".join([f"Accepted as job {job.id}.", *unchecked, *proposal.answered.warnings])
