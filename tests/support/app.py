"""The whole application over HTTP with the workspace stand-in in front of it, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.app import Nomads, build
from bot.settings import Settings
from bot.terminal.serve import running
from bot.web.server import Server
from sandbox.boss import BossStandIn
from sandbox.house import House
from sandbox.slack import Ack, SlackStandIn
from sandbox.slack.server import bound_socket
from sandbox.volumes import Bricks
from tests.support.databases import new_sqlite
from tests.support.rows import Rows

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFEST = ROOT / "manifest.yml"
PROGRAMS = ROOT / "tests" / "support" / "programs"
"""A catalogue with one pipeline, `quick`, which ends as the collection's name says (see its program)."""
RIGHT = {"token": "demo-token", "collection": "demo", "experiment": "cortex", "x": "0,512", "y": "0, 512", "z": "0:16"}
"""What a person types who makes no mistake; pipeline, channel and address are preset."""


ENDINGS = ("fails", "prints", "refused", "waits")
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


class Door:
    """An address that stays while applications come and go: a server in a thread, in which one of them is at a time."""

    def __init__(self) -> None:
        self.listener = bound_socket()
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._inside: ASGIApp = _nobody
        self._asked: set[asyncio.Task[object]] = set()
        self._loop = asyncio.new_event_loop()
        self._server = _Server(self, lifespan=False)
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve([self.listener]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = asyncio.current_task()
        assert asked
        self._asked.add(asked)
        try:
            await self._inside(scope, receive, send)
        finally:
            self._asked.discard(asked)

    def __enter__(self) -> Door:
        self._thread.start()
        self._server.ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.end.set)
        self._thread.join()

    @contextmanager
    def leads_to(self, site: Starlette) -> Iterator[None]:
        """Serve this site as long as the block lasts."""
        life = site.router.lifespan_context(site)

        async def enter() -> None:
            await life.__aenter__()
            self._inside = site

        async def leave() -> None:
            self._inside = _nobody
            if self._asked:  # what was asked is answered, as uvicorn sees to it
                await asyncio.wait(self._asked)
            await life.__aexit__(None, None, None)

        asyncio.run_coroutine_threadsafe(enter(), self._loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(leave(), self._loop).result()


_nobody = PlainTextResponse("nobody is here", 503)


class _Server(Server):
    """The server, which says when it serves and is told when to end, instead of asking ten times a second."""

    def __init__(self, app: ASGIApp, *, lifespan: bool) -> None:
        super().__init__(app, lifespan=lifespan)
        self.ready = threading.Event()
        self.end = asyncio.Event()

    async def main_loop(self) -> None:
        self.ready.set()
        await self.end.wait()


Serve = Callable[..., AbstractContextManager[Served]]
"""`serving` among the stand-ins of the test: what is given is the folder, and the settings."""


@contextmanager
def serving(
    house: House,
    door: Door,
    data: Path,
    *,
    working: bool = False,
    adjust: Callable[[Nomads], None] = lambda _: None,
    **env: object,
) -> Iterator[Served]:
    """Serve over HTTP on loopback with these settings (`max_bytes="2000000"`); `working` starts the worker too."""
    slack, boss = house.slack, with_endings(house.boss)
    values = {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        "SLACK_API_URL": slack.api_url,
        "data": str(data),
        "boss_host": boss.url,
        "edit_interval": "0.1",
        "mail": f"smtp://127.0.0.1:{house.mail.port}",
        **env,
    }
    nomads = build(Settings.model_validate(values), base_url=door.url)
    new_sqlite(data / "nomads.db")
    adjust(nomads)
    slack.request_url = f"{door.url}/slack/events"
    try:
        with ExitStack() as until_the_end:
            until_the_end.enter_context(door.leads_to(nomads.web))
            if working:
                until_the_end.enter_context(running(nomads))
            yield Served(nomads=nomads, slack=slack, boss=boss, url=door.url)
    finally:
        _end_programs(nomads)
        nomads.close()


def _end_programs(nomads: Nomads) -> None:
    """Leave no program behind, also where the test failed before it let its program end."""
    runs = nomads.core.settings.data / "runs"
    for run in runs.glob("[!.]*") if runs.exists() else ():
        if not (run / "exit.json").exists():
            nomads.core.backend.compute.cancel(run.name, reason="the test is over")
