"""The form: its ids, its blocks and how it is read, in one file so that they cannot drift.

A block's id is the name of the request's field, so an error by field is an error by block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import SecretStr
from slack_sdk.models.blocks import (
    Block,
    ContextBlock,
    ConversationFilter,
    ConversationSelectElement,
    EmailInputElement,
    InputBlock,
    InputInteractiveElement,
    Option,
    PlainTextInputElement,
    PlainTextObject,
    StaticSelectElement,
)
from slack_sdk.models.views import View

from bot import words
from bot.catalog import Catalog

CALLBACK = "nomads_submit_view"
ACTION = "value"
"""The one element of every input block."""
OPTION_TEXT, OPTIONS, INITIAL, ERROR = 75, 100, 255, 2000
"""Slack's limits: an option's text, the options of a select; and what we fill in and show under a field."""

_FILTER = ConversationFilter(
    include=["public", "private"], exclude_bot_users=True, exclude_external_shared_channels=False
)
_RANGE = re.compile(r"\b([xyz])\s*=\s*([0-9]+\s*[,:]\s*[0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """What a person typed."""

    values: Mapping[str, str]
    """JobRequest's fields."""
    token: SecretStr


@dataclass(frozen=True)
class Wish:
    """What the form should open with."""

    values: Mapping[str, str] = field(default_factory=dict)
    not_understood: str = ""


def wish(text: str, catalog: Catalog) -> Wish:
    """Read the words after `/nomads submit`: any of pipeline, collection/experiment, x=…, y=…, z=… and an address."""
    values = {axis.lower(): found for axis, found in _RANGE.findall(text)}
    strange: list[str] = []
    for word in _RANGE.sub(" ", text).split():
        collection, slash, experiment = word.partition("/")
        if catalog.get(word):
            values["pipeline"] = word
        elif slash and collection and experiment:
            values |= {"collection": collection, "experiment": experiment}
        elif "@" in word:
            values["email"] = word
        else:
            strange.append(word)
    return Wish(values, " ".join(strange))


def view(catalog: Catalog, wish: Wish) -> dict[str, Any]:
    """The form, filled in with what is wished, as Slack takes it."""
    form = _form(catalog)
    blocks = [_filled(block, wish.values.get(block["block_id"], "")) for block in form["blocks"]]
    if wish.not_understood:
        strange = words.shortened(wish.not_understood, 300)
        said = ContextBlock(elements=[PlainTextObject(text=f"Not understood, and left out: {strange}")])
        blocks.insert(0, said.to_dict())
    return {**form, "blocks": blocks}


@lru_cache(maxsize=4)
def _form(catalog: Catalog) -> dict[str, Any]:
    """The empty form. Made once: to check and write out its models takes more than the rest of a request."""
    options = [Option(value=p.name, text=words.shortened(p.title, OPTION_TEXT)) for p in catalog][:OPTIONS]
    blocks: list[Block] = [
        _input("pipeline", "Pipeline", StaticSelectElement(action_id=ACTION, options=options)),
        _input("token", "BOSS token", _text(), "Public data is read with the word public."),
        _input("collection", "Collection", _text()),
        _input("experiment", "Experiment", _text()),
        *(_input(axis, f"{axis.upper()} range", _text("0, 512"), _RANGE_HINT) for axis in "xyz"),
        _input("channel", "Results channel", ConversationSelectElement(action_id=ACTION, filter=_FILTER)),
        _input("email", "Email", EmailInputElement(action_id=ACTION)),
    ]
    form: dict[str, Any] = View(
        type="modal", callback_id=CALLBACK, title="Detect synapses", submit="Submit", close="Cancel", blocks=blocks
    ).to_dict()
    return form


def _filled(block: dict[str, Any], initial: str) -> dict[str, Any]:
    """The block with that initial value; as it is where there is none, or none that it offers."""
    element = block["element"]
    match element["type"]:
        case "static_select":
            chosen = [option for option in element["options"] if option["value"] == initial]
            given = {"initial_option": chosen[0]} if chosen else {}
        case "conversations_select":
            given = {"initial_conversation": initial} if initial else {}
        case _:
            given = {"initial_value": words.shortened(initial, INITIAL)} if initial else {}
    return {**block, "element": {**element, **given}} if given else block


_RANGE_HINT = "start, stop in voxels at full resolution; the stop itself is not included."


def _text(placeholder: str | None = None) -> PlainTextInputElement:
    return PlainTextInputElement(action_id=ACTION, placeholder=placeholder)


def _input(name: str, label: str, element: InputInteractiveElement, hint: str | None = None) -> InputBlock:
    return InputBlock(block_id=name, label=label, element=element, hint=hint)


def parse(view: Mapping[str, Any]) -> Form:
    """Read a submitted view. Whether what it says makes sense is for JobService.review to say."""
    typed = {block: _typed(state.get(ACTION) or {}) for block, state in view["state"]["values"].items()}
    token = SecretStr(typed.pop("token", "").strip())
    return Form(typed, token)


def _typed(element: Mapping[str, Any]) -> str:
    option = element.get("selected_option") or {}
    return str(element.get("value") or option.get("value") or element.get("selected_conversation") or "")


def errors(found: Mapping[str, str]) -> dict[str, str]:
    """Errors by field as Slack wants them: by block, none empty, none too long."""
    return {block: words.shortened(text, ERROR) for block, text in found.items()}
