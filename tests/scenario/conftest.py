"""A workspace, and the application in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sandbox.house import House
from sandbox.slack import SlackStandIn
from tests.support.app import Door, Serve, Served, serving


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """Where the application is reached."""
    with Door() as door:
        yield door


@pytest.fixture
def slack(house: House) -> SlackStandIn:
    """The workspace."""
    return house.slack


@pytest.fixture
def serve(house: House, door: Door) -> Serve:
    """How a test serves the application with settings of its own."""
    return partial(serving, house, door)


@pytest.fixture
def served(serve: Serve, tmp_path: Path) -> Iterator[Served]:
    """The application without its worker."""
    with serve(tmp_path) as served:
        yield served
