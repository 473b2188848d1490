"""What makes a unit test one: it opens no socket and starts no process. Tests that do lie in tests/integration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
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


@contextmanager
def _refusing() -> Iterator[None]:
    disable_socket()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in _STARTERS:
                patch.setattr(os, name, _refuse)
            patch.setattr(subprocess, "Popen", _refuse)
            yield
    finally:
        enable_socket()


def _is_unit(item: pytest.Item | None) -> bool:
    return item is not None and item.path.is_relative_to(HERE)  # hooks are called for tests of all folders


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """A fixture, of whatever scope, starts no process."""
    with _refusing() if _is_unit(item) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test starts no process."""
    with _refusing() if _is_unit(item) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """The end of a fixture starts no process, unless it may be another folder's: after the last test of this one."""
    with _refusing() if _is_unit(item) and _is_unit(nextitem) else nullcontext():
        return (yield)
