"""What makes a unit test one: it opens no socket and starts no process. Tests that do lie in tests/integration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest
from pytest_socket import disable_socket, enable_socket

HERE = Path(__file__).parent
_STARTERS = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen")


class NotAUnitTest(RuntimeError):
    """It starts a process."""


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotAUnitTest("A unit test starts no process; tests that do lie in tests/integration.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Neither in a test nor in a fixture of whatever scope."""
    if not item.path.is_relative_to(HERE):  # this hook, unlike others, is called for every test there is
        return (yield)
    disable_socket()
    with pytest.MonkeyPatch.context() as patch:
        for name in _STARTERS:
            patch.setattr(os, name, _refuse)
        patch.setattr(subprocess, "Popen", _refuse)
        try:
            return (yield)
        finally:
            enable_socket()
