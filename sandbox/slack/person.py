"""A person's actions in Slack, as the payloads that Slack sends, and the effects of the app's answers on the screen."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sandbox import blocks
from sandbox.slack.delivery import DISPATCH_FAILED, Ack, Courier, Envelope, Signature
from sandbox.slack.forms import Forms
from sandbox.slack.methods import push
from sandbox.slack.workspace import (
    APP,
    BOT_USER,
    DOMAIN,
    TEAM,
    Json,
    OpenView,
    SlackError,
    Workspace,
    copied,
)

TROUBLE = "We had some trouble connecting. Try again?"
"""What Slack writes into a modal whose submission the app did not answer properly."""


class Person:
    """One person in Slack. Every action returns the app's acknowledgement once the effect is on the screen."""

    def __init__(
        self,
        identity: str,
        *,
        workspace: Workspace,
        courier: Courier,
        base: str,
        commands: Collection[str] | None,
        shortcuts: Collection[str] | None,
        events: Collection[str] | None,
        signature: Signature = "right",
    ) -> None:
        self.id = workspace.members[identity].id
        self._workspace = workspace
        self._courier = courier
        self._base = base
        self._commands = commands
        self._shortcuts = shortcuts
        self._events = events
        self._signature: Signature = signature
        self._forms = Forms(workspace, identity)

    # What a person does

    def slash(self, command: str, text: str = "", *, channel: str = "#synapses") -> Ack:
        """Type a slash command in a channel (id or #name)."""
        space = self._workspace
        with space.change():
            place = space.channel(channel)
            if self.id not in place.members:
                raise ValueError(f"{self.id} is not in {channel}")
            if self._commands is not None and command not in self._commands:
                self._notice(place.id, f"{command} is not a valid command.")
                return Ack(None, error="invalid_command")
            payload = {
                "team_id": TEAM,
                "team_domain": DOMAIN,
                "channel_id": place.id,
                "channel_name": place.name_in_payloads,
                "user_id": self.id,
                "user_name": space.members[self.id].name,
                "command": command,
                "text": text.strip(),
                "api_app_id": APP,
                "is_enterprise_install": "false",
                "response_url": space.give_response_url(self._base, self.id, place.id),
                "trigger_id": space.give_trigger(self.id, place.id),
            }
        ack = self._deliver(Envelope("slash_commands", payload))
        with space.change():
            if not ack.error and ack.body and not answer(space, self.id, place.id, ack.body):
                ack = replace(ack, error="invalid_command_response")
            if ack.error:
                self._notice(place.id, f"{command} failed with the error “{ack.error}”")
        return ack

    def shortcut(self, callback_id: str) -> Ack:
        """Choose a global shortcut."""
        if self._shortcuts is not None and callback_id not in self._shortcuts:
            raise ValueError(f"the manifest declares no global shortcut {callback_id!r}")
        with self._workspace.change():
            payload = self._interaction("shortcut") | {
                "action_ts": self._workspace.timestamp(),
                "callback_id": callback_id,
                "trigger_id": self._workspace.give_trigger(self.id),
            }
        return self._noticed(self._deliver(Envelope("interactive", payload)))

    def fill(self, view: Mapping[str, Any] | str, values: Mapping[str, Any]) -> None:
        """Fill fields of the open modal, by block or action id. Raises ValueError for what a field does not offer."""
        opened = self._opened(view)
        values = {_block_id(opened.view["blocks"], name): value for name, value in values.items()}
        unknown = values.keys() - {b["block_id"] for b in opened.view["blocks"]}
        if unknown:
            raise ValueError(f"the modal has no blocks {sorted(unknown)}")
        before = dict(opened.values)
        try:
            for block in opened.view["blocks"]:  # one after the other: what one field offers may follow from another
                if (name := block["block_id"]) in values:
                    for element in blocks.elements_of(block):
                        self._look_up(opened, element, values[name])
                    with self._workspace.change():
                        opened.values[name] = values[name]
                        self._forms.state(opened)
        except ValueError:
            with self._workspace.change():
                opened.values = before
            raise

    def _look_up(self, opened: OpenView, element: Json, given: Any) -> None:
        """Type what is to be chosen into an external_select that does not offer it yet."""
        offered = [option["value"] for option in opened.suggested.get(element["action_id"], [])]
        if element["type"] == "external_select" and isinstance(given, str) and given and given not in offered:
            self.suggest(opened.view, element["action_id"], given)

    def submit(
        self, view: Mapping[str, Any] | str, values: Mapping[str, Any] | None = None, *, checked: bool = True
    ) -> Ack:
        """Fill the modal and press its submit button.

        Slack's own checks (empty required fields, addresses) come first; where one fails, nothing is sent to the app
        (status None, error `not_sent`). `checked=False` omits these checks, as a broken client would.
        """
        self.fill(view, values or {})
        opened = self._opened(view)
        space = self._workspace
        with space.change():
            opened.errors = self._forms.complaints(opened) if checked else {}
            if opened.errors:
                return Ack(None, error="not_sent", errors=dict(opened.errors))
            shown = self._seen(opened)
            payload = self._interaction("view_submission") | {
                "trigger_id": space.give_trigger(self.id, opened.channel, shown["id"]),
                "view": shown,
                "response_urls": self._response_urls(opened, shown),
            }
        ack = self._deliver(Envelope("interactive", payload))
        with space.change():
            return self._submitted(opened, ack)

    def click(
        self,
        target: Mapping[str, Any] | str,
        action_id: str,
        value: Any = None,
        *,
        block_id: str | None = None,
    ) -> Ack:
        """Press a button, or choose `value` in a select, of a message, a modal or the home tab (view or view id)."""
        space = self._workspace
        with space.change():
            if isinstance(target, str) or "ts" not in target:
                payload = self._click_in_view(target, action_id, block_id, value)
            else:
                payload = self._click_in_message(target, action_id, block_id, value)
        return self._noticed(self._deliver(Envelope("interactive", payload)))

    def suggest(self, view: Mapping[str, Any] | str, action_id: str, query: str) -> list[Json]:
        """Type into an external_select; returns the options that the app offers, with groups flattened."""
        opened = self._opened(view)
        with self._workspace.lock:
            shown = self._seen(opened)
            block, _ = _find(shown["blocks"], action_id, None)
            payload = self._interaction("block_suggestion") | {
                "container": {"type": "view", "view_id": shown["id"]},
                "action_id": action_id,
                "block_id": block["block_id"],
                "value": query,
                "view": shown,
            }
        ack = self._deliver(Envelope("interactive", payload))
        usable = not ack.error and not blocks.options_problems(ack.body)
        with self._workspace.change():
            opened.suggested[action_id] = blocks.choices_of(ack.body) if usable else []
            return copied(opened.suggested[action_id])

    def open_home(self) -> Ack:
        """Open the app's home tab."""
        with self._workspace.change():
            event: Json = {
                "type": "app_home_opened",
                "user": self.id,
                "channel": self._workspace.direct(self.id).id,
                "tab": "home",
                "event_ts": self._workspace.timestamp(),
            }
            if self.id in self._workspace.homes:
                event["view"] = copied(self._workspace.homes[self.id])
        return self.event(event)

    def event(self, event: Json) -> Ack:
        """Let this event happen; it is delivered to the app if the app's manifest subscribes to it."""
        if self._events is not None and event["type"] not in self._events:
            return Ack(None, error="not_subscribed")
        payload = {
            "team_id": TEAM,
            "context_team_id": TEAM,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": "Ev" + secrets.token_hex(5).upper(),
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": TEAM,
                    "user_id": BOT_USER,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }
        return self._deliver(Envelope("events_api", payload))

    def close(self, view: Mapping[str, Any] | str) -> Ack | None:
        """Close the modal; returns the app's acknowledgement where the view has notify_on_close, else None."""
        opened = self._opened(view)
        with self._workspace.change():
            shown = self._seen(opened)
            stack = self._workspace.open_views[self.id]
            if shown["clear_on_close"]:
                stack.clear()
            else:
                stack.remove(opened)
            payload = self._interaction("view_closed") | {"view": shown, "is_cleared": shown["clear_on_close"]}
        return self._deliver(Envelope("interactive", payload)) if shown["notify_on_close"] else None

    # What a person sees

    def view(self) -> Json | None:
        """The modal on top of this person's screen, with typed values in its state; None where there is none."""
        with self._workspace.lock:
            stack = self._workspace.open_views.get(self.id)
            return self._seen(stack[-1]) if stack else None

    # How it is told

    def _deliver(self, envelope: Envelope) -> Ack:
        return self._courier.deliver(envelope, signature=self._signature)

    def _interaction(self, kind: str) -> Json:
        member = self._workspace.members[self.id]
        return {
            "type": kind,
            "team": {"id": TEAM, "domain": DOMAIN},
            "user": {"id": self.id, "username": member.name, "name": member.name, "team_id": TEAM},
            "api_app_id": APP,
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def _opened(self, view: Mapping[str, Any] | str) -> OpenView:
        identity = view if isinstance(view, str) else str(view["id"])
        with self._workspace.lock:
            for opened in self._workspace.open_views.get(self.id, []):
                if opened.view["id"] == identity:
                    return opened
        raise LookupError(f"{self.id} has no view {identity} open")

    def _seen(self, opened: OpenView) -> Json:
        return copied(opened.view) | {"state": copied(self._forms.state(opened))}

    def _response_urls(self, opened: OpenView, shown: Json) -> list[Json]:
        found = []
        for block in shown["blocks"]:
            for element in blocks.elements_of(block):
                if element.get("response_url_enabled"):
                    entry = shown["state"]["values"][block["block_id"]][element["action_id"]]
                    channel = entry.get("selected_conversation") or entry.get("selected_channel")
                    found.append(
                        {
                            "block_id": block["block_id"],
                            "action_id": element["action_id"],
                            "channel_id": channel,
                            "response_url": self._workspace.give_response_url(self._base, self.id, channel),
                        }
                    )
        return found

    def _submitted(self, opened: OpenView, ack: Ack) -> Ack:
        """Change the screen as the app's answer to a submission says."""
        stack = self._workspace.open_views.get(self.id, [])
        if ack.error or opened not in stack:
            return self._troubled(opened, ack)
        if not ack.body:
            stack.remove(opened)
            return ack
        body = ack.body if isinstance(ack.body, dict) else {}
        match body.get("response_action"):
            case "clear":
                stack.clear()
            case "errors":
                errors = body.get("errors")
                inputs = {b["block_id"] for b in opened.view["blocks"] if b["type"] == "input"}
                if not isinstance(errors, dict) or not errors or not errors.keys() <= inputs:
                    return self._troubled(opened, replace(ack, error="invalid_errors"))
                opened.errors = {str(k): str(v) for k, v in errors.items()}
                return replace(ack, errors=dict(opened.errors))
            case "update" | "push" as action:
                problems = blocks.view_problems(body.get("view"))
                if problems:
                    return self._troubled(opened, replace(ack, error="; ".join(problems)))
                if action == "update":
                    self._workspace.replace_view(opened, body["view"])
                else:
                    try:
                        push(self._workspace, self.id, body["view"])
                    except SlackError as error:
                        return self._troubled(opened, replace(ack, error=error.code))
            case _:
                return self._troubled(opened, replace(ack, error="invalid_response_action"))
        return ack

    def _troubled(self, opened: OpenView, ack: Ack) -> Ack:
        opened.errors = {"": TROUBLE}
        return ack if ack.error else replace(ack, error=DISPATCH_FAILED)

    def _click_in_view(self, target: Mapping[str, Any] | str, action_id: str, block_id: str | None, value: Any) -> Json:
        space = self._workspace
        home = space.homes.get(self.id)
        identity = target if isinstance(target, str) else target["id"]
        opened = OpenView(home, None) if home and home["id"] == identity else self._opened(identity)
        block, element = _find(opened.view["blocks"], action_id, block_id)
        if value is not None and element["type"] != "button":
            opened.values[block["block_id"]] = value if block["type"] != "actions" else {action_id: value}
        shown = self._seen(opened)
        return self._interaction("block_actions") | {
            "container": {"type": "view", "view_id": shown["id"]},
            "trigger_id": space.give_trigger(self.id, opened.channel, None if opened.view is home else shown["id"]),
            "view": shown,
            "actions": [self._action(block, element, value, opened)],
        }

    def _click_in_message(self, target: Mapping[str, Any], action_id: str, block_id: str | None, value: Any) -> Json:
        space = self._workspace
        channel = space.channels[target["channel"]]
        whispered = next((m for m in space.ephemeral.get(self.id, []) if m["ts"] == target["ts"]), None)
        message = whispered or channel.messages.get(target["ts"])
        if message is None:
            raise LookupError(f"there is no message {target['ts']} in {channel.id}")
        block, element = _find(message.get("blocks", []), action_id, block_id)
        container: Json = {
            "type": "message",
            "message_ts": message["ts"],
            "channel_id": channel.id,
            "is_ephemeral": whispered is not None,
        }
        if "thread_ts" in message:
            container["thread_ts"] = message["thread_ts"]
        payload = self._interaction("block_actions") | {
            "container": container,
            "trigger_id": space.give_trigger(self.id, channel.id),
            "channel": {"id": channel.id, "name": channel.name_in_payloads},
            "state": {"values": {}},
            "response_url": space.give_response_url(self._base, self.id, channel.id, message["ts"]),
            "actions": [self._action(block, element, value, None)],
        }
        if whispered is None:  # Slack sends no ephemeral message in a payload
            payload["message"] = copied(message)
        return payload

    def _action(self, block: Json, element: Json, value: Any, opened: OpenView | None) -> Json:
        action: Json = {
            "action_id": element["action_id"],
            "block_id": block["block_id"],
            "type": element["type"],
            "action_ts": self._workspace.timestamp(),
        }
        if element["type"] == "button":
            action["text"] = copied(element["text"])
            if element.get("value") is not None:
                action["value"] = element["value"]
            return action
        if opened is not None and value is None:
            value = opened.values.get(block["block_id"])
        return action | copied(self._forms.value(element, value, opened))

    def _noticed(self, ack: Ack) -> Ack:
        if ack.error:
            with self._workspace.change():
                self._notice("", f"The app did not answer ({ack.error}).")
        return ack

    def _notice(self, channel: str, text: str) -> None:
        """Show this person a notice of Slackbot's."""
        message = self._workspace.whisper(self.id, channel or "C01SYNAPSES", text)
        message |= {"user": "USLACKBOT", "bot_id": "", "bot_profile": None}


def answer(space: Workspace, user: str, channel: str, body: Any, *, original: str | None = None) -> bool:
    """Show what an app answered to a command or through a response_url; False where Slack would not take it.

    Hold the workspace while calling. `original` is the message the interaction came from.
    """
    if isinstance(body, str):
        body = {"text": body}
    text = body.get("text") or ""
    if blocks.message_problems(body.get("blocks") or []) or len(text) > blocks.MAX_MESSAGE_TEXT:
        return False
    if original and (body.get("delete_original") or body.get("replace_original")):
        return _amend(space, user, channel, body, original)
    if not text and not body.get("blocks"):
        return not body
    if body.get("response_type") == "in_channel":
        space.post(space.channels[channel], space.app_message(text, body))
    else:
        space.whisper(user, channel, text, body)
    return True


def _amend(space: Workspace, user: str, channel: str, body: Json, original: str) -> bool:
    whispered = space.ephemeral.get(user, [])
    message = space.channels[channel].messages.get(original) or next(
        (m for m in whispered if m["ts"] == original), None
    )
    if message is None:
        return False
    if body.get("delete_original"):
        space.channels[channel].messages.pop(original, None)
        space.ephemeral[user] = [m for m in whispered if m is not message]
    else:
        message |= {"text": body.get("text") or "", "blocks": blocks.with_ids(body.get("blocks") or [])}
    return True


def _block_id(found: list[Json], name: str) -> str:
    """The id of the block that has that id, or an element of that action id; the name itself where there is none."""
    if any(block.get("block_id") == name for block in found):
        return name
    return next((b["block_id"] for b in found for e in blocks.elements_of(b) if e.get("action_id") == name), name)


def _find(found: list[Json], action_id: str, block_id: str | None) -> tuple[Json, Json]:
    there = [
        (block, element)
        for block in found
        for element in blocks.elements_of(block)
        if element.get("action_id") == action_id
    ]
    named = [each for each in there if block_id in (None, each[0].get("block_id"))]
    # an update gives blocks other ids: a click on what was there before means the only one with its action
    if named or len(there) == 1:
        return (named or there)[0]
    raise LookupError(f"nothing there has the action {action_id}")
