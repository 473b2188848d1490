"""`/nomads token`: a person's saved token, shown by its last characters, replaced or forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient
from slack_sdk.models.blocks import (
    CheckboxesElement,
    InputBlock,
    Option,
    PlainTextInputElement,
    PlainTextObject,
    SectionBlock,
)
from slack_sdk.models.views import View

from bot.application.browsing import Browsing
from bot.application.people import People
from bot.domain.errors import InvalidRequest, Unavailable
from bot.slack.cards import about_token
from handlers import modal

CALLBACK = "nomads_token_view"
WITHIN = 1.5
"""Seconds that BOSS is given to say whether it takes a token."""


class Token:
    """Shows a person's saved token, replaces or forgets it."""

    def __init__(self, *, browsing: Browsing, people: People, changed: Callable[[str], None]) -> None:
        """`changed` is called with the person whose saved token was replaced or forgotten."""
        self._browsing = browsing
        self._people = people
        self._changed = changed

    def button(self, ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        """Open the form from the home tab's button."""
        self.open(client, trigger_id=body["trigger_id"], user=body["user"]["id"])
        ack()

    def open(self, client: WebClient, *, trigger_id: str, user: str) -> None:
        """Open the form for a token."""
        known = self._people.profile(user).saved
        new = PlainTextInputElement(action_id=modal.ACTION)
        blocks = [
            SectionBlock(text=PlainTextObject(text=about_token(known))),
            InputBlock(block_id="token", label="New BOSS token", element=new, optional=True),
        ]
        if known:
            forget = CheckboxesElement(action_id=modal.ACTION, options=[Option(value="yes", text="Forget it")])
            blocks.append(InputBlock(block_id="forget", label="Saved token", element=forget, optional=True))
        shown = View(
            type="modal", callback_id=CALLBACK, title="Your BOSS token", submit="Save", close="Cancel", blocks=blocks
        )
        client.views_open(trigger_id=trigger_id, view=shown.to_dict())

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """Replace or forget the saved token; a token that BOSS refuses gives an error under its field."""
        form, user = modal.parse(view), body["user"]["id"]
        forget = bool((view["state"]["values"].get("forget") or {}).get(modal.ACTION, {}).get("selected_options"))
        problem = ""
        try:
            if form.token.get_secret_value():
                self._browsing.save_token(user, form.token, within=WITHIN)
            elif forget:
                self._people.forget_token(user)
        except InvalidRequest as error:
            problem = error.errors["token"]
        except Unavailable:
            problem = "NOMADS cannot write to its database just now; try again."
        if problem:
            ack(response_action="errors", errors={"token": problem})
        else:
            self._changed(user)
            ack()
