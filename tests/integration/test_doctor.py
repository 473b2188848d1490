"""`doctor` and Slack."""

from __future__ import annotations

from pathlib import Path

from bot.settings import Settings
from bot.terminal.admin import doctor
from sandbox.slack import SlackStandIn


def test_doctor_asks_slack_about_both_tokens(tmp_path: Path) -> None:
    with SlackStandIn() as slack:
        tokens = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": "another", "SLACK_API_URL": slack.api_url}
        said: list[str] = []
        assert not doctor(Settings.model_validate({"data": str(tmp_path), **tokens}), say=said.append)
        assert "slack: Slack did not take SLACK_APP_TOKEN (invalid_auth)." in said
        tokens["SLACK_APP_TOKEN"] = slack.app_token
        assert doctor(Settings.model_validate({"data": str(tmp_path), **tokens}), say=said.append)
