"""The stand-in refuses of Block Kit what Slack refuses."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import blocks
from tests.integration.sandbox.conftest import modal, plain, question


def button(**more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": "press", "text": plain("Press"), **more}


def options(count: int) -> list[dict[str, Any]]:
    return [{"text": plain(f"Option {i}"), "value": str(i)} for i in range(count)]


def section(text: str = "Hello") -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


FINE = [
    [],
    [section("x" * 3000)],
    [{"type": "header", "text": plain("x" * 150)}],
    [{"type": "context", "elements": [plain(str(i)) for i in range(10)]}],
    [{"type": "actions", "elements": [button(action_id=str(i)) for i in range(25)]}],
    [{"type": "section", "fields": [plain("x" * 2000)] * 10}],
    [{"type": "image", "image_url": "http://127.0.0.1/x.png", "alt_text": "a picture"}],
    [{"type": "divider"}] * 50,
]

REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([section("x" * 3001)], "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
    ([section("")], "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
    ([{"type": "section"}], "missing required field: text [json-pointer:/blocks/0]"),
    ([{"type": "section", "fields": [plain("x")] * 11}], "no more than 10 items allowed"),
    ([{"type": "section", "fields": [plain("x" * 2001)]}], "must be less than 2001 characters"),
    ([{"type": "header", "text": plain("x" * 151)}], "must be less than 151 characters"),
    ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "unsupported type: mrkdwn"),
    ([{"type": "context", "elements": [plain("x")] * 11}], "no more than 10 items allowed"),
    ([{"type": "actions", "elements": []}], "no fewer than 1 items allowed"),
    ([{"type": "actions", "elements": [button(), button()]}], "`action_id` must be unique: press"),
    ([{"type": "actions", "elements": [button(text=plain("x" * 76))]}], "must be less than 76 characters"),
    ([{"type": "actions", "elements": [button(value="x" * 2001)]}], "must be less than 2001 characters"),
    ([{"type": "actions", "elements": [button(style="pretty")]}], "must be one of: primary, danger"),
    ([{"type": "actions", "elements": [button(url="javascript:1")]}], "must be a valid url"),
    ([{"type": "actions", "elements": [{"type": "lever"}]}], "unsupported type: lever"),
    ([{"type": "image", "image_url": "http://127.0.0.1/x.png"}], "missing required field: alt_text"),
    ([{"type": "divider", "block_id": "a"}] * 2, "`block_id` must be unique: a"),
    ([{"type": "divider"}] * 51, "no more than 50 items allowed [json-pointer:/blocks]"),
    ([{"type": "divider", "colour": "red"}], "invalid additional property: colour"),
    ([{"type": "carpet"}], "unsupported type: carpet"),
]


@pytest.mark.parametrize("content", FINE)
def test_what_slack_takes_passes(content: list[dict[str, Any]]) -> None:
    assert blocks.message_problems(content) == []


@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_what_slack_refuses_is_named_with_its_place(content: list[dict[str, Any]], reason: str) -> None:
    assert any(reason in problem for problem in blocks.message_problems(content))


def select(**more: Any) -> dict[str, Any]:
    return question("q", {"type": "static_select", "options": options(2), **more})


REFUSED_VIEWS: list[tuple[dict[str, Any], str]] = [
    (modal(title=plain("x" * 25)), "must be less than 25 characters [json-pointer:/view/title/text]"),
    (modal(submit=plain("x" * 25)), "must be less than 25 characters [json-pointer:/view/submit/text]"),
    (modal(close=plain("x" * 25)), "must be less than 25 characters [json-pointer:/view/close/text]"),
    (modal(submit=None), "missing required field: submit [json-pointer:/view]"),
    (modal(private_metadata="x" * 3001), "must be less than 3001 characters [json-pointer:/view/private_metadata]"),
    (modal(callback_id="x" * 256), "must be less than 256 characters [json-pointer:/view/callback_id]"),
    (modal(*[{"type": "divider"}] * 101), "no more than 100 items allowed [json-pointer:/view/blocks]"),
    (modal(question("q", {"type": "plain_text_input"}), section(), question("q", {"type": "plain_text_input"})), "q"),
    (modal(select(options=options(101))), "no more than 100 items allowed"),
    (modal(select(options=[])), "must provide exactly one of: options, option_groups"),
    (modal(select(options=[{"text": plain("x" * 76), "value": "x"}])), "must be less than 76 characters"),
    (modal(select(options=[{"text": plain("x"), "value": "x" * 151}])), "must be less than 151 characters"),
    (modal(select(initial_option=options(3)[2])), "must be one of the options given"),
    (modal(select(placeholder=plain("x" * 151))), "must be less than 151 characters"),
    (modal(question("q", {"type": "plain_text_input"}, hint=plain("x" * 2001))), "must be less than 2001 characters"),
    (modal(question("q", {"type": "plain_text_input", "initial_value": "x" * 3001})), "must be less than 3001"),
    (modal(question("q", {"type": "plain_text_input", "initial_value": "xxx", "max_length": 2})), "less than 3"),
    (modal(question("q", button())), "unsupported type: button"),
    ({"type": "home", "blocks": [], "title": plain("x")}, "invalid additional property: title"),
    ({"type": "drawer"}, "unsupported type: drawer"),
]


@pytest.mark.parametrize(("view", "reason"), REFUSED_VIEWS, ids=[reason[:40] for _, reason in REFUSED_VIEWS])
def test_a_view_slack_refuses_is_refused(view: dict[str, Any], reason: str) -> None:
    assert any(reason in problem for problem in blocks.view_problems(view))


def test_a_modal_at_every_limit_passes() -> None:
    view = modal(
        question(
            "a" * 255,
            {"type": "static_select", "options": options(100), "placeholder": plain("x" * 150)},
            hint=plain("x" * 2000),
        ),
        *[{"type": "divider"}] * 99,
        title=plain("x" * 24),
        private_metadata="x" * 3000,
        callback_id="x" * 255,
    )

    assert blocks.view_problems(view) == []


def test_every_problem_is_found_at_once() -> None:
    found = blocks.message_problems([section(""), {"type": "header", "text": plain("x" * 151)}, {"type": "carpet"}])

    assert len(found) == 3


def test_blocks_without_ids_get_some_and_others_keep_theirs() -> None:
    nameless = {"type": "button", "text": plain("Press")}
    given: list[dict[str, Any]] = [
        {"type": "divider"},
        {"type": "actions", "block_id": "mine", "elements": [button(), nameless]},
    ]

    made = blocks.with_ids(given)

    assert made[0]["block_id"]
    assert made[1]["block_id"] == "mine"
    assert made[1]["elements"][0]["action_id"] == "press"
    assert made[1]["elements"][1]["action_id"]
    assert "block_id" not in given[0]
