"""The whole application over HTTP with the workspace stand-in in front of it, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from bot.app import Nomads, build
from bot.settings import Settings
from bot.terminal.serve import running
from sandbox.boss import BossStandIn
from sandbox.slack import Ack, SlackStandIn
from sandbox.slack.server import bound_socket
from sandbox.volumes import Bricks
from tests.support.rows import Rows
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFEST = ROOT / "manifest.yml"
PROGRAMS = ROOT / "tests" / "support" / "programs"
"""A catalogue with one pipeline, `quick`, which ends as the collection's name says (see its program)."""
RIGHT = {"token": "demo-token", "collection": "demo", "experiment": "cortex", "x": "0,512", "y": "0, 512", "z": "0:16"}
"""What a person types who makes no mistake; pipeline, channel and address are preset."""


ENDINGS = ("fails", "prints", "waits")
"""Collections that tell the quick program how to end."""


def with_endings(boss: BossStandIn) -> BossStandIn:
    """A BOSS that has them."""
    for collection in ENDINGS:
        channels = {name: Bricks("uint8") for name in ("PSD95", "Synapsin")}
        boss.add(collection, "cortex", shape=(64, 1024, 1024), channels=channels)
    return boss


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running application, and the workspace it serves."""

    nomads: Nomads
    slack: SlackStandIn
    boss: BossStandIn
    url: str

    @property
    def rows(self) -> Rows:
        """What its database holds."""
        return Rows(self.nomads.core.database)

    def open_form(self, words: str = "submit", *, channel: str = "#synapses") -> dict[str, object]:
        """Let the demo person type the command; returns the form. Fails the test where none opens."""
        ack = self.slack.person().slash("/nomads", words, channel=channel)
        view = self.slack.view_of("U01DEMO")
        assert view is not None, ack
        return view

    def submit(self, *, words: str = "submit", channel: str = "#synapses", **typed: str | list[str]) -> Ack:
        """Open the form, type what is right but for the changes, and press Submit."""
        view = self.open_form(words, channel=channel)
        return self.slack.person().submit(view, RIGHT | typed, checked=False)

    @property
    def jobs(self) -> int:
        """How many jobs the database holds."""
        return self.rows.count()


@contextmanager
def listening(site: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve the site on that socket as long as the block lasts."""
    server = uvicorn.Server(uvicorn.Config(site, log_config=None, access_log=False))
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
    thread.start()
    try:
        until(lambda: server.started, what="the server")
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(
    slack: SlackStandIn,
    data: Path,
    *,
    working: bool = False,
    adjust: Callable[[Nomads], None] = lambda _: None,
    **env: object,
) -> Iterator[Served]:
    """Serve over HTTP on loopback with these settings (`max_bytes="2000000"`); `working` starts the worker too."""
    with BossStandIn() as boss:
        yield from _serving(slack, with_endings(boss), data, working, adjust, env)


def _serving(
    slack: SlackStandIn,
    boss: BossStandIn,
    data: Path,
    working: bool,
    adjust: Callable[[Nomads], None],
    env: Mapping[str, object],
) -> Iterator[Served]:
    values = {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        "SLACK_API_URL": slack.api_url,
        "data": str(data),
        "boss_host": boss.url,
        "edit_interval": "0.1",
        **env,
    }
    listener = bound_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    nomads = build(Settings.model_validate(values), base_url=url)
    adjust(nomads)
    slack.request_url = f"{url}/slack/events"
    nomads.core.database.migrate()
    try:
        with listening(nomads.web, listener):
            if working:
                with running(nomads):
                    yield Served(nomads=nomads, slack=slack, boss=boss, url=url)
            else:
                yield Served(nomads=nomads, slack=slack, boss=boss, url=url)
    finally:
        nomads.close()
