"""Windows and words for one person: opened within a trigger's three seconds, filled when there is something to show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Literal

from slack_bolt import Respond
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.models.blocks import Block, PlainTextObject, SectionBlock
from slack_sdk.models.views import View

from bot.domain import words
from bot.domain.errors import NomadsError
from bot.slack.cards import SECTION

log = logging.getLogger(__name__)

TITLE, META = 24, 3000
"""Slack's limits on a window's title and what it remembers, in characters."""
CLOSED = {"not_found", "view_not_found", "expired_trigger_id"}
"""What Slack says of a window that is open no more."""


def window(title: str, blocks: Sequence[Block], *, callback: str = "nomads_window", meta: str = "") -> dict[str, Any]:
    """A window without a button to submit, as Slack takes it; the app hears of its end."""
    return View(
        type="modal",
        callback_id=callback,
        title=words.shortened(title, TITLE),
        close="Close",
        blocks=blocks,
        private_metadata=meta[:META],
        notify_on_close=True,
    ).to_dict()


def said(text: str) -> Block:
    """Words as they are, whatever stands in them."""
    return SectionBlock(text=PlainTextObject(text=words.shortened(text, SECTION)))


class Windows:
    """Opens them; what an answer need not wait for is done `later`."""

    def __init__(self, *, later: Executor) -> None:
        self._later = later

    def show(self, client: WebClient, body: Mapping[str, Any], view: dict[str, Any]) -> str:
        """Open a window, over the one that was clicked in if there is one. Returns its id. Raises SlackApiError."""
        if (body.get("view") or {}).get("type") == "modal":
            answer = client.views_push(trigger_id=body["trigger_id"], view=view)
        else:
            answer = client.views_open(trigger_id=body["trigger_id"], view=view)
        return str((answer.get("view") or {}).get("id") or "")

    def open(
        self,
        client: WebClient,
        body: Mapping[str, Any],
        title: str,
        fill: Callable[[], Sequence[Block]],
        *,
        callback: str = "nomads_window",
        meta: str = "",
        then: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open a window at once, fill it later, and call `then` with its id. What goes wrong stands in the window."""
        empty = window(title, [said("One moment…")], callback=callback, meta=meta)
        view_id = self.show(client, body, empty)

        def show() -> None:
            try:
                blocks = fill()
            except NomadsError as error:
                blocks = [said(str(error))]
            update(client, view_id, window(title, blocks, callback=callback, meta=meta))
            then(view_id)

        self.later(show)

    def tell(self, client: WebClient, body: Mapping[str, Any], respond: Respond, text: str) -> None:
        """Say it to the person who clicked, and to nobody else: beside the message, or in a window."""
        if body.get("response_url"):
            self.later(lambda: respond(text=words.mrkdwn(text), response_type="ephemeral", replace_original=False))
        else:
            self.show(client, body, window("NOMADS", [said(text)]))

    def later(self, work: Callable[[], object]) -> None:
        """Do it when the answer is out; nobody waits for it, and nobody is told if it fails."""

        def attempt() -> None:
            try:
                work()
            except (NomadsError, SlackClientError, OSError) as error:
                log.info("What should have been shown was not: %s", type(error).__name__)
            except Exception as error:
                log.error("What should have been shown was not: %s", words.where(error))

        self._later.submit(attempt)


def update(client: WebClient, view_id: str, view: dict[str, Any]) -> Literal["shown", "closed", "later"]:
    """Bring an open window up to date: whether it is shown, or can be shown later, or is open no more."""
    try:
        client.views_update(view_id=view_id, view=view)
    except SlackApiError as error:
        log.info("A window was not brought up to date: %s", error.response.get("error"))
        return "closed" if error.response.get("error") in CLOSED else "later"
    return "shown"
