"""Questions to Slack before a person is answered: with short timeouts, and with answers cached for a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.error import URLError

from cachetools import TTLCache
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

KEEP = 60.0
"""Seconds for which an answer is cached."""
MOST = 10_000
"""Answers that are cached at most."""
_ABSENT = {"channel_not_found", "not_in_channel", "is_archived", "method_not_supported_for_channel_type"}


class SlackWorkspace:
    """Facts about people and channels. Where Slack is slow or cannot be reached, the fact counts as not known.

    `client` should give up within a second: a trigger id is valid for three.
    """

    def __init__(self, *, client: WebClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._known: TTLCache[tuple[str, str], str] = TTLCache(MOST, KEEP, timer=clock)
        self._lock = threading.Lock()

    def mail_of(self, user: str) -> str:
        """The address in the person's profile; empty where it is not known."""
        return self._once("mail", user, self._ask_mail)

    def name_of(self, user: str) -> str:
        """The name by which others know the person; empty where it is not known."""
        return self._once("name", user, self._ask_name)

    def trouble_with(self, channel: str) -> str:
        """Why the bot cannot post to the channel, in words for a person; empty where it can, or nothing is known."""
        return self._once("channel", channel, self._ask_channel)

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """The address of a message; empty where it is not known."""
        if not channel or not timestamp:
            return ""
        return self._once("link", f"{channel} {timestamp}", self._ask_link)

    def _ask_link(self, message: str) -> str:
        channel, _, timestamp = message.partition(" ")
        return str(self._client.chat_getPermalink(channel=channel, message_ts=timestamp).get("permalink") or "")

    def _ask_mail(self, user: str) -> str:
        profile = (self._client.users_info(user=user).get("user") or {}).get("profile") or {}
        return str(profile.get("email") or "")

    def _ask_name(self, user: str) -> str:
        found = self._client.users_info(user=user).get("user") or {}
        profile = found.get("profile") or {}
        return str(profile.get("display_name") or profile.get("real_name") or found.get("name") or "")

    def _ask_channel(self, channel: str) -> str:
        try:
            found = self._client.conversations_info(channel=channel).get("channel") or {}
        except SlackApiError as error:
            if error.response.get("error") not in _ABSENT:
                raise
            found = {"is_private": True, "is_member": False}
        if found.get("is_archived"):
            return "This channel is archived; choose another one."
        if found.get("is_private") and not found.get("is_member"):
            return "NOMADS is not in this private channel: invite it there with /invite @NOMADS, then submit again."
        return ""

    def _once(self, what: str, of: str, ask: Callable[[str], str]) -> str:
        with self._lock:
            known = self._known.get((what, of))
        if known is not None:
            return known
        try:
            answer = ask(of)
        except (SlackApiError, URLError, OSError):
            return ""
        # A refusal is not cached: the person is about to invite the bot and to press Submit again.
        if what != "channel" or not answer:
            with self._lock:
                self._known[what, of] = answer
        return answer
