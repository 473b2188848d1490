"""Effects that mail performs. A mail in doubt is sent again, with the Message-ID it had before."""

from __future__ import annotations

import re
from dataclasses import replace

from bot.application.ledger import Ledger
from bot.application.letters import acceptance, ending
from bot.application.ports import Mailer
from bot.application.stories import Stories
from bot.application.worker.handling import Handlers, telling
from bot.domain import words
from bot.domain.job import Job
from bot.domain.outbox import Effect, Kind

NOT_MAILED = "Its mail could not be sent:"
ADVICE = "Whoever runs NOMADS can find out more with nomads doctor."
MAX_CAUSE = 300
"""Characters of the mailer's words that are told."""
_ADDRESS = re.compile(r"[^\s<>(),;:\"]+@[^\s<>(),;:\"]*[^\s<>(),;:\".]")


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
        handler = replace(telling(self._ledger, self._send), give_up=self._tell)
        return {Kind.MAIL_ACCEPTED: handler, Kind.MAIL_FINISHED: handler}

    def _send(self, effect: Effect, job: Job) -> None:
        letter = acceptance if effect.kind is Kind.MAIL_ACCEPTED else ending
        message_id = f"<{job.id}.{effect.kind}@{self._domain}>"
        self._mailer.send(letter(self._stories.of(job), message_id=message_id))
        with self._ledger.done(effect):
            pass

    def _tell(self, effect: Effect, error: str) -> None:
        """Give the mail up; the job's thread says so once, without the address, which is its owner's alone."""
        with self._ledger.finish(effect, error=error) as change:
            story = change.story
            if any(NOT_MAILED in step.text for step in story):
                return
            # The end's text is written with the results, so an earlier mail's failure is told with the acceptance.
            step = story[0] if effect.kind is Kind.MAIL_ACCEPTED else story[-1]
            said = words.shortened(words.printable(_ADDRESS.sub("the address", error)).strip().rstrip("."), MAX_CAUSE)
            reply = step.reply or change.next_reply(separate=True)
            change.tell(step, f"{step.text} {NOT_MAILED} {said}. {ADVICE}".strip(), reply=reply)
            change.show()
