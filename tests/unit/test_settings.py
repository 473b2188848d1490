"""The settings, and their documentation."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings

from bot.__main__ import main
from bot.app import build, build_core
from bot.aws.config import AwsConfig
from bot.domain import words
from bot.domain.catalog import Limits, Pipeline
from bot.domain.checks import Prices, expected
from bot.domain.errors import NomadsError, Unavailable
from bot.domain.mistakes import mistakes
from bot.domain.urls import BASE, HOST, SENDER
from bot.domain.volume import Box, Range
from bot.settings import ROOT, Settings, read
from bot.storage.engine import connect
from bot.terminal.admin import doctor
from bot.terminal.serve import public_url


def documented() -> dict[str, str]:
    """Name to default, as docs/settings.md has them."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text, flags=re.MULTILINE))


def named() -> dict[str, object]:
    """Environment name to default, as the code has them."""
    found = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        found[alias.choices[0] if alias else f"NOMADS_{name.upper()}"] = field.default  # type: ignore[union-attr]
    return found  # type: ignore[return-value]


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented()) == set(named())


@pytest.mark.parametrize(
    "name", ["NOMADS_PORT", "NOMADS_MAX_BYTES", "NOMADS_HOST", "NOMADS_BOSS_HOST", "NOMADS_LOST_AFTER"]
)
def test_documented_defaults_are_the_code_s(name: str) -> None:
    default = named()[name]
    assert documented()[name].strip("`") == (f"{default:g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize(
    ("kind", "name", "value", "says"),
    [
        (Settings, "NOMADS_PORT", "99999", "“99999” cannot be used; it has to be a whole number from 0 to 65535."),
        (Settings, "NOMADS_PORT", "web", "“web” cannot be used; it has to be a whole number from 0 to 65535."),
        (Settings, "NOMADS_MAX_BYTES", "0",
         "“0” cannot be used; it has to be a whole number above 0, 1000000000000000 at most."),
        (Settings, "NOMADS_CONFIRM_COST", "-1", "“-1” cannot be used; it has to be a number from 0 to 1000000000."),
        (Settings, "NOMADS_LOG_LEVEL", "loud", "“loud” cannot be used; it has to be DEBUG, INFO, WARNING or ERROR."),
        (Settings, "NOMADS_PREDICTIONS", "lab",
         "“lab” cannot be used; it has to be off, or collection/experiment in BOSS."),
        (Settings, "NOMADS_VIEWER", "ng.test",
         "“ng.test” cannot be used; it has to be an address that begins with http:// or https://."),
        (Settings, "SLACK_API_URL", "nonsense", f"“nonsense” cannot be used; it has to be {BASE}."),
        (Settings, "SLACK_API_URL", "https:///", f"“https:///” cannot be used; it has to be {BASE}."),
        (Settings, "SLACK_API_URL", "http://h:port/", f"“http://h:port/” cannot be used; it has to be {BASE}."),
        (Settings, "NOMADS_PUBLIC_URL", "lab.test", f"“lab.test” cannot be used; it has to be {BASE}."),
        (Settings, "NOMADS_PUBLIC_URL", "ftp://lab.test", f"“ftp://lab.test” cannot be used; it has to be {BASE}."),
        (Settings, "NOMADS_PUBLIC_URL", "https://lab.test/?a=1",
         f"“https://lab.test/?a=1” cannot be used; it has to be {BASE}."),
        (Settings, "NOMADS_BOSS_HOST", "boss.test/v1",
         f"“boss.test/v1” cannot be used; it has to be {HOST}."),
        (Settings, "NOMADS_BOSS_HOSTS", '["boss.test", "x y"]',
         f"“x y” cannot be used; it has to be a list, each {HOST}."),
        (Settings, "NOMADS_MAIL_FROM", "nomads", f"“nomads” cannot be used; it has to be {SENDER}."),
        (Settings, "NOMADS_MAIL_FROM", "a@b.org, c@b.org",
         f"“a@b.org, c@b.org” cannot be used; it has to be {SENDER}."),
        (Settings, "NOMADS_MAIL", "http://mail.test",
         "it has to begin with smtp://, smtps:// or ses://. "
         "Write smtp://user:password@host:587?tls=starttls, ses:// or off."),
        (Settings, "NOMADS_DATABASE_URL", "mysql://bot:demo-secret@host/x",
         "this cannot be used; write postgresql://user:password@host/name or sqlite:///path."),
        (Settings, "NOMADS_DATABASE_URL", "sqlitefoo:///x",
         "this cannot be used; write postgresql://user:password@host/name or sqlite:///path."),
        (Settings, "NOMADS_SECRET_KEY", "demo-short",
         "this cannot be used; it has to be 16 random characters or more."),
        (Settings, "NOMADS_LINK_DAYS", "400", "“400” cannot be used; it has to be a number above 0, 366 at most."),
        (Settings, "NOMADS_EXPLAIN_AFTER", "1e300",
         "“1e300” cannot be used; it has to be a number above 0, 2592000 at most."),
        (Settings, "NOMADS_HOST", "\udcff",
         "“�” cannot be used; it has to be a host name or an address of this machine."),
        *(
            (Settings, "NOMADS_DATABASE_URL", url,
             "this cannot be used; write postgresql://user:password@host/name or sqlite:///path.")
            for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql:host")
        ),
        (Settings, "NOMADS_COMPUTE", "\udcff", "there is no �; there is local, aws, slurm."),
        (Settings, "NOMADS_CURRENCY", "thalers and groats",
         "“thalers and groats” cannot be used; it has to be printable text of 8 characters at most."),
        (Settings, "NOMADS_CURRENCY", "kr\n",
         "“kr�” cannot be used; it has to be printable text of 8 characters at most."),
        (Settings, "NOMADS_ADMINS", "U0123", "this cannot be read; it has to be JSON, such as [\"a\", \"b\"]."),
        (Settings, "NOMADS_ADMINS", '"U0123"', "“U0123” cannot be used; it has to be a list."),
        (Settings, "NOMADS_ADMINS", "[1]", "“1” cannot be used; each has to be text."),
        (Settings, "NOMADS_IMAGES", "[]",
         "“[]” cannot be used; it has to be an object in JSON, such as {\"pipeline\": \"registry/image:1\"}."),
        (AwsConfig, "NOMADS_AWS_ATTEMPTS", "0", "“0” cannot be used; it has to be a whole number from 1 to 10."),
        (AwsConfig, "NOMADS_AWS_FAIR_SHARE", "perhaps", "“perhaps” cannot be used; it has to be true or false."),
        (AwsConfig, "NOMADS_AWS_JOB_ROLE", "me",
         "“me” cannot be used; it has to be the ARN of a role, such as arn:aws:iam::123456789012:role/nomads."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_told_by_its_name_in_the_environment_with_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Settings | AwsConfig], name: str, value: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(NomadsError) as caught:
        read(kind)
    assert str(caught.value) == f"These settings cannot be used:\n{name}: {says}"


@pytest.mark.parametrize(
    "url",
    ["sqlite:////data/my folder/nomads.db", "postgres://u:p@h/n", "postgresql+psycopg://h:5432/n?sslmode=require"],
)
def test_a_url_of_a_database_is_taken_as_sqlalchemy_takes_it(url: str) -> None:
    assert Settings.model_validate({"database_url": url}).database_url.get_secret_value() == url


@pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")  # SQLAlchemy chooses it, and then stops
@pytest.mark.parametrize("option", ["timeout=soon", "mode=memory&uri=true"])
def test_an_option_of_a_database_that_cannot_be_used_is_told_in_a_sentence(option: str) -> None:
    with pytest.raises(NomadsError, match="NOMADS_DATABASE_URL cannot be used; write"):
        connect(f"sqlite:///file:x?{option}")


def test_all_settings_that_cannot_be_used_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = {
        "NOMADS_PORT": "web",
        "NOMADS_ADMINS": "U0123",
        "NOMADS_IMAGES": "[" * 100_000,
        "NOMADS_MAIL": "http://x",
        "NOMADS_MAIL_FROM": "nomads",
        "NOMADS_DATABASE_URL": "nonsense",
        "NOMADS_SECRET_KEY": "short",
        "NOMADS_PUBLIC_URL": "lab.test",
        "NOMADS_BOSS_HOST": "x y",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NomadsError) as caught:
        read(Settings)
    _, *told = str(caught.value).splitlines()
    assert sorted(line.partition(":")[0] for line in told) == sorted(wrong)


ROLE = "arn:aws:iam::123456789012:role/nomads"


@pytest.mark.parametrize("command", ["run", "work", "doctor", "jobs"])
def test_all_settings_of_a_backend_that_cannot_be_used_are_told_with_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    wrong = {
        "NOMADS_PORT": "web",
        "NOMADS_AWS_BUCKET": "Upper",
        "NOMADS_AWS_STUCK_SECONDS": "60",
        "NOMADS_AWS_LOG_DAYS": "91",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in {"NOMADS_COMPUTE": "aws", "NOMADS_AWS_JOB_ROLE": ROLE, **wrong}.items():
        monkeypatch.setenv(name, value)
    assert main([command]) == 2
    first, *told = capsys.readouterr().err.splitlines()
    assert first == "These settings cannot be used:"
    said = dict(line.split(": ", 1) for line in told)
    assert said["NOMADS_AWS_LOG_DAYS"].startswith(
        "CloudWatch does not offer 91 days; the nearest that it offers is 90."
    )
    needed = "this is needed; it has to be the ARN of a role, such as arn:aws:iam::123456789012:role/nomads."
    assert said["NOMADS_AWS_EXECUTION_ROLE"] == needed
    assert set(said) == {*wrong, "NOMADS_AWS_EXECUTION_ROLE"}
    assert len(told) == len(said), "each is told once"


def test_a_profile_of_aws_s_own_that_is_none_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"NOMADS_AWS_REGION": "eu-west-2", "AWS_PROFILE": "nobody"}.items():
        monkeypatch.setenv(name, value)
    assert main(["deploy", "--yes"]) in (1, 2)
    [told] = capsys.readouterr().err.splitlines()
    assert told == "AWS settings cannot be read: the request or the AWS settings are wrong (ProfileNotFound)."


def test_where_ses_sends_mail_the_settings_of_its_account_are_told_with_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"NOMADS_MAIL": "ses://", "NOMADS_PORT": "web", "NOMADS_AWS_TRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 2
    told = capsys.readouterr().err.splitlines()[1:]
    assert [line.partition(":")[0] for line in told] == ["NOMADS_PORT", "NOMADS_AWS_TRIES"]


def numbers(kind: type[BaseModel]) -> list[tuple[str, Any, Any]]:
    """Every field that is a number, with the lowest and the highest that it takes."""
    found = []
    for name, field in kind.model_fields.items():
        if field.annotation in (int, float):
            (low,) = [getattr(one, "ge", getattr(one, "gt", None)) for one in field.metadata if not hasattr(one, "le")]
            (high,) = [one.le for one in field.metadata if hasattr(one, "le")]
            found.append((name, low, high))
    return found


@pytest.mark.parametrize("kind", [Settings, AwsConfig, Pipeline, Limits])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "-1", "9" * 5000])
def test_a_number_that_no_setting_and_no_pipeline_can_mean_is_refused(kind: type[BaseModel], value: str) -> None:
    fields = [name for name, *_ in numbers(kind)] or ["voxels"]
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(dict.fromkeys(fields, value))
    assert {name for name, _ in mistakes(caught.value, kind)} >= set(fields)


def test_the_bot_can_be_made_of_the_highest_and_of_the_lowest_numbers(tmp_path: Path) -> None:
    for which in (1, 2):
        given = {name: (low or 1, high)[which - 1] for name, low, high in numbers(Settings)}
        build_core(Settings.model_validate({"data": tmp_path, **given})).close()


def test_an_expected_time_can_be_told_whatever_was_learned_and_however_much_is_read() -> None:
    pipeline = Pipeline.model_validate({"name": "p", "title": "p", "description": ""})
    side = 100_000
    box = Box(Range(0, side), Range(0, side), Range(0, side))
    takes = expected(pipeline, box, [(1, 3600.0)] * 10, Prices(0, 0, "$"))
    assert takes
    assert "h" in words.forecast(takes)


def test_a_file_of_settings_that_is_no_text_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(b"NOMADS_PORT=\xff\xfe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    with pytest.raises(NomadsError, match=r"The file \.env cannot be read, or is no text in UTF-8\."):
        read(Settings)


def test_every_setting_with_a_pattern_says_in_words_what_it_takes() -> None:
    for kind in (Settings, AwsConfig, Pipeline):
        patterned = [
            field for field in kind.model_fields.values() if any(hasattr(one, "pattern") for one in field.metadata)
        ]
        assert patterned
        assert all(field.description for field in patterned)


def test_a_wrong_secret_is_told_without_its_value() -> None:
    class Secretive(BaseSettings):
        key: Annotated[SecretStr, Field(min_length=100)]

    with pytest.raises(ValidationError) as caught:
        Secretive.model_validate({"key": "canary-value"})
    assert mistakes(caught.value, Secretive) == [("key", "this cannot be used; it has to be a value.")]


@pytest.mark.parametrize("value", ["   ", " \t\n", "half a-secret", "demo-secret\n"])
@pytest.mark.parametrize("name", ["SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"])
def test_a_secret_of_slack_s_has_no_blanks(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(NomadsError) as refused:
        read(Settings)
    wanted = "what Slack's page shows, without blanks and line ends"
    assert f"{name}: this cannot be used; it has to be {wanted}." in str(refused.value)


@pytest.mark.parametrize("value", [" " * 16, " " * 15 + "x", "short"])
def test_a_key_is_not_of_blanks(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NOMADS_SECRET_KEY", value)
    with pytest.raises(NomadsError, match="NOMADS_SECRET_KEY: this cannot be used; it has to be 16 random characters"):
        read(Settings)


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_APP_TOKEN", "")
    assert Settings().slack_app_token is None


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET", "NOMADS_SECRET_KEY"):
        monkeypatch.setenv(name, "canary-value-of-a-secret")
    monkeypatch.setenv("NOMADS_MAIL", "smtp://bot:canary@mail.test")
    monkeypatch.setenv("NOMADS_DATABASE_URL", "postgresql://bot:canary@db.test/nomads")
    assert "canary" not in repr(Settings())


@pytest.mark.parametrize("login", ["bot:canary@127.0.0.1:1/nomads", "127.0.0.1:1/nomads?user=bot&password=canary"])
def test_a_database_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, login: str
) -> None:
    url = f"postgresql://{login}"
    given = {"data": str(tmp_path), "database_url": url, "secret_key": "a key for tests only"}
    with pytest.raises(Unavailable) as told:
        doctor(Settings.model_validate(given), say=print)
    where = "The database “nomads” at 127.0.0.1:1 cannot be used: nothing listens there."
    assert str(told.value) == f"{where} Mend that, or correct NOMADS_DATABASE_URL."
    assert "canary" not in "".join(traceback.format_exception(told.value)) + caplog.text


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "Set SLACK_BOT_TOKEN"),
        ({"SLACK_BOT_TOKEN": "demo"}, "SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET"),
        ({"SLACK_BOT_TOKEN": "d", "SLACK_APP_TOKEN": "d", "database_url": "postgresql://x"}, "NOMADS_SECRET_KEY"),
        ({"SLACK_BOT_TOKEN": "d", "SLACK_APP_TOKEN": "d", "compute": "aws"}, "NOMADS_AWS_BUCKET"),
    ],
)
def test_settings_that_do_not_fit_together_are_said_to_be_wrong_in_words(
    tmp_path: Path, values: dict[str, str], problem: str
) -> None:
    with pytest.raises(NomadsError, match=problem):
        build(Settings.model_validate({"data": str(tmp_path / "data"), **values}))


@pytest.mark.parametrize(
    ("given", "handed_on"), [({}, "collman_nomads/nomads_predictions"), ({"predictions": "off"}, "")]
)
def test_writing_detections_back_can_be_switched_off(given: dict[str, str], handed_on: str) -> None:
    assert Settings.model_validate(given).predictions_place == handed_on


@pytest.mark.parametrize(("name", "value"), [("predictions", "lab"), ("predictions", "a/b/c"), ("viewer", "ng.test")])
def test_a_place_or_viewer_that_is_none_is_refused_at_start(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:3000"), ("::1", "http://[::1]:3000")])
def test_links_lead_to_the_address_that_is_bound(host: str, url: str) -> None:
    assert public_url(Settings.model_validate({"host": host}), port=3000) == url


@pytest.mark.parametrize(("host", "port"), [("0.0.0.0", 3000), ("::", 3000), ("127.0.0.1", None)])
def test_where_results_are_reached_must_be_said_if_it_cannot_be_known(host: str, port: int | None) -> None:
    with pytest.raises(NomadsError, match="NOMADS_PUBLIC_URL"):
        public_url(Settings.model_validate({"host": host}), port=port)
    given = Settings.model_validate({"host": host, "public_url": "https://lab.example.org/"})
    assert public_url(given, port=port) == "https://lab.example.org"


def test_an_address_of_slack_s_api_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"SLACK_API_URL": "nonsense"})


def test_doctor_says_that_slack_s_tokens_are_missing(tmp_path: Path) -> None:
    said: list[str] = []
    assert not doctor(Settings.model_validate({"data": str(tmp_path)}), say=said.append)
    assert [line for line in said if not line.endswith(": ok")][:-1] == ["slack: Set SLACK_BOT_TOKEN."]
    assert said[-1].startswith("note: ")


def test_doctor_names_images_of_pipelines_that_are_none(tmp_path: Path) -> None:
    said: list[str] = []
    doctor(Settings.model_validate({"data": str(tmp_path), "images": {"nope": "registry/x:1"}}), say=said.append)
    [line] = [line for line in said if line.startswith("pipelines: ")]
    assert line.startswith("pipelines: NOMADS_IMAGES names nope, which is no pipeline; there is nomads-classifier, ")
