"""Mail over SMTP: security, and who is to blame when it fails."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.messages import Mail
from bot.domain.urls import MailServer, Security
from bot.mail.smtp import SmtpMailer
from tests.contract.rigs import SmtpServer, free_port, smtp_server
from tests.support.certificates import certificate_in, served_with

SENDER = "nomads@example.org"
PASSWORD = "demo-p@ss/word%"
MAIL = Mail(
    to="lab@example.org",
    subject="Job finished",
    text="1,234 synapses\n",
    html="<p>1,234 synapses</p>",
    message_id="<a1b2c3.finished@nomads.example.org>",
)


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    """A plain SMTP server."""
    with smtp_server() as server:
        yield server


def mailer(server: SmtpServer, *, security: Security = "none", user: str = "", password: str = "") -> SmtpMailer:
    return SmtpMailer(server=server.address(security=security, user=user, password=password), sender=SENDER, timeout=10)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """The server's side of TLS."""
    return served_with(certificate)


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine trusts the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    """Let in who knows the password."""
    return AuthResult(success=(data.login, data.password) == (b"bot", PASSWORD.encode()), handled=False)


@pytest.mark.usefixtures("trusted")
def test_mail_goes_over_starttls_with_a_login(tls: ssl.SSLContext) -> None:
    with smtp_server(tls_context=tls, require_starttls=True, auth_required=True, authenticator=login) as server:
        mailer(server, security="starttls", user="bot", password=PASSWORD).send(MAIL)

        assert server.secured == [True]


@pytest.mark.usefixtures("trusted")
def test_mail_goes_over_tls_from_the_start(tls: ssl.SSLContext) -> None:
    with smtp_server(tls=tls) as server:
        mailer(server, security="tls").send(MAIL)

        assert server.secured == [True]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(tls: ssl.SSLContext, security: Security) -> None:
    from_the_start = security == "tls"
    with smtp_server(tls=tls if from_the_start else None, tls_context=None if from_the_start else tls) as server:
        with pytest.raises(Unavailable, match="secure connection"):
            mailer(server, security=security, user="bot", password=PASSWORD).send(MAIL)

        assert server.taken == []


def test_a_server_without_starttls_gets_neither_login_nor_mail(server: SmtpServer) -> None:
    with pytest.raises(Unavailable, match="STARTTLS"):
        mailer(server, security="starttls", user="bot", password=PASSWORD).send(MAIL)

    assert server.taken == []


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_may_be_mended_and_is_not_repeated(tls: ssl.SSLContext) -> None:
    with (
        smtp_server(tls_context=tls, auth_required=True, authenticator=login) as server,
        pytest.raises(Unavailable, match=r"login \(SMTP 535\)") as failure,
    ):
        mailer(server, security="starttls", user="bot", password="demo-wrong").send(MAIL)

    assert "demo-wrong" not in str(failure.value)
    assert failure.value.__cause__ is None


@pytest.mark.usefixtures("trusted")
def test_a_server_that_wants_a_login_and_gets_none_may_be_mended(tls: ssl.SSLContext) -> None:
    with (
        smtp_server(tls_context=tls, auth_required=True, authenticator=login) as server,
        pytest.raises(Unavailable, match="SMTP 530"),
    ):
        mailer(server, security="starttls").send(MAIL)


@pytest.mark.parametrize(
    ("where", "answer", "expected"),
    [
        ("lab@example.org", "550 5.1.1 No such user", Refused),
        ("lab@example.org", "450 4.2.0 Greylisted, come back later", Unavailable),
        ("lab@example.org", "553 5.1.3 Not allowed", Refused),
        ("lab@example.org", "552 5.2.2 Mailbox full", Unavailable),
        ("lab@example.org", "503 5.5.1 Bad sequence", Unavailable),
        ("lab@example.org", "530 5.7.0 Must issue STARTTLS first", Unavailable),
        ("lab@example.org", "999 What is this", Unavailable),
        ("DATA", "554 5.7.1 Looks like spam", Refused),
        ("DATA", "552 5.3.4 Too big", Refused),
        ("DATA", "501 5.5.4 Syntax", Unavailable),
        ("DATA", "535 5.7.8 Login first", Unavailable),
        ("DATA", "451 4.3.0 Try again", Unavailable),
        ("MAIL", "552 5.3.4 Too big", Refused),
        ("MAIL", "550 5.7.1 Sender not allowed", Unavailable),
        ("MAIL", "421 4.3.2 Shutting down", Unavailable),
    ],
)
def test_a_refusal_for_good_is_told_from_one_for_now(
    server: SmtpServer, where: str, answer: str, expected: type[NomadsError]
) -> None:
    server.answers[where] = answer

    with pytest.raises(NomadsError, match=answer[:3]) as failure:
        mailer(server).send(MAIL)

    assert type(failure.value) is expected
    assert server.taken == []


def test_a_mail_that_was_taken_is_sent_however_the_server_says_goodbye(server: SmtpServer) -> None:
    """Otherwise it would be sent again and again."""
    server.answers["QUIT"] = "451 4.3.0 I am not done with you"

    mailer(server).send(MAIL)

    assert len(server.taken) == 1


def test_a_connection_that_is_lost_after_the_message_leaves_it_in_doubt(server: SmtpServer) -> None:
    server.hangs_up = True

    with pytest.raises(Unavailable, match="does not answer"):
        mailer(server).send(MAIL)

    assert len(server.taken) == 1


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 403 Forbidden\r\n\r\n<h1>no</h1>\r\n", b"554 no\r\n", b"<h1>no</h1>\r\n", b""]
)
def test_what_is_no_mail_server_refuses_no_mail(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=greet)
        thread.start()
        address = MailServer(kind="smtp", host="127.0.0.1", port=listener.getsockname()[1])
        with pytest.raises(Unavailable):
            SmtpMailer(server=address, sender=SENDER, timeout=5).send(MAIL)
        thread.join()


def test_nobody_listening_is_unavailable() -> None:
    nobody = MailServer(kind="smtp", host="127.0.0.1", port=free_port())

    with pytest.raises(Unavailable, match="does not answer"):
        SmtpMailer(server=nobody, sender=SENDER).send(MAIL)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = MailServer(kind="smtp", host="127.0.0.1", port=silent.getsockname()[1])

        with pytest.raises(Unavailable, match="does not answer"):
            SmtpMailer(server=server, sender=SENDER, timeout=0.1).send(MAIL)
