"""Addresses as an admin writes them in the settings: of web servers, of BOSS, of the mail server and the database.

Each function raises ValueError with a sentence, without its full stop, that repeats nothing of what was written: an
address may hold a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

Security = Literal["none", "starttls", "tls"]
_PORTS: dict[Security, int] = {"none": 25, "starttls": 587, "tls": 465}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DATABASE = re.compile(r"sqlite(\+pysqlite)?:///(?!:memory:)[^?]+(\?.*)?|postgres(ql)?(\+psycopg)?://\S+")
WEB = "an address that begins with http:// or https://"
BASE = f"{WEB}, without a login, ? or #"
HOST = "a host name such as api.bossdb.io, or a URL such as http://host:8000"
BOUND = "a host name or an address of this machine"
DATABASE = "postgresql://user:password@host/name or sqlite:///path"
SENDER = "one mail address, such as nomads@example.org or NOMADS <nomads@example.org>"


def web(text: str) -> str:
    """The text, if it is a URL of http or https with a host."""
    parts, _ = _split(text, WEB)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise ValueError(f"this is not {WEB}")
    return text


def base(text: str) -> str:
    """The text, if it is a URL of http or https to which a path can be added."""
    parts, _ = _split(web(text), BASE)
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(f"this is not {BASE}")
    return text


def bound(text: str) -> str:
    """The text, if a server might listen at it."""
    if not text.isprintable() or " " in text:
        raise ValueError(f"this is not {BOUND}")
    return text


def origin(host: str) -> str:
    """`scheme://host` or `scheme://host:port` of a host name, or of a URL without a path."""
    parts, port = _split(host if "://" in host else f"https://{host}", HOST)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    name = parts.hostname or ""
    more = parts.path.strip("/") or parts.query or parts.fragment
    if usual is None or not _HOST.fullmatch(name) or "@" in parts.netloc or more:
        raise ValueError(f"write {HOST}")
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, usual) else "")


def database(text: str) -> str:
    """The text, if it is a URL of a database that NOMADS can run on; one in memory ends with its process."""
    _split(text, DATABASE)
    if not _DATABASE.fullmatch(text):
        raise ValueError(f"this cannot be used; write {DATABASE}")
    return text


def _split(text: str, wanted: str) -> tuple[SplitResult, int | None]:
    """The URL's parts and its port."""
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError:
        raise ValueError(f"this is not {wanted}") from None


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """What NOMADS_MAIL names. The fields besides `kind` are for `smtp`."""

    kind: Literal["smtp", "ses", "off"]
    host: str = ""
    port: int = 0
    security: Security = "none"
    user: str = ""
    password: SecretStr | None = None


def is_ses(url: SecretStr) -> bool:
    """Whether NOMADS_MAIL names SES."""
    return url.get_secret_value().strip() in ("ses:", "ses://")


def mail_server(url: SecretStr) -> MailServer:
    """Read `smtp://user:password@host:587?tls=starttls`, `smtps://…`, `ses://` or `off`.

    `smtp://` with a login and without `tls` means STARTTLS: a password goes in clear only where `tls=none` says so.
    Reserved characters in user and password are percent-encoded.
    """
    text = url.get_secret_value().strip()
    if text in ("", "off"):
        return MailServer(kind="off")
    if is_ses(url):
        return MailServer(kind="ses")

    def wrong(problem: str) -> ValueError:
        return ValueError(f"{problem} Write smtp://user:password@host:587?tls=starttls, ses:// or off")

    try:
        parts = urlsplit(text)
        port = parts.port
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise wrong("this is not a URL (are @ : / ? # % in the password percent-encoded?).") from None
    if parts.scheme not in ("smtp", "smtps"):
        raise wrong("it has to begin with smtp://, smtps:// or ses://.")
    if not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise wrong("after the scheme comes a host and no path (are @ : / ? # % in the password percent-encoded?).")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password):
        raise wrong("a login needs both a user and a password.")
    security: Security = "tls" if parts.scheme == "smtps" else "starttls" if user else "none"
    if set(query) - {"tls"}:
        raise wrong("the only option is tls.")
    match query.get("tls", security):
        case "tls" if parts.scheme == "smtps":
            pass
        case "starttls" | "none" as chosen if parts.scheme == "smtp":
            security = chosen
        case _:
            raise wrong("tls is starttls or none; smtps:// has TLS from the start and no such option.")
    return MailServer(
        kind="smtp",
        host=parts.hostname,
        port=_PORTS[security] if port is None else port,
        security=security,
        user=user,
        password=SecretStr(password) if password else None,
    )


def mailbox(text: str, *, plain: bool = False) -> Address:
    """One mail address, which may have a name before it unless `plain` is asked for."""
    name, address = ("", text) if plain else parseaddr(text)
    try:
        if not text.isprintable() or not address.isascii() or " " in address:
            raise ValueError
        if text.strip() != address and not text.rstrip().endswith(f"<{address}>"):  # there is more than one
            raise ValueError
        return Address(display_name=name, addr_spec=address)
    except (ValueError, IndexError, MessageError):
        raise ValueError("this is not one mail address") from None
