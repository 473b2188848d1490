"""BOSS tokens at rest: sealed in rows of the database, each bound to its reference."""

from __future__ import annotations

import secrets as entropy

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from bot.domain.errors import NotFound, Refused
from bot.domain.job import now
from bot.storage.engine import Database
from bot.storage.keys import derived
from bot.storage.transaction import Transaction


class Vault:
    """Tokens sealed with AES-256-GCM in the database; each is bound to its reference, so rows cannot be swapped.

    What a transaction puts in or erases is part of that transaction.
    """

    _PREFIX = "sealed:"

    def __init__(self, *, key: bytes, database: Database) -> None:
        """`key` has 32 bytes or more, from `load_key()`."""
        self._cipher = AESGCM(derived(key, "tokens"))
        self._database = database

    def put(self, transaction: Transaction, owner: str, token: SecretStr) -> str:
        """Insert the token, sealed under a new, random reference; returns the reference."""
        reference = self._PREFIX + entropy.token_urlsafe(16)
        nonce = entropy.token_bytes(12)
        sealed = nonce + self._cipher.encrypt(nonce, token.get_secret_value().encode(), reference.encode())
        transaction.sealed.add(reference, owner, sealed, at=now())
        return reference

    def get(self, reference: str) -> SecretStr:
        """The token. Raises NotFound, Unavailable, and Refused where it was sealed with another key."""
        with self._database.read() as transaction:
            sealed = transaction.sealed.get(reference)
        if sealed is None:
            raise NotFound(_FORGOTTEN)
        try:
            return SecretStr(self._cipher.decrypt(sealed[:12], sealed[12:], reference.encode()).decode())
        except (InvalidTag, ValueError):
            raise Refused("The BOSS token of this job was sealed with another key; submit the job again.") from None

    def forget(self, transaction: Transaction, reference: str) -> None:
        """Erase the token; an unknown reference is no error."""
        transaction.sealed.delete(reference)

    def holds(self, reference: str) -> bool:
        """Whether the reference is one of this vault's: it begins with `sealed:`. No I/O."""
        return reference.startswith(self._PREFIX)


_FORGOTTEN = "The BOSS token of this job was erased."
