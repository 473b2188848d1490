"""Effects that compute performs: check a request, submit it, cancel it, collect what a job has left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from pydantic import ValidationError

from bot.application.access import UNTOLD
from bot.application.ledger import Ledger
from bot.application.lifecycle import Lifecycle
from bot.application.output import LINKS, LOG_FILE, LOG_LINES, Output
from bot.application.ports import Compute, Results
from bot.application.rates import Rate
from bot.application.stalls import Stalls
from bot.application.tokens import TokenKeeper
from bot.application.worker.handling import GIVE_UP, Handler, Handlers
from bot.domain import words
from bot.domain.blocks import MOST_MEMORY, PILOT, Blocks, Unplanned, after_pilot, told
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import NomadsError, NotFound, Refused, Unavailable
from bot.domain.findings import Finding
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind
from bot.domain.results import ResultFile
from bot.domain.states import FINAL, JobState
from bot.domain.summary import Summary, Unreadable
from bot.domain.volume import Box, Range
from bot.domain.work import CANCELLED, Cause, Observation, Work
from contract.program import BLOCK_VOXELS, BLOCKS, FIRST, IMAGE_BYTES, MERGE, PLAN, RESULTS

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
"""Seconds that BOSS is given for a check: nobody waits for the answer."""
CHECKS = 20
"""Attempts at a check, about an hour with back-off, after which the person is told that it could not be made."""
SILENT = "The request could not be checked, time and again:"
UNSAID = "Compute does not say whether it has the job."
UNREAD = "The results could not be read:"
LARGEST_PLAN = 16 * 2**20
"""Bytes of the largest plan: it names each block's place."""
TOLD_NOTHING = "The program told nothing of what it found."
LEFT_NOTHING = "The program ended, but left no results."


class CheckEffects:
    """Asks BOSS and chat what there was no time to ask at acceptance."""

    def __init__(self, *, ledger: Ledger, lifecycle: Lifecycle) -> None:
        self._ledger = ledger
        self._lifecycle = lifecycle

    def handlers(self) -> Handlers:
        """The handler of CHECK."""
        handler = Handler(perform=self._check, give_up=self._give_up, attempts=CHECKS, exhausted=SILENT)
        return {Kind.CHECK: handler}

    def _check(self, effect: Effect, job: Job) -> None:
        if job.state in FINAL or job.token_ref is None:
            with self._ledger.done(effect):
                return
        if job.cancelled_by:
            self._lifecycle.withdraw(effect)
        else:
            self._lifecycle.check(effect, job, within=CHECK_SECONDS)

    def _give_up(self, effect: Effect, error: str) -> None:
        cause = Cause.VOLUME if error.startswith(SILENT) and UNTOLD not in error else Cause.UNKNOWN
        self._lifecycle.refuse(effect, error, cause=cause)


class Launcher:
    """Makes the Work of a job: arguments by the pipelines' contract, processors, memory and time limit."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        results: Results,
        boss_host: str,
        predictions: str = "",
        viewer: str = "",
        roots: str = "",
        image_bytes: int = IMAGE_BYTES,
        block_voxels: int = BLOCK_VOXELS,
    ) -> None:
        """`predictions` (`collection/experiment` in BOSS) and `viewer` (a URL) are handed to programs; empty: not.

        `image_bytes` are those of the largest image that programs write beside their results, and `block_voxels` those
        of a block where the pipeline names no other number.

        `roots` are the places where volumes and BOSS's bulk data may lie, as volumes.roots reads them.
        """
        self._roots = roots
        self._image_bytes = image_bytes
        self._block_voxels = block_voxels
        self._catalog = catalog
        self._results = results
        self._boss_host = boss_host
        self._predictions = predictions
        self._viewer = viewer

    def work(self, job: Job, *, token_ref: str) -> Work:
        """The job as compute is asked to run it. Raises Refused where its pipeline is gone."""
        pipeline = self._catalog.get(job.request.pipeline)
        if pipeline is None:
            raise Refused("This pipeline is no longer on offer.")
        return Work(
            name=job.name,
            pipeline=pipeline.name,
            image=pipeline.image,
            command=pipeline.command,
            arguments=[*self._arguments(job, pipeline.contract), *self._stage(job, pipeline)],
            results=self._folder(job),
            lasting=job.blocks.lasting if job.blocks else job.lasting,
            shared=f"{self._shared(job)}{BLOCKS}/" if job.blocks and job.blocks.stage == BLOCKS else "",
            count=job.blocks.rounds[-1] if job.blocks and job.blocks.stage == BLOCKS else None,
            token_argument=pipeline.contract == "2018",
            cpu=pipeline.cpu,
            memory=self._memory(job, pipeline),
            timeout=self._time_limit(job, pipeline),
            owner=job.actor,
            token=token_ref,
            tags={"job": job.id, "user": job.actor, "pipeline": pipeline.name},
        )

    def _folder(self, job: Job) -> str:
        """Where the program writes: in the job's folder, or of a round over blocks in that round's."""
        if job.blocks and job.blocks.stage == PILOT:
            return f"{self._results.uri(job.folder)}{PILOT}/"
        if job.blocks and job.blocks.stage == BLOCKS:
            return f"{self._shared(job)}{BLOCKS}/{len(job.blocks.rounds)}/"
        return self._results.uri(job.folder)

    def _shared(self, job: Job) -> str:
        """Where the stages of a job in blocks leave files for one another."""
        return self._results.uri(job.blocks.origin if job.blocks and job.blocks.origin else job.folder)

    def _memory(self, job: Job, pipeline: Pipeline) -> int:
        voxels = job.request.box.voxels
        if job.blocks is None:
            return pipeline.memory_for(voxels)
        least = job.blocks.merge_memory if job.blocks.stage == MERGE else 0
        usual = pipeline.memory_for(min(voxels, self._block(pipeline)))
        return max(job.blocks.memory * usual, min(job.blocks.memory * least, MOST_MEMORY))

    def _time_limit(self, job: Job, pipeline: Pipeline) -> timedelta:
        merge = job.blocks.merge_seconds if job.blocks and job.blocks.stage == MERGE else 0
        return max(timedelta(seconds=merge), pipeline.time_limit)

    def _block(self, pipeline: Pipeline) -> int:
        return pipeline.blocks.voxels or self._block_voxels if pipeline.blocks else self._block_voxels

    def _stage(self, job: Job, pipeline: Pipeline) -> list[str]:
        """The arguments of a stage of a job in blocks."""
        if job.blocks is None or job.blocks.stage == PILOT:  # a pilot is one run, of a smaller box
            return []
        words = ["--stage", job.blocks.stage, "--job-uri", self._shared(job)]
        words += ["--block-voxels", str(self._block(pipeline))]
        return [*words, "--rounds", ",".join(map(str, job.blocks.rounds))] if job.blocks.rounds else words

    def _arguments(self, job: Job, contract: str) -> list[str]:
        request = job.request
        arguments = ["--host", self._boss_host, "--col", request.collection, "--exp", request.experiment]
        if request.volume:
            arguments = ["--volume", request.volume]
        pilot = job.blocks is not None and job.blocks.stage == PILOT
        box = _box(job.blocks) if job.blocks and pilot else request.box
        for axis in "zyx":
            side = getattr(box, axis)
            arguments += [f"--{axis}-range", f"{side.start},{side.stop}"]
        if contract == "2018":
            return arguments
        if contract == "2":
            arguments += ["--volume-roots", self._roots] if self._roots else []
            arguments += ["--image-bytes", str(self._image_bytes)]
        for name, value in request.options.items():  # none of a value's first characters is a dash
            arguments += [f"--{name}", value]
        arguments += ["--results-uri", self._folder(job), "--results-key", request.results_key]
        if self._predictions and not request.volume and not pilot:
            arguments += ["--predictions", self._predictions]
        if self._viewer:
            arguments += ["--viewer", self._viewer]
        return arguments


def _box(blocks: Blocks) -> Box:
    """The pilot's box."""
    assert blocks.pilot
    z, y, x = (Range(low, high) for low, high in blocks.pilot)
    return Box(z, y, x)


class SubmitEffects:
    """Submits jobs to compute and cancels them there. A submission in doubt is looked for by the job's unique name."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lifecycle: Lifecycle,
        stalls: Stalls,
        compute: Compute,
        tokens: TokenKeeper,
        launcher: Launcher,
        rate: Rate,
    ) -> None:
        """`rate` is that at which compute takes submissions."""
        self._rate = rate
        self._ledger = ledger
        self._stalls = stalls
        self._lifecycle = lifecycle
        self._compute = compute
        self._tokens = tokens
        self._launcher = launcher

    def handlers(self) -> Handlers:
        """The handlers of SUBMIT and CANCEL."""
        return {
            Kind.SUBMIT: Handler(
                perform=self._submit,
                give_up=partial(self._give_up, cause=Cause.UNKNOWN),
                refused=partial(self._give_up, cause=Cause.SETUP),
            ),
            Kind.CANCEL: Handler(perform=self._cancel, give_up=self._lifecycle.not_cancelled),
        }

    def _submit(self, effect: Effect, job: Job) -> None:
        reference = job.token_ref
        if job.state in FINAL or reference is None or effect.subject != job.stage:
            with self._ledger.done(effect):
                return
        if job.cancelled_by and not effect.in_doubt:
            self._lifecycle.withdraw(effect)
            return
        with self._stalls.noticed(job):
            compute_id = self._compute.find(job.name) if effect.in_doubt else None
            if compute_id is None and not job.cancelled_by:
                reference = self._tokens.hand_over(job.actor, reference)
                work = self._launcher.work(job, token_ref=reference)
                compute_id = self._compute.submit(work, turn=partial(self._turn, effect))
        if compute_id is None:
            self._lifecycle.withdraw(effect)
            return
        self._lifecycle.submitted(effect, compute_id, token_ref=reference)

    def _turn(self, effect: Effect) -> None:
        """What compute calls right before it takes the work: from then on, nobody can take that back."""
        self._rate.turn()
        self._ledger.insist(effect)

    def _give_up(self, effect: Effect, error: str, *, cause: Cause) -> None:
        """Fail the job, unless compute has it from an earlier attempt: then that is the job's program."""
        with self._ledger.database.read() as transaction:
            job = transaction.jobs.get(effect.job_id)
        compute_id = self._found(effect, job) if effect.in_doubt else None
        if compute_id and job.token_ref:
            self._lifecycle.submitted(effect, compute_id, token_ref=job.token_ref)
        else:
            self._lifecycle.refuse(effect, error, cause=cause)

    def _found(self, effect: Effect, job: Job) -> str | None:
        """Compute's id of a job that an earlier attempt may have submitted; None: compute does not have the job.

        Raises Unavailable where compute does not say that, as often as an effect is tried; None then.
        """
        try:
            with self._stalls.noticed(job):
                return self._asked(job)
        except Unavailable as error:
            log.warning("Job %s: %s", job.id, error)
            if effect.attempts < GIVE_UP:
                raise
        return None

    def _asked(self, job: Job) -> str | None:
        """As `Compute.find`. Raises Unavailable whatever compute answers instead."""
        try:
            return self._compute.find(job.name)
        except Unavailable:
            raise
        except NomadsError as error:
            raise Unavailable(f"{UNSAID} {error}") from error
        except Exception as error:
            log.warning("Job %s: compute's answer makes no sense: %s", job.id, words.where(error))
            raise Unavailable(UNSAID) from error

    def _cancel(self, effect: Effect, job: Job) -> None:
        if job.compute_id and job.state not in FINAL:
            self._ledger.insist(effect)  # another worker may have been told that it cannot be cancelled
            with self._stalls.noticed(job):
                self._compute.cancel(job.compute_id, reason=CANCELLED)
        with self._ledger.done(effect):
            pass


class AdvanceEffects:
    """Finds out what follows a stage of a job in blocks that has ended, and enqueues it."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lifecycle: Lifecycle,
        stalls: Stalls,
        compute: Compute,
        results: Results,
        output: Output,
        tokens: TokenKeeper,
        reads: int = 256,
    ) -> None:
        """`reads` is how many programs of all jobs in blocks together may read from BOSS at once."""
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._stalls = stalls
        self._compute = compute
        self._results = results
        self._output = output
        self._tokens = tokens
        self._reads = reads

    def handlers(self) -> Handlers:
        """The handler of ADVANCE."""
        return {
            Kind.ADVANCE: Handler(perform=self._advance, give_up=partial(self._lifecycle.refuse, cause=Cause.UNKNOWN))
        }

    def _advance(self, effect: Effect, job: Job) -> None:
        blocks = job.blocks
        if job.state in FINAL or blocks is None or effect.subject != blocks.label:
            with self._ledger.done(effect):
                return
        if job.cancelled_by:
            self._lifecycle.withdraw(effect)
            return
        with self._stalls.noticed(job):
            if blocks.missed:
                self._lifecycle.advanced(effect, blocks.tried_again(), note=blocks.missed)
            elif blocks.stage == FIRST:
                self._planned(effect, job, blocks)
            elif blocks.stage == PILOT:
                self._piloted(effect, job, blocks)
            else:
                self._again(effect, job, blocks)

    def _planned(self, effect: Effect, job: Job, blocks: Blocks) -> None:
        try:
            plan = self._results.read(job.folder, PLAN, limit=LARGEST_PLAN)
            after = blocks.planned(plan, job.request.box, most=self._most(job))
        except (NotFound, Unplanned) as error:
            said = str(error) if isinstance(error, Unplanned) else "The first look at the volume has left no plan."
            self._lifecycle.turn_down(effect, said, cause=Cause.PROGRAM)
            return
        self._lifecycle.advanced(effect, after, note=told(blocks, after, (), voxels=job.request.box.voxels))

    def _most(self, job: Job) -> int:
        """How many programs a round of the job may have: as many as compute takes, and half of what BOSS has left.

        So a later job has a share too, and all together never have more, but for one program each.
        """
        if job.request.volume:
            return self._compute.max_count
        with self._ledger.database.read() as transaction:
            running = sum(
                one.blocks.rounds[-1]
                for one in transaction.jobs.in_blocks()
                if one.blocks and one.blocks.stage == BLOCKS and one.id != job.id and not one.request.volume
            )
        return min(self._compute.max_count, max(1, (self._reads - running) // 2))

    def _piloted(self, effect: Effect, job: Job, blocks: Blocks) -> None:
        try:
            summary = self._output.summary(job, within=f"{PILOT}/")
        except (NotFound, Unreadable, Refused):
            summary = Summary()
        preview = f"{PILOT}/{summary.preview}" if summary.preview else ""
        said = after_pilot(blocks, summary, _box(blocks), job.expected)
        self._lifecycle.advanced(effect, blocks.piloted(said, preview=preview), note=said)

    def _again(self, effect: Effect, job: Job, blocks: Blocks) -> None:
        failed = self._failed(job, blocks.ended[-1])
        after, wrong = blocks.after(failed)
        if wrong:
            self._lifecycle.turn_down(effect, wrong.reason or "A program of the job cannot work.", cause=wrong.why)
            return
        self._lifecycle.advanced(
            effect,
            after,
            note=told(blocks, after, list(failed.values()), voxels=job.request.box.voxels, expected=job.expected),
        )

    def _failed(self, job: Job, compute_id: str) -> Mapping[int, Observation]:
        """The programs of an array that failed. Their reasons are without the token: compute may quote a program."""
        failed = self._compute.children(compute_id, states=(JobState.FAILED, JobState.LOST))
        reasons = sorted({one.reason for one in failed.values()})
        clean = dict(zip(reasons, self._tokens.masked(reasons, job.token_ref), strict=True))
        return {number: replace(one, reason=clean[one.reason]) for number, one in failed.items()}


class CollectEffects:
    """Reads what an ended job has left: its results, or the end of its log."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lifecycle: Lifecycle,
        stalls: Stalls,
        catalog: Catalog,
        results: Results,
        output: Output,
    ) -> None:
        self._ledger = ledger
        self._stalls = stalls
        self._lifecycle = lifecycle
        self._catalog = catalog
        self._results = results
        self._output = output

    def handlers(self) -> Handlers:
        """The handler of COLLECT."""
        return {Kind.COLLECT: Handler(perform=self._collect, give_up=self._give_up)}

    def _collect(self, effect: Effect, job: Job) -> None:
        summary, trouble, tail = None, "", list[str]()
        with self._stalls.noticed(job):
            if job.state is JobState.SUCCEEDED:
                summary, trouble = self._found(job)
            else:
                summary = self._closed(job)
                if job.state is not JobState.CANCELLED:  # whoever cancelled it need not be told how far it was
                    tail = [line.text for line in self._output.tail(job, lines=LOG_LINES)]
            masked = self._masked(job)
        self._lifecycle.conclude(effect, summary=summary, log_tail=tail, trouble=trouble, masked=masked)

    def _give_up(self, effect: Effect, error: str) -> None:
        with self._ledger.database.read() as transaction:
            job = transaction.jobs.get(effect.job_id)
        try:
            masked = self._masked(job)
        except Exception as fault:
            masked = False
            log.error("Job %s: its log stays hidden, with the token in it: %s", job.id, words.where(fault))
        trouble = f"{UNREAD} {error}" if job.state is JobState.SUCCEEDED else ""
        unread = Summary(only_named=True)  # nobody has looked whether a file's name holds the token
        self._lifecycle.conclude(effect, summary=unread, log_tail=(), trouble=trouble, note=error, masked=masked)

    def _masked(self, job: Job) -> bool:
        """See to it that the job's logs are without the token. Returns False where it may still be in them.

        A program that ended in order has no token in its log; of those of earlier stages the job does not know that.
        """
        return (job.exit_code is not None and job.blocks is None) or self._output.redact(job)

    def _found(self, job: Job) -> tuple[Summary, str]:
        """The announced results that are there; without any, the folder's files. And what is wrong; empty: nothing."""
        try:
            said = self._output.summary(job)
        except NotFound:
            pipeline = self._catalog.get(job.request.pipeline)
            # the images of 2018 know of no such file
            old = pipeline is not None and pipeline.contract == "2018"
            summary, trouble = self._files(job), "" if old else f"The program ended, but left no {RESULTS}."
            return summary, trouble or ("" if summary.files else LEFT_NOTHING)
        except (Refused, Unreadable) as error:
            return self._files(job), f"{UNREAD} {error}"
        return self._held_against_folder(job, said)

    def _held_against_folder(self, job: Job, said: Summary) -> tuple[Summary, str]:
        try:
            files, hidden = self._output.left(job)
        except Refused as refusal:  # who may only read is told what is announced
            log.warning("Job %s: whether its files are there is not known. %s", job.id, refusal)
            return said, TOLD_NOTHING if said.silent else ""
        if said.silent:
            left = self._files(job, besides=RESULTS)
            return left, TOLD_NOTHING if left.files else LEFT_NOTHING
        there, missing = said.beside({file.name for file in files})
        if hidden and not there.only_named:
            there = there.without_names()
        return there, missing if there.silent else ""

    def _closed(self, job: Job) -> Summary | None:
        """None, unless a job that did not succeed left files whose names hold the token, or may hold it."""
        try:
            return Summary(only_named=True) if self._output.left(job)[1] else None
        except Refused:  # its folder cannot be read
            return Summary(only_named=True)

    def _files(self, job: Job, *, besides: str = "") -> Summary:
        """The files of the job's folder, LINKS at most, without the one of the name `besides`."""
        files, hidden = self._output.left(job)
        found = [finding for file in files if file.name != besides and (finding := _left(file))]
        log.info("Job %s announces no results; it left %d files.", job.id, len(found))
        summary = Summary(files=found[:LINKS])
        return summary.without_names() if hidden else summary


def _left(file: ResultFile) -> Finding | None:
    """A file in the results folder; None for the log, and for a name that is unfit to be shown."""
    try:
        return Finding(name=file.name) if file.name != LOG_FILE else None
    except ValidationError:
        return None
