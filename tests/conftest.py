"""What every test stands on: no network beyond loopback, and both databases."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_socket import socket_allow_hosts

from bot.aws.config import AwsConfig, ToRun
from bot.settings import Choices, Settings
from bot.slurm.config import SlurmConfig
from bot.storage.engine import Database, connect
from tests.support.containers import is_there as can_build
from tests.support.databases import Postgres, new_sqlite, postgres
from tests.support.slurm import Cluster, cluster
from tests.support.slurm import is_there as is_cluster_there
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from sandbox.house import House


def _has_tissue() -> bool:
    from tests.support import tissue  # what it stands on takes a second to import

    return tissue.there()


_LEFT_OUT = pytest.StashKey[dict[str, int]]()
_NEEDS: dict[str, tuple[Callable[[], object], str, str]] = {
    "browser": (
        lambda: shutil.which("chromium"),
        "no Chromium on this machine",
        "{} browser tests were not run. Install it: apt-get install chromium",
    ),
    "images": (
        can_build,
        "no container tools on this machine",
        "{} tests of the built images were not run. They need root, and buildah, mmdebstrap, podman and runc: "
        "apt-get install --no-install-recommends buildah mmdebstrap podman runc",
    ),
    "root": (
        lambda: os.geteuid() == 0,
        "not root",
        "{} tests of programs that run as another user were not run. They need root, as in a container of the CI's.",
    ),
    "slurm": (
        is_cluster_there,
        "no Slurm on this machine",
        "{} tests of programs on a cluster were not run. They need root and Slurm's own daemons, which the tests start "
        "by themselves: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge",
    ),
    "tissue": (
        _has_tissue,
        "no real tissue on this machine",
        "{} tests of what is found in real tissue were not run. The data belong in ../shared/real-tissue, beside the "
        "checkout, or in the folder that NOMADS_TISSUE names.",
    ),
}
"""Marks of tests that cannot run everywhere: whether they can here, and what the end of the output says if not."""


def pytest_collection_finish() -> None:
    """Search for garbage less often, and not among the tests and what they stand on: that is much, and it stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here; `.ci/run` has all that is needed."""
    left_out: dict[str, int] = {}
    for mark, (is_there, _, _) in _NEEDS.items():
        needing = [item for item in items if item.get_closest_marker(mark)]
        if needing and not is_there():
            items[:] = [item for item in items if item not in needing]
            config.hook.pytest_deselected(items=needing)
            left_out[mark] = len(needing)
    config.stash[_LEFT_OUT] = left_out


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist collects, and another process tells."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["tests left out"] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker collects the same, so any of them will do."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("tests left out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say so plainly."""
    for mark, count in config.stash.get(_LEFT_OUT, {}).items():
        _, title, text = _NEEDS[mark]
        terminalreporter.section(title)
        terminalreporter.line(text.format(count))


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
    for settings in (Settings, Choices, AwsConfig, ToRun, SlurmConfig):
        monkeypatch.setitem(settings.model_config, "env_file", None)


@pytest.fixture(scope="module")
def _house() -> Iterator[House]:
    from sandbox.house import House

    with House(ack_timeout=PATIENCE) as house:
        yield house


@pytest.fixture
def house(_house: House) -> House:
    """BOSS, mail and Slack: one for all the tests of a module, and to each of them as if it were new."""
    _house.reset()
    return _house


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    """A real Slurm, started by the first test of a worker that needs it."""
    with cluster() as slurm:
        yield slurm


@pytest.fixture
def slurm(_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that Slurm's commands find; a test that asks for it is marked `slurm`."""
    _cluster.use(monkeypatch)
    return _cluster


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, started by the first test of a worker that needs it."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database: a test that asks for one runs on both."""
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database without any table."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path / 'nomads.db'}"
        return
    with request.getfixturevalue("_postgres").database(migrated=False) as url:
        yield url


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The store on each kind of database, up to date and empty."""
    with ExitStack() as until_the_end:
        if database == "sqlite":
            url = new_sqlite(tmp_path / "nomads.db")
        else:
            server = request.getfixturevalue("_postgres")
            url = until_the_end.enter_context(server.database(migrated=True))
        store = Database(connect(url))
        until_the_end.callback(store.close)
        yield store
