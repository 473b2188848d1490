"""The HTTP server: uvicorn, with limits on requests that do not arrive, answers that nobody reads, and connections.

uvicorn waits for ever for the rest of a request, and for whoever does not read the answer. Such connections would use
up the process's open files, after which nobody can connect.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Mapping
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds within which a request's header has to arrive, from the moment in which the connection waits for one."""
BODY_SECONDS = 20.0
"""Seconds within which a request's body has to arrive, from the end of its header."""
READ_SECONDS = 20.0
"""Seconds within which a client has to read something of what waits to be sent to it."""
LOOK_SECONDS = 2.0
"""Seconds between two looks at a connection: by so much a limit may be exceeded."""
MOST_CONNECTIONS = 1000
"""Connections at once, if the process may open twice as many files; else half of the files that it may open."""
ACCEPTED_AT_ONCE = 64
"""Connections that asyncio accepts before the limit is looked at."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


def most_connections() -> int:
    """How many connections there may be at once. The other half of the open files is left to databases and programs."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(16, min(MOST_CONNECTIONS, files // 2))


class Bounded(H11Protocol):
    """One connection. It is closed where a request takes too long to arrive, or nobody reads its answer.

    Where there are as many connections as there may be, a new one takes the place of another: of one whose answer is
    not read or that sends request upon request without waiting, else of one that waits for its request, else of one
    whose answer is being read; of these, the oldest.
    Where there is none of them, the new one is closed.
    """

    opened_at: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, within the limit."""
        super().connection_made(transport)
        self.opened_at = self._since = self.loop.time()
        self._seen: tuple[object, object, int] = (None, None, 0)
        self._stuck = False
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > most_connections():
            others = (cast("Bounded", other) for other in self.connections if other is not self)
            waiting = [(rank, other.opened_at, other) for other in others if (rank := other._rank()) is not None]
            min(waiting, key=lambda one: one[:2], default=(0, 0.0, self))[2].drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: anybody can ask for a WebSocket, and gets the answer of a plain request."""

    @property
    def awaits(self) -> float | None:
        """Seconds within which what the connection waits for has to arrive; None: a request has arrived whole."""
        return _WITHIN.get(self.conn.their_state)

    def drop(self) -> None:
        """Close the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _unread(self) -> int:
        """Bytes that wait until the client has read what was sent before them."""
        return self.transport.get_write_buffer_size()

    def _rank(self) -> int | None:
        """How soon the connection gives way to a new one, 0 first; None: it does not."""
        if self._stuck or (self.conn.their_state is h11.DONE and self.conn.trailing_data[0]):
            return 0  # the system may hold answers that nobody reads: whoever asks for more in advance shows it
        if self._unread():
            return 2
        return None if self.awaits is None else 1

    def _look(self) -> None:
        at, unread = self.loop.time(), self._unread()
        seen = (self.conn.their_state, self.cycle, unread)
        self._stuck = bool(unread) and seen == self._seen
        if seen != self._seen:
            self._seen, self._since = seen, max(self.opened_at, at - LOOK_SECONDS)
        within = READ_SECONDS if unread else self.awaits
        if within is not None and at - self._since >= within:
            self.drop()
        else:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)


_WITHIN: Mapping[Any, float] = {h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS}


class Server(uvicorn.Server):
    """uvicorn with these limits, for listening sockets that are given to it."""

    def __init__(self, app: ASGIApp, *, lifespan: bool = True) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Bounded,
                ws="none",
                lifespan="on" if lifespan else "off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nothing here asks who is in front
                server_header=False,
                backlog=ACCEPTED_AT_ONCE,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has set it to how many it accepts at once
