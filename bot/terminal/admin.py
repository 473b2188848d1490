"""`doctor` and `provision`: what an admin does before the bot is started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from bot.app import PATIENT, Core, build_core, mailer, slack_client
from bot.backends import load
from bot.domain.catalog import Catalog
from bot.domain.errors import NomadsError
from bot.settings import Settings


def provision(settings: Settings) -> None:
    """Create in AWS what is missing, and mend guards. Raises Refused, which names every missing or wrong setting."""
    load("aws").provision(Catalog.read(settings.pipelines, images=settings.images), say=print)


def doctor(settings: Settings, *, say: Callable[[str], None]) -> bool:
    """Test each part once, starting nothing, and say what is wrong. Returns whether everything is right.

    What may not be looked at is said, and counts as right.
    """
    from bot.aws.ses import SesMailer
    from bot.mail.smtp import SmtpMailer

    core = build_core(settings)
    core.announce()
    core.database.migrate()
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: _open_effects(core),
        "compute": lambda: core.backend.compute.find("nomads-doctor"),
        "results": lambda: core.backend.results.list("nomads/doctor"),
        "pipelines": lambda: _runnable(core),
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
    core.close()
    return sound


def _open_effects(core: Core) -> int:
    with core.database.read() as transaction:
        return transaction.outbox.open()


def _runnable(core: Core) -> None:
    problems = {p.name: core.backend.compute.refuses(image=p.image, command=p.command) for p in core.catalog}
    if all(problems.values()):
        raise NomadsError(" ".join(problems.values()) or "There is no pipeline.")


def _greet(settings: Settings) -> None:
    from bot.slack.connection import greet

    with contextlib.closing(slack_client(settings, timeout=PATIENT)) as client:
        greet(client, settings.slack_app_token)
    if not (settings.slack_app_token or settings.slack_signing_secret):
        raise NomadsError("Set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for HTTP.")
