"""What Slack refuses of Block Kit, in Slack's words: unknown types and fields, lengths, counts, repeated ids.

Limits are those of docs.slack.dev/reference/block-kit. Every problem reads
`[ERROR] what is wrong [json-pointer:/where]`, as in Slack's `response_metadata.messages`.
"""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MAX_VIEW_BYTES = 250_000
"""Bytes of a view as JSON; Slack answers a larger one with `view_too_large`."""
MAX_MESSAGE_TEXT = 40_000
"""Characters of chat.postMessage's text; Slack answers a longer one with `msg_too_long`."""
MAX_UPDATE_TEXT = 4_000
"""Characters of chat.update's text."""
MAX_BLOCKS_TEXT = 13_200
"""Characters of all blocks of a message; Slack answers more with `msg_blocks_too_long` (undocumented)."""

_MESSAGE_BLOCKS = 50
_VIEW_BLOCKS = 100
_OPTIONS = 100
_URLS = ("https://", "http://", "mailto:", "slack://", "tel:")

_COMMON = {"type", "block_id"}
_BLOCK_FIELDS: dict[str, tuple[set[str], set[str]]] = {  # type: (required, optional)
    "actions": ({"elements"}, set()),
    "context": ({"elements"}, set()),
    "divider": (set(), set()),
    "header": ({"text"}, set()),
    "image": ({"alt_text"}, {"image_url", "slack_file", "title"}),
    "input": ({"label", "element"}, {"hint", "optional", "dispatch_action"}),
    "rich_text": ({"elements"}, set()),
    "section": (set(), {"text", "fields", "accessory", "expand"}),
}
_SELECT = {"placeholder", "confirm", "focus_on_load"}
_CONVERSATIONS = _SELECT | {"default_to_current_conversation", "response_url_enabled", "filter"}
_TEXT_INPUT = {"placeholder", "initial_value", "dispatch_action_config", "focus_on_load"}
_ELEMENT_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "button": ({"text"}, {"url", "value", "style", "confirm", "accessibility_label"}),
    "image": ({"alt_text"}, {"image_url", "slack_file"}),
    "overflow": ({"options"}, {"confirm"}),
    "plain_text_input": (set(), _TEXT_INPUT | {"multiline", "min_length", "max_length"}),
    "email_text_input": (set(), _TEXT_INPUT),
    "url_text_input": (set(), _TEXT_INPUT),
    "number_input": ({"is_decimal_allowed"}, _TEXT_INPUT | {"min_value", "max_value"}),
    "static_select": (set(), _SELECT | {"options", "option_groups", "initial_option"}),
    "external_select": (set(), _SELECT | {"initial_option", "min_query_length"}),
    "users_select": (set(), _SELECT | {"initial_user"}),
    "conversations_select": (set(), _CONVERSATIONS | {"initial_conversation"}),
    "channels_select": (set(), _SELECT | {"initial_channel", "response_url_enabled"}),
    "multi_static_select": (set(), _SELECT | {"options", "option_groups", "initial_options", "max_selected_items"}),
    "multi_external_select": (set(), _SELECT | {"initial_options", "min_query_length", "max_selected_items"}),
    "multi_users_select": (set(), _SELECT | {"initial_users", "max_selected_items"}),
    "multi_conversations_select": (set(), _CONVERSATIONS | {"initial_conversations", "max_selected_items"}),
    "multi_channels_select": (set(), _SELECT | {"initial_channels", "max_selected_items"}),
    "checkboxes": ({"options"}, {"initial_options", "confirm", "focus_on_load"}),
    "radio_buttons": ({"options"}, {"initial_option", "confirm", "focus_on_load"}),
    "datepicker": (set(), _SELECT | {"initial_date"}),
    "timepicker": (set(), _SELECT | {"initial_time", "timezone"}),
}
_INPUTS = set(_ELEMENT_FIELDS) - {"button", "image", "overflow"}
_TEXT_INPUTS = {"plain_text_input", "email_text_input", "url_text_input", "number_input"}
_ACCESSORIES = set(_ELEMENT_FIELDS) - _TEXT_INPUTS
_ACTIONS = _ACCESSORIES - {"image"} | {"plain_text_input"}
_VIEW_FIELDS = {
    "modal": (
        {"type", "title", "blocks"},
        {"submit", "close", "clear_on_close", "notify_on_close", "submit_disabled"}
        | {"private_metadata", "callback_id", "external_id"},
    ),
    "home": ({"type", "blocks"}, {"private_metadata", "callback_id", "external_id"}),
}


def message_problems(blocks: Any) -> list[str]:
    """Why Slack would not take these blocks in a message; empty where it would."""
    return _Check().blocks(blocks, "/blocks", most=_MESSAGE_BLOCKS)


def view_problems(view: Any) -> list[str]:
    """Why Slack would not take this modal or home view; empty where it would. The view's size is not checked."""
    return _Check().view(view)


def options_problems(answer: Any) -> list[str]:
    """Why Slack would not show these suggestions (an app's answer to `block_suggestion`); empty where it would."""
    check = _Check()
    if not isinstance(answer, dict) or not ({"options", "option_groups"} & answer.keys()):
        return ["[ERROR] missing required field: options [json-pointer:]"]
    check.choices(answer, "", least=0)
    return check.found


def text_length(blocks: Any) -> int:
    """Characters of all texts in these blocks."""
    if isinstance(blocks, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else text_length(v) for k, v in blocks.items())
    return sum(map(text_length, blocks)) if isinstance(blocks, list) else 0


def with_ids(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A copy in which every block has a block_id and every interactive element an action_id, as Slack returns it."""
    kept: list[dict[str, Any]] = json.loads(json.dumps(blocks))  # quicker than copy.deepcopy
    for block in kept:
        if not block.get("block_id"):
            block["block_id"] = secrets.token_urlsafe(4)
        if block["type"] in ("actions", "input", "section"):
            for element in elements_of(block):
                if element.get("type") != "image" and not element.get("action_id"):
                    element["action_id"] = secrets.token_urlsafe(4)
    return kept


def elements_of(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The elements a person can use in a block: of an actions or input block, or a section's accessory."""
    match block.get("type"):
        case "input":
            yield block["element"]
        case "actions":
            yield from block["elements"]
        case "section" if block.get("accessory"):
            yield block["accessory"]


def choices_of(element: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All options that an element itself offers, with groups flattened."""
    groups = element.get("option_groups") or ()
    return copy.deepcopy([*(element.get("options") or ()), *(o for group in groups for o in group["options"])])


class _Check:
    """The check of one message or view, which collects every problem."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.focused = False

    def add(self, path: str, text: str) -> None:
        self.found.append(f"[ERROR] {text} [json-pointer:{path}]")

    def view(self, view: Any) -> list[str]:
        kind = view.get("type") if isinstance(view, dict) else None
        if kind not in _VIEW_FIELDS:
            self.add("/view/type", f"unsupported type: {kind}")
            return self.found
        required, optional = _VIEW_FIELDS[kind]
        self.fields(view, "/view", required, optional)
        if kind == "modal":
            for field in ("title", "submit", "close"):
                if view.get(field) is not None:
                    self.text(view[field], f"/view/{field}", 24, plain=True)
        self.string(view, "/view", "private_metadata", 3000)
        self.string(view, "/view", "callback_id", 255)
        self.string(view, "/view", "external_id", 255)
        if "blocks" in view:
            self.blocks(view["blocks"], "/view/blocks", most=_VIEW_BLOCKS)
            if kind == "modal" and not view.get("submit") and not self.found:
                for block in view["blocks"]:
                    if block["type"] == "input":
                        self.add("/view", "missing required field: submit")
                        break
        return self.found

    def blocks(self, blocks: Any, path: str, *, most: int) -> list[str]:
        if not isinstance(blocks, list):
            self.add(path, "must provide an array")
            return self.found
        if len(blocks) > most:
            self.add(path, f"no more than {most} items allowed")
        seen: set[str] = set()
        for i, block in enumerate(blocks):
            here = f"{path}/{i}"
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in _BLOCK_FIELDS:
                self.add(f"{here}/type", f"unsupported type: {kind}")
                continue
            required, optional = _BLOCK_FIELDS[kind]
            self.fields(block, here, required, optional | _COMMON)
            block_id = block.get("block_id")
            if block_id:
                self.string(block, here, "block_id", 255)
                if block_id in seen:
                    self.add(f"{here}/block_id", f"`block_id` must be unique: {block_id} already exists")
                seen.add(block_id)
            look = _BLOCK_CHECKS.get(kind)
            if look:
                look(self, block, here)
        return self.found

    def section(self, block: dict[str, Any], path: str) -> None:
        if block.get("text") is None and not block.get("fields"):
            self.add(path, "missing required field: text")
        if block.get("text") is not None:
            self.text(block["text"], f"{path}/text", 3000)
        fields = block.get("fields") or ()
        if len(fields) > 10:
            self.add(f"{path}/fields", "no more than 10 items allowed")
        for i, field in enumerate(fields):
            self.text(field, f"{path}/fields/{i}", 2000)
        if block.get("accessory") is not None:
            self.element(block["accessory"], f"{path}/accessory", _ACCESSORIES)

    def header(self, block: dict[str, Any], path: str) -> None:
        self.text(block.get("text"), f"{path}/text", 150, plain=True)

    def context(self, block: dict[str, Any], path: str) -> None:
        for i, element in enumerate(self.list(block, path, 10)):
            if isinstance(element, dict) and element.get("type") == "image":
                self.element(element, f"{path}/elements/{i}", {"image"})
            else:
                self.text(element, f"{path}/elements/{i}", 3000)

    def actions(self, block: dict[str, Any], path: str) -> None:
        seen: set[str] = set()
        for i, element in enumerate(self.list(block, path, 25)):
            self.element(element, f"{path}/elements/{i}", _ACTIONS)
            action_id = element.get("action_id") if isinstance(element, dict) else None
            if action_id and action_id in seen:
                self.add(f"{path}/elements/{i}/action_id", f"`action_id` must be unique: {action_id} already exists")
            elif action_id:
                seen.add(action_id)

    def input(self, block: dict[str, Any], path: str) -> None:
        self.text(block.get("label"), f"{path}/label", 2000, plain=True)
        if block.get("hint") is not None:
            self.text(block["hint"], f"{path}/hint", 2000, plain=True)
        self.element(block.get("element"), f"{path}/element", _INPUTS)

    def image(self, block: dict[str, Any], path: str) -> None:
        self.string(block, path, "alt_text", 2000)
        if block.get("title") is not None:
            self.text(block["title"], f"{path}/title", 2000, plain=True)
        self.picture(block, path)

    def rich_text(self, block: dict[str, Any], path: str) -> None:
        kinds = {"rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote"}
        for i, element in enumerate(block.get("elements") or ()):
            if not isinstance(element, dict) or element.get("type") not in kinds:
                self.add(f"{path}/elements/{i}/type", "unsupported type")

    def element(self, element: Any, path: str, allowed: set[str]) -> None:
        kind = element.get("type") if isinstance(element, dict) else None
        if kind not in allowed:
            self.add(f"{path}/type", f"unsupported type: {kind}")
            return
        required, optional = _ELEMENT_FIELDS[kind]
        self.fields(element, path, required, optional | {"type", "action_id"})
        self.string(element, path, "action_id", 255)
        if element.get("placeholder") is not None:
            self.text(element["placeholder"], f"{path}/placeholder", 150, plain=True)
        if element.get("focus_on_load"):
            if self.focused:
                self.add(f"{path}/focus_on_load", "only one element may have focus_on_load")
            self.focused = True
        if element.get("confirm") is not None:
            self.confirm(element["confirm"], f"{path}/confirm")
        if kind in _TEXT_INPUTS:
            self.text_input(element, path)
        elif kind == "button":
            self.text(element.get("text"), f"{path}/text", 75, plain=True)
            self.string(element, path, "value", 2000)
            self.string(element, path, "url", 3000)
            self.url(element, path, "url")
            if element.get("style") not in (None, "primary", "danger"):
                self.add(f"{path}/style", "must be one of: primary, danger")
        elif kind == "image":
            self.string(element, path, "alt_text", 2000)
            self.picture(element, path)
        elif kind in ("checkboxes", "radio_buttons"):
            self.choices(element, path, most=10, marked=True)
        elif kind == "overflow":
            self.choices(element, path, most=5)
        elif kind in ("static_select", "multi_static_select"):
            if bool(element.get("options")) == bool(element.get("option_groups")):
                self.add(path, "must provide exactly one of: options, option_groups")
            else:
                self.choices(element, path)

    def text_input(self, element: dict[str, Any], path: str) -> None:
        most = element.get("max_length", 3000)
        if not isinstance(most, int) or not 1 <= most <= 3000:
            self.add(f"{path}/max_length", "must be between 1 and 3000")
            most = 3000
        value = element.get("initial_value")
        if value is not None and not isinstance(value, str):
            self.add(f"{path}/initial_value", "must be a string")
        elif value is not None and len(value) > most:
            self.add(f"{path}/initial_value", f"must be less than {most + 1} characters")

    def choices(
        self, element: dict[str, Any], path: str, *, most: int = _OPTIONS, least: int = 1, marked: bool = False
    ) -> None:
        groups = element.get("option_groups")
        if groups:
            if len(groups) > _OPTIONS:
                self.add(f"{path}/option_groups", f"no more than {_OPTIONS} items allowed")
            for i, group in enumerate(groups):
                self.text(group.get("label"), f"{path}/option_groups/{i}/label", 75, plain=True)
                self.options(group.get("options"), f"{path}/option_groups/{i}/options", most, least, marked)
        else:
            self.options(element.get("options"), f"{path}/options", most, least, marked)
        initial = element.get("initial_options") or [o for o in (element.get("initial_option"),) if o is not None]
        if initial:
            offered = choices_of(element)
            for option in initial:
                if option not in offered:
                    self.add(f"{path}/initial_option", "must be one of the options given")

    def options(self, options: Any, path: str, most: int, least: int, marked: bool) -> None:
        if not isinstance(options, list):
            self.add(path, "must provide an array")
            return
        if len(options) > most:
            self.add(path, f"no more than {most} items allowed")
        if len(options) < least:
            self.add(path, f"no fewer than {least} items allowed")
        for i, option in enumerate(options):
            here = f"{path}/{i}"
            if not isinstance(option, dict):
                self.add(here, "must provide an object")
                continue
            self.fields(option, here, {"text", "value"}, {"description", "url"})
            self.text(option.get("text"), f"{here}/text", 75, plain=not marked)
            self.string(option, here, "value", 150)
            if option.get("description") is not None:
                self.text(option["description"], f"{here}/description", 75, plain=not marked)

    def confirm(self, confirm: Any, path: str) -> None:
        if not isinstance(confirm, dict):
            self.add(path, "must provide an object")
            return
        self.fields(confirm, path, {"title", "text", "confirm", "deny"}, {"style"})
        for field, limit in (("title", 100), ("confirm", 30), ("deny", 30)):
            self.text(confirm.get(field), f"{path}/{field}", limit, plain=True)
        self.text(confirm.get("text"), f"{path}/text", 300)

    def picture(self, element: dict[str, Any], path: str) -> None:
        if bool(element.get("image_url")) == bool(element.get("slack_file")):
            self.add(path, "must provide exactly one of: image_url, slack_file")
        self.string(element, path, "image_url", 3000)
        self.url(element, path, "image_url")

    def list(self, block: dict[str, Any], path: str, most: int) -> Sequence[Any]:
        elements = block.get("elements")
        if not isinstance(elements, list):
            self.add(f"{path}/elements", "must provide an array")
            return ()
        if len(elements) > most:
            self.add(f"{path}/elements", f"no more than {most} items allowed")
        if not elements:
            self.add(f"{path}/elements", "no fewer than 1 items allowed")
        return elements

    def text(self, value: Any, path: str, limit: int, *, plain: bool = False) -> None:
        if not isinstance(value, dict):
            self.add(path, "must provide an object")
            return
        kind = value.get("type")
        if kind == "plain_text":
            self.fields(value, path, {"text"}, {"type", "emoji"})
        elif kind == "mrkdwn" and not plain:
            self.fields(value, path, {"text"}, {"type", "verbatim"})
        else:
            self.add(f"{path}/type", f"unsupported type: {kind}")
        text = value.get("text")
        if not isinstance(text, str):
            self.add(f"{path}/text", "must be a string")
        elif not text:
            self.add(f"{path}/text", "must be more than 0 characters")
        elif len(text) > limit:
            self.add(f"{path}/text", f"must be less than {limit + 1} characters")

    def string(self, holder: dict[str, Any], path: str, field: str, limit: int) -> None:
        value = holder.get(field)
        if value is None:
            return
        if not isinstance(value, str):
            self.add(f"{path}/{field}", "must be a string")
        elif len(value) > limit:
            self.add(f"{path}/{field}", f"must be less than {limit + 1} characters")

    def url(self, holder: dict[str, Any], path: str, field: str) -> None:
        value = holder.get(field)
        if isinstance(value, str) and value and not value.startswith(_URLS):
            self.add(f"{path}/{field}", "must be a valid url")

    def fields(self, value: dict[str, Any], path: str, required: set[str], optional: set[str]) -> None:
        keys = value.keys()
        if not required <= keys:
            for field in sorted(required - keys):
                self.add(path, f"missing required field: {field}")
        if not keys <= required | optional:
            for field in sorted(keys - required - optional):
                self.add(path, f"invalid additional property: {field}")


_BLOCK_CHECKS: dict[str, Callable[[_Check, dict[str, Any], str], None]] = {
    "actions": _Check.actions,
    "context": _Check.context,
    "header": _Check.header,
    "image": _Check.image,
    "input": _Check.input,
    "rich_text": _Check.rich_text,
    "section": _Check.section,
}
