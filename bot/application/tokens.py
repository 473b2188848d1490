"""The one keeper of BOSS tokens, from acceptance to the end of a job."""

from __future__ import annotations

from pydantic import SecretStr

from bot.application.ports import Secrets
from bot.storage.transaction import Transaction
from bot.storage.vault import Vault


class TokenKeeper:
    """Seals tokens in the database, and hands them to where compute takes them from.

    A reference says where the token is: in a sealed row, or in compute's own keeper (AWS Secrets Manager).
    """

    def __init__(self, *, vault: Vault, secrets: Secrets | None = None) -> None:
        """`secrets` is compute's own keeper; None: compute reads the sealed rows."""
        self._vault = vault
        self._secrets = secrets

    def seal(self, transaction: Transaction, owner: str, token: SecretStr) -> str:
        """Keep the token with everything else that the transaction commits; returns its reference."""
        return self._vault.put(transaction, owner, token)

    def open(self, reference: str) -> SecretStr:
        """The token, wherever it is. Raises NotFound, Refused or Unavailable."""
        if self._secrets is None or self._vault.holds(reference):
            return self._vault.get(reference)
        return self._secrets.get(reference)

    def hand_over(self, owner: str, reference: str) -> str:
        """Put the token where compute takes it from; returns its reference there. Raises as `open`."""
        if self._secrets is None or self._secrets.holds(reference):
            return reference
        return self._secrets.put(owner, self._vault.get(reference))

    def erase(self, transaction: Transaction, reference: str) -> bool:
        """Erase the sealed row with everything else that the transaction commits; False where there is none.

        What compute's own keeper has stays there: the same token may serve other jobs of its owner.
        """
        if not self._vault.holds(reference):
            return False
        self._vault.forget(transaction, reference)
        return True
