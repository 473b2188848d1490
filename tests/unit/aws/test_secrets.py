"""Tokens in Secrets Manager: kept once, found again, and never told."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import boto3
import pytest
from pydantic import SecretStr

from bot.aws.secrets import AwsSecrets
from bot.domain.errors import NotFound, Refused, Unavailable
from tests.support.aws import REGION, World, answer, aws_world

TOKEN = SecretStr("demo-token-canary")
MISSING = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:nomads/a/b-AbCdEf"


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world() as world:
        yield world


def test_what_was_put_can_be_got_by_its_arn(world: World) -> None:
    secrets = world.secrets()
    reference = secrets.put("U0DEMO", TOKEN)
    assert reference.startswith("arn:aws:secretsmanager:eu-west-2:")
    assert secrets.holds(reference)
    assert not secrets.holds("db:17")
    assert secrets.get(reference).get_secret_value() == TOKEN.get_secret_value()


def test_the_same_owner_and_value_again_cost_no_call(world: World) -> None:
    secrets = world.secrets()
    first = secrets.put("U0DEMO", TOKEN)
    before = len(world.sent)
    assert secrets.put("U0DEMO", TOKEN) == first
    assert len(world.sent) == before


def test_a_restarted_bot_meets_its_secret_again(world: World) -> None:
    first = world.secrets().put("U0DEMO", TOKEN)
    assert world.secrets().put("U0DEMO", TOKEN) == first
    assert world.operations[-2:] == ["secretsmanager.CreateSecret", "secretsmanager.DescribeSecret"]


def test_other_owners_and_other_values_get_secrets_of_their_own(world: World) -> None:
    secrets = world.secrets()
    references = [
        secrets.put("U0DEMO", TOKEN),
        secrets.put("U1OTHER", TOKEN),
        secrets.put("U0DEMO", SecretStr("demo-token")),
    ]
    assert len(set(references)) == 3


def test_a_name_tells_neither_owner_nor_value_and_depends_on_the_key(world: World) -> None:
    world.secrets().put("U0DEMO", TOKEN)
    AwsSecrets(config=world.config, key=b"another key for tests", clients=world.clients).put("U0DEMO", TOKEN)
    first, second = (asked["Name"].split("/") for asked in world.asked("secretsmanager.CreateSecret"))
    assert [len(part) for part in first] == [len("nomads"), 32, 32]
    assert first[0] == second[0] == "nomads"
    assert first[1] != second[1]
    assert first[2] != second[2]
    assert "U0DEMO" not in "/".join(first)


def test_a_secret_scheduled_for_deletion_is_restored(world: World) -> None:
    reference = world.secrets().put("U0DEMO", TOKEN)
    boto3.client("secretsmanager", region_name=REGION).delete_secret(SecretId=reference, RecoveryWindowInDays=7)
    with pytest.raises(NotFound):
        world.secrets().get(reference)

    secrets = world.secrets()
    assert secrets.put("U0DEMO", TOKEN) == reference
    assert secrets.get(reference).get_secret_value() == TOKEN.get_secret_value()


def test_a_secret_that_is_still_being_erased_asks_for_patience(world: World) -> None:
    """AWS refuses the name for a while, and shows no secret of that name."""
    answer(world.clients.secrets, "secretsmanager.CreateSecret", code="InvalidRequestException", message="scheduled")
    with pytest.raises(Unavailable, match="still deleting"):
        world.secrets().put("U0DEMO", TOKEN)


def test_forgetting_erases_at_once_and_may_be_repeated(world: World) -> None:
    secrets = world.secrets()
    reference = secrets.put("U0DEMO", TOKEN)
    for unwanted in (reference, reference, MISSING, "db:17"):
        secrets.forget(unwanted)
    with pytest.raises(NotFound):
        secrets.get(reference)
    with pytest.raises(NotFound):
        secrets.get("db:17")
    assert world.asked("secretsmanager.DeleteSecret")[0] == {"SecretId": reference, "ForceDeleteWithoutRecovery": True}


def test_what_was_forgotten_is_kept_anew(world: World) -> None:
    secrets = world.secrets()
    secrets.forget(secrets.put("U0DEMO", TOKEN))
    assert secrets.get(secrets.put("U0DEMO", TOKEN)).get_secret_value() == TOKEN.get_secret_value()


def test_no_error_and_no_log_line_holds_the_token(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)  # what NOMADS_LOG_LEVEL=DEBUG does
    secrets = world.secrets()
    reference = secrets.put("U0DEMO", TOKEN)
    secrets.get(reference)
    answer(
        world.clients.secrets,
        "secretsmanager.CreateSecret",
        code="InvalidParameterException",
        message=f"the value {TOKEN.get_secret_value()} is not allowed",
    )
    with pytest.raises(Refused, match="InvalidParameterException") as caught:
        world.secrets().put("U0DEMO", TOKEN)

    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(secrets)
    assert "canary" not in told
    assert world.sent  # and the request itself did hold it
    assert "canary" in str(world.asked("secretsmanager.CreateSecret")[0])


def test_a_short_fingerprint_key_is_a_mistake(world: World) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        AwsSecrets(config=world.config, key=b"short", clients=world.clients)
