"""The steps of a job after its acceptance: checked, submitted, observed, ended.

Each step is recorded once, in one transaction with the effects it calls for. A method that takes an effect finishes the
effect in that transaction, and raises LeaseLost, with nothing changed, where another worker holds the effect by now.
Every method raises Unavailable where the database cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from bot.application.access import Access
from bot.application.forecast import Forecast
from bot.application.ledger import MAX_REASON, JobChange, Ledger
from bot.application.review import Reviewed, Reviewer
from bot.application.tokens import TokenKeeper
from bot.domain import words
from bot.domain.blocks import ASKED, PILOT, Blocks
from bot.domain.catalog import Catalog
from bot.domain.errors import InvalidRequest, Refused
from bot.domain.job import LASTING, Job
from bot.domain.outbox import Effect, Kind
from bot.domain.states import FINAL, JobState
from bot.domain.summary import Summary
from bot.domain.work import CANCELLED, Cause, Observation, Progress
from contract.program import REFUSED, read_progress

NOT_CANCELLED = "It could not be cancelled:"
NO_CAUSE = "Compute gives no cause; other jobs may be before it. If it takes too long, ask whoever runs NOMADS to look."
MAX_REFUSAL = 300
"""Characters of compute's refusal to cancel that are shown."""


class Lifecycle:
    """Records the steps of jobs."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        catalog: Catalog,
        reviewer: Reviewer,
        forecast: Forecast,
        tokens: TokenKeeper,
        access: Access,
        lasts: bool,
    ) -> None:
        """`lasts` is `Compute.lasts`."""
        self._lasts = lasts
        self._access = access
        self._ledger = ledger
        self._catalog = catalog
        self._reviewer = reviewer
        self._forecast = forecast
        self._tokens = tokens

    # Before compute has it

    def check(self, effect: Effect, job: Job, *, within: float) -> None:
        """Ask what the acceptance left open, then enqueue the submission, or fail the job with the reasons.

        Raises Unavailable where chat does not answer, or BOSS within `within` seconds.
        """
        pipeline = self._catalog.get(job.request.pipeline)
        if pipeline is None or job.token_ref is None:
            self.turn_down(effect, "This pipeline is no longer on offer.")
            return
        try:
            self._access.insist(job)
        except Refused as refusal:
            self.turn_down(effect, str(refusal))
            return
        request, token = job.request, self._tokens.open(job.token_ref)
        reviewed = Reviewed(request=request, pipeline=pipeline, box=request.box, token=token)
        try:
            answered = self._reviewer.insist(reviewed, within=within)
        except InvalidRequest as refusal:
            self.turn_down(effect, _by_axis(refusal.errors))
            return
        with self._ledger.finish(effect) as change:
            if change.job.state in FINAL:
                return
            if change.job.cancelled_by:
                change.follow(Observation(JobState.CANCELLED))
                return
            change.set(checked=True, size=answered.size)
            change.enqueue(Kind.SUBMIT, change.job.stage)
            _warn(change, answered.warnings)

    def submitted(self, effect: Effect, compute_id: str, *, token_ref: str) -> None:
        """Record that compute took the job, and reads the token by that reference."""
        with self._ledger.finish(effect) as change:
            job = change.job
            change.set(compute_id=compute_id, token_ref=token_ref, submitted_at=change.at)
            if job.stage:  # compute counts a submission's attempts anew
                change.set(compute_attempt=1)
            if job.token_ref and job.token_ref != token_ref:  # compute's own Secrets hold it now
                self._tokens.erase(change.transaction, job.token_ref)
            change.follow(Observation(JobState.SUBMITTED))

    def withdraw(self, effect: Effect) -> None:
        """Record the cancellation of a job that compute neither has nor will get."""
        with self._ledger.finish(effect) as change:
            change.follow(Observation(JobState.CANCELLED))

    def turn_down(self, effect: Effect, reason: str, *, cause: Cause = Cause.REQUEST) -> None:
        """Fail a job for that reason, which is what the effect found out: it is done, and not given up."""
        with self._ledger.finish(effect) as change:
            _fail(change, reason, cause)

    def refuse(self, effect: Effect, reason: str, *, cause: Cause) -> None:
        """Give the effect up, and fail its job, which can never be submitted, for that reason."""
        with self._ledger.finish(effect, error=reason) as change:
            _fail(change, reason, cause)

    # While compute has it

    def advanced(self, effect: Effect, blocks: Blocks, *, note: str) -> None:
        """Enqueue the submission of the next stage of a job in blocks, and tell the note, if there is one."""
        with self._ledger.finish(effect) as change:
            if change.job.state in FINAL:
                return
            if change.job.cancelled_by:  # somebody has meanwhile, and compute has nothing to end
                change.follow(Observation(JobState.CANCELLED))
                return
            if change.job.blocks and not change.job.blocks.wanted:  # somebody may have said go meanwhile
                blocks, note = blocks.spared(), change.job.blocks.missed or note
            change.set(blocks=blocks.model_dump(mode="json"))
            if blocks.stage != ASKED:
                change.enqueue(Kind.SUBMIT, blocks.label)
            if blocks.stage == PILOT:
                change.set(progress={"part": blocks.part(0), "phase": "running a pilot"})
            if blocks.preview:
                change.enqueue_once(Kind.PREVIEW, PILOT)
            if note:
                change.note(words.shortened(words.printable(note), MAX_REASON))
            change.show()

    def observe(self, job_id: str, seen: Observation, *, compute_id: str | None = None) -> bool:
        """Record what compute says of a job. Returns whether the job moved.

        Late, repeated and disordered news change nothing; nor does news of another submission of the job than that
        which compute has under `compute_id`. The end of a stage that is not the last is no end of the job; nor is that
        of a job that its machines made fail, where there are others.

        A reason is stored without the token: compute may quote the program's last words, or how it was called. Raises
        UnknownJob.
        """
        if seen.reason:
            (reason,) = self._tokens.masked([seen.reason], self._job(job_id).token_ref)
            seen = replace(seen, reason=reason)
        with self._ledger.change(job_id) as change:
            cancelled = change.job.cancelled_at and seen.reason.startswith(CANCELLED)
            if seen.state is JobState.FAILED and cancelled:
                seen = replace(seen, state=JobState.CANCELLED)  # any other reason is the program's own
            if compute_id and change.job.compute_id != compute_id:
                return False
            if change.job.blocks and change.job.blocks.goes_on(seen):
                _end_stage(change, change.job.blocks, seen)
                return True
            if self._lasts and _goes_on_elsewhere(change.job, seen):
                if change.job.cancelled_by:  # the cancellation ends it: without, it would begin again
                    return change.follow(replace(seen, state=JobState.CANCELLED))
                _submit_elsewhere(change, seen)
                return True
            return change.follow(seen)

    def counted(self, job_id: str, children: Mapping[JobState, int], *, compute_id: str) -> bool:
        """Record how many blocks a round has done, and show it on the card. Returns whether that is new."""
        with self._ledger.change(job_id) as change:
            job = change.job
            if not job.blocks or job.compute_id != compute_id or job.state is not JobState.RUNNING:
                return False
            blocks = job.blocks.counted(children)
            if blocks == job.blocks:
                return False
            part = blocks.part(blocks.done / blocks.all)
            change.set(blocks=blocks.model_dump(mode="json"), progress={"part": part, "phase": "working on blocks"})
            change.show()
            return True

    def progressed(self, job_id: str, progress: Progress) -> bool:
        """Record a running program's progress and show it on the card. Returns whether the progress is new.

        A phase is the program's own text, and is stored without the token.
        """
        job = self._job(job_id)
        if job.blocks:
            progress = replace(progress, part=job.blocks.part(progress.part))
        if job.progress is None or job.progress.phase != progress.phase:
            (phase,) = self._tokens.masked([progress.phase], job.token_ref)
            progress = replace(progress, phase=phase)
        if job.progress == progress:
            return False
        with self._ledger.change(job_id) as change:
            if change.job.state is not JobState.RUNNING:
                return False
            change.set(progress={"part": progress.part, "phase": progress.phase})
            change.show()
            return True

    def _job(self, job_id: str) -> Job:
        with self._ledger.database.read() as transaction:
            return transaction.jobs.get(job_id)

    def waits(self, job_id: str, cause: str, *, waited: timedelta) -> bool:
        """Tell once, in compute's words, why a job waits long to run. Returns False where the job was told, or runs.

        `waited` is for how long it has waited.
        """
        with self._ledger.change(job_id) as change:
            if change.job.state is not JobState.RUNNABLE or change.job.waiting:
                return False
            step = change.entered(JobState.RUNNABLE)
            cause = words.shortened(words.printable(cause), MAX_REASON) or NO_CAUSE
            change.set(waiting=cause)
            if change.preferences.tells(JobState.RUNNABLE):
                told = f"{step.text} Waiting to run for {words.duration(waited)}. {cause}".lstrip()
                change.tell(step, told, reply=change.next_reply(separate=True))
            change.show()
            return True

    def not_cancelled(self, effect: Effect, reason: str) -> None:
        """Undo a cancellation that compute refuses: the job goes on, and its thread says why.

        That somebody has asked stays recorded: an earlier answer may have been lost, and the job is cancelled then.
        """
        with self._ledger.finish(effect, error=reason) as change:
            if change.job.state in FINAL:
                return
            change.set(cancelled_by=None)
            last = change.entered(change.job.state)
            before, _, _ = last.text.partition(NOT_CANCELLED)  # the latest refusal is enough
            said = words.shortened(words.printable(reason), MAX_REFUSAL)
            reply = last.reply or change.next_reply(separate=True)
            change.tell(last, f"{before.strip()} {NOT_CANCELLED} {said}".strip(), reply=reply)
            change.show()

    # At its end

    def conclude(
        self,
        effect: Effect,
        *,
        summary: Summary | None,
        log_tail: Sequence[str],
        trouble: str,
        masked: bool,
        note: str | None = None,
    ) -> None:
        """Record what was collected of an ended job, tell people of the end, and erase the job's sealed token.

        `trouble` says what is wrong with the results of a job that SUCCEEDED. `note` is stored with the effect, where
        collecting was given up. What was collected at last, when it was tried again, corrects what was told; no second
        mail is sent. Unless `masked`, the token may stand in the log, which nobody is shown from then on.
        """
        tail = [words.printable(line) for line in log_tail if line.strip() != REFUSED]
        with self._ledger.finish(effect, error=note) as change:
            reason = words.shortened(words.printable(trouble), MAX_REASON) or _reason(change.job, tail)
            job = change.job.model_copy(update={"summary": summary, "reason": reason})
            erased = job.token_ref and self._tokens.erase(change.transaction, job.token_ref)
            change.set(
                summary=summary.model_dump(mode="json") if summary else None,
                reason=reason,
                log_tail=tail,
                cause=job.cause.told(log_tail).value,
                token_ref=None if erased and masked else job.token_ref,
                stalled_since=None,
                stalled="",
                stalled_told=False,
            )
            last = change.entered(job.state)
            change.tell(last, _ending(job), reply=last.reply)
            change.show()
            if job.request.channel and last.reply and summary and summary.preview:
                change.enqueue_once(Kind.PREVIEW)
            if change.preferences.mail and job.request.email:
                change.enqueue_once(Kind.MAIL_FINISHED)
            for person in change.followers:
                change.enqueue_once(Kind.MAIL_FINISHED, person)
        self._forecast.ended(job.request.pipeline)


def _fail(change: JobChange, reason: str, cause: Cause) -> None:
    """Fail a job that compute does not have; one that somebody has cancelled meanwhile is cancelled."""
    ended = Observation(JobState.FAILED, reason, cause=cause)
    change.follow(Observation(JobState.CANCELLED) if change.job.cancelled_by else ended)


def _goes_on_elsewhere(job: Job, seen: Observation) -> bool:
    """Whether a job that ended so is submitted anew, for machines that are not taken back."""
    missed = seen.state is JobState.FAILED and seen.why.elsewhere
    return missed and not (job.ended or job.blocks or job.lasting)


def _submit_elsewhere(change: JobChange, seen: Observation) -> None:
    """Let a job begin anew, on machines that are not taken back; compute is no more asked about what has ended."""
    why = words.shortened(words.printable(seen.reason).rstrip("."), MAX_REASON)
    where = "a machine that is not taken back" if seen.why is Cause.MACHINE else "another machine"
    change.note(f"{why}. The job begins again on {where}." if why else f"The job begins again on {where}.")
    change.set(
        lasting=True,
        state=JobState.ACCEPTED.value,
        compute_id=None,
        log=None,
        progress=None,
        started_at=None,
        runnable_at=None,
        waiting="",
    )
    change.enqueue(Kind.SUBMIT, LASTING)
    change.show()


def _end_stage(change: JobChange, blocks: Blocks, seen: Observation) -> None:
    """Record the end of a stage after which the job goes on; compute is no more asked about it."""
    change.follow(Observation(JobState.RUNNING, started_at=seen.started_at))  # it may have been too short to be seen
    ended = blocks.counted(seen.children) if seen.children else blocks
    update: dict[str, object] = {"ended": (*ended.ended, change.job.compute_id or ""), "why": seen.why}
    if blocks.stage == PILOT and seen.started_at and seen.stopped_at:
        update["took"] = max(0.0, (seen.stopped_at - seen.started_at).total_seconds())
    ended = ended.model_copy(update=update)
    change.set(compute_id=None, blocks=ended.model_dump(mode="json"))
    change.enqueue(Kind.ADVANCE, blocks.label)


def _warn(change: JobChange, warnings: Sequence[str]) -> None:
    """Add the warnings to the text of the acceptance."""
    if warnings:
        accepted = change.entered(JobState.ACCEPTED)
        change.tell(accepted, " ".join([accepted.text, *warnings]), reply=accepted.reply)
    change.show()


def _reason(job: Job, tail: Sequence[str]) -> str:
    """Why the job failed: compute's words, unless the program ended by itself.

    By the pipelines' contract the last line that a failed program prints says why, in words. How far a program says it
    is (`progress 0.42 reading`) is no reason.
    """
    if job.state is JobState.SUCCEEDED:  # what was wrong with its results may be right by now
        return ""
    said = [line for line in tail if line.strip()]
    if job.state is JobState.FAILED and job.cause.own and said and read_progress(said[-1]) is None:
        return words.shortened(said[-1].strip(), MAX_REASON)
    return job.reason


def _by_axis(errors: Mapping[str, str]) -> str:
    """All mistakes in one text; a range's mistake begins with its axis."""
    return " ".join(f"{field}: {text}" if field in "zyx" else text for field, text in errors.items())


def _ending(job: Job) -> str:
    took = f" after {words.duration(job.took)}" if job.took is not None else ""
    match job.state:
        case JobState.SUCCEEDED if job.unread:
            ran = "" if job.took is None else f" It ran for {words.duration(job.took)}."
            return f"{job.reason}{ran}"
        case JobState.SUCCEEDED:
            found = job.summary.found if job.summary else ""
            return f"{found}. Finished{took}." if found else f"Finished{took}."
        case JobState.CANCELLED:
            return f"Cancelled{f' by {job.cancelled_by}' if job.cancelled_by else ''}{took}."
        case JobState.LOST:
            return f"Lost: {job.reason}"
        case _:
            return f"Failed{took}: {job.reason or 'compute gave no reason'}"
