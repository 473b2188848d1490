"""The state of a workspace: people, channels, messages, files, open views, and the triggers that were given out.

Everything is guarded by one condition, which is notified of every change; the rest of the package changes the
workspace only while holding it.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sandbox import blocks

Json = dict[str, Any]
T = TypeVar("T")

TEAM = "T01SANDBOX"
APP = "A01NOMADS"
BOT = "B01NOMADS"
BOT_USER = "U01NOMADSBOT"
DOMAIN = "sandbox"

TRIGGER_SECONDS = 3.0
"""Seconds for which a trigger id is valid."""
VIEW_STACK = 3
"""Modals in a person's stack, at most."""
RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60.0


class SlackError(Exception):
    """A refusal of Slack's: `code` is the answer's `error`; `extra` is merged into the answer."""

    def __init__(self, code: str, **extra: Any) -> None:
        super().__init__(code)
        self.code = code
        self.extra = extra


@dataclass(frozen=True)
class Member:
    """A person (or the app's bot user) of the workspace."""

    id: str
    name: str
    real_name: str
    email: str = ""
    is_bot: bool = False
    guest: bool = False
    """Whether the person was invited to some channels only."""
    deleted: bool = False
    team: str = TEAM
    """The person's own workspace: another one for a stranger in a shared channel."""

    def as_json(self, *, with_email: bool) -> Json:
        """The user object of users.info."""
        profile = {"real_name": self.real_name, "display_name": self.name, "team": self.team}
        if with_email and self.email:
            profile["email"] = self.email
        return {
            "id": self.id,
            "team_id": self.team,
            "name": self.name,
            "deleted": self.deleted,
            "real_name": self.real_name,
            "tz": "Europe/London",
            "profile": profile,
            "is_bot": self.is_bot,
            "is_app_user": False,
            "is_restricted": self.guest,
            "is_ultra_restricted": False,
            "is_stranger": False,  # Slack says so only of those who share no channel with the app
        }


@dataclass
class Channel:
    """A channel or direct message; `messages` by timestamp, oldest first, replies among them."""

    id: str
    name: str
    private: bool = False
    members: set[str] = field(default_factory=set)
    archived: bool = False
    direct: str = ""
    """The person of a direct message with the app; empty for other channels."""
    messages: dict[str, Json] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The channel's kind in scopes: channels, groups or im."""
        return "im" if self.direct else "groups" if self.private else "channels"

    @property
    def name_in_payloads(self) -> str:
        """The channel's name in slash commands and actions, which do not name private channels."""
        return "directmessage" if self.direct else "privategroup" if self.private else self.name

    def as_json(self) -> Json:
        """The channel object of conversations.info."""
        if self.direct:
            return {"id": self.id, "created": 1700000000, "is_im": True, "user": self.direct, "is_archived": False}
        return {
            "id": self.id,
            "name": self.name,
            "name_normalized": self.name,
            "created": 1700000000,
            "creator": "U01DEMO",
            "is_channel": True,
            "is_group": False,
            "is_im": False,
            "is_mpim": False,
            "is_private": self.private,
            "is_archived": self.archived,
            "is_general": False,
            "is_shared": False,
            "is_member": BOT_USER in self.members,
            "context_team_id": TEAM,
            "num_members": len(self.members - {BOT_USER}),
            "topic": {"value": "", "creator": "", "last_set": 0},
            "purpose": {"value": "", "creator": "", "last_set": 0},
        }


@dataclass
class OpenView:
    """A modal on a person's screen: the app's view, and what the person has filled in so far (by block id)."""

    view: Json
    channel: str | None
    """The channel the person was in when the modal opened."""
    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    suggested: dict[str, list[Json]] = field(default_factory=dict)
    """The last options the app suggested, by action id."""
    chosen: dict[str, dict[str, Json]] = field(default_factory=dict)
    """The options that were chosen, by action id and value."""

    def offered(self, action_id: str) -> list[Json]:
        """The options that can be, or were, chosen of what the app suggested."""
        return [*self.suggested.get(action_id, []), *self.chosen.get(action_id, {}).values()]


@dataclass
class Trigger:
    """Permission to open a view, given with an interaction."""

    user: str
    channel: str | None
    view: str | None
    """The modal the interaction came from."""
    born: float
    used: bool = False


@dataclass
class ResponseUrl:
    """Permission to answer an interaction for half an hour, at most five times."""

    user: str
    channel: str
    born: float
    message: str | None = None
    uses: int = 0


@dataclass
class File:
    """An uploaded file; `content` is None until the upload."""

    id: str
    name: str
    length: int
    title: str = ""
    content: bytes | None = None
    shared: list[tuple[str, str]] = field(default_factory=list)
    """Where it was shared: (channel, timestamp of the message)."""

    def as_json(self, base: str) -> Json:
        """The file object of messages and of files.info; `base` is the stand-in's address."""
        kind = self.name.rpartition(".")[2].lower() if "." in self.name else "text"
        types = {"png": "image/png", "jpg": "image/jpeg", "svg": "image/svg+xml", "json": "application/json"}
        types |= {"csv": "text/csv", "txt": "text/plain"}
        return {
            "id": self.id,
            "name": self.name,
            "title": self.title or self.name,
            "mimetype": types.get(kind, "application/octet-stream"),
            "filetype": kind,
            "size": self.length,
            "user": BOT_USER,
            "mode": "hosted",
            "is_external": False,
            "url_private": f"{base}files/{self.id}/{self.name}",
            "permalink": f"{base}files/{self.id}/{self.name}",
        }


def default_members() -> list[Member]:
    """Two people with an address in their profile, one without."""
    return [
        Member(BOT_USER, "nomads", "NOMADS", is_bot=True),
        Member("U01DEMO", "demo", "Demo user", "demo@example.org"),
        Member("U01LAB", "labmate", "Lab member", "lab@example.org"),
        Member("U01GUEST", "guest", "Guest without an address"),
    ]


def default_channels(members: Iterable[str]) -> list[Channel]:
    """A public and a private channel with the bot, and one of each without."""
    people = {m for m in members if m != BOT_USER}
    return [
        Channel("C01SYNAPSES", "synapses", members={*people, BOT_USER}),
        Channel("C01GENERAL", "general", members=set(people)),
        Channel("C01PILOT", "pilot-data", private=True, members={*people, BOT_USER}),
        Channel("C01DRAFTS", "drafts", private=True, members=set(people)),
    ]


class Workspace:
    """The state of the stand-in, and how one looks at it. Whatever it returns is a copy."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = threading.Condition(threading.RLock())
        self.version = 0
        """The number of changes so far."""
        self.epoch = 0
        """The number of resets so far."""
        self.on_change: Callable[[], None] = lambda: None
        self._last_ts = 0
        self._furnish()

    def _furnish(self) -> None:
        self.members = {m.id: m for m in default_members()}
        self.channels = {c.id: c for c in default_channels(self.members)}
        self.files: dict[str, File] = {}
        self.open_views: dict[str, list[OpenView]] = {}
        """Each person's stack of modals, the top last."""
        self.homes: dict[str, Json] = {}
        self.ephemeral: dict[str, list[Json]] = {}
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}

    def reset(self) -> None:
        """Return to the initial state, without repeating timestamps."""
        with self.change():
            self.epoch += 1
            self._furnish()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold the workspace during the block, and notify waiting threads of a change."""
        with self.lock:
            yield
            self.version += 1
            self.lock.notify_all()
        self.on_change()

    def wait_for(self, predicate: Callable[[], T], seconds: float, what: str = "the condition") -> T:
        """Wait until the predicate, called at every change, is true; returns its value. Raises TimeoutError."""
        with self.lock:
            value = self.lock.wait_for(predicate, seconds)
            if not value:
                raise TimeoutError(f"waited {seconds} s in vain for {what}")
            return value

    def timestamp(self) -> str:
        """A message timestamp: seconds, a point, six digits; unique and rising."""
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def channel(self, name: str) -> Channel:
        """A channel by id or `#name`. Raises KeyError."""
        if not name.startswith("#"):
            return self.channels[name]
        for channel in self.channels.values():
            if channel.name == name[1:]:
                return channel
        raise KeyError(name)

    def direct(self, user: str) -> Channel:
        """The direct message between the app and this person, opened if need be."""
        for channel in self.channels.values():
            if channel.direct == user:
                return channel
        opened = Channel("D" + user[1:], "", direct=user, members={user, BOT_USER})
        self.channels[opened.id] = opened
        return opened

    def post(self, channel: Channel, message: Mapping[str, Any]) -> Json:
        """Add a message, and update its thread's counts."""
        ts = self.timestamp()
        kept = {"type": "message", "ts": ts, "team": TEAM, **message}
        channel.messages[ts] = kept
        parent = channel.messages.get(kept.get("thread_ts", ""))
        if parent is not None and parent is not kept:
            users = [*parent.get("reply_users", []), kept.get("user", BOT_USER)]
            parent |= {
                "thread_ts": parent["ts"],
                "reply_count": parent.get("reply_count", 0) + 1,
                "reply_users": sorted(set(users)),
                "reply_users_count": len(set(users)),
                "latest_reply": ts,
                "is_locked": False,
                "subscribed": True,
            }
        return kept

    def app_message(self, text: str, content: Mapping[str, Any]) -> Json:
        """A message of the app's; `content` may have blocks, metadata and thread_ts."""
        message: Json = {
            "user": BOT_USER,
            "bot_id": BOT,
            "app_id": APP,
            "text": text,
            "bot_profile": {"id": BOT, "app_id": APP, "name": "NOMADS", "team_id": TEAM, "deleted": False},
        }
        if content.get("blocks"):
            message["blocks"] = blocks.with_ids(content["blocks"])
        for name in ("metadata", "thread_ts"):
            if content.get(name):
                message[name] = content[name]
        return message

    def whisper(self, user: str, channel: str, text: str, content: Mapping[str, Any] | None = None) -> Json:
        """Show a message only to this person."""
        message = self.app_message(text, content or {})
        message |= {"type": "message", "ts": self.timestamp(), "channel": channel, "is_ephemeral": True}
        self.ephemeral.setdefault(user, []).append(message)
        return message

    def give_trigger(self, user: str, channel: str | None = None, view: str | None = None) -> str:
        """A new trigger id, as it comes with an interaction of this person."""
        trigger = f"{time.time_ns() // 1_000_000}.{len(self.triggers)}.{secrets.token_hex(16)}"
        self.triggers[trigger] = Trigger(user, channel, view, self.clock())
        return trigger

    def use_trigger(self, trigger: str) -> Trigger:
        """Use up a trigger. Raises SlackError where the trigger is unknown, used or too old."""
        given = self.triggers.get(trigger)
        if given is None:
            raise SlackError("invalid_trigger_id")
        if given.used:
            raise SlackError("exchanged_trigger_id")
        if self.clock() - given.born > TRIGGER_SECONDS:
            raise SlackError("expired_trigger_id")
        given.used = True
        return given

    def give_response_url(self, base: str, user: str, channel: str, message: str | None = None) -> str:
        """A new response_url under `base`; `message` is the message the interaction came from."""
        name = secrets.token_urlsafe(16)
        self.response_urls[name] = ResponseUrl(user, channel, self.clock(), message)
        return f"{base}response/{name}"

    def new_view(self, view: Mapping[str, Any], *, root: str | None = None, previous: str | None = None) -> Json:
        """The view object that Slack stores and returns for a view sent by an app."""
        identity = "V" + secrets.token_hex(5).upper()
        kept: Json = {
            "id": identity,
            "team_id": TEAM,
            "type": view["type"],
            "blocks": blocks.with_ids(view["blocks"]),
            "private_metadata": view.get("private_metadata") or "",
            "callback_id": view.get("callback_id") or "",
            "state": {"values": {}},
            "hash": f"{int(time.time())}.{secrets.token_hex(4)}",
            "title": view.get("title"),
            "clear_on_close": bool(view.get("clear_on_close")),
            "notify_on_close": bool(view.get("notify_on_close")),
            "close": view.get("close"),
            "submit": view.get("submit"),
            "previous_view_id": previous,
            "root_view_id": root or identity,
            "app_id": APP,
            "external_id": view.get("external_id") or "",
            "app_installed_team_id": TEAM,
            "bot_id": BOT,
        }
        return kept

    def replace_view(self, opened: OpenView, view: Mapping[str, Any]) -> None:
        """Replace a modal's view; typed values stay where the ids of block and action stay."""
        old = opened.view
        new = self.new_view(view, root=old["root_view_id"], previous=old["previous_view_id"])
        opened.view = new | {"id": old["id"]}
        stay = {b["block_id"] for b in new["blocks"]} & _same_inputs(old, new)
        opened.values = {block: value for block, value in opened.values.items() if block in stay}
        opened.errors = {}

    def find_view(self, identity: str) -> tuple[str, OpenView] | None:
        """The person and the open modal of that id or external id; None where there is none."""
        for user, stack in self.open_views.items():
            for opened in stack:
                if identity in (opened.view["id"], opened.view["external_id"]):
                    return user, opened
        return None


def _same_inputs(old: Json, new: Json) -> set[str]:
    """The block ids whose elements have the same action ids and types in both views."""

    def shape(view: Json) -> dict[str, list[tuple[Any, Any]]]:
        return {
            b["block_id"]: [(e.get("action_id"), e.get("type")) for e in blocks.elements_of(b)] for b in view["blocks"]
        }

    before, after = shape(old), shape(new)
    return {block for block in before if before[block] == after.get(block)}


def copied(value: T) -> T:
    """A deep copy, for handing state to another thread."""
    return copy.deepcopy(value)
