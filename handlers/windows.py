"""Windows and messages for one person: opened within the trigger id's three seconds, filled later."""

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
from bot.slack import answers
from bot.slack.cards import SECTION
from bot.slack.client import NOT_SLACKS, refusal

log = logging.getLogger(__name__)

TITLE = 24
"""Slack's limit on a window's title, in characters."""
META = 3000
"""Slack's limit on a window's private metadata, in characters."""
CLOSED = {"not_found", "view_not_found", "expired_trigger_id"}
"""Slack's error codes for a window that is closed."""


def window(title: str, blocks: Sequence[Block], *, callback: str = "nomads_window", meta: str = "") -> dict[str, Any]:
    """A window without a submit button, as Slack takes it; Slack tells the app when it is closed."""
    return View(
        type="modal",
        callback_id=callback,
        title=words.shortened(title, TITLE),
        close="Close",
        blocks=blocks,
        private_metadata=meta[:META],
        notify_on_close=True,
    ).to_dict()


def said(text: str, *, block_id: str | None = None) -> Block:
    """A section of plain text, without mark-up."""
    return SectionBlock(text=PlainTextObject(text=words.shortened(text, SECTION)), block_id=block_id)


class Windows:
    """Opens windows; work that an answer need not wait for runs on the executor `later`."""

    def __init__(self, *, later: Executor) -> None:
        self._later = later

    def show(self, client: WebClient, body: Mapping[str, Any], view: dict[str, Any]) -> str:
        """Open a window, over the one that was clicked in if there is one. Returns its id. Raises SlackApiError."""
        if (body.get("view") or {}).get("type") == "modal":
            answer = client.views_push(trigger_id=body["trigger_id"], view=view)
        else:
            answer = client.views_open(trigger_id=body["trigger_id"], view=view)
        return answers.found(answer, str, "view", "id") or ""

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
        """Open a window at once, fill it later, and call `then` with its id. The window shows errors of `fill`."""
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
        """Show the text only to the person who clicked: beside the message, or in a window."""
        if body.get("response_url"):
            self.later(lambda: respond(text=words.mrkdwn(text), response_type="ephemeral", replace_original=False))
        else:
            self.show(client, body, window("NOMADS", [said(text)]))

    def later(self, work: Callable[[], object]) -> None:
        """Run the work after the answer, in another thread. A failure is logged, and the person is not told."""

        def attempt() -> None:
            try:
                work()
            except (NomadsError, SlackClientError, OSError) as error:
                log.info("What should have been shown was not: %s", type(error).__name__)
            except Exception as error:
                log.error("What should have been shown was not: %s", words.where(error))

        self._later.submit(attempt)


def update(client: WebClient, view_id: str, view: dict[str, Any]) -> Literal["shown", "closed", "later"]:
    """Update an open window. Returns whether it shows the view, is closed, or may show the view later."""
    try:
        client.views_update(view_id=view_id, view=view)
    except SlackApiError as error:
        code = refusal(error.response)
        log.info("A window was not brought up to date: %s", code or NOT_SLACKS)
        return "closed" if code in CLOSED else "later"
    return "shown"
