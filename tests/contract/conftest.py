"""What the contract cases share."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.aws import World
from tests.support.stack import stack_world


@pytest.fixture(scope="module")
def account() -> Iterator[World]:
    """One AWS account for a file's cases, made by deploy/nomads.yaml: that takes longer than all of them.

    So they use names of their own.
    """
    with stack_world(Bot="elsewhere") as (world, _):
        yield world


@pytest.fixture
def world(account: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The account, with the credentials that every test is otherwise rid of."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    return account


@pytest.fixture
def unique() -> str:
    """Letters and digits that no other case has."""
    return uuid4().hex[:8]
