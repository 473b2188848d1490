"""Questions to Slack before a person is answered: with short timeouts, and with answers cached for a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.error import URLError

from cachetools import TTLCache
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bot.domain.errors import Unavailable
from bot.domain.people import NO_SUCH_CHANNEL, Privacy, Standing
from bot.slack import answers
from bot.slack.client import refusal

KEEP = 60.0
"""Seconds for which an answer is cached."""
MOST = 10_000
"""Answers that are cached at most."""
EACH = 200
"""Channels that are asked for at a time: as Slack recommends, so that each answer comes in time."""
PAGES = 50
"""Pages of a person's channels that are read; with more the person's channels are not known."""
ARCHIVED = "This channel is archived; choose another one."
_ABSENT = {"channel_not_found", "not_in_channel", "is_archived", "method_not_supported_for_channel_type"}
_NOBODY = {"user_not_found", "user_not_visible", "users_not_found"}
T = TypeVar("T")


@dataclass(frozen=True)
class _Channel:
    privacy: Privacy | None
    trouble: str


@dataclass(frozen=True)
class _Person:
    name: str
    mail: str
    teams: frozenset[str]
    """The workspaces that the person belongs to; empty: the person is gone, unknown, or no person."""
    guest: bool


class SlackWorkspace:
    """Facts about people and channels. Where Slack is slow or cannot be reached, the fact counts as not known.

    `client` should give up within a second: a trigger id is valid for three. Several threads with one question ask it
    once. Only answers are cached.
    """

    def __init__(self, *, client: WebClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._known: TTLCache[tuple[str, str], Any] = TTLCache(MOST, KEEP, timer=clock)
        self._asked: dict[tuple[str, str], Future[Any]] = {}
        self._lock = threading.Lock()
        self._team = ""

    def mail_of(self, user: str) -> str | None:
        """The address in the person's profile; empty where there is none, None where Slack does not tell now."""
        person = self._once("person", user, self._ask_person)
        return person.mail if person else None

    def name_of(self, user: str) -> str:
        """The name by which others know the person; empty where it is not known."""
        person = self._once("person", user, self._ask_person)
        return person.name if person else ""

    def trouble_with(self, channel: str) -> str:
        """Why the bot cannot post to the channel, in words for a person; empty where it can, or nothing is known."""
        # A refusal is asked for anew: the person is about to invite the bot and to press Submit again.
        found = self._once("channel", channel, self._ask_channel, good=lambda known: not known.trouble)
        return found.trouble if found else ""

    def standing_of(self, user: str) -> Standing | None:
        """Who the person is in the workspace; None where Slack does not tell now."""
        person = self._once("person", user, self._ask_person)
        team = self._team or self._once("team", "", self._ask_team)
        if not (person and team):
            return None
        self._team = team  # a token never changes its workspace
        if team not in person.teams:
            return Standing.STRANGER
        return Standing.GUEST if person.guest else Standing.MEMBER

    def privacy_of(self, channel: str) -> Privacy | None:
        """For whom the channel is; None where Slack does not tell now."""
        found = self._once("channel", channel, self._ask_channel)
        return found.privacy if found else None

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        """The person's public channels, and their private ones that the bot is in; None: Slack does not tell now.

        An older answer without the channel `wanted` is asked for anew.
        """
        return self._once("channels", user, self._ask_channels, good=lambda known: not wanted or wanted in known)

    def link_to(self, channel: str | None, timestamp: str | None) -> str:
        """The address of a message; empty where it is not known."""
        if not channel or not timestamp:
            return ""
        return self._once("link", f"{channel} {timestamp}", self._ask_link) or ""

    # Questions to Slack; each raises SlackApiError, URLError, OSError or Unavailable where Slack does not answer

    def _ask_link(self, message: str) -> str:
        channel, _, timestamp = message.partition(" ")
        return answers.needed(self._client.chat_getPermalink(channel=channel, message_ts=timestamp), str, "permalink")

    def _ask_team(self, _: str) -> str:
        return answers.needed(self._client.auth_test(), str, "team_id")

    def _ask_person(self, user: str) -> _Person | None:
        try:
            found = answers.needed(self._client.users_info(user=user), dict, "user")
        except SlackApiError as error:
            if refusal(error.response) not in _NOBODY:
                raise
            return _Person(name="", mail="", teams=frozenset(), guest=False)
        teams = set(answers.listed(found, str, "enterprise_user", "teams"))
        if team := answers.found(found, str, "team_id"):
            teams.add(team)
        if not teams:
            return None
        names = [("profile", "display_name"), ("profile", "real_name"), ("name",)]
        return _Person(
            name=next((name for path in names if (name := answers.found(found, str, *path))), ""),
            mail=answers.found(found, str, "profile", "email") or "",
            teams=frozenset() if _any(found, "deleted", "is_bot", "is_stranger") else frozenset(teams),
            guest=_any(found, "is_restricted", "is_ultra_restricted"),
        )

    def _ask_channel(self, channel: str) -> _Channel:
        try:
            found = answers.needed(self._client.conversations_info(channel=channel), dict, "channel")
        except SlackApiError as error:
            if refusal(error.response) not in _ABSENT:
                raise
            return _Channel(Privacy.PRIVATE, NO_SUCH_CHANNEL)
        if _any(found, "is_archived"):
            trouble = ARCHIVED
        else:
            trouble = NO_SUCH_CHANNEL if _any(found, "is_private") and not _any(found, "is_member") else ""
        return _Channel(_privacy(found), trouble)

    def _ask_channels(self, user: str) -> frozenset[str] | None:
        channels, cursor = set[str](), ""
        for _ in range(PAGES):
            try:
                page = self._client.users_conversations(
                    user=user, types="public_channel,private_channel", limit=EACH, cursor=cursor or None
                )
            except SlackApiError as error:
                if refusal(error.response) not in _NOBODY:
                    raise
                return frozenset()
            answers.needed(page, list, "channels")
            channels.update(answers.needed(channel, str, "id") for channel in answers.listed(page, dict, "channels"))
            cursor = answers.cursor(page, before=cursor)
            if not cursor:
                return frozenset(channels)
        return None

    def _once(
        self, what: str, of: str, ask: Callable[[str], T | None], *, good: Callable[[T], bool] = lambda _: True
    ) -> T | None:
        """The cached answer if it is a good one, else Slack's, which is cached; None where Slack gives none."""
        key = what, of
        with self._lock:
            known = self._known.get(key)
            if known is not None and good(known):
                return cast(T, known)
            asked = self._asked.get(key)
            if asked is None:
                mine: Future[T | None] = Future()
                self._asked[key] = mine
        if asked is not None:
            return cast("T | None", asked.result())
        answer = None
        try:
            answer = ask(of)
        except (SlackApiError, URLError, OSError, Unavailable):
            pass
        finally:
            with self._lock:
                if answer is not None:
                    self._known[key] = answer
                del self._asked[key]
            mine.set_result(answer)
        return answer


def _any(found: dict[str, Any], *names: str) -> bool:
    """Whether one of these is true. Raises Unavailable where one is neither true, false, null nor absent."""
    said = [answers.found(found, bool, name) for name in names]  # each of them is looked at
    return any(said)


def _privacy(found: dict[str, Any]) -> Privacy | None:
    if _any(found, "is_im", "is_mpim"):
        return Privacy.DIRECT
    private = answers.found(found, bool, "is_private")
    return None if private is None else Privacy.PRIVATE if private else Privacy.PUBLIC
