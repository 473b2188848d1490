"""Where BOSS tokens are, from a job's acceptance to its end."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr

from bot.application.ports import Secrets
from bot.domain.errors import NotFound, Refused
from bot.storage.transaction import Transaction
from bot.storage.vault import Vault
from contract import masking


class TokenKeeper:
    """Seals tokens in the database, and hands them over to where compute reads them.

    A reference says where the token is: in a sealed row, or in compute's own Secrets (AWS Secrets Manager).
    """

    def __init__(self, *, vault: Vault, secrets: Secrets | None = None) -> None:
        """`secrets` is where compute reads tokens; None: in the sealed rows."""
        self._vault = vault
        self._secrets = secrets

    def seal(self, transaction: Transaction, owner: str, token: SecretStr) -> str:
        """Seal the token in the transaction; returns its reference."""
        return self._vault.put(transaction, owner, token)

    def open(self, reference: str) -> SecretStr:
        """The token, wherever it is stored. Raises NotFound, Refused or Unavailable."""
        if self._secrets is None or self._vault.holds(reference):
            return self._vault.get(reference)
        return self._secrets.get(reference)

    def masked(self, texts: Sequence[str], reference: str | None) -> list[str]:
        """The texts without the token; empty ones where the token is not known. Raises Unavailable."""
        try:
            token = self.open(reference).get_secret_value() if reference and any(texts) else ""
        except (NotFound, Refused):
            return [""] * len(texts)
        return masking.hidden_in_texts(texts, token)

    def hand_over(self, owner: str, reference: str) -> str:
        """Store the token where compute reads it; returns the token's reference there. Raises as `open`."""
        if self._secrets is None or self._secrets.holds(reference):
            return reference
        return self._secrets.put(owner, self._vault.get(reference))

    def erase(self, transaction: Transaction, reference: str) -> bool:
        """Erase the sealed row in the transaction; False where the reference is not one of a sealed row.

        A token in compute's own Secrets stays: it may serve other jobs of its owner.
        """
        if not self._vault.holds(reference):
            return False
        self._vault.forget(transaction, reference)
        return True
