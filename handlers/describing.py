"""What BOSS says of the experiment in an open form: shown at once where it is known, else a moment later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cachetools import LRUCache
from pydantic import SecretStr
from slack_sdk import WebClient

from bot.application.browsing import Browsing, Look
from bot.application.people import Profile
from bot.domain.errors import Unavailable
from bot.domain.volume import VolumesRefused
from handlers import modal
from handlers.windows import Windows, update

PATIENCE = 3.0
"""Seconds that BOSS is given to describe an experiment for a form that is already open."""
FORMS = 1000
"""Open forms whose last choice is remembered."""
SILENCE = 5.0
"""Seconds between two questions for opening forms to a BOSS that did not answer in PATIENCE."""
SLOW_VOLUME = "The volume's server does not answer just now: the address is checked before the run."
SLOW = "BOSS does not answer just now: names are taken as you type them, and checked before the run."


@dataclass(frozen=True)
class _Waiting:
    """A form that waits for BOSS's answer."""

    client: WebClient
    view_id: str
    view: Callable[[modal.About], dict[str, Any]]
    choice: object


class Describing:
    """Asks once for all forms that wait for the same answer, and shows each form the answer to its latest choice."""

    def __init__(self, *, browsing: Browsing, windows: Windows, clock: Callable[[], float] = time.monotonic) -> None:
        self._browsing = browsing
        self._windows = windows
        self._clock = clock
        self._choices: LRUCache[str, object] = LRUCache(FORMS)
        self._waiting: dict[Look, list[_Waiting]] = {}
        self._silent = False
        self._ask_again_at = 0.0
        self._lock = threading.Lock()

    def look(
        self,
        user: str,
        values: Mapping[str, str],
        *,
        typed: SecretStr | None = None,
        profile: Profile | None = None,
    ) -> Look:
        """The look at what is chosen in a form with these values."""
        chosen = values.get(modal.COLLECTION, ""), values.get(modal.EXPERIMENT, "")
        return self._browsing.look(user, *chosen, typed=typed, profile=profile)

    def known(self, look: Look) -> modal.About | None:
        """What can be shown without waiting; None: BOSS has to be asked."""
        return self._describe(look, within=0)

    def at_opening(self, look: Look) -> modal.About | None:
        """As `known`, for a form that is about to open; None: BOSS has to be asked, with `later`, and may answer."""
        if look.whole and not look.addressed and not self._worth_asking():
            return modal.About(said=SLOW)  # also without a question to BOSS that nobody would wait for
        return self.known(look)

    def _worth_asking(self) -> bool:
        """Whether BOSS may answer: BOSS answered last time, or was not asked for SILENCE."""
        with self._lock:
            if self._silent and self._clock() < self._ask_again_at:
                return False
            self._ask_again_at = self._clock() + SILENCE  # while this form asks, the others need not
            return True

    def later(self, client: WebClient, view_id: str, look: Look, view: Callable[[modal.About], dict[str, Any]]) -> None:
        """Show `view` with BOSS's answer once it comes, unless something else was chosen in the form meanwhile."""
        waiting = _Waiting(client, view_id, view, object())
        with self._lock:
            self._choices[view_id] = waiting.choice
            first = look not in self._waiting
            self._waiting.setdefault(look, []).append(waiting)
        if first:
            self._windows.later(lambda: self._answer(look))

    def drop(self, view_id: str) -> None:
        """Forget the choice in this form, so that no answer of BOSS's is shown there any more."""
        with self._lock:
            self._choices.pop(view_id, None)

    def _answer(self, look: Look) -> None:
        about: modal.About | None = None
        try:
            about = self._describe(look, within=PATIENCE)
            if look.whole and not look.addressed:  # otherwise BOSS was not asked
                self._silent = about is None
        finally:
            with self._lock:
                waiting = self._waiting.pop(look, [])
            for one in waiting:
                self._windows.later(
                    partial(self._show, one, about or modal.About(said=SLOW_VOLUME if look.addressed else SLOW))
                )

    def _show(self, waiting: _Waiting, about: modal.About) -> None:
        with self._lock:
            newest = self._choices.get(waiting.view_id) is waiting.choice
        if newest:
            update(waiting.client, waiting.view_id, waiting.view(about))

    def _describe(self, look: Look, *, within: float) -> modal.About | None:
        """What BOSS says in time; None where BOSS does not answer."""
        if not look.whole:
            return modal.About()
        try:
            return modal.About(self._browsing.describe(look, within=within))
        except VolumesRefused as refusal:
            return modal.About(said=str(refusal))
        except Unavailable:
            return None
