"""The stand-in's interface for tests, the demo and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from sandbox.slack.delivery import Ack, Courier, Envelope, Signature
from sandbox.slack.methods import WebApi
from sandbox.slack.person import Person
from sandbox.slack.server import Call, Faults, Site, ThreadedServer
from sandbox.slack.workspace import BOT_USER, Channel, File, Json, Member, Workspace, copied

T = TypeVar("T")


class SlackStandIn:
    """A Slack workspace on loopback; use it as a context manager.

    A `manifest` (a path or the parsed document) declares scopes, commands, shortcuts, events and the home tab; without
    one, `scopes` (None: all) holds and any command may be typed. With `request_url`, interactions are delivered over
    HTTP, else to the open Socket Mode connections. Web API: `api_url`, with `bot_token` or `app_token`.

    For benchmarks: `any_trigger` accepts any trigger id any number of times, `record=False` records no calls, and
    `latency` makes every call take that many seconds. Inspections return copies, and every method may be called from
    any thread but the stand-in's own.
    """

    def __init__(
        self,
        *,
        manifest: Path | Mapping[str, Any] | None = None,
        scopes: Collection[str] | None = None,
        signing_secret: str = "demo-signing-secret",
        bot_token: str = "demo-bot-token",
        app_token: str = "demo-app-token",
        request_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        ack_timeout: float = 3.0,
        latency: float = 0.0,
        any_trigger: bool = False,
        record: bool = True,
        mailbox: Callable[[], Sequence[EmailMessage]] | None = None,
        port: int = 0,
    ) -> None:
        declared = _Manifest(manifest)
        self.bot_token = bot_token
        self.app_token = app_token
        self.signing_secret = signing_secret
        self.workspace = Workspace(clock=clock)
        self._declared = declared
        self._calls: list[Call] = []
        self._faults = Faults()
        self._server = ThreadedServer(port=port)
        self.url = f"http://127.0.0.1:{self._server.port}/"
        """The address of the page."""
        self.api_url = f"{self.url}api/"
        """The Web API's base address, for `WebClient(base_url=…)` and SLACK_API_URL."""
        self._courier = Courier(signing_secret=signing_secret, ack_timeout=ack_timeout, changed=self.touch)
        self._courier.request_url = request_url
        self._as_made = request_url, latency
        self._api = WebApi(
            self.workspace,
            bot_token=bot_token,
            app_token=app_token,
            scopes=declared.scopes if manifest is not None else scopes,
            home_enabled=declared.home,
            messages_enabled=declared.messages,
            socket_url=lambda: f"ws://127.0.0.1:{self._server.port}/link/?ticket={self._courier.ticket()}&app_id=demo",
            base=self.url,
            any_trigger=any_trigger,
        )
        self._site = Site(
            workspace=self.workspace,
            api=self._api,
            courier=self._courier,
            faults=self._faults,
            calls=self._calls if record else None,
            person=self.person,
            page_facts={"commands": declared.command_list, "shortcuts": declared.shortcut_list},
            mailbox=mailbox,
        )
        self._site.latency = latency
        self.workspace.on_change = self._site.changed

    def __enter__(self) -> SlackStandIn:
        self._server.start(self._site)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._courier.close()

    def reset(self) -> None:
        """Return to the initial state, at the same address: without messages, calls, forms, orders and connections."""
        if self.connections:
            self.drop_connections()
        self.request_url, self.latency = self._as_made
        self._faults.clear()
        self.workspace.reset()
        with self.workspace.change():
            self._calls.clear()

    def offer(self, levers: Sequence[tuple[str, str, Callable[[], None]]]) -> None:
        """Offer these on the page: each a name, one sentence of what should happen, and what is called."""
        self._site.levers = levers
        self.touch()

    # People and places

    def person(self, identity: str = "U01DEMO", *, signature: Signature = "right") -> Person:
        """A person of the workspace; `signature` is that of the person's interactions over HTTP."""
        return Person(
            identity,
            workspace=self.workspace,
            courier=self._courier,
            base=self.url,
            commands=self._declared.commands,
            shortcuts=self._declared.shortcuts,
            events=self._declared.events,
            signature=signature,
        )

    def add_person(self, member: Member, *, channels: Sequence[str] = ("#synapses",)) -> None:
        """Add a person to the workspace and to these channels."""
        with self.workspace.change():
            self.workspace.members[member.id] = member
            for name in channels:
                self.workspace.channel(name).members.add(member.id)

    def add_channel(self, channel: Channel) -> None:
        """Add a channel."""
        with self.workspace.change():
            self.workspace.channels[channel.id] = channel

    def invite(self, channel: str) -> None:
        """Invite the app to a channel (id or #name)."""
        with self.workspace.change():
            self.workspace.channel(channel).members.add(BOT_USER)

    def remove(self, channel: str) -> None:
        """Remove the app from a channel."""
        with self.workspace.change():
            self.workspace.channel(channel).members.discard(BOT_USER)

    def archive(self, channel: str) -> None:
        """Archive a channel."""
        with self.workspace.change():
            self.workspace.channel(channel).archived = True

    # Faults

    def rate_limit(self, method: str, *, times: int = 1, retry_after: object = 1) -> None:
        """Answer the next calls with 429 and this Retry-After, in seconds unless a test wants it otherwise."""
        self._faults.order(method, "rate_limit", retry_after, times)

    def fail(self, method: str, error: str = "internal_error", *, times: int = 1) -> None:
        """Answer the next calls with this error, without performing them."""
        self._faults.order(method, "fail", error, times)

    def break_down(self, method: str, *, status: int = 503, times: int = 1) -> None:
        """Answer the next calls with this HTTP status, without performing them."""
        self._faults.order(method, "status", status, times)

    def lose_answer(self, method: str, *, times: int = 1) -> None:
        """Perform the next calls, then close the connection instead of answering."""
        self._faults.order(method, "lose", None, times)

    def answer_otherwise(
        self,
        method: str,
        content: bytes = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        performed: bool = False,
        times: int = 1,
    ) -> None:
        """Answer the next calls with exactly this, as a proxy on the way may; `performed`: after performing them."""
        named = [(name.lower(), value) for name, value in (headers or {}).items()]
        self._faults.order(method, "garble" if performed else "say", (status, named, content), times)

    def delay(self, method: str, seconds: float) -> None:
        """Make every later call of this method take `seconds` longer."""
        self._faults.delays[method] = seconds

    @property
    def latency(self) -> float:
        """Seconds that every Web API call takes."""
        return self._site.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._site.latency = seconds

    # The app's end

    @property
    def request_url(self) -> str | None:
        """The URL to which interactions are posted; None: Socket Mode."""
        return self._courier.request_url

    @request_url.setter
    def request_url(self, url: str | None) -> None:
        self._courier.request_url = url

    @property
    def connections(self) -> int:
        """The number of open Socket Mode connections."""
        return len(self._courier.connections)

    def wait_for_connection(self, seconds: float = 10.0, *, count: int = 1) -> None:
        """Wait until the app has `count` Socket Mode connections. Raises TimeoutError."""
        self.wait_for(lambda: self.connections >= count, seconds, "a Socket Mode connection")

    def refresh_connections(self, reason: str = "refresh_requested") -> None:
        """Ask the app to renew every Socket Mode connection, as Slack does every few hours."""
        self._server.run(self._courier.disconnect(reason))

    def drop_connections(self) -> None:
        """Close every Socket Mode connection without notice.

        After this, an app can be closed at once; otherwise its client waits up to 3 s in a read.
        """
        self._server.run(self._courier.disconnect())

    def redeliver(self, ack: Ack, *, retry: int = 1) -> Ack:
        """Deliver the acknowledged envelope once more, as a retry; the screen does not change."""
        if ack.envelope is None:
            raise ValueError("this was never delivered")
        return self._courier.deliver(ack.envelope, retry=retry)

    def request(self, ack: Ack, *, signature: Signature = "right") -> tuple[bytes, dict[str, str]]:
        """Body and signed headers with which that interaction is posted over HTTP, for a load generator."""
        if ack.envelope is None:
            raise ValueError("this was never delivered")
        return self.signed(ack.envelope, signature=signature)

    def signed(self, envelope: Envelope, *, signature: Signature = "right") -> tuple[bytes, dict[str, str]]:
        """Body and headers of an envelope as Slack posts it."""
        body, kind = self._courier.encode(envelope)
        return body, {"Content-Type": kind} | self._courier.sign(body, signature=signature)

    def sign(self, body: bytes) -> dict[str, str]:
        """The headers with which Slack would sign these bytes, whatever they are."""
        return self._courier.sign(body)

    # Looking

    @property
    def calls(self) -> list[Call]:
        """Every Web API call so far, oldest first."""
        return list(self._calls)

    def calls_of(self, method: str) -> list[Call]:
        """The calls of one method, oldest first."""
        return [call for call in self._calls if call.method == method]

    @property
    def files(self) -> list[File]:
        """Every uploaded file, oldest first."""
        with self.workspace.lock:
            return [replace(file) for file in self.workspace.files.values() if file.content is not None]

    def view_of(self, person: Person | str) -> Json | None:
        """The modal on top of the person's screen, or None."""
        return (self.person(person) if isinstance(person, str) else person).view()

    def errors_of(self, person: Person | str) -> dict[str, str]:
        """The errors in the modal on top, by block id; the key "" is for an error above all fields."""
        identity = person if isinstance(person, str) else person.id
        with self.workspace.lock:
            stack = self.workspace.open_views.get(identity)
            return dict(stack[-1].errors) if stack else {}

    def home_of(self, person: Person | str) -> Json | None:
        """The person's home tab of the app, or None."""
        with self.workspace.lock:
            return copied(self.workspace.homes.get(person if isinstance(person, str) else person.id))

    def messages(self, channel: str) -> list[Json]:
        """All messages of a channel (id or #name), oldest first, with thread replies; each has its channel's id."""
        with self.workspace.lock:
            place = self.workspace.channel(channel)
            return [copied(m) | {"channel": place.id} for m in place.messages.values()]

    def thread(self, channel: str, ts: str) -> list[Json]:
        """The replies under a message, oldest first, without it."""
        return [m for m in self.messages(channel) if m.get("thread_ts") == ts and m["ts"] != ts]

    def ephemerals(self, person: Person | str) -> list[Json]:
        """The messages shown only to this person, oldest first, with Slackbot's notices (user USLACKBOT)."""
        with self.workspace.lock:
            return copied(self.workspace.ephemeral.get(person if isinstance(person, str) else person.id, []))

    def wait_for(self, predicate: Callable[[], T], seconds: float = 10.0, what: str = "the condition") -> T:
        """Wait until the predicate, called at every change of the workspace, is true; returns its value.

        Raises TimeoutError. Changes elsewhere are noticed if `touch` is called.
        """
        return self.workspace.wait_for(predicate, seconds, what)

    def touch(self) -> None:
        """Tell the page and waiting tests that something outside the workspace has changed, such as the mailbox."""
        with self.workspace.change():
            pass


class _Manifest:
    """The parts of an app manifest on which Slack acts."""

    def __init__(self, manifest: Path | Mapping[str, Any] | None) -> None:
        found: Mapping[str, Any] = {}
        if isinstance(manifest, Path):
            found = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        elif manifest is not None:
            found = manifest
        features = found.get("features") or {}
        self.scopes: list[str] = ((found.get("oauth_config") or {}).get("scopes") or {}).get("bot") or []
        self.command_list = [
            {"command": c["command"], "hint": c.get("usage_hint", ""), "description": c.get("description", "")}
            for c in features.get("slash_commands") or ()
        ]
        self.shortcut_list = [
            {"callback_id": s["callback_id"], "name": s["name"], "description": s.get("description", "")}
            for s in features.get("shortcuts") or ()
            if s["type"] == "global"
        ]
        subscriptions = (found.get("settings") or {}).get("event_subscriptions") or {}
        known = manifest is not None
        self.commands = {c["command"] for c in self.command_list} if known else None
        self.shortcuts = {s["callback_id"] for s in self.shortcut_list} if known else None
        self.events = set(subscriptions.get("bot_events") or ()) if known else None
        tabs = features.get("app_home") or {}
        self.home = not known or bool(tabs.get("home_tab_enabled"))
        self.messages = not known or bool(tabs.get("messages_tab_enabled"))
