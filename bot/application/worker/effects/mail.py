"""Effects that mail performs. A mail in doubt is sent again, with the Message-ID it had before."""

from __future__ import annotations

from bot.application.addresses import Addresses
from bot.application.ledger import Ledger
from bot.application.letters import Stranger, acceptance, ending
from bot.application.ports import Mailer, Workspace
from bot.application.stories import Stories
from bot.application.worker.handling import Handlers, telling
from bot.domain import words
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.outbox import Effect, Kind
from bot.domain.people import TERMINAL

NOT_SENT = "No mail is sent to its address, which has asked for no more mail."
NAME = 80
"""Characters of a person's name that a mail shows."""


class MailEffects:
    """Sends a job's two mails."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        mailer: Mailer,
        stories: Stories,
        workspace: Workspace,
        addresses: Addresses,
        sender: str,
        domain: str,
    ) -> None:
        """`sender` is told to strangers as the address to write to; `domain` ends the mails' Message-IDs."""
        self._ledger = ledger
        self._mailer = mailer
        self._stories = stories
        self._workspace = workspace
        self._addresses = addresses
        self._sender = sender
        self._domain = domain

    def handlers(self) -> Handlers:
        """The handlers of MAIL_ACCEPTED and MAIL_FINISHED."""
        handler = telling(self._ledger, self._send)
        return {Kind.MAIL_ACCEPTED: handler, Kind.MAIL_FINISHED: handler}

    def _send(self, effect: Effect, job: Job) -> None:
        address = job.request.email
        if self._addresses.trouble(address):
            with self._ledger.finish(effect) as change:
                change.remark(NOT_SENT)
            return
        letter = acceptance if effect.kind is Kind.MAIL_ACCEPTED else ending
        message_id = f"<{job.id}.{effect.kind}@{self._domain}>"
        story = self._stories.of(job, Audience.mail(address))
        self._mailer.send(letter(story, message_id=message_id, stranger=self._stranger(job)))
        with self._ledger.done(effect):
            pass

    def _stranger(self, job: Job) -> Stranger | None:
        """What is told to an address that chat does not know as the submitter's own; None for their own."""
        address = job.request.email
        if self._workspace.mail_of(job.actor).casefold() == address.casefold():
            return None
        return Stranger(asked_by=self._name(job), stop=self._addresses.to_end_mail(address), otherwise=self._sender)

    def _name(self, job: Job) -> str:
        if job.actor.startswith(TERMINAL):
            return f"{job.actor.removeprefix(TERMINAL)} (at a terminal of NOMADS)"
        name = words.printable(self._workspace.name_of(job.actor)).strip()
        return words.shortened(name, NAME) or f"somebody in Slack ({job.actor})"
