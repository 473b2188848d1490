"""The sandbox's mail server keeps what it gets and has bad days on demand."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage

import pytest

from sandbox.mail import MailServer, Security


def message(to: str = "demo@example.org") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "nomads@example.org", to, "Grüße"
    made.set_content("A text, ü")
    made.add_alternative("<p>HTML, ü</p>", subtype="html")
    return made


def send(server: MailServer, to: str = "demo@example.org", *, timeout: float = 5) -> None:
    with smtplib.SMTP("127.0.0.1", server.port, timeout=timeout) as client:
        client.send_message(message(to))


def test_a_message_is_kept_whole_with_its_envelope() -> None:
    heard: list[int] = []
    with MailServer() as server:
        server.listen(lambda: heard.append(len(server.messages)))
        send(server)
        (kept,) = server.wait_for(1)

    html = kept.get_body(("html",))
    assert html is not None
    assert (kept["Subject"], html.get_content()) == ("Grüße", "<p>HTML, ü</p>\n")
    assert (kept["X-Envelope-From"], kept["X-Envelope-To"]) == ("nomads@example.org", "demo@example.org")
    assert server.to("demo@example.org") == [kept]
    assert server.to("other@example.org") == []
    assert heard == [1]


def test_a_recipient_can_be_refused_for_good() -> None:
    with MailServer() as server:
        server.refuse("gone@example.org")

        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            send(server, "gone@example.org")

        assert caught.value.recipients["gone@example.org"][0] == 550
        assert server.messages == []


def test_a_message_can_be_put_off() -> None:
    with MailServer() as server:
        server.put_off(1)

        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            send(server)
        assert caught.value.recipients["demo@example.org"][0] == 451

        send(server)
        assert (server.attempts, len(server.messages)) == (2, 1)


def test_the_server_can_hang_and_go_on() -> None:
    with MailServer() as server:
        server.hang()
        with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
            send(server, timeout=0.1)

        server.release()
        send(server)
        assert len(server.wait_for(1)) == 1


@pytest.mark.parametrize("security", ["plain", "starttls", "tls"])
def test_a_login_is_asked_for_and_checked(security: Security) -> None:
    with MailServer(security=security, login=("demo", "demo-password")) as server:
        context = None if security == "plain" else ssl.create_default_context(cafile=str(server.certificate))

        def connect() -> smtplib.SMTP:
            if security == "tls":
                return smtplib.SMTP_SSL("127.0.0.1", server.port, timeout=5, context=context)
            client = smtplib.SMTP("127.0.0.1", server.port, timeout=5)
            if security == "starttls":
                client.starttls(context=context)
            return client

        with connect() as client, pytest.raises(smtplib.SMTPSenderRefused):
            client.send_message(message())
        with connect() as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("demo", "demo-wrong")
        with connect() as client:
            client.login("demo", "demo-password")
            client.send_message(message())

        assert len(server.messages) == 1


def test_starttls_is_insisted_on() -> None:
    with MailServer(security="starttls") as server, pytest.raises(smtplib.SMTPException, match="STARTTLS"):
        send(server)


def test_waiting_in_vain_says_what_came() -> None:
    with MailServer() as server, pytest.raises(TimeoutError, match="0 of 1 messages"):
        server.wait_for(1, 0.01)
