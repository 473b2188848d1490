"""`run` and `work`: the bot as a process, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

from bot.app import Nomads, build
from bot.backends import load
from bot.core import Core
from bot.domain.errors import NomadsError
from bot.settings import Settings

log = logging.getLogger(__name__)


@contextlib.contextmanager
def working(core: Core) -> Iterator[None]:
    """Run the worker during the block; effects under way at the end of the block are finished."""
    core.database.migrate()
    worker = threading.Thread(target=core.worker.run, name="worker")
    worker.start()
    try:
        yield
    finally:
        core.worker.stop()
        worker.join()
        core.close()


@contextlib.contextmanager
def running(nomads: Nomads) -> Iterator[None]:
    """Run the worker, and in Socket Mode the connection, during the block."""
    with contextlib.closing(nomads), working(nomads.core):
        nomads.core.volumes.prepare()  # or the first form would wait for the imports
        token = nomads.core.settings.slack_app_token
        if token is None:
            yield
            return
        from bot.slack.connection import socket_mode

        with socket_mode(nomads.slack, token):
            yield


def run(settings: Settings) -> None:
    """Serve Slack and perform effects until a signal ends the process. Raises NomadsError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named, or asyncio leaves TCP_NODELAY off and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise NomadsError(f"Port {settings.port} on {settings.host} cannot be used: {error.strerror}.") from None
    with contextlib.closing(listener):
        _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> None:
    from bot.web.server import BACKLOG, Server

    port = listener.getsockname()[1]
    url = public_url(settings, port=port)
    nomads = _built(settings, base_url=url)
    nomads.core.announce()
    server = Server(nomads.web)

    def end(*_: object) -> None:
        server.should_exit = True

    # While serving, uvicorn handles signals itself; afterwards it raises them again, which must not cut the rest short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with running(nomads):
        listener.listen(BACKLOG)  # connections wait from now on, until uvicorn is up
        log.info(
            "NOMADS is ready at %s, Slack over %s.",
            _address(settings.host, port),
            "Socket Mode" if nomads.socket_mode else "HTTP",
        )
        server.run(sockets=[listener])


def _built(settings: Settings, *, base_url: str) -> Nomads:
    # Bolt would read the token from here, and warn at each start that it has no use for it.
    os.environ.pop("SLACK_BOT_TOKEN", None)
    return build(settings, base_url=base_url)


def public_url(settings: Settings, *, port: int | None) -> str:
    """The URL where people reach local results. Raises NomadsError where it is not known: links would lead nowhere."""
    anywhere = settings.host in ("0.0.0.0", "::", "")  # noqa: S104  compared, not bound
    if settings.public_url or not load(settings.compute).SERVED_BY_THE_BOT:
        return settings.public_url.rstrip("/")
    if port is None or anywhere:
        raise NomadsError("Set NOMADS_PUBLIC_URL: the links to results must say where this machine is reached.")
    return _address(settings.host, port)


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def work(settings: Settings) -> None:
    """Perform effects and watch jobs, beside processes that serve Slack, until a signal ends the process.

    Raises NomadsError with local compute and no public URL, since another process serves the results.
    """
    nomads = _built(settings, base_url=public_url(settings, port=None))
    nomads.core.announce()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with working(nomads.core):
        over.wait()
