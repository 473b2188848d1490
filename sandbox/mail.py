"""An SMTP server on loopback that stores mails, and fails on demand."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import threading
import warnings
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Security = Literal["plain", "starttls", "tls"]


class MailServer:
    """An SMTP server on 127.0.0.1; use it as a context manager.

    `security` requires STARTTLS first, or TLS from the start, with a certificate made for 127.0.0.1 and localhost
    (`certificate`, PEM, for the client to trust). With `login` (user, password), clients have to log in. `refuse`,
    `put_off` and `hang` decide how recipients are answered.
    """

    def __init__(
        self, *, security: Security = "plain", login: tuple[str, str] | None = None, port: int | None = None
    ) -> None:
        self.port = port or _free_port()
        self._security = security
        self._login = login
        self._messages: list[EmailMessage] = []
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._refused: dict[str, str] = {}
        self._put_off = 0
        self._hanging = False
        self._released = threading.Event()
        self._folder: TemporaryDirectory[str] | None = None
        self._controller: Controller | None = None
        self.attempts = 0
        """Attempts to hand over a message (RCPT commands received)."""

    def __enter__(self) -> MailServer:
        context: ssl.SSLContext | None = None
        if self._security != "plain":
            self._folder = TemporaryDirectory()
            context = _context(Path(self._folder.name))
        options: dict[str, Any] = {"hostname": "127.0.0.1", "port": self.port, "server_hostname": "mail.example.org"}
        if self._security == "tls":
            options["ssl_context"] = context
        if self._security == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        if self._login:
            options |= {
                "authenticator": self._authenticate,
                "auth_required": True,
                "auth_require_tls": self._security == "starttls",
            }
        self._controller = _Controller(_Handler(self), **options)
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if self._controller is not None:
            self._controller.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def certificate(self) -> Path:
        """The certificate a client has to trust (PEM). Raises ValueError where the server is plain."""
        if self._folder is None:
            raise ValueError("a plain server has no certificate")
        return Path(self._folder.name) / "certificate.pem"

    @property
    def messages(self) -> list[EmailMessage]:
        """The received messages, oldest first; the envelope is in X-Envelope-From and X-Envelope-To."""
        with self._changed:
            return list(self._messages)

    def to(self, address: str) -> list[EmailMessage]:
        """The messages received for this address, oldest first."""
        return [m for m in self.messages if address in str(m["X-Envelope-To"]).split(", ")]

    def wait_for(self, count: int, seconds: float = 10.0) -> list[EmailMessage]:
        """Wait until `count` messages have come; returns all. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, seconds):
                raise TimeoutError(f"{len(self._messages)} of {count} messages came within {seconds} s")
            return list(self._messages)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call the listener after every message, from the server's thread."""
        self._listeners.append(listener)

    def refuse(self, address: str, reply: str = "550 5.1.1 no such mailbox") -> None:
        """Refuse this recipient from now on."""
        self._refused[address.lower()] = reply

    def put_off(self, times: int = 1) -> None:
        """Answer the next recipients with 451, a temporary failure."""
        self._put_off += times

    def hang(self) -> None:
        """Answer no RCPT until `release` is called."""
        self._released.clear()
        self._hanging = True

    def release(self) -> None:
        """Answer RCPT commands again."""
        self._hanging = False
        self._released.set()

    def reset(self) -> None:
        """Return to the initial state, on the same port: without messages, faults and listeners."""
        self.release()
        with self._changed:
            self._messages.clear()
        self._listeners.clear()
        self._refused.clear()
        self._put_off = self.attempts = 0

    async def _arrived(self) -> None:
        self.attempts += 1
        if self._hanging:
            await asyncio.get_running_loop().run_in_executor(None, self._released.wait)

    def _reply_to(self, address: str) -> str:
        """The reply that refuses a recipient; empty: the recipient is accepted."""
        if address.lower() in self._refused:
            return self._refused[address.lower()]
        if self._put_off > 0:
            self._put_off -= 1
            return "451 4.3.0 try again later"
        return ""

    def _keep(self, message: EmailMessage) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def _authenticate(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = False
        if isinstance(data, LoginPassword) and self._login is not None:
            right = (data.login.decode(), data.password.decode()) == self._login
        return AuthResult(success=right, handled=False)


class _Handler:
    """aiosmtpd's hooks; apart from MailServer because aiosmtpd looks at every attribute of its handler."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd finds hooks by these names
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        await self._server._arrived()
        refusal = self._server._reply_to(address)
        if not refusal:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802 -- as above
        message = message_from_bytes(envelope.original_content.replace(b"\r\n", b"\n"), policy=policy.default)
        message["X-Envelope-From"] = envelope.mail_from
        message["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self._server._keep(message)
        return "250 OK"


class _Controller(Controller):
    """aiosmtpd's controller, without the warning about passwords on an unencrypted loopback."""

    def factory(self) -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            made: SMTP = super().factory()  # type: ignore[no-untyped-call]  # aiosmtpd has no types here
            return made


def _free_port() -> int:
    """A free port; aiosmtpd does not tell which port it takes, so the port is chosen here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _context(folder: Path) -> ssl.SSLContext:
    """A server context with a new certificate, valid for a day, written to the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    secret.chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", secret)
    return context
