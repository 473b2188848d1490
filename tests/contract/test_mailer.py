"""Every Mailer keeps these promises: in memory, SMTP with a real server, SES."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bot.domain.errors import Refused
from bot.domain.messages import Mail
from tests.contract.aws_rigs import AwsMailerRig
from tests.contract.rigs import MailerRig, MemoryMailerRig, SmtpMailerRig, smtp_server
from tests.support.aws import World

MAIL = Mail(
    to="lab@example.org",
    subject="Job finished: 1,234 synapses — démo",
    text="1,234 synapses were found.\n.\nÀ bientôt, from line three.\n",
    html="<p>1,234 synapses were found. À bientôt</p>\n",
    message_id="<a1b2c3.finished@nomads.example.org>",
)


@pytest.fixture(params=["memory", "smtp", "ses"])
def rig(request: pytest.FixtureRequest, world: World) -> Iterator[MailerRig]:
    match request.param:
        case "memory":
            yield MemoryMailerRig()
        case "smtp":
            with smtp_server() as server:
                yield SmtpMailerRig(server)
        case "ses":
            rig = AwsMailerRig(world)
            yield rig
            rig.close()


def test_a_mail_reaches_its_recipient_and_nobody_else(rig: MailerRig) -> None:
    rig.mailer.send(MAIL)

    [(recipients, message)] = rig.delivered()
    assert recipients == ["lab@example.org"]
    assert message["To"] == "lab@example.org"
    assert message["Cc"] is message["Bcc"] is None


def test_a_mail_has_its_subject_and_comes_from_the_sender_of_the_settings(rig: MailerRig) -> None:
    rig.mailer.send(MAIL)

    [(_, message)] = rig.delivered()
    assert message["Subject"] == MAIL.subject
    assert "nomads@example.org" in message["From"]


def test_a_mail_has_its_text_and_the_same_in_html(rig: MailerRig) -> None:
    rig.mailer.send(MAIL)

    [(_, message)] = rig.delivered()
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == MAIL.text.splitlines()
    assert html.get_content().splitlines() == MAIL.html.splitlines()


def test_a_mail_sent_twice_can_be_recognised_by_its_message_id(rig: MailerRig) -> None:
    rig.mailer.send(MAIL)
    rig.mailer.send(MAIL)

    assert [message["Message-ID"] for _, message in rig.delivered()] == [MAIL.message_id] * 2


def test_a_mail_says_that_a_machine_sent_it_and_when(rig: MailerRig) -> None:
    rig.mailer.send(MAIL)

    [(_, message)] = rig.delivered()
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.tzinfo is not None


@pytest.mark.parametrize("evil", ["x\r\nBcc: evil@example.net", "x\nBcc: evil@example.net", "x\rBcc: evil@example.net"])
def test_a_subject_puts_in_no_header(rig: MailerRig, evil: str) -> None:
    rig.mailer.send(replace(MAIL, subject=evil))

    [(recipients, message)] = rig.delivered()
    assert recipients == ["lab@example.org"]
    assert message["Bcc"] is None
    assert message["Subject"] == "x Bcc: evil@example.net"


@pytest.mark.parametrize(
    "evil",
    [
        "lab@example.org\r\nBcc: evil@example.net",
        "lab@example.org\n",
        "lab@example.org, evil@example.net",
        "lab@example.org evil@example.net",
        "Lab <lab@example.org>",
        "lab@example.org>\r\nRCPT TO:<evil@example.net",
        "lab",
        "",
    ],
)
def test_what_is_not_one_plain_address_is_refused(rig: MailerRig, evil: str) -> None:
    with pytest.raises(Refused):
        rig.mailer.send(replace(MAIL, to=evil))

    assert rig.delivered() == []


@pytest.mark.parametrize("evil", ["<a@b>\r\nBcc: evil@example.net", "<a@b", "a@b", "<a@b> <c@d>", ""])
def test_what_is_not_a_message_id_is_refused(rig: MailerRig, evil: str) -> None:
    with pytest.raises(Refused):
        rig.mailer.send(replace(MAIL, message_id=evil))

    assert rig.delivered() == []


def test_a_recipient_the_server_never_takes_is_refused(rig: MailerRig) -> None:
    rig.refuse("gone@example.org")

    with pytest.raises(Refused):
        rig.mailer.send(replace(MAIL, to="gone@example.org"))

    assert rig.delivered() == []
