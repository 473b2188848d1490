"""The app's home tab: opened, and what is chosen in it."""

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

TRIES = 5
"""Tries to publish a tab that was opened."""
PATIENCE = 10.0
"""Seconds between two of these tries, at most."""
PUBLISHED = 3
"""Times that a tab is published until it shows the present state, at most."""


class HomeTab:
    """Publishes the home tab when it is opened and when a preference in it is changed."""

    def __init__(
        self,
        *,
        people: People,
        queries: Queries,
        submit: Submit,
        windows: Windows,
        publish: Callable[[str, Home], None],
    ) -> None:
        """`publish` shows a person a Home. Raises Unavailable and Refused."""
        self._people = people
        self._queries = queries
        self._submit = submit
        self._windows = windows
        self._publish = publish

    def opened(self, ack: Ack, event: dict[str, Any]) -> None:
        """A person has opened the home tab."""
        if event.get("tab") == "home":
            self._windows.later(lambda: self._appear(event["user"]))
        ack()

    def _appear(self, user: str) -> None:
        self._people.opened_home(user)  # first, so that changes while the tab is published enqueue an update
        for _ in range(TRIES):
            try:
                self._show(user)
                return
            except Unavailable as error:
                threading.Event().wait(min(error.retry_after or 1.0, PATIENCE))

    def refresh(self, user: str) -> None:
        """Publish the person's tab again, after the answer."""
        self._windows.later(lambda: self._show(user))

    def _show(self, user: str) -> None:
        """Publish until the tab shows the present state, which may have changed while a tab was being published."""
        shown = None
        for _ in range(PUBLISHED):
            if (home := self._queries.home(user)) == shown:
                return
            self._publish(user, home)
            shown = home

    def new(self, ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        """Open the form for a new job."""
        self._submit.open(client, trigger_id=body["trigger_id"], user=body["user"]["id"])
        ack()

    def steps(self, ack: Ack, body: dict[str, Any], action: dict[str, Any]) -> None:
        """Save which steps the person is told."""
        user = body["user"]["id"]
        self._people.prefer(user, steps=Steps(action["selected_option"]["value"]))
        self.refresh(user)
        ack()

    def hear(self, ack: Ack, body: dict[str, Any], action: dict[str, Any]) -> None:
        """Save whether the end mentions the person, and whether mail is sent where that is offered."""
        user = body["user"]["id"]
        ticked = {option["value"] for option in action["selected_options"]}
        self._people.prefer(user, mention="mention" in ticked, mail="mail" in ticked if self._queries.mails else None)
        self.refresh(user)
        ack()
