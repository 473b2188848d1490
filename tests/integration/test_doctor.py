"""`doctor`: Slack's tokens, and an account of AWS."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.settings import Settings
from bot.terminal.admin import doctor
from sandbox.aws import AwsStandIn
from sandbox.slack import SlackStandIn


def test_doctor_asks_slack_about_both_tokens(tmp_path: Path) -> None:
    with SlackStandIn() as slack:
        tokens = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": "another", "SLACK_API_URL": slack.api_url}
        said: list[str] = []
        assert not doctor(Settings.model_validate({"data": str(tmp_path), **tokens}), say=said.append)
        assert "slack: Slack did not take SLACK_APP_TOKEN (invalid_auth)." in said
        tokens["SLACK_APP_TOKEN"] = slack.app_token
        assert doctor(Settings.model_validate({"data": str(tmp_path), **tokens}), say=said.append)


def test_what_a_start_warns_of_comes_after_what_doctor_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    doctor(Settings.model_validate({"data": str(tmp_path)}), say=said.append)
    assert said[0] == "database: ok"
    assert said[-1].startswith("note: Programs run on this machine itself")
    assert caplog.records == []


def test_doctor_says_of_each_part_of_aws_what_it_is_and_never_ends_in_a_traceback(
    tmp_path: Path,
) -> None:
    with SlackStandIn() as slack, AwsStandIn(programs=False) as aws, pytest.MonkeyPatch.context() as environment:
        for name, value in (aws.environment | {"NOMADS_MAIL": "ses://"}).items():
            environment.setenv(name, value)
        tokens = {
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_API_URL": slack.api_url,
        }
        said: list[str] = []
        assert not doctor(Settings.model_validate({"data": str(tmp_path), **tokens}), say=said.append)
    parts = dict(line.split(": ", 1) for line in said)
    assert list(parts) == [
        *("database", "compute", "results", "pipelines"),
        *("roles", "images", "secrets", "logs", "bucket", "queue", "events"),
        *("slack", "mail", "note"),
    ]
    assert parts["results"] == parts["secrets"] == parts["slack"] == "ok"
    assert parts["note"].startswith("NOMADS_PUBLIC_URL is not set: links to results are S3's own")
    assert "NOMADS_AWS_JOB_ROLE: there is no role nomads-job." in parts["roles"]
    assert "BlockPublicPolicy is off; it should be on. Set it so in S3's console." in parts["bucket"]
    assert "has no limit for CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY" in parts["queue"]
    assert parts["logs"] == "There is no log group /aws/batch/job. Run nomads deploy."
    assert "SES does not know nomads@localhost." in parts["mail"]
