"""`doctor` and `replay`: what an admin looks at, and tries again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from bot.app import PATIENT, build_core, mailer, slack_client
from bot.backends import load
from bot.core import Core
from bot.domain.errors import NomadsError
from bot.domain.outbox import GivenUp
from bot.settings import Settings
from bot.terminal.submit import current_actor

NEWEST = 5
"""Effects that were given up which `doctor` shows."""


def doctor(settings: Settings, *, say: Callable[[str], None]) -> bool:
    """Test each part once, starting nothing, and say what is wrong. Returns whether everything is right.

    What may not be looked at is said, and counts as right. What a start warns of comes after the parts, as a note.
    """
    from bot.aws.ses import SesMailer
    from bot.mail.smtp import SmtpMailer

    core = build_core(settings)
    core.database.migrate()
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: _open_effects(core),
        "compute": lambda: core.backend.compute.find("nomads-doctor"),
        "results": lambda: core.backend.results.list("nomads/doctor"),
        "pipelines": lambda: _runnable(core, settings.images),
    }
    if further := getattr(load(settings.compute), "checks", None):
        checks |= further(core.backend, core.catalog)
    checks["slack"] = lambda: _greet(settings)
    if isinstance(mail := mailer(settings), SmtpMailer):
        checks["mail"] = mail.check
    elif isinstance(mail, SesMailer):
        checks["mail"] = lambda: load("aws").check_ses(settings.mail_from)
    sound = True
    for name, check in checks.items():
        try:
            said = check()
            say(f"{name}: {said if said and isinstance(said, str) else 'ok'}")
        except NomadsError as error:
            sound = False
            say(f"{name}: {error}")
    if core.backend.announcement:
        say(f"note: {core.backend.announcement}")
    _say_given_up(core, say)
    core.close()
    return sound


def list_given_up(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Say what was given up, and how it is tried again; changes nothing."""
    core = build_core(settings)
    core.database.migrate()
    try:
        _say_given_up(core, say, nothing="Nothing was given up.")
    finally:
        core.close()


def _say_given_up(core: Core, say: Callable[[str], None], *, nothing: str = "") -> None:
    """How many effects were given up, the newest of them, and how they are tried again; else `nothing`, if anything."""
    try:
        number, newest = core.queries.given_up(most=NEWEST)
    except NomadsError as error:
        say(f"given up: {error}")
        return
    if not number:
        if nothing:
            say(nothing)
        return
    say(f"given up: {number}; nomads replay --all, or nomads replay JOB, tries again what can be. The newest:")
    for one in newest:
        say(f"  {_one(one)}")


def _one(one: GivenUp) -> str:
    said = f"{one.at:%Y-%m-%d %H:%M} job {one.job_id}, {one.meaning}: {one.error}"
    return f"{said.rstrip('.')}. {one.instead}" if one.instead else said


def replay(settings: Settings, job_name: str | None, *, say: Callable[[str], None]) -> None:
    """Make what was given up (of that job, where named) due again, and say what it was. Raises UnknownJob.

    A running bot performs it: first it looks for what may have happened after all. What decided what became of a job is
    not tried again; what can be done instead is said, once.
    """
    core = build_core(settings)
    core.database.migrate()
    try:
        found = core.ledger.replay(core.queries.named(job_name, actor=current_actor()).id if job_name else None)
    finally:
        core.close()
    for one in found:
        say(_one(one))
    if again := [one for one in found if not one.instead]:
        say(f"{len(again)} due again, in this order: a bot that runs (nomads run) looks for each and tries it again.")
    elif found:
        say("Nothing is due again.")
    else:
        say(f"Nothing was given up{f' of job {job_name}' if job_name else ''}.")


def _open_effects(core: Core) -> int:
    with core.database.read() as transaction:
        return transaction.outbox.open()


def _runnable(core: Core, images: Mapping[str, str]) -> None:
    if unknown := [name for name in images if core.catalog.get(name) is None]:
        there = ", ".join(pipeline.name for pipeline in core.catalog) or "none"
        raise NomadsError(f"NOMADS_IMAGES names {', '.join(unknown)}, which is no pipeline; there is {there}.")
    problems = {p.name: core.backend.compute.refuses(image=p.image, command=p.command) for p in core.catalog}
    if all(problems.values()):
        raise NomadsError(" ".join(problems.values()) or "There is no pipeline.")


def _greet(settings: Settings) -> None:
    from bot.slack.connection import greet

    with contextlib.closing(slack_client(settings, timeout=PATIENT)) as client:
        greet(client, settings.slack_app_token)
    if not (settings.slack_app_token or settings.slack_signing_secret):
        raise NomadsError("Set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for HTTP.")
