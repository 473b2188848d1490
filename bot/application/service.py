"""The rules. What may be asked for, what a job becomes when, and which effects that calls for.

Every method commits before it returns, and calls nobody but the store and the vault: no answer to a person
waits for AWS, BOSS or a mail server. `bot.worker` carries the effects out.
"""

from __future__ import annotations

import hashlib
import re
import secrets as entropy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from bot.application.people import People, may_be_open, saved_token
from bot.application.ports import Compute, Secrets, Volumes
from bot.domain import checks, words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import AlreadyRunning, InvalidRequest, NotYours, Refused, TooLate, Unavailable, UnknownJob
from bot.domain.job import Expected, Job, Transition, now
from bot.domain.messages import Home
from bot.domain.outbox import Effect, Kind
from bot.domain.people import TERMINAL, Preferences
from bot.domain.request import JobRequest
from bot.domain.results import Summary
from bot.domain.states import FINAL, MISSED, UNFINISHED, JobState
from bot.domain.volume import Experiment, VolumesRefused
from bot.domain.work import CANCELLED, Observation, Progress
from bot.storage.store import JobStore, Transaction

TOGETHER = timedelta(seconds=2)
"""Steps that follow one another within this time are told in one reply."""
LOG_LINES = 20
"""How many of the last log lines are shown when a job fails."""
RUNS = 100
"""How many of a pipeline's last runs tell what the next one will take."""
RUNS_KEPT = timedelta(seconds=30)
"""For so long runs that another process has finished may be unknown to this one."""
UNCHECKED = "BOSS did not answer in time, so the request is checked before it is submitted."
NOT_CANCELLED = "It could not be cancelled:"
RECHECKED = "BOSS is asked first whether it can work now."
NO_CAUSE = "Compute gives no cause; other jobs may be before it. If it takes too long, ask whoever runs NOMADS to look."
HOME_RUNNING, HOME_RECENT = 10, 10
"""Jobs that the home tab shows."""
PAGE = 10
"""Jobs on a page of a list."""
ATTEMPTS = 20
"""Attempts that are looked up in either direction."""
ID_LENGTH = 8
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing that reads as something else


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
    """Some of a list of jobs, and whether there are older ones."""

    jobs: Sequence[Job]
    more: bool


@dataclass(frozen=True, slots=True)
class Confirm:
    """What is confirmed before it is submitted: runs above one of these; 0: none for that reason."""

    bytes: int = 0
    seconds: float = 0
    cost: float = 0


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A request that may be accepted, and what a person should know before it is."""

    request: JobRequest
    checked: bool
    """Whether BOSS could be asked about all of it in time; else it is checked before it is submitted."""
    readable: bool
    """Whether BOSS has shown the experiment to this person's token."""
    size: int
    """Bytes the program reads; where data types are unknown, one a voxel and channel."""
    expected: Expected | None
    warnings: Sequence[str] = ()
    twin: Job | None = None
    """A job that does the same work now, or has done it."""
    heavy: bool = False
    """Whether it should be confirmed first."""


class JobService:
    """Accepts, observes, cancels, retries and finds jobs. `people` is what is kept of those who ask."""

    def __init__(
        self,
        *,
        store: JobStore,
        catalog: Catalog,
        compute: Compute,
        vault: Secrets,
        volumes: Volumes,
        max_bytes: int,
        predictions: str = "",
        prices: checks.Prices | None = None,
        confirm: Confirm | None = None,
        admins: Sequence[str] = (),
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`vault` keeps a token from acceptance on, without leaving this machine and its database.

        `admins` may cancel and retry anybody's jobs. `predictions` is where in BOSS programs write their detections to
        (`collection/experiment`); empty: nowhere.
        """
        self._store = store
        self._catalog = catalog
        self._compute = compute
        self._vault = vault
        self._volumes = volumes
        self._max_bytes = max_bytes
        self._predictions = predictions
        self._prices = prices or checks.Prices()
        self._confirm = confirm or Confirm()
        self._admins = frozenset(admins)
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self.people = People(store=store, vault=vault, clock=clock)
        self._runs: dict[str, tuple[datetime, list[tuple[int, float]]]] = {}

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call it after every commit that called for effects."""
        self._listeners.append(listener)

    def _committed(self) -> None:
        for listener in self._listeners:
            listener()

    # Accepting

    def first_choice(self) -> str:
        """The name of the pipeline that can run here on most volumes: the one that needs the fewest channels, or ""."""
        able = [p for p in self._catalog if not self._compute.refuses(image=p.image, command=p.command)]
        return min(able, key=lambda pipeline: pipeline.channels).name if able else ""

    def review(self, values: Mapping[str, Any], token: SecretStr) -> JobRequest:
        """The request in what a person typed. Raises InvalidRequest with every mistake, by field, at once.

        `values` has JobRequest's fields. Nobody else is asked: this takes well under a millisecond.
        """
        errors: dict[str, str] = {}
        try:
            request = JobRequest.parse(values)
            pipeline_name = request.pipeline
        except InvalidRequest as error:
            errors, request, pipeline_name = error.errors, None, str(values.get("pipeline") or "").strip()
        if problem := checks.token_problem(token.get_secret_value()):
            errors["token"] = problem
        pipeline = self._catalog.get(pipeline_name)
        if "pipeline" not in errors:
            if pipeline is None:
                errors["pipeline"] = f"There is no pipeline of that name; there is {self._names()}."
            elif problem := self._compute.refuses(image=pipeline.image, command=pipeline.command):
                errors["pipeline"] = problem
        if pipeline and (box := checks.box_of(values)):
            errors |= checks.too_large(pipeline, box, per_voxel=pipeline.channels, max_bytes=self._max_bytes)
        if errors or request is None:
            raise InvalidRequest(errors)
        return request

    def propose(
        self, values: Mapping[str, Any], token: SecretStr, *, actor: str, within: float, key: str = ""
    ) -> Proposal:
        """As `review`, and BOSS is asked as well, for `within` seconds at most. Raises InvalidRequest.

        A job that was accepted under that key is no twin: it is this request.

        What BOSS does not tell in time stays unchecked. Where it does not take the request to be the actor's to read,
        nothing is said of other people's results.
        """
        until = time.monotonic() + within
        request = self.review(values, token)
        pipeline = self._pipeline(request)
        experiment, errors = self._look(request, token, within=until - time.monotonic())
        if experiment:
            errors |= checks.against(request, pipeline, experiment, max_bytes=self._max_bytes)
        if errors:
            raise InvalidRequest(errors)
        per_voxel, known = checks.bytes_per_voxel(pipeline, experiment)
        size = per_voxel * request.box.voxels
        expected = self._expected(pipeline, request)
        warnings = self._warnings(token, within=until - time.monotonic()) if experiment else ()
        twin = self._store.same_work(self._work(pipeline, request))  # last: it may have begun meanwhile
        return Proposal(
            request=request,
            checked=experiment is not None and known,
            readable=experiment is not None,
            size=size,
            expected=expected,
            warnings=warnings,
            twin=twin if twin and twin.key != key and (experiment or twin.actor == actor) else None,
            heavy=self._heavy(size if known else checks.WIDEST * pipeline.channels * request.box.voxels, expected),
        )

    def _look(
        self, request: JobRequest, token: SecretStr, *, within: float
    ) -> tuple[Experiment | None, dict[str, str]]:
        """What BOSS says of the experiment, or why it shows none, by field; neither where it does not answer."""
        try:
            return self._volumes.describe(request.collection, request.experiment, token=token, within=within), {}
        except VolumesRefused as refusal:
            return None, {refusal.field: str(refusal)}
        except Unavailable:
            return None, {}

    def _warnings(self, token: SecretStr, *, within: float) -> list[str]:
        collection, _, experiment = self._predictions.partition("/")
        try:
            if collection and self._volumes.may_write(collection, experiment, token=token, within=within) is False:
                return [
                    f"This token may not write to {self._predictions} in BOSS: detections will not be written back."
                ]
        except VolumesRefused:
            pass  # it was good a moment ago; the program will say so
        return []

    def _heavy(self, size: int, expected: Expected | None) -> bool:
        seconds, cost = (expected.seconds, expected.cost or 0) if expected else (0, 0)
        values = ((size, self._confirm.bytes), (seconds, self._confirm.seconds), (cost, self._confirm.cost))
        return any(limit and value > limit for value, limit in values)

    def _expected(self, pipeline: Pipeline, request: JobRequest) -> Expected | None:
        known, runs = self._runs.get(pipeline.name, (None, []))
        if known is None or self._clock() - known > RUNS_KEPT:
            runs = self._store.runs(pipeline.name, most=RUNS)
            self._runs[pipeline.name] = self._clock(), runs
        return checks.expected(pipeline, request.box, runs, self._prices)

    def _work(self, pipeline: Pipeline, request: JobRequest) -> str:
        said = "\n".join([request.results_key, pipeline.release, self._predictions])
        return hashlib.sha256(said.encode()).hexdigest()

    def _pipeline(self, request: JobRequest) -> Pipeline:
        pipeline = self._catalog.get(request.pipeline)
        assert pipeline  # review() has seen it
        return pipeline

    def accept(
        self,
        request: JobRequest,
        *,
        actor: str,
        token: SecretStr,
        key: str,
        proposal: Proposal | None = None,
        again: bool = False,
        retry_of: Job | None = None,
    ) -> Job:
        """Take a reviewed request: when this returns, the job is in the database with its first effects.

        A second call with the same key changes nothing and returns the same job. What is proposed and unchecked, and
        what tries a job again, is checked before it is submitted. Raises AlreadyRunning where a job does the same
        work, unless it is wanted `again`; InvalidRequest; and Unavailable where the database cannot be written
        (nothing is taken then).
        """
        try:
            self.review({name: getattr(request, name) for name in JobRequest.model_fields}, token)
        except InvalidRequest:
            if known := self._store.job_by_key(key):  # what was taken stays taken
                return known
            raise
        at = self._clock()
        pipeline = self._pipeline(request)
        checked = retry_of is None and (proposal is None or proposal.checked)
        wishes = self.people.preferences(actor)
        reply = 1 if wishes.tells(JobState.ACCEPTED) else None
        wanted = [(Kind.SUBMIT if checked else Kind.CHECK, "")]
        if request.channel:
            wanted += [(Kind.CARD, ""), *([(Kind.REPLY, "1")] if reply else [])]
        if wishes.mail:
            wanted.append((Kind.MAIL_ACCEPTED, ""))

        def take(transaction: Transaction) -> Job | None:
            work = self._work(pipeline, request)
            transaction.alone(work)
            if not again and (twin := transaction.same_work(work)) and twin.state not in FINAL and twin.key != key:
                raise AlreadyRunning(twin)
            job = Job(
                id="".join(entropy.choice(_ID_ALPHABET) for _ in range(ID_LENGTH)),
                key=key,
                request=request,
                actor=actor,
                state=JobState.ACCEPTED,
                token_ref=self._vault.put(actor, token),  # a row of the same database, committed together
                work=work,
                checked=checked,
                size=proposal.size if proposal and checked else None,
                expected=proposal.expected if proposal else self._expected(pipeline, request),
                attempt=retry_of.attempt + 1 if retry_of else 1,
                retry_of=retry_of.id if retry_of else None,
                accepted_at=at,
            )
            told = " ".join([_accepted(job), *(() if checked or retry_of else (UNCHECKED,)), *warnings])
            if transaction.add(job, Transition(JobState.ACCEPTED, at, told, reply), wanted):
                transaction.keep_person(actor, last_request=request.model_dump(mode="json"))
                if retry_of:
                    transaction.change(retry_of.id, retried_as=job.id)
                    self._shown(transaction, retry_of)
                if self.people.looks_at_home(actor):  # as remembered: no query on the way of a submission
                    transaction.want(job.id, Kind.HOME, due_at=at)
                return job
            self._vault.forget(job.token_ref or "")
            return None

        warnings = proposal.warnings if proposal else ()
        job = self._store.write(take) or self._store.job_by_key(key)
        assert job  # its key is taken, and jobs are never deleted
        self.people.changed(actor)
        self._committed()
        return job

    def checked(self, effect: Effect, token: SecretStr, *, within: float) -> bool:
        """Ask BOSS what there was no time to ask before; then the job is submitted, or turned down with the reasons.

        False where the effect's lease was lost. Raises Unavailable where BOSS does not tell.
        """
        job = self._store.job(effect.job_id)
        pipeline = self._catalog.get(job.request.pipeline)
        if pipeline is None:
            raise Refused("This pipeline is no longer on offer.")
        experiment: Experiment | None = None
        try:
            experiment = self._volumes.describe(
                job.request.collection, job.request.experiment, token=token, within=within
            )
            errors = checks.against(job.request, pipeline, experiment, max_bytes=self._max_bytes)
        except VolumesRefused as refusal:
            errors = {refusal.field: str(refusal)}
        if errors:
            return self.refused(effect, " ".join(_placed(field, text) for field, text in errors.items()))
        per_voxel, known = checks.bytes_per_voxel(pipeline, experiment)
        if not known:
            raise Unavailable("BOSS did not tell the data types of all channels.")
        warnings = self._warnings(token, within=within)
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=self._clock()):
                return False
            if job.state not in FINAL and job.cancelled_by:
                self._move(transaction, job, JobState.CANCELLED, Observation(state=JobState.CANCELLED))
            elif job.state not in FINAL:
                transaction.change(job.id, checked=True, size=per_voxel * job.request.box.voxels)
                transaction.want(job.id, Kind.SUBMIT, due_at=self._clock())
                self._add(transaction, job, warnings)
        self._committed()
        return True

    def _add(self, transaction: Transaction, job: Job, warnings: Sequence[str]) -> None:
        """Tell it beside the acceptance."""
        if warnings:
            (accepted,) = (t for t in transaction.transitions(job.id) if t.state is JobState.ACCEPTED)
            transaction.tell(job.id, JobState.ACCEPTED, " ".join([accepted.text, *warnings]))
            if job.request.channel and accepted.reply:
                transaction.want(job.id, Kind.REPLY, due_at=self._clock(), subject=str(accepted.reply))
        self._shown(transaction, job)

    def _names(self) -> str:
        return words.listed([pipeline.name for pipeline in self._catalog])

    # What compute says

    def observe(self, job_id: str, seen: Observation) -> bool:
        """Record what compute says of a job; True where it moved. Late, repeated and disordered news change nothing."""
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            state = seen.state
            if state is JobState.FAILED and job.cancelled_by and seen.reason.startswith(CANCELLED):
                state = JobState.CANCELLED  # any other reason is the program's own: it was over before
            if not state.follows(job.state):
                return False
            self._move(transaction, job, state, seen)
        self._committed()
        return True

    def progressed(self, job_id: str, progress: Progress) -> bool:
        """Record how far a running program says it is, and show it on the card; True where that is news."""
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            if job.state is not JobState.RUNNING or job.progress == progress:
                return False
            transaction.change(job.id, progress={"part": progress.part, "phase": progress.phase})
            self._shown(transaction, job)
        self._committed()
        return True

    def waits(self, job_id: str, cause: str) -> bool:
        """Tell once why a job has waited to run for so long, in compute's words; True where that is news."""
        at = self._clock()
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            if job.state is not JobState.RUNNABLE or job.waiting:
                return False
            since = next(t.at for t in transaction.transitions(job.id) if t.state is JobState.RUNNABLE)
            cause = words.shortened(words.printable(cause), 500) or NO_CAUSE
            told = f"Waiting to run for {words.duration(at - since)}. {cause}"
            transaction.change(job.id, waiting=cause)
            if _wishes(transaction, job).tells(JobState.RUNNABLE):
                reply = self._reply(transaction, job, at, alone=True)
                transaction.tell(job.id, JobState.RUNNABLE, told, reply=reply)
                if job.request.channel:
                    transaction.want(job.id, Kind.REPLY, due_at=at, subject=str(reply))
            self._shown(transaction, job)
        self._committed()
        return True

    def not_cancelled(self, effect: Effect, reason: str) -> bool:
        """Compute refuses to end the job: it goes on, and whoever asked for its end hears why not."""
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=self._clock(), error=reason):
                return False
            if job.state not in FINAL:
                transaction.change(job.id, cancelled_by=None, cancelled_at=None)
                last = transaction.transitions(job.id)[-1]
                before, _, _ = last.text.partition(NOT_CANCELLED)  # the last refusal is enough
                said = f"{before.strip()} {NOT_CANCELLED} {words.shortened(words.printable(reason), 300)}".strip()
                reply = last.reply or self._reply(transaction, job, self._clock(), alone=True)
                transaction.tell(job.id, last.state, said, reply=reply)
                if job.request.channel:
                    transaction.want(job.id, Kind.REPLY, due_at=self._clock(), subject=str(reply))
                self._shown(transaction, job)
        self._committed()
        return True

    def submitted(self, effect: Effect, compute_id: str, *, token_ref: str) -> bool:
        """Compute took the job. False where the effect's lease was lost: then somebody else has recorded it."""
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=self._clock()):
                return False
            transaction.change(job.id, compute_id=compute_id, token_ref=token_ref, submitted_at=self._clock())
            if job.token_ref and job.token_ref != token_ref:  # compute's own keeper has it now
                self._vault.forget(job.token_ref)
            if JobState.SUBMITTED.follows(job.state):
                self._move(transaction, job, JobState.SUBMITTED, Observation(state=JobState.SUBMITTED))
        self._committed()
        return True

    def not_submitted(self, effect: Effect) -> bool:
        """The job was cancelled before compute had it, and compute will never have it."""
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=self._clock()):
                return False
            if JobState.CANCELLED.follows(job.state):
                self._move(transaction, job, JobState.CANCELLED, Observation(state=JobState.CANCELLED))
        self._committed()
        return True

    def refused(self, effect: Effect, reason: str) -> bool:
        """Compute will never take the job: it has failed."""
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=self._clock(), error=reason):
                return False
            if JobState.FAILED.follows(job.state):
                self._move(transaction, job, JobState.FAILED, Observation(state=JobState.FAILED, reason=reason))
        self._committed()
        return True

    def conclude(self, effect: Effect, *, summary: Summary | None, log_tail: Sequence[str], note: str = "") -> bool:
        """The job's end with what was collected of it: now it is told to people, and the vault forgets its token."""
        at = self._clock()
        log_tail = [words.printable(line) for line in log_tail]
        with self._store.begin() as transaction:
            job = transaction.lock(effect.job_id)
            if not transaction.finish(effect, at=at, error=note or None):
                return False
            reason = job.reason
            if job.state is JobState.FAILED and job.exit_code and (said := [line for line in log_tail if line.strip()]):
                reason = words.shortened(said[-1].strip(), 500)  # the contract: the last line says why, in words
            job = job.model_copy(update={"summary": summary, "reason": reason, "log_tail": tuple(log_tail)})
            token_ref = job.token_ref
            if token_ref and self._vault.holds(token_ref):
                self._vault.forget(token_ref)  # a row of the same database, committed together
                token_ref = None
            transaction.change(
                job.id,
                summary=summary.model_dump(mode="json") if summary else None,
                reason=reason,
                log_tail=list(log_tail),
                token_ref=token_ref,
            )
            transaction.tell(job.id, job.state, _ending(job))
            self._shown(transaction, job)
            last = transaction.transitions(job.id)[-1]
            if job.request.channel and last.reply:
                transaction.want(job.id, Kind.REPLY, due_at=at, subject=str(last.reply))
                if summary and summary.preview:
                    transaction.want(job.id, Kind.PREVIEW, due_at=at)
            if _wishes(transaction, job).mail:
                transaction.want(job.id, Kind.MAIL_FINISHED, due_at=at)
        self._runs.pop(job.request.pipeline, None)
        self._committed()
        return True

    def _move(self, transaction: Transaction, job: Job, state: JobState, seen: Observation) -> None:
        at = self._clock()
        started = job.started_at or seen.started_at or (at if state is JobState.RUNNING else None)
        ended = (seen.stopped_at or at) if state in FINAL else None
        transaction.change(
            job.id,
            state=state.value,
            reason=words.shortened(words.printable(seen.reason), 500),
            exit_code=seen.exit_code,
            started_at=started,
            finished_at=ended,
            log=seen.log or job.log,
        )
        if state is JobState.RUNNABLE:
            transaction.change(job.id, runnable_at=at)
        if started and not job.started_at:  # also where RUNNING itself was too short to be seen
            waited = words.duration(started - job.accepted_at)
            self._enter(transaction, job, JobState.RUNNING, at, f"Running, after waiting {waited}.")
        if state in FINAL:
            self._enter(transaction, job, state, at, "")  # conclude() tells it, with its results or its log
            transaction.want(job.id, Kind.COLLECT, due_at=at)
        elif state is not JobState.RUNNING:
            transaction.enter(job.id, Transition(state, at, "", None))
        self._shown(transaction, job)

    def _enter(self, transaction: Transaction, job: Job, state: JobState, at: datetime, text: str) -> None:
        wishes = _wishes(transaction, job)
        reply = None
        if wishes.tells(state):
            # A message that is edited notifies nobody.
            reply = self._reply(transaction, job, at, alone=state in FINAL and wishes.mention)
        transaction.enter(job.id, Transition(state, at, text, reply))
        if text and reply and job.request.channel:
            transaction.want(job.id, Kind.REPLY, due_at=at, subject=str(reply))

    @staticmethod
    def _reply(transaction: Transaction, job: Job, at: datetime, *, alone: bool) -> int:
        """The reply that tells a step taken now: the last one, if its last step is fresh, or a new one."""
        told = [t for t in transaction.transitions(job.id) if t.reply is not None]
        if not told:
            return 1
        last = max(t.reply or 0 for t in told)
        return last + (0 if at - told[-1].at <= TOGETHER and not alone else 1)

    def _shown(self, transaction: Transaction, job: Job) -> None:
        """What shows the job is brought up to date: its card, and its owner's home tab if that may be open."""
        if job.request.channel:
            transaction.want(job.id, Kind.EDIT, due_at=self._clock())
        self._shown_at_home(transaction, job)

    def _shown_at_home(self, transaction: Transaction, job: Job) -> None:
        opened = transaction.person(job.actor, alone=False).home_opened_at
        if may_be_open(opened, self._clock()):
            transaction.want(job.id, Kind.HOME, due_at=self._clock())

    # What people ask

    def may_steer(self, job: Job, actor: str) -> bool:
        """Whether this person may cancel and retry the job: its owner, an admin, or whoever has a terminal here."""
        return actor == job.actor or actor in self._admins or actor.startswith(TERMINAL)

    def cancel(self, job_id: str, *, actor: str) -> Job:
        """End the job, wherever it stands; asking twice is asking once. Returns it as it stands then.

        Raises UnknownJob, NotYours, and TooLate where it has ended already.
        """
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            self._only_for(job, actor, "cancel")
            if job.state in FINAL:
                raise TooLate(f"Job {job.id} has ended already: {words.state(job.state)}. Nothing was cancelled.")
            if job.cancelled_by is None:
                transaction.change(job.id, cancelled_by=actor, cancelled_at=self._clock())
                waiting = Kind.SUBMIT if job.checked else Kind.CHECK
                if job.state is JobState.ACCEPTED and transaction.drop(job.id, waiting):
                    self._move(transaction, job, JobState.CANCELLED, Observation(state=JobState.CANCELLED))
                else:
                    transaction.want(job.id, Kind.CANCEL, due_at=self._clock())
                    self._shown(transaction, job)
        self._committed()
        return self.find(job_id)

    def retry(self, job_id: str, *, actor: str, token: SecretStr, email: str = "") -> Job:
        """Try a job again that ended without success: one new job, whoever asks and however often.

        It is the actor's, runs with their token, and mails to `email`; without one where the first one did, unless
        that is somebody else's address.
        Raises UnknownJob, NotYours, TooLate, AlreadyRunning, InvalidRequest and Unavailable.
        """
        job = self.retryable(job_id, actor=actor)
        if job.retried_as:
            return self.find(job.retried_as)
        if not email and actor != job.actor and not actor.startswith(TERMINAL):
            raise InvalidRequest({"email": "Your mail address is not known just now; try again in a minute."})
        request = job.request.model_copy(update={"email": email} if email else {})
        return self.accept(request, actor=actor, token=token, key=f"retry:{job.id}", retry_of=job)

    def retryable(self, job_id: str, *, actor: str) -> Job:
        """The job, if this person may try it again or that was done. Raises UnknownJob, NotYours or TooLate."""
        job = self.find(job_id)
        self._only_for(job, actor, "retry")
        if job.state not in FINAL:
            raise TooLate(f"Job {job.id} has not ended: {words.state(job.state)}. Cancel it first, or wait.")
        if job.state is JobState.SUCCEEDED:
            raise TooLate(f"Job {job.id} has succeeded; “Edit and rerun” runs it again.")
        return job

    def _only_for(self, job: Job, actor: str, verb: str) -> None:
        if not self.may_steer(job, actor):
            raise NotYours(f"Only whoever asked for job {job.id}, or an admin of NOMADS, may {verb} it.")

    def page(self, wanted: Which, *, actor: str, before: str | None = None, most: int = PAGE) -> Page:
        """Jobs, the newest first; with `before`, those that were accepted before that job."""
        mine = actor if wanted in _MINE else None
        found = self._store.page(_SHOWN[wanted], actor=mine, before=before, most=most + 1)
        return Page(jobs=found[:most], more=len(found) > most)

    def home(self, person: str) -> Home:
        """What the app's home tab shows this person, as of now."""
        known = self._store.person(person)
        running = self.page(Which.MINE_RUNNING, actor=person, most=HOME_RUNNING).jobs
        shown = {job.id for job in running}  # one may end between two looks
        return Home(
            running=running,
            running_in_all=max(len(running), self._store.number_of(UNFINISHED, actor=person)),
            recent=[job for job in self._store.page(FINAL, actor=person, most=HOME_RECENT) if job.id not in shown],
            saved=saved_token(known),
            preferences=known.preferences,
        )

    def attempts(self, job: Job) -> list[Job]:
        """All attempts that this job is one of, the first one first; at most ATTEMPTS before and after it."""
        chain = [job]
        while (before := chain[0].retry_of) and len(chain) < ATTEMPTS:
            chain.insert(0, self.find(before))
        while (after := chain[-1].retried_as) and len(chain) < 2 * ATTEMPTS:
            chain.append(self.find(after))
        return chain

    def transitions(self, job_id: str) -> list[Transition]:
        """The job's story, oldest first."""
        return self._store.transitions(job_id)

    def card_of(self, job_id: str) -> str | None:
        """The timestamp of the job's card, once it was posted."""
        return self._store.message(job_id, "card")

    def find(self, job_id: str) -> Job:
        """The job of that id. Raises UnknownJob."""
        return self._store.job(job_id)

    def named(self, name: str) -> Job:
        """The job that a person names. Raises UnknownJob with the nearest ids there are."""
        wanted = name.strip().strip("`").casefold()
        if re.fullmatch(r"[0-9a-z]{1,16}", wanted):
            try:
                return self._store.job(wanted)
            except UnknownJob:
                beginning = wanted if len(wanted) >= 3 else ""
                near = self._store.near(_misspelt(wanted), beginning=beginning, most=3)
        else:
            near = []
        shown = words.shortened(words.printable(name.strip()), 20)
        hint = f"did you mean {' or '.join(near)}?" if near else "a job's id stands on its card and in lists."
        raise UnknownJob(f"There is no job “{shown}”; {hint}")


def _wishes(transaction: Transaction, job: Job) -> Preferences:
    return transaction.person(job.actor, alone=False).preferences


def _misspelt(name: str) -> list[str]:
    """Ids that one slip of the fingers makes into this name, or that read like it."""
    read = name.translate(str.maketrans("oilu", "011v"))  # what Crockford's alphabet leaves out
    cuts = [(read[:n], read[n:]) for n in range(len(read) + 1)]
    slips = {read}
    slips |= {a + b[1:] for a, b in cuts if b}
    slips |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    slips |= {a + c + b[1:] for a, b in cuts if b for c in _ID_ALPHABET}
    slips |= {a + c + b for a, b in cuts for c in _ID_ALPHABET}
    return sorted(slip for slip in slips if len(slip) == ID_LENGTH)


def _accepted(job: Job) -> str:
    if job.retry_of is None:
        return f"Accepted as job {job.id}."
    return f"Accepted as job {job.id}: attempt {job.attempt}, after job {job.retry_of}. {RECHECKED}"


def _placed(field: str, text: str) -> str:
    return f"{field}: {text}" if field in "zyx" else text


def _ending(job: Job) -> str:
    took = f" after {words.duration(job.finished_at - job.started_at)}" if job.started_at and job.finished_at else ""
    match job.state:
        case JobState.SUCCEEDED:
            counts = job.summary.counts if job.summary else {}
            found = words.listed([f"{words.count(n)} {what}" for what, n in counts.items()])
            return f"Finished{took}: {found}." if counts else f"Finished{took}."
        case JobState.CANCELLED:
            whom = "by whoever asked for it" if job.cancelled_by == job.actor else "by an admin"
            return f"Cancelled {whom}{took}."
        case JobState.LOST:
            return f"Lost: {job.reason}"
        case _:
            return f"Failed{took}: {job.reason or 'compute gave no reason'}"
