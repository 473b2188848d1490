"""TODO"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets as entropy
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from bot.domain.errors import NomadsError, NotFound, Refused


class SecretRows(Protocol):
    """Where sealed tokens are kept; the store has it. Raises Unavailable."""

    def put_secret(self, reference: str, owner: str, sealed: bytes) -> None:
        """Keep a new row."""

    def get_secret(self, reference: str) -> bytes | None:
        """What was sealed, if it is there."""

    def delete_secret(self, reference: str) -> None:
        """Erase the row, if there is one."""


class SealedSecrets:
    """Tokens sealed with AES-256-GCM in the database; each is bound to its reference, so rows cannot be swapped.

    `key` has 32 bytes or more, from load_key().
    """

    _PREFIX = "sealed:"

    def __init__(self, *, key: bytes, rows: SecretRows) -> None:
        self._cipher = AESGCM(hmac.digest(key, b"tokens", "sha256"))
        self._rows = rows

    def put(self, owner: str, value: SecretStr) -> str:
        """Keep it under a new, random reference."""
        reference = self._PREFIX + entropy.token_urlsafe(16)
        nonce = entropy.token_bytes(12)
        sealed = nonce + self._cipher.encrypt(nonce, value.get_secret_value().encode(), reference.encode())
        self._rows.put_secret(reference, owner, sealed)
        return reference

    def get(self, reference: str) -> SecretStr:
        """The value. Raises NotFound, and Refused where it was sealed with another key."""
        sealed = self._rows.get_secret(reference) if self.holds(reference) else None
        if sealed is None:
            raise NotFound("The BOSS token of this job is not kept any more.")
        try:
            return SecretStr(self._cipher.decrypt(sealed[:12], sealed[12:], reference.encode()).decode())
        except (InvalidTag, ValueError):
            raise Refused("The BOSS token of this job was sealed with another key; submit the job again.") from None

    def forget(self, reference: str) -> None:
        """Erase the row."""
        if self.holds(reference):
            self._rows.delete_secret(reference)

    def holds(self, reference: str) -> bool:
        """Whether it begins with `sealed:`."""
        return reference.startswith(self._PREFIX)


def load_key(path: Path, given: SecretStr | None) -> bytes:
    """The key of 32 bytes: made from what the settings give, else read from the file, which is made at the first call.

    Two processes that make it at the same moment get the same one. Raises NomadsError in words for the admin.
    """
    if given is not None:
        text = given.get_secret_value()
        if len(text) < 16:
            raise NomadsError(
                "NOMADS_SECRET_KEY is too short: give it 16 random characters or more, or leave it unset."
            )
        return hashlib.scrypt(text.encode(), salt=b"nomads secret key", n=2**14, r=8, p=1, dklen=32)
    try:
        if not path.exists():
            _make_key(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise NomadsError(f"{path}: the key file cannot be used: {error.strerror}.") from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise NomadsError(
            f"{path} does not hold a key. Put back the one that was there; without it, kept tokens are lost."
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner only
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(entropy.token_bytes(32).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key is the key
            Path(path).hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
