"""A person's input in a form, and its shape in a payload's `state.values` and `actions`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sandbox import blocks
from sandbox.slack.workspace import Json, OpenView, Workspace

_TEXTS = {"plain_text_input", "email_text_input", "url_text_input", "number_input"}
_IDS = {  # element type: the payload's field, and the element's initial value
    "conversations_select": ("selected_conversation", "initial_conversation"),
    "channels_select": ("selected_channel", "initial_channel"),
    "users_select": ("selected_user", "initial_user"),
    "multi_conversations_select": ("selected_conversations", "initial_conversations"),
    "multi_channels_select": ("selected_channels", "initial_channels"),
    "multi_users_select": ("selected_users", "initial_users"),
    "datepicker": ("selected_date", "initial_date"),
    "timepicker": ("selected_time", "initial_time"),
}
_ONE = {"static_select", "external_select", "radio_buttons", "overflow"}
_MANY = {"multi_static_select", "multi_external_select", "checkboxes"}
_MAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


class Forms:
    """Checks a person's input against what the form offers. Hold the workspace while calling."""

    def __init__(self, workspace: Workspace, user: str) -> None:
        self.workspace = workspace
        self.user = user

    def state(self, opened: OpenView) -> Json:
        """`{"values": {block_id: {action_id: …}}}` of an open modal. Raises ValueError for what is not on offer."""
        values: Json = {}
        for block in opened.view["blocks"]:
            for element in blocks.elements_of(block):
                if element["type"] in _TEXTS | _IDS.keys() | _ONE | _MANY and element["type"] != "overflow":
                    given = _given(opened.values, block["block_id"], element["action_id"])
                    values.setdefault(block["block_id"], {})[element["action_id"]] = self.value(element, given, opened)
        return {"values": values}

    def value(self, element: Mapping[str, Any], given: Any, opened: OpenView | None = None) -> Json:
        """One element's value as in payloads; `given` None means untouched, "" emptied."""
        kind = element["type"]
        if kind in _TEXTS:
            text = element.get("initial_value") if given is None else str(given)
            return {"type": kind, "value": text or None}
        if kind in _ONE:
            chosen = element.get("initial_option") if given is None else self._option(element, given, opened)
            return {"type": kind, "selected_option": chosen}
        if kind in _MANY:
            if given is None:
                return {"type": kind, "selected_options": element.get("initial_options") or []}
            return {"type": kind, "selected_options": [self._option(element, one, opened) for one in given]}
        field, initial = _IDS[kind]
        if given is None:
            given = element.get(initial)
            if given is None and opened and element.get("default_to_current_conversation"):
                given = opened.channel if opened.channel in self.conversations(element) else None
        elif given and kind.endswith(("conversations_select", "channels_select")):
            many = isinstance(given, list)
            given = [self._channel(element, c) for c in given] if many else self._channel(element, given)
        return {"type": kind, field: given or ([] if kind.startswith("multi_") else None)}

    def conversations(self, element: Mapping[str, Any]) -> list[str]:
        """The ids of the channels that a conversations_select or channels_select offers the person."""
        allowed = {"channels", "groups", "im"}
        if "channels_select" in element["type"]:
            allowed = {"channels"}
        elif element.get("filter", {}).get("include"):
            words = {"public": "channels", "private": "groups", "im": "im"}
            allowed = {words[w] for w in element["filter"]["include"] if w in words}
        return [
            c.id
            for c in self.workspace.channels.values()
            if c.kind in allowed and not c.archived and (c.kind == "channels" or self.user in c.members)
        ]

    def complaints(self, opened: OpenView) -> dict[str, str]:
        """The errors that Slack itself shows under fields, without asking the app, by block id."""
        found: dict[str, str] = {}
        state = self.state(opened)["values"]
        for block in opened.view["blocks"]:
            if block["type"] != "input":
                continue
            element = block["element"]
            entry = state[block["block_id"]][element["action_id"]]
            value = next(v for k, v in entry.items() if k != "type")
            if not value:
                if not block.get("optional"):
                    found[block["block_id"]] = "Please complete this required field."
            elif element["type"] in _TEXTS:
                text = self._complaint(element, value)
                if text:
                    found[block["block_id"]] = text
        return found

    @staticmethod
    def _complaint(element: Mapping[str, Any], value: str) -> str:
        if element["type"] == "email_text_input" and not _MAIL.fullmatch(value):
            return "Please enter a valid email address."
        if element["type"] == "number_input":
            try:
                float(value)
            except ValueError:
                return "Please enter a number."
        if len(value) < element.get("min_length", 0):
            return f"Please use at least {element['min_length']} characters."
        if len(value) > element.get("max_length", 3000):
            return f"Please use at most {element.get('max_length', 3000)} characters."
        return ""

    def _option(self, element: Mapping[str, Any], given: Any, opened: OpenView | None) -> Json | None:
        if given == "":
            return None
        offered = blocks.choices_of(element)
        if "external" in element["type"]:
            if isinstance(given, dict):
                return given
            offered = opened.offered(element["action_id"]) if opened else []
            offered += [o for o in (element.get("initial_option"), *element.get("initial_options", ())) if o]
        for option in offered:
            if given in (option, option.get("value")):
                if opened:  # what is chosen stays, whatever is offered later
                    opened.chosen.setdefault(element["action_id"], {})[option["value"]] = option
                return option
        raise ValueError(f"{given!r} is not among the options {[o.get('value') for o in offered]}")

    def _channel(self, element: Mapping[str, Any], given: str) -> str:
        try:
            channel = self.workspace.channel(given).id
        except KeyError:
            raise ValueError(f"there is no channel {given!r}") from None
        if channel not in self.conversations(element):
            raise ValueError(f"{given!r} is not offered to {self.user}")
        return channel


def _given(values: Mapping[str, Any], block_id: str, action_id: str) -> Any:
    """The input for an element: by block id or, where a block has several elements, by block and action id."""
    given = values.get(block_id)
    if isinstance(given, dict) and "value" not in given:
        return given.get(action_id)
    return given
