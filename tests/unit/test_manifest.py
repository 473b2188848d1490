"""manifest.yml declares what the code uses. (`.ci/run` checks it against Slack's own schema where that is at hand.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.settings import ROOT
from handlers import COMMAND, SHORTCUT

SCOPES = {
    "chat.getPermalink": "chat:write",
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "conversations.info": "channels:read",
    "conversations.history": "channels:history",
    "conversations.replies": "groups:history",
    "conversations.join": "channels:join",
    "conversations.open": "im:write",
    "files.upload.v2": "files:write",
    "users.conversations": "groups:read",
    "users.info": "users:read.email",
    "views.open": "commands",
    "views.publish": "commands",
    "views.push": "commands",
    "views.update": "commands",
}
"""Slack's documentation of each method names the scope it needs (views.* and chat.getPermalink need none of their own;
the command does, and posting what is linked to)."""


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "manifest.yml").read_text())
    return found


def test_the_command_and_the_shortcut_are_those_that_are_listened_to(manifest: dict[str, Any]) -> None:
    assert [c["command"] for c in manifest["features"]["slash_commands"]] == [COMMAND]
    assert [s["callback_id"] for s in manifest["features"]["shortcuts"]] == [SHORTCUT]


def test_the_home_tab_is_there_and_its_opening_is_heard_of(manifest: dict[str, Any]) -> None:
    assert manifest["features"]["app_home"]["home_tab_enabled"]
    assert manifest["settings"]["event_subscriptions"]["bot_events"] == ["app_home_opened"]


def test_direct_messages_can_be_sent_and_found_again_and_none_can_be_written_to_the_app(
    manifest: dict[str, Any],
) -> None:
    tabs = manifest["features"]["app_home"]
    assert tabs["messages_tab_enabled"]
    assert tabs["messages_tab_read_only_enabled"]
    assert {"im:write", "im:history"} <= set(manifest["oauth_config"]["scopes"]["bot"])


def test_every_web_api_method_in_the_code_has_its_scope(manifest: dict[str, Any]) -> None:
    code = "".join(path.read_text() for folder in ("bot", "handlers") for path in Path(ROOT / folder).rglob("*.py"))
    called = set(re.findall(r"client\.((?:chat|conversations|files|users|views)_\w+)\(", code))
    methods = {name.replace("_", ".", 1).replace("_v2", ".v2") for name in called}
    assert methods == set(SCOPES)
    assert {SCOPES[method] for method in methods} <= set(manifest["oauth_config"]["scopes"]["bot"])


def test_every_address_is_the_one_route_that_is_served(manifest: dict[str, Any]) -> None:
    interactivity = manifest["settings"]["interactivity"]
    addresses = [
        manifest["features"]["slash_commands"][0]["url"],
        *(interactivity[k] for k in ("request_url", "message_menu_options_url")),
        manifest["settings"]["event_subscriptions"]["request_url"],
    ]
    assert {address.partition("example.org")[2] for address in addresses} == {"/slack/events"}
