"""Effects that mail performs. A mail in doubt is sent again, with the Message-ID it had before."""

from __future__ import annotations

import re
from dataclasses import replace

from bot.application.access import Access
from bot.application.addresses import Addresses
from bot.application.ledger import JobChange, Ledger
from bot.application.letters import Stranger, acceptance, ending
from bot.application.ports import Mailer, Workspace
from bot.application.stories import Stories
from bot.application.worker.handling import Handlers, telling
from bot.domain import words
from bot.domain.errors import Unavailable
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.outbox import Effect, Kind
from bot.domain.people import TERMINAL

NOT_SENT = "No mail is sent to its address, which"
NAME = 80
"""Characters of a person's name that a mail shows."""

NOT_MAILED = "Its mail could not be sent:"
ADVICE = "Whoever runs NOMADS can find out more with nomads doctor."
MAX_CAUSE = 300
"""Characters of the mailer's words that are told."""
_ADDRESS = re.compile(r"[^\s<>(),;:\"]+@[^\s<>(),;:\"]*[^\s<>(),;:\".]")


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
        access: Access,
        sender: str,
        domain: str,
    ) -> None:
        """`sender` is told to strangers as the address to write to; `domain` ends the mails' Message-IDs."""
        self._ledger = ledger
        self._mailer = mailer
        self._stories = stories
        self._workspace = workspace
        self._addresses = addresses
        self._access = access
        self._sender = sender
        self._domain = domain

    def handlers(self) -> Handlers:
        """The handlers of MAIL_ACCEPTED and MAIL_FINISHED."""
        handler = replace(telling(self._ledger, self._send), give_up=self._tell)
        return {Kind.MAIL_ACCEPTED: handler, Kind.MAIL_FINISHED: handler}

    def _send(self, effect: Effect, job: Job) -> None:
        if effect.subject:
            self._send_to_follower(effect, job)
            return
        address = job.request.email
        if self._addresses.trouble(address):
            with self._ledger.finish(effect) as change:
                why = "is not one of the lab's" if self._addresses.outside(address) else "has asked for no more mail"
                _say(change, effect, NOT_SENT, f"{NOT_SENT} {why}.")
            return
        message_id = f"<{job.id}.{effect.kind}@{self._domain}>"
        story, stranger = self._stories.of(job, Audience.mail(address)), self._stranger(job)
        if effect.kind is Kind.MAIL_ACCEPTED:
            letter = acceptance(story, message_id=message_id, stranger=stranger)
        else:
            letter = ending(story, message_id=message_id, stranger=stranger, cancelled_by=self._canceller(job))
        self._ledger.insist(effect)
        self._mailer.send(letter)
        with self._ledger.done(effect):
            pass

    def _send_to_follower(self, effect: Effect, job: Job) -> None:
        """Tell the end to somebody else who asked for that, unless they want no mail or may not see the job (any more).

        Raises Unavailable where chat does not tell.
        """
        person = effect.subject
        with self._ledger.database.read() as transaction:
            wanted = transaction.people.get(person).preferences.mail
        address = self._workspace.mail_of(person) if wanted else ""
        if address is None:
            raise Unavailable("Slack does not tell now which address a follower has.")
        (sees,) = self._access.judged(person, [job]) if address else (False,)
        if sees is None:
            raise Unavailable("Slack does not tell now whether a follower may see the job.")
        if sees and not self._addresses.trouble(address):
            story = self._stories.of(job, Audience.person(person))
            message_id = f"<{job.id}.{effect.kind}.{person}@{self._domain}>"
            letter = ending(
                story, message_id=message_id, asked_by=self._name(job.actor), cancelled_by=self._canceller(job)
            )
            self._ledger.insist(effect)
            self._mailer.send(replace(letter, to=address))
        with self._ledger.done(effect):
            pass

    def _stranger(self, job: Job) -> Stranger | None:
        """What is told to an address that chat does not know as the submitter's own; None for their own."""
        address = job.request.email
        if (self._workspace.mail_of(job.actor) or "").casefold() == address.casefold():
            return None
        return Stranger(
            asked_by=self._name(job.actor), stop=self._addresses.to_end_mail(address), otherwise=self._sender
        )

    def _canceller(self, job: Job) -> str:
        """Who cancelled the job, by name; empty: nobody did."""
        return self._name(job.cancelled_by) if job.cancelled_by else ""

    def _name(self, person: str) -> str:
        if person.startswith(TERMINAL):
            return f"{person.removeprefix(TERMINAL)} (at a terminal of NOMADS)"
        name = words.printable(self._workspace.name_of(person)).strip()
        return words.shortened(name, NAME) or f"somebody in Slack ({person})"

    def _tell(self, effect: Effect, error: str) -> None:
        """Give the mail up; the job's thread says so once, without the address, which is its owner's alone."""
        said = words.shortened(words.printable(_ADDRESS.sub("the address", error)).strip().rstrip("."), MAX_CAUSE)
        with self._ledger.finish(effect, error=error) as change:
            _say(change, effect, NOT_MAILED, f"{NOT_MAILED} {said}. {ADVICE}")


def _say(change: JobChange, effect: Effect, beginning: str, text: str) -> None:
    """Add the text to the step that the mail was to tell of, where no step says something with that beginning yet."""
    story = change.story
    if any(beginning in step.text for step in story):
        return
    # The end's text is written with the results, so what is said of an earlier mail is told with the acceptance.
    step = story[0] if effect.kind is Kind.MAIL_ACCEPTED else story[-1]
    change.tell(step, f"{step.text} {text}".strip(), reply=step.reply or change.next_reply(separate=True))
    change.show()
