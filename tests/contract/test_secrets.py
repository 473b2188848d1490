"""Every Secrets keeps these promises: in memory, sealed in the database, AWS Secrets Manager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.application.ports import Secrets
from bot.domain.errors import NotFound
from tests.contract.rigs import TOKEN, VaultRig
from tests.support.aws import World
from tests.support.memory import MemorySecrets


@pytest.fixture(params=["memory", "sealed", "aws"])
def secrets(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Secrets]:
    match request.param:
        case "memory":
            yield MemorySecrets()
        case "sealed":
            with VaultRig(tmp_path) as vault:
                yield vault
        case "aws":
            yield world.secrets()


def test_what_is_put_is_got(secrets: Secrets) -> None:
    reference = secrets.put("U1", SecretStr(TOKEN))

    assert secrets.get(reference).get_secret_value() == TOKEN


def test_a_token_of_any_characters_comes_back_unchanged(secrets: Secrets) -> None:
    token = " a\"b'c\\d{}$é%日 "

    assert secrets.get(secrets.put("U1", SecretStr(token))).get_secret_value() == token


def test_tokens_of_two_people_are_kept_apart(secrets: Secrets) -> None:
    one, two = secrets.put("U1", SecretStr("demo-one")), secrets.put("U2", SecretStr("demo-two"))

    assert secrets.get(one).get_secret_value() == "demo-one"
    assert secrets.get(two).get_secret_value() == "demo-two"


def test_a_new_token_does_not_change_what_an_old_reference_gives(secrets: Secrets) -> None:
    """A job that waits keeps the token it was submitted with."""
    old = secrets.put("U1", SecretStr("demo-old"))
    new = secrets.put("U1", SecretStr("demo-new"))

    assert secrets.get(old).get_secret_value() == "demo-old"
    assert secrets.get(new).get_secret_value() == "demo-new"


def test_a_reference_says_nothing_about_the_token(secrets: Secrets) -> None:
    assert TOKEN not in secrets.put("U1", SecretStr(TOKEN))


def test_a_forgotten_token_is_gone(secrets: Secrets) -> None:
    reference = secrets.put("U1", SecretStr(TOKEN))

    secrets.forget(reference)

    with pytest.raises(NotFound):
        secrets.get(reference)


def test_a_forgotten_token_may_be_put_again(secrets: Secrets) -> None:
    secrets.forget(secrets.put("U1", SecretStr(TOKEN)))

    assert secrets.get(secrets.put("U1", SecretStr(TOKEN))).get_secret_value() == TOKEN


def test_forgetting_twice_is_no_error(secrets: Secrets) -> None:
    reference = secrets.put("U1", SecretStr(TOKEN))
    kept = secrets.put("U2", SecretStr("demo-kept"))

    secrets.forget(reference)
    secrets.forget(reference)

    assert secrets.get(kept).get_secret_value() == "demo-kept"


def test_an_unknown_reference_is_not_found(secrets: Secrets) -> None:
    reference = secrets.put("U1", SecretStr(TOKEN))

    with pytest.raises(NotFound):
        secrets.get(reference + "0")
    with pytest.raises(NotFound):
        secrets.get("unknown")


def test_a_keeper_knows_its_own_references_from_others(secrets: Secrets) -> None:
    assert secrets.holds(secrets.put("U1", SecretStr(TOKEN)))
    assert not secrets.holds("other-keeper:1")
    assert not secrets.holds("")
