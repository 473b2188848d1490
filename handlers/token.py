"""`/nomads token`: the token that is kept for a person; shown by its end, replaced or forgotten."""

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

from bot.application.ports import Volumes
from bot.application.service import JobService
from bot.domain.checks import token_problem
from bot.domain.errors import Unavailable
from bot.domain.volume import TokenRefused
from bot.slack.cards import about_token
from handlers import modal

CALLBACK = "nomads_token_view"
WITHIN = 1.5
"""Seconds that BOSS is given to say whether it takes a token."""


class Token:
    """Shows what is kept, and takes what is typed."""

    def __init__(self, *, service: JobService, volumes: Volumes, changed: Callable[[str], None]) -> None:
        """`changed` hears of the person whose token is another one now."""
        self._service = service
        self._volumes = volumes
        self._changed = changed

    def open(self, client: WebClient, *, trigger_id: str, user: str) -> None:
        """Open the form."""
        known = self._service.people.kept(user).saved
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
        """Replace or forget it; one that BOSS refuses is an error under its field."""
        form, user = modal.parse(view), body["user"]["id"]
        forget = bool((view["state"]["values"].get("forget") or {}).get(modal.ACTION, {}).get("selected_options"))
        error = ""
        try:
            if form.token.get_secret_value():
                error = self._problem(form)
                if not error:
                    self._service.people.remember_token(user, form.token)
            elif forget:
                self._service.people.forget_token(user)
        except Unavailable:
            error = "NOMADS cannot write to its database just now; try again."
        if error:
            ack(response_action="errors", errors={"token": error})
        else:
            self._changed(user)
            ack()

    def _problem(self, form: modal.Form) -> str:
        if problem := token_problem(form.token.get_secret_value()):
            return problem
        try:
            self._volumes.collections(token=form.token, within=WITHIN)
        except TokenRefused as refusal:
            return str(refusal)
        except Unavailable:
            return "BOSS does not answer just now, so this token cannot be checked; try again in a moment."
        return ""
