"""The app's own tab: opened, and what is chosen in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient

from bot.application.people import People
from bot.application.queries import Queries
from bot.domain.errors import Unavailable
from bot.domain.messages import Home
from bot.domain.people import Steps
from handlers.submit import Submit
from handlers.windows import Windows

TRIES, PATIENCE = 5, 10.0
"""How often, and with how many seconds between at most, a tab that was opened is tried to be shown."""

PUBLISHED = 3
"""How often a tab is published at most until it shows what is."""


class HomeTab:
    """Shows it when it is opened and when something in it was changed."""

    def __init__(
        self,
        *,
        people: People,
        queries: Queries,
        submit: Submit,
        windows: Windows,
        publish: Callable[[str, Home], None],
    ) -> None:
        """`publish` shows a person their tab like that."""
        self._people = people
        self._queries = queries
        self._submit = submit
        self._windows = windows
        self._publish = publish

    def opened(self, ack: Ack, event: dict[str, Any]) -> None:
        """Somebody looks at it."""
        if event.get("tab") == "home":
            self._windows.later(lambda: self._appear(event["user"]))
        ack()

    def _appear(self, user: str) -> None:
        self._people.opened_home(user)  # first: what changes while it is shown is shown after it
        for _ in range(TRIES):
            try:
                self._show(user)
                return
            except Unavailable as error:
                threading.Event().wait(min(error.retry_after or 1.0, PATIENCE))

    def refresh(self, user: str) -> None:
        """Something in it was changed."""
        self._windows.later(lambda: self._show(user))

    def _show(self, user: str) -> None:
        """Until it shows what is: something may change while it is on its way, and be shown before it."""
        shown = None
        for _ in range(PUBLISHED):
            if (home := self._queries.home(user)) == shown:
                return
            self._publish(user, home)
            shown = home

    def new(self, ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        """The form."""
        self._submit.open(client, trigger_id=body["trigger_id"], user=body["user"]["id"])
        ack()

    def steps(self, ack: Ack, body: dict[str, Any], action: dict[str, Any]) -> None:
        """Which steps are told."""
        user = body["user"]["id"]
        self._people.prefer(user, steps=Steps(action["selected_option"]["value"]))
        self.refresh(user)
        ack()

    def hear(self, ack: Ack, body: dict[str, Any], action: dict[str, Any]) -> None:
        """Whether they are named at the end, and whether mail is sent."""
        user = body["user"]["id"]
        ticked = {option["value"] for option in action["selected_options"]}
        self._people.prefer(user, mention="mention" in ticked, mail="mail" in ticked)
        self.refresh(user)
        ack()
