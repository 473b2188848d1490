"""Links that the bot's own web answers: made and read in this one place."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.domain.errors import NotFound
from bot.domain.job import Job, now
from bot.domain.links import Audience, LinkEnded, Reader
from bot.domain.results import Link

DAYS = 7.0
"""Days that a link to results works, unless the settings say otherwise."""
_MAC = 18
"""Bytes of a signature, of HMAC-SHA256."""
# What a signed text is for: a link of one kind is not taken for one of the other.
_RESULTS = "results"
_NO_MAIL = "no mail"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a link to results says of itself, once its signature is right."""

    job_id: str
    reader: Reader
    name: str
    """A person or channel; of a mail address, the digest."""
    until: datetime


class Links:
    """Makes links below `base_url`, and reads the signed part of those it made. It stores nothing."""

    def __init__(self, *, base_url: str, key: bytes, days: float = DAYS, clock: Callable[[], datetime] = now) -> None:
        """`base_url` is where people reach the bot's web; empty: nowhere, so that no link is made."""
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._lasts = timedelta(days=days)
        self._clock = clock

    def to_results(self, job: Job, audience: Audience) -> Link | None:
        """The address of the job's results for that audience, below which lie the files; None without a web."""
        return self._below("results", job, audience)

    def to_view(self, job: Job, audience: Audience) -> Link | None:
        """The address of the job's results in three dimensions; it says and lasts what `to_results` does."""
        return self._below("v", job, audience)  # the viewer reads what it is after the last /v/ of its address

    def _below(self, folder: str, job: Job, audience: Audience) -> Link | None:
        if not self._base_url:
            return None
        until = (self._clock() + self._lasts).replace(microsecond=0)
        name = self.digest(audience.name) if audience.reader is Reader.MAIL else audience.name
        signed = self._signed([_RESULTS, job.id, audience.reader.value, name, int(until.timestamp())])
        return Link(f"{self._base_url}/{folder}/{signed}/", until)

    def to_end_mail(self, address: str) -> str:
        """The address at which whoever reads mail to `address` ends it for good; empty without a web."""
        if not self._base_url:
            return ""
        return f"{self._base_url}/mail/{self._signed([_NO_MAIL, self.digest(address)])}"

    def read(self, signed: str) -> Claim:
        """What a link to results says. Raises NotFound where the signature is not ours, LinkEnded after its end."""
        try:
            job_id, reader, name, until = self._read(_RESULTS, signed)
            claim = Claim(str(job_id), Reader(reader), str(name), datetime.fromtimestamp(until, UTC))
        except (ValueError, TypeError):  # signed by another version of NOMADS
            raise NotFound("There is no such link.") from None
        if self._clock() >= claim.until:
            raise LinkEnded(claim.job_id)
        return claim

    def read_end_of_mail(self, signed: str) -> str:
        """The digest of the address whose mail the link ends. Raises NotFound where the signature is not ours."""
        (digest,) = self._read(_NO_MAIL, signed)
        return str(digest)

    def digest(self, address: str) -> str:
        """What stands for a mail address in links and in the database: 32 hexadecimal digits of a keyed hash."""
        return hmac.digest(self._key, b"address:" + address.casefold().encode(), "sha256").hex()[:32]

    def _signed(self, said: list[Any]) -> str:
        text = _text(json.dumps(said, separators=(",", ":")).encode())
        return f"{text}.{_text(self._mac(text))}"

    def _read(self, purpose: str, signed: str) -> list[Any]:
        text, _, mac = signed.partition(".")
        right = _text(self._mac(text))
        if not hmac.compare_digest(right.encode(), mac.encode(errors="replace")):
            raise NotFound("There is no such link.")
        said = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if said[0] != purpose:
            raise NotFound("There is no such link.")
        return list(said[1:])

    def _mac(self, text: str) -> bytes:
        return hmac.digest(self._key, b"link:" + text.encode(errors="replace"), "sha256")[:_MAC]


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
