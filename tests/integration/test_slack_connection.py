"""Socket Mode: what arrives is checked as over HTTP."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import SecretStr
from slack_bolt import App
from slack_sdk import WebClient

from bot.slack.connection import socket_mode
from bot.slack.requests import Requests, misshapen
from sandbox.slack import SlackStandIn
from sandbox.slack.delivery import Ack, Envelope

CLICK: dict[str, Any] = {"type": "block_actions", "user": {"id": "U01DEMO"}, "trigger_id": "1"}


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope("events_api", {"type": "event_callback", "event": []}),
        Envelope("interactive", CLICK | {"actions": ["x"]}),
        Envelope("interactive", CLICK | {"actions": [{"action_id": "a", "block_id": "b"}], "team": 3}),
        Envelope("slash_commands", {"command": "/tiny", "text": "status"}),
    ],
)
def test_what_is_none_of_slack_s_is_one_line_in_the_log_and_the_next_request_is_answered(
    envelope: Envelope, caplog: pytest.LogCaptureFixture
) -> None:
    with SlackStandIn(ack_timeout=0.3) as slack:
        client = WebClient(token=slack.bot_token, base_url=slack.api_url, retry_handlers=[])
        app = App(client=client, process_before_response=True)
        app.command("/tiny")(lambda ack: ack("understood"))
        with socket_mode(Requests(app), SecretStr(slack.app_token)):
            slack.wait_for_connection()
            assert slack.redeliver(Ack(None, envelope=envelope)).status is None
            assert slack.person().slash("/tiny").body == {"text": "understood"}
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "is none of Slack's" in line.getMessage()
    assert line.exc_info is None


PERSON = {"id": "U01DEMO", "username": "demo", "team_id": "T01"}
HOME = {"id": "V1", "type": "home", "blocks": [{"type": "actions", "block_id": "b", "elements": []}], "state": None}
SENT: list[dict[str, Any]] = [
    {"type": "url_verification", "token": "t", "challenge": "c"},
    {"ssl_check": "1", "token": "t"},
    {"type": "app_rate_limited", "team_id": "T01", "minute_rate_limited": 1518467820, "api_app_id": "A01"},
    # An app of a whole organisation gets no team, a command of a shared channel the names of both.
    {
        "type": "shortcut",
        "team": None,
        "enterprise": {"id": "E01"},
        "user": PERSON,
        "callback_id": "c",
        "trigger_id": "1",
    },
    {"type": "view_closed", "team": None, "user": PERSON, "view": HOME, "is_cleared": True},
    {"command": "/nomads", "user_id": "U01DEMO", "channel_id": "C1", "trigger_id": "1", "enterprise_id": "E01"},
    # A link's button has no value, a select from which nothing is chosen an empty choice.
    CLICK | {"view": HOME, "actions": [{"type": "button", "action_id": "a", "block_id": "b", "url": "https://a.b"}]},
    CLICK | {"message": {"ts": "1.0"}, "actions": [{"action_id": "a", "block_id": "b", "selected_option": None}]},
    {
        "type": "event_callback",
        "team_id": "T01",
        "context_enterprise_id": None,
        "authorizations": [{"enterprise_id": None, "team_id": "T01", "user_id": "U02", "is_bot": True}],
        "event": {"type": "channel_created", "channel": {"id": "C1", "created": 1}, "user": {"id": "U01DEMO"}},
    },
]


@pytest.mark.parametrize("body", SENT, ids=lambda body: str(body.get("type", "form")))
def test_whatever_else_slack_documents_is_let_through(body: dict[str, Any]) -> None:
    assert misshapen(body) == ""


def test_what_is_wrong_is_told_without_a_text_of_the_body() -> None:
    assert misshapen(CLICK | {"actions": [{"hidden-token": 1}]}) == "block_actions: actions"
    assert misshapen({"type": "hidden-token"}) == "of no known kind"
