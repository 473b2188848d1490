"""The rules. What may be asked for, what a job becomes when, and which effects that calls for.

Every method commits before it returns, and calls nobody but the store and the vault: no answer to a person
waits for AWS, BOSS or a mail server. `bot.worker` carries the effects out.
"""

from __future__ import annotations

import hashlib
import secrets as entropy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr

from bot import checks, words
from bot.catalog import Catalog, Pipeline
from bot.jobs import (
    FINAL,
    AlreadyRunning,
    Expected,
    InvalidRequest,
    Job,
    JobRequest,
    JobState,
    Observation,
    Progress,
    Refused,
    Summary,
    Unavailable,
)
from bot.ports import Compute, Experiment, Secrets, Volumes, VolumesRefused
from bot.store import Effect, JobStore, Kind, Person, Transaction, Transition, now

TOGETHER = timedelta(seconds=2)
"""Steps that follow one another within this time are told in one reply."""
LOG_LINES = 20
"""How many of the last log lines are shown when a job fails."""
RUNS = 100
"""How many of a pipeline's last runs tell what the next one will take."""
PERSON_KEPT, PEOPLE = timedelta(seconds=2), 1000
"""For so long, and of so many, what fills a form is not looked up again: a query costs a busy server a third of it."""
RUNS_KEPT = timedelta(seconds=30)
"""For so long runs that another process has finished may be unknown to this one."""
UNCHECKED = "BOSS did not answer in time, so the request is checked before it is submitted."
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing that reads as something else


@dataclass(frozen=True, slots=True)
class Confirm:
    """What is confirmed before it is submitted: runs above one of these; 0: none for that reason."""

    bytes: int = 0
    seconds: float = 0
    cost: float = 0


@dataclass(frozen=True, slots=True)
class SavedToken:
    """What may be shown of a token that is kept for a person."""

    ending: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a person."""

    saved: SavedToken | None
    token: SecretStr | None
    """The saved token, for this person's own use; None where it cannot be opened."""
    last_request: Mapping[str, str]
    """What they asked last, as they might have typed it, without a token."""


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
    """Accepts, observes, cancels and finds jobs."""

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
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`vault` keeps a token from acceptance on, without leaving this machine and its database.

        `predictions` is where in BOSS programs write their detections to (`collection/experiment`); empty: nowhere.
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
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._people: dict[str, tuple[datetime, Person]] = {}
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
    ) -> Job:
        """Take a reviewed request: when this returns, the job is in the database with its first effects.

        A second call with the same key changes nothing and returns the same job. What is proposed and unchecked is
        checked before it is submitted. Raises AlreadyRunning where a job does the same work, unless it is wanted
        `again`; InvalidRequest; and Unavailable where the database cannot be written (nothing is taken then).
        """
        try:
            self.review({name: getattr(request, name) for name in JobRequest.model_fields}, token)
        except InvalidRequest:
            if known := self._store.job_by_key(key):  # what was taken stays taken
                return known
            raise
        at = self._clock()
        pipeline = self._pipeline(request)
        checked = proposal is None or proposal.checked
        chat = [(Kind.CARD, ""), (Kind.REPLY, "1")] if request.channel else []
        wanted = [(Kind.SUBMIT if checked else Kind.CHECK, ""), *chat, (Kind.MAIL_ACCEPTED, "")]

        def take(transaction: Transaction) -> Job | None:
            work = self._work(pipeline, request)
            transaction.alone(work)
            if not again and (twin := transaction.same_work(work)) and twin.state not in FINAL and twin.key != key:
                raise AlreadyRunning(twin)
            job = Job(
                id="".join(entropy.choice(_ID_ALPHABET) for _ in range(8)),
                key=key,
                request=request,
                actor=actor,
                state=JobState.ACCEPTED,
                token_ref=self._vault.put(actor, token),  # a row of the same database, committed together
                work=work,
                checked=checked,
                size=proposal.size if proposal and checked else None,
                expected=proposal.expected if proposal else self._expected(pipeline, request),
                accepted_at=at,
            )
            told = " ".join([f"Accepted as job {job.id}.", *(() if checked else (UNCHECKED,)), *warnings])
            if transaction.add(job, Transition(JobState.ACCEPTED, at, told, 1), wanted):
                transaction.keep_person(actor, last_request=request.model_dump(mode="json"))
                return job
            self._vault.forget(job.token_ref or "")
            return None

        warnings = proposal.warnings if proposal else ()
        job = self._store.write(take) or self._store.job_by_key(key)
        assert job  # its key is taken, and jobs are never deleted
        self._people.pop(actor, None)
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
        if job.request.channel:
            transaction.want(job.id, Kind.CARD, due_at=self._clock())
            if warnings:
                transaction.want(job.id, Kind.REPLY, due_at=self._clock(), subject="1")

    def _names(self) -> str:
        return words.listed([pipeline.name for pipeline in self._catalog])

    # What is kept of people

    def kept(self, person: str) -> Kept:
        """What is kept of this person, as it was PERSON_KEPT ago at most where another process changed it."""
        at = self._clock()
        seen, known = self._people.get(person, (at - 2 * PERSON_KEPT, Person()))
        if at - seen > PERSON_KEPT:
            if len(self._people) >= PEOPLE:
                self._people.clear()
            known = self._store.person(person)
            self._people[person] = at, known
        saved = SavedToken(known.token_end or "", known.token_at) if known.token_ref and known.token_at else None
        last = typed(JobRequest.model_validate(known.last_request)) if known.last_request else {}
        return Kept(saved=saved, last_request=last, token=self._opened(known.token_ref))

    def token_of(self, person: str) -> SecretStr | None:
        """The token that is kept for this person; nobody else is given it. None too where it cannot be opened."""
        return self._opened(self._store.person(person).token_ref)

    def _opened(self, reference: str | None) -> SecretStr | None:
        try:
            return self._vault.get(reference) if reference else None
        except Refused:
            return None

    def remember_token(self, person: str, token: SecretStr) -> None:
        """Keep this token for the person, in place of any other. Raises Unavailable."""
        value = token.get_secret_value()

        def keep(transaction: Transaction) -> None:
            self._forget_token(transaction, person)
            reference = self._vault.put(person, token)
            ending = value[-4:] if len(value) >= 12 else ""  # four of a short one would say too much
            transaction.keep_person(person, token_ref=reference, token_end=ending, token_at=self._clock())

        self._store.write(keep)
        self._people.pop(person, None)

    def forget_token(self, person: str) -> None:
        """Erase the token that is kept for this person, if one is. Jobs that were accepted with it keep theirs."""

        def forget(transaction: Transaction) -> None:
            self._forget_token(transaction, person)
            transaction.keep_person(person, token_ref=None, token_end=None, token_at=None)

        self._store.write(forget)
        self._people.pop(person, None)

    def _forget_token(self, transaction: Transaction, person: str) -> None:
        if reference := transaction.person(person).token_ref:
            self._vault.forget(reference)

    # What compute says

    def observe(self, job_id: str, seen: Observation) -> bool:
        """Record what compute says of a job; True where it moved. Late, repeated and disordered news change nothing."""
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            state = seen.state
            if state is JobState.FAILED and job.cancelled_by:
                state = JobState.CANCELLED
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
            if job.request.channel:
                transaction.want(job.id, Kind.CARD, due_at=self._clock())
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
            if job.request.channel:
                last = transaction.transitions(job.id)[-1]
                transaction.want(job.id, Kind.CARD, due_at=at)
                transaction.want(job.id, Kind.REPLY, due_at=at, subject=str(last.reply))
                if summary and summary.preview:
                    transaction.want(job.id, Kind.PREVIEW, due_at=at)
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
        if started and not job.started_at:  # also where RUNNING itself was too short to be seen
            waited = words.duration(started - job.accepted_at)
            self._enter(transaction, job, JobState.RUNNING, at, f"Running, after waiting {waited}.")
        if state in FINAL:
            self._enter(transaction, job, state, at, "")  # conclude() tells it, with its results or its log
            transaction.want(job.id, Kind.COLLECT, due_at=at)
        elif state is not JobState.RUNNING:
            transaction.enter(job.id, Transition(state, at, "", None))
        if job.request.channel:
            transaction.want(job.id, Kind.CARD, due_at=at)

    def _enter(self, transaction: Transaction, job: Job, state: JobState, at: datetime, text: str) -> None:
        reply = self._reply(transaction, job, at)
        transaction.enter(job.id, Transition(state, at, text, reply))
        if text and job.request.channel:
            transaction.want(job.id, Kind.REPLY, due_at=at, subject=str(reply))

    @staticmethod
    def _reply(transaction: Transaction, job: Job, at: datetime) -> int:
        """The reply that tells a step taken now: the last one, if its last step is fresh, or a new one."""
        told = [t for t in transaction.transitions(job.id) if t.reply is not None]
        if not told:
            return 1
        return (told[-1].reply or 0) + (0 if at - told[-1].at <= TOGETHER else 1)

    # What people ask

    def cancel(self, job_id: str, *, actor: str) -> bool:
        """End the job, wherever it stands; False where it has ended already. Raises UnknownJob."""
        with self._store.begin() as transaction:
            job = transaction.lock(job_id)
            if job.state in FINAL:
                return False
            transaction.change(job.id, cancelled_by=actor)
            waiting = Kind.SUBMIT if job.checked else Kind.CHECK
            if job.state is JobState.ACCEPTED and transaction.drop(job.id, waiting):
                self._move(transaction, job, JobState.CANCELLED, Observation(state=JobState.CANCELLED))
            else:
                transaction.want(job.id, Kind.CANCEL, due_at=self._clock())
        self._committed()
        return True

    def card_of(self, job_id: str) -> str | None:
        """The timestamp of the job's card, once it was posted."""
        return self._store.message(job_id, "card")

    def find(self, job_id: str) -> Job:
        """The job of that id. Raises UnknownJob."""
        return self._store.job(job_id)


def typed(request: JobRequest) -> dict[str, str]:
    """The request as a person types it, by field."""
    return {name: str(value) for name in JobRequest.model_fields if (value := getattr(request, name)) is not None}


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
            return f"Cancelled{took}."
        case JobState.LOST:
            return f"Lost: {job.reason}"
        case _:
            return f"Failed{took}: {job.reason or 'compute gave no reason'}"
