"""The setting that says where mail goes, and what a mail looks like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr

from bot.domain.errors import Refused
from bot.domain.messages import Mail
from bot.domain.urls import MailServer, mail_server
from bot.mail.smtp import NoMailer, SmtpMailer, mime

SENDER = "nomads@example.org"
PASSWORD = "demo-p@ss/word%"
MAIL = Mail(
    to="lab@example.org",
    subject="Job finished",
    text="1,234 synapses\n",
    html="<p>1,234 synapses</p>",
    message_id="<a1b2c3.finished@nomads.example.org>",
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("off", MailServer(kind="off")),
        ("", MailServer(kind="off")),
        ("ses://", MailServer(kind="ses")),
        ("smtp://mail.example.org", MailServer(kind="smtp", host="mail.example.org", port=25)),
        ("smtp://127.0.0.1:2525?tls=none", MailServer(kind="smtp", host="127.0.0.1", port=2525)),
        ("smtp://[::1]:2525/", MailServer(kind="smtp", host="::1", port=2525)),
        (
            "smtp://mail.example.org?tls=starttls",
            MailServer(kind="smtp", host="mail.example.org", port=587, security="starttls"),
        ),
        (
            "smtp://bot:demo-p%40ss%2Fword%25@mail.example.org:2587?tls=starttls",
            MailServer(
                kind="smtp",
                host="mail.example.org",
                port=2587,
                security="starttls",
                user="bot",
                password=SecretStr(PASSWORD),
            ),
        ),
        (
            "smtps://bot%40example.org:demo@mail.example.org",
            MailServer(
                kind="smtp",
                host="mail.example.org",
                port=465,
                security="tls",
                user="bot@example.org",
                password=SecretStr("demo"),
            ),
        ),
        (
            "smtp://bot:demo@mail.example.org:25?tls=none",
            MailServer(kind="smtp", host="mail.example.org", port=25, user="bot", password=SecretStr("demo")),
        ),
    ],
)
def test_a_mail_url_says_where_mail_goes(url: str, expected: MailServer) -> None:
    assert mail_server(SecretStr(url)) == expected


def test_a_password_goes_in_clear_only_where_the_url_says_so() -> None:
    assert mail_server(SecretStr("smtp://bot:demo@mail.example.org")).security == "starttls"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mail.example.org", "begin with smtp://"),
        ("http://bot:demo-secret@mail.example.org", "begin with smtp://"),
        ("demo-secret", "begin with smtp://"),
        ("smtp://bot:demo-secret@mail.example.org:port", "not a URL"),
        ("smtp://bot:demo-secret@mail.example.org:99999", "not a URL"),
        ("smtp://bot:demo-secret#x@mail.example.org", "not a URL"),
        ("smtp://bot:demo-secret/x@mail.example.org", "not a URL"),
        ("smtp://bot:1/demo-secret@mail.example.org", "no path"),
        ("smtp://[bot:demo-secret@mail.example.org", "not a URL"),
        ("smtp://", "a host"),
        ("smtp://bot@mail.example.org", "both a user and a password"),
        ("smtp://:demo-secret@mail.example.org", "both a user and a password"),
        ("smtp://bot:demo-secret@mail.example.org?tls=maybe", "tls is"),
        ("smtp://bot:demo-secret@mail.example.org?tls", "not a URL"),
        ("smtp://bot:demo-secret@mail.example.org?starttls=1", "the only option is tls"),
        ("smtps://bot:demo-secret@mail.example.org?tls=none", "tls is"),
    ],
)
def test_a_wrong_mail_url_is_explained_without_repeating_it(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as wrong:
        mail_server(SecretStr(url))

    assert "smtp://user:password@host:587" in str(wrong.value)
    assert "demo-secret" not in str(wrong.value)
    assert wrong.value.__cause__ is None


def test_settings_do_not_show_the_password() -> None:
    assert PASSWORD not in repr(MailServer(kind="smtp", user="bot", password=SecretStr(PASSWORD)))


def test_a_sender_may_have_a_name() -> None:
    message = mime(MAIL, sender='"Labör, NOMADS" <nomads@example.org>')

    assert message["From"].addresses[0].addr_spec == "nomads@example.org"
    assert message["From"].addresses[0].display_name == "Labör, NOMADS"


@pytest.mark.parametrize("sender", ["", "nomads", "a@b.org\r\nBcc: evil@example.net", "a@b.org c", "a@b.org, c@b.org"])
def test_a_sender_that_is_no_address_is_refused_at_once(sender: str) -> None:
    with pytest.raises(Refused, match="sender"):
        SmtpMailer(server=MailServer(kind="smtp", host="127.0.0.1", port=25), sender=sender)


def test_a_long_message_id_stays_as_it_is() -> None:
    """Python would otherwise fold it into an encoded word, and the mail could not be recognised."""
    long = f"<{'a' * 150}@nomads.example.org>"

    assert f"Message-ID: {long}\r\n".encode() in mime(replace(MAIL, message_id=long), sender=SENDER).as_bytes()


def test_a_message_is_plain_ascii_on_the_wire() -> None:
    """Not every server takes eight bits."""
    odd = replace(MAIL, subject="µ-Synapsen — é", text="µ\n" * 100, html="<p>日本</p>" * 100)

    raw = mime(odd, sender=SENDER).as_bytes()

    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998


def test_mail_that_is_off_goes_nowhere() -> None:
    NoMailer().send(replace(MAIL, to="not even an address"))


def test_a_mail_that_can_be_ended_says_so_to_mail_programs() -> None:
    message = mime(replace(MAIL, unsubscribe="https://nomads.example.org/mail/abc.def"), sender=SENDER)

    assert message["List-Unsubscribe"] == "<https://nomads.example.org/mail/abc.def>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "List-Unsubscribe" not in mime(MAIL, sender=SENDER)


@pytest.mark.parametrize("address", ["https://a\r\nBcc: b@example.org", "https://a> b", "https://ä", "x" * 1000])
def test_no_address_that_ends_mail_puts_another_header_in(address: str) -> None:
    with pytest.raises(Refused):
        mime(replace(MAIL, unsubscribe=address), sender=SENDER)
