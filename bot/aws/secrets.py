"""BOSS tokens in AWS Secrets Manager."""

from __future__ import annotations

import hashlib
import hmac
import threading

from pydantic import SecretStr

from bot.aws.clients import Clients, translated
from bot.aws.config import AwsConfig
from bot.domain.errors import NotFound, Unavailable


class AwsSecrets:
    """The port Secrets in Secrets Manager; a reference is the secret's ARN.

    A secret is named `{prefix}/{owner}/{fingerprint}`. Owner and fingerprint are HMACs under `key`, so that the same
    owner and token share a secret, and the name lets nobody guess either. The key must stay the same.
    """

    def __init__(self, *, config: AwsConfig, key: bytes, clients: Clients | None = None) -> None:
        if len(key) < 16:
            raise ValueError("The fingerprint key needs at least 16 bytes.")
        self._config = config
        self._key = key
        self._clients = clients or Clients(config)
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}  # name to ARN, of secrets that this process stored

    def put(self, owner: str, value: SecretStr) -> str:
        """Store the token for its owner and return its ARN; again for the same owner and token, without a call."""
        name = (
            f"{self._config.prefix}/{self._hmac('owner', owner)}/{self._hmac('value', owner, value.get_secret_value())}"
        )
        known = self._known.get(name)
        if known is not None:
            return known
        with translated("Secrets Manager did not store the token", quiet=True):
            client = self._clients.secrets
            try:
                arn = client.create_secret(
                    Name=name, Description="A BOSS token, stored by NOMADS", SecretString=value.get_secret_value()
                )["ARN"]
            except (client.exceptions.ResourceExistsException, client.exceptions.InvalidRequestException):
                # The secret exists; InvalidRequest: it is scheduled for deletion.
                arn = self._meet_again(name)
        with self._lock:
            self._known[name] = arn
        return arn

    def _meet_again(self, name: str) -> str:
        """The ARN of an existing secret, restored from deletion if need be. The name vouches for the value."""
        client = self._clients.secrets
        try:
            found = client.describe_secret(SecretId=name)
            if found.get("DeletedDate"):
                client.restore_secret(SecretId=found["ARN"])
        except (client.exceptions.ResourceNotFoundException, client.exceptions.InvalidRequestException):
            # A secret deleted without recovery blocks its name for a short while, and cannot be restored.
            raise Unavailable("Secrets Manager is still deleting an older secret of the same name.") from None
        return found["ARN"]

    def get(self, reference: str) -> SecretStr:
        """The stored token. Raises NotFound, also for a secret that is scheduled for deletion."""
        if not self.holds(reference):
            raise NotFound("There is no such secret in Secrets Manager.")
        with translated("Secrets Manager did not give the token", quiet=True):
            client = self._clients.secrets
            try:
                return SecretStr(client.get_secret_value(SecretId=reference)["SecretString"])
            except client.exceptions.InvalidRequestException:
                raise NotFound("The secret was deleted from Secrets Manager.") from None

    def forget(self, reference: str) -> None:
        """Erase the token; an unknown reference is no error.

        There is no recovery window: a person who wants a token back can type it again.
        """
        with self._lock:
            self._known = {name: arn for name, arn in self._known.items() if arn != reference}
        if not self.holds(reference):
            return
        with translated("Secrets Manager did not erase the token", quiet=True):
            client = self._clients.secrets
            try:
                client.delete_secret(SecretId=reference, ForceDeleteWithoutRecovery=True)
            except client.exceptions.ResourceNotFoundException:
                return

    def holds(self, reference: str) -> bool:
        """Whether the reference is a secret's ARN."""
        return reference.startswith("arn:")

    def _hmac(self, *parts: str) -> str:
        text = "\0".join(parts).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]
