"""Mail over SMTP, and the message of text and HTML that every mailer sends."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.messages import Mail
from bot.domain.urls import MailServer, mailbox

_NO_SUCH_RECIPIENT = frozenset({550, 551, 553, 556})
"""Replies that refuse a recipient for good (RFC 5321, 4.2.3; RFC 7504). A 552 is a mailbox that is full just now."""
_NO_SUCH_MESSAGE = frozenset({550, 552, 554})
"""Replies that refuse a message for good (RFC 5321, 4.2.3). Others from 500 on are about the protocol or a login."""
_TOO_BIG = 552
"""The reply to MAIL FROM that refuses the message's size, not its sender (RFC 1870, 6.1)."""
_MAX_MESSAGE_ID = 900
"""Characters of a message id; a header line has at most 998 (RFC 5322, 2.1.1)."""


def mime(mail: Mail, *, sender: str) -> EmailMessage:
    """The mail as a message: text with an HTML alternative, dated now, marked as sent by a machine.

    `sender` is an address, or a name and an address in angle brackets. Line breaks and invisible characters in the
    subject become spaces. Raises Refused for them in an address or the message id, so that no header can be put in.
    """
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(sender, "sender's")
    message["To"] = _address(mail.to, "recipient's", plain=True)
    message["Subject"] = " ".join("".join(c if c.isprintable() else " " for c in mail.subject).split())
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = _message_id(mail.message_id)
    message["Auto-Submitted"] = "auto-generated"  # keeps holiday answers away (RFC 3834)
    if mail.unsubscribe:  # mail programs show it as a button of their own (RFC 2369, RFC 8058)
        message["List-Unsubscribe"] = f"<{_plain(mail.unsubscribe)}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(mail.text, cte="quoted-printable")  # passes servers without 8BITMIME
    message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return message


def _address(text: str, whose: str, *, plain: bool = False) -> Address:
    try:
        return mailbox(text, plain=plain)
    except ValueError:
        raise Refused(f"The {whose} mail address is not one plain address.") from None


def _plain(url: str) -> str:
    if not url.isascii() or not url.isprintable() or any(c in url for c in "<> ") or len(url) > _MAX_MESSAGE_ID:
        raise Refused("The address that ends mail is not a plain one.")
    return url


def _message_id(text: str) -> str:
    inside = text[1:-1]
    plain = text.isascii() and text.isprintable() and not any(c in inside for c in "<> ")
    if not plain or not (text[:1] == "<" and text[-1:] == ">") or len(text) > _MAX_MESSAGE_ID:
        raise Refused("A message id is <unique@domain>, in plain characters.")
    return text


class SmtpMailer:
    """Hands each mail to an SMTP server over a connection of its own.

    A refusal is a reply of _NO_SUCH_RECIPIENT to the recipient, of _NO_SUCH_MESSAGE to the message, or 552 to its size,
    and an address that is none. Everything else is in doubt: 4xx, other 5xx, a sender or a login that is not taken,
    what is no SMTP, and a connection that is lost, also after the message went over: the server may have taken it.
    """

    def __init__(self, *, server: MailServer, sender: str, timeout: float = 20) -> None:
        self._server = server
        self._sender = sender
        self._timeout = timeout
        """Seconds that a single answer may take."""
        self._domain = _address(sender, "sender's").domain or "localhost"
        """The name given in EHLO; smtplib would ask DNS for one."""
        self._tls = None if server.security == "none" else ssl.create_default_context()

    def send(self, mail: Mail) -> None:
        """Hand the mail over. Raises Refused for this recipient or message; Unavailable: time or an admin mends it."""
        message = mime(mail, sender=self._sender)
        with self._connected() as connection:
            connection.send_message(message)

    def check(self) -> None:
        """Connect and log in, and send nothing. Raises Unavailable with what is wrong."""
        with self._connected():
            pass

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A connection that is logged in. Raises Unavailable and Refused for whatever the server says meanwhile."""
        try:
            with closing(self._connect()) as connection:
                if self._server.password:
                    connection.login(self._server.user, self._server.password.get_secret_value())
                yield connection
                with suppress(smtplib.SMTPException, OSError):  # the mail is sent, however the connection ends
                    connection.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code, reply = next(iter(error.recipients.values()))
            raise _refusal("the recipient", code, reply, final=_NO_SUCH_RECIPIENT) from None
        except smtplib.SMTPAuthenticationError as error:  # the error's text may repeat the login
            raise Unavailable(f"The mail server does not accept the login (SMTP {error.smtp_code}).") from None
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code != _TOO_BIG:  # the sender's address and the login are settings, so they may be mended
                raise Unavailable(f"The mail server does not accept the sender (SMTP {error.smtp_code}).") from None
            raise _refusal("the message", error.smtp_code, error.smtp_error, final=_NO_SUCH_MESSAGE) from None
        except smtplib.SMTPDataError as error:
            raise _refusal("the message", error.smtp_code, error.smtp_error, final=_NO_SUCH_MESSAGE) from None
        except smtplib.SMTPNotSupportedError:
            raise Unavailable(
                "The mail server does not offer what NOMADS_MAIL asks for (STARTTLS or a login)."
            ) from None
        except smtplib.SMTPResponseException as error:
            raise Unavailable(f"The mail server does not answer as it should (SMTP {error.smtp_code}).") from None
        except ssl.SSLError as error:
            raise Unavailable(f"No secure connection to the mail server: {error.reason or 'TLS failed'}.") from None
        except (smtplib.SMTPException, OSError) as error:
            raise Unavailable(f"The mail server does not answer ({type(error).__name__}).") from None

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, self._domain, timeout=self._timeout, context=self._tls)
        connection = smtplib.SMTP(server.host, server.port, self._domain, timeout=self._timeout)
        if server.security == "starttls":
            try:
                connection.starttls(context=self._tls)
            except BaseException:
                connection.close()
                raise
        return connection


def _refusal(what: str, code: int, reply: bytes | str, *, final: Collection[int]) -> NomadsError:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
    kind = Refused if code in final else Unavailable
    return kind(f"The mail server does not take {what} (SMTP {code}: {words}).")


class NoMailer:
    """Sends nothing: mail is off."""

    def send(self, mail: Mail) -> None:
        """Do nothing."""
