"""Mail through SES."""

from __future__ import annotations

import pytest

from bot.aws.ses import SesMailer
from bot.domain.errors import Refused, Unavailable
from bot.domain.messages import Mail
from bot.mail.smtp import mime
from tests.support.aws import SENDER, answer, aws_world, mailer

MAIL = Mail(
    to="somebody@example.org",
    subject="Your results — finished",
    text="Plain Ωords",
    html="<p>HTML</p>",
    message_id="<k3v9-accepted@nomads.example.org>",
)


def test_the_whole_message_goes_out_as_it_was_built() -> None:
    with mailer() as (ses, sent):
        ses.send(MAIL)

        [message] = sent()
        assert message["From"] == SENDER
        assert message["To"] == "somebody@example.org"
        assert message["Subject"] == "Your results — finished"
        assert message["Message-ID"] == "<k3v9-accepted@nomads.example.org>"
        plain = message.get_body(("plain",))
        assert plain is not None
        assert plain.get_content().strip() == "Plain Ωords"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "MessageRejected", Refused),
        (400, "MailFromDomainNotVerifiedException", Refused),
        (429, "TooManyRequestsException", Unavailable),
        (400, "SendingPausedException", Refused),
        (400, "AccountSuspendedException", Refused),
        (500, "InternalServiceErrorException", Unavailable),
    ],
)
def test_ses_s_errors_become_the_domain_s(status: int, code: str, error: type[Exception]) -> None:
    with aws_world(empty=True) as world:
        ses = SesMailer(config=world.config, clients=world.clients, mime=lambda mail: mime(mail, sender=SENDER))
        answer(world.clients.ses, "sesv2.SendEmail", status=status, code=code, message="said SES")
        with pytest.raises(error, match="said SES"):
            ses.send(MAIL)
        [asked] = world.asked("sesv2.SendEmail")
        assert asked["Destination"] == {"ToAddresses": ["somebody@example.org"]}
