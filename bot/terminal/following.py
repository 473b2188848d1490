"""`jobs`, `status`, `logs`, `cancel` and `retry`: commands for existing jobs, whether or not a bot runs."""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from bot.app import build_core
from bot.application.output import log_lines
from bot.application.steering import Needed
from bot.core import Core
from bot.domain import words
from bot.domain.checks import token_problem
from bot.domain.errors import InvalidRequest, NomadsError, TooLate
from bot.domain.job import AlreadyRunning, Job, Transition
from bot.domain.states import FINAL, JobState
from bot.domain.work import LogLine
from bot.settings import Settings
from bot.terminal.screen import Screen, how_far, screen
from bot.terminal.serve import working
from bot.terminal.submit import LOOK, PATIENCE, current_actor, follow, results_of, token
from contract.masking import MASK

TAIL = 1000
"""Lines of a growing log that are compared between two looks."""
CANCELLING = 30.0
"""Seconds in which a cancelled job usually ends: its program has five between SIGTERM and SIGKILL."""
_STRUCK = re.compile(r"\*{4,}")
"""What stands for a token in the log of an ended job."""


def jobs(settings: Settings, arguments: argparse.Namespace) -> int:
    """List jobs, newest first; `--before` the last one shown gives the next page. Returns 0. Raises InvalidRequest."""
    core = _core(settings)
    try:
        states = [JobState(arguments.state.upper())] if arguments.state else list(JobState)
    except ValueError:
        known = ", ".join(state.lower() for state in JobState)
        raise InvalidRequest({"state": f"There is no state {arguments.state}; there is {known}."}) from None
    before = core.queries.named(arguments.before, actor=current_actor()).id if arguments.before else None
    page = core.queries.page_of(states, before=before, most=arguments.limit)
    if arguments.json:
        for job in page.jobs:
            print(json.dumps(_said(core, job)))
    else:
        with screen() as shown:
            shown.table(page.jobs)
    if page.more:
        print(f"There are older ones: --before {page.jobs[-1].id}", file=sys.stderr)
    core.close()
    return 0


def status(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print everything of a job. Returns 0, or 1 where the job ended without success. Raises UnknownJob."""
    core = _core(settings)
    job = core.queries.named(arguments.job, actor=current_actor())
    steps = core.queries.transitions(job.id)
    if arguments.json:
        told = [{"state": step.state.value, "at": step.at.isoformat(), "text": step.text} for step in steps]
        print(json.dumps(_said(core, job) | {"transitions": told}))
    else:
        with screen() as shown:
            _tell(core, job, steps, shown)
    core.close()
    return _code(job)


def _tell(core: Core, job: Job, steps: Sequence[Transition], shown: Screen) -> None:
    request = job.request
    shown.say(f"Job {job.id}: {job.stands.lower()}", job.state)
    shown.say(f"{request.pipeline} on {request.place}, {request.box}, asked by {job.actor}")
    if options := core.catalog.told_options(request):
        shown.say(f"Options: {words.options(options)}")
    for one in core.queries.attempts(job, actor=current_actor()):
        if one.id != job.id:
            shown.say(f"Attempt {one.attempt}: job {one.id}, {words.state(one.state)}", one.state)
    for step in steps:
        text = step.text or words.state(step.state).capitalize() + "."
        shown.say(f"{step.at:%Y-%m-%d %H:%M:%S} {text}", step.state)
    if far := how_far(job):
        shown.say(f"Now: {far}", job.state)
    if job.lacks:
        shown.say(f"{job.lacks}; nomads retry {job.id} works on these alone.")
    if job.unposted:
        shown.say(f"Slack: its card could not be posted. {job.unposted}", job.state)
    if job.compute_id:
        shown.say(f"Compute id: {job.compute_id} {core.output.console(job)}".rstrip())
    shown.say(f"Results: {results_of(core, job)}")


def logs(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the last lines of a job's log with their times; with `--follow`, also new lines until the job ends.

    Returns 0, or 1 where a followed job ended without success. Raises UnknownJob.
    """
    core = _core(settings)
    job = core.queries.named(arguments.job, actor=current_actor())
    if not arguments.follow or job.ended:
        with screen() as shown:
            _print(core.output.tail(job, lines=arguments.lines), shown)
        core.close()
        return 0
    with working(core), screen(progress=False) as shown:  # the log has the program's own lines of progress
        return _code(_follow_log(core, job, arguments.lines, shown))


def cancel(settings: Settings, arguments: argparse.Namespace) -> int:
    """Cancel a job and wait for its end. Returns 0, or 1 where the job had ended, or goes on. Raises UnknownJob."""
    core = _core(settings)
    job_id = core.queries.named(arguments.job, actor=current_actor()).id
    with working(core):
        try:
            job = core.steering.cancel(job_id, actor=current_actor())
        except TooLate as error:
            print(error, file=sys.stderr)
            return 1
        until = time.monotonic() + CANCELLING
        while not job.ended and time.monotonic() < until:
            threading.Event().wait(LOOK)
            job = core.queries.find(job_id)
        with screen() as shown:
            shown.say(f"Job {job.id}: {words.state(job.state) if job.ended else 'being cancelled'}.", job.state)
        return 0 if job.state is JobState.CANCELLED else 1


def retry(settings: Settings, arguments: argparse.Namespace) -> int:
    """Retry a job; with `--wait`, stay until the new attempt ends. Returns as submit does.

    Without `--anyway`, a job that would fail again with nothing changed is not retried, and is said to be such a one.
    """
    core = _core(settings)
    try:
        job = core.steering.retryable(
            core.queries.named(arguments.job, actor=current_actor()).id, actor=current_actor()
        )
        if job.doubt and not job.retried_as and not arguments.anyway:
            raise TooLate(f"{job.doubt}\nIf that is mended: nomads retry {job.id} --anyway")
    except TooLate as error:
        print(error, file=sys.stderr)
        core.close()
        return 1
    given = token()
    with working(core):
        try:
            outcome = core.steering.retry(
                job.id, actor=current_actor(), token=given, anyway=arguments.anyway, within=PATIENCE
            )
            if isinstance(outcome, Needed):
                raise InvalidRequest({"token": token_problem("")})
            again = outcome.job
        except AlreadyRunning as found:
            again = found.job
            print(f"{found} It is followed instead.", file=sys.stderr)
        return follow(core, again, wait=arguments.wait, as_json=arguments.json)


def _core(settings: Settings) -> Core:
    core = build_core(settings, base_url=settings.public_url.rstrip("/"))
    core.database.migrate()
    return core


def _code(job: Job) -> int:
    return 1 if job.state in FINAL - {JobState.SUCCEEDED} else 0


def _said(core: Core, job: Job) -> dict[str, Any]:
    """The job as JSON for programs, without its token and mail address, which are private."""
    request = job.request
    times = {name: getattr(job, name) for name in ("accepted_at", "submitted_at", "started_at", "finished_at")}
    return {
        "job": job.id,
        "state": job.state.value,
        "pipeline": request.pipeline,
        "collection": request.collection,
        "experiment": request.experiment,
        **({"volume": request.volume} if request.volume else {}),
        **{axis: str(getattr(request, axis)) for axis in "xyz"},
        "options": request.options,
        "actor": job.actor,
        **{name: at.isoformat() if at else None for name, at in times.items()},
        "progress": job.progress.part if job.progress else None,
        **({"blocks": job.blocks.model_dump(include={"all", "done", "again"})} if job.blocks else {}),
        "reason": job.reason,
        "attempt": job.attempt,
        "retry_of": job.retry_of,
        "retried_as": job.retried_as,
        "cancelled_by": job.cancelled_by,
        "compute_id": job.compute_id,
        "results_url": results_of(core, job),
    }


def _follow_log(core: Core, job: Job, lines: int, on: Screen) -> Job:
    """Print the log as it grows, until the job ends; returns the ended job."""
    seen: list[LogLine] = []
    shown = 0
    pause = threading.Event()
    while True:
        job = core.queries.find(job.id)
        try:
            found = core.output.tail(job, lines=TAIL)
        except NomadsError as error:
            on.note(str(error))
            found = seen
        known = overlap(seen, found)
        shown = max(0, shown - (len(seen) - known)) if seen else max(0, len(found) - lines)
        # The last line may be half written: it is printed once it has not changed, or another line follows.
        whole = (
            len(found) if job.ended or [line.text for line in found] == [line.text for line in seen] else len(found) - 1
        )
        _print(found[shown:whole], on)
        on.show(job)
        shown, seen = max(shown, whole), found
        if job.ended:
            on.note(f"Job {job.id}: {words.state(job.state)}.", job.state)
            return job
        pause.wait(LOOK)


def overlap(seen: Sequence[LogLine], found: Sequence[LogLine]) -> int:
    """How many of the lines found were seen before: the most that end `seen` and begin `found`.

    The last line seen may have grown since. Times do not count, since a line's time may become more precise, nor does
    what stands for a token.
    """
    before, now = ([_STRUCK.sub(MASK, line.text) for line in lines] for lines in (seen, found))
    for known in range(min(len(seen), len(found)), 0, -1):
        grown = now[known - 1].startswith(before[-1])
        if grown and before[len(seen) - known : -1] == now[: known - 1]:
            return known
    return 0


def _print(lines: Sequence[LogLine], on: Screen) -> None:
    for line in log_lines(lines):
        on.say(line)
