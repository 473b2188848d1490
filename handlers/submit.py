"""Opening the form, and taking what comes back."""

from __future__ import annotations

from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient

from bot.catalog import Catalog
from bot.jobs import InvalidRequest, Unavailable
from bot.service import JobService
from handlers import modal
from handlers.workspace import Workspace


class Submit:
    """The way into NOMADS."""

    def __init__(self, *, service: JobService, catalog: Catalog, workspace: Workspace) -> None:
        self._service = service
        self._catalog = catalog
        self._workspace = workspace

    def open(self, client: WebClient, *, trigger_id: str, user: str, channel: str = "", text: str = "") -> None:
        """Open the form: first what the words say, then the channel they are in and their profile's address."""
        wish = modal.wish(text, self._catalog)
        preset = {"pipeline": self._service.first_choice()}
        if channel[:1] in ("C", "G"):
            preset["channel"] = channel
        mail = {} if "email" in wish.values else {"email": self._workspace.mail_of(user)}
        wish = modal.Wish({**preset, **mail, **wish.values}, wish.not_understood)
        client.views_open(trigger_id=trigger_id, view=modal.view(self._catalog, wish))

    def open_from_shortcut(self, ack: Ack, shortcut: dict[str, Any], client: WebClient) -> None:
        """The global shortcut: the same form, from anywhere."""
        self.open(client, trigger_id=shortcut["trigger_id"], user=shortcut["user"]["id"])
        ack()

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """Every mistake at once and the form stays; or a job in the database, and only then the form closes."""
        form = modal.parse(view)
        channel = form.values.get("channel", "")
        trouble = self._workspace.trouble_with(channel) if channel else "Choose the channel that hears of the results."
        errors = {"channel": trouble} if trouble else {}
        try:
            request = self._service.review(form.values, form.token)
            if not errors:
                key = f"view:{view['id']}"
                self._service.accept(request, actor=body["user"]["id"], token=form.token, key=key)
        except InvalidRequest as error:
            errors = {**error.errors, **errors}
        except Unavailable:
            errors = {"pipeline": "NOMADS cannot write to its database just now. Nothing was submitted; try again."}
        if errors:
            ack(response_action="errors", errors=modal.errors(errors))
        else:
            ack()
