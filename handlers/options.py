"""Type-ahead: the collections and experiments that a person's token may read."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from slack_bolt import Ack

from bot.application.ports import Volumes
from bot.application.service import JobService
from bot.domain.errors import Unavailable
from bot.domain.request import PUBLIC_TOKEN
from bot.domain.volume import VolumesRefused
from handlers import modal

WITHIN = 1.5
"""Seconds that BOSS is given; Slack gives the app three."""


class Options:
    """Fills the form's selects."""

    def __init__(self, *, service: JobService, volumes: Volumes) -> None:
        self._service = service
        self._volumes = volumes

    def collections(self, ack: Ack, body: dict[str, Any]) -> None:
        """The collections that fit what was typed."""
        self._offer(ack, body, lambda token: self._volumes.collections(token=token, within=WITHIN))

    def experiments(self, ack: Ack, body: dict[str, Any]) -> None:
        """The experiments of the collection that is chosen."""
        form = modal.parse(body["view"])
        collection = form.values.get(modal.COLLECTION) or form.meta.collection
        self._offer(
            ack,
            body,
            lambda token: self._volumes.experiments(collection, token=token, within=WITHIN) if collection else [],
        )

    def _offer(self, ack: Ack, body: dict[str, Any], names: Any) -> None:
        typed = modal.parse(body["view"]).token  # where Slack tells it here
        token = typed if typed.get_secret_value() else self._service.people.token_of(body["user"]["id"])
        found, unchecked = [], ""
        try:
            found = names(token or SecretStr(PUBLIC_TOKEN))
        except VolumesRefused:
            unchecked = " (BOSS shows this token none)"
        except Unavailable:
            unchecked = " (unchecked: BOSS does not say)"
        ack(options=modal.options(found, str(body.get("value") or ""), unchecked=unchecked))
