"""HTTP for `bot.boss`: one GET within a deadline that holds.

httpx waits anew for each piece of an answer, so a server that sends a byte a second holds it for hours. Here every wait
on the network is cut to what is left of the request's time, and an answer is read up to a limit. No answer is
decompressed, no redirect followed, no cookie stored, and no proxy taken from the environment.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from bot.domain.errors import Unavailable, patience

IDLE_SECONDS = 30.0
"""Idle connections older than this are not used: a gateway on the way may have dropped them silently."""
POOL_SECONDS = 1.0
"""Seconds to wait for a connection: there are as many as threads, so a longer wait means a fault."""
READ = frozenset({200, 401, 403, 404})
"""Statuses with which the body is read."""
_AGAIN = "Try again in a moment."


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of BOSS, or of whatever answers in BOSS's place. `body` is empty unless the status is one of READ."""

    status: int
    body: bytes = b""
    retry_after: float | None = None
    """Seconds of patience that the server asked for; None: it asked for none."""


class BossHttp:
    """Connections to one server, for as many threads as it has connections."""

    def __init__(self, *, base: str, connections: int, connect: float) -> None:
        """`base` is `scheme://host` or `scheme://host:port`; `connect` is in seconds, for one address."""
        parts = urlsplit(base)
        assert parts.hostname
        self._backend = _Deadlines(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        pool = httpcore.ConnectionPool(
            # reading all authorities' certificates takes longer than a handshake
            ssl_context=ssl.create_default_context() if parts.scheme == "https" else None,
            max_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=self._backend,
        )
        self._client = httpx.Client(
            base_url=base,
            transport=_Transport(pool),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            # a session's cookie would let one person's request pass as another's
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(connect=connect, read=None, write=None, pool=POOL_SECONDS),
            follow_redirects=False,
            trust_env=False,
        )

    def get(self, path: str, *, token: str, limit: int, deadline: float) -> Answer:
        """The answer, by `deadline` on the monotonic clock.

        The token must be printable ASCII. Raises Unavailable where no answer comes in time, or its body is compressed
        or has more than `limit` bytes.
        """
        self._backend.until(deadline)
        try:
            with self._client.stream("GET", path, headers={"Authorization": f"Token {token}"}) as response:
                if response.status_code not in READ:
                    return Answer(response.status_code, retry_after=patience(response.headers.get("retry-after")))
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Unavailable("BOSS compresses its answer although it was asked not to.")
                return Answer(response.status_code, _read(response, limit))
        except (httpcore.TimeoutException, httpx.TimeoutException):
            raise Unavailable(f"BOSS did not answer in time. {_AGAIN}") from None
        except httpcore.ConnectError:
            raise Unavailable(f"BOSS cannot be reached. {_AGAIN}") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError):
            # h11's own texts quote what was sent and received, so nothing of them is passed on
            raise Unavailable(f"BOSS's answer broke off, or was none. {_AGAIN}") from None

    def abort(self) -> None:
        """End every request under way, in whichever thread: each raises Unavailable, as do later requests."""
        self._backend.abort()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _read(response: httpx.Response, limit: int) -> bytes:
    too_large = Unavailable(f"BOSS's answer is larger than the {limit // 2**20} MB that NOMADS reads.")
    if int(response.headers.get("content-length", 0)) > limit:  # h11 has checked that it is a number
        raise too_large
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


class _Transport(httpx.BaseTransport):
    """httpx over a pool of our own: httpx's transport takes no network backend."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Deadlines(httpcore.NetworkBackend):
    """Connections to one host and port, on which each thread waits no longer than until its deadline."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._thread = threading.local()
        self._real = httpcore.SyncBackend()
        self._lock = threading.Lock()
        self._open: set[_Stream] = set()
        self._aborted = False

    def until(self, deadline: float) -> None:
        """Set this thread's deadline."""
        self._thread.deadline = deadline

    def left(self, timeout: float | None) -> float:
        """Seconds this thread may wait now. Raises ReadTimeout where there are none left."""
        left: float = self._thread.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if (host, port) != self._place:  # should never happen; the token must not go to another host
            raise httpcore.ConnectError
        return _Stream(self._real.connect_tcp(host, port, self.left(timeout), local_address, socket_options), self)

    def add(self, stream: _Stream) -> None:
        with self._lock:
            self._open.add(stream)
            aborted = self._aborted
        if aborted:
            stream.shut()

    def remove(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            streams = list(self._open)
        for stream in streams:
            stream.shut()


class _Stream(httpcore.NetworkStream):
    """A connection on which every wait is cut to what is left of the thread's time."""

    def __init__(self, real: httpcore.NetworkStream, owner: _Deadlines) -> None:
        self._real = real
        self._owner = owner
        owner.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._real.read(max_bytes, self._owner.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._real.write(buffer, self._owner.left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._real.start_tls(ssl_context, server_hostname, self._owner.left(timeout))
        self._owner.remove(self)
        return _Stream(secured, self._owner)

    def close(self) -> None:
        self._owner.remove(self)
        self._real.close()

    def get_extra_info(self, info: str) -> Any:
        return self._real.get_extra_info(info)

    def shut(self) -> None:
        """Wake the thread that waits on the connection, which then closes it."""
        with suppress(OSError):
            self._real.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
