"""A workspace, and the application in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.slack import SlackStandIn
from tests.support.app import MANIFEST, Served, serving


@pytest.fixture
def slack() -> Iterator[SlackStandIn]:
    with SlackStandIn(manifest=MANIFEST) as slack:
        yield slack


@pytest.fixture
def served(slack: SlackStandIn, tmp_path: Path) -> Iterator[Served]:
    with serving(slack, tmp_path) as served:
        yield served
