"""Mail through Amazon SES, version 2."""

from __future__ import annotations

from collections.abc import Callable
from email import policy
from email.message import EmailMessage

from bot.aws.clients import Clients, translated, wanted
from bot.aws.config import AwsConfig
from bot.domain.messages import Mail


class SesMailer:
    """The port Mailer over SES. `mime` builds the message, with a sender that SES has verified.

    SES replaces our Message-ID by its own, so a second sending shows as a second mail.

    A refusal is an answer of SES's own with MessageRejected, MailFromDomainNotVerifiedException, BadRequestException,
    NotFoundException, AccountSuspendedException or SendingPausedException, or a code of all AWS services for a mistake
    of the caller's (see `translated`). Everything else is in doubt, also an answer without a MessageId.
    """

    def __init__(
        self, *, config: AwsConfig, mime: Callable[[Mail], EmailMessage], clients: Clients | None = None
    ) -> None:
        self._clients = clients or Clients(config)
        self._mime = mime

    def send(self, mail: Mail) -> None:
        """Hand the mail to SES. Raises Refused where SES will never take it."""
        message = self._mime(mail).as_bytes(policy=policy.SMTP)
        with translated("SES did not take the mail"):
            # The recipient is named outside the message, so no header within it can add another.
            answer = self._clients.ses.send_email(
                Destination={"ToAddresses": [mail.to]}, Content={"Raw": {"Data": message}}
            )
            wanted(answer, "MessageId")
