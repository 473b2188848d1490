"""The rules. What may be asked for, what a job becomes when, and which effects that calls for.

Every method commits before it returns, and calls nobody but the store and the vault: no answer to a person
waits for AWS, BOSS or a mail server. `bot.worker` carries the effects out.
"""

from __future__ import annotations

import secrets as entropy
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr

from bot import words
from bot.catalog import Catalog, Pipeline
from bot.jobs import (
    FINAL,
    Box,
    InvalidRequest,
    Job,
    JobRequest,
    JobState,
    Observation,
    Progress,
    Range,
    Summary,
)
from bot.ports import Compute, Secrets
from bot.store import Effect, JobStore, Kind, Transaction, Transition, now

TOGETHER = timedelta(seconds=2)
"""Steps that follow one another within this time are told in one reply."""
LOG_LINES = 20
"""How many of the last log lines are shown when a job fails."""
MAX_TOKEN = 512
"""The longest BOSS token taken; BOSS's own have 40 characters."""
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing that reads as something else


class JobService:
    """Accepts, observes, cancels and finds jobs."""

    def __init__(
        self,
        *,
        store: JobStore,
        catalog: Catalog,
        compute: Compute,
        vault: Secrets,
        max_bytes: int,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`vault` keeps a token from acceptance on, without leaving this machine and its database."""
        self._store = store
        self._catalog = catalog
        self._compute = compute
        self._vault = vault
        self._max_bytes = max_bytes
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []

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
        if problem := _token_problem(token.get_secret_value()):
            errors["token"] = problem
        pipeline = self._catalog.get(pipeline_name)
        if "pipeline" not in errors:
            if pipeline is None:
                errors["pipeline"] = f"There is no pipeline of that name; there is {self._names()}."
            elif problem := self._compute.refuses(image=pipeline.image, command=pipeline.command):
                errors["pipeline"] = problem
        if pipeline and (box := _box(values)) and box.voxels > self._most(pipeline):
            errors[_longest(box)] = self._too_large(pipeline, box)
        if errors or request is None:
            raise InvalidRequest(errors)
        return request

    def accept(self, request: JobRequest, *, actor: str, token: SecretStr, key: str) -> Job:
        """Take a reviewed request: when this returns, the job is in the database with its first effects.

        A second call with the same key changes nothing and returns the same job.
        Raises InvalidRequest, and Unavailable where the database cannot be written (nothing is taken then).
        """
        try:
            self.review({name: getattr(request, name) for name in JobRequest.model_fields}, token)
        except InvalidRequest:
            if known := self._store.job_by_key(key):  # what was taken stays taken
                return known
            raise
        at = self._clock()
        chat = [(Kind.CARD, ""), (Kind.REPLY, "1")] if request.channel else []
        wanted = [(Kind.SUBMIT, ""), *chat, (Kind.MAIL_ACCEPTED, "")]

        def take(transaction: Transaction) -> Job | None:
            job = Job(
                id="".join(entropy.choice(_ID_ALPHABET) for _ in range(8)),
                key=key,
                request=request,
                actor=actor,
                state=JobState.ACCEPTED,
                token_ref=self._vault.put(actor, token),  # a row of the same database, committed together
                accepted_at=at,
            )
            if transaction.add(job, Transition(JobState.ACCEPTED, at, f"Accepted as job {job.id}.", 1), wanted):
                return job
            self._vault.forget(job.token_ref or "")
            return None

        job = self._store.write(take) or self._store.job_by_key(key)
        assert job  # its key is taken, and jobs are never deleted
        self._committed()
        return job

    def _names(self) -> str:
        return words.listed([pipeline.name for pipeline in self._catalog])

    def _most(self, pipeline: Pipeline) -> int:
        """The voxels a box may have: as many as one job may read, or fewer where the pipeline says so."""
        readable = self._max_bytes // pipeline.channels
        return min(readable, pipeline.limits.voxels or readable)

    def _too_large(self, pipeline: Pipeline, box: Box) -> str:
        fits, most = box.largest_within(self._most(pipeline)), f"a job may read {words.size(self._max_bytes)}"
        if self._most(pipeline) == pipeline.limits.voxels:
            most = f"this pipeline takes {words.count(pipeline.limits.voxels)} voxels at most"
        return (
            f"This box is {words.size(pipeline.bytes_read(box))}:"
            f" {words.count(box.voxels)} voxels in {pipeline.channels} channels; {most}."
            f" The largest box from this corner that fits: x {fits.x}; y {fits.y}; z {fits.z}."
        )

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
            if job.state is JobState.ACCEPTED and transaction.drop(job.id, Kind.SUBMIT):
                self._move(transaction, job, JobState.CANCELLED, Observation(state=JobState.CANCELLED))
            else:
                transaction.want(job.id, Kind.CANCEL, due_at=self._clock())
        self._committed()
        return True

    def find(self, job_id: str) -> Job:
        """The job of that id. Raises UnknownJob."""
        return self._store.job(job_id)


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


def _box(values: Mapping[str, Any]) -> Box | None:
    """The box in what was typed, if its three ranges are ranges."""
    try:
        z, y, x = (Range.parse(side) if isinstance(side := values.get(axis), str) else side for axis in "zyx")
        return Box(z, y, x)  # type: ignore[arg-type]  # pydantic refuses what is not a Range
    except (ValueError, TypeError):
        return None


def _longest(box: Box) -> str:
    """The axis a person would cut first: x before y before z where they are equal."""
    return max("xyz", key=lambda axis: len(getattr(box, axis)))


def _token_problem(token: str) -> str:
    if not token.strip():
        return "Paste your BOSS token; public data is read with the word public."
    if len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        return "This is not a BOSS token: it has spaces, line breaks or letters that no token has, or is too long."
    return ""
