"""Type-ahead: the collections and experiments that a person's token may read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from slack_bolt import Ack

from bot.application.browsing import Browsing
from bot.domain.errors import Unavailable
from bot.domain.volume import VolumesRefused
from handlers import modal

WITHIN = 1.5
"""Seconds that BOSS is given for an answer; Slack gives the app three."""


class Options:
    """Fills the form's selects."""

    def __init__(self, *, browsing: Browsing) -> None:
        self._browsing = browsing

    def collections(self, ack: Ack, body: dict[str, Any]) -> None:
        """Offer the admin's named volumes, and the collections, that fit the typed text."""
        form = modal.parse(body["view"])
        user = body["user"]["id"]
        collections = partial(self._browsing.collections, user, form.token, within=WITHIN)
        self._offer(ack, body, collections, also=self._browsing.named(user))

    def experiments(self, ack: Ack, body: dict[str, Any]) -> None:
        """Offer the experiments of the chosen collection that fit the typed text."""
        form = modal.parse(body["view"])
        user, collection = body["user"]["id"], form.values.get(modal.COLLECTION) or form.meta.collection
        if not collection:
            ack(options=modal.no_collection())
            return
        self._offer(ack, body, lambda: self._browsing.experiments(user, form.token, collection, within=WITHIN))

    def _offer(
        self, ack: Ack, body: dict[str, Any], names: Callable[[], Sequence[str]], *, also: Sequence[str] = ()
    ) -> None:
        found: Sequence[str] = ()
        unchecked = ""
        try:
            found = names()
        except VolumesRefused:
            unchecked = " (BOSS shows this token none)"
        except Unavailable:
            unchecked = " (unchecked: BOSS does not say)"
        ack(options=modal.options([*also, *found], str(body.get("value") or ""), unchecked=unchecked))
