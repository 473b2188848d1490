"""`submit`: one job from the terminal, followed until compute has it or until its end."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import secrets as entropy
import sys
import threading
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from bot.app import build_core
from bot.application.submission import Proposal
from bot.core import Core
from bot.domain.errors import InvalidRequest
from bot.domain.job import AlreadyRunning, Job, Transition
from bot.domain.links import Audience
from bot.domain.named import MARK, needs_no_token
from bot.domain.people import TERMINAL
from bot.domain.states import FINAL, JobState
from bot.settings import Settings
from bot.terminal.screen import Screen, screen
from bot.terminal.serve import working
from contract.program import TOKEN_VARIABLE
from volumes.address import is_address

LOOK = 0.2
"""Seconds between two looks at the job while waiting."""
LOOKS_AFTER = 25
"""Looks for which the command stays for the job's last effects (mail, say), once all is told."""
PATIENCE = 5.0
"""Seconds that BOSS is given to check the request."""
FIELDS = ("pipeline", "collection", "experiment", "x", "y", "z", "email")


def submit(settings: Settings, arguments: argparse.Namespace) -> int:
    """Submit one job and stay until compute has it; with `--wait`, until its end. Returns 0, or 1 where the job failed.

    Where a job does the same work now, or has done it, the command follows that job, unless `--again` is given.
    Raises InvalidRequest with every mistake, by field.
    """
    values = {name: getattr(arguments, name) for name in FIELDS} | {"options": _options(arguments.option)}
    if arguments.volume:
        values |= _volume(arguments)
    actor = current_actor()
    core = build_core(settings, base_url=settings.public_url.rstrip("/"))
    given = SecretStr("") if needs_no_token(values["collection"]) else token()
    reviewed = core.submission.review(values, given, actor=actor, within=PATIENCE)  # before anything is made here
    core.database.migrate()
    proposal = core.submission.ask(reviewed, actor=actor, within=PATIENCE)
    if values["email"] and not core.queries.mails:
        print("Mail is off (NOMADS_MAIL), so none is sent to this address.", file=sys.stderr)
    with working(core):  # a bot may or may not be running beside this process; leases keep the two apart
        job = _taken(core, proposal, actor=actor, again=arguments.again)
        return follow(core, job, wait=arguments.wait, as_json=arguments.json)


def _volume(arguments: argparse.Namespace) -> dict[str, str]:
    """The fields that `--volume` stands for. Raises InvalidRequest where they are given too."""
    if arguments.collection or arguments.experiment:
        raise InvalidRequest(
            {"volume": "This takes the place of --collection and --experiment; give one or the other."}
        )
    typed = arguments.volume.strip()
    return {"collection": typed if is_address(typed) else f"{MARK}{typed}", "experiment": ""}


def _options(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Values by name. Raises InvalidRequest where two are given for one name."""
    options = dict(given)
    names = [name for name, _ in given]
    if twice := {name: "This option is given twice; give it once." for name in options if names.count(name) > 1}:
        raise InvalidRequest(twice)
    return options


def current_actor() -> str:
    """The name, as in Job.actor, of the person at this terminal."""
    return f"{TERMINAL}{getpass.getuser()}"


def results_of(core: Core, job: Job) -> str:
    """Where the person at this terminal finds the job's results."""
    return core.output.address(job, Audience.person(current_actor()))


def follow(core: Core, job: Job, *, wait: bool, as_json: bool) -> int:
    """Print a job's steps until compute has the job, or with `wait` until its end. Returns 1 where it failed.

    A terminal shows a bar below the steps; elsewhere notable progress goes to stderr, or with `as_json` nowhere.
    """
    try:
        with screen(plain=as_json, progress=not as_json) as shown:
            return _follow(core, _Teller(core, job, shown, as_json=as_json), shown, wait=wait)
    except KeyboardInterrupt:
        print(f"Job {job.id} was submitted and is not cancelled.", file=sys.stderr)
        raise


def _taken(core: Core, proposal: Proposal, *, actor: str, again: bool) -> Job:
    """The job to follow: a new one, or one that does or has done the same work."""
    question = None if again else core.submission.decide(proposal)
    job = question.proposal.twin if question else None
    if job is None:
        print(f"{proposal.reviewed.box}: {proposal.takes}", file=sys.stderr)
        try:
            return core.submission.accept(proposal, actor=actor, key=f"cli:{entropy.token_hex(16)}", again=again)
        except AlreadyRunning as found:
            job = found.job
    done = "has done" if job.state in FINAL else "does"
    print(f"Job {job.id} {done} this; --again runs it again.", file=sys.stderr)
    return job


def token() -> SecretStr:
    """The BOSS token: from the environment, or typed; empty without either."""
    given = os.environ.get(TOKEN_VARIABLE) or (getpass.getpass("BOSS token: ") if sys.stdin.isatty() else "")
    return SecretStr(given.strip())


def _follow(core: Core, teller: _Teller, shown: Screen, *, wait: bool) -> int:
    pause = threading.Event()
    patience, looks = LOOKS_AFTER, 0
    while True:
        job = teller.tell()
        shown.show(job)
        taken = job.state in FINAL if wait else job.state is not JobState.ACCEPTED
        if not wait and not job.checked:  # BOSS does not answer: any worker of this database will submit the job
            looks += 1
            taken = taken or looks > LOOKS_AFTER
        told = job.state not in FINAL or teller.told(job.state)
        if taken and told:
            # Wait a moment for mail, not long: another worker will send what is left.
            if patience <= 0 or looks > LOOKS_AFTER or not _open_effects(core, job):
                return 1 if job.state in FINAL - {JobState.SUCCEEDED} else 0
            patience -= 1
        pause.wait(LOOK)


def _open_effects(core: Core, job: Job) -> int:
    with core.database.read() as transaction:
        return transaction.outbox.open(job.id)


class _Teller:
    """Prints each transition once."""

    def __init__(self, core: Core, job: Job, shown: Screen, *, as_json: bool) -> None:
        self._core = core
        self._screen = shown
        self._id = job.id
        self._json = as_json
        self._told: dict[int, Transition] = {}

    def told(self, state: JobState) -> bool:
        """Whether the transition into that state was printed."""
        return any(step.state is state and not step.note for step in self._told.values())

    def tell(self) -> Job:
        """Print new transitions; returns the job as it stands. An end is printed once its results are collected."""
        transitions = self._core.queries.transitions(self._id)
        job = self._core.queries.find(self._id)
        for transition in transitions:
            if transition.number not in self._told and (transition.text or transition.state not in FINAL):
                self._told[transition.number] = transition
                said = self._json_line(job, transition) if self._json else self._lines(job, transition)
                self._screen.say(said, transition.state)
        return job

    def _json_line(self, job: Job, transition: Transition) -> str:
        said: dict[str, Any] = {
            "job": job.id,
            "state": transition.state.value,
            "at": transition.at.isoformat(),
            "text": transition.text,
        }
        if transition.state in FINAL and not transition.note:
            said["reason"] = job.reason
            said["counts"] = job.summary.counts if job.summary else {}
            if job.summary and job.summary.chance:
                said["chance"] = job.summary.chance.numbers
            if job.blocks and job.summary:
                said["blocks"] = {"all": job.blocks.all, "missing": job.summary.missing}
            said["results_url"] = results_of(self._core, job)
        return json.dumps(said)

    def _lines(self, job: Job, transition: Transition) -> str:
        lines = [f"{transition.at:%H:%M:%S} {transition.text or transition.state.value.capitalize() + '.'}"]
        if transition.note:
            return lines[0]
        if transition.state is JobState.SUCCEEDED:
            lines += [f"{job.lacks}; nomads retry {job.id} works on these alone."] if job.lacks else []
            lines.append(f"Results: {results_of(self._core, job)}")
        elif transition.state in FINAL:
            lines += [*(f"  {line}" for line in job.log_tail), job.advice]
        return "\n".join(lines)
