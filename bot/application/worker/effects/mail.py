"""Effects that mail performs. A mail in doubt is sent again, with the Message-ID it had before."""

from __future__ import annotations

from bot.application.ledger import Ledger
from bot.application.letters import acceptance, ending
from bot.application.ports import Mailer
from bot.application.stories import Stories
from bot.application.worker.handling import Handlers, telling
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind


class MailEffects:
    """Sends a job's two mails."""

    def __init__(self, *, ledger: Ledger, mailer: Mailer, stories: Stories, domain: str) -> None:
        """`domain` ends the mails' Message-IDs."""
        self._ledger = ledger
        self._mailer = mailer
        self._stories = stories
        self._domain = domain

    def handlers(self) -> Handlers:
        """The handlers of MAIL_ACCEPTED and MAIL_FINISHED."""
        handler = telling(self._ledger, self._send)
        return {Kind.MAIL_ACCEPTED: handler, Kind.MAIL_FINISHED: handler}

    def _send(self, effect: Effect, job: Job) -> None:
        letter = acceptance if effect.kind is Kind.MAIL_ACCEPTED else ending
        message_id = f"<{job.id}.{effect.kind}@{self._domain}>"
        self._mailer.send(letter(self._stories.of(job), message_id=message_id))
        with self._ledger.done(effect):
            pass
