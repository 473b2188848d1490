"""Carries out the effects of the outbox, and watches the jobs that compute has.

An effect is leased, done, or put off with back-off. One whose earlier attempt may have gone through is looked for
before it is repeated: compute by the job's unique name, a channel by the message's key; mail has a fixed Message-ID.
"""

from __future__ import annotations

import json
import logging
import random
import secrets as entropy
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

from bot.application.letters import acceptance, ending
from bot.application.output import LINKS, LOG_FILE, Output
from bot.application.ports import Chat, Compute, Mailer, Results, Secrets
from bot.application.service import LOG_LINES, JobService
from bot.domain import words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import NomadsError, NotFound, Refused, Unavailable
from bot.domain.job import Job, Watched, now
from bot.domain.messages import Step, Story
from bot.domain.outbox import Effect, Kind, Lane
from bot.domain.results import Finding, ResultFile, Summary
from bot.domain.states import FINAL, JobState
from bot.domain.work import CANCELLED, Observation, Progress, Work
from bot.storage.store import JobStore

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

LEASE = timedelta(seconds=15)
"""How long a dead worker's effects stay untouched; a living one renews in time."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 300.0
"""Seconds: the back-off's first step and its ceiling."""
GIVE_UP = 900
"""Attempts, about three days of back-off, after which chat and mail effects are given up. Compute's never are."""
MAX_SUMMARY, MAX_PREVIEW = 2**20, 8 * 2**20
"""Bytes of results.json and of the preview that are read."""
PROGRESS_EVERY = timedelta(seconds=3)
"""How long a running job's card stays as it is, at least, before it shows the program's progress again."""
LOOKS, LOOKS_A_SECOND = 10.0, 0.5
"""Of progress, for all jobs together: at once, and on average. Each may edit a card, and Slack takes some 50 edits a
minute; on AWS each is a call of CloudWatch."""
CHECK_SECONDS, CHECKS = 10.0, 20
"""What BOSS is given to say whether a request can work, when nobody waits for the answer, and how often: about an hour
with back-off. Then the person hears that it could not be asked."""
AT_ONCE = 20
"""Effects of a lane that are claimed at once where they are carried out one after the other."""
_OF_CHAT = frozenset({Lane.CHAT, Lane.EDIT, Lane.HOME})
ASKED = 400
"""Jobs that compute is asked about at once: four of AWS Batch's calls, made side by side."""
THREADS = {Lane.COMPUTE: 4, Lane.CHAT: 4, Lane.EDIT: 2, Lane.HOME: 1, Lane.MAIL: 2}
"""Effects carried out at once in each lane, so that a dead mail server holds back nothing but mail."""


def back_off(attempts: int) -> float:
    """Seconds to wait after that many attempts: doubling, with jitter so that a crowd does not return together."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts - 1, 16)) * random.uniform(0.7, 1.3)  # noqa: S311 - jitter


class Worker:
    """One process's worker. Any number may share a database."""

    def __init__(
        self,
        *,
        store: JobStore,
        service: JobService,
        catalog: Catalog,
        compute: Compute,
        results: Results,
        vault: Secrets,
        secrets: Secrets,
        output: Output,
        mailer: Mailer,
        chat: Chat | None,
        boss_host: str,
        predictions: str = "",
        viewer: str = "",
        admins: Sequence[str] = (),
        mail_domain: str,
        watch_interval: float,
        lost_after: timedelta,
        explain_after: timedelta = timedelta(minutes=10),
        lease: timedelta = LEASE,
        edit_every: timedelta,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`vault` is where the service put the token, `secrets` where this compute takes it from (often the same).

        `predictions` (`collection/experiment` in BOSS) and `viewer` (a URL) are handed to programs; empty: neither.
        A card, or a home tab, stays as it is for `edit_every` at least. `admins` are named where a job has waited to
        run for longer than `explain_after`. Without `chat` (the command line with no Slack) jobs that a channel hears
        of are left for a worker that has it.
        """
        self._store = store
        self._service = service
        self._catalog = catalog
        self._compute = compute
        self._results = results
        self._vault = vault
        self._secrets = secrets
        self._output = output
        self._mailer = mailer
        self._chat = chat
        self._boss_host = boss_host
        self._predictions = predictions
        self._viewer = viewer
        self._admins = tuple(admins)
        self._mail_domain = mail_domain
        self._watch_interval = watch_interval
        self._lost_after = lost_after
        self._explain_after = explain_after
        self._lease = lease
        self._edit_every = edit_every
        self._clock = clock
        self._holder = entropy.token_hex(8)
        self._missing: set[str] = set()
        self._looked: dict[str, datetime] = {}
        self._looks, self._looks_at = LOOKS, clock()
        self._held: dict[int, Effect] = {}
        self._wake = {lane: threading.Event() for lane in self._lanes}
        self._stop = threading.Event()
        self._over = threading.Event()
        service.on_commit(self.wake)
        self._actions: Mapping[Kind, Callable[[Effect, Job], None]] = {
            Kind.CHECK: self._check,
            Kind.SUBMIT: self._submit,
            Kind.CANCEL: self._cancel,
            Kind.COLLECT: self._collect,
            Kind.CARD: self._card,
            Kind.REPLY: self._reply,
            Kind.PREVIEW: self._preview,
            Kind.EDIT: self._edit,
            Kind.HOME: self._home,
            Kind.MAIL_ACCEPTED: self._mail,
            Kind.MAIL_FINISHED: self._mail,
        }

    @property
    def _lanes(self) -> Iterable[Lane]:
        return [lane for lane in Lane if lane not in _OF_CHAT or self._chat]

    # Running

    def run(self) -> None:
        """Work until `stop()`; what is under way is finished first."""
        leases = threading.Thread(target=self._keep_leases, name="leases")
        threads = [threading.Thread(target=self._serve, args=(lane,), name=f"lane-{lane}") for lane in self._lanes]
        threads += [threading.Thread(target=self._watch, name="watch")]
        for thread in (leases, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        self._over.set()  # not before: what is still being done must stay this worker's
        leases.join()

    def stop(self) -> None:
        """Let `run()` return."""
        self._stop.set()
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        for event in self._wake.values():
            event.set()

    def drain(self, *, job_id: str | None = None) -> int:
        """Do what is due now, here, until nothing is; how many effects that were."""
        done = 0
        while effects := [e for lane in self._lanes for e in self._claim(lane, AT_ONCE, job_id)]:
            for effect in effects:
                self._do(effect)
            done += len(effects)
        return done

    def _serve(self, lane: Lane) -> None:
        wake, free = self._wake[lane], threading.Semaphore(THREADS[lane])
        with ThreadPoolExecutor(THREADS[lane], thread_name_prefix=lane.value) as pool:
            while not self._stop.is_set():
                wake.clear()
                slots = 0
                while slots < THREADS[lane] and free.acquire(blocking=False):
                    slots += 1
                effects = self._attempt(self._claim, lane, slots) if slots else []
                for _ in range(slots - len(effects or [])):
                    free.release()

                def over(_future: Future[None]) -> None:
                    free.release()
                    wake.set()

                for effect in effects or []:
                    pool.submit(self._do, effect).add_done_callback(over)
                if not effects:
                    wake.wait(0.5)  # other processes commit effects too, and put-off ones come due

    def _claim(self, lane: Lane, limit: int, job_id: str | None = None) -> list[Effect]:
        claimed = self._store.claim(
            lane,
            limit=limit,
            lease_for=self._lease,
            at=self._clock(),
            job_id=job_id,
            of_chat=self._chat is not None,
        )
        self._held |= {effect.id: effect for effect in claimed}
        return claimed

    def _keep_leases(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / 3):
            self._attempt(self._store.renew, list(self._held.values()), until=self._clock() + self._lease)

    def _watch(self) -> None:
        interval = timedelta(seconds=self._watch_interval)
        while not self._stop.is_set():
            if self._attempt(
                self._store.take_duty,
                "watch",
                holder=self._holder,
                at=self._clock(),
                lasting=max(3 * interval, self._lease / 3),
            ):
                self._attempt(self.watch_once)
            self._stop.wait(self._watch_interval)

    @staticmethod
    def _attempt(what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """A loop of the worker outlives whatever its rounds run into."""
        try:
            return what(*args, **kwargs)
        except NomadsError as error:
            log.warning("%s", error)
        except Exception as error:
            log.error("A round of the worker failed; the next one will try again: %s", words.where(error))
        return None

    # Watching

    def watch_once(self) -> int:
        """Ask compute about every job it has; how many moved. Jobs it does not answer for now are asked about later."""
        moved = 0
        running: list[tuple[Watched, str | None]] = []
        watched = self._store.watched()
        for first in range(0, len(watched), ASKED):
            some = watched[first : first + ASKED]
            try:
                seen = self._compute.observe([job.compute_id for job in some])
            except Unavailable as error:
                log.warning("Compute cannot be asked about %d jobs now: %s", len(some), error)
                continue
            for job in some:
                if (observation := seen.get(job.compute_id)) is None:
                    observation = self._unknown(job.id, job.submitted_at)
                else:
                    self._missing.discard(job.id)
                if observation and observation.state.follows(job.state):
                    moved += bool(self._attempt(self._service.observe, job.id, observation))
                if observation and observation.state is JobState.RUNNING:
                    running.append((job, observation.log))
                elif observation and observation.state is JobState.RUNNABLE and self._waits_long(job):
                    self._attempt(self._service.waits, job.id, observation.reason)
        self._follow(running)
        return moved

    def _follow(self, running: Sequence[tuple[Watched, str | None]]) -> None:
        """Read how far running programs say they are, those first that were not looked at for longest."""
        at = self._clock()
        self._looked = {job.id: self._looked.get(job.id, at) for job, _ in running}
        self._looks = min(LOOKS, self._looks + LOOKS_A_SECOND * (at - self._looks_at).total_seconds())
        self._looks_at = at
        due = [(job, where) for job, where in running if at - self._looked[job.id] >= PROGRESS_EVERY]
        for job, where in sorted(due, key=lambda one: self._looked[one[0].id])[: int(self._looks)]:
            self._looks -= 1
            self._looked[job.id] = at
            try:
                lines = self._compute.log_tail(job.compute_id, log=where, lines=LOG_LINES)
            except (Unavailable, Refused) as error:
                log.info("Compute does not show how far jobs are: %s", error)
                return
            if progress := Progress.read([line.text for line in lines]):
                self._service.progressed(job.id, progress)

    def _waits_long(self, job: Watched) -> bool:
        """Whether it has waited to run for so long that it should be told why."""
        return job.runnable_at is not None and self._clock() - job.runnable_at > self._explain_after

    def _unknown(self, job_id: str, submitted_at: datetime) -> Observation | None:
        """LOST, once compute has denied the job twice, and not so early that it may merely not know it yet."""
        if job_id not in self._missing:
            self._missing.add(job_id)
            return None
        if self._clock() - submitted_at < self._lost_after:
            return None
        self._missing.discard(job_id)
        return Observation(JobState.LOST, "compute no longer knows this job, and never said how it ended.")

    # Doing

    def _do(self, effect: Effect) -> None:
        try:
            self._actions[effect.kind](effect, self._store.job(effect.job_id))
        except Unavailable as error:
            self._put_off(effect, str(error), error.retry_after)
        except Refused as error:
            log.warning("Job %s: %s was refused: %s", effect.job_id, effect.kind, error)
            self._attempt(self._give_up, effect, str(error))
        except Exception as error:
            log.error("Job %s: %s failed: %s", effect.job_id, effect.kind, words.where(error))
            self._put_off(effect, type(error).__name__, None)
        finally:
            self._held.pop(effect.id, None)

    def _put_off(self, effect: Effect, error: str, retry_after: float | None) -> None:
        if effect.attempts >= GIVE_UP and effect.kind.lane is not Lane.COMPUTE:
            log.error(
                "Job %s: %s is given up after %d attempts: %s", effect.job_id, effect.kind, effect.attempts, error
            )
            self._attempt(self._give_up, effect, error)
            return
        if effect.kind is Kind.CHECK and effect.attempts >= CHECKS:
            self._attempt(self._give_up, effect, f"BOSS could not be asked, time and again: {error}")
            return
        delay = back_off(effect.attempts) if retry_after is None else retry_after
        log.info("Job %s: %s again in %.1f s: %s", effect.job_id, effect.kind, delay, error)
        # Who was told to come back later knows that nothing was done; any other failure leaves it open.
        in_doubt = retry_after is None or effect.in_doubt
        self._attempt(
            self._store.postpone,
            effect,
            due_at=self._clock() + timedelta(seconds=delay),
            in_doubt=in_doubt,
            counted=retry_after is None,
            error=error,
        )

    def _give_up(self, effect: Effect, error: str) -> None:
        if effect.kind in (Kind.CHECK, Kind.SUBMIT):
            self._service.refused(effect, error)
        elif effect.kind is Kind.CANCEL:
            self._service.not_cancelled(effect, error)
        elif effect.kind is Kind.COLLECT:
            self._service.conclude(effect, summary=None, log_tail=(), note=error)
        else:
            self._finish(effect, error=error)

    def _finish(self, effect: Effect, *, message: tuple[str, str] | None = None, error: str | None = None) -> None:
        with self._store.begin() as transaction:
            if transaction.finish(effect, at=self._clock(), error=error) and message:
                transaction.keep_message(effect.job_id, *message, at=self._clock())

    # Compute

    def _check(self, effect: Effect, job: Job) -> None:
        if job.state in FINAL or job.token_ref is None:
            self._finish(effect)
            return
        if job.cancelled_by:
            self._service.not_submitted(effect)
            return
        self._service.checked(effect, self._vault.get(job.token_ref), within=CHECK_SECONDS)

    def _submit(self, effect: Effect, job: Job) -> None:
        if job.state in FINAL or job.token_ref is None:
            self._finish(effect)
            return
        compute_id = self._compute.find(job.name) if effect.in_doubt else None
        if compute_id is None and job.cancelled_by:
            self._service.not_submitted(effect)
            return
        reference = job.token_ref
        if compute_id is None:
            pipeline = self._catalog.get(job.request.pipeline)
            if pipeline is None:
                raise Refused("This pipeline is no longer on offer.")
            if not self._secrets.holds(reference):
                reference = self._secrets.put(job.actor, self._vault.get(reference))
            compute_id = self._compute.submit(self._work(job, pipeline, reference))
        self._service.submitted(effect, compute_id, token_ref=reference)

    def _work(self, job: Job, pipeline: Pipeline, token: str) -> Work:
        request = job.request
        arguments = ["--host", self._boss_host, "--col", request.collection, "--exp", request.experiment]
        for axis in "zyx":
            side = getattr(request, axis)
            arguments += [f"--{axis}-range", f"{side.start},{side.stop}"]
        if pipeline.contract != "2018":
            arguments += ["--results-uri", self._results.uri(job.folder), "--results-key", request.results_key]
            if self._predictions:
                arguments += ["--predictions", self._predictions]
            if self._viewer:
                arguments += ["--viewer", self._viewer]
        return Work(
            name=job.name,
            pipeline=pipeline.name,
            image=pipeline.image,
            command=pipeline.command,
            arguments=arguments,
            token_argument=pipeline.contract == "2018",
            cpu=pipeline.cpu,
            memory=pipeline.memory_for(request.box),
            timeout=pipeline.time_limit,
            owner=job.actor,
            token=token,
            tags={"job": job.id, "user": job.actor, "pipeline": pipeline.name},
        )

    def _cancel(self, effect: Effect, job: Job) -> None:
        if job.compute_id and job.state not in FINAL:
            self._compute.cancel(job.compute_id, reason=CANCELLED)
        self._finish(effect)

    def _collect(self, effect: Effect, job: Job) -> None:
        summary, tail = None, list[str]()
        if job.state is JobState.SUCCEEDED:
            summary = self._summary(job)
        else:
            tail = [line.text for line in self._output.tail(job, lines=LOG_LINES)]
        if job.exit_code is None:  # who ended it may have had no time to strike the token out of its log
            self._output.redact(job)
        self._service.conclude(effect, summary=summary, log_tail=tail)

    def _summary(self, job: Job) -> Summary:
        """The announced results; what lies there, where there is no results.json (an old image) or it is unusable."""
        try:
            return Summary.model_validate(json.loads(self._results.read(job.folder, "results.json", limit=MAX_SUMMARY)))
        except NotFound:
            log.info("Job %s: no results.json; its files are listed instead.", job.id)
        except (Refused, ValueError, ValidationError):
            log.warning("Job %s: its results.json cannot be used; its files are listed instead.", job.id)
        return Summary(files=[finding for file in self._results.list(job.folder) if (finding := _left(file))][:LINKS])

    # Chat and mail

    def _story(self, job: Job) -> Story:
        pipeline = self._catalog.get(job.request.pipeline)
        return Story(
            job=job,
            pipeline_title=pipeline.title if pipeline else job.request.pipeline,
            size=job.size or job.request.box.voxels * (pipeline.channels if pipeline else 1),
            links=self._output.links(job) if job.state is JobState.SUCCEEDED else (),
            address=self._output.address(job),
        )

    def _card(self, effect: Effect, job: Job) -> None:
        chat, story = self._chat_for(job), self._story(job)
        key = f"{job.id}-card"
        if effect.in_doubt and (timestamp := chat.find(story, thread=None, key=key)):
            chat.edit_card(story, timestamp)
        else:
            timestamp = chat.post_card(story, key=key)
        self._finish(effect, message=("card", timestamp))

    def _edit(self, effect: Effect, job: Job) -> None:
        chat, timestamp = self._chat_for(job), self._store.message(job.id, "card")
        if timestamp is None:
            if self._store.open_effects(job.id, kind=Kind.CARD):  # it may show the job as it was before
                raise Unavailable("The card is not posted yet.", retry_after=FIRST_DELAY)
        else:
            self._not_too_often(self._store.edited(job.id, "card"))
            chat.edit_card(self._story(self._store.job(job.id)), timestamp)
        with self._store.begin() as transaction:
            if transaction.finish(effect, at=self._clock()):
                transaction.touch_message(job.id, "card", at=self._clock())

    def _home(self, effect: Effect, job: Job) -> None:
        with self._store.begin() as transaction:  # whatever else calls for it by now is shown with this
            transaction.absorb(effect, job.actor, at=self._clock())
        if self._chat:
            self._not_too_often(self._store.person(job.actor).home_shown_at)
            at = self._clock()
            self._chat.show_home(job.actor, self._service.home(job.actor))
            with self._store.begin() as transaction:
                transaction.keep_person(job.actor, home_shown_at=at)
        self._finish(effect)

    def _not_too_often(self, last: datetime | None) -> None:
        wait = last + self._edit_every - self._clock() if last else timedelta()
        if wait > timedelta():
            raise Unavailable("It was shown a moment ago.", retry_after=wait.total_seconds())

    def _reply(self, effect: Effect, job: Job) -> None:
        chat, story = self._chat_for(job), self._story(job)
        thread = self._thread(job)
        told = [t for t in self._store.transitions(job.id) if t.reply == int(effect.subject) and t.text]
        steps = [Step(text=t.text, at=t.at, state=t.state) for t in told]
        if steps and steps[-1].state in FINAL and self._store.person(job.actor).preferences.mention:
            story = replace(story, mention=job.actor)
        elif steps and steps[-1].state is JobState.RUNNABLE:
            story = replace(story, helpers=self._admins)
        name = f"reply-{effect.subject}"
        timestamp = self._store.message(job.id, name)
        if timestamp:
            chat.edit_reply(story, steps, timestamp)
            self._finish(effect)
            return
        key = f"{job.id}-{name}"
        if effect.in_doubt and (timestamp := chat.find(story, thread=thread, key=key)):
            chat.edit_reply(story, steps, timestamp)
        else:
            timestamp = chat.post_reply(story, steps, thread=thread, key=key)
        self._finish(effect, message=(name, timestamp))

    def _preview(self, effect: Effect, job: Job) -> None:
        chat, story = self._chat_for(job), self._story(job)
        thread = self._thread(job)
        shown = job.summary.preview if job.summary else None
        name = f"{job.id}-{shown}"
        if shown and not (effect.in_doubt and chat.find(story, thread=thread, key=name)):
            content = self._results.read(job.folder, shown, limit=MAX_PREVIEW)
            chat.post_file(story, thread=thread, name=name, title="Preview of the detections", content=content)
        self._finish(effect)

    def _chat_for(self, job: Job) -> Chat:
        if self._chat is None or job.request.channel is None:
            raise Refused("Nobody listens to this job in chat.")
        return self._chat

    def _thread(self, job: Job) -> str:
        thread = self._store.message(job.id, "card")
        if thread is None:
            raise Refused("The card could not be posted, so there is no thread.")
        return thread

    def _mail(self, effect: Effect, job: Job) -> None:
        letter = acceptance if effect.kind is Kind.MAIL_ACCEPTED else ending
        self._mailer.send(letter(self._story(job), message_id=f"<{job.id}.{effect.kind}@{self._mail_domain}>"))
        self._finish(effect)


def _left(file: ResultFile) -> Finding | None:
    """A file that the program left in the results folder; None where its name cannot be told."""
    try:
        return Finding(name=file.name) if file.name != LOG_FILE else None
    except ValidationError:
        return None
